//! A run of the program: from a configuration to a signal, with reloads between.

use super::{Server, Totals, spawn};
use crate::config::{self, Loaded};
use crate::ingest::source::Address;
use crate::runtime::clock::Clock;
use crate::runtime::notify::{self, State};
use crate::runtime::sys::title;
use crate::runtime::watch::{Look, Watch};
use anyhow::Context;
use crossbeam::channel::{Sender, select, tick, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Signals so close together are one wish to stop: timeout(1) and others send one to the process and
/// the same again to its group.
const SAME_WISH: Duration = Duration::from_millis(500);

/// Where the configuration came from, to read it again.
#[derive(Debug)]
pub struct ConfigFile<R> {
    path: PathBuf,
    watch: Watch,
    read: R,
}

impl<R: Fn() -> Result<Loaded, config::Error>> ConfigFile<R> {
    /// A file that was not read yet, and how to read it. A change from now on is noticed.
    pub fn new(path: PathBuf, read: R) -> Self {
        Self {
            watch: Watch::new(path.clone()),
            path,
            read,
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// As [`config::load`].
    pub fn read(&self) -> Result<Loaded, config::Error> {
        (self.read)()
    }
}

/// What a signal asks for.
enum Wish {
    Stop,
    Reload,
}

/// Time between two looks at the configuration file.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT, then stops in order; another of them, half a second later or more,
/// ends the process at once. SIGHUP, or a change of the file, takes its new content over.
///
/// # Errors
/// When a listener cannot be bound or the system has no thread or descriptor to give.
pub fn run<R>(loaded: Loaded, mut file: Option<ConfigFile<R>>) -> anyhow::Result<()>
where
    R: Fn() -> Result<Loaded, config::Error>,
{
    // Before anything is up, so that no signal finds the default action.
    let signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP]).context("cannot install the signal handlers")?;
    entitle(loaded.config.title.as_deref());
    let mut server = Server::start(loaded, Clock::Real)?;
    log::info!("server is up");
    notify::tell(&State::Ready(&status(server.addresses())));
    let (wish, wishes) = unbounded();
    spawn("signals".into(), server.alarm.clone(), move || {
        obey(signals, &wish);
    })?;
    let looks = tick(LOOK);
    let died = loop {
        select! {
            recv(wishes) -> wish => match wish {
                Ok(Wish::Reload) => {
                    // A look from now on compares with what is read now.
                    if let Some(file) = &mut file {
                        file.watch.look();
                    }
                    reload(&mut server, file.as_ref());
                }
                Ok(Wish::Stop) | Err(_) => break None,
            },
            recv(looks) -> _ => {
                let watched = file.as_mut().filter(|_| server.loaded.config.watch);
                match watched.map(|file| file.watch.look()) {
                    None | Some(Look::Same) => {}
                    Some(Look::Changed) => reload(&mut server, file.as_ref()),
                    Some(Look::Gone) => log::warn!(
                        "the configuration file is gone; the server goes on with what it had"
                    ),
                }
            }
            recv(server.deaths) -> thread => break thread.ok(),
        }
    };
    notify::tell(&State::Stopping);
    match &died {
        None => log::info!(
            "stopping: draining sockets, then a last flush; another signal stops at once"
        ),
        Some(thread) => {
            log::error!("thread {thread} panicked; stopping, since half a server would look alive")
        }
    }
    let totals = server.stop();
    log::info!("stopped: {}", summary(&totals));
    if let Some(thread) = died {
        anyhow::bail!(
            "thread {thread} panicked, a fault of this program; please report the message above"
        );
    }
    Ok(())
}

/// Passes signals on. The second wish to stop is not passed on but obeyed here.
fn obey(mut signals: Signals, wish: &Sender<Wish>) {
    let mut first = None;
    for signal in signals.forever() {
        // Nobody listens any more when the server is stopping.
        if signal == SIGHUP {
            let _ = wish.send(Wish::Reload);
            continue;
        }
        let since = first.get_or_insert_with(Instant::now).elapsed();
        let _ = wish.send(Wish::Stop);
        if since > SAME_WISH {
            // Not through the log: whoever reads that may be what holds us up.
            let _ = writeln!(
                io::stderr(),
                "statsd-fast: a second signal: ended without draining; what was held is lost"
            );
            std::process::exit(1);
        }
    }
}

/// Reads the file again and takes over what can change; what is wrong in it changes nothing.
fn reload<R>(server: &mut Server, file: Option<&ConfigFile<R>>)
where
    R: Fn() -> Result<Loaded, config::Error>,
{
    let Some(file) = file else {
        log::warn!(
            "there is no configuration file to read again: the server was started without one"
        );
        return;
    };
    notify::tell(&State::Reloading);
    let path = file.path.display();
    log::info!("[{}] reading config file: {path}", std::process::id());
    // Opening a pipe would wait for its writer, and the server with it.
    let is_file = std::fs::metadata(&file.path).map_or(true, |it| it.is_file() || it.is_dir());
    if !is_file {
        log::error!(
            "{path} was not taken over: it is no file; the server goes on with what it had"
        );
        notify::tell(&State::Ready(&status(server.addresses())));
        return;
    }
    match file.read() {
        Ok(loaded) => {
            loaded
                .warnings
                .iter()
                .for_each(|warning| log::warn!("{warning}"));
            for key in loaded.refused(&server.loaded) {
                log::warn!(
                    "{key} cannot change while running: it stays as it was at the start; restart the server \
                     for the new value"
                );
            }
            entitle(loaded.config.title.as_deref());
            match server.reload(loaded) {
                Ok(true) => log::info!("the configuration was taken over"),
                Ok(false) => log::info!("the configuration was taken over: nothing in it is new"),
                Err(error) => log::error!("the configuration was taken over in part: {error:#}"),
            }
        }
        Err(error) => {
            for line in error.to_string().lines() {
                log::error!("{line}");
            }
            log::error!("{path} was not taken over; the server goes on with what it had");
        }
    }
    notify::tell(&State::Ready(&status(server.addresses())));
}

/// Gives the process its title; `None` leaves the one it has.
fn entitle(title: Option<&str>) {
    if let Some(title) = title
        && let Err(error) = title::set(title)
    {
        log::warn!("title: the process keeps the one it has: {error}");
    }
}

/// What `systemctl status` says of a server that is up.
fn status(addresses: &[Address]) -> String {
    let listed: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    format!("listening on {}", listed.join(", "))
}

/// The account since the start. What only some listeners can lose is told when it was.
fn summary(totals: &Totals) -> String {
    let tally = &totals.ingest;
    let mut line = format!(
        "{} datagrams, {} lines, {} values taken, {} refused, {} datagrams cut, {} dropped by the kernel, \
         {} flushes not delivered",
        tally.packets,
        tally.lines,
        tally.recorded.iter().sum::<u64>(),
        tally.rejected_total(),
        tally.truncated,
        tally.kernel_drops,
        totals.flushes_dropped
    );
    let streams = &tally.streams;
    for (count, what) in [
        (tally.mapped_dropped, "values dropped by mappings"),
        (streams.long_lines, "lines too long"),
        (streams.cut_lines, "lines cut off"),
        (streams.cut_packets, "packets cut off"),
        (streams.refused, "connections refused"),
        (streams.bad_lengths, "connections closed for a bad length"),
        (streams.accept_errors, "failures to accept"),
        (tally.receive_errors, "failures to receive"),
    ] {
        if count > 0 {
            let _ = write!(line, ", {count} {what}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::harvest::{StreamTally, Tally};

    #[test]
    fn the_account_names_every_loss_there_was() {
        let mut totals = Totals {
            ingest: Tally::default(),
            flushes_dropped: 1,
        };
        let usual = "0 datagrams, 0 lines, 0 values taken, 0 refused, 0 datagrams cut, 0 dropped by the \
                     kernel, 1 flushes not delivered";
        assert_eq!(summary(&totals), usual);
        totals.ingest.receive_errors = 6;
        totals.ingest.mapped_dropped = 1;
        totals.ingest.streams = StreamTally {
            accepted: 7,
            refused: 4,
            resets: 8,
            long_lines: 2,
            cut_lines: 3,
            accept_errors: 5,
            bad_lengths: 9,
            cut_packets: 10,
        };
        let more = "1 values dropped by mappings, 2 lines too long, 3 lines cut off, 10 packets cut off, \
                    4 connections refused, 9 connections closed for a bad length, 5 failures to accept, \
                    6 failures to receive";
        assert_eq!(summary(&totals), format!("{usual}, {more}"));
    }
}
