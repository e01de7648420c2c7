//! Every key a file of the proxy may have. Those of the daemon that mean the same are rows of its table.

use super::{DAY_MS, Effect, Kind, Range, SETTINGS, Setting, milliseconds, number, row};

/// The daemon's row of that name, for a proxy that takes it over only at a restart unless the daemon does.
const fn same(name: &str) -> Setting {
    let mut at = 0;
    loop {
        if is_same(SETTINGS[at].name, name) {
            return SETTINGS[at];
        }
        at += 1;
    }
}

/// Whether two texts are equal, while compiling.
const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// All keys, by subject.
#[rustfmt::skip]
pub const PROXY_SETTINGS: &[Setting] = &[
    row("nodes", Kind::Nodes, "undefined", "The daemons, each { host, port, adminport }; needed."),

    same("port"),
    same("address"),
    same("address_ipv6"),
    same("server"),
    same("servers"),
    same("socket"),
    same("socket_mod"),
    same("streamConnections"),
    same("streamLine"),
    same("receiveBuffer"),
    same("steering"),
    same("udpGro"),
    row("forkCount", Kind::Forks, "0", "Workers for each listener, when `threads` is not written; auto for one on each core, 0 for one."),
    row("threads", Kind::Number(number("whole number", 1, 1024)), "undefined", "Workers for each listener; without it, what forkCount says."),
    same("pinThreads"),
    same("user"),
    same("group"),

    row("packing", Kind::Exact, "true", "Pack lines for one node into datagrams; false sends each line in one of its own."),
    row("maxDatagram", Kind::Number(number("number of bytes", 64, 65_507)), "1432", "Longest datagram that lines are packed into; a longer line has one of its own."),
    row("cacheSize", Kind::Number(Range { falsy_is_default: true, ..number("whole number", 1, 100_000_000) }), "10000", "Names whose place in the ring each worker remembers."),

    row("checkInterval", milliseconds(10, DAY_MS, true), "10000", "Milliseconds between two questions to a node, and the longest an answer may take."),
    row("failuresToRemove", Kind::Number(number("whole number", 1, 1000)), "1", "Failures in a row that take a node out of the ring."),
    row("holdDown", milliseconds(0, DAY_MS, false), "0", "Milliseconds a node that was taken out has to answer well before it is back; 0: at its first good answer."),

    same("mgmt_port"),
    row("mgmt_address", Kind::Text, "\"127.0.0.1\"", "Address of the admin interface."),
    same("mgmt_connections"),
    same("healthStatus"),
    row("prefixStats", Kind::Title, "undefined", "First part of the names of the proxy's own counters, which go to the ring; without it, none do."),
    row("flushInterval", milliseconds(10, DAY_MS, true), "10000", "Milliseconds between two reports of them."),

    same("debug"),
    same("dumpMessages"),
    same("log.backend"),
    same("log.application"),
    same("log.level"),
    same("log.socket"),
    same("title"),
    same("automaticConfigReload"),
    never("host", "Where to listen, it says in StatsD's example; address does that."),
    never("udp_version", "Family of the listener, it says in StatsD's example; address_ipv6 does that."),
];

const fn never(name: &'static str, help: &'static str) -> Setting {
    Setting {
        effect: Effect::Never,
        ..row(name, Kind::Any, "undefined", help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_row_is_the_row_of_that_name() {
        let names = ["port", "socket", "socket_mod", "log.socket"];
        for name in names {
            assert_eq!(same(name).name, name);
        }
    }
}
