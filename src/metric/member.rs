//! NOUN: one member of a set.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// Bytes a member holds in itself.
const SHORT: usize = 22;

/// The bytes of a member. Most are short, and a short one is found without a second look at memory and kept
/// without asking for any.
#[derive(Clone)]
pub struct Member(Held);

#[derive(Clone)]
enum Held {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

const _: () = assert!(size_of::<Member>() == 24);

impl Member {
    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Held::Short { .. } => 0,
            Held::Long(bytes) => bytes.len(),
        }
    }
}

impl From<&[u8]> for Member {
    fn from(bytes: &[u8]) -> Self {
        if bytes.len() > SHORT {
            return Self(Held::Long(bytes.into()));
        }
        let mut short = [0; SHORT];
        short[..bytes.len()].copy_from_slice(bytes);
        Self(Held::Short {
            len: bytes.len() as u8,
            bytes: short,
        })
    }
}

impl Deref for Member {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Short { len, bytes } => &bytes[..usize::from(*len)],
            Held::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Member {
    fn borrow(&self) -> &[u8] {
        self
    }
}

/// That of the bytes, as looking one up by its bytes demands.
impl Hash for Member {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl PartialEq for Member {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Member {}

impl PartialOrd for Member {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Member {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(other)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.escape_ascii().to_string())
    }
}

#[cfg(test)]
mod tests {
    use crate::metric::cell::Members;

    #[test]
    fn members_of_every_length_are_found_by_their_bytes() {
        let mut members = Members::default();
        let all: Vec<Vec<u8>> = (0..60).map(|len| vec![b'm'; len]).collect();
        for bytes in &all {
            assert!(!members.contains(&bytes[..]));
            assert!(members.insert(bytes[..].into()));
            assert!(members.contains(&bytes[..]));
        }
        assert_eq!(members.len(), all.len());
        let mut sorted: Vec<_> = members.into_iter().collect();
        sorted.sort();
        let bytes: Vec<_> = sorted.iter().map(|member| member.to_vec()).collect();
        assert_eq!(bytes, all);
        assert_eq!((sorted[22].heap_bytes(), sorted[23].heap_bytes()), (0, 23));
    }
}
