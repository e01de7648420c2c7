//! Measurements with which server and original differ on purpose: the whole list, each with what the server
//! makes of what the original sends.

use super::{Posted, Setting};
use serde_json::{Value, json};

/// Longest name the service takes.
const NAME_MAX: usize = 255;

/// The value of every tag `source` in the traffic.
const TAGGED_SOURCE: &str = "stat";

/// One of those that were taken.
pub(crate) struct Decision {
    /// `D1` to `D16`, or a word.
    pub(crate) number: &'static str,
    /// What the server does.
    #[allow(dead_code, reason = "for whoever reads the list")]
    pub(crate) why: &'static str,
    /// All that may stand in the place of something of theirs, nothing perhaps; empty where it does not
    /// apply. The second argument is all they posted of the flush, the third the list it is of.
    pub(crate) makes: fn(&Setting, &Posted, &str, &Value) -> Vec<Option<Value>>,
}

/// All of them that show in a measurement. D16, the order of names, is left out by comparing without order;
/// D5, the length of bodies that are not ASCII, and D9 of random names by the traffic.
pub(crate) const DECISIONS: &[Decision] = &[
    Decision {
        number: "D1",
        why: "a host that was written as a tag wins over the name of the machine",
        makes: |setting, _, list, theirs| {
            let written = &setting.librato["tags"]["host"];
            if list != "frame" || written.is_null() || !setting.librato["host"].is_null() {
                return Vec::new();
            }
            let mut frame = theirs.clone();
            frame["tags"]["host"] = written.clone();
            vec![Some(frame)]
        },
    },
    Decision {
        number: "D2",
        why: "sets are filtered as all other kinds",
        makes: |setting, _, _, theirs| {
            let single = theirs["value"].is_number();
            let nothing = single && !(setting.wanted)(name(theirs));
            nothing.then_some(None).into_iter().collect()
        },
    },
    Decision {
        number: "D3",
        why: "numStats counts what was sent",
        makes: |setting, posted, _, theirs| {
            let counted = setting.options["percentThreshold"] == json!([]);
            if !counted || !name(theirs).ends_with("numStats") || theirs["value"] != 0 {
                return Vec::new();
            }
            let mut ours = theirs.clone();
            // All but itself and what D2 is about: there are no percentiles and no bins then.
            let counted = posted.measurements.iter().map(name);
            let counted = counted.filter(|it| !it.ends_with("numStats") && (setting.wanted)(it));
            ours["value"] = json!(counted.count());
            vec![Some(ours)]
        },
    },
    Decision {
        number: "D8",
        why: "what the service refuses, and the whole post with it, is not sent",
        makes: |setting, _, list, theirs| {
            let fields = ["value", "sum", "min", "stddev_m2", "max"];
            let bad = |field: &&str| {
                let value = theirs.get(*field);
                value.is_some_and(|value| value.as_f64().is_none_or(|it| it.abs() >= 1e126))
            };
            let prefix = setting.librato["globalPrefix"].as_str();
            let prefix = prefix.map_or(String::new(), |prefix| format!("{prefix}."));
            let unnamed = name(theirs).strip_prefix(&prefix);
            let suffix = |rest: &str| suffixes(&setting.options).iter().any(|it| it == rest);
            let nameless =
                list != "frame" && unnamed.is_some_and(|rest| rest.is_empty() || suffix(rest));
            let negative = || theirs["value"].as_f64().is_some_and(|it| it < 0.0);
            let nothing = fields.iter().any(bad) || nameless || list == "counter" && negative();
            nothing.then_some(None).into_iter().collect()
        },
    },
    Decision {
        number: "D9",
        why: "every # begins tags, whatever the kind",
        makes: |_, _, _, theirs| {
            // So the traffic names them.
            if !name(theirs).contains("multi.") {
                return Vec::new();
            }
            let mut ours = theirs.clone();
            ours["tags"]["first"] = json!("1");
            vec![Some(ours)]
        },
    },
    Decision {
        number: "D10",
        why: "a bin belongs to the name, not to the last tag",
        makes: |setting, _, _, theirs| {
            let Some(tags) = theirs["tags"].as_object() else {
                return Vec::new();
            };
            let moved = tags.iter().filter_map(|(key, value)| {
                let (value, bin) = value.as_str()?.rsplit_once(".bin_")?;
                let mut ours = theirs.clone();
                ours["name"] = json!(format!("{}.bin_{bin}", name(theirs)));
                // A tag that is only a word has it twice.
                let word = key.strip_suffix(&format!(".bin_{bin}"));
                let tags = ours["tags"].as_object_mut().expect("it was one");
                tags.remove(key);
                if !value.is_empty() {
                    tags.insert(word.unwrap_or(key).into(), json!(value));
                }
                Some(Some(ours))
            });
            // And when the last tag is a source it is lost, as it is without a bin.
            let bins = suffixes(&setting.options).into_iter();
            let bins = bins.filter(|suffix| suffix.starts_with(".bin_"));
            let lost = bins.filter(|_| sourceless(setting, theirs)).map(|bin| {
                let mut ours = with_source(theirs);
                ours["name"] = json!(format!("{}{bin}", name(theirs)));
                Some(ours)
            });
            moved.chain(lost).collect()
        },
    },
    Decision {
        number: "source",
        why: "a source that was written as a tag is kept when no other is configured",
        makes: |setting, _, list, theirs| {
            let lost = list == "measurement" && sourceless(setting, theirs);
            lost.then(|| Some(with_source(theirs)))
                .into_iter()
                .collect()
        },
    },
    Decision {
        number: "long",
        why: "a name that is cut keeps what tells it from others: its percentile or bin",
        makes: |setting, _, _, theirs| {
            let name = name(theirs);
            if name.len() != NAME_MAX {
                return Vec::new();
            }
            let kept = suffixes(&setting.options).into_iter().map(|suffix| {
                let mut ours = theirs.clone();
                ours["name"] = json!(format!("{}{suffix}", &name[..NAME_MAX - suffix.len()]));
                Some(ours)
            });
            kept.collect()
        },
    },
];

fn name(item: &Value) -> &str {
    item["name"].as_str().unwrap_or_default()
}

/// Whether the original may have lost the source of a measurement.
fn sourceless(setting: &Setting, item: &Value) -> bool {
    setting.librato["source"].is_null() && item["tags"]["source"].is_null()
}

fn with_source(item: &Value) -> Value {
    let mut item = item.clone();
    item["tags"]["source"] = json!(TAGGED_SOURCE);
    item
}

/// What a name may end in.
fn suffixes(options: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let percentiles = match &options["percentThreshold"] {
        Value::Array(several) => several.clone(),
        Value::Null => vec![json!(90)],
        one => vec![one.clone()],
    };
    let percentiles = percentiles.iter().map(|it| format!(".{}", text(it)));
    let rules = options["histogram"].as_array().into_iter().flatten();
    let bins = rules.flat_map(|rule| rule["bins"].as_array().into_iter().flatten());
    let bins = bins.map(|bin| format!(".bin_{}", text(bin).replacen('.', "_", 1)));
    percentiles.chain([".100".to_owned()]).chain(bins).collect()
}
