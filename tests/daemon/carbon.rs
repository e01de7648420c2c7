//! A carbon that believes nothing: every flush is checked line by line before a test sees it.

use super::log::DEADLINE;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// The four lines stamped when the connection opens; all others carry the time of the flush.
const STAMPED_AT_CONNECT: [&str; 4] = [
    "graphiteStats.last_exception",
    "graphiteStats.last_flush",
    "graphiteStats.flush_time",
    "graphiteStats.flush_length",
];

/// Accepts one connection a flush on a port of its own and hands each flush over, parsed.
pub(crate) struct FakeCarbon {
    port: u16,
    flushes: Receiver<Result<Lines, String>>,
}

impl FakeCarbon {
    /// Listens on 127.0.0.1.
    pub(crate) fn start() -> Self {
        Self::accept_on(TcpListener::bind("127.0.0.1:0").expect("a port for carbon"))
    }

    /// Accepts on a listener that a test prepared.
    pub(crate) fn accept_on(listener: TcpListener) -> Self {
        let port = listener
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        let (sender, flushes) = mpsc::channel();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut payload = Vec::new();
                let read = connection.and_then(|mut c| c.read_to_end(&mut payload));
                let flush = match read {
                    Ok(_) => Lines::parse(payload),
                    Err(error) => Err(format!("the connection broke: {error}")),
                };
                // The test is over when nobody listens any more.
                if sender.send(flush).is_err() {
                    return;
                }
            }
        });
        Self { port, flushes }
    }

    /// Where the daemon has to send to.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The next flush; fails when none comes or when it is malformed.
    pub(crate) fn next(&self) -> Flush {
        sound(self.next_lines().unique())
    }

    /// The next flush, in which a name may be there twice; fails when none comes or when it is malformed.
    pub(crate) fn next_lines(&self) -> Lines {
        match self.flushes.recv_timeout(DEADLINE) {
            Ok(lines) => sound(lines),
            Err(error) => panic!("no flush reached carbon within {DEADLINE:?}: {error}"),
        }
    }

    /// The next flush, if one comes within that time.
    pub(crate) fn next_within(&self, limit: Duration) -> Option<Lines> {
        self.flushes.recv_timeout(limit).ok().map(sound)
    }

    /// The flushes nobody has asked for yet, oldest first.
    pub(crate) fn waiting(&self) -> Vec<Lines> {
        self.flushes.try_iter().map(sound).collect()
    }
}

fn sound<T>(flush: Result<T, String>) -> T {
    flush.unwrap_or_else(|problem| panic!("malformed flush: {problem}"))
}

/// The content of one connection as it came.
#[derive(Debug)]
pub(crate) struct Lines {
    /// Metric names, each with the exact text of its value, in the order sent.
    pub(crate) values: Vec<(String, String)>,
    /// Unix time in seconds that the flush is stamped with.
    pub(crate) timestamp: u64,
    /// Bytes it came in.
    pub(crate) length: usize,
    /// When all of it was there.
    pub(crate) arrived: Instant,
}

/// The content of one connection.
#[derive(Debug)]
pub(crate) struct Flush {
    /// Metric name to the exact text of its value.
    pub(crate) values: BTreeMap<String, String>,
    /// Unix time in seconds that the flush is stamped with.
    pub(crate) timestamp: u64,
    /// Bytes it came in.
    pub(crate) length: usize,
}

impl Flush {
    /// The value of `name` as a number; fails when the name is not there.
    pub(crate) fn number(&self, name: &str) -> f64 {
        let text = self.values.get(name);
        let text = text.unwrap_or_else(|| panic!("{name} is missing in {:#?}", self.values));
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, no number"))
    }

    /// The count of a counter, as legacy names have it.
    pub(crate) fn count(&self, counter: &str) -> f64 {
        self.number(&format!("stats_counts.{counter}"))
    }

    /// What a payload says; the first thing that is wrong with it is the error.
    pub(crate) fn parse(payload: Vec<u8>) -> Result<Self, String> {
        Lines::parse(payload)?.unique()
    }
}

impl Lines {
    fn parse(payload: Vec<u8>) -> Result<Self, String> {
        let length = payload.len();
        let text = String::from_utf8(payload).map_err(|error| error.to_string())?;
        let Some(body) = text.strip_suffix('\n') else {
            return Err(format!("the payload does not end in a newline: {text:?}"));
        };
        let mut values = Vec::new();
        let mut timestamp = None;
        for line in body.split('\n') {
            // From the right: with sanitising off a tag may hold blanks.
            let mut fields = line.rsplitn(3, ' ');
            let (Some(time), Some(value), Some(name)) =
                (fields.next(), fields.next(), fields.next())
            else {
                return Err(format!("not `name value time`: {line:?}"));
            };
            let well_formed = !value.is_empty() && time.bytes().all(|b| b.is_ascii_digit());
            let Some(seconds) = time.parse::<u64>().ok().filter(|_| well_formed) else {
                return Err(format!("not `name value time`: {line:?}"));
            };
            let at_connect = STAMPED_AT_CONNECT.iter().any(|n| name.contains(n));
            if !at_connect && *timestamp.get_or_insert(seconds) != seconds {
                return Err(format!("another timestamp than the lines before: {line:?}"));
            }
            values.push((name.to_owned(), value.to_owned()));
        }
        let timestamp = timestamp.ok_or("no line carries the time of the flush")?;
        Ok(Self {
            values,
            timestamp,
            length,
            arrived: Instant::now(),
        })
    }

    /// The same by name; a name that is there twice is a fault.
    fn unique(self) -> Result<Flush, String> {
        let mut values = BTreeMap::new();
        for (name, value) in self.values {
            if let Some(first) = values.insert(name.clone(), value) {
                return Err(format!("twice in one flush: {name}, the first is {first}"));
            }
        }
        Ok(Flush {
            values,
            timestamp: self.timestamp,
            length: self.length,
        })
    }
}

/// A TCP socket that owns a port and refuses connections until it listens. Little fits into it unread:
/// small segments and a small window.
pub(crate) fn deaf_socket() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a TCP socket");
    socket
        .set_tcp_mss(536)
        .expect("the segment size can be set");
    socket
        .set_recv_buffer_size(4096)
        .expect("the window can be set");
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any_port.into()).expect("a free port");
    let address = socket.local_addr().expect("a bound socket has an address");
    (socket, address.as_socket().expect("an IP address"))
}
