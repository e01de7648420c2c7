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
use crate::runtime::rate_limit::{RateLimit, more};
use crossbeam::channel::{Receiver, bounded};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

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

/// How long handing out one batch may take.
const HAND_OUT_MAX: Duration = Duration::from_millis(100);

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
    /// The middle's end of its queue, for what it has not taken when the time is up.
    copies: Outlet<Copied>,
    branches: Vec<Runner>,
}

#[derive(Debug)]
struct Runner {
    name: String,
    account: Arc<Account>,
    running: Running,
}

/// What one target still owes: each copy is counted once, by its thread or by whoever gives it up.
#[derive(Debug)]
struct Account {
    /// Copies handed to it that were neither sent nor dropped yet; `None` once it is given up.
    open: Mutex<Option<u64>>,
    outside: Arc<Outside>,
}

impl Account {
    fn new(outside: Arc<Outside>) -> Self {
        Self {
            open: Mutex::new(Some(0)),
            outside,
        }
    }

    fn open(&self) -> MutexGuard<'_, Option<u64>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies are about to be handed over.
    fn add(&self, count: u64) {
        match &mut *self.open() {
            Some(open) => *open += count,
            None => self.outside.copies_dropped.add(count),
        }
    }

    /// Of so many handed over so many were sent and the rest was not.
    fn settle(&self, count: u64, sent: u64) {
        if let Some(open) = &mut *self.open() {
            *open -= count;
            self.outside.copies_sent.add(sent);
            self.outside.copies_dropped.add(count - sent);
        }
    }

    /// Counts what is open as dropped, and whatever comes; returns how much was open.
    fn give_up(&self) -> u64 {
        let left = self.open().take().unwrap_or(0);
        self.outside.copies_dropped.add(left);
        left
    }
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

    /// Whether it has ended, or does until the deadline.
    fn ends(&self, deadline: Instant) -> bool {
        !(self.done.recv_deadline(deadline)).is_err_and(|error| error.is_timeout())
    }

    /// Waits for its end, at most until the deadline; `false` when that came first.
    fn finish(self, name: &str, deadline: Instant) -> bool {
        if !self.ends(deadline) {
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
    account: Arc<Account>,
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
        let account = Arc::new(Account::new(outside.clone()));
        branches.push(Branch {
            inlet,
            account: account.clone(),
        });
        let Target { host, port } = target;
        let name = format!("repeater: {} {host}:{port}", options.protocol.name());
        let troubles = Troubles::new(name.clone(), outside.clone());
        let settle = Settle {
            account: account.clone(),
            empties: empties.clone(),
        };
        let (target, protocol) = (target.clone(), options.protocol);
        let running = Running::spawn("repeater-out", move || match protocol {
            Protocol::Udp4 => settle.all(udp::Udp::new(target, false), troubles, &outlet),
            Protocol::Udp6 => settle.all(udp::Udp::new(target, true), troubles, &outlet),
            Protocol::Tcp => settle.all(tcp::Tcp::new(target), troubles, &outlet),
        })?;
        runners.push(Runner {
            name,
            account,
            running,
        });
    }
    let taken = copies.clone();
    let middle = Running::spawn("repeater", move || {
        hand_out(&taken, &branches, &empties);
    })?;
    Ok(Some(Repeater {
        feed: Some(feed),
        middle,
        copies,
        branches: runners,
    }))
}

/// Gives every batch to every target that has room for it.
fn hand_out(copies: &Outlet<Copied>, branches: &[Branch], empties: &Empties) {
    while let Some(copied) = copies.take() {
        let (count, bytes) = (copied.count() as u64, copied.bytes());
        let copied = Arc::new(copied);
        for Branch { inlet, account } in branches {
            account.add(count);
            if inlet.offer(copied.clone(), bytes).is_err() {
                account.settle(count, 0);
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
    account: Arc<Account>,
    empties: Empties,
}

impl Settle {
    /// Sends everything that comes.
    fn all(&self, mut way: impl Way, mut troubles: Troubles, copies: &Outlet<Arc<Copied>>) {
        // A target that cannot be reached is better known before there is something to lose.
        way.begin(&mut troubles);
        while let Some(copied) = copies.take() {
            let sent = way.send(&copied, &mut troubles);
            self.account.settle(copied.count() as u64, sent);
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
        let ended = self.middle.ends(deadline);
        let mut left = 0;
        while let Some(copied) = self.copies.try_take() {
            left += copied.count() as u64 * self.branches.len() as u64;
        }
        outside.copies_dropped.add(left);
        if left > 0 {
            log::error!(
                "repeater: copies not handed out before the stop deadline and lost: {left}; a longer \
                 `stopDeadline` gives it more time"
            );
        }
        // What it has in hand it hands out without waiting for anybody, so that it is counted, too.
        let patience = if ended { Duration::ZERO } else { HAND_OUT_MAX };
        self.middle.finish("repeater", Instant::now() + patience);
        for Runner {
            name,
            account,
            running,
        } in self.branches
        {
            running.finish(&name, deadline);
            // Nothing, unless it is late or has panicked.
            let left = account.give_up();
            if left > 0 {
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
            let more = more(suppressed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_when_the_time_is_up_is_counted_once() {
        let outside = Arc::new(Outside::default());
        let port = |socket: &std::net::UdpSocket| socket.local_addr().expect("bound").port();
        let sockets = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").expect("a port"));
        let targets = sockets.iter().map(|socket| Target {
            host: "127.0.0.1".into(),
            port: port(socket),
        });
        let options = Options {
            targets: targets.collect(),
            protocol: Protocol::Udp4,
        };
        let mut repeater = start(&options, &outside)
            .expect("threads")
            .expect("targets");
        let feed = repeater.feed().expect("given away once");
        let mut refused = 0;
        for _ in 0..2000 {
            refused += feed.offer([&b"a:1|c"[..]; 8].into_iter());
        }
        drop(feed);
        repeater.finish(Instant::now(), &outside);
        let total = || outside.copies_sent.total() + outside.copies_dropped.total() + refused;
        assert_eq!(total(), 2 * 8 * 2000);
    }

    #[test]
    fn who_was_given_up_counts_nothing_any_more() {
        let outside = Arc::new(Outside::default());
        let counted = || [outside.copies_sent.total(), outside.copies_dropped.total()];
        let account = Account::new(outside.clone());
        account.add(5);
        account.add(3);
        account.settle(5, 4);
        assert_eq!(counted(), [4, 1]);
        assert_eq!(account.give_up(), 3);
        assert_eq!(counted(), [4, 4]);
        account.settle(3, 3);
        assert_eq!(counted(), [4, 4]);
        account.add(2);
        account.settle(2, 0);
        assert_eq!(counted(), [4, 6]);
        assert_eq!(account.give_up(), 0);
    }
}
