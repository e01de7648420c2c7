//! Reads the files of this folder, whose README says how they are written.
#![allow(
    dead_code,
    reason = "each test program uses its own part of the corpus"
)]

/// A file, by its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File(&'static str, &'static str);

/// Lines and what they do in dialect statsd.
pub(crate) const LINES: File = File("lines.txt", include_str!("lines.txt"));
/// The same in dialect auto, wherever that differs or is more.
pub(crate) const DOGSTATSD: File = File("dogstatsd.txt", include_str!("dogstatsd.txt"));

/// A case: its line in the file, the datagram and the effects as written.
pub(crate) struct Case {
    pub(crate) file: &'static str,
    pub(crate) number: usize,
    pub(crate) datagram: Vec<u8>,
    pub(crate) expected: String,
}

/// Every case of a file.
pub(crate) fn cases(File(file, text): File) -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = index + 1;
        let (input, expected) = line
            .split_once(" => ")
            .unwrap_or_else(|| panic!("{file}:{number}: no ` => ` in {line:?}"));
        let datagram = unescape(input).unwrap_or_else(|| {
            panic!("{file}:{number}: bad escape, use \\n \\r \\t \\\\ \\xNN: {input:?}")
        });
        cases.push(Case {
            file,
            number,
            datagram,
            expected: expected.to_string(),
        });
    }
    cases
}

pub(crate) fn unescape(text: &str) -> Option<Vec<u8>> {
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
