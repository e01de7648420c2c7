//! Lines with which server and original differ on purpose.

use super::line::{Effect, effects, rate};
use super::number::parse;

/// What every JavaScript object has from the start: the original keeps metrics in plain objects.
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

/// Why a line must not be put to the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Departure {
    /// A rate that is a number but has no digits right after the `@` makes it exit.
    RateWithoutDigits,
    /// A name that objects inherit is lost, garbage, or makes it exit.
    InheritedName,
    /// A set member that objects inherit a setter for is lost.
    InheritedMember,
}

/// The departure a non-empty line without its newline runs into. `sanitize` is `keyNameSanitize`.
pub(crate) fn departure(line: &[u8], sanitize: bool) -> Option<Departure> {
    if has_rate_without_digits(line) {
        return Some(Departure::RateWithoutDigits);
    }
    effects(line, sanitize)
        .into_iter()
        .find_map(|effect| match effect {
            Effect::Member { member, .. } if member == "__proto__" => {
                Some(Departure::InheritedMember)
            }
            Effect::Count { key, .. }
            | Effect::Time { key, .. }
            | Effect::GaugeSet { key, .. }
            | Effect::GaugeAdd { key, .. }
            | Effect::Member { key, .. } => INHERITED
                .contains(&key.as_str())
                .then_some(Departure::InheritedName),
            Effect::Reject(_) => None,
        })
}

fn has_rate_without_digits(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let metric = line.split("|#").next().unwrap_or("");
    metric.split(':').skip(1).any(|part| {
        let fields: Vec<&str> = part.split('|').collect();
        let &[value, kind, given, ..] = fields.as_slice() else {
            return false;
        };
        let numeric = given
            .strip_prefix('@')
            .filter(|number| !number.is_empty() && !number.starts_with('-'))
            .is_some_and(|number| parse(number).is_some());
        // A value that is bad itself is refused before the digits are looked for.
        let taken = effects(format!("a:{value}|{kind}").as_bytes(), true);
        numeric && rate(given).is_none() && !matches!(taken[0], Effect::Reject(_))
    })
}
