//! The loop of a backend's thread: takes one flush after another out of its outbox, tries again or
//! gives it up, and says when the other side goes away and comes back.

use super::outbox::{Left, Queue};
use super::sink;
use crate::metric::meter::Outside;
use crate::metric::snapshot::Snapshot;
use crate::runtime::clock::monotonic_ms;
use crate::runtime::rate_limit::{RateLimit, more};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the first pause after a failure is. Each that follows is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The other side, as the log has it.
struct Peer<'a> {
    destination: &'a str,
    /// The keys of the configuration that say where it is; empty when its errors say what to do.
    setting: &'a str,
    failing_since: Option<Instant>,
    /// Whether the log has this outage.
    said: bool,
    complaints: RateLimit,
}

impl<'a> Peer<'a> {
    fn new(destination: &'a str, setting: &'a str) -> Self {
        Self {
            destination,
            setting,
            failing_since: None,
            said: false,
            complaints: RateLimit::new(),
        }
    }

    /// After a delivery that failed; `outcome` says what becomes of the flush. One line an outage, at
    /// most one a minute.
    fn failed(&mut self, error: &io::Error, outcome: &str) {
        let destination = self.destination;
        log::debug!("{destination}: {outcome}: {error}");
        self.failing_since.get_or_insert_with(Instant::now);
        if self.said {
            return;
        }
        if let Some(suppressed) = self.complaints.pass(monotonic_ms()) {
            self.said = true;
            let more = more(suppressed);
            let error = explained(error, self.setting);
            log::error!("{destination}: {outcome}: {error}{more}");
        }
    }

    /// After a delivery that went well.
    fn delivered(&mut self, waited: usize) {
        if let Some(since) = self.failing_since.take()
            && std::mem::take(&mut self.said)
        {
            let seconds = since.elapsed().as_secs();
            let destination = self.destination;
            log::info!("{destination} is back after {seconds} s; flushes that waited: {waited}");
        }
    }
}

/// An error with the way out of it.
fn explained(error: &io::Error, setting: &str) -> String {
    if setting.is_empty() {
        error.to_string()
    } else {
        format!("{error}; {}", sink::hint(error, setting))
    }
}

/// What became of a flush a backend is through with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The other side took it, or the greater part.
    Delivered,
    /// It is on its way. Whether it arrived is known when the next one is delivered, or by [`confirm`].
    Unconfirmed,
    /// The other side took nothing of it, and the backend has said so. It will not, but for what the backend
    /// may have kept to try again.
    Lost,
    /// There was nothing in it for the other side, which says nothing about the other side.
    Nothing,
}

/// Delivers every flush once; one that fails is lost. For a way out that does not come back.
pub(super) fn run_each(
    outside: &Outside,
    queue: &Queue,
    destination: &str,
    setting: &str,
    mut deliver: impl FnMut(&Snapshot) -> io::Result<()>,
) {
    let mut peer = Peer::new(destination, setting);
    while let Some(snapshot) = queue.next() {
        let delivered = deliver(&snapshot);
        if !queue.done() {
            // Given up in the meantime, and counted.
            continue;
        }
        match delivered {
            Ok(()) => {
                outside.flushes_delivered.add(1);
                peer.delivered(0);
            }
            Err(error) => {
                outside.flushes_dropped.add(1);
                outside.deliveries_failed.add(1);
                peer.failed(&error, "a flush was lost");
            }
        }
    }
}

/// Delivers every flush, however long it takes, in order. When no more will come, the first failure
/// ends it: who waits for a stop shall not wait for a peer that is away. What is left is lost then.
pub(super) fn run_until_delivered(
    outside: &Outside,
    queue: &Queue,
    destination: &str,
    setting: &str,
    mut deliver: impl FnMut(&Arc<Snapshot>) -> io::Result<Fate>,
) {
    let mut peer = Peer::new(destination, setting);
    let mut pause = PAUSE_MIN;
    while let Some(snapshot) = queue.next() {
        // Asked before the attempt, so that each flush has one after the outbox was closed.
        let last_attempt = queue.is_closed();
        match deliver(&snapshot) {
            Ok(fate) => {
                if !matches!(fate, Fate::Lost | Fate::Nothing) {
                    pause = PAUSE_MIN;
                    peer.delivered(queue.len());
                }
                match fate {
                    Fate::Lost => outside.flushes_dropped.add(u64::from(queue.done())),
                    Fate::Nothing | Fate::Delivered => {
                        outside.flushes_delivered.add(u64::from(queue.done()));
                    }
                    // The one before it.
                    Fate::Unconfirmed => outside.flushes_delivered.add(u64::from(queue.sent())),
                }
            }
            Err(error) => {
                outside.deliveries_failed.add(1);
                if last_attempt {
                    return give_up(queue, destination, setting, &error);
                }
                peer.failed(&error, "a flush could not be delivered and waits");
                queue.put_back();
                if !queue.pause(pause) {
                    // Who has taken this one's place may do better.
                    queue.abandon();
                    return;
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// After the end: lets `finish` see the last flush through, if its fate is unknown.
pub(super) fn confirm(
    outside: &Outside,
    queue: &Queue,
    destination: &str,
    setting: &str,
    finish: impl FnOnce() -> io::Result<()>,
) {
    if !queue.is_unconfirmed() {
        return;
    }
    match finish() {
        Ok(()) => outside.flushes_delivered.add(u64::from(queue.confirm())),
        Err(error) => {
            outside.deliveries_failed.add(1);
            give_up(queue, destination, setting, &error);
        }
    }
}

fn give_up(queue: &Queue, destination: &str, setting: &str, error: &io::Error) {
    let Left { lost, on_disk } = queue.abandon();
    let error = explained(error, setting);
    if lost > 0 {
        log::error!("{destination}: flushes not delivered at the end and lost: {lost}: {error}");
    }
    if on_disk > 0 {
        log::warn!(
            "{destination}: flushes not delivered at the end stay on disk: {on_disk}: {error}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::outbox::{Limits, Outbox};
    use super::*;
    use std::io::ErrorKind;

    fn filled(flushes: i64) -> (Outbox, Queue, Arc<Outside>) {
        let outside = Arc::new(Outside::default());
        let (outbox, queue) = Outbox::new("test", |_| true, Limits::default(), outside.clone());
        for timestamp in 0..flushes {
            outbox.put(&Arc::new(Snapshot {
                timestamp,
                ..Snapshot::default()
            }));
        }
        (outbox, queue, outside)
    }

    fn totals(outside: &Outside) -> [u64; 3] {
        [
            outside.flushes_delivered.total(),
            outside.flushes_dropped.total(),
            outside.deliveries_failed.total(),
        ]
    }

    #[test]
    fn a_way_out_that_does_not_come_back_loses_what_fails() {
        let (outbox, queue, outside) = filled(3);
        drop(outbox);
        let mut seen = Vec::new();
        run_each(&outside, &queue, "nowhere", "the address", |snapshot| {
            seen.push(snapshot.timestamp);
            match snapshot.timestamp {
                1 => Err(ErrorKind::BrokenPipe.into()),
                _ => Ok(()),
            }
        });
        assert_eq!(seen, [0, 1, 2]);
        assert_eq!(totals(&outside), [2, 1, 1]);
    }

    #[test]
    fn what_fails_is_tried_again_before_what_follows() {
        let (outbox, queue, outside) = filled(3);
        let mut outbox = Some(outbox);
        let mut seen = Vec::new();
        run_until_delivered(&outside, &queue, "nowhere", "the address", |snapshot| {
            seen.push(snapshot.timestamp);
            match seen.len() {
                2 => return Err(ErrorKind::ConnectionRefused.into()),
                4 => {
                    outbox = None;
                    return Ok(Fate::Lost);
                }
                _ => {}
            }
            Ok(Fate::Delivered)
        });
        assert_eq!(seen, [0, 1, 1, 2]);
        assert_eq!(totals(&outside), [2, 1, 1]);
    }

    #[test]
    fn a_flush_counts_once_when_its_fate_is_known() {
        for arrives in [true, false] {
            let (outbox, queue, outside) = filled(3);
            drop(outbox);
            run_until_delivered(&outside, &queue, "nowhere", "the address", |snapshot| {
                let known = (snapshot.timestamp - 1).max(0).cast_unsigned();
                assert_eq!(totals(&outside), [known, 0, 0]);
                Ok(Fate::Unconfirmed)
            });
            assert_eq!(totals(&outside), [2, 0, 0]);
            let finish = || match arrives {
                true => Ok(()),
                false => Err(ErrorKind::ConnectionReset.into()),
            };
            confirm(&outside, &queue, "nowhere", "the address", finish);
            let lost = u64::from(!arrives);
            assert_eq!(totals(&outside), [3 - lost, lost, lost]);
            let again = || panic!("there is nothing to see through");
            confirm(&outside, &queue, "nowhere", "the address", again);
        }
    }

    #[test]
    fn a_failure_after_the_end_ends_it_and_the_rest_is_counted() {
        let (outbox, queue, outside) = filled(3);
        let mut outbox = Some(outbox);
        let mut seen = Vec::new();
        run_until_delivered(&outside, &queue, "nowhere", "the address", |snapshot| {
            seen.push(snapshot.timestamp);
            if seen.len() == 1 {
                return Ok(Fate::Delivered);
            }
            // The stop comes while the second is on its way, so it has one more attempt.
            outbox = None;
            Err(ErrorKind::ConnectionRefused.into())
        });
        assert_eq!(seen, [0, 1, 1]);
        assert_eq!(totals(&outside), [1, 2, 2]);
    }
}
