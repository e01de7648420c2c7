//! The Graphite backend: names and values as the reference spells them, plaintext, one fresh
//! connection a flush.

use super::{number, sink};
use crate::metric::name::cleaned;
use crate::metric::snapshot::Snapshot;
use crate::runtime::clock::{Clock, rounded_seconds};
use std::borrow::Cow;
use std::io;
use std::time::Instant;

/// How names are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Namespace {
    /// `graphite.legacyNamespace: true`, the default: `stats.K`, `stats_counts.K`; the five prefixes are
    /// ignored.
    #[default]
    Legacy,
    /// `graphite.legacyNamespace: false`: `G.C.K.rate`, `G.C.K.count`.
    Prefixed,
    /// Any other value of `legacyNamespace`: legacy namespaces, `.rate`/`.count` endings,
    /// `stats.PS.numStats`.
    Hybrid,
}

/// How values travel to carbon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// A line for each value.
    #[default]
    Text,
    /// A pickled list for each flush.
    Pickle,
}

/// Everything that shapes names, values and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where carbon listens; `None` computes nothing and sends nothing, as the reference (`graphiteHost`).
    pub host: Option<String>,
    /// Its port for that protocol (`graphitePort`, `graphitePicklePort`).
    pub port: u16,
    /// How values travel (`graphiteProtocol`).
    pub protocol: Protocol,
    /// Keep one connection for all flushes (`graphite.persistent`).
    pub persistent: bool,
    /// How names are built (`graphite.legacyNamespace`).
    pub namespace: Namespace,
    /// `graphite.globalPrefix`.
    pub global_prefix: String,
    /// `graphite.prefixCounter`.
    pub prefix_counter: String,
    /// `graphite.prefixTimer`.
    pub prefix_timer: String,
    /// `graphite.prefixGauge`.
    pub prefix_gauge: String,
    /// `graphite.prefixSet`.
    pub prefix_set: String,
    /// `graphite.globalSuffix`; `Some("")` gives a trailing dot, as the reference.
    pub global_suffix: Option<String>,
    /// `prefixStats`.
    pub prefix_stats: String,
    /// Send counts beside rates (`flush_counts`).
    pub flush_counts: bool,
    /// Clean names again here, because they were kept verbatim (`keyNameSanitize: false`).
    pub sanitize_names: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: None,
            port: 2003,
            protocol: Protocol::Text,
            persistent: false,
            namespace: Namespace::Legacy,
            global_prefix: "stats".into(),
            prefix_counter: "counters".into(),
            prefix_timer: "timers".into(),
            prefix_gauge: "gauges".into(),
            prefix_set: "sets".into(),
            global_suffix: None,
            prefix_stats: "statsd".into(),
            flush_counts: true,
            sanitize_names: false,
        }
    }
}

/// What stands before and after a key, worked out once.
#[derive(Debug)]
struct Names {
    /// Before a counter's rate, and before its count; a trailing dot included.
    rate: String,
    count: String,
    /// After them.
    rate_end: &'static str,
    count_end: &'static str,
    timer: String,
    gauge: String,
    set: String,
    /// Before `numStats`, and before the rest of the daemon's own.
    num_stats: String,
    own: String,
    own_fast: String,
    suffix: String,
}

impl Names {
    fn new(options: &Options) -> Self {
        // An empty element is dropped, dot and all.
        let path = |elements: &[&str]| {
            let elements = elements.iter().filter(|element| !element.is_empty());
            elements.fold(String::new(), |path, element| path + element + ".")
        };
        let prefixed = options.namespace == Namespace::Prefixed;
        let global = if prefixed {
            options.global_prefix.as_str()
        } else {
            "stats"
        };
        let kind = |prefix: &str, legacy: &str| {
            if prefixed {
                path(&[global, prefix])
            } else {
                path(&[global, legacy])
            }
        };
        let counter = kind(&options.prefix_counter, "");
        let legacy = options.namespace == Namespace::Legacy;
        // The reference joins these with a dot whatever prefixStats is, so an empty one leaves its dot.
        let own = format!("{}{}.", path(&[global]), options.prefix_stats);
        Self {
            count: if legacy {
                "stats_counts.".into()
            } else {
                counter.clone()
            },
            rate: counter,
            rate_end: if legacy { "" } else { ".rate" },
            count_end: if legacy { "" } else { ".count" },
            timer: kind(&options.prefix_timer, "timers"),
            gauge: kind(&options.prefix_gauge, "gauges"),
            set: kind(&options.prefix_set, "sets"),
            num_stats: if legacy {
                format!("{}.", options.prefix_stats)
            } else {
                own.clone()
            },
            own,
            own_fast: path(&[global, "statsd_fast"]),
            suffix: options
                .global_suffix
                .as_ref()
                .map_or_else(String::new, |suffix| format!(".{suffix}")),
        }
    }
}

/// The bytes of a flush being written: one `name value timestamp` a line.
struct Lines<'a> {
    out: &'a mut Vec<u8>,
    suffix: &'a [u8],
    timestamp: String,
}

impl<'a> Lines<'a> {
    fn new(out: &'a mut Vec<u8>, suffix: &'a str, timestamp: i64) -> Self {
        Self {
            out,
            suffix: suffix.as_bytes(),
            timestamp: format!(" {timestamp}\n"),
        }
    }

    /// `prefix` + key without tags + `field` + suffix + tags.
    fn line(&mut self, prefix: &str, key: &Key<'_>, ending: [&str; 2], value: f64) {
        self.out.extend_from_slice(prefix.as_bytes());
        self.out.extend_from_slice(key.path.as_bytes());
        self.out.extend_from_slice(ending[0].as_bytes());
        self.out.extend_from_slice(ending[1].as_bytes());
        self.out.extend_from_slice(self.suffix);
        self.out.extend_from_slice(key.tags.as_bytes());
        self.out.push(b' ');
        number::write(self.out, value);
        self.out.extend_from_slice(self.timestamp.as_bytes());
    }
}

/// A stored name as Graphite wants it: the path, and the tags that go behind the suffix.
struct Key<'a> {
    path: Cow<'a, str>,
    tags: &'a str,
}

impl<'a> Key<'a> {
    fn new(name: &'a str, sanitize: bool) -> Self {
        let (path, tags) = name.split_at(name.find(';').unwrap_or(name.len()));
        let path = if sanitize {
            cleaned(path).into()
        } else {
            path.into()
        };
        Self { path, tags }
    }
}

/// Encodes snapshots. Pure: bytes in a buffer, no clock but the one that measures itself.
#[derive(Debug)]
pub struct Encoder {
    names: Names,
    flush_counts: bool,
    sanitize: bool,
}

impl Encoder {
    /// Works the names out.
    pub fn new(options: &Options) -> Self {
        Self {
            names: Names::new(options),
            flush_counts: options.flush_counts,
            sanitize: options.sanitize_names,
        }
    }

    /// Appends every line of a flush but the four of [`Encoder::encode_status`].
    pub fn encode(&self, snapshot: &Snapshot, out: &mut Vec<u8>) {
        let began = Instant::now();
        let names = &self.names;
        let key = |name| Key::new(name, self.sanitize);
        let mut lines = Lines::new(out, &names.suffix, snapshot.timestamp);
        for counter in &snapshot.counters {
            let key = key(&counter.name);
            lines.line(&names.rate, &key, [names.rate_end, ""], counter.rate);
            if self.flush_counts {
                lines.line(&names.count, &key, [names.count_end, ""], counter.value);
            }
        }
        for timer in &snapshot.timers {
            let key = key(&timer.name);
            for statistic in &snapshot.statistics[timer.statistics.clone()] {
                let field = &snapshot.fields[statistic.field as usize];
                lines.line(&names.timer, &key, [".", field], statistic.value);
            }
        }
        for gauge in &snapshot.gauges {
            lines.line(&names.gauge, &key(&gauge.name), ["", ""], gauge.value);
        }
        for set in &snapshot.sets {
            lines.line(
                &names.set,
                &key(&set.name),
                [".count", ""],
                set.members.len() as f64,
            );
        }
        let mut own = |prefix, name: &str, value| {
            lines.line(
                prefix,
                &Key {
                    path: name.into(),
                    tags: "",
                },
                ["", ""],
                value,
            )
        };
        own(&names.num_stats, "numStats", snapshot.num_stats() as f64);
        own(
            &names.own,
            "graphiteStats.calculationtime",
            began.elapsed().as_millis() as f64,
        );
        own(&names.own, "processing_time", snapshot.processing_ms as f64);
        for metric in &snapshot.self_metrics {
            own(&names.own_fast, metric.name, metric.value);
        }
    }

    /// Appends what became of the flush before this one, stamped with the moment of connecting.
    pub fn encode_status(&self, status: &Status, timestamp: i64, out: &mut Vec<u8>) {
        let mut lines = Lines::new(out, &self.names.suffix, timestamp);
        for (name, value) in [
            ("last_exception", status.last_exception as f64),
            ("last_flush", status.last_flush as f64),
            ("flush_time", status.flush_time_ms as f64),
            ("flush_length", status.flush_length as f64),
        ] {
            let key = Key {
                path: name.into(),
                tags: "",
            };
            lines.line(
                &format!("{}graphiteStats.", self.names.own),
                &key,
                ["", ""],
                value,
            );
        }
    }
}

/// What the reference says of its last flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Unix seconds of the last flush that failed; 0 before any.
    pub last_exception: i64,
    /// Unix seconds of the last flush that was delivered; the start before any.
    pub last_flush: i64,
    /// Milliseconds it took to hand over.
    pub flush_time_ms: u64,
    /// Its characters.
    pub flush_length: usize,
}

/// The backend: encoder, connection and status.
#[derive(Debug)]
pub struct Graphite {
    host: Option<String>,
    port: u16,
    encoder: Encoder,
    clock: Clock,
    status: Status,
    payload: Vec<u8>,
}

impl Graphite {
    /// A backend that has delivered nothing yet.
    pub fn new(options: &Options, clock: Clock) -> Self {
        let last_flush = rounded_seconds(clock.now_ms());
        Self {
            host: options.host.clone(),
            port: options.port,
            encoder: Encoder::new(options),
            clock,
            status: Status {
                last_exception: 0,
                last_flush,
                flush_time_ms: 0,
                flush_length: 0,
            },
            payload: Vec::new(),
        }
    }

    /// Where it sends to, for messages.
    pub fn destination(&self) -> String {
        self.host.as_ref().map_or_else(
            || "nowhere (no graphiteHost)".into(),
            |host| format!("{host}:{}", self.port),
        )
    }

    /// Writes what became of the flushes so far where others can read it.
    pub fn tell(&self, status: &super::status::Status) {
        let Status {
            last_exception,
            last_flush,
            flush_time_ms,
            flush_length,
        } = self.status;
        status.set(&[
            ("last_flush", last_flush),
            ("last_exception", last_exception),
            ("flush_time", flush_time_ms.cast_signed()),
            ("flush_length", flush_length as i64),
        ]);
    }

    /// Sends one flush over a connection of its own. Without a host there is nothing to do.
    ///
    /// # Errors
    /// When the name does not resolve, nobody answers, or the peer stops taking; the flush is lost.
    pub fn deliver(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        let Some(host) = &self.host else {
            return Ok(());
        };
        self.payload.clear();
        self.encoder.encode(snapshot, &mut self.payload);
        let sent = sink::connect(host, self.port).and_then(|stream| {
            let now = rounded_seconds(self.clock.now_ms());
            self.encoder
                .encode_status(&self.status, now, &mut self.payload);
            let began = Instant::now();
            sink::send_and_close(stream, &self.payload)?;
            self.status.flush_time_ms = began.elapsed().as_millis() as u64;
            self.status.flush_length = self.payload.len();
            self.status.last_flush = now;
            Ok(())
        });
        if sent.is_err() {
            self.status.last_exception = rounded_seconds(self.clock.now_ms());
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::cell::Members;
    use crate::metric::snapshot::{Counter, Gauge, SelfMetric, Set, Statistic, Timer};

    fn snapshot() -> Snapshot {
        let members: Members = [&b"x"[..], b"y"].into_iter().map(Box::from).collect();
        Snapshot {
            timestamp: 1_795_344_335,
            counters: vec![Counter {
                name: "c 1;a=b".into(),
                value: 5.0,
                rate: 0.5,
            }],
            timers: vec![Timer {
                name: "t".into(),
                statistics: 0..2,
                samples: 0..0,
            }],
            gauges: vec![Gauge {
                name: "g".into(),
                value: -0.0,
            }],
            sets: vec![Set {
                name: "s".into(),
                members,
            }],
            fields: vec!["mean_90".to_string(), "histogram.bin_1".to_string()].into(),
            statistics: vec![
                Statistic {
                    field: 0,
                    value: f64::NAN,
                },
                Statistic {
                    field: 1,
                    value: 3.0,
                },
            ],
            self_metrics: vec![SelfMetric {
                name: "packets",
                value: 9.0,
            }],
            ..Snapshot::default()
        }
    }

    fn lines(options: &Options) -> Vec<String> {
        let encoder = Encoder::new(options);
        let mut out = Vec::new();
        encoder.encode(&snapshot(), &mut out);
        let status = Status {
            last_exception: 1,
            last_flush: 2,
            flush_time_ms: 3,
            flush_length: 4,
        };
        encoder.encode_status(&status, 7, &mut out);
        let text = String::from_utf8(out).expect("text");
        assert!(text.ends_with('\n'));
        text.lines()
            .filter(|line| !line.contains("calculationtime"))
            .map(String::from)
            .collect()
    }

    #[test]
    fn legacy_names() {
        let expected = [
            "stats.c 1;a=b 0.5 1795344335",
            "stats_counts.c 1;a=b 5 1795344335",
            "stats.timers.t.mean_90 NaN 1795344335",
            "stats.timers.t.histogram.bin_1 3 1795344335",
            "stats.gauges.g 0 1795344335",
            "stats.sets.s.count 2 1795344335",
            "statsd.numStats 4 1795344335",
            "stats.statsd.processing_time 0 1795344335",
            "stats.statsd_fast.packets 9 1795344335",
            "stats.statsd.graphiteStats.last_exception 1 7",
            "stats.statsd.graphiteStats.last_flush 2 7",
            "stats.statsd.graphiteStats.flush_time 3 7",
            "stats.statsd.graphiteStats.flush_length 4 7",
        ];
        assert_eq!(lines(&Options::default()), expected);
    }

    #[test]
    fn prefixed_names_with_suffix_before_the_tags() {
        let options = Options {
            namespace: Namespace::Prefixed,
            global_prefix: "g".into(),
            prefix_gauge: String::new(),
            global_suffix: Some("host1".into()),
            flush_counts: false,
            sanitize_names: true,
            ..Options::default()
        };
        let found = lines(&options);
        assert_eq!(found[0], "g.counters.c_1.rate.host1;a=b 0.5 1795344335");
        assert_eq!(found[3], "g.g.host1 0 1795344335");
        assert_eq!(found[5], "g.statsd.numStats.host1 4 1795344335");
        assert_eq!(found[7], "g.statsd_fast.packets.host1 9 1795344335");
        assert_eq!(found[8], "g.statsd.graphiteStats.last_exception.host1 1 7");
    }

    #[test]
    fn hybrid_names() {
        let options = Options {
            namespace: Namespace::Hybrid,
            ..Options::default()
        };
        let found = lines(&options);
        assert_eq!(found[0], "stats.c 1.rate;a=b 0.5 1795344335");
        assert_eq!(found[1], "stats.c 1.count;a=b 5 1795344335");
        assert_eq!(found[6], "stats.statsd.numStats 4 1795344335");
    }
}
