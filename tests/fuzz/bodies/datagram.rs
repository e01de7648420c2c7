//! Datagrams of any bytes: taken and refused, value by value and flush by flush, as the naive reference says.

use crate::parsed;
use crate::pipeline::{LEFT_OUT, Pipeline};
use crate::reference::{AutoEffect, Effect, Options, Reference, Spellings, auto_effects, effects};
use serde_json::json;
use statsd_fast::ingest::packet::Packet;
use statsd_fast::ingest::{self, Dialect, Stamps, table::Table};
use statsd_fast::metric::cell::Stamp;
use statsd_fast::metric::harvest::{Harvest, Tally};
use statsd_fast::metric::registry::Registry;
use statsd_fast::metric::sample::{Kind, Reject};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Ends a datagram of the input; any other byte belongs to one.
pub(crate) const SEPARATOR: u8 = 0x1e;

/// A moment near the timestamps that the corpus has.
const NOW_S: i64 = 1_656_581_500;

/// Samples that a timer keeps exactly; the reference knows no other way.
const EXACT: usize = 1024;

/// Flushes of an input, at most, where each datagram may have one.
const FLUSHES: usize = 3;

/// Weights whose sums are exact in any order.
const WEIGHTS: [f64; 4] = [1.0, 2.0, 4.0, 8.0];

/// What is read, recorded and refused.
#[allow(dead_code, reason = "each target uses a part of it")]
pub(crate) fn check(input: &[u8]) {
    let datagrams: Vec<&[u8]> = input.split(|byte| *byte == SEPARATOR).collect();
    for dialect in [Dialect::Statsd, Dialect::Auto] {
        for datagram in &datagrams {
            read_alike(dialect, datagram);
        }
        for clean in [true, false] {
            let all = expected_of_all(dialect, &datagrams, clean);
            recorded_alike(dialect, clean, &datagrams, &all);
        }
    }
}

/// What a flush makes of it; apart, since a flush takes as long as reading thousands of lines.
#[allow(dead_code, reason = "each target uses a part of it")]
pub(crate) fn check_flush(input: &[u8]) {
    let datagrams: Vec<&[u8]> = input.split(|byte| *byte == SEPARATOR).collect();
    for dialect in [Dialect::Statsd, Dialect::Auto] {
        let all = expected_of_all(dialect, &datagrams, true);
        flushed_alike(dialect, &datagrams, &all);
        // These flush many times over, and differ little by dialect: one of them each.
        if (dialect == Dialect::Auto) == input.len().is_multiple_of(2) {
            swept_alike(dialect, &datagrams);
        } else {
            bounded(dialect, &datagrams, all.len());
        }
    }
}

fn expected_of_all(dialect: Dialect, datagrams: &[&[u8]], clean: bool) -> Vec<AutoEffect> {
    let lines = datagrams.iter().flat_map(|datagram| lines(datagram));
    lines
        .flat_map(|line| expected(dialect, line, clean))
        .collect()
}

fn lines(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = datagram.split(|byte| *byte == b'\n');
    lines.filter(|line| !line.is_empty())
}

/// What the reference says a line does.
fn expected(dialect: Dialect, line: &[u8], clean: bool) -> Vec<AutoEffect> {
    match dialect {
        Dialect::Statsd => {
            let effects = effects(line, clean).into_iter();
            effects.map(AutoEffect::Plain).collect()
        }
        Dialect::Auto => auto_effects(line, clean),
    }
}

/// The fast path and the plain one read what the reference reads.
fn read_alike(dialect: Dialect, datagram: &[u8]) {
    let expected: Vec<_> = lines(datagram)
        .flat_map(|line| expected(dialect, line, true))
        .map(|effect| effect.to_string())
        .collect();
    let (fast, plain) = match dialect {
        Dialect::Statsd => (parsed::packet(datagram), parsed::line_by_line(datagram)),
        Dialect::Auto => (parsed::auto(datagram), parsed::auto_line_by_line(datagram)),
    };
    let shown = String::from_utf8_lossy(datagram);
    assert_eq!(fast, expected, "{dialect:?}, fast, {shown:?}");
    assert_eq!(plain, expected, "{dialect:?}, plain, {shown:?}");
}

/// Accounts by what they count.
fn account(tally: &Tally) -> BTreeMap<String, u64> {
    let mut account = BTreeMap::new();
    for (kind, count) in Kind::ALL.iter().zip(tally.recorded) {
        account.insert(format!("{kind:?}"), count);
    }
    for (reason, count) in Reject::ALL.iter().zip(tally.rejected) {
        account.insert(reason.name().into(), count);
    }
    account.insert("event".into(), tally.events);
    account.insert("service-check".into(), tally.service_checks);
    account
}

/// The same of what the reference says.
fn expected_account(all: &[AutoEffect]) -> BTreeMap<String, u64> {
    let mut account = account(&Tally::default());
    let stamps = Stamps::default();
    for effect in all {
        let (effect, at) = match effect {
            AutoEffect::Plain(effect) => (effect, NOW_S),
            AutoEffect::Stamped(effect, at) => (effect, *at),
            notice => {
                *account.get_mut(&notice.to_string()).expect("a notice") += 1;
                continue;
            }
        };
        let key = match effect {
            _ if at < NOW_S - stamps.max_age => "old-timestamp".into(),
            _ if at > NOW_S + stamps.max_ahead => "future-timestamp".into(),
            Effect::Reject(reason) => reason.name().into(),
            Effect::Count { .. } => format!("{:?}", Kind::Counter),
            Effect::Time { .. } => format!("{:?}", Kind::Timer),
            Effect::GaugeSet { .. } | Effect::GaugeAdd { .. } => format!("{:?}", Kind::Gauge),
            Effect::Member { .. } => format!("{:?}", Kind::Set),
        };
        *account.get_mut(&key).expect("a counter") += 1;
    }
    account
}

/// Every part of a harvest, in an order of its own.
fn collected(table: &mut Table) -> (Vec<String>, Tally) {
    let mut harvest = Harvest::default();
    table.harvest(&mut harvest);
    let mut all: Vec<_> = (harvest.sets.iter())
        .map(|part| {
            let mut members: Vec<_> = part.cell.iter().collect();
            members.sort();
            format!("{:?} {} {members:?}", part.id, part.hits)
        })
        .collect();
    all.extend(harvest.counters.iter().map(|part| format!("{part:?}")));
    all.extend(harvest.gauges.iter().map(|part| format!("{part:?}")));
    all.extend(harvest.points.iter().map(|part| format!("{part:?}")));
    all.sort();
    // Their samples lie one after another, in their order.
    all.extend(harvest.timers.iter().map(|part| format!("{part:?}")));
    all.push(format!("{:?} {:?}", harvest.samples, harvest.weights));
    (all, harvest.tally)
}

/// A worker records every value or counts why not, the same whether it reads ahead of the table or not.
fn recorded_alike(dialect: Dialect, clean: bool, datagrams: &[&[u8]], all: &[AutoEffect]) {
    let options = ingest::Options {
        dialect,
        sanitize_names: clean,
        ..ingest::Options::default()
    };
    let registry = Arc::new(Registry::new());
    let record = |take: fn(&[&[u8]], &mut Table)| {
        let mut table = Table::new(&options, registry.clone());
        table.begin_batch(Stamp(1));
        table.unix_time(|| NOW_S);
        take(datagrams, &mut table);
        collected(&mut table)
    };
    let direct = record(|datagrams, table| {
        let truncated = false;
        let packets = datagrams.iter().map(|bytes| Packet { bytes, truncated });
        ingest::take_packets(packets, table);
    });
    let ahead = record(|datagrams, table| {
        let truncated = false;
        let packets = datagrams.iter().map(|bytes| Packet { bytes, truncated });
        ingest::take_packets_ahead(packets, table);
    });
    assert_eq!(direct, ahead, "{dialect:?}, clean: {clean}");
    let tally = direct.1;
    let bytes: usize = datagrams.iter().map(|datagram| datagram.len()).sum();
    let count: usize = (datagrams.iter())
        .map(|datagram| lines(datagram).count())
        .sum();
    assert_eq!(
        (tally.packets, tally.bytes, tally.lines),
        (datagrams.len() as u64, bytes as u64, count as u64)
    );
    assert_eq!(
        account(&tally),
        expected_account(all),
        "{dialect:?}, clean: {clean}"
    );
}

/// What a flush sends is what the reference sends, as far as the order of adding does not show.
fn flushed_alike(dialect: Dialect, datagrams: &[&[u8]], all: &[AutoEffect]) {
    let weights = all.iter().filter_map(|effect| match effect {
        AutoEffect::Plain(Effect::Time { weight, .. })
        | AutoEffect::Stamped(Effect::Time { weight, .. }, _) => Some(weight),
        _ => None,
    });
    // The reference lays each value out as often as it counts.
    let countable = |weight| dialect == Dialect::Statsd || WEIGHTS.contains(weight);
    if weights.clone().count() > EXACT || !weights.clone().all(countable) {
        return;
    }
    let exact = match dialect {
        // One worker adds in the order of arrival, each spelling of a name on its own.
        Dialect::Statsd => {
            let mut spellings = Spellings::default();
            let mut clashes = datagrams.iter();
            !clashes.any(|datagram| spellings.clash(datagram, true))
        }
        Dialect::Auto => all.iter().all(adds_in_any_order),
    };
    let options = Options::from_json(&json!({}));
    let now_ms = NOW_S as u64 * 1000;
    let mut server = Pipeline::of(dialect, &options, 1, now_ms);
    let mut naive = match dialect {
        Dialect::Statsd => Reference::new(options),
        Dialect::Auto => Reference::auto(options),
    };
    for datagram in datagrams {
        server.datagram(0, datagram);
        match dialect {
            Dialect::Statsd => naive.datagram(datagram),
            Dialect::Auto => naive.auto_datagram(datagram, NOW_S),
        }
    }
    let sent = server.flush(Duration::from_secs(10));
    let mut expected = naive.flush_lines(now_ms as i64 + 10_000);
    // What the server has of the kind is its own; a name like it is not looked at.
    expected.retain(|(name, _)| !LEFT_OUT.iter().any(|part| name.contains(part)));
    let names = |lines: &[(String, String)]| -> Vec<String> {
        lines.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&sent), names(&expected), "{dialect:?}");
    for (sent, expected) in sent.iter().zip(&expected).filter(|_| exact) {
        let same = match dialect {
            Dialect::Statsd => sent.1 == expected.1,
            Dialect::Auto => is_close(&sent.1, &expected.1),
        };
        assert!(same, "{dialect:?}: {sent:?}, not {expected:?}");
    }
}

/// A flush behind each datagram, and then all of them again: what sweeps take does not show.
fn swept_alike(dialect: Dialect, datagrams: &[&[u8]]) {
    let options = Options::from_json(&json!({"deleteIdleStats": true}));
    let flushes = |sweeps: bool| -> Vec<_> {
        let mut server = Pipeline::of(dialect, &options, 1, NOW_S as u64 * 1000);
        let mut flush = |datagram: Option<&&[u8]>| {
            if let Some(datagram) = datagram {
                server.datagram(0, datagram);
            }
            let sent = server.flush(Duration::from_secs(1));
            if sweeps {
                server.sweep();
            }
            sent
        };
        let mut sent: Vec<_> = (datagrams.iter().take(FLUSHES))
            .map(|datagram| flush(Some(datagram)))
            .collect();
        sent.push(flush(None));
        // What was swept comes again, under other ids.
        sent.extend(datagrams.iter().take(FLUSHES).map(|it| flush(Some(it))));
        sent
    };
    assert_eq!(flushes(true), flushes(false), "{dialect:?}");
}

/// With next to no room, in which names come and go, each value is in one account.
fn bounded(dialect: Dialect, datagrams: &[&[u8]], values: usize) {
    let ingest = ingest::Options {
        dialect,
        max_name_length: 16,
        max_set_members: 2,
        exact_samples: 4,
        ..ingest::Options::default()
    };
    let options = Options::from_json(&json!({"deleteIdleStats": true}));
    let mut server = Pipeline::with(&ingest, &options, 1, NOW_S as u64 * 1000);
    server.limit(4);
    for (index, datagram) in datagrams.iter().enumerate() {
        server.datagram(0, datagram);
        // As often as is cheap.
        if index < FLUSHES {
            server.flush(Duration::from_secs(1));
            server.sweep();
        }
    }
    server.flush(Duration::from_secs(1));
    let tally = server.tally();
    let accounts = tally.recorded.iter().chain(&tally.rejected).sum::<u64>();
    let dropped = tally.members_dropped + tally.stamped_dropped;
    let notices = tally.events + tally.service_checks;
    assert_eq!(accounts + dropped + notices, values as u64, "{dialect:?}");
}

/// Small integers and weights that are small powers of two: any order of adding gives the same sum.
fn adds_in_any_order(effect: &AutoEffect) -> bool {
    let small = |value: f64| value.fract() == 0.0 && value.abs() <= 1000.0;
    let (AutoEffect::Plain(effect) | AutoEffect::Stamped(effect, _)) = effect else {
        return true;
    };
    match effect {
        Effect::Count { value, weight, .. } | Effect::Time { value, weight, .. } => {
            small(*value) && WEIGHTS.contains(weight)
        }
        Effect::GaugeSet { value, .. } | Effect::GaugeAdd { value, .. } => small(*value),
        Effect::Member { .. } | Effect::Reject(_) => true,
    }
}

/// Whether two values as sent are the same but for rounding.
fn is_close(a: &str, b: &str) -> bool {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        _ if a == b => true,
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0),
        _ => false,
    }
}
