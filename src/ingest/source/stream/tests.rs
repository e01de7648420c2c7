//! One worker's source with real sockets, driven step by step: the kernel hands over on loopback before the
//! client's call returns, so every step sees exactly what was sent before it.

use super::streams::PIECE;
use super::*;
use crate::ingest::packet::Batch;
use crate::ingest::source::Source;
use crate::ingest::source::inherited::{Arrival, Inherited};
use crate::metric::harvest::{StreamTally, Tally};
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// A TCP listener of one worker.
struct Bench {
    source: AnySource,
    address: SocketAddr,
    batch: Batch,
}

impl Bench {
    fn new(max_line: usize, max_connections: usize) -> Self {
        let options = Options {
            at: At::Tcp {
                address: Some("127.0.0.1".into()),
                port: 0,
            },
            parting: Parting::Lines { max: max_line },
            max_connections,
        };
        let mut listener = bind(&options, 1, &mut Inherited::default()).expect("bind");
        let source = listener.sources.pop().expect("one worker");
        Self {
            address: listener.address.socket().expect("a port"),
            batch: source.batch(),
            source,
        }
    }

    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).expect("connect");
        client.set_nodelay(true).expect("TCP_NODELAY");
        client
    }

    fn packets(&self) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.batch
            .packets()
            .map(|packet| text(packet.bytes))
            .collect()
    }

    /// The packets of what is there.
    fn drain(&mut self) -> Vec<String> {
        let mut packets = Vec::new();
        while self.source.drain(&mut self.batch).expect("drain") {
            packets.extend(self.packets());
        }
        packets
    }

    /// Writes piece by piece; the packets each made.
    fn write(&mut self, client: &mut TcpStream, pieces: &[&str]) -> Vec<String> {
        let mut packets = Vec::new();
        for piece in pieces {
            client.write_all(piece.as_bytes()).expect("write");
            packets.extend(self.drain());
        }
        packets
    }

    fn counts(&mut self) -> StreamTally {
        let mut tally = Tally::default();
        self.source.account(&mut tally);
        tally.streams
    }
}

fn reset(client: TcpStream) {
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .expect("SO_LINGER");
    drop(client);
}

#[test]
fn a_packet_is_what_came_up_to_the_last_newline() {
    let mut bench = Bench::new(65_535, 10);
    let mut client = bench.client();
    let packets = bench.write(&mut client, &["a:1", "|c\nb:2|", "c\nc:3|c"]);
    assert_eq!(packets, ["a:1|c\n", "b:2|c\n"]);
    drop(client);
    assert_eq!(bench.drain(), ["c:3|c"], "the tail at the close");

    let mut client = bench.client();
    assert_eq!(bench.write(&mut client, &["\n\n\n"]), ["\n\n\n"]);
    let bytes: Vec<_> = "slow:1|c\n".chars().map(String::from).collect();
    let bytes: Vec<_> = bytes.iter().map(String::as_str).collect();
    assert_eq!(bench.write(&mut client, &bytes), ["slow:1|c\n"]);
    drop(client);
    assert_eq!(bench.drain(), [""; 0]);
    assert_eq!(
        bench.counts(),
        StreamTally {
            accepted: 2,
            pieces: 5,
            ..StreamTally::default()
        }
    );
}

#[test]
fn a_client_that_shuts_its_side_is_read_to_the_end_and_closed() {
    let mut bench = Bench::new(65_535, 10);
    let mut client = bench.client();
    client.write_all(b"a:1|c\nb:2|c").expect("write");
    client.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(bench.drain(), ["a:1|c\n", "b:2|c"]);
    assert_eq!(client.read(&mut [0]).expect("the server closes"), 0);
}

#[test]
fn a_reset_costs_the_line_it_cuts_and_nobody_else_anything() {
    let mut bench = Bench::new(65_535, 10);
    let (mut other, mut client) = (bench.client(), bench.client());
    other.write_all(b"a:").expect("write");
    // Of what may have been `c:2|ms` or `c:2|c|@0.1`.
    client.write_all(b"b:1|c\nc:2|c").expect("write");
    reset(client);
    assert_eq!(bench.drain(), ["b:1|c\n"]);
    // One that was never accepted, and one that said nothing.
    reset(bench.client());
    let silent = bench.client();
    assert_eq!(bench.drain(), [""; 0]);
    reset(silent);
    assert_eq!(bench.write(&mut other, &["1|c\n"]), ["a:1|c\n"]);
    let counts = bench.counts();
    assert_eq!((counts.accepted, counts.resets), (4, 3));
    assert_eq!(counts.cut_lines, 1);
}

#[test]
fn a_flood_leaves_the_others_their_turn() {
    let mut bench = Bench::new(65_535, 10);
    let (mut loud, mut quiet) = (bench.client(), bench.client());
    bench.drain();
    let lines = "loud:1|c\n".repeat(PIECE);
    loud.set_nonblocking(true).expect("nonblocking");
    let sent = loud.write(lines.as_bytes()).expect("write");
    assert!(sent > 2 * PIECE, "more than two rounds: {sent}");
    quiet.write_all(b"quiet:1|c\n").expect("write");

    assert!(bench.source.drain(&mut bench.batch).expect("drain"));
    let packets = bench.packets();
    assert!(
        packets.contains(&"quiet:1|c\n".into()),
        "in the first round"
    );
    let loud: usize = packets
        .iter()
        .filter(|packet| packet.starts_with("loud"))
        .map(String::len)
        .sum();
    assert!(loud > 0 && loud <= PIECE, "{loud} bytes of {PIECE}");
}

#[test]
fn a_line_too_long_is_dropped_and_the_connection_goes_on() {
    let mut bench = Bench::new(64, 10);
    let mut client = bench.client();
    let long = "x".repeat(100);
    let lines = format!("a:1|c\n{long}:1|c\nb:1|c\n");
    assert_eq!(bench.write(&mut client, &[&lines]), ["a:1|c\nb:1|c\n"]);
    let pieces = ["c:1|c\n", &long, &long, "\nd:1|c\n", &long];
    assert_eq!(bench.write(&mut client, &pieces), ["c:1|c\n", "d:1|c\n"]);
    drop(client);
    assert_eq!(bench.drain(), [""; 0]);
    assert_eq!(bench.counts().long_lines, 3);
    assert_eq!(bench.counts().long_lines, 0, "each is told once");
}

#[test]
fn the_longest_lines_of_a_full_round_fit() {
    let mut bench = Bench::new(65_535, 100);
    let longest = "x".repeat(65_535);
    let mut clients: Vec<_> = (0..80).map(|_| bench.client()).collect();
    bench.drain();
    for client in &mut clients {
        // More than the socket of a client that nobody reads may take at once.
        for piece in longest.as_bytes().chunks(PIECE) {
            client.write_all(piece).expect("write");
            assert_eq!(bench.drain(), [""; 0]);
        }
    }
    for client in &mut clients {
        client.write_all(b"\n").expect("write");
    }
    let packets = bench.drain();
    assert_eq!(packets.len(), clients.len());
    let expected = format!("{longest}\n");
    assert!(packets.iter().all(|packet| *packet == expected));
    assert_eq!(bench.counts().long_lines, 0);
}

#[test]
fn connections_beyond_the_limit_are_closed_until_another_one_ends() {
    let mut bench = Bench::new(65_535, 2);
    let mut first = bench.client();
    let second = bench.client();
    let mut third = bench.client();
    bench.drain();
    assert_eq!(third.read(&mut [0]).expect("closed"), 0);
    drop(second);
    bench.drain();
    let mut fourth = bench.client();
    assert_eq!(bench.write(&mut fourth, &["a:1|c\n"]), ["a:1|c\n"]);
    assert_eq!(bench.write(&mut first, &["b:1|c\n"]), ["b:1|c\n"]);
    let counts = bench.counts();
    assert_eq!((counts.accepted, counts.refused), (3, 1));
}

#[test]
fn lines_that_the_stop_cuts_are_dropped_and_counted() {
    let mut bench = Bench::new(65_535, 1000);
    let clients: Vec<_> = (0..200)
        .map(|n| {
            let mut client = bench.client();
            client
                .write_all(format!("n:1|c\nn{n}:1|c").as_bytes())
                .expect("write");
            // Every second one ended its line, by ending the stream.
            if n % 2 == 0 {
                client.shutdown(Shutdown::Write).expect("shutdown");
            }
            client
        })
        .collect();
    let (whole, ends): (Vec<_>, Vec<_>) = bench
        .drain()
        .into_iter()
        .partition(|packet| packet == "n:1|c\n");
    assert_eq!((whole.len(), ends.len()), (200, 100));
    assert!(!bench.source.finish(), "nobody waits");
    assert_eq!(bench.drain(), [""; 0]);
    assert_eq!(bench.counts().cut_lines, 100);
    for mut client in clients {
        assert_eq!(client.read(&mut [0]).expect("closed"), 0);
    }
}

#[test]
fn an_idle_worker_waits_until_it_is_woken_or_somebody_calls() {
    let mut bench = Bench::new(65_535, 10);
    bench.source.waker().wake();
    bench.source.receive(&mut bench.batch).expect("receive");
    assert_eq!(bench.packets(), [""; 0]);
    let mut client = bench.client();
    client.write_all(b"a:1|c\n").expect("write");
    // The call itself may be all that the first round sees.
    let mut rounds = 0;
    while bench.packets() != ["a:1|c\n"] {
        bench.source.receive(&mut bench.batch).expect("receive");
        rounds += 1;
    }
    assert!(rounds <= 3, "{rounds}");
}

#[test]
fn a_second_listener_is_refused_and_the_port_is_free_again_at_once() {
    let mut bench = Bench::new(65_535, 10);
    let options = Options {
        at: At::Tcp {
            address: Some("127.0.0.1".into()),
            port: bench.address.port(),
        },
        parting: Parting::Lines { max: 64 },
        max_connections: 1,
    };
    let error = bind(&options, 2, &mut Inherited::default())
        .expect_err("taken")
        .to_string();
    let expected = format!("cannot listen on tcp {}: ", bench.address);
    assert!(error.starts_with(&expected), "{error}");
    assert!(
        error.contains("another process listens there (see: ss -ltnp)"),
        "{error}"
    );
    // The server closes first, so its side stays in TIME_WAIT.
    let client = bench.client();
    bench.drain();
    drop(bench);
    drop(client);
    assert_eq!(
        bind(&options, 2, &mut Inherited::default())
            .expect("free again")
            .sources
            .len(),
        2
    );
}

#[test]
fn every_worker_may_accept_from_a_unix_socket() {
    let directory = std::env::temp_dir().join(format!("statsd-fast-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("shared");
    let options = Options {
        at: At::Unix {
            path: path.clone(),
            mode: Some(0o600),
        },
        parting: Parting::Lines { max: 64 },
        max_connections: 1,
    };
    let mut listener = bind(&options, 2, &mut Inherited::default()).expect("bind");
    let mut counts = StreamTally::default();
    for turn in [0, 1] {
        let source = &mut listener.sources[turn];
        let mut client = std::os::unix::net::UnixStream::connect(&path).expect("connect");
        client.write_all(b"a:1|c\n").expect("write");
        drop(client);
        let (mut batch, mut packets) = (source.batch(), 0);
        while source.drain(&mut batch).expect("drain") {
            packets += batch.received();
        }
        assert_eq!(packets, 1, "turn {turn}");
        let mut tally = Tally::default();
        source.account(&mut tally);
        counts.add(&tally.streams);
    }
    assert_eq!((counts.accepted, counts.refused), (2, 0));
    drop(listener.sources.pop());
    assert!(path.exists(), "one worker still has it");
    drop(listener);
    assert!(!path.exists());
    let _ = std::fs::remove_dir(&directory);
}

#[test]
fn a_connection_goes_on_with_a_successor_in_the_middle_of_a_line() {
    let (mut before, mut after) = (Bench::new(64, 10), Bench::new(64, 10));
    let mut client = before.client();
    assert_eq!(before.write(&mut client, &["a:1|c\nb:2"]), ["a:1|c\n"]);
    let arrivals = after.source.seat().arrivals.expect("one of streams");
    for open in before.source.connections() {
        let socket = open.socket.try_clone_to_owned().expect("a copy");
        let (held, skipping) = (open.held.to_vec(), open.skipping);
        let arrival = Arrival {
            socket,
            held,
            skipping,
        };
        arrivals.send(arrival).expect("it is open");
    }
    assert_eq!(after.source.connections().count(), 0);
    after.source.waker().wake();
    client.write_all(b"|c\nc:3|c\n").expect("write");
    // A drain that finds the connection reads it, too: at a stop nobody would later.
    assert_eq!(after.drain(), ["b:2|c\nc:3|c\n"]);
    assert_eq!(
        after.counts(),
        StreamTally {
            pieces: 1,
            ..StreamTally::default()
        },
        "it was accepted once"
    );
    drop(client);
    after.source.take_arrivals();
    assert_eq!(after.source.connections().count(), 1);
}
