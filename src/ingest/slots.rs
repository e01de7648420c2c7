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
}

impl Default for Slots {
    /// None yet.
    fn default() -> Self {
        Self {
            entries: vec![Entry::default(); SLOTS_MIN],
            used: 0,
            long: Vec::new(),
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
        let eighths = if self.entries.len() < SPARSE { 1 } else { 5 };
        let full = self.used * 8 >= self.entries.len() * eighths;
        if full {
            self.grow(seeds);
        }
        full
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

    /// Twice the slots.
    fn grow(&mut self, seeds: &Seeds) {
        let slots = self.entries.len() * 2;
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

impl Entry {
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
