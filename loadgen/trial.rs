//! One load sent to one receiver, and what that cost and lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::load::{Load, Run};
use crate::pace::{self, Rate};
use crate::receiver::{self, Counts, Receiver};
use crate::tally::Tally;

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    pub(crate) sent: Tally,
    pub(crate) counts: Counts,
    /// CPU time of the receiver; 0 when it runs elsewhere.
    pub(crate) cpu_ns: u64,
    /// From the first to the last datagram.
    pub(crate) seconds: f64,
    /// Whether the sender kept the rate; `None` when it had none.
    pub(crate) rate_kept: Option<bool>,
}

impl Trial {
    /// Warms the receiver up with the same load, then sends it and waits until all that came is counted.
    pub(crate) fn run(
        load: &Load,
        receiver: &mut impl Receiver,
        run: &Run,
        warm_up: Duration,
        stop: &AtomicBool,
    ) -> anyhow::Result<Self> {
        if !warm_up.is_zero() {
            let run = Run {
                time_limit: Some(warm_up),
                progress: false,
                ..*run
            };
            Self::once(load, receiver, &run, stop)?;
        }
        Self::once(load, receiver, run, stop)
    }

    fn once(
        load: &Load,
        receiver: &mut impl Receiver,
        run: &Run,
        stop: &AtomicBool,
    ) -> anyhow::Result<Self> {
        let used = |receiver: &dyn Receiver| {
            let used = receiver.cpu().map_or(Ok(0), |clock| clock.used_ns());
            used.context("the receiver is gone")
        };
        let mut flows = load.connect(receiver.address())?;
        let before = receiver.counts()?;
        let cpu_before = used(receiver)?;
        let (account, _) = load.send(&mut flows, run, stop);
        let counts = receiver::settled(receiver, &before, account.sent.datagrams)?;
        let cpu_ns = used(receiver)? - cpu_before;
        ensure!(!stop.load(Ordering::Relaxed), "stopped");
        ensure!(
            account.errors.refused == 0,
            "nothing listens at {} any more",
            receiver.address()
        );
        let late = Duration::from_nanos(account.lateness.last);
        let planned = run.time_limit.unwrap_or_default();
        Ok(Self {
            sent: account.sent,
            counts: counts.since(&before),
            cpu_ns,
            seconds: Duration::from_nanos(account.ended).as_secs_f64(),
            rate_kept: match run.rate {
                Rate::Paced(_) => Some(pace::kept(late, planned)),
                Rate::Max => None,
            },
        })
    }

    /// Values that were counted; of a receiver that does not look, those that the datagrams it took hold on
    /// average.
    pub(crate) fn values(&self) -> f64 {
        let average = self.sent.lines() as f64 / self.sent.datagrams.max(1) as f64;
        self.counts
            .values
            .map_or(self.counts.datagrams as f64 * average, |values| {
                values as f64
            })
    }

    /// The share of the datagrams that was received, 0 to 1.
    pub(crate) fn received(&self) -> f64 {
        self.counts.datagrams as f64 / self.sent.datagrams.max(1) as f64
    }

    /// CPU time of the receiver for a value, in nanoseconds.
    pub(crate) fn ns_a_value(&self) -> f64 {
        self.cpu_ns as f64 / self.values().max(1.0)
    }

    /// CPU time of the receiver for a datagram, in nanoseconds.
    pub(crate) fn ns_a_datagram(&self) -> f64 {
        self.cpu_ns as f64 / self.counts.datagrams.max(1) as f64
    }

    /// Lines sent, a second.
    pub(crate) fn lines_a_second(&self) -> f64 {
        self.sent.lines() as f64 / self.seconds.max(1e-9)
    }

    /// Datagrams that were sent and not received, wherever they are.
    pub(crate) fn lost_datagrams(&self) -> u64 {
        self.sent.datagrams.saturating_sub(self.counts.datagrams)
    }

    /// Lines that were sent and neither taken nor refused.
    pub(crate) fn lost_lines(&self) -> u64 {
        let seen = self
            .counts
            .values
            .map(|values| values + self.counts.refused);
        seen.map_or(0, |seen| self.sent.lines().saturating_sub(seen))
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "sent_lines": self.sent.lines(),
            "sent_datagrams": self.sent.datagrams,
            "seconds": self.seconds,
            "lines_per_second": self.lines_a_second(),
            "received_datagrams": self.counts.datagrams,
            "received": self.received(),
            "kernel_drops": self.counts.dropped,
            "values": self.counts.values,
            "refused": self.counts.refused,
            "rate_kept": self.rate_kept,
            "cpu_ns": self.cpu_ns,
            "ns_per_value": self.ns_a_value(),
            "ns_per_datagram": self.ns_a_datagram(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// So many datagrams of 10 counters each, of which so many were received; 100 ns each.
    pub(crate) fn trial(datagrams: u64, received: u64, values: Option<u64>) -> Trial {
        Trial {
            sent: Tally {
                datagrams,
                counters: 10 * datagrams,
                ..Tally::default()
            },
            counts: Counts {
                datagrams: received,
                dropped: datagrams - received,
                values,
                refused: 0,
            },
            cpu_ns: 100 * received,
            seconds: 2.0,
            rate_kept: None,
        }
    }

    #[test]
    fn costs_are_of_what_was_received() {
        let sink = trial(1000, 500, None);
        assert_eq!((sink.received(), sink.values()), (0.5, 5000.0));
        assert_eq!((sink.ns_a_datagram(), sink.ns_a_value()), (100.0, 10.0));
        assert_eq!((sink.lost_datagrams(), sink.lost_lines()), (500, 0));
        assert_eq!(sink.lines_a_second(), 5000.0);
        let server = trial(1000, 500, Some(4000));
        assert_eq!(server.ns_a_value(), 12.5);
        assert_eq!(server.lost_lines(), 6000);
    }
}
