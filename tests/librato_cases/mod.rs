//! What the reference's Librato backend was recorded sending, and what this server sends in its place where
//! that was decided. `D1` to `D16` number the decisions; where none was needed, the reference
//! crashes or sends what is impossible.
#![allow(dead_code, reason = "each test program uses a part of it")]

use serde_json::Value;

/// Case, what was recorded, what is sent in its place, and why. Without a record it is what the one
/// request has.
pub(crate) const DECIDED: &[(&str, &str, &str, &str)] = &[
    (
        "tags_host_undefined",
        r#""host":"vm""#,
        r#""host":"production-web-server-1""#,
        "D1: a host that was written as a tag wins over the name of the machine",
    ),
    (
        "include",
        r#"{"name":"other.s","value":1,"tags":{}},"#,
        "",
        "D2: sets are filtered as all other kinds",
    ),
    (
        "exclude",
        r#",{"name":"my.s","value":1,"tags":{}}"#,
        "",
        "D2: sets are filtered as all other kinds",
    ),
    (
        "internal_false",
        r#""value":1,"tags":{}},{"name":"numStats","value":0"#,
        r#""value":1,"tags":{}},{"name":"numStats","value":4"#,
        "D3: numStats counts what was sent",
    ),
    (
        "internal_false",
        r#"{"name":"statsd.timestamp_lag","value":0,"tags":{}},{"name":"numStats","value":0"#,
        r#"{"name":"statsd.timestamp_lag","value":0,"tags":{}},{"name":"numStats","value":5"#,
        "D3: numStats counts what was sent",
    ),
    (
        "empty_after_delete",
        r#"{"name":"numStats","value":0"#,
        r#"{"name":"numStats","value":4"#,
        "D3: numStats counts what was sent",
    ),
    (
        "internal_false_counters",
        r#"{"name":"a","value":1,"tags":{}},{"name":"numStats","value":0"#,
        r#"{"name":"a","value":1,"tags":{}},{"name":"numStats","value":4"#,
        "D3: numStats counts what was sent, as a running total with the other counters",
    ),
    (
        "internal_false_counters",
        r#"[],"counters":[{"name":"statsd.bad_lines_seen","value":0},{"name":"statsd.packets_received","value":1},{"name":"statsd.metrics_received","value":1},{"name":"a","value":1},{"name":"numStats","value":0}"#,
        r#"[],"counters":[{"name":"statsd.bad_lines_seen","value":0},{"name":"statsd.packets_received","value":1},{"name":"statsd.metrics_received","value":1},{"name":"a","value":1},{"name":"numStats","value":4}"#,
        "D3: numStats counts what was sent, as a running total with the other counters",
    ),
    (
        "internal_false_counters",
        r#"{"name":"numStats","value":0"#,
        r#"{"name":"numStats","value":9"#,
        "D3: numStats counts what was sent, as a running total with the other counters",
    ),
    (
        "tags_grammar",
        r#"{"name":"h","value":1,"tags":{"y":"2"}}"#,
        r#"{"name":"h","value":1,"tags":{"x":"1","y":"2"}}"#,
        "D9: every # begins tags, whatever the kind",
    ),
    (
        "tags_grammar",
        r#"{"name":"o","value":1,"tags":{}}"#,
        r#"{"name":"o","value":1,"tags":{"x":"1"}}"#,
        "D9: every # begins tags, whatever the kind",
    ),
    (
        "tags_grammar",
        r#"{"name":"","value":1,"tags":{"x":"1"}},"#,
        "",
        "D8: what has no name is not sent",
    ),
    (
        "tags_grammar_timer",
        r#"{"name":"","count":1,"sum":1,"min":1,"stddev_m2":0,"max":1,"tags":{"x":"1"}},{"name":".90","count":1,"sum":1,"min":1,"stddev_m2":0,"max":1,"tags":{"x":"1"}},"#,
        "",
        "D8: what has no name is not sent",
    ),
    (
        "values",
        r#"{"name":"h","value":null,"tags":{}},"#,
        "",
        "D8: a number the service does not take is not sent",
    ),
    (
        "histogram_frac",
        r#"{"name":"t","value":0,"tags":{"a":"b.bin_0_5"}},{"name":"t","value":1,"tags":{"a":"b.bin_2_5"}}"#,
        r#"{"name":"t.bin_0_5","value":0,"tags":{"a":"b"}},{"name":"t.bin_2_5","value":1,"tags":{"a":"b"}}"#,
        "D10: a bin belongs to the name, not to the last tag",
    ),
    (
        "intkeys",
        r#"{"name":"2","value":1,"tags":{}},{"name":"10","value":1,"tags":{}},{"name":"zz","value":1,"tags":{}},{"name":"aa","value":1,"tags":{}}"#,
        r#"{"name":"zz","value":1,"tags":{}},{"name":"10","value":1,"tags":{}},{"name":"2","value":1,"tags":{}},{"name":"aa","value":1,"tags":{}}"#,
        "D16: names come in the order they were first sent",
    ),
    (
        "pct_over_100",
        r#""count":4,"sum":6,"min":1,"stddev_m2":0.9574271077563381,"tags""#,
        r#""count":3,"sum":6,"min":1,"stddev_m2":1,"max":3,"tags""#,
        "no decision: no percentile has more samples than there are",
    ),
    (
        "proto_keys",
        "",
        r#"{"time":0,"tags":{"host":"h1"},"measurements":[{"name":"constructor","value":1,"tags":{}},{"name":"toString","count":1,"sum":5,"min":5,"stddev_m2":0,"max":5,"tags":{}},{"name":"toString.90","count":1,"sum":5,"min":5,"stddev_m2":0,"max":5,"tags":{}},{"name":"__proto__","value":1,"tags":{}}]}"#,
        "no decision: the reference stops for ever at these names",
    ),
    (
        "sigterm",
        "",
        r#"{"time":0,"tags":{"host":"h1"},"measurements":[{"name":"a","value":1,"tags":{}}]}"#,
        "D12: what stopping flushes is delivered",
    ),
];

/// Configurations that are refused, and what is said of them.
pub(crate) const REFUSED: &[(&str, &[&str])] = &[
    (
        "api_noscheme",
        &["librato.api: an address begins with `https://` or `http://`"],
    ),
    (
        "noemail",
        &["librato.email: is missing: the Librato backend signs in with it"],
    ),
    (
        "notoken",
        &["librato.token: is missing: the Librato backend signs in with it"],
    ),
    (
        "nolibrato",
        &[
            "librato.email: is missing: the Librato backend signs in with it",
            "librato.token: is missing: the Librato backend signs in with it",
        ],
    ),
];

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) body: String,
}

pub(crate) fn recorded() -> Vec<Value> {
    let text = include_str!("../conformance/librato.json");
    let recording: Value = serde_json::from_str(text).expect("the recording is JSON");
    recording["cases"].as_array().expect("a list").clone()
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// The posts of a case, each once. What the reference spoilt while trying again is no post.
pub(crate) fn posts(case: &Value) -> Vec<Request> {
    let mut posts: Vec<Request> = Vec::new();
    for request in case["requests"].as_array().expect("a list") {
        let body = request["body"].as_str().unwrap_or_default();
        let cut = body.ends_with(')');
        let whole = serde_json::from_str::<Value>(body).is_ok();
        let post = Request {
            path: text(&request["path"]).into(),
            body: body.into(),
        };
        let is_retry = !cut && posts.contains(&post);
        if request["method"] == "POST" && (whole || cut) && !is_retry {
            posts.push(post);
        }
    }
    posts
}

pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("proc(5) is there");
    name.trim_end().to_owned()
}

/// The moment of a body.
pub(crate) fn time(body: &str) -> Option<i64> {
    let key = ["\"time\":", "\"measure_time\":"];
    let (_, rest) = key.iter().find_map(|key| body.split_once(key))?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..digits].parse().ok()
}

/// What this server sends where it was decided to send something else. Each edit must find its place.
pub(crate) fn decided(name: &str, mut posts: Vec<Request>) -> Vec<Request> {
    let edits = DECIDED.iter().filter(|(case, ..)| *case == name);
    for (_, from, to, why) in edits {
        if from.is_empty() {
            posts.push(Request {
                path: "/v1/measurements".into(),
                body: (*to).into(),
            });
            continue;
        }
        let mut found = false;
        for post in &mut posts {
            // An edit is for what the earlier ones left as it was.
            found |= post.body.contains(from);
            post.body = post.body.replace(from, to);
        }
        assert!(found, "{name}: nothing to decide: {why}");
    }
    // The machine of the recordings was called vm.
    for post in &mut posts {
        post.body = (post.body).replace(r#""host":"vm""#, &format!(r#""host":{:?}"#, host_name()));
    }
    posts
}

/// The configuration of a case as a file, with the backend it is about and `more` settings. In the place of
/// each `PORT` it has one of `ports`, in their order.
pub(crate) fn configured(case: &Value, more: &str, ports: &[&str]) -> String {
    // What was recorded is the original's way.
    let start =
        format!("{{{more}\"dialect\":\"statsd\",\"backends\":[\"statsd-librato-backend\"],");
    let text = text(&case["config"]).replacen('{', &start, 1);
    (ports.iter()).fold(text, |text, port| text.replacen("PORT", port, 1))
}

/// Whether a body is the one that is wanted, of which the recording may have only the begin and the length.
pub(crate) fn is_sent(want: &str, body: &str) -> bool {
    match want.split_once("...(") {
        Some((begin, length)) => {
            let length = length.trim_end_matches(')');
            body.starts_with(begin) && body.len().to_string() == length
        }
        None => body == want,
    }
}
