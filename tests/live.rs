//! The original itself, live: it and our binary are given the same configuration and the same
//! datagrams. Every value they send to Graphite must be the same, and so must what the admin interface
//! answers and the console shows.
//!
//! Installs npm's `statsd` once into cargo's directory for test output. Without node or npm the tests
//! are skipped, unless `STATSD_FAST_REQUIRE_INTEROP=1` demands them. `STATSD_FAST_LIVE_SEED=N` sends
//! one more random round to each configuration, made from the number N, to search for differences by
//! hand.
//!
//! Left out of the traffic is what `reference::Departure` names; left out of the comparison is what
//! depends on the clock, and what is ours alone.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;
mod pair;
mod reference;
#[allow(dead_code, reason = "histories are for tests without sockets")]
mod traffic;

use pair::admin::Both;
use pair::{
    LAST, Pair, Written, compare_all, console, differences, original_is_missing, report,
    traffic as sent,
};
use reference::{Departure, departure};
use serde_json::{Value, json};
use std::env;

/// What is compared under one configuration.
struct Case {
    name: &'static str,
    config: Written,
    /// Idle flushes to compare after each round.
    idle: usize,
    /// Of the random round.
    seed: u64,
}

fn case(name: &'static str, idle: usize, seed: u64, options: Value) -> Case {
    Case {
        name,
        config: Written::Options(options),
        idle,
        seed,
    }
}

fn compare(cases: &[Case]) {
    compare_all(cases, compare_case);
}

fn compare_case(case: &Case) -> Vec<String> {
    let sanitize = match &case.config {
        Written::Options(options) => options["keyNameSanitize"] != false,
        Written::File(_) => true,
    };
    let mut rounds = vec![
        ("corpus".to_owned(), sent::corpus(sanitize)),
        (
            format!("seed {}", case.seed),
            sent::random(case.seed, sanitize),
        ),
    ];
    if let Ok(seed) = env::var("STATSD_FAST_LIVE_SEED") {
        let number = seed.parse().expect("STATSD_FAST_LIVE_SEED is a number");
        rounds.push((format!("seed {seed}"), sent::random(number, sanitize)));
    }
    if case.name == "defaults" {
        rounds.push(("large".into(), sent::large()));
    }
    let mut pair = Pair::start(&case.config);
    let mut found = Vec::new();
    for (round, datagrams) in &rounds {
        let flushes = pair.round(datagrams, case.idle);
        let values: usize = flushes.iter().map(|(theirs, _)| theirs.values.len()).sum();
        println!(
            "{}, {round}: {} datagrams, {values} values",
            case.name,
            datagrams.len()
        );
        assert!(
            values > 100,
            "hardly anything was compared: {values} values"
        );
        for (number, flushes) in flushes.iter().enumerate() {
            for difference in pair.differences(flushes) {
                found.push(format!(
                    "{}, {round}, flush {number}: {difference}",
                    case.name
                ));
            }
        }
    }
    found
}

#[test]
fn names_and_namespaces_are_the_originals() {
    compare(&[
        // One of the names is longer than those that are kept apart.
        case("defaults", 1, 1, json!({"maxNameLength": 0})),
        case(
            "prefixes and suffix",
            1,
            2,
            json!({
                "graphite": {
                    "legacyNamespace": false, "globalPrefix": "gp", "prefixCounter": "pc", "prefixTimer": "",
                    "prefixGauge": "pg", "prefixSet": "ps", "globalSuffix": "host1"
                }
            }),
        ),
        case(
            "hybrid namespace",
            1,
            3,
            json!({ "graphite": { "legacyNamespace": "false", "globalSuffix": "h" } }),
        ),
        case(
            "unsanitised",
            1,
            4,
            json!({ "keyNameSanitize": false, "graphite": { "legacyNamespace": false } }),
        ),
        case(
            "own prefix, no counts",
            1,
            5,
            json!({ "prefixStats": "own.stats", "flush_counts": false, "graphite": { "globalSuffix": "" } }),
        ),
    ]);
}

#[test]
fn statistics_of_timers_are_the_originals() {
    compare(&[
        case(
            "percentiles",
            1,
            11,
            json!({ "percentThreshold": [90, 50, 99.9, -10, -90, 25, 1, 0, 100, -100, 150, -150, 1e-7] }),
        ),
        case(
            "one percentile",
            1,
            12,
            json!({ "percentThreshold": "-33.3" }),
        ),
        case(
            "histogram",
            1,
            13,
            json!({
                "histogram": [
                    { "metric": "api", "bins": [0.01, 0.1, 1, 10, "inf"] },
                    { "metric": "hits", "bins": [] },
                    { "metric": "e.", "bins": [100, 50, "inf", 200] },
                    { "metric": "", "bins": [-5, 0, 50.5, 1000] }
                ],
                "graphite": { "legacyNamespace": false }
            }),
        ),
        case(
            "timer fields",
            1,
            14,
            json!({
                "calculatedTimerMetrics":
                    ["count", "median", "upper_percent", "lower_percent", "count_percent", "histogram"],
                "percentThreshold": [90, -10, 99.9],
                "histogram": [{ "metric": "", "bins": [100, "inf"] }]
            }),
        ),
    ]);
}

/// As the users of the original write theirs.
const WRITTEN_BY_HAND: &str = r#"/*
 * Our StatsD. 2003 is carbon, 8125 is ours.
 */
{
  graphiteHost: "127.0.0.1"
, graphitePort: CARBON
, port: PORT // UDP
, address: '127.0.0.1'
, mgmt_port: ADMIN, mgmt_address: "127.0.0.1"
, backends: [ "./backends/graphite" ]
, flushInterval: 1000
, dialect: "statsd" // unknown to the original
, percentThreshold: [ 90, 95, ]
, deleteCounters: true
, deleteSets: 1
, deleteGauges: "yes"
, gaugesMaxTTL: 2
, dumpMessages: false
, debug: false
, graphite: { legacyNamespace: true, }
, batch: 200
, 'log': { backend: "stdout" },
}
"#;

#[test]
fn what_idles_lives_as_long_as_with_the_original() {
    compare(&[
        case(
            "idle deleted, gauges live",
            4,
            21,
            json!({ "deleteIdleStats": true, "gaugesMaxTTL": 3 }),
        ),
        case(
            "some deleted",
            2,
            22,
            json!({ "deleteIdleStats": true, "deleteCounters": false, "prefixStats": "" }),
        ),
        case(
            "half a second",
            4,
            23,
            json!({ "flushInterval": 500, "graphite": { "legacyNamespace": false, "globalPrefix": "" } }),
        ),
        Case {
            name: "written by hand",
            config: Written::File(WRITTEN_BY_HAND),
            idle: 3,
            seed: 24,
        },
    ]);
}

/// Names, none of which looks like an integer: those are first with the original, wherever they came. The
/// members of sets come in the order of their bytes, in which we show them.
const SHOWN: &[&str] = &[
    "a:1|c\na.b:2|c\na.b.c:3|c|@0.1\nab:4|c\nx-y:1.5|c\na_b:0.1|c:0.2|c",
    "inf:Infinity|c\nbig:1e21|c\nsmall:1e-7|c\nnan:0|c|@0\ntagged:1|c|#t:v\n_under:1|c\n:1|c",
    "t.a:1|ms\nt.a:3|ms:2|ms|@0.1\nt.zero:-0|ms\nt.float:0.1|ms:1234.5678|ms\nt:7|ms",
    "t.seven:7|ms:6|ms:5|ms:4|ms:3|ms:2|ms:1|ms",
    "g.a:5|g\ng.b:-0|g\ng.tag:1|g|#x:y\ng.down:-2.5|g\ng:Infinity|g\ng.wide:123456789012|g",
    "s.a:it's|s:x|s:y z|s:x|s\ns.b:\"|s:'\"|s:`'\"|s\ns.c:\u{e9}\u{1f600}\t|s",
    "bad\nbad:x|c",
];

fn shown() -> Vec<Vec<u8>> {
    let many: Vec<_> = (0..120).map(|i| format!("{}|ms", i * 37 % 101)).collect();
    let mut datagrams: Vec<_> = SHOWN.iter().map(|text| text.as_bytes().to_vec()).collect();
    datagrams.push(format!("t.many:{}", many.join(":")).into_bytes());
    let members: Vec<_> = (0..110).map(|i| format!("m{i:03}|s")).collect();
    datagrams.push(format!("s.many:{}", members.join(":")).into_bytes());
    datagrams
}

/// Both admin interfaces, or a word on why they are not compared.
fn both_admins(pair: &Pair) -> Option<Both> {
    let both = Both::of(pair);
    if both.is_none() {
        println!("SKIPPED: our daemon prints no line with \"admin interface on \"");
    }
    both
}

#[test]
fn the_admin_interface_answers_in_the_running_interval_as_the_original() {
    if original_is_missing() {
        return;
    }
    let pair = Pair::start(&Written::Options(json!({ "flushInterval": 600_000 })));
    let Some(both) = both_admins(&pair) else {
        return;
    };
    pair.send(&shown());
    both.wait_for_counter(LAST);
    let mut found = both.differences(&[
        "help\n",
        "help me\r\n",
        "help",
        "  help  \n",
        "",
        "\n",
        "\r\n",
        "   \n",
        "nonsense\n",
        "HELP\n",
        "stats\n",
        "stats now\n",
        "counters\n",
        "timers\n",
        "gauges\n",
        "counters a\n",
        "health\n",
        "health down\n",
        "health\n",
        "health UP\n",
        "health Down\n",
        "health sideways\n",
        "health  up\n",
        "health up down\n",
        "delcounters\n",
        "deltimers\n",
        "delgauges\n",
        "delcounters nothing\n",
        "delcounters no thing\n",
        "delcounters  a\n",
        "delcounters *\n",
        "delcounters .*\n",
        "delcounters a*\n",
        "delcounters a.b.*\n",
        "counters\n",
        "delcounters a.*\n",
        "delcounters ab x-y ab\n",
        "counters\n",
        "deltimers t.seven t.*\n",
        "timers\n",
        "deltimers t\n",
        "timers\n",
        "delgauges g.* g\n",
        "gauges\n",
        "delgauges g\n",
        "quit\n",
        "quit now\n",
        "stats\n",
    ]);
    found.extend(both.conversation(&[
        ("help\n", "\n\n"),
        ("health down\r\n", "\n"),
        ("nonsense\n", "\n"),
        ("\n", "\n"),
        ("counters\n", "END\n\n"),
        ("delcounters inf gone\n", "END\n\n"),
        ("stats\n", "END\n\n"),
        ("health", "\n"),
    ]));
    report(&found);
}

#[test]
fn the_admin_interface_answers_and_deletes_between_flushes_as_the_original() {
    if original_is_missing() {
        return;
    }
    let options = json!({ "percentThreshold": [90, 99], "graphite": { "globalSuffix": "host1" } });
    let mut pair = Pair::start(&Written::Options(options));
    let Some(both) = both_admins(&pair) else {
        return;
    };
    pair.round(&shown(), 1);
    let dumps = ["counters\n", "timers\n", "gauges\n"];
    let mut found = both.differences(&dumps);
    found.extend(both.differences(&["stats\n", "config\n"]));
    found.extend(both.differences(&[
        "delcounters a.* inf\n",
        "delgauges g.a\n",
        "deltimers t.many t.zero\n",
    ]));
    // One that was on its way while they were deleted is left out.
    pair.wait_for_both();
    pair.next();
    let flushes = pair.next();
    found.extend(pair.differences(&flushes));
    found.extend(both.differences(&dumps));
    // What is deleted comes back as if it had never been there.
    let again = b"a.b:5|c\ng.a:-3|g\nt.many:3|ms:1|ms".to_vec();
    for flushes in pair.round(&[again], 1) {
        found.extend(pair.differences(&flushes));
    }
    report(&found);
}

/// Compares what the console backends print, character by character.
fn compare_console(options: Value, seed: u64) {
    if original_is_missing() {
        return;
    }
    let mut config = json!({ "backends": ["./backends/console", "./backends/graphite"] });
    for (key, value) in options.as_object().expect("options are an object") {
        config[key] = value.clone();
    }
    let mut pair = Pair::start(&Written::Options(config));
    if !console::prints_objects(pair.logs().1) {
        println!("SKIPPED: our console backend prints no objects");
        return;
    }
    let mut found = Vec::new();
    for datagrams in [shown(), sent::random_in_order(seed)] {
        let flushes = pair.steady_round(&datagrams, 1);
        let (theirs, ours) = pair.flushes();
        for back in (0..flushes.len()).rev() {
            let theirs = console::object(pair.logs().0, theirs - back);
            let ours = console::object(pair.logs().1, ours - back);
            found.extend(console::differences(&theirs, &ours));
        }
    }
    report(&found);
}

#[test]
fn the_console_shows_what_the_originals_shows() {
    compare_console(json!({ "percentThreshold": [90, -10] }), 31);
}

#[test]
fn the_console_shows_colours_and_histograms_as_the_originals() {
    let options = json!({
        "console": { "prettyprint": true },
        "histogram": [{ "metric": "t.", "bins": [2, 50, "inf"] }]
    });
    compare_console(options, 32);
}

#[test]
fn a_difference_is_seen() {
    let flush = |values: &[(&str, &str)]| {
        let values = values.iter();
        values
            .map(|(name, value)| (String::from(*name), String::from(*value)))
            .collect::<Vec<_>>()
    };
    let theirs = flush(&[
        ("stats.a", "1"),
        ("stats.b", "0.1"),
        ("stats.c", "2"),
        ("stats.c", "3"),
        ("stats.statsd.processing_time", "1"),
    ]);
    let ours = flush(&[
        ("stats.c", "3"),
        ("stats.c", "2"),
        ("stats.b", "0.10"),
        ("stats.d", "7"),
        ("stats.statsd.processing_time", "0"),
        ("stats.statsd_fast.packets", "5"),
    ]);
    assert_eq!(
        differences(&theirs, &ours, &json!({})),
        [
            r#""stats.a": theirs 1, ours nothing"#,
            r#""stats.b": theirs 0.1, ours 0.10"#,
            r#""stats.d": theirs nothing, ours 7"#,
        ]
    );
}

#[test]
fn only_what_differs_on_purpose_is_left_out() {
    let rate = Some(Departure::RateWithoutDigits);
    let name = Some(Departure::InheritedName);
    for (line, expected) in [
        ("a:1|c|@Infinity", rate),
        ("a:1|c|@ 0.5", rate),
        ("a:x|s|@+1", rate),
        ("a:1|c:2|ms|@ :3|g", rate),
        // Refused for another reason, or not a number at all.
        ("a:x|c|@+1", None),
        ("a:1|c|@+", None),
        ("a:1|c|@-1", None),
        ("a:1|c|@1e1", None),
        ("__proto__:1|c", name),
        ("to String:x|s", None),
        ("to+String:x|s", name),
        ("constructor:1", None),
        ("constructor:1|c|#t:v", None),
        ("a:__proto__|s", Some(Departure::InheritedMember)),
        ("a:constructor|s", None),
    ] {
        assert_eq!(departure(line.as_bytes(), true), expected, "{line}");
    }
    assert_eq!(departure(b"to+String:x|s", false), None);
    let lines: usize = sent::corpus(true)
        .iter()
        .map(|datagram| datagram.split(|&byte| byte == b'\n').count())
        .sum();
    assert!(lines > 550, "only {lines} lines of the corpus are sent");
    let random = sent::random(1, true);
    assert_eq!(random, sent::random(1, true), "a seed is not enough");
    assert_ne!(random, sent::random(2, true));
    assert!(random.len() > 50, "only {} datagrams", random.len());
}
