//! Flush: one thread that turns harvests into a snapshot each interval.
//!
//! At a tick it raises the epoch, wakes the workers and takes in a harvest of each; merges, computes,
//! publishes one immutable snapshot, and begins the next interval. It alone knows which names live on.

pub mod merge;
pub mod statistics;

use crate::metric::harvest::{Harvest, Tally};
use crate::metric::meter::{self, Outside};
use crate::metric::registry::{NameId, Registry};
use crate::metric::sample::{Kind, Reject};
use crate::metric::snapshot::{Counter, Gauge, Set, Snapshot, Timer};
use crate::runtime::clock::{Clock, Woke, monotonic_ms, rounded_seconds};
use crate::runtime::log::RateLimit;
use crate::runtime::sys::wake::Waker;
use crossbeam::channel::Receiver;
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use merge::State;
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
    /// Namespace of the daemon's own reference metrics (`prefixStats`).
    pub prefix_stats: String,
    /// Samples a timer keeps exactly per interval over all workers (`exactSamples`).
    pub exact_samples: usize,
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
            prefix_stats: "statsd".into(),
            exact_samples: 1024,
        }
    }
}

/// How long a tick waits for a worker. One that is alive answers within a batch; one that is late is
/// counted, and what it has comes with the next flush.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What may be asked of a running flusher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The workers are gone: take their last harvests in, flush once more, and end.
    Finish,
}

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

/// Ids of the metrics the reference keeps about itself, among the user's own.
#[derive(Debug)]
struct Own {
    bad_lines: NameId,
    packets: NameId,
    lines: NameId,
    lag: NameId,
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
    own: Own,
    /// Accounts since the last flush, and since the start.
    tally: Tally,
    total: Tally,
    /// Start of the grid flushes sit on, Unix milliseconds.
    grid_ms: u64,
    /// When the next flush is due, Unix milliseconds.
    next_ms: u64,
    last_timestamp: Option<i64>,
    log: Limits,
}

/// One line a minute for each thing a sender can provoke.
#[derive(Debug, Default)]
struct Limits {
    bad_line: RateLimit,
    drops: RateLimit,
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
        let id = |kind, name: &str| registry.id(kind, &format!("{}.{name}", options.prefix_stats));
        let own = Own {
            bad_lines: id(Kind::Counter, "bad_lines_seen"),
            packets: id(Kind::Counter, "packets_received"),
            lines: id(Kind::Counter, "metrics_received"),
            lag: id(Kind::Gauge, "timestamp_lag"),
        };
        let now_ms = clock.now_ms();
        let grid_ms = rounded_seconds(now_ms) as u64 * 1000;
        Self {
            state: State::new(&options),
            statistics: Statistics::new(&options),
            grid_ms,
            next_ms: next_tick(grid_ms, options.interval, now_ms),
            own,
            options,
            clock,
            registry,
            link,
            outside,
            tally: Tally::default(),
            total: Tally::default(),
            last_timestamp: None,
            log: Limits::default(),
        }
    }

    /// Flushes at every tick until told to finish, then once more. Returns the accounts since the start.
    pub fn run(
        mut self,
        commands: &Receiver<Command>,
        mut publish: impl FnMut(Arc<Snapshot>),
    ) -> Tally {
        loop {
            let finish = match self.clock.wait(self.next_ms, commands) {
                Woke::Time => false,
                Woke::Command(Command::Finish) | Woke::Disconnected => true,
            };
            if !finish {
                self.collect();
            }
            while let Ok(harvest) = self.link.full.try_recv() {
                self.absorb(harvest);
            }
            let snapshot = Arc::new(self.flush());
            // Settled before anyone sees the flush: whoever moves a clock by hand moves it on then.
            self.next_ms = next_tick(self.grid_ms, self.options.interval, self.clock.now_ms());
            publish(snapshot);
            if finish {
                return self.total;
            }
        }
    }

    /// Asks every worker for a harvest and takes them in.
    fn collect(&mut self) {
        // Relaxed: the number carries no data, see ingest::Link.
        let epoch = self.link.epoch.load(Ordering::Relaxed) + 1;
        self.link.epoch.store(epoch, Ordering::Relaxed);
        self.link.workers.iter().for_each(Waker::wake);
        let until = Instant::now() + ANSWER_MAX;
        let mut missing = self.link.workers.len();
        while missing > 0 {
            let Ok(harvest) = self.link.full.recv_deadline(until) else {
                self.outside.workers_late.add(missing as u64);
                log::warn!(
                    "{missing} of {} workers did not answer within {} s; what they hold comes with \
                     the next flush. Likely cause: the machine is overloaded or the process was stopped",
                    self.link.workers.len(),
                    ANSWER_MAX.as_secs()
                );
                return;
            };
            missing -= usize::from(harvest.epoch >= epoch);
            self.absorb(harvest);
        }
    }

    /// Takes one harvest in. [`Flusher::run`] does it at each tick; tests may whenever they like.
    pub fn absorb(&mut self, mut harvest: Harvest) {
        self.tally.add(&harvest.tally);
        self.state.absorb(&mut harvest);
        harvest.clear();
        // When the queue is full there are enough of them.
        let _ = self.link.empty.push(harvest);
    }

    /// Turns what was collected into a snapshot and begins the next interval.
    pub fn flush(&mut self) -> Snapshot {
        let began = Instant::now();
        let now_ms = self.clock.now_ms();
        let timestamp = rounded_seconds(now_ms);
        let seconds = self.options.interval.as_secs_f64();
        let tally = std::mem::take(&mut self.tally);
        self.state
            .count(self.own.bad_lines, tally.rejected_total() as f64);
        self.state.count(self.own.packets, tally.packets as f64);
        self.state.count(self.own.lines, tally.lines as f64);
        if let Some(last) = self.last_timestamp.replace(timestamp) {
            self.state
                .set_kept_gauge(self.own.lag, (timestamp - last) as f64 - seconds);
        }
        self.state.catch_up(&self.registry);

        let mut snapshot = Snapshot {
            timestamp,
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
                self.outside
                    .timer_samples_outside
                    .add(histogram.grid.below + histogram.grid.above);
            }
            self.statistics.of(name, timer, &mut snapshot.statistics);
            snapshot.samples.extend_from_slice(&timer.samples);
            snapshot.timers.push(Timer {
                name: name.clone(),
                statistics: statistics..snapshot.statistics.len(),
                samples: samples..snapshot.samples.len(),
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
        self.state.reset(&self.options);
        snapshot.self_metrics = meter::readings(&tally, &self.outside);
        snapshot.processing_ms = began.elapsed().as_millis() as u64;
        log::debug!(
            "flush at {timestamp}: numStats {}, {} datagrams, {} lines, computed in {} ms",
            snapshot.num_stats(),
            tally.packets,
            tally.lines,
            snapshot.processing_ms
        );
        self.report(&tally);
        self.total.add(&tally);
        snapshot
    }

    /// Says what went wrong in the interval, at most once a minute each.
    fn report(&mut self, tally: &Tally) {
        let now_ms = monotonic_ms();
        if let Some((reason, line)) = &tally.offender
            && let Some(suppressed) = self.log.bad_line.pass(now_ms)
        {
            log::warn!("{}", bad_line_report(tally, *reason, line, suppressed));
        }
        if tally.kernel_drops > 0
            && let Some(suppressed) = self.log.drops.pass(now_ms)
        {
            log::warn!(
                "the kernel dropped {} datagrams in this interval because a receive buffer was full; \
                     likely cause: a burst, or too few workers; raise `receiveBuffer` or `threads` \
                     (the start-up lines say how){}",
                tally.kernel_drops,
                and_suppressed(suppressed)
            );
        }
    }
}

fn bad_line_report(tally: &Tally, reason: Reject, line: &[u8], suppressed: u64) -> String {
    format!(
        "bad values in this interval: {}, the first: {:?} ({}: {}){}",
        tally.rejected_total(),
        String::from_utf8_lossy(line),
        reason.name(),
        reason.hint(),
        and_suppressed(suppressed)
    )
}

fn and_suppressed(suppressed: u64) -> String {
    if suppressed == 0 {
        String::new()
    } else {
        format!(" [{suppressed} such reports were not shown]")
    }
}

/// The next moment of the grid `grid_ms + k * interval`, at least half an interval away, so that a
/// tick that came early or late is put right by the next one.
fn next_tick(grid_ms: u64, interval: Duration, now_ms: u64) -> u64 {
    let interval = interval.as_millis() as f64;
    let behind = now_ms as f64 - grid_ms as f64;
    let tick = ((behind / interval + 0.5).floor() + 1.0) * interval;
    (grid_ms as f64 + tick).max(now_ms as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_sit_on_the_grid_of_the_start() {
        let tick = |now| next_tick(331_000, Duration::from_secs(1), now);
        assert_eq!(tick(330_600), 332_000);
        assert_eq!(tick(331_000), 332_000);
        assert_eq!(tick(331_499), 332_000);
        assert_eq!(tick(331_500), 333_000);
        assert_eq!(tick(332_001), 333_000);
        assert_eq!(
            next_tick(334_000, Duration::from_millis(300), 334_301),
            334_600
        );
    }

    #[test]
    fn a_bad_line_is_shown_with_its_reason_and_the_way_out() {
        let mut tally = Tally::default();
        tally.reject(Reject::NoType, b"a:1\xff");
        tally.reject(Reject::BadRate, b"b:1|c|@");
        assert_eq!(
            bad_line_report(&tally, Reject::NoType, b"a:1", 3),
            "bad values in this interval: 2, the first: \"a:1\" (no-type: write name:value|type, for \
             example hits:1|c) [3 such reports were not shown]"
        );
    }
}
