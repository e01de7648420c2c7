//! How many descriptors this process may have open: getrlimit(2), setrlimit(2).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Raises this process's limit on open descriptors as far as the system lets it (the hard limit). Returns it.
///
/// The soft limit is low, often 1024, for the sake of programs that use select(2). This one does not.
///
/// # Errors
/// What getrlimit(2) or setrlimit(2) says.
pub fn raise_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is an rlimit that lives across the call, which fills it.
    super::check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is an rlimit that lives across the call, which only reads it.
        super::check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    }
    Ok(limit.rlim_cur)
}

/// The number that the next descriptor would get: the kernel gives the lowest that is free, so at least so
/// many are open. `any` is any that is open.
///
/// # Errors
/// When there is none left.
pub fn next_descriptor(any: BorrowedFd<'_>) -> io::Result<u64> {
    let next = any.try_clone_to_owned()?;
    Ok(next.as_raw_fd().unsigned_abs().into())
}

/// The error of a process that may open no more descriptors.
pub fn out_of_descriptors() -> io::Error {
    io::Error::from_raw_os_error(libc::EMFILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_highest_there_is() {
        let raised = raise_descriptors().expect("setrlimit");
        let limits = std::fs::read_to_string("/proc/self/limits").expect("procfs");
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .expect("a line for descriptors");
        let values: Vec<_> = line.split_whitespace().skip(3).take(2).collect();
        assert_eq!(values, [raised.to_string(), raised.to_string()]);
    }
}
