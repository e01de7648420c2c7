//! The ways out. A sink moves bytes and knows nothing of what they mean.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long connecting to one address may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a peer may take nothing before it is given up.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// Connects to the first address of `host` that answers.
///
/// # Errors
/// The last address's error, or the resolver's.
pub fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(stream) => {
                stream.set_write_timeout(Some(WRITE_MAX))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Writes everything and closes our half, as the reference does after each flush.
///
/// # Errors
/// When the peer resets, or takes nothing for ten seconds.
pub fn send_and_close(mut stream: TcpStream, payload: &[u8]) -> io::Result<()> {
    stream.write_all(payload)?;
    stream.shutdown(Shutdown::Write)
}

/// What most likely stands behind an error of [`connect`] or [`send_and_close`], and what to do.
pub fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there; start it, or correct host and port"
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            "the peer does not answer; look for a firewall between, or a peer that hangs"
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "the peer closed the connection; see its log"
        }
        _ if error.raw_os_error().is_none() => {
            "the name does not resolve; correct it, or check the resolver"
        }
        _ => "check host, port and the route to it",
    }
}
