//! State: what outlives the process, in a file (`stateFile`).
//!
//! [`mod@format`] turns it into bytes and back and refuses what is not whole, [`mod@file`] reads and replaces
//! the file, [`keeper`] is the thread that writes it. The flusher and the backends lay what is to be kept on
//! a [`crate::metric::kept::Shelf`] and go on: nobody waits for the disk.

pub mod crc32;
pub mod file;
pub mod format;
pub mod keeper;

use crate::metric::kept::Kept;
use crate::metric::meter::Outside;
use crate::runtime::clock::Clock;
use file::Found;
use std::io;
use std::path::PathBuf;

/// Where the state is, and what its names are like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The file (`stateFile`).
    pub path: PathBuf,
    /// Names are cleaned (`keyNameSanitize`): one that is not clean cannot be ours.
    pub clean_names: bool,
}

/// Reads what the last run left. A file that is not whole is refused as a whole and set aside, which the log
/// says, and what is kept begins anew.
///
/// # Errors
/// When what is there is not ours and would be overwritten.
pub fn restore(options: &Options, clock: &Clock, outside: &Outside) -> io::Result<Kept> {
    let shown = options.path.display();
    let wrong = |why: String| io::Error::other(format!("stateFile: {shown}: {why}"));
    if let Some(obstacle) = file::obstacle(&options.path) {
        // As while running: a volume that comes later is written to then, and nobody is without a server.
        outside.state_errors.add(1);
        log::error!("stateFile: {shown}: {obstacle}; gauges and totals begin anew");
        return Ok(Kept::default());
    }
    match file::read(&options.path, options.clean_names).map_err(wrong)? {
        Found::Nothing => {
            log::info!("stateFile: {shown} is not there yet: gauges and totals begin anew");
            Ok(Kept::default())
        }
        Found::State(kept, written_s) => {
            let now_s = (clock.now_ms() / 1000).cast_signed();
            let totals = kept.totals.as_ref();
            log::info!(
                "stateFile: {} gauges and {} running totals from {shown}, written {} s ago",
                kept.gauges.len(),
                totals.map_or(0, |totals| totals.counters.len()),
                now_s.saturating_sub(written_s)
            );
            Ok(kept)
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
            Ok(Kept::default())
        }
    }
}
