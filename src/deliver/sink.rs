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

/// What most likely stands behind an error of [`connect`] or [`send_and_close`], and what to do;
/// `setting` names the keys of the config file that say where to connect.
pub fn hint(error: &io::Error, setting: &str) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("likely cause: nothing listens there; start it, or correct {setting}")
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!(
                "likely cause: a firewall between, or a peer that hangs; look there, or correct {setting}"
            )
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            format!(
                "likely cause: the peer closed the connection; see its log, or correct {setting}"
            )
        }
        // The resolver's errors carry no number of the system.
        _ if error.raw_os_error().is_none() => {
            format!(
                "likely cause: the name does not resolve; correct {setting}, or check the resolver"
            )
        }
        _ => format!("check the route to it, or correct {setting}"),
    }
}
