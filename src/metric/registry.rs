//! Name <-> id, for the whole process.
//!
//! A worker comes here once for each spelling it has never seen; the flusher once a flush for the
//! names that are new since the last one. Nothing on the sample path does.
//! This is the one place for a concurrent map: workers meet new names at the same moment.

use super::sample::Kind;
use crossbeam::utils::CachePadded;
use dashmap::DashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Dense number of a name within its kind. Ids are given in the order names are first seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameId(pub u32);

impl NameId {
    /// The id as an index into columns.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A name as it is shown and sent: cleaned, with its tags, always text.
pub type Name = Arc<str>;

#[derive(Debug, Default)]
struct KindNames {
    ids: DashMap<Name, NameId, foldhash::fast::RandomState>,
    /// `names[id]`; append only.
    names: CachePadded<Mutex<Vec<Name>>>,
}

/// Every name of this process, one numbering for each kind.
#[derive(Debug, Default)]
pub struct Registry {
    kinds: [KindNames; 4],
}

impl Registry {
    /// An empty registry. Build it before any thread is pinned: the map sizes itself by the cores it sees.
    pub fn new() -> Self {
        Self::default()
    }

    /// The id of `name`, given now if it is new.
    pub fn id(&self, kind: Kind, name: &str) -> NameId {
        self.id_shown_as(kind, name, name)
    }

    /// The id of what `name` is one spelling of. It is `shown` as it was spelled when it was new.
    pub fn id_shown_as(&self, kind: Kind, name: &str, shown: &str) -> NameId {
        let names = &self.kinds[kind as usize];
        if let Some(id) = names.ids.get(name) {
            return *id;
        }
        let key: Name = name.into();
        *names.ids.entry(key.clone()).or_insert_with(|| {
            // The shard lock is held, so no one else numbers this name; the list lock orders shards.
            let mut list = names.names.lock().unwrap_or_else(PoisonError::into_inner);
            let id = NameId(u32::try_from(list.len()).expect("fewer than 2^32 names"));
            list.push(if name == shown { key } else { shown.into() });
            id
        })
    }

    /// Appends to `known` the names it lacks, so that `known[id.index()]` is the name of `id`.
    pub fn catch_up(&self, kind: Kind, known: &mut Vec<Name>) {
        let list = self.kinds[kind as usize]
            .names
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.extend_from_slice(&list[known.len()..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_dense_within_its_kind_and_stable() {
        let registry = Registry::new();
        assert_eq!(registry.id(Kind::Counter, "a"), NameId(0));
        assert_eq!(registry.id(Kind::Counter, "b"), NameId(1));
        assert_eq!(registry.id(Kind::Timer, "a"), NameId(0));
        assert_eq!(registry.id(Kind::Counter, "a"), NameId(0));
        let mut known = Vec::new();
        registry.catch_up(Kind::Counter, &mut known);
        assert_eq!(known.iter().map(|n| &**n).collect::<Vec<_>>(), ["a", "b"]);
        registry.id(Kind::Counter, "c");
        registry.catch_up(Kind::Counter, &mut known);
        assert_eq!(known.len(), 3);
    }

    #[test]
    fn the_first_spelling_is_the_one_that_is_shown() {
        let registry = Registry::new();
        let id = registry.id_shown_as(Kind::Gauge, "a;t=v;u=w", "a;u=w;t=v");
        assert_eq!(
            registry.id_shown_as(Kind::Gauge, "a;t=v;u=w", "a;t=v;u=w"),
            id
        );
        let mut known = Vec::new();
        registry.catch_up(Kind::Gauge, &mut known);
        assert_eq!(
            known.iter().map(|n| &**n).collect::<Vec<_>>(),
            ["a;u=w;t=v"]
        );
    }

    #[test]
    fn many_threads_agree_on_every_id() {
        let registry = Registry::new();
        let seen: Vec<Vec<NameId>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..1000)
                            .map(|n| registry.id(Kind::Set, &format!("n{n}")))
                            .collect()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|t| t.join().expect("no panic"))
                .collect()
        });
        assert!(seen.iter().all(|ids| ids == &seen[0]));
        let mut known = Vec::new();
        registry.catch_up(Kind::Set, &mut known);
        assert_eq!(known.len(), 1000);
        for (n, id) in seen[0].iter().enumerate() {
            assert_eq!(&*known[id.index()], format!("n{n}"));
        }
    }
}
