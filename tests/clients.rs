//! Clients as people install them, each as it comes, against the real daemon: what they say they sent is what
//! comes out, name for name and tag for tag.
//!
//! `tests/clients/` has a program for each that sends a fixed set of metrics. They need Python with the
//! packages `statsd` and `datadog` (`STATSD_FAST_TEST_PYTHON` names the interpreter, else it is `python3`),
//! node with `hot-shots` and `node-statsd` (`STATSD_FAST_TEST_NODE_PATH` is where they are installed), the
//! binary of `tests/clients/rust` (`STATSD_FAST_TEST_CLIENTS` names it), and Debian's `gunicorn`. What is
//! missing skips the test, unless `STATSD_FAST_REQUIRE_INTEROP=1` demands it.

#[allow(
    dead_code,
    unused_imports,
    reason = "shared by several test programs, each of which uses a part"
)]
mod daemon;

use daemon::{Daemon, Directory, FakeCarbon, Flush, Process, config_without_ticks};
use serde_json::json;
use std::collections::BTreeMap;
use std::env;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

/// Exit code of a client that says it could not send everything: a unix socket has a short queue, and not
/// every client waits.
const NOT_ALL: i32 = 3;
/// How often such a client is run again.
const RUNS: usize = 20;

/// A daemon with a listener for each way that clients send.
struct Server {
    daemon: Daemon,
    carbon: FakeCarbon,
    directory: Directory,
}

impl Server {
    fn start() -> Self {
        let (carbon, directory) = (FakeCarbon::start(), Directory::for_sockets());
        let path = |name: &str| directory.path().join(name).display().to_string();
        let servers = json!([
            {"server": "./servers/udp", "address": "127.0.0.1", "port": "0"},
            {"server": "./servers/tcp", "address": "127.0.0.1", "port": "0"},
            {"server": "./servers/tcp", "socket": path("lines")},
            {"server": format!("unix://{}", path("gram"))},
            {"server": format!("unixstream://{}", path("packets"))},
        ]);
        let options = json!({"servers": servers, "dialect": "auto"});
        let daemon = Daemon::start(&config_without_ticks(&carbon, options), &["--threads", "2"]);
        Self {
            daemon,
            carbon,
            directory,
        }
    }

    /// The arguments of a client, with the places to send to in them.
    fn filled(&self, arguments: &[&str]) -> Vec<String> {
        let udp = self.daemon.address();
        let tcp = self.daemon.listening("tcp")[0].clone();
        let tcp_port = tcp.rsplit(':').next().unwrap_or_default();
        let sockets = self.directory.path().display().to_string();
        let fill = |argument: &&str| {
            argument
                .replace("UDP_PORT", &udp.port().to_string())
                .replace("TCP_PORT", tcp_port)
                .replace("SOCKETS", &sockets)
        };
        arguments.iter().map(fill).collect()
    }

    fn stop(self) -> Flush {
        self.daemon.stop("TERM", &self.carbon)
    }
}

/// Values by kind and name: `c` counters, `g` gauges, `s` sizes of sets, `t` sums and `n` counts of timers.
type Values = BTreeMap<String, f64>;

/// All that clients sent, the server's own and Datadog's metrics about the client left out.
fn values(flush: &Flush) -> Values {
    let mut values = Values::new();
    for (name, value) in &flush.values {
        let (path, tags) = name.split_at(name.find(';').unwrap_or(name.len()));
        let timer = |path: &str| {
            let (path, field) = path.strip_prefix("stats.timers.")?.rsplit_once('.')?;
            let kind = ["t", "n"][["sum", "count"].iter().position(|it| *it == field)?];
            Some((kind, path.to_owned()))
        };
        let found = (path.strip_prefix("stats_counts."))
            .map(|path| ("c", path.to_owned()))
            .or_else(|| Some(("g", path.strip_prefix("stats.gauges.")?.to_owned())))
            .or_else(|| {
                Some((
                    "s",
                    path.strip_prefix("stats.sets.")?
                        .strip_suffix(".count")?
                        .to_owned(),
                ))
            })
            .or_else(|| timer(path));
        let Some((kind, path)) = found else {
            continue;
        };
        if !["statsd.", "datadog."]
            .iter()
            .any(|own| path.starts_with(own))
        {
            let value = value.parse().expect("a number");
            values.insert(format!("{kind} {path}{tags}"), value);
        }
    }
    values
}

/// A client with its arguments, and what has to come out.
struct Client {
    program: fn() -> Result<Command, String>,
    arguments: &'static [&'static str],
    expected: &'static [(&'static str, f64)],
}

impl Client {
    /// What came out of a run in which all was sent, or why there was none.
    fn run(&self) -> Result<Values, String> {
        for _ in 0..RUNS {
            if let Some(values) = self.run_once()? {
                return Ok(values);
            }
        }
        panic!("{:?} could not send all in {RUNS} runs", self.arguments);
    }

    /// What came out of a run of its own; nothing when the client says that it could not send all.
    fn run_once(&self) -> Result<Option<Values>, String> {
        let mut command = (self.program)()?;
        let server = Server::start();
        command.args(server.filled(self.arguments));
        let output = command.stdin(Stdio::null()).output();
        let output = output.expect("a program that was there a moment ago");
        if output.status.code() == Some(NOT_ALL) {
            return Ok(None);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "{command:?}: {said}"
        );
        let flush = server.stop();
        let own = |name| flush.number(&format!("stats.statsd_fast.{name}"));
        assert_eq!(own("kernel_drops") + own("streams.cut_packets"), 0.0);
        assert_eq!(own("streams.bad_lengths") + own("streams.cut_lines"), 0.0);
        assert_eq!(flush.count("statsd.bad_lines_seen"), 0.0);
        Ok(Some(values(&flush)))
    }
}

/// Holds what came out of clients to what is expected, as far as `wanted` says.
fn hold(clients: &[Client]) {
    for client in clients {
        let found = match client.run() {
            Ok(found) => found,
            Err(missing) => return daemon::skip_for_want_of(&missing),
        };
        let expected = client.expected.iter();
        let expected: Values = expected
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect();
        assert_eq!(found, expected, "{:?}", client.arguments);
    }
}

/// A program of `tests/clients`, run by `interpreter` when that has what `check` asks for.
fn script(interpreter: &str, check: &[&str], file: &str) -> Result<Command, String> {
    let mut command = Command::new(interpreter);
    if let Some(path) = env::var_os("STATSD_FAST_TEST_NODE_PATH") {
        command.env("NODE_PATH", path);
    }
    // What a machine of Datadog's customers has set is not what a test has.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("DD_") || name.starts_with("DATADOG_") {
            command.env_remove(&*name);
        }
    }
    let checked = command.args(check).stdin(Stdio::null());
    let checked = checked.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !checked.is_ok_and(|status| status.success()) {
        return Err(format!("`{interpreter} {}` does not run", check.join(" ")));
    }
    let environment: Vec<_> = command
        .get_envs()
        .map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)))
        .collect();
    let mut command = Command::new(interpreter);
    for (name, value) in environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.arg(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/clients")
            .join(file),
    );
    Ok(command)
}

fn python(package: &str, file: &str) -> Result<Command, String> {
    let python = env::var("STATSD_FAST_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    script(&python, &["-c", &format!("import {package}")], file)
}

fn node(package: &str, file: &str) -> Result<Command, String> {
    script("node", &["-e", &format!("require('{package}')")], file)
}

fn rust() -> Result<Command, String> {
    let missing = "STATSD_FAST_TEST_CLIENTS does not name the binary of tests/clients/rust";
    let path = env::var_os("STATSD_FAST_TEST_CLIENTS").ok_or(missing)?;
    Ok(Command::new(path))
}

/// PyPI's `statsd`, over all it can.
const STATSD: [Client; 3] = {
    const fn client(arguments: &'static [&'static str]) -> Client {
        Client {
            program: || python("statsd", "send_statsd.py"),
            arguments,
            expected: &[
                ("c shop.orders", 8.0),
                ("c shop.packed", 3.0),
                ("g shop.queue", 5.0),
                ("s shop.users", 2.0),
                ("t shop.page", 400.0),
                ("n shop.page", 2.0),
            ],
        }
    }
    [
        client(&["udp", "127.0.0.1", "UDP_PORT"]),
        client(&["tcp", "127.0.0.1", "TCP_PORT"]),
        client(&["unix", "SOCKETS/lines"]),
    ]
};

/// PyPI's `datadog`: each way to send, and buffered and added up as its users switch on.
const DATADOG: [Client; 9] = {
    const fn client(arguments: &'static [&'static str]) -> Client {
        Client {
            program: || python("datadog", "send_datadog.py"),
            arguments,
            expected: &[
                ("c shop.orders;dc=eu;kind=book;env=prod", 15.0),
                ("c shop.stock;env=prod", -2.0),
                ("g shop.queue;env=prod", 3.5),
                ("s shop.users;env=prod", 2.0),
                ("t shop.page;path=-cart;env=prod", 400.0),
                ("n shop.page;path=-cart;env=prod", 2.0),
                ("t shop.size;env=prod", 10.0),
                ("n shop.size;env=prod", 1.0),
                ("t shop.spread;urgent=urgent;env=prod", 20.0),
                ("n shop.spread;urgent=urgent;env=prod", 1.0),
            ],
        }
    }
    [
        client(&["udp://127.0.0.1:UDP_PORT", "plain"]),
        client(&["udp://127.0.0.1:UDP_PORT", "buffered"]),
        client(&["udp://127.0.0.1:UDP_PORT", "aggregated"]),
        client(&["unix://SOCKETS/gram", "plain"]),
        client(&["unix://SOCKETS/gram", "buffered"]),
        client(&["unixgram://SOCKETS/gram", "aggregated"]),
        client(&["unixstream://SOCKETS/packets", "plain"]),
        client(&["unixstream://SOCKETS/packets", "buffered"]),
        client(&["unixstream://SOCKETS/packets", "aggregated"]),
    ]
};

/// The same with the fields by which an agent finds out who sends: they are no part of a name.
const DATADOG_MARKED: [Client; 2] = {
    let [first, .., last] = DATADOG;
    [
        Client {
            arguments: &["udp://127.0.0.1:UDP_PORT", "plain", "marked"],
            ..first
        },
        Client {
            arguments: &["unixstream://SOCKETS/packets", "buffered", "marked"],
            ..last
        },
    ]
};

const HOT_SHOTS_EXPECTED: &[(&str, f64)] = &[
    ("c shop.orders;env=prod;dc=eu;kind=book", 15.0),
    ("c shop.stock;env=prod", -2.0),
    ("c shop.one;env=prod", 4.0),
    ("c shop.two;env=prod", 4.0),
    ("g shop.queue;env=prod", 3.5),
    ("s shop.users;env=prod", 2.0),
    ("t shop.page;env=prod;path=-cart", 400.0),
    ("n shop.page;env=prod;path=-cart", 2.0),
    ("t shop.size;env=prod", 10.0),
    ("n shop.size;env=prod", 1.0),
    ("t shop.spread;env=prod;urgent=urgent", 20.0),
    ("n shop.spread;env=prod;urgent=urgent", 1.0),
];

/// npm's `hot-shots`.
const HOT_SHOTS: [Client; 2] = [
    Client {
        program: || node("hot-shots", "send_hot_shots.js"),
        arguments: &["udp", "127.0.0.1", "UDP_PORT"],
        expected: HOT_SHOTS_EXPECTED,
    },
    Client {
        program: || node("hot-shots", "send_hot_shots.js"),
        arguments: &["tcp", "127.0.0.1", "TCP_PORT"],
        expected: HOT_SHOTS_EXPECTED,
    },
];

/// The same over a unix socket, which takes a package of native code.
const HOT_SHOTS_UNIX: [Client; 1] = [Client {
    program: || node("unix-dgram", "send_hot_shots.js"),
    arguments: &["uds", "SOCKETS/gram"],
    expected: HOT_SHOTS_EXPECTED,
}];

const HOT_SHOTS_MARKED: [Client; 1] = [Client {
    program: || node("hot-shots", "send_hot_shots.js"),
    arguments: &["udp", "127.0.0.1", "UDP_PORT", "datadog"],
    expected: HOT_SHOTS_EXPECTED,
}];

/// npm's `node-statsd`.
const NODE_STATSD: [Client; 1] = [Client {
    program: || node("node-statsd", "send_node_statsd.js"),
    arguments: &["127.0.0.1", "UDP_PORT"],
    expected: &[
        ("c shop.orders;dc=eu;env=prod", 10.0),
        ("c shop.stock;env=prod", -2.0),
        ("c shop.one;env=prod", 4.0),
        ("c shop.two;env=prod", 4.0),
        ("g shop.queue;env=prod", 3.5),
        ("s shop.users;env=prod", 2.0),
        ("t shop.page;env=prod", 320.0),
        ("n shop.page;env=prod", 1.0),
        ("t shop.size;env=prod", 10.0),
        ("n shop.size;env=prod", 1.0),
    ],
}];

/// The crate `cadence`, with each of its sinks.
const CADENCE: [Client; 4] = {
    const fn client(arguments: &'static [&'static str]) -> Client {
        Client {
            program: rust,
            arguments,
            expected: &[
                ("c shop.orders;env=prod;dc=eu;kind=book", 15.0),
                ("c shop.stock;env=prod", -1.0),
                ("c shop.meter;env=prod", 2.0),
                ("g shop.queue;env=prod", 3.5),
                ("s shop.users;env=prod", 2.0),
                ("t shop.page;env=prod;path=-cart", 320.0),
                ("n shop.page;env=prod;path=-cart", 1.0),
                ("t shop.packed;env=prod", 60.0),
                ("n shop.packed;env=prod", 3.0),
                ("t shop.size;env=prod", 10.0),
                ("n shop.size;env=prod", 1.0),
                ("t shop.spread;env=prod;urgent=urgent", 20.0),
                ("n shop.spread;env=prod;urgent=urgent", 1.0),
            ],
        }
    }
    [
        client(&["cadence", "udp", "127.0.0.1:UDP_PORT"]),
        client(&["cadence-buffered", "udp", "127.0.0.1:UDP_PORT"]),
        client(&["cadence", "unix", "SOCKETS/gram"]),
        client(&["cadence-buffered", "unix", "SOCKETS/gram"]),
    ]
};

/// The crate `dogstatsd`.
const DOGSTATSD: [Client; 2] = {
    const fn client(arguments: &'static [&'static str]) -> Client {
        Client {
            program: rust,
            arguments,
            expected: &[
                ("c shop.orders;dc=eu;kind=book;env=prod", 15.0),
                ("c shop.stock;env=prod", -1.0),
                ("g shop.queue;env=prod", 3.5),
                ("s shop.users;env=prod", 2.0),
                ("t shop.page;path=-cart;env=prod", 320.0),
                ("n shop.page;path=-cart;env=prod", 1.0),
                ("t shop.size;env=prod", 10.0),
                ("n shop.size;env=prod", 1.0),
                ("t shop.spread;urgent=urgent;env=prod", 20.0),
                ("n shop.spread;urgent=urgent;env=prod", 1.0),
            ],
        }
    }
    [
        client(&["dogstatsd", "udp", "127.0.0.1:UDP_PORT"]),
        client(&["dogstatsd", "unix", "SOCKETS/gram"]),
    ]
};

#[test]
fn statsd_of_pypi_arrives_by_each_of_its_transports() {
    hold(&STATSD);
}

#[test]
fn datadog_of_pypi_arrives_tag_for_tag() {
    hold(&DATADOG);
}

#[test]
fn datadog_of_pypi_arrives_without_the_marks_for_an_agent() {
    hold(&DATADOG_MARKED);
}

#[test]
fn hot_shots_arrives_tag_for_tag() {
    hold(&HOT_SHOTS);
}

#[test]
fn hot_shots_arrives_over_a_unix_socket() {
    if let Err(missing) = node("unix-dgram", "") {
        // Native code: whether it builds is for the machine to say.
        return println!("SKIPPED: {missing}");
    }
    hold(&HOT_SHOTS_UNIX);
}

#[test]
fn hot_shots_arrives_without_the_marks_for_an_agent() {
    hold(&HOT_SHOTS_MARKED);
}

#[test]
fn node_statsd_arrives_tag_for_tag() {
    hold(&NODE_STATSD);
}

#[test]
fn cadence_arrives_tag_for_tag() {
    hold(&CADENCE);
}

#[test]
fn dogstatsd_of_crates_io_arrives_tag_for_tag() {
    hold(&DOGSTATSD);
}

/// Debian packages no collectd that writes StatsD, but a web server that does.
#[test]
fn gunicorn_of_debian_arrives_tag_for_tag() {
    let there = Command::new("gunicorn")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !there.is_ok_and(|status| status.success()) {
        return daemon::skip_for_want_of("`gunicorn --version` does not run");
    }
    let server = Server::start();
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let mut command = Command::new("gunicorn");
    command
        .args(["--bind", "127.0.0.1:0", "--statsd-prefix", "shop"])
        .args(["--dogstatsd-tags", "env:prod,dc:eu", "--chdir"])
        .arg(clients)
        .arg("--statsd-host")
        .args(server.filled(&["127.0.0.1:UDP_PORT"]))
        .arg("wsgi:application")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let mut gunicorn = Process::spawn(&mut command);
    let line = gunicorn.log.wait_for("Listening at: http://");
    let (_, rest) = line.split_once("http://").expect("it was waited for");
    let address = rest.split_whitespace().next().expect("an address");
    for _ in 0..3 {
        let mut browser = TcpStream::connect(address).expect("it listens");
        browser
            .write_all(b"GET / HTTP/1.0\r\n\r\n")
            .expect("a request");
        let mut page = String::new();
        browser.read_to_string(&mut page).expect("a page");
        assert!(page.ends_with("\r\n\r\nok"), "{page}");
    }
    gunicorn.signal("TERM");
    assert!(gunicorn.wait_exit().success());
    let flush = server.stop();
    assert_eq!(flush.count("statsd.bad_lines_seen"), 0.0);
    let found = values(&flush);
    for (name, value) in [
        ("c shop.gunicorn.requests;env=prod;dc=eu", 3.0),
        ("c shop.gunicorn.request.status.200;env=prod;dc=eu", 3.0),
        ("n shop.gunicorn.request.duration;env=prod;dc=eu", 3.0),
        ("g shop.gunicorn.workers;env=prod;dc=eu", 1.0),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name} of {found:#?}");
    }
    assert!(
        found.keys().all(|name| name.ends_with(";env=prod;dc=eu")),
        "{found:#?}"
    );
}
