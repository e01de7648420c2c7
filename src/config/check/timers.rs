//! The settings of timers: percentiles, histograms and the fields to keep.

use super::super::coerce::{self, bin_label, number_text, percentile_label, shown, text_number};
use super::super::settings::Setting;
use super::super::value::{Node, Value, truthy};
use super::Checker;
use crate::flush::{Bin, HistogramRule, Threshold};

/// Timer fields, and those of them that come once more for each percentile.
const TIMER_FIELDS: [&str; 10] = [
    "count",
    "count_ps",
    "histogram",
    "lower",
    "mean",
    "median",
    "std",
    "sum",
    "sum_squares",
    "upper",
];
const PERCENTILE_FIELDS: [&str; 6] = ["count", "lower", "mean", "sum", "sum_squares", "upper"];

impl Checker<'_> {
    pub(super) fn thresholds(&mut self, path: &str, node: &Node) -> Option<Vec<Threshold>> {
        let (nodes, listed) = match &node.value {
            Value::List(nodes) => (nodes.as_slice(), true),
            value if truthy(value) => (std::slice::from_ref(node), false),
            _ => return None,
        };
        let mut thresholds = Vec::with_capacity(nodes.len());
        for (at, node) in nodes.iter().enumerate() {
            let path = if listed {
                format!("{path}[{at}]")
            } else {
                path.to_owned()
            };
            let read = match &node.value {
                Value::Number(number) => Some((*number, number_text(*number))),
                Value::String(text) if is_bare(text) => Some((text_number(text), text.clone())),
                _ => None,
            };
            let Some((percent, text)) = read.filter(|(percent, _)| percent.is_finite()) else {
                let message = format!(
                    "expected a percentile from -100 to 100, found {}",
                    shown(&node.value)
                );
                self.problem(
                    node.place,
                    &path,
                    message,
                    "write e.g. percentThreshold: [50, 99.9, -10]",
                );
                continue;
            };
            if percent.abs() > 100.0 {
                let message =
                    format!("{text} is beyond 100 percent: most of its values are no numbers");
                self.warn(
                    node.place,
                    &path,
                    message,
                    "write a percentile from -100 to 100",
                );
            }
            thresholds.push(Threshold {
                percent,
                label: percentile_label(&text),
            });
        }
        Some(thresholds)
    }

    pub(super) fn histogram(
        &mut self,
        path: &str,
        setting: &Setting,
        node: &Node,
    ) -> Option<Vec<HistogramRule>> {
        let rules = match &node.value {
            Value::List(rules) => rules,
            value if truthy(value) => {
                return self.unexpected(path, setting, "a list of rules", node);
            }
            _ => return None,
        };
        Some(
            rules
                .iter()
                .enumerate()
                .filter_map(|(at, rule)| self.rule(&format!("{path}[{at}]"), rule))
                .collect(),
        )
    }

    fn rule(&mut self, path: &str, node: &Node) -> Option<HistogramRule> {
        const HINT: &str = "write { metric: \"part of a name\", bins: [10, 100, \"inf\"] }; \
                            metric: \"\" is every name";
        let Value::Map(entries) = &node.value else {
            self.problem(
                node.place,
                path,
                format!("expected a rule, found {}", shown(&node.value)),
                HINT,
            );
            return None;
        };
        self.unknown_but(path, entries, &["metric", "bins"]);
        let part = |key| {
            entries
                .iter()
                .find(|entry| entry.key == key)
                .map(|entry| &entry.node)
        };
        let metric = match part("metric").map(|node| &node.value) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(value @ Value::Number(_)) => Some(coerce::string(value)),
            other => {
                let found = other.map_or_else(|| "none".into(), shown);
                let place = part("metric").map_or(node.place, |node| node.place);
                self.problem(
                    place,
                    &format!("{path}.metric"),
                    format!("expected a text, found {found}"),
                    HINT,
                );
                None
            }
        };
        let bins = match part("bins").map(|node| &node.value) {
            Some(Value::List(bins)) => self.bins(&format!("{path}.bins"), bins),
            other => {
                let found = other.map_or_else(|| "none".into(), shown);
                let place = part("bins").map_or(node.place, |node| node.place);
                self.problem(
                    place,
                    &format!("{path}.bins"),
                    format!("expected a list, found {found}"),
                    HINT,
                );
                return None;
            }
        };
        Some(HistogramRule {
            metric: metric?,
            bins,
        })
    }

    fn bins(&mut self, path: &str, nodes: &[Node]) -> Vec<Bin> {
        let mut bins: Vec<Bin> = Vec::with_capacity(nodes.len());
        for (at, node) in nodes.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let read = match &node.value {
                Value::Number(number) => Some((Some(*number), number_text(*number))),
                Value::String(text) if text == "inf" => Some((None, text.clone())),
                Value::String(text) if is_bare(text) => {
                    Some((Some(text_number(text)), text.clone()))
                }
                _ => None,
            };
            let Some((below, text)) =
                read.filter(|(below, _)| below.is_none_or(|bound| !bound.is_nan()))
            else {
                let message = format!("expected a number or \"inf\", found {}", shown(&node.value));
                self.problem(
                    node.place,
                    &path,
                    message,
                    "write the upper bound of the bin; \"inf\" takes all the rest",
                );
                continue;
            };
            let order = |bin: Option<f64>| bin.unwrap_or(f64::INFINITY);
            if bins.last().is_some_and(|previous| {
                order(below) < order(previous.below) || previous.below.is_none()
            }) {
                self.warn(
                    node.place,
                    &path,
                    format!("{text} after a greater bin always counts 0"),
                    "sort the bins",
                );
            }
            bins.push(Bin {
                below,
                label: bin_label(&text),
            });
        }
        bins
    }

    pub(super) fn timer_fields(&mut self, path: &str, node: &Node) -> Option<Vec<String>> {
        let Value::List(nodes) = &node.value else {
            if truthy(&node.value) {
                let message = format!("{} is no list, all fields are kept", shown(&node.value));
                self.warn(
                    node.place,
                    path,
                    message,
                    "write e.g. [\"count\", \"upper_percent\"]",
                );
            }
            return None;
        };
        for (at, node) in nodes.iter().enumerate() {
            if !matches!(&node.value, Value::String(name) if is_timer_field(name)) {
                let message = format!("{} is the name of no field", shown(&node.value));
                let hint = format!(
                    "the names are {}, and {}",
                    TIMER_FIELDS.join(", "),
                    "e.g. upper_percent for upper_90"
                );
                self.warn(node.place, &format!("{path}[{at}]"), message, hint);
            }
        }
        (!nodes.is_empty()).then(|| {
            nodes
                .iter()
                .map(|node| coerce::string(&node.value))
                .collect()
        })
    }
}

/// Text whose spelling goes into a metric name.
fn is_bare(text: &str) -> bool {
    !text.is_empty() && !text.contains(coerce::is_blank)
}

/// Whether a field of that name can exist; `count_99_percent` is what `count_99_9` is looked up by.
fn is_timer_field(name: &str) -> bool {
    let stem = name.strip_suffix("_percent").map(|stem| {
        let digits = stem.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = digits.strip_suffix("top").unwrap_or(digits);
        if digits.len() < stem.len() {
            digits.strip_suffix('_').unwrap_or(stem)
        } else {
            stem
        }
    });
    TIMER_FIELDS.contains(&name) || stem.is_some_and(|stem| PERCENTILE_FIELDS.contains(&stem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timer_fields_are_known() {
        for name in TIMER_FIELDS {
            assert!(is_timer_field(name), "{name}");
        }
        for name in [
            "upper_percent",
            "sum_squares_percent",
            "count_99_percent",
            "count_top99_percent",
        ] {
            assert!(is_timer_field(name), "{name}");
        }
        for name in [
            "",
            "upper_90",
            "p95",
            "std_percent",
            "_percent",
            "counts",
            "count99_percent",
        ] {
            assert!(!is_timer_field(name), "{name}");
        }
    }
}
