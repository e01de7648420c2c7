//! The tree of a file -> typed values by name, with everything that is wrong or odd about them.

use super::coerce::{self, bin_label, number_text, percentile_label, shown, text_number, truthy};
use super::javascript::{Entry, Node, Value};
use super::settings::{self, Effect, Kind, Range, SETTINGS, Setting};
use super::{Finding, Place};
use crate::deliver::graphite::Namespace;
use crate::flush::{Bin, HistogramRule, Threshold};
use std::collections::HashMap;

/// A value that passed its check.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Typed {
    Backends(Vec<Backend>),
    Fields(Vec<String>),
    Flag(bool),
    Histogram(Vec<HistogramRule>),
    Namespace(Namespace),
    Number(u64),
    Server(Server),
    Servers(Vec<Listener>),
    Text(String),
    Thresholds(Vec<Threshold>),
}

/// A backend of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    Console,
    Graphite,
}

/// A server module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Udp,
    Tcp,
}

/// One entry of `servers`, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Listener {
    pub(super) values: Values,
    pub(super) path: String,
    pub(super) place: Place,
}

/// What was written and valid, by dotted name; what is not in it has its default.
pub(super) type Values = HashMap<&'static str, (Typed, Place)>;

/// Keys an entry of `servers` may have; they mean what they mean at the top.
const LISTENER_KEYS: [&str; 6] = [
    "server",
    "address",
    "address_ipv6",
    "port",
    "socket",
    "socket_mod",
];

/// Timer fields, and those of them that come once more for each percentile.
const TIMER_FIELDS: [&str; 10] = [
    "count",
    "count_ps",
    "histogram",
    "lower",
    "mean",
    "median",
    "std",
    "sum",
    "sum_squares",
    "upper",
];
const PERCENTILE_FIELDS: [&str; 6] = ["count", "lower", "mean", "sum", "sum_squares", "upper"];

/// Collects what is wrong while values are looked at.
#[derive(Debug)]
pub(super) struct Checker<'o> {
    pub(super) origin: &'o str,
    pub(super) problems: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
}

impl Checker<'_> {
    /// Looks at a whole file.
    pub(super) fn file(&mut self, root: &Node) -> Values {
        let mut values = Values::new();
        let Value::Map(entries) = &root.value else {
            let message = format!("expected an object, found {}", shown(&root.value));
            self.problem(root.place, "", message, "write { key: value, ... }");
            return values;
        };
        for entry in entries
            .iter()
            .filter(|entry| entry.node.value != Value::Undefined)
        {
            if settings::is_group(&entry.key) {
                self.group(entry, &mut values);
            } else if let Some(setting) =
                settings::find(&entry.key).filter(|_| !entry.key.contains('.'))
            {
                self.setting(&entry.key, setting, entry, &mut values);
            } else {
                let tops = SETTINGS
                    .iter()
                    .map(|s| s.name.split('.').next().unwrap_or(s.name));
                self.unknown(&entry.key, entry, tops);
            }
        }
        values
    }

    fn group(&mut self, group: &Entry, values: &mut Values) {
        let Value::Map(entries) = &group.node.value else {
            if truthy(&group.node.value) {
                let message = format!("expected an object, found {}", shown(&group.node.value));
                self.problem(
                    group.node.place,
                    &group.key,
                    message,
                    format!("write {}: {{ key: value, ... }}", group.key),
                );
            }
            return;
        };
        for entry in entries
            .iter()
            .filter(|entry| entry.node.value != Value::Undefined)
        {
            let path = format!("{}.{}", group.key, entry.key);
            match settings::find(&path) {
                Some(setting) => self.setting(&path, setting, entry, values),
                None => {
                    let prefix = format!("{}.", group.key);
                    self.unknown(
                        &path,
                        entry,
                        SETTINGS
                            .iter()
                            .filter_map(|s| s.name.strip_prefix(prefix.as_str())),
                    );
                }
            }
        }
    }

    fn setting(
        &mut self,
        path: &str,
        setting: &'static Setting,
        entry: &Entry,
        values: &mut Values,
    ) {
        match setting.effect {
            Effect::Now => {}
            Effect::Later => self.warn(entry.place, path, "has no effect yet", ""),
            Effect::Never => self.warn(
                entry.place,
                path,
                "has no effect, in StatsD neither",
                "remove it",
            ),
        }
        if let Some(typed) = self.value(path, setting, &entry.node) {
            values.insert(setting.name, (typed, entry.node.place));
        }
    }

    fn unknown<'n>(&mut self, path: &str, entry: &Entry, known: impl Iterator<Item = &'n str>) {
        let hint = match (settings::find(&entry.key), entry.key.split_once('.')) {
            (Some(_), Some((group, key))) => format!("write {group}: {{ {key}: ... }}"),
            _ => settings::nearest(&entry.key, known)
                .map(|name| format!("did you mean {name}?"))
                .unwrap_or_default(),
        };
        self.warn(entry.place, path, "unknown key, ignored", hint);
    }

    /// The typed value, or `None` for the default and for what is wrong.
    fn value(&mut self, path: &str, setting: &Setting, node: &Node) -> Option<Typed> {
        let value = &node.value;
        match setting.kind {
            Kind::Any => None,
            Kind::Backends => self.backends(path, node).map(Typed::Backends),
            Kind::Choice(choices) => self.choice(path, setting, choices, node),
            Kind::Exact => match value {
                Value::Bool(flag) => Some(Typed::Flag(*flag)),
                _ => self.unexpected(path, setting, "true or false", node),
            },
            Kind::Flag => {
                if let Value::String(text) = value
                    && matches!(text.as_str(), "false" | "no" | "off" | "0")
                {
                    self.warn(
                        node.place,
                        path,
                        format!("the text {text:?} counts as true"),
                        "write false without quotes",
                    );
                }
                Some(Typed::Flag(truthy(value)))
            }
            Kind::Histogram => self.histogram(path, setting, node).map(Typed::Histogram),
            Kind::List => match value {
                Value::List(_) => None,
                _ if !truthy(value) => None,
                _ => self.unexpected(path, setting, "a list", node),
            },
            Kind::Namespace => Some(Typed::Namespace(match value {
                Value::Bool(true) => Namespace::Legacy,
                Value::Bool(false) => Namespace::Prefixed,
                _ => {
                    let message = format!(
                        "{} is neither true nor false: legacy names, but .rate and .count at their ends",
                        shown(value)
                    );
                    self.warn(node.place, path, message, "write true or false");
                    Namespace::Hybrid
                }
            })),
            Kind::Number(range) => self.number(path, setting, range, node).map(Typed::Number),
            Kind::Part => match value {
                Value::String(text) => Some(Typed::Text(text.clone())),
                Value::Number(_) => Some(Typed::Text(coerce::string(value))),
                _ => self.unexpected(path, setting, "a text", node),
            },
            Kind::Percentiles => self.thresholds(path, node).map(Typed::Thresholds),
            Kind::Server => self.server(path, setting, node).map(Typed::Server),
            Kind::Servers => self.servers(path, setting, node).map(Typed::Servers),
            Kind::Spelled => {
                let text = coerce::string(value);
                if !matches!(value, Value::String(_)) {
                    self.warn(
                        node.place,
                        path,
                        format!("is no text, {text:?} is used"),
                        "put it into quotes",
                    );
                }
                Some(Typed::Text(text))
            }
            Kind::Text => match value {
                Value::String(text) => (!text.is_empty()).then(|| Typed::Text(text.clone())),
                _ if !truthy(value) => None,
                _ => self.unexpected(path, setting, "a text in quotes", node),
            },
            Kind::TimerFields => self.timer_fields(path, node).map(Typed::Fields),
            Kind::Ttl => Some(Typed::Number(self.ttl(path, node))),
        }
    }

    fn number(&mut self, path: &str, setting: &Setting, range: Range, node: &Node) -> Option<u64> {
        if matches!(node.value, Value::Null) || (range.falsy_is_default && !truthy(&node.value)) {
            return None;
        }
        let written = coerce::number(&node.value);
        let number = if range.rounded {
            written.round()
        } else {
            written
        };
        // NaN fails both comparisons.
        if number >= range.min as f64 && number <= range.max as f64 && number.fract() == 0.0 {
            return Some(number as u64);
        }
        self.unexpected(path, setting, &range.to_string(), node)
    }

    fn choice(
        &mut self,
        path: &str,
        setting: &Setting,
        choices: &[&str],
        node: &Node,
    ) -> Option<Typed> {
        match &node.value {
            value if !truthy(value) => None,
            Value::String(text) if choices.contains(&text.as_str()) => {
                Some(Typed::Text(text.clone()))
            }
            Value::String(text) if setting.name == "graphiteProtocol" && text == "pickle" => {
                let hint = "write \"text\" and let graphitePort name carbon's plaintext port, by default 2003";
                self.problem(
                    node.place,
                    path,
                    "the pickle protocol is not in this version",
                    hint,
                );
                None
            }
            _ => {
                let quoted: Vec<_> = choices.iter().map(|choice| format!("{choice:?}")).collect();
                self.unexpected(path, setting, &quoted.join(" or "), node)
            }
        }
    }

    fn ttl(&mut self, path: &str, node: &Node) -> u64 {
        match node.value {
            Value::Number(number) if number.fract() == 0.0 && number >= 1.0 => number as u64,
            _ => {
                let message = format!(
                    "{} is no whole number from 1 on, 1 is used",
                    shown(&node.value)
                );
                self.warn(
                    node.place,
                    path,
                    message,
                    "write the number of flushes without quotes",
                );
                1
            }
        }
    }

    fn thresholds(&mut self, path: &str, node: &Node) -> Option<Vec<Threshold>> {
        let (nodes, listed) = match &node.value {
            Value::List(nodes) => (nodes.as_slice(), true),
            value if truthy(value) => (std::slice::from_ref(node), false),
            _ => return None,
        };
        let mut thresholds = Vec::with_capacity(nodes.len());
        for (at, node) in nodes.iter().enumerate() {
            let path = if listed {
                format!("{path}[{at}]")
            } else {
                path.to_owned()
            };
            let read = match &node.value {
                Value::Number(number) => Some((*number, number_text(*number))),
                Value::String(text) if is_bare(text) => Some((text_number(text), text.clone())),
                _ => None,
            };
            let Some((percent, text)) = read.filter(|(percent, _)| percent.is_finite()) else {
                let message = format!(
                    "expected a percentile from -100 to 100, found {}",
                    shown(&node.value)
                );
                self.problem(
                    node.place,
                    &path,
                    message,
                    "write e.g. percentThreshold: [50, 99.9, -10]",
                );
                continue;
            };
            if percent.abs() > 100.0 {
                let message =
                    format!("{text} is beyond 100 percent: most of its values are no numbers");
                self.warn(
                    node.place,
                    &path,
                    message,
                    "write a percentile from -100 to 100",
                );
            }
            thresholds.push(Threshold {
                percent,
                label: percentile_label(&text),
            });
        }
        Some(thresholds)
    }

    fn histogram(
        &mut self,
        path: &str,
        setting: &Setting,
        node: &Node,
    ) -> Option<Vec<HistogramRule>> {
        let rules = match &node.value {
            Value::List(rules) => rules,
            value if truthy(value) => {
                return self.unexpected(path, setting, "a list of rules", node);
            }
            _ => return None,
        };
        Some(
            rules
                .iter()
                .enumerate()
                .filter_map(|(at, rule)| self.rule(&format!("{path}[{at}]"), rule))
                .collect(),
        )
    }

    fn rule(&mut self, path: &str, node: &Node) -> Option<HistogramRule> {
        const HINT: &str = "write { metric: \"part of a name\", bins: [10, 100, \"inf\"] }; metric: \"\" is every name";
        let Value::Map(entries) = &node.value else {
            self.problem(
                node.place,
                path,
                format!("expected a rule, found {}", shown(&node.value)),
                HINT,
            );
            return None;
        };
        for entry in entries
            .iter()
            .filter(|entry| !matches!(entry.key.as_str(), "metric" | "bins"))
        {
            self.unknown(
                &format!("{path}.{}", entry.key),
                entry,
                ["metric", "bins"].into_iter(),
            );
        }
        let part = |key| {
            entries
                .iter()
                .find(|entry| entry.key == key)
                .map(|entry| &entry.node)
        };
        let metric = match part("metric").map(|node| &node.value) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(value @ Value::Number(_)) => Some(coerce::string(value)),
            other => {
                let found = other.map_or_else(|| "none".into(), shown);
                let place = part("metric").map_or(node.place, |node| node.place);
                self.problem(
                    place,
                    &format!("{path}.metric"),
                    format!("expected a text, found {found}"),
                    HINT,
                );
                None
            }
        };
        let bins = match part("bins").map(|node| &node.value) {
            Some(Value::List(bins)) => self.bins(&format!("{path}.bins"), bins),
            other => {
                let found = other.map_or_else(|| "none".into(), shown);
                let place = part("bins").map_or(node.place, |node| node.place);
                self.problem(
                    place,
                    &format!("{path}.bins"),
                    format!("expected a list, found {found}"),
                    HINT,
                );
                return None;
            }
        };
        Some(HistogramRule {
            metric: metric?,
            bins,
        })
    }

    fn bins(&mut self, path: &str, nodes: &[Node]) -> Vec<Bin> {
        let mut bins: Vec<Bin> = Vec::with_capacity(nodes.len());
        for (at, node) in nodes.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let read = match &node.value {
                Value::Number(number) => Some((Some(*number), number_text(*number))),
                Value::String(text) if text == "inf" => Some((None, text.clone())),
                Value::String(text) if is_bare(text) => {
                    Some((Some(text_number(text)), text.clone()))
                }
                _ => None,
            };
            let Some((below, text)) =
                read.filter(|(below, _)| below.is_none_or(|bound| !bound.is_nan()))
            else {
                let message = format!("expected a number or \"inf\", found {}", shown(&node.value));
                self.problem(
                    node.place,
                    &path,
                    message,
                    "write the upper bound of the bin; \"inf\" takes all the rest",
                );
                continue;
            };
            let order = |bin: Option<f64>| bin.unwrap_or(f64::INFINITY);
            if bins.last().is_some_and(|previous| {
                order(below) < order(previous.below) || previous.below.is_none()
            }) {
                self.warn(
                    node.place,
                    &path,
                    format!("{text} after a greater bin always counts 0"),
                    "sort the bins",
                );
            }
            bins.push(Bin {
                below,
                label: bin_label(&text),
            });
        }
        bins
    }

    fn timer_fields(&mut self, path: &str, node: &Node) -> Option<Vec<String>> {
        let Value::List(nodes) = &node.value else {
            if truthy(&node.value) {
                let message = format!("{} is no list, all fields are kept", shown(&node.value));
                self.warn(
                    node.place,
                    path,
                    message,
                    "write e.g. [\"count\", \"upper_percent\"]",
                );
            }
            return None;
        };
        for (at, node) in nodes.iter().enumerate() {
            if !matches!(&node.value, Value::String(name) if is_timer_field(name)) {
                let message = format!("{} is the name of no field", shown(&node.value));
                let hint = format!(
                    "the names are {}, and {}",
                    TIMER_FIELDS.join(", "),
                    "e.g. upper_percent for upper_90"
                );
                self.warn(node.place, &format!("{path}[{at}]"), message, hint);
            }
        }
        (!nodes.is_empty()).then(|| {
            nodes
                .iter()
                .map(|node| coerce::string(&node.value))
                .collect()
        })
    }

    fn server(&mut self, path: &str, setting: &Setting, node: &Node) -> Option<Server> {
        match &node.value {
            value if !truthy(value) => None,
            Value::String(text) => match module(text, "servers") {
                "udp" => Some(Server::Udp),
                "tcp" => Some(Server::Tcp),
                _ => self.unexpected(
                    path,
                    setting,
                    "\"./servers/udp\" or \"./servers/tcp\"",
                    node,
                ),
            },
            _ => self.unexpected(
                path,
                setting,
                "\"./servers/udp\" or \"./servers/tcp\"",
                node,
            ),
        }
    }

    fn servers(&mut self, path: &str, setting: &Setting, node: &Node) -> Option<Vec<Listener>> {
        let nodes = match &node.value {
            Value::List(nodes) => nodes,
            value if !truthy(value) => return None,
            _ => return self.unexpected(path, setting, "a list of listeners", node),
        };
        let mut listeners = Vec::with_capacity(nodes.len());
        for (at, node) in nodes.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let Value::Map(entries) = &node.value else {
                let message = format!("expected a listener, found {}", shown(&node.value));
                self.problem(
                    node.place,
                    &path,
                    message,
                    "write e.g. { server: \"./servers/udp\", port: 8125 }",
                );
                continue;
            };
            let mut values = Values::new();
            for entry in entries
                .iter()
                .filter(|entry| entry.node.value != Value::Undefined)
            {
                let path = format!("{path}.{}", entry.key);
                match settings::find(&entry.key)
                    .filter(|setting| LISTENER_KEYS.contains(&setting.name))
                {
                    Some(setting) => self.setting(&path, setting, entry, &mut values),
                    None => self.unknown(&path, entry, LISTENER_KEYS.into_iter()),
                }
            }
            listeners.push(Listener {
                values,
                path,
                place: node.place,
            });
        }
        Some(listeners)
    }

    fn backends(&mut self, path: &str, node: &Node) -> Option<Vec<Backend>> {
        const HINT: &str = "known are \"./backends/graphite\" and \"./backends/console\"; modules for Node.js cannot be loaded";
        let nodes = match &node.value {
            Value::List(nodes) => nodes,
            value if !truthy(value) => return None,
            value => {
                let message = format!("expected a list of backends, found {}", shown(value));
                self.problem(
                    node.place,
                    path,
                    message,
                    "write e.g. backends: [\"./backends/graphite\"]",
                );
                return None;
            }
        };
        let mut backends = Vec::with_capacity(nodes.len());
        for (at, node) in nodes.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let name = if let Value::String(text) = &node.value {
                module(text, "backends")
            } else {
                ""
            };
            match name {
                "console" => backends.push(Backend::Console),
                "graphite" => backends.push(Backend::Graphite),
                "repeater" | "librato" | "statsd-librato-backend" => {
                    let message =
                        format!("the backend {name} is not in this version, it is left out");
                    self.warn(node.place, &path, message, "");
                }
                _ => {
                    let message = format!(
                        "expected the name of a backend, found {}",
                        shown(&node.value)
                    );
                    self.problem(node.place, &path, message, HINT);
                }
            }
        }
        Some(backends)
    }

    fn unexpected<T>(
        &mut self,
        path: &str,
        setting: &Setting,
        expected: &str,
        node: &Node,
    ) -> Option<T> {
        let hint = match (setting.default, setting.name) {
            (_, "flushInterval" | "stopDeadline") => {
                format!("10 seconds are 10000; the default is {}", setting.default)
            }
            ("undefined", _) => setting.help.to_owned(),
            (default, _) => format!("the default is {default}"),
        };
        self.problem(
            node.place,
            path,
            format!("expected {expected}, found {}", shown(&node.value)),
            hint,
        );
        None
    }

    pub(super) fn problem(
        &mut self,
        place: impl Into<Option<Place>>,
        key: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let finding = self.finding(place.into(), key, message.into(), hint.into());
        self.problems.push(finding);
    }

    pub(super) fn warn(
        &mut self,
        place: impl Into<Option<Place>>,
        key: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let finding = self.finding(place.into(), key, message.into(), hint.into());
        self.warnings.push(finding);
    }

    fn finding(&self, place: Option<Place>, key: &str, message: String, hint: String) -> Finding {
        Finding {
            origin: self.origin.into(),
            place,
            key: key.into(),
            message,
            hint,
        }
    }
}

/// The last part of `./<folder>/name`, `<folder>/name`, `name` and `name.js`.
fn module<'t>(text: &'t str, folder: &str) -> &'t str {
    let name = text.strip_prefix("./").unwrap_or(text);
    let name = name
        .strip_prefix(folder)
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(name);
    name.strip_suffix(".js").unwrap_or(name)
}

/// Text whose spelling goes into a metric name.
fn is_bare(text: &str) -> bool {
    !text.is_empty() && !text.contains(coerce::is_blank)
}

/// Whether a field of that name can exist; `count_99_percent` is what `count_99_9` is looked up by.
fn is_timer_field(name: &str) -> bool {
    let stem = name.strip_suffix("_percent").map(|stem| {
        let digits = stem.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = digits.strip_suffix("top").unwrap_or(digits);
        if digits.len() < stem.len() {
            digits.strip_suffix('_').unwrap_or(stem)
        } else {
            stem
        }
    });
    TIMER_FIELDS.contains(&name) || stem.is_some_and(|stem| PERCENTILE_FIELDS.contains(&stem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_named_in_four_ways() {
        for text in [
            "./backends/console",
            "backends/console",
            "console",
            "./backends/console.js",
        ] {
            assert_eq!(module(text, "backends"), "console");
        }
        assert_eq!(module("./servers/console", "backends"), "servers/console");
        assert_eq!(
            module("/opt/backends/console", "backends"),
            "/opt/backends/console"
        );
    }

    #[test]
    fn timer_fields_are_known() {
        for name in TIMER_FIELDS {
            assert!(is_timer_field(name), "{name}");
        }
        for name in [
            "upper_percent",
            "sum_squares_percent",
            "count_99_percent",
            "count_top99_percent",
        ] {
            assert!(is_timer_field(name), "{name}");
        }
        for name in [
            "",
            "upper_90",
            "p95",
            "std_percent",
            "_percent",
            "counts",
            "count99_percent",
        ] {
            assert!(!is_timer_field(name), "{name}");
        }
    }
}
