//! Replays what the reference's Librato backend was recorded sending and demands the same bodies, byte for byte.
//!
//! A case of `tests/conformance/librato.json` is a configuration, datagrams with pauses between, and the
//! requests that followed. The configuration is read as a file would be, the datagrams go the whole path to the
//! encoder without a socket, and each body must be the recorded one but for the moment. How requests travel
//! and what becomes of the answers is not looked at here, so a retry in a recording is the same body once more.
//!
//! Where this server does something else on purpose, [`DECIDED`] has what it sends, and why.

use crossbeam::queue::ArrayQueue;
use serde_json::Value;
use statsd_fast::config;
use statsd_fast::deliver::Backend;
use statsd_fast::deliver::librato::measure::Encoder;
use statsd_fast::flush::{Flusher, Link};
use statsd_fast::ingest::packet::Packet;
use statsd_fast::ingest::{self, table::Table};
use statsd_fast::metric::cell::Stamp;
use statsd_fast::metric::harvest::Harvest;
use statsd_fast::metric::registry::Registry;
use statsd_fast::runtime::clock::{Clock, Manual};
use std::sync::Arc;
use std::time::Duration;

/// Case, what was recorded, what is sent in its place, and why. Without a record it is what the one
/// request has.
const DECIDED: &[(&str, &str, &str, &str)] = &[
    (
        "tags_host_undefined",
        r#""host":"vm""#,
        r#""host":"production-web-server-1""#,
        "D1: a host that was written as a tag wins over the name of the machine",
    ),
    (
        "include",
        r#"{"name":"other.s","value":1,"tags":{}},"#,
        "",
        "D2: sets are filtered as all other kinds",
    ),
    (
        "exclude",
        r#",{"name":"my.s","value":1,"tags":{}}"#,
        "",
        "D2: sets are filtered as all other kinds",
    ),
    (
        "internal_false",
        r#""value":1,"tags":{}},{"name":"numStats","value":0"#,
        r#""value":1,"tags":{}},{"name":"numStats","value":4"#,
        "D3: numStats counts what was sent",
    ),
    (
        "internal_false",
        r#"{"name":"statsd.timestamp_lag","value":0,"tags":{}},{"name":"numStats","value":0"#,
        r#"{"name":"statsd.timestamp_lag","value":0,"tags":{}},{"name":"numStats","value":5"#,
        "D3: numStats counts what was sent",
    ),
    (
        "empty_after_delete",
        r#"{"name":"numStats","value":0"#,
        r#"{"name":"numStats","value":4"#,
        "D3: numStats counts what was sent",
    ),
    (
        "internal_false_counters",
        r#"{"name":"a","value":1,"tags":{}},{"name":"numStats","value":0"#,
        r#"{"name":"a","value":1,"tags":{}},{"name":"numStats","value":4"#,
        "D3: numStats counts what was sent, as a running total with the other counters",
    ),
    (
        "internal_false_counters",
        r#"[],"counters":[{"name":"statsd.bad_lines_seen","value":0},{"name":"statsd.packets_received","value":1},{"name":"statsd.metrics_received","value":1},{"name":"a","value":1},{"name":"numStats","value":0}"#,
        r#"[],"counters":[{"name":"statsd.bad_lines_seen","value":0},{"name":"statsd.packets_received","value":1},{"name":"statsd.metrics_received","value":1},{"name":"a","value":1},{"name":"numStats","value":4}"#,
        "D3: numStats counts what was sent, as a running total with the other counters",
    ),
    (
        "internal_false_counters",
        r#"{"name":"numStats","value":0"#,
        r#"{"name":"numStats","value":9"#,
        "D3: numStats counts what was sent, as a running total with the other counters",
    ),
    (
        "tags_grammar",
        r#"{"name":"h","value":1,"tags":{"y":"2"}}"#,
        r#"{"name":"h","value":1,"tags":{"x":"1","y":"2"}}"#,
        "D9: every # begins tags, whatever the kind",
    ),
    (
        "tags_grammar",
        r#"{"name":"o","value":1,"tags":{}}"#,
        r#"{"name":"o","value":1,"tags":{"x":"1"}}"#,
        "D9: every # begins tags, whatever the kind",
    ),
    (
        "tags_grammar",
        r#"{"name":"","value":1,"tags":{"x":"1"}},"#,
        "",
        "D8: what has no name is not sent",
    ),
    (
        "tags_grammar_timer",
        r#"{"name":"","count":1,"sum":1,"min":1,"stddev_m2":0,"max":1,"tags":{"x":"1"}},{"name":".90","count":1,"sum":1,"min":1,"stddev_m2":0,"max":1,"tags":{"x":"1"}},"#,
        "",
        "D8: what has no name is not sent",
    ),
    (
        "values",
        r#"{"name":"h","value":null,"tags":{}},"#,
        "",
        "D8: a number the service does not take is not sent",
    ),
    (
        "histogram_frac",
        r#"{"name":"t","value":0,"tags":{"a":"b.bin_0_5"}},{"name":"t","value":1,"tags":{"a":"b.bin_2_5"}}"#,
        r#"{"name":"t.bin_0_5","value":0,"tags":{"a":"b"}},{"name":"t.bin_2_5","value":1,"tags":{"a":"b"}}"#,
        "D10: a bin belongs to the name, not to the last tag",
    ),
    (
        "intkeys",
        r#"{"name":"2","value":1,"tags":{}},{"name":"10","value":1,"tags":{}},{"name":"zz","value":1,"tags":{}},{"name":"aa","value":1,"tags":{}}"#,
        r#"{"name":"zz","value":1,"tags":{}},{"name":"10","value":1,"tags":{}},{"name":"2","value":1,"tags":{}},{"name":"aa","value":1,"tags":{}}"#,
        "D16: names come in the order they were first sent",
    ),
    (
        "pct_over_100",
        r#""count":4,"sum":6,"min":1,"stddev_m2":0.9574271077563381,"tags""#,
        r#""count":3,"sum":6,"min":1,"stddev_m2":1,"max":3,"tags""#,
        "no percentile has more samples than there are",
    ),
    (
        "proto_keys",
        "",
        r#"{"time":0,"tags":{"host":"h1"},"measurements":[{"name":"constructor","value":1,"tags":{}},{"name":"toString","count":1,"sum":5,"min":5,"stddev_m2":0,"max":5,"tags":{}},{"name":"toString.90","count":1,"sum":5,"min":5,"stddev_m2":0,"max":5,"tags":{}},{"name":"__proto__","value":1,"tags":{}}]}"#,
        "the reference stops for ever at these names",
    ),
];

/// Configurations that are refused, and what is said of them.
const REFUSED: &[(&str, &[&str])] = &[
    (
        "api_noscheme",
        &["librato.api: an address begins with `https://` or `http://`"],
    ),
    (
        "noemail",
        &["librato.email: is missing: the Librato backend signs in with it"],
    ),
    (
        "notoken",
        &["librato.token: is missing: the Librato backend signs in with it"],
    ),
    (
        "nolibrato",
        &[
            "librato.email: is missing: the Librato backend signs in with it",
            "librato.token: is missing: the Librato backend signs in with it",
        ],
    ),
];

#[derive(Debug, Clone, PartialEq)]
struct Request {
    path: String,
    body: String,
}

/// A server fed by hand.
struct Server {
    clock: Arc<Manual>,
    table: Table,
    flusher: Flusher,
    encoder: Encoder,
    interval: Duration,
}

impl Server {
    /// With the configuration of a case, so that the first flush is at `first_ms`.
    fn new(config: &config::Config, first_ms: u64) -> Self {
        let [Backend::Librato(options)] = &config.backends[..] else {
            panic!("{:?}", config.backends)
        };
        let interval = config.flush.interval;
        let clock = Manual::new(first_ms - interval.as_millis() as u64);
        let registry = Arc::new(Registry::new());
        let link = Link {
            epoch: Arc::default(),
            full: crossbeam::channel::never(),
            empty: Arc::new(ArrayQueue::new(1)),
            workers: Vec::new(),
        };
        let flusher = Flusher::new(
            config.flush.clone(),
            Clock::Manual(clock.clone()),
            registry.clone(),
            link,
            Arc::default(),
        );
        Self {
            clock,
            table: Table::new(&config.ingest, registry),
            flusher,
            encoder: Encoder::new(options),
            interval,
        }
    }

    fn datagram(&mut self, at: u64, datagram: &str) {
        let table = &mut self.table;
        table.begin_batch(Stamp(at << 20));
        let (bytes, truncated) = (datagram.as_bytes(), false);
        ingest::take_packets([Packet { bytes, truncated }].into_iter(), table);
    }

    fn flush(&mut self) -> Vec<Request> {
        let mut harvest = Harvest::default();
        self.table.harvest(&mut harvest);
        self.flusher.absorb(harvest);
        self.clock.advance(self.interval);
        let batches = self.encoder.encode(&self.flusher.flush(), false).batches;
        let request = |batch: statsd_fast::deliver::librato::batch::Batch| Request {
            path: batch.path.into(),
            body: String::from_utf8(batch.body).expect("JSON is text"),
        };
        batches.into_iter().map(request).collect()
    }
}

fn recorded() -> Vec<Value> {
    let text = include_str!("conformance/librato.json");
    let recording: Value = serde_json::from_str(text).expect("the recording is JSON");
    recording["cases"].as_array().expect("a list").clone()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// The configuration of a case, with the backend it is about.
fn read(case: &Value) -> Result<config::Loaded, config::Error> {
    let text = text(&case["config"])
        .replacen('{', "{\"backends\":[\"statsd-librato-backend\"],", 1)
        .replace("PORT", "8080");
    config::parse(&text, "case")
}

/// The posts of a case, each once. What the reference spoilt while trying again is no post.
fn posts(case: &Value) -> Vec<Request> {
    let mut posts: Vec<Request> = Vec::new();
    for request in case["requests"].as_array().expect("a list") {
        let body = request["body"].as_str().unwrap_or_default();
        let cut = body.ends_with(')');
        let whole = serde_json::from_str::<Value>(body).is_ok();
        let post = Request {
            path: text(&request["path"]).into(),
            body: body.into(),
        };
        let is_retry = !cut && posts.contains(&post);
        if request["method"] == "POST" && (whole || cut) && !is_retry {
            posts.push(post);
        }
    }
    posts
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("proc(5) is there");
    name.trim_end().to_owned()
}

/// The moment of a body.
fn time(body: &str) -> Option<i64> {
    let key = ["\"time\":", "\"measure_time\":"];
    let (_, rest) = key.iter().find_map(|key| body.split_once(key))?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..digits].parse().ok()
}

/// What this server sends where it was decided to send something else. Each edit must find its place.
fn decided(name: &str, mut posts: Vec<Request>) -> Vec<Request> {
    let edits = DECIDED.iter().filter(|(case, ..)| *case == name);
    for (_, from, to, why) in edits {
        if from.is_empty() {
            posts.push(Request {
                path: "/v1/measurements".into(),
                body: (*to).into(),
            });
            continue;
        }
        let mut found = false;
        for post in &mut posts {
            // An edit is for what the earlier ones left as it was.
            found |= post.body.contains(from);
            post.body = post.body.replace(from, to);
        }
        assert!(found, "{name}: nothing to decide: {why}");
    }
    // The machine of the recordings was called vm.
    for post in &mut posts {
        post.body = (post.body).replace(r#""host":"vm""#, &format!(r#""host":{:?}"#, host_name()));
    }
    posts
}

fn replay(case: &Value) -> Vec<String> {
    let name = text(&case["name"]);
    if let Some((_, expected)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        let problems = read(case).expect_err(name).problems;
        let said: Vec<_> = (problems.iter())
            .map(|problem| format!("{}: {}", problem.key, problem.message))
            .collect();
        return if said == *expected {
            Vec::new()
        } else {
            vec![format!("{name}: refused with {said:?}")]
        };
    }
    let loaded = read(case).unwrap_or_else(|error| panic!("{name}: {error}"));
    let expected = decided(name, posts(case));
    let first = expected.first().and_then(|post| time(&post.body));
    let first = first.filter(|first| *first > 0).unwrap_or(1_795_343_748);
    // A little before the whole second, which the flush is rounded to.
    let mut server = Server::new(&loaded.config, first as u64 * 1000 - 300);
    let mut found = Vec::new();
    for (at, step) in case["steps_full"]
        .as_array()
        .expect("a list")
        .iter()
        .enumerate()
    {
        match step {
            // The recordings' pauses are those between two flushes.
            Value::Number(ms) => {
                let interval = server.interval.as_millis() as u64;
                if ms.as_u64().expect("milliseconds") >= interval {
                    found.extend(server.flush());
                }
            }
            step if step == "<send SIGTERM>" => {}
            step => server.datagram(at as u64 + 1, text(step)),
        }
    }
    for line in case["log"].as_array().expect("a list") {
        if let Some((_, rest)) = text(line).split_once("Placing metric '") {
            let (stopped, _) = rest.split_once('\'').expect("a name in quotes");
            // The answer to the first flush said so.
            if found.is_empty() {
                found.extend(server.flush());
            }
            server.encoder.stop(stopped);
        }
    }
    let mut idle = 0;
    while found.len() < expected.len() && idle < 3 {
        let posts = server.flush();
        idle = if posts.is_empty() { idle + 1 } else { 0 };
        found.extend(posts);
    }
    if expected.is_empty() {
        // Nothing reached the recorder: what is sent first is what would have.
        found = server.flush();
        let posts = found
            .iter()
            .map(|post| post.path.as_str())
            .collect::<Vec<_>>();
        assert_eq!(posts, ["/v1/measurements"], "{name}");
        return Vec::new();
    }
    found.truncate(expected.len());
    let mut differences = Vec::new();
    if found.len() < expected.len() {
        differences.push(format!(
            "{name}: {} posts, not {}",
            found.len(),
            expected.len()
        ));
    }
    for (found, expected) in found.iter().zip(&expected) {
        let mut want = expected.body.clone();
        if time(&want) == Some(0) {
            want = want.replace("\"time\":0", &format!("\"time\":{first}"));
        }
        let same = match want.split_once("...(") {
            Some((begin, length)) => {
                let length = length.trim_end_matches(')');
                found.body.starts_with(begin) && found.body.len().to_string() == length
            }
            None => found.body == want,
        };
        if !same || found.path != expected.path {
            differences.push(format!(
                "{name}: expected {} {want}\n{:width$}found    {} {}",
                expected.path,
                "",
                found.path,
                found.body,
                width = name.len() + 2
            ));
        }
    }
    differences
}

#[test]
fn every_recorded_case_gives_the_same_bodies() {
    let cases = recorded();
    assert_eq!(cases.len(), 114);
    let differences: Vec<_> = cases.iter().flat_map(replay).collect();
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

#[test]
fn every_decision_is_about_a_recorded_case() {
    let cases = recorded();
    let names: Vec<_> = cases.iter().map(|case| text(&case["name"])).collect();
    let decided = DECIDED.iter().map(|(name, ..)| *name);
    for name in decided.chain(REFUSED.iter().map(|(name, _)| *name)) {
        assert!(names.contains(&name), "{name}");
    }
}
