//! The state file: read at the start, replaced as a whole at each flush.
//!
//! A new state goes into a file beside it, which then takes its place: whoever reads the path finds the old
//! one or the new one, whenever this process dies. The new file is synced before that, since after a power
//! failure some file systems have the new name but not the content; a crash of the process alone needs no
//! sync. The directory is not synced: when its entry is lost, the older file is there, and that is whole.

use super::format::{self, Refusal};
use crate::metric::kept::Kept;
use crate::runtime::sys::access::{directory_of, may_write_in, without_links};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes read and written in one call.
const BUFFER: usize = 1 << 17;
/// The file is for this user alone: names may tell what a service does.
const MODE: u32 = 0o600;
/// Refused files that are kept; past it the next one is not.
const REFUSED_MAX: u32 = 10;
/// Links that lead to one another before it must be a circle; the kernel's own number.
const LINKS_MAX: u32 = 40;

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
    let directory = directory_of(path);
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

/// Where a path leads when it is a link, or one link after another: what is there is read and replaced, and
/// the link stays.
///
/// # Errors
/// When a link cannot be read, or they lead in a circle.
pub fn target(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                path = directory_of(&path).join(fs::read_link(&path)?);
            }
            _ => return Ok(path),
        }
    }
    Err(io::Error::other("its links lead in a circle"))
}

/// Reads the state, as of `now_s`, Unix seconds; one older than `max_age_s` is not used. What is ours and not
/// used is set aside as `PATH.refused`; what is not ours, or not to be read, stays as it is.
///
/// # Errors
/// When what is there is not ours, or kept from us: what it is, and the way out.
pub fn read(path: &Path, now_s: i64, max_age_s: Option<i64>) -> Result<Found, String> {
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
        Ok(_) => File::open(path)
            .map_err(Refusal::from)
            .and_then(|file| format::decode(&mut BufReader::with_capacity(BUFFER, file))),
    };
    let refusal = match decoded {
        Ok((kept, written_s)) => {
            let age_s = now_s.saturating_sub(written_s);
            match max_age_s.filter(|max_s| age_s > *max_s) {
                None => return Ok(Found::State(kept, written_s)),
                Some(max_s) => Refusal::Old { age_s, max_s },
            }
        }
        Err(foreign @ Refusal::Foreign) => return Err(not_ours(&foreign.to_string())),
        Err(Refusal::Unreadable(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(format!(
                "it cannot be read: {error}; give it to the user that this process runs as, with chown, or \
                 take it away"
            ));
        }
        Err(refusal) => refusal,
    };
    Ok(Found::Refused(refusal, set_aside(path)))
}

/// Moves a file where no earlier one is, and says where.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    for number in 1..=REFUSED_MAX {
        let aside = match number {
            1 => beside(path, ".refused"),
            number => beside(path, &format!(".refused.{number}")),
        };
        // Nobody else makes one meanwhile: the state is locked.
        match fs::symlink_metadata(&aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return fs::rename(path, &aside).map(|()| aside);
            }
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Err(io::Error::other(format!(
        "there are {REFUSED_MAX} earlier ones beside it"
    )))
}

/// Puts this state in the place of the one at the path, which is to be no link. Returns how many bytes it
/// has.
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

/// The path with something behind its last name.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

/// Makes a file that was not there. What an earlier crash left there is cleared away.
fn create(new: &Path) -> io::Result<File> {
    let make = || {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(MODE).open(new)
    };
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            clear(new)?;
            make()
        }
        made => made,
    }
}

/// Removes what an earlier write left: the beginning of a state, or nothing but zeros.
fn clear(new: &Path) -> io::Result<()> {
    let in_the_way = |_: io::Error| {
        let what = format!(
            "{} is in the way and not of our making; take it away",
            new.display()
        );
        io::Error::new(io::ErrorKind::AlreadyExists, what)
    };
    let file = without_links(OpenOptions::new().read(true)).open(new);
    let file = file.map_err(in_the_way)?;
    let mut begin = Vec::new();
    let length = format::MAGIC.len() as u64;
    let is_file = file.metadata()?.is_file();
    if is_file {
        file.take(length).read_to_end(&mut begin)?;
    }
    let zeros = begin.iter().all(|byte| *byte == 0);
    if is_file && (zeros || format::MAGIC.as_bytes().starts_with(&begin)) {
        fs::remove_file(new)
    } else {
        Err(in_the_way(io::ErrorKind::AlreadyExists.into()))
    }
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
        match read(path, 5, None).expect("ours") {
            Found::State(kept, 5) => Some(kept.gauges[0].value),
            _ => None,
        }
    }

    #[test]
    fn a_state_takes_the_place_of_the_last_and_is_for_us_alone() {
        let place = Place::of("replace");
        let path = place.file();
        assert!(matches!(read(&path, 5, None), Ok(Found::Nothing)));
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
    fn leftovers_are_cleared_away_and_what_is_not_ours_is_not() {
        let place = Place::of("leftover");
        let (path, new) = (place.file(), place.0.join("state.new"));
        let begin = format!("{}\"version\":", format::MAGIC);
        for left in ["", "{\"form", &begin, "\0\0\0"] {
            fs::write(&new, left).expect("written");
            replace(&path, &kept(1.0), 5).expect("written");
            assert_eq!(place.names(), ["state"], "{left:?}");
        }
        let refused = |value| {
            let error = replace(&path, &kept(value), 5).expect_err("in the way");
            let said = error.to_string();
            assert!(said.ends_with("state.new is in the way and not of our making; take it away"));
            assert_eq!(found(&path), Some(1.0));
        };
        fs::write(&new, "somebody's notes").expect("written");
        refused(2.0);
        assert_eq!(fs::read(&new).expect("there"), b"somebody's notes");
        fs::remove_file(&new).expect("removed");
        // Nor a link, wherever it leads.
        let victim = place.0.join("victim");
        fs::write(&victim, "").expect("written");
        std::os::unix::fs::symlink(&victim, &new).expect("linked");
        refused(3.0);
        assert_eq!(place.names(), ["state", "state.new", "victim"]);
    }

    #[test]
    fn a_link_leads_to_what_is_read_and_replaced() {
        let place = Place::of("link");
        let link = |to: &str, name: &str| {
            std::os::unix::fs::symlink(to, place.0.join(name)).expect("linked");
        };
        link("second", "first");
        link("state", "second");
        assert_eq!(
            target(&place.0.join("first")).expect("not there yet"),
            place.file()
        );
        replace(&place.file(), &kept(1.0), 5).expect("written");
        assert_eq!(target(&place.0.join("first")).expect("there"), place.file());
        assert_eq!(target(&place.file()).expect("no link"), place.file());
        link("b", "a");
        link("a", "b");
        let error = target(&place.0.join("a")).expect_err("a circle");
        assert_eq!(error.to_string(), "its links lead in a circle");
    }

    #[test]
    fn one_that_is_too_old_is_set_aside() {
        let place = Place::of("old");
        let path = place.file();
        replace(&path, &kept(1.0), 5).expect("written");
        assert!(matches!(read(&path, 15, Some(10)), Ok(Found::State(_, 5))));
        let said = match read(&path, 16, Some(10)) {
            Ok(Found::Refused(refusal, Ok(_))) => refusal.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(said, "it was written 11 s ago, and stateMaxAge is 10 s");
        assert_eq!(place.names(), ["state.refused"]);
    }

    #[test]
    fn no_refusal_overwrites_an_earlier_one() {
        let place = Place::of("refusals");
        let path = place.file();
        for number in 1..=REFUSED_MAX {
            fs::write(&path, "{\"form").expect("written");
            let Ok(Found::Refused(_, Ok(aside))) = read(&path, 5, None) else {
                panic!("torn, and there is room for the refusal {number}");
            };
            let end = if number == 1 {
                String::new()
            } else {
                format!(".{number}")
            };
            assert_eq!(aside, place.0.join(format!("state.refused{end}")));
        }
        fs::write(&path, "").expect("written");
        let Ok(Found::Refused(_, Err(error))) = read(&path, 5, None) else {
            panic!("torn");
        };
        assert_eq!(error.to_string(), "there are 10 earlier ones beside it");
        assert_eq!(place.names().len(), 11);
    }

    #[test]
    fn what_is_torn_is_set_aside_and_what_is_not_ours_stays() {
        let place = Place::of("refused");
        let path = place.file();
        replace(&path, &kept(1.0), 5).expect("written");
        let whole = fs::read(&path).expect("there");
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).expect("written");
            let Ok(Found::Refused(Refusal::Torn, Ok(aside))) = read(&path, 5, None) else {
                panic!("{length} bytes of it were used, or left where they are");
            };
            assert_eq!(aside, place.0.join("state.refused"));
            assert_eq!(fs::read(&aside).expect("there"), whole[..length]);
            fs::remove_file(aside).expect("removed");
            assert!(!path.exists());
        }
        fs::write(&path, "127.0.0.1 localhost\n").expect("written");
        let error = read(&path, 5, None).expect_err("not ours");
        assert!(error.contains("no state file of statsd-fast"), "{error}");
        assert!(path.exists());
        let error = read(&place.0, 5, None).expect_err("not ours");
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
