//! Names as the Graphite backend writes them.

use super::config::{Namespace, Options};
use super::line::sanitize_key;

pub(crate) struct Names<'a> {
    options: &'a Options,
}

impl<'a> Names<'a> {
    pub(crate) fn new(options: &'a Options) -> Self {
        Self { options }
    }

    pub(crate) fn counter_rate(&self, key: &str) -> String {
        match self.options.namespace {
            Namespace::Legacy => self.name(&["stats"], key, ""),
            Namespace::Prefixed => self.prefixed(&self.options.prefix_counter, key, ".rate"),
            Namespace::Hybrid => self.name(&["stats"], key, ".rate"),
        }
    }

    pub(crate) fn counter_count(&self, key: &str) -> String {
        match self.options.namespace {
            Namespace::Legacy => self.name(&["stats_counts"], key, ""),
            Namespace::Prefixed => self.prefixed(&self.options.prefix_counter, key, ".count"),
            Namespace::Hybrid => self.name(&["stats"], key, ".count"),
        }
    }

    pub(crate) fn timer(&self, key: &str, field: &str) -> String {
        let field = format!(".{field}");
        match self.options.namespace {
            Namespace::Prefixed => self.prefixed(&self.options.prefix_timer, key, &field),
            _ => self.name(&["stats", "timers"], key, &field),
        }
    }

    pub(crate) fn gauge(&self, key: &str) -> String {
        match self.options.namespace {
            Namespace::Prefixed => self.prefixed(&self.options.prefix_gauge, key, ""),
            _ => self.name(&["stats", "gauges"], key, ""),
        }
    }

    pub(crate) fn set(&self, key: &str) -> String {
        match self.options.namespace {
            Namespace::Prefixed => self.prefixed(&self.options.prefix_set, key, ".count"),
            _ => self.name(&["stats", "sets"], key, ".count"),
        }
    }

    pub(crate) fn num_stats(&self) -> String {
        let own = format!("{}.numStats{}", self.options.prefix_stats, self.suffix());
        match self.options.namespace {
            Namespace::Legacy => own,
            Namespace::Prefixed if self.options.global_prefix.is_empty() => own,
            Namespace::Prefixed => format!("{}.{own}", self.options.global_prefix),
            Namespace::Hybrid => format!("stats.{own}"),
        }
    }

    fn prefixed(&self, prefix: &str, key: &str, ending: &str) -> String {
        self.name(&[&self.options.global_prefix, prefix], key, ending)
    }

    /// Prefixes that are not empty, the key up to its tags, the ending, the suffix, the tags.
    fn name(&self, prefixes: &[&str], key: &str, ending: &str) -> String {
        let (plain, tags) = match key.find(';') {
            Some(at) => key.split_at(at),
            None => (key, ""),
        };
        let mut name = String::new();
        for prefix in prefixes {
            if !prefix.is_empty() {
                name += prefix;
                name += ".";
            }
        }
        if self.options.sanitize_names {
            name += plain;
        } else {
            name += &sanitize_key(plain);
        }
        name + ending + &self.suffix() + tags
    }

    fn suffix(&self) -> String {
        match &self.options.global_suffix {
            Some(suffix) => format!(".{suffix}"),
            None => String::new(),
        }
    }
}
