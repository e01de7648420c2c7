//! NOUN: datagrams as they came, for whoever wants them whole; and the queues they wait in.
//!
//! A worker copies a batch into a recycled buffer and offers it; it never waits. What finds no room is
//! the worker's to count.

use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The datagrams of one batch, in the order they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl Copied {
    /// Adds a datagram; it may be empty.
    pub fn push(&mut self, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Bytes in all of them.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The datagrams.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins
            .zip(&self.ends)
            .map(|(begin, end)| &self.bytes[begin..*end])
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// What may wait in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Batches.
    pub batches: usize,
    /// Bytes of datagrams in them. One batch is always let in, however large it is.
    pub bytes: usize,
}

/// A queue of batches with its two ends. It is closed when one of them is gone.
pub fn queue<T>(limits: Limits) -> (Inlet<T>, Outlet<T>) {
    let (sender, receiver) = bounded(limits.batches);
    let held = Arc::new(AtomicUsize::new(0));
    let inlet = Inlet {
        sender,
        held: held.clone(),
        bytes: limits.bytes,
    };
    (inlet, Outlet { receiver, held })
}

/// Where batches go in.
#[derive(Debug)]
pub struct Inlet<T> {
    sender: Sender<(T, usize)>,
    /// Bytes in the queue. Added to by whoever offers, taken from by the one who takes. Relaxed: a number
    /// to compare with a limit, which those who offer at the same moment may pass by a batch each.
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl<T> Clone for Inlet<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            held: self.held.clone(),
            bytes: self.bytes,
        }
    }
}

impl<T> Inlet<T> {
    /// Whether the next batch would not be let in.
    pub fn is_full(&self) -> bool {
        self.sender.is_full() || self.held.load(Ordering::Relaxed) >= self.bytes
    }

    /// Puts a batch of so many bytes in. Never waits.
    ///
    /// # Errors
    /// Gives the batch back when there is no room, or nobody takes any more.
    pub fn offer(&self, batch: T, bytes: usize) -> Result<(), T> {
        if self.is_full() {
            return Err(batch);
        }
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.sender.try_send((batch, bytes)).map_err(|refused| {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            refused.into_inner().0
        })
    }
}

/// Where batches come out. Of its clones each batch goes to one.
#[derive(Debug)]
pub struct Outlet<T> {
    receiver: Receiver<(T, usize)>,
    held: Arc<AtomicUsize>,
}

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Self {
            receiver: self.receiver.clone(),
            held: self.held.clone(),
        }
    }
}

impl<T> Outlet<T> {
    /// Takes the next batch if there is one.
    pub fn try_take(&self) -> Option<T> {
        let (batch, bytes) = self.receiver.try_recv().ok()?;
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        Some(batch)
    }

    /// Waits for the next batch; `None` when it is empty and nobody can offer any more.
    pub fn take(&self) -> Option<T> {
        let (batch, bytes) = self.receiver.recv().ok()?;
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        Some(batch)
    }
}

/// Emptied buffers on their way back to the workers.
pub type Empties = Arc<ArrayQueue<Copied>>;

/// Buffers that are kept for the next batch.
const EMPTIES: usize = 64;
/// Largest buffer that is kept, in bytes: most batches are a tenth of it.
const KEPT_BYTES: usize = 1 << 20;

/// Gives a buffer back.
pub fn recycle(empties: &Empties, mut copied: Copied) {
    copied.clear();
    if copied.bytes.capacity() <= KEPT_BYTES {
        // When the queue is full there are enough of them.
        let _ = empties.push(copied);
    }
}

/// What a worker copies its batches into.
#[derive(Debug, Clone)]
pub struct Feed {
    full: Inlet<Copied>,
    empties: Empties,
    targets: u64,
}

impl Feed {
    /// A feed for so many targets, each of which is to get a copy; the end where batches come out, and
    /// where they go back to.
    pub fn new(targets: usize, limits: Limits) -> (Self, Outlet<Copied>, Empties) {
        let (full, outlet) = queue(limits);
        let empties = Arc::new(ArrayQueue::new(EMPTIES));
        let feed = Self {
            full,
            empties: empties.clone(),
            targets: targets as u64,
        };
        (feed, outlet, empties)
    }

    /// Copies the datagrams of a batch and hands them over. Never waits. Returns how many copies were
    /// dropped because there was no room: one of each datagram for each target, or none.
    pub fn offer<'a>(&self, datagrams: impl Iterator<Item = &'a [u8]>) -> u64 {
        if self.full.is_full() {
            return datagrams.count() as u64 * self.targets;
        }
        let mut copied = self.empties.pop().unwrap_or_default();
        datagrams.for_each(|datagram| copied.push(datagram));
        let bytes = copied.bytes();
        let Err(refused) = self.full.offer(copied, bytes) else {
            return 0;
        };
        let dropped = refused.count() as u64 * self.targets;
        recycle(&self.empties, refused);
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: Limits = Limits {
        batches: 2,
        bytes: 100,
    };

    fn offered(feed: &Feed, datagrams: &[&[u8]]) -> u64 {
        feed.offer(datagrams.iter().copied())
    }

    #[test]
    fn datagrams_come_out_as_they_went_in() {
        let (feed, outlet, empties) = Feed::new(1, ROOMY);
        for batch in [&[&b"a:1|c\n"[..], b"", b"\xff"][..], &[b"b"]] {
            assert_eq!(offered(&feed, batch), 0);
            let copied = outlet.take().expect("a batch");
            assert_eq!(copied.datagrams().collect::<Vec<_>>(), batch);
            assert_eq!(copied.count(), batch.len());
            recycle(&empties, copied);
        }
        drop(feed);
        assert_eq!(outlet.take(), None);
    }

    #[test]
    fn what_finds_no_room_is_counted_for_each_target() {
        let (feed, outlet, _) = Feed::new(3, ROOMY);
        assert_eq!(offered(&feed, &[b"1"]), 0);
        assert_eq!(offered(&feed, &[b"2"]), 0);
        assert_eq!(offered(&feed, &[b"3", b""]), 6, "no room for a batch");
        assert_eq!(outlet.take().map(|batch| batch.bytes()), Some(1));
        assert_eq!(offered(&feed, &[&[0; 99]]), 0);
        outlet.take();
        assert_eq!(offered(&feed, &[b"4"]), 0);
        outlet.take();
        outlet.take();
        assert_eq!(offered(&feed, &[&[0; 1000]]), 0, "a large one is let in");
        assert_eq!(offered(&feed, &[b"5"]), 3, "no room for a byte");
        outlet.take();
        assert_eq!(offered(&feed, &[b"6"]), 0);
        drop(outlet);
        assert_eq!(offered(&feed, &[b"7", b"8"]), 6, "nobody takes any more");
    }

    #[test]
    fn a_buffer_is_used_again_unless_it_has_grown_large() {
        let (feed, outlet, empties) = Feed::new(1, ROOMY);
        offered(&feed, &[b"a"]);
        recycle(&empties, outlet.take().expect("a batch"));
        assert_eq!(empties.len(), 1);
        offered(&feed, &[b"b"]);
        assert_eq!(empties.len(), 0);
        let mut large = outlet.take().expect("a batch");
        large.push(&vec![0; KEPT_BYTES + 1]);
        recycle(&empties, large);
        assert_eq!(empties.len(), 0);
    }
}
