//! Copies as text over a connection that stays: each datagram and a newline, as the reference does, which
//! adds one even where there is one already.

use super::{Target, Troubles, Way};
use crate::deliver::sink;
use crate::metric::copied::Copied;
use crate::runtime::sys::socket::is_closed_by_peer;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Rest before a connection is tried again; it doubles each time up to the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// One target.
pub(super) struct Tcp {
    target: Target,
    stream: Option<TcpStream>,
    backoff: Duration,
    connect_from: Instant,
    text: Vec<u8>,
    /// Where in the text each datagram ends, its newline included.
    ends: Vec<usize>,
}

impl Tcp {
    /// Not connected yet.
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            stream: None,
            backoff: BACKOFF_MIN,
            connect_from: Instant::now(),
            text: Vec::new(),
            ends: Vec::new(),
        }
    }

    fn failed(&mut self, error: &io::Error, troubles: &mut Troubles) {
        troubles.met(error);
        self.stream = None;
        self.connect_from = Instant::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }
}

impl Way for Tcp {
    fn begin(&mut self, troubles: &mut Troubles) {
        // What is written into a connection that the peer has closed vanishes, and nobody would know.
        self.stream
            .take_if(|stream| is_closed_by_peer(stream.as_fd()));
        if self.stream.is_none() && Instant::now() >= self.connect_from {
            match sink::connect(&self.target.host, self.target.port) {
                Ok(stream) => {
                    // Only a delay more or less: whole batches are written at once.
                    let _ = stream.set_nodelay(true);
                    self.stream = Some(stream);
                }
                Err(error) => self.failed(&error, troubles),
            }
        }
    }

    fn send(&mut self, copied: &Copied, troubles: &mut Troubles) -> u64 {
        self.begin(troubles);
        let Some(stream) = &mut self.stream else {
            return 0;
        };
        self.text.clear();
        self.ends.clear();
        for datagram in copied.datagrams() {
            self.text.extend_from_slice(datagram);
            self.text.push(b'\n');
            self.ends.push(self.text.len());
        }
        let (written, result) = write(stream, &self.text);
        match result {
            Ok(()) => {
                self.backoff = BACKOFF_MIN;
                troubles.over();
            }
            Err(error) => self.failed(&error, troubles),
        }
        self.ends.partition_point(|end| *end <= written) as u64
    }
}

/// Writes as much as the system takes, and says how much that was.
fn write(stream: &mut impl Write, text: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < text.len() {
        match stream.write(&text[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}
