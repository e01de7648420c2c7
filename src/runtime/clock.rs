//! Time: the machine's, or a test's.

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, select, unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds on the machine's monotonic clock since the process first asked. The same for all
/// threads, so that stamps of different workers compare.
pub fn monotonic_ns() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let start = START.get_or_init(Instant::now);
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
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
pub enum Woke<C> {
    /// The time has come.
    Time,
    /// A command came first.
    Command(C),
    /// Nobody can send a command any more.
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

    /// Waits for the moment `until_ms` (Unix milliseconds) or a command, whichever comes first.
    pub fn wait<C>(&self, until_ms: u64, commands: &Receiver<C>) -> Woke<C> {
        match self {
            Self::Real => {
                let wait = Duration::from_millis(until_ms.saturating_sub(self.now_ms()));
                match commands.recv_timeout(wait) {
                    Ok(command) => Woke::Command(command),
                    Err(RecvTimeoutError::Timeout) => Woke::Time,
                    Err(RecvTimeoutError::Disconnected) => Woke::Disconnected,
                }
            }
            Self::Manual(manual) => {
                let moved = &manual.moved.1;
                while self.now_ms() < until_ms {
                    select! {
                        recv(moved) -> _ => {}
                        recv(commands) -> command => {
                            return command.map_or(Woke::Disconnected, Woke::Command);
                        }
                    }
                }
                Woke::Time
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_until_it_is_moved() {
        let manual = Manual::new(5_000);
        let clock = Clock::Manual(manual.clone());
        let (sender, commands) = unbounded();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| clock.wait(15_000, &commands));
            manual.advance(Duration::from_secs(4));
            manual.advance(Duration::from_secs(6));
            assert_eq!(waiting.join().expect("no panic"), Woke::Time);
        });
        assert_eq!(clock.now_ms(), 15_000);
        sender.send("stop").expect("open");
        assert_eq!(clock.wait(20_000, &commands), Woke::Command("stop"));
        drop(sender);
        assert_eq!(clock.wait(20_000, &commands), Woke::Disconnected);
    }
}
