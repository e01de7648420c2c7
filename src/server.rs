//! Wires the parts, owns the threads, orders start and stop. Knows all, computes nothing.

use crate::config::Config;
use crate::deliver::{self, Runners};
use crate::flush::{self, Flusher};
use crate::ingest::source::Listen;
use crate::ingest::source::udp::{self, Listener};
use crate::ingest::{self, table::Table};
use crate::metric::harvest::Tally;
use crate::metric::meter::Outside;
use crate::metric::registry::Registry;
use crate::runtime::clock::Clock;
use crate::runtime::stop::Stop;
use crate::runtime::sys::wake::Waker;
use anyhow::Context;
use core_affinity::CoreId;
use crossbeam::channel::{Receiver, Sender, bounded, select, unbounded};
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A running daemon.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    workers: Vec<JoinHandle<()>>,
    wakers: Vec<Waker>,
    stop: Stop,
    commands: Sender<flush::Command>,
    flusher: JoinHandle<Tally>,
    backends: Runners,
    watch: Watch,
    /// Names of threads that panicked.
    deaths: Receiver<String>,
    stop_deadline: Duration,
}

/// What came of a whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Every worker's accounts, added up.
    pub ingest: Tally,
    /// Flushes a backend could not deliver, had no room to queue, or still held at the stop deadline.
    pub flushes_dropped: u64,
}

/// Signals so close together are one wish to stop: timeout(1) and others send one to the process and
/// the same again to its group.
const SAME_WISH: Duration = Duration::from_millis(500);

/// Runs until SIGTERM, SIGINT or SIGHUP, then stops in order; another signal, half a second later or
/// more, ends the process at once.
///
/// # Errors
/// When a listener cannot be bound or the system has no thread or descriptor to give.
pub fn run(config: Config) -> anyhow::Result<()> {
    // Before anything is up, so that no signal finds the default action. SIGHUP too: a terminal that
    // closes is no reason to lose an interval.
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP]).context("cannot install the signal handlers")?;
    let server = Server::start(config, Clock::Real)?;
    log::info!("server is up");
    let (signal, signalled) = bounded(1);
    spawn("signals".into(), server.watch.clone(), move || {
        let mut first = None;
        for _ in signals.forever() {
            let since = first.get_or_insert_with(Instant::now).elapsed();
            // Nobody listens any more when the server is stopping for another reason.
            let _ = signal.try_send(());
            if since > SAME_WISH {
                // Not through the log: whoever reads that may be what holds us up.
                eprintln!(
                    "statsd-fast: a second signal: ended without draining; what was held is lost"
                );
                std::process::exit(1);
            }
        }
    })?;
    let died = select! {
        recv(signalled) -> _ => None,
        recv(server.deaths) -> thread => thread.ok(),
    };
    match &died {
        None => log::info!(
            "stopping: draining sockets, then a last flush; another signal stops at once"
        ),
        Some(thread) => {
            log::error!("thread {thread} panicked; stopping, since half a server would look alive")
        }
    }
    let totals = server.stop();
    log::info!("stopped: {}", summary(&totals));
    if let Some(thread) = died {
        anyhow::bail!(
            "thread {thread} panicked, a fault of this program; please report the message above"
        );
    }
    Ok(())
}

/// Tells of its thread's end when that was a panic.
#[derive(Debug, Clone)]
struct Watch {
    deaths: Sender<String>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if thread::panicking() {
            let name = thread::current()
                .name()
                .unwrap_or("without a name")
                .to_owned();
            // When nobody listens any more, the server is stopping already.
            let _ = self.deaths.send(name);
        }
    }
}

/// Cores the workers may use: this process's affinity mask, as far as the CPU quota reaches. Read
/// before anything is pinned, since a pinned thread only sees its own core.
fn cores() -> (Vec<CoreId>, usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let usable = thread::available_parallelism().map_or(1, usize::from);
    (cores, usable)
}

impl Server {
    /// Binds every listener, starts every thread. When it returns, datagrams are being taken.
    ///
    /// # Errors
    /// When a listener cannot be bound or the system has no thread or descriptor to give.
    pub fn start(config: Config, clock: Clock) -> anyhow::Result<Self> {
        let (cores, usable) = cores();
        let threads = config.threads.unwrap_or(usable);
        // All or nothing, and before any thread runs: a daemon that is half there misleads.
        let udp: Vec<_> = config
            .listeners
            .iter()
            .filter_map(|listen| match listen {
                Listen::Udp(options) => Some(options),
                _ => None,
            })
            .collect();
        let listeners: Vec<Listener> = udp
            .iter()
            .map(|options| udp::bind(options, threads))
            .collect::<Result<_, _>>()?;
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.address).collect();
        // A quota below the cores of the mask means the kernel will move us about anyway.
        let pinned = config.pin && usable >= cores.len() && !cores.is_empty();
        describe(&config, &listeners, threads, &cores, pinned);

        let registry = Arc::new(Registry::new());
        let outside = Arc::new(Outside::default());
        let stop = Stop::default();
        let count = threads * listeners.len();
        let epoch = Arc::new(CachePadded::new(AtomicU64::new(0)));
        // Room for an answered tick and the last harvest of each worker: none ever waits.
        let (full, harvests) = bounded((2 * count).max(1));
        let empty = Arc::new(ArrayQueue::new((2 * count).max(1)));
        let link = ingest::Link {
            epoch: epoch.clone(),
            full,
            empty: empty.clone(),
            stop: stop.clone(),
            wanted: Arc::new(ingest::Wanted::new(config.ingest.clone())),
        };

        let (outboxes, backends) = deliver::start(&config.backends, &clock, &outside)
            .context("cannot start a backend thread")?;
        let (commands, orders) = unbounded();
        let mut wakers = Vec::with_capacity(count);
        let mut sources = Vec::with_capacity(count);
        for (options, listener) in udp.iter().zip(listeners) {
            for source in listener.sources {
                wakers.push(source.waker());
                sources.push((source, options.max_datagram));
            }
        }
        let flusher = Flusher::new(
            config.flush.clone(),
            clock,
            registry.clone(),
            flush::Link {
                epoch,
                full: harvests,
                empty,
                workers: wakers.clone(),
            },
            outside.clone(),
        );
        let (tell, deaths) = unbounded();
        let watch = Watch { deaths: tell };
        let flusher = spawn("flush".into(), watch.clone(), move || {
            flusher.run(&orders, |snapshot| {
                outboxes.iter().for_each(|outbox| outbox.put(&snapshot))
            })
        })?;
        let mut workers = Vec::with_capacity(count);
        for (worker, (source, max_datagram)) in sources.into_iter().enumerate() {
            let table = Table::new(&config.ingest, registry.clone());
            let link = link.clone();
            let core = pinned.then(|| cores[worker % cores.len()]);
            workers.push(spawn(
                format!("ingest-{worker}"),
                watch.clone(),
                move || {
                    if core.is_some_and(|core| !core_affinity::set_for_current(core)) {
                        log::warn!(
                            "worker {worker} could not be pinned to its core; it runs unpinned"
                        );
                    }
                    ingest::run(worker, source, table, max_datagram, &link);
                },
            )?);
        }
        Ok(Self {
            addresses,
            workers,
            wakers,
            stop,
            commands,
            flusher,
            backends,
            watch,
            deaths,
            stop_deadline: config.stop_deadline,
        })
    }

    /// Where the listeners are, in the order of the configuration, with their real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Drains the path in its own order: sockets, last harvests, last flush, backends.
    pub fn stop(self) -> Totals {
        let deadline = Instant::now() + self.stop_deadline;
        self.stop.request();
        self.wakers.iter().for_each(Waker::wake);
        for worker in self.workers {
            if worker.join().is_err() {
                log::error!("a worker panicked; what it held is lost");
            }
        }
        // It ends on its own when it panicked, and then there is nobody to tell.
        let _ = self.commands.send(flush::Command::Finish);
        let ingest = self.flusher.join().unwrap_or_else(|_| {
            log::error!("the flusher panicked; the last interval is lost");
            Tally::default()
        });
        let flushes_dropped = self.backends.finish(deadline);
        Totals {
            ingest,
            flushes_dropped,
        }
    }
}

fn spawn<T: Send + 'static>(
    name: String,
    watch: Watch,
    body: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<T>> {
    thread::Builder::new()
        .name(name)
        .spawn(move || {
            let _watch = watch;
            body()
        })
        .context("the system refused a thread; likely cause: a process limit (see: ulimit -u)")
}

/// The start-up block: what was bound, who serves it, what the kernel granted and how to raise it.
fn describe(
    config: &Config,
    listeners: &[Listener],
    threads: usize,
    cores: &[CoreId],
    pinned: bool,
) {
    let backends: Vec<_> = config.backends.iter().map(deliver::Backend::name).collect();
    log::info!(
        "statsd-fast {}, pid {}, flush every {} s to {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        config.flush.interval.as_secs_f64(),
        if backends.is_empty() {
            "no backend".into()
        } else {
            backends.join(", ")
        }
    );
    let mut worker = 0;
    for listener in listeners {
        let mine: Vec<_> = (worker..worker + threads).collect();
        worker += threads;
        let placed = if pinned {
            let on: Vec<_> = mine
                .iter()
                .map(|w| cores[w % cores.len()].id.to_string())
                .collect();
            format!(
                "on core{} {}",
                if threads == 1 { "" } else { "s" },
                on.join(" ")
            )
        } else {
            "not pinned".into()
        };
        let plural = if threads == 1 { "" } else { "s" };
        log::info!(
            "listening on udp {}, {threads} worker{plural} {placed}",
            listener.address
        );
        let Listener { asked, granted, .. } = listener;
        if granted < asked {
            log::warn!(
                "receive buffer: {asked} bytes asked, {granted} granted a worker; a burst may be lost. \
                 Raise it with: sysctl -w net.core.rmem_max={asked}"
            );
        } else {
            log::info!("receive buffer: {asked} bytes asked, {granted} granted a worker");
        }
    }
    if let Some(address) = listeners.first().map(|listener| listener.address) {
        let host = match address.ip() {
            ip if ip.is_unspecified() => "127.0.0.1".into(),
            ip => ip.to_string(),
        };
        log::info!(
            "send a first metric: printf 'hello:1|c' >/dev/udp/{host}/{} (in bash)",
            address.port()
        );
    }
}

fn summary(totals: &Totals) -> String {
    let tally = &totals.ingest;
    format!(
        "{} datagrams, {} lines, {} values taken, {} refused, {} datagrams cut, {} dropped by the kernel, \
         {} flushes not delivered",
        tally.packets,
        tally.lines,
        tally.recorded.iter().sum::<u64>(),
        tally.rejected_total(),
        tally.truncated,
        tally.kernel_drops,
        totals.flushes_dropped
    )
}
