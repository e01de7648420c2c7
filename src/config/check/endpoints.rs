//! The settings that name what to listen on and where to send.

use super::super::coerce::{shown, truthy};
use super::super::javascript::{Node, Value};
use super::super::settings::{self, Setting};
use super::{Backend, Checker, Listener, Server, Values};

/// Keys an entry of `servers` may have; they mean what they mean at the top.
const LISTENER_KEYS: [&str; 6] = [
    "server",
    "address",
    "address_ipv6",
    "port",
    "socket",
    "socket_mod",
];

impl Checker<'_> {
    pub(super) fn server(&mut self, path: &str, setting: &Setting, node: &Node) -> Option<Server> {
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

    pub(super) fn servers(
        &mut self,
        path: &str,
        setting: &Setting,
        node: &Node,
    ) -> Option<Vec<Listener>> {
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

    pub(super) fn backends(&mut self, path: &str, node: &Node) -> Option<Vec<Backend>> {
        const HINT: &str = "known are \"./backends/graphite\" and \"./backends/console\"; \
                            modules for Node.js cannot be loaded";
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
}
