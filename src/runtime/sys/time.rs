//! Local time.

#![allow(unsafe_code)]

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

/// The local time of `unix_s` seconds since 1970; `None` for a year no `int` holds.
pub fn local_time(unix_s: i64) -> Option<LocalTime> {
    let seconds = libc::time_t::from(unix_s);
    let mut broken_down = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: localtime_r(3) reads a time_t and fills a tm, both are valid for the call; it keeps neither.
    let filled = unsafe { libc::localtime_r(&raw const seconds, broken_down.as_mut_ptr()) };
    if filled.is_null() {
        return None;
    }
    // SAFETY: a result other than NULL says that all fields were written.
    let broken_down = unsafe { broken_down.assume_init() };
    Some(LocalTime {
        day: broken_down.tm_mday as u32,
        month: broken_down.tm_mon as usize,
        hour: broken_down.tm_hour as u32,
        minute: broken_down.tm_min as u32,
        second: broken_down.tm_sec as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_later_is_the_next_hour() {
        let zero = local_time(0).expect("1970");
        let hour = local_time(3600).expect("1970");
        assert_eq!(hour.hour, (zero.hour + 1) % 24);
        assert_eq!((hour.minute, hour.second), (zero.minute, zero.second));
        assert!(matches!((zero.day, zero.month), (1, 0) | (31, 11)));
    }

    #[test]
    fn a_year_past_every_calendar_is_none() {
        assert_eq!(local_time(i64::MAX), None);
    }
}
