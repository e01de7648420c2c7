//! The source: one worker's connections, read in turn.
//!
//! A round asks the kernel which sockets have something and reads each of them once, a bounded piece,
//! straight into the batch. So a client that floods costs the others one such piece a round, and never the
//! tick. After a round that brought something the worker naps, as with datagrams, and blocks when a nap
//! brought nothing. A nap loses nothing here: what comes meanwhile waits in the sockets.

use super::super::socket_file::BACKLOG;
use super::frames::{self, BadLength, Frames};
use super::framing::Framing;
use super::gate::{Gate, Place};
use super::{Door, Parting};
use crate::ingest::packet::{Batch, Filled, Refill};
use crate::ingest::source::Source;
use crate::ingest::source::inherited::{Arrival, Seat};
use crate::metric::harvest::{StreamTally, Tally};
use crate::runtime::sys;
use crate::runtime::sys::poll::{Events, Poll};
use crate::runtime::sys::socket;
use crate::runtime::sys::wake::Waker;
use crossbeam::channel::{Receiver, Sender, unbounded};
use socket2::{SockAddr, SockRef, Socket};
use std::fmt;
use std::io::{self, Read};
use std::mem;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sockets read in one round.
const ROUND: usize = 64;
/// Bytes read from one connection in a round.
pub(super) const PIECE: usize = 16 << 10;
/// Connections accepted in a round. More wait for the next, behind those that have something to say.
const ACCEPTED: usize = 16;
/// Rest after a round that brought something.
const NAP: Duration = Duration::from_micros(500);
/// Rest of the listening socket after accepting failed; a connection that closes ends it.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

const WAKER: u64 = u64::MAX;
const DOOR: u64 = u64::MAX - 1;

/// One worker's listening socket and connections.
#[derive(Debug)]
pub struct Streams {
    poll: Poll,
    events: Events,
    waker: Waker,
    door: Door,
    /// Connections of the process before come here.
    arrivals: (Sender<Arrival>, Receiver<Arrival>),
    /// Until when the listening socket is left alone.
    door_rests: Option<Instant>,
    gate: Arc<Gate>,
    parting: Parting,
    /// By token.
    connections: Vec<Option<Connection>>,
    /// Tokens that are free.
    free: Vec<usize>,
    /// The last round did not take all there was.
    more: bool,
    /// The last round brought something.
    brought: bool,
    counts: StreamTally,
}

#[derive(Debug)]
struct Connection {
    socket: Socket,
    parts: Parts,
    _place: Place,
}

/// An open connection, for a successor.
#[derive(Debug)]
pub struct Open<'s> {
    /// Its socket.
    pub socket: BorrowedFd<'s>,
    /// The line or packet so far.
    pub held: &'s [u8],
    /// The line so far was too long: the rest of it is dropped.
    pub skipping: bool,
}

/// What a connection is in the middle of.
#[derive(Debug)]
enum Parts {
    Lines(Framing),
    Lengths(Frames),
}

impl Parts {
    fn held(&self) -> usize {
        match self {
            Self::Lines(framing) => framing.held(),
            Self::Lengths(frames) => frames.held(),
        }
    }
}

/// Who is at the other end, for the log; a process of this machine has no address.
struct Peer<'a>(&'a Socket);

impl fmt::Display for Peer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self
            .0
            .peer_addr()
            .ok()
            .as_ref()
            .and_then(SockAddr::as_socket)
        {
            return write!(f, "{address}");
        }
        match socket::peer(self.0.as_fd()) {
            Ok(peer) if peer.process > 0 => write!(f, "process {}", peer.process),
            _ => f.write_str("a client"),
        }
    }
}

/// Batch memory that a round fills front to back.
struct Space<'a> {
    refill: Refill<'a>,
    at: usize,
}

impl Space<'_> {
    /// Notes that the bytes of this range, counted from the free memory, are a packet.
    fn fill(&mut self, packet: std::ops::Range<usize>) {
        if packet.is_empty() {
            return;
        }
        let bytes = self.at + packet.start..self.at + packet.end;
        self.at = bytes.end;
        self.refill.filled.push(Filled {
            bytes,
            truncated: false,
        });
    }

    /// Takes what was read, with the room in front of it `length` bytes, as packets behind their lengths.
    fn fill_packets(&mut self, frames: &mut Frames, length: usize) -> Result<(), BadLength> {
        let (at, filled) = (self.at, &mut self.refill.filled);
        let space = &mut self.refill.arena[at..at + length];
        frames.take(space, |packet| {
            let bytes = at + packet.start..at + packet.end;
            self.at = bytes.end;
            filled.push(Filled {
                bytes,
                truncated: false,
            });
        })
    }

    fn pieces(&self) -> u64 {
        self.refill.filled.len() as u64
    }

    fn free(&mut self) -> &mut [u8] {
        &mut self.refill.arena[self.at..]
    }
}

impl Streams {
    pub(super) fn new(door: Door, parting: Parting, gate: Arc<Gate>) -> io::Result<Self> {
        let (poll, waker) = (Poll::new()?, Waker::new()?);
        poll.add(waker.as_fd(), WAKER, false)?;
        poll.add(door.bound.socket.as_fd(), DOOR, door.shared)?;
        Ok(Self {
            poll,
            events: Events::new(ROUND),
            waker,
            door,
            arrivals: unbounded(),
            door_rests: None,
            gate,
            parting,
            connections: Vec::new(),
            free: Vec::new(),
            more: false,
            brought: false,
            counts: StreamTally::default(),
        })
    }

    /// Waits, then reads what is there, once from each socket. Returns whether anything was.
    fn round(&mut self, batch: &mut Batch, at_most: Option<Duration>) -> io::Result<bool> {
        let mut space = Space {
            refill: batch.refill(),
            at: 0,
        };
        (self.more, self.brought) = (false, false);
        self.poll.wait(&mut self.events, at_most)?;
        self.more = self.events.is_full();
        for event in 0..self.events.count() {
            match self.events.token(event) {
                WAKER => {
                    self.waker.reset();
                    // They may have something to say, which a drain must not leave.
                    self.brought |= self.take_arrivals();
                    continue;
                }
                DOOR => self.accept(),
                token => self.read(token as usize, &mut space),
            }
            self.brought = true;
        }
        self.counts.pieces += space.pieces();
        Ok(self.brought)
    }

    fn accept(&mut self) {
        for turn in 0..ACCEPTED {
            if let Err(error) = self.gate.leave_some(self.waker.as_fd()) {
                // The first time somebody waits, else perhaps not: the next round knows.
                if turn == 0 {
                    self.rest(&error);
                } else {
                    self.more = true;
                }
                return;
            }
            let taken = SockRef::from(&self.door.bound.socket)
                .accept()
                .and_then(|(socket, _)| self.admit(socket));
            match taken {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Of one connection, which is gone; there may be others.
                Err(error) if sys::is_of_one_connection(&error) => {}
                Err(error) => return self.rest(&error),
            }
        }
        self.more = true;
    }

    fn admit(&mut self, socket: Socket) -> io::Result<()> {
        let Some(place) = self.gate.enter() else {
            self.counts.refused += 1;
            self.gate.say_full(Peer(&socket));
            return Ok(());
        };
        socket.set_nonblocking(true)?;
        let parts = match self.parting {
            Parting::Lines { max } => Parts::Lines(Framing::new(max)),
            Parting::Lengths { max } => Parts::Lengths(Frames::new(max)),
        };
        self.add(socket, parts, place)?;
        self.counts.accepted += 1;
        Ok(())
    }

    fn add(&mut self, socket: Socket, parts: Parts, place: Place) -> io::Result<()> {
        let token = self.free.last().copied().unwrap_or(self.connections.len());
        self.poll.add(socket.as_fd(), token as u64, false)?;
        let connection = Some(Connection {
            socket,
            parts,
            _place: place,
        });
        if self.free.pop().is_some() {
            self.connections[token] = connection;
        } else {
            self.connections.push(connection);
        }
        Ok(())
    }

    /// Takes the connections of the process before that wait to be taken. Whether there were any.
    pub(in crate::ingest) fn take_arrivals(&mut self) -> bool {
        let mut any = false;
        while let Ok(arrival) = self.arrivals.1.try_recv() {
            self.take_over(arrival);
            any = true;
        }
        any
    }

    /// Goes on with a connection where the process before left off.
    #[cold]
    fn take_over(&mut self, arrival: Arrival) {
        let socket = Socket::from(arrival.socket);
        let begun = u64::from(!arrival.held.is_empty());
        let Some(place) = self.gate.enter() else {
            self.counts.refused += 1;
            self.cut(begun);
            self.gate.say_full(Peer(&socket));
            return;
        };
        let parts = match self.parting {
            Parting::Lines { max } => {
                let (framing, long) = Framing::resume(max, arrival.held, arrival.skipping);
                self.counts.long_lines += long;
                Parts::Lines(framing)
            }
            Parting::Lengths { max } => match Frames::resume(max, arrival.held) {
                Ok(frames) => Parts::Lengths(frames),
                Err(BadLength(length)) => {
                    self.counts.bad_lengths += 1;
                    self.gate.say_bad_length(length, Peer(&socket));
                    return;
                }
            },
        };
        let added = socket
            .set_nonblocking(true)
            .and_then(|()| self.add(socket, parts, place));
        if let Err(error) = added {
            self.counts.resets += 1;
            self.cut(begun);
            self.gate.say_cut(&error);
        }
    }

    /// The open connections.
    pub(in crate::ingest) fn connections(&self) -> impl Iterator<Item = Open<'_>> {
        self.connections.iter().flatten().map(|connection| {
            let (held, skipping) = match &connection.parts {
                Parts::Lines(framing) => framing.so_far(),
                Parts::Lengths(frames) => (frames.so_far(), false),
            };
            Open {
                socket: connection.socket.as_fd(),
                held,
                skipping,
            }
        })
    }

    pub(in crate::ingest) fn seat(&self) -> Seat {
        Seat {
            bound: self.door.bound.clone(),
            file: self.door.file.clone(),
            arrivals: Some(self.arrivals.0.clone()),
        }
    }

    /// Leaves the listening socket alone for a while: it stays readable, and waiting for it would not wait.
    fn rest(&mut self, error: &io::Error) {
        self.counts.accept_errors += 1;
        self.gate.say_accept_error(error);
        if self.poll.remove(self.door.bound.socket.as_fd()).is_ok() {
            self.door_rests = Some(Instant::now() + ACCEPT_PAUSE);
        }
    }

    fn reopen(&mut self) {
        let added = self
            .poll
            .add(self.door.bound.socket.as_fd(), DOOR, self.door.shared);
        self.door_rests = added.err().map(|_| Instant::now() + ACCEPT_PAUSE);
    }

    fn read(&mut self, token: usize, space: &mut Space<'_>) {
        let connection = self.connections[token]
            .as_mut()
            .expect("a closed socket has no events");
        let held = connection.parts.held();
        let free = &mut space.free()[..held + PIECE];
        match (&connection.socket).read(&mut free[held..]) {
            Ok(0) => {
                if let Parts::Lines(framing) = &mut connection.parts {
                    let length = framing.finish(free);
                    space.fill(0..length);
                }
            }
            Ok(count) => {
                self.more |= count == PIECE;
                match &mut connection.parts {
                    Parts::Lines(framing) => {
                        let whole = framing.take(&mut free[..held + count]);
                        if whole.long > 0 {
                            self.counts.long_lines += whole.long;
                            self.gate.say_long_line(Peer(&connection.socket));
                        }
                        space.fill(whole.lines);
                        return;
                    }
                    Parts::Lengths(frames) => {
                        let taken = space.fill_packets(frames, held + count);
                        let Err(BadLength(length)) = taken else {
                            return;
                        };
                        self.counts.bad_lengths += 1;
                        self.gate.say_bad_length(length, Peer(&connection.socket));
                    }
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                return;
            }
            // Reset, or no longer answering. The lines it sent before are ours all the same.
            Err(error) => {
                self.counts.resets += 1;
                if held > 0 {
                    self.gate.say_cut(&error);
                }
            }
        }
        self.close(token);
    }

    fn cut(&mut self, begun: u64) {
        match self.parting {
            Parting::Lines { .. } => self.counts.cut_lines += begun,
            Parting::Lengths { .. } => self.counts.cut_packets += begun,
        }
    }

    /// Closes a connection. A line it is still in the middle of is dropped: it has a value only at its end,
    /// and half of `12345|ms|@0.1` is another one. So is a packet.
    fn close(&mut self, token: usize) {
        let Some(connection) = self.connections[token].take() else {
            return;
        };
        self.cut(u64::from(connection.parts.held() > 0));
        drop(connection);
        self.free.push(token);
        if self.door_rests.is_some() {
            self.reopen();
        }
    }
}

impl Source for Streams {
    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn batch(&self) -> Batch {
        let held = match self.parting {
            Parting::Lines { max } => max,
            Parting::Lengths { max } => frames::LENGTH + max,
        };
        Batch::new(ROUND, held + PIECE)
    }

    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        if self.door_rests.is_some_and(|until| until <= Instant::now()) {
            self.reopen();
        }
        let at_most = if self.more {
            Some(Duration::ZERO)
        } else if self.brought {
            std::thread::sleep(NAP);
            Some(Duration::ZERO)
        } else {
            self.door_rests
                .map(|until| until.saturating_duration_since(Instant::now()))
        };
        self.round(batch, at_most).map(drop)
    }

    fn drain(&mut self, batch: &mut Batch) -> io::Result<bool> {
        self.round(batch, Some(Duration::ZERO))
    }

    fn has_more(&self) -> bool {
        self.more
    }

    fn finish(&mut self) -> bool {
        let somebody_waits = self.door_rests.is_some();
        for token in 0..self.connections.len() {
            // There is something only when the time was up before all was read.
            if let Some(connection) = &self.connections[token] {
                // So that a client of this machine adds nothing to what is counted. TCP has no such way.
                let _ = connection.socket.shutdown(Shutdown::Read);
                let unread = socket::unread(connection.socket.as_fd()).unwrap_or(0);
                self.counts.unread_bytes += unread as u64;
            }
            self.close(token);
        }
        if self.door_rests.is_some() {
            self.reopen();
        }
        somebody_waits
    }

    fn turn_away(&mut self) {
        if self.door.bound.lasting {
            return;
        }
        // As many as can wait. Whoever comes later than that finds nobody.
        for _ in 0..BACKLOG {
            match SockRef::from(&self.door.bound.socket).accept() {
                Ok(_) => self.counts.refused += 1,
                Err(error) if sys::is_of_one_connection(&error) => {}
                Err(_) => return,
            }
        }
    }

    fn account(&mut self, tally: &mut Tally) {
        tally.streams.add(&mem::take(&mut self.counts));
    }
}
