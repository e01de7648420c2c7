//! Where batches come from. A source fills a batch; it never looks into a line.

pub mod bind;
pub mod datagram;
pub mod inherited;
pub mod lock;
mod nap;
pub mod socket_file;
pub mod stream;
pub mod udp;
pub mod unixgram;

use super::packet::Batch;
use crate::metric::harvest::Tally;
use crate::runtime::sys::wake::Waker;
use bind::BindError;
use datagram::Datagrams;
use inherited::{Inherited, Seat};
use lock::Lock;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use stream::Streams;

/// One listener of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum Listen {
    /// `./servers/udp`.
    Udp(udp::Options),
    /// `./servers/tcp`, over TCP or a unix socket, and `./servers/unixstream`.
    Stream(stream::Options),
    /// `./servers/unixgram`.
    Unixgram(unixgram::Options),
}

impl Listen {
    /// Binds it, for a worker on each of `cores`; a unix datagram socket has only one. Where its sockets are
    /// among those inherited, it takes these.
    ///
    /// # Errors
    /// When the address does not resolve, is not this machine's, is taken, or may not be bound; when the
    /// process is out of descriptors.
    pub fn bind(&self, cores: &[u32], inherited: &mut Inherited) -> Result<Listener, BindError> {
        match self {
            Self::Udp(options) => udp::bind(options, cores, inherited),
            Self::Stream(options) => stream::bind(options, cores.len(), inherited),
            Self::Unixgram(options) => unixgram::bind(options, inherited),
        }
    }
}

/// What binding a listener came to.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens.
    pub address: Address,
    /// One source for each of its workers.
    pub sources: Vec<AnySource>,
    /// What it can hold.
    pub capacity: Capacity,
}

/// Where a listener listens. Displayed as the log shows it, with its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// UDP; the real port, when 0 was asked.
    Udp(SocketAddr),
    /// TCP; the same.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
    /// One whose packets come behind their lengths.
    Unixstream(PathBuf),
    /// A unix datagram socket.
    Unixgram(PathBuf),
}

impl Address {
    /// Address and port, where there is one.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Udp(address) | Self::Tcp(address) => Some(*address),
            Self::Unix(_) | Self::Unixstream(_) | Self::Unixgram(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp {address}"),
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Unixstream(path) => write!(f, "unixstream {}", path.display()),
            Self::Unix(path) => write!(f, "unix {}", path.display()),
            Self::Unixgram(path) => write!(f, "unixgram {}", path.display()),
        }
    }
}

/// What a listener can hold before something is lost or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    /// Receive buffer of each worker, bytes as setsockopt(2) takes them.
    ReceiveBuffer {
        /// What was asked for.
        asked: usize,
        /// What the kernel gave.
        granted: usize,
    },
    /// Datagrams the kernel queues.
    Datagrams(u64),
    /// Streams.
    Streams {
        /// Connections open at once, over all workers.
        connections: usize,
        /// How they are parted.
        parting: stream::Parting,
    },
}

/// One end of the network, owned by one worker.
pub trait Source {
    /// Ends the wait of the worker that owns this source.
    fn waker(&self) -> Waker;

    /// What locks it before the stop; `None` when there is no such thing for its kind.
    fn lock(&self) -> Option<Lock> {
        None
    }

    /// Whether it is locked: then it runs empty.
    fn is_locked(&self) -> bool {
        false
    }

    /// A batch of the size it fills. It takes no other.
    fn batch(&self) -> Batch;

    /// Fills the batch. Comes back empty when the worker was woken, or what came makes no packet yet.
    ///
    /// # Errors
    /// What the kernel says of the socket. The worker counts it and goes on.
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()>;

    /// Fills the batch with what is there already, without waiting. Returns `false` when nothing was left.
    /// With `true` the batch may be empty all the same, when what there was makes no packet yet.
    ///
    /// # Errors
    /// As [`Source::receive`].
    fn drain(&mut self, batch: &mut Batch) -> io::Result<bool>;

    /// Whether the last batch did not take all there was: [`Source::receive`] comes back at once then, so
    /// that what is held back for company is not held long.
    fn has_more(&self) -> bool;

    /// Lets go of every connection; the lines they were in the middle of are dropped and counted. Only at
    /// the stop, after [`Source::drain`]. Returns whether somebody may wait who could not be let in before,
    /// for want of descriptors: then drain again.
    fn finish(&mut self) -> bool;

    /// Counts what is left unread, and turns away whoever still waits to be let in, counted too. The last
    /// thing before the last account.
    fn turn_away(&mut self) {}

    /// Adds what was counted by the kernel or the source since this was last asked.
    fn account(&mut self, tally: &mut Tally);
}

/// A source of any kind. Which one is asked once a batch.
#[derive(Debug)]
pub enum AnySource {
    /// Of UDP or a unix datagram socket.
    Datagrams(Datagrams),
    /// Of TCP or a unix stream socket.
    Streams(Streams),
}

impl AnySource {
    /// What a successor needs of it.
    pub fn seat(&self) -> Seat {
        match self {
            Self::Datagrams(source) => source.seat(),
            Self::Streams(source) => source.seat(),
        }
    }

    /// Takes what came from the process before and waits to be taken, so that [`AnySource::connections`] has
    /// it.
    pub fn take_arrivals(&mut self) {
        if let Self::Streams(source) = self {
            source.take_arrivals();
        }
    }

    /// The open connections, of one that has any.
    pub fn connections(&self) -> impl Iterator<Item = stream::Open<'_>> {
        let streams = match self {
            Self::Datagrams(_) => None,
            Self::Streams(source) => Some(source),
        };
        streams.into_iter().flat_map(Streams::connections)
    }
}

impl Source for AnySource {
    fn lock(&self) -> Option<Lock> {
        match self {
            Self::Datagrams(source) => source.lock(),
            Self::Streams(source) => source.lock(),
        }
    }

    fn is_locked(&self) -> bool {
        match self {
            Self::Datagrams(source) => source.is_locked(),
            Self::Streams(source) => source.is_locked(),
        }
    }

    fn turn_away(&mut self) {
        match self {
            Self::Datagrams(source) => source.turn_away(),
            Self::Streams(source) => source.turn_away(),
        }
    }

    fn waker(&self) -> Waker {
        match self {
            Self::Datagrams(source) => source.waker(),
            Self::Streams(source) => source.waker(),
        }
    }

    fn batch(&self) -> Batch {
        match self {
            Self::Datagrams(source) => source.batch(),
            Self::Streams(source) => source.batch(),
        }
    }

    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        match self {
            Self::Datagrams(source) => source.receive(batch),
            Self::Streams(source) => source.receive(batch),
        }
    }

    fn drain(&mut self, batch: &mut Batch) -> io::Result<bool> {
        match self {
            Self::Datagrams(source) => source.drain(batch),
            Self::Streams(source) => source.drain(batch),
        }
    }

    fn has_more(&self) -> bool {
        match self {
            Self::Datagrams(source) => source.has_more(),
            Self::Streams(source) => source.has_more(),
        }
    }

    fn finish(&mut self) -> bool {
        match self {
            Self::Datagrams(source) => source.finish(),
            Self::Streams(source) => source.finish(),
        }
    }

    fn account(&mut self, tally: &mut Tally) {
        match self {
            Self::Datagrams(source) => source.account(tally),
            Self::Streams(source) => source.account(tally),
        }
    }
}
