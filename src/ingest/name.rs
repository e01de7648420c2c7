//! A spelling -> the name it stands for. Only for spellings never seen: allocation is fine here.

use crate::metric::name::cleaned;

/// The name the reference would store: tags appended as `;k=v`, then cleaned unless `sanitize` is off.
pub fn canonical(name: &[u8], tags: &[u8], sanitize: bool) -> String {
    let mut key = String::from_utf8_lossy(name).into_owned();
    if !tags.is_empty() {
        for tag in String::from_utf8_lossy(tags).split(',') {
            key.push(';');
            // Only the first of each, and in this order: `a:b;c` ends as `a=b_c`, `a:b:c` as `a=b:c`.
            key.push_str(&tag.replacen(';', "_", 1).replacen(':', "=", 1));
        }
    }
    if sanitize { cleaned(&key) } else { key }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_as_the_reference_does() {
        for (raw, clean) in [
            ("fo/o", "fo-o"),
            ("foo+bar", "foobar"),
            ("b ar", "b_ar"),
            ("b  \t ar", "b_ar"),
            ("a\rb", "a_b"),
            ("é.ü", "."),
            ("", ""),
            ("+", ""),
            ("/", "-"),
            ("..a..", "..a.."),
            ("a\0b", "ab"),
            ("\u{feff}a", "_a"),
            ("a,t=v", "at=v"),
            ("a;t=v", "a;t=v"),
            ("a#b", "ab"),
            (" a ", "_a_"),
        ] {
            assert_eq!(canonical(raw.as_bytes(), b"", true), clean, "{raw:?}");
        }
    }

    #[test]
    fn tags_are_appended_in_the_order_written() {
        for (tags, name) in [
            ("t:v", "a;t=v"),
            ("t1:v1,t2:v2", "a;t1=v1;t2=v2"),
            ("t", "a;t"),
            ("", "a"),
            ("t,,u", "a;t;;u"),
            (",", "a;;"),
            ("t:a:b:c", "a;t=abc"),
            ("u:http://x/y", "a;u=http--x-y"),
            ("t:a;b;c", "a;t=a_b;c"),
            ("t:v v", "a;t=v_v"),
            ("t:é", "a;t="),
            ("t:v\r", "a;t=v_"),
        ] {
            assert_eq!(canonical(b"a", tags.as_bytes(), true), name, "{tags:?}");
        }
    }

    #[test]
    fn without_cleaning_only_the_tags_are_rewritten() {
        assert_eq!(
            canonical("fo/o b+ar é".as_bytes(), b"", false),
            "fo/o b+ar é"
        );
        assert_eq!(canonical(b"a b", b"t/x:v w", false), "a b;t/x=v w");
        assert_eq!(canonical(b"a\xff", b"", false), "a\u{fffd}");
    }
}
