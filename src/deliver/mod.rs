//! Deliver: a thread for each backend, fed with snapshots.

pub mod console;
pub mod graphite;

/// A backend with its options; the name is the one the config file uses.
#[derive(Debug, Clone, PartialEq)]
pub enum Backend {
    /// Readable text on standard output.
    Console(console::Options),
    /// Plaintext lines over TCP to carbon.
    Graphite(graphite::Options),
}
