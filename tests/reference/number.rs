//! Numbers as JavaScript reads and writes them.

/// JavaScript white space, as `\s` and `trim` mean it.
pub(crate) fn is_space(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{a0}' | '\u{1680}' | '\u{2000}'
            ..='\u{200a}'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{202f}'
                | '\u{205f}'
                | '\u{3000}'
                | '\u{feff}'
    )
}

/// `Number(text)`, with `None` for NaN.
pub(crate) fn parse(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_space);
    if text.is_empty() {
        return Some(0.0);
    }
    if let Some(prefix) = text.get(..2) {
        let digits = &text[2..];
        match prefix {
            "0x" | "0X" => return parse_bits(digits, 16),
            "0o" | "0O" => return parse_bits(digits, 8),
            "0b" | "0B" => return parse_bits(digits, 2),
            _ => {}
        }
    }
    match text {
        "Infinity" | "+Infinity" => return Some(f64::INFINITY),
        "-Infinity" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    if is_decimal(text) {
        text.parse().ok()
    } else {
        None
    }
}

/// `[+-]? (digits[.digits*] | .digits) ([eE][+-]?digits)?`
fn is_decimal(text: &str) -> bool {
    let all_digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !all_digits(whole) || !all_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return false;
    }
    match exponent {
        None => true,
        Some(exponent) => {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            !digits.is_empty() && all_digits(digits)
        }
    }
}

/// An integer in a radix that is a power of two, rounded to the nearest double, ties to even.
fn parse_bits(digits: &str, radix: u32) -> Option<f64> {
    if digits.is_empty() {
        return None;
    }
    let mut bits = Vec::new();
    for c in digits.chars() {
        let digit = c.to_digit(radix)?;
        for shift in (0..radix.trailing_zeros()).rev() {
            bits.push((digit >> shift) & 1);
        }
    }
    let bits: Vec<u32> = bits.into_iter().skip_while(|&bit| bit == 0).collect();
    if bits.len() > 1024 {
        return Some(f64::INFINITY);
    }
    let (kept, dropped) = bits.split_at(bits.len().min(53));
    let mut mantissa = kept.iter().fold(0u64, |sum, &bit| sum * 2 + u64::from(bit));
    if dropped.first() == Some(&1) {
        let tie = dropped[1..].iter().all(|&bit| bit == 0);
        if !tie || mantissa % 2 == 1 {
            mantissa += 1;
        }
    }
    Some(mantissa as f64 * 2f64.powi(dropped.len() as i32))
}

/// `String(value)`: -0 is `0`.
pub(crate) fn print(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value == f64::INFINITY {
        "Infinity".into()
    } else if value == f64::NEG_INFINITY {
        "-Infinity".into()
    } else if value == 0.0 {
        "0".into()
    } else {
        ryu_js::Buffer::new().format_finite(value).into()
    }
}
