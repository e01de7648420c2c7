//! NOUN: the finished result of one interval. Immutable, shared by every backend.

use super::cell::Members;
use super::registry::Name;
use std::ops::Range;
use std::sync::Arc;

/// A counter at the end of its interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Counter {
    /// Cleaned name with tags.
    pub name: Name,
    /// Sum over the interval.
    pub value: f64,
    /// `value / interval in seconds`.
    pub rate: f64,
}

/// A gauge at the end of its interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// Cleaned name with tags.
    pub name: Name,
    /// The last value.
    pub value: f64,
}

/// A set at the end of its interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Set {
    /// Cleaned name with tags.
    pub name: Name,
    /// Distinct members.
    pub members: Members,
}

/// A timer at the end of its interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Timer {
    /// Cleaned name with tags.
    pub name: Name,
    /// Its statistics in [`Snapshot::statistics`].
    pub statistics: Range<usize>,
    /// Its samples, ascending, in [`Snapshot::samples`]; none past the exact limit.
    pub samples: Range<usize>,
}

/// One statistic of one timer: which, as an index into [`Snapshot::fields`], and its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistic {
    /// Index into [`Snapshot::fields`].
    pub field: u32,
    /// May be NaN or infinite, as with the reference.
    pub value: f64,
}

/// One of the daemon's own accounts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SelfMetric {
    /// Name below `statsd_fast.`.
    pub name: &'static str,
    /// Over the interval, or a level.
    pub value: f64,
}

/// The result of one interval.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Unix time of the flush, seconds.
    pub timestamp: i64,
    /// Counters in order of first appearance; the daemon's three lead.
    pub counters: Vec<Counter>,
    /// Timers in order of first appearance.
    pub timers: Vec<Timer>,
    /// Gauges in order of first appearance.
    pub gauges: Vec<Gauge>,
    /// Sets in order of first appearance.
    pub sets: Vec<Set>,
    /// Names of timer statistics, e.g. `mean_90`, `histogram.bin_10`; the same for every snapshot.
    pub fields: Arc<[String]>,
    /// Statistics of all timers, one timer after another, in the reference's order.
    pub statistics: Vec<Statistic>,
    /// Samples of all timers, one timer after another.
    pub samples: Vec<f64>,
    /// Whole milliseconds the flusher spent on rates and statistics.
    pub processing_ms: u64,
    /// The daemon's own accounts, not part of [`Snapshot::num_stats`].
    pub self_metrics: Vec<SelfMetric>,
}

impl Snapshot {
    /// Names in this snapshot, over all kinds: the reference's `numStats`.
    pub fn num_stats(&self) -> usize {
        self.counters.len() + self.timers.len() + self.gauges.len() + self.sets.len()
    }
}
