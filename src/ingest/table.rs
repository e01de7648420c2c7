//! What a worker collects, found by the bytes a name is spelled with.
//!
//! A spelling is looked up as it stands in the datagram; only one never seen is cleaned and takes
//! its [`NameId`] from the registry. So the common sample costs a hash and one cache line: key and
//! counter lie in the same 64 bytes. Several spellings of a name share one id, and one cell where
//! order matters.

use super::name;
use crate::metric::cell::{Gauge, Members, Spare, Stamp, Timer};
use crate::metric::harvest::{Harvest, Part, Tally, TimerPart};
use crate::metric::registry::{NameId, Registry};
use crate::metric::sample::{Kind, Reject, Sample, Value};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

/// Key bytes that fit into an entry; longer keys lie in an arena beside the table.
const INLINE: usize = 40;

/// Spellings from which on a table counts as large: 2 MiB with their entries, more than a core's own
/// cache has left beside the datagrams.
const LARGE: usize = 16_384;

/// Stands between name and tags in a key. No name holds a newline.
const TAGS_FOLLOW: u8 = b'\n';

/// One spelling: 64 bytes, one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Entry {
    /// Counters: the sum since the last harvest.
    sum: f64,
    /// Counters: values added since the last harvest. Other kinds: the index of the cell.
    hits_or_cell: u32,
    /// Low half of the hash: tells keys apart before their bytes are looked at.
    hash: u32,
    id: NameId,
    len: u16,
    /// The key, or where it lies in the arena.
    key: [u8; INLINE],
}

const _: () = assert!(size_of::<Entry>() == 64);
const _: () = assert!(super::packet::DATAGRAM_MAX <= u16::MAX as usize);

/// Spellings of one kind.
#[derive(Debug, Default)]
struct Spellings {
    entries: HashTable<Entry>,
    /// Keys longer than [`INLINE`], one after another.
    long: Vec<u8>,
}

/// The key of a sample as it lies in the datagram, in two pieces.
#[derive(Clone, Copy)]
struct Key<'a> {
    name: &'a [u8],
    tags: &'a [u8],
}

impl<'a> Key<'a> {
    #[inline(always)]
    fn of(sample: &Sample<'a>) -> Self {
        Self {
            name: sample.name,
            tags: sample.tags,
        }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.name.len()
            + if self.tags.is_empty() {
                0
            } else {
                1 + self.tags.len()
            }
    }

    #[inline(always)]
    fn hash(&self, state: &RandomState) -> u64 {
        let mut hasher = state.build_hasher();
        hasher.write(self.name);
        if !self.tags.is_empty() {
            hasher.write(self.tags);
        }
        hasher.finish()
    }

    #[inline(always)]
    fn is(&self, stored: &[u8]) -> bool {
        if self.tags.is_empty() {
            return stored == self.name;
        }
        let (name, tags) = stored.split_at(self.name.len());
        name == self.name && tags[0] == TAGS_FOLLOW && &tags[1..] == self.tags
    }

    fn write_to(&self, out: &mut [u8]) {
        let (name, tags) = out.split_at_mut(self.name.len());
        name.copy_from_slice(self.name);
        if let [separator, tags @ ..] = tags {
            *separator = TAGS_FOLLOW;
            tags.copy_from_slice(self.tags);
        }
    }
}

/// The bytes of a stored key: name, or name, newline and tags.
#[inline(always)]
fn stored<'a>(entry: &'a Entry, long: &'a [u8]) -> &'a [u8] {
    let len = entry.len as usize;
    if len <= INLINE {
        return &entry.key[..len];
    }
    let at = usize::from_le_bytes(*entry.key.first_chunk().expect("INLINE holds an offset"));
    &long[at..at + len]
}

impl Spellings {
    #[inline(always)]
    fn find(&mut self, key: Key<'_>, hash: u64) -> Option<&mut Entry> {
        let (len, low) = (key.len(), hash as u32);
        let long = &self.long;
        self.entries.find_mut(hash, |entry| {
            entry.hash == low && entry.len as usize == len && key.is(stored(entry, long))
        })
    }

    #[cold]
    fn insert(
        &mut self,
        key: Key<'_>,
        hash: u64,
        state: &RandomState,
        id: NameId,
        hits_or_cell: u32,
    ) -> &mut Entry {
        let mut entry = Entry {
            sum: 0.0,
            hits_or_cell,
            hash: hash as u32,
            id,
            len: u16::try_from(key.len()).expect("a key is shorter than a datagram"),
            key: [0; INLINE],
        };
        if key.len() <= INLINE {
            key.write_to(&mut entry.key[..key.len()]);
        } else {
            let at = self.long.len();
            self.long.resize(at + key.len(), 0);
            key.write_to(&mut self.long[at..]);
            entry.key[..8].copy_from_slice(&at.to_le_bytes());
        }
        let long = &self.long;
        let rehash = |entry: &Entry| {
            let key = stored(entry, long);
            let at = key.iter().position(|byte| *byte == TAGS_FOLLOW);
            let (name, tags) = at.map_or((key, &key[..0]), |at| (&key[..at], &key[at + 1..]));
            Key { name, tags }.hash(state)
        };
        self.entries.insert_unique(hash, entry, rehash).into_mut()
    }
}

/// Cells of one kind, with those that were touched since the last harvest.
#[derive(Debug)]
struct Cells<C> {
    cells: Vec<Part<C>>,
    /// The cell of a name, so that all its spellings find the same one.
    by_id: hashbrown::HashMap<NameId, u32, RandomState>,
    touched: Vec<u32>,
}

impl<C> Default for Cells<C> {
    fn default() -> Self {
        Self {
            cells: Vec::new(),
            by_id: hashbrown::HashMap::default(),
            touched: Vec::new(),
        }
    }
}

impl<C: Default> Cells<C> {
    fn of(&mut self, id: NameId) -> u32 {
        *self.by_id.entry(id).or_insert_with(|| {
            self.cells.push(Part {
                id,
                hits: 0,
                cell: C::default(),
            });
            u32::try_from(self.cells.len() - 1).expect("fewer than 2^32 names")
        })
    }

    /// The cell, which gets a value now.
    #[inline]
    fn touch(&mut self, cell: u32) -> &mut C {
        let found = &mut self.cells[cell as usize];
        if found.hits == 0 {
            self.touched.push(cell);
        }
        // An interval may be a day long: stuck at the top is better than around and untouched again.
        found.hits = found.hits.saturating_add(1);
        &mut found.cell
    }
}

/// Everything one worker knows. Owned by its thread, shared with nobody.
#[derive(Debug)]
pub struct Table {
    state: RandomState,
    registry: Arc<Registry>,
    sanitize: bool,
    exact_samples: usize,
    spare: Spare,
    /// Last stamp given out; each gauge write gets its own.
    now: u64,
    counters: Spellings,
    others: [Spellings; 3],
    timers: Cells<Timer>,
    gauges: Cells<Gauge>,
    sets: Cells<Members>,
    /// What this worker did since the last harvest.
    pub tally: Tally,
}

impl Table {
    /// An empty table. Hashing is seeded at random, so that no sender can aim at one bucket.
    pub fn new(options: &super::Options, registry: Arc<Registry>) -> Self {
        Self {
            state: RandomState::default(),
            registry,
            sanitize: options.sanitize_names,
            exact_samples: options.exact_samples,
            spare: Spare::new(),
            now: 0,
            counters: Spellings::default(),
            others: Default::default(),
            timers: Cells::default(),
            gauges: Cells::default(),
            sets: Cells::default(),
            tally: Tally::default(),
        }
    }

    /// Notes the time of a batch; gauge writes in it are stamped from here on.
    #[inline]
    pub fn begin_batch(&mut self, now: Stamp) {
        self.now = self.now.max(now.0);
        self.tally.last_packet = self.now;
    }

    /// Takes over what may change while running. Names may be cleaned differently from now on, so
    /// every spelling is looked up anew. Call it right after a harvest: what was collected since the
    /// last one would be lost.
    pub fn reconfigure(&mut self, options: &super::Options) {
        if self.sanitize != options.sanitize_names {
            debug_assert!(self.tally == Tally::default(), "a table with values in it");
            *self = Self::new(options, self.registry.clone());
        }
    }

    /// Whether the table has outgrown the nearer caches, so that a look-up waits for memory. Then it
    /// pays to have many under way at once: [`Table::hash`] a run of samples first, and only then
    /// [`Table::record_hashed`] them, with nothing between two look-ups. Below that size the detour
    /// costs more than it gains (tuning.md).
    #[inline]
    pub fn is_large(&self) -> bool {
        self.spellings() > LARGE
    }

    /// The hash of a sample's key, for [`Table::record_hashed`] of the same table.
    #[inline(always)]
    pub fn hash(&self, sample: &Sample<'_>) -> u64 {
        Key::of(sample).hash(&self.state)
    }

    /// Adds a sample to what its name collects.
    #[inline(always)]
    pub fn record(&mut self, sample: &Sample<'_>) {
        let hash = self.hash(sample);
        self.record_hashed(sample, hash);
    }

    /// [`Table::record`] for a sample that was hashed before.
    #[inline(always)]
    pub fn record_hashed(&mut self, sample: &Sample<'_>, hash: u64) {
        let key = Key::of(sample);
        let kind = sample.value.kind();
        self.tally.recorded[kind as usize] += 1;
        if let Value::Count(count) = sample.value {
            let entry = match self.counters.find(key, hash) {
                Some(entry) => entry,
                None => {
                    let id = name_id(&self.registry, kind, key, self.sanitize);
                    self.counters.insert(key, hash, &self.state, id, 0)
                }
            };
            // What is not a number starts over, as the reference has it.
            let before = if entry.sum.is_nan() { 0.0 } else { entry.sum };
            entry.sum = before + count;
            entry.hits_or_cell = entry.hits_or_cell.saturating_add(1);
            return;
        }
        let cell = match self.others[kind as usize - 1].find(key, hash) {
            Some(entry) => entry.hits_or_cell,
            None => self.admit(kind, key, hash),
        };
        match sample.value {
            Value::Count(_) => {}
            Value::Time { value, weight } => {
                self.timers
                    .touch(cell)
                    .record(value, weight, self.exact_samples, &mut self.spare);
            }
            Value::GaugeSet(value) => {
                self.now += 1;
                self.gauges.touch(cell).set(Stamp(self.now), value);
            }
            Value::GaugeAdd(delta) => {
                self.now += 1;
                self.gauges.touch(cell).add(Stamp(self.now), delta);
            }
            Value::Member(member) => {
                let members = self.sets.touch(cell);
                if !members.contains(member) {
                    insert_member(members, member);
                }
            }
        }
    }

    /// Counts a refused value.
    pub fn reject(&mut self, reason: Reject, line: &[u8]) {
        self.tally.reject(reason, line);
    }

    /// Spellings known, over all kinds.
    #[inline]
    pub fn spellings(&self) -> usize {
        self.counters.entries.len() + self.others.iter().map(|s| s.entries.len()).sum::<usize>()
    }

    /// Moves everything collected since the last harvest into `harvest`, which must be empty.
    /// Names, cells and their memory stay; histograms and members go.
    pub fn harvest(&mut self, harvest: &mut Harvest) {
        for entry in self
            .counters
            .entries
            .iter_mut()
            .filter(|entry| entry.hits_or_cell > 0)
        {
            harvest.counters.push(Part {
                id: entry.id,
                hits: std::mem::take(&mut entry.hits_or_cell),
                cell: std::mem::take(&mut entry.sum),
            });
        }
        for cell in self.timers.touched.drain(..) {
            let Part { id, hits, cell } = &mut self.timers.cells[cell as usize];
            harvest.samples.extend_from_slice(&cell.samples);
            harvest.timers.push(TimerPart {
                id: *id,
                hits: std::mem::take(hits),
                samples: cell.samples.len(),
                weight: cell.weight,
                histogram: cell.histogram.take(),
            });
            cell.clear(&mut self.spare);
        }
        for cell in self.gauges.touched.drain(..) {
            let part = &mut self.gauges.cells[cell as usize];
            harvest.gauges.push(part.clone());
            part.hits = 0;
            part.cell.clear();
        }
        for cell in self.sets.touched.drain(..) {
            let part = &mut self.sets.cells[cell as usize];
            harvest.sets.push(Part {
                id: part.id,
                hits: std::mem::take(&mut part.hits),
                cell: std::mem::take(&mut part.cell),
            });
        }
        // What is left over from an interval that needed more is let go.
        self.spare = std::mem::take(&mut harvest.spare);
        harvest.tally = std::mem::take(&mut self.tally);
    }

    #[cold]
    fn admit(&mut self, kind: Kind, key: Key<'_>, hash: u64) -> u32 {
        let id = name_id(&self.registry, kind, key, self.sanitize);
        let cell = match kind {
            Kind::Timer => self.timers.of(id),
            Kind::Gauge => self.gauges.of(id),
            Kind::Set | Kind::Counter => self.sets.of(id),
        };
        self.others[kind as usize - 1]
            .insert(key, hash, &self.state, id, cell)
            .hits_or_cell
    }
}

/// The id of the name a spelling stands for: the slow way, once for each spelling.
#[cold]
fn name_id(registry: &Registry, kind: Kind, key: Key<'_>, sanitize: bool) -> NameId {
    registry.id(kind, &name::canonical(key.name, key.tags, sanitize))
}

/// A member is text to the reference: bytes that are none count as the text they would be read as.
#[cold]
fn insert_member(members: &mut Members, member: &[u8]) {
    let text = String::from_utf8_lossy(member);
    members.insert(text.as_bytes().into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Options;

    fn table() -> Table {
        Table::new(&Options::default(), Arc::new(Registry::new()))
    }

    fn sample<'a>(name: &'a str, tags: &'a str, value: Value<'a>) -> Sample<'a> {
        Sample {
            name: name.as_bytes(),
            tags: tags.as_bytes(),
            value,
        }
    }

    fn harvest(table: &mut Table) -> Harvest {
        let mut harvest = Harvest::default();
        table.harvest(&mut harvest);
        harvest
    }

    #[test]
    fn a_counter_adds_up_and_is_handed_over_once() {
        let mut table = table();
        table.record(&sample("hits", "", Value::Count(2.0)));
        table.record(&sample("hits", "", Value::Count(3.0)));
        let part = |hits, cell| Part {
            id: NameId(0),
            hits,
            cell,
        };
        assert_eq!(harvest(&mut table).counters, [part(2, 5.0)]);
        assert_eq!(harvest(&mut table).counters, []);
        table.record(&sample("hits", "", Value::Count(0.0)));
        assert_eq!(harvest(&mut table).counters, [part(1, 0.0)]);
    }

    #[test]
    fn keys_of_every_length_are_told_apart_through_growth() {
        let mut table = table();
        let names: Vec<String> = (0..3000)
            .map(|n| format!("{n:0width$}", width = 4 + n % 90))
            .collect();
        for round in 1..=2 {
            for name in &names {
                table.record(&sample(name, "", Value::Count(1.0)));
                table.record(&sample(name, "a:b", Value::Count(10.0)));
            }
            assert_eq!(table.spellings(), 2 * names.len());
            let counters = harvest(&mut table).counters;
            assert_eq!(counters.len(), 2 * names.len(), "round {round}");
            assert_eq!(
                counters.iter().map(|part| part.cell).sum::<f64>(),
                11.0 * names.len() as f64
            );
        }
    }

    #[test]
    fn name_and_tags_do_not_run_together() {
        let mut table = table();
        table.record(&sample("ab", "c", Value::Count(1.0)));
        table.record(&sample("a", "bc", Value::Count(1.0)));
        table.record(&sample("abc", "", Value::Count(1.0)));
        assert_eq!(table.spellings(), 3);
    }

    #[test]
    fn spellings_of_one_name_share_its_id_and_keep_their_order() {
        let mut table = table();
        table.record(&sample("fo/o", "", Value::GaugeSet(10.0)));
        table.record(&sample("fo-o", "", Value::GaugeAdd(3.0)));
        table.record(&sample("fo/o", "", Value::GaugeAdd(-1.0)));
        let harvest = harvest(&mut table);
        assert_eq!(harvest.gauges.len(), 1);
        assert_eq!(harvest.gauges[0].hits, 3);
        assert_eq!(harvest.gauges[0].cell.after(None), 12.0);
    }

    #[test]
    fn a_timer_that_was_folded_is_handed_over_whole() {
        let options = Options {
            exact_samples: 4,
            ..Options::default()
        };
        let mut table = Table::new(&options, Arc::new(Registry::new()));
        for n in 0..10 {
            table.record(&sample(
                "t",
                "",
                Value::Time {
                    value: f64::from(n),
                    weight: 2.0,
                },
            ));
        }
        let harvest = harvest(&mut table);
        assert_eq!(harvest.samples, [8.0, 9.0]);
        let part = &harvest.timers[0];
        assert_eq!((part.samples, part.weight, part.hits), (2, 20.0, 10));
        assert_eq!(part.histogram.as_ref().expect("folded").moments.count, 8);
    }

    #[test]
    fn names_are_cleaned_as_the_newest_options_say() {
        let mut table = table();
        let verbatim = Options {
            sanitize_names: false,
            ..Options::default()
        };
        for (options, expected) in [
            (Options::default(), NameId(0)),
            (verbatim, NameId(1)),
            (Options::default(), NameId(0)),
        ] {
            table.reconfigure(&options);
            table.record(&sample("a b", "", Value::Count(1.0)));
            assert_eq!(harvest(&mut table).counters[0].id, expected);
        }
    }

    #[test]
    fn members_are_text() {
        let mut table = table();
        for member in [&b"a"[..], b"a", b"\xff", b"\xfe", "\u{fffd}".as_bytes()] {
            table.record(&sample("s", "", Value::Member(member)));
        }
        let sets = harvest(&mut table).sets;
        assert_eq!((sets[0].cell.len(), sets[0].hits), (2, 5));
    }
}
