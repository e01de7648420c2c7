//! Receive, parse and record, over a real socket: `receive/{single,packed}`, which discards what it drains,
//! and `ingest/{single,packed,packed-100k,mix}`, which does all that a worker does. Throughput is in values.
//!
//! The worker's own source is filled by sendmmsg(2), and only emptying it is timed. Both happen on one core,
//! so that what is received is still in its caches: over a network it costs more.
#![allow(missing_docs)]

mod traffic;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use statsd_fast::ingest::packet::Batch;
use statsd_fast::ingest::source::inherited::Inherited;
use statsd_fast::ingest::source::{AnySource, Listen, Source, udp};
use statsd_fast::ingest::{self, Options, table::Table};
use statsd_fast::metric::harvest::{Harvest, Tally};
use statsd_fast::metric::registry::Registry;
use statsd_fast::metric::sample::Kind;
use statsd_fast::runtime::sys::send::{MAX_BATCH, send_batch};
use std::io::IoSlice;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Datagrams that wait when a worker comes back from a nap. Even the buffer that a kernel grants everybody,
/// 208 KiB, holds so many of a full frame.
const QUEUED: usize = 2 * MAX_BATCH;

/// Values of timers after which an interval ends, as in `table`.
const INTERVAL: u64 = 500_000;

/// A worker's socket, and somebody who sends to it.
struct Queue {
    source: AnySource,
    batch: Batch,
    sender: UdpSocket,
}

impl Queue {
    fn bind() -> Self {
        let options = udp::Options {
            address: Some("127.0.0.1".into()),
            port: 0,
            ..udp::Options::default()
        };
        let mut listener = Listen::Udp(options)
            .bind(&[0], &mut Inherited::default())
            .expect("a port");
        let source = listener.sources.pop().expect("a source");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = listener.address.socket().expect("it has a port");
        sender.connect(address).expect("loopback has a route");
        Self {
            batch: source.batch(),
            source,
            sender,
        }
    }

    fn fill(&self, datagrams: &[IoSlice<'_>]) {
        let mut rest = datagrams;
        while !rest.is_empty() {
            let sent = send_batch(&self.sender, rest).expect("loopback takes it");
            rest = &rest[sent..];
        }
    }

    /// Takes in what was sent, as a worker that comes back from a nap does.
    fn drain(&mut self, datagrams: usize, mut take_in: impl FnMut(&Batch)) -> Duration {
        let mut taken = 0;
        let began = Instant::now();
        loop {
            while self.source.drain(&mut self.batch).expect("it can be read") {
                taken += self.batch.received();
                take_in(&self.batch);
            }
            if taken >= datagrams {
                break;
            }
            // What was sent is there by now, unless the kernel was kept from bringing it.
            assert_eq!(self.drops(), 0, "{taken} of {datagrams} came");
        }
        let spent = began.elapsed();
        assert_eq!(taken, datagrams);
        spent
    }

    /// What the kernel dropped since this was last asked.
    fn drops(&mut self) -> u64 {
        let mut tally = Tally::default();
        self.source.account(&mut tally);
        tally.kernel_drops
    }
}

/// What becomes of what was received.
struct Worker {
    table: Table,
    harvest: Harvest,
    tally: Tally,
}

impl Worker {
    fn new() -> Self {
        Self {
            table: Table::new(&Options::default(), Arc::new(Registry::new())),
            harvest: Harvest::default(),
            tally: Tally::default(),
        }
    }

    fn take_in(&mut self, batch: &Batch) {
        ingest::record(batch, &mut self.table);
        if self.table.tally.recorded[Kind::Timer as usize] >= INTERVAL {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        self.harvest.clear();
        self.table.harvest(&mut self.harvest);
        self.tally.add(&self.harvest.tally);
    }

    /// Datagrams and values since this was last asked.
    fn counted(&mut self) -> (u64, u64) {
        self.hand_over();
        let tally = std::mem::take(&mut self.tally);
        assert_eq!(tally.rejected_total(), 0);
        (tally.packets, tally.recorded.iter().sum())
    }
}

/// One counter in each datagram.
fn single(names: usize) -> (Vec<Vec<u8>>, u64) {
    let datagrams = (0..names).map(|n| traffic::counter(n).into_bytes());
    (datagrams.collect(), names as u64)
}

/// Measures taking these datagrams in; without a worker they are only received.
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    (datagrams, values): (Vec<Vec<u8>>, u64),
    mut worker: Option<Worker>,
) {
    // Mostly queues of full length, however few the datagrams are.
    let passes = (8 * QUEUED).div_ceil(datagrams.len());
    let slices: Vec<_> = datagrams.iter().map(|bytes| IoSlice::new(bytes)).collect();
    let slices = slices.repeat(passes);
    let values = passes as u64 * values;
    let mut queue = Queue::bind();
    group.throughput(Throughput::Elements(values));
    group.bench_function(name, |b| {
        b.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                for queued in slices.chunks(QUEUED) {
                    queue.fill(queued);
                    spent += queue.drain(queued.len(), |batch| {
                        if let Some(worker) = &mut worker {
                            worker.take_in(batch);
                        }
                    });
                }
            }
            if let Some(worker) = &mut worker {
                let sent = (rounds * slices.len() as u64, rounds * values);
                assert_eq!(worker.counted(), sent, "{name}");
            }
            spent
        });
    });
    assert_eq!(queue.drops(), 0, "{name}");
}

fn receiving(c: &mut Criterion) {
    let mut group = c.benchmark_group("receive");
    let packed = traffic::packed(1000, traffic::counter);
    measure(&mut group, "single", single(1000), None);
    measure(&mut group, "packed", packed, None);
}

fn ingesting(c: &mut Criterion) {
    let mut group = c.benchmark_group("ingest");
    let packed = traffic::packed;
    for (name, datagrams) in [
        ("single", single(1000)),
        ("packed", packed(1000, traffic::counter)),
        ("packed-100k", packed(100_000, traffic::counter)),
        ("mix", packed(1000, traffic::mix)),
    ] {
        measure(&mut group, name, datagrams, Some(Worker::new()));
    }
}

criterion_group!(benches, receiving, ingesting);
criterion_main!(benches);
