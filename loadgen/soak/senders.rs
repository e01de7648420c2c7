//! Who sends: a thread for each class, and some who mean no good. Each waits for what it is owed, so that
//! what was sent is known to the unit.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use socket2::SockRef;
use statsd_fast::runtime::sys::socket::unacknowledged;

use super::traffic::MAX_LINE;
use super::unit::{Class, Connections, Way};
use crate::random::Random;

/// Where the server listens.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    pub(crate) udp: SocketAddr,
    pub(crate) tcp: SocketAddr,
    /// A listener for those who crowd, so that they take nobody else's place.
    pub(crate) crowded: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) unix: PathBuf,
    pub(crate) gram: PathBuf,
    pub(crate) packets: PathBuf,
}

/// Connections a stream listener of the server holds.
pub(crate) const CONNECTIONS: usize = 64;

/// What every sender shares.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    pub(crate) doors: Doors,
    pub(crate) connections: &'a Connections,
    /// Units a second of each class.
    pub(crate) rate: u64,
    /// Names that are new each time, not drawn from a pool.
    pub(crate) churn: bool,
    pub(crate) stop: &'a AtomicBool,
}

/// Names in the pool.
const POOL: u32 = 2000;
/// Time between two bursts.
const BURST: Duration = Duration::from_millis(10);
/// How long the server may take to do what it owes: close, refuse, acknowledge.
const OWED_MAX: Duration = Duration::from_secs(60);
/// Units of one connection.
const UNITS: u64 = 50;

impl Shared<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps, in pieces so small that a stop is noticed.
    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(BURST));
        }
    }

    /// Sends a class until the stop.
    pub(crate) fn send(&self, class: &Class, random: &mut Random) -> anyhow::Result<()> {
        if class.way.is_datagrams() {
            self.datagrams(class, random)
        } else {
            self.streams(class, random)
        }
        .with_context(|| format!("class {}", class.name))
    }

    fn datagrams(&self, class: &Class, random: &mut Random) -> anyhow::Result<()> {
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        udp.connect(self.doors.udp)?;
        let gram = UnixDatagram::unbound()?;
        if class.way == Way::Gram {
            gram.connect(&self.doors.gram)?;
        }
        let begun = Instant::now();
        let (mut sent, mut fresh) = (0, 0_u64);
        while !self.stopped() {
            let due = begun.elapsed().as_millis() as u64 * self.rate / 1000;
            while sent < due {
                let number = random.below(class.units.len() as u32) as usize;
                let unit = &class.units[number];
                let mut bytes = unit.bytes.clone();
                if unit.fresh {
                    fresh += 1;
                    let name = if self.churn {
                        fresh
                    } else {
                        random.below(POOL).into()
                    };
                    write!(bytes, "soak.{}.fresh{name}:1|c", class.name)?;
                }
                // Noted before it is there, so that nobody sees more come than were sent.
                class.note(number);
                match class.way {
                    Way::Udp => udp.send(&bytes),
                    _ => gram.send(&bytes),
                }
                .context("the server does not take datagrams")?;
                sent += 1;
            }
            thread::sleep(BURST);
        }
        Ok(())
    }

    /// Now and then more datagrams at once than the server's buffer holds.
    pub(crate) fn flood(&self, class: &Class) -> anyhow::Result<()> {
        const DATAGRAMS: u32 = 2000;
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        udp.connect(self.doors.udp)?;
        while !self.stopped() {
            for _ in 0..DATAGRAMS {
                class.note(0);
                udp.send(&class.units[0].bytes)
                    .context("the server does not take datagrams")?;
            }
            self.pause(Duration::from_millis(500));
        }
        Ok(())
    }

    fn streams(&self, class: &Class, random: &mut Random) -> anyhow::Result<()> {
        let pause = Duration::from_millis(1000 * UNITS / self.rate.max(1));
        while !self.stopped() {
            let mut stream = self.connect(class.way)?;
            self.connections.note(&[("streams.accepted", 1)]);
            for _ in 0..UNITS {
                let number = random.below(class.units.len() as u32) as usize;
                let unit = &class.units[number];
                class.note(number);
                // In two pieces, parted anywhere.
                let bytes = self.framed(class.way, &unit.bytes);
                let (one, other) = bytes.split_at(random.below(bytes.len() as u32) as usize);
                stream.write_all(one)?;
                stream.write_all(other)?;
            }
            stream.until_closed()?;
            self.pause(pause);
        }
        Ok(())
    }

    fn framed(&self, way: Way, bytes: &[u8]) -> Vec<u8> {
        match way {
            Way::Packets => [&(bytes.len() as u32).to_le_bytes(), bytes].concat(),
            _ => bytes.to_vec(),
        }
    }

    fn connect(&self, way: Way) -> anyhow::Result<Stream> {
        let stream = match way {
            Way::Unix => Stream::Unix(UnixStream::connect(&self.doors.unix)?),
            Way::Packets => Stream::Unix(UnixStream::connect(&self.doors.packets)?),
            _ => Stream::Tcp(TcpStream::connect(self.doors.tcp)?),
        };
        Ok(stream)
    }

    /// One after the other, until the stop: a line byte by byte, a reset in the middle of a line, a line that
    /// is too long, and an end without a newline.
    pub(crate) fn foes(&self, class: &Class) -> anyhow::Result<()> {
        let ticket = &class.units[0].bytes;
        while !self.stopped() {
            // Slowly, and without the newline: a line all the same, since the end is in order.
            let mut slow = self.foe(class)?;
            for byte in &ticket[..ticket.len() - 1] {
                slow.write_all(&[*byte])?;
                thread::sleep(BURST);
            }
            Stream::Tcp(slow).until_closed()?;

            let mut torn = self.foe(class)?;
            torn.write_all(ticket)?;
            torn.write_all(b"soak.foes.torn:1")?;
            let until = Instant::now() + OWED_MAX;
            // What the server's kernel has is the server's, whatever comes behind.
            while unacknowledged(torn.as_fd())? > 0 {
                ensure!(Instant::now() < until, "what was sent is not acknowledged");
                thread::sleep(Duration::from_millis(1));
            }
            SockRef::from(&torn).set_linger(Some(Duration::ZERO))?;
            drop(torn);
            self.connections
                .note(&[("streams.resets", 1), ("streams.cut_lines", 1)]);

            let mut long = self.foe(class)?;
            long.write_all(&vec![b'x'; 3 * MAX_LINE])?;
            long.write_all(b"\n")?;
            long.write_all(ticket)?;
            self.connections.note(&[("streams.long_lines", 1)]);
            Stream::Tcp(long).until_closed()?;
        }
        Ok(())
    }

    fn foe(&self, class: &Class) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(self.doors.tcp)?;
        self.connections.note(&[("streams.accepted", 1)]);
        class.note(0);
        Ok(stream)
    }

    /// Packets behind lengths that lie, and packets whose connections end in the middle of them.
    pub(crate) fn frames(&self, class: &Class) -> anyhow::Result<()> {
        let packet = self.framed(Way::Packets, &class.units[0].bytes);
        while !self.stopped() {
            for (tail, meter) in [
                (&[0xff; 4][..], "streams.bad_lengths"),
                (&[9, 0, 0, 0, b'a'][..], "streams.cut_packets"),
            ] {
                let mut stream = UnixStream::connect(&self.doors.packets)?;
                self.connections
                    .note(&[("streams.accepted", 1), (meter, 1)]);
                class.note(0);
                stream.write_all(&packet)?;
                stream.write_all(tail)?;
                Stream::Unix(stream).until_closed()?;
            }
            self.pause(BURST);
        }
        Ok(())
    }

    /// More connections than the server holds. Those that it takes send something in the end.
    pub(crate) fn crowd(&self, class: &Class) -> anyhow::Result<()> {
        const TOO_MANY: usize = 20;
        while !self.stopped() {
            let connect = || TcpStream::connect(self.doors.crowded);
            let crowd: Vec<_> = (0..CONNECTIONS + TOO_MANY).map(|_| connect()).collect();
            let mut crowd: Vec<_> = crowd.into_iter().collect::<Result<_, _>>()?;
            crowd.iter().try_for_each(|it| it.set_nonblocking(true))?;
            let until = Instant::now() + OWED_MAX;
            // The server says nothing to those it takes.
            while crowd.len() > CONNECTIONS {
                ensure!(
                    Instant::now() < until,
                    "more connections than there are places"
                );
                crowd.retain_mut(|stream| {
                    let read = stream.read(&mut [0]);
                    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
                });
                thread::sleep(Duration::from_millis(1));
            }
            ensure!(
                crowd.len() == CONNECTIONS,
                "fewer are taken than there are places"
            );
            let (taken, refused) = (CONNECTIONS as u64, TOO_MANY as u64);
            self.connections
                .note(&[("streams.accepted", taken), ("streams.refused", refused)]);
            for mut stream in crowd {
                class.note(0);
                stream.set_nonblocking(false)?;
                stream.write_all(&class.units[0].bytes)?;
                Stream::Tcp(stream).until_closed()?;
            }
            self.pause(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Sessions of the admin interface that say nothing, that never end their line, and that do not read.
    pub(crate) fn sessions(&self) -> anyhow::Result<()> {
        while !self.stopped() {
            let connect = || TcpStream::connect(self.doors.admin);
            let silent: Vec<_> = (0..8).map(|_| connect()).collect::<Result<_, _>>()?;
            let mut endless = connect()?;
            endless.set_write_timeout(Some(Duration::from_secs(1)))?;
            // It may be closed in the middle of it.
            let _ = endless.write_all(&vec![b'x'; 1 << 20]);
            let mut deaf = connect()?;
            deaf.set_write_timeout(Some(Duration::from_secs(1)))?;
            for _ in 0..100 {
                let _ = deaf.write_all(b"meters\n");
            }
            let mut noisy = connect()?;
            let _ = noisy.write_all(b"\xff\0\x01 drops\nno such command\nquit\n");
            self.pause(Duration::from_millis(500));
            drop(silent);
        }
        Ok(())
    }
}

/// A connection of a friend.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// Says that this is all, and waits until the server has read it and closed, too.
    fn until_closed(self) -> anyhow::Result<()> {
        let read = match self {
            Self::Tcp(mut stream) => {
                stream.set_read_timeout(Some(OWED_MAX))?;
                stream
                    .shutdown(Shutdown::Write)
                    .and_then(|()| stream.read(&mut [0]))
            }
            Self::Unix(mut stream) => {
                stream.set_read_timeout(Some(OWED_MAX))?;
                stream
                    .shutdown(Shutdown::Write)
                    .and_then(|()| stream.read(&mut [0]))
            }
        };
        match read {
            Ok(0) => Ok(()),
            Ok(_) => anyhow::bail!("the server says something to who sends lines"),
            // It has closed with something unread, after a length that lies.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::NotConnected | ErrorKind::BrokenPipe
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error).context("the server does not close what has ended"),
        }
    }
}
