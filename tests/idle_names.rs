//! Names that nobody sends any more are swept, and nobody notices: the same traffic without sweeps gives the same
//! flushes, and names without end take no memory without end.
//!
//! The real tables, registry and flusher, without threads and sockets: the test says which worker takes which
//! datagram, when each answers, which answers are still on their way, and when a flush and a sweep are.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use crossbeam::channel::{bounded, never};
use crossbeam::queue::ArrayQueue;
use daemon::{Daemon, FakeCarbon, Lines, config};
use proptest::prelude::*;
use serde_json::json;
use statsd_fast::flush::{self, Flusher, idle::Policy, question::Question};
use statsd_fast::ingest::{self, packet::Packet, table::Table};
use statsd_fast::metric::cell::Stamp;
use statsd_fast::metric::harvest::Harvest;
use statsd_fast::metric::registry::Registry;
use statsd_fast::metric::sample::Kind;
use statsd_fast::metric::snapshot::{SelfMetric, Snapshot};
use statsd_fast::runtime::clock::{Clock, Manual};
use statsd_fast::runtime::sys::wake::Waker;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const INTERVAL: Duration = Duration::from_secs(10);
/// Raw samples of a timer: few, so that both sides of the limit are common.
const EXACT: usize = 6;

/// Whatever does not show is swept at the first flush.
const AT_ONCE: Policy = Policy {
    flushes: 0,
    least: 1,
    share: usize::MAX,
};

/// Workers, and a flusher that takes what the test hands it.
struct Bench {
    registry: Arc<Registry>,
    flusher: Flusher,
    clock: Arc<Manual>,
    tables: Vec<Table>,
    /// Of each worker, harvests on their way.
    sent: Vec<VecDeque<Harvest>>,
    ingest: ingest::Options,
    /// Stamp of the last batch. Far apart, since each gauge write within a batch takes one.
    now: u64,
}

impl Bench {
    fn new(workers: usize, options: flush::Options) -> Self {
        let registry = Arc::new(Registry::new());
        let clock = Manual::new(1_700_000_000_000);
        let ingest = ingest::Options {
            exact_samples: options.exact_samples,
            ..ingest::Options::default()
        };
        let wakers = (0..workers).map(|_| Waker::new().expect("an eventfd"));
        let flusher = Flusher::new(
            options,
            Clock::Manual(clock.clone()),
            registry.clone(),
            flush::Link {
                epoch: Arc::default(),
                full: never(),
                empty: Arc::new(ArrayQueue::new(2)),
                workers: wakers.collect(),
            },
            Arc::default(),
        );
        let table = || Table::new(&ingest, registry.clone());
        Self {
            tables: (0..workers).map(|_| table()).collect(),
            sent: (0..workers).map(|_| VecDeque::new()).collect(),
            registry,
            flusher,
            clock,
            ingest,
            now: 0,
        }
    }

    fn take(&mut self, worker: usize, datagram: &str) {
        self.now += 1_000_000;
        let table = &mut self.tables[worker];
        table.begin_batch(Stamp(self.now));
        let bytes = datagram.as_bytes();
        let truncated = false;
        ingest::take_packets([Packet { bytes, truncated }].into_iter(), table);
    }

    /// A worker hands a harvest over; it does not arrive yet.
    fn send(&mut self, worker: usize) {
        let mut harvest = Harvest::default();
        self.tables[worker].harvest(&mut harvest);
        harvest.worker = worker;
        self.sent[worker].push_back(harvest);
        self.tables[worker].sweep();
    }

    fn arrive(&mut self, worker: usize) {
        while let Some(harvest) = self.sent[worker].pop_front() {
            self.flusher.absorb(harvest);
        }
    }

    fn answer(&mut self, worker: usize) {
        self.send(worker);
        self.arrive(worker);
    }

    fn answer_all(&mut self) {
        (0..self.tables.len()).for_each(|worker| self.answer(worker));
    }

    fn flush(&mut self, sweep: Option<Policy>) -> Snapshot {
        self.clock.advance(INTERVAL);
        let snapshot = self.flusher.flush();
        if let Some(policy) = sweep {
            self.flusher.sweep(policy);
        }
        snapshot
    }

    fn registered(&self) -> usize {
        Kind::ALL
            .iter()
            .map(|kind| self.registry.names(*kind))
            .sum()
    }

    fn columns(&self) -> usize {
        self.flusher.columns().iter().sum()
    }

    fn spellings(&self) -> usize {
        self.tables.iter().map(Table::spellings).sum()
    }

    fn memory(&self) -> usize {
        self.tables.iter().map(Table::memory).sum()
    }

    /// What admin would show of the running interval.
    fn shown(&mut self) -> BTreeMap<String, String> {
        let mut shown = BTreeMap::new();
        let (counters, asked) = bounded(1);
        self.flusher.answer(Question::Counters(counters));
        for (name, value) in asked.recv().expect("an answer") {
            shown.insert(format!("counter {}", sorted(&name)), format!("{value:?}"));
        }
        let (gauges, asked) = bounded(1);
        self.flusher.answer(Question::Gauges(gauges));
        for (name, value) in asked.recv().expect("an answer") {
            shown.insert(format!("gauge {}", sorted(&name)), format!("{value:?}"));
        }
        let (timers, asked) = bounded(1);
        self.flusher.answer(Question::Timers(timers));
        for (name, samples) in asked.recv().expect("an answer") {
            shown.insert(format!("timer {}", sorted(&name)), samples.len.to_string());
        }
        let (sets, asked) = bounded(1);
        self.flusher.answer(Question::Sets(sets));
        for (name, members) in asked.recv().expect("an answer") {
            let members: BTreeSet<_> = members.first.into_iter().collect();
            shown.insert(format!("set {}", sorted(&name)), format!("{members:?}"));
        }
        let (most, (busiest, asked)) = (usize::MAX, bounded(1));
        self.flusher.answer(Question::Busiest { most, busiest });
        for busy in asked.recv().expect("an answer") {
            let name = format!("hits {:?} {}", busy.kind, sorted(&busy.name));
            shown.insert(name, busy.hits.to_string());
        }
        shown
    }

    fn delete(&mut self, kind: Kind, pattern: &str) -> BTreeSet<String> {
        let (deleted, asked) = bounded(1);
        let patterns = vec![pattern.to_owned()];
        self.flusher.answer(Question::Delete {
            kind,
            patterns,
            deleted,
        });
        let names = asked.recv().expect("an answer");
        names
            .into_iter()
            .flatten()
            .map(|name| sorted(&name))
            .collect()
    }
}

/// A name in the order of the alphabet: a swept one is shown as it is spelled when it comes back.
fn sorted(name: &str) -> String {
    let (name, tags) = name.split_once(';').unwrap_or((name, ""));
    let mut tags: Vec<_> = tags.split(';').collect();
    tags.sort_unstable();
    format!("{name};{}", tags.join(";"))
}

/// All of a flush, by name.
fn contents(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut put = |name: String, value: String| {
        let known = all.insert(name.clone(), value);
        assert_eq!(known, None, "{name} is there twice");
    };
    for it in &snapshot.counters {
        put(
            format!("counter {}", sorted(&it.name)),
            format!("{:?}", it.value),
        );
    }
    for it in &snapshot.gauges {
        put(
            format!("gauge {}", sorted(&it.name)),
            format!("{:?}", it.value),
        );
    }
    for it in &snapshot.sets {
        let members: BTreeSet<_> = it.members.iter().collect();
        put(format!("set {}", sorted(&it.name)), format!("{members:?}"));
    }
    for it in &snapshot.timers {
        let statistics = &snapshot.statistics[it.statistics.clone()];
        let fields = statistics.iter().map(|it| {
            let field = &snapshot.fields[it.field as usize];
            format!("{field} {:.9e}", it.value)
        });
        let fields: Vec<_> = fields.collect();
        put(
            format!("timer {}", sorted(&it.name)),
            format!("{} folded, {fields:?}", it.folded),
        );
    }
    for it in &snapshot.stamped {
        let name = format!("{:?} {} at {}", it.kind, sorted(&it.name), it.timestamp);
        put(name, format!("{:?}", it.value));
    }
    let sweeps = |it: &&SelfMetric| it.name == "names_swept";
    for it in snapshot.self_metrics.iter().filter(|it| !sweeps(it)) {
        put(format!("own {}", it.name), it.value.to_string());
    }
    all
}

#[derive(Debug, Clone)]
enum Step {
    Take(usize, String),
    Send(usize),
    Arrive(usize),
    Answer(usize),
    /// Workers that answer before it; the others are late.
    Flush([bool; WORKERS]),
    /// A table works by other options: right after an answer.
    Anew(usize),
    Ask,
    Delete(Kind, &'static str),
}

const WORKERS: usize = 3;

fn line(now: u64) -> impl Strategy<Value = String> {
    let orders = Just(["a:1", "b:2", "c:3", "d:4"]).prop_shuffle();
    let tags = orders.prop_map(|tags| format!("|#{}", tags.join(",")));
    let tags = prop_oneof![3 => Just(String::new()), 1 => tags];
    let name = prop_oneof!["[a-d]", "x[.][ab]", "a b|a_b", Just("l".repeat(60))];
    let value = prop_oneof![
        2 => (1..100u32).prop_map(|by| format!("{by}|c")),
        2 => proptest::collection::vec(1..1000u32, 1..5).prop_map(|values| {
            let values: Vec<_> = values.iter().map(u32::to_string).collect();
            format!("{}|ms", values.join(":"))
        }),
        1 => (1..1000u32).prop_map(|ms| format!("{ms}|ms|@0.5")),
        3 => "([+]|-)?[0-9]{1,2}[|]g",
        2 => "[a-e][|]s",
    ];
    let stamp = prop_oneof![
        6 => Just(String::new()),
        1 => (0..3u64).prop_map(move |ago| format!("|T{}", now - ago)),
    ];
    (name, value, tags, stamp)
        .prop_map(|(name, value, tags, stamp)| format!("{name}:{value}{tags}{stamp}"))
}

fn step(now: u64) -> impl Strategy<Value = Step> {
    let datagram = proptest::collection::vec(line(now), 1..4).prop_map(|lines| lines.join("\n"));
    let worker = 0..WORKERS;
    let kind = proptest::sample::select(Kind::ALL.to_vec());
    let pattern = proptest::sample::select(vec!["a", "x.*", "a_b"]);
    prop_oneof![
        12 => (worker.clone(), datagram).prop_map(|(worker, datagram)| Step::Take(worker, datagram)),
        3 => worker.clone().prop_map(Step::Send),
        3 => worker.clone().prop_map(Step::Arrive),
        2 => worker.clone().prop_map(Step::Answer),
        6 => any::<[bool; WORKERS]>().prop_map(Step::Flush),
        4 => Just(Step::Flush([true; WORKERS])),
        1 => worker.prop_map(Step::Anew),
        2 => Just(Step::Ask),
        1 => (kind, pattern).prop_map(|(kind, pattern)| Step::Delete(kind, pattern)),
    ]
}

/// Everything that could be seen of a history.
fn seen(
    history: &[Step],
    options: &flush::Options,
    sweep: Option<Policy>,
) -> (Vec<BTreeMap<String, String>>, Bench) {
    let mut bench = Bench::new(WORKERS, options.clone());
    let mut seen = Vec::new();
    for step in history {
        match step {
            Step::Take(worker, datagram) => bench.take(*worker, datagram),
            Step::Send(worker) => bench.send(*worker),
            Step::Arrive(worker) => bench.arrive(*worker),
            Step::Answer(worker) => bench.answer(*worker),
            Step::Flush(answering) => {
                let answering = (0..WORKERS).filter(|worker| answering[*worker]);
                answering.for_each(|worker| bench.answer(worker));
                seen.push(contents(&bench.flush(sweep)));
            }
            Step::Anew(worker) => {
                bench.send(*worker);
                bench.ingest.name_tags = !bench.ingest.name_tags;
                bench.tables[*worker].reconfigure(&bench.ingest);
            }
            Step::Ask => seen.push(bench.shown()),
            Step::Delete(kind, pattern) => {
                let deleted = bench.delete(*kind, pattern);
                seen.push(
                    deleted
                        .into_iter()
                        .map(|name| (name, "deleted".into()))
                        .collect(),
                );
            }
        }
    }
    // The stop: last harvests, last flush.
    bench.answer_all();
    seen.push(contents(&bench.flush(sweep)));
    (seen, bench)
}

fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

fn options() -> flush::Options {
    flush::Options {
        interval: INTERVAL,
        exact_samples: EXACT,
        ..flush::Options::default()
    }
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

    /// Sweeps at every flush, with answers on their way, workers that are late, tables that begin anew and a
    /// stop in the middle: nothing is lost, doubled, or under another name.
    #[test]
    fn a_sweep_does_not_show(
        history in proptest::collection::vec(step(unix_now()), 1..80),
        (delete_counters, delete_timers, delete_sets) in any::<(bool, bool, bool)>(),
        gauges_max_ttl in proptest::option::of(1..3u32),
        idle_flushes in 0..4u32,
    ) {
        let options = flush::Options {
            delete_counters,
            delete_timers,
            delete_sets,
            delete_gauges: gauges_max_ttl.is_some(),
            gauges_max_ttl: gauges_max_ttl.unwrap_or(1),
            idle_flushes,
            ..options()
        };
        let (expected, _) = seen(&history, &options, None);
        let (swept, mut bench) = seen(&history, &options, Some(AT_ONCE));
        prop_assert_eq!(expected.len(), swept.len());
        for (at, (expected, swept)) in expected.iter().zip(&swept).enumerate() {
            prop_assert_eq!(expected, swept, "of what was seen, number {}", at);
        }
        // What is forgotten is gone once all have answered often enough.
        for _ in 0..12 {
            bench.answer_all();
            let _ = bench.flush(Some(AT_ONCE));
        }
        let shown: usize = {
            bench.answer_all();
            let snapshot = bench.flush(None);
            snapshot.counters.len() + snapshot.timers.len() + snapshot.gauges.len() + snapshot.sets.len()
        };
        prop_assert_eq!(bench.registered(), shown);
        if idle_flushes > 0 {
            // The server's own: three counters and a gauge, which no worker knows.
            prop_assert_eq!((shown, bench.spellings()), (4, 0));
        }
    }
}

#[derive(Debug, Clone)]
enum Strained {
    Usual(Step),
    Limit(usize),
    Short(bool),
}

/// Lines whose values are ones, each of them to be found again wherever it went.
fn ones(now: u64) -> impl Strategy<Value = String> {
    let name = prop_oneof![
        "[a-h]",
        "x[.][a-c]",
        Just("l".repeat(60)),
        "(e|f)(;z=1;a=2|;a=2;z=1)?"
    ];
    let value = prop_oneof![
        3 => Just("1|c".to_owned()),
        1 => (0..3u64).prop_map(move |ago| format!("1|c|T{}", now - ago)),
        2 => (1..4usize).prop_map(|values| format!("{}|ms", ["1"; 4][..values].join(":"))),
        1 => Just("+1|g".to_owned()),
        2 => "[a-e][|]s",
    ];
    (name, value).prop_map(|(name, value)| format!("{name}:{value}"))
}

fn strained(now: u64) -> impl Strategy<Value = Strained> {
    let datagram = proptest::collection::vec(ones(now), 1..6).prop_map(|lines| lines.join("\n"));
    let taken = (0..WORKERS, datagram).prop_map(|(worker, lines)| Step::Take(worker, lines));
    prop_oneof![
        12 => taken.prop_map(Strained::Usual),
        10 => step(now)
            .prop_filter("lines of its own", |step| !matches!(step, Step::Take(..)))
            .prop_map(Strained::Usual),
        1 => (1..8usize).prop_map(Strained::Limit),
        1 => any::<bool>().prop_map(Strained::Short),
    ]
}

proptest! {
    #![proptest_config(search())]

    /// The same with limits on names and memory that come and go: whatever name a value went to, it is there
    /// once, or counted as dropped.
    #[test]
    fn no_value_goes_astray_between_limits_and_sweeps(
        history in proptest::collection::vec(strained(unix_now()), 1..120),
        idle_flushes in 0..3u32,
        delete_counters: bool,
    ) {
        let options = flush::Options { idle_flushes, delete_counters, max_set_members: 2, ..options() };
        let mut bench = Bench::new(WORKERS, options);
        let (mut sent, mut sent_timers) = (0, 0);
        let (mut found, mut counted) = ([0.0; 2], BTreeMap::<&str, f64>::new());
        let mut take = |snapshot: &Snapshot| {
            let stamped = snapshot.stamped.iter().filter(|it| it.kind == Kind::Counter);
            found[0] += stamped.map(|it| it.value).sum::<f64>();
            let own = |name: &str| name.starts_with("statsd.");
            let counters = snapshot.counters.iter().filter(|it| !own(&it.name));
            found[0] += counters.map(|it| it.value).sum::<f64>();
            for timer in &snapshot.timers {
                let fields = snapshot.statistics[timer.statistics.clone()].iter();
                let count = fields.filter(|it| &*snapshot.fields[it.field as usize] == "count");
                found[1] += count.map(|it| it.value).sum::<f64>();
            }
            for it in &snapshot.self_metrics {
                *counted.entry(it.name).or_default() += it.value;
            }
        };
        for step in &history {
            match step {
                Strained::Limit(most) => bench.registry.limit(*most),
                Strained::Short(short) => bench.registry.set_short(*short),
                Strained::Usual(Step::Take(worker, datagram)) => {
                    for line in datagram.lines() {
                        let (_, ones) = line.split_once(':').expect("a value");
                        let timers = ones.strip_suffix("|ms").map(|ones| ones.matches('1').count());
                        sent += timers.unwrap_or(1);
                        sent_timers += timers.unwrap_or(0);
                    }
                    bench.take(*worker, datagram);
                }
                Strained::Usual(Step::Send(worker)) => bench.send(*worker),
                Strained::Usual(Step::Arrive(worker)) => bench.arrive(*worker),
                Strained::Usual(Step::Answer(worker)) => bench.answer(*worker),
                Strained::Usual(Step::Flush(answering)) => {
                    let answering = (0..WORKERS).filter(|worker| answering[*worker]);
                    answering.for_each(|worker| bench.answer(worker));
                    take(&bench.flush(Some(AT_ONCE)));
                }
                Strained::Usual(Step::Anew(worker)) => {
                    bench.send(*worker);
                    bench.ingest.name_tags = !bench.ingest.name_tags;
                    bench.tables[*worker].reconfigure(&bench.ingest);
                }
                Strained::Usual(Step::Ask) => drop(bench.shown()),
                // What is deleted is not to be found.
                Strained::Usual(Step::Delete(..)) => {}
            }
        }
        bench.answer_all();
        take(&bench.flush(Some(AT_ONCE)));
        let of = |name: &str| counted.get(name).copied().unwrap_or_default();
        let taken = ["counters", "timers", "gauges", "sets"].map(|kind| of(&format!("samples.{kind}")));
        prop_assert_eq!(found, [taken[0], taken[1]]);
        prop_assert_eq!(sent_timers as f64, taken[1]);
        let dropped = of("set_members_dropped") + of("stamped_dropped");
        prop_assert_eq!(taken.iter().sum::<f64>() + dropped, sent as f64);
    }
}

/// A new name each second for a day, of each kind, with tags and long ones, over two workers, while a few names
/// stay: what is kept of them after an hour is what is kept of them after a day.
#[test]
fn names_without_end_take_no_memory_without_end() {
    let options = flush::Options {
        idle_flushes: 3,
        delete_sets: true,
        ..options()
    };
    let mut bench = Bench::new(2, options);
    let mut most = [[0; 4]; 2];
    let long = "l".repeat(60);
    for second in 0..86_400u32 {
        let lines = [
            format!("c{second}:1|c"),
            format!("t{second}:1:2:3|ms"),
            format!("g{second}:+1|g"),
            format!("s{second}:m|s"),
            format!("{long}{second}:1|c"),
            format!("tagged:1|c|#z:{second},a:{second}"),
            "stays:1|c\nstays:1|g\nstays:1|ms\nstays:a|s".to_owned(),
        ];
        bench.take(second as usize % 2, &lines.join("\n"));
        if second % 10 != 9 {
            continue;
        }
        bench.answer_all();
        let snapshot = bench.flush(Some(Policy::default()));
        let sum = |name: &str| {
            let found = snapshot.counters.iter().find(|it| &*it.name == name);
            found.map(|it| it.value)
        };
        assert_eq!(sum("stays"), Some(10.0));
        assert_eq!(sum(&format!("c{second}")), Some(1.0));
        let kept = [
            bench.registered(),
            bench.columns(),
            bench.spellings(),
            bench.memory(),
        ];
        let most = &mut most[usize::from(second >= 3600)];
        most.iter_mut()
            .zip(kept)
            .for_each(|(most, kept)| *most = kept.max(*most));
    }
    let [hour, day] = most;
    // 60 names a flush; three more flushes are sent of most, ten have to pass, and a sweep takes two.
    assert!(day[0] < 2000, "{day:?}");
    assert!(day[2] < 2000, "{day:?}");
    assert_eq!(hour[..3], day[..3], "names, columns, spellings");
    // How many tombstones a map has is by chance.
    assert!(day[3] <= hour[3] + hour[3] / 4, "{day:?}, {hour:?} bytes");
    assert!(bench.registry.sweeps() > 500, "{}", bench.registry.sweeps());
}

/// Values that are on their way when their name is swept, of each kind.
#[test]
fn what_comes_for_a_swept_name_is_counted_once() {
    let options = flush::Options {
        idle_flushes: 1,
        ..options()
    };
    let lines = "c:1|c\nt:1|ms\ng:5|g\ns:x|s";
    let mut bench = Bench::new(2, options);
    bench.take(0, lines);
    bench.take(1, lines);
    bench.answer_all();
    let _ = bench.flush(Some(AT_ONCE));
    bench.answer_all();
    // Forgotten and swept with this one; nobody knows it yet.
    let _ = bench.flush(Some(AT_ONCE));
    assert_eq!(
        (bench.registry.sweeps(), bench.registered()),
        (1, 4),
        "the server's own"
    );
    assert_eq!(bench.spellings(), 8);
    bench.take(0, "c:2|c\nt:2|ms\ng:+2|g\ns:y|s");
    bench.take(1, "c:4|c\nt:4|ms\ng:+4|g\ns:y|s");
    // The first learns of it behind these values, and meets the names anew; the second has not answered.
    bench.answer(0);
    bench.take(0, "c:8|c\nt:8|ms\ng:+8|g\ns:z|s");
    bench.answer_all();
    let found = contents(&bench.flush(Some(AT_ONCE)));
    assert_eq!(found["counter c;"], "14.0");
    assert_eq!(found["gauge g;"], "14.0");
    let members: Vec<_> = ["y", "z"].map(|it| it.as_bytes().into()).into();
    let members: BTreeSet<statsd_fast::metric::set::Member> = members.into_iter().collect();
    assert_eq!(found["set s;"], format!("{members:?}"));
    let timer = &found["timer t;"];
    assert!(timer.contains("\"count 3.0"), "{timer}");
    assert!(timer.contains("\"sum 1.4"), "{timer}");
    assert_eq!(
        found
            .iter()
            .filter(|(name, _)| name.contains(" c;"))
            .count(),
        1
    );
}

/// Members that find no room are values all the same: who sends them does not let the set idle.
#[test]
fn a_set_that_is_sent_while_memory_is_short_is_not_idle() {
    let options = flush::Options {
        idle_flushes: 1,
        ..options()
    };
    let mut bench = Bench::new(1, options);
    bench.take(0, "s:x|s");
    bench.answer_all();
    assert_eq!(contents(&bench.flush(Some(AT_ONCE)))["set s;"], "{\"x\"}");
    bench.registry.set_short(true);
    for round in 0..4 {
        bench.take(0, "s:x|s\ns:y|s");
        bench.answer_all();
        assert_eq!(bench.shown()["hits Set s;"], "2", "round {round}");
        let found = contents(&bench.flush(Some(AT_ONCE)));
        let found =
            ["set s;", "own set_members_dropped", "own folded.memory"].map(|it| &*found[it]);
        assert_eq!(found, ["{}", "2", "0"], "round {round}");
    }
    assert_eq!(bench.registry.sweeps(), 0);
}

/// The ids of names that are gone go to others, of which nothing old is told.
#[test]
fn a_name_that_gets_an_old_id_begins_anew() {
    let options = flush::Options {
        delete_counters: true,
        delete_timers: true,
        delete_sets: true,
        delete_gauges: true,
        ..options()
    };
    let mut bench = Bench::new(1, options);
    bench.take(0, "old:9|c\nold:9|ms\nold:9|g\nold:old|s");
    for _ in 0..4 {
        bench.answer_all();
        let _ = bench.flush(Some(AT_ONCE));
    }
    let before = bench.columns();
    assert_eq!(bench.registered(), 4, "the server's own");
    bench.take(0, "new:1|c\nnew:1|ms\nnew:+1|g\nnew:new|s");
    bench.answer_all();
    let shown = bench.shown();
    for (name, value) in [
        ("counter new;", "1.0"),
        ("gauge new;", "1.0"),
        ("timer new;", "1"),
        ("hits Counter new;", "1"),
        ("hits Gauge new;", "1"),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    assert!(shown.keys().all(|name| !name.contains("old")), "{shown:?}");
    assert!(bench.columns() <= before + 4);
}

/// A worker that hangs keeps ids in limbo, and nobody else waits for it.
#[test]
fn a_worker_that_is_late_keeps_ids_and_nothing_else() {
    let options = flush::Options {
        delete_counters: true,
        ..options()
    };
    let mut bench = Bench::new(2, options);
    bench.take(0, "a:1|c");
    bench.take(1, "a:1|c");
    bench.answer_all();
    let _ = bench.flush(Some(AT_ONCE));
    bench.take(1, "a:2|c");
    for round in 0..5 {
        bench.take(0, "a:1|c\nb:1|c");
        bench.answer(0);
        let found = contents(&bench.flush(Some(AT_ONCE)));
        assert_eq!(found["counter a;"], "1.0", "round {round}");
        assert_eq!(bench.registry.sweeps(), 1);
    }
    bench.answer(1);
    assert_eq!(contents(&bench.flush(Some(AT_ONCE)))["counter a;"], "2.0");
    bench.answer(1);
    let _ = bench.flush(Some(AT_ONCE));
    assert_eq!(bench.registry.sweeps(), 2);
}

/// Far more names than stay: the room for them is given back.
#[test]
fn a_burst_of_names_leaves_no_room_behind() {
    let options = flush::Options {
        idle_flushes: 1,
        ..options()
    };
    let mut bench = Bench::new(1, options);
    let few = "c:1|c\nt:1|ms\ng:1|g\ns:1|s";
    // The second one brings the last of the server's own.
    for _ in 0..2 {
        bench.take(0, few);
        bench.answer_all();
        let _ = bench.flush(Some(Policy::default()));
    }
    let (columns, memory) = (bench.columns(), bench.memory());
    for n in 0..20_000 {
        bench.take(0, &format!("c{n}:1|c\nt{n}:1|ms\ng{n}:1|g\ns{n}:1|s"));
    }
    bench.answer_all();
    assert!(bench.memory() > 50 * memory);
    for _ in 0..30 {
        bench.take(0, few);
        bench.answer_all();
        let _ = bench.flush(Some(Policy::default()));
    }
    assert_eq!((bench.registered(), bench.spellings()), (8, 4));
    assert_eq!(bench.columns(), columns);
    assert!(
        bench.memory() <= 2 * memory,
        "{} of {memory}",
        bench.memory()
    );
}

/// The whole server: names come, go, are swept, and come again, and each value is there once.
#[test]
fn a_daemon_sweeps_and_counts_what_comes_back() {
    const NAMES: usize = 400;
    let carbon = FakeCarbon::start();
    let mut options = config(carbon.port());
    options["flushInterval"] = json!(20);
    options["idleFlushes"] = json!(1);
    let mut daemon = Daemon::start(&options, &["--threads", "2"]);
    let mut sums = BTreeMap::<String, f64>::new();
    let mut newest = BTreeMap::<String, String>::new();
    let mut add = |flush: &Lines| {
        for (name, value) in &flush.values {
            let number: f64 = value.parse().expect("a number");
            *sums.entry(name.clone()).or_default() += number;
            newest.insert(name.clone(), value.clone());
        }
        sums.get("stats.statsd_fast.names_swept").copied()
    };
    let mut swept = 0.0;
    for round in 0..3 {
        let client = daemon.client();
        for n in 0..NAMES {
            let by = 1 << round;
            let lines = format!("c{n}:{by}|c\nt{n}:{by}|ms\ng{n}:+{by}|g\ns{n}:{by}|s");
            client.send(lines.as_bytes()).expect("loopback takes it");
        }
        // Too few are not swept.
        let enough = swept + (4 * NAMES) as f64 - 256.0;
        while swept < enough {
            swept = add(&carbon.next_lines()).unwrap_or_default();
        }
    }
    assert_eq!(daemon.terminate().code(), Some(0));
    for flush in carbon.waiting() {
        add(&flush);
    }
    for n in 0..NAMES {
        assert_eq!(sums[&format!("stats_counts.c{n}")], 7.0, "c{n}");
        assert_eq!(sums[&format!("stats.timers.t{n}.count")], 3.0, "t{n}");
        assert_eq!(sums[&format!("stats.timers.t{n}.sum")], 7.0, "t{n}");
        assert_eq!(sums[&format!("stats.sets.s{n}.count")], 3.0, "s{n}");
        // Each time it began anew.
        assert_eq!(newest[&format!("stats.gauges.g{n}")], "4", "g{n}");
    }
    let drops = sums["stats.statsd_fast.kernel_drops"];
    assert_eq!(
        (drops, sums["stats_counts.statsd.bad_lines_seen"]),
        (0.0, 0.0)
    );
}
