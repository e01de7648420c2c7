//! Wires the parts, owns the threads, orders start and stop. Knows all, computes nothing.

use crate::admin::{Admin, Desk};
use crate::config::{self, Config, Loaded};
use crate::deliver::{Backend, Runners};
use crate::flush::{self, Flusher};
use crate::ingest::source::{Address, Capacity, Listen, Listener, Source};
use crate::ingest::{self, table::Table};
use crate::metric::harvest::Tally;
use crate::metric::meter::Outside;
use crate::metric::registry::Registry;
use crate::runtime;
use crate::runtime::clock::Clock;
use crate::runtime::notify::{self, State};
use crate::runtime::stop::Stop;
use crate::runtime::sys::title;
use crate::runtime::sys::wake::Waker;
use crate::runtime::watch::Watch;
use anyhow::Context;
use core_affinity::CoreId;
use crossbeam::channel::{Receiver, Sender, bounded, select, tick, unbounded};
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A running daemon.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<Address>,
    workers: Vec<JoinHandle<()>>,
    wakers: Vec<Waker>,
    stop: Stop,
    commands: Sender<flush::Command>,
    flusher: JoinHandle<Tally>,
    backends: Runners,
    alarm: Alarm,
    /// Names of threads that panicked.
    deaths: Receiver<String>,
    wanted: Arc<ingest::Wanted>,
    desk: Arc<Desk>,
    admin: Admin,
    /// What runs. Keys that cannot change have the values of the start.
    loaded: Loaded,
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

/// Where the configuration came from, to read it again.
#[derive(Debug)]
pub struct ConfigFile<R> {
    path: PathBuf,
    watch: Watch,
    read: R,
}

impl<R: Fn() -> Result<Loaded, config::Error>> ConfigFile<R> {
    /// A file that was not read yet, and how to read it. A change from now on is noticed.
    pub fn new(path: PathBuf, read: R) -> Self {
        Self {
            watch: Watch::new(path.clone()),
            path,
            read,
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// As [`config::load`].
    pub fn read(&self) -> Result<Loaded, config::Error> {
        (self.read)()
    }
}

/// What a signal asks for.
enum Wish {
    Stop,
    Reload,
}

/// Time between two looks at the configuration file.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT, then stops in order; another of them, half a second later or more,
/// ends the process at once. SIGHUP, or a change of the file, takes its new content over.
///
/// # Errors
/// When a listener cannot be bound or the system has no thread or descriptor to give.
pub fn run<R>(loaded: Loaded, mut file: Option<ConfigFile<R>>) -> anyhow::Result<()>
where
    R: Fn() -> Result<Loaded, config::Error>,
{
    // Before anything is up, so that no signal finds the default action.
    let signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP]).context("cannot install the signal handlers")?;
    entitle(loaded.config.title.as_deref());
    let mut server = Server::start(loaded, Clock::Real)?;
    log::info!("server is up");
    notify::tell(&State::Ready(&status(server.addresses())));
    let (wish, wishes) = unbounded();
    spawn("signals".into(), server.alarm.clone(), move || {
        obey(signals, &wish);
    })?;
    let looks = tick(LOOK);
    let died = loop {
        select! {
            recv(wishes) -> wish => match wish {
                Ok(Wish::Reload) => {
                    // A look from now on compares with what is read now.
                    if let Some(file) = &mut file {
                        file.watch.changed();
                    }
                    reload(&mut server, file.as_ref());
                }
                Ok(Wish::Stop) | Err(_) => break None,
            },
            recv(looks) -> _ => {
                let watched = file.as_mut().filter(|_| server.loaded.config.watch);
                if watched.is_some_and(|file| file.watch.changed()) {
                    reload(&mut server, file.as_ref());
                }
            }
            recv(server.deaths) -> thread => break thread.ok(),
        }
    };
    notify::tell(&State::Stopping);
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

/// Passes signals on. The second wish to stop is not passed on but obeyed here.
fn obey(mut signals: Signals, wish: &Sender<Wish>) {
    let mut first = None;
    for signal in signals.forever() {
        // Nobody listens any more when the server is stopping.
        if signal == SIGHUP {
            let _ = wish.send(Wish::Reload);
            continue;
        }
        let since = first.get_or_insert_with(Instant::now).elapsed();
        let _ = wish.send(Wish::Stop);
        if since > SAME_WISH {
            // Not through the log: whoever reads that may be what holds us up.
            eprintln!(
                "statsd-fast: a second signal: ended without draining; what was held is lost"
            );
            std::process::exit(1);
        }
    }
}

/// Reads the file again and takes over what can change; what is wrong in it changes nothing.
fn reload<R>(server: &mut Server, file: Option<&ConfigFile<R>>)
where
    R: Fn() -> Result<Loaded, config::Error>,
{
    let Some(file) = file else {
        log::warn!(
            "there is no configuration file to read again: the server was started without one"
        );
        return;
    };
    notify::tell(&State::Reloading);
    let path = file.path.display();
    log::info!("[{}] reading config file: {path}", std::process::id());
    match file.read() {
        Ok(loaded) => {
            loaded
                .warnings
                .iter()
                .for_each(|warning| log::warn!("{warning}"));
            for key in loaded.refused(&server.loaded) {
                log::warn!(
                    "{key} cannot change while running: it stays as it was at the start; restart the server \
                     for the new value"
                );
            }
            match server.reload(loaded) {
                Ok(()) => log::info!("the configuration was taken over"),
                Err(error) => log::error!("the configuration was taken over in part: {error:#}"),
            }
        }
        Err(error) => {
            for line in error.to_string().lines() {
                log::error!("{line}");
            }
            log::error!("{path} was not taken over; the server goes on with what it had");
        }
    }
    notify::tell(&State::Ready(&status(server.addresses())));
}

/// Gives the process its title; `None` leaves the one it has.
fn entitle(title: Option<&str>) {
    if let Some(title) = title
        && let Err(error) = title::set(title)
    {
        log::warn!("title: the process keeps the one it has: {error}");
    }
}

/// What `systemctl status` says of a server that is up.
fn status(addresses: &[Address]) -> String {
    let listed: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    format!("listening on {}", listed.join(", "))
}

/// Tells of its thread's end when that was a panic.
#[derive(Debug, Clone)]
struct Alarm {
    deaths: Sender<String>,
}

impl Drop for Alarm {
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
    pub fn start(loaded: Loaded, clock: Clock) -> anyhow::Result<Self> {
        let config = &loaded.config;
        let (cores, usable) = cores();
        let threads = config.threads.unwrap_or(usable);
        // All or nothing, and before any thread runs: a daemon that is half there misleads.
        let bind = |listen: &Listen| listen.bind(threads);
        let listeners: Vec<Listener> = config
            .listeners
            .iter()
            .map(bind)
            .collect::<Result<_, _>>()?;
        let addresses = listeners.iter().map(|l| l.address.clone()).collect();
        // A quota below the cores of the mask means the kernel will move us about anyway.
        let pinned = config.pin && usable >= cores.len() && !cores.is_empty();
        describe(config, &listeners, &cores, pinned);

        let registry = Arc::new(Registry::new());
        let outside = Arc::new(Outside::default());
        let stop = Stop::default();
        let sources: Vec<_> = listeners.into_iter().flat_map(|l| l.sources).collect();
        let count = sources.len();
        let epoch = Arc::new(CachePadded::new(AtomicU64::new(0)));
        // Room for an answered tick and the last harvest of each worker: none ever waits.
        let (full, harvests) = bounded((2 * count).max(1));
        let empty = Arc::new(ArrayQueue::new((2 * count).max(1)));
        let wanted = Arc::new(ingest::Wanted::new(config.ingest.clone()));
        let link = ingest::Link {
            epoch: epoch.clone(),
            full,
            empty: empty.clone(),
            stop: stop.clone(),
            wanted: wanted.clone(),
        };

        let backends = Runners::start(&config.backends, config.outbox, &clock, &outside)
            .context("cannot start a backend thread")?;
        let (commands, orders) = unbounded();
        // Before any thread runs that cannot be stopped again: its port may be taken.
        let desk = Arc::new(Desk::new(
            clock.clone(),
            commands.clone(),
            config.admin.healthy,
        ));
        desk.show_backends(backends.statuses());
        desk.show_config(loaded.reply.clone());
        let admin = Admin::start(&config.admin, desk.clone())?;
        log::info!("admin interface on tcp {}", admin.address());
        let wakers: Vec<_> = sources.iter().map(Source::waker).collect();
        let flusher = Flusher::new(
            config.flush.clone(),
            clock.clone(),
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
        let alarm = Alarm { deaths: tell };
        let outboxes = backends.outboxes();
        let flusher = spawn("flush".into(), alarm.clone(), move || {
            flusher.run(&orders, |snapshot| outboxes.put(&snapshot))
        })?;
        let mut workers = Vec::with_capacity(count);
        for (worker, source) in sources.into_iter().enumerate() {
            let table = Table::new(&config.ingest, registry.clone());
            let link = link.clone();
            let core = pinned.then(|| cores[worker % cores.len()]);
            workers.push(spawn(
                format!("ingest-{worker}"),
                alarm.clone(),
                move || {
                    if core.is_some_and(|core| !core_affinity::set_for_current(core)) {
                        log::warn!(
                            "worker {worker} could not be pinned to its core; it runs unpinned"
                        );
                    }
                    ingest::run(worker, source, table, &link);
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
            alarm,
            deaths,
            wanted,
            desk,
            admin,
            loaded,
        })
    }

    /// Takes over what can change while running; the rest stays as it is. When it returns, whatever is
    /// received from now on is treated by the new options, and the next flush is made by them.
    ///
    /// # Errors
    /// When the system has no thread to give to a new backend; everything else is taken over.
    pub fn reload(&mut self, mut loaded: Loaded) -> anyhow::Result<()> {
        let (new, old) = (&mut loaded.config, &self.loaded.config);
        new.threads = old.threads;
        new.pin = old.pin;
        new.listeners.clone_from(&old.listeners);
        new.admin = old.admin.clone();
        new.ingest.dialect = old.ingest.dialect;
        new.ingest.exact_samples = old.ingest.exact_samples;
        new.flush.exact_samples = old.ingest.exact_samples;
        // Names that came uncleaned live on, so Graphite has to go on cleaning.
        let verbatim =
            |backend: &Backend| matches!(backend, Backend::Graphite(o) if o.sanitize_names);
        if old.backends.iter().any(verbatim) || !old.ingest.sanitize_names {
            for backend in &mut new.backends {
                if let Backend::Graphite(options) = backend {
                    options.sanitize_names = true;
                }
            }
        }
        loaded.fixed.clone_from(&self.loaded.fixed);
        entitle(loaded.config.title.as_deref());
        runtime::log::set(&loaded.config.log);
        self.wanted.set(loaded.config.ingest.clone());
        let Config {
            backends, outbox, ..
        } = &loaded.config;
        let exchanged = self.backends.exchange(backends, *outbox);
        self.desk.show_backends(self.backends.statuses());
        let (done, in_force) = bounded(1);
        let options = Box::new(loaded.config.flush.clone());
        // When the flusher is gone, its end is being dealt with.
        let _ = self
            .commands
            .send(flush::Command::Reconfigure(options, done));
        let _ = in_force.recv();
        self.desk.show_config(loaded.reply.clone());
        self.loaded = loaded;
        exchanged.context("the backends stay as they were: the system has no thread to give")
    }

    /// Where the listeners are, in the order of the configuration, with their real ports.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Drains the path in its own order: sockets, last harvests, last flush, backends.
    pub fn stop(self) -> Totals {
        let deadline = Instant::now() + self.loaded.config.stop_deadline;
        self.stop.request();
        self.wakers.iter().for_each(Waker::wake);
        for worker in self.workers {
            if worker.join().is_err() {
                log::error!("a worker panicked; what it held is lost");
            }
        }
        self.admin.stop();
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
    alarm: Alarm,
    body: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<T>> {
    thread::Builder::new()
        .name(name)
        .spawn(move || {
            let _alarm = alarm;
            body()
        })
        .context("the system refused a thread; likely cause: a process limit (see: ulimit -u)")
}

/// The start-up block: what was bound, who serves it, what the kernel granted and how to raise it.
fn describe(config: &Config, listeners: &[Listener], cores: &[CoreId], pinned: bool) {
    let backends: Vec<_> = config.backends.iter().map(Backend::name).collect();
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
        let threads = listener.sources.len();
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
            "listening on {}, {threads} worker{plural} {placed}",
            listener.address
        );
        match listener.capacity {
            Capacity::ReceiveBuffer { asked, granted } if granted < asked => log::warn!(
                "receive buffer: {asked} bytes asked, {granted} granted a worker; a burst may be lost. \
                 Raise it with: sysctl -w net.core.rmem_max={asked}"
            ),
            Capacity::ReceiveBuffer { asked, granted } => {
                log::info!("receive buffer: {asked} bytes asked, {granted} granted a worker");
            }
            Capacity::Datagrams(queue) => log::info!(
                "receive queue: {queue} datagrams, then senders wait or are refused; raise it before the start \
                 with: sysctl -w net.unix.max_dgram_qlen=512"
            ),
            Capacity::Streams { connections, line } => {
                log::info!("at most {connections} connections, lines of {line} bytes");
            }
        }
    }
    if let Some(first) = listeners.first() {
        log::info!("send a first metric: {}", first_metric(&first.address));
    }
}

/// A command that sends a metric there.
fn first_metric(address: &Address) -> String {
    let line = "printf 'hello:1|c\\n'";
    let device = |kind, address: SocketAddr| {
        let host = match address.ip() {
            ip if ip.is_unspecified() => "127.0.0.1".into(),
            ip => ip.to_string(),
        };
        format!("/dev/{kind}/{host}/{} (in bash)", address.port())
    };
    match address {
        Address::Udp(address) => format!("printf 'hello:1|c' >{}", device("udp", *address)),
        Address::Tcp(address) => format!("{line} >{}", device("tcp", *address)),
        Address::Unix(path) => format!("{line} | socat -u - UNIX-CONNECT:{}", path.display()),
        Address::Unixgram(path) => format!("{line} | socat -u - UNIX-SENDTO:{}", path.display()),
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
