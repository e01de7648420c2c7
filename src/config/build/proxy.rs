//! The options of a proxy.

use super::super::Proxy;
use super::super::check::{Checker, Typed, Values};
use super::super::environment::Environment;
use super::{admin_options, flag, identity, listeners, log_options, number, text};
use crate::proxy;
use crate::proxy::health;
use std::time::Duration;

/// Builds everything; what is missing is added to the checker's problems.
pub(in super::super) fn proxy(
    values: &Values,
    _environment: &Environment,
    checker: &mut Checker<'_>,
) -> Proxy {
    // To a daemon it is the longest datagram that comes; here it is the longest that goes.
    let mut inward = values.clone();
    inward.remove("maxDatagram");
    Proxy {
        identity: identity(values, checker),
        threads: threads(values),
        pin: flag(values, "pinThreads").unwrap_or(true),
        listeners: listeners(&inward, checker),
        proxy: options(values, checker),
        admin: admin_options(values),
        log: log_options(values),
        title: text(values, "title"),
        watch: flag(values, "automaticConfigReload").unwrap_or(true),
    }
}

/// `None` is one for each core. The reference without forks is one process.
fn threads(values: &Values) -> Option<usize> {
    let forks = match values.get("forkCount") {
        Some((Typed::Text(_), _)) => None,
        Some((Typed::Number(forks), _)) => Some((*forks).max(1)),
        _ => Some(1),
    };
    number(values, "threads")
        .or(forks)
        .map(|threads| threads as usize)
}

fn options(values: &Values, checker: &mut Checker<'_>) -> proxy::Options {
    let default = proxy::Options::default();
    let nodes = match values.get("nodes") {
        Some((Typed::Nodes(nodes), _)) => nodes.clone(),
        _ => Vec::new(),
    };
    // With problems about, the nodes may only seem to be missing.
    if nodes.is_empty() && checker.problems.is_empty() {
        let place = values.get("nodes").map(|(_, place)| *place);
        checker.problem(
            place,
            "nodes",
            "there is nobody to forward to",
            "write nodes: [{ host: \"10.0.0.1\", port: 8125, adminport: 8126 }]",
        );
    }
    let health = health::Options {
        interval: number(values, "checkInterval")
            .map_or(default.health.interval, Duration::from_millis),
        failures_to_remove: number(values, "failuresToRemove")
            .map_or(default.health.failures_to_remove, |count| count as u32),
        hold_down: number(values, "holdDown")
            .map_or(default.health.hold_down, Duration::from_millis),
    };
    proxy::Options {
        nodes,
        packing: flag(values, "packing").unwrap_or(default.packing),
        max_datagram: number(values, "maxDatagram")
            .map_or(default.max_datagram, |bytes| bytes as usize),
        digests: number(values, "cacheSize").map_or(default.digests, |count| count as usize),
        health,
        prefix_stats: text(values, "prefixStats"),
        stats_interval: number(values, "flushInterval")
            .map_or(default.stats_interval, Duration::from_millis),
    }
}
