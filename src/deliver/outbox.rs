//! Flushes that wait for one backend. Bounded: a dead backend costs its own flushes, the oldest first
//! and counted, and nobody else anything.

use super::spool::Spool;
use crate::metric::meter::Outside;
use crate::metric::snapshot::Snapshot;
use crate::runtime::clock::monotonic_ms;
use crate::runtime::rate_limit::RateLimit;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What may wait for one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Flushes (`outboxFlushes`).
    pub flushes: usize,
    /// Bytes of memory that they take together (`outboxBytes`).
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flushes: 360,
            bytes: 256 << 20,
        }
    }
}

/// Whether a backend has something to say of a flush. One it has not takes no room that others may need.
pub type Wants = fn(&Snapshot) -> bool;

/// The flusher's end. Dropping it closes the outbox: what is in it is still to be delivered.
#[derive(Debug)]
pub struct Outbox {
    shared: Arc<Shared>,
}

/// The backend's end, and that of whoever waits for the backend.
#[derive(Debug, Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    backend: &'static str,
    wants: Wants,
    limits: Limits,
    spool: Option<Share>,
    outside: Arc<Outside>,
    complaints: RateLimit,
    state: Mutex<State>,
    changed: Condvar,
}

/// What an outbox has of the spool of its backend.
#[derive(Debug)]
struct Share {
    spool: Arc<Spool>,
    /// What shows that no later outbox has it.
    pass: u64,
}

/// How many times the limits what is about to be written may take, so that a disk has its time.
const WHILE_WRITTEN: usize = 2;

/// How much longer than its deadline a stop waits for a disk that is slow: a flush that is being written
/// would be lost otherwise.
pub(super) const SLOW_DISK: Duration = Duration::from_secs(5);

/// How long one that gives up waits for the disk, when nothing ends before.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Flush {
    /// Its number in the spool.
    number: u64,
    snapshot: Arc<Snapshot>,
    /// Memory of it.
    bytes: usize,
    /// Its backend may remember it by where it lies in memory.
    tried: bool,
}

/// What became of an outbox that ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Flushes that were dropped.
    pub lost: u64,
    /// Flushes that are on disk.
    pub on_disk: u64,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first. Those that are on disk alone are not among them.
    flushes: VecDeque<Flush>,
    /// Memory of all of them.
    bytes: usize,
    /// The last attempt failed.
    failing: bool,
    /// The first is being delivered right now: it is not dropped, and counts for no limit.
    in_hand: bool,
    /// The last one sent, before all that wait, while nobody knows whether it arrived. Counts for no limit.
    sent: Option<Flush>,
    /// The number of one that was in hand when it was left on disk: it may still be delivered.
    left_in_hand: Option<u64>,
    /// What is on disk alone is a successor's.
    leaves_disk: bool,
    /// No flush will come any more from the flusher.
    closed: bool,
    /// When the process ends, once it is stopping.
    ends: Option<Instant>,
    /// Posts of a flush sent in part that the backend still has, those under way included.
    posts_left: usize,
    /// Nobody will take one out any more.
    abandoned: bool,
    /// The outbox that has taken this one's place; also of use when this one is abandoned, to one whose
    /// heir this is.
    heir: Option<Arc<Shared>>,
}

impl State {
    fn pop(&mut self) -> Option<Flush> {
        let first = self.flushes.pop_front();
        self.bytes -= first.as_ref().map_or(0, |flush| flush.bytes);
        self.in_hand = false;
        first
    }

    fn remove(&mut self, at: usize) -> Option<Flush> {
        let flush = self.flushes.remove(at)?;
        self.bytes -= flush.bytes;
        Some(flush)
    }

    /// How many stay, whatever waits: the one in hand, and one that was tried and is on disk. Read from there
    /// it would be another one to its backend, which counts it in running totals.
    fn staying(&self, spool: Option<&Spool>) -> usize {
        let was_tried = |first: &Flush| first.tried && spool.is_some_and(|it| it.has(first.number));
        usize::from(self.in_hand || self.flushes.front().is_some_and(was_tried))
    }

    /// Whether more waits than that, but for so many of the first.
    fn exceeds(&self, limits: Limits, times: usize, first: usize) -> bool {
        let stays: usize = self.flushes.range(..first).map(|it| it.bytes).sum();
        self.flushes.len() - first > limits.flushes.saturating_mul(times)
            || self.bytes - stays > limits.bytes.saturating_mul(times)
    }

    /// Lets go of the oldest that are on disk, and drops the oldest of the others, until the rest is within
    /// the limits; the newest is never dropped, so one that is larger than the limit alone has its chance.
    /// Returns how many were dropped.
    fn trim(&mut self, limits: Limits, spool: Option<&Spool>) -> u64 {
        let first = self.staying(spool);
        let mut at = first;
        while let Some(spool) = spool
            && self.exceeds(limits, 1, first)
            && let Some(flush) = self.flushes.get(at)
        {
            if !flush.tried && spool.release(flush.number) {
                self.remove(at);
            } else {
                at += 1;
            }
        }
        let mut dropped = 0;
        while self.flushes.len() > first + 1 && self.exceeds(limits, 1, first) {
            let mut at = first;
            if let Some(spool) = spool
                && !self.exceeds(limits, WHILE_WRITTEN, first)
            {
                let mut others = self.flushes.iter().skip(first);
                match others.position(|flush| !spool.is_pending(flush.number)) {
                    Some(other) => at += other,
                    None => break,
                }
                // The newest.
                if at + 1 == self.flushes.len() {
                    break;
                }
            }
            if let Some(flush) = self.remove(at) {
                dropped += u64::from(!spool.is_some_and(|spool| spool.leave(flush.number)));
            }
        }
        dropped
    }

    /// Wants everything that waits to be written.
    fn submit(&self, spool: &Spool) {
        for flush in self.flushes.iter().chain(&self.sent) {
            spool.submit(flush.number, &flush.snapshot);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spool(&self) -> Option<&Spool> {
        self.spool.as_ref().map(|share| &*share.spool)
    }

    /// Puts flushes in front of those that wait.
    fn prepend(&self, flushes: VecDeque<Flush>) {
        let mut state = self.state();
        if state.abandoned {
            let heir = state.heir.clone();
            drop(state);
            match heir {
                Some(heir) => heir.prepend(flushes),
                None => self.lost(self.leave(&flushes).lost),
            }
            return;
        }
        let first = usize::from(state.in_hand);
        for flush in flushes.into_iter().rev() {
            state.bytes += flush.bytes;
            state.flushes.insert(first, flush);
        }
        self.trimmed(state);
        self.changed.notify_all();
    }

    /// Leaves flushes to the disk, those that are there.
    fn leave(&self, flushes: &VecDeque<Flush>) -> Left {
        let Some(spool) = self.spool() else {
            return Left {
                lost: flushes.len() as u64,
                on_disk: 0,
            };
        };
        let there = flushes.iter().filter(|flush| spool.leave(flush.number));
        let on_disk = there.count() as u64;
        Left {
            lost: flushes.len() as u64 - on_disk,
            on_disk,
        }
    }

    /// Counts flushes that came from an earlier backend, when this one had ended already.
    fn lost(&self, flushes: u64) {
        if flushes > 0 {
            self.outside.flushes_dropped.add(flushes);
            log::error!(
                "{}: flushes that waited for a backend of an earlier configuration are lost: {flushes}; \
                 the one that took its place had ended before",
                self.backend
            );
        }
    }

    fn trimmed(&self, mut state: MutexGuard<'_, State>) {
        let dropped = state.trim(self.limits, self.spool());
        drop(state);
        if dropped == 0 {
            return;
        }
        self.outside.flushes_dropped.add(dropped);
        if let Some(suppressed) = self.complaints.pass(monotonic_ms()) {
            let Limits { flushes, bytes } = self.limits;
            let more = if suppressed == 0 {
                String::new()
            } else {
                format!(" [dropped {suppressed} more times since the last report]")
            };
            log::error!(
                "{}: more flushes wait than the outbox holds, so the oldest are dropped and lost; a larger \
                 `outboxFlushes` ({flushes}) or `outboxBytes` ({bytes}) keeps more{more}",
                self.backend
            );
        }
    }
}

impl Outbox {
    /// An outbox and the end its backend reads; `backend` names it in the log.
    pub fn new(
        backend: &'static str,
        wants: Wants,
        limits: Limits,
        outside: Arc<Outside>,
    ) -> (Self, Queue) {
        Self::spooled(backend, wants, limits, outside, None)
    }

    /// The same with a spool, if there is one: from now on it is this outbox's.
    pub fn spooled(
        backend: &'static str,
        wants: Wants,
        limits: Limits,
        outside: Arc<Outside>,
        spool: Option<Arc<Spool>>,
    ) -> (Self, Queue) {
        let share = |spool: Arc<Spool>| Share {
            pass: spool.pass_on(),
            spool,
        };
        let shared = Arc::new(Shared {
            backend,
            wants,
            limits,
            spool: spool.map(share),
            outside,
            complaints: RateLimit::new(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let queue = Queue {
            shared: shared.clone(),
        };
        (Self { shared }, queue)
    }

    /// Puts a flush in; past the limits the oldest that waits is left to the disk, or dropped and counted.
    /// Waits for no backend, and for no disk.
    pub fn put(&self, snapshot: &Arc<Snapshot>) {
        if !(self.shared.wants)(snapshot) {
            return;
        }
        let bytes = snapshot.memory();
        let mut state = self.shared.state();
        if state.abandoned {
            // Its backend is gone, by a fault of its own.
            self.shared.outside.flushes_dropped.add(1);
            return;
        }
        let spool = self.shared.spool();
        state.flushes.push_back(Flush {
            number: spool.map_or(0, |spool| spool.number(snapshot.timestamp)),
            snapshot: snapshot.clone(),
            bytes,
            tried: false,
        });
        state.bytes += bytes;
        // One that comes to a backend that has nothing to do is none for the disk.
        if let Some(spool) = spool
            && (state.failing || state.flushes.len() > 1 || spool.has_waiting())
        {
            state.submit(spool);
        }
        self.shared.trimmed(state);
        self.shared.changed.notify_all();
    }

    /// The name of its backend in the config file.
    pub fn backend(&self) -> &'static str {
        self.shared.backend
    }

    /// Takes the place of an outbox, which it closes: what waits there now waits here, before all else.
    /// One that is just being delivered follows if that fails.
    pub fn take_over(&self, old: Self) {
        let mut state = old.shared.state();
        let in_hand = usize::from(state.in_hand);
        let waiting = state.flushes.split_off(in_hand);
        state.bytes -= waiting.iter().map(|flush| flush.bytes).sum::<usize>();
        state.heir = Some(self.shared.clone());
        // Never two of them at once.
        drop(state);
        self.shared.prepend(waiting);
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Queue {
    /// Waits for a flush and takes the oldest in hand. It stays in the outbox until it is [`Queue::done`].
    /// `None` when the outbox is closed and empty.
    pub fn next(&self) -> Option<Arc<Snapshot>> {
        let mut state = self.shared.state();
        while !state.abandoned {
            // The heir has what is on disk, or the successor.
            let share = self.shared.spool.as_ref();
            let share = share.filter(|_| state.heir.is_none() && !state.leaves_disk);
            if let Some(Share { spool, pass }) = share {
                let first = state.flushes.front().map(|flush| flush.number);
                if let Some(number) = spool.take_oldest(*pass, first) {
                    drop(state);
                    let loaded = spool.load(number);
                    state = self.shared.state();
                    self.take_in(&mut state, spool, number, loaded);
                    continue;
                }
            }
            if let Some(first) = state.flushes.front() {
                let snapshot = first.snapshot.clone();
                state.in_hand = true;
                return Some(snapshot);
            }
            if state.closed {
                return None;
            }
            let waited = self.shared.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    fn take_in(&self, state: &mut State, spool: &Spool, number: u64, loaded: Option<Snapshot>) {
        let Some(snapshot) = loaded else { return };
        if state.abandoned || state.heir.is_some() || state.leaves_disk {
            spool.leave(number);
            return;
        }
        let bytes = snapshot.memory();
        state.bytes += bytes;
        state.flushes.push_front(Flush {
            number,
            snapshot: Arc::new(snapshot),
            bytes,
            tried: false,
        });
    }

    /// What waits in memory, the flush in hand included, the oldest first.
    pub fn waiting(&self) -> Vec<Arc<Snapshot>> {
        let state = self.shared.state();
        // One that was sent and may come again is as old as the oldest.
        let flushes = state.sent.iter().chain(&state.flushes);
        flushes.map(|flush| flush.snapshot.clone()).collect()
    }

    /// From now on what is on disk alone is not read any more, or is again.
    pub fn leave_disk(&self, leaves: bool) {
        self.shared.state().leaves_disk = leaves;
        self.shared.changed.notify_all();
    }

    /// Takes the flush in hand out. Whether it was still there: [`Queue::abandon`] may have come first.
    pub fn done(&self) -> bool {
        let mut state = self.shared.state();
        let first = if state.in_hand { state.pop() } else { None };
        let late = state.left_in_hand.take();
        state.failing = false;
        drop(state);
        match (first, self.shared.spool().zip(late)) {
            // One that was left is counted when it is still there to be let go of.
            (None, Some((spool, late))) => spool.done(late),
            (first, _) => self.is_through(first.map(|flush| flush.number)),
        }
    }

    /// Takes the flush in hand out as sent, and keeps it until [`Queue::confirm`]. Whether one sent before
    /// is confirmed by that.
    pub fn sent(&self) -> bool {
        let mut state = self.shared.state();
        if !state.in_hand {
            return false;
        }
        let sent = state.pop();
        let before = std::mem::replace(&mut state.sent, sent);
        state.failing = false;
        drop(state);
        self.is_through(before.map(|flush| flush.number))
    }

    /// Whether one was sent of which it is not known whether it arrived.
    pub fn is_unconfirmed(&self) -> bool {
        self.shared.state().sent.is_some()
    }

    /// Lets go of the flush that was [`Queue::sent`]: it has arrived. Whether there was one.
    pub fn confirm(&self) -> bool {
        let sent = self.shared.state().sent.take();
        self.is_through(sent.map(|flush| flush.number))
    }

    /// Nobody needs this flush any more. Whether there is one.
    fn is_through(&self, number: Option<u64>) -> bool {
        if let Some((spool, number)) = self.shared.spool().zip(number) {
            spool.done(number);
        }
        number.is_some()
    }

    /// Lays the flush in hand back, to be tried again.
    pub fn put_back(&self) {
        let mut state = self.shared.state();
        let was_in_hand = std::mem::take(&mut state.in_hand);
        state.left_in_hand = None;
        state.failing = true;
        if let Some(first) = state.flushes.front_mut().filter(|_| was_in_hand) {
            first.tried = true;
        }
        if let Some(spool) = self.shared.spool() {
            state.submit(spool);
        }
        self.shared.trimmed(state);
    }

    /// Whether what cannot be delivered is kept on disk.
    pub fn has_spool(&self) -> bool {
        self.shared.spool.is_some()
    }

    /// Wants everything that waits to be written, if there is a spool.
    pub fn save(&self) {
        if let Some(spool) = self.shared.spool() {
            self.shared.state().submit(spool);
        }
    }

    /// Waits so long, or until the outbox is closed. Returns whether its backend is to go on with what it has
    /// in hand: not, when another one has taken its place.
    pub fn pause(&self, at_most: Duration) -> bool {
        let state = self.shared.state();
        let open = |state: &mut State| !state.closed;
        let waited = self.shared.changed.wait_timeout_while(state, at_most, open);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.heir.is_none()
    }

    /// The process is stopping, and waits for the backend until then.
    pub fn ends_by(&self, deadline: Instant) {
        self.shared.state().ends = Some(deadline);
        self.shared.changed.notify_all();
    }

    /// Notes how many posts of a flush sent in part its backend still has.
    pub fn keeps(&self, posts: usize) {
        self.shared.state().posts_left = posts;
    }

    /// How many those are, for whoever counts them as lost: they are told once.
    pub fn take_kept(&self) -> usize {
        std::mem::take(&mut self.shared.state().posts_left)
    }

    /// Waits so long while the process is not stopping. Returns whether all that time is over.
    pub fn wait_out(&self, pause: Duration) -> bool {
        let state = self.shared.state();
        let runs = |state: &mut State| state.ends.is_none();
        let waited = self.shared.changed.wait_timeout_while(state, pause, runs);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.ends.is_none()
    }

    /// Waits so long if the process is stopping and will still be there then; returns whether it did. Before
    /// a stop there is no need: other flushes follow.
    pub fn sleep_out(&self, pause: Duration) -> bool {
        let ends = self.shared.state().ends;
        let left = ends.map(|ends| ends.saturating_duration_since(Instant::now()));
        let is_enough = left.is_some_and(|left| pause < left);
        if is_enough {
            std::thread::sleep(pause);
        }
        is_enough
    }

    /// Whether no flush will come any more.
    pub fn is_closed(&self) -> bool {
        self.shared.state().closed
    }

    /// Flushes in it and on disk, the one in hand included.
    pub fn len(&self) -> usize {
        let on_disk = self.shared.spool().map_or(0, Spool::waiting);
        self.shared.state().flushes.len() + on_disk
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the outbox: what is in it, the one in hand and the unconfirmed one included, goes to the
    /// outbox that took its place, or is left on disk, or is dropped and counted. With a spool it waits until
    /// all is written, at most until the end of the process that was told.
    pub fn abandon(&self) -> Left {
        let state = self.shared.state();
        if let Some(spool) = self.shared.spool()
            && state.heir.is_none()
        {
            state.submit(spool);
            let all = state.flushes.iter().chain(&state.sent);
            let numbers: Vec<_> = all.map(|flush| flush.number).collect();
            let until = state.ends.map(|ends| ends + SLOW_DISK);
            drop(state);
            spool.wait_for(
                &numbers,
                until.unwrap_or_else(|| Instant::now() + WRITTEN_WITHIN),
            );
        } else {
            drop(state);
        }
        let mut state = self.shared.state();
        let mut left = std::mem::take(&mut state.flushes);
        let in_hand = left.front().map(|flush| flush.number);
        let in_hand = in_hand.filter(|_| state.in_hand);
        if let Some(sent) = state.sent.take() {
            left.push_front(sent);
        }
        state.bytes = 0;
        state.in_hand = false;
        state.closed = true;
        state.abandoned = true;
        if let Some(heir) = state.heir.clone() {
            drop(state);
            self.shared.changed.notify_all();
            heir.prepend(left);
            return Left::default();
        }
        let left = self.shared.leave(&left);
        // It may arrive while the process is ending.
        state.left_in_hand = in_hand.filter(|_| self.shared.spool.is_some());
        drop(state);
        self.shared.changed.notify_all();
        self.shared.outside.flushes_dropped.add(left.lost);
        left
    }
}

#[cfg(test)]
mod tests;
