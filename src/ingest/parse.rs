//! A datagram -> its samples. Pure: no clock, no allocation, no I/O.
//!
//! Three ways, each for what the one before it leaves: a line of the shape `name:value|type` that ends within
//! its first 64 bytes is read off the marks of those; one that is longer, or has a `|@rate` or `|#tags`, off
//! marks found block by block; whatever is not of that shape goes to [`line()`], which follows the reference
//! step by step and is the specification in code; in dialect auto to [`dogstatsd::line()`], which begins with
//! what DogStatsD's clients send. All give the same for every line, which tests/differential.rs and
//! tests/dialect.rs hold them to. A plain line is the same in both dialects: only others ask which it is.

use super::dogstatsd::{self, Notice, TAGS_MAX};
use super::scan::{self, BLOCK, Marks};
use super::{Dialect, number};
use crate::metric::sample::{Reject, Sample, Value};

/// Takes what [`packet`] reads. Two ways in, so that the one nearly every line takes can be inlined.
pub trait Reader<'a> {
    /// How lines are read. Asked only about lines that are not plain.
    fn dialect(&self) -> Dialect;

    /// A value of the common shape. `window` begins with the bytes of its line.
    fn sample(&mut self, sample: Sample<'a>, window: &[u8; BLOCK]);

    /// A value, good or refused, of any other line.
    fn odd(&mut self, result: Result<Sample<'a>, Reject>, line: &'a [u8]);

    /// A value that came with its own time, in Unix seconds. Dialect auto only.
    fn stamped(&mut self, sample: Sample<'a>, at: i64, line: &'a [u8]);

    /// A line that is no metric and not bad. Dialect auto only.
    fn notice(&mut self, notice: Notice);
}

/// For who wants the values alone, in dialect statsd.
impl<'a, F: FnMut(Result<Sample<'a>, Reject>)> Reader<'a> for F {
    fn dialect(&self) -> Dialect {
        Dialect::Statsd
    }

    #[inline(always)]
    fn sample(&mut self, sample: Sample<'a>, _window: &[u8; BLOCK]) {
        self(Ok(sample));
    }

    fn odd(&mut self, result: Result<Sample<'a>, Reject>, _line: &'a [u8]) {
        self(result);
    }

    fn stamped(&mut self, _sample: Sample<'a>, _at: i64, _line: &'a [u8]) {}

    fn notice(&mut self, _notice: Notice) {}
}

/// Reads a datagram line by line and hands over each value.
/// Returns how many lines there were; empty ones are none.
#[inline(always)]
pub fn packet<'a>(bytes: &'a [u8], reader: &mut impl Reader<'a>) -> u64 {
    let mut lines = 0;
    let mut start = 0;
    while start < bytes.len() {
        let rest = &bytes[start..];
        let copy;
        let window = match rest.first_chunk::<BLOCK>() {
            Some(window) => window,
            None => {
                copy = ended(rest);
                &copy
            }
        };
        let found = scan::mask(window);
        let end = match plain_shape(rest, window, found, reader) {
            Some(end) => start + end,
            None => {
                let mut marks = Marks::resumed(bytes, start, found);
                let (end, sample) = common_shape(bytes, start, &mut marks, reader.dialect());
                match sample {
                    Some(sample) => reader.sample(sample, window),
                    None => odd(&bytes[start..end], reader),
                }
                end
            }
        };
        lines += u64::from(end > start);
        start = end + 1;
    }
    lines
}

#[cold]
#[inline(never)]
fn odd<'a>(text: &'a [u8], reader: &mut impl Reader<'a>) {
    if text.is_empty() {
        return;
    }
    match reader.dialect() {
        Dialect::Statsd => line(text, |result| reader.odd(result, text)),
        Dialect::Auto => dogstatsd::line(text, reader),
    }
}

/// The last bytes of a datagram, as many as are left, and newlines.
#[inline(always)]
fn ended(rest: &[u8]) -> [u8; BLOCK] {
    let mut window = [b'\n'; BLOCK];
    window[..rest.len()].copy_from_slice(rest);
    window
}

/// Reads a line of the shape `name:value|type` that ends inside of its window, and returns where it ends.
/// `found` are the window's delimiters.
#[inline(always)]
fn plain_shape<'a>(
    rest: &'a [u8],
    window: &[u8; BLOCK],
    found: u64,
    reader: &mut impl Reader<'a>,
) -> Option<usize> {
    let without_colon = found & found.wrapping_sub(1);
    let without_pipe = without_colon & without_colon.wrapping_sub(1);
    if without_pipe == 0 {
        return None;
    }
    let colon = found.trailing_zeros() as usize % BLOCK;
    let pipe = without_colon.trailing_zeros() as usize % BLOCK;
    let end = without_pipe.trailing_zeros() as usize % BLOCK;
    if window[colon] != b':' || window[pipe] != b'|' || window[end] != b'\n' {
        return None;
    }
    let len = pipe - colon - 1;
    let name = rest.get(..colon)?;
    // One call for each type: what follows is made for it.
    let mut take = |value| {
        let tags = &[];
        reader.sample(Sample { name, tags, value }, window);
        Some(end)
    };
    if end - pipe == 2 {
        match window[(pipe + 1) % BLOCK] {
            b'c' => take(Value::Count(number(window, colon + 1, len)?)),
            b'g' => {
                let value = number(window, colon + 1, len)?;
                take(gauge(window[(colon + 1) % BLOCK], value))
            }
            b's' if len > 0 => take(Value::Member(rest.get(colon + 1..pipe)?)),
            _ => None,
        }
    } else if end - pipe == 3 && window.get(pipe + 1..pipe + 3)? == b"ms" {
        let value = number(window, colon + 1, len).filter(|value| *value >= 0.0)?;
        take(Value::Time { value, weight: 1.0 })
    } else {
        None
    }
}

/// The number that is `len` bytes from `start` on.
#[inline(always)]
fn number(bytes: &[u8], start: usize, len: usize) -> Option<f64> {
    if (1..=8).contains(&len)
        && let Some(eight) = bytes.get(start..start + 8)
        && let Some(value) = number::plain_short(eight.try_into().expect("eight bytes"), len)
    {
        return Some(value);
    }
    long_number(bytes, start, len)
}

#[inline(never)]
fn long_number(bytes: &[u8], start: usize, len: usize) -> Option<f64> {
    number::plain(bytes.get(start..start + len)?)
}

/// Reads the line that begins at `start`: where it ends, and its sample if it is of the common shape.
/// The marks are left behind the line.
#[inline(never)]
fn common_shape<'a>(
    bytes: &'a [u8],
    start: usize,
    marks: &mut Marks<'a>,
    dialect: Dialect,
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
            // A sign is none of a rate.
            let signed = matches!(bytes.get(from), Some(b'+' | b'-'));
            rate = Some(number(bytes, from, mark - from).filter(|_| !signed));
        }
        let mut tags = &bytes[..0];
        if at(mark) == b'|' && at(mark + 1) == b'#' {
            let from = mark + 2;
            // Tags are full of colons, which mean nothing here.
            mark = scan::end_of_tags(bytes, from);
            tags = &bytes[from..mark];
            if at(mark) != b'\n' {
                *marks = Marks::from(bytes, mark + 1);
            }
        }
        if at(mark) != b'\n' || tags.len() > TAGS_MAX || tags.ends_with(b"\r") {
            break 'odd;
        }
        let weight = match rate {
            None => 1.0,
            Some(Some(rate)) if rate > 0.0 => 1.0 / rate,
            Some(_) => break 'odd,
        };
        let text = &bytes[colon + 1..pipe];
        let value = match (
            &bytes[pipe + 1..type_end],
            number(bytes, colon + 1, text.len()),
        ) {
            (b"c", Some(value)) => Value::Count(value * weight),
            (b"ms", Some(value)) if value >= 0.0 => Value::Time { value, weight },
            (b"g", Some(value)) => gauge(text.first().copied().unwrap_or(b'0'), value),
            (b"s", _) if !text.is_empty() => Value::Member(text),
            (b"h" | b"d", Some(value)) if dialect == Dialect::Auto => Value::Time { value, weight },
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
pub fn line<'a>(line: &'a [u8], visit: impl FnMut(Result<Sample<'a>, Reject>)) {
    values(line, Dialect::Statsd, visit);
}

/// [`line()`], its types and rates as a dialect has them. In dialect auto tags end at a `|`.
pub(super) fn values<'a>(
    line: &'a [u8],
    dialect: Dialect,
    mut visit: impl FnMut(Result<Sample<'a>, Reject>),
) {
    let (metric, rest) = split_once(line, b"|#").unwrap_or((line, b""));
    let end: &[u8] = match dialect {
        Dialect::Statsd => b"|#",
        Dialect::Auto => b"|",
    };
    let tags = split_once(rest, end).map_or(rest, |(tags, _)| tags);
    let Some((name, values)) = split_once(metric, b":") else {
        // The reference takes a bare key for the value `1` without a type.
        return visit(Err(Reject::NoType));
    };
    let too_long = dialect == Dialect::Auto && tags.len() > TAGS_MAX;
    for part in values.split(|byte| *byte == b':') {
        visit(match value(part, dialect) {
            Ok(_) if too_long => Err(Reject::LongTags),
            result => result.map(|value| Sample { name, tags, value }),
        });
    }
}

/// Checks and reads one value part, `value|type[|@rate]`; further fields are ignored.
fn value(part: &[u8], dialect: Dialect) -> Result<Value<'_>, Reject> {
    let mut fields = part.split(|byte| *byte == b'|');
    let text = fields.next().unwrap_or_default();
    let kind = fields.next().ok_or(Reject::NoType)?;
    let weight = match (fields.next(), dialect) {
        (None, _) => 1.0,
        (Some(field), Dialect::Statsd) => 1.0 / rate(field).ok_or(Reject::BadRate)?,
        (Some(field), Dialect::Auto) => dogstatsd::weight(field).ok_or(Reject::BadRate)?,
    };
    match dialect {
        Dialect::Statsd => typed(text, kind, weight),
        Dialect::Auto => dogstatsd::typed(text, kind, weight),
    }
}

/// Reads a value by its type as the reference does.
fn typed<'a>(text: &'a [u8], kind: &[u8], weight: f64) -> Result<Value<'a>, Reject> {
    // Validation looks at the type as written, what follows at the trimmed one, as in the reference:
    // `ms\r` may be negative, and a set with a trailing blank must be numeric.
    if kind == b"s" {
        return Ok(Value::Member(if text.is_empty() { b"0" } else { text }));
    }
    let value = numeric(text)?;
    if kind == b"ms" && value < 0.0 {
        return Err(Reject::NegativeTimer);
    }
    Ok(match std::str::from_utf8(kind).map(number::trim) {
        Ok("ms") => Value::Time { value, weight },
        Ok("g") => gauge(text.first().copied().unwrap_or(b'0'), value),
        Ok("s") => Value::Member(text),
        _ => Value::Count(value * weight),
    })
}

/// A value that has to be a number.
pub(super) fn numeric(text: &[u8]) -> Result<f64, Reject> {
    if text.is_empty() {
        return Err(Reject::EmptyValue);
    }
    number::javascript(text).ok_or(Reject::NotANumber)
}

/// A gauge value is a change when its first character is a sign, and a level otherwise.
#[inline]
pub(super) fn gauge<'a>(first: u8, value: f64) -> Value<'a> {
    match first {
        b'+' | b'-' => Value::GaugeAdd(value),
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
