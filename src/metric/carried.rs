//! NOUN: everything the flusher holds of an open interval, on its way to the process that takes over. Merged
//! there by the laws of [`super::cell`], as a harvest is.

use super::cell::{Gauge, Point, Timer};
use super::registry::Name;
use super::sample::Kind;
use super::set::Members;

/// A name with what it has collected.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row<C> {
    /// Cleaned name with tags.
    pub name: Name,
    /// Values since the last flush.
    pub hits: u32,
    /// Values since the last report of the busiest names.
    pub unreported: u64,
    /// Flushes since its last value.
    pub idle: u32,
    /// What came of them; nothing when the name is not alive.
    pub cell: Option<C>,
}

/// A gauge between two flushes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Level {
    /// Its value as of the last flush; nothing before the first.
    pub value: Option<f64>,
    /// Writes of the open interval.
    pub writes: Gauge,
    /// Flushes it has left to live, when gauges are deleted.
    pub flushes_left: u32,
    /// Never deleted.
    pub kept: bool,
}

/// A value with a time of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stamped {
    /// Counter or gauge.
    pub kind: Kind,
    /// The place of its name among those of its kind.
    pub row: u32,
    /// Unix seconds.
    pub at: i64,
    /// The value.
    pub point: Point,
}

/// The open interval: where flushes lie.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interval {
    /// Milliseconds between flushes.
    pub length_ms: u64,
    /// They lie on multiples of that by the wall clock.
    pub align: bool,
    /// Otherwise on multiples of it from here on, Unix milliseconds.
    pub start_ms: u64,
    /// When it ends, `runtime::clock::monotonic_ms`.
    pub ends_ms: u64,
    /// The time of the last flush, Unix seconds.
    pub last_timestamp: Option<i64>,
}

/// All of it. Rows stand in the order of first appearance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Carried {
    /// Where flushes lie.
    pub interval: Interval,
    /// Sums.
    pub counters: Vec<Row<f64>>,
    /// Samples.
    pub timers: Vec<Row<Timer>>,
    /// Values and writes.
    pub gauges: Vec<Row<Level>>,
    /// Members.
    pub sets: Vec<Row<Members>>,
    /// Values with times of their own.
    pub points: Vec<Stamped>,
    /// What the meters have counted since the last flush, by their names.
    pub meters: Vec<(String, u64)>,
}
