//! The admin interface over real connections: how commands may arrive, and clients that are slow, silent,
//! many or wrong. What the replies say is in the scripts of `scenarios` and, next to the original, in `live`.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{Admin, DEADLINE, Daemon, FakeCarbon, config_without_ticks};
use serde_json::{Value, json};
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const HELP: &str = "Commands: stats, counters, timers, gauges, delcounters, deltimers, delgauges, health, \
                    config, quit\n\n";

fn start(options: Value) -> (Daemon, SocketAddr, FakeCarbon) {
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&config_without_ticks(&carbon, options), &["--threads", "2"]);
    let address = daemon.admin().expect("an admin interface");
    (daemon, address, carbon)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    stream
}

#[test]
fn commands_may_come_in_pieces_or_several_at_once() {
    let (_daemon, address, _carbon) = start(json!({}));
    // A reply between the pieces shows that the server has read the first of them.
    let mut stream = connect(address);
    let mut reply = [0; 11];
    stream.write_all(b"health\nhea").expect("it takes it");
    stream.read_exact(&mut reply).expect("a reply");
    assert_eq!(&reply, b"health: up\n");
    stream.write_all(b"lth dow").expect("it takes it");
    stream.write_all(b"n\r\nhelp\n").expect("it takes it");
    let mut replies = vec![0; 13 + HELP.len()];
    stream.read_exact(&mut replies).expect("replies");
    assert_eq!(replies, format!("health: down\n{HELP}").as_bytes());

    let all = Admin::connect(address).read_to_close("help\nhealth up\nnonsense\n\nquit\nhelp\n");
    assert_eq!(all, format!("{HELP}health: up\nERROR\nERROR\n"));
}

#[test]
fn an_empty_line_is_an_error_alone_and_nothing_behind_a_command() {
    let (_daemon, address, _carbon) = start(json!({}));
    let mut admin = Admin::connect(address);
    assert_eq!(admin.ask("\n", "\n"), "ERROR\n");
    assert_eq!(admin.ask("health\n\r\n", "\n"), "health: up\n");
    assert_eq!(admin.ask("  help  \n", "\n\n"), HELP);
}

/// The original takes each segment for a command; programs that send no newline rely on it.
#[test]
fn a_command_without_a_newline_is_answered() {
    let (_daemon, address, _carbon) = start(json!({}));
    let mut admin = Admin::connect(address);
    assert_eq!(admin.ask("health", "\n"), "health: up\n");
    assert_eq!(admin.ask("help", "\n\n"), HELP);
    assert_eq!(admin.ask("drops ", "END\n\n").lines().last(), Some(""));
    assert_eq!(admin.ask("health down", "\n"), "health: down\n");
    assert_eq!(
        admin.ask("delgauges a", "END\n\n"),
        "metric a not found\nEND\n\n"
    );
    assert_eq!(
        Admin::once(address, "delcounters a"),
        "metric a not found\nEND\n\n"
    );
}

#[test]
fn stats_tell_of_messages_and_backends() {
    let (daemon, address, _carbon) = start(json!({
        "backends": ["./backends/graphite", "./backends/console"]
    }));
    daemon
        .client()
        .send(b"a:1|c\nbad\n\nworse:x|c")
        .expect("loopback takes it");
    let stats = Admin::once(address, "stats\n");
    let names: Vec<_> = stats.lines().map(|line| line.split(':').next()).collect();
    let expected = [
        "uptime",
        "messages.last_msg_seen",
        "messages.bad_lines_seen",
        "graphite.last_flush",
        "graphite.last_exception",
        "graphite.flush_time",
        "graphite.flush_length",
        "console.lastFlush",
        "console.lastException",
        "END",
        "",
    ];
    assert_eq!(names, expected.map(Some));
    assert!(stats.contains("messages.bad_lines_seen: 2\n"), "{stats}");
    assert!(stats.contains("graphite.flush_length: 0\n"), "{stats}");
    // No flush yet: the moment of it is that of the start, and a failure was at the beginning of time.
    let seconds = |name: &str| {
        let line = stats.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.expect(name).parse::<i64>().expect("a number")
    };
    // Each is rounded to a second.
    let apart = seconds("graphite.last_flush") - seconds("uptime");
    assert!((-1..=1).contains(&apart), "{stats}");
    assert!(
        seconds("graphite.last_exception") > 1_700_000_000,
        "{stats}"
    );
}

#[test]
fn losses_are_shown_since_the_start_and_since_the_flush() {
    let (daemon, address, _carbon) = start(json!({"maxDatagram": 512}));
    daemon
        .client()
        .send(&[b'x'; 600])
        .expect("loopback takes it");
    daemon
        .client()
        .send(b"a:1|c|@\nb")
        .expect("loopback takes it");
    let drops = Admin::once(address, "drops\n");
    for line in [
        "truncated: 1 1",
        "rejected.bad_rate: 1 1",
        "rejected.no_type: 1 1",
        "kernel_drops: 0 0",
    ] {
        assert!(drops.lines().any(|found| found == line), "{line}: {drops}");
    }
    assert!(
        drops.lines().all(|found| !found.starts_with("packets")),
        "{drops}"
    );
    assert!(drops.ends_with("END\n\n"), "{drops}");
    let meters = Admin::once(address, "meters\n");
    for line in ["packets: 2 2", "samples.counters: 0 0", "truncated: 1 1"] {
        assert!(
            meters.lines().any(|found| found == line),
            "{line}: {meters}"
        );
    }
    let shown = |line: &&str| drops.lines().any(|drop| drop == *line);
    let lost: Vec<_> = meters.lines().filter(shown).collect();
    assert_eq!(lost, drops.lines().collect::<Vec<_>>());
}

#[test]
fn it_listens_on_loopback_unless_told_otherwise() {
    let (_daemon, address, _carbon) = start(json!({"mgmt_address": null}));
    assert!(address.ip().is_loopback(), "{address}");
    let (_daemon, address, _carbon) = start(json!({"mgmt_address": "0.0.0.0"}));
    assert!(address.ip().is_unspecified(), "{address}");
}

#[test]
fn a_port_that_is_taken_ends_the_start() {
    let (_daemon, address, carbon) = start(json!({}));
    let config = config_without_ticks(&carbon, json!({"mgmt_port": address.port()}));
    let mut second = Daemon::spawn(&config, &[]);
    assert_eq!(second.wait_exit().code(), Some(1));
    let line = second.wait_for_line("the admin interface cannot listen on tcp");
    assert!(line.contains(&address.to_string()), "{line}");
    assert!(line.contains("choose another `mgmt_port`"), "{line}");
}

#[test]
fn garbage_and_endless_commands_end_their_connection_only() {
    let (daemon, address, carbon) = start(json!({}));
    let mut patient = Admin::connect(address);
    let garbage: Vec<u8> = (0..=255u8)
        .filter(|byte| *byte != b'\n')
        .cycle()
        .take(10_000)
        .collect();
    let mut stream = connect(address);
    stream.write_all(&garbage).expect("it takes it");
    stream.write_all(b"\nquit\n").expect("it takes it");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    assert_eq!(reply, "ERROR\n");

    let mut endless = connect(address);
    // It closes in the middle, so a write may fail; what matters is what it says before.
    let _ = endless.write_all(&[b'x'; 65_537]);
    reply.clear();
    let _ = endless.read_to_string(&mut reply);
    assert_eq!(reply, "ERROR\n");

    assert_eq!(patient.ask("health\n", "\n"), "health: up\n");
    daemon.client().send(b"a:1|c").expect("loopback takes it");
    assert_eq!(daemon.stop("TERM", &carbon).count("a"), 1.0);
}

#[test]
fn a_client_that_never_reads_or_resets_holds_up_nobody() {
    let (daemon, address, carbon) = start(json!({}));
    let client = daemon.client();
    // Fewer than a worker takes in before it answers.
    for name in 0..3000 {
        let line = format!("{name:0>200}:1|c");
        client.send(line.as_bytes()).expect("loopback takes it");
    }
    // Half a megabyte a reply and nobody who reads: its connection is stuck, and nothing else.
    let mut deaf = connect(address);
    for _ in 0..100 {
        deaf.write_all(b"counters\n")
            .expect("commands fit on the way");
    }
    let reset = connect(address);
    SockRef::from(&reset)
        .set_linger(Some(Duration::ZERO))
        .expect("a socket can linger");
    drop(reset);
    client.send(b"after:1|c").expect("loopback takes it");
    let counters = Admin::once(address, "counters\n");
    assert!(
        counters.contains("\n  after: 1\n}\nEND\n\n"),
        "the last of them"
    );
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!(flush.count("statsd.packets_received"), 3001.0);
}

/// However many ask however often, flushes are on time and a stop is obeyed.
#[test]
fn those_who_ask_without_end_hold_up_no_flush_and_no_stop() {
    let carbon = FakeCarbon::start();
    let mut daemon = Daemon::start(&daemon::config(carbon.port()), &[]);
    let address = daemon.admin().expect("an admin interface");
    let asking = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let askers: Vec<_> = (0..8)
        .map(|_| {
            let asking = asking.clone();
            std::thread::spawn(move || {
                let mut stream = connect(address);
                let mut replies = stream.try_clone().expect("a second handle");
                let reader = std::thread::spawn(move || {
                    let _ = std::io::copy(&mut replies, &mut std::io::sink());
                });
                let many = "delcounters nothing\n".repeat(100);
                while asking.load(std::sync::atomic::Ordering::Relaxed)
                    && stream.write_all(many.as_bytes()).is_ok()
                {}
                let _ = stream.shutdown(std::net::Shutdown::Both);
                reader.join().expect("no panic");
            })
        })
        .collect();
    let first = carbon.next().timestamp;
    let flushes: Vec<_> = (0..3).map(|_| carbon.next().timestamp - first).collect();
    assert_eq!(flushes, [1, 2, 3]);
    assert_eq!(daemon.terminate().code(), Some(0));
    asking.store(false, std::sync::atomic::Ordering::Relaxed);
    askers
        .into_iter()
        .for_each(|asker| asker.join().expect("no panic"));
}

#[test]
fn the_one_silent_longest_makes_room() {
    let (daemon, address, _carbon) = start(json!({"mgmt_connections": 2}));
    let mut first = Admin::connect(address);
    assert_eq!(first.ask("health\n", "\n"), "health: up\n");
    let mut second = Admin::connect(address);
    assert_eq!(second.ask("health\n", "\n"), "health: up\n");
    assert_eq!(first.ask("health\n", "\n"), "health: up\n");
    let mut third = Admin::connect(address);
    assert_eq!(third.ask("health\n", "\n"), "health: up\n");
    assert_eq!(second.read_to_close(""), "", "closed");
    assert_eq!(first.ask("health\n", "\n"), "health: up\n");
    let line = daemon.wait_for_line("the one silent longest was closed");
    assert!(line.contains("raise `mgmt_connections`"), "{line}");
}

#[test]
fn health_begins_as_configured() {
    let (_daemon, address, _carbon) = start(json!({"healthStatus": "down"}));
    assert_eq!(Admin::once(address, "health\n"), "health: down\n");
    assert_eq!(Admin::once(address, "health Up\n"), "health: up\n");
}
