//! TCP, unix stream and unix datagram listeners of the real daemon: every kind beside the others, what
//! clients may do to it, the files of sockets, and the account at the stop.
//!
//! How a stream is cut into lines is tested step by step beside the source, in src/ingest/source/stream/.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{Daemon, Directory, FakeCarbon, Flush, Process, config_without_ticks};
use serde_json::{Value, json};
use socket2::SockRef;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn loopback_v6_is_missing() -> bool {
    let missing = TcpListener::bind("[::1]:0").is_err();
    if missing {
        println!("SKIPPED: this machine has no ::1");
    }
    missing
}

/// One TCP listener on loopback, with `options` on top.
fn tcp(carbon: &FakeCarbon, options: Value) -> Value {
    let mut config = config_without_ticks(carbon, options);
    config["server"] = json!("./servers/tcp");
    config
}

/// The value of one of the counts of streams.
fn counted(flush: &Flush, name: &str) -> f64 {
    flush.number(&format!("stats.statsd_fast.streams.{name}"))
}

fn mode(path: &Path) -> u32 {
    let found = fs::metadata(path).expect("the file of the socket");
    assert!(found.file_type().is_socket());
    found.permissions().mode() & 0o7777
}

/// The server may close with a reset, when there was something it did not read.
fn assert_closed(client: &mut TcpStream) {
    match client.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("not closed but {other:?}"),
    }
}

#[test]
fn every_kind_listens_beside_the_others() {
    let carbon = FakeCarbon::start();
    let directory = Directory::for_sockets();
    let (stream, datagram) = (
        directory.path().join("stream"),
        directory.path().join("gram"),
    );
    let v6 = if loopback_v6_is_missing() {
        "127.0.0.1"
    } else {
        "::1"
    };
    let servers = json!([
        {"server": "./servers/udp", "address": "127.0.0.1", "port": "0"},
        {"server": "./servers/tcp", "address": "127.0.0.1", "port": "0"},
        {"server": "./servers/tcp", "address": v6, "port": "0"},
        {"server": "./servers/tcp", "socket": stream, "socket_mod": "0777"},
        {"server": "./servers/unixgram", "socket": datagram, "socket_mod": "0620"},
    ]);
    let daemon = Daemon::start(
        &config_without_ticks(&carbon, json!({"servers": servers})),
        &["--threads", "2"],
    );
    assert_eq!(daemon.listening("unix"), [stream.to_str().expect("text")]);
    assert_eq!(
        daemon.listening("unixgram"),
        [datagram.to_str().expect("text")]
    );
    // One wider and one narrower than what a usual umask leaves.
    assert_eq!((mode(&stream), mode(&datagram)), (0o777, 0o620));

    daemon.client().send(b"all:1|c").expect("loopback takes it");
    let tcp: Vec<SocketAddr> = daemon
        .listening("tcp")
        .iter()
        .map(|address| address.parse().expect("an address"))
        .collect();
    assert_eq!(tcp.len(), 2);
    assert_ne!(tcp[0].port(), tcp[1].port());
    assert_eq!(tcp[1].ip().to_string(), v6);
    let mut clients: Vec<_> = tcp
        .iter()
        .map(|address| TcpStream::connect(address).expect("connect"))
        .collect();
    clients[0].write_all(b"all:10|c\n").expect("write");
    clients[1].write_all(b"all:100|c\n").expect("write");
    let mut client = UnixStream::connect(&stream).expect("connect");
    client.write_all(b"all:1000|c\n").expect("write");
    let sender = UnixDatagram::unbound().expect("a socket");
    for line in ["all:10000|c", "all:10000|c\nlevel:5|g", "level:+3|g", ""] {
        sender.send_to(line.as_bytes(), &datagram).expect("send");
    }
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!(flush.count("all"), 21_111.0);
    assert_eq!(flush.number("stats.gauges.level"), 8.0);
    assert_eq!(flush.count("statsd.packets_received"), 8.0);
    assert_eq!(flush.count("statsd.metrics_received"), 8.0);
    assert_eq!(counted(&flush, "accepted"), 3.0);
    assert_eq!(flush.number("stats.statsd_fast.kernel_drops"), 0.0);
    assert!(
        !stream.exists() && !datagram.exists(),
        "removed at the stop"
    );
}

#[test]
fn without_an_address_tcp_takes_both_families() {
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&tcp(&carbon, json!({"address": null})), &["--threads", "2"]);
    let address: SocketAddr = daemon.listening("tcp")[0].parse().expect("an address");
    let mut ips = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
    if !loopback_v6_is_missing() {
        assert!(address.is_ipv6(), "{address}");
        ips.push(Ipv6Addr::LOCALHOST.into());
    }
    for ip in &ips {
        let mut client = TcpStream::connect((*ip, address.port())).expect("connect");
        client.write_all(b"both:1|c\n").expect("write");
    }
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!(flush.count("both"), ips.len() as f64);
}

/// The reference clears the high bit of each byte of a stream, and then these are one member.
#[test]
fn bytes_of_a_stream_stay_as_they_are() {
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&tcp(&carbon, json!({})), &[]);
    let mut client = daemon.connect();
    let members = [&b"\xc3\xa9"[..], b"\x43\x29", b"\xff\x80", b"\x7f\x00"];
    for member in members {
        client.write_all(b"s:").expect("write");
        client.write_all(member).expect("write");
        client.write_all(b"|s\n").expect("write");
    }
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!(flush.number("stats.sets.s.count"), members.len() as f64);
}

/// Each of these ends the reference, or costs it values.
#[test]
fn clients_may_leave_as_they_like() {
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&tcp(&carbon, json!({})), &[]);
    let reset = |client: TcpStream| {
        SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .expect("SO_LINGER");
    };
    let mut client = daemon.connect();
    // What may have been `left:10|ms` is not taken for a counter.
    client.write_all(b"left:1|c\nleft:10|c").expect("write");
    reset(client);
    reset(daemon.connect());
    let mut client = daemon.connect();
    client.write_all(b"left:100|c\nleft:1000|c").expect("write");
    client.shutdown(Shutdown::Write).expect("shutdown");
    assert_closed(&mut client);
    let mut client = daemon.connect();
    for byte in b"left:10000|c" {
        client.write_all(&[*byte]).expect("write");
    }
    drop(client);
    let mut client = daemon.connect();
    client
        .write_all(b"left:100000|c\nleft:1000000|c")
        .expect("write");
    daemon.wait_for_line("in the middle of a line");
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!(flush.count("left"), 111_101.0);
    assert_closed(&mut client);
    assert_eq!(counted(&flush, "accepted"), 5.0);
    assert_eq!(counted(&flush, "resets"), 2.0);
    assert_eq!(counted(&flush, "cut_lines"), 2.0);
}

#[test]
fn a_line_too_long_is_told_and_costs_itself_only() {
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&tcp(&carbon, json!({"streamLine": 64})), &[]);
    let mut client = daemon.connect();
    let me = client.local_addr().expect("bound").to_string();
    let long = "x".repeat(100_000);
    for line in ["kept:1|c", &long, "kept:1|c", &long, "kept:1|c"] {
        client.write_all(line.as_bytes()).expect("write");
        client.write_all(b"\n").expect("write");
    }
    let line = daemon.wait_for_line("more than 64 bytes");
    assert!(line.contains(&me), "who: {line}");
    assert!(line.contains("`streamLine`"), "the way out: {line}");
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!(flush.count("kept"), 3.0);
    assert_eq!(counted(&flush, "long_lines"), 2.0);
    assert_eq!(flush.count("statsd.bad_lines_seen"), 0.0);
}

#[test]
fn connections_beyond_the_limit_are_told_and_closed() {
    for threads in ["1", "4"] {
        let carbon = FakeCarbon::start();
        let config = tcp(&carbon, json!({"streamConnections": 2}));
        let daemon = Daemon::start(&config, &["--threads", threads]);
        let mut clients: Vec<_> = (0..4).map(|_| daemon.connect()).collect();
        let line = daemon.wait_for_line("2 connections are open");
        assert!(line.contains("from 127.0.0.1:"), "who: {line}");
        assert!(line.contains("`streamConnections`"), "the way out: {line}");
        // Which two have a place depends on who accepted first; a write tells.
        let mut left = 0;
        for client in &mut clients {
            client
                .set_read_timeout(Some(Duration::from_millis(1)))
                .expect("SO_RCVTIMEO");
        }
        while left < 2 {
            clients.retain_mut(|client| {
                let open = client
                    .read(&mut [0])
                    .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
                left += u32::from(!open);
                open
            });
        }
        for client in &mut clients {
            client.write_all(b"in:1|c\n").expect("write");
        }
        let flush = daemon.stop("TERM", &carbon);
        assert_eq!(flush.count("in"), 2.0, "{threads} threads");
        assert_eq!(counted(&flush, "accepted"), 2.0);
        assert_eq!(counted(&flush, "refused"), 2.0);
    }
}

/// Clients wait when the process has no descriptor for them; they get one when others leave, or at the stop.
/// Flushes and the admin interface have theirs all the while.
#[test]
fn without_descriptors_connections_wait_and_nothing_spins() {
    const CLIENTS: usize = 100;
    let carbon = FakeCarbon::start();
    let directory = Directory::create();
    let file = directory.path().join("config.js");
    fs::write(
        &file,
        tcp(&carbon, json!({"flushInterval": 1000})).to_string(),
    )
    .expect("the file can be written");
    let mut process = Process::spawn(
        Command::new("sh")
            .args(["-c", "ulimit -n 64 && exec \"$0\" --threads 1 \"$1\""])
            .arg(env!("CARGO_BIN_EXE_statsd-fast"))
            .arg(&file),
    );
    process.log.wait_for("server is up");
    let line = process.log.wait_for("open descriptors: 64 at most");
    assert!(line.contains("LimitNOFILE="), "the way out: {line}");
    let line = process.log.wait_for("admin interface on tcp ");
    let (_, admin) = line
        .split_once("admin interface on tcp ")
        .expect("it is there");
    let admin = admin.trim().to_owned();
    let line = process.log.wait_for("listening on tcp ");
    let address = daemon::place(&line, "tcp").expect("a place");
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| TcpStream::connect(&address).expect("the kernel takes it"))
        .collect();
    let line = process.log.wait_for("cannot accept connections");
    assert!(line.contains("ulimit -n"), "the way out: {line}");
    for client in &mut clients {
        client.write_all(b"waited:1|c\n").expect("write");
    }
    let mut client = TcpStream::connect(&admin).expect("connect");
    client.write_all(b"health\n").expect("write");
    let mut reply = [0; 10];
    client.read_exact(&mut reply).expect("an answer");
    assert_eq!(&reply, b"health: up");
    let (mut waited, mut errors) = (0.0, 0.0);
    let mut take = |flush: Flush| {
        if flush
            .values
            .iter()
            .any(|(name, _)| name == "stats_counts.waited")
        {
            waited += flush.count("waited");
        }
        errors += counted(&flush, "accept_errors");
        waited
    };
    // The first may be from before, the second is not.
    take(carbon.next());
    take(carbon.next());
    process.signal("TERM");
    assert_eq!(process.wait_exit().code(), Some(0));
    while take(carbon.next()) < CLIENTS as f64 {}
    drop(clients);
    // One when there was no descriptor left, and at most one a second or for each client that left.
    assert!((1.0..=CLIENTS as f64).contains(&errors), "{errors}");
}

/// Many connections, none of them accepted yet when the order to stop comes: whatever was sent is counted, to
/// the last line without a newline where the client ended there, and the line of who did not is counted as cut.
fn burst_before_the_stop(threads: &str, options: Value, connect: impl Fn(&Daemon) -> Client) {
    const CLIENTS: usize = 300;
    const LINES: usize = 50;
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&tcp(&carbon, options), &["--threads", threads]);
    daemon.signal("STOP");
    let mut open = Vec::new();
    for index in 0..CLIENTS {
        let mut client = connect(&daemon);
        let lines: Vec<_> = (0..LINES)
            .map(|line| format!("burst.{}:1|c", (index + line) % 100))
            .collect();
        let text = lines.join("\n");
        client.write_all(text.as_bytes()).expect("write");
        match index % 3 {
            0 => drop(client),
            1 => {
                client.write_all(b"\n").expect("write");
                open.push(client);
            }
            _ => open.push(client),
        }
    }
    daemon.signal("TERM");
    // Wakes up to find the order to stop.
    let flush = daemon.stop("CONT", &carbon);
    let counters =
        (flush.values.iter()).filter(|(name, _)| name.starts_with("stats_counts.burst."));
    let counted_lines: f64 = counters.map(|(name, _)| flush.number(name)).sum();
    let cut = CLIENTS / 3;
    let sent = (CLIENTS * LINES - cut) as f64;
    assert_eq!(counted_lines, sent, "{threads} threads");
    assert_eq!(flush.count("statsd.metrics_received"), sent);
    assert_eq!(counted(&flush, "cut_lines"), cut as f64);
    assert_eq!(flush.count("statsd.bad_lines_seen"), 0.0);
    assert_eq!(counted(&flush, "accepted"), CLIENTS as f64);
}

trait ReadWrite: Write {}
impl<T: Write> ReadWrite for T {}
type Client = Box<dyn ReadWrite>;

#[test]
fn a_stop_drains_tcp_connections() {
    for threads in ["1", "4"] {
        burst_before_the_stop(threads, json!({}), |daemon| Box::new(daemon.connect()));
    }
}

#[test]
fn a_stop_drains_unix_connections() {
    for threads in ["1", "4"] {
        let directory = Directory::for_sockets();
        let path = directory.path().join("s");
        burst_before_the_stop(threads, json!({"socket": path}), |_| {
            Box::new(UnixStream::connect(&path).expect("connect"))
        });
    }
}

#[test]
fn a_unix_datagram_too_long_is_cut_and_counted() {
    let carbon = FakeCarbon::start();
    let directory = Directory::for_sockets();
    let path = directory.path().join("s");
    let options = json!({"server": "./servers/unixgram", "socket": path, "maxDatagram": 512});
    let daemon = Daemon::start(&config_without_ticks(&carbon, options), &["--threads", "4"]);
    let line = daemon.wait_for_line("listening on unixgram ");
    assert!(line.contains(", 1 worker "), "{line}");
    let sender = UnixDatagram::unbound().expect("a socket");
    // 99 lines of ten bytes; 51 are whole within 512.
    let lines = ["whole:1|c"; 99].join("\n");
    sender.send_to(lines.as_bytes(), &path).expect("send");
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!(flush.count("whole"), 51.0);
    assert_eq!(flush.number("stats.statsd_fast.truncated"), 1.0);
}

/// A packet behind its length.
fn framed(packet: &str) -> Vec<u8> {
    let length = u32::try_from(packet.len()).expect("short");
    [&length.to_le_bytes()[..], packet.as_bytes()].concat()
}

#[test]
fn packets_with_lengths_are_taken_whole_and_a_bad_length_ends_its_connection_only() {
    let carbon = FakeCarbon::start();
    let directory = Directory::for_sockets();
    let path = directory.path().join("s");
    let server = format!("unixstream://{}", path.display());
    let options = json!({"server": server, "socket_mod": "0722", "maxDatagram": 512});
    let daemon = Daemon::start(&config_without_ticks(&carbon, options), &["--threads", "2"]);
    assert_eq!(
        daemon.listening("unixstream"),
        [path.to_str().expect("text")]
    );
    assert_eq!(mode(&path), 0o722);
    let connect = || UnixStream::connect(&path).expect("connect");

    let mut quiet = connect();
    let (begun, rest) = (framed("whole:1|c\nwhole:10|c"), framed("whole:100|c\n"));
    quiet.write_all(&begun[..7]).expect("write");
    // One that is too long, behind one that is not.
    let mut bad = connect();
    let pieces = [
        framed("whole:1000|c"),
        framed(&"x".repeat(513)),
        framed("never:1|c"),
    ];
    bad.write_all(&pieces.concat()).expect("write");
    assert_ended(&mut bad);
    // One that sends lines.
    let mut lines = connect();
    lines.write_all(b"never:1|c\n").expect("write");
    assert_ended(&mut lines);
    let line =
        daemon.wait_for_line("announced a packet of 513 bytes, more than 512 (`maxDatagram`)");
    assert!(line.contains("`./servers/tcp` with a `socket`"), "{line}");
    // One that ends within a packet.
    let mut short = connect();
    short.write_all(&framed("never:1|c")[..9]).expect("write");
    drop(short);
    // The longest, an empty one, and the rest of the first.
    let longest = format!("whole:10000|c|#{}", "x".repeat(512 - 15));
    quiet.write_all(&begun[7..]).expect("write");
    quiet
        .write_all(&[framed(&longest), framed(""), rest].concat())
        .expect("write");
    quiet.write_all(&framed("never:1|c")[..4]).expect("write");
    let flush = daemon.stop("TERM", &carbon);
    let tagged = format!("whole;{}", "x".repeat(512 - 15));
    assert_eq!(
        (flush.count("whole"), flush.count(&tagged)),
        (1111.0, 10_000.0)
    );
    assert!(!flush.values.keys().any(|name| name.contains("never")));
    assert_eq!(flush.count("statsd.packets_received"), 5.0);
    assert_eq!(flush.count("statsd.metrics_received"), 5.0);
    assert_eq!(counted(&flush, "accepted"), 4.0);
    assert_eq!(counted(&flush, "bad_lengths"), 2.0);
    assert_eq!(counted(&flush, "cut_packets"), 2.0);
    assert_eq!(counted(&flush, "cut_lines"), 0.0);
    assert!(!path.exists(), "removed at the stop");
}

/// As [`assert_closed`], for a unix socket.
fn assert_ended(client: &mut UnixStream) {
    match client.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("not closed but {other:?}"),
    }
}

/// The listener of each kind of socket file.
fn both_kinds(path: &Path) -> [Value; 2] {
    ["./servers/tcp", "./servers/unixgram"].map(|server| json!({"server": server, "socket": path}))
}

#[test]
fn a_socket_file_that_was_left_is_replaced() {
    let directory = Directory::for_sockets();
    let path = directory.path().join("s");
    for left_by_a_stream in [true, false] {
        for options in both_kinds(&path) {
            if left_by_a_stream {
                drop(UnixListener::bind(&path).expect("bind"));
            } else {
                drop(UnixDatagram::bind(&path).expect("bind"));
            }
            assert!(path.exists(), "closing does not remove it");
            let carbon = FakeCarbon::start();
            let daemon = Daemon::start(&config_without_ticks(&carbon, options), &[]);
            let line = daemon.wait_for_line("replaced the socket file");
            assert!(line.contains(path.to_str().expect("text")), "{line}");
            daemon.stop("TERM", &carbon);
            assert!(!path.exists());
        }
    }
}

/// Starts a daemon that cannot: the one line that names the path.
fn failed_start(options: Value, path: &Path) -> String {
    let carbon = FakeCarbon::start();
    let mut daemon = Daemon::spawn(&config_without_ticks(&carbon, options), &[]);
    assert_eq!(daemon.wait_exit().code(), Some(1));
    let path = path.to_str().expect("text");
    let named: Vec<String> = daemon
        .lines()
        .into_iter()
        .filter(|line| line.contains(path))
        .collect();
    assert_eq!(named.len(), 1, "{:#?}", daemon.lines());
    assert!(named[0].contains("`socket`"), "the way out: {}", named[0]);
    named[0].clone()
}

#[test]
fn a_socket_that_is_in_use_ends_the_start() {
    let directory = Directory::for_sockets();
    let path = directory.path().join("s");
    for first in both_kinds(&path) {
        let carbon = FakeCarbon::start();
        let daemon = Daemon::start(&config_without_ticks(&carbon, first), &[]);
        for second in both_kinds(&path) {
            let line = failed_start(second, &path);
            assert!(line.contains("another process listens there"), "{line}");
        }
        assert!(path.exists(), "the failed start left it alone");
        daemon.stop("TERM", &carbon);
        assert!(!path.exists());
    }
}

#[test]
fn a_file_that_is_no_socket_ends_the_start_and_stays() {
    let directory = Directory::for_sockets();
    let path = directory.path().join("s");
    fs::write(&path, "precious").expect("the file can be written");
    for options in both_kinds(&path) {
        let line = failed_start(options, &path);
        assert!(line.contains("no socket is in the way"), "{line}");
    }
    assert_eq!(fs::read(&path).expect("it is there"), b"precious");
    fs::remove_file(&path).expect("it is there");
    std::os::unix::fs::symlink("/nowhere", &path).expect("symlink");
    for options in both_kinds(&path) {
        let line = failed_start(options, &path);
        assert!(line.contains("or a symbolic link"), "{line}");
    }

    let nowhere = directory.path().join("missing/s");
    for options in both_kinds(&nowhere) {
        let line = failed_start(options, &nowhere);
        assert!(line.contains("its directory is not there"), "{line}");
    }
}

#[test]
fn a_start_that_fails_takes_its_socket_file_away() {
    let directory = Directory::for_sockets();
    let path = directory.path().join("s");
    let owner = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = owner.local_addr().expect("bound").port();
    let carbon = FakeCarbon::start();
    let servers = json!([
        {"server": "./servers/tcp", "socket": path},
        {"server": "./servers/tcp", "address": "127.0.0.1", "port": port},
    ]);
    let config = config_without_ticks(&carbon, json!({"servers": servers}));
    let mut daemon = Daemon::spawn(&config, &[]);
    assert_eq!(daemon.wait_exit().code(), Some(1));
    daemon.wait_for_line("see: ss -ltnp");
    assert!(!path.exists());
}
