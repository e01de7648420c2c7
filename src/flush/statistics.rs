//! A timer's samples -> its statistics: exactly as the reference while they are few, from the
//! histogram when they are many.
//!
//! Formulas, with x ascending, n values, S and Q the running sums of x and x^2, and for a threshold
//! p the rank k = round(|p| / 100 * n): `upper_p` = x[k-1], `sum_p` = S[k-1], `sum_squares_p` =
//! Q[k-1]; for p <= 0, `lower_p` = x[n-k] and the sums are those of the k largest. `mean_p` =
//! `sum_p` / k. `std` is the population's. The sample rate weighs in `count` and `count_ps` only.
//!
//! In dialect auto a sampled value counts as often as it stands for an event: n is the sum of the weights, a
//! rank may fall within a value, and all fields are what they would be if it had come so often.
//!
//! Past the exact limit counts, sums, extremes, mean and std stay exact (to rounding); a percentile
//! is the middle of its slot, within 0.05 % of the true one, and so are the sums up to it (0.1 % for
//! squares).

use super::{HistogramRule, Options, Threshold};
use crate::metric::cell::Timer;
use crate::metric::histogram::{self, Histogram, Moments};
use crate::metric::snapshot::{Distribution, Statistic};
use hdrhistogram::Histogram as Hdr;
use std::sync::Arc;

/// Fields a percentile has, and their order.
const PERCENTILE_FIELDS: usize = 5;
/// Fields of the whole, and their order.
const WHOLE: [&str; 9] = [
    "std",
    "upper",
    "lower",
    "count",
    "count_ps",
    "sum",
    "sum_squares",
    "mean",
    "median",
];

/// Computes statistics; holds what is the same for every timer, and scratch memory.
#[derive(Debug)]
pub struct Statistics {
    thresholds: Vec<Threshold>,
    rules: Vec<HistogramRule>,
    /// Names of all fields, in order; also in the snapshot.
    fields: Arc<[String]>,
    /// Fields that `calculatedTimerMetrics` leaves in.
    kept: Vec<bool>,
    /// For each histogram rule, the field of each of its bins.
    rule_fields: Vec<Vec<usize>>,
    interval_seconds: f64,
    sums: Vec<(f64, f64)>,
    hdr: Option<Box<Hdr<u64>>>,
}

impl Statistics {
    /// Lays out the fields.
    pub fn new(options: &Options) -> Self {
        let mut thresholds: Vec<Threshold> = Vec::new();
        for threshold in &options.thresholds {
            if thresholds
                .iter()
                .all(|known| known.label != threshold.label)
            {
                thresholds.push(threshold.clone());
            }
        }
        let mut fields = Vec::new();
        for Threshold { percent, label } in &thresholds {
            let side = if *percent > 0.0 { "upper" } else { "lower" };
            for part in ["count", "mean", side, "sum", "sum_squares"] {
                fields.push(format!("{part}_{label}"));
            }
        }
        fields.extend(WHOLE.map(String::from));
        let mut rule_fields = Vec::new();
        for rule in &options.histogram {
            let first = fields.len();
            let mut of_bins = Vec::new();
            for bin in &rule.bins {
                // The same bin twice is one field; the reference keeps what the later one counts.
                let name = format!("histogram.bin_{}", bin.label);
                let known = fields[first..].iter().position(|field| *field == name);
                of_bins.push(known.map_or(fields.len(), |at| first + at));
                if known.is_none() {
                    fields.push(name);
                }
            }
            rule_fields.push(of_bins);
        }
        let wanted = options
            .timer_fields
            .as_deref()
            .filter(|list| !list.is_empty());
        let kept = fields
            .iter()
            .map(|field| wanted.is_none_or(|list| list.contains(&generic(field))))
            .collect();
        Self {
            thresholds,
            rules: options.histogram.clone(),
            fields: fields.into(),
            kept,
            rule_fields,
            interval_seconds: options.interval.as_secs_f64(),
            sums: Vec::new(),
            hdr: None,
        }
    }

    /// Names of the fields, for the snapshot.
    pub fn fields(&self) -> Arc<[String]> {
        self.fields.clone()
    }

    /// Appends the statistics of one timer to `out`. Sorts its samples.
    pub fn of(&mut self, name: &str, timer: &mut Timer, out: &mut Vec<Statistic>) {
        let at_first = out.len();
        let mut push = |field: usize, value: f64| {
            out.push(Statistic {
                field: field as u32,
                value,
            });
        };
        let whole = self.thresholds.len() * PERCENTILE_FIELDS;
        if let Some(histogram) = &mut timer.histogram {
            // Counted in memory by now, but what came last may still be raw.
            histogram.fold(&timer.samples, &timer.weights);
            timer.samples.clear();
            timer.weights.clear();
            if histogram.weighted.is_some() {
                let (runs, moments) = (weighted_runs(histogram), histogram.all_moments());
                self.weighted(&runs, &moments, timer.weight, &mut push);
            } else {
                self.sketched(histogram, timer.weight, &mut push);
            }
        } else if !timer.weights.is_empty() {
            let runs = sort_weighted(timer);
            self.weighted(&runs, &Moments::of_weighted(&runs), timer.weight, &mut push);
        } else if timer.samples.is_empty() {
            push(whole + 4, 0.0);
            push(whole + 3, 0.0);
        } else {
            timer.samples.sort_unstable_by(f64::total_cmp);
            self.exact(&timer.samples, timer.weight, &mut push);
        }
        if let Some(rule) = self
            .rules
            .iter()
            .position(|rule| name.contains(&rule.metric))
        {
            self.bins(rule, timer, &mut push);
        }
        let kept = &self.kept;
        let mut from = at_first;
        for at in at_first..out.len() {
            if kept[out[at].field as usize] {
                out[from] = out[at];
                from += 1;
            }
        }
        out.truncate(from);
    }

    fn exact(&mut self, x: &[f64], weight: f64, push: &mut impl FnMut(usize, f64)) {
        let n = x.len();
        self.sums.clear();
        // The console tells -0 from 0, and -0 is what leaves the first value as it is.
        let mut running = (-0.0, 0.0);
        for &value in x {
            running = (value + running.0, value * value + running.1);
            self.sums.push(running);
        }
        let sums = &self.sums;
        for (index, Threshold { percent, .. }) in self.thresholds.iter().enumerate() {
            let first = index * PERCENTILE_FIELDS;
            if n == 1 {
                for (part, value) in [1.0, x[0], x[0], x[0], x[0] * x[0]].into_iter().enumerate() {
                    push(first + part, value);
                }
                continue;
            }
            let Some(k) = rank(*percent, n) else { continue };
            let from_below = *percent > 0.0;
            // Where the reference reads past an end of its arrays it gets `undefined`: such a field
            // is not sent, and what is computed from it is NaN.
            let boundary = if from_below {
                x.get(k - 1)
            } else {
                n.checked_sub(k).map(|at| &x[at])
            };
            let sums = if from_below {
                sums.get(k - 1).copied()
            } else {
                let rest = (n - 1)
                    .checked_sub(k)
                    .map_or((f64::NAN, f64::NAN), |at| sums[at]);
                Some((sums[n - 1].0 - rest.0, sums[n - 1].1 - rest.1))
            };
            push(first, k as f64);
            push(first + 1, sums.map_or(f64::NAN, |(sum, _)| sum / k as f64));
            if let Some(boundary) = boundary {
                push(first + 2, *boundary);
            }
            if let Some((sum, squares)) = sums {
                push(first + 3, sum);
                push(first + 4, squares);
            }
        }
        let (sum, sum_squares) = sums[n - 1];
        let mean = sum / n as f64;
        let deviation = x
            .iter()
            .fold(0.0, |acc, value| acc + (value - mean) * (value - mean));
        let middle = n / 2;
        let median = if n % 2 == 1 {
            x[middle]
        } else {
            (x[middle - 1] + x[middle]) / 2.0
        };
        let std = (deviation / n as f64).sqrt();
        let per_second = weight / self.interval_seconds;
        let values = [
            std,
            x[n - 1],
            x[0],
            weight,
            per_second,
            sum,
            sum_squares,
            mean,
            median,
        ];
        let first = self.thresholds.len() * PERCENTILE_FIELDS;
        values
            .into_iter()
            .enumerate()
            .for_each(|(part, value)| push(first + part, value));
    }

    fn sketched(&mut self, histogram: &Histogram, weight: f64, push: &mut impl FnMut(usize, f64)) {
        let moments = &histogram.moments;
        let n = moments.count as usize;
        let total = (moments.sum, moments.sum_squares);
        let hdr = self.hdr.get_or_insert_with(|| Box::new(scratch()));
        let ranks = Ranks::new(histogram, hdr);
        for (index, Threshold { percent, .. }) in self.thresholds.iter().enumerate() {
            let Some(k) = rank(*percent, n) else { continue };
            let first = index * PERCENTILE_FIELDS;
            push(first, k as f64);
            // Beyond the ends: as in the exact way.
            if *percent > 0.0 && k > n {
                push(first + 1, f64::NAN);
                continue;
            }
            let (boundary, (sum, squares)) = if *percent > 0.0 {
                (
                    Some(ranks.value(k)),
                    if k == n { total } else { ranks.sums(k) },
                )
            } else if k >= n {
                ((k == n).then_some(moments.min), (f64::NAN, f64::NAN))
            } else {
                let rest = ranks.sums(n - k);
                (
                    Some(ranks.value(n - k + 1)),
                    (total.0 - rest.0, total.1 - rest.1),
                )
            };
            push(first + 1, sum / k as f64);
            if let Some(boundary) = boundary {
                push(first + 2, boundary);
            }
            push(first + 3, sum);
            push(first + 4, squares);
        }
        let median = if n % 2 == 1 {
            ranks.value(n / 2 + 1)
        } else {
            (ranks.value(n / 2) + ranks.value(n / 2 + 1)) / 2.0
        };
        let mean = moments.sum / n as f64;
        self.whole(moments, mean, weight, median, push);
    }

    /// Of values that are ascending, with their weights. As the exact way does for each value as often as it
    /// weighs, partly where a rank falls within it.
    fn weighted(
        &mut self,
        runs: &[(f64, f64)],
        moments: &Moments,
        weight: f64,
        push: &mut impl FnMut(usize, f64),
    ) {
        let ranks = WeightedRanks::new(runs);
        let (n, total) = (ranks.total(), (moments.sum, moments.sum_squares));
        for (index, Threshold { percent, .. }) in self.thresholds.iter().enumerate() {
            let first = index * PERCENTILE_FIELDS;
            let mut fields = |fields: [f64; PERCENTILE_FIELDS]| {
                let fields = fields.into_iter().enumerate();
                fields.for_each(|(part, value)| push(first + part, value));
            };
            let from_below = *percent > 0.0;
            if n <= 1.0 {
                // As of a single value: all of it.
                let boundary = if from_below { moments.max } else { moments.min };
                let Moments {
                    sum, sum_squares, ..
                } = *moments;
                fields([n, sum / n, boundary, sum, sum_squares]);
                continue;
            }
            let mut k = (percent.abs() / 100.0 * n + 0.5).floor();
            if k < 1.0 {
                continue;
            }
            if percent.abs() <= 100.0 {
                // A whole rank may be above what is no whole number.
                k = k.min(n);
            }
            // Beyond the ends: as in the exact way.
            if k > n {
                push(first, k);
                push(first + 1, f64::NAN);
                if !from_below {
                    push(first + 3, f64::NAN);
                    push(first + 4, f64::NAN);
                }
            } else if from_below {
                let (sum, squares) = if k == n { total } else { ranks.sums(k) };
                fields([k, sum / k, ranks.value(k), sum, squares]);
            } else if k == n {
                fields([k, f64::NAN, moments.min, f64::NAN, f64::NAN]);
            } else {
                let rest = ranks.sums(n - k);
                let (sum, squares) = (total.0 - rest.0, total.1 - rest.1);
                fields([k, sum / k, ranks.value_above(n - k), sum, squares]);
            }
        }
        let median = (ranks.value(n / 2.0) + ranks.value_above(n / 2.0)) / 2.0;
        let mean = moments.sum / moments.weight;
        self.whole(moments, mean, weight, median, push);
    }

    /// The fields of the whole, of values that are not kept one by one.
    fn whole(
        &self,
        moments: &Moments,
        mean: f64,
        weight: f64,
        median: f64,
        push: &mut impl FnMut(usize, f64),
    ) {
        let first = self.thresholds.len() * PERCENTILE_FIELDS;
        let values = [
            moments.std(),
            moments.max,
            moments.min,
            weight,
            weight / self.interval_seconds,
            moments.sum,
            moments.sum_squares,
            mean,
            median,
        ];
        for (part, value) in values.into_iter().enumerate() {
            push(first + part, value);
        }
    }

    fn bins(&self, rule: usize, timer: &Timer, push: &mut impl FnMut(usize, f64)) {
        let mut below = match &timer.histogram {
            Some(histogram) => weighted_runs(histogram),
            None if timer.samples.is_empty() => return,
            None => pairs(timer),
        }
        .into_iter()
        .peekable();
        let fields = &self.rule_fields[rule];
        let mut counts = Vec::with_capacity(fields.len());
        for (bin, field) in self.rules[rule].bins.iter().zip(fields) {
            let mut count = 0.0;
            while let Some((_, more)) =
                below.next_if(|(value, _)| bin.below.is_none_or(|end| *value < end))
            {
                count += more;
            }
            match counts.iter_mut().find(|(known, _)| known == field) {
                Some((_, earlier)) => *earlier = count,
                None => counts.push((*field, count)),
            }
        }
        for (field, count) in counts {
            push(field, count);
        }
    }
}

/// `name_90` and `name_top90` stand for `name_percent` in `calculatedTimerMetrics`; every bin of a
/// histogram for `histogram`. A fractional percentile (`name_99_9`) loses only its last part, as
/// in the reference.
fn generic(field: &str) -> String {
    if field.starts_with("histogram.") {
        return "histogram".into();
    }
    match field.rsplit_once('_') {
        Some((stem, last)) => {
            let digits = last.strip_prefix("top").unwrap_or(last);
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
                format!("{stem}_percent")
            } else {
                field.into()
            }
        }
        None => field.into(),
    }
}

/// How many values a threshold takes; `None` when it takes none.
fn rank(percent: f64, n: usize) -> Option<usize> {
    let exact = percent.abs() / 100.0 * n as f64;
    // Math.round: half goes up.
    let floor = exact.floor();
    let rounded = if exact - floor >= 0.5 {
        floor + 1.0
    } else {
        floor
    };
    (rounded >= 1.0).then_some(rounded as usize)
}

/// The HDR histogram that every sketched timer is read through, one after the other. It grows to
/// the widest of them, which [`histogram::OCTAVES`] bounds at 430 KB.
fn scratch() -> Hdr<u64> {
    Hdr::new(3).expect("three digits are within hdrhistogram's bounds")
}

/// The power of two at or below a positive value.
fn octave(value: f64) -> f64 {
    f64::from_bits(value.to_bits() & (0x7ff << 52))
}

/// All values of a histogram as ascending runs: a value that stands for each, and how many.
fn runs(histogram: &Histogram) -> Vec<(f64, u64)> {
    let (grid, moments) = (&histogram.grid, &histogram.moments);
    let mut runs = Vec::with_capacity(256);
    if grid.below > 0 {
        runs.push((moments.min, grid.below));
    }
    if grid.zeros > 0 {
        runs.push((0.0, grid.zeros));
    }
    // Half a slot above its lower bound; a slot is 2^-10 of its octave wide.
    let half = 1.0 / (2 * histogram::SLOTS) as f64;
    runs.extend(grid.slots().map(|(low, count)| {
        (
            (low + octave(low) * half).clamp(moments.min, moments.max),
            count,
        )
    }));
    if grid.above > 0 {
        runs.push((moments.max, grid.above));
    }
    runs
}

/// [`runs`] with those that do not count once.
fn weighted_runs(histogram: &Histogram) -> Vec<(f64, f64)> {
    let Some(weighted) = &histogram.weighted else {
        let runs = runs(histogram).into_iter();
        return runs.map(|(value, count)| (value, count as f64)).collect();
    };
    let (grid, all) = (&histogram.grid, histogram.all_moments());
    let mut slots: Vec<(f64, f64)> = weighted.slots().collect();
    slots.extend(grid.slots().map(|(low, count)| (low, count as f64)));
    slots.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let half = 1.0 / (2 * histogram::SLOTS) as f64;
    let middle = |low: f64| (low + octave(low) * half).clamp(all.min, all.max);
    let below = (all.min, grid.below as f64 + weighted.below);
    let zeros = (0.0, grid.zeros as f64 + weighted.zeros);
    let above = (all.max, grid.above as f64 + weighted.above);
    let slots = slots.into_iter().map(|(low, weight)| (middle(low), weight));
    let runs = [below, zeros].into_iter().chain(slots).chain([above]);
    runs.filter(|(_, weight)| *weight > 0.0).collect()
}

/// Every sample of a timer with its weight.
fn pairs(timer: &Timer) -> Vec<(f64, f64)> {
    let mut weights = timer.weights.iter().peekable();
    let pair = |(at, sample): (usize, &f64)| {
        let weight = weights.next_if(|(place, _)| *place as usize == at);
        (*sample, weight.map_or(1.0, |(_, weight)| *weight))
    };
    timer.samples.iter().enumerate().map(pair).collect()
}

/// Sorts samples that have weights, and returns both.
fn sort_weighted(timer: &mut Timer) -> Vec<(f64, f64)> {
    let mut runs = pairs(timer);
    runs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    timer.weights.clear();
    for (at, (sample, weight)) in runs.iter().enumerate() {
        timer.samples[at] = *sample;
        if *weight != 1.0 {
            timer.weights.push((at as u32, *weight));
        }
    }
    runs
}

/// What a histogram tells of its samples, or samples that have weights, for a backend with statistics of its
/// own; `None` when the samples say all. After [`Statistics::of`].
pub(super) fn distribution(timer: &Timer) -> Option<Distribution> {
    let (runs, moments) = match &timer.histogram {
        Some(histogram) => (weighted_runs(histogram), histogram.all_moments()),
        None if timer.weights.is_empty() => return None,
        None => {
            let runs = pairs(timer);
            let moments = Moments::of_weighted(&runs);
            (runs, moments)
        }
    };
    Some(Distribution {
        count: moments.weight,
        sum: moments.sum,
        min: moments.min,
        max: moments.max,
        squares_apart: moments.squares_apart(),
        runs,
    })
}

/// Answers for ascending values with weights. A rank is a part of the whole weight, and need not be whole.
struct WeightedRanks<'a> {
    runs: &'a [(f64, f64)],
    /// Of each run and all below it: weight, sum, sum of squares.
    up_to: Vec<[f64; 3]>,
}

impl<'a> WeightedRanks<'a> {
    /// There is at least one run.
    fn new(runs: &'a [(f64, f64)]) -> Self {
        let mut all = [0.0; 3];
        let up_to = runs.iter().map(|(value, weight)| {
            all[0] += weight;
            all[1] += weight * value;
            all[2] += weight * value * value;
            all
        });
        Self {
            up_to: up_to.collect(),
            runs,
        }
    }

    fn total(&self) -> f64 {
        self.up_to[self.up_to.len() - 1][0]
    }

    /// The run that rank `k` is in, the last one where rounding takes it past the end.
    fn run(&self, below: impl Fn(f64) -> bool) -> usize {
        let at = self.up_to.partition_point(|all| below(all[0]));
        at.min(self.runs.len() - 1)
    }

    /// The smallest value that with all below it weighs as much as `k`.
    fn value(&self, k: f64) -> f64 {
        self.runs[self.run(|weight| weight < k)].0
    }

    /// The smallest value that with all below it weighs more.
    fn value_above(&self, k: f64) -> f64 {
        self.runs[self.run(|weight| weight <= k)].0
    }

    /// Sum and sum of squares of the smallest values that weigh `k` together.
    fn sums(&self, k: f64) -> (f64, f64) {
        let at = self.run(|weight| weight < k);
        let [before, sum, squares] = at.checked_sub(1).map_or([0.0; 3], |at| self.up_to[at]);
        let [weight, all, all_squares] = self.up_to[at];
        if k >= weight {
            return (all, all_squares);
        }
        let (value, part) = (self.runs[at].0, k - before);
        (sum + part * value, squares + part * value * value)
    }
}

/// Answers for one sketched timer: the value at a rank, and the sums up to it.
struct Ranks<'a> {
    histogram: &'a Histogram,
    hdr: &'a Hdr<u64>,
    /// Units of `hdr` to one of the timer's.
    scale: f64,
    runs: Vec<(f64, u64)>,
}

impl<'a> Ranks<'a> {
    fn new(histogram: &'a Histogram, hdr: &'a mut Hdr<u64>) -> Self {
        hdr.reset();
        // HDR resolves 1024..2048 in steps of one. With the lowest octave in use scaled to that, its
        // grid and ours coincide, and it needs no more of its own than that timer does.
        let lowest = histogram
            .grid
            .slots()
            .next()
            .map_or(1.0, |(low, _)| octave(low));
        let scale = histogram::SLOTS as f64 / lowest;
        for (low, count) in histogram.grid.slots() {
            hdr.record_n((low * scale) as u64, count)
                .expect("it grows to what is recorded");
        }
        Self {
            histogram,
            hdr,
            scale,
            runs: runs(histogram),
        }
    }

    /// The value of rank `k`, from 1.
    fn value(&self, k: usize) -> f64 {
        let (grid, moments) = (&self.histogram.grid, &self.histogram.moments);
        let k = k as u64;
        if k <= grid.below {
            return moments.min;
        }
        if k <= grid.below + grid.zeros {
            return 0.0;
        }
        let within = k - grid.below - grid.zeros;
        if within > self.hdr.len() {
            return moments.max;
        }
        // Half a rank early, so that rounding cannot push the quotient past the rank.
        let quantile = (within as f64 - 0.5) / self.hdr.len() as f64;
        let unit = self.hdr.value_at_quantile(quantile);
        let low = self.hdr.lowest_equivalent(unit) as f64;
        let next = self.hdr.next_non_equivalent(unit) as f64;
        ((low + next) / 2.0 / self.scale).clamp(moments.min, moments.max)
    }

    /// Sum and sum of squares of the `k` smallest values.
    fn sums(&self, k: usize) -> (f64, f64) {
        let mut left = k as u64;
        let mut sums = (0.0, 0.0);
        for &(value, count) in &self.runs {
            let taken = count.min(left) as f64;
            sums = (sums.0 + value * taken, sums.1 + value * value * taken);
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests;
