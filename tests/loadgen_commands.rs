//! The commands of `loadgen` that measure, with the real server: what one says was sent is what the other
//! says it counted. How long anything takes is nobody's concern here.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::Daemon;
use serde_json::{Value, json};
use std::net::UdpSocket;
use std::process::{Command, Output};

const SERVER: &str = env!("CARGO_BIN_EXE_statsd-fast");

fn loadgen(options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(options)
        .output()
        .expect("loadgen starts")
}

/// What a command that ends well says in JSON.
fn json_of(options: &[&str]) -> Value {
    let output = loadgen(&[options, &["--json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{options:?}: {errors}");
    assert_eq!(
        errors, "",
        "no progress is drawn where there is no terminal"
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A server with these keys besides; `None` when another one takes its place, which has no such counters.
fn server(keys: Value) -> Option<Daemon> {
    let mut config = json!({
        "address": "127.0.0.1",
        "port": "0",
        "mgmt_port": "0",
        "threads": 1,
        "backends": [],
    });
    let (config_keys, keys) = (config.as_object_mut(), keys.as_object().cloned());
    config_keys
        .expect("an object")
        .extend(keys.expect("an object"));
    daemon::replaced()
        .is_none()
        .then(|| Daemon::start(&config, &[]))
}

fn addresses(daemon: &Daemon) -> [String; 2] {
    let admin = daemon.admin().expect("an admin interface");
    [daemon.address().to_string(), admin.to_string()]
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// The same number, but for what writing and reading it may do to its last digit.
fn near(value: &Value, expected: f64) {
    let value = value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"));
    assert!(
        (value - expected).abs() <= expected.abs() * 1e-12,
        "{value} is not {expected}"
    );
}

#[test]
fn the_floor_counts_every_datagram() {
    let floor = json_of(&[
        "floor",
        "--rate",
        "20k",
        "--duration",
        "100ms",
        "--ring-bytes",
        "1M",
    ]);
    let (sent, received) = (
        number(&floor["sent_datagrams"]),
        number(&floor["received_datagrams"]),
    );
    assert!(sent > 0 && number(&floor["sent_lines"]) > sent, "{floor}");
    assert_eq!(sent, received + number(&floor["kernel_drops"]));
    near(&floor["received"], received as f64 / sent as f64);
    let ns = number(&floor["cpu_ns"]);
    assert!(ns > 0, "{floor}");
    near(&floor["ns_per_datagram"], ns as f64 / received as f64);
    assert_eq!(floor["receive_buffer"]["asked"], 16 << 20);
}

#[test]
fn the_bench_measures_sink_and_server_by_turns() {
    let bench = json_of(&[
        "bench",
        "--daemon",
        SERVER,
        "--rows",
        "single,mix-1k",
        "--repeats",
        "2",
        "--duration",
        "50ms",
        "--warm-up",
        "20ms",
        "--rate",
        "4k",
        "--ring-bytes",
        "1M",
    ]);
    let rows = bench["rows"].as_array().expect("a list");
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0]["row"], &rows[0]["goal"]),
        (&json!("single"), &json!(0.45))
    );
    assert_eq!(
        (&rows[1]["row"], &rows[1]["goal"]),
        (&json!("mix-1k"), &json!(1.4))
    );
    for row in rows {
        let trials = row["trials"].as_array().expect("a list");
        assert_eq!(trials.len(), 2);
        for trial in trials {
            let (floor, server) = (&trial["floor"], &trial["server"]);
            // So little fits into the buffers whole, and the warm-up counts for nothing.
            assert_eq!(
                number(&server["values"]),
                number(&server["sent_lines"]),
                "{trial}"
            );
            assert_eq!(
                number(&server["received_datagrams"]),
                number(&server["sent_datagrams"])
            );
            assert_eq!(
                number(&floor["received_datagrams"]),
                number(&floor["sent_datagrams"])
            );
            assert_eq!(floor["values"], Value::Null);
            assert!(
                number(&server["cpu_ns"]) > 0 && number(&floor["cpu_ns"]) > 0,
                "{trial}"
            );
            let ns = |trial: &Value| trial["ns_per_value"].as_f64().expect("a number");
            near(&trial["times_floor"], ns(server) / ns(floor));
        }
        let times = |which: &str| row["times_floor"][which].as_f64().expect("a number");
        assert!(times("lowest") <= times("median") && times("median") <= times("highest"));
    }
}

/// A short bench of these options: the trials of its one row, each with all that was sent to the two servers
/// counted by both.
fn whole_trials(options: &[&str], base: &str) -> (Value, Vec<Value>) {
    let bench = [
        "bench",
        "--daemon",
        SERVER,
        "--rows",
        "single",
        "--repeats",
        "2",
        "--duration",
        "50ms",
        "--warm-up",
        "20ms",
        "--rate",
        "4k",
        "--ring-bytes",
        "1M",
    ];
    let said = json_of(&[&bench[..], options].concat());
    let row = said["rows"][0].clone();
    let trials = row["trials"].as_array().expect("a list").clone();
    assert_eq!(trials.len(), 2);
    for trial in &trials {
        for which in [base, "server"] {
            let of = |key: &str| number(&trial[which][key]);
            assert!(of("sent_lines") > 0 && of("cpu_ns") > 0, "{trial}");
            assert_eq!(of("values"), of("sent_lines"), "{which}: {trial}");
            assert_eq!(of("received_datagrams"), of("sent_datagrams"), "{which}");
        }
    }
    (row, trials)
}

fn ns(trial: &Value, which: &str, unit: &str) -> f64 {
    let ns = trial[which][format!("ns_per_{unit}")].as_f64();
    ns.expect("a number")
}

#[test]
fn the_bench_holds_two_workers_against_one() {
    let (row, trials) = whole_trials(&["--workers", "2", "--flows", "8"], "one_worker");
    let asked = "--mix c --names 1000 --metrics-per-datagram 1 --flows 8";
    assert_eq!(
        (&row["options"], &row["goal"]),
        (&json!(asked), &json!(1.11))
    );
    for trial in trials {
        let times = ns(&trial, "server", "value") / ns(&trial, "one_worker", "value");
        near(&trial["times_one_worker"], times);
    }
}

#[test]
fn the_bench_holds_runs_of_datagrams_against_datagrams() {
    let (row, trials) = whole_trials(&["--gso"], "without_gro");
    let asked = "--mix c --names 1000 --metrics-per-datagram 1 --gso";
    assert_eq!(
        (&row["options"], &row["goal"]),
        (&json!(asked), &json!(0.1))
    );
    assert_eq!(row["unit"], "datagram");
    for trial in trials {
        let times = ns(&trial, "server", "datagram") / ns(&trial, "without_gro", "datagram");
        near(&trial["times_without_gro"], times);
    }
}

#[test]
fn the_search_ends_between_a_rate_that_went_whole_and_one_that_did_not() {
    let search = json_of(&[
        "search",
        "--daemon",
        SERVER,
        "--from",
        "5k",
        "--precision",
        "50",
        "--duration",
        "30ms",
        "--ring-bytes",
        "1M",
    ]);
    let steps = search["steps"].as_array().expect("a list");
    assert_eq!(steps[0]["rate"], 5000);
    let (whole, above) = (
        number(&search["lines_per_second"]),
        number(&search["not_whole_at"]),
    );
    assert!(whole < above, "{search}");
    let outcome = |rate: u64| {
        let step = steps.iter().rfind(|step| number(&step["rate"]) == rate);
        step.expect("it was tried")["outcome"].clone()
    };
    assert_ne!(outcome(above), "whole");
    if whole > 0 {
        assert_eq!(outcome(whole), "whole");
        assert!(above as f64 / whole as f64 <= 1.5 + 1e-3, "{search}");
    }
    for step in steps {
        let lost = number(&step["sent_lines"]) - number(&step["values"]) - number(&step["refused"]);
        assert_eq!(step["outcome"] == "lost", lost > 0, "{step}");
    }
}

#[test]
fn the_search_takes_a_server_that_runs_already() {
    let Some(daemon) = server(json!({"receiveBuffer": 4096})) else {
        return;
    };
    let [to, admin] = addresses(&daemon);
    // Of every burst it takes little, so that no rate is whole for long.
    let output = loadgen(&[
        "search",
        "--to",
        &to,
        "--admin",
        &admin,
        "--from",
        "1M",
        "--precision",
        "100",
        "--duration",
        "20ms",
        "--ring-bytes",
        "1M",
    ]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(table.starts_with("   lines/s "), "{table}");
    assert!(
        table
            .lines()
            .nth(1)
            .expect("a step")
            .starts_with("     1.00M "),
        "{table}"
    );
}

#[test]
fn what_a_server_counts_balances_with_what_was_sent() {
    let Some(daemon) = server(json!({})) else {
        return;
    };
    let [to, admin] = addresses(&daemon);
    let options = ["--count", "5k", "--malformed", "10", "--gauge-deltas", "50"];
    let verify = ["verify", "--to", &to, "--admin", &admin];
    // Twice: what was counted before is not part of it.
    json_of(&[&verify[..], &options].concat());
    let said = json_of(&[&verify[..], &options].concat());
    let (sent, balance) = (&said["sent"], &said["balance"]);
    assert_eq!(balance["balanced"], true, "{balance}");
    assert_eq!(balance["sent_lines"], 5_000);
    assert_eq!(balance["received_datagrams"], sent["datagrams"]);
    for kind in ["counters", "timers", "gauges", "sets"] {
        assert_eq!(balance["taken"][kind], sent[kind]["metrics"], "{kind}");
    }
    for reason in [
        "no_type",
        "bad_rate",
        "empty_value",
        "not_a_number",
        "negative_timer",
    ] {
        assert!(number(&sent["malformed"][reason]) > 0);
        assert_eq!(
            balance["refused"][reason], sent["malformed"][reason],
            "{reason}"
        );
    }
    assert_eq!(
        (&balance["lines_gone"], &balance["kernel_drops"]),
        (&json!(0), &json!(0))
    );
}

#[test]
fn what_the_kernel_dropped_is_part_of_the_balance() {
    let Some(daemon) = server(json!({"receiveBuffer": 4096})) else {
        return;
    };
    let [to, admin] = addresses(&daemon);
    let said = json_of(&[
        "verify", "--to", &to, "--admin", &admin, "--count", "100k", "--rate", "max",
    ]);
    let balance = &said["balance"];
    assert_eq!(balance["balanced"], true, "{balance}");
    let dropped = number(&balance["kernel_drops"]);
    assert!(dropped > 0, "{balance}");
    assert_eq!(
        number(&said["sent"]["datagrams"]),
        number(&balance["received_datagrams"]) + dropped
    );
    assert!(number(&balance["lines_gone"]) >= dropped, "{balance}");
}

#[test]
fn what_is_cut_is_part_of_the_balance() {
    let Some(daemon) = server(json!({"maxDatagram": 1000})) else {
        return;
    };
    let [to, admin] = addresses(&daemon);
    let said = json_of(&["verify", "--to", &to, "--admin", &admin, "--count", "5k"]);
    let balance = &said["balance"];
    assert_eq!(balance["balanced"], true, "{balance}");
    let cut = number(&balance["truncated"]);
    assert!(cut > 0 && number(&balance["lines_gone"]) > cut, "{balance}");
}

#[test]
fn what_went_elsewhere_is_named_and_the_exit_code_tells() {
    let Some(daemon) = server(json!({})) else {
        return;
    };
    let [_, admin] = addresses(&daemon);
    let elsewhere = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let to = elsewhere.local_addr().expect("an address").to_string();
    let output = loadgen(&[
        "verify",
        "--to",
        &to,
        "--admin",
        &admin,
        "--count",
        "3",
        "--metrics-per-datagram",
        "1",
    ]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let named = "NOT balanced:\n- 3 datagrams never came to the server's sockets";
    assert!(said.contains(named), "{said}");
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_reason() {
    let no_admin = {
        // Bound and closed again: nobody listens there.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").to_string()
    };
    for (options, code, reason) in [
        (&["bench"][..], 2, "--daemon"),
        (
            &["bench", "--daemon", SERVER, "--rows", "all"],
            2,
            "known are counters-1k,",
        ),
        (
            &["bench", "--daemon", "/nonexistent", "--ring-bytes", "1k"],
            1,
            "cannot start /nonexistent",
        ),
        (
            &[
                "bench",
                "--daemon",
                "/bin/true",
                "--duration",
                "1ms",
                "--warm-up",
                "1ms",
                "--ring-bytes",
                "1k",
            ],
            1,
            "ended instead of starting",
        ),
        (
            &["floor", "--receiver-core", "99999"],
            1,
            "no core 99999 to run on",
        ),
        (
            &["floor", "--datagram-bytes", "1"],
            2,
            "one line of this shape",
        ),
        (
            &["bench", "--daemon", SERVER, "--gso", "--rows", "mix-1k"],
            1,
            "mix-1k: --gso: the kernel cuts datagrams of one size",
        ),
        (
            &[
                "bench",
                "--daemon",
                SERVER,
                "--workers",
                "4",
                "--flows",
                "3",
            ],
            1,
            "--flows 3 are too few for --workers 4",
        ),
        (
            &["bench", "--daemon", SERVER, "--gso", "--workers", "2"],
            2,
            "cannot be used with",
        ),
        (&["search"], 2, "required"),
        (&["search", "--to", "127.0.0.1:1"], 2, "--admin"),
        (&["verify"], 2, "--admin"),
        (
            &["verify", "--admin", &no_admin],
            1,
            "no admin interface at",
        ),
        (&["--count", "1", "floor"], 2, "cannot be used with"),
    ] {
        let output = loadgen(options);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(reason), "{options:?}: {errors}");
        assert_eq!(output.status.code(), Some(code), "{options:?}");
        assert!(output.stdout.is_empty());
    }
}
