//! Reads `lines.txt`, whose head says how it is written.

/// A case: its line in the file, the datagram and the effects as written.
pub(crate) struct Case {
    pub(crate) number: usize,
    pub(crate) datagram: Vec<u8>,
    pub(crate) expected: String,
}

/// Every case of the file.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, line) in include_str!("lines.txt").lines().enumerate() {
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
