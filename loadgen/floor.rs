//! `loadgen floor`: what receiving alone costs.

use std::fmt::Write as _;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cores::{Cores, Placement};
use crate::figures::{grouped, si};
use crate::load::{Load, Run};
use crate::pace::Rate;
use crate::quantity;
use crate::sink::{RECEIVE_BUFFER, Sink};
use crate::traffic::Traffic;
use crate::trial::Trial;

/// How to measure the floor.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) traffic: Traffic,

    /// Lines a second, e.g. 500, 20k, 1.5M; `max` sends unpaced.
    #[arg(long, default_value = "max", value_parser = quantity::rate)]
    rate: Rate,

    /// How long to send, e.g. 500ms, 10s, 2m.
    #[arg(long, default_value = "3s", value_parser = quantity::duration)]
    duration: Duration,

    #[command(flatten)]
    placement: Placement,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,

    /// Show no progress. (It is shown on a terminal only.)
    #[arg(long)]
    quiet: bool,
}

/// Measures; returns what to print.
pub(crate) fn run(options: &Options, stop: &AtomicBool) -> anyhow::Result<String> {
    let cores = options.placement.cores()?;
    let load = Load::make(&options.traffic, None);
    let mut sink = Sink::start(load.longest(), cores.receiver)?;
    let granted = sink.receive_buffer();
    let run = Run {
        rate: options.rate,
        time_limit: Some(options.duration),
        progress: !options.quiet,
        core: Some(cores.sender),
    };
    let trial = Trial::run(&load, &mut sink, &run, Duration::ZERO, stop)?;
    if options.json {
        let mut json = trial.json();
        json["loadgen"] = env!("CARGO_PKG_VERSION").into();
        json["receiver_core"] = cores.receiver.id.into();
        json["sender_core"] = cores.sender.id.into();
        json["receive_buffer"] = json!({"asked": RECEIVE_BUFFER, "granted": granted});
        return Ok(format!("{json}\n"));
    }
    Ok(table(&trial, cores, granted))
}

fn table(trial: &Trial, cores: Cores, granted: usize) -> String {
    let mut out = String::new();
    let mut row = |label: &str, datagrams: &str, lines: &str| {
        let line = format!("{label:<12} {datagrams:>16} {lines:>16}\n");
        out.push_str(&line);
    };
    row("floor", "datagrams", "metrics");
    row(
        "sent",
        &grouped(trial.sent.datagrams),
        &grouped(trial.sent.lines()),
    );
    row(
        "received",
        &grouped(trial.counts.datagrams),
        &grouped(trial.values() as u64),
    );
    row(
        "CPU for one",
        &format!("{:.0} ns", trial.ns_a_datagram()),
        &format!("{:.1} ns", trial.ns_a_value()),
    );
    let _ = writeln!(
        out,
        "\n{} metrics/s sent, {} received; receiver on core {}, sender on core {}",
        si(trial.lines_a_second()),
        percent(trial.received()),
        cores.receiver.id,
        cores.sender.id,
    );
    if trial.rate_kept == Some(false) {
        out.push_str("The sender was the limit: it could not keep the rate.\n");
    }
    out.push_str(&remarks(cores, Some(granted)));
    out
}

/// What makes a measurement worth less than it looks.
pub(crate) fn remarks(cores: Cores, granted: Option<usize>) -> String {
    let mut out = String::new();
    if cores.are_one() {
        out.push_str("Both compete for one core: believe no figure.\n");
    }
    if let Some(granted) = granted.filter(|granted| *granted < RECEIVE_BUFFER) {
        let _ = writeln!(
            out,
            "The kernel granted a receive buffer of {granted} bytes, not {RECEIVE_BUFFER}; raise it with: \
             sysctl -w net.core.rmem_max={RECEIVE_BUFFER}"
        );
    }
    out
}

/// A share in percent; 100 only when it is whole.
pub(crate) fn percent(share: f64) -> String {
    match share * 100.0 {
        percent @ 99.0..100.0 => format!("{:.2} %", (percent * 100.0).floor() / 100.0),
        percent => format!("{percent:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::tests::trial;
    use core_affinity::CoreId;

    #[test]
    fn the_table_reads_well() {
        let cores = Cores {
            receiver: CoreId { id: 0 },
            sender: CoreId { id: 1 },
        };
        assert_eq!(
            table(&trial(10_000, 9_999, None), cores, RECEIVE_BUFFER),
            "floor               datagrams          metrics\n\
             sent                   10,000          100,000\n\
             received                9,999           99,990\n\
             CPU for one            100 ns          10.0 ns\n\
             \n\
             50.0k metrics/s sent, 99.99 % received; receiver on core 0, sender on core 1\n"
        );
    }

    #[test]
    fn what_spoils_a_figure_is_said() {
        let id = |id| CoreId { id };
        let (receiver, sender) = (id(3), id(3));
        let said = remarks(Cores { receiver, sender }, Some(4096));
        assert!(
            said.contains("one core") && said.contains("4096 bytes"),
            "{said}"
        );
        let sender = id(4);
        assert_eq!(remarks(Cores { receiver, sender }, None), "");
    }

    #[test]
    fn a_hundred_percent_is_all() {
        let shown = [1.0, 0.999_999, 0.994, 0.5, 0.0].map(percent);
        assert_eq!(shown, ["100 %", "99.99 %", "99.40 %", "50 %", "0 %"]);
    }
}
