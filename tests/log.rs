//! The log of the real binary: to syslog, with syslog gone or deaf, and with every line received in it.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{DEADLINE, Daemon, Directory, FakeCarbon, client_of, config_without_ticks};
use serde_json::{Value, json};
use statsd_fast::runtime::log::{self as switch, Options, Syslog};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

/// A syslog that a test owns.
struct FakeSyslog {
    socket: Option<UnixDatagram>,
    path: PathBuf,
    _directory: Directory,
}

impl FakeSyslog {
    fn start() -> Self {
        let directory = Directory::create();
        let mut syslog = Self {
            socket: None,
            path: directory.path().join("log"),
            _directory: directory,
        };
        syslog.listen();
        syslog
    }

    fn listen(&mut self) {
        let socket = UnixDatagram::bind(&self.path).expect("a socket for syslog");
        socket
            .set_read_timeout(Some(DEADLINE))
            .expect("a deadline for reading");
        self.socket = Some(socket);
    }

    fn go_away(&mut self) {
        self.socket = None;
        std::fs::remove_file(&self.path).expect("it listened");
    }

    /// The next line: priority and what follows the time.
    fn next(&self) -> (u8, String) {
        let mut bytes = [0; 65_536];
        let socket = self.socket.as_ref().expect("it listens");
        let received = daemon::uninterrupted(|| socket.recv(&mut bytes));
        let length = received.expect("a line in time");
        let text = String::from_utf8(bytes[..length].to_vec()).expect("lines are text");
        let (priority, rest) = text[1..].split_once('>').expect("a priority");
        assert_eq!(&text[..1], "<");
        // Mmm dd hh:mm:ss and a blank.
        let (time, rest) = rest.split_at(16);
        let shape: String = time
            .chars()
            .map(|c| match c {
                '0'..='9' => '9',
                'A'..='Z' => 'A',
                'a'..='z' => 'a',
                other => other,
            })
            .collect();
        let shapes = ["Aaa 99 99:99:99 ", "Aaa  9 99:99:99 "];
        assert!(shapes.contains(&shape.as_str()), "{text}");
        (priority.parse().expect("a number"), rest.to_owned())
    }

    /// Lines up to the first that contains `text`; that one.
    fn next_with(&self, text: &str) -> (u8, String) {
        loop {
            let (priority, line) = self.next();
            if line.contains(text) {
                return (priority, line);
            }
        }
    }

    fn options(&self) -> Value {
        json!({
            "backend": "syslog",
            "socket": self.path.to_str().expect("a path that is text"),
            "application": "metrics",
            "level": "LOG_NOTICE",
        })
    }

    /// Waits until the daemon is up and returns a socket that sends to it.
    fn client(&self) -> UdpSocket {
        let (_, line) = self.next_with("listening on udp ");
        let (_, rest) = line.split_once(" udp ").expect("just found");
        let (address, _) = rest.split_once(',').expect("more follows");
        let address: SocketAddr = address.parse().expect("an address");
        self.next_with("server is up");
        client_of(address)
    }
}

fn send(client: &UdpSocket, datagram: &[u8]) {
    client.send(datagram).expect("loopback takes it");
}

#[test]
fn the_log_goes_to_syslog() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let syslog = FakeSyslog::start();
    let options = json!({"log": syslog.options(), "dumpMessages": true, "oddKey": 1});
    let mut daemon = Daemon::spawn(&config_without_ticks(&carbon, options), &[]);
    let (priority, line) = syslog.next();
    assert_eq!(priority, 128 + 6);
    let (tag, message) = line.split_once(": ").expect("a tag");
    assert!(message.contains("reading config file: "), "{line}");
    let (_, warning) = syslog.next_with("oddKey");
    assert!(warning.starts_with(&format!("{tag}: ")), "{warning}");
    let client = syslog.client();
    send(&client, b"a:1|c\n\nb");
    assert_eq!(syslog.next(), (128 + 5, format!("{tag}: a:1|c")));
    assert_eq!(syslog.next(), (128 + 5, format!("{tag}: b")));
    // The tag ends in the process id, which the process itself names first.
    let pid = message.trim_start_matches('[').split(']').next();
    assert_eq!(tag, format!("metrics[{}]", pid.expect("a number")));
    assert_eq!(daemon.terminate().code(), Some(0));
    let (priority, _) = syslog.next_with("bad values in this interval: 1");
    assert_eq!(priority, 128 + 4);
    syslog.next_with("stopped: 1 datagrams, 2 lines");
    assert_eq!(daemon.lines(), [""; 0], "nothing goes elsewhere");
}

#[test]
fn syslog_goes_away_and_comes_back() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let mut syslog = FakeSyslog::start();
    let options = json!({"log": syslog.options(), "dumpMessages": true});
    let daemon = Daemon::spawn(&config_without_ticks(&carbon, options), &[]);
    let client = syslog.client();
    syslog.go_away();
    send(&client, b"unheard:1|c");
    let said = daemon.wait_for_line("takes nothing");
    assert!(said.contains("is it running? `log.socket` names"), "{said}");
    syslog.listen();
    send(&client, b"heard:1|c");
    let (priority, line) = syslog.next();
    assert_eq!(priority, 128 + 4);
    assert!(
        line.ends_with(": 1 line of the log dropped: syslog did not take them"),
        "{line}"
    );
    let (_, line) = syslog.next();
    assert!(line.ends_with(": heard:1|c"), "{line}");
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!((flush.count("unheard"), flush.count("heard")), (1.0, 1.0));
}

#[test]
fn a_start_without_syslog_says_so_once() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let mut syslog = FakeSyslog::start();
    syslog.go_away();
    let options = json!({"log": syslog.options()});
    // The log being lost, the service manager is told when it is up: before, a signal would end it.
    let directory = Directory::create();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager
        .set_read_timeout(Some(DEADLINE))
        .expect("a deadline for reading");
    let environment = [("NOTIFY_SOCKET", path.to_str().expect("a path that is text"))];
    let config = config_without_ticks(&carbon, options);
    let mut daemon = Daemon::spawn_in(&environment, &config, &[]);
    daemon::uninterrupted(|| manager.recv(&mut [0; 200])).expect("READY in time");
    syslog.listen();
    assert_eq!(daemon.terminate().code(), Some(0));
    let (priority, _) = syslog.next_with(" lines of the log dropped: ");
    assert_eq!(priority, 128 + 4);
    syslog.next_with("stopped: ");
    let lines = daemon.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("takes nothing"), "{lines:?}");
}

/// Lines by the thousand to a syslog that reads none: the values all arrive, the losses are said.
#[test]
fn a_deaf_syslog_holds_nothing_up() {
    const DATAGRAMS: u32 = 30;
    const LINES: u32 = 100;
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let syslog = FakeSyslog::start();
    let options = json!({"log": syslog.options(), "dumpMessages": true});
    let mut daemon = Daemon::spawn(&config_without_ticks(&carbon, options), &["--threads", "2"]);
    let client = syslog.client();
    for _ in 0..DATAGRAMS {
        send(&client, "jobs:1|c\n".repeat(LINES as usize).as_bytes());
    }
    daemon.wait_for_line("takes nothing: it does not read");
    daemon.signal("TERM");
    let flush = carbon.next();
    assert_eq!(flush.count("jobs"), f64::from(DATAGRAMS * LINES));
    assert_eq!(daemon.wait_exit().code(), Some(0));

    let said = daemon.wait_for_line(" of the log dropped: ");
    let number = said
        .split(' ')
        .find_map(|word| word.parse::<u32>().ok())
        .expect("how many");
    let socket = syslog.socket.as_ref().expect("it listens");
    socket.set_nonblocking(true).expect("a socket");
    let mut kept = 0;
    while socket.recv(&mut [0; 100]).is_ok() {
        kept += 1;
    }
    // Lines received, and three of stopping.
    assert_eq!(
        kept + number,
        DATAGRAMS * LINES + 3,
        "{kept} were kept: {said}"
    );
}

#[test]
fn every_line_received_is_dumped() {
    if daemon::replaced().is_some() {
        return;
    }
    for (dump, expected) in [
        (
            true,
            vec![
                "a:1|c",
                "no value",
                "\u{fffd}:1|g\\r",
                "\\u{1b}[0m",
                "last:1|c",
            ],
        ),
        (false, vec![]),
    ] {
        let carbon = FakeCarbon::start();
        let options = json!({"dumpMessages": dump});
        let daemon = Daemon::start(&config_without_ticks(&carbon, options), &[]);
        let client = daemon.client();
        send(&client, b"a:1|c\n\nno value\n\xff:1|g\r\n\x1b[0m\n");
        send(&client, b"");
        send(&client, b"last:1|c");
        daemon.signal("TERM");
        assert_eq!(carbon.next().count("last"), 1.0);
        daemon.wait_for_line("stopped: 3 datagrams, 5 lines");
        let lines = daemon.lines();
        let dumped: Vec<_> = lines
            .iter()
            .filter_map(|line| line.split_once(" - DEBUG: "))
            .map(|(_, line)| line)
            .collect();
        assert_eq!(dumped, expected);
    }
}

#[test]
fn rust_log_overrules_debug_but_no_dump() {
    if daemon::replaced().is_some() {
        return;
    }
    let carbon = FakeCarbon::start();
    let syslog = FakeSyslog::start();
    let options = json!({"dumpMessages": true, "debug": true, "log": syslog.options()});
    // The server may speak, so that its address is known; the rest of the program may not.
    let environment = [("RUST_LOG", "error,statsd_fast::server=info")];
    let config = config_without_ticks(&carbon, options);
    let mut daemon = Daemon::spawn_in(&environment, &config, &[]);
    let (_, first) = syslog.next();
    assert!(!first.contains("reading config file"), "{first}");
    let client = syslog.client();
    send(&client, b"tick:1|c");
    let (priority, line) = syslog.next();
    assert_eq!(priority, 128 + 5);
    assert!(line.ends_with(": tick:1|c"), "{line}");
    daemon.signal("TERM");
    carbon.next();
    assert_eq!(daemon.wait_exit().code(), Some(0));
    let (_, stopping) = syslog.next();
    assert!(stopping.contains("stopping: "), "{stopping}");
    for last in ["account: ", "stopped: "] {
        let (_, line) = syslog.next();
        assert!(line.contains(last), "no line of debug between: {line}");
    }
}

/// The switches work while running. One test: the log is one for the whole process.
#[test]
fn options_are_taken_over_while_running() {
    if std::env::var_os("RUST_LOG").is_some() {
        println!("SKIPPED: RUST_LOG overrules what is tested");
        return;
    }
    let (one, other) = (FakeSyslog::start(), FakeSyslog::start());
    let to = |syslog: &FakeSyslog, level| {
        Some(Syslog {
            socket: syslog.path.clone(),
            application: "test".into(),
            level,
        })
    };
    let tag = format!("test[{}]: ", std::process::id());
    let heard = |syslog: &FakeSyslog| {
        let (priority, line) = syslog.next();
        let message = line.strip_prefix(&tag).expect("our tag").to_owned();
        (priority - 128, message)
    };
    let speak = |call: &str| {
        log::debug!("debug {call}");
        log::info!("info {call}");
        switch::line(&format_args!("line {call}"));
    };
    let mut options = Options {
        syslog: to(&one, 5),
        ..Options::default()
    };
    switch::init(&options);
    assert!(!switch::dumping());
    speak("first");
    assert_eq!(heard(&one), (6, "info first".into()));
    assert_eq!(heard(&one), (5, "line first".into()));

    options = Options {
        debug: true,
        dump: true,
        syslog: to(&other, 2),
    };
    switch::set(&options);
    assert!(switch::dumping());
    speak("second");
    assert_eq!(heard(&other), (7, "debug second".into()));
    assert_eq!(heard(&other), (6, "info second".into()));
    assert_eq!(heard(&other), (2, "line second".into()));

    // Standard output, and back again.
    switch::set(&Options::default());
    assert!(!switch::dumping());
    speak("third");
    options.debug = false;
    switch::set(&options);
    speak("fourth");
    assert_eq!(heard(&other), (6, "info fourth".into()));
    assert_eq!(heard(&other), (2, "line fourth".into()));
    switch::set(&Options {
        syslog: to(&one, 5),
        ..options
    });
    speak("last");
    assert_eq!(heard(&one), (6, "info last".into()));
}
