//! What a flush says about one timer.

use super::config::{Bin, Options};
use super::number::print;

/// Field name (histogram bins as `histogram.bin_N`) -> value, for the fields that are emitted.
pub(crate) fn timer(
    key: &str,
    values: &[f64],
    counter: f64,
    seconds: f64,
    options: &Options,
) -> Vec<(String, f64)> {
    let mut fields = Vec::new();
    if values.is_empty() {
        set(&mut fields, "count_ps".into(), 0.0);
        set(&mut fields, "count".into(), 0.0);
    } else {
        let mut x = values.to_vec();
        x.sort_by(|a, b| a.partial_cmp(b).expect("a timer never holds NaN"));
        for &percent in &options.thresholds {
            percentile(&x, percent, &mut fields);
        }
        whole(&x, counter, seconds, &mut fields);
        let rule = options
            .histogram
            .iter()
            .find(|rule| key.contains(&rule.metric));
        if let Some(rule) = rule {
            histogram(&x, &rule.bins, &mut fields);
        }
    }
    if let Some(wanted) = &options.timer_fields {
        fields.retain(|(name, _)| wanted.contains(&filter_name(name)));
    }
    fields
}

/// The same in dialect auto for values that were sampled. Their weights are halves or wholes: each value is laid
/// out as often as it weighs halves, so that event `k` is the place `2 * k`.
pub(crate) fn weighted_timer(
    key: &str,
    values: &[f64],
    weights: &[f64],
    seconds: f64,
    options: &Options,
) -> Vec<(String, f64)> {
    let mut halves = Vec::new();
    for (value, weight) in values.iter().zip(weights) {
        assert_eq!((weight * 2.0).fract(), 0.0, "a weight of {weight}");
        halves.extend(vec![*value; (weight * 2.0) as usize]);
    }
    halves.sort_by(|a, b| a.partial_cmp(b).expect("a timer never holds NaN"));
    let n = halves.len() as f64 / 2.0;
    let sums = |part: &[f64]| {
        let squares: f64 = part.iter().map(|x| x * x / 2.0).sum();
        (part.iter().map(|x| x / 2.0).sum::<f64>(), squares)
    };
    let mut fields = Vec::new();
    for &percent in &options.thresholds {
        let k = round(percent.abs() / 100.0 * n).min(n);
        let k = if n <= 1.0 { n } else { k };
        if k == 0.0 {
            continue;
        }
        let taken = (k * 2.0) as usize;
        let (part, boundary, side) = if percent > 0.0 {
            (&halves[..taken], halves[taken - 1], "upper")
        } else {
            let from = halves.len() - taken;
            (&halves[from..], halves[from], "lower")
        };
        let whole_from_above = percent <= 0.0 && n > 1.0 && k == n;
        let (sum, squares) = if whole_from_above {
            (f64::NAN, f64::NAN)
        } else {
            sums(part)
        };
        let suffix = print(percent).replacen('.', "_", 1).replacen('-', "top", 1);
        let mut add = |name: &str, value| set(&mut fields, format!("{name}_{suffix}"), value);
        add("count", k);
        add("mean", sum / k);
        add(side, boundary);
        add("sum", sum);
        add("sum_squares", squares);
    }
    let (sum, squares) = sums(&halves);
    let mean = sum / n;
    let apart: f64 = halves.iter().map(|x| (x - mean) * (x - mean) / 2.0).sum();
    let middle = halves.len() / 2;
    let median = if halves.len() % 2 == 1 {
        halves[middle]
    } else {
        (halves[middle - 1] + halves[middle]) / 2.0
    };
    let mut add = |name: &str, value| set(&mut fields, name.into(), value);
    add("std", (apart / n).sqrt());
    add("upper", halves[halves.len() - 1]);
    add("lower", halves[0]);
    add("count", n);
    add("count_ps", n / seconds);
    add("sum", sum);
    add("sum_squares", squares);
    add("mean", mean);
    add("median", median);
    let rule = (options.histogram.iter()).find(|rule| key.contains(&rule.metric));
    if let Some(rule) = rule {
        let first = fields.len();
        histogram(&halves, &rule.bins, &mut fields);
        fields[first..]
            .iter_mut()
            .for_each(|(_, count)| *count /= 2.0);
    }
    if let Some(wanted) = &options.timer_fields {
        fields.retain(|(name, _)| wanted.contains(&filter_name(name)));
    }
    fields
}

/// Fields are an object: a name that comes twice has the later value.
fn set(fields: &mut Vec<(String, f64)>, name: String, value: f64) {
    match fields.iter_mut().find(|(known, _)| *known == name) {
        Some(field) => field.1 = value,
        None => fields.push((name, value)),
    }
}

fn running_sums(x: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let mut sums = vec![x[0]];
    let mut squares = vec![x[0] * x[0]];
    for i in 1..x.len() {
        sums.push(x[i] + sums[i - 1]);
        squares.push(x[i] * x[i] + squares[i - 1]);
    }
    (sums, squares)
}

/// `None` stands for JavaScript's undefined: an index outside of the array. It is not emitted, and NaN in arithmetic.
fn at(array: &[f64], index: i64) -> Option<f64> {
    usize::try_from(index)
        .ok()
        .and_then(|index| array.get(index).copied())
}

fn percentile(x: &[f64], percent: f64, fields: &mut Vec<(String, f64)>) {
    let n = x.len() as i64;
    let (sums, squares) = running_sums(x);
    let mut count = 1;
    let mut mean = x[0];
    let mut boundary = Some(x[0]);
    let mut sum = Some(x[0]);
    let mut sum_squares = Some(x[0] * x[0]);
    if n > 1 {
        let k = round(percent.abs() / 100.0 * n as f64) as i64;
        if k == 0 {
            return;
        }
        count = k;
        if percent > 0.0 {
            boundary = at(x, k - 1);
            sum = at(&sums, k - 1);
            sum_squares = at(&squares, k - 1);
        } else {
            boundary = at(x, n - k);
            let below = at(&sums, n - k - 1).unwrap_or(f64::NAN);
            sum = Some(sums[x.len() - 1] - below);
            let below = at(&squares, n - k - 1).unwrap_or(f64::NAN);
            sum_squares = Some(squares[x.len() - 1] - below);
        }
        mean = sum.unwrap_or(f64::NAN) / k as f64;
    }

    let suffix = print(percent).replacen('.', "_", 1).replacen('-', "top", 1);
    let boundary_name = if percent > 0.0 { "upper" } else { "lower" };
    let mut add = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            set(fields, format!("{name}_{suffix}"), value);
        }
    };
    add("count", Some(count as f64));
    add("mean", Some(mean));
    add(boundary_name, boundary);
    add("sum", sum);
    add("sum_squares", sum_squares);
}

/// `Math.round`: half goes up.
fn round(value: f64) -> f64 {
    let floor = value.floor();
    if value - floor >= 0.5 {
        floor + 1.0
    } else {
        floor
    }
}

fn whole(x: &[f64], counter: f64, seconds: f64, fields: &mut Vec<(String, f64)>) {
    let n = x.len();
    let (sums, squares) = running_sums(x);
    let mean = sums[n - 1] / n as f64;
    let median = if n % 2 == 1 {
        x[n / 2]
    } else {
        (x[n / 2 - 1] + x[n / 2]) / 2.0
    };
    let mut deviations = 0.0;
    for value in x {
        deviations += (value - mean) * (value - mean);
    }
    let mut add = |name: &str, value: f64| set(fields, name.into(), value);
    add("std", (deviations / n as f64).sqrt());
    add("upper", x[n - 1]);
    add("lower", x[0]);
    add("count", counter);
    add("count_ps", counter / seconds);
    add("sum", sums[n - 1]);
    add("sum_squares", squares[n - 1]);
    add("mean", mean);
    add("median", median);
}

fn histogram(x: &[f64], bins: &[Bin], fields: &mut Vec<(String, f64)>) {
    let mut next = 0;
    for bin in bins {
        let before = next;
        match *bin {
            Bin::Below(bound) => {
                while next < x.len() && x[next] < bound {
                    next += 1;
                }
            }
            Bin::Rest => next = x.len(),
        }
        let label = match *bin {
            Bin::Below(bound) => print(bound).replacen('.', "_", 1),
            Bin::Rest => "inf".into(),
        };
        set(
            fields,
            format!("histogram.bin_{label}"),
            (next - before) as f64,
        );
    }
}

/// `upper_90` and `lower_top10` are listed as `upper_percent` and `lower_percent`, all bins as `histogram`.
fn filter_name(field: &str) -> String {
    if field.starts_with("histogram.") {
        return "histogram".into();
    }
    if let Some((name, last)) = field.rsplit_once('_') {
        let digits = last.strip_prefix("top").unwrap_or(last);
        if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) {
            return format!("{name}_percent");
        }
    }
    field.into()
}
