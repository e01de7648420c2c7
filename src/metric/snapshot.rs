//! NOUN: the finished result of one interval. Immutable, shared by every backend.

use super::registry::Name;
use super::sample::Kind;
use super::set::Members;
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

/// What is left of samples that went into a histogram, or that weigh differently.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distribution {
    /// How many events they stand for: each for one, unless it was sampled.
    pub count: f64,
    /// Their sum, each as often.
    pub sum: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Sum of their squared distances from their mean.
    pub squares_apart: f64,
    /// A value that stands for neighbours, within 0.05 % of each of them, and how many they are; ascending.
    pub runs: Vec<(f64, f64)>,
}

/// A timer at the end of its interval.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timer {
    /// Cleaned name with tags.
    pub name: Name,
    /// Its statistics in [`Snapshot::statistics`].
    pub statistics: Range<usize>,
    /// Its samples, ascending, in [`Snapshot::samples`]; none past the exact limit.
    pub samples: Range<usize>,
    /// How many samples went into a histogram, past the exact limit; 0 when they are all here.
    pub folded: u64,
    /// What that histogram has of them, or samples with weights, when a backend wants it.
    pub distribution: Option<Box<Distribution>>,
}

/// One statistic of one timer: which, as an index into [`Snapshot::fields`], and its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistic {
    /// Index into [`Snapshot::fields`].
    pub field: u32,
    /// May be NaN or infinite, as with the reference.
    pub value: f64,
}

/// A value that came with a time of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamped {
    /// Counter or gauge.
    pub kind: Kind,
    /// Cleaned name with tags.
    pub name: Name,
    /// Unix seconds.
    pub timestamp: i64,
    /// The sum, or the level, of that moment.
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
    /// Values with times of their own. Not part of [`Snapshot::num_stats`].
    pub stamped: Vec<Stamped>,
    /// Length of the interval; what rates are reckoned by.
    pub interval_seconds: f64,
    /// Percentiles in the order configured: positive from below, negative from above.
    pub thresholds: Vec<f64>,
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

    /// About how many bytes it keeps from being freed. Names are not among them, since the registry
    /// keeps those anyway; what the allocator adds is guessed.
    pub fn memory(&self) -> usize {
        fn array<T>(items: &Vec<T>) -> usize {
            items.capacity() * size_of::<T>()
        }
        // Rounded up to whole 16 bytes.
        let members = |set: &Set| set.members.heap_bytes();
        let distribution = |timer: &Timer| {
            let of = |it: &Distribution| size_of::<Distribution>() + array(&it.runs);
            timer.distribution.as_deref().map_or(0, of)
        };
        size_of::<Self>()
            + array(&self.counters)
            + array(&self.timers)
            + array(&self.gauges)
            + array(&self.sets)
            + array(&self.stamped)
            + array(&self.statistics)
            + array(&self.samples)
            + array(&self.self_metrics)
            + self.sets.iter().map(members).sum::<usize>()
            + self.timers.iter().map(distribution).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_with_what_is_kept() {
        let empty = Snapshot::default();
        assert_eq!(empty.memory(), size_of::<Snapshot>());
        let samples = Snapshot {
            samples: vec![0.0; 1000],
            ..Snapshot::default()
        };
        assert_eq!(samples.memory() - empty.memory(), 8000);
        let mut members = Members::default();
        members.insert([0; 100][..].into());
        members.insert(b""[..].into());
        let set = Set {
            name: "a name that is counted nowhere".into(),
            members,
        };
        let sets = Snapshot {
            sets: vec![set],
            ..Snapshot::default()
        };
        let expected = size_of::<Set>() + 8 * 24 + 112;
        assert_eq!(sets.memory() - empty.memory(), expected);
        let distribution = Distribution {
            runs: vec![(1.0, 1.0); 100],
            ..Distribution::default()
        };
        let timers = Snapshot {
            timers: vec![Timer {
                distribution: Some(Box::new(distribution)),
                ..Timer::default()
            }],
            ..Snapshot::default()
        };
        let expected = size_of::<Timer>() + size_of::<Distribution>() + 1600;
        assert_eq!(timers.memory() - empty.memory(), expected);
    }
}
