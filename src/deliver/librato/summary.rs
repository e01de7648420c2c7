//! The samples of a timer -> what a complex gauge has of them, all of them or the smallest.
//!
//! `stddev_m2` is the standard deviation of the sample, whatever its name says: it is what the reference
//! sends. Percentiles are rounded as there, which is not as Graphite's are: of 5 samples the 90th takes 4.

use crate::metric::snapshot::Distribution;

/// A complex gauge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Summary {
    /// Of events; not a whole number where samples weigh none.
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) min: f64,
    /// Standard deviation of the sample; 0 of a single one.
    pub(super) deviation: f64,
    pub(super) max: f64,
}

/// How many of `n` events a percentile takes, from below. A percentile over 100 takes all.
pub(super) fn rank(percent: f64, n: f64) -> f64 {
    // Half goes up; what is negative or too much ends at the bounds.
    let dropped = ((100.0 - percent) / 100.0 * n).max(0.0);
    let whole = dropped.floor();
    let up = f64::from(u8::from(dropped - whole >= 0.5));
    (n - (whole + up)).max(0.0)
}

/// Of samples in ascending order; there is at least one.
pub(super) fn of_samples(samples: &[f64]) -> Summary {
    // An empty sum is -0, which is as good a start.
    let sum: f64 = samples.iter().sum();
    let count = samples.len() as f64;
    let mean = sum / count;
    let apart = samples.iter().map(|value| (value - mean) * (value - mean));
    Summary {
        count,
        sum,
        min: samples[0],
        deviation: deviation(apart.sum(), count),
        max: samples[samples.len() - 1],
    }
}

/// Of the `k` smallest events of a distribution, which has at least as many; `k` is not 0.
pub(super) fn of_distribution(distribution: &Distribution, k: f64) -> Summary {
    if k == distribution.count {
        return Summary {
            count: k,
            sum: distribution.sum,
            min: distribution.min,
            deviation: deviation(distribution.squares_apart, k),
            max: distribution.max,
        };
    }
    let smallest = || {
        let mut left = k;
        distribution.runs.iter().map_while(move |&(value, count)| {
            let taken = count.min(left);
            left -= taken;
            (taken > 0.0).then_some((value, taken))
        })
    };
    let sum = smallest().map(|(value, count)| value * count).sum::<f64>();
    let mean = sum / k;
    let apart = smallest().map(|(value, count)| (value - mean) * (value - mean) * count);
    Summary {
        count: k,
        sum,
        min: distribution.min,
        deviation: deviation(apart.sum(), k),
        max: smallest()
            .last()
            .map_or(distribution.min, |(value, _)| value),
    }
}

fn deviation(squares_apart: f64, n: f64) -> f64 {
    if n > 1.0 {
        (squares_apart / (n - 1.0)).sqrt()
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_round_the_samples_left_out() {
        for (percent, n, expected) in [
            (90.0, 5.0, 4.0),
            (70.0, 5.0, 3.0),
            (50.0, 5.0, 2.0),
            (30.0, 5.0, 1.0),
            (10.0, 5.0, 0.0),
            (50.0, 1.0, 0.0),
            (90.0, 1.0, 1.0),
            (90.0, 100.0, 90.0),
            (90.0, 18.0, 16.0),
            (99.9, 10.0, 10.0),
            (100.0, 7.0, 7.0),
            (150.0, 7.0, 7.0),
            (0.0, 7.0, 0.0),
            (-10.0, 7.0, 0.0),
        ] {
            assert_eq!(rank(percent, n), expected, "{percent} of {n}");
        }
    }

    /// The recorded timer of 18 samples.
    #[test]
    fn a_summary_is_the_recorded_one_to_the_last_bit() {
        let samples = [
            1.0, 4.0, 7.0, 10.0, 13.0, 16.0, 19.0, 22.0, 25.0, 29.0, 33.0, 37.0, 40.0, 45.0, 50.0,
            56.0, 62.0, 69.0,
        ];
        let all = Summary {
            count: 18.0,
            sum: 538.0,
            min: 1.0,
            deviation: 20.502191816511857,
            max: 69.0,
        };
        assert_eq!(of_samples(&samples), all);
        let of_90 = of_samples(&samples[..rank(90.0, 18.0) as usize]);
        assert_eq!((of_90.count, of_90.sum, of_90.max), (16.0, 407.0, 56.0));
        assert_eq!(of_90.deviation, 16.86799237214277);
        assert_eq!(of_samples(&[7.0]).deviation, 0.0);
    }

    #[test]
    fn a_distribution_is_summed_up_run_by_run() {
        let distribution = Distribution {
            count: 6.0,
            sum: 21.5,
            min: 0.5,
            max: 9.0,
            squares_apart: 45.0,
            runs: vec![(1.0, 2.0), (3.0, 2.0), (7.0, 2.0)],
        };
        let all = of_distribution(&distribution, 6.0);
        assert_eq!(
            (all.count, all.sum, all.min, all.max),
            (6.0, 21.5, 0.5, 9.0)
        );
        assert_eq!(all.deviation, 3.0);
        let five = of_distribution(&distribution, 5.0);
        assert_eq!(
            (five.count, five.sum, five.min, five.max),
            (5.0, 15.0, 0.5, 7.0)
        );
        assert_eq!(five.deviation, 6.0f64.sqrt());
        let two = of_distribution(&distribution, 2.0);
        assert_eq!((two.sum, two.deviation, two.max), (2.0, 0.0, 1.0));
        // A rank within a value takes a part of it.
        let part = of_distribution(&distribution, 2.5);
        assert_eq!((part.count, part.sum, part.max), (2.5, 3.5, 3.0));
    }
}
