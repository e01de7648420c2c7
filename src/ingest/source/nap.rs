//! How long a queue can be left alone: as long as it takes to fill to a quarter.
//!
//! Being woken for each datagram costs more than the datagram, so longer is better, up to where it saves
//! nothing more; and little may be lost for it, so what was found in the queue after one nap decides about
//! the next. A buffer that holds less than half a millisecond of a burst may still run over. Figures in
//! tuning.md.

use std::time::Duration;

/// Longest nap between two drains, beside a queue that has room for a burst. Longer saves little more.
const MAX: Duration = Duration::from_micros(2000);
/// Longest nap beside a smaller one.
const MAX_SMALL: Duration = Duration::from_micros(500);
/// A small queue: what kernels grant a socket that may not have more than most do, in bytes as the kernel
/// accounts them. Of a burst of small datagrams, one a microsecond, it holds [`MAX_SMALL`].
const SMALL: u64 = 425_984;
/// Below this a nap is not worth the two system calls.
const MIN: Duration = Duration::from_micros(20);

/// The length of the last nap, and the rules for the next one.
#[derive(Debug)]
pub(super) struct Nap {
    last: Duration,
    longest: Duration,
}

impl Nap {
    /// Beside a queue of so many bytes; nothing, when it is counted otherwise.
    pub(super) fn new(bytes: Option<u64>) -> Self {
        let times = bytes.unwrap_or(SMALL) as f64 / SMALL as f64;
        Self {
            last: MIN,
            longest: MAX_SMALL.mul_f64(times.max(1.0)).min(MAX),
        }
    }

    /// After a wait, which says that less comes now: not at once as little as at the start, since even
    /// traffic would then wake its worker for each datagram.
    pub(super) fn shorten(&mut self) {
        self.last /= 2;
    }

    /// The next nap, when `filled` of `room` came in the time `since` the queue was empty. At most twice the
    /// one before, so that a burst meets a server that has not lain down yet; zero when the queue fills too
    /// fast for any.
    pub(super) fn next(&mut self, filled: u64, room: u64, since: Duration) -> Duration {
        let quarter = since.as_secs_f64() * (room / 4) as f64 / filled.max(1) as f64;
        let longest = self.longest.min(self.last.max(MIN) * 2);
        let nap = Duration::from_secs_f64(quarter.min(longest.as_secs_f64()));
        self.last = if nap < MIN { Duration::ZERO } else { nap };
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: u64 = 4000;

    fn after(last: Duration) -> Nap {
        Nap {
            last,
            ..Nap::new(None)
        }
    }

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn a_quarter_of_the_room_is_the_goal() {
        let mut nap = after(MAX_SMALL);
        // 500 in 100 us: 1000 in 200 us.
        assert_eq!(nap.next(500, ROOM, micros(100)), micros(200));
        assert_eq!(nap.next(1000, ROOM, micros(200)), micros(200));
        assert_eq!(nap.next(4000, ROOM, micros(200)), micros(50));
    }

    #[test]
    fn it_grows_step_by_step_up_to_where_it_gains_nothing() {
        let mut nap = Nap::new(None);
        let naps: Vec<_> = (0..7).map(|_| nap.next(1, ROOM, micros(100))).collect();
        assert_eq!(naps, [40, 80, 160, 320, 500, 500, 500].map(micros));
        assert_eq!(nap.next(0, ROOM, micros(1)), micros(500));
    }

    #[test]
    fn it_grows_longer_beside_a_queue_that_holds_a_burst_that_long() {
        let longest = |bytes| {
            let mut nap = Nap::new(Some(bytes));
            (0..9).map(|_| nap.next(1, ROOM, micros(100))).max()
        };
        assert_eq!(longest(4096), Some(micros(500)));
        assert_eq!(longest(SMALL), Some(micros(500)));
        assert_eq!(longest(2 * SMALL), Some(micros(1000)));
        assert_eq!(longest(32 << 20), Some(micros(2000)));
    }

    #[test]
    fn it_shrinks_step_by_step_when_there_is_less() {
        let mut nap = after(MAX_SMALL);
        nap.shorten();
        assert_eq!(nap.next(1, ROOM, micros(100)), micros(500));
        (0..3).for_each(|_| nap.shorten());
        assert_eq!(nap.next(1, ROOM, micros(100)), micros(125));
        (0..9).for_each(|_| nap.shorten());
        assert_eq!(nap.next(1, ROOM, micros(100)), micros(40));
    }

    #[test]
    fn a_queue_that_fills_too_fast_is_not_left_alone() {
        let mut nap = after(MAX_SMALL);
        assert_eq!(nap.next(4000, ROOM, micros(60)), Duration::ZERO);
        assert_eq!(nap.next(100, ROOM, micros(60)), micros(40));
    }
}
