//! Which measurements a flush has, under which names, and what is left out.

use super::*;
use crate::metric::sample::Kind;
use crate::metric::set::{Member, Members};
use crate::metric::snapshot::{Counter, Distribution, Gauge, Set, Stamped, Statistic};

fn counter(name: &str, value: f64) -> Counter {
    Counter {
        name: name.into(),
        value,
        rate: value / 10.0,
    }
}

fn gauge(name: &str, value: f64) -> Gauge {
    Gauge {
        name: name.into(),
        value,
    }
}

fn of_gauges(names: &[&str]) -> Snapshot {
    Snapshot {
        gauges: names.iter().map(|name| gauge(name, 1.0)).collect(),
        ..Snapshot::default()
    }
}

fn pattern(source: &str) -> Pattern {
    Pattern::new(source, "").expect("a pattern")
}

/// Name, source or tags, and value or count of each measurement.
fn encoded(encoder: &mut Encoder, snapshot: &Snapshot) -> Vec<String> {
    measurements(&encoder.encode(snapshot, false).batches)
}

fn measurements(batches: &[Batch]) -> Vec<String> {
    let parse =
        |batch: &Batch| -> serde_json::Value { serde_json::from_slice(&batch.body).expect("JSON") };
    let text = |item: &serde_json::Value| {
        let number = item.get("value").or(item.get("count")).expect("a number");
        let name = item["name"].as_str().expect("a name");
        format!("{name} {} {number}", item["tags"])
    };
    let with_tags = batches.iter().filter(|it| it.path == "/v1/measurements");
    with_tags
        .flat_map(|batch| {
            let items = parse(batch)["measurements"]
                .as_array()
                .expect("a list")
                .clone();
            assert_eq!(items.len(), batch.measurements);
            items
        })
        .map(|item| text(&item))
        .collect()
}

#[test]
fn kinds_come_in_order_and_the_daemons_own_are_left_out() {
    let members: Members = [&b"x"[..], b"y"].into_iter().map(Member::from).collect();
    let snapshot = Snapshot {
        timestamp: 1_795_343_749,
        counters: vec![counter("statsd.packets_received", 1.0), counter("c", 5.0)],
        timers: vec![
            Timer {
                name: "t#a=b".into(),
                samples: 0..5,
                statistics: 0..3,
                ..Timer::default()
            },
            Timer {
                name: "idle".into(),
                ..Timer::default()
            },
        ],
        gauges: vec![gauge("g", 4.5)],
        sets: vec![Set {
            name: "s".into(),
            members,
        }],
        samples: vec![1.0, 2.0, 3.0, 4.0, 5.0],
        fields: ["mean", "histogram.bin_0_5", "histogram.bin_inf"]
            .map(String::from)
            .to_vec()
            .into(),
        statistics: (0..3)
            .map(|field| Statistic {
                field,
                value: f64::from(field),
            })
            .collect(),
        ..Snapshot::default()
    };
    let options = Options {
        host: Some("h".into()),
        ..Options::default()
    };
    let mut encoder = Encoder::new(&options);
    let expected = [
        "c {} 5",
        r#"t {"a":"b"} 5"#,
        r#"t.90 {"a":"b"} 4"#,
        r#"t.bin_0_5 {"a":"b"} 1"#,
        r#"t.bin_inf {"a":"b"} 2"#,
        "g {} 4.5",
        "s {} 2",
    ];
    assert_eq!(encoded(&mut encoder, &snapshot), expected);
    let batches = encoder.encode(&snapshot, false).batches;
    let body = String::from_utf8(batches[0].body.clone()).expect("text");
    let head = r#"{"time":1795343740,"tags":{"host":"h"},"measurements":["#;
    assert!(body.starts_with(head), "{body}");

    let all = Options {
        skip_internal: false,
        always_suffix: true,
        snap: 0,
        ..Options::default()
    };
    let mut encoder = Encoder::new(&all);
    let found = encoded(&mut encoder, &snapshot);
    assert_eq!(found[0], "statsd.packets_received {} 1");
    assert_eq!(found[2], r#"t.100 {"a":"b"} 5"#);
    assert_eq!(found.last().map(String::as_str), Some("numStats {} 5"));
    let batches = encoder.encode(&snapshot, false).batches;
    assert!(
        batches[0]
            .body
            .starts_with(br#"{"time":1795343749,"tags":{},"#)
    );
}

#[test]
fn running_totals_take_a_flush_once() {
    let options = Options {
        counters_as_gauges: false,
        skip_internal: false,
        ..Options::default()
    };
    let mut encoder = Encoder::new(&options);
    let flush = |value| Snapshot {
        counters: vec![counter("c#a=1", value)],
        ..Snapshot::default()
    };
    let total = |total, stats| {
        [
            format!(r#"c {{"a":"1"}} {total}"#),
            format!("numStats {{}} {stats}"),
        ]
    };
    assert_eq!(encoded(&mut encoder, &flush(3.0)), total(3, 1));
    assert_eq!(
        measurements(&encoder.encode(&flush(4.0), false).batches),
        total(7, 2)
    );
    assert_eq!(
        measurements(&encoder.encode(&flush(4.0), true).batches),
        total(7, 2)
    );
    assert_eq!(encoded(&mut encoder, &flush(-2.0)), total(5, 3));
}

#[test]
fn names_get_a_prefix_and_lose_their_source() {
    let snapshot = of_gauges(&["web01.req#a=1", "nodot", "db.#source=x", "a b.c d"]);
    let options = Options {
        source: Some("dflt \"1\"".into()),
        source_regex: Some(pattern(r"^([^.]+)\.")),
        global_prefix: "ac me!".into(),
        write_to_legacy: true,
        ..Options::default()
    };
    let mut encoder = Encoder::new(&options);
    let encoded = encoder.encode(&snapshot, false);
    assert_eq!(
        measurements(&encoded.batches),
        [
            r#"ac_me_.req {"a":"1","source":"web01"} 1"#,
            r#"ac_me_.nodot {"source":"dflt \"1\""} 1"#,
            r#"ac_me_.c_d {"source":"a_b"} 1"#,
        ]
    );
    // The pattern took all of `db.`.
    assert_eq!((encoded.dropped, encoded.batches[1].measurements), (1, 3));
    let legacy = String::from_utf8(encoded.batches[1].body.clone()).expect("text");
    assert!(
        legacy.contains(r#"{"name":"ac_me_.req","value":1,"source":"web01"}"#),
        "{legacy}"
    );
    assert!(legacy.contains(r#""source":"dflt \"1\""}"#), "{legacy}");
}

#[test]
fn folded_tags_are_tags_where_they_are_wanted() {
    let snapshot = Snapshot {
        timers: vec![Timer {
            name: "t;route=/x;=lost".into(),
            samples: 0..5,
            ..Timer::default()
        }],
        samples: vec![1.0, 2.0, 3.0, 4.0, 5.0],
        ..of_gauges(&["g;env=a b;urgent", "g#x=1;env=c", "plain", ";env=a"])
    };
    let options = Options {
        host: Some("h".into()),
        write_to_legacy: true,
        folded_tags: true,
        ..Options::default()
    };
    let found = Encoder::new(&options).encode(&snapshot, false);
    assert_eq!(
        measurements(&found.batches),
        [
            r#"t {"route":"/x"} 5"#,
            r#"t.90 {"route":"/x"} 4"#,
            r#"g {"env":"a b","urgent":"urgent"} 1"#,
            r#"g {"x":"1","env":"c"} 1"#,
            "plain {} 1",
        ]
    );
    // The bucket without a name, and a tag of a timer once for all its measurements.
    assert_eq!((found.dropped, found.tags_dropped), (1, 1));
    let legacy: serde_json::Value = serde_json::from_slice(&found.batches[1].body).expect("JSON");
    let names: Vec<_> = legacy["gauges"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    let names: Vec<_> = names.iter().map(|item| item["name"].as_str()).collect();
    assert_eq!(names, ["t", "t.90", "g", "g", "plain"].map(Some));
    assert!(!legacy.to_string().contains("env"), "{legacy}");

    // As the reference has it otherwise.
    let options = Options {
        folded_tags: false,
        ..options
    };
    let found = Encoder::new(&options).encode(&snapshot, false);
    assert_eq!(
        measurements(&found.batches)[2..],
        [
            "g_env_a_b_urgent {} 1",
            r#"g {"x":"c"} 1"#,
            "plain {} 1",
            "_env_a {} 1",
        ]
    );
    assert_eq!((found.dropped, found.tags_dropped), (0, 0));
}

#[test]
fn a_source_in_the_name_stands_among_folded_tags() {
    let options = Options {
        source_regex: Some(pattern(r"^([^.]+)\.")),
        folded_tags: true,
        ..Options::default()
    };
    let snapshot = of_gauges(&["web.a;Source=x;k=v", "b;source=x"]);
    assert_eq!(
        encoded(&mut Encoder::new(&options), &snapshot),
        [r#"a {"source":"web","k":"v"} 1"#, r#"b {"source":"x"} 1"#]
    );
}

#[test]
fn filters_see_the_bucket_as_it_is_stored() {
    let snapshot = of_gauges(&["a#env=dev", "a#env=prod", "b", "statsd.x"]);
    let kept = |include: &[&str], exclude: &[&str]| {
        let patterns = |list: &[&str]| list.iter().map(|source| pattern(source)).collect();
        let options = Options {
            include: patterns(include),
            exclude: patterns(exclude),
            global_prefix: "p".into(),
            ..Options::default()
        };
        encoded(&mut Encoder::new(&options), &snapshot).len()
    };
    assert_eq!(kept(&[], &[]), 3);
    assert_eq!(kept(&[], &["env=dev"]), 2);
    assert_eq!(kept(&["^a"], &["prod$"]), 1);
    assert_eq!(kept(&["^p"], &[]), 0);
    assert_eq!(kept(&["^x", "b"], &[]), 1);
}

#[test]
fn what_cannot_be_sent_is_left_out_and_counted() {
    let mut encoder = Encoder::new(&Options::default());
    let mut snapshot = of_gauges(&["#x=1", "infinite", "nan", "Bad.One", "good"]);
    snapshot.gauges[1].value = f64::INFINITY;
    snapshot.gauges[2].value = f64::NAN;
    assert!(encoder.stop("Bad.One"));
    assert!(!encoder.stop("Bad.One"));
    // Names are told apart by case.
    assert!(encoder.stop("GOOD"));
    let found = encoder.encode(&snapshot, false);
    assert_eq!(measurements(&found.batches), ["good {} 1"]);
    assert_eq!(found.dropped, 4);
    let nothing = encoder.encode(&of_gauges(&[]), false);
    assert_eq!((nothing.batches.len(), nothing.dropped), (0, 0));
}

#[test]
fn global_tags_are_sent_as_written_and_a_host_takes_its_place() {
    let tags = |tags: &[(&str, &str)], host: Option<&str>| {
        let options = Options {
            tags: tags
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            host: host.map(String::from),
            ..Options::default()
        };
        String::from_utf8(global_tags(&options)).expect("text")
    };
    assert_eq!(tags(&[], None), "{}");
    assert_eq!(tags(&[], Some("h\"")), r#"{"host":"h\""}"#);
    let written = [("host", "\"a\""), ("n", "1")];
    assert_eq!(tags(&written, None), r#"{"host":"a","n":1}"#);
    assert_eq!(tags(&written, Some("b")), r#"{"host":"b","n":1}"#);
}

#[test]
fn what_has_a_time_of_its_own_is_sent_with_it() {
    let stamped = Stamped {
        kind: Kind::Gauge,
        name: "g;t=v".into(),
        timestamp: 1_656_581_400,
        value: 7.0,
    };
    let snapshot = Snapshot {
        stamped: vec![stamped],
        ..Snapshot::default()
    };
    let mut encoder = Encoder::new(&Options {
        folded_tags: true,
        write_to_legacy: true,
        skip_internal: false,
        ..Options::default()
    });
    let found = encoder.encode(&snapshot, false);
    let bodies = found
        .batches
        .iter()
        .map(|batch| String::from_utf8_lossy(&batch.body));
    let bodies: Vec<_> = bodies.collect();
    let new = r#"{"name":"g","value":7,"time":1656581400,"tags":{"t":"v"}}"#;
    let old = r#"{"name":"g","value":7,"measure_time":1656581400}"#;
    // In posts of their own, behind all that has the time of the flush.
    assert_eq!(bodies.len(), 4);
    assert!(bodies[0].contains("numStats"), "{}", bodies[0]);
    assert!(bodies[2].contains(new), "{}", bodies[2]);
    assert!(bodies[3].contains(old), "{}", bodies[3]);
    assert!(bodies[2..].iter().all(|body| !body.contains("numStats")));
}

#[test]
fn a_timer_past_the_exact_limit_is_summed_up_from_its_distribution() {
    let distribution = Distribution {
        count: 2000.0,
        sum: 3000.0,
        min: 0.9,
        max: 2.1,
        squares_apart: 1999.0,
        runs: vec![(1.0, 1000.0), (2.0, 1000.0)],
    };
    let timer = |distribution| Timer {
        name: "t".into(),
        folded: 2000,
        distribution,
        ..Timer::default()
    };
    let snapshot = |distribution| Snapshot {
        timers: vec![timer(distribution)],
        ..Snapshot::default()
    };
    let mut encoder = Encoder::new(&Options::default());
    let found = encoder.encode(&snapshot(Some(Box::new(distribution))), false);
    let body = String::from_utf8(found.batches[0].body.clone()).expect("text");
    let expected =
        r#"[{"name":"t","count":2000,"sum":3000,"min":0.9,"stddev_m2":1,"max":2.1,"tags":{}},"#
            .to_owned()
            + r#"{"name":"t.90","count":1800,"sum":2600,"min":0.9,"#;
    assert!(body.contains(&expected), "{body}");
    // Of an interval before the backend was wanted.
    assert_eq!(encoder.encode(&snapshot(None), false).dropped, 1);
}

#[test]
fn a_pattern_that_takes_too_long_is_given_up_for_the_flush() {
    let names: Vec<String> = (0..200).map(|n| format!("{}{n}", "a".repeat(40))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let options = Options {
        exclude: vec![pattern(r"^(?:(a)|aa|a)*\1[bc]")],
        ..Options::default()
    };
    let mut encoder = Encoder::new(&options);
    let found = encoder.encode(&of_gauges(&names), false);
    assert_eq!(
        (measurements(&found.batches).len(), found.exhausted),
        (200, 200)
    );
    assert_eq!(encoder.encode(&of_gauges(&["aab"]), false).exhausted, 0);
}

#[test]
fn all_searches_of_a_flush_have_a_bound_together() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    let names: Vec<String> = (0..1000).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let snapshot = of_gauges(&names);
    // Each look at the clock finds it so many milliseconds later.
    let step = Arc::new(AtomicU64::new(0));
    let clock = {
        let (now, step) = (AtomicU64::new(0), step.clone());
        move || now.fetch_add(step.load(Ordering::Relaxed), Ordering::Relaxed)
    };
    let options = Options {
        exclude: vec![pattern("^n")],
        ..Options::default()
    };
    let mut encoder = Encoder::new(&options).timed(clock);
    let mut sent = |milliseconds| {
        step.store(milliseconds, Ordering::Relaxed);
        let found = encoder.encode(&snapshot, false);
        (measurements(&found.batches).len(), found.exhausted)
    };
    // Looked at before each 16th: past 200 ms and 25 us a search with the fifth look.
    assert_eq!(
        sent(60),
        (1000 - 64, 1000 - 64),
        "what is not searched is sent"
    );
    assert_eq!(sent(0), (0, 0), "the next flush has a budget of its own");
    assert_eq!(sent(3), (0, 0), "62 looks of 3 ms are within it");
    let options = Options {
        include: vec![pattern("^n")],
        ..Options::default()
    };
    let now = AtomicU64::new(0);
    let mut encoder = Encoder::new(&options).timed(move || now.fetch_add(60, Ordering::Relaxed));
    let found = encoder.encode(&snapshot, false);
    let found = (measurements(&found.batches).len(), found.exhausted);
    assert_eq!(
        found,
        (64, 1000 - 64),
        "what is not searched is not included"
    );
}

#[test]
fn long_names_are_not_searched() {
    let long = |len| "x".repeat(len);
    let (taken, left) = (long(1024), long(1025));
    // More of them than searches that a pattern may give up.
    let mut names = vec![left.as_str(); 100];
    names.push(&taken);
    let options = Options {
        exclude: vec![pattern("x")],
        ..Options::default()
    };
    let mut encoder = Encoder::new(&options);
    let found = encoder.encode(&of_gauges(&names), false);
    let found = (measurements(&found.batches).len(), found.exhausted);
    assert_eq!(found, (100, 100));
}

#[test]
fn a_tag_gives_way_to_a_source_only_where_there_is_one() {
    let many: String = (0..50).map(|n| format!(";t{n}=v")).collect();
    let (plain, sourced) = (format!("plain{many}"), format!("web.x{many}"));
    let options = Options {
        folded_tags: true,
        source_regex: Some(pattern(r"^(web)\.")),
        ..Options::default()
    };
    let mut encoder = Encoder::new(&options);
    let found = encoder.encode(&of_gauges(&[&plain]), false);
    let tags = |found: &Encoded| measurements(&found.batches)[0].matches("\":").count();
    assert_eq!((tags(&found), found.tags_dropped), (50, 0));
    let found = encoder.encode(&of_gauges(&[&sourced]), false);
    assert_eq!((tags(&found), found.tags_dropped), (50, 1));
    // Once for each bucket, however many measurements it has.
    let timer = Timer {
        name: sourced.as_str().into(),
        samples: 0..2,
        ..Timer::default()
    };
    let snapshot = Snapshot {
        timers: vec![timer],
        samples: vec![1.0, 2.0],
        ..Snapshot::default()
    };
    let found = encoder.encode(&snapshot, false);
    assert_eq!(measurements(&found.batches).len(), 2);
    assert_eq!(found.tags_dropped, 1);
}
