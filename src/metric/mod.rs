//! The nouns the wings hand each other. No I/O, no clock, no configuration.
//!
//! `ingest` reads a line into a [`sample::Sample`], collects samples in [`cell`]s and moves an
//! interval's worth of them into a [`harvest::Harvest`]; `flush` turns harvests into a
//! [`snapshot::Snapshot`]; `deliver` encodes it. [`registry`] is where a name becomes a number,
//! and [`retired`] are numbers whose names are gone.
//! [`copied`] goes past all that: datagrams as they came, from `ingest` to the repeater in `deliver`.
//! [`prefixes`] tells under which of them names grow.
//! [`handover`] is how a harvest gets from the one to the other. [`carried`] is an open interval on its way
//! to the process that takes over. [`kept`] is what `flush` and `deliver` leave for the next process.

pub mod carried;
pub mod cell;
pub mod copied;
pub mod handover;
pub mod harvest;
pub mod histogram;
pub mod kept;
pub mod meter;
pub mod name;
pub mod prefixes;
pub mod registry;
pub mod retired;
pub mod sample;
pub mod set;
pub mod snapshot;
