//! Reports of the busiest names (`keyFlush`), written by a thread of their own: neither a slow disk nor
//! a reader of standard output that stalls holds the flusher up.

use super::{Flusher, KeyFlush};
use crate::metric::registry::Name;
use crate::runtime::clock::monotonic_ms;
use crate::runtime::date;
use crate::runtime::rate_limit::{RateLimit, more};
use crate::runtime::stdout;
use crossbeam::channel::{Receiver, Sender, bounded};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Reports that may wait while one is written.
const WAITING_MAX: usize = 1;
/// How long the end of the server waits for the writer.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a report is made of; its text is the writer's work.
#[derive(Debug)]
struct Counts {
    /// Names with their values; a name may come once for each kind.
    counts: Vec<(Name, u64)>,
    /// When, Unix seconds.
    at_s: i64,
}

/// Knows when the next report is due, and hands it to its writer.
#[derive(Debug)]
pub(super) struct Reporter {
    options: KeyFlush,
    /// When the next report is due, `Clock::steady_ms`.
    pub(super) next_ms: u64,
    reports: Sender<Counts>,
    /// Closed when the writer is through. Dropping both lets it end by itself.
    written: Receiver<()>,
    dropped: RateLimit,
}

impl Reporter {
    /// The first report is due an interval from now.
    pub(super) fn new(options: KeyFlush, now_ms: u64) -> Self {
        let (reports, waiting) = bounded(WAITING_MAX);
        let (closes_when_written, written) = bounded::<()>(0);
        let (file, percent) = (options.file.clone(), options.percent);
        let writer = std::thread::Builder::new()
            .name("key flush".into())
            .spawn(move || {
                let _closes_when_written = closes_when_written;
                write(&waiting, percent, file);
            });
        if let Err(error) = &writer {
            log::error!("keyFlush: no thread to write reports with: {error}; there will be none");
        }
        Self {
            next_ms: now_ms + options.every.as_millis() as u64,
            options,
            reports,
            written,
            dropped: RateLimit::new(),
        }
    }

    /// Waits until what was reported is written, but not for a writer that hangs.
    pub(super) fn finish(self) {
        drop(self.reports);
        let waited = self.written.recv_timeout(LAST_WORDS);
        if waited.is_err_and(|error| error.is_timeout()) {
            log::warn!("keyFlush: the last report is not written: whatever takes it hangs");
        }
    }

    /// Hands over what was counted, at `now_ms` by `Clock::steady_ms` and `at_s` Unix seconds.
    fn report(&mut self, counts: Vec<(Name, u64)>, now_ms: u64, at_s: i64) {
        // Late by several intervals, it reports once.
        let every = self.options.every.as_millis() as u64;
        self.next_ms += (now_ms.saturating_sub(self.next_ms) / every + 1) * every;
        if !counts.is_empty()
            && self.reports.try_send(Counts { counts, at_s }).is_err()
            && let Some(suppressed) = self.dropped.pass(monotonic_ms())
        {
            log::warn!(
                "keyFlush: a report was dropped, since earlier ones are not written yet; likely cause: \
                 a slow disk, or nobody reads standard output{}",
                more(suppressed)
            );
        }
    }
}

impl Flusher {
    /// Reports the names that got most values since the last report.
    pub(super) fn report_busiest(&mut self) {
        self.state.catch_up(&self.registry);
        let counts = self.state.take_key_counts();
        let at_s = (self.clock.now_ms() / 1000).cast_signed();
        if let Some(busiest) = &mut self.busiest {
            busiest.report(counts, self.clock.steady_ms(), at_s);
        }
    }
}

/// A line for each of the first `percent` of the names, as the reference writes it.
fn text(counts: Vec<(Name, u64)>, percent: u8, date: &str) -> String {
    let mut by_name: HashMap<Name, u64> = HashMap::new();
    for (name, count) in counts {
        *by_name.entry(name).or_insert(0) += count;
    }
    let mut counts: Vec<_> = by_name.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let shown = (counts.len() * usize::from(percent)).div_ceil(100);
    let mut text = String::new();
    for (name, count) in &counts[..shown] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{date} count={count} key={}", name.escape_debug());
    }
    text
}

fn write(reports: &Receiver<Counts>, percent: u8, file: Option<PathBuf>) {
    let complaints = RateLimit::new();
    for Counts { counts, at_s } in reports {
        let report = text(counts, percent, &date::javascript(at_s));
        if report.is_empty() {
            continue;
        }
        let written = match &file {
            Some(path) => append(path, &report),
            None => stdout::write(report.into_bytes()),
        };
        if let Err(error) = written
            && let Some(suppressed) = complaints.pass(monotonic_ms())
        {
            let place = file
                .as_ref()
                .map_or_else(|| "standard output".into(), |path| path.to_string_lossy());
            log::error!(
                "keyFlush: a report was lost: {place}: {error}; correct keyFlush.log, or give this user \
                 the right to write there{}",
                more(suppressed)
            );
        }
    }
}

/// Opened for each report: whoever rotates the file needs to tell nobody.
fn append(path: &Path, report: &str) -> io::Result<()> {
    if path.metadata().is_ok_and(|it| !it.is_file()) {
        return Err(io::Error::other("it is there and no file"));
    }
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(report.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_come_first_and_a_share_of_them_is_shown() {
        let counts = || {
            let names = [("a", 1u64), ("b", 7), ("c", 2), ("d\n", 1), ("a", 1)];
            names.map(|(name, count)| (Name::from(name), count)).into()
        };
        let expected = "D count=7 key=b\nD count=2 key=a\nD count=2 key=c\n";
        assert_eq!(text(counts(), 51, "D"), expected);
        assert_eq!(text(counts(), 50, "D"), expected[..32]);
        assert_eq!(
            text(counts(), 100, "D"),
            format!("{expected}D count=1 key=d\\n\n")
        );
        assert_eq!(text(Vec::new(), 100, "D"), "");
    }
}
