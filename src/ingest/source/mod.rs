//! Where batches come from. A source fills a batch; it never looks into a datagram.

pub mod stream;
pub mod udp;
pub mod unixgram;

use super::packet::Batch;
use std::io;

/// One listener of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum Listen {
    /// `./servers/udp`.
    Udp(udp::Options),
    /// `./servers/tcp`, over TCP or a unix socket.
    Stream(stream::Options),
    /// `./servers/unixgram`.
    Unixgram(unixgram::Options),
}

/// One end of the network, owned by one worker.
pub trait Source {
    /// Fills the batch. Comes back empty when the worker was woken and there was nothing to take.
    ///
    /// # Errors
    /// What the kernel says of the socket. The worker counts it and goes on.
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()>;

    /// Fills the batch with what is there already; empty means that nothing is left.
    ///
    /// # Errors
    /// As [`Source::receive`].
    fn drain(&mut self, batch: &mut Batch) -> io::Result<()>;

    /// Datagrams the kernel dropped since this was last asked.
    fn kernel_drops(&mut self) -> u64;
}
