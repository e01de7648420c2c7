//! Parse and record together, as a worker does: `table/{counters,mix}/{1k,100k,1M}`; and handing an
//! interval over: `harvest/{1k,100k,1M}`. Throughput is in values, or in names.
#![allow(missing_docs)]

mod traffic;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use statsd_fast::ingest::packet::Batch;
use statsd_fast::ingest::table::Table;
use statsd_fast::ingest::{self, Options};
use statsd_fast::metric::harvest::Harvest;
use statsd_fast::metric::registry::Registry;
use std::hint::black_box;
use std::sync::Arc;

fn table() -> Table {
    Table::new(&Options::default(), Arc::new(Registry::new()))
}

/// The datagrams as the kernel would hand them over: full batches.
fn batches(datagrams: &[Vec<u8>]) -> Vec<Batch> {
    datagrams.chunks(64).map(traffic::batch).collect()
}

fn record(table: &mut Table, batches: &[Batch]) {
    batches
        .iter()
        .for_each(|batch| ingest::record(batch, table));
}

/// Datagrams in an order that no prefetcher guesses.
fn shuffled(mut datagrams: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut state = 1u64;
    for at in (1..datagrams.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        datagrams.swap(at, (state >> 33) as usize % (at + 1));
    }
    datagrams
}

const SIZES: [(&str, usize); 3] = [("1k", 1_000), ("100k", 100_000), ("1M", 1_000_000)];

fn recording(c: &mut Criterion) {
    for (shape, line) in [
        ("counters", traffic::counter as fn(usize) -> String),
        ("mix", traffic::mix),
    ] {
        let mut group = c.benchmark_group(format!("table/{shape}"));
        for (size, names) in SIZES {
            let (datagrams, values) = traffic::packed(names, line);
            let batches = batches(&shuffled(datagrams));
            let mut table = table();
            record(&mut table, &batches);
            assert_eq!(table.tally.recorded.iter().sum::<u64>(), values);
            assert_eq!(table.spellings(), names);
            let mut harvest = Harvest::default();
            group.throughput(Throughput::Elements(values));
            if names >= 1_000_000 {
                group.sample_size(10);
            }
            group.bench_function(size, |b| {
                b.iter(|| {
                    record(&mut table, black_box(&batches));
                    // An interval ends now and then, or timers would only ever grow.
                    if table.tally.recorded[1] > 500_000 {
                        harvest.clear();
                        table.harvest(&mut harvest);
                    }
                });
            });
        }
        group.finish();
    }
}

fn harvesting(c: &mut Criterion) {
    let mut group = c.benchmark_group("harvest");
    group.sample_size(10);
    for (size, names) in SIZES {
        let datagrams = batches(&traffic::packed(names, traffic::counter).0);
        let mut table = table();
        let mut harvest = Harvest::default();
        record(&mut table, &datagrams);
        table.harvest(&mut harvest);
        assert_eq!(harvest.counters.len(), names);
        group.throughput(Throughput::Elements(names as u64));
        group.bench_function(size, |b| {
            b.iter_custom(|rounds| {
                let mut spent = std::time::Duration::ZERO;
                for _ in 0..rounds {
                    record(&mut table, &datagrams);
                    harvest.clear();
                    let began = std::time::Instant::now();
                    table.harvest(&mut harvest);
                    spent += began.elapsed();
                }
                assert_eq!(harvest.counters.len(), names);
                spent
            });
        });
    }
}

criterion_group!(benches, recording, harvesting);
criterion_main!(benches);
