//! Measurements -> the bodies of posts, so many to each, and not much more than a megabyte.

use super::summary::Summary;
use crate::deliver::number;

/// Where measurements with tags go.
const MEASUREMENTS: &str = "/v1/measurements";
/// Where those without go.
const METRICS: &str = "/v1/metrics";

/// A body that has come to so many bytes is closed. The service refuses those above 3 MB.
const BODY_FULL: usize = 1_000_000;

/// One post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Path at the service, without what `api` has before it.
    pub path: &'static str,
    /// JSON, in UTF-8.
    pub body: Vec<u8>,
    /// How many measurements are in it.
    pub measurements: usize,
}

/// What a measurement tells.
#[derive(Debug, Clone, Copy)]
pub(super) enum Told {
    /// A single value.
    Value(f64),
    /// A running total: in the old way of sending it is no gauge.
    Total(f64),
    /// A complex gauge.
    Summary(Summary),
    /// A single value with a time of its own, in Unix seconds.
    Stamped(f64, i64),
}

impl Told {
    /// Whether the service takes such numbers: one it does not take costs the whole post.
    pub(super) fn is_taken(&self) -> bool {
        const BEYOND: f64 = 1e126;
        // NaN is not below it.
        let taken = |value: f64| value.abs() < BEYOND;
        match self {
            Self::Value(value) | Self::Total(value) | Self::Stamped(value, _) => taken(*value),
            // A count is a sum of weights, and may be as large as any.
            Self::Summary(it) => [it.count, it.sum, it.min, it.deviation, it.max]
                .into_iter()
                .all(taken),
        }
    }

    /// Appends its members.
    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Value(value) | Self::Total(value) | Self::Stamped(value, _) => {
                member(out, b",\"value\":", *value);
            }
            Self::Summary(summary) => {
                member(out, b",\"count\":", summary.count);
                member(out, b",\"sum\":", summary.sum);
                member(out, b",\"min\":", summary.min);
                member(out, b",\"stddev_m2\":", summary.deviation);
                member(out, b",\"max\":", summary.max);
            }
        }
    }
}

/// Appends a member. Its name has a length known here, or copying the few bytes would be a call.
#[inline]
fn member<const N: usize>(out: &mut Vec<u8>, name: &[u8; N], value: f64) {
    out.extend_from_slice(name);
    number::write(out, value);
}

/// Appends a measurement, but for its tags or source and its end.
#[inline]
fn item(out: &mut Vec<u8>, first: bool, name: &[u8], told: &Told) {
    if !first {
        out.push(b',');
    }
    out.extend_from_slice(b"{\"name\":\"");
    out.extend_from_slice(name);
    out.push(b'"');
    told.write(out);
}

/// Collects measurements of one moment.
#[derive(Debug)]
pub(super) struct Batches {
    /// Everything before the measurements.
    head: Vec<u8>,
    limit: usize,
    time: i64,
    body: Vec<u8>,
    count: usize,
    /// For the old way, when it is wanted too.
    legacy: Option<Legacy>,
    done: Vec<Batch>,
}

#[derive(Debug, Default)]
struct Legacy {
    gauges: Vec<u8>,
    counters: Vec<u8>,
    count: usize,
}

impl Batches {
    /// Of this many measurements at most, for a time in Unix seconds; `tags` is an object.
    pub(super) fn new(time: i64, tags: &[u8], limit: usize, legacy: bool) -> Self {
        let mut head = format!("{{\"time\":{time},\"tags\":").into_bytes();
        head.extend_from_slice(tags);
        head.extend_from_slice(b",\"measurements\":[");
        Self {
            body: head.clone(),
            head,
            limit: limit.max(1),
            time,
            count: 0,
            legacy: legacy.then(Legacy::default),
            done: Vec::new(),
        }
    }

    /// Appends a measurement. The name is clean, `tags` is an object, `source` a text in quotes. Whether
    /// all of it could be: the old way takes no total below zero, and refuses all that come with it.
    pub(super) fn push(
        &mut self,
        name: &[u8],
        told: &Told,
        tags: &[u8],
        source: Option<&[u8]>,
    ) -> bool {
        item(&mut self.body, self.count == 0, name, told);
        if let Told::Stamped(_, at) = told {
            self.body
                .extend_from_slice(format!(",\"time\":{at}").as_bytes());
        }
        if tags == b"{}" {
            self.body.extend_from_slice(b",\"tags\":{}}");
        } else {
            self.body.extend_from_slice(b",\"tags\":");
            self.body.extend_from_slice(tags);
            self.body.push(b'}');
        }
        self.count += 1;
        let mut all = true;
        if let Some(legacy) = &mut self.legacy {
            let list = match told {
                Told::Total(total) if *total < 0.0 => None,
                Told::Total(_) => Some(&mut legacy.counters),
                _ => Some(&mut legacy.gauges),
            };
            all = list.is_some();
            if let Some(list) = list {
                item(list, list.is_empty(), name, told);
                if let Told::Stamped(_, at) = told {
                    list.extend_from_slice(format!(",\"measure_time\":{at}").as_bytes());
                }
                if let Some(source) = source {
                    list.extend_from_slice(b",\"source\":");
                    list.extend_from_slice(source);
                }
                list.push(b'}');
                legacy.count += 1;
            }
        }
        let legacy = self.legacy.as_ref();
        let legacy = legacy.map_or(0, |legacy| legacy.gauges.len() + legacy.counters.len());
        if self.count == self.limit || self.body.len().max(legacy) >= BODY_FULL {
            self.close();
        }
        all
    }

    /// The posts; none when there was no measurement.
    pub(super) fn finish(mut self) -> Vec<Batch> {
        self.part();
        self.done
    }

    /// What follows goes into another post.
    pub(super) fn part(&mut self) {
        if self.count > 0 {
            self.close();
        }
    }

    fn close(&mut self) {
        // The next one will be as long as this.
        let mut next = Vec::with_capacity(self.body.len() + self.body.len() / 8);
        next.extend_from_slice(&self.head);
        let mut body = std::mem::replace(&mut self.body, next);
        body.extend_from_slice(b"]}");
        self.done.push(Batch {
            path: MEASUREMENTS,
            body,
            measurements: std::mem::take(&mut self.count),
        });
        if let Some(legacy) = &mut self.legacy
            && legacy.count > 0
        {
            let Legacy {
                gauges,
                counters,
                count,
            } = std::mem::take(legacy);
            let end = format!("],\"measure_time\":{}}}", self.time).into_bytes();
            self.done.push(Batch {
                path: METRICS,
                body: [
                    &b"{\"gauges\":["[..],
                    &gauges,
                    b"],\"counters\":[",
                    &counters,
                    &end,
                ]
                .concat(),
                measurements: count,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(batches: Vec<Batch>) -> Vec<(&'static str, usize, String)> {
        let text = |batch: Batch| {
            let body = String::from_utf8(batch.body).expect("text");
            (batch.path, batch.measurements, body)
        };
        batches.into_iter().map(text).collect()
    }

    #[test]
    fn a_post_ends_at_the_limit_and_an_exact_multiple_leaves_none() {
        let posts = |measurements: usize, limit| {
            let mut batches = Batches::new(7, b"{}", limit, false);
            for _ in 0..measurements {
                batches.push(b"a", &Told::Value(1.0), b"{}", None);
            }
            let posts = batches.finish();
            posts
                .iter()
                .map(|post| post.measurements)
                .collect::<Vec<_>>()
        };
        assert_eq!(posts(0, 2), [0; 0]);
        assert_eq!(posts(1203, 500), [500, 500, 203]);
        assert_eq!(posts(500, 500), [500]);
    }

    #[test]
    fn a_post_ends_when_its_body_is_long_in_either_way() {
        let long = |of_tags: usize, of_source: usize| {
            let tags = format!("{{\"a\":\"{}\"}}", "x".repeat(of_tags));
            let source = format!("\"{}\"", "x".repeat(of_source));
            let mut batches = Batches::new(7, b"{}", usize::MAX, true);
            for _ in 0..150 {
                batches.push(
                    b"a",
                    &Told::Value(1.0),
                    tags.as_bytes(),
                    Some(source.as_bytes()),
                );
            }
            let posts = batches.finish();
            let longest = posts.iter().map(|post| post.body.len()).max();
            assert!(longest < Some(BODY_FULL + 20_000 + 200), "{longest:?}");
            let all: usize = posts.iter().map(|post| post.measurements).sum();
            assert_eq!(all, 300);
            posts.len()
        };
        assert_eq!(long(20_000, 10), 6);
        assert_eq!(long(10, 20_000), 6);
        assert_eq!(long(10, 10), 2);
    }

    #[test]
    fn the_old_way_follows_with_lists_of_its_own() {
        let mut batches = Batches::new(7, br#"{"host":"h"}"#, 3, true);
        let source = Some(&b"\"s\""[..]);
        assert!(batches.push(b"g", &Told::Value(-0.0), br#"{"a":"b"}"#, source));
        assert!(batches.push(b"c", &Told::Total(2.5), b"{}", source));
        let summary = Summary {
            count: 2.0,
            sum: 3.0,
            min: 1.0,
            deviation: 0.5,
            max: 2.0,
        };
        assert!(batches.push(b"t", &Told::Summary(summary), b"{}", None));
        assert!(!batches.push(b"n", &Told::Total(-1.0), b"{}", source));
        let expected = [
            (
                "/v1/measurements",
                3,
                r#"{"time":7,"tags":{"host":"h"},"measurements":[{"name":"g","value":0,"tags":{"a":"b"}},"#
                    .to_owned()
                    + r#"{"name":"c","value":2.5,"tags":{}},"#
                    + r#"{"name":"t","count":2,"sum":3,"min":1,"stddev_m2":0.5,"max":2,"tags":{}}]}"#,
            ),
            (
                "/v1/metrics",
                3,
                r#"{"gauges":[{"name":"g","value":0,"source":"s"},"#.to_owned()
                    + r#"{"name":"t","count":2,"sum":3,"min":1,"stddev_m2":0.5,"max":2}],"#
                    + r#""counters":[{"name":"c","value":2.5,"source":"s"}],"measure_time":7}"#,
            ),
            (
                "/v1/measurements",
                1,
                r#"{"time":7,"tags":{"host":"h"},"measurements":[{"name":"n","value":-1,"tags":{}}]}"#
                    .to_owned(),
            ),
        ];
        assert_eq!(bodies(batches.finish()), expected);
    }

    #[test]
    fn numbers_the_service_does_not_take_are_known() {
        for (value, taken) in [
            (1e125, true),
            (-1e126, false),
            (f64::NAN, false),
            (f64::INFINITY, false),
            (0.0, true),
        ] {
            assert_eq!(Told::Value(value).is_taken(), taken, "{value}");
            assert_eq!(Told::Total(value).is_taken(), taken, "{value}");
        }
        let summary = Summary {
            count: 1.0,
            sum: 0.0,
            min: 0.0,
            deviation: 0.0,
            max: 0.0,
        };
        assert!(Told::Summary(summary).is_taken());
        let deviation = f64::INFINITY;
        assert!(
            !Told::Summary(Summary {
                deviation,
                ..summary
            })
            .is_taken()
        );
        // Two zeros that were sampled at 1e-308.
        let count = f64::INFINITY;
        assert!(!Told::Summary(Summary { count, ..summary }).is_taken());
    }
}
