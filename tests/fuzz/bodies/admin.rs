//! Commands of any bytes in any pieces: the lines of the whole, each with a reply that has an end.

use crate::pieces::pieces;
use crossbeam::channel::{bounded, never, unbounded};
use crossbeam::queue::ArrayQueue;
use statsd_fast::admin::commands::Commands;
use statsd_fast::admin::{Clerk, Desk, words};
use statsd_fast::flush::{self, Flusher, Link, Order};
use statsd_fast::ingest::packet::Packet;
use statsd_fast::ingest::{self, table::Table};
use statsd_fast::metric::cell::Stamp;
use statsd_fast::metric::harvest::Harvest;
use statsd_fast::metric::registry::Registry;
use statsd_fast::runtime::clock::{Clock, Manual};
use std::sync::Arc;

/// Commands of an input that are answered.
const ASKED: usize = 16;

/// What the server has when it is asked.
const DATAGRAM: &[u8] =
    b"a:1|c\na.b:2|c\nt:1:2:3|ms\nt.u:5|ms\ng:5|g\ng.h:-1|g\ns:x|s\ns.t:y|s\nbad\nworse:|c";

/// The first byte says how long a command may be; the rest is a stream in pieces.
pub(crate) fn check(input: &[u8]) {
    let Some((longest, rest)) = input.split_first() else {
        return;
    };
    let longest = usize::from(*longest);
    let (stream, pieces) = pieces(rest);
    let expected: Vec<String> = lines(stream).collect();
    let (found, too_long) = commands(longest, &pieces);
    if too_long {
        assert_eq!(found, expected[..found.len()]);
        assert!(
            (stream.split(|byte| *byte == b'\n')).any(|line| line.len() > longest),
            "none is longer than {longest}"
        );
    } else {
        assert_eq!(found, expected);
    }
    replies(&found);
}

/// What a command comes to: the words of it. Empty lines are none.
fn command(line: &[u8]) -> Option<String> {
    let text = words(&String::from_utf8_lossy(line)).join(" ");
    Some(text).filter(|text| !text.is_empty())
}

/// The commands of a stream, the last one ended by its end.
fn lines(stream: &[u8]) -> impl Iterator<Item = String> {
    let lines = stream.split(|byte| *byte == b'\n');
    lines.filter_map(command)
}

/// The same as they are found piece by piece, and whether one was too long.
fn commands(longest: usize, pieces: &[&[u8]]) -> (Vec<String>, bool) {
    let mut commands = Commands::new(longest);
    let mut found = Vec::new();
    for piece in pieces {
        assert!(!commands.is_too_long());
        commands.take(piece);
        while let Some(line) = commands.whole() {
            found.extend(command(&line));
        }
        if commands.is_too_long() {
            return (found, true);
        }
    }
    found.extend(command(commands.begun()));
    (found, false)
}

/// Asks a desk, behind which there is a flusher with some of everything.
fn replies(commands: &[String]) {
    let clock = Clock::Manual(Manual::new(1_656_581_500_000));
    let registry = Arc::new(Registry::new());
    let link = Link {
        epoch: Arc::default(),
        full: never(),
        empty: Arc::new(ArrayQueue::new(1)),
        workers: Vec::new(),
    };
    let options = flush::Options::default();
    let mut flusher = Flusher::new(
        options,
        clock.clone(),
        registry.clone(),
        link,
        Arc::default(),
    );
    let mut table = Table::new(&ingest::Options::default(), registry);
    table.begin_batch(Stamp(1));
    let (bytes, truncated) = (DATAGRAM, false);
    ingest::take_packets([Packet { bytes, truncated }].into_iter(), &mut table);
    let mut harvest = Harvest::default();
    table.harvest(&mut harvest);
    flusher.absorb(harvest);

    let (ask, questions) = unbounded();
    let (order, orders) = bounded(1);
    let desk = Desk::new(clock, ask, true);
    std::thread::scope(|scope| {
        let flushing = scope.spawn(|| flusher.run(&orders, &questions, |_| {}));
        for command in commands.iter().take(ASKED) {
            let waits = desk.quiet(command.as_bytes());
            let Some(reply) = desk.reply(command) else {
                assert_eq!(command.split(' ').next(), Some("quit"));
                continue;
            };
            let reply = String::from_utf8(reply).expect("replies are text");
            let first = command.split(' ').next().expect("a command has a word");
            let fits = match first {
                "help" => {
                    reply.starts_with("Commands: ") && reply.ends_with("quit\n\n")
                        || reply.ends_with("meters\n\n")
                }
                "health" => ["health: up\n", "health: down\n"].contains(&&*reply),
                "config" => reply == "\n",
                "top" if reply == "ERROR\n" => true,
                "stats" | "counters" | "timers" | "gauges" | "sets" | "delcounters"
                | "deltimers" | "delgauges" | "delsets" | "top" | "drops" | "meters" => {
                    reply.ends_with("END\n\n") && reply.matches("\n\n").count() == 1
                }
                _ => reply == "ERROR\n" && waits.is_none(),
            };
            assert!(fits, "{command:?}: {reply:?}");
        }
        order.send(Order::Finish).expect("it runs");
        let account = flushing.join().expect("it does not panic");
        assert_eq!(account.rejected_total(), 2);
    });
}
