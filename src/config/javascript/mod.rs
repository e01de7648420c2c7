//! Configuration text -> a tree of values that know where they stand.
//!
//! A configuration file of StatsD is one JavaScript expression, so JSON and JSON5 are read by the same
//! parser. `evaluate` walks its syntax tree: `operators` and `methods` are what JavaScript makes of
//! values, `calls` finds out what a name means. What none of them knows is a fault, and `explain` says
//! what to write instead.
//!
//! There are no variables, so nothing is used twice: the work follows the length of the text, and what
//! can grow beyond it, texts put together from texts, has a limit ([`evaluate::BUILT_BYTES_MAX`]).

mod calls;
mod evaluate;
mod explain;
mod lines;
mod methods;
mod operators;

#[cfg(test)]
mod tests;

use super::environment::Environment;
use super::nesting::{self, Nesting};
use super::value::{Fault, Tree};
use evaluate::Evaluator;
use lines::{ASSIGN, Lines};
use oxc_allocator::Allocator;
use oxc_parser::{ParseOptions, Parser};
use oxc_span::SourceType;

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
        Nesting::Unclear(offset) => {
            return Err(fault(
                offset,
                "it cannot be told whether this divides, begins a regular expression or a comment"
                    .into(),
                "put brackets around what stands before it, or write the result",
            ));
        }
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
