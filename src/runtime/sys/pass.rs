//! Descriptors that go from one process to another: over a unix socket (`SCM_RIGHTS`), to a child, and from
//! the service manager.
#![allow(unsafe_code)]

use super::check;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Most descriptors in one message; the kernel takes 253.
pub const DESCRIPTORS_MAX: usize = 64;

/// Room for a control message of that many, aligned as one has to be.
#[repr(C, align(8))]
struct Control([MaybeUninit<u8>; 512]);

const _: () = assert!(align_of::<libc::cmsghdr>() <= 8);
// SAFETY: CMSG_SPACE only computes.
const _: () = assert!(unsafe { libc::CMSG_SPACE((DESCRIPTORS_MAX * 4) as u32) } <= 512);

/// Sends descriptors, [`DESCRIPTORS_MAX`] at most, with the one byte that a message must have.
///
/// # Errors
/// What sendmsg(2) says; `InvalidInput` for more of them, or none.
pub fn send(socket: BorrowedFd<'_>, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if descriptors.is_empty() || descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let bytes = size_of_val(&raw[..]);
    let mut byte = 0u8;
    let mut vector = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut control = Control([MaybeUninit::zeroed(); 512]);
    // SAFETY: a msghdr of zeros is a valid one, without a name, data or control message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE only computes; the assertion above says that it is within `control`.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(bytes as u32) } as usize;
    // SAFETY: `control` is aligned for a cmsghdr and large enough for one with `bytes` of data, so
    // CMSG_FIRSTHDR is within it and so is CMSG_DATA with `bytes` behind it; `raw` has as many bytes.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(bytes as u32) as usize;
        let to = libc::CMSG_DATA(header);
        std::ptr::copy_nonoverlapping(raw.as_ptr().cast::<u8>(), to, bytes);
    }
    loop {
        // SAFETY: `message` and all it points to live across the call, which only reads them.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Receives what one call of [`send`] sent. What is received is closed at an exec.
///
/// # Errors
/// What recvmsg(2) says; `UnexpectedEof` when the other end is closed; `InvalidData` when some did not come:
/// this process may have no room for more.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut byte = 0u8;
    let mut vector = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut control = Control([MaybeUninit::zeroed(); 512]);
    // SAFETY: as in `send`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>();
    let received = loop {
        // SAFETY: `message` and all it points to live across the call; the lengths given are theirs.
        let received =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        if received >= 0 {
            break received;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has filled `control` up to `msg_controllen`, and CMSG_FIRSTHDR and CMSG_NXTHDR stay
    // within that; a message of SCM_RIGHTS has whole descriptors up to its length, each new, open and owned
    // by nobody else.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for at in 0..bytes / size_of::<RawFd>() {
                    descriptors.push(OwnedFd::from_raw_fd(data.add(at).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    if received == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not all descriptors came: this process may open no more (see: ulimit -n)",
        ));
    }
    Ok(descriptors)
}

/// A copy of a descriptor that a child keeps, where others are closed at its exec.
///
/// # Errors
/// When the process is out of descriptors.
pub fn inheritable(descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_DUPFD takes two integers and no memory of ours.
    let copy = check(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD, 3) })?;
    // SAFETY: the descriptor is new, open, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Takes over a descriptor that another process left open for this one, and lets no child have it. Only for a
/// number that the environment names, and each once: before any thread runs, nobody here can have opened it.
///
/// # Errors
/// When it is not open, or is none that such a process would leave.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 3 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: fcntl(2) with F_GETFD takes two integers and no memory of ours.
    let flags = check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    if flags & libc::FD_CLOEXEC != 0 {
        // It came through no exec: it is one of our own.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: as above, with one integer more.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, came through the exec, and is taken once: from now on it is closed at an exec,
    // which the look above sees.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The user this process acts as.
pub fn effective_user() -> u32 {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// The process that started this one.
pub fn parent() -> u32 {
    // SAFETY: getppid(2) takes nothing and cannot fail.
    unsafe { libc::getppid() }.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_arrive_as_they_were_sent() {
        let (here, there) = UnixStream::pair().expect("a pair");
        let pipes: Vec<_> = (0..3)
            .map(|_| UnixStream::pair().expect("a pair"))
            .collect();
        let sent: Vec<_> = pipes.iter().map(|(near, _)| near.as_fd()).collect();
        send(here.as_fd(), &sent).expect("sent");
        let received = receive(there.as_fd()).expect("received");
        assert_eq!(received.len(), 3);
        for (at, descriptor) in received.into_iter().enumerate() {
            let mut end = UnixStream::from(descriptor);
            end.write_all(&[at as u8]).expect("written");
            let mut byte = [9];
            (&pipes[at].1).read_exact(&mut byte).expect("read");
            assert_eq!(byte, [at as u8]);
        }
        drop(here);
        let ended = receive(there.as_fd()).expect_err("closed");
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn as_many_as_allowed_arrive_and_no_more_are_taken() {
        let (here, there) = UnixStream::pair().expect("a pair");
        let many = vec![here.as_fd(); DESCRIPTORS_MAX];
        send(here.as_fd(), &many).expect("sent");
        let received = receive(there.as_fd()).expect("received");
        assert_eq!(received.len(), DESCRIPTORS_MAX);
        let more = vec![here.as_fd(); DESCRIPTORS_MAX + 1];
        let refused = send(here.as_fd(), &more).expect_err("too many");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn only_what_came_through_an_exec_is_taken_over() {
        let file = File::open("/dev/null").expect("it is there");
        let own = inherited(file.as_raw_fd()).expect_err("it is our own");
        assert_eq!(own.kind(), io::ErrorKind::InvalidInput);
        assert!(inherited(0).is_err());
        let left = inheritable(file.as_fd()).expect("a copy");
        let number = left.as_raw_fd();
        std::mem::forget(left);
        let taken = inherited(number).expect("it is left open");
        assert_eq!(taken.as_raw_fd(), number);
    }
}
