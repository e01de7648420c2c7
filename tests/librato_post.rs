//! Posts to a Librato that refuses, hangs, resets or lies: what is delivered, what is tried again, what is
//! lost, and that nothing waits beyond its deadline.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod librato_api;

use librato_api::{
    Answer, FakeApi, Fault, HASTY, PATIENT, Request, Rules, batch, counts, error, kind, options,
    post,
};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use statsd_fast::deliver::librato::Options;
use statsd_fast::deliver::librato::batch::Batch;
use statsd_fast::deliver::librato::post::{Outcome, Service, check};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Posts one batch to an API with these faults in its way; with the outcome, every request it got.
fn meet(
    faults: impl IntoIterator<Item = Fault>,
    post_timeout: Duration,
) -> (Outcome, Vec<Request>) {
    let api = FakeApi::start(Rules::default());
    api.script(faults);
    let options = Options {
        post_timeout,
        ..options(api.url())
    };
    (post(&options, vec![batch("a")]), api.requests())
}

/// Decision D14 in README.
#[test]
fn a_batch_is_posted_as_the_service_wants_it() {
    let api = FakeApi::start(Rules::default());
    let outcome = post(&options(api.url()), vec![batch("a")]);
    assert_eq!(counts(&outcome), [1, 0, 0]);
    assert!(outcome.error.is_none() && outcome.retry_after.is_none());
    assert_eq!((outcome.refused, outcome.conflicts), (0, Vec::new()));
    let requests = api.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].method, "POST");
    assert_eq!(requests[0].path, "/v1/measurements");
    let mut headers = requests[0].headers.clone();
    headers.sort();
    let expected = [
        ("Authorization", "Basic dXNlckBleGFtcGxlLmNvbTp0b2sxMjM="),
        ("Connection", "close"),
        ("Content-Length", "58"),
        ("Content-Type", "application/json"),
        ("Host", &format!("127.0.0.1:{}", api.port())),
        (
            "User-Agent",
            concat!("statsd-fast/", env!("CARGO_PKG_VERSION")),
        ),
    ];
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    assert_eq!(headers, expected);
    assert_eq!(requests[0].body, batch("a").body);
    assert_eq!(api.stored()[0].name, "a");
}

/// Decision D15 in README.
#[test]
fn a_path_in_the_address_stands_before_the_route() {
    let rules = Rules {
        base: "/behind/a/prefix",
        ..Rules::default()
    };
    let api = FakeApi::start(rules);
    let options = options(&format!("{}/behind/a/prefix/?ignored", api.url()));
    assert_eq!(counts(&post(&options, vec![batch("a")])), [1, 0, 0]);
}

#[test]
fn nothing_to_post_is_no_request() {
    let outcome = post(&options("http://127.0.0.1:1"), Vec::new());
    assert_eq!(counts(&outcome), [0, 0, 0]);
    assert!(outcome.error.is_none());
}

#[test]
fn an_address_that_cannot_be_used_loses_everything_and_says_why() {
    let options = Options {
        proxy: Some("https://user:secret@proxy".into()),
        ..options("http://127.0.0.1:1")
    };
    let outcome = post(&options, vec![batch("a"), batch("b")]);
    assert_eq!(counts(&outcome), [0, 2, 0]);
    assert_eq!(kind(&outcome), ErrorKind::InvalidInput);
    let text = check(&options.api, options.proxy.as_deref()).expect_err("a reason");
    assert_eq!(error(&outcome), text);
    assert!(
        text.starts_with("`librato.proxy.uri`: ") && !text.contains("secret"),
        "{text}"
    );
    assert!(
        check("http://[::1]", None)
            .expect_err("a reason")
            .starts_with("`librato.api`: ")
    );
    assert_eq!(check("https://a.example", Some("http://b")), Ok(()));
}

/// Decision D6 in README.
#[test]
fn a_refusal_is_not_tried_again() {
    for (status, hint) in [
        (301, "redirections are not followed"),
        (400, "rules for names"),
        (401, "`librato.token`"),
        (403, "lacks a right"),
        (404, "`librato.api`"),
        (413, "`librato.batchSize`"),
        (415, "a proxy that changes headers"),
    ] {
        let (outcome, requests) = meet([Fault::Answer(Answer::text(status, "why not"))], PATIENT);
        assert_eq!(counts(&outcome), [0, 1, 1], "{status}");
        assert_eq!(requests.len(), 1, "{status}");
        let error = error(&outcome);
        assert!(
            error.contains(&format!("HTTP {status}: why not; ")),
            "{error}"
        );
        assert!(error.contains(hint), "{error}");
    }
}

#[test]
fn a_redirection_does_not_carry_the_credentials_away() {
    let elsewhere = FakeApi::start(Rules::default());
    for status in [301, 302, 303, 307, 308] {
        let answer = Answer::text(status, "").with("Location", elsewhere.url());
        let (outcome, _) = meet([Fault::Answer(answer)], PATIENT);
        assert_eq!(counts(&outcome), [0, 1, 1]);
        let error = error(&outcome);
        assert!(error.contains(elsewhere.url()), "{error}");
    }
    assert_eq!(elsewhere.requests().len(), 0);
}

/// Decision D4 in README.
#[test]
fn a_fault_of_the_service_is_tried_again_once_with_the_same_body() {
    for body in ["busy", ""] {
        let (outcome, requests) = meet([Fault::Answer(Answer::text(503, body))], PATIENT);
        assert_eq!(counts(&outcome), [1, 0, 1]);
        assert!(outcome.error.is_none());
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0].body, requests[1].body);
        assert_eq!(requests[0].path, requests[1].path);
    }
    let twice = [503, 500].map(|status| Fault::Answer(Answer::text(status, "busy")));
    let (outcome, requests) = meet(twice, PATIENT);
    assert_eq!(counts(&outcome), [0, 1, 2]);
    assert_eq!(requests.len(), 2);
    assert!(error(&outcome).contains("HTTP 500: busy; "), "{outcome:?}");
}

#[test]
fn a_broken_connection_is_tried_again_once() {
    let garbage = b"\x15\x03\x01\x00\x02\x02\x46".to_vec();
    let half = b"HTTP/1.1 2".to_vec();
    let first_line = b"HTTP/1.1 202 Accepted\r\n".to_vec();
    for fault in [
        Fault::Reset(Vec::new()),
        Fault::Reset(half.clone()),
        Fault::Raw(Vec::new()),
        Fault::Raw(garbage),
        Fault::Raw(half),
        Fault::Reset(first_line.clone()),
        Fault::Raw(first_line),
    ] {
        let (outcome, requests) = meet([fault.clone()], PATIENT);
        assert_eq!(counts(&outcome), [1, 0, 1], "{fault:?}: {outcome:?}");
        assert_eq!(requests.len(), 2);
        let (outcome, requests) = meet([fault.clone(), fault.clone()], PATIENT);
        assert_eq!(counts(&outcome), [0, 1, 2], "{fault:?}");
        assert_eq!(requests.len(), 2);
        let error = error(&outcome);
        assert!(
            error.contains("/v1/measurements: ") && error.contains("; "),
            "{error}"
        );
    }
}

#[test]
fn nobody_there_is_tried_again_and_named() {
    // A port of ours that does not listen.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a TCP socket");
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any_port.into()).expect("a free port");
    let address = socket.local_addr().expect("it is bound").as_socket();
    let address = address.expect("an IP address");
    let outcome = post(&options(&format!("http://{address}")), vec![batch("a")]);
    assert_eq!(counts(&outcome), [0, 1, 2]);
    assert_eq!(kind(&outcome), ErrorKind::ConnectionRefused);
    assert!(
        error(&outcome).contains("nothing listens there"),
        "{outcome:?}"
    );
    // Longer than a part of a name may be, so that nobody has to be asked.
    let nobody = format!("http://{}.invalid", "x".repeat(64));
    let outcome = post(&options(&nobody), vec![batch("a")]);
    assert_eq!(counts(&outcome), [0, 1, 2]);
    assert!(error(&outcome).contains("the resolver"), "{outcome:?}");
}

/// Decision D4 in README.
#[test]
fn a_server_that_hangs_is_left_at_the_deadline() {
    for said in [
        "",
        "HTTP/1.1 202 Acc",
        "HTTP/1.1 202 Accepted\r\nContent-Le",
    ] {
        let api = FakeApi::start(Rules::default());
        let hang = || Fault::Hang(said.as_bytes().to_vec());
        api.script([hang(), hang()]);
        let options = Options {
            post_timeout: HASTY,
            ..options(api.url())
        };
        let outcome = post(&options, vec![batch("a")]);
        assert_eq!(counts(&outcome), [0, 1, 2], "{said:?}");
        assert_eq!(kind(&outcome), ErrorKind::TimedOut);
        assert!(
            error(&outcome).contains("`librato.postTimeoutSecs`"),
            "{outcome:?}"
        );
        // Both connections are closed, not only forgotten.
        api.wait_for_left(2);
    }
}

#[test]
fn a_status_counts_even_if_its_body_does_not_come() {
    let said = "HTTP/1.1 202 Accepted\r\nContent-Length: 10\r\n\r\n{";
    let (outcome, requests) = meet([Fault::Hang(said.into())], HASTY);
    assert_eq!(counts(&outcome), [1, 0, 0]);
    assert_eq!(requests.len(), 1);
    let (outcome, _) = meet([Fault::Raw(said.into())], PATIENT);
    assert_eq!(counts(&outcome), [1, 0, 0]);
}

#[test]
fn an_answer_without_end_is_not_read() {
    let endless = |head: &str, more: &str| {
        let mut said = head.as_bytes().to_vec();
        said.extend(more.repeat(8 * 1024 * 1024 / more.len()).bytes());
        Fault::Raw(said)
    };
    let body = endless("HTTP/1.1 202 Accepted\r\n\r\n", "x");
    assert_eq!(counts(&meet([body], PATIENT).0), [1, 0, 0]);
    let length = "HTTP/1.1 401 No\r\nContent-Length: 18446744073709551615\r\n\r\n";
    let (outcome, _) = meet([endless(length, "x")], PATIENT);
    assert_eq!(counts(&outcome), [0, 1, 1]);
    assert!(error(&outcome).len() < 1000, "{outcome:?}");
    let fault = endless("", "x");
    let (outcome, _) = meet([fault.clone(), fault], PATIENT);
    assert_eq!(counts(&outcome), [0, 1, 2]);
    for fault in [
        endless("HTTP/1.1 202 Accepted\r\n", "x: y\r\n"),
        endless("HTTP/1.1 202 Accepted\r\nx: ", "y"),
    ] {
        // The client refuses the head; the status decides.
        let (outcome, requests) = meet([fault.clone(), fault], PATIENT);
        assert_eq!((counts(&outcome), requests.len()), ([1, 0, 0], 1));
    }
}

#[test]
fn an_answer_that_the_client_cannot_bear_is_an_error() {
    // A header that just fits, with its end of line, makes minreq miscount.
    let fits = format!("HTTP/1.1 202 Accepted\r\nx: {}\r\n\r\n", "y".repeat(8188));
    let strange = [
        fits.as_str(),
        "HTTP/1.1 202 Accepted\r\nContent-Length: many\r\n\r\n",
        "HTTP/1.1 99999 Accepted\r\n\r\n",
    ];
    for said in strange {
        let fault = Fault::Raw(said.into());
        let (outcome, requests) = meet([fault.clone(), fault], PATIENT);
        assert_eq!(outcome.delivered + outcome.lost, 1);
        assert_eq!(outcome.failed, requests.len() - outcome.delivered, "{said}");
    }
    let chunks = "HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwhy\r\nzz\r\n";
    let (outcome, _) = meet([Fault::Raw(chunks.into())], PATIENT);
    assert!(error(&outcome).contains("HTTP 400: why; "), "{outcome:?}");
}

#[test]
fn a_service_that_wants_a_rest_gets_it() {
    let api = FakeApi::start(Rules::default());
    let limit = || Fault::Answer(Answer::text(429, "slow down").with("Retry-After", 7));
    api.script([limit(), limit(), limit(), limit()]);
    let outcome = post(&options(api.url()), (0..9).map(|_| batch("a")).collect());
    // Only what was on its way already.
    let posted = api.requests().len();
    assert!((1..=4).contains(&posted), "{posted}");
    assert_eq!(counts(&outcome), [0, 9, posted]);
    assert_eq!(outcome.retry_after, Some(Duration::from_secs(7)));
    assert_eq!(kind(&outcome), ErrorKind::QuotaExceeded);
    assert!(error(&outcome).contains("`flushInterval`"), "{outcome:?}");

    let unbounded = Answer::text(429, "").with("Retry-After", u64::MAX);
    let (outcome, _) = meet([Fault::Answer(unbounded)], PATIENT);
    assert_eq!(outcome.retry_after, Some(Duration::from_secs(900)));
    let (outcome, requests) = meet([Fault::Answer(Answer::text(429, ""))], PATIENT);
    assert_eq!(outcome.retry_after, Some(Duration::from_secs(10)));
    assert_eq!(requests.len(), 1);
    // One no longer than the pause is taken there.
    let api = FakeApi::start(Rules::default());
    api.script((0..4).map(|_| Fault::Answer(Answer::text(503, "").with("Retry-After", 0))));
    let outcome = post(&options(api.url()), (0..9).map(|_| batch("a")).collect());
    assert_eq!((outcome.delivered, outcome.lost), (9, 0));
    let down = Answer::text(503, "").with("Retry-After", 60);
    let (outcome, requests) = meet([Fault::Answer(down)], PATIENT);
    assert_eq!(requests.len(), 1, "a rest longer than the pause");
    assert_eq!(outcome.retry_after, Some(Duration::from_secs(60)));
}

#[test]
fn who_waits_before_the_retry_may_cut_the_pause_but_not_the_rest() {
    let busy = Answer::text(503, "busy");
    let rests = busy.clone().with("Retry-After", 1);
    for (answer, rest) in [(busy, Duration::ZERO), (rests, Duration::from_secs(1))] {
        let api = FakeApi::start(Rules::default());
        api.script([Fault::Answer(answer)]);
        let options = Options {
            retry_delay: Duration::from_secs(3600),
            ..options(api.url())
        };
        let start = Instant::now();
        let mut pauses = Vec::new();
        let batches = vec![batch("a")];
        let outcome = Service::new(&options).post(batches, |pause| {
            pauses.push(pause);
            true
        });
        assert_eq!(counts(&outcome), [1, 0, 1]);
        assert_eq!(pauses, [options.retry_delay - rest]);
        assert!(start.elapsed() >= rest);
    }
}

/// What one meets twice, and whether the batch may be posted another time.
#[test]
fn only_what_surely_was_not_processed_is_left() {
    let answer = |status| Fault::Answer(Answer::text(status, ""));
    let reset = || Fault::Reset(b"HTTP/1.1 2".to_vec());
    let hang = || Fault::Hang(Vec::new());
    let at_once = |status| Fault::Answer(Answer::text(status, "").with("Retry-After", 0));
    for (faults, left) in [
        (vec![answer(503), answer(503)], 1),
        (vec![answer(429)], 1),
        (vec![answer(503), at_once(429)], 1),
        (vec![answer(500), answer(500)], 0),
        (vec![answer(502), answer(502)], 0),
        (vec![answer(504), answer(504)], 0),
        (vec![hang(), hang()], 0),
        (vec![reset(), reset()], 0),
        // The first attempt may be stored.
        (vec![reset(), answer(503)], 0),
        (vec![answer(503), reset()], 0),
        (vec![answer(400)], 0),
    ] {
        let hangs = matches!(faults[0], Fault::Hang(_));
        let posts = faults.len();
        let (outcome, _) = meet(faults.clone(), if hangs { HASTY } else { PATIENT });
        let told = (outcome.lost, outcome.left.len(), outcome.failed);
        assert_eq!(told, (1 - left, left, posts), "{faults:?}");
        let kept = vec![batch("a"); left];
        assert_eq!(outcome.left, kept, "{faults:?}");
        let doubtful = left == 0 && posts == 2;
        let says = error(&outcome).contains("may be stored, so it is not sent again");
        assert_eq!(says, doubtful, "{outcome:?}");
    }
    let api = options("http://127.0.0.1:1");
    let outcome = post(&api, vec![batch("a"), batch("b")]);
    assert_eq!(outcome.left, [batch("a"), batch("b")]);
}

#[test]
fn the_status_decides_over_an_answer_with_a_header_that_is_none() {
    let rest = b"Content-Length: 2\r\n\r\n{}";
    let latin = [b"HTTP/1.1 202 A\r\nX-Node: caf\xe9\r\n", &rest[..]].concat();
    let twice = b"HTTP/1.1 202 A\r\nContent-Length: 2, 2\r\n\r\n{}".to_vec();
    for said in [latin, twice] {
        let (outcome, requests) = meet([Fault::Raw(said)], PATIENT);
        assert_eq!((counts(&outcome), requests.len()), ([1, 0, 0], 1));
    }
    let refused = b"HTTP/1.1 401 No\r\nX-Node: caf\xe9\r\n\r\n".to_vec();
    let (outcome, requests) = meet([Fault::Raw(refused)], PATIENT);
    assert_eq!((counts(&outcome), requests.len()), ([0, 1, 1], 1));
    assert!(error(&outcome).contains("HTTP 401; "), "{outcome:?}");
}

#[test]
fn a_rest_is_kept_after_a_post_taken_in_part() {
    for failed in [0, 1] {
        let summary = json!({"summary": {"accepted": 1, "failed": failed}});
        let answer = Answer::json(429, &json!({"measurements": summary, "errors": [1]}));
        let limit = Fault::Answer(answer.with("Retry-After", 600));
        let (outcome, _) = meet([limit], PATIENT);
        assert_eq!((counts(&outcome), outcome.refused), ([1, 0, 0], failed));
        assert_eq!(outcome.retry_after, Some(Duration::from_secs(600)));
    }
}

#[test]
fn no_more_can_be_refused_than_was_sent() {
    let summary = json!({"measurements": {"summary": {"accepted": 1, "failed": u64::MAX}}});
    let (outcome, _) = meet([Fault::Answer(Answer::json(202, &summary))], PATIENT);
    assert_eq!((counts(&outcome), outcome.refused), ([1, 0, 0], 1));
}

#[test]
fn a_long_answer_is_read() {
    let mut listed = json!({"measurements": {"summary": {"accepted": 0, "failed": 1}}});
    listed["errors"] = json!(["x".repeat(500_000)]);
    let (outcome, _) = meet([Fault::Answer(Answer::json(202, &listed))], PATIENT);
    assert_eq!((counts(&outcome), outcome.refused), ([1, 0, 0], 1));
    // Up to a limit.
    listed["errors"] = json!(["x".repeat(1_100_000)]);
    let (outcome, _) = meet([Fault::Answer(Answer::json(202, &listed))], PATIENT);
    assert_eq!((counts(&outcome), outcome.refused), ([1, 0, 0], 0));
}

#[test]
fn only_names_that_were_sent_can_conflict() {
    let complaint = |name| format!("'{name}' is a GAUGE, but was submitted as different type");
    let names = ["tok123", "a", "other"].map(complaint);
    let body = json!({"errors": {"params": {"type": names}}});
    let (outcome, _) = meet([Fault::Answer(Answer::json(400, &body))], PATIENT);
    assert_eq!(outcome.conflicts, ["a"]);
}

#[test]
fn names_with_another_type_are_told() {
    let api = FakeApi::start(Rules::default());
    for name in ["bad", "worse"] {
        api.declare(name, "COUNTER");
    }
    let batches = ["worse", "good", "bad", "bad"].map(batch).to_vec();
    let outcome = post(&options(api.url()), batches);
    assert_eq!(counts(&outcome), [1, 3, 3]);
    assert_eq!(outcome.conflicts, ["bad", "worse"]);
    assert!(
        error(&outcome).contains("'worse' is a COUNTER"),
        "{outcome:?}"
    );
}

#[test]
fn a_refusal_that_is_no_json_is_read_as_far_as_it_goes() {
    // Each of them ends the reference.
    for body in ["", "null", "{\"errors\":"] {
        let answer = Answer {
            body: body.into(),
            ..Answer::json(400, &json!(null))
        };
        let (outcome, _) = meet([Fault::Answer(answer)], PATIENT);
        assert_eq!(counts(&outcome), [0, 1, 1]);
        assert_eq!(outcome.conflicts, [""; 0]);
    }
}

/// Decision D7 in README.
#[test]
fn a_post_taken_in_part_is_delivered_and_the_rest_is_counted() {
    let api = FakeApi::start(Rules::default());
    let item = |name: &str, tag: &str| json!({"name": name, "value": 1, "tags": {"a": tag}});
    let body = json!({"measurements": [item("a", "b"), item("b", "@"), item("c", "@")]});
    let batch_in_part = Batch {
        body: body.to_string().into_bytes(),
        measurements: 3,
        ..batch("a")
    };
    let outcome = post(&options(api.url()), vec![batch_in_part]);
    assert_eq!(counts(&outcome), [1, 0, 0]);
    assert_eq!(outcome.refused, 2);
    assert_eq!(api.stored().len(), 1);
    let listed = json!({"errors": [{"param": "name"}], "measurements": {"summary":
        {"total": 3, "accepted": 2, "failed": 1, "filtered": 0}}});
    let (outcome, _) = meet([Fault::Answer(Answer::json(202, &listed))], PATIENT);
    assert_eq!((counts(&outcome), outcome.refused), ([1, 0, 0], 1));
}

/// Decision D5 in README.
#[test]
fn bodies_are_measured_in_bytes_and_may_be_large() {
    let api = FakeApi::start(Rules {
        body_max: usize::MAX,
        ..Rules::default()
    });
    // Four bytes each, of which the reference counts two.
    let tag = "\u{1f980}".repeat(1024 * 1024);
    let body = json!({"measurements": [{"name": "a", "value": 1, "tags": {"a": tag}}]});
    let large = Batch {
        body: body.to_string().into_bytes(),
        ..batch("a")
    };
    let length = large.body.len();
    let outcome = post(&options(api.url()), vec![large]);
    let requests = api.requests();
    assert_eq!(requests[0].body.len(), length);
    assert_eq!(
        requests[0].header("content-length"),
        Some(&*length.to_string())
    );
    // It came through whole: it is JSON, and only the tag is refused.
    assert!(error(&outcome).contains("tag_value"), "{outcome:?}");
}

#[test]
fn a_server_may_answer_before_it_has_read_the_body() {
    let api = FakeApi::start(Rules::default());
    api.script([Fault::Early(Answer::text(413, "too large"))]);
    let large = Batch {
        body: vec![b' '; 8 * 1024 * 1024],
        ..batch("a")
    };
    let outcome = post(&options(api.url()), vec![large]);
    assert_eq!(counts(&outcome), [0, 1, 1]);
    assert!(
        error(&outcome).contains("HTTP 413: too large"),
        "{outcome:?}"
    );
}

#[test]
fn batches_go_out_four_at_a_time() {
    let api = FakeApi::start(Rules::default());
    api.script((0..4).map(|_| Fault::Hang(Vec::new())));
    let options = Options {
        post_timeout: Duration::from_secs(2),
        ..options(api.url())
    };
    let names: Vec<_> = (0..10).map(|at| format!("n{at}")).collect();
    let outcome = post(&options, names.iter().map(|name| batch(name)).collect());
    assert_eq!(counts(&outcome), [10, 0, 4]);
    assert_eq!(api.most_under_way(), 4);
    let mut stored: Vec<_> = api.stored().into_iter().map(|it| it.name).collect();
    stored.sort();
    assert_eq!(stored, names);
}

#[test]
fn the_token_does_not_come_back_in_an_error() {
    let api = FakeApi::start(Rules::default());
    let url = api.url().replace("http://", "http://someone:tok123@");
    for (echo, shown) in [
        ("tok123 and dXNlckBleGFtcGxlLmNvbTp0b2sxMjM=", "*** and ***"),
        (r"%74ok123 and \u0074ok123", "*** and ***"),
        // The end would be cut off.
        (&format!("{}tok123", "x".repeat(295)), "x***"),
    ] {
        api.script([Fault::Answer(Answer::text(401, echo))]);
        let outcome = post(&options(&url), vec![batch("a")]);
        let error = error(&outcome);
        assert!(error.contains(&format!("{shown}; ")), "{error}");
        let debug = format!("{outcome:?}");
        assert!(!debug.contains("tok12"), "{debug}");
    }
}
