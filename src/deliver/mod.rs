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
mod runner;
pub mod sink;
pub mod status;

use crate::metric::meter::Outside;
use crate::runtime::clock::{Clock, rounded_seconds};
use crate::runtime::stdout;
use crossbeam::channel::{Receiver, bounded};
use graphite::Graphite;
use outbox::{Limits, Outbox, Queue};
use runner::{run_each, run_until_delivered};
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
    queue: Queue,
    /// Closed when the thread is through with its queue.
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

/// Empties the outbox of a thread that ends, by a panic too: what comes later is counted, not kept.
struct Abandons(Queue);

impl Drop for Abandons {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// Starts a thread for each backend. Returns the outboxes, which the flusher fills, and the threads.
///
/// # Errors
/// When the system has no thread to give.
pub fn start(
    backends: &[Backend],
    limits: Limits,
    clock: &Clock,
    outside: &Arc<Outside>,
) -> io::Result<(Vec<Outbox>, Runners)> {
    let mut outboxes = Vec::new();
    let mut running = Vec::new();
    for backend in backends {
        let (outbox, queue) = Outbox::new(backend.name(), limits, outside.clone());
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
                let _abandons = Abandons(snapshots.clone());
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
        for runner in self.running {
            if runner
                .done
                .recv_deadline(deadline)
                .is_err_and(|error| error.is_timeout())
            {
                let left = runner.queue.abandon();
                if left > 0 {
                    log::error!(
                        "backend {}: flushes not delivered before the stop deadline and lost: {left}; \
                         a longer `stopDeadline` gives it more time",
                        runner.status.backend()
                    );
                }
            } else if runner.thread.join().is_err() {
                log::error!(
                    "backend {}: its thread panicked; flushes may be lost",
                    runner.status.backend()
                );
            }
        }
        self.outside.flushes_dropped.total()
    }
}

fn run(backend: &Backend, clock: &Clock, outside: &Outside, snapshots: &Queue, status: &Status) {
    match backend {
        Backend::Console(options) => {
            let now = || rounded_seconds(clock.now_ms());
            status.set(&[("lastFlush", now()), ("lastException", now())]);
            run_each(
                outside,
                snapshots,
                "console: standard output",
                "the redirection",
                |snapshot| {
                    let mut text = Vec::new();
                    console::encode(snapshot, options, &mut text);
                    let written = stdout::write(text);
                    let changed = if written.is_ok() {
                        "lastFlush"
                    } else {
                        "lastException"
                    };
                    status.set(&[(changed, now())]);
                    written
                },
            );
        }
        // It is fed with packets, not with snapshots.
        Backend::Repeater(_) => {
            while snapshots.next().is_some() {
                snapshots.done();
            }
        }
        Backend::Graphite(options) => {
            let mut graphite = Graphite::new(options, clock.clone());
            graphite.tell(status);
            let destination = format!("graphite: {}", graphite.destination());
            let setting = graphite.setting();
            run_until_delivered(outside, snapshots, &destination, setting, |snapshot| {
                let delivered = graphite.deliver(snapshot);
                graphite.tell(status);
                delivered
            });
            if let Err(error) = graphite.finish() {
                outside.flushes_dropped.add(1);
                log::error!(
                    "{destination}: the last flush may be lost: {error}; {}",
                    sink::hint(&error, setting)
                );
            }
        }
    }
}
