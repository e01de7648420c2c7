//! Names to addresses, and why a listener could not be bound.

use crate::runtime::sys;
use socket2::Socket;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Why a listener could not be bound: likely cause and way out in one line.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {place}: {error}; {hint}")]
pub struct BindError {
    /// Kind and address.
    place: String,
    error: io::Error,
    hint: String,
}

impl BindError {
    /// For a listener of an address and a port, as [`shown`].
    pub(super) fn of_port(kind: &str, address: &str, error: io::Error) -> Self {
        Self {
            place: format!("{kind} {address}"),
            hint: hint_for_port(kind, &error),
            error,
        }
    }

    /// The same, of a path that another key than `socket` names.
    pub(super) fn of_key(mut self, key: &str) -> Self {
        self.hint = self.hint.replace("`socket`", &format!("`{key}`"));
        self
    }

    /// For a unix socket.
    pub(super) fn of_path(kind: &str, path: &Path, error: io::Error) -> Self {
        let hint = match error.kind() {
            _ if sys::is_out_of_descriptors(&error) => OUT_OF_DESCRIPTORS,
            io::ErrorKind::AddrInUse => {
                "another process listens there (see: ss -lxp); stop it or choose another `socket`"
            }
            io::ErrorKind::AlreadyExists => {
                "a file that is no socket is in the way, or a symbolic link; remove it or choose another \
                 `socket`"
            }
            io::ErrorKind::NotFound => "its directory is not there; create it, or check `socket`",
            io::ErrorKind::PermissionDenied => {
                "this user may not create that file, or not use the one that is there; grant it, or check \
                 `socket`"
            }
            io::ErrorKind::InvalidInput if path.as_os_str().as_bytes().contains(&0) => {
                "a path holds no zero byte, and sockets without a file are not for it; write a path into \
                 `socket`"
            }
            io::ErrorKind::InvalidInput => {
                "the path of a socket has at most 107 bytes; choose a shorter `socket`"
            }
            _ => "check that `socket` is a path where this user may create a file",
        };
        Self {
            place: format!("{kind} {}", path.display()),
            hint: hint.into(),
            error,
        }
    }
}

const OUT_OF_DESCRIPTORS: &str =
    "a worker needs two or three; raise the limit (see: ulimit -n) or lower `threads`";

fn hint_for_port(kind: &str, error: &io::Error) -> String {
    let hint = match error.kind() {
        _ if sys::is_out_of_descriptors(error) => OUT_OF_DESCRIPTORS,
        io::ErrorKind::AddrInUse => {
            let letter = if kind == "udp" { 'u' } else { 't' };
            return format!(
                "another process listens there (see: ss -l{letter}np), or another listener of this file does \
                 (`::` takes IPv4 too); stop it or choose another `port`"
            );
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address (see: ip addr); check `address`"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher `port` or grant it"
        }
        io::ErrorKind::Unsupported => {
            "this machine may have IPv6 switched off; drop `address_ipv6`, or an `address` of IPv6"
        }
        _ => "check that `address` is a name or address of this machine",
    };
    hint.into()
}

/// An address as messages show it; `*` for all.
pub(super) fn shown(address: Option<&str>, port: u16) -> String {
    match address {
        Some(address) if address.contains(':') => format!("[{address}]:{port}"),
        address => format!("{}:{port}", address.unwrap_or("*")),
    }
}

/// The addresses of a name, one at least.
pub(super) fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<_> = (name, port).to_socket_addrs()?.collect();
    if found.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(found)
}

/// Where a socket of IP is bound.
pub(super) fn local(socket: &Socket) -> io::Result<SocketAddr> {
    let address = socket.local_addr()?;
    address
        .as_socket()
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}
