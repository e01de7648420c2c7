//! A datagram through the server's own parser, in the notation of the corpus.
#![allow(dead_code, reason = "not every test binary asks for both ways")]

use crate::reference::Effect;
use statsd_fast::ingest::{name, parse};
use statsd_fast::metric::sample::{Reject, Sample, Value};

/// What the parser the workers use makes of a datagram.
pub(crate) fn packet(datagram: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    parse::packet(datagram, &mut |result: Result<_, _>| {
        found.push(notation(result))
    });
    found
}

/// What its slow path alone makes of it.
pub(crate) fn line_by_line(datagram: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for line in datagram
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        parse::line(line, |result| found.push(notation(result)));
    }
    found
}

fn notation(result: Result<Sample<'_>, Reject>) -> String {
    let sample = match result {
        Ok(sample) => sample,
        Err(reason) => return format!("reject {}", reason.name()),
    };
    let key = name::canonical(sample.name, sample.tags, true);
    let effect = match sample.value {
        Value::Count(value) => Effect::Count {
            key,
            value,
            weight: 1.0,
        },
        Value::Time { value, weight } => Effect::Time { key, value, weight },
        Value::GaugeSet(value) => Effect::GaugeSet { key, value },
        Value::GaugeAdd(value) => Effect::GaugeAdd { key, value },
        Value::Member(member) => Effect::Member {
            key,
            member: String::from_utf8_lossy(member).into_owned(),
        },
    };
    effect.to_string()
}
