//! What a spelling never seen is admitted as: the name it stands for, a name of ours where that finds no
//! room, or nothing where a rule drops it.
//!
//! Only for spellings that have no slot, so that allocation and a look at the registry are fine here. But who
//! sends names without end comes here with each value: what is done for one that finds no room is short, and
//! what is remembered of it bounded.

use super::key::{Seeds, Spelling};
use super::mapping::Mapping;
use super::name::{self, Tagged};
use super::slots::Slots;
use super::{Dialect, Options};
use crate::metric::prefixes::{Growth, Prefixes};
use crate::metric::registry::{Fold, Found, NameId, Registry};
use crate::metric::retired::Retired;
use crate::metric::sample::Kind;
use foldhash::fast::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Orders of the tags of one name that have a slot each.
const ORDERS_MAX: u8 = 8;

/// Spellings of one worker that have a slot, above the number of all names: enough for rules that make many
/// names one. Whoever spells a name in ever other ways fills some 50 MB with them.
pub const SPELLINGS_SPARE: usize = 1 << 18;

/// Bytes of long spellings with a slot: so many for each name,
const LONG_MEAN: usize = 256;
/// and so many besides.
const LONG_SPARE: usize = 64 << 20;

/// What becomes of a spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// Its name is dropped.
    Dropped,
    /// It has a slot of its own.
    Own {
        /// The name it stands for.
        id: NameId,
        /// Tags left out of it because they have no key.
        keyless: u64,
    },
    /// It has the slot that is under [`shared_spelling`] of its name.
    Shared(NameId),
    /// There is no room for its name.
    Folded(Fold),
}

/// What decides about spellings, and what it has to remember for that.
#[derive(Debug)]
pub struct Admission {
    registry: Arc<Registry>,
    dialect: Dialect,
    sanitize: bool,
    mapping: Mapping,
    /// Longest name that is taken in, in bytes.
    max_name_length: usize,
    /// Spellings whose names are dropped.
    dropped: Remembered,
    /// Spellings whose names found no room, with the reason by its number,
    folded: Remembered,
    /// as of this [`Registry::openings`].
    openings: u64,
    /// Prefixes of names that were new or folded since the last harvest.
    growth: Prefixes,
    /// A name on its way there.
    scratch: String,
    /// Dialect auto: read tags that stand in names.
    name_tags: bool,
    /// How often the tags of a name, as it comes, were spelled out of order, and what name it became: by the
    /// hash of that name.
    orders: hashbrown::HashMap<(Kind, u64), (u8, NameId), RandomState>,
}

/// The spelling of the slot that spellings of a name share. Whoever shuffles ten tags can spell them in three
/// million ways: past a few of them all are there, under a spelling that no line has.
pub fn shared_spelling(id: NameId) -> String {
    format!("\n\n{}", id.0)
}

impl Admission {
    /// Remembers nothing yet.
    pub fn new(options: &Options, registry: Arc<Registry>) -> Self {
        Self {
            registry,
            dialect: options.dialect,
            sanitize: options.sanitize_names,
            mapping: options.mapping.clone(),
            max_name_length: options.max_name_length,
            dropped: Remembered::default(),
            folded: Remembered::default(),
            openings: 0,
            growth: Prefixes::default(),
            scratch: String::new(),
            name_tags: options.name_tags,
            orders: hashbrown::HashMap::default(),
        }
    }

    /// Where names get their ids.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Whether spellings come to other names with these options.
    pub fn names_differ(&self, options: &Options) -> bool {
        let names = |options: &Options| (options.sanitize_names, options.name_tags);
        (self.sanitize, self.name_tags) != names(options) || self.mapping != options.mapping
    }

    /// Takes over what changes nothing about names that are known.
    pub fn reconfigure(&mut self, options: &Options) {
        self.max_name_length = options.max_name_length;
        self.folded = Remembered::default();
    }

    /// The prefixes under which names were new or folded since this was last asked.
    pub fn take_growth(&mut self) -> Prefixes {
        std::mem::take(&mut self.growth)
    }

    /// Whether the name of a spelling is known to be dropped.
    #[inline]
    pub fn drops(&self, spelling: &Spelling<'_>) -> bool {
        self.dropped.0.find(spelling).is_some()
    }

    /// Decides about a spelling that is in no slot. `seeds` are those it was hashed with, always the same,
    /// and `slots` those there are.
    pub fn admit(
        &mut self,
        kind: Kind,
        spelling: &Spelling<'_>,
        seeds: &Seeds,
        slots: &Slots,
    ) -> Admitted {
        if self.drops(spelling) {
            return Admitted::Dropped;
        }
        let openings = self.registry.openings();
        if std::mem::replace(&mut self.openings, openings) != openings {
            self.folded = Remembered::default();
        }
        if let Some(reason) = self.folded.find(spelling) {
            self.count_plain(spelling);
            return Admitted::Folded(Fold::ALL[reason as usize]);
        }
        let Some(Named { written, mapped }) = self.name(kind, spelling) else {
            self.dropped.remember(spelling, 0, seeds);
            return Admitted::Dropped;
        };
        let stored = mapped.as_ref().unwrap_or(&written);
        let Found { id, is_new } = match self.find(kind, stored) {
            Ok(found) => found,
            Err(fold) => {
                self.growth.add(&stored.shown, Growth::FOLDED);
                if self.mapping.is_empty() && is_plain(spelling) {
                    self.folded.remember(spelling, fold as u32, seeds);
                }
                return Admitted::Folded(fold);
            }
        };
        if is_new {
            self.growth.add(&stored.shown, Growth::NAME);
        }
        if self.registry.is_short() || !self.has_place(spelling, &written, slots) {
            return Admitted::Shared(id);
        }
        if let Some(sorted) = &written.sorted
            && !self.is_one_of_few(kind, sorted, id)
        {
            return Admitted::Shared(id);
        }
        let keyless = written.keyless;
        Admitted::Own { id, keyless }
    }

    /// Bytes of what it remembers.
    pub fn memory(&self) -> usize {
        self.dropped.0.memory() + self.folded.0.memory() + self.orders.allocation_size()
    }

    /// Forgets what it remembers of names that are gone.
    pub fn forget(&mut self, retired: &Retired) {
        self.orders
            .retain(|(kind, _), (_, became)| !retired.contains(*kind, *became));
        if self.orders.len() * 4 < self.orders.capacity() {
            self.orders.shrink_to_fit();
        }
    }

    /// Whether a spelling may have a slot of its own beside those that have one.
    fn has_place(&self, spelling: &Spelling<'_>, written: &Tagged, slots: &Slots) -> bool {
        let names = self.registry.brought();
        let bytes = spelling.name.len() + spelling.tags.len();
        // Blanks without end are one `_`: a spelling may be far longer than what it stands for.
        bytes <= 2 * written.shown.len() + 64
            && slots.used() < names + SPELLINGS_SPARE
            && slots.long_bytes() + bytes <= names.saturating_mul(LONG_MEAN) + LONG_SPARE
    }

    /// What a spelling stands for. Nothing when a rule drops it.
    fn name(&self, kind: Kind, spelling: &Spelling<'_>) -> Option<Named> {
        let Spelling { name, tags, .. } = *spelling;
        if self.dialect == Dialect::Statsd {
            let name = name::canonical(name, tags, self.sanitize);
            let shown = self.mapping.map(kind, name, self.sanitize)?;
            let (sorted, keyless) = (None, 0);
            let written = Tagged {
                shown,
                sorted,
                keyless,
            };
            let mapped = None;
            return Some(Named { written, mapped });
        }
        let written = name::tagged(name, tags, self.sanitize, self.name_tags);
        let mapped = if self.mapping.is_empty() {
            None
        } else {
            let shown = written.shown.clone();
            let name = self.mapping.map(kind, shown, self.sanitize)?;
            let (name, tags) = (name.as_bytes(), b"");
            Some(name::tagged(name, tags, self.sanitize, false))
        };
        Some(Named { written, mapped })
    }

    /// The id of a name, given now if it is new and there is room for it.
    fn find(&self, kind: Kind, name: &Tagged) -> Result<Found, Fold> {
        let Tagged { shown, sorted, .. } = name;
        let key = sorted.as_ref().unwrap_or(shown);
        if shown.len() > self.max_name_length {
            let known = self.registry.find(kind, key);
            let is_new = false;
            return known.map(|id| Found { id, is_new }).ok_or(Fold::Length);
        }
        self.registry.admit(kind, key, shown)
    }

    /// Counts a value of a name that was folded before, as [`is_plain`] has it.
    fn count_plain(&mut self, spelling: &Spelling<'_>) {
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        self.scratch.clear();
        self.scratch.push_str(text(spelling.name));
        if !spelling.tags.is_empty() {
            for tag in text(spelling.tags).split(',') {
                let (key, value) = tag.split_once(':').unwrap_or((tag, tag));
                [";", key, "=", value]
                    .iter()
                    .for_each(|part| self.scratch.push_str(part));
            }
        }
        self.growth.add(&self.scratch, Growth::FOLDED);
    }

    /// Whether a spelling whose tags are not in the order of the alphabet is one of the first few of its name
    /// as it comes: many names that a rule makes one are not many orders of its tags.
    fn is_one_of_few(&mut self, kind: Kind, sorted: &str, id: NameId) -> bool {
        let name = self.orders.hasher().hash_one(sorted);
        let (spellings, became) = self.orders.entry((kind, name)).or_default();
        *became = id;
        let is_one = *spellings < ORDERS_MAX;
        *spellings += u8::from(is_one);
        is_one
    }
}

/// What a spelling stands for: as it was written, and what rules made of that.
struct Named {
    written: Tagged,
    mapped: Option<Tagged>,
}

/// Whether a spelling is clean as it stands: then its prefixes are those of its name.
fn is_plain(spelling: &Spelling<'_>) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    let in_tags = |byte: &u8| plain(byte) || b":,".contains(byte);
    spelling.name.iter().all(plain) && spelling.tags.iter().all(in_tags)
}

/// Spellings that have no slot, and what became of each, so that it need not be found out again.
///
/// They are often without number, so it forgets all of them when they take too much memory, and begins anew.
#[derive(Debug, Default)]
struct Remembered(Slots);

/// Memory of the spellings that a worker remembers for one reason, in bytes.
const REMEMBERED_BYTES: usize = 4 << 20;

impl Remembered {
    fn find(&mut self, spelling: &Spelling<'_>) -> Option<u32> {
        let slot = self.0.find(spelling)?;
        Some(self.0.entry(slot).hits_or_cell)
    }

    fn remember(&mut self, spelling: &Spelling<'_>, what: u32, seeds: &Seeds) {
        if self.0.memory() >= REMEMBERED_BYTES {
            self.0 = Slots::default();
        }
        self.0.make_room(seeds);
        self.0.insert(spelling, NameId::default(), what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::scan::BLOCK;
    use crate::metric::sample::{Sample, Value};

    #[test]
    fn remembered_spellings_are_known_until_they_take_too_much() {
        let seeds = Seeds::random();
        let mut remembered = Remembered::default();
        let sees = |remembered: &mut Remembered, name: &str| {
            let mut window = [b':'; BLOCK];
            let shown = name.len().min(BLOCK);
            window[..shown].copy_from_slice(&name.as_bytes()[..shown]);
            let (name, tags, value) = (name.as_bytes(), &b""[..], Value::Count(1.0));
            let spelling = seeds.spelling(&Sample { name, tags, value }, &window);
            let known = remembered.find(&spelling) == Some(7);
            if !known {
                remembered.remember(&spelling, 7, &seeds);
            }
            known
        };
        for length in [1, 100] {
            let name = |n: usize| format!("{n:0length$}");
            for n in 0..1000 {
                assert!(!sees(&mut remembered, &name(n)));
            }
            for n in 0..1000 {
                assert!(sees(&mut remembered, &name(n)));
            }
        }
        for n in 0..100 {
            sees(&mut remembered, &format!("{n}{}", "x".repeat(100_000)));
            assert!(remembered.0.memory() <= REMEMBERED_BYTES + 200_000);
        }
        for n in 0..100_000 {
            sees(&mut remembered, &n.to_string());
            assert!(remembered.0.memory() < 2 * REMEMBERED_BYTES);
        }
    }

    /// A worker's spellings, each of them another one of the name `a` or `b`.
    #[test]
    fn spellings_have_a_place_as_long_as_there_are_not_far_more_than_names() {
        let seeds = Seeds::random();
        let registry = Arc::new(Registry::new());
        let mut admission = Admission::new(&Options::default(), registry);
        let mut admit = |name: &str, tags: &str, slots: &mut Slots| {
            let mut window = [b':'; BLOCK];
            let shown = name.len().min(BLOCK);
            window[..shown].copy_from_slice(&name.as_bytes()[..shown]);
            let (name, tags, value) = (name.as_bytes(), tags.as_bytes(), Value::Count(1.0));
            let spelling = seeds.spelling(&Sample { name, tags, value }, &window);
            let admitted = admission.admit(Kind::Counter, &spelling, &seeds, slots);
            if let Admitted::Own { id, .. } = admitted {
                slots.make_room(&seeds);
                slots.insert(&spelling, id, 0);
            }
            admitted
        };
        let spelled = |n: usize| {
            let byte = |digit: usize| char::from(1 + (digit % 30) as u8);
            let mut name = "a".to_owned();
            name.extend([n, n / 30, n / 900, n / 27_000].map(byte));
            name.replace(['\t', '\n', '\x0b', '\x0c', '\r'], "")
        };
        let own = |id| Admitted::Own {
            id: NameId(id),
            keyless: 0,
        };
        let shared = Admitted::Shared(NameId(0));
        let mut slots = Slots::default();
        assert_eq!(admit("a", "", &mut slots), own(0));
        let mut n = 0;
        while slots.used() <= SPELLINGS_SPARE {
            // Some of them come twice, and are in their slots.
            if admit(&spelled(n), "", &mut slots) == shared {
                break;
            }
            n += 1;
        }
        assert_eq!(slots.used(), SPELLINGS_SPARE + 1);
        assert_eq!(admit("a\x01\x01\x01\x01\x01\x01", "", &mut slots), shared);
        // A new name makes room for itself.
        assert_eq!(admit("b", "", &mut slots), own(1));
        assert_eq!(admit("b\x01", "", &mut slots), Admitted::Shared(NameId(1)));

        let mut slots = Slots::default();
        let long = "x".repeat(4000);
        let sent = (0..20_000).map(|n| admit("c", &format!("k:{long}{}", spelled(n)), &mut slots));
        let places = sent.filter(|it| matches!(it, Admitted::Own { .. })).count();
        assert_eq!(slots.used(), places);
        assert!((16_000..17_000).contains(&places), "{places}");
    }
}
