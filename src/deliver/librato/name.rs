//! A bucket -> the name, tags and source of a measurement.
//!
//! ```text
//! bucket = name [ "#" tags ]     tags = [ pair ] *( ( "," | "#" ) [ pair ] )
//! pair   = key "=" ... "=" value    key before the first "=", value behind the last
//!        | word                     which is key and value
//! ```
//!
//! A pair without a key or without a value is none; of a key that comes twice the last value counts. Tags are
//! not cleaned: the service folds their case and refuses what it does not like.

use std::ops::Range;

/// Longest name the service takes, in bytes.
pub(super) const NAME_MAX: usize = 255;

/// Where the parts of one tag stand in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
}

/// The name of a bucket; its tags replace what is in `tags`.
pub(super) fn split<'b>(bucket: &'b str, tags: &mut Vec<Tag>) -> &'b str {
    tags.clear();
    let Some(name) = bucket.bytes().position(|byte| byte == b'#') else {
        return bucket;
    };
    let mut begin = name + 1;
    for piece in bucket[begin..].split([',', '#']) {
        let whole = begin..begin + piece.len();
        begin = whole.end + 1;
        let (key, value) = match (piece.find('='), piece.rfind('=')) {
            (Some(first), Some(last)) => (
                whole.start..whole.start + first,
                whole.start + last + 1..whole.end,
            ),
            _ => (whole.clone(), whole),
        };
        if key.is_empty() || value.is_empty() {
            continue;
        }
        let same = |tag: &&mut Tag| bucket[tag.key.clone()] == bucket[key.clone()];
        match tags.iter_mut().find(same) {
            Some(tag) => tag.value = value,
            None => tags.push(Tag { key, value }),
        }
    }
    &bucket[..name]
}

/// Appends a name with every run of what the service does not take as one `_`.
pub(super) fn clean(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    if bytes.iter().all(|byte| TAKEN[usize::from(*byte)]) {
        out.extend_from_slice(bytes);
        return;
    }
    let mut in_run = false;
    for byte in bytes {
        let taken = TAKEN[usize::from(*byte)];
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

/// The bytes a name may have.
static TAKEN: [bool; 256] = {
    let mut taken = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        taken[byte] = b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':');
        byte += 1;
    }
    taken
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

/// Appends an object of tags; a source takes the place of a tag of that name, or comes last.
pub(super) fn tags(bucket: &str, tags: &[Tag], source: Option<&[u8]>, out: &mut Vec<u8>) {
    let mut source = source;
    out.push(b'{');
    for (at, tag) in tags.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let key = &bucket[tag.key.clone()];
        quote(key, out);
        out.push(b':');
        match source {
            Some(text) if key == "source" => {
                out.extend_from_slice(text);
                source = None;
            }
            _ => quote(&bucket[tag.value.clone()], out),
        }
    }
    if let Some(text) = source {
        if !tags.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(b"\"source\":");
        out.extend_from_slice(text);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bucket: &str, source: Option<&str>) -> (String, String) {
        let (mut found, mut out) = (Vec::new(), Vec::new());
        let name = split(bucket, &mut found);
        tags(bucket, &found, source.map(str::as_bytes), &mut out);
        (name.into(), String::from_utf8(out).expect("text"))
    }

    #[test]
    fn the_grammar_of_tags() {
        for (bucket, name, tags) in [
            ("a", "a", "{}"),
            ("a#", "a", "{}"),
            ("b#x", "b", r#"{"x":"x"}"#),
            ("c#x=", "c", "{}"),
            ("d#=v", "d", "{}"),
            ("e#x=1=2", "e", r#"{"x":"2"}"#),
            ("f#x=1,", "f", r#"{"x":"1"}"#),
            ("g#,x=1", "g", r#"{"x":"1"}"#),
            ("h#x=1#y=2", "h", r#"{"x":"1","y":"2"}"#),
            ("i#x=1,y=3,x=2", "i", r#"{"x":"2","y":"3"}"#),
            ("j#x= 1 ,y = 2", "j", r#"{"x":" 1 ","y ":" 2"}"#),
            ("#x=1", "", r#"{"x":"1"}"#),
            ("k#x=a b/c", "k", r#"{"x":"a b/c"}"#),
            ("m#x==", "m", "{}"),
            ("n##x=1", "n", r#"{"x":"1"}"#),
            ("o#x=1##", "o", r#"{"x":"1"}"#),
            ("p#q=\"\\\u{1}", "p", r#"{"q":"\"\\\u0001"}"#),
            ("r#\u{fc}=\u{fc}", "r", "{\"\u{fc}\":\"\u{fc}\"}"),
        ] {
            assert_eq!(read(bucket, None), (name.into(), tags.into()), "{bucket}");
        }
    }

    #[test]
    fn a_source_replaces_the_tag_or_comes_last() {
        for (bucket, tags) in [
            ("a", r#"{"source":"s"}"#),
            ("a#x=1", r#"{"x":"1","source":"s"}"#),
            ("a#source=t,x=1", r#"{"source":"s","x":"1"}"#),
        ] {
            assert_eq!(read(bucket, Some("\"s\"")).1, tags, "{bucket}");
        }
    }

    fn cleaned(text: &str, suffix: &str) -> String {
        let mut out = Vec::new();
        clean(text, &mut out);
        clean(suffix, &mut out);
        cut(&mut out, suffix);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn names_are_cleaned_run_by_run() {
        for (text, name) in [
            ("a b!!c/d", "a_b_c_d"),
            ("\u{e9}t\u{e9}", "_t_"),
            ("ok.-_:Z9", "ok.-_:Z9"),
            ("x$$y$z", "x_y_z"),
            (" a ", "_a_"),
            ("\u{c5}", "_"),
            ("", ""),
        ] {
            assert_eq!(cleaned(text, ""), name);
        }
    }

    #[test]
    fn long_names_are_cut_before_their_suffix() {
        assert_eq!(cleaned(&"x".repeat(255), ""), "x".repeat(255));
        assert_eq!(cleaned(&"x".repeat(256), ""), "x".repeat(255));
        assert_eq!(cleaned(&"x".repeat(255), ".90"), "x".repeat(252) + ".90");
        assert_eq!(cleaned(&"\u{e9}".repeat(300), ".90"), "_.90");
    }
}
