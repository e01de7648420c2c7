//! Time: the machine's, or a test's.

use super::sys::time::kernel_monotonic_ns;
use crossbeam::channel::{Receiver, Sender, TryRecvError, select, unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds on the machine's monotonic clock. The same for all threads and processes, so that stamps of
/// different workers compare, and those of a process with its successor's.
pub fn monotonic_ns() -> u64 {
    kernel_monotonic_ns()
}

/// [`monotonic_ns`] in whole milliseconds.
pub fn monotonic_ms() -> u64 {
    monotonic_ns() / 1_000_000
}

/// Unix milliseconds as seconds, half rounded up as the reference rounds every time it shows.
pub fn rounded_seconds(unix_ms: u64) -> i64 {
    ((unix_ms + 500) / 1000) as i64
}

/// What the flusher's time comes from. Handed down as a value, so that a test can own it.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's wall clock.
    #[default]
    Real,
    /// Stands still until the test moves it.
    Manual(Arc<Manual>),
}

/// A clock that a test moves.
#[derive(Debug)]
pub struct Manual {
    now_ms: AtomicU64,
    moved: (Sender<()>, Receiver<()>),
}

impl Manual {
    /// Stands at `now_ms`, Unix milliseconds.
    pub fn new(now_ms: u64) -> Arc<Self> {
        Arc::new(Self {
            now_ms: AtomicU64::new(now_ms),
            moved: unbounded(),
        })
    }

    /// Moves on and lets whoever waits look again.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        // SeqCst: a test's clock, not worth an argument about anything weaker.
        self.now_ms.fetch_add(by, Ordering::SeqCst);
        // The receiver lives in self, so the channel cannot be closed.
        let _ = self.moved.0.send(());
    }
}

/// Why a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Woke<O, Q> {
    /// The time has come.
    Time,
    /// An order came first.
    Order(O),
    /// A question came first.
    Question(Q),
    /// Nobody can give an order any more.
    Disconnected,
}

impl Clock {
    /// Unix time in milliseconds.
    pub fn now_ms(&self) -> u64 {
        match self {
            Self::Real => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                }),
            Self::Manual(manual) => manual.now_ms.load(Ordering::SeqCst),
        }
    }

    /// Milliseconds on a clock that no step of the wall clock moves: what waits are reckoned by. A clock
    /// moved by hand has only one time.
    pub fn steady_ms(&self) -> u64 {
        match self {
            Self::Real => monotonic_ms(),
            Self::Manual(_) => self.now_ms(),
        }
    }

    /// What has come of orders and questions, in this order, whatever the time.
    pub fn look<O, Q>(orders: &Receiver<O>, questions: &Receiver<Q>) -> Option<Woke<O, Q>> {
        match orders.try_recv() {
            Ok(order) => Some(Woke::Order(order)),
            Err(TryRecvError::Disconnected) => Some(Woke::Disconnected),
            Err(TryRecvError::Empty) => questions.try_recv().ok().map(Woke::Question),
        }
    }

    /// Waits for a moment ([`Clock::steady_ms`]), an order or a question. What has come is taken in this
    /// order: however many ask, time and orders are not held up.
    pub fn wait<O, Q>(
        &self,
        until_ms: u64,
        orders: &Receiver<O>,
        questions: &Receiver<Q>,
    ) -> Woke<O, Q> {
        let never = crossbeam::channel::never();
        let moved = match self {
            Self::Real => &never,
            Self::Manual(manual) => &manual.moved.1,
        };
        loop {
            let now_ms = self.steady_ms();
            if now_ms >= until_ms {
                return Woke::Time;
            }
            match orders.try_recv() {
                Ok(order) => return Woke::Order(order),
                Err(TryRecvError::Disconnected) => return Woke::Disconnected,
                Err(TryRecvError::Empty) => {}
            }
            let due = match self {
                Self::Real => crossbeam::channel::after(Duration::from_millis(until_ms - now_ms)),
                Self::Manual(_) => crossbeam::channel::never(),
            };
            select! {
                recv(due) -> _ => {}
                recv(moved) -> _ => {}
                recv(orders) -> order => return order.map_or(Woke::Disconnected, Woke::Order),
                recv(questions) -> question => match question {
                    Ok(question) => return Woke::Question(question),
                    // Nobody asks any more; there may still be orders.
                    Err(_) => return self.wait(until_ms, orders, &crossbeam::channel::never()),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Receiver<()> {
        crossbeam::channel::never()
    }

    #[test]
    fn a_manual_clock_stands_until_it_is_moved() {
        let manual = Manual::new(5_000);
        let clock = Clock::Manual(manual.clone());
        let (sender, orders) = unbounded();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| clock.wait(15_000, &orders, &nobody()));
            manual.advance(Duration::from_secs(4));
            manual.advance(Duration::from_secs(6));
            assert_eq!(waiting.join().expect("no panic"), Woke::Time);
        });
        assert_eq!(clock.now_ms(), 15_000);
        sender.send("stop").expect("open");
        assert_eq!(clock.wait(20_000, &orders, &nobody()), Woke::Order("stop"));
        drop(sender);
        assert_eq!(clock.wait(20_000, &orders, &nobody()), Woke::Disconnected);
    }

    #[test]
    fn time_comes_before_orders_and_orders_before_questions() {
        let (sender, orders) = unbounded();
        let (asker, questions) = unbounded();
        sender.send("order").expect("open");
        (0..3).for_each(|n| asker.send(n).expect("open"));
        let manual = Clock::Manual(Manual::new(5_000));
        for (clock, past) in [(Clock::Real, 0), (manual, 5_000)] {
            let later = clock.steady_ms() + 3_600_000;
            assert_eq!(clock.wait(past, &orders, &questions), Woke::Time);
            assert_eq!(clock.wait(later, &orders, &questions), Woke::Order("order"));
            assert_eq!(clock.wait(later, &orders, &questions), Woke::Question(0));
            sender.send("order").expect("open");
            asker.send(0).expect("open");
            // The rest of the round goes, so that the next one begins alike.
            let rest: Vec<_> = questions.try_iter().collect();
            assert_eq!(rest.len(), 3);
            (0..3).for_each(|n| asker.send(n).expect("open"));
        }
        let soon = Clock::Real.steady_ms() + 1;
        let _ = orders.try_recv();
        questions.try_iter().for_each(drop);
        drop(asker);
        assert_eq!(Clock::Real.wait(soon, &orders, &questions), Woke::Time);
    }
}
