//! The order to stop, seen by every thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const GO_ON: u8 = 0;
const CLOSE: u8 = 1;
const DRAIN: u8 = 2;
const LEAVE: u8 = 3;

/// What a worker that stops does with what is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It reads to the end, and closes what is open.
    Close,
    /// It reads what is there and closes nothing: somebody decides then whether it goes on.
    Drain,
    /// It does not touch it: it is a successor's.
    Leave,
}

/// Set once, never taken back. Clones are the same order.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Written by whoever stops the server; read by workers once a batch.
    /// Release/Acquire: what the stopper did before is seen by who obeys.
    order: Arc<AtomicU8>,
}

impl Stop {
    /// Gives the order. Whoever waits elsewhere must be woken besides.
    pub fn request(&self) {
        self.end(Ending::Close);
    }

    /// Gives it with another ending.
    pub fn end(&self, ending: Ending) {
        let order = match ending {
            Ending::Close => CLOSE,
            Ending::Drain => DRAIN,
            Ending::Leave => LEAVE,
        };
        self.order.store(order, Ordering::Release);
    }

    /// Whether it was given.
    #[inline]
    pub fn requested(&self) -> bool {
        self.order.load(Ordering::Acquire) != GO_ON
    }

    /// What is to become of what is queued.
    pub fn ending(&self) -> Ending {
        match self.order.load(Ordering::Acquire) {
            LEAVE => Ending::Leave,
            DRAIN => Ending::Drain,
            _ => Ending::Close,
        }
    }
}
