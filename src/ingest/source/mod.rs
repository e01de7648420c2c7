//! Where batches come from.
pub mod udp;
