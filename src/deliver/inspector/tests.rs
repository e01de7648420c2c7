//! The printer against what Node.js printed, and against Node.js itself where there is one.

use super::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;
use std::io::Write;
use std::process::{Command, Stdio};

fn plain(value: Value<'_>) -> String {
    printed(value, Options::default())
}

#[test]
fn numbers_and_texts() {
    for (number, expected) in [
        (-0.0, "-0"),
        (0.0, "0"),
        (-1.5, "-1.5"),
        (1e21, "1e+21"),
        (1e-7, "1e-7"),
        (f64::NAN, "NaN"),
        (f64::NEG_INFINITY, "-Infinity"),
    ] {
        assert_eq!(plain(Value::Number(number)), expected);
    }
    for (text, expected) in [
        ("", "''"),
        ("it's", "\"it's\""),
        ("it's \"so\"", "`it's \"so\"`"),
        ("'\"`", "'\\'\"`'"),
        ("'\"${", "'\\'\"${'"),
        (
            "a\\b\tc\u{1b}[2J\u{7f}\u{9f}\u{0}",
            "'a\\\\b\\tc\\x1B[2J\\x7F\\x9F\\x00'",
        ),
        ("caf\u{e9} \u{fffd}", "'caf\u{e9} \u{fffd}'"),
    ] {
        assert_eq!(plain(Value::Text(text.into())), expected);
    }
    let long = "x".repeat(10_001);
    let shown = plain(Value::Text((&*long).into()));
    assert_eq!(shown, format!("'{}'... 1 more character", &long[..10_000]));
}

#[test]
fn keys_are_quoted_when_they_are_no_words() {
    let keys = ["a", "_b1", "c.d", "1e", "", "it's", "\u{e9}", "__proto__"];
    let object = Value::object(keys.iter().map(|key| (*key, Value::Number(1.0))));
    assert_eq!(
        plain(object),
        "{\n  a: 1,\n  _b1: 1,\n  'c.d': 1,\n  '1e': 1,\n  '': 1,\n  \"it's\": 1,\n  '\u{e9}': 1,\n  \
         ['__proto__']: 1\n}"
    );
}

#[test]
fn a_line_holds_what_fits_into_76_columns() {
    let object = |last: &'static str| {
        let entries = [("a", Value::Number(1.0)), (last, Value::Number(2.0))];
        plain(Value::object(entries.into_iter()))
    };
    let key = "k".repeat(59).leak();
    assert_eq!(object(&key[1..]), format!("{{ a: 1, {}: 2 }}", &key[1..]));
    assert_eq!(object(key), format!("{{\n  a: 1,\n  {key}: 2\n}}"));
    assert_eq!(plain(Value::object(std::iter::empty())), "{}");
    assert_eq!(plain(Value::numbers(&[])), "[]");
}

#[test]
fn long_lists_stand_in_columns_and_very_long_ones_end() {
    assert_eq!(
        plain(Value::numbers(&[1.0, 20.0, 3.0, 4.0, 5.0, 6.0])),
        "[ 1, 20, 3, 4, 5, 6 ]"
    );
    let many: Vec<f64> = (0..102).map(f64::from).collect();
    let shown = plain(Value::numbers(&many));
    let first = "[\n   0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11,\n  12, ";
    assert!(shown.starts_with(first), "{shown}");
    assert!(
        shown.ends_with("96, 97, 98, 99,\n  ... 2 more items\n]"),
        "{shown}"
    );
    let texts = ["a", "bb", "ccc", "d", "e", "f", "g"].map(|text| Value::Text(text.into()));
    assert_eq!(
        plain(Value::list(texts.into_iter())),
        "[\n  'a', 'bb', 'ccc',\n  'd', 'e',  'f',\n  'g'\n]"
    );
}

#[test]
fn what_lies_too_deep_is_omitted_unless_it_is_empty() {
    let nested = |depth: usize| {
        (0..depth).fold(Value::numbers(&[1.0]), |value, _| {
            Value::object([("a", value), ("b", Value::numbers(&[]))].into_iter())
        })
    };
    assert_eq!(plain(nested(2)), "{ a: { a: [ 1 ], b: [] }, b: [] }");
    assert_eq!(
        plain(nested(3)),
        "{ a: { a: { a: [Array], b: [] }, b: [] }, b: [] }"
    );
    // Four levels are one too many for a line.
    let deep = Options {
        depth: 3,
        ..Options::default()
    };
    assert_eq!(
        printed(nested(3), deep),
        "{\n  a: { a: { a: [ 1 ], b: [] }, b: [] },\n  b: []\n}"
    );
    let colors = Options {
        depth: 0,
        colors: true,
    };
    assert_eq!(
        printed(nested(2), colors),
        "{ a: \u{1b}[36m[Object]\u{1b}[39m, b: [] }"
    );
}

#[test]
fn a_million_entries_are_not_kept() {
    let names: Vec<String> = (0..1_000_000).map(|name| format!("n{name:06}")).collect();
    let mut out = Vec::new();
    let entries = names.iter().map(|name| (&**name, Value::Number(7.0)));
    inspect(Value::object(entries), Options::default(), &mut out);
    assert_eq!(out.len(), 1_000_000 * "\n  n000000: 7,".len() + "{}".len());
    assert!(out.ends_with(b"n999999: 7\n}"));
}

/// A value that stays, so that it can be printed here and sent to Node.js.
#[derive(Debug, Clone)]
enum Tree {
    Number(f64),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Tree {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Number(number) => Value::Number(*number),
            Self::Text(text) => Value::Text(text.into()),
            Self::List(items) => Value::list(items.iter().map(Self::value)),
            Self::Object(entries) => {
                Value::object(entries.iter().map(|(key, tree)| (&**key, tree.value())))
            }
        }
    }

    /// As the script below reads it: JSON has no -0 and no NaN, and a JSON object would lose `__proto__`.
    fn json(&self) -> serde_json::Value {
        match self {
            Self::Number(number) => json!({ "number": format!("{number:?}") }),
            Self::Text(text) => json!(text),
            Self::List(items) => {
                json!({ "list": items.iter().map(Self::json).collect::<Vec<_>>() })
            }
            Self::Object(entries) => {
                let entries = entries.iter().map(|(key, tree)| json!([key, tree.json()]));
                json!({ "object": entries.collect::<Vec<_>>() })
            }
        }
    }
}

const SCRIPT: &str = r#"
const { inspect } = require('util');
const numbers = { NaN: NaN, inf: Infinity, '-inf': -Infinity };
const read = (json) => {
  if (typeof json === 'string') return json;
  if ('number' in json) return json.number in numbers ? numbers[json.number] : Number(json.number);
  if ('list' in json) return json.list.map(read);
  const object = {};
  for (const [key, value] of json.object) {
    Object.defineProperty(object, key, { value: read(value), enumerable: true });
  }
  return object;
};
const cases = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const shown = cases.map(([depth, colors, json]) => inspect(read(json), { depth, colors }));
process.stdout.write(JSON.stringify(shown));
"#;

fn printed(value: Value<'_>, options: Options) -> String {
    let mut out = Vec::new();
    inspect(value, options, &mut out);
    String::from_utf8(out).expect("it prints text")
}

/// What Node.js prints; `None` without one of the version this printer follows.
fn by_node(cases: &[(Options, Tree)]) -> Option<Vec<String>> {
    let version = Command::new("node").arg("--version").output().ok()?;
    if !version.stdout.starts_with(b"v20.") {
        return None;
    }
    let cases: Vec<_> = cases
        .iter()
        .map(|(options, tree)| json!([options.depth, options.colors, tree.json()]))
        .collect();
    let mut node = Command::new("node")
        .args(["-e", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it started a moment ago");
    let mut input = node.stdin.take().expect("a pipe");
    let sent = serde_json::to_vec(&cases).expect("JSON");
    input.write_all(&sent).expect("it reads");
    drop(input);
    let output = node.wait_with_output().expect("it ends");
    Some(serde_json::from_slice(&output.stdout).expect("a list of texts"))
}

fn numbers() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-20..2000i32).prop_map(f64::from),
        2 => (-1e6..1e6f64).prop_map(|number| (number * 100.0).round() / 100.0),
        1 => any::<f64>(),
        1 => prop::sample::select(vec![-0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e21, 1e-7, 0.5]),
    ]
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z_.0-9]{0,12}",
        1 => "[a-z '\"`${}]{0,9}",
        1 => "[ -~\n\té\u{1F600}]{0,90}",
        1 => "[\u{80}-\u{36f}\u{400}-\u{45f}\u{4e00}-\u{9fff}\u{ac00}-\u{d7a3}\u{fffd}\u{1f600}]{0,9}",
    ]
}

/// Around the length at which a text is cut.
fn long_texts() -> impl Strategy<Value = String> {
    let around = "[a\n\u{1F600}]{0,6}";
    (around, 9_990..10_003usize, around)
        .prop_map(|(head, length, tail)| format!("{head}{}{tail}", "x".repeat(length - head.len())))
}

/// Keys as JavaScript would order them: those that are array indexes first, ascending.
fn entries(tree: impl Strategy<Value = Tree>) -> impl Strategy<Value = Tree> {
    let key = prop_oneof![
        6 => "[a-z_][a-zA-Z0-9_.]{0,9}",
        2 => "[0-9]{1,3}",
        1 => Just("__proto__".to_owned()),
        1 => "[ -~é\n]{0,20}",
    ];
    prop::collection::vec((key, tree), 0..12).prop_map(|mut entries| {
        let index = |key: &str| {
            key.parse::<u32>()
                .ok()
                .filter(|number| number.to_string() == key)
        };
        entries.sort_by_key(|(key, _)| index(key).map_or((1, 0), |number| (0, number)));
        let mut seen = std::collections::HashSet::new();
        entries.retain(|(key, _)| seen.insert(key.clone()));
        Tree::Object(entries)
    })
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        3 => numbers().prop_map(Tree::Number),
        1 => texts().prop_map(Tree::Text),
        1 => prop::collection::vec(numbers().prop_map(Tree::Number), 0..130).prop_map(Tree::List),
        1 => prop::collection::vec((0..300).prop_map(|n| Tree::Number(f64::from(n))), 95..106)
            .prop_map(Tree::List),
        1 => prop::collection::vec("[a-z0-9'é]{0,9}".prop_map(Tree::Text), 0..110).prop_map(Tree::List),
    ];
    leaf.prop_recursive(6, 60, 12, |inner| {
        prop_oneof![
            3 => entries(inner.clone()),
            1 => prop::collection::vec(inner, 0..16).prop_map(Tree::List),
        ]
    })
}

#[test]
fn random_values_are_printed_as_node_does() {
    let mut runner = TestRunner::default();
    let long = long_texts().prop_map(|text| Tree::Object(vec![("a".into(), Tree::Text(text))]));
    let case = (
        0..7usize,
        any::<bool>(),
        prop_oneof![30 => trees(), 1 => long],
    );
    let cases: Vec<(Options, Tree)> = (0..1500)
        .map(|_| {
            let (depth, colors, tree) = case.new_tree(&mut runner).expect("a case").current();
            (Options { depth, colors }, tree)
        })
        .collect();
    let Some(expected) = by_node(&cases) else {
        println!("skipped: there is no Node.js 20 here");
        return;
    };
    assert_eq!(expected.len(), cases.len());
    for ((options, tree), expected) in cases.iter().zip(expected) {
        let printed = printed(tree.value(), *options);
        assert_eq!(
            printed, expected,
            "{options:?}\n{tree:?}\n{printed}\nis not\n{expected}"
        );
    }
}
