//! What a process prints, collected by threads so that tests can wait for a line.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// How long any awaited event may take before the test fails. Generous: it is only ever spent by a
/// test that fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The lines of stdout and stderr of one process.
pub(crate) struct Log(Arc<(Mutex<Text>, Condvar)>);

#[derive(Default)]
struct Text {
    lines: Vec<String>,
    ended_streams: u32,
}

impl Log {
    /// Reads both streams to their ends in two threads.
    pub(crate) fn follow(
        stdout: impl Read + Send + 'static,
        stderr: impl Read + Send + 'static,
    ) -> Self {
        let shared = Arc::new((Mutex::new(Text::default()), Condvar::new()));
        collect(stdout, Arc::clone(&shared));
        collect(stderr, Arc::clone(&shared));
        Self(shared)
    }

    /// Every line so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.text().lines.clone()
    }

    /// Waits for a line that contains `text`; fails when both streams end without one.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let mut found = None;
        let mut looked_at = 0;
        self.wait(text, |t| {
            found = t.lines[looked_at..]
                .iter()
                .find(|line| line.contains(text))
                .cloned();
            looked_at = t.lines.len();
            found.is_some() || t.ended_streams == 2
        });
        found.unwrap_or_else(|| panic!("the process ended and never said {text:?}"))
    }

    /// Waits until `find` finds something in all lines so far; fails when both streams end without.
    pub(crate) fn wait_until<T>(&self, what: &str, find: impl Fn(&[String]) -> Option<T>) -> T {
        let mut found = None;
        self.wait(what, |t| {
            found = find(&t.lines);
            found.is_some() || t.ended_streams == 2
        });
        found.unwrap_or_else(|| panic!("the process ended before: {what}"))
    }

    /// Whether both streams have ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.text().ended_streams == 2
    }

    /// Waits until both streams have ended.
    pub(crate) fn wait_for_end(&self) {
        self.wait("end of output", |t| t.ended_streams == 2);
    }

    fn wait(&self, what: &str, mut done: impl FnMut(&Text) -> bool) {
        let result = self
            .0
            .1
            .wait_timeout_while(self.text(), DEADLINE, |t| !done(t));
        // Nobody may panic with the lock: a failing test still prints what is behind it.
        let timed_out = result
            .expect("no thread panics with the lock")
            .1
            .timed_out();
        assert!(!timed_out, "waited {DEADLINE:?} in vain for: {what}");
    }

    fn text(&self) -> MutexGuard<'_, Text> {
        self.0.0.lock().expect("no thread panics with the lock")
    }
}

fn collect(stream: impl Read + Send + 'static, shared: Arc<(Mutex<Text>, Condvar)>) {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        // An unreadable stream counts as ended: whoever waits for a line then fails by name.
        while matches!(stream.read_until(b'\n', &mut line), Ok(count) if count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            shared
                .0
                .lock()
                .expect("no thread panics with the lock")
                .lines
                .push(text);
            shared.1.notify_all();
        }
        shared
            .0
            .lock()
            .expect("no thread panics with the lock")
            .ended_streams += 1;
        shared.1.notify_all();
    });
}
