//! Refuses text that nests too deep before a recursive parser sees it.
//!
//! The parser and the evaluator recurse, so their stack need follows the text. This scan bounds both
//! ways in which JavaScript nests: brackets, and chains without brackets (`- - - 1`, `a = a = a`,
//! `a ? b : a ? b : c`). Chains are bounded by counting tokens on the way from the root to a place; a
//! comma inside brackets starts afresh, so the length of a list costs nothing.
//!
//! A `/` divides or begins a regular expression, and reading it wrongly would hide brackets. Where only a
//! parser can tell, the text is refused: no configuration needs such a place.

use super::coerce::is_blank;

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
    /// At this byte it cannot be told what is code.
    Unclear(usize),
}

/// What the token before a place was, as far as it says what a `/` there means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// A value may have ended: it divides.
    Value,
    /// A value is due: it begins a regular expression.
    Operator,
    /// It may be either.
    Either,
}

struct Level {
    tokens: usize,
    /// A `${` of a template literal: its `}` goes back into the template's text.
    in_template: bool,
    /// What its closing bracket is to a `/` behind it.
    closes_as: Before,
}

/// Words that a value follows; behind those of the second list it depends.
const OPERATORS: [&[u8]; 11] = [
    b"case",
    b"delete",
    b"do",
    b"else",
    b"in",
    b"instanceof",
    b"new",
    b"return",
    b"throw",
    b"typeof",
    b"void",
];
const EITHER: [&[u8]; 4] = [b"async", b"await", b"of", b"yield"];
/// Words whose brackets are followed by a statement.
const STATEMENTS: [&[u8]; 4] = [b"for", b"if", b"while", b"with"];

/// Looks at `text` without recursion, in one pass.
pub(super) fn scan(text: &str) -> Nesting {
    let bytes = text.as_bytes();
    let mut levels = vec![Level {
        tokens: 0,
        in_template: false,
        closes_as: Before::Value,
    }];
    let mut path_tokens = 0;
    let mut seen_any = false;
    // `if (a) b, c; else if (a) b, c; else ...` nests across commas; from an `else` on none is forgiven.
    let mut seen_else = false;
    let mut before = Before::Operator;
    // The last token: its first byte, and the token itself when it is a word.
    let mut last = (b'(', &b""[..]);
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
        let mut word = &b""[..];
        let mut after = Before::Operator;
        match byte {
            b'<' if bytes[start..].starts_with(b"<!--") => return Nesting::Unclear(start),
            b'-' if bytes[start..].starts_with(b"-->") => return Nesting::Unclear(start),
            b'/' if before == Before::Either => return Nesting::Unclear(start),
            b'/' if before == Before::Operator => {
                at = end_of_regex(text, at);
                after = Before::Value;
            }
            // `a++ / b` divides, `++ /a/` is an error behind a regular expression.
            b'+' | b'-' if bytes.get(at) == Some(&byte) => {
                at += 1;
                tokens = 2;
                after = Before::Either;
            }
            b'"' | b'\'' => {
                at = end_of_string(bytes, at, byte);
                after = Before::Value;
            }
            b'`' => (at, after) = template_text(bytes, at, &mut levels),
            b'(' | b'[' | b'{' => {
                // `a[0]` and `a()` go one value deeper, for which the evaluator needs several calls.
                if before != Before::Operator {
                    levels.last_mut().expect("the root stays").tokens += 2;
                    path_tokens += 2;
                }
                let closes_as = match byte {
                    b'(' if STATEMENTS.contains(&last.1) => Before::Either,
                    // Where a value is due it is an object; elsewhere it may be a block.
                    b'{' if matches!(last.0, b';' | b'{' | b'}' | b')' | b'>')
                        || is_word(last.0) =>
                    {
                        Before::Either
                    }
                    _ => Before::Value,
                };
                levels.push(Level {
                    tokens: 0,
                    in_template: false,
                    closes_as,
                });
            }
            b')' | b']' | b'}' if levels.len() > 1 => {
                let inner = levels.pop().expect("more than one level");
                path_tokens -= inner.tokens;
                after = inner.closes_as;
                if byte == b'}' && inner.in_template {
                    (at, after) = template_text(bytes, at, &mut levels);
                }
            }
            b')' | b']' | b'}' => after = Before::Value,
            b',' if levels.len() > 1 && !seen_else => {
                let level = levels.last_mut().expect("the root stays");
                path_tokens -= std::mem::take(&mut level.tokens);
            }
            _ if is_word(byte) => {
                at = end_of_word(text, start);
                word = &bytes[start..at];
                seen_else |= word == b"else";
                // As does each dot of `a.b.c`.
                tokens += 2 * word.iter().filter(|&&b| b == b'.').count();
                after = if OPERATORS.contains(&word) {
                    Before::Operator
                } else if EITHER.contains(&word) {
                    Before::Either
                } else {
                    Before::Value
                };
            }
            _ => {}
        }
        seen_any = true;
        before = after;
        last = (byte, word);
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
            Some(b'/') if bytes.get(at + 1) == Some(&b'/') => at = end_of_line(text, at),
            Some(b'/') if bytes.get(at + 1) == Some(&b'*') => {
                let end = text[at + 2..].find("*/");
                at = end.map_or(bytes.len(), |len| at + 2 + len + 2);
            }
            Some(_) => match text[at..].chars().next() {
                Some(c) if is_blank(c) => at += c.len_utf8(),
                _ => return at,
            },
            None => return bytes.len(),
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.') || byte >= 0x80
}

/// Blanks beyond ASCII end a word as those of ASCII do.
fn end_of_word(text: &str, from: usize) -> usize {
    let ends = |c: char| is_blank(c) || (c.is_ascii() && !is_word(c as u8));
    text[from..].find(ends).map_or(text.len(), |len| from + len)
}

fn ends_line(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}')
}

fn end_of_line(text: &str, from: usize) -> usize {
    text[from..]
        .find(ends_line)
        .map_or(text.len(), |len| from + len)
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

fn end_of_regex(text: &str, from: usize) -> usize {
    let mut in_class = false;
    let mut escaped = false;
    for (at, c) in text[from..].char_indices() {
        let at = from + at;
        match c {
            _ if ends_line(c) => return at,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '/' if !in_class => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Skips template text to its closing backtick, behind which a value has ended, or opens a level at `${`.
fn template_text(bytes: &[u8], from: usize, levels: &mut Vec<Level>) -> (usize, Before) {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'`' => return (at + 1, Before::Value),
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                levels.push(Level {
                    tokens: 0,
                    in_template: true,
                    closes_as: Before::Value,
                });
                return (at + 2, Before::Operator);
            }
            _ => {}
        }
        at += 1;
    }
    (bytes.len(), Before::Value)
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
    fn a_slash_is_read_as_the_parser_reads_it_or_refused() {
        let deep = "[".repeat(DEPTH_MAX + 1);
        for lead in [
            "typeof /\"/ + ",
            "void /'/ + ",
            "/a/ / '/' + ",
            "/a/g / ",
            "`a` / ",
            "{a: 1} / ",
            "(1) / '/' / ",
            "[1] / ",
            "1 //\u{2028} + ",
            "1 //\u{2029} + ",
            "+\u{a0}/'/ + ",
            "a\u{2028}/ ",
            "a.typeof / ",
        ] {
            let text = format!("_= {lead}{deep}");
            assert!(matches!(scan(&text), Nesting::TooDeep(_)), "{text}");
        }
        for unclear in [
            "(function(){ if (1) /\"/ + [[[ }",
            "b++ / [[[",
            "--/'/",
            "1 <!-- /*\n + [[[",
            "1\n--> /*\n+[[[",
            "(function(){ {} /'/ + [ }",
            "x => {} / '",
            "yield / '",
        ] {
            assert!(matches!(scan(unclear), Nesting::Unclear(_)), "{unclear}");
        }
        for fine in [
            "10 * 1000 / 2",
            "(a) / 2",
            "{a: [1 / 2, {b: 1}], c: x.y / 3}",
            "/a[/]b/.x",
        ] {
            assert_eq!(scan(fine), Nesting::Fine, "{fine}");
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
