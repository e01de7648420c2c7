//! Arguments -> configuration -> server -> exit code, nothing else.

use clap::Parser;
use statsd_fast::config::{self, Config, Evaluated, Finding};
use statsd_fast::runtime::{self, stdout};
use statsd_fast::server::{self, ConfigFile};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code for a wrong configuration; clap uses the same for wrong arguments.
const MISCONFIGURED: u8 = 2;

/// How long the last lines of the log may wait for whoever reads them.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A StatsD server: metrics in over UDP, TCP and unix sockets, aggregates out to Graphite, Librato and more.
///
/// Reads the configuration files of StatsD as they are: JavaScript, JSON or JSON5. Without a file it
/// listens on UDP port 8125 of all addresses, shows the values on standard output every 10 seconds and
/// answers on the admin port 8126 of this machine.
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
    /// Show what the configuration comes to, as JSON (with null for NaN, secrets hidden), and exit as
    /// --check-config does
    #[arg(long, conflicts_with = "check_config")]
    print_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let path = arguments.config.or(arguments.file);
    if arguments.print_config {
        return print_config(path.as_deref());
    }
    let name = path.as_ref().map_or_else(
        || "defaults".into(),
        |path| path.to_string_lossy().into_owned(),
    );
    let threads = arguments.threads.map(usize::from);
    let overrule = move |config: &mut Config| config.threads = threads.or(config.threads);
    let read = |path: &Path| {
        let mut loaded = config::load(path)?;
        overrule(&mut loaded.config);
        Ok(loaded)
    };
    let file = path.map(|path| ConfigFile::new(path.clone(), move || read(&path)));
    let loaded = match file.as_ref().map(ConfigFile::read).transpose() {
        Ok(Some(loaded)) => loaded,
        Ok(None) => {
            let mut config = Config::without_file();
            overrule(&mut config);
            config.into()
        }
        Err(error) => return misconfigured(&error),
    };
    if arguments.check_config {
        let mut report = format!("{name}: ok\n");
        for warning in &loaded.warnings {
            report.push_str(&format!("warning: {warning}\n"));
        }
        // Whoever stopped reading has seen enough; the exit code says the rest.
        let _ = stdout::write(report.into_bytes());
        return ExitCode::SUCCESS;
    }

    runtime::log::init(&loaded.config.log);
    if file.is_some() {
        log::info!("[{}] reading config file: {name}", std::process::id());
    }
    loaded
        .warnings
        .iter()
        .for_each(|warning| log::warn!("{warning}"));
    let outcome = server::run(loaded, file);
    runtime::log::finish(LAST_WORDS);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("statsd-fast: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn print_config(path: Option<&Path>) -> ExitCode {
    let json = match path.map(config::evaluate).transpose() {
        Ok(Some(Evaluated {
            json,
            notes,
            warnings,
        })) => {
            warn(&warnings);
            notes
                .iter()
                .for_each(|note| complain(&format!("note: {note}")));
            json
        }
        Ok(None) => "{}\n".into(),
        Err(error) => return misconfigured(&error),
    };
    // As above: the reader may leave early.
    let _ = stdout::write(json.into_bytes());
    ExitCode::SUCCESS
}

fn misconfigured(error: &config::Error) -> ExitCode {
    warn(&error.warnings);
    complain(&error.to_string());
    ExitCode::from(MISCONFIGURED)
}

fn warn(warnings: &[Finding]) {
    warnings
        .iter()
        .for_each(|warning| complain(&format!("warning: {warning}")));
}

/// Says something on standard error. Where that takes nothing, the exit code says the rest.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
