//! What a configuration file holds, each piece with its place.

use super::Place;

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// What was written.
    pub(super) value: Value,
    /// Where it begins.
    pub(super) place: Place,
}

/// What a configuration can hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// `undefined`: as if nothing had been written.
    Undefined,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Every number of JavaScript is a double.
    Number(f64),
    /// Text, escapes resolved.
    String(String),
    /// `[ ... ]`.
    List(Vec<Node>),
    /// `{ ... }` in the order written, each key once.
    Map(Vec<Entry>),
    /// `/source/flags`; whether the source is well-formed is for whoever uses it to find out.
    Regex {
        /// What stands between the slashes, as written.
        source: String,
        /// The letters behind them, sorted.
        flags: String,
    },
}

/// One `key: value` of a map.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// The key, quotes and escapes resolved.
    pub(super) key: String,
    /// Where the key begins.
    pub(super) place: Place,
    /// Its value.
    pub(super) node: Node,
}

/// Something in the text that is wrong, or, as a warning, odd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Where.
    pub(super) place: Place,
    /// What is wrong.
    pub(super) message: String,
    /// What to write instead.
    pub(super) hint: String,
}

/// The tree of a whole file, and what is odd about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tree {
    /// The file's one value.
    pub(super) root: Node,
    /// Keys written twice, and environment variables that are not set.
    pub(super) warnings: Vec<Fault>,
}

/// `Boolean(value)`.
pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::Undefined | Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => *number != 0.0 && !number.is_nan(),
        Value::String(text) => !text.is_empty(),
        Value::List(_) | Value::Map(_) | Value::Regex { .. } => true,
    }
}
