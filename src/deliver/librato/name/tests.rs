//! The grammars of buckets, and what of a name and of tags the service is given.

use super::*;

/// As JSON, and whether a tag gave way to the source.
fn written(tags: &Tags, bucket: &str, source: Option<&str>) -> (String, bool) {
    let mut out = Vec::new();
    let gave_way = tags.write(bucket, source.map(str::as_bytes), &mut out);
    (String::from_utf8(out).expect("text"), gave_way)
}

fn read(bucket: &str, source: Option<&str>) -> (String, String) {
    let mut tags = Tags::new(false);
    let name = tags.read(bucket).text;
    (name.into(), written(&tags, bucket, source).0)
}

/// Name, tags and how many were dropped, where folded tags count.
fn folded(bucket: &str, source: Option<&str>) -> (String, String, u64) {
    let mut tags = Tags::new(true);
    let name = tags.read(bucket).text;
    let (json, gave_way) = written(&tags, bucket, source);
    (name.into(), json, tags.dropped() + u64::from(gave_way))
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
fn folded_tags_are_a_part_of_the_name_unless_they_are_wanted() {
    let (name, tags) = read("a;k=v#x=1;y", None);
    assert_eq!((name.as_str(), tags.as_str()), ("a;k=v", r#"{"x":"1;y"}"#));
    assert_eq!(cleaned(&name, ""), "a_k_v");
}

#[test]
fn the_grammar_of_folded_tags() {
    for (bucket, name, tags, dropped) in [
        ("a", "a", "{}", 0),
        ("a b", "a b", "{}", 0),
        ("a;", "a", "{}", 0),
        ("a;;;", "a", "{}", 0),
        ("a;k=v", "a", r#"{"k":"v"}"#, 0),
        (";k=v", "", r#"{"k":"v"}"#, 0),
        ("a;k=v;l=w", "a", r#"{"k":"v","l":"w"}"#, 0),
        // Without a value.
        ("a;k", "a", r#"{"k":"k"}"#, 0),
        ("a;k=", "a", r#"{"k":"k"}"#, 0),
        ("a;k= ", "a", r#"{"k":"k"}"#, 0),
        ("a;k =", "a", r#"{"k":"k"}"#, 0),
        ("a;k?", "a", r#"{"k_":"k?"}"#, 0),
        // Without a key.
        ("a;=v", "a", "{}", 1),
        ("a; =v;=", "a", "{}", 2),
        // A value has what follows the first sign, cleaned.
        ("a;k=v=w", "a", r#"{"k":"v_w"}"#, 0),
        (
            "a;url=http://h:80/x?y\\z w",
            "a",
            r#"{"url":"http://h:80/x?y\\z w"}"#,
            0,
        ),
        ("a; k x = v \"\" \u{e9}!", "a", r#"{"k_x":"v _ _"}"#, 0),
        ("a;\u{e9}=\u{fc}", "a", r#"{"_":"_"}"#, 0),
        ("a;k=b#c,d=e", "a", r#"{"k":"b_c_d_e"}"#, 0),
        // A key that comes again.
        ("a;k=v;l=w;K=x", "a", r#"{"k":"x","l":"w"}"#, 1),
        ("a;k=v;K=V", "a", r#"{"k":"V"}"#, 0),
        ("a;k\u{e9}=v;k_=w", "a", r#"{"k_":"w"}"#, 1),
        // Both kinds.
        ("a#x=1,y=2;y=3;z=4", "a", r#"{"x":"1","y":"3","z":"4"}"#, 1),
        (
            "a#x=1=2,y=,=z,w!;k",
            "a",
            r#"{"x":"2","w_":"w_","k":"k"}"#,
            0,
        ),
        ("a b#x=\u{e9};", "a b", r#"{"x":"_"}"#, 0),
    ] {
        let expected = (name.into(), tags.into(), dropped);
        assert_eq!(folded(bucket, None), expected, "{bucket}");
    }
}

#[test]
fn folded_tags_are_cut_and_not_more_than_the_service_takes() {
    let (key, value) = ("k".repeat(70), "v".repeat(300));
    let (_, tags, dropped) = folded(&format!("a;{key}={value}"), None);
    let expected = format!(r#"{{"{}":"{}"}}"#, &key[..64], &value[..255]);
    assert_eq!((tags, dropped), (expected, 0));
    let (_, tags, dropped) = folded(&format!("a;{key}{value}"), None);
    let word = format!("{key}{value}");
    assert_eq!(
        (tags, dropped),
        (format!(r#"{{"{}":"{}"}}"#, &word[..64], &word[..255]), 0)
    );

    let many: String = (0..52).map(|n| format!(";t{n}=v")).collect();
    let (_, tags, dropped) = folded(&format!("a{many};T49=w"), None);
    assert_eq!((tags.matches(':').count(), dropped), (50, 3));
    assert!(tags.ends_with(r#","t49":"w"}"#), "{tags}");
    // One of them is the source.
    let (_, tags, dropped) = folded(&format!("a{many}"), Some("\"s\""));
    assert_eq!((tags.matches(':').count(), dropped), (50, 3));
    assert!(tags.ends_with(r#","t48":"v","source":"s"}"#), "{tags}");
    let (_, tags, _) = folded("a;Source=x", Some("\"s\""));
    assert_eq!(tags, r#"{"source":"s"}"#);
    // It takes the place of one of its name.
    let most: String = (0..49).map(|n| format!(";t{n}=v")).collect();
    let (_, tags, dropped) = folded(&format!("a;Source=x{most}"), Some("\"s\""));
    assert_eq!((tags.matches(':').count(), dropped), (50, 0));
    assert!(tags.ends_with(r#","t48":"v"}"#), "{tags}");
}

#[test]
fn of_thousands_of_tags_those_are_looked_at_that_may_be_sent() {
    let mut bucket = String::from("a#t0=w");
    bucket.extend((0..13_000).map(|n| format!(",t{n}=v")));
    let mut tags = Tags::new(false);
    tags.read(&bucket);
    assert_eq!(tags.dropped(), 13_000 - 50);
    let (json, gave_way) = written(&tags, &bucket, None);
    assert_eq!((json.matches(':').count(), gave_way), (50, false));
    assert!(json.starts_with(r#"{"t0":"v","t1":"v","#), "{json}");
    assert!(json.ends_with(r#","t49":"v"}"#), "{json}");
    let (json, gave_way) = written(&tags, &bucket, Some("\"s\""));
    assert_eq!((json.matches(':').count(), gave_way), (50, true));
    assert!(json.ends_with(r#","t48":"v","source":"s"}"#), "{json}");
    tags.read("a#t0=w,");
    assert_eq!(tags.dropped(), 0);
}

#[test]
fn a_long_name_is_looked_at_to_its_end() {
    for len in 0..70 {
        let name = "aZ09-._:".repeat(10)[..len].to_owned();
        assert_eq!(clean_len(name.as_bytes()), len);
        for at in 0..len {
            let mut bytes = name.clone().into_bytes();
            for byte in 0..=255 {
                bytes[at] = byte;
                let clean = if IN_NAMES[usize::from(byte)] { len } else { at };
                assert_eq!(clean_len(&bytes), clean, "{byte} at {at} of {len}");
            }
        }
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
