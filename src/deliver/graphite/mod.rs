//! The Graphite backend: names and values as the reference spells them, over a fresh connection for
//! each flush or one that is kept.

mod encode;
mod pickle;

pub use encode::Encoder;

use super::runner::Fate;
use super::sink::{self, Kept};
use crate::metric::snapshot::Snapshot;
use crate::runtime::clock::{Clock, monotonic_ms, rounded_seconds};
use crate::runtime::rate_limit::{RateLimit, more};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

/// How names are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Namespace {
    /// `graphite.legacyNamespace: true`, the default: `stats.K`, `stats_counts.K`; the five prefixes are
    /// ignored.
    #[default]
    Legacy,
    /// `graphite.legacyNamespace: false`: `G.C.K.rate`, `G.C.K.count`.
    Prefixed,
    /// Any other value of `legacyNamespace`: legacy namespaces, `.rate`/`.count` endings,
    /// `stats.PS.numStats`.
    Hybrid,
}

/// How values travel to carbon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// A line for each value.
    #[default]
    Text,
    /// A pickled list for each flush.
    Pickle,
}

/// Everything that shapes names, values and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where carbon listens; `None` computes nothing and sends nothing, as the reference (`graphiteHost`).
    pub host: Option<String>,
    /// Its port for that protocol (`graphitePort`, `graphitePicklePort`).
    pub port: u16,
    /// How values travel (`graphiteProtocol`).
    pub protocol: Protocol,
    /// Keep one connection for all flushes (`graphite.persistent`).
    pub persistent: bool,
    /// How names are built (`graphite.legacyNamespace`).
    pub namespace: Namespace,
    /// `graphite.globalPrefix`.
    pub global_prefix: String,
    /// `graphite.prefixCounter`.
    pub prefix_counter: String,
    /// `graphite.prefixTimer`.
    pub prefix_timer: String,
    /// `graphite.prefixGauge`.
    pub prefix_gauge: String,
    /// `graphite.prefixSet`.
    pub prefix_set: String,
    /// `graphite.globalSuffix`; `Some("")` gives a trailing dot, as the reference.
    pub global_suffix: Option<String>,
    /// Tags are a part of the path (`graphite.tags: "name"`), and not carbon's.
    pub tags_in_path: bool,
    /// `prefixStats`.
    pub prefix_stats: String,
    /// Send counts beside rates (`flush_counts`).
    pub flush_counts: bool,
    /// Clean names again here, because they were kept verbatim (`keyNameSanitize: false`).
    pub sanitize_names: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: None,
            port: 2003,
            protocol: Protocol::Text,
            persistent: false,
            namespace: Namespace::Legacy,
            global_prefix: "stats".into(),
            prefix_counter: "counters".into(),
            prefix_timer: "timers".into(),
            prefix_gauge: "gauges".into(),
            prefix_set: "sets".into(),
            global_suffix: None,
            tags_in_path: false,
            prefix_stats: "statsd".into(),
            flush_counts: true,
            sanitize_names: false,
        }
    }
}

/// What the reference says of its last flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Unix seconds of the last attempt that failed; 0 before any.
    pub last_exception: i64,
    /// Unix seconds of the last flush that was delivered; the start before any.
    pub last_flush: i64,
    /// Milliseconds it took to hand over.
    pub flush_time_ms: u64,
    /// Its characters as text, its bytes when pickled.
    pub flush_length: usize,
}

/// The backend: encoder, connection and status.
#[derive(Debug)]
pub struct Graphite {
    host: Option<String>,
    port: u16,
    protocol: Protocol,
    persistent: bool,
    encoder: Encoder,
    clock: Clock,
    status: Status,
    payload: Vec<u8>,
    /// The peer did not close the last connection made for a flush.
    silent: bool,
    /// The connection that stays, while there is one.
    kept: Option<Kept>,
    /// Whether it took a second flush.
    was_kept: bool,
    /// Connections in a row that ended before their second flush.
    short_lived: u32,
    complaints: RateLimit,
    /// The last flush written into a connection that stays. The peer may have died with it unread, so
    /// it is sent again, before any other, when the connection turns out to be broken.
    unconfirmed: Option<Arc<Snapshot>>,
}

impl Graphite {
    /// A backend that has delivered nothing yet.
    pub fn new(options: &Options, clock: Clock) -> Self {
        let last_flush = rounded_seconds(clock.now_ms());
        Self {
            host: options.host.clone(),
            port: options.port,
            protocol: options.protocol,
            persistent: options.persistent,
            encoder: Encoder::new(options),
            clock,
            status: Status {
                last_exception: 0,
                last_flush,
                flush_time_ms: 0,
                flush_length: 0,
            },
            payload: Vec::new(),
            silent: false,
            kept: None,
            was_kept: false,
            short_lived: 0,
            complaints: RateLimit::new(),
            unconfirmed: None,
        }
    }

    /// Where it sends to, for messages.
    pub fn destination(&self) -> String {
        self.host.as_ref().map_or_else(
            || "nowhere (no graphiteHost)".into(),
            |host| format!("{host}:{}", self.port),
        )
    }

    /// The keys of the config file that say so.
    pub fn setting(&self) -> &'static str {
        match self.protocol {
            Protocol::Text => "graphiteHost and graphitePort",
            Protocol::Pickle => "graphiteHost and graphitePicklePort",
        }
    }

    /// Writes what became of the flushes so far where others can read it.
    pub fn tell(&self, status: &super::status::Status) {
        let Status {
            last_exception,
            last_flush,
            flush_time_ms,
            flush_length,
        } = self.status;
        status.set(&[
            ("last_flush", last_flush),
            ("last_exception", last_exception),
            ("flush_time", flush_time_ms.cast_signed()),
            ("flush_length", flush_length as i64),
        ]);
    }

    /// Sends one flush, whole. Without a host there is nothing to do. Over a connection that stays it is
    /// confirmed when the next one has been sent, or by [`Graphite::finish`].
    ///
    /// # Errors
    /// When the name does not resolve, nobody answers, or the peer resets or stops taking. It may be tried
    /// again: to carbon a value that comes twice is one value.
    pub(super) fn deliver(&mut self, snapshot: &Arc<Snapshot>) -> io::Result<Fate> {
        let Some(host) = self.host.clone() else {
            return Ok(Fate::Delivered);
        };
        let before = self.status;
        let sent = if self.persistent {
            (self.over_the_kept(&host, snapshot)).map(|()| Fate::Unconfirmed)
        } else {
            (self.over_a_fresh(&host, snapshot)).map(|()| Fate::Delivered)
        };
        if sent.is_err() {
            // It may have failed after everything was written.
            self.status = Status {
                last_exception: rounded_seconds(self.clock.now_ms()),
                ..before
            };
        }
        sent
    }

    fn over_a_fresh(&mut self, host: &str, snapshot: &Snapshot) -> io::Result<()> {
        let mut stream = sink::connect(host, self.port)?;
        self.send(snapshot, |payload| stream.write_all(payload))?;
        let closed = sink::close(stream, self.silent);
        self.silent = matches!(closed, Ok(false));
        closed.map(drop)
    }

    fn over_the_kept(&mut self, host: &str, snapshot: &Arc<Snapshot>) -> io::Result<()> {
        if let Some(mut open) = self.kept.take() {
            let sent = open
                .settle()
                .and_then(|()| self.send(snapshot, |payload| open.send(payload)));
            match sent {
                Ok(()) => {
                    self.keep(open, snapshot);
                    self.was_kept = true;
                    return Ok(());
                }
                Err(error) => {
                    self.ended(host);
                    log::debug!("graphite: {host}:{}: connecting again: {error}", self.port);
                }
            }
        }
        let mut fresh = Kept::connect(host, self.port)?;
        if let Some(last) = self.unconfirmed.clone() {
            self.send(&last, |payload| fresh.send(payload))?;
            fresh.settle()?;
        }
        self.send(snapshot, |payload| fresh.send(payload))?;
        self.keep(fresh, snapshot);
        self.was_kept = false;
        Ok(())
    }

    /// After the end of a connection that was to stay. One that ends early is an accident; the next one
    /// that does, too, is a habit.
    fn ended(&mut self, host: &str) {
        self.short_lived = if self.was_kept {
            0
        } else {
            self.short_lived + 1
        };
        if self.short_lived < 2 {
            return;
        }
        if let Some(suppressed) = self.complaints.pass(monotonic_ms()) {
            let more = more(suppressed);
            log::warn!(
                "graphite: {host}:{}: the peer does not keep connections, it ends them after one flush, so \
                 every flush is sent twice; write graphite: {{ persistent: false }}, or see its log{more}",
                self.port
            );
        }
    }

    /// Only a connection that took everything is kept.
    fn keep(&mut self, connection: Kept, last: &Arc<Snapshot>) {
        self.kept = Some(connection);
        self.unconfirmed = Some(last.clone());
    }

    /// Closes the connection that was kept, if any, and sees the last flush through.
    ///
    /// # Errors
    /// As when a flush is sent; the last one may be lost.
    pub fn finish(&mut self) -> io::Result<()> {
        let (Some(host), Some(last)) = (self.host.clone(), self.unconfirmed.take()) else {
            return Ok(());
        };
        match self.kept.take().map(Kept::close) {
            Some(Ok(())) => Ok(()),
            _ => self.over_a_fresh(&host, &last),
        }
    }

    fn send(
        &mut self,
        snapshot: &Snapshot,
        write: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let now = rounded_seconds(self.clock.now_ms());
        let (encoder, status, payload) = (&self.encoder, &self.status, &mut self.payload);
        payload.clear();
        match self.protocol {
            Protocol::Text => {
                encoder.encode(snapshot, payload);
                encoder.encode_status(status, now, payload);
            }
            Protocol::Pickle => encoder.pickle(snapshot, status, now, payload),
        }
        let began = Instant::now();
        write(payload)?;
        self.status.flush_time_ms = began.elapsed().as_millis() as u64;
        self.status.flush_length = match self.protocol {
            Protocol::Text => characters(payload),
            Protocol::Pickle => payload.len(),
        };
        self.status.last_flush = now;
        Ok(())
    }
}

/// Characters of a text as JavaScript counts them.
fn characters(text: &[u8]) -> usize {
    // Four bytes of UTF-8 are two characters there, and three, two or one are one.
    let of = |byte: &u8| match byte {
        0x80..0xc0 => 0,
        0xf0.. => 2,
        _ => 1,
    };
    text.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_counted_as_javascript_does() {
        for text in ["", "ascii", "\u{e9}", "\u{20ac}", "\u{1f600}x"] {
            assert_eq!(characters(text.as_bytes()), text.encode_utf16().count());
        }
    }
}
