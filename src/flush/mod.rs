//! Flush: one thread that turns harvests into a snapshot each interval.

use std::time::Duration;

/// A percentile to compute: its number, and the text it is named by.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// The percentile as written: positive from below, negative from above.
    pub percent: f64,
    /// Its name part, e.g. `90`, `99_9`, `top10` (spec: JS string, first `.` -> `_`, first `-` -> `top`).
    pub label: String,
}

/// One upper bound of a histogram rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Bin {
    /// Exclusive upper bound; `None` is the bin `inf`, which takes all the rest.
    pub below: Option<f64>,
    /// Its name part, e.g. `0_01` or `inf`.
    pub label: String,
}

/// Which timers get which histogram: the first rule whose `metric` occurs in the name.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramRule {
    /// Substring of the stored name; empty matches every name.
    pub metric: String,
    /// Bins in the order written; empty switches the histogram off for these names.
    pub bins: Vec<Bin>,
}

/// Everything the flusher does differently from one installation to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Time between flushes (`flushInterval`).
    pub interval: Duration,
    /// Percentiles in the order written (`percentThreshold`).
    pub thresholds: Vec<Threshold>,
    /// Histogram rules in the order written (`histogram`).
    pub histogram: Vec<HistogramRule>,
    /// Timer fields to keep, already as listed; `None` keeps all (`calculatedTimerMetrics`).
    pub timer_fields: Option<Vec<String>>,
    /// Forget a counter that was not touched in an interval (`deleteCounters`).
    pub delete_counters: bool,
    /// The same for timers (`deleteTimers`).
    pub delete_timers: bool,
    /// The same for sets (`deleteSets`).
    pub delete_sets: bool,
    /// Forget a gauge not written for `gauges_max_ttl` flushes (`deleteGauges`).
    pub delete_gauges: bool,
    /// Flushes an unwritten gauge lives when `delete_gauges` is set (`gaugesMaxTTL`), at least 1.
    pub gauges_max_ttl: u32,
    /// Namespace of the daemon's own reference metrics (`prefixStats`).
    pub prefix_stats: String,
    /// Samples a timer keeps exactly per interval over all workers (`exactSamples`).
    pub exact_samples: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            thresholds: vec![Threshold {
                percent: 90.0,
                label: "90".into(),
            }],
            histogram: Vec::new(),
            timer_fields: None,
            delete_counters: false,
            delete_timers: false,
            delete_sets: false,
            delete_gauges: false,
            gauges_max_ttl: 1,
            prefix_stats: "statsd".into(),
            exact_samples: 1024,
        }
    }
}
