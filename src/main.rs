//! Arguments -> configuration -> server -> exit code, nothing else.

use clap::Parser;
use statsd_fast::config::{self, Config, Loaded};
use statsd_fast::runtime::{self, stdout};
use statsd_fast::server;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code for a wrong configuration; clap uses the same for wrong arguments.
const MISCONFIGURED: u8 = 2;

/// How long the last lines of the log may wait for whoever reads them.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A StatsD server: metrics in over UDP, aggregates out to Graphite.
///
/// Reads the configuration files of StatsD as they are: JavaScript, JSON or JSON5. Without a file it
/// listens on UDP port 8125 of all addresses and shows the values on standard output every 10 seconds.
#[derive(Debug, Parser)]
#[command(version, after_long_help = include_str!("help.txt"))]
struct Arguments {
    /// Configuration file
    config: Option<PathBuf>,
    /// Configuration file, as an option
    #[arg(long = "config", value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// Workers for each listener, 1 to 1024, in place of `threads` in the file
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Check the configuration and exit: 0 if it can be used, 2 if not
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let path = arguments.config.or(arguments.file);
    let name = path
        .as_ref()
        .map_or_else(|| "defaults".into(), |path| path.to_string_lossy());
    let Loaded {
        mut config,
        warnings,
        ..
    } = match path.as_deref().map(config::load).transpose() {
        Ok(loaded) => loaded.unwrap_or_else(|| Config::without_file().into()),
        Err(error) => {
            error
                .warnings
                .iter()
                .for_each(|warning| eprintln!("warning: {warning}"));
            eprintln!("{error}");
            return ExitCode::from(MISCONFIGURED);
        }
    };
    if arguments.check_config {
        let mut report = format!("{name}: ok\n");
        for warning in &warnings {
            report.push_str(&format!("warning: {warning}\n"));
        }
        // Whoever stopped reading has seen enough; the exit code says the rest.
        let _ = stdout::write(report.into_bytes());
        return ExitCode::SUCCESS;
    }

    config.threads = arguments.threads.map(usize::from).or(config.threads);
    runtime::log::init(&config.log);
    if path.is_some() {
        log::info!("[{}] reading config file: {name}", std::process::id());
    }
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    let outcome = server::run(config);
    runtime::log::finish(LAST_WORDS);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("statsd-fast: {error:#}");
            ExitCode::FAILURE
        }
    }
}
