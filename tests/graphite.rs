//! Delivery to a carbon that is away, hangs, resets or starts anew: nothing lost, in order, and what
//! must be lost is counted. Backends are fed with snapshots made here, or by a server in this process.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{DEADLINE, FakeCarbon, Flush, client_of, deaf_socket, pickle};
use socket2::{SockRef, Socket};
use statsd_fast::config;
use statsd_fast::deliver::graphite::{Options, Protocol};
use statsd_fast::deliver::outbox::Limits;
use statsd_fast::deliver::{Backend, Outboxes, Runners, repeater};
use statsd_fast::metric::meter::{Count, Outside};
use statsd_fast::metric::snapshot::{Counter, Gauge, Snapshot};
use statsd_fast::runtime::clock::{Clock, Manual};
use statsd_fast::server::Server;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Where the clock of every test stands, Unix seconds.
const NOW: u64 = 1_700_000_000;

/// One Graphite backend and what feeds it.
struct Delivery {
    outboxes: Outboxes,
    runners: Runners,
    outside: Arc<Outside>,
}

impl Delivery {
    fn start(options: Options, limits: Limits) -> Self {
        let outside = Arc::new(Outside::default());
        let clock = Clock::Manual(Manual::new(NOW * 1000));
        let backends = [Backend::Graphite(options)];
        let runners =
            Runners::start(&backends, limits, &clock, &outside).expect("a thread for the backend");
        Self {
            outboxes: runners.outboxes(),
            runners,
            outside,
        }
    }

    fn put(&self, snapshot: Snapshot) {
        self.outboxes.put(&Arc::new(snapshot));
    }

    /// A number the backend says of itself.
    fn status(&self, name: &str) -> i64 {
        let statuses = self.runners.statuses();
        let fields = statuses[0].fields();
        let field = fields.iter().find(|(known, _)| *known == name);
        field.unwrap_or_else(|| panic!("no {name} in {fields:?}")).1
    }

    /// Closes the outbox and returns how many flushes were delivered and dropped.
    fn finish(self) -> [u64; 2] {
        let dropped = self.runners.finish(Instant::now() + DEADLINE);
        assert_eq!(dropped, self.outside.flushes_dropped.total());
        [self.outside.flushes_delivered.total(), dropped]
    }
}

/// Waits until a count reaches a value, which it must not pass.
fn wait_for(count: &Count, value: u64) {
    let start = Instant::now();
    while count.total() < value {
        assert!(start.elapsed() < DEADLINE, "it is {}", count.total());
        thread::yield_now();
    }
    assert_eq!(count.total(), value);
}

fn options(port: u16) -> Options {
    Options {
        host: Some("127.0.0.1".into()),
        port,
        ..Options::default()
    }
}

fn persistent(port: u16) -> Options {
    Options {
        persistent: true,
        ..options(port)
    }
}

/// A flush stamped `timestamp`, with a gauge of that value.
fn flush(timestamp: u64) -> Snapshot {
    Snapshot {
        timestamp: timestamp.cast_signed(),
        gauges: vec![Gauge {
            name: "stamp".into(),
            value: timestamp as f64,
        }],
        ..Snapshot::default()
    }
}

/// A flush with more than that: `names` counters.
fn large(timestamp: u64, names: usize) -> Snapshot {
    let counter = |number| Counter {
        name: format!("{number:0>100}").into(),
        value: number as f64,
        rate: number as f64 / 10.0,
    };
    Snapshot {
        counters: (0..names).map(counter).collect(),
        ..flush(timestamp)
    }
}

fn listening() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener
        .local_addr()
        .expect("a bound socket has an address");
    (listener, address.port())
}

/// A connection to carbon that stays open, read flush by flush.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().expect("the backend connects");
        let patience = stream.set_read_timeout(Some(DEADLINE));
        patience.expect("a read can time out");
        Self(BufReader::new(stream))
    }

    fn next(&mut self) -> Flush {
        let mut payload = Vec::new();
        loop {
            let from = payload.len();
            let read = self.0.read_until(b'\n', &mut payload);
            assert_ne!(read.expect("a line"), 0, "closed amid a flush");
            let line = String::from_utf8_lossy(&payload[from..]);
            if line.contains("graphiteStats.flush_length ") {
                return Flush::parse(payload).expect("a whole flush");
            }
        }
    }

    fn stamp(&mut self) -> u64 {
        stamp(&self.next())
    }

    /// Waits until more has come, and leaves it unread.
    fn wait_for_more(&self) {
        assert_eq!(self.0.buffer(), b"");
        assert_eq!(self.0.get_ref().peek(&mut [0]).expect("a byte"), 1);
    }

    /// Reads to the end of the connection, where nothing must be left.
    fn expect_end(mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("an orderly end");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// Ends it as a carbon that was killed, whatever was unread.
    fn reset(self) {
        let stream = self.0.into_inner();
        let linger = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        linger.expect("a connection can be reset");
    }
}

/// The time of a flush made by [`flush`] or [`large`], which its gauge has to confirm.
fn stamp(flush: &Flush) -> u64 {
    assert_eq!(
        flush.values["stats.gauges.stamp"],
        flush.timestamp.to_string()
    );
    flush.timestamp
}

/// What does not depend on when and how a flush was delivered.
fn lasting(flush: &Flush) -> BTreeMap<&str, &str> {
    let passing = ["graphiteStats.", "processing_time", "statsd_fast."];
    let values = flush.values.iter();
    values
        .filter(|(name, _)| !passing.iter().any(|part| name.contains(part)))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

#[test]
fn whole_intervals_wait_for_carbon_and_arrive_in_order() {
    let (socket, address) = deaf_socket();
    let port = address.port();
    let witness = FakeCarbon::start();
    let text = format!(
        "{{ address: '127.0.0.1', port: '0', mgmt_port: '0', pinThreads: false, graphiteHost: '127.0.0.1', \
         graphitePort: {port}, threads: 2 }}"
    );
    let mut loaded = config::parse(&text, "config").expect("a configuration");
    // It sees each flush at once, so the clock can move on.
    loaded
        .config
        .backends
        .push(Backend::Graphite(options(witness.port())));
    let clock = Manual::new(NOW * 1000);
    let server = Server::start(loaded, Clock::Manual(clock.clone())).expect("it starts");
    let client = client_of(server.addresses()[0].socket().expect("a UDP listener"));
    let mut seen = Vec::new();
    for round in 1..=6 {
        let sent = client.send(format!("c:{round}|c\ng:{round}|g\nt:{round}|ms").as_bytes());
        sent.expect("loopback takes it");
        clock.advance(Duration::from_secs(10));
        let flush = witness.next();
        assert_eq!(flush.timestamp, NOW + 10 * round);
        assert_eq!(flush.count("c"), round as f64);
        seen.push(flush);
    }
    socket.listen(16).expect("the socket can listen");
    let carbon = FakeCarbon::accept_on(TcpListener::from(socket));
    for expected in &seen {
        let flush = carbon.next();
        assert_eq!(flush.timestamp, expected.timestamp);
        assert_eq!(lasting(&flush), lasting(expected));
    }
    let totals = server.stop();
    assert_eq!(lasting(&carbon.next()), lasting(&witness.next()));
    assert_eq!(totals.flushes_dropped, 0);
}

#[test]
fn the_statistics_of_the_backend_are_those_of_the_flush_before() {
    let (socket, address) = deaf_socket();
    let port = address.port();
    let delivery = Delivery::start(options(port), Limits::default());
    assert_eq!(delivery.status("last_exception"), 0);
    delivery.put(flush(1));
    delivery.put(large(2, 100));
    delivery.put(flush(3));
    let start = Instant::now();
    while delivery.status("last_exception") == 0 {
        assert!(start.elapsed() < DEADLINE, "nothing failed");
        thread::yield_now();
    }
    socket.listen(16).expect("the socket can listen");
    let carbon = FakeCarbon::accept_on(TcpListener::from(socket));
    let mut length = 0;
    for timestamp in 1..=3 {
        let flush = carbon.next();
        assert_eq!(stamp(&flush), timestamp);
        let stat = |name| flush.number(&format!("stats.statsd.graphiteStats.{name}"));
        assert_eq!(stat("last_exception"), NOW as f64);
        assert_eq!(stat("last_flush"), NOW as f64);
        assert_eq!(stat("flush_length"), length as f64);
        length = flush.length;
    }
    wait_for(&delivery.outside.flushes_delivered, 3);
    assert_eq!(delivery.status("last_exception"), NOW.cast_signed());
    assert_eq!(delivery.status("last_flush"), NOW.cast_signed());
    assert_eq!(delivery.status("flush_length"), length as i64);
    assert!(delivery.outside.deliveries_failed.total() > 0);
    assert_eq!(delivery.finish(), [3, 0]);
}

#[test]
fn the_outbox_drops_the_oldest_and_counts_them() {
    let (socket, address) = deaf_socket();
    let port = address.port();
    let limits = Limits {
        flushes: 3,
        ..Limits::default()
    };
    let delivery = Delivery::start(options(port), limits);
    (1..=8).for_each(|timestamp| delivery.put(flush(timestamp)));
    // The one that was on its way, too, once it has failed.
    wait_for(&delivery.outside.flushes_dropped, 5);
    socket.listen(16).expect("the socket can listen");
    let carbon = FakeCarbon::accept_on(TcpListener::from(socket));
    let arrived: Vec<_> = (0..3).map(|_| stamp(&carbon.next())).collect();
    assert_eq!(arrived, [6, 7, 8]);
    assert_eq!(delivery.finish(), [3, 5]);
}

#[test]
fn the_memory_of_what_waits_is_limited() {
    let (socket, address) = deaf_socket();
    let port = address.port();
    let limits = Limits {
        bytes: 2 * large(0, 1000).memory(),
        ..Limits::default()
    };
    let delivery = Delivery::start(options(port), limits);
    (1..=5).for_each(|timestamp| delivery.put(large(timestamp, 1000)));
    wait_for(&delivery.outside.flushes_dropped, 3);
    socket.listen(16).expect("the socket can listen");
    let carbon = FakeCarbon::accept_on(TcpListener::from(socket));
    let arrived: Vec<_> = (0..2).map(|_| stamp(&carbon.next())).collect();
    assert_eq!(arrived, [4, 5]);
    assert_eq!(delivery.finish(), [2, 3]);
}

#[test]
fn a_stop_waits_for_no_carbon_that_is_away() {
    let (_socket, address) = deaf_socket();
    let port = address.port();
    for options in [options(port), persistent(port)] {
        let delivery = Delivery::start(options, Limits::default());
        (1..=3).for_each(|timestamp| delivery.put(flush(timestamp)));
        // Long before its deadline, or this would fail.
        let started = Instant::now();
        assert_eq!(delivery.finish(), [0, 3]);
        assert!(started.elapsed() < DEADLINE);
    }
}

#[test]
fn a_flush_cut_by_a_reset_is_sent_again_whole() {
    for keep in [false, true] {
        let (socket, address) = deaf_socket();
        let port = address.port();
        socket.listen(16).expect("the socket can listen");
        let listener = TcpListener::from(socket);
        let delivery = Delivery::start(
            Options {
                persistent: keep,
                ..options(port)
            },
            Limits::default(),
        );
        delivery.put(large(1, 20_000));
        let mut cut = Connection::accept(&listener);
        cut.0.read_exact(&mut [0; 100_000]).expect("the beginning");
        cut.reset();
        let mut whole = Connection::accept(&listener);
        let flush = whole.next();
        assert_eq!(stamp(&flush), 1);
        assert_eq!(flush.count(&format!("{:0>100}", 19_999)), 19_999.0);
        assert_eq!(flush.values.len(), 2 * 20_000 + 8);
        let finish = thread::spawn(|| delivery.finish());
        whole.expect_end();
        assert_eq!(finish.join().expect("no panic"), [1, 0]);
    }
}

#[test]
fn what_a_peer_resets_or_leaves_unread_is_sent_again() {
    let (listener, port) = listening();
    let delivery = Delivery::start(options(port), Limits::default());
    (1..=3).for_each(|timestamp| delivery.put(flush(timestamp)));
    // At once, whether anything has come yet or not; in the end it was carbon after all.
    for reset in [true, false, true, false] {
        let connection = Connection::accept(&listener);
        if reset {
            connection.reset();
        }
    }
    let carbon = FakeCarbon::accept_on(listener);
    let arrived: Vec<_> = (0..3).map(|_| stamp(&carbon.next())).collect();
    assert_eq!(arrived, [1, 2, 3]);
    wait_for(&delivery.outside.flushes_delivered, 3);
    assert_eq!(delivery.outside.deliveries_failed.total(), 4);
    assert_eq!(delivery.finish(), [3, 0]);
}

#[test]
fn a_peer_that_does_not_close_gets_each_flush_once() {
    // Having read it, or never having accepted the connection: its kernel has it.
    for accepts in [true, false] {
        let (listener, port) = listening();
        let delivery = Delivery::start(options(port), Limits::default());
        (1..=9).for_each(|timestamp| delivery.put(flush(timestamp)));
        let mut open = Vec::new();
        for timestamp in (1..=9).filter(|_| accepts) {
            let mut connection = Connection::accept(&listener);
            assert_eq!(connection.stamp(), timestamp);
            open.push(connection);
        }
        wait_for(&delivery.outside.flushes_delivered, 9);
        assert_eq!(delivery.outside.deliveries_failed.total(), 0);
        assert_eq!(delivery.finish(), [9, 0]);
        // Our end of each is gone.
        open.into_iter().for_each(Connection::expect_end);
    }
}

#[test]
fn a_connection_is_kept_from_flush_to_flush() {
    let (listener, port) = listening();
    let delivery = Delivery::start(persistent(port), Limits::default());
    delivery.put(flush(1));
    let mut connection = Connection::accept(&listener);
    assert_eq!(connection.stamp(), 1);
    let mut length = 0;
    for timestamp in 2..=5 {
        delivery.put(flush(timestamp));
        let flush = connection.next();
        assert_eq!(stamp(&flush), timestamp);
        let told = flush.number("stats.statsd.graphiteStats.flush_length");
        assert!(length == 0 || told == length as f64, "{told}, not {length}");
        length = flush.length;
    }
    // The end waits for carbon to have seen it.
    let finish = thread::spawn(|| delivery.finish());
    connection.expect_end();
    assert_eq!(finish.join().expect("no panic"), [5, 0]);
    let nobody = listener
        .set_nonblocking(true)
        .and_then(|()| listener.accept());
    assert!(nobody.is_err(), "one connection was enough");
}

#[test]
fn a_flush_that_may_have_been_lost_with_its_connection_is_sent_again() {
    // In order or not, having read the flush or not: the backend cannot know what carbon read.
    for (read, reset) in [(true, false), (true, true), (false, true)] {
        let (listener, port) = listening();
        let delivery = Delivery::start(persistent(port), Limits::default());
        delivery.put(flush(1));
        let mut first = Connection::accept(&listener);
        assert_eq!(first.stamp(), 1);
        delivery.put(flush(2));
        first.wait_for_more();
        if read {
            assert_eq!(first.stamp(), 2);
        }
        if reset {
            first.reset();
        } else {
            drop(first);
        }
        delivery.put(flush(3));
        let mut second = Connection::accept(&listener);
        let arrived = [second.stamp(), second.stamp()];
        assert_eq!(arrived, [2, 3], "read {read}, reset {reset}");
        let finish = thread::spawn(|| delivery.finish());
        second.expect_end();
        assert_eq!(finish.join().expect("no panic"), [3, 0]);
    }
}

#[test]
fn the_last_flush_survives_a_carbon_that_dies_with_us() {
    let (listener, port) = listening();
    let delivery = Delivery::start(persistent(port), Limits::default());
    delivery.put(flush(1));
    let mut first = Connection::accept(&listener);
    assert_eq!(first.stamp(), 1);
    delivery.put(flush(2));
    first.wait_for_more();
    // Nobody reads it.
    first.reset();
    let finish = thread::spawn(|| delivery.finish());
    let mut second = Connection::accept(&listener);
    assert_eq!(second.stamp(), 2);
    second.expect_end();
    assert_eq!(finish.join().expect("no panic"), [2, 0]);
}

#[test]
fn a_flush_that_was_on_its_way_at_the_end_counts_once() {
    let (listener, port) = listening();
    let delivery = Delivery::start(persistent(port), Limits::default());
    (1..=2).for_each(|timestamp| delivery.put(flush(timestamp)));
    let mut connection = Connection::accept(&listener);
    assert_eq!([connection.stamp(), connection.stamp()], [1, 2]);
    delivery.put(flush(3));
    connection.wait_for_more();
    drop(listener);
    connection.reset();
    assert_eq!(delivery.finish(), [2, 1], "nobody knows of the last one");
}

#[test]
fn a_flush_that_was_on_its_way_at_a_reload_goes_to_the_next_carbon() {
    let (listener, port) = listening();
    let mut delivery = Delivery::start(persistent(port), Limits::default());
    delivery.put(flush(1));
    let connection = Connection::accept(&listener);
    connection.wait_for_more();
    drop(listener);
    connection.reset();
    let carbon = FakeCarbon::start();
    let next = [Backend::Graphite(options(carbon.port()))];
    let exchanged = delivery.runners.exchange(&next, Limits::default());
    exchanged.expect("a thread for the next backend");
    assert_eq!(stamp(&carbon.next()), 1);
    assert_eq!(delivery.finish(), [1, 0]);
}

/// A repeater with so much to send to somebody who never reads that it is stuck.
fn stuck_repeater() -> (Socket, Backend, Vec<u8>) {
    let (socket, address) = deaf_socket();
    socket.listen(16).expect("the socket can listen");
    let target = repeater::Target {
        host: address.ip().to_string(),
        port: address.port(),
    };
    let options = repeater::Options {
        targets: vec![target],
        protocol: repeater::Protocol::Tcp,
    };
    (socket, Backend::Repeater(options), vec![b'x'; 60_000])
}

#[test]
fn a_stop_has_time_for_carbon_whatever_the_repeater_does() {
    let (away, away_at) = deaf_socket();
    let (listener, port) = listening();
    let (_stuck, repeater, datagram) = stuck_repeater();
    let outside = Arc::new(Outside::default());
    let clock = Clock::Manual(Manual::new(NOW * 1000));
    let backends = [
        Backend::Graphite(options(away_at.port())),
        Backend::Graphite(persistent(port)),
        repeater,
    ];
    let mut runners = Runners::start(&backends, Limits::default(), &clock, &outside)
        .expect("a thread for each backend");
    runners.outboxes().put(&Arc::new(flush(1)));
    let mut kept = Connection::accept(&listener);
    assert_eq!(kept.stamp(), 1);
    let feed = runners.copies().expect("a repeater");
    for _ in 0..200 {
        assert_eq!(feed.offer([&datagram[..]].into_iter()), 0);
    }
    drop(feed);
    // The pause that follows is longer than the stop may take.
    wait_for(&outside.deliveries_failed, 6);
    away.listen(16).expect("the socket can listen");
    let back = FakeCarbon::accept_on(TcpListener::from(away));
    kept.reset();
    let finish = thread::spawn(move || runners.finish(Instant::now() + Duration::from_secs(3)));
    let mut again = Connection::accept(&listener);
    assert_eq!(again.stamp(), 1);
    again.expect_end();
    assert_eq!(stamp(&back.next()), 1);
    assert_eq!(finish.join().expect("no panic"), 0);
    assert_eq!(outside.flushes_delivered.total(), 2);
    assert!(outside.copies_dropped.total() > 0, "it was stuck");
}

/// The payload of one connection.
fn received(listener: &TcpListener) -> Vec<u8> {
    let (mut stream, _) = listener.accept().expect("the backend connects");
    let mut payload = Vec::new();
    stream.read_to_end(&mut payload).expect("a payload");
    payload
}

#[test]
fn pickled_values_are_those_of_the_lines() {
    let (lines, text_port) = listening();
    let (frames, pickle_port) = listening();
    let text = Options {
        sanitize_names: true,
        ..options(text_port)
    };
    let pickled = Options {
        protocol: Protocol::Pickle,
        port: pickle_port,
        ..text.clone()
    };
    let (text, pickled) = (
        Delivery::start(text, Limits::default()),
        Delivery::start(pickled, Limits::default()),
    );
    let mut length = 0;
    // More than one frame; and a name of which every part could be taken for something else.
    for (timestamp, names, frames_expected) in [(1, 4, 1), (2, 6000, 2), (3, 4, 1)] {
        let mut snapshot = large(timestamp, names);
        snapshot.gauges.push(Gauge {
            name: "o'k\\;a='b\\'\\n;c=\u{e9}\u{1f600}\t'".into(),
            value: f64::NEG_INFINITY,
        });
        text.put(snapshot.clone());
        pickled.put(snapshot);
        let told = String::from_utf8(received(&lines)).expect("text");
        let told: Vec<_> = told
            .lines()
            .map(|line| {
                let mut fields = line.rsplitn(3, ' ').map(String::from);
                let mut field = || fields.next().expect("three fields");
                let (time, value) = (field(), field());
                (field(), time.parse().expect("a time"), value)
            })
            .collect();
        let payload = received(&frames);
        let found = pickle::frames(&payload).expect("frames as StatsD writes them");
        assert_eq!(found.len(), frames_expected);
        let found = found.concat();
        assert_eq!(found.len(), told.len());
        for (found, told) in found.iter().zip(&told) {
            assert_eq!((&found.0, found.1), (&told.0, told.1));
            match found.0.as_str() {
                "stats.statsd.graphiteStats.flush_length" => {
                    assert_eq!(found.2, length.to_string());
                }
                name if name.contains("time") => {}
                _ => assert_eq!(found.2, told.2, "{}", found.0),
            }
        }
        length = payload.len();
    }
    assert_eq!(text.finish(), [3, 0]);
    assert_eq!(pickled.finish(), [3, 0]);
}
