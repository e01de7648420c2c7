//! What a name is spelled with, in the form a table compares: kind, length and up to 46 bytes, as six
//! words, read and compared without a branch or a loop. A longer spelling has its hash there, and its bytes
//! are compared after.

use super::scan::BLOCK;
use crate::metric::sample::{Kind, Sample};
use foldhash::fast::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Longest spelling, tags included, that a key holds itself.
const SHORT: usize = 46;

/// Stands between name and tags. No name holds a newline.
const TAGS_FOLLOW: u8 = b'\n';

/// Bytes of a key: those of a spelling, zeros, and the tag.
const BYTES: usize = 48;
const WORDS: usize = BYTES / 8;

/// The tag are the topmost 16 bits of the last word: length and one, kind, and whether the spelling is long.
const TAG_SHIFT: u32 = 8 * SHORT as u32 % 64;
const KIND_SHIFT: u32 = TAG_SHIFT + 8;
const LONG: u64 = 1 << 63;

/// Ones, then zeros: the 48 bytes from `BYTES - n` on keep the first `n` bytes of others.
const KEEP: [u8; 2 * BYTES] = {
    let mut keep = [0; 2 * BYTES];
    let mut at = 0;
    while at < BYTES {
        keep[at] = 0xff;
        at += 1;
    }
    keep
};

/// Kind and spelling. All zero is no key.
#[derive(Debug, Clone, Copy, Default)]
pub struct Key([u64; WORDS]);

impl Key {
    /// The key of a spelling that is the first `len` bytes, at most [`SHORT`], of `window`.
    #[inline(always)]
    fn short(kind: Kind, window: &[u8; BLOCK], len: usize) -> Self {
        let bytes = window.first_chunk::<BYTES>().expect("a block is longer");
        let keep = KEEP[BYTES - len..].first_chunk::<BYTES>();
        let keep = keep.expect("as many bytes follow, for any length");
        let word = |bytes: &[u8; BYTES], at: usize| {
            let bytes = bytes[8 * at..8 * at + 8].try_into();
            u64::from_le_bytes(bytes.expect("eight bytes"))
        };
        let mut words = [0; WORDS];
        for (at, kept) in words.iter_mut().enumerate() {
            *kept = word(bytes, at) & word(keep, at);
        }
        words[WORDS - 1] |= (len as u64 + 1) << TAG_SHIFT | (kind as u64) << KIND_SHIFT;
        Self(words)
    }

    /// The key of a spelling that is longer.
    fn long(kind: Kind, hash: u64, name: usize, tags: usize) -> Self {
        let tag = LONG | (kind as u64) << KIND_SHIFT;
        Self([hash, name as u64, tags as u64, 0, 0, tag])
    }

    /// Whether this is the key of nothing.
    #[inline(always)]
    pub fn is_none(&self) -> bool {
        self.0[WORDS - 1] == 0
    }

    /// Whether the spelling is not in the key.
    #[inline(always)]
    pub fn is_long(&self) -> bool {
        self.0[WORDS - 1] & LONG != 0
    }

    /// Whose key it is.
    #[inline(always)]
    pub fn kind(&self) -> Kind {
        Kind::ALL[(self.0[WORDS - 1] >> KIND_SHIFT & 3) as usize]
    }

    /// The same key of a long spelling, which lies at so many bytes of an arena.
    pub fn at(mut self, start: usize) -> Self {
        self.0[3] = start as u64;
        self
    }

    /// Where a long spelling lies in its arena: name and tags.
    pub fn place(&self) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let [_, name, tags, start, ..] = self.0.map(|word| word as usize);
        (start..start + name, start + name..start + name + tags)
    }
}

impl PartialEq for Key {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let words = self.0.iter().zip(&other.0);
        words.fold(0, |apart, (a, b)| apart | (a ^ b)) == 0
    }
}

impl Eq for Key {}

/// Turns keys into hashes. Seeded at random, so that no sender can aim at one slot of a table.
#[derive(Debug, Clone)]
pub struct Seeds {
    words: [u64; WORDS + 1],
    state: RandomState,
}

impl Seeds {
    /// Others each time.
    pub fn random() -> Self {
        let state = RandomState::default();
        Self {
            words: std::array::from_fn(|at| state.hash_one(at)),
            state,
        }
    }

    /// The same for the same number: what a sender could reckon with if seeds were not random.
    #[cfg(test)]
    pub fn known(number: u64) -> Self {
        let state = foldhash::fast::FixedState::with_seed(number);
        Self {
            words: std::array::from_fn(|at| state.hash_one(at)),
            state: RandomState::default(),
        }
    }

    /// Multiplication to 128 bits, folded: each bit of the product depends on all of both.
    #[inline(always)]
    fn fold(a: u64, b: u64) -> u64 {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    }

    /// Where a table looks for a key first.
    #[inline(always)]
    pub fn hash(&self, key: &Key) -> u64 {
        if key.is_long() {
            return key.0[0];
        }
        let (words, seeds) = (&key.0, &self.words);
        let pair = |at: usize| Self::fold(words[at] ^ seeds[at], words[at + 1] ^ seeds[at + 1]);
        Self::fold(pair(0) ^ pair(2).rotate_left(32), pair(4) ^ seeds[WORDS])
    }

    /// What a sample is spelled with. `window` begins with the bytes of its line.
    #[inline(always)]
    pub fn spelling<'a>(&self, sample: &Sample<'a>, window: &[u8; BLOCK]) -> Spelling<'a> {
        let (name, tags, kind) = (sample.name, sample.tags, sample.value.kind());
        debug_assert!(window.starts_with(&name[..name.len().min(BLOCK)]));
        let key = if name.len() <= SHORT && tags.is_empty() {
            Key::short(kind, window, name.len())
        } else {
            self.odd(kind, name, tags)
        };
        Spelling {
            key,
            hash: self.hash(&key),
            name,
            tags,
        }
    }

    /// The key of a spelling that is long or has tags.
    fn odd(&self, kind: Kind, name: &[u8], tags: &[u8]) -> Key {
        let len = name.len() + usize::from(!tags.is_empty()) + tags.len();
        if len <= SHORT {
            let mut window = [TAGS_FOLLOW; BLOCK];
            window[..name.len()].copy_from_slice(name);
            window[len - tags.len()..len].copy_from_slice(tags);
            return Key::short(kind, &window, len);
        }
        let mut hasher = self.state.build_hasher();
        hasher.write(name);
        hasher.write(tags);
        hasher.write_u8(kind as u8);
        Key::long(kind, hasher.finish(), name.len(), tags.len())
    }
}

/// A key with its hash, and the bytes it stands for as they lie in the datagram.
#[derive(Debug, Clone, Copy)]
pub struct Spelling<'a> {
    /// What is compared.
    pub key: Key,
    /// Of the key.
    pub hash: u64,
    /// The name.
    pub name: &'a [u8],
    /// The tags.
    pub tags: &'a [u8],
}
