//! Runs the real binary as its users do: a configuration file, real sockets, its log on stdout.
//!
//! The same tests can be run against another StatsD server: set `STATSD_FAST_TEST_DAEMON` to the
//! command line that starts it, to which the path of the configuration file is appended, e.g.
//! `STATSD_FAST_TEST_DAEMON="node /path/to/statsd/stats.js" cargo test --test conformance`.
//! Such a server need not understand port 0, print its addresses or take our options: it is
//! given free ports picked beforehand, and [`replaced`] tells tests of our own options to step aside.

mod admin;
mod carbon;
mod directory;
mod log;
pub(crate) mod original;
pub(crate) mod pickle;
mod process;

pub(crate) use admin::Admin;
pub(crate) use carbon::{FakeCarbon, Flush, Lines, deaf_socket};
pub(crate) use directory::Directory;
pub(crate) use log::{DEADLINE, Log};
pub(crate) use original::Original;
pub(crate) use process::Process;

use serde_json::{Value, json};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

/// The command line that replaces our binary, if any.
pub(crate) fn replaced() -> Option<Vec<String>> {
    let line = env::var("STATSD_FAST_TEST_DAEMON").ok()?;
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    (!words.is_empty()).then_some(words)
}

/// Says that a test is skipped for want of something; a failure where `STATSD_FAST_REQUIRE_INTEROP=1`
/// demands it.
pub(crate) fn skip_for_want_of(what: &str) {
    let demanded = env::var_os("STATSD_FAST_REQUIRE_INTEROP").is_some_and(|v| v == "1");
    assert!(!demanded, "{what}");
    println!("SKIPPED: {what}");
}

/// A running daemon, killed when dropped.
pub(crate) struct Daemon {
    process: Process,
    listeners: Vec<SocketAddr>,
    // Declared last: removed when the process that reads it is gone.
    directory: Directory,
}

impl Daemon {
    /// Starts the daemon with `config` and `arguments` and waits until every socket is bound.
    pub(crate) fn start(config: &Value, arguments: &[&str]) -> Self {
        Self::spawn(config, arguments).up(&config["port"])
    }

    /// The same with variables added to the environment.
    pub(crate) fn start_in(environment: &[(&str, &str)], config: &Value) -> Self {
        Self::spawn_in(environment, config, &[]).up(&config["port"])
    }

    /// The same as [`Daemon::start`] with a file as somebody wrote it; `port` is the port in it.
    pub(crate) fn start_written(text: &str, port: &Value) -> Self {
        Self::spawn_written(&[], text, &[]).up(port)
    }

    fn up(mut self, port: &Value) -> Self {
        self.wait_for_line("server is up");
        if replaced().is_some() {
            let port = port.as_u64().expect("an explicit port");
            let port = u16::try_from(port).expect("a port below 65536");
            self.listeners = vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)];
        } else {
            self.listeners = self
                .process
                .log
                .lines()
                .iter()
                .filter_map(|l| listener(l))
                .collect();
        }
        self
    }

    /// Starts the daemon without waiting for anything: for starts that are meant to fail.
    pub(crate) fn spawn(config: &Value, arguments: &[&str]) -> Self {
        Self::spawn_in(&[], config, arguments)
    }

    /// The same with variables added to the environment.
    pub(crate) fn spawn_in(
        environment: &[(&str, &str)],
        config: &Value,
        arguments: &[&str],
    ) -> Self {
        Self::spawn_written(environment, &format!("{config:#}\n"), arguments)
    }

    fn spawn_written(environment: &[(&str, &str)], text: &str, arguments: &[&str]) -> Self {
        let directory = Directory::create();
        let file = directory.path().join("config.js");
        fs::write(&file, text).expect("the configuration can be written");
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
        Self {
            process: Process::spawn(command.envs(environment.iter().copied())),
            listeners: Vec::new(),
            directory,
        }
    }

    /// The address of the first UDP listener.
    pub(crate) fn address(&self) -> SocketAddr {
        let first = self.listeners.first();
        *first.expect("up, but no line names a UDP listener")
    }

    /// The addresses of all UDP listeners, in the order they were logged, each once: a listener
    /// served by several threads is still one listener.
    pub(crate) fn listeners(&self) -> &[SocketAddr] {
        &self.listeners
    }

    /// Where the listeners of a kind are, in the order they were logged: `tcp` and its addresses, `unix` or
    /// `unixgram` and their paths.
    pub(crate) fn listening(&self, kind: &str) -> Vec<String> {
        let lines = self.lines();
        lines.iter().filter_map(|line| place(line, kind)).collect()
    }

    /// A connection to the first TCP listener.
    pub(crate) fn connect(&self) -> TcpStream {
        let address = self.listening("tcp").first().cloned();
        TcpStream::connect(address.expect("up, but no line names a TCP listener"))
            .expect("it accepts connections")
    }

    /// A socket that sends to the first listener.
    pub(crate) fn client(&self) -> UdpSocket {
        client_of(self.address())
    }

    /// Waits until a line of stdout or stderr contains `text` and returns the first such line.
    pub(crate) fn wait_for_line(&self, text: &str) -> String {
        self.process.log.wait_for(text)
    }

    /// Every line printed so far, stdout and stderr together.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.process.log.lines()
    }

    /// What it prints, to wait for more than a line.
    pub(crate) fn log(&self) -> &Log {
        &self.process.log
    }

    /// The process itself.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Where the admin interface is, if there is one.
    pub(crate) fn admin(&self) -> Option<SocketAddr> {
        let address = |line: &String| {
            let (_, rest) = line.split_once("admin interface on tcp ")?;
            rest.split_whitespace().next()?.parse().ok()
        };
        self.lines().iter().find_map(address)
    }

    /// The file it was started with.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.directory.path().join("config.js")
    }

    /// Sends a signal (`"TERM"`, `"INT"`, ...) to the daemon.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits until the daemon has ended by itself.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        self.process.wait_exit()
    }

    /// Stops the daemon with `signal` and returns the flush that stopping makes. Meant for
    /// [`config_without_ticks`], where no other flush comes before it.
    pub(crate) fn stop(mut self, signal: &str, carbon: &FakeCarbon) -> Flush {
        self.signal(signal);
        let flush = carbon.next();
        assert_eq!(self.wait_exit().code(), Some(0), "exit after SIG{signal}");
        flush
    }

    /// Asks the daemon to stop with SIGTERM and waits until it has.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_exit()
    }
}

/// The configuration every test starts from: loopback, flushes every second to a carbon on `carbon_port`.
pub(crate) fn config(carbon_port: u16) -> Value {
    let mut config = json!({
        "address": "127.0.0.1",
        // As text: the number 0 is the default port, with us as with the reference.
        "port": "0",
        "mgmt_address": "127.0.0.1",
        "mgmt_port": "0",
        "flushInterval": 1000,
        "dialect": "statsd",
        "graphiteHost": "127.0.0.1",
        "graphitePort": carbon_port,
    });
    if replaced().is_some() {
        config["port"] = json!(free_udp_port());
        config["mgmt_port"] = json!(free_tcp_port());
    }
    config
}

/// The same with `options` on top and an interval far longer than any test: the only flush is the
/// one that stopping makes, so a test asks for its outcome by stopping the daemon.
pub(crate) fn config_without_ticks(carbon: &FakeCarbon, options: Value) -> Value {
    let mut config = config(carbon.port());
    config["flushInterval"] = json!(600_000);
    for (key, value) in options.as_object().expect("options are an object") {
        config[key] = value.clone();
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

/// A TCP port for a program that has to be told one; see [`unclaimed`].
pub(crate) fn free_tcp_port() -> u16 {
    unclaimed(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
}

/// A UDP port for a program that has to be told one; see [`unclaimed`].
pub(crate) fn free_udp_port() -> u16 {
    unclaimed(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
}

/// A port that is free, outside the range from which the kernel answers a bind to port 0 and names
/// clients: nothing else here takes it between this look at it and the bind of the program that is told.
/// No two calls of one process give the same port, and processes start at different ones.
fn unclaimed(free: impl Fn(u16) -> bool) -> u16 {
    const FIRST: u32 = 10_000;
    const PORTS: u32 = 22_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Neighbouring process ids are a hundred ports apart.
    let start = std::process::id().wrapping_mul(100);
    for _ in 0..PORTS {
        let step = TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % PORTS;
        let port = u16::try_from(port).expect("the range ends below 65536");
        if free(port) {
            return port;
        }
    }
    panic!("every port from {FIRST} on is taken");
}

/// Calls again when a signal ended the call: one with a time limit is not restarted by the kernel.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether a name in a flush cannot be held against the original: its value depends on the clock, or it
/// is one of our own metrics, all of which live under `statsd_fast.`.
pub(crate) fn by_clock_or_ours(name: &str, config: &Value) -> bool {
    let own_prefix = config["prefixStats"].as_str().unwrap_or("statsd");
    let by_clock = ["timestamp_lag", "processing_time", "graphiteStats."]
        .iter()
        .any(|clocked| name.contains(&format!("{own_prefix}.{clocked}")));
    let graphite = &config["graphite"];
    let modern = graphite["legacyNamespace"] == false;
    let ours = match graphite["globalPrefix"].as_str().filter(|_| modern) {
        None => "stats.statsd_fast.".to_owned(),
        Some("") => "statsd_fast.".to_owned(),
        Some(prefix) => format!("{prefix}.statsd_fast."),
    };
    let suffix = graphite["globalSuffix"].as_str().unwrap_or_default();
    by_clock || (name.starts_with(&ours) && name.ends_with(suffix))
}

/// The place out of `... listening on KIND PLACE, ...`.
pub(crate) fn place(line: &str, kind: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!("listening on {kind} "))?;
    let (place, _) = rest.split_once(", ")?;
    Some(place.to_owned())
}

/// The address of a UDP listener.
fn listener(line: &str) -> Option<SocketAddr> {
    let address = place(line, "udp")?;
    Some(
        address
            .parse()
            .unwrap_or_else(|_| panic!("not an address: {address:?} in {line:?}")),
    )
}
