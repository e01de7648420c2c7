//! The settings that name what to listen on and where to send.

use super::super::coerce::{self, shown};
use super::super::settings::{self, Setting};
use super::super::value::{Node, Value, truthy};
use super::{Backend, Checker, Listener, Server, Typed, Values};
use crate::deliver::repeater::Target;

/// Keys an entry of `servers` may have; they mean what they mean at the top.
const LISTENER_KEYS: [&str; 6] = [
    "server",
    "address",
    "address_ipv6",
    "port",
    "socket",
    "socket_mod",
];

/// The servers there are, for errors.
const SERVERS: &str = "\"./servers/udp\", \"./servers/tcp\", \"./servers/unixgram\", \
                       \"./servers/unixstream\" or an address as \"unix:///path\"";

/// The addresses of unix sockets as DogStatsD's clients are given them.
const ADDRESSES: [(&str, Server); 3] = [
    ("unix://", Server::Unixgram),
    ("unixgram://", Server::Unixgram),
    ("unixstream://", Server::Unixstream),
];

impl Checker<'_> {
    pub(super) fn server(&mut self, path: &str, setting: &Setting, node: &Node) -> Option<Typed> {
        let Value::String(text) = &node.value else {
            let wrong = truthy(&node.value);
            return wrong.then(|| self.unexpected(path, setting, SERVERS, node))?;
        };
        if text.is_empty() {
            return None;
        }
        let server = match module(text, "servers") {
            "udp" => Server::Udp,
            "tcp" => Server::Tcp,
            "unixgram" => Server::Unixgram,
            "unixstream" => Server::Unixstream,
            _ => {
                let mut known = ADDRESSES.iter();
                let at = known.find_map(|(scheme, it)| Some((*it, text.strip_prefix(scheme)?)));
                let Some((server, socket)) = at.filter(|(_, socket)| socket.starts_with('/'))
                else {
                    return self.unexpected(path, setting, SERVERS, node);
                };
                return Some(Typed::Server(server, Some(socket.into())));
            }
        };
        Some(Typed::Server(server, None))
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
                match settings::find(self.table, &entry.key)
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
        const HINT: &str = "known are \"./backends/graphite\", \"./backends/console\", \
                            \"./backends/repeater\" and \"librato\"; \
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
                "repeater" => backends.push(Backend::Repeater),
                "librato" | "statsd-librato-backend" => backends.push(Backend::Librato),
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

impl Checker<'_> {
    /// The list of `repeater`; one that is wrong is a problem of its own.
    pub(super) fn targets(
        &mut self,
        path: &str,
        setting: &Setting,
        node: &Node,
    ) -> Option<Vec<Target>> {
        const HINT: &str = "write { host: \"other.example.org\", port: 8125 }";
        let nodes = match &node.value {
            Value::List(nodes) => nodes,
            value if !truthy(value) => return None,
            _ => return self.unexpected(path, setting, "a list of { host, port }", node),
        };
        let mut targets = Vec::with_capacity(nodes.len());
        for (at, node) in nodes.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let Value::Map(entries) = &node.value else {
                let message = format!("expected a target, found {}", shown(&node.value));
                self.problem(node.place, &path, message, HINT);
                continue;
            };
            self.unknown_but(&path, entries, &["host", "port"]);
            let part = |key: &str| entries.iter().find(|entry| entry.key == key);
            let host = match part("host").map(|entry| &entry.node.value) {
                Some(Value::String(host)) if !host.is_empty() => Some(host.clone()),
                other => {
                    let found = other.map_or_else(|| "none".into(), shown);
                    let message = format!("expected a name or an address, found {found}");
                    self.problem(node.place, &format!("{path}.host"), message, HINT);
                    None
                }
            };
            let written = part("port").map(|entry| &entry.node.value);
            let port = match written.map(coerce::number) {
                Some(port) if port.fract() == 0.0 && (1.0..=65_535.0).contains(&port) => {
                    Some(port as u16)
                }
                _ => {
                    let found = written.map_or_else(|| "none".into(), shown);
                    let message = format!("expected a port from 1 to 65535, found {found}");
                    self.problem(node.place, &format!("{path}.port"), message, HINT);
                    None
                }
            };
            if let (Some(host), Some(port)) = (host, port) {
                targets.push(Target { host, port });
            }
        }
        Some(targets)
    }

    /// A number as it is, a text as octal digits: what chmod(2) gets from Node.js.
    pub(super) fn file_mode(&mut self, path: &str, setting: &Setting, node: &Node) -> Option<u64> {
        const EXPECTED: &str = "a file mode, e.g. \"0770\" or 0o770";
        let mode = match &node.value {
            value if !truthy(value) => return None,
            Value::Number(mode) if mode.fract() == 0.0 && *mode >= 0.0 => Some(*mode as u64),
            Value::String(digits) => u64::from_str_radix(digits, 8).ok(),
            _ => None,
        };
        match mode.filter(|mode| *mode <= 0o7777) {
            None => self.unexpected(path, setting, EXPECTED, node),
            mode => mode,
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
