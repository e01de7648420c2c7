//! What a name may consist of once it is clean.

/// White space as JavaScript's `trim()` and `\s` know it.
pub fn is_space(c: char) -> bool {
    matches!(c,
        '\t'..='\r' | ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{2028}'
        | '\u{2029}' | '\u{202f}' | '\u{205f}' | '\u{3000}' | '\u{feff}')
}

/// Cleans a name as the reference does: a run of white space becomes `_`, `/` becomes `-`, and what
/// is none of `a-z A-Z 0-9 _ - . ; =` goes.
pub fn cleaned(key: &str) -> String {
    let mut clean = String::with_capacity(key.len());
    let mut in_space = false;
    for c in key.chars() {
        let space = is_space(c);
        match c {
            _ if space && in_space => {}
            _ if space => clean.push('_'),
            '/' => clean.push('-'),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' | '.' | ';' | '=' => clean.push(c),
            _ => {}
        }
        in_space = space;
    }
    clean
}
