//! The way to one node: lines in, datagrams out, and what became of them.
//!
//! A worker has an outlet for each node. Lines wait in it for company, for as long as the worker finds more
//! in its source, 16 batches at most. Its socket is connected, so that the kernel tells when the machine of
//! the node says that nobody takes what was sent, or a firewall that it does not let it pass.

use super::account::{Loss, NodeCounts};
use crate::runtime::clock::monotonic_ms;
use crate::runtime::rate_limit::{RateLimit, more};
use crate::runtime::sys;
use crate::runtime::sys::send::{
    MAX_BATCH, MAX_SEGMENTED, MAX_SEGMENTS, Message, Refusal, cannot_segment, connected,
    may_be_of_an_earlier_one, segment, send_messages,
};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Datagrams that wait at most before they are sent.
const HELD_MAX: usize = 256;
/// Bytes that wait at most, for datagrams that are larger than most.
const HELD_BYTES: usize = 512 << 10;
/// Longest datagram that runs are made of where lines are not packed: what fits the usual path. The kernel
/// refuses a run of longer ones, where it would cut each of them into fragments.
const SEGMENT_USUAL: usize = 1432;
/// How long a full send buffer is waited for: the nodes behind wait as long.
const WRITE_MAX: Duration = Duration::from_millis(100);
/// How often a message is tried that is refused for the sake of an earlier one.
const TRIES: usize = 4;

/// What an outlet needs to know of its node, the same for all workers.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// What the node is called.
    pub(super) label: String,
    /// One voice in the log for all workers.
    pub(super) complaints: Arc<RateLimit>,
}

/// One worker's way to one node.
#[derive(Debug)]
pub(super) struct Outlet {
    way: Way,
    /// Bytes a datagram is packed up to; 0 when each line has its own.
    room: usize,
    address: Option<SocketAddr>,
    socket: Option<UdpSocket>,
    /// Datagrams, one after another; the last one may be open.
    bytes: Vec<u8>,
    /// Those that take no more lines.
    closed: Vec<Datagram>,
    /// The open one.
    open: Datagram,
    /// The kernel cuts runs of datagrams for us, as far as known of this socket.
    segmenting: bool,
    /// What the kernel took last, not known to be refused.
    last: Datagram,
    counts: NodeCounts,
}

#[derive(Debug, Clone, Copy, Default)]
struct Datagram {
    /// Where it begins in the bytes.
    begin: usize,
    /// Bytes in it.
    length: usize,
    /// Lines in it; an open one without lines is none.
    lines: u64,
    /// How many datagrams this stands for.
    datagrams: u64,
}

impl Outlet {
    /// Not connected yet. Packs lines into datagrams of `room` bytes at most.
    pub(super) fn new(way: Way, room: usize) -> Self {
        Self {
            way,
            room,
            address: None,
            socket: None,
            bytes: Vec::new(),
            closed: Vec::new(),
            open: Datagram::default(),
            segmenting: true,
            last: Datagram::default(),
            counts: NodeCounts::default(),
        }
    }

    /// Takes a line, which is not empty.
    #[inline]
    pub(super) fn push(&mut self, line: &[u8]) {
        if self.open.lines > 0 {
            if self.open.length + 1 + line.len() > self.room {
                self.close();
            } else {
                self.bytes.push(b'\n');
                self.open.length += 1;
            }
        }
        self.bytes.extend_from_slice(line);
        self.open.length += line.len();
        self.open.lines += 1;
    }

    fn close(&mut self) {
        let begin = self.bytes.len();
        let closed = std::mem::replace(
            &mut self.open,
            Datagram {
                begin,
                ..Datagram::default()
            },
        );
        self.closed.push(Datagram {
            datagrams: 1,
            ..closed
        });
        if self.closed.len() >= HELD_MAX || begin >= HELD_BYTES {
            self.send_closed();
        }
    }

    /// Sends what waits.
    #[inline]
    pub(super) fn send(&mut self) {
        if self.open.lines > 0 {
            self.close();
        }
        if !self.closed.is_empty() {
            self.send_closed();
        }
    }

    /// Sends to another address from now on; what waits goes to the old one.
    pub(super) fn connect(&mut self, address: Option<SocketAddr>) {
        if address == self.address {
            return;
        }
        self.send();
        self.disconnect();
        self.address = address;
    }

    fn disconnect(&mut self) {
        self.ask_for_refusal();
        self.last = Datagram::default();
        self.socket = None;
    }

    /// The socket, lent out; made when there is none and the node is somewhere.
    fn take_socket(&mut self) -> Option<UdpSocket> {
        if let Some(socket) = self.socket.take() {
            return Some(socket);
        }
        let made = connected(self.address?, WRITE_MAX);
        let socket = made.inspect_err(|error| self.complain(error)).ok()?;
        // The option is not wanted, but a kernel that knows none (before Linux 4.18) does not look at the
        // size in a message either: it would send a run as one datagram, without a word.
        self.segmenting = segment(&socket, 0).is_ok();
        Some(socket)
    }

    /// The accounts since they were last taken, the latest refusal included.
    pub(super) fn take_counts(&mut self) -> NodeCounts {
        self.ask_for_refusal();
        std::mem::take(&mut self.counts)
    }

    /// Asks the kernel whether the last message was refused, instead of learning it with the next one.
    fn ask_for_refusal(&mut self) {
        let error = self.socket.as_ref().and_then(|it| it.take_error().ok()?);
        let Some(error) = error.filter(may_be_of_an_earlier_one) else {
            return;
        };
        if Refusal::of(&error) != Refusal::Refused {
            self.complain(&error);
        }
        self.refused();
    }

    /// What the kernel took last reached a machine where nobody takes it, or a firewall.
    fn refused(&mut self) {
        let last = std::mem::take(&mut self.last);
        self.counts.refused_lines += last.lines;
        self.counts.refused_datagrams += last.datagrams;
    }

    #[inline(never)]
    fn send_closed(&mut self) {
        let mut closed = std::mem::take(&mut self.closed);
        let bytes = std::mem::take(&mut self.bytes);
        match self.take_socket() {
            Some(socket) => {
                let begun = self.segmenting;
                let unreachable = self.counts.dropped[Loss::Unreachable as usize];
                let left = self.send_runs(&socket, &bytes, &closed);
                if begun && !self.segmenting {
                    self.send_runs(&socket, &bytes, &closed[left..]);
                }
                self.socket = Some(socket);
                if self.counts.dropped[Loss::Unreachable as usize] > unreachable {
                    // It sends from the address this machine had when it was made, which may be gone.
                    self.disconnect();
                }
            }
            None => closed
                .iter()
                .for_each(|datagram| self.counts.drop_lines(Loss::NoAddress, datagram.lines)),
        }
        closed.clear();
        self.closed = closed;
        self.bytes = bytes;
        self.bytes.clear();
        self.open = Datagram::default();
    }

    /// Sends datagrams, those of one size in one message where the kernel does that. Returns how many were
    /// dealt with: all, or those before the first message that this kernel or this path takes no runs of.
    fn send_runs(&mut self, socket: &UdpSocket, bytes: &[u8], datagrams: &[Datagram]) -> usize {
        let longest = if self.segmenting {
            self.room.max(SEGMENT_USUAL)
        } else {
            0
        };
        let runs = runs(datagrams, longest);
        let sums: Vec<Datagram> = runs
            .iter()
            .map(|run| sum(&datagrams[run.clone()]))
            .collect();
        let messages: Vec<_> = sums
            .iter()
            .zip(&runs)
            .map(|(sum, run)| Message {
                bytes: &bytes[sum.begin..][..sum.length],
                segment: (run.len() > 1).then(|| datagrams[run.start].length as u16),
            })
            .collect();
        let (mut at, mut tries) = (0, 0);
        // The kernel took fewer than it was given and kept the reason to itself: nearly always that the last
        // of them was refused, which it learns at once from a machine as near as this one.
        let mut cut_short = false;
        while at < messages.len() {
            match send_messages(socket, &messages[at..]) {
                Ok(taken) => {
                    if cut_short {
                        self.refused();
                    }
                    let sent = &sums[at..at + taken];
                    sent.iter()
                        .for_each(|sum| self.counts.sent(sum.lines, sum.datagrams, sum.length));
                    self.last = sent.last().copied().unwrap_or(self.last);
                    cut_short = taken < (messages.len() - at).min(MAX_BATCH);
                    at += taken;
                    tries = 0;
                }
                Err(error) => {
                    cut_short = false;
                    let refusal = Refusal::of(&error);
                    if refusal == Refusal::Refused {
                        self.refused();
                    } else if messages[at].segment.is_some() && cannot_segment(&error) {
                        // One by one then.
                        self.segmenting = false;
                        return runs[at].start;
                    }
                    if tries == 0 && refusal != Refusal::Refused {
                        self.complain(&error);
                    }
                    tries += 1;
                    if tries < TRIES && may_be_of_an_earlier_one(&error) {
                        // If the message goes now, it was.
                        cut_short = refusal != Refusal::Refused;
                        continue;
                    }
                    if refusal == Refusal::Refused {
                        self.complain(&error);
                    }
                    let loss = Loss::of(refusal);
                    // Those behind would wait as long, one after another.
                    let until = if loss == Loss::Full {
                        sums.len()
                    } else {
                        at + 1
                    };
                    let lines = sums[at..until].iter().map(|sum| sum.lines).sum();
                    self.counts.drop_lines(loss, lines);
                    at = until;
                    tries = 0;
                }
            }
        }
        datagrams.len()
    }

    #[cold]
    fn complain(&self, error: &io::Error) {
        if let Some(suppressed) = self.way.complaints.pass(monotonic_ms()) {
            let hint = if sys::is_out_of_descriptors(error) {
                "each worker needs one for each node; raise the limit (see: ulimit -n) or lower `threads`"
            } else {
                "look at the route to it (see: ip route get), at the firewall, and at `maxDatagram`"
            };
            log::warn!(
                "node {}: lines for it were dropped: {error}; {hint}{}",
                self.way.label,
                more(suppressed)
            );
        }
    }
}

/// Several datagrams that lie one after another, as one.
fn sum(datagrams: &[Datagram]) -> Datagram {
    let begin = datagrams.first().map_or(0, |first| first.begin);
    let add = |sum: Datagram, one: &Datagram| Datagram {
        begin,
        length: sum.length + one.length,
        lines: sum.lines + one.lines,
        datagrams: sum.datagrams + one.datagrams,
    };
    datagrams.iter().fold(Datagram::default(), add)
}

/// Which datagrams make a message together: those of one size, `longest` at most, and a shorter one behind
/// them, as many as the kernel takes; each its own otherwise.
fn runs(datagrams: &[Datagram], longest: usize) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut begin = 0;
    while begin < datagrams.len() {
        let size = datagrams[begin].length;
        let most = if (1..=longest).contains(&size) {
            MAX_SEGMENTS.min(MAX_SEGMENTED / size).max(1)
        } else {
            1
        };
        let mut end = begin + 1;
        while end < datagrams.len() && end - begin < most {
            let length = datagrams[end].length;
            if length > size {
                break;
            }
            end += 1;
            if length < size {
                break;
            }
        }
        runs.push(begin..end);
        begin = end;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlet(room: usize, address: Option<SocketAddr>) -> Outlet {
        let way = Way {
            label: "it".into(),
            complaints: Arc::default(),
        };
        let mut outlet = Outlet::new(way, room);
        outlet.connect(address);
        outlet
    }

    fn node() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let patience = Some(Duration::from_secs(10));
        socket.set_read_timeout(patience).expect("a timeout");
        let address = socket.local_addr().expect("an address");
        (socket, address)
    }

    fn next(socket: &UdpSocket) -> String {
        let mut buffer = vec![0; 65_536];
        let length = socket.recv(&mut buffer).expect("a datagram");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn lines_share_a_datagram_up_to_its_room() {
        let (socket, address) = node();
        let mut outlet = outlet(7, Some(address));
        for line in ["abc", "def", "g", "much too long", "h"] {
            outlet.push(line.as_bytes());
        }
        outlet.send();
        let datagrams: Vec<_> = (0..4).map(|_| next(&socket)).collect();
        assert_eq!(datagrams, ["abc\ndef", "g", "much too long", "h"]);
        let counts = outlet.take_counts();
        assert_eq!((counts.lines, counts.datagrams, counts.bytes), (5, 4, 22));
        assert_eq!(outlet.take_counts(), NodeCounts::default());
    }

    #[test]
    fn runs_are_of_one_size_and_a_shorter_one_ends_them() {
        let of = |sizes: &[usize], longest| {
            let datagrams: Vec<_> = sizes
                .iter()
                .map(|length| Datagram {
                    length: *length,
                    ..Datagram::default()
                })
                .collect();
            let runs = runs(&datagrams, longest);
            runs.iter().map(ExactSizeIterator::len).collect::<Vec<_>>()
        };
        assert_eq!(of(&[5, 5, 3, 5, 6, 6], 6), [3, 1, 2]);
        assert_eq!(of(&[5, 5, 3, 5, 6, 6], 5), [3, 1, 1, 1]);
        assert_eq!(of(&[5, 5, 3], 0), [1, 1, 1]);
        assert_eq!(of(&[5; 130], 5), [MAX_SEGMENTS, MAX_SEGMENTS, 2]);
        assert_eq!(of(&[30_000; 3], 65_507), [2, 1]);
        assert_eq!(of(&[65_507, 1], 65_507), [1, 1]);
        assert_eq!(of(&[], 65_507), [0; 0]);
    }

    #[test]
    fn each_line_that_nobody_takes_is_counted_as_refused() {
        let (socket, address) = node();
        drop(socket);
        for (room, lines, datagrams) in [(0, 300, 300), (40, 300, 75)] {
            let mut outlet = outlet(room, Some(address));
            for line in 0..lines {
                // Of lengths by turns, so that each is a message of its own.
                outlet.push(&b"123456789"[..8 + line % 2]);
            }
            outlet.send();
            let counts = outlet.take_counts();
            assert_eq!((counts.lines, counts.datagrams), (300, datagrams));
            assert_eq!(counts.refused_lines, 300, "room {room}");
            assert_eq!(counts.dropped_total(), 0);
        }
    }

    #[test]
    fn a_run_that_nobody_takes_is_refused_as_a_whole() {
        let (socket, address) = node();
        drop(socket);
        let mut outlet = outlet(0, Some(address));
        (0..100).for_each(|_| outlet.push(b"a:1|c"));
        outlet.send();
        let counts = outlet.take_counts();
        assert_eq!((counts.lines, counts.refused_lines), (100, 100));
        assert_eq!(counts.refused_datagrams, 100);
    }

    #[test]
    fn what_does_not_go_is_counted_by_its_reason_and_the_rest_goes() {
        let (socket, address) = node();
        let mut outlet = outlet(1432, Some(address));
        outlet.push(b"first");
        outlet.push(&[b'x'; 65_535]);
        outlet.push(b"last");
        outlet.send();
        assert_eq!([next(&socket), next(&socket)], ["first", "last"]);
        let counts = outlet.take_counts();
        assert_eq!(counts.lines, 2);
        assert_eq!(counts.dropped, [0, 1, 0, 0]);
        outlet.connect(None);
        outlet.push(b"to nobody");
        outlet.push(b"nor this");
        outlet.send();
        assert_eq!(outlet.take_counts().dropped, [2, 0, 0, 0]);
    }

    #[test]
    fn a_socket_that_takes_nothing_any_more_is_replaced() {
        let (socket, address) = node();
        let mut outlet = outlet(1432, Some(address));
        outlet.push(b"before");
        outlet.send();
        // As when the address it sends from is gone: an error that stays.
        let made = outlet.socket.as_ref().expect("a socket");
        let ended = socket2::SockRef::from(made).shutdown(std::net::Shutdown::Write);
        ended.expect("connected");
        outlet.push(b"lost");
        outlet.send();
        outlet.push(b"after");
        outlet.send();
        assert_eq!([next(&socket), next(&socket)], ["before", "after"]);
        let counts = outlet.take_counts();
        assert_eq!((counts.lines, counts.dropped), (2, [0, 0, 0, 1]));
    }

    /// What a firewall answers (ICMP: host prohibited) to a datagram from one to the other. `None` where this
    /// process may not say so.
    fn prohibit(from: SocketAddr, to: SocketAddr) -> Option<()> {
        let raw = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::RAW,
            Some(socket2::Protocol::ICMPV4),
        );
        let [from_high, from_low] = from.port().to_be_bytes();
        let [to_high, to_low] = to.port().to_be_bytes();
        let mut answer = [0; 36];
        answer[..2].copy_from_slice(&[3, 10]);
        // The header of IPv4, 20 bytes, and that of UDP.
        answer[8..18].copy_from_slice(&[0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17]);
        answer[20..28].copy_from_slice(&[127, 0, 0, 1, 127, 0, 0, 1]);
        answer[28..34].copy_from_slice(&[from_high, from_low, to_high, to_low, 0, 9]);
        let words = answer
            .chunks(2)
            .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
        let sum: u32 = words.sum();
        let sum = (sum >> 16) + (sum & 0xffff);
        answer[2..4].copy_from_slice(&(!((sum >> 16) + sum) as u16).to_be_bytes());
        raw.ok()?.send_to(&answer, &to.into()).ok().map(drop)
    }

    #[test]
    fn what_a_firewall_refused_is_not_what_comes_behind_it() {
        let (socket, address) = node();
        let mut outlet = outlet(1432, Some(address));
        outlet.push(b"refused");
        outlet.send();
        let made = outlet.socket.as_ref().and_then(|it| it.local_addr().ok());
        if prohibit(made.expect("a socket"), address).is_none() {
            eprintln!("skipped: only root may speak as a firewall");
            return;
        }
        outlet.push(b"behind it");
        outlet.send();
        assert_eq!([next(&socket), next(&socket)], ["refused", "behind it"]);
        let counts = outlet.take_counts();
        assert_eq!((counts.lines, counts.refused_lines), (2, 1));
        assert_eq!(counts.dropped_total(), 0);
        let made = outlet.socket.as_ref().and_then(|it| it.local_addr().ok());
        prohibit(made.expect("a socket"), address).expect("as before");
        assert_eq!(
            outlet.take_counts().refused_lines,
            1,
            "without a line behind it"
        );
    }

    #[test]
    fn long_lines_wait_in_bounded_memory() {
        let (_socket, address) = node();
        let mut outlet = outlet(1432, Some(address));
        (0..100).for_each(|_| outlet.push(&[b'x'; 50_000]));
        assert!(outlet.bytes.capacity() <= 2 * HELD_BYTES);
        outlet.send();
        assert_eq!(outlet.take_counts().lines, 100);
    }

    #[test]
    fn what_waits_goes_to_the_old_address() {
        let ((one, first), (other, second)) = (node(), node());
        let mut outlet = outlet(1432, Some(first));
        outlet.push(b"before");
        outlet.connect(Some(second));
        outlet.push(b"after");
        outlet.send();
        assert_eq!([next(&one), next(&other)], ["before", "after"]);
    }
}
