//! Waiting for many sockets at once: epoll(7), level-triggered.
//!
//! Our own few lines rather than the mio crate, which knows no `EPOLLEXCLUSIVE`: without it every worker
//! of a shared listening socket wakes for every connection. Level-triggered, so that whoever takes only
//! part of what a socket has is told of it again, after the others.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// A set of sockets to wait for.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
}

/// What the last wait brought; kept between waits, so that none allocates.
#[derive(Debug)]
pub struct Events {
    list: Vec<libc::epoll_event>,
    count: usize,
}

impl Events {
    /// Room for `most` events a wait, 1 at least. What does not fit comes with the next one.
    pub fn new(most: usize) -> Self {
        Self {
            list: vec![libc::epoll_event { events: 0, u64: 0 }; most.max(1)],
            count: 0,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// There may be more than fitted.
    pub fn is_full(&self) -> bool {
        self.count == self.list.len()
    }

    /// The token of the socket that event `index` is about.
    ///
    /// # Panics
    /// When there are not so many events.
    pub fn token(&self, index: usize) -> u64 {
        self.list[..self.count][index].u64
    }
}

impl Poll {
    /// An empty set.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1 takes an integer and no memory of ours.
        let epoll = super::check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor is new, open, and owned by nobody else.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        Ok(Self { epoll })
    }

    /// Waits for `socket` too, until it is closed or removed. Its events carry `token`. When `shared`, other
    /// sets wait for the same socket, and of those that wait only one is woken.
    ///
    /// # Errors
    /// What epoll_ctl(2) says: no memory, or too many watches for this user.
    pub fn add(&self, socket: BorrowedFd<'_>, token: u64, shared: bool) -> io::Result<()> {
        let exclusive = if shared { libc::EPOLLEXCLUSIVE } else { 0 };
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | exclusive) as u32,
            u64: token,
        };
        self.control(libc::EPOLL_CTL_ADD, socket, &raw mut event)
    }

    /// No longer waits for `socket`.
    ///
    /// # Errors
    /// `NotFound` when it was not in the set.
    pub fn remove(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, socket, std::ptr::null_mut())
    }

    fn control(
        &self,
        operation: libc::c_int,
        socket: BorrowedFd<'_>,
        event: *mut libc::epoll_event,
    ) -> io::Result<()> {
        // SAFETY: both descriptors are open; `event` points to an epoll_event that lives across the call, or
        // is null for EPOLL_CTL_DEL, which ignores it. The kernel keeps a copy, not the pointer.
        super::check(unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), operation, socket.as_raw_fd(), event)
        })
        .map(drop)
    }

    /// Waits until a socket has something (or an error to report), or the time is over. None is without end.
    ///
    /// # Errors
    /// What epoll_wait(2) says; an interrupting signal is no error but an end of the wait.
    pub fn wait(&self, events: &mut Events, at_most: Option<Duration>) -> io::Result<()> {
        events.count = 0;
        let room = libc::c_int::try_from(events.list.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `list` is an array of at least `room` epoll_event, borrowed mutably across the call; the
        // kernel writes at most so many.
        let count = super::check(unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.list.as_mut_ptr(),
                room,
                super::milliseconds(at_most),
            )
        });
        match count {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => events.count = result? as usize,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    const NOW: Option<Duration> = Some(Duration::ZERO);

    fn waiting(poll: &Poll, events: &mut Events) -> Vec<u64> {
        poll.wait(events, NOW).expect("epoll_wait");
        (0..events.count()).map(|at| events.token(at)).collect()
    }

    #[test]
    fn a_socket_is_named_until_it_is_empty_and_never_once_removed() {
        let sockets: Vec<_> = (0..3)
            .map(|_| UdpSocket::bind("127.0.0.1:0").expect("bind"))
            .collect();
        let poll = Poll::new().expect("epoll");
        for (token, socket) in (7..).zip(&sockets) {
            poll.add(socket.as_fd(), token, false).expect("add");
        }
        let mut events = Events::new(2);
        assert_eq!(waiting(&poll, &mut events), [0; 0]);
        for socket in &sockets {
            let to = socket.local_addr().expect("address");
            sockets[0].send_to(b"x", to).expect("send");
        }
        let mut seen = waiting(&poll, &mut events);
        assert!(events.is_full());
        seen.extend(waiting(&poll, &mut events));
        // What did not fit comes before what was named already.
        assert_eq!(seen[..3], [7, 8, 9]);

        sockets[1].recv(&mut [0]).expect("receive");
        poll.remove(sockets[2].as_fd()).expect("remove");
        assert_eq!(waiting(&poll, &mut events), [7]);
        assert!(!events.is_full());
        assert_eq!(
            poll.remove(sockets[2].as_fd()).expect_err("gone").kind(),
            io::ErrorKind::NotFound
        );
    }
}
