//! What the proxy counts: every line in, every line out by node, every loss by node and by reason.
//!
//! A worker keeps its own accounts and hands them over when it is asked, as the daemon's workers do with
//! their harvests; the [`Ledger`] adds them up. UDP tells of a loss at the other end only what a machine says
//! that is there and has nobody to take a datagram, so the loss of a node lies between two counts: `refused`,
//! which is exact for nodes on the machine of the proxy and too low over a network, and `doubtful`, all that
//! was sent to it from its last good answer to its removal from the ring.

use crate::metric::harvest::Tally;
use crate::runtime::sys::send::Refusal;
use crate::runtime::sys::wake::Waker;
use crossbeam::channel::Receiver;
use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Why the kernel took no datagram for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The node's name leads nowhere, or the machine has no socket to give.
    NoAddress,
    /// Longer than a datagram may be.
    TooLong,
    /// The send buffer stayed full.
    Full,
    /// No route, a firewall, an interface that is down.
    Unreachable,
}

impl Loss {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 4] = [
        Self::NoAddress,
        Self::TooLong,
        Self::Full,
        Self::Unreachable,
    ];

    pub(super) fn of(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLong => Self::TooLong,
            Refusal::WouldBlock | Refusal::NoBuffers => Self::Full,
            Refusal::Refused | Refusal::Other => Self::Unreachable,
        }
    }
}

/// What became of the lines for one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeCounts {
    /// Lines the kernel took.
    pub lines: u64,
    /// Datagrams they were in.
    pub datagrams: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Lines it did not take, by [`Loss`].
    pub dropped: [u64; Loss::ALL.len()],
    /// Of the lines it took, those that the node's machine has nobody for, or a firewall refuses, as far as
    /// they say so.
    pub refused_lines: u64,
    /// Datagrams they were in.
    pub refused_datagrams: u64,
    /// Of the lines it took, those sent from the node's last good answer to its removal.
    pub doubtful: u64,
    /// How often the node was taken out of the ring.
    pub removals: u64,
}

impl NodeCounts {
    pub(super) fn sent(&mut self, lines: u64, datagrams: u64, bytes: usize) {
        self.lines += lines;
        self.datagrams += datagrams;
        self.bytes += bytes as u64;
    }

    pub(super) fn drop_lines(&mut self, loss: Loss, lines: u64) {
        self.dropped[loss as usize] += lines;
    }

    /// Lines that were not sent, for whatever reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Adds other accounts of the same node.
    pub fn add(&mut self, other: &Self) {
        self.lines += other.lines;
        self.datagrams += other.datagrams;
        self.bytes += other.bytes;
        for (sum, part) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += part;
        }
        self.refused_lines += other.refused_lines;
        self.refused_datagrams += other.refused_datagrams;
        self.doubtful += other.doubtful;
        self.removals += other.removals;
    }
}

/// The accounts of a worker, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// What came in.
    pub tally: Tally,
    /// Lines of the proxy's own, which came from nowhere.
    pub own_lines: u64,
    /// Lines that came while no node was in the ring.
    pub no_node: u64,
    /// By the number of the node.
    pub nodes: Vec<NodeCounts>,
}

impl Counts {
    /// All zero, for so many nodes.
    pub fn of(nodes: usize) -> Self {
        Self {
            nodes: vec![NodeCounts::default(); nodes],
            ..Self::default()
        }
    }

    /// Adds other accounts of the same nodes.
    pub fn add(&mut self, other: &Self) {
        self.tally.add(&other.tally);
        self.own_lines += other.own_lines;
        self.no_node += other.no_node;
        for (sum, part) in self.nodes.iter_mut().zip(&other.nodes) {
            sum.add(part);
        }
    }

    /// All nodes together.
    pub fn all_nodes(&self) -> NodeCounts {
        let mut all = NodeCounts::default();
        self.nodes.iter().for_each(|node| all.add(node));
        all
    }
}

/// A row of the table of the proxy's counters; README shows the same table.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    /// Its name, behind `prefixStats` where it is sent.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Whether anything but zero means that something was lost.
    pub loss: bool,
    /// The total since the start.
    read: fn(&Counts) -> u64,
}

/// A row about one node, at `nodes.NODE.NAME`.
#[derive(Debug, Clone, Copy)]
pub struct NodeMeter {
    /// Its name.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Whether anything but zero means that something was lost, or may have been.
    pub loss: bool,
    /// The total since the start.
    read: fn(&NodeCounts) -> u64,
}

/// What came in, and what went nowhere.
#[rustfmt::skip]
pub const METERS: &[Meter] = &[
    Meter { name: "packets", loss: false, help: "datagrams received, and pieces of whole lines taken from streams", read: |c| c.tally.packets },
    Meter { name: "bytes", loss: false, help: "bytes in them", read: |c| c.tally.bytes },
    Meter { name: "lines", loss: false, help: "lines that are not empty", read: |c| c.tally.lines },
    Meter { name: "own_lines", loss: false, help: "lines of the proxy's own counters", read: |c| c.own_lines },
    Meter { name: "no_node", loss: true, help: "lines that came while no node was in the ring", read: |c| c.no_node },
    Meter { name: "truncated", loss: true, help: "datagrams cut; the last, incomplete line is not used", read: |c| c.tally.truncated },
    Meter { name: "kernel_drops", loss: true, help: "datagrams the kernel dropped because a receive buffer was full", read: |c| c.tally.kernel_drops },
    Meter { name: "unread_datagrams", loss: true, help: "datagrams left unread, since the stop took too long", read: |c| c.tally.unread },
    Meter { name: "receive_errors", loss: true, help: "receive calls that failed", read: |c| c.tally.receive_errors },
    Meter { name: "streams.accepted", loss: false, help: "connections accepted by stream listeners", read: |c| c.tally.streams.accepted },
    Meter { name: "streams.refused", loss: true, help: "connections closed at once because `streamConnections` were open", read: |c| c.tally.streams.refused },
    Meter { name: "streams.resets", loss: false, help: "connections that ended in an error", read: |c| c.tally.streams.resets },
    Meter { name: "streams.long_lines", loss: true, help: "lines of streams dropped because they are longer than `streamLine`", read: |c| c.tally.streams.long_lines },
    Meter { name: "streams.cut_lines", loss: true, help: "lines of streams dropped because a reset or the stop came in the middle of them", read: |c| c.tally.streams.cut_lines },
    Meter { name: "streams.accept_errors", loss: true, help: "failures to accept a connection", read: |c| c.tally.streams.accept_errors },
    Meter { name: "streams.bad_lengths", loss: true, help: "connections closed because a packet of more than 65535 bytes was announced", read: |c| c.tally.streams.bad_lengths },
    Meter { name: "streams.cut_packets", loss: true, help: "packets with a length before them dropped because their connection, or the proxy, ended in the middle of them", read: |c| c.tally.streams.cut_packets },
    Meter { name: "streams.pieces", loss: false, help: "what `packets` holds that are no datagrams", read: |c| c.tally.streams.pieces },
    Meter { name: "streams.unread_bytes", loss: true, help: "bytes of streams left unread, since the stop took too long", read: |c| c.tally.streams.unread_bytes },
];

/// What became of the lines for a node.
#[rustfmt::skip]
pub const NODE_METERS: &[NodeMeter] = &[
    NodeMeter { name: "lines", loss: false, help: "lines sent: the kernel took them", read: |n| n.lines },
    NodeMeter { name: "datagrams", loss: false, help: "datagrams they were in", read: |n| n.datagrams },
    NodeMeter { name: "bytes", loss: false, help: "bytes in them", read: |n| n.bytes },
    NodeMeter { name: "no_address", loss: true, help: "lines not sent: its name leads nowhere, or no socket was to be had", read: |n| n.dropped[Loss::NoAddress as usize] },
    NodeMeter { name: "too_long", loss: true, help: "lines not sent: no datagram is that long", read: |n| n.dropped[Loss::TooLong as usize] },
    NodeMeter { name: "full", loss: true, help: "lines not sent: the send buffer stayed full for 0.1 s", read: |n| n.dropped[Loss::Full as usize] },
    NodeMeter { name: "unreachable", loss: true, help: "lines not sent: no route, a firewall, an interface that is down", read: |n| n.dropped[Loss::Unreachable as usize] },
    NodeMeter { name: "refused_lines", loss: true, help: "lines sent that its machine had nobody for, or a firewall on the way refused, as far as they said so", read: |n| n.refused_lines },
    NodeMeter { name: "refused_datagrams", loss: true, help: "datagrams they were in", read: |n| n.refused_datagrams },
    NodeMeter { name: "doubtful", loss: true, help: "lines sent from its last good answer to its removal: what it lost of them nobody knows", read: |n| n.doubtful },
    NodeMeter { name: "removals", loss: false, help: "times it was taken out of the ring", read: |n| n.removals },
];

impl Counts {
    /// Every counter with its total.
    pub fn meters(&self) -> impl Iterator<Item = (&'static Meter, u64)> {
        METERS.iter().map(|meter| (meter, (meter.read)(self)))
    }
}

impl NodeCounts {
    /// Every counter with its total.
    pub fn meters(&self) -> impl Iterator<Item = (&'static NodeMeter, u64)> {
        NODE_METERS.iter().map(|meter| (meter, (meter.read)(self)))
    }
}

/// How long an answer of a worker is waited for; what a late one has comes with the next.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The answer of a worker.
#[derive(Debug)]
pub struct Report {
    /// Number of the question it answers.
    pub number: u64,
    /// What it counted since its answer before.
    pub counts: Counts,
}

/// The totals since the start, and the way to the workers' part of them.
#[derive(Debug)]
pub struct Ledger {
    /// Number of the last question; only the ledger raises it. Relaxed: it carries no data, the answer goes
    /// through the channel.
    asked: Arc<CachePadded<AtomicU64>>,
    workers: Vec<Waker>,
    reports: Receiver<Report>,
    book: Mutex<Book>,
    /// Told when the answers to a question are in.
    answered: Condvar,
}

#[derive(Debug)]
struct Book {
    totals: Counts,
    /// Somebody asks and waits for answers.
    asking: bool,
    /// Number of the last question whose answers are in.
    answered: u64,
}

impl Ledger {
    /// Of these workers, which send their answers to `reports`, about so many nodes.
    pub fn new(
        asked: Arc<CachePadded<AtomicU64>>,
        workers: Vec<Waker>,
        reports: Receiver<Report>,
        nodes: usize,
    ) -> Self {
        let totals = Counts::of(nodes);
        Self {
            asked,
            workers,
            reports,
            book: Mutex::new(Book {
                totals,
                asking: false,
                answered: 0,
            }),
            answered: Condvar::new(),
        }
    }

    /// Asks every worker and adds up; what a worker that is late has is missing.
    pub fn totals(&self) -> Counts {
        // Written, not only read: that is sure to find the last one.
        self.totals_after(self.asked.fetch_add(0, Ordering::AcqRel))
    }

    /// The answers to a question later than number `before`. Of many who wait for a worker that is busy, one
    /// asks for all: each by itself, the health checks of many nodes would wait for one another.
    fn totals_after(&self, before: u64) -> Counts {
        let mut book = self.book();
        while book.answered <= before && book.asking {
            let waited = self.answered.wait(book);
            book = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if book.answered > before {
            return book.totals.clone();
        }
        book.asking = true;
        drop(book);
        let number = self.ask();
        let mut book = self.book();
        book.asking = false;
        book.answered = number;
        self.answered.notify_all();
        book.totals.clone()
    }

    /// Asks, waits, adds up. Returns the number of the question.
    fn ask(&self) -> u64 {
        let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        self.workers.iter().for_each(Waker::wake);
        let until = Instant::now() + ANSWER_MAX;
        let mut answers = 0;
        while answers < self.workers.len() {
            // Closed when all workers are gone: then what they left is what there is.
            let Ok(report) = self.reports.recv_deadline(until) else {
                break;
            };
            // A stopping worker answers every question there may be.
            answers += usize::from(report.number >= number);
            self.book().totals.add(&report.counts);
        }
        number
    }

    /// Adds what was counted elsewhere.
    pub fn enter(&self, counts: &Counts) {
        self.book().totals.add(counts);
    }

    /// A node was taken out of the ring, after so many lines that it may not have taken.
    pub fn doubt(&self, node: usize, lines: u64) {
        let counts = &mut self.book().totals.nodes[node];
        counts.doubtful += lines;
        counts.removals += 1;
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::harvest::StreamTally;
    use crossbeam::channel::bounded;
    use std::thread;

    fn node(from: u64) -> NodeCounts {
        NodeCounts {
            lines: from,
            datagrams: from + 1,
            bytes: from + 2,
            dropped: [from + 3, from + 4, from + 5, from + 6],
            refused_lines: from + 7,
            refused_datagrams: from + 8,
            doubtful: from + 9,
            removals: from + 10,
        }
    }

    fn counts() -> Counts {
        let streams = StreamTally {
            accepted: 10,
            refused: 11,
            resets: 12,
            long_lines: 13,
            cut_lines: 14,
            accept_errors: 15,
            bad_lengths: 16,
            cut_packets: 17,
            pieces: 18,
            unread_bytes: 19,
        };
        Counts {
            tally: Tally {
                packets: 1,
                bytes: 2,
                lines: 3,
                truncated: 6,
                kernel_drops: 7,
                unread: 8,
                receive_errors: 9,
                streams,
                ..Tally::default()
            },
            own_lines: 4,
            no_node: 5,
            nodes: vec![node(20), node(40)],
        }
    }

    #[test]
    fn every_count_has_a_meter_and_adds_up() {
        let mut sum = counts();
        let values: Vec<_> = sum.meters().map(|(_, value)| value).collect();
        assert_eq!(values, (1..=19).collect::<Vec<_>>());
        let values: Vec<_> = sum.nodes[0].meters().map(|(_, value)| value).collect();
        assert_eq!(values, (20..=30).collect::<Vec<_>>());
        sum.add(&counts());
        let doubled: Vec<_> = sum.meters().map(|(_, value)| value).collect();
        assert_eq!(doubled, (1..=19).map(|n| 2 * n).collect::<Vec<_>>());
        let doubled: Vec<_> = sum.nodes[1].meters().map(|(_, value)| value).collect();
        assert_eq!(doubled, (40..=50).map(|n| 2 * n).collect::<Vec<_>>());
        assert_eq!(sum.all_nodes().lines, 2 * (20 + 40));
        assert_eq!(sum.nodes[0].dropped_total(), 2 * (23 + 24 + 25 + 26));
    }

    #[test]
    fn who_came_before_a_question_was_asked_has_its_answers_too() {
        let asked = Arc::new(CachePadded::new(AtomicU64::new(0)));
        let (reports, book) = bounded(4);
        let ledger = Ledger::new(asked.clone(), vec![], book, 2);
        ledger.totals();
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        ledger.enter(&counts());
        assert_eq!(ledger.totals_after(0).tally.lines, 3);
        assert_eq!(asked.load(Ordering::Relaxed), 1, "it was asked after 0");
        assert_eq!(ledger.totals_after(1).tally.lines, 3);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        drop(reports);
    }

    #[test]
    fn the_ledger_asks_and_adds_late_answers_to_the_next() {
        let asked = Arc::new(CachePadded::new(AtomicU64::new(0)));
        let (reports, book) = bounded(4);
        let waker = Waker::new().expect("an eventfd");
        let ledger = Ledger::new(asked.clone(), vec![waker], book, 2);
        let late = Report {
            number: 0,
            counts: counts(),
        };
        reports.send(late).expect("room");
        let worker = thread::spawn(move || {
            while asked.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            let answer = Report {
                number: 1,
                counts: counts(),
            };
            reports.send(answer).expect("room");
        });
        assert_eq!(ledger.totals().tally.lines, 6);
        worker.join().expect("no panic");
        // It is gone, and nobody waits for it.
        ledger.doubt(1, 5);
        ledger.enter(&counts());
        let totals = ledger.totals();
        assert_eq!(totals.tally.lines, 9);
        assert_eq!(totals.nodes[1].doubtful, 3 * 49 + 5);
        assert_eq!(totals.nodes[1].removals, 3 * 50 + 1);
    }
}
