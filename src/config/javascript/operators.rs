//! The operators: what JavaScript makes of values of any type.

use super::super::coerce::{number, string};
use super::super::value::{Value, truthy};
use oxc_ast::ast::{BinaryOperator, UnaryOperator};
use std::cmp::Ordering;

/// Whether it makes a value of a value.
pub(super) fn calculates(operator: UnaryOperator) -> bool {
    !matches!(operator, UnaryOperator::Typeof | UnaryOperator::Delete)
}

/// The value of an operator with one operand, of those that calculate.
pub(super) fn unary(operator: UnaryOperator, operand: &Value) -> Value {
    match operator {
        UnaryOperator::UnaryPlus => Value::Number(number(operand)),
        UnaryOperator::UnaryNegation => Value::Number(-number(operand)),
        UnaryOperator::LogicalNot => Value::Bool(!truthy(operand)),
        UnaryOperator::BitwiseNot => Value::Number(f64::from(!int32(number(operand)))),
        UnaryOperator::Void | UnaryOperator::Typeof | UnaryOperator::Delete => Value::Undefined,
    }
}

/// The value of an operator between two operands; `None` for `in` and `instanceof`.
pub(super) fn binary(operator: BinaryOperator, left: &Value, right: &Value) -> Option<Value> {
    use BinaryOperator as Op;
    let numbers = || (number(left), number(right));
    let bits = || (int32(number(left)), int32(number(right)));
    Some(match operator {
        Op::Equality => Value::Bool(loosely_equal(left, right)),
        Op::Inequality => Value::Bool(!loosely_equal(left, right)),
        Op::StrictEquality => Value::Bool(strictly_equal(left, right)),
        Op::StrictInequality => Value::Bool(!strictly_equal(left, right)),
        Op::LessThan => Value::Bool(order(left, right).is_some_and(Ordering::is_lt)),
        Op::LessEqualThan => Value::Bool(order(left, right).is_some_and(Ordering::is_le)),
        Op::GreaterThan => Value::Bool(order(left, right).is_some_and(Ordering::is_gt)),
        Op::GreaterEqualThan => Value::Bool(order(left, right).is_some_and(Ordering::is_ge)),
        Op::Addition if is_texty(left) || is_texty(right) => {
            Value::String(string(left) + &string(right))
        }
        Op::Addition => with(numbers(), |a, b| a + b),
        Op::Subtraction => with(numbers(), |a, b| a - b),
        Op::Multiplication => with(numbers(), |a, b| a * b),
        Op::Division => with(numbers(), |a, b| a / b),
        Op::Remainder => with(numbers(), |a, b| a % b),
        Op::Exponential => with(numbers(), power),
        Op::ShiftLeft => with(bits(), |a, b| f64::from(a.wrapping_shl(b as u32))),
        Op::ShiftRight => with(bits(), |a, b| f64::from(a.wrapping_shr(b as u32))),
        Op::ShiftRightZeroFill => with(bits(), |a, b| f64::from((a as u32).wrapping_shr(b as u32))),
        Op::BitwiseOR => with(bits(), |a, b| f64::from(a | b)),
        Op::BitwiseXOR => with(bits(), |a, b| f64::from(a ^ b)),
        Op::BitwiseAnd => with(bits(), |a, b| f64::from(a & b)),
        Op::In | Op::Instanceof => return None,
    })
}

fn with<T>((left, right): (T, T), operation: impl Fn(T, T) -> f64) -> Value {
    Value::Number(operation(left, right))
}

/// Whether `+` makes a text of it.
fn is_texty(value: &Value) -> bool {
    matches!(value, Value::String(_)) || is_object(value)
}

fn is_object(value: &Value) -> bool {
    matches!(value, Value::List(_) | Value::Map(_) | Value::Regex { .. })
}

/// C's pow has a value for 1 to an infinite or missing power, JavaScript has none.
fn power(base: f64, exponent: f64) -> f64 {
    if exponent.is_nan() || (base.abs() == 1.0 && exponent.is_infinite()) {
        f64::NAN
    } else {
        base.powf(exponent)
    }
}

/// The low 32 bits of the whole part, as the bit operators take a number.
fn int32(number: f64) -> i32 {
    if number.is_finite() {
        number.trunc().rem_euclid(4_294_967_296.0) as u32 as i32
    } else {
        0
    }
}

/// `===`. Two lists or objects never are the same one: each is written where it is compared.
pub(super) fn strictly_equal(left: &Value, right: &Value) -> bool {
    !is_object(left) && left == right
}

/// `==`.
fn loosely_equal(left: &Value, right: &Value) -> bool {
    let is_nothing = |value: &Value| matches!(value, Value::Undefined | Value::Null);
    match (left, right) {
        _ if is_nothing(left) || is_nothing(right) => is_nothing(left) && is_nothing(right),
        _ if is_object(left) && is_object(right) => false,
        (Value::String(_), other) | (other, Value::String(_)) if is_object(other) => {
            string(left) == string(right)
        }
        (Value::String(left), Value::String(right)) => left == right,
        _ => number(left) == number(right),
    }
}

/// `<` and its like: texts by their UTF-16 units, all else as numbers; `None` when one of them is NaN.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    if is_texty(left) && is_texty(right) {
        let (left, right) = (string(left), string(right));
        return Some(left.encode_utf16().cmp(right.encode_utf16()));
    }
    number(left).partial_cmp(&number(right))
}
