//! Configuration files and the command line, as a user meets them.

use statsd_fast::admin;
use statsd_fast::config::{self, Config, Error, Loaded};
use statsd_fast::deliver::{Backend, console, graphite, librato, outbox, repeater, spool};
use statsd_fast::flush::{self, Bin, HistogramRule, Threshold};
use statsd_fast::ingest;
use statsd_fast::ingest::mapping::{Action, Kind, Mapping, Matcher, Rule, Template};
use statsd_fast::ingest::source::stream::{At, Parting};
use statsd_fast::ingest::source::{Listen, stream, udp, unixgram};
use statsd_fast::proxy;
use statsd_fast::runtime::log;
use statsd_fast::runtime::privilege::Identity;
use statsd_fast::state;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

fn file(name: &str) -> String {
    format!("tests/config/{name}")
}

fn load(name: &str) -> Result<Loaded, Error> {
    config::load(Path::new(&file(name)))
}

fn parse(text: &str) -> Loaded {
    config::parse(text, "cfg").unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn warnings(loaded: &Loaded) -> Vec<String> {
    loaded.warnings.iter().map(ToString::to_string).collect()
}

/// What is wrong with `text`, hints left out.
fn problems(text: &str) -> Vec<String> {
    let error = config::parse(text, "cfg").expect_err(text);
    error
        .to_string()
        .lines()
        .filter(|line| !line.starts_with("  hint: "))
        .map(str::to_owned)
        .collect()
}

/// The options of the one backend, which has to be Graphite.
fn graphite_of(text: &str) -> graphite::Options {
    match parse(text).config.backends.as_slice() {
        [Backend::Graphite(options)] => options.clone(),
        other => panic!("{text}: {other:?}"),
    }
}

/// The options of the first listener, which has to be UDP.
fn udp_of(loaded: &Loaded) -> udp::Options {
    match &loaded.config.listeners[0] {
        Listen::Udp(options) => options.clone(),
        other => panic!("{other:?}"),
    }
}

fn threshold(percent: f64, label: &str) -> Threshold {
    Threshold {
        percent,
        label: label.into(),
    }
}

fn bin(below: Option<f64>, label: &str) -> Bin {
    Bin {
        below,
        label: label.into(),
    }
}

#[test]
fn a_text_alone_is_held_against_no_directory() {
    let loaded = parse(
        "{spoolDir: '/nonexistent/a/spool', stateFile: '/nonexistent/a/state', backends: ['console']}",
    );
    assert_eq!(loaded.warnings, []);
    assert!(loaded.config.spool.is_some() && loaded.config.state.is_some());
}

#[test]
fn every_setting_reaches_its_wing() {
    let Loaded {
        config, warnings, ..
    } = load("plain.json").expect("plain.json");
    let graphite = graphite::Options {
        host: Some("carbon.example.org".into()),
        port: 2014,
        protocol: graphite::Protocol::Pickle,
        persistent: true,
        namespace: graphite::Namespace::Prefixed,
        global_prefix: "gp".into(),
        prefix_counter: String::new(),
        prefix_timer: "pt".into(),
        prefix_gauge: "pg".into(),
        prefix_set: "ps".into(),
        global_suffix: Some(String::new()),
        tags_in_path: true,
        prefix_stats: "mystats".into(),
        flush_counts: false,
        sanitize_names: true,
    };
    let want = Config {
        identity: Some(Identity {
            user: "root".into(),
            uid: 0,
            gid: 0,
            groups: Identity::find("root", Some("0")).expect("root").groups,
        }),
        threads: Some(2),
        pin: false,
        listeners: vec![Listen::Udp(udp::Options {
            address: Some("127.0.0.1".into()),
            port: 9125,
            ipv6: false,
            receive_buffer: 1_048_576,
            max_datagram: 1472,
            steering: udp::Steering::Spread,
            joined: true,
        })],
        ingest: ingest::Options {
            dialect: ingest::Dialect::Statsd,
            sanitize_names: false,
            mapping: Mapping::default(),
            name_tags: true,
            exact_samples: 64,
            max_name_length: 512,
            max_set_members: 3000,
            stamps: ingest::Stamps {
                max_age: 7200,
                max_ahead: 0,
            },
        },
        flush: flush::Options {
            interval: Duration::from_millis(500),
            align: true,
            key_flush: Some(flush::KeyFlush {
                every: Duration::from_secs(60),
                percent: 10,
                file: Some("/var/log/busiest".into()),
            }),
            thresholds: vec![
                threshold(90.0, "90"),
                threshold(99.9, "99_9"),
                threshold(-10.0, "top10"),
                threshold(50.5, "50_5"),
            ],
            histogram: vec![
                HistogramRule {
                    metric: "render".into(),
                    bins: vec![
                        bin(Some(0.01), "0_01"),
                        bin(Some(1.0), "1"),
                        bin(Some(10.0), "10"),
                        bin(None, "inf"),
                    ],
                },
                HistogramRule {
                    metric: String::new(),
                    bins: vec![],
                },
            ],
            timer_fields: Some(vec!["count".into(), "upper_percent".into()]),
            delete_counters: true,
            delete_timers: true,
            delete_sets: true,
            delete_gauges: false,
            gauges_max_ttl: 3,
            idle_flushes: 360,
            prefix_stats: "mystats".into(),
            exact_samples: 64,
            max_set_members: 3000,
            keep_distributions: false,
        },
        backends: vec![
            Backend::Graphite(graphite),
            Backend::Console(console::Options {
                layout: console::Layout::Json,
            }),
            Backend::Repeater(repeater::Options {
                targets: vec![repeater::Target {
                    host: "127.0.0.1".into(),
                    port: 9126,
                }],
                protocol: repeater::Protocol::Tcp,
            }),
        ],
        outbox: outbox::Limits {
            flushes: 7,
            bytes: 2_097_152,
        },
        spool: Some(spool::Options {
            directory: "kept.spool".into(),
            bytes: 1_048_576,
        }),
        takeover: None,
        state: Some(state::Options {
            path: "kept.state".into(),
            clean_names: false,
            max_age_s: Some(86_400),
        }),
        admin: admin::Options {
            address: "::1".into(),
            port: 9127,
            connections: 3,
            healthy: false,
        },
        stop_deadline: Duration::from_millis(250),
        max_names: 2000,
        memory_limit: Some(1 << 30),
        log: log::Options {
            debug: true,
            dump: true,
            syslog: Some(log::Syslog {
                socket: "/run/log".into(),
                application: "metrics".into(),
                level: 5,
            }),
        },
        title: Some("statsd one".into()),
        watch: false,
    };
    assert_eq!(config, want);
    assert_eq!(warnings, []);
}

#[test]
fn listeners_of_every_kind() {
    let loaded = parse(
        "{maxDatagram: 1500, streamLine: 100, streamConnections: 5, backends: [], servers: [
            {server: './servers/tcp', address: '::1', port: 1},
            {server: './servers/tcp', socket: '/run/s', socket_mod: '0770'},
            {server: './servers/unixgram', socket: '/run/d', socket_mod: 0o600},
            {server: 'tcp'},
            {server: './servers/unixstream', socket: '/run/f', socket_mod: '0722'},
            {server: 'unix:///run/g', socket_mod: '0722'},
            {server: 'unixgram:///run/h'}, {server: 'unixstream:///run/i'}]}",
    );
    assert_eq!(warnings(&loaded).len(), 1, "that no backend is left");
    let stream = |at| {
        Listen::Stream(stream::Options {
            at,
            parting: Parting::Lines { max: 100 },
            max_connections: 5,
        })
    };
    let gram = |path: &str, mode| {
        Listen::Unixgram(unixgram::Options {
            path: path.into(),
            mode,
            max_datagram: 1500,
        })
    };
    let packets = |path: &str, mode| {
        Listen::Stream(stream::Options {
            at: At::Unix {
                path: path.into(),
                mode,
            },
            parting: Parting::Lengths { max: 1500 },
            max_connections: 5,
        })
    };
    let expected = [
        stream(At::Tcp {
            address: Some("::1".into()),
            port: 1,
        }),
        stream(At::Unix {
            path: "/run/s".into(),
            mode: Some(0o770),
        }),
        gram("/run/d", Some(0o600)),
        stream(At::Tcp {
            address: None,
            port: 8125,
        }),
        packets("/run/f", Some(0o722)),
        gram("/run/g", Some(0o722)),
        gram("/run/h", None),
        packets("/run/i", None),
    ];
    assert_eq!(loaded.config.listeners, expected);
    for (text, problem) in [
        (
            "{server: 'unixgram'}",
            "cfg:1:10: socket: is missing: ./servers/unixgram listens on a unix socket",
        ),
        (
            "{server: './servers/unixstream'}",
            "cfg:1:10: socket: is missing: ./servers/unixstream listens on a unix socket",
        ),
        (
            "{servers: [{server: 'unix:///s'}, {server: 'unixstream', socket: '/s'}]}",
            "cfg:1:35: servers[1]: the socket /s is taken by an earlier listener",
        ),
        (
            "{server: 'unix://s'}",
            "cfg:1:10: server: expected \"./servers/udp\", \"./servers/tcp\", \"./servers/unixgram\", \
             \"./servers/unixstream\" or an address as \"unix:///path\", found \"unix://s\"",
        ),
        (
            "{server: 'tcp', socket: '/s', socket_mod: 'rwx'}",
            "cfg:1:43: socket_mod: expected a file mode, e.g. \"0770\" or 0o770, found \"rwx\"",
        ),
        (
            "{servers: [{server: 'tcp', socket: '/s'}, {server: 'unixgram', socket: '/s'}]}",
            "cfg:1:43: servers[1]: the socket /s is taken by an earlier listener",
        ),
    ] {
        assert_eq!(problems(text), [problem], "{text}");
    }
}

#[test]
fn rules_for_names_reach_the_workers() {
    let loaded = parse(
        "{backends: [], graphiteHost: 'h', mappings: [
            {match: 'a.*', name: 'b.$1', tags: {k: '$1', n: 5}, action: 'map'},
            {match: /^c(.*)/i, matchType: 'regex', matchMetricType: 'timer', action: 'drop'},
            {match: '/^d/', matchType: 'regex', name: null}]}",
    );
    let glob = Matcher::Glob("a.*".into());
    let template = |text| Template::new(text, &glob).expect("a template");
    let regex = |source, flags| Matcher::regex(source, flags).expect("a regular expression");
    let rules = [
        Rule {
            kind: None,
            action: Action::Map {
                name: Some(template("b.$1")),
                tags: vec![("k".into(), template("$1")), ("n".into(), template("5"))],
            },
            matcher: glob.clone(),
        },
        Rule {
            matcher: regex("^c(.*)", "i"),
            kind: Some(Kind::Timer),
            action: Action::Drop,
        },
        Rule {
            matcher: regex("^d", ""),
            kind: None,
            action: Action::Map {
                name: None,
                tags: Vec::new(),
            },
        },
    ];
    assert_eq!(loaded.config.ingest.mapping, Mapping::new(rules.to_vec()));
    for none in ["null", "false", "[]"] {
        let loaded = parse(&format!("{{backends: [], mappings: {none}}}"));
        assert_eq!(loaded.config.ingest.mapping, Mapping::default());
    }
}

#[test]
fn rules_that_are_wrong_are_named_with_the_way_out() {
    for (rule, problem) in [
        ("5", "mappings[0]: expected a rule, found 5"),
        ("{name: 'a'}", "mappings[0].match: is missing: which names?"),
        (
            "{match: ''}",
            "mappings[0].match: expected a text, found \"\"",
        ),
        (
            "{match: /a/}",
            "mappings[0].match: is a regular expression, but the rule takes a glob",
        ),
        (
            "{match: 'a(', matchType: 'regex'}",
            "mappings[0].match: is no regular expression for rules: unclosed group",
        ),
        (
            "{match: 'a', matchType: 'regexp'}",
            "mappings[0].matchType: expected \"glob\" or \"regex\", found \"regexp\"",
        ),
        (
            "{match: 'a', matchMetricType: 'histogram'}",
            "mappings[0].matchMetricType: expected \"counter\" or \"timer\" or \"gauge\" or \"set\", \
             found \"histogram\"",
        ),
        (
            "{match: 'a', action: 'keep'}",
            "mappings[0].action: expected \"map\" or \"drop\", found \"keep\"",
        ),
        (
            "{match: 'a.*', name: '$2'}",
            "mappings[0].name: \"$2\": there is no capture \"2\", but 1",
        ),
        (
            "{match: 'a', name: 'b;c=d'}",
            "mappings[0].name: \"b;c=d\" would have tags or end a line",
        ),
        (
            "{match: 'a', tags: {k: []}}",
            "mappings[0].tags.k: expected a text, found an empty list",
        ),
        (
            "{match: 'a', tags: {'k=': 'v'}}",
            "mappings[0].tags.k=: is no key of a tag: it is empty or holds one of ; = : ,",
        ),
        (
            "{match: 'a', tags: 'k:v'}",
            "mappings[0].tags: expected an object, found \"k:v\"",
        ),
    ] {
        let found = problems(&format!("{{backends: [], mappings: [{rule}]}}"));
        let places: Vec<_> = found.iter().map(|it| it.splitn(4, ':').nth(3)).collect();
        assert_eq!(places, [Some(&*format!(" {problem}"))], "{rule}");
    }
    let error = config::parse("{mappings: [{match: /a(?=b)/, matchType: 'regex'}]}", "cfg");
    assert_eq!(
        error.expect_err("look-around").to_string(),
        "cfg:1:21: mappings[0].match: is no regular expression for rules: look-around, including \
         look-ahead and look-behind, is not supported\n  hint: write matchType: \"regex\" and e.g. match: \
         /^web\\.([^.]+)$/; there is no look-around and there are no back-references"
    );
}

#[test]
fn what_is_odd_about_rules_is_told() {
    let odd = |rules: &str, more: &str| {
        let loaded = parse(&format!(
            "{{backends: ['console'],{more} mappings: [{rules}]}}"
        ));
        let about = warnings(&loaded).into_iter();
        let about = about.map(|it| it.splitn(4, ':').nth(3).map(str::to_owned));
        about.map(|it| it.expect("a place")).collect::<Vec<_>>()
    };
    let twice = "{match: 'a'}, {match: 'b'}, {match: 'a', matchMetricType: 'set'}";
    assert_eq!(
        odd(twice, ""),
        [
            " mappings[2]: is never used: mappings[0] takes the same names first (take one of them out)"
        ]
    );
    let one_kind = "{match: 'a', matchMetricType: 'set'}, {match: 'a'}";
    assert_eq!(odd(one_kind, ""), [""; 0]);
    let unclean = "{match: 'a b.*', name: 'x', tags: {k: '$1'}}, {match: 'c', name: 'd/$0'}";
    assert_eq!(
        odd(unclean, ""),
        [
            " mappings[0].match: matches nothing: a clean name has no ' ' (names are cleaned before rules \
             see them (keyNameSanitize), and have no tags then)",
            " mappings[1]: what it makes is cleaned of '/' (keyNameSanitize) (write letters, digits, _ - \
             and . alone)"
        ]
    );
    assert_eq!(odd(unclean, "keyNameSanitize: false,"), [""; 0]);
    assert_eq!(
        odd("{match: 'a', action: 'drop', name: 'b', labels: {}}", ""),
        [
            " mappings[0].name: is not used: the rule drops names",
            " mappings[0].labels: unknown key, ignored"
        ]
    );
}

#[test]
fn targets_of_the_repeater_are_checked_one_by_one() {
    let text =
        "{repeater: [{host: 'a', port: '8125'}, {host: 5, port: 0}, 'b', {host: 'c', prot: 1}]}";
    assert_eq!(
        problems(text),
        [
            "cfg:1:40: repeater[1].host: expected a name or an address, found 5",
            "cfg:1:40: repeater[1].port: expected a port from 1 to 65535, found 0",
            "cfg:1:60: repeater[2]: expected a target, found \"b\"",
            "cfg:1:65: repeater[3].port: expected a port from 1 to 65535, found none",
        ]
    );
}

#[test]
fn what_cannot_change_while_running_is_told_by_key() {
    let running = parse("{port: 1, servers: [{port: '0'}], debug: true, backends: []}");
    let refused = |text: &str| parse(text).refused(&running);
    assert_eq!(
        refused("{ port: 1, backends: [],  servers: [ { port: '0' } ] }"),
        [""; 0]
    );
    assert_eq!(
        refused("{port: 2, servers: [{port: 0}], threads: 2, backends: ['console']}"),
        ["port", "servers", "threads"]
    );
    assert_eq!(refused("{backends: []}"), ["port", "servers"]);
}

#[test]
fn several_listeners_replace_the_one() {
    let loaded = load("listeners.json5").expect("listeners.json5");
    let listener = |address: Option<&str>, port, ipv6| udp::Options {
        address: address.map(Into::into),
        port,
        ipv6,
        ..udp::Options::default()
    };
    assert_eq!(
        loaded.config.listeners,
        [
            Listen::Udp(listener(Some("127.0.0.1"), 0x2000, false)),
            Listen::Udp(listener(None, 8192, true)),
        ]
    );
    assert_eq!(loaded.config.flush.interval, Duration::from_secs(1));
    assert_eq!(
        warnings(&loaded),
        [
            "tests/config/listeners.json5:5:73: servers[1].socket: is not used by ./servers/udp (for a unix socket \
         write server: \"./servers/tcp\" or \"./servers/unixgram\")"
        ]
    );
    let empty = parse("{server: './servers/tcp', socket: '', backends: []}");
    let about: Vec<_> = warnings(&empty)
        .into_iter()
        .filter(|warning| warning.contains("socket: is empty"))
        .collect();
    assert_eq!(about.len(), 1, "{:?}", warnings(&empty));
    let top_level_is_ignored = parse("{port: 1, servers: [{}], backends: []}");
    assert_eq!(udp_of(&top_level_is_ignored), udp::Options::default());
    let per_server_sizes = parse("{maxDatagram: 1500, servers: [{port: '0'}], backends: []}");
    let udp = udp_of(&per_server_sizes);
    assert_eq!((udp.port, udp.max_datagram), (0, 1500));
}

#[test]
fn files_of_statsd_load_unchanged() {
    for name in ["commented.js", "crlf.js"] {
        let loaded = load(name).expect(name);
        let graphite = graphite::Options {
            host: Some("graphite.example.com".into()),
            ..graphite::Options::default()
        };
        let repeater = Backend::Repeater(repeater::Options {
            targets: vec![repeater::Target {
                host: "10.8.3.214".into(),
                port: 8125,
            }],
            protocol: repeater::Protocol::Udp4,
        });
        assert_eq!(
            loaded.config.backends[..2],
            [Backend::Graphite(graphite), repeater]
        );
        let Backend::Librato(librato) = &loaded.config.backends[2] else {
            panic!("{:?}", loaded.config.backends)
        };
        assert_eq!(
            (librato.email.as_str(), librato.token.as_str()),
            ("a@example.com", "t")
        );
        assert_eq!(loaded.config.flush.thresholds, [threshold(95.0, "95")]);
        assert_eq!(warnings(&loaded), [""; 0]);
    }
    assert_eq!(
        load("bom.json").expect("bom.json").config,
        Config::without_file()
    );
}

#[test]
fn all_problems_of_a_file_are_reported_in_order() {
    let error = load("problems.json").expect_err("problems.json");
    assert_eq!(
        error.to_string(),
        include_str!("config/problems.txt").trim_end()
    );
    let odd: Vec<_> = error.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        odd,
        [
            "tests/config/problems.json:4:35: percentThreshold[2]: 101 is beyond 100 percent: most of its values are no \
             numbers (write a percentile from -100 to 100)",
            "tests/config/problems.json:7:40: graphite.globalPrefx: unknown key, ignored (did you mean globalPrefix?)",
            "tests/config/problems.json:10:3: flush_interval: unknown key, ignored (did you mean flushInterval?)",
        ]
    );
}

#[test]
fn broken_files_name_the_place_and_the_way_out() {
    for (name, want) in [
        (
            "syntax.js",
            "tests/config/syntax.js:3:3: syntax error: Expected `,` or `}` but found `Identifier`\n  \
             hint: a comma, a quote or a bracket is often missing just before this place",
        ),
        (
            "latin1.js",
            "tests/config/latin1.js:2:20: the byte 0xe9 is not UTF-8\n  \
             hint: save the file as UTF-8; if it is Latin-1, with iconv -f LATIN1 -t UTF-8",
        ),
        (
            "empty.js",
            "tests/config/empty.js:1:1: the file holds no value\n  \
             hint: write an object, e.g. { backends: [\"./backends/console\"] }, or {} for the defaults",
        ),
        (
            "deaf.js",
            "tests/config/deaf.js:1:37: servers: nothing would listen\n  \
             hint: add a listener with server: \"./servers/udp\"",
        ),
        (
            "missing.js",
            "tests/config/missing.js: cannot be read: No such file or directory (os error 2); check the path",
        ),
        (
            "",
            "tests/config/: cannot be read: it is a directory; name a file in it",
        ),
    ] {
        assert_eq!(load(name).expect_err(name).to_string(), want);
    }
    let endless = config::load(Path::new("/dev/zero")).expect_err("no configuration");
    assert_eq!(
        endless.to_string(),
        "/dev/zero: is longer than 1048576 bytes and hardly a configuration; check the path"
    );
}

#[test]
fn percentiles_are_read_as_the_reference_reads_them() {
    let thresholds = |value: &str| {
        parse(&format!("{{percentThreshold: {value}}}"))
            .config
            .flush
            .thresholds
    };
    for falsy in ["0", "null", "false", "''", "NaN", "undefined", "-0"] {
        assert_eq!(thresholds(falsy), [threshold(90.0, "90")], "{falsy}");
    }
    assert_eq!(thresholds("[]"), []);
    assert_eq!(
        thresholds("[0, -0]"),
        [threshold(0.0, "0"), threshold(-0.0, "0")]
    );
    assert_eq!(thresholds("'99.90'"), [threshold(99.9, "99_90")]);
    assert_eq!(
        thresholds("['+5', '0x5A', '-1e-7', 1e-7]"),
        [
            threshold(5.0, "+5"),
            threshold(90.0, "0x5A"),
            threshold(-1e-7, "top1e-7"),
            threshold(1e-7, "1etop7"),
        ]
    );
    for (text, found) in [
        ("'90%'", "\"90%\""),
        ("' 90'", "\" 90\""),
        ("true", "true"),
        ("{}", "an object"),
    ] {
        let text = format!("{{percentThreshold: {text}}}");
        assert_eq!(
            problems(&text),
            [format!(
                "cfg:1:20: percentThreshold: expected a percentile from -100 to 100, found {found}"
            )]
        );
    }
    assert_eq!(
        problems("{percentThreshold: [90, null]}"),
        ["cfg:1:25: percentThreshold[1]: expected a percentile from -100 to 100, found null"]
    );
}

#[test]
fn histograms_are_read_as_the_reference_reads_them() {
    let rules = |value: &str| {
        parse(&format!("{{histogram: {value}}}"))
            .config
            .flush
            .histogram
    };
    assert_eq!(rules("null"), []);
    assert_eq!(
        rules("[{metric: '', bins: [-1, '2.50', Infinity, 'inf']}]"),
        [HistogramRule {
            metric: String::new(),
            bins: vec![
                bin(Some(-1.0), "-1"),
                bin(Some(2.5), "2_50"),
                bin(Some(f64::INFINITY), "Infinity"),
                bin(None, "inf")
            ],
        }]
    );
    let unordered =
        parse("{graphiteHost: 'h', histogram: [{metric: 'a', bins: [10, 5, 'inf', 7], extra: 1}]}");
    assert_eq!(
        warnings(&unordered),
        [
            "cfg:1:58: histogram[0].bins[1]: 5 after a greater bin always counts 0 (sort the bins)",
            "cfg:1:68: histogram[0].bins[3]: 7 after a greater bin always counts 0 (sort the bins)",
            "cfg:1:72: histogram[0].extra: unknown key, ignored",
        ]
    );
    assert_eq!(
        problems("{histogram: {metric: 'a', bins: []}}"),
        ["cfg:1:13: histogram: expected a list of rules, found an object"]
    );
    assert_eq!(
        problems("{histogram: [5]}"),
        ["cfg:1:14: histogram[0]: expected a rule, found 5"]
    );
}

#[test]
fn numbers_take_what_javascript_takes() {
    let interval = |value: &str| {
        parse(&format!("{{flushInterval: {value}}}"))
            .config
            .flush
            .interval
    };
    for (value, ms) in [
        ("'500'", 500),
        ("0x64", 100),
        ("99.5", 100),
        ("9.5", 10),
        ("[250]", 250),
        ("86400000", 86_400_000),
        ("0", 10_000),
        ("''", 10_000),
        ("false", 10_000),
        ("null", 10_000),
    ] {
        assert_eq!(interval(value), Duration::from_millis(ms), "{value}");
    }
    for (value, found) in [
        ("-5", "-5"),
        ("9.4", "9.4"),
        ("true", "true"),
        ("86400001", "86400001"),
        ("'10s'", "\"10s\""),
        ("Infinity", "Infinity"),
        ("{}", "an object"),
    ] {
        assert_eq!(
            problems(&format!("{{flushInterval: {value}}}")),
            [format!(
                "cfg:1:17: flushInterval: expected a number of milliseconds from 10 to 86400000, found {found}"
            )]
        );
    }
    let port = |value: &str| udp_of(&parse(&format!("{{port: {value}}}"))).port;
    for (value, want) in [
        ("'9125'", 9125),
        ("0", 8125),
        ("'0'", 0),
        ("65535", 65535),
        ("null", 8125),
    ] {
        assert_eq!(port(value), want, "{value}");
    }
    assert_eq!(
        problems("{port: 80.5}"),
        ["cfg:1:8: port: expected a port from 0 to 65535, found 80.5"]
    );
    assert_eq!(
        problems("{port: 65536}"),
        ["cfg:1:8: port: expected a port from 0 to 65535, found 65536"]
    );
    assert_eq!(
        problems("{graphitePort: '0'}"),
        ["cfg:1:16: graphitePort: expected a port from 1 to 65535, found \"0\""]
    );
    assert_eq!(
        problems("{threads: 0}"),
        ["cfg:1:11: threads: expected a whole number from 1 to 1024, found 0"]
    );
    assert_eq!(
        problems("{stopDeadline: 0}"),
        ["cfg:1:16: stopDeadline: expected a number of milliseconds from 1 to 3600000, found 0"]
    );
    assert_eq!(
        problems("{exactSamples: 1000001, maxDatagram: 511, receiveBuffer: 'x', pinThreads: 1}"),
        [
            "cfg:1:16: exactSamples: expected a whole number from 1 to 1000000, found 1000001",
            "cfg:1:38: maxDatagram: expected a number of bytes from 512 to 65535, found 511",
            "cfg:1:58: receiveBuffer: expected a number of bytes from 4096 to 1073741823, found \"x\"",
            "cfg:1:75: pinThreads: expected true or false, found 1",
        ]
    );
}

#[test]
fn limits_of_zero_are_none() {
    let limits = |text: &str| {
        let config = parse(text).config;
        let members = [config.ingest.max_set_members, config.flush.max_set_members];
        assert_eq!(members[0], members[1]);
        let names = (config.max_names, config.ingest.max_name_length);
        (names, members[0], config.memory_limit)
    };
    assert_eq!(limits("{}"), ((1_000_000, 4096), 100_000, None));
    let none = ((usize::MAX, usize::MAX), usize::MAX, None);
    let zeros = "{maxNames: 0, maxNameLength: 0, maxSetMembers: 0, memoryLimit: 0}";
    assert_eq!(limits(zeros), none);
    assert_eq!(
        problems("{maxNames: -1, memoryLimit: 1000}"),
        [
            "cfg:1:12: maxNames: expected a whole number from 0 to 2147483648, found -1",
            "cfg:1:29: memoryLimit: expected a number of bytes from 16777216 to 1125899906842624, found 1000",
        ]
    );
}

#[test]
fn a_limit_of_memory_leaves_room_for_flushes_that_wait() {
    let warned = |text: &str| {
        let warnings = parse(text).warnings.into_iter();
        let warnings = warnings.map(|it| it.to_string());
        let of_memory = |it: &String| it.contains("memoryLimit");
        warnings.filter(of_memory).collect::<Vec<_>>()
    };
    let file = |limit: u64| {
        format!(
            "{{graphiteHost: 'a', backends: ['./backends/graphite', './backends/console'], outboxBytes: \
             20000000, memoryLimit: {limit}}}"
        )
    };
    assert_eq!(warned(&file(40_000_001)), [""; 0]);
    let found = warned(&file(40_000_000));
    let expected =
        "40000000 bytes are no more than flushes may take that wait for backends (40000000)";
    assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
}

#[test]
fn flags_count_by_their_truth() {
    let deletes = |text: &str| {
        let flush = parse(text).config.flush;
        [
            flush.delete_counters,
            flush.delete_timers,
            flush.delete_sets,
            flush.delete_gauges,
        ]
    };
    assert_eq!(deletes("{}"), [false; 4]);
    assert_eq!(deletes("{deleteIdleStats: true}"), [true; 4]);
    assert_eq!(
        deletes(
            "{deleteIdleStats: 1, deleteCounters: false, deleteTimers: 0, deleteSets: null, deleteGauges: undefined}"
        ),
        [false, false, false, true]
    );
    assert_eq!(
        deletes("{deleteIdleStats: false, deleteSets: 'yes'}"),
        [false, false, true, false]
    );

    for (value, sanitize) in [
        ("false", false),
        ("0", false),
        ("null", false),
        ("''", false),
        ("undefined", true),
        ("1", true),
    ] {
        let text = format!("{{keyNameSanitize: {value}}}");
        assert_eq!(
            parse(&text).config.ingest.sanitize_names,
            sanitize,
            "{value}"
        );
        assert_eq!(graphite_of(&text).sanitize_names, !sanitize, "{value}");
    }
    for (value, counts) in [
        ("undefined", true),
        ("null", false),
        ("0", false),
        ("'x'", true),
    ] {
        assert_eq!(
            graphite_of(&format!("{{flush_counts: {value}}}")).flush_counts,
            counts,
            "{value}"
        );
    }
    assert_eq!(
        warnings(&parse("{debug: 'false', backends: ['console']}")),
        ["cfg:1:9: debug: the text \"false\" counts as true (write false without quotes)"]
    );
}

#[test]
fn gauges_live_for_whole_flushes() {
    let ttl = |value: &str| {
        let loaded = parse(&format!("{{gaugesMaxTTL: {value}, backends: ['console']}}"));
        (loaded.config.flush.gauges_max_ttl, loaded.warnings.len())
    };
    assert_eq!(ttl("1"), (1, 0));
    assert_eq!(ttl("3"), (3, 0));
    assert_eq!(ttl("undefined"), (1, 0));
    assert_eq!(ttl("1e300"), (u32::MAX, 0));
    for odd in ["'3'", "2.5", "0", "-2", "true", "NaN", "Infinity"] {
        assert_eq!(ttl(odd), (1, 1), "{odd}");
    }
}

#[test]
fn names_are_spelled_as_javascript_spells_them() {
    for (value, want) in [
        ("''", ""),
        ("null", "null"),
        ("0.5", "0.5"),
        ("1e21", "1e+21"),
        ("[1, null, 'a']", "1,,a"),
        ("{}", "[object Object]"),
    ] {
        let text = format!("{{prefixStats: {value}}}");
        assert_eq!(graphite_of(&text).prefix_stats, want, "{value}");
        assert_eq!(parse(&text).config.flush.prefix_stats, want, "{value}");
    }
    let suffix = |value: &str| {
        graphite_of(&format!("{{graphite: {{globalSuffix: {value}}}}}")).global_suffix
    };
    assert_eq!(suffix("undefined"), None);
    assert_eq!(suffix("''"), Some(String::new()));
    assert_eq!(suffix("'host1'"), Some("host1".into()));
    assert_eq!(suffix("null"), Some("null".into()));
    let namespace =
        |value: &str| graphite_of(&format!("{{graphite: {{legacyNamespace: {value}}}}}")).namespace;
    assert_eq!(namespace("true"), graphite::Namespace::Legacy);
    assert_eq!(namespace("undefined"), graphite::Namespace::Legacy);
    assert_eq!(namespace("false"), graphite::Namespace::Prefixed);
    for other in ["'false'", "'true'", "0", "1", "null"] {
        assert_eq!(namespace(other), graphite::Namespace::Hybrid, "{other}");
    }
}

#[test]
fn timer_fields_filter_only_as_a_list_with_names() {
    let fields = |value: &str| {
        parse(&format!("{{calculatedTimerMetrics: {value}}}"))
            .config
            .flush
            .timer_fields
    };
    for all in ["undefined", "null", "[]", "'count'", "{}"] {
        assert_eq!(fields(all), None, "{all}");
    }
    assert_eq!(
        fields("['count', 'upper_90']"),
        Some(vec!["count".into(), "upper_90".into()])
    );
    let odd = parse("{calculatedTimerMetrics: ['count', 'upper_90'], backends: ['console']}");
    assert_eq!(
        warnings(&odd),
        [
            "cfg:1:36: calculatedTimerMetrics[1]: \"upper_90\" is the name of no field (the names are count, count_ps, histogram, \
         lower, mean, median, std, sum, sum_squares, upper, and e.g. upper_percent for upper_90)"
        ]
    );
}

#[test]
fn backends_have_several_spellings_and_graphite_is_the_default() {
    assert_eq!(graphite_of("{graphiteHost: 'h'}").host, Some("h".into()));
    assert_eq!(graphite_of("{backends: false}").host, None);
    for name in ["./backends/console", "backends/console", "console"] {
        let text = format!("{{backends: ['{name}']}}");
        assert_eq!(parse(&text).config, Config::without_file(), "{name}");
    }
    assert_eq!(
        warnings(&parse("{}")),
        [
            "cfg: graphiteHost: is missing: nothing will be sent to Graphite (write graphiteHost: \"carbon.example.org\", or \
         backends: [\"./backends/console\"] to see the values)"
        ]
    );
    assert_eq!(
        problems("{backends: './backends/console'}"),
        ["cfg:1:12: backends: expected a list of backends, found \"./backends/console\""]
    );
}

/// Of a backend that signs in, with these settings more.
fn librato_of(settings: &str, more: &str) -> librato::Options {
    let text = format!(
        "{{backends: ['./backends/librato'], librato: {{email: 'e', token: 't', {settings}}}, {more}}}"
    );
    let loaded = parse(&text);
    assert_eq!(warnings(&loaded), [""; 0], "{text}");
    match &loaded.config.backends[..] {
        [Backend::Librato(options)] => (**options).clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_setting_of_librato_reaches_it() {
    let pattern = |source, flags| {
        librato::pattern::Pattern::new(source, flags).expect("a regular expression")
    };
    let written = librato_of(
        "api: 'http://localhost:8080/base', source: 7, host: 'h', tags: {os: 'linux', rack: '7'},
         sourceRegex: /^([^.]+)\\./i, includeMetrics: [/^my\\./g, '/^web$/', '^a'],
         excludeMetrics: [/x/], snapTime: '60', countersAsGauges: false, skipInternalMetrics: 0,
         retryDelaySecs: 0.2, postTimeoutSecs: '1.5', batchSize: 2000, alwaysSuffixPercentile: true,
         globalPrefix: 'acme', writeToLegacy: 1, proxy: {uri: 'http://u:p@proxy:3128'}"
            .replace("\\\\", "\\")
            .as_str(),
        "percentThreshold: [50, 99.9, '99.90', -10, 0]",
    );
    let threshold = |percent, label: &str| librato::Threshold {
        percent,
        label: label.into(),
    };
    let expected = librato::Options {
        email: "e".into(),
        token: "t".into(),
        api: "http://localhost:8080/base".into(),
        proxy: Some("http://u:p@proxy:3128".into()),
        post_timeout: Duration::from_millis(1500),
        retry_delay: Duration::from_millis(200),
        source: Some("7".into()),
        host: Some("h".into()),
        tags: vec![
            ("os".into(), "\"linux\"".into()),
            ("rack".into(), "\"7\"".into()),
        ],
        folded_tags: true,
        source_regex: Some(pattern(r"^([^.]+)\.", "i")),
        include: vec![
            pattern(r"^my\.", "g"),
            pattern("^web$", ""),
            pattern("^a", ""),
        ],
        exclude: vec![pattern("x", "")],
        snap: 60,
        counters_as_gauges: false,
        skip_internal: false,
        batch_size: 2000,
        always_suffix: true,
        global_prefix: "acme".into(),
        write_to_legacy: true,
        thresholds: vec![
            threshold(50.0, "50"),
            threshold(99.9, "99.9"),
            threshold(99.9, "99.90"),
        ],
    };
    assert_eq!(written, expected);
    let falsy = librato_of(
        "api: '', source: '', sourceRegex: null, snapTime: 0, countersAsGauges: null,
         skipInternalMetrics: null, retryDelaySecs: 0, postTimeoutSecs: false, batchSize: 0,
         globalPrefix: '', proxy: null, tags: null",
        "flushInterval: 2500",
    );
    let bare = librato::Options {
        email: "e".into(),
        token: "t".into(),
        host: Some(host_name()),
        folded_tags: true,
        snap: 2,
        ..librato::Options::default()
    };
    assert_eq!(falsy, bare);
    assert_eq!(librato_of("", "flushInterval: 500").snap, 0);
}

#[test]
fn the_dialect_says_what_becomes_of_tags_in_librato() {
    for (dialect, folded) in [("statsd", false), ("auto", true)] {
        let loaded = parse(&format!(
            "{{backends: ['librato'], librato: {{email: 'e', token: 't'}}, dialect: '{dialect}'}}"
        ));
        let [Backend::Librato(options)] = &loaded.config.backends[..] else {
            panic!("{:?}", loaded.config.backends)
        };
        assert_eq!(options.folded_tags, folded, "{dialect}");
    }
}

/// Decision D1 in README.
#[test]
fn the_host_that_was_written_wins() {
    assert_eq!(librato_of("", "").host, Some(host_name()));
    for (settings, host) in [
        ("host: 'h', tags: {host: 't'}", Some("h")),
        ("tags: {host: 't'}", None),
        ("host: false", None),
        ("host: ''", None),
    ] {
        assert_eq!(librato_of(settings, "").host.as_deref(), host, "{settings}");
    }
}

#[test]
fn what_librato_cannot_use_is_told_and_secrets_are_not() {
    let text = "{backends: ['librato'], librato: {
email: 5,
token: [98765],
api: 'ftp://me:98765@host',
proxy: {uri: 'socks://me:98765@host'},
sourceRegex: '(',
includeMetrics: [/a/y, 5, /(?<n/],
excludeMetrics: 'x',
tags: {a: [1], b: 2, c: NaN},
retryDelaySecs: -1,
postTimeoutSecs: 'soon',
batchSize: 1.5,
snapTime: 0.5,
nonsense: 1,
sourceRegexp: 1}}";
    let error = config::parse(text, "cfg").expect_err("much is wrong");
    assert!(!format!("{error:?}").contains("98765"), "{error:?}");
    let said: Vec<_> = (error.problems.iter().chain(&error.warnings))
        .map(|it| {
            format!(
                "{}:{}: {}",
                it.place.expect("a place").line,
                it.key,
                it.message
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            "2:librato.email: expected a text in quotes, found 5",
            "3:librato.token: expected a text in quotes, found a list",
            "4:librato.api: an address begins with `https://` or `http://`",
            "5:librato.proxy.uri: a proxy's address is `http://host:port`",
            "6:librato.sourceRegex: is no regular expression: Parsing error at position 1: \
             Opening parenthesis without closing parenthesis",
            "7:librato.includeMetrics[0]: is no regular expression: the flag y is not supported",
            "7:librato.includeMetrics[1]: expected a regular expression, found 5",
            "7:librato.includeMetrics[2]: is no regular expression: > is missing",
            "9:librato.tags.a: expected a text in quotes, found a list",
            "9:librato.tags.c: expected a text in quotes, found NaN",
            "10:librato.retryDelaySecs: expected a number of seconds from 0.001 to 3600, found -1",
            "11:librato.postTimeoutSecs: expected a number of seconds from 0.001 to 3600, found \"soon\"",
            "12:librato.batchSize: expected a whole number from 1 to 100000, found 1.5",
            "13:librato.snapTime: expected a number of seconds from 1 to 86400, found 0.5",
            "8:librato.excludeMetrics: \"x\" is no list and counts for nothing",
            "9:librato.tags.b: 2 is no text, which Librato refuses",
            "14:librato.nonsense: unknown key, ignored",
            "15:librato.sourceRegexp: unknown key, ignored",
        ]
    );
    for text in [
        "{librato: {token: hush}}",
        "{librato: {proxy: 'http://me:hush@host'}}",
        "{librato: {proxy: {uri: ['hush']}}}",
    ] {
        let error = config::parse(text, "cfg").expect_err(text);
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    }
}

#[test]
fn what_is_odd_about_librato_is_told() {
    for (settings, warned) in [
        (
            "globalPrefix: 'a.'",
            "librato.globalPrefix: \"a.\" gets a dot more: names begin a.. (leave out the dot at its end)",
        ),
        (
            "sourceRegex: /^(?:a|b)/",
            "librato.sourceRegex: has no group, so it finds no source and leaves names as they are \
             (put what is the source into parentheses, e.g. /^([^.]+)\\./)",
        ),
        (
            "tags: {'a b': 'c'}",
            "librato.tags.a b: Librato refuses a tag of this name \
             (write 1 to 64 letters, digits and -_.:)",
        ),
        (
            "tags: {a: 'b=c', b: 'C/d ?\\\\:._-1'}",
            "librato.tags.a: Librato refuses the value \"b=c\" \
             (write 1 to 255 letters, digits, blanks and -_.:?\\/)",
        ),
        (
            "tags: {a: ''}",
            "librato.tags.a: Librato refuses the value \"\" \
             (write 1 to 255 letters, digits, blanks and -_.:?\\/)",
        ),
    ] {
        let text =
            format!("{{backends: ['librato'], librato: {{email: 'e', token: 't', {settings}}}}}");
        let loaded = parse(&text);
        let said = warnings(&loaded);
        assert_eq!(said.len(), 1, "{text}: {said:?}");
        assert!(said[0].ends_with(&format!(": {warned}")), "{said:?}");
    }
    let loaded = parse("{backends: ['librato'], librato: {email: 'e', token: 98765}}");
    assert_eq!(
        warnings(&loaded),
        ["cfg:1:54: librato.token: is a number, its digits are used (put it into quotes)"]
    );
    let [Backend::Librato(options)] = &loaded.config.backends[..] else {
        panic!("{:?}", loaded.config.backends)
    };
    assert_eq!(options.token, "98765");
    let error = config::parse("{librato: {proxy: 'http://host'}}", "cfg").expect_err("a text");
    assert_eq!(
        error.problems[0].to_string(),
        "cfg:1:19: librato.proxy: expected an object, found a text (write proxy: { uri: \"...\" })"
    );
}

#[test]
fn librato_needs_to_sign_in_only_where_it_is_used() {
    assert_eq!(
        problems("{backends: ['statsd-librato-backend'], librato: {token: ''}}"),
        [
            "cfg:1:12: librato.email: is missing: the Librato backend signs in with it",
            "cfg:1:12: librato.token: is missing: the Librato backend signs in with it",
        ]
    );
    let unused = parse("{backends: ['console'], librato: {email: 'e', sourceRegex: '/(x)/i'}}");
    assert_eq!(
        warnings(&unused),
        [
            "cfg:1:42: librato: is not used: no backend is librato (add \"librato\" to backends)",
            "cfg:1:60: librato.sourceRegex: in a text neither the slashes nor i are special \
             (write a regular expression without quotes, e.g. /^my\\./)",
        ]
    );
    assert!(!unused.config.flush.keep_distributions);
    let used = parse("{backends: ['librato'], librato: {email: 'e', token: 't'}}");
    assert!(used.config.flush.keep_distributions);
    assert!(!format!("{used:?}").contains("token: \"t\""));
}

#[test]
fn listeners_that_cannot_work_are_errors() {
    assert_eq!(
        problems("{servers: []}"),
        ["cfg:1:11: servers: nothing would listen"]
    );
    assert_eq!(
        problems("{servers: [{}, {port: 8125}, {address_ipv6: true, port: 8126}]}"),
        ["cfg:1:16: servers[1]: port 8125 of the same address is taken by an earlier listener"]
    );
    assert_eq!(
        problems("{server: './servers/unix'}"),
        [
            "cfg:1:10: server: expected \"./servers/udp\", \"./servers/tcp\", \"./servers/unixgram\", \
             \"./servers/unixstream\" or an address as \"unix:///path\", found \"./servers/unix\""
        ]
    );
    assert_eq!(
        problems("{address: 5}"),
        ["cfg:1:11: address: expected a text in quotes, found 5"]
    );
    assert_eq!(
        problems("{address: /a\\.b/g, port: /1/, percentThreshold: [/9/i]}"),
        [
            "cfg:1:11: address: expected a text in quotes, found /a\\.b/g",
            "cfg:1:26: port: expected a port from 0 to 65535, found /1/",
            "cfg:1:50: percentThreshold[0]: expected a percentile from -100 to 100, found /9/i",
        ]
    );
    assert_eq!(
        parse("{servers: [{port: '0'}, {port: '0'}], backends: []}")
            .config
            .listeners
            .len(),
        2
    );
}

#[test]
fn what_is_no_object_is_an_error() {
    assert_eq!(problems("5"), ["cfg:1:1: expected an object, found 5"]);
    assert_eq!(
        problems("[]"),
        ["cfg:1:1: expected an object, found an empty list"]
    );
    assert_eq!(
        problems("{graphite: 'x'}"),
        ["cfg:1:12: graphite: expected an object, found \"x\""]
    );
    assert_eq!(
        parse("{graphite: null, console: undefined}").warnings.len(),
        1
    );
}

#[test]
fn keys_are_looked_up_as_they_are_nested() {
    let odd = parse(
        "{'graphite.prefixSet': 'x', influxdb: {}, port: 1, port: 2, dialect: 'auto', backends: ['console']}",
    );
    assert_eq!(udp_of(&odd).port, 2);
    assert_eq!(odd.config.ingest.dialect, ingest::Dialect::Auto);
    assert_eq!(
        warnings(&odd),
        [
            "cfg:1:2: graphite.prefixSet: unknown key, ignored (write graphite: { prefixSet: ... })",
            "cfg:1:29: influxdb: unknown key, ignored",
            "cfg:1:52: port is written twice, the last one counts (remove one of them; the first is at line 1)",
        ]
    );
}

fn statsd_fast(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_statsd-fast"))
        .args(arguments)
        .output()
        .expect("the program runs")
}

/// Exit code, standard output, standard error.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    said(statsd_fast(arguments))
}

fn said(output: Output) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    (
        status.code(),
        String::from_utf8(stdout).expect("UTF-8"),
        String::from_utf8(stderr).expect("UTF-8"),
    )
}

#[test]
fn check_config_says_ok_or_why_not() {
    assert_eq!(
        run(&["--check-config"]),
        (Some(0), "defaults: ok\n".into(), String::new())
    );
    let plain = file("plain.json");
    let ok = (Some(0), format!("{plain}: ok\n"), String::new());
    assert_eq!(run(&["--check-config", &plain]), ok);
    assert_eq!(
        run(&["--check-config", "--threads", "4", "--config", &plain]),
        ok
    );
    let listeners = file("listeners.json5");
    let out = format!(
        "{listeners}: ok\nwarning: {listeners}:5:73: servers[1].socket: is not used by ./servers/udp (for a unix \
         socket write server: \"./servers/tcp\" or \"./servers/unixgram\")\n"
    );
    assert_eq!(
        run(&["--check-config", &listeners]),
        (Some(0), out, String::new())
    );

    let (code, out, err) = run(&["--check-config", &file("problems.json")]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.ends_with(include_str!("config/problems.txt")), "{err}");
    assert!(
        err.starts_with("warning: tests/config/problems.json:4:35: "),
        "{err}"
    );
}

/// The program with these variables and no others.
fn run_with(variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_statsd-fast"))
        .env_clear()
        .envs(variables.iter().copied())
        .args(arguments)
        .output();
    said(output.expect("the program runs"))
}

/// What the kernel calls this machine.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("proc(5)");
    name.trim_end().to_owned()
}

#[test]
fn a_file_is_calculated_when_it_is_read() {
    let file = file("calculated.js");
    let name = host_name();
    let short = name.split('.').next().expect("a first part");
    let printed = run_with(
        &[("PORT", "9125"), ("BACKENDS", "graphite,console")],
        &["--print-config", &file],
    );
    let json = format!(
        r#"{{
  "port": "9125",
  "graphiteHost": "127.0.0.1",
  "graphitePort": 2003,
  "flushInterval": 10000,
  "backends": [
    "./backends/graphite",
    "console"
  ],
  "prefixStats": "statsd.{short}",
  "graphite": {{
    "legacyNamespace": false,
    "globalSuffix": "{}"
  }},
  "debug": false
}}
"#,
        name.replace('.', "_")
    );
    assert_eq!(printed, (Some(0), json, String::new()));

    let (code, out, err) = run_with(&[("BACKENDS", "console")], &["--print-config", &file]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("{\n  \"graphiteHost\": "), "{out}");
    assert_eq!(
        err,
        format!(
            "warning: {file}:3:9: the environment has no PORT, so this is undefined \
             (set it before the start, or write (process.env.PORT || \"a default\"))\n"
        )
    );

    let (code, out, err) = run_with(&[("PORT", "x")], &["--print-config", &file]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert_eq!(
        err,
        format!(
            "{file}:7:37: cannot read split of process.env.BACKENDS, which is not set\n  \
             hint: set it before the start, or write (process.env.BACKENDS || \"a default\")\n"
        )
    );
}

#[test]
fn what_is_printed_is_a_configuration_of_the_same_meaning() {
    let names = [
        "plain.json",
        "commented.js",
        "crlf.js",
        "bom.json",
        "listeners.json5",
        "calculated.js",
    ];
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for name in names {
        let (code, json, _) =
            run_with(&[("BACKENDS", "console")], &["--print-config", &file(name)]);
        assert_eq!(code, Some(0), "{name}");
        // The one thing that is not printed.
        let whole = json.replace(r#""token": "********""#, r#""token": "t""#);
        let again = directory.join(format!("whole-{name}"));
        std::fs::write(&again, whole).expect("a folder for tests");
        let printed = config::load(&again).expect(name);
        if name != "calculated.js" {
            assert_eq!(printed.config, load(name).expect(name).config, "{name}");
        }
        let again = directory.join(format!("printed-{name}"));
        std::fs::write(&again, &json).expect("a folder for tests");
        let again = again.to_str().expect("a path that is text");
        assert_eq!(run(&["--print-config", again]).1, json, "{name}");
    }
}

#[test]
fn what_is_secret_is_not_printed_and_flags_of_expressions_are() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join("secrets.js");
    let path = path.to_str().expect("a path that is text");
    let text = r"{
        backends: ['librato'],
        librato: {
            email: 'e', token: 'hush', proxy: { uri: 'http://me:hush@proxy:3128' },
            sourceRegex: /^(WEB)\./i, includeMetrics: [/a.b/gs, /^x\/y/, /\p{Lu}/u],
        },
    }";
    std::fs::write(path, text).expect("a folder for tests");
    let (code, json, notes) = run(&["--print-config", path]);
    assert_eq!(code, Some(0), "{notes}");
    assert!(!json.contains("hush"), "{json}");
    assert!(json.contains(r#""token": "********""#), "{json}");
    assert!(
        json.contains(r#""uri": "http://********@proxy:3128""#),
        "{json}"
    );
    let notes: Vec<_> = notes.lines().collect();
    assert_eq!(
        notes,
        [
            format!(
                "note: {path}: ******** hides what is secret in librato.token, librato.proxy.uri; \
                 write it in before this is used"
            ),
            format!(
                "note: {path}: the flags of the regular expression in librato.includeMetrics[2] cannot \
                 be written as JSON; keep the expression as it is in the file"
            ),
        ]
    );
    let read = |text: &str| match &parse(text).config.backends[..] {
        [Backend::Librato(options)] => (**options).clone(),
        other => panic!("{other:?}"),
    };
    let again = parse(&json);
    assert_eq!(
        warnings(&again)[0],
        "cfg:7:14: librato.token: ******** is what --print-config shows in its place \
         (write the secret itself)"
    );
    let (written, printed) = (read(text), read(&json));
    for name in ["web.a", "WEB.a", "web", "a\nb", "x/y", "ax/y"] {
        let source = |options: &librato::Options| {
            let regex = options.source_regex.as_ref().expect("one");
            regex.first_group(name)
        };
        assert_eq!(source(&written), source(&printed), "{name:?}");
        let included = |options: &librato::Options| {
            let found = options.include[..2].iter().map(|it| it.is_match(name));
            found.collect::<Vec<_>>()
        };
        assert_eq!(included(&written), included(&printed), "{name:?}");
    }
    let regex = printed.source_regex.as_ref().expect("one");
    let found = regex.first_group("web.a").expect("it is quick");
    assert!(found.is_some(), "the flag is still there");
}

#[test]
fn print_config_ends_as_check_config_does() {
    assert_eq!(
        run(&["--print-config"]),
        (Some(0), "{}\n".into(), String::new())
    );
    let problems = file("problems.json");
    let (code, out, err) = run(&["--print-config", &problems]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert_eq!(err, run(&["--check-config", &problems]).2);
    let (code, _, err) = run(&["--print-config", "--check-config"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("cannot be used with"), "{err}");
}

const MACHINE: [(&str, &str); 2] = [("HOST", "web-1.eu.example.org"), ("PORT", "8126")];

#[test]
fn expressions_have_the_values_of_javascript() {
    let (code, out, err) = run_with(&MACHINE, &["--print-config", &file("expressions.js")]);
    assert_eq!(code, Some(0), "{err}");
    let want = include_str!("config/expressions.json");
    for (ours, wanted) in out.lines().zip(want.lines()) {
        assert_eq!(ours, wanted, "{out}");
    }
    assert_eq!(out.len(), want.len());
    let others = err.lines().filter(|line| !line.contains("unknown key"));
    assert_eq!(others.count(), 1, "graphiteHost is missing: {err}");
}

#[test]
fn node_agrees_with_the_values_of_the_expressions() {
    let program = "const text = require('fs').readFileSync(process.argv[1], 'utf8'); \
                   console.log(JSON.stringify(eval('config = ' + text), null, 2));";
    let node = Command::new("node")
        .env_remove("NOT_SET")
        .envs(MACHINE)
        .args(["-e", program, &file("expressions.js")])
        .output();
    match node {
        Ok(output) => {
            let (code, out, err) = said(output);
            assert_eq!((code, err.as_str()), (Some(0), ""));
            assert_eq!(out, include_str!("config/expressions.json"));
        }
        Err(error) => eprintln!("skipped: node does not start: {error}"),
    }
}

#[test]
fn a_wrong_configuration_stops_the_start() {
    let (code, out, err) = run(&[&file("missing.js")]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(
        err.starts_with("tests/config/missing.js: cannot be read: No such file"),
        "{err}"
    );
}

#[test]
fn wrong_arguments_are_told_from_wrong_runs() {
    for arguments in [
        &["--config", "a", "b"][..],
        &["--threads", "0"],
        &["--threads", "1025"],
        &["--threads", "x"],
        &["--no-such-option"],
        &["a", "b"],
    ] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(err.starts_with("error: "), "{arguments:?}: {err}");
    }
}

#[test]
fn help_and_version_are_there() {
    let (code, out, err) = run(&["--version"]);
    assert_eq!(
        (code, out, err.as_str()),
        (
            Some(0),
            format!("statsd-fast {}\n", env!("CARGO_PKG_VERSION")),
            ""
        )
    );
    let (code, out, err) = run(&["--help"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for piece in [
        "Usage: statsd-fast [OPTIONS] [CONFIG]",
        "--check-config",
        "--print-config",
        "--threads <N>",
        "Examples:",
        "Exit codes:",
    ] {
        assert!(out.contains(piece), "{piece}: {out}");
    }
}

#[test]
fn the_file_shown_in_help_can_be_used() {
    let help = include_str!("../src/help.txt");
    let start = help.find("  {\n").expect("a file begins");
    let end = start + help[start..].find("  }\n").expect("it ends") + 3;
    let loaded = parse(&help[start..end]);
    assert_eq!(loaded.warnings, []);
    assert_eq!(
        loaded.config.flush.thresholds,
        [threshold(90.0, "90"), threshold(99.0, "99")]
    );
}

#[test]
fn a_host_with_a_port_in_it_is_noticed() {
    for host in ["localhost:2003", "http://localhost"] {
        let loaded = parse(&format!("{{graphiteHost: '{host}'}}"));
        let warning = loaded.warnings[0].to_string();
        assert!(warning.contains("is no host name"), "{warning}");
        assert!(
            warning.contains("the port goes into graphitePort"),
            "{warning}"
        );
    }
    for host in ["localhost", "::1", "carbon.example.org"] {
        assert_eq!(parse(&format!("{{graphiteHost: '{host}'}}")).warnings, []);
    }
}

#[test]
fn what_is_written_in_vain_is_said() {
    let text = "{port: 1, servers: [{port: 2}], repeater: [{host: 'a', port: 1}], backends: []}";
    let said = warnings(&parse(text));
    let vain: Vec<_> = said
        .iter()
        .filter(|line| line.contains("is not used"))
        .collect();
    assert_eq!(
        vain,
        [
            "cfg:1:8: port: is not used, since servers is written (write it into the entries of servers)",
            "cfg:1:43: repeater: is not used: no backend is the repeater (add \"./backends/repeater\" to backends)",
        ]
    );
    let said = warnings(&parse("{backends: ['repeater']}"));
    assert!(
        said.iter()
            .any(|line| line.contains("the repeater has nobody to repeat to")),
        "{said:?}"
    );
}

#[test]
fn a_file_that_is_something_else_is_not_told_line_by_line() {
    let keys: String = (0..1000).map(|n| format!("k{n}: 1, ")).collect();
    let said = warnings(&parse(&format!("{{{keys} backends: ['console']}}")));
    assert_eq!(said.len(), 101);
    assert_eq!(said[100], "cfg: and 900 more of the kind");
    let faults = problems(&format!("[{}]", "x, ".repeat(1000)));
    assert_eq!(faults.len(), 101);
}

/// A file of the proxy, in the manner of those that StatsD's proxy has.
const PROXY: &str = "
    /* nodes and ports */
    {
    nodes: [
    {host: '10.0.0.1', port: 8127, adminport: 8128},
    {host: 'b.example.org', port: '8129', adminport: '8130'},
    {host: '[::1]', port: 8131, adminport: 8132}
    ],
    server: './servers/tcp',
    host:  '0.0.0.0',
    port: 8125,
    udp_version:'udp4',
    mgmt_port: 8126,
    forkCount: 'auto',
    checkInterval: 1000,
    cacheSize: 100 * 100
    }";

#[test]
fn a_file_of_the_proxy_of_statsd_loads_as_it_is() {
    let loaded = config::parse_proxy(PROXY, "cfg").expect("a good file");
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "cfg:10:5: host: has no effect, in StatsD neither (remove it)",
            "cfg:12:5: udp_version: has no effect, in StatsD neither (remove it)",
        ]
    );
    let config = loaded.config;
    let node = |label: &str, host: &str, port| proxy::Node {
        label: label.into(),
        host: host.into(),
        port,
        admin_port: port + 1,
    };
    let nodes = [
        node("10.0.0.1:8127", "10.0.0.1", 8127),
        node("b.example.org:8129", "b.example.org", 8129),
        node("[::1]:8131", "::1", 8131),
    ];
    assert_eq!(config.proxy.nodes, nodes);
    assert_eq!(config.proxy.health.interval, Duration::from_secs(1));
    assert_eq!(config.proxy.digests, 10_000);
    assert_eq!(config.threads, None, "one for each core");
    assert!(matches!(
        config.listeners.as_slice(),
        [Listen::Stream(stream::Options {
            at: At::Tcp { port: 8125, .. },
            ..
        })]
    ));
}

#[test]
fn forks_of_the_proxy_are_threads() {
    let threads = |forks: &str| {
        let text = format!("{{nodes: [{{host: 'h', port: 1, adminport: 2}}], {forks}}}");
        let loaded = config::parse_proxy(&text, "cfg").unwrap_or_else(|error| panic!("{error}"));
        loaded.config.threads
    };
    assert_eq!(threads("forkCount: 3"), Some(3));
    assert_eq!(threads("forkCount: '4'"), Some(4));
    assert_eq!(threads("forkCount: 1"), Some(1));
    assert_eq!(threads("forkCount: false"), Some(1));
    assert_eq!(threads("forkCount: 'auto', threads: 2"), Some(2));
}

#[test]
fn what_is_wrong_in_a_file_of_the_proxy_is_all_said() {
    let problems = |text: &str| {
        let error = config::parse_proxy(text, "cfg").expect_err(text);
        let lines = error
            .problems
            .iter()
            .map(|it| format!("{}: {}", it.key, it.message));
        lines.collect::<Vec<_>>()
    };
    assert_eq!(problems("{}"), ["nodes: there is nobody to forward to"]);
    assert_eq!(
        problems("{nodes: []}"),
        ["nodes: there is nobody to forward to"]
    );
    assert_eq!(
        problems("{nodes: [{port: 8125, adminport: 0}, 'h:1'], forkCount: 'many', holdDown: -1}"),
        [
            "nodes[0].host: expected a name or an address, found none",
            "nodes[0].adminport: expected a port from 1 to 65535, found 0",
            "nodes[1]: expected a node, found \"h:1\"",
            "forkCount: expected \"auto\" or a number up to 1024, found \"many\"",
            "holdDown: expected a number of milliseconds from 0 to 86400000, found -1",
        ]
    );
    let odd = "{nodes: [{host: 'h', port: 1, adminport: 2, weight: 3},
                {host: 'h', port: '1', adminport: 3}], graphiteHost: 'g', packng: true}";
    let loaded = config::parse_proxy(odd, "cfg").expect("it can be used");
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "cfg:1:45: nodes[0].weight: unknown key, ignored",
            "cfg:2:17: nodes[1]: the node h:1 is there already, it counts once (remove one of the two)",
            "cfg:2:56: graphiteHost: unknown key, ignored",
            "cfg:2:75: packng: unknown key, ignored (did you mean packing?)",
        ]
    );
    assert_eq!(loaded.config.proxy.nodes.len(), 1);
    let daemon = config::parse("{nodes: [], backends: []}", "cfg").expect("it can be used");
    assert_eq!(
        daemon.warnings[0].to_string(),
        "cfg:1:2: nodes: unknown key, ignored (a file of the proxy? start it with: statsd-fast proxy \
         --config FILE)",
    );
}

#[test]
fn the_command_of_the_proxy_needs_a_file_and_has_the_options_of_the_server() {
    let proxy = |arguments: &[&str]| {
        let program = env!("CARGO_BIN_EXE_statsd-fast");
        let mut command = Command::new(program);
        let output = command.arg("proxy").args(arguments).output();
        output.expect("it starts")
    };
    let output = proxy(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a configuration file is needed"));
    let file = std::env::temp_dir().join(format!("proxy-{}.js", std::process::id()));
    std::fs::write(&file, PROXY).expect("the file can be written");
    let path = file.to_str().expect("a path that is text");
    let output = proxy(&["--check-config", path]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.starts_with(&format!("{path}: ok\nwarning: ")),
        "{said}"
    );
    let output = proxy(&["--print-config", "--config", path]);
    let json = String::from_utf8_lossy(&output.stdout);
    assert!(
        json.contains("\"cacheSize\":10000") || json.contains("\"cacheSize\": 10000"),
        "{json}"
    );
    std::fs::remove_file(&file).expect("it is there");
    let output = proxy(&["--check-config", "tests/config/plain.json"]);
    assert_eq!(
        output.status.code(),
        Some(2),
        "a file of a server has no nodes"
    );
}
