//! Posts the batches of a flush: some at a time, each with a deadline, and what failed for a passing reason
//! once more.

use super::Options;
use super::address::{Api, Proxy};
use super::batch::Batch;
use super::http::Client;
use crate::runtime::clock::monotonic_ms;
use crate::runtime::rate_limit::RateLimit;
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
    token: String,
    post_timeout: Duration,
    retry_delay: Duration,
    partials: RateLimit,
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
    /// Batches that were not.
    pub lost: usize,
    /// Of those lost, the ones that may be taken another time: the connection, the deadline or the service
    /// failed, or it wants to be left alone.
    pub passing: usize,
    /// Measurements refused in batches that were taken in part.
    pub refused: usize,
    /// Posts that failed, first and second tries alike.
    pub failed: usize,
    /// Names the service knows with another type: a post that has one of them is refused whole.
    pub conflicts: Vec<String>,
    /// How long the service wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Of the first batch lost: what happened, the likely cause, the way out.
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
    Taken { refused: usize },
    /// May be taken the next time.
    Failed {
        error: io::Error,
        rest: Option<Duration>,
    },
    /// Would be refused again.
    Refused {
        error: io::Error,
        conflicts: Vec<String>,
        rest: Option<Duration>,
    },
}

impl Fate {
    fn rest(&self) -> Option<Duration> {
        match self {
            Self::Taken { .. } => None,
            Self::Failed { rest, .. } | Self::Refused { rest, .. } => *rest,
        }
    }
}

impl Service {
    /// Connects to nothing yet. With addresses that [`check`] refuses every batch is lost, and the outcome
    /// says why.
    pub fn new(options: &Options) -> Self {
        let addresses = addresses(&options.api, options.proxy.as_deref());
        Self {
            client: addresses
                .map(|(api, proxy)| Client::new(api, proxy, &options.email, &options.token)),
            token: options.token.clone(),
            post_timeout: options.post_timeout,
            retry_delay: options.retry_delay,
            partials: RateLimit::new(),
        }
    }

    /// Posts the batches of one flush, a few at a time. Those that fail by their connection, by the deadline
    /// or by a fault of the service are posted once more after a pause. When the service asks to be left
    /// alone for longer than that, those not posted yet are lost.
    ///
    /// `pause` waits as long as it is told, or less when there is no time to lose: what the service asked
    /// for is over before. It returns whether another try is wanted here; when it is not, and the service has
    /// taken nothing yet, there is none.
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
        let open = |at: &usize| matches!(fates[*at], None | Some(Fate::Failed { .. }));
        let again: Vec<_> = all.into_iter().filter(open).collect();
        let rest = fates.iter().flatten().filter_map(Fate::rest).max();
        let rest = rest.unwrap_or_default();
        if !again.is_empty() && rest <= self.retry_delay {
            // Who asks too early is refused again, however great the hurry.
            thread::sleep(rest);
            let wanted = pause(self.retry_delay - rest);
            if wanted || again.len() < fates.len() {
                post(&mut fates, &again);
            }
        }
        for fate in fates {
            outcome.retry_after = outcome.retry_after.max(fate.as_ref().and_then(Fate::rest));
            match fate {
                Some(Fate::Taken { refused }) => {
                    outcome.delivered += 1;
                    outcome.refused += refused;
                }
                Some(Fate::Failed { error, .. }) => {
                    outcome.lost += 1;
                    outcome.passing += 1;
                    outcome.error.get_or_insert(error);
                }
                Some(Fate::Refused {
                    error,
                    conflicts,
                    rest,
                }) => {
                    outcome.lost += 1;
                    outcome.passing += usize::from(rest.is_some());
                    outcome.error.get_or_insert(error);
                    outcome.conflicts.extend(conflicts);
                }
                None => {
                    outcome.lost += 1;
                    outcome.passing += 1;
                }
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
            Err(error) => {
                let text = format!("{url}: {error}; {}", hint(&error));
                return Fate::Failed {
                    error: io::Error::new(error.kind(), self.discreet(client, &text)),
                    rest: None,
                };
            }
        };
        let partial = reply.partial();
        if let Some(partial) = &partial
            && (reply.is_success() || partial.accepted > 0)
        {
            if let Some(suppressed) = self.partials.pass(monotonic_ms()) {
                let (failed, all, reasons) = (partial.failed, batch.measurements, &partial.reasons);
                let more = match suppressed {
                    0 => String::new(),
                    more => format!(" [{more} more posts since the last report]"),
                };
                let text = format!(
                    "librato: {url} refused {failed} of {all} measurements: {reasons}; see the rules for \
                     names and tags{more}"
                );
                log::error!("{}", self.discreet(client, &text));
            }
            return Fate::Taken {
                refused: partial.failed,
            };
        }
        if reply.is_success() {
            return Fate::Taken { refused: 0 };
        }
        let text = format!("{url}: {}", reply.complaint());
        let text = self.discreet(client, &text);
        if reply.is_transient() {
            return Fate::Failed {
                error: io::Error::other(text),
                rest: reply.rest(),
            };
        }
        let (kind, rest) = match reply.status {
            401 | 403 | 407 => (io::ErrorKind::PermissionDenied, None),
            429 => (io::ErrorKind::QuotaExceeded, reply.rest()),
            _ => (io::ErrorKind::InvalidData, None),
        };
        Fate::Refused {
            error: io::Error::new(kind, text),
            conflicts: reply.conflicts(),
            rest,
        }
    }

    /// A text without our credentials: a server may answer with what it was sent.
    fn discreet(&self, client: &Client, text: &str) -> String {
        let encoded = client.authorization().trim_start_matches("Basic ");
        [encoded, &self.token]
            .into_iter()
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
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
