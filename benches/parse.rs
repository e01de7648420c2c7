//! Reading datagrams: `parse/{reference,plain,fast}/{short,tagged,mix}`, and the delimiter masks
//! below it, `scan/{portable,native}`. Throughput is in values.
//!
//! `reference` is the tests' oracle, `plain` the library's step-by-step reading, `fast` what runs.
#![allow(missing_docs)]

#[path = "../tests/reference/mod.rs"]
mod reference;
mod traffic;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use statsd_fast::ingest::{parse, scan};
use std::hint::black_box;

/// Values read, and those refused: what every way must agree on before it is measured.
fn count(mut read: impl FnMut(&[u8]) -> (u64, u64), datagrams: &[Vec<u8>]) -> (u64, u64) {
    datagrams
        .iter()
        .map(|d| read(d))
        .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
}

fn by_reference(datagram: &[u8]) -> (u64, u64) {
    let lines = datagram
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .flat_map(|line| reference::effects(line, true))
        .fold((0, 0), |(good, bad), effect| match effect {
            reference::Effect::Reject(_) => (good, bad + 1),
            _ => (good + 1, bad),
        })
}

fn by_plain(datagram: &[u8]) -> (u64, u64) {
    let (mut good, mut bad) = (0, 0);
    for line in datagram
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
    {
        parse::line(line, |result| {
            if black_box(result).is_ok() {
                good += 1
            } else {
                bad += 1
            }
        });
    }
    (good, bad)
}

fn by_fast(datagram: &[u8]) -> (u64, u64) {
    let (mut good, mut bad) = (0, 0);
    parse::packet(datagram, &mut |result: Result<_, _>| {
        if black_box(result).is_ok() {
            good += 1
        } else {
            bad += 1
        }
    });
    (good, bad)
}

fn parsing(c: &mut Criterion) {
    type Reader = fn(&[u8]) -> (u64, u64);
    let readers: [(&str, Reader); 3] = [
        ("reference", by_reference),
        ("plain", by_plain),
        ("fast", by_fast),
    ];
    for (shape, line) in [
        ("short", traffic::counter as fn(usize) -> String),
        ("tagged", traffic::tagged),
        ("mix", traffic::mix),
    ] {
        let (datagrams, values) = traffic::packed(1000, line);
        for (name, reader) in readers {
            assert_eq!(count(reader, &datagrams), (values, 0), "{name}/{shape}");
            let mut group = c.benchmark_group(format!("parse/{name}"));
            group.throughput(Throughput::Elements(values));
            group.bench_function(shape, |b| b.iter(|| count(reader, black_box(&datagrams))));
        }
    }
}

fn scanning(c: &mut Criterion) {
    type Mask = fn(&[u8; scan::BLOCK]) -> u64;
    let (datagrams, _) = traffic::packed(1000, traffic::counter);
    let blocks: Vec<[u8; scan::BLOCK]> = datagrams
        .iter()
        .flat_map(|d| d.chunks_exact(scan::BLOCK))
        .map(|b| b.try_into().expect("a block"))
        .collect();
    let marks = |mask: Mask, blocks: &[[u8; scan::BLOCK]]| {
        blocks
            .iter()
            .map(|block| mask(block).count_ones())
            .sum::<u32>()
    };
    let expected = blocks
        .as_flattened()
        .iter()
        .filter(|b| matches!(b, b':' | b'|' | b'\n'))
        .count();
    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Bytes(blocks.as_flattened().len() as u64));
    let masks: [(&str, Mask); 2] = [("portable", scan::mask_portable), ("native", scan::mask)];
    for (name, mask) in masks {
        assert_eq!(marks(mask, &blocks) as usize, expected);
        group.bench_function(name, |b| b.iter(|| marks(mask, black_box(&blocks))));
    }
}

criterion_group!(benches, parsing, scanning);
criterion_main!(benches);
