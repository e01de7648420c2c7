//! The path as users have it: a client library they install, our daemon, and Graphite's own
//! receiver, whose files are read back with its own tool.
//!
//! Needs `carbon-cache` and `whisper-fetch` (Debian: `graphite-carbon`) and a Python with the
//! package `statsd`; `STATSD_FAST_TEST_PYTHON` names the interpreter, else it is `python3`. What
//! is missing skips the test, unless `STATSD_FAST_REQUIRE_INTEROP=1` demands it.

#[allow(
    dead_code,
    unused_imports,
    reason = "shared by several test programs, each of which uses a part"
)]
mod daemon;

use daemon::{DEADLINE, Daemon, Directory, Process};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

/// What the points of one whisper file have to amount to.
enum Rule {
    /// All points together: nothing lost, nothing twice.
    Sum(f64),
    /// The newest point.
    Last(f64),
    /// There is one point and it has this value: idle intervals do not repeat it.
    Once(f64),
}

use Rule::{Last, Once, Sum};

/// What `interop/client.py` sends, as Graphite has to hold it.
const EXPECTED: &[(&str, Rule)] = &[
    ("stats_counts.shop.orders", Sum(111.0)),
    ("stats.shop.orders", Sum(111.0)),
    ("stats_counts.shop.stock", Sum(-2.0)),
    ("stats_counts.shop.carts", Sum(2.75)),
    ("stats.gauges.shop.queue", Last(75.0)),
    ("stats.gauges.shop.celsius", Last(-7.5)),
    ("stats.sets.shop.users.count", Sum(3.0)),
    ("stats.timers.shop.checkout.count", Sum(8.0)),
    ("stats.timers.shop.checkout.sum", Once(4466.0)),
    ("stats.timers.shop.checkout.mean", Once(558.25)),
    ("stats.timers.shop.checkout.median", Once(524.5)),
    (
        "stats.timers.shop.checkout.std",
        Once(260.560_333_704_115_46),
    ),
    ("stats.timers.shop.checkout.upper_90", Once(844.0)),
    (
        "stats.timers.shop.checkout.sum_squares_90",
        Once(2_048_242.0),
    ),
    ("stats.timers.shop.upload.upper", Once(1250.0)),
    ("stats.timers.shop.decorated.count", Sum(3.0)),
    ("stats.timers.shop.block.count", Sum(1.0)),
    ("stats.timers.shop.stopwatch.count", Sum(1.0)),
    ("stats_counts.statsd.bad_lines_seen", Sum(0.0)),
    // Counters 102, pipeline 15, gauges 6, timers 5.
    ("stats_counts.statsd.metrics_received", Sum(128.0)),
];

#[test]
fn a_python_client_arrives_in_carbon() {
    arrives(|carbon| daemon::config(carbon.port));
}

#[test]
fn a_python_client_arrives_in_carbon_pickled_over_one_connection() {
    arrives(|carbon| {
        let mut config = daemon::config(carbon.port);
        config["graphitePicklePort"] = json!(carbon.pickle_port);
        config["graphiteProtocol"] = json!("pickle");
        config["graphite"] = json!({"persistent": true});
        config
    });
}

/// What the client sends is in Graphite in the end, by the way that this configuration takes.
fn arrives(configured: impl FnOnce(&Carbon) -> Value) {
    let python = env::var("STATSD_FAST_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let needs: [(&str, &[&str]); 3] = [
        ("carbon-cache", &["--help"]),
        ("whisper-fetch", &["--help"]),
        (&python, &["-c", "import statsd; statsd.StatsClient"]),
    ];
    for (program, arguments) in needs {
        if !runs(program, arguments) {
            let what = format!("`{program} {}` does not run", arguments.join(" "));
            return daemon::skip_for_want_of(&what);
        }
    }

    let carbon = Carbon::start();
    let mut daemon = Daemon::start(&configured(&carbon), &[]);
    let address = daemon.address();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/client.py");
    let sent = Command::new(&python)
        .arg(script)
        .args([address.ip().to_string(), address.port().to_string()])
        .status()
        .expect("the client starts");
    assert!(sent.success(), "the client failed: {sent}");

    // Carbon tells nobody when it has written, so there is no event to wait for.
    let start = Instant::now();
    loop {
        let differences: Vec<String> = EXPECTED
            .iter()
            .filter_map(|(name, rule)| difference(&carbon, name, rule))
            .collect();
        if differences.is_empty() {
            break;
        }
        assert!(
            start.elapsed() < DEADLINE,
            "in Graphite:\n{}",
            differences.join("\n")
        );
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(daemon.terminate().code(), Some(0));
}

/// How the file of `name` differs from what is expected, if it does.
fn difference(carbon: &Carbon, name: &str, rule: &Rule) -> Option<String> {
    let points = carbon.points(name);
    let fine = match *rule {
        Sum(expected) => !points.is_empty() && points.iter().sum::<f64>() == expected,
        Last(expected) => points.last() == Some(&expected),
        Once(expected) => points == [expected],
    };
    let expected = match rule {
        Sum(value) => format!("sum {value}"),
        Last(value) => format!("last {value}"),
        Once(value) => format!("one point, {value}"),
    };
    (!fine).then(|| format!("{name}: expected {expected}, got {points:?}"))
}

/// Debian's carbon-cache on ports and in a directory of its own.
struct Carbon {
    port: u16,
    pickle_port: u16,
    storage: PathBuf,
    _process: Process,
    _directory: Directory,
}

impl Carbon {
    fn start() -> Self {
        let directory = Directory::create();
        let root = directory.path();
        let storage = root.join("whisper");
        fs::create_dir_all(&storage).expect("the storage directory can be created");
        let port = daemon::free_tcp_port();
        let pickle_port = daemon::free_tcp_port();
        let root_text = root.display();
        let conf = format!(
            "[cache]\n\
             STORAGE_DIR = {root_text}\n\
             LOCAL_DATA_DIR = {root_text}/whisper/\n\
             CONF_DIR = {root_text}\n\
             LOG_DIR = {root_text}/log/\n\
             PID_DIR = {root_text}\n\
             USER =\n\
             LINE_RECEIVER_INTERFACE = 127.0.0.1\n\
             LINE_RECEIVER_PORT = {port}\n\
             PICKLE_RECEIVER_INTERFACE = 127.0.0.1\n\
             PICKLE_RECEIVER_PORT = {pickle_port}\n\
             CACHE_QUERY_INTERFACE = 127.0.0.1\n\
             CACHE_QUERY_PORT = {}\n\
             MAX_CREATES_PER_MINUTE = inf\n\
             ENABLE_TAGS = False\n",
            daemon::free_tcp_port(),
        );
        let schemas = "[everything]\npattern = .*\nretentions = 1s:1h\n";
        fs::write(root.join("carbon.conf"), conf).expect("carbon.conf can be written");
        fs::write(root.join("storage-schemas.conf"), schemas).expect("schemas can be written");
        let mut command = Command::new("carbon-cache");
        command
            .arg(format!("--config={root_text}/carbon.conf"))
            .args(["--nodaemon", "start"]);
        let process = Process::spawn(&mut command);
        process.log.wait_for(&format!("starting on {port}"));
        process.log.wait_for(&format!("starting on {pickle_port}"));
        Self {
            port,
            pickle_port,
            storage,
            _process: process,
            _directory: directory,
        }
    }

    /// Every point stored for a metric, oldest first.
    fn points(&self, name: &str) -> Vec<f64> {
        let file = self.storage.join(format!("{}.wsp", name.replace('.', "/")));
        let output = Command::new("whisper-fetch")
            .arg("--json")
            .arg(file)
            .stderr(Stdio::null())
            .output()
            .expect("whisper-fetch starts");
        // No file yet, or one that is being created.
        let series: Value = serde_json::from_slice(&output.stdout).unwrap_or(json!({}));
        let values = series["values"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        values.iter().filter_map(Value::as_f64).collect()
    }
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
