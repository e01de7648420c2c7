//! Posts the batches of a flush: some at a time, each with a deadline, and what failed for a passing reason
//! once more.
//!
//! The service adds up what it is sent twice, so only what it surely has not processed may be posted without
//! end: what never went out, and what it answered with 429 or 503. Of all else nobody knows; after the one
//! retry it is lost.

use super::Options;
use super::address::{Api, Proxy};
use super::batch::Batch;
use super::http::{Client, Unanswered};
use super::reply::Reply;
use super::secrets::Secrets;
use crate::runtime::clock::monotonic_ms;
use crate::runtime::rate_limit::{RateLimit, more};
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

/// Posts on their way at a time.
const PARALLEL: usize = 4;

/// The way to one API.
pub struct Service {
    /// Or why there is none.
    client: Result<Client, String>,
    secrets: Secrets,
    post_timeout: Duration,
    retry_delay: Duration,
    partials: RateLimit,
    unread: RateLimit,
}

/// Not derived: the token must not get into a log.
impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({:?})", self.client)
    }
}

/// What became of the batches of a flush.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Batches that were taken, if only in part.
    pub delivered: usize,
    /// Batches that were not, and must not be posted again: they were refused, or failed twice when they may
    /// have been processed.
    pub lost: usize,
    /// Batches that surely were not processed, and may be posted another time: the service was not reached,
    /// or wants to be left alone.
    pub left: Vec<Batch>,
    /// Measurements refused in batches that were taken in part.
    pub refused: usize,
    /// Posts that failed, first and second tries alike.
    pub failed: usize,
    /// Names of ours the service knows with another type: a post that has one of them is refused whole.
    pub conflicts: Vec<String>,
    /// How long the service wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Of the first batch lost or left: what happened, the likely cause, the way out.
    pub error: Option<io::Error>,
}

/// Whether the addresses can be used.
///
/// # Errors
/// The setting that cannot, and why; no credentials.
pub fn check(api: &str, proxy: Option<&str>) -> Result<(), String> {
    addresses(api, proxy).map(drop)
}

fn addresses(api: &str, proxy: Option<&str>) -> Result<(Api, Option<Proxy>), String> {
    let api = Api::parse(api).map_err(|error| format!("`librato.api`: {error}"))?;
    let proxy = proxy.map(Proxy::parse).transpose();
    let proxy = proxy.map_err(|error| format!("`librato.proxy.uri`: {error}"))?;
    Ok((api, proxy))
}

/// What became of one post.
enum Fate {
    /// Taken, but for so many measurements.
    Taken {
        refused: usize,
        rest: Option<Duration>,
    },
    /// Surely not processed, so it may be taken the next time.
    Untouched {
        error: io::Error,
        rest: Option<Duration>,
        /// Whether the next time may be the retry.
        soon: bool,
    },
    /// May have been processed, or be taken the next time; nobody knows.
    Failed {
        error: io::Error,
        rest: Option<Duration>,
    },
    /// Would be refused again.
    Refused {
        error: io::Error,
        conflicts: Vec<String>,
    },
}

impl Fate {
    fn rest(&self) -> Option<Duration> {
        match self {
            Self::Taken { rest, .. } | Self::Untouched { rest, .. } | Self::Failed { rest, .. } => {
                *rest
            }
            Self::Refused { .. } => None,
        }
    }

    fn is_to_be_retried(&self) -> bool {
        matches!(
            self,
            Self::Untouched { soon: true, .. } | Self::Failed { .. }
        )
    }
}

impl Service {
    /// Connects to nothing yet. With addresses that [`check`] refuses every batch is lost, and the outcome
    /// says why.
    pub fn new(options: &Options) -> Self {
        let addresses = addresses(&options.api, options.proxy.as_deref());
        let client =
            addresses.map(|(api, proxy)| Client::new(api, proxy, &options.email, &options.token));
        let of_client = client.iter().flat_map(Client::credentials);
        Self {
            secrets: Secrets::new(of_client.chain([&*options.token])),
            client,
            post_timeout: options.post_timeout,
            retry_delay: options.retry_delay,
            partials: RateLimit::new(),
            unread: RateLimit::new(),
        }
    }

    /// Posts the batches of one flush, a few at a time. Those that fail by their connection, by the deadline
    /// or by a fault of the service are posted once more after a pause. When the service asks to be left
    /// alone for longer than that, those not posted yet are left.
    ///
    /// `pause` waits as long as it is told, or less when there is no time to lose: what the service asked
    /// for is over before. It returns whether another try is wanted here; when it is not, and all batches may
    /// be posted elsewhere, there is none.
    ///
    /// Four batches take two post deadlines and one pause at most; each four more, two post deadlines.
    pub fn post(&mut self, batches: Vec<Batch>, pause: impl FnOnce(Duration) -> bool) -> Outcome {
        let mut outcome = Outcome::default();
        let client = match &self.client {
            Ok(client) => client,
            Err(error) => {
                outcome.lost = batches.len();
                outcome.error = Some(io::Error::new(io::ErrorKind::InvalidInput, error.clone()));
                return outcome;
            }
        };
        let mut fates: Vec<Option<Fate>> = batches.iter().map(|_| None).collect();
        let mut post = |fates: &mut Vec<Option<Fate>>, which: &[usize]| {
            for (at, fate) in self.round(client, &batches, which) {
                outcome.failed += usize::from(!matches!(fate, Fate::Taken { .. }));
                fates[at] = Some(fate);
            }
        };
        let all: Vec<_> = (0..batches.len()).collect();
        post(&mut fates, &all);
        let doubtful = |fate: &Option<Fate>| matches!(fate, Some(Fate::Failed { .. }));
        let doubtful: Vec<_> = fates.iter().map(doubtful).collect();
        let open = |at: &usize| fates[*at].as_ref().is_none_or(Fate::is_to_be_retried);
        let again: Vec<_> = all.into_iter().filter(open).collect();
        let rest = fates.iter().flatten().filter_map(Fate::rest).max();
        let rest = rest.unwrap_or_default();
        if !again.is_empty() && rest <= self.retry_delay {
            // Who asks too early is refused again, however great the hurry.
            thread::sleep(rest);
            let wanted = pause(self.retry_delay - rest);
            let untouched =
                |fate: &Option<Fate>| matches!(fate, None | Some(Fate::Untouched { .. }));
            if wanted || !fates.iter().all(untouched) {
                post(&mut fates, &again);
            }
        }
        for ((batch, fate), doubtful) in batches.into_iter().zip(fates).zip(doubtful) {
            outcome.retry_after = outcome.retry_after.max(fate.as_ref().and_then(Fate::rest));
            match fate {
                Some(Fate::Taken { refused, .. }) => {
                    outcome.delivered += 1;
                    outcome.refused += refused;
                }
                Some(Fate::Untouched { error, .. }) if !doubtful => {
                    outcome.left.push(batch);
                    outcome.error.get_or_insert(error);
                }
                Some(Fate::Untouched { error, .. } | Fate::Failed { error, .. }) => {
                    outcome.lost += 1;
                    outcome.error.get_or_insert_with(|| {
                        let text = format!("{error}; it may be stored, so it is not sent again");
                        io::Error::new(error.kind(), text)
                    });
                }
                Some(Fate::Refused { error, conflicts }) => {
                    outcome.lost += 1;
                    outcome.error.get_or_insert(error);
                    outcome.conflicts.extend(conflicts);
                }
                None => outcome.left.push(batch),
            }
        }
        outcome.conflicts.sort_unstable();
        outcome.conflicts.dedup();
        outcome
    }

    /// Posts some of the batches, and returns what became of each. Those that are missing then were left out
    /// for a service that wants a rest.
    fn round(&self, client: &Client, batches: &[Batch], which: &[usize]) -> Vec<(usize, Fate)> {
        let next = AtomicUsize::new(0);
        let rests = AtomicBool::new(false);
        let fates = Mutex::new(Vec::with_capacity(which.len()));
        // Relaxed: the one only hands out numbers, and the other may come too late for a post or two.
        let work = || {
            while !rests.load(Ordering::Relaxed)
                && let Some(at) = which.get(next.fetch_add(1, Ordering::Relaxed))
            {
                let fate = self.post_one(client, &batches[*at]);
                if fate.rest().is_some() {
                    rests.store(true, Ordering::Relaxed);
                }
                let mut fates = fates.lock().unwrap_or_else(PoisonError::into_inner);
                fates.push((*at, fate));
            }
        };
        thread::scope(|scope| {
            for _ in 1..PARALLEL.min(which.len()) {
                let name = "librato-post".into();
                // Without a thread to spare it takes longer.
                let _ = Builder::new().name(name).spawn_scoped(scope, work);
            }
            work();
        });
        fates.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn post_one(&self, client: &Client, batch: &Batch) -> Fate {
        let deadline = Instant::now() + self.post_timeout;
        let url = client.url(batch.path);
        let reply = match client.post(batch.path, &batch.body, deadline) {
            Ok(reply) => reply,
            Err(Unanswered { error, sent }) => {
                let text = format!("{url}: {error}; {}", hint(&error));
                let (error, rest) = (io::Error::new(error.kind(), self.discreet(&text)), None);
                return match sent {
                    true => Fate::Failed { error, rest },
                    false => Fate::Untouched {
                        error,
                        rest,
                        soon: true,
                    },
                };
            }
        };
        let rest = reply.rest();
        if reply.json && reply.cut {
            self.tell_unread(&url, &reply);
        }
        let partial = reply.partial(|text| self.discreet(text));
        if let Some(partial) = &partial
            && (reply.is_success() || partial.accepted > 0)
        {
            // The service counts what it was sent, or it is not to be believed.
            let (refused, all) = (partial.failed.min(batch.measurements), batch.measurements);
            if refused > 0
                && let Some(suppressed) = self.partials.pass(monotonic_ms())
            {
                let reasons = &partial.reasons;
                let more = match suppressed {
                    0 => String::new(),
                    more => format!(" [{more} more posts since the last report]"),
                };
                log::error!(
                    "librato: {url} refused {refused} of {all} measurements: {reasons}; see the rules for \
                     names and tags{more}"
                );
            }
            return Fate::Taken { refused, rest };
        }
        if reply.is_success() {
            return Fate::Taken { refused: 0, rest };
        }
        let text = format!("{url}: {}", reply.complaint(|text| self.discreet(text)));
        let kind = match reply.status {
            401 | 403 | 407 => io::ErrorKind::PermissionDenied,
            429 => io::ErrorKind::QuotaExceeded,
            status if (500..600).contains(&status) => io::ErrorKind::Other,
            _ => io::ErrorKind::InvalidData,
        };
        let error = io::Error::new(kind, text);
        if reply.is_untouched() {
            let soon = reply.is_transient();
            return Fate::Untouched { error, rest, soon };
        }
        if reply.is_transient() {
            return Fate::Failed { error, rest };
        }
        let conflicts = known(batch, reply.conflicts());
        Fate::Refused { error, conflicts }
    }

    fn tell_unread(&self, url: &str, reply: &Reply) {
        if let Some(suppressed) = self.unread.pass(monotonic_ms()) {
            let (status, read) = (reply.status, reply.body.len());
            let more = more(suppressed);
            log::warn!(
                "librato: {url} answered HTTP {status} with more than the {read} bytes that are read, so \
                 what it says of single measurements is not known; a smaller `librato.batchSize` makes \
                 shorter answers{more}"
            );
        }
    }

    /// A text without our credentials: a server may answer with what it was sent.
    pub(super) fn discreet(&self, text: &str) -> String {
        self.secrets.mask(text)
    }
}

/// Those of the names that are in a batch: a server may say anything.
fn known(batch: &Batch, mut names: Vec<String>) -> Vec<String> {
    if names.is_empty() {
        return names;
    }
    let body: Value = serde_json::from_slice(&batch.body).unwrap_or_default();
    let lists = ["measurements", "gauges", "counters"].into_iter();
    let ours: HashSet<_> = lists
        .filter_map(|list| body[list].as_array())
        .flatten()
        .filter_map(|item| item["name"].as_str())
        .collect();
    names.retain(|name| ours.contains(name.as_str()));
    names
}

/// What most likely stands behind an error without an answer, and what to do.
fn hint(error: &io::Error) -> &'static str {
    let text = error.to_string();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "likely cause: nothing listens there; correct `librato.api` or `librato.proxy.uri`"
        }
        io::ErrorKind::TimedOut => {
            "likely cause: a firewall between, or a server that hangs; look there, or raise \
             `librato.postTimeoutSecs`"
        }
        io::ErrorKind::PermissionDenied => "the proxy decides who may pass",
        _ if text.contains("NotValidForName") || text.contains("not valid for name") => {
            "likely cause: `librato.api` has another name for the server than its certificate"
        }
        _ if text.contains("certificate") => {
            "likely cause: an authority that this machine does not trust, or a certificate out of date; \
             SSL_CERT_FILE in the environment names a file of authorities, read at the first post"
        }
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => {
            "likely cause: a server that restarts, or speaks the other of http and https; see its log"
        }
        _ => "check `librato.api`, the resolver, and the route to it",
    }
}
