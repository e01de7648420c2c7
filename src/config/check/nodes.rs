//! The settings of the proxy that are more than a text or a number.

use super::super::coerce::{self, shown};
use super::super::settings::Setting;
use super::super::value::{Node, Value, truthy};
use super::{Checker, Typed};
use crate::proxy;

/// Keys of a node.
const NODE_KEYS: [&str; 3] = ["host", "port", "adminport"];
/// Most processes.
const FORKS_MAX: f64 = 1024.0;

impl Checker<'_> {
    /// `auto` as a text, or a number.
    pub(super) fn forks(&mut self, path: &str, setting: &Setting, node: &Node) -> Option<Typed> {
        match &node.value {
            value if !truthy(value) => None,
            Value::String(text) if text == "auto" => Some(Typed::Text(text.clone())),
            value => match coerce::number(value) {
                forks if forks.fract() == 0.0 && (0.0..=FORKS_MAX).contains(&forks) => {
                    Some(Typed::Number(forks as u64))
                }
                _ => self.unexpected(path, setting, "\"auto\" or a number up to 1024", node),
            },
        }
    }

    /// The daemons behind a proxy. A label that comes twice is kept once, as in the ring of the reference.
    pub(super) fn nodes(
        &mut self,
        path: &str,
        setting: &Setting,
        node: &Node,
    ) -> Option<Vec<proxy::Node>> {
        const HINT: &str = "write { host: \"10.0.0.1\", port: 8125, adminport: 8126 }";
        let listed = match &node.value {
            Value::List(listed) => listed,
            value if !truthy(value) => return None,
            _ => {
                return self.unexpected(path, setting, "a list of { host, port, adminport }", node);
            }
        };
        let mut nodes: Vec<proxy::Node> = Vec::with_capacity(listed.len());
        for (at, one) in listed.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let Value::Map(entries) = &one.value else {
                let message = format!("expected a node, found {}", shown(&one.value));
                self.problem(one.place, &path, message, HINT);
                continue;
            };
            self.unknown_but(&path, entries, &NODE_KEYS);
            let part = |key: &str| {
                let entry = entries.iter().find(|entry| entry.key == key);
                entry.map(|entry| &entry.node.value)
            };
            let written = match part("host") {
                Some(Value::String(host)) if !host.is_empty() => Some(host),
                other => {
                    let found = other.map_or_else(|| "none".into(), shown);
                    let message = format!("expected a name or an address, found {found}");
                    self.problem(one.place, &format!("{path}.host"), message, HINT);
                    None
                }
            };
            let mut port = |key: &str| match part(key).map(coerce::number) {
                Some(port) if port.fract() == 0.0 && (1.0..=65_535.0).contains(&port) => {
                    Some(port as u16)
                }
                _ => {
                    let found = part(key).map_or_else(|| "none".into(), shown);
                    let message = format!("expected a port from 1 to 65535, found {found}");
                    self.problem(one.place, &format!("{path}.{key}"), message, HINT);
                    None
                }
            };
            let (data, admin) = (port("port"), port("adminport"));
            let (Some(written), Some(port), Some(admin_port)) = (written, data, admin) else {
                continue;
            };
            let spelled = part("port").map(coerce::string).unwrap_or_default();
            let label = format!("{written}:{spelled}");
            if nodes.iter().any(|known| known.label == label) {
                let message = format!("the node {label} is there already, it counts once");
                self.warn(one.place, &path, message, "remove one of the two");
                continue;
            }
            // An address in brackets is how a URL would have it.
            let bare = written
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            nodes.push(proxy::Node {
                host: bare.unwrap_or(written).to_owned(),
                label,
                port,
                admin_port,
            });
        }
        Some(nodes)
    }
}
