//! The start-up block: what was bound, who serves it, what the kernel granted and how to raise it.

use crate::config::{Config, Proxy};
use crate::deliver::Backend;
use crate::ingest::source::stream::{Parting, kept_back};
use crate::ingest::source::{Address, Capacity, Listener};
use crate::runtime::sys::limit::raise_descriptors;
use core_affinity::CoreId;
use std::net::SocketAddr;

/// Says all of it. Worker `n` runs on the core `n` of `cores`, from the first again when there are more.
pub(super) fn describe(
    config: &Config,
    listeners: &[Listener],
    admin: SocketAddr,
    cores: &[CoreId],
    pinned: bool,
) {
    let backends: Vec<_> = config.backends.iter().map(Backend::name).collect();
    log::info!(
        "statsd-fast {}, pid {}, flush every {} s to {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        config.flush.interval.as_secs_f64(),
        if backends.is_empty() {
            "no backend".into()
        } else {
            backends.join(", ")
        }
    );
    describe_listeners(listeners, config.admin.connections, cores, pinned);
    log::info!("admin interface on tcp {admin}");
    if let Some(first) = listeners.first() {
        log::info!("send a first metric: {}", first_metric(&first.address));
    }
}

/// The same of a proxy.
pub(super) fn describe_proxy(
    config: &Proxy,
    listeners: &[Listener],
    admin: SocketAddr,
    cores: &[CoreId],
    pinned: bool,
) {
    let labels: Vec<_> = config.proxy.nodes.iter().map(|node| &*node.label).collect();
    log::info!(
        "statsd-fast {}, pid {}, proxy for {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        labels.join(" ")
    );
    describe_listeners(listeners, config.admin.connections, cores, pinned);
    log::info!("admin interface on tcp {admin}");
}

/// What was bound, who serves it, and what it can hold. The admin interface may have so many connections.
fn describe_listeners(listeners: &[Listener], admin: usize, cores: &[CoreId], pinned: bool) {
    let mut worker = 0;
    for listener in listeners {
        let threads = listener.sources.len();
        let mine: Vec<_> = (worker..worker + threads).collect();
        worker += threads;
        let placed = if pinned {
            let on: Vec<_> = mine
                .iter()
                .map(|w| cores[w % cores.len()].id.to_string())
                .collect();
            format!(
                "on core{} {}",
                if threads == 1 { "" } else { "s" },
                on.join(" ")
            )
        } else {
            "not pinned".into()
        };
        let plural = if threads == 1 { "" } else { "s" };
        log::info!(
            "listening on {}, {threads} worker{plural} {placed}",
            listener.address
        );
        match listener.capacity {
            Capacity::ReceiveBuffer { asked, granted } if granted < asked => log::warn!(
                "receive buffer: {asked} bytes asked, {granted} granted a worker; a burst may be lost. \
                 Raise it with: sysctl -w net.core.rmem_max={asked}"
            ),
            Capacity::ReceiveBuffer { asked, granted } => {
                log::info!("receive buffer: {asked} bytes asked, {granted} granted a worker");
            }
            Capacity::Datagrams(queue) => log::info!(
                "receive queue: {queue} datagrams, then senders wait or are refused; raise it before the \
                 start with: sysctl -w net.unix.max_dgram_qlen=512"
            ),
            Capacity::Streams {
                connections,
                parting: Parting::Lines { max },
            } => log::info!("at most {connections} connections, lines of {max} bytes"),
            Capacity::Streams {
                connections,
                parting: Parting::Lengths { max },
            } => log::info!("at most {connections} connections, packets of {max} bytes"),
        }
    }
    if let Some(line) = too_few_descriptors(listeners, admin) {
        log::warn!("{line}");
    }
}

/// What to say when not all connections that are allowed can be open at once.
fn too_few_descriptors(listeners: &[Listener], admin: usize) -> Option<String> {
    let connections = |listener: &Listener| match listener.capacity {
        Capacity::Streams { connections, .. } => Some(connections as u64),
        _ => None,
    };
    let streams: Vec<_> = listeners.iter().filter_map(connections).collect();
    // Without streams nobody raised it, and a handful is enough.
    if streams.is_empty() {
        return None;
    }
    let limit = raise_descriptors().ok()?;
    let sources: usize = listeners.iter().map(|l| l.sources.len()).sum();
    let others = kept_back(limit) + admin as u64 + 3 * sources as u64;
    let needed = streams.iter().sum::<u64>() + others;
    (needed > limit).then(|| {
        format!(
            "open descriptors: {limit} at most, {needed} needed when every connection that \
             `streamConnections` allows is open: about {} fit, others will wait; raise the limit (ulimit -n, \
             LimitNOFILE= in a unit of systemd) or lower `streamConnections`",
            limit.saturating_sub(others)
        )
    })
}

/// A command that sends a metric there.
fn first_metric(address: &Address) -> String {
    let line = "printf 'hello:1|c\\n'";
    let device = |kind, address: SocketAddr| {
        let host = match address.ip() {
            ip if ip.is_unspecified() => "127.0.0.1".into(),
            ip => ip.to_string(),
        };
        format!("/dev/{kind}/{host}/{} (in bash)", address.port())
    };
    match address {
        Address::Udp(address) => format!("printf 'hello:1|c' >{}", device("udp", *address)),
        Address::Tcp(address) => format!("{line} >{}", device("tcp", *address)),
        // A length of 9 in front of it.
        Address::Unixstream(path) => format!(
            "printf '\\011\\0\\0\\0hello:1|c' | socat -u - UNIX-CONNECT:{}",
            path.display()
        ),
        Address::Unix(path) => format!("{line} | socat -u - UNIX-CONNECT:{}", path.display()),
        Address::Unixgram(path) => format!("{line} | socat -u - UNIX-SENDTO:{}", path.display()),
    }
}
