//! Typed values -> the options of the wings; relations between settings are settled here.

mod librato;
mod proxy;

pub(super) use proxy::proxy;

use super::check::{Backend, Checker, Server, Typed, Values};
use super::coerce::shown;
use super::environment::Environment;
use super::value::Value;
use super::{Config, Place, settings};
use crate::deliver::{self, console, graphite, outbox, repeater, spool};
use crate::ingest::mapping::Mapping;
use crate::ingest::source::stream::{At, Parting};
use crate::ingest::source::udp::Steering;
use crate::ingest::source::{Listen, stream, udp, unixgram};
use crate::runtime::log;
use crate::runtime::privilege::Identity;
use crate::{admin, flush, ingest, state, takeover};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Builds everything; what cannot work together is added to the checker's problems.
pub(super) fn config(
    values: &Values,
    environment: &Environment,
    checker: &mut Checker<'_>,
) -> Config {
    let ingest = ingest_options(values, checker);
    let listeners = listeners(values, checker);
    let mut flush = flush_options(values, &ingest, checker);
    let backends = backends(values, &flush, environment, checker);
    flush.keep_distributions =
        (backends.iter()).any(|backend| matches!(backend, deliver::Backend::Librato(_)));
    let state = state_options(values, &ingest, checker);
    let outbox = outbox_limits(values);
    let memory_limit = memory_limit(values, outbox, backends.len(), checker);
    Config {
        identity: identity(values, checker),
        threads: number(values, "threads").map(|threads| threads as usize),
        pin: flag(values, "pinThreads").unwrap_or(true),
        listeners,
        flush,
        backends,
        ingest,
        stop_deadline: number(values, "stopDeadline")
            .map_or(super::STOP_DEADLINE, Duration::from_millis),
        outbox,
        spool: spool_options(values, checker),
        max_names: most(values, "maxNames", ingest::NAMES_MAX),
        memory_limit,
        state,
        takeover: text(values, "takeoverSocket")
            .map(|path| takeover::Options { path: path.into() }),
        admin: admin_options(values),
        log: log_options(values),
        title: text(values, "title"),
        watch: flag(values, "automaticConfigReload").unwrap_or(true),
    }
}

/// Who the process is to be. `None` also where nobody looks for users.
fn identity(values: &Values, checker: &mut Checker<'_>) -> Option<Identity> {
    let group = text(values, "group");
    let Some(user) = text(values, "user") else {
        if let Some((_, place)) = values.get("group") {
            let hint = "write user, too";
            checker.warn(*place, "group", "has no effect without user", hint);
        }
        return None;
    };
    if !checker.looks {
        return None;
    }
    match Identity::find(&user, group.as_deref()) {
        Ok(identity) => Some(identity),
        Err(unknown) => {
            let key = if unknown.group { "group" } else { "user" };
            let place = values.get(key).map(|(_, place)| *place);
            checker.problem(place, key, unknown.what, unknown.hint);
            None
        }
    }
}

/// A limit, of which 0 is none.
fn most(values: &Values, key: &str, default: usize) -> usize {
    match number(values, key) {
        None => default,
        Some(0) => usize::MAX,
        Some(most) => usize::try_from(most).unwrap_or(usize::MAX),
    }
}

/// The limit of memory. Flushes that wait are memory too, and are not let go for it.
fn memory_limit(
    values: &Values,
    outbox: outbox::Limits,
    backends: usize,
    checker: &mut Checker<'_>,
) -> Option<u64> {
    let Some((Typed::Number(limit), place)) = values.get("memoryLimit") else {
        return None;
    };
    let waiting = (outbox.bytes as u64).saturating_mul(backends as u64);
    if *limit <= waiting {
        let message = format!(
            "{limit} bytes are no more than flushes may take that wait for backends ({waiting})"
        );
        let hint = "lower outboxBytes, or names find no room whenever a backend is away";
        checker.warn(*place, "memoryLimit", message, hint);
    }
    Some(*limit)
}

fn outbox_limits(values: &Values) -> outbox::Limits {
    let default = outbox::Limits::default();
    outbox::Limits {
        flushes: number(values, "outboxFlushes").map_or(default.flushes, |count| count as usize),
        bytes: number(values, "outboxBytes").map_or(default.bytes, |bytes| bytes as usize),
    }
}

/// Bytes of disk when the file does not say.
const SPOOL_BYTES: u64 = 1 << 30;

/// The spool. That it cannot be used now is a warning, for the same reasons as with the state file.
fn spool_options(values: &Values, checker: &mut Checker<'_>) -> Option<spool::Options> {
    const KEY: &str = "spoolDir";
    let Some((Typed::Text(written), place)) = values.get(KEY) else {
        return None;
    };
    let directory = PathBuf::from(written);
    if checker.looks
        && let Some((what, hint)) = spool::obstacle(&directory)
    {
        checker.warn(*place, KEY, what, hint);
    }
    Some(spool::Options {
        directory,
        bytes: number(values, "spoolBytes").unwrap_or(SPOOL_BYTES),
    })
}

/// The state file. That nothing can be written there now is a warning: its directory may be made at the start
/// of the service, or be another user's.
fn state_options(
    values: &Values,
    ingest: &ingest::Options,
    checker: &mut Checker<'_>,
) -> Option<state::Options> {
    const KEY: &str = "stateFile";
    let Some((Typed::Text(written), place)) = values.get(KEY) else {
        return None;
    };
    let path = PathBuf::from(written);
    let is_directory = || path.is_dir();
    if path.file_name().is_none() || written.ends_with('/') || checker.looks && is_directory() {
        let hint = "write a file in it, e.g. \"/var/lib/statsd-fast/state\"";
        checker.problem(*place, KEY, format!("{written:?} is a directory"), hint);
    } else if checker.looks
        && let Some(obstacle) = state::file::obstacle(&path)
    {
        checker.warn(*place, KEY, obstacle.what, obstacle.hint);
    }
    Some(state::Options {
        path,
        clean_names: ingest.sanitize_names,
        max_age_s: number(values, "stateMaxAge")
            .map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX)),
    })
}

fn admin_options(values: &Values) -> admin::Options {
    let default = admin::Options::default();
    admin::Options {
        address: text(values, "mgmt_address").unwrap_or(default.address),
        port: number(values, "mgmt_port").map_or(default.port, narrow),
        connections: number(values, "mgmt_connections")
            .map_or(default.connections, |count| count as usize),
        healthy: text(values, "healthStatus").is_none_or(|status| status == "up"),
    }
}

fn log_options(values: &Values) -> log::Options {
    let default = log::Syslog::default();
    let syslog = text(values, "log.backend").is_some_and(|backend| backend == "syslog");
    log::Options {
        debug: flag(values, "debug").unwrap_or(false),
        dump: flag(values, "dumpMessages").unwrap_or(false),
        syslog: syslog.then(|| log::Syslog {
            socket: text(values, "log.socket").map_or(default.socket, PathBuf::from),
            application: text(values, "log.application").unwrap_or(default.application),
            level: text(values, "log.level")
                .and_then(|name| settings::LOG_LEVELS.iter().position(|known| *known == name))
                .map_or(default.level, |severity| severity as u8),
        }),
    }
}

fn ingest_options(values: &Values, checker: &mut Checker<'_>) -> ingest::Options {
    let default = ingest::Options::default();
    let sanitize_names = flag(values, "keyNameSanitize").unwrap_or(default.sanitize_names);
    let seconds =
        |name| number(values, name).map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
    ingest::Options {
        dialect: match text(values, "dialect").as_deref() {
            Some("statsd") => ingest::Dialect::Statsd,
            _ => default.dialect,
        },
        sanitize_names,
        mapping: mapping(values, sanitize_names, checker),
        name_tags: flag(values, "nameTags").unwrap_or(default.name_tags),
        exact_samples: number(values, "exactSamples")
            .map_or(default.exact_samples, |samples| samples as usize),
        max_name_length: most(values, "maxNameLength", default.max_name_length),
        max_set_members: most(values, "maxSetMembers", default.max_set_members),
        stamps: ingest::Stamps {
            max_age: seconds("timestampMaxAge").unwrap_or(default.stamps.max_age),
            max_ahead: seconds("timestampMaxAhead").unwrap_or(default.stamps.max_ahead),
        },
    }
}

/// The rules for names, with a warning for those that cannot do what they say.
fn mapping(values: &Values, sanitize: bool, checker: &mut Checker<'_>) -> Mapping {
    let Some((Typed::Mappings(rules), _)) = values.get("mappings") else {
        return Mapping::default();
    };
    for (at, (rule, place)) in rules.iter().enumerate() {
        let path = format!("mappings[{at}]");
        if let Some(first) = rules[..at].iter().position(|(it, _)| it.covers(rule)) {
            let message = format!("is never used: mappings[{first}] takes the same names first");
            checker.warn(*place, &path, message, "take one of them out");
        }
        if !sanitize {
            continue;
        }
        if let Some(unclean) = rule.unclean_match() {
            let message = format!("matches nothing: a clean name has no {unclean:?}");
            let hint =
                "names are cleaned before rules see them (keyNameSanitize), and have no tags then";
            checker.warn(*place, &format!("{path}.match"), message, hint);
        }
        if let Some(unclean) = rule.unclean_outcome() {
            let message = format!("what it makes is cleaned of {unclean:?} (keyNameSanitize)");
            let hint = "write letters, digits, _ - and . alone";
            checker.warn(*place, &path, message, hint);
        }
    }
    Mapping::new(rules.iter().map(|(rule, _)| rule.clone()).collect())
}

/// Shortest time between two reports of the busiest names: each asks every worker.
const KEY_FLUSH_MS_MIN: u64 = 10;

fn flush_options(
    values: &Values,
    ingest: &ingest::Options,
    checker: &mut Checker<'_>,
) -> flush::Options {
    if let Some((Typed::Number(every), place)) = values.get("keyFlush.interval")
        && (1..KEY_FLUSH_MS_MIN).contains(every)
    {
        let message = format!("{every} ms is shorter than {KEY_FLUSH_MS_MIN}");
        let hint = "write milliseconds, e.g. 60000 for a minute; 0 is never";
        checker.problem(*place, "keyFlush.interval", message, hint);
    }
    let default = flush::Options::default();
    // deleteIdleStats stands in for those that were not written; an explicit false wins.
    let idle = flag(values, "deleteIdleStats").unwrap_or(false);
    let delete = |name| flag(values, name).unwrap_or(idle);
    flush::Options {
        interval: number(values, "flushInterval").map_or(default.interval, Duration::from_millis),
        align: flag(values, "flushAlign").unwrap_or(default.align),
        key_flush: number(values, "keyFlush.interval")
            .filter(|every| *every > 0)
            .map(|every| flush::KeyFlush {
                every: Duration::from_millis(every),
                percent: number(values, "keyFlush.percent").map_or(100, |percent| percent as u8),
                file: text(values, "keyFlush.log").map(PathBuf::from),
            }),
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
        idle_flushes: number(values, "idleFlushes").map_or(default.idle_flushes, |it| it as u32),
        prefix_stats: text(values, "prefixStats").unwrap_or(default.prefix_stats),
        exact_samples: ingest.exact_samples,
        max_set_members: ingest.max_set_members,
        ..default
    }
}

fn listeners(values: &Values, checker: &mut Checker<'_>) -> Vec<Listen> {
    let Some((Typed::Servers(listed), place)) = values.get("servers") else {
        return listener(
            values,
            values,
            "",
            values.get("server").map(|(_, place)| *place),
            checker,
        )
        .into_iter()
        .collect();
    };
    for key in [
        "port",
        "address",
        "address_ipv6",
        "server",
        "socket",
        "socket_mod",
    ] {
        if let Some((_, at)) = values.get(key) {
            let hint = "write it into the entries of servers";
            checker.warn(*at, key, "is not used, since servers is written", hint);
        }
    }
    let mut listeners: Vec<Listen> = Vec::new();
    for one in listed {
        let Some(listen) = listener(&one.values, values, &one.path, Some(one.place), checker)
        else {
            continue;
        };
        if let Some(same) = taken(&listen)
            && listeners
                .iter()
                .any(|other| taken(other).as_ref() == Some(&same))
        {
            let what = match same {
                (0, Some(path), _) => format!("the socket {path}"),
                (.., port) => format!("port {port} of the same address"),
            };
            checker.problem(
                one.place,
                &one.path,
                format!("{what} is taken by an earlier listener"),
                "give each listener a port or a path of its own",
            );
        }
        listeners.push(listen);
    }
    if listeners.is_empty() && checker.problems.is_empty() {
        checker.problem(
            *place,
            "servers",
            "nothing would listen",
            "add a listener with server: \"./servers/udp\"",
        );
    }
    listeners
}

/// What no two listeners can have: protocol, address or path, port. `None` when the kernel chooses.
fn taken(listen: &Listen) -> Option<(u8, Option<String>, u16)> {
    let path = |path: &Path| Some((0, Some(path.to_string_lossy().into_owned()), 0));
    let port = |protocol, address: &Option<String>, port| {
        (port != 0).then(|| (protocol, address.clone(), port))
    };
    match listen {
        Listen::Udp(options) => port(1, &options.address, options.port),
        Listen::Stream(stream::Options {
            at: At::Tcp { address, port: at },
            ..
        }) => port(2, address, *at),
        Listen::Stream(stream::Options {
            at: At::Unix { path: at, .. },
            ..
        }) => path(at),
        Listen::Unixgram(options) => path(&options.path),
    }
}

/// One listener; `None` when a problem was found.
fn listener(
    values: &Values,
    top: &Values,
    path: &str,
    place: Option<Place>,
    checker: &mut Checker<'_>,
) -> Option<Listen> {
    let (server, named) = match values.get("server") {
        Some((Typed::Server(server, socket), _)) => (*server, socket.as_ref()),
        _ => (Server::Udp, None),
    };
    let key = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    let socket = named.cloned().or_else(|| text(values, "socket"));
    let socket = socket.map(PathBuf::from);
    if named.is_some()
        && let Some((_, at)) = values.get("socket")
    {
        let hint = "take it out, or write a path in one of the two alone";
        checker.warn(
            *at,
            &key("socket"),
            "is not used: server names a path",
            hint,
        );
    }
    let mode = number(values, "socket_mod").map(|mode| mode as u32);
    let default = udp::Options::default();
    let receive_buffer =
        number(top, "receiveBuffer").map_or(default.receive_buffer, |bytes| bytes as usize);
    let max_datagram =
        number(top, "maxDatagram").map_or(default.max_datagram, |bytes| bytes as usize);
    let max_connections = number(top, "streamConnections").map_or(1024, |count| count as usize);
    let address = text(values, "address");
    let port = number(values, "port").map_or(default.port, narrow);
    match server {
        Server::Udp => {
            if let Some((_, at)) = values.get("socket") {
                checker.warn(
                    *at,
                    &key("socket"),
                    "is not used by ./servers/udp",
                    "for a unix socket write server: \"./servers/tcp\" or \"./servers/unixgram\"",
                );
            }
            Some(Listen::Udp(udp::Options {
                address,
                port,
                ipv6: flag(values, "address_ipv6").unwrap_or(default.ipv6),
                receive_buffer,
                max_datagram,
                steering: match text(top, "steering").as_deref() {
                    Some("spread") => Steering::Spread,
                    Some("cpu") => Steering::Cpu,
                    _ => Steering::Flow,
                },
                joined: flag(top, "udpGro").unwrap_or(default.joined),
            }))
        }
        Server::Tcp => Some(Listen::Stream(stream::Options {
            at: match socket {
                Some(path) => At::Unix { path, mode },
                None => At::Tcp { address, port },
            },
            parting: Parting::Lines {
                max: number(top, "streamLine").map_or(65_535, |bytes| bytes as usize),
            },
            max_connections,
        })),
        Server::Unixgram | Server::Unixstream => {
            let is_stream = server == Server::Unixstream;
            let Some(path) = socket else {
                let module = if is_stream { "unixstream" } else { "unixgram" };
                checker.problem(
                    place,
                    &key("socket"),
                    format!("is missing: ./servers/{module} listens on a unix socket"),
                    "write e.g. socket: \"/run/statsd-fast/statsd.sock\"",
                );
                return None;
            };
            Some(if is_stream {
                Listen::Stream(stream::Options {
                    at: At::Unix { path, mode },
                    parting: Parting::Lengths { max: max_datagram },
                    max_connections,
                })
            } else {
                Listen::Unixgram(unixgram::Options {
                    path,
                    mode,
                    max_datagram,
                })
            })
        }
    }
}

fn backends(
    values: &Values,
    flush: &flush::Options,
    environment: &Environment,
    checker: &mut Checker<'_>,
) -> Vec<deliver::Backend> {
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
                format!("{} is no host name", shown(&Value::String(host.clone()))),
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
    let repeats = listed.contains(&Backend::Repeater);
    match values.get("repeater") {
        Some((Typed::Targets(targets), place)) if !targets.is_empty() && !repeats => {
            let hint = "add \"./backends/repeater\" to backends";
            checker.warn(
                *place,
                "repeater",
                "is not used: no backend is the repeater",
                hint,
            );
        }
        Some((Typed::Targets(targets), _)) if !targets.is_empty() => {}
        _ if repeats => {
            let hint = "write repeater: [{ host: \"other.example.org\", port: 8125 }]";
            checker.warn(
                place,
                "backends",
                "the repeater has nobody to repeat to",
                hint,
            );
        }
        _ => {}
    }
    librato::addresses(values, checker);
    if listed.contains(&Backend::Librato) {
        librato::credentials(values, place, checker);
    } else {
        librato::unused(values, checker);
    }
    let build = |backend: &Backend| match backend {
        Backend::Console => deliver::Backend::Console(console_options(values)),
        Backend::Repeater => deliver::Backend::Repeater(repeater_options(values)),
        Backend::Graphite => deliver::Backend::Graphite(graphite_options(values)),
        Backend::Librato => {
            deliver::Backend::Librato(Box::new(librato::options(values, flush, environment)))
        }
    };
    listed.iter().map(build).collect()
}

fn console_options(values: &Values) -> console::Options {
    console::Options {
        layout: match text(values, "console.format").as_deref() {
            Some("json") => console::Layout::Json,
            _ if flag(values, "console.prettyprint").unwrap_or(false) => console::Layout::Pretty,
            _ => console::Layout::Node,
        },
    }
}

fn repeater_options(values: &Values) -> repeater::Options {
    repeater::Options {
        targets: match values.get("repeater") {
            Some((Typed::Targets(targets), _)) => targets.clone(),
            _ => Vec::new(),
        },
        // Whatever is neither of these is udp4 to the reference.
        protocol: match text(values, "repeaterProtocol").as_deref() {
            Some("tcp") => repeater::Protocol::Tcp,
            Some("udp6") => repeater::Protocol::Udp6,
            _ => repeater::Protocol::Udp4,
        },
    }
}

fn graphite_options(values: &Values) -> graphite::Options {
    let default = graphite::Options::default();
    let protocol = match text(values, "graphiteProtocol").as_deref() {
        Some("pickle") => graphite::Protocol::Pickle,
        _ => graphite::Protocol::Text,
    };
    let port = match protocol {
        graphite::Protocol::Text => number(values, "graphitePort").map_or(default.port, narrow),
        graphite::Protocol::Pickle => number(values, "graphitePicklePort").map_or(2004, narrow),
    };
    graphite::Options {
        host: text(values, "graphiteHost"),
        port,
        protocol,
        persistent: flag(values, "graphite.persistent").unwrap_or(default.persistent),
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
        tags_in_path: text(values, "graphite.tags").is_some_and(|tags| tags == "name"),
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
