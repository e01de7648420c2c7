//! What datagrams hold, counted while they are made.

use std::ops::AddAssign;

use crate::fault::Fault;
use crate::shape::{Metric, Value};

/// What some datagrams hold together. Integers only: sums are exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) datagrams: u64,
    pub(crate) bytes: u64,
    pub(crate) counters: u64,
    pub(crate) counter_sum: u64,
    pub(crate) timers: u64,
    /// In microseconds.
    pub(crate) timer_sum: u64,
    pub(crate) gauges: u64,
    pub(crate) gauge_deltas: u64,
    pub(crate) sets: u64,
    /// Bad lines, by [`Fault`].
    pub(crate) malformed: [u64; Fault::ALL.len()],
}

impl Tally {
    /// Metrics of all types.
    pub(crate) fn metrics(&self) -> u64 {
        self.counters + self.timers + self.gauges + self.gauge_deltas + self.sets
    }

    /// Bad lines of all kinds.
    pub(crate) fn malformed(&self) -> u64 {
        self.malformed.iter().sum()
    }

    /// Lines, good and bad.
    pub(crate) fn lines(&self) -> u64 {
        self.metrics() + self.malformed()
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.datagrams += other.datagrams;
        self.bytes += other.bytes;
        self.counters += other.counters;
        self.counter_sum += other.counter_sum;
        self.timers += other.timers;
        self.timer_sum += other.timer_sum;
        self.gauges += other.gauges;
        self.gauge_deltas += other.gauge_deltas;
        self.sets += other.sets;
        for (count, more) in self.malformed.iter_mut().zip(other.malformed) {
            *count += more;
        }
    }
}

/// One datagram of the ring: where its bytes end, and its tally, as small as a datagram allows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slot {
    /// Offset in the ring.
    pub(crate) end: u32,
    counters: u16,
    timers: u16,
    gauges: u16,
    gauge_deltas: u16,
    sets: u16,
    malformed: [u16; Fault::ALL.len()],
    counter_sum: u32,
    timer_sum: u64,
}

impl Slot {
    pub(crate) fn add(&mut self, metric: Metric) {
        match metric.value {
            Value::Counter(value) => {
                self.counters += 1;
                self.counter_sum += value;
            }
            Value::Timer(microseconds) => {
                self.timers += 1;
                self.timer_sum += u64::from(microseconds);
            }
            Value::Gauge(_) => self.gauges += 1,
            Value::GaugeDelta(_) => self.gauge_deltas += 1,
            Value::Set(_) => self.sets += 1,
            Value::Malformed(fault) => self.malformed[fault as usize] += 1,
        }
    }

    pub(crate) fn lines(&self) -> u64 {
        self.tally(0).lines()
    }

    pub(crate) fn tally(&self, bytes: usize) -> Tally {
        Tally {
            datagrams: 1,
            bytes: bytes as u64,
            counters: self.counters.into(),
            counter_sum: self.counter_sum.into(),
            timers: self.timers.into(),
            timer_sum: self.timer_sum,
            gauges: self.gauges.into(),
            gauge_deltas: self.gauge_deltas.into(),
            sets: self.sets.into(),
            malformed: self.malformed.map(u64::from),
        }
    }
}
