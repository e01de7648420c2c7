//! recvmmsg(2): many datagrams in one call.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What the kernel says of one datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes written to its slot.
    pub len: usize,
    /// There was more than the slot holds; the rest is gone (`MSG_TRUNC`).
    pub truncated: bool,
    /// It is a run of datagrams of so many bytes each, the last of which may be shorter
    /// ([`super::socket::take_joined`]).
    pub segment: Option<usize>,
}

/// The kernel's view of the slots, kept between calls so that a call only rewrites what changes.
#[derive(Debug)]
pub struct Headers {
    messages: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    /// Room for what the kernel says of a run; none is wanted where there are no runs.
    controls: Vec<Control>,
}

/// Room for one control message that holds a `c_int`, aligned as its header is.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 32]);

// SAFETY: CMSG_SPACE only computes.
const _: () = assert!(unsafe { libc::CMSG_SPACE(size_of::<libc::c_int>() as u32) } <= 32);
const _: () = assert!(align_of::<libc::cmsghdr>() <= align_of::<Control>());

// SAFETY: the pointers to slots are written anew from the caller's memory at the start of each `receive`
// and not followed outside of it. Those to control messages, which `received` follows, point into
// `controls`, whose memory moves with the headers and is never resized or cloned. So all may travel
// between threads.
unsafe impl Send for Headers {}

impl Headers {
    /// Headers for `slots` datagrams, or runs of them when they come `joined`.
    pub fn new(slots: usize, joined: bool) -> Self {
        // SAFETY: mmsghdr and iovec are plain C structs of integers and pointers; all zero is a
        // valid value of both (null pointers, no control data, no address wanted).
        let (message, vector) = unsafe { std::mem::zeroed::<(libc::mmsghdr, libc::iovec)>() };
        Self {
            messages: vec![message; slots],
            vectors: vec![vector; slots],
            controls: vec![Control([0; 32]); if joined { slots } else { 0 }],
        }
    }

    /// Takes what is queued, without waiting, into slots of `room` bytes that begin every `stride`
    /// bytes of `memory`. Returns how many came; [`Headers::received`] tells of each.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is queued; otherwise what recvmmsg(2) says of the socket.
    ///
    /// # Panics
    /// When the slots do not fit into `memory`.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        memory: &mut [u8],
        stride: usize,
        room: usize,
    ) -> io::Result<usize> {
        let slots = self.messages.len();
        assert!(room <= stride);
        assert!(stride * slots <= memory.len());
        for (slot, (message, vector)) in memory
            .chunks_exact_mut(stride)
            .zip(self.messages.iter_mut().zip(&mut self.vectors))
        {
            vector.iov_base = slot.as_mut_ptr().cast();
            vector.iov_len = room;
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
        }
        for (message, control) in self.messages.iter_mut().zip(&mut self.controls) {
            message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = size_of::<Control>();
        }
        let count = super::uninterrupted(|| {
            // SAFETY: `messages` is an array of `slots` headers; each points to one iovec, which
            // points to `room` writable bytes of its own slot of `memory`, borrowed mutably for the
            // whole call; the name pointers are null with length zero, the control pointers too, or each
            // to a `Control` of its own with its size. The timeout may be null.
            unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    self.messages.as_mut_ptr(),
                    slots as libc::c_uint,
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut(),
                )
            }
        })?;
        Ok(count as usize)
    }

    /// What came into the first `count` slots at the last call.
    pub fn received(&self, count: usize) -> impl Iterator<Item = Received> {
        self.messages[..count].iter().map(|message| Received {
            len: message.msg_len as usize,
            truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            segment: segment(&message.msg_hdr),
        })
    }
}

/// The size the kernel says segments have (`UDP_GRO`), if it says one.
fn segment(header: &libc::msghdr) -> Option<usize> {
    if header.msg_controllen == 0 {
        return None;
    }
    // SAFETY: after a call the header describes `msg_controllen` bytes of control messages the kernel wrote
    // to the `Control` it was given, which lives as long as the headers; CMSG_FIRSTHDR checks that one header
    // fits, and the length it has is checked before the number behind it is read, unaligned as it may be.
    let size = unsafe {
        let first = libc::CMSG_FIRSTHDR(header);
        let wanted = libc::CMSG_LEN(size_of::<libc::c_int>() as u32) as usize;
        if first.is_null()
            || (*first).cmsg_level != libc::SOL_UDP
            || (*first).cmsg_type != libc::UDP_GRO
            || (*first).cmsg_len < wanted
        {
            return None;
        }
        libc::CMSG_DATA(first)
            .cast::<libc::c_int>()
            .read_unaligned()
    };
    usize::try_from(size).ok().filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn a_short_batch_reports_only_itself_and_a_cut_one_says_so() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let to = socket.local_addr().expect("address");
        let mut headers = Headers::new(4, false);
        let mut memory = vec![0; 4 * 16];
        let mut receive = |expected: usize| {
            // Loopback delivers before send returns.
            let count = headers
                .receive(socket.as_fd(), &mut memory, 16, 8)
                .expect("receive");
            assert_eq!(count, expected);
            headers.received(count).collect::<Vec<_>>()
        };
        for payload in ["a", "bb", "123456789"] {
            sender.send_to(payload.as_bytes(), to).expect("send");
        }
        let whole = |len| Received {
            len,
            truncated: false,
            segment: None,
        };
        assert_eq!(
            receive(3),
            [
                whole(1),
                whole(2),
                Received {
                    len: 8,
                    truncated: true,
                    segment: None,
                }
            ]
        );
        sender.send_to(b"", to).expect("send");
        assert_eq!(receive(1), [whole(0)]);
        assert_eq!(
            (memory[0], &memory[16..18], &memory[32..40]),
            (b'a', &b"bb"[..], &b"12345678"[..])
        );
        let mut headers = Headers::new(4, false);
        let error = headers
            .receive(socket.as_fd(), &mut memory, 16, 8)
            .expect_err("empty");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
