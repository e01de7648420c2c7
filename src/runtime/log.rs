//! Log lines as StatsD writes them, and a brake for those that repeat.

use super::stdout;
use super::sys::time::{LocalTime, local_time};
use log::{Level, LevelFilter};
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Time between two lines of one site, in milliseconds.
const QUIET_MS: u64 = 60_000;

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

/// How to reach syslog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    /// Its socket (`log.socket`).
    pub socket: PathBuf,
    /// What the program is called there (`log.application`).
    pub application: String,
    /// Severity of lines that have no level of their own, 0 to 7 (`log.level`).
    pub level: u8,
}

impl Default for Syslog {
    fn default() -> Self {
        Self {
            socket: "/dev/log".into(),
            application: "statsd".into(),
            level: 6,
        }
    }
}

/// Sends the log to standard output, each line flushed, and never waits for it; `RUST_LOG` overrules `debug`.
///
/// A second call has no effect.
pub fn init(debug: bool) {
    let level = if debug {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    };
    let initialised = env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .target(env_logger::Target::Pipe(Box::new(Offered)))
        .format(|out, record| {
            let unix_s = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs());
            let time = local_time(unix_s.cast_signed());
            writeln!(
                out,
                "{}",
                Line {
                    time,
                    level: record.level(),
                    message: record.args()
                }
            )
        })
        .try_init();
    // The first logger stays: a test or a program around this library may have set its own.
    drop(initialised);
}

/// The way to standard output that never waits.
struct Offered;

impl std::io::Write for Offered {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        stdout::offer(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
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

/// Escapes control characters: names from the network end up in messages, and must not forge lines.
struct OneLine<'f, 'g>(&'f mut fmt::Formatter<'g>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(char::is_control) {
            let plain = piece.trim_end_matches(char::is_control);
            self.0.write_str(plain)?;
            write!(self.0, "{}", piece[plain.len()..].escape_default())?;
        }
        Ok(())
    }
}

/// Lets one line a minute through, for one site that may have much to say. Any thread may ask.
#[derive(Debug, Default)]
pub struct RateLimit {
    /// Milliseconds from which on the next line may pass; 0 before the first.
    next_ms: AtomicU64,
    suppressed: AtomicU64,
}

impl RateLimit {
    /// A site that has said nothing yet.
    pub const fn new() -> Self {
        Self {
            next_ms: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written at `now_ms` (a clock that does not go back, as
    /// [`super::clock::monotonic_ms`]): if so, how many were
    /// held back since the last one.
    pub fn pass(&self, now_ms: u64) -> Option<u64> {
        // Relaxed: the two only count, nothing else is published through them.
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        let later_ms = now_ms.saturating_add(QUIET_MS);
        let passes = now_ms >= next_ms
            && self
                .next_ms
                .compare_exchange(next_ms, later_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if passes {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
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
    fn a_message_cannot_forge_a_line() {
        assert_eq!(
            line(Level::Warn, "a\nb\r\n\u{1b}[31mü\0"),
            "3 Nov 07:05:09 - WARNING: a\\nb\\r\\n\\u{1b}[31mü\\u{0}"
        );
    }

    #[test]
    fn one_line_a_minute_passes_and_the_rest_is_counted() {
        let limit = RateLimit::new();
        assert_eq!(limit.pass(5), Some(0));
        assert_eq!(limit.pass(6), None);
        assert_eq!(limit.pass(60_004), None);
        assert_eq!(limit.pass(60_005), Some(2));
        assert_eq!(limit.pass(120_005), Some(0));
        assert_eq!(limit.pass(u64::MAX), Some(0));
        assert_eq!(
            limit.pass(u64::MAX),
            Some(0),
            "a clock at its end never blocks for ever"
        );
    }

    #[test]
    fn many_threads_share_one_line() {
        let limit = RateLimit::new();
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| limit.pass(7).is_some()).count()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum()
        });
        assert_eq!(passed, 1);
        assert_eq!(limit.pass(70_000), Some(3999));
    }
}
