//! Snapshots that wait for one backend. Bounded: a dead backend costs its own flushes, counted, and
//! nobody else anything.

use crate::metric::meter::Outside;
use crate::metric::snapshot::Snapshot;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use std::sync::Arc;

/// Flushes that may wait for a backend: at the default interval, almost three minutes.
pub const FLUSHES_MAX: usize = 16;

/// What may wait for one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Flushes (`outboxFlushes`).
    pub flushes: usize,
    /// Bytes of memory that they take together (`outboxBytes`).
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flushes: 360,
            bytes: 256 << 20,
        }
    }
}

/// The flusher's end.
#[derive(Debug)]
pub struct Outbox {
    sender: Sender<Arc<Snapshot>>,
    outside: Arc<Outside>,
}

impl Outbox {
    /// An outbox and the end its backend reads.
    pub fn new(outside: Arc<Outside>) -> (Self, Receiver<Arc<Snapshot>>) {
        let (sender, receiver) = bounded(FLUSHES_MAX);
        (Self { sender, outside }, receiver)
    }

    /// Puts a snapshot in, or counts it as dropped when there is no room. Never waits.
    pub fn put(&self, snapshot: &Arc<Snapshot>) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.sender.try_send(snapshot.clone())
        {
            self.outside.flushes_dropped.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted_and_what_fits_is_kept_in_order() {
        let outside = Arc::new(Outside::default());
        let (outbox, receiver) = Outbox::new(outside.clone());
        for timestamp in 0..FLUSHES_MAX as i64 + 3 {
            outbox.put(&Arc::new(Snapshot {
                timestamp,
                ..Snapshot::default()
            }));
        }
        assert_eq!(outside.flushes_dropped.total(), 3);
        let kept: Vec<_> = receiver
            .try_iter()
            .map(|snapshot| snapshot.timestamp)
            .collect();
        assert_eq!(kept, (0..FLUSHES_MAX as i64).collect::<Vec<_>>());
        drop(receiver);
        outbox.put(&Arc::default());
        assert_eq!(outside.flushes_dropped.total(), 4);
    }
}
