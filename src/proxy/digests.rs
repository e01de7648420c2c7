//! The digests of names seen before: a look-up where MD5 would take ten times as long.
//!
//! A digest depends on the name alone, so nothing here is forgotten when a node comes or goes.

use super::ring::digest;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hasher};

/// Longest name remembered, in bytes: longer ones are few, and hashing them is not what takes the time.
const NAME_MAX: usize = 1024;

/// Names with their digests; at most so many, then it begins anew.
#[derive(Debug)]
pub struct Digests {
    most: usize,
    known: HashTable<Known>,
    /// The bytes of the names, one after another.
    names: Vec<u8>,
    seeds: RandomState,
}

#[derive(Debug)]
struct Known {
    begin: u32,
    length: u32,
    digest: u32,
}

impl Known {
    #[inline]
    fn name<'n>(&self, names: &'n [u8]) -> &'n [u8] {
        &names[self.begin as usize..][..self.length as usize]
    }
}

impl Digests {
    /// Room for `most` names.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            known: HashTable::new(),
            names: Vec::new(),
            seeds: RandomState::default(),
        }
    }

    /// The digest of a name.
    #[inline]
    pub fn of(&mut self, name: &[u8]) -> u32 {
        let hash = hash(&self.seeds, name);
        let known = self.known.find(hash, |it| it.name(&self.names) == name);
        match known {
            Some(known) => known.digest,
            None => self.learn(hash, name),
        }
    }

    #[cold]
    fn learn(&mut self, hash_of_it: u64, name: &[u8]) -> u32 {
        let digest = digest(name);
        if name.len() > NAME_MAX {
            return digest;
        }
        if self.known.len() >= self.most || self.names.len() + name.len() > u32::MAX as usize {
            self.known.clear();
            self.names.clear();
        }
        let known = Known {
            begin: self.names.len() as u32,
            length: name.len() as u32,
            digest,
        };
        self.names.extend_from_slice(name);
        let (names, seeds) = (&self.names, &self.seeds);
        self.known
            .insert_unique(hash_of_it, known, |it| hash(seeds, it.name(names)));
        digest
    }
}

#[inline]
fn hash(seeds: &RandomState, name: &[u8]) -> u64 {
    let mut hasher = seeds.build_hasher();
    hasher.write(name);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_same_before_and_after_it_is_forgotten() {
        let names: Vec<_> = (0..100).map(|n| format!("name.{n}")).collect();
        for most in [1, 7, 100, 1000] {
            let mut digests = Digests::new(most);
            for name in names.iter().chain(&names) {
                assert_eq!(digests.of(name.as_bytes()), digest(name.as_bytes()));
                assert!(digests.known.len() <= most);
            }
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut digests = Digests::new(2);
        let long = vec![b'x'; NAME_MAX + 1];
        assert_eq!(digests.of(&long), digest(&long));
        assert_eq!(digests.known.len(), 0);
        for name in ["a", "b", "a", "b"] {
            digests.of(name.as_bytes());
        }
        assert_eq!((digests.known.len(), digests.names.len()), (2, 2));
        digests.of(b"c");
        assert_eq!((digests.known.len(), digests.names.len()), (1, 1));
    }
}
