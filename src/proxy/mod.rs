//! The cluster proxy: one address in front of many daemons.
//!
//! ```text
//! source --Batch--> forward: name --digests--> ring --> outlet of a node --sendmmsg--> node
//!                                               ^
//! health: asks each node's admin port --> membership: the ring, the addresses
//! ```
//!
//! A worker is that of the daemon, with outlets in the place of a table. It reads no value: what stands
//! before the first colon decides where a line goes, and the line goes there as it came. Workers share only
//! the membership, which they look at once a batch and which changes when a node comes or goes.
//!
//! The law of the account: lines received, and lines of our own = lines the kernel took for a node + lines
//! dropped by reason. What a node did not take of that is between what its machine refused and what was sent
//! to it from its last good answer to its removal ([`account`]).

pub mod account;
pub mod admin;
pub mod digests;
pub mod forward;
pub mod health;
pub mod md5;
pub mod membership;
mod outlet;
pub mod own;
pub mod ring;

use std::time::Duration;

/// A daemon behind the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `host:port` as written: what the ring is made of, and what the node is called.
    pub label: String,
    /// Name or address, without brackets.
    pub host: String,
    /// Port it takes datagrams at.
    pub port: u16,
    /// Port of its admin interface (`adminport`).
    pub admin_port: u16,
}

/// How the proxy forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The nodes in the order written, each label once; never empty.
    pub nodes: Vec<Node>,
    /// Pack lines for one node into datagrams, not each into one of its own (`packing`).
    pub packing: bool,
    /// Longest datagram that lines are packed into, in bytes (`maxDatagram`); a longer line has one of its
    /// own.
    pub max_datagram: usize,
    /// Names whose digests a worker remembers (`cacheSize`).
    pub digests: usize,
    /// How nodes are asked.
    pub health: health::Options,
    /// First part of the names of the proxy's own counters, which go to the ring; `None` sends none
    /// (`prefixStats`).
    pub prefix_stats: Option<String>,
    /// Time between two of their reports (`flushInterval`).
    pub stats_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            packing: true,
            max_datagram: 1432,
            digests: 10_000,
            health: health::Options::default(),
            prefix_stats: None,
            stats_interval: Duration::from_secs(10),
        }
    }
}
