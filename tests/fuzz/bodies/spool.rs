//! Spooled flushes of any bytes: refused, or whole, and then they are written as they were read and can be sent.

use crate::damage::{crc32, damage};
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
        _ => damage(
            rest,
            |body| survives(&sealed(body)),
            |bytes| decode(bytes).is_ok(),
            |bytes| drop(survives(bytes)),
        ),
    }
}

/// A record with these bytes behind its head.
fn sealed(body: &[u8]) -> Vec<u8> {
    let head = [HEAD, &(body.len() as u64).to_le_bytes()].concat();
    let crc = crc32(&[&head, body].concat());
    [&head, &crc.to_le_bytes()[..], body].concat()
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
