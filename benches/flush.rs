//! From harvests to what backends send, each step (`merge/…`, `statistics/{exact,histogram}`,
//! `graphite/…`, `librato/…`) and the whole way to Graphite on one core: `flush/{counters/1M,timers/100k}`.
//! Throughput is in names, for Librato in measurements.
#![allow(missing_docs)]

mod traffic;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;
use statsd_fast::deliver::graphite::{self, Encoder};
use statsd_fast::deliver::librato::{self, measure};
use statsd_fast::flush::{self, Flusher, Link, merge::State, statistics::Statistics};
use statsd_fast::metric::cell::Timer;
use statsd_fast::metric::harvest::{Harvest, Part, TimerPart};
use statsd_fast::metric::registry::{NameId, Registry};
use statsd_fast::metric::sample::Kind;
use statsd_fast::metric::snapshot::{self, Counter, Snapshot};
use statsd_fast::runtime::clock::{Clock, Manual};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn merging(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge/counters");
    group.sample_size(10);
    for (size, names) in [("100k", 100_000u32), ("1M", 1_000_000)] {
        let registry = Registry::new();
        for n in 0..names {
            registry.id(Kind::Counter, &traffic::name(n as usize));
        }
        let mut state = State::new(&flush::Options::default());
        let harvest = || Harvest {
            counters: (0..names)
                .map(|n| Part {
                    id: NameId(n),
                    hits: 1,
                    cell: 1.0,
                })
                .collect(),
            ..Harvest::default()
        };
        state.absorb(&mut harvest());
        state.catch_up(&registry);
        assert_eq!(
            state.counters.living().map(|(_, sum)| *sum).sum::<f64>(),
            f64::from(names)
        );
        group.throughput(Throughput::Elements(u64::from(names)));
        group.bench_function(size, |b| {
            b.iter_custom(|rounds| {
                (0..rounds).fold(Duration::ZERO, |spent, _| {
                    let mut harvest = harvest();
                    let began = Instant::now();
                    state.absorb(&mut harvest);
                    spent + began.elapsed()
                })
            });
        });
    }
}

fn computing(c: &mut Criterion) {
    let mut group = c.benchmark_group("statistics");
    group.throughput(Throughput::Elements(1));
    for (name, samples) in [
        ("exact/100", 100u32),
        ("exact/1000", 1000),
        ("histogram/100000", 100_000),
    ] {
        let mut timer = Timer::default();
        for n in 0..samples {
            timer.record(
                f64::from(n * 7919 % 10_007) / 8.0,
                1.0,
                1024,
                &mut Vec::new(),
            );
        }
        let mut statistics = Statistics::new(&flush::Options::default());
        let fields = statistics.fields();
        let mut out = Vec::new();
        statistics.of("t", &mut timer.clone(), &mut out);
        let count = out
            .iter()
            .find(|s| fields[s.field as usize] == "count")
            .expect("a count");
        assert_eq!(count.value, f64::from(samples));
        group.bench_function(name, |b| {
            b.iter_batched(
                || timer.clone(),
                |mut timer| {
                    out.clear();
                    statistics.of("t", &mut timer, &mut out);
                    timer
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
}

fn encoding(c: &mut Criterion) {
    let names = 100_000;
    let counters = |value: fn(usize) -> f64| {
        (0..names)
            .map(|n| Counter {
                name: traffic::name(n).into(),
                value: value(n),
                rate: value(n) / 10.0,
            })
            .collect()
    };
    let mut group = c.benchmark_group("graphite/counters");
    group.throughput(Throughput::Elements(names as u64));
    for (shape, counters) in [
        ("integers", counters(|n| (n * 10) as f64)),
        ("decimals", counters(|n| n as f64 / 7.0)),
    ] {
        let snapshot = Snapshot {
            timestamp: 1_795_344_335,
            counters,
            ..Snapshot::default()
        };
        let encoder = Encoder::new(&graphite::Options::default());
        let mut out = Vec::new();
        encoder.encode(&snapshot, &mut out);
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 2 * names + 3);
        group.bench_function(shape, |b| {
            b.iter(|| {
                out.clear();
                encoder.encode(black_box(&snapshot), &mut out);
            });
        });
    }
}

/// An element is a measurement.
fn measuring(c: &mut Criterion) {
    let names = 100_000;
    let counters = |name: fn(usize) -> String, value: fn(usize) -> f64| Snapshot {
        counters: (0..names)
            .map(|n| Counter {
                name: name(n).into(),
                value: value(n),
                rate: value(n) / 10.0,
            })
            .collect(),
        ..Snapshot::default()
    };
    let tagged = |n| format!("{}#service=web,node={}", traffic::name(n), n % 100);
    let folded = |n| format!("{};service=web;node={}", traffic::name(n), n % 100);
    let timers = 10_000;
    let of_timers = Snapshot {
        timers: (0..timers)
            .map(|n| snapshot::Timer {
                name: traffic::name(n).into(),
                samples: n * 10..(n + 1) * 10,
                ..snapshot::Timer::default()
            })
            .collect(),
        samples: (0..timers * 10).map(|n| (n % 10) as f64 / 8.0).collect(),
        ..Snapshot::default()
    };
    let mut group = c.benchmark_group("librato");
    for (shape, folded_tags, snapshot, measurements) in [
        (
            "integers",
            false,
            counters(traffic::name, |n| (n * 10) as f64),
            names,
        ),
        (
            "decimals",
            false,
            counters(traffic::name, |n| n as f64 / 7.0),
            names,
        ),
        ("tags", false, counters(tagged, |n| (n * 10) as f64), names),
        ("folded", true, counters(folded, |n| (n * 10) as f64), names),
        ("timers", false, of_timers, 2 * timers),
    ] {
        let mut encoder = measure::Encoder::new(&librato::Options {
            folded_tags,
            ..librato::Options::default()
        });
        let encoded = encoder.encode(&snapshot, false);
        let posts = encoded.batches.iter();
        assert_eq!(
            posts.map(|post| post.measurements).sum::<usize>(),
            measurements
        );
        group.throughput(Throughput::Elements(measurements as u64));
        group.bench_function(shape, |b| {
            b.iter(|| encoder.encode(black_box(&snapshot), false));
        });
    }
}

/// Samples of each timer in an interval.
const SAMPLES: u32 = 100;

fn counters_of_an_interval(names: u32, harvest: &mut Harvest) {
    let part = |n| Part {
        id: NameId(n),
        hits: 1,
        cell: f64::from(n % 9 + 1),
    };
    // The first three are the server's own.
    harvest.counters.extend((3..names + 3).map(part));
}

fn timers_of_an_interval(names: u32, harvest: &mut Harvest) {
    let part = |n| TimerPart {
        id: NameId(n),
        hits: SAMPLES,
        samples: SAMPLES as usize,
        weight: f64::from(SAMPLES),
        weights: 0,
        histogram: None,
    };
    harvest.timers.extend((0..names).map(part));
    let sample = |n: u32| f64::from(n.wrapping_mul(7919) % 10_007) / 8.0;
    harvest.samples.extend((0..names * SAMPLES).map(sample));
}

/// The whole way of an interval, from a worker's harvest to the text for carbon.
fn flushing(c: &mut Criterion) {
    type Interval = fn(u32, &mut Harvest);
    let mut group = c.benchmark_group("flush");
    group.sample_size(10);
    for (name, kind, names, interval, lines, shown) in [
        (
            "counters/1M",
            Kind::Counter,
            1_000_000,
            counters_of_an_interval as Interval,
            2,
            format!("stats_counts.{} 6 ", traffic::name(2)),
        ),
        (
            "timers/100k",
            Kind::Timer,
            100_000,
            timers_of_an_interval,
            14,
            format!("stats.timers.{}.count 100 ", traffic::name(2)),
        ),
    ] {
        let registry = Arc::new(Registry::new());
        let empty = Arc::new(ArrayQueue::new(1));
        let link = Link {
            epoch: Arc::default(),
            full: crossbeam::channel::never(),
            empty: Arc::clone(&empty),
            workers: Vec::new(),
        };
        let clock = Clock::Manual(Manual::new(1_795_344_335_000));
        let options = flush::Options::default();
        let mut flusher = Flusher::new(options, clock, registry.clone(), link, Arc::default());
        for n in 0..names {
            registry.id(kind, &traffic::name(n as usize));
        }
        let encoder = Encoder::new(&graphite::Options::default());
        let mut out = Vec::new();
        let mut round = || {
            let mut harvest = empty.pop().unwrap_or_default();
            interval(names, &mut harvest);
            out.clear();
            let began = Instant::now();
            flusher.absorb(harvest);
            let snapshot = flusher.flush();
            encoder.encode(&snapshot, &mut out);
            // Freeing the snapshot is the affair of who sends it.
            let spent = began.elapsed();
            let all = out.iter().filter(|byte| **byte == b'\n').count();
            // A few lines are about the server itself.
            let of_names = lines * names as usize;
            assert!((of_names..of_names + 100).contains(&all), "{all} lines");
            let text = std::str::from_utf8(&out).expect("Graphite is sent text");
            assert!(text.contains(&shown), "no {shown:?}");
            spent
        };
        group.throughput(Throughput::Elements(names.into()));
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| round()).sum::<Duration>());
        });
    }
}

criterion_group!(benches, merging, computing, encoding, measuring, flushing);
criterion_main!(benches);
