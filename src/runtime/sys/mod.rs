//! Every libc call of the project, behind safe functions that know nothing of metrics.
//!
//! One of the two places that may hold `unsafe` (the other is `ingest::scan`). Each block names the
//! man page's conditions it meets.

pub mod access;
pub mod cpu;
pub mod discard;
pub mod host;
pub mod limit;
pub mod memory;
pub mod pass;
pub mod poll;
pub mod privilege;
pub mod receive;
pub mod send;
pub mod socket;
pub mod thread;
pub mod time;
pub mod title;
pub mod user;
pub mod wake;

use std::io;
use std::time::Duration;

/// Turns the `-1` of a libc call into the error it stands for.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Whether a call failed because this process or the machine may open no more descriptors.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Whether accept(2) failed for the sake of the one connection it took, which is gone: Linux hands over the
/// error that was pending on it. The socket that listens is well.
pub fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::ETIMEDOUT
                | libc::ECONNRESET
                | libc::EPERM
        )
    )
}

/// A time limit as poll(2) and epoll_wait(2) take it; `None` is none.
fn milliseconds(at_most: Option<Duration>) -> libc::c_int {
    // Rounded up: waiting 0 ms over and over for the last fraction would spin.
    at_most.map_or(-1, |wait| {
        libc::c_int::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
    })
}

/// Repeats a call for as long as a signal interrupts it.
fn uninterrupted(mut call: impl FnMut() -> libc::c_int) -> io::Result<libc::c_int> {
    loop {
        match check(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_one_connection_are_none_of_the_listener() {
        let of_one = |code| is_of_one_connection(&io::Error::from_raw_os_error(code));
        assert!(of_one(libc::ENETDOWN) && of_one(libc::EPROTO) && of_one(libc::ECONNABORTED));
        assert!(!of_one(libc::EMFILE) && !of_one(libc::ENOBUFS) && !of_one(libc::ENOMEM));
    }
}
