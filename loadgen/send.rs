//! Plain `loadgen`: sends, and tells what was sent.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;

use crate::arguments::Send;
use crate::distinct::Distinct;
use crate::load::{Load, Run};
use crate::percentiles;
use crate::report::Report;

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
