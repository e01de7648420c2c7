//! The settings of the Librato backend that no other has: patterns, tags, seconds and secrets.

use super::super::coerce::{self, kind, shown, truthy};
use super::super::secret::HIDDEN;
use super::super::settings::Setting;
use super::super::value::{Node, Value};
use super::Checker;
use crate::deliver::librato::pattern::Pattern;

const PATTERN_HINT: &str = "write a regular expression without quotes, e.g. /^my\\./";

/// Longest wait, in seconds.
const SECONDS_MAX: f64 = 3600.0;

impl Checker<'_> {
    /// A regular expression or the text of one.
    pub(super) fn pattern(&mut self, path: &str, node: &Node) -> Option<Pattern> {
        let (source, flags) = match &node.value {
            value if !truthy(value) => return None,
            Value::Regex { source, flags } => (source.as_str(), flags.as_str()),
            Value::String(text) => (self.unquoted(path, text, node), ""),
            value => {
                let message = format!("expected a regular expression, found {}", shown(value));
                self.problem(node.place, path, message, PATTERN_HINT);
                return None;
            }
        };
        match Pattern::new(source, flags) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                // The engine marks places of what it was given, which is not what was written.
                let error = error.replace('\n', " ");
                let message = format!("is no regular expression: {error}");
                self.problem(node.place, path, message, PATTERN_HINT);
                None
            }
        }
    }

    /// The text without the slashes around it. Letters behind them are not flags, as in the reference.
    fn unquoted<'t>(&mut self, path: &str, text: &'t str, node: &Node) -> &'t str {
        if text.len() > 2
            && let Some(inside) = text.strip_prefix('/').and_then(|it| it.strip_suffix('/'))
        {
            return inside;
        }
        let flags = text.rsplit('/').next().unwrap_or_default();
        let looks_flagged = text.starts_with('/')
            && text.len() > flags.len() + 2
            && !flags.is_empty()
            && flags.chars().all(|flag| "dgimsuvy".contains(flag));
        if looks_flagged {
            let message = format!("in a text neither the slashes nor {flags} are special");
            self.warn(node.place, path, message, PATTERN_HINT);
        }
        text
    }

    /// A list of patterns; what is no list is none.
    pub(super) fn patterns(&mut self, path: &str, node: &Node) -> Option<Vec<Pattern>> {
        let Value::List(nodes) = &node.value else {
            if truthy(&node.value) {
                let message = format!("{} is no list and counts for nothing", shown(&node.value));
                self.warn(node.place, path, message, "write e.g. [/^my\\./]");
            }
            return None;
        };
        let mut patterns = Vec::with_capacity(nodes.len());
        for (at, node) in nodes.iter().enumerate() {
            let path = format!("{path}[{at}]");
            if truthy(&node.value) {
                patterns.extend(self.pattern(&path, node));
            } else {
                let message = format!(
                    "expected a regular expression, found {}",
                    shown(&node.value)
                );
                self.problem(node.place, &path, message, PATTERN_HINT);
            }
        }
        Some(patterns)
    }

    /// Milliseconds of a number of seconds.
    pub(super) fn seconds(&mut self, path: &str, setting: &Setting, node: &Node) -> Option<u64> {
        if !truthy(&node.value) {
            return None;
        }
        let milliseconds = (coerce::number(&node.value) * 1000.0).round();
        // NaN is not in it.
        if (1.0..=SECONDS_MAX * 1000.0).contains(&milliseconds) {
            return Some(milliseconds as u64);
        }
        self.unexpected(
            path,
            setting,
            "a number of seconds from 0.001 to 3600",
            node,
        )
    }

    /// A text that no message shows.
    pub(super) fn secret(&mut self, path: &str, setting: &Setting, node: &Node) -> Option<String> {
        match &node.value {
            Value::String(text) => {
                if text == HIDDEN {
                    let message = format!("{HIDDEN} is what --print-config shows in its place");
                    self.warn(node.place, path, message, "write the secret itself");
                }
                (!text.is_empty()).then(|| text.clone())
            }
            value if !truthy(value) => None,
            value => {
                let message = format!("expected a text in quotes, found {}", kind(value));
                self.problem(node.place, path, message, setting.help);
                None
            }
        }
    }

    /// Plain values by name. They go out as they are written, whatever the service says to what is no text.
    pub(super) fn tags(&mut self, path: &str, node: &Node) -> Option<Vec<(String, String)>> {
        const HINT: &str = "write e.g. { os: \"linux\", rack: \"7\" }";
        let entries = match &node.value {
            Value::Map(entries) => entries,
            value if !truthy(value) => return None,
            value => {
                let message = format!("expected an object of tags, found {}", shown(value));
                self.problem(node.place, path, message, HINT);
                return None;
            }
        };
        let mut tags = Vec::with_capacity(entries.len());
        for entry in entries {
            let (path, value) = (format!("{path}.{}", entry.key), &entry.node.value);
            let json = match value {
                Value::Undefined => continue,
                Value::String(text) => serde_json::Value::from(text.as_str()).to_string(),
                Value::Null | Value::Bool(_) => coerce::string(value),
                Value::Number(number) if number.is_finite() => coerce::string(value),
                value => {
                    let message = format!("expected a text in quotes, found {}", shown(value));
                    self.problem(entry.node.place, &path, message, HINT);
                    continue;
                }
            };
            if !matches!(value, Value::String(_)) {
                let message = format!("{} is no text, which Librato refuses", shown(value));
                self.warn(entry.node.place, &path, message, "put it into quotes");
            }
            tags.push((entry.key.clone(), json));
        }
        Some(tags)
    }
}
