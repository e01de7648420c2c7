//! The admin interface: a TCP console that shows and deletes values of the running interval. The proxy has
//! one too, with answers of its own.
//!
//! A thread accepts, and each connection has one of its own, so that a client that is slow or silent
//! holds up nobody else. There is a limit on them; past it the one that has been silent longest is
//! closed, so that a forgotten session cannot lock the door.

pub mod commands;
mod connection;
mod reply;

use crate::deliver::status::Status;
use crate::flush::question::Question;
use crate::runtime::clock::{Clock, monotonic_ms, rounded_seconds};
use crate::runtime::rate_limit::{RateLimit, more};
use crate::runtime::stop::Stop;
use crate::runtime::sys;
use crate::runtime::sys::wake::Waker;
use connection::Connections;
use crossbeam::channel::{Sender, bounded};
pub use reply::{health, quiet, words};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where it listens, and how it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Name or address to bind (`mgmt_address`).
    pub address: String,
    /// Port (`mgmt_port`); 0 lets the kernel choose one.
    pub port: u16,
    /// Connections open at once (`mgmt_connections`).
    pub connections: usize,
    /// First answer to `health` (`healthStatus`).
    pub healthy: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: "127.0.0.1".into(),
            port: 8126,
            connections: 32,
            healthy: true,
        }
    }
}

/// Rest after accepting failed, so that an error that stays does not become a busy loop.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Who answers the commands of an interface.
pub trait Clerk: Send + Sync + 'static {
    /// How long nothing more must follow for a text without a newline to be a command; `None` when it is the
    /// beginning of one at the most. The reference takes every segment for a whole command, and there are
    /// clients that send no newline.
    fn quiet(&self, pending: &[u8]) -> Option<Duration>;

    /// The reply to a line; `None` ends the connection.
    fn reply(&self, line: &str) -> Option<Vec<u8>>;
}

/// Why the interface could not be opened: likely cause and way out in one line.
#[derive(Debug, thiserror::Error)]
#[error("the admin interface cannot listen on tcp {address}: {error}; {hint}")]
pub struct BindError {
    address: String,
    error: io::Error,
    hint: &'static str,
}

/// What answers come from.
#[derive(Debug)]
pub struct Desk {
    clock: Clock,
    /// Start of the server, Unix seconds.
    started_s: i64,
    flusher: Sender<Question>,
    healthy: AtomicBool,
    backends: Mutex<Vec<Arc<Status>>>,
    config: Mutex<String>,
}

impl Desk {
    /// A desk of a server that starts now.
    pub fn new(clock: Clock, flusher: Sender<Question>, healthy: bool) -> Self {
        Self {
            started_s: rounded_seconds(clock.now_ms()),
            clock,
            flusher,
            healthy: AtomicBool::new(healthy),
            backends: Mutex::default(),
            config: Mutex::new("\n".into()),
        }
    }

    /// The backends that `stats` speaks of, from now on.
    pub fn show_backends(&self, statuses: Vec<Arc<Status>>) {
        *self.backends.lock().unwrap_or_else(PoisonError::into_inner) = statuses;
    }

    /// The reply to `config`, from now on.
    pub fn show_config(&self, reply: String) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = reply;
    }

    /// Asks the flusher; `None` when it is gone, since the server is stopping.
    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Question) -> Option<T> {
        let (answer, answered) = bounded(1);
        self.flusher.send(question(answer)).ok()?;
        answered.recv().ok()
    }
}

/// The interface, bound and not open yet.
#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
    listener: TcpListener,
    waker: Waker,
    connections: usize,
}

/// The open interface.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    stop: Stop,
    waker: Waker,
    connections: Arc<Connections>,
    accepting: JoinHandle<()>,
}

impl Door {
    /// Binds it, or takes the socket that was inherited, when `inherit` finds one at these addresses; nobody
    /// is let in yet.
    ///
    /// # Errors
    /// When the address does not resolve, is not this machine's, or is taken, or when the system has no
    /// descriptor to give.
    pub fn bind(
        options: &Options,
        inherit: impl FnOnce(&[SocketAddr]) -> Option<TcpListener>,
    ) -> Result<Self, BindError> {
        let fail = |error: io::Error| BindError {
            address: format!("{}:{}", options.address, options.port),
            hint: hint(&error),
            error,
        };
        let listener = bind(&options.address, options.port, inherit).map_err(fail)?;
        Ok(Self {
            address: listener.local_addr().map_err(fail)?,
            listener,
            waker: Waker::new().map_err(fail)?,
            connections: options.connections,
        })
    }

    /// Where it is, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its socket, for a successor.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn socket(&self) -> io::Result<TcpListener> {
        self.listener.try_clone()
    }

    /// Begins to accept.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn serve(self, clerk: Arc<impl Clerk>) -> io::Result<Admin> {
        let stop = Stop::default();
        let connections = Arc::new(Connections::new(self.connections));
        let (waker, listener) = (self.waker, self.listener);
        let accepting = {
            let (stop, waker, connections) = (stop.clone(), waker.clone(), connections.clone());
            std::thread::Builder::new()
                .name("admin".into())
                .spawn(move || accept(&listener, &stop, &waker, &connections, &clerk))?
        };
        Ok(Admin {
            address: self.address,
            stop,
            waker,
            connections,
            accepting,
        })
    }
}

impl Admin {
    /// Where it listens, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes it and every connection. Answers under way are cut off.
    pub fn stop(self) {
        self.stop.request();
        self.waker.wake();
        if self.accepting.join().is_err() {
            log::error!("the admin interface panicked");
        }
        self.connections.close_all();
    }
}

/// Binds the first address that the name stands for and that can be bound.
fn bind(
    address: &str,
    port: u16,
    inherit: impl FnOnce(&[SocketAddr]) -> Option<TcpListener>,
) -> io::Result<TcpListener> {
    // An address in brackets is how a URL would have it.
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(address);
    let addresses: Vec<SocketAddr> = (bare, port).to_socket_addrs()?.collect();
    let listener = match inherit(&addresses) {
        Some(listener) => listener,
        // SO_REUSEADDR comes with it: connections of an earlier run do not keep the port.
        None => TcpListener::bind(addresses.as_slice())?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn accept(
    listener: &TcpListener,
    stop: &Stop,
    waker: &Waker,
    connections: &Arc<Connections>,
    clerk: &Arc<impl Clerk>,
) {
    let complaints = RateLimit::new();
    while !stop.requested() {
        let accepted = match waker.wait(listener.as_fd(), None) {
            Ok(false) => continue,
            Ok(true) => listener.accept(),
            Err(error) => Err(error),
        };
        let opened = match accepted {
            Ok((stream, peer)) => connections.open(stream, peer, clerk.clone()),
            // It went away between the two calls.
            Err(error) if is_passing(&error) => continue,
            Err(error) => Err(error),
        };
        if let Err(error) = opened {
            if let Some(suppressed) = complaints.pass(monotonic_ms()) {
                log::warn!(
                    "the admin interface could not take a connection: {error}; {}{}",
                    hint(&error),
                    more(suppressed)
                );
            }
            std::thread::sleep(ACCEPT_ERROR_PAUSE);
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | Interrupted | WouldBlock)
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        _ if sys::is_out_of_descriptors(error) => {
            "raise the limit on open files (see: ulimit -n) or lower `mgmt_connections`"
        }
        io::ErrorKind::AddrInUse => {
            "another process listens there (see: ss -ltnp), perhaps another StatsD, or a listener of this \
             file does; stop it or choose another `mgmt_port`"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address (see: ip addr); check `mgmt_address`"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher `mgmt_port` or grant it"
        }
        _ => "check that `mgmt_address` is a name or address of this machine",
    }
}
