//! A value -> JSON, which read as a configuration is that value again.
//!
//! What JSON lacks: a member that is undefined is left out; in a list it becomes null. NaN becomes null.
//! An infinity becomes 1e999, which every reader of doubles takes for it. A regular expression becomes
//! its text.

use super::coerce;
use super::value::Value;

/// The value, two blanks a level. Numbers are as JavaScript prints them, but for the sign of -0, which
/// it drops.
pub(super) fn text(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, &mut out);
    out
}

fn write(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Undefined | Value::Null => out.push_str("null"),
        Value::Number(number) => out.push_str(&number_text(*number)),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::String(text) => quoted(text, out),
        Value::Regex { .. } => quoted(&coerce::string(value), out),
        Value::List(nodes) => {
            bracketed(['[', ']'], nodes.iter(), depth, out, |node, out| {
                write(&node.value, depth + 1, out);
            });
        }
        Value::Map(entries) => {
            let written = entries
                .iter()
                .filter(|entry| entry.node.value != Value::Undefined);
            bracketed(['{', '}'], written, depth, out, |entry, out| {
                quoted(&entry.key, out);
                out.push_str(": ");
                write(&entry.node.value, depth + 1, out);
            });
        }
    }
}

fn bracketed<T>(
    brackets: [char; 2],
    items: impl Iterator<Item = T>,
    depth: usize,
    out: &mut String,
    write_one: impl Fn(T, &mut String),
) {
    out.push(brackets[0]);
    let mut any = false;
    for item in items {
        out.push_str(if any { ",\n" } else { "\n" });
        out.push_str(&"  ".repeat(depth + 1));
        write_one(item, out);
        any = true;
    }
    if any {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    }
    out.push(brackets[1]);
}

fn quoted(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn number_text(number: f64) -> String {
    if number.is_nan() {
        "null".into()
    } else if number == 0.0 && number.is_sign_negative() {
        "-0".into()
    } else if number.is_infinite() {
        if number > 0.0 { "1e999" } else { "-1e999" }.into()
    } else {
        coerce::number_text(number)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Place;
    use super::super::environment::Environment;
    use super::super::javascript;
    use super::super::value::{Entry, Node};
    use super::*;
    use proptest::prelude::*;

    const PLACE: Place = Place { line: 1, column: 1 };

    fn parse(text: &str) -> Value {
        let tree = javascript::parse(text, &Environment::default());
        tree.unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
            .root
            .value
    }

    /// The value with all places the same and nothing in it that is left out.
    fn placeless(value: Value) -> Value {
        let node = |node: Node| Node {
            value: placeless(node.value),
            place: PLACE,
        };
        match value {
            Value::List(nodes) => Value::List(nodes.into_iter().map(node).collect()),
            Value::Map(entries) => {
                let written = entries
                    .into_iter()
                    .filter(|entry| entry.node.value != Value::Undefined);
                let entries = written.map(|entry| Entry {
                    key: entry.key,
                    place: PLACE,
                    node: node(entry.node),
                });
                Value::Map(entries.collect())
            }
            value => value,
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<f64>()
                .prop_filter("a number", |number| !number.is_nan())
                .prop_map(Value::Number),
            Just(Value::Number(f64::INFINITY)),
            (-1000..1000i32).prop_map(|number| Value::Number(number.into())),
            any::<String>().prop_map(Value::String),
        ];
        let node = |value| Node {
            value,
            place: PLACE,
        };
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let list = proptest::collection::vec(inner.clone().prop_map(node), 0..6);
            let member = prop_oneof![3 => inner, 1 => Just(Value::Undefined)];
            let map = proptest::collection::btree_map(any::<String>(), member, 0..6);
            prop_oneof![
                list.prop_map(Value::List),
                map.prop_map(move |map| {
                    let entries = map.into_iter().filter(|(key, _)| key != "__proto__").map(
                        |(key, value)| Entry {
                            key,
                            place: PLACE,
                            node: node(value),
                        },
                    );
                    Value::Map(entries.collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_as_the_same(value in values()) {
            let json = text(&value);
            let again = placeless(parse(&json));
            // A zero keeps its sign, which == does not see.
            prop_assert_eq!(text(&again), json.as_str());
            prop_assert_eq!(again, placeless(value));
            if !json.contains("1e999") {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{}", json);
            }
        }
    }

    #[test]
    fn the_layout_is_that_of_javascript() {
        let value = parse(
            "{b: [1, 0.1, 1e21, 1e-7, -0, NaN, undefined, -1/0], a: undefined, 'c\\n': {}, d: [],
              e: {f: /a\\/b/gi, g: 'ü\\u0007'}}",
        );
        let want = r#"{
  "b": [
    1,
    0.1,
    1e+21,
    1e-7,
    -0,
    null,
    null,
    -1e999
  ],
  "c\n": {},
  "d": [],
  "e": {
    "f": "/a\\/b/gi",
    "g": "ü\u0007"
  }
}"#;
        assert_eq!(text(&value), want);
    }
}
