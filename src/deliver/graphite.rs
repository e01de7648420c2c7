//! The Graphite backend: plaintext protocol.

/// How names are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Namespace {
    /// `graphite.legacyNamespace: true`, the default: `stats.K`, `stats_counts.K`; the five prefixes are ignored.
    #[default]
    Legacy,
    /// `graphite.legacyNamespace: false`: `G.C.K.rate`, `G.C.K.count`.
    Prefixed,
    /// Any other value of `legacyNamespace`: legacy namespaces, `.rate`/`.count` endings, `stats.PS.numStats`.
    Hybrid,
}

/// Everything that shapes names, values and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where carbon listens; `None` computes nothing and sends nothing, as the reference (`graphiteHost`).
    pub host: Option<String>,
    /// Its plaintext port (`graphitePort`).
    pub port: u16,
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
            namespace: Namespace::Legacy,
            global_prefix: "stats".into(),
            prefix_counter: "counters".into(),
            prefix_timer: "timers".into(),
            prefix_gauge: "gauges".into(),
            prefix_set: "sets".into(),
            global_suffix: None,
            prefix_stats: "statsd".into(),
            flush_counts: true,
            sanitize_names: false,
        }
    }
}
