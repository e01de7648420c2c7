//! statsd-fast: datagrams in, aggregates out.
pub mod config;
pub mod deliver;
pub mod flush;
pub mod ingest;
pub mod metric;
pub mod runtime;
pub mod server;
