//! How datagrams are spread over workers, and how often those are harvested, does not show in a flush.
//!
//! The real tables, harvests and flusher, without threads and sockets: the test says which worker takes
//! which batch, when each worker is harvested, and in which order the harvests reach the flusher. The
//! same history is then taken by one worker that is harvested once an interval, and the snapshots are
//! compared.

use crossbeam::channel::{Sender, unbounded};
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use proptest::prelude::*;
use proptest::sample::Index;
use statsd_fast::flush::{self, Flusher, Order, Threshold};
use statsd_fast::ingest::{self, packet::Packet, table::Table};
use statsd_fast::metric::cell::{GAUGE_DELTAS, Stamp};
use statsd_fast::metric::harvest::Harvest;
use statsd_fast::metric::meter::Outside;
use statsd_fast::metric::registry::Registry;
use statsd_fast::metric::snapshot::{Snapshot, Timer};
use statsd_fast::runtime::clock::{Clock, Manual};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const WORKERS: usize = 4;
/// Raw samples of a timer: few, so that both sides of the limit are common.
const EXACT: usize = 12;
const INTERVAL: Duration = Duration::from_secs(10);

/// One batch of one worker: a datagram, read at its place in the history.
#[derive(Debug, Clone)]
struct Step {
    worker: usize,
    datagram: String,
    /// Workers that are harvested after it, in this order.
    harvested: Vec<usize>,
}

/// What happens in one interval, and the order in which the tick is answered.
#[derive(Debug, Clone)]
struct Interval {
    steps: Vec<Step>,
    answers: Vec<usize>,
}

/// The workers, and their end of the line to a flusher.
struct Bench {
    tables: Vec<Table>,
    full: Sender<Harvest>,
    /// Stamp of the last batch. Far apart, since each gauge write within a batch takes one.
    now: u64,
}

impl Bench {
    fn take(&mut self, worker: usize, datagram: &str) {
        self.now += 1_000_000;
        let table = &mut self.tables[worker];
        table.begin_batch(Stamp(self.now));
        let bytes = datagram.as_bytes();
        let truncated = false;
        ingest::take_packets([Packet { bytes, truncated }].into_iter(), table);
    }

    fn harvest(&mut self, worker: usize) {
        let mut harvest = Harvest::default();
        self.tables[worker].harvest(&mut harvest);
        self.full.send(harvest).expect("the flusher is there");
    }
}

/// Plays interval after interval and returns what the flusher published for each.
///
/// The flusher has no worker to wait for: it takes in what is in its channel. It publishes from this
/// thread, and so the next interval happens in its callback.
fn flushes(
    workers: usize,
    options: flush::Options,
    intervals: usize,
    mut play: impl FnMut(&mut Bench, usize),
) -> Vec<Arc<Snapshot>> {
    let registry = Arc::new(Registry::new());
    let clock = Manual::new(1_700_000_000_000);
    let (full, harvests) = unbounded();
    let flusher = Flusher::new(
        options.clone(),
        Clock::Manual(clock.clone()),
        registry.clone(),
        flush::Link {
            epoch: Arc::new(CachePadded::default()),
            full: harvests,
            empty: Arc::new(ArrayQueue::new(1)),
            workers: Vec::new(),
        },
        Arc::new(Outside::default()),
    );
    let ingest = ingest::Options {
        exact_samples: options.exact_samples,
        ..ingest::Options::default()
    };
    let mut bench = Bench {
        tables: (0..workers)
            .map(|_| Table::new(&ingest, registry.clone()))
            .collect(),
        full,
        now: 0,
    };
    let (commands, orders) = unbounded();
    let mut published = Vec::new();
    let mut next = |done: usize| {
        if done == intervals {
            // The finishing flush comes on top, and is empty.
            let _ = commands.send(Order::Finish);
        } else {
            play(&mut bench, done);
            clock.advance(INTERVAL);
        }
    };
    next(0);
    let _ = flusher.run(&orders, &crossbeam::channel::never(), |snapshot| {
        published.push(snapshot);
        if published.len() <= intervals {
            next(published.len());
        }
    });
    published.truncate(intervals);
    published
}

fn options() -> flush::Options {
    flush::Options {
        interval: INTERVAL,
        exact_samples: EXACT,
        thresholds: [(90.0, "90"), (50.0, "50"), (-25.0, "top25")]
            .map(|(percent, label)| Threshold {
                percent,
                label: label.into(),
            })
            .to_vec(),
        ..flush::Options::default()
    }
}

/// The history as it was spread, and as one worker has it.
fn both(
    history: &[Interval],
    options: &flush::Options,
) -> (Vec<Arc<Snapshot>>, Vec<Arc<Snapshot>>) {
    let spread = flushes(
        WORKERS,
        options.clone(),
        history.len(),
        |bench, interval| {
            let Interval { steps, answers } = &history[interval];
            for step in steps {
                bench.take(step.worker, &step.datagram);
                for worker in &step.harvested {
                    bench.harvest(*worker);
                }
            }
            for worker in answers {
                bench.harvest(*worker);
            }
        },
    );
    let alone = flushes(1, options.clone(), history.len(), |bench, interval| {
        for step in &history[interval].steps {
            bench.take(0, &step.datagram);
        }
        bench.harvest(0);
    });
    (spread, alone)
}

/// Counters, gauges and sets by name: as text where they must agree to the bit.
fn exact_part(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let mut part = BTreeMap::new();
    for counter in &snapshot.counters {
        let shown = format!("{:?} {:?}", counter.value, counter.rate);
        part.insert(format!("counter {}", counter.name), shown);
    }
    for gauge in &snapshot.gauges {
        part.insert(
            format!("gauge {}", gauge.name),
            format!("{:?}", gauge.value),
        );
    }
    for set in &snapshot.sets {
        let members: BTreeSet<_> = set.members.iter().collect();
        part.insert(format!("set {}", set.name), format!("{members:?}"));
    }
    part
}

/// The statistics of every timer, by name of timer and field, and whether it is exact.
fn timers(snapshot: &Snapshot) -> BTreeMap<&str, (bool, BTreeMap<&str, f64>)> {
    let of = |timer: &Timer| {
        let statistics = &snapshot.statistics[timer.statistics.clone()];
        statistics
            .iter()
            .map(|s| (&*snapshot.fields[s.field as usize], s.value))
            .collect::<BTreeMap<_, _>>()
    };
    snapshot
        .timers
        .iter()
        .map(|timer| {
            let statistics = of(timer);
            let samples = &snapshot.samples[timer.samples.clone()];
            let exact = statistics.len() == 2 || !samples.is_empty();
            (&*timer.name, (exact, statistics))
        })
        .collect()
}

/// What must agree of a timer to the bit past the limit, too: all that is an integer or one value.
fn is_one_value(field: &str) -> bool {
    ["count", "upper", "lower", "median"]
        .iter()
        .any(|part| field.starts_with(part))
}

fn assert_same(spread: &Snapshot, alone: &Snapshot) {
    assert_eq!(exact_part(spread), exact_part(alone));
    assert_eq!(spread.timestamp, alone.timestamp);
    let (spread_timers, alone_timers) = (timers(spread), timers(alone));
    assert_eq!(
        spread_timers.keys().collect::<Vec<_>>(),
        alone_timers.keys().collect::<Vec<_>>()
    );
    for (name, (exact, expected)) in alone_timers {
        let (exact_too, found) = &spread_timers[name];
        assert_eq!(*exact_too, exact, "{name} is exact");
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "fields of {name}"
        );
        for (field, expected) in &expected {
            let found = found[field];
            if exact || is_one_value(field) {
                assert_eq!(found, *expected, "{name} {field}");
            } else {
                let close = (found - expected).abs() <= 1e-9 * expected.abs().max(1.0);
                assert!(close, "{name} {field}: {found}, expected {expected}");
            }
        }
    }
    let recorded = |snapshot: &Snapshot| {
        let ours = snapshot.self_metrics.iter();
        ours.map(|m| (m.name, m.value)).collect::<Vec<_>>()
    };
    assert_eq!(recorded(spread), recorded(alone));
}

/// One line. Names are few, so that workers meet; some are spellings of one another.
fn line() -> impl Strategy<Value = String> {
    let name = "[ab]|a b|a_b|a;t=u";
    prop_oneof![
        2 => (name, -1000..1000i32).prop_map(|(name, by)| format!("{name}:{by}|c")),
        1 => (name, 1..50i32).prop_map(|(name, by)| format!("{name}:{by}|c|@0.25")),
        3 => (name, 0..100_000u32).prop_map(|(name, ms)| format!("{name}:{}|ms", f64::from(ms) / 64.0)),
        2 => (name, proptest::collection::vec(0..100_000u32, 1..10)).prop_map(|(name, values)| {
            let value = |ms: &u32| format!("{}|ms|@0.5", f64::from(*ms) / 8.0);
            let values: Vec<_> = values.iter().map(value).collect();
            format!("{name}:{}", values.join(":"))
        }),
        3 => (name, "-?[0-9]{1,2}|[+][0-9]{1,2}|0|-0").prop_map(|(name, value)| format!("{name}:{value}|g")),
        2 => (name, "[a-e]{1,2}").prop_map(|(name, member)| format!("{name}:{member}|s")),
        1 => (name, "[|]c|x[|]ms|1").prop_map(|(name, bad)| format!("{name}:{bad}")),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let datagram = proptest::collection::vec(line(), 1..6).prop_map(|lines| lines.join("\n"));
    let harvested = prop_oneof![
        4 => Just(Vec::new()),
        1 => proptest::collection::vec(0..WORKERS, 1..4),
    ];
    (0..WORKERS, datagram, harvested).prop_map(|(worker, datagram, harvested)| Step {
        worker,
        datagram,
        harvested,
    })
}

fn interval() -> impl Strategy<Value = Interval> {
    let steps = proptest::collection::vec(step(), 0..30);
    let answers = Just((0..WORKERS).collect::<Vec<_>>()).prop_shuffle();
    (steps, answers).prop_map(|(steps, answers)| Interval { steps, answers })
}

/// `PROPTEST_CASES` for a longer search.
fn search() -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 100;
    }
    config
}

proptest! {
    #![proptest_config(search())]

    /// Any spread over workers, harvested however often, over several intervals and with names that
    /// live on or are deleted.
    #[test]
    fn a_spread_does_not_show(
        history in proptest::collection::vec(interval(), 1..4),
        (delete_counters, delete_timers, delete_sets) in any::<(bool, bool, bool)>(),
        gauges_max_ttl in proptest::option::of(1..3u32),
    ) {
        let options = flush::Options {
            delete_counters,
            delete_timers,
            delete_sets,
            delete_gauges: gauges_max_ttl.is_some(),
            gauges_max_ttl: gauges_max_ttl.unwrap_or(1),
            ..options()
        };
        let (spread, alone) = both(&history, &options);
        prop_assert_eq!(spread.len(), history.len());
        for (spread, alone) in spread.iter().zip(&alone) {
            assert_same(spread, alone);
        }
    }

    /// Workers answer a tick one after the other while writes go on: whatever comes after a worker's
    /// answer belongs to the next flush, and in the end the newest write to a gauge stands.
    #[test]
    fn the_newest_write_stands_wherever_the_tick_fell(
        writers in proptest::collection::vec(0..WORKERS, 1..12),
        answer_after in proptest::collection::vec(any::<Index>(), WORKERS),
    ) {
        let last = writers.len() as f64;
        let published = flushes(WORKERS, options(), 2, |bench, interval| {
            if interval == 1 {
                (0..WORKERS).for_each(|worker| bench.harvest(worker));
                return;
            }
            for (at, writer) in writers.iter().enumerate() {
                bench.take(*writer, &format!("g:{}|g", at + 1));
                for (worker, after) in answer_after.iter().enumerate() {
                    if after.index(writers.len()) == at {
                        bench.harvest(worker);
                    }
                }
            }
        });
        let values: Vec<_> = published[1].gauges.iter().map(|g| (&*g.name, g.value)).collect();
        prop_assert!(values.contains(&("g", last)), "{values:?}");
    }
}

#[test]
fn an_older_write_that_is_late_does_not_undo_a_flushed_one() {
    let published = flushes(2, options(), 2, |bench, interval| {
        if interval == 0 {
            bench.harvest(0);
            bench.take(0, "g:1|g");
            bench.take(1, "g:2|g");
            bench.harvest(1);
        } else {
            bench.harvest(0);
            bench.harvest(1);
        }
    });
    let g = |flush: usize| {
        let gauge = published[flush].gauges.iter().find(|g| &*g.name == "g");
        gauge.expect("it was written").value
    };
    assert_eq!((g(0), g(1)), (2.0, 2.0));
}

/// Far more signed writes than a cell keeps apart: their sum is exact all the same.
#[test]
fn the_busiest_gauge_keeps_its_sum() {
    let writes = 5 * GAUGE_DELTAS;
    let published = flushes(WORKERS, options(), 1, |bench, _| {
        bench.take(0, "g:1000000|g");
        (0..writes).for_each(|n| bench.take(n % WORKERS, "g:-3|g"));
        (0..WORKERS).for_each(|worker| bench.harvest(worker));
    });
    let expected = 1_000_000.0 - 3.0 * writes as f64;
    assert_eq!(
        exact_part(&published[0])["gauge g"],
        format!("{expected:?}")
    );
}

/// The comparison itself: each kind of difference is one.
#[test]
fn a_difference_shows() {
    let flush_of = |datagram: &str| {
        let published = flushes(1, options(), 1, |bench, _| {
            bench.take(0, datagram);
            bench.harvest(0);
        });
        published[0].clone()
    };
    let many = |last: u32| format!("t:{}{last}|ms", "5|ms:".repeat(EXACT));
    let same = |a: &str, b: &str| {
        let (a, b) = (flush_of(a), flush_of(b));
        std::panic::catch_unwind(|| assert_same(&a, &b)).is_ok()
    };
    assert!(same("a:1|c", "a:1|c"));
    for (a, b) in [
        ("a:1|c", "a:2|c"),
        ("a:1|g", "a:2|g"),
        ("a:x|s", "a:y|s"),
        ("a:1|c", "b:1|c"),
        ("a:1|ms", "a:1.0000000001|ms"),
        ("a:1|ms", "a:1|ms|@0.5"),
        (&many(6), &many(7)),
    ] {
        assert!(!same(a, b), "{a} and {b}");
    }
}
