//! `tests/corpus/lines.txt`: every case against the naive reference and against the server's own parser.

#[path = "corpus/cases.rs"]
mod cases;
mod parsed;
mod reference;

use cases::{Case, cases};
use reference::effects;

/// Joins effects as the corpus writes them.
fn notation(effects: &[String]) -> String {
    if effects.is_empty() {
        "none".into()
    } else {
        effects.join(" ; ")
    }
}

#[test]
fn corpus_is_well_formed() {
    let cases = cases();
    assert!(cases.len() >= 400, "only {} cases were read", cases.len());
    let mut inputs: Vec<&[u8]> = cases.iter().map(|case| &case.datagram[..]).collect();
    inputs.sort();
    if let Some(twice) = inputs.windows(2).find(|pair| pair[0] == pair[1]) {
        panic!(
            "case {:?} is there twice",
            String::from_utf8_lossy(twice[0])
        );
    }
    for reason in [
        "no-type",
        "bad-rate",
        "empty-value",
        "not-a-number",
        "negative-timer",
    ] {
        let reject = format!("reject {reason}");
        assert!(
            cases.iter().any(|case| case.expected == reject),
            "no case for {reason}"
        );
    }
}

/// Holds every case against `reader`: datagram -> effects.
fn assert_corpus(reader: impl Fn(&[u8]) -> Vec<String>) {
    let mut failures = Vec::new();
    for Case {
        number,
        datagram,
        expected,
    } in cases()
    {
        let found = notation(&reader(&datagram));
        if found != expected {
            failures.push(format!(
                "lines.txt:{number}: expected {expected}, found {found}"
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn reference_agrees_with_the_corpus() {
    assert_corpus(|datagram| {
        let lines = datagram
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .flat_map(|line| effects(line, true))
            .map(|effect| effect.to_string())
            .collect()
    });
}

#[test]
fn parser_agrees_with_the_corpus() {
    assert_corpus(parsed::packet);
}

#[test]
fn slow_path_of_the_parser_agrees_with_the_corpus() {
    assert_corpus(parsed::line_by_line);
}
