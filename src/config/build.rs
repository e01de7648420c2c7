//! Typed values -> the options of the wings; relations between settings are settled here.

use super::check::{Backend, Checker, Server, Typed, Values};
use super::{Config, Place};
use crate::deliver::{self, console, graphite};
use crate::ingest::source::udp;
use crate::{flush, ingest};
use std::time::Duration;

/// Builds everything; what cannot work together is added to the checker's problems.
pub(super) fn config(values: &Values, checker: &mut Checker<'_>) -> Config {
    let ingest = ingest_options(values, checker);
    Config {
        threads: number(values, "threads").map(|threads| threads as usize),
        pin: flag(values, "pinThreads").unwrap_or(true),
        udp: listeners(values, checker),
        flush: flush_options(values, &ingest),
        backends: backends(values, checker),
        ingest,
        stop_deadline: number(values, "stopDeadline")
            .map_or(super::STOP_DEADLINE, Duration::from_millis),
        debug: flag(values, "debug").unwrap_or(false),
    }
}

fn ingest_options(values: &Values, checker: &mut Checker<'_>) -> ingest::Options {
    let default = ingest::Options::default();
    if let Some((Typed::Text(name), place)) = values.get("dialect")
        && name == "auto"
    {
        checker.warn(
            *place,
            "dialect",
            "the DogStatsD additions are not in this version, auto is as statsd",
            "",
        );
    }
    ingest::Options {
        sanitize_names: flag(values, "keyNameSanitize").unwrap_or(default.sanitize_names),
        exact_samples: number(values, "exactSamples")
            .map_or(default.exact_samples, |samples| samples as usize),
        ..default
    }
}

fn flush_options(values: &Values, ingest: &ingest::Options) -> flush::Options {
    let default = flush::Options::default();
    // deleteIdleStats stands in for those that were not written; an explicit false wins.
    let idle = flag(values, "deleteIdleStats").unwrap_or(false);
    let delete = |name| flag(values, name).unwrap_or(idle);
    flush::Options {
        interval: number(values, "flushInterval").map_or(default.interval, Duration::from_millis),
        thresholds: match values.get("percentThreshold") {
            Some((Typed::Thresholds(thresholds), _)) => thresholds.clone(),
            _ => default.thresholds,
        },
        histogram: match values.get("histogram") {
            Some((Typed::Histogram(rules), _)) => rules.clone(),
            _ => default.histogram,
        },
        timer_fields: match values.get("calculatedTimerMetrics") {
            Some((Typed::Fields(fields), _)) => Some(fields.clone()),
            _ => default.timer_fields,
        },
        delete_counters: delete("deleteCounters"),
        delete_timers: delete("deleteTimers"),
        delete_sets: delete("deleteSets"),
        delete_gauges: delete("deleteGauges"),
        gauges_max_ttl: number(values, "gaugesMaxTTL").map_or(default.gauges_max_ttl, |ttl| {
            u32::try_from(ttl).unwrap_or(u32::MAX)
        }),
        prefix_stats: text(values, "prefixStats").unwrap_or(default.prefix_stats),
        exact_samples: ingest.exact_samples,
    }
}

fn listeners(values: &Values, checker: &mut Checker<'_>) -> Vec<udp::Options> {
    let mut udp: Vec<udp::Options> = Vec::new();
    // Where to point at when nothing is left.
    let last;
    if let Some((Typed::Servers(listeners), place)) = values.get("servers") {
        last = Some((*place, "servers"));
        for listener in listeners {
            let server = listener.values.get("server").map(|(_, place)| *place);
            let path = format!("{}.server", listener.path);
            let Some(options) =
                listener_options(&listener.values, values, (server, path.as_str()), checker)
            else {
                continue;
            };
            let taken = options.port != 0
                && udp
                    .iter()
                    .any(|other| (&other.address, other.port) == (&options.address, options.port));
            if taken {
                let message = format!(
                    "port {} of the same address is taken by an earlier listener",
                    options.port
                );
                checker.problem(
                    listener.place,
                    &listener.path,
                    message,
                    "give each listener a port of its own",
                );
            }
            udp.push(options);
        }
    } else {
        let place = values.get("server").map(|(_, place)| *place);
        last = place.map(|place| (place, "server"));
        udp.extend(listener_options(values, values, (place, "server"), checker));
    }
    if udp.is_empty() && checker.problems.is_empty() {
        let (place, key) = last.map_or((None, ""), |(place, key)| (Some(place), key));
        checker.problem(
            place,
            key,
            "nothing would listen",
            "add a listener with server: \"./servers/udp\"",
        );
    }
    udp
}

/// One listener; `None` when it is of a kind that this version leaves out.
fn listener_options(
    values: &Values,
    top: &Values,
    server: (Option<Place>, &str),
    checker: &mut Checker<'_>,
) -> Option<udp::Options> {
    if let Some((Typed::Server(Server::Tcp), _)) = values.get("server") {
        checker.warn(
            server.0,
            server.1,
            "TCP is not in this version, this listener is left out",
            "",
        );
        return None;
    }
    let default = udp::Options::default();
    Some(udp::Options {
        address: text(values, "address"),
        port: number(values, "port").map_or(default.port, narrow),
        ipv6: flag(values, "address_ipv6").unwrap_or(default.ipv6),
        receive_buffer: number(top, "receiveBuffer")
            .map_or(default.receive_buffer, |bytes| bytes as usize),
        max_datagram: number(top, "maxDatagram")
            .map_or(default.max_datagram, |bytes| bytes as usize),
    })
}

fn backends(values: &Values, checker: &mut Checker<'_>) -> Vec<deliver::Backend> {
    let (listed, place) = match values.get("backends") {
        Some((Typed::Backends(listed), place)) => (listed.as_slice(), Some(*place)),
        _ => (&[Backend::Graphite][..], None),
    };
    // With problems about, the backends or the host may only seem to be missing.
    if checker.problems.is_empty() {
        if listed.is_empty() {
            checker.warn(
                place,
                "backends",
                "no backend is left: what is received is sent nowhere",
                "",
            );
        }
        if let Some((Typed::Text(host), place)) = values.get("graphiteHost")
            && (host.contains("//") || host.matches(':').count() == 1)
        {
            let hint = "write the name or address alone; the port goes into graphitePort";
            checker.warn(
                *place,
                "graphiteHost",
                format!("{host:?} is no host name"),
                hint,
            );
        }
        if listed.contains(&Backend::Graphite) && !values.contains_key("graphiteHost") {
            let hint = "write graphiteHost: \"carbon.example.org\", or \
                        backends: [\"./backends/console\"] to see the values";
            checker.warn(
                None,
                "graphiteHost",
                "is missing: nothing will be sent to Graphite",
                hint,
            );
        }
    }
    let build = |backend: &Backend| match backend {
        Backend::Console => deliver::Backend::Console(console::Options::default()),
        Backend::Graphite => deliver::Backend::Graphite(graphite_options(values)),
    };
    listed.iter().map(build).collect()
}

fn graphite_options(values: &Values) -> graphite::Options {
    let default = graphite::Options::default();
    graphite::Options {
        host: text(values, "graphiteHost"),
        port: number(values, "graphitePort").map_or(default.port, narrow),
        namespace: match values.get("graphite.legacyNamespace") {
            Some((Typed::Namespace(namespace), _)) => *namespace,
            _ => default.namespace,
        },
        global_prefix: text(values, "graphite.globalPrefix").unwrap_or(default.global_prefix),
        prefix_counter: text(values, "graphite.prefixCounter").unwrap_or(default.prefix_counter),
        prefix_timer: text(values, "graphite.prefixTimer").unwrap_or(default.prefix_timer),
        prefix_gauge: text(values, "graphite.prefixGauge").unwrap_or(default.prefix_gauge),
        prefix_set: text(values, "graphite.prefixSet").unwrap_or(default.prefix_set),
        global_suffix: text(values, "graphite.globalSuffix"),
        prefix_stats: text(values, "prefixStats").unwrap_or(default.prefix_stats),
        flush_counts: flag(values, "flush_counts").unwrap_or(default.flush_counts),
        sanitize_names: !flag(values, "keyNameSanitize").unwrap_or(true),
    }
}

fn flag(values: &Values, name: &str) -> Option<bool> {
    match values.get(name) {
        Some((Typed::Flag(flag), _)) => Some(*flag),
        _ => None,
    }
}

fn number(values: &Values, name: &str) -> Option<u64> {
    match values.get(name) {
        Some((Typed::Number(number), _)) => Some(*number),
        _ => None,
    }
}

fn text(values: &Values, name: &str) -> Option<String> {
    match values.get(name) {
        Some((Typed::Text(text), _)) => Some(text.clone()),
        _ => None,
    }
}

/// The table's limits of a port are those of `u16`.
fn narrow(port: u64) -> u16 {
    u16::try_from(port).expect("a checked port")
}
