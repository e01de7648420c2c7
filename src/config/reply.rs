//! What the admin interface answers to `config`: the file as it was evaluated, and what follows from it. Only
//! what is secret is not in it: whoever reaches that port may read the reply.

use super::coerce;
use super::secret;
use super::value::{Node, Value, truthy};
use std::fmt::Write as _;

/// The reply of a proxy, into whose file nothing is computed.
pub(super) fn plain(root: &Node) -> String {
    shown(&members(root))
}

/// The keys of a file, with their values.
fn members(root: &Node) -> Vec<(&str, Value)> {
    match &root.value {
        Value::Map(entries) => entries
            .iter()
            .map(|entry| (entry.key.as_str(), entry.node.value.clone()))
            .collect(),
        _ => Vec::new(),
    }
}

/// The reply of a daemon.
///
/// The reference writes what it computes into the file's own object, so that these stand in their
/// place when they were written, and behind all others when not: `gaugesMaxTTL`, `deleteIdleStats`, the
/// four flags it is the default of, `flushInterval`.
pub(super) fn reply(root: &Node) -> String {
    let mut members = members(root);
    let set = |members: &mut Vec<(&str, Value)>, key: &'static str, value: Value| match members
        .iter_mut()
        .find(|(known, _)| *known == key)
    {
        Some((_, old)) => *old = value,
        None => members.push((key, value)),
    };
    let written = |members: &[(&str, Value)], key: &str| {
        let found = members.iter().find(|(known, _)| *known == key);
        found.map_or(Value::Undefined, |(_, value)| value.clone())
    };

    let ttl = match written(&members, "gaugesMaxTTL") {
        Value::Number(ttl) if ttl.fract() == 0.0 && ttl > 1.0 => ttl,
        _ => 1.0,
    };
    set(&mut members, "gaugesMaxTTL", Value::Number(ttl));
    let idle = match written(&members, "deleteIdleStats") {
        Value::Undefined => Value::Bool(false),
        value => value,
    };
    set(&mut members, "deleteIdleStats", idle.clone());
    const FLAGS: [&str; 4] = [
        "deleteCounters",
        "deleteTimers",
        "deleteSets",
        "deleteGauges",
    ];
    if truthy(&idle) {
        for flag in FLAGS {
            if written(&members, flag) == Value::Undefined {
                set(&mut members, flag, Value::Bool(true));
            }
        }
    }
    let interval = written(&members, "flushInterval");
    let interval = if truthy(&interval) {
        coerce::number(&interval)
    } else {
        10_000.0
    };
    set(&mut members, "flushInterval", Value::Number(interval));
    for flag in FLAGS {
        if !truthy(&written(&members, flag)) {
            set(&mut members, flag, Value::Bool(false));
        }
    }

    shown(&members)
}

/// An empty line, then a line for each key and for each member of a nested value.
fn shown(members: &[(&str, Value)]) -> String {
    let mut reply = String::from("\n");
    let mut line = |path: std::fmt::Arguments<'_>, key: &str, value: &Value| {
        let shown = secret::in_place_of(key, value).unwrap_or_else(|| {
            // A list is one text by then.
            let text = coerce::string(value);
            secret::without_credentials(&text).unwrap_or(text)
        });
        // Writing to a String cannot fail.
        let _ = writeln!(reply, "{path}: {shown}");
    };
    for (key, value) in members {
        match value {
            Value::Null | Value::Regex { .. } => {}
            Value::List(_) | Value::Map(_) if secret::in_place_of(key, value).is_some() => {
                line(format_args!("{key}"), key, value);
            }
            Value::List(nodes) => nodes
                .iter()
                .enumerate()
                .for_each(|(at, node)| line(format_args!("{key} > {at}"), "", &node.value)),
            Value::Map(entries) => {
                for entry in entries {
                    let path = format_args!("{key} > {}", entry.key);
                    line(path, &entry.key, &entry.node.value);
                }
            }
            value => line(format_args!("{key}"), key, value),
        }
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::environment::Environment;
    use crate::config::javascript;

    fn of(text: &str) -> String {
        reply(
            &javascript::parse(text, &Environment::default())
                .expect("a value")
                .root,
        )
    }

    #[test]
    fn members_stand_in_the_order_written_and_what_is_computed_behind_them() {
        let text = "{port: 8125, a: null, r: /x/g, b: undefined, flushInterval: '500', backends: ['x', 'y'],
                    graphite: {globalPrefix: 'g', deep: {er: 1}}, servers: [{port: 1}], deleteSets: true}";
        let expected = "\nport: 8125\nb: undefined\nflushInterval: 500\nbackends > 0: x\nbackends > 1: y\n\
                        graphite > globalPrefix: g\ngraphite > deep: [object Object]\n\
                        servers > 0: [object Object]\ndeleteSets: true\ngaugesMaxTTL: 1\n\
                        deleteIdleStats: false\ndeleteCounters: false\ndeleteTimers: false\n\
                        deleteGauges: false\n";
        assert_eq!(of(text), expected);
    }

    #[test]
    fn secrets_are_not_shown() {
        let text = of("{librato: {email: 'e', token: 'hush', proxy: {uri: 'http://u:hush@h'}}}");
        assert!(
            text.contains("\nlibrato > email: e\nlibrato > token: ********\n"),
            "{text}"
        );
        assert!(!text.contains("hush"), "{text}");
        assert!(of("{librato: {token: ''}}").contains("\nlibrato > token: \n"));
        let text = of(
            "{librato: {api: 'https://me:hush@host/a', Token: 'hush', x: [1, 'http://hush@host']},
              token: 'hush', 'librato.token': 'hush', TOKEN: ['hush'], Librato: {token: {a: 'hush'}},
              list: ['http://me:hush@host'], plain: 'http://me:hush@host'}",
        );
        let expected = "\nlibrato > api: https://********@host/a\nlibrato > Token: ********\n\
                        librato > x: 1,http://********@host\ntoken: ********\nlibrato.token: ********\n\
                        TOKEN: ********\nLibrato > token: ********\nlist > 0: http://********@host\n\
                        plain: http://********@host\n";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn idle_deletion_sets_what_was_not_written() {
        let expected = "\ndeleteIdleStats: 1\ndeleteTimers: false\ngaugesMaxTTL: 3\n\
                        deleteCounters: true\ndeleteSets: true\ndeleteGauges: true\n\
                        flushInterval: 10000\n";
        let text = "{deleteIdleStats: 1, deleteTimers: 0, gaugesMaxTTL: 3}";
        assert_eq!(of(text), expected);
    }
}
