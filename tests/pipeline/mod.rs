//! The whole path of a datagram in one process, without sockets: parse, tables, harvests, flush, Graphite encoder.

use crate::reference::{Bin, Namespace, Options, print};
use crossbeam::queue::ArrayQueue;
use statsd_fast::deliver::graphite::{self, Encoder};
use statsd_fast::flush::{self, Flusher, Link, idle::Policy};
use statsd_fast::ingest::{self, Dialect, packet::Packet, table::Table};
use statsd_fast::metric::cell::Stamp;
use statsd_fast::metric::harvest::{Harvest, Tally};
use statsd_fast::metric::registry::Registry;
use statsd_fast::metric::snapshot::Stamped;
use statsd_fast::runtime::clock::{Clock, Manual};
use statsd_fast::runtime::sys::wake::Waker;
use std::sync::Arc;
use std::time::Duration;

/// Lines the server sends and the reference leaves out: what depends on clock and connection, and what is its own.
pub(crate) const LEFT_OUT: [&str; 3] = [".graphiteStats.", ".processing_time", "statsd_fast."];

/// A server with so many workers, fed by hand.
pub(crate) struct Pipeline {
    clock: Arc<Manual>,
    tables: Vec<Table>,
    flusher: Flusher,
    encoder: Encoder,
    registry: Arc<Registry>,
    tally: Tally,
    /// Moments so far: no two datagrams come at the same one.
    moments: u64,
}

impl Pipeline {
    pub(crate) fn new(options: &Options, workers: usize, now_ms: u64) -> Self {
        Self::of(Dialect::Statsd, options, workers, now_ms)
    }

    pub(crate) fn of(dialect: Dialect, options: &Options, workers: usize, now_ms: u64) -> Self {
        let ingest = ingest::Options {
            dialect,
            sanitize_names: options.sanitize_names,
            ..ingest::Options::default()
        };
        Self::with(&ingest, options, workers, now_ms)
    }

    pub(crate) fn with(
        ingest: &ingest::Options,
        options: &Options,
        workers: usize,
        now_ms: u64,
    ) -> Self {
        let clock = Manual::new(now_ms);
        let registry = Arc::new(Registry::new());
        let tables = (0..workers)
            .map(|_| Table::new(ingest, registry.clone()))
            .collect();
        // Nobody is asked for harvests; the test hands them over.
        let link = Link {
            epoch: Arc::default(),
            full: crossbeam::channel::never(),
            empty: Arc::new(ArrayQueue::new(1)),
            workers: (0..workers)
                .map(|_| Waker::new().expect("an eventfd"))
                .collect(),
        };
        let flusher = Flusher::new(
            flush_options(options),
            Clock::Manual(clock.clone()),
            registry.clone(),
            link,
            Arc::default(),
        );
        let encoder = Encoder::new(&graphite_options(options));
        Self {
            clock,
            tables,
            flusher,
            encoder,
            registry,
            tally: Tally::default(),
            moments: 0,
        }
    }

    /// From now on senders may bring so many names.
    pub(crate) fn limit(&self, names: usize) {
        self.registry.limit(names);
    }

    /// What the workers counted so far.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Sweeps whatever does not show, right after a flush.
    pub(crate) fn sweep(&mut self) {
        self.flusher.sweep(Policy {
            flushes: 0,
            least: 1,
            share: usize::MAX,
        });
    }

    /// One datagram at one of the workers.
    pub(crate) fn datagram(&mut self, worker: usize, datagram: &[u8]) {
        let workers = self.tables.len();
        let now = (Clock::Manual(self.clock.clone()).now_ms() / 1000) as i64;
        let table = &mut self.tables[worker % workers];
        // Far enough apart that a worker's own counting within a datagram does not reach the next one.
        self.moments += 1 << 20;
        table.begin_batch(Stamp(self.moments));
        table.unix_time(|| now);
        let (bytes, truncated) = (datagram, false);
        ingest::take_packets([Packet { bytes, truncated }].into_iter(), table);
    }

    /// Moves what the workers collected to the flusher, which may happen at any time.
    pub(crate) fn harvest(&mut self) {
        for (worker, table) in self.tables.iter_mut().enumerate() {
            let mut harvest = Harvest::default();
            table.harvest(&mut harvest);
            harvest.worker = worker;
            self.tally.add(&harvest.tally);
            self.flusher.absorb(harvest);
            table.sweep();
        }
    }

    /// Ends the interval after so much time: names and values as sent to Graphite, sorted.
    pub(crate) fn flush(&mut self, after: Duration) -> Vec<(String, String)> {
        self.harvest();
        self.clock.advance(after);
        let mut snapshot = self.flusher.flush();
        // They are left out below, whatever their names are made of.
        snapshot.self_metrics.clear();
        let mut bytes = Vec::new();
        self.encoder.encode(&snapshot, &mut bytes);
        let text = String::from_utf8(bytes).expect("Graphite is sent text");
        let mut lines: Vec<(String, String)> = text
            .split_terminator('\n')
            .map(|line| {
                let [timestamp, value, name] = line.rsplitn(3, ' ').collect::<Vec<_>>()[..] else {
                    panic!("not a line of Graphite: {line:?}");
                };
                if timestamp == snapshot.timestamp.to_string() {
                    return (name.to_string(), value.to_string());
                }
                let own = |it: &&Stamped| it.timestamp.to_string() == timestamp;
                assert!(snapshot.stamped.iter().any(|it| own(&it)), "{line:?}");
                (format!("{name} at {timestamp}"), value.to_string())
            })
            .filter(|(name, _)| !LEFT_OUT.iter().any(|part| name.contains(part)))
            .collect();
        lines.sort();
        lines
    }
}

fn flush_options(options: &Options) -> flush::Options {
    let percent_label = |percent| print(percent).replacen('.', "_", 1).replacen('-', "top", 1);
    let bin = |bin: &Bin| match *bin {
        Bin::Below(bound) => flush::Bin {
            below: Some(bound),
            label: print(bound).replacen('.', "_", 1),
        },
        Bin::Rest => flush::Bin {
            below: None,
            label: "inf".into(),
        },
    };
    flush::Options {
        interval: Duration::from_secs_f64(options.interval_ms / 1000.0),
        thresholds: options
            .thresholds
            .iter()
            .map(|&percent| flush::Threshold {
                percent,
                label: percent_label(percent),
            })
            .collect(),
        histogram: options
            .histogram
            .iter()
            .map(|rule| flush::HistogramRule {
                metric: rule.metric.clone(),
                bins: rule.bins.iter().map(bin).collect(),
            })
            .collect(),
        timer_fields: options.timer_fields.clone(),
        delete_counters: options.delete_counters,
        delete_timers: options.delete_timers,
        delete_sets: options.delete_sets,
        delete_gauges: options.delete_gauges,
        gauges_max_ttl: u32::try_from(options.gauges_max_ttl).expect("a small number"),
        prefix_stats: options.prefix_stats.clone(),
        ..flush::Options::default()
    }
}

fn graphite_options(options: &Options) -> graphite::Options {
    graphite::Options {
        namespace: match options.namespace {
            Namespace::Legacy => graphite::Namespace::Legacy,
            Namespace::Prefixed => graphite::Namespace::Prefixed,
            Namespace::Hybrid => graphite::Namespace::Hybrid,
        },
        global_prefix: options.global_prefix.clone(),
        prefix_counter: options.prefix_counter.clone(),
        prefix_timer: options.prefix_timer.clone(),
        prefix_gauge: options.prefix_gauge.clone(),
        prefix_set: options.prefix_set.clone(),
        global_suffix: options.global_suffix.clone(),
        prefix_stats: options.prefix_stats.clone(),
        flush_counts: options.flush_counts,
        sanitize_names: !options.sanitize_names,
        ..graphite::Options::default()
    }
}
