//! Every fault a backend can have, switched on while load comes and off again: ingest loses nothing, the
//! backend beside it gets every flush with the right sums, and what the faulty one lost is counted to the
//! flush.

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

use daemon::{Admin, DEADLINE, Daemon, Directory, FakeCarbon, Flush, config, deaf_socket};
use librato_api::{Answer, Authority, FakeApi, Fault, Rules, Stored};
use serde_json::{Value, json};
use socket2::SockRef;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::iter::repeat_n;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, mpsc::Sender};
use std::thread;
use std::time::Duration;

/// Rounds of load that a fault lasts.
const ROUNDS: u64 = 3;
/// Datagrams of a round.
const DATAGRAMS: u64 = 100;

/// What a carbon does wrong, until it is told to stop that.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    /// It accepts, reads a little and resets.
    Reset,
    /// It accepts and does not read.
    Deaf,
    /// It reads a byte a second.
    Slow,
}

/// A carbon that does something wrong at first.
struct SickCarbon {
    port: u16,
    sick: Arc<AtomicBool>,
    flushes: Receiver<Flush>,
}

impl SickCarbon {
    fn start(wrong: Wrong) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for carbon");
        let port = listener.local_addr().expect("it is bound").port();
        let sick = Arc::new(AtomicBool::new(true));
        let (tell, flushes) = mpsc::channel();
        let shared = sick.clone();
        thread::spawn(move || {
            // One connection after the other, so that flushes come in order.
            for connection in listener.incoming() {
                let connection = connection.expect("it accepts");
                converse(connection, wrong, &shared, &tell);
            }
        });
        Self {
            port,
            sick,
            flushes,
        }
    }

    fn heal(&self) {
        self.sick.store(false, Ordering::SeqCst);
    }

    fn next(&self) -> Flush {
        let flush = self.flushes.recv_timeout(DEADLINE);
        flush.expect("a flush comes when the fault is over")
    }
}

fn converse(mut connection: TcpStream, wrong: Wrong, sick: &AtomicBool, tell: &Sender<Flush>) {
    let mut payload = Vec::new();
    while sick.load(Ordering::SeqCst) {
        match wrong {
            Wrong::Reset => {
                let _ = connection.read(&mut [0; 16]);
                let socket = SockRef::from(&connection);
                socket.set_linger(Some(Duration::ZERO)).expect("an option");
                return;
            }
            Wrong::Deaf => {}
            Wrong::Slow => {
                let mut byte = [0];
                if connection.read(&mut byte).is_ok_and(|count| count == 1) {
                    payload.push(byte[0]);
                }
            }
        }
        // The fault itself is a matter of time; nothing is concluded from it.
        for _ in 0..100 {
            if sick.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
    // Who was kept waiting too long has gone, and sends it again.
    if connection.read_to_end(&mut payload).is_ok()
        && let Ok(flush) = Flush::parse(payload)
    {
        let _ = tell.send(flush);
    }
}

/// Graphite and Librato beside each other, five flushes a second.
fn both(carbon: u16, api: &str) -> Value {
    let mut config = config(carbon);
    config["flushInterval"] = json!(200);
    config["backends"] = json!(["./backends/graphite", "librato"]);
    config["librato"] = json!({
        "email": "user@example.com",
        "token": "tok123",
        "api": api,
        "host": "h",
        "retryDelaySecs": 0.001,
        "postTimeoutSecs": 0.5,
    });
    config
}

/// Sends rounds of load; each is over when what was sent so far has come to `there`.
fn load(client: &UdpSocket, mut there: impl FnMut(f64)) -> f64 {
    let mut sent = 0;
    for _ in 0..ROUNDS {
        for _ in 0..DATAGRAMS {
            client.send(b"load:1|c").expect("loopback takes it");
            sent += 1;
        }
        there(sent as f64);
    }
    sent as f64
}

fn stored_load(stored: &[Stored]) -> f64 {
    let load = stored.iter().filter(|it| it.name == "load");
    load.map(|it| it.numbers["value"]).sum()
}

/// Stops the daemon; what its account says.
fn account(daemon: &mut Daemon) -> BTreeMap<String, u64> {
    assert_eq!(daemon.terminate().code(), Some(0));
    let line = daemon.wait_for_line("account: ");
    let (_, counts) = line.split_once("account: ").expect("it was found by that");
    let counts = counts
        .split_whitespace()
        .filter_map(|it| it.split_once('='));
    counts
        .map(|(name, count)| (name.to_owned(), count.parse().expect("a number")))
        .collect()
}

/// All that was sent was counted, and nothing was lost on its way in.
fn ingest_lost_nothing(account: &BTreeMap<String, u64>, sent: f64) {
    assert_eq!(account["samples.counters"] as f64, sent, "{account:?}");
    for name in ["kernel_drops", "truncated", "receive_errors"] {
        assert_eq!(account.get(name), None, "{account:?}");
    }
}

fn count(account: &BTreeMap<String, u64>, name: &str) -> u64 {
    account.get(name).copied().unwrap_or(0)
}

/// Load while Graphite is out of order and Librato is not; `heal` ends it, and `next` are its flushes.
fn graphite_is_out_of_order(
    mut daemon: Daemon,
    api: &FakeApi,
    heal: impl FnOnce(),
    next: impl Fn() -> Flush,
) {
    let sent = load(&daemon.client(), |sent| {
        api.wait_for_stored(|stored| stored_load(stored) >= sent);
    });
    heal();
    let (mut flushes, mut counted, mut before) = (0, 0.0, 0);
    while counted < sent {
        let flush = next();
        assert!(flush.timestamp >= before, "in order");
        (flushes, before) = (flushes + 1, flush.timestamp);
        if flush.values.contains_key("stats_counts.load") {
            counted += flush.count("load");
        }
    }
    assert_eq!(counted, sent, "each flush once");
    let account = account(&mut daemon);
    ingest_lost_nothing(&account, sent);
    assert_eq!(stored_load(&api.stored()), sent);
    assert_eq!(count(&account, "flushes_dropped"), 0, "{account:?}");
    assert!(count(&account, "flushes_delivered") >= 2 * flushes);
}

#[test]
fn a_carbon_with_a_fault_takes_nothing_from_librato() {
    for wrong in [Wrong::Reset, Wrong::Deaf, Wrong::Slow] {
        let (carbon, api) = (SickCarbon::start(wrong), FakeApi::start(Rules::default()));
        let daemon = Daemon::start(&both(carbon.port, api.url()), &[]);
        graphite_is_out_of_order(daemon, &api, || carbon.heal(), || carbon.next());
    }
}

#[test]
fn a_carbon_that_refuses_takes_nothing_from_librato() {
    let (socket, address) = deaf_socket();
    let api = FakeApi::start(Rules::default());
    let daemon = Daemon::start(&both(address.port(), api.url()), &[]);
    let carbon = std::cell::OnceCell::new();
    let heal = || {
        socket.listen(128).expect("the socket can listen");
        let listener = TcpListener::from(socket.try_clone().expect("a copy"));
        let _ = carbon.set(FakeCarbon::accept_on(listener));
    };
    let next = || carbon.get().expect("it is healed").next();
    graphite_is_out_of_order(daemon, &api, heal, next);
}

/// Writes another configuration and waits until it is taken over.
fn reload(daemon: &Daemon, config: &Value) {
    fs::write(daemon.config_file(), format!("{config:#}\n")).expect("it can be written");
    daemon.signal("HUP");
    daemon.wait_for_line("the configuration was taken over");
}

#[test]
fn a_carbon_whose_name_is_gone_takes_nothing_from_librato() {
    let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
    let good = both(carbon.port(), api.url());
    let mut gone = good.clone();
    gone["graphiteHost"] = json!(format!("{}.invalid", "carbon".repeat(20)));
    let daemon = Daemon::start(&gone, &[]);
    daemon.wait_for_line("does not resolve");
    let file = daemon.config_file();
    let process = daemon.process().id();
    let heal = || {
        fs::write(&file, format!("{good:#}\n")).expect("it can be written");
        let mut shell = Command::new("sh");
        let status = shell.args(["-c", &format!("kill -HUP {process}")]).status();
        assert!(status.expect("sh starts").success());
    };
    graphite_is_out_of_order(daemon, &api, heal, || carbon.next());
}

#[test]
fn flushes_that_found_no_room_are_counted_to_the_last() {
    let (socket, address) = deaf_socket();
    let api = FakeApi::start(Rules::default());
    let mut config = both(address.port(), api.url());
    config["outboxFlushes"] = json!(2);
    let mut daemon = Daemon::start(&config, &[]);
    let sent = load(&daemon.client(), |sent| {
        api.wait_for_stored(|stored| stored_load(stored) >= sent);
    });
    let mut admin = Admin::connect(daemon.admin().expect("it has one"));
    while !admin
        .ask("drops\n", "END\n\n")
        .lines()
        .any(|line| line.starts_with("flushes_dropped: ") && line != "flushes_dropped: 0 0")
    {}
    socket.listen(128).expect("the socket can listen");
    let carbon = FakeCarbon::accept_on(TcpListener::from(socket));
    let mut flushes = vec![carbon.next()];
    let account = account(&mut daemon);
    ingest_lost_nothing(&account, sent);
    // What comes at the stop and before it; none is on its way any more.
    let until = count(&account, "flushes_delivered") + count(&account, "flushes_dropped");
    assert_eq!(
        until % 2,
        0,
        "each flush has a fate at each backend: {account:?}"
    );
    let reached = until / 2 - count(&account, "flushes_dropped");
    while (flushes.len() as u64) < reached {
        flushes.push(carbon.next());
    }
    assert!(carbon.waiting().is_empty(), "{account:?}");
    assert_eq!(stored_load(&api.stored()), sent);
}

/// Load while Librato is out of order and Graphite is not: the flushes that Graphite got.
fn beside_librato(daemon: &Daemon, carbon: &FakeCarbon) -> (f64, Vec<Flush>) {
    let (mut flushes, mut counted, mut before) = (Vec::new(), 0.0, 0);
    let sent = load(&daemon.client(), |sent| {
        while counted < sent {
            let flush = carbon.next();
            assert!(flush.timestamp >= before, "in order");
            before = flush.timestamp;
            if flush.values.contains_key("stats_counts.load") {
                counted += flush.count("load");
                flushes.push(flush);
            }
        }
    });
    assert_eq!(counted, sent);
    (sent, flushes)
}

/// The rest of the flushes that a carbon got.
fn and_the_rest(carbon: &FakeCarbon) -> usize {
    let rest = carbon.waiting().into_iter();
    let with_load = rest.filter(|flush| {
        flush
            .values
            .iter()
            .any(|(name, _)| name == "stats_counts.load")
    });
    with_load.count()
}

#[test]
fn a_librato_that_fails_takes_nothing_from_carbon_and_is_counted_to_the_flush() {
    for fault in [
        Fault::Answer(Answer::text(500, "broken")),
        Fault::Reset(b"HTTP/1.1 20".to_vec()),
        Fault::Hang(Vec::new()),
    ] {
        let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
        api.script(repeat_n(fault.clone(), 10_000));
        let mut daemon = Daemon::start(&both(carbon.port(), api.url()), &[]);
        let (sent, flushes) = beside_librato(&daemon, &carbon);
        daemon.wait_for_line("posts of a flush were lost: ");
        api.heal();
        api.wait_for_stored(|stored| stored.iter().any(|it| it.name == "load"));
        let account = account(&mut daemon);
        ingest_lost_nothing(&account, sent);
        let made = flushes.len() + and_the_rest(&carbon);
        let stored = api.stored();
        let stored = stored.iter().filter(|it| it.name == "load").count();
        let dropped = count(&account, "flushes_dropped") as usize;
        assert!(dropped > 0, "{fault:?}");
        assert_eq!(stored + dropped, made, "{fault:?}: {account:?}");
    }
}

#[test]
fn a_librato_that_cannot_be_reached_takes_nothing_from_carbon_and_gets_all() {
    // TLS that fails, by a certificate that nobody trusts; a name that leads nowhere.
    let foreign = FakeApi::start_encrypted(Rules::default(), Authority::new().sign("localhost"));
    let nowhere = format!("http://{}.invalid", "librato".repeat(15));
    for url in [foreign.url(), nowhere.as_str()] {
        let (carbon, api) = (FakeCarbon::start(), FakeApi::start(Rules::default()));
        let mut daemon = Daemon::start(&both(carbon.port(), url), &[]);
        let (sent, _) = beside_librato(&daemon, &carbon);
        daemon.wait_for_line("librato: a flush could not be delivered and waits: ");
        reload(&daemon, &both(carbon.port(), api.url()));
        api.wait_for_stored(|stored| stored_load(stored) >= sent);
        let account = account(&mut daemon);
        ingest_lost_nothing(&account, sent);
        assert_eq!(stored_load(&api.stored()), sent, "{url}: {account:?}");
        assert_eq!(count(&account, "flushes_dropped"), 0, "{url}: {account:?}");
    }
    assert_eq!(foreign.stored(), []);
}

/// Where Debian puts the library that fakes clocks.
fn libfaketime() -> Option<String> {
    let directories = fs::read_dir("/usr/lib").ok()?.flatten();
    let mut libraries = directories.map(|it| it.path().join("faketime/libfaketime.so.1"));
    let found = libraries.find(|path| path.exists())?;
    found.to_str().map(str::to_owned)
}

/// The clock of the machine, as the daemon sees it, is so much off from now on.
fn step(file: &Path, offset: &str) {
    let new = file.with_extension("new");
    fs::write(&new, offset).expect("it can be written");
    fs::rename(new, file).expect("it can be renamed");
}

#[test]
fn steps_of_the_clock_lose_nothing() {
    let Some(library) = libfaketime() else {
        daemon::skip_for_want_of("libfaketime (Debian's package libfaketime) is missing");
        return;
    };
    let directory = Directory::create();
    let offset = directory.path().join("offset");
    step(&offset, "+0");
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().expect("text")),
        ("FAKETIME_NO_CACHE", "1"),
        // What waits are reckoned by no step moves.
        ("DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let carbon = FakeCarbon::start();
    let mut config = config(carbon.port());
    config["flushInterval"] = json!(200);
    let mut daemon = Daemon::start_in(&environment, &config);
    let client = daemon.client();
    let (mut sent, mut counted, mut seen) = (0.0, 0.0, Vec::new());
    for days in ["+0", "+1d", "-1d", "+0"] {
        step(&offset, days);
        let mut first = None;
        for _ in 0..ROUNDS {
            for _ in 0..DATAGRAMS {
                client.send(b"load:1|c").expect("loopback takes it");
                sent += 1.0;
            }
            while counted < sent {
                let flush = carbon.next();
                if flush.values.contains_key("stats_counts.load") {
                    counted += flush.count("load");
                }
                first = Some(flush.timestamp);
            }
        }
        seen.push(first.expect("a flush came"));
    }
    assert_eq!(counted, sent);
    // They were steps: a day ahead, two back, and home.
    let days: Vec<_> = seen
        .iter()
        .map(|at| at.abs_diff(seen[0]) / 43_200)
        .collect();
    assert!(seen[1] > seen[0] && seen[2] < seen[0], "{seen:?}");
    assert_eq!((days[0], days[3]), (0, 0), "{seen:?}");
    assert!(days[1] >= 1 && days[2] >= 1, "{seen:?}");
    let account = account(&mut daemon);
    ingest_lost_nothing(&account, sent);
    assert_eq!(count(&account, "flushes_dropped"), 0);
}
