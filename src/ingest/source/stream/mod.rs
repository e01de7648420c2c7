//! Streams: TCP and unix stream sockets; lines ended by newlines, or packets behind their lengths.

pub mod frames;
pub mod framing;
mod gate;
mod streams;
#[cfg(test)]
mod tests;

pub use gate::kept_back;
pub use streams::{Open, Streams};

use super::bind::{self, BindError};
use super::inherited::{Bound, Group, Inherited};
use super::socket_file::{BACKLOG, SocketFile};
use super::{Address, AnySource, Capacity, Listener};
use crate::runtime::sys;
use gate::Gate;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// One stream listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where it listens.
    pub at: At,
    /// How what comes is parted.
    pub parting: Parting,
    /// Connections open at once, over all workers.
    pub max_connections: usize,
}

/// How a stream is parted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// By a newline behind each line.
    Lines {
        /// Longest line, in bytes; a longer one is dropped and counted.
        max: usize,
    },
    /// By the length before each packet, 32 bits, the lowest byte first: DogStatsD's way.
    Lengths {
        /// Longest packet, in bytes; one that is longer ends the connection, counted.
        max: usize,
    },
}

/// Where a stream listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// TCP.
    Tcp {
        /// Name or address to bind; `None` is every address, of IPv6 and IPv4.
        address: Option<String>,
        /// Port; 0 lets the kernel choose one.
        port: u16,
    },
    /// A unix stream socket.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Its file mode (`socket_mod`); `None` is what the umask leaves.
        mode: Option<u32>,
    },
}

/// Silence after which the kernel asks a peer of TCP whether it is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(120);
/// Time between such questions when none is answered.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
/// Questions without an answer that end a connection.
const KEEPALIVE_TIMES: u32 = 4;

/// What a worker needs to listen.
#[derive(Debug)]
struct Door {
    bound: Bound,
    /// Other workers wait for the same socket.
    shared: bool,
    /// Where a unix socket stands in the file system; removed by the last who has it.
    file: Option<Arc<SocketFile>>,
}

/// Binds the listener for `workers` workers: over TCP each has a `SO_REUSEPORT` socket of its own, a unix
/// socket is one that all of them accept from. Those that are inherited are taken as they are.
pub(super) fn bind(
    options: &Options,
    workers: usize,
    inherited: &mut Inherited,
) -> Result<Listener, BindError> {
    let (address, doors) = match &options.at {
        At::Tcp { address, port } => {
            let name = address.as_deref();
            let fail = |error| BindError::of_port("tcp", &bind::shown(name, *port), error);
            let wanted = wanted(name, *port).map_err(fail)?;
            let (bound, doors) = match inherited.take_at(false, &wanted) {
                Some(group) => {
                    let bound =
                        bind::local(&SockRef::from(&group.sockets[0].socket)).map_err(fail)?;
                    (bound, take_over(group, workers, None))
                }
                None => {
                    let (bound, sockets) = tcp(name, *port, workers).map_err(fail)?;
                    let door = |socket: Socket| Door {
                        bound: Bound::new(socket.into()),
                        shared: false,
                        file: None,
                    };
                    (bound, sockets.into_iter().map(door).collect())
                }
            };
            (Address::Tcp(bound), doors)
        }
        At::Unix { path, mode } => {
            let address = match options.parting {
                Parting::Lines { .. } => Address::Unix(path.clone()),
                Parting::Lengths { .. } => Address::Unixstream(path.clone()),
            };
            let doors = match inherited.take_path(true, path) {
                Some(group) => {
                    // The service manager removes its own.
                    let lasting = group.sockets.iter().any(|it| it.lasting);
                    let file = (!lasting).then(|| SocketFile::inherited(path));
                    take_over(group, workers, file.flatten())
                }
                None => unix(path, *mode, workers)?,
            };
            (address, doors)
        }
    };
    // The usual limit of 1024 is below what the connections allowed need. Where it cannot be raised,
    // accepting tells of it when it comes to that.
    let limit = sys::limit::raise_descriptors().unwrap_or(u64::MAX);
    let gate = Arc::new(Gate::new(&address, options, limit));
    let sources = doors.into_iter().map(|door: Door| {
        let source = Streams::new(door, options.parting, gate.clone())?;
        Ok(AnySource::Streams(source))
    });
    let sources = sources
        .collect::<io::Result<_>>()
        .map_err(|error| match &address {
            Address::Unix(path) | Address::Unixstream(path) => {
                BindError::of_path("unix", path, error)
            }
            address => BindError::of_port("tcp", &address.to_string(), error),
        })?;
    Ok(Listener {
        address,
        sources,
        capacity: Capacity::Streams {
            connections: options.max_connections,
            parting: options.parting,
        },
    })
}

/// The doors at sockets that somebody else has bound.
fn take_over(mut group: Group, workers: usize, file: Option<SocketFile>) -> Vec<Door> {
    group.spread(workers);
    let file = file.map(Arc::new);
    let door = |bound: &Bound| Door {
        shared: group.is_shared(bound),
        bound: bound.clone(),
        file: file.clone(),
    };
    group.sockets.iter().map(door).collect()
}

/// The addresses that sockets of TCP may be inherited at.
fn wanted(name: Option<&str>, port: u16) -> io::Result<Vec<SocketAddr>> {
    match name {
        Some(name) => Ok(vec![bind::resolve(name, port)?[0]]),
        None => Ok(vec![
            (Ipv6Addr::UNSPECIFIED, port).into(),
            (Ipv4Addr::UNSPECIFIED, port).into(),
        ]),
    }
}

fn tcp(name: Option<&str>, port: u16, workers: usize) -> io::Result<(SocketAddr, Vec<Socket>)> {
    let probe = match name {
        Some(name) => open(bind::resolve(name, port)?[0], false)?,
        None => open((Ipv6Addr::UNSPECIFIED, port).into(), false).or_else(|error| {
            // A machine may have no IPv6; then IPv4 is every address it has.
            match error.kind() {
                io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable => {
                    open((Ipv4Addr::UNSPECIFIED, port).into(), false)
                }
                _ => Err(error),
            }
        })?,
    };
    // As with UDP, a socket without SO_REUSEPORT finds whoever listens there. It never listens itself, so it
    // is in nobody's way, and it keeps the port ours until the workers' sockets have it.
    let address = bind::local(&probe)?;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = open(address, true)?;
        socket.listen(BACKLOG)?;
        sockets.push(socket);
    }
    Ok((address, sockets))
}

fn open(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Connections of the last run that are still in TIME_WAIT are no reason not to start.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
        // Connections accepted inherit it. Peers that went away without a word would keep theirs for ever.
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(KEEPALIVE_AFTER)
                .with_interval(KEEPALIVE_EVERY)
                .with_retries(KEEPALIVE_TIMES),
        )?;
        socket.set_nonblocking(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn unix(path: &Path, mode: Option<u32>, workers: usize) -> Result<Vec<Door>, BindError> {
    let fail = |error| BindError::of_path("unix", path, error);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(fail)?;
    let (socket, file) = SocketFile::bind(socket, Type::STREAM, path, mode)?;
    socket.set_nonblocking(true).map_err(fail)?;
    let (bound, file) = (Bound::new(socket.into()), Arc::new(file));
    let door = |_| Door {
        bound: bound.clone(),
        shared: workers > 1,
        file: Some(file.clone()),
    };
    Ok((0..workers).map(door).collect())
}
