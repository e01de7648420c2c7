//! Text -> `f64`, as JavaScript's `Number()` reads it.

use crate::metric::name::is_space;

/// Reads a number the way `Number(text)` does; `None` is its NaN.
///
/// White space around it is ignored and nothing at all is zero; decimal with exponent, `Infinity`
/// with a sign, and unsigned `0x`, `0o`, `0b`. Source: ECMA-262, StringToNumber.
pub fn javascript(bytes: &[u8]) -> Option<f64> {
    if let Some(value) = plain(bytes) {
        return Some(value);
    }
    // What is not UTF-8 would be U+FFFD to the reference, which is in no number.
    let text = trim(std::str::from_utf8(bytes).ok()?);
    if text.is_empty() {
        return Some(0.0);
    }
    if let [b'0', radix, digits @ ..] = text.as_bytes() {
        match radix {
            b'x' | b'X' => return radix_integer(digits, 4),
            b'o' | b'O' => return radix_integer(digits, 3),
            b'b' | b'B' => return radix_integer(digits, 1),
            _ => {}
        }
    }
    let (negative, unsigned) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let value = if unsigned == b"Infinity" {
        f64::INFINITY
    } else if is_decimal(unsigned) {
        // fast-float2 is exact, overflows to infinity, and takes what `is_decimal` lets through.
        fast_float2::parse(unsigned).ok()?
    } else {
        return None;
    };
    Some(if negative { -value } else { value })
}

const POWERS: [f64; 16] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// The short cut nearly every value takes: an optional sign, at most 15 digits and one point.
///
/// Such a number is an integer below 2^53 divided by a power of ten up to 10^22, both exact in
/// binary, so the one division is the correctly rounded result. `None` means "look closer".
#[inline(always)]
pub fn plain(bytes: &[u8]) -> Option<f64> {
    match bytes {
        [b'-', digits @ ..] => plain_unsigned(digits).map(|value| -value),
        [b'+', digits @ ..] => plain_unsigned(digits),
        digits => plain_unsigned(digits),
    }
}

/// [`plain`] without a sign: also exactly what the reference can use as a sample rate.
#[inline(always)]
pub fn plain_unsigned(bytes: &[u8]) -> Option<f64> {
    // 15 digits and a point; this also bounds the loop below and keeps `integer` under 10^16.
    if bytes.len() > 16 {
        return None;
    }
    let mut integer = 0u64;
    let mut point = None;
    for (at, byte) in bytes.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            integer = integer * 10 + u64::from(digit);
        } else if *byte == b'.' && point.is_none() {
            point = Some(at);
        } else {
            return None;
        }
    }
    match point {
        None if matches!(bytes.len(), 1..=15) => Some(integer as f64),
        Some(at) if bytes.len() > 1 => {
            let fraction = bytes.len() - at - 1;
            Some(if fraction == 0 {
                integer as f64
            } else {
                integer as f64 / POWERS[fraction]
            })
        }
        _ => None,
    }
}

/// Eight bytes with the same bits in each.
const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// [`plain_unsigned`] for one to eight bytes, the first of `bytes`, without a loop or a branch on how many
/// they are. `None` means "look closer".
///
/// Digits are worked on side by side in one word: pairs, then fours, then all eight (the known trick of
/// multiplying by powers of ten that lie a field apart).
#[inline(always)]
pub fn plain_short(bytes: [u8; 8], len: usize) -> Option<f64> {
    debug_assert!(matches!(len, 1..=8));
    // The text's last byte goes to the top, and zero bytes below the first read as leading zeros.
    let shift = 64 - 8 * len as u32;
    let text = u64::from_le_bytes(bytes) << (shift % 64);
    let digits = text ^ eight(b'0') << (shift % 64);
    if !all_digits(digits) {
        return with_point(text, len);
    }
    Some(whole(digits) as f64)
}

/// Whether no byte is above 9.
#[inline(always)]
fn all_digits(digits: u64) -> bool {
    (digits.wrapping_add(eight(0x76)) | digits) & eight(0x80) == 0
}

/// The number of eight digits, the first in the lowest byte.
#[inline(always)]
fn whole(digits: u64) -> u64 {
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let even = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(100 + (1_000_000 << 32));
    let odd = (pairs >> 16 & 0x0000_00ff_0000_00ff).wrapping_mul(1 + (10_000 << 32));
    even.wrapping_add(odd) >> 32
}

/// The same for digits with one point among them.
#[inline(always)]
fn with_point(text: u64, len: usize) -> Option<f64> {
    let apart = text ^ eight(b'.');
    let points = apart.wrapping_sub(eight(1)) & !apart & eight(0x80);
    if points == 0 || len == 1 {
        return None;
    }
    // Of the lowest byte found it is certain. What stood before it moves up into its place.
    let bit = points.trailing_zeros() / 8 * 8;
    let before = text & ((1 << bit) - 1);
    let after = text & (!0xff << bit);
    let text = before << 8 | after;
    let digits = text ^ eight(b'0') << (72 - 8 * len as u32);
    if !all_digits(digits) {
        return None;
    }
    Some(whole(digits) as f64 / POWERS[(56 - bit) as usize / 8])
}

/// `text.trim()` of JavaScript.
pub fn trim(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `digits[.digits*] | .digits`, then `e`, an optional sign and digits.
fn is_decimal(bytes: &[u8]) -> bool {
    let digits = |bytes: &[u8]| bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let whole = digits(bytes);
    let mut rest = &bytes[whole..];
    let mut fraction = 0;
    if let [b'.', after @ ..] = rest {
        fraction = digits(after);
        rest = &after[fraction..];
    }
    if whole + fraction == 0 {
        return false;
    }
    match rest {
        [] => true,
        [b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..] => {
            !exponent.is_empty() && digits(exponent) == exponent.len()
        }
        _ => false,
    }
}

/// Digits of a power-of-two radix, `bits` each, rounded to nearest even however many there are.
fn radix_integer(digits: &[u8], bits: u32) -> Option<f64> {
    if digits.is_empty() {
        return None;
    }
    let mut top = 0u64;
    let mut shifted = 0u32;
    for digit in digits {
        let digit = char::from(*digit).to_digit(1 << bits)?;
        for bit in (0..bits).rev() {
            let bit = u64::from(digit >> bit & 1);
            if top >> 63 == 0 {
                top = top << 1 | bit;
            } else {
                // 64 bits are held: the rest only says whether there is anything below them.
                top |= bit;
                shifted += 1;
            }
        }
    }
    if shifted == 0 {
        return Some(top as f64);
    }
    // An exponent past the range is infinity; powi alone would lose nothing, being a power of two.
    Some(if shifted > 1000 {
        f64::INFINITY
    } else {
        top as f64 * 2f64.powi(shifted as i32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Digits side by side, for every length, against the loop and the exact parser.
        #[test]
        fn eight_bytes_at_once_are_read_as_one_by_one(
            text in "[0-9]{1,8}|[0-9]{0,7}\\.[0-9]{0,7}|[0-9+\\-.eE: x\u{0}-\u{ff}]{1,8}",
            behind in any::<[u8; 8]>(),
        ) {
            let text = text.as_bytes();
            prop_assume!(text.len() <= 8);
            let mut bytes = behind;
            bytes[..text.len()].copy_from_slice(text);
            let expected = plain_unsigned(text);
            prop_assert_eq!(plain_short(bytes, text.len()), expected);
            if let Some(value) = expected {
                prop_assert_eq!(fast_float2::parse::<f64, _>(text).ok(), Some(value));
            }
        }
    }

    #[test]
    fn every_byte_that_is_no_digit_is_seen_in_every_place() {
        for byte in (0..=255u8).filter(|byte| !byte.is_ascii_digit()) {
            for at in 0..8 {
                let mut bytes = *b"12345678";
                bytes[at] = byte;
                assert_eq!(plain_short(bytes, 8), plain_unsigned(&bytes), "{bytes:?}");
                assert_eq!(plain_short(bytes, 8).is_some(), byte == b'.');
            }
        }
    }

    #[test]
    fn numbers_as_javascript_reads_them() {
        let cases: &[(&str, f64)] = &[
            ("0", 0.0),
            ("5", 5.0),
            ("5.", 5.0),
            (".5", 0.5),
            ("00012", 12.0),
            ("+7", 7.0),
            ("-3", -3.0),
            ("1e3", 1000.0),
            ("1E3", 1000.0),
            ("+1e-2", 0.01),
            ("1.e2", 100.0),
            ("0x10", 16.0),
            ("0XfF", 255.0),
            ("0b11", 3.0),
            ("0o17", 15.0),
            ("", 0.0),
            (" ", 0.0),
            (" 5 ", 5.0),
            ("\u{a0}5", 5.0),
            ("\u{feff}5\r", 5.0),
            ("Infinity", f64::INFINITY),
            ("+Infinity", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("1e400", f64::INFINITY),
            ("9007199254740993", 9007199254740992.0),
            ("123456789012345680000", 123456789012345680000.0),
            ("0.1", 0.1),
            ("0x20000000000001", 9007199254740992.0),
            ("0x20000000000003", 9007199254740996.0),
            ("123456789.123456", 123456789.123456),
            ("999999999999999", 999999999999999.0),
        ];
        for (text, value) in cases {
            assert_eq!(javascript(text.as_bytes()), Some(*value), "{text:?}");
        }
        assert_eq!(
            javascript(b"-0").map(f64::to_bits),
            Some((-0.0f64).to_bits())
        );
        let long = format!("0x1{}1", "0".repeat(40));
        assert_eq!(javascript(long.as_bytes()), Some(2f64.powi(164)));
        let huge = format!("0x{}", "f".repeat(300));
        assert_eq!(javascript(huge.as_bytes()), Some(f64::INFINITY));
    }

    #[test]
    fn what_is_not_a_number_to_javascript() {
        for text in [
            ".",
            "1_000",
            "1,5",
            "infinity",
            "NaN",
            "nan",
            "inf",
            "--5",
            "- 5",
            "+-3",
            "null",
            "12abc",
            "0x",
            "0xg",
            "-0x10",
            "+0x10",
            "0b2",
            "0o8",
            "1n",
            "1e",
            "1e+",
            "e5",
            "1.2.3",
            "5 5",
            "\u{fffd}5",
            "+",
            "-",
        ] {
            assert_eq!(javascript(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(javascript(b"5\xff"), None);
    }

    proptest! {
        #[test]
        fn the_short_cut_is_exact(text in "[+-]?[0-9]{0,9}\\.?[0-9]{0,8}") {
            if let Some(value) = plain(text.as_bytes()) {
                prop_assert_eq!(value.to_bits(), text.parse::<f64>().expect("decimal").to_bits());
            }
        }

        #[test]
        fn every_double_comes_back(value in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
            prop_assert_eq!(javascript(format!("{value:e}").as_bytes()), Some(value));
            prop_assert_eq!(javascript(format!("{value}").as_bytes()), Some(value));
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            javascript(&bytes);
        }
    }
}
