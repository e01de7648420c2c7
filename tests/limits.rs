//! Names, members and memory without end, sent to the real server: what is there goes on, what finds no room
//! is counted, and memory does not follow.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{Admin, Daemon, FakeCarbon, Flush, config_without_ticks};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::UdpSocket;

/// Sends so many lines, packed, and no faster than they are taken: after each few datagrams it asks the
/// server, which answers when it has read them.
fn send(daemon: &Daemon, flows: &[UdpSocket], lines: impl Iterator<Item = String>) {
    const TOGETHER: usize = 64;
    let address = daemon.admin().expect("an admin interface");
    let mut admin = Admin::connect(address);
    let (mut datagram, mut datagrams) = (String::new(), 0);
    let mut flush = |datagram: &mut String| {
        let flow = &flows[datagrams % flows.len()];
        flow.send(datagram.as_bytes()).expect("loopback takes it");
        datagram.clear();
        datagrams += 1;
        if datagrams % TOGETHER == 0 {
            admin.ask("stats\n", "END\n\n");
        }
    };
    for line in lines {
        if datagram.len() + line.len() > 8000 {
            flush(&mut datagram);
        }
        writeln!(datagram, "{line}").expect("a String takes it");
    }
    flush(&mut datagram);
    admin.ask("stats\n", "END\n\n");
}

fn flows(daemon: &Daemon) -> Vec<UdpSocket> {
    (0..8).map(|_| daemon.client()).collect()
}

/// Since the start, by name.
fn meters(daemon: &Daemon) -> BTreeMap<String, u64> {
    let address = daemon.admin().expect("an admin interface");
    let reply = Admin::once(address, "meters");
    let lines = reply.lines().filter_map(|line| line.split_once(": "));
    let total = |counts: &str| counts.split(' ').next()?.parse().ok();
    lines
        .filter_map(|(name, counts)| Some((name.to_owned(), total(counts)?)))
        .collect()
}

/// Bytes of the process that are resident.
fn resident(daemon: &Daemon) -> u64 {
    let statm = format!("/proc/{}/statm", daemon.process().id());
    let text = std::fs::read_to_string(statm).expect("it runs");
    let pages: u64 = text
        .split(' ')
        .nth(1)
        .and_then(|it| it.parse().ok())
        .expect("a number");
    pages * 4096
}

fn own(flush: &Flush, name: &str) -> f64 {
    let value = flush.values.get(&format!("stats.statsd_fast.{name}"));
    value
        .and_then(|value| value.parse().ok())
        .expect("it is sent")
}

const KINDS: [&str; 4] = ["c", "ms", "g", "s"];

#[test]
fn memory_does_not_follow_names_without_end() {
    let carbon = FakeCarbon::start();
    let options = json!({"maxNames": 2000, "threads": 2, "dialect": "auto", "exactSamples": 64});
    let daemon = Daemon::start(&config_without_ticks(&carbon, options), &[]);
    let flows = flows(&daemon);
    let name = |n: usize| match n % 4 {
        0 => format!("app.users.{n}.clicks:1|{}", KINDS[n / 4 % 4]),
        1 => format!("app.users.{n}.{}:1|{}", "x".repeat(60), KINDS[n / 4 % 4]),
        2 => format!("hits:1|{}|#user:{n},path:/a/b", KINDS[n / 4 % 4]),
        _ => format!("app users {n}:1|{}", KINDS[n / 4 % 4]),
    };
    // Until each limit and each thing that is remembered is at its largest.
    send(&daemon, &flows, (0..120_000).map(name));
    send(&daemon, &flows, (0..100).map(|n| format!("known.{n}:1|c")));
    let before = resident(&daemon);
    send(&daemon, &flows, (120_000..320_000).map(name));
    let after = resident(&daemon);
    let grown = after.saturating_sub(before);
    assert!(grown < 16 << 20, "{before} bytes, then {after}");

    let counted = meters(&daemon);
    assert_eq!(counted["lines"], 320_100);
    let taken: u64 = ["counters", "timers", "gauges", "sets"]
        .iter()
        .map(|kind| counted[&format!("samples.{kind}")])
        .sum();
    assert_eq!(taken, 320_100);
    assert_eq!(counted["folded.names"], 320_100 - 2000);
    assert_eq!(counted["kernel_drops"], 0);

    let address = daemon.admin().expect("an admin interface");
    let top = Admin::once(address, "top prefixes 3");
    let prefixes: Vec<_> = top
        .lines()
        .filter_map(|line| line.rsplit(' ').next())
        .collect();
    assert_eq!(prefixes[0], "app.users.*", "{top}");
    assert!(prefixes.contains(&"hits;user=*"), "{top}");
    let flush = daemon.stop("TERM", &carbon);
    // Which names were the first is the kernel's choice; how many, and what came of all, is not.
    let of = |begin: &str, end: &str| {
        let ours = |name: &str| name.starts_with("statsd.") || name.starts_with("statsd_fast.");
        let all = flush.values.iter().filter_map(|(name, value)| {
            let path = name.split(';').next()?;
            let name = path.strip_prefix(begin)?.strip_suffix(end)?;
            Some((name, value.parse::<f64>().expect("a number")))
        });
        let all = all.filter(|(name, _)| !ours(name) || name.contains("overflow"));
        all.map(|(_, value)| value).collect::<Vec<_>>()
    };
    let kinds = [
        ("stats_counts.", ""),
        ("stats.timers.", ".count"),
        ("stats.gauges.", ""),
        ("stats.sets.", ".count"),
    ];
    let [counters, timers, gauges, sets] = kinds.map(|(begin, end)| of(begin, end));
    let names = counters.len() + timers.len() + gauges.len() + sets.len();
    assert_eq!(names, 2000 + KINDS.len());
    assert_eq!(counters.iter().sum::<f64>(), 80_100.0);
    assert_eq!(timers.iter().sum::<f64>(), 80_000.0);
    assert!(gauges.iter().chain(&sets).all(|value| *value == 1.0));
    assert_eq!(own(&flush, "folded.names"), 318_100.0);
}

#[test]
fn a_flush_names_limit_prefix_and_way_out_in_one_line() {
    let carbon = FakeCarbon::start();
    let options = json!({"maxNames": 10, "flushInterval": 200});
    let daemon = Daemon::start(&config_without_ticks(&carbon, options), &[]);
    let flows = flows(&daemon);
    send(
        &daemon,
        &flows,
        (0..500).map(|n| format!("job.run.{n}.done:1|c")),
    );
    let line = daemon.wait_for_line("statsd_fast.overflow.*");
    for part in [
        "past the limit of maxNames",
        "begin with \"job.run.\"",
        "mappings",
        "`top prefixes`",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    send(
        &daemon,
        &flows,
        (500..900).map(|n| format!("job.run.{n}.done:1|c")),
    );
    // Two more flushes.
    let folded = |flush: &Flush| own(flush, "folded.names");
    let mut sum = 0.0;
    while sum < 890.0 {
        sum += folded(&carbon.next());
    }
    assert_eq!(sum, 890.0);
    carbon.next();
    let lines = daemon.lines();
    let said = lines
        .iter()
        .filter(|line| line.contains("statsd_fast.overflow.*"));
    assert_eq!(said.count(), 1, "{lines:#?}");
}

#[test]
fn above_the_limit_of_memory_nothing_is_new_and_below_it_is_again() {
    let carbon = FakeCarbon::start();
    let options = json!({"maxSetMembers": 0, "threads": 2, "flushInterval": 3_600_000});
    let mut config = config_without_ticks(&carbon, options);
    config["outboxBytes"] = json!(1 << 20);
    let limit = 96 << 20;
    config["memoryLimit"] = json!(limit);
    let daemon = Daemon::start(&config, &[]);
    let flows = flows(&daemon);
    send(
        &daemon,
        &flows,
        ["known:1|c".to_owned(), "set:1|s".to_owned()].into_iter(),
    );
    // Members until there is no room for more.
    let member = |n: usize| format!("set:{n:0>200}|s");
    let mut sent = 0;
    while !daemon
        .lines()
        .iter()
        .any(|line| line.contains("above memoryLimit"))
    {
        send(&daemon, &flows, (sent..sent + 20_000).map(member));
        sent += 20_000;
        assert!(
            sent < 4_000_000,
            "{} bytes and no word of it",
            resident(&daemon)
        );
    }
    let before = meters(&daemon);
    assert!(resident(&daemon) > limit * 9 / 10);
    let hostile = |n: usize| format!("new.{n}:1|c\nset:x{n}|s\nknown:1|c");
    send(&daemon, &flows, (0..1000).map(hostile));
    let after = meters(&daemon);
    let more = |name: &str| after[name] - before[name];
    assert_eq!(more("folded.memory"), 1000);
    assert_eq!(more("samples.counters"), 2000);
    assert_eq!(
        (more("set_members_dropped"), more("samples.sets")),
        (1000, 0)
    );
    let values = after["samples.sets"] + after["set_members_dropped"];
    assert_eq!(values, sent as u64 + 1001);
    // A limit that is higher, by a reload.
    config["memoryLimit"] = json!(1_u64 << 40);
    std::fs::write(daemon.config_file(), format!("{config:#}\n")).expect("a file");
    daemon.signal("HUP");
    daemon.wait_for_line("no longer above memoryLimit");
    send(
        &daemon,
        &flows,
        ["new.1:1|c".to_owned(), "set:x1|s".to_owned()].into_iter(),
    );
    let last = meters(&daemon);
    assert_eq!(last["folded.memory"], after["folded.memory"]);
    assert_eq!(last["samples.sets"], after["samples.sets"] + 1);
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!(flush.count("known"), 1001.0);
    assert_eq!(flush.count("new.1"), 1.0);
    assert_eq!(flush.count("statsd_fast.overflow.counters"), 1000.0);
}
