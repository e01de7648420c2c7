//! What a spelling never seen is admitted as: the name it stands for, or nothing where a rule drops that.
//! Only for spellings that have no slot, so that allocation and a look at the registry are fine here.

use super::key::{Seeds, Spelling};
use super::mapping::Mapping;
use super::name::{self, Tagged};
use super::slots::Slots;
use super::{Dialect, Options};
use crate::metric::registry::{NameId, Registry};
use crate::metric::sample::Kind;
use foldhash::fast::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Orders of the tags of one name that have a slot each.
const ORDERS_MAX: u8 = 8;

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
}

/// What decides about spellings, and what it has to remember for that.
#[derive(Debug)]
pub struct Admission {
    registry: Arc<Registry>,
    dialect: Dialect,
    sanitize: bool,
    mapping: Mapping,
    dropped: Dropped,
    /// Dialect auto: read tags that stand in names.
    name_tags: bool,
    /// How often the tags of a name, as it comes, were spelled out of order: by the hash of that name.
    orders: hashbrown::HashMap<(Kind, u64), u8, RandomState>,
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
            dropped: Dropped::default(),
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

    /// Decides about a spelling that is in no slot. `seeds` are those it was hashed with, always the same.
    pub fn admit(&mut self, kind: Kind, spelling: &Spelling<'_>, seeds: &Seeds) -> Admitted {
        if self.dropped.knows(spelling) {
            return Admitted::Dropped;
        }
        let Some((id, written)) = self.name(kind, spelling) else {
            self.dropped.remember(spelling, seeds);
            return Admitted::Dropped;
        };
        if let Some(sorted) = &written.sorted
            && !self.is_one_of_few(kind, sorted)
        {
            return Admitted::Shared(id);
        }
        let keyless = written.keyless;
        Admitted::Own { id, keyless }
    }

    /// The name of a spelling never seen, and how it was written before rules saw it. Nothing when a rule
    /// drops it.
    fn name(&self, kind: Kind, spelling: &Spelling<'_>) -> Option<(NameId, Tagged)> {
        let Spelling { name, tags, .. } = *spelling;
        if self.dialect == Dialect::Statsd {
            let name = name::canonical(name, tags, self.sanitize);
            let shown = self.mapping.map(kind, name, self.sanitize)?;
            let id = self.registry.id(kind, &shown);
            let (sorted, keyless) = (None, 0);
            let written = Tagged {
                shown,
                sorted,
                keyless,
            };
            return Some((id, written));
        }
        let written = name::tagged(name, tags, self.sanitize, self.name_tags);
        let mapped;
        let stored = if self.mapping.is_empty() {
            &written
        } else {
            let shown = written.shown.clone();
            let name = self.mapping.map(kind, shown, self.sanitize)?;
            mapped = name::tagged(name.as_bytes(), b"", self.sanitize, false);
            &mapped
        };
        let Tagged { shown, sorted, .. } = stored;
        let id = match sorted {
            Some(sorted) => self.registry.id_shown_as(kind, sorted, shown),
            None => self.registry.id(kind, shown),
        };
        Some((id, written))
    }

    /// Whether a spelling whose tags are not in the order of the alphabet is one of the first few of its name
    /// as it comes: many names that a rule makes one are not many orders of its tags.
    fn is_one_of_few(&mut self, kind: Kind, sorted: &str) -> bool {
        let name = self.orders.hasher().hash_one(sorted);
        let spellings = self.orders.entry((kind, name)).or_default();
        let is_one = *spellings < ORDERS_MAX;
        *spellings += u8::from(is_one);
        is_one
    }
}

/// Spellings whose names are dropped, so that no rule looks at them again.
///
/// What is dropped are often names without number, so it forgets all of them when they take too much memory,
/// and begins anew.
#[derive(Debug, Default)]
struct Dropped(Slots);

/// Memory of a worker's dropped spellings, in bytes.
const DROPPED_BYTES: usize = 4 << 20;

impl Dropped {
    fn knows(&self, spelling: &Spelling<'_>) -> bool {
        self.0.find(spelling).is_some()
    }

    fn remember(&mut self, spelling: &Spelling<'_>, seeds: &Seeds) {
        if self.0.memory() >= DROPPED_BYTES {
            self.0 = Slots::default();
        }
        self.0.make_room(seeds);
        self.0.insert(spelling, NameId::default(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::scan::BLOCK;
    use crate::metric::sample::{Sample, Value};

    #[test]
    fn dropped_spellings_are_known_until_they_take_too_much() {
        let seeds = Seeds::random();
        let mut dropped = Dropped::default();
        let sees = |dropped: &mut Dropped, name: &str| {
            let mut window = [b':'; BLOCK];
            let shown = name.len().min(BLOCK);
            window[..shown].copy_from_slice(&name.as_bytes()[..shown]);
            let (name, tags, value) = (name.as_bytes(), &b""[..], Value::Count(1.0));
            let spelling = seeds.spelling(&Sample { name, tags, value }, &window);
            let known = dropped.knows(&spelling);
            if !known {
                dropped.remember(&spelling, &seeds);
            }
            known
        };
        for length in [1, 100] {
            let name = |n: usize| format!("{n:0length$}");
            for n in 0..1000 {
                assert!(!sees(&mut dropped, &name(n)));
            }
            for n in 0..1000 {
                assert!(sees(&mut dropped, &name(n)));
            }
        }
        for n in 0..100 {
            sees(&mut dropped, &format!("{n}{}", "x".repeat(100_000)));
            assert!(dropped.0.memory() <= DROPPED_BYTES + 200_000);
        }
        for n in 0..100_000 {
            sees(&mut dropped, &n.to_string());
            assert!(dropped.0.memory() < 2 * DROPPED_BYTES);
        }
    }
}
