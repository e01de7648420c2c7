//! Replays what the reference daemon was recorded doing and demands the same names and values.
//!
//! A case of `tests/conformance/statsd.json` is a configuration, datagrams, and the flushes that
//! followed: the first holds all datagrams, the others nothing new. Values that depend on the clock
//! are not in the recording. Each case is replayed with one thread and with four: one socket is
//! one flow and stays on one thread, so the number of threads must not show.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{Daemon, FakeCarbon, Flush};
use serde_json::Value;
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

/// Datagrams sent in one go.
const PACE: usize = 64;

macro_rules! conformance {
    ($($test:ident = $case:literal,)*) => {
        const LISTED: &[&str] = &[$($case),*];
        $(#[test]
        fn $test() {
            check($case);
        })*
    };
}

conformance! {
    values_by_type = "values-by-type",
    sample_rates = "sample-rates",
    framing = "framing",
    tags = "tags",
    gauge_sequences = "gauge-sequences",
    legacy_namespace = "legacy-namespace",
    percentiles = "percentiles",
    percentile_scalar = "percentile-scalar",
    histogram_bins = "histogram-bins",
    timer_filters = "timer-filters",
    idle_deleted = "idle-deleted",
    idle_kept = "idle-kept",
    delete_mixed = "delete-mixed",
    suffix_and_tags = "suffix-and-tags",
    legacy_suffix = "legacy-suffix",
    prefixes = "prefixes",
    empty_prefixes = "empty-prefixes",
    unsanitised = "unsanitised",
    multi_metric_packets = "multi-metric-packets",
    legacy_hybrid_empty_key = "legacy-hybrid-empty-key",
}

#[test]
fn every_recorded_case_is_listed() {
    let recorded: Vec<String> = recorded()
        .iter()
        .map(|case| text(&case["name"]).to_owned())
        .collect();
    assert_eq!(recorded, LISTED);
}

/// Replays one case with each number of threads at once and reports all differences together.
fn check(name: &str) {
    let cases = recorded();
    let case = cases
        .iter()
        .find(|case| case["name"] == name)
        .expect("the case is recorded");
    let variants: &[&[&str]] = if daemon::replaced().is_some() {
        &[&[]]
    } else {
        &[&[], &["--threads", "4"]]
    };
    let differences: Vec<String> = thread::scope(|scope| {
        let replays: Vec<_> = variants
            .iter()
            .map(|arguments| scope.spawn(|| replay(case, arguments)))
            .collect();
        replays
            .into_iter()
            .flat_map(|replay| replay.join().expect("the replay ends"))
            .collect()
    });
    assert!(
        differences.is_empty(),
        "{name}: {} differences\n{}",
        differences.len(),
        differences.join("\n")
    );
}

fn replay(case: &Value, arguments: &[&str]) -> Vec<String> {
    let carbon = FakeCarbon::start();
    let mut config = daemon::config(carbon.port());
    for (key, value) in case["config"].as_object().expect("config is an object") {
        config[key] = value.clone();
    }
    let daemon = Daemon::start(&config, arguments);
    // Right after a flush there is a whole interval for the datagrams to arrive in.
    carbon.next();
    let client = daemon.client();
    let datagrams = case["datagrams"].as_array().expect("datagrams is a list");
    for (index, datagram) in datagrams.iter().enumerate() {
        // A receive buffer of the usual size holds 277 small datagrams, and no more than that may
        // be granted: the reader gets its turn before it is full.
        if index % PACE == PACE - 1 {
            thread::sleep(Duration::from_millis(5));
        }
        let bytes: Vec<u8> = text(datagram)
            .chars()
            .map(|c| u8::try_from(u32::from(c)).expect("recorded as latin-1"))
            .collect();
        client.send(&bytes).expect("loopback takes the datagram");
    }
    let expected = case["flushes"].as_array().expect("flushes is a list");
    let mut differences = Vec::new();
    for (index, expected) in expected.iter().enumerate() {
        let found = carbon.next();
        for difference in compare(expected, &found, &config) {
            differences.push(format!("{arguments:?} flush {index}: {difference}"));
        }
    }
    differences
}

/// Every way in which `found` is not what was recorded, one line each.
fn compare(expected: &Value, found: &Flush, config: &Value) -> Vec<String> {
    let expected = expected.as_object().expect("a flush is an object");
    let names: BTreeSet<&String> = expected.keys().chain(found.values.keys()).collect();
    let mut differences = Vec::new();
    for name in names {
        match (expected.get(name), found.values.get(name)) {
            (Some(want), Some(got)) if want == got => {}
            (Some(want), Some(got)) => {
                differences.push(format!("{name}: expected {want}, got {got:?}"));
            }
            (Some(want), None) => differences.push(format!("{name}: expected {want}, missing")),
            (None, Some(got)) if !daemon::by_clock_or_ours(name, config) => {
                differences.push(format!("{name}: not recorded, got {got:?}"));
            }
            (None, _) => {}
        }
    }
    differences
}

fn recorded() -> Vec<Value> {
    let text = include_str!("conformance/statsd.json");
    serde_json::from_str(text).expect("the recording is a JSON list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}
