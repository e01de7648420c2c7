//! One line on the terminal, redrawn in place, while the threads send.

use std::io::{self, Write as _};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::utils::CachePadded;

use crate::figures::{short_time, si};
use crate::sender::Live;

/// Time between two drawings.
pub(crate) const PERIOD: Duration = Duration::from_millis(200);

/// The progress of a run.
#[derive(Debug)]
pub(crate) struct Progress {
    /// What there is to reach: a time or a number of lines.
    goal: Goal,
    /// As of the drawing before: elapsed, lines, datagrams.
    before: (Duration, u64, u64),
}

/// When a run is through.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    Time(Duration),
    Lines(u64),
}

const BAR: usize = 24;

impl Progress {
    pub(crate) fn new(goal: Goal) -> Self {
        Self {
            goal,
            before: (Duration::ZERO, 0, 0),
        }
    }

    /// Draws over the last drawing. A terminal that does not take it is no reason to stop.
    pub(crate) fn draw(&mut self, elapsed: Duration, threads: &[CachePadded<Live>]) {
        let sum = |read: fn(&Live) -> u64| threads.iter().map(|live| read(live)).sum();
        let lines = sum(|live| live.lines.load(Ordering::Relaxed));
        let datagrams = sum(|live| live.datagrams.load(Ordering::Relaxed));
        let late = threads
            .iter()
            .map(|live| live.late.load(Ordering::Relaxed))
            .max()
            .unwrap_or_default();
        let line = self.line(elapsed, lines, datagrams, Duration::from_nanos(late));
        let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
    }

    /// Leaves the line empty for what is printed next.
    pub(crate) fn clear(&self) {
        let _ = write!(io::stderr().lock(), "\r\x1b[K");
    }

    fn line(&mut self, elapsed: Duration, lines: u64, datagrams: u64, late: Duration) -> String {
        let (elapsed_before, lines_before, datagrams_before) = self.before;
        self.before = (elapsed, lines, datagrams);
        let seconds = elapsed
            .saturating_sub(elapsed_before)
            .as_secs_f64()
            .max(1e-3);
        let share = match self.goal {
            Goal::Time(time) => elapsed.as_secs_f64() / time.as_secs_f64(),
            Goal::Lines(count) => lines as f64 / count.max(1) as f64,
        };
        let filled = (share.clamp(0.0, 1.0) * BAR as f64) as usize;
        format!(
            "{:6.1} s [{}{}] {:>7} lines/s {:>7} datagrams/s  {} late",
            elapsed.as_secs_f64(),
            "=".repeat(filled),
            " ".repeat(BAR - filled),
            si(lines.saturating_sub(lines_before) as f64 / seconds),
            si(datagrams.saturating_sub(datagrams_before) as f64 / seconds),
            short_time(late),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_the_rates_since_the_last_one() {
        let mut progress = Progress::new(Goal::Time(Duration::from_secs(10)));
        progress.line(Duration::from_secs(1), 1_000_000, 20_000, Duration::ZERO);
        assert_eq!(
            progress.line(
                Duration::from_secs(5),
                3_000_000,
                60_000,
                Duration::from_micros(55)
            ),
            "   5.0 s [============            ]    500k lines/s   10.0k datagrams/s  55 us late"
        );
    }

    #[test]
    fn overtime_does_not_overflow_the_bar() {
        let mut progress = Progress::new(Goal::Lines(10));
        let line = progress.line(Duration::from_secs(1), 30, 1, Duration::ZERO);
        assert!(line.contains(&format!("[{}]", "=".repeat(BAR))), "{line}");
    }
}
