// Every key there is, with its default. Lines that begin with // do nothing: take the // away to set a key.
// Look for mistakes with: statsd-fast --check-config /etc/statsd-fast/config.js
{
  // --- Listening ---

  // Port to listen on; the text "0" lets the kernel choose one.
  // port: 8125,

  // Address to listen on; without it, all.
  // address: undefined,

  // Listen on an IPv6 socket; without an address it takes IPv4 too.
  // address_ipv6: false,

  // What to listen for: ./servers/udp, tcp, unixgram or unixstream, or unix:///path as DogStatsD's clients write it.
  // server: "./servers/udp",

  // Several listeners, each an object with the keys above and socket, socket_mod; replaces them.
  // servers: undefined,

  // Path of a unix socket, for ./servers/tcp (in place of the port), unixgram and unixstream.
  // socket: undefined,

  // File mode of that socket, e.g. "0770"; without it, what the umask leaves.
  // socket_mod: undefined,

  // Connections a stream listener holds open at most.
  // streamConnections: 1024,

  // Longest line a stream may send, in bytes.
  // streamLine: 65535,

  // --- The admin interface ---

  // Port of the admin interface; the text "0" lets the kernel choose one.
  // mgmt_port: 8126,

  // Address of the admin interface; anyone who reaches it can delete values.
  // mgmt_address: "127.0.0.1",

  // Connections the admin interface holds open at most.
  // mgmt_connections: 32,

  // First answer of the admin interface to `health`.
  // healthStatus: "up",

  // --- Flushing ---

  // Milliseconds between flushes.
  // flushInterval: 10000,

  // Flush on multiples of the interval by the wall clock, not by the start.
  // flushAlign: false,

  // Percentiles of timers, one or a list; a negative one counts from above.
  // percentThreshold: [90],

  // Timer fields to send, e.g. ["count", "upper_percent"]; without it, all.
  // calculatedTimerMetrics: undefined,

  // Histogram rules, each { metric: "part of a name", bins: [10, 100, "inf"] }; the first match counts.
  // histogram: undefined,

  // Default of the four below.
  // deleteIdleStats: false,

  // Forget counters nobody sent in an interval, in place of sending 0.
  // deleteCounters: undefined,

  // The same for timers.
  // deleteTimers: undefined,

  // The same for sets.
  // deleteSets: undefined,

  // Forget gauges after gaugesMaxTTL flushes, that of their last value included.
  // deleteGauges: undefined,

  // Flushes a gauge lives when gauges are deleted; with 1, +n begins at 0 in each interval.
  // gaugesMaxTTL: 1,

  // Flushes without a value after which any name is forgotten; 0 is never.
  // idleFlushes: 0,

  // Namespace of the server's own metrics.
  // prefixStats: "statsd",

  // Clean names: blanks to _, / to -, everything but a-z A-Z 0-9 _ - . ; = removed.
  // keyNameSanitize: true,

  // Rules for names, the first match counts, each { match, matchType, matchMetricType, name, tags, action }.
  // mappings: undefined,

  keyFlush: {
    // Milliseconds between reports of the busiest names; 0 is never.
    // interval: 0,
    // How many of the names to report.
    // percent: 100,
    // File to append the reports to; without it, standard output.
    // log: undefined,
  },

  // --- Where values go ---

  // Where to send: ./backends/graphite, ./backends/console, ./backends/repeater and librato.
  // backends: ["./backends/graphite"],

  // Flushes that wait for a backend that is away; above, the oldest is dropped.
  // outboxFlushes: 360,

  // Memory that they may take together, for each backend.
  // outboxBytes: 268435456,

  // Directory for flushes a backend could not take, for later and for the next start; without it, they wait in memory.
  // spoolDir: undefined,

  // Disk that they may take, for each backend; above, the oldest is dropped.
  // spoolBytes: 1073741824,

  // Graphite: send the count of a counter beside its rate.
  // flush_counts: true,

  // Graphite: host of carbon; without it nothing is sent.
  // graphiteHost: undefined,
  graphiteHost: "127.0.0.1",

  // Graphite: port of carbon for the text protocol.
  // graphitePort: 2003,

  // Graphite: port of carbon for the pickle protocol.
  // graphitePicklePort: 2004,

  // Graphite: protocol of carbon, text or pickle.
  // graphiteProtocol: "text",

  graphite: {
    // Graphite: keep one connection open in place of a new one for each flush.
    // persistent: false,
    // Graphite: true for stats.NAME and stats_counts.NAME, false for the prefixes below.
    // legacyNamespace: true,
    // Graphite: first part of every name.
    // globalPrefix: "stats",
    // Graphite: second part of the names of counters.
    // prefixCounter: "counters",
    // Graphite: second part of the names of timers.
    // prefixTimer: "timers",
    // Graphite: second part of the names of gauges.
    // prefixGauge: "gauges",
    // Graphite: second part of the names of sets.
    // prefixSet: "sets",
    // Graphite: last part of every name.
    // globalSuffix: undefined,
    // Graphite: tags as carbon's NAME;k=v, or name to make them a part of the path, NAME.k.v.
    // tags: "carbon",
  },

  console: {
    // Console: colours, and nested objects in full.
    // prettyprint: false,
    // Console: node for StatsD's own layout, json for one object a line.
    // format: "node",
  },

  librato: {
    // Librato: who signs in; needed.
    // email: undefined,
    // Librato: the API token of that account; needed, and shown nowhere.
    // token: undefined,
    // Librato: address of the service, or of one that speaks as it does; a path goes before its own.
    // api: "https://metrics-api.librato.com",
    // Librato: tag source of measurements, whatever their names have; only what sourceRegex finds goes before it.
    // source: undefined,
    // Librato: global tag host; without it tags.host, or the name of this machine; false for none.
    // host: undefined,
    // Librato: global tags; the service uses them where a measurement has no tag of its own.
    // tags: {},
    // Librato: its first group is the source, and what it matches leaves the name; e.g. /^([^.]+)\./.
    // sourceRegex: undefined,
    // Librato: send only names that one of these is found in; all, when the list is empty.
    // includeMetrics: [],
    // Librato: send no name that one of these is found in, e.g. [/^test\./].
    // excludeMetrics: [],
    // Librato: times are multiples of so many seconds; without it, of flushInterval.
    // snapTime: undefined,
    // Librato: send the sum of the interval for a counter; false for its running total.
    // countersAsGauges: true,
    // Librato: leave out statsd.* and numStats.
    // skipInternalMetrics: true,
    // Librato: measurements in one post at most; it ends at about 1 MB too.
    // batchSize: 500,
    // Librato: seconds before the one retry of a post; fractions count.
    // retryDelaySecs: 5,
    // Librato: seconds a post may take.
    // postTimeoutSecs: 4,
    // Librato: name a whole timer NAME.100, as if it were a percentile.
    // alwaysSuffixPercentile: false,
    // Librato: first part of every name, without a dot.
    // globalPrefix: undefined,
    // Librato: post to /v1/metrics too, with sources and without tags.
    // writeToLegacy: false,
    proxy: {
      // Librato: proxy to reach it through, e.g. "http://user:password@proxy.example.org:3128".
      // uri: undefined,
    },
  },

  // Where the repeater sends every packet, each { host, port }.
  // repeater: [],

  // How the repeater sends: udp4, udp6 or tcp.
  // repeaterProtocol: "udp4",

  // --- Receiving ---

  // User to be once sockets are bound, by name or number, when started as root.
  // user: undefined,

  // Group to be then; without it, the first group of the user.
  // group: undefined,

  // Workers for each listener; without it, one for each core.
  // threads: undefined,

  // Pin each worker to a core; more workers than cores share them.
  // pinThreads: true,

  // Protocol: auto for StatsD's with the additions of DogStatsD, statsd for the original's to the letter.
  // dialect: "auto",

  // Dialect auto: read tags in names, as Telegraf's name,k=v and SignalFx's name[k=v].
  // nameTags: false,

  // Dialect auto: how far back |T timestamps may lie, in seconds.
  // timestampMaxAge: 3600,

  // Dialect auto: how far ahead they may lie, in seconds.
  // timestampMaxAhead: 600,

  // Samples of a timer kept exactly in an interval; above, percentiles are within 0.1 %.
  // exactSamples: 1024,

  // Names that senders may bring, all kinds together; new ones above are folded into others; 0: no limit.
  // maxNames: 1000000,

  // Longest name, cleaned and with its tags; longer ones are folded; 0: no limit.
  // maxNameLength: 4096,

  // Members a set may have in an interval; others are left out; 0: no limit.
  // maxSetMembers: 100000,

  // Resident memory above which nothing new is taken in; undefined and 0: no limit.
  // memoryLimit: undefined,

  // Receive buffer of each worker's socket.
  // receiveBuffer: 16777216,

  // Longest datagram taken whole.
  // maxDatagram: 65535,

  // Which worker gets a datagram: flow, by its sender; spread, at random; cpu, on the core that received it.
  // steering: "flow",

  // Take runs of datagrams of one sender and size in one piece (UDP_GRO); drops are counted by the run then.
  // udpGro: false,

  // Milliseconds that stopping may take.
  // stopDeadline: 5000,

  // File that gauges and running totals are kept in for the next start; without it, they begin anew.
  // stateFile: undefined,

  // Seconds after which that file is too old to be used; without it, never.
  // stateMaxAge: undefined,
  // Path of the unix socket where a process started with --takeover takes the place of this one.
  // takeoverSocket: undefined,

  // --- The log, and the process ---

  // Log more.
  // debug: false,

  // Log every line received.
  // dumpMessages: false,

  log: {
    // Where the log goes: stdout or syslog.
    // backend: "stdout",
    // Name of the program in syslog.
    // application: "statsd",
    // Level in syslog of the lines that dumpMessages logs.
    // level: "LOG_INFO",
    // Path of the syslog socket.
    // socket: "/dev/log",
  },

  // Title of the process; undefined and false leave it.
  // title: undefined,

  // Take over changes of the file while running.
  // automaticConfigReload: true,

  // Removed from StatsD in 0.6. It has no effect.
  // debugInterval: undefined,
}
