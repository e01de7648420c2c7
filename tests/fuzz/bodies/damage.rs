//! Checksums, and damage that they have to show.

/// The checksum of Ethernet and zip, bit by bit.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    !crc
}

/// What is written of an input, with some of its bytes changed: it is refused, unless nothing is another byte.
/// `written` is what a body comes to, `is_read` whether bytes are taken, and `survives` looks at those that may be.
pub(crate) fn damage(
    input: &[u8],
    written: impl Fn(&[u8]) -> Option<Vec<u8>>,
    is_read: impl Fn(&[u8]) -> bool,
    survives: impl Fn(&[u8]),
) {
    let (count, rest) = input.split_first().unwrap_or((&0, &[]));
    let (edits, body) = rest.split_at((usize::from(count % 8) * 3).min(rest.len()));
    let Some(good) = written(body) else {
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
        None => assert!(is_read(&bad)),
        Some((first, last)) if last - first < 4 => assert!(!is_read(&bad)),
        Some(_) => survives(&bad),
    }
    if let Some(cut) = edits.first().map(|cut| usize::from(*cut) % good.len()) {
        assert!(!is_read(&good[..cut]), "cut at {cut}");
    }
}
