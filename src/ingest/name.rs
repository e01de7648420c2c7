//! A spelling -> the name it stands for. Only for spellings never seen: allocation is fine here.

use super::Dialect;
use crate::metric::name::cleaned;
use crate::metric::registry::{NameId, Registry};
use crate::metric::sample::Kind;
use std::borrow::Cow;

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

/// A name as dialect auto has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// The path and its tags as `;k=v`, in the order written.
    pub shown: String,
    /// The same with the tags sorted, when that is another order: what all its spellings have in common.
    pub sorted: Option<String>,
    /// Tags left out because they have no key.
    pub keyless: u64,
}

/// The name of a spelling in dialect auto. A tag without a value has its key for one, since carbon takes none
/// without; empty tags and those that come again are left out. With `in_name`, tags are also read from
/// `name,k=v` and `name[k=v,l=w]`.
pub fn tagged(name: &[u8], tags: &[u8], sanitize: bool, in_name: bool) -> Tagged {
    let clean = |text: &str| {
        if sanitize {
            cleaned(text)
        } else {
            text.to_owned()
        }
    };
    let name = String::from_utf8_lossy(name);
    let (path, within) = if in_name {
        tags_in_name(&name)
    } else {
        (Cow::from(&*name), "")
    };
    let mut pieces = path.split(';');
    let mut shown = clean(pieces.next().unwrap_or_default());
    let tags = String::from_utf8_lossy(tags);
    let listed = tags
        .split(',')
        .map(|tag| tag.replace(';', "_").replacen(':', "=", 1));
    let within = within.split(',').map(|tag| tag.replace(';', "_"));
    let all = pieces.map(str::to_owned).chain(within).chain(listed);
    let mut keyless = 0;
    let mut found: Vec<String> = Vec::new();
    for tag in all.map(|tag| clean(&tag)).filter(|tag| !tag.is_empty()) {
        match tag.split_once('=') {
            Some(("", _)) => keyless += 1,
            None | Some((_, "")) => {
                let key = tag.strip_suffix('=').unwrap_or(&tag);
                found.push(format!("{key}={key}"));
            }
            Some(_) => found.push(tag),
        }
    }
    // By tag, and of the same ones the first in front.
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by_key(|at| &found[*at]);
    order.dedup_by_key(|at| &found[*at]);
    let append = |path: &str, order: &[usize]| {
        order.iter().fold(path.to_owned(), |mut name, at| {
            name.push(';');
            name.push_str(&found[*at]);
            name
        })
    };
    let sorted = (!order.is_sorted()).then(|| append(&shown, &order));
    order.sort_unstable();
    shown = append(&shown, &order);
    Tagged {
        shown,
        sorted,
        keyless,
    }
}

/// The id of a name as it was shown by an earlier process: the one that lines with it get.
pub fn id_of_shown(name: &str, kind: Kind, dialect: Dialect, registry: &Registry) -> NameId {
    if dialect == Dialect::Statsd {
        return registry.id_of_known(kind, name, name);
    }
    // Clean it is, or was not to be.
    let Tagged { shown, sorted, .. } = tagged(name.as_bytes(), b"", false, false);
    registry.id_of_known(kind, sorted.as_deref().unwrap_or(&shown), &shown)
}

/// A name without its tags, and those: of `name[k=v,l=w].end` what is in the brackets, of `name,k=v` what is
/// behind the comma.
fn tags_in_name(name: &str) -> (Cow<'_, str>, &str) {
    if let Some((begin, rest)) = name.split_once('[')
        && let Some((tags, end)) = rest.split_once(']')
    {
        return (format!("{begin}{end}").into(), tags);
    }
    let (path, tags) = name.split_once(',').unwrap_or((name, ""));
    (path.into(), tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_in_any_order_are_one_name() {
        for (name, tags, shown, sorted) in [
            ("a", "", "a", ""),
            ("a", "t:v", "a;t=v", ""),
            ("a", "t:v,u:w", "a;t=v;u=w", ""),
            ("a", "u:w,t:v", "a;u=w;t=v", "a;t=v;u=w"),
            ("a;u=w", "t:v", "a;u=w;t=v", "a;t=v;u=w"),
            ("a;u=w;t=v", "", "a;u=w;t=v", "a;t=v;u=w"),
            ("a", "u:w,,t:v,u:w,", "a;u=w;t=v", "a;t=v;u=w"),
            ("a", "b,a:", "a;b=b;a=a", "a;a=a;b=b"),
            ("a", "t:1,t:2", "a;t=1;t=2", ""),
            ("a", "t:x;y;z", "a;t=x_y_z", ""),
            ("b/c d", "e f:g/h", "b-c_d;e_f=g-h", ""),
        ] {
            let found = tagged(name.as_bytes(), tags.as_bytes(), true, false);
            assert_eq!(found.shown, shown, "{name} {tags}");
            assert_eq!(found.sorted.unwrap_or_default(), sorted, "{name} {tags}");
            assert_eq!(found.keyless, 0);
        }
        let found = tagged(b"a", b":v,t:v,=", true, false);
        assert_eq!((found.shown.as_str(), found.keyless), ("a;t=v", 2));
    }

    #[test]
    fn tags_in_names_are_read_where_they_are_wanted() {
        for (name, tags, off, on) in [
            ("a,t=v,u=w", "", "at=vu=w", "a;t=v;u=w"),
            ("a[t=v,u=w]", "", "at=vu=w", "a;t=v;u=w"),
            ("a[t=v].b", "x:y", "at=v.b;x=y", "a.b;t=v;x=y"),
            ("a[]b,", "", "ab", "ab"),
            ("a[t=v", "", "at=v", "at=v"),
            ("a]b", "", "ab", "ab"),
            ("a,", "", "a", "a"),
        ] {
            for (in_name, shown) in [(false, off), (true, on)] {
                let found = tagged(name.as_bytes(), tags.as_bytes(), true, in_name);
                assert_eq!(found.shown, shown, "{name} {in_name}");
            }
        }
    }

    #[test]
    fn a_name_shown_by_an_earlier_process_is_the_one_that_lines_have() {
        let (registry, kind) = (Registry::new(), Kind::Gauge);
        let id = id_of_shown("a b;u=w;t=v", kind, Dialect::Auto, &registry);
        let line = tagged(b"a b", b"t:v,u:w", false, false);
        let sorted = line.sorted.unwrap_or(line.shown);
        assert_eq!(registry.id_of_known(kind, &sorted, "never shown"), id);
        let mut shown = Vec::new();
        registry.catch_up(kind, &mut shown);
        assert_eq!(
            shown.iter().map(|it| &**it).collect::<Vec<_>>(),
            ["a b;u=w;t=v"]
        );
        // The order of tags is a part of the name here.
        let id = id_of_shown("c;u=w;t=v;;", kind, Dialect::Statsd, &registry);
        assert_eq!(registry.id(kind, "c;u=w;t=v;;"), id);
    }

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
