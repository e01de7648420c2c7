//! Local time, and the clock that the kernel and systemd share.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::MaybeUninit;

/// A moment as a clock on the wall shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// Day of the month, from 1.
    pub day: u32,
    /// Month, from 0 for January.
    pub month: usize,
    /// Hour, 0 to 23.
    pub hour: u32,
    /// Minute, 0 to 59.
    pub minute: u32,
    /// Second, 0 to 60.
    pub second: u32,
}

/// A moment with its date and the time zone that was in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZonedTime {
    /// Day and time.
    pub time: LocalTime,
    /// Year of our era.
    pub year: i64,
    /// Day of the week, from 0 for Sunday.
    pub weekday: usize,
    /// How far ahead of UTC, in seconds.
    pub utc_offset_s: i64,
    /// The zone's abbreviation, e.g. `CET`.
    pub zone: String,
}

/// The local time of `unix_s` seconds since 1970; `None` for a year no `int` holds.
pub fn local_time(unix_s: i64) -> Option<LocalTime> {
    break_down(unix_s).map(|broken_down| time_of(&broken_down))
}

/// The same with date and zone.
pub fn zoned_time(unix_s: i64) -> Option<ZonedTime> {
    let broken_down = break_down(unix_s)?;
    let zone = if broken_down.tm_zone.is_null() {
        String::new()
    } else {
        // SAFETY: localtime_r(3) leaves a pointer to a NUL-terminated name of the zone, which the C
        // library keeps for as long as the process has that zone; nobody here changes it.
        let name = unsafe { CStr::from_ptr(broken_down.tm_zone) };
        name.to_string_lossy().into_owned()
    };
    Some(ZonedTime {
        time: time_of(&broken_down),
        year: i64::from(broken_down.tm_year) + 1900,
        weekday: broken_down.tm_wday as usize,
        utc_offset_s: broken_down.tm_gmtoff,
        zone,
    })
}

fn break_down(unix_s: i64) -> Option<libc::tm> {
    let seconds = libc::time_t::from(unix_s);
    let mut broken_down = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: localtime_r(3) reads a time_t and fills a tm, both are valid for the call; it keeps neither.
    let filled = unsafe { libc::localtime_r(&raw const seconds, broken_down.as_mut_ptr()) };
    if filled.is_null() {
        return None;
    }
    // SAFETY: a result other than NULL says that all fields were written.
    Some(unsafe { broken_down.assume_init() })
}

fn time_of(broken_down: &libc::tm) -> LocalTime {
    LocalTime {
        day: broken_down.tm_mday as u32,
        month: broken_down.tm_mon as usize,
        hour: broken_down.tm_hour as u32,
        minute: broken_down.tm_min as u32,
        second: broken_down.tm_sec as u32,
    }
}

/// Microseconds of `CLOCK_MONOTONIC`, for others on this machine to compare with theirs.
pub fn kernel_monotonic_us() -> u64 {
    kernel_monotonic_ns() / 1000
}

/// Nanoseconds of it.
pub fn kernel_monotonic_ns() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: clock_gettime(2) fills the timespec, which is valid for the call, and does not keep it.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()) };
    assert_eq!(result, 0, "every Linux has this clock");
    // SAFETY: the result 0 says that both fields were written.
    let time = unsafe { time.assume_init() };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_clock_runs_with_rusts() {
        let (begin, from) = (kernel_monotonic_us(), std::time::Instant::now());
        while from.elapsed().as_millis() < 2 {}
        let end = kernel_monotonic_us();
        assert!(begin > 0);
        assert!(end - begin >= 2000, "from {begin} to {end}");
    }

    #[test]
    fn an_hour_later_is_the_next_hour() {
        let zero = local_time(0).expect("1970");
        let hour = local_time(3600).expect("1970");
        assert_eq!(hour.hour, (zero.hour + 1) % 24);
        assert_eq!((hour.minute, hour.second), (zero.minute, zero.second));
        assert!(matches!((zero.day, zero.month), (1, 0) | (31, 11)));
    }

    #[test]
    fn a_date_agrees_with_its_offset() {
        // A Thursday, noon in UTC.
        let zoned = zoned_time(1_795_694_400).expect("2026");
        let since_midnight = i64::from(zoned.time.hour * 60 + zoned.time.minute) * 60;
        let ahead = (since_midnight - 12 * 3600 - zoned.utc_offset_s).rem_euclid(86_400);
        assert_eq!((zoned.year, zoned.time.month, ahead), (2026, 10, 0));
        let days_ahead = (12 * 3600 + zoned.utc_offset_s).div_euclid(86_400);
        assert_eq!(i64::from(zoned.time.day), 26 + days_ahead);
        assert_eq!(zoned.weekday as i64, 4 + days_ahead);
        assert!(!zoned.zone.is_empty());
        assert_eq!(zoned_time(i64::MAX), None);
    }

    #[test]
    fn a_year_past_every_calendar_is_none() {
        assert_eq!(local_time(i64::MAX), None);
    }
}
