//! The repeater: every packet received goes out again, as it came, to other servers.
//!
//! ```text
//! workers --Copied--> repeater --Arc<Copied>--> a thread for each target --> network
//!      \______________ emptied buffers ______________/
//! ```
//!
//! Both queues are bounded and nobody waits at their ends: a worker drops what finds no room, and so
//! does the middle, for that target alone. So a target that is slow, away or without an address costs
//! its own copies and nobody else anything. Of each copy it is known what became of it:
//! datagrams * targets = sent + dropped. What the system took counts as sent; whether it arrives, nobody
//! can tell.

mod tcp;
mod udp;

use super::sink;
use crate::metric::copied::{self, Copied, Empties, Feed, Inlet, Limits, Outlet};
use crate::metric::meter::Outside;
use crate::runtime::clock::monotonic_ms;
use crate::runtime::rate_limit::RateLimit;
use crossbeam::channel::{Receiver, bounded};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Where to, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Who gets a copy (`repeater`).
    pub targets: Vec<Target>,
    /// How they get it (`repeaterProtocol`).
    pub protocol: Protocol,
}

/// One server that gets a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// How copies travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// A datagram for each packet, over IPv4.
    #[default]
    Udp4,
    /// The same over IPv6.
    Udp6,
    /// The packet and a newline, over a connection that stays.
    Tcp,
}

impl Protocol {
    /// Its name in the config file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp4 => "udp4",
            Self::Udp6 => "udp6",
            Self::Tcp => "tcp",
        }
    }
}

/// What may wait on each of the ways: between the workers and the middle, and for each target.
const WAITING: Limits = Limits {
    batches: 1024,
    bytes: 16 << 20,
};

/// How copies get to one target.
trait Way {
    /// Resolves the name or connects, where that is to be done and its time has come.
    fn begin(&mut self, troubles: &mut Troubles);

    /// Sends the datagrams in order. Returns how many the system took: the rest is lost.
    fn send(&mut self, copied: &Copied, troubles: &mut Troubles) -> u64;
}

/// The running repeater.
#[derive(Debug)]
pub struct Repeater {
    feed: Option<Feed>,
    middle: Running,
    branches: Vec<Runner>,
}

#[derive(Debug)]
struct Runner {
    name: String,
    /// Copies handed to it that were neither sent nor dropped yet.
    open: Arc<AtomicU64>,
    running: Running,
}

/// A thread that ends on its own.
#[derive(Debug)]
struct Running {
    /// Closed when it is through.
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Running {
    fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (closes_when_done, done) = bounded::<()>(0);
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            let _closes_when_done = closes_when_done;
            body();
        })?;
        Ok(Self { done, thread })
    }

    /// Waits for its end, at most until the deadline; `false` when that came first.
    fn finish(self, name: &str, deadline: Instant) -> bool {
        if (self.done.recv_deadline(deadline)).is_err_and(|error| error.is_timeout()) {
            return false;
        }
        if self.thread.join().is_err() {
            log::error!("{name}: its thread panicked; copies may be lost");
        }
        true
    }
}

/// One target as the middle sees it.
struct Branch {
    inlet: Inlet<Arc<Copied>>,
    open: Arc<AtomicU64>,
}

/// Starts a thread for each target and one that hands every copy to all of them; `None` without a target.
///
/// # Errors
/// When the system has no thread to give.
pub fn start(options: &Options, outside: &Arc<Outside>) -> io::Result<Option<Repeater>> {
    if options.targets.is_empty() {
        log::warn!(
            "repeater: there is no target, nothing is repeated; write \
             repeater: [{{ host: \"other.example.org\", port: 8125 }}]"
        );
        return Ok(None);
    }
    let (feed, copies, empties) = Feed::new(options.targets.len(), WAITING);
    let (mut runners, mut branches) = (Vec::new(), Vec::new());
    for target in &options.targets {
        let (inlet, outlet) = copied::queue(WAITING);
        let open = Arc::new(AtomicU64::new(0));
        branches.push(Branch {
            inlet,
            open: open.clone(),
        });
        let Target { host, port } = target;
        let name = format!("repeater: {} {host}:{port}", options.protocol.name());
        let troubles = Troubles::new(name.clone(), outside.clone());
        let settle = Settle {
            open: open.clone(),
            empties: empties.clone(),
            outside: outside.clone(),
        };
        let (target, protocol) = (target.clone(), options.protocol);
        let running = Running::spawn("repeater-out", move || match protocol {
            Protocol::Udp4 => settle.all(udp::Udp::new(target, false), troubles, &outlet),
            Protocol::Udp6 => settle.all(udp::Udp::new(target, true), troubles, &outlet),
            Protocol::Tcp => settle.all(tcp::Tcp::new(target), troubles, &outlet),
        })?;
        runners.push(Runner {
            name,
            open,
            running,
        });
    }
    let dropped = outside.clone();
    let middle = Running::spawn("repeater", move || {
        hand_out(&copies, &branches, &empties, &dropped);
    })?;
    Ok(Some(Repeater {
        feed: Some(feed),
        middle,
        branches: runners,
    }))
}

/// Gives every batch to every target that has room for it.
fn hand_out(copies: &Outlet<Copied>, branches: &[Branch], empties: &Empties, outside: &Outside) {
    while let Some(copied) = copies.take() {
        let (count, bytes) = (copied.count() as u64, copied.bytes());
        let copied = Arc::new(copied);
        for Branch { inlet, open } in branches {
            // Relaxed: a count, read for good when the thread is done or given up.
            open.fetch_add(count, Ordering::Relaxed);
            if inlet.offer(copied.clone(), bytes).is_err() {
                open.fetch_sub(count, Ordering::Relaxed);
                outside.copies_dropped.add(count);
            }
        }
        give_back(empties, copied);
    }
}

/// The last one who has done with a batch gives its buffer back.
fn give_back(empties: &Empties, copied: Arc<Copied>) {
    if let Some(copied) = Arc::into_inner(copied) {
        copied::recycle(empties, copied);
    }
}

/// Where it is written what became of the copies for one target.
struct Settle {
    open: Arc<AtomicU64>,
    empties: Empties,
    outside: Arc<Outside>,
}

impl Settle {
    /// Sends everything that comes.
    fn all(&self, mut way: impl Way, mut troubles: Troubles, copies: &Outlet<Arc<Copied>>) {
        // A target that cannot be reached is better known before there is something to lose.
        way.begin(&mut troubles);
        while let Some(copied) = copies.take() {
            let count = copied.count() as u64;
            let sent = way.send(&copied, &mut troubles);
            self.outside.copies_sent.add(sent);
            self.outside.copies_dropped.add(count - sent);
            self.open.fetch_sub(count, Ordering::Relaxed);
            give_back(&self.empties, copied);
        }
    }
}

impl Repeater {
    /// Where workers offer their batches. It is given away once: when all its clones are gone, the
    /// repeater sends what it has and ends.
    pub fn feed(&mut self) -> Option<Feed> {
        self.feed.take()
    }

    /// Waits until everything handed over is sent, at most until the deadline; what is left then is
    /// counted as dropped.
    pub fn finish(mut self, deadline: Instant, outside: &Outside) {
        drop(self.feed.take());
        self.middle.finish("repeater", deadline);
        for Runner {
            name,
            open,
            running,
        } in self.branches
        {
            if !running.finish(&name, deadline) {
                let left = open.load(Ordering::Relaxed);
                outside.copies_dropped.add(left);
                log::error!(
                    "{name}: copies not sent before the stop deadline and lost: {left}; a longer \
                     `stopDeadline` gives it more time"
                );
            }
        }
        log::info!(
            "repeater: {} copies sent, {} dropped",
            outside.copies_sent.total(),
            outside.copies_dropped.total()
        );
    }
}

/// What one target's errors come to: counted, and said at most once a minute.
struct Troubles {
    /// Which target, for messages.
    name: String,
    outside: Arc<Outside>,
    complaints: RateLimit,
    /// When the trouble began that was said last and is not over.
    since: Option<Instant>,
}

impl Troubles {
    fn new(name: String, outside: Arc<Outside>) -> Self {
        Self {
            name,
            outside,
            complaints: RateLimit::new(),
            since: None,
        }
    }

    /// Errors that nothing is known of but that they were.
    fn count(&self, errors: u64) {
        self.outside.copy_errors.add(errors);
    }

    fn met(&mut self, error: &io::Error) {
        self.count(1);
        if let Some(suppressed) = self.complaints.pass(monotonic_ms()) {
            self.since.get_or_insert_with(Instant::now);
            let more = if suppressed == 0 {
                String::new()
            } else {
                format!(" [{suppressed} more since the last report]")
            };
            log::error!(
                "{}: copies are lost: {error}; {}{more}",
                self.name,
                sink::hint(error, "repeater and repeaterProtocol")
            );
        }
    }

    /// The target takes copies again.
    fn over(&mut self) {
        if let Some(since) = self.since.take() {
            log::info!(
                "{} is back after {} s",
                self.name,
                since.elapsed().as_secs()
            );
        }
    }
}
