//! A flush as one line of JSON, for programs.

use super::{sorted, statistics};
use crate::deliver::number;
use crate::metric::snapshot::{Snapshot, Timer};
use std::borrow::Cow;
use std::io::{self, Write};

/// Appends the flush; names come in the order of the snapshot.
pub(super) fn write(snapshot: &Snapshot, out: &mut Vec<u8>) -> io::Result<()> {
    write!(out, "{{\"timestamp\":{}", snapshot.timestamp)?;
    let counters = snapshot.counters.iter();
    part(out, "counters", counters.clone(), |out, counter| {
        number(out, &counter.name, counter.value)
    })?;
    part(out, "counter_rates", counters, |out, counter| {
        number(out, &counter.name, counter.rate)
    })?;
    part(out, "timers", snapshot.timers.iter(), |out, timer| {
        self::timer(out, snapshot, timer)
    })?;
    part(out, "gauges", snapshot.gauges.iter(), |out, gauge| {
        number(out, &gauge.name, gauge.value)
    })?;
    part(out, "sets", snapshot.sets.iter(), |out, set| {
        key(out, &set.name)?;
        let members: Vec<Cow<'_, str>> = sorted(set)
            .into_iter()
            .map(String::from_utf8_lossy)
            .collect();
        Ok(serde_json::to_writer(out, &members)?)
    })?;
    let own = snapshot.self_metrics.iter();
    part(out, "statsd_fast", own, |out, metric| {
        number(out, metric.name, metric.value)
    })?;
    if !snapshot.stamped.is_empty() {
        out.extend_from_slice(b",\"stamped\":[");
        for (index, stamped) in snapshot.stamped.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let (kind, timestamp) = (super::kind(stamped), stamped.timestamp);
            write!(
                out,
                "{comma}{{\"kind\":\"{kind}\",\"timestamp\":{timestamp},"
            )?;
            key(out, "name")?;
            serde_json::to_writer(&mut *out, &*stamped.name)?;
            out.push(b',');
            number(out, "value", stamped.value)?;
            out.push(b'}');
        }
        out.push(b']');
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}

fn timer(out: &mut Vec<u8>, snapshot: &Snapshot, timer: &Timer) -> io::Result<()> {
    key(out, &timer.name)?;
    let (fields, mut bins) = statistics(snapshot, timer);
    let histogram = (bins.len() > 0).then_some(None);
    object(out, fields.map(Some).chain(histogram), |out, field| {
        if let Some((name, value)) = field {
            return number(out, name, value);
        }
        key(out, "histogram")?;
        object(out, bins.by_ref(), |out, (name, value)| {
            number(out, name, value)
        })
    })
}

/// One more key of the outermost object, whose value is an object.
fn part<T>(
    out: &mut Vec<u8>,
    name: &str,
    entries: impl Iterator<Item = T>,
    entry: impl FnMut(&mut Vec<u8>, T) -> io::Result<()>,
) -> io::Result<()> {
    out.push(b',');
    key(out, name)?;
    object(out, entries, entry)
}

fn object<T>(
    out: &mut Vec<u8>,
    entries: impl Iterator<Item = T>,
    mut entry: impl FnMut(&mut Vec<u8>, T) -> io::Result<()>,
) -> io::Result<()> {
    out.push(b'{');
    for (index, item) in entries.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        entry(out, item)?;
    }
    out.push(b'}');
    Ok(())
}

fn key(out: &mut Vec<u8>, key: &str) -> io::Result<()> {
    serde_json::to_writer(&mut *out, key)?;
    out.push(b':');
    Ok(())
}

/// JSON has no word for what is not a finite number: `null`, as JavaScript writes it.
fn number(out: &mut Vec<u8>, name: &str, value: f64) -> io::Result<()> {
    key(out, name)?;
    if value.is_finite() {
        number::write(out, value);
    } else {
        out.extend_from_slice(b"null");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Layout;
    use super::super::tests::{snapshot, text};
    use crate::metric::sample::Kind;
    use crate::metric::snapshot::{Gauge, Stamped};

    #[test]
    fn a_flush_on_a_line_as_json() {
        let mut snapshot = snapshot();
        snapshot.gauges.push(Gauge {
            name: "\"\n".into(),
            value: f64::INFINITY,
        });
        // Only the bins were asked for.
        snapshot.timers[2].statistics = 3..5;
        let printed = text(&snapshot, Layout::Json);
        assert_eq!(printed, include_str!("flush.json"));
        let read: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
        assert_eq!(read["timers"]["h"]["histogram"]["bin_10"], 5);
        assert_eq!(read["gauges"]["\"\n"], serde_json::Value::Null);
    }

    #[test]
    fn what_has_a_time_of_its_own_is_told_with_it() {
        let mut snapshot = snapshot();
        let stamped = |kind, name: &str, value| Stamped {
            kind,
            name: name.into(),
            timestamp: 1_656_581_400,
            value,
        };
        snapshot.stamped = vec![
            stamped(Kind::Counter, "c;t=v", 2.5),
            stamped(Kind::Gauge, "\"\u{7}", -1.0),
        ];
        let read: serde_json::Value =
            serde_json::from_str(&text(&snapshot, Layout::Json)).expect("JSON");
        let expected = serde_json::json!([
            {"kind": "counter", "timestamp": 1_656_581_400, "name": "c;t=v", "value": 2.5},
            {"kind": "gauge", "timestamp": 1_656_581_400, "name": "\"\u{7}", "value": -1},
        ]);
        assert_eq!(read["stamped"], expected);
        let printed = text(&snapshot, Layout::Node);
        let lines: Vec<_> = printed
            .lines()
            .filter(|line| line.starts_with("STAMPED"))
            .collect();
        let expected = [
            "STAMPED counter c;t=v 2.5 1656581400",
            "STAMPED gauge \\\"\\u{7} -1 1656581400",
        ];
        assert_eq!(lines, expected);
    }
}
