//! Tells the service manager how the server is: sd_notify(3), the protocol of systemd and others.
//!
//! One datagram each time, which nobody waits for: a manager that does not read misses it. There is no
//! watchdog: a thread that dies ends the server already, and one that hangs would have to be asked.

use super::sys::time::kernel_monotonic_us;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State<'a> {
    /// Up, also again after [`Self::Reloading`]; with a line for whoever asks what it does.
    Ready(&'a str),
    /// The configuration is being taken over; [`Self::Ready`] must follow.
    Reloading,
    /// Another process is the service from now on.
    Successor(u32),
    /// Stopping, on whose wish ever.
    Stopping,
}

impl State<'_> {
    fn message(&self) -> String {
        match self {
            // A newline would begin another assignment.
            Self::Ready(status) => format!("READY=1\nSTATUS={}\n", status.replace('\n', " ")),
            Self::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}\n", kernel_monotonic_us()),
            Self::Successor(process) => format!("MAINPID={process}\n"),
            Self::Stopping => "STOPPING=1\n".into(),
        }
    }
}

/// Tells the service manager, if there is one: `NOTIFY_SOCKET` in the environment names its socket. A failure
/// is a warning in the log, since a manager that was not told may think the start failed.
pub fn tell(state: &State<'_>) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&socket, &state.message()) {
        log::warn!(
            "the service manager was not told of {state:?}: {error} (NOTIFY_SOCKET is {})",
            socket.display()
        );
    }
}

fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_as_assignments() {
        assert_eq!(
            State::Ready("a\nSTOPPING=1").message(),
            "READY=1\nSTATUS=a STOPPING=1\n"
        );
        assert_eq!(State::Stopping.message(), "STOPPING=1\n");
        assert_eq!(State::Successor(7).message(), "MAINPID=7\n");
        let before = kernel_monotonic_us();
        let message = State::Reloading.message();
        let since = message
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .and_then(|rest| rest.strip_suffix('\n'))
            .and_then(|number| number.parse::<u64>().ok())
            .expect("two assignments");
        assert!((before..=kernel_monotonic_us()).contains(&since));
    }

    #[test]
    fn a_manager_that_does_not_read_is_not_waited_for() {
        let name = format!("statsd-fast-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("a socket");
        let socket = format!("@{name}");
        let mut told = 0;
        let error = loop {
            match send(OsStr::new(&socket), "STATUS=x\n") {
                Ok(()) => told += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(told > 0);
        let mut bytes = [0; 32];
        let length = manager.recv(&mut bytes).expect("a datagram");
        assert_eq!(&bytes[..length], b"STATUS=x\n");
    }

    #[test]
    fn a_manager_that_is_not_there_is_an_error() {
        let missing = send(OsStr::new("/nonexistent/notify"), "READY=1\n");
        assert_eq!(missing.expect_err("nobody").kind(), io::ErrorKind::NotFound);
        assert!(send(OsStr::new("@statsd-fast-nobody"), "READY=1\n").is_err());
        assert!(send(OsStr::new(&"x".repeat(200)), "READY=1\n").is_err());
    }
}
