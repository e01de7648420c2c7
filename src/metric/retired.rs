//! NOUN: ids whose names were taken out of the registry, until nobody uses them any more.
//!
//! A worker forgets, right after a harvest, whatever refers to them, and says in a later harvest that it has.
//! The flusher keeps them away from new names until every worker has.

use super::registry::{Name, NameId};
use super::sample::Kind;
use std::collections::HashMap;
use std::sync::Arc;

/// A set of ids of one kind, a bit each.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn insert(&mut self, id: NameId) {
        let word = id.index() / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (id.index() % 64);
    }

    fn contains(&self, id: NameId) -> bool {
        let word = self.0.get(id.index() / 64);
        word.is_some_and(|word| word >> (id.index() % 64) & 1 == 1)
    }

    fn iter(&self) -> impl Iterator<Item = NameId> {
        let bits = |(at, word): (usize, &u64)| {
            let (at, word) = (at as u32 * 64, *word);
            (0..64).filter_map(move |bit| (word >> bit & 1 == 1).then_some(NameId(at + bit)))
        };
        let words = self.0.iter().enumerate();
        words.filter(|(_, word)| **word != 0).flat_map(bits)
    }
}

/// The ids that one sweep retired, for workers.
#[derive(Debug, Default)]
pub struct Retired {
    /// Which sweep: 1, 2 and so on.
    pub number: u64,
    kinds: [Bits; Kind::ALL.len()],
}

impl Retired {
    /// None yet, of sweep `number`.
    pub fn new(number: u64) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    /// Adds one.
    pub fn insert(&mut self, kind: Kind, id: NameId) {
        self.kinds[kind as usize].insert(id);
    }

    /// Whether it is one of them.
    #[inline]
    pub fn contains(&self, kind: Kind, id: NameId) -> bool {
        self.kinds[kind as usize].contains(id)
    }

    /// Those of a kind, in ascending order.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = NameId> {
        self.kinds[kind as usize].iter()
    }
}

/// How a retired id was known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// What the registry had it under.
    pub key: Name,
    /// What it was shown as.
    pub shown: Name,
    /// Whether a sender brought it.
    pub brought: bool,
}

/// The ids that one sweep retired and what their names were, for the flusher: values that were on their way
/// to them belong to those names still.
#[derive(Debug, Default)]
pub struct Limbo {
    /// The ids.
    pub retired: Arc<Retired>,
    /// By kind.
    pub names: [HashMap<NameId, Former>; Kind::ALL.len()],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_put_in_of_their_kind() {
        let mut retired = Retired::new(3);
        let ids = [0, 63, 64, 200].map(NameId);
        ids.iter().for_each(|id| retired.insert(Kind::Set, *id));
        assert_eq!(retired.of(Kind::Set).collect::<Vec<_>>(), ids);
        assert_eq!(retired.of(Kind::Timer).count(), 0);
        for id in (0..300).map(NameId) {
            assert_eq!(retired.contains(Kind::Set, id), ids.contains(&id));
            assert!(!retired.contains(Kind::Counter, id));
        }
    }
}
