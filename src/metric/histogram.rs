//! A timer that outgrew its raw samples: counts on HDR's bucket grid, and running moments.
//!
//! The grid is the one `hdrhistogram` has at three significant digits when values are scaled by a
//! power of two: 1024 slots to an octave, so the top ten bits of the fraction of an `f64` *are* the
//! slot, and a slot is 1/1024 of its octave wide at every magnitude. The middle of a slot is within
//! 0.05 % of everything in it. Bounds are fixed ([`LOWEST`], [`HIGHEST`]): one hostile value cannot
//! grow memory. What falls outside is counted apart and stands at the exact minimum or maximum.
//!
//! A page (one octave, a byte a slot: 1 KiB) exists from the first value in it; a real timer touches four to
//! six. A slot that counts past its byte carries into a number of its own. A thousand busy timers write all
//! over their pages, so that what no cache holds costs by the byte (tuning.md).
//! Merging two histograms is integer addition, therefore exact and free of order.

use std::collections::BTreeMap;

/// Slots to an octave: the resolution of three significant digits.
pub const SLOTS: usize = 1024;
/// Octaves the grid covers.
pub const OCTAVES: usize = 52;
/// Exponent of the lowest octave.
pub const LOWEST_EXPONENT: i32 = -16;
/// Smallest value the grid resolves, 2^-16 (15 nanoseconds, when the unit is a millisecond).
pub const LOWEST: f64 = 1.0 / 65_536.0;
/// First value above the grid, 2^36 (two years, when the unit is a millisecond).
pub const HIGHEST: f64 = 68_719_476_736.0;

/// Bits of an `f64` below the ten that name the slot.
const SLOT_SHIFT: u32 = 52 - 10;
/// What `bits >> SLOT_SHIFT` is for [`LOWEST`].
const FIRST_SLOT: u64 = ((1023 + LOWEST_EXPONENT) as u64) << 10;

const _: () = assert!(OCTAVES as i32 + LOWEST_EXPONENT == 36);
const _: () = assert!(OCTAVES * SLOTS <= u16::MAX as usize + 1);

/// Slots merged side by side.
const RUN: usize = 64;

type Page = Box<[u8; SLOTS]>;

/// Counts of values, by slot.
#[derive(Debug, Clone)]
pub struct Grid {
    pages: [Option<Page>; OCTAVES],
    /// Slots that counted past their byte, and how often.
    carries: BTreeMap<u16, u64>,
    /// Values that are exactly zero; timers often are, and zero has no octave.
    pub zeros: u64,
    /// Values under [`LOWEST`] other than zero, negative ones included.
    pub below: u64,
    /// Values from [`HIGHEST`] up, infinity included.
    pub above: u64,
}

impl Default for Grid {
    fn default() -> Self {
        Self {
            pages: [const { None }; OCTAVES],
            carries: BTreeMap::new(),
            zeros: 0,
            below: 0,
            above: 0,
        }
    }
}

/// Equal counts; an empty page that is kept for its memory is no difference.
impl PartialEq for Grid {
    fn eq(&self, other: &Self) -> bool {
        let outside = |grid: &Self| (grid.zeros, grid.below, grid.above);
        outside(self) == outside(other) && self.slots().eq(other.slots())
    }
}

impl Grid {
    /// Counts one value. NaN cannot come this far; it would count as below.
    #[inline]
    pub fn record(&mut self, value: f64) {
        let slot = Self::slot(value);
        if let Some(page) = self.pages.get_mut(slot / SLOTS) {
            let page = page.get_or_insert_with(|| Box::new([0; SLOTS]));
            let count = &mut page[slot % SLOTS];
            *count = count.wrapping_add(1);
            if *count == 0 {
                self.carry(slot);
            }
        } else if value == 0.0 {
            self.zeros += 1;
        } else if value >= HIGHEST {
            self.above += 1;
        } else {
            self.below += 1;
        }
    }

    #[cold]
    fn carry(&mut self, slot: usize) {
        *self.carries.entry(slot as u16).or_default() += 1;
    }

    /// Where a value lies; beyond the last slot when it is outside.
    #[inline]
    fn slot(value: f64) -> usize {
        (value.to_bits() >> SLOT_SHIFT).wrapping_sub(FIRST_SLOT) as usize
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (octave, theirs) in other.pages.iter().enumerate() {
            let Some(theirs) = theirs else { continue };
            let Some(mine) = &mut self.pages[octave] else {
                self.pages[octave] = Some(theirs.clone());
                continue;
            };
            for (run, (mine, theirs)) in mine.chunks_mut(RUN).zip(theirs.chunks(RUN)).enumerate() {
                // Side by side: hardly a run has a carry, and then it is only looked for.
                let pairs = mine.iter().zip(theirs);
                if pairs.fold(false, |any, (mine, theirs)| {
                    any | mine.checked_add(*theirs).is_none()
                }) {
                    for (at, (mine, theirs)) in mine.iter().zip(theirs).enumerate() {
                        if mine.checked_add(*theirs).is_none() {
                            let slot = octave * SLOTS + run * RUN + at;
                            *self.carries.entry(slot as u16).or_default() += 1;
                        }
                    }
                }
                for (mine, theirs) in mine.iter_mut().zip(theirs) {
                    *mine = mine.wrapping_add(*theirs);
                }
            }
        }
        for (slot, times) in &other.carries {
            *self.carries.entry(*slot).or_default() += times;
        }
        self.zeros += other.zeros;
        self.below += other.below;
        self.above += other.above;
    }

    /// Forgets every count. Pages stay for the next use, unless this one did not touch them.
    pub fn clear(&mut self) {
        for page in &mut self.pages {
            match page {
                Some(counts) if counts.iter().any(|count| *count > 0) => counts.fill(0),
                _ => *page = None,
            }
        }
        self.carries.clear();
        (self.zeros, self.below, self.above) = (0, 0, 0);
    }

    /// The slots that hold something, ascending: the slot's lower bound and its count.
    pub fn slots(&self) -> impl Iterator<Item = (f64, u64)> {
        self.pages
            .iter()
            .enumerate()
            .flat_map(move |(octave, page)| {
                let counts = page.as_deref().map_or(&[][..], |page| &page[..]);
                let first = octave * SLOTS;
                let carries = first as u16..=(first + SLOTS - 1) as u16;
                // Beside the counts, not looked for at each: a busy timer has hundreds.
                let mut carries = self.carries.range(carries);
                let mut carry = carries.next();
                counts.iter().enumerate().filter_map(move |(at, count)| {
                    let slot = first + at;
                    let mut count = u64::from(*count);
                    if !self.carries.is_empty()
                        && let Some((carrying, times)) = carry
                        && usize::from(*carrying) == slot
                    {
                        count += times << u8::BITS;
                        carry = carries.next();
                    }
                    (count > 0).then(|| (Self::lower_bound(slot), count))
                })
            })
    }

    /// The same by the numbers of the slots.
    pub fn numbered(&self) -> impl Iterator<Item = (u16, u64)> {
        self.slots()
            .map(|(bound, count)| (Self::slot(bound) as u16, count))
    }

    /// Adds to a slot, by its number. `false` when there is no such slot.
    pub fn add(&mut self, slot: u16, count: u64) -> bool {
        let at = usize::from(slot);
        let Some(page) = self.pages.get_mut(at / SLOTS) else {
            return false;
        };
        let page = page.get_or_insert_with(|| Box::new([0; SLOTS]));
        let byte = u64::from(page[at % SLOTS]) + (count & 0xff);
        page[at % SLOTS] = byte as u8;
        let carries = (count >> u8::BITS) + (byte >> u8::BITS);
        if carries > 0 {
            let before = self.carries.entry(slot).or_default();
            *before = before.saturating_add(carries);
        }
        true
    }

    /// Heap bytes held by the pages.
    pub fn heap_bytes(&self) -> usize {
        self.pages.iter().flatten().count() * size_of::<[u8; SLOTS]>()
    }

    fn lower_bound(slot: usize) -> f64 {
        f64::from_bits((slot as u64 + FIRST_SLOT) << SLOT_SHIFT)
    }
}

/// Running sums over values, merged without losing what a plain sum of squares would cancel away:
/// mean and squared deviation are combined as Chan, Golub and LeVeque (1979) do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moments {
    /// How many values.
    pub count: u64,
    /// How many events they stand for.
    pub weight: f64,
    /// Their sum, each as often as it stands for an event.
    pub sum: f64,
    /// Sum of their squares.
    pub sum_squares: f64,
    /// Their mean, kept for the merge law,
    mean: f64,
    /// and what rounding took from it: without it a mean of 1e9 blurs a deviation of 1.
    mean_rest: f64,
    /// Sum of squared deviations from the mean.
    deviation: f64,
    /// Smallest value; infinity when there is none.
    pub min: f64,
    /// Largest value; minus infinity when there is none.
    pub max: f64,
}

impl Default for Moments {
    fn default() -> Self {
        Self {
            count: 0,
            weight: 0.0,
            sum: 0.0,
            sum_squares: 0.0,
            mean: 0.0,
            mean_rest: 0.0,
            deviation: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl Moments {
    /// The moments of a run of values, in two passes.
    pub fn of(values: &[f64]) -> Self {
        let mut moments = Self {
            count: values.len() as u64,
            weight: values.len() as f64,
            ..Self::default()
        };
        for &value in values {
            moments.sum += value;
            moments.sum_squares += value * value;
            moments.min = moments.min.min(value);
            moments.max = moments.max.max(value);
        }
        if !values.is_empty() {
            let count = values.len() as f64;
            moments.mean = moments.sum / count;
            let (mut rest, mut squares) = (0.0, 0.0);
            for value in values {
                let apart = value - moments.mean;
                rest += apart;
                squares += apart * apart;
            }
            moments.mean_rest = rest / count;
            // The correction for rounding is none where the squares have left the range.
            moments.deviation = if squares.is_infinite() {
                squares
            } else {
                squares - rest * rest / count
            };
        }
        moments
    }

    /// The same of values that stand for several events each, or for less than one.
    pub fn of_weighted(values: &[(f64, f64)]) -> Self {
        let mut moments = Self {
            count: values.len() as u64,
            ..Self::default()
        };
        for &(value, weight) in values {
            moments.weight += weight;
            moments.sum += weight * value;
            moments.sum_squares += weight * value * value;
            moments.min = moments.min.min(value);
            moments.max = moments.max.max(value);
        }
        if !values.is_empty() {
            moments.mean = moments.sum / moments.weight;
            let (mut rest, mut squares) = (0.0, 0.0);
            for (value, weight) in values {
                let apart = value - moments.mean;
                rest += weight * apart;
                squares += weight * apart * apart;
            }
            moments.mean_rest = rest / moments.weight;
            moments.deviation = if squares.is_infinite() {
                squares
            } else {
                squares - rest * rest / moments.weight
            };
        }
        moments
    }

    /// Merge law: the moments of both runs together.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let (mine, theirs) = (self.weight, other.weight);
        let apart = (other.mean - self.mean) + (other.mean_rest - self.mean_rest);
        self.deviation += other.deviation + apart * apart * mine * theirs / (mine + theirs);
        let step = self.mean_rest + apart * theirs / (mine + theirs);
        let mean = self.mean + step;
        self.mean_rest = (self.mean - mean) + step;
        self.mean = mean;
        self.count += other.count;
        self.weight += other.weight;
        self.sum += other.sum;
        self.sum_squares += other.sum_squares;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Everything but the count, for [`Moments::of_parts`].
    pub fn parts(&self) -> [f64; 8] {
        let Self {
            count: _,
            weight,
            sum,
            sum_squares,
            mean,
            mean_rest,
            deviation,
            min,
            max,
        } = *self;
        [
            weight,
            sum,
            sum_squares,
            mean,
            mean_rest,
            deviation,
            min,
            max,
        ]
    }

    /// The moments of so many values, from their parts.
    pub fn of_parts(count: u64, parts: [f64; 8]) -> Self {
        let [
            weight,
            sum,
            sum_squares,
            mean,
            mean_rest,
            deviation,
            min,
            max,
        ] = parts;
        Self {
            count,
            weight,
            sum,
            sum_squares,
            mean,
            mean_rest,
            deviation,
            min,
            max,
        }
    }

    /// Sum of squared distances from the mean; NaN once an infinite value came in.
    pub fn squares_apart(&self) -> f64 {
        self.deviation
    }

    /// Population standard deviation; NaN once an infinite value came in, as the reference has it.
    pub fn std(&self) -> f64 {
        (self.deviation / self.weight).sqrt()
    }
}

/// Samples that do not count once each: what they weigh, on the same grid. A page of it is 8 KiB.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted {
    pages: [Option<Box<[f64; SLOTS]>>; OCTAVES],
    /// Weight of zeros, of what is below the grid, and of what is above it.
    pub zeros: f64,
    /// See [`Grid::below`].
    pub below: f64,
    /// See [`Grid::above`].
    pub above: f64,
    /// How many samples are outside of the grid.
    pub outside: u64,
    /// Their sums and extremes.
    pub moments: Moments,
}

impl Default for Weighted {
    fn default() -> Self {
        Self {
            pages: [const { None }; OCTAVES],
            zeros: 0.0,
            below: 0.0,
            above: 0.0,
            outside: 0,
            moments: Moments::default(),
        }
    }
}

impl Weighted {
    fn fold(&mut self, samples: &[(f64, f64)]) {
        for &(value, weight) in samples {
            let slot = Grid::slot(value);
            if let Some(page) = self.pages.get_mut(slot / SLOTS) {
                page.get_or_insert_with(|| Box::new([0.0; SLOTS]))[slot % SLOTS] += weight;
            } else if value == 0.0 {
                self.zeros += weight;
            } else {
                self.outside += 1;
                let side = if value >= HIGHEST {
                    &mut self.above
                } else {
                    &mut self.below
                };
                *side += weight;
            }
        }
        self.moments.merge(&Moments::of_weighted(samples));
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.pages.iter_mut().zip(&other.pages) {
            match (mine, theirs) {
                (Some(mine), Some(theirs)) => {
                    mine.iter_mut()
                        .zip(theirs.iter())
                        .for_each(|(a, b)| *a += b);
                }
                (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
                (_, None) => {}
            }
        }
        self.zeros += other.zeros;
        self.below += other.below;
        self.above += other.above;
        self.outside += other.outside;
        self.moments.merge(&other.moments);
    }

    /// The slots that hold something, ascending: the slot's lower bound and its weight.
    pub fn slots(&self) -> impl Iterator<Item = (f64, f64)> {
        let pages = self.pages.iter().enumerate();
        pages.flat_map(|(octave, page)| {
            let weights = page.as_deref().map_or(&[][..], |page| &page[..]);
            let held = weights
                .iter()
                .enumerate()
                .filter(|(_, weight)| **weight > 0.0);
            held.map(move |(slot, weight)| (Grid::lower_bound(octave * SLOTS + slot), *weight))
        })
    }

    /// The same by the numbers of the slots.
    pub fn numbered(&self) -> impl Iterator<Item = (u16, f64)> {
        self.slots()
            .map(|(bound, weight)| (Grid::slot(bound) as u16, weight))
    }

    /// Adds to a slot, by its number. `false` when there is no such slot.
    pub fn add(&mut self, slot: u16, weight: f64) -> bool {
        let at = usize::from(slot);
        let Some(page) = self.pages.get_mut(at / SLOTS) else {
            return false;
        };
        page.get_or_insert_with(|| Box::new([0.0; SLOTS]))[at % SLOTS] += weight;
        true
    }
}

/// Everything kept of samples that are not kept themselves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Where the values lie that count once.
    pub grid: Grid,
    /// Their exact sums and extremes.
    pub moments: Moments,
    /// The others.
    pub weighted: Option<Box<Weighted>>,
}

impl Histogram {
    /// Takes in a run of samples, with the weights of those that do not count once: place and weight.
    pub fn fold(&mut self, samples: &[f64], weights: &[(u32, f64)]) {
        if !weights.is_empty() {
            return self.fold_weighted(samples, weights);
        }
        for &sample in samples {
            self.grid.record(sample);
        }
        self.moments.merge(&Moments::of(samples));
    }

    #[cold]
    fn fold_weighted(&mut self, samples: &[f64], weights: &[(u32, f64)]) {
        let mut once = Vec::with_capacity(samples.len() - weights.len());
        let mut weighted = Vec::with_capacity(weights.len());
        let mut weights = weights.iter().peekable();
        for (at, sample) in samples.iter().enumerate() {
            match weights.next_if(|(place, _)| *place as usize == at) {
                Some((_, weight)) => weighted.push((*sample, *weight)),
                None => once.push(*sample),
            }
        }
        self.fold(&once, &[]);
        self.weighted.get_or_insert_default().fold(&weighted);
    }

    /// The moments of all samples.
    pub fn all_moments(&self) -> Moments {
        let mut all = self.moments;
        if let Some(weighted) = &self.weighted {
            all.merge(&weighted.moments);
        }
        all
    }

    /// How many samples lie outside of the grid, zeros excepted.
    pub fn outside(&self) -> u64 {
        let weighted = self.weighted.as_ref().map_or(0, |it| it.outside);
        self.grid.below + self.grid.above + weighted
    }

    /// Forgets everything, keeps the pages that were in use.
    pub fn clear(&mut self) {
        self.grid.clear();
        self.moments = Moments::default();
        self.weighted = None;
    }

    /// Merge law: addition.
    pub fn merge(&mut self, other: &Self) {
        self.grid.merge(&other.grid);
        self.moments.merge(&other.moments);
        if let Some(theirs) = &other.weighted {
            self.weighted.get_or_insert_default().merge(theirs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_slot_holds_what_lies_between_its_bounds() {
        let mut grid = Grid::default();
        for value in [
            LOWEST,
            1.0,
            1.0 + 1.0 / 2048.0,
            1.0 + 1.0 / 1024.0,
            HIGHEST.next_down(),
        ] {
            grid.record(value);
        }
        let slots: Vec<_> = grid.slots().collect();
        assert_eq!(slots[0], (LOWEST, 1));
        assert_eq!(slots[1], (1.0, 2));
        assert_eq!(slots[2], (1.0 + 1.0 / 1024.0, 1));
        assert_eq!(slots[3], (HIGHEST - HIGHEST / 2048.0, 1));
    }

    #[test]
    fn what_lies_outside_is_counted_apart() {
        let mut grid = Grid::default();
        for value in [
            0.0,
            -0.0,
            -5.0,
            LOWEST.next_down(),
            5e-324,
            HIGHEST,
            f64::INFINITY,
        ] {
            grid.record(value);
        }
        assert_eq!((grid.zeros, grid.below, grid.above), (2, 3, 2));
        assert_eq!(grid.slots().count(), 0);
        assert_eq!(grid.heap_bytes(), 0);
    }

    #[test]
    fn a_count_outgrows_its_byte() {
        let mut grid = Grid::default();
        grid.record(1.0);
        for _ in 0..33 {
            let same = grid.clone();
            grid.merge(&same);
        }
        assert_eq!(grid.slots().collect::<Vec<_>>(), [(1.0, 1 << 33)]);
        grid.clear();
        assert_eq!(grid.slots().count(), 0);
        assert!(grid.heap_bytes() <= 1024);
        grid.clear();
        assert_eq!((grid.heap_bytes(), grid), (0, Grid::default()));
    }

    #[test]
    fn squares_beyond_the_range_are_infinite_and_not_nothing() {
        assert_eq!(Moments::of(&[1e200, 1.0, 1e200]).std(), f64::INFINITY);
    }

    #[test]
    fn std_survives_a_mean_far_from_zero() {
        let values: Vec<f64> = (0..10_000).map(|n| 1e9 + f64::from(n % 2)).collect();
        let mut moments = Moments::default();
        values
            .chunks(7)
            .for_each(|chunk| moments.merge(&Moments::of(chunk)));
        assert!((moments.std() - 0.5).abs() < 1e-9, "{}", moments.std());
    }

    proptest! {
        /// Counts of a plain map are the twin: few slots, so that bytes run over, and many parts.
        #[test]
        fn counts_are_those_of_a_map(
            parts in proptest::collection::vec(
                proptest::collection::vec((0..70usize, 0..300usize), 0..20),
                1..5,
            ),
        ) {
            let (mut merged, mut twin) = (Grid::default(), BTreeMap::new());
            for part in parts {
                let mut grid = Grid::default();
                for (slot, times) in part {
                    let value = 1.0 + slot as f64 / SLOTS as f64;
                    (0..times).for_each(|_| grid.record(value));
                    if times > 0 {
                        *twin.entry(slot).or_insert(0) += times as u64;
                    }
                }
                merged.merge(&grid);
            }
            let counts = twin.into_iter().map(|(slot, count)| (1.0 + slot as f64 / SLOTS as f64, count));
            prop_assert_eq!(merged.slots().collect::<Vec<_>>(), counts.collect::<Vec<_>>());
        }

        #[test]
        fn merging_parts_is_folding_the_whole(
            values in proptest::collection::vec(1e-6..1e12f64, 1..500),
            cut in 0..500usize,
        ) {
            let cut = cut.min(values.len());
            let (mut whole, mut left, mut right) = <(Histogram, Histogram, Histogram)>::default();
            whole.fold(&values, &[]);
            left.fold(&values[..cut], &[]);
            right.fold(&values[cut..], &[]);
            right.merge(&left);
            prop_assert_eq!(&right.grid, &whole.grid);
            prop_assert_eq!(right.moments.count, whole.moments.count);
            prop_assert_eq!(right.moments.min, whole.moments.min);
            prop_assert_eq!(right.moments.max, whole.moments.max);
            prop_assert!((right.moments.sum / whole.moments.sum - 1.0).abs() < 1e-12);
            let std = whole.moments.std();
            prop_assert!((right.moments.std() - std).abs() <= 1e-9 * std);
        }
    }
}
