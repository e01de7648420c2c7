//! What a flush is to Graphite: which names and values, in which order. One walk, two spellings.

use super::super::number;
use super::{Namespace, Options, Status, pickle};
use crate::metric::name::cleaned;
use crate::metric::sample::Kind;
use crate::metric::snapshot::Snapshot;
use std::borrow::Cow;
use std::time::Instant;

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

/// A spelling of a flush: takes one value after another.
pub(super) trait Points {
    /// Appends a value of the metric that these pieces name together.
    fn point(&mut self, name: [&str; 6], value: f64);

    /// Gives what follows another time, in Unix seconds.
    fn stamp(&mut self, timestamp: i64);
}

/// Plaintext: one `name value timestamp` a line.
struct Lines<'a> {
    out: &'a mut Vec<u8>,
    timestamp: String,
}

impl<'a> Lines<'a> {
    fn new(out: &'a mut Vec<u8>, timestamp: i64) -> Self {
        Self {
            out,
            timestamp: format!(" {timestamp}\n"),
        }
    }
}

impl Points for Lines<'_> {
    // A copy where it is called knows which pieces are empty.
    #[inline(always)]
    fn point(&mut self, name: [&str; 6], value: f64) {
        for piece in name {
            self.out.extend_from_slice(piece.as_bytes());
        }
        self.out.push(b' ');
        number::write(self.out, value);
        self.out.extend_from_slice(self.timestamp.as_bytes());
    }

    fn stamp(&mut self, timestamp: i64) {
        self.timestamp = format!(" {timestamp}\n");
    }
}

/// A stored name as Graphite wants it: the path, and the tags that go behind the suffix.
struct Key<'a> {
    path: Cow<'a, str>,
    tags: &'a str,
}

impl<'a> Key<'a> {
    fn new(name: &'a str, sanitize: bool, tags_in_path: bool) -> Self {
        let (path, tags) = name.split_at(name.find(';').unwrap_or(name.len()));
        let path: Cow<'_, str> = if sanitize {
            cleaned(path).into()
        } else {
            path.into()
        };
        if tags_in_path && !tags.is_empty() {
            return Self::folded(&path, tags, sanitize);
        }
        Self { path, tags }
    }

    /// `path;k=v;l=w` as `path.k.v.l.w`: a key and its value are one node each.
    fn folded(path: &str, tags: &str, sanitize: bool) -> Self {
        let mut folded = path.to_owned();
        for tag in tags.split(';').filter(|tag| !tag.is_empty()) {
            for node in tag.splitn(2, '=').filter(|node| !node.is_empty()) {
                let node = if sanitize { cleaned(node) } else { node.into() };
                folded.push('.');
                folded.push_str(&node.replace(['.', ';', '='], "_"));
            }
        }
        Self {
            path: folded.into(),
            tags: "",
        }
    }
}

/// Encodes snapshots. Pure: bytes in a buffer, no clock but the one that measures itself.
#[derive(Debug)]
pub struct Encoder {
    names: Names,
    flush_counts: bool,
    sanitize: bool,
    tags_in_path: bool,
}

impl Encoder {
    /// Works the names out.
    pub fn new(options: &Options) -> Self {
        Self {
            names: Names::new(options),
            flush_counts: options.flush_counts,
            sanitize: options.sanitize_names,
            tags_in_path: options.tags_in_path,
        }
    }

    /// Appends every line of a flush but the four of [`Encoder::encode_status`].
    pub fn encode(&self, snapshot: &Snapshot, out: &mut Vec<u8>) {
        self.flush(snapshot, &mut Lines::new(out, snapshot.timestamp));
    }

    /// Appends what became of the flush before this one, stamped with the moment of connecting.
    pub fn encode_status(&self, status: &Status, timestamp: i64, out: &mut Vec<u8>) {
        self.status(status, &mut Lines::new(out, timestamp));
    }

    /// Appends the same as [`Encoder::encode`] and [`Encoder::encode_status`], as pickled frames.
    pub fn pickle(&self, snapshot: &Snapshot, status: &Status, timestamp: i64, out: &mut Vec<u8>) {
        let mut frames = pickle::Frames::new(out, snapshot.timestamp);
        self.flush(snapshot, &mut frames);
        frames.stamp(timestamp);
        self.status(status, &mut frames);
        frames.finish();
    }

    fn flush(&self, snapshot: &Snapshot, points: &mut impl Points) {
        let began = Instant::now();
        let names = &self.names;
        let suffix = names.suffix.as_str();
        let key = |name| Key::new(name, self.sanitize, self.tags_in_path);
        // Prefix + key without tags + ending + suffix + tags.
        let mut point = |prefix: &str, key: &Key<'_>, ending: [&str; 2], value| {
            points.point(
                [prefix, &key.path, ending[0], ending[1], suffix, key.tags],
                value,
            );
        };
        for counter in &snapshot.counters {
            let key = key(&counter.name);
            point(&names.rate, &key, [names.rate_end, ""], counter.rate);
            if self.flush_counts {
                point(&names.count, &key, [names.count_end, ""], counter.value);
            }
        }
        for timer in &snapshot.timers {
            let key = key(&timer.name);
            for statistic in &snapshot.statistics[timer.statistics.clone()] {
                let field = &snapshot.fields[statistic.field as usize];
                point(&names.timer, &key, [".", field], statistic.value);
            }
        }
        for gauge in &snapshot.gauges {
            point(&names.gauge, &key(&gauge.name), ["", ""], gauge.value);
        }
        for set in &snapshot.sets {
            let members = set.members.len() as f64;
            point(&names.set, &key(&set.name), [".count", ""], members);
        }
        for stamped in &snapshot.stamped {
            points.stamp(stamped.timestamp);
            let Key { path, tags } = key(&stamped.name);
            let mut point = |prefix: &str, ending, value| {
                points.point([prefix, &path, ending, "", suffix, tags], value);
            };
            if stamped.kind == Kind::Gauge {
                point(&names.gauge, "", stamped.value);
                continue;
            }
            let rate = stamped.value / snapshot.interval_seconds;
            point(&names.rate, names.rate_end, rate);
            if self.flush_counts {
                point(&names.count, names.count_end, stamped.value);
            }
        }
        if !snapshot.stamped.is_empty() {
            points.stamp(snapshot.timestamp);
        }
        let mut own = |prefix: &str, name: &str, value| {
            points.point([prefix, name, "", "", suffix, ""], value);
        };
        own(&names.num_stats, "numStats", snapshot.num_stats() as f64);
        let calculation_ms = began.elapsed().as_millis() as f64;
        own(&names.own, "graphiteStats.calculationtime", calculation_ms);
        own(&names.own, "processing_time", snapshot.processing_ms as f64);
        for metric in &snapshot.self_metrics {
            own(&names.own_fast, metric.name, metric.value);
        }
    }

    fn status(&self, status: &Status, points: &mut impl Points) {
        for (name, value) in [
            ("last_exception", status.last_exception as f64),
            ("last_flush", status.last_flush as f64),
            ("flush_time", status.flush_time_ms as f64),
            ("flush_length", status.flush_length as f64),
        ] {
            let names = &self.names;
            points.point(
                [&names.own, "graphiteStats.", name, "", &names.suffix, ""],
                value,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::set::{Member, Members};
    use crate::metric::snapshot::{Counter, Gauge, SelfMetric, Set, Stamped, Statistic, Timer};

    fn snapshot() -> Snapshot {
        let members: Members = [&b"x"[..], b"y"].into_iter().map(Member::from).collect();
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
                ..Timer::default()
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
    fn what_has_a_time_of_its_own_goes_out_with_it() {
        let stamped = |kind, name: &str, value| Stamped {
            kind,
            name: name.into(),
            timestamp: 1_656_581_400,
            value,
        };
        let mut snapshot = snapshot();
        snapshot.interval_seconds = 10.0;
        snapshot.stamped = vec![
            stamped(Kind::Counter, "c;t=v", 5.0),
            stamped(Kind::Gauge, "g", 7.0),
        ];
        let encoder = Encoder::new(&Options {
            global_suffix: Some("x".into()),
            ..Options::default()
        });
        let mut out = Vec::new();
        encoder.encode(&snapshot, &mut out);
        let text = String::from_utf8(out).expect("text");
        let found: Vec<_> = text
            .lines()
            .skip_while(|line| !line.contains("sets.s"))
            .collect();
        let expected = [
            "stats.sets.s.count.x 2 1795344335",
            "stats.c.x;t=v 0.5 1656581400",
            "stats_counts.c.x;t=v 5 1656581400",
            "stats.gauges.g.x 7 1656581400",
            "statsd.numStats.x 4 1795344335",
        ];
        assert_eq!(found[..5], expected);
    }

    #[test]
    fn tags_are_nodes_of_the_path_where_they_are_wanted() {
        for (name, sanitize, path) in [
            ("a.b;env=prod;dc=eu-1.x", false, "a.b.env.prod.dc.eu-1_x"),
            ("a;t=v=w;u;;x=", false, "a.t.v_w.u.x"),
            ("a b;c d=e/f", true, "a_b.c_d.e-f"),
            ("a", false, "a"),
        ] {
            let key = Key::new(name, sanitize, true);
            assert_eq!((&*key.path, key.tags), (path, ""), "{name}");
        }
        let options = Options {
            tags_in_path: true,
            global_suffix: Some("host1".into()),
            ..Options::default()
        };
        assert_eq!(lines(&options)[0], "stats.c 1.a.b.host1 0.5 1795344335");
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
