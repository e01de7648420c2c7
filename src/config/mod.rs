//! Configuration: what was written -> what the wings need.

use crate::{deliver, flush, ingest};
use std::time::Duration;

/// Everything the server is built from. No wing knows this type: each gets its own options.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Workers a listener gets; `None` is one for each core this process may use (`threads`, `--threads`).
    pub threads: Option<usize>,
    /// Pin each worker to a core (`pinThreads`).
    pub pin: bool,
    /// The UDP listeners, in the order written; may be empty.
    pub udp: Vec<ingest::source::udp::Options>,
    /// How lines are read.
    pub ingest: ingest::Options,
    /// What a flush does.
    pub flush: flush::Options,
    /// Backends in the order written; may be empty.
    pub backends: Vec<deliver::Backend>,
    /// How long stopping may take before what is left is counted as dropped (`stopDeadline`).
    pub stop_deadline: Duration,
    /// Log more (`debug`).
    pub debug: bool,
}
