//! What outlives the process: gauges and running totals go on after a kill, a file that is not whole is not
//! used, and a disk that fails costs nobody anything but what it should have kept.

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

use daemon::{Daemon, Directory, FakeCarbon, Flush, config_without_ticks};
use librato_api::{FakeApi, Rules};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A daemon that flushes when it stops, and keeps its state there.
fn quiet(carbon: &FakeCarbon, state: &Path) -> Value {
    config_without_ticks(carbon, json!({"stateFile": state, "debug": true}))
}

/// The same with ten flushes a second.
fn ticking(carbon: &FakeCarbon, state: &Path) -> Value {
    let mut config = quiet(carbon, state);
    config["flushInterval"] = json!(100);
    config
}

fn send(daemon: &Daemon, lines: &str) {
    let client = daemon.client();
    client.send(lines.as_bytes()).expect("loopback takes it");
}

fn kill(mut daemon: Daemon) {
    daemon.signal("KILL");
    assert_eq!(
        daemon.wait_exit().code(),
        None,
        "it had no time to say goodbye"
    );
}

/// The flush that stopping makes.
fn last_flush(daemon: Daemon, carbon: &FakeCarbon) -> Flush {
    daemon.stop("TERM", carbon)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    names.sort();
    names
}

/// A state with the gauge `g`, as a daemon leaves it.
fn left_by_a_daemon(state: &Path) {
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&quiet(&carbon, state), &[]);
    send(&daemon, "g:5|g");
    last_flush(daemon, &carbon);
}

#[test]
fn gauges_go_on_after_a_kill() {
    let directory = Directory::create();
    let state = directory.path().join("state");
    let carbon = FakeCarbon::start();
    let mut options = ticking(&carbon, &state);
    options["dialect"] = json!("auto");
    let daemon = Daemon::start(&options, &["--threads", "2"]);
    daemon.wait_for_line("state is not there yet: gauges and totals begin anew");
    send(
        &daemon,
        "load:5|g\nlevel:-0.5|g\nroom:7|g|#u:w,t:v\nload:+2|g\nhits:1|c",
    );
    daemon.wait_for_line("stateFile: 3 gauges and 0 totals written");
    kill(daemon);
    assert_eq!(names(directory.path()), ["state", "state.lock"]);
    let mode = fs::metadata(&state).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let carbon = FakeCarbon::start();
    let mut options = quiet(&carbon, &state);
    options["dialect"] = json!("auto");
    let daemon = Daemon::start(&options, &["--threads", "2"]);
    daemon.wait_for_line("stateFile: 3 gauges and 0 running totals from");
    send(&daemon, "load:+1|g\nroom:+1|g|#t:v,u:w\nfresh:+1|g");
    let flush = last_flush(daemon, &carbon);
    assert_eq!(flush.values["stats.gauges.load"], "8");
    assert_eq!(flush.values["stats.gauges.level"], "-0.5");
    assert_eq!(flush.values["stats.gauges.room;u=w;t=v"], "8");
    assert_eq!(flush.values["stats.gauges.fresh"], "1");
    assert!(!flush.values.contains_key("stats_counts.hits"), "no gauge");
    assert!(
        !flush
            .values
            .contains_key("stats.gauges.statsd.timestamp_lag"),
        "that of the other process"
    );
    assert_eq!(flush.number("stats.statsd_fast.state_errors"), 0.0);

    // The flush of a stop is kept, too.
    let carbon = FakeCarbon::start();
    let mut options = quiet(&carbon, &state);
    options["dialect"] = json!("auto");
    let daemon = Daemon::start(&options, &[]);
    let flush = last_flush(daemon, &carbon);
    assert_eq!(flush.values["stats.gauges.load"], "8");
    assert_eq!(flush.values["stats.gauges.room;u=w;t=v"], "8");
}

#[test]
fn a_gauge_has_the_flushes_left_to_live_that_it_had() {
    let directory = Directory::create();
    let state = directory.path().join("state");
    let mut seen = Vec::new();
    for run in 0..4 {
        let carbon = FakeCarbon::start();
        let mut options = quiet(&carbon, &state);
        options["deleteGauges"] = json!(true);
        options["gaugesMaxTTL"] = json!(3);
        let daemon = Daemon::start(&options, &[]);
        if run == 0 {
            send(&daemon, "g:5|g");
        }
        let flush = last_flush(daemon, &carbon);
        seen.push(flush.values.contains_key("stats.gauges.g"));
    }
    assert_eq!(seen, [true, true, true, false]);
}

#[test]
fn running_totals_go_on_after_a_kill() {
    let directory = Directory::create();
    let state = directory.path().join("state");
    let api = FakeApi::start(Rules::default());
    let librato = json!({
        "email": "user@example.com",
        "token": "tok123",
        "api": api.url(),
        "host": "h",
        "countersAsGauges": false,
    });
    let with = |mut config: Value, librato: &Value| {
        config["backends"] = json!(["librato", "./backends/graphite"]);
        config["librato"] = librato.clone();
        config
    };
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&with(ticking(&carbon, &state), &librato), &[]);
    send(&daemon, "a:3|c");
    daemon.log().wait_until("a total is kept", |_| {
        let text = fs::read_to_string(&state).unwrap_or_default();
        text.contains("[\"total\",\"a\",\"3.0\"]").then_some(())
    });
    kill(daemon);

    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&with(quiet(&carbon, &state), &librato), &[]);
    daemon.wait_for_line("stateFile: 0 gauges and 1 running totals from");
    send(&daemon, "a:4|c");
    last_flush(daemon, &carbon);
    let of_a = |api: &FakeApi| {
        let stored = api.stored();
        let last = stored.iter().rfind(|it| it.name == "a");
        last.expect("it was sent").numbers["value"]
    };
    assert_eq!(of_a(&api), 7.0);

    // With other settings they begin anew, also at a reload, and so does what is kept.
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&with(quiet(&carbon, &state), &librato), &[]);
    let mut other = with(quiet(&carbon, &state), &librato);
    other["librato"]["host"] = json!("i");
    fs::write(daemon.config_file(), other.to_string()).expect("written");
    daemon.signal("HUP");
    daemon.wait_for_line("the configuration was taken over");
    send(&daemon, "a:1|c");
    last_flush(daemon, &carbon);
    assert_eq!(of_a(&api), 1.0);
    let text = fs::read_to_string(&state).expect("there");
    assert!(text.contains("[\"total\",\"a\",\"1.0\"]"), "{text}");
}

#[test]
fn gauges_and_totals_of_a_flush_are_written_at_once() {
    let directory = Directory::create();
    let state = directory.path().join("state");
    let api = FakeApi::start(Rules::default());
    let carbon = FakeCarbon::start();
    let mut options = ticking(&carbon, &state);
    options["backends"] = json!(["librato", "./backends/graphite"]);
    options["librato"] = json!({
        "email": "user@example.com",
        "token": "tok123",
        "api": api.url(),
        "countersAsGauges": false,
    });
    let mut daemon = Daemon::start(&options, &[]);
    // Both change from one flush to the next.
    for _ in 0..10 {
        send(&daemon, "g:+1|g\na:1|c");
        carbon.next();
    }
    daemon.terminate();
    let flushes = 10 + carbon.waiting().len();
    let lines = daemon.lines();
    let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    let written = count(" totals written, ");
    let looks = written + count("nothing has changed");
    assert!(
        written >= 5 && looks <= flushes,
        "{written} of {looks} looks, {flushes} flushes"
    );
    let text = fs::read_to_string(&state).expect("there");
    assert!(text.contains("[\"gauge\",\"g\",\"10.0\","), "{text}");
    assert!(text.contains("[\"total\",\"a\",\"10.0\"]"), "{text}");
}

#[test]
fn a_file_that_is_not_whole_is_set_aside_and_nothing_of_it_is_used() {
    let directory = Directory::create();
    let state = directory.path().join("state");
    left_by_a_daemon(&state);
    let whole = fs::read_to_string(&state).expect("text");
    for (text, why) in [
        (&whole[..whole.len() / 2], "its end is missing"),
        (&whole[..whole.len() - 1], "its end is missing"),
        ("", "its end is missing"),
        (
            &whole.replace("5.0", "6.0"),
            "its checksum is not that of its content",
        ),
        (
            &whole.replace("\"version\":1", "\"version\":99"),
            "it is of version 99",
        ),
    ] {
        fs::write(&state, text).expect("written");
        let carbon = FakeCarbon::start();
        let daemon = Daemon::start(&quiet(&carbon, &state), &[]);
        let said = daemon.wait_for_line("is not used, nothing of it: ");
        let aside = format!("it is kept as {}.refused", state.display());
        assert!(said.contains(why) && said.contains(&aside), "{said}");
        assert_eq!(said.matches("ERROR").count(), 1, "{said}");
        let kept = fs::read_to_string(directory.path().join("state.refused"));
        assert_eq!(kept.expect("set aside"), text);
        fs::remove_file(directory.path().join("state.refused")).expect("removed");
        let flush = last_flush(daemon, &carbon);
        assert!(!flush.values.contains_key("stats.gauges.g"), "{why}");
        assert_eq!(flush.number("stats.statsd_fast.state_errors"), 1.0);
        assert!(state.exists(), "a new one");
    }
}

#[test]
fn gauges_whose_names_are_not_clean_are_left_out_where_names_are_cleaned() {
    let directory = Directory::create();
    let state = directory.path().join("state");
    let start = |clean: bool, carbon: &FakeCarbon| {
        let mut options = quiet(carbon, &state);
        options["keyNameSanitize"] = json!(clean);
        Daemon::start(&options, &[])
    };
    let carbon = FakeCarbon::start();
    let daemon = start(false, &carbon);
    send(&daemon, "a+b:5|g\nc:6|g\nd+:7|g");
    last_flush(daemon, &carbon);
    let daemon = start(false, &carbon);
    daemon.wait_for_line("stateFile: 3 gauges");
    last_flush(daemon, &carbon);
    let daemon = start(true, &carbon);
    let said = daemon.wait_for_line("since their names are not clean");
    let begin = format!(
        "WARNING: stateFile: 2 gauges in {} are left out",
        state.display()
    );
    assert!(
        said.contains(&begin) && said.contains("as \"a+b\";"),
        "{said}"
    );
    daemon.wait_for_line("stateFile: 1 gauges");
    let flush = last_flush(daemon, &carbon);
    assert_eq!(flush.values["stats.gauges.c"], "6");
    assert!(!flush.values.contains_key("stats.gauges.ab"));
    assert_eq!(flush.number("stats.statsd_fast.state_dropped"), 2.0);
    assert_eq!(flush.number("stats.statsd_fast.state_errors"), 0.0);
}

#[test]
fn what_is_not_ours_ends_the_start_and_stays_as_it_is() {
    let directory = Directory::create();
    let hosts = directory.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").expect("written");
    let carbon = FakeCarbon::start();
    let mut daemon = Daemon::spawn(&quiet(&carbon, &hosts), &[]);
    assert_eq!(daemon.wait_exit().code(), Some(2), "as for a wrong file");
    let said = daemon.wait_for_line("it is no state file of statsd-fast and would be overwritten");
    let begin = format!("statsd-fast: stateFile: {}: ", hosts.display());
    assert!(said.starts_with(&begin), "{said}");
    assert_eq!(fs::read(&hosts).expect("there"), b"127.0.0.1 localhost\n");
    assert_eq!(names(directory.path()), ["hosts"]);
}

#[test]
fn of_two_servers_with_one_file_the_second_does_not_start() {
    let directory = Directory::create();
    let state = directory.path().join("state");
    // Another name for the same file.
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&state, &link).expect("linked");
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&ticking(&carbon, &state), &[]);
    send(&daemon, "g:5|g");
    daemon.wait_for_line("stateFile: 1 gauges and 0 totals written");
    for path in [&state, &link] {
        let mut second = Daemon::spawn(&quiet(&carbon, path), &[]);
        assert_eq!(second.wait_exit().code(), Some(1), "it may be tried again");
        let owner = format!(
            "another server (process {}) uses it;",
            daemon.process().id()
        );
        second.wait_for_line(&owner);
    }
    kill(daemon);
    // The lock ends with the process, however that ends.
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&quiet(&carbon, &link), &[]);
    daemon.wait_for_line("stateFile: 1 gauges and 0 running totals from");
    send(&daemon, "g:+1|g");
    last_flush(daemon, &carbon);
    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    assert_eq!(
        names(directory.path()),
        ["link", "state"],
        "no lock is left"
    );
    let text = fs::read_to_string(&state).expect("there");
    assert!(text.contains("[\"gauge\",\"g\",\"6.0\","), "{text}");
}

#[test]
fn one_older_than_the_limit_is_not_used() {
    let directory = Directory::create();
    let state = directory.path().join("state");
    left_by_a_daemon(&state);
    let text = fs::read_to_string(&state).expect("text");
    let head = text.lines().next().expect("a first line");
    let (before, rest) = head.split_once("\"written\":").expect("a time");
    let (written, behind) = rest.split_once(',').expect("more");
    // An hour ago, as the daemon of that time would have written it.
    let written: i64 = written.parse().expect("a number");
    let body = text[..text.len() - "{\"crc32\":\"01234567\"}\n".len()].replace(
        head,
        &format!("{before}\"written\":{},{behind}", written - 3600),
    );
    let mut crc = statsd_fast::runtime::crc32::Crc32::new();
    crc.update(body.as_bytes());
    let old = format!("{body}{{\"crc32\":\"{:08x}\"}}\n", crc.value());
    for (limit, used) in [
        (json!(null), true),
        (json!(4000), true),
        (json!(3000), false),
    ] {
        fs::write(&state, &old).expect("written");
        let carbon = FakeCarbon::start();
        let mut options = quiet(&carbon, &state);
        options["stateMaxAge"] = limit;
        let daemon = Daemon::start(&options, &[]);
        if !used {
            let said = daemon.wait_for_line("is not used, nothing of it: it was written 36");
            assert!(said.contains("and stateMaxAge is 3000 s"), "{said}");
        }
        let flush = last_flush(daemon, &carbon);
        assert_eq!(flush.values.contains_key("stats.gauges.g"), used);
    }
    let kept = fs::read_to_string(directory.path().join("state.refused"));
    assert_eq!(kept.expect("set aside"), old);
}

#[test]
fn a_state_that_does_not_change_is_written_once() {
    let directory = Directory::create();
    let state = directory.path().join("state");
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&ticking(&carbon, &state), &[]);
    send(&daemon, "g:5|g");
    daemon.wait_for_line("stateFile: 1 gauges and 0 totals written");
    let said = daemon.log().wait_until("two looks", |lines| {
        let since = lines
            .iter()
            .position(|line| line.contains("1 gauges and 0"))?;
        let same = lines[since..]
            .iter()
            .filter(|line| line.contains("nothing has changed"));
        (same.count() == 2).then(|| lines.to_vec())
    });
    let written = said
        .iter()
        .filter(|line| line.contains("1 gauges and 0 totals written"));
    assert_eq!(written.count(), 1);
    send(&daemon, "g:6|g");
    daemon.log().wait_until("the new value", |_| {
        let text = fs::read_to_string(&state).unwrap_or_default();
        text.contains("[\"gauge\",\"g\",\"6.0\",").then_some(())
    });
}

#[test]
fn a_directory_that_comes_after_the_start_is_written_to() {
    let directory = Directory::create();
    let state = directory.path().join("later/state");
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&quiet(&carbon, &state), &[]);
    daemon.wait_for_line(
        "later is not there; make it, or check the path; gauges and totals begin anew",
    );
    fs::create_dir(directory.path().join("later")).expect("made");
    send(&daemon, "a:5|g");
    last_flush(daemon, &carbon);
    let text = fs::read_to_string(&state).expect("there");
    assert!(text.contains("[\"gauge\",\"a\",\"5.0\""), "{text}");
}

#[test]
fn the_check_of_a_configuration_looks_at_the_directory() {
    let directory = Directory::create();
    let file = directory.path().join("config.js");
    let check = |state: &Path| {
        let config = json!({"graphiteHost": "127.0.0.1", "stateFile": state});
        fs::write(&file, config.to_string()).expect("written");
        let output = Command::new(env!("CARGO_BIN_EXE_statsd-fast"))
            .arg("--check-config")
            .arg(&file)
            .output()
            .expect("it starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).expect("text");
        (output.status.code(), said)
    };
    let good = directory.path().join("state");
    let (code, said) = check(&good);
    assert_eq!((code, said.lines().count()), (Some(0), 1), "{said}");
    assert!(!good.exists(), "it looks, and writes nothing");
    let (code, said) = check(&directory.path().join("gone/state"));
    assert_eq!(code, Some(0));
    assert!(said.contains("stateFile: the directory "), "{said}");
    assert!(
        said.contains("gone is not there (make it, or check the path)"),
        "{said}"
    );
    let (code, said) = check(directory.path());
    assert_eq!(code, Some(2));
    assert!(said.contains("is a directory"), "{said}");
}

/// Waits for a flush that tells of failures to write.
fn failures_are_counted(carbon: &FakeCarbon) {
    while carbon.next().number("stats.statsd_fast.state_errors") == 0.0 {}
}

#[test]
fn a_directory_that_goes_while_running_is_said_and_flushes_go_on() {
    let directory = Directory::create();
    let (inside, away) = (directory.path().join("in"), directory.path().join("away"));
    fs::create_dir(&inside).expect("made");
    let state = inside.join("state");
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&ticking(&carbon, &state), &[]);
    send(&daemon, "g:5|g");
    daemon.wait_for_line("stateFile: 1 gauges and 0 totals written");
    fs::rename(&inside, &away).expect("moved");
    let said = daemon.wait_for_line("state was not written: ");
    assert!(
        said.contains("a crash now goes back to what is there"),
        "{said}"
    );
    failures_are_counted(&carbon);
    fs::rename(&away, &inside).expect("moved");
    daemon.wait_for_line("state is written again");
    kill(daemon);
    let carbon = FakeCarbon::start();
    let mut daemon = Daemon::start(&ticking(&carbon, &state), &[]);
    daemon.wait_for_line("stateFile: 1 gauges and 0 running totals from");
    fs::rename(&inside, &away).expect("moved");
    for _ in 0..3 {
        failures_are_counted(&carbon);
    }
    assert_eq!(daemon.terminate().code(), Some(0));
    let lines = daemon.lines();
    let said = lines.iter().filter(|line| line.contains("was not written"));
    assert_eq!(said.count(), 1, "one line a minute");
    daemon.wait_for_line("stateFile: the last values are not in");
}

/// A file system of 64 KiB; gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir(&at).expect("made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(&at)
            .output();
        let mounted = mounted.is_ok_and(|it| it.status.success());
        mounted.then_some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is still mounted holds up nothing but the removal of its directory.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_the_last_whole_state() {
    let directory = Directory::create();
    let Some(disk) = SmallDisk::mount(directory.path().join("disk")) else {
        println!("SKIPPED: this user may not mount a small tmpfs");
        return;
    };
    let state = disk.0.join("state");
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&ticking(&carbon, &state), &[]);
    send(&daemon, "g:5|g");
    daemon.wait_for_line("stateFile: 1 gauges and 0 totals written");
    // 100 KB of names.
    for number in 0..500 {
        send(&daemon, &format!("{}.{number}:1|g", "long".repeat(50)));
    }
    let said = daemon.wait_for_line("state was not written: ");
    assert!(said.contains("No space left on device"), "{said}");
    failures_are_counted(&carbon);
    kill(daemon);
    let text = fs::read_to_string(&state).expect("the old state");
    assert!(text.contains("[\"gauge\",\"g\",\"5.0\","), "{text}");
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(&quiet(&carbon, &state), &[]);
    daemon.wait_for_line("running totals from");
    let flush = last_flush(daemon, &carbon);
    assert_eq!(flush.values["stats.gauges.g"], "5");
    assert_eq!(names(&disk.0), ["state"]);
}
