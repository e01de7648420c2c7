//! What two processes say to each other at a takeover, as any bytes: refused, or read and written as the same.

use crate::damage::crc32;
use statsd_fast::takeover::format::{self, Damaged};
use statsd_fast::takeover::message::{HEAD, Message, body_length};

/// The first byte is the kind of a message; the rest is what it says, or as it is what is carried over.
pub(crate) fn check(input: &[u8]) {
    let Some((kind, body)) = input.split_first() else {
        return;
    };
    // No search finds a checksum, so here it is right.
    let head = sealed(*kind, body);
    assert_eq!(body_length(&head), body.len() as u64);
    if let Some(message) = read(Message::decode(head, body)) {
        let written = message.encode();
        let (head, body) = written.split_first_chunk::<HEAD>().expect("a head");
        let again = Message::decode(*head, body).expect("it was written by us");
        // NaN is in none of them.
        assert_eq!(again, message);
        let mut head = *head;
        head[HEAD - 1] ^= 1;
        assert!(Message::decode(head, body).is_err(), "another checksum");
    }
    if let Some((carried, totals)) = read(format::decode(body)) {
        let written = format::encode(&carried, totals.as_ref());
        let (again, totals) = format::decode(&written).expect("it was written by us");
        // A set has its members in no order.
        assert_eq!(format::encode(&again, totals.as_ref()).len(), written.len());
    }
}

fn read<T>(decoded: Result<T, Damaged>) -> Option<T> {
    decoded
        .inspect_err(|Damaged(why)| assert!(!why.is_empty()))
        .ok()
}

/// The head of a message of this kind with this body.
fn sealed(kind: u8, body: &[u8]) -> [u8; HEAD] {
    let begin = [&[kind][..], &(body.len() as u64).to_le_bytes()].concat();
    let crc = crc32(&[&begin, body].concat());
    let head = [&begin, &crc.to_le_bytes()[..]].concat();
    head.try_into().expect("a head")
}
