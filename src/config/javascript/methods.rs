//! The methods of texts and lists, and the functions that stand alone.
//!
//! A text of JavaScript is UTF-16: lengths and places count its units. A text that would end up with
//! half of a pair of units is refused, since nothing here could hold it.

use super::super::Place;
use super::super::coerce::{self, number, string};
use super::super::value::{Node, Value, truthy};
use super::operators::strictly_equal;

/// Functions that need no object.
pub(super) const FUNCTIONS: [&str; 5] = ["parseInt", "parseFloat", "Number", "String", "Boolean"];

/// Functions of `Math`.
pub(super) const MATH: [&str; 7] = ["abs", "ceil", "floor", "max", "min", "round", "trunc"];

/// Methods of a text.
pub(super) const TEXT_METHODS: [&str; 18] = [
    "charAt",
    "concat",
    "endsWith",
    "includes",
    "indexOf",
    "replace",
    "replaceAll",
    "slice",
    "split",
    "startsWith",
    "substr",
    "substring",
    "toLowerCase",
    "toString",
    "toUpperCase",
    "trim",
    "trimEnd",
    "trimStart",
];

/// Methods of a list. Those that change it in JavaScript may: nobody can look at it a second time.
pub(super) const LIST_METHODS: [&str; 9] = [
    "concat", "includes", "indexOf", "join", "pop", "reverse", "shift", "slice", "toString",
];

/// Why a method has no value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There would be more text than there may be.
    TooLong,
    /// Half of a pair of UTF-16 units would be left.
    HalfPair,
    /// A regular expression that is more than plain text.
    Pattern,
    /// `replaceAll` wants a regular expression with the flag g.
    NotGlobal,
    /// Arguments that this method does not take here.
    Arguments,
}

type Outcome = Result<Value, Trouble>;

/// One of [`FUNCTIONS`].
pub(super) fn function(name: &str, arguments: &[Value]) -> Outcome {
    let first = arguments.first();
    let or_undefined = first.unwrap_or(&Value::Undefined);
    Ok(match name {
        "parseInt" => {
            let radix = arguments.get(1).map_or(0.0, number);
            Value::Number(parse_int(&string(or_undefined), radix)?)
        }
        "parseFloat" => Value::Number(parse_float(&string(or_undefined))),
        "Number" => Value::Number(first.map_or(0.0, number)),
        "String" => Value::String(first.map(string).unwrap_or_default()),
        _ => Value::Bool(truthy(or_undefined)),
    })
}

/// One of [`MATH`].
pub(super) fn math(name: &str, arguments: &[Value]) -> Value {
    let first = arguments.first().map_or(f64::NAN, number);
    let extreme = |start: f64, pick: fn(f64, f64) -> f64| {
        let numbers = arguments.iter().map(number);
        numbers.fold(start, |a, b| {
            if a.is_nan() || b.is_nan() {
                f64::NAN
            } else {
                pick(a, b)
            }
        })
    };
    Value::Number(match name {
        "abs" => first.abs(),
        "ceil" => first.ceil(),
        "floor" => first.floor(),
        "max" => extreme(f64::NEG_INFINITY, f64::max),
        "min" => extreme(f64::INFINITY, f64::min),
        // Halves go up, also those below zero; what is whole stays.
        "round" if first - first.floor() < 0.5 => first.floor().copysign(first),
        "round" => first.ceil().copysign(first),
        _ => first.trunc(),
    })
}

/// One of [`TEXT_METHODS`]; no text it makes is longer than `room` bytes.
pub(super) fn of_text(
    text: &str,
    name: &str,
    arguments: &[Value],
    place: Place,
    room: usize,
) -> Outcome {
    let argument = |at: usize| arguments.get(at).unwrap_or(&Value::Undefined);
    let pattern = || string(argument(0));
    let at_most = |count: usize| {
        if arguments.len() > count {
            Err(Trouble::Arguments)
        } else {
            Ok(())
        }
    };
    let plain = || match argument(0) {
        Value::Regex { .. } => Err(Trouble::Arguments),
        _ => at_most(1),
    };
    Ok(match name {
        "charAt" => {
            let at = whole(argument(0), 0.0);
            units(text, at, at + 1.0)?
        }
        "concat" => {
            let mut out = Text::start(text, room)?;
            arguments
                .iter()
                .try_for_each(|value| out.push(&string(value)))?;
            Value::String(out.text)
        }
        "endsWith" => {
            plain()?;
            Value::Bool(text.ends_with(&pattern()))
        }
        "includes" => {
            plain()?;
            Value::Bool(text.contains(&pattern()))
        }
        "indexOf" => {
            at_most(1)?;
            let found = text.find(&pattern());
            Value::Number(found.map_or(-1.0, |at| length(&text[..at])))
        }
        "replace" | "replaceAll" => {
            replace(text, name == "replaceAll", argument(0), argument(1), room)?
        }
        "slice" => {
            let len = length(text);
            let from = from_either_end(argument(0), 0.0, len);
            units(text, from, from_either_end(argument(1), len, len))?
        }
        "split" => split(text, argument(0), argument(1), place, room)?,
        "startsWith" => {
            plain()?;
            Value::Bool(text.starts_with(&pattern()))
        }
        "substr" => {
            let len = length(text);
            let from = from_either_end(argument(0), 0.0, len);
            units(text, from, from + whole(argument(1), len).clamp(0.0, len))?
        }
        "substring" => {
            let len = length(text);
            let (a, b) = (whole(argument(0), 0.0), whole(argument(1), len));
            units(text, a.min(b), a.max(b))?
        }
        "toLowerCase" => Value::String(text.to_lowercase()),
        "toUpperCase" => Value::String(text.to_uppercase()),
        "trim" => Value::String(text.trim_matches(coerce::is_blank).into()),
        "trimEnd" => Value::String(text.trim_end_matches(coerce::is_blank).into()),
        "trimStart" => Value::String(text.trim_start_matches(coerce::is_blank).into()),
        _ => Value::String(text.into()),
    })
}

/// One of [`LIST_METHODS`]; no text it makes is longer than `room` bytes.
pub(super) fn of_list(
    mut list: Vec<Node>,
    name: &str,
    arguments: Vec<Value>,
    place: Place,
    room: usize,
) -> Outcome {
    let first = arguments.first().unwrap_or(&Value::Undefined);
    Ok(match name {
        "concat" => {
            for value in arguments {
                match value {
                    Value::List(more) => list.extend(more),
                    value => list.push(Node { value, place }),
                }
            }
            Value::List(list)
        }
        "includes" | "indexOf" if arguments.len() > 1 => return Err(Trouble::Arguments),
        "includes" => {
            let is_nan = |value: &Value| matches!(value, Value::Number(n) if n.is_nan());
            let is_it = |node: &Node| {
                strictly_equal(&node.value, first) || (is_nan(&node.value) && is_nan(first))
            };
            Value::Bool(list.iter().any(is_it))
        }
        "indexOf" => {
            let found = list
                .iter()
                .position(|node| strictly_equal(&node.value, first));
            Value::Number(found.map_or(-1.0, |at| at as f64))
        }
        "join" | "toString" => {
            let separator = match first {
                Value::Undefined => ",".into(),
                _ if name == "toString" => ",".into(),
                value => string(value),
            };
            let mut out = Text::start("", room)?;
            for (at, node) in list.iter().enumerate() {
                if at > 0 {
                    out.push(&separator)?;
                }
                if !matches!(node.value, Value::Undefined | Value::Null) {
                    out.push(&string(&node.value))?;
                }
            }
            Value::String(out.text)
        }
        "pop" => list.pop().map_or(Value::Undefined, |node| node.value),
        "reverse" => {
            list.reverse();
            Value::List(list)
        }
        "shift" if list.is_empty() => Value::Undefined,
        "shift" => list.swap_remove(0).value,
        _ => {
            let len = list.len() as f64;
            let from = from_either_end(first, 0.0, len) as usize;
            let second = arguments.get(1).unwrap_or(&Value::Undefined);
            list.truncate(from_either_end(second, len, len) as usize);
            Value::List(list.drain(from.min(list.len())..).collect())
        }
    })
}

/// `text.length`.
pub(super) fn length(text: &str) -> f64 {
    text.encode_utf16().count() as f64
}

/// `text[at]`.
pub(super) fn unit(text: &str, at: u32) -> Outcome {
    let at = f64::from(at);
    if at < length(text) {
        units(text, at, at + 1.0)
    } else {
        Ok(Value::Undefined)
    }
}

/// The units from one place to before another; places outside are those at the ends.
fn units(text: &str, from: f64, to: f64) -> Outcome {
    let from = from.max(0.0) as usize;
    let len = (to.max(0.0) as usize).saturating_sub(from);
    let units: Vec<u16> = text.encode_utf16().skip(from).take(len).collect();
    let text = String::from_utf16(&units).map_err(|_| Trouble::HalfPair)?;
    Ok(Value::String(text))
}

/// The whole part of a number as arguments give it: NaN is 0.
fn whole(value: &Value, default: f64) -> f64 {
    match value {
        Value::Undefined => default,
        value => {
            let number = number(value).trunc();
            if number.is_nan() { 0.0 } else { number }
        }
    }
}

/// A place counted from the end when it is below zero, within 0 and `len`.
fn from_either_end(value: &Value, default: f64, len: f64) -> f64 {
    let at = whole(value, default);
    (if at < 0.0 { at + len } else { at }).clamp(0.0, len)
}

/// A text that grows up to a limit.
struct Text {
    text: String,
    room: usize,
}

impl Text {
    fn start(text: &str, room: usize) -> Result<Self, Trouble> {
        let mut out = Self {
            text: String::new(),
            room,
        };
        out.push(text)?;
        Ok(out)
    }

    fn push(&mut self, piece: &str) -> Result<(), Trouble> {
        if self.text.len() + piece.len() > self.room {
            return Err(Trouble::TooLong);
        }
        self.text.push_str(piece);
        Ok(())
    }
}

/// The text a pattern stands for, and whether it is for every place where it is found.
fn plain_pattern(pattern: &Value) -> Result<(String, bool), Trouble> {
    let Value::Regex { source, flags } = pattern else {
        return Ok((string(pattern), false));
    };
    if !matches!(flags.as_str(), "" | "g") {
        return Err(Trouble::Pattern);
    }
    let mut plain = String::new();
    let mut characters = source.chars();
    while let Some(c) = characters.next() {
        plain.push(match c {
            '\\' => match characters.next() {
                Some(escaped) if escaped.is_ascii_punctuation() => escaped,
                _ => return Err(Trouble::Pattern),
            },
            '^' | '$' | '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' => {
                return Err(Trouble::Pattern);
            }
            c => c,
        });
    }
    Ok((plain, flags == "g"))
}

fn replace(text: &str, all: bool, pattern: &Value, by: &Value, room: usize) -> Outcome {
    let (plain, global) = plain_pattern(pattern)?;
    if all && !global && matches!(pattern, Value::Regex { .. }) {
        return Err(Trouble::NotGlobal);
    }
    if all && plain.is_empty() && splits_pairs(text) {
        return Err(Trouble::HalfPair);
    }
    let by = string(by);
    let mut out = Text::start("", room)?;
    let mut done = 0;
    let count = if all || global { usize::MAX } else { 1 };
    for (at, found) in text.match_indices(plain.as_str()).take(count) {
        out.push(&text[done..at])?;
        done = at + found.len();
        // `$&` is what was found, `` $` `` and `$'` are what stands around it, `$$` is a dollar sign.
        let mut rest = by.as_str();
        while let Some(dollar) = rest.find('$') {
            out.push(&rest[..dollar])?;
            let (piece, len) = match rest.as_bytes().get(dollar + 1) {
                Some(b'$') => ("$", 2),
                Some(b'&') => (found, 2),
                Some(b'`') => (&text[..at], 2),
                Some(b'\'') => (&text[done..], 2),
                _ => ("$", 1),
            };
            out.push(piece)?;
            rest = &rest[dollar + len..];
        }
        out.push(rest)?;
    }
    out.push(&text[done..])?;
    Ok(Value::String(out.text))
}

/// Whether there are characters of two units in it.
fn splits_pairs(text: &str) -> bool {
    text.chars().any(|c| c.len_utf16() > 1)
}

/// What an item of a list costs beyond its text.
pub(super) const ITEM_BYTES: usize = 16;

fn split(text: &str, separator: &Value, limit: &Value, place: Place, room: usize) -> Outcome {
    let limit = match limit {
        Value::Undefined => usize::MAX,
        value => whole(value, 0.0).rem_euclid(4_294_967_296.0) as usize,
    };
    let node = |text: &str| Node {
        value: Value::String(text.into()),
        place,
    };
    let (plain, _) = plain_pattern(separator)?;
    // No list is made that would be refused right after.
    let places = (room / ITEM_BYTES).saturating_add(1).min(limit);
    let nodes: Vec<Node> = if matches!(separator, Value::Undefined) {
        vec![node(text)].into_iter().take(places).collect()
    } else if plain.is_empty() {
        if splits_pairs(text) {
            return Err(Trouble::HalfPair);
        }
        let mut buffer = [0; 4];
        let characters = text.chars().take(places);
        characters
            .map(|c| node(c.encode_utf8(&mut buffer)))
            .collect()
    } else {
        text.split(plain.as_str()).take(places).map(node).collect()
    };
    Ok(Value::List(nodes))
}

/// The number at the start of a text, in any radix.
fn parse_int(text: &str, radix: f64) -> Result<f64, Trouble> {
    let text = text.trim_start_matches(coerce::is_blank);
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let radix = if radix.is_finite() { radix } else { 0.0 };
    let (radix, digits) = match (radix, hexadecimal) {
        (0.0 | 16.0, Some(digits)) => (16, digits),
        (0.0, None) => (10, text),
        _ if (2.0..=36.0).contains(&radix) && radix.fract() == 0.0 => (radix as u32, text),
        _ => return Err(Trouble::Arguments),
    };
    let len = digits
        .find(|c: char| !c.is_digit(radix))
        .unwrap_or(digits.len());
    let digits = &digits[..len];
    if digits.is_empty() {
        return Ok(f64::NAN);
    }
    let number = if radix == 10 {
        digits.parse().unwrap_or(f64::NAN)
    } else {
        coerce::whole(digits, radix)
    };
    Ok(sign * number)
}

/// The decimal number at the start of a text.
fn parse_float(text: &str) -> f64 {
    let text = text.trim_start_matches(coerce::is_blank);
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign_len = text.len() - unsigned.len();
    if unsigned.starts_with("Infinity") {
        return coerce::text_number(&text[..sign_len + "Infinity".len()]);
    }
    let digits = |from: usize| {
        let rest = unsigned.as_bytes().get(from..).unwrap_or_default();
        rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let byte = |at: usize| unsigned.as_bytes().get(at).copied().unwrap_or_default();
    let mut len = digits(0);
    let mut mantissa = len;
    if byte(len) == b'.' {
        mantissa += digits(len + 1);
        len += 1 + digits(len + 1);
    }
    if mantissa == 0 {
        return f64::NAN;
    }
    if matches!(byte(len), b'e' | b'E') {
        let sign = usize::from(matches!(byte(len + 1), b'+' | b'-'));
        let exponent = digits(len + 1 + sign);
        if exponent > 0 {
            len += 1 + sign + exponent;
        }
    }
    coerce::text_number(&text[..sign_len + len])
}
