//! A bucket -> the name, tags and source of a measurement.
//!
//! ```text
//! bucket = name [ "#" tags ]     tags = [ pair ] *( ( "," | "#" ) [ pair ] )
//! pair   = key "=" ... "=" value    key before the first "=", value behind the last
//!        | word                     which is key and value
//! ```
//!
//! A pair without a key or without a value is none; of a key that comes twice the last value counts. Tags are
//! not cleaned: the service folds their case and refuses what it does not like. Behind the most tags that a
//! measurement may have all others are left out and counted, whatever their keys: a bucket has room for
//! thousands.
//!
//! Where folded tags are wanted, which is where DogStatsD's stand in a bucket, and Graphite's:
//!
//! ```text
//! bucket = name [ "#" tags ] *( ";" [ folded ] )     folded = key [ "=" [ value ] ]
//! ```
//!
//! A folded tag's value begins behind the first "=", and one without a value has its key for it, as a word
//! has. Then all tags are cleaned and cut to what the service takes, keys are told apart without their case,
//! and what is no tag of its own in the end is counted: one without a key, one whose key comes again with
//! another value, and all above the most that a measurement may have.

use std::ops::Range;

/// Longest name the service takes, in bytes.
pub(super) const NAME_MAX: usize = 255;
/// Longest key of a tag.
const KEY_MAX: usize = 64;
/// Longest value of a tag.
const VALUE_MAX: usize = 255;
/// Most tags of a measurement.
const TAGS_MAX: usize = 50;

/// Where the parts of one tag stand: in the bucket, or in its cleaned text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tag {
    key: Range<usize>,
    value: Range<usize>,
    /// Neither has anything that JSON would escape.
    plain: bool,
}

/// The name of a bucket, without its tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named<'b> {
    pub(super) text: &'b str,
    /// Nothing in it is to be cleaned.
    pub(super) clean: bool,
}

/// Reads the tags of one bucket after another.
#[derive(Debug, Default)]
pub(super) struct Tags {
    /// Folded tags are tags, and all are cleaned.
    folded: bool,
    found: Vec<Tag>,
    /// Cleaned keys and values.
    text: String,
    /// Of this bucket: those that have no place among the tags of a measurement.
    dropped: u64,
}

impl Tags {
    /// As `folded` says.
    pub(super) fn new(folded: bool) -> Self {
        Self {
            folded,
            ..Self::default()
        }
    }

    /// How many tags of the bucket read last were dropped; a source may cost one more.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Reads a bucket: its name; its tags replace those read before.
    #[inline]
    pub(super) fn read<'b>(&mut self, bucket: &'b str) -> Named<'b> {
        self.found.clear();
        self.dropped = 0;
        let bytes = bucket.as_bytes();
        let clean = clean_len(bytes);
        if clean == bytes.len() {
            return Named {
                text: bucket,
                clean: true,
            };
        }
        let ends = |byte: &u8| *byte == b'#' || self.folded && *byte == b';';
        let end = bytes[clean..].iter().position(ends);
        let end = end.map_or(bytes.len(), |more| clean + more);
        let named = Named {
            text: &bucket[..end],
            clean: end == clean,
        };
        if self.folded {
            self.read_folded(&bucket[end..]);
        } else if end < bytes.len() {
            self.read_plain(bytes, end + 1);
        }
        named
    }

    /// Finds the tags that begin here, as they are.
    fn read_plain(&mut self, bytes: &[u8], begin: usize) {
        let mut piece = begin;
        // The first `=` of a piece, and the last.
        let mut signs: Option<(usize, usize)> = None;
        let mut plain = true;
        for at in begin..=bytes.len() {
            match bytes
                .get(at)
                .map_or(SEPARATOR, |byte| IN_TAGS[usize::from(*byte)])
            {
                PLAIN => {}
                EQUALS => signs = Some((signs.map_or(at, |(first, _)| first), at)),
                ESCAPED => plain = false,
                _ => {
                    let (key, value) = match signs {
                        Some((first, last)) => (piece..first, last + 1..at),
                        None => (piece..at, piece..at),
                    };
                    if !key.is_empty() && !value.is_empty() {
                        self.add(bytes, Tag { key, value, plain });
                    }
                    (piece, signs, plain) = (at + 1, None, true);
                }
            }
        }
    }

    #[inline]
    fn add(&mut self, bytes: &[u8], tag: Tag) {
        if self.found.len() == TAGS_MAX {
            self.dropped += 1;
            return;
        }
        let same = |other: &&mut Tag| bytes[other.key.clone()] == bytes[tag.key.clone()];
        match self.found.iter_mut().find(same) {
            Some(other) => {
                other.plain &= tag.plain;
                other.value = tag.value;
            }
            None => self.found.push(tag),
        }
    }

    /// Finds the tags of both kinds in what follows a name, and cleans them.
    fn read_folded(&mut self, rest: &str) {
        self.text.clear();
        let (hashed, folded) = rest.split_once(';').unwrap_or((rest, ""));
        for piece in hashed.split([',', '#']) {
            let (key, value) = match (piece.find('='), piece.rfind('=')) {
                (Some(first), Some(last)) => (&piece[..first], &piece[last + 1..]),
                _ => (piece, piece),
            };
            if !key.is_empty() && !value.is_empty() {
                self.add_clean(key, value);
            }
        }
        // By hand: a search for each sign costs more than a tag is long.
        let (mut piece, mut sign) = (0, None);
        for at in 0..=folded.len() {
            match folded.as_bytes().get(at).unwrap_or(&b';') {
                b'=' => sign = sign.or(Some(at)),
                b';' => {
                    if at > piece {
                        let key = sign.unwrap_or(at);
                        let value = at.min(key + 1);
                        self.add_clean(&folded[piece..key], &folded[value..at]);
                    }
                    (piece, sign) = (at + 1, None);
                }
                _ => {}
            }
        }
    }

    fn add_clean(&mut self, key: &str, value: &str) {
        let (key, value) = (trimmed(key), trimmed(value));
        if key.is_empty() {
            self.dropped += 1;
            return;
        }
        let value = if value.is_empty() { key } else { value };
        let begin = self.text.len();
        let key = self.clean(key, &IN_NAMES, KEY_MAX);
        let value = self.clean(value, &IN_VALUES, VALUE_MAX);
        let text = &self.text;
        let same = |tag: &&mut Tag| text[tag.key.clone()].eq_ignore_ascii_case(&text[key.clone()]);
        // Of all that is taken only this is not as it is in JSON.
        let plain = !text.as_bytes()[value.clone()].contains(&b'\\');
        if let Some(tag) = self.found.iter_mut().find(same) {
            let is_known = text[tag.value.clone()].eq_ignore_ascii_case(&text[value.clone()]);
            self.dropped += u64::from(!is_known);
            (tag.value, tag.plain) = (value, plain);
        } else if self.found.len() < TAGS_MAX {
            self.found.push(Tag { key, value, plain });
        } else {
            self.dropped += 1;
            self.text.truncate(begin);
        }
    }

    /// Where the cleaned text stands, cut to `longest`.
    fn clean(&mut self, text: &str, taken: &[bool; 256], longest: usize) -> Range<usize> {
        let begin = self.text.len();
        let is_clean = |byte: &u8| taken[usize::from(*byte)];
        if text.len() <= longest && text.as_bytes().iter().all(is_clean) {
            self.text.push_str(text);
            return begin..self.text.len();
        }
        let mut in_run = false;
        for byte in text.bytes() {
            if self.text.len() - begin == longest {
                break;
            }
            let is_taken = is_clean(&byte);
            if is_taken {
                self.text.push(char::from(byte));
            } else if !in_run {
                self.text.push('_');
            }
            in_run = !is_taken;
        }
        begin..self.text.len()
    }

    /// Appends them as an object; a source takes the place of a tag of that name, or comes last. Whether the
    /// last tag had to give way to it.
    #[inline]
    pub(super) fn write(&self, bucket: &str, source: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
        if self.found.is_empty() && source.is_none() {
            out.extend_from_slice(b"{}");
            return false;
        }
        let text = if self.folded { &self.text } else { bucket };
        let is_source =
            |key: &str| key == "source" || self.folded && key.eq_ignore_ascii_case("source");
        let mut source = source;
        let gives_way = source.is_some()
            && self.found.len() == TAGS_MAX
            && !(self.found.iter()).any(|tag| is_source(&text[tag.key.clone()]));
        let kept = self.found.len() - usize::from(gives_way);
        out.push(b'{');
        for (at, tag) in self.found[..kept].iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let (key, value) = (&text[tag.key.clone()], &text[tag.value.clone()]);
            match source {
                Some(json) if is_source(key) => {
                    out.extend_from_slice(b"\"source\":");
                    out.extend_from_slice(json);
                    source = None;
                }
                _ if tag.plain => {
                    out.push(b'"');
                    out.extend_from_slice(key.as_bytes());
                    out.extend_from_slice(b"\":\"");
                    out.extend_from_slice(value.as_bytes());
                    out.push(b'"');
                }
                _ => {
                    quote(key, out);
                    out.push(b':');
                    quote(value, out);
                }
            }
        }
        if let Some(json) = source {
            if !self.found.is_empty() {
                out.push(b',');
            }
            out.extend_from_slice(b"\"source\":");
            out.extend_from_slice(json);
        }
        out.push(b'}');
        gives_way
    }
}

/// Without white space around it; most have none.
fn trimmed(text: &str) -> &str {
    match text.as_bytes() {
        [] => text,
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => text,
        _ => text.trim(),
    }
}

/// How many bytes from the beginning a name may have as they are.
#[inline]
fn clean_len(bytes: &[u8]) -> usize {
    // Without branches, so that the compiler takes them all at once.
    let all = |chunk: &[u8]| {
        let taken = |b: u8| {
            (b | 0x20).wrapping_sub(b'a') < 26
                || b.wrapping_sub(b'0') <= b':' - b'0'
                || b.wrapping_sub(b'-') < 2
                || b == b'_'
        };
        chunk.iter().fold(true, |all, byte| all & taken(*byte))
    };
    let mut at = 0;
    while let Some(chunk) = bytes[at..]
        .first_chunk::<16>()
        .filter(|chunk| all(&chunk[..]))
    {
        at += chunk.len();
    }
    if let Some(chunk) = bytes[at..]
        .first_chunk::<8>()
        .filter(|chunk| all(&chunk[..]))
    {
        at += chunk.len();
    }
    let rest = bytes[at..].iter();
    at + rest
        .take_while(|byte| IN_NAMES[usize::from(**byte)])
        .count()
}

/// Appends a name with every run of what the service does not take as one `_`.
pub(super) fn clean(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let clean = clean_len(bytes);
    out.extend_from_slice(&bytes[..clean]);
    let mut in_run = false;
    for byte in &bytes[clean..] {
        let taken = IN_NAMES[usize::from(*byte)];
        if taken {
            out.push(*byte);
        } else if !in_run {
            out.push(b'_');
        }
        in_run = !taken;
    }
}

/// Cuts a clean name to what the service takes. One that ends in `suffix` keeps it, so that the percentile of
/// a long name is not taken for its whole; the reference loses it.
pub(super) fn cut(name: &mut Vec<u8>, suffix: &str) {
    if name.len() <= NAME_MAX {
        return;
    }
    let kept = suffix.len();
    if kept < NAME_MAX && name.ends_with(suffix.as_bytes()) {
        let end = name.len() - kept;
        name.drain(NAME_MAX - kept..end);
    } else {
        name.truncate(NAME_MAX);
    }
}

/// The bytes a name may have, and the key of a tag.
static IN_NAMES: [bool; 256] = bytes_of(b"_-.:");
/// The bytes the value of a tag may have.
static IN_VALUES: [bool; 256] = bytes_of(b"_-.:?\\/ ");

/// Letters, digits and these.
const fn bytes_of(marks: &[u8]) -> [bool; 256] {
    let mut taken = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        taken[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < marks.len() {
        taken[marks[at] as usize] = true;
        at += 1;
    }
    taken
}

/// What a byte is where tags stand as they are.
const PLAIN: u8 = 0;
const EQUALS: u8 = 1;
const ESCAPED: u8 = 2;
const SEPARATOR: u8 = 3;

static IN_TAGS: [u8; 256] = {
    let mut is = [PLAIN; 256];
    let mut control = 0;
    while control < b' ' as usize {
        is[control] = ESCAPED;
        control += 1;
    }
    is[b'"' as usize] = ESCAPED;
    is[b'\\' as usize] = ESCAPED;
    is[b'=' as usize] = EQUALS;
    is[b',' as usize] = SEPARATOR;
    is[b'#' as usize] = SEPARATOR;
    is
};

/// Appends a text in quotes, as JSON has it; what is not ASCII stays as it is.
pub(super) fn quote(text: &str, out: &mut Vec<u8>) {
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("a text can be written to memory");
    }
}

#[cfg(test)]
mod tests;
