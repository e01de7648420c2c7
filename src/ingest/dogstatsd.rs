//! A line as dialect auto reads it: what DogStatsD's clients send (protocol v1.0 to v1.6), and every other
//! line as the reference does. Pure, and the specification of that dialect in code.
//!
//! `name:value[:value...]|type`, then in any order `|@rate`, `|#tags`, `|T<unix seconds>`, `|c:container`,
//! `|e:external data`, `|card:cardinality`. Of a field that comes twice the first counts. Behind the tags
//! a field of another shape is one of a version to come, and ignored; before them it makes the line one of
//! the reference's, which has `:` between values that have a type each.

use super::parse::{self, Reader};
use super::{Dialect, number};
use crate::metric::sample::{Reject, Sample, Value};

/// Longest tags of a line, in bytes. DogStatsD's own server takes no datagram that is longer.
pub const TAGS_MAX: usize = 8192;

/// What is no metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// `_e{..}:title|text`.
    Event,
    /// `_sc|name|status`.
    ServiceCheck,
}

/// The metric of one line.
#[derive(Debug, Clone, Copy)]
struct Metric<'a> {
    name: &'a [u8],
    /// One value, or several with colons between them.
    values: &'a [u8],
    kind: &'a [u8],
    tags: &'a [u8],
    /// `1 / rate`; 1 without a rate.
    weight: f64,
    /// Unix seconds.
    at: Option<i64>,
    /// A field is wrong, and so is every value.
    wrong: Option<Reject>,
}

/// Reads a line that is not empty, and hands over each of its values.
pub fn line<'a>(line: &'a [u8], reader: &mut impl Reader<'a>) {
    let text = line.strip_suffix(b"\r").unwrap_or(line);
    if text.starts_with(b"_sc|") {
        return if is_check(text) {
            reader.notice(Notice::ServiceCheck);
        } else {
            reader.odd(Err(Reject::BadCheck), line);
        };
    }
    let metric = Metric::read(text);
    if text.starts_with(b"_e{") && !metric.is_some_and(Metric::is_whole) {
        return if is_event(text) {
            reader.notice(Notice::Event);
        } else {
            reader.odd(Err(Reject::BadEvent), line);
        };
    }
    match metric {
        None => parse::values(text, Dialect::Auto, |result| reader.odd(result, line)),
        Some(metric) => metric.each(|result| match (result, metric.at) {
            (Ok(mut sample), Some(at)) => {
                // Whoever says when a gauge was so says what it was then: a sign is no change.
                if let Value::GaugeAdd(value) = sample.value {
                    sample.value = Value::GaugeSet(value);
                }
                reader.stamped(sample, at, line);
            }
            (result, _) => reader.odd(result, line),
        }),
    }
}

impl<'a> Metric<'a> {
    /// Takes a line apart; `None` when it is not of this shape.
    fn read(line: &'a [u8]) -> Option<Self> {
        let has_colon = |field: &[u8]| field.contains(&b':');
        let mut fields = line.split(|byte| *byte == b'|');
        let first = fields.next()?;
        let (name, values) = first.split_at(first.iter().position(|byte| *byte == b':')?);
        let kind = fields.next()?;
        if has_colon(kind) || kind.starts_with(b"#") {
            return None;
        }
        let (mut rate, mut tags, mut at) = (None, None, None);
        let mut wrong = None;
        for (place, field) in fields.enumerate() {
            match field {
                [b'#', rest @ ..] => {
                    tags.get_or_insert(rest);
                }
                [b'c', b':', ..] | [b'e', b':', ..] | [b'c', b'a', b'r', b'd', b':', ..] => {}
                _ if tags.is_none() && has_colon(field) => return None,
                [b'@', ..] => {
                    rate.get_or_insert(field);
                }
                [b'T', rest @ ..] => {
                    at.get_or_insert(rest);
                }
                // The reference has its rate there, and further fields it ignores too.
                _ if place == 0 => wrong = Some(Reject::BadRate),
                _ => {}
            }
        }
        let weight = rate.map_or(Some(1.0), weight);
        let tags = tags.unwrap_or_default();
        let seconds = at.map(unix_seconds);
        if weight.is_none() {
            wrong = Some(Reject::BadRate);
        } else if wrong.is_none() && tags.len() > TAGS_MAX {
            wrong = Some(Reject::LongTags);
        } else if wrong.is_none() && seconds == Some(None) {
            wrong = Some(Reject::BadTimestamp);
        }
        Some(Self {
            name,
            values: &values[1..],
            kind,
            tags,
            weight: weight.unwrap_or(1.0),
            at: seconds.flatten(),
            wrong,
        })
    }

    /// Visits the values. Those of a set are one, colons and all.
    fn each(&self, mut visit: impl FnMut(Result<Sample<'a>, Reject>)) {
        let Self {
            name, tags, kind, ..
        } = *self;
        let mut one = |text| {
            let value = match self.wrong {
                Some(reason) => Err(reason),
                None => typed(text, kind, self.weight),
            };
            visit(value.map(|value| Sample { name, tags, value }));
        };
        if trimmed(kind) == b"s" {
            one(self.values);
        } else {
            self.values.split(|byte| *byte == b':').for_each(one);
        }
    }

    /// Whether it is of a known type, and every value of it is good.
    fn is_whole(self) -> bool {
        let mut whole = matches!(trimmed(self.kind), b"c" | b"g" | b"ms" | b"s" | b"h" | b"d");
        self.each(|result| whole &= result.is_ok());
        whole
    }
}

/// Reads a value by its type. A histogram and a distribution are timers that may be below zero; any other
/// type is a counter, as in the reference.
pub(super) fn typed<'a>(text: &'a [u8], kind: &[u8], weight: f64) -> Result<Value<'a>, Reject> {
    let kind = trimmed(kind);
    if kind == b"s" {
        return Ok(Value::Member(if text.is_empty() { b"0" } else { text }));
    }
    let value = parse::numeric(text)?;
    Ok(match kind {
        b"ms" if value < 0.0 => return Err(Reject::NegativeTimer),
        b"ms" | b"h" | b"d" => Value::Time { value, weight },
        b"g" => parse::gauge(text.first().copied().unwrap_or(b'0'), value),
        _ => Value::Count(value * weight),
    })
}

/// `1 / rate` of a field `@rate`: a number above zero, exponent and all.
pub(super) fn weight(field: &[u8]) -> Option<f64> {
    let text = field.strip_prefix(b"@")?;
    let begins = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let rate = text
        .first()
        .filter(|byte| begins(byte))
        .and(number::javascript(text))?;
    Some(1.0 / rate).filter(|weight| *weight > 0.0 && weight.is_finite())
}

/// Digits alone; what is beyond all bounds is the largest there is.
fn unix_seconds(text: &[u8]) -> Option<i64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| {
        let append =
            |all: i64, digit: &u8| (all.saturating_mul(10)).saturating_add(i64::from(digit - b'0'));
        text.iter().fold(0, append)
    })
}

fn trimmed(kind: &[u8]) -> &[u8] {
    std::str::from_utf8(kind).map_or(kind, |kind| number::trim(kind).as_bytes())
}

/// `_e{title length,text length}:title|text`, lengths in bytes, and fields behind it.
fn is_event(line: &[u8]) -> bool {
    let read = || {
        let header = line.strip_prefix(b"_e{")?;
        let end = header.windows(2).position(|pair| pair == b"}:")?;
        let (lengths, rest) = (&header[..end], &header[end + 2..]);
        let comma = lengths.iter().position(|byte| *byte == b',')?;
        let length = |digits| usize::try_from(unix_seconds(digits)?).ok();
        let (title, text) = (length(&lengths[..comma])?, length(&lengths[comma + 1..])?);
        if title == 0 {
            return None;
        }
        rest.get(title..)?.strip_prefix(b"|")?.get(text..)
    };
    matches!(read(), Some([] | [b'|', ..]))
}

/// `_sc|name|status`, a status from 0 to 3, and fields behind it.
fn is_check(line: &[u8]) -> bool {
    let mut fields = line.split(|byte| *byte == b'|').skip(1);
    let name = fields.next().unwrap_or_default();
    !name.is_empty() && matches!(fields.next(), Some([b'0'..=b'3']))
}
