//! Directories that vanish with the test that made them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

/// A directory of its own for each daemon, removed when dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// Creates a new, empty directory in cargo's directory for test output.
    pub(crate) fn create() -> Self {
        Self::create_in(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    /// The same in the system's directory for such things, whose path is short, as that of a unix socket has
    /// to be.
    pub(crate) fn for_sockets() -> Self {
        Self::create_in(&env::temp_dir())
    }

    fn create_in(parent: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("daemon-{}-{number}", process::id());
        let path = parent.join(name);
        fs::create_dir_all(&path).expect("a directory for the test can be created");
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left is where tests leave such things, and harms nothing.
        let _ = fs::remove_dir_all(&self.0);
    }
}
