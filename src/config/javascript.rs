//! Configuration text -> a tree of values that know where they stand.
//!
//! A configuration file of StatsD is one JavaScript expression, so JSON and JSON5 are read by the same
//! parser. `Evaluator::evaluate` walks its syntax tree; what it does not know is a fault with a hint.

use super::Place;
use super::nesting::{self, Nesting};
use oxc_allocator::Allocator;
use oxc_ast::ast::{
    ArrayExpression, ArrayExpressionElement, AssignmentTarget, Expression, ObjectExpression,
    ObjectProperty, ObjectPropertyKind, PropertyKey, PropertyKind, Statement, UnaryExpression,
    UnaryOperator,
};
use oxc_parser::{ParseOptions, Parser};
use oxc_span::{GetSpan, SourceType};

/// Makes the text the right side of an assignment, as the reference does when it evaluates the file.
const ASSIGN: &str = "_= ";

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
    /// Keys written twice.
    pub(super) warnings: Vec<Fault>,
}

/// Reads one expression.
///
/// # Errors
/// The first syntax error, or else every construct that is more than a value.
pub(super) fn parse(text: &str) -> Result<Tree, Vec<Fault>> {
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

    let mut evaluator = Evaluator {
        lines: &lines,
        faults: Vec::new(),
        warnings: Vec::new(),
    };
    let root = evaluator.file(&parsed.program.body);
    if evaluator.faults.is_empty() {
        Ok(Tree {
            root,
            warnings: evaluator.warnings,
        })
    } else {
        Err(evaluator.faults)
    }
}

const HINT_EMPTY: &str =
    "write an object, e.g. { backends: [\"./backends/console\"] }, or {} for the defaults";
const HINT_SYNTAX: &str = "a comma, a quote or a bracket is often missing just before this place";

struct Evaluator<'t> {
    lines: &'t Lines<'t>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

impl Evaluator<'_> {
    /// The one expression of the file: `X`, `X;` or `module.exports = X;`.
    fn file(&mut self, body: &[Statement<'_>]) -> Node {
        for extra in body
            .iter()
            .skip(1)
            .filter(|s| !matches!(s, Statement::EmptyStatement(_)))
        {
            self.fault(
                extra,
                "a second statement",
                "a configuration is one value: put everything into one { ... }",
            );
        }
        if let Some(Statement::ExpressionStatement(statement)) = body.first()
            && let Expression::AssignmentExpression(assignment) = &statement.expression
        {
            return match &assignment.right {
                Expression::AssignmentExpression(inner) if is_module_exports(&inner.left) => {
                    self.evaluate(&inner.right)
                }
                value => self.evaluate(value),
            };
        }
        // `_= X , Y` and the like: the assignment is only a part of the statement.
        if let Some(statement) = body.first() {
            self.fault(
                statement,
                "more than one value",
                "a configuration is one value: put everything into one { ... }",
            );
        }
        Node {
            value: Value::Undefined,
            place: self.lines.place(0),
        }
    }

    /// The value of an expression. More of JavaScript means more arms here.
    fn evaluate(&mut self, expression: &Expression<'_>) -> Node {
        let value = match expression {
            Expression::NullLiteral(_) => Value::Null,
            Expression::BooleanLiteral(literal) => Value::Bool(literal.value),
            Expression::NumericLiteral(literal) => Value::Number(literal.value),
            Expression::StringLiteral(literal) if !literal.lone_surrogates => {
                Value::String(literal.value.to_string())
            }
            Expression::TemplateLiteral(literal) if literal.expressions.is_empty() => {
                match literal.quasis.first() {
                    Some(text) if !text.lone_surrogates => {
                        Value::String(text.value.cooked.map(|s| s.to_string()).unwrap_or_default())
                    }
                    _ => self.unsupported(expression),
                }
            }
            Expression::Identifier(name) => match name.name.as_str() {
                "undefined" => Value::Undefined,
                "Infinity" => Value::Number(f64::INFINITY),
                "NaN" => Value::Number(f64::NAN),
                _ => self.unsupported(expression),
            },
            Expression::UnaryExpression(unary) => self.signed(unary, expression),
            Expression::ArrayExpression(list) => self.list(list),
            Expression::ObjectExpression(map) => self.map(map),
            _ => self.unsupported(expression),
        };
        Node {
            value,
            place: self.place(expression),
        }
    }

    fn signed(&mut self, unary: &UnaryExpression<'_>, whole: &Expression<'_>) -> Value {
        let sign = match unary.operator {
            UnaryOperator::UnaryPlus => 1.0,
            UnaryOperator::UnaryNegation => -1.0,
            _ => return self.unsupported(whole),
        };
        match self.evaluate(&unary.argument).value {
            Value::Number(number) => Value::Number(sign * number),
            _ => self.unsupported(whole),
        }
    }

    fn list(&mut self, list: &ArrayExpression<'_>) -> Value {
        let mut nodes = Vec::with_capacity(list.elements.len());
        for element in &list.elements {
            match element {
                ArrayExpressionElement::SpreadElement(_) => {
                    self.fault(element, "`...` in a list", "write the items out")
                }
                ArrayExpressionElement::Elision(_) => {
                    self.fault(
                        element,
                        "an empty place in a list",
                        "remove the extra comma",
                    );
                }
                _ => match element.as_expression() {
                    Some(expression) => nodes.push(self.evaluate(expression)),
                    None => self.fault(element, "not a value", HINT_VALUE),
                },
            }
        }
        Value::List(nodes)
    }

    fn map(&mut self, map: &ObjectExpression<'_>) -> Value {
        let mut entries: Vec<Entry> = Vec::with_capacity(map.properties.len());
        for property in &map.properties {
            let property = match property {
                ObjectPropertyKind::ObjectProperty(property) => property,
                ObjectPropertyKind::SpreadProperty(spread) => {
                    self.fault(spread.as_ref(), "`...` in an object", "write the keys out");
                    continue;
                }
            };
            let Some(entry) = self.entry(property) else {
                continue;
            };
            // A name written twice keeps its first position and takes its last value.
            match entries.iter_mut().find(|earlier| earlier.key == entry.key) {
                Some(earlier) => {
                    let message = format!("{} is written twice, the last one counts", entry.key);
                    let hint = format!(
                        "remove one of them; the first is at line {}",
                        earlier.place.line
                    );
                    self.warnings.push(Fault {
                        place: entry.place,
                        message,
                        hint,
                    });
                    *earlier = entry;
                }
                None => entries.push(entry),
            }
        }
        Value::Map(entries)
    }

    fn entry(&mut self, property: &ObjectProperty<'_>) -> Option<Entry> {
        if property.method || property.kind != PropertyKind::Init {
            self.fault(property, "a function in a configuration", HINT_VALUE);
            return None;
        }
        if property.shorthand {
            self.fault(property, "a key without a value", "write `key: value`");
            return None;
        }
        let key = match &property.key {
            _ if property.computed => None,
            PropertyKey::StaticIdentifier(name) => Some(name.name.to_string()),
            PropertyKey::StringLiteral(text) if !text.lone_surrogates => {
                Some(text.value.to_string())
            }
            PropertyKey::NumericLiteral(number) => {
                Some(ryu_js::Buffer::new().format(number.value).to_owned())
            }
            _ => None,
        };
        let Some(key) = key else {
            self.fault(
                &property.key,
                "a key that has to be calculated",
                "write the key as a word or in quotes",
            );
            return None;
        };
        Some(Entry {
            key,
            place: self.place(&property.key),
            node: self.evaluate(&property.value),
        })
    }

    fn unsupported(&mut self, expression: &Expression<'_>) -> Value {
        let (message, hint) = explain(expression);
        self.fault(expression, &message, &hint);
        Value::Undefined
    }

    fn fault(&mut self, at: &impl GetSpan, message: &str, hint: &str) {
        self.faults.push(Fault {
            place: self.place(at),
            message: message.into(),
            hint: hint.into(),
        });
    }

    fn place(&self, at: &impl GetSpan) -> Place {
        self.lines
            .place((at.span().start as usize).saturating_sub(ASSIGN.len()))
    }
}

const HINT_VALUE: &str =
    "write a plain value: a number, a text in quotes, true, false, null, [ ... ] or { ... }";

/// What to say about an expression that is no plain value, and what to write in its place.
fn explain(expression: &Expression<'_>) -> (String, String) {
    let (message, hint) = match expression {
        Expression::Identifier(name) => {
            let name = name.name.as_str();
            return (
                format!("{name} is not a value"),
                format!("a text needs quotes: \"{name}\""),
            );
        }
        Expression::StringLiteral(_) => (
            "half of a surrogate pair in a text",
            "write the character itself",
        ),
        Expression::TemplateLiteral(_) => (
            "`${ }` in a text is not supported",
            "write the finished text in quotes",
        ),
        Expression::RegExpLiteral(regex) => {
            let hint = "write the pattern as a text in quotes, each backslash twice";
            return (
                format!("the regular expression {} is not supported", regex.regex),
                hint.into(),
            );
        }
        Expression::BigIntLiteral(_) => (
            "a number that ends in n is not supported",
            "leave the n out",
        ),
        Expression::UnaryExpression(_) => {
            ("an operator before something that is no number", HINT_VALUE)
        }
        Expression::BinaryExpression(_) => (
            "a calculation is not supported",
            "write the result, e.g. 10000 in place of 10 * 1000",
        ),
        Expression::LogicalExpression(_) | Expression::ConditionalExpression(_) => (
            "a choice between values is not supported",
            "write the value that it comes to",
        ),
        Expression::CallExpression(_)
        | Expression::NewExpression(_)
        | Expression::ChainExpression(_) => (
            "a function call is not supported",
            "write the result of the call in its place",
        ),
        Expression::StaticMemberExpression(member) if is_process_env(&member.object) => (
            "process.env is not supported",
            "write the value itself, or have the file filled in before the start, e.g. by envsubst",
        ),
        Expression::ComputedMemberExpression(_) | Expression::StaticMemberExpression(_) => (
            "a look-up in another object is not supported",
            "write the value itself",
        ),
        Expression::FunctionExpression(_)
        | Expression::ArrowFunctionExpression(_)
        | Expression::ClassExpression(_) => ("a function in a configuration", HINT_VALUE),
        Expression::AssignmentExpression(_) => (
            "an assignment in a configuration",
            "write only the value, or `module.exports = { ... };`",
        ),
        Expression::SequenceExpression(_) => {
            ("a comma between two values", "put the values into [ ... ]")
        }
        _ => ("not a plain value", HINT_VALUE),
    };
    (message.into(), hint.into())
}

fn is_module_exports(target: &AssignmentTarget<'_>) -> bool {
    matches!(target, AssignmentTarget::StaticMemberExpression(member)
        if member.property.name == "exports" && is_named(&member.object, "module"))
}

fn is_process_env(object: &Expression<'_>) -> bool {
    matches!(object, Expression::StaticMemberExpression(member)
        if member.property.name == "env" && is_named(&member.object, "process"))
}

fn is_named(expression: &Expression<'_>, name: &str) -> bool {
    matches!(expression, Expression::Identifier(identifier) if identifier.name == name)
}

/// Byte offsets -> lines and columns.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let bytes = text.as_bytes();
        let ends = bytes.iter().enumerate().filter(|&(at, &byte)| {
            // CR LF is one end of line, a lone CR is one as well.
            byte == b'\n' || (byte == b'\r' && bytes.get(at + 1) != Some(&b'\n'))
        });
        let starts = std::iter::once(0)
            .chain(ends.map(|(at, _)| at + 1))
            .collect();
        Self { text, starts }
    }

    fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|&start| start <= offset);
        let before = &self.text.as_bytes()[self.starts[line - 1]..offset];
        // Continuation bytes are no characters of their own.
        let column = before.iter().filter(|&&byte| byte & 0xc0 != 0x80).count() + 1;
        Place {
            line: line as u32,
            column: column as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        parse(text)
            .unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
            .root
            .value
    }

    /// The tree without places, to compare with.
    fn plain(value: &Value) -> String {
        match value {
            Value::Undefined => "undefined".into(),
            Value::Null => "null".into(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => format!("{number:?}"),
            Value::String(text) => format!("{text:?}"),
            Value::List(nodes) => {
                format!(
                    "[{}]",
                    nodes
                        .iter()
                        .map(|n| plain(&n.value))
                        .collect::<Vec<_>>()
                        .join(" ")
                )
            }
            Value::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|e| format!("{}={}", e.key, plain(&e.node.value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[test]
    fn json_and_json5_are_read() {
        for (text, want) in [
            (
                r#"{"a": [1, 2.5, -3e2], "b": {"c": null, "d": true}, "e": "x\u0041\n"}"#,
                "{a=[1.0 2.5 -300.0] b={c=null d=true} e=\"xA\\n\"}",
            ),
            (
                "{a: 'single', $b_1: \"double\", 'c d': `back`,}",
                "{a=\"single\" $b_1=\"double\" c d=\"back\"}",
            ),
            (
                "// line\n{ /* block */ a: [1, 2,], // end\n}",
                "{a=[1.0 2.0]}",
            ),
            (
                "{a: [ 'x'\n , 'y'\n , 'z' ]\n, b: 1\n}",
                "{a=[\"x\" \"y\" \"z\"] b=1.0}",
            ),
            (
                "{a: 0x1F, b: +5, c: -5, d: .5, e: 5., f: -0x10, g: 1_000}",
                "{a=31.0 b=5.0 c=-5.0 d=0.5 e=5.0 f=-16.0 g=1000.0}",
            ),
            (
                "[Infinity, -Infinity, +Infinity, NaN, -0]",
                "[inf -inf inf NaN -0.0]",
            ),
            ("({a: 1})", "{a=1.0}"),
            ("{a: 1};", "{a=1.0}"),
            ("module.exports = {a: 1};", "{a=1.0}"),
            ("module.exports = ({a: (1)});;\n", "{a=1.0}"),
            ("\u{feff}{a: 1}", "{a=1.0}"),
            (
                "/*\n * head\n */\r\n{\r\n  a: 1,\r\n  b: 'x\\\r\ny'\r\n}\r\n",
                "{a=1.0 b=\"xy\"}",
            ),
            ("{0x10: 1, 'ü': 2, ü: 3}", "{16=1.0 ü=3.0}"),
            ("{a: undefined}", "{a=undefined}"),
            ("{}", "{}"),
            ("5", "5.0"),
        ] {
            assert_eq!(plain(&value(text)), want, "{text}");
        }
    }

    #[test]
    fn values_and_keys_know_where_they_stand() {
        let tree = parse("\u{feff}{ ü: 1,\r\n  b: [ 2 ,\r    -3] }").expect("well-formed");
        let Value::Map(entries) = tree.root.value else {
            panic!("a map")
        };
        assert_eq!(tree.root.place, Place { line: 1, column: 1 });
        assert_eq!(entries[0].place, Place { line: 1, column: 3 });
        assert_eq!(entries[0].node.place, Place { line: 1, column: 6 });
        assert_eq!(entries[1].place, Place { line: 2, column: 3 });
        let Value::List(items) = &entries[1].node.value else {
            panic!("a list")
        };
        assert_eq!(items[0].place, Place { line: 2, column: 8 });
        assert_eq!(items[1].place, Place { line: 3, column: 5 });
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        let tree = parse("{a: 1, b: 2,\n 'a': 3}").expect("well-formed");
        assert_eq!(plain(&tree.root.value), "{a=3.0 b=2.0}");
        assert_eq!(tree.warnings.len(), 1);
        assert_eq!(tree.warnings[0].place, Place { line: 2, column: 2 });
        assert_eq!(
            tree.warnings[0].message,
            "a is written twice, the last one counts"
        );
        assert_eq!(
            tree.warnings[0].hint,
            "remove one of them; the first is at line 1"
        );
    }

    #[test]
    fn what_is_no_value_is_a_fault_with_a_way_out() {
        for (text, column, message) in [
            ("{a: b}", 5, "b is not a value"),
            (
                "{a: require('os').hostname()}",
                5,
                "a function call is not supported",
            ),
            ("{a: process.env.HOST}", 5, "process.env is not supported"),
            (
                "{a: x.y}",
                5,
                "a look-up in another object is not supported",
            ),
            ("{a: 10 * 1000}", 5, "a calculation is not supported"),
            ("{a: b || 2}", 5, "a choice between values is not supported"),
            (
                "{a: /^x\\./i}",
                5,
                "the regular expression /^x\\./i is not supported",
            ),
            ("{a: `x${1}`}", 5, "`${ }` in a text is not supported"),
            ("{a: 1n}", 5, "a number that ends in n is not supported"),
            (
                "{a: -'5'}",
                5,
                "an operator before something that is no number",
            ),
            (
                "{a: !0}",
                5,
                "an operator before something that is no number",
            ),
            ("{a: () => 1}", 5, "a function in a configuration"),
            ("{a() {}}", 2, "a function in a configuration"),
            ("{a}", 2, "a key without a value"),
            ("{[a]: 1}", 3, "a key that has to be calculated"),
            ("{...a}", 2, "`...` in an object"),
            ("[...a]", 2, "`...` in a list"),
            ("[1,,2]", 4, "an empty place in a list"),
            ("{a: '\\ud800'}", 5, "half of a surrogate pair in a text"),
            ("config = {}", 1, "an assignment in a configuration"),
            ("{}; {}", 5, "a second statement"),
            ("{}, {}", 1, "more than one value"),
            ("// nothing", 1, "the file holds no value"),
            ("", 1, "the file holds no value"),
        ] {
            let faults = parse(text).expect_err(text);
            assert_eq!(
                (faults[0].message.as_str(), faults[0].place.column),
                (message, column),
                "{text}"
            );
            assert!(!faults[0].hint.is_empty(), "{text}");
            assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        }
    }

    #[test]
    fn every_unsupported_value_is_reported() {
        let faults = parse("{a: b,\n c: d(),\n e: [f]}").expect_err("three faults");
        assert_eq!(
            faults.iter().map(|f| f.place.line).collect::<Vec<_>>(),
            [1, 2, 3]
        );
    }

    #[test]
    fn a_syntax_error_names_its_place() {
        for (text, line, column) in [
            ("{a: 1\n b: 2}", 2, 2),
            ("{a: 1", 1, 6),
            ("{a: 'x}", 1, 5),
            ("= {}", 1, 1),
            ("{a: 1}}", 1, 7),
        ] {
            let faults = parse(text).expect_err(text);
            assert_eq!(
                faults[0].place,
                Place { line, column },
                "{text}: {faults:?}"
            );
            assert!(
                faults[0].message.starts_with("syntax error: "),
                "{faults:?}"
            );
        }
    }

    #[test]
    fn the_deepest_allowed_text_fits_a_thread_stack() {
        let depth = nesting::DEPTH_MAX;
        let chain = nesting::PATH_TOKENS_MAX - depth - 1;
        let brackets = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&brackets).is_ok());
        assert!(
            parse(&format!(
                "{{a: {}{}}}",
                "{a: ".repeat(depth - 1) + "1",
                "}".repeat(depth - 1)
            ))
            .is_ok()
        );
        for link in [
            "- ", "a = ", "a ? b : ", "typeof ", "new ", "a => ", "a ** ",
        ] {
            let links = chain / link.split_whitespace().count();
            let text = format!(
                "{}{}1{}",
                "(".repeat(depth),
                link.repeat(links),
                ")".repeat(depth)
            );
            let _ = parse(&text);
        }
        assert!(parse(&"[".repeat(1 << 20)).is_err());
        assert!(parse(&"- ".repeat(1 << 20)).is_err());
    }
}
