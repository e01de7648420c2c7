//! The log: lines as StatsD writes them, to standard output or to syslog.

use super::date::{MONTHS, now};
use super::one_line::OneLine;
use super::stdout;
use super::sys::time::LocalTime;
use super::syslog::{self, Datagrams, Lost};
use log::{Level, LevelFilter};
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

pub use super::syslog::Syslog;

/// Where the log goes, and how much of it there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Log more (`debug`).
    pub debug: bool,
    /// Log every line received (`dumpMessages`).
    pub dump: bool,
    /// Send the log to syslog, not to standard output (`log.backend`).
    pub syslog: Option<Syslog>,
}

/// Libraries that log each failure as an error, without limit, which whoever called them says as well:
/// silent, unless `RUST_LOG` names them.
const NEEDLESS: [&str; 1] = ["rustls_platform_verifier"];

/// Whether lines received go to the log.
/// Written by [`set`], read by every worker once a batch. Relaxed: nothing else is published through it.
static DUMPING: AtomicBool = AtomicBool::new(false);

/// Whether the program's logger is ours. Relaxed: it only keeps us from another one's level.
static OURS: AtomicBool = AtomicBool::new(false);

/// Where lines go now. Held only to take or to replace the `Arc`.
static PLACE: RwLock<Option<Arc<Place>>> = RwLock::new(None);

/// One logger for the whole run; what it does is in [`PLACE`].
static LOGGER: Logger = Logger;

/// What [`Options`] come to.
struct Place {
    /// Used for its filter alone: `RUST_LOG`, or `debug` without it.
    filter: env_logger::Logger,
    /// `None` is standard output.
    syslog: Option<Datagrams>,
}

/// Makes this the log of the program and begins with these options.
///
/// Where a test or a program around this library has set a logger of its own, that one stays.
pub fn init(options: &Options) {
    if log::set_logger(&LOGGER).is_ok() {
        OURS.store(true, Ordering::Relaxed);
    }
    set(options);
}

/// Goes on with other options, from the next line on. `RUST_LOG` overrules `debug`.
pub fn set(options: &Options) {
    let level = if options.debug {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    };
    let filter = filter(level);
    if OURS.load(Ordering::Relaxed) {
        log::set_max_level(filter.filter());
    }
    let syslog = options.syslog.as_ref().and_then(Datagrams::new);
    let place = Arc::new(Place { filter, syslog });
    *PLACE.write().unwrap_or_else(PoisonError::into_inner) = Some(place.clone());
    if place.syslog.is_none() {
        let lost = syslog::take_lost();
        if lost > 0 {
            put(
                Some(&place),
                Some(Level::Warn),
                &format_args!("{}", Lost(lost)),
            );
        }
    }
    DUMPING.store(options.dump, Ordering::Relaxed);
}

/// What is logged: `RUST_LOG`, or this level without it.
fn filter(level: LevelFilter) -> env_logger::Logger {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level);
    for target in NEEDLESS {
        builder.filter_module(target, LevelFilter::Off);
    }
    builder.parse_default_env().build()
}

/// Gives the last lines so long to be written: for the end of a process.
pub fn finish(at_most: Duration) {
    let lost = syslog::take_lost();
    if lost > 0 {
        stdout::complain(format!("statsd-fast: {}\n", Lost(lost)).as_bytes());
    }
    stdout::finish(at_most);
}

/// Whether each line received is to be logged (`dumpMessages`): a worker asks once a batch.
#[inline]
pub fn dumping() -> bool {
    DUMPING.load(Ordering::Relaxed)
}

/// Logs a line that has no level of its own, whatever the level asked for: `DEBUG` on standard output,
/// `log.level` in syslog. Never waits.
pub fn line(message: &fmt::Arguments<'_>) {
    put(place().as_deref(), None, message);
}

fn place() -> Option<Arc<Place>> {
    PLACE.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn put(place: Option<&Place>, level: Option<Level>, message: &fmt::Arguments<'_>) {
    if let Some(syslog) = place.and_then(|place| place.syslog.as_ref()) {
        return syslog.send(level, message);
    }
    let line = Line {
        time: now(),
        level: level.unwrap_or(Level::Debug),
        message,
    };
    stdout::offer(format!("{line}\n").as_bytes());
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        place().is_some_and(|place| place.filter.enabled(metadata))
    }

    fn log(&self, record: &log::Record<'_>) {
        let place = place();
        if place
            .as_ref()
            .is_some_and(|place| place.filter.matches(record))
        {
            put(place.as_deref(), Some(record.level()), record.args());
        }
    }

    fn flush(&self) {}
}

/// One line: `<d> <Mon> <HH:MM:SS> - <TYPE>: <message>`.
struct Line<'a> {
    time: Option<LocalTime>,
    level: Level,
    message: &'a fmt::Arguments<'a>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(LocalTime {
            day,
            month,
            hour,
            minute,
            second,
        }) = self.time
        {
            write!(
                f,
                "{day} {} {hour:02}:{minute:02}:{second:02} - ",
                MONTHS[month % 12]
            )?;
        }
        let kind = match self.level {
            Level::Error => "ERROR",
            Level::Warn => "WARNING",
            Level::Info => "INFO",
            Level::Debug | Level::Trace => "DEBUG",
        };
        write!(f, "{kind}: ")?;
        write!(OneLine(f), "{}", self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, message: &str) -> String {
        let time = Some(LocalTime {
            day: 3,
            month: 10,
            hour: 7,
            minute: 5,
            second: 9,
        });
        Line {
            time,
            level,
            message: &format_args!("{message}"),
        }
        .to_string()
    }

    #[test]
    fn lines_have_the_shape_of_the_reference() {
        assert_eq!(
            line(Level::Info, "server is up"),
            "3 Nov 07:05:09 - INFO: server is up"
        );
        assert_eq!(line(Level::Warn, "x"), "3 Nov 07:05:09 - WARNING: x");
        assert_eq!(line(Level::Error, "x"), "3 Nov 07:05:09 - ERROR: x");
        assert_eq!(line(Level::Debug, "x"), "3 Nov 07:05:09 - DEBUG: x");
        assert_eq!(line(Level::Trace, "x"), "3 Nov 07:05:09 - DEBUG: x");
    }

    #[test]
    fn a_library_that_repeats_what_we_say_is_silent() {
        use log::Log as _;
        let filter = filter(LevelFilter::Debug);
        let enabled = |target| {
            let metadata = log::Metadata::builder();
            let metadata = { metadata }.level(Level::Error).target(target).build();
            filter.enabled(&metadata)
        };
        assert!(enabled("statsd_fast::deliver"));
        assert!(!enabled("rustls_platform_verifier::verification::others"));
    }

    #[test]
    fn a_message_cannot_forge_a_line() {
        assert_eq!(
            line(Level::Warn, "a\nb\r\n\u{1b}[31mü\0"),
            "3 Nov 07:05:09 - WARNING: a\\nb\\r\\n\\u{1b}[31mü\\u{0}"
        );
    }
}
