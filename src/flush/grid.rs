//! When flushes are due.

use crate::runtime::clock::rounded_seconds;
use std::time::Duration;

/// The grid that flushes sit on: multiples of the interval from the start of the server, in whole
/// seconds as the reference has it, or from the beginning of Unix time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    start_ms: u64,
}

impl Grid {
    /// A server that starts at `now_ms`, Unix milliseconds.
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            start_ms: rounded_seconds(now_ms) as u64 * 1000,
        }
    }

    /// One that another process began.
    pub(super) fn since(start_ms: u64) -> Self {
        Self { start_ms }
    }

    /// Where it begins, Unix milliseconds.
    pub(super) fn start_ms(self) -> u64 {
        self.start_ms
    }

    /// Milliseconds from `now_ms` to the next moment of the grid.
    pub(super) fn wait(self, interval: Duration, align: bool, now_ms: u64) -> u64 {
        self.next(interval, align, now_ms) - now_ms
    }

    /// The next moment of the grid, Unix milliseconds: at least half an interval away, so that a tick
    /// that came early or late is put right by the next one.
    fn next(self, interval: Duration, align: bool, now_ms: u64) -> u64 {
        let start = if align { 0.0 } else { self.start_ms as f64 };
        let interval = interval.as_millis() as f64;
        let behind = now_ms as f64 - start;
        let tick = ((behind / interval + 0.5).floor() + 1.0) * interval;
        (start + tick).max(now_ms as f64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn ticks_sit_on_the_grid_of_the_start() {
        let tick = |now| Grid::new(331_000).next(SECOND, false, now);
        assert_eq!(tick(330_600), 332_000);
        assert_eq!(tick(331_000), 332_000);
        assert_eq!(tick(331_499), 332_000);
        assert_eq!(tick(331_500), 333_000);
        assert_eq!(tick(332_001), 333_000);
        let next = Grid::new(334_000).next(Duration::from_millis(300), false, 334_301);
        assert_eq!(next, 334_600);
    }

    #[test]
    fn aligned_ticks_sit_on_multiples_by_the_wall_clock() {
        let ten = Duration::from_secs(10);
        for (now, next) in [
            (1_000_003_000, 1_000_010_000),
            (1_000_010_000, 1_000_020_000),
            // Less than half an interval before a multiple: that one is left out.
            (1_000_016_000, 1_000_030_000),
        ] {
            assert_eq!(Grid::new(1_000_003_000).next(ten, true, now), next, "{now}");
        }
        assert_eq!(
            Grid::new(1_000_003_000).next(ten, false, 1_000_003_000),
            1_000_013_000
        );
    }
}
