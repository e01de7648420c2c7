//! What the service checked and what it stored.

use super::wire::{Answer, Request};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

/// The largest magnitude that is taken.
const NUMBER_MAX: f64 = 1e126;
/// Below it a number is stored as 0.
const NUMBER_MIN: f64 = 1e-130;
/// Tags of one measurement, at most.
const TAGS_MAX: usize = 50;

const IN_BODY: [&str; 4] = ["time", "period", "tags", "measurements"];
const IN_ITEM: [&str; 13] = [
    "name",
    "value",
    "time",
    "period",
    "tags",
    "attributes",
    "count",
    "sum",
    "min",
    "max",
    "last",
    "stddev",
    "stddev_m2",
];
/// Only beside `count`.
const OF_SUMMARY: [&str; 5] = ["min", "max", "last", "stddev", "stddev_m2"];

/// What an account may do, and what time it is.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The value of the header that lets one in: of `user@example.com` and `tok123`.
    pub(crate) authorization: &'static str,
    /// What stands before the routes.
    pub(crate) base: &'static str,
    /// Whether plain HTTP is refused.
    pub(crate) https_only: bool,
    /// Whether the account has tags.
    pub(crate) tags_enabled: bool,
    /// Whether a measurement needs a tag.
    pub(crate) tag_needed: bool,
    /// The longest body, in bytes.
    pub(crate) body_max: usize,
    /// How many measurements are taken before the account is over its rate.
    pub(crate) rate: usize,
    /// Unix seconds; the machine's clock without it.
    pub(crate) now: Option<i64>,
    /// How old a measurement may be, and how far ahead, in seconds.
    pub(crate) age_max: i64,
    pub(crate) ahead_max: i64,
    /// How many different sets of tags one name may have in an hour.
    pub(crate) tag_sets_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            authorization: "Basic dXNlckBleGFtcGxlLmNvbTp0b2sxMjM=",
            base: "",
            https_only: false,
            tags_enabled: true,
            tag_needed: true,
            body_max: 3 * 1024 * 1024,
            rate: usize::MAX,
            now: None,
            age_max: 2 * 3600,
            ahead_max: 30 * 60,
            tag_sets_max: 40_000,
        }
    }
}

impl Rules {
    fn now(&self) -> i64 {
        self.now.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.expect("after 1970").as_secs() as i64
        })
    }
}

/// One measurement in the store.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Stored {
    pub(crate) name: String,
    /// Unix seconds.
    pub(crate) time: i64,
    /// Of the measurement if it has any, else of the post; in lower case.
    pub(crate) tags: BTreeMap<String, String>,
    /// `value`, or `count`, `sum` and what came with them.
    pub(crate) numbers: BTreeMap<String, f64>,
    /// Of the old route alone.
    pub(crate) source: Option<String>,
    /// `COUNTER` or `GAUGE`.
    pub(crate) kind: String,
}

/// What is stored, and the types of names.
#[derive(Debug)]
pub(super) struct Book {
    rules: Rules,
    stored: Vec<Stored>,
    /// By name in lower case; with whether tests declared it, which holds on both routes.
    types: BTreeMap<String, (String, bool)>,
    /// The sets of tags of each name in lower case, in one hour of Unix time.
    tag_sets: BTreeMap<(String, i64), BTreeSet<TagSet>>,
}

/// Tags in lower case.
type TagSet = BTreeMap<String, String>;

/// What a post is refused with.
type Refusal = Answer;

impl Book {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            stored: Vec::new(),
            types: BTreeMap::new(),
            tag_sets: BTreeMap::new(),
        }
    }

    pub(super) fn declare(&mut self, name: &str, kind: &str) {
        self.types.insert(name.to_lowercase(), (kind.into(), true));
    }

    pub(super) fn stored(&self) -> &[Stored] {
        &self.stored
    }

    /// The answer to a request; what passes is stored.
    pub(super) fn check(&mut self, request: &Request) -> Answer {
        let answer = self.route(request).unwrap_or_else(|refusal| refusal);
        let left = self.rules.rate.saturating_sub(self.stored.len());
        answer.with("X-Librato-RateLimit-Agg", format!("remaining={left}"))
    }

    fn route(&mut self, request: &Request) -> Result<Answer, Refusal> {
        if self.rules.https_only && !request.encrypted {
            return Err(refuse(403, "Please use secured connection through https!"));
        }
        match request.header("authorization") {
            None => {
                let text = "Please provide credentials for authentication.";
                return Err(refuse(401, text));
            }
            Some(shown) if shown != self.rules.authorization => {
                return Err(refuse(401, "Authorization Required"));
            }
            Some(_) => {}
        }
        let path = request.path.split('?').next().unwrap_or_default();
        let route = path.strip_prefix(self.rules.base).unwrap_or_default();
        match (request.method.as_str(), route) {
            ("POST", "/v1/measurements") => {
                let body = self.body(request)?;
                self.measurements(&body)
            }
            ("POST", "/v1/metrics") => {
                let body = self.body(request)?;
                self.metrics(&body)
            }
            ("DELETE", "/v1/metrics") => Ok(self.delete(request)),
            _ => Err(refuse(404, "Not Found")),
        }
    }

    fn body(&self, request: &Request) -> Result<Map<String, Value>, Refusal> {
        let kind = request.header("content-type").unwrap_or_default();
        if !kind.starts_with("application/json") {
            return Err(refuse(415, "Unsupported Media Type"));
        }
        if request.body.len() > self.rules.body_max {
            return Err(refuse(413, "Request Entity Too Large"));
        }
        match serde_json::from_slice(&request.body) {
            Ok(Value::Object(body)) => Ok(body),
            _ => Err(unable()),
        }
    }

    fn measurements(&mut self, body: &Map<String, Value>) -> Result<Answer, Refusal> {
        if !self.rules.tags_enabled {
            let text = "Tag based measurements are not enabled for this account. Contact \
                        support@librato.com for more information";
            return Err(Answer::json(403, &json!({ "errors": [text] })));
        }
        only(body, &IN_BODY)?;
        let items = body.get("measurements").and_then(Value::as_array);
        let items = items.filter(|items| !items.is_empty());
        let items = items.ok_or_else(|| wrong("measurements", "is required"))?;
        if self.stored.len() + items.len() > self.rules.rate {
            let text = "You have hit the API limit for measurements [measure:raw_rate].";
            return Err(Answer::json(
                429,
                &json!({ "errors": { "request": [text] } }),
            ));
        }
        let mut taken = Vec::new();
        let mut errors = Vec::new();
        for item in items {
            let item = item.as_object().ok_or_else(unable)?;
            only(item, &IN_ITEM)?;
            let name = name_of(item)?;
            let time = self.time(item.get("time").or(body.get("time")))?;
            let numbers = numbers(item)?;
            self.agrees(name, "GAUGE", true)?;
            let own = tags_of(item)?;
            // Never merged.
            let tags = if own.is_empty() { tags_of(body)? } else { own };
            let tags = self.tags(&tags).and_then(|tags| {
                self.tag_set(name, time, &tags)?;
                Ok(tags)
            });
            match tags {
                Ok(tags) => taken.push(Stored {
                    name: name.into(),
                    time,
                    tags,
                    numbers,
                    source: None,
                    kind: "GAUGE".into(),
                }),
                Err(error) => errors.push(error),
            }
        }
        let (total, accepted, failed) = (items.len(), taken.len(), errors.len());
        self.stored.extend(taken);
        let summary = json!({
            "total": total, "accepted": accepted, "failed": failed, "filtered": 0,
        });
        let mut answer = json!({ "measurements": { "summary": summary } });
        if failed == 0 {
            return Ok(Answer::json(202, &answer));
        }
        answer["errors"] = Value::Array(errors);
        Err(Answer::json(400, &answer))
    }

    /// Whether a name may have this set of tags too, which it has from now on.
    fn tag_set(&mut self, name: &str, time: i64, tags: &TagSet) -> Result<(), Value> {
        let of_hour = (name.to_lowercase(), time.div_euclid(3600));
        let sets = self.tag_sets.entry(of_hour).or_default();
        if sets.len() >= self.rules.tag_sets_max && !sets.contains(tags) {
            let value = json!(self.rules.tag_sets_max);
            return Err(bad_tag("tags", &value, "Too many unique tag sets"));
        }
        sets.insert(tags.clone());
        Ok(())
    }

    /// Checks the tags that count for a measurement.
    fn tags(&self, tags: &Map<String, Value>) -> Result<TagSet, Value> {
        if self.rules.tag_needed && tags.is_empty() {
            return Err(bad_tag("tags", &Value::Null, "Is required"));
        }
        if tags.len() > TAGS_MAX {
            return Err(bad_tag("tags", &json!(tags.len()), "Too many tags"));
        }
        let mut checked = BTreeMap::new();
        for (name, value) in tags {
            if !consists_of(name, 64, "-.:_") {
                return Err(bad_tag("tag_name", &json!(name), "Invalid format"));
            }
            let text = value.as_str().unwrap_or_default();
            if !consists_of(text, 255, "-.:_?\\/ ") {
                return Err(bad_tag("tag_value", value, "Invalid format"));
            }
            checked.insert(name.to_lowercase(), text.to_lowercase());
        }
        Ok(checked)
    }

    fn time(&self, time: Option<&Value>) -> Result<i64, Refusal> {
        let now = self.rules.now();
        let Some(time) = time else { return Ok(now) };
        let time = time.as_i64().ok_or_else(unable)?;
        let problem = if time < now - self.rules.age_max {
            "is too far in the past"
        } else if time > now + self.rules.ahead_max {
            "is too far in the future"
        } else {
            return Ok(time);
        };
        let params = json!({ "measure_time": [problem] });
        let body = json!({ "errors": { "params": params }, "request_time": now });
        Err(Answer::json(400, &body))
    }

    /// Whether a name has this type, or none yet. The first post of the old route fixes it there. New
    /// measurements neither have a type nor give one, or running totals could not go both ways; but for what
    /// a test says.
    fn agrees(&self, name: &str, kind: &str, only_declared: bool) -> Result<(), Refusal> {
        match self.types.get(&name.to_lowercase()) {
            Some((known, declared)) if known != kind && (*declared || !only_declared) => {
                Err(self.of_type(name, known))
            }
            _ => Ok(()),
        }
    }

    /// The answer to a type that is not the known one.
    fn of_type(&self, name: &str, known: &str) -> Refusal {
        let text = format!("'{name}' is a {known}, but was submitted as different type");
        let body = json!({
            "errors": { "params": { "type": [text] } }, "request_time": self.rules.now(),
        });
        Answer::json(400, &body)
    }

    fn counter(
        &self,
        item: &Map<String, Value>,
        name: &str,
    ) -> Result<BTreeMap<String, f64>, Refusal> {
        let value = number(item, "value")?.ok_or_else(|| wrong("value", "is required"))?;
        if value < 0.0 {
            let params = json!({ "value": ["must be positive"], "name": [name] });
            let body = json!({
                "errors": { "params": params }, "request_time": self.rules.now(),
            });
            return Err(Answer::json(400, &body));
        }
        Ok(BTreeMap::from([("value".into(), value)]))
    }

    fn metrics(&mut self, body: &Map<String, Value>) -> Result<Answer, Refusal> {
        let mut taken: Vec<Stored> = Vec::new();
        for (list, kind) in [("gauges", "GAUGE"), ("counters", "COUNTER")] {
            for (key, item) in items_of(body.get(list))? {
                let item = item.as_object().ok_or_else(unable)?;
                let name = match key {
                    Some(key) if is_name(key) => key,
                    Some(_) => return Err(wrong("name", "is invalid")),
                    None => name_of(item)?,
                };
                let time = item.get("measure_time").or(body.get("measure_time"));
                let time = self.time(time)?;
                let source = item.get("source").or(body.get("source"));
                let source = source.map(source_of).transpose()?;
                let numbers = if kind == "GAUGE" {
                    legacy_gauge(item)?
                } else {
                    self.counter(item, name)?
                };
                self.agrees(name, kind, false)?;
                let other = |it: &&Stored| it.name.eq_ignore_ascii_case(name) && it.kind != kind;
                if let Some(other) = taken.iter().find(other) {
                    return Err(self.of_type(name, &other.kind));
                }
                taken.push(Stored {
                    name: name.into(),
                    time,
                    tags: BTreeMap::new(),
                    numbers,
                    source,
                    kind: kind.into(),
                });
            }
        }
        if taken.is_empty() {
            return Err(wrong("gauges", "or counters are required"));
        }
        for item in &taken {
            let name = item.name.to_lowercase();
            self.types.entry(name).or_insert((item.kind.clone(), false));
        }
        self.stored.extend(taken);
        Ok(Answer::text(200, ""))
    }

    /// Forgets names, and with them their types: `names=a*`, and `metric_type=counter` perhaps.
    fn delete(&mut self, request: &Request) -> Answer {
        let query = request.path.split_once('?').map_or("", |(_, query)| query);
        let body = String::from_utf8_lossy(&request.body);
        let pairs = query.split('&').chain(body.split('&'));
        let pairs: Vec<_> = pairs.filter_map(|pair| pair.split_once('=')).collect();
        let kind = pairs.iter().find(|(key, _)| *key == "metric_type");
        let kind = kind.map(|(_, kind)| kind.to_uppercase());
        let patterns: Vec<_> = pairs
            .iter()
            .filter(|(key, _)| ["names", "names[]", "names%5B%5D"].contains(key))
            .map(|(_, pattern)| pattern.to_lowercase().replace("%2a", "*"))
            .collect();
        let goes = |name: &str, of: &str| {
            let name = name.to_lowercase();
            patterns.iter().any(|pattern| matches(pattern, &name))
                && kind.as_ref().is_none_or(|kind| kind == of)
        };
        self.types.retain(|name, (of, _)| !goes(name, of));
        self.tag_sets.retain(|(name, _), _| !goes(name, "GAUGE"));
        self.stored
            .retain(|stored| !goes(&stored.name, &stored.kind));
        Answer::text(204, "")
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len()).any(|at| name.is_char_boundary(at) && matches(rest, &name[at..]))
        }),
    }
}

fn bad_tag(param: &str, value: &Value, reason: &str) -> Value {
    json!({ "param": param, "value": value, "reason": reason })
}

fn refuse(status: u16, text: &str) -> Refusal {
    Answer::json(status, &json!({ "errors": { "request": [text] } }))
}

fn unable() -> Refusal {
    let body = json!({ "code": 400, "message": "Unable to process JSON" });
    Answer::json(400, &body)
}

fn wrong(param: &str, problem: &str) -> Refusal {
    let body = json!({ "errors": { "params": { param: [problem] } } });
    Answer::json(400, &body)
}

fn only(object: &Map<String, Value>, known: &[&str]) -> Result<(), Refusal> {
    if object.keys().all(|key| known.contains(&key.as_str())) {
        Ok(())
    } else {
        Err(unable())
    }
}

fn consists_of(text: &str, longest: usize, marks: &str) -> bool {
    (1..=longest).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || marks.contains(c))
}

fn is_name(text: &str) -> bool {
    consists_of(text, 255, ".:-_")
}

fn name_of(item: &Map<String, Value>) -> Result<&str, Refusal> {
    let name = item.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| wrong("name", "is required"))?;
    is_name(name)
        .then_some(name)
        .ok_or_else(|| wrong("name", "is invalid"))
}

fn tags_of(object: &Map<String, Value>) -> Result<Map<String, Value>, Refusal> {
    match object.get("tags") {
        None => Ok(Map::new()),
        Some(Value::Object(tags)) => Ok(tags.clone()),
        Some(_) => Err(unable()),
    }
}

fn source_of(source: &Value) -> Result<String, Refusal> {
    let text = source.as_str().unwrap_or_default();
    let good = is_name(text) && !text.eq_ignore_ascii_case("all");
    good.then(|| text.to_lowercase())
        .ok_or_else(|| wrong("source", "is invalid"))
}

/// A number as it is stored; nothing when there is none of that key.
fn number(item: &Map<String, Value>, key: &str) -> Result<Option<f64>, Refusal> {
    let Some(value) = item.get(key) else {
        return Ok(None);
    };
    let number = value
        .as_f64()
        .ok_or_else(|| wrong(key, "is not a number"))?;
    if number.abs() >= NUMBER_MAX {
        return Err(wrong(key, "is too large"));
    }
    Ok(Some(if number.abs() < NUMBER_MIN {
        0.0
    } else {
        number
    }))
}

fn collect(
    item: &Map<String, Value>,
    keys: impl IntoIterator<Item = &'static str>,
) -> Result<BTreeMap<String, f64>, Refusal> {
    let mut numbers = BTreeMap::new();
    for key in keys {
        if let Some(number) = number(item, key)? {
            numbers.insert(key.to_owned(), number);
        }
    }
    Ok(numbers)
}

/// Either one value, or a summary of several that is possible.
fn numbers(item: &Map<String, Value>) -> Result<BTreeMap<String, f64>, Refusal> {
    let numbers = collect(
        item,
        ["value", "count", "sum"].into_iter().chain(OF_SUMMARY),
    )?;
    let get = |key: &str| numbers.get(key).copied();
    let of_summary = || {
        OF_SUMMARY
            .iter()
            .chain(["sum"].iter())
            .any(|key| get(key).is_some())
    };
    match (get("value"), get("count"), get("sum")) {
        (Some(_), None, None) if !of_summary() => Ok(numbers),
        (None, Some(count), Some(sum)) if count > 0.0 => {
            if get("stddev").is_some() && get("stddev_m2").is_some() {
                return Err(wrong("stddev", "cannot stand beside stddev_m2"));
            }
            let min = get("min").unwrap_or(f64::NEG_INFINITY);
            let max = get("max").unwrap_or(f64::INFINITY);
            // The sum was rounded as often as it was added to.
            let slack = sum.abs() * 1e-9;
            if min > max || count * min > sum + slack || count * max < sum - slack {
                return Err(wrong("sum", "is impossible"));
            }
            Ok(numbers)
        }
        (None, Some(count), _) if count <= 0.0 => Err(wrong("count", "must be positive")),
        _ => Err(wrong("value", "is required, or else count and sum")),
    }
}

fn legacy_gauge(item: &Map<String, Value>) -> Result<BTreeMap<String, f64>, Refusal> {
    // What else there is, is tolerated.
    let known = ["value", "count", "sum", "min", "max", "sum_squares"];
    let numbers = collect(item, known)?;
    let has = |key: &str| numbers.contains_key(key);
    match (has("value"), has("count"), has("sum")) {
        (true, false, false) | (false, true, true) => Ok(numbers),
        _ => Err(wrong("value", "is required, or else count and sum")),
    }
}

/// The items of a list, or of an object that has them by name.
fn items_of(list: Option<&Value>) -> Result<Vec<(Option<&str>, &Value)>, Refusal> {
    match list {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items.iter().map(|item| (None, item)).collect()),
        Some(Value::Object(items)) => {
            let items = items.iter().map(|(name, item)| (Some(name.as_str()), item));
            Ok(items.collect())
        }
        Some(_) => Err(unable()),
    }
}
