//! One line in dialect auto -> its effects: DogStatsD added to the original's protocol.

use super::line::{Effect, Reason, sanitize_key};
use super::number::{is_space, parse};
use std::fmt;

/// What a line does in dialect auto.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AutoEffect {
    /// As in the original; its key has the tags in the order written.
    Plain(Effect),
    /// The same with a time of its own, Unix seconds.
    Stamped(Effect, i64),
    /// An event.
    Event,
    /// A service check.
    Check,
}

impl fmt::Display for AutoEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(effect) => write!(f, "{effect}"),
            Self::Stamped(effect, at) => write!(f, "{effect} at {at}"),
            Self::Event => write!(f, "event"),
            Self::Check => write!(f, "service-check"),
        }
    }
}

/// A line of DogStatsD's shape: `name:values|type` and fields.
struct Shape<'a> {
    name: &'a str,
    values: Vec<&'a str>,
    kind: &'a str,
    rate: Option<&'a str>,
    tags: &'a str,
    time: Option<&'a str>,
    /// The field right behind the type is none that is known.
    strange: bool,
}

/// The effects of one non-empty line without its newline, in order. `sanitize` is `keyNameSanitize`.
pub(crate) fn auto_effects(line: &[u8], sanitize: bool) -> Vec<AutoEffect> {
    let bytes = line.strip_suffix(b"\r").unwrap_or(line);
    let line = String::from_utf8_lossy(line);
    let line = line.strip_suffix('\r').unwrap_or(&line);
    if line.starts_with("_sc|") {
        let fields: Vec<&str> = line.split('|').collect();
        let good =
            fields.len() > 2 && !fields[1].is_empty() && ["0", "1", "2", "3"].contains(&fields[2]);
        return vec![if good {
            AutoEffect::Check
        } else {
            AutoEffect::Plain(Effect::Reject(Reason::BadCheck))
        }];
    }
    let shape = shape(line);
    if line.starts_with("_e{") {
        let metric = shape.as_ref().map(|shape| of_shape(shape, sanitize));
        let known = shape.as_ref().is_some_and(|shape| {
            ["c", "g", "ms", "s", "h", "d"].contains(&shape.kind.trim_matches(is_space))
        });
        let bad = |effect: &AutoEffect| matches!(effect, AutoEffect::Plain(Effect::Reject(_)));
        return match metric {
            Some(effects) if known && !effects.iter().any(bad) => effects,
            _ if is_event(bytes) => vec![AutoEffect::Event],
            _ => vec![AutoEffect::Plain(Effect::Reject(Reason::BadEvent))],
        };
    }
    match shape {
        Some(shape) => of_shape(&shape, sanitize),
        None => of_original(line, sanitize),
    }
}

fn shape(line: &str) -> Option<Shape<'_>> {
    let fields: Vec<&str> = line.split('|').collect();
    let (name, values) = fields[0].split_once(':')?;
    let kind = *fields.get(1)?;
    if kind.contains(':') || kind.starts_with('#') {
        return None;
    }
    let is_set = kind.trim_matches(is_space) == "s";
    let mut shape = Shape {
        name,
        values: if is_set {
            vec![values]
        } else {
            values.split(':').collect()
        },
        kind,
        rate: None,
        tags: "",
        time: None,
        strange: false,
    };
    let mut tagged = false;
    for (place, field) in fields[2..].iter().enumerate() {
        let origin = ["c:", "e:", "card:"];
        if let Some(tags) = field.strip_prefix('#') {
            if !tagged {
                shape.tags = tags;
            }
            tagged = true;
        } else if origin.iter().any(|prefix| field.starts_with(prefix)) {
        } else if !tagged && field.contains(':') {
            return None;
        } else if field.starts_with('@') {
            shape.rate = shape.rate.or(Some(field));
        } else if let Some(time) = field.strip_prefix('T') {
            shape.time = shape.time.or(Some(time));
        } else if place == 0 {
            shape.strange = true;
        }
    }
    Some(shape)
}

fn of_shape(shape: &Shape<'_>, sanitize: bool) -> Vec<AutoEffect> {
    let key = auto_key(shape.name, shape.tags, sanitize);
    let weight = match shape.rate {
        None => Some(1.0),
        Some(field) => weight(field),
    };
    let time = shape.time.map(seconds);
    let each = |text: &&str| {
        let reject = |reason| AutoEffect::Plain(Effect::Reject(reason));
        let Some(weight) = weight.filter(|_| !shape.strange) else {
            return reject(Reason::BadRate);
        };
        if shape.tags.len() > 8192 {
            return reject(Reason::LongTags);
        }
        if time == Some(None) {
            return reject(Reason::BadTimestamp);
        }
        match (typed(&key, text, shape.kind, weight), time) {
            (Effect::Reject(reason), _) => reject(reason),
            // A sign is no change of what was then.
            (Effect::GaugeAdd { key, value }, Some(Some(at))) => {
                AutoEffect::Stamped(Effect::GaugeSet { key, value }, at)
            }
            (effect, Some(Some(at))) => AutoEffect::Stamped(effect, at),
            (effect, _) => AutoEffect::Plain(effect),
        }
    };
    shape.values.iter().map(each).collect()
}

/// Values that have a type each.
fn of_original(line: &str, sanitize: bool) -> Vec<AutoEffect> {
    let (metric, tags) = line.split_once("|#").unwrap_or((line, ""));
    let tags = tags.split('|').next().unwrap_or("");
    let Some((name, parts)) = metric.split_once(':') else {
        return vec![AutoEffect::Plain(Effect::Reject(Reason::NoType))];
    };
    let key = auto_key(name, tags, sanitize);
    let each = |part: &str| {
        let fields: Vec<&str> = part.split('|').collect();
        let weight = match fields.get(2) {
            None => Some(1.0),
            Some(field) => weight(field),
        };
        AutoEffect::Plain(match (fields.get(1), weight) {
            (None, _) => Effect::Reject(Reason::NoType),
            (_, None) => Effect::Reject(Reason::BadRate),
            (Some(kind), Some(weight)) => match typed(&key, fields[0], kind, weight) {
                Effect::Reject(reason) => Effect::Reject(reason),
                _ if tags.len() > 8192 => Effect::Reject(Reason::LongTags),
                effect => effect,
            },
        })
    };
    parts.split(':').map(each).collect()
}

fn typed(key: &str, text: &str, kind: &str, weight: f64) -> Effect {
    let kind = kind.trim_matches(is_space);
    let key = key.to_string();
    if kind == "s" {
        let member = if text.is_empty() { "0" } else { text };
        return Effect::Member {
            key,
            member: member.to_string(),
        };
    }
    if text.is_empty() {
        return Effect::Reject(Reason::EmptyValue);
    }
    let Some(value) = parse(text) else {
        return Effect::Reject(Reason::NotANumber);
    };
    match kind {
        "ms" if value < 0.0 => Effect::Reject(Reason::NegativeTimer),
        "ms" | "h" | "d" => Effect::Time { key, value, weight },
        "g" if text.starts_with(['+', '-']) => Effect::GaugeAdd { key, value },
        "g" => Effect::GaugeSet { key, value },
        _ => Effect::Count { key, value, weight },
    }
}

/// A number above 0 without a sign, exponent and all.
fn weight(field: &str) -> Option<f64> {
    let text = field.strip_prefix('@')?;
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let weight = 1.0 / parse(text)?;
    (weight > 0.0 && weight.is_finite()).then_some(weight)
}

/// Digits alone; `i64::MAX` when they are too many.
fn seconds(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(i64::MAX))
}

fn is_event(line: &[u8]) -> bool {
    // A char for each byte: lengths are of bytes.
    let line: Vec<char> = line.iter().map(|&byte| char::from(byte)).collect();
    let text: String = line.iter().collect();
    let event = || {
        let (lengths, rest) = text.strip_prefix("_e{")?.split_once("}:")?;
        let (title, text) = lengths.split_once(',')?;
        let (title, text) = (seconds(title)? as usize, seconds(text)? as usize);
        let rest: Vec<char> = rest.chars().collect();
        let end = title.checked_add(1)?.checked_add(text)?;
        let good = title > 0
            && rest.len() >= end
            && rest[title] == '|'
            && (rest.len() == end || rest[end] == '|');
        good.then_some(())
    };
    event().is_some()
}

/// The name with its tags in the order written: no empty ones, none twice, none without a key, and the key for
/// a value that is missing.
fn auto_key(name: &str, tags: &str, sanitize: bool) -> String {
    let clean = |text: &str| {
        if sanitize {
            sanitize_key(text)
        } else {
            text.to_string()
        }
    };
    let mut pieces = name.split(';').map(clean);
    let mut key = pieces.next().unwrap_or_default();
    let mut all: Vec<String> = pieces.collect();
    for tag in tags.split(',') {
        all.push(clean(&tag.replace(';', "_").replacen(':', "=", 1)));
    }
    let mut kept: Vec<String> = Vec::new();
    for tag in all {
        let (name, value) = tag.split_once('=').unwrap_or((&tag, ""));
        let value = if value.is_empty() { name } else { value };
        let tag = format!("{name}={value}");
        if !name.is_empty() && !kept.contains(&tag) {
            kept.push(tag);
        }
    }
    for tag in kept {
        key.push(';');
        key += &tag;
    }
    key
}
