//! Flushes that wait for one backend. Bounded: a dead backend costs its own flushes, the oldest first
//! and counted, and nobody else anything.

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
    outside: Arc<Outside>,
    complaints: RateLimit,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first, each with its memory.
    flushes: VecDeque<(Arc<Snapshot>, usize)>,
    /// Memory of all of them.
    bytes: usize,
    /// The first is being delivered right now: it is not dropped, and counts for no limit.
    in_hand: bool,
    /// The last one sent, before all that wait, while nobody knows whether it arrived. Counts for no limit.
    sent: Option<(Arc<Snapshot>, usize)>,
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
    fn pop(&mut self) -> Option<(Arc<Snapshot>, usize)> {
        let first = self.flushes.pop_front();
        self.bytes -= first.as_ref().map_or(0, |(_, bytes)| *bytes);
        self.in_hand = false;
        first
    }

    /// Drops the oldest until the rest is within the limits; the newest is never dropped, so one
    /// that is larger than the limit alone has its chance. Returns how many were dropped.
    fn trim(&mut self, limits: Limits) -> u64 {
        let first = usize::from(self.in_hand);
        let in_hand = if self.in_hand { self.flushes[0].1 } else { 0 };
        let mut dropped = 0;
        while self.flushes.len() > first + 1
            && (self.flushes.len() - first > limits.flushes || self.bytes - in_hand > limits.bytes)
        {
            if let Some((_, bytes)) = self.flushes.remove(first) {
                self.bytes -= bytes;
                dropped += 1;
            }
        }
        dropped
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts flushes in front of those that wait.
    fn prepend(&self, flushes: VecDeque<(Arc<Snapshot>, usize)>) {
        let mut state = self.state();
        if state.abandoned {
            let heir = state.heir.clone();
            drop(state);
            match heir {
                Some(heir) => heir.prepend(flushes),
                None => self.lost(flushes.len() as u64),
            }
            return;
        }
        let first = usize::from(state.in_hand);
        for (snapshot, bytes) in flushes.into_iter().rev() {
            state.bytes += bytes;
            state.flushes.insert(first, (snapshot, bytes));
        }
        self.trimmed(state);
        self.changed.notify_all();
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
        let dropped = state.trim(self.limits);
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
        let shared = Arc::new(Shared {
            backend,
            wants,
            limits,
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

    /// Puts a flush in; past the limits the oldest that waits is dropped and counted. Waits for no backend.
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
        state.flushes.push_back((snapshot.clone(), bytes));
        state.bytes += bytes;
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
        state.bytes -= waiting.iter().map(|(_, bytes)| bytes).sum::<usize>();
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
        let state = self.shared.state();
        let empty = |state: &mut State| state.flushes.is_empty() && !state.closed;
        let state = self.shared.changed.wait_while(state, empty);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let (snapshot, _) = state.flushes.front()?;
        let snapshot = snapshot.clone();
        state.in_hand = true;
        Some(snapshot)
    }

    /// Takes the flush in hand out. Whether it was still there: [`Queue::abandon`] may have come first.
    pub fn done(&self) -> bool {
        let mut state = self.shared.state();
        let there = state.in_hand;
        if there {
            state.pop();
        }
        there
    }

    /// Takes the flush in hand out as sent, and keeps it until [`Queue::confirm`]. Whether one sent before
    /// is confirmed by that.
    pub fn sent(&self) -> bool {
        let mut state = self.shared.state();
        if !state.in_hand {
            return false;
        }
        let sent = state.pop();
        std::mem::replace(&mut state.sent, sent).is_some()
    }

    /// Whether one was sent of which it is not known whether it arrived.
    pub fn is_unconfirmed(&self) -> bool {
        self.shared.state().sent.is_some()
    }

    /// Lets go of the flush that was [`Queue::sent`]: it has arrived. Whether there was one.
    pub fn confirm(&self) -> bool {
        self.shared.state().sent.take().is_some()
    }

    /// Lays the flush in hand back, to be tried again.
    pub fn put_back(&self) {
        let mut state = self.shared.state();
        state.in_hand = false;
        self.shared.trimmed(state);
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

    /// Flushes in it, the one in hand included.
    pub fn len(&self) -> usize {
        self.shared.state().flushes.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the outbox: what is in it, the one in hand and the unconfirmed one included, goes to the
    /// outbox that took its place, or is dropped and counted. Returns how many were dropped.
    pub fn abandon(&self) -> u64 {
        let mut state = self.shared.state();
        let mut left = std::mem::take(&mut state.flushes);
        if let Some(sent) = state.sent.take() {
            left.push_front(sent);
        }
        state.bytes = 0;
        state.in_hand = false;
        state.closed = true;
        state.abandoned = true;
        let heir = state.heir.clone();
        drop(state);
        self.shared.changed.notify_all();
        if let Some(heir) = heir {
            heir.prepend(left);
            return 0;
        }
        let lost = left.len() as u64;
        self.shared.outside.flushes_dropped.add(lost);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flush(timestamp: i64, samples: usize) -> Arc<Snapshot> {
        Arc::new(Snapshot {
            timestamp,
            samples: vec![0.0; samples],
            ..Snapshot::default()
        })
    }

    fn outbox(flushes: usize, bytes: usize) -> (Outbox, Queue, Arc<Outside>) {
        let outside = Arc::new(Outside::default());
        let (outbox, queue) =
            Outbox::new("test", |_| true, Limits { flushes, bytes }, outside.clone());
        (outbox, queue, outside)
    }

    /// Closes the outbox and takes everything out.
    fn left(outbox: Outbox, queue: &Queue) -> Vec<i64> {
        drop(outbox);
        let mut left = Vec::new();
        while let Some(snapshot) = queue.next() {
            left.push(snapshot.timestamp);
            assert!(queue.done());
        }
        left
    }

    #[test]
    fn the_oldest_make_room_and_the_rest_keeps_its_order() {
        let (outbox, queue, outside) = outbox(3, usize::MAX);
        (0..7).for_each(|timestamp| outbox.put(&flush(timestamp, 0)));
        assert_eq!(outside.flushes_dropped.total(), 4);
        assert_eq!(queue.len(), 3);
        assert_eq!(left(outbox, &queue), [4, 5, 6]);
        assert_eq!(outside.flushes_dropped.total(), 4);
    }

    #[test]
    fn memory_is_a_limit_too_but_the_newest_is_kept() {
        let two = flush(0, 1000).memory() + flush(1, 1000).memory();
        let (outbox, queue, outside) = outbox(10, two);
        (0..4).for_each(|timestamp| outbox.put(&flush(timestamp, 1000)));
        assert_eq!(outside.flushes_dropped.total(), 2);
        assert_eq!(queue.len(), 2);
        outbox.put(&flush(4, 1_000_000));
        assert_eq!(outside.flushes_dropped.total(), 4);
        assert_eq!(left(outbox, &queue), [4]);
    }

    #[test]
    fn the_one_in_hand_is_not_dropped_before_it_is_laid_back() {
        let (outbox, queue, outside) = outbox(2, usize::MAX);
        outbox.put(&flush(0, 0));
        assert_eq!(queue.next().expect("a flush").timestamp, 0);
        (1..5).for_each(|timestamp| outbox.put(&flush(timestamp, 0)));
        assert_eq!(outside.flushes_dropped.total(), 2, "1 and 2");
        assert_eq!(queue.len(), 3);
        queue.put_back();
        assert_eq!(outside.flushes_dropped.total(), 3);
        assert_eq!(left(outbox, &queue), [3, 4]);
    }

    #[test]
    fn what_is_abandoned_is_counted_once() {
        let (outbox, queue, outside) = outbox(5, usize::MAX);
        (0..3).for_each(|timestamp| outbox.put(&flush(timestamp, 0)));
        queue.next().expect("a flush");
        assert_eq!(queue.abandon(), 3);
        assert!(
            !queue.done(),
            "the flush in hand was counted as lost already"
        );
        assert_eq!(queue.abandon(), 0);
        outbox.put(&flush(3, 0));
        assert_eq!(outside.flushes_dropped.total(), 4);
        assert!(queue.next().is_none());
    }

    #[test]
    fn an_outbox_that_takes_over_loses_nothing_and_keeps_the_order() {
        let (old, old_queue, outside) = outbox(9, usize::MAX);
        let (new, queue) = Outbox::new("test", |_| true, Limits::default(), outside.clone());
        (0..4).for_each(|timestamp| old.put(&flush(timestamp, 0)));
        old_queue.next().expect("a flush");
        new.put(&flush(4, 0));
        new.take_over(old);
        assert!(old_queue.is_closed());
        assert_eq!((old_queue.len(), queue.len()), (1, 4));
        // What was in hand could not be delivered, while the heir has its oldest in hand.
        assert_eq!(queue.next().expect("a flush").timestamp, 1);
        assert_eq!(old_queue.abandon(), 0);
        assert!(old_queue.next().is_none());
        queue.put_back();
        assert_eq!(left(new, &queue), [1, 0, 2, 3, 4], "each has its own time");
        assert_eq!(outside.flushes_dropped.total(), 0);
    }

    #[test]
    fn an_heir_that_has_ended_passes_on_what_it_inherits() {
        let outside = Arc::new(Outside::default());
        let new = || Outbox::new("test", |_| true, Limits::default(), outside.clone());
        let ((first, first_queue), (second, second_queue), (third, queue)) = (new(), new(), new());
        (0..2).for_each(|timestamp| first.put(&flush(timestamp, 0)));
        first_queue.next().expect("a flush");
        second.take_over(first);
        third.take_over(second);
        // The second has nothing to do and ends, while the first is still at its delivery.
        assert!(second_queue.next().is_none());
        assert_eq!(second_queue.abandon(), 0);
        assert_eq!(first_queue.abandon(), 0);
        assert_eq!(left(third, &queue), [0, 1]);
        assert_eq!(outside.flushes_dropped.total(), 0);
    }

    #[test]
    fn what_was_sent_is_kept_until_it_is_confirmed() {
        let (old, old_queue, outside) = outbox(9, usize::MAX);
        let (new, queue) = Outbox::new("test", |_| true, Limits::default(), outside.clone());
        assert!(!old_queue.sent(), "nothing is in hand");
        (0..4).for_each(|timestamp| old.put(&flush(timestamp, 0)));
        for confirmed in [false, true, true] {
            old_queue.next().expect("a flush");
            assert_eq!(old_queue.sent(), confirmed);
        }
        assert!(old_queue.is_unconfirmed());
        assert!(old_queue.confirm());
        assert!(!old_queue.confirm());
        old_queue.next().expect("a flush");
        assert!(!old_queue.sent());
        assert!(old_queue.is_empty());
        new.put(&flush(4, 0));
        new.take_over(old);
        assert_eq!(old_queue.abandon(), 0);
        assert!(!old_queue.confirm(), "it is the heir's");
        queue.next().expect("a flush");
        assert!(!queue.sent());
        assert_eq!(queue.abandon(), 2, "the one sent and the one that waits");
        assert_eq!(outside.flushes_dropped.total(), 2);
        drop(new);
    }

    #[test]
    fn posts_kept_are_told_once_and_a_stop_ends_the_wait_for_them() {
        let (_outbox, queue, _) = outbox(10, 10);
        queue.keeps(3);
        assert_eq!((queue.take_kept(), queue.take_kept()), (3, 0));
        assert!(queue.wait_out(Duration::from_millis(1)), "nobody stops");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| queue.wait_out(Duration::from_secs(3600)));
            queue.ends_by(Instant::now());
            assert!(!waits.join().expect("no panic"), "the stop came before");
        });
    }

    #[test]
    fn a_closed_outbox_ends_every_wait() {
        let (outbox, queue, _) = outbox(5, usize::MAX);
        assert!(!queue.is_closed());
        std::thread::scope(|scope| {
            let next = scope.spawn(|| queue.next());
            let pause = scope.spawn(|| queue.pause(Duration::from_secs(3600)));
            drop(outbox);
            assert!(next.join().expect("no panic").is_none());
            pause.join().expect("no panic");
        });
        assert!(queue.is_closed());
    }
}
