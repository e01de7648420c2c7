//! Instructions of each step, under callgrind: the same on every run and every machine of a kind, where times
//! are not.
//!
//! `cargo bench --bench instructions` prints a table beside the figures committed in
//! `benches/instructions.txt`, and fails when a step takes over 3 % more than there. `-- --write` writes that
//! file anew. What is counted is the difference between two lengths of the same run, so that making the data
//! and warming up does not count.
#![allow(missing_docs)]

mod traffic;

use statsd_fast::deliver::graphite::{self, Encoder};
use statsd_fast::deliver::librato::{self, measure};
use statsd_fast::flush::{self, merge::State, statistics::Statistics};
use statsd_fast::ingest::mapping::{Action, Mapping, Matcher, Rule, Template};
use statsd_fast::ingest::{self, parse, table::Table};
use statsd_fast::metric::cell::Timer;
use statsd_fast::metric::harvest::{Harvest, Part};
use statsd_fast::metric::registry::{NameId, Registry};
use statsd_fast::metric::snapshot::{Counter, Snapshot};
use std::fmt::Write as _;
use std::hint::black_box;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::{env, fs};

/// Where the figures are that a run is held against.
const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

/// Most by which a step may exceed its committed figure.
const TOLERANCE: f64 = 0.03;

/// Times a step is counted before it is believed to take more.
const TRIES: usize = 3;

/// A step: its name, how many values or names a round of it has, and what makes the round.
type Step = (&'static str, usize, fn(usize) -> Box<dyn FnMut()>);

const STEPS: &[Step] = &[
    ("parse/short", 1000, |n| parsing(n, traffic::counter)),
    ("parse/mix", 1000, |n| parsing(n, traffic::mix)),
    ("parse/tagged", 1000, |n| parsing(n, traffic::tagged)),
    ("table/counters", 1000, |n| recording(n, traffic::counter)),
    ("table/counters-ahead", 10_000, |n| {
        recording(n, traffic::counter)
    }),
    ("table/mix", 1000, |n| recording(n, traffic::mix)),
    ("table/tagged", 1000, |n| recording(n, traffic::tagged)),
    // Rules are looked at when a spelling is new: nothing is left of them here.
    ("table/mapped", 1000, |n| recorded_by(mapped(), n)),
    ("table/dropped", 1000, |n| recorded_by(dropping(), n)),
    // Recorded first: the difference to table/counters is the harvest.
    ("table/counters-harvested", 1000, harvesting),
    ("merge/counters", 1000, merging),
    ("statistics/exact-100", 1, |_| computing(100)),
    ("statistics/histogram", 1, |_| computing(10_000)),
    ("graphite/counters", 1000, graphite),
    ("librato/counters", 1000, librato),
];

fn datagrams(names: usize, line: fn(usize) -> String) -> Vec<Vec<u8>> {
    traffic::packed(names, line).0
}

fn parsing(values: usize, line: fn(usize) -> String) -> Box<dyn FnMut()> {
    let datagrams = datagrams(values, line);
    Box::new(move || {
        let mut good = 0;
        for datagram in &datagrams {
            parse::packet(datagram, &mut |result: Result<_, _>| {
                good += usize::from(black_box(result).is_ok());
            });
        }
        assert_eq!(good, values);
    })
}

fn table() -> Table {
    Table::new(&ingest::Options::default(), Arc::new(Registry::new()))
}

/// A table with a hundred rules, of which the last renames each name and tags it.
fn mapped() -> Table {
    let glob = |text: String| Matcher::Glob(text);
    let mut rules: Vec<_> = (0..99)
        .map(|n| drop_rule(glob(format!("none{n}.*"))))
        .collect();
    let matcher = Matcher::regex(r"^(\w+)\.(.*)$", "").expect("a regular expression");
    let template = |text| Template::new(text, &matcher).expect("a template");
    let action = Action::Map {
        name: Some(template("mapped.$2")),
        tags: vec![("of".into(), template("$1"))],
    };
    rules.push(Rule {
        matcher,
        kind: None,
        action,
    });
    table_with(rules)
}

/// A table that drops each name.
fn dropping() -> Table {
    let all = Matcher::regex("", "").expect("a regular expression");
    table_with(vec![drop_rule(all)])
}

fn drop_rule(matcher: Matcher) -> Rule {
    Rule {
        matcher,
        kind: None,
        action: Action::Drop,
    }
}

fn table_with(rules: Vec<Rule>) -> Table {
    let options = ingest::Options {
        mapping: Mapping::new(rules),
        ..ingest::Options::default()
    };
    Table::new(&options, Arc::new(Registry::new()))
}

fn recording(names: usize, line: fn(usize) -> String) -> Box<dyn FnMut()> {
    recorded(table(), &datagrams(names, line))
}

fn recorded_by(table: Table, names: usize) -> Box<dyn FnMut()> {
    recorded(table, &datagrams(names, traffic::counter))
}

fn recorded(mut table: Table, datagrams: &[Vec<u8>]) -> Box<dyn FnMut()> {
    let batch = traffic::batch(datagrams);
    let mut harvest = Harvest::default();
    Box::new(move || {
        ingest::take_packets(batch.packets(), &mut table);
        // A round is an interval of one value a name; handing it over is counted in `harvest`.
        if table.tally.recorded.iter().sum::<u64>() >= 100_000 {
            harvest.clear();
            table.harvest(&mut harvest);
        }
    })
}

fn harvesting(names: usize) -> Box<dyn FnMut()> {
    let batch = traffic::batch(&datagrams(names, traffic::counter));
    let (mut table, mut harvest) = (table(), Harvest::default());
    Box::new(move || {
        ingest::take_packets(batch.packets(), &mut table);
        harvest.clear();
        table.harvest(&mut harvest);
        assert_eq!(harvest.counters.len(), names);
    })
}

fn merging(names: usize) -> Box<dyn FnMut()> {
    let mut state = State::new(&flush::Options::default());
    let mut harvest = Harvest::default();
    Box::new(move || {
        let parts = (0..names as u32).map(|n| Part {
            id: NameId(n),
            hits: 1,
            cell: 1.0,
        });
        harvest.counters.extend(parts);
        state.absorb(&mut harvest);
        assert!(harvest.counters.is_empty());
    })
}

fn computing(samples: u32) -> Box<dyn FnMut()> {
    let mut timer = Timer::default();
    for n in 0..samples {
        let value = f64::from(n * 7919 % 10_007) / 8.0;
        timer.record(value, 1.0, 1024, &mut Vec::new());
    }
    let mut statistics = Statistics::new(&flush::Options::default());
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        statistics.of("t", &mut timer.clone(), &mut out);
        assert!(!out.is_empty());
    })
}

fn counters(names: usize) -> Snapshot {
    let counter = |n: usize| Counter {
        name: traffic::name(n).into(),
        value: (n * 10) as f64,
        rate: n as f64,
    };
    Snapshot {
        timestamp: 1_795_344_335,
        counters: (0..names).map(counter).collect(),
        ..Snapshot::default()
    }
}

fn graphite(names: usize) -> Box<dyn FnMut()> {
    let snapshot = counters(names);
    let encoder = Encoder::new(&graphite::Options::default());
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        encoder.encode(black_box(&snapshot), &mut out);
        assert!(!out.is_empty());
    })
}

fn librato(names: usize) -> Box<dyn FnMut()> {
    let snapshot = counters(names);
    let mut encoder = measure::Encoder::new(&librato::Options::default());
    Box::new(move || {
        let posts = encoder.encode(black_box(&snapshot), false).batches;
        let measurements = posts.iter().map(|post| post.measurements);
        assert_eq!(measurements.sum::<usize>(), names);
    })
}

/// Runs a step so often, uncounted.
fn run(step: &Step, rounds: usize) {
    let (_, size, make) = step;
    let mut round = make(*size);
    (0..rounds).for_each(|_| round());
}

/// Instructions of this program when it runs a step so often.
fn collected(step: &Step, rounds: usize) -> Result<u64, String> {
    let own = env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args(["--step", step.0, &rounds.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind does not start: {error}; install it"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said.lines().find_map(|line| {
        let (_, count) = line.split_once("Collected : ")?;
        count.trim().parse().ok()
    });
    count.ok_or_else(|| format!("valgrind counted nothing:\n{said}"))
}

/// Instructions for each value or name of a step.
fn counted(step: &Step) -> Result<f64, String> {
    // Enough that what a round varies by, above all where names fall in a table, is small beside it.
    let more = if step.1 < 1000 { 2000 } else { 40 };
    let (few, many) = (collected(step, more)?, collected(step, 2 * more)?);
    Ok((many as f64 - few as f64) / (more * step.1) as f64)
}

/// The committed figures, by step.
fn committed() -> Vec<(String, f64)> {
    let text = fs::read_to_string(COMMITTED).unwrap_or_default();
    let figure = |line: &str| {
        let (step, count) = line.split_once(' ')?;
        Some((step.to_owned(), count.trim().parse().ok()?))
    };
    text.lines().filter_map(figure).collect()
}

fn measure(write: bool) -> Result<bool, String> {
    let committed = committed();
    let mut text = String::new();
    let mut worse = false;
    println!(
        "{:<24} {:>12} {:>12} {:>8}",
        "step", "instructions", "committed", "change"
    );
    for step in STEPS {
        let before = committed.iter().find(|(name, _)| name == step.0);
        let before = before.map(|(_, count)| *count);
        let mut count = counted(step)?;
        // Where names fall in a table is by chance, another one in each process: a percent or two.
        for _ in 1..TRIES {
            if before.is_some_and(|before| count > before * (1.0 + TOLERANCE)) {
                count = count.min(counted(step)?);
            }
        }
        writeln!(text, "{} {count:.1}", step.0).expect("a String takes all");
        let Some(before) = before else {
            println!("{:<24} {count:>12.1} {:>12} {:>8}", step.0, "none", "");
            worse |= !write;
            continue;
        };
        let change = count / before - 1.0;
        let mark = if change > TOLERANCE { " too much" } else { "" };
        println!(
            "{:<24} {count:>12.1} {before:>12.1} {:>+7.1}%{mark}",
            step.0,
            100.0 * change
        );
        worse |= change > TOLERANCE;
    }
    if write {
        fs::write(COMMITTED, text).map_err(|error| format!("{COMMITTED}: {error}"))?;
        return Ok(true);
    }
    Ok(!worse)
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    if let [_, name, rounds, ..] = &arguments[..]
        && has("--step")
    {
        let step = STEPS.iter().find(|step| step.0 == name);
        let rounds = rounds.parse().expect("a number of rounds");
        run(step.expect("a step of the table"), rounds);
        return ExitCode::SUCCESS;
    }
    if has("--test") {
        STEPS.iter().for_each(|step| run(step, 2));
        println!("{} steps run", STEPS.len());
        return ExitCode::SUCCESS;
    }
    match measure(has("--write")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!(
                "a step takes more instructions than committed: make it cheaper, or say why in the commit \
                 that writes them anew (cargo bench --bench instructions -- --write)"
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
