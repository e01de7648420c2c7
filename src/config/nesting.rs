//! Refuses text that nests too deep before a recursive parser sees it.
//!
//! The parser and the evaluator recurse, so their stack need follows the text. This scan bounds both
//! ways in which JavaScript nests: brackets, and chains without brackets (`- - - 1`, `a = a = a`,
//! `a ? b : a ? b : c`). Chains are bounded by counting tokens on the way from the root to a place; a
//! comma inside brackets starts afresh, so the length of a list costs nothing.

/// Brackets inside one another that a file may have.
pub(super) const DEPTH_MAX: usize = 64;

/// Tokens from the root to any place, finished neighbours left out; look-ups and calls count more.
pub(super) const PATH_TOKENS_MAX: usize = 512;

/// What the scan found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Nesting {
    /// Nothing but blanks and comments.
    Empty,
    /// Fit for the parser.
    Fine,
    /// More than the limits allow, at this byte.
    TooDeep(usize),
}

struct Level {
    tokens: usize,
    /// A `${` of a template literal: its `}` goes back into the template's text.
    in_template: bool,
}

/// Looks at `text` without recursion, in one pass.
pub(super) fn scan(text: &str) -> Nesting {
    let bytes = text.as_bytes();
    let mut levels = vec![Level {
        tokens: 0,
        in_template: false,
    }];
    let mut path_tokens = 0;
    let mut seen_any = false;
    // `if (a) b, c; else if (a) b, c; else ...` nests across commas; from an `else` on none is forgiven.
    let mut seen_else = false;
    let mut before = b'(';
    let mut at = 0;
    loop {
        at = next_token(text, at);
        if at == bytes.len() {
            break;
        }
        let start = at;
        let byte = bytes[at];
        at += 1;
        let mut tokens = 1;
        match byte {
            b'/' if !ends_value(before) => at = end_of_regex(bytes, at),
            b'"' | b'\'' => at = end_of_string(bytes, at, byte),
            b'`' => at = template_text(bytes, at, &mut levels),
            b'(' | b'[' | b'{' => {
                // `a[0]` and `a()` go one value deeper, for which the evaluator needs several calls.
                if ends_value(before) {
                    levels.last_mut().expect("the root stays").tokens += 2;
                    path_tokens += 2;
                }
                levels.push(Level {
                    tokens: 0,
                    in_template: false,
                });
            }
            b')' | b']' | b'}' if levels.len() > 1 => {
                let inner = levels.pop().expect("more than one level");
                path_tokens -= inner.tokens;
                if byte == b'}' && inner.in_template {
                    at = template_text(bytes, at, &mut levels);
                }
            }
            b',' if levels.len() > 1 && !seen_else => {
                let level = levels.last_mut().expect("the root stays");
                path_tokens -= std::mem::take(&mut level.tokens);
            }
            _ if is_word(byte) => {
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
                seen_else |= &bytes[start..at] == b"else";
                // As does each dot of `a.b.c`.
                tokens += 2 * bytes[start..at].iter().filter(|&&b| b == b'.').count();
            }
            _ => {}
        }
        seen_any = true;
        before = match byte {
            b'"' | b'\'' | b'`' => b'"',
            _ if is_word(byte) => b'a',
            other => other,
        };
        levels.last_mut().expect("the root stays").tokens += tokens;
        path_tokens += tokens;
        if levels.len() - 1 > DEPTH_MAX || path_tokens > PATH_TOKENS_MAX {
            return Nesting::TooDeep(start);
        }
    }
    if seen_any {
        Nesting::Fine
    } else {
        Nesting::Empty
    }
}

/// Where the first token stands, behind blanks and comments.
pub(super) fn first_token(text: &str) -> usize {
    next_token(text, 0)
}

/// Where the next token stands, or the end of the text.
fn next_token(text: &str, from: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = from;
    loop {
        match bytes.get(at) {
            Some(b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c) => at += 1,
            Some(b'/') if bytes.get(at + 1) == Some(&b'/') => at = end_of_line(bytes, at),
            Some(b'/') if bytes.get(at + 1) == Some(&b'*') => {
                let end = text[at + 2..].find("*/");
                at = end.map_or(bytes.len(), |len| at + 2 + len + 2);
            }
            _ => return at.min(bytes.len()),
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.') || byte >= 0x80
}

/// Whether a value may end with this kind of token.
fn ends_value(kind: u8) -> bool {
    matches!(kind, b')' | b']' | b'}' | b'a' | b'"')
}

fn end_of_line(bytes: &[u8], from: usize) -> usize {
    bytes[from..]
        .iter()
        .position(|b| matches!(b, b'\n' | b'\r'))
        .map_or(bytes.len(), |len| from + len)
}

/// An unclosed string ends with its line, as it does for the parser, which then reports it.
fn end_of_string(bytes: &[u8], from: usize, quote: u8) -> usize {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if bytes.get(at + 1) == Some(&b'\r') && bytes.get(at + 2) == Some(&b'\n') => {
                at += 3
            }
            b'\\' => at += 2,
            b'\n' | b'\r' => return at,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn end_of_regex(bytes: &[u8], from: usize) -> usize {
    let mut in_class = false;
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'\n' | b'\r' => return at,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'/' if !in_class => return at + 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Skips template text to its closing backtick, or opens a level at `${`.
fn template_text(bytes: &[u8], from: usize, levels: &mut Vec<Level>) -> usize {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'`' => return at + 1,
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                levels.push(Level {
                    tokens: 0,
                    in_template: true,
                });
                return at + 2;
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_only_where_they_are_code() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(scan(&nested(DEPTH_MAX)), Nesting::Fine);
        assert_eq!(scan(&nested(DEPTH_MAX + 1)), Nesting::TooDeep(DEPTH_MAX));
        let quoted = "[".repeat(1000);
        assert_eq!(
            scan(&format!(
                "{{ a: '{quoted}', /* {quoted} */ b: \"\\\"{quoted}\" }} // {quoted}"
            )),
            Nesting::Fine
        );
        assert_eq!(
            scan(&format!("[/[/{quoted}\"]/, `{quoted}${{1}}{quoted}`]")),
            Nesting::Fine
        );
    }

    #[test]
    fn strings_and_comments_do_not_hide_brackets_behind_them() {
        let deep = "[".repeat(DEPTH_MAX + 1);
        for lead in [
            "'a'",
            "\"\\\"\"",
            "/* ' */",
            "// '\n",
            "`'`",
            "`${'`'}`",
            "/'/",
            "'\\\r\n'",
            "a / b, '/'",
        ] {
            let text = format!("{lead}{deep}");
            assert!(matches!(scan(&text), Nesting::TooDeep(_)), "{text}");
        }
    }

    #[test]
    fn chains_are_bounded_and_lists_are_not() {
        assert!(matches!(
            scan(&"-".repeat(PATH_TOKENS_MAX + 1)),
            Nesting::TooDeep(_)
        ));
        assert!(matches!(
            scan(&"a=".repeat(PATH_TOKENS_MAX)),
            Nesting::TooDeep(_)
        ));
        assert!(matches!(
            scan(&"{if(1)a,b;else ".repeat(PATH_TOKENS_MAX)),
            Nesting::TooDeep(_)
        ));
        assert!(matches!(
            scan(&format!("({}", "if(1)a,b;else ".repeat(PATH_TOKENS_MAX))),
            Nesting::TooDeep(_)
        ));
        assert!(matches!(
            scan(&format!("a{}", ".a".repeat(PATH_TOKENS_MAX / 2))),
            Nesting::TooDeep(0)
        ));
        assert!(matches!(
            scan(&format!("a{}", "[0]".repeat(PATH_TOKENS_MAX / 3 + 1))),
            Nesting::TooDeep(_)
        ));
        assert_eq!(
            scan(&format!("[{}]", "-1, a.b, ".repeat(100_000))),
            Nesting::Fine
        );
    }

    #[test]
    fn blanks_and_comments_are_empty() {
        for text in ["", " \r\n\t", "// only\n/* this */", "/* unclosed"] {
            assert_eq!(scan(text), Nesting::Empty, "{text:?}");
        }
        assert_eq!(scan("{}"), Nesting::Fine);
    }
}
