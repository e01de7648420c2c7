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
use std::thread::JoinHandle;

/// Reports that may wait to be written.
const WAITING_MAX: usize = 4;

/// Knows when the next report is due, and hands it to its writer.
#[derive(Debug)]
pub(super) struct Reporter {
    options: KeyFlush,
    /// When the next report is due, Unix milliseconds.
    pub(super) next_ms: u64,
    reports: Sender<String>,
    writer: io::Result<JoinHandle<()>>,
    dropped: RateLimit,
}

impl Reporter {
    /// The first report is due an interval from now.
    pub(super) fn new(options: KeyFlush, now_ms: u64) -> Self {
        let (reports, waiting) = bounded(WAITING_MAX);
        let file = options.file.clone();
        let writer = std::thread::Builder::new()
            .name("key flush".into())
            .spawn(move || write(&waiting, file));
        if let Err(error) = &writer {
            log::error!("keyFlush: no thread to write reports with: {error}; there will be none");
        }
        Self {
            next_ms: now_ms + options.every.as_millis() as u64,
            options,
            reports,
            writer,
            dropped: RateLimit::new(),
        }
    }

    /// Waits until what was reported is written.
    pub(super) fn finish(self) {
        drop(self.reports);
        if let Ok(writer) = self.writer {
            // A panic there has been said by then.
            let _ = writer.join();
        }
    }

    fn report(&mut self, counts: HashMap<Name, u64>, now_ms: u64) {
        // Late by several intervals, it reports once.
        let every = self.options.every.as_millis() as u64;
        self.next_ms += (now_ms.saturating_sub(self.next_ms) / every + 1) * every;
        let date = date::javascript((now_ms / 1000).cast_signed());
        let text = text(counts, self.options.percent, &date);
        if !text.is_empty()
            && self.reports.try_send(text).is_err()
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
        let now_ms = self.clock.now_ms();
        self.state.catch_up(&self.registry);
        let counts = self.state.take_key_counts();
        if let Some(busiest) = &mut self.busiest {
            busiest.report(counts, now_ms);
        }
    }
}

/// A line for each of the first `percent` of the names, as the reference writes it.
fn text(counts: HashMap<Name, u64>, percent: u8, date: &str) -> String {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let shown = (counts.len() * usize::from(percent)).div_ceil(100);
    let mut text = String::new();
    for (name, count) in &counts[..shown] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{date} count={count} key={}", name.escape_debug());
    }
    text
}

fn write(reports: &Receiver<String>, file: Option<PathBuf>) {
    let complaints = RateLimit::new();
    for report in reports {
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
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(report.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_come_first_and_a_share_of_them_is_shown() {
        let counts = || {
            let names = [("a", 2u64), ("b", 7), ("c", 2), ("d\n", 1)];
            names.map(|(name, count)| (Name::from(name), count)).into()
        };
        let expected = "D count=7 key=b\nD count=2 key=a\nD count=2 key=c\n";
        assert_eq!(text(counts(), 51, "D"), expected);
        assert_eq!(text(counts(), 50, "D"), expected[..32]);
        assert_eq!(
            text(counts(), 100, "D"),
            format!("{expected}D count=1 key=d\\n\n")
        );
        assert_eq!(text(HashMap::new(), 100, "D"), "");
    }
}
