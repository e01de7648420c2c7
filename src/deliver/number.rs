//! `f64` -> text, byte for byte as JavaScript prints it.

/// Below it every whole number is a double of its own.
const SAFE_INTEGER: f64 = 9_007_199_254_740_992.0;
/// Below it a number of thousandths has 15 digits at most.
const FIFTEEN_DIGITS: f64 = 1e12;

/// Appends a number as JavaScript's `String(value)`: integers plain up to 10^21, the shortest
/// decimals that read back, exponents outside 10^-7 .. 10^21, `NaN`, `Infinity`, and `0` for -0.
///
/// The general way costs 27 ns; where the form is certain to be the same, a faster printer of shortest
/// decimals takes 15. Integers below 2^53 and decimals of up to three places, which most values of real life
/// are, need no search for the shortest and cost a few.
#[inline]
pub fn write(out: &mut Vec<u8>, value: f64) {
    let magnitude = value.abs();
    if magnitude < SAFE_INTEGER {
        let whole = magnitude as i64;
        if whole as f64 == magnitude {
            sign(out, value < 0.0);
            return integer(out, whole as u64);
        }
        // The quotient is the double next to that decimal. Two decimals of 15 digits are never next to the
        // same double, so no shorter one reads back as this.
        let thousandths = (magnitude * 1000.0 + 0.5) as i64;
        if magnitude < FIFTEEN_DIGITS && thousandths as f64 / 1000.0 == magnitude {
            sign(out, value < 0.0);
            return decimal(out, thousandths as u64);
        }
    }
    shortest(out, value);
}

/// Everything that has more than a few digits.
fn shortest(out: &mut Vec<u8>, value: f64) {
    if (1e-5..SAFE_INTEGER).contains(&value.abs()) {
        // Here both print the shortest digits with a point and no exponent.
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.extend_from_slice(ryu_js::Buffer::new().format(value).as_bytes());
    }
}

#[inline]
fn sign(out: &mut Vec<u8>, negative: bool) {
    if negative {
        out.push(b'-');
    }
}

/// Appends a whole number below 10^16.
#[inline]
fn integer(out: &mut Vec<u8>, value: u64) {
    const EIGHT_DIGITS: u64 = 100_000_000;
    if value < EIGHT_DIGITS {
        significant(out, value);
    } else {
        significant(out, value / EIGHT_DIGITS);
        out.extend_from_slice(&digits(value % EIGHT_DIGITS).to_le_bytes());
    }
}

/// Appends a number of thousandths that are no whole number.
#[inline]
fn decimal(out: &mut Vec<u8>, thousandths: u64) {
    integer(out, thousandths / 1000);
    let places = thousandths % 1000;
    let [a, b, c] = [places / 100, places / 10 % 10, places % 10].map(|digit| digit as u8 + b'0');
    let zeros = match (b, c) {
        (b'0', b'0') => 2,
        (_, b'0') => 1,
        _ => 0,
    };
    padded(out, [b'.', a, b, c], 4 - zeros);
}

/// Appends a number below 10^8 without zeros before it.
#[inline]
fn significant(out: &mut Vec<u8>, value: u64) {
    let digits = digits(value);
    // The zeros before the number are the low digits of its bytes; the last digit always stays.
    let zeros = ((digits & 0x0f0f_0f0f_0f0f_0f0f) | (1 << 56)).trailing_zeros() / 8;
    padded(
        out,
        (digits >> (zeros * 8)).to_le_bytes(),
        8 - zeros as usize,
    );
}

/// Appends the first `len` of these. All of them are written first, which is one store and no call.
#[inline]
fn padded<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N], len: usize) {
    let end = out.len() + len;
    out.extend_from_slice(&bytes);
    out.truncate(end);
}

/// The eight digits of a number below 10^8 in ASCII, the first one in the lowest byte.
///
/// Halves are parted in all lanes of the word at once; each product by a fraction of a power of two is
/// exact for the values that a lane can have.
#[inline]
fn digits(value: u64) -> u64 {
    let fours = (value / 10_000) | ((value % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x7f_0000_007f;
    let twos = hundreds | ((fours - hundreds * 100) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    let ones = tens | ((twos - tens * 10) << 8);
    ones | 0x3030_3030_3030_3030
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: f64) -> String {
        let mut out = Vec::new();
        write(&mut out, value);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn numbers_as_javascript_prints_them() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-7.0, "-7"),
            (0.1, "0.1"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (123456789012345680000.0, "123456789012345680000"),
            (1e21, "1e+21"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
            (0.30000000000000004, "0.30000000000000004"),
            (1e16, "10000000000000000"),
            (5e-324, "5e-324"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (9007199254740993.0, "9007199254740992"),
            (-2.5e-5, "-0.000025"),
            (-0.001, "-0.001"),
            (0.0005, "0.0005"),
            (10.01, "10.01"),
            (120.5, "120.5"),
            (99_999_999.0, "99999999"),
            (100_000_000.0, "100000000"),
            (1_000_000_010.25, "1000000010.25"),
            (999_999_999_999.999, "999999999999.999"),
            (1_000_000_000_000.001, "1000000000000.001"),
            (9_007_199_254_740_991.0, "9007199254740991"),
        ] {
            assert_eq!(text(value), expected);
        }
    }

    proptest! {
        #[test]
        fn every_way_prints_the_same(
            value in prop_oneof![
                any::<f64>(),
                -1e17..1e17f64,
                -1e-3..1e-3f64,
                (-1e9..1e9f64).prop_map(|v| (v * 100.0).round() / 100.0),
                (-1e13..1e13f64).prop_map(|v| v.round() / 1000.0),
                // Next to a decimal of few places, but not it.
                (-1e13..1e13f64).prop_map(|v| (v.round() / 1000.0).next_up()),
                (0..20u32, any::<u64>()).prop_map(|(n, v)| (v % 10u64.pow(n)) as f64),
            ],
        ) {
            let general = ryu_js::Buffer::new().format(value).to_owned();
            prop_assert_eq!(text(value), if value == 0.0 { "0".to_owned() } else { general });
        }
    }
}
