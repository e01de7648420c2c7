//! A value -> JSON, which read as a configuration is that value again.
//!
//! What JSON lacks: a member that is undefined is left out; in a list it becomes null. NaN becomes null.
//! An infinity becomes 1e999, which every reader of doubles takes for it. A regular expression becomes
//! a text that means the same, its flags inside. What is secret is not shown.

use super::coerce;
use super::secret;
use super::value::Value;
use crate::deliver::librato::pattern::Pattern;

/// A value in JSON, and in what it is not that value.
#[derive(Debug, Default)]
pub(super) struct Json {
    /// Two blanks a level. Numbers are as JavaScript prints them, but for the sign of -0, which it drops.
    pub(super) text: String,
    /// Keys whose values are hidden, dotted, in the order written.
    pub(super) hidden: Vec<String>,
    /// Keys of regular expressions whose flags no text can have.
    pub(super) flagless: Vec<String>,
}

/// Writes the value of a whole file.
pub(super) fn json(value: &Value) -> Json {
    let mut json = Json::default();
    json.write(value, "", 0);
    json
}

impl Json {
    fn write(&mut self, value: &Value, path: &str, depth: usize) {
        match value {
            Value::Undefined | Value::Null => self.text.push_str("null"),
            Value::Number(number) => self.text.push_str(&number_text(*number)),
            Value::Bool(flag) => self.text.push_str(if *flag { "true" } else { "false" }),
            Value::String(text) => {
                let shown = secret::without_credentials(text);
                if shown.is_some() {
                    self.hidden.push(path.into());
                }
                self.quoted(shown.as_deref().unwrap_or(text));
            }
            Value::Regex { source, flags } => match Pattern::without_flags(source, flags) {
                Some(text) => self.quoted(&text),
                None => {
                    self.flagless.push(path.into());
                    self.quoted(&coerce::string(value));
                }
            },
            Value::List(nodes) => {
                self.bracketed(
                    ['[', ']'],
                    nodes.iter().enumerate(),
                    depth,
                    |json, (at, node)| {
                        json.write(&node.value, &format!("{path}[{at}]"), depth + 1);
                    },
                );
            }
            Value::Map(entries) => {
                let written = entries
                    .iter()
                    .filter(|entry| entry.node.value != Value::Undefined);
                self.bracketed(['{', '}'], written, depth, |json, entry| {
                    json.quoted(&entry.key);
                    json.text.push_str(": ");
                    let dot = if path.is_empty() { "" } else { "." };
                    let path = format!("{path}{dot}{}", entry.key);
                    let value = &entry.node.value;
                    match secret::in_place_of(&entry.key, value) {
                        Some(shown) => {
                            json.hidden.push(path);
                            json.quoted(&shown);
                        }
                        None => json.write(value, &path, depth + 1),
                    }
                });
            }
        }
    }

    fn bracketed<T>(
        &mut self,
        brackets: [char; 2],
        items: impl Iterator<Item = T>,
        depth: usize,
        write_one: impl Fn(&mut Self, T),
    ) {
        self.text.push(brackets[0]);
        let mut any = false;
        for item in items {
            self.text.push_str(if any { ",\n" } else { "\n" });
            self.text.push_str(&"  ".repeat(depth + 1));
            write_one(self, item);
            any = true;
        }
        if any {
            self.text.push('\n');
            self.text.push_str(&"  ".repeat(depth));
        }
        self.text.push(brackets[1]);
    }

    fn quoted(&mut self, text: &str) {
        self.text
            .push_str(&serde_json::Value::from(text).to_string());
    }
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
            let json = json(&value).text;
            let again = placeless(parse(&json));
            // A zero keeps its sign, which == does not see.
            prop_assert_eq!(super::json(&again).text, json.as_str());
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
    "f": "(?i:a\\/b)",
    "g": "ü\u0007"
  }
}"#;
        let json = json(&value);
        assert_eq!(json.text, want);
        assert!(
            json.hidden.is_empty() && json.flagless.is_empty(),
            "{json:?}"
        );
    }

    #[test]
    fn what_is_secret_is_hidden_and_what_flags_say_is_not_lost_in_silence() {
        let value = parse(
            r"{librato: {email: 'e', token: 'hush', proxy: {uri: 'http://me:hu@sh@host:1/p@q'},
                         includeMetrics: [/a/g, /\p{L}/iu], api: 'https://host/a@b'},
               graphite: {token: ['hush'], x: 'see http://hush@host', y: ['http://hush@host']}, token: '',
               'librato.token': 'hush', Librato: {TOKEN: 'hush'}}",
        );
        let json = json(&value);
        assert!(!json.text.contains("hu"), "{}", json.text);
        for line in [
            r#""token": "********","#,
            r#""uri": "http://********@host:1/p@q""#,
            r#""api": "https://host/a@b""#,
            r#""x": "see http://********@host""#,
            r#""token": """#,
            r#""/a/","#,
            r#""/\\p{L}/iu""#,
        ] {
            assert!(json.text.contains(line), "{line} in {}", json.text);
        }
        assert_eq!(
            json.hidden,
            [
                "librato.token",
                "librato.proxy.uri",
                "graphite.token",
                "graphite.x",
                "graphite.y[0]",
                "librato.token",
                "Librato.TOKEN",
            ]
        );
        assert_eq!(json.flagless, ["librato.includeMetrics[1]"]);
        let again = parse(&json.text);
        assert_eq!(
            super::json(&again).text,
            json.text,
            "hidden once is hidden for ever"
        );
    }
}
