//! Numbers as people read them.

use std::time::Duration;

/// Three significant digits and a unit: 950, 12.3k, 4.00M.
pub(crate) fn si(number: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    // From where on three digits round up to the next unit.
    let (scale, unit) = units
        .into_iter()
        .find(|(scale, _)| number >= 0.9995 * scale)
        .unwrap_or((1.0, ""));
    let scaled = number / scale;
    let decimals = match scaled {
        _ if unit.is_empty() && scaled.fract() == 0.0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$}{unit}")
}

/// A time as people say it: 55 us, 1.2 ms, 3.4 s.
pub(crate) fn short_time(time: Duration) -> String {
    let microseconds = time.as_secs_f64() * 1e6;
    match microseconds {
        ..999.5 => format!("{microseconds:.0} us"),
        ..999_950.0 => format!("{:.1} ms", microseconds / 1e3),
        _ => format!("{:.1} s", microseconds / 1e6),
    }
}

/// Thousands apart: 1,234,567.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_round_upwards_into_the_next_unit() {
        for (number, text) in [
            (0.0, "0"),
            (7.25, "7.25"),
            (950.0, "950"),
            (999.6, "1.00k"),
            (12_345.0, "12.3k"),
            (999_600.0, "1.00M"),
            (4e9, "4.00G"),
        ] {
            assert_eq!(si(number), text);
        }
        assert_eq!(short_time(Duration::from_nanos(55_400)), "55 us");
        assert_eq!(short_time(Duration::from_micros(1_250)), "1.2 ms");
        assert_eq!(short_time(Duration::from_millis(3_400)), "3.4 s");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
