//! The files of one spool: a directory with a lock and a file for each flush.
//!
//! A flush is written beside its place, synced and then renamed: whoever looks finds all of it or nothing,
//! whenever this process dies, and a power failure costs at most the one that was being written. A file a
//! flush, and no log with segments: what was delivered is simply removed, so nothing has to remember how far
//! delivering came, damage to one reaches none of its neighbours, and the oldest makes room by itself.

use crate::runtime::sys::access::{may_write_in, without_links};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Held by the process whose spool it is.
const LOCK: &str = "lock";
/// A flush that was refused; the last of them is kept.
const REFUSED: &str = "refused";
/// End of the name of a flush.
const WHOLE: &str = ".flush";
/// End of the name of one that is being written.
const NEW: &str = ".new";
/// No flush has a larger number: there is one behind each.
pub(super) const NUMBER_MAX: u64 = u64::MAX / 2;
/// Digits of the number before the end: all there are of a u64, so that names sort as numbers do.
const DIGITS: usize = 20;
/// Files and directories are for this user alone: names may tell what a service does.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// What a file takes of a disk is a multiple of that, in bytes, on nearly all file systems.
const BLOCK: u64 = 4096;

/// A directory that this process holds.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    lock: File,
}

/// What was in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The number of each flush, and the bytes its file takes of the disk.
    pub(super) flushes: Vec<(u64, u64)>,
    /// Names of what is not ours.
    pub(super) foreign: Vec<String>,
}

/// What is in the way of spools in this directory, as far as can be told without writing: what it is, and
/// the way out.
pub fn obstacle(path: &Path) -> Option<(String, &'static str)> {
    let shown = path.display();
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let (directory, missing) = match path.try_exists() {
        Ok(false) => (parent, " to make it in"),
        _ => (path, ""),
    };
    if path.exists() && !path.is_dir() {
        return Some((format!("{shown} is no directory"), "write the path of one"));
    }
    match may_write_in(directory) {
        Ok(()) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some((
            format!(
                "the directory {} is not there{missing}",
                directory.display()
            ),
            "make it, or check the path",
        )),
        Err(error) => Some((
            format!("nothing can be written in {}: {error}", directory.display()),
            "give this user the right to write there",
        )),
    }
}

/// How many flushes lie in a directory that nobody holds, as far as it can be read.
pub(super) fn left_in(path: &Path) -> usize {
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| number(name, WHOLE).is_some()).count()
}

fn number(name: &str, end: &str) -> Option<u64> {
    let digits = name.strip_suffix(end)?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| plain);
    number.filter(|number| *number <= NUMBER_MAX)
}

/// What a file of so many bytes takes of the disk.
pub(super) fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK)
}

impl Directory {
    /// Makes it where it is missing, its parent too, but not what that lies in: a volume that is not mounted
    /// is not written beside. Takes the lock.
    ///
    /// # Errors
    /// What the system says, or that another process holds it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let make = |path: &Path| match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        path.parent().map_or(Ok(()), make)?;
        make(path)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).mode(FILE_MODE);
        let lock = without_links(&mut options).open(path.join(LOCK))?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let what = "another process uses it; give each server a spoolDir of its own";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
            }
            // A file system that knows no locks has nobody to keep out.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Read-only, it is of no use, and what is delivered could not be removed.
        may_write_in(path)?;
        Ok(Self {
            path: path.to_owned(),
            lock,
        })
    }

    /// Whether the path still leads here: it may have been moved away, or unmounted.
    pub(super) fn is_there(&self) -> bool {
        let (here, there) = (
            self.lock.metadata(),
            fs::symlink_metadata(self.path.join(LOCK)),
        );
        let id = |of: io::Result<fs::Metadata>| of.ok().map(|it| (it.dev(), it.ino()));
        id(there).is_some_and(|there| Some(there) == id(here))
    }

    /// Looks for flushes, the oldest first, and clears away what an earlier process left half written.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn scan(&self) -> io::Result<Found> {
        let mut found = Found::default();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let shown = name.to_string_lossy();
            let is_file = entry.file_type().is_ok_and(|it| it.is_file());
            if let Some(number) = number(&shown, WHOLE).filter(|_| is_file) {
                let bytes = entry.metadata()?.len();
                found.flushes.push((number, on_disk(bytes)));
            } else if number(&shown, NEW).is_some() && is_file {
                // When it stays, nobody reads it, and whoever writes there next clears it away.
                let _ = fs::remove_file(entry.path());
            } else if shown != LOCK && shown != REFUSED {
                found.foreign.push(shown.escape_debug().to_string());
            }
        }
        found.flushes.sort_unstable();
        found.foreign.sort();
        Ok(found)
    }

    /// Puts a flush there. When it returns, it outlives a power failure.
    ///
    /// # Errors
    /// What the system says; then nothing of it is there.
    pub(super) fn write(&self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let new = self.place(number, NEW);
        let written =
            Self::write_to(&new, bytes).and_then(|()| fs::rename(&new, self.place(number, WHOLE)));
        if written.is_err() {
            // A full disk gets its room back.
            let _ = fs::remove_file(&new);
        }
        written?;
        let synced = File::open(&self.path).and_then(|directory| directory.sync_all());
        if synced.is_err() {
            let _ = self.remove(number);
        }
        synced
    }

    fn write_to(new: &Path, bytes: &[u8]) -> io::Result<()> {
        let _ = fs::remove_file(new);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(new)?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    /// The bytes of a flush. Of a file that is longer than it was, a byte too many.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn read(&self, number: u64, on_disk: u64) -> io::Result<Vec<u8>> {
        let file = File::open(self.place(number, WHOLE))?;
        let mut bytes = Vec::new();
        file.take(on_disk + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Removes a flush.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn remove(&self, number: u64) -> io::Result<()> {
        fs::remove_file(self.place(number, WHOLE))
    }

    /// Sets a flush aside in the place of the last that was, and returns where that is.
    ///
    /// # Errors
    /// What the system says; then it is where it was.
    pub(super) fn set_aside(&self, number: u64) -> io::Result<PathBuf> {
        let aside = self.path.join(REFUSED);
        fs::rename(self.place(number, WHOLE), &aside)?;
        Ok(aside)
    }

    fn place(&self, number: u64, end: &str) -> PathBuf {
        self.path.join(format!("{number:020}{end}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory that goes with the test.
    struct Place(PathBuf);

    impl Place {
        fn of(test: &str) -> Self {
            let name = format!("statsd-fast-spool-{test}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }

        fn spool(&self) -> PathBuf {
            self.0.join("spool/graphite")
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_flush_is_written_whole_read_and_removed_and_is_for_us_alone() {
        let place = Place::of("files");
        let directory = Directory::open(&place.spool()).expect("opened");
        assert_eq!(directory.scan().expect("read"), Found::default());
        directory.write(12, b"twelve").expect("written");
        directory.write(7, &[7; 5000]).expect("written");
        let found = directory.scan().expect("read");
        assert_eq!(found.flushes, [(7, 8192), (12, 4096)]);
        let file = place.spool().join("00000000000000000012.flush");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(&place.spool())), (0o600, 0o700));
        assert_eq!(directory.read(12, 4096).expect("read"), b"twelve");
        // One that has grown meanwhile is read no further than shows it.
        fs::write(&file, vec![1; 10_000]).expect("written");
        assert_eq!(directory.read(12, 4096).expect("read").len(), 4097);
        let aside = directory.set_aside(7).expect("moved");
        assert_eq!(aside, place.spool().join("refused"));
        directory.remove(12).expect("removed");
        let error = directory.remove(12).expect_err("it is gone");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(directory.scan().expect("read"), Found::default());
        assert_eq!(left_in(&place.spool()), 0);
    }

    #[test]
    fn a_write_that_fails_leaves_nothing() {
        let place = Place::of("fails");
        let directory = Directory::open(&place.spool()).expect("opened");
        // Something is in the way that no file can take the place of.
        let target = place.spool().join("00000000000000000001.flush");
        fs::create_dir(&target).expect("made");
        directory.write(1, b"one").expect_err("in the way");
        fs::remove_dir(&target).expect("removed");
        assert_eq!(directory.scan().expect("read"), Found::default());
    }

    #[test]
    fn what_is_not_ours_is_named_and_what_is_half_written_is_cleared_away() {
        let place = Place::of("foreign");
        let directory = Directory::open(&place.spool()).expect("opened");
        let names = [
            "1.flush",
            "0000000000000000000x.flush",
            "18446744073709551615.flush",
            "99999999999999999999.flush",
            "notes\n.txt",
        ];
        for name in names {
            fs::write(place.spool().join(name), "").expect("written");
        }
        let half = place.spool().join("00000000000000000003.new");
        fs::write(&half, "half").expect("written");
        fs::create_dir(place.spool().join("00000000000000000004.flush")).expect("made");
        let found = directory.scan().expect("read");
        assert_eq!(found.flushes, []);
        let foreign = [
            "00000000000000000004.flush",
            "0000000000000000000x.flush",
            "1.flush",
            "18446744073709551615.flush",
            "99999999999999999999.flush",
            "notes\\n.txt",
        ];
        assert_eq!(found.foreign, foreign);
        assert!(!half.exists());
        fs::write(place.spool().join("09223372036854775807.flush"), "").expect("written");
        assert_eq!(left_in(&place.spool()), 2, "the directory is taken for one");
    }

    #[test]
    fn one_process_has_it_at_a_time_and_knows_when_it_goes() {
        let place = Place::of("lock");
        let first = Directory::open(&place.spool()).expect("opened");
        let error = Directory::open(&place.spool()).expect_err("it is held");
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert!(first.is_there());
        let aside = place.0.join("aside");
        fs::rename(place.0.join("spool"), &aside).expect("moved");
        assert!(!first.is_there());
        let second = Directory::open(&place.spool()).expect("another one is in its place");
        assert!(second.is_there() && !first.is_there());
        drop((first, second));
        Directory::open(&place.spool()).expect("nobody has it");
    }

    #[test]
    fn a_lock_that_leads_elsewhere_is_none() {
        let place = Place::of("links");
        fs::create_dir_all(place.spool()).expect("made");
        let (lock, elsewhere) = (place.spool().join("lock"), place.0.join("elsewhere"));
        std::os::unix::fs::symlink(&elsewhere, &lock).expect("linked");
        Directory::open(&place.spool()).expect_err("a link");
        assert!(!elsewhere.exists(), "it is not followed");
    }

    #[test]
    fn no_parent_is_made_and_what_is_in_the_way_is_said() {
        let place = Place::of("obstacle");
        let deep = place.0.join("gone/spool");
        let error = Directory::open(&deep.join("graphite")).expect_err("no volume");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let (what, _) = obstacle(&deep).expect("no volume");
        assert!(what.ends_with("gone is not there to make it in"), "{what}");
        assert_eq!(obstacle(&place.0.join("spool")), None);
        assert_eq!(obstacle(&place.0), None);
        assert_eq!(obstacle(Path::new("a name alone")), None);
        let file = place.0.join("file");
        fs::write(&file, "").expect("written");
        let (what, _) = obstacle(&file).expect("a file");
        assert!(what.ends_with("file is no directory"), "{what}");
        Directory::open(&file.join("graphite")).expect_err("a file");
    }
}
