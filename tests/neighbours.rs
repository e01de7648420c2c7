//! What the daemon does when the programs around it misbehave: clients that send garbage or too
//! much at once, a carbon that is away, does not exist, or does not read.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{Daemon, FakeCarbon, config_without_ticks, deaf_socket};
use serde_json::json;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn carbon_may_be_away_and_come_back() {
    let (socket, address) = deaf_socket();
    let daemon = Daemon::start(&daemon::config(address.port()), &[]);
    let client = daemon.client();
    let line = daemon.wait_for_line("refused");
    assert!(
        line.contains(&address.to_string()),
        "names the address: {line}"
    );
    assert!(
        line.contains("nothing listens there; start it"),
        "the way out: {line}"
    );

    client.send(b"while_away:5|c").expect("loopback takes it");
    socket.listen(16).expect("the socket can listen");
    let carbon = FakeCarbon::accept_on(TcpListener::from(socket));
    client.send(b"level:7|g").expect("loopback takes it");
    let (mut counted, mut before) = (0.0, 0);
    loop {
        let flush = carbon.next();
        assert!(flush.timestamp > before, "each with its own time, in order");
        before = flush.timestamp;
        if flush.values.contains_key("stats_counts.while_away") {
            counted += flush.count("while_away");
        }
        if flush.values.contains_key("stats.gauges.level") {
            break;
        }
    }
    assert_eq!(counted, 5.0, "what was counted while it was away");
    daemon.wait_for_line(&format!("{address} is back after "));
    let complaints = daemon
        .lines()
        .iter()
        .filter(|line| line.contains("refused"))
        .count();
    assert_eq!(complaints, 1, "one outage, one line: {:#?}", daemon.lines());
}

#[test]
fn carbon_may_have_no_address() {
    let mut config = daemon::config(2003);
    // Longer than a label of a name may be: refused by the resolver, whatever the network.
    let host = format!("{}.invalid", "carbon".repeat(20));
    config["graphiteHost"] = json!(host);
    let mut daemon = Daemon::start(&config, &[]);
    let line = daemon.wait_for_line("does not resolve");
    assert!(line.contains(&host), "names the host: {line}");
    assert_eq!(daemon.terminate().code(), Some(0));
    let lost = flushes_not_delivered(&daemon);
    assert!(
        lost >= 2,
        "the one complained of and the last one, not {lost}"
    );
}

#[test]
fn a_carbon_that_does_not_keep_connections_is_said_once() {
    let carbon = TcpListener::bind("127.0.0.1:0").expect("a port for carbon");
    let mut config = daemon::config(port_of(&carbon));
    config["flushInterval"] = json!(100);
    config["graphite"] = json!({"persistent": true});
    let daemon = Daemon::start(&config, &[]);
    // The first flush comes alone; each that follows comes with the one before it.
    for connection in 1..=5 {
        let (stream, _) = carbon.accept().expect("the backend connects");
        let mut lines = BufReader::new(stream).lines();
        let mut flush = || {
            lines.any(|line| {
                line.expect("a line")
                    .contains("graphiteStats.flush_length ")
            })
        };
        assert!(flush() && (connection == 1 || flush()));
    }
    daemon.wait_for_line("the peer does not keep connections");
    let said = daemon.lines();
    let said: Vec<_> = (said.iter())
        .filter(|line| line.contains("does not keep"))
        .collect();
    assert_eq!(said.len(), 1, "once a minute");
    assert!(said[0].contains("graphite: { persistent: false }"));
}

/// What the last line of the daemon says of its flushes.
fn flushes_not_delivered(daemon: &Daemon) -> u64 {
    let line = daemon.wait_for_line("stopped: ");
    let (line, _) = line
        .split_once(';')
        .expect("an account and how whole it is");
    line.strip_suffix(" flushes not delivered")
        .and_then(|rest| rest.rsplit(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no count of flushes: {line}"))
}

/// A carbon that accepts and never reads; a flush of [`STUCK_NAMES`] names does not fit on the way.
fn reads_nothing() -> TcpListener {
    let (socket, address) = deaf_socket();
    socket.listen(128).expect("the socket can listen");
    let listener = TcpListener::from(socket);
    // A rate and a count for each name, and more than the name in each line.
    assert!(
        in_flight_at_most(address) < STUCK_NAMES * 2 * 100,
        "the flush would fit on the way"
    );
    listener
}

const STUCK_NAMES: usize = 2000;

/// Counts as many names as a carbon that [`reads_nothing`] cannot take.
fn fill(daemon: &Daemon) {
    let client = daemon.client();
    for name in 0..STUCK_NAMES {
        client
            .send(format!("{name:0>100}:1|c").as_bytes())
            .expect("loopback takes it");
    }
}

fn port_of(listener: &TcpListener) -> u16 {
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}

#[test]
fn carbon_may_never_read() {
    let stuck = reads_nothing();
    let mut config = daemon::config(port_of(&stuck));
    config["backends"] = json!(["./backends/graphite", "./backends/console"]);
    let daemon = Daemon::start(&config, &[]);
    fill(&daemon);
    // What the console shows was received and flushed, whatever became of the other backend.
    daemon.wait_for_line("0000000000");
    let client = daemon.client();
    for round in ["first", "second", "third"] {
        client
            .send(format!("after_{round}:1|c").as_bytes())
            .expect("loopback takes it");
        daemon.wait_for_line(&format!("after_{round}"));
    }
}

#[test]
fn a_stop_does_not_wait_forever_for_carbon() {
    let stuck = reads_nothing();
    let mut config = daemon::config(port_of(&stuck));
    config["flushInterval"] = json!(600_000);
    config["stopDeadline"] = json!(100);
    let mut daemon = Daemon::start(&config, &[]);
    fill(&daemon);
    assert_eq!(daemon.terminate().code(), Some(0));
    let lines = daemon.lines();
    let lost = lines
        .iter()
        .filter(|line| line.contains("not delivered before the stop deadline and lost: 1;"))
        .count();
    assert_eq!(lost, 1, "what is lost is said: {lines:#?}");
    assert_eq!(flushes_not_delivered(&daemon), 1);
}

#[test]
fn a_second_signal_does_not_wait_at_all() {
    let stuck = reads_nothing();
    let mut config = daemon::config(port_of(&stuck));
    config["flushInterval"] = json!(600_000);
    // Longer than the test waits: only the second signal can end it.
    config["stopDeadline"] = json!(3_600_000);
    let mut daemon = Daemon::start(&config, &[]);
    fill(&daemon);
    daemon.signal("INT");
    daemon.wait_for_line("stopping");
    // Those that follow at once are the same wish; sooner or later one of these is not.
    while !daemon
        .lines()
        .iter()
        .any(|line| line.contains("ended without draining"))
    {
        daemon.signal("TERM");
    }
    assert_eq!(daemon.wait_exit().code(), Some(1));
}

/// How many bytes a sender can get rid of when nobody reads at `address`.
fn in_flight_at_most(address: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream
        .set_nonblocking(true)
        .expect("a stream can be non-blocking");
    let mut written = 0;
    loop {
        match stream.write(&[0; 4096]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return written,
            Err(error) => panic!("the probe failed: {error}"),
        }
    }
}

#[test]
fn a_cut_datagram_keeps_its_complete_lines() {
    // 600 bytes of lines of 18: the cut after 512 falls into the 29th.
    let lines: String = (0..40)
        .map(|line| format!("cut.line.{line:04}:1|c\n"))
        .collect();
    let datagram = &lines.as_bytes()[..600];
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(
        &config_without_ticks(&carbon, json!({"maxDatagram": 512})),
        &[],
    );
    let client = daemon.client();
    client.send(datagram).expect("loopback takes it");
    // Exactly as long as allowed: whole, though it does not end in a newline.
    let mut whole = format!("whole:1|c\n{}", "w".repeat(512 - 10 - 4));
    whole.push_str(":1|c");
    assert_eq!(whole.len(), 512);
    client.send(whole.as_bytes()).expect("loopback takes it");
    let flush = daemon.stop("TERM", &carbon);
    let counted: Vec<bool> = (0..40)
        .map(|line| {
            flush
                .values
                .contains_key(&format!("stats_counts.cut.line.{line:04}"))
        })
        .collect();
    let expected: Vec<bool> = (0..40).map(|line| line < 28).collect();
    assert_eq!(counted, expected);
    assert_eq!(flush.number("stats.statsd_fast.truncated"), 1.0);
    assert_eq!(flush.count("whole"), 1.0);
    assert_eq!(flush.count(&"w".repeat(512 - 10 - 4)), 1.0);
    assert_eq!(flush.count("statsd.packets_received"), 2.0);
    assert_eq!(flush.count("statsd.metrics_received"), 30.0);
    assert_eq!(flush.count("statsd.bad_lines_seen"), 0.0);
}

#[test]
fn garbage_is_counted_and_harms_no_neighbour() {
    for (dialect, threads) in [
        ("statsd", "1"),
        ("statsd", "4"),
        ("auto", "1"),
        ("auto", "4"),
    ] {
        let carbon = FakeCarbon::start();
        let config = config_without_ticks(&carbon, json!({"dialect": dialect}));
        let daemon = Daemon::start(&config, &["--threads", threads]);
        let garbler = daemon.client();
        let neighbour = daemon.client();
        let mut random = XorShift(0x9E37_79B9_7F4A_7C15);
        let mut bad_lines = 0;
        for _ in 0..200 {
            // Without a colon no line can be a metric: each non-empty one is bad, whatever it holds.
            let length = random.below(300);
            let bytes: Vec<u8> = (0..length)
                .map(|_| random.below(256) as u8)
                .map(|byte| if byte == b':' { b'\n' } else { byte })
                .collect();
            bad_lines += bytes
                .split(|&byte| byte == b'\n')
                .filter(|l| !l.is_empty())
                .count();
            garbler.send(&bytes).expect("loopback takes it");
            neighbour
                .send(b"neighbour:1|c\nneighbour:5|ms")
                .expect("loopback takes it");
        }
        let flush = daemon.stop("TERM", &carbon);
        assert_eq!(
            flush.count("neighbour"),
            200.0,
            "{dialect}, {threads} threads"
        );
        assert_eq!(flush.number("stats.timers.neighbour.sum"), 1000.0);
        assert_eq!(flush.count("statsd.packets_received"), 400.0);
        assert_eq!(flush.count("statsd.bad_lines_seen"), bad_lines as f64);
        assert_eq!(
            flush.count("statsd.metrics_received"),
            bad_lines as f64 + 400.0
        );
        assert_eq!(flush.values["statsd.numStats"], "5");
    }
}

#[test]
fn garbage_close_to_the_grammar_harms_no_neighbour() {
    const ALPHABET: &[u8] = b"ab0159.-+e:::|||cgmshd@#,;\n\r _/\xff\0";
    for (dialect, threads) in [
        ("statsd", "1"),
        ("statsd", "4"),
        ("auto", "1"),
        ("auto", "4"),
    ] {
        let carbon = FakeCarbon::start();
        let config = config_without_ticks(&carbon, json!({"dialect": dialect}));
        let daemon = Daemon::start(&config, &["--threads", threads]);
        let garbler = daemon.client();
        let neighbour = daemon.client();
        let mut random = XorShift(0x2545_F491_4F6C_DD1D);
        let mut lines = 0;
        for _ in 0..200 {
            let length = random.below(300);
            let bytes: Vec<u8> = (0..length)
                .map(|_| ALPHABET[random.below(ALPHABET.len() as u64) as usize])
                .collect();
            lines += bytes
                .split(|&byte| byte == b'\n')
                .filter(|l| !l.is_empty())
                .count();
            garbler.send(&bytes).expect("loopback takes it");
            neighbour.send(b"neighbour:1|c").expect("loopback takes it");
        }
        // That the flush parses at all is checked by the receiver, line by line.
        let flush = daemon.stop("TERM", &carbon);
        assert_eq!(
            flush.count("neighbour"),
            200.0,
            "{dialect}, {threads} threads"
        );
        assert_eq!(flush.count("statsd.packets_received"), 400.0);
        assert_eq!(flush.count("statsd.metrics_received"), lines as f64 + 200.0);
        assert!(flush.count("statsd.bad_lines_seen") > 0.0);
    }
}

/// Marsaglia's generator: the same garbage on every run.
struct XorShift(u64);

impl XorShift {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Reads the child's standard output up to a line that holds `text`, and no further than the buffer.
fn read_until(out: &mut impl BufRead, text: &str) -> String {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        let read = out.read_line(&mut line).expect("the log is text");
        assert_ne!(read, 0, "it ended and never said {text:?}");
    }
    line
}

/// A disk that is full takes neither log nor complaints; when there is room again both go on.
#[test]
fn standard_output_and_error_may_take_nothing() {
    let carbon = FakeCarbon::start();
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("full-{}.json", std::process::id()));
    let config = daemon::config(carbon.port()).to_string();
    std::fs::write(&path, config).expect("the test's own folder takes a file");
    let full = || std::fs::File::create("/dev/full").expect("Linux has it");
    let mut child = Command::new(env!("CARGO_BIN_EXE_statsd-fast"))
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(full())
        .stderr(full())
        .spawn()
        .expect("the daemon starts");
    carbon.next();
    let tasks = format!("/proc/{}/task", child.id());
    let names: Vec<_> = std::fs::read_dir(tasks)
        .expect("it lives")
        .map(|task| task.expect("a thread").path().join("comm"))
        .map(|comm| std::fs::read_to_string(comm).unwrap_or_default())
        .collect();
    let _ = child.kill();
    let _ = child.wait();
    std::fs::remove_file(&path).expect("it was written above");
    assert!(
        names.iter().any(|name| name.trim() == "stdout"),
        "{names:?}"
    );
}

#[test]
fn whoever_reads_the_log_may_stall() {
    let carbon = FakeCarbon::start();
    let mut config = daemon::config(carbon.port());
    config["backends"] = json!(["./backends/console", "./backends/graphite"]);
    config["stopDeadline"] = json!(300);
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stall-{}.json", std::process::id()));
    std::fs::write(&path, config.to_string()).expect("the test's own folder takes a file");
    let mut child = Command::new(env!("CARGO_BIN_EXE_statsd-fast"))
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon starts");
    let mut out = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let listening = read_until(&mut out, "listening on udp ");
    let address = listening
        .split("listening on udp ")
        .nth(1)
        .expect("an address");
    let address: SocketAddr = address
        .split(',')
        .next()
        .expect("an address")
        .parse()
        .expect("an address");
    read_until(&mut out, "server is up");
    // From here on nobody reads. A flush is longer than a pipe holds, so the console is stuck with
    // the first of them, and every later line of the log with it.
    let client = daemon::client_of(address);
    for name in 0..2000 {
        client
            .send(format!("{name:0>100}:1|c").as_bytes())
            .expect("loopback takes it");
    }
    for round in 1..=3 {
        client
            .send(format!("round_{round}:1|c\nbad line").as_bytes())
            .expect("loopback takes it");
        let name = format!("stats_counts.round_{round}");
        while carbon
            .next()
            .values
            .get(&name)
            .is_none_or(|value| value == "0")
        {}
    }
    client.send(b"last:7|c").expect("loopback takes it");
    let status = Command::new("sh")
        .args(["-c", &format!("kill -TERM {}", child.id())])
        .status()
        .expect("sh starts");
    assert!(status.success());
    while !carbon.next().values.contains_key("stats_counts.last") {}
    assert_eq!(
        child.wait().expect("a child can be waited for").code(),
        Some(0)
    );
}
