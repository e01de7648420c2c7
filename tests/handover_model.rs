//! The hand-over of harvests in every order that its threads can take, as far as it differs: the workers' loop and
//! both ends of the hand-over are the server's own, [`ingest::serve`] and [`handover`]; what they meet in is loom's.
//!
//! | here | in the server |
//! |---|---|
//! | `Shared::number` | `epoch`, read and written as relaxed |
//! | `Shared::harvests` | the bounded channel `full`: first in, first out; sending waits for room; closed with its last sender |
//! | `Shared::emptied` | the queue `empty`, whose steps are not looked at: it does not matter who gets which |
//! | `Shared::stop` | the order to stop |
//! | `Inbox` | a socket and the eventfd beside it: a wake before the wait is kept, and what the waker did before is seen |
//! | `Worker::collected` | the table |
//! | [`Flusher::next`] of one that waits for nobody | a deadline that comes before anything else does |
//!
//! Loom looks at each way that threads can interleave when they are interrupted so often at most where they need not
//! be, and at each value that a relaxed read may see. What it could miss it is shown: every flaw below has to be
//! found.

use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use statsd_fast::ingest::packet::{Batch, Filled};
use statsd_fast::ingest::source::Source;
use statsd_fast::ingest::{self, Intake};
use statsd_fast::metric::handover::{Asking, Giving, Silence, collect, give};
use statsd_fast::metric::harvest::Tally;
use statsd_fast::runtime::sys::wake::Waker;
use std::collections::VecDeque;
use std::io;
use std::process::Command;

/// What is wrong with a hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    Nothing,
    /// Workers are woken before the number is raised.
    WakesTooEarly,
    /// The channel has room for one harvest.
    RoomForOne,
    /// An answer to an earlier number counts.
    CountsOldAnswers,
    /// Each answer counts as one of another worker.
    CountsAnswersTwice,
    /// Harvests go back with what was in them.
    EmptiesNothing,
}

/// How many datagrams.
#[derive(Debug, Default)]
struct Harvest {
    worker: usize,
    number: u64,
    datagrams: u64,
}

/// A socket, and the waker of who reads it.
#[derive(Debug, Default)]
struct Inbox {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    datagrams: u64,
    woken: bool,
}

impl Inbox {
    fn put(&self) {
        self.state.lock().unwrap().datagrams += 1;
        self.changed.notify_one();
    }

    fn wake(&self) {
        self.state.lock().unwrap().woken = true;
        self.changed.notify_one();
    }
}

/// What the threads share.
#[derive(Debug)]
struct Shared {
    flaw: Flaw,
    room: usize,
    number: AtomicU64,
    stop: AtomicBool,
    harvests: Mutex<Channel>,
    /// Something came, or went, or nobody sends any more.
    moved: Condvar,
    emptied: std::sync::Mutex<Vec<Harvest>>,
    inboxes: Vec<Inbox>,
}

#[derive(Debug)]
struct Channel {
    queue: VecDeque<Harvest>,
    senders: usize,
}

impl Shared {
    fn new(workers: usize, flaw: Flaw) -> Arc<Self> {
        let room = if flaw == Flaw::RoomForOne {
            1
        } else {
            2 * workers
        };
        Arc::new(Self {
            flaw,
            room,
            number: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            harvests: Mutex::new(Channel {
                queue: VecDeque::new(),
                senders: workers,
            }),
            moved: Condvar::new(),
            emptied: std::sync::Mutex::default(),
            inboxes: (0..workers).map(|_| Inbox::default()).collect(),
        })
    }

    fn wake_all(&self) {
        self.inboxes.iter().for_each(Inbox::wake);
    }

    /// The server's order to stop.
    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake_all();
    }
}

/// A worker's end.
struct Worker {
    worker: usize,
    shared: Arc<Shared>,
    tally: Tally,
    collected: u64,
}

impl Worker {
    fn start(worker: usize, shared: &Arc<Shared>) -> thread::JoinHandle<()> {
        let shared = shared.clone();
        thread::spawn(move || {
            let (tally, collected) = (Tally::default(), 0);
            let inbox = Reading(shared.clone(), worker);
            let intake = Self {
                worker,
                shared: shared.clone(),
                tally,
                collected,
            };
            ingest::serve(inbox, intake);
            shared.harvests.lock().unwrap().senders -= 1;
            shared.moved.notify_all();
        })
    }
}

impl Intake for Worker {
    fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    fn asked(&self) -> u64 {
        self.shared.number.load(Ordering::Relaxed)
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn take(&mut self, batch: &Batch) {
        self.collected += batch.received() as u64;
    }

    fn settle(&mut self) {}

    fn answer(&mut self, number: u64, _source: &mut impl Source) -> bool {
        give(&*self.shared, |harvest| {
            harvest.datagrams += std::mem::take(&mut self.collected);
            harvest.worker = self.worker;
            harvest.number = number;
        })
    }
}

impl Giving for Shared {
    type Load = Harvest;

    fn is_full(&self) -> bool {
        self.harvests.lock().unwrap().queue.len() == self.room
    }

    fn emptied(&self) -> Option<Harvest> {
        self.emptied.lock().unwrap().pop()
    }

    fn send(&self, harvest: Harvest) -> bool {
        let mut channel = self.harvests.lock().unwrap();
        while channel.queue.len() == self.room {
            channel = self.moved.wait(channel).unwrap();
        }
        channel.queue.push_back(harvest);
        self.moved.notify_all();
        true
    }
}

/// A worker's source: one datagram at a time.
struct Reading(Arc<Shared>, usize);

impl Reading {
    fn fill(&self, waiting: &mut Waiting, batch: &mut Batch) -> bool {
        let refill = batch.refill();
        if waiting.datagrams == 0 {
            return false;
        }
        waiting.datagrams -= 1;
        refill.filled.push(Filled {
            bytes: 0..1,
            truncated: false,
        });
        true
    }
}

impl Source for Reading {
    fn waker(&self) -> Waker {
        unreachable!("the inbox wakes")
    }

    fn batch(&self) -> Batch {
        Batch::new(1, 1)
    }

    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        let inbox = &self.0.inboxes[self.1];
        let mut waiting = inbox.state.lock().unwrap();
        while waiting.datagrams == 0 && !waiting.woken {
            waiting = inbox.changed.wait(waiting).unwrap();
        }
        waiting.woken = false;
        self.fill(&mut waiting, batch);
        Ok(())
    }

    fn drain(&mut self, batch: &mut Batch) -> io::Result<bool> {
        let inbox = &self.0.inboxes[self.1];
        Ok(self.fill(&mut inbox.state.lock().unwrap(), batch))
    }

    fn has_more(&self) -> bool {
        false
    }

    fn finish(&mut self) -> bool {
        false
    }

    fn account(&mut self, _tally: &mut Tally) {}
}

/// The flusher's end.
struct Flusher {
    shared: Arc<Shared>,
    patient: bool,
    total: u64,
    /// For the flaw that takes them for others.
    seen: usize,
}

impl Flusher {
    fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: shared.clone(),
            patient: true,
            total: 0,
            seen: 0,
        }
    }

    /// A tick: how many are late.
    fn collect(&mut self) -> usize {
        let workers = self.shared.inboxes.len();
        collect(self, workers)
    }

    /// What is there, as at the last flush.
    fn finish(mut self) -> u64 {
        while let Some(harvest) = self.pop() {
            self.take(harvest);
        }
        self.total
    }

    fn pop(&self) -> Option<Harvest> {
        let harvest = self.shared.harvests.lock().unwrap().queue.pop_front()?;
        self.shared.moved.notify_all();
        Some(harvest)
    }
}

impl Asking for Flusher {
    type Load = Harvest;

    fn ask(&mut self) -> u64 {
        let shared = &self.shared;
        if shared.flaw == Flaw::WakesTooEarly {
            shared.wake_all();
        }
        let number = shared.number.load(Ordering::Relaxed) + 1;
        shared.number.store(number, Ordering::Relaxed);
        if shared.flaw != Flaw::WakesTooEarly {
            shared.wake_all();
        }
        number
    }

    fn next(&mut self) -> Result<Harvest, Silence> {
        if !self.patient {
            return self.pop().ok_or(Silence::Late);
        }
        let mut channel = self.shared.harvests.lock().unwrap();
        let mut harvest = loop {
            if let Some(harvest) = channel.queue.pop_front() {
                break harvest;
            }
            if channel.senders == 0 {
                return Err(Silence::Ended);
            }
            channel = self.shared.moved.wait(channel).unwrap();
        };
        self.shared.moved.notify_all();
        self.seen += 1;
        match self.shared.flaw {
            Flaw::CountsOldAnswers => harvest.number = u64::MAX,
            Flaw::CountsAnswersTwice => {
                harvest.worker = (self.seen - 1) % self.shared.inboxes.len()
            }
            _ => {}
        }
        Ok(harvest)
    }

    fn answers(harvest: &Harvest) -> (usize, u64) {
        (harvest.worker, harvest.number)
    }

    fn take(&mut self, mut harvest: Harvest) {
        self.total += harvest.datagrams;
        if self.shared.flaw != Flaw::EmptiesNothing {
            harvest = Harvest::default();
        }
        self.shared.emptied.lock().unwrap().push(harvest);
    }
}

/// With threads interrupted so often at most where they need not be.
fn in_every_order(interrupted: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(interrupted);
    builder.check(test);
}

/// Two workers, a tick, and the stop.
fn ticks(flaw: Flaw) {
    in_every_order(2, move || {
        let shared = Shared::new(2, flaw);
        let workers: Vec<_> = (0..2)
            .map(|worker| Worker::start(worker, &shared))
            .collect();
        let mut flusher = Flusher::new(&shared);
        shared.inboxes[0].put();
        assert_eq!((flusher.collect(), flusher.total), (0, 1), "a tick");
        shared.inboxes[1].put();
        shared.stop();
        workers
            .into_iter()
            .for_each(|worker| worker.join().unwrap());
        assert_eq!(flusher.finish(), 2, "all in all");
    });
}

/// One worker that is late at a tick, a second tick, and the stop.
fn late(flaw: Flaw) {
    in_every_order(3, move || {
        let shared = Shared::new(1, flaw);
        let worker = Worker::start(0, &shared);
        let mut flusher = Flusher::new(&shared);
        shared.inboxes[0].put();
        flusher.patient = false;
        let late = flusher.collect();
        assert!(
            late == 1 || flusher.total == 1,
            "it was there before it was asked for"
        );
        shared.inboxes[0].put();
        flusher.patient = true;
        assert_eq!(
            (flusher.collect(), flusher.total),
            (0, 2),
            "the tick behind it"
        );
        shared.inboxes[0].put();
        shared.stop();
        worker.join().unwrap();
        assert_eq!(flusher.finish(), 3, "all in all");
    });
}

/// Some workers, and a stop that comes before, in or behind a tick.
fn stops(workers: usize, interrupted: usize, flaw: Flaw) {
    in_every_order(interrupted, move || {
        let shared = Shared::new(workers, flaw);
        shared.inboxes[workers - 1].put();
        let workers: Vec<_> = (0..workers)
            .map(|worker| Worker::start(worker, &shared))
            .collect();
        let flushing = {
            let mut flusher = Flusher::new(&shared);
            thread::spawn(move || {
                assert_eq!((flusher.collect(), flusher.total), (0, 1), "a tick");
                flusher
            })
        };
        shared.stop();
        workers
            .into_iter()
            .for_each(|worker| worker.join().unwrap());
        assert_eq!(flushing.join().unwrap().finish(), 1, "all in all");
    });
}

#[test]
fn a_tick_takes_what_was_there_and_the_stop_the_rest() {
    ticks(Flaw::Nothing);
}

#[test]
fn what_a_late_worker_has_comes_with_the_next_tick() {
    late(Flaw::Nothing);
}

#[test]
fn a_stop_at_any_point_loses_nothing() {
    stops(1, 3, Flaw::Nothing);
    stops(2, 1, Flaw::Nothing);
}

/// Loom cannot leave a deadlock but by aborting, so this one is found in a process of its own.
#[test]
fn a_worker_that_is_woken_too_early_sleeps_on() {
    const IN_A_PROCESS_OF_ITS_OWN: &str = "STATSD_FAST_TEST_DEADLOCK";
    if std::env::var_os(IN_A_PROCESS_OF_ITS_OWN).is_some() {
        return ticks(Flaw::WakesTooEarly);
    }
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--nocapture",
            "--exact",
            "a_worker_that_is_woken_too_early_sleeps_on",
        ])
        .env(IN_A_PROCESS_OF_ITS_OWN, "1")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("deadlock"),
        "{said}"
    );
}

#[test]
#[should_panic]
fn a_channel_without_room_for_all_loses_or_hangs() {
    ticks(Flaw::RoomForOne);
}

#[test]
#[should_panic(expected = "the tick behind it")]
fn an_old_answer_is_no_answer() {
    late(Flaw::CountsOldAnswers);
}

#[test]
#[should_panic(expected = "a tick")]
fn a_worker_that_stops_does_not_answer_for_another() {
    stops(2, 1, Flaw::CountsAnswersTwice);
}

#[test]
#[should_panic(expected = "all in all")]
fn what_was_taken_is_not_taken_again() {
    late(Flaw::EmptiesNothing);
}
