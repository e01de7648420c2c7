//! The thread that writes the state file. However long the disk takes, only this thread waits; meanwhile the
//! newest state replaces those that wait.

use super::{Options, file};
use crate::metric::kept::{Kept, Shelf};
use crate::metric::meter::Outside;
use crate::runtime::clock::{Clock, monotonic_ms};
use crate::runtime::rate_limit::{RateLimit, more};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the end of the server waits for the last write at least, when backends took all the time there
/// was.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Writes what lies on the shelf.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    shelf: Shelf,
    clock: Clock,
    outside: Arc<Outside>,
    complaints: RateLimit,
    /// Closes the way to [`Ending`].
    _closes_when_done: Sender<()>,
}

/// Ends a [`Keeper`].
#[derive(Debug)]
pub struct Ending {
    path: PathBuf,
    shelf: Shelf,
    done: Receiver<()>,
}

impl Keeper {
    /// One for this file, and what ends it.
    pub fn new(
        options: &Options,
        shelf: Shelf,
        clock: Clock,
        outside: Arc<Outside>,
    ) -> (Self, Ending) {
        let (closes_when_done, done) = bounded(0);
        let ending = Ending {
            path: options.path.clone(),
            shelf: shelf.clone(),
            done,
        };
        let keeper = Self {
            path: options.path.clone(),
            shelf,
            clock,
            outside,
            complaints: RateLimit::new(),
            _closes_when_done: closes_when_done,
        };
        (keeper, ending)
    }

    /// Writes whatever comes, until the shelf is closed.
    pub fn run(self) {
        let mut kept = Kept::default();
        let mut failed: Option<io::Error> = None;
        let shown = self.path.display();
        while self.shelf.next(&mut kept) {
            let written_s = (self.clock.now_ms() / 1000).cast_signed();
            match file::replace(&self.path, &kept, written_s) {
                Ok(bytes) => {
                    if failed.take().is_some() {
                        log::info!("stateFile: {shown} is written again");
                    }
                    log::debug!(
                        "stateFile: {} gauges and {} totals written, {bytes} bytes",
                        kept.gauges.len(),
                        kept.totals.as_ref().map_or(0, |it| it.counters.len())
                    );
                }
                Err(error) => {
                    self.outside.state_errors.add(1);
                    if let Some(suppressed) = self.complaints.pass(monotonic_ms()) {
                        log::error!(
                            "stateFile: {shown} was not written: {error}; a crash now goes back to what is \
                             there. Make room, or give this user the right to write there{}",
                            more(suppressed)
                        );
                    }
                    failed = Some(error);
                }
            }
        }
        if let Some(error) = failed {
            log::error!("stateFile: the last values are not in {shown}: {error}");
        }
    }
}

impl Ending {
    /// Waits until all is written, at most until the deadline, but a second at least.
    pub fn finish(self, deadline: Instant) {
        self.shelf.close();
        let until = deadline.max(Instant::now() + LAST_WORDS);
        let waited = self.done.recv_deadline(until);
        if waited.is_err_and(|error| error.is_timeout()) {
            log::error!(
                "stateFile: the last values are not in {}: the disk takes too long",
                self.path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::kept::Gauge;
    use crate::runtime::clock::Manual;

    #[test]
    fn failures_are_counted_and_the_newest_is_written_at_the_end() {
        let name = format!("statsd-fast-keeper-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let options = Options {
            path: directory.join("state"),
            clean_names: true,
        };
        let (shelf, outside) = (Shelf::default(), Arc::new(Outside::default()));
        let clock = Clock::Manual(Manual::new(5000));
        let (keeper, ending) = Keeper::new(&options, shelf.clone(), clock, outside.clone());
        let gauge = |value| {
            vec![Gauge {
                name: "g".into(),
                value,
                flushes_left: 1,
            }]
        };
        shelf.put_gauges(gauge(1.0));
        let thread = std::thread::spawn(move || keeper.run());
        // The directory is not there, and one write is sure to come before it is.
        while outside.state_errors.total() == 0 {
            std::thread::yield_now();
        }
        std::fs::create_dir_all(&directory).expect("made");
        shelf.put_gauges(gauge(2.0));
        ending.finish(Instant::now() + Duration::from_secs(30));
        thread.join().expect("no panic");
        assert_eq!(outside.state_errors.total(), 1);
        match file::read(&options.path, true) {
            Ok(file::Found::State(kept, 5)) => assert_eq!(kept.gauges, gauge(2.0)),
            other => panic!("{other:?}"),
        }
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}
