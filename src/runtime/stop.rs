//! The order to stop, seen by every thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once, never taken back. Clones are the same order.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Written once by whoever stops the server; read by workers once a batch.
    /// Release/Acquire: what the stopper did before is seen by who obeys.
    requested: Arc<AtomicBool>,
}

impl Stop {
    /// Gives the order. Whoever waits elsewhere must be woken besides.
    pub fn request(&self) {
        self.requested.store(true, Ordering::Release);
    }

    /// Whether it was given.
    #[inline]
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }
}
