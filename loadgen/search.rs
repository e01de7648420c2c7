//! `loadgen search`: the highest rate at which a server loses nothing, by bisection.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::admin::Server;
use crate::cores::Placement;
use crate::daemon::{Daemon, Setup};
use crate::figures::{grouped, si};
use crate::load::{Load, Run};
use crate::pace::Rate;
use crate::quantity;
use crate::receiver::Receiver;
use crate::traffic::Traffic;
use crate::trial::Trial;

/// Where to search, and how closely.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Program of a server to start: one worker, no backend, a flush each second.
    #[arg(long, value_name = "PATH", required_unless_present_all = ["to", "admin"],
          conflicts_with_all = ["to", "admin"])]
    daemon: Option<PathBuf>,

    /// Server to load, when it runs already.
    #[arg(long, value_name = "HOST:PORT", requires = "admin", value_parser = quantity::address)]
    to: Option<SocketAddr>,

    /// Admin interface of that server.
    #[arg(long, value_name = "HOST:PORT", requires = "to", value_parser = quantity::address)]
    admin: Option<SocketAddr>,

    /// First rate to try, in lines a second.
    #[arg(long, value_name = "RATE", default_value = "100k", value_parser = quantity::whole)]
    from: u64,

    /// How close to come, in percent of the rate.
    #[arg(long, value_name = "PERCENT", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    precision: u32,

    /// How long to send at each rate, e.g. 500ms, 10s, 2m.
    #[arg(long, default_value = "2s", value_parser = quantity::duration)]
    duration: Duration,

    #[command(flatten)]
    pub(crate) traffic: Traffic,

    #[command(flatten)]
    placement: Placement,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,

    /// Show no progress. (It is shown on a terminal only.)
    #[arg(long)]
    quiet: bool,
}

/// What came of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All of it arrived.
    Whole,
    /// Something was lost.
    Lost,
    /// The sender did not come to it.
    Unsent,
}

/// The bounds found so far; they close in until they are near enough.
#[derive(Debug, Clone, Copy)]
struct Bisection {
    /// Highest rate that went whole; 0 before any did.
    whole: u64,
    /// Lowest rate that did not, and why.
    above: Option<(u64, Outcome)>,
    first: u64,
    precision: f64,
}

impl Bisection {
    fn new(first: u64, percent: u32) -> Self {
        Self {
            whole: 0,
            above: None,
            first,
            precision: f64::from(percent) / 100.0,
        }
    }

    /// The rate to try next; `None` when the bounds are near enough.
    fn next(&self) -> Option<u64> {
        match (self.whole, self.above) {
            (0, None) => Some(self.first),
            (whole, None) => whole.checked_mul(2),
            (0, Some((above, _))) => Some(above / 2).filter(|rate| *rate > 0),
            (whole, Some((above, _))) => {
                // The mean of the logarithms: the precision is relative.
                let middle = (whole as f64 * above as f64).sqrt() as u64;
                let apart = above as f64 / whole as f64 - 1.0;
                Some(middle).filter(|middle| apart > self.precision && *middle > whole)
            }
        }
    }

    fn take(&mut self, rate: u64, outcome: Outcome) {
        match outcome {
            Outcome::Whole => self.whole = rate,
            Outcome::Lost | Outcome::Unsent => self.above = Some((rate, outcome)),
        }
    }

    fn verdict(&self) -> String {
        let whole = si(self.whole as f64);
        match (self.whole, self.above) {
            (0, Some((_, Outcome::Unsent))) => {
                "The sender was the limit: it kept no rate at all. Give it a core of its own.\n"
                    .into()
            }
            (0, _) => "Something was lost at every rate.\n".into(),
            (_, Some((above, Outcome::Unsent))) => format!(
                "Nothing is lost up to {whole} lines/s; the sender was the limit, it could not keep {}.\n",
                si(above as f64)
            ),
            (_, Some((above, _))) => {
                let above = si(above as f64);
                format!("Nothing is lost up to {whole} lines/s, something at {above}.\n")
            }
            (_, None) => format!("Nothing is lost up to {whole} lines/s.\n"),
        }
    }
}

/// Searches; returns what to print.
pub(crate) fn run(options: &Options, stop: &AtomicBool) -> anyhow::Result<String> {
    let load = Load::make(&options.traffic, None);
    match (&options.daemon, options.to.zip(options.admin)) {
        (None, Some((to, admin))) => {
            let mut server = Server::connect(to, admin)?;
            search(options, &load, &mut server, None, stop)
        }
        (daemon, _) => {
            let cores = options.placement.cores()?;
            let program = daemon.clone().unwrap_or_default();
            let mut daemon = Daemon::start(&program, Setup::default(), Some(cores.receiver))?;
            search(options, &load, &mut daemon, Some(cores.sender), stop)
        }
    }
}

fn search(
    options: &Options,
    load: &Load,
    server: &mut impl Receiver,
    core: Option<core_affinity::CoreId>,
    stop: &AtomicBool,
) -> anyhow::Result<String> {
    let mut bisection = Bisection::new(options.from, options.precision);
    let mut out = step_line(["lines/s", "datagrams", "lost", "lines lost", "outcome"]);
    let mut steps = Vec::new();
    let shown = !options.quiet && io::stderr().is_terminal();
    // A first run makes the names known; it is no step.
    let mut warm_up = options.duration.min(Duration::from_millis(500));
    while let Some(rate) = bisection.next() {
        if shown {
            eprintln!("{} lines/s", si(rate as f64));
        }
        let run = Run {
            rate: Rate::Paced(rate),
            time_limit: Some(options.duration),
            progress: shown,
            core,
        };
        let trial = Trial::run(load, server, &run, warm_up, stop)?;
        warm_up = Duration::ZERO;
        let outcome = outcome(&trial);
        bisection.take(rate, outcome);
        out.push_str(&step(rate, &trial, outcome));
        steps.push(step_json(rate, &trial, outcome));
    }
    if options.json {
        let json = json!({
            "loadgen": env!("CARGO_PKG_VERSION"),
            "steps": steps,
            "lines_per_second": bisection.whole,
            "not_whole_at": bisection.above.map(|(rate, _)| rate),
            "sender_was_the_limit": matches!(bisection.above, Some((_, Outcome::Unsent))),
        });
        return Ok(format!("{json}\n"));
    }
    Ok(format!("{out}\n{}", bisection.verdict()))
}

fn outcome(trial: &Trial) -> Outcome {
    if trial.lost_datagrams() > 0 || trial.lost_lines() > 0 {
        Outcome::Lost
    } else if trial.rate_kept == Some(false) {
        Outcome::Unsent
    } else {
        Outcome::Whole
    }
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Lost => "lost",
            Self::Unsent => "rate not kept",
        }
    }
}

fn step(rate: u64, trial: &Trial, outcome: Outcome) -> String {
    step_line([
        &si(rate as f64),
        &grouped(trial.sent.datagrams),
        &grouped(trial.lost_datagrams()),
        &grouped(trial.lost_lines()),
        outcome.name(),
    ])
}

fn step_line([rate, datagrams, lost, lines, outcome]: [&str; 5]) -> String {
    let mut line = String::new();
    let _ = writeln!(
        line,
        "{rate:>10} {datagrams:>14} {lost:>12} {lines:>14}   {outcome}"
    );
    line
}

fn step_json(rate: u64, trial: &Trial, outcome: Outcome) -> Value {
    let mut json = trial.json();
    json["rate"] = rate.into();
    json["outcome"] = outcome.name().into();
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::tests::trial;

    /// Searches a server that loses above `limit`, with a sender that comes to `reach`.
    fn search(first: u64, limit: u64, reach: u64) -> (Bisection, Vec<u64>) {
        let mut bisection = Bisection::new(first, 5);
        let mut tried = Vec::new();
        while let Some(rate) = bisection.next() {
            tried.push(rate);
            assert!(tried.len() < 100, "{tried:?}");
            let outcome = match rate {
                _ if rate > reach => Outcome::Unsent,
                _ if rate > limit => Outcome::Lost,
                _ => Outcome::Whole,
            };
            bisection.take(rate, outcome);
        }
        (bisection, tried)
    }

    #[test]
    fn it_closes_in_on_the_limit_from_both_sides() {
        for (first, limit) in [
            (100, 12_345),
            (1_000_000, 12_345),
            (12_345, 12_345),
            (1, 1000),
        ] {
            let (found, tried) = search(first, limit, u64::MAX);
            let (above, why) = found.above.unwrap();
            assert!(found.whole <= limit && limit < above, "{found:?}");
            assert!(above as f64 / found.whole as f64 <= 1.05, "{found:?}");
            assert_eq!(why, Outcome::Lost);
            assert_eq!(tried[0], first);
        }
        assert_eq!(
            search(100, 1600, u64::MAX).1[..6],
            [100, 200, 400, 800, 1600, 3200]
        );
    }

    #[test]
    fn it_ends_where_nothing_goes_whole_and_where_the_sender_ends() {
        let (found, tried) = search(8, 0, u64::MAX);
        assert_eq!((found.whole, tried), (0, vec![8, 4, 2, 1]));
        assert_eq!(found.verdict(), "Something was lost at every rate.\n");
        let (found, _) = search(100, u64::MAX, 5000);
        assert!(
            found.verdict().contains("the sender was the limit"),
            "{found:?}"
        );
        assert_eq!(search(1, u64::MAX, u64::MAX).0.whole, 1 << 63);
    }

    #[test]
    fn a_rate_is_whole_when_every_line_is_accounted_for() {
        assert_eq!(outcome(&trial(10, 10, Some(100))), Outcome::Whole);
        assert_eq!(outcome(&trial(10, 10, Some(99))), Outcome::Lost);
        assert_eq!(outcome(&trial(10, 9, Some(100))), Outcome::Lost);
        let mut late = trial(10, 10, Some(100));
        late.rate_kept = Some(false);
        assert_eq!(outcome(&late), Outcome::Unsent);
        let line = step(1_000_000, &trial(10, 9, Some(90)), Outcome::Lost);
        assert_eq!(
            line,
            "     1.00M             10            1             10   lost\n"
        );
    }
}
