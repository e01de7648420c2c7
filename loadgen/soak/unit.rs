//! What is sent in one piece, and what it must come to at the server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts by the names of the server's meters.
pub(crate) type Effects = BTreeMap<&'static str, u64>;

/// A datagram, a packet, or some lines of a stream. Its first line is its ticket: a counter of its own, so
/// that the flushes tell how many of it came through.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) bytes: Vec<u8>,
    /// What it adds to the counter `soak.CLASS.v`.
    pub(crate) value: u64,
    /// What one of it adds to the meters.
    pub(crate) effects: Effects,
    /// Gets a line with a name of its own each time it is sent.
    pub(crate) fresh: bool,
}

/// A line, the meters it adds to, and what it adds to `soak.CLASS.v`.
pub(crate) type Line = (String, &'static [(&'static str, u64)], u64);

pub(crate) const COUNTER: &[(&str, u64)] = &[("samples.counters", 1)];

impl Unit {
    /// The unit of this number of a class.
    pub(crate) fn new(class: &str, number: usize, lines: &[Line]) -> Self {
        let mut unit = Self {
            bytes: Vec::new(),
            value: 0,
            effects: Effects::new(),
            fresh: false,
        };
        unit.add(&(format!("soak.{class}.u{number}:1|c"), COUNTER, 0));
        lines.iter().for_each(|line| unit.add(line));
        unit
    }

    fn add(&mut self, (text, effects, value): &Line) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(b'\n');
        self.value += value;
        *self.effects.entry("lines").or_default() += 1;
        for (name, count) in *effects {
            *self.effects.entry(name).or_default() += count;
        }
    }

    /// The same with lines of counters until it is longer than `max` bytes, where the server cuts it. Those
    /// that are whole up to there count.
    pub(crate) fn oversized(class: &str, number: usize, max: usize) -> Self {
        let mut unit = Self::new(class, number, &[]);
        let line = format!("soak.{class}.v:1|c");
        while unit.bytes.len() + line.len() < max {
            unit.add(&(line.clone(), COUNTER, 1));
        }
        while unit.bytes.len() <= max {
            unit.bytes.extend_from_slice(line.as_bytes());
            unit.bytes.push(b'\n');
        }
        unit.effects.insert("truncated", 1);
        unit
    }
}

/// How a class reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Udp,
    Gram,
    Tcp,
    Unix,
    /// Packets behind their lengths, over a unix stream socket.
    Packets,
}

impl Way {
    /// Datagrams that the kernel may drop when a buffer is full; all other ways wait.
    pub(crate) fn may_drop(self) -> bool {
        self == Self::Udp
    }

    pub(crate) fn is_datagrams(self) -> bool {
        matches!(self, Self::Udp | Self::Gram)
    }
}

/// A class of traffic, with what was sent of it.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) name: &'static str,
    pub(crate) way: Way,
    pub(crate) units: Vec<Unit>,
    sent: Vec<AtomicU64>,
}

impl Class {
    pub(crate) fn new(name: &'static str, way: Way, units: Vec<Unit>) -> Self {
        let sent = units.iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            name,
            way,
            units,
            sent,
        }
    }

    /// Notes that the unit of this number was sent.
    pub(crate) fn note(&self, unit: usize) {
        // Relaxed: it only counts; whoever adds up has joined the threads.
        self.sent[unit].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, unit: usize) -> u64 {
        self.sent[unit].load(Ordering::Relaxed)
    }

    pub(crate) fn sent_all(&self) -> u64 {
        (0..self.units.len()).map(|unit| self.sent(unit)).sum()
    }
}

/// What connections come to, beside the units that they carry.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<Effects>);

impl Connections {
    pub(crate) fn note(&self, effects: &[(&'static str, u64)]) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, count) in effects {
            *counts.entry(name).or_default() += count;
        }
    }

    pub(crate) fn effects(&self) -> Effects {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_knows_what_it_comes_to() {
        let lines = [
            ("soak.x.v:2|c".to_owned(), COUNTER, 2),
            ("bad".to_owned(), &[("rejected.no_type", 1)][..], 0),
        ];
        let unit = Unit::new("x", 3, &lines);
        assert_eq!(unit.bytes, b"soak.x.u3:1|c\nsoak.x.v:2|c\nbad\n");
        assert_eq!(unit.value, 2);
        let effects = Effects::from([
            ("lines", 3),
            ("samples.counters", 2),
            ("rejected.no_type", 1),
        ]);
        assert_eq!(unit.effects, effects);
    }

    #[test]
    fn of_an_oversized_unit_the_whole_lines_count() {
        let unit = Unit::oversized("x", 0, 40);
        // 14 bytes of ticket and two lines of 13 are 40.
        assert_eq!(unit.value, 2);
        assert_eq!(unit.bytes.len(), 53);
        assert_eq!(unit.effects["truncated"], 1);
        assert_eq!(unit.effects["samples.counters"], 3);
        let unit = Unit::oversized("x", 0, 39);
        assert_eq!(unit.value, 1);
        assert_eq!(unit.bytes.len(), 40);
    }
}
