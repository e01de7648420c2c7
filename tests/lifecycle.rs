//! Starting and stopping: nothing received is lost at either edge of the daemon's life, and a start
//! that cannot succeed ends with one line that says why.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{Daemon, FakeCarbon, config_without_ticks};
use serde_json::{Value, json};
use statsd_fast::runtime::sys::cpu::CpuClock;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

/// Every signal that asks to stop, one thread and four: what was received and not yet flushed arrives at carbon.
fn last_flush_arrives(options: &Value, clients: impl Fn(&Daemon) -> Vec<UdpSocket>) {
    for (signal, threads) in [("TERM", "1"), ("INT", "1"), ("TERM", "4"), ("INT", "4")] {
        let carbon = FakeCarbon::start();
        let daemon = Daemon::start(
            &config_without_ticks(&carbon, options.clone()),
            &["--threads", threads],
        );
        let clients = clients(&daemon);
        for client in &clients {
            for line in ["jobs:3|c", "load:7.5|g", "wait:20|ms", "users:ann|s"] {
                client
                    .send(line.as_bytes())
                    .expect("loopback takes the datagram");
            }
        }
        let flush = daemon.stop(signal, &carbon);
        let sent = clients.len() as f64;
        assert_eq!(
            flush.count("jobs"),
            3.0 * sent,
            "{signal}, {threads} threads"
        );
        assert_eq!(flush.values["stats.gauges.load"], "7.5");
        assert_eq!(flush.number("stats.timers.wait.count"), sent);
        assert_eq!(flush.number("stats.timers.wait.sum"), 20.0 * sent);
        assert_eq!(flush.values["stats.sets.users.count"], "1");
        assert_eq!(flush.count("statsd.packets_received"), 4.0 * sent);
        assert_eq!(flush.values["statsd.numStats"], "7");
    }
}

fn loopback_v6_is_missing() -> bool {
    let missing = UdpSocket::bind("[::1]:0").is_err();
    if missing {
        println!("SKIPPED: this machine has no ::1");
    }
    missing
}

#[test]
fn last_flush_arrives_over_ipv4() {
    last_flush_arrives(&json!({"address": "127.0.0.1"}), |daemon| {
        vec![daemon.client()]
    });
}

#[test]
fn last_flush_arrives_over_ipv6() {
    if loopback_v6_is_missing() {
        return;
    }
    let options = json!({"address": "::1", "address_ipv6": true});
    last_flush_arrives(&options, |daemon| vec![daemon.client()]);
}

#[test]
fn last_flush_arrives_over_a_dual_stack_listener() {
    if loopback_v6_is_missing() {
        return;
    }
    let options = json!({"address": null, "address_ipv6": true});
    last_flush_arrives(&options, |daemon| {
        let port = daemon.address().port();
        ["127.0.0.1", "::1"]
            .map(|ip| daemon::client_of((ip.parse::<std::net::IpAddr>().unwrap(), port).into()))
            .into()
    });
}

/// Sends 20 000 counters to a daemon that is held still, so that all of them are still in its
/// sockets when it is told to stop. What the kernel had no room for and what was counted must be
/// all that was sent, to the last one. Returns how many datagrams the kernel dropped.
fn burst_before_the_stop(threads: &str, options: Value) -> f64 {
    const LINES: usize = 20;
    const DATAGRAMS: usize = 1000;
    let carbon = FakeCarbon::start();
    let daemon = Daemon::start(
        &config_without_ticks(&carbon, options),
        &["--threads", threads],
    );
    // Several flows, so that every thread has a share.
    let clients: Vec<UdpSocket> = (0..8).map(|_| daemon.client()).collect();
    daemon.signal("STOP");
    for index in 0..DATAGRAMS {
        let lines: Vec<String> = (0..LINES)
            .map(|line| format!("burst.{}:1|c", (index + line) % 100))
            .collect();
        clients[index % clients.len()]
            .send(lines.join("\n").as_bytes())
            .expect("loopback takes the datagram");
    }
    daemon.signal("TERM");
    // Wakes up to find the order to stop.
    let flush = daemon.stop("CONT", &carbon);
    let dropped = flush.number("stats.statsd_fast.kernel_drops");
    let arrived = DATAGRAMS as f64 - dropped;
    let lines = arrived * LINES as f64;
    let counters =
        (flush.values.iter()).filter(|(name, _)| name.starts_with("stats_counts.burst."));
    let counted: f64 = counters.map(|(name, _)| flush.number(name)).sum();
    assert_eq!(counted, lines, "{threads} threads, {dropped} dropped");
    assert_eq!(flush.count("statsd.packets_received"), arrived);
    assert_eq!(flush.count("statsd.metrics_received"), lines);
    assert_eq!(flush.count("statsd.bad_lines_seen"), 0.0);
    assert!(counted > 0.0);
    dropped
}

#[test]
fn a_stop_drains_the_sockets() {
    for threads in ["1", "4"] {
        // As much is dropped as the buffer granted here makes it, usually nothing.
        burst_before_the_stop(threads, json!({}));
    }
}

#[test]
fn what_the_kernel_drops_is_counted() {
    for threads in ["1", "4"] {
        let dropped = burst_before_the_stop(threads, json!({"receiveBuffer": 4096}));
        assert!(dropped > 0.0, "a buffer of 4 KiB holds no 300 KB");
    }
}

#[test]
fn a_port_in_use_ends_the_start() {
    // Without SO_REUSEPORT nobody can share it.
    let owner = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let taken = owner.local_addr().expect("a bound socket has an address");
    for threads in ["1", "4"] {
        let carbon = FakeCarbon::start();
        let config = config_without_ticks(&carbon, json!({"port": taken.port()}));
        let mut daemon = Daemon::spawn(&config, &["--threads", threads]);
        assert_eq!(daemon.wait_exit().code(), Some(1));
        let lines = daemon.lines();
        assert!(
            !lines.iter().any(|line| line.contains("server is up")),
            "{lines:#?}"
        );
        let named: Vec<&String> = lines
            .iter()
            .filter(|line| line.contains(&taken.to_string()))
            .collect();
        assert_eq!(named.len(), 1, "one line names the address: {lines:#?}");
        assert!(
            named[0].contains("in use"),
            "the likely cause: {}",
            named[0]
        );
        assert!(named[0].contains("`port`"), "the way out: {}", named[0]);
    }
}

#[test]
fn every_server_in_the_list_listens() {
    let carbon = FakeCarbon::start();
    let server = json!({"server": "./servers/udp", "address": "127.0.0.1", "port": "0"});
    let options = json!({"servers": [server, server]});
    let daemon = Daemon::start(&config_without_ticks(&carbon, options), &["--threads", "2"]);
    let listeners = daemon.listeners().to_vec();
    assert_eq!(listeners.len(), 2, "{listeners:?}");
    assert_ne!(listeners[0], listeners[1]);
    for (address, line) in listeners.into_iter().zip(["both:1|c", "both:10|c"]) {
        daemon::client_of(address)
            .send(line.as_bytes())
            .expect("loopback takes it");
    }
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!(flush.count("both"), 11.0);
    assert_eq!(flush.count("statsd.packets_received"), 2.0);
}

/// timeout(1) signals the process and then its group: twice the same wish.
#[test]
fn the_same_signal_twice_in_a_row_still_drains() {
    let carbon = FakeCarbon::start();
    let mut daemon = Daemon::start(&config_without_ticks(&carbon, json!({})), &[]);
    daemon
        .client()
        .send(b"jobs:3|c")
        .expect("loopback takes the datagram");
    daemon.signal("TERM");
    daemon.signal("TERM");
    assert_eq!(carbon.next().count("jobs"), 3.0);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
#[ignore = "a measurement: ten seconds of doing nothing, for tuning.md"]
fn measure_an_idle_server() {
    let (seconds, workers) = (10, 8);
    let config = json!({
        "address": "127.0.0.1",
        "port": "0",
        "mgmt_port": "0",
        "threads": workers,
        "flushInterval": 1000,
        "backends": [],
    });
    let daemon = Daemon::start(&config, &[]);
    let process = daemon.process();
    let clock = CpuClock::of_process(process.id()).expect("it has a clock");
    let look = || (clock.used_ns().expect("it runs"), process.switches());
    let (cpu_before, before) = look();
    thread::sleep(Duration::from_secs(seconds));
    let (cpu, after) = look();
    let microseconds = (cpu - cpu_before) / 1000;
    println!("{workers} workers: {microseconds} us of CPU time in {seconds} s, context switches:");
    let mut idle_workers = 0;
    for ((name, before), (same, after)) in before.into_iter().zip(after) {
        assert_eq!(name, same, "threads come and go");
        let switches = after - before;
        println!("{name:<16} {switches:>4}");
        if name.starts_with("ingest-") {
            idle_workers += 1;
            // Woken for a flush, and for nothing else: once a second, and somebody may be in the way then.
            assert!(switches <= 3 * (seconds + 1), "{name}: {switches}");
        }
    }
    assert_eq!(idle_workers, workers);
}
