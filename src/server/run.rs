//! A run of the program, daemon or proxy: from a configuration to a signal, with reloads between.

use super::takeover::{Origin, Parted};
use super::{Account, Alarm, Proxy, Server, Totals, spawn};
use crate::config::{self, Config, Loaded};
use crate::ingest::source::Address;
use crate::metric::harvest::Tally;
use crate::metric::sample::Reject;
use crate::runtime::clock::Clock;
use crate::runtime::notify::{self, State};
use crate::runtime::sys::access::may_read;
use crate::runtime::sys::title;
use crate::runtime::watch::{Look, Watch};
use crate::takeover::offer::{Restart, Successor};
use anyhow::Context;
use crossbeam::channel::{Receiver, Sender, select, tick, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
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

impl<R> ConfigFile<R> {
    /// A file that was not read yet, and how to read it. A change from now on is noticed.
    pub fn new(path: PathBuf, read: R) -> Self {
        Self {
            watch: Watch::new(path.clone()),
            path,
            read,
        }
    }

    /// Says when the user that this process has become could not read it again.
    fn warn_when_unreadable(&self) {
        if let Err(error) = may_read(&self.path) {
            log::warn!(
                "{} cannot be read by the user this process runs as: {error}; a change of it will not be \
                 taken over. Give that user the right to read it, e.g. with chgrp and chmod g+r",
                self.path.display()
            );
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// As [`config::load`].
    pub fn read<C>(&self) -> Result<Loaded<C>, config::Error>
    where
        R: Fn() -> Result<Loaded<C>, config::Error>,
    {
        (self.read)()
    }
}

/// What runs: a daemon or a proxy.
trait Service: Sized {
    /// What it is configured by.
    type Config;
    /// What it says when it begins to stop.
    const STOPPING: &'static str;

    fn addresses(&self) -> &[Address];
    fn alarm(&self) -> Alarm;
    /// Names of threads that panicked.
    fn deaths(&self) -> &Receiver<String>;
    /// What runs.
    fn loaded(&self) -> &Loaded<Self::Config>;
    /// Whether the file is looked at.
    fn watches(&self) -> bool;
    /// The title the process is to have.
    fn title(config: &Self::Config) -> Option<&str>;
    /// Takes over what can change; whether anything that can was new.
    fn reload(&mut self, loaded: Loaded<Self::Config>) -> anyhow::Result<bool>;
    /// Stops; the account of the whole run, in a line for people, and number by number.
    fn stop(self) -> (String, Vec<(&'static str, u64)>);
    /// Processes that read already and are to have the rest.
    fn successors(&self) -> Receiver<Successor>;
    /// Starts one.
    fn start_successor(&self, restart: &io::Result<Restart>) -> anyhow::Result<()>;
    /// Hands everything over to one. Nothing when it failed, and this one goes on.
    fn hand_over(&mut self, successor: Successor) -> anyhow::Result<Option<Parted>>;
    /// Ends, after that; the account of the whole run, less what goes on in the successor's.
    fn part(self, parted: Parted) -> (String, Vec<(&'static str, u64)>);
}

impl Service for Server {
    type Config = Config;
    const STOPPING: &'static str =
        "stopping: draining sockets, then a last flush; another signal stops at once";

    fn addresses(&self) -> &[Address] {
        self.addresses()
    }

    fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }

    fn deaths(&self) -> &Receiver<String> {
        &self.deaths
    }

    fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    fn watches(&self) -> bool {
        self.loaded.config.watch
    }

    fn title(config: &Config) -> Option<&str> {
        config.title.as_deref()
    }

    fn reload(&mut self, loaded: Loaded) -> anyhow::Result<bool> {
        Self::reload(self, loaded)
    }

    fn stop(self) -> (String, Vec<(&'static str, u64)>) {
        account(&Self::stop(self))
    }

    fn successors(&self) -> Receiver<Successor> {
        self.successors.1.clone()
    }

    fn start_successor(&self, restart: &io::Result<Restart>) -> anyhow::Result<()> {
        match restart {
            Ok(restart) => Self::start_successor(self, restart),
            Err(error) => anyhow::bail!("which program this is cannot be told: {error}"),
        }
    }

    fn hand_over(&mut self, successor: Successor) -> anyhow::Result<Option<Parted>> {
        Self::hand_over(self, successor)
    }

    fn part(self, parted: Parted) -> (String, Vec<(&'static str, u64)>) {
        account(&Self::part(self, parted))
    }
}

impl Service for Proxy {
    type Config = config::Proxy;
    const STOPPING: &'static str = "stopping: draining sockets; another signal stops at once";

    fn addresses(&self) -> &[Address] {
        self.addresses()
    }

    fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }

    fn deaths(&self) -> &Receiver<String> {
        &self.deaths
    }

    fn loaded(&self) -> &Loaded<config::Proxy> {
        &self.loaded
    }

    fn watches(&self) -> bool {
        self.loaded.config.watch
    }

    fn title(config: &config::Proxy) -> Option<&str> {
        config.title.as_deref()
    }

    fn reload(&mut self, loaded: Loaded<config::Proxy>) -> anyhow::Result<bool> {
        Ok(Self::reload(self, loaded))
    }

    fn stop(self) -> (String, Vec<(&'static str, u64)>) {
        let account = Self::stop(self);
        let meters = account.counts.meters();
        let meters = meters.map(|(meter, count)| (meter.name, count));
        (forwarded(&account), meters.collect())
    }

    fn successors(&self) -> Receiver<Successor> {
        crossbeam::channel::never()
    }

    fn start_successor(&self, _restart: &io::Result<Restart>) -> anyhow::Result<()> {
        anyhow::bail!(
            "a proxy cannot be taken over; restart it: what it holds fits into its sockets"
        )
    }

    fn hand_over(&mut self, _successor: Successor) -> anyhow::Result<Option<Parted>> {
        Ok(None)
    }

    fn part(self, _parted: Parted) -> (String, Vec<(&'static str, u64)>) {
        Service::stop(self)
    }
}

/// What a signal asks for.
enum Wish {
    Stop,
    Reload,
    Successor,
}

/// Time between two looks at the configuration file.
const LOOK: Duration = Duration::from_secs(1);

/// Runs a daemon until SIGTERM or SIGINT, then stops in order; another of them, half a second later or more,
/// ends the process at once. SIGHUP, or a change of the file, takes its new content over.
///
/// # Errors
/// When a listener cannot be bound or the system has no thread or descriptor to give, and when a takeover
/// fails. `takeover` wishes for one.
pub fn run<R>(loaded: Loaded, file: Option<ConfigFile<R>>, takeover: bool) -> anyhow::Result<()>
where
    R: Fn() -> Result<Loaded, config::Error>,
{
    serve(loaded, file, |loaded| {
        let origin = Origin::of_this_process(&loaded.config, takeover)?;
        Server::begin(loaded, Clock::Real, origin)
    })
}

/// The same for a proxy, which takes over only what the log is of a new content.
///
/// # Errors
/// Those of [`run`].
pub fn run_proxy<R>(loaded: Loaded<config::Proxy>, file: ConfigFile<R>) -> anyhow::Result<()>
where
    R: Fn() -> Result<Loaded<config::Proxy>, config::Error>,
{
    serve(loaded, Some(file), |loaded| {
        Proxy::start(loaded, Clock::Real)
    })
}

fn serve<S: Service, R>(
    loaded: Loaded<S::Config>,
    mut file: Option<ConfigFile<R>>,
    start: impl FnOnce(Loaded<S::Config>) -> anyhow::Result<S>,
) -> anyhow::Result<()>
where
    R: Fn() -> Result<Loaded<S::Config>, config::Error>,
{
    // Before anything is up, so that no signal finds the default action.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2])
        .context("cannot install the signal handlers")?;
    // Before a title is written over the arguments, and somebody puts a new program in the place of this one.
    let restart = Restart::of_this_process();
    entitle(S::title(&loaded.config));
    let mut server = start(loaded)?;
    if let Some(file) = &file {
        file.warn_when_unreadable();
    }
    log::info!("server is up");
    notify::tell(&State::Ready(&status(server.addresses())));
    let (wish, wishes) = unbounded();
    spawn("signals".into(), server.alarm(), move || {
        obey(signals, &wish);
    })?;
    let looks = tick(LOOK);
    let successors = server.successors();
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
                Ok(Wish::Successor) => {
                    if let Err(error) = server.start_successor(&restart) {
                        log::error!("SIGUSR2: {error:#}; this one goes on");
                    }
                }
                Ok(Wish::Stop) | Err(_) => break None,
            },
            recv(successors) -> successor => {
                let Ok(successor) = successor else { continue };
                let process = successor.process;
                match server.hand_over(successor) {
                    Ok(Some(parted)) => {
                        log::info!("process {process} has taken over; delivering what is left here");
                        let (account, counts) = server.part(parted);
                        log::info!("account: {}", counted(&counts));
                        log::info!("taken over by process {process}: {account}");
                        return Ok(());
                    }
                    Ok(None) => {}
                    Err(error) => {
                        log::error!("{error:#}; stopping");
                        break None;
                    }
                }
            }
            recv(looks) -> _ => {
                let watched = file.as_mut().filter(|_| server.watches());
                match watched.map(|file| file.watch.look()) {
                    None | Some(Look::Same) => {}
                    Some(Look::Changed) => reload(&mut server, file.as_ref()),
                    Some(Look::Gone) => log::warn!(
                        "the configuration file is gone; the server goes on with what it had"
                    ),
                }
            }
            recv(server.deaths()) -> thread => break thread.ok(),
        }
    };
    // One that comes now finds nobody; see `Server::stop`.
    drop(successors);
    notify::tell(&State::Stopping);
    match &died {
        None => log::info!("{}", S::STOPPING),
        Some(thread) => {
            log::error!("thread {thread} panicked; stopping, since half a server would look alive")
        }
    }
    let (account, counts) = server.stop();
    log::info!("account: {}", counted(&counts));
    log::info!("stopped: {account}");
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
        let other = match signal {
            SIGHUP => Some(Wish::Reload),
            SIGUSR2 => Some(Wish::Successor),
            _ => None,
        };
        if let Some(other) = other {
            let _ = wish.send(other);
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
fn reload<S: Service, R>(server: &mut S, file: Option<&ConfigFile<R>>)
where
    R: Fn() -> Result<Loaded<S::Config>, config::Error>,
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
            for key in loaded.refused(server.loaded()) {
                log::warn!(
                    "{key} cannot change while running: it stays as it was at the start; restart the server \
                     for the new value"
                );
            }
            entitle(S::title(&loaded.config));
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

/// The account since the start, in a line for people, and number by number.
fn account(totals: &Totals) -> (String, Vec<(&'static str, u64)>) {
    let meters = totals.meters.each();
    let meters = meters.map(|(meter, count)| (meter.name, count));
    (summary(totals), meters.collect())
}

/// The account since the start. What only some listeners can lose is told when it was.
fn summary(totals: &Totals) -> String {
    let tally = &totals.ingest;
    let mut line = format!(
        "{} datagrams, {} lines, {} values taken, {} refused{}, {} datagrams cut, {} dropped by the kernel, \
         {} flushes not delivered",
        tally.packets - tally.streams.pieces,
        tally.lines,
        tally.recorded.iter().sum::<u64>(),
        tally.rejected_total(),
        reasons(tally),
        tally.truncated,
        tally.kernel_drops,
        totals.flushes_dropped
    );
    if totals.flushes_on_disk > 0 {
        let _ = write!(line, ", {} flushes on disk", totals.flushes_on_disk);
    }
    add_rare_losses(tally, &mut line);
    for (meter, what) in [
        ("repeater.dropped", "copies not sent"),
        ("librato.posts_lost", "posts lost"),
        ("librato.dropped", "measurements not sent"),
    ] {
        let count = totals.meters.of(meter);
        if count > 0 {
            let _ = write!(line, ", {count} {what}");
        }
    }
    line.push_str(if whole(tally) {
        "; whatever came was read"
    } else {
        "; NOT all that came was read"
    });
    line
}

/// Whether nothing was cut, dropped or turned away before anybody read it.
fn whole(tally: &Tally) -> bool {
    let streams = &tally.streams;
    let unread = [
        tally.truncated,
        tally.kernel_drops,
        tally.unread,
        streams.long_lines,
        streams.cut_lines,
        streams.cut_packets,
        streams.bad_lengths,
        streams.refused,
        streams.unread_bytes,
    ];
    unread.iter().all(|count| *count == 0)
}

/// Every count that is not 0, for programs: the names of the meters.
fn counted(counts: &[(&str, u64)]) -> String {
    let counts = counts.iter().filter(|(_, count)| *count > 0);
    let counts: Vec<_> = counts
        .map(|(name, count)| format!("{name}={count}"))
        .collect();
    counts.join(" ")
}

/// Why values were refused, the reasons that there were.
fn reasons(tally: &Tally) -> String {
    let refused = Reject::ALL.map(|reason| (reason.name(), tally.rejected[reason as usize]));
    let refused = refused.iter().filter(|(_, count)| *count > 0);
    let refused: Vec<_> = refused
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    if refused.is_empty() {
        return String::new();
    }
    format!(" ({})", refused.join(", "))
}

fn add_rare_losses(tally: &Tally, line: &mut String) {
    let streams = &tally.streams;
    for (count, what) in [
        (tally.mapped_dropped, "values dropped by mappings"),
        (tally.no_room_total(), "values dropped for want of room"),
        (
            tally.folded_total(),
            "values folded into statsd_fast.overflow",
        ),
        (tally.events, "events"),
        (tally.service_checks, "service checks"),
        (streams.pieces, "pieces of streams"),
        (streams.long_lines, "lines too long"),
        (streams.cut_lines, "lines cut off"),
        (streams.cut_packets, "packets cut off"),
        (streams.refused, "connections refused"),
        (streams.bad_lengths, "connections closed for a bad length"),
        (streams.unread_bytes, "bytes of streams unread"),
        (streams.accept_errors, "failures to accept"),
        (tally.unread, "datagrams unread"),
        (tally.receive_errors, "failures to receive"),
    ] {
        if count > 0 {
            let _ = write!(line, ", {count} {what}");
        }
    }
}

/// The account of a proxy since the start, each node with what may be lost of it.
fn forwarded(account: &Account) -> String {
    let Account { counts, labels } = account;
    let (tally, all) = (&counts.tally, counts.all_nodes());
    let mut line = format!(
        "{} datagrams, {} lines, {} of our own, {} sent, {} not sent, {} without a node, {} datagrams cut, \
         {} dropped by the kernel",
        tally.packets - tally.streams.pieces,
        tally.lines,
        counts.own_lines,
        all.lines,
        all.dropped_total(),
        counts.no_node,
        tally.truncated,
        tally.kernel_drops
    );
    add_rare_losses(tally, &mut line);
    for (label, node) in labels.iter().zip(&counts.nodes) {
        let _ = write!(line, "; {label} {} lines", node.lines);
        for (count, what) in [
            (node.dropped_total(), "not sent"),
            (node.refused_lines, "refused"),
            (node.doubtful, "doubtful"),
        ] {
            if count > 0 {
                let _ = write!(line, ", {count} {what}");
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::harvest::StreamTally;
    use crate::metric::meter;
    use crate::proxy::account::{Counts, NodeCounts};

    #[test]
    fn the_account_names_every_loss_there_was() {
        let mut totals = Totals {
            ingest: Tally::default(),
            flushes_dropped: 1,
            flushes_on_disk: 0,
            meters: meter::Totals::ZERO,
        };
        let usual = "0 datagrams, 0 lines, 0 values taken, 0 refused, 0 datagrams cut, 0 dropped by the \
                     kernel, 1 flushes not delivered";
        assert_eq!(summary(&totals), format!("{usual}; whatever came was read"));
        totals.flushes_on_disk = 2;
        assert_eq!(
            summary(&totals),
            format!("{usual}, 2 flushes on disk; whatever came was read")
        );
        totals.flushes_on_disk = 0;
        totals.ingest.rejected[Reject::NoType as usize] = 11;
        totals.ingest.rejected[Reject::BadRate as usize] = 12;
        (totals.ingest.packets, totals.ingest.events) = (15, 14);
        totals.ingest.receive_errors = 6;
        totals.ingest.unread = 19;
        let outside = meter::Outside::default();
        outside.copies_dropped.add(16);
        outside.posts_lost.add(17);
        outside.measurements_dropped.add(18);
        totals.meters = meter::Totals::read(&Tally::default(), &outside);
        totals.ingest.mapped_dropped = 1;
        (totals.ingest.members_dropped, totals.ingest.stamped_dropped) = (11, 12);
        totals.ingest.folded = [20, 1, 0];
        totals.ingest.streams = StreamTally {
            accepted: 7,
            refused: 4,
            resets: 8,
            long_lines: 2,
            cut_lines: 3,
            accept_errors: 5,
            bad_lengths: 9,
            cut_packets: 10,
            pieces: 15,
            unread_bytes: 13,
        };
        let usual = usual.replace("0 refused", "23 refused (11 no-type, 12 bad-rate)");
        let more = "1 values dropped by mappings, 23 values dropped for want of room, 21 values \
                    folded into statsd_fast.overflow, 14 events, 15 pieces of streams, 2 lines too \
                    long, 3 lines cut off, 10 packets cut off, 4 connections refused, 9 connections \
                    closed for a bad length, 13 bytes of streams unread, 5 failures to accept, 19 \
                    datagrams unread, 6 failures to receive, 16 copies not sent, 17 posts lost, 18 \
                    measurements not sent";
        let line = format!("{usual}, {more}; NOT all that came was read");
        assert_eq!(summary(&totals), line);
    }

    #[test]
    fn programs_read_every_count_there_was() {
        let counts = [("packets", 3), ("truncated", 0), ("samples.timers", 7)];
        assert_eq!(counted(&counts), "packets=3 samples.timers=7");
    }

    #[test]
    fn the_account_of_a_proxy_names_every_loss_by_node() {
        let mut counts = Counts::of(2);
        counts.tally.lines = 9;
        counts.nodes[0].lines = 5;
        counts.nodes[1] = NodeCounts {
            lines: 3,
            dropped: [0, 1, 0, 0],
            refused_lines: 2,
            doubtful: 3,
            ..NodeCounts::default()
        };
        let account = Account {
            counts,
            labels: vec!["a:1".into(), "b:2".into()],
        };
        assert_eq!(
            forwarded(&account),
            "0 datagrams, 9 lines, 0 of our own, 8 sent, 1 not sent, 0 without a node, 0 datagrams cut, 0 \
             dropped by the kernel; a:1 5 lines; b:2 3 lines, 1 not sent, 2 refused, 3 doubtful"
        );
    }
}
