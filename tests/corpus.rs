//! `tests/corpus/lines.txt`: every case against the naive reference and against the server's own parser.

mod parsed;
mod reference;

use reference::effects;

/// A case: its line in the file, the datagram and the effects as written.
struct Case {
    number: usize,
    datagram: Vec<u8>,
    expected: String,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, line) in include_str!("corpus/lines.txt").lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = index + 1;
        let (input, expected) = line
            .split_once(" => ")
            .unwrap_or_else(|| panic!("lines.txt:{number}: no ` => ` in {line:?}"));
        let datagram = unescape(input).unwrap_or_else(|| {
            panic!("lines.txt:{number}: bad escape, use \\n \\r \\t \\\\ \\xNN: {input:?}")
        });
        cases.push(Case {
            number,
            datagram,
            expected: expected.to_string(),
        });
    }
    cases
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if !c.is_ascii() {
            return None;
        }
        if c != '\\' {
            bytes.push(c as u8);
            continue;
        }
        bytes.push(match chars.next()? {
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            '\\' => b'\\',
            'x' => {
                let digits: String = chars.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16)
                    .ok()
                    .filter(|_| digits.len() == 2)?
            }
            _ => return None,
        });
    }
    Some(bytes)
}

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
