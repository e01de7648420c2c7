//! Flushes on disk: what a backend could not take is there after a stop, a kill and a fault of the disk, in order
//! and once; what is not whole is refused and nothing beside it; and nobody waits for the disk.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;
#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod librato_api;

use daemon::{
    Admin, DEADLINE, Daemon, Directory, FakeCarbon, Flush, config, config_without_ticks,
    deaf_socket,
};
use librato_api::FakeApi;
use serde_json::{Value, json};
use socket2::Socket;
use statsd_fast::deliver::outbox::Limits;
use statsd_fast::deliver::spool::{self, record};
use statsd_fast::deliver::{Backend, Keeps, Outboxes, Runners, graphite};
use statsd_fast::metric::meter::Outside;
use statsd_fast::metric::snapshot::{Gauge, Snapshot};
use statsd_fast::runtime::clock::{Clock, Manual};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// A carbon that is away: the socket owns its port.
struct Away {
    socket: Socket,
    port: u16,
}

impl Away {
    fn new() -> Self {
        let (socket, address) = deaf_socket();
        Self {
            socket,
            port: address.port(),
        }
    }

    fn back(self) -> FakeCarbon {
        self.socket.listen(64).expect("it can listen");
        FakeCarbon::accept_on(self.socket.into())
    }
}

/// A daemon with ten flushes a second and a spool.
fn ticking(port: u16, spool: &Path) -> Value {
    let mut config = config(port);
    config["flushInterval"] = json!(100);
    config["spoolDir"] = json!(spool);
    config
}

/// One that flushes when it stops.
fn quiet(port: u16, spool: &Path) -> Value {
    let mut config = ticking(port, spool);
    config["flushInterval"] = json!(600_000);
    config
}

fn send(daemon: &Daemon, lines: &str) {
    let client = daemon.client();
    client.send(lines.as_bytes()).expect("loopback takes it");
}

fn kill(mut daemon: Daemon) {
    daemon.signal("KILL");
    assert_eq!(daemon.wait_exit().code(), None, "it had no time for more");
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < DEADLINE, "waited in vain for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Names in a directory, but for the lock.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("text");
    let mut names: Vec<_> = entries
        .map(|entry| name(entry.expect("an entry")))
        .collect();
    names.retain(|name| name != "lock");
    names.sort();
    names
}

/// The flushes of a spool, the oldest first.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut names = names(directory);
    names.retain(|name| name.ends_with(".flush"));
    names.into_iter().map(|name| directory.join(name)).collect()
}

/// What a counter comes to in the flushes on disk. A file that goes meanwhile counts nothing.
fn counted(directory: &Path, counter: &str) -> f64 {
    let snapshots = files(directory).into_iter().filter_map(|path| {
        let bytes = fs::read(path).ok()?;
        record::decode(&bytes).ok()
    });
    let of = |it: Snapshot| -> f64 {
        let found = it.counters.iter().find(|it| &*it.name == counter);
        found.map_or(0.0, |it| it.value)
    };
    snapshots.map(of).sum()
}

/// Flushes as they come, until a counter comes to so much; it must not come to more.
fn until_counted(carbon: &FakeCarbon, counter: &str, sum: f64) -> Vec<Flush> {
    let mut flushes = Vec::new();
    let mut so_far = 0.0;
    while so_far < sum {
        let flush = carbon.next();
        if flush
            .values
            .contains_key(&format!("stats_counts.{counter}"))
        {
            so_far += flush.count(counter);
        }
        flushes.push(flush);
    }
    assert_eq!(so_far, sum);
    flushes
}

fn in_order(flushes: &[Flush]) {
    let times = flushes.iter().map(|it| it.timestamp);
    assert!(times.is_sorted(), "older ones go first");
}

/// The account at the end.
fn account(daemon: &Daemon) -> String {
    daemon.wait_for_line("INFO: stopped: ")
}

#[test]
fn flushes_of_a_backend_that_is_away_outlive_a_stop() {
    let directory = Directory::create();
    let (spool, place) = (
        directory.path().join("s"),
        directory.path().join("s/graphite"),
    );
    let away = Away::new();
    let mut daemon = Daemon::start(&ticking(away.port, &spool), &[]);
    for round in 1..=3 {
        send(&daemon, "c:1|c\nt:5|ms|@0.5\ns:a|s");
        wait_until("it is on disk", || counted(&place, "c") == f64::from(round));
    }
    send(&daemon, "c:1|c");
    assert_eq!(daemon.terminate().code(), Some(0));
    let files = files(&place);
    assert_eq!(counted(&place, "c"), 4.0, "the last flush, too");
    let said = account(&daemon);
    let expected = format!("0 flushes not delivered, {} flushes on disk", files.len());
    assert!(said.contains(&expected), "{said}");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&spool), mode(&place)), (0o700, 0o700));
    assert_eq!((mode(&files[0]), mode(&place.join("lock"))), (0o600, 0o600));

    let carbon = away.back();
    let mut daemon = Daemon::start(&quiet(carbon.port(), &spool), &[]);
    daemon.wait_for_line(&format!("flushes on disk, which go first: {}", files.len()));
    send(&daemon, "c:100|c");
    let flushes = until_counted(&carbon, "c", 4.0);
    in_order(&flushes);
    wait_until("all are removed", || names(&place).is_empty());
    assert_eq!(daemon.terminate().code(), Some(0));
    let rest: Vec<_> = carbon.waiting();
    assert_eq!(
        flushes.len() + rest.len(),
        files.len() + 1,
        "each came once"
    );
    let with = flushes
        .iter()
        .find(|it| it.values.contains_key("stats.timers.t.upper"));
    let with = with.expect("a flush with a timer");
    assert_eq!(with.number("stats.timers.t.upper"), 5.0);
    assert_eq!(with.number("stats.timers.t.count"), 2.0);
    assert_eq!(with.number("stats.sets.s.count"), 1.0);
    assert!(account(&daemon).contains(" 0 flushes not delivered; "));
}

#[test]
fn flushes_outlive_a_kill_and_come_once() {
    let directory = Directory::create();
    let place = directory.path().join("graphite");
    let away = Away::new();
    for round in 1..=4 {
        let daemon = Daemon::start(&ticking(away.port, directory.path()), &[]);
        send(&daemon, "c:1|c");
        wait_until("it is on disk", || counted(&place, "c") == f64::from(round));
        kill(daemon);
    }
    let on_disk = files(&place).len();
    let carbon = away.back();
    let mut daemon = Daemon::start(&quiet(carbon.port(), directory.path()), &[]);
    let flushes = until_counted(&carbon, "c", 4.0);
    wait_until("all are removed", || names(&place).is_empty());
    assert_eq!(daemon.terminate().code(), Some(0));
    assert_eq!(flushes.len() + carbon.waiting().len(), on_disk + 1);
    in_order(&flushes);
}

#[test]
fn a_backend_that_hangs_at_the_stop_leaves_its_flush_on_disk() {
    let directory = Directory::create();
    let place = directory.path().join("graphite");
    let (socket, address) = deaf_socket();
    socket.listen(1).expect("it can listen");
    let mut config = quiet(address.port(), directory.path());
    config["stopDeadline"] = json!(2000);
    let mut daemon = Daemon::start(&config, &[]);
    // More than the kernel takes for one that never reads.
    let name = |number: i32| format!("{}{number}", "long".repeat(50));
    for first in (0..30_000).step_by(25) {
        let lines = (first..first + 25).map(|it| format!("{}:1|c\n", name(it)));
        send(&daemon, &lines.collect::<String>());
    }
    assert_eq!(daemon.terminate().code(), Some(0));
    daemon.wait_for_line("flushes not delivered before the stop deadline stay on disk: 1");
    assert_eq!(files(&place).len(), 1);
    assert_eq!(counted(&place, &name(29_999)), 1.0);
    let said = account(&daemon);
    assert!(
        said.contains(" 0 flushes not delivered, 1 flushes on disk; "),
        "{said}"
    );
}

#[test]
fn a_healthy_backend_costs_no_disk() {
    let directory = Directory::create();
    let place = directory.path().join("graphite");
    let carbon = FakeCarbon::start();
    let mut config = config_without_ticks(&carbon, json!({"spoolDir": directory.path()}));
    config["flushInterval"] = json!(1000);
    let mut daemon = Daemon::start(&config, &[]);
    let made = fs::metadata(&place).expect("there").modified();
    for _ in 0..2 {
        let flush = carbon.next();
        assert_eq!(flush.number("stats.statsd_fast.spool.written"), 0.0);
    }
    assert_eq!(daemon.terminate().code(), Some(0));
    let now = fs::metadata(&place).expect("there").modified();
    assert_eq!(
        made.expect("a time"),
        now.expect("a time"),
        "no file came or went"
    );
}

#[test]
fn what_is_not_whole_is_refused_and_nothing_beside_it() {
    let directory = Directory::create();
    let place = directory.path().join("graphite");
    let away = Away::new();
    let mut daemon = Daemon::start(&ticking(away.port, directory.path()), &[]);
    for round in 1..=4 {
        send(&daemon, "c:1|c");
        wait_until("it is on disk", || counted(&place, "c") == f64::from(round));
    }
    daemon.terminate();
    let has = |path: &&PathBuf| {
        let snapshot = record::decode(&fs::read(path).expect("there")).expect("whole");
        snapshot
            .counters
            .iter()
            .any(|it| &*it.name == "c" && it.value == 1.0)
    };
    let all = files(&place);
    let ours: Vec<_> = all.iter().filter(has).collect();
    assert_eq!(ours.len(), 4);
    let whole = fs::read(ours[1]).expect("there");
    fs::write(ours[1], &whole[..whole.len() - 1]).expect("cut");
    let mut changed = fs::read(ours[2]).expect("there");
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(ours[2], &changed).expect("changed");
    fs::write(place.join("notes.txt"), "not ours").expect("written");
    fs::write(place.join("00000000000000000001.new"), "half").expect("written");

    let carbon = away.back();
    let mut daemon = Daemon::start(&quiet(carbon.port(), directory.path()), &[]);
    daemon.wait_for_line("is no flush, and is left alone: notes.txt");
    let said = daemon.wait_for_line("is not used, nothing of it: ");
    assert!(said.contains("its end is missing"), "{said}");
    assert!(said.contains("it is lost, and kept as "), "{said}");
    let flushes = until_counted(&carbon, "c", 2.0);
    in_order(&flushes);
    wait_until("all are through", || files(&place).is_empty());
    assert_eq!(names(&place), ["notes.txt", "refused"]);
    let refused = fs::read(place.join("refused")).expect("kept");
    assert_eq!(refused, changed, "the last of them");
    assert_eq!(daemon.terminate().code(), Some(0));
    let last: Vec<_> = carbon.waiting();
    let own = |name: &str| {
        let values = last.last().expect("the last flush").values.iter();
        let mut found = values.filter(|(known, _)| known == name);
        found.next().expect("there").1.clone()
    };
    assert_eq!(own("stats.statsd_fast.spool.errors"), "2");
    assert_eq!(own("stats.statsd_fast.flushes_dropped"), "2");
    assert_eq!(own("stats.statsd_fast.spool.flushes"), "0");
    assert_eq!(flushes.len() + last.len(), all.len() - 2 + 1);
}

#[test]
fn one_of_a_newer_version_is_left_to_it() {
    let directory = Directory::create();
    let place = directory.path().join("graphite");
    fs::create_dir_all(&place).expect("made");
    let mut newer = record::encode(&Snapshot::default());
    newer[8] = 2;
    let path = place.join("00000000000000000007.flush");
    fs::write(&path, &newer).expect("written");
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&quiet(carbon.port(), directory.path()), &[]);
    let said = daemon.wait_for_line("is not used, nothing of it: ");
    assert!(
        said.contains("of version 2, and this program reads version 1"),
        "{said}"
    );
    assert!(said.contains("it stays there for that version"), "{said}");
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!(flush.number("stats.statsd_fast.flushes_dropped"), 0.0);
    assert_eq!(flush.number("stats.statsd_fast.spool.errors"), 1.0);
    assert_eq!(fs::read(path).expect("there"), newer);
}

/// A small file system; gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir(&at).expect("made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(&at)
            .output();
        let mounted = mounted.is_ok_and(|it| it.status.success());
        if !mounted {
            println!("SKIPPED: this user may not mount a small tmpfs");
        }
        mounted.then_some(Self(at))
    }

    fn remount(&self, how: &str) {
        let mounted = Command::new("mount")
            .args(["-o", &format!("remount,{how}")])
            .arg(&self.0)
            .status();
        assert!(mounted.expect("mount starts").success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is still mounted holds up nothing but the removal of its directory.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A meter by the admin interface: since the start.
fn meter(daemon: &Daemon, name: &str) -> u64 {
    let reply = Admin::once(daemon.admin().expect("it has one"), "meters\n");
    let line = reply
        .lines()
        .find_map(|it| it.strip_prefix(&format!("{name}: ")));
    let total = line.and_then(|it| it.split(' ').next()?.parse().ok());
    total.unwrap_or_else(|| panic!("no {name} in {reply}"))
}

#[test]
fn a_full_disk_costs_what_it_would_have_kept_and_nothing_else() {
    let directory = Directory::create();
    let Some(disk) = SmallDisk::mount(directory.path().join("disk")) else {
        return;
    };
    let place = disk.0.join("graphite");
    let away = Away::new();
    let daemon = Daemon::start(&ticking(away.port, &disk.0), &[]);
    send(&daemon, "c:1|c");
    wait_until("it is on disk", || counted(&place, "c") == 1.0);
    // Whatever room there is.
    let filler = disk.0.join("filler");
    let _ = fs::write(&filler, vec![0; 1 << 20]);
    let said = daemon.wait_for_line("flushes wait in memory only until one can be written");
    assert!(said.contains("No space left on device"), "{said}");
    send(&daemon, "c:1|c");
    wait_until("it fails again", || meter(&daemon, "spool.errors") > 3);
    let complaints = |daemon: &Daemon| {
        let lines = daemon.lines();
        lines
            .iter()
            .filter(|it| it.contains("ERROR: spool: "))
            .count()
    };
    assert_eq!(complaints(&daemon), 1, "one line a minute");
    assert_eq!(meter(&daemon, "flushes_dropped"), 0);
    let half = names(&place);
    assert!(half.iter().all(|it| it.ends_with(".flush")), "{half:?}");
    fs::remove_file(&filler).expect("removed");
    daemon.wait_for_line("flushes are written again");
    wait_until("all are on disk", || counted(&place, "c") == 2.0);
    let _ = fs::write(&filler, vec![0; 1 << 20]);
    // A full disk is in nobody's way: what is there and what is in memory is delivered.
    send(&daemon, "c:1|c");
    let carbon = away.back();
    let flushes = until_counted(&carbon, "c", 3.0);
    in_order(&flushes);
    kill(daemon);
}

/// A directory in which nothing can be made or removed, not by root either; as it was with the end of the test.
struct Frozen<'p>(&'p Path);

impl<'p> Frozen<'p> {
    fn freeze(path: &'p Path) -> Option<Self> {
        let frozen = Command::new("chattr").arg("+i").arg(path).output();
        let frozen = frozen.is_ok_and(|it| it.status.success());
        if !frozen {
            println!("SKIPPED: this user may not make a directory immutable here");
        }
        frozen.then_some(Self(path))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(self.0).status();
    }
}

#[test]
fn a_directory_that_becomes_read_only_is_said_and_delivery_goes_on() {
    let directory = Directory::create();
    let place = directory.path().join("graphite");
    let away = Away::new();
    let daemon = Daemon::start(&ticking(away.port, directory.path()), &[]);
    send(&daemon, "c:1|c");
    wait_until("it is on disk", || counted(&place, "c") == 1.0);
    let Some(frozen) = Frozen::freeze(&place) else {
        return;
    };
    daemon.wait_for_line("Operation not permitted");
    send(&daemon, "c:1|c");
    let carbon = away.back();
    let flushes = until_counted(&carbon, "c", 2.0);
    in_order(&flushes);
    // What could not be removed is, as soon as it can be.
    assert!(!files(&place).is_empty());
    drop(frozen);
    wait_until("all are removed", || files(&place).is_empty());
    kill(daemon);
    // At a start it is as good as away, since what is delivered could not be removed.
    let frozen = Frozen::freeze(&place).expect("it could be before");
    let daemon = Daemon::start(&quiet(carbon.port(), directory.path()), &[]);
    daemon.wait_for_line("cannot be used: Operation not permitted");
    drop(frozen);
    daemon.wait_for_line("can be used again");
    let _ = carbon.waiting();
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!(flush.number("stats.statsd_fast.spool.errors"), 1.0);
}

#[test]
fn a_read_only_file_system_is_said_at_the_start() {
    let directory = Directory::create();
    let Some(disk) = SmallDisk::mount(directory.path().join("disk")) else {
        return;
    };
    disk.remount("ro");
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&quiet(carbon.port(), &disk.0), &[]);
    daemon.wait_for_line("cannot be used: Read-only file system");
    disk.remount("rw");
    daemon.wait_for_line("can be used again");
    daemon.stop("TERM", &carbon);
}

#[test]
fn a_directory_that_goes_and_comes_back_has_each_flush_once() {
    let directory = Directory::create();
    let (inside, aside) = (directory.path().join("in"), directory.path().join("away"));
    let (spool, place) = (inside.join("spool"), inside.join("spool/graphite"));
    let away = Away::new();
    // Its volume is not there yet, and is not made.
    let mut config = ticking(away.port, &spool);
    // Little stays in memory.
    config["outboxFlushes"] = json!(2);
    let daemon = Daemon::start(&config, &[]);
    daemon.wait_for_line("cannot be used: No such file or directory");
    assert!(!inside.exists());
    fs::create_dir(&inside).expect("made");
    daemon.wait_for_line("can be used again");
    send(&daemon, "c:1|c");
    wait_until("it is on disk", || counted(&place, "c") == 1.0);
    wait_until("more than memory holds", || files(&place).len() > 6);
    fs::rename(&inside, &aside).expect("moved");
    daemon.wait_for_line("the directory is not there any more");
    fs::rename(&aside, &inside).expect("moved");
    wait_until("it is looked at again", || {
        meter(&daemon, "spool.flushes") > 6
    });
    send(&daemon, "c:1|c");
    wait_until("it is on disk", || counted(&place, "c") == 2.0);
    let carbon = away.back();
    until_counted(&carbon, "c", 2.0);
    wait_until("all are removed", || files(&place).is_empty());
    send(&daemon, "c:1|c");
    until_counted(&carbon, "c", 1.0);
    kill(daemon);
}

#[test]
fn a_second_process_goes_without_until_the_first_has_left() {
    let directory = Directory::create();
    let place = directory.path().join("graphite");
    let away = Away::new();
    let mut first = Daemon::start(&ticking(away.port, directory.path()), &[]);
    send(&first, "c:1|c");
    wait_until("it is on disk", || counted(&place, "c") == 1.0);
    let second = Daemon::start(&quiet(away.port, directory.path()), &[]);
    second.wait_for_line("another process uses it; give each server a spoolDir of its own");
    assert_eq!(first.terminate().code(), Some(0));
    second.wait_for_line("flushes on disk, which go first: ");
    let carbon = away.back();
    // It looks when there is something to do.
    let mut second = second;
    assert_eq!(second.terminate().code(), Some(0));
    until_counted(&carbon, "c", 1.0);
    assert_eq!(names(&place), [""; 0]);
}

#[test]
fn flushes_of_a_backend_that_is_taken_out_stay_and_go_when_it_is_back() {
    let directory = Directory::create();
    let place = directory.path().join("graphite");
    let away = Away::new();
    let with = ticking(away.port, directory.path());
    let mut without = with.clone();
    without["backends"] = json!([]);
    let mut daemon = Daemon::start(&with, &[]);
    let reload = |daemon: &Daemon, config: &Value| {
        let before = daemon.lines().len();
        fs::write(daemon.config_file(), config.to_string()).expect("written");
        daemon.signal("HUP");
        daemon.log().wait_until("taken over", |lines| {
            let mut news = lines[before..].iter();
            news.find(|it| it.contains("the configuration was taken over"))?;
            Some(())
        });
    };
    send(&daemon, "c:1|c");
    wait_until("it is on disk", || counted(&place, "c") == 1.0);
    reload(&daemon, &without);
    daemon.wait_for_line("flushes not delivered at the end stay on disk: ");
    let waits = files(&place).len();
    assert_eq!(meter(&daemon, "spool.flushes"), waits as u64);
    assert_eq!(meter(&daemon, "flushes_dropped"), 0);
    assert_eq!(daemon.terminate().code(), Some(0));
    let said = account(&daemon);
    assert!(
        said.contains(&format!(", {waits} flushes on disk")),
        "{said}"
    );

    let daemon = Daemon::start(&without, &[]);
    let said = daemon.wait_for_line("flushes on disk of a backend that is not configured: ");
    assert!(said.contains(&format!("configured: {waits}; ")), "{said}");
    let carbon = away.back();
    reload(&daemon, &with);
    let flushes = until_counted(&carbon, "c", 1.0);
    in_order(&flushes);
    // Out and in again while it is healthy.
    wait_until("all are removed", || files(&place).is_empty());
    reload(&daemon, &without);
    reload(&daemon, &with);
    send(&daemon, "c:1|c");
    until_counted(&carbon, "c", 1.0);
    kill(daemon);
}

#[test]
fn librato_gets_every_flush_once_and_running_totals_go_on() {
    let directory = Directory::create();
    let place = directory.path().join("librato");
    let (socket, address) = deaf_socket();
    let configured = |interval: u64, as_gauges: bool| {
        let mut config = config(1);
        config["flushInterval"] = json!(interval);
        config["spoolDir"] = json!(directory.path());
        config["stateFile"] = json!(directory.path().join("state"));
        config["backends"] = json!(["librato"]);
        config["librato"] = json!({
            "email": "user@example.com",
            "token": "tok123",
            "api": format!("http://{address}"),
            "host": "h",
            "retryDelaySecs": 0.01,
            "snapTime": 1,
            "countersAsGauges": as_gauges,
        });
        config
    };
    for added in [3, 4] {
        let mut daemon = Daemon::start(&configured(600_000, false), &[]);
        send(&daemon, &format!("a:{added}|c"));
        assert_eq!(daemon.terminate().code(), Some(0));
        // Their times are told apart by seconds.
        let second = || UNIX_EPOCH.elapsed().expect("a clock").as_secs();
        let stopped = second();
        wait_until("the next second", || second() > stopped + 1);
    }
    let times: Vec<_> = files(&place)
        .iter()
        .map(|path| record::decode(&fs::read(path).expect("there")).expect("whole"))
        .map(|it| it.timestamp)
        .collect();
    assert_eq!(times.len(), 2);
    socket.listen(16).expect("it can listen");
    let api = FakeApi::accept_on(socket.into());
    let mut daemon = Daemon::start(&configured(600_000, false), &[]);
    wait_until("all are through", || files(&place).is_empty());
    send(&daemon, "a:5|c");
    assert_eq!(daemon.terminate().code(), Some(0));
    let stored = api.stored();
    let of_a = stored.iter().filter(|it| it.name == "a");
    let values: Vec<_> = of_a.map(|it| (it.time, it.numbers["value"])).collect();
    assert_eq!(values[..2], [(times[0], 3.0), (times[1], 7.0)]);
    assert_eq!(values.len(), 3);
    assert_eq!(values[2].1, 12.0);
}

/// Backends in this process, with a spool.
struct Delivery {
    outside: Arc<Outside>,
    runners: Runners,
    outboxes: Outboxes,
}

const NOW: i64 = 1_700_000_000;

impl Delivery {
    fn start(port: u16, directory: &Path, limits: Limits, bytes: u64) -> Self {
        let outside = Arc::new(Outside::default());
        let clock = Clock::Manual(Manual::new(NOW.cast_unsigned() * 1000));
        let backends = [Backend::Graphite(graphite::Options {
            host: Some("127.0.0.1".into()),
            port,
            ..graphite::Options::default()
        })];
        let keeps = Keeps {
            totals: None,
            spool: Some(spool::Options {
                directory: directory.to_owned(),
                bytes,
            }),
        };
        let runners = Runners::resume(&backends, limits, &clock, &outside, keeps);
        let runners = runners.expect("a thread for the backend");
        Self {
            outside,
            outboxes: runners.outboxes(),
            runners,
        }
    }

    fn put(&self, timestamp: i64) {
        self.outboxes.put(&Arc::new(Snapshot {
            timestamp,
            gauges: vec![Gauge {
                name: "stamp".into(),
                value: timestamp as f64,
            }],
            ..Snapshot::default()
        }));
    }

    /// How many were delivered, dropped, and are on disk.
    fn finish(self) -> [u64; 3] {
        let dropped = self.runners.finish(Instant::now() + DEADLINE);
        let on_disk = self.outside.flushes_on_disk.now();
        [self.outside.flushes_delivered.total(), dropped, on_disk]
    }
}

/// What came, by its stamps.
fn stamps(carbon: &FakeCarbon, flushes: usize) -> Vec<i64> {
    let stamp = |_| {
        let flush = carbon.next();
        assert_eq!(flush.number("stats.gauges.stamp"), flush.timestamp as f64);
        flush.timestamp.cast_signed()
    };
    (0..flushes).map(stamp).collect()
}

const GIB: u64 = 1 << 30;

#[test]
fn a_backend_that_is_back_after_an_hour_gets_all_of_it_in_order() {
    let directory = Directory::create();
    let away = Away::new();
    // A tenth of the hour in memory.
    let limits = Limits {
        flushes: 36,
        ..Limits::default()
    };
    let delivery = Delivery::start(away.port, directory.path(), limits, GIB);
    let hour: Vec<_> = (0..360).map(|flush| NOW - 3600 + 10 * flush).collect();
    for stamp in &hour {
        delivery.put(*stamp);
        let written = || delivery.outside.flushes_on_disk.now();
        // So fast no hour passes: the disk has ten seconds for each.
        let due = (stamp - hour[0]).cast_unsigned() / 10;
        wait_until("it is written", || written() >= due);
    }
    assert_eq!(delivery.outside.flushes_dropped.total(), 0);
    let carbon = away.back();
    assert_eq!(stamps(&carbon, 360), hour);
    assert_eq!(delivery.finish(), [360, 0, 0]);
}

#[test]
fn past_its_bound_the_oldest_is_dropped() {
    let directory = Directory::create();
    let away = Away::new();
    let limits = Limits {
        flushes: 2,
        ..Limits::default()
    };
    // Ten blocks of disk, of which each flush takes one.
    let delivery = Delivery::start(away.port, directory.path(), limits, 10 * 4096);
    for flush in 0..30 {
        delivery.put(NOW + flush);
        wait_until("it is written", || {
            delivery.outside.flushes_spooled.total() > flush.cast_unsigned()
        });
    }
    let place = directory.path().join("graphite");
    assert_eq!(files(&place).len(), 10);
    // The first is still in memory, since its backend has tried it.
    assert_eq!(delivery.outside.flushes_dropped.total(), 19);
    let finished = delivery.finish();
    assert_eq!(finished[0], 0);
    assert_eq!(finished[1] + finished[2], 30);
    assert_eq!(finished[2], 10);
    // With less room at the next start, the oldest make room.
    let delivery = Delivery::start(away.port, directory.path(), limits, 4 * 4096);
    assert_eq!(delivery.outside.flushes_dropped.total(), 6);
    let carbon = away.back();
    assert_eq!(stamps(&carbon, 4), [NOW + 26, NOW + 27, NOW + 28, NOW + 29]);
    assert_eq!(delivery.finish(), [4, 6, 0]);
    assert_eq!(names(&place), [""; 0]);
}

#[test]
fn a_flush_too_large_for_the_disk_waits_in_memory() {
    let directory = Directory::create();
    let away = Away::new();
    let delivery = Delivery::start(away.port, directory.path(), Limits::default(), 4096);
    delivery.outboxes.put(&Arc::new(Snapshot {
        timestamp: NOW,
        samples: vec![1.0; 1000],
        gauges: vec![Gauge {
            name: "stamp".into(),
            value: NOW as f64,
        }],
        ..Snapshot::default()
    }));
    wait_until("it was tried", || delivery.outside.spool_errors.total() > 0);
    let carbon = away.back();
    assert_eq!(stamps(&carbon, 1), [NOW]);
    assert_eq!(delivery.finish(), [1, 0, 0]);
}

#[test]
fn what_is_left_in_the_middle_of_many_comes_once_after_each_restart() {
    let directory = Directory::create();
    let away = Away::new();
    let mut expected = BTreeMap::new();
    for run in 0..5 {
        let delivery = Delivery::start(away.port, directory.path(), Limits::default(), GIB);
        for flush in 0..7 {
            let stamp = NOW + 10 * run + flush;
            delivery.put(stamp);
            expected.insert(stamp, 1);
        }
        let [delivered, dropped, on_disk] = delivery.finish();
        let waits = (7 * (run + 1)).cast_unsigned();
        assert_eq!([delivered, dropped, on_disk], [0, 0, waits]);
    }
    let carbon = away.back();
    let delivery = Delivery::start(carbon.port(), directory.path(), Limits::default(), GIB);
    delivery.put(NOW + 1000);
    expected.insert(NOW + 1000, 1);
    let seen = stamps(&carbon, 36);
    assert!(seen.is_sorted(), "{seen:?}");
    assert!(seen.iter().eq(expected.keys()));
    assert_eq!(delivery.finish(), [36, 0, 0]);
}
