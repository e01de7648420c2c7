//! Unix datagram sockets: as UDP, by a path.

use std::path::PathBuf;

/// One unix datagram listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Its path.
    pub path: PathBuf,
    /// Its file mode (`socket_mod`); `None` is what the umask leaves.
    pub mode: Option<u32>,
    /// Receive buffer to ask of the kernel, in bytes as setsockopt(2) takes them.
    pub receive_buffer: usize,
    /// Longest datagram taken whole, in bytes; a longer one is cut and counted as truncated.
    pub max_datagram: usize,
}
