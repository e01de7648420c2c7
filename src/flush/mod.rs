//! Flush: one thread that turns harvests into a snapshot each interval.
//!
//! At a tick it raises the epoch, wakes the workers and takes in a harvest of each; merges, computes,
//! publishes one immutable snapshot, and begins the next interval. It alone knows which names live on.

pub mod busiest;
mod grid;
pub mod growth;
pub mod idle;
pub mod merge;
pub mod question;
mod report;
pub mod statistics;

use crate::metric::carried::{Carried, Interval};
use crate::metric::handover::{Asking, Silence, collect};
use crate::metric::harvest::{Harvest, Tally};
use crate::metric::kept::Shelf;
use crate::metric::meter::{Outside, Totals};
use crate::metric::registry::{Name, NameId, Registry};
use crate::metric::sample::Kind;
use crate::metric::set::MEMBERS_MAX;
use crate::metric::snapshot::{Counter, Gauge, Set, Snapshot, Timer};
use crate::runtime::clock::{Clock, Woke, rounded_seconds};
use crate::runtime::sys::wake::Waker;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use grid::Grid;
use growth::Growing;
use merge::State;
use question::Question;
use statistics::Statistics;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A percentile to compute: its number, and the text it is named by.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// The percentile as written: positive from below, negative from above.
    pub percent: f64,
    /// Its name part, e.g. `90`, `99_9`, `top10` (spec: JS string, first `.` -> `_`, first `-` -> `top`).
    pub label: String,
}

/// One upper bound of a histogram rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Bin {
    /// Exclusive upper bound; `None` is the bin `inf`, which takes all the rest.
    pub below: Option<f64>,
    /// Its name part, e.g. `0_01` or `inf`.
    pub label: String,
}

/// Which timers get which histogram: the first rule whose `metric` occurs in the name.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramRule {
    /// Substring of the stored name; empty matches every name.
    pub metric: String,
    /// Bins in the order written; empty switches the histogram off for these names.
    pub bins: Vec<Bin>,
}

/// Reports of the busiest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFlush {
    /// Time between two of them (`keyFlush.interval`).
    pub every: Duration,
    /// Share of the names that is reported, the busiest first, in percent (`keyFlush.percent`).
    pub percent: u8,
    /// File to append to; standard output without one (`keyFlush.log`).
    pub file: Option<PathBuf>,
}

/// Everything the flusher does differently from one installation to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Time between flushes (`flushInterval`).
    pub interval: Duration,
    /// Flush on multiples of the interval by the wall clock, not by the start (`flushAlign`).
    pub align: bool,
    /// Report the busiest names, if at all (`keyFlush`).
    pub key_flush: Option<KeyFlush>,
    /// Percentiles in the order written (`percentThreshold`).
    pub thresholds: Vec<Threshold>,
    /// Histogram rules in the order written (`histogram`).
    pub histogram: Vec<HistogramRule>,
    /// Timer fields to keep, already as listed; `None` keeps all (`calculatedTimerMetrics`).
    pub timer_fields: Option<Vec<String>>,
    /// Forget a counter that was not touched in an interval (`deleteCounters`).
    pub delete_counters: bool,
    /// The same for timers (`deleteTimers`).
    pub delete_timers: bool,
    /// The same for sets (`deleteSets`).
    pub delete_sets: bool,
    /// Forget a gauge not written for `gauges_max_ttl` flushes (`deleteGauges`).
    pub delete_gauges: bool,
    /// Flushes an unwritten gauge lives when `delete_gauges` is set (`gaugesMaxTTL`), at least 1.
    pub gauges_max_ttl: u32,
    /// Flushes without a value after which any name is forgotten (`idleFlushes`); 0 is never.
    pub idle_flushes: u32,
    /// Namespace of the daemon's own reference metrics (`prefixStats`).
    pub prefix_stats: String,
    /// Samples a timer keeps exactly per interval over all workers (`exactSamples`).
    pub exact_samples: usize,
    /// Distinct members a set takes in an interval, over all workers (`maxSetMembers`).
    pub max_set_members: usize,
    /// Hand on what histograms hold of timers past that limit: a backend has statistics of its own.
    pub keep_distributions: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            align: false,
            key_flush: None,
            thresholds: vec![Threshold {
                percent: 90.0,
                label: "90".into(),
            }],
            histogram: Vec::new(),
            timer_fields: None,
            delete_counters: false,
            delete_timers: false,
            delete_sets: false,
            delete_gauges: false,
            gauges_max_ttl: 1,
            idle_flushes: 0,
            prefix_stats: "statsd".into(),
            exact_samples: 1024,
            max_set_members: MEMBERS_MAX,
            keep_distributions: false,
        }
    }
}

/// How long a tick waits for a worker. One that is alive answers within a batch; one that is late is
/// counted, and what it has comes with the next flush.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What a running flusher is told to do. Questions come another way, so that however many they are, no
/// order waits behind them.
#[derive(Debug)]
pub enum Order {
    /// Go on with these options; tells when they are in force.
    Reconfigure(Box<Options>, Sender<()>),
    /// The workers are told to end: wait for their last harvests, and hand everything over to a successor.
    HandOver(Handover),
    /// The workers are gone: take their last harvests in, flush once more, and end.
    Finish,
}

/// How the open interval goes to a successor.
#[derive(Debug)]
pub struct Handover {
    /// Where it goes.
    pub to: Sender<Handed>,
    /// Where it comes back to when the successor fails. When it is closed, there is one, and nothing is left
    /// to flush here.
    pub back: Receiver<Box<Carried>>,
}

/// What goes to a successor, and what its meters go on from.
#[derive(Debug)]
pub struct Handed {
    /// The open interval.
    pub carried: Box<Carried>,
    /// What the flushes of this process have shown; the rest is in `carried`.
    pub shown: Totals,
    /// What threads off the sample path have counted: all they count from here on is in neither.
    pub outside: Totals,
}

/// Questions that may wait for the flusher; who asks more waits to ask.
pub const QUESTIONS_MAX: usize = 64;

/// The flusher's end of the lines to the workers.
#[derive(Debug)]
pub struct Link {
    /// Raised at each tick; see `ingest::Link`.
    pub epoch: Arc<CachePadded<AtomicU64>>,
    /// Harvests of all workers.
    pub full: Receiver<Harvest>,
    /// Where emptied ones go back.
    pub empty: Arc<ArrayQueue<Harvest>>,
    /// One for each worker; an idle one sleeps until it is woken.
    pub workers: Vec<Waker>,
}

/// A flusher that waits for harvests.
struct Tick<'f> {
    flusher: &'f mut Flusher,
    until: Instant,
}

impl Asking for Tick<'_> {
    type Load = Harvest;

    fn ask(&mut self) -> u64 {
        let link = &self.flusher.link;
        // Relaxed: the number carries no data, see ingest::Link.
        let epoch = link.epoch.load(Ordering::Relaxed) + 1;
        link.epoch.store(epoch, Ordering::Relaxed);
        link.workers.iter().for_each(Waker::wake);
        epoch
    }

    fn next(&mut self) -> Result<Harvest, Silence> {
        let harvest = self.flusher.link.full.recv_deadline(self.until);
        harvest.map_err(|error| match error {
            RecvTimeoutError::Timeout => Silence::Late,
            RecvTimeoutError::Disconnected => Silence::Ended,
        })
    }

    fn answers(harvest: &Harvest) -> (usize, u64) {
        (harvest.worker, harvest.epoch)
    }

    fn take(&mut self, harvest: Harvest) {
        self.flusher.absorb(harvest);
    }
}

/// Turns in a row that may belong to what is due, while somebody may be waiting to be heard.
const LATE_MAX: u32 = 1;

/// Ids of the metrics the reference keeps about itself, among the user's own.
#[derive(Debug)]
struct Own {
    bad_lines: NameId,
    packets: NameId,
    lines: NameId,
    lag: String,
}

/// The thread that flushes.
#[derive(Debug)]
pub struct Flusher {
    options: Options,
    clock: Clock,
    registry: Arc<Registry>,
    link: Link,
    outside: Arc<Outside>,
    state: State,
    statistics: Statistics,
    sweeper: idle::Sweeper,
    own: Own,
    /// Accounts since the last flush.
    tally: Tally,
    /// Accounts since the start, `tally` included.
    total: Tally,
    /// What the meters showed at the last flush.
    flushed: Totals,
    growth: Growing,
    grid: Grid,
    /// When the next flush is due, [`Clock::steady_ms`].
    next_ms: u64,
    /// The interval and its alignment from the next flush on, when they are to change.
    next_grid: Option<(Duration, bool)>,
    last_timestamp: Option<i64>,
    busiest: Option<busiest::Reporter>,
    /// Where gauges are laid after each flush, when anybody keeps them.
    shelf: Option<Shelf>,
    log: report::Limits,
}

impl Flusher {
    /// A flusher whose grid begins now. The reference's three counters exist from the start.
    pub fn new(
        options: Options,
        clock: Clock,
        registry: Arc<Registry>,
        link: Link,
        outside: Arc<Outside>,
    ) -> Self {
        let now_ms = clock.now_ms();
        let grid = Grid::new(now_ms);
        let mut state = State::new(&options);
        let own = Own::new(&registry, &options.prefix_stats, &mut state);
        let key_flush = options.key_flush.clone();
        Self {
            state,
            statistics: Statistics::new(&options),
            sweeper: idle::Sweeper::new(link.workers.len()),
            next_ms: clock.steady_ms() + grid.wait(options.interval, options.align, now_ms),
            grid,
            next_grid: None,
            own,
            busiest: key_flush.map(|options| busiest::Reporter::new(options, clock.steady_ms())),
            options,
            clock,
            registry,
            link,
            flushed: Totals::ZERO,
            growth: Growing::default(),
            outside,
            tally: Tally::default(),
            total: Tally::default(),
            last_timestamp: None,
            shelf: None,
            log: report::Limits::default(),
        }
    }

    /// Brings a gauge to life that an earlier process left, before the first flush.
    pub fn restore_gauge(&mut self, id: NameId, value: f64, flushes_left: u32) {
        self.state.restore_gauge(id, value, flushes_left);
    }

    /// From now on the gauges lie there after each flush, for the next process.
    pub fn keep_gauges(&mut self, shelf: Shelf) {
        self.shelf = Some(shelf);
    }

    /// Flushes at every tick until told to finish, then once more. Returns the accounts since the start.
    pub fn run(
        mut self,
        orders: &Receiver<Order>,
        questions: &Receiver<Question>,
        mut publish: impl FnMut(Arc<Snapshot>),
    ) -> Tally {
        // Turns in a row at which something was due already.
        let mut late = 0;
        loop {
            let report_ms = self.busiest.as_ref().map_or(u64::MAX, |it| it.next_ms);
            let due_ms = self.next_ms.min(report_ms);
            late = if self.clock.steady_ms() < due_ms {
                0
            } else {
                late + 1
            };
            // Time comes first, but when flushes take longer than their interval it would always.
            let heard = if late > LATE_MAX {
                late = 0;
                Clock::look(orders, questions)
            } else {
                None
            };
            let lags = heard.is_some();
            let woke = heard.unwrap_or_else(|| self.clock.wait(due_ms, orders, questions));
            let finish = match woke {
                Woke::Time if self.clock.steady_ms() < self.next_ms => {
                    self.collect();
                    self.report_busiest();
                    continue;
                }
                Woke::Time => false,
                Woke::Question(question) => {
                    // One harvest is enough for all who asked before it, as long as nothing else is due. Who
                    // asks later may have sent something meanwhile, and wants to see it.
                    let mut others = questions.len();
                    self.collect();
                    self.answer(question);
                    while others > 0
                        && (lags || self.clock.steady_ms() < self.next_ms)
                        && orders.is_empty()
                        && let Ok(question) = questions.try_recv()
                    {
                        others -= 1;
                        self.answer(question);
                    }
                    continue;
                }
                Woke::Order(Order::Reconfigure(options, done)) => {
                    // With this harvest the workers take over what concerns them.
                    self.collect();
                    self.reconfigure(*options);
                    // Who asked may have gone.
                    let _ = done.send(());
                    continue;
                }
                Woke::Order(Order::HandOver(handover)) => {
                    if self.hand_over(&handover) {
                        return self.total;
                    }
                    continue;
                }
                Woke::Order(Order::Finish) | Woke::Disconnected => true,
            };
            if !finish {
                self.collect();
            }
            while let Ok(harvest) = self.link.full.try_recv() {
                self.absorb(harvest);
            }
            let snapshot = Arc::new(self.flush());
            if let Some((interval, align)) = self.next_grid.take() {
                self.options.interval = interval;
                self.options.align = align;
                self.statistics = Statistics::new(&self.options);
            }
            // Settled before anyone sees the flush: whoever moves a clock by hand moves it on then. The wall
            // clock is asked here and not while waiting, so that a step of it costs one interval at most.
            let Options {
                interval, align, ..
            } = self.options;
            let wait_ms = self.grid.wait(interval, align, self.clock.now_ms());
            self.next_ms = self.clock.steady_ms() + wait_ms;
            if let Some(shelf) = &self.shelf {
                shelf.begin();
            }
            publish(snapshot);
            // Only then: backends come first. What comes behind the last flush would be in no flush.
            if !finish {
                self.sweep(idle::Policy::default());
            }
            if let Some(shelf) = &self.shelf {
                shelf.put_gauges(self.state.surviving_gauges());
            }
            if finish {
                if let Some(busiest) = self.busiest.take() {
                    busiest.finish();
                }
                return self.total;
            }
        }
    }

    /// Whether a successor has taken everything. Of a worker that does not end in time the rest goes to
    /// whoever absorbs it next.
    fn hand_over(&mut self, handover: &Handover) -> bool {
        let until = Instant::now() + ANSWER_MAX;
        let mut ended = vec![false; self.link.workers.len()];
        while ended.contains(&false) {
            let Ok(harvest) = self.link.full.recv_deadline(until) else {
                let missing = ended.iter().filter(|ended| !**ended).count();
                self.outside.workers_late.add(missing as u64);
                self.log.workers_late(missing, ended.len(), ANSWER_MAX);
                break;
            };
            ended[harvest.worker] |= harvest.epoch == u64::MAX;
            self.absorb(harvest);
        }
        self.log.interval(&std::mem::take(&mut self.tally));
        let shown = self.flushed;
        let handed = Handed {
            carried: Box::new(self.carry()),
            shown,
            outside: Totals::read(&Tally::default(), &self.outside),
        };
        if let Err(unsent) = handover.to.send(handed) {
            self.put_back(*unsent.into_inner().carried, shown);
            return false;
        }
        match handover.back.recv() {
            Ok(carried) => {
                self.put_back(*carried, shown);
                false
            }
            Err(_) => {
                if let Some(busiest) = self.busiest.take() {
                    busiest.finish();
                }
                true
            }
        }
    }

    /// Goes on with what [`Flusher::carry`] moved out of this very flusher, when its flushes had shown that.
    fn put_back(&mut self, carried: Carried, shown: Totals) {
        self.flushed = shown;
        self.state.put_back(carried);
    }

    /// Moves everything that was collected since the last flush out.
    pub fn carry(&mut self) -> Carried {
        self.state.catch_up(&self.registry);
        let totals = Totals::read(&self.total, &self.outside);
        let before = std::mem::replace(&mut self.flushed, totals);
        Carried {
            interval: Interval {
                length_ms: self.options.interval.as_millis() as u64,
                align: self.options.align,
                start_ms: self.grid.start_ms(),
                ends_ms: self.next_ms,
                last_timestamp: self.last_timestamp,
            },
            meters: totals.news(&before),
            ..self.state.carry()
        }
    }

    /// Goes on with an interval that [`Flusher::carry`] moved out in another process: it ends when it was to
    /// end there. `id` tells which name has which number here. Limits are for what comes: all of this
    /// stays.
    pub fn adopt(&mut self, carried: Carried, id: impl Fn(Kind, &Name) -> NameId) {
        let Interval {
            length_ms,
            align,
            start_ms,
            ends_ms,
            last_timestamp,
        } = carried.interval;
        self.grid = Grid::since(start_ms);
        self.last_timestamp = last_timestamp;
        // As at a reload: the running interval is divided by the length it began with.
        let wanted = (self.next_grid.take()).unwrap_or((self.options.interval, self.options.align));
        let began = (Duration::from_millis(length_ms.max(1)), align);
        self.next_grid = (wanted != began).then_some(wanted);
        (self.options.interval, self.options.align) = began;
        self.statistics = Statistics::new(&self.options);
        let latest_ms = self.clock.steady_ms().saturating_add(length_ms);
        self.next_ms = ends_ms.min(latest_ms);
        for (meter, count) in &carried.meters {
            self.outside.carried.add(meter, *count);
        }
        self.state.adopt(carried, id);
    }

    /// Asks every worker for a harvest and takes them in.
    fn collect(&mut self) {
        let workers = self.link.workers.len();
        let until = Instant::now() + ANSWER_MAX;
        let flusher = &mut *self;
        let late = collect(&mut Tick { flusher, until }, workers);
        if late > 0 {
            self.outside.workers_late.add(late as u64);
            self.log.workers_late(late, workers, ANSWER_MAX);
        }
    }

    /// Takes one harvest in. [`Flusher::run`] does it at each tick; tests may whenever they like.
    pub fn absorb(&mut self, mut harvest: Harvest) {
        self.state
            .set_short(self.registry.is_short(), &self.options);
        self.sweeper.redirect(&mut harvest, &self.registry);
        let crowd = self.state.absorb(&mut harvest);
        let tally = &harvest.tally;
        self.state
            .count(self.own.bad_lines, tally.rejected_total() as f64);
        self.state.count(self.own.packets, tally.packets as f64);
        self.state.count(self.own.lines, tally.lines as f64);
        self.tally.add(tally);
        self.total.add(tally);
        for (kind, values) in Kind::ALL.into_iter().zip(crowd) {
            self.tally.drop_recorded(kind, values);
            self.total.drop_recorded(kind, values);
        }
        self.growth.merge(&harvest.growth);
        let swept = self.sweeper.swept(harvest.worker, harvest.swept);
        if let Some(limbo) = swept {
            self.state.release(&limbo, &self.registry);
        }
        harvest.clear();
        if !self.registry.is_short() {
            // When the queue is full there are enough of them.
            let _ = self.link.empty.push(harvest);
        }
    }

    /// Turns what was collected into a snapshot and begins the next interval.
    pub fn flush(&mut self) -> Snapshot {
        let began = Instant::now();
        let now_ms = self.clock.now_ms();
        let timestamp = rounded_seconds(now_ms);
        let seconds = self.options.interval.as_secs_f64();
        let tally = std::mem::take(&mut self.tally);
        if let Some(last) = self.last_timestamp.replace(timestamp) {
            // Named only now, so that it stands behind the gauges of the first interval, as there.
            let lag = self.registry.id(Kind::Gauge, &self.own.lag);
            self.state
                .set_kept_gauge(lag, (timestamp - last) as f64 - seconds);
        }
        self.state.catch_up(&self.registry);

        let mut snapshot = Snapshot {
            timestamp,
            thresholds: (self.options.thresholds.iter())
                .map(|threshold| threshold.percent)
                .collect(),
            fields: self.statistics.fields(),
            ..Snapshot::default()
        };
        snapshot.counters = (self.state.counters.living())
            .map(|(name, sum)| Counter {
                name: name.clone(),
                value: *sum,
                rate: *sum / seconds,
            })
            .collect();
        for (name, timer) in self.state.timers.living() {
            let (statistics, samples) = (snapshot.statistics.len(), snapshot.samples.len());
            if let Some(histogram) = &timer.histogram {
                self.outside.timer_samples_outside.add(histogram.outside());
            }
            self.statistics.of(name, timer, &mut snapshot.statistics);
            snapshot.samples.extend_from_slice(&timer.samples);
            snapshot.timers.push(Timer {
                name: name.clone(),
                statistics: statistics..snapshot.statistics.len(),
                samples: samples..snapshot.samples.len(),
                folded: timer
                    .histogram
                    .as_ref()
                    .map_or(0, |histogram| histogram.all_moments().count),
                distribution: if self.options.keep_distributions {
                    statistics::distribution(timer).map(Box::new)
                } else {
                    None
                },
            });
        }
        for (name, gauge) in self.state.gauges.living() {
            let value = gauge.writes.after(gauge.value);
            gauge.value = Some(value);
            gauge.writes.settle(value);
            snapshot.gauges.push(Gauge {
                name: name.clone(),
                value,
            });
        }
        snapshot.sets = (self.state.sets.living())
            .map(|(name, members)| Set {
                name: name.clone(),
                members: std::mem::take(members),
            })
            .collect();
        snapshot.stamped = self.state.take_points();
        snapshot.interval_seconds = seconds;
        self.state.reset(&self.options);
        let totals = Totals::read(&self.total, &self.outside);
        snapshot.self_metrics = totals.since(&std::mem::replace(&mut self.flushed, totals));
        snapshot.processing_ms = began.elapsed().as_millis() as u64;
        log::debug!(
            "flush at {timestamp}: numStats {}, {} datagrams, {} lines, computed in {} ms",
            snapshot.num_stats(),
            tally.packets,
            tally.lines,
            snapshot.processing_ms
        );
        self.log.interval(&tally);
        self.log.folded(&tally, &self.growth);
        self.growth.end_interval();
        snapshot
    }

    /// Takes other options over. Interval and alignment wait for the next flush: the running interval
    /// is divided by the length it began with.
    fn reconfigure(&mut self, options: Options) {
        if options.prefix_stats != self.options.prefix_stats {
            self.own = Own::new(&self.registry, &options.prefix_stats, &mut self.state);
        }
        if options.key_flush != self.options.key_flush {
            // What the old one has still to write it writes alone.
            let (key_flush, now_ms) = (options.key_flush.clone(), self.clock.steady_ms());
            self.busiest = key_flush.map(|options| busiest::Reporter::new(options, now_ms));
        }
        self.state.reconfigure(&options);
        let next = (options.interval, options.align);
        let (interval, align) = (self.options.interval, self.options.align);
        self.next_grid = (next != (interval, align)).then_some(next);
        self.options = Options {
            interval,
            align,
            ..options
        };
        self.statistics = Statistics::new(&self.options);
    }
}

impl Own {
    /// The metrics of this prefix; the three counters come to life.
    fn new(registry: &Registry, prefix: &str, state: &mut State) -> Self {
        let id = |kind, name: &str| registry.held_id(kind, &format!("{prefix}.{name}"));
        let own = Self {
            bad_lines: id(Kind::Counter, "bad_lines_seen"),
            packets: id(Kind::Counter, "packets_received"),
            lines: id(Kind::Counter, "metrics_received"),
            lag: format!("{prefix}.timestamp_lag"),
        };
        for id in [own.bad_lines, own.packets, own.lines] {
            state.keep_counter(id);
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines to no worker at all.
    fn nobody() -> Link {
        Link {
            epoch: Arc::default(),
            full: crossbeam::channel::never(),
            empty: Arc::new(ArrayQueue::new(1)),
            workers: Vec::new(),
        }
    }

    #[test]
    fn who_asks_is_heard_though_flushes_take_longer_than_their_interval() {
        let options = Options::default();
        let interval = options.interval;
        let link = nobody();
        let manual = crate::runtime::clock::Manual::new(0);
        let clock = Clock::Manual(manual.clone());
        let flusher = Flusher::new(options, clock, Arc::default(), link, Arc::default());
        let (order, orders) = crossbeam::channel::unbounded();
        let (ask, questions) = crossbeam::channel::unbounded();
        let answers: Vec<_> = (0..3)
            .map(|_| {
                let (reply, answer) = crossbeam::channel::bounded(1);
                ask.send(Question::Counters(reply)).expect("open");
                answer
            })
            .collect();
        manual.advance(interval);
        let mut flushes = 0;
        flusher.run(&orders, &questions, |_| {
            flushes += 1;
            assert!(flushes < 20, "nobody is heard");
            if answers.iter().all(|answer| answer.len() == 1) {
                let _ = order.send(Order::Finish);
            }
            manual.advance(interval);
        });
        // One before the answers, one before the order, and the last one.
        assert_eq!(flushes, 3);
    }

    #[test]
    fn an_interval_goes_on_elsewhere_whatever_the_limits_and_as_idle_as_it_was() {
        let options = |max_set_members| Options {
            idle_flushes: 3,
            max_set_members,
            ..Options::default()
        };
        let flusher = |options: Options, registry: &Arc<Registry>| {
            let link = nobody();
            let clock = Clock::Manual(crate::runtime::clock::Manual::new(5000));
            Flusher::new(options, clock, registry.clone(), link, Arc::default())
        };
        let (here, there) = (Arc::new(Registry::new()), Arc::new(Registry::new()));
        let mut old = flusher(options(3), &here);
        let hit = |kind, name| (here.id(kind, name), 1);
        let mut harvest = Harvest::default();
        let (id, hits) = hit(Kind::Counter, "idle");
        let cell = 1.0;
        (harvest.counters).push(crate::metric::harvest::Part { id, hits, cell });
        old.absorb(std::mem::take(&mut harvest));
        (0..3).for_each(|_| drop(old.flush()));
        // Forgotten, so that its place is a hole.
        old.state.counters.cells[id.index()] = None;
        let (id, hits) = hit(Kind::Counter, "late");
        (harvest.counters).push(crate::metric::harvest::Part { id, hits, cell });
        old.absorb(std::mem::take(&mut harvest));
        drop(old.flush());
        drop(old.flush());
        let members = [&b"x"[..], b"y", b"z"].map(|it| it.into());
        let (id, _) = hit(Kind::Set, "s");
        harvest.sets.push(crate::metric::harvest::Part {
            id,
            hits: 3,
            cell: members.into_iter().collect(),
        });
        harvest.tally.recorded[Kind::Set as usize] = 3;
        harvest.points.push(crate::metric::harvest::StampedPart {
            kind: Kind::Counter,
            id: here.id(Kind::Counter, "stamped"),
            at: 7,
            point: crate::metric::cell::Point {
                value: 4.0,
                written: crate::metric::cell::Stamp(1),
            },
        });
        old.absorb(harvest);
        let carried = old.carry();

        there.limit(0);
        let mut new = flusher(options(2), &there);
        new.adopt(carried, |kind, name| there.id_of_known(kind, name, name));
        assert_eq!(
            there.find(Kind::Counter, "idle"),
            None,
            "a hole has no name"
        );
        let first = new.flush();
        let late = |snapshot: &Snapshot| snapshot.counters.iter().any(|it| &*it.name == "late");
        assert_eq!(first.sets[0].members.len(), 3);
        let stamped: Vec<_> = (first.stamped.iter())
            .map(|it| (&*it.name, it.value))
            .collect();
        assert_eq!(stamped, [("stamped", 4.0)]);
        let meter = |name: &str| {
            let found = first.self_metrics.iter().find(|it| it.name == name);
            found.expect("a meter").value
        };
        assert_eq!(
            (meter("samples.sets"), meter("set_members_dropped")),
            (3.0, 0.0)
        );
        // Two flushes there and one here: the next one is the last.
        assert!(late(&first) && late(&new.flush()) && !late(&new.flush()));
    }

    #[test]
    fn an_interval_that_comes_back_is_flushed_as_if_it_had_never_left() {
        let options = Options {
            exact_samples: 3,
            delete_gauges: true,
            gauges_max_ttl: 5,
            key_flush: Some(KeyFlush {
                every: Duration::from_secs(3600),
                percent: 100,
                file: None,
            }),
            ..Options::default()
        };
        let registry = Arc::new(Registry::new());
        let flusher = || {
            let link = nobody();
            let clock = Clock::Manual(crate::runtime::clock::Manual::new(5000));
            Flusher::new(
                options.clone(),
                clock,
                registry.clone(),
                link,
                Arc::default(),
            )
        };
        let harvest = |round: u32| {
            let mut harvest = Harvest::default();
            harvest.tally.lines = 7;
            harvest.counters.push(crate::metric::harvest::Part {
                id: registry.id(Kind::Counter, "c"),
                hits: 2,
                cell: 1.5,
            });
            let mut gauge = crate::metric::cell::Gauge::default();
            gauge.add(crate::metric::cell::Stamp(round.into()), 2.0);
            harvest.gauges.push(crate::metric::harvest::Part {
                id: registry.id(Kind::Gauge, "g"),
                hits: 1,
                cell: gauge,
            });
            harvest.timers.push(crate::metric::harvest::TimerPart {
                id: registry.id(Kind::Timer, "t"),
                hits: 2,
                samples: 2,
                weights: 0,
                weight: 2.0,
                histogram: None,
            });
            harvest.samples.extend([f64::from(round), 9.0]);
            harvest.sets.push(crate::metric::harvest::Part {
                id: registry.id(Kind::Set, "s"),
                hits: 1,
                cell: [b"m"[..].into()].into_iter().collect(),
            });
            harvest.points.push(crate::metric::harvest::StampedPart {
                kind: Kind::Gauge,
                id: registry.id(Kind::Gauge, "g"),
                at: 7,
                point: crate::metric::cell::Point {
                    value: 4.0,
                    written: crate::metric::cell::Stamp(round.into()),
                },
            });
            harvest
        };
        let (mut stays, mut moves) = (flusher(), flusher());
        for round in 1..4 {
            for flusher in [&mut stays, &mut moves] {
                flusher.absorb(harvest(round));
            }
            let shown = moves.flushed;
            let carried = moves.carry();
            assert!(moves.state.counters.cells.is_empty());
            if round == 1 {
                let lines = carried.meters.iter().find(|(name, _)| name == "lines");
                assert_eq!(lines.map(|(_, count)| *count), Some(7));
            }
            moves.put_back(carried, shown);
            if round == 2 {
                continue;
            }
            let flushes = [stays.flush(), moves.flush()].map(|snapshot| Snapshot {
                processing_ms: 0,
                ..snapshot
            });
            assert_eq!(format!("{:?}", flushes[0]), format!("{:?}", flushes[1]));
            assert!(!flushes[0].stamped.is_empty() && flushes[0].counters.len() == 4);
        }
        assert_eq!(stays.state.take_key_counts(), moves.state.take_key_counts());
        let gauges = [stays.state, moves.state].map(|mut state| state.surviving_gauges());
        assert_eq!(gauges[0], gauges[1]);
    }

    #[test]
    fn a_snapshot_says_of_which_timers_it_has_no_samples() {
        let options = Options {
            exact_samples: 3,
            keep_distributions: true,
            ..Options::default()
        };
        let registry = Arc::new(Registry::new());
        let link = nobody();
        let clock = Clock::Manual(crate::runtime::clock::Manual::new(0));
        let mut flusher = Flusher::new(options, clock, registry.clone(), link, Arc::default());
        let mut harvest = Harvest::default();
        for (name, samples) in [("few", 3), ("many", 4)] {
            harvest.timers.push(crate::metric::harvest::TimerPart {
                id: registry.id(Kind::Timer, name),
                hits: samples,
                samples: samples as usize,
                weights: 0,
                weight: f64::from(samples),
                histogram: None,
            });
            harvest.samples.extend((0..samples).rev().map(f64::from));
        }
        flusher.absorb(harvest);
        let snapshot = flusher.flush();
        let timers = snapshot.timers.iter();
        let kept: Vec<_> = timers.map(|t| (t.samples.clone(), t.folded)).collect();
        assert_eq!(kept, [(0..3, 0), (3..3, 4)]);
        assert_eq!(snapshot.samples, [0.0, 1.0, 2.0]);
        assert_eq!(snapshot.timers[0].distribution, None);
        let many = snapshot.timers[1].distribution.as_deref().expect("kept");
        assert_eq!(
            (many.count, many.sum, many.min, many.max),
            (4.0, 6.0, 0.0, 3.0)
        );
        assert_eq!(many.squares_apart, 5.0);
        let counts: Vec<_> = many.runs.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [1.0; 4]);
        assert_eq!(snapshot.thresholds, [90.0]);
    }
}
