//! What the service's answers mean.

use serde_json::Value;
use std::time::Duration;

/// The longest rest a service can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(15 * 60);

/// The rest of a service that is over its rate limit and does not say for how long.
const RETRY_AFTER_UNSAID: Duration = Duration::from_secs(10);

/// The longest name that the service can have been sent, in bytes.
const NAME_MAX: usize = 255;

/// How much of an answer gets into a message, in characters.
const QUOTED: usize = 300;

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reply {
    /// The status, three digits.
    pub(super) status: u16,
    /// Whether the body says it is JSON.
    pub(super) json: bool,
    /// As the header has it.
    pub(super) retry_after: Option<String>,
    /// Where a redirection leads.
    pub(super) location: Option<String>,
    /// The body, or its beginning.
    pub(super) body: Vec<u8>,
    /// Whether there was more of the body than is read.
    pub(super) cut: bool,
}

/// How many measurements of a post were taken and how many were not, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partial {
    /// Stored by the service.
    pub(super) accepted: usize,
    /// Refused by it.
    pub(super) failed: usize,
    /// The first reasons, as JSON.
    pub(super) reasons: String,
}

impl Reply {
    /// Whether everything was taken, or at least what [`Reply::partial`] says.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the same post may be taken later.
    pub(super) fn is_transient(&self) -> bool {
        (500..600).contains(&self.status)
    }

    /// Whether the service says that it did nothing with the post.
    pub(super) fn is_untouched(&self) -> bool {
        matches!(self.status, 429 | 503)
    }

    /// How long the service wants to be left alone, up to a quarter of an hour. Only seconds are understood;
    /// a date would need clocks that agree.
    pub(super) fn rest(&self) -> Option<Duration> {
        let seconds = || self.retry_after.as_ref()?.trim().parse().ok();
        let said = seconds().map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        match self.status {
            429 => said.or(Some(RETRY_AFTER_UNSAID)),
            500..600 => said,
            _ => None,
        }
    }

    /// The names that the service knows with another type; it refuses every post that has one of them. What
    /// cannot be a name is left out.
    pub(super) fn conflicts(&self) -> Vec<String> {
        let Some(body) = self.parsed().filter(|_| (400..500).contains(&self.status)) else {
            return Vec::new();
        };
        let complaints = body["errors"]["params"]["type"].as_array();
        let names = complaints.into_iter().flatten().filter_map(conflict);
        names.map(String::from).collect()
    }

    /// What the service says it refused of a post, when it says so, or that it took of one it complains
    /// about. `mask` takes out what must not be shown.
    pub(super) fn partial(&self, mask: impl Fn(&str) -> String) -> Option<Partial> {
        let body = self.parsed()?;
        let summary = &body["measurements"]["summary"];
        let count = |field: &str| summary[field].as_u64().map(|count| count as usize);
        let errors = body["errors"].as_array().map_or(&[][..], Vec::as_slice);
        let failed = count("failed").unwrap_or(errors.len());
        let accepted = count("accepted").unwrap_or(0);
        let whole = failed == 0 && (self.is_success() || accepted == 0);
        if whole || summary.is_null() && !self.is_success() {
            return None;
        }
        let few: Vec<_> = errors.iter().take(3).map(Value::to_string).collect();
        Some(Partial {
            accepted,
            failed,
            reasons: cut(&mask(&few.join(", "))),
        })
    }

    fn parsed(&self) -> Option<Value> {
        let json = self.json.then_some(&self.body)?;
        serde_json::from_slice(json).ok()
    }

    /// What to write into the log: the status, the beginning of the body, the likely cause. `mask` takes out
    /// what must not be shown: before the text is cut, since half a secret would not be found.
    pub(super) fn complaint(&self, mask: impl Fn(&str) -> String) -> String {
        let status = self.status;
        let body = String::from_utf8_lossy(&self.body);
        let body = match (&self.location, body.trim()) {
            (Some(location), _) if (300..400).contains(&status) => {
                format!(": a redirection to {}", cut(&mask(location)))
            }
            (_, "") => String::new(),
            (_, body) => format!(": {}", cut(&mask(body))),
        };
        format!("HTTP {status}{body}; {}", hint(status))
    }
}

fn conflict(complaint: &Value) -> Option<&str> {
    let (name, rest) = complaint
        .as_str()?
        .strip_prefix('\'')?
        .split_once("' is a ")?;
    let (kind, _) = rest.split_once(", but was submitted as different type")?;
    let is_word = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_word && (1..=NAME_MAX).contains(&name.len())).then_some(name)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into(),
    }
}

/// The likely cause of a status that is no success, and the way out.
fn hint(status: u16) -> &'static str {
    match status {
        300..400 => "redirections are not followed; set `librato.api` to where it leads",
        400 => "what is named there was refused; see the rules for names and tags",
        401 => "correct `librato.email` and `librato.token`",
        403 => "the account lacks a right, for tags say, or is over its limit; ask whoever runs it",
        404 | 405 => "likely cause: not the API there; correct `librato.api`",
        407 => "correct the user and password in `librato.proxy.uri`",
        413 => "a smaller `librato.batchSize` makes smaller posts",
        415 => "likely cause: a proxy that changes headers, or not the API there",
        429 => {
            "over the service's rate limit; a longer `flushInterval` or fewer names stay below it"
        }
        500..600 => "the service has a problem; see there if that goes on",
        _ => "likely cause: not the API there; correct `librato.api`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status,
            json: true,
            body: body.into(),
            ..Reply::default()
        }
    }

    #[test]
    fn conflicts_are_read_from_a_refusal() {
        let body = r#"{"errors":{"params":{"type":[
            "'bad' is a COUNTER, but was submitted as different type",
            "'it''s' is a gauge, but was submitted as different type", "'' is a X, but was submitted as
             different type", "'no' is a , but was submitted as different type", "none", 7, null]}}}"#
            .replace("as\n             different", "as different");
        assert_eq!(reply(400, &body).conflicts(), ["bad", "it''s"]);
        assert_eq!(reply(202, &body).conflicts(), [""; 0]);
        assert_eq!(reply(503, &body).conflicts(), [""; 0]);
        let text = Reply {
            json: false,
            ..reply(400, &body)
        };
        assert_eq!(text.conflicts(), [""; 0]);
    }

    #[test]
    fn what_cannot_be_a_name_does_not_conflict() {
        let complaint = |length| {
            let name = "x".repeat(length);
            let text = format!("'{name}' is a GAUGE, but was submitted as different type");
            serde_json::json!({"errors": {"params": {"type": [text]}}}).to_string()
        };
        assert_eq!(reply(400, &complaint(255)).conflicts(), ["x".repeat(255)]);
        assert_eq!(reply(400, &complaint(256)).conflicts(), [""; 0]);
    }

    #[test]
    fn what_is_hidden_is_hidden_before_the_rest_is_cut() {
        let mask = |text: &str| text.replace("secret", "***");
        let long = format!("{}secret", "x".repeat(QUOTED - 3));
        let complaint = reply(400, &long).complaint(mask);
        assert!(complaint.contains("x***;"), "{complaint}");
        let moved = Reply {
            location: Some(long.clone()),
            ..reply(301, "")
        };
        let complaint = moved.complaint(mask);
        assert!(complaint.contains("x***;"), "{complaint}");
        let listed = serde_json::json!({"errors": ["x".repeat(QUOTED - 4) + "secret"]});
        let partial = reply(202, &listed.to_string()).partial(mask);
        let reasons = partial.expect("a failure").reasons;
        assert!(reasons.ends_with("x***..."), "{reasons}");
    }

    #[test]
    fn a_refusal_of_any_shape_is_read() {
        // The first three end the reference.
        for body in ["", "null", "{\"errors\":", "[]", "7", "{\"errors\":null}"] {
            assert_eq!(reply(400, body).conflicts(), [""; 0], "{body}");
            assert_eq!(reply(400, body).partial(str::to_owned), None, "{body}");
        }
        let strings = r#"{"errors":["Tag based measurements are not enabled"]}"#;
        assert_eq!(reply(403, strings).conflicts(), [""; 0]);
        assert_eq!(reply(403, strings).partial(str::to_owned), None);
    }

    #[test]
    fn partial_failures_are_counted() {
        let summary = r#"{"measurements":{"summary":{"total":174,"accepted":78,"failed":96,"filtered":0}},
            "errors":[{"param":"tag_value","value":"a@b","reason":"Invalid format"}]}"#;
        let expected = Partial {
            accepted: 78,
            failed: 96,
            reasons: r#"{"param":"tag_value","value":"a@b","reason":"Invalid format"}"#.into(),
        };
        assert_eq!(
            reply(400, summary).partial(str::to_owned),
            Some(expected.clone())
        );
        assert_eq!(reply(202, summary).partial(str::to_owned), Some(expected));
        let listed = reply(202, r#"{"errors":[1,2,3,4]}"#).partial(str::to_owned);
        let listed = listed.expect("a failure");
        assert_eq!((listed.accepted, listed.failed), (0, 4));
        assert_eq!(listed.reasons, "1, 2, 3");
        let clean =
            r#"{"measurements":{"summary":{"total":1,"accepted":1,"failed":0,"filtered":0}}}"#;
        assert_eq!(reply(202, clean).partial(str::to_owned), None);
        let taken = reply(429, clean).partial(str::to_owned);
        let taken = taken.expect("it must not be sent again");
        assert_eq!((taken.accepted, taken.failed), (1, 0));
    }

    #[test]
    fn rests_are_bounded() {
        let rest = |text: &str| {
            let retry_after = Some(text.to_owned());
            Reply {
                retry_after,
                ..reply(429, "")
            }
            .rest()
        };
        assert_eq!(rest("7"), Some(Duration::from_secs(7)));
        assert_eq!(rest(" 0 "), Some(Duration::ZERO));
        assert_eq!(rest("99999999999"), Some(RETRY_AFTER_MAX));
        for unreadable in ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", ""] {
            assert_eq!(rest(unreadable), Some(RETRY_AFTER_UNSAID), "{unreadable}");
        }
        assert_eq!(reply(429, "").rest(), Some(RETRY_AFTER_UNSAID));
        assert_eq!(reply(503, "").rest(), None);
        let taken = Reply {
            retry_after: Some("7".into()),
            ..reply(202, "")
        };
        assert_eq!(taken.rest(), None);
    }

    #[test]
    fn complaints_are_short_and_name_a_way_out() {
        let long = reply(401, &"\u{e9}".repeat(1000)).complaint(str::to_owned);
        assert!(long.starts_with("HTTP 401: \u{e9}"), "{long}");
        assert!(
            long.contains("\u{e9}...; correct `librato.email`"),
            "{long}"
        );
        assert!(long.chars().count() < 400, "{long}");
        let moved = Reply {
            location: Some("https://b/".into()),
            ..reply(301, "moved")
        };
        let moved = moved.complaint(str::to_owned);
        assert!(moved.contains("a redirection to https://b/; "), "{moved}");
        assert!(
            reply(503, "")
                .complaint(str::to_owned)
                .starts_with("HTTP 503; ")
        );
    }
}
