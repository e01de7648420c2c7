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

mod auto;
mod config;
mod departure;
mod graphite;
mod line;
mod number;
mod spelling;
mod statistics;

pub(crate) use auto::{AutoEffect, auto_effects};
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
    /// Of each value.
    weights: Vec<f64>,
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
    /// Dialect auto: how a name was spelled first, by its kind and with its tags sorted.
    spelled: Option<BTreeMap<(&'static str, String), String>>,
    /// Values with times of their own: Graphite name and time.
    stamped: BTreeMap<(&'static str, String, i64), f64>,
}

impl Reference {
    /// The same in dialect auto.
    pub(crate) fn auto(options: Options) -> Self {
        Self {
            spelled: Some(BTreeMap::new()),
            ..Self::new(options)
        }
    }

    /// Takes one datagram in dialect auto, at a time in Unix seconds.
    pub(crate) fn auto_datagram(&mut self, datagram: &[u8], now: i64) {
        self.count_own("packets_received");
        for line in datagram.split(|&byte| byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            self.count_own("metrics_received");
            for effect in auto_effects(line, self.options.sanitize_names) {
                match effect {
                    AutoEffect::Plain(effect) => self.apply(effect),
                    AutoEffect::Stamped(_, at) if at < now - 3600 || at > now + 600 => {
                        self.count_own("bad_lines_seen");
                    }
                    AutoEffect::Stamped(effect, at) => self.apply_stamped(effect, at),
                    AutoEffect::Event | AutoEffect::Check => {}
                }
            }
        }
    }

    fn apply_stamped(&mut self, effect: Effect, at: i64) {
        match effect {
            Effect::Count { key, value, weight } => {
                let key = self.shown("counter", key);
                *self.stamped.entry(("counter", key, at)).or_insert(0.0) += value * weight;
            }
            Effect::GaugeSet { key, value } => {
                let key = self.shown("gauge", key);
                self.stamped.insert(("gauge", key, at), value);
            }
            other => self.apply(other),
        }
    }

    /// How a name is shown: in dialect auto as the first of those with the same tags.
    fn shown(&mut self, kind: &'static str, key: String) -> String {
        let Some(spelled) = &mut self.spelled else {
            return key;
        };
        let mut tags: Vec<&str> = key.split(';').skip(1).collect();
        tags.sort_unstable();
        let path = key.split(';').next().unwrap_or("");
        let sorted = [&[path], &tags[..]].concat().join(";");
        spelled.entry((kind, sorted)).or_insert(key).clone()
    }

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
            spelled: None,
            stamped: BTreeMap::new(),
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
                let key = self.shown("counter", key);
                let counter = self.counters.entry(key).or_insert(0.0);
                // NaN is as good as missing to JavaScript's `!`.
                if counter.is_nan() {
                    *counter = 0.0;
                }
                *counter += value * weight;
            }
            Effect::Time { key, value, weight } => {
                let key = self.shown("timer", key);
                let timer = self.timers.entry(key).or_default();
                timer.values.push(value);
                timer.weights.push(weight);
                timer.counter += weight;
            }
            Effect::GaugeSet { key, value } => {
                let key = self.shown("gauge", key);
                self.touch_gauge(&key);
                self.gauges.insert(key, value);
            }
            Effect::GaugeAdd { key, value } => {
                let key = self.shown("gauge", key);
                self.touch_gauge(&key);
                let gauge = self.gauges.entry(key).or_insert(0.0);
                if *gauge == 0.0 || gauge.is_nan() {
                    *gauge = value;
                } else {
                    *gauge += value;
                }
            }
            Effect::Member { key, member } => {
                let key = self.shown("set", key);
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
            let is_weighted = timer.weights.iter().any(|weight| *weight != 1.0);
            let fields = if self.spelled.is_some() && is_weighted {
                statistics::weighted_timer(
                    key,
                    &timer.values,
                    &timer.weights,
                    seconds,
                    &self.options,
                )
            } else {
                statistics::timer(key, &timer.values, timer.counter, seconds, &self.options)
            };
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
        for ((kind, key, at), &value) in &self.stamped {
            let mut line = |name, value| lines.push((format!("{name} at {at}"), print(value)));
            if *kind == "gauge" {
                line(names.gauge(key), value);
                continue;
            }
            line(names.counter_rate(key), value / seconds);
            if self.options.flush_counts {
                line(names.counter_count(key), value);
            }
        }
        let stats = self.counters.len() + self.timers.len() + self.gauges.len() + self.sets.len();
        lines.push((names.num_stats(), stats.to_string()));
        lines
    }

    fn reset(&mut self) {
        self.stamped.clear();
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
