//! Streams: TCP and unix stream sockets, lines ended by newlines.

use std::path::PathBuf;

/// One stream listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where it listens.
    pub at: At,
    /// Longest line, in bytes; a longer one is dropped and counted.
    pub max_line: usize,
    /// Connections open at once, over all workers.
    pub max_connections: usize,
}

/// Where a stream listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// TCP.
    Tcp {
        /// Name or address to bind; `None` is every address, of IPv6 and IPv4.
        address: Option<String>,
        /// Port; 0 lets the kernel choose one.
        port: u16,
    },
    /// A unix stream socket.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Its file mode (`socket_mod`); `None` is what the umask leaves.
        mode: Option<u32>,
    },
}
