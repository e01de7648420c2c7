//! The naive reference: what the server must compute, written to be read and not to be fast.
//!
//! Everything here is plain `split`, `String` and `BTreeMap`. It shares no code with the library, so that the two can
//! be compared: the library is right where it says what this says. This in turn is held against
//! `tests/conformance/statsd.json`, which was recorded from the original Node.js daemon (`tests/oracle.rs`).
//!
//! Departures from the original, all on purpose: a line that makes it exit is a bad line here, and names such as
//! `__proto__` are ordinary names. Left out: what depends on the clock or on the connection (`calculationtime`,
//! `processing_time`, the four other `graphiteStats`).
#![allow(
    dead_code,
    unused_imports,
    reason = "every test binary uses its own part of the reference"
)]

mod config;
mod departure;
mod graphite;
mod line;
mod number;
mod spelling;
mod statistics;

pub(crate) use config::{Bin, Namespace, Options};
pub(crate) use departure::{Departure, departure};
pub(crate) use line::{Effect, effects};
pub(crate) use number::print;
pub(crate) use spelling::Spellings;

use std::collections::{BTreeMap, BTreeSet};

/// A timer: the values of this interval and the number of events they stand for.
#[derive(Debug, Clone, Default)]
struct Timer {
    values: Vec<f64>,
    counter: f64,
}

/// A whole daemon without sockets: datagrams in, Graphite lines out.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    options: Options,
    counters: BTreeMap<String, f64>,
    timers: BTreeMap<String, Timer>,
    gauges: BTreeMap<String, f64>,
    gauges_ttl: BTreeMap<String, i64>,
    sets: BTreeMap<String, BTreeSet<String>>,
    previous_flush: Option<i64>,
}

impl Reference {
    /// A daemon that has just started: its own three counters exist and are 0.
    pub(crate) fn new(options: Options) -> Self {
        let mut counters = BTreeMap::new();
        for name in ["bad_lines_seen", "packets_received", "metrics_received"] {
            counters.insert(format!("{}.{name}", options.prefix_stats), 0.0);
        }
        Self {
            options,
            counters,
            timers: BTreeMap::new(),
            gauges: BTreeMap::new(),
            gauges_ttl: BTreeMap::new(),
            sets: BTreeMap::new(),
            previous_flush: None,
        }
    }

    /// Takes one datagram, empty ones too.
    pub(crate) fn datagram(&mut self, datagram: &[u8]) {
        self.count_own("packets_received");
        for line in datagram.split(|&byte| byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            self.count_own("metrics_received");
            for effect in effects(line, self.options.sanitize_names) {
                self.apply(effect);
            }
        }
    }

    fn count_own(&mut self, name: &str) {
        let key = format!("{}.{name}", self.options.prefix_stats);
        *self.counters.entry(key).or_insert(0.0) += 1.0;
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Count { key, value, weight } => {
                let counter = self.counters.entry(key).or_insert(0.0);
                // NaN is as good as missing to JavaScript's `!`.
                if counter.is_nan() {
                    *counter = 0.0;
                }
                *counter += value * weight;
            }
            Effect::Time { key, value, weight } => {
                let timer = self.timers.entry(key).or_default();
                timer.values.push(value);
                timer.counter += weight;
            }
            Effect::GaugeSet { key, value } => {
                self.touch_gauge(&key);
                self.gauges.insert(key, value);
            }
            Effect::GaugeAdd { key, value } => {
                self.touch_gauge(&key);
                let gauge = self.gauges.entry(key).or_insert(0.0);
                if *gauge == 0.0 || gauge.is_nan() {
                    *gauge = value;
                } else {
                    *gauge += value;
                }
            }
            Effect::Member { key, member } => {
                self.sets.entry(key).or_default().insert(member);
            }
            Effect::Reject(_) => self.count_own("bad_lines_seen"),
        }
    }

    fn touch_gauge(&mut self, key: &str) {
        if self.options.delete_gauges {
            self.gauges_ttl
                .insert(key.to_string(), self.options.gauges_max_ttl);
        }
    }

    /// Ends the interval at `timestamp_ms` (Unix milliseconds): Graphite name -> value as text.
    pub(crate) fn flush(&mut self, timestamp_ms: i64) -> BTreeMap<String, String> {
        self.flush_lines(timestamp_ms).into_iter().collect()
    }

    /// The same with a name that two metrics share kept twice, sorted.
    pub(crate) fn flush_lines(&mut self, timestamp_ms: i64) -> Vec<(String, String)> {
        let timestamp = (timestamp_ms + 500).div_euclid(1000);
        let seconds = self.options.interval_ms / 1000.0;
        if let Some(previous) = self.previous_flush {
            let key = format!("{}.timestamp_lag", self.options.prefix_stats);
            self.gauges
                .insert(key, (timestamp - previous) as f64 - seconds);
        }
        self.previous_flush = Some(timestamp);

        let mut lines = self.encode(seconds);
        lines.sort();
        self.reset();
        lines
    }

    fn encode(&self, seconds: f64) -> Vec<(String, String)> {
        let names = graphite::Names::new(&self.options);
        let mut lines = Vec::new();
        for (key, &value) in &self.counters {
            lines.push((names.counter_rate(key), print(value / seconds)));
            if self.options.flush_counts {
                lines.push((names.counter_count(key), print(value)));
            }
        }
        for (key, timer) in &self.timers {
            let fields =
                statistics::timer(key, &timer.values, timer.counter, seconds, &self.options);
            for (field, value) in fields {
                lines.push((names.timer(key, &field), print(value)));
            }
        }
        for (key, &value) in &self.gauges {
            lines.push((names.gauge(key), print(value)));
        }
        for (key, members) in &self.sets {
            lines.push((names.set(key), members.len().to_string()));
        }
        let stats = self.counters.len() + self.timers.len() + self.gauges.len() + self.sets.len();
        lines.push((names.num_stats(), stats.to_string()));
        lines
    }

    fn reset(&mut self) {
        if self.options.delete_counters {
            self.counters.retain(|key, _| {
                key.contains("packets_received")
                    || key.contains("metrics_received")
                    || key.contains("bad_lines_seen")
            });
        }
        for value in self.counters.values_mut() {
            *value = 0.0;
        }

        if self.options.delete_timers {
            self.timers.clear();
        }
        for timer in self.timers.values_mut() {
            *timer = Timer::default();
        }

        if self.options.delete_sets {
            self.sets.clear();
        }
        for members in self.sets.values_mut() {
            members.clear();
        }

        if self.options.delete_gauges {
            for ttl in self.gauges_ttl.values_mut() {
                *ttl -= 1;
            }
            for (key, &ttl) in &self.gauges_ttl {
                if ttl < 1 {
                    self.gauges.remove(key);
                }
            }
            self.gauges_ttl.retain(|_, ttl| *ttl >= 1);
        }
    }
}
