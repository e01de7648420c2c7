//! Many datagrams to one peer in one call, on a connected socket: `sendmmsg`, or one message that the kernel
//! cuts into datagrams (`UDP_SEGMENT`).

#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// A socket that sends to `peer` and hears what becomes of it; a send waits for `write_max` at most.
///
/// # Errors
/// When the system has no socket to give, or no way to `peer`.
pub fn connected(peer: SocketAddr, write_max: Duration) -> io::Result<UdpSocket> {
    let any: SocketAddr = if peer.is_ipv6() {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(peer)?;
    socket.set_write_timeout(Some(write_max))?;
    Ok(socket)
}

/// Most datagrams one call of [`send_batch`] takes; what is longer waits for the next call.
pub const MAX_BATCH: usize = 64;

/// Why the kernel did not take a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The socket's send buffer stayed full (`EAGAIN`).
    WouldBlock,
    /// The interface's queue was full (`ENOBUFS`).
    NoBuffers,
    /// An earlier datagram was answered with "port unreachable" (`ECONNREFUSED`): nobody listens
    /// there.
    Refused,
    /// Longer than the socket may send (`EMSGSIZE`).
    TooLong,
    /// Anything else: no route, a firewall, an interface that is down.
    Other,
}

impl Refusal {
    /// Tells the reasons apart that a sender may want to count on their own.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Self::WouldBlock,
            Some(libc::ENOBUFS) => Self::NoBuffers,
            Some(libc::ECONNREFUSED) => Self::Refused,
            Some(libc::EMSGSIZE) => Self::TooLong,
            _ => Self::Other,
        }
    }
}

/// Whether an error may be what became of an earlier datagram, told with this call as that of a port where
/// nobody listens is: a firewall refused it, or a router found it too long. If so, this one was not tried.
pub fn may_be_of_an_earlier_one(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EACCES
                | libc::EMSGSIZE
        )
    )
}

/// Sends the first [`MAX_BATCH`] datagrams, or fewer, each slice being one datagram.
///
/// Returns how many the kernel took, counted from the front: these are sent, the rest is not. Zero
/// only when `datagrams` is empty. The socket must be connected.
///
/// # Errors
/// When the first datagram was not taken; [`Refusal::of`] names the reason. An error met further on
/// only shortens the count, and the kernel forgets it: calling again with the rest tries that
/// datagram once more. `EINTR` is never returned.
pub fn send_batch(socket: &impl AsFd, datagrams: &[IoSlice<'_>]) -> io::Result<usize> {
    let batch = &datagrams[..datagrams.len().min(MAX_BATCH)];
    if batch.is_empty() {
        return Ok(0);
    }
    // SAFETY: `mmsghdr` holds integers and raw pointers only, for which all zeros is a valid value.
    let mut headers: [libc::mmsghdr; MAX_BATCH] = unsafe { std::mem::zeroed() };
    for (header, datagram) in headers.iter_mut().zip(batch) {
        // `IoSlice` is documented to have the layout of `iovec`. The kernel only reads through it.
        header.msg_hdr.msg_iov = std::ptr::from_ref(datagram)
            .cast_mut()
            .cast::<libc::iovec>();
        header.msg_hdr.msg_iovlen = 1;
    }
    let descriptor = socket.as_fd().as_raw_fd();
    loop {
        // SAFETY: the first `batch.len()` of the MAX_BATCH headers are filled; each points at one
        // `iovec` of `batch`, which with the bytes it describes is borrowed until after the call.
        // `msg_name` and `msg_control` are null with length 0. The descriptor is open: it is
        // borrowed.
        let sent = unsafe {
            libc::sendmmsg(
                descriptor,
                headers.as_mut_ptr(),
                batch.len() as libc::c_uint,
                0,
            )
        };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(sent);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Most datagrams one call of [`send_segments`] takes: what every kernel that can do it allows.
pub const MAX_SEGMENTS: usize = 64;

/// Most bytes it takes: the payload of one datagram over IPv4.
pub const MAX_SEGMENTED: usize = 65_507;

/// Lets the kernel cut whatever is sent through the socket into datagrams of `size` bytes (`UDP_SEGMENT`); 0
/// ends that.
///
/// # Errors
/// `ENOPROTOOPT` of kernels before Linux 4.18, which cannot.
pub fn segment(socket: &impl AsFd, size: u16) -> io::Result<()> {
    let size = libc::c_int::from(size);
    // SAFETY: the option takes a c_int; `size` is one, lives across the call and its length is given. The
    // descriptor is open: it is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    super::check(result).map(drop)
}

/// Whether setting an option failed because this kernel does not know it.
pub fn is_unknown_option(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOPROTOOPT)
}

/// Sends the first datagrams as one message, on a socket that [`segment`] told to cut it at `size` bytes. All
/// of them are that long but the last, which may be shorter: it is cut off behind the first shorter one, at
/// [`MAX_SEGMENTS`], and where a message is full.
///
/// Returns how many the kernel took, counted from the front: these are sent, the rest is not. Zero only when
/// `datagrams` is empty.
///
/// # Errors
/// When none was taken; [`Refusal::of`] names the reason. `EINVAL`: a datagram does not fit the path's MTU.
/// `EIO`: the interface cannot do the checksums. `EINTR` is never returned.
///
/// # Panics
/// When the first datagram is longer than `size`, which would make several of it.
pub fn send_segments(
    socket: &impl AsFd,
    datagrams: &[IoSlice<'_>],
    size: u16,
) -> io::Result<usize> {
    let batch = &datagrams[..segments(datagrams, size.into())];
    if batch.is_empty() {
        return Ok(0);
    }
    // SAFETY: `msghdr` holds integers and raw pointers only, for which all zeros is a valid value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    // `IoSlice` is documented to have the layout of `iovec`. The kernel only reads through it.
    header.msg_iov = batch.as_ptr().cast_mut().cast::<libc::iovec>();
    header.msg_iovlen = batch.len();
    let descriptor = socket.as_fd().as_raw_fd();
    super::uninterrupted(|| {
        // SAFETY: `header` points at the `iovec`s of `batch`, which with the bytes they describe are borrowed
        // until after the call, and has their number. `msg_name` and `msg_control` are null with length 0.
        // The descriptor is open: it is borrowed. At most MAX_SEGMENTED bytes are sent, which fit a c_int.
        unsafe { libc::sendmsg(descriptor, &raw const header, 0) as libc::c_int }
    })?;
    Ok(batch.len())
}

/// How many datagrams from the front make one message.
fn segments(datagrams: &[IoSlice<'_>], size: usize) -> usize {
    if let Some(first) = datagrams.first() {
        assert!(
            first.len() <= size,
            "{} bytes in segments of {size}",
            first.len()
        );
    }
    let mut bytes = 0;
    let mut count = 0;
    for datagram in datagrams.iter().take(MAX_SEGMENTS) {
        bytes += datagram.len();
        // An empty one would vanish behind others.
        let fits = bytes <= MAX_SEGMENTED && (1..=size).contains(&datagram.len());
        if !fits && count > 0 {
            break;
        }
        count += 1;
        if datagram.len() < size {
            break;
        }
    }
    count
}

/// Whether a message was refused because it was to be cut (`UDP_SEGMENT`): this kernel cannot, the interface
/// cannot, or a datagram does not fit the path's MTU.
pub fn cannot_segment(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    is_unknown_option(error) || matches!(code, Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE))
}

/// Datagrams that lie one after another, for [`send_messages`].
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Their bytes; at most [`MAX_SEGMENTED`] when there are several.
    pub bytes: &'a [u8],
    /// Size of each but the last, which may be shorter: the kernel cuts there (`UDP_SEGMENT`). `None` for a
    /// single datagram.
    pub segment: Option<u16>,
}

/// Room for one control message with a 16-bit number, aligned as its header has to be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct SegmentControl([u8; 24]);

/// Bytes of such a control message.
// SAFETY: CMSG_SPACE and CMSG_LEN only calculate.
const SEGMENT_SPACE: usize = unsafe { libc::CMSG_SPACE(size_of::<u16>() as u32) } as usize;
const _: () = assert!(SEGMENT_SPACE <= size_of::<SegmentControl>());
const _: () = assert!(align_of::<libc::cmsghdr>() <= align_of::<SegmentControl>());

/// Sends the first [`MAX_BATCH`] messages, or fewer, in one call.
///
/// Returns how many the kernel took, counted from the front: these are sent, the rest is not. Zero only when
/// `messages` is empty. The socket must be connected.
///
/// # Errors
/// As [`send_batch`] of the first message; of one with a segment size also those of [`send_segments`].
pub fn send_messages(socket: &impl AsFd, messages: &[Message<'_>]) -> io::Result<usize> {
    let batch = &messages[..messages.len().min(MAX_BATCH)];
    if batch.is_empty() {
        return Ok(0);
    }
    // SAFETY: `mmsghdr`, `iovec` hold integers and raw pointers only, for which all zeros is a valid value.
    let (mut headers, mut vectors): ([libc::mmsghdr; MAX_BATCH], [libc::iovec; MAX_BATCH]) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let mut controls = [SegmentControl([0; 24]); MAX_BATCH];
    for (((header, vector), control), message) in headers
        .iter_mut()
        .zip(&mut vectors)
        .zip(&mut controls)
        .zip(batch)
    {
        // The kernel only reads through it.
        vector.iov_base = message.bytes.as_ptr().cast_mut().cast();
        vector.iov_len = message.bytes.len();
        let header = &mut header.msg_hdr;
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        let Some(size) = message.segment else {
            continue;
        };
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = SEGMENT_SPACE as _;
        // SAFETY: the control buffer is SEGMENT_SPACE bytes or more, zeroed and aligned for a cmsghdr, so its
        // first header is not null and has room for the u16 behind it, which may lie unaligned.
        unsafe {
            let first = libc::CMSG_FIRSTHDR(header);
            (*first).cmsg_level = libc::SOL_UDP;
            (*first).cmsg_type = libc::UDP_SEGMENT;
            (*first).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
            libc::CMSG_DATA(first).cast::<u16>().write_unaligned(size);
        }
    }
    let descriptor = socket.as_fd().as_raw_fd();
    let sent = super::uninterrupted(|| {
        // SAFETY: the first `batch.len()` of the MAX_BATCH headers are filled; each points at one `iovec`,
        // whose bytes are borrowed by `messages`, and at a control buffer or none; all live until after the
        // call. `msg_name` is null with length 0. The descriptor is open: it is borrowed.
        unsafe {
            libc::sendmmsg(
                descriptor,
                headers.as_mut_ptr(),
                batch.len() as libc::c_uint,
                0,
            )
        }
    })?;
    Ok(usize::try_from(sent).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::time::Duration;

    fn pair() -> (UdpSocket, UdpSocket) {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        (sender, receiver)
    }

    #[test]
    fn each_slice_is_one_datagram_in_order() {
        let (sender, receiver) = pair();
        let slices = [&b"one"[..], b"", b"three"].map(IoSlice::new);
        assert_eq!(send_batch(&sender, &slices).unwrap(), 3);
        let mut buffer = [0; 16];
        for expected in [&b"one"[..], b"", b"three"] {
            let length = receiver.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected);
        }
    }

    #[test]
    fn an_empty_batch_sends_nothing() {
        let (sender, _receiver) = pair();
        assert_eq!(send_batch(&sender, &[]).unwrap(), 0);
    }

    #[test]
    fn a_long_batch_is_cut_at_the_limit() {
        let (sender, _receiver) = pair();
        let slices = [IoSlice::new(b"x"); MAX_BATCH + 1];
        assert_eq!(send_batch(&sender, &slices).unwrap(), MAX_BATCH);
    }

    #[test]
    fn what_follows_an_oversized_datagram_is_not_counted() {
        let (sender, receiver) = pair();
        let oversized = vec![0; 65_508];
        let slices = [&b"first"[..], &oversized, b"third"].map(IoSlice::new);
        assert_eq!(send_batch(&sender, &slices).unwrap(), 1);
        let error = send_batch(&sender, &slices[1..]).unwrap_err();
        assert_eq!(Refusal::of(&error), Refusal::TooLong);
        assert_eq!(send_batch(&sender, &slices[2..]).unwrap(), 1);
        let mut buffer = [0; 16];
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 5);
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 5);
        assert_eq!(&buffer[..5], b"third");
    }

    #[test]
    fn nobody_listening_is_told_as_refused() {
        let (sender, receiver) = pair();
        drop(receiver);
        let slice = [IoSlice::new(b"x")];
        assert_eq!(send_batch(&sender, &slice).unwrap(), 1);
        let error = send_batch(&sender, &slice).unwrap_err();
        assert_eq!(Refusal::of(&error), Refusal::Refused);
    }

    #[test]
    fn reasons_are_told_apart() {
        for (code, reason) in [
            (libc::EAGAIN, Refusal::WouldBlock),
            (libc::ENOBUFS, Refusal::NoBuffers),
            (libc::ECONNREFUSED, Refusal::Refused),
            (libc::EMSGSIZE, Refusal::TooLong),
            (libc::ENETUNREACH, Refusal::Other),
        ] {
            assert_eq!(Refusal::of(&io::Error::from_raw_os_error(code)), reason);
        }
    }

    #[test]
    fn a_message_is_cut_into_the_datagrams_it_was_made_of() {
        let (sender, receiver) = pair();
        segment(&sender, 4).unwrap();
        let slices = [&b"1111"[..], b"2222", b"33", b"4444", b"5"].map(IoSlice::new);
        assert_eq!(send_segments(&sender, &[], 4).unwrap(), 0);
        assert_eq!(send_segments(&sender, &slices, 4).unwrap(), 3);
        assert_eq!(send_segments(&sender, &slices[3..], 4).unwrap(), 2);
        assert_eq!(send_segments(&sender, &slices[4..], 4).unwrap(), 1);
        let mut buffer = [0; 16];
        for expected in [&b"1111"[..], b"2222", b"33", b"4444", b"5", b"5"] {
            let length = receiver.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected);
        }
    }

    #[test]
    fn messages_are_cut_where_they_say_and_the_others_are_not() {
        let (sender, receiver) = pair();
        let message = |bytes, segment| Message { bytes, segment };
        let messages = [
            message(&b"333333"[..], Some(3)),
            message(b"one datagram", None),
            message(b"22223", Some(2)),
            message(b"", None),
        ];
        assert_eq!(send_messages(&sender, &[]).unwrap(), 0);
        assert_eq!(send_messages(&sender, &messages).unwrap(), 4);
        let mut buffer = [0; 16];
        for expected in [
            &b"333"[..],
            b"333",
            b"one datagram",
            b"22",
            b"22",
            b"3",
            b"",
        ] {
            let length = receiver.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected);
        }
        let oversized = vec![0; 65_508];
        let messages = [message(b"first", None), message(&oversized, None)];
        assert_eq!(send_messages(&sender, &messages).unwrap(), 1);
        let error = send_messages(&sender, &messages[1..]).unwrap_err();
        assert_eq!(Refusal::of(&error), Refusal::TooLong);
        let many = [message(b"x", None); MAX_BATCH + 1];
        assert_eq!(send_messages(&sender, &many).unwrap(), MAX_BATCH);
    }

    #[test]
    fn a_message_ends_where_the_kernel_would_refuse_it() {
        let of = |sizes: &[usize], size| {
            let bytes = vec![0; 65_507];
            let slices: Vec<_> = sizes
                .iter()
                .map(|size| IoSlice::new(&bytes[..*size]))
                .collect();
            segments(&slices, size)
        };
        assert_eq!(of(&[10; 100], 10), MAX_SEGMENTS);
        assert_eq!(of(&[1432; 100], 1432), 45);
        assert_eq!(of(&[65_507, 1], 65_507), 1);
        assert_eq!(of(&[10, 10, 11], 10), 2);
        assert_eq!(of(&[10, 0, 10], 10), 1);
        assert_eq!(of(&[0, 10], 10), 1);
        assert_eq!(of(&[9, 10], 10), 1);
    }

    #[test]
    #[should_panic(expected = "11 bytes in segments of 10")]
    fn what_would_become_several_datagrams_is_not_sent() {
        segments(&[IoSlice::new(&[0; 11])], 10);
    }

    #[test]
    fn an_option_the_kernel_does_not_know_is_told() {
        let error = io::Error::from_raw_os_error(libc::ENOPROTOOPT);
        assert!(is_unknown_option(&error));
        assert!(!is_unknown_option(&io::Error::from_raw_os_error(
            libc::EINVAL
        )));
        assert!(cannot_segment(&error));
        let busy = io::Error::from_raw_os_error(libc::EAGAIN);
        assert!(!cannot_segment(&busy));
    }
}
