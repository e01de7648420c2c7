//! A regular expression as JavaScript has it, within bounds of time.
//!
//! The text is rewritten into what the engine reads: `\d` and `\w` are ASCII, `\s` and `.` are those of
//! JavaScript, a class is a flat list. A group may have flags of its own, `(?i:...)`. Not as there:
//! characters are not halves of UTF-16, and a back-reference to a group that took no part does not match.

use fancy_regex::{Regex, RegexBuilder};
use std::fmt;
use std::fmt::Write as _;
use std::ops::Range;

/// Steps back that one search may take: about a millisecond. Patterns that only look around need hundreds.
const STEPS_MAX: usize = 20_000;

/// What `\s` stands for, inside a class.
const BLANKS: &str = concat!(
    r"\t\n\x0b\x0c\r \x{a0}\x{1680}\x{2000}-\x{200a}",
    r"\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}"
);
/// What `\w` stands for, inside a class.
const WORD: &str = "0-9A-Z_a-z";

/// A regular expression, compiled. Two are equal when they were written alike.
#[derive(Clone)]
pub struct Pattern {
    source: String,
    flags: String,
    regex: Regex,
}

/// Where in a text a pattern was found, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The whole match.
    pub whole: Range<usize>,
    /// The first group in it.
    pub group: Range<usize>,
}

/// A search went back too often and was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

impl Pattern {
    /// Compiles what stands between the slashes, with the letters behind them: `i`, `m`, `s`, `u`; `g` and
    /// `d` mean nothing here.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn new(source: &str, flags: &str) -> Result<Self, String> {
        if let Some(flag) = flags.chars().find(|flag| !"dgimsu".contains(*flag)) {
            return Err(format!("the flag {flag} is not supported"));
        }
        let translated = Translator::new(source, flags).run()?;
        let regex = RegexBuilder::new(&translated)
            .case_insensitive(flags.contains('i'))
            .multi_line(flags.contains('m'))
            .backtrack_limit(STEPS_MAX)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            source: source.into(),
            flags: flags.into(),
            regex,
        })
    }

    /// One text that means without flags what `source` means with these, for where flags cannot be written:
    /// `a` with `i` is `(?i:a)`. `None` when no text does.
    pub fn without_flags(source: &str, flags: &str) -> Option<String> {
        // What only the flag u makes special.
        let braced = ["\\p{", "\\P{", "\\u{"];
        if flags.contains(['v', 'y'])
            || flags.contains('u') && braced.iter().any(|it| source.contains(it))
        {
            return None;
        }
        let kept: String = flags.chars().filter(|flag| "ims".contains(*flag)).collect();
        Some(if kept.is_empty() {
            format!("/{source}/")
        } else {
            format!("(?{kept}:{source})")
        })
    }

    /// Whether something in it is in brackets that catch what is found there.
    pub fn has_group(&self) -> bool {
        self.regex.captures_len() > 1
    }

    /// Whether it is found anywhere in the text.
    ///
    /// # Errors
    /// When finding out takes too long.
    pub fn is_match(&self, text: &str) -> Result<bool, Exhausted> {
        self.regex.is_match(text).map_err(|_| Exhausted)
    }

    /// Where it is found first, when its first group took part and is not empty.
    ///
    /// # Errors
    /// When finding out takes too long.
    pub fn first_group(&self, text: &str) -> Result<Option<Found>, Exhausted> {
        if !self.has_group() {
            return Ok(None);
        }
        let captures = self.regex.captures(text).map_err(|_| Exhausted)?;
        Ok(captures.and_then(|captures| {
            let (whole, group) = (captures.get(0)?.range(), captures.get(1)?.range());
            (!group.is_empty()).then_some(Found { whole, group })
        }))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        (&self.source, &self.flags) == (&other.source, &other.flags)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/{}", self.source, self.flags)
    }
}

/// JavaScript's spelling -> the engine's.
struct Translator<'t> {
    source: Vec<char>,
    at: usize,
    flags: &'t str,
    /// Whether a dot takes ends of lines too, here and in each group that is open around it.
    dot_all: bool,
    around: Vec<bool>,
    out: String,
}

/// What an escape stands for.
enum Atom {
    Char(char),
    /// The inside of a class, and whether everything else is meant.
    Set(&'static str, bool),
    /// `\p{...}` as it is.
    Property(String),
}

impl<'t> Translator<'t> {
    fn new(source: &str, flags: &'t str) -> Self {
        Self {
            source: source.chars().collect(),
            at: 0,
            flags,
            dot_all: flags.contains('s'),
            around: Vec::new(),
            out: String::new(),
        }
    }

    fn run(mut self) -> Result<String, String> {
        while let Some(c) = self.next() {
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.group()?,
                ')' => {
                    self.dot_all = self.around.pop().unwrap_or(self.dot_all);
                    self.out.push(')');
                }
                '.' if self.dot_all => self.out.push_str("(?s:.)"),
                '.' => self.out.push_str(r"[^\n\r\x{2028}\x{2029}]"),
                '{' => match self.quantifier() {
                    Some(end) => {
                        self.out.push('{');
                        self.out.extend(&self.source[self.at..end]);
                        self.at = end;
                    }
                    None => self.literal('{'),
                },
                '}' | ']' => self.literal(c),
                '*' | '+' | '?' | '|' | '^' | '$' => self.out.push(c),
                _ => self.literal(c),
            }
        }
        Ok(self.out)
    }

    fn peek(&self) -> Option<char> {
        self.source.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Takes these characters if they come next.
    fn take(&mut self, text: &str) -> bool {
        let found = self.source[self.at..]
            .iter()
            .copied()
            .take(text.chars().count());
        let there = found.eq(text.chars());
        if there {
            self.at += text.chars().count();
        }
        there
    }

    /// A character that means only itself.
    fn literal(&mut self, c: char) {
        if c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii() {
            self.out.push(c);
        } else {
            self.code(c);
        }
    }

    fn code(&mut self, c: char) {
        // Writing to a String cannot fail.
        let _ = write!(self.out, r"\x{{{:x}}}", u32::from(c));
    }

    /// Where `2}`, `2,}` or `2,3}` ends that comes next; a brace before anything else is a brace.
    fn quantifier(&self) -> Option<usize> {
        let rest = &self.source[self.at..];
        let close = rest.iter().position(|c| *c == '}')?;
        let inside: String = rest[..close].iter().collect();
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let (least, most) = inside.split_once(',').unwrap_or((&inside, ""));
        (!least.is_empty() && digits(least) && digits(most)).then_some(self.at + close + 1)
    }

    fn group(&mut self) -> Result<(), String> {
        self.around.push(self.dot_all);
        self.out.push('(');
        if !self.take("?") {
            return Ok(());
        }
        for known in [":", "=", "!", "<=", "<!"] {
            if self.take(known) {
                self.out.push('?');
                self.out.push_str(known);
                return Ok(());
            }
        }
        if self.take("<") {
            let name = self.until('>')?;
            let _ = write!(self.out, "?<{name}>");
            return Ok(());
        }
        if self.modifiers() {
            return Ok(());
        }
        Err(
            "a group begins with (?, but not with (?:, (?=, (?!, (?<=, (?<!, (?<name> or flags as in (?i:"
                .into(),
        )
    }

    /// Flags for the inside of one group, if they come next: `i:`, `-s:`, `im-s:`, each letter once.
    fn modifiers(&mut self) -> bool {
        let rest = &self.source[self.at..];
        let Some(end) = rest.iter().position(|c| *c == ':') else {
            return false;
        };
        let text: String = rest[..end].iter().collect();
        let (on, off) = text.split_once('-').unwrap_or((&text, ""));
        let letters = || on.chars().chain(off.chars());
        let once = |letter: char| letters().filter(|it| *it == letter).count() == 1;
        if letters().next().is_none() || !letters().all(|it| "ims".contains(it) && once(it)) {
            return false;
        }
        self.dot_all = (self.dot_all || on.contains('s')) && !off.contains('s');
        self.at += end + 1;
        // The dot is spelt out; the engine never sees its flag.
        let engine = |flags: &str| flags.replace('s', "");
        let (on, off) = (engine(on), engine(off));
        let minus = if off.is_empty() { "" } else { "-" };
        let _ = write!(self.out, "?{on}{minus}{off}:");
        true
    }

    fn until(&mut self, end: char) -> Result<String, String> {
        let rest = &self.source[self.at..];
        let len = rest.iter().position(|c| *c == end);
        let len = len.ok_or_else(|| format!("{end} is missing"))?;
        let text = rest[..len].iter().collect();
        self.at += len + 1;
        Ok(text)
    }

    fn escape(&mut self) -> Result<(), String> {
        let word = format!("[{WORD}]");
        match self.peek() {
            Some('b') => {
                self.at += 1;
                let _ = write!(self.out, "(?:(?<={word})(?!{word})|(?<!{word})(?={word}))");
                return Ok(());
            }
            Some('B') => {
                self.at += 1;
                let _ = write!(self.out, "(?:(?<={word})(?={word})|(?<!{word})(?!{word}))");
                return Ok(());
            }
            Some('1'..='9') => {
                self.out.push_str("(?:\\");
                while let Some(digit) = self.peek().filter(char::is_ascii_digit) {
                    self.out.push(digit);
                    self.at += 1;
                }
                // Apart from a digit that follows.
                self.out.push(')');
                return Ok(());
            }
            Some('k') if self.source.get(self.at + 1) == Some(&'<') => {
                self.at += 2;
                let name = self.until('>')?;
                let _ = write!(self.out, r"\k<{name}>");
                return Ok(());
            }
            _ => {}
        }
        match self.atom()? {
            Atom::Char(c) => self.literal(c),
            Atom::Set(set, negated) => {
                let not = if negated { "^" } else { "" };
                let _ = write!(self.out, "[{not}{set}]");
            }
            Atom::Property(text) => self.out.push_str(&text),
        }
        Ok(())
    }

    /// What follows a backslash.
    fn atom(&mut self) -> Result<Atom, String> {
        let c = self.next().ok_or("it ends with a backslash")?;
        Ok(Atom::Char(match c {
            'd' | 'D' => return Ok(Atom::Set("0-9", c == 'D')),
            'w' | 'W' => return Ok(Atom::Set(WORD, c == 'W')),
            's' | 'S' => return Ok(Atom::Set(BLANKS, c == 'S')),
            'p' | 'P' if self.flags.contains('u') && self.take("{") => {
                let name = self.until('}')?;
                return Ok(Atom::Property(format!(r"\{c}{{{name}}}")));
            }
            't' => '\t',
            'n' => '\n',
            'r' => '\r',
            'f' => '\u{c}',
            'v' => '\u{b}',
            '0' => '\0',
            'c' => match self.peek().filter(char::is_ascii_alphabetic) {
                Some(letter) => {
                    self.at += 1;
                    char::from(letter as u8 % 32)
                }
                None => 'c',
            },
            'x' => match self.hex(2) {
                Some(code) => code_point(code)?,
                None => 'x',
            },
            'u' if self.flags.contains('u') && self.take("{") => {
                let digits = self.until('}')?;
                code_point(u32::from_str_radix(&digits, 16).unwrap_or(u32::MAX))?
            }
            'u' => match self.hex(4) {
                Some(high @ 0xd800..0xdc00) => {
                    let low = if self.take("\\u") { self.hex(4) } else { None };
                    let low = low.filter(|low| (0xdc00..0xe000).contains(low));
                    let low = low.ok_or("half of a surrogate pair")?;
                    code_point(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))?
                }
                Some(code) => code_point(code)?,
                None => 'u',
            },
            other => other,
        }))
    }

    /// So many hexadecimal digits, if they come next.
    fn hex(&mut self, digits: usize) -> Option<u32> {
        let text = self.source.get(self.at..self.at + digits)?;
        let code = text
            .iter()
            .try_fold(0, |code, c| Some(code * 16 + c.to_digit(16)?))?;
        self.at += digits;
        Some(code)
    }

    fn class(&mut self) -> Result<(), String> {
        let negated = self.take("^");
        if self.take("]") {
            // Nothing, and everything.
            self.out.push_str(if negated { "(?s:.)" } else { "(?!)" });
            return Ok(());
        }
        self.out.push_str(if negated { "[^" } else { "[" });
        while !self.take("]") {
            let first = self.class_atom()?;
            // A `-` at either end is one, and so it is beside a set.
            let is_range =
                self.peek() == Some('-') && self.source.get(self.at + 1).is_some_and(|c| *c != ']');
            match first {
                Atom::Char(from) if is_range => {
                    self.at += 1;
                    match self.class_atom()? {
                        Atom::Char(to) if from <= to => {
                            self.code(from);
                            self.out.push('-');
                            self.code(to);
                        }
                        Atom::Char(to) => {
                            return Err(format!("the range {from}-{to} is backwards"));
                        }
                        set => {
                            self.code(from);
                            self.code('-');
                            self.in_class(set);
                        }
                    }
                }
                atom => self.in_class(atom),
            }
        }
        self.out.push(']');
        Ok(())
    }

    fn in_class(&mut self, atom: Atom) {
        match atom {
            Atom::Char(c) => self.code(c),
            Atom::Set(set, false) => self.out.push_str(set),
            Atom::Set(set, true) => {
                let _ = write!(self.out, "[^{set}]");
            }
            Atom::Property(text) => self.out.push_str(&text),
        }
    }

    fn class_atom(&mut self) -> Result<Atom, String> {
        match self.next().ok_or("a ] is missing")? {
            '\\' if self.take("b") => Ok(Atom::Char('\u{8}')),
            '\\' => self.atom(),
            c => Ok(Atom::Char(c)),
        }
    }
}

fn code_point(code: u32) -> Result<char, String> {
    char::from_u32(code).ok_or_else(|| format!("{code:x} is the code of no character"))
}

#[cfg(test)]
mod tests;
