//! A brake for lines of the log that repeat.

use std::sync::atomic::{AtomicU64, Ordering};

/// Time between two lines of one site, in milliseconds.
const QUIET_MS: u64 = 60_000;

/// Lets one line a minute through, for one site that may have much to say. Any thread may ask.
#[derive(Debug, Default)]
pub struct RateLimit {
    /// Milliseconds from which on the next line may pass; 0 before the first.
    next_ms: AtomicU64,
    suppressed: AtomicU64,
}

/// What stands behind a line that stands for several: nothing, or how many more there were.
pub fn more(suppressed: u64) -> String {
    if suppressed == 0 {
        String::new()
    } else {
        format!(" [{suppressed} more since the last report]")
    }
}

impl RateLimit {
    /// A site that has said nothing yet.
    pub const fn new() -> Self {
        Self {
            next_ms: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written at `now_ms` (a clock that does not go back, as
    /// [`super::clock::monotonic_ms`]): if so, how many were
    /// held back since the last one.
    pub fn pass(&self, now_ms: u64) -> Option<u64> {
        // Relaxed: the two only count, nothing else is published through them.
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        let later_ms = now_ms.saturating_add(QUIET_MS);
        let passes = now_ms >= next_ms
            && self
                .next_ms
                .compare_exchange(next_ms, later_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if passes {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_passes_and_the_rest_is_counted() {
        let limit = RateLimit::new();
        assert_eq!(limit.pass(5), Some(0));
        assert_eq!(limit.pass(6), None);
        assert_eq!(limit.pass(60_004), None);
        assert_eq!(limit.pass(60_005), Some(2));
        assert_eq!(limit.pass(120_005), Some(0));
        assert_eq!(limit.pass(u64::MAX), Some(0));
        assert_eq!(
            limit.pass(u64::MAX),
            Some(0),
            "a clock at its end never blocks for ever"
        );
    }

    #[test]
    fn many_threads_share_one_line() {
        let limit = RateLimit::new();
        let passed: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter_map(|_| limit.pass(7)).collect()))
                .collect();
            let passed = threads
                .into_iter()
                .map(|thread| -> Vec<u64> { thread.join().expect("no panic") });
            passed.flatten().collect()
        });
        assert_eq!(passed.len(), 1);
        // Others may have been held back between the moment the line may pass and the count it shows.
        assert_eq!(
            passed[0] + limit.pass(70_000).expect("a minute is over"),
            3999
        );
    }
}
