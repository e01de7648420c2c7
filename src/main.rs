//! Arguments -> configuration -> server or proxy -> exit code, nothing else.

use clap::{Args, Parser, Subcommand};
use statsd_fast::config::{self, Config, Evaluated, Finding, Loaded};
use statsd_fast::runtime::{self, privilege, stdout};
use statsd_fast::server::{self, ConfigFile};
use std::io::{self, Write as _};
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

/// A StatsD server: metrics in over UDP, TCP and unix sockets, aggregates out to Graphite, Librato and more.
///
/// Reads the configuration files of StatsD as they are: JavaScript, JSON or JSON5. Without a file it
/// listens on UDP port 8125 of all addresses, shows the values on standard output every 10 seconds and
/// answers on the admin port 8126 of this machine.
#[derive(Debug, Parser)]
#[command(version, after_long_help = include_str!("help.txt"))]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forwards lines to several daemons by name, in the place of StatsD's proxy.js.
    ///
    /// Reads its configuration files as they are. Without a file there is nobody to forward to.
    Proxy(Options),
}

#[derive(Debug, Args)]
struct Options {
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
    /// Take the place of the process that listens at `takeoverSocket`, without losing a value
    #[arg(long)]
    takeover: bool,
}

impl Options {
    fn path(&self) -> Option<PathBuf> {
        self.config.clone().or(self.file.clone())
    }

    fn threads(&self) -> Option<usize> {
        self.threads.map(usize::from)
    }
}

fn main() -> ExitCode {
    match Arguments::parse() {
        Arguments {
            command: Some(Command::Proxy(options)),
            ..
        } => proxy(&options),
        Arguments { options, .. } => daemon(&options),
    }
}

fn daemon(options: &Options) -> ExitCode {
    let path = options.path();
    if options.print_config {
        let evaluated = path.as_deref().map(config::evaluate).transpose();
        return print_config(evaluated);
    }
    let name = path.as_ref().map_or_else(
        || "defaults".into(),
        |path| path.to_string_lossy().into_owned(),
    );
    let threads = options.threads();
    let overrule = move |config: &mut Config| config.threads = threads.or(config.threads);
    let overruled = move |mut loaded: Loaded| {
        overrule(&mut loaded.config);
        loaded
    };
    // Before it is read, so that no change goes unnoticed.
    let file = path
        .clone()
        .map(|path| ConfigFile::new(path.clone(), move || config::reload(&path).map(overruled)));
    let loaded = match path.as_deref().map(config::load).transpose() {
        Ok(Some(loaded)) => overruled(loaded),
        Ok(None) => {
            let mut config = Config::without_file();
            overrule(&mut config);
            config.into()
        }
        Err(error) => return misconfigured(&error),
    };
    if options.check_config {
        return checked(&name, &loaded.warnings);
    }
    if let Err(error) = privilege::prepare(loaded.config.identity.as_ref()) {
        return end(Err(error.into()));
    }
    begin(
        &loaded.config.log,
        file.is_some().then_some(&*name),
        &loaded.warnings,
    );
    end(server::run(loaded, file, options.takeover))
}

fn proxy(options: &Options) -> ExitCode {
    let Some(path) = options.path() else {
        complain(
            "statsd-fast proxy: a configuration file is needed, with the nodes to forward to: \
             statsd-fast proxy --config proxyConfig.js",
        );
        return ExitCode::from(MISCONFIGURED);
    };
    if options.takeover {
        complain("statsd-fast proxy: --takeover is for the server; a proxy is restarted");
        return ExitCode::from(MISCONFIGURED);
    }
    if options.print_config {
        return print_config(config::evaluate_proxy(&path).map(Some));
    }
    let name = path.to_string_lossy().into_owned();
    let threads = options.threads();
    let overruled = move |mut loaded: Loaded<config::Proxy>| {
        loaded.config.threads = threads.or(loaded.config.threads);
        loaded
    };
    let again = path.clone();
    let file = ConfigFile::new(path.clone(), move || {
        config::reload_proxy(&again).map(overruled)
    });
    let loaded = match config::load_proxy(&path) {
        Ok(loaded) => overruled(loaded),
        Err(error) => return misconfigured(&error),
    };
    if options.check_config {
        return checked(&name, &loaded.warnings);
    }
    if let Err(error) = privilege::prepare(loaded.config.identity.as_ref()) {
        return end(Err(error.into()));
    }
    begin(&loaded.config.log, Some(&name), &loaded.warnings);
    end(server::run_proxy(loaded, file))
}

/// Says that a file can be used, and what is odd about it.
fn checked(name: &str, warnings: &[Finding]) -> ExitCode {
    let mut report = format!("{name}: ok\n");
    for warning in warnings {
        report.push_str(&format!("warning: {warning}\n"));
    }
    // Whoever stopped reading has seen enough; the exit code says the rest.
    let _ = stdout::write(report.into_bytes());
    ExitCode::SUCCESS
}

/// Opens the log, with what is known of the file.
fn begin(log: &runtime::log::Options, file: Option<&str>, warnings: &[Finding]) {
    runtime::log::init(log);
    if let Some(name) = file {
        log::info!("[{}] reading config file: {name}", std::process::id());
    }
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
}

/// Closes the log; the exit code of a run.
fn end(outcome: anyhow::Result<()>) -> ExitCode {
    runtime::log::finish(LAST_WORDS);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("statsd-fast: {error:#}"));
            if server::is_misconfigured(&error) {
                ExitCode::from(MISCONFIGURED)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn print_config(evaluated: Result<Option<Evaluated>, config::Error>) -> ExitCode {
    let json = match evaluated {
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
