//! Runs the real binary as its users do: a configuration file, real sockets, its log on stdout.
//!
//! The same tests can be run against another StatsD server: set `STATSD_FAST_TEST_DAEMON` to the
//! command line that starts it, to which the path of the configuration file is appended, e.g.
//! `STATSD_FAST_TEST_DAEMON="node /path/to/statsd/stats.js" cargo test --test conformance`.
//! Such a server need not understand port 0, print its addresses or take our options: it is
//! given free ports picked beforehand, and [`replaced`] tells tests of our own options to step aside.

mod carbon;
mod log;

pub(crate) use carbon::{FakeCarbon, Flush};

use log::Log;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

/// The command line that replaces our binary, if any.
pub(crate) fn replaced() -> Option<Vec<String>> {
    let line = env::var("STATSD_FAST_TEST_DAEMON").ok()?;
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    (!words.is_empty()).then_some(words)
}

/// A running daemon, killed when dropped. A failing test prints all it logged.
pub(crate) struct Daemon {
    child: Child,
    log: Log,
    listeners: Vec<SocketAddr>,
    // Removed last, when the process that reads it is gone.
    _directory: Directory,
}

impl Daemon {
    /// Starts the daemon with `config` and `arguments` and waits until every socket is bound.
    pub(crate) fn start(config: &Value, arguments: &[&str]) -> Self {
        let mut daemon = Self::spawn(config, arguments);
        daemon.wait_for_line("server is up");
        if replaced().is_some() {
            let port = config["port"].as_u64().expect("an explicit port");
            let port = u16::try_from(port).expect("a port below 65536");
            daemon.listeners = vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)];
        } else {
            daemon.listeners = daemon
                .log
                .lines()
                .iter()
                .filter_map(|l| listener(l))
                .collect();
        }
        assert!(
            !daemon.listeners.is_empty(),
            "up, but no line names a UDP listener"
        );
        daemon
    }

    /// Starts the daemon without waiting for anything: for starts that are meant to fail.
    pub(crate) fn spawn(config: &Value, arguments: &[&str]) -> Self {
        let directory = Directory::create();
        let file = directory.path().join("config.js");
        fs::write(&file, format!("{config:#}\n")).expect("the configuration can be written");
        let mut command = if let Some(words) = replaced() {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).arg(&file);
            command
        } else {
            let mut command = Command::new(env!("CARGO_BIN_EXE_statsd-fast"));
            // Both documented spellings are in use: with options and without.
            if arguments.is_empty() {
                command.arg(&file);
            } else {
                command.args(arguments).arg("--config").arg(&file);
            }
            command
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let log = Log::follow(stdout, stderr);
        Self {
            child,
            log,
            listeners: Vec::new(),
            _directory: directory,
        }
    }

    /// The address of the first UDP listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listeners[0]
    }

    /// The addresses of all UDP listeners, in the order they were logged, each once: a listener
    /// served by several threads is still one listener.
    pub(crate) fn listeners(&self) -> &[SocketAddr] {
        &self.listeners
    }

    /// A socket that sends to the first listener.
    pub(crate) fn client(&self) -> UdpSocket {
        client_of(self.address())
    }

    /// Waits until a line of stdout or stderr contains `text` and returns the first such line.
    pub(crate) fn wait_for_line(&self, text: &str) -> String {
        self.log.wait_for(text)
    }

    /// Every line printed so far, stdout and stderr together.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Sends a signal (`"TERM"`, `"INT"`, ...) to the daemon.
    pub(crate) fn signal(&self, name: &str) {
        // The shell's own kill: it is there on every system, and the tests need no unsafe.
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.child.id())])
            .status()
            .expect("sh starts");
        assert!(status.success(), "signal {name} could not be sent");
    }

    /// Waits until the daemon has ended by itself.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        // The end of both streams is the event; the process is gone or about to be.
        self.log.wait_for_end();
        self.child.wait().expect("the daemon can be waited for")
    }

    /// Asks the daemon to stop with SIGTERM and waits until it has.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_exit()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // An error means that the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon said:\n{}\n---", self.log.lines().join("\n"));
        }
    }
}

/// The configuration every test starts from: loopback, flushes every second into `carbon`.
pub(crate) fn config(carbon: &FakeCarbon) -> Value {
    let mut config = json!({
        "address": "127.0.0.1",
        "port": 0,
        "mgmt_address": "127.0.0.1",
        "mgmt_port": 0,
        "flushInterval": 1000,
        "dialect": "statsd",
        "graphiteHost": "127.0.0.1",
        "graphitePort": carbon.port(),
    });
    if replaced().is_some() {
        config["port"] = json!(free_udp_port());
        config["mgmt_port"] = json!(free_tcp_port());
    }
    config
}

/// A socket of the right family that sends to `address`.
pub(crate) fn client_of(address: SocketAddr) -> UdpSocket {
    let local: &str = if address.is_ipv4() {
        "127.0.0.1:0"
    } else {
        "[::1]:0"
    };
    let socket = UdpSocket::bind(local).expect("a client socket can be bound");
    // A listener on all addresses is reached through loopback.
    let target = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    };
    socket
        .connect((target, address.port()))
        .expect("UDP connects to any address");
    socket
}

/// A TCP port that was free a moment ago.
pub(crate) fn free_tcp_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free TCP port");
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}

fn free_udp_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free UDP port");
    socket
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}

/// The address out of `... listening on udp ADDRESS, ...`.
fn listener(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on udp ")?;
    let (address, _) = rest.split_once(", ")?;
    Some(
        address
            .parse()
            .unwrap_or_else(|_| panic!("not an address: {address:?} in {line:?}")),
    )
}

/// A directory of its own for each daemon, removed when dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// Creates a new, empty directory in cargo's directory for test output.
    pub(crate) fn create() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("daemon-{}-{number}", process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a directory for the test can be created");
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left is in cargo's own directory for tests and harms nothing.
        let _ = fs::remove_dir_all(&self.0);
    }
}
