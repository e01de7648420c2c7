//! Where the delimiters are: `:`, `|` and newline, found 64 bytes at a time.
//!
//! One of the two files that may hold `unsafe` (the other is `runtime::sys`). The SSE2 mask is part
//! of every x86-64, so nothing is detected at run time; other targets take the portable one, which
//! tests hold equal to it, and so does every target with `--cfg statsd_fast_portable` (`.ci/portable`).

/// Bytes looked at in one go.
pub const BLOCK: usize = 64;

/// The positions of `:`, `|` and newline in a run of bytes, ascending, handed out one by one.
#[derive(Debug)]
pub struct Marks<'a> {
    bytes: &'a [u8],
    /// Start of the block `mask` describes.
    base: usize,
    /// Delimiters of that block not handed out yet, the lowest bit first.
    mask: u64,
}

impl<'a> Marks<'a> {
    /// Starts at the first byte.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::from(bytes, 0)
    }

    /// Starts at `base`, which may be the end.
    pub fn from(bytes: &'a [u8], base: usize) -> Self {
        let mut marks = Self {
            bytes,
            base,
            mask: 0,
        };
        marks.load();
        marks
    }

    /// Starts at `base`, where the block there has the delimiters `mask`.
    #[inline(always)]
    pub fn resumed(bytes: &'a [u8], base: usize, mask: u64) -> Self {
        Self { bytes, base, mask }
    }

    /// Position of the next delimiter; the length of the bytes once there is none, as often as asked.
    #[inline(always)]
    pub fn next_mark(&mut self) -> usize {
        while self.mask == 0 {
            if self.base + BLOCK >= self.bytes.len() {
                return self.bytes.len();
            }
            self.base += BLOCK;
            self.load();
        }
        let position = self.base + self.mask.trailing_zeros() as usize;
        self.mask &= self.mask - 1;
        position.min(self.bytes.len())
    }

    #[inline]
    fn load(&mut self) {
        self.mask = at(self.bytes, self.base, mask);
    }
}

/// What `mask` says of the block at `base`; past the end nothing is found.
#[inline(always)]
fn at(bytes: &[u8], base: usize, mask: impl Fn(&[u8; BLOCK]) -> u64) -> u64 {
    let rest = bytes.get(base..).unwrap_or_default();
    match rest.first_chunk::<BLOCK>() {
        Some(block) => mask(block),
        None => {
            let mut block = [0; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            mask(&block)
        }
    }
}

/// Where the tags that begin at `from` end: at the next `|` or newline, or with the bytes.
#[inline]
pub fn end_of_tags(bytes: &[u8], from: usize) -> usize {
    let mut base = from;
    while base < bytes.len() {
        let found = at(bytes, base, ends);
        if found != 0 {
            return base + found.trailing_zeros() as usize;
        }
        base += BLOCK;
    }
    bytes.len()
}

/// Colon, pipe, newline.
const DELIMITERS: [u8; 3] = [b':', b'|', b'\n'];

/// One bit for each byte of the block that is a delimiter, the first byte lowest.
#[inline]
pub fn mask(block: &[u8; BLOCK]) -> u64 {
    found(block, DELIMITERS)
}

/// The same in plain Rust: the twin the fast one is tested against, and what other targets use.
#[inline]
pub fn mask_portable(block: &[u8; BLOCK]) -> u64 {
    found_portable(block, DELIMITERS)
}

/// One bit for each byte of the block that ends tags, the first byte lowest.
#[inline]
fn ends(block: &[u8; BLOCK]) -> u64 {
    found(block, [b'|', b'\n'])
}

/// One bit for each byte of the block that is one of those wanted.
#[cfg(all(target_arch = "x86_64", not(statsd_fast_portable)))]
#[inline(always)]
fn found<const N: usize>(block: &[u8; BLOCK], wanted: [u8; N]) -> u64 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
        _mm_setzero_si128,
    };
    let mut mask = 0;
    for quarter in 0..4 {
        let bytes = &block[quarter * 16..quarter * 16 + 16];
        // JUSTIFICATION: benches/parse.rs, scan/sse2 against scan/portable (figures in tuning.md).
        // SAFETY: `bytes` is 16 readable bytes, `loadu` needs no alignment, and SSE2 is part of
        // the x86-64 baseline, so the intrinsics exist wherever this is compiled.
        #[allow(unsafe_code)]
        let found = unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast::<__m128i>());
            let mut any = _mm_setzero_si128();
            for byte in wanted {
                any = _mm_or_si128(any, _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8)));
            }
            _mm_movemask_epi8(any)
        };
        mask |= u64::from(found as u32) << (quarter * 16);
    }
    mask
}

#[cfg(not(all(target_arch = "x86_64", not(statsd_fast_portable))))]
use found_portable as found;

#[inline]
fn found_portable<const N: usize>(block: &[u8; BLOCK], wanted: [u8; N]) -> u64 {
    block.iter().enumerate().fold(0, |mask, (at, byte)| {
        mask | u64::from(wanted.contains(byte)) << at
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn marks(bytes: &[u8]) -> Vec<usize> {
        let mut marks = Marks::new(bytes);
        std::iter::from_fn(|| Some(marks.next_mark()).filter(|at| *at < bytes.len())).collect()
    }

    #[test]
    fn every_offset_of_a_block_is_found() {
        for len in 0..200 {
            for at in 0..len {
                for delimiter in [b':', b'|', b'\n'] {
                    let mut bytes = vec![b'x'; len];
                    bytes[at] = delimiter;
                    assert_eq!(marks(&bytes), [at]);
                }
            }
        }
    }

    #[test]
    fn the_end_is_the_length_as_often_as_asked() {
        for len in [0, 1, 63, 64, 65, 128] {
            let bytes = vec![b'x'; len];
            let mut marks = Marks::new(&bytes);
            assert_eq!((marks.next_mark(), marks.next_mark()), (len, len));
        }
    }

    proptest! {
        #[test]
        fn both_masks_agree(block in proptest::array::uniform32(any::<u16>())) {
            let mut bytes = [0; BLOCK];
            for (pair, word) in bytes.chunks_mut(2).zip(block) {
                pair.copy_from_slice(&word.to_le_bytes());
            }
            prop_assert_eq!(mask(&bytes), mask_portable(&bytes));
        }

        #[test]
        fn tags_end_where_a_byte_loop_finds_their_end(
            bytes in proptest::collection::vec(
                prop_oneof![8 => any::<u8>(), 1 => Just(b':'), 1 => Just(b'|'), 1 => Just(b'\n')],
                0..200,
            ),
            from in 0..210usize,
        ) {
            let from = from.min(bytes.len());
            let rest = bytes[from..].iter().position(|byte| matches!(byte, b'|' | b'\n'));
            prop_assert_eq!(end_of_tags(&bytes, from), rest.map_or(bytes.len(), |at| from + at));
            let all = marks(&bytes);
            let mut later = Marks::from(&bytes, from);
            let next = all.into_iter().find(|at| *at >= from);
            prop_assert_eq!(later.next_mark(), next.unwrap_or(bytes.len()));
        }

        #[test]
        fn marks_are_where_a_byte_loop_finds_them(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b':'), Just(b'|'), Just(b'\n'), any::<u8>()],
                0..300,
            ),
        ) {
            let plain: Vec<usize> = bytes.iter().enumerate()
                .filter(|(_, b)| matches!(b, b':' | b'|' | b'\n')).map(|(at, _)| at).collect();
            prop_assert_eq!(marks(&bytes), plain);
        }
    }
}
