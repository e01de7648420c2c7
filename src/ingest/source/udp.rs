//! UDP: one `SO_REUSEPORT` socket a worker; drain, nap, drain.
//!
//! Being woken for each datagram costs more than the datagram. So a worker takes all there is, naps
//! for as long as the buffer surely holds, takes all there is again, and only blocks when a nap
//! brought nothing. Figures in tuning.md.

use super::Source;
use crate::ingest::packet::{Batch, Filled};
use crate::runtime::sys;
use crate::runtime::sys::receive::Headers;
use crate::runtime::sys::socket;
use crate::runtime::sys::wake::Waker;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// One UDP listener: every worker of it binds its own `SO_REUSEPORT` socket.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Name or address to bind; `None` is every address of the family.
    pub address: Option<String>,
    /// Port; 0 lets the kernel choose one, the same for every worker.
    pub port: u16,
    /// Use an IPv6 socket; without an address it is dual stack and takes IPv4 too (`address_ipv6`).
    pub ipv6: bool,
    /// Receive buffer to ask of the kernel for each socket, in bytes as setsockopt(2) takes them.
    pub receive_buffer: usize,
    /// Longest datagram taken whole, in bytes; a longer one is cut and counted as truncated.
    pub max_datagram: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: None,
            port: 8125,
            ipv6: false,
            receive_buffer: 16 << 20,
            max_datagram: 65_535,
        }
    }
}

/// What binding a listener came to.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens; the real port, when 0 was asked.
    pub address: SocketAddr,
    /// One source for each worker.
    pub sources: Vec<Udp>,
    /// Receive buffer asked for, bytes.
    pub asked: usize,
    /// Receive buffer the kernel gave, in the same unit.
    pub granted: usize,
}

/// Why a listener could not be bound: likely cause and way out in one line.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on udp {address}: {error}; {hint}")]
pub struct BindError {
    address: String,
    error: io::Error,
    hint: &'static str,
}

/// Binds `workers` sockets to the same address.
///
/// # Errors
/// When the address does not resolve, is not this machine's, is taken, or may not be bound.
pub fn bind(options: &Options, workers: usize) -> Result<Listener, BindError> {
    let shown = || {
        format!(
            "{}:{}",
            options.address.as_deref().unwrap_or("*"),
            options.port
        )
    };
    let fail = |error: io::Error| BindError {
        address: shown(),
        hint: hint(&error),
        error,
    };
    let mut address = resolve(options).map_err(fail)?;
    // SO_REUSEPORT lets any process of this user join silently and take a share of the datagrams,
    // so a second daemon would go unnoticed. A socket without it finds whoever is there.
    address = open(address, false)
        .and_then(|probe| probe.local_addr())
        .map_err(fail)?;
    let sockets: Vec<UdpSocket> = (0..workers)
        .map(|_| open(address, true))
        .collect::<Result<_, _>>()
        .map_err(fail)?;
    let asked = options.receive_buffer;
    let mut granted = asked;
    let mut sources = Vec::with_capacity(workers);
    for socket in sockets {
        granted = granted.min(grow_receive_buffer(&socket, asked).map_err(fail)?);
        sources.push(Udp::new(socket).map_err(fail)?);
    }
    Ok(Listener {
        address,
        sources,
        asked,
        granted,
    })
}

fn resolve(options: &Options) -> io::Result<SocketAddr> {
    let Some(name) = &options.address else {
        let any = if options.ipv6 {
            IpAddr::from(Ipv6Addr::UNSPECIFIED)
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        return Ok(SocketAddr::new(any, options.port));
    };
    let found: Vec<_> = (name.as_str(), options.port).to_socket_addrs()?.collect();
    let wanted = found
        .iter()
        .find(|address| address.is_ipv6() == options.ipv6);
    wanted
        .or(found.first())
        .copied()
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

fn open(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Asks for the buffer, beyond the system's limit where we may, and reads back what came of it:
/// the kernel cuts in silence.
fn grow_receive_buffer(socket: &UdpSocket, bytes: usize) -> io::Result<usize> {
    let socket = socket2::SockRef::from(socket);
    if socket::force_receive_buffer(socket.as_fd(), bytes).is_err() {
        socket.set_recv_buffer_size(bytes)?;
    }
    // The kernel doubles what it is asked, to cover its own bookkeeping.
    Ok(socket.recv_buffer_size()? / 2)
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        _ if sys::is_out_of_descriptors(error) => {
            "every worker needs two descriptors; raise the limit (see: ulimit -n) or lower `threads`"
        }
        io::ErrorKind::AddrInUse => {
            "another process listens there (see: ss -lunp), or another listener of this file does (`::` \
             takes IPv4 too); stop it or choose another `port`"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address (see: ip addr); check `address`"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher `port` or grant it"
        }
        io::ErrorKind::Unsupported => {
            "this machine may have IPv6 switched off; drop `address_ipv6`"
        }
        _ => "check that `address` is a name or address of this machine",
    }
}

/// Longest nap between two drains. Longer saves little more; see tuning.md.
const NAP_MAX: Duration = Duration::from_micros(500);
/// Below this a nap is not worth the two system calls.
const NAP_MIN: Duration = Duration::from_micros(20);

/// One socket of a listener.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
    waker: Waker,
    headers: Option<Headers>,
    /// Size of the receive buffer as the kernel accounts it.
    buffer: u64,
    drops_seen: u32,
    /// The last call filled the batch, so there is likely more.
    more: bool,
    /// Kernel memory of what the current drain took, bytes.
    drained: u64,
    /// When the drain before this one was over.
    last_empty: Instant,
}

impl Udp {
    fn new(socket: UdpSocket) -> io::Result<Self> {
        let accounts = socket::memory(socket.as_fd()).unwrap_or_default();
        Ok(Self {
            socket,
            waker: Waker::new()?,
            headers: None,
            buffer: u64::from(accounts.receive_buffer),
            drops_seen: accounts.drops,
            more: true,
            drained: 0,
            last_empty: Instant::now(),
        })
    }

    /// Ends the wait of the worker that owns this source.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn take(&mut self, batch: &mut Batch) -> io::Result<()> {
        let refill = batch.refill();
        let headers = self
            .headers
            .get_or_insert_with(|| Headers::new(refill.slots));
        let received = headers.receive(
            self.socket.as_fd(),
            refill.arena,
            refill.stride,
            refill.room,
        );
        let count = match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            result => result?,
        };
        for (slot, datagram) in headers.received(count).enumerate() {
            let start = slot * refill.stride;
            self.drained += kernel_memory(datagram.len);
            refill.filled.push(Filled {
                bytes: start..start + datagram.len,
                truncated: datagram.truncated,
            });
        }
        self.more = count == refill.slots;
        Ok(())
    }

    /// How long the socket can be left alone after a drain: as long as a quarter of the buffer
    /// takes to fill at the pace of that drain.
    fn nap(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let since = now - std::mem::replace(&mut self.last_empty, now);
        let drained = std::mem::take(&mut self.drained);
        if drained == 0 {
            return None;
        }
        let filling = since.as_secs_f64() * (self.buffer / 4) as f64 / drained as f64;
        Some(Duration::from_secs_f64(filling.min(NAP_MAX.as_secs_f64())))
    }
}

impl Source for Udp {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        if self.more {
            return self.take(batch);
        }
        if let Some(nap) = self.nap() {
            if nap >= NAP_MIN {
                std::thread::sleep(nap);
            }
            return self.take(batch);
        }
        self.waker.wait(self.socket.as_fd(), None)?;
        // However long that took, it says nothing about the pace of what comes now.
        self.last_empty = Instant::now();
        self.take(batch)
    }

    fn drain(&mut self, batch: &mut Batch) -> io::Result<()> {
        self.take(batch)
    }

    fn kernel_drops(&mut self) -> u64 {
        let Ok(accounts) = socket::memory(self.socket.as_fd()) else {
            return 0;
        };
        // The kernel's counter is 32 bits wide and wraps.
        let new = accounts.drops.wrapping_sub(self.drops_seen);
        self.drops_seen = accounts.drops;
        u64::from(new)
    }
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

    fn loopback(port: u16) -> Options {
        Options {
            address: Some("127.0.0.1".into()),
            port,
            ..Options::default()
        }
    }

    #[test]
    fn workers_share_one_port_and_a_second_daemon_is_refused() {
        let listener = bind(&loopback(0), 3).expect("bind");
        assert_eq!(listener.sources.len(), 3);
        assert_ne!(listener.address.port(), 0);
        let error = bind(&loopback(listener.address.port()), 1)
            .expect_err("taken")
            .to_string();
        assert!(
            error.starts_with(&format!("cannot listen on udp {}: ", listener.address)),
            "{error}"
        );
        assert!(error.contains("another process listens there"), "{error}");
    }

    #[test]
    fn a_foreign_address_is_refused_with_the_way_out() {
        let options = Options {
            address: Some("192.0.2.1".into()),
            ..loopback(0)
        };
        let error = bind(&options, 1).expect_err("not ours").to_string();
        assert!(
            error.contains("this machine has no such address"),
            "{error}"
        );
    }

    #[test]
    fn a_drain_brings_all_that_is_queued() {
        let mut listener = bind(&loopback(0), 1).expect("bind");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("bind");
        for n in 0..10u8 {
            sender.send_to(&[n], listener.address).expect("send");
        }
        let mut batch = Batch::new(4, 512);
        let mut taken = Vec::new();
        loop {
            listener.sources[0].drain(&mut batch).expect("receive");
            if batch.received() == 0 {
                break;
            }
            taken.extend(batch.packets().map(|packet| packet.bytes[0]));
        }
        assert_eq!(taken, (0..10).collect::<Vec<_>>());
        assert_eq!(listener.sources[0].kernel_drops(), 0);
    }
}
