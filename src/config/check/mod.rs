//! The tree of a file -> typed values by name, with everything that is wrong or odd about them.

mod endpoints;
mod librato;
mod mappings;
mod nodes;
mod timers;

use super::coerce::{self, shown};
use super::settings::{self, Effect, Kind, Range, Setting};
use super::value::{Entry, Node, Value, truthy};
use super::{Finding, Place};
use crate::deliver::graphite::Namespace;
use crate::deliver::librato::pattern::Pattern;
use crate::deliver::repeater::Target;
use crate::flush::{HistogramRule, Threshold};
use crate::ingest::mapping::Rule;
use crate::proxy;
use std::collections::{BTreeMap, HashMap};

/// A value that passed its check.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Typed {
    Backends(Vec<Backend>),
    Fields(Vec<String>),
    Flag(bool),
    Histogram(Vec<HistogramRule>),
    /// Each with where it stands.
    Mappings(Vec<(Rule, Place)>),
    Namespace(Namespace),
    Nodes(Vec<proxy::Node>),
    Number(u64),
    Pattern(Pattern),
    Patterns(Vec<Pattern>),
    /// With the path of its socket, when it was named by an address.
    Server(Server, Option<String>),
    Servers(Vec<Listener>),
    /// Each with its value as JSON.
    Tags(Vec<(String, String)>),
    Targets(Vec<Target>),
    Text(String),
    Thresholds(Vec<Threshold>),
}

/// A backend of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    Console,
    Graphite,
    Librato,
    Repeater,
}

/// A server module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Udp,
    Tcp,
    Unixgram,
    Unixstream,
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

/// Values of the keys that a running server cannot take over, as text to compare by.
pub(super) fn fixed(table: &'static [Setting], values: &Values) -> BTreeMap<&'static str, String> {
    let fixed = table.iter().filter(|setting| !setting.reload);
    fixed
        .filter_map(|setting| Some((setting.name, values.get(setting.name)?)))
        .map(|(name, (value, _))| (name, value.text()))
        .collect()
}

impl Typed {
    /// The value without the places it was written at.
    fn text(&self) -> String {
        match self {
            Self::Servers(listeners) => {
                let of = |listener: &Listener| {
                    let values = listener.values.iter();
                    values
                        .map(|(name, (value, _))| (*name, value.text()))
                        .collect::<BTreeMap<_, _>>()
                };
                format!("{:?}", listeners.iter().map(of).collect::<Vec<_>>())
            }
            value => format!("{value:?}"),
        }
    }
}

/// Collects what is wrong while values are looked at.
#[derive(Debug)]
pub(super) struct Checker<'o> {
    pub(super) origin: &'o str,
    /// The keys there are.
    pub(super) table: &'static [Setting],
    /// Files, users and groups that the values name are looked for on this machine.
    pub(super) looks: bool,
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
            if settings::is_group(self.table, &entry.key) {
                self.group(&entry.key, entry, &mut values);
            } else if let Some(setting) =
                settings::find(self.table, &entry.key).filter(|_| !entry.key.contains('.'))
            {
                self.setting(&entry.key, setting, entry, &mut values);
            } else {
                let tops = self
                    .table
                    .iter()
                    .map(|s| s.name.split('.').next().unwrap_or(s.name));
                self.unknown(&entry.key, entry, tops);
            }
        }
        values
    }

    fn group(&mut self, path: &str, group: &Entry, values: &mut Values) {
        let Value::Map(entries) = &group.node.value else {
            if truthy(&group.node.value) {
                let found = if settings::keeps_secrets(path) {
                    coerce::kind(&group.node.value).to_owned()
                } else {
                    shown(&group.node.value)
                };
                let message = format!("expected an object, found {found}");
                let hint = match settings::only_member(path) {
                    Some(only) => format!("write {}: {{ {only}: \"...\" }}", group.key),
                    None => format!("write {}: {{ key: value, ... }}", group.key),
                };
                self.problem(group.node.place, path, message, hint);
            }
            return;
        };
        for entry in entries
            .iter()
            .filter(|entry| entry.node.value != Value::Undefined)
        {
            let inside = format!("{path}.{}", entry.key);
            if settings::is_group(self.table, &inside) {
                self.group(&inside, entry, values);
            } else if let Some(setting) = settings::find(self.table, &inside) {
                self.setting(&inside, setting, entry, values);
            } else {
                let prefix = format!("{path}.");
                let known = self
                    .table
                    .iter()
                    .filter_map(|s| s.name.strip_prefix(prefix.as_str())?.split('.').next());
                self.unknown(&inside, entry, known);
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
        // A port open to all, where somebody meant a file.
        if setting.name == "socket"
            && matches!(&entry.node.value, Value::String(text) if text.is_empty())
        {
            self.warn(
                entry.place,
                path,
                "is empty and counts as not written: ./servers/tcp listens on a port",
                "write the path of a socket, or remove the key",
            );
        }
        if let Some(typed) = self.value(path, setting, &entry.node) {
            values.insert(setting.name, (typed, entry.node.place));
        }
    }

    /// Warns of every entry whose key is not one of those `known`.
    fn unknown_but(&mut self, path: &str, entries: &[Entry], known: &[&str]) {
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                let path = format!("{path}.{}", entry.key);
                self.unknown(&path, entry, known.iter().copied());
            }
        }
    }

    fn unknown<'n>(&mut self, path: &str, entry: &Entry, known: impl Iterator<Item = &'n str>) {
        let hint = match (
            settings::find(self.table, &entry.key),
            entry.key.split_once('.'),
        ) {
            // Nobody is shown more, and looking for each takes time.
            _ if self.warnings.len() >= super::FINDINGS_MAX => String::new(),
            // The proxy's table has it.
            _ if path == "nodes" => {
                "a file of the proxy? start it with: statsd-fast proxy --config FILE".into()
            }
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
            Kind::Account => match value {
                Value::String(text) => Some(Typed::Text(text.clone())),
                Value::Number(_) => Some(Typed::Text(coerce::string(value))),
                _ => self.unexpected(path, setting, "a name or a number", node),
            },
            Kind::Any => None,
            Kind::Backends => self.backends(path, node).map(Typed::Backends),
            Kind::Choice(choices) => self.choice(path, setting, choices, node),
            Kind::Exact => match value {
                Value::Bool(flag) => Some(Typed::Flag(*flag)),
                _ => self.unexpected(path, setting, "true or false", node),
            },
            Kind::FileMode => self.file_mode(path, setting, node).map(Typed::Number),
            Kind::Flag => Some(Typed::Flag(self.flag(path, node))),
            Kind::Forks => self.forks(path, setting, node),
            Kind::Host => Some(Typed::Text(if truthy(value) {
                coerce::string(value)
            } else {
                String::new()
            })),
            Kind::Histogram => self.histogram(path, setting, node).map(Typed::Histogram),
            Kind::Mappings => self.mappings(path, setting, node).map(Typed::Mappings),
            Kind::Namespace => Some(Typed::Namespace(self.namespace(path, node))),
            Kind::Nodes => self.nodes(path, setting, node).map(Typed::Nodes),
            Kind::Number(range) => self.number(path, setting, range, node).map(Typed::Number),
            Kind::Part => match value {
                Value::String(text) => Some(Typed::Text(text.clone())),
                Value::Number(_) => Some(Typed::Text(coerce::string(value))),
                _ => self.unexpected(path, setting, "a text", node),
            },
            Kind::Pattern => self.source_pattern(path, node).map(Typed::Pattern),
            Kind::Patterns => self.patterns(path, node).map(Typed::Patterns),
            Kind::Percentiles => self.thresholds(path, node).map(Typed::Thresholds),
            Kind::Seconds => self.seconds(path, setting, node).map(Typed::Number),
            Kind::Secret | Kind::Web => self.secret(path, setting, node).map(Typed::Text),
            Kind::Prefix => self.prefix(path, node).map(Typed::Text),
            Kind::Server => self.server(path, setting, node),
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
            Kind::Switch => (*value != Value::Null).then(|| Typed::Flag(self.flag(path, node))),
            Kind::Tags => self.tags(path, node).map(Typed::Tags),
            Kind::Text => match value {
                Value::String(text) => (!text.is_empty()).then(|| Typed::Text(text.clone())),
                _ if !truthy(value) => None,
                _ => self.unexpected(path, setting, "a text in quotes", node),
            },
            Kind::Targets => self.targets(path, setting, node).map(Typed::Targets),
            Kind::Title => truthy(value).then(|| Typed::Text(coerce::string(value))),
            Kind::TimerFields => self.timer_fields(path, node).map(Typed::Fields),
            Kind::Ttl => Some(Typed::Number(self.ttl(path, node))),
        }
    }

    fn flag(&mut self, path: &str, node: &Node) -> bool {
        if let Value::String(text) = &node.value
            && matches!(text.as_str(), "false" | "no" | "off" | "0")
        {
            let message = format!("the text {text:?} counts as true");
            self.warn(node.place, path, message, "write false without quotes");
        }
        truthy(&node.value)
    }

    fn namespace(&mut self, path: &str, node: &Node) -> Namespace {
        match &node.value {
            Value::Bool(true) => Namespace::Legacy,
            Value::Bool(false) => Namespace::Prefixed,
            value => {
                let message = format!(
                    "{} is neither true nor false: legacy names, but .rate and .count at their ends",
                    shown(value)
                );
                self.warn(node.place, path, message, "write true or false");
                Namespace::Hybrid
            }
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

    fn unexpected<T>(
        &mut self,
        path: &str,
        setting: &Setting,
        expected: &str,
        node: &Node,
    ) -> Option<T> {
        let hint = match (setting.default, setting.name) {
            (_, "flushInterval" | "stopDeadline") => "10 seconds are 10000".to_owned(),
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
