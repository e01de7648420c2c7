//! How much CPU time a thread or a process has used: clock_gettime(2) on their clocks, to the nanosecond.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;

/// Largest number of a process that any Linux gives.
const PID_MAX: libc::pid_t = 1 << 22;

/// The clock of one thread of this process, or of a whole process. It runs in user and system time alike.
#[derive(Debug, Clone, Copy)]
pub struct CpuClock(libc::clockid_t);

impl CpuClock {
    /// That of the calling thread; any thread of the process may read it.
    ///
    /// # Errors
    /// What pthread_getcpuclockid(3) says.
    pub fn of_this_thread() -> io::Result<Self> {
        let mut clock = 0;
        // SAFETY: the calling thread is alive; the function fills the clockid, which lives across the call.
        let error = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
        answered(error, clock)
    }

    /// That of a process, all its threads together, those that ended included.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of_process(process: u32) -> io::Result<Self> {
        // Larger ones do not fit into the number of a clock: it would be some other clock's.
        let process = libc::pid_t::try_from(process)
            .ok()
            .filter(|process| *process <= PID_MAX);
        let process = process.ok_or(io::ErrorKind::NotFound)?;
        let mut clock = 0;
        // SAFETY: the function takes a number and fills the clockid, which lives across the call.
        let error = unsafe { libc::clock_getcpuclockid(process, &raw mut clock) };
        answered(error, clock)
    }

    /// CPU time used since the thread or process began, in nanoseconds.
    ///
    /// # Errors
    /// When it has ended.
    pub fn used_ns(self) -> io::Result<u64> {
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: clock_gettime(2) takes any number for a clock, fills the timespec, which is valid for the
        // call, and does not keep it.
        super::check(unsafe { libc::clock_gettime(self.0, time.as_mut_ptr()) })?;
        // SAFETY: the result 0 says that both fields were written.
        let time = unsafe { time.assume_init() };
        Ok(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
    }
}

/// These two return the error instead of setting errno.
fn answered(error: libc::c_int, clock: libc::clockid_t) -> io::Result<CpuClock> {
    match error {
        0 => Ok(CpuClock(clock)),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn a_busy_thread_is_told_from_one_that_waits() {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let waiting = thread::spawn(move || {
            tell.send(CpuClock::of_this_thread().expect("a clock"))
                .expect("it listens");
            ended.recv().expect_err("it is dropped");
        });
        let other = told.recv().expect("its clock");
        let mine = CpuClock::of_this_thread().expect("a clock");
        let all = CpuClock::of_process(std::process::id()).expect("a clock");
        let before = [mine, all, other].map(|clock| clock.used_ns().expect("it runs"));
        while mine.used_ns().expect("it runs") < before[0] + 20_000_000 {}
        let used = all.used_ns().expect("it runs") - before[1];
        assert!(used >= 20_000_000, "{used}");
        let waited = other.used_ns().expect("it runs") - before[2];
        assert!(waited < 20_000_000, "{waited}");
        drop(end);
        waiting.join().expect("it ends");
    }

    #[test]
    fn a_process_that_is_not_there_has_no_clock() {
        assert!(CpuClock::of_process(u32::MAX).is_err());
        assert!(CpuClock::of_process(i32::MAX.cast_unsigned()).is_err());
        assert!(CpuClock::of_process(PID_MAX.cast_unsigned()).is_err());
    }
}
