//! Plain `loadgen`: sends, and tells what was sent.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::distinct::Distinct;
use crate::load::{Load, Run};
use crate::pace::{self, Rate};
use crate::report::Report;
use crate::traffic::Traffic;
use crate::{percentiles, quantity};

/// Sending, and telling what was sent.
#[derive(Debug, Args)]
pub(crate) struct Send {
    /// Server to load.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8125",
          value_parser = quantity::address)]
    pub(crate) to: SocketAddr,

    /// Lines a second over all flows, e.g. 500, 20k, 1.5M; `max` sends unpaced.
    #[arg(long, default_value = "100k", value_parser = quantity::rate)]
    pub(crate) rate: Rate,

    /// How long to send, e.g. 500ms, 10s, 2m [default: 10s].
    #[arg(long, value_parser = quantity::duration, conflicts_with = "count")]
    duration: Option<Duration>,

    /// Send exactly so many lines, however long it takes, e.g. 1M.
    #[arg(long, value_name = "LINES", value_parser = quantity::whole)]
    count: Option<u64>,

    #[command(flatten)]
    pub(crate) traffic: Traffic,

    /// Write how late datagrams were to a file: percentiles in microseconds, as the plotters of
    /// HdrHistogram read them.
    #[arg(long, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,

    /// Show no progress. (It is shown on a terminal only.)
    #[arg(long)]
    pub(crate) quiet: bool,
}

impl Send {
    /// How long to send; `None` when a count ends the run.
    pub(crate) fn time_limit(&self) -> Option<Duration> {
        let default = Duration::from_secs(10);
        self.count
            .is_none()
            .then(|| self.duration.unwrap_or(default))
    }

    /// Lines to send; `None` when only time ends the run.
    pub(crate) fn planned(&self) -> Option<u64> {
        match (self.count, self.rate, self.time_limit()) {
            (Some(count), ..) => Some(count),
            (None, Rate::Paced(rate), Some(duration)) => Some(pace::metrics_in(rate, duration)),
            _ => None,
        }
    }

    /// Says why it cannot be done as asked.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.hgrm.is_some() && self.rate == Rate::Max {
            return Err(
                "--hgrm tells how late datagrams were; with --rate max none is ever due, so give \
                 a rate"
                    .into(),
            );
        }
        self.traffic.check()
    }
}

/// What was sent.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) report: Report,
    /// Fewest and most lines of a datagram.
    pub(crate) lines_each: (u64, u64),
}

impl Sending {
    /// What to print.
    pub(crate) fn text(&self, json: bool) -> String {
        if json {
            format!("{}\n", self.report.json())
        } else {
            self.report.table()
        }
    }
}

/// Makes the load, sends it, and accounts for it.
pub(crate) fn run(options: &Send, stop: &AtomicBool) -> anyhow::Result<Sending> {
    // Opened before the run: afterwards its figures would be lost.
    let file = options
        .hgrm
        .as_ref()
        .map(|path| File::create(path).with_context(|| format!("cannot write {}", path.display())));
    let file = file.transpose()?;
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
    if let Some(file) = file {
        let mut file = BufWriter::new(file);
        percentiles::write(&account.lateness.histogram, &mut file)
            .and_then(|()| file.flush())
            .context("cannot write the percentiles")?;
    }
    let lines_each = load.lines_each();
    Ok(Sending {
        report: Report {
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
        },
        lines_each,
    })
}
