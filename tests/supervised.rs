//! What those who run the server see of it: the title in ps(1), and what it tells the service manager.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{DEADLINE, Daemon, Directory, FakeCarbon, config_without_ticks};
use serde_json::{Value, json};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::{fs, process};

/// Starts it with this title; its command line and short name once it is up.
fn shown(title: &Value) -> (Vec<u8>, String, Daemon) {
    let carbon = FakeCarbon::start();
    let config = config_without_ticks(&carbon, json!({"title": title}));
    let daemon = Daemon::start(&config, &["--threads", "1"]);
    let about = daemon.wait_for_line("statsd-fast 0");
    let (_, rest) = about.split_once(", pid ").expect("it says its number");
    let pid = rest.split(',').next().expect("a number");
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).expect("it runs");
    let short = String::from_utf8(read("comm")).expect("text");
    (read("cmdline"), short.trim_end().into(), daemon)
}

#[test]
fn a_title_is_shown_in_place_of_the_arguments() {
    if daemon::replaced().is_some() {
        return;
    }
    let (before, short, _daemon) = shown(&json!(false));
    assert!(before.ends_with(b"config.js\0"));
    assert_eq!(short, "statsd-fast");

    let (mut title, short, _daemon) = shown(&json!("carbon feeder of dc1"));
    // The same directory, but for its number.
    assert!(title.len().abs_diff(before.len()) <= 2, "{title:?}");
    while title.last() == Some(&0) {
        title.pop();
    }
    assert_eq!(title, b"carbon feeder of dc1");
    assert_eq!(short, "carbon feeder o");
}

#[test]
fn a_title_is_cut_at_the_room_there_is() {
    if daemon::replaced().is_some() {
        return;
    }
    let long = "ü".repeat(10_000);
    let (title, short, mut daemon) = shown(&json!(long));
    let (last, text) = title.split_last().expect("not empty");
    assert_eq!(*last, 0);
    let text = std::str::from_utf8(text).expect("cut between characters");
    assert!(text.len() > 20);
    assert!(
        text.trim_end_matches('\0').chars().all(|c| c == 'ü'),
        "{text}"
    );
    assert_eq!(short, "üüüüüüü");
    // It goes on as ever.
    daemon.signal("TERM");
    daemon.wait_for_line("stopped: ");
    assert!(daemon.wait_exit().success());
}

/// Arguments are gone once there is a title, so nobody may ask for them but the parser at the start.
#[test]
fn nobody_asks_for_arguments_later() {
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            files += 1;
            let text = fs::read_to_string(&path).expect("sources are text");
            let asks = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .any(|line| line.contains("env::args"));
            assert!(!asks, "{} reads arguments", path.display());
        }
    }
    assert!(files > 40, "only {files} files");
}

/// The next message.
fn next(manager: &UnixDatagram) -> String {
    manager
        .set_read_timeout(Some(DEADLINE))
        .expect("a deadline for reading");
    let mut bytes = [0; 1024];
    let received = daemon::uninterrupted(|| manager.recv(&mut bytes));
    let length = received.expect("a message in time");
    String::from_utf8(bytes[..length].to_vec()).expect("text")
}

/// A whole run: what the manager is told, and when.
fn told(manager: &UnixDatagram, socket: &str) {
    let carbon = FakeCarbon::start();
    let config = config_without_ticks(&carbon, json!({}));
    let mut daemon = Daemon::spawn_in(&[("NOTIFY_SOCKET", socket)], &config, &[]);
    let ready = next(manager);
    let line = daemon.wait_for_line("listening on udp ");
    let (_, address) = line.split_once("listening on udp ").expect("just found");
    let (address, _) = address.split_once(',').expect("more follows");
    assert_eq!(
        ready,
        format!("READY=1\nSTATUS=listening on udp {address}\n")
    );
    // Ready means that it takes what is sent.
    let client = daemon::client_of(address.parse().expect("an address"));
    client.send(b"jobs:1|c").expect("loopback takes it");
    daemon.signal("TERM");
    assert_eq!(next(manager), "STOPPING=1\n");
    assert_eq!(carbon.next().count("jobs"), 1.0);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    manager.set_nonblocking(true).expect("a socket");
    assert!(manager.recv(&mut [0; 8]).is_err(), "nothing else is told");
}

#[test]
fn the_manager_is_told_by_path() {
    if daemon::replaced().is_some() {
        return;
    }
    let directory = Directory::create();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    told(&manager, path.to_str().expect("a path that is text"));
}

#[test]
fn the_manager_is_told_by_abstract_name() {
    if daemon::replaced().is_some() {
        return;
    }
    let name = format!("statsd-fast-supervised-{}", process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let manager = UnixDatagram::bind_addr(&address).expect("a socket");
    told(&manager, &format!("@{name}"));
}

#[test]
fn a_start_that_fails_is_not_ready() {
    if daemon::replaced().is_some() {
        return;
    }
    let directory = Directory::create();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let owner = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = owner.local_addr().expect("an address").port();
    let config = config_without_ticks(&FakeCarbon::start(), json!({"port": port}));
    let socket = path.to_str().expect("a path that is text");
    let mut daemon = Daemon::spawn_in(&[("NOTIFY_SOCKET", socket)], &config, &[]);
    assert_eq!(daemon.wait_exit().code(), Some(1));
    manager.set_nonblocking(true).expect("a socket");
    assert!(manager.recv(&mut [0; 8]).is_err(), "nothing was told");
}

/// A manager that is gone, and one whose queue is full: a warning each time, and the run as ever.
#[test]
fn a_manager_that_does_not_listen_holds_nothing_up() {
    if daemon::replaced().is_some() {
        return;
    }
    let directory = Directory::create();
    let deaf = directory.path().join("deaf");
    let manager = UnixDatagram::bind(&deaf).expect("a socket");
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("a socket");
    while filler.send_to(b"X=1\n", &deaf).is_ok() {}
    let gone = directory.path().join("gone");
    for (path, reason) in [(deaf, "(os error 11)"), (gone, "No such file")] {
        let carbon = FakeCarbon::start();
        let config = config_without_ticks(&carbon, json!({}));
        let socket = path.to_str().expect("a path that is text");
        let daemon = Daemon::spawn_in(&[("NOTIFY_SOCKET", socket)], &config, &[]);
        let warning = daemon.wait_for_line("the service manager was not told of Ready");
        assert!(warning.contains(reason), "{warning}");
        let flush = daemon.stop("TERM", &carbon);
        assert_eq!(flush.count("statsd.packets_received"), 0.0);
    }
    drop(manager);
}
