//! Keeps our credentials out of what is logged: a server or a proxy may answer with what it was sent.

/// Backslashes before one character: of a quotation mark in JSON that is escaped once more for the log.
const BACKSLASHES_MAX: usize = 3;

/// What must not be shown.
pub(super) struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    /// Empty ones hide nothing.
    pub(super) fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all: Vec<_> = secrets
            .into_iter()
            // Base64 may come without its end.
            .flat_map(|secret| [secret, secret.trim_end_matches('=')])
            .filter(|secret| !secret.is_empty())
            .map(|secret| secret.as_bytes().to_vec())
            .collect();
        // Of two that begin alike, the longer one hides the other too.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        all.dedup();
        Self(all)
    }

    /// A text with `***` for every secret, as it is, as JSON may escape it, or as an address does.
    pub(super) fn mask(&self, text: &str) -> String {
        let mut masked = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((first, next)) = rest.split_first() {
            match self.0.iter().find_map(|secret| behind(rest, secret)) {
                Some(behind) => {
                    masked.extend_from_slice(b"***");
                    rest = behind;
                }
                None => {
                    masked.push(*first);
                    rest = next;
                }
            }
        }
        String::from_utf8_lossy(&masked).into_owned()
    }
}

/// What follows a secret at the beginning of a text.
fn behind<'a>(text: &'a [u8], secret: &[u8]) -> Option<&'a [u8]> {
    secret.iter().try_fold(text, |rest, byte| one(rest, *byte))
}

/// What follows one byte, however it is written, at the beginning of a text.
fn one(mut text: &[u8], byte: u8) -> Option<&[u8]> {
    for _ in 0..=BACKSLASHES_MAX {
        match text {
            [b'%', high, low, rest @ ..] if hexadecimal(*high, *low) == Some(byte) => {
                return Some(rest);
            }
            [b'\\', b'u', b'0', b'0', high, low, rest @ ..]
                if byte.is_ascii() && hexadecimal(*high, *low) == Some(byte) =>
            {
                return Some(rest);
            }
            // A backslash that is escaped itself.
            [b'\\', b'\\', rest @ ..] if byte == b'\\' => return Some(rest),
            [first, rest @ ..] if *first == byte => return Some(rest),
            [b'\\', rest @ ..] => text = rest,
            _ => return None,
        }
    }
    None
}

fn hexadecimal(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(high)? << 4 | digit(low)?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_however_they_are_written() {
        let secrets = Secrets::new(["to/k+\"1", "dXNl/g==", ""]);
        for text in [
            "to/k+\"1",
            r#"to\/k+\"1"#,
            r#"to\\/k+\\\"1"#,
            r#"to\u002fk\u002B\"1"#,
            "to%2Fk%2b%221",
            "%74%6f/k+%221",
            "dXNl/g==",
            "dXNl/g",
            r"dXNl\/g==",
            "dXNl%2Fg%3D%3d",
        ] {
            let said = secrets.mask(&format!("\u{fc} {text} \u{fc}"));
            assert_eq!(said, "\u{fc} *** \u{fc}", "{text}");
        }
        for text in [
            "",
            "to/k",
            "to/k+\"",
            "\\",
            "%",
            "%7",
            "\\u00",
            "to/k+\"\u{fc}",
        ] {
            assert_eq!(secrets.mask(text), text);
        }
    }

    #[test]
    fn a_secret_may_have_backslashes() {
        let secrets = Secrets::new([r"a\b"]);
        for text in [r"a\b", r"a\\b", "a%5Cb", r"a\u005cb"] {
            assert_eq!(secrets.mask(text), "***", "{text}");
        }
    }
}
