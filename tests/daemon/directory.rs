//! Directories that vanish with the test that made them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process};

/// A directory of its own for each daemon, removed when dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// Creates a new, empty directory in cargo's directory for test output.
    pub(crate) fn create() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("daemon-{}-{number}", process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
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
        // What is left is in cargo's own directory for tests and harms nothing.
        let _ = fs::remove_dir_all(&self.0);
    }
}
