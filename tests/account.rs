//! The account: whoever asks is told the same numbers, and a stop in mid-traffic loses none.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{Admin, Daemon, Directory, FakeCarbon, client_of, config, config_without_ticks};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::mpsc;
use std::thread;

/// What this file holds to be known by whoever asks: of what comes in, no matter what goes out.
const INGEST: [&str; 12] = [
    "packets",
    "bytes",
    "lines",
    "samples.",
    "rejected.",
    "mapped_dropped",
    "events",
    "service_checks",
    "truncated",
    "kernel_drops",
    "unread_datagrams",
    "streams.",
];

type Counts = BTreeMap<String, u64>;

fn of_ingest(name: &str) -> bool {
    INGEST.iter().any(|begin| name.starts_with(begin))
}

/// What the admin interface answers to `meters` or `drops`: the totals.
fn totals(admin: &mut Admin, command: &str) -> Counts {
    let answer = admin.ask(&format!("{command}\n"), "END\n\n");
    let lines = answer.lines().filter_map(|line| line.split_once(": "));
    let total = |counts: &str| counts.split(' ').next().and_then(|it| it.parse().ok());
    lines
        .map(|(name, counts)| (name.to_owned(), total(counts).expect("a number")))
        .collect()
}

/// The counts of the line `account: NAME=COUNT ...` of a daemon that has stopped.
fn last_account(daemon: &Daemon) -> Counts {
    let line = daemon.wait_for_line("account: ");
    let (_, counts) = line.split_once("account: ").expect("it was found by that");
    let counts = counts
        .split_whitespace()
        .filter_map(|it| it.split_once('='));
    counts
        .map(|(name, count)| (name.to_owned(), count.parse().expect("a number")))
        .collect()
}

fn count(counts: &Counts, name: &str) -> u64 {
    counts.get(name).copied().unwrap_or(0)
}

/// Those of what comes in that are not 0.
fn ingest(counts: &Counts) -> Counts {
    let counts = counts.iter();
    let kept = counts.filter(|(name, count)| of_ingest(name) && **count > 0);
    kept.map(|(name, count)| (name.clone(), *count)).collect()
}

#[test]
fn flushes_admin_interface_and_last_lines_say_the_same() {
    let carbon = FakeCarbon::start();
    let directory = Directory::for_sockets();
    let path = |name: &str| directory.path().join(name);
    let mut config = config(carbon.port());
    config["dialect"] = json!("auto");
    config["maxDatagram"] = json!(512);
    config["servers"] = json!([
        {"server": "./servers/udp", "address": "127.0.0.1", "port": "0"},
        {"server": "./servers/tcp", "address": "127.0.0.1", "port": "0"},
        {"server": "./servers/unixgram", "socket": path("gram")},
        {"server": "./servers/unixstream", "socket": path("stream")},
    ]);
    config["streamLine"] = json!(64);
    config["mappings"] = json!([{"match": "dropped", "action": "drop"}]);
    let mut daemon = Daemon::start(&config, &["--threads", "2"]);
    let mut admin = Admin::connect(daemon.admin().expect("it has one"));
    let udp = daemon.client();
    let unix = UnixDatagram::unbound().expect("a socket");
    let mut flushed = Counts::new();
    let mut take_flush = || {
        for (name, value) in carbon.next().values {
            if let Some(name) = name.strip_prefix("stats.statsd_fast.") {
                let value: f64 = value.parse().expect("a number");
                *flushed.entry(name.to_owned()).or_default() += value as u64;
            }
        }
    };
    for round in 1..=3_u64 {
        udp.send(b"a:1|c\nb:2|ms\nc:3|g\nd:4|s\ndropped:1|c")
            .expect("sent");
        udp.send(b"a:1:2:x|c\nbad\n\ne:1|c|@2x\n_e{1,1}:a|b\n_sc|a|0")
            .expect("sent");
        udp.send(&[b"a:1|c\n".as_slice(), &[b'x'; 600]].concat())
            .expect("sent");
        unix.send_to(b"a:1|c", path("gram")).expect("sent");
        let mut tcp = daemon.connect();
        tcp.write_all(b"a:1|c\n").expect("written");
        tcp.write_all(&[&[b'x'; 80], b"\na:1|c".as_slice()].concat())
            .expect("written");
        drop(tcp);
        let mut lengths = UnixStream::connect(path("stream")).expect("it accepts");
        lengths
            .write_all(b"\x05\0\0\0a:1|c\x05\0")
            .expect("written");
        drop(lengths);
        // What a client wrote is there; that it closed, the worker sees when it has read it.
        while count(&totals(&mut admin, "meters"), "streams.cut_packets") < round
            || count(&totals(&mut admin, "meters"), "lines") < 15 * round
        {}
        take_flush();
    }
    let (meters, drops) = (totals(&mut admin, "meters"), totals(&mut admin, "drops"));
    assert!(daemon.terminate().success());
    let stopped = daemon.wait_for_line("stopped: ");
    assert!(stopped.ends_with("NOT all that came was read"), "{stopped}");
    for lines in carbon.waiting() {
        for (name, value) in lines.values {
            if let Some(name) = name.strip_prefix("stats.statsd_fast.") {
                let value: f64 = value.parse().expect("a number");
                *flushed.entry(name.to_owned()).or_default() += value as u64;
            }
        }
    }
    let last = last_account(&daemon);
    assert_eq!(ingest(&meters), ingest(&last));
    assert_eq!(ingest(&flushed), ingest(&last));
    for (name, count) in &drops {
        assert_eq!(meters.get(name), Some(count), "{name}");
    }
    // And they are what was sent.
    let expected = [
        ("lines", 15),
        ("samples.counters", 8),
        ("samples.timers", 1),
        ("samples.gauges", 1),
        ("samples.sets", 1),
        ("rejected.no_type", 1),
        ("rejected.bad_rate", 1),
        ("rejected.not_a_number", 1),
        ("mapped_dropped", 1),
        ("events", 1),
        ("service_checks", 1),
        ("truncated", 1),
        ("streams.long_lines", 1),
        ("streams.cut_packets", 1),
        ("streams.accepted", 2),
    ];
    for (name, each) in expected {
        assert_eq!(count(&last, name), 3 * each, "{name}: {last:#?}");
    }
    assert_eq!(
        count(&last, "packets") - count(&last, "streams.pieces"),
        4 * 3
    );
}

/// Sends what `send` does until it is refused, beginning before the stop; what the daemon says last, and how
/// often it went well.
fn through_the_stop(
    mut daemon: Daemon,
    mut send: impl FnMut() -> std::io::Result<u64> + Send + 'static,
) -> (Counts, u64) {
    let (tell, under_way) = mpsc::channel();
    let sender = thread::spawn(move || {
        let mut sent = 0;
        loop {
            match send() {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return sent,
            }
            // Nobody listens any more once it is under way.
            let _ = tell.send(());
        }
    });
    for _ in 0..1000 {
        under_way.recv().expect("it is let in");
    }
    drop(under_way);
    assert!(daemon.terminate().success());
    let sent = sender.join().expect("no panic");
    (last_account(&daemon), sent)
}

#[test]
fn datagrams_that_come_during_the_stop_are_counted_or_refused() {
    let carbon = FakeCarbon::start();
    for threads in ["1", "3"] {
        let options = json!({"steering": "spread"});
        let daemon = Daemon::start(
            &config_without_ticks(&carbon, options),
            &["--threads", threads],
        );
        let client = client_of(daemon.address());
        let (last, sent) = through_the_stop(daemon, move || client.send(b"a:1|c").map(|_| 1));
        let unread = count(&last, "kernel_drops") + count(&last, "unread_datagrams");
        let known = count(&last, "packets") + unread;
        // The first that is refused makes the next call fail; a few may be on their way together.
        let refused = sent - known;
        assert!((1..=8).contains(&refused), "{refused} of {sent}: {last:?}");
        assert_eq!(count(&last, "packets"), count(&last, "samples.counters"));
    }
}

#[test]
fn datagrams_of_a_unix_socket_are_counted_or_refused() {
    let carbon = FakeCarbon::start();
    let directory = Directory::for_sockets();
    let path = directory.path().join("s");
    let options = json!({"server": "./servers/unixgram", "socket": path});
    let daemon = Daemon::start(&config_without_ticks(&carbon, options), &[]);
    let client = UnixDatagram::unbound().expect("a socket");
    client.connect(&path).expect("it is there");
    let (last, sent) = through_the_stop(daemon, move || client.send(b"a:1|c").map(|_| 1));
    assert_eq!(count(&last, "samples.counters"), sent, "{last:?}");
}

#[test]
fn bytes_of_streams_are_counted_or_said_to_be_unread() {
    let carbon = FakeCarbon::start();
    let directory = Directory::for_sockets();
    let path = directory.path().join("s");
    let options = json!({"server": "./servers/tcp", "socket": path});
    let daemon = Daemon::start(&config_without_ticks(&carbon, options), &[]);
    let mut client = UnixStream::connect(&path).expect("it accepts");
    // Larger than what one look of the server takes, so that there is always more.
    let lines = b"a:1|c\n".repeat(1000);
    let (last, sent) = through_the_stop(daemon, move || {
        client.write(&lines[..]).map(|count| count as u64)
    });
    let known = count(&last, "bytes") + count(&last, "streams.unread_bytes");
    let cut = sent - known;
    assert!(cut < 12, "{cut} of {sent} bytes: {last:?}");
    assert_eq!(count(&last, "streams.cut_lines"), u64::from(cut > 0));
}

#[test]
fn who_waits_to_be_let_in_at_the_stop_is_counted() {
    let carbon = FakeCarbon::start();
    let options = json!({"server": "./servers/tcp", "streamConnections": 2});
    let mut daemon = Daemon::start(&config_without_ticks(&carbon, options), &["--threads", "1"]);
    let clients: Vec<TcpStream> = (0..50).map(|_| daemon.connect()).collect();
    assert!(daemon.terminate().success());
    let last = last_account(&daemon);
    let (accepted, refused) = (
        count(&last, "streams.accepted"),
        count(&last, "streams.refused"),
    );
    assert_eq!(accepted + refused, clients.len() as u64, "{last:?}");
}
