//! What names mean: look-ups in values, in the machine's own objects, and calls.

use super::super::coerce::kind;
use super::super::coerce::{string, text_number};
use super::super::value::Value;
use super::evaluate::{Evaluated, Evaluator, Stop, is_nothing};
use super::explain;
use super::methods::{self, Trouble};
use oxc_ast::ast::{
    Argument, ArrowFunctionBody, CallExpression, ChainElement, ChainExpression,
    ComputedMemberExpression, Expression, FormalParameters, FunctionBody, Statement,
    StaticMemberExpression,
};
use oxc_span::GetSpan;

/// Objects that are there before the text is. They are no values: only what they hold is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Environment,
    Math,
    Os,
    Process,
}

/// What every object inherits: functions, so no values of a configuration.
const INHERITED: [&str; 12] = [
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
];

impl Evaluator<'_> {
    pub(super) fn chain(&mut self, chain: &ChainExpression<'_>) -> Evaluated {
        let value = match &chain.expression {
            ChainElement::CallExpression(call) => self.call(call),
            ChainElement::StaticMemberExpression(member) => self.static_member(member),
            ChainElement::ComputedMemberExpression(member) => self.computed_member(member),
            other => Err(self.fault(other, "not a plain value", explain::HINT_VALUE)),
        };
        match value {
            Err(Stop::Chain) => Ok(Value::Undefined),
            value => value,
        }
    }

    pub(super) fn static_member(&mut self, member: &StaticMemberExpression<'_>) -> Evaluated {
        self.look_up(
            &member.object,
            &member.property.name,
            member.optional,
            member,
        )
    }

    pub(super) fn computed_member(&mut self, member: &ComputedMemberExpression<'_>) -> Evaluated {
        let key = string(&self.evaluate(&member.expression)?);
        self.look_up(&member.object, &key, member.optional, member)
    }

    /// The name of the environment variable that an expression stands for.
    pub(super) fn variable(&self, expression: &Expression<'_>) -> Option<String> {
        let (object, name) = match expression {
            Expression::StaticMemberExpression(member) => {
                (&member.object, member.property.name.to_string())
            }
            Expression::ComputedMemberExpression(member) => match &member.expression {
                Expression::StringLiteral(name) => (&member.object, name.value.to_string()),
                _ => return None,
            },
            _ => return None,
        };
        (given(object) == Some(Given::Environment)).then_some(name)
    }

    /// `object.key`.
    fn look_up(
        &mut self,
        object: &Expression<'_>,
        key: &str,
        optional: bool,
        whole: &impl GetSpan,
    ) -> Evaluated {
        if let Some(given) = given(object) {
            return self.look_up_given(given, key, whole);
        }
        if key == "length" && is_processors(object) {
            return Ok(Value::Number(self.environment.processors as f64));
        }
        let value = self.something(object, key, optional, whole)?;
        let kind = kind(&value);
        let found = match value {
            Value::Map(entries) => match entries.into_iter().find(|entry| entry.key == key) {
                Some(entry) => Some(entry.node.value),
                None => (!INHERITED.contains(&key)).then_some(Value::Undefined),
            },
            Value::List(nodes) if key == "length" => Some(Value::Number(nodes.len() as f64)),
            Value::List(mut nodes) => match index(key) {
                Some(at) if (at as usize) < nodes.len() => {
                    Some(nodes.swap_remove(at as usize).value)
                }
                _ => is_number(key).then_some(Value::Undefined),
            },
            Value::String(text) if key == "length" => Some(Value::Number(methods::length(&text))),
            Value::String(text) => match index(key) {
                Some(at) => {
                    let unit = methods::unit(&text, at);
                    return self.outcome(unit, key, whole);
                }
                None => is_number(key).then_some(Value::Undefined),
            },
            _ => None,
        };
        found.ok_or_else(|| {
            let message = format!("{key} of {kind} is not supported");
            let hint = "texts and lists have .length, [0] and methods, which need ( ) behind them";
            self.fault(whole, message, hint)
        })
    }

    fn look_up_given(&mut self, given: Given, key: &str, whole: &impl GetSpan) -> Evaluated {
        match (given, key) {
            (Given::Environment, _) => {
                if let Some(text) = self.environment.variables.get(key) {
                    return self.built(Value::String(text.clone()), whole);
                }
                if INHERITED.contains(&key) {
                    let message = format!("process.env.{key} is a function");
                    return Err(self.fault(whole, message, explain::HINT_VALUE));
                }
                Ok(Value::Undefined)
            }
            (Given::Process, "pid") => Ok(Value::Number(self.environment.process_id.into())),
            (Given::Process, "platform") => Ok(Value::String("linux".into())),
            (Given::Os, "EOL") => Ok(Value::String("\n".into())),
            _ => {
                let name = given.name();
                let message = format!("{name}.{key} is not supported");
                Err(self.fault(whole, message, given.hint()))
            }
        }
    }

    /// The object before `.key`, which has to be more than undefined or null.
    fn something(
        &mut self,
        object: &Expression<'_>,
        key: &str,
        optional: bool,
        whole: &impl GetSpan,
    ) -> Evaluated {
        let value = self.evaluate(object)?;
        if !is_nothing(&value) {
            return Ok(value);
        }
        if optional {
            return Err(Stop::Chain);
        }
        let (what, hint) = match self.variable(object) {
            Some(name) => (
                format!("process.env.{name}, which is not set"),
                format!("set it before the start, or write (process.env.{name} || \"a default\")"),
            ),
            None => (
                string(&value),
                "look at what stands before it, or write the value itself".into(),
            ),
        };
        Err(self.fault(whole, format!("cannot read {key} of {what}"), hint))
    }

    pub(super) fn call(&mut self, call: &CallExpression<'_>) -> Evaluated {
        match &call.callee {
            Expression::Identifier(name) if name.name == "require" => {
                let message = match call.arguments.first() {
                    Some(Argument::StringLiteral(module)) => {
                        format!("the module {} is not a value", module.value)
                    }
                    _ => "a module is not a value".into(),
                };
                Err(self.fault(call, message, explain::HINT_REQUIRE))
            }
            Expression::Identifier(name) if methods::FUNCTIONS.contains(&name.name.as_str()) => {
                let arguments = self.arguments(call)?;
                let value = methods::function(&name.name, &arguments);
                self.outcome(value, &name.name, call)
            }
            Expression::Identifier(name) => {
                let message = format!("the function {} is not supported", name.name);
                Err(self.fault(call, message, explain::hint_functions()))
            }
            Expression::StaticMemberExpression(member) => {
                self.method(&member.object, &member.property.name, member.optional, call)
            }
            Expression::ComputedMemberExpression(member) => {
                let name = string(&self.evaluate(&member.expression)?);
                self.method(&member.object, &name, member.optional, call)
            }
            callee => match returned(callee).filter(|_| call.arguments.is_empty()) {
                Some(expression) => self.evaluate(expression),
                None if is_function(callee) => {
                    let message = "a function that does more than return a value";
                    Err(self.fault(call, message, "write only the value, without the function"))
                }
                None => {
                    let message = "a function call is not supported";
                    Err(self.fault(call, message, explain::HINT_CALL))
                }
            },
        }
    }

    fn method(
        &mut self,
        object: &Expression<'_>,
        name: &str,
        optional: bool,
        call: &CallExpression<'_>,
    ) -> Evaluated {
        if let Some(given) = given(object) {
            return self.method_of_given(given, name, call);
        }
        let value = self.something(object, name, optional, call)?;
        let known: &[&str] = match &value {
            Value::String(_) => &methods::TEXT_METHODS,
            Value::List(_) => &methods::LIST_METHODS,
            Value::Map(_) => &[],
            _ => &["toString"],
        };
        if !known.contains(&name) {
            let message = format!("the method {name} of {} is not supported", kind(&value));
            let hint = if known.is_empty() {
                explain::HINT_CALL.into()
            } else {
                format!(
                    "{}; the methods are {}",
                    explain::HINT_CALL,
                    known.join(", ")
                )
            };
            return Err(self.fault(call, message, hint));
        }
        let arguments = self.arguments(call)?;
        let (place, room) = (self.place(call), self.room());
        let value = match value {
            Value::String(text) => methods::of_text(&text, name, &arguments, place, room),
            Value::List(list) => methods::of_list(list, name, arguments, place, room),
            value if arguments.is_empty() => Ok(Value::String(string(&value))),
            _ => Err(Trouble::Arguments),
        };
        self.outcome(value, name, call)
    }

    fn method_of_given(
        &mut self,
        given: Given,
        name: &str,
        call: &CallExpression<'_>,
    ) -> Evaluated {
        let environment = self.environment;
        let known = match (given, name) {
            (Given::Os, "hostname") => &environment.host_name,
            (Given::Os, "platform") => &Some("linux".into()),
            (Given::Process, "cwd") => &environment.directory,
            (Given::Math, name) if methods::MATH.contains(&name) => {
                let arguments = self.arguments(call)?;
                return Ok(methods::math(name, &arguments));
            }
            _ => {
                let message = format!("{}.{name}() is not supported", given.name());
                return Err(self.fault(call, message, given.hint()));
            }
        };
        match known {
            Some(text) => self.built(Value::String(text.clone()), call),
            None => {
                let message = format!("the system does not tell {}.{name}()", given.name());
                Err(self.fault(call, message, "write the text itself"))
            }
        }
    }

    fn arguments(&mut self, call: &CallExpression<'_>) -> Result<Vec<Value>, Stop> {
        let values = call
            .arguments
            .iter()
            .map(|argument| match argument.as_expression() {
                Some(expression) => self.evaluate(expression),
                None => Err(self.fault(argument, "`...` in a call", "write the arguments out")),
            });
        // All of them, so that what is wrong in any is found.
        values.collect::<Vec<_>>().into_iter().collect()
    }

    fn outcome(
        &mut self,
        outcome: Result<Value, Trouble>,
        name: &str,
        at: &impl GetSpan,
    ) -> Evaluated {
        let (message, hint) = match outcome {
            Ok(value) => return self.built(value, at),
            Err(Trouble::TooLong) => return self.too_long(at),
            Err(Trouble::HalfPair) => (
                "half of a surrogate pair would be left of a text".into(),
                "write the finished text in quotes",
            ),
            Err(Trouble::Pattern) => (
                format!("{name} with a regular expression that is more than plain characters"),
                "use a text or one like /\\./g, or .split(\".\")[0] for what stands before a dot",
            ),
            Err(Trouble::NotGlobal) => (
                format!("{name} with a regular expression without the flag g"),
                "write a g behind it: /.../g",
            ),
            Err(Trouble::Arguments) => (
                format!("{name} with these arguments is not supported"),
                explain::HINT_CALL,
            ),
        };
        Err(self.fault(at, message, hint))
    }
}

impl Given {
    fn name(self) -> &'static str {
        match self {
            Self::Environment => "process.env",
            Self::Math => "Math",
            Self::Os => "os",
            Self::Process => "process",
        }
    }

    fn hint(self) -> String {
        match self {
            Self::Environment => "write process.env.NAME, the value of one variable".into(),
            Self::Math => format!(
                "write the result; there are Math.{}",
                methods::MATH.join(", ")
            ),
            Self::Os => explain::HINT_REQUIRE.into(),
            Self::Process => {
                "write the value itself; there are process.env.NAME, process.pid, process.cwd()"
                    .into()
            }
        }
    }
}

/// The object there before the text that an expression names.
fn given(expression: &Expression<'_>) -> Option<Given> {
    let member = |object: &Expression<'_>, key: &str| {
        (key == "env" && given(object) == Some(Given::Process)).then_some(Given::Environment)
    };
    match expression {
        Expression::Identifier(name) => match name.name.as_str() {
            "Math" => Some(Given::Math),
            "process" => Some(Given::Process),
            _ => None,
        },
        Expression::StaticMemberExpression(access) => member(&access.object, &access.property.name),
        Expression::ComputedMemberExpression(access) => match &access.expression {
            Expression::StringLiteral(key) => member(&access.object, &key.value),
            _ => None,
        },
        Expression::CallExpression(call) => match (&call.callee, call.arguments.as_slice()) {
            (Expression::Identifier(name), [Argument::StringLiteral(module)])
                if name.name == "require" && matches!(module.value.as_str(), "os" | "node:os") =>
            {
                Some(Given::Os)
            }
            _ => None,
        },
        _ => None,
    }
}

/// `require("os").cpus()`: of the list only the length is known.
fn is_processors(expression: &Expression<'_>) -> bool {
    matches!(expression, Expression::CallExpression(call)
        if matches!(&call.callee, Expression::StaticMemberExpression(member)
            if member.property.name == "cpus" && given(&member.object) == Some(Given::Os)))
}

fn is_function(expression: &Expression<'_>) -> bool {
    matches!(
        expression,
        Expression::FunctionExpression(_) | Expression::ArrowFunctionExpression(_)
    )
}

/// What a function without parameters returns, if that is all it does.
fn returned<'e, 'a>(callee: &'e Expression<'a>) -> Option<&'e Expression<'a>> {
    let takes_nothing = |parameters: &FormalParameters<'_>| {
        parameters.items.is_empty() && parameters.rest.is_none()
    };
    match callee {
        Expression::FunctionExpression(function)
            if !function.r#async && !function.generator && takes_nothing(&function.params) =>
        {
            only_return(function.body.as_deref()?)
        }
        Expression::ArrowFunctionExpression(function)
            if !function.r#async && takes_nothing(&function.params) =>
        {
            match &function.body {
                ArrowFunctionBody::FunctionBody(body) => only_return(body),
                body => body.as_expression(),
            }
        }
        _ => None,
    }
}

fn only_return<'e, 'a>(body: &'e FunctionBody<'a>) -> Option<&'e Expression<'a>> {
    let mut statements = body
        .statements
        .iter()
        .filter(|statement| !matches!(statement, Statement::EmptyStatement(_)));
    match (statements.next(), statements.next()) {
        (Some(Statement::ReturnStatement(statement)), None) => statement.argument.as_ref(),
        _ => None,
    }
}

fn index(key: &str) -> Option<u32> {
    key.parse().ok().filter(|at: &u32| at.to_string() == key)
}

/// A key that no text and no list has, but that is no name either: -1, 0.5.
fn is_number(key: &str) -> bool {
    !text_number(key).is_nan()
}
