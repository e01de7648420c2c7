//! recvmmsg(2) as the plainest receiver uses it: blocking, and nobody looks at what came.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Memory for some datagrams, written over by each call.
#[derive(Debug)]
pub struct Discard {
    messages: Vec<libc::mmsghdr>,
    /// Where the messages point to.
    _vectors: Vec<libc::iovec>,
    _memory: Vec<u8>,
}

/// What one call brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discarded {
    /// Datagrams.
    pub datagrams: usize,
    /// Bytes of the last one.
    pub last: usize,
}

impl Discard {
    /// For `slots` datagrams of `room` bytes a call; what is longer is cut.
    ///
    /// # Panics
    /// When there is no slot.
    pub fn new(slots: usize, room: usize) -> Self {
        assert!(slots > 0);
        let mut memory = vec![0; slots * room];
        let mut vectors: Vec<_> = memory
            .chunks_exact_mut(room.max(1))
            .map(|slot| libc::iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: slot.len(),
            })
            .collect();
        let messages = vectors.iter_mut().map(|vector| {
            // SAFETY: mmsghdr is a plain C struct of integers and pointers; all zero is a valid value of it
            // (null pointers, no control data, no address wanted).
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
            message
        });
        Self {
            messages: messages.collect(),
            _vectors: vectors,
            _memory: memory,
        }
    }

    /// Waits for a datagram, and takes it and what else is queued (`MSG_WAITFORONE`), as far as there are
    /// slots.
    ///
    /// # Errors
    /// What recvmmsg(2) says of the socket.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<Discarded> {
        let count = super::uninterrupted(|| {
            // SAFETY: `messages` is an array of as many headers as are told; each points to one iovec, which
            // points to a slot of its own of the memory. Vectors and memory are on the heap, are neither
            // moved nor touched otherwise, and live as long as `self`, which is borrowed mutably. Name and
            // control pointers are null with length zero. The timeout may be null.
            unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    self.messages.as_mut_ptr(),
                    self.messages.len() as libc::c_uint,
                    libc::MSG_WAITFORONE,
                    std::ptr::null_mut(),
                )
            }
        })?;
        let datagrams = count as usize;
        let last = self.messages[datagrams - 1].msg_len as usize;
        Ok(Discarded { datagrams, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_queued_comes_at_once_as_far_as_there_are_slots() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("bind");
        for payload in ["a", "bb", "ccc", "", "12345"] {
            let to = socket.local_addr().expect("address");
            sender.send_to(payload.as_bytes(), to).expect("send");
        }
        let mut discard = Discard::new(2, 4);
        let mut came = Vec::new();
        for _ in 0..3 {
            let Discarded { datagrams, last } = discard.receive(socket.as_fd()).expect("receive");
            came.push((datagrams, last));
        }
        assert_eq!(came, [(2, 2), (2, 0), (1, 4)]);
    }
}
