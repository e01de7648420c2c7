//! Spooled flushes of any bytes: refused, or whole, and then they are written as they were read and can be sent.

use statsd_fast::deliver::graphite::{self, Encoder};
use statsd_fast::deliver::spool::record::{decode, encode};

/// What every record begins with, and its version.
const HEAD: &[u8] = b"SFFLUSH\n\x01\0\0\0";

/// The first byte says what the rest is.
pub(crate) fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    match kind % 3 {
        0 => drop(survives(rest)),
        // No search finds a checksum, so here it is right.
        1 => drop(survives(&sealed(rest))),
        _ => damage(rest),
    }
}

/// A record with these bytes behind its head.
fn sealed(body: &[u8]) -> Vec<u8> {
    let head = [HEAD, &(body.len() as u64).to_le_bytes()].concat();
    let crc = crc32(&[&head, body].concat());
    [&head, &crc.to_le_bytes()[..], body].concat()
}

/// The checksum of Ethernet and zip, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    !crc
}

/// What is read is written in a way that is read as the same, and can be sent.
fn survives(bytes: &[u8]) -> Option<Vec<u8>> {
    let snapshot = match decode(bytes) {
        Ok(snapshot) => snapshot,
        Err(refusal) => {
            assert!(!refusal.to_string().is_empty());
            return None;
        }
    };
    let text = encode(&snapshot);
    let again = decode(&text).expect("it was written by us");
    assert_eq!(again.sets, snapshot.sets);
    // A set has its members in no order.
    if snapshot.sets.iter().all(|set| set.members.len() < 2) {
        assert_eq!(encode(&again), text);
    }
    for protocol in [graphite::Protocol::Text, graphite::Protocol::Pickle] {
        let encoder = Encoder::new(&graphite::Options {
            protocol,
            ..graphite::Options::default()
        });
        let mut sent = Vec::new();
        encoder.encode(&snapshot, &mut sent);
    }
    Some(text)
}

/// A record as it was written, and some of its bytes changed: it is refused, unless nothing is another byte.
fn damage(input: &[u8]) {
    let (count, rest) = input.split_first().unwrap_or((&0, &[]));
    let (edits, body) = rest.split_at((usize::from(count % 8) * 3).min(rest.len()));
    let Some(good) = survives(&sealed(body)) else {
        return;
    };
    let mut bad = good.clone();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bad.len();
        bad[at] = edit[2];
    }
    // A checksum of 32 bits finds whatever is within 32 bits of another; of what is farther apart, nearly all.
    let first = good.iter().zip(&bad).position(|(good, bad)| good != bad);
    let last = good.iter().zip(&bad).rposition(|(good, bad)| good != bad);
    match first.zip(last) {
        None => assert!(decode(&bad).is_ok()),
        Some((first, last)) if last - first < 4 => assert!(decode(&bad).is_err()),
        Some(_) => drop(survives(&bad)),
    }
    if let Some(cut) = edits.first().map(|cut| usize::from(*cut) % good.len()) {
        assert!(decode(&good[..cut]).is_err(), "cut at {cut}");
    }
}
