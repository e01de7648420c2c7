//! Harvests -> the state of the interval, by indexing columns with ids.
//!
//! Also the one place that knows which names live on when nothing is sent: idle zeros, deletion and
//! the time a gauge has left are the flusher's alone. What becomes of names that do not is the matter of
//! [`super::idle`].

use super::Options;
use crate::metric::carried::{self, Carried, Level, Row};
use crate::metric::cell::{self, POINTS_MAX, Point, SAMPLES_WHEN_SHORT, Spare};
use crate::metric::harvest::{Harvest, Part};
use crate::metric::kept;
use crate::metric::registry::{Name, NameId, Registry, shrink};
use crate::metric::retired::Limbo;
use crate::metric::sample::Kind;
use crate::metric::set::Members;
use crate::metric::snapshot::Stamped;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// One kind's cells and names, by id.
#[derive(Debug, Default)]
pub struct Column<C> {
    /// `names[id]`; may lag behind `cells` until [`State::catch_up`].
    pub names: Vec<Name>,
    /// `cells[id]`.
    pub cells: Vec<Option<C>>,
    /// `hits[id]`: values that came since the last flush.
    pub hits: Vec<u32>,
    /// `since[id]`: flushes since the last value, the one that sent it too; [`AWAY`] when the id has no name.
    pub since: Vec<u32>,
}

/// In place of the flushes since the last value: the id is not in use.
pub const AWAY: u32 = u32::MAX;

impl<C: Default> Column<C> {
    /// The cell of a name, which from now on is alive.
    #[inline]
    fn alive(&mut self, id: NameId) -> &mut C {
        self.reach(id.index() + 1);
        self.cells[id.index()].get_or_insert_default()
    }

    /// Makes room for so many ids, if there is less.
    #[inline]
    fn reach(&mut self, len: usize) {
        if len > self.cells.len() {
            self.cells.resize_with(len, || None);
            self.hits.resize(len, 0);
            self.since.resize(len, 0);
        }
    }

    /// The cell of a name that got so many values.
    #[inline]
    fn hit(&mut self, id: NameId, hits: u32) -> &mut C {
        self.alive(id);
        let all = &mut self.hits[id.index()];
        *all = all.saturating_add(hits);
        self.alive(id)
    }

    /// A name got a value that its cell does not show.
    fn touch(&mut self, id: NameId) {
        self.reach(id.index() + 1);
        self.since[id.index()] = 0;
    }

    /// Learns the names given out since it last asked, and returns which ids have another than before.
    fn catch_up(&mut self, kind: Kind, registry: &Registry) -> Vec<NameId> {
        let again = registry.catch_up(kind, &mut self.names);
        // Each name is known from here on, also when its first value is still on its way.
        self.reach(self.names.len());
        again.iter().for_each(|id| self.since[id.index()] = 0);
        again
    }

    /// Ends the interval for those who were sent anything and those who were not.
    fn age(&mut self) {
        for (hits, since) in self.hits.iter_mut().zip(&mut self.since) {
            *since = if std::mem::take(hits) > 0 {
                1
            } else {
                since.saturating_add(1)
            };
        }
    }

    /// Forgets the cells that got no value for so many flushes, if `is_mortal`.
    fn forget_idle(&mut self, flushes: u32, is_mortal: impl Fn(usize, &C) -> bool) {
        let cells = self.cells.iter_mut().zip(&self.since).enumerate();
        for (id, (cell, since)) in cells {
            if *since > flushes && cell.as_ref().is_some_and(|cell| is_mortal(id, cell)) {
                *cell = None;
            }
        }
    }

    /// Ids that show nothing and got no value for more than `flushes`, at most so many.
    pub fn invisible(&self, flushes: u32, most: usize) -> impl Iterator<Item = NameId> {
        let known = self.cells.iter().zip(&self.since).take(self.names.len());
        let invisible = known.enumerate().filter(move |(_, (cell, since))| {
            **since > flushes && **since != AWAY && cell.is_none()
        });
        invisible.map(|(id, _)| NameId(id as u32)).take(most)
    }

    /// These ids are not in use from now on.
    pub fn put_away(&mut self, ids: impl Iterator<Item = NameId>) {
        ids.for_each(|id| self.since[id.index()] = AWAY);
    }

    /// Gives ids that were put away back to the registry, and the end of the columns when it is free.
    pub fn release(
        &mut self,
        kind: Kind,
        registry: &Registry,
        ids: impl IntoIterator<Item = NameId>,
    ) {
        let end = registry.release(kind, ids, &mut self.names);
        self.cells.truncate(end);
        self.hits.truncate(end);
        self.since.truncate(end);
        shrink(&mut self.cells);
        shrink(&mut self.hits);
        shrink(&mut self.since);
    }

    /// Moves every cell out, with its name and counts. The place of a row is its id.
    fn carry<T>(&mut self, mut unreported: Vec<u64>, of: impl Fn(C) -> T) -> Vec<Row<T>> {
        unreported.resize(self.cells.len(), 0);
        let cells = std::mem::take(&mut self.cells).into_iter();
        let counts = std::mem::take(&mut self.hits).into_iter().zip(unreported);
        let counts = counts.zip(std::mem::take(&mut self.since));
        let rows = cells.zip(counts).zip(&self.names);
        rows.map(|((cell, ((hits, unreported), idle)), name)| Row {
            name: name.clone(),
            hits,
            unreported,
            idle,
            cell: cell.map(&of),
        })
        .collect()
    }

    /// Takes back what [`Column::carry`] moved out; returns the counts of the next report.
    fn put_back<T>(&mut self, rows: Vec<Row<T>>, of: impl Fn(T) -> C) -> Vec<u64> {
        let mut unreported = Vec::with_capacity(rows.len());
        for row in rows {
            self.cells.push(row.cell.map(&of));
            self.hits.push(row.hits);
            self.since.push(row.idle);
            unreported.push(row.unreported);
        }
        unreported
    }

    /// The cell of a row that comes from another process, which goes on being as idle as it was.
    fn adopt<T>(&mut self, id: NameId, row: &Row<T>) -> &mut C {
        self.hit(id, row.hits);
        self.since[id.index()] = row.idle.min(AWAY - 1);
        self.alive(id)
    }

    /// Living cells with their names, in order of first appearance.
    pub fn living(&mut self) -> impl Iterator<Item = (&Name, &mut C)> {
        self.names
            .iter()
            .zip(&mut self.cells)
            .filter_map(|(name, cell)| Some((name, cell.as_mut()?)))
    }
}

/// A gauge between flushes.
#[derive(Debug, Default)]
pub struct Gauge {
    /// Its value as of the last flush; nothing before the first.
    pub value: Option<f64>,
    /// Writes of the running interval.
    pub writes: cell::Gauge,
    /// Flushes it has left to live, when gauges are deleted.
    pub flushes_left: u32,
    /// Never deleted.
    pub kept: bool,
}

/// Values of each kind that found no room.
pub type Crowd = [u64; Kind::ALL.len()];

/// Everything the flusher holds between two flushes.
#[derive(Debug)]
pub struct State {
    /// Sums.
    pub counters: Column<f64>,
    /// Samples.
    pub timers: Column<cell::Timer>,
    /// Values and writes.
    pub gauges: Column<Gauge>,
    /// Members.
    pub sets: Column<Members>,
    /// Values with times of their own, by kind, name and Unix seconds.
    points: BTreeMap<(Kind, NameId, i64), Point>,
    /// Counters that are never deleted, by id: the reference spares some by their names.
    kept_counters: Vec<bool>,
    /// Our own, which are never forgotten for idling either.
    own_counters: Vec<NameId>,
    /// Emptied histograms, for the harvests that go back to the workers.
    spare: Spare,
    exact_samples: usize,
    max_set_members: usize,
    /// Memory is short.
    short: bool,
    gauges_max_ttl: u32,
    /// Values each name got since the last report of the busiest, by kind and id; kept only when there
    /// are reports.
    key_counts: Option<[Vec<u64>; Kind::ALL.len()]>,
}

impl State {
    /// Nothing seen yet.
    pub fn new(options: &Options) -> Self {
        Self {
            counters: Column::default(),
            timers: Column::default(),
            gauges: Column::default(),
            sets: Column::default(),
            points: BTreeMap::new(),
            kept_counters: Vec::new(),
            own_counters: Vec::new(),
            spare: Spare::new(),
            exact_samples: options.exact_samples,
            max_set_members: options.max_set_members,
            short: false,
            gauges_max_ttl: options.gauges_max_ttl,
            key_counts: options.key_flush.as_ref().map(|_| Default::default()),
        }
    }

    /// Takes over what may change while running.
    pub fn reconfigure(&mut self, options: &Options) {
        self.gauges_max_ttl = options.gauges_max_ttl;
        self.max_set_members = options.max_set_members;
        if options.key_flush.is_none() {
            self.key_counts = None;
        } else {
            self.key_counts.get_or_insert_default();
        }
    }

    /// How many values each name got since this was last asked; a name of several kinds comes once for each.
    pub fn take_key_counts(&mut self) -> Vec<(Name, u64)> {
        let names = [
            &self.counters.names,
            &self.timers.names,
            &self.gauges.names,
            &self.sets.names,
        ];
        let mut counts = Vec::new();
        let columns = self.key_counts.iter_mut().flatten();
        for (names, column) in names.into_iter().zip(columns) {
            let all = names.iter().zip(column.drain(..));
            let counted = all.filter(|(_, count)| *count > 0);
            counts.extend(counted.map(|(name, count)| (name.clone(), count)));
        }
        counts
    }

    /// Adds what a harvest brought to the counts of the next report.
    fn count_keys(&mut self, harvest: &Harvest) {
        let Some(columns) = &mut self.key_counts else {
            return;
        };
        let mut count = |kind: Kind, id: NameId, hits: u32| {
            add_count(&mut columns[kind as usize], id, u64::from(hits));
        };
        let Harvest {
            counters,
            timers,
            gauges,
            sets,
            ..
        } = harvest;
        counters
            .iter()
            .for_each(|p| count(Kind::Counter, p.id, p.hits));
        timers.iter().for_each(|p| count(Kind::Timer, p.id, p.hits));
        gauges.iter().for_each(|p| count(Kind::Gauge, p.id, p.hits));
        sets.iter().for_each(|p| count(Kind::Set, p.id, p.hits));
    }

    /// Adds to a counter, which brings it to life.
    pub fn count(&mut self, id: NameId, by: f64) {
        add(self.counters.alive(id), by);
    }

    /// Brings a counter of our own to life, for good.
    pub fn keep_counter(&mut self, id: NameId) {
        self.count(id, 0.0);
        self.own_counters.push(id);
    }

    /// Sets a gauge of our own, which is never deleted.
    pub fn set_kept_gauge(&mut self, id: NameId, value: f64) {
        let gauge = self.gauges.alive(id);
        gauge.value = Some(value);
        gauge.writes.clear();
        gauge.kept = true;
    }

    /// Brings a gauge of an earlier process to life. It lives as long as it had left there, and no longer
    /// than a fresh one.
    pub fn restore_gauge(&mut self, id: NameId, value: f64, flushes_left: u32) {
        let gauges_max_ttl = self.gauges_max_ttl.max(1);
        let gauge = self.gauges.alive(id);
        gauge.value = Some(value);
        gauge.flushes_left = flushes_left.clamp(1, gauges_max_ttl);
    }

    /// The gauges that live on after a flush, but for our own.
    pub fn surviving_gauges(&mut self) -> Vec<kept::Gauge> {
        let mut surviving = Vec::with_capacity(self.gauges.cells.len());
        let living = self.gauges.living().filter(|(_, gauge)| !gauge.kept);
        surviving.extend(living.filter_map(|(name, gauge)| {
            Some(kept::Gauge {
                name: name.clone(),
                value: gauge.value?,
                flushes_left: gauge.flushes_left,
            })
        }));
        surviving
    }

    /// Moves everything out; what lives is gone from here then.
    pub fn carry(&mut self) -> Carried {
        let counts = self.key_counts.as_mut().map(std::mem::take);
        let mut counts = counts.unwrap_or_default().into_iter();
        let mut next = || counts.next().unwrap_or_default();
        let level = |gauge: Gauge| Level {
            value: gauge.value,
            writes: gauge.writes,
            flushes_left: gauge.flushes_left,
            kept: gauge.kept,
        };
        let (counters, timers, gauges, sets) = (next(), next(), next(), next());
        let points = std::mem::take(&mut self.points).into_iter();
        Carried {
            counters: self.counters.carry(counters, |sum| sum),
            timers: self.timers.carry(timers, |timer| timer),
            gauges: self.gauges.carry(gauges, level),
            sets: self.sets.carry(sets, |members| members),
            points: points
                .map(|((kind, id, at), point)| carried::Stamped {
                    kind,
                    row: id.0,
                    at,
                    point,
                })
                .collect(),
            ..Carried::default()
        }
    }

    /// Takes everything back that [`State::carry`] moved out of this very state, with nothing in between.
    pub fn put_back(&mut self, carried: Carried) {
        let gauge = |level: Level| Gauge {
            value: level.value,
            writes: level.writes,
            flushes_left: level.flushes_left,
            kept: level.kept,
        };
        let counts = [
            self.counters.put_back(carried.counters, |sum| sum),
            self.timers.put_back(carried.timers, |timer| timer),
            self.gauges.put_back(carried.gauges, gauge),
            self.sets.put_back(carried.sets, |members| members),
        ];
        if let Some(columns) = &mut self.key_counts {
            *columns = counts;
        }
        let points = carried.points.into_iter();
        (self.points).extend(points.map(|it| ((it.kind, NameId(it.row), it.at), it.point)));
    }

    /// Merges in what [`State::carry`] moved out in another process; `id` tells which name has which number
    /// here. A name without anything is not asked for. Limits may be others than there: all of it stays.
    pub fn adopt(&mut self, carried: Carried, id: impl Fn(Kind, &Name) -> NameId) {
        let Carried {
            counters,
            timers,
            gauges,
            sets,
            points,
            ..
        } = carried;
        for carried::Stamped {
            kind,
            row,
            at,
            point,
        } in points
        {
            let name = match kind {
                Kind::Gauge => gauges.get(row as usize).map(|row| &row.name),
                _ => counters.get(row as usize).map(|row| &row.name),
            };
            if let Some(name) = name {
                let id = id(kind, name);
                self.touch(kind, id);
                let known = self.points.entry((kind, id, at));
                known
                    .and_modify(|known| known.merge(kind, point))
                    .or_insert(point);
            }
        }
        let mut counts = self.key_counts.take();
        let mut note = |kind: Kind, id: NameId, unreported: u64| {
            if let Some(columns) = &mut counts {
                add_count(&mut columns[kind as usize], id, unreported);
            }
        };
        for mut row in counters {
            let Some(sum) = row.cell.take() else { continue };
            let id = id(Kind::Counter, &row.name);
            note(Kind::Counter, id, row.unreported);
            add(self.counters.adopt(id, &row), sum);
        }
        for mut row in timers {
            let Some(timer) = row.cell.take() else {
                continue;
            };
            let id = id(Kind::Timer, &row.name);
            note(Kind::Timer, id, row.unreported);
            self.timers.adopt(id, &row).merge(
                &timer.samples,
                &timer.weights,
                timer.weight,
                timer.histogram,
                self.exact_samples,
                &mut self.spare,
            );
        }
        for mut row in gauges {
            let Some(level) = row.cell.take() else {
                continue;
            };
            let id = id(Kind::Gauge, &row.name);
            note(Kind::Gauge, id, row.unreported);
            let gauge = self.gauges.adopt(id, &row);
            gauge.value = level.value.or(gauge.value);
            gauge.writes.merge(&level.writes);
            gauge.flushes_left = gauge.flushes_left.max(level.flushes_left);
            gauge.kept |= level.kept;
        }
        for mut row in sets {
            let Some(members) = row.cell.take() else {
                continue;
            };
            let id = id(Kind::Set, &row.name);
            note(Kind::Set, id, row.unreported);
            self.sets.adopt(id, &row).unite(members, usize::MAX);
        }
        self.key_counts = counts;
    }

    fn touch(&mut self, kind: Kind, id: NameId) {
        match kind {
            Kind::Gauge => self.gauges.touch(id),
            _ => self.counters.touch(id),
        }
    }

    /// Merges one worker's harvest in; the harvest is left empty but for its tally. What found no room beside
    /// what others brought is counted in the [`Crowd`]: a member or point stands for a value at least.
    pub fn absorb(&mut self, harvest: &mut Harvest) -> Crowd {
        let mut crowd = Crowd::default();
        self.count_keys(harvest);
        for Part { id, hits, cell } in harvest.counters.drain(..) {
            add(self.counters.hit(id, hits), cell);
        }
        let folded = harvest
            .timers
            .iter()
            .filter(|part| part.histogram.is_some())
            .count();
        let (mut rest, mut weights_left) = (&harvest.samples[..], &harvest.weights[..]);
        for part in harvest.timers.drain(..) {
            let (samples, others) = rest.split_at(part.samples);
            rest = others;
            let (weights, others) = weights_left.split_at(part.weights);
            weights_left = others;
            self.timers.hit(part.id, part.hits).merge(
                samples,
                weights,
                part.weight,
                part.histogram,
                self.exact_samples,
                &mut self.spare,
            );
        }
        harvest.samples.clear();
        harvest.weights.clear();
        // As many go back as came: the worker will likely need them again.
        let kept = self.spare.len().saturating_sub(folded);
        harvest.spare.extend(self.spare.drain(kept..));
        for Part { id, hits, cell } in harvest.gauges.drain(..) {
            let gauge = self.gauges.hit(id, hits);
            gauge.writes.merge(&cell);
            gauge.flushes_left = self.gauges_max_ttl;
        }
        for Part { id, hits, cell } in harvest.sets.drain(..) {
            let most = self.max_set_members;
            crowd[Kind::Set as usize] += self.sets.hit(id, hits).unite(cell, most);
        }
        for part in harvest.points.drain(..) {
            self.touch(part.kind, part.id);
            let has_room = self.points.len() < POINTS_MAX;
            match self.points.entry((part.kind, part.id, part.at)) {
                Entry::Occupied(mut known) => known.get_mut().merge(part.kind, part.point),
                Entry::Vacant(free) if has_room => drop(free.insert(part.point)),
                Entry::Vacant(_) => crowd[part.kind as usize] += 1,
            }
        }
        crowd
    }

    /// Hands over what has a time of its own: counters before gauges, each in order of first appearance and
    /// of time.
    pub fn take_points(&mut self) -> Vec<Stamped> {
        let points = std::mem::take(&mut self.points).into_iter();
        let stamped = points.map(|((kind, id, at), point)| {
            let names = match kind {
                Kind::Gauge => &self.gauges.names,
                _ => &self.counters.names,
            };
            Stamped {
                kind,
                name: names[id.index()].clone(),
                timestamp: at,
                value: point.value,
            }
        });
        stamped.collect()
    }

    /// Learns the names given out since the last flush.
    pub fn catch_up(&mut self, registry: &Registry) {
        let again = self.counters.catch_up(Kind::Counter, registry);
        self.timers.catch_up(Kind::Timer, registry);
        self.gauges.catch_up(Kind::Gauge, registry);
        self.sets.catch_up(Kind::Set, registry);
        // The reference spares whatever has one of its own three names anywhere in it.
        let spared = |name: &Name| {
            ["packets_received", "metrics_received", "bad_lines_seen"]
                .iter()
                .any(|own| name.contains(own))
        };
        for id in again.into_iter().map(NameId::index) {
            self.kept_counters[id] = spared(&self.counters.names[id]);
        }
        let fresh = &self.counters.names[self.kept_counters.len()..];
        self.kept_counters.extend(fresh.iter().map(spared));
    }

    /// Says whether memory is short: then timers keep fewer samples, and nothing keeps memory for the next
    /// interval.
    pub fn set_short(&mut self, short: bool, options: &Options) {
        self.short = short;
        self.exact_samples = options.exact_samples;
        if short {
            self.exact_samples = options.exact_samples.min(SAMPLES_WHEN_SHORT);
        }
    }

    /// Begins the next interval: what lives on is zeroed, what does not is forgotten.
    pub fn reset(&mut self, options: &Options) {
        self.counters.age();
        self.timers.age();
        self.gauges.age();
        self.sets.age();
        for (cell, kept) in self.counters.cells.iter_mut().zip(&self.kept_counters) {
            if let Some(sum) = cell {
                *sum = 0.0;
                if options.delete_counters && !kept {
                    *cell = None;
                }
            }
        }
        // What no harvest took back was not needed in this interval either.
        self.spare.clear();
        for cell in &mut self.timers.cells {
            if let Some(timer) = cell {
                timer.let_go();
                timer.clear(&mut self.spare);
                if self.short {
                    timer.release();
                }
                if options.delete_timers {
                    *cell = None;
                }
            }
        }
        if self.short {
            self.spare = Spare::new();
            let gauges = self.gauges.cells.iter_mut().flatten();
            gauges.for_each(|gauge| gauge.writes.release());
        }
        if options.delete_sets {
            self.sets.cells.iter_mut().for_each(|cell| *cell = None);
        }
        if options.delete_gauges {
            for cell in &mut self.gauges.cells {
                if let Some(gauge) = cell {
                    gauge.flushes_left = gauge.flushes_left.saturating_sub(1);
                    if gauge.flushes_left == 0 && !gauge.kept {
                        *cell = None;
                    }
                }
            }
        }
        let idle = options.idle_flushes;
        if idle > 0 {
            let own = &self.own_counters;
            let mortal = |id: usize, _: &f64| own.iter().all(|own| own.index() != id);
            self.counters.forget_idle(idle, mortal);
            self.timers.forget_idle(idle, |_, _| true);
            self.gauges.forget_idle(idle, |_, gauge| !gauge.kept);
            self.sets.forget_idle(idle, |_, _| true);
        }
    }

    /// Ids whose names do not show and got no value for more than `flushes`, at most so many of each kind.
    pub fn invisible(&self, flushes: u32, most: usize) -> [Vec<NameId>; Kind::ALL.len()] {
        let mut ids: [Vec<NameId>; Kind::ALL.len()] = [
            self.counters.invisible(flushes, most).collect(),
            self.timers.invisible(flushes, most).collect(),
            self.gauges.invisible(flushes, most).collect(),
            self.sets.invisible(flushes, most).collect(),
        ];
        // Values of theirs are still to be reported.
        for (ids, counts) in ids.iter_mut().zip(self.key_counts.iter().flatten()) {
            let count = |id: &NameId| counts.get(id.index()).copied().unwrap_or_default();
            ids.retain(|id| count(id) == 0);
        }
        ids
    }

    /// The ids of these names are not in use from now on, and no value comes to them.
    pub fn put_away(&mut self, limbo: &Limbo) {
        let ids = |kind| limbo.retired.of(kind);
        self.counters.put_away(ids(Kind::Counter));
        self.timers.put_away(ids(Kind::Timer));
        self.gauges.put_away(ids(Kind::Gauge));
        self.sets.put_away(ids(Kind::Set));
    }

    /// Nobody has these ids any more: other names may get them.
    pub fn release(&mut self, limbo: &Limbo, registry: &Registry) {
        let ids = |kind| limbo.retired.of(kind);
        let (counter, timer) = (ids(Kind::Counter), ids(Kind::Timer));
        self.counters.release(Kind::Counter, registry, counter);
        self.timers.release(Kind::Timer, registry, timer);
        self.gauges.release(Kind::Gauge, registry, ids(Kind::Gauge));
        self.sets.release(Kind::Set, registry, ids(Kind::Set));
        self.kept_counters.truncate(self.counters.names.len());
        shrink(&mut self.kept_counters);
        for column in self.key_counts.iter_mut().flatten() {
            shrink(column);
        }
    }

    /// How many ids the columns reach over, by kind.
    pub fn columns(&self) -> [usize; Kind::ALL.len()] {
        [
            self.counters.cells.len(),
            self.timers.cells.len(),
            self.gauges.cells.len(),
            self.sets.cells.len(),
        ]
    }
}

fn add_count(column: &mut Vec<u64>, id: NameId, by: u64) {
    if id.index() >= column.len() {
        column.resize(id.index() + 1, 0);
    }
    column[id.index()] += by;
}

/// Merge law of counters. A sum that is not a number gives way to one that is, whichever came first,
/// so that one sender's `0|c|@0` does not cost all others the counter for as long as the interval.
fn add(sum: &mut f64, by: f64) {
    if sum.is_nan() {
        *sum = by;
    } else if !by.is_nan() || *sum == 0.0 {
        *sum += by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::harvest::{StampedPart, TimerPart};

    #[test]
    fn gauges_of_an_earlier_process_live_no_longer_than_fresh_ones() {
        let options = Options {
            delete_gauges: true,
            gauges_max_ttl: 3,
            ..Options::default()
        };
        let registry = Registry::new();
        let mut state = State::new(&options);
        for (name, left) in [("new", 9), ("old", 2), ("none", 0)] {
            state.restore_gauge(registry.id(Kind::Gauge, name), 1.0, left);
        }
        state.set_kept_gauge(registry.id(Kind::Gauge, "own"), 1.0);
        state.catch_up(&registry);
        let mut surviving = Vec::new();
        for _ in 0..3 {
            let gauges = state.surviving_gauges();
            let named = gauges
                .iter()
                .map(|it| (it.name.to_string(), it.flushes_left));
            surviving.push(named.collect::<Vec<_>>());
            state.reset(&options);
        }
        let all = |gauges: &[(&str, u32)]| {
            let named = gauges.iter().map(|(name, left)| ((*name).into(), *left));
            named.collect::<Vec<(String, u32)>>()
        };
        assert_eq!(surviving[0], all(&[("new", 3), ("old", 2), ("none", 1)]));
        assert_eq!(surviving[1], all(&[("new", 2), ("old", 1)]));
        assert_eq!(surviving[2], all(&[("new", 1)]));
    }

    #[test]
    fn timers_keep_fewer_samples_while_memory_is_short() {
        let options = Options::default();
        let mut state = State::new(&options);
        let mut folded = |short| {
            state.set_short(short, &options);
            for _ in 0..2 {
                let mut harvest = Harvest::default();
                harvest.samples.extend([1.0; 200]);
                harvest.timers.push(TimerPart {
                    id: NameId(0),
                    hits: 200,
                    samples: 200,
                    weights: 0,
                    weight: 200.0,
                    histogram: None,
                });
                state.absorb(&mut harvest);
            }
            let timer = state.timers.cells[0].as_ref().expect("it is alive");
            let (kept, histogram) = (timer.samples.len(), timer.histogram.as_ref());
            let folded = histogram.map(|it| it.all_moments().count);
            state.reset(&options);
            let timer = state.timers.cells[0].as_ref().expect("it is alive");
            (kept, folded, timer.samples.capacity() > 0)
        };
        assert_eq!(folded(false), (400, None, true));
        assert_eq!(folded(true), (0, Some(400), false));
        assert_eq!(folded(false), (400, None, true));
    }

    #[test]
    fn times_past_the_limit_are_told_and_those_there_go_on() {
        let mut state = State::new(&Options::default());
        let mut bring = |kind, times: std::ops::Range<usize>| {
            let mut harvest = Harvest::default();
            harvest.points.extend(times.map(|at| StampedPart {
                kind,
                id: NameId(0),
                at: at as i64,
                point: Point {
                    value: 1.0,
                    written: cell::Stamp(1),
                },
            }));
            state.absorb(&mut harvest)
        };
        assert_eq!(bring(Kind::Counter, 0..POINTS_MAX - 10), [0; 4]);
        assert_eq!(bring(Kind::Gauge, 0..12), [0, 0, 2, 0]);
        assert_eq!(
            bring(Kind::Counter, POINTS_MAX - 20..POINTS_MAX),
            [10, 0, 0, 0]
        );
        state.counters.names = vec!["c".into()];
        state.gauges.names = vec!["g".into()];
        let points = state.take_points();
        assert_eq!(points.len(), POINTS_MAX);
        let sum: f64 = points.iter().map(|it| it.value).sum();
        assert_eq!(sum, POINTS_MAX as f64 + 10.0);
    }

    #[test]
    fn names_are_invisible_when_nothing_is_known_of_them_any_more() {
        let options = Options {
            delete_counters: true,
            key_flush: Some(super::super::KeyFlush {
                every: std::time::Duration::from_secs(60),
                percent: 100,
                file: None,
            }),
            ..Options::default()
        };
        let (registry, mut state) = (Registry::new(), State::new(&options));
        let mut flush = |brought: &mut Harvest, reports: bool| {
            state.absorb(brought);
            state.catch_up(&registry);
            let counts = reports.then(|| state.take_key_counts().len());
            state.take_points();
            state.reset(&options);
            let [counters, ..] = state.invisible(2, 10);
            (counters, counts)
        };
        let hit = registry.id(Kind::Counter, "hit");
        let stamped = registry.id(Kind::Counter, "stamped");
        let on_its_way = registry.id(Kind::Counter, "on its way");
        let mut harvest = Harvest::default();
        harvest.counters.push(Part {
            id: hit,
            hits: 1,
            cell: 1.0,
        });
        harvest.points.push(crate::metric::harvest::StampedPart {
            kind: Kind::Counter,
            id: stamped,
            at: 1,
            point: Point {
                value: 1.0,
                written: cell::Stamp(1),
            },
        });
        assert_eq!(flush(&mut harvest, false), (vec![], None));
        assert_eq!(flush(&mut harvest, false), (vec![], None));
        let two = vec![stamped, on_its_way];
        assert_eq!(flush(&mut harvest, false), (two.clone(), None));
        assert_eq!(flush(&mut harvest, false), (two, None));
        // The report has been waiting for the one that got a value.
        let all = vec![hit, stamped, on_its_way];
        assert_eq!(flush(&mut harvest, true), (all, Some(1)));
    }

    #[test]
    fn what_is_not_a_number_gives_way_whichever_came_first() {
        for [first, second] in [[f64::NAN, 5.0], [5.0, f64::NAN]] {
            let mut state = State::new(&Options::default());
            state.count(NameId(0), first);
            state.count(NameId(0), second);
            assert_eq!(state.counters.cells[0], Some(5.0));
        }
        let mut state = State::new(&Options::default());
        state.count(NameId(0), f64::NAN);
        assert!(state.counters.cells[0].is_some_and(f64::is_nan));
    }
}
