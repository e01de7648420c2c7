//! What the workers of a stream listener share: how many connections are open, and one voice in the log.
//!
//! Touched when a connection opens or closes or breaks a limit, never for a line.

use super::{Options, Parting};
use crate::ingest::source::Address;
use crate::runtime::clock::monotonic_ms;
use crate::runtime::rate_limit::RateLimit;
use crate::runtime::sys;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The count and the limits of one listener.
#[derive(Debug)]
pub(super) struct Gate {
    /// Where it listens, for the log.
    place: String,
    max_connections: usize,
    parting: Parting,
    /// Descriptors that connections may have, with whatever else is open.
    descriptors: u64,
    /// Places taken.
    open: AtomicUsize,
    full: RateLimit,
    long_line: RateLimit,
    bad_length: RateLimit,
    cut_line: RateLimit,
    accept_error: RateLimit,
}

/// How many of `limit` descriptors connections of streams leave to the rest of the process.
pub fn kept_back(limit: u64) -> u64 {
    (limit / 4).min(64)
}

/// The place of one connection, free again when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Gate>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    /// For a process that may have `limit` descriptors open.
    pub(super) fn new(address: &Address, options: &Options, limit: u64) -> Self {
        Self {
            descriptors: limit - kept_back(limit),
            place: address.to_string(),
            max_connections: options.max_connections,
            parting: options.parting,
            open: AtomicUsize::new(0),
            full: RateLimit::new(),
            long_line: RateLimit::new(),
            bad_length: RateLimit::new(),
            cut_line: RateLimit::new(),
            accept_error: RateLimit::new(),
        }
    }

    /// Fails as out of descriptors when those that are left are for the rest of the process: a flush, a
    /// reload and the admin interface must find one whatever clients do. `any` is any that is open.
    pub(super) fn leave_some(&self, any: BorrowedFd<'_>) -> io::Result<()> {
        if sys::limit::next_descriptor(any)? < self.descriptors {
            Ok(())
        } else {
            Err(sys::limit::out_of_descriptors())
        }
    }

    /// A place for one more connection; `None` when all are taken.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        // Relaxed: it only counts. Taken first and given back, so that no two workers take the last one.
        let place = Place(self.clone());
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        (before < self.max_connections).then_some(place)
    }

    /// Says, at most once a minute, that a connection was turned away.
    #[cold]
    pub(super) fn say_full(&self, peer: impl fmt::Display) {
        if let Some(suppressed) = self.full.pass(monotonic_ms()) {
            log::warn!(
                "{}: {} connections are open, the one from {peer} was closed at once; likely cause: clients \
                 that do not close theirs; otherwise raise `streamConnections`{}",
                self.place,
                self.max_connections,
                and_suppressed(suppressed, "turned away")
            );
        }
    }

    /// Says, at most once a minute, that a line was too long.
    #[cold]
    pub(super) fn say_long_line(&self, peer: impl fmt::Display) {
        if let Some(suppressed) = self.long_line.pass(monotonic_ms()) {
            log::warn!(
                "{}: a line from {peer} has more than {} bytes (`streamLine`) and was dropped; likely cause: \
                 a client that does not end its lines with a newline{}",
                self.place,
                self.longest(),
                and_suppressed(suppressed, "dropped")
            );
        }
    }

    /// Says, at most once a minute, that a packet was announced that is too long.
    #[cold]
    pub(super) fn say_bad_length(&self, length: u32, peer: impl fmt::Display) {
        if let Some(suppressed) = self.bad_length.pass(monotonic_ms()) {
            log::warn!(
                "{}: {peer} announced a packet of {length} bytes, more than {} (`maxDatagram`); its \
                 connection was closed; likely cause: a client that sends lines without a length before \
                 them, which `./servers/tcp` with a `socket` takes{}",
                self.place,
                self.longest(),
                and_suppressed(suppressed, "closed")
            );
        }
    }

    /// Longest line or packet.
    fn longest(&self) -> usize {
        match self.parting {
            Parting::Lines { max } | Parting::Lengths { max } => max,
        }
    }

    /// Says, at most once a minute, that a connection broke in the middle of a line or a packet.
    #[cold]
    pub(super) fn say_cut(&self, error: &io::Error) {
        if let Some(suppressed) = self.cut_line.pass(monotonic_ms()) {
            let what = match self.parting {
                Parting::Lines { .. } => "line",
                Parting::Lengths { .. } => "packet",
            };
            log::warn!(
                "{}: a connection ended in the middle of a {what}: {error}; the {what} was dropped; likely \
                 cause: a client that was killed, or that closes without reading or with SO_LINGER 0{}",
                self.place,
                and_suppressed(suppressed, "dropped")
            );
        }
    }

    /// Says, at most once a minute, that accepting failed.
    #[cold]
    pub(super) fn say_accept_error(&self, error: &io::Error) {
        if let Some(suppressed) = self.accept_error.pass(monotonic_ms()) {
            let hint = if sys::is_out_of_descriptors(error) {
                "raise the limit on open descriptors (see: ulimit -n) or lower `streamConnections`"
            } else {
                "the machine is short of memory or its network is down"
            };
            log::warn!(
                "{}: cannot accept connections: {error}; they wait; {hint}{}",
                self.place,
                and_suppressed(suppressed, "failed")
            );
        }
    }
}

fn and_suppressed(suppressed: u64, what: &str) -> String {
    match suppressed {
        0 => String::new(),
        more => format!(" ({more} more {what} since the last such line)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::source::stream::At;

    #[test]
    fn places_are_given_back_and_no_more_are_given_than_there_are() {
        let path = std::path::PathBuf::from("s");
        let options = Options {
            at: At::Unix {
                path: path.clone(),
                mode: None,
            },
            parting: Parting::Lines { max: 64 },
            max_connections: 2,
        };
        let gate = Arc::new(Gate::new(&Address::Unix(path), &options, 1024));
        let (first, second) = (gate.enter(), gate.enter());
        assert!(first.is_some() && second.is_some());
        assert!(gate.enter().is_none());
        assert!(gate.enter().is_none());
        drop(first);
        let third = gate.enter();
        assert!(third.is_some());
        assert!(gate.enter().is_none());
        drop((second, third));
        assert_eq!(gate.open.load(Ordering::Relaxed), 0);
    }
}
