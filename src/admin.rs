//! The admin interface: a TCP console that shows and deletes values of the running interval.

/// Where it listens, and how it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Name or address to bind (`mgmt_address`).
    pub address: String,
    /// Port (`mgmt_port`); 0 lets the kernel choose one.
    pub port: u16,
    /// Connections open at once (`mgmt_connections`).
    pub connections: usize,
    /// First answer to `health` (`healthStatus`).
    pub healthy: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: "127.0.0.1".into(),
            port: 8126,
            connections: 32,
            healthy: true,
        }
    }
}
