//! An open-loop load generator for StatsD servers: it sends what it was asked to, when it is due,
//! and tells exactly what it sent.
//!
//! `arguments` -> `shape` (one flow's metrics, drawn by `mix`, `fault` and `random`) -> `ring` (ready
//! datagrams and their `tally`) -> `load` (all rings and the threads) -> `sender` (when `pace` says so,
//! through a `wire`) -> `account` and `distinct` -> `report` and `percentiles`. Of the server's library
//! it uses the system calls alone: nothing here can share a mistake with what it measures.

mod account;
mod arguments;
mod distinct;
mod fault;
mod figures;
mod load;
mod mix;
mod pace;
mod percentiles;
mod progress;
mod random;
mod report;
mod ring;
mod sender;
mod shape;
mod tally;
mod wire;

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use arguments::{Arguments, Send};
use distinct::Distinct;
use load::{Load, Run};
use report::Report;

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Err(reason) = arguments.check() {
        Arguments::command()
            .error(ErrorKind::ValueValidation, reason)
            .exit();
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // In this order a second signal ends the process at once.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("cannot watch for signals")?;
    }
    send(&arguments.send, &stop).map(|()| ExitCode::SUCCESS)
}

/// Sends, and prints what was sent.
fn send(options: &Send, stop: &AtomicBool) -> anyhow::Result<()> {
    // Before the run: its figures would be lost.
    let file = options
        .hgrm
        .as_ref()
        .map(|path| File::create(path).with_context(|| format!("cannot write {}", path.display())));
    let file = file.transpose()?;
    let report = load(options, stop)?;
    if let Some(file) = file {
        let mut file = BufWriter::new(file);
        percentiles::write(&report.account.lateness.histogram, &mut file)
            .and_then(|()| file.flush())
            .context("cannot write the percentiles")?;
    }
    let text = if options.json {
        format!("{}\n", report.json())
    } else {
        report.table()
    };
    print(&text)
}

/// Makes the load, sends it, and accounts for it.
fn load(options: &Send, stop: &AtomicBool) -> anyhow::Result<Report> {
    let planned = options.planned();
    let load = Load::make(&options.traffic, planned);
    let mut flows = load.connect(options.to)?;
    let run = Run {
        rate: options.rate,
        time_limit: options.time_limit(),
        progress: !options.quiet,
        core: None,
    };
    let (account, interrupted) = load.send(&mut flows, &run, stop);
    let distinct = Distinct::count(&load.shape, &load.names, &flows);
    Ok(Report {
        to: options.to,
        rate: options.rate,
        time_limit: run.time_limit,
        planned,
        flows: options.traffic.flows(),
        threads: options.traffic.threads,
        gso: options.traffic.gso,
        ring: load.size(),
        shape: load.shape.clone(),
        account,
        distinct,
        interrupted,
    })
}

fn print(text: &str) -> anyhow::Result<()> {
    io::stdout()
        .write_all(text.as_bytes())
        .context("cannot print the results")
}
