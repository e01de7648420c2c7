//! The original itself with its Librato backend, live: it and our binary are given the same configuration and
//! the same datagrams, and each posts to a Librato of its own that validates. Every measurement they post of
//! a flush must be the same, whole: name, numbers, tags, source.
//!
//! Installs npm's `statsd` and `statsd-librato-backend` once into cargo's directory for test output. Without
//! node or npm the tests are skipped, unless `STATSD_FAST_REQUIRE_INTEROP=1` demands them.
//! `STATSD_FAST_LIVE_SEED=N` makes the random rounds from the number N, to search for differences by hand.
//!
//! What differs on purpose is `librato_pair::decisions`, which has what is expected in its place. Left out of
//! the comparison is the gauge of the lag, which depends on the clock.

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
mod librato_pair;
mod pair;
mod reference;
#[allow(dead_code, reason = "histories are for tests without sockets")]
mod traffic;

use librato_pair::decisions::DECISIONS;
use librato_pair::{LibratoPair, Posted, Setting, compare, traffic as sent};
use pair::{compare_all, original_is_missing, report};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::{env, thread};

/// What is compared under one configuration.
struct Case {
    name: &'static str,
    setting: Setting,
    /// Idle flushes to compare after each round.
    idle: usize,
    /// Of the random rounds.
    seed: u64,
    /// Whether names of several kinds are sent, which the old way of sending does not take.
    mixed: bool,
}

fn case(name: &'static str, idle: usize, seed: u64, options: Value, librato: Value) -> Case {
    Case {
        name,
        setting: Setting {
            options,
            librato,
            wanted: |_| true,
        },
        idle,
        seed,
        mixed: true,
    }
}

fn compare_cases(cases: &[Case]) {
    compare_all(cases, compare_case);
}

fn compare_case(case: &Case) -> Vec<String> {
    let seed = env::var("STATSD_FAST_LIVE_SEED").ok();
    let seed = seed.map_or(case.seed, |seed| {
        seed.parse().expect("STATSD_FAST_LIVE_SEED is a number")
    });
    let sanitize = case.setting.options["keyNameSanitize"] != false;
    let mut rounds = vec![("tagged", sent::tagged(seed, sanitize))];
    if case.mixed {
        rounds.push(("random", sent::random(seed, sanitize)));
    }
    let mut pair = LibratoPair::start(&case.setting);
    let mut found = Vec::new();
    for (round, datagrams) in &rounds {
        let flushes = pair.round(datagrams, case.idle);
        let values: usize = flushes.iter().map(|(theirs, _)| theirs.len()).sum();
        let mut decided = BTreeSet::new();
        for (number, posted) in flushes.iter().enumerate() {
            let place = format!("{}, {round}, flush {number}", case.name);
            let compared = pair.compare(posted, false);
            decided.extend(compared.decided);
            let differences = compared.differences.into_iter();
            found.extend(differences.map(|difference| format!("{place}: {difference}")));
            if *round == "tagged" && posted.1.stored != posted.1.len() {
                let (stored, all) = (posted.1.stored, posted.1.len());
                found.push(format!(
                    "{place}: {stored} of our {all} measurements are stored"
                ));
            }
        }
        println!(
            "{}, {round}: {values} measurements, decided {decided:?}",
            case.name
        );
        assert!(
            values > 15,
            "hardly anything was compared: {values} measurements"
        );
    }
    found
}

#[test]
fn names_and_tags_are_the_originals() {
    compare_cases(&[
        case("defaults", 1, 1, json!({}), json!({})),
        case(
            "tags",
            1,
            2,
            json!({ "keyNameSanitize": false }),
            json!({ "host": "web-1", "tags": { "env": "prod", "os": "ubuntu" } }),
        ),
        case(
            "no host, prefix, small posts",
            1,
            3,
            json!({ "keyNameSanitize": false, "flush_counts": false }),
            json!({ "host": false, "tags": { "env": "prod", "host": "h2" }, "globalPrefix": "acme.eu",
                    "batchSize": 20 }),
        ),
        case(
            "source",
            1,
            4,
            json!({ "keyNameSanitize": false }),
            json!({ "source": "S 1/a", "host": "h1" }),
        ),
        case(
            "source in the name",
            1,
            5,
            json!({ "keyNameSanitize": false, "percentThreshold": [90, 50] }),
            json!({ "sourceRegex": "/^[a-z]\\.(\\w+)\\./", "source": "other", "globalPrefix": "p" }),
        ),
        Case {
            setting: Setting {
                options: json!({}),
                librato: json!({
                    "includeMetrics": ["^live\\.", "/^[b-g]/", "hits"], "excludeMetrics": ["e[rq]", "/^g\\d*5\\./"]
                }),
                wanted: |name| {
                    let begins =
                        name.starts_with("live.") || name.starts_with(|c| ('b'..='g').contains(&c));
                    let generated = name.strip_prefix('g').and_then(|rest| rest.split_once('.'));
                    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
                    let fifth = generated
                        .is_some_and(|(number, _)| number.ends_with('5') && digits(number));
                    (begins || name.contains("hits"))
                        && !name.contains("er")
                        && !name.contains("eq")
                        && !fifth
                },
            },
            ..case("filters", 1, 6, json!({}), json!({}))
        },
    ]);
}

#[test]
fn numbers_are_the_originals() {
    compare_cases(&[
        case(
            "percentiles",
            1,
            11,
            json!({ "percentThreshold": [90, "99.90", 50, 99.9, -10, 25, 1, 100, "75"] }),
            json!({ "alwaysSuffixPercentile": true }),
        ),
        case(
            "one percentile",
            1,
            12,
            json!({ "percentThreshold": "95" }),
            json!({}),
        ),
        case(
            "no percentile",
            1,
            13,
            json!({ "percentThreshold": -10 }),
            json!({ "snapTime": 1 }),
        ),
        case(
            "histogram",
            1,
            14,
            json!({
                "histogram": [
                    { "metric": "hits", "bins": [] },
                    { "metric": "t.", "bins": [0.01, 0.1, 10, 1000.5, "inf"] },
                    { "metric": "", "bins": [50, 0, 1000] }
                ],
                "keyNameSanitize": false
            }),
            json!({ "globalPrefix": "h" }),
        ),
        case(
            "totals",
            2,
            15,
            json!({ "keyNameSanitize": false }),
            json!({ "countersAsGauges": false }),
        ),
        case(
            "totals of what idles",
            2,
            16,
            json!({ "deleteIdleStats": true, "gaugesMaxTTL": 2 }),
            json!({ "countersAsGauges": false }),
        ),
        case(
            "counts of its own",
            1,
            17,
            json!({ "percentThreshold": [] }),
            json!({ "skipInternalMetrics": false, "globalPrefix": "i" }),
        ),
        case(
            "own names",
            1,
            18,
            json!({ "prefixStats": "own.stats", "calculatedTimerMetrics": ["count", "histogram"],
                    "histogram": [{ "metric": "", "bins": [100, "inf"] }] }),
            json!({}),
        ),
        case(
            "what idles",
            3,
            19,
            json!({ "deleteIdleStats": true, "gaugesMaxTTL": 3 }),
            json!({}),
        ),
    ]);
}

#[test]
fn the_old_way_of_sending_is_the_originals() {
    compare_cases(&[
        case(
            "both ways",
            1,
            21,
            json!({ "keyNameSanitize": false }),
            json!({ "writeToLegacy": true, "source": "web-1", "batchSize": 30 }),
        ),
        case(
            "both ways, no source",
            1,
            22,
            json!({}),
            json!({ "writeToLegacy": true }),
        ),
        Case {
            mixed: false,
            ..case(
                "both ways, totals",
                1,
                23,
                json!({ "keyNameSanitize": false, "percentThreshold": [50, 99] }),
                json!({ "writeToLegacy": true, "countersAsGauges": false, "sourceRegex": "(web\\d+)\\.",
                        "globalPrefix": "p", "tags": { "env": "prod" } }),
            )
        },
    ]);
}

/// Everything that was decided, and traffic in which it shows.
#[test]
fn what_differs_on_purpose_does() {
    if original_is_missing() {
        return;
    }
    let long = format!("long.{}", "n".repeat(260));
    let named: Vec<_> = [
        "l:5|ms:6|ms".replace('l', &long),
        "multi.c#first=1#last=2:1|c\nmulti.g#first=1#last=2:1|g\nmulti.s#first=1#last=2:x|s".into(),
        "bins#a=b:1|ms:50|ms\nkeep.c:1|c\nkeep.t:1|ms\nkeep.g:1|g\nkeep.s:a|s\ndrop.s:1|s\ndrop.c:1|c".into(),
        "debt:-5|c\nkept#source=stat:1|c\n#x=1:1|g\nhuge:1e400|g\nlarge:1e130|g\nundone:1|c|@0".into(),
    ]
    .map(String::into_bytes)
    .to_vec();
    let options = |more: Value| {
        let mut options = json!({ "keyNameSanitize": false, "percentThreshold": [90] });
        for (key, value) in more.as_object().expect("options are an object") {
            options[key] = value.clone();
        }
        options
    };
    let bins = json!({ "histogram": [{ "metric": "bins", "bins": [10, "inf"] }] });
    let cases = [
        (
            Setting {
                options: options(bins),
                librato: json!({ "tags": { "host": "written" } }),
                wanted: |_| true,
            },
            ["D1", "D10", "D8", "D9", "long", "source"].as_slice(),
        ),
        (
            Setting {
                options: options(json!({ "percentThreshold": [] })),
                librato: json!({
                    "host": "h", "skipInternalMetrics": false,
                    "excludeMetrics": ["^(drop|multi|l|u|bins)", "^#"]
                }),
                wanted: |name| {
                    let dropped = ["drop", "multi", "l", "u", "bins"];
                    !dropped.iter().any(|it| name.starts_with(it))
                },
            },
            &["D2", "D3", "D8", "source"],
        ),
        (
            Setting {
                options: options(json!({})),
                librato: json!({
                    "host": "h", "writeToLegacy": true, "countersAsGauges": false, "excludeMetrics": ["[#ln]"]
                }),
                wanted: |name| !name.contains(['l', 'n']),
            },
            &["D2", "D8"],
        ),
    ];
    let named = &named;
    let play = |(setting, expected): (Setting, &[&'static str])| {
        let mut pair = LibratoPair::start(&setting);
        let posted = pair.round(named, 0).remove(0);
        let compared = pair.compare(&posted, false);
        report(&compared.differences);
        let expected: BTreeSet<_> = expected.iter().copied().collect();
        assert_eq!(compared.decided, expected, "{:#?}", posted.0);
        compared.decided
    };
    let seen: BTreeSet<_> = thread::scope(|scope| {
        let running = cases.map(|case| scope.spawn(|| play(case)));
        let seen = running.map(|case| case.join().expect("the case ends"));
        seen.into_iter().flatten().collect()
    });
    let all: BTreeSet<_> = DECISIONS.iter().map(|decision| decision.number).collect();
    assert_eq!(seen, all, "a decision in which nothing differs is none");
}

/// D16: names come in the order in which they were first sent. That is the original's, but for names that
/// look like integers, which it has first.
#[test]
fn the_order_is_the_originals() {
    if original_is_missing() {
        return;
    }
    let setting = Setting {
        options: json!({}),
        librato: json!({ "batchSize": 5000, "host": "h1" }),
        wanted: |_| true,
    };
    let mut pair = LibratoPair::start(&setting);
    let random = pair::traffic::random_in_order(31);
    let mut found = Vec::new();
    for posted in pair.round(&random, 1) {
        assert!(posted.0.len() > 100, "only {} measurements", posted.0.len());
        found.extend(pair.compare(&posted, true).differences);
    }
    report(&found);
    let integers = b"zz:1|c\n10:1|c\n2:1|c\naa:1|c".to_vec();
    let posted = pair.round(&[integers], 0).remove(0);
    assert_eq!(pair.compare(&posted, false).differences, [""; 0]);
    let differences = pair.compare(&posted, true).differences;
    assert!(
        differences.len() == 1 && differences[0].contains("expected"),
        "{differences:?}"
    );
}

#[test]
fn a_difference_is_seen() {
    let posted = |bodies: &[Value]| {
        let mut posted = Posted::default();
        bodies.iter().for_each(|body| posted.add(body.clone()));
        posted
    };
    let one = |name: &str, value: Value, tags: Value| json!({ "name": name, "value": value, "tags": tags });
    let body =
        |tags: Value, items: &[&Value]| json!({ "time": 1, "tags": tags, "measurements": items });
    let setting = Setting {
        options: json!({}),
        librato: json!({}),
        wanted: |name| name != "unwanted",
    };
    let differences = |theirs: &Posted, ours: &Posted, in_order: bool| {
        let compared = compare(&setting, theirs, ours, in_order);
        (compared.differences, compared.decided)
    };
    let host = json!({ "host": "h" });
    let (a, b) = (
        one("a", json!(1), json!({})),
        one("b", json!(2), json!({ "x": "1", "y": "2" })),
    );
    let swapped = one("b", json!(2), json!({ "y": "2", "x": "1" }));
    let theirs = posted(&[body(host.clone(), &[&a, &b])]);
    // In other batches, in another order, with tags in another order: the same.
    let ours = [body(host.clone(), &[&swapped]), body(host.clone(), &[&a])];
    let none = BTreeSet::new();
    assert_eq!(
        differences(&theirs, &posted(&ours), false),
        (Vec::new(), none.clone())
    );
    let order = differences(&theirs, &posted(&ours), true);
    assert!(
        order.0.len() == 1 && order.0[0].starts_with("measurement 0: expected"),
        "{order:?}"
    );
    for other in [
        one("a", json!(1.5), json!({})),
        one("A", json!(1), json!({})),
        one("a", json!(1), json!({ "x": "1" })),
        json!({ "name": "a", "value": 1, "tags": {}, "source": "s" }),
        json!({ "name": "a", "value": 1, "tags": {}, "period": 10 }),
        json!({ "name": "a", "count": 1, "sum": 1, "tags": {} }),
        // What is decided is decided of theirs alone.
        one("a", Value::Null, json!({})),
    ] {
        let ours = posted(&[body(host.clone(), &[&other, &b])]);
        let expected = vec![
            format!("measurement: only theirs {a}"),
            format!("measurement: only ours {other}"),
        ];
        assert_eq!(differences(&theirs, &ours, false), (expected, none.clone()));
    }
    // One of two that are alike is missing; the frame is another; a period comes along.
    let twice = posted(&[body(host.clone(), &[&a, &a])]);
    let once = posted(&[body(host.clone(), &[&a])]);
    assert_eq!(
        differences(&twice, &once, false).0,
        [format!("measurement: only theirs {a}")]
    );
    let framed = posted(&[body(json!({ "host": "i" }), &[&a])]);
    assert_eq!(differences(&once, &framed, false).0.len(), 2);
    let mut with_period = body(host.clone(), &[&a]);
    with_period["period"] = json!(10);
    assert_eq!(
        differences(&once, &posted(&[with_period]), false).0.len(),
        2
    );
    // Legacy lists are not mixed up.
    let gauge = posted(&[json!({ "gauges": [a], "counters": [], "measure_time": 1 })]);
    let counter = posted(&[json!({ "gauges": [], "counters": [a], "measure_time": 1 })]);
    assert_eq!(differences(&gauge, &counter, false).0.len(), 2);
    // What is decided is left out only where the decision says so.
    let null = posted(&[body(host.clone(), &[&one("n", Value::Null, json!({}))])]);
    let empty = posted(&[body(host.clone(), &[])]);
    assert_eq!(
        differences(&null, &empty, false),
        (Vec::new(), BTreeSet::from(["D8"]))
    );
    let zero = posted(&[body(host.clone(), &[&one("n", json!(0), json!({}))])]);
    assert_eq!(differences(&null, &zero, false).0.len(), 1);
    assert_eq!(differences(&zero, &empty, false).0.len(), 1);
    let unwanted = posted(&[body(host.clone(), &[&one("unwanted", json!(1), json!({}))])]);
    assert_eq!(
        differences(&unwanted, &empty, false),
        (Vec::new(), BTreeSet::from(["D2"]))
    );
    assert_eq!(differences(&empty, &unwanted, false).0.len(), 1);
}

#[test]
fn a_seed_is_enough() {
    assert_eq!(sent::tagged(1, true), sent::tagged(1, true));
    assert_ne!(sent::tagged(1, true), sent::tagged(2, true));
    assert_eq!(sent::random(1, false), sent::random(1, false));
    let lines = |datagrams: Vec<Vec<u8>>| -> usize {
        let lines = datagrams
            .iter()
            .map(|it| it.split(|byte| *byte == b'\n').count());
        lines.sum()
    };
    assert!(
        lines(sent::random(1, false)) > 200,
        "hardly anything is left"
    );
    assert!(
        lines(sent::tagged(1, true)) > 200,
        "hardly anything is sent"
    );
}
