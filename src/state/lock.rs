//! The lock of a state file: `PATH.lock` beside it, held for as long as the server runs. The file itself
//! cannot be locked, since each write puts another one in its place.
//!
//! Who lets go removes the file while it still has the lock, and who takes it looks whether the name still
//! leads to what it locked: so two never have it, and none is left behind by a server that stops.

use super::file::beside;
use crate::runtime::sys::access::without_links;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError as Busy};

/// How often another one may let go between our two looks before something else must be wrong.
const TRIES: u32 = 8;

/// The lock of one state file. Clones are the same lock.
#[derive(Debug, Clone, Default)]
pub struct Lock(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    held: Mutex<Option<Held>>,
    /// It is not to be taken any more.
    released: AtomicBool,
}

#[derive(Debug)]
struct Held {
    file: File,
    path: PathBuf,
}

/// While this is there, the lock is not let go.
#[derive(Debug)]
pub struct Turn<'l> {
    /// `None` while it is being dropped.
    held: Option<MutexGuard<'l, Option<Held>>>,
    inner: &'l Inner,
}

/// Why it cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// Another server has it.
    #[error("another server{0} uses it; give each a stateFile of its own, or stop that one")]
    Another(String),
    /// This process has let it go.
    #[error("it was handed over to another process")]
    Released,
    /// The system does not let it.
    #[error("{}.lock cannot be made: {error}", .path.display())]
    Impossible {
        /// The state file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl Lock {
    /// Takes the lock of a state file, or looks whether it is still there when it was taken before.
    ///
    /// # Errors
    /// When another process has it, this one has let it go, or the file cannot be made.
    pub fn take(&self, state: &Path) -> Result<Turn<'_>, NotTaken> {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.released.load(Ordering::SeqCst) {
            return Err(NotTaken::Released);
        }
        let path = beside(state, ".lock");
        let is_there = |held: &Held| held.path == path && leads_to(&path, &held.file);
        if !held.as_ref().is_some_and(is_there) {
            // What was held leads nowhere any more: its directory was moved, or somebody removed it.
            *held = None;
            *held = Some(lock(state, &path)?);
        }
        Ok(Turn {
            held: Some(held),
            inner: &self.0,
        })
    }

    /// Lets it go, so that another process can take it: for the end of a server, and for handing its
    /// state over. Never waits. Returns whether it is free now; when not, somebody is writing, and it is free
    /// once that is done.
    pub fn release(&self) -> bool {
        self.0.released.store(true, Ordering::SeqCst);
        self.0.let_go()
    }
}

impl Inner {
    /// Lets it go, unless somebody is writing: who then looks whether it was released, once that is done.
    fn let_go(&self) -> bool {
        // One of the two sees what the other did: this a free lock, or that the release.
        fence(Ordering::SeqCst);
        match self.held.try_lock() {
            Ok(mut held) => let_go(&mut held),
            Err(Busy::Poisoned(held)) => let_go(&mut held.into_inner()),
            Err(Busy::WouldBlock) => return false,
        }
        true
    }
}

impl Lock {
    /// Whether it was let go.
    pub fn is_released(&self) -> bool {
        self.0.released.load(Ordering::SeqCst)
    }

    /// It may be taken again after all: it was handed over for nothing.
    pub fn keep(&self) {
        self.0.released.store(false, Ordering::SeqCst);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // First, so that a release behind the look finds it free.
        self.held = None;
        fence(Ordering::SeqCst);
        if self.inner.released.load(Ordering::SeqCst) {
            self.inner.let_go();
        }
    }
}

/// A start that fails leaves no lock behind.
impl Drop for Inner {
    fn drop(&mut self) {
        let held = self.held.get_mut();
        let_go(held.unwrap_or_else(PoisonError::into_inner));
    }
}

fn let_go(held: &mut Option<Held>) {
    if let Some(Held { file, path }) = held.take() {
        if leads_to(&path, &file) {
            // One that stays is taken over by whoever comes next.
            let _ = fs::remove_file(&path);
        }
        drop(file);
    }
}

/// Whether a name leads to this file, and not to another one or through a link.
fn leads_to(path: &Path, file: &File) -> bool {
    let identity = |it: fs::Metadata| (it.dev(), it.ino());
    let here = file.metadata().map(identity);
    let there = fs::symlink_metadata(path).map(identity);
    matches!((here, there), (Ok(here), Ok(there)) if here == there)
}

fn lock(state: &Path, path: &Path) -> Result<Held, NotTaken> {
    let impossible = |error| NotTaken::Impossible {
        path: state.to_owned(),
        error,
    };
    for _ in 0..TRIES {
        let mut file = open(path).map_err(impossible)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(NotTaken::Another(owner(file))),
            // A file system that knows no locks has nobody to keep out.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        if leads_to(path, &file) {
            // Only for the message of whoever comes; a full disk keeps nobody from the lock.
            let _ = file.set_len(0);
            let _ = writeln!(file, "{}", std::process::id());
            let path = path.to_owned();
            return Ok(Held { file, path });
        }
    }
    Err(NotTaken::Another(String::new()))
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    let file = without_links(&mut options).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("something that is no file is in the way"))
    }
}

/// The process that has it, as a part of a sentence.
fn owner(file: File) -> String {
    let mut text = String::new();
    let read = file.take(20).read_to_string(&mut text);
    let number = read.ok().and_then(|_| text.trim().parse::<u32>().ok());
    number.map_or_else(String::new, |number| format!(" (process {number})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(test: &str) -> PathBuf {
        let name = format!("statsd-fast-lock-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        path
    }

    #[test]
    fn one_at_a_time_has_it_and_a_stop_leaves_nothing() {
        let directory = place("one");
        let state = directory.join("state");
        let (one, other) = (Lock::default(), Lock::default());
        for _ in 0..2 {
            drop(one.take(&state).expect("nobody has it"));
        }
        let error = other.take(&state).expect_err("it is held");
        let ours = format!("another server (process {}) uses it;", std::process::id());
        assert!(error.to_string().starts_with(&ours), "{error}");
        let writing = one.take(&state).expect("still ours");
        assert!(!one.release(), "somebody is writing");
        assert!(other.take(&state).is_err());
        drop(writing);
        drop(other.take(&state).expect("it was let go"));
        assert!(matches!(one.take(&state), Err(NotTaken::Released)));
        assert!(other.release());
        fs::remove_dir(&directory).expect("nothing is left");
    }

    #[test]
    fn what_is_released_while_somebody_writes_is_free_whoever_is_first() {
        let directory = place("race");
        let state = directory.join("state");
        for _ in 0..3000 {
            let lock = Lock::default();
            let both = std::sync::Barrier::new(2);
            let turn = lock.take(&state).expect("nobody has it");
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    both.wait();
                    lock.release();
                });
                both.wait();
                drop(turn);
            });
            assert!(!directory.join("state.lock").exists());
        }
        fs::remove_dir(&directory).expect("nothing is left");
    }

    #[test]
    fn a_lock_that_somebody_removed_is_taken_again_or_missed() {
        let directory = place("removed");
        let state = directory.join("state");
        let (one, other) = (Lock::default(), Lock::default());
        drop(one.take(&state).expect("nobody has it"));
        fs::remove_file(directory.join("state.lock")).expect("removed");
        drop(one.take(&state).expect("nobody else came"));
        fs::remove_file(directory.join("state.lock")).expect("removed");
        drop(other.take(&state).expect("nobody has that one"));
        assert!(matches!(one.take(&state), Err(NotTaken::Another(_))));
        one.release();
        assert!(directory.join("state.lock").exists(), "that of the other");
        other.release();
        fs::remove_dir(&directory).expect("nothing is left");
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = place("link");
        let victim = directory.join("victim");
        std::os::unix::fs::symlink(&victim, directory.join("state.lock")).expect("linked");
        let taken = Lock::default();
        let error = taken.take(&directory.join("state")).expect_err("a link");
        assert!(
            error.to_string().contains("state.lock cannot be made"),
            "{error}"
        );
        assert!(!victim.exists());
        fs::remove_dir_all(&directory).expect("removed");
    }
}
