//! The Librato backend: a flush as measurements with tags, and as gauges and counters with a source when the
//! old way is wanted too, in posts of JSON.
//!
//! The service adds up what it is sent twice. So a flush waits in the outbox only while the service has
//! surely processed nothing of it: it was not reached, or answered every post with 429 or 503. The flush is
//! encoded again then, without what was stopped meanwhile. When the service has processed a part, or may
//! have, the flush is done, and those of its posts that surely were not processed wait here, before the next
//! flush; they are lost with the backend. What the service refuses is lost and counted, and so is what fails
//! twice when it may have been processed. Running totals begin with the backend, that is with new settings of
//! it, or with the process when nobody kept them.

mod address;
pub mod batch;
mod http;
pub mod measure;
mod name;
pub mod pattern;
pub mod post;
mod reply;
mod secrets;
mod summary;
mod tunnel;

use super::outbox::Queue;
use super::runner::Fate;
use super::status::Status;
use crate::metric::kept::Pen;
use crate::metric::meter::Outside;
use crate::metric::snapshot::Snapshot;
use crate::runtime::clock::{Clock, monotonic_ms, rounded_seconds};
use crate::runtime::rate_limit::{RateLimit, more};
use batch::Batch;
use measure::{Encoded, Encoder};
use pattern::Pattern;
use post::{Outcome, Service};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where posts go when nothing else is said.
pub const API: &str = "https://metrics-api.librato.com";

/// A percentile and the text it is named by.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// The percentile; one from above, that is below 0, has no measurement.
    pub percent: f64,
    /// As written, e.g. `99.9`.
    pub label: String,
}

/// Everything that shapes measurements and the way out.
#[derive(Clone, PartialEq)]
pub struct Options {
    /// Who signs in (`librato.email`).
    pub email: String,
    /// With what; it is shown nowhere (`librato.token`).
    pub token: String,
    /// Scheme, host, port and a base path of the service (`librato.api`).
    pub api: String,
    /// An HTTP proxy, with user and password if it wants them (`librato.proxy.uri`).
    pub proxy: Option<String>,
    /// How long a post may take (`librato.postTimeoutSecs`).
    pub post_timeout: Duration,
    /// How long to wait before the one retry (`librato.retryDelaySecs`).
    pub retry_delay: Duration,
    /// The source of measurements that have none in their name (`librato.source`).
    pub source: Option<String>,
    /// What the global tag `host` is set to, whatever `tags` has for it.
    pub host: Option<String>,
    /// Global tags, each with its value as JSON (`librato.tags`).
    pub tags: Vec<(String, String)>,
    /// Tags that stand in a bucket as `;k=v`, which is where DogStatsD's do, are tags, and all are cleaned
    /// (`dialect` auto).
    pub folded_tags: bool,
    /// Its first group is the source; what it matches leaves the name (`librato.sourceRegex`).
    pub source_regex: Option<Pattern>,
    /// Only buckets one of these is found in, when there are any (`librato.includeMetrics`).
    pub include: Vec<Pattern>,
    /// No bucket one of these is found in (`librato.excludeMetrics`).
    pub exclude: Vec<Pattern>,
    /// Times are multiples of so many seconds; 0 leaves them (`librato.snapTime`).
    pub snap: i64,
    /// Counters are sums of an interval, not running totals (`librato.countersAsGauges`).
    pub counters_as_gauges: bool,
    /// Leave out `statsd.` and `numStats` (`librato.skipInternalMetrics`).
    pub skip_internal: bool,
    /// Most measurements of a post (`librato.batchSize`).
    pub batch_size: usize,
    /// A whole timer is named as its 100th percentile (`librato.alwaysSuffixPercentile`).
    pub always_suffix: bool,
    /// Before every name, without its dot; may be empty (`librato.globalPrefix`).
    pub global_prefix: String,
    /// Post the old way too (`librato.writeToLegacy`).
    pub write_to_legacy: bool,
    /// Percentiles of timers in the order written (`percentThreshold`).
    pub thresholds: Vec<Threshold>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            email: String::new(),
            token: String::new(),
            api: API.into(),
            proxy: None,
            post_timeout: Duration::from_secs(4),
            retry_delay: Duration::from_secs(5),
            source: None,
            host: None,
            tags: Vec::new(),
            folded_tags: false,
            source_regex: None,
            include: Vec::new(),
            exclude: Vec::new(),
            snap: 10,
            counters_as_gauges: true,
            skip_internal: true,
            batch_size: 500,
            always_suffix: false,
            global_prefix: String::new(),
            write_to_legacy: false,
            thresholds: vec![Threshold {
                percent: 90.0,
                label: "90".into(),
            }],
        }
    }
}

/// Shows what may be shown: no token, and no proxy, which may have a password in it.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("api", &self.api)
            .field("source", &self.source)
            .field("host", &self.host)
            .field("tags", &self.tags)
            .field("folded_tags", &self.folded_tags)
            .field("source_regex", &self.source_regex)
            .field("include", &self.include)
            .field("exclude", &self.exclude)
            .field("snap", &self.snap)
            .field("counters_as_gauges", &self.counters_as_gauges)
            .field("skip_internal", &self.skip_internal)
            .field("batch_size", &self.batch_size)
            .field("always_suffix", &self.always_suffix)
            .field("global_prefix", &self.global_prefix)
            .field("write_to_legacy", &self.write_to_legacy)
            .field("thresholds", &self.thresholds)
            .field("post_timeout", &self.post_timeout)
            .field("retry_delay", &self.retry_delay)
            .finish_non_exhaustive()
    }
}

/// Whether a flush has anything but the server's own metrics in it.
pub(super) fn has_measurements(snapshot: &Snapshot) -> bool {
    let counters = snapshot.counters.iter().map(|counter| &counter.name);
    let gauges = snapshot.gauges.iter().map(|gauge| &gauge.name);
    let mut names = counters.chain(gauges);
    !snapshot.timers.is_empty()
        || !snapshot.sets.is_empty()
        || names.any(|name| !name.starts_with(measure::INTERNAL))
}

/// The backend: encoder, way out, and what it remembers between flushes.
#[derive(Debug)]
pub struct Librato {
    encoder: Encoder,
    /// Writes the running totals down, when anybody keeps them.
    pen: Option<Pen>,
    service: Service,
    clock: Clock,
    /// The flush that is to be tried again.
    waiting: Vec<Arc<Snapshot>>,
    /// Times of flushes that the totals of the process before have already, though it may have left them on
    /// disk.
    ahead: Vec<i64>,
    /// Posts of a flush that is done otherwise; they are to be tried before the next.
    left: Vec<Batch>,
    /// The service wants to be left alone until then.
    quiet_until: Option<Instant>,
    said_dropped: RateLimit,
    said_tags_dropped: RateLimit,
    said_exhausted: RateLimit,
    said_lost: RateLimit,
    said_left: RateLimit,
}

impl Librato {
    /// A backend that has posted nothing yet.
    pub fn new(options: &Options, clock: Clock) -> Self {
        let time = clock.clone();
        Self {
            encoder: Encoder::new(options).timed(move || time.steady_ms()),
            pen: None,
            service: Service::new(options),
            clock,
            waiting: Vec::new(),
            ahead: Vec::new(),
            left: Vec::new(),
            quiet_until: None,
            said_dropped: RateLimit::new(),
            said_tags_dropped: RateLimit::new(),
            said_exhausted: RateLimit::new(),
            said_lost: RateLimit::new(),
            said_left: RateLimit::new(),
        }
    }

    /// The same, going on with the running totals that were written down last, and writing them down.
    #[must_use]
    pub fn keeping(mut self, pen: Option<Pen>) -> Self {
        if let Some(pen) = &pen {
            let (totals, _) = pen.totals();
            self.encoder.resume(&totals);
            self.ahead.clone_from(&totals.ahead);
        }
        self.pen = pen;
        self
    }

    /// Posts one flush, with the one retry of each post after a pause, and before it what is left of an
    /// earlier one; see [`Service::post`]. A stop does not wait for the retry, since it has a deadline, but
    /// for a pause that the service asked for, when that ends before. With other options, who has them tries
    /// again.
    ///
    /// # Errors
    /// When surely nothing of it was processed but may be so later, or when the service asked for a pause.
    pub(super) fn deliver(
        &mut self,
        snapshot: &Arc<Snapshot>,
        outside: &Outside,
        status: &Status,
        queue: &Queue,
    ) -> io::Result<Fate> {
        loop {
            let fate = self.attempt(snapshot, outside, status, queue);
            if fate.is_ok() || !self.rests(queue) {
                return fate;
            }
        }
    }

    /// Sees through what is left of the last flush, after the end. What the service does not take then is
    /// lost and counted.
    pub(super) fn finish(&mut self, outside: &Outside, status: &Status, queue: &Queue) {
        // With other options somebody else goes on, and a pause has time; a second one is too many.
        let mut patient = true;
        while !self.left.is_empty() {
            let posted = self
                .keep_quiet()
                .and_then(|()| self.post_left(outside, status, queue));
            let Err(error) = posted else { return };
            let quiet = self.quiet();
            let waits = std::mem::take(&mut patient) && !quiet.is_zero();
            if !(waits && queue.wait_out(quiet) || self.rests(queue)) {
                self.left.clear();
                let lost = queue.take_kept();
                outside.posts_lost.add(lost as u64);
                log::error!("librato: posts not delivered at the end and lost: {lost}: {error}");
            }
        }
    }

    /// How long the service still wants to be left alone.
    fn quiet(&self) -> Duration {
        let until = self.quiet_until.unwrap_or_else(Instant::now);
        until.saturating_duration_since(Instant::now())
    }

    fn keep_quiet(&self) -> io::Result<()> {
        let left = self.quiet();
        if left.is_zero() {
            return Ok(());
        }
        let seconds = left.as_secs() + 1;
        let message = format!("the service asked for a pause of {seconds} s more");
        Err(io::Error::new(io::ErrorKind::QuotaExceeded, message))
    }

    /// Sleeps a pause out that the service asked for, when the process is stopping and has the time. Whether
    /// it did.
    fn rests(&self, queue: &Queue) -> bool {
        let left = self.quiet();
        !left.is_zero() && queue.sleep_out(left)
    }

    fn post(&mut self, batches: Vec<Batch>, status: &Status, queue: &Queue) -> Outcome {
        let attempted = || status.set(&[("last_flush", rounded_seconds(self.clock.now_ms()))]);
        attempted();
        let outcome = self.service.post(batches, |pause| queue.pause(pause));
        attempted();
        outcome
    }

    /// Posts what is left of an earlier flush.
    fn post_left(&mut self, outside: &Outside, status: &Status, queue: &Queue) -> io::Result<()> {
        let left = std::mem::take(&mut self.left);
        if left.is_empty() {
            return Ok(());
        }
        let mut outcome = self.post(left, status, queue);
        let error = outcome.error.take();
        let error = error.unwrap_or_else(|| io::ErrorKind::Other.into());
        self.learn(&outcome, outside);
        self.tell_lost(&outcome, &error, outside);
        self.left = outcome.left;
        queue.keeps(self.left.len());
        if self.left.is_empty() {
            return Ok(());
        }
        Err(error)
    }

    fn attempt(
        &mut self,
        snapshot: &Arc<Snapshot>,
        outside: &Outside,
        status: &Status,
        queue: &Queue,
    ) -> io::Result<Fate> {
        self.keep_quiet()?;
        self.post_left(outside, status, queue)?;
        self.keep_quiet()?;
        // What nobody else holds was dropped by the outbox, or delivered by somebody else.
        self.waiting.retain(|it| Arc::strong_count(it) > 1);
        let known = self.waiting.iter().position(|it| Arc::ptr_eq(it, snapshot));
        let again = known.is_some();
        let is_ahead = |time: &i64| *time == snapshot.timestamp;
        let ahead = self.ahead.iter().position(is_ahead).filter(|_| !again);
        if let Some(at) = ahead {
            self.ahead.swap_remove(at);
        }
        let Encoded {
            batches,
            dropped,
            tags_dropped,
            exhausted,
        } = self.encoder.encode(snapshot, again || ahead.is_some());
        if !again {
            // A flush that waits on disk is added by the process that sends it, with its own totals.
            if !queue.has_spool() {
                self.write_totals(snapshot);
            }
            self.tell_dropped(dropped, tags_dropped, exhausted, outside);
        }
        if batches.is_empty() {
            self.write_settled(queue, snapshot);
            return Ok(Fate::Nothing);
        }
        let outcome = self.post(batches, status, queue);
        let fate = self.settle(outcome, outside);
        queue.keeps(self.left.len());
        match known {
            Some(at) if fate.is_ok() => drop(self.waiting.swap_remove(at)),
            None if fate.is_err() => self.waiting.push(snapshot.clone()),
            _ => {}
        }
        self.write_settled(queue, snapshot);
        fate
    }

    /// Writes the running totals down when no flush that is to come again is among them.
    fn write_settled(&self, queue: &Queue, snapshot: &Snapshot) {
        if queue.has_spool() && self.waiting.is_empty() {
            self.write_totals(snapshot);
        }
    }

    /// Writes them down, as they are with this flush.
    fn write_totals(&self, snapshot: &Snapshot) {
        if let Some(pen) = &self.pen
            && let Some(mut totals) = self.encoder.totals()
        {
            totals.ahead.clone_from(&self.ahead);
            pen.write(totals, snapshot.timestamp);
        }
    }

    fn tell_dropped(&self, dropped: u64, tags_dropped: u64, exhausted: u64, outside: &Outside) {
        outside.measurements_dropped.add(dropped);
        outside.tags_dropped.add(tags_dropped);
        if dropped > 0
            && let Some(suppressed) = self.said_dropped.pass(monotonic_ms())
        {
            log::warn!(
                "librato: {dropped} measurements of a flush were left out: no name, a number the service \
                 does not take, or of a type it refused before{}",
                more(suppressed)
            );
        }
        if tags_dropped > 0
            && let Some(suppressed) = self.said_tags_dropped.pass(monotonic_ms())
        {
            log::warn!(
                "librato: {tags_dropped} tags of a flush were left out: no name, another tag of that name \
                 behind it, or more than 50 of a measurement{}",
                more(suppressed)
            );
        }
        if exhausted > 0
            && let Some(suppressed) = self.said_exhausted.pass(monotonic_ms())
        {
            log::warn!(
                "librato: a regular expression took too long on {exhausted} names, or they are longer than \
                 1 KiB, and counts as not found there; simplify includeMetrics, excludeMetrics or \
                 sourceRegex{}",
                more(suppressed)
            );
        }
    }

    /// What the outcome of the posts means for the flush.
    fn settle(&mut self, mut outcome: Outcome, outside: &Outside) -> io::Result<Fate> {
        self.learn(&outcome, outside);
        let (delivered, lost) = (outcome.delivered, outcome.lost);
        let error = outcome.error.take();
        let error = error.unwrap_or_else(|| io::ErrorKind::Other.into());
        if delivered == 0 && lost == 0 {
            return Err(error);
        }
        self.tell_lost(&outcome, &error, outside);
        self.left = outcome.left;
        let left = self.left.len();
        if left > 0
            && let Some(suppressed) = self.said_left.pass(monotonic_ms())
        {
            let (posts, more) = (delivered + lost + left, more(suppressed));
            log::warn!(
                "librato: {left} of {posts} posts of a flush wait and go before the next: {error}{more}"
            );
        }
        Ok(if delivered == 0 {
            Fate::Lost
        } else {
            Fate::Delivered
        })
    }

    /// Takes in what an outcome says for all posts that follow.
    fn learn(&mut self, outcome: &Outcome, outside: &Outside) {
        let encoder = &mut self.encoder;
        let names = outcome.conflicts.iter();
        let fresh: Vec<_> = names.filter(|name| encoder.stop(name)).collect();
        if let Some(first) = fresh.first() {
            log::warn!(
                "librato: {} metrics are of another type at the service and are not sent until a restart, \
                 e.g. {}; delete them there, or see countersAsGauges",
                fresh.len(),
                self.service.discreet(first)
            );
        }
        // A pause that ends beyond the clock is none.
        let pause = outcome.retry_after;
        self.quiet_until = pause.and_then(|pause| Instant::now().checked_add(pause));
        outside.measurements_dropped.add(outcome.refused as u64);
    }

    fn tell_lost(&self, outcome: &Outcome, error: &io::Error, outside: &Outside) {
        let lost = outcome.lost;
        if lost == 0 {
            return;
        }
        outside.posts_lost.add(lost as u64);
        if let Some(suppressed) = self.said_lost.pass(monotonic_ms()) {
            let posts = outcome.delivered + lost + outcome.left.len();
            let more = more(suppressed);
            log::error!("librato: {lost} of {posts} posts of a flush were lost: {error}{more}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outbox::{Limits, Outbox};
    use super::*;
    use crate::metric::snapshot::{Counter, Gauge};
    use std::io::ErrorKind;

    fn backend() -> (Librato, Arc<Outside>, Outbox, Queue) {
        let clock = Clock::Manual(crate::runtime::clock::Manual::new(0));
        let outside = Arc::new(Outside::default());
        let (outbox, queue) = Outbox::new("librato", |_| true, Limits::default(), outside.clone());
        let librato = Librato::new(&Options::default(), clock);
        (librato, outside, outbox, queue)
    }

    fn batch() -> Batch {
        Batch {
            path: "/v1/measurements",
            body: Vec::new(),
            measurements: 1,
        }
    }

    #[test]
    fn a_flush_waits_only_when_surely_nothing_of_it_was_processed() {
        let kind = ErrorKind::ConnectionReset;
        for (delivered, lost, left, expected) in [
            (2, 0, 0, (Ok(Fate::Delivered), 0, 0)),
            (0, 0, 2, (Err(kind), 0, 0)),
            (0, 1, 1, (Ok(Fate::Lost), 1, 1)),
            (1, 0, 2, (Ok(Fate::Delivered), 0, 2)),
            (1, 1, 1, (Ok(Fate::Delivered), 1, 1)),
            (1, 1, 0, (Ok(Fate::Delivered), 1, 0)),
            (0, 2, 0, (Ok(Fate::Lost), 2, 0)),
        ] {
            let outcome = Outcome {
                delivered,
                lost,
                left: vec![batch(); left],
                error: (delivered == 0 || lost > 0).then(|| kind.into()),
                ..Outcome::default()
            };
            let (mut librato, outside, ..) = backend();
            let fate = librato.settle(outcome, &outside);
            let fate = fate.map_err(|error| error.kind());
            let lost_in_all = outside.posts_lost.total();
            let settled = (fate, lost_in_all, librato.left.len());
            assert_eq!(settled, expected, "{delivered} {lost} {left}");
        }
    }

    #[test]
    fn what_a_post_lost_in_part_is_counted_and_what_conflicts_is_stopped() {
        let (mut librato, outside, ..) = backend();
        let outcome = Outcome {
            delivered: 1,
            refused: 3,
            conflicts: vec!["g".into()],
            ..Outcome::default()
        };
        let fate = librato.settle(outcome, &outside).expect("it went through");
        assert_eq!(fate, Fate::Delivered);
        assert_eq!(outside.measurements_dropped.total(), 3);
        assert!(!librato.encoder.stop("g"), "it is stopped already");
    }

    #[test]
    fn a_flush_with_nothing_to_say_is_no_attempt() {
        let (mut librato, outside, _outbox, queue) = backend();
        let status = Status::new("librato");
        let empty = Arc::new(Snapshot::default());
        let fate = librato.deliver(&empty, &outside, &status, &queue);
        assert_eq!(fate.expect("nothing can fail"), Fate::Nothing);
        assert_eq!(status.fields(), []);
    }

    #[test]
    fn a_pause_the_service_asks_for_is_kept() {
        let (mut librato, outside, _outbox, queue) = backend();
        let outcome = Outcome {
            delivered: 1,
            retry_after: Some(Duration::from_secs(3600)),
            ..Outcome::default()
        };
        assert_eq!(
            librato.settle(outcome, &outside).expect("fine"),
            Fate::Delivered
        );
        let snapshot = Arc::new(Snapshot {
            gauges: vec![Gauge {
                name: "g".into(),
                value: 1.0,
            }],
            ..Snapshot::default()
        });
        let status = Status::new("librato");
        let error = librato
            .deliver(&snapshot, &outside, &status, &queue)
            .expect_err("not yet");
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
        assert_eq!(status.fields(), [], "no attempt was made");
    }

    #[test]
    fn a_flush_that_waits_is_added_to_running_totals_once_whatever_comes_between() {
        // A port that refuses: taken, and let go.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let (_, outside, _outbox, queue) = backend();
        let options = Options {
            api: format!("http://{address}"),
            counters_as_gauges: false,
            retry_delay: Duration::ZERO,
            ..Options::default()
        };
        let clock = Clock::Manual(crate::runtime::clock::Manual::new(0));
        let mut librato = Librato::new(&options, clock);
        let flush = |value: f64| {
            Arc::new(Snapshot {
                counters: vec![Counter {
                    name: "c".into(),
                    value,
                    rate: 0.0,
                }],
                ..Snapshot::default()
            })
        };
        let status = Status::new("librato");
        let (one, ten) = (flush(1.0), flush(10.0));
        for waiting in [&one, &ten, &one, &ten, &ten, &one] {
            let fate = librato.deliver(waiting, &outside, &status, &queue);
            fate.expect_err("nobody listens there");
        }
        let Encoded { batches, .. } = librato.encoder.encode(&one, true);
        let body = String::from_utf8_lossy(&batches[0].body).into_owned();
        assert!(body.contains(r#""name":"c","value":11,"#), "{body}");
    }

    #[test]
    fn nothing_shows_the_token_or_the_proxy() {
        let options = Options {
            token: "hush".into(),
            proxy: Some("http://user:hush@proxy".into()),
            ..Options::default()
        };
        assert!(!format!("{options:?}").contains("hush"));
    }
}
