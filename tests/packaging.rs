//! What is shipped beside the program is true: the example configuration has every key as the sources have it,
//! the unit and the image start what is there.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{Directory, FakeCarbon, Process, config_without_ticks, skip_for_want_of};
use serde_json::json;
use statsd_fast::config::settings::{Effect, SETTINGS};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

const EXAMPLE: &str = include_str!("../packaging/config.js");
const UNIT: &str = include_str!("../packaging/statsd-fast.service");
const IMAGE: &str = include_str!("../Dockerfile");
const CONTEXT: &str = include_str!("../.dockerignore");
const SECURITY: &str = include_str!("../SECURITY.md");
const PAGE: &str = include_str!("../README.md");

/// Where everything shipped expects the two.
const PROGRAM: &str = "/usr/bin/statsd-fast";
const CONFIGURATION: &str = "/etc/statsd-fast/config.js";

/// The key of a line of the example that takes comments away to be set.
fn commented(line: &str) -> Option<(&str, &str)> {
    let (key, _) = line.trim_start().strip_prefix("// ")?.split_once(": ")?;
    let is_key = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (is_key && line.ends_with(',')).then_some((key, line))
}

/// What `--check-config` says of a text, below the first line; the file must be good.
fn checked(text: &str) -> Vec<String> {
    let directory = Directory::create();
    let file = directory.path().join("config.js");
    fs::write(&file, text).expect("the file can be written");
    let output = Command::new(env!("CARGO_BIN_EXE_statsd-fast"))
        .arg("--check-config")
        .arg(&file)
        .output()
        .expect("it starts");
    let said = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}{errors}");
    said.lines().skip(1).map(String::from).collect()
}

#[test]
fn every_key_stands_in_the_example_as_the_sources_have_it() {
    let mut missing = Vec::new();
    for setting in SETTINGS {
        let mut groups: Vec<_> = setting.name.split('.').collect();
        let key = groups.pop().expect("a name");
        let indent = "  ".repeat(groups.len() + 1);
        let effect = match setting.effect {
            Effect::Now => "",
            Effect::Later => " It has no effect yet.",
            Effect::Never => " It has no effect.",
        };
        let lines = format!(
            "\n{indent}// {}{effect}\n{indent}// {key}: {},\n",
            setting.help, setting.default
        );
        // What is inside a group stands between its own braces.
        let mut place = EXAMPLE.to_owned();
        for (depth, group) in groups.iter().enumerate() {
            let indent = "  ".repeat(depth + 1);
            let inside = place
                .split_once(&format!("\n{indent}{group}: {{\n"))
                .and_then(|(_, rest)| rest.split_once(&format!("\n{indent}}},\n")))
                .map_or("", |(inside, _)| inside);
            // The first line of a group has no newline before it, the last none behind it.
            place = format!("\n{inside}\n");
        }
        if !place.contains(&lines) {
            missing.push(lines);
        }
    }
    assert!(
        missing.is_empty(),
        "these belong there:\n{}",
        missing.concat()
    );
    let keys = EXAMPLE.lines().filter_map(commented).count();
    assert_eq!(keys, SETTINGS.len(), "keys that no longer exist");
}

#[test]
fn the_example_loads_as_it_is() {
    assert_eq!(checked(EXAMPLE), [""; 0]);
    let set: Vec<_> = EXAMPLE
        .lines()
        .filter(|line| line.starts_with("  ") && !line.trim_start().starts_with("//"))
        .filter(|line| !line.ends_with('{') && !line.ends_with("},"))
        .collect();
    assert_eq!(set, ["  graphiteHost: \"127.0.0.1\","]);
}

#[test]
fn the_example_loads_with_every_key_set() {
    let lines = EXAMPLE.lines().map(|line| match commented(line) {
        // It is set already.
        Some(("graphiteHost", _)) => String::new(),
        Some((_, line)) => line.replacen("// ", "", 1),
        None => line.to_owned(),
    });
    let text: Vec<_> = lines.collect();
    let warnings = checked(&text.join("\n"));
    // A key that does nothing says so in the example.
    let unexplained: Vec<_> = warnings
        .iter()
        .filter(|warning| !warning.contains("has no effect"))
        .collect();
    assert_eq!(unexplained, [""; 0]);
}

/// The values a unit gives a key, in order.
fn of_unit(key: &str) -> Vec<&'static str> {
    let found: Vec<_> = UNIT
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .collect();
    assert!(!found.is_empty(), "the unit has no {key}");
    found
}

/// The default of a setting that is a number.
fn number(name: &str) -> u64 {
    let setting = SETTINGS.iter().find(|setting| setting.name == name);
    let default = setting.expect("a setting").default;
    default.parse().expect("a number")
}

#[test]
fn the_unit_has_sections_keys_and_remarks_only() {
    for line in UNIT.lines() {
        let is_key = line
            .split_once('=')
            .is_some_and(|(key, _)| key.chars().all(char::is_alphanumeric));
        let is_section = line.starts_with('[') && line.ends_with(']');
        assert!(
            line.is_empty() || line.starts_with('#') || is_section || is_key,
            "{line}"
        );
    }
}

#[test]
fn the_unit_starts_the_program_with_options_it_has() {
    assert_eq!(of_unit("ExecStart"), [format!("{PROGRAM} {CONFIGURATION}")]);
    assert_eq!(of_unit("ExecReload"), ["/bin/kill -HUP $MAINPID"]);
    let help = Command::new(env!("CARGO_BIN_EXE_statsd-fast"))
        .arg("--help")
        .output()
        .expect("it starts");
    let help = String::from_utf8(help.stdout).expect("text");
    let shipped = [UNIT, EXAMPLE].concat();
    let options: Vec<_> = shipped
        .lines()
        .filter(|line| line.contains("statsd-fast "))
        .flat_map(|line| line.split_whitespace())
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .collect();
    assert!(options.contains(&"--check-config"), "{options:?}");
    for option in options {
        assert!(help.contains(option), "{option} is no option");
    }
}

#[test]
fn the_unit_leaves_room_for_what_the_program_does_by_default() {
    let stop_s: u64 = of_unit("TimeoutStopSec")[0].parse().expect("seconds");
    // Five seconds each for the sockets and for a slow disk, and one to spare.
    assert!(stop_s * 1000 >= number("stopDeadline") + 11_000);
    let descriptors: u64 = of_unit("LimitNOFILE")[0].parse().expect("a number");
    assert!(descriptors > number("streamConnections") + number("mgmt_connections"));
    assert_eq!(of_unit("Type"), ["notify"]);
    for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert_eq!(of_unit(key), ["CAP_NET_ADMIN"], "no more than needed");
    }
    // Its own directories, as the text of the unit calls them.
    for (key, parent) in [
        ("RuntimeDirectory", "/run/"),
        ("LogsDirectory", "/var/log/"),
        ("StateDirectory", "/var/lib/"),
    ] {
        let path = format!("{parent}{}", of_unit(key)[0]);
        assert!(UNIT.contains(&format!(" {path}")), "{path}");
    }
}

#[test]
fn the_image_holds_and_starts_the_same() {
    let has = |line: &str| IMAGE.lines().any(|found| found == line);
    assert!(has(&format!(
        "COPY --from=build /build/target/release/statsd-fast {PROGRAM}"
    )));
    assert!(has(&format!("COPY packaging/config.js {CONFIGURATION}")));
    assert!(has("ENTRYPOINT [\"statsd-fast\"]"));
    assert!(has(&format!("CMD [\"{CONFIGURATION}\"]")));
    assert!(has("RUN cargo build --release --locked --bin statsd-fast"));
    assert!(has("STOPSIGNAL SIGTERM"));
    let (port, admin) = (number("port"), number("mgmt_port"));
    assert!(has(&format!("EXPOSE {port}/udp {port}/tcp {admin}/tcp")));
    let user = IMAGE
        .lines()
        .find_map(|line| line.strip_prefix("USER "))
        .and_then(|user| user.split(':').next());
    let user: u32 = user.expect("a user").parse().expect("a number");
    assert_ne!(user, 0, "root");
    // The compiler the program is written for.
    let version = env!("CARGO_PKG_RUST_VERSION");
    assert!(has(&format!("FROM rust:{version}-bookworm AS build")));
}

#[test]
fn the_image_is_built_from_what_the_build_reads() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let let_in: Vec<_> = CONTEXT
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .collect();
    assert_eq!(
        CONTEXT.lines().find(|line| !line.starts_with('#')),
        Some("*")
    );
    for path in &let_in {
        assert!(root.join(path).exists(), "{path}");
    }
    let needed = [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "loadgen",
        "benches",
        "packaging/config.js",
    ];
    for path in needed {
        assert!(let_in.contains(&path), "{path} is left out");
    }
}

#[test]
fn the_page_names_the_same_paths() {
    for (path, begin) in [
        (PROGRAM, "/usr/bin/statsd"),
        (CONFIGURATION, "/etc/statsd-fast"),
    ] {
        for (at, _) in PAGE.match_indices(begin) {
            let line = PAGE[at..].lines().next().expect("a line");
            assert!(line.starts_with(path), "{line}");
        }
    }
}

/// Whether a program is there. In CI it has to be.
fn is_there(program: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    let there = output.is_ok_and(|output| output.status.success());
    if !there {
        skip_for_want_of(&format!("{program} is not there"));
    }
    there
}

fn systemd_analyze(arguments: &[&str]) -> String {
    let output = Command::new("systemd-analyze").args(arguments).output();
    let output = output.expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// The exposure that systemd reckons for the unit, 0 to 10, as the page about security has it.
const EXPOSURE: &str = "1.6";

#[test]
fn the_unit_exposes_no_more_than_is_said() {
    let said = format!("an exposure of {EXPOSURE}");
    assert!(SECURITY.contains(&said), "{said}");
    if !is_there("systemd-analyze") {
        return;
    }
    let root = env!("CARGO_MANIFEST_DIR");
    let unit = format!("{root}/packaging/statsd-fast.service");
    let report = systemd_analyze(&["security", "--offline=true", "--no-pager", &unit]);
    let (_, found) = report
        .rsplit_once("exposure level for statsd-fast.service: ")
        .expect(&report);
    let found: f64 = found
        .split(' ')
        .next()
        .and_then(|it| it.parse().ok())
        .expect("a number");
    let limit: f64 = EXPOSURE.parse().expect("a number");
    assert!(found <= limit, "{report}");
}

/// The calls a set of systemd has, those of the sets in it among them.
fn calls_of(set: &str) -> BTreeSet<String> {
    if !set.starts_with('@') {
        return [set.to_owned()].into();
    }
    let text = systemd_analyze(&["syscall-filter", "--no-pager", set]);
    let words = text.lines().skip(1).map(str::trim);
    let words = words.filter(|word| !word.is_empty() && !word.starts_with('#'));
    words.flat_map(calls_of).collect()
}

#[test]
fn the_unit_allows_what_the_program_calls() {
    if !is_there("systemd-analyze") || !is_there("strace") {
        return;
    }
    let mut allowed = BTreeSet::new();
    for line in of_unit("SystemCallFilter") {
        let (taken, sets) = match line.strip_prefix('~') {
            Some(sets) => (true, sets),
            None => (false, line),
        };
        for call in sets.split(' ').flat_map(calls_of) {
            if taken {
                allowed.remove(&call);
            } else {
                allowed.insert(call);
            }
        }
    }
    let directory = Directory::for_sockets();
    let place = |name: &str| directory.path().join(name);
    let carbon = FakeCarbon::start();
    let options = json!({
        "servers": [
            {"server": "./servers/unixgram", "socket": place("gram"), "socket_mod": "0660"},
            {"server": "./servers/tcp", "socket": place("stream")},
            {"server": "./servers/tcp", "address": "127.0.0.1", "port": "0"},
            {"server": "./servers/udp", "address": "127.0.0.1", "port": "0"},
        ],
        "flushInterval": 100,
        "stateFile": place("state"),
        "spoolDir": place("spool"),
        "takeoverSocket": place("takeover"),
        "keyFlush": {"interval": 100, "log": place("busiest")},
        "backends": ["graphite", "console", "repeater"],
        "repeater": [{"host": "127.0.0.1", "port": 9}],
        "title": "traced",
        "pinThreads": true,
    });
    let file = place("config.js");
    fs::write(&file, config_without_ticks(&carbon, options).to_string()).expect("written");
    let trace = place("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-o"]).arg(&trace);
    let mut process = Process::spawn(command.arg(env!("CARGO_BIN_EXE_statsd-fast")).arg(&file));
    if process.log.wait_until("a start, or none", |lines| {
        let up = lines.iter().any(|line| line.contains("server is up"));
        let refused = lines.iter().any(|line| line.contains("ptrace"));
        (up || refused).then_some(refused)
    }) {
        println!("SKIPPED: no process may be traced here");
        return;
    }
    let client = UnixDatagram::unbound().expect("a socket");
    client
        .send_to(b"c:1|c\ng:1|g", place("gram"))
        .expect("it listens");
    while !carbon.next().values.contains_key("stats.gauges.g") {}
    let line = process.log.wait_for("pid ");
    let pid = line
        .split("pid ")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    let mut pid = pid.expect("a number").to_owned();
    for name in ["HUP", "USR2", "TERM"] {
        let kill = format!("kill -{name} {pid}");
        let status = Command::new("sh").args(["-c", &kill]).status();
        assert!(status.expect("sh starts").success());
        if name == "HUP" {
            process.log.wait_for("the configuration was taken over");
        }
        if name == "USR2" {
            // The next process is traced like this one.
            let line = process.log.wait_for("taken over by process ");
            let (_, rest) = line.split_once("by process ").expect("as found");
            rest.split(':')
                .next()
                .expect("a number")
                .clone_into(&mut pid);
        }
    }
    assert_eq!(process.wait_exit().code(), Some(0));
    let trace = fs::read_to_string(&trace).expect("a trace");
    let called: BTreeSet<_> = trace
        .lines()
        .filter_map(|line| line.split_once('(')?.0.rsplit(' ').next())
        .filter(|call| !call.is_empty())
        .filter(|call| {
            call.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
        .map(String::from)
        .collect();
    let musts = [
        "recvmmsg",
        "sched_setaffinity",
        "rename",
        "fdatasync",
        "execve",
        "sendmsg",
    ];
    for must in musts {
        assert!(called.contains(must), "the trace shows {must}: {called:?}");
    }
    let outside: Vec<_> = called.difference(&allowed).collect();
    assert_eq!(outside, [""; 0], "the unit would refuse these");
}

#[test]
fn the_page_about_security_names_every_place_of_unsafe_code() {
    for place in ["src/runtime/sys/", "src/ingest/scan.rs"] {
        assert!(SECURITY.contains(&format!("`{place}`")), "{place}");
    }
    for key in [
        "user",
        "group",
        "mgmt_address",
        "stateFile",
        "librato.token",
    ] {
        assert!(SECURITY.contains(&format!("`{key}`")), "{key}");
        assert!(SETTINGS.iter().any(|setting| setting.name == key), "{key}");
    }
}
