//! The command line.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use clap::Parser;

use crate::mix::Mix;
use crate::random::Distribution;
use crate::shape::{Packing, Shape};

const NOTES: &str = "\
Open loop: the rate alone decides when each metric is due. A datagram sent late makes no later one
later; how late they were is reported, and so is a rate that could not be kept. A run goes on for
at most a tenth of its duration (at least 250 ms) to send what is overdue.

Deterministic: the same seed and options give the same datagrams in the same order on each flow.
They are made before the clock starts, into --ring-bytes of memory; a run that needs more sends
them over again.

Values: counters 1 to 9; timers exponential, mean 100 ms, with three decimals; gauges 0 to 999, or
signed differences of 1 to 9; sets u0, u1, ... Names are PREFIX.c.000000, PREFIX.ms.000000 and so
on: each type has its own. Tags depend on the name alone, so they add no series.

Exact: a datagram the kernel did not take is counted by reason, not sent again and not part of the
totals. `refused` tells that nobody listens; those sent in between reached nobody either.

On loopback one call per batch (sendmmsg, without segmentation offload) costs the sender about as
much CPU as the receiver, so there a result measures the sender too: give it a core of its own,
and believe no rate that is not reported as kept.";

/// Loads a StatsD server over UDP at a fixed rate and tells exactly what it sent.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, after_help = NOTES, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Server to load.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8125", value_parser = address)]
    pub(crate) to: SocketAddr,

    /// Metrics a second over all flows, e.g. 500, 20k, 1.5M; `max` sends unpaced.
    #[arg(long, default_value = "100k", value_parser = rate)]
    pub(crate) rate: Rate,

    /// How long to send, e.g. 500ms, 10s, 2m [default: 10s].
    #[arg(long, value_parser = duration, conflicts_with = "count")]
    pub(crate) duration: Option<Duration>,

    /// Send exactly so many metrics, however long it takes, e.g. 1M.
    #[arg(long, value_name = "METRICS", value_parser = whole)]
    pub(crate) count: Option<u64>,

    /// Names of each type, up to 10M.
    #[arg(long, default_value = "1000", value_parser = names)]
    names: u32,

    /// How often each name comes: uniform, zipf or zipf:EXPONENT.
    #[arg(long, default_value = "uniform")]
    distribution: Distribution,

    /// Types and their weights: c (counter), ms (timer), g (gauge), s (set).
    #[arg(long, default_value = "c:60,ms:25,g:10,s:5")]
    mix: Mix,

    /// Pack lines into datagrams of up to so many bytes [default: 1432].
    #[arg(long, value_name = "BYTES", conflicts_with = "metrics_per_datagram")]
    datagram_bytes: Option<usize>,

    /// Pack exactly so many lines into each datagram; 1 is how simple clients send.
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u16).range(1..))]
    metrics_per_datagram: Option<u16>,

    /// Source sockets; the rate is shared equally [default: one a thread].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    flows: Option<u32>,

    /// Sending threads; the flows are shared among them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: u32,

    /// Decides every byte that is sent, together with the other options.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// First part of every name.
    #[arg(long, value_name = "PREFIX", default_value = "loadgen", value_parser = prefix)]
    name_prefix: String,

    /// Write `|@RATE` on counters and timers, e.g. 0.1. All are sent: it asks the server to scale.
    #[arg(long, value_name = "RATE", value_parser = sample_rate)]
    sample_rate: Option<String>,

    /// DogStatsD tags on every line.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100))]
    tags: u32,

    /// Percent of the gauges sent as +n or -n.
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = percent)]
    gauge_deltas: u32,

    /// Members each set name draws from.
    #[arg(long, value_name = "MEMBERS", default_value = "1000", value_parser = names)]
    set_members: u32,

    /// Memory for datagrams made beforehand, all flows together.
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = whole)]
    pub(crate) ring_bytes: u64,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,

    /// Show no progress. (It is shown on a terminal only.)
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// How fast to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    /// Metrics a second.
    Paced(u64),
    /// As fast as the kernel takes them.
    Max,
}

impl Arguments {
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            seed: self.seed,
            mix: self.mix,
            names: self.names,
            distribution: self.distribution,
            packing: match self.metrics_per_datagram {
                Some(metrics) => Packing::Metrics(metrics.into()),
                None => Packing::Bytes(self.datagram_bytes.unwrap_or(1432)),
            },
            prefix: self.name_prefix.clone(),
            sample_rate: self.sample_rate.clone(),
            tags: self.tags,
            gauge_deltas: self.gauge_deltas,
            set_members: self.set_members,
        }
    }

    pub(crate) fn flows(&self) -> u32 {
        self.flows.unwrap_or(self.threads)
    }

    /// How long to send; `None` when a count ends the run.
    pub(crate) fn time_limit(&self) -> Option<Duration> {
        let default = Duration::from_secs(10);
        self.count
            .is_none()
            .then(|| self.duration.unwrap_or(default))
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| {
        format!("{error}; expected HOST:PORT, e.g. 127.0.0.1:8125 or [::1]:8125")
    })?;
    found.next().ok_or_else(|| "the name has no address".into())
}

/// A whole number, with k, M or G for a thousand, a million, a milliard.
fn whole(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'M')) => (&text[..at], 1e6),
        Some((at, 'G')) => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    let wrong = || format!("`{text}` is no number like 500, 20k, 1.5M or 1G");
    let number = decimal(digits).ok_or_else(wrong)? * unit;
    // What 1.1M becomes in binary is not whole by a hair.
    let rounded = number.round();
    if !(1.0..=1e15).contains(&rounded) || (number - rounded).abs() > 1e-6 * rounded.min(1e3) {
        return Err(format!("`{text}` is not a whole number from 1 to 1e15"));
    }
    Ok(rounded as u64)
}

/// Digits with at most one point: no sign, exponent, infinity.
fn decimal(text: &str) -> Option<f64> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| plain)
}

fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        Ok(Rate::Max)
    } else {
        whole(text).map(Rate::Paced)
    }
}

fn names(text: &str) -> Result<u32, String> {
    let number = whole(text)?;
    u32::try_from(number)
        .ok()
        .filter(|number| *number <= 10_000_000)
        .ok_or_else(|| "at most 10M".into())
}

fn percent(text: &str) -> Result<u32, String> {
    let percent = text.parse().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| "expected a whole number from 0 to 100".into())
}

fn duration(text: &str) -> Result<Duration, String> {
    let at = text
        .find(|character: char| character.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" => return Err(format!("`{text}` has no unit: write 500ms, {text}s or 2m")),
        _ => return Err(format!("`{unit}` is no unit; known are us, ms, s, m and h")),
    };
    let number = decimal(digits).ok_or_else(|| format!("`{digits}` is no number"))?;
    let duration = Duration::try_from_secs_f64(number * seconds).ok();
    duration
        .filter(|duration| !duration.is_zero() && duration.as_secs() <= 31_536_000)
        .ok_or_else(|| "expected more than nothing and at most a year".into())
}

fn prefix(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.is_empty() || text.len() > 1000 || !text.bytes().all(allowed) {
        return Err(
            "expected 1 to 1000 letters, digits, `.`, `_` or `-`: servers rewrite other names"
                .into(),
        );
    }
    Ok(text.into())
}

fn sample_rate(text: &str) -> Result<String, String> {
    match decimal(text) {
        Some(rate) if rate > 0.0 && rate <= 1.0 => Ok(text.into()),
        _ => Err("expected a decimal above 0, at most 1, e.g. 0.1".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn rates_and_counts_are_read_as_people_write_them() {
        for (text, number) in [
            ("1", 1),
            ("500", 500),
            ("20k", 20_000),
            ("1.5M", 1_500_000),
            ("1.1M", 1_100_000),
            ("2G", 2_000_000_000),
        ] {
            assert_eq!(whole(text), Ok(number), "{text}");
        }
        for text in [
            "", "k", "0", "-1", "1.5", "0.0001k", "1e6", "inf", "nan", "1m", "1 k", "2000000G", "µ",
        ] {
            assert!(whole(text).is_err(), "{text}");
        }
        assert_eq!(rate("max"), Ok(Rate::Max));
        assert_eq!(rate("1M"), Ok(Rate::Paced(1_000_000)));
    }

    #[test]
    fn durations_need_a_unit() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        assert_eq!(
            duration("10").unwrap_err(),
            "`10` has no unit: write 500ms, 10s or 2m"
        );
        for text in ["", "s", "0s", "-1s", "1d", "1.2.3s", "9000h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_servers_would_rewrite_are_refused() {
        assert_eq!(prefix("a.b_c-D9"), Ok("a.b_c-D9".into()));
        for text in ["", "a b", "a/b", "a:b", "a|b", "a\nb", "ä"] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sample_rates_stay_as_written() {
        assert_eq!(sample_rate("0.10"), Ok("0.10".into()));
        for text in ["0", "1.1", "-0.5", "1e-1", "nan", ""] {
            assert!(sample_rate(text).is_err(), "{text}");
        }
    }
}
