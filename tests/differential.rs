//! The server against the naive reference: what its parser reads, and what it sends to Graphite.

mod parsed;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod pipeline;
mod reference;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod traffic;

use pipeline::Pipeline;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use reference::{Options, Reference, Spellings};
use serde_json::json;
use std::time::Duration;
use traffic::{Event, Numbers};

/// What the reference says a datagram does, in the notation of the corpus.
fn expected(datagram: &[u8]) -> Vec<String> {
    let mut effects = Vec::new();
    for line in datagram
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        effects.extend(
            reference::effects(line, true)
                .iter()
                .map(ToString::to_string),
        );
    }
    effects
}

fn assert_same(datagram: &[u8]) {
    let expected = expected(datagram);
    let shown = String::from_utf8_lossy(datagram);
    assert_eq!(parsed::packet(datagram), expected, "datagram {shown:?}");
    assert_eq!(
        parsed::line_by_line(datagram),
        expected,
        "slow path, datagram {shown:?}"
    );
}

/// `.ci/portable` sets both: what is compared there must not be this target's own fast paths.
#[test]
fn the_portable_paths_are_in_force_when_they_are_asked_for() {
    let asked = std::env::var_os("STATSD_FAST_PORTABLE").is_some();
    assert_eq!(cfg!(statsd_fast_portable), asked);
}

/// Datagrams of each kind that are compared.
const CASES: u32 = 2000;

proptest! {
    #![proptest_config(traffic::search(CASES))]

    #[test]
    fn parser_reads_the_grammar(datagram in traffic::datagram(Numbers::Any)) {
        assert_same(&datagram);
    }

    #[test]
    fn parser_reads_every_spelling(datagram in traffic::datagram(Numbers::Exact)) {
        assert_same(&datagram);
    }

    #[test]
    fn parser_reads_mutated_datagrams(datagram in traffic::mutated(Numbers::Any)) {
        assert_same(&datagram);
    }

    #[test]
    fn parser_reads_any_bytes(datagram in proptest::collection::vec(any::<u8>(), 0..300)) {
        assert_same(&datagram);
    }

    /// Nothing but what the parser looks for.
    #[test]
    fn parser_reads_delimiters_alone(datagram in "[a:|@#1.c\n-]{0,140}") {
        assert_same(datagram.as_bytes());
    }

    /// Every number text alike, for values and for rates.
    #[test]
    fn parser_reads_any_number(text in "[ +-]?[0-9.eExXbBoOaF_ +-]{0,12}|[0-9]{0,30}[.][0-9]{0,30}|[+-]?[0-9]{1,22}(e[+-]?[0-9]{1,3})?") {
        assert_same(format!("a:{text}|c\na:{text}|ms\na:{text}|g\na:1|ms|@{text}").as_bytes());
    }
}

const SHAPES: [&str; 14] = [
    "N:1|c",
    "N:12345|ms|@0.1",
    "N:-3|g|#t:v,u:w",
    "N:x y|s|@0.5|#t:v",
    "N:1|c:2|ms:3|g",
    "N:1|c\r",
    "N:|c",
    "N",
    "N|c",
    "a:N|s",
    "a:1|N",
    "a:1|c|N",
    "a:1|c|#N:v",
    "a:0N1|c",
];

#[test]
fn delimiters_stand_at_every_offset_of_a_block() {
    for shape in SHAPES {
        for length in 0..=200 {
            let line = shape.replace('N', &"0".repeat(length));
            assert_same(line.as_bytes());
            assert_same(format!("{line}\n").as_bytes());
            assert_same(format!("{line}\nb:2|c|@0.5\n\n{line}").as_bytes());
        }
    }
}

#[test]
fn every_start_and_end_of_a_long_datagram_is_a_datagram() {
    let lines = SHAPES.map(|shape| shape.replace('N', "name.of-9"));
    let datagram = lines.join("\n").repeat(2);
    // The bytes beyond the end are there, and must not be seen.
    for cut in 0..=datagram.len() {
        assert_same(&datagram.as_bytes()[..cut]);
        assert_same(&datagram.as_bytes()[cut..]);
    }
}

#[test]
fn lengths_of_the_largest_datagram_are_read() {
    let name = "x".repeat(60_000);
    assert_same(format!("{name}:1|c").as_bytes());
    assert_same(format!("a:{}|c", "1".repeat(60_000)).as_bytes());
    assert_same(format!("a:1|c|#{name}").as_bytes());
    assert_same("a:1|c\n".repeat(10_000).as_bytes());
    assert_same(&b":".repeat(65_507));
    assert_same(&b"|".repeat(65_507));
    assert_same(&b"\n".repeat(65_507));
}

/// Configurations that differ in what a flush does and how it is written.
fn configurations() -> Vec<Options> {
    [
        json!({}),
        json!({ "graphite": { "legacyNamespace": false } }),
        json!({ "graphite": { "legacyNamespace": "false" } }),
        json!({ "graphite": { "legacyNamespace": "false", "globalSuffix": "h" }, "prefixStats": "own" }),
        json!({ "graphite": { "globalSuffix": "" }, "flush_counts": false }),
        json!({
            "graphite": {
                "legacyNamespace": false, "globalPrefix": "gp", "prefixCounter": "pc", "prefixTimer": "", "prefixGauge": "pg",
                "prefixSet": "ps", "globalSuffix": "host1"
            }
        }),
        json!({
            "graphite": {
                "legacyNamespace": false, "globalPrefix": "", "prefixCounter": "", "prefixTimer": "", "prefixGauge": "",
                "prefixSet": ""
            },
            "flushInterval": 300
        }),
        json!({ "prefixStats": "a;t=v", "flushInterval": 500 }),
        json!({ "prefixStats": "" }),
        json!({ "deleteIdleStats": true }),
        json!({ "deleteIdleStats": true, "gaugesMaxTTL": 3, "deleteCounters": false }),
        json!({ "deleteCounters": true, "deleteSets": true }),
        json!({ "keyNameSanitize": false, "graphite": { "legacyNamespace": false } }),
        json!({ "keyNameSanitize": false, "deleteTimers": true, "graphite": { "globalSuffix": "x" } }),
        json!({ "percentThreshold": [90, 50, 99.9, -10, -90, 25, 1, 0, 100, -100, 150, -150, 1e-7] }),
        json!({ "percentThreshold": [90, 90], "histogram": [{ "metric": "", "bins": [5, 1] }] }),
        json!({ "percentThreshold": [] }),
        json!({
            "histogram": [
                { "metric": "api", "bins": [0.01, 0.1, 1, 10, "inf"] },
                { "metric": "hits", "bins": [] },
                { "metric": "t=v", "bins": [100, 50, "inf", 200] },
                { "metric": "", "bins": [-5, 0, 50.5, 1000] }
            ]
        }),
        json!({
            "calculatedTimerMetrics": ["count", "median", "upper_percent", "lower_percent", "count_percent", "histogram"],
            "percentThreshold": [90, -10, 99.9], "histogram": [{ "metric": "", "bins": [100, "inf"] }]
        }),
        json!({ "calculatedTimerMetrics": ["nothing"] }),
    ]
    .iter()
    .map(Options::from_json)
    .collect()
}

fn configuration() -> impl Strategy<Value = Options> {
    proptest::sample::select(configurations())
}

/// Plays a history to the server and to the reference, and compares what each flush sends, to the last digit.
fn play(options: &Options, workers: usize, history: &[Event]) -> Result<(), TestCaseError> {
    let mut now_ms = 1_700_000_000_000;
    let mut server = Pipeline::new(options, workers, now_ms);
    let mut naive = Reference::new(options.clone());
    for (number, event) in history.iter().enumerate() {
        match event {
            Event::Datagram(worker, datagram) => {
                server.datagram(*worker, datagram);
                naive.datagram(datagram);
            }
            Event::Harvest => server.harvest(),
            Event::Flush(after) => {
                now_ms += after;
                let sent = server.flush(Duration::from_millis(*after));
                let expected = naive.flush_lines(now_ms as i64);
                if sent != expected {
                    let missing: Vec<_> = expected
                        .iter()
                        .filter(|line| !sent.contains(line))
                        .collect();
                    let wrong: Vec<_> = sent
                        .iter()
                        .filter(|line| !expected.contains(line))
                        .collect();
                    return Err(TestCaseError::fail(format!(
                        "event {number}: expected but not sent {missing:?}, sent but not expected {wrong:?}, \
                         {} and {} lines",
                        expected.len(),
                        sent.len()
                    )));
                }
            }
        }
    }
    Ok(())
}

/// Whether a sum of one history may differ in its last digit because a name was spelled in two ways.
fn has_respelled_sum(history: &[Event], sanitize: bool) -> bool {
    let mut spellings = Spellings::default();
    history.iter().any(|event| match event {
        Event::Datagram(_, datagram) => spellings.clash(datagram, sanitize),
        _ => false,
    })
}

/// Whole histories are long.
fn fewer() -> ProptestConfig {
    let cases = traffic::search(CASES).cases / 8;
    ProptestConfig {
        cases,
        max_global_rejects: cases,
        ..traffic::search(CASES)
    }
}

proptest! {
    #![proptest_config(fewer())]

    #[test]
    fn one_worker_sends_what_the_reference_sends(
        options in configuration(),
        history in traffic::history(traffic::datagram(Numbers::Any), false),
    ) {
        play(&options, 1, &history)?;
    }

    #[test]
    fn one_worker_sends_what_the_reference_sends_for_mutated_datagrams(
        options in configuration(),
        history in traffic::history(traffic::mutated(Numbers::Any), false),
    ) {
        prop_assume!(!has_respelled_sum(&history, options.sanitize_names));
        play(&options, 1, &history)?;
    }

    #[test]
    fn any_split_over_workers_and_harvests_sends_what_the_reference_sends(
        options in configuration(),
        workers in 1..=5usize,
        history in traffic::history(traffic::datagram(Numbers::Exact), true),
    ) {
        play(&options, workers, &history)?;
    }

    #[test]
    fn any_bytes_at_any_worker_are_survived(
        options in configuration(),
        workers in 1..=3usize,
        history in traffic::history(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                traffic::mutated(Numbers::Any),
                traffic::mutated(Numbers::Exact),
            ],
            true,
        ),
    ) {
        let mut server = Pipeline::new(&options, workers, 0);
        for event in &history {
            match event {
                Event::Datagram(worker, datagram) => server.datagram(*worker, datagram),
                Event::Harvest => server.harvest(),
                Event::Flush(after) => drop(server.flush(Duration::from_millis(*after))),
            }
        }
    }
}

#[test]
fn recorded_cases_are_sent_alike_by_the_server() {
    let cases: serde_json::Value =
        serde_json::from_str(include_str!("conformance/statsd.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let mut config = case["config"].clone();
        config["flushInterval"] = json!(1000);
        let datagrams = case["datagrams"]
            .as_array()
            .unwrap()
            .iter()
            .map(|datagram| {
                let bytes = datagram
                    .as_str()
                    .unwrap()
                    .chars()
                    .map(|c| u8::try_from(u32::from(c)).unwrap());
                Event::Datagram(0, bytes.collect())
            });
        let mut history: Vec<Event> = vec![Event::Flush(1000)];
        history.extend(datagrams);
        history.extend(vec![
            Event::Flush(1000);
            case["flushes"].as_array().unwrap().len()
        ]);
        play(&Options::from_json(&config), 1, &history).unwrap();
    }
}
