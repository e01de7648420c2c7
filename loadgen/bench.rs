//! `loadgen bench`: what a server costs for each value, as a multiple of receiving alone; what several
//! workers cost, as a multiple of one; what a datagram costs with `udpGro` and without.
//!
//! The two take turns on the same core, so that whatever slows the machine slows both.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use crate::baseline::Baseline;
use crate::cores::{self, Cores, Placement};
use crate::daemon::{Daemon, Setup};
use crate::figures::si;
use crate::floor::{percent, remarks};
use crate::load::{Load, Run};
use crate::pace::Rate;
use crate::quantity;
use crate::sink::Sink;
use crate::traffic::Traffic;
use crate::trial::Trial;

/// What to measure, and how often.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Program of the server; it is started with a configuration of its own: no backend, a flush each
    /// second, one worker where nothing else is asked for.
    #[arg(long, value_name = "PATH")]
    daemon: PathBuf,

    /// Hold so many workers against one, not a server against the floor. They pin themselves to the
    /// first cores.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=1024),
          conflicts_with_all = ["gso", "receiver_core"])]
    workers: Option<u32>,

    /// Hold a server with udpGro against one without, for each datagram; what they are sent the kernel
    /// cuts itself (UDP_SEGMENT).
    #[arg(long)]
    gso: bool,

    /// Source sockets of each load [default: 1, with --workers 4 for each].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    flows: Option<u32>,

    /// Loads to measure [default: counters-1k,counters-100k,mix-1k,single, with --gso single].
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = row)]
    rows: Vec<&'static Row>,

    /// Lines a second, e.g. 500, 20k, 1.5M; `max` sends unpaced.
    #[arg(long, default_value = "max", value_parser = quantity::rate)]
    rate: Rate,

    /// How long to send each time, e.g. 500ms, 10s.
    #[arg(long, default_value = "3s", value_parser = quantity::duration)]
    duration: Duration,

    /// How long to send the same before that, for names to be known.
    #[arg(long, value_name = "DURATION", default_value = "500ms",
          value_parser = quantity::duration)]
    warm_up: Duration,

    /// Measurements of each load; the table has their medians and ranges.
    #[arg(long, value_name = "TIMES", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,

    /// Memory for datagrams made beforehand.
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = quantity::whole)]
    ring_bytes: u64,

    #[command(flatten)]
    placement: Placement,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,

    /// Show no progress. (It is shown on a terminal only.)
    #[arg(long)]
    quiet: bool,
}

/// A load, and what a value of it may cost.
#[derive(Debug, PartialEq)]
struct Row {
    name: &'static str,
    /// As it is asked of `loadgen` itself.
    options: &'static str,
    /// Most times the floor.
    goal: f64,
}

const ROWS: [Row; 4] = [
    Row {
        name: "counters-1k",
        options: "--mix c --names 1000",
        goal: 1.0,
    },
    Row {
        name: "counters-100k",
        options: "--mix c --names 100k",
        goal: 1.5,
    },
    Row {
        name: "mix-1k",
        options: "--mix c:60,ms:25,g:10,s:5 --names 1000",
        goal: 1.4,
    },
    Row {
        name: "single",
        options: "--mix c --names 1000 --metrics-per-datagram 1",
        goal: 0.45,
    },
];

fn row(name: &str) -> Result<&'static Row, String> {
    let found = ROWS.iter().find(|row| row.name == name);
    found.ok_or_else(|| {
        let names = ROWS.map(|row| row.name);
        format!("known are {}", names.join(", "))
    })
}

/// The baseline and the server, one right after the other.
#[derive(Debug)]
struct Pair {
    base: Trial,
    server: Trial,
}

/// All measurements of a row.
#[derive(Debug)]
struct Measured {
    row: &'static Row,
    /// The load, as it is asked of `loadgen` itself.
    load: String,
    baseline: Baseline,
    pairs: Vec<Pair>,
}

impl Options {
    fn baseline(&self) -> Baseline {
        match self.workers {
            Some(workers) => Baseline::OneWorker(workers),
            None if self.gso => Baseline::WithoutGro,
            None => Baseline::Floor,
        }
    }

    /// The loads, each with what is asked for in all of them.
    fn loads(&self) -> anyhow::Result<Vec<(&'static Row, String)>> {
        let mut rows = self.rows.clone();
        if rows.is_empty() {
            let names = self.baseline().rows().iter();
            rows.extend(names.filter_map(|name| row(name).ok()));
        }
        let flows = self.flows.or(self.workers.map(|workers| 4 * workers));
        if let (Some(flows), Some(workers)) = (flows, self.workers)
            && flows < workers
        {
            bail!(
                "--flows {flows} are too few for --workers {workers}: each flow stays on one worker"
            );
        }
        let flows = flows.map_or_else(String::new, |flows| format!(" --flows {flows}"));
        let gso = if self.gso { " --gso" } else { "" };
        let load = |row: &'static Row| {
            let load = format!("{}{flows}{gso}", row.options);
            if let Err(reason) = Traffic::of(&load).check() {
                bail!("{}: {reason}", row.name);
            }
            Ok((row, load))
        };
        rows.into_iter().map(load).collect()
    }
}

/// Measures; returns what to print.
pub(crate) fn run(options: &Options, stop: &AtomicBool) -> anyhow::Result<String> {
    let cores = options.placement.cores()?;
    let baseline = options.baseline();
    let server = baseline.server();
    let on = (server.workers == 1).then_some(cores.receiver);
    let mut granted = None;
    let mut results = Vec::new();
    for (row, asked) in options.loads()? {
        let mut traffic = Traffic::of(&asked);
        traffic.ring_bytes = options.ring_bytes;
        let load = Load::make(&traffic, None);
        let run = Run {
            rate: options.rate,
            time_limit: Some(options.duration),
            progress: !options.quiet,
            core: Some(cores.sender),
        };
        let measure = |setup: Setup| {
            let mut daemon = Daemon::start(&options.daemon, setup, on)?;
            Trial::run(&load, &mut daemon, &run, options.warm_up, stop)
        };
        let mut pairs = Vec::new();
        for round in 1..=options.repeats {
            if !options.quiet && io::stderr().is_terminal() {
                eprintln!("{}, {round} of {}", row.name, options.repeats);
            }
            let base = if baseline == Baseline::Floor {
                let mut sink = Sink::start(load.longest(), cores.receiver)?;
                granted = Some(sink.receive_buffer());
                Trial::run(&load, &mut sink, &run, options.warm_up, stop)?
            } else {
                measure(Setup::default())?
            };
            let server = measure(server)?;
            pairs.push(Pair { base, server });
        }
        results.push(Measured {
            row,
            load: asked,
            baseline,
            pairs,
        });
    }
    Ok(if options.json {
        let results: Vec<_> = results.iter().map(Measured::json).collect();
        let json = json!({
            "loadgen": env!("CARGO_PKG_VERSION"),
            "daemon": options.daemon.to_string_lossy(),
            "receiver_core": cores.receiver.id,
            "sender_core": cores.sender.id,
            "receive_buffer": granted,
            "rows": results,
        });
        format!("{json}\n")
    } else {
        let mut said = remarks(cores, granted);
        if let Baseline::OneWorker(workers) = baseline
            && cores::first(workers as usize).contains(&cores.sender)
        {
            said.push_str("A worker competes with the sender for a core: pace it with --rate.\n");
        }
        table(&results, cores, &said)
    })
}

/// Median, lowest and highest of some figures.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    median: f64,
    lowest: f64,
    highest: f64,
}

impl Spread {
    /// Of at least one figure.
    fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        let median = if figures.len().is_multiple_of(2) {
            f64::midpoint(figures[middle - 1], figures[middle])
        } else {
            figures[middle]
        };
        Self {
            median,
            lowest: figures[0],
            highest: figures[figures.len() - 1],
        }
    }

    fn show(&self, write: impl Fn(f64) -> String) -> String {
        let [median, lowest, highest] = [self.median, self.lowest, self.highest].map(write);
        if lowest == highest {
            median
        } else {
            format!("{median} ({lowest} to {highest})")
        }
    }

    fn json(&self) -> Value {
        json!({"median": self.median, "lowest": self.lowest, "highest": self.highest})
    }
}

impl Measured {
    fn spread(&self, figure: impl Fn(&Pair) -> f64) -> Spread {
        Spread::of(self.pairs.iter().map(figure))
    }

    fn base_ns(&self) -> Spread {
        self.spread(|pair| self.baseline.cost(&pair.base))
    }

    fn server_ns(&self) -> Spread {
        self.spread(|pair| self.baseline.cost(&pair.server))
    }

    /// What it costs the server, as a multiple of what it costs the baseline.
    fn times(&self, pair: &Pair) -> f64 {
        self.baseline.cost(&pair.server) / self.baseline.cost(&pair.base).max(1e-9)
    }

    fn goal(&self) -> f64 {
        self.baseline.goal(self.row.goal)
    }

    fn json(&self) -> Value {
        let base = self.baseline.key();
        let times = format!("times_{base}");
        let trials = self.pairs.iter().map(|pair| {
            let mut trial = json!({"server": pair.server.json()});
            trial[base] = pair.base.json();
            trial[&times] = self.times(pair).into();
            trial
        });
        let mut json = json!({
            "row": self.row.name,
            "options": self.load,
            "unit": self.baseline.unit(),
            "goal": self.goal(),
            "server_ns": self.server_ns().json(),
            "server_received": self.spread(|pair| pair.server.received()).json(),
            "trials": trials.collect::<Vec<_>>(),
        });
        json[&times] = self.spread(|pair| self.times(pair)).json();
        json[format!("{base}_ns")] = self.base_ns().json();
        json[format!("{base}_received")] = self.spread(|pair| pair.base.received()).json();
        json
    }

    /// What stands in the table.
    fn cells(&self) -> [String; 8] {
        let ns = |ns: f64| match ns {
            ..100.0 => format!("{ns:.1}"),
            _ => format!("{ns:.0}"),
        };
        let times = |times: f64| format!("{times:.2}");
        let short = |share: f64| percent(share).replace(" %", "");
        [
            self.row.name.into(),
            si(self.spread(|pair| pair.server.lines_a_second()).median),
            self.spread(|pair| pair.base.received()).show(short),
            self.spread(|pair| pair.server.received()).show(short),
            self.base_ns().show(ns),
            self.server_ns().show(ns),
            self.spread(|pair| self.times(pair)).show(times),
            self.goal().to_string(),
        ]
    }
}

/// At least one row, all with the same baseline.
fn table(results: &[Measured], cores: Cores, remarks: &str) -> String {
    let Some(Measured {
        baseline, pairs, ..
    }) = results.first()
    else {
        return String::new();
    };
    let [base, server] = baseline.columns();
    let head = [
        "load".into(),
        "sent/s".into(),
        format!("{base} got %"),
        format!("{server} got %"),
        format!("{base} ns"),
        format!("CPU ns a {}", baseline.unit()),
        format!("times {}", baseline.name()),
        "at most".into(),
    ];
    let mut rows = vec![head];
    rows.extend(results.iter().map(Measured::cells));
    let mut out = String::new();
    let widths: [usize; 8] = std::array::from_fn(|column| {
        let widths = rows.iter().map(|row| row[column].len());
        widths.max().unwrap_or(0)
    });
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join("  "));
    }
    let receiver = match baseline {
        Baseline::OneWorker(_) => "workers on the first cores".into(),
        Baseline::Floor | Baseline::WithoutGro => format!("receiver on core {}", cores.receiver.id),
    };
    let _ = writeln!(
        out,
        "\nMedian (lowest to highest) of {}; {receiver}, sender on core {}.",
        pairs.len(),
        cores.sender.id
    );
    for result in results {
        let least =
            |trial: fn(&Pair) -> &Trial| result.spread(|pair| trial(pair).received()).median;
        if least(|pair| &pair.server) < least(|pair| &pair.base) {
            let _ = writeln!(
                out,
                "{}: {server} got less than {base}; its figure is that of a full core. Pace it with --rate.",
                result.row.name
            );
        }
    }
    out.push_str(remarks);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::tests::trial;
    use core_affinity::CoreId;

    fn result(baseline: Baseline, values: &[u64]) -> Measured {
        let pairs = values.iter().map(|values| Pair {
            base: trial(1000, 1000, None),
            server: trial(1000, 1000, Some(*values)),
        });
        Measured {
            row: &ROWS[0],
            load: ROWS[0].options.into(),
            baseline,
            pairs: pairs.collect(),
        }
    }

    const CORES: Cores = Cores {
        receiver: CoreId { id: 0 },
        sender: CoreId { id: 1 },
    };

    #[test]
    fn every_row_is_a_load_that_loadgen_takes() {
        for row in &ROWS {
            let traffic = Traffic::of(row.options);
            assert_eq!(traffic.check(), Ok(()), "{}", row.name);
            assert_eq!(super::row(row.name), Ok(row));
        }
        let baselines = [
            Baseline::Floor,
            Baseline::OneWorker(2),
            Baseline::WithoutGro,
        ];
        for name in baselines.iter().flat_map(|baseline| baseline.rows()) {
            assert!(super::row(name).is_ok(), "{name}");
        }
        assert!(
            row("none")
                .unwrap_err()
                .contains("counters-1k, counters-100k, mix-1k, single")
        );
    }

    #[test]
    fn a_spread_has_the_middle_and_the_ends() {
        let of = |figures: &[f64]| {
            let Spread {
                median,
                lowest,
                highest,
            } = Spread::of(figures.iter().copied());
            [median, lowest, highest]
        };
        assert_eq!(of(&[3.0, 1.0, 2.0]), [2.0, 1.0, 3.0]);
        assert_eq!(of(&[4.0, 1.0]), [2.5, 1.0, 4.0]);
        assert_eq!(of(&[7.0]), [7.0; 3]);
    }

    #[test]
    fn the_table_has_medians_ranges_and_the_goal() {
        // 10 ns a value at the floor; 100,000 ns of CPU for so many values at the server.
        let results = [result(Baseline::Floor, &[10_000, 5_000, 4_000])];
        let table = table(&results, CORES, "A remark.\n");
        let expected = "\
load         sent/s  floor got %  server got %  floor ns       CPU ns a value      times the floor  at most
counters-1k   5.00k          100           100      10.0  20.0 (10.0 to 25.0)  2.00 (1.00 to 2.50)        1

Median (lowest to highest) of 3; receiver on core 0, sender on core 1.
A remark.
";
        assert_eq!(table, expected);
        assert_eq!(results[0].json()["times_floor"]["highest"], 2.5);
    }

    #[test]
    fn several_workers_are_held_against_one() {
        let results = [result(Baseline::OneWorker(2), &[10_000])];
        let expected = "\
load         sent/s  1 worker got %  2 workers got %  1 worker ns  CPU ns a value  times one worker  at most
counters-1k   5.00k             100              100         10.0            10.0              1.00     1.11

Median (lowest to highest) of 1; workers on the first cores, sender on core 1.
";
        assert_eq!(table(&results, CORES, ""), expected);
        assert_eq!(results[0].json()["one_worker_ns"]["median"], 10.0);
    }

    #[test]
    fn datagrams_taken_in_runs_are_held_against_those_taken_alone() {
        // So many values, but it is the datagrams that are compared.
        let results = [result(Baseline::WithoutGro, &[5_000])];
        let expected = "\
load         sent/s  no GRO got %  GRO got %  no GRO ns  CPU ns a datagram  times no GRO  at most
counters-1k   5.00k           100        100        100                100          1.00      0.1

Median (lowest to highest) of 1; receiver on core 0, sender on core 1.
";
        assert_eq!(table(&results, CORES, ""), expected);
        assert_eq!(results[0].json()["times_without_gro"]["median"], 1.0);
    }

    #[test]
    fn a_server_that_gets_less_than_the_sink_is_named() {
        let mut result = result(Baseline::Floor, &[100]);
        result.pairs[0].server = trial(1000, 400, Some(4000));
        let table = table(&[result], CORES, "");
        assert!(
            table.contains(
                "counters-1k: server got less than floor; its figure is that of a full core."
            ),
            "{table}"
        );
    }
}
