//! Ready datagrams for every flow, and threads that send them.

use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use crossbeam::channel::{RecvTimeoutError, bounded};
use crossbeam::utils::CachePadded;

use crate::account::Account;
use crate::pace::{self, Rate, Schedule, WallClock};
use crate::progress::{self, Goal, Progress};
use crate::random::Names;
use crate::report::RingSize;
use crate::ring::Ring;
use crate::sender::{self, Flow, Live};
use crate::shape::Shape;
use crate::traffic::Traffic;
use crate::wire::Line;

/// Lets all threads be ready when the schedule starts.
const LEAD_IN: Duration = Duration::from_millis(10);

/// The datagrams of all flows. They can be sent as often as wanted.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) shape: Shape,
    pub(crate) names: Names,
    rings: Vec<Ring>,
    threads: u32,
    gso: bool,
}

/// How to send a load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) rate: Rate,
    /// How long; `None` when the load has an end.
    pub(crate) time_limit: Option<Duration>,
    /// Draw a line of progress, when there is a terminal.
    pub(crate) progress: bool,
    /// Where the threads run; `None` leaves it to the kernel.
    pub(crate) core: Option<CoreId>,
}

impl Load {
    /// Fills the rings, as many at a time as there are threads. `planned` lines are to be sent in all;
    /// `None` when only time ends a run.
    pub(crate) fn make(traffic: &Traffic, planned: Option<u64>) -> Self {
        let shape = traffic.shape();
        let names = Names::new(shape.names, shape.distribution);
        let flows = u64::from(traffic.flows());
        let budget = usize::try_from(traffic.ring_bytes / flows).unwrap_or(usize::MAX);
        let make = |flow: u64| {
            let quota = planned.map(|planned| planned / flows + u64::from(flow < planned % flows));
            Ring::new(&shape, &names, flow, budget, quota)
        };
        let make = &make;
        let shares: Vec<_> = shares(traffic.flows(), traffic.threads).collect();
        let rings = thread::scope(|scope| {
            let threads: Vec<_> = shares
                .into_iter()
                .map(|flows| {
                    scope.spawn(move || flows.map(|flow| make(flow.into())).collect::<Vec<_>>())
                })
                .collect();
            threads.into_iter().flat_map(joined).collect()
        });
        Self {
            shape,
            names,
            rings,
            threads: traffic.threads,
            gso: traffic.gso,
        }
    }

    /// How much was made.
    pub(crate) fn size(&self) -> RingSize {
        RingSize {
            payload: self.rings.iter().map(|ring| ring.payload() as u64).sum(),
            datagrams: self.rings.iter().map(|ring| ring.len() as u64).sum(),
            lines: self.rings.iter().map(Ring::lines).sum(),
        }
    }

    /// Length of the longest datagram, in bytes.
    pub(crate) fn longest(&self) -> usize {
        self.rings.iter().map(Ring::longest).max().unwrap_or(0)
    }

    /// Fewest and most lines of a datagram.
    pub(crate) fn lines_each(&self) -> (u64, u64) {
        let each = self.rings.iter().map(Ring::lines_each);
        each.fold((u64::MAX, 0), |(fewest, most), (few, many)| {
            (fewest.min(few), most.max(many))
        })
    }

    /// A new source socket for each flow.
    pub(crate) fn connect(&self, to: SocketAddr) -> anyhow::Result<Vec<Flow<'_, Line>>> {
        // Of one size, as was checked; only a cut one is shorter.
        let segment = self.gso.then(|| self.longest() as u16);
        let flow = |ring| Ok(Flow::new(Line::connect(to, segment)?, ring));
        self.rings.iter().map(flow).collect()
    }

    /// Sends through the flows; returns the account and whether it was stopped early.
    pub(crate) fn send(
        &self,
        flows: &mut [Flow<'_, Line>],
        run: &Run,
        stop: &AtomicBool,
    ) -> (Account, bool) {
        let deadline = run.time_limit.map(|limit| match run.rate {
            // Without an end nothing is overdue: what is due later is not sent.
            Rate::Paced(_) if self.planned().is_some() => limit + pace::overtime(limit),
            _ => limit,
        });
        let deadline = deadline.map(|deadline| deadline.as_nanos() as u64);
        let all_flows = flows.len() as u64;
        let live: Vec<CachePadded<Live>> =
            (0..self.threads).map(|_| CachePadded::default()).collect();
        let goal = run.time_limit.map_or_else(
            || Goal::Lines(self.planned().unwrap_or_default()),
            Goal::Time,
        );
        let mut progress =
            (run.progress && io::stderr().is_terminal()).then(|| Progress::new(goal));

        let (still_sending, all_done) = bounded::<()>(0);
        let start = Instant::now() + LEAD_IN;
        let clock = WallClock::starting_at(start);
        let account = thread::scope(|scope| {
            let mut rest = flows;
            let mut threads = Vec::new();
            for (share, live) in shares(all_flows as u32, self.threads).zip(&live) {
                let own;
                (own, rest) = rest.split_at_mut(share.len());
                let schedule = match run.rate {
                    Rate::Paced(rate) => Some(Schedule::new(rate, own.len() as u64, all_flows)),
                    Rate::Max => None,
                };
                let still_sending = still_sending.clone();
                threads.push(scope.spawn(move || {
                    let _still_sending = still_sending;
                    // Unpinned it sends as well; who asked for a core checked that it is there.
                    run.core.map(core_affinity::set_for_current);
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
        let tried = account.sent.lines() + account.failed.lines();
        let all = self.planned().is_some_and(|planned| tried >= planned);
        (account, stop.load(Ordering::Relaxed) && !all)
    }

    /// Lines to send in all; `None` when only time ends a run.
    fn planned(&self) -> Option<u64> {
        let quotas = self.rings.iter().map(Ring::quota);
        quotas
            .reduce(u64::saturating_add)
            .filter(|planned| *planned < u64::MAX)
    }
}

/// The flows of each thread, consecutive and as equal as can be.
fn shares(flows: u32, threads: u32) -> impl Iterator<Item = std::ops::Range<u32>> {
    let start =
        move |thread: u32| (u64::from(thread) * u64::from(flows) / u64::from(threads)) as u32;
    (0..threads).map(move |thread| start(thread)..start(thread + 1))
}

/// A panic in a thread is a panic of the program.
pub(crate) fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
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
