//! Ingest: a pinned thread, one source, one table.

pub mod name;
pub mod number;
pub mod packet;
pub mod parse;
pub mod scan;
pub mod source;
pub mod table;

/// How lines are read. See README, "Protocol".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// The reference's protocol, to the bit, except that what crashes it is a bad line.
    #[default]
    Statsd,
    /// The reference's documented protocol with DogStatsD added.
    Auto,
}

/// What a worker needs to know besides its source.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How lines are read.
    pub dialect: Dialect,
    /// Clean names as the reference does (`keyNameSanitize`).
    pub sanitize_names: bool,
    /// Raw samples a timer keeps per interval before it becomes a histogram (`exactSamples`).
    pub exact_samples: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dialect: Dialect::Statsd,
            sanitize_names: true,
            exact_samples: 1024,
        }
    }
}
