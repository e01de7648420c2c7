//! Spellings -> entries: open addressing over entries of one cache line each.
//!
//! Look-ups of a table beyond the caches wait for memory; each of them waits for one line, and that line is
//! known as soon as the hash is, so that [`Slots::prefetch`] can have many on their way at once.

use super::key::{Key, Seeds, Spelling};
use crate::metric::registry::NameId;
use crate::metric::sample::Kind;
use crate::runtime::sys::memory::{prefer_huge_pages, prefetch};

/// Slots of an empty table.
const SLOTS_MIN: usize = 64;
/// Slots from which on a table may be more than an eighth full: 1 MiB. A slot that is not in use is in no
/// cache, so below that emptiness costs little, and a spelling that is not in its first slot costs a
/// branch that nobody can foresee.
const SPARSE: usize = 1 << 14;
/// Bytes of long spellings from which on it is worth a walk through all slots to get half of them back.
const LONG_MANY: usize = 1 << 16;

/// One spelling: 64 bytes, one cache line.
#[derive(Debug, Clone, Default)]
#[repr(align(64))]
pub struct Entry {
    key: Key,
    /// Counters: the sum since the last harvest.
    pub sum: f64,
    /// Counters: values added since the last harvest. Other kinds: the index of the cell.
    pub hits_or_cell: u32,
    /// The name it stands for.
    pub id: NameId,
}

const _: () = assert!(size_of::<Entry>() == 64);

/// All spellings a worker knows.
#[derive(Debug)]
pub struct Slots {
    /// A power of two of them; at most five in eight in use, and one in eight while there are few.
    entries: Vec<Entry>,
    used: usize,
    /// Bytes of long spellings, one after another.
    long: Vec<u8>,
    /// Of those, bytes of spellings that were removed.
    long_gone: usize,
}

impl Default for Slots {
    /// None yet.
    fn default() -> Self {
        Self {
            entries: vec![Entry::default(); SLOTS_MIN],
            used: 0,
            long: Vec::new(),
            long_gone: 0,
        }
    }
}

impl Slots {
    /// How many spellings there are.
    #[inline]
    pub fn used(&self) -> usize {
        self.used
    }

    /// How many slots there are, in use or not.
    #[inline]
    pub fn slots(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of long spellings.
    pub fn long_bytes(&self) -> usize {
        self.long.len()
    }

    /// Bytes of all it holds.
    pub fn memory(&self) -> usize {
        size_of_val(&self.entries[..]) + self.long.len()
    }

    /// The entry of a slot.
    #[inline(always)]
    pub fn entry(&mut self, slot: usize) -> &mut Entry {
        &mut self.entries[slot]
    }

    /// Every slot, those in use and those that are not.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut()
    }

    #[inline(always)]
    fn first(&self, hash: u64) -> usize {
        hash as usize & (self.entries.len() - 1)
    }

    /// Has the entry looked at first brought near.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        // A third of the spellings are not in their first slot when the table is as full as it gets.
        prefetch(&self.entries[self.first(hash)]);
        prefetch(&self.entries[self.first(hash.wrapping_add(1))]);
    }

    /// The slot of a spelling; nothing when it was never seen.
    #[inline(always)]
    pub fn find(&self, spelling: &Spelling<'_>) -> Option<usize> {
        if spelling.key.is_long() {
            // A copy: a reference to the original would keep it in memory on the way of the short ones too.
            return self.find_long(&{ *spelling });
        }
        let mut slot = self.first(spelling.hash);
        loop {
            let entry = &self.entries[slot];
            if entry.key == spelling.key {
                return Some(slot);
            }
            if entry.key.is_none() {
                return None;
            }
            slot = self.first(slot as u64 + 1);
        }
    }

    #[inline(never)]
    fn find_long(&self, spelling: &Spelling<'_>) -> Option<usize> {
        let mut slot = self.first(spelling.hash);
        loop {
            let entry = &self.entries[slot];
            if entry.key.is_none() {
                return None;
            }
            if entry.key.at(0) == spelling.key {
                let (name, tags) = entry.key.place();
                if self.long[name] == *spelling.name && self.long[tags] == *spelling.tags {
                    return Some(slot);
                }
            }
            slot = self.first(slot as u64 + 1);
        }
    }

    /// Makes room for one more. Returns whether entries have moved: then whoever remembers a slot has to look
    /// it up again.
    pub fn make_room(&mut self, seeds: &Seeds) -> bool {
        let full = self.used >= room(self.entries.len());
        if full {
            self.resize(self.entries.len() * 2, seeds);
        }
        full
    }

    /// Removes the entries that are `gone` from a run of slots that begins at `from`, and returns where the
    /// next run begins; nothing after the last. Entries move, none of them behind the part that was looked at
    /// without having been looked at; [`Slots::insert`] may come in between, [`Slots::make_room`] only if it
    /// does not move entries.
    pub fn remove(
        &mut self,
        from: usize,
        run: usize,
        seeds: &Seeds,
        gone: impl Fn(&Entry) -> bool,
    ) -> Option<usize> {
        let end = self.entries.len().min(from.saturating_add(run));
        let mut slot = from;
        while slot < end {
            // One that moved here is yet to be looked at.
            if self.entries[slot].is_used() && gone(&self.entries[slot]) {
                self.vacate(slot, seeds);
            } else {
                slot += 1;
            }
        }
        (end < self.entries.len()).then_some(end)
    }

    /// Empties a slot, and moves entries behind it up, so that each is found without a hole on the way.
    fn vacate(&mut self, slot: usize, seeds: &Seeds) {
        let key = &self.entries[slot].key;
        if key.is_long() {
            let (name, tags) = key.place();
            self.long_gone += name.len() + tags.len();
        }
        let (mut hole, mut next) = (slot, slot);
        loop {
            next = self.first(next as u64 + 1);
            let entry = &self.entries[next];
            if !entry.is_used() {
                break;
            }
            // How far it is from where it is looked for first, and from the hole.
            let away = self.first((next as u64).wrapping_sub(seeds.hash(&entry.key)));
            let back = self.first((next as u64).wrapping_sub(hole as u64));
            if away >= back {
                self.entries[hole] = std::mem::take(&mut self.entries[next]);
                hole = next;
            }
        }
        self.entries[hole] = Entry::default();
        self.used -= 1;
    }

    /// Gives back what is far too much room for what is left. Returns whether entries have moved, as
    /// [`Slots::make_room`].
    pub fn let_go(&mut self, seeds: &Seeds) -> bool {
        if self.long_gone > LONG_MANY && self.long_gone * 2 > self.long.len() {
            self.compact();
        }
        let mut slots = SLOTS_MIN;
        while room(slots) < self.used * 2 {
            slots *= 2;
        }
        let large = slots * 4 <= self.entries.len();
        if large {
            self.resize(slots, seeds);
        }
        large
    }

    /// Moves the bytes of long spellings together.
    fn compact(&mut self) {
        let mut long = Vec::with_capacity(self.long.len() - self.long_gone);
        for entry in self.entries.iter_mut().filter(|entry| entry.key.is_long()) {
            let (name, tags) = entry.key.place();
            entry.key = entry.key.at(long.len());
            long.extend_from_slice(&self.long[name.start..tags.end]);
        }
        self.long = long;
        self.long_gone = 0;
    }

    /// Takes in a spelling that was not found, after [`Slots::make_room`], and returns its slot.
    pub fn insert(&mut self, spelling: &Spelling<'_>, id: NameId, hits_or_cell: u32) -> usize {
        let mut key = spelling.key;
        if key.is_long() {
            key = key.at(self.long.len());
            self.long.extend_from_slice(spelling.name);
            self.long.extend_from_slice(spelling.tags);
        }
        let slot = self.free(spelling.hash);
        self.entries[slot] = Entry {
            key,
            sum: 0.0,
            hits_or_cell,
            id,
        };
        self.used += 1;
        slot
    }

    fn free(&self, hash: u64) -> usize {
        let mut slot = self.first(hash);
        while !self.entries[slot].key.is_none() {
            slot = self.first(slot as u64 + 1);
        }
        slot
    }

    /// So many slots, enough for all.
    fn resize(&mut self, slots: usize, seeds: &Seeds) {
        let mut entries = Vec::with_capacity(slots);
        prefer_huge_pages(entries.spare_capacity_mut());
        entries.resize(slots, Entry::default());
        for entry in std::mem::replace(&mut self.entries, entries) {
            if !entry.key.is_none() {
                let slot = self.free(seeds.hash(&entry.key));
                self.entries[slot] = entry;
            }
        }
    }
}

/// Spellings that so many slots take.
fn room(slots: usize) -> usize {
    let eighths = if slots < SPARSE { 1 } else { 5 };
    (slots * eighths).div_ceil(8)
}

impl Entry {
    /// Whether it is in use.
    #[inline(always)]
    pub fn is_used(&self) -> bool {
        !self.key.is_none()
    }

    /// What it collects.
    #[inline(always)]
    pub fn kind(&self) -> Kind {
        self.key.kind()
    }

    /// Whether it is a counter that got a value since the last harvest.
    #[inline(always)]
    pub fn is_counted(&self) -> bool {
        // A slot that is not in use has the kind of one, and no hits.
        self.hits_or_cell > 0 && self.key.kind() == Kind::Counter
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::BLOCK;
    use super::*;
    use crate::metric::sample::{Sample, Value};
    use proptest::prelude::*;
    use std::collections::HashMap;

    const VALUES: [Value<'static>; 4] = [
        Value::Count(1.0),
        Value::Time {
            value: 1.0,
            weight: 1.0,
        },
        Value::GaugeAdd(1.0),
        Value::Member(b"1"),
    ];

    /// What a table would look up for a name, whatever follows it in its datagram.
    fn spelling<'a>(
        seeds: &Seeds,
        kind: usize,
        name: &'a [u8],
        tags: &'a [u8],
        behind: u8,
    ) -> Spelling<'a> {
        let mut window = [behind; BLOCK];
        let shown = name.len().min(BLOCK);
        window[..shown].copy_from_slice(&name[..shown]);
        let value = VALUES[kind];
        seeds.spelling(&Sample { name, tags, value }, &window)
    }

    proptest! {
        /// A map of the standard library is the twin.
        #[test]
        fn spellings_are_told_apart_as_by_a_map(
            names in proptest::collection::vec(
                (0..4usize, "[ab\0]{0,3}|a{40,50}b?|[a-c]{60,70}", "|a|b{1,2}|[ab]{30,60}", any::<u8>()),
                1..300,
            ),
        ) {
            let seeds = Seeds::random();
            let (mut slots, mut twin) = (Slots::default(), HashMap::new());
            for (kind, name, tags, behind) in &names {
                let key = (*kind, name.clone(), tags.clone());
                let wanted = spelling(&seeds, *kind, name.as_bytes(), tags.as_bytes(), *behind);
                let found = slots.find(&wanted).map(|slot| slots.entry(slot).id.0);
                prop_assert_eq!(found, twin.get(&key).copied());
                if found.is_none() {
                    let id = twin.len() as u32;
                    slots.make_room(&seeds);
                    let slot = slots.insert(&wanted, NameId(id), 0);
                    slots.entry(slot).hits_or_cell = 1;
                    prop_assert_eq!(slots.entry(slot).is_counted(), *kind == 0);
                    twin.insert(key, id);
                }
            }
            prop_assert_eq!(slots.used(), twin.len());
            for ((kind, name, tags), id) in &twin {
                let wanted = spelling(&seeds, *kind, name.as_bytes(), tags.as_bytes(), 0);
                let slot = slots.find(&wanted).expect("it was taken in");
                prop_assert_eq!(slots.entry(slot).id, NameId(*id));
            }
        }
    }

    type Named = (usize, String, String);

    fn named() -> impl Strategy<Value = Named> {
        let name = "[a-c]{1,3}|[ab]{50,52}";
        let tags = "|[ab]{0,2}|[ab]{40}";
        (0..4usize, name, tags)
    }

    proptest! {
        /// Spellings come and go, and a walk goes through the table in runs while others come.
        #[test]
        fn what_is_removed_is_gone_and_nothing_else(
            rounds in proptest::collection::vec(
                (
                    proptest::collection::vec(named(), 0..120),
                    any::<u64>(),
                    1..200usize,
                ),
                1..8,
            ),
        ) {
            let seeds = Seeds::random();
            let (mut slots, mut twin) = (Slots::default(), HashMap::new());
            let mut ids = 0;
            for (names, sieve, run) in &rounds {
                let mut names = names.iter();
                let mut enter = |slots: &mut Slots, twin: &mut HashMap<_, u32>, ids: &mut u32| {
                    let (kind, name, tags) = names.next()?;
                    let wanted = spelling(&seeds, *kind, name.as_bytes(), tags.as_bytes(), b':');
                    let mut moved = false;
                    if slots.find(&wanted).is_none() {
                        moved = slots.make_room(&seeds);
                        slots.insert(&wanted, NameId(*ids), 0);
                        twin.insert((*kind, name.clone(), tags.clone()), *ids);
                        *ids += 1;
                    }
                    Some(moved)
                };
                for _ in 0..60 {
                    enter(&mut slots, &mut twin, &mut ids);
                }
                let last = ids;
                // Those that come during the walk stay.
                let gone = |id: u32| id < last && sieve >> (id % 64) & 1 == 1;
                let mut at = Some(0);
                while let Some(from) = at {
                    at = slots.remove(from, *run, &seeds, |entry| gone(entry.id.0));
                    if enter(&mut slots, &mut twin, &mut ids) == Some(true) {
                        at = Some(0);
                    }
                }
                twin.retain(|_, id| !gone(*id));
                slots.let_go(&seeds);
                slots.compact();
                prop_assert_eq!(slots.used(), twin.len());
                prop_assert!(slots.used() <= room(slots.slots()));
                for ((kind, name, tags), id) in &twin {
                    let wanted = spelling(&seeds, *kind, name.as_bytes(), tags.as_bytes(), 0);
                    let slot = slots.find(&wanted).expect("it is there");
                    prop_assert_eq!(slots.entry(slot).id, NameId(*id));
                }
                let ids = slots.entries.iter().filter(|entry| entry.is_used());
                prop_assert!(ids.filter(|entry| gone(entry.id.0)).count() == 0);
                let lengths = twin.keys().map(|(_, name, tags)| (name.len() + tags.len(), !tags.is_empty()));
                let long = lengths.filter(|(bytes, tagged)| bytes + usize::from(*tagged) > 46);
                let long: usize = long.map(|(bytes, _)| bytes).sum();
                prop_assert_eq!((slots.long.len(), slots.long_gone), (long, 0));
            }
        }
    }

    #[test]
    fn a_table_of_which_little_is_left_shrinks() {
        let seeds = Seeds::random();
        let mut slots = Slots::default();
        for n in 0..100_000u32 {
            let name = format!("{n:060}");
            slots.make_room(&seeds);
            let spelling = spelling(&seeds, 0, name.as_bytes(), b"", b':');
            slots.insert(&spelling, NameId(n), 0);
        }
        let full = slots.memory();
        assert!(!slots.let_go(&seeds), "there is no room to give back");
        assert_eq!(slots.memory(), full);
        assert_eq!(
            slots.remove(0, usize::MAX, &seeds, |entry| entry.id.0 >= 8),
            None
        );
        assert!(slots.let_go(&seeds));
        // Twice the room that eight need, since more are likely.
        assert_eq!((slots.used(), slots.slots()), (8, 2 * SLOTS_MIN));
        assert_eq!(slots.memory(), 2 * SLOTS_MIN * 64 + 8 * 60);
    }

    #[test]
    fn a_full_table_grows_and_says_that_entries_moved() {
        let seeds = Seeds::random();
        let mut slots = Slots::default();
        let mut grown = 0;
        let mut fill_up_to = |names: u32| {
            for n in slots.used() as u32..names {
                let name = n.to_string();
                grown += u32::from(slots.make_room(&seeds));
                let spelling = spelling(&seeds, 0, name.as_bytes(), b"", b':');
                slots.insert(&spelling, NameId(n), 0);
            }
            let in_use = slots.entries.iter().filter(|entry| !entry.key.is_none());
            assert_eq!(in_use.count(), names as usize);
            (grown, slots.slots())
        };
        assert_eq!(fill_up_to(8), (0, SLOTS_MIN));
        assert_eq!(fill_up_to(1024), (7, 8192));
        assert_eq!(fill_up_to(10_240), (8, SPARSE));
        assert_eq!(fill_up_to(10_241), (9, 2 * SPARSE));
    }

    /// Slots that a look-up of a spelling that is there looks at.
    fn looks(slots: &Slots, spelling: &Spelling<'_>) -> usize {
        let mut slot = slots.first(spelling.hash);
        let mut looks = 1;
        while slots.entries[slot].key.at(0) != spelling.key.at(0) {
            slot = slots.first(slot as u64 + 1);
            looks += 1;
        }
        looks
    }

    /// Names that lie in one slot for who knows the seeds, as a sender would if they were always the same.
    fn colliding(seeds: &Seeds, slots: u64, names: usize) -> Vec<String> {
        let all = (0_u64..).map(|n| format!("{n:x}"));
        let hits =
            |name: &String| spelling(seeds, 0, name.as_bytes(), b"", b':').hash & (slots - 1) == 0;
        all.filter(hits).take(names).collect()
    }

    #[test]
    fn names_that_collide_for_who_knows_other_seeds_do_not_here() {
        const NAMES: usize = 400;
        let known = Seeds::known(7);
        let names = colliding(&known, 4096, NAMES);
        let looks_in_all = |seeds: &Seeds| {
            let mut slots = Slots::default();
            let spelled = || {
                names
                    .iter()
                    .map(|name| spelling(seeds, 0, name.as_bytes(), b"", b':'))
            };
            for spelling in spelled() {
                slots.make_room(seeds);
                slots.insert(&spelling, NameId(0), 0);
            }
            assert_eq!(slots.slots(), 4096);
            spelled().map(|it| looks(&slots, &it)).sum::<usize>()
        };
        // They do collide there: each is found behind all before it.
        assert_eq!(looks_in_all(&known), NAMES * (NAMES + 1) / 2);
        // Of names that know nothing of one another some 5 in 100 collide when a tenth of the slots is in
        // use; four standard deviations and more are left for chance.
        let looks = looks_in_all(&Seeds::random());
        assert!(looks < NAMES * 3 / 2, "{looks}");
    }
}
