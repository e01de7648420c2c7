//! Lines to syslog: datagrams in the BSD format, as syslog(3) sends them, which nobody waits for.
//!
//! Each line is sent to the path anew. So there is no connection to lose: a syslog that comes late, goes away
//! or is started again is found by the next line.

use super::clock::monotonic_ms;
use super::date::{MONTHS, now};
use super::one_line::OneLine;
use super::rate_limit::RateLimit;
use super::stdout;
use super::sys::time::LocalTime;
use log::Level;
use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// The facility local0, in its place above the severity; the reference's.
const LOCAL0: u8 = 16 << 3;

const ERROR: u8 = 3;
const WARNING: u8 = 4;
const INFO: u8 = 6;
const DEBUG: u8 = 7;

/// Longest datagram sent, in bytes; what is longer is cut. Syslog servers cut at 8 KiB unless told otherwise,
/// and what the socket cannot hold the kernel would refuse whole.
const BYTES_MAX: usize = 8192;

/// Lines syslog did not take. Of all senders of a run together: a new one says what the last could not.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// One line a minute on standard error, for the run.
static COMPLAINTS: RateLimit = RateLimit::new();

/// Lines lost that syslog has not been told of; whoever takes the number says it.
pub(super) fn take_lost() -> u64 {
    // Relaxed: it only counts.
    DROPPED.swap(0, Ordering::Relaxed)
}

/// How losses are said, wherever it is.
pub(super) struct Lost(pub(super) u64);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = if self.0 == 1 { "line" } else { "lines" };
        write!(
            f,
            "{} {lines} of the log dropped: syslog did not take them",
            self.0
        )
    }
}

/// The way to syslog. Any thread may send.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UnixDatagram,
    to: PathBuf,
    /// Between time and message: `ident[pid]: `.
    tag: String,
    /// Severity of lines that have none.
    level: u8,
}

impl Datagrams {
    /// `None` when the system has no socket to give, which is said on standard error.
    pub(super) fn new(options: &Syslog) -> Option<Self> {
        let socket = UnixDatagram::unbound()
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
            .inspect_err(|error| {
                let line = format!(
                    "statsd-fast: no socket for syslog: {error}; the log goes to standard output\n"
                );
                stdout::complain(line.as_bytes());
            })
            .ok()?;
        let mut tag = String::new();
        // Writing to a String cannot fail.
        let _ = write!(
            OneLine(&mut tag),
            "{}[{}]: ",
            options.application,
            std::process::id()
        );
        Some(Self {
            socket,
            to: options.socket.clone(),
            tag,
            level: options.level,
        })
    }

    /// Sends a line; what finds no taker is counted, and the next line that finds one says so.
    pub(super) fn send(&self, level: Option<Level>, message: &fmt::Arguments<'_>) {
        let dropped = take_lost();
        let sent = if dropped == 0 {
            Ok(())
        } else {
            self.put(WARNING, &format_args!("{}", Lost(dropped)))
        };
        let said = sent.is_ok();
        let sent = sent.and_then(|()| self.put(self.severity(level), message));
        if let Err(error) = sent {
            let unsaid = if said { 0 } else { dropped };
            DROPPED.fetch_add(unsaid + 1, Ordering::Relaxed);
            self.complain(&error);
        }
    }

    fn severity(&self, level: Option<Level>) -> u8 {
        match level {
            None => self.level,
            Some(Level::Error) => ERROR,
            Some(Level::Warn) => WARNING,
            Some(Level::Info) => INFO,
            Some(Level::Debug | Level::Trace) => DEBUG,
        }
    }

    fn put(&self, severity: u8, message: &fmt::Arguments<'_>) -> io::Result<()> {
        let text = datagram(LOCAL0 | severity, now(), &self.tag, message);
        self.socket.send_to(text.as_bytes(), &self.to).map(drop)
    }

    fn complain(&self, error: &io::Error) {
        if COMPLAINTS.pass(monotonic_ms()).is_none() {
            return;
        }
        let cause = match error.kind() {
            io::ErrorKind::WouldBlock => "it does not read; is it held up?".into(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                format!("{error}; is it running? `log.socket` names its socket")
            }
            _ => format!("{error}; see `log.socket`, which has to be a datagram socket"),
        };
        let line = format!(
            "statsd-fast: syslog at {} takes nothing: {cause}; lines of the log are lost, and counted\n",
            self.to.display()
        );
        stdout::complain(line.as_bytes());
    }
}

/// `<priority>Nov  3 07:05:09 ident[pid]: message`, at most [`BYTES_MAX`] bytes.
fn datagram(
    priority: u8,
    time: Option<LocalTime>,
    tag: &str,
    message: &fmt::Arguments<'_>,
) -> String {
    let mut text = format!("<{priority}>");
    // Writing to a String cannot fail.
    if let Some(LocalTime {
        day,
        month,
        hour,
        minute,
        second,
    }) = time
    {
        let month = MONTHS[month % 12];
        let _ = write!(text, "{month} {day:2} {hour:02}:{minute:02}:{second:02} ");
    }
    text.push_str(tag);
    let _ = write!(OneLine(&mut text), "{message}");
    text.truncate(text.floor_char_boundary(BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const TIME: LocalTime = LocalTime {
        day: 3,
        month: 10,
        hour: 7,
        minute: 5,
        second: 9,
    };

    #[test]
    fn a_datagram_is_that_of_syslog_3() {
        let text = |message| datagram(134, Some(TIME), "statsd[12]: ", &format_args!("{message}"));
        assert_eq!(text("up"), "<134>Nov  3 07:05:09 statsd[12]: up");
        assert_eq!(
            text("a\nb\0ü"),
            "<134>Nov  3 07:05:09 statsd[12]: a\\nb\\u{0}ü"
        );
        let later = LocalTime { day: 22, ..TIME };
        assert_eq!(
            datagram(131, Some(later), "s[1]: ", &format_args!("x")),
            "<131>Nov 22 07:05:09 s[1]: x"
        );
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let text = datagram(
            135,
            Some(TIME),
            "s[1]: ",
            &format_args!("{}", "ü".repeat(BYTES_MAX)),
        );
        assert_eq!(text.len(), BYTES_MAX - 1);
        assert!(text.ends_with('ü'));
    }

    /// The ways of one run share their counts, so one test goes through all of it.
    #[test]
    fn what_is_lost_is_counted_and_said_when_there_is_room() {
        let path = std::env::temp_dir().join(format!("statsd-fast-syslog-{}", std::process::id()));
        let datagrams = Datagrams::new(&Syslog {
            socket: path.clone(),
            application: "a\nb".into(),
            level: 5,
        })
        .expect("a socket");
        let pid = std::process::id();
        let send = |level, text: &str| datagrams.send(level, &format_args!("{text}"));
        let next = |socket: &UnixDatagram| {
            let mut bytes = [0; 1024];
            let length = socket.recv(&mut bytes).expect("a datagram");
            let text = std::str::from_utf8(&bytes[..length]).expect("text");
            let (begin, message) = text.split_once(&format!(" a\\nb[{pid}]: ")).expect("a tag");
            let (priority, _time) = begin.split_once('>').expect("a priority");
            format!("{} {message}", &priority[1..])
        };
        let lost = |lines| format!("132 {}", Lost(lines));

        send(Some(Level::Info), "nobody there yet");
        send(Some(Level::Info), "nor now");
        let syslog = bind(&path);
        for (level, severity) in [
            (Some(Level::Error), 131),
            (Some(Level::Warn), 132),
            (Some(Level::Info), 134),
            (Some(Level::Debug), 135),
            (Some(Level::Trace), 135),
            (None, 133),
        ] {
            send(level, "a line");
            if severity == 131 {
                assert_eq!(next(&syslog), lost(2));
            }
            assert_eq!(next(&syslog), format!("{severity} a line"));
        }

        // Gone, and back at the same path.
        drop(syslog);
        send(None, "into the void");
        std::fs::remove_file(&path).expect("it was bound");
        let syslog = bind(&path);
        send(None, "back");
        assert_eq!(next(&syslog), lost(1));
        assert_eq!(next(&syslog), "133 back");

        // Full: nobody reads.
        while DROPPED.load(Ordering::Relaxed) < 3 {
            send(None, "more");
        }
        syslog.set_nonblocking(true).expect("a socket");
        let mut bytes = [0; 1024];
        while syslog.recv(&mut bytes).is_ok() {}
        send(None, "room again");
        assert_eq!(next(&syslog), lost(3));
        assert_eq!(next(&syslog), "133 room again");
        std::fs::remove_file(&path).expect("it was bound");
    }

    fn bind(path: &Path) -> UnixDatagram {
        UnixDatagram::bind(path).expect("a socket for syslog")
    }
}
