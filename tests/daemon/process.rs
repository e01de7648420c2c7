//! A child process whose output is followed and which does not outlive its test.

use super::log::Log;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::{fs, thread};

/// Killed when dropped; a failing test prints all it said.
pub(crate) struct Process {
    child: Child,
    /// What it has printed so far.
    pub(crate) log: Log,
}

impl Process {
    /// Starts `command` without input.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let log = Log::follow(stdout, stderr);
        Self { child, log }
    }

    /// Sends a signal (`"TERM"`, `"INT"`, ...).
    pub(crate) fn signal(&self, name: &str) {
        // The shell's own kill: it is there on every system, and the tests need no unsafe.
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.child.id())])
            .status()
            .expect("sh starts");
        assert!(status.success(), "signal {name} could not be sent");
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is this process that listens on TCP `port` of an IPv4 address.
    pub(crate) fn listens_on(&self, port: u16) -> bool {
        let table = fs::read_to_string("/proc/net/tcp").expect("Linux lists its sockets");
        // sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode; 0A is LISTEN (proc(5)).
        let listening = table.lines().filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let here = fields.get(1)?.ends_with(&format!(":{port:04X}")) && fields[3] == "0A";
            here.then(|| PathBuf::from(format!("socket:[{}]", fields[9])))
        });
        let listening: Vec<_> = listening.collect();
        // An error: the process has ended, or closed the file while it was looked at.
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        let targets = files.into_iter().flatten().flatten();
        let mut targets = targets.filter_map(|file| fs::read_link(file.path()).ok());
        targets.any(|target| listening.contains(&target))
    }

    /// The names of its threads, and how often each has given up or lost its core.
    pub(crate) fn switches(&self) -> Vec<(String, u64)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let of = |path: PathBuf| {
            let status = fs::read_to_string(path.join("status")).ok()?;
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
            let count = |name| field(name)?.trim().parse::<u64>().ok();
            let all = count("voluntary_ctxt_switches:")? + count("nonvoluntary_ctxt_switches:")?;
            Some((field("Name:")?.trim().to_owned(), all))
        };
        let tasks = tasks
            .expect("it runs")
            .map(|task| task.expect("an entry").path());
        // One that has ended meanwhile has none.
        tasks.filter_map(of).collect()
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        // The end of both streams is the event; the process is gone or about to be.
        self.log.wait_for_end();
        self.child.wait().expect("a child can be waited for")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- it said:\n{}\n---", self.log.lines().join("\n"));
        }
    }
}
