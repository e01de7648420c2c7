//! Every key a configuration file may have: one row a key. Those of the proxy are in [`proxy`].

pub mod proxy;

use std::fmt;

/// One key of the configuration file.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key; `group.key` stands inside the object `group`.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// The default as one would write it; `undefined` where leaving it out means something of its own.
    pub default: &'static str,
    /// What it is for, in a sentence.
    pub help: &'static str,
    /// A running server can take over a new value of it.
    pub reload: bool,
    /// Whether this version does what it says.
    pub effect: Effect,
}

/// Whether a setting does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It works.
    Now,
    /// Known and checked, but this version does nothing with it; using it is a warning.
    Later,
    /// StatsD itself does nothing with it; using it is a warning.
    Never,
}

/// What values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A user or group: a name or a number.
    Account,
    /// Anything at all; not looked into.
    Any,
    /// A list of backend names.
    Backends,
    /// One of these texts; falsy is the default.
    Choice(&'static [&'static str]),
    /// Exactly `true` or `false`.
    Exact,
    /// The mode of a file: a number, or octal digits as a text.
    FileMode,
    /// Anything: it counts as JavaScript's truth of it.
    Flag,
    /// A number of processes, or `auto` for one on each core; falsy is none.
    Forks,
    /// Histogram rules.
    Histogram,
    /// A name for this machine; what is falsy is none.
    Host,
    /// Rules for names.
    Mappings,
    /// The three-way `graphite.legacyNamespace`.
    Namespace,
    /// A list of `{ host, port, adminport }`.
    Nodes,
    /// A number within limits; a numeric text counts as one.
    Number(Range),
    /// A piece of a metric name; only `undefined` is the default.
    Part,
    /// A regular expression with a group, or the text of one; falsy is none.
    Pattern,
    /// A list of them; what is no list is none.
    Patterns,
    /// Percentiles.
    Percentiles,
    /// First part of names: as a title; a dot comes behind it.
    Prefix,
    /// Seconds and fractions of them; falsy is the default.
    Seconds,
    /// A text that no message shows; falsy is none.
    Secret,
    /// One server module.
    Server,
    /// Several listeners.
    Servers,
    /// Anything: its JavaScript text counts; only `undefined` is the default.
    Spelled,
    /// As a flag, but `null` is the default.
    Switch,
    /// An object of plain values.
    Tags,
    /// A text; falsy is the default.
    Text,
    /// A list of `{ host, port }`; falsy is none.
    Targets,
    /// Anything: its JavaScript text counts; what is falsy is none.
    Title,
    /// Names of timer fields.
    TimerFields,
    /// Flushes a gauge lives; what is no whole number above 1 is 1.
    Ttl,
    /// The address of a server; falsy is the default. No message shows it: a password may stand in it.
    Web,
}

/// The limits of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// What is counted, e.g. `number of milliseconds`.
    pub what: &'static str,
    /// The least value.
    pub min: u64,
    /// The greatest value.
    pub max: u64,
    /// Fractions are rounded; without, they are an error.
    pub rounded: bool,
    /// Zero and other falsy values mean the default, as in the reference.
    pub falsy_is_default: bool,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} from {} to {}", self.what, self.min, self.max)
    }
}

const fn number(what: &'static str, min: u64, max: u64) -> Range {
    Range {
        what,
        min,
        max,
        rounded: false,
        falsy_is_default: false,
    }
}

/// A port of the reference: a number 0 is the default, only the text "0" lets the kernel choose.
const fn port(min: u64) -> Kind {
    Kind::Number(Range {
        falsy_is_default: true,
        ..number("port", min, 65_535)
    })
}

const fn milliseconds(min: u64, max: u64, falsy_is_default: bool) -> Kind {
    Kind::Number(Range {
        rounded: true,
        falsy_is_default,
        ..number("number of milliseconds", min, max)
    })
}

const DAY_MS: u64 = 86_400_000;

/// Keys that stay as they are until a restart, unless `reloaded()` says otherwise.
const fn row(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Setting {
    Setting {
        name,
        kind,
        default,
        help,
        reload: false,
        effect: Effect::Now,
    }
}

impl Setting {
    const fn reloaded(self) -> Self {
        Self {
            reload: true,
            ..self
        }
    }

    const fn never(self) -> Self {
        Self {
            effect: Effect::Never,
            ..self
        }
    }
}

/// All keys, by subject.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    row("port", port(0), "8125", "Port to listen on; the text \"0\" lets the kernel choose one."),
    row("address", Kind::Text, "undefined", "Address to listen on; without it, all."),
    row("address_ipv6", Kind::Flag, "false", "Listen on an IPv6 socket; without an address it takes IPv4 too."),
    row("server", Kind::Server, "\"./servers/udp\"", "What to listen for: ./servers/udp, tcp, unixgram or unixstream, or unix:///path as DogStatsD's clients write it."),
    row("servers", Kind::Servers, "undefined", "Several listeners, each an object with the keys above and socket, socket_mod; replaces them."),
    row("socket", Kind::Text, "undefined", "Path of a unix socket, for ./servers/tcp (in place of the port), unixgram and unixstream."),
    row("socket_mod", Kind::FileMode, "undefined", "File mode of that socket, e.g. \"0770\"; without it, what the umask leaves."),
    row("streamConnections", Kind::Number(number("whole number", 1, 65_535)), "1024", "Connections a stream listener holds open at most."),
    row("streamLine", Kind::Number(number("number of bytes", 64, 65_535)), "65535", "Longest line a stream may send, in bytes."),
    row("mgmt_port", port(0), "8126", "Port of the admin interface; the text \"0\" lets the kernel choose one."),
    row("mgmt_address", Kind::Text, "\"127.0.0.1\"", "Address of the admin interface; anyone who reaches it can delete values."),
    row("mgmt_connections", Kind::Number(number("whole number", 1, 1024)), "32", "Connections the admin interface holds open at most."),
    row("healthStatus", Kind::Choice(&["up", "down"]), "\"up\"", "First answer of the admin interface to `health`."),

    row("flushInterval", milliseconds(10, DAY_MS, true), "10000", "Milliseconds between flushes.").reloaded(),
    row("flushAlign", Kind::Exact, "false", "Flush on multiples of the interval by the wall clock, not by the start.").reloaded(),
    row("percentThreshold", Kind::Percentiles, "[90]", "Percentiles of timers, one or a list; a negative one counts from above.").reloaded(),
    row("calculatedTimerMetrics", Kind::TimerFields, "undefined", "Timer fields to send, e.g. [\"count\", \"upper_percent\"]; without it, all.").reloaded(),
    row("histogram", Kind::Histogram, "undefined", "Histogram rules, each { metric: \"part of a name\", bins: [10, 100, \"inf\"] }; the first match counts.").reloaded(),
    row("deleteIdleStats", Kind::Flag, "false", "Default of the four below.").reloaded(),
    row("deleteCounters", Kind::Flag, "undefined", "Forget counters nobody sent in an interval, in place of sending 0.").reloaded(),
    row("deleteTimers", Kind::Flag, "undefined", "The same for timers.").reloaded(),
    row("deleteSets", Kind::Flag, "undefined", "The same for sets.").reloaded(),
    row("deleteGauges", Kind::Flag, "undefined", "Forget gauges after gaugesMaxTTL flushes, that of their last value included.").reloaded(),
    row("gaugesMaxTTL", Kind::Ttl, "1", "Flushes a gauge lives when gauges are deleted; with 1, +n begins at 0 in each interval.").reloaded(),
    row("idleFlushes", Kind::Number(number("number of flushes", 0, 1_000_000_000)), "0", "Flushes without a value after which any name is forgotten; 0 is never.").reloaded(),
    row("prefixStats", Kind::Spelled, "\"statsd\"", "Namespace of the server's own metrics.").reloaded(),
    row("keyNameSanitize", Kind::Flag, "true", "Clean names: blanks to _, / to -, everything but a-z A-Z 0-9 _ - . ; = removed.").reloaded(),
    row("mappings", Kind::Mappings, "undefined", "Rules for names, the first match counts, each { match, matchType, matchMetricType, name, tags, action }.").reloaded(),
    row("keyFlush.interval", milliseconds(0, DAY_MS, true), "0", "Milliseconds between reports of the busiest names; 0 is never.").reloaded(),
    row("keyFlush.percent", Kind::Number(Range { falsy_is_default: true, rounded: true, ..number("percentage", 0, 100) }), "100", "How many of the names to report.").reloaded(),
    row("keyFlush.log", Kind::Text, "undefined", "File to append the reports to; without it, standard output.").reloaded(),

    row("backends", Kind::Backends, "[\"./backends/graphite\"]", "Where to send: ./backends/graphite, ./backends/console, ./backends/repeater and librato.").reloaded(),
    row("outboxFlushes", Kind::Number(number("whole number", 1, 100_000)), "360", "Flushes that wait for a backend that is away; above, the oldest is dropped.").reloaded(),
    row("outboxBytes", Kind::Number(number("number of bytes", 1 << 20, 1 << 40)), "268435456", "Memory that they may take together, for each backend.").reloaded(),
    row("spoolDir", Kind::Text, "undefined", "Directory for flushes a backend could not take, for later and for the next start; without it, they wait in memory."),
    row("spoolBytes", Kind::Number(number("number of bytes", 1 << 20, 1 << 50)), "1073741824", "Disk that they may take, for each backend; above, the oldest is dropped."),
    row("flush_counts", Kind::Flag, "true", "Graphite: send the count of a counter beside its rate.").reloaded(),
    row("graphiteHost", Kind::Text, "undefined", "Graphite: host of carbon; without it nothing is sent.").reloaded(),
    row("graphitePort", port(1), "2003", "Graphite: port of carbon for the text protocol.").reloaded(),
    row("graphitePicklePort", port(1), "2004", "Graphite: port of carbon for the pickle protocol.").reloaded(),
    row("graphiteProtocol", Kind::Choice(&["text", "pickle"]), "\"text\"", "Graphite: protocol of carbon, text or pickle.").reloaded(),
    row("graphite.persistent", Kind::Exact, "false", "Graphite: keep one connection open in place of a new one for each flush.").reloaded(),
    row("graphite.legacyNamespace", Kind::Namespace, "true", "Graphite: true for stats.NAME and stats_counts.NAME, false for the prefixes below.").reloaded(),
    row("graphite.globalPrefix", Kind::Part, "\"stats\"", "Graphite: first part of every name.").reloaded(),
    row("graphite.prefixCounter", Kind::Part, "\"counters\"", "Graphite: second part of the names of counters.").reloaded(),
    row("graphite.prefixTimer", Kind::Part, "\"timers\"", "Graphite: second part of the names of timers.").reloaded(),
    row("graphite.prefixGauge", Kind::Part, "\"gauges\"", "Graphite: second part of the names of gauges.").reloaded(),
    row("graphite.prefixSet", Kind::Part, "\"sets\"", "Graphite: second part of the names of sets.").reloaded(),
    row("graphite.globalSuffix", Kind::Spelled, "undefined", "Graphite: last part of every name.").reloaded(),
    row("graphite.tags", Kind::Choice(&["carbon", "name"]), "\"carbon\"", "Graphite: tags as carbon's NAME;k=v, or name to make them a part of the path, NAME.k.v.").reloaded(),
    row("console.prettyprint", Kind::Flag, "false", "Console: colours, and nested objects in full.").reloaded(),
    row("console.format", Kind::Choice(&["node", "json"]), "\"node\"", "Console: node for StatsD's own layout, json for one object a line.").reloaded(),
    row("librato.email", Kind::Text, "undefined", "Librato: who signs in; needed.").reloaded(),
    row("librato.token", Kind::Secret, "undefined", "Librato: the API token of that account; needed, and shown nowhere.").reloaded(),
    row("librato.api", Kind::Web, "\"https://metrics-api.librato.com\"", "Librato: address of the service, or of one that speaks as it does; a path goes before its own.").reloaded(),
    row("librato.proxy.uri", Kind::Web, "undefined", "Librato: proxy to reach it through, e.g. \"http://user:password@proxy.example.org:3128\".").reloaded(),
    row("librato.source", Kind::Title, "undefined", "Librato: tag source of measurements, whatever their names have; only what sourceRegex finds goes before it.").reloaded(),
    row("librato.host", Kind::Host, "undefined", "Librato: global tag host; without it tags.host, or the name of this machine; false for none.").reloaded(),
    row("librato.tags", Kind::Tags, "{}", "Librato: global tags; the service uses them where a measurement has no tag of its own.").reloaded(),
    row("librato.sourceRegex", Kind::Pattern, "undefined", "Librato: its first group is the source, and what it matches leaves the name; e.g. /^([^.]+)\\./.").reloaded(),
    row("librato.includeMetrics", Kind::Patterns, "[]", "Librato: send only names that one of these is found in; all, when the list is empty.").reloaded(),
    row("librato.excludeMetrics", Kind::Patterns, "[]", "Librato: send no name that one of these is found in, e.g. [/^test\\./].").reloaded(),
    row("librato.snapTime", Kind::Number(Range { falsy_is_default: true, ..number("number of seconds", 1, 86_400) }), "undefined", "Librato: times are multiples of so many seconds; without it, of flushInterval.").reloaded(),
    row("librato.countersAsGauges", Kind::Switch, "true", "Librato: send the sum of the interval for a counter; false for its running total.").reloaded(),
    row("librato.skipInternalMetrics", Kind::Switch, "true", "Librato: leave out statsd.* and numStats.").reloaded(),
    row("librato.batchSize", Kind::Number(Range { falsy_is_default: true, ..number("whole number", 1, 100_000) }), "500", "Librato: measurements in one post at most; it ends at about 1 MB too.").reloaded(),
    row("librato.retryDelaySecs", Kind::Seconds, "5", "Librato: seconds before the one retry of a post; fractions count.").reloaded(),
    row("librato.postTimeoutSecs", Kind::Seconds, "4", "Librato: seconds a post may take.").reloaded(),
    row("librato.alwaysSuffixPercentile", Kind::Flag, "false", "Librato: name a whole timer NAME.100, as if it were a percentile.").reloaded(),
    row("librato.globalPrefix", Kind::Prefix, "undefined", "Librato: first part of every name, without a dot.").reloaded(),
    row("librato.writeToLegacy", Kind::Flag, "false", "Librato: post to /v1/metrics too, with sources and without tags.").reloaded(),
    row("repeater", Kind::Targets, "[]", "Where the repeater sends every packet, each { host, port }."),
    row("repeaterProtocol", Kind::Text, "\"udp4\"", "How the repeater sends: udp4, udp6 or tcp."),

    row("user", Kind::Account, "undefined", "User to be once sockets are bound, by name or number, when started as root."),
    row("group", Kind::Account, "undefined", "Group to be then; without it, the first group of the user."),
    row("threads", Kind::Number(number("whole number", 1, 1024)), "undefined", "Workers for each listener; without it, one for each core."),
    row("pinThreads", Kind::Exact, "true", "Pin each worker to a core; more workers than cores share them."),
    row("dialect", Kind::Choice(&["auto", "statsd"]), "\"auto\"", "Protocol: auto for StatsD's with the additions of DogStatsD, statsd for the original's to the letter."),
    row("nameTags", Kind::Flag, "false", "Dialect auto: read tags in names, as Telegraf's name,k=v and SignalFx's name[k=v].").reloaded(),
    row("timestampMaxAge", Kind::Number(number("number of seconds", 0, 3_153_600_000)), "3600", "Dialect auto: how far back |T timestamps may lie, in seconds.").reloaded(),
    row("timestampMaxAhead", Kind::Number(number("number of seconds", 0, 3_153_600_000)), "600", "Dialect auto: how far ahead they may lie, in seconds.").reloaded(),
    row("exactSamples", Kind::Number(number("whole number", 1, 1_000_000)), "1024", "Samples of a timer kept exactly in an interval; above, percentiles are within 0.1 %."),
    row("maxNames", Kind::Number(number("whole number", 0, 1 << 31)), "1000000", "Names that senders may bring, all kinds together; new ones above are folded into others; 0: no limit.").reloaded(),
    row("maxNameLength", Kind::Number(number("number of bytes", 0, 1 << 20)), "4096", "Longest name, cleaned and with its tags; longer ones are folded; 0: no limit.").reloaded(),
    row("maxSetMembers", Kind::Number(number("whole number", 0, 1 << 31)), "100000", "Members a set may have in an interval; others are left out; 0: no limit.").reloaded(),
    row("memoryLimit", Kind::Number(Range { falsy_is_default: true, ..number("number of bytes", 16 << 20, 1 << 50) }), "undefined", "Resident memory above which nothing new is taken in; undefined and 0: no limit.").reloaded(),
    // The kernel doubles what is asked for, and counts in an int.
    row("receiveBuffer", Kind::Number(number("number of bytes", 4096, (i32::MAX / 2) as u64)), "16777216", "Receive buffer of each worker's socket."),
    row("maxDatagram", Kind::Number(number("number of bytes", 512, 65_535)), "65535", "Longest datagram taken whole."),
    row("steering", Kind::Choice(&["flow", "spread", "cpu"]), "\"flow\"", "Which worker gets a datagram: flow, by its sender; spread, at random; cpu, on the core that received it."),
    row("udpGro", Kind::Flag, "false", "Take runs of datagrams of one sender and size in one piece (UDP_GRO); drops are counted by the run then."),
    row("stopDeadline", milliseconds(1, 3_600_000, false), "5000", "Milliseconds that stopping may take."),
    row("stateFile", Kind::Text, "undefined", "File that gauges and running totals are kept in for the next start; without it, they begin anew."),
    row("stateMaxAge", Kind::Number(number("number of seconds", 1, 3_153_600_000)), "undefined", "Seconds after which that file is too old to be used; without it, never."),
    row("takeoverSocket", Kind::Text, "undefined", "Path of the unix socket where a process started with --takeover takes the place of this one."),

    row("debug", Kind::Flag, "false", "Log more.").reloaded(),
    row("dumpMessages", Kind::Flag, "false", "Log every line received.").reloaded(),
    row("log.backend", Kind::Choice(&["stdout", "syslog"]), "\"stdout\"", "Where the log goes: stdout or syslog.").reloaded(),
    row("log.application", Kind::Text, "\"statsd\"", "Name of the program in syslog.").reloaded(),
    row("log.level", Kind::Choice(LOG_LEVELS), "\"LOG_INFO\"", "Level in syslog of the lines that dumpMessages logs.").reloaded(),
    row("log.socket", Kind::Text, "\"/dev/log\"", "Path of the syslog socket.").reloaded(),
    row("title", Kind::Title, "undefined", "Title of the process; undefined and false leave it.").reloaded(),
    row("automaticConfigReload", Kind::Flag, "true", "Take over changes of the file while running.").reloaded(),
    row("debugInterval", Kind::Any, "undefined", "Removed from StatsD in 0.6.").never(),
];

/// The severities of syslog from 0 on, by the names `log.level` has for them.
pub(super) const LOG_LEVELS: &[&str] = &[
    "LOG_EMERG",
    "LOG_ALERT",
    "LOG_CRIT",
    "LOG_ERR",
    "LOG_WARNING",
    "LOG_NOTICE",
    "LOG_INFO",
    "LOG_DEBUG",
];

/// The row of a dotted name.
pub(super) fn find(table: &'static [Setting], name: &str) -> Option<&'static Setting> {
    table.iter().find(|setting| setting.name == name)
}

/// Whether a key of that name keeps a secret, in whatever object and in whatever case.
pub(super) fn keeps_secret(key: &str) -> bool {
    let last = |name: &str| name.rsplit('.').next().map(str::to_ascii_lowercase);
    let mut secrets = SETTINGS
        .iter()
        .filter(|setting| setting.kind == Kind::Secret);
    secrets.any(|setting| last(setting.name) == last(key))
}

/// Whether something in the object `name` is not to be shown.
pub(super) fn keeps_secrets(name: &str) -> bool {
    let inside = |setting: &&Setting| is_inside(setting, name);
    let mut settings = SETTINGS.iter().filter(inside);
    settings.any(|setting| matches!(setting.kind, Kind::Secret | Kind::Web))
}

/// The one key inside the object `name`, if there is but one.
pub(super) fn only_member(name: &str) -> Option<&'static str> {
    let mut inside = SETTINGS.iter().filter(|setting| is_inside(setting, name));
    let only = inside.next()?.name.get(name.len() + 1..)?;
    inside.next().is_none().then_some(only)
}

/// Whether some names are inside the object `name`.
pub(super) fn is_group(table: &[Setting], name: &str) -> bool {
    table.iter().any(|setting| is_inside(setting, name))
}

fn is_inside(setting: &Setting, group: &str) -> bool {
    let rest = setting.name.strip_prefix(group);
    rest.is_some_and(|rest| rest.starts_with('.'))
}

/// The known name that `name` is most likely a misspelling of.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // Long garbage is no misspelling, and comparing it would take time.
    if name.len() > 64 {
        return None;
    }
    let folded = fold(name);
    let limit = (folded.len() / 4).clamp(1, 2);
    let distances = known.map(|candidate| (edit_distance(&folded, &fold(candidate)), candidate));
    distances
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `flush_interval` and `flushinterval` are the same to a reader.
fn fold(name: &str) -> Vec<char> {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                rows[i][j] = i + j;
                continue;
            }
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::proxy::PROXY_SETTINGS;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_no_name_is_a_group() {
        for table in [SETTINGS, PROXY_SETTINGS] {
            let names: BTreeSet<_> = table.iter().map(|s| s.name).collect();
            assert_eq!(names.len(), table.len());
            for name in names {
                assert!(!is_group(table, name), "{name}");
                assert!(name.split('.').count() <= 3, "{name}");
            }
        }
    }

    #[test]
    fn help_is_a_sentence() {
        for setting in SETTINGS.iter().chain(PROXY_SETTINGS) {
            assert!(
                setting.help.ends_with('.') && setting.help.len() < 124,
                "{}: {}",
                setting.name,
                setting.help
            );
        }
    }

    #[test]
    fn only_close_names_are_suggested() {
        let known = || SETTINGS.iter().map(|s| s.name);
        assert_eq!(nearest("flush_interval", known()), Some("flushInterval"));
        assert_eq!(nearest("graphitHost", known()), Some("graphiteHost"));
        assert_eq!(
            nearest("percentTreshold", known()),
            Some("percentThreshold")
        );
        assert_eq!(nearest("prot", known()), Some("port"));
        assert_eq!(nearest("ports", known()), Some("port"));
        assert_eq!(nearest("influxdb", known()), None);
        assert_eq!(nearest("", known()), None);
    }

    #[test]
    fn edit_distance_counts_single_letters() {
        let distance = |a: &str, b: &str| {
            edit_distance(
                &a.chars().collect::<Vec<_>>(),
                &b.chars().collect::<Vec<_>>(),
            )
        };
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("prot", "port"), 1);
        assert_eq!(distance("same", "same"), 0);
    }
}
