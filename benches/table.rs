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
use std::sync::Arc;

fn table() -> Table {
    Table::new(&Options::default(), Arc::new(Registry::new()))
}

/// Datagrams a source takes at once.
const BATCH: usize = 64;

/// The datagrams as the kernel would hand them over: full batches.
fn batches(datagrams: &[Vec<u8>]) -> Vec<Batch> {
    datagrams.chunks(BATCH).map(traffic::batch).collect()
}

fn record(table: &mut Table, batches: &[Batch]) {
    batches
        .iter()
        .for_each(|batch| ingest::record(batch, table));
}

/// Values each round records, of names drawn at random: so many that no branch predictor learns them by
/// heart, as it does a thousand that come again and again in the same order.
const VALUES: usize = 500_000;

/// [`VALUES`] lines of `names` names.
fn drawn(names: usize, line: fn(usize) -> String) -> Vec<Vec<u8>> {
    let lines: Vec<String> = (0..names).map(line).collect();
    let mut state = 1u64;
    let mut draw = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        &lines[(state >> 33) as usize % names][..]
    };
    traffic::joined((0..VALUES).map(&mut draw))
}

const SIZES: [(&str, usize); 3] = [("1k", 1_000), ("100k", 100_000), ("1M", 1_000_000)];

fn recording(c: &mut Criterion) {
    for (shape, line) in [
        ("counters", traffic::counter as fn(usize) -> String),
        ("mix", traffic::mix),
    ] {
        let mut group = c.benchmark_group(format!("table/{shape}"));
        for (size, names) in SIZES {
            let mut table = table();
            record(&mut table, &batches(&traffic::packed(names, line).0));
            assert_eq!(table.spellings(), names);
            let datagrams = drawn(names, line);
            let mut batch = Batch::new(BATCH, traffic::PAYLOAD);
            let mut harvest = Harvest::default();
            group.throughput(Throughput::Elements(VALUES as u64));
            group.sample_size(if names >= 1_000_000 { 10 } else { 50 });
            group.bench_function(size, |b| {
                b.iter_custom(|rounds| {
                    let mut spent = std::time::Duration::ZERO;
                    for _ in 0..rounds {
                        table.harvest(&mut harvest);
                        harvest.clear();
                        for datagrams in datagrams.chunks(BATCH) {
                            // Into the same memory, as the kernel does it.
                            traffic::fill(&mut batch, datagrams);
                            let began = std::time::Instant::now();
                            ingest::record(&batch, &mut table);
                            spent += began.elapsed();
                        }
                        assert_eq!(table.tally.recorded.iter().sum::<u64>(), VALUES as u64);
                    }
                    spent
                });
            });
            assert_eq!(table.spellings(), names);
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
