//! The repeater: every packet received goes out again, as it came, to other servers.

/// Where to, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Who gets a copy (`repeater`).
    pub targets: Vec<Target>,
    /// How they get it (`repeaterProtocol`).
    pub protocol: Protocol,
}

/// One server that gets a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// How copies travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// A datagram for each packet, over IPv4.
    #[default]
    Udp4,
    /// The same over IPv6.
    Udp6,
    /// The packet and a newline, over a connection that stays.
    Tcp,
}
