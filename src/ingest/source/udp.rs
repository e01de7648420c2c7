//! UDP sockets of one listener.

/// One UDP listener: every worker of it binds its own `SO_REUSEPORT` socket.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Name or address to bind; `None` is every address of the family.
    pub address: Option<String>,
    /// Port; 0 lets the kernel choose one, the same for every worker.
    pub port: u16,
    /// Use an IPv6 socket; without an address it is dual stack and takes IPv4 too (`address_ipv6`).
    pub ipv6: bool,
    /// Receive buffer to ask the kernel for, in bytes as the kernel accounts them.
    pub receive_buffer: usize,
    /// Longest datagram taken whole, in bytes; a longer one is cut and counted as truncated.
    pub max_datagram: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: None,
            port: 8125,
            ipv6: false,
            receive_buffer: 16 << 20,
            max_datagram: 65_535,
        }
    }
}
