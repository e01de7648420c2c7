//! Name <-> id, for the whole process.
//!
//! A worker comes here once for each spelling it has never seen; the flusher once a flush for the
//! names that are new since the last one. Nothing on the sample path does.
//! This is the one place for a concurrent map: workers meet new names at the same moment.
//! And it is the one that says no to them: there is a limit on names, and none is new while memory is short.

use super::sample::Kind;
use crossbeam::utils::CachePadded;
use dashmap::{DashMap, Entry};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
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
#[derive(Debug)]
pub struct Registry {
    kinds: [KindNames; 4],
    /// Names that senders brought, over all kinds.
    brought: AtomicUsize,
    /// How many of them there may be.
    most: AtomicUsize,
    /// Memory is short: no name is new.
    short: AtomicBool,
    /// Raised whenever there may be room again where there was none.
    openings: AtomicU64,
}

/// Names that there may be unless [`Registry::limit`] says otherwise (`maxNames`): what takes some hundred
/// MB, is several times what a busy server has, and can be computed and sent in an interval of ten seconds.
pub const NAMES_MAX: usize = 1_000_000;

impl Default for Registry {
    fn default() -> Self {
        Self {
            kinds: Default::default(),
            brought: AtomicUsize::new(0),
            most: AtomicUsize::new(NAMES_MAX),
            short: AtomicBool::new(false),
            openings: AtomicU64::new(0),
        }
    }
}

/// Why a name is not taken in, but its values folded into those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// There are as many names as there may be.
    Names,
    /// It is too long.
    Length,
    /// Memory is short.
    Memory,
}

impl Fold {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Names, Self::Length, Self::Memory];

    /// The setting that says so.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Names => "maxNames",
            Self::Length => "maxNameLength",
            Self::Memory => "memoryLimit",
        }
    }
}

/// A name that has a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: NameId,
    /// Whether it was given now.
    pub is_new: bool,
}

/// The name that the values of names of a kind are folded into.
pub fn overflow(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "statsd_fast.overflow.counters",
        Kind::Timer => "statsd_fast.overflow.timers",
        Kind::Gauge => "statsd_fast.overflow.gauges",
        Kind::Set => "statsd_fast.overflow.sets",
    }
}

impl Registry {
    /// An empty registry. Build it before any thread is pinned: the map sizes itself by the cores it sees.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many names senders may bring, all kinds together. Those that are there stay.
    pub fn limit(&self, most: usize) {
        // Release, as below: who sees the opening sees the room.
        self.most.store(most, Ordering::Relaxed);
        self.openings.fetch_add(1, Ordering::Release);
    }

    /// Says whether memory is short: then no name that senders bring is new.
    pub fn set_short(&self, short: bool) {
        self.short.store(short, Ordering::Relaxed);
        self.openings.fetch_add(1, Ordering::Release);
    }

    /// Whether memory is short.
    #[inline]
    pub fn is_short(&self) -> bool {
        // Relaxed: a hint, which may be seen a little late.
        self.short.load(Ordering::Relaxed)
    }

    /// Another number than before: a name that found no room may find some now.
    pub fn openings(&self) -> u64 {
        self.openings.load(Ordering::Acquire)
    }

    /// Names that senders brought, over all kinds.
    pub fn brought(&self) -> usize {
        self.brought.load(Ordering::Relaxed)
    }

    /// The id of a name of our own, which always has room.
    pub fn id(&self, kind: Kind, name: &str) -> NameId {
        let known = self.find(kind, name);
        known.unwrap_or_else(|| self.give(kind, name, name).id)
    }

    /// The id of a name that an earlier process knew. Senders brought it, and it has room as it had there. It
    /// is one spelling of `name`, and `shown` as that was when it was new.
    pub fn id_of_known(&self, kind: Kind, name: &str, shown: &str) -> NameId {
        let given = self.give(kind, name, shown);
        self.brought
            .fetch_add(usize::from(given.is_new), Ordering::Relaxed);
        given.id
    }

    /// The id of what a sender brought and `name` is one spelling of. It is `shown` as it was spelled when it
    /// was new.
    ///
    /// # Errors
    /// When it is new and there is no room for it.
    pub fn admit(&self, kind: Kind, name: &str, shown: &str) -> Result<Found, Fold> {
        // Asked before the look: when it is full then, nobody brings this name between the two, and what
        // is not found is not there.
        let no_room = self.no_room();
        if let Some(id) = self.find(kind, name) {
            let is_new = false;
            return Ok(Found { id, is_new });
        }
        if let Some(fold) = no_room {
            return Err(fold);
        }
        self.find_or_give(kind, name, shown, |this| {
            let most = this.most.load(Ordering::Relaxed);
            let more = |brought: usize| (brought < most).then_some(brought + 1);
            let counted = (this.brought).fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
            counted.map(drop).map_err(|_| Fold::Names)
        })
    }

    /// Why there is no room for another name that a sender brings.
    fn no_room(&self) -> Option<Fold> {
        if self.is_short() {
            return Some(Fold::Memory);
        }
        let full = self.brought() >= self.most.load(Ordering::Relaxed);
        full.then_some(Fold::Names)
    }

    /// Gives an id under the lock that keeps others from giving the same name one.
    fn find_or_give(
        &self,
        kind: Kind,
        name: &str,
        shown: &str,
        room: impl FnOnce(&Self) -> Result<(), Fold>,
    ) -> Result<Found, Fold> {
        let names = &self.kinds[kind as usize];
        match names.ids.entry(name.into()) {
            Entry::Occupied(known) => {
                let (id, is_new) = (*known.get(), false);
                Ok(Found { id, is_new })
            }
            Entry::Vacant(place) => {
                room(self)?;
                // The list lock orders shards.
                let mut list = names.names.lock().unwrap_or_else(PoisonError::into_inner);
                let (id, is_new) = (u32::try_from(list.len()), true);
                let id = NameId(id.expect("fewer than 2^32 names"));
                let key = place.key();
                list.push(if name == shown {
                    key.clone()
                } else {
                    shown.into()
                });
                place.insert(id);
                Ok(Found { id, is_new })
            }
        }
    }

    /// The id of a name, if it has one.
    pub fn find(&self, kind: Kind, name: &str) -> Option<NameId> {
        self.kinds[kind as usize].ids.get(name).map(|id| *id)
    }

    /// Gives a name an id whatever the limits say, unless it has one.
    fn give(&self, kind: Kind, name: &str, shown: &str) -> Found {
        let found = self.find_or_give(kind, name, shown, |_| Ok(()));
        let found = found.expect("there is room");
        if found.is_new {
            // A worker may have remembered that there was no room for it.
            self.openings.fetch_add(1, Ordering::Release);
        }
        found
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
        let first = registry.admit(Kind::Gauge, "a;t=v;u=w", "a;u=w;t=v");
        let first = first.expect("there is room");
        let again = registry.admit(Kind::Gauge, "a;t=v;u=w", "a;t=v;u=w");
        let (id, is_new) = (first.id, false);
        assert_eq!((first.is_new, again), (true, Ok(Found { id, is_new })));
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

    #[test]
    fn past_the_limit_a_new_name_finds_no_room_and_those_there_are_found() {
        let registry = Registry::new();
        registry.limit(2);
        let admit = |kind, name| registry.admit(kind, name, name).map(|found| found.is_new);
        assert_eq!(admit(Kind::Counter, "a"), Ok(true));
        assert_eq!(admit(Kind::Timer, "a"), Ok(true));
        // Our own names do not count, and one that is there is no new name for a sender either.
        registry.id(Kind::Counter, "own");
        let openings = registry.openings();
        for _ in 0..2 {
            assert_eq!(admit(Kind::Counter, "b"), Err(Fold::Names));
            assert_eq!(admit(Kind::Counter, "a"), Ok(false));
            assert_eq!(admit(Kind::Counter, "own"), Ok(false));
        }
        assert_eq!((registry.brought(), registry.openings()), (2, openings));
        // What an earlier process knew comes in, and counts.
        registry.id_of_known(Kind::Gauge, "old", "old");
        registry.id_of_known(Kind::Gauge, "old", "old");
        assert_eq!(registry.brought(), 3);
        assert!(registry.openings() > openings);
        registry.limit(3);
        assert_eq!(admit(Kind::Counter, "b"), Err(Fold::Names));
        registry.limit(4);
        registry.set_short(true);
        assert_eq!(admit(Kind::Counter, "b"), Err(Fold::Memory));
        assert_eq!(admit(Kind::Counter, "a"), Ok(false));
        registry.set_short(false);
        assert_eq!(admit(Kind::Counter, "b"), Ok(true));
        assert_eq!(admit(Kind::Counter, "c"), Err(Fold::Names));
    }

    #[test]
    fn many_threads_bring_no_more_names_than_there_may_be() {
        let registry = Registry::new();
        registry.limit(500);
        let seen: Vec<Vec<Option<NameId>>> = std::thread::scope(|scope| {
            let bring = || {
                let admit = |n: usize| {
                    let name = format!("n{n}");
                    registry.admit(Kind::ALL[n % 4], &name, &name)
                };
                // Again at the end: a name that found no room was brought by nobody else.
                let twice = (0..1000).chain(0..1000);
                let found = twice.map(|n| admit(n).ok().map(|found| found.id));
                found.collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(bring)).collect();
            let joined = threads.into_iter().map(|it| it.join().expect("no panic"));
            joined.collect()
        });
        assert!(seen.iter().all(|ids| ids[1000..] == seen[0][1000..]));
        assert!(seen.iter().all(|ids| ids[..1000] == seen[0][1000..]));
        assert_eq!(seen[0][1000..].iter().flatten().count(), 500);
        assert_eq!(registry.brought(), 500);
    }

    #[test]
    fn each_registry_hashes_in_a_way_of_its_own() {
        use std::hash::BuildHasher;
        let hashes = |registry: &Registry| {
            let hasher = registry.kinds[0].ids.hasher();
            ["a", "b", "c", "d"].map(|name| hasher.hash_one(name))
        };
        assert_ne!(hashes(&Registry::new()), hashes(&Registry::new()));
        // Names that all have one hash, but for 52 bits of it, for who knows a seed are spread here.
        let known = foldhash::fast::FixedState::with_seed(7);
        let all = (0_u64..).map(|n| format!("{n:x}"));
        let colliding = all.filter(|name| known.hash_one(name.as_str()) >> 52 == 0);
        let registry = Registry::new();
        let hasher = registry.kinds[0].ids.hasher();
        let mut places = [0; 16];
        for name in colliding.take(320) {
            places[(hasher.hash_one(name.as_str()) >> 60) as usize] += 1;
        }
        assert!(
            places.iter().all(|names| (2..60).contains(names)),
            "{places:?}"
        );
    }
}
