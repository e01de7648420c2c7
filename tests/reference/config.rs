//! The settings the reference heeds, with the defaults of the original.

use serde_json::Value;

/// How names are built (`graphite.legacyNamespace`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// `true`: `stats.K` and `stats_counts.K`.
    Legacy,
    /// `false`: `stats.counters.K.rate`, with five prefixes.
    Prefixed,
    /// Anything else: the places of `Legacy` with the endings of `Prefixed`.
    Hybrid,
}

/// One bin of a histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bin {
    /// Values below this bound that no earlier bin took.
    Below(f64),
    /// `inf`: all that is left.
    Rest,
}

/// Timers whose key contains `metric` get these bins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    pub(crate) metric: String,
    pub(crate) bins: Vec<Bin>,
}

/// Everything the reference does differently from one installation to another.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    pub(crate) interval_ms: f64,
    pub(crate) thresholds: Vec<f64>,
    pub(crate) histogram: Vec<Rule>,
    pub(crate) timer_fields: Option<Vec<String>>,
    pub(crate) delete_counters: bool,
    pub(crate) delete_timers: bool,
    pub(crate) delete_sets: bool,
    pub(crate) delete_gauges: bool,
    pub(crate) gauges_max_ttl: i64,
    pub(crate) prefix_stats: String,
    pub(crate) sanitize_names: bool,
    pub(crate) flush_counts: bool,
    pub(crate) namespace: Namespace,
    pub(crate) global_prefix: String,
    pub(crate) prefix_counter: String,
    pub(crate) prefix_timer: String,
    pub(crate) prefix_gauge: String,
    pub(crate) prefix_set: String,
    pub(crate) global_suffix: Option<String>,
}

impl Options {
    /// Reads a configuration as the original would; `{}` gives its defaults.
    pub(crate) fn from_json(config: &Value) -> Self {
        let graphite = &config["graphite"];
        let delete_idle = truthy(&config["deleteIdleStats"]);
        let delete = |name: &str| flag(&config[name], delete_idle);
        Self {
            interval_ms: config["flushInterval"].as_f64().unwrap_or(10_000.0),
            thresholds: thresholds(&config["percentThreshold"]),
            histogram: histogram(&config["histogram"]),
            timer_fields: timer_fields(&config["calculatedTimerMetrics"]),
            delete_counters: delete("deleteCounters"),
            delete_timers: delete("deleteTimers"),
            delete_sets: delete("deleteSets"),
            delete_gauges: delete("deleteGauges"),
            gauges_max_ttl: config["gaugesMaxTTL"].as_i64().unwrap_or(1).max(1),
            prefix_stats: text(&config["prefixStats"], "statsd"),
            sanitize_names: flag(&config["keyNameSanitize"], true),
            flush_counts: flag(&config["flush_counts"], true),
            namespace: match &graphite["legacyNamespace"] {
                Value::Null | Value::Bool(true) => Namespace::Legacy,
                Value::Bool(false) => Namespace::Prefixed,
                _ => Namespace::Hybrid,
            },
            global_prefix: text(&graphite["globalPrefix"], "stats"),
            prefix_counter: text(&graphite["prefixCounter"], "counters"),
            prefix_timer: text(&graphite["prefixTimer"], "timers"),
            prefix_gauge: text(&graphite["prefixGauge"], "gauges"),
            prefix_set: text(&graphite["prefixSet"], "sets"),
            global_suffix: graphite["globalSuffix"].as_str().map(str::to_string),
        }
    }
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

fn flag(value: &Value, default: bool) -> bool {
    if value.is_null() {
        default
    } else {
        truthy(value)
    }
}

fn text(value: &Value, default: &str) -> String {
    value.as_str().unwrap_or(default).to_string()
}

fn thresholds(value: &Value) -> Vec<f64> {
    let number = |value: &Value| match value {
        Value::String(text) => super::number::parse(text).expect("a percentile is a number"),
        value => value.as_f64().expect("a percentile is a number"),
    };
    match value {
        Value::Array(list) => list.iter().map(number).collect(),
        scalar if truthy(scalar) => vec![number(scalar)],
        _ => vec![90.0],
    }
}

fn histogram(value: &Value) -> Vec<Rule> {
    let bin = |value: &Value| match value.as_f64() {
        Some(bound) => Bin::Below(bound),
        None => {
            assert_eq!(value, "inf", "a bin is a number or \"inf\"");
            Bin::Rest
        }
    };
    let rule = |value: &Value| Rule {
        metric: text(&value["metric"], ""),
        bins: value["bins"]
            .as_array()
            .expect("bins is a list")
            .iter()
            .map(bin)
            .collect(),
    };
    value
        .as_array()
        .map(|rules| rules.iter().map(rule).collect())
        .unwrap_or_default()
}

fn timer_fields(value: &Value) -> Option<Vec<String>> {
    let names: Vec<String> = value
        .as_array()?
        .iter()
        .map(|name| text(name, ""))
        .collect();
    if names.is_empty() { None } else { Some(names) }
}
