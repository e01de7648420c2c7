//! The fake Librato itself: that it refuses what the service refused, and stores as the service did.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod librato_api;

use librato_api::{Answer, FakeApi, Fault, Rules, Stored};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Where the clock of every test stands, Unix seconds.
const NOW: i64 = 1_700_000_000;

const NEW: &str = "/v1/measurements";
const OLD: &str = "/v1/metrics";

fn rules() -> Rules {
    Rules {
        now: Some(NOW),
        ..Rules::default()
    }
}

/// A request with every header it needs but for what `change` does to them; status, head and body of the
/// answer.
fn send(
    api: &FakeApi,
    line: &str,
    body: &str,
    change: impl Fn(&str) -> String,
) -> (u16, String, Value) {
    let head = format!(
        "{line} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        Rules::default().authorization,
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", api.port())).expect("the API listens");
    let request = change(&head) + body;
    stream.write_all(request.as_bytes()).expect("the API reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the API answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = serde_json::from_str(body).unwrap_or(Value::String(body.into()));
    (status.expect("a status"), head.into(), body)
}

fn post(api: &FakeApi, path: &str, body: &str) -> (u16, Value) {
    let (status, _, body) = send(api, &format!("POST {path}"), body, str::to_owned);
    (status, body)
}

fn delete(api: &FakeApi, query: &str) -> u16 {
    send(api, &format!("DELETE {OLD}?{query}"), "", str::to_owned).0
}

/// A post of one measurement with these properties; it has a tag unless they say otherwise.
fn measurement(properties: &str) -> String {
    let tags = if properties.contains("\"tags\"") {
        ""
    } else {
        r#","tags":{"a":"b"}"#
    };
    format!(r#"{{"measurements":[{{{properties}{tags}}}]}}"#)
}

/// Refused with this status, with this in the answer, and nothing stored.
fn refused(rules: Rules, path: &str, body: &str, status: u16, says: &str) {
    let api = FakeApi::start(rules);
    let (found, answer) = post(&api, path, body);
    assert_eq!(found, status, "{body}: {answer}");
    assert!(answer.to_string().contains(says), "{body}: {answer}");
    assert_eq!(api.stored(), [], "{body}");
}

#[test]
fn who_does_not_show_credentials_is_refused() {
    let api = FakeApi::start(rules());
    let body = measurement(r#""name":"a","value":1"#);
    let line = format!("POST {NEW}");
    let without = |head: &str| head.replace("Authorization", "Ignored");
    let (status, _, answer) = send(&api, &line, &body, without);
    assert_eq!(status, 401);
    assert!(
        answer.to_string().contains("provide credentials"),
        "{answer}"
    );
    let wrong = |head: &str| head.replace("Basic d", "Basic e");
    let (status, _, answer) = send(&api, &line, &body, wrong);
    assert_eq!(status, 401);
    assert_eq!(
        answer,
        json!({"errors": {"request": ["Authorization Required"]}})
    );
    assert_eq!(api.stored(), []);
}

#[test]
fn what_is_no_json_by_its_header_is_refused() {
    let api = FakeApi::start(rules());
    let body = measurement(r#""name":"a","value":1"#);
    let form = |head: &str| head.replace("application/json", "text/plain");
    assert_eq!(send(&api, &format!("POST {NEW}"), &body, form).0, 415);
}

#[test]
fn accounts_have_limits() {
    let good = measurement(r#""name":"a","value":1"#);
    let https = Rules {
        https_only: true,
        ..rules()
    };
    refused(https, NEW, &good, 403, "secured connection");
    let untagged = Rules {
        tags_enabled: false,
        ..rules()
    };
    refused(untagged, NEW, &good, 403, "not enabled for this account");
    let rate = Rules { rate: 0, ..rules() };
    refused(rate, NEW, &good, 429, "measure:raw_rate");
    let small = Rules {
        body_max: good.len() - 1,
        ..rules()
    };
    refused(small, NEW, &good, 413, "Too Large");
    let exact = FakeApi::start(Rules {
        body_max: good.len(),
        rate: 1,
        ..rules()
    });
    assert_eq!(post(&exact, NEW, &good).0, 202);
    let (_, head, _) = send(&exact, &format!("POST {NEW}"), &good, str::to_owned);
    assert!(
        head.contains("X-Librato-RateLimit-Agg: remaining=0"),
        "{head}"
    );
}

#[test]
fn there_are_three_routes() {
    let api = FakeApi::start(Rules {
        base: "/librato",
        ..rules()
    });
    let body = measurement(r#""name":"a","value":1"#);
    for (line, status) in [
        ("POST /librato/v1/measurements", 202),
        ("POST /v1/measurements", 404),
        ("POST /librato/v1/other", 404),
        ("PUT /librato/v1/measurements", 404),
    ] {
        assert_eq!(send(&api, line, &body, str::to_owned).0, status, "{line}");
    }
}

#[test]
fn a_post_that_is_no_list_of_measurements_is_refused() {
    let cases = [
        ("", "Unable to process JSON"),
        ("{", "Unable to process JSON"),
        ("[]", "Unable to process JSON"),
        (
            r#"{"measurements":[{"name":"a","value":NaN}]}"#,
            "Unable to process JSON",
        ),
        (
            r#"{"measurements":[{"name":"a","value":1e400}]}"#,
            "Unable to process JSON",
        ),
        (r#"{"measurements":[7]}"#, "Unable to process JSON"),
        (
            r#"{"source":"a","measurements":[{"name":"a","value":1}]}"#,
            "Unable to process JSON",
        ),
        (r#"{"measurements":[]}"#, "is required"),
        (r#"{"measurements":{}}"#, "is required"),
        ("{}", "is required"),
    ];
    for (body, says) in cases {
        refused(rules(), NEW, body, 400, says);
    }
}

#[test]
fn a_measurement_against_the_rules_is_refused_and_all_with_it() {
    let long = format!(r#""name":"{}","value":1"#, "a".repeat(256));
    let cases = [
        (
            r#""name":"a","value":1,"source":"b""#,
            "Unable to process JSON",
        ),
        (r#""value":1"#, "is required"),
        (r#""name":"","value":1"#, "is invalid"),
        (r#""name":"a b","value":1"#, "is invalid"),
        (r#""name":"\u00fc","value":1"#, "is invalid"),
        (&long, "is invalid"),
        (r#""name":"a""#, "value"),
        (r#""name":"a","value":null"#, "is not a number"),
        (r#""name":"a","value":"1""#, "is not a number"),
        (r#""name":"a","value":1e126"#, "is too large"),
        (r#""name":"a","value":-1e126"#, "is too large"),
        (r#""name":"a","value":1,"count":1,"sum":1"#, "or else"),
        (r#""name":"a","value":1,"max":1"#, "or else"),
        (r#""name":"a","count":1"#, "or else"),
        (r#""name":"a","sum":1"#, "or else"),
        (r#""name":"a","count":0,"sum":0"#, "must be positive"),
        (
            r#""name":"a","count":2,"sum":3,"min":2,"max":1"#,
            "impossible",
        ),
        (r#""name":"a","count":2,"sum":3,"min":2"#, "impossible"),
        (r#""name":"a","count":2,"sum":3,"max":1"#, "impossible"),
        (
            r#""name":"a","count":1,"sum":1,"stddev":1,"stddev_m2":1"#,
            "stddev_m2",
        ),
        (
            r#""name":"a","value":1,"tags":[]"#,
            "Unable to process JSON",
        ),
        (
            r#""name":"a","value":1,"time":1.5"#,
            "Unable to process JSON",
        ),
        (
            r#""name":"a","value":1,"time":1699992799"#,
            "is too far in the past",
        ),
        (
            r#""name":"a","value":1,"time":1700001801"#,
            "is too far in the future",
        ),
    ];
    for (properties, says) in cases {
        let body = measurement(properties);
        let with_a_good_one =
            body.replacen('[', r#"[{"name":"good","value":1,"tags":{"a":"b"}},"#, 1);
        refused(rules(), NEW, &with_a_good_one, 400, says);
    }
}

#[test]
fn bad_tags_refuse_one_measurement_and_let_the_others_pass() {
    let many: BTreeMap<_, _> = (0..51).map(|at| (format!("t{at}"), "v")).collect();
    for (tags, param) in [
        (json!({"": "a"}), "tag_name"),
        (json!({"a b": "a"}), "tag_name"),
        (json!({"x".repeat(65): "a"}), "tag_name"),
        (json!({"a": ""}), "tag_value"),
        (json!({"a": "b@c"}), "tag_value"),
        (json!({"a": "\u{fc}"}), "tag_value"),
        (json!({"a": "x".repeat(256)}), "tag_value"),
        (json!({"a": 1}), "tag_value"),
        (json!({"a": null}), "tag_value"),
        (json!(many), "tags"),
        (json!({}), "tags"),
    ] {
        let api = FakeApi::start(rules());
        let good = json!({"name": "good", "value": 1, "tags": {"a": "b"}});
        let bad = json!({"name": "bad", "value": 1, "tags": tags});
        let body = json!({"measurements": [bad, good]}).to_string();
        let (status, answer) = post(&api, NEW, &body);
        assert_eq!(status, 400, "{tags}");
        let summary = json!({"total": 2, "accepted": 1, "failed": 1, "filtered": 0});
        assert_eq!(answer["measurements"]["summary"], summary, "{tags}");
        assert_eq!(answer["errors"][0]["param"], param, "{tags}");
        let stored = api.stored();
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].name, "good");
    }
    let api = FakeApi::start(Rules {
        tag_needed: false,
        ..rules()
    });
    let body = measurement(r#""name":"a","value":1,"tags":{}"#);
    assert_eq!(post(&api, NEW, &body).0, 202);
}

fn map<V: Clone>(pairs: &[(&str, V)]) -> BTreeMap<String, V> {
    let pairs = pairs.iter().cloned();
    pairs.map(|(key, value)| (key.to_owned(), value)).collect()
}

#[test]
fn tags_of_a_measurement_replace_those_of_the_post() {
    let api = FakeApi::start(rules());
    let body = json!({"time": NOW - 7200, "tags": {"Host": "H1", "os": "linux"}, "measurements": [
        {"name": "a", "value": 1.5, "tags": {}},
        {"name": "b", "value": 1e-131},
        {"name": "c", "count": 3, "sum": 6, "min": 1, "max": 3, "stddev_m2": 1, "tags": {"A": "x/Y ?"}},
        {"name": "d", "value": -2, "time": NOW + 1800, "tags": {"a": "b"}},
    ]});
    let (status, answer) = post(&api, NEW, &body.to_string());
    let summary = json!({"total": 4, "accepted": 4, "failed": 0, "filtered": 0});
    assert_eq!(
        (status, answer),
        (202, json!({"measurements": {"summary": summary}}))
    );
    let stored = |name: &str, time, tags: &[(&str, &str)], numbers: &[(&str, f64)]| {
        let tags: Vec<_> = tags
            .iter()
            .map(|(tag, value)| (*tag, (*value).to_owned()))
            .collect();
        Stored {
            name: name.into(),
            time,
            tags: map(&tags),
            numbers: map(numbers),
            source: None,
            kind: "GAUGE".into(),
        }
    };
    let of_post = [("host", "h1"), ("os", "linux")];
    let summary = [
        ("count", 3.0),
        ("max", 3.0),
        ("min", 1.0),
        ("stddev_m2", 1.0),
        ("sum", 6.0),
    ];
    let expected = [
        stored("a", NOW - 7200, &of_post, &[("value", 1.5)]),
        stored("b", NOW - 7200, &of_post, &[("value", 0.0)]),
        stored("c", NOW - 7200, &[("a", "x/y ?")], &summary),
        stored("d", NOW + 1800, &[("a", "b")], &[("value", -2.0)]),
    ];
    assert_eq!(api.stored(), expected);
}

#[test]
fn the_old_route_has_gauges_counters_and_sources() {
    let api = FakeApi::start(rules());
    let body = json!({"measure_time": NOW, "source": "All.of.it", "gauges": [
        {"name": "g", "value": 1},
        {"name": "t", "count": 1, "sum": 5, "min": 5, "max": 5, "stddev_m2": 0, "source": "s1"},
    ], "counters": {"c": {"value": 3}}});
    let (status, answer) = post(&api, OLD, &body.to_string());
    assert_eq!((status, answer), (200, json!("")));
    let stored = api.stored();
    let seen: Vec<_> = stored
        .iter()
        .map(|it| {
            (
                it.name.as_str(),
                it.kind.as_str(),
                it.source.as_deref().unwrap_or(""),
            )
        })
        .collect();
    let expected = [
        ("g", "GAUGE", "all.of.it"),
        ("t", "GAUGE", "s1"),
        ("c", "COUNTER", "all.of.it"),
    ];
    assert_eq!(seen, expected);
    let cases = [
        (r#"{"gauges":[],"counters":[]}"#, "are required"),
        ("{}", "are required"),
        (r#"{"gauges":7}"#, "Unable to process JSON"),
        (r#"{"gauges":[7]}"#, "Unable to process JSON"),
        (r#"{"gauges":[{"value":1}]}"#, "is required"),
        (r#"{"gauges":[{"name":"a b","value":1}]}"#, "is invalid"),
        (r#"{"gauges":{"a b":{"value":1}}}"#, "is invalid"),
        (r#"{"gauges":[{"name":"a"}]}"#, "or else"),
        (
            r#"{"gauges":[{"name":"a","value":1,"source":"all"}]}"#,
            "source",
        ),
        (
            r#"{"gauges":[{"name":"a","value":1,"source":"a b"}]}"#,
            "source",
        ),
        (
            r#"{"gauges":[{"name":"a","value":1}],"measure_time":1}"#,
            "is too far in the past",
        ),
        (r#"{"counters":[{"name":"a"}]}"#, "is required"),
        (
            r#"{"counters":[{"name":"a","value":-1}]}"#,
            "must be positive",
        ),
    ];
    for (body, says) in cases {
        refused(rules(), OLD, body, 400, says);
    }
}

#[test]
fn a_name_has_one_type_until_it_is_deleted() {
    let api = FakeApi::start(rules());
    let gauge = r#"{"gauges":[{"name":"A.b","value":1}]}"#;
    let counter = r#"{"counters":[{"name":"good","value":1},{"name":"a.B","value":1}]}"#;
    assert_eq!(post(&api, OLD, counter).0, 200);
    let (status, answer) = post(&api, OLD, gauge);
    assert_eq!(status, 400);
    let text = "'A.b' is a COUNTER, but was submitted as different type";
    assert_eq!(
        answer,
        json!({"errors": {"params": {"type": [text]}}, "request_time": NOW})
    );
    assert_eq!(api.stored().len(), 2, "the post is dropped whole");
    let both = r#"{"gauges":[{"name":"x","value":1}],"counters":[{"name":"x","value":1}]}"#;
    assert_eq!(post(&api, OLD, both).0, 400);
    // New measurements have no type, but for what a test declares.
    assert_eq!(
        post(&api, NEW, &measurement(r#""name":"a.b","value":1"#)).0,
        202
    );
    for (query, stays) in [
        ("names=a*&metric_type=gauge", 2),
        ("names=a*&metric_type=counter", 1),
    ] {
        assert_eq!(delete(&api, query), 204);
        assert_eq!(api.stored().len(), stays, "{query}");
    }
    assert_eq!(post(&api, OLD, gauge).0, 200);
    api.declare("bad", "COUNTER");
    let (status, answer) = post(&api, NEW, &measurement(r#""name":"Bad","value":1"#));
    assert_eq!(status, 400);
    assert!(
        answer.to_string().contains("'Bad' is a COUNTER"),
        "{answer}"
    );
}

#[test]
fn the_first_post_of_the_old_route_fixes_a_type() {
    let api = FakeApi::start(rules());
    let gauge = r#"{"gauges":[{"name":"a","value":1}]}"#;
    let mixed = r#"{"gauges":[{"name":"new","value":1}],"counters":[{"name":"A","value":1}]}"#;
    let bad = r#"{"gauges":[{"name":"b","value":1},{"name":"c d","value":1}]}"#;
    assert_eq!(
        post(&api, NEW, &measurement(r#""name":"a","value":1"#)).0,
        202
    );
    assert_eq!(post(&api, OLD, gauge).0, 200);
    let (status, answer) = post(&api, OLD, mixed);
    assert_eq!(status, 400);
    let text = "'A' is a GAUGE, but was submitted as different type";
    assert_eq!(answer["errors"]["params"]["type"], json!([text]));
    // What was refused fixed nothing, and neither did a new measurement.
    assert_eq!(post(&api, OLD, bad).0, 400);
    let counters = r#"{"counters":[{"name":"b","value":1},{"name":"new","value":1}]}"#;
    assert_eq!(post(&api, OLD, counters).0, 200);
    assert_eq!(
        post(&api, NEW, &measurement(r#""name":"b","value":1"#)).0,
        202
    );
    assert_eq!(api.stored().len(), 5);
}

#[test]
fn a_name_has_so_many_sets_of_tags_in_an_hour() {
    assert_eq!(Rules::default().tag_sets_max, 40_000);
    let api = FakeApi::start(Rules {
        tag_sets_max: 2,
        ..rules()
    });
    let one = |name: &str, value: &str, time: i64| json!({"name": name, "value": 1, "time": time, "tags": {"A": value}});
    let send = |items: Vec<Value>| {
        let (status, answer) = post(&api, NEW, &json!({"measurements": items}).to_string());
        (status, answer["errors"][0]["reason"].clone())
    };
    let too_many = (400, json!("Too many unique tag sets"));
    assert_eq!(
        send(vec![one("n", "x", NOW), one("n", "y", NOW)]),
        (202, json!(null))
    );
    assert_eq!(send(vec![one("N", "z", NOW), one("n", "X", NOW)]), too_many);
    assert_eq!(api.stored().len(), 3, "a set that is known is no new one");
    assert_eq!(send(vec![one("m", "z", NOW)]), (202, json!(null)));
    assert_eq!(send(vec![one("n", "z", NOW - 3600)]), (202, json!(null)));
    assert_eq!(delete(&api, "names=n"), 204);
    assert_eq!(send(vec![one("n", "z", NOW)]), (202, json!(null)));
}

#[test]
fn it_fails_on_demand_and_in_order() {
    let api = FakeApi::start(rules());
    let body = measurement(r#""name":"a","value":1"#);
    api.script([
        Fault::Answer(Answer::text(503, "busy").with("Retry-After", 7)),
        Fault::Late(Duration::from_millis(1)),
        Fault::Raw(b"HTTP/1.1 418 I\r\n\r\n".to_vec()),
    ]);
    let (status, head, answer) = send(&api, &format!("POST {NEW}"), &body, str::to_owned);
    assert_eq!((status, answer), (503, json!("busy")));
    assert!(head.contains("Retry-After: 7"), "{head}");
    assert_eq!(post(&api, NEW, &body).0, 202);
    assert_eq!(post(&api, NEW, &body).0, 418);
    assert_eq!(post(&api, NEW, &body).0, 202);
    assert_eq!(api.stored().len(), 2);
    let requests = api.requests();
    assert_eq!(requests.len(), 4);
    assert!(
        requests
            .iter()
            .all(|request| request.body == body.as_bytes())
    );
    assert_eq!(api.most_under_way(), 1);
}
