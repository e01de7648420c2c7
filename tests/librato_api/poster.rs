//! The one who posts: the backend's way out, without what comes before it.

use serde_json::json;
use statsd_fast::deliver::librato::Options;
use statsd_fast::deliver::librato::batch::Batch;
use statsd_fast::deliver::librato::post::{Outcome, Service};
use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

/// Long enough never to be reached on a machine that is busy.
pub(crate) const PATIENT: Duration = Duration::from_secs(60);
/// For posts that are meant to reach their deadline.
pub(crate) const HASTY: Duration = Duration::from_millis(400);

/// Those of the account that the API knows; one that fails is soon tried again.
pub(crate) fn options(api: &str) -> Options {
    Options {
        email: "user@example.com".into(),
        token: "tok123".into(),
        api: api.into(),
        proxy: None,
        post_timeout: PATIENT,
        retry_delay: Duration::from_millis(10),
        ..Options::default()
    }
}

/// One measurement.
pub(crate) fn batch(name: &str) -> Batch {
    let body = json!({"measurements": [{"name": name, "value": 1, "tags": {"a": "b"}}]});
    Batch {
        path: "/v1/measurements",
        body: body.to_string().into_bytes(),
        measurements: 1,
    }
}

/// Posts the batches of one flush.
pub(crate) fn post(options: &Options, batches: Vec<Batch>) -> Outcome {
    Service::new(options).post(batches, |pause| {
        thread::sleep(pause);
        true
    })
}

/// How many were delivered, how many were not (whether lost or left), and how many posts failed.
pub(crate) fn counts(outcome: &Outcome) -> [usize; 3] {
    [
        outcome.delivered,
        outcome.lost + outcome.left.len(),
        outcome.failed,
    ]
}

/// What was lost, why, and the way out.
pub(crate) fn error(outcome: &Outcome) -> String {
    outcome.error.as_ref().expect("an error").to_string()
}

/// What sort of error that is.
pub(crate) fn kind(outcome: &Outcome) -> ErrorKind {
    outcome.error.as_ref().expect("an error").kind()
}
