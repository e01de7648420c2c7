//! NOUN: what one call to the kernel brought.

use std::ops::Range;

/// Longest payload UDP can carry; a slot of this size never cuts a datagram.
pub const DATAGRAM_MAX: usize = 65_535;

/// Packets received together: datagrams, or pieces of streams that end in whole lines. The only way to
/// their bytes is [`Batch::packets`], which knows how many were filled, so that a short batch cannot show
/// what an earlier one left behind.
#[derive(Debug)]
pub struct Batch {
    arena: Box<[u8]>,
    slots: usize,
    /// Distance between slots: an odd number of cache lines, so that the datagrams of a batch do
    /// not all compete for the same cache sets as they would 64 KiB apart.
    stride: usize,
    room: usize,
    filled: Vec<Filled>,
}

/// One slot the source filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled {
    /// Where its bytes lie in the arena.
    pub bytes: Range<usize>,
    /// The datagram was longer than the slot.
    pub truncated: bool,
}

/// One datagram, or whole lines of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its payload.
    pub bytes: &'a [u8],
    /// It was cut: the last line is not whole.
    pub truncated: bool,
}

impl Batch {
    /// Room for `slots` datagrams of at most `room` bytes. The memory is only reserved; the kernel
    /// touches what a datagram needs.
    pub fn new(slots: usize, room: usize) -> Self {
        let lines = room.div_ceil(64) + 1;
        let stride = 64 * (lines + usize::from(lines.is_multiple_of(2)));
        Self {
            arena: vec![0; stride * slots].into_boxed_slice(),
            slots,
            stride,
            room,
            filled: Vec::with_capacity(slots),
        }
    }

    /// How many datagrams fit.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// How many there are.
    pub fn received(&self) -> usize {
        self.filled.len()
    }

    /// The datagrams.
    #[inline]
    pub fn packets(&self) -> impl Iterator<Item = Packet<'_>> {
        self.filled.iter().map(|filled| Packet {
            bytes: &self.arena[filled.bytes.clone()],
            truncated: filled.truncated,
        })
    }

    /// For sources: forgets the datagrams and lends memory, slot size, slot distance and the list to
    /// note what was filled.
    pub fn refill(&mut self) -> Refill<'_> {
        self.filled.clear();
        Refill {
            arena: &mut self.arena,
            slots: self.slots,
            stride: self.stride,
            room: self.room,
            filled: &mut self.filled,
        }
    }
}

/// An emptied batch in the hands of a source.
#[derive(Debug)]
pub struct Refill<'a> {
    /// Memory of all slots.
    pub arena: &'a mut [u8],
    /// How many slots.
    pub slots: usize,
    /// Bytes from one slot to the next.
    pub stride: usize,
    /// Bytes a slot holds.
    pub room: usize,
    /// What the source filled.
    pub filled: &'a mut Vec<Filled>,
}

impl<'a> Packet<'a> {
    /// The part that may be read as lines: all of it, or up to the last newline when it was cut.
    #[inline]
    pub fn whole_lines(&self) -> &'a [u8] {
        if !self.truncated {
            return self.bytes;
        }
        let end = self
            .bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        &self.bytes[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refilled_batch_shows_only_what_was_filled() {
        let mut batch = Batch::new(4, 100);
        for round in [3, 1] {
            let refill = batch.refill();
            for slot in 0..round {
                let start = slot * refill.stride;
                refill.arena[start] = b'0' + round as u8;
                refill.filled.push(Filled {
                    bytes: start..start + 1,
                    truncated: false,
                });
            }
            let expected = vec![[b'0' + round as u8]; round];
            assert_eq!(
                batch
                    .packets()
                    .map(|p| p.bytes.to_vec())
                    .collect::<Vec<_>>(),
                expected
            );
        }
        batch.refill();
        assert_eq!(batch.packets().count(), 0);
    }

    #[test]
    fn a_cut_datagram_loses_its_incomplete_line_only() {
        let packet = |bytes, truncated| Packet { bytes, truncated };
        assert_eq!(packet(b"a:1|c\nb:2|", true).whole_lines(), b"a:1|c\n");
        assert_eq!(packet(b"a:1|c\nb:2|", false).whole_lines(), b"a:1|c\nb:2|");
        assert_eq!(packet(b"a:1|c", true).whole_lines(), b"");
    }
}
