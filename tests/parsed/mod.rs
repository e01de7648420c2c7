//! A datagram through the server's own parser, in the notation of the corpus.
#![allow(dead_code, reason = "not every test binary asks for both ways")]

use crate::reference::Effect;
use statsd_fast::ingest::dogstatsd::{self, Notice};
use statsd_fast::ingest::parse::{self, Reader};
use statsd_fast::ingest::scan::BLOCK;
use statsd_fast::ingest::{Dialect, name};
use statsd_fast::metric::sample::{Reject, Sample, Value};

/// Writes down what a datagram does in dialect auto.
#[derive(Default)]
struct Auto(Vec<String>);

impl<'a> Reader<'a> for Auto {
    fn dialect(&self) -> Dialect {
        Dialect::Auto
    }

    fn sample(&mut self, sample: Sample<'a>, _window: &[u8; BLOCK]) {
        self.0.push(notation(Ok(sample), Dialect::Auto));
    }

    fn odd(&mut self, result: Result<Sample<'a>, Reject>, _line: &'a [u8]) {
        self.0.push(notation(result, Dialect::Auto));
    }

    fn stamped(&mut self, sample: Sample<'a>, at: i64, _line: &'a [u8]) {
        let effect = notation(Ok(sample), Dialect::Auto);
        self.0.push(format!("{effect} at {at}"));
    }

    fn notice(&mut self, notice: Notice) {
        self.0.push(match notice {
            Notice::Event => "event".into(),
            Notice::ServiceCheck => "service-check".into(),
        });
    }
}

/// What the parser makes of a datagram in dialect auto.
pub(crate) fn auto(datagram: &[u8]) -> Vec<String> {
    let mut found = Auto::default();
    parse::packet(datagram, &mut found);
    found.0
}

/// What its slow path alone makes of it.
pub(crate) fn auto_line_by_line(datagram: &[u8]) -> Vec<String> {
    let mut found = Auto::default();
    for line in datagram
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        dogstatsd::line(line, &mut found);
    }
    found.0
}

/// What the parser the workers use makes of a datagram.
pub(crate) fn packet(datagram: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    parse::packet(datagram, &mut |result: Result<_, _>| {
        found.push(notation(result, Dialect::Statsd))
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
        parse::line(line, |result| found.push(notation(result, Dialect::Statsd)));
    }
    found
}

fn notation(result: Result<Sample<'_>, Reject>, dialect: Dialect) -> String {
    let sample = match result {
        Ok(sample) => sample,
        Err(reason) => return format!("reject {}", reason.name()),
    };
    let key = match dialect {
        Dialect::Statsd => name::canonical(sample.name, sample.tags, true),
        Dialect::Auto => name::tagged(sample.name, sample.tags, true, false).shown,
    };
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
