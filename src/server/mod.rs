//! Wires the parts, owns the threads, orders start and stop. Knows all, computes nothing.

mod crew;
mod describe;
mod proxy;
mod reach;
mod run;
mod takeover;

pub use proxy::{Account, Proxy};
pub use run::{ConfigFile, run, run_proxy};
pub use takeover::Origin;

use crate::admin::{Admin, Desk, Door};
use crate::config::{Config, Loaded};
use crate::deliver::{Backend, Runners};
use crate::flush::{self, Flusher};
use crate::ingest;
use crate::ingest::name::id_of_shown;
use crate::ingest::source::inherited::Inherited;
use crate::ingest::source::lock::Lock;
use crate::ingest::source::{Address, AnySource, Listen, Listener, Source};
use crate::metric::harvest::Tally;
use crate::metric::kept::{Kept, Shelf};
use crate::metric::meter::{self, Outside};
use crate::metric::registry::Registry;
use crate::metric::sample::Kind;
use crate::runtime;
use crate::runtime::clock::Clock;
use crate::runtime::privilege;
use crate::runtime::stop::{Ending, Stop};
use crate::runtime::sys::wake::Waker;
use crate::state::{self, Restored, keeper};
use crate::takeover::offer::Successor;
use anyhow::Context;
use core_affinity::CoreId;
use crew::Crew;
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use takeover::{Gate, Porter, Stock, let_in, turn_down};

/// A running daemon.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<Address>,
    workers: Vec<JoinHandle<AnySource>>,
    wakers: Vec<Waker>,
    locks: Vec<Lock>,
    crew: Crew,
    commands: Sender<flush::Order>,
    flusher: JoinHandle<Tally>,
    backends: Runners,
    keeper: Option<keeper::Ending>,
    outside: Arc<Outside>,
    registry: Arc<Registry>,
    /// Limits for who watches the memory; without this end it ends.
    memory: Sender<Option<u64>>,
    alarm: Alarm,
    /// Names of threads that panicked.
    deaths: Receiver<String>,
    wanted: Arc<ingest::Wanted>,
    desk: Arc<Desk>,
    admin: Admin,
    stock: Arc<Stock>,
    porter: Option<Porter>,
    /// Those that read already.
    successors: (Sender<Successor>, Receiver<Successor>),
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
    /// Every meter, as it stood when all was done.
    pub meters: meter::Totals,
    /// Flushes that are on disk for the next start.
    pub flushes_on_disk: u64,
}

/// How long a reload waits for the flusher: longer than it waits for a worker.
const IN_FORCE_MAX: Duration = Duration::from_secs(5);

/// How long a process that was taken over may keep its flushes on disk past `stopDeadline`, before the wait
/// for them is worth an error.
const SPOOL_MAX: Duration = Duration::from_secs(5);

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

/// The core a worker belongs on; without cores to choose from, its own number.
fn core_of(worker: usize, cores: &[CoreId]) -> u32 {
    let core = cores
        .get(worker % cores.len().max(1))
        .map_or(worker, |core| core.id);
    u32::try_from(core).unwrap_or(u32::MAX)
}

/// Listeners that are bound, and where their workers will run.
#[derive(Debug)]
struct Bound {
    listeners: Vec<Listener>,
    cores: Vec<CoreId>,
    /// Each worker to a core of its own, from the first again when there are more.
    pinned: bool,
    /// Of each listener the number it is inherited by.
    numbers: Vec<Option<usize>>,
}

impl Bound {
    /// Binds them, for so many workers each, or one for each core; or takes what is inherited.
    fn bind(
        listens: &[Listen],
        threads: Option<usize>,
        pin: bool,
        inherited: &mut Inherited,
    ) -> anyhow::Result<Self> {
        let (cores, usable) = cores();
        let threads = threads.unwrap_or(usable);
        let mut listeners: Vec<Listener> = Vec::with_capacity(listens.len());
        let mut workers = 0;
        let mut numbers = Vec::with_capacity(listens.len());
        for listen in listens {
            let cores: Vec<_> = (workers..workers + threads)
                .map(|worker| core_of(worker, &cores))
                .collect();
            let before = inherited.taken().len();
            let listener = listen.bind(&cores, inherited)?;
            numbers.push(inherited.taken().get(before).copied());
            workers += listener.sources.len();
            listeners.push(listener);
        }
        // A quota below the cores of the mask means the kernel will move us about anyway.
        let pinned = pin && usable >= cores.len() && !cores.is_empty();
        Ok(Self {
            listeners,
            cores,
            pinned,
            numbers,
        })
    }
}

/// Pins the calling worker to a core, when it has one.
fn pin(worker: usize, core: Option<CoreId>) {
    if core.is_some_and(|core| !core_affinity::set_for_current(core)) {
        log::warn!("worker {worker} could not be pinned to its core; it runs unpinned");
    }
}

impl Server {
    /// Binds every listener, starts every thread. When it returns, datagrams are being taken.
    ///
    /// # Errors
    /// When a listener cannot be bound or the system has no thread or descriptor to give.
    pub fn start(loaded: Loaded, clock: Clock) -> anyhow::Result<Self> {
        Self::begin(loaded, clock, Origin::default())
    }

    /// The same where sockets are inherited, or a whole process is taken over. When it returns, that has let
    /// go.
    ///
    /// # Errors
    /// Those of [`Server::start`], and when the takeover fails; the process before goes on then.
    pub fn begin(loaded: Loaded, clock: Clock, mut origin: Origin) -> anyhow::Result<Self> {
        let begun = Self::try_begin(loaded, clock, &mut origin);
        match begun {
            Ok((server, outside)) => {
                origin.follow(server.alarm.clone(), &outside)?;
                Ok(server)
            }
            Err(error) => {
                origin.refuse(&error);
                Err(error)
            }
        }
    }

    fn try_begin(
        loaded: Loaded,
        clock: Clock,
        origin: &mut Origin,
    ) -> anyhow::Result<(Self, Arc<Outside>)> {
        let config = &loaded.config;
        let identity = config.identity.as_ref();
        let outside = Arc::new(Outside::default());
        // Before anything is bound: it may take a second, and nothing waits in a socket meanwhile.
        let restored = privilege::as_user(identity, || {
            let restore = |options| {
                if origin.takes_over() {
                    state::inherit(options, &clock).map(|()| Restored::default())
                } else {
                    state::restore(options, &clock, &outside)
                }
            };
            config.state.as_ref().map(restore).transpose()
        })??;
        // All or nothing, and before any thread runs: a daemon that is half there misleads.
        let (bound, gate) = privilege::owning(identity, || {
            let inherited = origin.inherited();
            let bound = Bound::bind(&config.listeners, config.threads, config.pin, inherited)?;
            anyhow::Ok((bound, Gate::open(config, origin)?))
        })??;
        let door = Door::bind(&config.admin, |wanted| origin.admin(wanted))?;
        origin.all_taken()?;
        reach::let_go(config)?;
        let Bound {
            listeners,
            cores,
            pinned,
            numbers,
        } = bound;
        let addresses = listeners.iter().map(|l| l.address.clone()).collect();
        describe::describe(config, &listeners, door.address(), &cores, pinned);

        let registry = Arc::new(Registry::new());
        registry.limit(config.max_names);
        origin.learn_names(config, &registry);
        let of_listener = |(number, listener): (usize, Listener)| {
            listener.sources.into_iter().map(move |it| (number, it))
        };
        let sources = listeners.into_iter().enumerate().flat_map(of_listener);
        let (of, sources): (Vec<usize>, Vec<_>) = sources.unzip();
        let count = sources.len();
        let seats: Vec<_> = of
            .iter()
            .copied()
            .zip(sources.iter().map(AnySource::seat))
            .collect();
        let epoch = Arc::new(CachePadded::new(AtomicU64::new(0)));
        let Restored { kept, lock } = restored.unwrap_or_default();
        let Kept { gauges, totals } = kept;
        // Running totals are asked for by a successor, too.
        let shelf = Shelf::default();
        let (pens, spool) = (Some(shelf.clone()), config.spool.clone());
        let mut backends = Runners::prepare(&config.backends, &clock, &outside, pens, spool)
            .context("cannot start the repeater")?;
        // Room for an answered tick and the last harvest of each worker: none ever waits.
        let (full, harvests) = bounded((2 * count).max(1));
        let empty = Arc::new(ArrayQueue::new((2 * count).max(1)));
        let wanted = Arc::new(ingest::Wanted::new(config.ingest.clone()));
        let (tell, deaths) = unbounded();
        let alarm = Alarm { deaths: tell };
        let wakers: Vec<_> = sources.iter().map(Source::waker).collect();
        let locks = sources.iter().filter_map(Source::lock).collect();
        let mut crew = Crew {
            link: ingest::Link {
                epoch: epoch.clone(),
                full,
                empty: empty.clone(),
                stop: Stop::default(),
                wanted: wanted.clone(),
                copies: backends.copies(),
            },
            registry: registry.clone(),
            cores,
            pinned,
            alarm: alarm.clone(),
            stops: vec![Stop::default(); numbers.len()],
            listeners: of,
        };
        let mut flusher = Flusher::new(
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
        let dialect = config.ingest.dialect;
        let id = |kind, name: &str| id_of_shown(name, kind, dialect, &registry);
        let workers = crew.launch(sources, &config.ingest)?;
        let estate = origin.take()?;
        let mut connections = Vec::new();
        let totals = match estate {
            None => {
                for gauge in gauges {
                    let id = id(Kind::Gauge, &gauge.name);
                    flusher.restore_gauge(id, gauge.value, gauge.flushes_left);
                }
                totals
            }
            Some(estate) => {
                flusher.adopt(estate.carried, |kind, name| id(kind, name));
                connections = estate.connections;
                backends.wait_for_spools(Instant::now() + config.stop_deadline + SPOOL_MAX);
                estate.totals.map(Arc::new)
            }
        };
        backends
            .launch(&config.backends, config.outbox, &totals.unwrap_or_default())
            .context("cannot start a backend thread")?;
        origin.settle()?;
        // From here on nothing may fail that could have failed before: nobody else has it any more.
        seats.iter().for_each(|(_, seat)| seat.keep());
        gate.iter().for_each(Gate::keep);
        let_in(connections, &numbers, &seats, &wakers);

        let (commands, orders) = unbounded();
        let (asker, questions) = bounded(flush::QUESTIONS_MAX);
        let desk = Arc::new(Desk::new(clock.clone(), asker, config.admin.healthy));
        desk.show_backends(backends.statuses());
        desk.show_config(loaded.reply.clone());
        let mut others = vec![Arc::new(door.socket()?.into())];
        others.extend(gate.as_ref().map(Gate::socket));
        let admin = door.serve(desk.clone())?;
        let mut ending = None;
        if let Some(options) = &config.state {
            flusher.keep_gauges(shelf.clone());
            let (clock, outside) = (clock.clone(), outside.clone());
            let (keeper, end) = keeper::Keeper::new(options, lock, shelf, clock, outside);
            spawn("state".into(), alarm.clone(), move || keeper.run())?;
            ending = Some(end);
        }
        let (memory, limits) = unbounded();
        let _ = memory.send(config.memory_limit);
        let names = registry.clone();
        spawn("memory".into(), alarm.clone(), move || {
            runtime::memory::watch(&limits, |short| names.set_short(short));
        })?;
        let outboxes = backends.outboxes();
        let flusher = spawn("flush".into(), alarm.clone(), move || {
            flusher.run(&orders, &questions, |snapshot| outboxes.put(&snapshot))
        })?;
        let stock = Arc::new(Stock::new(seats, numbers.len(), others, registry.clone()));
        let (tell, successors) = unbounded();
        let porter = gate
            .map(|gate| Porter::start(gate, stock.clone(), tell.clone(), alarm.clone()))
            .transpose()?;
        let server = Self {
            addresses,
            workers,
            wakers,
            locks,
            crew,
            commands,
            flusher,
            backends,
            keeper: ending,
            outside: outside.clone(),
            registry,
            memory,
            alarm,
            deaths,
            wanted,
            desk,
            admin,
            stock,
            porter,
            successors: (tell, successors),
            loaded,
        };
        Ok((server, outside))
    }

    /// Takes over what can change while running; the rest stays as it is. When it returns, whatever is
    /// received from now on is treated by the new options, and the next flush is made by them. Returns
    /// whether anything that can change was new.
    ///
    /// # Errors
    /// When the system has no thread to give to a new backend; everything else is taken over.
    pub fn reload(&mut self, mut loaded: Loaded) -> anyhow::Result<bool> {
        let (new, old) = (&mut loaded.config, &self.loaded.config);
        new.identity.clone_from(&old.identity);
        new.threads = old.threads;
        new.pin = old.pin;
        new.listeners.clone_from(&old.listeners);
        new.admin = old.admin.clone();
        new.state.clone_from(&old.state);
        new.spool.clone_from(&old.spool);
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
        for backend in &mut new.backends {
            if let Backend::Librato(options) = backend {
                options.folded_tags = old.ingest.dialect == ingest::Dialect::Auto;
            }
        }
        let news = *new != *old;
        loaded.fixed.clone_from(&self.loaded.fixed);
        runtime::log::set(&loaded.config.log);
        self.registry.limit(loaded.config.max_names);
        // It listens as long as there is this end.
        let _ = self.memory.send(loaded.config.memory_limit);
        self.wanted.set(loaded.config.ingest.clone());
        let Config {
            backends, outbox, ..
        } = &loaded.config;
        let exchanged = self.backends.exchange(backends, *outbox);
        self.desk.show_backends(self.backends.statuses());
        let (done, in_force) = bounded(1);
        let options = Box::new(loaded.config.flush.clone());
        // When the flusher is gone, its end is being dealt with. It may be long at a flush, and a wish to
        // stop must not wait for that.
        let _ = self.commands.send(flush::Order::Reconfigure(options, done));
        let late = in_force.recv_timeout(IN_FORCE_MAX);
        if late.is_err_and(|error| error.is_timeout()) {
            log::warn!("the flusher is busy: it takes the new configuration over when it is not");
        }
        self.desk.show_config(loaded.reply.clone());
        self.loaded = loaded;
        exchanged
            .context("the backends stay as they were: the system has no thread to give")
            .map(|()| news)
    }

    /// Where the listeners are, in the order of the configuration, with their real ports.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Where the admin interface is, with its real port.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Drains the path in its own order: sockets, last harvests, last flush, backends.
    pub fn stop(self) -> Totals {
        let deadline = Instant::now() + self.loaded.config.stop_deadline;
        if let Some(porter) = self.porter {
            porter.stop(false);
        }
        // Who is in the middle of taking over takes datagrams already, and the drops that are counted are not
        // all then. Without this end nobody else gets so far.
        turn_down(&self.successors.1);
        drop(self.successors);
        self.stock.close();
        Lock::close_all(&self.locks);
        self.crew.stop(|_| Ending::Close);
        // Workers hold the only other ends: when they are gone, no tick waits for their harvests.
        drop(self.crew);
        self.wakers.iter().for_each(Waker::wake);
        for worker in self.workers {
            if worker.join().is_err() {
                log::error!("a worker panicked; what it held is lost");
            }
        }
        self.stock.remove_files();
        self.admin.stop();
        // It ends on its own when it panicked, and then there is nobody to tell.
        let _ = self.commands.send(flush::Order::Finish);
        let ingest = self.flusher.join().unwrap_or_else(|_| {
            log::error!("the flusher panicked; the last interval is lost");
            Tally::default()
        });
        let flushes_dropped = self.backends.finish(deadline);
        // Last: with the last flush running totals changed, too.
        if let Some(keeper) = self.keeper {
            keeper.finish(deadline);
        }
        Totals {
            meters: meter::Totals::read(&ingest, &self.outside),
            ingest,
            flushes_dropped,
            flushes_on_disk: self.outside.flushes_on_disk.now(),
        }
    }
}

/// Whether a start failed for what the configuration names: trying again mends nothing.
pub fn is_misconfigured(error: &anyhow::Error) -> bool {
    (error.downcast_ref::<state::Wrong>()).is_some_and(|wrong| wrong.lasts)
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
