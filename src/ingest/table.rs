//! What a worker collects, found by the bytes a name is spelled with.
//!
//! A spelling is looked up as it stands in the datagram; only one never seen is cleaned and takes
//! its [`NameId`] from the registry. So the common sample costs a hash and one cache line: key and
//! counter lie in the same 64 bytes ([`super::slots`]). Several spellings of a name share one id, and one
//! cell where order matters.

use super::admission::{self, Admission, Admitted};
use super::dogstatsd::Notice;
use super::key::{Seeds, Spelling};
use super::scan::BLOCK;
use super::slots::{Entry, Slots};
use super::{Dialect, Stamps};
use crate::metric::cell::{Gauge, POINTS_MAX, Point, SAMPLES_WHEN_SHORT, Spare, Stamp, Timer};
use crate::metric::harvest::{Harvest, Part, StampedPart, Tally, TimerPart};
use crate::metric::registry::{Fold, NameId, Registry, overflow};
use crate::metric::retired::Retired;
use crate::metric::sample::{Kind, Reject, Sample, Value};
use crate::metric::set::{Insertion, Member, Members};
use crate::runtime::sys::memory::prefetch;
use foldhash::fast::RandomState;
use std::sync::Arc;

/// Spellings from which on a table counts as large: their entries, one cache line each, take half of a
/// core's own cache, and datagrams and cells want the rest.
const LARGE: usize = 8192;

/// Members of sets that are looked for together: as many places as a core has fetched at once.
const ARRIVING: usize = 16;

/// Cells from which on it is worth a walk through all slots to move few of them together.
const CELLS_MANY: usize = 1024;

/// Harvests in which every cell is looked at once, before it is emptied, for room that it does not need.
const LOOKS: usize = 16;

/// Cells of one kind, with those that were touched since the last harvest.
#[derive(Debug)]
struct Cells<C> {
    cells: Vec<Part<C>>,
    /// The cell of a name, so that all its spellings find the same one.
    by_id: hashbrown::HashMap<NameId, u32, RandomState>,
    touched: Vec<u32>,
    /// Cells of no name.
    free: Vec<u32>,
    /// Where the next look for room that is not needed begins.
    looked_at: usize,
}

impl<C> Default for Cells<C> {
    fn default() -> Self {
        Self {
            cells: Vec::new(),
            by_id: hashbrown::HashMap::default(),
            touched: Vec::new(),
            free: Vec::new(),
            looked_at: 0,
        }
    }
}

impl<C: Default> Cells<C> {
    fn of(&mut self, id: NameId) -> u32 {
        *self.by_id.entry(id).or_insert_with(|| {
            let (hits, cell) = (0, C::default());
            let part = Part { id, hits, cell };
            if let Some(free) = self.free.pop() {
                self.cells[free as usize] = part;
                return free;
            }
            self.cells.push(part);
            u32::try_from(self.cells.len() - 1).expect("fewer than 2^32 names")
        })
    }

    /// Frees the cells of these names, which have collected nothing since the last harvest.
    fn forget(&mut self, ids: impl Iterator<Item = NameId>) {
        for cell in ids.filter_map(|id| self.by_id.remove(&id)) {
            debug_assert_eq!(self.cells[cell as usize].hits, 0);
            self.cells[cell as usize] = Part::default();
            self.free.push(cell);
        }
    }

    /// Looks at one cell in so many, at others each time.
    fn look_at_some(&mut self, look: impl Fn(&mut C)) {
        if self.looked_at >= self.cells.len() {
            self.looked_at = 0;
        }
        let end = self.looked_at + self.cells.len().div_ceil(LOOKS);
        let end = end.min(self.cells.len());
        let cells = &mut self.cells[self.looked_at..end];
        cells.iter_mut().for_each(|part| look(&mut part.cell));
        self.looked_at = end;
    }

    /// Bytes of it, and of what is in the cells by `inside`.
    fn memory(&self, inside: impl Fn(&C) -> usize) -> usize {
        self.cells.capacity() * size_of::<Part<C>>()
            + self
                .cells
                .iter()
                .map(|part| inside(&part.cell))
                .sum::<usize>()
            + self.by_id.allocation_size()
            + (self.touched.capacity() + self.free.capacity()) * size_of::<u32>()
    }

    /// Moves the cells together when few are left. Returns where each is then; whoever has one looks there.
    fn let_go(&mut self) -> Option<Vec<u32>> {
        let few = self.cells.len() < CELLS_MANY;
        if few || self.by_id.len() * 4 >= self.cells.len() {
            return None;
        }
        let mut places = vec![0; self.cells.len()];
        let mut cells = Vec::with_capacity(self.by_id.len());
        for cell in self.by_id.values_mut() {
            places[*cell as usize] = cells.len() as u32;
            cells.push(std::mem::take(&mut self.cells[*cell as usize]));
            *cell = places[*cell as usize];
        }
        self.cells = cells;
        self.free = Vec::new();
        self.touched = Vec::new();
        self.by_id.shrink_to_fit();
        Some(places)
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

/// The way through the slots, to remove what refers to names that are gone.
#[derive(Debug)]
struct Walk {
    retired: Arc<Retired>,
    /// What comes next.
    slot: usize,
}

/// Slots that one harvest's share of a walk goes over at least: 4 MiB of them. A larger table is through
/// after [`WALK_PARTS`], each a pause of some milliseconds at a million names.
const WALK_SLOTS: usize = 1 << 16;
/// See [`WALK_SLOTS`].
const WALK_PARTS: usize = 8;

/// The spelling of the slot that values of folded names go to; no line has it.
const OVERFLOW: &str = "\n\noverflow";

/// Where the values of a spelling go.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Nowhere: a rule drops its name.
    Dropped,
    /// Into the slot of its name.
    Slot(usize),
    /// Into the slot of the name of ours that it is folded into.
    Folded(usize, Fold),
}

/// Everything one worker knows. Owned by its thread, shared with nobody.
#[derive(Debug)]
pub struct Table {
    seeds: Seeds,
    dialect: Dialect,
    admission: Admission,
    stamps: Stamps,
    /// See [`Table::unix_time`].
    unix_time: Option<i64>,
    /// Values with a time of their own, by Unix seconds.
    points: hashbrown::HashMap<(Kind, NameId, i64), Point, RandomState>,
    /// A repeater gets every datagram, what is no metric too.
    passes_on: bool,
    /// Memory is short, as of this batch.
    short: bool,
    /// Samples that a timer keeps exactly now,
    exact_samples: usize,
    /// and while memory is not short.
    usual_samples: usize,
    max_set_members: usize,
    spare: Spare,
    /// Last stamp given out; each gauge write gets its own.
    now: u64,
    /// The line of no common shape that is being read, by where it lies, and the slots of its name by kind,
    /// as far as they were looked up.
    odd_line: (usize, [Option<Place>; Kind::ALL.len()]),
    slots: Slots,
    /// The last sweep of names it is through with.
    swept: u64,
    walk: Option<Walk>,
    /// Slots of counters that got a value since the last harvest.
    touched: Vec<u32>,
    timers: Cells<Timer>,
    gauges: Cells<Gauge>,
    sets: Cells<Members>,
    /// Members on their way into the set of a cell, with their hash there.
    arriving: Vec<(u32, u64, Member)>,
    /// What this worker did since the last harvest.
    pub tally: Tally,
}

impl Table {
    /// An empty table. Hashing is seeded at random, so that no sender can aim at one bucket.
    pub fn new(options: &super::Options, registry: Arc<Registry>) -> Self {
        let swept = registry.sweeps();
        Self {
            seeds: Seeds::random(),
            dialect: options.dialect,
            admission: Admission::new(options, registry),
            stamps: options.stamps,
            unix_time: None,
            points: hashbrown::HashMap::default(),
            passes_on: false,
            short: false,
            exact_samples: options.exact_samples,
            usual_samples: options.exact_samples,
            max_set_members: options.max_set_members,
            spare: Spare::new(),
            now: 0,
            odd_line: Default::default(),
            swept,
            walk: None,
            slots: Slots::default(),
            touched: Vec::new(),
            timers: Cells::default(),
            gauges: Cells::default(),
            sets: Cells::default(),
            arriving: Vec::with_capacity(ARRIVING),
            tally: Tally::default(),
        }
    }

    /// Notes the time of a batch; gauge writes in it are stamped from here on.
    #[inline]
    pub fn begin_batch(&mut self, now: Stamp) {
        self.now = self.now.max(now.0);
        self.tally.last_packet = self.now;
        self.unix_time = None;
        let short = self.admission.registry().is_short();
        if short != self.short {
            self.save(short);
        }
    }

    /// Begins to save memory, or ends it.
    #[cold]
    fn save(&mut self, short: bool) {
        self.short = short;
        self.exact_samples = self.usual_samples;
        if short {
            self.exact_samples = self.usual_samples.min(SAMPLES_WHEN_SHORT);
            let timers = self.timers.cells.iter_mut().filter(|part| part.hits == 0);
            timers.for_each(|part| part.cell.release());
            let gauges = self.gauges.cells.iter_mut().filter(|part| part.hits == 0);
            gauges.for_each(|part| part.cell.release());
            self.spare = Spare::new();
        }
    }

    /// Notes that lines lie elsewhere in memory from now on, or others where those before lay.
    #[inline]
    pub fn begin_packets(&mut self) {
        self.odd_line = Default::default();
    }

    /// Takes over what may change while running. Names may be cleaned or mapped differently from now on,
    /// so every spelling is looked up anew. Call it right after a harvest: what was collected since the
    /// last one would be lost.
    pub fn reconfigure(&mut self, options: &super::Options) {
        if self.admission.names_differ(options) {
            debug_assert!(self.tally == Tally::default(), "a table with values in it");
            // The dialect is that of the start.
            let (dialect, passes_on) = (self.dialect, self.passes_on);
            let options = super::Options {
                dialect,
                ..options.clone()
            };
            *self = Self::new(&options, self.admission.registry().clone());
            self.passes_on = passes_on;
        }
        self.admission.reconfigure(options);
        self.max_set_members = options.max_set_members;
        self.stamps = options.stamps;
    }

    /// How lines are read for it.
    #[inline]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Says whether somebody takes events and service checks: a repeater does, with all else.
    pub fn pass_notices_on(&mut self, passes_on: bool) {
        self.passes_on = passes_on;
    }

    /// Whether the table has outgrown the nearer caches, so that a look-up waits for memory. Then it
    /// pays to have many under way at once: [`Table::spell`] a run of samples first, and only then
    /// [`Table::record_spelled`] them. Below that size the detour costs more than it gains (tuning.md).
    #[inline]
    pub fn is_large(&self) -> bool {
        self.slots.used() > LARGE
    }

    /// What a sample is spelled with, for [`Table::record_spelled`] of the same table, whose entry is on its
    /// way from now on. `window` begins with the bytes of its line.
    #[inline(always)]
    pub fn spell<'a>(&self, sample: &Sample<'a>, window: &[u8; BLOCK]) -> Spelling<'a> {
        let spelling = self.seeds.spelling(sample, window);
        self.slots.prefetch(spelling.hash);
        spelling
    }

    /// Adds a sample to what its name collects.
    #[inline(always)]
    pub fn record(&mut self, sample: &Sample<'_>, window: &[u8; BLOCK]) {
        let spelling = self.seeds.spelling(sample, window);
        self.record_spelled(&spelling, sample.value);
    }

    /// [`Table::record`] for a sample that was spelled before.
    #[inline(always)]
    pub fn record_spelled(&mut self, spelling: &Spelling<'_>, value: Value<'_>) {
        let kind = value.kind();
        let slot = match self.slots.find(spelling) {
            Some(slot) => slot,
            None => match self.unknown(kind, &{ *spelling }) {
                Some(slot) => slot,
                None => return,
            },
        };
        self.record_at(slot, value);
    }

    /// Adds a value to what the spelling in a slot collects.
    #[inline(always)]
    fn record_at(&mut self, slot: usize, value: Value<'_>) {
        self.tally.recorded[value.kind() as usize] += 1;
        let entry = self.slots.entry(slot);
        if let Value::Count(count) = value {
            if entry.hits_or_cell == 0 {
                self.touched.push(slot as u32);
            }
            // What is not a number starts over, as the reference has it.
            let before = if entry.sum.is_nan() { 0.0 } else { entry.sum };
            entry.sum = before + count;
            entry.hits_or_cell = entry.hits_or_cell.saturating_add(1);
            return;
        }
        let cell = entry.hits_or_cell;
        match value {
            Value::Count(_) => {}
            Value::Time { value, weight } => {
                let timer = self.timers.touch(cell);
                timer.record(value, weight, self.exact_samples, &mut self.spare);
                // Of a plain line the compiler knows that it weighs nothing else.
                if weight != 1.0 && self.dialect == Dialect::Auto {
                    timer.weigh(weight);
                }
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
                let member = as_member(member);
                let members = &self.sets.cells[cell as usize].cell;
                let hash = members.hash(&member);
                if let Some(place) = members.place(hash) {
                    prefetch(place);
                }
                self.arriving.push((cell, hash, member));
                if self.arriving.len() == ARRIVING {
                    self.let_in();
                }
            }
        }
    }

    /// Puts the members that wait into their sets.
    ///
    /// They wait because busy sets are in no cache: looked for one by one, each look is a wait for memory
    /// and a branch on what is found there. In which order members come does not matter to a set.
    fn let_in(&mut self) {
        let most = if self.short { 0 } else { self.max_set_members };
        for (cell, hash, member) in self.arriving.drain(..) {
            // One that finds no room is a value all the same: a set is not idle for it.
            let members = self.sets.touch(cell);
            if members.insert_hashed(member, hash, most) == Insertion::NoRoom {
                self.tally.drop_recorded(Kind::Set, 1);
            }
        }
    }

    /// Records a value of a line of no common shape, or counts it as refused.
    ///
    /// A line may hold a thousand values of one long name: it is looked up once for each kind, or a datagram
    /// would cost the square of its length.
    #[inline(never)]
    pub fn take_odd(&mut self, result: Result<Sample<'_>, Reject>, line: &[u8]) {
        match result {
            Ok(sample) => {
                let place = self.odd_place(&sample, line);
                self.record_odd(place, sample.value);
            }
            Err(reason) => self.tally.reject(reason, line),
        }
    }

    fn record_odd(&mut self, place: Place, value: Value<'_>) {
        if let Some(slot) = self.count_place(place) {
            self.record_at(slot, value);
        }
    }

    /// The slot of a value, which is counted where that is none of its own.
    fn count_place(&mut self, place: Place) -> Option<usize> {
        match place {
            Place::Dropped => {
                self.tally.mapped_dropped += 1;
                None
            }
            Place::Slot(slot) => Some(slot),
            Place::Folded(slot, fold) => {
                self.tally.folded[fold as usize] += 1;
                Some(slot)
            }
        }
    }

    fn odd_place(&mut self, sample: &Sample<'_>, line: &[u8]) -> Place {
        let (at, kind) = (line.as_ptr() as usize, sample.value.kind());
        if self.odd_line.0 != at {
            self.odd_line = (at, Default::default());
        }
        if let Some(known) = self.odd_line.1[kind as usize] {
            return known;
        }
        let spelling = self.spelling(sample);
        let place = match self.slots.find(&spelling) {
            Some(slot) => Place::Slot(slot),
            None => self.admit(kind, &spelling),
        };
        self.odd_line.1[kind as usize] = Some(place);
        place
    }

    /// Records a value that came with its own time.
    ///
    /// A counter and a gauge are kept apart by their times and take no part in the interval; others have no
    /// way out with a time of their own, and are values of now.
    #[cold]
    pub fn take_stamped(&mut self, sample: &Sample<'_>, at: i64, line: &[u8], now: i64) {
        if at < now.saturating_sub(self.stamps.max_age) {
            return self.tally.reject(Reject::OldTimestamp, line);
        }
        if at > now.saturating_add(self.stamps.max_ahead) {
            return self.tally.reject(Reject::FutureTimestamp, line);
        }
        let kind = sample.value.kind();
        let value = match sample.value {
            Value::Count(value) | Value::GaugeSet(value) | Value::GaugeAdd(value) => value,
            Value::Time { .. } | Value::Member(_) => return self.take_odd(Ok(*sample), line),
        };
        let place = self.odd_place(sample, line);
        let (Place::Slot(slot) | Place::Folded(slot, _)) = place else {
            self.count_place(place);
            return;
        };
        self.now += 1;
        let id = self.slots.entry(slot).id;
        let written = Stamp(self.now);
        let point = Point { value, written };
        let has_room = self.points.len() < POINTS_MAX && !self.short;
        match self.points.entry((kind, id, at)) {
            hashbrown::hash_map::Entry::Occupied(mut known) => known.get_mut().merge(kind, point),
            hashbrown::hash_map::Entry::Vacant(free) if has_room => drop(free.insert(point)),
            hashbrown::hash_map::Entry::Vacant(_) => return self.tally.stamped_dropped += 1,
        }
        self.count_place(place);
        self.tally.recorded[kind as usize] += 1;
    }

    /// What it is by the wall clock in this batch, in Unix seconds; `ask` is asked once.
    pub fn unix_time(&mut self, ask: impl FnOnce() -> i64) -> i64 {
        *self.unix_time.get_or_insert_with(ask)
    }

    /// Counts what is no metric.
    #[cold]
    pub fn take_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Event => self.tally.events += 1,
            Notice::ServiceCheck => self.tally.service_checks += 1,
        }
        self.tally.unsupported += u64::from(!self.passes_on);
    }

    /// Spellings known, over all kinds.
    #[inline]
    pub fn spellings(&self) -> usize {
        self.slots.used()
    }

    /// Bytes of what it remembers of names: spellings, and cells with what they have room for.
    pub fn memory(&self) -> usize {
        self.slots.memory()
            + self.touched.capacity() * size_of::<u32>()
            + self.timers.memory(Timer::heap_bytes)
            + self.gauges.memory(Gauge::heap_bytes)
            + self.sets.memory(Members::heap_bytes)
            + self.admission.memory()
    }

    /// Moves everything collected since the last harvest into `harvest`, which must be empty.
    /// Names, cells and their memory stay; histograms and members go.
    pub fn harvest(&mut self, harvest: &mut Harvest) {
        self.let_in();
        harvest.counters.reserve(self.touched.len());
        let mut take = |entry: &mut Entry| {
            harvest.counters.push(Part {
                id: entry.id,
                hits: std::mem::take(&mut entry.hits_or_cell),
                cell: std::mem::take(&mut entry.sum),
            });
        };
        if self.touched.len() > self.slots.slots() / 4 {
            // From there on it is quicker to walk over all of them than to jump.
            self.touched.clear();
            let entries = self.slots.iter_mut();
            entries.filter(|entry| entry.is_counted()).for_each(take);
        } else {
            for slot in self.touched.drain(..) {
                take(self.slots.entry(slot as usize));
            }
        }
        self.timers.look_at_some(Timer::let_go);
        self.gauges.look_at_some(Gauge::let_go);
        for cell in self.timers.touched.drain(..) {
            let Part { id, hits, cell } = &mut self.timers.cells[cell as usize];
            harvest.samples.extend_from_slice(&cell.samples);
            harvest.weights.extend_from_slice(&cell.weights);
            harvest.timers.push(TimerPart {
                id: *id,
                hits: std::mem::take(hits),
                samples: cell.samples.len(),
                weights: cell.weights.len(),
                weight: cell.weight,
                histogram: cell.histogram.take(),
            });
            cell.clear(&mut self.spare);
            if self.short {
                cell.release();
            }
        }
        for cell in self.gauges.touched.drain(..) {
            let part = &mut self.gauges.cells[cell as usize];
            harvest.gauges.push(part.clone());
            part.hits = 0;
            part.cell.clear();
            if self.short {
                part.cell.release();
            }
        }
        for cell in self.sets.touched.drain(..) {
            let part = &mut self.sets.cells[cell as usize];
            let emptied = if self.short {
                Members::default()
            } else {
                part.cell.emptied()
            };
            harvest.sets.push(Part {
                id: part.id,
                hits: std::mem::take(&mut part.hits),
                cell: std::mem::replace(&mut part.cell, emptied),
            });
        }
        // Room for as many again, and not for the largest burst there was: all room of a map is wiped.
        let (room, hasher) = (self.points.len(), self.points.hasher().clone());
        let emptied = hashbrown::HashMap::with_capacity_and_hasher(room, hasher);
        let points = std::mem::replace(&mut self.points, emptied).into_iter();
        harvest
            .points
            .extend(points.map(|((kind, id, at), point)| StampedPart {
                kind,
                id,
                at,
                point,
            }));
        // What is left over from an interval that needed more is let go.
        self.spare = std::mem::take(&mut harvest.spare);
        harvest.growth = self.admission.take_growth();
        harvest.tally = std::mem::take(&mut self.tally);
        harvest.swept = self.swept;
    }

    /// Forgets a part of what refers to names that are gone, if there are any. Call it right after a harvest:
    /// what was collected for them since would be lost.
    pub fn sweep(&mut self) {
        if self.swept == self.admission.registry().sweeps() {
            return;
        }
        debug_assert!(self.tally == Tally::default(), "a table with values in it");
        let Walk { retired, slot } = self.walk.take().unwrap_or_else(|| Walk {
            retired: self.admission.registry().retired(),
            slot: 0,
        });
        self.odd_line = Default::default();
        let run = WALK_SLOTS.max(self.slots.slots().div_ceil(WALK_PARTS));
        let gone = |entry: &Entry| retired.contains(entry.kind(), entry.id);
        match self.slots.remove(slot, run, &self.seeds, gone) {
            Some(slot) => self.walk = Some(Walk { retired, slot }),
            None => self.forget(&retired),
        }
    }

    /// No slot refers to these names any more: nothing else is to do so.
    fn forget(&mut self, retired: &Retired) {
        self.timers.forget(retired.of(Kind::Timer));
        self.gauges.forget(retired.of(Kind::Gauge));
        self.sets.forget(retired.of(Kind::Set));
        self.admission.forget(retired);
        let mut places: [_; Kind::ALL.len()] = Default::default();
        places[Kind::Timer as usize] = self.timers.let_go();
        places[Kind::Gauge as usize] = self.gauges.let_go();
        places[Kind::Set as usize] = self.sets.let_go();
        if places.iter().any(Option::is_some) {
            for entry in self.slots.iter_mut().filter(|entry| entry.is_used()) {
                if let Some(places) = &places[entry.kind() as usize] {
                    entry.hits_or_cell = places[entry.hits_or_cell as usize];
                }
            }
        }
        if self.slots.let_go(&self.seeds) {
            self.touched = Vec::new();
        }
        self.swept = retired.number;
    }

    /// The slot for a value whose spelling is in none.
    #[cold]
    #[inline(never)]
    fn unknown(&mut self, kind: Kind, spelling: &Spelling<'_>) -> Option<usize> {
        // First and alone: rules are there to drop what comes often.
        if self.admission.drops(spelling) {
            self.tally.mapped_dropped += 1;
            return None;
        }
        let place = self.admit(kind, spelling);
        self.count_place(place)
    }

    /// Takes a spelling in that is not in a slot, unless its name is dropped.
    #[inline(never)]
    fn admit(&mut self, kind: Kind, spelling: &Spelling<'_>) -> Place {
        let admitted = (self.admission).admit(kind, spelling, &self.seeds, &self.slots);
        match admitted {
            Admitted::Dropped => Place::Dropped,
            Admitted::Shared(id) => {
                let spelled = admission::shared_spelling(id);
                Place::Slot(self.slot_of_ours(kind, &spelled, |_| id))
            }
            Admitted::Folded(fold) => {
                let slot =
                    self.slot_of_ours(kind, OVERFLOW, |registry| registry.id(kind, overflow(kind)));
                Place::Folded(slot, fold)
            }
            Admitted::Own { id, keyless } => {
                self.tally.tags_dropped += keyless;
                Place::Slot(self.enter(kind, id, spelling))
            }
        }
    }

    /// The slot that spellings share which have none of their own, under one that no line has.
    fn slot_of_ours(
        &mut self,
        kind: Kind,
        spelled: &str,
        id: impl FnOnce(&Registry) -> NameId,
    ) -> usize {
        let value = match kind {
            Kind::Counter => Value::Count(0.0),
            Kind::Timer => Value::Time {
                value: 0.0,
                weight: 1.0,
            },
            Kind::Gauge => Value::GaugeSet(0.0),
            Kind::Set => Value::Member(b""),
        };
        let sample = Sample {
            name: spelled.as_bytes(),
            tags: b"",
            value,
        };
        let shared = self.spelling(&sample);
        if let Some(slot) = self.slots.find(&shared) {
            return slot;
        }
        let id = id(self.admission.registry());
        self.enter(kind, id, &shared)
    }

    /// What a sample is spelled with, wherever its bytes lie.
    fn spelling<'a>(&self, sample: &Sample<'a>) -> Spelling<'a> {
        let mut window = [0; BLOCK];
        let shown = sample.name.len().min(BLOCK);
        window[..shown].copy_from_slice(&sample.name[..shown]);
        self.seeds.spelling(sample, &window)
    }

    /// Takes a spelling in, and returns its slot.
    fn enter(&mut self, kind: Kind, id: NameId, spelling: &Spelling<'_>) -> usize {
        let cell = match kind {
            Kind::Counter => 0,
            Kind::Timer => self.timers.of(id),
            Kind::Gauge => self.gauges.of(id),
            Kind::Set => self.sets.of(id),
        };
        if self.slots.make_room(&self.seeds) {
            self.odd_line = Default::default();
            if let Some(walk) = &mut self.walk {
                walk.slot = 0;
            }
            self.touched.clear();
            let slots = self.slots.iter_mut().enumerate();
            let touched = slots.filter(|(_, entry)| entry.is_counted());
            self.touched.extend(touched.map(|(slot, _)| slot as u32));
        }
        self.slots.insert(spelling, id, cell)
    }
}

/// A member is text to the reference: bytes that are none count as the text they would be read as.
#[inline]
fn as_member(bytes: &[u8]) -> Member {
    if bytes.is_ascii() {
        bytes.into()
    } else {
        String::from_utf8_lossy(bytes).as_bytes().into()
    }
}

#[cfg(test)]
mod tests;
