//! The report as one JSON object, for programs.

use serde_json::{Value, json};

use super::Report;
use crate::account::Account;
use crate::fault::Fault;
use crate::mix::Kind;
use crate::pace::Rate;
use crate::shape::Packing;
use crate::tally::Tally;

impl Report {
    /// The factor a server multiplies counts by.
    fn scale(&self) -> f64 {
        let rate = self
            .shape
            .sample_rate
            .as_ref()
            .and_then(|rate| rate.parse::<f64>().ok());
        1.0 / rate.unwrap_or(1.0)
    }

    pub(crate) fn json(&self) -> Value {
        let Account {
            sent,
            failed,
            errors,
            lateness,
            ..
        } = &self.account;
        let names = self.distinct.names;
        let seconds = self.rated_seconds();
        let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        let (bytes_limit, metrics_limit) = match self.shape.packing {
            Packing::Bytes(bytes) => (Some(bytes), None),
            Packing::Metrics(metrics) => (None, Some(metrics)),
        };
        json!({
            "loadgen": env!("CARGO_PKG_VERSION"),
            "options": {
                "to": self.to.to_string(),
                "rate": match self.rate { Rate::Paced(rate) => Some(rate), Rate::Max => None },
                "duration_seconds": self.time_limit.map(|limit| limit.as_secs_f64()),
                "names": self.shape.names,
                "distribution": self.shape.distribution.to_string(),
                "mix": self.shape.mix.to_string(),
                "datagram_bytes": bytes_limit,
                "metrics_per_datagram": metrics_limit,
                "flows": self.flows,
                "threads": self.threads,
                "gso": self.gso,
                "seed": self.shape.seed,
                "name_prefix": self.shape.prefix,
                "sample_rate": self.shape.sample_rate,
                "tags": self.shape.tags,
                "malformed_percent": self.shape.malformed,
                "gauge_deltas_percent": self.shape.gauge_deltas,
                "set_members": self.shape.set_members,
            },
            "ring": {
                "bytes": self.ring.payload,
                "datagrams": self.ring.datagrams,
                "lines": self.ring.lines,
            },
            "seconds": self.sending_time().as_secs_f64(),
            "interrupted": self.interrupted,
            "planned": self.planned,
            "metrics": sent.metrics(),
            "malformed": faults(sent),
            "failed": failed.lines(),
            "missed": self.account.missed,
            "datagrams": sent.datagrams,
            "bytes": sent.bytes,
            "counters": {
                "metrics": sent.counters,
                "names": names[Kind::Counter as usize],
                "sum": sent.counter_sum,
                "scaled_sum": sent.counter_sum as f64 * self.scale(),
            },
            "timers": {
                "metrics": sent.timers,
                "names": names[Kind::Timer as usize],
                "sum_us": sent.timer_sum,
                "scaled_metrics": sent.timers as f64 * self.scale(),
            },
            "gauges": {
                "metrics": sent.gauges + sent.gauge_deltas,
                "names": names[Kind::Gauge as usize],
                "absolute": sent.gauges,
                "deltas": sent.gauge_deltas,
            },
            "sets": {
                "metrics": sent.sets,
                "names": names[Kind::Set as usize],
                "members": self.distinct.members,
            },
            "failed_datagrams": {
                "would_block": errors.would_block,
                "no_buffers": errors.no_buffers,
                "refused": errors.refused,
                "too_long": errors.too_long,
                "other": errors.other,
            },
            "first_error": self.account.first_error,
            "metrics_per_second": sent.metrics() as f64 / seconds,
            "lines_per_second": sent.lines() as f64 / seconds,
            "datagrams_per_second": sent.datagrams as f64 / seconds,
            "bytes_per_second": sent.bytes as f64 / seconds,
            "rate_kept": self.rate_kept(),
            "lateness_us": (!lateness.histogram.is_empty()).then(|| json!({
                "p50": microseconds(lateness.histogram.value_at_quantile(0.5)),
                "p99": microseconds(lateness.histogram.value_at_quantile(0.99)),
                "max": microseconds(lateness.max),
                "last": microseconds(lateness.last),
            })),
        })
    }
}

/// Bad lines, all and by reason.
fn faults(sent: &Tally) -> Value {
    let faults = Fault::ALL.iter().zip(sent.malformed);
    let faults = faults.map(|(fault, count)| (fault.name().to_owned(), count.into()));
    let all = ("lines".to_owned(), sent.malformed().into());
    Value::Object(std::iter::once(all).chain(faults).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn json_tells_the_totals_and_what_to_expect() {
        let json = report().json();
        for (pointer, expected) in [
            ("/metrics", json!(100)),
            ("/counters/sum", json!(301)),
            ("/counters/scaled_sum", json!(3010.0)),
            ("/timers/sum_us", json!(2_500_042)),
            ("/timers/scaled_metrics", json!(250.0)),
            ("/gauges/metrics", json!(10)),
            ("/gauges/deltas", json!(2)),
            ("/sets/members", json!(5)),
            ("/options/mix", json!("c:60,ms:25,g:10,s:5")),
            ("/options/metrics_per_datagram", json!(null)),
            ("/metrics_per_second", json!(100.0)),
            ("/lateness_us", json!(null)),
            ("/rate_kept", json!(true)),
        ] {
            assert_eq!(json.pointer(pointer), Some(&expected), "{pointer}");
        }
    }
}
