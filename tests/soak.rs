//! A short soak with the real server: everything balances, every fault had its turn, and what does not
//! balance is found.

use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const DAEMON: &str = env!("CARGO_BIN_EXE_statsd-fast");

fn soak(daemon: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .arg("soak")
        .arg("--daemon")
        .arg(daemon)
        .args(arguments)
        .output()
        .expect("the load generator starts")
}

fn json(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&said).unwrap_or_else(|error| {
        let complained = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {said}\n{complained}")
    })
}

#[test]
fn a_short_one_balances_and_has_seen_everything() {
    let arguments = ["--duration", "10s", "--rate", "30", "--json"];
    let output = soak(Path::new(DAEMON), &arguments);
    let report = json(&output);
    assert_eq!(report["faults"], serde_json::json!([]), "{report:#}");
    assert_eq!(report["balanced"], true);
    assert!(output.status.success());
    let classes = report["classes"].as_array().expect("a list");
    assert_eq!(classes.len(), 13);
    for class in classes {
        assert!(class["counted"].as_u64() > Some(0), "{class}");
    }
    let phases = report["phases"].as_array().expect("a list");
    let faults: Vec<_> = phases.iter().map(|phase| phase["fault"].as_str()).collect();
    let expected = [
        "none",
        "refused",
        "reset mid-write",
        "never reading",
        "1 byte/s",
        "500s",
        "DNS gone",
        "TLS failing",
    ];
    assert_eq!(faults, expected.map(Some), "{report:#}");
    for meter in [
        "truncated",
        "events",
        "streams.refused",
        "streams.resets",
        "streams.long_lines",
        "streams.cut_lines",
        "streams.cut_packets",
        "streams.bad_lengths",
        "rejected.negative_timer",
    ] {
        assert!(
            report["account"][meter].as_u64() > Some(0),
            "{meter}: {report:#}"
        );
    }
}

/// A program that starts the server with something more in its configuration.
fn with_config(more: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak-daemon.sh");
    let script = format!(
        "#!/bin/sh\nsed '1s/{{/{{ {more},/' \"$1\" >\"$1.more\"\nexec '{DAEMON}' \"$1.more\"\n"
    );
    // By a process of its own: one that this one starts meanwhile would hold the file open, and a program that
    // somebody writes cannot be run.
    let mut writer = Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sh starts");
    let mut into = writer.stdin.take().expect("it is piped");
    into.write_all(script.as_bytes()).expect("it reads");
    drop(into);
    assert!(writer.wait().expect("it ends").success());
    path
}

#[test]
fn what_a_server_loses_is_found() {
    // Values that vanish from all that a class sends, though their lines are read.
    let server = with_config(r#""mappings": [{"match": "soak.tags.v", "action": "drop"}]"#);
    let arguments = ["--duration", "1s", "--rate", "30"];
    let output = soak(&server, &arguments);
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}{complained}");
    assert!(said.contains("NOT balanced:\n"), "{said}{complained}");
    assert!(
        said.contains("- tags: its counter came to 0 over all flushes, not "),
        "{said}"
    );
    assert!(said.contains("- samples.counters is "), "{said}");
    assert!(said.contains("- mapped_dropped is "), "{said}");
}

#[test]
fn a_server_that_does_not_start_is_said() {
    let output = soak(Path::new("/bin/false"), &["--duration", "1s"]);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complained}");
    assert!(
        complained.contains("the server never said \"server is up\""),
        "{complained}"
    );
}
