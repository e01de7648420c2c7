//! Values of options as people write them: rates, counts, durations, addresses, names.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use crate::pace::Rate;

pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| {
        format!("{error}; expected HOST:PORT, e.g. 127.0.0.1:8125 or [::1]:8125")
    })?;
    found.next().ok_or_else(|| "the name has no address".into())
}

/// A whole number, with k, M or G for a thousand, a million, a milliard.
pub(crate) fn whole(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'M')) => (&text[..at], 1e6),
        Some((at, 'G')) => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    let wrong = || format!("`{text}` is no number like 500, 20k, 1.5M or 1G");
    let number = decimal(digits).ok_or_else(wrong)? * unit;
    // What 1.1M becomes in binary is not whole by a hair.
    let rounded = number.round();
    if !(1.0..=1e15).contains(&rounded) || (number - rounded).abs() > 1e-6 * rounded.min(1e3) {
        return Err(format!("`{text}` is not a whole number from 1 to 1e15"));
    }
    Ok(rounded as u64)
}

/// Digits with at most one point: no sign, exponent, infinity.
fn decimal(text: &str) -> Option<f64> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| plain)
}

pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        Ok(Rate::Max)
    } else {
        whole(text).map(Rate::Paced)
    }
}

pub(crate) fn names(text: &str) -> Result<u32, String> {
    let number = whole(text)?;
    u32::try_from(number)
        .ok()
        .filter(|number| *number <= 10_000_000)
        .ok_or_else(|| "at most 10M".into())
}

pub(crate) fn percent(text: &str) -> Result<u32, String> {
    let percent = text.parse().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| "expected a whole number from 0 to 100".into())
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let at = text
        .find(|character: char| character.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" => return Err(format!("`{text}` has no unit: write 500ms, {text}s or 2m")),
        _ => return Err(format!("`{unit}` is no unit; known are us, ms, s, m and h")),
    };
    let number = decimal(digits).ok_or_else(|| format!("`{digits}` is no number"))?;
    let duration = Duration::try_from_secs_f64(number * seconds).ok();
    duration
        .filter(|duration| !duration.is_zero() && duration.as_secs() <= 31_536_000)
        .ok_or_else(|| "expected more than nothing and at most a year".into())
}

pub(crate) fn prefix(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.is_empty() || text.len() > 1000 || !text.bytes().all(allowed) {
        return Err(
            "expected 1 to 1000 letters, digits, `.`, `_` or `-`: servers rewrite other names"
                .into(),
        );
    }
    Ok(text.into())
}

pub(crate) fn sample_rate(text: &str) -> Result<String, String> {
    match decimal(text) {
        Some(rate) if rate > 0.0 && rate <= 1.0 => Ok(text.into()),
        _ => Err("expected a decimal above 0, at most 1, e.g. 0.1".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_counts_are_read_as_people_write_them() {
        for (text, number) in [
            ("1", 1),
            ("500", 500),
            ("20k", 20_000),
            ("1.5M", 1_500_000),
            ("1.1M", 1_100_000),
            ("2G", 2_000_000_000),
        ] {
            assert_eq!(whole(text), Ok(number), "{text}");
        }
        for text in [
            "", "k", "0", "-1", "1.5", "0.0001k", "1e6", "inf", "nan", "1m", "1 k", "2000000G", "µ",
        ] {
            assert!(whole(text).is_err(), "{text}");
        }
        assert_eq!(rate("max"), Ok(Rate::Max));
        assert_eq!(rate("1M"), Ok(Rate::Paced(1_000_000)));
    }

    #[test]
    fn durations_need_a_unit() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        assert_eq!(
            duration("10").unwrap_err(),
            "`10` has no unit: write 500ms, 10s or 2m"
        );
        for text in ["", "s", "0s", "-1s", "1d", "1.2.3s", "9000h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_servers_would_rewrite_are_refused() {
        assert_eq!(prefix("a.b_c-D9"), Ok("a.b_c-D9".into()));
        for text in ["", "a b", "a/b", "a:b", "a|b", "a\nb", "ä"] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sample_rates_stay_as_written() {
        assert_eq!(sample_rate("0.10"), Ok("0.10".into()));
        for text in ["0", "1.1", "-0.5", "1e-1", "nan", ""] {
            assert!(sample_rate(text).is_err(), "{text}");
        }
    }
}
