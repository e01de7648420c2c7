//! Name <-> id, for the whole process.
//!
//! A worker comes here once for each spelling it has never seen; the flusher once a flush for the
//! names that are new since the last one, and to take names out that nobody uses. Nothing on the sample path
//! does.
//! This is the one place for a concurrent map: workers meet new names at the same moment.
//! And it is the one that says no to them: there is a limit on names, and none is new while memory is short.
//!
//! An id is given out again, but only when nobody can have it any more: [`Registry::retire`] takes its name
//! away, the workers forget it ([`super::retired`]), and then [`Registry::release`] frees it.

use super::retired::{Former, Limbo, Retired};
use super::sample::Kind;
use crossbeam::utils::CachePadded;
use dashmap::{DashMap, Entry};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Dense number of a name within its kind. The lowest that is free is given to a name when it is first seen.
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

/// The names of a kind by id.
#[derive(Debug, Default)]
struct List {
    /// `names[id]`: how it is shown; empty when no name has the id.
    names: Vec<Name>,
    /// What the map has it under, where that is another spelling.
    keys: HashMap<NameId, Name>,
    /// Ids that may be given out again.
    free: BTreeSet<NameId>,
    /// Ids that were given out again since the flusher caught up.
    again: Vec<NameId>,
    /// Ids that have lost their names and are not free yet.
    gone: HashSet<NameId>,
    /// Ids of names that no sender brought.
    ours: HashSet<NameId>,
    /// Ids that somebody keeps.
    held: HashSet<NameId>,
}

impl List {
    fn number(&mut self, shown: Name) -> NameId {
        if let Some(id) = self.free.pop_first() {
            self.names[id.index()] = shown;
            self.again.push(id);
            return id;
        }
        let id = NameId(u32::try_from(self.names.len()).expect("fewer than 2^32 names"));
        self.names.push(shown);
        id
    }

    /// How an id is known, which it is no longer; nothing when somebody keeps it.
    fn forget(&mut self, id: NameId, nothing: &Name) -> Option<Former> {
        if self.held.contains(&id) {
            return None;
        }
        let shown = std::mem::replace(&mut self.names[id.index()], nothing.clone());
        let key = self.keys.remove(&id).unwrap_or_else(|| shown.clone());
        self.gone.insert(id);
        let brought = !self.ours.remove(&id);
        Some(Former {
            key,
            shown,
            brought,
        })
    }
}

#[derive(Debug, Default)]
struct KindNames {
    ids: DashMap<Name, NameId, foldhash::fast::RandomState>,
    list: CachePadded<Mutex<List>>,
}

impl KindNames {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every name of this process, one numbering for each kind.
#[derive(Debug)]
pub struct Registry {
    kinds: [KindNames; Kind::ALL.len()],
    /// Names that senders brought, over all kinds.
    brought: AtomicUsize,
    /// How many of them there may be.
    most: AtomicUsize,
    /// Memory is short: no name is new.
    short: AtomicBool,
    /// Raised whenever there may be room again where there was none.
    openings: AtomicU64,
    /// How many sweeps there were; `retired` is of the last one.
    sweeps: AtomicU64,
    retired: Mutex<Arc<Retired>>,
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
            sweeps: AtomicU64::new(0),
            retired: Mutex::default(),
        }
    }
}

/// Ids that are retired or released under one lock: a worker that meets a new name meanwhile waits for it.
const LOCKED_FOR: usize = 1024;

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

/// A name that has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// How it is shown.
    pub name: Name,
    /// A sender brought it: it counts for the limit on names.
    pub brought: bool,
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
        known.unwrap_or_else(|| self.give(kind, name, name, true).id)
    }

    /// The same for one who keeps the id for himself and no spelling with it: it is never retired.
    pub fn held_id(&self, kind: Kind, name: &str) -> NameId {
        loop {
            let id = self.id(kind, name);
            let mut list = self.kinds[kind as usize].list();
            // Else it is being retired at this moment, and the next look finds another.
            if !list.gone.contains(&id) {
                list.held.insert(id);
                return id;
            }
        }
    }

    /// The id that a name has after its old one was retired.
    pub fn id_of_former(&self, kind: Kind, former: &Former) -> NameId {
        if former.brought {
            self.id_of_known(kind, &former.key, &former.shown)
        } else {
            self.id(kind, &former.key)
        }
    }

    /// Every name of a kind, the lowest number first.
    pub fn known(&self, kind: Kind) -> Vec<Known> {
        let list = self.kinds[kind as usize].list();
        let ids = (0..).map(NameId).zip(&list.names);
        let named = ids.filter(|(id, _)| !list.free.contains(id) && !list.gone.contains(id));
        named
            .map(|(id, name)| Known {
                name: name.clone(),
                brought: !list.ours.contains(&id),
            })
            .collect()
    }

    /// How many names of a kind there are.
    pub fn names(&self, kind: Kind) -> usize {
        self.kinds[kind as usize].ids.len()
    }

    /// The id of a name that an earlier process knew. Senders brought it, and it has room as it had there. It
    /// is one spelling of `name`, and `shown` as that was when it was new.
    pub fn id_of_known(&self, kind: Kind, name: &str, shown: &str) -> NameId {
        let given = self.give(kind, name, shown, false);
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
        self.find_or_give(kind, name, shown, false, |this| {
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
        self.is_full().then_some(Fold::Names)
    }

    /// Whether there are as many names that senders brought as there may be.
    pub fn is_full(&self) -> bool {
        self.brought() >= self.most.load(Ordering::Relaxed)
    }

    /// Gives an id under the lock that keeps others from giving the same name one.
    fn find_or_give(
        &self,
        kind: Kind,
        name: &str,
        shown: &str,
        is_ours: bool,
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
                let mut list = names.list();
                let key = place.key().clone();
                let id = if name == shown {
                    list.number(key)
                } else {
                    let id = list.number(shown.into());
                    list.keys.insert(id, key);
                    id
                };
                if is_ours {
                    list.ours.insert(id);
                }
                place.insert(id);
                let is_new = true;
                Ok(Found { id, is_new })
            }
        }
    }

    /// The id of a name, if it has one.
    pub fn find(&self, kind: Kind, name: &str) -> Option<NameId> {
        self.kinds[kind as usize].ids.get(name).map(|id| *id)
    }

    /// Gives a name an id whatever the limits say, unless it has one.
    fn give(&self, kind: Kind, name: &str, shown: &str, is_ours: bool) -> Found {
        let found = self.find_or_give(kind, name, shown, is_ours, |_| Ok(()));
        let found = found.expect("there is room");
        if found.is_new {
            // A worker may have remembered that there was no room for it.
            self.openings.fetch_add(1, Ordering::Release);
        }
        found
    }

    /// Brings `known` up to date, so that `known[id.index()]` is the name of `id`, and returns which ids in
    /// it have another name than before. For the flusher alone: it is told of each once.
    pub fn catch_up(&self, kind: Kind, known: &mut Vec<Name>) -> Vec<NameId> {
        let mut list = self.kinds[kind as usize].list();
        let mut again = std::mem::take(&mut list.again);
        again.retain(|id| id.index() < known.len());
        for id in &again {
            known[id.index()].clone_from(&list.names[id.index()]);
        }
        known.extend_from_slice(&list.names[known.len()..]);
        again
    }

    /// Takes the names of these ids out, by kind, but for those that are held: whoever meets one of these
    /// names from now on gets another id. Then tells the workers. For the flusher alone, and not before every
    /// worker has forgotten what was retired before.
    pub fn retire(&self, ids: [Vec<NameId>; Kind::ALL.len()]) -> Limbo {
        let number = self.sweeps.load(Ordering::Relaxed) + 1;
        let (mut retired, mut limbo) = (Retired::new(number), Limbo::default());
        let nothing: Name = "".into();
        for (kind, ids) in Kind::ALL.into_iter().zip(ids) {
            let (names, former) = (&self.kinds[kind as usize], &mut limbo.names[kind as usize]);
            for ids in ids.chunks(LOCKED_FOR) {
                let mut list = names.list();
                let forgotten = ids.iter().map(|id| (*id, list.forget(*id, &nothing)));
                former.extend(forgotten.filter_map(|(id, former)| Some((id, former?))));
            }
            // Not with its lock: who numbers a name has that of its shard.
            for (id, Former { key, .. }) in former.iter() {
                names.ids.remove(key);
                retired.insert(kind, *id);
            }
            let brought = former.values().filter(|it| it.brought).count();
            self.brought.fetch_sub(brought, Ordering::Relaxed);
            if names.ids.len() * 4 < names.ids.capacity() {
                names.ids.shrink_to_fit();
            }
        }
        limbo.retired = Arc::new(retired);
        self.last_retired().clone_from(&limbo.retired);
        // Who found no room may find some.
        self.openings.fetch_add(1, Ordering::Release);
        // Release: who sees the number finds no name any more, though the lock would do it too.
        self.sweeps.store(number, Ordering::Release);
        limbo
    }

    /// How many sweeps there were. Who comes to know names only now will meet none that they retired.
    pub fn sweeps(&self) -> u64 {
        self.sweeps.load(Ordering::Acquire)
    }

    /// What was retired last.
    pub fn retired(&self) -> Arc<Retired> {
        self.last_retired().clone()
    }

    /// These ids of a kind may be given to other names: nobody has them any more. What is free at the end of
    /// the numbering is cut off, and `known` with it; returns where that is. For the flusher alone.
    pub fn release(
        &self,
        kind: Kind,
        ids: impl IntoIterator<Item = NameId>,
        known: &mut Vec<Name>,
    ) -> usize {
        let (names, mut ids) = (&self.kinds[kind as usize], ids.into_iter().peekable());
        while ids.peek().is_some() {
            let mut list = names.list();
            for id in ids.by_ref().take(LOCKED_FOR) {
                list.gone.remove(&id);
                list.free.insert(id);
                if let Some(name) = known.get_mut(id.index()) {
                    name.clone_from(&list.names[id.index()]);
                }
            }
        }
        let mut list = names.list();
        let list = &mut *list;
        while let Some(last) = list.free.last()
            && last.index() + 1 == list.names.len()
        {
            list.free.pop_last();
            list.names.pop();
        }
        known.truncate(list.names.len());
        shrink(&mut list.names);
        list.gone.shrink_to_fit();
        if list.keys.len() * 4 < list.keys.capacity() {
            list.keys.shrink_to_fit();
        }
        shrink(known);
        list.names.len()
    }

    fn last_retired(&self) -> MutexGuard<'_, Arc<Retired>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets go of room that is far too large.
pub fn shrink<T>(column: &mut Vec<T>) {
    if column.len() * 4 < column.capacity() {
        column.shrink_to(column.len() * 2);
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

    fn known(registry: &Registry, kind: Kind, known: &mut Vec<Name>) -> Vec<NameId> {
        registry.catch_up(kind, known)
    }

    fn retire(registry: &Registry, kind: Kind, ids: &[u32]) -> Limbo {
        let mut all = <[Vec<NameId>; 4]>::default();
        all[kind as usize] = ids.iter().copied().map(NameId).collect();
        registry.retire(all)
    }

    #[test]
    fn a_retired_name_gets_another_id_and_its_old_one_waits_until_it_is_released() {
        let (registry, kind) = (Registry::new(), Kind::Counter);
        let mut names = Vec::new();
        for name in ["a", "b", "c"] {
            registry.id(kind, name);
        }
        registry.id_of_known(kind, "d;t=v;u=w", "d;u=w;t=v");
        known(&registry, kind, &mut names);
        let limbo = retire(&registry, kind, &[1, 3]);
        assert_eq!(registry.brought(), 0);
        let former = |key: &str, shown: &str, brought| Former {
            key: key.into(),
            shown: shown.into(),
            brought,
        };
        let expected = [
            (NameId(1), former("b", "b", false)),
            (NameId(3), former("d;t=v;u=w", "d;u=w;t=v", true)),
        ];
        assert_eq!(limbo.names[kind as usize], expected.into());
        assert_eq!((limbo.retired.number, registry.sweeps()), (1, 1));
        let retired = registry.retired();
        assert_eq!(retired.of(kind).collect::<Vec<_>>(), [NameId(1), NameId(3)]);
        assert_eq!(registry.names(kind), 2);
        // In limbo: neither the old one nor any other gets its number.
        assert_eq!(registry.id(kind, "b"), NameId(4));
        assert_eq!(registry.id(kind, "e"), NameId(5));
        registry.release(kind, [NameId(1), NameId(3)], &mut names);
        assert_eq!(registry.id(kind, "f"), NameId(1));
        assert_eq!(
            registry.id_of_known(kind, "d;t=v;u=w", "d;t=v;u=w"),
            NameId(3)
        );
        assert_eq!(registry.id(kind, "g"), NameId(6));
        let again = known(&registry, kind, &mut names);
        assert_eq!(again, [NameId(1), NameId(3)]);
        let shown: Vec<_> = names.iter().map(|name| &**name).collect();
        assert_eq!(shown, ["a", "f", "c", "d;t=v;u=w", "b", "e", "g"]);
        assert_eq!(known(&registry, kind, &mut names), []);
    }

    #[test]
    fn names_that_are_retired_make_room_for_others() {
        let (registry, kind) = (Registry::new(), Kind::Timer);
        registry.limit(2);
        let mut names = Vec::new();
        for name in ["a", "b"] {
            assert!(registry.admit(kind, name, name).is_ok());
        }
        registry.id(kind, "own");
        known(&registry, kind, &mut names);
        assert_eq!(registry.admit(kind, "c", "c"), Err(Fold::Names));
        let openings = registry.openings();
        let limbo = retire(&registry, kind, &[0, 2]);
        assert_eq!(registry.brought(), 1);
        assert_ne!(registry.openings(), openings);
        assert!(registry.admit(kind, "c", "c").is_ok());
        assert_eq!(registry.admit(kind, "d", "d"), Err(Fold::Names));
        // Values that were on their way to one that is gone have room, and it is counted.
        let former = &limbo.names[kind as usize];
        registry.id_of_former(kind, &former[&NameId(0)]);
        registry.id_of_former(kind, &former[&NameId(2)]);
        assert_eq!(registry.brought(), 3);
    }

    #[test]
    fn a_held_name_stays() {
        let (registry, kind) = (Registry::new(), Kind::Gauge);
        assert_eq!(registry.held_id(kind, "own"), NameId(0));
        registry.catch_up(kind, &mut Vec::new());
        assert!(retire(&registry, kind, &[0]).names[kind as usize].is_empty());
        assert_eq!(registry.id(kind, "own"), NameId(0));
        assert_eq!(registry.retired().of(kind).count(), 0);
    }

    #[test]
    fn a_numbering_whose_end_is_free_is_cut() {
        let (registry, kind) = (Registry::new(), Kind::Set);
        for n in 0..1000 {
            registry.id(kind, &n.to_string());
        }
        let mut names = Vec::new();
        known(&registry, kind, &mut names);
        let (kept, all) = (500, (0..1000).collect::<Vec<_>>());
        let gone: Vec<_> = all.into_iter().filter(|id| *id != kept).collect();
        retire(&registry, kind, &gone);
        // One comes while they are away.
        assert_eq!(registry.id(kind, "1"), NameId(1000));
        registry.release(kind, gone.iter().copied().map(NameId), &mut names);
        assert_eq!(names.len(), 1000);
        retire(&registry, kind, &[1000]);
        registry.release(kind, [NameId(1000)], &mut names);
        assert_eq!(names.len(), 501);
        let list = registry.kinds[kind as usize].list();
        assert_eq!((list.names.len(), list.free.len()), (501, 500));
        assert!(list.names.capacity() <= 4 * 501 && names.capacity() <= 4 * 501);
        drop(list);
        assert_eq!(registry.id(kind, "new"), NameId(0));
        assert_eq!(known(&registry, kind, &mut names), [NameId(0)]);
        assert_eq!((&*names[0], &*names[500], &*names[1]), ("new", "500", ""));
    }

    #[test]
    fn names_that_were_spelled_otherwise_leave_no_room_behind() {
        let (registry, kind) = (Registry::new(), Kind::Counter);
        let keys = || registry.kinds[kind as usize].list().keys.capacity();
        for n in 0..1000 {
            let (key, shown) = (format!("a;a={n};b=1"), format!("a;b=1;a={n}"));
            registry.id_of_known(kind, &key, &shown);
        }
        assert!(keys() >= 1000);
        let all: Vec<_> = (0..1000).collect();
        retire(&registry, kind, &all);
        let all = all.into_iter().map(NameId);
        assert_eq!(registry.release(kind, all, &mut Vec::new()), 0);
        assert_eq!((keys(), registry.names(kind)), (0, 0));
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
