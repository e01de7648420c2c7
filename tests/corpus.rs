//! `tests/corpus/*.txt`: every case against the naive reference, the server's own parser, and the server.

#[path = "corpus/cases.rs"]
mod cases;
#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;
mod parsed;
mod reference;

use cases::{Case, DOGSTATSD, LINES, cases};
use daemon::{Daemon, config};
use reference::{auto_effects, effects};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Joins effects as the corpus writes them.
fn notation(effects: &[String]) -> String {
    if effects.is_empty() {
        "none".into()
    } else {
        effects.join(" ; ")
    }
}

#[test]
fn corpus_is_well_formed() {
    for (file, at_least) in [(LINES, 400), (DOGSTATSD, 150)] {
        let cases = cases(file);
        assert!(
            cases.len() >= at_least,
            "{file:?}: only {} cases",
            cases.len()
        );
        let mut inputs: Vec<&[u8]> = cases.iter().map(|case| &case.datagram[..]).collect();
        inputs.sort();
        if let Some(twice) = inputs.windows(2).find(|pair| pair[0] == pair[1]) {
            panic!(
                "case {:?} is there twice",
                String::from_utf8_lossy(twice[0])
            );
        }
    }
    let all: Vec<_> = [LINES, DOGSTATSD].into_iter().flat_map(cases).collect();
    for reason in [
        "no-type",
        "bad-rate",
        "empty-value",
        "not-a-number",
        "negative-timer",
        "bad-timestamp",
        "bad-event",
        "bad-check",
    ] {
        let reject = format!("reject {reason}");
        assert!(
            all.iter().any(|case| case.expected == reject),
            "no case for {reason}"
        );
    }
}

/// Holds every case against `reader`: datagram -> effects.
fn assert_corpus(cases: Vec<Case>, reader: impl Fn(&[u8]) -> Vec<String>) {
    let mut failures = Vec::new();
    for Case {
        file,
        number,
        datagram,
        expected,
    } in cases
    {
        let found = notation(&reader(&datagram));
        if found != expected {
            failures.push(format!(
                "{file}:{number}: expected {expected}, found {found}"
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn lines(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = datagram.split(|&byte| byte == b'\n');
    lines.filter(|line| !line.is_empty())
}

/// The cases of dialect auto: its own, and those of the original that are no exceptions.
fn auto_cases() -> Vec<Case> {
    let mut all = cases(DOGSTATSD);
    let exceptions: BTreeSet<Vec<u8>> = all.iter().map(|case| case.datagram.clone()).collect();
    let others = cases(LINES).into_iter();
    all.extend(others.filter(|case| !exceptions.contains(&case.datagram)));
    all
}

#[test]
fn reference_agrees_with_the_corpus() {
    assert_corpus(cases(LINES), |datagram| {
        lines(datagram)
            .flat_map(|line| effects(line, true))
            .map(|effect| effect.to_string())
            .collect()
    });
    assert_corpus(auto_cases(), |datagram| {
        lines(datagram)
            .flat_map(|line| auto_effects(line, true))
            .map(|effect| effect.to_string())
            .collect()
    });
}

#[test]
fn parser_agrees_with_the_corpus() {
    assert_corpus(cases(LINES), parsed::packet);
    assert_corpus(auto_cases(), parsed::auto);
}

#[test]
fn slow_path_of_the_parser_agrees_with_the_corpus() {
    assert_corpus(cases(LINES), parsed::line_by_line);
    assert_corpus(auto_cases(), parsed::auto_line_by_line);
}

/// What effects add up to, as far as a flush tells it.
#[derive(Debug, Default)]
struct State {
    /// Two orders of tags are one name.
    auto: bool,
    counters: BTreeMap<String, f64>,
    /// Smallest, largest, weight.
    timers: BTreeMap<String, [f64; 3]>,
    gauges: BTreeMap<String, f64>,
    sets: BTreeMap<String, BTreeSet<String>>,
    /// Kind, name and time.
    stamped: BTreeMap<(&'static str, String, i64), f64>,
    rejected: BTreeMap<String, f64>,
    events: f64,
    service_checks: f64,
}

/// A name or member as it was before it was written down.
fn unquoted(text: &str) -> String {
    let Some(inside) = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
    else {
        return text.to_owned();
    };
    let bytes = cases::unescape(inside).unwrap_or_else(|| panic!("a bad escape in {text}"));
    String::from_utf8(bytes).expect("UTF-8")
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("no number: {text}"))
}

/// A name with its tags in the order of the alphabet.
fn sorted(name: &str) -> String {
    let mut pieces = name.split(';');
    let path = pieces.next().unwrap_or_default();
    let mut tags: Vec<_> = pieces.collect();
    tags.sort_unstable();
    [&[path], &tags[..]].concat().join(";")
}

impl State {
    fn apply(&mut self, effect: &str) {
        let (effect, at) = match effect.rsplit_once(" at ") {
            Some((effect, at)) => (effect, Some(at.parse().expect("a time"))),
            None => (effect, None),
        };
        let (what, rest) = effect.split_once(' ').unwrap_or((effect, ""));
        // Neither names nor quoted texts of the corpus have a blank before a quote within them.
        let (name, value) = match rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
            Some((name, value)) => (unquoted(&format!("\"{name}\"")), value.trim_start()),
            None => {
                let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
                (name.to_owned(), value)
            }
        };
        let name = if self.auto { sorted(&name) } else { name };
        match (what, at) {
            ("none", _) => {}
            ("event", _) => self.events += 1.0,
            ("service-check", _) => self.service_checks += 1.0,
            ("reject", _) => {
                let meter = format!("rejected.{}", name.replace('-', "_"));
                *self.rejected.entry(meter).or_default() += 1.0;
            }
            ("count", Some(at)) => {
                *self.stamped.entry(("counter", name, at)).or_default() += number(value);
            }
            ("gauge-set", Some(at)) => {
                self.stamped.insert(("gauge", name, at), number(value));
            }
            ("count", None) => {
                let sum = self.counters.entry(name).or_default();
                *sum = if sum.is_nan() { 0.0 } else { *sum } + number(value);
            }
            ("time", _) => {
                let (value, weight) = value.split_once(" weight ").expect("a weight");
                let (value, weight) = (number(value), number(weight));
                let timer = self.timers.entry(name).or_insert([value, value, 0.0]);
                *timer = [timer[0].min(value), timer[1].max(value), timer[2] + weight];
            }
            ("gauge-set", None) => drop(self.gauges.insert(name, number(value))),
            ("gauge-add", None) => {
                let gauge = self.gauges.entry(name).or_default();
                let is_new = *gauge == 0.0 || gauge.is_nan();
                *gauge = if is_new { 0.0 } else { *gauge } + number(value);
            }
            ("member", _) => {
                self.sets.entry(name).or_default().insert(unquoted(value));
            }
            _ => panic!("no effect: {effect}"),
        }
    }
}

/// A number as the console has it in JSON: nothing when it is not finite.
fn assert_number(found: &Value, expected: f64, what: &str) {
    if !expected.is_finite() {
        assert_eq!(*found, Value::Null, "{what}");
        return;
    }
    let found = found
        .as_f64()
        .unwrap_or_else(|| panic!("{what} is missing"));
    // Spellings of one name add up on their own.
    let close = (found - expected).abs() <= 1e-9 * expected.abs().max(1.0);
    assert!(close, "{what}: found {found}, expected {expected}");
}

/// Sends every case to the server itself, and compares what it shows.
fn play_to_the_server(dialect: &str, cases: Vec<Case>) {
    let mut config = config(0);
    for (key, value) in [
        ("dialect", json!(dialect)),
        ("flushInterval", json!(600_000)),
        ("backends", json!(["console"])),
        ("console", json!({ "format": "json" })),
        // Their timestamps are of 2022.
        ("timestampMaxAge", json!(3_000_000_000u32)),
        ("exactSamples", json!(1_000_000)),
    ] {
        config[key] = value;
    }
    config
        .as_object_mut()
        .expect("an object")
        .remove("graphitePort");
    let mut daemon = Daemon::start(&config, &["--threads", "1"]);
    let client = daemon.client();
    let mut state = State {
        auto: dialect == "auto",
        ..State::default()
    };
    let (mut datagram, mut sent) = (Vec::new(), 0.0);
    let mut lines_sent = 0.0;
    for case in &cases {
        lines_sent += lines(&case.datagram).count() as f64;
        datagram.extend_from_slice(&case.datagram);
        datagram.push(b'\n');
        if datagram.len() > 4000 {
            client.send(&datagram).expect("loopback takes it");
            (datagram, sent) = (Vec::new(), sent + 1.0);
        }
        case.expected
            .split(" ; ")
            .for_each(|effect| state.apply(effect));
    }
    client.send(&datagram).expect("loopback takes it");
    sent += 1.0;
    assert_eq!(daemon.terminate().code(), Some(0));
    let flushes = daemon
        .lines()
        .into_iter()
        .filter(|line| line.starts_with('{'));
    let flushes: Vec<Value> = flushes
        .map(|line| serde_json::from_str(&line).expect("JSON"))
        .collect();
    let [flush] = &flushes[..] else {
        panic!("{} flushes: {flushes:?}", flushes.len())
    };
    let own = &flush["statsd_fast"];
    assert_number(&own["packets"], sent, "datagrams");
    assert_number(&own["lines"], lines_sent, "lines");
    assert_number(&own["events"], state.events, "events");
    assert_number(
        &own["service_checks"],
        state.service_checks,
        "service checks",
    );
    let rejected = own.as_object().expect("meters").iter();
    for (meter, found) in rejected.filter(|(meter, _)| meter.starts_with("rejected.")) {
        let expected = state.rejected.get(meter).copied().unwrap_or_default();
        assert_number(found, expected, meter);
    }
    let part = |part: &str| -> BTreeMap<String, Value> {
        let values = flush[part].as_object().expect("an object").iter();
        let values = values.filter(|(name, _)| !name.starts_with("statsd."));
        let key = |name: &String| {
            if state.auto {
                sorted(name)
            } else {
                name.clone()
            }
        };
        values
            .map(|(name, value)| (key(name), value.clone()))
            .collect()
    };
    let (counters, timers, gauges, sets) = (
        part("counters"),
        part("timers"),
        part("gauges"),
        part("sets"),
    );
    // A name of the server's own may be sent to, and has more in it.
    state
        .counters
        .retain(|name, _| !name.starts_with("statsd."));
    assert!(counters.keys().eq(state.counters.keys()), "{counters:?}");
    assert!(timers.keys().eq(state.timers.keys()), "{timers:?}");
    assert!(gauges.keys().eq(state.gauges.keys()), "{gauges:?}");
    assert!(sets.keys().eq(state.sets.keys()), "{sets:?}");
    for (name, sum) in &state.counters {
        assert_number(&counters[name], *sum, name);
    }
    for (name, [lower, upper, weight]) in &state.timers {
        let timer = &timers[name];
        assert_number(&timer["lower"], *lower, name);
        assert_number(&timer["upper"], *upper, name);
        assert_number(&timer["count"], *weight, name);
    }
    for (name, value) in &state.gauges {
        assert_number(&gauges[name], *value, name);
    }
    for (name, members) in &state.sets {
        let found = sets[name].as_array().expect("members").iter();
        let found: BTreeSet<String> = found
            .map(|member| member.as_str().expect("a text").to_owned())
            .collect();
        assert_eq!(found, *members, "{name}");
    }
    let stamped = flush["stamped"].as_array().map_or(&[][..], Vec::as_slice);
    assert_eq!(stamped.len(), state.stamped.len());
    for ((kind, name, at), value) in &state.stamped {
        let is_it = |it: &&Value| {
            it["kind"] == *kind
                && it["name"]
                    .as_str()
                    .is_some_and(|it| sorted(it) == sorted(name))
                && it["timestamp"] == *at
        };
        let found = stamped.iter().find(is_it);
        assert_number(&found.expect("it is there")["value"], *value, name);
    }
}

#[test]
fn the_server_agrees_with_the_corpus_of_the_original() {
    play_to_the_server("statsd", cases(LINES));
}

#[test]
fn the_server_agrees_with_the_corpus_of_dogstatsd() {
    play_to_the_server("auto", auto_cases());
}
