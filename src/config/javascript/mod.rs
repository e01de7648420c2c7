//! Configuration text -> a tree of values that know where they stand.
//!
//! A configuration file of StatsD is one JavaScript expression, so JSON and JSON5 are read by the same
//! parser. `evaluate` walks its syntax tree: `operators` and `methods` are what JavaScript makes of
//! values, `calls` finds out what a name means. What none of them knows is a fault, and `explain` says
//! what to write instead.
//!
//! There are no variables, so nothing is used twice: the work follows the length of the text, and what
//! can grow beyond it, texts put together from texts, has a limit ([`BUILT_BYTES_MAX`]).

mod calls;
mod evaluate;
mod explain;
mod lines;
mod methods;
mod operators;

#[cfg(test)]
mod tests;

use super::Place;
use super::environment::Environment;
use super::nesting::{self, Nesting};
use evaluate::Evaluator;
use lines::Lines;
use oxc_allocator::Allocator;
use oxc_parser::{ParseOptions, Parser};
use oxc_span::SourceType;

/// Makes the text the right side of an assignment, as the reference does when it evaluates the file.
const ASSIGN: &str = "_= ";

/// Bytes that all calculated texts of a file may have together, intermediate ones included.
const BUILT_BYTES_MAX: usize = 1 << 20;

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

/// Reads one expression.
///
/// # Errors
/// The first syntax error, or else everything that has no value here.
pub(super) fn parse(text: &str, environment: &Environment) -> Result<Tree, Vec<Fault>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::new(text);
    let fault = |offset: usize, message: String, hint: &str| {
        vec![Fault {
            place: lines.place(offset),
            message,
            hint: hint.into(),
        }]
    };
    match nesting::scan(text) {
        Nesting::Fine => {}
        Nesting::Empty => return Err(fault(0, "the file holds no value".into(), HINT_EMPTY)),
        Nesting::TooDeep(offset) => {
            let message = format!(
                "nested too deep: {} brackets inside one another, or {} words in one value, are the limit",
                nesting::DEPTH_MAX,
                nesting::PATH_TOKENS_MAX
            );
            return Err(fault(
                offset,
                message,
                "a closing bracket or a comma may be missing before this place",
            ));
        }
    }

    let source = format!("{ASSIGN}{text}");
    let allocator = Allocator::default();
    let options = ParseOptions {
        preserve_parens: false,
        ..ParseOptions::default()
    };
    let parsed = Parser::new(&allocator, &source, SourceType::script())
        .with_options(options)
        .parse();
    if let Some(diagnostic) = parsed.diagnostics.errors().next() {
        let first = nesting::first_token(text);
        if let Some(message) = explain::statement(&text[first..]) {
            return Err(fault(first, message, explain::HINT_STATEMENT));
        }
        let offset = diagnostic
            .labels
            .first()
            .map_or(0, |label| label.offset() as usize);
        let hint = diagnostic.help.as_deref().unwrap_or(HINT_SYNTAX);
        return Err(fault(
            offset.saturating_sub(ASSIGN.len()),
            format!("syntax error: {}", diagnostic.message),
            hint,
        ));
    }

    Evaluator::new(&lines, environment).file(&parsed.program)
}

const HINT_EMPTY: &str =
    "write an object, e.g. { backends: [\"./backends/console\"] }, or {} for the defaults";
const HINT_SYNTAX: &str = "a comma, a quote or a bracket is often missing just before this place";
