//! The rules that rename, tag or drop names.

use super::super::Place;
use super::super::coerce::shown;
use super::super::settings::{self, Setting};
use super::super::value::{Entry, Node, Value, truthy};
use super::Checker;
use crate::ingest::mapping::{Action, Kind, Matcher, Rule, Template};

/// Keys of a rule.
const KEYS: [&str; 6] = [
    "match",
    "matchType",
    "matchMetricType",
    "name",
    "tags",
    "action",
];

const KINDS: [(&str, Kind); 4] = [
    ("counter", Kind::Counter),
    ("timer", Kind::Timer),
    ("gauge", Kind::Gauge),
    ("set", Kind::Set),
];

const HINT: &str = "write { match: \"web.*.hits\", name: \"hits\", tags: { host: \"$1\" } }, or \
                    { match: \"junk.*\", action: \"drop\" }";
const REGEX_HINT: &str = "write matchType: \"regex\" and e.g. match: /^web\\.([^.]+)$/; there is no \
                          look-around and there are no back-references";

impl Checker<'_> {
    /// Rules with the places they stand at.
    pub(super) fn mappings(
        &mut self,
        path: &str,
        setting: &Setting,
        node: &Node,
    ) -> Option<Vec<(Rule, Place)>> {
        let nodes = match &node.value {
            Value::List(nodes) => nodes,
            value if !truthy(value) => return None,
            _ => return self.unexpected(path, setting, "a list of rules", node),
        };
        let mut rules = Vec::with_capacity(nodes.len());
        for (at, node) in nodes.iter().enumerate() {
            if let Some(rule) = self.mapping(&format!("{path}[{at}]"), node) {
                rules.push((rule, node.place));
            }
        }
        Some(rules)
    }

    fn mapping(&mut self, path: &str, node: &Node) -> Option<Rule> {
        let Value::Map(entries) = &node.value else {
            let message = format!("expected a rule, found {}", shown(&node.value));
            self.problem(node.place, path, message, HINT);
            return None;
        };
        self.unknown_but(path, entries, &KEYS);
        let part = |key: &str| {
            let found = entries.iter().find(|entry| entry.key == key);
            found.filter(|entry| !matches!(entry.node.value, Value::Undefined | Value::Null))
        };
        let mut choice = |key: &str, choices: &[&str]| {
            let Some(entry) = part(key) else {
                return Some(choices[0].to_owned());
            };
            let path = format!("{path}.{key}");
            self.one_of(&path, choices, &entry.node)
        };
        let match_type = choice("matchType", &["glob", "regex"]);
        let action = choice("action", &["map", "drop"]);
        let kind = match part("matchMetricType") {
            None => Some(None),
            Some(entry) => {
                let path = format!("{path}.matchMetricType");
                let text = self.one_of(&path, &KINDS.map(|(name, _)| name), &entry.node);
                let kind = |text| KINDS.iter().find(|(name, _)| *name == text);
                text.map(|text| kind(text).map(|(_, kind)| *kind))
            }
        };
        let is_regex = match_type? == "regex";
        let matcher = self.matcher(&format!("{path}.match"), is_regex, part("match"), node)?;
        let action = if action? == "drop" {
            for key in ["name", "tags"] {
                if let Some(entry) = part(key) {
                    let path = format!("{path}.{key}");
                    self.warn(entry.place, &path, "is not used: the rule drops names", "");
                }
            }
            Action::Drop
        } else {
            let name = match part("name") {
                None => None,
                Some(entry) => {
                    Some(self.template(&format!("{path}.name"), &matcher, &entry.node)?)
                }
            };
            let tags = match part("tags") {
                None => Vec::new(),
                Some(entry) => self.set_tags(&format!("{path}.tags"), &matcher, &entry.node)?,
            };
            Action::Map { name, tags }
        };
        Some(Rule {
            matcher,
            kind: kind?,
            action,
        })
    }

    fn one_of(&mut self, path: &str, choices: &[&str], node: &Node) -> Option<String> {
        if let Value::String(text) = &node.value
            && choices.contains(&text.as_str())
        {
            return Some(text.clone());
        }
        let quoted: Vec<_> = choices.iter().map(|choice| format!("{choice:?}")).collect();
        let expected = quoted.join(" or ");
        let message = format!("expected {expected}, found {}", shown(&node.value));
        let text = match &node.value {
            Value::String(text) => text.as_str(),
            _ => "",
        };
        let nearest = settings::nearest(text, choices.iter().copied());
        let hint = nearest.map(|name| format!("did you mean {name}?"));
        self.problem(node.place, path, message, hint.unwrap_or_default());
        None
    }

    fn matcher(
        &mut self,
        path: &str,
        is_regex: bool,
        entry: Option<&Entry>,
        rule: &Node,
    ) -> Option<Matcher> {
        let Some(node) = entry.map(|entry| &entry.node) else {
            self.problem(rule.place, path, "is missing: which names?", HINT);
            return None;
        };
        let (source, flags) = match (&node.value, is_regex) {
            (Value::String(text), false) if !text.is_empty() => {
                return Some(Matcher::Glob(text.clone()));
            }
            (Value::Regex { .. }, false) => {
                let message = "is a regular expression, but the rule takes a glob";
                self.problem(node.place, path, message, REGEX_HINT);
                return None;
            }
            (Value::Regex { source, flags }, true) => (source.as_str(), flags.as_str()),
            (Value::String(text), true) if !text.is_empty() => {
                (self.unquoted(path, text, node), "")
            }
            (value, _) => {
                let message = format!("expected a text, found {}", shown(value));
                self.problem(node.place, path, message, HINT);
                return None;
            }
        };
        match Matcher::regex(source, flags) {
            Ok(matcher) => Some(matcher),
            Err(error) => {
                let message = format!("is no regular expression for rules: {error}");
                self.problem(node.place, path, message, REGEX_HINT);
                None
            }
        }
    }

    fn template(&mut self, path: &str, matcher: &Matcher, node: &Node) -> Option<Template> {
        let text = match &node.value {
            Value::String(text) => text.clone(),
            Value::Number(_) => super::coerce::string(&node.value),
            value => {
                let message = format!("expected a text, found {}", shown(value));
                self.problem(node.place, path, message, HINT);
                return None;
            }
        };
        if text.contains([';', '\n']) {
            let message = format!("{} would have tags or end a line", shown(&node.value));
            self.problem(node.place, path, message, "write tags: { key: \"value\" }");
            return None;
        }
        match Template::new(&text, matcher) {
            Ok(template) => Some(template),
            Err(error) => {
                let message = format!("{}: {error}", shown(&node.value));
                let hint = "$1 or ${1} is what the first * or group of match has caught, ${name} a group \
                            (?<name>...), and $$ is a dollar";
                self.problem(node.place, path, message, hint);
                None
            }
        }
    }

    fn set_tags(
        &mut self,
        path: &str,
        matcher: &Matcher,
        node: &Node,
    ) -> Option<Vec<(String, Template)>> {
        let Value::Map(entries) = &node.value else {
            let message = format!("expected an object, found {}", shown(&node.value));
            let hint = "write tags: { key: \"value\" }; an empty value takes the tag away";
            self.problem(node.place, path, message, hint);
            return None;
        };
        let mut tags = Vec::with_capacity(entries.len());
        for entry in entries {
            let path = format!("{path}.{}", entry.key);
            if entry.key.is_empty() || entry.key.contains([';', '=', ':', ',', '\n']) {
                let message = "is no key of a tag: it is empty or holds one of ; = : ,";
                self.problem(
                    entry.place,
                    &path,
                    message,
                    "write tags: { key: \"value\" }",
                );
                return None;
            }
            let template = self.template(&path, matcher, &entry.node)?;
            tags.push((entry.key.clone(), template));
        }
        Some(tags)
    }
}
