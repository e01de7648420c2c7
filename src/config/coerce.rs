//! JavaScript's own conversions: what the reference makes of a value that has another type.

use super::secret::without_credentials;
use super::value::Value;

/// `Number(value)`; NaN when there is no number in it.
pub(super) fn number(value: &Value) -> f64 {
    match value {
        Value::Undefined | Value::Map(_) | Value::Regex { .. } => f64::NAN,
        Value::Null => 0.0,
        Value::Bool(flag) => f64::from(u8::from(*flag)),
        Value::Number(number) => *number,
        Value::String(text) => text_number(text),
        Value::List(_) => text_number(&string(value)),
    }
}

/// `Number("...")`: blanks around are ignored, nothing else is.
pub(super) fn text_number(text: &str) -> f64 {
    let text = text.trim_matches(is_blank);
    for (prefix, radix) in [
        ("0x", 16),
        ("0X", 16),
        ("0o", 8),
        ("0O", 8),
        ("0b", 2),
        ("0B", 2),
    ] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return whole(digits, radix);
        }
    }
    match text {
        "" => 0.0,
        "Infinity" | "+Infinity" => f64::INFINITY,
        "-Infinity" => f64::NEG_INFINITY,
        // Rust reads `inf` and `nan` in any case, JavaScript does not.
        _ if text
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) =>
        {
            text.parse().unwrap_or(f64::NAN)
        }
        _ => f64::NAN,
    }
}

/// Whole digits in any radix.
pub(super) fn whole(digits: &str, radix: u32) -> f64 {
    if digits.is_empty() {
        return f64::NAN;
    }
    // Correct to the last bit up to 2^53, which is past every limit a setting has.
    digits
        .chars()
        .try_fold(0.0, |sum, c| {
            Some(sum * f64::from(radix) + f64::from(c.to_digit(radix)?))
        })
        .unwrap_or(f64::NAN)
}

/// `String(value)`.
pub(super) fn string(value: &Value) -> String {
    match value {
        Value::Undefined => "undefined".into(),
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number_text(*number),
        Value::String(text) => text.clone(),
        Value::List(nodes) => {
            let items = nodes.iter().map(|node| match &node.value {
                Value::Undefined | Value::Null => String::new(),
                value => string(value),
            });
            items.collect::<Vec<_>>().join(",")
        }
        Value::Map(_) => "[object Object]".into(),
        Value::Regex { source, flags } => format!("/{source}/{flags}"),
    }
}

/// `String(number)`: the shortest decimal that reads back as the same double.
pub(super) fn number_text(number: f64) -> String {
    ryu_js::Buffer::new().format(number).to_owned()
}

/// The part of a metric name that a percentile's text becomes.
pub(super) fn percentile_label(text: &str) -> String {
    text.replacen('.', "_", 1).replacen('-', "top", 1)
}

/// The part of a metric name that a bin's text becomes.
pub(super) fn bin_label(text: &str) -> String {
    text.replacen('.', "_", 1)
}

/// A value as an error shows it: short, on one line, without the password of an address.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let hidden = without_credentials(text);
            format!("{:?}", cut(hidden.as_deref().unwrap_or(text)))
        }
        Value::Regex { .. } => cut(&string(value)),
        Value::List(nodes) if nodes.is_empty() => "an empty list".into(),
        Value::List(_) => "a list".into(),
        Value::Map(_) => "an object".into(),
        _ => string(value),
    }
}

/// A value as messages name its type.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Undefined => "undefined",
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::List(_) => "a list",
        Value::Map(_) => "an object",
        Value::Regex { .. } => "a regular expression",
    }
}

fn cut(text: &str) -> String {
    let end = text.char_indices().nth(40).map_or(text.len(), |(at, _)| at);
    let dots = if end < text.len() { "..." } else { "" };
    format!("{}{dots}", &text[..end])
}

/// White space as `\s` and `Number()` see it.
pub(super) fn is_blank(c: char) -> bool {
    matches!(
        c,
        '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'
            ..='\u{200a}'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{202f}'
                | '\u{205f}'
                | '\u{3000}'
                | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_text_are_those_of_javascript() {
        for (text, want) in [
            ("500", 500.0),
            (" 5\n", 5.0),
            ("\u{feff}5\u{a0}", 5.0),
            ("", 0.0),
            ("   ", 0.0),
            ("0x10", 16.0),
            ("0b11", 3.0),
            ("0O17", 15.0),
            ("1e3", 1000.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("+1E-2", 0.01),
            ("-7", -7.0),
            ("00012", 12.0),
            ("Infinity", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ] {
            assert_eq!(text_number(text), want, "{text:?}");
        }
        for text in [
            "abc", "inf", "nan", "infinity", "NaN", "1_000", "0x", "-0x10", "0xg", "1e", ".",
            "--5", "- 5", "5ms", "1,5",
        ] {
            assert!(text_number(text).is_nan(), "{text:?}");
        }
    }

    #[test]
    fn labels_are_cleaned_once_a_sign() {
        for (number, label) in [
            (90.0, "90"),
            (99.9, "99_9"),
            (-10.0, "top10"),
            (-99.99, "top99_99"),
            (1e-7, "1etop7"),
            (-0.0, "0"),
        ] {
            assert_eq!(percentile_label(&number_text(number)), label);
        }
        assert_eq!(percentile_label("-1e-7"), "top1e-7");
        for (number, label) in [(0.01, "0_01"), (50.0, "50"), (-5.0, "-5"), (1e21, "1e+21")] {
            assert_eq!(bin_label(&number_text(number)), label);
        }
    }

    #[test]
    fn long_text_is_cut_in_errors() {
        let text = "ü".repeat(41);
        assert_eq!(
            shown(&Value::String(text)),
            format!("\"{}...\"", "ü".repeat(40))
        );
        assert_eq!(shown(&Value::String("a\nb".into())), "\"a\\nb\"");
        let address = Value::String("http://me:hush@host".into());
        assert_eq!(shown(&address), "\"http://********@host\"");
        let regex = |source: &str| Value::Regex {
            source: source.into(),
            flags: "g".into(),
        };
        assert_eq!(shown(&regex("a\\.b")), "/a\\.b/g");
        let long = format!("/{}...", "a".repeat(39));
        assert_eq!(shown(&regex(&"a".repeat(50))), long);
    }
}
