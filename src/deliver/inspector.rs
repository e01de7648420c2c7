//! Values -> text, byte for byte as Node.js 20 shows them on a console (`util.inspect`).
//!
//! Objects and lists are given as iterators and printed as they come, so that a million entries cost
//! their text and nothing besides. What could stand on one line is written over several first and drawn
//! together afterwards; whether it could is known after 80 columns at the latest.
//!
//! Not as there: an object's keys stay in the order given, where JavaScript puts those that look like
//! integers first; past 128 MiB of text Node.js leaves out what is nested; and in a list in columns a rare
//! character of Unicode may be taken for wider or narrower than it is.

use super::number;
use std::borrow::Cow;
use std::ops::Range;

/// Something to print.
pub enum Value<'a> {
    /// A number.
    Number(f64),
    /// A text, printed in quotes.
    Text(Cow<'a, str>),
    /// Stands in brackets for something that is not shown, like the `[Object]` of what lies too deep.
    Omitted(Cow<'a, str>),
    /// An array.
    List(Items<'a>),
    /// An object.
    Object(Entries<'a>),
}

/// The items of a list, in order.
pub type Items<'a> = Box<dyn ExactSizeIterator<Item = Value<'a>> + 'a>;
/// Keys and values of an object, in order; no key twice.
pub type Entries<'a> = Box<dyn Iterator<Item = (&'a str, Value<'a>)> + 'a>;

impl<'a> Value<'a> {
    /// An object of these entries.
    pub fn object(entries: impl Iterator<Item = (&'a str, Self)> + 'a) -> Self {
        Self::Object(Box::new(entries))
    }

    /// A list of these items.
    pub fn list(items: impl ExactSizeIterator<Item = Self> + 'a) -> Self {
        Self::List(Box::new(items))
    }

    /// A list of numbers.
    pub fn numbers(numbers: &'a [f64]) -> Self {
        Self::list(numbers.iter().map(|number| Self::Number(*number)))
    }
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How deep to show what is nested; the outermost lies at 0.
    pub depth: usize,
    /// Colour it for a terminal.
    pub colors: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            depth: 2,
            colors: false,
        }
    }
}

/// Longest line, in columns.
const LINE_MAX: usize = 80;
/// Levels of nesting that may share a line.
const LEVELS_IN_LINE: usize = 3;
/// Items of a list that are shown.
const ITEMS_MAX: usize = 100;
/// Lists longer than this are laid out in columns.
const ITEMS_IN_ROW: usize = 6;
/// Most columns of a list.
const COLUMNS_MAX: usize = 15;
/// UTF-16 units of a text that are shown.
const TEXT_MAX: usize = 10_000;
/// Texts up to this length are never broken.
const TEXT_UNBROKEN: usize = 16;

const GREEN: u8 = 32;
const YELLOW: u8 = 33;
const CYAN: u8 = 36;

/// Appends a value.
pub fn inspect(value: Value<'_>, options: Options, out: &mut Vec<u8>) {
    let mut printer = Printer {
        options,
        out,
        indent: 0,
        reached: 0,
    };
    printer.value(value, 0);
}

struct Printer<'o> {
    options: Options,
    out: &'o mut Vec<u8>,
    /// Columns the current line begins with.
    indent: usize,
    /// How deep the container lies that was entered last.
    reached: usize,
}

/// What something takes on the page, colours left out.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    /// UTF-16 units, the length of JavaScript: what decides whether it fits on a line.
    units: usize,
    /// Columns of a terminal: what aligns it in a table.
    columns: usize,
    several_lines: bool,
}

impl Extent {
    fn add(&mut self, other: Self) {
        self.units += other.units;
        self.columns += other.columns;
        self.several_lines |= other.several_lines;
    }

    /// Of so many ASCII characters.
    fn ascii(count: usize) -> Self {
        Self {
            units: count,
            columns: count,
            several_lines: false,
        }
    }

    /// Of a text without control characters.
    fn of(text: &str) -> Self {
        if text.is_ascii() {
            return Self::ascii(text.len());
        }
        Self {
            units: text.encode_utf16().count(),
            columns: text.chars().map(columns).sum(),
            several_lines: false,
        }
    }
}

/// A piece of a container: where it lies in the output, and what it takes.
#[derive(Debug)]
struct Piece {
    at: Range<usize>,
    extent: Extent,
}

impl Printer<'_> {
    /// Prints a value that lies inside of `depth` containers.
    fn value(&mut self, value: Value<'_>, depth: usize) -> Extent {
        match value {
            Value::Number(number) => self.styled(YELLOW, |out| {
                let begin = out.len();
                if number == 0.0 && number.is_sign_negative() {
                    out.push(b'-');
                }
                number::write(out, number);
                Extent::ascii(out.len() - begin)
            }),
            Value::Text(text) => self.text(&text),
            Value::Omitted(what) => self.omitted(&what),
            Value::List(items) => self.list(items, depth),
            Value::Object(entries) => self.object(entries, depth),
        }
    }

    fn styled(&mut self, color: u8, write: impl FnOnce(&mut Vec<u8>) -> Extent) -> Extent {
        if self.options.colors {
            self.out.extend_from_slice(b"\x1b[");
            number::write(self.out, f64::from(color));
            self.out.push(b'm');
        }
        let extent = write(self.out);
        if self.options.colors {
            self.out.extend_from_slice(b"\x1b[39m");
        }
        extent
    }

    fn omitted(&mut self, what: &str) -> Extent {
        self.styled(CYAN, |out| {
            out.push(b'[');
            out.extend_from_slice(what.as_bytes());
            out.push(b']');
            let mut extent = Extent::of(what);
            extent.add(Extent::ascii(2));
            extent
        })
    }

    fn text(&mut self, text: &str) -> Extent {
        let length = units(text);
        let (shown, half) = if length > TEXT_MAX {
            cut(text)
        } else {
            (text, None)
        };
        let shown_length = length.min(TEXT_MAX);
        let mut extent = Extent::default();
        if shown_length > TEXT_UNBROKEN && shown_length + self.indent + 4 > LINE_MAX {
            // A line of it to a line, joined by a plus.
            let mut rest = shown;
            while let Some(end) = rest.find('\n').map(|at| at + 1) {
                if end == rest.len() && half.is_none() {
                    break;
                }
                extent.add(self.quoted(&rest[..end], None));
                extent.add(self.plain(" +"));
                extent.add(self.new_line(2));
                rest = &rest[end..];
            }
            extent.add(self.quoted(rest, half));
        } else {
            extent.add(self.quoted(shown, half));
        }
        if length > TEXT_MAX {
            let more = length - TEXT_MAX;
            extent.add(self.plain(&format!("... {more} more character{}", plural(more))));
        }
        extent
    }

    fn quoted(&mut self, text: &str, half: Option<u16>) -> Extent {
        self.styled(GREEN, |out| quote(text, half, out))
    }

    fn plain(&mut self, text: &str) -> Extent {
        self.out.extend_from_slice(text.as_bytes());
        Extent::ascii(text.len())
    }

    /// Begins a line, so many columns further in.
    fn new_line(&mut self, further: usize) -> Extent {
        let columns = self.indent + further;
        self.out.push(b'\n');
        self.out.resize(self.out.len() + columns, b' ');
        Extent {
            units: 1 + columns,
            columns,
            several_lines: true,
        }
    }

    fn key(&mut self, key: &str) -> Extent {
        let mut extent = if key == "__proto__" {
            self.plain("['__proto__']")
        } else if is_identifier(key) {
            self.plain(key)
        } else {
            self.quoted(key, None)
        };
        extent.add(self.plain(": "));
        extent
    }

    /// Prints what lies one level further in, and notes where.
    fn inside(&mut self, print: impl FnOnce(&mut Self) -> Extent) -> Piece {
        self.indent += 2;
        let begin = self.out.len();
        let extent = print(self);
        self.indent -= 2;
        Piece {
            at: begin..self.out.len(),
            extent,
        }
    }

    fn object(&mut self, entries: Entries<'_>, depth: usize) -> Extent {
        let mut entries = entries.peekable();
        if entries.peek().is_none() {
            return self.plain("{}");
        }
        if depth > self.options.depth {
            return self.omitted("Object");
        }
        self.reached = depth + 1;
        let begin = self.out.len();
        let mut whole = self.plain("{");
        // Noted for as long as they may fit on one line.
        let mut pieces = Vec::new();
        let (mut count, mut inside) = (0, Extent::default());
        for (key, value) in entries {
            if count > 0 {
                whole.add(self.plain(","));
            }
            whole.add(self.new_line(2));
            let piece = self.inside(|printer| {
                let mut extent = printer.key(key);
                extent.add(printer.value(value, depth + 1));
                extent
            });
            count += 1;
            inside.add(piece.extent);
            if self.fits(count, inside) {
                pieces.push(piece);
            }
        }
        if self.fits(count, inside) && self.may_share_a_line(depth) {
            return self.one_line(begin, &pieces, [b'{', b'}']);
        }
        whole.add(inside);
        whole.add(self.new_line(0));
        whole.add(self.plain("}"));
        whole
    }

    fn list(&mut self, mut items: Items<'_>, depth: usize) -> Extent {
        let total = items.len();
        if total == 0 {
            return self.plain("[]");
        }
        if depth > self.options.depth {
            return self.omitted("Array");
        }
        self.reached = depth + 1;
        let begin = self.out.len();
        let mut pieces = Vec::with_capacity(total.min(ITEMS_MAX + 1));
        let mut all_numbers = true;
        for item in items.by_ref().take(ITEMS_MAX) {
            all_numbers &= matches!(item, Value::Number(_));
            pieces.push(self.inside(|printer| printer.value(item, depth + 1)));
        }
        let shown = pieces.len();
        if total > shown {
            // The first one that is left out has a say in how the others are aligned.
            all_numbers &= matches!(items.next(), Some(Value::Number(_)));
            let more = total - shown;
            pieces.push(
                self.inside(|printer| {
                    printer.plain(&format!("... {more} more item{}", plural(more)))
                }),
            );
        }
        let columns = if pieces.len() > ITEMS_IN_ROW {
            self.columns(&pieces, shown)
        } else {
            1
        };
        if columns > 1 {
            return self.table(begin, &pieces, shown, columns, all_numbers);
        }
        let mut inside = Extent::default();
        pieces.iter().for_each(|piece| inside.add(piece.extent));
        if self.fits(pieces.len(), inside) && self.may_share_a_line(depth) {
            return self.one_line(begin, &pieces, [b'[', b']']);
        }
        self.rows(begin, &pieces, 1, |_, _| (0, 0))
    }

    /// Whether so many pieces fit on one line together.
    fn fits(&self, count: usize, inside: Extent) -> bool {
        // Node.js reckons with ten columns in front.
        !inside.several_lines && inside.units + 2 * count + self.indent + 11 <= LINE_MAX
    }

    /// Whether a container at `depth` does not reach too deep for one line. Only the last one inside of
    /// it counts, in Node.js too.
    fn may_share_a_line(&self, depth: usize) -> bool {
        self.reached - (depth + 1) < LEVELS_IN_LINE
    }

    /// Draws what was printed since `begin` together.
    fn one_line(&mut self, begin: usize, pieces: &[Piece], [open, close]: [u8; 2]) -> Extent {
        let printed = self.out.split_off(begin);
        let mut whole = Extent::ascii(4);
        self.out.extend_from_slice(&[open, b' ']);
        for (index, piece) in pieces.iter().enumerate() {
            if index > 0 {
                whole.add(self.plain(", "));
            }
            let at = piece.at.start - begin..piece.at.end - begin;
            self.out.extend_from_slice(&printed[at]);
            whole.add(piece.extent);
        }
        self.out.extend_from_slice(&[b' ', close]);
        whole
    }

    /// How many columns a long list is shown in: about as many as make it look like a square, unless
    /// its items differ too much in length.
    fn columns(&self, pieces: &[Piece], shown: usize) -> usize {
        const SEPARATOR: usize = 2;
        const HEIGHT_OF_A_CHARACTER: f64 = 2.5;
        let widths = pieces[..shown].iter().map(|piece| piece.extent.columns);
        let total: usize = widths.clone().map(|width| width + SEPARATOR).sum();
        let longest = widths.max().unwrap_or(0);
        let cell = longest + SEPARATOR;
        let alike = total as f64 / cell as f64 > 5.0 || longest <= 6;
        if cell * 3 + self.indent >= LINE_MAX || !alike {
            return 1;
        }
        let bias = (cell as f64 - total as f64 / pieces.len() as f64).sqrt();
        let typical = (cell as f64 - 3.0 - bias).max(1.0);
        let square = (HEIGHT_OF_A_CHARACTER * typical * shown as f64).sqrt() / typical;
        ((square + 0.5).floor() as usize)
            .min((LINE_MAX - self.indent) / cell)
            .min(LEVELS_IN_LINE * 4)
            .min(COLUMNS_MAX)
    }

    /// Lays pieces out in aligned columns; a last one beyond `shown` has a row of its own.
    fn table(
        &mut self,
        begin: usize,
        pieces: &[Piece],
        shown: usize,
        columns: usize,
        align_right: bool,
    ) -> Extent {
        let mut widest = vec![0; columns];
        for (index, piece) in pieces[..shown].iter().enumerate() {
            let column = &mut widest[index % columns];
            *column = piece.extent.columns.max(*column);
        }
        self.rows(begin, pieces, columns, |index, width| {
            if index >= shown {
                return (0, 0);
            }
            let blanks = widest[index % columns].saturating_sub(width);
            if align_right {
                (blanks, 0)
            } else {
                (0, blanks)
            }
        })
    }

    /// Lays what was printed since `begin` out as a list, so many to a row; `blanks` says how many go
    /// before a piece and how many behind it. More than [`ITEMS_MAX`] means that the last one stands alone.
    fn rows(
        &mut self,
        begin: usize,
        pieces: &[Piece],
        columns: usize,
        blanks: impl Fn(usize, usize) -> (usize, usize),
    ) -> Extent {
        let printed = self.out.split_off(begin);
        let mut whole = self.plain("[");
        let mut behind = 0;
        for (index, piece) in pieces.iter().enumerate() {
            let begins_row = index % columns == 0 || index == ITEMS_MAX;
            if index > 0 {
                whole.add(self.plain(","));
            }
            if begins_row {
                whole.add(self.new_line(2));
            } else {
                whole.add(self.blanks(behind + 1));
            }
            let (before, after) = blanks(index, piece.extent.columns);
            whole.add(self.blanks(before));
            let at = piece.at.start - begin..piece.at.end - begin;
            self.out.extend_from_slice(&printed[at]);
            whole.add(piece.extent);
            behind = after;
        }
        whole.add(self.new_line(0));
        whole.add(self.plain("]"));
        whole
    }

    fn blanks(&mut self, count: usize) -> Extent {
        self.out.resize(self.out.len() + count, b' ');
        Extent::ascii(count)
    }
}

/// Appends a text in quotes: single ones, or those of `"` and `` ` `` that need no escape. `half` is the
/// first half of a surrogate pair that was cut.
fn quote(text: &str, half: Option<u16>, out: &mut Vec<u8>) -> Extent {
    let quote = if !text.contains('\'') {
        '\''
    } else if !text.contains('"') {
        '"'
    } else if !text.contains('`') && !text.contains("${") {
        '`'
    } else {
        '\''
    };
    // Control characters are U+0000..1F and 7F..9F.
    let is_plain = |c: char| !c.is_control() && c != '\\' && (c != '\'' || quote != '\'');
    let mut extent = Extent::ascii(2);
    out.push(quote as u8);
    let mut rest = text;
    while let Some(at) = rest.find(|c| !is_plain(c)) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        extent.add(Extent::of(&rest[..at]));
        let c = rest[at..].chars().next().expect("it was found there");
        let begin = out.len();
        escape(c, out);
        extent.add(Extent::ascii(out.len() - begin));
        rest = &rest[at + c.len_utf8()..];
    }
    out.extend_from_slice(rest.as_bytes());
    extent.add(Extent::of(rest));
    if let Some(half) = half {
        out.extend_from_slice(format!("\\u{half:04x}").as_bytes());
        extent.add(Extent::ascii(6));
    }
    out.push(quote as u8);
    extent
}

fn escape(c: char, out: &mut Vec<u8>) {
    let short = match c {
        '\u{8}' => "\\b",
        '\t' => "\\t",
        '\n' => "\\n",
        '\u{c}' => "\\f",
        '\r' => "\\r",
        '\'' => "\\'",
        '\\' => "\\\\",
        _ => {
            out.extend_from_slice(format!("\\x{:02X}", u32::from(c)).as_bytes());
            return;
        }
    };
    out.extend_from_slice(short.as_bytes());
}

/// Whether a key can stand without quotes.
fn is_identifier(key: &str) -> bool {
    let bytes = key.as_bytes();
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    bytes.first().is_some_and(|first| !first.is_ascii_digit()) && bytes.iter().all(word)
}

/// Length as JavaScript counts it.
fn units(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        text.encode_utf16().count()
    }
}

/// Columns a character takes on a terminal: two for East Asian ones and pictures, none for marks that go
/// on the one before. Blocks, not the tables of Unicode: a rare character may be out of line.
fn columns(c: char) -> usize {
    match u32::from(c) {
        0..0x20 | 0x7f..0xa0 | 0xad => 0,
        0x300..=0x36f | 0x200b..=0x200f | 0x202a..=0x202e | 0x20d0..=0x20f0 | 0xfe00..=0xfe0f => 0,
        0xfe20..=0xfe2f | 0xfeff | 0xe0100..=0xe01ef => 0,
        0x1100..=0x115f | 0x2e80..=0x303e | 0x3041..=0x3247 | 0x3250..=0x4dbf => 2,
        0x4e00..=0xa4c6 | 0xa960..=0xa97c | 0xac00..=0xd7a3 | 0xf900..=0xfaff => 2,
        0xfe30..=0xfe6b | 0xff01..=0xff60 | 0xffe0..=0xffe6 => 2,
        0x1f300..=0x1f320 | 0x1f32d..=0x1f335 | 0x1f3e0..=0x1f3f0 | 0x1f400..=0x1f43e => 2,
        0x1f442..=0x1f4fc | 0x1f600..=0x1f64f | 0x1f680..=0x1f6c5 | 0x1f90c..=0x1f93a => 2,
        0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// The first [`TEXT_MAX`] units of a text that is longer, and the half of a pair that they end in.
fn cut(text: &str) -> (&str, Option<u16>) {
    let mut units = 0;
    for (at, c) in text.char_indices() {
        if units == TEXT_MAX {
            return (&text[..at], None);
        }
        units += c.len_utf16();
        if units > TEXT_MAX {
            return (&text[..at], Some(c.encode_utf16(&mut [0; 2])[0]));
        }
    }
    (text, None)
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests;
