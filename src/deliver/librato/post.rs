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
    /// Measurements refused in posts that were taken in part.
    pub refused: usize,
    /// Posts that failed, first and second tries alike.
    pub failed: usize,
    /// Names to stop sending.
    pub conflicts: Vec<String>,
    /// How long the service wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Of the first post lost: what happened, the likely cause, the way out.
    pub error: Option<io::Error>,
}

/// Whether the addresses can be used.
///
/// # Errors
/// The setting that cannot, and why; no credentials.
pub fn check(api: &str, proxy: Option<&str>) -> Result<(), String> {
    let begins = |text: &str, scheme: &str| {
        let head = text.get(..scheme.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(scheme))
    };
    if !begins(api, "http://") && !begins(api, "https://") {
        return Err("`librato.api`: an address begins with `https://` or `http://`".into());
    }
    if proxy.is_some_and(|proxy| !begins(proxy, "http://")) {
        return Err("`librato.proxy.uri`: a proxy's address is `http://host:port`".into());
    }
    Ok(())
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
