//! Flushes on disk: what one backend could not take, for later and for the next process (`spoolDir`).
//!
//! The outbox stays the queue; the spool is what it puts aside. A flush is copied here when it was not
//! delivered at its first attempt, or when it waits behind another, so a healthy backend costs no disk. The
//! copy lets the outbox let go of the flush when memory is short, and outlives the process. It is removed
//! when the flush is delivered. Only the thread of the spool writes, and only the thread of the backend
//! reads: neither the flusher nor another backend ever waits for the disk.
//!
//! A directory that is away, held by another process, or full costs nothing but what it would have kept: the
//! outbox goes on in memory, and the spool looks for it again each second.

mod directory;
pub mod record;

pub use directory::obstacle;

use crate::metric::meter::Outside;
use crate::metric::snapshot::Snapshot;
use crate::runtime::clock::monotonic_ms;
use crate::runtime::rate_limit::{RateLimit, more};
use crossbeam::channel::{Receiver, Sender, bounded};
use directory::{Directory, Found, NUMBER_MAX, left_in, on_disk};
use record::Refusal;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time between two looks for a directory that is away, and two tries to remove a file.
const RETRY: Duration = Duration::from_secs(1);

/// Numbers there are for the flushes of a second.
const SECOND: u64 = 1 << 30;
/// Those of them that are one process's.
const NUMBERS: u64 = 1 << 10;

/// Where flushes are kept, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The directory; each backend has one of its own in it (`spoolDir`).
    pub directory: PathBuf,
    /// Bytes of disk for each backend (`spoolBytes`).
    pub bytes: u64,
}

/// The flushes of one backend on disk, whichever of its outboxes they come from. Flushes have numbers that
/// grow in the order of their time, also from one process to the next.
#[derive(Debug)]
pub struct Spool {
    backend: &'static str,
    path: PathBuf,
    limit: u64,
    /// Where the numbers of a second begin: elsewhere than those of another process, whose flushes may be in
    /// the directory when it is seen at last.
    own: u64,
    outside: Arc<Outside>,
    patient_until: Option<Instant>,
    state: Mutex<State>,
    changed: Condvar,
    said_errors: RateLimit,
    said_refused: RateLimit,
    said_dropped: RateLimit,
    /// Closed when the thread has ended.
    done: Receiver<()>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` while it is away, or held by another process.
    directory: Option<Arc<Directory>>,
    /// Flushes that are nowhere else, with the bytes they take of the disk.
    waiting: BTreeMap<u64, u64>,
    /// Copies of flushes that an outbox has.
    copies: BTreeMap<u64, u64>,
    /// Bytes of both.
    bytes: u64,
    /// To be written.
    jobs: BTreeMap<u64, Arc<Snapshot>>,
    /// Being written.
    writing: Option<u64>,
    /// To be removed as soon as that can be done.
    unwanted: BTreeSet<u64>,
    /// Copies in a directory that is away, of flushes that an outbox still has.
    out_of_sight: BTreeSet<u64>,
    /// The number given last.
    newest: u64,
    /// Outboxes that had this spool: the last one reads from it.
    outboxes: u64,
    /// The last write failed.
    failing: bool,
    /// The directory being away was said.
    said_away: bool,
    /// How many are on disk, as told last.
    told: u64,
    /// Nothing will be wanted any more but what is.
    ended: bool,
    /// What is on disk was told for the last time, and is the next process's.
    over: bool,
}

impl State {
    fn on_disk(&self) -> u64 {
        (self.waiting.len() + self.copies.len()) as u64
    }

    fn forget(&mut self, number: u64) -> bool {
        let bytes = (self.copies.remove(&number)).or_else(|| self.waiting.remove(&number));
        self.bytes -= bytes.unwrap_or(0);
        bytes.is_some()
    }

    fn oldest(&self) -> Option<u64> {
        let first = |of: &BTreeMap<u64, u64>| of.keys().next().copied();
        [first(&self.waiting), first(&self.copies)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Lets go of the oldest until there is room for so many bytes, but of none that is newer than `number`.
    /// Whether there is room, and how many are lost by that: those an outbox has are not.
    fn make_room(&mut self, bytes: u64, limit: u64, number: u64) -> (bool, u64) {
        let mut lost = 0;
        while self.bytes + bytes > limit {
            let Some(oldest) = self.oldest().filter(|oldest| *oldest < number) else {
                return (false, lost);
            };
            lost += u64::from(self.waiting.contains_key(&oldest));
            self.forget(oldest);
            self.unwanted.insert(oldest);
        }
        (true, lost)
    }

    fn is_pending(&self, number: u64) -> bool {
        self.jobs.contains_key(&number) || self.writing == Some(number)
    }
}

impl Spool {
    /// Opens the spool of a backend, if that can be, and starts its thread. Until `patient_until` the process
    /// before this one may have it, which is no error.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn start(
        options: &Options,
        backend: &'static str,
        outside: Arc<Outside>,
        patient_until: Option<Instant>,
    ) -> io::Result<Arc<Self>> {
        let (closes_when_done, done) = bounded(0);
        let spool = Arc::new(Self {
            backend,
            path: options.directory.join(backend),
            limit: options.bytes,
            own: RandomState::new().hash_one(()) % (SECOND / NUMBERS) * NUMBERS,
            outside,
            patient_until,
            state: Mutex::default(),
            changed: Condvar::new(),
            said_errors: RateLimit::new(),
            said_refused: RateLimit::new(),
            said_dropped: RateLimit::new(),
            done,
        });
        // Before the first flush, so that what lies there goes first.
        spool.look();
        let writer = spool.clone();
        std::thread::Builder::new()
            .name(format!("spool-{backend}"))
            .spawn(move || writer.run(closes_when_done))?;
        Ok(spool)
    }

    /// Another outbox has it from now on; what that has to show to read from it.
    pub(super) fn pass_on(&self) -> u64 {
        let mut state = self.state();
        state.outboxes += 1;
        state.outboxes
    }

    /// A number for a flush that comes now.
    pub(super) fn number(&self, timestamp: i64) -> u64 {
        let mut state = self.state();
        // By its time, so that it is larger than any in a directory that was never seen.
        let second = u64::try_from(timestamp).unwrap_or(0);
        let by_time = second.saturating_mul(SECOND).saturating_add(self.own);
        state.newest = by_time.min(NUMBER_MAX / 2).max(state.newest + 1);
        state.newest
    }

    /// Wants a flush to be written, unless it is there or about to be.
    pub(super) fn submit(&self, number: u64, snapshot: &Arc<Snapshot>) {
        let mut state = self.state();
        if state.directory.is_none()
            || state.copies.contains_key(&number)
            || state.is_pending(number)
        {
            return;
        }
        state.jobs.insert(number, snapshot.clone());
        self.changed.notify_all();
    }

    /// Waits until none of these is still to be written, at most until then.
    pub(super) fn wait_for(&self, numbers: &[u64], until: Instant) {
        let mut state = self.state();
        while numbers.iter().any(|number| state.is_pending(*number)) {
            if until <= Instant::now() {
                return;
            }
            state = self.wait(state, Some(until));
        }
    }

    /// Whether a flush is about to be written.
    pub(super) fn is_pending(&self, number: u64) -> bool {
        self.state().is_pending(number)
    }

    /// Whether a flush is on disk.
    pub(super) fn has(&self, number: u64) -> bool {
        let state = self.state();
        state.copies.contains_key(&number) || state.waiting.contains_key(&number)
    }

    /// Whether flushes wait here that no outbox has.
    pub(super) fn has_waiting(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Flushes that wait here alone.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Flushes on disk.
    #[cfg(test)]
    pub(super) fn on_disk(&self) -> u64 {
        self.state().on_disk()
    }

    /// Whether the copy is all that is needed of a flush from now on: its outbox lets go of it then.
    pub(super) fn release(&self, number: u64) -> bool {
        let mut state = self.state();
        if let Some(bytes) = state.copies.remove(&number) {
            state.waiting.insert(number, bytes);
            return true;
        }
        // Found again with its directory.
        state.out_of_sight.remove(&number)
    }

    /// Takes the oldest flush that waits here alone, if it is older than this one, for the outbox that was
    /// told so; to be [`Spool::load`]ed.
    pub(super) fn take_oldest(&self, outbox: u64, than: Option<u64>) -> Option<u64> {
        let mut state = self.state();
        if state.outboxes != outbox {
            return None;
        }
        let (&number, &bytes) = state.waiting.first_key_value()?;
        if than.is_some_and(|than| than < number) {
            return None;
        }
        state.waiting.remove(&number);
        state.copies.insert(number, bytes);
        Some(number)
    }

    /// Reads a flush that was taken. `None` when it is not to be had: one that is refused is lost and
    /// counted, one whose directory is away is found again with it.
    pub(super) fn load(&self, number: u64) -> Option<Snapshot> {
        let mut state = self.state();
        let bytes = state.copies.get(&number).copied();
        let (directory, bytes) = match (state.directory.clone(), bytes) {
            (Some(directory), Some(bytes)) => (directory, bytes),
            // It made room in between.
            (Some(_), None) => {
                drop(state);
                self.count_lost(1);
                return None;
            }
            // Closed in between: it is to be found there, and no outbox has it.
            (None, _) => {
                state.out_of_sight.remove(&number);
                return None;
            }
        };
        drop(state);
        let why = match directory.read(number, bytes) {
            Ok(bytes) => match record::decode(&bytes) {
                Ok(snapshot) => return Some(snapshot),
                Err(refusal) => Err(refusal),
            },
            Err(error) => Ok(error),
        };
        if why.is_ok() && !directory.is_there() {
            self.close(&directory);
            self.state().out_of_sight.remove(&number);
            return None;
        }
        let (why, stays) = match why {
            Ok(error) => {
                let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
                let way_out = "it stays there: give it to the user that this process runs as, with chown, \
                               and restart the server";
                let stays = is_denied.then_some(way_out);
                (format!("it cannot be read: {error}"), stays)
            }
            Err(refusal) => {
                let is_ours = matches!(refusal, Refusal::Version(_));
                let stays = is_ours.then_some("it stays there for that version");
                (refusal.to_string(), stays)
            }
        };
        let outcome = if let Some(stays) = stays {
            stays.into()
        } else {
            self.outside.flushes_dropped.add(1);
            match directory.set_aside(number) {
                Ok(aside) => format!("it is lost, and kept as {}", aside.display()),
                Err(error) => {
                    self.state().unwanted.insert(number);
                    format!("it is lost, and could not be set aside: {error}")
                }
            }
        };
        self.outside.spool_errors.add(1);
        let mut state = self.state();
        state.forget(number);
        self.tell(&mut state);
        drop(state);
        if let Some(suppressed) = self.said_refused.pass(monotonic_ms()) {
            log::error!(
                "spool: {}/{number:020}.flush is not used, nothing of it: {why}; {outcome}{}",
                self.path.display(),
                more(suppressed)
            );
        }
        None
    }

    /// Lets go of a flush that was delivered. Whether it was on disk to be let go of.
    pub(super) fn done(&self, number: u64) -> bool {
        let mut state = self.state();
        if state.over {
            return false;
        }
        state.jobs.remove(&number);
        let unseen = state.out_of_sight.remove(&number);
        if state.writing == Some(number) || unseen {
            state.unwanted.insert(number);
            return false;
        }
        if !state.forget(number) {
            return false;
        }
        self.tell(&mut state);
        // Here, and not by the other thread: until it is gone a process that dies would send it again.
        if let Some(directory) = state.directory.clone() {
            // A process that is about to end waits for it.
            let ending = state.ended.then_some(state);
            let removed = directory.remove(number);
            drop(ending);
            if let Err(error) = removed {
                self.not_removed(&directory, number, &error);
            }
        }
        true
    }

    /// The same for a flush that was given up. Does not touch the disk.
    pub(super) fn discard(&self, number: u64) {
        let mut state = self.state();
        state.jobs.remove(&number);
        let unseen = state.out_of_sight.remove(&number);
        if state.forget(number) || state.writing == Some(number) || unseen {
            state.unwanted.insert(number);
            self.tell(&mut state);
            self.changed.notify_all();
        }
    }

    /// Leaves a flush to the next outbox, or the next process. Whether it is here to be left.
    pub(super) fn leave(&self, number: u64) -> bool {
        if self.release(number) {
            return true;
        }
        self.discard(number);
        false
    }

    /// Ends the thread when all is written, and waits for that at most until then.
    pub(super) fn end(&self, until: Instant) {
        self.state().ended = true;
        self.changed.notify_all();
        // Late, it has nothing left that is wanted.
        let _ = self.done.recv_deadline(until);
        let mut state = self.state();
        state.over = true;
        let left = state.on_disk();
        drop(state);
        if left > 0 {
            log::info!(
                "spool: {}: flushes on disk for the next start: {left}",
                self.path.display()
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, state: &mut State) {
        let now = state.on_disk();
        self.outside.flushes_on_disk.change(state.told, now);
        state.told = now;
    }

    fn run(&self, _closes_when_done: Sender<()>) {
        let mut state = self.state();
        // When what failed is tried again.
        let mut again = Instant::now();
        loop {
            let may_try = again <= Instant::now();
            let Some(directory) = state.directory.clone() else {
                if state.ended {
                    return;
                }
                if may_try {
                    drop(state);
                    self.look();
                    again = Instant::now() + RETRY;
                    state = self.state();
                } else {
                    state = self.wait(state, Some(again));
                }
                continue;
            };
            let unwanted = state.unwanted.first().copied();
            if let Some(number) = unwanted.filter(|_| may_try) {
                state.unwanted.remove(&number);
                drop(state);
                if !self.remove(&directory, number) {
                    again = Instant::now() + RETRY;
                }
                state = self.state();
            } else if let Some((number, snapshot)) = state.jobs.pop_first() {
                state.writing = Some(number);
                drop(state);
                self.write(&directory, number, &snapshot);
                state = self.state();
            } else if state.ended {
                let gone = std::mem::take(&mut state.unwanted);
                drop(state);
                // What cannot be removed now, the next process sends again.
                gone.into_iter().for_each(|gone| {
                    self.remove(&directory, gone);
                });
                // From now on the lock may be another process's.
                self.state().directory = None;
                return;
            } else {
                state = self.wait(state, unwanted.map(|_| again));
            }
        }
    }

    /// Waits for a change, at most until then.
    fn wait<'s>(
        &self,
        state: MutexGuard<'s, State>,
        until: Option<Instant>,
    ) -> MutexGuard<'s, State> {
        let Some(until) = until else {
            let waited = self.changed.wait(state);
            return waited.unwrap_or_else(PoisonError::into_inner);
        };
        let left = until.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout(state, left);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Looks for the directory, and takes in what is there.
    fn look(&self) {
        let looked = Directory::open(&self.path).and_then(|it| it.scan().map(|found| (it, found)));
        let shown = self.path.display();
        let mut state = self.state();
        let (directory, Found { flushes, foreign }) = match looked {
            Ok(looked) => looked,
            Err(_)
                if self
                    .patient_until
                    .is_some_and(|until| Instant::now() < until) =>
            {
                return;
            }
            Err(error) => {
                if !std::mem::replace(&mut state.said_away, true) {
                    self.outside.spool_errors.add(1);
                    log::error!(
                        "spool: {shown} cannot be used: {error}; flushes of {} wait in memory only, and \
                         those there, if any, are not sent, until it can be: make the directory, give this \
                         user the right to write there, or write another path into spoolDir",
                        self.backend
                    );
                }
                return;
            }
        };
        let unseen = std::mem::take(&mut state.out_of_sight);
        for (number, bytes) in flushes {
            if state.unwanted.contains(&number) {
                continue;
            }
            state.newest = state.newest.max(number);
            state.bytes += bytes;
            let place = if unseen.contains(&number) {
                &mut state.copies
            } else {
                &mut state.waiting
            };
            place.insert(number, bytes);
        }
        let waiting = state.waiting.len();
        let (_, lost) = state.make_room(0, self.limit, u64::MAX);
        state.directory = Some(Arc::new(directory));
        let was_away = std::mem::take(&mut state.said_away);
        self.tell(&mut state);
        drop(state);
        if was_away {
            log::info!("spool: {shown} can be used again");
        }
        if waiting > 0 {
            log::info!("spool: {shown}: flushes on disk, which go first: {waiting}");
        }
        if !foreign.is_empty() {
            log::warn!(
                "spool: {shown} has in it what is no flush, and is left alone: {}",
                foreign.join(", ")
            );
        }
        self.count_lost(lost);
    }

    /// Stops using a directory that is away.
    fn close(&self, directory: &Arc<Directory>) {
        let mut state = self.state();
        let current = state.directory.as_ref();
        if !current.is_some_and(|current| Arc::ptr_eq(current, directory)) {
            return;
        }
        state.directory = None;
        state.waiting.clear();
        let copies = std::mem::take(&mut state.copies);
        state.out_of_sight.extend(copies.into_keys());
        state.jobs.clear();
        state.bytes = 0;
        state.said_away = true;
        self.tell(&mut state);
        drop(state);
        self.changed.notify_all();
        self.complain(
            &"the directory is not there any more",
            "what is in it is sent when it comes back",
        );
    }

    /// Removes a file. What cannot be removed now is to be later; whether it was.
    fn remove(&self, directory: &Arc<Directory>, number: u64) -> bool {
        match directory.remove(number) {
            Ok(()) => true,
            Err(error) => self.not_removed(directory, number, &error),
        }
    }

    /// Sees to a file that could not be removed. Whether it is gone all the same.
    fn not_removed(&self, directory: &Arc<Directory>, number: u64, error: &io::Error) -> bool {
        let is_there = directory.is_there();
        if is_there && error.kind() == io::ErrorKind::NotFound {
            return true;
        }
        self.state().unwanted.insert(number);
        self.changed.notify_all();
        if is_there {
            self.complain(
                error,
                "a flush that is through could not be removed, and would be sent again after a restart",
            );
        } else {
            self.close(directory);
        }
        false
    }

    fn write(&self, directory: &Arc<Directory>, number: u64, snapshot: &Snapshot) {
        let bytes = record::encode(snapshot);
        let size = on_disk(bytes.len() as u64);
        let mut state = self.state();
        let (fits, lost) = if size > self.limit {
            (false, 0)
        } else {
            state.make_room(size, self.limit, number)
        };
        // Older than all that is there, it would be the first to go.
        if !fits {
            state.writing = None;
        }
        let gone = std::mem::take(&mut state.unwanted);
        self.tell(&mut state);
        drop(state);
        self.count_lost(lost);
        // First, for there may be no room before.
        gone.into_iter().for_each(|gone| {
            self.remove(directory, gone);
        });
        if !fits {
            self.changed.notify_all();
            if size > self.limit {
                let limit = self.limit;
                let what = format!("one alone takes {size} bytes, and spoolBytes is {limit}");
                self.complain(
                    &what,
                    "flushes wait in memory only; write more into spoolBytes",
                );
            }
            return;
        }
        // Another one may have taken its place, which is another process's to write in.
        let written = match directory.is_there() {
            true => directory.write(number, &bytes),
            false => Err(io::ErrorKind::NotFound.into()),
        };
        let is_there = directory.is_there();
        let mut state = self.state();
        state.writing = None;
        match written {
            Ok(()) if !is_there => {
                state.out_of_sight.insert(number);
                drop(state);
                self.close(directory);
            }
            Ok(()) => {
                if !state.unwanted.contains(&number) {
                    state.copies.insert(number, size);
                    state.bytes += size;
                    self.outside.flushes_spooled.add(1);
                    self.tell(&mut state);
                }
                let recovered = std::mem::take(&mut state.failing);
                drop(state);
                if recovered {
                    log::info!("spool: {}: flushes are written again", self.path.display());
                }
            }
            Err(error) => {
                state.unwanted.remove(&number);
                state.jobs.clear();
                state.failing = true;
                drop(state);
                if is_there {
                    self.complain(
                        &error,
                        "flushes wait in memory only until one can be written: make room, or give this user \
                         the right to write there",
                    );
                } else {
                    self.close(directory);
                }
            }
        }
        self.changed.notify_all();
    }

    fn complain(&self, what: &dyn std::fmt::Display, outcome: &str) {
        self.outside.spool_errors.add(1);
        if let Some(suppressed) = self.said_errors.pass(monotonic_ms()) {
            let (shown, more) = (self.path.display(), more(suppressed));
            log::error!("spool: {shown}: {what}; {outcome}{more}");
        }
    }

    fn count_lost(&self, lost: u64) {
        if lost == 0 {
            return;
        }
        self.outside.flushes_dropped.add(lost);
        if let Some(suppressed) = self.said_dropped.pass(monotonic_ms()) {
            log::error!(
                "{}: more flushes wait than the disk is to hold, so the oldest are dropped and lost; a \
                 larger `spoolBytes` ({}) keeps more{}",
                self.backend,
                self.limit,
                more(suppressed)
            );
        }
    }
}

/// Names the flushes of backends that are not configured: they stay where they are.
pub(super) fn name_others(options: &Options, known: &[&str], configured: &[&str]) {
    for backend in known.iter().filter(|it| !configured.contains(it)) {
        let path = options.directory.join(backend);
        let left = left_in(&path);
        if left > 0 {
            log::warn!(
                "spool: {}: flushes on disk of a backend that is not configured: {left}; they are sent when \
                 it is again, or remove them",
                path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A spool in a directory that goes with the test.
    struct Place {
        path: PathBuf,
        outside: Arc<Outside>,
    }

    impl Place {
        fn of(test: &str) -> Self {
            let name = format!("statsd-fast-spools-{test}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&path);
            Self {
                path,
                outside: Arc::new(Outside::default()),
            }
        }

        fn spool(&self, blocks: u64) -> Arc<Spool> {
            let options = Options {
                directory: self.path.clone(),
                bytes: blocks * 4096,
            };
            Spool::start(&options, "test", self.outside.clone(), None).expect("a thread")
        }

        fn files(&self) -> usize {
            left_in(&self.path.join("test"))
        }

        fn is_moved(&self, away: bool) {
            let aside = self.path.with_extension("away");
            let (from, to) = if away {
                (&self.path, &aside)
            } else {
                (&aside, &self.path)
            };
            fs::rename(from, to).expect("moved");
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.path);
        }
    }

    fn flush(timestamp: i64) -> Arc<Snapshot> {
        Arc::new(Snapshot {
            timestamp,
            ..Snapshot::default()
        })
    }

    fn written(spool: &Spool, timestamp: i64) -> u64 {
        let number = spool.number(timestamp);
        spool.submit(number, &flush(timestamp));
        spool.wait_for(&[number], soon());
        number
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn wait_until(done: impl Fn() -> bool) {
        let until = soon();
        while !done() {
            assert!(Instant::now() < until, "waited in vain");
            std::thread::yield_now();
        }
    }

    #[test]
    fn numbers_grow_with_time_and_without() {
        let place = Place::of("numbers");
        let spool = place.spool(9);
        let times = [5, 5, 4, 6, -1, i64::MAX, i64::MAX, 7];
        let numbers = times.map(|it| spool.number(it));
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        assert_eq!(numbers[2] - numbers[0], 2);
        assert_eq!(numbers[3] - numbers[0], 1 << 30, "a second");
    }

    #[test]
    fn two_that_flush_at_once_overwrite_nothing_of_each_other() {
        let place = Place::of("two");
        let (first, second) = (place.spool(9), place.spool(9));
        let pass = second.pass_on();
        let number = written(&first, 7);
        first.leave(number);
        // Without the directory so far.
        let other = second.number(7);
        first.end(soon());
        wait_until(|| second.has_waiting());
        second.submit(other, &flush(8));
        second.wait_for(&[other], soon());
        assert_eq!((second.on_disk(), place.files()), (2, 2));
        assert!(second.release(other));
        let mut taken = Vec::new();
        while let Some(number) = second.take_oldest(pass, None) {
            taken.push(second.load(number).expect("whole").timestamp);
        }
        taken.sort_unstable();
        assert_eq!(taken, [7, 8]);
    }

    #[test]
    fn what_arrives_after_the_account_changes_nothing() {
        let place = Place::of("over");
        let spool = place.spool(9);
        let (first, second) = (written(&spool, 1), written(&spool, 2));
        spool.leave(first);
        spool.leave(second);
        assert!(spool.done(first));
        spool.end(soon());
        assert!(!spool.done(second), "the next process sends it");
        assert_eq!((spool.on_disk(), place.files()), (1, 1));
        assert_eq!(place.outside.flushes_on_disk.now(), 1);
    }

    #[test]
    fn what_waits_is_taken_by_the_last_outbox_the_oldest_first() {
        let place = Place::of("taken");
        let spool = place.spool(9);
        let (old, new) = (spool.pass_on(), spool.pass_on());
        let (first, second) = (written(&spool, 1), written(&spool, 2));
        assert!(spool.has(first) && !spool.has_waiting());
        assert_eq!(spool.take_oldest(new, None), None, "an outbox has them");
        assert!(spool.release(second) && spool.release(first));
        assert!(!spool.release(first), "it is here alone already");
        assert_eq!((spool.waiting(), spool.on_disk()), (2, 2));
        assert_eq!(spool.take_oldest(old, None), None);
        assert_eq!(spool.take_oldest(new, Some(first - 1)), None);
        assert_eq!(spool.take_oldest(new, Some(second)), Some(first));
        assert_eq!(spool.load(first).expect("whole").timestamp, 1);
        spool.done(first);
        assert_eq!(place.files(), 1);
        assert_eq!(spool.take_oldest(new, None), Some(second));
        spool.discard(second);
        spool.end(soon());
        assert_eq!((place.files(), place.outside.flushes_on_disk.now()), (0, 0));
        assert_eq!(place.outside.flushes_dropped.total(), 0);
    }

    #[test]
    fn only_what_no_outbox_has_is_lost_for_room() {
        let place = Place::of("room");
        let spool = place.spool(2);
        let (first, second) = (written(&spool, 1), written(&spool, 2));
        spool.release(first);
        let third = written(&spool, 3);
        assert_eq!(place.outside.flushes_dropped.total(), 1);
        assert!(!spool.has(first) && spool.has(second) && spool.has(third));
        written(&spool, 4);
        assert_eq!(place.outside.flushes_dropped.total(), 1);
        assert!(!spool.release(second), "it has to stay in memory");
        // It would be the first to go.
        spool.submit(second, &flush(2));
        spool.wait_for(&[second], soon());
        assert!(!spool.has(second));
        assert_eq!(place.files(), 2);
        assert_eq!(place.outside.spool_errors.total(), 0);
    }

    #[test]
    fn what_is_through_while_the_directory_is_away_is_not_sent_when_it_is_back() {
        let place = Place::of("away");
        let spool = place.spool(9);
        let pass = spool.pass_on();
        let numbers: Vec<_> = (1..=4).map(|it| written(&spool, it)).collect();
        spool.release(numbers[3]);
        place.is_moved(true);
        // This notices.
        spool.done(numbers[0]);
        assert_eq!(spool.on_disk(), 0);
        spool.done(numbers[1]);
        assert!(spool.release(numbers[2]), "it is where it is");
        spool.submit(numbers[3], &flush(4));
        assert!(!spool.is_pending(numbers[3]), "there is no disk");
        assert_eq!(spool.take_oldest(pass, None), None);
        place.is_moved(false);
        wait_until(|| spool.on_disk() == 2);
        let mut taken = Vec::new();
        while let Some(number) = spool.take_oldest(pass, None) {
            taken.push(spool.load(number).expect("whole").timestamp);
        }
        assert_eq!(taken, [3, 4]);
        wait_until(|| place.files() == 2);
        assert_eq!(place.outside.spool_errors.total(), 1);
        assert_eq!(place.outside.flushes_dropped.total(), 0);
    }

    #[test]
    fn a_file_that_somebody_removed_is_lost_and_said() {
        let place = Place::of("removed");
        let spool = place.spool(9);
        let pass = spool.pass_on();
        let number = written(&spool, 1);
        spool.release(number);
        let name = format!("{number:020}.flush");
        fs::remove_file(place.path.join("test").join(name)).expect("removed");
        assert_eq!(spool.take_oldest(pass, None), Some(number));
        assert!(spool.load(number).is_none());
        assert_eq!(place.outside.flushes_dropped.total(), 1);
        assert_eq!(place.outside.spool_errors.total(), 1);
        assert_eq!(spool.on_disk(), 0);
    }

    #[test]
    fn an_end_lets_another_process_in() {
        let place = Place::of("end");
        let spool = place.spool(9);
        let number = written(&spool, 1);
        assert!(spool.leave(number));
        spool.end(soon());
        let next = place.spool(9);
        assert_eq!((next.waiting(), next.on_disk()), (1, 1));
        assert!(next.number(0) > number);
    }
}
