//! `loadgen bench`: what a server costs for each value, as a multiple of receiving alone.
//!
//! Sink and server take turns on the same core, so that whatever slows the machine slows both.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cores::{Cores, Placement};
use crate::daemon::Daemon;
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
    /// Program of the server; it is started with a configuration of its own: one worker, no backend,
    /// a flush each second.
    #[arg(long, value_name = "PATH")]
    daemon: PathBuf,

    /// Loads to measure.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = row,
          default_value = "counters-1k,counters-100k,mix-1k,single")]
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

/// The sink and the server, one right after the other.
#[derive(Debug)]
struct Pair {
    floor: Trial,
    server: Trial,
}

impl Pair {
    /// What a value costs the server, as a multiple of what it costs the sink.
    fn times(&self) -> f64 {
        self.server.ns_a_value() / self.floor.ns_a_value().max(1e-9)
    }
}

/// All measurements of a row.
#[derive(Debug)]
struct Measured {
    row: &'static Row,
    pairs: Vec<Pair>,
}

/// Measures; returns what to print.
pub(crate) fn run(options: &Options, stop: &AtomicBool) -> anyhow::Result<String> {
    let cores = options.placement.cores()?;
    let mut granted = 0;
    let mut results = Vec::new();
    for row in &options.rows {
        let mut traffic = Traffic::of(row.options);
        traffic.ring_bytes = options.ring_bytes;
        let load = Load::make(&traffic, None);
        let run = Run {
            rate: options.rate,
            time_limit: Some(options.duration),
            progress: !options.quiet,
            core: Some(cores.sender),
        };
        let mut pairs = Vec::new();
        for round in 1..=options.repeats {
            if !options.quiet && io::stderr().is_terminal() {
                eprintln!("{}, {round} of {}", row.name, options.repeats);
            }
            let mut sink = Sink::start(load.longest(), cores.receiver)?;
            granted = sink.receive_buffer();
            let floor = Trial::run(&load, &mut sink, &run, options.warm_up, stop)?;
            drop(sink);
            let mut daemon = Daemon::start(&options.daemon, cores.receiver)?;
            let server = Trial::run(&load, &mut daemon, &run, options.warm_up, stop)?;
            pairs.push(Pair { floor, server });
        }
        results.push(Measured { row, pairs });
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
        table(&results, cores, granted)
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

    fn json(&self) -> Value {
        let trials = self.pairs.iter().map(|pair| {
            json!({
                "floor": pair.floor.json(),
                "server": pair.server.json(),
                "times_floor": pair.times(),
            })
        });
        json!({
            "row": self.row.name,
            "options": self.row.options,
            "goal": self.row.goal,
            "times_floor": self.spread(Pair::times).json(),
            "floor_ns": self.spread(|pair| pair.floor.ns_a_value()).json(),
            "server_ns": self.spread(|pair| pair.server.ns_a_value()).json(),
            "floor_received": self.spread(|pair| pair.floor.received()).json(),
            "server_received": self.spread(|pair| pair.server.received()).json(),
            "trials": trials.collect::<Vec<_>>(),
        })
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
            self.spread(|pair| pair.floor.received()).show(short),
            self.spread(|pair| pair.server.received()).show(short),
            self.spread(|pair| pair.floor.ns_a_value()).show(ns),
            self.spread(|pair| pair.server.ns_a_value()).show(ns),
            self.spread(Pair::times).show(times),
            self.row.goal.to_string(),
        ]
    }
}

fn table(results: &[Measured], cores: Cores, granted: usize) -> String {
    let head = [
        "load",
        "sent/s",
        "floor got %",
        "server got %",
        "floor ns",
        "CPU ns a value",
        "times the floor",
        "at most",
    ];
    let mut rows = vec![head.map(String::from)];
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
    let _ = writeln!(
        out,
        "\nMedian (lowest to highest) of {}; receiver on core {}, sender on core {}.",
        results.first().map_or(0, |result| result.pairs.len()),
        cores.receiver.id,
        cores.sender.id
    );
    for result in results {
        let least =
            |trial: fn(&Pair) -> &Trial| result.spread(|pair| trial(pair).received()).median;
        if least(|pair| &pair.server) < least(|pair| &pair.floor) {
            let _ = writeln!(
                out,
                "{}: the server got less than the sink; its figure is that of a full core. Pace it with \
                 --rate.",
                result.row.name
            );
        }
    }
    out.push_str(&remarks(cores, Some(granted)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::tests::trial;
    use core_affinity::CoreId;

    fn result(values: &[u64]) -> Measured {
        let pairs = values.iter().map(|values| Pair {
            floor: trial(1000, 1000, None),
            server: trial(1000, 1000, Some(*values)),
        });
        Measured {
            row: &ROWS[0],
            pairs: pairs.collect(),
        }
    }

    #[test]
    fn every_row_is_a_load_that_loadgen_takes() {
        for row in &ROWS {
            let traffic = Traffic::of(row.options);
            assert_eq!(traffic.check(), Ok(()), "{}", row.name);
            assert_eq!(super::row(row.name), Ok(row));
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
        let cores = Cores {
            receiver: CoreId { id: 0 },
            sender: CoreId { id: 1 },
        };
        // 10 ns a value at the floor; 100,000 ns of CPU for so many values at the server.
        let results = [result(&[10_000, 5_000, 4_000])];
        let table = table(&results, cores, usize::MAX);
        let expected = "\
load         sent/s  floor got %  server got %  floor ns       CPU ns a value      times the floor  at most
counters-1k   5.00k          100           100      10.0  20.0 (10.0 to 25.0)  2.00 (1.00 to 2.50)        1

Median (lowest to highest) of 3; receiver on core 0, sender on core 1.
";
        assert_eq!(table, expected);
        assert_eq!(results[0].json()["times_floor"]["highest"], 2.5);
    }

    #[test]
    fn a_server_that_gets_less_than_the_sink_is_named() {
        let mut result = result(&[100]);
        result.pairs[0].server = trial(1000, 400, Some(4000));
        let id = |id| CoreId { id };
        let (receiver, sender) = (id(0), id(1));
        let table = table(&[result], Cores { receiver, sender }, usize::MAX);
        assert!(
            table.contains("counters-1k: the server got less than the sink"),
            "{table}"
        );
    }
}
