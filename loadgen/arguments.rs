//! The command line: what to do, and with which traffic.

use clap::{Parser, Subcommand};

use crate::send::Send;
use crate::{bench, floor, search, soak, verify};

const NOTES: &str = "\
Open loop: the rate alone decides when each metric is due. A datagram sent late makes no later one
later; how late they were is reported, and so is a rate that could not be kept. A run goes on for
at most a tenth of its duration (at least 250 ms) to send what is overdue.

Deterministic: the same seed and options give the same datagrams in the same order on each flow.
They are made before the clock starts, into --ring-bytes of memory; a run that needs more sends
them over again.

Values: counters 1 to 9; timers exponential, mean 100 ms, with three decimals; gauges 0 to 999, or
signed differences of 1 to 9; sets u0, u1, ... Names are PREFIX.c.000000, PREFIX.ms.000000 and so
on: each type has its own. Tags depend on the name alone, so they add no series.

Malformed: lines without a type, with an empty value, with a value that is no number, with a sample
rate that is none, and timers below zero, named PREFIX.bad.000000 and so on. They count for the
rate and for --count, and apart from all else in the totals.

Exact: a datagram the kernel did not take is counted by reason, not sent again and not part of the
totals. `refused` tells that nobody listens; those sent in between reached nobody either.

On loopback one call per batch (sendmmsg) costs the sender about as much CPU as the receiver, so
there a result measures the sender too: give it a core of its own, and believe no rate that is not
reported as kept. --gso takes most of that off the sender, and off no receiver but one with UDP_GRO.";

/// Loads a StatsD server over UDP at a fixed rate and tells exactly what it sent.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, after_help = NOTES, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) send: Send,
}

/// What else it does but send.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measures what receiving alone costs: a sink that discards what it reads (64 datagrams a call
    /// of recvmmsg), on one core, and a sender on another.
    Floor(floor::Options),
    /// Measures what a server costs for each value, as a multiple of the floor; both take turns.
    Bench(bench::Options),
    /// Finds the highest rate at which a server loses nothing.
    Search(search::Options),
    /// Sends, and balances what the server counted against what was sent; exits with 1 when
    /// something is not accounted for.
    Verify(verify::Options),
    /// Runs a server under mixed and hostile traffic while a backend of it has every fault in turn, and
    /// balances what it counted; exits with 1 when something is not accounted for, or memory,
    /// descriptors or threads grow.
    Soak(soak::Options),
}

impl Arguments {
    /// Says why it cannot be done as asked.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &self.command {
            None => self.send.check(),
            Some(Command::Floor(options)) => options.traffic.check(),
            Some(Command::Bench(_) | Command::Soak(_)) => Ok(()),
            Some(Command::Search(options)) => options.traffic.check(),
            Some(Command::Verify(options)) => options.send.check(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
