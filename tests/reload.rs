//! Changes of the configuration while running: what is noticed, what is taken over, what is not, and that
//! nothing in flight is lost by it.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{Admin, DEADLINE, Daemon, FakeCarbon, config_without_ticks};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

const TAKEN: &str = "the configuration was taken over";

/// A daemon, its file, and what the file holds.
struct Configured {
    daemon: Daemon,
    file: PathBuf,
    config: Value,
    carbon: FakeCarbon,
}

impl Configured {
    fn start(options: Value) -> Self {
        let carbon = FakeCarbon::start();
        let config = config_without_ticks(&carbon, options);
        let daemon = Daemon::start(&config, &["--threads", "2"]);
        Self {
            file: daemon.config_file(),
            daemon,
            config,
            carbon,
        }
    }

    /// The file's text with other options on top.
    fn with(&mut self, options: Value) -> String {
        for (key, value) in options.as_object().expect("options are an object") {
            self.config[key] = value.clone();
        }
        self.config.to_string()
    }

    /// Writes the file anew, as editors do: beside it, and over it.
    fn replace(&mut self, options: Value) {
        let text = self.with(options);
        let beside = self.file.with_extension("new");
        fs::write(&beside, text).expect("the file can be written");
        fs::rename(&beside, &self.file).expect("the file can be replaced");
    }

    /// What `config` of the admin interface says of a key.
    fn shown(&self, key: &str) -> Option<String> {
        let address = self.daemon.admin().expect("an admin interface");
        let reply = Admin::once(address, "config\n");
        let start = format!("{key}: ");
        let line = reply.lines().find(|line| line.starts_with(&start))?;
        Some(line[start.len()..].to_owned())
    }

    /// Asks the admin interface until its reply satisfies somebody.
    fn ask_until(&self, command: &str, mut satisfied: impl FnMut(&str) -> bool) {
        let address = self.daemon.admin().expect("an admin interface");
        let start = Instant::now();
        while !satisfied(&Admin::once(address, command)) {
            assert!(start.elapsed() < DEADLINE, "asked in vain: {command}");
        }
    }

    /// Waits until so many lines of the log held `text`.
    fn wait_for(&self, text: &str, times: usize) {
        self.daemon.log().wait_until(text, |lines| {
            (lines.iter().filter(|line| line.contains(text)).count() >= times).then_some(())
        });
    }
}

#[test]
fn a_file_is_taken_over_however_it_changes_again_and_again() {
    let mut it = Configured::start(json!({"prefixStats": "p0"}));
    assert_eq!(it.shown("prefixStats").as_deref(), Some("p0"));
    for round in 1..=4 {
        let options = json!({"prefixStats": format!("p{round}")});
        if round % 2 == 0 {
            let text = it.with(options);
            fs::write(&it.file, text).expect("the file can be written");
        } else {
            it.replace(options);
        }
        it.wait_for(TAKEN, round);
        assert_eq!(it.shown("prefixStats"), Some(format!("p{round}")));
    }
    it.daemon
        .client()
        .send(b"a:1|c")
        .expect("loopback takes it");
    let flush = it.daemon.stop("TERM", &it.carbon);
    assert_eq!(flush.count("p4.packets_received"), 1.0);
    assert_eq!(flush.count("p0.packets_received"), 0.0);
}

#[test]
fn a_signal_reads_the_file_also_when_nobody_watches_it() {
    let mut it = Configured::start(json!({"automaticConfigReload": false, "prefixStats": "old"}));
    it.replace(json!({"prefixStats": "new"}));
    it.daemon.signal("HUP");
    it.wait_for(TAKEN, 1);
    assert_eq!(it.shown("prefixStats").as_deref(), Some("new"));
    it.daemon.signal("HUP");
    it.wait_for("the configuration was taken over: nothing in it is new", 1);
    let read = it.daemon.lines();
    let read = read
        .iter()
        .filter(|line| line.contains("] reading config file: "));
    assert_eq!(read.count(), 3, "at the start and for each signal");
}

#[test]
fn what_cannot_be_used_changes_nothing_and_says_why() {
    let mut it = Configured::start(json!({"prefixStats": "good"}));
    fs::write(&it.file, "{ prefixStats: 'half', deleteIdleStats: ").expect("written");
    it.daemon.signal("HUP");
    let line = it.daemon.wait_for_line("syntax error");
    assert!(line.contains("config.js:1:"), "the place: {line}");
    it.wait_for("was not taken over; the server goes on with what it had", 1);
    assert_eq!(it.shown("prefixStats").as_deref(), Some("good"));

    fs::write(&it.file, "{ percentThreshold: 'many' }").expect("written");
    it.wait_for("percentThreshold: expected a percentile", 1);

    fs::remove_file(&it.file).expect("it can be removed");
    it.daemon.signal("HUP");
    it.wait_for("cannot be read: No such file", 1);

    fs::create_dir(&it.file).expect("a directory in its place");
    it.wait_for("it is a directory", 1);
    assert_eq!(it.shown("prefixStats").as_deref(), Some("good"));

    fs::remove_dir(&it.file).expect("it can be removed");
    // A pipe that nobody writes into must not hold the server up.
    let status = Command::new("mkfifo").arg(&it.file).status();
    assert!(status.expect("mkfifo starts").success());
    it.wait_for("was not taken over: it is no file", 1);
    fs::remove_file(&it.file).expect("it can be removed");
    it.replace(json!({"prefixStats": "better"}));
    it.wait_for(TAKEN, 1);
    it.daemon
        .client()
        .send(b"a:1|c")
        .expect("loopback takes it");
    let flush = it.daemon.stop("TERM", &it.carbon);
    assert_eq!(flush.count("better.packets_received"), 1.0);
    assert_eq!(flush.count("a"), 1.0);
}

#[test]
fn what_cannot_change_is_named_and_the_rest_is_taken_over() {
    let mut it = Configured::start(json!({"prefixStats": "old"}));
    let address = it.daemon.address();
    it.replace(json!({"port": address.port() ^ 1, "exactSamples": 7, "prefixStats": "new"}));
    it.wait_for(TAKEN, 1);
    for key in ["port", "exactSamples"] {
        it.wait_for(&format!("WARNING: {key} cannot change while running"), 1);
    }
    let named = it.daemon.lines();
    let named = named
        .iter()
        .filter(|line| line.contains("cannot change while running"));
    assert_eq!(named.count(), 2);
    it.daemon.client().send(b"a:1|c").expect("the same address");
    let flush = it.daemon.stop("TERM", &it.carbon);
    assert_eq!(flush.count("new.packets_received"), 1.0);
}

#[test]
fn what_waits_for_one_carbon_goes_to_the_next() {
    let mut it = Configured::start(json!({"flushInterval": 200}));
    // The first carbon goes on taking flushes until it is replaced by one that is not there.
    let client = it.daemon.client();
    client.send(b"before:1|c").expect("loopback takes it");
    while it
        .carbon
        .next()
        .values
        .get("stats_counts.before")
        .is_none_or(|count| count == "0")
    {}
    let away = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = away.local_addr().expect("an address").port();
    drop(away);
    it.replace(json!({"graphitePort": port}));
    it.wait_for(TAKEN, 1);
    it.wait_for("refused", 1);
    client.send(b"while_away:5|c").expect("loopback takes it");
    // A flush with it at least has found nobody.
    it.ask_until("counters\n", |counters| counters.contains("while_away: 0"));
    let back = FakeCarbon::start();
    it.replace(json!({"graphitePort": back.port()}));
    it.wait_for(TAKEN, 2);
    let mut arrived = 0.0;
    while arrived == 0.0 {
        let flush = back.next();
        if flush.values.contains_key("stats_counts.while_away") {
            arrived += flush.count("while_away");
        }
    }
    assert_eq!(arrived, 5.0);
    assert_eq!(it.daemon.terminate().code(), Some(0));
    it.wait_for(" 0 flushes not delivered", 1);
}

#[test]
fn nothing_is_lost_while_it_is_read_again_and_again() {
    const ROUNDS: usize = 20;
    let mut it = Configured::start(json!({"keyNameSanitize": true}));
    let clients: Vec<_> = (0..8).map(|_| it.daemon.client()).collect();
    for round in 0..ROUNDS {
        it.replace(json!({"keyNameSanitize": round % 2 == 1, "deleteCounters": round % 3 == 0}));
        it.daemon.signal("HUP");
        for client in &clients {
            for _ in 0..20 {
                client
                    .send(b"load:1|c\nload:2|ms\nlevel:+1|g")
                    .expect("loopback takes it");
            }
        }
        it.wait_for(TAKEN, round + 1);
    }
    let sent = (ROUNDS * clients.len() * 20) as f64;
    let flush = it.daemon.stop("TERM", &it.carbon);
    assert_eq!(flush.number("stats.statsd_fast.kernel_drops"), 0.0);
    assert_eq!(flush.count("load"), sent);
    assert_eq!(flush.number("stats.timers.load.count"), sent);
    assert_eq!(flush.number("stats.gauges.level"), sent);
    assert_eq!(flush.count("statsd.packets_received"), sent);
}

/// Nobody reads the pipe that the reports go into: they are lost, and nothing else is.
#[test]
fn a_report_that_nobody_takes_holds_nothing_up() {
    let directory = daemon::Directory::create();
    let pipe = directory.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo starts").success());
    let mut it = Configured::start(json!({"keyFlush": {"interval": 20, "log": pipe}}));
    it.daemon
        .client()
        .send(b"a:1|c")
        .expect("loopback takes it");
    it.wait_for("keyFlush: a report was lost", 1);
    it.replace(json!({"keyFlush": null}));
    it.wait_for(TAKEN, 1);
    assert_eq!(it.daemon.stop("TERM", &it.carbon).count("a"), 1.0);
}

#[test]
fn the_busiest_names_are_reported_as_often_as_the_file_says() {
    let mut it = Configured::start(json!({"keyFlush": {"interval": 100, "percent": 50}}));
    let client = it.daemon.client();
    client
        .send(b"busy:1|c:2|ms:x|s:1|g\nidle:1|c")
        .expect("loopback takes it");
    let line = it.daemon.wait_for_line("count=4 key=busy");
    assert!(line.contains(" GMT"), "a date of JavaScript: {line}");
    let report = it.file.with_file_name("busiest");
    it.replace(json!({"keyFlush": {"interval": 100, "log": report}}));
    it.wait_for(TAKEN, 1);
    client.send(b"second:1|c").expect("loopback takes it");
    // The flusher answers when it has time, which is when it reports, too.
    it.ask_until("counters\n", |_| {
        let written = fs::read_to_string(&report).unwrap_or_default();
        written.contains("count=1 key=second\n")
    });
    assert!(
        !it.daemon
            .lines()
            .iter()
            .any(|line| line.contains("key=idle"))
    );
}
