//! The syntax tree -> values: literals, lists, objects, and which parts are looked at.

use super::super::Place;
use super::super::coerce::string;
use super::super::environment::Environment;
use super::super::settings;
use super::super::value::{Entry, Fault, Node, Tree, Value, truthy};
use super::explain::{self, explain};
use super::lines::{ASSIGN, Lines};
use super::{methods, operators};
use oxc_ast::ast::{
    ArrayExpression, ArrayExpressionElement, AssignmentTarget, BinaryExpression, Expression,
    LogicalExpression, LogicalOperator, ObjectExpression, ObjectProperty, ObjectPropertyKind,
    Program, PropertyKey, PropertyKind, RegExpLiteral, Statement, TemplateLiteral, UnaryOperator,
};
use oxc_span::GetSpan;
use std::collections::HashMap;

/// Bytes that all calculated texts of a file may have together, intermediate ones included.
const BUILT_BYTES_MAX: usize = 1 << 20;

/// Why there is no value.
#[derive(Debug)]
pub(super) enum Stop {
    /// A fault was written down.
    Faulted,
    /// `?.` found nothing: the chain around it is `undefined`.
    Chain,
}

pub(super) type Evaluated = Result<Value, Stop>;

/// Walks a tree and writes down what is wrong.
pub(super) struct Evaluator<'t> {
    lines: &'t Lines<'t>,
    pub(super) environment: &'t Environment,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    built: usize,
}

/// The entries of an object while it is put together.
#[derive(Default)]
struct Entries {
    list: Vec<Entry>,
    /// Where in the list a key is, and the place where it was written out, if it was.
    keys: HashMap<String, (usize, Option<Place>)>,
}

impl Entries {
    /// A name that comes twice keeps its first position and takes its last value. Gives the place of the
    /// earlier one if both were written out: with `...` it is meant.
    fn put(&mut self, entry: Entry, is_written: bool) -> Option<Place> {
        let written = is_written.then_some(entry.place);
        match self.keys.get_mut(&entry.key) {
            Some((at, place)) => {
                self.list[*at] = entry;
                let earlier = *place;
                *place = earlier.or(written);
                written.and(earlier)
            }
            None => {
                self.keys
                    .insert(entry.key.clone(), (self.list.len(), written));
                self.list.push(entry);
                None
            }
        }
    }
}

impl<'t> Evaluator<'t> {
    pub(super) fn new(lines: &'t Lines<'t>, environment: &'t Environment) -> Self {
        Self {
            lines,
            environment,
            faults: Vec::new(),
            warnings: Vec::new(),
            built: 0,
        }
    }

    /// The one value of a file.
    pub(super) fn file(mut self, program: &Program<'_>) -> Result<Tree, Vec<Fault>> {
        let root = self.statements(&program.body);
        if self.faults.is_empty() {
            Ok(Tree {
                root,
                warnings: self.warnings,
            })
        } else {
            Err(self.faults)
        }
    }

    /// The one expression of the file: `X`, `X;` or `module.exports = X;`.
    fn statements(&mut self, body: &[Statement<'_>]) -> Node {
        for extra in body
            .iter()
            .skip(1)
            .filter(|s| !matches!(s, Statement::EmptyStatement(_)))
        {
            self.fault(extra, "a second statement", explain::HINT_ONE_VALUE);
        }
        if let Some(Statement::ExpressionStatement(statement)) = body.first()
            && let Expression::AssignmentExpression(assignment) = &statement.expression
        {
            return match &assignment.right {
                Expression::AssignmentExpression(inner) if is_module_exports(&inner.left) => {
                    self.node(&inner.right)
                }
                value => self.node(value),
            };
        }
        // `_= X , Y` and the like: the assignment is only a part of the statement.
        if let Some(statement) = body.first() {
            self.fault(statement, "more than one value", explain::HINT_ONE_VALUE);
        }
        Node {
            value: Value::Undefined,
            place: self.lines.place(0),
        }
    }

    /// A value that is kept, and where it stands. A fault lets its neighbours be looked at as well.
    fn node(&mut self, expression: &Expression<'_>) -> Node {
        Node {
            value: self.used(expression).unwrap_or(Value::Undefined),
            place: self.place(expression),
        }
    }

    /// The value of an expression that goes on as it is: nothing asks whether there is one.
    fn used(&mut self, expression: &Expression<'_>) -> Evaluated {
        let value = self.evaluate(expression)?;
        if matches!(value, Value::Undefined)
            && let Some(name) = self.variable(expression)
        {
            let message = format!("the environment has no {name}, so this is undefined");
            let hint =
                format!("set it before the start, or write (process.env.{name} || \"a default\")");
            self.warn(expression, message, hint);
        }
        Ok(value)
    }

    /// The value of an expression. More of JavaScript means more arms here.
    pub(super) fn evaluate(&mut self, expression: &Expression<'_>) -> Evaluated {
        match expression {
            Expression::NullLiteral(_) => Ok(Value::Null),
            Expression::BooleanLiteral(literal) => Ok(Value::Bool(literal.value)),
            Expression::NumericLiteral(literal) => Ok(Value::Number(literal.value)),
            Expression::StringLiteral(literal) if !literal.lone_surrogates => {
                Ok(Value::String(literal.value.to_string()))
            }
            Expression::TemplateLiteral(literal) => self.template(literal, expression),
            Expression::RegExpLiteral(literal) => Ok(regex(literal)),
            Expression::Identifier(name) => match name.name.as_str() {
                "undefined" => Ok(Value::Undefined),
                "Infinity" => Ok(Value::Number(f64::INFINITY)),
                "NaN" => Ok(Value::Number(f64::NAN)),
                _ => self.unsupported(expression),
            },
            Expression::ArrayExpression(list) => self.list(list),
            Expression::ObjectExpression(map) => self.map(map),
            // `typeof` and `delete` take what has no value.
            Expression::UnaryExpression(unary) if operators::calculates(unary.operator) => {
                let operand = match unary.operator {
                    UnaryOperator::LogicalNot | UnaryOperator::Void => {
                        self.evaluate(&unary.argument)?
                    }
                    _ => self.used(&unary.argument)?,
                };
                Ok(operators::unary(unary.operator, &operand))
            }
            Expression::BinaryExpression(binary) => self.binary(binary, expression),
            Expression::LogicalExpression(logical) => self.logical(logical),
            Expression::ConditionalExpression(choice) => {
                let test = self.evaluate(&choice.test)?;
                self.evaluate(if truthy(&test) {
                    &choice.consequent
                } else {
                    &choice.alternate
                })
            }
            Expression::StaticMemberExpression(member) => self.static_member(member),
            Expression::ComputedMemberExpression(member) => self.computed_member(member),
            Expression::CallExpression(call) => self.call(call),
            Expression::ChainExpression(chain) => self.chain(chain),
            _ => self.unsupported(expression),
        }
    }

    fn template(&mut self, literal: &TemplateLiteral<'_>, whole: &Expression<'_>) -> Evaluated {
        let mut text = String::new();
        let mut faulted = false;
        for (at, piece) in literal.quasis.iter().enumerate() {
            match piece.value.cooked {
                Some(cooked) if !piece.lone_surrogates => text.push_str(&cooked),
                _ => return self.unsupported(whole),
            }
            match literal.expressions.get(at).map(|inner| self.used(inner)) {
                Some(Ok(value)) => text.push_str(&string(&value)),
                Some(Err(_)) => faulted = true,
                None => {}
            }
        }
        if faulted {
            return Err(Stop::Faulted);
        }
        if literal.expressions.is_empty() {
            return Ok(Value::String(text));
        }
        self.built(Value::String(text), whole)
    }

    fn binary(&mut self, binary: &BinaryExpression<'_>, whole: &Expression<'_>) -> Evaluated {
        // Both sides, so that what is wrong in either is found.
        let (left, right) = if binary.operator.is_arithmetic() {
            (self.used(&binary.left), self.used(&binary.right))
        } else {
            (self.evaluate(&binary.left), self.evaluate(&binary.right))
        };
        match operators::binary(binary.operator, &left?, &right?) {
            Some(value) => self.built(value, whole),
            None => self.unsupported(whole),
        }
    }

    fn logical(&mut self, logical: &LogicalExpression<'_>) -> Evaluated {
        let left = self.evaluate(&logical.left)?;
        let is_taken = match logical.operator {
            LogicalOperator::Or => truthy(&left),
            LogicalOperator::And => !truthy(&left),
            LogicalOperator::Coalesce => !is_nothing(&left),
        };
        if is_taken {
            Ok(left)
        } else {
            self.used(&logical.right)
        }
    }

    fn list(&mut self, list: &ArrayExpression<'_>) -> Evaluated {
        let mut nodes = Vec::with_capacity(list.elements.len());
        for element in &list.elements {
            match element {
                ArrayExpressionElement::SpreadElement(spread) => {
                    match self.evaluate(&spread.argument) {
                        Ok(Value::List(more)) => nodes.extend(more),
                        Ok(_) => {
                            self.fault(
                                element,
                                "`...` of something that is no list",
                                "write the items out",
                            );
                        }
                        Err(_) => {}
                    }
                }
                ArrayExpressionElement::Elision(_) => {
                    let message = "an empty place in a list";
                    self.fault(element, message, "remove the extra comma");
                }
                _ => match element.as_expression() {
                    Some(expression) => nodes.push(self.node(expression)),
                    None => {
                        self.fault(element, "not a value", explain::HINT_VALUE);
                    }
                },
            }
        }
        Ok(Value::List(nodes))
    }

    fn map(&mut self, map: &ObjectExpression<'_>) -> Evaluated {
        let mut entries = Entries::default();
        for property in &map.properties {
            match property {
                ObjectPropertyKind::ObjectProperty(property) => {
                    let Ok(entry) = self.entry(property) else {
                        continue;
                    };
                    let key = entry.key.clone();
                    if let Some(earlier) = entries.put(entry, true) {
                        let message = format!("{key} is written twice, the last one counts");
                        let line = earlier.line;
                        let hint = format!("remove one of them; the first is at line {line}");
                        self.warn(&property.key, message, hint);
                    }
                }
                ObjectPropertyKind::SpreadProperty(spread) => {
                    match self.evaluate(&spread.argument) {
                        Ok(Value::Map(more)) => {
                            for entry in more {
                                entries.put(entry, false);
                            }
                        }
                        // Nothing is spread as nothing: `...(process.env.X && { ... })` is written so.
                        Ok(Value::Undefined | Value::Null | Value::Bool(_) | Value::Number(_)) => {}
                        Ok(Value::String(text)) if text.is_empty() => {}
                        Ok(_) => {
                            let message = "`...` of something that is no object";
                            self.fault(spread.as_ref(), message, "write the keys out");
                        }
                        Err(_) => {}
                    }
                }
            }
        }
        Ok(Value::Map(entries.list))
    }

    fn entry(&mut self, property: &ObjectProperty<'_>) -> Result<Entry, Stop> {
        if property.method || property.kind != PropertyKind::Init {
            let message = "a function in a configuration";
            return Err(self.fault(property, message, explain::HINT_VALUE));
        }
        if property.shorthand {
            return Err(self.fault(property, "a key without a value", "write `key: value`"));
        }
        let key = match &property.key {
            PropertyKey::StaticIdentifier(name) => Ok(name.name.to_string()),
            key => match key.as_expression() {
                Some(expression) => self.used(expression).map(|value| string(&value)),
                None => Err(self.fault(key, "a private name", "write the key in quotes")),
            },
        };
        // The value is looked at in any case, for what is wrong in it.
        let before = self.faults.len();
        let node = self.node(&property.value);
        if matches!(property.value, Expression::Identifier(_))
            && key.as_ref().is_ok_and(|key| settings::keeps_secret(key))
        {
            // Its text without quotes: a message would show it.
            for fault in &mut self.faults[before..] {
                fault.message = "a name is not a value".into();
                fault.hint = "a text needs quotes".into();
            }
        }
        let key = key?;
        if key == "__proto__" {
            let message = "__proto__ is no key: it says what an object inherits";
            return Err(self.fault(&property.key, message, "write the keys out"));
        }
        Ok(Entry {
            key,
            place: self.place(&property.key),
            node,
        })
    }

    /// A value that was calculated, if there is room for its text.
    pub(super) fn built(&mut self, value: Value, at: &impl GetSpan) -> Evaluated {
        self.built = self.built.saturating_add(size(&value));
        if self.built > BUILT_BYTES_MAX {
            return self.too_long(at);
        }
        Ok(value)
    }

    /// Bytes that may still be built.
    pub(super) fn room(&self) -> usize {
        BUILT_BYTES_MAX.saturating_sub(self.built)
    }

    /// Said once: after it no calculation has room.
    pub(super) fn too_long(&mut self, at: &impl GetSpan) -> Evaluated {
        if self.built != usize::MAX {
            let message = format!("more than {BUILT_BYTES_MAX} bytes of text are put together");
            self.fault(at, message, "write the finished text in quotes");
            self.built = usize::MAX;
        }
        Err(Stop::Faulted)
    }

    pub(super) fn unsupported(&mut self, expression: &Expression<'_>) -> Evaluated {
        let (message, hint) = explain(expression);
        Err(self.fault(expression, message, hint))
    }

    pub(super) fn fault(
        &mut self,
        at: &impl GetSpan,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Stop {
        self.faults.push(Fault {
            place: self.place(at),
            message: message.into(),
            hint: hint.into(),
        });
        Stop::Faulted
    }

    fn warn(&mut self, at: &impl GetSpan, message: String, hint: String) {
        self.warnings.push(Fault {
            place: self.place(at),
            message,
            hint,
        });
    }

    pub(super) fn place(&self, at: &impl GetSpan) -> Place {
        self.lines
            .place((at.span().start as usize).saturating_sub(ASSIGN.len()))
    }
}

/// Whether it is `undefined` or `null`.
pub(super) fn is_nothing(value: &Value) -> bool {
    matches!(value, Value::Undefined | Value::Null)
}

/// Bytes of text in a value, and what its items cost.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::List(nodes) => {
            let items = nodes
                .iter()
                .map(|node| methods::ITEM_BYTES + size(&node.value));
            items.sum()
        }
        _ => 0,
    }
}

fn regex(literal: &RegExpLiteral<'_>) -> Value {
    let mut flags: Vec<char> = literal.regex.flags.to_string().chars().collect();
    flags.sort_unstable();
    Value::Regex {
        source: literal.regex.pattern.text.to_string(),
        flags: flags.into_iter().collect(),
    }
}

fn is_module_exports(target: &AssignmentTarget<'_>) -> bool {
    matches!(target, AssignmentTarget::StaticMemberExpression(member)
        if member.property.name == "exports"
            && matches!(&member.object, Expression::Identifier(name) if name.name == "module"))
}
