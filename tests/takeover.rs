//! A new process takes the place of a running one: nothing is lost, nothing counted twice, and where it fails
//! nothing has changed.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;
#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod librato_api;

use daemon::{DEADLINE, Daemon, Directory, FakeCarbon, Lines, Process, config};
use librato_api::{FakeApi, Rules};
use serde_json::{Value, json};
use statsd_fast::deliver::spool::record;
use statsd_fast::metric::snapshot::Snapshot;
use statsd_fast::runtime::sys::pass;
use statsd_fast::takeover::claim::Claim;
use statsd_fast::takeover::message::{Message, Offer};
use statsd_fast::takeover::wire::Wire;
use statsd_fast::takeover::{Fault, VERSION};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A server that passes from process to process.
struct Relay {
    directory: Directory,
    /// What the processes print: children of one print where it does.
    outputs: Vec<Process>,
    /// Every process there was.
    processes: Vec<u32>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Those that were started by another one are nobody's children here.
        for process in &self.processes {
            let kill = format!("kill -KILL {process} 2>/dev/null");
            let _ = Command::new("sh").args(["-c", &kill]).status();
        }
    }
}

impl Relay {
    /// Starts the first process; the configuration gets a `takeoverSocket`.
    fn start(config: &Value) -> Self {
        let directory = Directory::create();
        let mut config = config.clone();
        config["takeoverSocket"] = json!(directory.path().join("takeover.sock"));
        let relay = Self {
            directory,
            outputs: Vec::new(),
            processes: Vec::new(),
        };
        relay.write(&config);
        relay.begin(&[])
    }

    fn write(&self, config: &Value) {
        fs::write(self.file(), format!("{config:#}\n")).expect("it can be written");
    }

    fn begin(mut self, arguments: &[&str]) -> Self {
        let process = self.spawn(arguments);
        process.log.wait_for("server is up");
        self.processes.push(process.id());
        self.outputs.push(process);
        self
    }

    fn spawn(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_statsd-fast"));
        command.args(["--threads", "2"]).args(arguments);
        Process::spawn(command.arg("--config").arg(self.file()))
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("config.js")
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("takeover.sock")
    }

    fn output(&self) -> &Process {
        self.outputs.last().expect("one was started")
    }

    fn process(&self) -> u32 {
        *self.processes.last().expect("one was started")
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.process());
        let sent = Command::new("sh").args(["-c", &kill]).status();
        assert!(sent.expect("sh starts").success(), "SIG{name}");
    }

    /// The number in the first line that has this text, behind it.
    fn number_in(line: &str, before: &str) -> u32 {
        let (_, rest) = line.split_once(before).expect("it was found by this");
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
        digits.expect("a number").parse().expect("a number")
    }

    /// The next process, started by the running one.
    fn by_signal(&mut self) {
        let old = self.process();
        let mark = "taken over by process ";
        let count =
            |lines: &[String], text: &str| lines.iter().filter(|line| line.contains(text)).count();
        let lines = self.output().log.lines();
        let (ups, taken) = (count(&lines, "server is up"), count(&lines, mark));
        self.signal("USR2");
        let line = self.output().log.wait_until("a successor", |lines| {
            let there = count(lines, "server is up") > ups && count(lines, mark) > taken;
            let last = lines.iter().rfind(|line| line.contains(mark));
            last.filter(|_| there).cloned()
        });
        let new = Self::number_in(&line, mark);
        assert_ne!(old, new);
        self.processes.push(new);
    }

    /// The next process, started beside the running one.
    fn by_hand(&mut self) {
        let process = self.spawn(&["--takeover"]);
        process.log.wait_for("server is up");
        let mark = format!("taken over by process {}", process.id());
        self.output().log.wait_for(&mark);
        // What it alone had is gone with it.
        self.output().log.wait_for_end();
        self.processes.push(process.id());
        self.outputs.push(process);
    }

    fn place(&self, kind: &str) -> String {
        let lines = self.output().log.lines();
        let found = lines
            .iter()
            .rev()
            .find_map(|line| daemon::place(line, kind));
        found.unwrap_or_else(|| panic!("no {kind} in {lines:#?}"))
    }

    fn udp(&self) -> UdpSocket {
        daemon::client_of(self.place("udp").parse().expect("an address"))
    }

    fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.place("tcp")).expect("it accepts")
    }

    fn admin(&self) -> SocketAddr {
        let lines = self.output().log.lines();
        let line = lines
            .iter()
            .rev()
            .find(|line| line.contains("admin interface on tcp "));
        let (_, address) = line
            .expect("there is one")
            .split_once(" tcp ")
            .expect("as found");
        address.trim().parse().expect("an address")
    }

    /// Waits until the counter of the running interval has come to this.
    fn wait_for_count(&self, name: &str, count: u64) {
        let wanted = format!("{name}: {count}");
        let until = Instant::now() + DEADLINE;
        loop {
            let reply = daemon::Admin::once(self.admin(), "counters\n").replace(['\'', '"'], "");
            let mut lines = reply.lines().map(|line| line.trim().trim_end_matches(','));
            if lines.any(|line| line == wanted) {
                return;
            }
            assert!(Instant::now() < until, "{wanted} is not in {reply}");
        }
    }

    /// Stops the running process and waits until all have ended.
    fn stop(self) {
        self.signal("TERM");
        self.outputs.iter().for_each(|it| it.log.wait_for_end());
        for output in &self.outputs {
            let lines = output.log.lines();
            let bad = lines
                .iter()
                .find(|it| it.contains("panicked") || it.contains("ERROR"));
            assert_eq!(bad, None);
        }
    }
}

/// UDP and TCP, and no flush but that of the stop.
fn quiet(carbon: &FakeCarbon) -> Value {
    let mut config = config(carbon.port());
    config["flushInterval"] = json!(600_000);
    config["dialect"] = json!("auto");
    config["servers"] = json!([
        {"server": "./servers/udp", "address": "127.0.0.1", "port": "0"},
        {"server": "./servers/tcp", "address": "127.0.0.1", "port": "0"},
    ]);
    config
}

fn send(client: &UdpSocket, lines: &str) {
    client.send(lines.as_bytes()).expect("loopback takes it");
}

#[test]
fn one_interval_goes_through_many_processes() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let mut config = quiet(&carbon);
    config["exactSamples"] = json!(50);
    config["deleteGauges"] = json!(true);
    config["gaugesMaxTTL"] = json!(9);
    // Written over the arguments that the next process is started with.
    config["title"] = json!("relay");
    let mut relay = Relay::start(&config);
    let client = relay.udp();
    let mut stream = relay.tcp();
    stream.write_all(b"cut:1").expect("it is open");
    for round in 0..4u32 {
        for value in 0..30 {
            // Half of them above a limit of exact samples by then, the others never.
            send(&client, &format!("many:{}|ms", round * 30 + value));
        }
        send(
            &client,
            &format!("few:{}|ms|@0.5\nset:m{round}|s\nset:same|s", round + 1),
        );
        send(
            &client,
            &format!("sum:{round}|c\ng:+5|g\nonce{round};t=v:1|c"),
        );
        if round == 1 {
            send(&client, "g:100|g\nlevel:7|g");
        }
        // The line goes on from process to process.
        stream.write_all(b"0").expect("it is open");
        // In the order they came: what was sent is there when this is.
        send(&client, "mark:1|c");
        relay.wait_for_count("mark", u64::from(round) + 1);
        if round % 2 == 0 {
            relay.by_signal();
        } else {
            relay.by_hand();
        }
    }
    stream.write_all(b"|c\nafter:1|c\n").expect("it is open");
    relay.wait_for_count("after", 1);
    relay.stop();
    let flush = carbon.next();
    assert_eq!(flush.count("sum"), 6.0);
    assert_eq!(flush.count("mark"), 4.0);
    assert_eq!(flush.count("cut"), 10_000.0);
    assert_eq!(flush.count("after"), 1.0);
    for round in 0..4 {
        assert_eq!(flush.count(&format!("once{round};t=v")), 1.0);
    }
    // +5 and +5 before it are gone.
    assert_eq!(flush.number("stats.gauges.g"), 110.0);
    assert_eq!(flush.number("stats.gauges.level"), 7.0);
    assert_eq!(flush.number("stats.sets.set.count"), 5.0);
    let few = |field: &str| flush.number(&format!("stats.timers.few.{field}"));
    assert_eq!((few("count"), few("sum"), few("upper")), (8.0, 20.0, 4.0));
    assert_eq!((few("median"), few("mean_90")), (2.5, 16.0 / 7.0));
    let many = |field: &str| flush.number(&format!("stats.timers.many.{field}"));
    assert_eq!((many("count"), many("sum")), (120.0, 7140.0));
    assert_eq!(
        (many("lower"), many("upper"), many("mean")),
        (0.0, 119.0, 59.5)
    );
    assert!(
        (many("upper_90") - 107.0).abs() <= 0.1,
        "{}",
        many("upper_90")
    );
    for meter in [
        "samples.timers",
        "samples.sets",
        "streams.accepted",
        "kernel_drops",
    ] {
        let expected = match meter {
            "samples.timers" => 124.0,
            "samples.sets" => 8.0,
            "streams.accepted" => 1.0,
            _ => 0.0,
        };
        assert_eq!(
            flush.number(&format!("stats.statsd_fast.{meter}")),
            expected,
            "{meter}"
        );
    }
    assert_eq!(flush.number("stats.statsd_fast.streams.cut_lines"), 0.0);
    assert!(carbon.waiting().is_empty(), "one interval is one flush");
}

/// What a sender has sent.
#[derive(Default)]
struct Sent {
    datagrams: u64,
    counters: u64,
    timers: u64,
    members: u64,
    deltas: u64,
}

/// Sends `datagrams` a second of `values` values each, until told to end.
fn load(client: &UdpSocket, number: usize, datagrams: f64, values: u64, end: &AtomicBool) -> Sent {
    let mut sent = Sent::default();
    let (begin, mut sequence) = (Instant::now(), 0u64);
    let mut text = String::new();
    while !end.load(Ordering::Relaxed) {
        while (sequence as f64) < begin.elapsed().as_secs_f64() * datagrams {
            text.clear();
            for value in 0..values {
                let line = match (sequence + value) % 10 {
                    0 => {
                        sent.timers += 1;
                        format!("timer{number}:7|ms\n")
                    }
                    1 => {
                        sent.members += 1;
                        format!("set{number}:{sequence}.{value}|s\n")
                    }
                    2 => {
                        sent.deltas += 1;
                        format!("level{number}:+1|g\n")
                    }
                    _ => {
                        sent.counters += 1;
                        format!("counter{number}.{}:1|c\n", value % 7)
                    }
                };
                text.push_str(&line);
            }
            send(client, &text);
            sequence += 1;
            sent.datagrams += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    sent
}

/// Sends counters over one connection, cut anywhere.
fn trickle(stream: &mut TcpStream, end: &AtomicBool) -> u64 {
    let (begin, mut lines) = (Instant::now(), 0u64);
    let mut waiting: Vec<u8> = Vec::new();
    while !end.load(Ordering::Relaxed) {
        while (lines as f64) < begin.elapsed().as_secs_f64() * 2000.0 {
            waiting.extend_from_slice(b"streamed:1|c\n");
            lines += 1;
        }
        let whole = waiting.len().saturating_sub(lines as usize % 13);
        stream
            .write_all(&waiting[..whole])
            .expect("it is open all the time");
        waiting.drain(..whole);
        thread::sleep(Duration::from_millis(1));
    }
    stream.write_all(&waiting).expect("it is open all the time");
    lines
}

#[test]
fn nothing_is_lost_or_doubled_under_load() {
    if daemon::replaced().is_some() {
        return;
    }
    // A machine that is busy with others may give no time to read for seconds.
    assert!(
        (0..3).any(|_| takes_all_under_load()),
        "dropped by the kernel three times"
    );
}

/// Whether the kernel dropped nothing; whatever it did is accounted for.
fn takes_all_under_load() -> bool {
    let carbon = FakeCarbon::start();
    let mut config = quiet(&carbon);
    config["flushInterval"] = json!(1000);
    let mut relay = Relay::start(&config);
    let end = AtomicBool::new(false);
    // Together some hundred thousand values a second.
    let senders = [
        (1000.0, 30),
        (1000.0, 30),
        (1000.0, 30),
        (4000.0, 1),
        (4000.0, 1),
    ];
    let clients = senders.map(|_| relay.udp());
    let mut stream = relay.tcp();
    let begin = Instant::now();
    let (sent, streamed) = thread::scope(|scope| {
        let end = &end;
        let threads = senders.iter().zip(&clients).enumerate();
        let threads: Vec<_> = threads
            .map(|(number, ((datagrams, values), client))| {
                scope.spawn(move || load(client, number, *datagrams, *values, end))
            })
            .collect();
        let stream = &mut stream;
        let trickle = scope.spawn(move || trickle(stream, end));
        for turn in 0..10 {
            let due = begin + turn * Duration::from_millis(900);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if turn % 2 == 0 {
                relay.by_signal();
            } else {
                relay.by_hand();
            }
        }
        end.store(true, Ordering::Relaxed);
        let sent = threads.into_iter().map(|it| it.join().expect("no panic"));
        let sent: Vec<Sent> = sent.collect();
        (sent, trickle.join().expect("no panic"))
    });
    let seconds = begin.elapsed().as_secs_f64();
    drop(stream);
    // A stop takes what is queued, so that this is all.
    relay.stop();
    let mut flushes = Vec::new();
    while let Some(flush) = next(&carbon, flushes.is_empty()) {
        flushes.push(flush);
    }
    let sum = |wanted: &dyn Fn(&str) -> bool| -> f64 {
        let values = flushes.iter().flat_map(|flush| &flush.values);
        let values = values.filter(|(name, _)| wanted(name));
        values
            .map(|(_, value)| value.parse::<f64>().expect("a number"))
            .sum()
    };
    let total = |of: fn(&Sent) -> u64| sent.iter().map(of).sum::<u64>() as f64;
    let all = total(|it| it.counters + it.timers + it.members + it.deltas);
    println!("{} values a second for {seconds} s", all / seconds);
    let meter = |meter: &str| {
        let name = format!("stats.statsd_fast.{meter}");
        sum(&|it| it == name)
    };
    for none in ["streams.cut_lines", "streams.resets", "receive_errors"] {
        assert_eq!(meter(none), 0.0, "{none}");
    }
    let (read, dropped) = (
        meter("packets") - meter("streams.pieces"),
        meter("kernel_drops"),
    );
    assert_eq!(
        read + dropped,
        total(|it| it.datagrams),
        "{dropped} dropped"
    );
    if dropped > 0.0 {
        return false;
    }
    assert_eq!(sum(&|it| it == "stats_counts.streamed"), streamed as f64);
    let timer = |it: &str, field: &str| it.starts_with("stats.timers.timer") && it.ends_with(field);
    for (number, sent) in sent.iter().enumerate() {
        let counter = format!("stats_counts.counter{number}.");
        assert_eq!(
            sum(&|it| it.starts_with(&counter)),
            sent.counters as f64,
            "{counter}"
        );
        let count = format!("stats.timers.timer{number}.count");
        assert_eq!(sum(&|it| it == count), sent.timers as f64, "{count}");
        let members = format!("stats.sets.set{number}.count");
        assert_eq!(sum(&|it| it == members), sent.members as f64, "{members}");
        let level = format!("stats.gauges.level{number}");
        let last = flushes.last().expect("one at least");
        let last = last.values.iter().find(|(name, _)| *name == level);
        assert_eq!(
            last.map(|(_, value)| value.parse()),
            Some(Ok(sent.deltas as f64)),
            "{level}"
        );
    }
    assert_eq!(sum(&|it| timer(it, ".sum")), 7.0 * total(|it| it.timers));
    for flush in &flushes {
        for (name, value) in &flush.values {
            let percentile = timer(name, ".upper_90") || timer(name, ".mean_90");
            assert!(
                !percentile || value == "7" || value == "0",
                "{name} {value}"
            );
        }
        let names: BTreeSet<_> = flush.values.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), flush.values.len(), "nothing twice in a flush");
    }
    let times: Vec<_> = flushes.iter().map(|it| it.timestamp).collect();
    // The last one is that of the stop, which may come in the second of a tick.
    let ticks = &times[..times.len() - 1];
    assert!(ticks.is_sorted_by(|one, next| one < next), "{times:?}");
    let values = ["counters", "timers", "sets", "gauges"];
    let taken = values.map(|kind| sum(&|it| it == format!("stats.statsd_fast.samples.{kind}")));
    assert_eq!(taken.iter().sum::<f64>(), all + streamed as f64);
    true
}

/// The next flush, in order of time; the processes have ended, so that those that are there are all.
fn next(carbon: &FakeCarbon, first: bool) -> Option<Lines> {
    if first {
        return Some(carbon.next_lines());
    }
    carbon.next_within(Duration::from_secs(2))
}

#[test]
fn the_state_file_and_running_totals_change_hands() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let api = FakeApi::start(Rules::default());
    let directory = Directory::create();
    let state = directory.path().join("state");
    let mut config = quiet(&carbon);
    config["flushInterval"] = json!(100);
    config["debug"] = json!(true);
    config["stateFile"] = json!(state);
    config["backends"] = json!(["librato"]);
    config["librato"] = json!({
        "email": "user@example.com",
        "token": "tok123",
        "api": api.url(),
        "host": "h",
        "countersAsGauges": false,
    });
    let mut relay = Relay::start(&config);
    let client = relay.udp();
    let kept = |relay: &Relay, gauges: usize, total: &str| {
        relay.output().log.wait_until("it is kept", |_| {
            let text = fs::read_to_string(&state).unwrap_or_default();
            let there = text.matches("[\"gauge\"").count() == gauges;
            let total = format!("[\"total\",\"a\",\"{total}\"]");
            (there && text.contains(&total)).then_some(())
        });
    };
    send(&client, "a:3|c\ng:1|g");
    kept(&relay, 1, "3.0");
    relay.by_hand();
    let lines = relay.outputs[0].log.lines();
    let over = lines
        .iter()
        .position(|line| line.contains("has taken over"));
    let after = &lines[over.expect("it said so")..];
    assert!(
        !after.iter().any(|line| line.contains("totals written")),
        "{after:?}"
    );
    send(&client, "a:4|c\nh:2|g");
    kept(&relay, 2, "7.0");
    relay.by_signal();
    send(&client, "a:5|c");
    kept(&relay, 2, "12.0");
    relay.stop();
    let stored = api.stored();
    let totals = stored.iter().filter(|it| it.name == "a");
    let totals: Vec<f64> = totals.map(|it| it.numbers["value"]).collect();
    assert!(
        totals.is_sorted(),
        "a running total never goes back: {totals:?}"
    );
    assert_eq!(totals.last(), Some(&12.0));
}

#[test]
fn a_successor_that_fails_changes_nothing() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let mut config = quiet(&carbon);
    config["automaticConfigReload"] = json!(false);
    let place = Directory::create();
    let path = place.path().join("statsd.sock");
    let unixgram = json!({"server": "./servers/unixgram", "socket": path});
    let servers = config["servers"].as_array_mut().expect("a list");
    servers.push(unixgram.clone());
    let relay = Relay::start(&config);
    let client = relay.udp();
    send(&client, "a:1|c\ng:5|g");
    let good = fs::read(relay.file()).expect("it is there");
    fs::write(relay.file(), "{ port: 'none' }").expect("it can be written");
    relay.signal("USR2");
    let log = &relay.output().log;
    log.wait_for("this server was not taken over and goes on: the other process ended");
    log.wait_for("which was to take over, has ended: exit status: 2");
    // One whose listener cannot be had: refused, and told why.
    let taken = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let port = taken.local_addr().expect("address").port();
    let mut other: Value = serde_json::from_slice(&good).expect("JSON");
    other["servers"] = json!([
        unixgram,
        {"server": "./servers/udp", "address": "127.0.0.1", "port": port},
    ]);
    relay.write(&other);
    relay.signal("USR2");
    log.wait_for("the other process refuses: cannot listen on udp");
    log.wait_for("has ended: exit status: 1");
    assert!(path.exists() && relay.socket().exists(), "they are in use");
    send(&client, "a:2|c\ng:+1|g");
    relay.wait_for_count("a", 3);
    relay.signal("TERM");
    relay.output().log.wait_for_end();
    let flush = carbon.next();
    assert_eq!(
        (flush.count("a"), flush.number("stats.gauges.g")),
        (3.0, 6.0)
    );
}

#[test]
fn a_transfer_that_is_torn_changes_nothing() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let relay = Relay::start(&quiet(&carbon));
    let client = relay.udp();
    let mut stream = relay.tcp();
    stream.write_all(b"s:1|c\ns:1").expect("it is open");
    relay.wait_for_count("s", 1);
    send(&client, "a:1|c\ng:5|g\nt:3|ms\nset:x|s");
    relay.wait_for_count("a", 1);
    let log = &relay.output().log;
    let connect = || UnixStream::connect(relay.socket()).expect("it listens");
    connect()
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("sent");
    log.wait_for("goes on: the other process ended");
    connect().write_all(&[b'x'; 64]).expect("sent");
    let mut wire = Wire::new(connect());
    let hello = Message::Hello {
        version: VERSION + 1,
        process: 1,
    };
    wire.send(&hello, DEADLINE).expect("sent");
    let refused = wire
        .receive(DEADLINE)
        .expect_err("another version")
        .to_string();
    assert!(refused.contains("of the protocol"), "{refused}");
    // Gone before it reads; then with all of it in hand, which is a refusal, too.
    for turn in 1..=2 {
        let mut claim = Claim::open(connect()).expect("it shows all");
        assert_eq!(claim.offer.process, relay.process());
        assert_eq!(claim.offer.listeners.len(), 2);
        if turn == 1 {
            continue;
        }
        let estate = claim.read(vec![0, 1]).expect("it gives all");
        assert_eq!(estate.connections.len(), 1);
        assert_eq!(estate.connections[0].0.held, b"s:1");
        claim.refuse("no room".into());
    }
    log.wait_for("goes on: the other process refuses: no room");
    // It ends with all of it in hand, and before that, with some of it: what it did not want is not closed.
    let ended = |line: &&String| line.contains("goes on: the other process ended");
    let before = log.lines().iter().filter(ended).count();
    for taken in [vec![0], vec![0, 1]] {
        let mut claim = Claim::open(connect()).expect("it shows all");
        let estate = claim.read(taken.clone()).expect("it gives all");
        assert_eq!(estate.connections.len(), taken.len() - 1);
        drop(claim);
        log.wait_until("it goes on", |lines| {
            (lines.iter().filter(ended).count() == taken.len() + before).then_some(())
        });
    }
    send(&client, "a:1|c\ng:+1|g\nt:5|ms\nset:y|s\nset:x|s");
    stream.write_all(b"1|c\n").expect("it is open");
    relay.wait_for_count("a", 2);
    relay.wait_for_count("s", 12);
    relay.signal("TERM");
    log.wait_for_end();
    let flush = carbon.next();
    assert_eq!((flush.count("a"), flush.count("s")), (2.0, 12.0));
    assert_eq!(flush.number("stats.gauges.g"), 6.0);
    assert_eq!(flush.number("stats.timers.t.sum"), 8.0);
    assert_eq!(flush.number("stats.sets.set.count"), 2.0);
    assert_eq!(flush.number("stats.statsd_fast.samples.counters"), 4.0);
    let counts = accounts(&relay);
    assert_eq!(counts["samples.counters"], 4, "what came back counts once");
    assert_eq!(counts.get("streams.cut_lines"), None);
}

/// The lines `account: NAME=COUNT ...` of all processes, added up.
fn accounts(relay: &Relay) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for output in &relay.outputs {
        for line in output.log.lines() {
            let Some((_, counts)) = line.split_once("account: ") else {
                continue;
            };
            for count in counts.split_whitespace() {
                let (name, count) = count.split_once('=').expect("a name and a count");
                *sums.entry(name.to_owned()).or_default() += count.parse::<u64>().expect("a count");
            }
        }
    }
    sums
}

#[test]
fn the_accounts_of_all_processes_add_up() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let mut config = quiet(&carbon);
    config["flushInterval"] = json!(50);
    let mut relay = Relay::start(&config);
    let client = relay.udp();
    for round in 1..=3u64 {
        // Shown by the one, as the flush tells; then what only the next one may show.
        send(&client, "seen:1|c\nbad");
        let is_there = |lines: &Lines| {
            lines
                .values
                .iter()
                .any(|it| it.0 == "stats_counts.seen" && it.1 == "1")
        };
        while !is_there(&carbon.next_lines()) {}
        for _ in 0..100 {
            send(&client, "a:1|c\nt:1|ms");
        }
        if round == 2 {
            let stream = UnixStream::connect(relay.socket()).expect("it listens");
            let mut claim = Claim::open(stream).expect("it shows all");
            claim.read(vec![0]).expect("it gives all");
            claim.refuse("no room".into());
            relay.output().log.wait_for("refuses: no room");
        }
        if round % 2 == 0 {
            relay.by_signal();
        } else {
            relay.by_hand();
        }
    }
    send(&client, "end:1|c");
    relay.signal("TERM");
    relay.outputs.iter().for_each(|it| it.log.wait_for_end());
    let counts = accounts(&relay);
    let of = |name: &str| counts.get(name).copied().unwrap_or(0);
    // What a candidate might have read before it said no is lost with it; this one reads nothing.
    assert_eq!(of("packets"), 3 * 101 + 1);
    assert_eq!(of("lines"), 3 * 202 + 1);
    assert_eq!(
        (of("samples.counters"), of("samples.timers")),
        (3 * 101 + 1, 300)
    );
    let rejected = counts
        .iter()
        .filter(|(name, _)| name.starts_with("rejected."));
    assert_eq!(rejected.map(|(_, count)| count).sum::<u64>(), 3);
    assert_eq!(of("kernel_drops"), 0);
}

#[test]
fn limits_hold_over_processes_and_fold_nothing_that_was_there() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let mut config = quiet(&carbon);
    config["maxNames"] = json!(3);
    config["maxSetMembers"] = json!(2);
    let mut relay = Relay::start(&config);
    let client = relay.udp();
    send(&client, "a:1|c\ns:x|s\ns:y|s\nmark:1|c");
    relay.wait_for_count("mark", 1);
    relay.by_hand();
    // It is full, and not of names of its own.
    send(&client, "a:1|c\nb:1|c\ns:z|s\ns:x|s\nmark:1|c");
    relay.wait_for_count("mark", 2);
    // The next one is to have fewer, and they stay all the same.
    config["maxNames"] = json!(1);
    config["maxSetMembers"] = json!(1);
    config["takeoverSocket"] = json!(relay.socket());
    relay.write(&config);
    relay.by_signal();
    send(&client, "a:1|c\nc:1|c\nmark:1|c");
    relay.wait_for_count("mark", 3);
    relay.stop();
    let flush = carbon.next();
    assert_eq!((flush.count("a"), flush.count("mark")), (3.0, 3.0));
    assert_eq!(flush.count("statsd_fast.overflow.counters"), 2.0, "b and c");
    assert!(!flush.values.contains_key("stats_counts.b"));
    // Both of those that were there; z found no room.
    assert_eq!(flush.number("stats.sets.s.count"), 2.0);
    let meter = |name: &str| flush.number(&format!("stats.statsd_fast.{name}"));
    assert_eq!(
        (meter("samples.sets"), meter("set_members_dropped")),
        (3.0, 1.0)
    );
    assert_eq!(meter("folded.names"), 2.0);
}

#[test]
fn flushes_on_disk_change_hands() {
    if daemon::replaced().is_some() {
        return;
    }
    let (socket, address) = daemon::deaf_socket();
    let spool = Directory::create();
    let place = spool.path().join("graphite");
    let mut config = config(address.port());
    config["flushInterval"] = json!(100);
    config["stopDeadline"] = json!(2000);
    config["spoolDir"] = json!(spool.path());
    let mut relay = Relay::start(&config);
    let client = relay.udp();
    let on_disk = |sum| wait_for_count_on_disk(&place, "c", sum);
    // Each as soon as the process has the disk, which its predecessor has to let go of.
    send(&client, "c:1|c");
    on_disk(1.0);
    send(&client, "c:10|c");
    relay.by_hand();
    send(&client, "c:100|c");
    on_disk(111.0);
    send(&client, "c:1000|c");
    relay.by_signal();
    send(&client, "c:10000|c");
    on_disk(11_111.0);
    socket.listen(64).expect("it can listen");
    let carbon = FakeCarbon::accept_on(socket.into());
    let (mut came, mut times) = (0.0, Vec::new());
    while came < 11_111.0 {
        let flush = carbon.next();
        times.push(flush.timestamp);
        let count = flush.values.get("stats_counts.c");
        came += count.and_then(|it| it.parse::<f64>().ok()).unwrap_or(0.0);
    }
    assert_eq!(came, 11_111.0, "each once");
    assert!(times.is_sorted(), "{times:?}");
    relay.signal("TERM");
    relay.outputs.iter().for_each(|it| it.log.wait_for_end());
    let counts = accounts(&relay);
    assert_eq!(
        counts.get("spool.errors"),
        None,
        "to wait for it is no error"
    );
    assert_eq!(counts.get("flushes_dropped"), None);
    let (all, last) = (counts["flushes_delivered"], carbon.waiting().len() as u64);
    assert_eq!(all, times.len() as u64 + last);
}

/// What a counter comes to in the flushes on disk. A file that goes meanwhile counts nothing.
fn wait_for_count_on_disk(place: &Path, counter: &str, sum: f64) {
    let until = Instant::now() + DEADLINE;
    while counted_on_disk(place, counter) != sum {
        assert!(Instant::now() < until, "{sum} on disk");
        thread::sleep(Duration::from_millis(5));
    }
}

fn counted_on_disk(place: &Path, counter: &str) -> f64 {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let snapshots = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let bytes = fs::read(entry.path())
            .ok()
            .filter(|_| name.ends_with(".flush"))?;
        record::decode(&bytes).ok()
    });
    let of = |it: Snapshot| {
        let found = it.counters.iter().find(|it| &*it.name == counter);
        found.map_or(0.0, |it| it.value)
    };
    snapshots.map(of).sum()
}

#[test]
fn running_totals_of_flushes_on_disk_are_added_once() {
    if daemon::replaced().is_some() {
        return;
    }
    let (socket, address) = daemon::deaf_socket();
    let spool = Directory::create();
    let place = spool.path().join("librato");
    let mut config = config(0);
    // Each flush has a second of its own, which tells it from the others.
    config["flushInterval"] = json!(1000);
    config["stopDeadline"] = json!(1000);
    config["spoolDir"] = json!(spool.path());
    config["backends"] = json!(["librato"]);
    config["librato"] = json!({
        "email": "user@example.com",
        "token": "tok123",
        "api": format!("http://127.0.0.1:{}", address.port()),
        "host": "h",
        "countersAsGauges": false,
        "retryDelaySecs": 0,
    });
    let mut relay = Relay::start(&config);
    let client = relay.udp();
    let on_disk = |sum| wait_for_count_on_disk(&place, "c", sum);
    send(&client, "c:1|c");
    on_disk(1.0);
    relay.by_hand();
    send(&client, "c:10|c");
    on_disk(11.0);
    relay.by_signal();
    send(&client, "c:100|c");
    on_disk(111.0);
    socket.listen(64).expect("it can listen");
    let api = FakeApi::accept_on(socket.into());
    send(&client, "c:1000|c");
    let stored = api.wait_for_stored(|stored| {
        let totals = stored.iter().filter(|it| it.name == "c");
        totals.into_iter().any(|it| it.numbers["value"] >= 1111.0)
    });
    let totals = stored.iter().filter(|it| it.name == "c");
    let totals: Vec<f64> = totals.map(|it| it.numbers["value"]).collect();
    assert!(totals.is_sorted(), "{totals:?}");
    assert_eq!(totals.last(), Some(&1111.0), "{totals:?}");
    relay.signal("TERM");
    relay.outputs.iter().for_each(|it| it.log.wait_for_end());
}

#[test]
fn a_stop_in_the_middle_counts_everything() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let mut config = quiet(&carbon);
    config["servers"] = json!([
        {"server": "./servers/udp", "address": "127.0.0.1", "port": "0"},
    ]);
    config["receiveBuffer"] = json!(8192);
    let relay = Relay::start(&config);
    let client = relay.udp();
    send(&client, "a:1|c");
    relay.wait_for_count("a", 1);
    let connect = || UnixStream::connect(relay.socket()).expect("it listens");
    // It has been shown all, so that the drops from here on may be its own.
    let mut wire = Wire::new(connect());
    let hello = Message::Hello {
        version: VERSION,
        process: 4711,
    };
    wire.send(&hello, DEADLINE).expect("sent");
    let Ok(Message::Sockets(offer)) = wire.receive(DEADLINE) else {
        panic!("it shows nothing");
    };
    let sockets = wire.receive_descriptors(offer.sockets as usize, DEADLINE);
    drop(sockets.expect("they come"));
    relay.signal("STOP");
    // More than fits.
    for _ in 0..2000 {
        send(&client, "a:1|c");
    }
    relay.signal("TERM");
    relay.signal("CONT");
    relay.output().log.wait_for_end();
    assert!(matches!(wire.receive(DEADLINE), Err(Fault::Gone)));
    let counts = accounts(&relay);
    let of = |name: &str| counts.get(name).copied().unwrap_or(0);
    assert!(of("kernel_drops") > 0);
    assert_eq!(of("packets") + of("kernel_drops"), 2001);
}

#[test]
fn a_predecessor_that_dies_ends_the_successor() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let directory = Directory::create();
    let path = directory.path().join("takeover.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let mut config = quiet(&carbon);
    config["takeoverSocket"] = json!(path);
    let daemon = thread::spawn(move || {
        let mut daemon = Daemon::spawn(&config, &["--takeover"]);
        let status = daemon.wait_exit();
        (status.code(), daemon.lines())
    });
    let (stream, _) = listener.accept().expect("it comes");
    let mut wire = Wire::new(stream);
    assert!(matches!(wire.receive(DEADLINE), Ok(Message::Hello { .. })));
    let offer = Message::Sockets(Offer {
        sockets: 1,
        others: vec![0],
        ..Offer::default()
    });
    wire.send(&offer, DEADLINE).expect("sent");
    wire.send_descriptors(&[listener.as_fd()], DEADLINE)
        .expect("sent");
    assert!(matches!(wire.receive(DEADLINE), Ok(Message::Reading(taken)) if taken.is_empty()));
    wire.send(&Message::Connections(Vec::new()), DEADLINE)
        .expect("sent");
    wire.send(&Message::State(vec![1, 2, 3]), DEADLINE)
        .expect("sent");
    let refused = wire.receive(DEADLINE).expect_err("no state").to_string();
    assert!(refused.contains("its end is missing"), "{refused}");
    let (code, lines) = daemon.join().expect("no panic");
    assert_eq!(code, Some(1), "{lines:?}");
    assert!(path.exists(), "it has not become its own");
    assert!(carbon.waiting().is_empty());
}

#[test]
fn strangers_are_shown_nothing() {
    if daemon::replaced().is_some() {
        return;
    }
    if pass::effective_user() != 0 {
        println!("SKIPPED: only root can be somebody else");
        return;
    }
    let carbon = FakeCarbon::start();
    let relay = Relay::start(&quiet(&carbon));
    let mode = fs::metadata(relay.socket())
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // Somebody has opened it wide.
    for path in [relay.directory.path(), &relay.socket(), &relay.file()] {
        let all = fs::Permissions::from_mode(0o777);
        fs::set_permissions(path, all).expect("it is ours");
    }
    let program = relay.directory.path().join("statsd-fast");
    fs::copy(env!("CARGO_BIN_EXE_statsd-fast"), &program).expect("a copy");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut command = Command::new(&program);
    command.args(["--takeover", "--config"]).arg(relay.file());
    let mut stranger = Process::spawn(command.uid(65_534).gid(65_534));
    assert_eq!(stranger.wait_exit().code(), Some(1));
    let log = &relay.output().log;
    log.wait_for("goes on: user 65534 is neither root nor the one this process runs as");
    relay.signal("TERM");
    log.wait_for_end();
}

#[test]
fn a_wish_without_anybody_there_is_a_start() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let directory = Directory::create();
    let mut config = quiet(&carbon);
    let mut daemon = Daemon::spawn(&config, &["--takeover"]);
    assert_eq!(daemon.wait_exit().code(), Some(1));
    daemon.wait_for_line("--takeover needs takeoverSocket");
    config["takeoverSocket"] = json!(directory.path().join("takeover.sock"));
    let mut daemon = Daemon::spawn(&config, &["--takeover"]);
    daemon.wait_for_line("this is a start like any other");
    daemon.wait_for_line("server is up");
    assert!(daemon.terminate().success());
    assert!(!directory.path().join("takeover.sock").exists());
}

#[test]
fn listeners_come_and_go_with_the_configuration() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let mut config = quiet(&carbon);
    let directory = Directory::create();
    let path = directory.path().join("statsd.sock");
    let going = directory.path().join("going.sock");
    let unixgram = |path: &Path| json!({"server": "./servers/unixgram", "socket": path});
    let servers = config["servers"].as_array_mut().expect("a list");
    servers.extend([unixgram(&path), unixgram(&going)]);
    let mut relay = Relay::start(&config);
    let client = relay.udp();
    let mut stream = relay.tcp();
    stream.write_all(b"tcp:1|c\ntcp:5").expect("it is open");
    relay.wait_for_count("tcp", 1);
    let datagrams = UnixDatagram::unbound().expect("a socket");
    datagrams.send_to(b"unix:1|c", &path).expect("sent");
    datagrams.send_to(b"going:1|c", &going).expect("sent");
    // TCP and one of unix go, another one of UDP comes; the rest is taken over.
    config["servers"] = json!([
        {"server": "./servers/udp", "address": "::1", "address_ipv6": true, "port": "0"},
        unixgram(&path),
        {"server": "./servers/udp", "address": "127.0.0.1", "port": "0"},
    ]);
    config["takeoverSocket"] = json!(relay.socket());
    relay.write(&config);
    relay.by_hand();
    assert!(path.exists());
    assert!(!going.exists(), "it is no listener's any more");
    send(&client, "udp:1|c");
    datagrams.send_to(b"unix:1|c", &path).expect("it is read");
    relay.wait_for_count("udp", 1);
    relay.wait_for_count("unix", 2);
    relay.stop();
    let flush = carbon.next();
    assert_eq!((flush.count("tcp"), flush.count("going")), (1.0, 1.0));
    assert_eq!(flush.number("stats.statsd_fast.streams.cut_lines"), 1.0);
    assert!(!path.exists());
}

/// Starts it as a service manager does, with these sockets.
fn activated(config: &Value, sockets: &[&dyn AsFd]) -> (Process, Directory) {
    let directory = Directory::create();
    let file = directory.path().join("config.js");
    fs::write(&file, format!("{config:#}\n")).expect("it can be written");
    let copies: Vec<_> = sockets
        .iter()
        .map(|socket| pass::inheritable(socket.as_fd()).expect("a copy"))
        .collect();
    // Away from the low numbers first: one may be where another is to go.
    let far = |at: usize| 50 + at;
    let moves = copies.iter().enumerate();
    let moves = moves.map(|(at, it)| format!("{}<&{}", far(at), it.as_raw_fd()));
    let moves: Vec<_> = moves.collect();
    let near = (0..copies.len()).map(|at| format!("{}<&{} {}<&-", at + 3, far(at), far(at)));
    let near: Vec<_> = near.collect();
    let script = format!(
        "exec {}; exec {}; LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES=a:b exec \"$0\" --threads 3 \"$1\"",
        moves.join(" "),
        near.join(" "),
        copies.len()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_statsd-fast")]);
    (Process::spawn(command.arg(&file)), directory)
}

#[test]
fn sockets_of_the_service_manager_are_listeners() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = |address: SocketAddr| address.port();
    let udp_port = port(udp.local_addr().expect("address"));
    let tcp_port = port(tcp.local_addr().expect("address"));
    let mut config = quiet(&carbon);
    config["servers"] = json!([
        {"server": "./servers/tcp", "address": "127.0.0.1", "port": tcp_port},
        {"server": "./servers/udp", "address": "127.0.0.1", "port": udp_port},
    ]);
    // Sent before anybody is there.
    let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
    client.connect(("127.0.0.1", udp_port)).expect("connect");
    send(&client, "early:1|c");
    let (mut process, _directory) = activated(&config, &[&udp, &tcp]);
    process.log.wait_for("server is up");
    process.log.wait_for("ReusePort=yes");
    for _ in 0..50 {
        send(&client, "udp:1|c");
        let mut stream = TcpStream::connect(("127.0.0.1", tcp_port)).expect("it listens");
        stream.write_all(b"tcp:1|c\n").expect("it is open");
    }
    process.signal("TERM");
    assert_eq!(process.wait_exit().code(), Some(0));
    let flush = carbon.next();
    assert_eq!(
        (flush.count("early"), flush.count("udp"), flush.count("tcp")),
        (1.0, 50.0, 50.0)
    );
    assert_eq!(flush.number("stats.statsd_fast.kernel_drops"), 0.0);

    // One that no listener is for.
    let stray = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let (mut process, _directory) = activated(&config, &[&udp, &tcp, &stray]);
    assert_eq!(process.wait_exit().code(), Some(1));
    let place = stray.local_addr().expect("address");
    process.log.wait_for(&format!(
        "LISTEN_FDS: the service manager passes udp {place}, and no listener of the configuration is there"
    ));
    let (mut process, _directory) = activated(&config, &[&client]);
    assert_eq!(process.wait_exit().code(), Some(1));
}

#[test]
fn sockets_of_the_service_manager_outlive_all_processes() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let directory = Directory::create();
    let path = directory.path().join("statsd.sock");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let unix = UnixDatagram::bind(&path).expect("bind");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
    let (udp_at, tcp_at) = (udp.local_addr(), tcp.local_addr());
    let (udp_at, tcp_at) = (udp_at.expect("address"), tcp_at.expect("address"));
    let mut config = quiet(&carbon);
    config["servers"] = json!([
        {"server": "./servers/udp", "address": "127.0.0.1", "port": udp_at.port()},
        {"server": "./servers/unixgram", "socket": path},
        {"server": "./servers/tcp", "address": "127.0.0.1", "port": tcp_at.port()},
    ]);
    let (process, _directory) = activated(&config, &[&udp, &unix, &tcp]);
    process.log.wait_for("server is up");
    process.signal("USR2");
    // The next one does not have them from the service manager itself.
    let mark = "taken over by process ";
    let next = process.log.wait_until("a successor", |lines| {
        let line = lines.iter().find(|line| line.contains(mark))?;
        Some(Relay::number_in(line, mark))
    });
    let end = format!("kill {next}");
    let end = Command::new("sh").args(["-c", &end]).status();
    assert!(end.expect("sh starts").success());
    process.log.wait_for_end();
    // What is sent now waits for whoever comes next.
    let client = daemon::client_of(udp_at);
    send(&client, "late:1|c");
    let mut bytes = [0; 32];
    // It is what the process before made it: nobody waits in a call.
    let length = udp.recv(&mut bytes).expect("it waits there");
    assert_eq!(&bytes[..length], b"late:1|c");
    let sent = UnixDatagram::unbound().and_then(|it| it.send_to(b"late:2|c", &path));
    sent.expect("its file is there, and it is open");
    let length = unix.recv(&mut bytes).expect("it waits there");
    assert_eq!(&bytes[..length], b"late:2|c");
    let _stream = TcpStream::connect(tcp_at).expect("it listens");
    tcp.accept().expect("it waits there");
}

#[test]
fn a_successor_that_ends_before_the_last_word_is_not_the_service() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let directory = Directory::create();
    let (path, gate) = (
        directory.path().join("notify"),
        directory.path().join("takeover.sock"),
    );
    let manager = UnixDatagram::bind(&path).expect("bind");
    manager
        .set_read_timeout(Some(DEADLINE))
        .expect("a socket has one");
    let told = || {
        let mut message = [0; 1024];
        let length = manager.recv(&mut message).expect("it is told");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let mut config = quiet(&carbon);
    config["takeoverSocket"] = json!(gate);
    let path = path.to_str().expect("text");
    let mut daemon = Daemon::start_in(&[("NOTIFY_SOCKET", path)], &config);
    assert!(told().starts_with("READY=1"));
    let process = Claim::open(UnixStream::connect(&gate).expect("it listens"));
    let process = process.expect("it shows all").offer.process;
    daemon.wait_for_line("goes on: the other process ended");
    let mut wire = Wire::new(UnixStream::connect(&gate).expect("it listens"));
    let hello = Message::Hello {
        version: VERSION,
        process: 4711,
    };
    wire.send(&hello, DEADLINE).expect("sent");
    let Ok(Message::Sockets(offer)) = wire.receive(DEADLINE) else {
        panic!("it shows nothing");
    };
    let sockets = wire.receive_descriptors(offer.sockets as usize, DEADLINE);
    drop(sockets.expect("they come"));
    let reading = Message::Reading(vec![0, 1]);
    wire.send(&reading, DEADLINE).expect("sent");
    assert!(matches!(
        wire.receive(DEADLINE),
        Ok(Message::Connections(_))
    ));
    assert!(matches!(wire.receive(DEADLINE), Ok(Message::State(_))));
    daemon.signal("STOP");
    wire.send(&Message::Taken, DEADLINE).expect("sent");
    drop(wire);
    daemon.signal("CONT");
    assert_eq!(told(), "MAINPID=4711\n");
    assert_eq!(told(), format!("MAINPID={process}\n"));
    daemon.wait_for_line("this server was not taken over and goes on");
    assert!(daemon.terminate().success());
}

#[test]
fn the_service_manager_is_told_who_is_the_service() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let directory = Directory::create();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("bind");
    manager
        .set_read_timeout(Some(DEADLINE))
        .expect("a socket has one");
    let told = || {
        let mut message = [0; 1024];
        let length = manager.recv(&mut message).expect("it is told");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let config = quiet(&carbon);
    let path = path.to_str().expect("text");
    let mut daemon = Daemon::start_in(&[("NOTIFY_SOCKET", path)], &config);
    assert!(told().starts_with("READY=1"));
    daemon.signal("USR2");
    let told_of = told();
    let process = told_of
        .strip_prefix("MAINPID=")
        .map(str::trim)
        .expect("a successor");
    assert!(told().starts_with("READY=1"));
    daemon.wait_for_line(&format!("taken over by process {process}: "));
    let end = Command::new("sh")
        .args(["-c", &format!("kill {process}")])
        .status();
    assert!(end.expect("sh starts").success());
    assert_eq!(told(), "STOPPING=1\n");
    // Of the first process; the second one has ended when both have closed their output.
    assert!(daemon.wait_exit().success());
}
