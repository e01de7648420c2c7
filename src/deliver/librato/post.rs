//! Stands in for the way out until it is there: whatever is posted is lost.

use super::Options;
use super::batch::Batch;
use std::io;
use std::time::Duration;

/// The service at the other end.
#[derive(Debug)]
pub struct Service;

/// What became of the posts of one flush.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Posts that were taken.
    pub delivered: usize,
    /// Posts that were not.
    pub lost: usize,
    /// Names to stop sending.
    pub conflicts: Vec<String>,
    /// How long the service wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Why the last post failed that may be tried again.
    pub error: Option<io::Error>,
}

impl Service {
    /// Nothing is connected yet.
    pub fn new(_options: &Options) -> Self {
        Self
    }

    /// Posts nothing.
    pub fn post(&mut self, batches: Vec<Batch>) -> Outcome {
        Outcome {
            lost: batches.len(),
            error: Some(io::ErrorKind::Unsupported.into()),
            ..Outcome::default()
        }
    }
}
