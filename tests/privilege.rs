//! Started as root, the program becomes the user it is told once its sockets are bound: all of it, in every
//! thread, and goes on working. It writes to no file but those it is told of.
//!
//! Most of it takes root to try, and is skipped without.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{
    DEADLINE, Daemon, Directory, FakeCarbon, Process, config_without_ticks, deaf_socket,
    skip_for_want_of,
};
use serde_json::{Value, json};
use statsd_fast::deliver::spool::record;
use statsd_fast::metric::snapshot::Snapshot;
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A user without an entry in any list, and its group.
const USER: u32 = 43_210;
const GROUP: u32 = 43_211;

fn is_root() -> bool {
    let told = fs::metadata("/proc/self").expect("proc(5)").uid() == 0;
    if !told {
        println!("SKIPPED: only root can become somebody else");
    }
    told
}

/// A directory that anybody may look into, and one inside that is that user's.
fn directories() -> (Directory, PathBuf) {
    let outside = Directory::for_sockets();
    let open = Permissions::from_mode(0o755);
    fs::set_permissions(outside.path(), open).expect("our own directory");
    let inside = outside.path().join("theirs");
    fs::create_dir(&inside).expect("made");
    chown(&inside, Some(USER), Some(GROUP)).expect("root may");
    (outside, inside)
}

fn with_user(carbon: &FakeCarbon, mut options: Value) -> Value {
    options["user"] = json!(USER);
    options["group"] = json!(GROUP.to_string());
    config_without_ticks(carbon, options)
}

/// A port that takes a privilege to bind.
fn privileged_port() -> Option<u16> {
    let limit = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok()?;
    let limit: u16 = limit.trim().parse().ok()?;
    (600..limit).find(|port| UdpSocket::bind(("127.0.0.1", *port)).is_ok())
}

/// Nothing tells of a file that is written: it is looked at again and again.
fn wait_for_text(file: &Path, text: &str) {
    let until = Instant::now() + DEADLINE;
    while !fs::read_to_string(file).is_ok_and(|found| found.contains(text)) {
        assert!(Instant::now() < until, "no {text} in {}", file.display());
        std::thread::yield_now();
    }
}

/// What /proc says of every thread of a process, by the names of the lines.
fn statuses(process: &Process) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).expect("it runs");
    let read = |task: fs::DirEntry| fs::read_to_string(task.path().join("status"));
    let tasks = tasks.map(|task| task.expect("an entry"));
    tasks.filter_map(|task| read(task).ok()).collect()
}

fn has_nothing_of_root_left(process: &Process, threads: usize) {
    let statuses = statuses(process);
    assert!(statuses.len() >= threads, "{} threads", statuses.len());
    for status in statuses {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let words = line.expect("a field").split_whitespace();
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            field("Uid:"),
            format!("{USER} {USER} {USER} {USER}"),
            "{status}"
        );
        assert_eq!(
            field("Gid:"),
            format!("{GROUP} {GROUP} {GROUP} {GROUP}"),
            "{status}"
        );
        assert_eq!(field("Groups:"), GROUP.to_string(), "{status}");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set} {status}");
        }
        assert_eq!(field("NoNewPrivs:"), "1", "{status}");
    }
}

#[test]
fn what_takes_root_is_done_and_nothing_of_root_is_left() {
    if !is_root() {
        return;
    }
    let (_outside, inside) = directories();
    let (state, socket) = (inside.join("state"), inside.join("socket"));
    let spool = inside.join("spool");
    let carbon = FakeCarbon::start();
    let mut listeners = vec![
        json!({"server": "./servers/unixgram", "socket": socket, "socket_mod": "0660"}),
        json!({"server": "./servers/udp", "address": "127.0.0.1", "port": "0"}),
    ];
    if let Some(port) = privileged_port() {
        listeners.push(json!({"server": "./servers/udp", "address": "127.0.0.1", "port": port}));
    }
    let count = listeners.len() as f64 - 1.0;
    let options = json!({
        "servers": listeners,
        "stateFile": state,
        "spoolDir": spool,
        "keyFlush": {"interval": 100, "log": inside.join("busiest")},
        "title": "started",
    });
    let options = with_user(&carbon, options);
    let daemon = Daemon::start(&options, &["--threads", "2"]);
    daemon.wait_for_line(&format!(
        "running as user {USER} ({USER}), group {GROUP}, without any privilege"
    ));
    // Workers, a backend, the flusher, the admin interface and more.
    has_nothing_of_root_left(daemon.process(), 10);
    let made = fs::metadata(&socket).expect("bound");
    assert_eq!(
        (made.uid(), made.gid(), made.mode() & 0o777),
        (USER, GROUP, 0o660)
    );

    for address in daemon.listeners() {
        daemon::client_of(*address)
            .send(b"by.udp:1|c")
            .expect("loopback takes it");
    }
    let client = UnixDatagram::unbound().expect("a socket");
    client
        .send_to(b"by.unix:1|c\nlevel:7|g", &socket)
        .expect("it listens");
    wait_for_text(&inside.join("busiest"), "by.unix");
    // What a reload does is done as that user.
    let mut other = options.clone();
    other["title"] = json!("reloaded");
    other["prefixStats"] = json!("mine");
    fs::write(daemon.config_file(), other.to_string()).expect("written");
    daemon.signal("HUP");
    daemon.wait_for_line("the configuration was taken over");
    let name = fs::read_to_string(format!("/proc/{}/comm", daemon.process().id()));
    assert_eq!(name.expect("proc(5)").trim(), "reloaded");
    has_nothing_of_root_left(daemon.process(), 10);
    let lines = daemon.lines();
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!(flush.count("by.udp"), count);
    assert_eq!(flush.count("by.unix"), 1.0);
    let made = fs::metadata(&state).expect("written");
    assert_eq!(
        (made.uid(), made.gid(), made.mode() & 0o777),
        (USER, GROUP, 0o600)
    );
    for (path, mode) in [("", 0o700), ("graphite", 0o700), ("graphite/lock", 0o600)] {
        let made = fs::metadata(spool.join(path)).expect("made");
        let found = (made.uid(), made.gid(), made.mode() & 0o777);
        assert_eq!(found, (USER, GROUP, mode), "{path}");
    }
    assert!(!socket.exists(), "removed");
    let odd: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("ERROR") || line.contains("WARNING"))
        .filter(|line| {
            !line.contains("receive buffer") && !line.contains("since servers is written")
        })
        .collect();
    assert_eq!(odd, [""; 0]);
}

#[test]
fn a_successor_has_what_took_root_and_nothing_of_root() {
    if !is_root() {
        return;
    }
    let Some(port) = privileged_port() else {
        return;
    };
    let (outside, inside) = directories();
    // Where that user may start it.
    let program = outside.path().join("statsd-fast");
    fs::copy(env!("CARGO_BIN_EXE_statsd-fast"), &program).expect("a copy");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("our own file");
    let carbon = FakeCarbon::start();
    let options = json!({
        "servers": [{"server": "./servers/udp", "address": "127.0.0.1", "port": port}],
        "stateFile": inside.join("state"),
    });
    let file = outside.path().join("config.js");
    fs::write(&file, with_user(&carbon, options).to_string()).expect("written");
    let mut process = Process::spawn(Command::new(&program).arg(&file));
    process.log.wait_for("server is up");
    let send = || {
        let client = daemon::client_of(([127, 0, 0, 1], port).into());
        client.send(b"c:1|c").expect("loopback takes it");
    };
    send();
    process.signal("USR2");
    let line = process.log.wait_for("taken over by process ");
    let (_, rest) = line.split_once("by process ").expect("as found");
    let next = rest.split(':').next().expect("a number");
    let status = fs::read_to_string(format!("/proc/{next}/status")).expect("it runs");
    let is_theirs = format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}");
    assert!(status.contains(&is_theirs), "{status}");
    assert!(status.contains("CapPrm:\t0000000000000000"), "{status}");
    send();
    let kill = Command::new("sh")
        .args(["-c", &format!("kill -TERM {next}")])
        .status();
    assert!(kill.expect("sh starts").success());
    // Both print there, so that it ends with the later one.
    process.log.wait_for_end();
    assert_eq!(process.wait_exit().code(), Some(0));
    assert_eq!(carbon.next().count("c"), 2.0);
    let lines = process.log.lines();
    let granted = lines
        .iter()
        .filter(|line| line.contains("granted a worker"));
    let granted: Vec<_> = granted
        .filter_map(|line| line.split("asked, ").nth(1)?.split(' ').next())
        .collect();
    assert_eq!(granted.len(), 2);
    assert_eq!(granted[0], granted[1], "the buffer is what root was given");
}

#[test]
fn a_proxy_lets_go_of_root_too() {
    if !is_root() {
        return;
    }
    let directory = Directory::create();
    let file = directory.path().join("proxy.js");
    let config = json!({
        "nodes": [{"host": "127.0.0.1", "port": 1, "adminport": 1}],
        "address": "127.0.0.1", "port": "0", "mgmt_port": "0", "user": USER, "group": GROUP,
    });
    fs::write(&file, config.to_string()).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_statsd-fast"));
    let proxy = Process::spawn(command.arg("proxy").arg(&file));
    proxy.log.wait_for("server is up");
    has_nothing_of_root_left(&proxy, 4);
}

#[test]
fn what_the_user_cannot_reach_is_said_at_the_start() {
    if !is_root() {
        return;
    }
    let (outside, _) = directories();
    let mine = |name: &str| outside.path().join(name);
    let carbon = FakeCarbon::start();
    let (state, socket) = (mine("state"), mine("socket"));
    let options = json!({
        "server": "./servers/unixgram",
        "socket": socket,
        "stateFile": state,
        "spoolDir": mine("spool"),
        "keyFlush": {"interval": 60_000, "log": mine("busiest")},
    });
    let daemon = Daemon::spawn(&with_user(&carbon, options), &[]);
    daemon.wait_for_line("server is up");
    let denied = "Permission denied";
    for (begin, end) in [
        (
            "ERROR: stateFile: ",
            "give this user the right to write there; gauges and totals begin anew",
        ),
        ("ERROR: spool: ", "give this user the right to write there"),
        ("ERROR: keyFlush.log: ", "cannot be written by this user: "),
        (
            "WARNING: the socket file ",
            "will stay behind at the stop, since this user may not remove it",
        ),
    ] {
        let said = daemon.wait_for_line(begin);
        assert!(said.contains(end) && said.contains(denied), "{said}");
    }
    let made = fs::metadata(&socket).expect("bound all the same");
    assert_eq!((made.uid(), made.gid()), (USER, GROUP));
    drop(daemon.stop("TERM", &carbon));
    assert!(socket.exists() && !state.exists() && !mine("spool").exists());
    // The next one replaces it.
    let options = json!({"server": "./servers/unixgram", "socket": socket});
    let daemon = Daemon::start(&with_user(&carbon, options), &[]);
    daemon.wait_for_line("replaced the socket file");
}

#[test]
fn a_configuration_that_cannot_be_read_again_is_said() {
    if !is_root() {
        return;
    }
    let directory = Directory::create();
    let file = directory.path().join("secret.js");
    let config = json!({
        "address": "127.0.0.1", "port": "0", "mgmt_port": "0", "backends": ["console"],
        "user": USER, "group": GROUP,
    });
    fs::write(&file, config.to_string()).expect("written");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("our own file");
    let process = Process::spawn(Command::new(env!("CARGO_BIN_EXE_statsd-fast")).arg(&file));
    let said = process
        .log
        .wait_for("secret.js cannot be read by the user this process runs as");
    assert!(said.contains("WARNING"), "{said}");
}

#[test]
fn a_state_that_the_user_may_not_read_ends_the_start_and_stays_where_it_is() {
    if !is_root() {
        return;
    }
    let (_outside, inside) = directories();
    let state = inside.join("state");
    let carbon = FakeCarbon::start();
    // Root's own, left by a run as root.
    let options = config_without_ticks(&carbon, json!({"stateFile": state, "user": "root"}));
    let daemon = Daemon::start(&options, &[]);
    daemon.client().send(b"g:5|g").expect("loopback takes it");
    daemon.stop("TERM", &carbon);
    let before = fs::read(&state).expect("written");
    let mut daemon = Daemon::spawn(&with_user(&carbon, json!({"stateFile": state})), &[]);
    assert_eq!(daemon.wait_exit().code(), Some(2));
    let said = daemon.wait_for_line("it cannot be read: Permission denied");
    assert!(
        said.contains("give it to the user that this process runs as, with chown"),
        "{said}"
    );
    assert_eq!(fs::read(&state).expect("untouched"), before);
    assert!(!inside.join("state.refused").exists());
    chown(&state, Some(USER), Some(GROUP)).expect("root may");
    let daemon = Daemon::start(&with_user(&carbon, json!({"stateFile": state})), &[]);
    daemon.wait_for_line("stateFile: 1 gauges");
}

#[test]
fn flushes_that_the_user_may_not_read_stay_where_they_are() {
    if !is_root() {
        return;
    }
    let (_outside, inside) = directories();
    let place = inside.join("graphite");
    let owned = |path: &Path| chown(path, Some(USER), Some(GROUP)).expect("root may");
    fs::create_dir(&place).expect("made");
    owned(&place);
    // Root's own, left by a run as root.
    let file = |number: i64| place.join(format!("{number:020}.flush"));
    for number in 1..=3 {
        let bytes = record::encode(&Snapshot {
            timestamp: number,
            ..Snapshot::default()
        });
        fs::write(file(number), bytes).expect("written");
        fs::set_permissions(file(number), Permissions::from_mode(0o600)).expect("our own");
    }
    owned(&file(3));
    let carbon = FakeCarbon::start();
    let config = with_user(&carbon, json!({"spoolDir": inside}));
    let daemon = Daemon::start(&config, &[]);
    let said = daemon.wait_for_line("it cannot be read: Permission denied");
    assert!(
        said.contains("it stays there: give it to the user that this process runs as, with chown"),
        "{said}"
    );
    assert_eq!(carbon.next().timestamp, 3);
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!(flush.number("stats.statsd_fast.flushes_dropped"), 0.0);
    assert_eq!(flush.number("stats.statsd_fast.spool.errors"), 2.0);
    assert!(file(1).exists() && file(2).exists() && !file(3).exists());
    assert!(!place.join("refused").exists());
}

#[test]
fn a_user_or_group_that_is_not_there_is_named() {
    let directory = Directory::create();
    let file = directory.path().join("config.js");
    for (key, config) in [
        ("user", json!({"user": "no such user"})),
        ("group", json!({"user": "root", "group": "no such group"})),
    ] {
        fs::write(&file, config.to_string()).expect("written");
        for option in [&["--check-config"][..], &[]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_statsd-fast"));
            let output = command.args(option).arg(&file).output().expect("it starts");
            let said = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(2), "{said}");
            let what = format!("{key}: there is no {key} \"no such {key}\" on this machine");
            assert!(said.contains(&what), "{said}");
        }
    }
}

#[test]
fn root_that_stays_root_is_warned_once_unless_it_is_meant() {
    if !is_root() {
        return;
    }
    let warnings = |options: Value| {
        let carbon = FakeCarbon::start();
        let mut daemon = Daemon::start(&config_without_ticks(&carbon, options), &[]);
        daemon.terminate();
        let lines = daemon.lines();
        let warnings = lines
            .iter()
            .filter(|line| line.contains("WARNING: this process is root"));
        let warnings: Vec<_> = warnings.cloned().collect();
        (warnings.len(), warnings.concat())
    };
    let (count, said) = warnings(json!({}));
    assert_eq!(count, 1);
    assert!(
        said.contains("write `user` into the configuration"),
        "{said}"
    );
    assert_eq!(warnings(json!({"user": "root"})).0, 0);
    assert_eq!(warnings(json!({"user": 0})).0, 0);
}

#[test]
fn who_is_not_root_goes_on_as_who_it_is() {
    if !is_root() {
        return;
    }
    let directory = Directory::for_sockets();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("our own");
    let file = directory.path().join("config.js");
    let program = directory.path().join("statsd-fast");
    fs::copy(env!("CARGO_BIN_EXE_statsd-fast"), &program).expect("copied");
    let start = |user: Value| {
        let config = json!({
            "address": "127.0.0.1", "port": "0", "mgmt_port": "0", "backends": ["console"],
            "user": user, "group": GROUP,
        });
        fs::write(&file, config.to_string()).expect("written");
        let mut command = Command::new(&program);
        let process = Process::spawn(command.arg(&file).uid(USER).gid(GROUP));
        process.log.wait_for("server is up");
        let lines = process.log.lines();
        let said = lines.iter().filter(|line| line.contains("WARNING: user: "));
        said.cloned().collect::<Vec<_>>()
    };
    assert_eq!(start(json!(USER)), [""; 0]);
    let said = start(json!("root"));
    assert_eq!(said.len(), 1);
    let expected =
        format!("user: only root can become root; this process goes on as the user {USER}");
    assert!(said[0].contains(&expected), "{said:?}");
}

/// The calls of a trace that change a file or make one, each with its path.
fn changes(trace: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in trace.lines().filter(|line| !line.contains(") = -1 ")) {
        let Some((call, arguments)) = line.split_once('(') else {
            continue;
        };
        // Behind the number of the thread.
        let call = call.rsplit(' ').next().unwrap_or(call);
        let opens = ["open", "openat", "creat"].contains(&call);
        let writes = ["O_WRONLY", "O_RDWR", "O_CREAT"]
            .iter()
            .any(|flag| arguments.contains(flag));
        let looks = [
            "access",
            "execve",
            "faccessat",
            "faccessat2",
            "getcwd",
            "lstat",
            "newfstatat",
            "readlink",
            "readlinkat",
            "stat",
            "statfs",
            "statx",
            "chdir",
        ];
        if looks.contains(&call) || opens && !writes {
            continue;
        }
        // Paths stand in quotes.
        found.extend(arguments.split('"').skip(1).step_by(2).map(String::from));
    }
    found
}

#[test]
fn it_writes_nowhere_but_where_it_is_told() {
    let strace = Command::new("strace").arg("-V").output();
    if !strace.is_ok_and(|it| it.status.success()) {
        skip_for_want_of("strace is not there");
        return;
    }
    let directory = Directory::for_sockets();
    let place = |name: &str| directory.path().join(name);
    // A backend that is away, so that flushes go to the disk.
    let (_away, carbon) = deaf_socket();
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
        "keyFlush": {"interval": 100, "log": place("busiest")},
        "backends": ["graphite", "console"],
        "title": "traced",
        "log": {"backend": "stdout"},
    });
    let file = place("config.js");
    let mut config = daemon::config(carbon.port());
    for (key, value) in options.as_object().expect("an object") {
        config[key] = value.clone();
    }
    let options = config;
    fs::write(&file, options.to_string()).expect("written");
    let trace = place("trace");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-s", "4096", "-e", "trace=file", "-o"])
        .arg(&trace);
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
    process.log.wait_until("a state and a report", |_| {
        let has = |name, what| fs::read_to_string(place(name)).is_ok_and(|it| it.contains(what));
        let spooled = fs::read_dir(place("spool/graphite")).map_or(0, Iterator::count);
        (has("state", "\"g\"") && has("busiest", "c") && spooled > 1).then_some(())
    });
    let line = process.log.wait_for("pid ");
    let pid = line
        .split("pid ")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    let signal = |name: &str| {
        let kill = format!("kill -{name} {}", pid.expect("a number"));
        let status = Command::new("sh").args(["-c", &kill]).status();
        assert!(status.expect("sh starts").success());
    };
    let mut other = options.clone();
    other["prefixStats"] = json!("other");
    fs::write(&file, other.to_string()).expect("written");
    signal("HUP");
    process.log.wait_for("the configuration was taken over");
    signal("TERM");
    assert_eq!(process.wait_exit().code(), Some(0));
    let trace = fs::read_to_string(&trace).expect("a trace");
    let mut told: Vec<_> = [
        "state",
        "state.new",
        "state.lock",
        "busiest",
        "gram",
        "stream",
    ]
    .iter()
    .map(|name| place(name).to_str().expect("text").to_owned())
    .collect();
    // Its own title, and where output goes that nobody takes.
    told.extend(["/proc/self/comm".into(), "/dev/null".into()]);
    let changed = changes(&trace);
    told.extend(
        ["spool", "spool/graphite", "spool/graphite/lock"].map(|name| {
            let path = place(name);
            path.to_str().expect("text").to_owned()
        }),
    );
    let is_flush = |path: &str| {
        let flush = Path::new(path);
        flush.parent() == Some(&place("spool/graphite"))
            && ["flush", "new"]
                .map(Some)
                .contains(&flush.extension().and_then(|it| it.to_str()))
    };
    assert!(
        changed.iter().any(|path| is_flush(path)),
        "the trace shows flushes"
    );
    for must in [
        "state.new",
        "state.lock",
        "busiest",
        "gram",
        "spool/graphite",
    ] {
        let path = place(must);
        assert!(
            changed.contains(path.to_str().expect("text")),
            "the trace shows {must}"
        );
    }
    let other: Vec<_> = changed
        .iter()
        .filter(|path| !told.contains(path) && !is_flush(path))
        .collect();
    assert_eq!(other, [""; 0], "nobody told it of these");
    let left: BTreeSet<_> = fs::read_dir(directory.path())
        .expect("a directory")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    assert_eq!(
        left.iter().map(String::as_str).collect::<Vec<_>>(),
        ["busiest", "config.js", "spool", "state", "trace"],
        "it cleans up"
    );
    assert!(Path::new(&told[0]).exists());
}
