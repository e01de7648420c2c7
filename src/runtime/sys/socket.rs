//! Socket options that have no typed home elsewhere.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What the kernel accounts for a socket (`SO_MEMINFO`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Bytes of the receive buffer in use.
    pub queued: u32,
    /// Size of the receive buffer as the kernel counts, which is twice what was asked for.
    pub receive_buffer: u32,
    /// Datagrams dropped since the socket was made, because the buffer was full.
    pub drops: u32,
}

/// Reads the kernel's accounts of a socket: fill of the receive buffer and drops, at once and exact,
/// where the control message `SO_RXQ_OVFL` would tell only with the next datagram.
///
/// # Errors
/// What getsockopt(2) says; kernels before 4.12 do not know the option.
pub fn memory(socket: BorrowedFd<'_>) -> io::Result<Memory> {
    let mut values = [0u32; 9];
    let mut size = size_of_val(&values) as libc::socklen_t;
    // SAFETY: `values` and `size` live across the call, `size` is the length of `values` in bytes,
    // and the kernel writes at most that many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &mut size,
        )
    };
    super::check(result)?;
    // Order of the kernel's SK_MEMINFO_*: rmem_alloc, rcvbuf, .., drops last.
    Ok(Memory {
        queued: values[0],
        receive_buffer: values[1],
        drops: values[8],
    })
}

/// Asks for a receive buffer beyond `net.core.rmem_max`, which takes CAP_NET_ADMIN.
///
/// # Errors
/// `PermissionDenied` without that capability.
pub fn force_receive_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the option takes a c_int; `bytes` is one, lives across the call and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    super::check(result).map(drop)
}

/// Takes datagrams that the kernel holds joined as they are, each run in one piece with its segments' size
/// beside it (`UDP_GRO`), instead of cut up one by one.
///
/// # Errors
/// Kernels before 5.0 do not know the option.
pub fn take_joined(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes a c_int; `on` is one, lives across the call and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_GRO,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    super::check(result).map(drop)
}

/// Who of a group that shares a port with `SO_REUSEPORT` gets a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Each time another one, at random.
    Random,
    /// The one whose core this is, of as many as there are in the group, that the kernel handles the datagram
    /// on; of another core, the one at its number modulo theirs.
    Core(Vec<u32>),
}

/// Lets the kernel choose within the group of `socket`, of `members` sockets in the order they were bound,
/// otherwise than by sender (`SO_ATTACH_REUSEPORT_CBPF`).
///
/// # Errors
/// What setsockopt(2) says; kernels before 4.5 do not know the option.
pub fn steer(socket: BorrowedFd<'_>, members: u32, choice: &Choice) -> io::Result<()> {
    let step = |code: u32, k: u32, jump_if_not: u8| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_if_not,
        k,
    };
    // Where the kernel answers for itself instead of loading from the packet.
    let ancillary = |field: libc::c_int| (libc::SKF_AD_OFF + field).cast_unsigned();
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let mut program = Vec::new();
    match choice {
        Choice::Random => program.push(step(load, ancillary(libc::SKF_AD_RANDOM), 0)),
        Choice::Core(cores) => {
            program.push(step(load, ancillary(libc::SKF_AD_CPU), 0));
            for (member, core) in (0..members).zip(cores) {
                program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *core, 1));
                program.push(step(libc::BPF_RET | libc::BPF_K, member, 0));
            }
        }
    }
    program.push(step(
        libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K,
        members.max(1),
        0,
    ));
    program.push(step(libc::BPF_RET | libc::BPF_A, 0, 0));
    let whole = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the option takes a sock_fprog, which lives across the call with the `len` filters it points to;
    // the kernel copies both.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const whole).cast(),
            size_of_val(&whole) as libc::socklen_t,
        )
    };
    super::check(result).map(drop)
}

/// Bytes written into a TCP connection that the peer's kernel has not acknowledged (`SIOCOUTQ`).
///
/// # Errors
/// When the socket is not a TCP connection.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which Linux spells TIOCOUTQ too, writes one int through the pointer, and the
    // int lives across the call; the socket is open.
    super::check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Bytes that came over a stream and were not read yet (`FIONREAD`).
///
/// # Errors
/// What ioctl(2) says.
pub fn unread(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int through the pointer, and the int lives across the call; the socket
    // is open.
    super::check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Who is at the other end of a unix stream socket, as of when it connected or listened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process.
    pub process: i32,
    /// The user that acts as.
    pub user: u32,
}

/// The process at the other end of a unix stream socket (`SO_PEERCRED`).
///
/// # Errors
/// What getsockopt(2) says.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut size = size_of_val(&peer) as libc::socklen_t;
    // SAFETY: `peer` and `size` live across the call, `size` is the length of `peer` in bytes, and the
    // kernel writes at most that many; any bits are a valid ucred.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &mut size,
        )
    };
    super::check(result)?;
    Ok(Peer {
        process: peer.pid,
        user: peer.uid,
    })
}

/// Whether runs of datagrams come in one piece ([`take_joined`]).
///
/// # Errors
/// What getsockopt(2) says; kernels before 5.0 do not know the option.
pub fn takes_joined(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut on: libc::c_int = 0;
    let mut size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: `on` and `size` live across the call, `size` is the length of `on` in bytes, and the kernel
    // writes at most that many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_GRO,
            (&raw mut on).cast(),
            &mut size,
        )
    };
    super::check(result)?;
    Ok(on != 0)
}

/// Whether a stream's peer has closed or reset the connection, as far as is known by now. Does not wait, and
/// leaves what may have come in where it is.
pub fn is_closed_by_peer(stream: BorrowedFd<'_>) -> bool {
    let mut byte = 0u8;
    let received = super::uninterrupted(|| {
        // SAFETY: the kernel writes at most the one byte it is told of, which lives across the call.
        let received = unsafe {
            libc::recv(
                stream.as_raw_fd(),
                (&raw mut byte).cast(),
                1,
                libc::MSG_PEEK | libc::MSG_DONTWAIT,
            )
        };
        received as libc::c_int
    });
    match received {
        Ok(received) => received == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;

    #[test]
    fn a_closed_connection_is_told_from_a_silent_one() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let mut stream = TcpStream::connect(address).expect("connect");
        let (mut peer, _) = listener.accept().expect("accept");
        assert!(!is_closed_by_peer(stream.as_fd()));
        peer.write_all(b"x").expect("write");
        stream.peek(&mut [0]).expect("it came");
        assert!(!is_closed_by_peer(stream.as_fd()));
        drop(peer);
        let mut read = [0; 2];
        assert_eq!(stream.read(&mut read).expect("what was peeked at"), 1);
        assert_eq!(stream.peek(&mut read).expect("the end"), 0);
        assert!(is_closed_by_peer(stream.as_fd()));
    }

    #[test]
    fn drops_are_counted_to_the_datagram() {
        let socket = socket2::Socket::from(UdpSocket::bind("127.0.0.1:0").expect("bind"));
        socket.set_recv_buffer_size(4096).expect("buffer");
        let socket = UdpSocket::from(socket);
        let sender = UdpSocket::bind("127.0.0.1:0").expect("bind");
        for _ in 0..100 {
            sender
                .send_to(b"a:1|c", socket.local_addr().expect("address"))
                .expect("send");
        }
        let accounts = memory(socket.as_fd()).expect("SO_MEMINFO");
        socket.set_nonblocking(true).expect("nonblocking");
        let mut taken = 0;
        while socket.recv(&mut [0; 16]).is_ok() {
            taken += 1;
        }
        assert!(accounts.queued > 0);
        assert!(taken < 100);
        assert_eq!(accounts.drops, 100 - taken);
        assert_eq!(memory(socket.as_fd()).expect("SO_MEMINFO").queued, 0);
    }

    #[test]
    fn a_peer_is_named_by_its_process() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let peer = peer(ours.as_fd()).expect("SO_PEERCRED");
        assert_eq!(peer.process, std::process::id().cast_signed());
        assert_eq!(peer.user, crate::runtime::sys::pass::effective_user());
    }

    #[test]
    fn what_a_peer_did_not_take_is_not_acknowledged() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket.set_recv_buffer_size(4096).expect("buffer");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).expect("bind");
        socket.listen(1).expect("listen");
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().expect("address");
        let mut sender = TcpStream::connect(address).expect("connect");
        assert_eq!(unacknowledged(sender.as_fd()).expect("SIOCOUTQ"), 0);
        sender.set_nonblocking(true).expect("nonblocking");
        let mut written = 0;
        while let Ok(bytes) = sender.write(&[0; 4096]) {
            written += bytes;
        }
        assert!(unacknowledged(sender.as_fd()).expect("SIOCOUTQ") > 0);
        let (mut peer, _) = listener.accept().expect("accept");
        peer.read_exact(&mut vec![0; written]).expect("read");
        while unacknowledged(sender.as_fd()).expect("SIOCOUTQ") > 0 {
            std::thread::yield_now();
        }
    }
}
