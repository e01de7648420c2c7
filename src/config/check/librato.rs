//! The settings of the Librato backend that no other has: patterns, tags, seconds and secrets.

use super::super::coerce::{self, kind, shown};
use super::super::secret::HIDDEN;
use super::super::settings::{Kind, Setting};
use super::super::value::{Node, Value, truthy};
use super::Checker;
use crate::deliver::librato::pattern::Pattern;

const PATTERN_HINT: &str = "write a regular expression without quotes, e.g. /^my\\./";

/// Longest wait, in seconds.
const SECONDS_MAX: f64 = 3600.0;

/// What the service takes in a tag besides letters and digits: in its name, and in its value.
const NAME_MARKS: &str = "-_.:";
const VALUE_MARKS: &str = "-_.:?\\/ ";
/// Longest name and longest value of a tag, in bytes.
const NAME_MAX: usize = 64;
const VALUE_MAX: usize = 255;

impl Checker<'_> {
    /// The regular expression that a source is found by.
    pub(super) fn source_pattern(&mut self, path: &str, node: &Node) -> Option<Pattern> {
        let pattern = self.pattern(path, node)?;
        if !pattern.has_group() {
            let message = "has no group, so it finds no source and leaves names as they are";
            let hint = "put what is the source into parentheses, e.g. /^([^.]+)\\./";
            self.warn(node.place, path, message, hint);
        }
        Some(pattern)
    }

    /// The first part of names.
    pub(super) fn prefix(&mut self, path: &str, node: &Node) -> Option<String> {
        let text = truthy(&node.value).then(|| coerce::string(&node.value))?;
        if text.ends_with('.') {
            let message = format!(
                "{} gets a dot more: names begin {text}.",
                shown(&node.value)
            );
            self.warn(node.place, path, message, "leave out the dot at its end");
        }
        Some(text)
    }

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
    pub(super) fn unquoted<'t>(&mut self, path: &str, text: &'t str, node: &Node) -> &'t str {
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
            Value::Number(_) if setting.kind == Kind::Secret => {
                let message = "is a number, its digits are used";
                self.warn(node.place, path, message, "put it into quotes");
                Some(coerce::string(&node.value))
            }
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
            if !is_taken(&entry.key, NAME_MARKS, NAME_MAX) {
                let message = "Librato refuses a tag of this name";
                let hint = format!("write 1 to {NAME_MAX} letters, digits and {NAME_MARKS}");
                self.warn(entry.place, &path, message, hint);
            }
            match value {
                Value::String(text) if is_taken(text, VALUE_MARKS, VALUE_MAX) => {}
                Value::String(_) => {
                    let message = format!("Librato refuses the value {}", shown(value));
                    let hint = format!(
                        "write 1 to {VALUE_MAX} letters, digits, blanks and {}",
                        VALUE_MARKS.trim_end()
                    );
                    self.warn(entry.node.place, &path, message, hint);
                }
                _ => {
                    let message = format!("{} is no text, which Librato refuses", shown(value));
                    self.warn(entry.node.place, &path, message, "put it into quotes");
                }
            }
            tags.push((entry.key.clone(), json));
        }
        Some(tags)
    }
}

/// Whether the service takes a text of a tag.
fn is_taken(text: &str, marks: &str, longest: usize) -> bool {
    let taken = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    (1..=longest).contains(&text.len()) && text.chars().all(taken)
}
