//! The original with its Librato backend and our binary with ours, side by side: the same configuration and
//! datagrams, and a fake Librato for each.
//!
//! Both have the Graphite backend too: when a flush is over, and of which moment it was, is read from carbon.

pub(crate) mod decisions;
pub(crate) mod traffic;

use crate::daemon::Lines;
use crate::librato_api::{FakeApi, Request, Rules};
use crate::pair::{LAST, Pair, Written, touched};
use decisions::DECISIONS;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// How often a round is sent again of which a moment had two flushes.
const REPEATS: usize = 6;

/// What both are configured with, and what has to be known of it to tell a decision from a fault.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// On top of `daemon::config`; flushes are a second apart.
    pub(crate) options: Value,
    /// The block `librato`, without who signs in and where.
    pub(crate) librato: Value,
    /// Whether a name passes `includeMetrics` and `excludeMetrics`.
    pub(crate) wanted: fn(&str) -> bool,
}

/// What one of them posted of one flush, all batches together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Posted {
    /// What stands around the measurements, without the moment; of each batch the same, so there is one.
    pub(crate) frames: BTreeSet<String>,
    /// Of `/v1/measurements`, in the order they came.
    pub(crate) measurements: Vec<Value>,
    /// Of `/v1/metrics`.
    pub(crate) gauges: Vec<Value>,
    /// Of `/v1/metrics`.
    pub(crate) counters: Vec<Value>,
    /// How many measurements the API has stored of that moment.
    pub(crate) stored: usize,
}

impl Posted {
    /// Adds what a body has.
    pub(crate) fn add(&mut self, body: Value) {
        let Value::Object(mut body) = body else {
            panic!("no object: {body}")
        };
        body.remove("time");
        body.remove("measure_time");
        for (list, items) in [
            ("measurements", &mut self.measurements),
            ("gauges", &mut self.gauges),
            ("counters", &mut self.counters),
        ] {
            if let Some(Value::Array(list)) = body.get_mut(list) {
                items.extend(list.drain(..).map(sorted));
            }
        }
        self.frames.insert(sorted(Value::Object(body)).to_string());
    }

    /// How many measurements, those of both routes.
    pub(crate) fn len(&self) -> usize {
        self.measurements.len() + self.gauges.len() + self.counters.len()
    }
}

/// A measurement with its tags in the order of the alphabet. That of its other fields is not touched.
fn sorted(mut item: Value) -> Value {
    if let Some(Value::Object(tags)) = item.get_mut("tags") {
        let in_order: BTreeMap<_, _> = std::mem::take(tags).into_iter().collect();
        *tags = in_order.into_iter().collect::<Map<_, _>>();
    }
    item
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// One line for each difference.
    pub(crate) differences: Vec<String>,
    /// The numbers of the decisions that there was something to decide for.
    pub(crate) decided: BTreeSet<&'static str>,
}

/// Both, running.
pub(crate) struct LibratoPair {
    pair: Pair,
    theirs: FakeApi,
    ours: FakeApi,
    setting: Setting,
}

impl LibratoPair {
    /// Starts both and waits until they listen.
    pub(crate) fn start(setting: &Setting) -> Self {
        let [theirs, ours] = [(); 2].map(|()| FakeApi::start(Rules::default()));
        let block = |api: &FakeApi| {
            let mut librato = setting.librato.clone();
            librato["email"] = json!("user@example.com");
            librato["token"] = json!("tok123");
            librato["api"] = json!(api.url());
            json!({ "librato": librato })
        };
        let mut options = setting.options.clone();
        options["backends"] = json!(["statsd-librato-backend", "./backends/graphite"]);
        let pair = Pair::start_each(&Written::Options(options), &block(&theirs), &block(&ours));
        Self {
            pair,
            theirs,
            ours,
            setting: setting.clone(),
        }
    }

    /// Sends a round to both. Returns what each posted of the flush that holds it, and of the `idle` flushes
    /// after that.
    pub(crate) fn round(&mut self, datagrams: &[Vec<u8>], idle: usize) -> Vec<(Posted, Posted)> {
        for _ in 0..REPEATS {
            let flushes = self.pair.round(datagrams, idle);
            self.wait_for_a_later_post();
            let (theirs, ours) = self.pair.moments();
            let once = |moments: &[u64], flush: &Lines| {
                moments.iter().filter(|it| **it == flush.timestamp).count() == 1
            };
            // A flush that came so late that the next one is of the same moment cannot be told from it.
            if flushes
                .iter()
                .all(|(a, b)| once(theirs, a) && once(ours, b))
            {
                let [theirs, ours] = [&self.theirs, &self.ours].map(|api| (api, api.requests()));
                let pairs = flushes.iter().map(|(a, b)| {
                    (
                        posted(theirs.0, &theirs.1, a.timestamp),
                        posted(ours.0, &ours.1, b.timestamp),
                    )
                });
                return pairs.collect();
            }
        }
        panic!("{REPEATS} rounds in a row came late: this machine is too busy to compare on");
    }

    /// Waits until both have posted of a flush that comes after those compared. The original posts without
    /// waiting for answers, a whole second earlier.
    fn wait_for_a_later_post(&mut self) {
        self.pair.send(&[]);
        let (mut theirs, mut ours) = (None, None);
        while theirs.is_none() || ours.is_none() {
            let (a, b) = self.pair.next();
            let has_it = |flush: Lines| touched(&flush, LAST).then_some(flush.timestamp);
            theirs = theirs.or(has_it(a));
            ours = ours.or(has_it(b));
        }
        for (api, moment) in [(&self.theirs, theirs), (&self.ours, ours)] {
            let moment = moment.expect("it was waited for");
            api.wait_for_request(|request| is_of(request, moment));
        }
    }

    /// Every way in which what we posted is not what the original did, nor what was decided.
    pub(crate) fn compare(&self, posted: &(Posted, Posted), in_order: bool) -> Compared {
        compare(&self.setting, &posted.0, &posted.1, in_order)
    }
}

/// Whether a request has measurements of a moment.
fn is_of(request: &Request, moment: u64) -> bool {
    request
        .body
        .starts_with(format!("{{\"time\":{moment},").as_bytes())
        || request
            .body
            .ends_with(format!(",\"measure_time\":{moment}}}").as_bytes())
}

fn posted(api: &FakeApi, requests: &[Request], moment: u64) -> Posted {
    let mut posted = Posted::default();
    for request in requests.iter().filter(|request| is_of(request, moment)) {
        let body = serde_json::from_slice(&request.body);
        posted.add(body.unwrap_or_else(|error| panic!("{error} in {request:?}")));
    }
    let of_then = |time: i64| u64::try_from(time) == Ok(moment);
    posted.stored = api.stored().iter().filter(|it| of_then(it.time)).count();
    posted
}

/// Compares the measurements of one flush, whole items, however many have the same name. The order counts
/// only when it is asked for.
pub(crate) fn compare(
    setting: &Setting,
    theirs: &Posted,
    ours: &Posted,
    in_order: bool,
) -> Compared {
    let mut compared = Compared::default();
    let parse = |text: &String| serde_json::from_str(text).expect("it was JSON");
    let frames = |posted: &Posted| posted.frames.iter().map(parse).collect::<Vec<Value>>();
    for (list, a, b) in [
        ("frame", &frames(theirs), &frames(ours)),
        ("measurement", &theirs.measurements, &ours.measurements),
        ("gauge", &theirs.gauges, &ours.gauges),
        ("counter", &theirs.counters, &ours.counters),
    ] {
        let expected = expect(setting, theirs, list, a, b, &mut compared);
        let ours: Vec<String> = b
            .iter()
            .filter(|item| by_itself(setting, item))
            .map(Value::to_string)
            .collect();
        if in_order && compared.differences.is_empty() && expected != ours {
            let at = expected.iter().zip(&ours).position(|(a, b)| a != b);
            let at = at.unwrap_or(0);
            let what = format!(
                "{list} {at}: expected {} here, found {}",
                expected[at], ours[at]
            );
            compared.differences.push(what);
        }
    }
    compared
}

/// Whether a measurement does not depend on the clock.
fn by_itself(setting: &Setting, item: &Value) -> bool {
    let own_prefix = setting.options["prefixStats"].as_str().unwrap_or("statsd");
    let name = item["name"].as_str().unwrap_or_default();
    !name.ends_with(&format!("{own_prefix}.timestamp_lag"))
}

/// What ours should be, in the original's order. What is not there, or too much, is a difference.
fn expect(
    setting: &Setting,
    posted: &Posted,
    list: &str,
    theirs: &[Value],
    ours: &[Value],
    compared: &mut Compared,
) -> Vec<String> {
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    for item in ours.iter().filter(|item| by_itself(setting, item)) {
        *left.entry(item.to_string()).or_default() += 1;
    }
    let mut take = |item: &str| match left.get_mut(item) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    };
    let theirs: Vec<_> = theirs
        .iter()
        .filter(|item| by_itself(setting, item))
        .collect();
    // What is the same first: nothing is decided about it.
    let mut expected: Vec<Option<String>> = (theirs.iter())
        .map(|item| Some(item.to_string()).filter(|item| take(item)))
        .collect();
    for (item, expected) in theirs.iter().zip(&mut expected) {
        if expected.is_some() {
            continue;
        }
        let decided = DECISIONS.iter().find_map(|decision| {
            let made = (decision.makes)(setting, posted, list, item);
            let mut made = made
                .into_iter()
                .map(|made| made.map(|it| sorted(it).to_string()));
            let found = made.find(|made| made.as_deref().is_none_or(&mut take))?;
            Some((decision.number, found))
        });
        match decided {
            Some((number, made)) => {
                compared.decided.insert(number);
                *expected = made;
            }
            None => compared
                .differences
                .push(format!("{list}: only theirs {item}")),
        }
    }
    for (item, count) in left {
        for _ in 0..count {
            compared
                .differences
                .push(format!("{list}: only ours {item}"));
        }
    }
    expected.into_iter().flatten().collect()
}
