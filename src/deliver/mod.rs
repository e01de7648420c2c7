//! Deliver: a thread for each backend, fed with snapshots.
//!
//! A backend is an encoder, which is pure, and a sink. It knows snapshots and nothing upstream of
//! them; it may be slow or dead, and only its own flushes suffer for it.

pub mod console;
pub mod graphite;
pub mod inspector;
pub mod librato;
pub mod number;
pub mod outbox;
pub mod repeater;
mod runner;
pub mod sink;
pub mod spool;
pub mod status;

use crate::metric::copied::Feed;
use crate::metric::kept::{Pen, Shelf, Totals};
use crate::metric::meter::Outside;
use crate::metric::registry::Name;
use crate::metric::snapshot::Snapshot;
use crate::runtime::clock::{Clock, rounded_seconds};
use crate::runtime::stdout;
use crossbeam::channel::{Receiver, bounded};
use graphite::Graphite;
use librato::Librato;
use outbox::{Left, Limits, Outbox, Queue, SLOW_DISK, Wants};
use repeater::Repeater;
use runner::{confirm, run_each, run_until_delivered};
use spool::Spool;
use status::Status;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A backend with its options; the name is the one the config file uses.
#[derive(Debug, Clone, PartialEq)]
pub enum Backend {
    /// Readable text on standard output.
    Console(console::Options),
    /// Plaintext lines or pickled lists over TCP to carbon.
    Graphite(graphite::Options),
    /// Measurements in JSON over HTTP to Librato.
    Librato(Box<librato::Options>),
    /// Every packet as it came, to other servers.
    Repeater(repeater::Options),
}

impl Backend {
    /// The backend's name in the config file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Console(_) => "console",
            Self::Graphite(_) => "graphite",
            Self::Librato(_) => "librato",
            Self::Repeater(_) => "repeater",
        }
    }

    /// The options of the repeater, when it is that.
    pub fn repeater(&self) -> Option<&repeater::Options> {
        match self {
            Self::Repeater(options) => Some(options),
            _ => None,
        }
    }
}

/// Backends whose flushes are kept on disk. The console has them at once or never, and packets of the
/// repeater are none.
const SPOOLED: [&str; 2] = ["graphite", "librato"];

/// How much of the time that a stop takes is the disk's, at most, and at most a quarter.
const FOR_THE_DISK: Duration = Duration::from_secs(1);

/// The running backends, and the outboxes that feed them.
#[derive(Debug)]
pub struct Runners {
    running: Vec<Runner>,
    /// Of earlier configurations: they deliver what waits and end.
    retired: Vec<Runner>,
    outboxes: Outboxes,
    limits: Limits,
    clock: Clock,
    repeater: Option<Repeater>,
    outside: Arc<Outside>,
    /// Where running totals are laid, when anybody keeps them.
    shelf: Option<Shelf>,
    /// Where flushes are kept on disk, if anywhere.
    spooling: Option<spool::Options>,
    /// Until then another process may have them.
    patient_until: Option<Instant>,
    /// One for each backend that ever ran, but for those that deliver at once or not at all.
    spools: Vec<(&'static str, Arc<Spool>)>,
}

/// What outlives a process, as far as backends have to do with it.
#[derive(Debug, Default)]
pub struct Keeps {
    /// Where running totals are laid, and those of the last process.
    pub totals: Option<(Shelf, Arc<Totals>)>,
    /// Where flushes are kept on disk.
    pub spool: Option<spool::Options>,
}

/// Where the flusher puts snapshots. Clones are the same boxes.
#[derive(Debug, Clone, Default)]
pub struct Outboxes(Arc<Mutex<Vec<Outbox>>>);

impl Outboxes {
    /// Puts a flush into every box. Waits for no backend; only for whoever exchanges them.
    pub fn put(&self, snapshot: &Arc<Snapshot>) {
        self.boxes().iter().for_each(|outbox| outbox.put(snapshot));
    }

    fn boxes(&self) -> MutexGuard<'_, Vec<Outbox>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Runner {
    backend: Backend,
    status: Arc<Status>,
    queue: Queue,
    pen: Option<Pen>,
    /// Closed when the thread is through with its queue.
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

/// Empties the outbox of a thread that ends, by a panic too: what comes later is counted, not kept.
struct Abandons(Queue);

impl Drop for Abandons {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Runners {
    /// Starts a thread for each backend.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(
        backends: &[Backend],
        limits: Limits,
        clock: &Clock,
        outside: &Arc<Outside>,
    ) -> io::Result<Self> {
        Self::resume(backends, limits, clock, outside, Keeps::default())
    }

    /// The same; where running totals are kept, the backends that have some go on with these. Those of a
    /// later configuration begin anew. Where flushes are kept, those that lie there go first.
    ///
    /// # Errors
    /// Those of [`Runners::start`].
    pub fn resume(
        backends: &[Backend],
        limits: Limits,
        clock: &Clock,
        outside: &Arc<Outside>,
        keeps: Keeps,
    ) -> io::Result<Self> {
        let (shelf, totals) = keeps.totals.unzip();
        let mut runners = Self::prepare(backends, clock, outside, shelf, keeps.spool)?;
        runners.launch(backends, limits, &totals.unwrap_or_default())?;
        Ok(runners)
    }

    /// Starts what is fed with packets: the repeater. Nobody takes flushes before [`Runners::launch`].
    ///
    /// # Errors
    /// Those of [`Runners::start`].
    pub fn prepare(
        backends: &[Backend],
        clock: &Clock,
        outside: &Arc<Outside>,
        shelf: Option<Shelf>,
        spooling: Option<spool::Options>,
    ) -> io::Result<Self> {
        let mut runners = Self {
            running: Vec::new(),
            retired: Vec::new(),
            outboxes: Outboxes::default(),
            limits: Limits::default(),
            clock: clock.clone(),
            repeater: None,
            outside: outside.clone(),
            shelf,
            spooling,
            patient_until: None,
            spools: Vec::new(),
        };
        // Named twice it is still one.
        if let Some(options) = backends.iter().find_map(Backend::repeater) {
            runners.repeater = repeater::start(options, outside)?;
        }
        Ok(runners)
    }

    /// The process before this one has its flushes on disk still: until then that is as it should be.
    pub fn wait_for_spools(&mut self, until: Instant) {
        self.patient_until = Some(until);
    }

    /// Starts the backends that are fed with flushes. Those that have running totals go on with these, when
    /// there is a shelf.
    ///
    /// # Errors
    /// Those of [`Runners::start`].
    pub fn launch(
        &mut self,
        backends: &[Backend],
        limits: Limits,
        totals: &Arc<Totals>,
    ) -> io::Result<()> {
        if let Some(options) = &self.spooling {
            let configured: Vec<_> = backends.iter().map(Backend::name).collect();
            spool::name_others(options, &SPOOLED, &configured);
        }
        self.replace(backends, limits, totals)
    }

    /// Leaves what is on disk alone to a successor, and tells the running totals of the first backend that
    /// has any, with all flushes that wait for it in memory, whether they are delivered yet, or go to the
    /// disk, or never are. The takeover may come to nothing: [`Runners::go_on`].
    pub fn leave(&self) -> Option<Totals> {
        // First: what is read from the disk until then is among those that wait.
        let all = || self.retired.iter().chain(&self.running);
        all().for_each(|runner| runner.queue.leave_disk(true));
        let (pen, queue) = self
            .running
            .iter()
            .find_map(|runner| Some((runner.pen.as_ref()?, &runner.queue)))?;
        // In this order: what is written meanwhile is still in the queue then, or was in it before.
        let waiting = queue.waiting();
        let (written, as_of) = pen.totals();
        let mut totals = Totals::clone(&written);
        let mut sums: HashMap<Name, f64> = totals.counters.drain(..).collect();
        for snapshot in waiting {
            if totals.ahead.contains(&snapshot.timestamp) {
                continue;
            }
            if queue.has_spool() {
                totals.ahead.push(snapshot.timestamp);
            }
            if as_of.is_none_or(|as_of| snapshot.timestamp > as_of) {
                for counter in &snapshot.counters {
                    *sums.entry(counter.name.clone()).or_default() += counter.value;
                }
                totals.num_stats += snapshot.num_stats() as f64;
            }
        }
        totals.counters.extend(sums);
        Some(totals)
    }

    /// What is on disk is this process's again.
    pub fn go_on(&self) {
        let all = self.retired.iter().chain(&self.running);
        all.for_each(|runner| runner.queue.leave_disk(false));
    }

    /// Where every datagram received is wanted besides, if anywhere; told once. All clones of it must be
    /// gone before [`Runners::finish`].
    pub fn copies(&mut self) -> Option<Feed> {
        self.repeater.as_mut().and_then(Repeater::feed)
    }

    /// Where to put flushes.
    pub fn outboxes(&self) -> Outboxes {
        self.outboxes.clone()
    }

    /// From the next flush on these are the backends. Those that were running with the same options go
    /// on; the others end. What waits for one of them goes to the new one of its name, or, when there is
    /// none, is delivered before it ends. The repeater is fed by workers, not with flushes: it stays as it
    /// was at the start.
    ///
    /// # Errors
    /// When the system has no thread to give; then everything stays as it was.
    pub fn exchange(&mut self, backends: &[Backend], limits: Limits) -> io::Result<()> {
        self.replace(backends, limits, &Arc::default())
    }

    /// As told; what starts and has running totals begins with these.
    fn replace(
        &mut self,
        backends: &[Backend],
        limits: Limits,
        totals: &Arc<Totals>,
    ) -> io::Result<()> {
        let mut fresh = Vec::new();
        // The one that goes on, or the one that starts; none is taken twice.
        let mut plan = Vec::with_capacity(backends.len());
        let mut kept = vec![false; self.running.len()];
        let mut names = Vec::new();
        for backend in backends.iter().filter(|it| it.repeater().is_none()) {
            // One that is named twice has its flushes twice, but on disk once.
            let is_first = !names.contains(&backend.name());
            names.push(backend.name());
            let same = (0..self.running.len()).find(|at| {
                !kept[*at] && limits == self.limits && self.running[*at].backend == *backend
            });
            if let Some(at) = same {
                kept[at] = true;
                plan.push(Ok(at));
            } else {
                plan.push(Err(fresh.len()));
                let spool = if is_first { self.spool(backend)? } else { None };
                fresh.push(Some(self.spawn(backend, limits, totals, spool)?));
            }
        }
        if let Some(shelf) = &self.shelf {
            let mut pens = plan.iter().filter_map(|from| match from {
                Ok(at) => self.running[*at].pen.as_ref(),
                Err(at) => fresh[*at]
                    .as_ref()
                    .and_then(|(_, runner)| runner.pen.as_ref()),
            });
            // Named twice, they have the same settings and totals.
            shelf.show(pens.next());
        }
        let mut boxes = self.outboxes.boxes();
        let old = boxes.drain(..).zip(self.running.drain(..));
        let mut old: Vec<_> = old.map(Some).collect();
        let mut heirs = Vec::new();
        for from in plan {
            let next = match from {
                Ok(at) => old[at].take(),
                Err(at) => {
                    heirs.push(boxes.len());
                    fresh[at].take()
                }
            };
            let (outbox, runner) = next.expect("each is planned for once");
            boxes.push(outbox);
            self.running.push(runner);
        }
        for (outbox, runner) in old.into_iter().flatten() {
            let heir = heirs
                .iter()
                .position(|at| boxes[*at].backend() == outbox.backend());
            match heir {
                Some(heir) => boxes[heirs.swap_remove(heir)].take_over(outbox),
                // Closes it.
                None => drop(outbox),
            }
            self.retired.push(runner);
        }
        self.retired.retain(|runner| !runner.thread.is_finished());
        self.limits = limits;
        Ok(())
    }

    /// The spool of a backend, if it is to have one; opened when it is wanted first.
    fn spool(&mut self, backend: &Backend) -> io::Result<Option<Arc<Spool>>> {
        let name = backend.name();
        let Some(options) = &self.spooling else {
            return Ok(None);
        };
        if !SPOOLED.contains(&name) {
            return Ok(None);
        }
        if let Some((_, spool)) = self.spools.iter().find(|(known, _)| *known == name) {
            return Ok(Some(spool.clone()));
        }
        let spool = Spool::start(options, name, self.outside.clone(), self.patient_until)?;
        self.spools.push((name, spool.clone()));
        Ok(Some(spool))
    }

    fn spawn(
        &self,
        backend: &Backend,
        limits: Limits,
        totals: &Arc<Totals>,
        spool: Option<Arc<Spool>>,
    ) -> io::Result<(Outbox, Runner)> {
        let shelf = self.shelf.as_ref().filter(|_| has_totals(backend));
        let pen = shelf.map(|shelf| shelf.pen(totals.clone()));
        let (name, wants) = (backend.name(), wants(backend));
        let (outbox, queue) = Outbox::spooled(name, wants, limits, self.outside.clone(), spool);
        let (closes_when_done, done) = bounded::<()>(0);
        let status = Arc::new(Status::new(backend.name()));
        introduce(backend, &self.clock, &status);
        let thread = {
            let (clock, outside) = (self.clock.clone(), self.outside.clone());
            let (backend, snapshots, told) = (backend.clone(), queue.clone(), status.clone());
            let pen = pen.clone();
            std::thread::Builder::new()
                .name(backend.name().into())
                .spawn(move || {
                    let _closes_when_done = closes_when_done;
                    let _abandons = Abandons(snapshots.clone());
                    run(&backend, &clock, &outside, &snapshots, &told, pen);
                })?
        };
        let runner = Runner {
            backend: backend.clone(),
            status,
            queue,
            pen,
            done,
            thread,
        };
        Ok((outbox, runner))
    }

    /// What each backend says of itself, in the order of the configuration.
    pub fn statuses(&self) -> Vec<Arc<Status>> {
        self.running
            .iter()
            .map(|runner| runner.status.clone())
            .collect()
    }

    /// Waits until every backend has delivered what is queued, at most until the deadline. What is left
    /// then stays on disk, or is counted as dropped; returns how many flushes were dropped since the start,
    /// for whatever reason.
    pub fn finish(self, deadline: Instant) -> u64 {
        for runner in self.retired.iter().chain(&self.running) {
            runner.queue.ends_by(deadline);
        }
        // Closed first: they deliver what waits, and end, while a target of the repeater may hang.
        self.outboxes.boxes().clear();
        let last_words = if self.spools.is_empty() {
            deadline
        } else {
            let left = deadline.saturating_duration_since(Instant::now());
            deadline - FOR_THE_DISK.min(left / 4)
        };
        if let Some(repeater) = self.repeater {
            repeater.finish(last_words, &self.outside);
        }
        let mut late = Vec::new();
        for runner in self.retired.into_iter().chain(self.running) {
            let ended = runner.done.recv_deadline(last_words);
            if ended.is_err_and(|error| error.is_timeout()) {
                late.push(runner);
            } else if runner.thread.join().is_err() {
                log::error!(
                    "backend {}: its thread panicked; flushes may be lost",
                    runner.status.backend()
                );
            }
        }
        // All of them before one is waited for: each has a thread for the disk.
        late.iter().for_each(|runner| runner.queue.save());
        late.iter().for_each(|runner| runner.give_up(&self.outside));
        for (_, spool) in &self.spools {
            spool.end(deadline + SLOW_DISK);
        }
        self.outside.flushes_dropped.total()
    }
}

impl Runner {
    /// Ends the outbox of a backend that took too long.
    fn give_up(&self, outside: &Outside) {
        let backend = self.status.backend();
        let posts = self.queue.take_kept();
        if posts > 0 {
            outside.posts_lost.add(posts as u64);
            log::error!(
                "backend {backend}: posts not delivered before the stop deadline and lost: {posts}"
            );
        }
        let Left { lost, on_disk } = self.queue.abandon();
        if lost > 0 {
            log::error!(
                "backend {backend}: flushes not delivered before the stop deadline and lost: {lost}; a \
                 longer `stopDeadline` gives it more time"
            );
        }
        if on_disk > 0 {
            log::warn!(
                "backend {backend}: flushes not delivered before the stop deadline stay on disk: {on_disk}"
            );
        }
    }
}

/// Which flushes a backend has something to say of, as far as can be told without its encoder.
fn wants(backend: &Backend) -> Wants {
    match backend {
        Backend::Librato(options) if options.skip_internal => librato::has_measurements,
        _ => |_| true,
    }
}

/// Whether a backend has running totals to keep.
fn has_totals(backend: &Backend) -> bool {
    matches!(backend, Backend::Librato(options) if !options.counters_as_gauges)
}

/// Sets what there is to say before the first flush, so that whoever asks early finds every number.
fn introduce(backend: &Backend, clock: &Clock, status: &Status) {
    match backend {
        Backend::Graphite(options) => Graphite::new(options, clock.clone()).tell(status),
        Backend::Console(_) => {
            let now = rounded_seconds(clock.now_ms());
            status.set(&[("lastFlush", now), ("lastException", now)]);
        }
        // Nothing, as the reference, until the first attempt.
        Backend::Librato(_) | Backend::Repeater(_) => {}
    }
}

fn run(
    backend: &Backend,
    clock: &Clock,
    outside: &Outside,
    snapshots: &Queue,
    status: &Status,
    pen: Option<Pen>,
) {
    match backend {
        Backend::Console(options) => {
            let now = || rounded_seconds(clock.now_ms());
            run_each(
                outside,
                snapshots,
                "console: standard output",
                "the redirection",
                |snapshot| {
                    let mut text = Vec::new();
                    console::encode(snapshot, options, &mut text);
                    let written = stdout::write(text);
                    let changed = if written.is_ok() {
                        "lastFlush"
                    } else {
                        "lastException"
                    };
                    status.set(&[(changed, now())]);
                    written
                },
            );
        }
        // It is fed with packets, not with flushes; see `Runners::start`.
        Backend::Repeater(_) => {}
        Backend::Librato(options) => {
            let mut librato = Librato::new(options, clock.clone()).keeping(pen);
            // Its errors name the address and the way out.
            run_until_delivered(outside, snapshots, "librato", "", |snapshot| {
                librato.deliver(snapshot, outside, status, snapshots)
            });
            librato.finish(outside, status, snapshots);
        }
        Backend::Graphite(options) => {
            let mut graphite = Graphite::new(options, clock.clone());
            let destination = format!("graphite: {}", graphite.destination());
            let setting = graphite.setting();
            run_until_delivered(outside, snapshots, &destination, setting, |snapshot| {
                let delivered = graphite.deliver(snapshot);
                graphite.tell(status);
                delivered
            });
            confirm(outside, snapshots, &destination, setting, || {
                graphite.finish()
            });
        }
    }
}
