//! One line -> its effects, one for each value part.

use super::number::{is_space, parse, print};
use std::fmt;

/// Why a value part is a bad line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// There is no type field; a line without a colon has none either.
    NoType,
    /// There is a rate field, and it is not a valid rate.
    BadRate,
    /// The value is empty, and the type is not `s`.
    EmptyValue,
    /// The value is not a number, and the type is not `s`.
    NotANumber,
    /// The value is below 0, and the type is `ms`.
    NegativeTimer,
    /// Dialect auto: more than 8192 bytes of tags.
    LongTags,
    /// Dialect auto: `|T` and no digits.
    BadTimestamp,
    /// Dialect auto: `_e{` and no event.
    BadEvent,
    /// Dialect auto: `_sc|` and no service check.
    BadCheck,
}

impl Reason {
    /// The fixed name, for corpus, counters and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoType => "no-type",
            Self::BadRate => "bad-rate",
            Self::EmptyValue => "empty-value",
            Self::NotANumber => "not-a-number",
            Self::NegativeTimer => "negative-timer",
            Self::LongTags => "long-tags",
            Self::BadTimestamp => "bad-timestamp",
            Self::BadEvent => "bad-event",
            Self::BadCheck => "bad-check",
        }
    }
}

/// What one value part does. `weight` is 1/rate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Add `value * weight` to a counter.
    Count {
        key: String,
        value: f64,
        weight: f64,
    },
    /// Give a timer one more value, which stands for `weight` events.
    Time {
        key: String,
        value: f64,
        weight: f64,
    },
    /// Replace a gauge.
    GaugeSet { key: String, value: f64 },
    /// Add to a gauge; replaces one that is missing, 0 or NaN.
    GaugeAdd { key: String, value: f64 },
    /// Put a member into a set.
    Member { key: String, member: String },
    /// Nothing but a bad line.
    Reject(Reason),
}

/// The notation of `tests/corpus/lines.txt`.
impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { key, value, weight } => {
                write!(f, "count {} {}", bare(key), signed(value * weight))
            }
            Self::Time { key, value, weight } => {
                write!(
                    f,
                    "time {} {} weight {}",
                    bare(key),
                    signed(*value),
                    signed(*weight)
                )
            }
            Self::GaugeSet { key, value } => {
                write!(f, "gauge-set {} {}", bare(key), signed(*value))
            }
            Self::GaugeAdd { key, value } => {
                write!(f, "gauge-add {} {}", bare(key), signed(*value))
            }
            Self::Member { key, member } => write!(f, "member {} {}", bare(key), quoted(member)),
            Self::Reject(reason) => write!(f, "reject {}", reason.name()),
        }
    }
}

/// A key as it is, or quoted where that could not be read back.
fn bare(key: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    if !key.is_empty() && key.chars().all(plain) {
        key.to_string()
    } else {
        quoted(key)
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'\n' => out += "\\n",
            b'\r' => out += "\\r",
            b'\t' => out += "\\t",
            b'\\' => out += "\\\\",
            b'"' => out += "\\x22",
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out += &format!("\\x{byte:02x}"),
        }
    }
    out + "\""
}

/// A number as the server prints it, but with the sign of -0, which a cell does keep.
fn signed(value: f64) -> String {
    if value == 0.0 && value.is_sign_negative() {
        "-0".into()
    } else {
        print(value)
    }
}

/// The effects of one non-empty line without its newline, in order. `sanitize` is `keyNameSanitize`.
pub(crate) fn effects(line: &[u8], sanitize: bool) -> Vec<Effect> {
    let line = String::from_utf8_lossy(line);
    let mut sections = line.split("|#");
    let metric = sections.next().unwrap_or("");
    let tags = sections.next().unwrap_or("");

    let mut parts = metric.split(':');
    let mut key = parts.next().unwrap_or("").to_string();
    if !tags.is_empty() {
        for tag in tags.split(',') {
            key.push(';');
            key += &tag.replacen(';', "_", 1).replacen(':', "=", 1);
        }
    }
    if sanitize {
        key = sanitize_key(&key);
    }

    let mut parts: Vec<&str> = parts.collect();
    if parts.is_empty() {
        parts.push("1");
    }
    parts.into_iter().map(|part| effect(&key, part)).collect()
}

/// White space -> `_`, `/` -> `-`, everything but `a-z A-Z 0-9 _ - . ; =` dropped.
pub(crate) fn sanitize_key(key: &str) -> String {
    let mut spaced = String::new();
    let mut in_space = false;
    for c in key.chars() {
        if !is_space(c) {
            spaced.push(c);
        } else if !in_space {
            spaced.push('_');
        }
        in_space = is_space(c);
    }
    spaced
        .replace('/', "-")
        .chars()
        .filter(|&c| c.is_ascii_alphanumeric() || "_-.;=".contains(c))
        .collect()
}

fn effect(key: &str, part: &str) -> Effect {
    let fields: Vec<&str> = part.split('|').collect();
    let text = fields[0];

    let Some(&kind) = fields.get(1) else {
        return Effect::Reject(Reason::NoType);
    };
    let mut weight = 1.0;
    if let Some(field) = fields.get(2) {
        match rate(field) {
            Some(rate) => weight = 1.0 / rate,
            None => return Effect::Reject(Reason::BadRate),
        }
    }
    // The type is not trimmed yet: `s ` and `ms\r` are checked as counters are.
    let mut value = 0.0;
    if kind != "s" {
        if text.is_empty() {
            return Effect::Reject(Reason::EmptyValue);
        }
        match parse(text) {
            Some(number) => value = number,
            None => return Effect::Reject(Reason::NotANumber),
        }
        if kind == "ms" && value < 0.0 {
            return Effect::Reject(Reason::NegativeTimer);
        }
    }

    let key = key.to_string();
    match kind.trim_matches(is_space) {
        "ms" => Effect::Time { key, value, weight },
        "g" if text.starts_with(['+', '-']) => Effect::GaugeAdd { key, value },
        "g" => Effect::GaugeSet { key, value },
        "s" if text.is_empty() => Effect::Member {
            key,
            member: "0".into(),
        },
        "s" => Effect::Member {
            key,
            member: text.to_string(),
        },
        _ => Effect::Count { key, value, weight },
    }
}

/// A valid rate is `@` and a number that does not begin with `-`; its value is only the digits and dots after the `@`.
/// Where there are none the original exits, so such a rate is not valid here.
pub(super) fn rate(field: &str) -> Option<f64> {
    let number = field.strip_prefix('@')?;
    if number.is_empty() || number.starts_with('-') {
        return None;
    }
    parse(number)?;
    let digits: String = number
        .chars()
        .take_while(|&c| c.is_ascii_digit() || c == '.')
        .collect();
    if digits.is_empty() {
        None
    } else {
        parse(&digits)
    }
}
