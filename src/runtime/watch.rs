//! Whether a file has changed: by looking, not by being told.
//!
//! Editors replace a file, deployments swing a link in the path to it, shares report nothing: what they
//! all change is what the path leads to. Looking costs one stat(2).

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What a path led to when it was last looked at.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    seen: Option<Identity>,
    /// Looks in a row that found nothing.
    missed: u32,
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// What was there before, or nothing for a moment.
    Same,
    /// Something else than at the look before.
    Changed,
    /// Nothing, at two looks in a row; said once.
    Gone,
}

/// A file and its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Watch {
    /// What the path leads to now is known.
    pub fn new(path: PathBuf) -> Self {
        let mut watch = Self {
            path,
            seen: None,
            missed: 0,
        };
        watch.look();
        watch
    }

    /// Looks where the path leads. Nothing at all is no change at first: it may be the moment between two
    /// files of an editor that removes one before it writes the other.
    pub fn look(&mut self) -> Look {
        let Ok(found) = std::fs::metadata(&self.path) else {
            self.missed = self.missed.saturating_add(1);
            return if self.missed == 2 {
                Look::Gone
            } else {
                Look::Same
            };
        };
        self.missed = 0;
        let found = Some(Identity {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        });
        if std::mem::replace(&mut self.seen, found) == found {
            Look::Same
        } else {
            Look::Changed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_is_written_replaced_or_linked_anew_has_changed() {
        let name = format!("statsd-fast-watch-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("a directory");
        let (path, other) = (directory.join("file"), directory.join("other"));
        fs::write(&path, "one").expect("written");
        let mut watch = Watch::new(path.clone());
        assert_eq!(watch.look(), Look::Same);
        fs::write(&path, "three").expect("written");
        assert_eq!(watch.look(), Look::Changed);
        assert_eq!(watch.look(), Look::Same);
        for round in 0..2 {
            fs::write(&other, "three").expect("written");
            fs::rename(&other, &path).expect("replaced");
            assert_eq!(watch.look(), Look::Changed, "round {round}");
        }
        fs::remove_file(&path).expect("removed");
        assert_eq!(watch.look(), Look::Same);
        assert_eq!(watch.look(), Look::Gone);
        assert_eq!(watch.look(), Look::Same);
        fs::write(&other, "linked").expect("written");
        std::os::unix::fs::symlink(&other, &path).expect("a link");
        assert_eq!(watch.look(), Look::Changed);
        fs::write(&other, "linked!").expect("written");
        assert_eq!(watch.look(), Look::Changed);
        fs::remove_dir_all(&directory).expect("removed");
    }
}
