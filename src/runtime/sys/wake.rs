//! Waiting for a socket, and being woken from it: poll(2) and eventfd(2).
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::sync::Arc;
use std::time::Duration;

/// Wakes a thread that waits in [`Waker::wait`]. Clones wake the same thread.
///
/// A wake that comes while the thread is busy is kept for its next wait, so none is lost.
#[derive(Debug, Clone)]
pub struct Waker {
    event: Arc<File>,
}

impl Waker {
    /// A waker nobody has used yet.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes two integers and no memory of ours.
        let event =
            super::check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the descriptor is new, open, and owned by nobody else.
        let event = unsafe { File::from_raw_fd(event) };
        Ok(Self {
            event: Arc::new(event),
        })
    }

    /// Ends the current wait of the thread, or its next one.
    pub fn wake(&self) {
        // It can only fail when 2^64 wakes are pending, and then one more makes no difference.
        let _ = (&*self.event).write(&1u64.to_ne_bytes());
    }

    /// Forgets the wakes so far, for a thread that waits for the waker's descriptor by other means.
    pub fn reset(&self) {
        // It can only fail when there was none.
        let _ = (&*self.event).read(&mut [0; 8]);
    }

    /// Waits until the socket has something, somebody wakes us, or the time is over.
    /// Returns whether the socket has something (or an error to report).
    ///
    /// # Errors
    /// What poll(2) says; an interrupting signal is no error but an end of the wait.
    pub fn wait(&self, socket: BorrowedFd<'_>, at_most: Option<Duration>) -> io::Result<bool> {
        let poll = |fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut fds = [poll(socket.as_raw_fd()), poll(self.event.as_raw_fd())];
        let timeout = super::milliseconds(at_most);
        // SAFETY: `fds` is an array of two pollfd that lives across the call; both are open.
        match super::check(unsafe { libc::poll(fds.as_mut_ptr(), 2, timeout) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
            result => result?,
        };
        if fds[1].revents != 0 {
            self.reset();
        }
        Ok(fds[0].revents != 0)
    }
}

impl AsFd for Waker {
    /// Readable from a wake until the next [`Waker::reset`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_wake_before_the_wait_is_not_lost_and_counts_once() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let waker = Waker::new().expect("eventfd");
        waker.clone().wake();
        waker.wake();
        assert!(!waker.wait(socket.as_fd(), None).expect("poll"));
        assert!(
            !waker
                .wait(socket.as_fd(), Some(Duration::from_millis(1)))
                .expect("poll")
        );
        socket
            .send_to(b"x", socket.local_addr().expect("address"))
            .expect("send");
        assert!(waker.wait(socket.as_fd(), None).expect("poll"));
    }
}
