//! Every recorded case of the reference's Librato backend, played to the real binary.
//!
//! It is started with the configuration of the case, `librato: {...}` as it was written, gets the datagrams by
//! UDP, and posts to a fake Librato that answers as the recorder did where that is no success. Each request
//! has to be the recorded one byte for byte but for the moment, the ones tried again included, and what is
//! stored has to be what the recorded requests store. Where this server does something else on purpose, the
//! expectation is the decision's, with its number: see `librato_cases` for bodies, and the tables here.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;
#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod librato_api;
mod librato_cases;

use daemon::Daemon;
use librato_api::{Answer, FakeApi, Fault, Manner, Rules, Stored, options, post, proxy};
use librato_cases::{REFUSED, configured, decided, is_sent, posts, recorded, text, time};
use serde_json::{Value, json};
use statsd_fast::deliver::librato::batch::Batch;
use std::net::UdpSocket;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Cases played at a time. They mostly wait for the next flush.
const PLAYERS: usize = 24;

/// How often each post of a case is tried, where that is not as often as was recorded.
const TRIED: &[(&str, usize, &str)] = &[
    ("h503_emptybody", 2, "D4: a body is not needed to try again"),
    ("timeout_hang", 2, "D4: what takes too long is tried again"),
    (
        "h503_legacy",
        2,
        "D5: each post is tried again on its own route",
    ),
];

/// What the log has to say, where what is sent does not tell.
const LOGGED: &[(&str, &str, &str)] = &[
    ("refused", "127.0.0.1:1", "as recorded"),
    ("https_selfsigned", "certificate", "as recorded"),
    ("h401", "401", "as recorded"),
    ("h401_nodebug", "401", "D6: not only while debugging"),
    ("h429", "429", "as recorded"),
    ("h400_type", "e.g. bad", "as recorded"),
    ("h400_badjson", "400", "D5: the reference crashes"),
    ("h400_null", "400", "D5: the reference crashes"),
    ("partial_fail_202", "refused 1 of 1", "D7: it is told"),
];

/// What a proxy in the place of the service has to be asked first.
const CONNECTS: &[(&str, &str, &str)] = &[
    (
        "api_noport_http",
        "127.0.0.1:80",
        "D11: http without a port is port 80",
    ),
    ("proxy_https", "metrics-api.librato.com:443", "as recorded"),
];

/// A request that is expected.
#[derive(Debug, Clone)]
struct Expected {
    path: String,
    body: String,
    tries: usize,
    /// Whether it is stored in the end.
    stored: bool,
}

/// A case with what is to come of it.
struct Play<'c> {
    name: &'c str,
    case: &'c Value,
    interval: Duration,
    expected: Vec<Expected>,
    faults: Vec<Fault>,
    /// Posts all of whose tries fail, and that surely were not processed.
    unresolved: usize,
}

/// How one request of a recording was answered.
fn answered(request: &Value) -> Option<&str> {
    let is_post = request["method"] == "POST";
    let whole = || {
        let body = request["body"].as_str().unwrap_or_default();
        serde_json::from_str::<Value>(body).is_ok() || body.ends_with(')')
    };
    request["answered"].as_str().filter(|_| is_post && whole())
}

/// What the fake Librato does first, as the recorder did: from then on it answers by its own rules.
fn faults(case: &Value) -> Vec<Fault> {
    let said = case["log"].as_array().expect("a list").iter();
    let mut said = said.filter_map(|line| text(line).strip_prefix("DEBUG: Response: "));
    let requests = case["requests"].as_array().expect("a list").iter();
    let is_partial = case["name"] == "partial_fail_202";
    requests
        .filter_map(answered)
        .take_while(|answer| is_partial || !["200", "202"].contains(answer))
        .map(|answer| match answer {
            "hang" => Fault::Hang(Vec::new()),
            "destroy" => Fault::Reset(Vec::new()),
            status => {
                let body = said.next().unwrap_or_default();
                Fault::Answer(Answer {
                    status: status.parse().expect("a status"),
                    headers: vec![("Content-Type", "application/json".into())],
                    body: body.into(),
                })
            }
        })
        .collect()
}

impl<'c> Play<'c> {
    fn new(case: &'c Value) -> Self {
        let name = text(&case["name"]);
        let interval = text(&case["config"]).split_once("\"flushInterval\":");
        let (_, interval) = interval.expect("an interval");
        let end = interval.find(|c: char| !c.is_ascii_digit());
        let interval = interval[..end.expect("an end")].parse().expect("a number");
        let requests = case["requests"].as_array().expect("a list");
        let original = posts(case);
        let tries: Vec<_> = (original.iter())
            .map(|post| {
                let same = |it: &&Value| {
                    it["body"] == post.body.as_str() && it["path"] == post.path.as_str()
                };
                let recorded = if post.body.ends_with(')') {
                    1
                } else {
                    requests.iter().filter(same).count()
                };
                let decided = TRIED.iter().find(|(case, ..)| *case == name);
                decided.map_or(recorded, |(_, tries, _)| *tries)
            })
            .collect();
        let faults = faults(case);
        // Of the posts each takes as many of the faults as it is tried.
        let mut left = &faults[..];
        let mut unresolved = 0;
        let expected = decided(name, original).into_iter().enumerate();
        let expected = expected.map(|(at, post)| {
            let tries = tries.get(at).copied().unwrap_or(1);
            let (mine, rest) = left.split_at(left.len().min(tries));
            // Posts of one flush fail side by side.
            left = if name == "h503_legacy" { left } else { rest };
            let stays =
                |fault: &Fault| matches!(fault, Fault::Answer(answer) if answer.status == 503);
            let (failed, stays) = (mine.len() == tries, mine.iter().all(stays));
            unresolved += usize::from(failed && stays && name != "h503_legacy");
            Expected {
                path: post.path,
                body: post.body,
                tries,
                stored: stays || !failed,
            }
        });
        let expected = expected.collect();
        Self {
            name,
            case,
            interval: Duration::from_millis(interval),
            expected,
            faults,
            unresolved,
        }
    }

    fn rules(&self) -> Rules {
        let mut rules = Rules::default();
        if self.name == "email_special" {
            rules.authorization = "Basic YTpiQMOpLmNvbTp0IGs=";
        }
        rules
    }

    /// How many requests there are up to the end of so many flushes.
    fn requests_of(&self, flushes: usize) -> usize {
        let mut times: Vec<_> = self.expected.iter().map(|it| time(&it.body)).collect();
        times.dedup();
        let times = &times[..flushes.min(times.len())];
        let within = self
            .expected
            .iter()
            .filter(|it| times.contains(&time(&it.body)));
        within.map(|it| it.tries).sum()
    }

    /// The seconds that times are multiples of.
    fn snap(&self) -> i64 {
        let config = text(&self.case["config"]);
        let written = config.split_once("\"snapTime\":").map(|(_, rest)| {
            let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
            digits.parse().expect("a number")
        });
        written.unwrap_or(self.interval.as_secs() as i64).max(1)
    }
}

/// What stands between server and API.
struct Way {
    api: FakeApi,
    /// What a proxy between was asked.
    heads: Option<Receiver<String>>,
    /// One, so that its datagrams keep their order.
    client: UdpSocket,
    daemon: Daemon,
}

impl Way {
    fn send(&self, datagram: &Value) {
        let sent = self.client.send(text(datagram).as_bytes());
        sent.expect("loopback takes the datagram");
    }
}

/// The way of a case: straight on, or through a proxy.
fn start(play: &Play<'_>) -> Way {
    let encrypted = play.name == "https_selfsigned";
    let api = if encrypted {
        FakeApi::start_encrypted(
            play.rules(),
            librato_api::Authority::new().sign("localhost"),
        )
    } else {
        FakeApi::start(play.rules())
    };
    api.script(play.faults.iter().cloned());
    let port = api.port().to_string();
    let (address, heads) = match play.name {
        "proxy_http" => proxy(Manner::Connects),
        _ => proxy(Manner::Leaves),
    };
    let (_, proxy_port) = address.rsplit_once(':').expect("an address has a port");
    let more = "\"address\":\"127.0.0.1\",\"port\":\"0\",\"mgmt_address\":\"127.0.0.1\",\"mgmt_port\":\"0\",";
    let ports = match play.name {
        "proxy_https" => [proxy_port, ""],
        _ => [&*port, proxy_port],
    };
    let mut file = configured(play.case, more, &ports);
    if play.name == "api_noport_http" {
        // Who listens on port 80 here is none of our business: a proxy is asked, and does not connect.
        let through = format!("\"librato\":{{\"proxy\":{{\"uri\":\"http://{address}\"}},");
        file = file.replace("\"librato\":{", &through);
    }
    let proxied = file.contains("\"proxy\"");
    let daemon = Daemon::start_written(&file, &json!("0"));
    Way {
        api,
        client: daemon.client(),
        daemon,
        heads: proxied.then_some(heads),
    }
}

/// Starts the server and sends what comes before the first pause, early enough for the first flush.
fn begin<'c>(play: &Play<'c>) -> (Way, &'c [Value]) {
    let steps = play.case["steps_full"].as_array().expect("a list");
    let pause = steps
        .iter()
        .position(|step| !step.is_string() || is_signal(step));
    let (first, rest) = steps.split_at(pause.unwrap_or(steps.len()));
    for _ in 0..5 {
        let begun = Instant::now();
        let way = start(play);
        first.iter().for_each(|datagram| way.send(datagram));
        if begun.elapsed() < play.interval.mul_f64(0.75) {
            return (way, rest);
        }
    }
    panic!(
        "{}: this machine is too busy to start a server in time",
        play.name
    );
}

fn is_signal(step: &Value) -> bool {
    step == "<send SIGTERM>"
}

/// The begin of a text that may be long.
fn short(text: &str) -> &str {
    text.get(..400).unwrap_or(text)
}

/// A wanted body with the moment of the one that came.
fn at(want: &str, came: &str) -> String {
    match (time(want), time(came)) {
        (Some(then), Some(now)) => {
            want.replacen(&format!("time\":{then}"), &format!("time\":{now}"), 1)
        }
        _ => want.into(),
    }
}

/// Lines up what came with what is wanted: by their moments, and within a flush, whose posts go out side by
/// side, by the alphabet.
fn line_up(came: &mut [(String, String)], wanted: &mut [(String, String)]) {
    let timeless = |(path, body): &(String, String)| (path.clone(), at(body, "\"time\":0,"));
    came.sort_by_key(|(_, body)| time(body));
    let mut left = came;
    for flush in wanted.chunk_by_mut(|(_, a), (_, b)| time(a) == time(b)) {
        let (this, rest) = left.split_at_mut(flush.len());
        flush.sort_by_key(timeless);
        this.sort_by_key(timeless);
        left = rest;
    }
}

fn play(case: &Value) -> Vec<String> {
    let name = text(&case["name"]);
    if let Some((_, problems)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return play_refused(case, problems);
    }
    let play = Play::new(case);
    let (mut way, rest) = begin(&play);
    let mut flushes = 0;
    for step in rest {
        match step.as_u64().map(Duration::from_millis) {
            Some(pause) if pause >= play.interval => {
                flushes += 1;
                way.api.wait_for_requests(play.requests_of(flushes));
            }
            Some(_) => {}
            None if is_signal(step) => way.daemon.signal("TERM"),
            None => way.send(step),
        }
    }
    let total = play.requests_of(usize::MAX);
    let requests = way.api.wait_for_requests(total);
    let mut found = Vec::new();
    let mut wrong = |what: String| found.push(format!("{name}: {what}"));
    for request in &requests[..total] {
        let kind = request.header("content-type");
        let length = request.header("content-length");
        if kind != Some("application/json") || length != Some(&*request.body.len().to_string()) {
            wrong(format!("the head of a request is {:?}", request.headers));
        }
    }
    let came = requests[..total].iter().map(|request| {
        let body = String::from_utf8(request.body.clone()).expect("JSON is text");
        (request.path.clone(), body)
    });
    let mut came: Vec<_> = came.collect();
    let wanted = play
        .expected
        .iter()
        .flat_map(|it| std::iter::repeat_n((it.path.clone(), it.body.clone()), it.tries));
    let mut wanted: Vec<_> = wanted.collect();
    line_up(&mut came, &mut wanted);
    for ((path, body), (want_path, want)) in came.iter().zip(&wanted) {
        if path != want_path || !is_sent(&at(want, body), body) {
            wrong(format!(
                "expected {want_path} {want}\nfound    {path} {}",
                short(body)
            ));
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs() as i64;
        let time = time(body).expect("every body has a moment");
        if time % play.snap() != 0 || !(now - play.snap() - 60..=now + 1).contains(&time) {
            wrong(format!("at {now} a flush is of {time}"));
        }
    }
    let expected = stored(&play, &came);
    let have = way
        .api
        .wait_for_stored(|stored| stored.len() >= expected.len());
    if ordered(&have[..expected.len()]) != ordered(&expected) {
        wrong(format!(
            "expected in the store {expected:#?}\nfound {have:#?}"
        ));
    }
    for (_, address, why) in CONNECTS.iter().filter(|(case, ..)| *case == name) {
        let head = way
            .heads
            .as_ref()
            .expect("a proxy")
            .recv_timeout(daemon::DEADLINE)
            .expect("a request");
        if !head.starts_with(&format!("CONNECT {address} ")) {
            wrong(format!("{why}, but it asks {head:?}"));
        }
    }
    if name == "proxy_http" {
        let head = way
            .heads
            .as_ref()
            .expect("a proxy")
            .recv_timeout(daemon::DEADLINE)
            .expect("a request");
        assert!(
            head.starts_with(&format!("CONNECT 127.0.0.1:{} ", way.api.port())),
            "{head}"
        );
    }
    for (_, said, _) in LOGGED.iter().filter(|(case, ..)| *case == name) {
        way.daemon.log().wait_until(said, |lines| {
            let says = |line: &&String| line.contains("librato") && line.contains(said);
            lines.iter().find(says).cloned()
        });
    }
    finish(&play, &mut way, total, &mut wrong);
    found
}

/// What the recorded requests store when they are posted, with the moments they have now.
fn stored(play: &Play<'_>, came: &[(String, String)]) -> Vec<Stored> {
    let route = |path: &str| match path {
        "/v1/metrics" => "/v1/metrics",
        _ => "/v1/measurements",
    };
    let mut batches = Vec::new();
    for Expected { path, body, .. } in play.expected.iter().filter(|it| it.stored) {
        // Only so much was recorded of a long one: it is the one that came, as was found already.
        let whole = came.iter().map(|(_, came)| came);
        let mut whole =
            whole.filter(|came| body.contains("...(") && is_sent(&at(body, came), came));
        let now = came.first().map_or(body, |(_, came)| came);
        let body = whole.next().map_or_else(|| at(body, now), String::clone);
        batches.push(Batch {
            path: route(path),
            body: body.into_bytes(),
            measurements: 1,
        });
    }
    let api = FakeApi::start(Rules::default());
    post(&options(api.url()), batches);
    api.stored()
}

/// In an order that does not depend on which of several posts came first, and without moments.
fn ordered(stored: &[Stored]) -> Vec<String> {
    let timeless = stored.iter().map(|stored| Stored {
        time: 0,
        ..stored.clone()
    });
    let mut texts: Vec<_> = timeless.map(|stored| format!("{stored:?}")).collect();
    texts.sort_unstable();
    texts
}

/// Stops the server. Where what idles is forgotten, nothing may follow the expected requests, the last flush
/// included, but what could not be delivered before.
fn finish(play: &Play<'_>, way: &mut Way, total: usize, wrong: &mut impl FnMut(String)) {
    if total == 0 {
        // Where its posts cannot go they would be waited for.
        return;
    }
    if play.name != "sigterm" {
        way.daemon.signal("TERM");
    }
    let code = way.daemon.wait_exit().code();
    if code != Some(0) {
        wrong(format!("it ends with {code:?}"));
    }
    let config = text(&play.case["config"]);
    let idles = config.contains("\"deleteIdleStats\":true") && !config.contains("skipInternal");
    let all = way.api.requests().len();
    if idles && all != total + play.unresolved {
        wrong(format!(
            "{all} requests came, {total} and {} again",
            play.unresolved
        ));
    }
}

/// A configuration that is refused.
fn play_refused(case: &Value, problems: &[&str]) -> Vec<String> {
    let file = configured(case, "", &["8080"]);
    let config: Value = serde_json::from_str(&file).expect("these configurations are JSON");
    let mut daemon = Daemon::spawn(&config, &[]);
    let code = daemon.wait_exit().code();
    let said = daemon.lines().join("\n");
    let misses = problems.iter().filter(|problem| {
        let (key, message) = problem.split_once(": ").expect("a key and a message");
        !said.contains(key) || !said.contains(message)
    });
    let name = text(&case["name"]);
    let found = misses.map(|problem| format!("{name}: {problem:?} is not said:\n{said}"));
    let code = (code != Some(2)).then(|| format!("{name}: it ends with {code:?}"));
    found.chain(code).collect()
}

#[test]
fn every_recorded_case_is_played_to_the_binary() {
    if daemon::replaced().is_some() {
        return;
    }
    let mut cases = recorded();
    assert_eq!(cases.len(), 114);
    // The slowest first.
    cases.sort_by_key(|case| {
        let requests = case["requests"].as_array().expect("a list");
        requests
            .last()
            .and_then(|request| request["at_ms"].as_u64())
    });
    let cases = Mutex::new(cases);
    let found: Vec<String> = thread::scope(|scope| {
        let play_all = || {
            let mut found = Vec::new();
            loop {
                let next = cases.lock().expect("nobody panics with the lock").pop();
                let Some(case) = next else { return found };
                found.extend(play(&case));
            }
        };
        let players: Vec<_> = (0..PLAYERS).map(|_| scope.spawn(play_all)).collect();
        let found = players
            .into_iter()
            .map(|player| player.join().expect("the cases end"));
        found.flatten().collect()
    });
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_table_is_about_recorded_cases() {
    let cases = recorded();
    let tried = TRIED.iter().map(|(name, ..)| *name);
    let logged = LOGGED.iter().map(|(name, ..)| *name);
    for name in tried
        .chain(logged)
        .chain(CONNECTS.iter().map(|(name, ..)| *name))
    {
        assert!(cases.iter().any(|case| case["name"] == name), "{name}");
    }
}
