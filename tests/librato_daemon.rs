//! The whole daemon before a Librato that refuses, hangs, resets or trickles: what the last flush comes to,
//! (decision D12), that Graphite and ingest do not notice, what https trusts, and that a pause is kept.

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

use daemon::{Daemon, Directory, FakeCarbon, config, config_without_ticks, deaf_socket};
use librato_api::{Answer, Authority, FakeApi, Fault, Rules, Stored};
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::iter::repeat_n;
use std::net::TcpListener;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds no test waits for.
const NEVER: u32 = 3600;

/// What is answered to the first requests while a receiver is out of order: more than any test makes.
const ALL: usize = 10_000;

/// Graphite and Librato beside each other, with options of Librato's on top.
fn both(mut config: Value, api: &str, options: Value) -> Value {
    config["backends"] = json!(["./backends/graphite", "librato"]);
    config["librato"] = json!({
        "email": "user@example.com",
        "token": "tok123",
        "api": api,
        "host": "h",
        "retryDelaySecs": 0.001,
        "postTimeoutSecs": NEVER,
    });
    for (key, value) in options.as_object().expect("options are an object") {
        config["librato"][key] = value.clone();
    }
    config
}

/// The same with ticks, five a second.
fn ticking(carbon: &FakeCarbon, api: &str, options: Value) -> Value {
    let mut config = both(config(carbon.port()), api, options);
    config["flushInterval"] = json!(200);
    config
}

/// The same with no flush but the one that stopping makes; the stop may take as long as a test may.
fn stopping(carbon: &FakeCarbon, api: &str, options: Value) -> Value {
    let patient = json!({"stopDeadline": 60_000});
    both(config_without_ticks(carbon, patient), api, options)
}

fn send(daemon: &Daemon, line: &str) {
    let client = daemon.client();
    client.send(line.as_bytes()).expect("loopback takes it");
}

/// What is stored of a counter, all flushes together.
fn sum(stored: &[Stored], name: &str) -> f64 {
    let of_name = stored.iter().filter(|it| it.name == name);
    of_name.map(|it| it.numbers["value"]).sum()
}

/// What the last line of the daemon says of its flushes.
fn flushes_not_delivered(daemon: &Daemon) -> String {
    let line = daemon.wait_for_line("stopped: ");
    let (line, _) = line
        .split_once(';')
        .expect("an account and how whole it is");
    let (_, last) = line.rsplit_once(", ").expect("an account");
    last.to_owned()
}

fn busy() -> Answer {
    Answer::text(503, "busy")
}

/// An answer that breaks off in its first line.
const HALF: &[u8] = b"HTTP/1.1 202 Acc";

#[test]
fn the_last_flush_is_delivered_at_a_stop() {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    let mut daemon = Daemon::start(&stopping(&carbon, api.url(), json!({})), &[]);
    send(&daemon, "a:3|c");
    assert_eq!(daemon.terminate().code(), Some(0));
    assert_eq!(carbon.next().count("a"), 3.0);
    assert_eq!(sum(&api.stored(), "a"), 3.0);
    assert_eq!(api.requests().len(), 1);
    assert_eq!(flushes_not_delivered(&daemon), "0 flushes not delivered");
}

#[test]
fn the_last_flush_has_its_retry_without_the_pause_before_it() {
    for fault in [
        Fault::Answer(busy()),
        Fault::Answer(busy().with("Retry-After", 1)),
        Fault::Reset(Vec::new()),
        Fault::Reset(HALF.to_vec()),
        Fault::Raw(Vec::new()),
    ] {
        let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
        api.script([fault.clone()]);
        let waits = json!({"retryDelaySecs": NEVER});
        let mut daemon = Daemon::start(&stopping(&carbon, api.url(), waits), &[]);
        send(&daemon, "a:3|c");
        assert_eq!(daemon.terminate().code(), Some(0));
        assert_eq!(carbon.next().count("a"), 3.0);
        assert_eq!(sum(&api.stored(), "a"), 3.0, "{fault:?}");
        assert_eq!(api.requests().len(), 2, "{fault:?}");
        let account = flushes_not_delivered(&daemon);
        assert_eq!(account, "0 flushes not delivered", "{fault:?}");
    }
}

#[test]
fn a_stop_ends_the_pause_that_holds_all_flushes_up() {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    api.script([Fault::Answer(busy())]);
    let mut config = ticking(&carbon, api.url(), json!({"retryDelaySecs": NEVER}));
    config["stopDeadline"] = json!(60_000);
    let mut daemon = Daemon::start(&config, &[]);
    send(&daemon, "a:3|c");
    api.wait_for_requests(1);
    // Those that follow wait behind it.
    for _ in 0..3 {
        carbon.next();
    }
    assert_eq!(api.requests().len(), 1);
    send(&daemon, "a:4|c");
    assert_eq!(daemon.terminate().code(), Some(0));
    assert_eq!(sum(&api.stored(), "a"), 7.0);
    assert_eq!(flushes_not_delivered(&daemon), "0 flushes not delivered");
}

#[test]
fn a_receiver_that_hangs_holds_a_stop_up_to_its_deadline_alone() {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    api.script([Fault::Hang(Vec::new())]);
    let mut config = stopping(&carbon, api.url(), json!({}));
    // Time enough for Graphite.
    config["stopDeadline"] = json!(5000);
    let mut daemon = Daemon::start(&config, &[]);
    send(&daemon, "a:3|c");
    assert_eq!(daemon.terminate().code(), Some(0));
    assert_eq!(carbon.next().count("a"), 3.0);
    assert_eq!(api.requests().len(), 1);
    daemon.wait_for_line(
        "backend librato: flushes not delivered before the stop deadline and lost: 1; a longer \
         `stopDeadline`",
    );
    assert_eq!(flushes_not_delivered(&daemon), "1 flushes not delivered");
}

#[test]
fn a_receiver_that_is_away_at_a_stop_costs_what_waits_and_says_why() {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    api.script(repeat_n(Fault::Answer(busy()), ALL));
    let waits = json!({"retryDelaySecs": NEVER});
    let mut daemon = Daemon::start(&stopping(&carbon, api.url(), waits), &[]);
    send(&daemon, "a:3|c");
    assert_eq!(daemon.terminate().code(), Some(0));
    assert_eq!(carbon.next().count("a"), 3.0);
    let line = daemon.wait_for_line("librato: flushes not delivered at the end and lost: 1: ");
    assert!(line.contains("/v1/measurements: HTTP 503: busy"), "{line}");
    assert_eq!(flushes_not_delivered(&daemon), "1 flushes not delivered");
}

/// Sends to a daemon whose Librato is out of order already, and demands every value of Graphite's flushes,
/// which go on. Returns how much was sent of the counter `load`.
fn neighbours_do_not_notice(daemon: &Daemon, carbon: &FakeCarbon) -> f64 {
    const ROUNDS: usize = 5;
    const DATAGRAMS: usize = 200;
    let client = daemon.client();
    let sent = (ROUNDS * DATAGRAMS) as f64;
    let (mut counted, mut before) = (0.0, 0);
    for round in 1..=ROUNDS {
        for _ in 0..DATAGRAMS {
            client.send(b"load:1|c\ntime:2|ms").expect("loopback takes");
        }
        while counted < (round * DATAGRAMS) as f64 {
            let flush = carbon.next();
            assert!(flush.timestamp >= before, "in order");
            before = flush.timestamp;
            assert_eq!(flush.number("stats.statsd_fast.kernel_drops"), 0.0);
            if flush.values.contains_key("stats_counts.load") {
                let load = flush.count("load");
                assert_eq!(flush.number("stats.timers.time.count"), load);
                counted += load;
            }
        }
    }
    assert_eq!(counted, sent);
    // What comes with no value in it comes as well.
    for _ in 0..3 {
        assert_eq!(carbon.next().count("load"), 0.0);
    }
    sent
}

#[test]
fn a_receiver_that_hangs_is_noticed_by_nobody_beside_it() {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    api.script([Fault::Hang(Vec::new())]);
    let daemon = Daemon::start(&ticking(&carbon, api.url(), json!({})), &[]);
    send(&daemon, "first:1|c");
    api.wait_for_requests(1);
    neighbours_do_not_notice(&daemon, &carbon);
    assert_eq!(api.requests().len(), 1, "it hung all the while");
    assert_eq!(api.stored(), []);
}

/// The same with every post to a fault, until it is over: then all that waited is delivered, and once.
fn a_fault_is_noticed_by_nobody(fault: Fault, options: Value, says: &str) {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    api.script(repeat_n(fault, ALL));
    let daemon = Daemon::start(&ticking(&carbon, api.url(), options), &[]);
    send(&daemon, "first:1|c");
    let line = daemon.wait_for_line("librato: a flush could not be delivered and waits: ");
    assert!(line.contains(&format!("{}/v1/", api.url())), "{line}");
    assert!(line.contains(says), "{line}");
    let sent = neighbours_do_not_notice(&daemon, &carbon);
    assert_eq!(api.stored(), []);
    api.heal();
    let stored = api.wait_for_stored(|stored| sum(stored, "load") >= sent);
    assert_eq!((sum(&stored, "load"), sum(&stored, "first")), (sent, 1.0));
    daemon.wait_for_line("librato is back after ");
    let lines = daemon.lines();
    let said = lines.iter().filter(|line| line.contains("and waits: "));
    assert_eq!(said.count(), 1, "one outage, one line");
}

#[test]
fn a_receiver_that_is_busy_is_noticed_by_nobody_beside_it() {
    a_fault_is_noticed_by_nobody(Fault::Answer(busy()), json!({}), "HTTP 503: busy");
}

/// The same with a fault after which nobody knows what is stored: each flush is lost after its retry.
fn a_doubt_is_noticed_by_nobody(fault: Fault, options: Value, says: &str) {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    api.script(repeat_n(fault, ALL));
    let daemon = Daemon::start(&ticking(&carbon, api.url(), options), &[]);
    send(&daemon, "first:1|c");
    let line = daemon.wait_for_line("librato: 1 of 1 posts of a flush were lost: ");
    assert!(line.contains(&format!("{}/v1/", api.url())), "{line}");
    assert!(line.contains(says), "{line}");
    assert!(
        line.contains("; it may be stored, so it is not sent again"),
        "{line}"
    );
    neighbours_do_not_notice(&daemon, &carbon);
    api.heal();
    send(&daemon, "last:1|c");
    let stored = api.wait_for_stored(|stored| sum(stored, "last") >= 1.0);
    assert_eq!((sum(&stored, "last"), sum(&stored, "first")), (1.0, 0.0));
    let first = r#""name":"first","value":1,"#;
    let has_first = |body: &[u8]| String::from_utf8_lossy(body).contains(first);
    let requests = api.requests();
    let posts = requests.iter().filter(|request| has_first(&request.body));
    assert_eq!(posts.count(), 2);
    let waited = (daemon.lines().iter()).any(|line| line.contains("and waits: "));
    assert!(!waited, "{:?}", daemon.lines());
}

#[test]
fn a_receiver_that_resets_in_its_answer_is_noticed_by_nobody_beside_it() {
    a_doubt_is_noticed_by_nobody(Fault::Reset(HALF.to_vec()), json!({}), "reset");
}

#[test]
fn a_receiver_that_trickles_is_noticed_by_nobody_beside_it() {
    let fault = Fault::Trickle(b"HTTP/1.1 202 Accepted\r\n".into(), Duration::from_secs(1));
    let options = json!({"postTimeoutSecs": 0.4});
    a_doubt_is_noticed_by_nobody(fault, options, "raise `librato.postTimeoutSecs`");
}

#[test]
fn a_receiver_that_refuses_is_noticed_by_nobody_beside_it() {
    let (socket, address) = deaf_socket();
    let url = format!("http://{address}");
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&ticking(&carbon, &url, json!({})), &[]);
    send(&daemon, "first:1|c");
    let line = daemon.wait_for_line("librato: a flush could not be delivered and waits: ");
    assert!(line.contains(&url), "{line}");
    assert!(line.contains("nothing listens there"), "{line}");
    let sent = neighbours_do_not_notice(&daemon, &carbon);
    socket.listen(16).expect("the socket can listen");
    let api = FakeApi::accept_on(TcpListener::from(socket));
    let stored = api.wait_for_stored(|stored| sum(stored, "load") >= sent);
    assert_eq!((sum(&stored, "load"), sum(&stored, "first")), (sent, 1.0));
}

#[test]
fn https_is_delivered_to_whom_the_environment_trusts_and_to_nobody_else() {
    let directory = Directory::create();
    let file = directory.path().join("authority.pem");
    let authority = Authority::new();
    fs::write(&file, authority.pem()).expect("a file of authorities");
    let file = file.to_str().expect("a path that is text");
    // All there is to be logged, by libraries too.
    let environment = [("SSL_CERT_FILE", file), ("RUST_LOG", "trace")];
    for (encrypts, refused) in [
        (authority.sign("localhost"), None),
        (
            authority.sign("elsewhere.example"),
            Some("`librato.api` has another name for the server than its certificate"),
        ),
        (
            authority.sign_expired("localhost"),
            Some("a certificate out of date"),
        ),
        (
            Authority::new().sign("localhost"),
            Some("an authority that this machine does not trust"),
        ),
    ] {
        let rules = Rules {
            https_only: true,
            ..Rules::default()
        };
        let api = FakeApi::start_encrypted(rules, encrypts);
        let carbon = FakeCarbon::start();
        let config = stopping(&carbon, api.url(), json!({}));
        let mut daemon = Daemon::start_in(&environment, &config);
        send(&daemon, "a:3|c");
        assert_eq!(daemon.terminate().code(), Some(0));
        assert_eq!(carbon.next().count("a"), 3.0);
        let delivered = if refused.is_none() { 3.0 } else { 0.0 };
        assert_eq!(sum(&api.stored(), "a"), delivered);
        if let Some(cause) = refused {
            assert_eq!(api.requests().len(), 0, "{cause}");
            let line = daemon.wait_for_line("librato: flushes not delivered at the end and lost");
            assert!(line.contains(api.url()) && line.contains(cause), "{line}");
        }
        for line in daemon.lines() {
            let secrets = ["tok123", "dXNlckBleGFtcGxlLmNvbTp0b2sxMjM"];
            assert!(!secrets.iter().any(|it| line.contains(it)), "{line}");
        }
    }
}

/// Names of one flush, and in how many posts they go.
const NAMES: usize = 100_000;
const POSTS: usize = NAMES / 500;

/// Counts [`NAMES`] names over one connection, which loses nothing.
fn send_all_names(daemon: &Daemon) {
    let lines: Vec<_> = (0..NAMES).map(|name| format!("n{name}:1|c\n")).collect();
    let mut stream = daemon.connect();
    stream
        .write_all(lines.concat().as_bytes())
        .expect("the daemon reads");
}

fn is_of_all(name: &str) -> bool {
    name.strip_prefix('n')
        .is_some_and(|number| number.parse::<usize>().is_ok())
}

/// The names stored of one moment.
fn names_of(stored: &[Stored], time: u64) -> BTreeSet<&str> {
    stored
        .iter()
        .filter(|it| it.time.unsigned_abs() == time && is_of_all(&it.name))
        .map(|it| it.name.as_str())
        .collect()
}

/// The next Graphite flush that has all names.
fn next_of_all(carbon: &FakeCarbon) -> u64 {
    loop {
        let lines = carbon.next_lines();
        let counts = lines.values.iter();
        let names = counts.filter_map(|(name, _)| name.strip_prefix("stats_counts."));
        if names.filter(|name| is_of_all(name)).count() == NAMES {
            return lines.timestamp;
        }
    }
}

fn with_many_names(carbon: u16, api: &FakeApi) -> Value {
    let mut config = both(config(carbon), api.url(), json!({"snapTime": 1}));
    let tcp = json!({"server": "./servers/tcp", "address": "127.0.0.1", "port": "0"});
    config["servers"] = json!([tcp]);
    config["flushInterval"] = json!(2000);
    config
}

#[test]
fn a_hundred_thousand_names_hold_no_graphite_flush_up() {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    api.script([Fault::Held]);
    let daemon = Daemon::start(&with_many_names(carbon.port(), &api), &[]);
    send_all_names(&daemon);
    // Librato's flush of the first of them at the latest waits for an answer until both are here.
    let (tick, next) = (next_of_all(&carbon), next_of_all(&carbon));
    assert!(next > tick);
    assert!(names_of(&api.stored(), next).is_empty(), "it waits");
    api.release();
    let stored = api
        .wait_for_stored(|stored| stored.len() >= NAMES && names_of(stored, tick).len() == NAMES);
    let of_tick = stored
        .iter()
        .filter(|it| it.time.unsigned_abs() == tick && is_of_all(&it.name));
    assert_eq!(of_tick.count(), NAMES, "each once");
    assert!(api.requests().len() >= POSTS);
}

/// Milliseconds from a tick, in Unix seconds, until now.
fn since(tick: u64) -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_millis() - u128::from(tick) * 1000
}

/// From the tick to Graphite's last byte, and to the last name at Librato if it answers. There is none
/// without faults.
fn measure(librato: Option<&[Fault]>) -> (u128, Option<u128>) {
    let api = FakeApi::start(Rules::default());
    api.script(librato.into_iter().flatten().cloned());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port for carbon");
    let port = listener.local_addr().expect("an address").port();
    let mut config = with_many_names(port, &api);
    // So that everybody knows when the ticks are.
    config["flushAlign"] = json!(true);
    config["flushInterval"] = json!(5000);
    if librato.is_none() {
        config["backends"] = json!(["./backends/graphite"]);
    }
    let daemon = Daemon::start(&config, &[]);
    send_all_names(&daemon);
    let mut flush = String::new();
    let (tick, graphite) = loop {
        flush.clear();
        let (mut stream, _) = listener.accept().expect("the backend connects");
        stream.read_to_string(&mut flush).expect("text");
        let now = since(0);
        if flush
            .lines()
            .filter(|line| line.contains("counts.n"))
            .count()
            == NAMES
        {
            let last = flush.lines().find(|line| line.contains("counts.n"));
            let tick = last.and_then(|line| line.rsplit(' ').next()?.parse().ok());
            let tick: u64 = tick.expect("a time");
            break (tick, now - u128::from(tick) * 1000);
        }
    };
    let answers = librato.is_some_and(<[_]>::is_empty);
    let all = answers.then(|| {
        let all = Cell::new(0);
        let stored = api.wait_for_stored(|stored| {
            all.set(since(tick));
            stored.len() >= NAMES
        });
        assert_eq!(names_of(&stored, tick).len(), NAMES, "in one flush");
        all.get()
    });
    (graphite, all)
}

#[test]
#[ignore = "a measurement: it prints milliseconds and holds nobody to them"]
fn measure_a_hundred_thousand_names() {
    for round in 1..=5 {
        let (alone, _) = measure(None);
        // What it costs without the work of the receiver, which here is on the same machine.
        let (held, _) = measure(Some(&[const { Fault::Held }; 4]));
        let (beside, all) = measure(Some(&[]));
        println!(
            "{round}: Graphite {alone}, {held} beside a Librato that says nothing, {beside} beside one"
        );
        println!("{round}: that has all after {:?}", all.expect("it answers"));
    }
}

#[test]
fn a_pause_the_service_asks_for_is_kept_over_a_reload_and_within_the_outbox() {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    let limit = Answer::text(429, "slow down").with("Retry-After", NEVER);
    api.script([Fault::Answer(limit)]);
    let mut config = ticking(&carbon, api.url(), json!({}));
    config["outboxFlushes"] = json!(3);
    let mut daemon = Daemon::start(&config, &[]);
    send(&daemon, "a:3|c");
    let line = daemon.wait_for_line("librato: a flush could not be delivered and waits: ");
    assert!(line.contains("HTTP 429: slow down"), "{line}");
    daemon.wait_for_line("more flushes wait than the outbox holds");
    config["prefixStats"] = json!("other");
    fs::write(daemon.config_file(), config.to_string()).expect("the file can be written");
    daemon.wait_for_line("the configuration was taken over");
    let of_others = |name: &str| name == "other.packets_received";
    while !(carbon.next().values.keys())
        .any(|name| name.strip_prefix("stats_counts.").is_some_and(of_others))
    {}
    for _ in 0..5 {
        carbon.next();
    }
    assert_eq!(daemon.terminate().code(), Some(0));
    assert_eq!(api.requests().len(), 1, "nobody asked again");
    let line = daemon.wait_for_line("librato: flushes not delivered at the end and lost: ");
    assert!(line.contains("the service asked for a pause of "), "{line}");
    let waited = line
        .split("lost: ")
        .nth(1)
        .and_then(|it| it.split(':').next());
    assert!(matches!(waited, Some("3" | "4")), "{line}");
}

#[test]
fn what_waited_for_the_end_of_a_pause_is_delivered() {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    let limit = Answer::text(429, "slow down").with("Retry-After", 1);
    api.script([Fault::Answer(limit)]);
    let daemon = Daemon::start(&ticking(&carbon, api.url(), json!({})), &[]);
    send(&daemon, "a:3|c");
    api.wait_for_requests(1);
    send(&daemon, "a:4|c");
    let stored = api.wait_for_stored(|stored| sum(stored, "a") >= 7.0);
    assert_eq!(sum(&stored, "a"), 7.0);
    let requests = api.requests();
    assert_eq!(
        requests[0].body, requests[1].body,
        "the one refused is first"
    );
}

/// One post is taken, one is told to wait so long.
fn half_taken(seconds: u32) -> [Fault; 2] {
    let limit = Answer::text(429, "slow down").with("Retry-After", seconds);
    [Fault::Late(Duration::ZERO), Fault::Answer(limit)]
}

/// What is stored of two counters.
fn sums(api: &FakeApi) -> (f64, f64) {
    let stored = api.stored();
    (sum(&stored, "a"), sum(&stored, "b"))
}

#[test]
fn what_the_service_did_not_take_of_a_flush_goes_before_the_next() {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    api.script(half_taken(1));
    let mut config = ticking(&carbon, api.url(), json!({"batchSize": 1}));
    config["deleteIdleStats"] = json!(true);
    let daemon = Daemon::start(&config, &[]);
    send(&daemon, "a:3|c\nb:4|c");
    let line =
        daemon.wait_for_line("librato: 1 of 2 posts of a flush wait and go before the next: ");
    assert!(line.contains("HTTP 429: slow down"), "{line}");
    send(&daemon, "c:5|c");
    api.wait_for_stored(|stored| sum(stored, "c") >= 5.0);
    assert_eq!(sums(&api), (3.0, 4.0), "each once");
    let requests = api.requests();
    assert_eq!(requests.len(), 4);
    let refused = [&requests[0].body, &requests[1].body];
    assert!(
        refused.contains(&&requests[2].body),
        "before the next flush"
    );
}

#[test]
fn a_stop_waits_for_a_pause_that_ends_before_its_deadline() {
    let limit = Answer::text(429, "slow down").with("Retry-After", 1);
    for (faults, posts) in [
        (vec![Fault::Answer(limit)], 500),
        (half_taken(1).to_vec(), 1),
    ] {
        let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
        api.script(faults);
        let options = json!({"batchSize": posts});
        let mut daemon = Daemon::start(&stopping(&carbon, api.url(), options), &[]);
        send(&daemon, "a:3|c\nb:4|c");
        assert_eq!(daemon.terminate().code(), Some(0));
        assert_eq!(sums(&api), (3.0, 4.0), "{posts}");
        assert_eq!(flushes_not_delivered(&daemon), "0 flushes not delivered");
    }
}

#[test]
fn what_waits_of_a_flush_at_a_stop_is_lost_and_said() {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    api.script(half_taken(NEVER));
    let options = json!({"batchSize": 1});
    let mut daemon = Daemon::start(&stopping(&carbon, api.url(), options), &[]);
    send(&daemon, "a:3|c\nb:4|c");
    assert_eq!(daemon.terminate().code(), Some(0));
    let line = daemon.wait_for_line("librato: posts not delivered at the end and lost: 1: ");
    assert!(line.contains("the service asked for a pause of "), "{line}");
    let (a, b) = sums(&api);
    assert!(a + b == 3.0 || a + b == 4.0, "{a} {b}");
}

#[test]
fn what_waits_when_the_token_changes_is_sent_with_the_new_one() {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    api.script([Fault::Answer(busy())]);
    let waits = json!({"retryDelaySecs": NEVER});
    let mut config = ticking(&carbon, api.url(), waits);
    let right = config["librato"]["token"].take();
    config["librato"]["token"] = json!("old");
    let daemon = Daemon::start(&config, &[]);
    send(&daemon, "a:3|c");
    api.wait_for_requests(1);
    config["librato"]["token"] = right;
    fs::write(daemon.config_file(), config.to_string()).expect("the file can be written");
    let stored = api.wait_for_stored(|stored| sum(stored, "a") >= 3.0);
    assert_eq!(sum(&stored, "a"), 3.0);
    let lost = daemon.lines().iter().any(|line| line.contains("lost"));
    assert!(!lost, "{:?}", daemon.lines());
}

#[test]
fn a_service_that_refuses_is_not_back_yet() {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    let refuses = Fault::Answer(Answer::text(400, "no"));
    let busy = || Fault::Answer(busy());
    api.script([busy(), busy(), refuses, Fault::Held]);
    let mut config = ticking(&carbon, api.url(), json!({}));
    config["deleteIdleStats"] = json!(true);
    let daemon = Daemon::start(&config, &[]);
    send(&daemon, "a:3|c");
    daemon.wait_for_line("librato: a flush could not be delivered and waits: ");
    daemon.wait_for_line("librato: 1 of 1 posts of a flush were lost: ");
    send(&daemon, "b:1|c");
    api.wait_for_requests(4);
    let back = |lines: &[String]| lines.iter().any(|line| line.contains("librato is back"));
    assert!(!back(&daemon.lines()), "{:?}", daemon.lines());
    api.release();
    daemon.wait_for_line("librato is back after ");
    assert_eq!(sum(&api.stored(), "b"), 1.0);
}

#[test]
fn flushes_without_measurements_take_no_room_from_those_that_wait() {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    let limit = Answer::text(429, "slow down").with("Retry-After", 2);
    api.script([Fault::Answer(limit)]);
    let mut config = ticking(&carbon, api.url(), json!({}));
    config["deleteIdleStats"] = json!(true);
    config["outboxFlushes"] = json!(2);
    let daemon = Daemon::start(&config, &[]);
    send(&daemon, "a:3|c");
    api.wait_for_requests(1);
    send(&daemon, "b:4|c");
    // Two that hold nothing but the server's own.
    while carbon
        .next()
        .values
        .get("stats_counts.b")
        .map(String::as_str)
        != Some("4")
    {}
    (0..2).for_each(|_| drop(carbon.next()));
    let stored = api.wait_for_stored(|stored| sum(stored, "b") >= 4.0);
    assert_eq!((sum(&stored, "a"), sum(&stored, "b")), (3.0, 4.0));
}

#[test]
fn posts_that_are_left_when_the_stop_has_no_more_time_are_counted_and_said() {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    let limit = || Fault::Answer(Answer::text(429, "slow down").with("Retry-After", 1));
    api.script(
        [Fault::Late(Duration::ZERO)]
            .into_iter()
            .chain(repeat_n(limit(), 5))
            .chain(repeat_n(Fault::Hang(Vec::new()), ALL)),
    );
    let one_each = json!({"batchSize": 1});
    let mut config = ticking(&carbon, api.url(), one_each);
    config["deleteIdleStats"] = json!(true);
    config["stopDeadline"] = json!(3000);
    let mut daemon = Daemon::start(&config, &[]);
    send(&daemon, "a:1|c\nb:1|c\nc:1|c\nd:1|c\ne:1|c\nf:1|c");
    api.wait_for_requests(4);
    assert_eq!(daemon.terminate().code(), Some(0));
    let taken = api.stored().len();
    assert_eq!(taken, 1);
    daemon
        .wait_for_line("backend librato: posts not delivered before the stop deadline and lost: 5");
}
