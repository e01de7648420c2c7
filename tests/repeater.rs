//! The repeater: every datagram again, as it came, to every target. A target that is slow, away or without
//! an address costs its own copies, which are counted, and nobody else anything.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{DEADLINE, Daemon, FakeCarbon, Flush, deaf_socket};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

/// Ticks often, since what became of the copies is told with the flushes.
fn config(carbon: &FakeCarbon, protocol: &str, targets: &[SocketAddr]) -> Value {
    let mut config = daemon::config(carbon.port());
    config["flushInterval"] = json!(20);
    config["backends"] = json!(["./backends/graphite", "./backends/repeater"]);
    let target =
        |address: &SocketAddr| json!({"host": address.ip().to_string(), "port": address.port()});
    config["repeater"] = targets.iter().map(target).collect();
    config["repeaterProtocol"] = json!(protocol);
    config
}

/// What the flushes so far say together.
#[derive(Debug, Default, PartialEq)]
struct Accounts {
    packets: f64,
    kernel_drops: f64,
    sent: f64,
    dropped: f64,
    errors: f64,
}

impl Accounts {
    fn add(&mut self, flush: &Flush) {
        let number = |name: &str| flush.number(&format!("stats.statsd_fast.{name}"));
        self.packets += number("packets");
        self.kernel_drops += number("kernel_drops");
        self.sent += number("repeater.sent");
        self.dropped += number("repeater.dropped");
        self.errors += number("repeater.errors");
    }

    /// Takes flushes in until it is known what became of so many copies.
    fn settle(&mut self, carbon: &FakeCarbon, copies: usize) {
        while self.sent + self.dropped < copies as f64 {
            self.add(&carbon.next());
        }
        assert_eq!(self.sent + self.dropped, copies as f64, "{self:?}");
    }
}

/// What may be sent, and is as it is whatever a parser makes of it.
fn datagrams() -> Vec<Vec<u8>> {
    let mut datagrams: Vec<Vec<u8>> = [
        &b"first:1|c"[..],
        b"",
        b"\xff\xfe\0garbage \r\n\n\n",
        b"a:1|c\nb:2|ms\n",
        b":::|||",
        b"last:1|c\n",
    ]
    .map(Vec::from)
    .into();
    datagrams.extend((0..100).map(|n| format!("n{n}:1|c").into_bytes()));
    datagrams
}

fn udp_target(address: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(address).expect("a socket for a target");
    socket
        .set_read_timeout(Some(DEADLINE))
        .expect("a socket has a time-out");
    let address = socket.local_addr().expect("a bound socket has an address");
    (socket, address)
}

fn received(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let received = daemon::uninterrupted(|| socket.recv(&mut buffer));
    let length = received.expect("a copy comes");
    buffer.truncate(length);
    buffer
}

fn tcp_target() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port for a target");
    let address = listener
        .local_addr()
        .expect("a bound socket has an address");
    (listener, address)
}

fn accepted(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = listener.accept().expect("the repeater connects");
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("a stream has a time-out");
    BufReader::new(stream)
}

fn line(stream: &mut impl BufRead) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("a copy comes");
    line
}

/// Sends all datagrams, cut at `max`, to targets of a family and looks at what arrives.
fn repeats_over_udp(protocol: &str, any_port: &str) {
    let carbon = FakeCarbon::start();
    let targets = [udp_target(any_port), udp_target(any_port)];
    let addresses = [targets[0].1, targets[1].1];
    let mut config = config(&carbon, protocol, &addresses);
    config["maxDatagram"] = json!(512);
    let daemon = Daemon::start(&config, &["--threads", "2"]);
    let client = daemon.client();
    let mut sent = datagrams();
    sent.push(vec![b'x'; 600]);
    sent.push(b"behind:1|c".into());
    for datagram in &sent {
        client.send(datagram).expect("loopback takes it");
        // Read at once: the buffers of sockets are not what is tested.
        let expected = &datagram[..datagram.len().min(512)];
        for (target, _) in &targets {
            assert_eq!(received(target), expected);
        }
    }
    let mut accounts = Accounts::default();
    accounts.settle(&carbon, 2 * sent.len());
    let expected = Accounts {
        packets: sent.len() as f64,
        sent: 2.0 * sent.len() as f64,
        ..Accounts::default()
    };
    assert_eq!(accounts, expected);
}

#[test]
fn every_target_gets_every_datagram_as_it_came() {
    repeats_over_udp("udp4", "127.0.0.1:0");
}

#[test]
fn ipv6_targets_do_too() {
    if UdpSocket::bind("[::1]:0").is_err() {
        println!("SKIPPED: this machine has no ::1");
        return;
    }
    repeats_over_udp("udp6", "[::1]:0");
}

#[test]
fn a_burst_keeps_its_order() {
    let carbon = FakeCarbon::start();
    let (target, address) = udp_target("127.0.0.1:0");
    let daemon = Daemon::start(&config(&carbon, "udp4", &[address]), &["--threads", "2"]);
    let client = daemon.client();
    for datagram in datagrams() {
        client.send(&datagram).expect("loopback takes it");
    }
    for datagram in datagrams() {
        assert_eq!(received(&target), datagram);
    }
}

#[test]
fn over_tcp_each_datagram_gets_a_newline() {
    let carbon = FakeCarbon::start();
    let targets = [tcp_target(), tcp_target()];
    let addresses = [targets[0].1, targets[1].1];
    let mut daemon = Daemon::start(&config(&carbon, "tcp", &addresses), &[]);
    let client = daemon.client();
    let mut expected = Vec::new();
    for datagram in datagrams() {
        client.send(&datagram).expect("loopback takes it");
        expected.extend_from_slice(&datagram);
        expected.push(b'\n');
    }
    let streams = targets.each_ref().map(|(listener, _)| accepted(listener));
    // What was handed over is sent before the end.
    assert_eq!(daemon.terminate().code(), Some(0));
    for mut stream in streams {
        let mut copies = Vec::new();
        stream.read_to_end(&mut copies).expect("it ends");
        assert_eq!(copies, expected);
    }
    let copies = 2 * datagrams().len();
    daemon.wait_for_line(&format!("repeater: {copies} copies sent, 0 dropped"));
}

#[test]
fn a_target_may_be_away_and_come_back() {
    let (socket, address) = deaf_socket();
    let carbon = FakeCarbon::start();
    let mut daemon = Daemon::start(&config(&carbon, "tcp", &[address]), &[]);
    let said = daemon.wait_for_line("copies are lost");
    assert!(
        said.contains(&format!("repeater: tcp {address}: "))
            && said.contains("nothing listens there"),
        "{said}"
    );
    let client = daemon.client();
    let mut copies = 0;
    let mut accounts = Accounts::default();
    let mut send = |accounts: &mut Accounts| {
        copies += 1;
        client.send(b"x:1|c").expect("loopback takes it");
        accounts.settle(&carbon, copies);
    };
    send(&mut accounts);
    assert_eq!(accounts.dropped, 1.0);
    assert!(accounts.errors > 0.0);

    socket.listen(16).expect("the socket can listen");
    let listener = TcpListener::from(socket);
    while accounts.sent == 0.0 {
        send(&mut accounts);
    }
    daemon.wait_for_line(&format!("repeater: tcp {address} is back after "));
    let dropped = accounts.dropped;
    let mut first = accepted(&listener);
    send(&mut accounts);
    assert_eq!([line(&mut first), line(&mut first)], ["x:1|c\n"; 2]);

    // It goes away having read everything, and is there again at once: nothing is lost by that.
    drop(first);
    send(&mut accounts);
    let mut second = accepted(&listener);
    send(&mut accounts);
    assert_eq!([line(&mut second), line(&mut second)], ["x:1|c\n"; 2]);
    assert_eq!((accounts.sent, accounts.dropped), (4.0, dropped));
    assert_eq!(daemon.terminate().code(), Some(0));
    assert_eq!(line(&mut second), "", "nothing comes twice");
}

#[test]
fn a_target_without_an_address_costs_only_itself() {
    let carbon = FakeCarbon::start();
    let (target, address) = udp_target("127.0.0.1:0");
    let mut config = config(&carbon, "udp4", &[address, address]);
    // Longer than a label of a name may be: refused by the resolver, whatever the network.
    let host = format!("{}.invalid", "other".repeat(20));
    config["repeater"][0]["host"] = json!(host);
    let daemon = Daemon::start(&config, &[]);
    let said = daemon.wait_for_line("does not resolve");
    assert!(said.contains(&host), "{said}");
    let client = daemon.client();
    for datagram in datagrams() {
        client.send(&datagram).expect("loopback takes it");
        assert_eq!(received(&target), datagram);
    }
    let mut accounts = Accounts::default();
    let count = datagrams().len();
    accounts.settle(&carbon, 2 * count);
    assert_eq!(
        (accounts.sent, accounts.dropped),
        (count as f64, count as f64)
    );
}

/// More than the queue of a target and what lies between two sockets can hold.
const TOO_MANY: usize = 500;

/// A datagram about as long as they get: one line.
fn long_datagram() -> Vec<u8> {
    format!("{}:1|c", "x".repeat(60_000)).into_bytes()
}

#[test]
fn a_target_that_does_not_read_costs_its_own_copies_and_no_more() {
    let carbon = FakeCarbon::start();
    let (reader, reader_at) = tcp_target();
    let (stuck, stuck_at) = tcp_target();
    let mut daemon = Daemon::start(&config(&carbon, "tcp", &[reader_at, stuck_at]), &[]);
    let client = daemon.client();
    let mut reader = accepted(&reader);
    let expected = String::from_utf8([&long_datagram()[..], b"\n"].concat()).expect("ASCII");
    for _ in 0..TOO_MANY {
        client.send(&long_datagram()).expect("loopback takes it");
        assert!(line(&mut reader) == expected, "another datagram came");
    }
    // Now that it reads, what was not dropped arrives.
    let slowly = thread::spawn(move || {
        let mut lines = whole_lines(&mut accepted(&stuck));
        // Others, should the first connection have been given up meanwhile.
        stuck.set_nonblocking(true).expect("a listener can be that");
        while let Ok((mut again, _)) = stuck.accept() {
            again
                .set_nonblocking(false)
                .expect("a stream can be blocking");
            lines += whole_lines(&mut again);
        }
        lines
    });
    let mut accounts = Accounts::default();
    accounts.settle(&carbon, 2 * TOO_MANY);
    assert_eq!(accounts.packets, TOO_MANY as f64);
    assert_eq!(accounts.kernel_drops, 0.0);
    assert!(accounts.dropped > 0.0, "{accounts:?}");
    assert_eq!(daemon.terminate().code(), Some(0));
    let arrived = slowly.join().expect("no panic");
    assert_eq!(accounts.sent, (TOO_MANY + arrived) as f64);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).expect("it ends");
    assert_eq!(rest, b"");
}

/// How many lines come up to the end, a last one that was cut not counted.
fn whole_lines(stream: &mut impl Read) -> usize {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).expect("it ends");
    text.iter().filter(|byte| **byte == b'\n').count()
}

#[test]
fn a_stop_does_not_wait_forever_for_a_target() {
    // A small window, so that little more than the send buffer lies between.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a TCP socket");
    socket
        .set_recv_buffer_size(4096)
        .expect("the window can be set");
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any_port.into()).expect("a free port");
    socket.listen(16).expect("the socket can listen");
    let stuck = TcpListener::from(socket);
    let address = stuck.local_addr().expect("a bound socket has an address");
    let carbon = FakeCarbon::start();
    let mut config = config(&carbon, "tcp", &[address]);
    config["stopDeadline"] = json!(100);
    let mut daemon = Daemon::start(&config, &[]);
    let client = daemon.client();
    let mut accounts = Accounts::default();
    // Fewer than the queue has room for, more than the send buffer has.
    for sent in 1..=200 {
        client.send(&long_datagram()).expect("loopback takes it");
        // Few enough at a time for any receive buffer.
        while sent % 4 == 0 && accounts.packets < f64::from(sent) {
            accounts.add(&carbon.next());
        }
    }
    assert_eq!(daemon.terminate().code(), Some(0));
    let said = daemon.wait_for_line("copies not sent before the stop deadline and lost: ");
    assert!(said.contains(&address.to_string()), "{said}");
    let lost: f64 = said
        .split("and lost: ")
        .nth(1)
        .and_then(|rest| rest.split(';').next()?.parse().ok())
        .expect("a count");
    daemon.wait_for_line(&format!(
        "repeater: {} copies sent, {lost} dropped",
        200.0 - lost
    ));
}
