//! Many datagrams to one peer in one call, on a connected socket: `sendmmsg`, or one message that the kernel
//! cuts into datagrams (`UDP_SEGMENT`).

#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd};

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
const MAX_SEGMENTED: usize = 65_507;

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
    }
}
