//! README.md is true: its tables are those of the sources, its examples do what it says they do.
//!
//! Where a table of the page is a table of the sources, the two must be the same row by row; a failing
//! test prints the rows that belong into the page.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;
mod parsed;
mod reference;

use daemon::{Daemon, Directory};
use serde_json::json;
use statsd_fast::config::settings::proxy::PROXY_SETTINGS;
use statsd_fast::config::settings::{Effect, SETTINGS, Setting};
use statsd_fast::ingest::packet::Packet;
use statsd_fast::ingest::{self, table::Table};
use statsd_fast::metric::histogram::Grid;
use statsd_fast::metric::meter::METERS;
use statsd_fast::metric::sample::Reject;
use statsd_fast::proxy::account;
use std::fs;
use std::process::{Command, Output};
use std::sync::Arc;

const PAGE: &str = include_str!("../README.md");

/// The rows of the one table with this head, its rule left out.
fn table(head: &str) -> Vec<&'static str> {
    assert_eq!(PAGE.matches(head).count(), 1, "tables headed {head}");
    let (_, rest) = PAGE.split_once(head).expect("it was found");
    let rows = rest.trim_start_matches('\n').lines();
    let rows: Vec<_> = rows
        .skip(1)
        .take_while(|row| row.starts_with('|'))
        .collect();
    assert!(!rows.is_empty(), "the table headed {head} is empty");
    rows
}

/// The cells of a row; a `|` inside one is written `\|`.
fn cells(row: &str) -> Vec<String> {
    let row = row.replace("\\|", "\0");
    let inside = row.trim_start_matches("| ").trim_end_matches('|');
    let cells = inside.split('|');
    cells.map(|cell| cell.trim().replace('\0', "|")).collect()
}

/// The text between two backquotes that fill a cell.
fn quoted(cell: &str) -> &str {
    cell.strip_prefix('`')
        .and_then(|cell| cell.strip_suffix('`'))
        .unwrap_or_else(|| panic!("no backquotes around {cell}"))
}

/// The blocks fenced as `kind`.
fn blocks(kind: &str) -> Vec<&'static str> {
    let fence = format!("```{kind}\n");
    let blocks: Vec<_> = PAGE
        .split(&fence)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect();
    assert!(!blocks.is_empty(), "no block of {kind}");
    blocks
}

/// The one block of text that contains `part`.
fn sample(part: &str) -> &'static str {
    let found: Vec<_> = blocks("text")
        .into_iter()
        .filter(|block| block.contains(part))
        .collect();
    assert_eq!(found.len(), 1, "blocks with {part:?}");
    found[0]
}

fn server(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_statsd-fast"))
        .args(arguments)
        .output()
        .expect("the server starts")
}

/// What a program, or a command of it, says of itself.
fn help(program: &str, command: Option<&str>) -> String {
    let output = Command::new(program).args(command).arg("--help").output();
    String::from_utf8(output.expect("it starts").stdout).expect("help is text")
}

/// The rows that a table of settings has in the page.
fn rows_of(settings: &[Setting]) -> Vec<String> {
    settings
        .iter()
        .map(|setting| {
            let change = match setting.effect {
                Effect::Now if setting.reload => "at a reload",
                Effect::Now => "at a restart",
                Effect::Later => "not yet: warns",
                Effect::Never => "never: warns",
            };
            format!(
                "| `{}` | `{}` | {} | {change} |",
                setting.name, setting.default, setting.help
            )
        })
        .collect()
}

#[test]
fn the_tables_of_settings_are_those_of_the_sources() {
    for (head, settings) in [
        ("| key | default | meaning | a change counts |", SETTINGS),
        (
            "| key of the proxy | default | meaning | a change counts |",
            PROXY_SETTINGS,
        ),
    ] {
        let (found, rows) = (table(head), rows_of(settings));
        assert!(found == rows, "it should be\n{}", rows.join("\n"));
    }
}

#[test]
fn the_tables_of_the_counters_of_the_proxy_are_those_of_the_sources() {
    let row = |name, help, loss| {
        let loss = if loss { "yes" } else { "no" };
        format!("| `{name}` | {help} | {loss} |")
    };
    let rows: Vec<_> = account::METERS
        .iter()
        .map(|meter| row(meter.name, meter.help, meter.loss))
        .collect();
    let found = table("| counter of the proxy | counts | a loss |");
    assert!(found == rows, "it should be\n{}", rows.join("\n"));
    let rows: Vec<_> = account::NODE_METERS
        .iter()
        .map(|meter| row(meter.name, meter.help, meter.loss))
        .collect();
    let found = table("| counter of a node | counts | a loss |");
    assert!(found == rows, "it should be\n{}", rows.join("\n"));
}

#[test]
fn the_table_of_meters_is_that_of_the_sources() {
    let rows: Vec<String> = METERS
        .iter()
        .map(|meter| {
            let loss = if meter.loss { "yes" } else { "no" };
            format!("| `statsd_fast.{}` | {} | {loss} |", meter.name, meter.help)
        })
        .collect();
    let found = table("| name | counts | a loss |");
    assert!(found == rows, "it should be\n{}", rows.join("\n"));
}

#[test]
fn every_reason_has_an_example_that_is_refused_for_it() {
    let rows = table("| reason | example | hint in the log |");
    assert_eq!(rows.len(), Reject::ALL.len());
    for (row, reason) in rows.iter().zip(Reject::ALL) {
        let cells = cells(row);
        assert_eq!(quoted(&cells[0]), reason.name());
        assert_eq!(cells[2], reason.hint());
        let datagram = quoted(&cells[1]).replace("TAGS", &"t".repeat(8193));
        let (bytes, truncated) = (datagram.as_bytes(), false);
        let mut table = Table::new(&ingest::Options::default(), Arc::default());
        ingest::take_packets([Packet { bytes, truncated }].into_iter(), &mut table);
        assert_eq!(table.tally.rejected_total(), 1, "{row}");
        assert_eq!(table.tally.rejected[reason as usize], 1, "{row}");
    }
}

#[test]
fn the_lines_of_the_protocol_do_what_is_said() {
    let rows = table("| line | what it does | remark |");
    for row in &rows {
        let cells = cells(row);
        let datagram = quoted(&cells[0]).replace("\\r", "\r");
        let effects = parsed::auto(datagram.as_bytes());
        assert_eq!(effects.join(" ; "), quoted(&cells[1]), "{row}");
    }
}

#[test]
fn the_configurations_are_accepted_without_a_warning() {
    let directory = Directory::create();
    let file = directory.path().join("config.js");
    let inline = "{ graphiteHost: \"carbon.example.org\" }";
    assert!(PAGE.contains(&format!("`{inline}`")));
    for text in blocks("json5").into_iter().chain([inline]) {
        fs::write(&file, text).expect("the file can be written");
        let path = file.to_str().expect("a path that is text");
        let output = if text.contains("nodes:") {
            server(&["proxy", "--check-config", path])
        } else {
            server(&["--check-config", path])
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, format!("{path}: ok\n"), "{text}");
        assert_eq!(output.status.code(), Some(0), "{text}");
    }
}

#[test]
fn every_option_shown_exists() {
    let server = help(env!("CARGO_BIN_EXE_statsd-fast"), None);
    let commands = ["floor", "bench", "search", "verify", "soak"].map(Some);
    let loadgen = [None]
        .iter()
        .chain(&commands)
        .map(|command| help(env!("CARGO_BIN_EXE_loadgen"), *command));
    let loadgen: String = loadgen.collect();
    // Those of cargo and systemctl, in commands shown.
    let cargo = ["--release", "--bin", "--path", "--test", "--now"];
    let words = PAGE.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let mut seen = Vec::new();
    for word in
        words.filter(|word| word.trim_start_matches('-').len() + 2 == word.len() && word.len() > 2)
    {
        let listed = |help: &str| {
            let mut words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
            words.any(|listed| listed == word)
        };
        let known = cargo.contains(&word) || listed(&server) || listed(&loadgen);
        assert!(known, "{word} is an option of nothing");
        seen.push(word);
    }
    for option in ["--config", "--threads", "--check-config", "--count"] {
        assert!(seen.contains(&option), "{option} is not on the page");
    }
}

#[test]
fn every_link_and_every_test_named_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let links = PAGE.split("](").skip(1);
    let mut paths: Vec<String> = links
        .map(|rest| rest.split(')').next().unwrap_or_default().to_owned())
        .collect();
    assert!(paths.contains(&"LICENSE".to_owned()), "{paths:?}");
    for row in table("| `cargo test --test ...` | proves |") {
        let cells = cells(row);
        paths.extend(
            cells[0]
                .split(", ")
                .map(|name| format!("tests/{}.rs", quoted(name))),
        );
    }
    for row in table("| where | what |") {
        let cells = cells(row);
        paths.extend(cells[0].split(", ").map(|path| quoted(path).to_owned()));
    }
    for path in paths {
        assert!(root.join(&path).exists(), "{path} is not there");
    }
    let tests = fs::read_dir(root.join("tests")).expect("a directory of tests");
    for entry in tests {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.file_stem().expect("a name").to_string_lossy();
            assert!(PAGE.contains(&format!("`{name}`")), "{name} is not named");
        }
    }
}

/// Each row names a test program, or a source with tests, that speaks of the decision by its number.
#[test]
fn every_decision_about_librato_is_made_and_tested() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = table("| | subject | the original | statsd-fast | test |");
    assert_eq!(rows.len(), 16);
    for (row, number) in rows.iter().zip(1..) {
        let cells = cells(row.trim_start_matches('|'));
        assert_eq!(cells[0], format!("D{number}"));
        let test = match quoted(&cells[4]) {
            file if file.contains('/') => root.join(file),
            program => root.join(format!("tests/{program}.rs")),
        };
        let text = fs::read_to_string(&test).expect("a test program");
        let numbers = text.split(|c: char| !c.is_ascii_alphanumeric());
        let said = numbers.filter(|word| *word == cells[0]).count();
        assert!(said > 0, "{} does not speak of D{number}", test.display());
    }
}

#[test]
fn a_page_of_a_histogram_is_as_large_as_said() {
    let mut grid = Grid::default();
    grid.record(1.0);
    let said = format!(
        "one page of {} KiB for each octave",
        grid.heap_bytes() / 1024
    );
    assert!(PAGE.contains(&said), "it should be: {said}");
}

/// The log line without its date, digits as `#`.
fn masked(line: &str) -> String {
    let message = line.split_once(" - ").map_or(line, |(_, message)| message);
    let mut masked: String = message
        .chars()
        .map(|c| if c.is_ascii_digit() { '#' } else { c })
        .collect();
    while masked.contains("##") {
        masked = masked.replace("##", "#");
    }
    masked
}

#[test]
fn the_samples_of_a_run_are_what_a_run_shows() {
    if daemon::replaced().is_some() {
        return;
    }
    let config = json!({
        "address": "127.0.0.1",
        "port": "0",
        "mgmt_port": "0",
        "flushInterval": 600_000,
        "backends": ["./backends/console"],
    });
    let mut daemon = Daemon::start(&config, &["--threads", "2"]);
    let command = PAGE
        .lines()
        .find_map(|line| line.strip_prefix("cargo run --release --bin loadgen -- "))
        .expect("the command of the load generator");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["--to", &daemon.address().to_string()])
        .args(command.split(' '))
        .output()
        .expect("the load generator starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let shown = sample("a server has it all when it shows");
    assert!(said.starts_with(shown), "{said}");

    daemon.signal("INT");
    assert_eq!(daemon.wait_exit().code(), Some(0));
    let lines = daemon.lines();
    let account = sample("stopped: ").trim_end();
    let (_, account) = account.split_once(" - ").expect("a line of the log");
    assert!(
        lines.iter().any(|line| line.ends_with(account)),
        "no {account}: {lines:#?}"
    );
    let masked_lines: Vec<_> = lines.iter().map(|line| masked(line)).collect();
    for line in sample("server is up").lines() {
        let mut expected = masked(line);
        // Where workers run and what the kernel grants is the machine's affair.
        for begin in ["INFO: listening on udp ", "receive buffer: # bytes asked, "] {
            if expected.contains(begin) {
                expected = begin.into();
            }
        }
        assert!(
            masked_lines.iter().any(|line| line.contains(&expected)),
            "no {expected}: {masked_lines:#?}"
        );
    }
}

#[test]
fn the_report_of_a_bad_line_is_the_one_shown() {
    let shown = sample("bad values in this interval");
    let hint = Reject::NotANumber.hint();
    let name = Reject::NotANumber.name();
    let end =
        format!("bad values in this interval: 1, the first: \"bad:1,5|c\" ({name}: {hint})\n");
    assert!(shown.ends_with(&end), "it should end with {end}");
}
