//! The ways out. A sink moves bytes and knows nothing of what they mean.

use crate::runtime::sys::socket::unacknowledged;
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long connecting to one address may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a peer may take nothing before it is given up.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// How long a peer may take to close a connection after us.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// The same for one that did not the last time: time enough for a reset.
const SILENT_MAX: Duration = Duration::from_millis(50);

/// Connects to the first address of `host` that answers.
///
/// # Errors
/// The last address's error, or the resolver's.
pub fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(stream) => {
                stream.set_write_timeout(Some(WRITE_MAX))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Closes our half and waits a second at most for the peer to close its own: then it has everything, if
/// it did not reset. One that says nothing has what its kernel acknowledges; whether it will ever read
/// it, nobody can tell. One that is `known_silent` is not waited for so long. Returns whether the peer
/// closed.
///
/// # Errors
/// When the peer resets, or its kernel takes nothing for ten seconds: what was sent last may be lost.
pub fn close(mut stream: TcpStream, known_silent: bool) -> io::Result<bool> {
    stream.shutdown(Shutdown::Write)?;
    let until = Instant::now() + if known_silent { SILENT_MAX } else { CLOSE_MAX };
    let mut closed = false;
    let mut waste = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut waste) {
            Ok(0) => {
                closed = true;
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
    // A reset that comes after the peer's end is told to nobody who reads.
    acknowledged(&mut stream, |stream| {
        stream.take_error()?.map_or(Ok(()), Err)
    })?;
    Ok(closed)
}

/// Waits until the peer's kernel has everything sent so far, as long as it goes on taking; asks again and
/// again whether the connection is `intact`.
fn acknowledged(
    stream: &mut TcpStream,
    mut intact: impl FnMut(&mut TcpStream) -> io::Result<()>,
) -> io::Result<()> {
    const NAP_MAX: Duration = Duration::from_millis(20);
    let mut nap = Duration::from_micros(50);
    let mut fewest = usize::MAX;
    let mut progress = Instant::now();
    loop {
        intact(stream)?;
        let left = unacknowledged(stream.as_fd())?;
        if left == 0 {
            return Ok(());
        }
        if left < fewest {
            (fewest, progress) = (left, Instant::now());
        } else if progress.elapsed() > WRITE_MAX {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // No event tells of an acknowledgement.
        std::thread::sleep(nap);
        nap = (nap * 2).min(NAP_MAX);
    }
}

/// A connection that stays open from one payload to the next.
///
/// A write only hands bytes to the kernel, and it goes on doing so for a while after the peer is gone.
/// So one asks [`Kept::settle`] before the next payload, and holds the last one ready until then.
#[derive(Debug)]
pub struct Kept {
    stream: TcpStream,
}

impl Kept {
    /// Connects as [`connect`] does.
    ///
    /// # Errors
    /// The same.
    pub fn connect(host: &str, port: u16) -> io::Result<Self> {
        let stream = connect(host, port)?;
        // A payload is one write; its end need not wait for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        // A machine that vanished says nothing: with bytes on their way the kernel gives the connection
        // up as a write does, and without any it asks, which keeps firewalls from forgetting it, too.
        socket.set_tcp_user_timeout(Some(WRITE_MAX))?;
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(60))
            .with_interval(WRITE_MAX);
        socket.set_tcp_keepalive(&keepalive)?;
        Ok(Self { stream })
    }

    /// Waits until the peer's kernel has everything sent so far.
    ///
    /// # Errors
    /// When the peer closed or reset the connection, or took nothing for ten seconds. What was sent
    /// last may be lost then.
    pub fn settle(&mut self) -> io::Result<()> {
        acknowledged(&mut self.stream, still_open)
    }

    /// Writes everything.
    ///
    /// # Errors
    /// When the peer resets, or takes nothing for ten seconds.
    pub fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.stream.write_all(payload)
    }

    /// Closes it as [`close`] does.
    ///
    /// # Errors
    /// The same.
    pub fn close(self) -> io::Result<()> {
        close(self.stream, false).map(drop)
    }
}

/// Looks for the peer's end, which stands behind whatever it may have sent.
fn still_open(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let end = read_to_end(stream);
    stream.set_nonblocking(false)?;
    match end {
        Ok(()) => Err(io::Error::new(
            io::ErrorKind::ConnectionReset,
            "the peer closed the connection",
        )),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads and forgets what a peer sends that should send nothing, a little at most.
fn read_to_end(stream: &mut TcpStream) -> io::Result<()> {
    let mut waste = [0; 4096];
    for _ in 0..64 {
        match stream.read(&mut waste) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// What most likely stands behind an error of [`connect`] or of sending, and what to do;
/// `setting` names the keys of the config file that say where to connect.
pub fn hint(error: &io::Error, setting: &str) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("likely cause: nothing listens there; start it, or correct {setting}")
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!(
                "likely cause: a firewall between, or a peer that hangs; look there, or correct {setting}"
            )
        }
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected => {
            format!(
                "likely cause: the peer closed the connection; see its log, or correct {setting}"
            )
        }
        // The resolver's errors carry no number of the system.
        _ if error.raw_os_error().is_none() => {
            format!(
                "likely cause: the name does not resolve; correct {setting}, or check the resolver"
            )
        }
        _ => format!("check the route to it, or correct {setting}"),
    }
}
