//! An open-loop load generator for StatsD servers: it sends what it was asked to, when it is due,
//! and tells exactly what it sent.
//!
//! `arguments` -> `shape` (one flow's metrics, drawn by `mix` and `random`) -> `ring` (ready
//! datagrams and their `tally`) -> `sender` (when `pace` says so) -> `account` and `distinct` ->
//! `report`. Of the server's library it uses the system calls alone: nothing here can share a
//! mistake with what it measures.

mod account;
mod arguments;
mod distinct;
mod figures;
mod mix;
mod pace;
mod progress;
mod random;
mod report;
mod ring;
mod sender;
mod shape;
mod tally;

use std::io::{self, IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use crossbeam::channel::{RecvTimeoutError, bounded};
use crossbeam::utils::CachePadded;

use account::Account;
use arguments::{Arguments, Rate};
use distinct::Distinct;
use pace::{Schedule, WallClock};
use progress::{Goal, Progress};
use random::Names;
use report::{Report, RingSize};
use ring::Ring;
use sender::{Flow, Live};
use shape::Shape;

/// Longest a send may wait for room in the socket: so soon a stop is noticed.
const SEND_TIMEOUT: Duration = Duration::from_millis(100);

/// Lets all threads be ready when the schedule starts.
const LEAD_IN: Duration = Duration::from_millis(10);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let shape = arguments.shape();
    if let Err(reason) = check(&arguments, &shape) {
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
    let report = load(&arguments, shape, &stop)?;
    let text = if arguments.json {
        format!("{}\n", report.json())
    } else {
        report.table()
    };
    io::stdout()
        .write_all(text.as_bytes())
        .context("cannot print the totals")
}

fn check(arguments: &Arguments, shape: &Shape) -> Result<(), String> {
    if arguments.flows() < arguments.threads {
        return Err(format!(
            "--flows {} are too few for --threads {}: each thread needs a flow of its own",
            arguments.flows(),
            arguments.threads
        ));
    }
    shape.check()
}

/// Makes the rings, sends them, and accounts for it.
fn load(arguments: &Arguments, shape: Shape, stop: &AtomicBool) -> anyhow::Result<Report> {
    let time_limit = arguments.time_limit();
    let planned = match (arguments.count, arguments.rate, time_limit) {
        (Some(count), ..) => Some(count),
        (None, Rate::Paced(rate), Some(duration)) => Some(pace::metrics_in(rate, duration)),
        _ => None,
    };
    let names = Names::new(shape.names, shape.distribution);
    let rings = make_rings(arguments, &shape, &names, planned);
    let ring = RingSize {
        payload: rings.iter().map(|ring| ring.payload() as u64).sum(),
        datagrams: rings.iter().map(|ring| ring.len() as u64).sum(),
        metrics: rings.iter().map(Ring::metrics).sum(),
    };
    let mut flows = Vec::with_capacity(rings.len());
    for ring in &rings {
        flows.push(Flow::new(connect(arguments.to)?, ring));
    }

    let (account, interrupted) = send(arguments, &mut flows, planned, stop);
    let distinct = Distinct::count(&shape, &names, &flows);
    Ok(Report {
        to: arguments.to,
        shape,
        rate: arguments.rate,
        time_limit,
        planned,
        flows: arguments.flows(),
        threads: arguments.threads,
        ring,
        account,
        distinct,
        interrupted,
    })
}

/// Fills the ring of each flow, as many at a time as there are threads.
fn make_rings(
    arguments: &Arguments,
    shape: &Shape,
    names: &Names,
    planned: Option<u64>,
) -> Vec<Ring> {
    let flows = u64::from(arguments.flows());
    let budget = usize::try_from(arguments.ring_bytes / flows).unwrap_or(usize::MAX);
    let make = |flow: u64| {
        let quota = planned.map(|planned| planned / flows + u64::from(flow < planned % flows));
        Ring::new(shape, names, flow, budget, quota)
    };
    let shares: Vec<_> = shares(arguments.flows(), arguments.threads).collect();
    thread::scope(|scope| {
        let threads: Vec<_> = shares
            .into_iter()
            .map(|flows| {
                scope.spawn(move || flows.map(|flow| make(flow.into())).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(joined).collect()
    })
}

/// The flows of each thread, consecutive and as equal as can be.
fn shares(flows: u32, threads: u32) -> impl Iterator<Item = std::ops::Range<u32>> {
    let start =
        move |thread: u32| (u64::from(thread) * u64::from(flows) / u64::from(threads)) as u32;
    (0..threads).map(move |thread| start(thread)..start(thread + 1))
}

/// A panic in a thread is a panic of the program.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn connect(to: SocketAddr) -> anyhow::Result<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).context(
        "cannot open a UDP socket; for many --flows raise the limit of open files (ulimit -n)",
    )?;
    socket
        .connect(to)
        .with_context(|| format!("cannot send to {to}; is there a route to it?"))?;
    socket
        .set_write_timeout(Some(SEND_TIMEOUT))
        .context("cannot set the send timeout")?;
    Ok(socket)
}

/// Runs the threads; returns their account and whether they were stopped early.
fn send(
    arguments: &Arguments,
    flows: &mut [Flow<'_, UdpSocket>],
    planned: Option<u64>,
    stop: &AtomicBool,
) -> (Account, bool) {
    let deadline = arguments.time_limit().map(|limit| match arguments.rate {
        Rate::Paced(_) => limit + pace::overtime(limit),
        Rate::Max => limit,
    });
    let deadline = deadline.map(|deadline| deadline.as_nanos() as u64);
    let all_flows = flows.len() as u64;
    let live: Vec<CachePadded<Live>> = (0..arguments.threads)
        .map(|_| CachePadded::default())
        .collect();
    let goal = arguments
        .time_limit()
        .map_or_else(|| Goal::Metrics(planned.unwrap_or_default()), Goal::Time);
    let mut progress =
        (!arguments.quiet && io::stderr().is_terminal()).then(|| Progress::new(goal));

    let (still_sending, all_done) = bounded::<()>(0);
    let start = Instant::now() + LEAD_IN;
    let clock = WallClock::starting_at(start);
    let account = thread::scope(|scope| {
        let mut rest = flows;
        let mut threads = Vec::new();
        for (share, live) in shares(all_flows as u32, arguments.threads).zip(&live) {
            let own;
            (own, rest) = rest.split_at_mut(share.len());
            let schedule = match arguments.rate {
                Rate::Paced(rate) => Some(Schedule::new(rate, own.len() as u64, all_flows)),
                Rate::Max => None,
            };
            let still_sending = still_sending.clone();
            threads.push(scope.spawn(move || {
                let _still_sending = still_sending;
                clock.wait_for_start();
                sender::run(own, schedule, deadline, &clock, stop, live)
            }));
        }
        drop(still_sending);
        // Nothing is ever sent through it: it is disconnected when the last thread is done.
        while let Err(RecvTimeoutError::Timeout) = all_done.recv_timeout(progress::PERIOD) {
            if let Some(progress) = &mut progress {
                progress.draw(start.elapsed(), &live);
            }
        }
        let mut account = Account::default();
        for thread in threads {
            account.merge(&joined(thread));
        }
        account
    });
    if let Some(progress) = progress {
        progress.clear();
    }
    let tried = account.sent.metrics() + account.failed.metrics();
    let interrupted = stop.load(Ordering::Relaxed) && planned.is_none_or(|planned| tried < planned);
    (account, interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_shared_among_threads_without_gap() {
        assert_eq!(shares(5, 2).collect::<Vec<_>>(), [0..2, 2..5]);
        assert_eq!(shares(3, 3).collect::<Vec<_>>(), [0..1, 1..2, 2..3]);
        let all: Vec<u32> = shares(60_000, 7).flatten().collect();
        assert_eq!(all, (0..60_000).collect::<Vec<_>>());
    }
}
