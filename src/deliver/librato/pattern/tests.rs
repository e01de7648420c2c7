//! Searches are those of JavaScript, bounded, and flags can be written inside a pattern.

use super::*;

fn found(source: &str, flags: &str, text: &str) -> bool {
    let pattern = Pattern::new(source, flags).unwrap_or_else(|e| panic!("{source}: {e}"));
    pattern.is_match(text).expect("it is quick")
}

/// Each with what Node.js 20 answers.
#[test]
fn searches_are_those_of_javascript() {
    for (source, flags, text, expected) in [
        (r"^my\.", "", "my.a", true),
        (r"^my\.", "", "amy.a", false),
        ("b", "", "abc", true),
        (r"^\d+$", "", "123", true),
        (r"^\d+$", "", "\u{661}", false),
        (r"^\w+$", "", "a_Z9", true),
        (r"^\w+$", "", "\u{e9}", false),
        (r"\W", "", "\u{e9}", true),
        (r"^[^\W]$", "", "a", true),
        (r"^[\W\d]+$", "", "1-", true),
        (r"\bcd", "", "ab.cd", true),
        (r"\bcd", "", "\u{e9}cd", true),
        (r"\Bcd", "", "abcd", true),
        (r"\Bcd", "", "ab.cd", false),
        (r"a\/b", "", "a/b", true),
        (r"a\-b\#", "", "a-b#", true),
        (r"a#b c", "", "a#b c", true),
        (r"^(?!secret)", "", "secret.a", false),
        (r"^(?!secret)", "", "open.a", true),
        (r"(?<=a)b", "", "ab", true),
        (r"(?<!a)b", "", "ab", false),
        (r"(?<=a+)b", "", "aab", true),
        (r"^(\w+)\.\1$", "", "ab.ab", true),
        (r"^(\w+)\.\1$", "", "ab.ac", false),
        (r"^(\w)\1{2}3$", "", "aaa3", true),
        (r"(?<one>a)\k<one>", "", "aa", true),
        ("WEB", "i", "web", true),
        ("WEB", "", "web", false),
        ("a$", "", "a\n", false),
        ("a$", "m", "a\nb", true),
        ("a.b", "", "a\nb", false),
        ("a.b", "s", "a\nb", true),
        ("a{2}", "", "aa", true),
        ("a{,2}", "", "a{,2}", true),
        ("a{x}]", "", "a{x}]", true),
        ("[[&&~]", "", "[", true),
        ("[[&&~]", "", "&", true),
        ("[a-]", "", "-", true),
        (r"[\w-z]", "", "-", true),
        (r"[a\-z]", "", "m", false),
        (r"[+--]", "", ",", true),
        ("[^]", "", "\n", true),
        ("a[]", "", "a", false),
        (r"[\b]", "", "\u{8}", true),
        (r"\x41\u0042\cJ\0", "", "AB\n\0", true),
        (r"\u{1F600}", "u", "\u{1f600}", true),
        (r"\uD83D\uDE00", "", "\u{1f600}", true),
        (r"\s", "", "\u{feff}", true),
        (r"\S", "", "\u{a0}", false),
        (r"\a\e\y\z", "", "aeyz", true),
        (r"\p{L}", "u", "\u{e9}", true),
        (r"\p{L}", "", "p{L}", true),
        ("x", "g", "axa", true),
        ("", "", "anything", true),
        ("\u{e9}+", "", "\u{e9}\u{e9}", true),
    ] {
        assert_eq!(
            found(source, flags, text),
            expected,
            "/{source}/{flags} {text:?}"
        );
    }
    let twice = Pattern::new("x", "g").expect("a pattern");
    assert_eq!(twice.is_match("x"), twice.is_match("x"));
}

#[test]
fn a_group_is_found_with_what_surrounds_it() {
    let group = |source: &str, text: &str| {
        let pattern = Pattern::new(source, "").expect("a pattern");
        let found = pattern.first_group(text).expect("it is quick");
        found.map(|Found { whole, group }| (whole, group))
    };
    assert_eq!(group(r"^([^\.]+)\.", "web01.req"), Some((0..6, 0..5)));
    assert_eq!(group(r"-(\w+)-", "app-web01-req"), Some((3..10, 4..9)));
    assert_eq!(group("^web", "web.req"), None);
    assert_eq!(group("(x)?web", "web.req"), None);
    assert_eq!(group("(x*)web", "web.req"), None);
    assert_eq!(group("(y)", "web.req"), None);
}

#[test]
fn what_is_none_is_refused_in_words() {
    for source in [
        "(", "a)", "[a", "*", r"a\", "[z-a]", "(?i)a", "(?>a)", r"(a)\2", r"\uD83D", "(?<a",
    ] {
        let error = Pattern::new(source, "").expect_err(source);
        assert!(!error.is_empty(), "{source}");
    }
    for flags in ["y", "v"] {
        let error = Pattern::new("a", flags).expect_err("another flag");
        assert_eq!(error, format!("the flag {flags} is not supported"));
    }
}

#[test]
fn a_search_that_would_take_for_ever_is_given_up() {
    let pattern = Pattern::new(r"^(?:(a)|aa|a)*\1[bc]", "").expect("a pattern");
    assert_eq!(pattern.is_match(&"a".repeat(40)), Err(Exhausted));
    assert_eq!(pattern.is_match("aabc"), Ok(true));
}

#[test]
fn those_written_alike_are_equal() {
    let of = |source, flags| Pattern::new(source, flags).expect("a pattern");
    assert_eq!(of("a", "i"), of("a", "i"));
    assert_ne!(of("a", "i"), of("a", ""));
    assert_eq!(format!("{:?}", of(r"a\.", "i")), r"/a\./i");
}

#[test]
fn a_group_may_have_flags_of_its_own() {
    for (source, text, expected) in [
        ("(?i:a)b", "Ab", true),
        ("(?i:a)b", "AB", false),
        ("(?s:a.)b.", "a\nbc", true),
        ("(?s:a.)b.", "a\nb\n", false),
        ("(?s:(?-s:a.)b.)", "acb\n", true),
        ("(?s:(?-s:a.)b.)", "a\nb\n", false),
        ("(?m:^b$)", "a\nb\nc", true),
        ("^b$(?m:)", "a\nb\nc", false),
        ("(?i-s:A.)", "a\n", false),
        ("(?i-s:A.)", "ab", true),
        (r"(?i:(a)\1)", "aA", true),
    ] {
        assert_eq!(found(source, "", text), expected, "{source} on {text:?}");
    }
    assert!(!found("(?-i:a)", "i", "A"));
    for source in [
        "(?x:a)", "(?ii:a)", "(?i-i:a)", "(?-:a)", "(?i)a", "(?i", "(?:",
    ] {
        assert!(Pattern::new(source, "").is_err(), "{source}");
    }
}

#[test]
fn flags_can_be_written_inside_a_pattern() {
    let inside = |source, flags| Pattern::without_flags(source, flags);
    assert_eq!(inside("a", "").as_deref(), Some("/a/"));
    assert_eq!(inside("a|b", "dgu").as_deref(), Some("/a|b/"));
    assert_eq!(inside("a|b", "gi").as_deref(), Some("(?i:a|b)"));
    assert_eq!(inside(r"\p{L}", "iu"), None);
    assert_eq!(inside("a", "y"), None);
    for (source, flags, text) in [
        ("WEB|x$", "i", "web"),
        ("WEB|x$", "im", "X\nz"),
        ("a.b", "s", "a\nb"),
        (r"^(.)\1$", "ims", "aA"),
        ("a", "", "A"),
    ] {
        let plain = inside(source, flags).expect("it can be");
        let plain = plain.trim_start_matches('/').trim_end_matches('/');
        assert_eq!(
            found(plain, "", text),
            found(source, flags, text),
            "{plain}"
        );
    }
}
