//! The server under test: its process, its configuration file, what it says.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// How long an answer may take, a stop included.
const ANSWER_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    ended: bool,
}

/// A running server; it is killed when dropped.
#[derive(Debug)]
pub(crate) struct Subject {
    child: Child,
    said: Arc<(Mutex<Said>, Condvar)>,
    directory: PathBuf,
}

impl Subject {
    /// Starts `program` with a configuration, in a directory of its own that goes with it, and waits until it
    /// is up.
    pub(crate) fn start(
        program: &Path,
        config: impl FnOnce(&Path) -> Value,
    ) -> anyhow::Result<Self> {
        let directory = std::env::temp_dir().join(format!("soak-{}", std::process::id()));
        fs::create_dir(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let file = directory.join("config.json");
        fs::write(&file, format!("{:#}\n", config(&directory)))?;
        let mut child = Command::new(program)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let output = child.stdout.take().context("its output is not piped")?;
        let said = Arc::<(Mutex<Said>, Condvar)>::default();
        let heard = said.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                heard
                    .0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .lines
                    .push(line);
                heard.1.notify_all();
            }
            heard.0.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
            heard.1.notify_all();
        });
        let subject = Self {
            child,
            said,
            directory,
        };
        subject.wait_for("server is up", 0)?;
        Ok(subject)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The addresses behind `mark`, in the order it named them.
    pub(crate) fn addresses(&self, mark: &str) -> Vec<SocketAddr> {
        let said = self.said.0.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = said.lines.iter().filter_map(|line| line.split_once(mark));
        let address = behind.filter_map(|(_, rest)| rest.split([',', ' ']).next()?.parse().ok());
        address.collect()
    }

    /// Takes another configuration over.
    pub(crate) fn reload(&self, config: &Value) -> anyhow::Result<()> {
        let from = self.heard();
        let (new, file) = (
            self.directory.join("new"),
            self.directory.join("config.json"),
        );
        fs::write(&new, format!("{config:#}\n"))?;
        fs::rename(new, file)?;
        self.signal("HUP")?;
        self.wait_for("the configuration was taken over", from)?;
        Ok(())
    }

    /// Lines so far.
    fn heard(&self) -> usize {
        let said = self.said.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.lines.len()
    }

    /// The first line from this one on with `text` in it.
    fn wait_for(&self, text: &str, from: usize) -> anyhow::Result<String> {
        let said = self.said.0.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |said: &Said| {
            let mut lines = said.lines.iter().skip(from);
            lines.find(|line| line.contains(text)).cloned()
        };
        let waits = |said: &mut Said| find(said).is_none() && !said.ended;
        let (said, _) = self
            .said
            .1
            .wait_timeout_while(said, ANSWER_MAX, waits)
            .unwrap_or_else(PoisonError::into_inner);
        let last = said.lines.iter().rev().take(5).rev();
        let last: Vec<_> = last.map(String::as_str).collect();
        find(&said).with_context(|| {
            format!(
                "the server never said {text:?}; its last lines:\n{}",
                last.join("\n")
            )
        })
    }

    fn signal(&self, name: &str) -> anyhow::Result<()> {
        // The shell's own kill is on every system.
        let kill = format!("kill -{name} {}", self.id());
        let status = Command::new("sh").args(["-c", &kill]).status()?;
        ensure!(status.success(), "`{kill}` failed");
        Ok(())
    }

    /// Stops it in order; the line of its account.
    pub(crate) fn stop(mut self) -> anyhow::Result<String> {
        let from = self.heard();
        self.signal("TERM")?;
        let line = self.wait_for("account: ", from)?;
        let until = Instant::now() + ANSWER_MAX;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the server ended with {status}");
                return Ok(line);
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("the server does not end");
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It holds nothing that anybody would miss. Errors: it has ended, its files are gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
