//! Worked examples of the reference, and the bounds of what is past the exact limit.

use super::*;
use crate::flush::Bin;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn threshold(percent: f64) -> Threshold {
    let label = percent
        .to_string()
        .replacen('.', "_", 1)
        .replacen('-', "top", 1);
    Threshold { percent, label }
}

fn options(percents: &[f64]) -> Options {
    Options {
        thresholds: percents.iter().copied().map(threshold).collect(),
        ..Options::default()
    }
}

fn timer(samples: &[f64], limit: usize) -> Timer {
    let mut timer = Timer::default();
    samples
        .iter()
        .for_each(|sample| timer.record(*sample, 1.0, limit, &mut Vec::new()));
    timer
}

fn computed(options: &Options, mut timer: Timer) -> BTreeMap<String, f64> {
    let mut statistics = Statistics::new(options);
    let mut out = Vec::new();
    statistics.of("a.render.t", &mut timer, &mut out);
    let fields = statistics.fields();
    out.iter()
        .map(|s| (fields[s.field as usize].clone(), s.value))
        .collect()
}

fn exact(percent: f64, samples: &[f64]) -> BTreeMap<String, f64> {
    computed(&options(&[percent]), timer(samples, 1024))
}

fn one_to_ten() -> Vec<f64> {
    (1..=10).map(f64::from).collect()
}

fn assert_fields(found: &BTreeMap<String, f64>, expected: &[(&str, f64)]) {
    for (field, value) in expected {
        let found = found.get(*field).copied();
        assert!(
            found == Some(*value) || (value.is_nan() && found.is_some_and(f64::is_nan)),
            "{field}: found {found:?}, expected {value}"
        );
    }
}

#[test]
fn eight_values_as_the_reference_has_them() {
    let found = exact(90.0, &[450., 120., 553., 994., 334., 844., 675., 496.]);
    assert_fields(
        &found,
        &[
            ("count_90", 7.),
            ("mean_90", 496.),
            ("upper_90", 844.),
            ("sum_90", 3472.),
            ("sum_squares_90", 2048242.),
            ("std", 260.56033370411546),
            ("upper", 994.),
            ("lower", 120.),
            ("count", 8.),
            ("count_ps", 0.8),
            ("sum", 4466.),
            ("sum_squares", 3036278.),
            ("mean", 558.25),
            ("median", 524.5),
        ],
    );
    assert_eq!(found.len(), 14);
}

#[test]
fn minus_zero_alone_is_its_own_sum() {
    for samples in [&[-0.0][..], &[-0.0, -0.0]] {
        let found = exact(90.0, samples);
        for field in ["sum_90", "mean_90", "sum", "mean", "upper", "median"] {
            assert_eq!(found[field].to_bits(), (-0.0_f64).to_bits(), "{field}");
        }
        for field in ["sum_squares_90", "sum_squares", "std"] {
            assert_eq!(found[field].to_bits(), 0.0_f64.to_bits(), "{field}");
        }
    }
    assert_eq!(exact(90.0, &[-0.0, 0.0])["sum"].to_bits(), 0);
}

#[test]
fn thresholds_from_both_ends() {
    let x = one_to_ten();
    assert_fields(
        &exact(99.9, &x),
        &[("count_99_9", 10.), ("mean_99_9", 5.5), ("upper_99_9", 10.)],
    );
    assert_fields(
        &exact(-10., &x),
        &[
            ("count_top10", 1.),
            ("mean_top10", 10.),
            ("lower_top10", 10.),
            ("sum_top10", 10.),
            ("sum_squares_top10", 100.),
        ],
    );
    assert_fields(
        &exact(-90., &x),
        &[("mean_top90", 6.), ("lower_top90", 2.), ("sum_top90", 54.)],
    );
    let all = exact(-100., &x);
    assert_fields(
        &all,
        &[
            ("count_top100", 10.),
            ("lower_top100", 1.),
            ("mean_top100", f64::NAN),
            ("sum_top100", f64::NAN),
            ("sum_squares_top100", f64::NAN),
        ],
    );
    let thirds = exact(-50., &[0.1, 0.2, 0.3]);
    assert_fields(
        &thirds,
        &[
            ("sum_top50", 0.5000000000000001),
            ("sum", 0.6000000000000001),
        ],
    );
}

#[test]
fn a_threshold_that_takes_no_value_or_more_than_all() {
    assert!(!exact(20., &[1., 2.]).contains_key("count_20"));
    assert_fields(
        &exact(25., &[1., 2.]),
        &[("count_25", 1.), ("upper_25", 1.)],
    );
    let over = exact(150., &[1., 2.]);
    assert_fields(&over, &[("count_150", 3.), ("mean_150", f64::NAN)]);
    assert!(
        ["upper_150", "sum_150", "sum_squares_150"]
            .iter()
            .all(|field| !over.contains_key(*field))
    );
    assert_fields(
        &exact(0., &[7.]),
        &[("count_0", 1.), ("lower_0", 7.), ("sum_squares_0", 49.)],
    );
}

#[test]
fn ranks_round_as_doubles_do() {
    let fifty: Vec<f64> = (1..=50).map(f64::from).collect();
    assert_fields(&exact(29., &fifty), &[("count_29", 14.)]);
    assert_fields(&exact(57., &fifty), &[("count_57", 28.)]);
    for (percent, k) in [(90., 5.), (70., 4.), (50., 3.), (30., 2.), (10., 1.)] {
        let found = exact(percent, &[10., 20., 30., 40., 50.]);
        assert_eq!(found[&format!("count_{percent}")], k);
    }
}

#[test]
fn an_idle_timer_says_only_that_there_was_nothing() {
    let mut statistics = Statistics::new(&options(&[90.]));
    let mut out = Vec::new();
    statistics.of("t", &mut Timer::default(), &mut out);
    let fields = statistics.fields();
    let names: Vec<_> = out
        .iter()
        .map(|s| (&*fields[s.field as usize], s.value))
        .collect();
    assert_eq!(names, [("count_ps", 0.), ("count", 0.)]);
}

#[test]
fn bins_take_what_is_below_them_in_the_order_written() {
    let bin = |below: Option<f64>, label: &str| Bin {
        below,
        label: label.into(),
    };
    let rule = |metric: &str, bins| HistogramRule {
        metric: metric.into(),
        bins,
    };
    let mut options = options(&[90.]);
    options.histogram = vec![
        rule("nothing", vec![bin(None, "inf")]),
        rule(
            "render",
            vec![
                bin(Some(10.), "10"),
                bin(Some(5.), "5"),
                bin(None, "inf"),
                bin(Some(7.), "7"),
            ],
        ),
        rule("", vec![bin(None, "inf")]),
    ];
    for limit in [1024, 2] {
        let found = computed(&options, timer(&[1., 5., 10., 50.], limit));
        assert_fields(
            &found,
            &[
                ("histogram.bin_10", 2.),
                ("histogram.bin_5", 0.),
                ("histogram.bin_inf", 2.),
                ("histogram.bin_7", 0.),
            ],
        );
    }
}

#[test]
fn a_bin_written_twice_is_one_field_with_the_later_count() {
    let bin = |below: f64| Bin {
        below: Some(below),
        label: below.to_string(),
    };
    let mut options = options(&[]);
    options.histogram = vec![HistogramRule {
        metric: String::new(),
        bins: vec![bin(5.), bin(5.), bin(1.)],
    }];
    let found = computed(&options, timer(&[3.0], 1024));
    assert_fields(&found, &[("histogram.bin_5", 0.), ("histogram.bin_1", 0.)]);
    assert_eq!(found.len(), 9 + 2);
}

#[test]
fn a_list_of_fields_keeps_only_those() {
    let mut options = options(&[90., 99.9, -10.]);
    options.timer_fields = Some(vec![
        "count".into(),
        "upper_percent".into(),
        "lower_percent".into(),
        "count_percent".into(),
    ]);
    let found = computed(&options, timer(&one_to_ten(), 1024));
    // `count_99_9` reads as `count_99_percent` to the reference, so it is not kept.
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "count",
            "count_90",
            "count_top10",
            "lower_top10",
            "upper_90"
        ]
    );
}

#[test]
fn infinity_and_what_lies_outside_the_grid() {
    let found = exact(90., &[1., f64::INFINITY]);
    assert_fields(
        &found,
        &[
            ("mean_90", f64::INFINITY),
            ("std", f64::NAN),
            ("median", f64::INFINITY),
        ],
    );
    let mut samples = vec![0.0; 10];
    samples.extend([1e-9, -5.0, 1e30, 3.0]);
    let found = computed(&options(&[90., 50.]), timer(&samples, 4));
    assert_fields(
        &found,
        &[
            ("upper", 1e30),
            ("lower", -5.),
            ("median", 0.),
            ("count", 14.),
        ],
    );
    assert!(
        (found["upper_90"] / 3.0 - 1.0).abs() < 1e-3,
        "{}",
        found["upper_90"]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Past the limit: percentiles and their sums within 0.1 % (squares 0.2 %), the rest exact to
    /// 1e-9, however the samples were split over workers.
    #[test]
    fn past_the_limit_the_bounds_hold(
        exponents in proptest::collection::vec((-9.0..23.0f64, 0..4usize), 60..400),
        percent in prop_oneof![Just(90.0), Just(50.0), Just(99.9), Just(-10.0), 1.0..99.0f64, -99.0..-1.0f64],
    ) {
        let samples: Vec<f64> = exponents.iter().map(|(e, _)| e.exp()).collect();
        let options = options(&[percent]);
        let truth = computed(&options, timer(&samples, usize::MAX));
        let mut merged = Timer::default();
        for worker in 0..4 {
            let mine = exponents.iter().filter(|(_, w)| *w == worker);
            let mine: Vec<f64> = mine.map(|(e, _)| e.exp()).collect();
            let part = timer(&mine, 32);
            merged.merge(&part.samples, &part.weights, part.weight, part.histogram, 32, &mut Vec::new());
        }
        let found = computed(&options, merged);
        prop_assert_eq!(found.keys().collect::<Vec<_>>(), truth.keys().collect::<Vec<_>>());
        let label = &options.thresholds[0].label;
        for (field, truth) in &truth {
            let found = found[field];
            let bound = match field.strip_suffix(&format!("_{label}")) {
                Some("count") => 0.0,
                Some("sum_squares") => 2e-3,
                Some(_) => 1e-3,
                None if field == "median" => 1e-3,
                None if matches!(field.as_str(), "count" | "upper" | "lower") => 0.0,
                None => 1e-9,
            };
            prop_assert!((found - truth).abs() <= bound * truth.abs(), "{field}: {found} for {truth}");
        }
    }

    #[test]
    fn any_samples_are_answered(
        samples in proptest::collection::vec(any::<f64>().prop_filter("a number", |v| !v.is_nan()), 0..40),
        limit in 1..40usize,
        percent in -200.0..200.0f64,
    ) {
        computed(&options(&[percent]), timer(&samples, limit));
    }
}

/// A timer of values with their weights.
fn weighted(samples: &[(f64, f64)], limit: usize) -> Timer {
    let mut timer = Timer::default();
    for (sample, weight) in samples {
        timer.record(*sample, *weight, limit, &mut Vec::new());
        if *weight != 1.0 {
            timer.weigh(*weight);
        }
    }
    timer
}

#[test]
fn weights_that_are_no_whole_numbers_are_exact() {
    // Weights 3.75 together: ranks are 3.375 rounded, 1.875 and 0.375.
    let samples = [(4.0, 2.5), (1.0, 1.0), (8.0, 0.25)];
    let found = computed(
        &options(&[90.0, 50.0, 10.0, 100.0, -50.0]),
        weighted(&samples, 10),
    );
    assert_fields(
        &found,
        &[
            ("count", 3.75),
            ("count_ps", 0.375),
            ("sum", 13.0),
            ("sum_squares", 57.0),
            ("mean", 13.0 / 3.75),
            ("median", 4.0),
            ("lower", 1.0),
            ("upper", 8.0),
            ("count_90", 3.0),
            ("upper_90", 4.0),
            ("sum_90", 9.0),
            ("mean_90", 3.0),
            ("sum_squares_90", 33.0),
            ("count_50", 2.0),
            ("upper_50", 4.0),
            ("sum_50", 5.0),
            ("count_100", 3.75),
            ("upper_100", 8.0),
            ("sum_100", 13.0),
            ("count_top50", 2.0),
            ("lower_top50", 4.0),
            ("sum_top50", 9.0),
        ],
    );
    assert!(!found.contains_key("upper_10"));
}

#[test]
fn less_than_one_event_is_all_there_is() {
    let found = computed(
        &options(&[90.0, -10.0]),
        weighted(&[(3.0, 0.5), (5.0, 0.25)], 10),
    );
    assert_fields(
        &found,
        &[
            ("count_90", 0.75),
            ("upper_90", 5.0),
            ("sum_90", 2.75),
            ("lower_top10", 3.0),
            ("mean_top10", 2.75 / 0.75),
        ],
    );
}

proptest! {
    /// A value that weighs three is as good as three values, in a histogram too.
    #[test]
    fn a_weight_is_so_many_values(
        samples in proptest::collection::vec((1..500u32, 1..5u32), 2..60),
        percents in proptest::collection::vec(-120..=120i32, 1..4),
        limit in prop_oneof![Just(1000usize), Just(3usize)],
    ) {
        // Either both are exact or both are not.
        prop_assume!(limit > 100 || samples.len() > limit);
        let mut options = options(&percents.iter().map(|p| f64::from(*p)).collect::<Vec<_>>());
        let bin = |below: Option<f64>, label: &str| Bin { below, label: label.into() };
        options.histogram = vec![crate::flush::HistogramRule {
            metric: String::new(),
            bins: vec![bin(Some(100.5), "a"), bin(Some(300.5), "b"), bin(None, "c")],
        }];
        let pairs: Vec<_> = samples.iter().map(|(x, w)| (f64::from(*x), f64::from(*w))).collect();
        let repeated = samples.iter().flat_map(|(x, w)| vec![f64::from(*x); *w as usize]);
        let repeated: Vec<_> = repeated.collect();
        let expected = computed(&options, timer(&repeated, limit));
        let found = computed(&options, weighted(&pairs, limit));
        prop_assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (field, value) in &expected {
            let close = (found[field] - value).abs() <= 1e-9 * value.abs().max(1.0);
            let same = close || (value.is_nan() && found[field].is_nan());
            prop_assert!(same, "{}: {} and not {}", field, found[field], value);
        }
    }
}
