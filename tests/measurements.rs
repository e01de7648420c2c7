//! Replays what the reference's Librato backend was recorded sending and demands the same bodies, byte for byte.
//!
//! A case of `tests/conformance/librato.json` is a configuration, datagrams with pauses between, and the
//! requests that followed. The configuration is read as a file would be, the datagrams go the whole path to the
//! encoder without a socket, and each body must be the recorded one but for the moment. How requests travel
//! and what becomes of the answers is not looked at here, so a retry in a recording is the same body once more.
//!
//! Where this server does something else on purpose, `librato_cases::DECIDED` has what it sends, and why.
//! `librato_replay` plays the same cases to the real binary.

mod librato_cases;

use crossbeam::queue::ArrayQueue;
use librato_cases::{
    DECIDED, REFUSED, Request, configured, decided, is_sent, posts, recorded, text, time,
};
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

/// The configuration of a case, with the backend it is about.
fn read(case: &Value) -> Result<config::Loaded, config::Error> {
    config::parse(&configured(case, "", &["8080", "8080"]), "case")
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
    let first = first.filter(|first| *first > 0).unwrap_or(1_795_343_760);
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
        if !is_sent(&want, &found.body) || found.path != expected.path {
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
