//! The state file: read at the start, replaced as a whole at each flush.
//!
//! A new state goes into a file beside it, which then takes its place: whoever reads the path finds the old
//! one or the new one, whenever this process dies. The new file is synced before that, since after a power
//! failure some file systems have the new name but not the content; a crash of the process alone needs no
//! sync. The directory is not synced: when its entry is lost, the older file is there, and that is whole.

use super::format::{self, Refusal};
use crate::metric::kept::Kept;
use crate::runtime::sys::access::may_write_in;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes read and written in one call.
const BUFFER: usize = 1 << 17;
/// The file is for this user alone: names may tell what a service does.
const MODE: u32 = 0o600;
/// How often a leftover of the new file is cleared away before something else must be wrong.
const TRIES: u32 = 8;

/// What was at the path.
#[derive(Debug)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A whole state, and when it was written, Unix seconds.
    State(Kept, i64),
    /// Something of ours that is not used, and where it is now.
    Refused(Refusal, io::Result<PathBuf>),
}

/// Why no file can be written at a path: what is wrong, and the way out.
#[derive(Debug)]
pub struct Obstacle {
    /// What is wrong.
    pub what: String,
    /// The way out.
    pub hint: &'static str,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.hint)
    }
}

/// What is in the way of a state file at this path, as far as can be told without writing.
pub fn obstacle(path: &Path) -> Option<Obstacle> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let shown = directory.display();
    let (what, hint) = match may_write_in(directory) {
        Ok(()) if directory.is_dir() => return None,
        Ok(()) => (format!("{shown} is no directory"), "check the path"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (
            format!("the directory {shown} is not there"),
            "make it, or check the path",
        ),
        Err(error) => (
            format!("nothing can be written in {shown}: {error}"),
            "give this user the right to write there",
        ),
    };
    Some(Obstacle { what, hint })
}

/// Reads the state. What is ours and not whole is set aside as `PATH.refused`; what is not ours stays as it
/// is.
///
/// # Errors
/// When what is there is not ours: what it is, and the way out.
pub fn read(path: &Path, clean_names: bool) -> Result<Found, String> {
    let not_ours = |what: &str| {
        format!(
            "{what} and would be overwritten; write another path into stateFile, or take it away"
        )
    };
    let decoded = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => Err(error.into()),
        // Opening a pipe would wait for its writer.
        Ok(found) if !found.is_file() => return Err(not_ours("it is no file")),
        Ok(_) => File::open(path).map_err(Refusal::from).and_then(|file| {
            format::decode(&mut BufReader::with_capacity(BUFFER, file), clean_names)
        }),
    };
    match decoded {
        Ok((kept, written_s)) => Ok(Found::State(kept, written_s)),
        Err(foreign @ Refusal::Foreign) => Err(not_ours(&foreign.to_string())),
        Err(refusal) => {
            let aside = beside(path, ".refused");
            let moved = fs::rename(path, &aside).map(|()| aside);
            Ok(Found::Refused(refusal, moved))
        }
    }
}

/// Puts this state in the place of the one at the path. Returns how many bytes it has.
///
/// # Errors
/// What the system says; then the old one is still there.
pub fn replace(path: &Path, kept: &Kept, written_s: i64) -> io::Result<u64> {
    let new = beside(path, ".new");
    let file = create(&new)?;
    let written = write(&file, kept, written_s).and_then(|bytes| {
        fs::rename(&new, path)?;
        Ok(bytes)
    });
    if written.is_err() {
        // A full disk gets its room back. When this fails too, the next write clears it away.
        let _ = fs::remove_file(&new);
    }
    written
}

fn write(file: &File, kept: &Kept, written_s: i64) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(BUFFER, file);
    let bytes = format::encode(kept, written_s, &mut out)?;
    out.flush()?;
    file.sync_data()?;
    Ok(bytes)
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

/// Makes a file that was not there, and locks it for as long as it is open. What an earlier crash left there
/// is cleared away; what another process is writing is left to it.
fn create(new: &Path) -> io::Result<File> {
    for _ in 0..TRIES {
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(new);
        match made {
            Ok(file) if is_ours(&file, new)? => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => clear(new)?,
            Err(error) => return Err(error),
        }
    }
    Err(another())
}

/// Takes the lock, and looks whether the name still leads here: another process that came between the making
/// and the locking may have cleared it away.
fn is_ours(file: &File, new: &Path) -> io::Result<bool> {
    lock(file)?;
    let (here, there) = (file.metadata()?, fs::symlink_metadata(new));
    Ok(there.is_ok_and(|it| (it.dev(), it.ino()) == (here.dev(), here.ino())))
}

fn clear(new: &Path) -> io::Result<()> {
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    };
    let old = match fs::symlink_metadata(new) {
        Ok(found) if found.is_file() => File::open(new).map(Some),
        Ok(_) => Ok(None),
        Err(error) => return gone(error),
    };
    // Locked until it is removed: whoever comes between would have his own file removed.
    let _held = match old {
        Ok(Some(old)) => {
            lock(&old)?;
            Some(old)
        }
        // Nothing that anybody writes a state into.
        Ok(None) => None,
        Err(error) => {
            gone(error)?;
            None
        }
    };
    fs::remove_file(new).or_else(gone)
}

/// A file system that knows no locks has nobody to keep out.
fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(another()),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

fn another() -> io::Error {
    io::Error::other("another process is writing it; give each server a stateFile of its own")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::kept::Gauge;
    use std::os::unix::fs::PermissionsExt;

    /// A directory that goes with the test.
    struct Place(PathBuf);

    impl Place {
        fn of(test: &str) -> Self {
            let name = format!("statsd-fast-state-{test}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("state")
        }

        /// Names of all that is in it.
        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).expect("a directory");
            let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
            let mut names: Vec<_> = entries
                .map(|entry| name(entry).into_string().expect("text"))
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn kept(value: f64) -> Kept {
        Kept {
            gauges: vec![Gauge {
                name: "g".into(),
                value,
                flushes_left: 1,
            }],
            totals: None,
        }
    }

    fn found(path: &Path) -> Option<f64> {
        match read(path, true).expect("ours") {
            Found::State(kept, 5) => Some(kept.gauges[0].value),
            _ => None,
        }
    }

    #[test]
    fn a_state_takes_the_place_of_the_last_and_is_for_us_alone() {
        let place = Place::of("replace");
        let path = place.file();
        assert!(matches!(read(&path, true), Ok(Found::Nothing)));
        for value in [1.0, 2.0] {
            let bytes = replace(&path, &kept(value), 5).expect("written");
            let there = fs::metadata(&path).expect("there");
            assert_eq!(
                (there.len(), there.permissions().mode() & 0o777),
                (bytes, MODE)
            );
            assert_eq!(found(&path), Some(value));
        }
        assert_eq!(place.names(), ["state"]);
    }

    #[test]
    fn leftovers_are_cleared_away_and_another_writer_is_left_alone() {
        let place = Place::of("leftover");
        let (path, new) = (place.file(), place.0.join("state.new"));
        fs::write(&new, "half of a st").expect("written");
        replace(&path, &kept(1.0), 5).expect("written");
        // A link leads nowhere: what it points at is not touched.
        let victim = place.0.join("victim");
        fs::write(&victim, "v").expect("written");
        std::os::unix::fs::symlink(&victim, &new).expect("linked");
        replace(&path, &kept(2.0), 5).expect("written");
        assert_eq!(fs::read(&victim).expect("there"), b"v");
        assert_eq!(place.names(), ["state", "victim"]);
        let other = create(&new).expect("the file of another writer");
        let error = replace(&path, &kept(3.0), 5).expect_err("it is being written");
        assert!(error.to_string().contains("another process"), "{error}");
        assert_eq!(found(&path), Some(2.0));
        drop(other);
        replace(&path, &kept(4.0), 5).expect("written");
        assert_eq!(found(&path), Some(4.0));
    }

    #[test]
    fn what_is_torn_is_set_aside_and_what_is_not_ours_stays() {
        let place = Place::of("refused");
        let path = place.file();
        replace(&path, &kept(1.0), 5).expect("written");
        let whole = fs::read(&path).expect("there");
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).expect("written");
            let Ok(Found::Refused(Refusal::Torn, Ok(aside))) = read(&path, true) else {
                panic!("{length} bytes of it were used, or left where they are");
            };
            assert_eq!(aside, place.0.join("state.refused"));
            assert_eq!(fs::read(aside).expect("there"), whole[..length]);
            assert!(!path.exists());
        }
        fs::write(&path, "127.0.0.1 localhost\n").expect("written");
        let error = read(&path, true).expect_err("not ours");
        assert!(error.contains("no state file of statsd-fast"), "{error}");
        assert!(path.exists());
        let error = read(&place.0, true).expect_err("not ours");
        assert!(
            error.starts_with("it is no file and would be overwritten;"),
            "{error}"
        );
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_state_and_nothing_else() {
        let place = Place::of("fails");
        let path = place.file();
        replace(&path, &kept(1.0), 5).expect("written");
        // A directory is in the way of the new file.
        let new = place.0.join("state.new");
        fs::create_dir(&new).expect("made");
        replace(&path, &kept(2.0), 5).expect_err("in the way");
        assert_eq!(found(&path), Some(1.0));
        fs::remove_dir(&new).expect("removed");
        // And one in the way of the old one.
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("made");
        fs::write(path.join("full"), "").expect("written");
        replace(&path, &kept(2.0), 5).expect_err("in the way");
        assert_eq!(place.names(), ["state"]);
    }

    #[test]
    fn what_is_in_the_way_is_said_with_the_way_out() {
        let place = Place::of("obstacle");
        assert!(obstacle(&place.file()).is_none());
        assert!(obstacle(Path::new("a name alone")).is_none());
        let said = |path: &Path| obstacle(path).map(|it| it.to_string()).unwrap_or_default();
        let gone = place.0.join("gone/state");
        assert!(said(&gone).ends_with("gone is not there; make it, or check the path"));
        fs::write(place.file(), "").expect("written");
        assert!(
            !said(&place.file().join("state")).is_empty(),
            "a file is no directory"
        );
    }
}
