//! What one name collects in an interval, and the laws by which two halves of it become one.
//!
//! | kind | law |
//! |---|---|
//! | counter | addition; what is not a number gives way to what is |
//! | timer | samples side by side; past the limit, addition of [`Histogram`]s |
//! | set | union ([`super::set`]) |
//! | with a time of its own | as a counter or a gauge, each moment alone |
//! | gauge | the newest absolute write wins; then every delta later than it, in order of time |
//!
//! Each law is associative and free of order (a counter's and a sum's last bit excepted: floating
//! point addition is not), so it does not matter how the kernel spread the datagrams over workers.

use super::histogram::Histogram;
use super::sample::Kind;

/// A moment in nanoseconds on a clock all workers share. A worker never uses one twice for a gauge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp(pub u64);

/// Deltas a gauge keeps one by one before neighbours are added up.
///
/// While they are kept apart, any worker's absolute write falls exactly between the deltas it
/// belongs between. Past the limit two neighbours become one at the later one's stamp, which halves
/// the resolution in time and bounds the memory: 16 KiB for the busiest gauge of a worker.
pub const GAUGE_DELTAS: usize = 1024;

/// The same for a gauge that was merged of many: workers, or harvests of a long interval.
pub const MERGED_DELTAS: usize = 16 * GAUGE_DELTAS;

/// Values that there may always be room for.
const ROOM: usize = 32;

/// Lets half of the room go that an interval needed less than a quarter of, at its end: what is needed now
/// and then stays for some intervals, and the room of one odd burst does not stay for good.
fn let_go<T>(values: &mut Vec<T>) {
    let room = values.capacity();
    if room > ROOM && values.len() < room / 4 {
        values.shrink_to(room / 2);
    }
}
/// A write to a gauge.
pub type Write = (Stamp, f64);

/// Writes to one gauge in one interval.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gauge {
    absolute: Option<(Stamp, f64)>,
    /// Ascending by stamp, all later than `absolute`.
    deltas: Vec<(Stamp, f64)>,
}

impl Gauge {
    /// From what [`Gauge::writes`] tells of one, in whatever order.
    pub fn of_writes(absolute: Option<Write>, deltas: Vec<Write>) -> Self {
        let mut gauge = Self { absolute, deltas };
        gauge.merge(&Self::default());
        gauge
    }

    /// The newest absolute write, and the deltas after it.
    pub fn writes(&self) -> (Option<Write>, &[Write]) {
        (self.absolute, &self.deltas)
    }

    /// An absolute write: what was collected before it no longer matters.
    pub fn set(&mut self, at: Stamp, value: f64) {
        self.absolute = Some((at, value));
        self.deltas.clear();
    }

    /// A write with a sign.
    pub fn add(&mut self, at: Stamp, delta: f64) {
        if self.deltas.len() >= GAUGE_DELTAS {
            self.halve();
        }
        self.deltas.push((at, delta));
    }

    /// Merge law. Ties between workers go to the larger value, so that the order of merging is no matter.
    pub fn merge(&mut self, other: &Self) {
        let newest = match (self.absolute, other.absolute) {
            (Some(a), Some(b)) => Some(if (b.0, b.1) > (a.0, a.1) { b } else { a }),
            (a, b) => a.or(b),
        };
        self.absolute = newest;
        self.deltas.extend_from_slice(&other.deltas);
        if let Some((since, _)) = newest {
            self.deltas.retain(|(at, _)| *at > since);
        }
        self.deltas
            .sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        while self.deltas.len() > MERGED_DELTAS {
            self.halve();
        }
    }

    /// The gauge after these writes, when it held `before`.
    ///
    /// A signed write to a gauge that does not exist, is zero or is not a number sets it, as the
    /// reference does; for zero the only difference is the sign of a zero.
    pub fn after(&self, before: Option<f64>) -> f64 {
        let start = self.absolute.map(|(_, value)| value).or(before);
        let start = start.unwrap_or(0.0);
        self.deltas.iter().fold(start, |value, (_, delta)| {
            if value == 0.0 || value.is_nan() {
                *delta
            } else {
                value + delta
            }
        })
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.deltas.capacity() * size_of::<(Stamp, f64)>()
    }

    /// Before the end of an interval: lets go of some room that it did not need.
    pub fn let_go(&mut self) {
        let_go(&mut self.deltas);
    }

    /// Forgets the interval, keeps the memory.
    pub fn clear(&mut self) {
        self.absolute = None;
        self.deltas.clear();
    }

    /// Lets the memory go that an interval left behind.
    pub fn release(&mut self) {
        self.deltas.shrink_to_fit();
    }

    /// Ends the interval at `value`, what [`Gauge::after`] came to, and remembers when the newest
    /// absolute write was: workers answer a tick one after the other, so an older one may still come
    /// with a later harvest, and must lose to it then too. Deltas already in `value` are not kept: an
    /// absolute write that comes a flush late, yet belongs before one of them, overrides it.
    pub fn settle(&mut self, value: f64) {
        if let Some((_, settled)) = &mut self.absolute {
            *settled = value;
        }
        self.let_go();
        self.deltas.clear();
    }

    fn halve(&mut self) {
        let pairs = self.deltas.len() / 2;
        for pair in 0..pairs {
            let (first, second) = (self.deltas[2 * pair], self.deltas[2 * pair + 1]);
            self.deltas[pair] = (second.0, first.1 + second.1);
        }
        // One without a neighbour stays.
        self.deltas.drain(pairs..2 * pairs);
    }
}

/// A value that came with a time of its own, of a counter or a gauge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// A sum, or a level.
    pub value: f64,
    /// When it was written last, which is not the time it has.
    pub written: Stamp,
}

impl Point {
    /// Merge law, for the same name and time: a counter's add up, of a gauge's the newest write wins.
    pub fn merge(&mut self, kind: Kind, other: Self) {
        let newest = (other.written, other.value) > (self.written, self.value);
        if kind == Kind::Counter {
            self.value += other.value;
            self.written = self.written.max(other.written);
        } else if newest {
            *self = other;
        }
    }
}

/// Samples a timer keeps exactly while memory is short: a histogram of more of them is smaller.
pub const SAMPLES_WHEN_SHORT: usize = 256;

/// Values with times of their own that are kept of an interval, one for each name and time: some 20 MB.
pub const POINTS_MAX: usize = 1 << 18;

/// Emptied histograms that wait for the next timer to outgrow its samples. A fresh one costs a page
/// fault for each of its pages; a busy server needs hundreds in every interval.
pub type Spare = Vec<Box<Histogram>>;

/// Samples of one timer in one interval: exact while few, a histogram when many.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timer {
    /// Raw values in the order they came; with a histogram, those not folded into it yet.
    pub samples: Vec<f64>,
    /// Of `samples`, those that do not count once in ranks: place, ascending, and weight.
    pub weights: Vec<(u32, f64)>,
    /// Sum of `1 / rate`: how many events the samples stand for.
    pub weight: f64,
    /// Everything before `samples`, once there were more than the limit.
    pub histogram: Option<Box<Histogram>>,
}

impl Timer {
    /// Takes a sample; past `limit` raw ones, those go into the histogram together, so that the
    /// common path is one push. A histogram is taken from `spare` while there is one.
    #[inline]
    pub fn record(&mut self, value: f64, weight: f64, limit: usize, spare: &mut Spare) {
        if self.samples.len() >= limit {
            self.fold(spare);
        }
        self.samples.push(value);
        self.weight += weight;
    }

    /// Lets the sample that came last count so often in ranks too.
    #[inline]
    pub fn weigh(&mut self, weight: f64) {
        self.weights.push((self.samples.len() as u32 - 1, weight));
    }

    /// Merge law.
    pub fn merge(
        &mut self,
        samples: &[f64],
        weights: &[(u32, f64)],
        weight: f64,
        histogram: Option<Box<Histogram>>,
        limit: usize,
        spare: &mut Spare,
    ) {
        self.weight += weight;
        match (&mut self.histogram, histogram) {
            (Some(mine), Some(mut theirs)) => {
                mine.merge(&theirs);
                theirs.clear();
                spare.push(theirs);
            }
            (mine @ None, theirs @ Some(_)) => *mine = theirs,
            (_, None) => {}
        }
        if self.histogram.is_some() {
            // The limit is over all workers together: what is folded once is folded for good.
            self.fold(spare);
            self.fold_run(samples, weights, spare);
        } else if self.samples.len() + samples.len() > limit {
            self.fold(spare);
            self.fold_run(samples, weights, spare);
        } else {
            let before = self.samples.len() as u32;
            let moved = weights.iter().map(|(at, weight)| (before + at, *weight));
            self.weights.extend(moved);
            self.samples.extend_from_slice(samples);
        }
    }

    /// Bytes on the heap, but for the histogram.
    pub fn heap_bytes(&self) -> usize {
        self.samples.capacity() * size_of::<f64>()
            + self.weights.capacity() * size_of::<(u32, f64)>()
    }

    /// Before the end of an interval: lets go of some room that it did not need.
    pub fn let_go(&mut self) {
        // Before samples went into a histogram all of the room was needed.
        if self.histogram.is_none() {
            let_go(&mut self.samples);
            let_go(&mut self.weights);
        }
    }

    /// Forgets the interval; keeps the memory of the samples, and the histogram's in `spare`.
    pub fn clear(&mut self, spare: &mut Spare) {
        self.samples.clear();
        self.weights.clear();
        self.weight = 0.0;
        if let Some(mut histogram) = self.histogram.take() {
            histogram.clear();
            spare.push(histogram);
        }
    }

    /// Lets the memory go that an interval left behind.
    pub fn release(&mut self) {
        self.samples.shrink_to_fit();
        self.weights.shrink_to_fit();
    }

    #[cold]
    fn fold(&mut self, spare: &mut Spare) {
        let mut samples = std::mem::take(&mut self.samples);
        let mut weights = std::mem::take(&mut self.weights);
        self.fold_run(&samples, &weights, spare);
        samples.clear();
        weights.clear();
        (self.samples, self.weights) = (samples, weights);
    }

    fn fold_run(&mut self, samples: &[f64], weights: &[(u32, f64)], spare: &mut Spare) {
        if !samples.is_empty() {
            let histogram = &mut self.histogram;
            histogram
                .get_or_insert_with(|| spare.pop().unwrap_or_default())
                .fold(samples, weights);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gauge(writes: &[(u64, bool, f64)]) -> Gauge {
        let mut gauge = Gauge::default();
        for &(at, absolute, value) in writes {
            if absolute {
                gauge.set(Stamp(at), value);
            } else {
                gauge.add(Stamp(at), value);
            }
        }
        gauge
    }

    #[test]
    fn the_newest_absolute_wins_and_takes_the_later_deltas_of_every_worker() {
        let one = gauge(&[(1, true, 10.0), (5, false, 3.0), (9, false, -1.0)]);
        let two = gauge(&[(2, false, 100.0), (4, true, 20.0), (6, false, 2.0)]);
        // In time: 10, +100, =20, +3, +2, -1.
        let mut merged = one.clone();
        merged.merge(&two);
        assert_eq!(merged.after(Some(7.0)), 24.0);
        let mut merged = two;
        merged.merge(&one);
        assert_eq!(merged.after(None), 24.0);
    }

    #[test]
    fn deltas_alone_start_from_what_was_there() {
        let deltas = gauge(&[(1, false, 3.0), (2, false, -5.0)]);
        assert_eq!(deltas.after(Some(10.0)), 8.0);
        assert_eq!(deltas.after(None), -2.0);
        assert_eq!(deltas.after(Some(f64::NAN)), -2.0);
    }

    #[test]
    fn infinities_cancel_to_not_a_number_and_the_next_delta_sets() {
        let writes = gauge(&[
            (1, true, f64::INFINITY),
            (2, false, f64::NEG_INFINITY),
            (3, false, 5.0),
        ]);
        assert_eq!(writes.after(None), 5.0);
    }

    #[test]
    fn an_older_write_that_comes_an_interval_late_changes_nothing() {
        let mut merged = gauge(&[(5, true, 10.0), (7, false, 1.0)]);
        assert_eq!(merged.after(None), 11.0);
        merged.settle(11.0);
        // In time: =99, +50 (both before =10), then +2 and after the flush +4.
        merged.merge(&gauge(&[
            (3, true, 99.0),
            (4, false, 50.0),
            (6, false, 2.0),
        ]));
        merged.merge(&gauge(&[(9, false, 4.0)]));
        assert_eq!(merged.after(Some(11.0)), 17.0);
        merged.settle(17.0);
        merged.merge(&gauge(&[(12, true, 1.0)]));
        assert_eq!(merged.after(Some(17.0)), 1.0);
    }

    #[test]
    fn a_busy_gauge_stays_bounded_and_keeps_its_sum() {
        let mut busy = Gauge::default();
        for n in 0..100_000u64 {
            busy.add(Stamp(n), 1.0);
        }
        assert!(busy.deltas.len() <= GAUGE_DELTAS);
        assert_eq!(busy.after(None), 100_000.0);
        let mut merged = Gauge::default();
        for harvest in 0..100 {
            let mut part = Gauge::default();
            (0..999).for_each(|n| part.add(Stamp(harvest * 1000 + n), 1.0));
            merged.merge(&part);
            assert!(merged.deltas.len() <= MERGED_DELTAS);
        }
        assert_eq!(merged.after(None), 99_900.0);
    }

    #[test]
    fn the_room_of_an_odd_interval_is_let_go_in_some_intervals() {
        let (mut timer, mut gauge) = (Timer::default(), Gauge::default());
        let mut interval = |values: usize| {
            for n in 0..values {
                timer.record(1.0, 2.0, 1024, &mut Spare::new());
                timer.weigh(2.0);
                gauge.add(Stamp(n as u64), 1.0);
            }
            let room = timer.heap_bytes() + gauge.heap_bytes();
            timer.let_go();
            timer.clear(&mut Spare::new());
            gauge.settle(0.0);
            room
        };
        let full = interval(1024);
        assert_eq!(full, 1024 * (8 + 16 + 16));
        // Enough to be worth it, and every other interval less.
        for values in [256, 1024, 300, 1024, 0] {
            assert_eq!(interval(values), full, "{values}");
        }
        let rooms: Vec<_> = (0..8).map(|_| interval(3) * 1024 / full).collect();
        assert_eq!(rooms, [512, 256, 128, 64, 32, 32, 32, 32]);
        // The histogram says that there were more.
        let mut folded = Timer::default();
        (0..1025).for_each(|_| folded.record(1.0, 1.0, 1024, &mut Spare::new()));
        folded.let_go();
        assert_eq!(folded.heap_bytes(), 1024 * 8);
    }

    proptest! {
        /// Any split of a history over three workers, merged in any order, is the history.
        #[test]
        fn gauge_merge_of_splits_is_the_whole(
            history in proptest::collection::vec((any::<bool>(), -100..100i32, 0..3usize), 0..60),
            order in Just([0usize, 1, 2]).prop_shuffle(),
            before in proptest::option::of(-100..100i32),
        ) {
            let mut whole = Gauge::default();
            let mut parts = <[Gauge; 3]>::default();
            for (n, &(absolute, value, worker)) in history.iter().enumerate() {
                let (at, value) = (Stamp(n as u64), f64::from(value));
                for gauge in [&mut whole, &mut parts[worker]] {
                    if absolute { gauge.set(at, value) } else { gauge.add(at, value) }
                }
            }
            let mut merged = Gauge::default();
            order.iter().for_each(|worker| merged.merge(&parts[*worker]));
            let before = before.map(f64::from);
            prop_assert_eq!(merged.after(before), whole.after(before));
        }

        /// Whatever worker a sample went to, up to the limit the samples are all there, past it the
        /// same histogram is.
        #[test]
        fn timer_merge_of_splits_is_the_whole(
            samples in proptest::collection::vec((0..1_000_000u32, 0..3usize, 0..3u32), 0..200),
            limit in 1..80usize,
        ) {
            // One that was used before, so that a forgotten count would show.
            let mut used = Box::<Histogram>::default();
            used.fold(&[1.0, 2.0, 0.0, -1.0, f64::INFINITY], &[(1, 2.5)]);
            used.clear();
            let mut spare = vec![used];
            let mut whole = Timer::default();
            let mut parts = <[Timer; 3]>::default();
            for &(value, worker, weight) in &samples {
                let value = f64::from(value) / 64.0;
                for timer in [&mut whole, &mut parts[worker]] {
                    timer.record(value, 2.0, limit, &mut spare);
                    if weight > 0 {
                        timer.weigh(f64::from(weight) * 2.5);
                    }
                }
            }
            let mut merged = Timer::default();
            for part in parts {
                let Timer { samples, weights, weight, histogram } = part;
                merged.merge(&samples, &weights, weight, histogram, limit, &mut spare);
            }
            prop_assert_eq!(merged.weight, 2.0 * samples.len() as f64);
            prop_assert_eq!(merged.histogram.is_some(), samples.len() > limit);
            match merged.histogram.take() {
                None => {
                    let sorted = |timer: Timer| {
                        let mut weights = timer.weights.iter().peekable();
                        let pair = |(at, sample): (usize, &f64)| {
                            let weight = weights.next_if(|(place, _)| *place as usize == at);
                            (*sample, weight.map_or(1.0, |(_, weight)| *weight))
                        };
                        let mut pairs: Vec<_> = timer.samples.iter().enumerate().map(pair).collect();
                        pairs.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
                        pairs
                    };
                    prop_assert_eq!(sorted(merged), sorted(whole));
                }
                Some(histogram) => {
                    prop_assert!(merged.samples.is_empty() && merged.weights.is_empty());
                    whole.fold(&mut spare);
                    let whole = whole.histogram.expect("over the limit");
                    prop_assert_eq!(&histogram.grid, &whole.grid);
                    let (all, whole_moments) = (histogram.all_moments(), whole.all_moments());
                    prop_assert_eq!(all.count, samples.len() as u64);
                    prop_assert_eq!((all.sum, all.weight), (whole_moments.sum, whole_moments.weight));
                    let slots = |it: &Histogram| {
                        let weighted = it.weighted.as_ref();
                        weighted.map(|it| (it.slots().collect::<Vec<_>>(), it.zeros))
                    };
                    prop_assert_eq!(slots(&histogram), slots(&whole));
                }
            }
        }
    }
}
