//! Datagrams, of UDP and of unix sockets: drain, nap, drain.
//!
//! A worker takes all there is, naps for as long as the queue surely holds (`nap`), takes all there is again,
//! and only blocks when a nap brought nothing.

use super::Source;
use super::inherited::{Bound, Drops, Seat};
use super::lock::Lock;
use super::nap::Nap;
use super::socket_file::SocketFile;
use crate::ingest::packet::{Batch, DATAGRAM_MAX, Filled};
use crate::metric::harvest::Tally;
use crate::runtime::sys::receive::Headers;
use crate::runtime::sys::socket;
use crate::runtime::sys::wake::Waker;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Datagrams taken in one call to the kernel. More gains nothing measurable.
const BATCH: usize = 64;

/// How long the stop counts what it left unread: enough for the largest buffer of a locked socket. One that
/// could not be locked has no end.
const COUNT_MAX: Duration = Duration::from_secs(1);

/// Datagrams a queue of so many has to hold, for naps to be taken beside it. A client's burst fills a smaller
/// one at once, and DogStatsD's clients do not wait: they drop what is refused.
const NAP_QUEUE_MIN: u64 = 64;

/// What the kernel queues for a socket before it drops datagrams or lets senders wait.
#[derive(Debug, Clone, Copy)]
pub(super) enum Queue {
    /// A receive buffer of so many bytes, as the kernel accounts them.
    Bytes(u64),
    /// So many datagrams, of any size.
    Datagrams(u64),
}

impl Queue {
    /// Its bytes, when it is bounded by them.
    fn bytes(self) -> Option<u64> {
        match self {
            Self::Bytes(room) => Some(room),
            Self::Datagrams(_) => None,
        }
    }

    fn room(self) -> u64 {
        match self {
            Self::Bytes(room) | Self::Datagrams(room) => room,
        }
    }

    /// What a datagram of `payload` bytes takes of it.
    fn share(self, payload: usize) -> u64 {
        match self {
            Self::Bytes(_) => kernel_memory(payload),
            Self::Datagrams(_) => 1,
        }
    }
}

/// One socket of a listener.
#[derive(Debug)]
pub struct Datagrams {
    socket: Arc<OwnedFd>,
    /// None when it outlives this process.
    lock: Option<Lock>,
    waker: Waker,
    headers: Headers,
    max_datagram: usize,
    queue: Queue,
    drops: Drops,
    /// Datagrams that the stop left unread.
    unread: u64,
    /// The last call filled the batch, so there is likely more.
    more: bool,
    /// The kernel hands runs of datagrams over in one piece.
    joined: bool,
    /// What the datagrams of the current drain took of the queue, as reckoned.
    drained: u64,
    /// What was in the queue after the last nap, as the kernel has it, and how long it had been left alone.
    found: Option<(u64, Duration)>,
    nap: Nap,
    /// When the queue was empty last.
    last_empty: Instant,
    /// Where a unix socket stands in the file system, for as long as it is read.
    file: Option<Arc<SocketFile>>,
}

impl Datagrams {
    /// Takes over a bound socket.
    pub(super) fn new(
        bound: Bound,
        max_datagram: usize,
        queue: Queue,
        joined: bool,
        file: Option<Arc<SocketFile>>,
    ) -> io::Result<Self> {
        let Bound {
            socket,
            drops,
            lasting,
        } = bound;
        Ok(Self {
            lock: (!lasting).then(|| Lock::new(socket.clone())),
            socket,
            waker: Waker::new()?,
            headers: Headers::new(BATCH, joined),
            max_datagram,
            queue,
            drops,
            unread: 0,
            more: true,
            joined,
            drained: 0,
            found: None,
            nap: Nap::new(queue.bytes()),
            last_empty: Instant::now(),
            file,
        })
    }

    fn take(&mut self, batch: &mut Batch) -> io::Result<()> {
        let refill = batch.refill();
        let received = self.headers.receive(
            self.socket.as_fd(),
            refill.arena,
            refill.stride,
            refill.room,
        );
        let count = match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            result => result?,
        };
        for (slot, datagram) in self.headers.received(count).enumerate() {
            let start = slot * refill.stride;
            self.drained += self.queue.share(datagram.len);
            let run = start..start + datagram.len;
            let size = datagram.segment.unwrap_or(datagram.len);
            for bytes in segments(run, size) {
                // A slot for runs holds the longest; what is longer than a datagram may be is cut here.
                let cut = bytes.start + bytes.len().min(self.max_datagram);
                refill.filled.push(Filled {
                    truncated: datagram.truncated || cut < bytes.end,
                    bytes: bytes.start..cut,
                });
            }
        }
        self.more = count == refill.slots;
        Ok(())
    }

    /// Leaves the socket alone for as long as it may be. `false` when the last drain brought nothing.
    fn rest(&mut self) -> bool {
        let drained = std::mem::take(&mut self.drained);
        if drained == 0 {
            return false;
        }
        if matches!(self.queue, Queue::Datagrams(room) if room < NAP_QUEUE_MIN) {
            return true;
        }
        let now = Instant::now();
        let since = now - std::mem::replace(&mut self.last_empty, now);
        let (filled, since) = self.found.take().unwrap_or((drained, since));
        let nap = self.nap.next(filled, self.queue.room(), since);
        if !nap.is_zero() {
            std::thread::sleep(nap);
        }
        if let Queue::Bytes(_) = self.queue
            && let Ok(accounts) = socket::memory(self.socket.as_fd())
        {
            self.found = Some((accounts.queued.into(), now.elapsed()));
        }
        true
    }
}

impl Datagrams {
    pub(super) fn seat(&self) -> Seat {
        Seat {
            bound: Bound {
                socket: self.socket.clone(),
                drops: self.drops.clone(),
                lasting: self.lock.is_none(),
            },
            file: self.file.clone(),
            arrivals: None,
        }
    }
}

impl Source for Datagrams {
    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn lock(&self) -> Option<Lock> {
        self.lock.clone()
    }

    fn is_locked(&self) -> bool {
        self.lock.as_ref().is_some_and(Lock::is_closed)
    }

    fn batch(&self) -> Batch {
        let room = if self.joined {
            DATAGRAM_MAX
        } else {
            self.max_datagram
        };
        Batch::new(BATCH, room)
    }

    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        if self.more {
            return self.take(batch);
        }
        if !self.rest() {
            self.waker.wait(self.socket.as_fd(), None)?;
            // However long that took, it says nothing about the pace of what comes now.
            self.last_empty = Instant::now();
            self.found = None;
            self.nap.shorten();
        }
        self.take(batch)
    }

    fn drain(&mut self, batch: &mut Batch) -> io::Result<bool> {
        self.take(batch)?;
        Ok(batch.received() > 0)
    }

    fn has_more(&self) -> bool {
        self.more
    }

    fn finish(&mut self) -> bool {
        false
    }

    fn turn_away(&mut self) {
        if self.lock.is_none() {
            return;
        }
        let until = Instant::now() + COUNT_MAX;
        let mut batch = self.batch();
        // What is not looked into is counted hundreds of times faster than it is read.
        while Instant::now() < until && self.drain(&mut batch).is_ok_and(|there_was| there_was) {
            self.unread += batch.received() as u64;
        }
    }

    fn account(&mut self, tally: &mut Tally) {
        tally.unread += std::mem::take(&mut self.unread);
        // A unix socket drops nothing, its senders wait or are refused; its count stays 0.
        let Ok(accounts) = socket::memory(self.socket.as_fd()) else {
            return;
        };
        tally.kernel_drops += u64::from(self.drops.news(accounts.drops));
    }
}

/// The datagrams of a run, each of `size` bytes but the last. Nothing is one datagram too.
fn segments(run: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = run.end;
    let rest = (run.start + size..end).step_by(size.max(1));
    let starts = std::iter::once(run.start).chain(rest);
    starts.map(move |start| start..end.min(start + size))
}

/// What a queued datagram takes of the receive buffer: payload, headers and slab rounding.
/// Measured on Linux 6.18; larger ones are a little more than their pages.
fn kernel_memory(payload: usize) -> u64 {
    match payload {
        0..=190 => 832,
        191..=700 => 1280,
        701..=1700 => 2304,
        _ => payload as u64 * 5 / 4 + 2304,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    /// Stops at once, and counts what it is given until then.
    struct Stopping(Tally);

    impl crate::ingest::Intake for &mut Stopping {
        fn stopping(&self) -> bool {
            true
        }

        fn asked(&self) -> u64 {
            0
        }

        fn tally(&mut self) -> &mut Tally {
            &mut self.0
        }

        fn take(&mut self, batch: &Batch) {
            self.0.packets += batch.packets().count() as u64;
        }

        fn settle(&mut self) {}

        fn answer(&mut self, _number: u64, _source: &mut impl Source) -> bool {
            true
        }
    }

    #[test]
    fn an_error_of_the_socket_at_the_stop_leaves_nothing_unread() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_nonblocking(true).expect("nonblocking");
        let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
        for _ in 0..3 {
            let to = socket.local_addr().expect("bound");
            client.send_to(b"a:1|c", to).expect("loopback takes it");
        }
        let gone = client.local_addr().expect("bound");
        drop(client);
        // Nobody is there, which the next call on this socket is told, once.
        socket.connect(gone).expect("an address");
        socket.send(b"x").expect("it is on its way");
        let queue = Queue::Bytes(1 << 20);
        let source =
            Datagrams::new(Bound::new(socket.into()), 100, queue, false, None).expect("a source");
        let mut intake = Stopping(Tally::default());
        crate::ingest::serve(source, &mut intake);
        assert_eq!((intake.0.packets, intake.0.receive_errors), (3, 1));
    }

    #[test]
    fn a_run_is_cut_where_its_datagrams_end() {
        let cut = |run, size| {
            let ends = segments(run, size).map(|bytes| (bytes.start, bytes.end));
            ends.collect::<Vec<_>>()
        };
        assert_eq!(cut(10..40, 10), [(10, 20), (20, 30), (30, 40)]);
        assert_eq!(cut(10..35, 10), [(10, 20), (20, 30), (30, 35)]);
        assert_eq!(cut(10..15, 10), [(10, 15)]);
        assert_eq!(cut(10..10, 0), [(10, 10)]);
    }
}
