//! The faults of other StatsD servers, by what goes wrong in them, each with the test that holds this one to
//! doing better: most of them here, through the real daemon, some elsewhere. [`FAULTS`] lists them all.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{Admin, Daemon, FakeCarbon, Flush, config_without_ticks};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

/// Whose fault it was, what went wrong, and the test: of this program, or `program::test`, or a file of the
/// sources and a test in it.
#[rustfmt::skip]
const FAULTS: &[(&str, &str, &str)] = &[
    ("brubeck", "a batch that is not full brings the packets of the one before again", "a_batch_that_is_not_full_brings_nothing_again"),
    ("brubeck", "a long name overflows a slab, a line of text, the byte for its length", "a_long_name_comes_out_whole_in_text_and_pickle"),
    ("brubeck", "a timer stops at 65,535 values, and its mean no longer fits its count", "many_values_of_a_timer_all_count"),
    ("brubeck", "nothing bounds how many names there are: memory follows whoever makes them up", "limits::memory_does_not_follow_names_without_end"),
    ("brubeck", "the type is not part of the name", "one_name_may_have_every_type"),
    ("brubeck", "a connection that breaks in the middle of a flush loses the rest of it", "graphite::a_flush_cut_by_a_reset_is_sent_again_whole"),
    ("brubeck", "workers are killed at the stop, without a last flush", "lifecycle::a_stop_drains_the_sockets"),
    ("brubeck, telegraf, statsd", "a line of the log for each bad line", "bad_lines_are_one_line_of_the_log"),
    ("statsite", "backends are forked, and a fork that fails counts as success", "privilege::it_writes_nowhere_but_where_it_is_told"),
    ("bioyino", "of two workers that meet a new name at once, one loses its values", "names_that_are_new_to_all_workers_at_once_lose_nothing"),
    ("bioyino", "the last few values stay in a buffer until more come", "a_single_value_is_in_the_next_flush"),
    ("bioyino", "an address of IPv6 is taken for one of another length", "senders_of_ipv6_are_told_apart"),
    ("bioyino", "there is no order at the stop: the last interval is lost", "lifecycle::the_same_signal_twice_in_a_row_still_drains"),
    ("gostatsd", "lengths of an event that wrap around are a panic", "lengths_that_wrap_around_are_a_bad_event"),
    ("gostatsd", "a zero byte is the end of the text", "a_zero_byte_is_a_byte"),
    ("gostatsd", "what aggregators hold is not flushed at the stop", "lifecycle::last_flush_arrives_over_ipv4"),
    ("statsd", "a rate that one place takes and another does not ends the daemon", "a_rate_is_one_or_the_line_is_refused"),
    ("statsd", "a rate with an exponent is 1, a rate of 0 makes infinity", "a_rate_is_one_or_the_line_is_refused"),
    ("statsd", "names of the language's own objects are lost, or end the daemon", "names_of_objects_are_names"),
    ("statsd", "a metric whose name contains bad_lines_seen counts as the server's own", "a_metric_named_like_one_of_ours_is_a_metric"),
    ("statsd", "an error of the connection to carbon is never in last_exception", "graphite::the_statistics_of_the_backend_are_those_of_the_flush_before"),
    ("statsd", "a reset of a client ends the daemon", "streams::clients_may_leave_as_they_like"),
    ("statsd", "a file that does not parse ends the daemon while it runs", "reload::what_cannot_be_used_changes_nothing_and_says_why"),
    ("statsd_exporter", "a bad rate is counted as an error, and the value used all the same", "a_rate_is_one_or_the_line_is_refused"),
    ("statsd_exporter, netdata", "a small rate is so many copies of a value", "a_small_rate_is_a_weight_and_not_so_many_copies"),
    ("statsd_exporter", "the address in an error is that of another listener", "an_error_names_the_listener_it_is_about"),
    ("statsd_exporter", "a listener that failed is gone, and the health page says all is well", "a_receive_call_that_fails_makes_nobody_deaf"),
    ("vector", "a weight is a whole number: 0.3 counts as 3", "a_weight_has_fractions"),
    ("vector", "a byte that is no UTF-8 costs the whole datagram", "a_byte_that_is_no_text_costs_its_neighbours_nothing"),
    ("vector", "several values in a line are not read", "several_values_of_a_line_all_count"),
    ("telegraf", "percentiles are of a thousand values drawn at random", "percentiles_of_many_values_are_not_drawn_at_random"),
    ("telegraf", "what does not fit a queue inside is dropped", "lifecycle::what_the_kernel_drops_is_counted"),
    ("datadog-agent, saluki", "one socket for all cores, and drops nobody counts", "lifecycle::what_the_kernel_drops_is_counted"),
    ("statsdproxy", "a test passes for the wrong reason", "every_fault_has_its_test"),
];

fn quiet(carbon: &FakeCarbon, options: Value) -> Daemon {
    Daemon::start(&config_without_ticks(carbon, options), &["--threads", "2"])
}

/// What comes out of these datagrams, sent by one client.
fn flush_of(options: Value, datagrams: &[&[u8]]) -> Flush {
    let carbon = FakeCarbon::start();
    let daemon = quiet(&carbon, options);
    let client = daemon.client();
    for datagram in datagrams {
        client.send(datagram).expect("loopback takes it");
    }
    daemon.stop("TERM", &carbon)
}

fn rejected(flush: &Flush) -> BTreeMap<&str, f64> {
    let reasons = flush.values.keys();
    let reasons = reasons.filter_map(|name| name.strip_prefix("stats.statsd_fast.rejected."));
    let counts = reasons.map(|reason| {
        let name = format!("stats.statsd_fast.rejected.{reason}");
        (reason, flush.number(&name))
    });
    counts.filter(|(_, count)| *count > 0.0).collect()
}

#[test]
fn every_fault_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (whose, what, test) in FAULTS {
        let (file, name) = match test.rsplit_once("::") {
            Some((file, name)) if file.ends_with(".rs") => (root.join(file), name),
            Some((program, name)) => (root.join(format!("tests/{program}.rs")), name),
            None => (root.join("tests/peers.rs"), *test),
        };
        let text = fs::read_to_string(&file).unwrap_or_default();
        let is_there = text.contains(&format!("#[test]\nfn {name}() {{"))
            || text.contains(&format!("#[test]\n    fn {name}() {{"));
        assert!(is_there, "{whose}, {what}: there is no test {test}");
    }
}

#[test]
fn a_batch_that_is_not_full_brings_nothing_again() {
    let carbon = FakeCarbon::start();
    let daemon = quiet(&carbon, json!({}));
    let client = daemon.client();
    let mut admin = Admin::connect(daemon.admin().expect("an admin interface"));
    // A burst that fills batches, then one by one, each taken before the next comes.
    for _ in 0..500 {
        client.send(b"burst:1|c").expect("loopback takes it");
    }
    for number in 1..=20 {
        client.send(b"single:1|c").expect("loopback takes it");
        let shown = format!("single: {number}");
        // One entry a line, or all in one.
        let is_shown = |reply: &str| {
            let mut entries = reply.split([',', '{', '}', '\n']);
            entries.any(|entry| entry.trim() == shown)
        };
        while !is_shown(&admin.ask("counters\n", "END\n\n")) {}
    }
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!((flush.count("burst"), flush.count("single")), (500.0, 20.0));
    assert_eq!(flush.number("stats.statsd_fast.packets"), 520.0);
}

#[test]
fn a_long_name_comes_out_whole_in_text_and_pickle() {
    let names: Vec<_> = [255, 256, 1025, 4500, 8191, 60_000]
        .map(|length| format!("{length:x<length$}"))
        .into();
    let lines: Vec<_> = names.iter().map(|name| format!("{name}:3|c")).collect();
    let datagrams: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
    let flush = flush_of(json!({"maxNameLength": 0}), &datagrams);
    for name in &names {
        assert_eq!(flush.count(name), 3.0, "{} bytes", name.len());
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let mut config = daemon::config(port);
    config["flushInterval"] = json!(600_000);
    config["maxNameLength"] = json!(0);
    config["graphiteProtocol"] = json!("pickle");
    config["graphitePicklePort"] = json!(port);
    let mut daemon = Daemon::start(&config, &[]);
    for line in &lines {
        daemon
            .client()
            .send(line.as_bytes())
            .expect("loopback takes it");
    }
    daemon.signal("TERM");
    let (mut connection, _) = listener.accept().expect("the last flush");
    let mut payload = Vec::new();
    connection.read_to_end(&mut payload).expect("all of it");
    drop(connection);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    let frames = daemon::pickle::frames(&payload).expect("a pickle");
    let points: Vec<_> = frames.into_iter().flatten().collect();
    for name in &names {
        let full = format!("stats_counts.{name}");
        let found = points.iter().filter(|point| point.0 == full).count();
        assert_eq!(found, 1, "{} bytes", name.len());
    }
}

#[test]
fn many_values_of_a_timer_all_count() {
    const VALUES: usize = 70_000;
    // 1 to 100, over and over.
    let lines: Vec<_> = (0..VALUES)
        .map(|at| format!("t:{}|ms\n", at % 100 + 1))
        .collect();
    let datagrams: Vec<_> = lines.chunks(2000).map(|lines| lines.concat()).collect();
    let datagrams: Vec<_> = datagrams.iter().map(|it| it.as_bytes()).collect();
    let flush = flush_of(json!({}), &datagrams);
    let of = |field: &str| flush.number(&format!("stats.timers.t.{field}"));
    assert_eq!(of("count"), VALUES as f64);
    assert_eq!((of("lower"), of("upper")), (1.0, 100.0));
    let sum = VALUES as f64 * 50.5;
    assert!((of("sum") / sum - 1.0).abs() < 1e-3, "{}", of("sum"));
    assert!((of("mean") * of("count") / of("sum") - 1.0).abs() < 1e-9);
}

#[test]
fn percentiles_of_many_values_are_not_drawn_at_random() {
    // One value in a thousand is far away: of a thousand drawn, it may be none or several.
    let value = |at: usize| if at.is_multiple_of(1000) { 5000 } else { 10 };
    let lines: Vec<_> = (0..20_000)
        .map(|at| format!("t:{}|ms\n", value(at)))
        .collect();
    let datagrams: Vec<_> = lines.chunks(2000).map(|lines| lines.concat()).collect();
    let datagrams: Vec<_> = datagrams.iter().map(|it| it.as_bytes()).collect();
    let options = || json!({"percentThreshold": [99.8, 99.95]});
    for _ in 0..2 {
        let flush = flush_of(options(), &datagrams);
        let upper = |of: &str| flush.number(&format!("stats.timers.t.upper_{of}"));
        assert!((upper("99_8") / 10.0 - 1.0).abs() < 1e-3);
        assert!((upper("99_95") / 5000.0 - 1.0).abs() < 1e-3);
    }
}

#[test]
fn one_name_may_have_every_type() {
    let flush = flush_of(json!({}), &[b"n:1|c\nn:20|ms\nn:300|g\nn:member|s"]);
    assert_eq!(flush.count("n"), 1.0);
    assert_eq!(flush.number("stats.timers.n.upper"), 20.0);
    assert_eq!(flush.number("stats.gauges.n"), 300.0);
    assert_eq!(flush.number("stats.sets.n.count"), 1.0);
    assert!(rejected(&flush).is_empty());
}

#[test]
fn bad_lines_are_one_line_of_the_log() {
    let carbon = FakeCarbon::start();
    let mut daemon = quiet(&carbon, json!({"flushInterval": 50}));
    let client = daemon.client();
    let mut seen = 0.0;
    while seen < 1000.0 {
        client
            .send("bad\n".repeat(100).as_bytes())
            .expect("loopback takes it");
        let flush = carbon.next();
        seen += rejected(&flush).values().sum::<f64>();
    }
    daemon.terminate();
    let lines = daemon.lines();
    let said = lines
        .iter()
        .filter(|line| line.contains("bad values in this interval"));
    assert_eq!(said.count(), 1, "one a minute");
}

#[test]
fn names_that_are_new_to_all_workers_at_once_lose_nothing() {
    const SENDERS: usize = 8;
    const NAMES: usize = 300;
    let carbon = FakeCarbon::start();
    let config = config_without_ticks(&carbon, json!({}));
    let daemon = Daemon::start(&config, &["--threads", "4"]);
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            let client = daemon.client();
            scope.spawn(move || {
                for name in 0..NAMES {
                    let line = format!("new.{name}:1|c\nnew.{name}:5|ms");
                    client.send(line.as_bytes()).expect("loopback takes it");
                }
            });
        }
    });
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!(flush.number("stats.statsd_fast.kernel_drops"), 0.0);
    for name in 0..NAMES {
        let name = format!("new.{name}");
        assert_eq!(flush.count(&name), SENDERS as f64, "{name}");
        let count = flush.number(&format!("stats.timers.{name}.count"));
        assert_eq!(count, SENDERS as f64, "{name}");
    }
}

#[test]
fn a_single_value_is_in_the_next_flush() {
    let carbon = FakeCarbon::start();
    let daemon = quiet(
        &carbon,
        json!({"flushInterval": 100, "deleteCounters": true}),
    );
    let client = daemon.client();
    for number in 0..5 {
        let name = format!("single.{number}");
        client
            .send(format!("{name}:1|c").as_bytes())
            .expect("loopback takes it");
        // Nothing else comes that could push it out.
        let full = format!("stats_counts.{name}");
        while !carbon.next().values.contains_key(&full) {}
    }
}

#[test]
fn senders_of_ipv6_are_told_apart() {
    let carbon = FakeCarbon::start();
    let config = config_without_ticks(&carbon, json!({"address": "::1", "address_ipv6": true}));
    let daemon = Daemon::start(&config, &["--threads", "2"]);
    let clients: Vec<_> = (0..20).map(|_| daemon.client()).collect();
    for (number, client) in clients.iter().enumerate() {
        client
            .send(format!("six.{number}:1|c\nall:1|c").as_bytes())
            .expect("loopback takes it");
    }
    let flush = daemon.stop("TERM", &carbon);
    assert_eq!(flush.count("all"), 20.0);
    for number in 0..20 {
        assert_eq!(flush.count(&format!("six.{number}")), 1.0);
    }
}

#[test]
fn lengths_that_wrap_around_are_a_bad_event() {
    let lines: [&[u8]; 7] = [
        b"_e{1,4294967294}:a|b",
        b"_e{4294967294,1}:a|b",
        b"_e{4294967297,1}:a|b",
        b"_e{18446744073709551617,1}:a|b",
        b"_e{9223372036854775808,9223372036854775808}:a|b",
        b"_e{1,99999999999999999999999999}:a|b",
        b"_e{-1,1}:a|b",
    ];
    let mut datagram = lines.join(&b'\n');
    datagram.extend_from_slice(b"\nbehind:1|c");
    let flush = flush_of(json!({"dialect": "auto"}), &[&datagram]);
    assert_eq!(rejected(&flush), [("bad_event", 7.0)].into());
    assert_eq!(flush.count("behind"), 1.0);
}

#[test]
fn a_zero_byte_is_a_byte() {
    for dialect in ["statsd", "auto"] {
        let datagram = b"\0before:1|c\nin\0side:2|c\nvalue:3\0|c\nbehind:4|c\0\nlast:5|c";
        let flush = flush_of(json!({"dialect": dialect}), &[datagram, b"\0", b"next:6|c"]);
        assert_eq!(flush.count("before"), 1.0);
        assert_eq!(flush.count("inside"), 2.0);
        assert_eq!((flush.count("last"), flush.count("next")), (5.0, 6.0));
        assert_eq!(flush.number("stats.statsd_fast.packets"), 3.0);
    }
}

#[test]
fn a_rate_is_one_or_the_line_is_refused() {
    for (rate, expected) in [
        ("@0.1", Some(10.0)),
        ("@1", Some(1.0)),
        // One place takes it for a number, another finds none in it.
        ("@ 1", None),
        ("@Infinity", None),
        ("@+1", None),
        ("@-1", None),
        ("@x", None),
        ("@", None),
        ("@NaN", None),
    ] {
        for dialect in ["statsd", "auto"] {
            let line = format!("r:1|c|{rate}");
            let flush = flush_of(json!({"dialect": dialect}), &[line.as_bytes(), b"next:1|c"]);
            assert_eq!(flush.count("next"), 1.0, "it goes on after {line}");
            let counted = flush
                .values
                .contains_key("stats_counts.r")
                .then(|| flush.count("r"));
            assert_eq!(counted, expected, "{dialect}: {line}");
            let bad = rejected(&flush).get("bad_rate").copied();
            assert_eq!(bad, expected.is_none().then_some(1.0), "{dialect}: {line}");
        }
    }
    // What the original reads in a way of its own is read as it is written.
    for (rate, expected) in [("@0", 1.0), ("@1e-3", 1001.0), ("@1e999", 1.0)] {
        let line = format!("r:1|c|{rate}");
        let flush = flush_of(json!({"dialect": "auto"}), &[line.as_bytes(), b"r:1|c"]);
        assert_eq!(flush.count("r"), expected, "{line}");
    }
}

#[test]
fn names_of_objects_are_names() {
    let names = [
        "__proto__",
        "constructor",
        "toString",
        "hasOwnProperty",
        "valueOf",
    ];
    let lines = names.map(|name| format!("{name}:1|c\n{name}:2|ms\n{name}:3|g\n{name}:{name}|s"));
    let datagrams = lines.each_ref().map(|lines| lines.as_bytes());
    let flush = flush_of(json!({}), &datagrams);
    for name in names {
        assert_eq!(flush.count(name), 1.0, "{name}");
        assert_eq!(flush.number(&format!("stats.timers.{name}.upper")), 2.0);
        assert_eq!(flush.number(&format!("stats.gauges.{name}")), 3.0);
        assert_eq!(flush.number(&format!("stats.sets.{name}.count")), 1.0);
    }
}

/// That such a name is spared when idle counters are deleted is the original's way, and kept: scenarios have it.
#[test]
fn a_metric_named_like_one_of_ours_is_a_metric() {
    let lines = b"my.bad_lines_seen.count:3|c\nmy.packets_received:4|c\nbad_lines_seen:5|c";
    let flush = flush_of(json!({}), &[lines]);
    assert_eq!(flush.count("my.bad_lines_seen.count"), 3.0);
    assert_eq!(flush.count("my.packets_received"), 4.0);
    assert_eq!(flush.count("bad_lines_seen"), 5.0);
    assert_eq!(flush.count("statsd.bad_lines_seen"), 0.0);
    assert_eq!(flush.count("statsd.packets_received"), 1.0);
    assert_eq!(flush.number("stats.statsd_fast.packets"), 1.0);
}

/// Memory of a process that is not shared, in KiB.
fn memory_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let line = line.expect("proc(5)").trim().trim_end_matches(" kB");
    line.parse().expect("a number")
}

#[test]
fn a_small_rate_is_a_weight_and_not_so_many_copies() {
    let carbon = FakeCarbon::start();
    let daemon = quiet(&carbon, json!({"dialect": "auto", "flushInterval": 50}));
    let client = daemon.client();
    client.send(b"warm:1|ms").expect("loopback takes it");
    while !carbon.next().values.contains_key("stats.timers.warm.count") {}
    let before = memory_kib(daemon.process().id());
    client
        .send(b"t:5|ms|@0.0000001\nh:5|h|@0.0000001")
        .expect("loopback takes it");
    let flush = loop {
        let flush = carbon.next();
        if flush.values.contains_key("stats.timers.t.count") {
            break flush;
        }
    };
    assert_eq!(flush.number("stats.timers.t.count"), 1e7);
    assert_eq!(flush.number("stats.timers.t.upper"), 5.0);
    assert_eq!(flush.number("stats.timers.h.count"), 1e7);
    // Ten million copies of a number would be 76 MiB at least.
    let grown = memory_kib(daemon.process().id()).saturating_sub(before);
    assert!(grown < 20 * 1024, "{grown} KiB more");
}

#[test]
fn a_weight_has_fractions() {
    let options = json!({"dialect": "auto"});
    let flush = flush_of(options, &[b"t:10|ms|@0.3\nc:1|c|@0.3\nd:10|d|@0.3"]);
    for count in [
        flush.number("stats.timers.t.count"),
        flush.number("stats.timers.d.count"),
        flush.count("c"),
    ] {
        assert!((count - 1.0 / 0.3).abs() < 1e-6, "{count}");
    }
}

#[test]
fn an_error_names_the_listener_it_is_about() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let udp = daemon::free_udp_port();
    let carbon = FakeCarbon::start();
    let options = json!({"servers": [
        {"server": "./servers/udp", "address": "127.0.0.1", "port": udp},
        {"server": "./servers/tcp", "address": "127.0.0.1", "port": port},
    ]});
    let mut daemon = Daemon::spawn(&config_without_ticks(&carbon, options), &[]);
    assert_eq!(daemon.wait_exit().code(), Some(1), "no half of a server");
    let said = daemon.wait_for_line("cannot listen on ");
    assert!(
        said.contains(&format!("cannot listen on tcp 127.0.0.1:{port}")),
        "{said}"
    );
    assert!(!said.contains(&udp.to_string()), "{said}");
}

#[test]
fn a_receive_call_that_fails_makes_nobody_deaf() {
    let carbon = FakeCarbon::start();
    let daemon = quiet(&carbon, json!({}));
    // The kernel ends what waits on a socket with an error, where it is built to and root asks for it.
    let port = format!("sport = :{}", daemon.address().port());
    let ended = Command::new("ss").args(["-K", "-uan", &port]).output();
    let text = ended.map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
    if !text.is_ok_and(|text| text.contains("UNCONN")) {
        println!("SKIPPED: ss is not there, or may not end a socket");
        return;
    }
    for number in 0..20 {
        let line = format!("after.{number}:1|c");
        daemon
            .client()
            .send(line.as_bytes())
            .expect("loopback takes it");
    }
    let flush = daemon.stop("TERM", &carbon);
    for number in 0..20 {
        assert_eq!(
            flush.count(&format!("after.{number}")),
            1.0,
            "whoever it went to"
        );
    }
    let errors = flush.number("stats.statsd_fast.receive_errors");
    assert!(
        errors <= 2.0,
        "{errors}: once for each worker, not over and over"
    );
    if errors == 0.0 {
        println!("SKIPPED: this kernel ended no socket");
    }
}

#[test]
fn a_byte_that_is_no_text_costs_its_neighbours_nothing() {
    for dialect in ["statsd", "auto"] {
        let datagram = b"a:1|c\nb\xff\xfe:2|c\nc:3|c\n\x80\nd:\xc3|s\ne:5|c";
        let flush = flush_of(json!({"dialect": dialect}), &[datagram]);
        for (name, count) in [("a", 1.0), ("b", 2.0), ("c", 3.0), ("e", 5.0)] {
            assert_eq!(flush.count(name), count, "{dialect}: {name}");
        }
        assert_eq!(flush.number("stats.sets.d.count"), 1.0);
        assert_eq!(rejected(&flush), [("no_type", 1.0)].into(), "{dialect}");
    }
}

#[test]
fn several_values_of_a_line_all_count() {
    let options = json!({"dialect": "auto"});
    let flush = flush_of(options, &[b"c:1:2:3|c\nt:10:20:30|ms\nd:1:2|d|@0.5"]);
    assert_eq!(flush.count("c"), 6.0);
    assert_eq!(flush.number("stats.timers.t.count"), 3.0);
    assert_eq!(flush.number("stats.timers.t.sum"), 60.0);
    assert_eq!(flush.number("stats.timers.d.count"), 4.0);
}
