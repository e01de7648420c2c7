//! The original and our binary side by side: the same configuration, the same datagrams, a carbon for each.
#![allow(
    dead_code,
    reason = "what is here is one tool, whoever uses a part of it"
)]

pub(crate) mod admin;
pub(crate) mod console;
pub(crate) mod traffic;

use crate::daemon::{self, Daemon, FakeCarbon, Lines, Log, Original, original};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Counters in the first and the last datagram of a round: a flush that holds both holds the round,
/// since what one socket sends keeps its order. The daemons' own count of packets does not tell, as
/// traffic may add to it.
const FIRST: &str = "live.first";
pub(crate) const LAST: &str = "live.last";

/// How often a round that a flush cut in two is sent again.
const REPEATS: usize = 6;

/// Says that the tests are skipped when the original cannot be run here.
pub(crate) fn original_is_missing() -> bool {
    let missing = Original::program().err();
    missing
        .inspect(|what| daemon::skip_for_want_of(what))
        .is_some()
}

/// Compares all cases at the same time, prints every difference and then fails.
pub(crate) fn compare_all<C: Sync>(cases: &[C], compare: impl Fn(&C) -> Vec<String> + Sync) {
    if original_is_missing() {
        return;
    }
    let compare = &compare;
    let found: Vec<String> = thread::scope(|scope| {
        let running: Vec<_> = cases
            .iter()
            .map(|case| scope.spawn(move || compare(case)))
            .collect();
        running
            .into_iter()
            .flat_map(|case| case.join().expect("the case ends"))
            .collect()
    });
    report(&found);
}

/// Prints every difference, and fails when there is one.
pub(crate) fn report(differences: &[String]) {
    for difference in differences {
        println!("{difference}");
    }
    assert!(
        differences.is_empty(),
        "{} differences, printed above",
        differences.len()
    );
}

/// A configuration for both.
#[derive(Debug, Clone)]
pub(crate) enum Written {
    /// These options on top of [`daemon::config`].
    Options(Value),
    /// A whole file, in which `PORT`, `ADMIN` and `CARBON` stand for the ports. It flushes every second
    /// and leaves the names of metrics at their defaults.
    File(&'static str),
}

impl Written {
    fn text(&self, port: &Value, admin: &Value, carbon: u16, own: &Value) -> String {
        match self {
            Self::Options(options) => {
                let mut config = daemon::config(carbon);
                config["port"] = port.clone();
                config["mgmt_port"] = admin.clone();
                for options in [options, own] {
                    for (key, value) in options.as_object().expect("options are an object") {
                        config[key] = value.clone();
                    }
                }
                format!("{config:#}\n")
            }
            Self::File(text) => text
                .replace("PORT", &port.to_string())
                .replace("ADMIN", &admin.to_string())
                .replace("CARBON", &carbon.to_string()),
        }
    }

    fn options(&self) -> Value {
        match self {
            Self::Options(options) => options.clone(),
            Self::File(_) => json!({}),
        }
    }
}

/// What one daemon is given and sends.
struct Side {
    carbon: FakeCarbon,
    client: UdpSocket,
    flushes: usize,
    /// When the newest flush was there.
    flushed: Option<Instant>,
    /// Which moments the flushes were of, in Unix seconds.
    moments: Vec<u64>,
}

impl Side {
    fn new(carbon: FakeCarbon, address: SocketAddr) -> Self {
        Self {
            carbon,
            client: daemon::client_of(address),
            flushes: 0,
            flushed: None,
            moments: Vec::new(),
        }
    }

    fn send(&self, datagram: &[u8]) {
        self.client
            .send(datagram)
            .expect("loopback takes the datagram");
    }

    fn next(&mut self) -> Lines {
        let lines = self.carbon.next_lines();
        self.take_note(&lines);
        lines
    }

    fn take_note(&mut self, lines: &Lines) {
        self.flushes += 1;
        self.flushed = Some(lines.arrived);
        self.moments.push(lines.timestamp);
    }

    /// Leaves out the flushes that are there already.
    fn skip(&mut self) {
        for lines in self.carbon.waiting() {
            self.take_note(&lines);
        }
    }

    /// Leaves out flushes up to the one that holds the end of the round, which `last` may be, and those in
    /// which something of it could still live on.
    fn come_to_rest(&mut self, last: Lines, idle: usize) {
        let mut flush = last;
        for _ in 0..10 {
            if touched(&flush, LAST) {
                (0..idle).for_each(|_| drop(self.next()));
                return;
            }
            flush = self.next();
        }
        panic!("the last datagram of a round was never counted: it was lost");
    }
}

/// Both daemons, running.
pub(crate) struct Pair {
    /// The original.
    pub(crate) original: Original,
    /// Our binary.
    pub(crate) daemon: Daemon,
    /// Our admin interface, if there is one.
    admin: Option<SocketAddr>,
    theirs: Side,
    ours: Side,
    options: Value,
    interval: Duration,
}

impl Pair {
    /// Starts both and waits until they listen. Needs [`Original::program`].
    pub(crate) fn start(written: &Written) -> Self {
        Self::start_each(written, &json!({}), &json!({}))
    }

    /// The same with options on top for the original alone, and for our binary alone.
    pub(crate) fn start_each(written: &Written, theirs: &Value, ours: &Value) -> Self {
        let carbon = FakeCarbon::start();
        let original = Original::start(|port, admin| {
            written.text(&json!(port), &json!(admin), carbon.port(), theirs)
        });
        let their_side = Side::new(carbon, original.udp);
        let carbon = FakeCarbon::start();
        let base = daemon::config(carbon.port());
        let text = written.text(&base["port"], &base["mgmt_port"], carbon.port(), ours);
        let daemon = Daemon::start_written(&text, &base["port"]);
        let our_side = Side::new(carbon, daemon.address());
        // Another server in our place does not say where its admin interface is, but was told.
        let told = base["mgmt_port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok());
        let told = told.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        if let Some(admin) = told {
            assert!(
                original::listens(daemon.process(), admin),
                "a port was taken"
            );
        }
        let options = written.options();
        let interval = options["flushInterval"].as_u64().unwrap_or(1000);
        Self {
            original,
            admin: daemon.admin().or(told),
            daemon,
            theirs: their_side,
            ours: our_side,
            options,
            interval: Duration::from_millis(interval),
        }
    }

    /// Sends to both and waits for nothing; `LAST` is behind it.
    pub(crate) fn send(&self, datagrams: &[Vec<u8>]) {
        for side in [&self.theirs, &self.ours] {
            datagrams.iter().for_each(|datagram| side.send(datagram));
            side.send(format!("{LAST}:1|c").as_bytes());
        }
    }

    /// Sends a round to both right after both have flushed. Returns the flush of each that holds it, and
    /// the `idle` flushes after that.
    ///
    /// Each daemon flushes by its own clock. When a flush cuts the round in two on either side, both come
    /// to rest and it is sent again: both have then been given the same once more, in the same order.
    pub(crate) fn round(&mut self, datagrams: &[Vec<u8>], idle: usize) -> Vec<(Lines, Lines)> {
        assert!(
            traffic::fits(datagrams),
            "more than a receive buffer can hold"
        );
        for _ in 0..REPEATS {
            self.wait_for_both();
            for side in [&self.theirs, &self.ours] {
                side.send(format!("{FIRST}:1|c").as_bytes());
                datagrams.iter().for_each(|datagram| side.send(datagram));
                side.send(format!("{LAST}:1|c").as_bytes());
            }
            let pair = self.next();
            let whole = |flush: &Lines| touched(flush, FIRST) && touched(flush, LAST);
            if whole(&pair.0) && whole(&pair.1) {
                let idle = (0..idle).map(|_| self.next());
                return std::iter::once(pair).chain(idle).collect();
            }
            self.theirs.come_to_rest(pair.0, idle);
            self.ours.come_to_rest(pair.1, idle);
        }
        panic!("{REPEATS} rounds in a row were cut in two: this machine is too busy to compare on");
    }

    /// A round all of whose flushes came when they were due: their gauges of the lag are 0 on both sides.
    pub(crate) fn steady_round(
        &mut self,
        datagrams: &[Vec<u8>],
        idle: usize,
    ) -> Vec<(Lines, Lines)> {
        for _ in 0..REPEATS {
            let flushes = self.round(datagrams, idle);
            let lag = |(name, value): &(String, String)| {
                name == "stats.gauges.statsd.timestamp_lag" && value != "0"
            };
            let steady = |flush: &Lines| !flush.values.iter().any(lag);
            if flushes.iter().all(|(a, b)| steady(a) && steady(b)) {
                return flushes;
            }
        }
        panic!("{REPEATS} rounds in a row came late: this machine is too busy to compare on");
    }

    /// The next flush of each.
    pub(crate) fn next(&mut self) -> (Lines, Lines) {
        (self.theirs.next(), self.ours.next())
    }

    /// How many flushes came of each.
    pub(crate) fn flushes(&self) -> (usize, usize) {
        (self.theirs.flushes, self.ours.flushes)
    }

    /// Which moments the flushes of each were of, in Unix seconds.
    pub(crate) fn moments(&self) -> (&[u64], &[u64]) {
        (&self.theirs.moments, &self.ours.moments)
    }

    /// What each prints.
    pub(crate) fn logs(&self) -> (&Log, &Log) {
        (&self.original.process.log, self.daemon.log())
    }

    /// Waits until the newest flush of both is so new that most of an interval is left. It is not the first:
    /// from the second on both have the gauge of their lag.
    pub(crate) fn wait_for_both(&mut self) {
        for _ in 0..100 {
            self.theirs.skip();
            self.ours.skip();
            let older = if self.theirs.flushes < 2 {
                &mut self.theirs
            } else if self.ours.flushes < 2 {
                &mut self.ours
            } else if self.theirs.flushed < self.ours.flushed {
                &mut self.theirs
            } else {
                &mut self.ours
            };
            let since = older.flushed.map(|at| at.elapsed());
            if older.flushes > 1 && since.is_some_and(|since| since < self.interval / 3) {
                return;
            }
            older.next();
        }
        panic!("the two never flush at about the same time");
    }

    /// Every way in which a flush of ours is not that of the original, one line each.
    pub(crate) fn differences(&self, (theirs, ours): &(Lines, Lines)) -> Vec<String> {
        differences(&theirs.values, &ours.values, &self.options)
    }
}

/// Whether a counter has something in it.
pub(crate) fn touched(flush: &Lines, counter: &str) -> bool {
    flush
        .values
        .iter()
        .any(|(name, value)| name.contains(counter) && value != "0")
}

/// Compares names and exact values. With sanitising off several metrics may share a name; their values are
/// compared as a whole.
pub(crate) fn differences(
    theirs: &[(String, String)],
    ours: &[(String, String)],
    options: &Value,
) -> Vec<String> {
    let (theirs, ours) = (by_name(theirs, options), by_name(ours, options));
    let names: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let shown = |values: Option<&Vec<&str>>| {
        values.map_or("nothing".to_owned(), |values| values.join(" and "))
    };
    names
        .into_iter()
        .filter(|name| theirs.get(*name) != ours.get(*name))
        .map(|name| {
            let (theirs, ours) = (shown(theirs.get(name)), shown(ours.get(name)));
            format!("{name:?}: theirs {theirs}, ours {ours}")
        })
        .collect()
}

fn by_name<'f>(flush: &'f [(String, String)], options: &Value) -> BTreeMap<String, Vec<&'f str>> {
    let mut values: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, value) in flush {
        if !daemon::by_clock_or_ours(name, options) {
            values.entry(name.clone()).or_default().push(value);
        }
    }
    values
        .values_mut()
        .for_each(|values| values.sort_unstable());
    values
}
