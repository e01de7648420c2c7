//! The real `loadgen` against a socket of the test: what it says it sent is what arrives, to the
//! unit.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::SockRef;

/// A server that only listens. Loads are small enough to fit its buffer whole, even a default one.
struct Sink {
    socket: UdpSocket,
}

/// Datagrams by source address, in order of arrival.
type Received = BTreeMap<SocketAddr, Vec<String>>;

impl Sink {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        SockRef::from(&socket)
            .set_recv_buffer_size(8 << 20)
            .unwrap();
        Self { socket }
    }

    fn spawn(&self, options: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args([
                "--json",
                "--to",
                &self.socket.local_addr().unwrap().to_string(),
            ])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs loadgen to its end, then takes what is queued: loopback delivers inside the send call.
    fn load(&self, options: &[&str]) -> (Value, Received) {
        let report = report(self.spawn(options).wait_with_output().unwrap());
        (report, self.drain())
    }

    fn drain(&self) -> Received {
        self.socket.set_nonblocking(true).unwrap();
        let mut received = Received::new();
        let mut buffer = vec![0; 65_536];
        while let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            received.entry(from).or_default().push(text);
        }
        received
    }
}

fn report(output: Output) -> Value {
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    assert_eq!(
        errors, "",
        "no progress is drawn where there is no terminal"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the bytes say, in the words of the report.
fn totals(received: &Received) -> Value {
    let datagrams: Vec<&String> = received.values().flatten().collect();
    let (mut counters, mut timers, mut gauges, mut sets) = (0, 0, 0, 0);
    let (mut counter_sum, mut timer_sum, mut deltas) = (0_u64, 0_u64, 0);
    let mut names: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut members = BTreeSet::new();
    for line in datagrams.iter().flat_map(|datagram| datagram.split('\n')) {
        let (name, rest) = line.split_once(':').unwrap();
        let mut parts = rest.split('|');
        let (value, kind) = (parts.next().unwrap(), parts.next().unwrap());
        names.entry(kind).or_default().insert(name);
        match kind {
            "c" => {
                counters += 1;
                counter_sum += value.parse::<u64>().unwrap();
            }
            "ms" => {
                timers += 1;
                timer_sum += (value.parse::<f64>().unwrap() * 1000.0).round() as u64;
            }
            "g" => {
                gauges += 1;
                deltas += i32::from(value.starts_with(['+', '-']));
            }
            "s" => {
                sets += 1;
                members.insert((name, value));
            }
            other => panic!("{other} in {line}"),
        }
    }
    let names = |kind| names.get(kind).map_or(0, BTreeSet::len);
    json!({
        "metrics": counters + timers + gauges + sets,
        "datagrams": datagrams.len(),
        "bytes": datagrams.iter().map(|datagram| datagram.len()).sum::<usize>(),
        "counters": [counters, names("c"), counter_sum],
        "timers": [timers, names("ms"), timer_sum],
        "gauges": [gauges, names("g"), deltas],
        "sets": [sets, names("s"), members.len()],
    })
}

/// The same from the report.
fn told(report: &Value) -> Value {
    let part = |name: &str, last: &str| {
        json!([
            report[name]["metrics"],
            report[name]["names"],
            report[name][last]
        ])
    };
    json!({
        "metrics": report["metrics"],
        "datagrams": report["datagrams"],
        "bytes": report["bytes"],
        "counters": part("counters", "sum"),
        "timers": part("timers", "sum_us"),
        "gauges": part("gauges", "deltas"),
        "sets": part("sets", "members"),
    })
}

#[test]
fn packed_totals_are_what_arrives() {
    let (report, received) =
        Sink::new().load(&["--count", "5000", "--rate", "100k", "--names", "50"]);
    assert_eq!(told(&report), totals(&received));
    assert_eq!(report["metrics"], 5000);
    assert_eq!(report["planned"], 5000);
    assert_eq!(report["failed"], 0);
    assert_eq!(report["missed"], 0);
    assert_eq!(report["interrupted"], false);
    assert_eq!(received.len(), 1);
    assert!(
        received
            .values()
            .flatten()
            .all(|datagram| datagram.len() <= 1432)
    );
}

#[test]
fn single_metric_totals_are_what_arrives_over_many_flows() {
    let options = [
        "--count",
        "401",
        "--rate",
        "max",
        "--metrics-per-datagram",
        "1",
        "--flows",
        "5",
        "--threads",
        "2",
    ];
    let (report, received) = Sink::new().load(&options);
    assert_eq!(told(&report), totals(&received));
    let mut shares: Vec<usize> = received.values().map(Vec::len).collect();
    shares.sort_unstable();
    assert_eq!(shares, [80, 80, 80, 80, 81]);
    assert_eq!(report["rate_kept"], Value::Null);
    assert_eq!(report["lateness_us"], Value::Null);
}

#[test]
fn a_ring_sent_over_and_over_is_counted_right() {
    let options = [
        "--count",
        "5003",
        "--rate",
        "max",
        "--ring-bytes",
        "10k",
        "--mix",
        "c:1,s:1",
    ];
    let (report, received) = Sink::new().load(&options);
    assert!(report["ring"]["lines"].as_u64().unwrap() < 1000);
    assert_eq!(told(&report), totals(&received));
    assert_eq!(report["metrics"], 5003);
}

#[test]
fn a_duration_is_the_rate_times_the_time() {
    let (report, received) = Sink::new().load(&["--duration", "200ms", "--rate", "5001"]);
    assert_eq!(report["planned"], 1000);
    assert_eq!(told(&report), totals(&received));
    // However late this machine was.
    assert_eq!(
        report["metrics"].as_u64().unwrap() + report["missed"].as_u64().unwrap(),
        1000
    );
    assert!(report["lateness_us"]["max"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_same_seed_sends_the_same_bytes_on_each_flow() {
    let flows = |seed| {
        let options = [
            "--count",
            "3000",
            "--rate",
            "max",
            "--flows",
            "3",
            "--threads",
            "3",
            "--seed",
            seed,
        ];
        let (_, received) = Sink::new().load(&options);
        let mut flows: Vec<Vec<String>> = received.into_values().collect();
        flows.sort();
        flows
    };
    let once = flows("7");
    assert_eq!(once.len(), 3);
    assert_eq!(once, flows("7"));
    assert_ne!(once, flows("8"));
}

#[test]
fn lines_carry_the_prefix_rate_and_tags_asked_for() {
    let options = [
        "--count",
        "200",
        "--rate",
        "max",
        "--mix",
        "c",
        "--names",
        "1",
        "--name-prefix",
        "app.web",
        "--sample-rate",
        "0.5",
        "--tags",
        "2",
    ];
    let (report, received) = Sink::new().load(&options);
    for line in received
        .values()
        .flatten()
        .flat_map(|datagram| datagram.split('\n'))
    {
        let rest = line.strip_prefix("app.web.c.000000:").unwrap();
        let value = rest.strip_suffix("|c|@0.5|#t0:v0,t1:v0").unwrap();
        assert!((1..=9).contains(&value.parse::<u32>().unwrap()), "{line}");
    }
    let sum = report["counters"]["sum"].as_f64().unwrap();
    assert_eq!(report["counters"]["scaled_sum"].as_f64(), Some(2.0 * sum));
}

#[test]
fn what_nobody_receives_is_counted_as_failed() {
    let sink = Sink::new();
    let address = sink.socket.local_addr().unwrap().to_string();
    drop(sink);
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args([
            "--json",
            "--to",
            &address,
            "--count",
            "100",
            "--rate",
            "1k",
            "--metrics-per-datagram",
            "1",
        ])
        .output()
        .unwrap();
    let report = report(output);
    let refused = report["failed_datagrams"]["refused"].as_u64().unwrap();
    assert!(refused > 0);
    assert_eq!(report["failed"], refused);
    assert_eq!(report["metrics"].as_u64().unwrap() + refused, 100);
}

#[test]
fn a_rate_out_of_reach_is_said_to_be_the_senders_limit() {
    let options = [
        "--rate",
        "100G",
        "--duration",
        "10ms",
        "--ring-bytes",
        "100k",
    ];
    let (report, _) = Sink::new().load(&options);
    assert_eq!(report["rate_kept"], false);
    assert_eq!(report["planned"], 1_000_000_000);
    let told = report["metrics"].as_u64().unwrap() + report["missed"].as_u64().unwrap();
    assert_eq!(told, 1_000_000_000);
}

#[test]
fn an_interrupt_stops_it_and_the_totals_still_hold() {
    let sink = Sink::new();
    let child = sink.spawn(&[
        "--rate",
        "100",
        "--duration",
        "1h",
        "--metrics-per-datagram",
        "1",
    ]);
    sink.socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    // Stopping and continuing a process, as a snapshot of its machine does, ends a wait with a time limit.
    let mut first = sink.socket.peek(&mut [0; 1]);
    while first
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::Interrupted)
    {
        first = sink.socket.peek(&mut [0; 1]);
    }
    first.unwrap();
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    let report = report(child.wait_with_output().unwrap());
    assert_eq!(report["interrupted"], true);
    assert_eq!(told(&report), totals(&sink.drain()));
}

#[test]
fn datagrams_the_kernel_cut_are_the_same_ones() {
    let options = [
        "--count", "5003", "--rate", "max", "--mix", "c", "--flows", "2",
    ];
    let (plain, one_by_one) = Sink::new().load(&options);
    let (segmented, cut) = Sink::new().load(&[&options[..], &["--gso"]].concat());
    assert_eq!(segmented["options"]["gso"], true);
    assert_eq!(told(&segmented), totals(&cut));
    assert_eq!(told(&segmented), told(&plain));
    let flows = |received: Received| {
        let mut flows: Vec<_> = received.into_values().collect();
        flows.sort();
        flows
    };
    let cut = flows(cut);
    // Equal sizes, but for the last of each flow.
    for flow in &cut {
        let size = flow[0].len();
        assert!(flow.len() > 30 && flow[..flow.len() - 1].iter().all(|one| one.len() == size));
        assert!(flow.last().unwrap().len() < size);
    }
    assert_eq!(cut, flows(one_by_one));
}

#[test]
fn bad_lines_are_told_apart_by_reason() {
    let options = ["--count", "4000", "--rate", "max", "--malformed", "25"];
    let sink = Sink::new();
    let report = report(sink.spawn(&options).wait_with_output().unwrap());
    let mut found = BTreeMap::new();
    let received = sink.drain();
    for line in received
        .values()
        .flatten()
        .flat_map(|datagram| datagram.split('\n'))
    {
        let reason = match line.split_once(':').unwrap().1 {
            "1" => "no_type",
            "1|c|@x" => "bad_rate",
            "|c" => "empty_value",
            "1x|c" => "not_a_number",
            "-1|ms" => "negative_timer",
            _ => "good",
        };
        assert_eq!(line.starts_with("loadgen.bad."), reason != "good", "{line}");
        *found.entry(reason).or_insert(0) += 1;
    }
    assert_eq!(found.len(), 6);
    assert_eq!(report["metrics"], found.remove("good").unwrap());
    assert_eq!(report["malformed"]["lines"], found.values().sum::<u64>());
    for (reason, lines) in found {
        assert_eq!(report["malformed"][reason], lines, "{reason}");
    }
    assert_eq!(report["planned"], 4000);
}

#[test]
fn lateness_is_written_as_the_plotters_read_it() {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/late.hgrm");
    let options = [
        "--count",
        "300",
        "--rate",
        "10k",
        "--metrics-per-datagram",
        "1",
    ];
    let (report, _) = Sink::new().load(&[&options[..], &["--hgrm", path]].concat());
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let head: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(
        head,
        ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    );
    assert_eq!(lines.next(), Some(""));
    let rows = lines.clone().take_while(|line| !line.starts_with('#'));
    let rows: Vec<Vec<f64>> = rows
        .map(|row| {
            row.split_whitespace()
                .map(|cell| cell.parse().unwrap())
                .collect()
        })
        .collect();
    assert!(
        rows.windows(2).all(|two| two[0][..3] <= two[1][..3]),
        "{text}"
    );
    let last = rows.last().unwrap();
    assert_eq!(last[1..], [1.0, 300.0]);
    let max = report["lateness_us"]["max"].as_f64().unwrap();
    assert!((last[0] - max).abs() <= max / 1000.0 + 0.001, "{text}");
    assert!(
        lines.any(|line| line.starts_with("#[Max ") && line.ends_with(" 300]")),
        "{text}"
    );
}

#[test]
fn people_get_a_table() {
    let sink = Sink::new();
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args([
            "--to",
            &sink.socket.local_addr().unwrap().to_string(),
            "--count",
            "50",
            "--rate",
            "max",
        ])
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.starts_with("sent                metrics        names"),
        "{table}"
    );
    assert!(
        table.ends_with("Unpaced: this is the speed of the sender and of the kernel.\n"),
        "{table}"
    );
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_sent() {
    for (options, reason) in [
        (
            &["--datagram-bytes", "10"][..],
            "one line of this shape takes up to",
        ),
        (
            &["--flows", "1", "--threads", "2"],
            "--flows 1 are too few for --threads 2",
        ),
        (&["--duration", "10"], "has no unit"),
        (&["--count", "1", "--duration", "1s"], "cannot be used with"),
        (&["--mix", "h:1"], "`h` is no type"),
        (&["--gso"], "lines of this shape take"),
        (
            &["--gso", "--mix", "c", "--malformed", "5"],
            "use --mix c without --malformed",
        ),
        (&["--hgrm", "/tmp/never", "--rate", "max"], "give a rate"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(options)
            .output()
            .unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(reason), "{options:?}: {errors}");
        assert!(output.stdout.is_empty());
    }
}
