//! A datagram -> its samples. Pure: no clock, no allocation, no I/O.
//!
//! Lines of the common shape, `name:value|type` with an optional `|@rate` and `|#tags`, are read off
//! the delimiter marks in one pass. Whatever is not of that shape goes to [`line()`], which follows
//! the reference step by step and is the specification in code; both give the same for every line,
//! which tests/differential.rs holds them to.

use super::number;
use super::scan::Marks;
use crate::metric::sample::{Reject, Sample, Value};

/// Reads a datagram line by line and hands over each value, good or refused, with its line.
/// Returns how many lines there were; empty ones are none.
#[inline(always)]
pub fn packet<'a>(
    bytes: &'a [u8],
    mut visit: impl FnMut(Result<Sample<'a>, Reject>, &'a [u8]),
) -> u64 {
    let mut marks = Marks::new(bytes);
    let mut lines = 0;
    let mut start = 0;
    while start < bytes.len() {
        let (end, sample) = common_shape(bytes, start, &mut marks);
        if end > start {
            lines += 1;
            let text = &bytes[start..end];
            match sample {
                Some(sample) => visit(Ok(sample), text),
                None => line(text, |result| visit(result, text)),
            }
        }
        start = end + 1;
    }
    lines
}

/// Reads the line that begins at `start`: where it ends, and its sample if it is of the common shape.
/// The marks are left behind the line.
#[inline(always)]
fn common_shape<'a>(
    bytes: &'a [u8],
    start: usize,
    marks: &mut Marks<'_>,
) -> (usize, Option<Sample<'a>>) {
    // Past the end stands a newline, as it were.
    let at = |position: usize| bytes.get(position).copied().unwrap_or(b'\n');
    let colon = marks.next_mark();
    let mut mark = colon;
    'odd: {
        if at(colon) != b':' {
            break 'odd;
        }
        let pipe = marks.next_mark();
        mark = pipe;
        if at(pipe) != b'|' {
            break 'odd;
        }
        let type_end = marks.next_mark();
        mark = type_end;
        let mut rate = None;
        if at(mark) == b'|' && at(mark + 1) == b'@' {
            let from = mark + 2;
            mark = marks.next_mark();
            rate = Some(&bytes[from..mark]);
        }
        let mut tags = &bytes[..0];
        if at(mark) == b'|' && at(mark + 1) == b'#' {
            let from = mark + 2;
            mark = marks.next_mark();
            while at(mark) == b':' {
                mark = marks.next_mark();
            }
            tags = &bytes[from..mark];
        }
        if at(mark) != b'\n' {
            break 'odd;
        }
        let weight = match rate.map(number::plain_unsigned) {
            None => 1.0,
            Some(Some(rate)) => 1.0 / rate,
            Some(None) => break 'odd,
        };
        let text = &bytes[colon + 1..pipe];
        let value = match (&bytes[pipe + 1..type_end], number::plain(text)) {
            (b"c", Some(value)) => Value::Count(value * weight),
            (b"ms", Some(value)) if value >= 0.0 => Value::Time { value, weight },
            (b"g", Some(value)) => gauge(text, value),
            (b"s", _) if !text.is_empty() => Value::Member(text),
            _ => break 'odd,
        };
        return (
            mark,
            Some(Sample {
                name: &bytes[start..colon],
                tags,
                value,
            }),
        );
    }
    while at(mark) != b'\n' {
        mark = marks.next_mark();
    }
    (mark, None)
}

/// Reads one line the way the reference does, in its order, and hands over each of its values.
#[cold]
pub fn line<'a>(line: &'a [u8], mut visit: impl FnMut(Result<Sample<'a>, Reject>)) {
    let (metric, rest) = split_once(line, b"|#").unwrap_or((line, b""));
    let tags = split_once(rest, b"|#").map_or(rest, |(tags, _)| tags);
    let Some((name, values)) = split_once(metric, b":") else {
        // The reference takes a bare key for the value `1` without a type.
        return visit(Err(Reject::NoType));
    };
    for part in values.split(|byte| *byte == b':') {
        visit(value(part).map(|value| Sample { name, tags, value }));
    }
}

/// Checks and reads one value part, `value|type[|@rate]`; further fields are ignored.
fn value(part: &[u8]) -> Result<Value<'_>, Reject> {
    let mut fields = part.split(|byte| *byte == b'|');
    let text = fields.next().unwrap_or_default();
    let kind = fields.next().ok_or(Reject::NoType)?;
    let weight = match fields.next() {
        None => 1.0,
        Some(field) => 1.0 / rate(field).ok_or(Reject::BadRate)?,
    };
    // Validation looks at the type as written, what follows at the trimmed one, as in the reference:
    // `ms\r` may be negative, and a set with a trailing blank must be numeric.
    if kind == b"s" {
        return Ok(Value::Member(if text.is_empty() { b"0" } else { text }));
    }
    if text.is_empty() {
        return Err(Reject::EmptyValue);
    }
    let value = number::javascript(text).ok_or(Reject::NotANumber)?;
    if kind == b"ms" && value < 0.0 {
        return Err(Reject::NegativeTimer);
    }
    Ok(match std::str::from_utf8(kind).map(number::trim) {
        Ok("ms") => Value::Time { value, weight },
        Ok("g") => gauge(text, value),
        Ok("s") => Value::Member(text),
        _ => Value::Count(value * weight),
    })
}

/// A gauge value is a change when its first character is a sign, and a level otherwise.
#[inline]
fn gauge(text: &[u8], value: f64) -> Value<'_> {
    match text.first() {
        Some(b'+' | b'-') => Value::GaugeAdd(value),
        _ => Value::GaugeSet(value),
    }
}

/// The number in a rate field, or `None` when the reference refuses it or would crash on it.
///
/// The reference checks the whole field as a number and then uses its leading run of digits and
/// points only, so `@1e-1` is 1 and `@0x10` is 0; where that run is empty (`@+1`, `@Infinity`) it
/// crashes, and here the line is bad.
fn rate(field: &[u8]) -> Option<f64> {
    let [b'@', text @ ..] = field else {
        return None;
    };
    if text.is_empty() {
        return None;
    }
    number::javascript(text)?;
    let run = text
        .iter()
        .take_while(|b| b.is_ascii_digit() || **b == b'.')
        .count();
    if run == 0 {
        return None;
    }
    number::javascript(&text[..run])
}

fn split_once<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes
        .windows(separator.len())
        .position(|window| window == separator)?;
    Some((&bytes[..at], &bytes[at + separator.len()..]))
}
