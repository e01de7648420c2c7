//! Local dates: the parts a log writes, and moments as JavaScript's `Date` prints them.

use super::sys::time::{LocalTime, ZonedTime, local_time, zoned_time};
use std::time::{SystemTime, UNIX_EPOCH};

/// The months as log, syslog and dates call them.
pub(super) const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// The local time now, which every line of a log begins with.
pub(super) fn now() -> Option<LocalTime> {
    let unix_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    local_time(unix_s.cast_signed())
}

/// A moment as JavaScript's `String(new Date(..))`, in local time, e.g. `Sun Nov 22 2026 10:40:59
/// GMT+0000 (Coordinated Universal Time)`.
///
/// Node.js knows long names of time zones; here there are the long name of UTC and the abbreviations of
/// all others.
pub fn javascript(unix_s: i64) -> String {
    text(zoned_time(unix_s))
}

fn text(moment: Option<ZonedTime>) -> String {
    let Some(ZonedTime {
        time,
        year,
        weekday,
        utc_offset_s,
        zone,
    }) = moment
    else {
        return "Invalid Date".into();
    };
    let zone = match zone.as_str() {
        "UTC" => "Coordinated Universal Time",
        zone => zone,
    };
    let sign = if utc_offset_s < 0 { '-' } else { '+' };
    let ahead = utc_offset_s.abs() / 60;
    format!(
        "{} {} {:02} {year:04} {:02}:{:02}:{:02} GMT{sign}{:02}{:02} ({zone})",
        DAYS[weekday % 7],
        MONTHS[time.month % 12],
        time.day,
        time.hour,
        time.minute,
        time.second,
        ahead / 60,
        ahead % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(utc_offset_s: i64, zone: &str) -> Option<ZonedTime> {
        Some(ZonedTime {
            time: LocalTime {
                day: 2,
                month: 10,
                hour: 7,
                minute: 5,
                second: 9,
            },
            year: 2026,
            weekday: 1,
            utc_offset_s,
            zone: zone.into(),
        })
    }

    #[test]
    fn moments_as_javascript_prints_them() {
        assert_eq!(
            text(moment(0, "UTC")),
            "Mon Nov 02 2026 07:05:09 GMT+0000 (Coordinated Universal Time)"
        );
        assert_eq!(
            text(moment(-(3 * 3600 + 1800), "NST")),
            "Mon Nov 02 2026 07:05:09 GMT-0330 (NST)"
        );
        assert_eq!(text(None), "Invalid Date");
    }
}
