//! The thread that writes the state file. However long the disk takes, only this thread waits; meanwhile the
//! newest state replaces those that wait.

use super::lock::Lock;
use super::{Options, file};
use crate::metric::kept::{Kept, Shelf};
use crate::metric::meter::Outside;
use crate::runtime::clock::{Clock, monotonic_ms};
use crate::runtime::rate_limit::{RateLimit, more};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the end of the server waits for the last write at least, when backends took all the time there
/// was.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Writes what lies on the shelf.
#[derive(Debug)]
pub struct Keeper {
    options: Options,
    lock: Lock,
    last: Option<Last>,
    shelf: Shelf,
    clock: Clock,
    outside: Arc<Outside>,
    complaints: RateLimit,
    /// Closes the way to [`Ending`].
    _closes_when_done: Sender<()>,
}

/// What was written last, and into which file: device and inode.
#[derive(Debug)]
struct Last {
    fingerprint: u64,
    written_s: i64,
    file: (u64, u64),
}

/// Ends a [`Keeper`].
#[derive(Debug)]
pub struct Ending {
    path: PathBuf,
    lock: Lock,
    shelf: Shelf,
    done: Receiver<()>,
}

impl Keeper {
    /// One for this file, whose lock may be taken already, and what ends it.
    pub fn new(
        options: &Options,
        lock: Lock,
        shelf: Shelf,
        clock: Clock,
        outside: Arc<Outside>,
    ) -> (Self, Ending) {
        let (closes_when_done, done) = bounded(0);
        let ending = Ending {
            path: options.path.clone(),
            lock: lock.clone(),
            shelf: shelf.clone(),
            done,
        };
        let keeper = Self {
            options: options.clone(),
            lock,
            last: None,
            shelf,
            clock,
            outside,
            complaints: RateLimit::new(),
            _closes_when_done: closes_when_done,
        };
        (keeper, ending)
    }

    /// Writes whatever comes, until the shelf is closed.
    pub fn run(mut self) {
        let mut kept = Kept::default();
        let mut failed: Option<io::Error> = None;
        let path = self.options.path.clone();
        let shown = path.display();
        while self.shelf.next(&mut kept) {
            if self.lock.is_released() {
                continue;
            }
            match self.write(&kept) {
                Ok(Some(bytes)) => {
                    if failed.take().is_some() {
                        log::info!("stateFile: {shown} is written again");
                    }
                    log::debug!(
                        "stateFile: {} gauges and {} totals written, {bytes} bytes",
                        kept.gauges.len(),
                        kept.totals.as_ref().map_or(0, |it| it.counters.len())
                    );
                }
                Ok(None) => log::debug!("stateFile: nothing has changed"),
                Err(error) => {
                    self.last = None;
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

    /// Writes it, unless the file has it already; returns how many bytes that were.
    fn write(&mut self, kept: &Kept) -> io::Result<Option<u64>> {
        let target = file::target(&self.options.path)?;
        let _turn = self.lock.take(&target).map_err(io::Error::other)?;
        let now_s = (self.clock.now_ms() / 1000).cast_signed();
        let fingerprint = kept.fingerprint();
        if let Some(last) = &self.last
            && last.fingerprint == fingerprint
            && !self.options.is_to_be_renewed(now_s - last.written_s)
            && identity(&target).is_ok_and(|file| file == last.file)
        {
            return Ok(None);
        }
        let bytes = file::replace(&target, kept, now_s)?;
        self.last = identity(&target).ok().map(|file| Last {
            fingerprint,
            written_s: now_s,
            file,
        });
        Ok(Some(bytes))
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Ending {
    /// The lock of the state file, to let another process have it: [`Lock::release`]. Nothing is written
    /// then, unless it comes back: [`Lock::keep`].
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Waits until all is written, at most until the deadline, but a second at least, and lets the file go.
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
        self.lock.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::kept::Gauge;
    use crate::runtime::clock::Manual;
    use std::fs;

    fn gauge(value: f64) -> Vec<Gauge> {
        vec![Gauge {
            name: "g".into(),
            value,
            flushes_left: 1,
        }]
    }

    fn options(test: &str) -> Options {
        let name = format!("statsd-fast-keeper-{test}-{}", std::process::id());
        Options {
            path: std::env::temp_dir().join(name).join("state"),
            ..Options::default()
        }
    }

    #[test]
    fn failures_are_counted_and_the_newest_is_written_at_the_end() {
        let options = options("fails");
        let directory = options.path.parent().expect("a directory");
        let (shelf, outside) = (Shelf::default(), Arc::new(Outside::default()));
        let clock = Clock::Manual(Manual::new(5000));
        let lock = Lock::default();
        let (keeper, ending) = Keeper::new(&options, lock, shelf.clone(), clock, outside.clone());
        shelf.put_gauges(gauge(1.0));
        let thread = std::thread::spawn(move || keeper.run());
        // The directory is not there, and one write is sure to come before it is.
        while outside.state_errors.total() == 0 {
            std::thread::yield_now();
        }
        fs::create_dir_all(directory).expect("made");
        shelf.put_gauges(gauge(2.0));
        ending.finish(Instant::now() + Duration::from_secs(30));
        thread.join().expect("no panic");
        assert_eq!(outside.state_errors.total(), 1);
        match file::read(&options.path, 5, None) {
            Ok(file::Found::State(kept, 5)) => assert_eq!(kept.gauges, gauge(2.0)),
            other => panic!("{other:?}"),
        }
        fs::remove_file(&options.path).expect("removed");
        fs::remove_dir(directory).expect("nothing else is left");
    }

    #[test]
    fn what_has_not_changed_is_not_written_again() {
        let mut options = options("same");
        let directory = options.path.parent().expect("a directory").to_owned();
        fs::create_dir_all(&directory).expect("made");
        options.max_age_s = Some(100);
        let now = Manual::new(5000);
        let keeper = |lock: &Lock| {
            let (clock, outside) = (Clock::Manual(now.clone()), Arc::default());
            Keeper::new(&options, lock.clone(), Shelf::default(), clock, outside).0
        };
        let kept = |value| Kept {
            gauges: gauge(value),
            totals: None,
        };
        let lock = Lock::default();
        let mut first = keeper(&lock);
        let mut writes = |value| {
            first
                .write(&kept(value))
                .expect("it can be written")
                .is_some()
        };
        assert!(writes(1.0));
        assert!(!writes(1.0));
        assert!(writes(2.0), "another value");
        assert!(writes(f64::NAN) && !writes(f64::NAN));
        assert!(writes(0.0) && writes(-0.0), "they are told apart");
        fs::remove_file(&options.path).expect("removed");
        assert!(writes(-0.0), "somebody took it away");
        // So that its age tells how long no server ran.
        now.advance(Duration::from_secs(9));
        assert!(!writes(-0.0));
        now.advance(Duration::from_secs(1));
        assert!(writes(-0.0));
        let error = keeper(&Lock::default())
            .write(&kept(3.0))
            .expect_err("locked");
        assert!(
            error.to_string().starts_with("another server (process "),
            "{error}"
        );
        lock.release();
        let error = first.write(&kept(3.0)).expect_err("let go");
        assert_eq!(error.to_string(), "it was handed over to another process");
        fs::remove_dir_all(&directory).expect("removed");
    }
}
