//! Configurations of any text: what is wrong in them is said, and what is not comes to the same as JSON.

use statsd_fast::config::{self, Error, Evaluated, Loaded};
use std::fmt::Debug;

pub(crate) fn check(input: &[u8]) {
    // Text that is none is refused before anything looks at it.
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    alike(text, config::parse, config::evaluate_text);
    alike(text, config::parse_proxy, config::evaluate_proxy_text);
}

/// A kind of file: what it is parsed and printed by.
fn alike<C: PartialEq + Debug>(
    text: &str,
    parse: fn(&str, &str) -> Result<Loaded<C>, Error>,
    evaluate: fn(&str, &str) -> Result<Evaluated, Error>,
) {
    let loaded = match parse(text, "any") {
        Ok(loaded) => loaded,
        Err(error) => {
            assert!(!error.problems.is_empty());
            assert!(!error.to_string().is_empty());
            assert_eq!(evaluate(text, "any"), Err(error));
            return;
        }
    };
    let printed = evaluate(text, "any").expect("it is a configuration");
    assert_eq!(printed.warnings, loaded.warnings);
    // What is hidden, or cannot be written as JSON, means something else in it; a note says so. Of null and
    // the NaN that it stands for README does.
    if !printed.notes.is_empty() || printed.json.contains("null") {
        return;
    }
    let again = parse(&printed.json, "any");
    let again = again.unwrap_or_else(|error| panic!("{error}\n{}", printed.json));
    assert_eq!(again.config, loaded.config, "{}", printed.json);
    assert_eq!(again.fixed, loaded.fixed);
    let twice = evaluate(&printed.json, "any").expect("it is a configuration");
    assert_eq!(twice.json, printed.json);
}
