//! Ingest: a pinned thread, one source, one table. The hot loop, on one screen.
//!
//! On the sample path there is no lock, no atomic read-modify-write, no log, no clock and no
//! configuration look-up, and memory is asked for only by a name never seen, a timer's growth or a
//! new set member.

pub mod name;
pub mod number;
pub mod packet;
pub mod parse;
pub mod scan;
pub mod source;
pub mod table;

use crate::metric::cell::Stamp;
use crate::metric::harvest::Harvest;
use crate::metric::sample::Sample;
use crate::runtime::clock::monotonic_ns;
use crate::runtime::stop::Stop;
use crate::runtime::sys::thread::precise_sleep;
use crossbeam::channel::Sender;
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use packet::Batch;
use source::Source;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use table::Table;

/// How lines are read. See README, "Protocol".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// The reference's protocol, to the bit, except that what crashes it is a bad line.
    #[default]
    Statsd,
    /// The reference's documented protocol with DogStatsD added.
    Auto,
}

/// What a worker needs to know besides its source.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How lines are read.
    pub dialect: Dialect,
    /// Clean names as the reference does (`keyNameSanitize`).
    pub sanitize_names: bool,
    /// Raw samples a timer keeps per interval before it becomes a histogram (`exactSamples`).
    pub exact_samples: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dialect: Dialect::Statsd,
            sanitize_names: true,
            exact_samples: 1024,
        }
    }
}

/// Datagrams taken in one call to the kernel. More gains nothing measurable.
const BATCH: usize = 64;

/// Samples read ahead of their look-ups when the table is large.
const AHEAD: usize = 64;

/// Rest after the receive call failed.
const RECEIVE_ERROR_PAUSE: Duration = Duration::from_millis(1);

/// How long a stopping worker goes on when senders do not: past this, what comes is left unread.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// The lines between a worker and the flusher.
#[derive(Debug, Clone)]
pub struct Link {
    /// Number of the harvest the flusher wants. Written by the flusher only, at a tick; read by
    /// every worker once a batch. Relaxed is enough: it carries no data, the harvest that answers
    /// it goes through the channel.
    pub epoch: Arc<CachePadded<AtomicU64>>,
    /// Full harvests. Bounded; there is room for one of each worker.
    pub full: Sender<Harvest>,
    /// Empty ones, for reuse.
    pub empty: Arc<ArrayQueue<Harvest>>,
    /// The order to stop.
    pub stop: Stop,
}

/// Takes datagrams until told to stop, then what is queued, and hands over a last harvest.
pub fn run(
    worker: usize,
    mut source: impl Source,
    mut table: Table,
    max_datagram: usize,
    link: &Link,
) {
    precise_sleep();
    let mut batch = Batch::new(BATCH, max_datagram);
    let mut answered = 0;
    while !link.stop.requested() {
        let asked = link.epoch.load(Ordering::Relaxed);
        if asked != answered && hand_over(worker, asked, &mut source, &mut table, link) {
            answered = asked;
        }
        if source.receive(&mut batch).is_err() {
            table.tally.receive_errors += 1;
            // An error that stays must not turn into a busy loop.
            std::thread::sleep(RECEIVE_ERROR_PAUSE);
        }
        record(&batch, &mut table);
    }
    let until = Instant::now() + DRAIN_MAX;
    while source.drain(&mut batch).is_ok() && batch.received() > 0 && Instant::now() < until {
        record(&batch, &mut table);
    }
    hand_over(worker, u64::MAX, &mut source, &mut table, link);
}

/// Everything that happens to a datagram, in order.
#[inline]
pub fn record(batch: &Batch, table: &mut Table) {
    if batch.received() == 0 {
        return;
    }
    table.begin_batch(Stamp(monotonic_ns()));
    if table.is_large() {
        let mut ahead = Vec::with_capacity(AHEAD);
        read(batch, table, |table, sample| {
            if ahead.len() == AHEAD {
                ahead
                    .drain(..)
                    .for_each(|(sample, hash)| table.record_hashed(&sample, hash));
            }
            let hash = table.hash(&sample);
            ahead.push((sample, hash));
        });
        ahead
            .drain(..)
            .for_each(|(sample, hash)| table.record_hashed(&sample, hash));
    } else {
        read(batch, table, |table, sample| table.record(&sample));
    }
}

/// Reads every line of a batch and keeps the accounts; good samples go on to `take`.
#[inline]
fn read<'a>(batch: &'a Batch, table: &mut Table, mut take: impl FnMut(&mut Table, Sample<'a>)) {
    for packet in batch.packets() {
        table.tally.packets += 1;
        table.tally.bytes += packet.bytes.len() as u64;
        table.tally.truncated += u64::from(packet.truncated);
        let lines = parse::packet(packet.whole_lines(), |result, line| match result {
            Ok(sample) => take(table, sample),
            Err(reason) => table.reject(reason, line),
        });
        table.tally.lines += lines;
    }
}

/// Sends the flusher what was collected. `false` when its channel is full: then the worker goes on
/// collecting into the same table and tries again at the next batch; nothing is lost by it.
fn hand_over(
    worker: usize,
    epoch: u64,
    source: &mut impl Source,
    table: &mut Table,
    link: &Link,
) -> bool {
    if link.full.is_full() {
        return false;
    }
    let mut harvest = link.empty.pop().unwrap_or_default();
    table.tally.kernel_drops += source.kernel_drops();
    table.harvest(&mut harvest);
    harvest.worker = worker;
    harvest.epoch = epoch;
    // Closed only when the flusher is gone, and then nobody is left to count for.
    link.full.send(harvest).is_ok()
}
