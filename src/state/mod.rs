//! State: what outlives the process, in a file (`stateFile`).
//!
//! [`mod@format`] turns it into bytes and back and refuses what is not whole, [`mod@file`] reads and replaces
//! the file, [`mod@lock`] keeps other servers from it, [`keeper`] is the thread that writes it. The flusher
//! and the backends lay what is to be kept on a [`crate::metric::kept::Shelf`] and go on: nobody waits for
//! the disk.

pub mod file;
pub mod format;
pub mod keeper;
pub mod lock;

use crate::metric::kept::Kept;
use crate::metric::meter::Outside;
use crate::runtime::clock::Clock;
use file::Found;
use lock::{Lock, NotTaken};
use std::path::PathBuf;

/// Where the state is, and what is used of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// The file (`stateFile`).
    pub path: PathBuf,
    /// Names are cleaned (`keyNameSanitize`): one that is not clean cannot be ours.
    pub clean_names: bool,
    /// Seconds after which it is too old to be used; `None` is never (`stateMaxAge`).
    pub max_age_s: Option<i64>,
}

/// A tenth of `stateMaxAge` after it was written, a state is written again also when nothing has changed: its
/// age is to tell how long no server ran.
const RENEWALS: i64 = 10;

impl Options {
    fn is_to_be_renewed(&self, age_s: i64) -> bool {
        self.max_age_s
            .is_some_and(|max_s| age_s >= max_s / RENEWALS)
    }
}

/// What the last run left, and the lock of its file.
#[derive(Debug, Default)]
pub struct Restored {
    /// What is used of it.
    pub kept: Kept,
    /// Taken, unless nothing can be written there yet.
    pub lock: Lock,
}

/// Why no server can run with this file.
#[derive(Debug, thiserror::Error)]
#[error("stateFile: {}: {why}", .path.display())]
pub struct Wrong {
    path: PathBuf,
    why: String,
    /// Trying again does not mend it.
    pub lasts: bool,
}

/// For a process that takes the place of another, whose values are newer than any file's, and which has the
/// lock until it lets go. The file is only looked at.
///
/// # Errors
/// As [`restore`], but for the lock.
pub fn inherit(options: &Options, clock: &Clock) -> Result<(), Wrong> {
    let wrong = |why: String| Wrong {
        path: options.path.clone(),
        why,
        lasts: true,
    };
    let target = file::target(&options.path).map_err(|error| wrong(error.to_string()))?;
    // What cannot be written yet may be later, as while running.
    if file::obstacle(&target).is_none() {
        let now_s = (clock.now_ms() / 1000).cast_signed();
        file::read(&target, now_s, None).map_err(wrong)?;
    }
    Ok(())
}

/// Takes the file's lock and reads what the last run left. A file that is not whole is refused as a whole and
/// set aside, which the log says, and what is kept begins anew.
///
/// # Errors
/// When what is there is not ours and would be overwritten, is kept from us, or is another server's.
pub fn restore(options: &Options, clock: &Clock, outside: &Outside) -> Result<Restored, Wrong> {
    let shown = options.path.display();
    let wrong = |why: String, lasts| Wrong {
        path: options.path.clone(),
        why,
        lasts,
    };
    let target = file::target(&options.path).map_err(|error| wrong(error.to_string(), true))?;
    // As while running: a volume that comes later is written to then, and nobody is without a server.
    let anew = |obstacle: &str| {
        outside.state_errors.add(1);
        log::error!("stateFile: {shown}: {obstacle}; gauges and totals begin anew");
        Ok(Restored::default())
    };
    if let Some(obstacle) = file::obstacle(&target) {
        return anew(&obstacle.to_string());
    }
    let lock = Lock::default();
    match lock.take(&target) {
        Ok(_) => {}
        Err(taken @ (NotTaken::Another(_) | NotTaken::Released)) => {
            return Err(wrong(taken.to_string(), false));
        }
        Err(impossible) => return anew(&impossible.to_string()),
    }
    let now_s = (clock.now_ms() / 1000).cast_signed();
    let found = file::read(&target, now_s, options.max_age_s);
    let kept = match found.map_err(|why| wrong(why, true))? {
        Found::Nothing => {
            log::info!("stateFile: {shown} is not there yet: gauges and totals begin anew");
            Kept::default()
        }
        Found::State(mut kept, written_s) => {
            let unclean = format::take_unclean(&mut kept, options.clean_names);
            if let Some(first) = unclean.first() {
                outside.state_dropped.add(unclean.len() as u64);
                log::warn!(
                    "stateFile: {} gauges in {shown} are left out, since their names are not clean, as \
                     {first:?}; they were kept with keyNameSanitize: false, and live on with that alone",
                    unclean.len()
                );
            }
            let totals = kept.totals.as_ref();
            log::info!(
                "stateFile: {} gauges and {} running totals from {shown}, written {} s ago",
                kept.gauges.len(),
                totals.map_or(0, |totals| totals.counters.len()),
                now_s.saturating_sub(written_s)
            );
            kept
        }
        Found::Refused(refusal, aside) => {
            outside.state_errors.add(1);
            let way_out = match aside {
                Ok(path) => format!("it is kept as {}", path.display()),
                Err(error) => {
                    format!("it could not be set aside ({error}): it will be overwritten")
                }
            };
            log::error!(
                "stateFile: {shown} is not used, nothing of it: {refusal}; gauges and totals begin anew, and \
                 {way_out}"
            );
            Kept::default()
        }
    };
    Ok(Restored { kept, lock })
}
