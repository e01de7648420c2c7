//! Locks a socket of datagrams from outside, while its worker reads on.

use socket2::{Domain, SockRef};
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What keeps datagrams out of a socket for good. What waits in it can still be read, and from then on its
/// count of drops stands: so the stop accounts for all that was let in.
#[derive(Debug, Clone)]
pub struct Lock {
    socket: Arc<OwnedFd>,
    closed: Arc<AtomicBool>,
}

impl Lock {
    pub(super) fn new(socket: Arc<OwnedFd>) -> Self {
        let closed = Arc::default();
        Self { socket, closed }
    }

    /// Closes all of these: only then may their workers be told to read to the end, for what one socket of a
    /// group does not take any more comes to another.
    pub fn close_all(locks: &[Self]) {
        for lock in locks {
            if let Err(error) = lock.close() {
                log::warn!(
                    "a socket cannot be locked: {error}; of datagrams that come while the server stops some \
                     may be lost uncounted"
                );
            }
        }
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// From now on senders are refused as if nobody had the address.
    ///
    /// # Errors
    /// When the system does not do it; then datagrams go on coming in.
    pub fn close(&self) -> io::Result<()> {
        let socket = SockRef::from(&*self.socket);
        let address = socket.local_addr()?;
        if address.domain() == Domain::UNIX {
            socket.shutdown(Shutdown::Read)?;
        } else {
            // Connected it takes datagrams of its peer alone, and nobody else can send from its own address.
            socket.connect(&address)?;
        }
        // Release: who sees it reads a queue that nothing is added to.
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{SockAddr, Socket, Type};
    use std::mem::MaybeUninit;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
    use std::os::unix::net::UnixDatagram;

    fn take(socket: &Socket) -> Option<usize> {
        socket.recv(&mut [MaybeUninit::uninit(); 64]).ok()
    }

    #[test]
    fn what_waits_can_be_read_and_nothing_more_comes_in() {
        let any: [SocketAddr; 3] = [
            (Ipv4Addr::LOCALHOST, 0).into(),
            (Ipv4Addr::UNSPECIFIED, 0).into(),
            (Ipv6Addr::UNSPECIFIED, 0).into(),
        ];
        for address in any {
            let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None);
            let Ok(socket) = socket else {
                continue; // A machine without IPv6.
            };
            socket.set_nonblocking(true).expect("nonblocking");
            socket.bind(&address.into()).expect("bind");
            let port = socket.local_addr().ok().and_then(|it| it.as_socket());
            let port = port.expect("an address").port();
            let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
            client.connect(("127.0.0.1", port)).expect("connect");
            client.send(b"before").expect("it is let in");
            let socket = Arc::new(OwnedFd::from(socket));
            Lock::new(socket.clone()).close().expect("it can be locked");
            let _ = client.send(b"behind");
            let refused = client.send(b"behind");
            let refused = refused.expect_err("the sender learns of it").kind();
            assert_eq!(refused, io::ErrorKind::ConnectionRefused, "{address}");
            let socket = Socket::from(socket.try_clone().expect("a copy"));
            assert_eq!(take(&socket), Some(6), "{address}");
            assert_eq!(take(&socket), None, "{address}");
        }
    }

    #[test]
    fn so_it_is_with_unix_sockets() {
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).expect("a socket");
        let path = std::env::temp_dir().join(format!("lock-{}", std::process::id()));
        let address = SockAddr::unix(&path).expect("a short path");
        socket.set_nonblocking(true).expect("nonblocking");
        socket.bind(&address).expect("bind");
        let client = UnixDatagram::unbound().expect("a socket");
        client.connect(&path).expect("connect");
        std::fs::remove_file(&path).expect("it is there");
        client.send(b"before").expect("it is let in");
        let socket = Arc::new(OwnedFd::from(socket));
        Lock::new(socket.clone()).close().expect("it can be locked");
        let refused = client.send(b"behind").expect_err("the sender learns of it");
        assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
        let socket = Socket::from(socket.try_clone().expect("a copy"));
        assert_eq!(take(&socket), Some(6));
        assert_eq!(take(&socket), None);
    }
}
