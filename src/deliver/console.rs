//! The console backend: a flush as text, for people in StatsD's own layout or for programs as JSON.

mod json;

use super::inspector::{self, Value, inspect};
use super::number;
use crate::metric::meter::METERS;
use crate::metric::sample::Kind;
use crate::metric::snapshot::{SelfMetric, Set, Snapshot, Stamped, Statistic, Timer};
use crate::runtime::date;
use std::io::{self, Write};

/// Options of the console backend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// How a flush looks (`console.format`, `console.prettyprint`).
    pub layout: Layout,
}

/// How a flush looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// As Node.js prints an object: the reference's own shape.
    #[default]
    Node,
    /// The same in colours, with nested objects in full.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Appends a flush.
pub fn encode(snapshot: &Snapshot, options: &Options, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = match options.layout {
        Layout::Node => object(snapshot, inspector::Options::default(), out),
        Layout::Pretty => object(
            snapshot,
            inspector::Options {
                depth: 5,
                colors: true,
            },
            out,
        ),
        Layout::Json => json::write(snapshot, out),
    };
}

/// The heading, the object of the reference, and what was lost.
fn object(snapshot: &Snapshot, how: inspector::Options, out: &mut Vec<u8>) -> io::Result<()> {
    // Two blanks: the reference gives the date as a second argument.
    writeln!(
        out,
        "Flushing stats at  {}",
        date::javascript(snapshot.timestamp)
    )?;
    inspect(value(snapshot), how, out);
    out.push(b'\n');
    for stamped in &snapshot.stamped {
        let name = stamped.name.escape_debug();
        write!(out, "STAMPED {} {name} ", kind(stamped))?;
        number::write(out, stamped.value);
        writeln!(out, " {}", stamped.timestamp)?;
    }
    let is_loss = |metric: &&SelfMetric| {
        let meter = METERS.iter().find(|meter| meter.name == metric.name);
        metric.value > 0.0 && meter.is_some_and(|meter| meter.loss)
    };
    let mut losses = snapshot.self_metrics.iter().filter(is_loss).peekable();
    if losses.peek().is_some() {
        write!(out, "LOST")?;
        for metric in losses {
            write!(out, " {}=", metric.name)?;
            number::write(out, metric.value);
        }
        out.push(b'\n');
    }
    Ok(())
}

/// Where a value with a time of its own belongs.
fn kind(stamped: &Stamped) -> &'static str {
    match stamped.kind {
        Kind::Gauge => "gauge",
        _ => "counter",
    }
}

/// The object the reference prints.
fn value(snapshot: &Snapshot) -> Value<'_> {
    let counters = snapshot.counters.iter();
    let rates = counters.clone();
    let gauges = snapshot.gauges.iter();
    let timers = snapshot.timers.iter();
    let statistics = timers.clone();
    let parts = [
        (
            "counters",
            Value::object(counters.map(|c| (&*c.name, Value::Number(c.value)))),
        ),
        (
            "timers",
            Value::object(timers.map(|timer| (&*timer.name, samples(snapshot, timer)))),
        ),
        (
            "gauges",
            Value::object(gauges.map(|g| (&*g.name, Value::Number(g.value)))),
        ),
        (
            "timer_data",
            Value::object(statistics.map(|timer| (&*timer.name, timer_data(snapshot, timer)))),
        ),
        (
            "counter_rates",
            Value::object(rates.map(|c| (&*c.name, Value::Number(c.rate)))),
        ),
        (
            "sets",
            Value::object(snapshot.sets.iter().map(|set| (&*set.name, members(set)))),
        ),
        ("pctThreshold", Value::numbers(&snapshot.thresholds)),
    ];
    Value::object(parts.into_iter())
}

/// A timer's samples; past the exact limit they are not kept, and an empty list would be a lie.
fn samples<'a>(snapshot: &'a Snapshot, timer: &Timer) -> Value<'a> {
    match timer.folded {
        0 => Value::numbers(&snapshot.samples[timer.samples.clone()]),
        count => Value::Omitted(format!("Histogram of {count} values").into()),
    }
}

/// Begins the names of a histogram's bins among the fields of a timer.
const HISTOGRAM: &str = "histogram.";

/// The statistics of a timer with their names, and the bins of its histogram, which are an object of their
/// own and come last.
fn statistics<'a>(
    snapshot: &'a Snapshot,
    timer: &Timer,
) -> (
    impl Iterator<Item = (&'a str, f64)> + 'a,
    impl ExactSizeIterator<Item = (&'a str, f64)> + 'a,
) {
    let all = &snapshot.statistics[timer.statistics.clone()];
    let name = |statistic: &Statistic| &*snapshot.fields[statistic.field as usize];
    let bins = all
        .iter()
        .position(|statistic| name(statistic).starts_with(HISTOGRAM));
    let (fields, bins) = all.split_at(bins.unwrap_or(all.len()));
    (
        fields.iter().map(move |field| (name(field), field.value)),
        bins.iter()
            .map(move |bin| (&name(bin)[HISTOGRAM.len()..], bin.value)),
    )
}

fn timer_data<'a>(snapshot: &'a Snapshot, timer: &Timer) -> Value<'a> {
    let numbers = |(name, number)| (name, Value::Number(number));
    let (fields, bins) = statistics(snapshot, timer);
    let histogram = (bins.len() > 0).then(|| ("histogram", Value::object(bins.map(numbers))));
    Value::object(fields.map(numbers).chain(histogram))
}

/// Members as text, in the order of their bytes: in which they came, nobody remembers.
fn sorted(set: &Set) -> Vec<&[u8]> {
    let mut members: Vec<&[u8]> = set.members.iter().map(|member| &**member).collect();
    members.sort_unstable();
    members
}

fn members(set: &Set) -> Value<'_> {
    let text = |member| Value::Text(String::from_utf8_lossy(member));
    Value::list(sorted(set).into_iter().map(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::set::Member;
    use crate::metric::snapshot::{Counter, Gauge};

    /// A flush with something of everything. The files below hold what Node.js prints of the same object,
    /// where one that prints itself as we do stands for the long timer.
    pub(super) fn snapshot() -> Snapshot {
        let counter = |name: &str, value: f64| Counter {
            name: name.into(),
            value,
            rate: value / 1.5,
        };
        let fields = [
            "mean_90",
            "upper_90",
            "count",
            "histogram.bin_10",
            "histogram.bin_inf",
        ];
        let statistic = |(field, value)| Statistic { field, value };
        Snapshot {
            timestamp: 1_795_634_070,
            counters: vec![
                counter("statsd.packets_received", 7.0),
                counter("a", 1.0),
                counter("hits.b", 2.5),
            ],
            timers: vec![
                Timer {
                    name: "h".into(),
                    statistics: 0..5,
                    samples: 0..10,
                    ..Timer::default()
                },
                Timer {
                    name: "idle".into(),
                    samples: 10..10,
                    ..Timer::default()
                },
                Timer {
                    name: "long".into(),
                    samples: 10..10,
                    folded: 5000,
                    ..Timer::default()
                },
            ],
            gauges: vec![Gauge {
                name: "g".into(),
                value: -0.0,
            }],
            sets: vec![Set {
                name: "u".into(),
                members: [
                    &b"a"[..],
                    b"b",
                    b"it's",
                    b"10",
                    b"caf\xc3\xa9",
                    b"\xff",
                    b"x\ty",
                ]
                .into_iter()
                .map(Member::from)
                .collect(),
            }],
            thresholds: vec![90.0, -10.0, 99.9],
            fields: fields.map(String::from).into(),
            statistics: [(0, f64::NAN), (1, 14.0), (2, 10.0), (3, 5.0), (4, 5.0)]
                .map(statistic)
                .into(),
            samples: vec![5.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 50.0],
            self_metrics: vec![
                SelfMetric {
                    name: "packets",
                    value: 7.0,
                },
                SelfMetric {
                    name: "truncated",
                    value: 0.0,
                },
            ],
            ..Snapshot::default()
        }
    }

    pub(super) fn text(snapshot: &Snapshot, layout: Layout) -> String {
        let mut out = Vec::new();
        encode(snapshot, &Options { layout }, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn an_object_as_the_reference_prints_it() {
        let printed = text(&snapshot(), Layout::Node);
        let (first, object) = printed.split_once('\n').expect("several lines");
        assert!(first.starts_with("Flushing stats at  "), "{first}");
        assert_eq!(object, include_str!("console/node.txt"));
    }

    #[test]
    fn colours_and_depth_when_asked_for() {
        let printed = text(&snapshot(), Layout::Pretty).replace('\u{1b}', "^");
        let (_, object) = printed.split_once('\n').expect("several lines");
        assert_eq!(object, include_str!("console/pretty.txt"));
    }

    #[test]
    fn what_was_lost_is_said_behind_the_object() {
        let mut snapshot = snapshot();
        for (name, value) in [("kernel_drops", 7.0), ("flushes_dropped", 1.0)] {
            snapshot.self_metrics.push(SelfMetric { name, value });
        }
        for layout in [Layout::Node, Layout::Pretty] {
            let printed = text(&snapshot, layout);
            let end = "\n}\nLOST kernel_drops=7 flushes_dropped=1\n";
            assert!(printed.ends_with(end), "{printed}");
        }
    }
}
