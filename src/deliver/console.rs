//! The console backend: a flush as text for people.

use crate::metric::snapshot::Snapshot;
use std::fmt::Write as _;
use std::io::{self, Write as _};

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

/// Appends a flush: a heading, then one line a metric, kinds in the reference's order.
pub fn encode(snapshot: &Snapshot, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write(snapshot, out);
}

fn write(snapshot: &Snapshot, out: &mut Vec<u8>) -> io::Result<()> {
    writeln!(out, "Flushing stats at {}", snapshot.timestamp)?;
    for counter in &snapshot.counters {
        writeln!(
            out,
            "  counter {} {} ({}/s)",
            Shown(&counter.name),
            Number(counter.value),
            Number(counter.rate)
        )?;
    }
    for timer in &snapshot.timers {
        write!(out, "  timer   {}", Shown(&timer.name))?;
        for statistic in &snapshot.statistics[timer.statistics.clone()] {
            write!(
                out,
                " {}={}",
                snapshot.fields[statistic.field as usize],
                Number(statistic.value)
            )?;
        }
        writeln!(out)?;
    }
    for gauge in &snapshot.gauges {
        writeln!(
            out,
            "  gauge   {} {}",
            Shown(&gauge.name),
            Number(gauge.value)
        )?;
    }
    for set in &snapshot.sets {
        writeln!(
            out,
            "  set     {} {} members",
            Shown(&set.name),
            set.members.len()
        )?;
    }
    let losses: Vec<_> = (snapshot.self_metrics.iter())
        .filter(|metric| metric.value > 0.0 && is_loss(metric.name))
        .map(|metric| format!("{}={}", metric.name, Number(metric.value)))
        .collect();
    if !losses.is_empty() {
        writeln!(out, "  LOST    {}", losses.join(" "))?;
    }
    Ok(())
}

fn is_loss(name: &str) -> bool {
    crate::metric::meter::METERS
        .iter()
        .any(|meter| meter.loss && meter.name == name)
}

/// A name on a terminal: one that was kept verbatim may hold what would move the cursor.
struct Shown<'a>(&'a str);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// A number as the other backends print it.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = Vec::new();
        super::number::write(&mut text, self.0);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::snapshot::{Counter, Gauge, SelfMetric, Statistic, Timer};

    #[test]
    fn a_flush_as_text() {
        let snapshot = Snapshot {
            timestamp: 60,
            counters: vec![Counter {
                name: "hits".into(),
                value: 5.0,
                rate: 0.5,
            }],
            timers: vec![Timer {
                name: "t".into(),
                statistics: 0..1,
                samples: 0..0,
            }],
            gauges: vec![Gauge {
                name: "g\u{1b}[2J".into(),
                value: 1.25,
            }],
            fields: vec!["mean".to_string()].into(),
            statistics: vec![Statistic {
                field: 0,
                value: 3.0,
            }],
            self_metrics: vec![
                SelfMetric {
                    name: "packets",
                    value: 2.0,
                },
                SelfMetric {
                    name: "kernel_drops",
                    value: 7.0,
                },
            ],
            ..Snapshot::default()
        };
        let mut out = Vec::new();
        encode(&snapshot, &mut out);
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "Flushing stats at 60\n  counter hits 5 (0.5/s)\n  timer   t mean=3\n  \
             gauge   g\\u{1b}[2J 1.25\n  LOST    kernel_drops=7\n"
        );
    }
}
