//! Typed values -> the options of the Librato backend.

use super::super::Place;
use super::super::check::{Checker, Typed, Values};
use super::super::environment::Environment;
use super::{flag, number, text};
use crate::deliver::librato::pattern::Pattern;
use crate::deliver::librato::{self, Threshold, post};
use crate::flush;
use std::time::Duration;

/// Adds addresses that are none to the problems.
pub(super) fn addresses(values: &Values, checker: &mut Checker<'_>) {
    let mut check = |key: &str, checked: fn(&str) -> Result<(), String>| {
        let Some((Typed::Text(address), place)) = values.get(key) else {
            return;
        };
        if let Err(error) = checked(address) {
            let message = error.strip_prefix(&format!("`{key}`: ")).unwrap_or(&error);
            let hint = "write e.g. \"https://metrics-api.librato.com\", for a proxy \
                        \"http://proxy.example.org:3128\"";
            checker.problem(*place, key, message, hint);
        }
    };
    check("librato.api", |address| post::check(address, None));
    check("librato.proxy.uri", |address| {
        post::check(librato::API, Some(address))
    });
}

/// Warns when somebody would sign in, but no backend does; the other keys may stand there as an example.
pub(super) fn unused(values: &Values, checker: &mut Checker<'_>) {
    let keys = ["librato.email", "librato.token"];
    let written = keys.iter().filter_map(|key| values.get(key));
    if let Some(first) = written.map(|(_, place)| *place).min() {
        let hint = "add \"librato\" to backends";
        checker.warn(first, "librato", "is not used: no backend is librato", hint);
    }
}

/// Adds what is missing to sign in to the problems.
pub(super) fn credentials(values: &Values, place: Option<Place>, checker: &mut Checker<'_>) {
    for key in ["librato.email", "librato.token"] {
        // One that is wrong is a problem already.
        let is_wrong = checker.problems.iter().any(|it| it.key == key);
        if !values.contains_key(key) && !is_wrong {
            checker.problem(
                place,
                key,
                "is missing: the Librato backend signs in with it",
                "write librato: { email: \"...\", token: \"...\" }, or take the backend out",
            );
        }
    }
}

pub(super) fn options(
    values: &Values,
    flush: &flush::Options,
    environment: &Environment,
) -> librato::Options {
    let default = librato::Options::default();
    let seconds = |name, default| number(values, name).map_or(default, Duration::from_millis);
    let tags = match values.get("librato.tags") {
        Some((Typed::Tags(tags), _)) => tags.clone(),
        _ => Vec::new(),
    };
    let host = match text(values, "librato.host") {
        Some(none) if none.is_empty() => None,
        Some(host) => Some(host),
        // What was written of it wins over what was not.
        None if tags.iter().any(|(key, _)| key == "host") => None,
        None => environment.host_name.clone(),
    };
    librato::Options {
        email: text(values, "librato.email").unwrap_or_default(),
        token: text(values, "librato.token").unwrap_or_default(),
        api: text(values, "librato.api").unwrap_or(default.api),
        proxy: text(values, "librato.proxy.uri"),
        post_timeout: seconds("librato.postTimeoutSecs", default.post_timeout),
        retry_delay: seconds("librato.retryDelaySecs", default.retry_delay),
        source: text(values, "librato.source"),
        host,
        tags,
        folded_tags: text(values, "dialect").is_none_or(|dialect| dialect == "auto"),
        source_regex: match values.get("librato.sourceRegex") {
            Some((Typed::Pattern(pattern), _)) => Some(pattern.clone()),
            _ => None,
        },
        include: patterns(values, "librato.includeMetrics"),
        exclude: patterns(values, "librato.excludeMetrics"),
        // Below a second there is nothing to snap to.
        snap: number(values, "librato.snapTime")
            .unwrap_or(flush.interval.as_secs())
            .cast_signed(),
        counters_as_gauges: flag(values, "librato.countersAsGauges")
            .unwrap_or(default.counters_as_gauges),
        skip_internal: flag(values, "librato.skipInternalMetrics").unwrap_or(default.skip_internal),
        batch_size: number(values, "librato.batchSize")
            .map_or(default.batch_size, |size| size as usize),
        always_suffix: flag(values, "librato.alwaysSuffixPercentile")
            .unwrap_or(default.always_suffix),
        global_prefix: text(values, "librato.globalPrefix").unwrap_or_default(),
        write_to_legacy: flag(values, "librato.writeToLegacy").unwrap_or(default.write_to_legacy),
        thresholds: flush.thresholds.iter().filter_map(threshold).collect(),
    }
}

/// A percentile as Librato's names have it: with the dot that Graphite's cannot have.
fn threshold(threshold: &flush::Threshold) -> Option<Threshold> {
    (threshold.percent > 0.0).then(|| Threshold {
        percent: threshold.percent,
        label: threshold.label.replacen('_', ".", 1),
    })
}

fn patterns(values: &Values, name: &str) -> Vec<Pattern> {
    match values.get(name) {
        Some((Typed::Patterns(patterns), _)) => patterns.clone(),
        _ => Vec::new(),
    }
}
