//! The account of a run: what the kernel took, what it did not, and how late.

use hdrhistogram::Histogram;
use statsd_fast::runtime::sys::send::Refusal;

use crate::tally::Tally;

/// How late datagrams were sent: when the call that sent them had returned, against when they were
/// due.
#[derive(Debug, Clone)]
pub(crate) struct Lateness {
    /// In nanoseconds, within 0.1 %.
    pub(crate) histogram: Histogram<u64>,
    /// In nanoseconds, exact.
    pub(crate) max: u64,
    /// Of the last datagram, in nanoseconds.
    pub(crate) last: u64,
}

impl Default for Lateness {
    fn default() -> Self {
        // Up to an hour; what is later still counts as an hour.
        let histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3);
        Self {
            histogram: histogram.unwrap_or_else(|_| unreachable!("the bounds are valid")),
            max: 0,
            last: 0,
        }
    }
}

impl Lateness {
    pub(crate) fn record(&mut self, late: u64) {
        self.histogram.saturating_record(late);
        self.max = self.max.max(late);
        self.last = late;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.histogram
            .add(&other.histogram)
            .unwrap_or_else(|_| unreachable!("all have the same bounds"));
        self.max = self.max.max(other.max);
        self.last = self.last.max(other.last);
    }
}

/// Datagrams the kernel did not take, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Errors {
    pub(crate) would_block: u64,
    pub(crate) no_buffers: u64,
    pub(crate) refused: u64,
    pub(crate) too_long: u64,
    pub(crate) other: u64,
}

impl Errors {
    pub(crate) fn count(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::WouldBlock => self.would_block += 1,
            Refusal::NoBuffers => self.no_buffers += 1,
            Refusal::Refused => self.refused += 1,
            Refusal::TooLong => self.too_long += 1,
            Refusal::Other => self.other += 1,
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.would_block += other.would_block;
        self.no_buffers += other.no_buffers;
        self.refused += other.refused;
        self.too_long += other.too_long;
        self.other += other.other;
    }
}

/// The account of one thread, or of all together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    /// Datagrams the kernel took.
    pub(crate) sent: Tally,
    /// Datagrams the kernel did not take; they are not tried again.
    pub(crate) failed: Tally,
    pub(crate) errors: Errors,
    /// The first error of all, for people.
    pub(crate) first_error: Option<String>,
    /// Lines that were due and never tried: time was up.
    pub(crate) missed: u64,
    pub(crate) lateness: Lateness,
    /// When the last datagram was sent, in nanoseconds since the start.
    pub(crate) ended: u64,
}

impl Account {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.failed += other.failed;
        self.errors.merge(&other.errors);
        self.first_error = self
            .first_error
            .take()
            .or_else(|| other.first_error.clone());
        self.missed += other.missed;
        self.lateness.merge(&other.lateness);
        self.ended = self.ended.max(other.ended);
    }
}
