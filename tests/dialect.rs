//! Dialect auto against its own naive reference, and against dialect statsd.

mod parsed;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod pipeline;
mod reference;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod traffic;

use pipeline::Pipeline;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use reference::{Options, Reference, auto_effects};
use serde_json::json;
use statsd_fast::ingest::packet::Packet;
use statsd_fast::ingest::{self, Dialect, table::Table};
use statsd_fast::metric::cell::Stamp;
use statsd_fast::metric::harvest::Harvest;
use statsd_fast::metric::sample::Reject;
use std::sync::Arc;
use std::time::Duration;
use traffic::{Event, Numbers};

fn lines(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = datagram.split(|&byte| byte == b'\n');
    lines.filter(|line| !line.is_empty())
}

/// What the reference says a datagram does, in the notation of the corpus.
fn expected(datagram: &[u8]) -> Vec<String> {
    let effects = lines(datagram).flat_map(|line| auto_effects(line, true));
    effects.map(|effect| effect.to_string()).collect()
}

fn assert_same(datagram: &[u8]) {
    let expected = expected(datagram);
    let shown = String::from_utf8_lossy(datagram);
    assert_eq!(parsed::auto(datagram), expected, "datagram {shown:?}");
    assert_eq!(
        parsed::auto_line_by_line(datagram),
        expected,
        "slow path, datagram {shown:?}"
    );
}

/// Datagrams of each kind that are compared.
const CASES: u32 = 2000;

proptest! {
    #![proptest_config(traffic::search(CASES))]

    #[test]
    fn parser_reads_what_clients_send(datagram in traffic::dogstatsd(Numbers::Any)) {
        assert_same(&datagram);
    }

    #[test]
    fn parser_reads_mutated_lines_of_clients(datagram in traffic::mutated_dogstatsd(Numbers::Any)) {
        assert_same(&datagram);
    }

    #[test]
    fn parser_reads_the_original_grammar(datagram in traffic::mutated(Numbers::Exact)) {
        assert_same(&datagram);
    }

    #[test]
    fn parser_reads_any_bytes(datagram in proptest::collection::vec(any::<u8>(), 0..300)) {
        assert_same(&datagram);
    }

    /// Nothing but what the parser looks for.
    #[test]
    fn parser_reads_delimiters_alone(datagram in "[a:|@#1.cT\n\r_e{},-]{0,140}") {
        assert_same(datagram.as_bytes());
    }

    #[test]
    fn parser_reads_any_rate(rate in "[0-9.eExX+-]{0,12}|[0-9]{0,30}[.][0-9]{0,30}") {
        assert_same(format!("a:1|ms|@{rate}\na:1|c|@{rate}|#t:v\na:1:2|h|#t:v|@{rate}").as_bytes());
    }
}

const SHAPES: [&str; 14] = [
    "N:1|h",
    "N:12345|d|@0.1",
    "N:1|c|#t:v|@0.5|c:N",
    "N:1:2:3|ms|@0.5|#t:v,u:w",
    "N:1|c\r",
    "N:1|g|T1656581400",
    "a:N|s",
    "a:N:N|s|#t:v",
    "a:1|c|#N:v|card:low",
    "a:1|c|c:N",
    "a:1|c|@0.5|#t:v|e:N|T0N",
    "_e{N,1}:a|b",
    "_e{1,1}:a|b|#N",
    "_sc|N|0",
];

#[test]
fn delimiters_stand_at_every_offset_of_a_block() {
    for shape in SHAPES {
        for length in 0..=140 {
            let line = shape.replace('N', &"0".repeat(length));
            assert_same(line.as_bytes());
            assert_same(format!("{line}\nb:2|h|@0.5\n\n{line}").as_bytes());
        }
    }
}

#[test]
fn every_start_and_end_of_a_long_datagram_is_a_datagram() {
    let lines = SHAPES.map(|shape| shape.replace('N', "name.of-9"));
    let datagram = lines.join("\n");
    for cut in 0..=datagram.len() {
        assert_same(&datagram.as_bytes()[..cut]);
        assert_same(&datagram.as_bytes()[cut..]);
    }
}

/// Configurations that differ in what becomes of tags and weights.
fn configurations() -> Vec<Options> {
    [
        json!({}),
        json!({ "percentThreshold": [90, 50, 99.9, -10, -90, 25, 1, 100, -100] }),
        json!({ "histogram": [{ "metric": "", "bins": [2, 50, "inf"] }], "flushInterval": 500 }),
        json!({ "graphite": { "legacyNamespace": false, "globalSuffix": "h" }, "deleteIdleStats": true }),
        json!({ "keyNameSanitize": false }),
    ]
    .iter()
    .map(Options::from_json)
    .collect()
}

/// Whether two values as sent are the same but for rounding: a sum of weights has no order of its own.
fn is_close(a: &str, b: &str) -> bool {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        _ if a == b => true,
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0),
        _ => false,
    }
}

/// Plays a history to the server and to the reference, and compares what each flush sends.
fn play(options: &Options, workers: usize, history: &[Event]) -> Result<(), TestCaseError> {
    // The timestamp that the lines have was a little earlier.
    let mut now_ms = 1_656_581_500_000;
    let mut server = Pipeline::of(Dialect::Auto, options, workers, now_ms);
    let mut naive = Reference::auto(options.clone());
    for (number, event) in history.iter().enumerate() {
        match event {
            Event::Datagram(worker, datagram) => {
                server.datagram(*worker, datagram);
                naive.auto_datagram(datagram, (now_ms / 1000) as i64);
            }
            Event::Harvest => server.harvest(),
            Event::Flush(after) => {
                now_ms += after;
                let sent = server.flush(Duration::from_millis(*after));
                let expected = naive.flush_lines(now_ms as i64);
                let same = sent.len() == expected.len()
                    && (sent.iter().zip(&expected))
                        .all(|(a, b)| a.0 == b.0 && is_close(&a.1, &b.1));
                if !same {
                    let missing: Vec<_> = (expected.iter())
                        .filter(|line| !sent.contains(line))
                        .collect();
                    let wrong: Vec<_> = (sent.iter())
                        .filter(|line| !expected.contains(line))
                        .collect();
                    return Err(TestCaseError::fail(format!(
                        "event {number}: expected but not sent {missing:?}, sent but not expected {wrong:?}"
                    )));
                }
            }
        }
    }
    Ok(())
}

/// Whole histories are long.
fn fewer() -> ProptestConfig {
    let cases = traffic::search(CASES).cases / 8;
    ProptestConfig {
        cases,
        ..traffic::search(CASES)
    }
}

proptest! {
    #![proptest_config(fewer())]

    #[test]
    fn any_split_over_workers_sends_what_the_reference_sends(
        options in proptest::sample::select(configurations()),
        workers in 1..=4usize,
        history in traffic::history(traffic::dogstatsd_alone(Numbers::Exact), true),
    ) {
        play(&options, workers, &history)?;
    }
}

const NOW: i64 = 1_656_581_500;

fn table() -> Table {
    Table::new(&ingest::Options::default(), Arc::default())
}

fn take(table: &mut Table, datagram: &[u8]) {
    table.begin_batch(Stamp(1));
    table.unix_time(|| NOW);
    let (bytes, truncated) = (datagram, false);
    ingest::take_packets([Packet { bytes, truncated }].into_iter(), table);
}

/// What a table of its own makes of a datagram.
fn taken(datagram: &[u8]) -> (Table, Harvest) {
    let (mut table, mut harvest) = (table(), Harvest::default());
    take(&mut table, datagram);
    table.harvest(&mut harvest);
    (table, harvest)
}

/// That each line is refused for one reason, costs no name, and spares its neighbour.
fn assert_refused(line: &str, reason: Reject) {
    let shown = &line[..line.len().min(60)];
    let (table, harvest) = taken(format!("{line}\nneighbour:1|c").as_bytes());
    assert_eq!(harvest.tally.rejected[reason as usize], 1, "{shown}");
    assert_eq!(harvest.tally.rejected_total(), 1, "{shown}");
    assert_eq!(
        (table.spellings(), harvest.counters.len()),
        (1, 1),
        "{shown}"
    );
}

#[test]
fn hostile_lines_are_refused_each_for_its_reason() {
    let kb60 = "x".repeat(60_000);
    let ten_thousand: Vec<String> = (0..10_000).map(|n| format!("t{n}")).collect();
    let ten_thousand = ten_thousand.join(",");
    for tags in [
        &kb60,
        &format!("t:{kb60}"),
        &ten_thousand,
        &",".repeat(8193),
    ] {
        assert_refused(&format!("a:1|c|#{tags}"), Reject::LongTags);
        assert_refused(&format!("a:1|h|@0.5|#{tags}|c:1"), Reject::LongTags);
        let each = taken(format!("a:1|c:2|ms|#{tags}").as_bytes()).1.tally;
        assert_eq!(each.rejected[Reject::LongTags as usize], 2);
    }
    let digits = "9".repeat(30_000);
    for header in [
        "_e{99999999999,1}:a|b",
        "_e{1,99999999999}:a|b",
        "_e{18446744073709551615,18446744073709551615}:a|b",
        "_e{1,1}:",
        "_e{{{{{",
    ] {
        assert_refused(header, Reject::BadEvent);
    }
    assert_refused(&format!("_e{{{digits},{digits}}}:a|b"), Reject::BadEvent);
    assert_refused(&format!("_e{{5,5}}:{kb60}"), Reject::BadEvent);
    assert_refused(&format!("_e{{{kb60}"), Reject::BadEvent);
    assert_refused(&format!("_sc|{kb60}"), Reject::BadCheck);
    for (time, reason) in [
        ("1e30".to_owned(), Reject::BadTimestamp),
        (format!("1{}", "0".repeat(30)), Reject::FutureTimestamp),
        (digits.clone(), Reject::FutureTimestamp),
        (format!("{}", NOW + 601), Reject::FutureTimestamp),
        (format!("{}", NOW - 3601), Reject::OldTimestamp),
        ("0".to_owned(), Reject::OldTimestamp),
        (format!("-{NOW}"), Reject::BadTimestamp),
        (String::new(), Reject::BadTimestamp),
    ] {
        assert_refused(&format!("a:1|c|T{time}"), reason);
        assert_refused(&format!("a:1|ms|#t:v|T{time}"), reason);
    }
}

#[test]
fn timestamps_within_the_bounds_are_kept_by_name_and_time() {
    let (back, ahead) = (NOW - 3600, NOW + 600);
    let datagram = format!(
        "a:1|c|T{back}\na:2|c|@0.5|T{back}\na:1|c|T{ahead}\nb:1|g|T{back}\nb:-3|g|T{back}\n\
         t:1:2|ms|T{back}\ns:x|s|T{ahead}"
    );
    let (_, harvest) = taken(datagram.as_bytes());
    let points = harvest.points.iter();
    let mut points: Vec<_> = points
        .map(|it| (it.kind as u8, it.at, it.point.value))
        .collect();
    points.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    assert_eq!(points, [(0, back, 5.0), (0, ahead, 1.0), (2, back, -3.0)]);
    assert_eq!(harvest.tally.recorded, [3, 2, 2, 1]);
    assert!(harvest.counters.is_empty() && harvest.gauges.is_empty());
    assert_eq!((harvest.samples.len(), harvest.sets.len()), (2, 1));
}

#[test]
fn a_rate_is_a_weight_and_never_a_repetition() {
    let (_, harvest) = taken(b"a:5|h|@1e-9\na:1|c|@1e-9");
    assert_eq!(harvest.samples, [5.0]);
    assert_eq!(harvest.weights, [(0, 1.0 / 1e-9)]);
    let mut server = Pipeline::of(Dialect::Auto, &Options::from_json(&json!({})), 1, 0);
    server.datagram(0, b"a:5|h|@1e-9\na:7|h");
    let sent = server.flush(Duration::from_secs(10));
    let value = |field: &str| {
        let name = format!("stats.timers.a.{field}");
        let found = sent.iter().find(|(known, _)| *known == name);
        found.expect("a field").1.parse::<f64>().expect("a number")
    };
    assert!((value("count") - 1_000_000_001.0).abs() < 1e-3);
    assert_eq!((value("upper_90"), value("upper")), (5.0, 7.0));
    assert_eq!(
        (value("count_90"), value("sum_90")),
        (900_000_001.0, 4_500_000_005.0)
    );
}

#[test]
fn no_rate_makes_a_sum_infinite() {
    for rate in [
        "0", "0.0", "1e-309", "1e-400", "1e400", "Infinity", "-1", "NaN",
    ] {
        assert_refused(&format!("a:1|c|@{rate}"), Reject::BadRate);
        assert_refused(&format!("a:1|d|#t:v|@{rate}"), Reject::BadRate);
    }
}

#[test]
fn a_datagram_of_packed_values_is_one_look_up() {
    let values = vec!["1"; 32_000].join(":");
    let (table, harvest) = taken(format!("a:{values}|c|#t:v").as_bytes());
    assert_eq!((table.spellings(), harvest.counters[0].cell), (1, 32_000.0));
}

/// Whoever keeps tags in a hash map sends them in another order each time.
#[test]
fn shuffled_tags_do_not_fill_the_memory() {
    let mut table = table();
    let mut tags: Vec<String> = (0..9).map(|n| format!("key{n}:value{n}")).collect();
    for round in 0..3000usize {
        tags.swap(round * 7 % 9, round * 5 % 7);
        tags.rotate_left(round % 4);
        take(
            &mut table,
            format!("a:1|c|#{0}\na:1|g|#{0}", tags.join(",")).as_bytes(),
        );
    }
    assert!(
        table.spellings() <= 2 * 10,
        "{} spellings",
        table.spellings()
    );
    let mut harvest = Harvest::default();
    table.harvest(&mut harvest);
    let sum: f64 = harvest.counters.iter().map(|part| part.cell).sum();
    assert_eq!((sum, harvest.gauges.len()), (3000.0, 1));
    let ids: std::collections::BTreeSet<_> = harvest.counters.iter().map(|part| part.id).collect();
    assert_eq!(ids.len(), 1);
}

#[test]
fn what_is_no_metric_is_unsupported_unless_a_repeater_has_it() {
    let datagram = b"_e{5,4}:title|text|#t:v\n_sc|redis|0\n_sc|redis|1|m:a:b|c\na:1|c";
    for (passes_on, unsupported) in [(false, 3), (true, 0)] {
        let mut table = table();
        table.pass_notices_on(passes_on);
        take(&mut table, datagram);
        let tally = &table.tally;
        assert_eq!((tally.events, tally.service_checks), (1, 2));
        assert_eq!(tally.unsupported, unsupported);
        assert_eq!((tally.rejected_total(), tally.recorded[0]), (0, 1));
    }
}
