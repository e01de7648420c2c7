//! Deliver: a thread for each backend, fed with snapshots.
//!
//! A backend is an encoder, which is pure, and a sink. It knows snapshots and nothing upstream of
//! them; it may be slow or dead, and only its own flushes suffer for it.

pub mod console;
pub mod graphite;
pub mod inspector;
pub mod number;
pub mod outbox;
pub mod repeater;
pub mod sink;
pub mod status;

use crate::metric::meter::Outside;
use crate::metric::snapshot::Snapshot;
use crate::runtime::clock::{Clock, monotonic_ms};
use crate::runtime::log::RateLimit;
use crate::runtime::stdout;
use crossbeam::channel::{Receiver, bounded};
use graphite::Graphite;
use outbox::Outbox;
use status::Status;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// A backend with its options; the name is the one the config file uses.
#[derive(Debug, Clone, PartialEq)]
pub enum Backend {
    /// Readable text on standard output.
    Console(console::Options),
    /// Plaintext lines or pickled lists over TCP to carbon.
    Graphite(graphite::Options),
    /// Every packet as it came, to other servers.
    Repeater(repeater::Options),
}

impl Backend {
    /// The backend's name in the config file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Console(_) => "console",
            Self::Graphite(_) => "graphite",
            Self::Repeater(_) => "repeater",
        }
    }
}

/// The running backends.
#[derive(Debug)]
pub struct Runners {
    running: Vec<Runner>,
    outside: Arc<Outside>,
}

#[derive(Debug)]
struct Runner {
    status: Arc<Status>,
    queue: Receiver<Arc<Snapshot>>,
    /// Closed when the thread is through with its queue.
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

/// Starts a thread for each backend. Returns the outboxes, which the flusher fills, and the threads.
///
/// # Errors
/// When the system has no thread to give.
pub fn start(
    backends: &[Backend],
    clock: &Clock,
    outside: &Arc<Outside>,
) -> io::Result<(Vec<Outbox>, Runners)> {
    let mut outboxes = Vec::new();
    let mut running = Vec::new();
    for backend in backends {
        let (outbox, queue) = Outbox::new(outside.clone());
        let (closes_when_done, done) = bounded::<()>(0);
        let (backend, clock, outside, snapshots) = (
            backend.clone(),
            clock.clone(),
            outside.clone(),
            queue.clone(),
        );
        let status = Arc::new(Status::new(backend.name()));
        let told = status.clone();
        let thread = std::thread::Builder::new()
            .name(backend.name().into())
            .spawn(move || {
                let _closes_when_done = closes_when_done;
                run(&backend, &clock, &outside, &snapshots, &told);
            })?;
        outboxes.push(outbox);
        running.push(Runner {
            status,
            queue,
            done,
            thread,
        });
    }
    Ok((
        outboxes,
        Runners {
            running,
            outside: outside.clone(),
        },
    ))
}

impl Runners {
    /// What each backend says of itself, in the order of the configuration.
    pub fn statuses(&self) -> Vec<Arc<Status>> {
        self.running
            .iter()
            .map(|runner| runner.status.clone())
            .collect()
    }

    /// Waits until every backend has delivered what is queued, at most until the deadline. The
    /// outboxes must have been dropped. What is left then is counted as dropped; returns how many
    /// flushes were dropped since the start, for whatever reason.
    pub fn finish(self, deadline: Instant) -> u64 {
        let mut dropped = 0;
        for runner in self.running {
            if runner
                .done
                .recv_deadline(deadline)
                .is_err_and(|error| error.is_timeout())
            {
                // The one in its hands, and those behind it.
                let left = 1 + runner.queue.len() as u64;
                log::error!(
                    "backend {}: flushes not delivered before the stop deadline and lost: {left}; \
                     a longer `stopDeadline` gives it more time",
                    runner.status.backend()
                );
                dropped += left;
            } else if runner.thread.join().is_err() {
                log::error!(
                    "backend {}: its thread panicked; flushes may be lost",
                    runner.status.backend()
                );
            }
        }
        self.outside.flushes_dropped.add(dropped);
        self.outside.flushes_dropped.total()
    }
}

fn run(
    backend: &Backend,
    clock: &Clock,
    outside: &Outside,
    snapshots: &Receiver<Arc<Snapshot>>,
    status: &Status,
) {
    match backend {
        Backend::Console(_) => {
            run_each(
                outside,
                snapshots,
                "console: standard output",
                "the redirection",
                |snapshot| {
                    let mut text = Vec::new();
                    console::encode(snapshot, &mut text);
                    stdout::write(text)
                },
            );
        }
        // It is fed with packets, not with snapshots.
        Backend::Repeater(_) => snapshots.iter().for_each(drop),
        Backend::Graphite(options) => {
            let mut graphite = Graphite::new(options, clock.clone());
            graphite.tell(status);
            let destination = format!("graphite: {}", graphite.destination());
            run_each(
                outside,
                snapshots,
                &destination,
                "graphiteHost and graphitePort",
                |snapshot| {
                    let delivered = graphite.deliver(snapshot);
                    graphite.tell(status);
                    delivered
                },
            );
        }
    }
}

fn run_each(
    outside: &Outside,
    snapshots: &Receiver<Arc<Snapshot>>,
    destination: &str,
    setting: &str,
    mut deliver: impl FnMut(&Snapshot) -> io::Result<()>,
) {
    let complaints = RateLimit::new();
    let mut failing_since: Option<Instant> = None;
    for snapshot in snapshots {
        match deliver(&snapshot) {
            Ok(()) => {
                outside.flushes_delivered.add(1);
                if let Some(since) = failing_since.take() {
                    log::info!(
                        "{destination} is back after {} s",
                        since.elapsed().as_secs()
                    );
                }
            }
            Err(error) => {
                outside.flushes_dropped.add(1);
                failing_since.get_or_insert_with(Instant::now);
                if let Some(suppressed) = complaints.pass(monotonic_ms()) {
                    let more = if suppressed == 0 {
                        String::new()
                    } else {
                        format!(" [{suppressed} more since the last report]")
                    };
                    log::error!(
                        "{destination}: a flush was lost: {error}; {}{more}",
                        sink::hint(&error, setting)
                    );
                }
            }
        }
    }
}
