//! Connections of the admin interface: commands in, replies out.

use super::Clerk;
use super::commands::Commands;
use crate::runtime::clock::{monotonic_ms, monotonic_ns};
use crate::runtime::rate_limit::{RateLimit, more};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longest command, in bytes: room for a deletion of hundreds of names.
const COMMAND_MAX: usize = 64 << 10;
/// How long a client may take nothing of a reply before it is given up.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// Every open connection.
#[derive(Debug)]
pub(super) struct Connections {
    max: usize,
    next: AtomicU64,
    /// Threads that serve one, those included whose connection was closed to make room.
    served: AtomicUsize,
    open: Mutex<Vec<Open>>,
    evicted: RateLimit,
}

/// One connection, as others see it.
#[derive(Debug)]
struct Open {
    number: u64,
    stream: TcpStream,
    /// When it last sent something, `monotonic_ns`.
    active_ns: Arc<AtomicU64>,
}

impl Connections {
    /// None yet, and at most so many.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            next: AtomicU64::new(0),
            served: AtomicUsize::new(0),
            open: Mutex::default(),
            evicted: RateLimit::new(),
        }
    }

    /// Serves a connection in a thread of its own. When there are too many, the one that has been
    /// silent longest goes.
    ///
    /// # Errors
    /// When the system has no thread or descriptor to give; the connection is closed then.
    pub(super) fn open(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        clerk: Arc<impl Clerk>,
    ) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(WRITE_MAX))?;
        let active_ns = Arc::new(AtomicU64::new(monotonic_ns()));
        // Relaxed: it only numbers.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let known = Open {
            number,
            stream: stream.try_clone()?,
            active_ns: active_ns.clone(),
        };
        let connections = self.clone();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that were closed to make room may still wait for an answer.
        if self.served.load(Ordering::Relaxed) >= 2 * self.max {
            self.say("closed at once");
            return Ok(());
        }
        self.served.fetch_add(1, Ordering::Relaxed);
        let served = Served(connections, number);
        open.push(known);
        if open.len() > self.max
            && let Some(at) =
                (0..open.len() - 1).min_by_key(|at| open[*at].active_ns.load(Ordering::Relaxed))
        {
            let _ = open.swap_remove(at).stream.shutdown(Shutdown::Both);
            self.say("the one silent longest was closed");
        }
        // Known before it can end; without a thread it ends here.
        drop(open);
        std::thread::Builder::new()
            .name(format!("admin-{number}"))
            .spawn(move || {
                let _served = served;
                if let Err(error) = serve(stream, &active_ns, &*clerk) {
                    log::debug!("admin connection from {peer}: {error}, moving on");
                }
            })?;
        Ok(())
    }

    fn say(&self, what: &str) {
        if let Some(suppressed) = self.evicted.pass(monotonic_ms()) {
            log::warn!(
                "the admin interface has {} connections open, the limit; {what}; raise `mgmt_connections` \
                 if they are all wanted{}",
                self.max,
                more(suppressed)
            );
        }
    }

    fn forget(&self, number: u64) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| connection.number != number);
    }

    /// Ends every connection.
    pub(super) fn close_all(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in open.iter() {
            // It may be closed already.
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
    }
}

/// A connection that is served; at its end, by a panic too, it is known no more.
struct Served(Arc<Connections>, u64);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.forget(self.1);
        // Relaxed, as all of `served`: it only counts, and one more or less makes no difference.
        self.0.served.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads commands and answers them until the client goes.
fn serve(mut stream: TcpStream, active_ns: &AtomicU64, clerk: &impl Clerk) -> io::Result<()> {
    let mut commands = Commands::new(COMMAND_MAX);
    let mut chunk = [0; 4096];
    loop {
        let quiet = clerk.quiet(commands.begun());
        stream.set_read_timeout(quiet)?;
        match stream.read(&mut chunk) {
            Ok(0) => {
                if !commands.begun().is_empty() {
                    answer(&mut stream, commands.begun(), clerk)?;
                }
                return Ok(());
            }
            Ok(count) => commands.take(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if quiet.is_some() && is_timeout(&error) => commands.take(b"\n"),
            Err(error) => return Err(error),
        }
        // Relaxed: a hint for who goes first when there are too many.
        active_ns.store(monotonic_ns(), Ordering::Relaxed);
        while let Some(line) = commands.whole() {
            if !answer(&mut stream, &line, clerk)? {
                return Ok(());
            }
        }
        if commands.is_too_long() {
            return stream.write_all(b"ERROR\n");
        }
    }
}

/// Answers one command; `false` when it was the last.
fn answer(stream: &mut TcpStream, line: &[u8], clerk: &impl Clerk) -> io::Result<bool> {
    match clerk.reply(&String::from_utf8_lossy(line)) {
        Some(reply) => stream.write_all(&reply).map(|()| true),
        None => Ok(false),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
