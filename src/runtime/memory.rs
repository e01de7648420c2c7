//! Resident memory, and whether it is above a limit.

use super::clock::monotonic_ms;
use super::rate_limit::{RateLimit, more};
use super::sys::memory::page;
use crossbeam::channel::{Receiver, RecvTimeoutError, never};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Memory is short until it is so far below the limit again: a tenth of it.
const SLACK: u64 = 10;

/// Whether memory is short, which ends later than it begins: at the limit itself it would change with each
/// page.
#[derive(Debug, Default)]
struct Shortage {
    is: bool,
}

impl Shortage {
    /// Looks at resident memory and the limit, if there is one. Returns the new state when it changed.
    fn look(&mut self, resident: u64, limit: Option<u64>) -> Option<bool> {
        let is = match limit {
            None => false,
            Some(limit) if self.is => resident > limit - limit / SLACK,
            Some(limit) => resident > limit,
        };
        (std::mem::replace(&mut self.is, is) != is).then_some(is)
    }
}

/// Bytes of this process that are resident.
///
/// # Errors
/// When proc(5) does not say.
pub fn resident() -> io::Result<u64> {
    pages(&File::open(STATM)?).map(|pages| pages * page())
}

const STATM: &str = "/proc/self/statm";

fn pages(statm: &File) -> io::Result<u64> {
    let mut text = [0; 128];
    let read = statm.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(&text[..read]);
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.ok_or_else(|| io::Error::other("it is not as expected"))
}

/// Looks at resident memory ten times a second while there is a limit, and tells when it becomes short and
/// when it no longer is. Ends when nobody can send another limit.
pub fn watch(limits: &Receiver<Option<u64>>, mut tell: impl FnMut(bool)) {
    let (mut limit, mut shortage) = (None, Shortage::default());
    let complaints = RateLimit::new();
    let statm = File::open(STATM);
    loop {
        let timeout = limit.map_or_else(never, |_| crossbeam::channel::after(LOOK));
        let changed = crossbeam::channel::select! {
            recv(limits) -> changed => changed.map_err(|_| RecvTimeoutError::Disconnected),
            recv(timeout) -> _ => Err(RecvTimeoutError::Timeout),
        };
        match changed {
            Ok(changed) => limit = changed,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let resident = match &statm {
            Ok(statm) => pages(statm).map(|pages| pages * page()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let resident = match resident {
            Ok(resident) => resident,
            Err(error) => {
                if limit.is_some()
                    && let Some(suppressed) = complaints.pass(monotonic_ms())
                {
                    log::warn!(
                        "memoryLimit does not count: {STATM}: {error}; let this process see its own /proc{}",
                        more(suppressed)
                    );
                }
                continue;
            }
        };
        if let Some(is_short) = shortage.look(resident, limit) {
            say(is_short, resident, limit);
            tell(is_short);
        }
    }
}

fn say(is_short: bool, resident: u64, limit: Option<u64>) {
    if is_short {
        log::warn!(
            "{resident} bytes of memory are resident, above memoryLimit ({}): no new names, set members and \
             values with timestamps until it is a tenth below; see what grows with `top prefixes` in the \
             admin interface, or raise it",
            limit.unwrap_or_default()
        );
    } else {
        log::info!(
            "{resident} bytes of memory are resident, no longer above memoryLimit: new names, set members \
             and values with timestamps are taken in again"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::channel::unbounded;

    #[test]
    fn a_shortage_begins_above_the_limit_and_ends_a_tenth_below() {
        let mut shortage = Shortage::default();
        let limit = Some(1000);
        for (resident, limit, change) in [
            (1000, limit, None),
            (1001, limit, Some(true)),
            (1000, limit, None),
            (901, limit, None),
            (900, limit, Some(false)),
            (1000, limit, None),
            (1001, limit, Some(true)),
            // A new limit counts at once, and so does none.
            (1001, Some(2000), Some(false)),
            (2001, Some(2000), Some(true)),
            (2001, None, Some(false)),
        ] {
            assert_eq!(
                shortage.look(resident, limit),
                change,
                "{resident} {limit:?}"
            );
        }
    }

    #[test]
    fn resident_memory_grows_with_what_is_written() {
        let before = resident().expect("proc(5) is there");
        let written = vec![1_u8; 64 << 20];
        let after = resident().expect("proc(5) is there");
        assert!(
            after >= before + (48 << 20),
            "{before} {after} {}",
            written[77]
        );
    }

    #[test]
    fn who_watches_tells_of_each_change_and_ends_with_those_who_set_limits() {
        let (set, limits) = unbounded();
        let (tell, told) = unbounded();
        std::thread::scope(|scope| {
            scope.spawn(move || watch(&limits, |short| tell.send(short).expect("open")));
            set.send(Some(1)).expect("open");
            assert_eq!(told.recv(), Ok(true));
            set.send(None).expect("open");
            assert_eq!(told.recv(), Ok(false));
            drop(set);
            assert!(told.recv().is_err());
        });
    }
}
