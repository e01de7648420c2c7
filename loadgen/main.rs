//! An open-loop load generator for StatsD servers: it sends what it was asked to, when it is due,
//! and tells exactly what it sent.
//!
//! `arguments` (of the commands' own and `traffic`, numbers read by `quantity`) -> `shape` (one flow's
//! metrics, drawn by `mix`, `fault` and `random`) -> `ring` (ready datagrams and their `tally`) -> `load`
//! (all rings and the threads) -> `sender` (when `pace` says so, through a `wire`) -> `account` and
//! `distinct` -> `report` and `percentiles`. `send` does that and no more.
//!
//! The commands measure with that: a `trial` sends a load to a `receiver`, which is a `sink` of its own, a
//! `daemon` it starts, or a server it asks through `admin`. `floor`, `bench` and `search` are made of
//! trials; `bench` holds them against a `baseline`; `verify` draws the `balance`; `soak` does it
//! after hours of traffic of every kind. `cores` says who runs
//! where.
//!
//! Of the server's library it uses the system calls alone: nothing here can share a mistake with what it
//! measures.

mod account;
mod admin;
mod arguments;
mod balance;
mod baseline;
mod bench;
mod cores;
mod daemon;
mod distinct;
mod fault;
mod figures;
mod floor;
mod load;
mod mix;
mod pace;
mod percentiles;
mod progress;
mod quantity;
mod random;
mod receiver;
mod report;
mod ring;
mod search;
mod send;
mod sender;
mod shape;
mod sink;
mod soak;
mod tally;
mod traffic;
mod trial;
mod verify;
mod wire;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use arguments::{Arguments, Command};

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
    let (text, good) = match &arguments.command {
        None => {
            let options = &arguments.send;
            (send::run(options, &stop)?.text(options.json), true)
        }
        Some(Command::Floor(options)) => (floor::run(options, &stop)?, true),
        Some(Command::Bench(options)) => (bench::run(options, &stop)?, true),
        Some(Command::Search(options)) => (search::run(options, &stop)?, true),
        Some(Command::Verify(options)) => verify::run(options, &stop)?,
        Some(Command::Soak(options)) => soak::run(options, &stop)?,
    };
    io::stdout()
        .write_all(text.as_bytes())
        .context("cannot print the results")?;
    Ok(ExitCode::from(u8::from(!good)))
}
