//! What has no value here: what to say of it, and what to write in its place.

use super::super::nesting;
use super::methods;
use oxc_ast::ast::Expression;

pub(super) const HINT_VALUE: &str =
    "write a plain value: a number, a text in quotes, true, false, null, [ ... ] or { ... }";
pub(super) const HINT_CALL: &str = "write the result of the call in its place";
pub(super) const HINT_ONE_VALUE: &str =
    "a configuration is one value: put everything into one { ... }";
pub(super) const HINT_REQUIRE: &str = "write the value itself; of the modules there is require(\"os\"): \
                                       .hostname(), .cpus().length, .platform(), .EOL";
pub(super) const HINT_STATEMENT: &str = "a configuration is one value: write what the name stands for in \
                                         each place where it is used, e.g. require(\"os\").hostname()";

/// The functions there are.
pub(super) fn hint_functions() -> String {
    let names = methods::FUNCTIONS.join(", ");
    format!("{HINT_CALL}; the functions are {names}")
}

/// Whether the text begins with a statement that has no value, as scripts do; the message if so.
pub(super) fn statement(text: &str) -> Option<String> {
    let len = text
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let word = &text[..len];
    let is_statement = matches!(
        word,
        "var" | "const" | "if" | "for" | "while" | "try" | "import" | "export" | "switch" | "throw"
    ) || (word == "let" && text[len..].starts_with([' ', '\t']));
    // `import("x")` is an expression, though not one of ours.
    let next = len + nesting::first_token(&text[len..]);
    let is_call = word == "import" && text[next..].starts_with(['(', '.']);
    (is_statement && !is_call).then(|| format!("{word} begins a statement, not a value"))
}

/// The message and the hint for an expression that has no value here.
pub(super) fn explain(expression: &Expression<'_>) -> (String, String) {
    let (message, hint) = match expression {
        Expression::Identifier(name) => {
            let name = name.name.as_str();
            let hint = match name {
                "JSON" | "Date" | "Object" | "Array" | "Buffer" => HINT_CALL.into(),
                "os" => "write require(\"os\")".into(),
                "env" => "write process.env".into(),
                "process" => "write what of it is meant, e.g. process.env.NAME".into(),
                "__dirname" | "__filename" => "write the path in quotes".into(),
                _ => format!("a text needs quotes: \"{name}\""),
            };
            return (format!("{name} is not a value"), hint);
        }
        Expression::StringLiteral(_) | Expression::TemplateLiteral(_) => (
            "half of a surrogate pair in a text",
            "write the character itself",
        ),
        Expression::BigIntLiteral(_) => (
            "a number that ends in n is not supported",
            "leave the n out",
        ),
        Expression::UnaryExpression(_) => (
            "typeof and delete are not supported",
            "write what it comes to, or e.g. (process.env.NAME || \"a default\")",
        ),
        Expression::BinaryExpression(_) | Expression::PrivateInExpression(_) => (
            "in and instanceof are not supported",
            "write what it comes to: true or false",
        ),
        Expression::NewExpression(_) => (
            "new is not supported",
            "write the value itself; a regular expression is /.../",
        ),
        Expression::TaggedTemplateExpression(_) => ("a function call is not supported", HINT_CALL),
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
