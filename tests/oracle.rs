//! The naive reference of the tests against what was recorded from the original daemon.

mod reference;

use reference::{Options, Reference};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Each character of a recorded datagram is one byte.
fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).expect("a byte"))
        .collect()
}

#[test]
fn reference_reproduces_every_recorded_case() {
    let cases: Value = serde_json::from_str(include_str!("conformance/statsd.json")).unwrap();
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 20);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let mut config = case["config"].clone();
        config["flushInterval"] = json!(1000);
        let options = Options::from_json(&config);
        let lag = format!("{}.timestamp_lag", options.prefix_stats);
        let mut daemon = Reference::new(options);
        // The recording waited for a first flush, so that timestamp_lag exists; its name was not recorded.
        let mut now = 1_700_000_000_000;
        daemon.flush(now);
        for datagram in case["datagrams"].as_array().unwrap() {
            daemon.datagram(&latin1(datagram.as_str().unwrap()));
        }
        for (number, recorded) in case["flushes"].as_array().unwrap().iter().enumerate() {
            now += 1000;
            let recorded: BTreeMap<String, String> = recorded
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_string()))
                .collect();
            let mut computed = daemon.flush(now);
            computed.retain(|name, _| !name.contains(&lag));
            assert_eq!(computed, recorded, "case {name}, flush {number}");
        }
    }
}

/// The lines of one flush, without those of the daemon's own counters, `name value` each, sorted by name.
fn flush_of(config: &Value, datagrams: &[&str]) -> Vec<String> {
    let mut daemon = Reference::new(Options::from_json(config));
    for datagram in datagrams {
        daemon.datagram(datagram.as_bytes());
    }
    own_left_out(daemon.flush(1_700_000_000_000))
}

fn own_left_out(lines: BTreeMap<String, String>) -> Vec<String> {
    let own = ["packets_received", "metrics_received", "bad_lines_seen"];
    lines
        .into_iter()
        .filter(|(name, _)| {
            !own.iter()
                .any(|own| name.contains(&format!("statsd.{own}")))
        })
        .map(|(name, value)| format!("{name} {value}"))
        .collect()
}

/// The statistics of timer `t` in one flush of 10 s, as `field value` in the order of `fields`.
fn timer(values: &str, percent: Value, fields: &str) -> String {
    let config = json!({ "percentThreshold": percent });
    let mut daemon = Reference::new(Options::from_json(&config));
    for value in values.split(' ') {
        // The blank after the type lets values below 0 pass, as with the original.
        daemon.datagram(format!("t:{}", value.replacen("|ms", "|ms ", 1)).as_bytes());
    }
    let lines = daemon.flush(0);
    let shown: Vec<String> = fields
        .split(' ')
        .map(
            |field| match lines.get(&format!("stats.timers.t.{field}")) {
                Some(value) => format!("{field} {value}"),
                None => format!("no {field}"),
            },
        )
        .collect();
    shown.join(" ")
}

#[test]
fn timer_statistics_are_those_of_the_worked_examples() {
    let plain = |values: &str| -> String {
        let parts: Vec<String> = values
            .split(' ')
            .map(|value| format!("{value}|ms"))
            .collect();
        parts.join(" ")
    };
    let ten = "1 2 3 4 5 6 7 8 9 10";
    let fifty: Vec<String> = (1..=50).map(|value| value.to_string()).collect();
    let cases = [
        (
            plain("100"),
            json!(90),
            "count_90 1 mean_90 100 upper_90 100 sum_90 100 sum_squares_90 10000 std 0 upper 100 lower 100 count 1 \
             count_ps 0.1 sum 100 sum_squares 10000 mean 100 median 100",
        ),
        (
            plain("450 120 553 994 334 844 675 496"),
            json!(90),
            "count_90 7 mean_90 496 upper_90 844 sum_90 3472 sum_squares_90 2048242 std 260.56033370411546 upper 994 \
             lower 120 count 8 count_ps 0.8 sum 4466 sum_squares 3036278 mean 558.25 median 524.5",
        ),
        (
            plain(ten),
            json!(50),
            "count_50 5 mean_50 3 upper_50 5 sum_50 15 sum_squares_50 55",
        ),
        (
            plain(ten),
            json!(99.9),
            "count_99_9 10 mean_99_9 5.5 upper_99_9 10 sum_99_9 55 sum_squares_99_9 385",
        ),
        (
            plain(ten),
            json!(-10),
            "count_top10 1 mean_top10 10 lower_top10 10 sum_top10 10 sum_squares_top10 100",
        ),
        (
            plain(ten),
            json!(-90),
            "count_top90 9 mean_top90 6 lower_top90 2 sum_top90 54 sum_squares_top90 384",
        ),
        (
            plain(ten),
            json!(-100),
            "count_top100 10 mean_top100 NaN lower_top100 1 sum_top100 NaN sum_squares_top100 NaN",
        ),
        (
            plain("10 20 30 40 50"),
            json!([90, 70, 50, 30, 10]),
            "count_90 5 count_70 4 count_50 3 count_30 2 count_10 1",
        ),
        (
            plain("1 2"),
            json!([10, 20, 24.9, 25]),
            "no count_10 no count_20 no count_24_9 count_25 1",
        ),
        (
            plain(&fifty.join(" ")),
            json!([29, 57]),
            "count_29 14 count_57 28",
        ),
        (
            plain("1 2"),
            json!(150),
            "count_150 3 mean_150 NaN no upper_150 no sum_150 no sum_squares_150",
        ),
        (
            plain("1 2"),
            json!([0]),
            "no count_0 no mean_0 no lower_0 no sum_0 no sum_squares_0",
        ),
        (
            plain("7"),
            json!([0]),
            "count_0 1 mean_0 7 lower_0 7 sum_0 7 sum_squares_0 49 no upper_0",
        ),
        (plain("7"), json!(0), "count_90 1 no count_0"),
        (plain("7"), json!(1e-7), "no count_1e-7 count_1etop7 1"),
        (plain("7"), json!([-99.99]), "count_top99_99 1"),
        (
            plain("0.1 0.2 0.3"),
            json!(-50),
            "sum_top50 0.5000000000000001 mean_top50 0.25000000000000006 sum 0.6000000000000001",
        ),
        (
            plain("1 Infinity"),
            json!(90),
            "sum Infinity mean Infinity upper Infinity median Infinity std NaN",
        ),
        (
            "100|ms|@0.3 200|ms|@0.3".into(),
            json!(90),
            "count 6.666666666666667 count_ps 0.6666666666666667 mean 150 count_90 2",
        ),
        (
            "-5|ms -1|ms".into(),
            json!(90),
            "upper -1 lower -5 std 2 mean -3",
        ),
        (plain("300 200 400 100"), json!(90), "median 250"),
        (plain("100 200 300"), json!(90), "std 81.64965809277261"),
    ];
    for (values, percent, expected) in cases {
        let fields: Vec<&str> = expected
            .split_whitespace()
            .filter(|word| word.parse::<f64>().is_err() && *word != "no")
            .collect();
        let found = timer(&values, percent.clone(), &fields.join(" "));
        let expected: Vec<&str> = expected.split_whitespace().collect();
        assert_eq!(found, expected.join(" "), "{values} at {percent}");
    }
}

#[test]
fn hybrid_names_have_legacy_places_and_new_endings() {
    let config = json!({
        "graphite": { "legacyNamespace": "false", "globalSuffix": "x" }, "calculatedTimerMetrics": ["median"]
    });
    assert_eq!(
        flush_of(&config, &["c;a=b:5|c\nt:7|ms\ng:2|g\ns:v|s"]),
        [
            "stats.c.count.x;a=b 5",
            "stats.c.rate.x;a=b 0.5",
            "stats.gauges.g.x 2",
            "stats.sets.s.count.x 1",
            "stats.statsd.numStats.x 7",
            "stats.timers.t.median.x 7",
        ]
    );
}

#[test]
fn empty_suffix_leaves_a_trailing_dot() {
    let config = json!({ "graphite": { "globalSuffix": "" }, "flush_counts": false });
    assert_eq!(
        flush_of(&config, &["c1:10|c"]),
        ["stats.c1. 1", "statsd.numStats. 4"]
    );
}

#[test]
fn gauges_live_for_their_ttl_and_the_lag_for_ever() {
    let config = json!({
        "deleteGauges": true, "gaugesMaxTTL": 3, "flushInterval": 500, "graphite": { "legacyNamespace": false }
    });
    let mut daemon = Reference::new(Options::from_json(&config));
    daemon.datagram(b"g:10|g\ng:-3|g");
    let mut flush = |at| own_left_out(daemon.flush(at));
    let (gauge, lag) = ("stats.gauges.g 7", "stats.gauges.statsd.timestamp_lag");
    assert_eq!(flush(1_000), [gauge, "stats.statsd.numStats 4"]);
    assert_eq!(
        flush(1_500),
        [gauge, &format!("{lag} 0.5"), "stats.statsd.numStats 5"]
    );
    assert_eq!(
        flush(2_000),
        [gauge, &format!("{lag} -0.5"), "stats.statsd.numStats 5"]
    );
    assert_eq!(
        flush(2_499),
        [&format!("{lag} -0.5"), "stats.statsd.numStats 4"]
    );
}

#[test]
fn gauge_that_is_zero_or_nan_is_replaced() {
    for (values, expected) in [
        ("10 0 -3", "-3"),
        ("10 -10 -5", "-5"),
        ("Infinity -Infinity", "NaN"),
        ("Infinity -Infinity +5", "5"),
        ("-0", "0"),
        ("1e2 +1e1", "110"),
    ] {
        let lines: Vec<String> = values
            .split(' ')
            .map(|value| format!("g:{value}|g"))
            .collect();
        let found = flush_of(&json!({}), &[&lines.join("\n")]);
        assert_eq!(found[0], format!("stats.gauges.g {expected}"), "{values}");
    }
}

#[test]
fn counter_that_is_not_a_number_starts_over() {
    for (values, expected) in [
        ("0|c|@0", "NaN"),
        ("7|c:0|c|@0:5|c:1|c", "6"),
        ("Infinity|c:-Infinity|c:5|c", "5"),
    ] {
        let found = flush_of(&json!({}), &[&format!("c:{values}")]);
        assert_eq!(found[1], format!("stats_counts.c {expected}"), "{values}");
    }
}

#[test]
fn histogram_walks_its_bins_in_order() {
    let config = json!({
        "histogram": [{ "metric": "", "bins": [10, 5, "inf", 7] }], "calculatedTimerMetrics": ["histogram"]
    });
    assert_eq!(
        flush_of(&config, &["t:1|ms:5|ms:10|ms:50|ms"]),
        [
            "stats.timers.t.histogram.bin_10 2",
            "stats.timers.t.histogram.bin_5 0",
            "stats.timers.t.histogram.bin_7 0",
            "stats.timers.t.histogram.bin_inf 2",
            "statsd.numStats 4",
        ]
    );
}

#[test]
fn own_counters_can_be_written_to() {
    let mut daemon = Reference::new(Options::from_json(&json!({ "deleteCounters": true })));
    daemon.datagram(b"statsd.packets_received:100|c");
    daemon.datagram(b"");
    let first = daemon.flush(0);
    assert_eq!(first["stats_counts.statsd.packets_received"], "102");
    assert_eq!(first["stats_counts.statsd.metrics_received"], "1");
    assert_eq!(
        daemon.flush(10_000)["stats_counts.statsd.packets_received"],
        "0"
    );
}
