//! Datagrams as busy senders pack them: lines of known shapes, up to 1432 bytes together.
#![allow(dead_code)]

use statsd_fast::ingest::packet::{Batch, Filled};

/// Payload of a datagram that fits an Ethernet frame.
pub(crate) const PAYLOAD: usize = 1432;

/// `n` lines made by `line`, packed; and how many values that is.
pub(crate) fn packed(n: usize, line: fn(usize) -> String) -> (Vec<Vec<u8>>, u64) {
    (joined((0..n).map(line)), n as u64)
}

/// Lines, packed.
pub(crate) fn joined(lines: impl Iterator<Item = impl AsRef<str>>) -> Vec<Vec<u8>> {
    let mut datagrams = vec![Vec::new()];
    for line in lines {
        let line = line.as_ref().as_bytes();
        if datagrams
            .last()
            .is_some_and(|last| last.len() + line.len() + 1 > PAYLOAD)
        {
            datagrams.push(Vec::new());
        }
        let last = datagrams.last_mut().expect("one was there");
        if !last.is_empty() {
            last.push(b'\n');
        }
        last.extend_from_slice(line);
    }
    datagrams
}

/// A name of 34 bytes or so. The numbers are shuffled, so that a table is not walked in order.
pub(crate) fn name(n: usize) -> String {
    let shuffled = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
    format!("prod.api.host{:04}.latency.{n:06}", shuffled % 10_000)
}

/// A counter.
pub(crate) fn counter(n: usize) -> String {
    format!("{}:{}|c", name(n), n % 9 + 1)
}

/// A counter with rate and DogStatsD tags.
pub(crate) fn tagged(n: usize) -> String {
    format!(
        "{}:{}|c|@0.5|#env:prod,region:eu-west-1,host:h{:04}",
        name(n),
        n % 9 + 1,
        n % 100
    )
}

/// 60 % counters, 25 % timers, 10 % gauges, 5 % sets.
pub(crate) fn mix(n: usize) -> String {
    match n % 20 {
        0..12 => counter(n),
        12..17 => format!("{}:{}.{:02}|ms", name(n), n % 977, n % 100),
        17..19 => format!("{}:{}|g", name(n), n % 5000),
        _ => format!("{}:user{}|s", name(n), n % 500),
    }
}

/// The datagrams as the kernel would hand them over: one batch.
pub(crate) fn batch(datagrams: &[Vec<u8>]) -> Batch {
    let mut batch = Batch::new(datagrams.len(), PAYLOAD);
    fill(&mut batch, datagrams);
    batch
}

/// The same into a batch that is there.
pub(crate) fn fill(batch: &mut Batch, datagrams: &[Vec<u8>]) {
    let refill = batch.refill();
    for (slot, datagram) in datagrams.iter().enumerate() {
        let bytes = slot * refill.stride..slot * refill.stride + datagram.len();
        refill.arena[bytes.clone()].copy_from_slice(datagram);
        refill.filled.push(Filled {
            bytes,
            truncated: false,
        });
    }
}
