//! The open-loop schedule: when each metric is due is fixed before the first is sent.

use std::thread;
use std::time::{Duration, Instant};

/// Nanoseconds since the start of the run, and a way to let them pass.
pub(crate) trait Clock {
    fn now(&self) -> u64;
    fn sleep(&self, nanoseconds: u64);
}

/// The machine's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WallClock {
    start: Instant,
}

impl WallClock {
    pub(crate) fn starting_at(start: Instant) -> Self {
        Self { start }
    }

    /// Returns when the run starts.
    pub(crate) fn wait_for_start(&self) {
        thread::sleep(self.start.saturating_duration_since(Instant::now()));
    }
}

impl Clock for WallClock {
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn sleep(&self, nanoseconds: u64) {
        thread::sleep(Duration::from_nanos(nanoseconds));
    }
}

/// How fast to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    /// Lines a second.
    Paced(u64),
    /// As fast as the kernel takes them.
    Max,
}

/// Metric number `n` of a thread (from 0) is due `n / rate` after the start, whatever became of
/// those before it: sending late moves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Time between two metrics in 2^-40 ns.
    step: u128,
}

const STEP_BITS: u32 = 40;
const NANOSECONDS: u128 = 1_000_000_000;

impl Schedule {
    /// The schedule of a thread that serves `flows` of `all_flows` at `rate` metrics a second
    /// together.
    pub(crate) fn new(rate: u64, flows: u64, all_flows: u64) -> Self {
        let share = u128::from(rate) * u128::from(flows);
        Self {
            step: ((NANOSECONDS * u128::from(all_flows)) << STEP_BITS) / share,
        }
    }

    /// When the metric after `metrics` others is due, in nanoseconds since the start.
    pub(crate) fn due(&self, metrics: u64) -> u64 {
        u64::try_from((u128::from(metrics) * self.step) >> STEP_BITS).unwrap_or(u64::MAX)
    }

    /// How many metrics are due at `now`.
    pub(crate) fn due_by(&self, now: u64) -> u64 {
        let metrics = ((u128::from(now) + 1) << STEP_BITS).div_ceil(self.step.max(1));
        u64::try_from(metrics).unwrap_or(u64::MAX)
    }
}

/// Metrics due in `duration` at `rate`: those of the last, unfinished second in proportion.
pub(crate) fn metrics_in(rate: u64, duration: Duration) -> u64 {
    let metrics = u128::from(rate) * duration.as_nanos() / NANOSECONDS;
    u64::try_from(metrics).unwrap_or(u64::MAX)
}

/// How long a run of `duration` may go on to send what is overdue: a tenth more, at least 250 ms.
pub(crate) fn overtime(duration: Duration) -> Duration {
    (duration / 10).max(Duration::from_millis(250))
}

/// Whether a run that ended `late` kept a schedule of `planned` length: at most 1 % late, or 5 ms.
pub(crate) fn kept(late: Duration, planned: Duration) -> bool {
    late <= (planned / 100).max(Duration::from_millis(5))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    /// A clock that stands still unless it is told to go on; sleeping passes the time at once.
    #[derive(Debug, Default)]
    pub(crate) struct TestClock {
        pub(crate) now: Cell<u64>,
        pub(crate) slept: Cell<u64>,
    }

    impl Clock for TestClock {
        fn now(&self) -> u64 {
            self.now.get()
        }

        fn sleep(&self, nanoseconds: u64) {
            self.now.set(self.now.get() + nanoseconds);
            self.slept.set(self.slept.get() + nanoseconds);
        }
    }

    #[test]
    fn due_times_follow_the_rate_without_drift() {
        let schedule = Schedule::new(1_000_000, 1, 1);
        assert_eq!(schedule.due(0), 0);
        assert_eq!(schedule.due(1), 1_000);
        assert_eq!(schedule.due(3_600_000_000), 3_600_000_000_000);
        // 1/3 of a nanosecond a metric cannot be written down exactly, yet ten hours are not 1 us
        // off.
        let schedule = Schedule::new(3_000_000_000, 1, 1);
        let ten_hours = 36_000 * 1_000_000_000_u64;
        assert!(ten_hours - schedule.due(3 * ten_hours) < 1_000);
    }

    #[test]
    fn threads_share_the_rate_by_their_flows() {
        assert_eq!(Schedule::new(1_000, 1, 4).due(1), 4_000_000);
        assert_eq!(Schedule::new(1_000, 3, 4).due(3), 4_000_000 - 1);
    }

    #[test]
    fn due_by_counts_exactly_what_is_due() {
        for rate in [1, 7, 1_000, 1_000_000, 3_000_000_000] {
            let schedule = Schedule::new(rate, 1, 1);
            for now in [0, 1, 999, 1_000, 1_000_000_000, 1_234_567_891] {
                let count = schedule.due_by(now);
                assert!(schedule.due(count - 1) <= now, "{rate} {now} {count}");
                assert!(schedule.due(count) > now, "{rate} {now} {count}");
            }
        }
    }

    #[test]
    fn a_duration_is_a_number_of_metrics() {
        assert_eq!(metrics_in(1_000_000, Duration::from_secs(10)), 10_000_000);
        assert_eq!(metrics_in(3, Duration::from_millis(500)), 1);
        assert_eq!(metrics_in(1, Duration::from_millis(999)), 0);
    }

    #[test]
    fn overtime_and_verdict_have_their_limits() {
        assert_eq!(overtime(Duration::from_secs(60)), Duration::from_secs(6));
        assert_eq!(
            overtime(Duration::from_millis(10)),
            Duration::from_millis(250)
        );
        assert!(kept(Duration::from_millis(100), Duration::from_secs(10)));
        assert!(!kept(Duration::from_millis(101), Duration::from_secs(10)));
        assert!(kept(Duration::from_millis(5), Duration::from_millis(1)));
        assert!(!kept(Duration::from_millis(6), Duration::from_millis(1)));
    }
}
