//! Rules that rename names, set their tags or drop them (`mappings`). Pure; only for spellings never seen.
//!
//! A rule sees the name alone, cleaned, without its tags. The first that matches decides; what no rule
//! matches stays as it is. Time is bounded by the product of the lengths of rule and name: a regular
//! expression has no look-around and no back-references, is compiled into a program of bounded size, and
//! looks at no name that is very long.

use crate::metric::name::cleaned;
use regex::bytes::{Regex, RegexBuilder};
use std::ops::Range;
use std::sync::Arc;

/// What a rule may be for alone.
pub use crate::metric::sample::Kind;

/// Stands before each tag of a name.
const TAG: char = ';';

/// Memory of a compiled expression, and of what one worker's searches with it may keep, in bytes.
const REGEX_BYTES: usize = 256 << 10;

/// Longest name that a regular expression looks at, in bytes: the product of both lengths bounds the time.
const REGEX_NAME_MAX: usize = 1024;

/// All rules, in order. Without any, names stay as they are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mapping {
    rules: Arc<[Rule]>,
}

/// What to do with the names that something matches.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Which names.
    pub matcher: Matcher,
    /// Of which kind of metric only.
    pub kind: Option<Kind>,
    /// What becomes of them.
    pub action: Action,
}

/// What becomes of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It goes on.
    Map {
        /// Under another name.
        name: Option<Template>,
        /// With these tags, in place of those of the same keys. An empty value takes a tag away.
        tags: Vec<(String, Template)>,
    },
    /// Its values are counted and dropped.
    Drop,
}

impl Mapping {
    /// These rules, of which the first that matches decides.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self {
            rules: rules.into(),
        }
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What a name with its tags becomes; `None` when it is dropped.
    pub fn map(&self, kind: Kind, name: String, sanitize: bool) -> Option<String> {
        if self.rules.is_empty() {
            return Some(name);
        }
        let (bare, tags) = name.split_at(name.find(TAG).unwrap_or(name.len()));
        let mut rules = (self.rules.iter()).filter(|rule| rule.kind.is_none_or(|it| it == kind));
        let found = rules.find_map(|rule| Some((rule, rule.matcher.captures(bare)?)));
        let Some((rule, captures)) = found else {
            return Some(name);
        };
        let Action::Map {
            name: renamed,
            tags: set,
        } = &rule.action
        else {
            return None;
        };
        let fill = |template: &Template| template.fill(bare, &captures);
        let mut out = renamed.as_ref().map_or_else(|| bare.to_owned(), fill);
        let mut set: Vec<_> = set.iter().map(|(key, it)| (key, Some(fill(it)))).collect();
        // The piece before the first mark is nothing.
        for tag in tags.split(TAG).skip(1) {
            let key = tag.split('=').next().unwrap_or(tag);
            match set.iter_mut().find(|(replaced, _)| *replaced == key) {
                None => [";", tag].into_iter().for_each(|part| out.push_str(part)),
                // In the place of the first of that key; any more of them go.
                Some((_, value)) => push_tag(&mut out, key, value.take()),
            }
        }
        for (key, value) in set {
            push_tag(&mut out, key, value);
        }
        Some(if sanitize { cleaned(&out) } else { out })
    }
}

impl Rule {
    /// Whether no name is left for `other` behind this one, as far as their spelling tells.
    pub fn covers(&self, other: &Self) -> bool {
        self.matcher == other.matcher && (self.kind.is_none() || self.kind == other.kind)
    }

    /// A character that no clean name without tags has, but the glob.
    pub fn unclean_match(&self) -> Option<char> {
        match &self.matcher {
            Matcher::Glob(text) => unclean(&text.replace('*', "")),
            Matcher::Regex { .. } => None,
        }
    }

    /// A character in what it makes that does not stay when names are cleaned.
    pub fn unclean_outcome(&self) -> Option<char> {
        let Action::Map { name, tags } = &self.action else {
            return None;
        };
        let texts = name.iter().chain(tags.iter().map(|(_, value)| value));
        let keys = tags.iter().map(|(key, _)| key.as_str());
        texts
            .flat_map(Template::texts)
            .chain(keys)
            .find_map(unclean)
    }
}

/// The first character that a clean name without tags does not have.
fn unclean(text: &str) -> Option<char> {
    let stays = |c: char| c != TAG && cleaned(c.encode_utf8(&mut [0; 4])).starts_with(c);
    text.chars().find(|c| !stays(*c))
}

fn push_tag(out: &mut String, key: &str, value: Option<String>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        for part in [";", key, "=", &value] {
            out.push_str(part);
        }
    }
}

/// Which names a rule is for. Two are equal when they were written alike.
#[derive(Debug, Clone)]
pub enum Matcher {
    /// The whole name; each `*` stands for as few characters as will do, but for no dot.
    Glob(String),
    /// Found anywhere in the name.
    Regex {
        /// As it was written, and its flags.
        written: (String, String),
        /// The same, compiled.
        regex: Regex,
    },
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Glob(one), Self::Glob(other)) => one == other,
            (Self::Regex { written: one, .. }, Self::Regex { written: other, .. }) => one == other,
            _ => false,
        }
    }
}

impl Matcher {
    /// A regular expression with the letters behind it: `i`, `m` and `s` count; `d`, `g` and `u` mean nothing
    /// here, where only bytes are looked at.
    ///
    /// # Errors
    /// What is wrong with it, in a line.
    pub fn regex(source: &str, flags: &str) -> Result<Self, String> {
        if let Some(flag) = flags.chars().find(|flag| !"dgimsu".contains(*flag)) {
            return Err(format!("the flag {flag} is not supported"));
        }
        let regex = RegexBuilder::new(source)
            .unicode(false)
            .case_insensitive(flags.contains('i'))
            .multi_line(flags.contains('m'))
            .dot_matches_new_line(flags.contains('s'))
            .size_limit(REGEX_BYTES)
            .dfa_size_limit(REGEX_BYTES)
            .build()
            .map_err(|error| in_a_line(&error))?;
        Ok(Self::Regex {
            written: (source.into(), flags.into()),
            regex,
        })
    }

    /// How many captures it has, `$0` not counted.
    fn groups(&self) -> usize {
        match self {
            Self::Glob(text) => text.matches('*').count(),
            Self::Regex { regex, .. } => regex.captures_len() - 1,
        }
    }

    /// The number of the capture of that name.
    fn group_named(&self, wanted: &str) -> Option<usize> {
        match self {
            Self::Glob(_) => None,
            Self::Regex { regex, .. } => {
                regex.capture_names().position(|name| name == Some(wanted))
            }
        }
    }

    /// What it finds in a name: the whole first, then each capture.
    fn captures(&self, name: &str) -> Option<Vec<Range<usize>>> {
        match self {
            Self::Glob(glob) => glob_captures(glob.as_bytes(), name.as_bytes()),
            Self::Regex { .. } if name.len() > REGEX_NAME_MAX => None,
            Self::Regex { regex, .. } => {
                let captures = regex.captures(name.as_bytes())?;
                // One that took no part has caught nothing.
                let range = |found: Option<regex::bytes::Match<'_>>| found.map(|it| it.range());
                Some(
                    captures
                        .iter()
                        .map(|it| range(it).unwrap_or(0..0))
                        .collect(),
                )
            }
        }
    }
}

/// The last line of an error says what is wrong; those before it draw where.
fn in_a_line(error: &regex::Error) -> String {
    if let regex::Error::CompiledTooBig(_) = error {
        return "it is too large: its repetitions need too much memory".into();
    }
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

/// Matches a glob against a whole name. When something does not fit, only the last `*` takes one more: each
/// earlier one ends where what follows it was found first, and that is never too late.
fn glob_captures(glob: &[u8], name: &[u8]) -> Option<Vec<Range<usize>>> {
    let whole = 0..name.len();
    let mut captures = vec![whole];
    let (mut at, mut reached) = (0, 0);
    // Behind the last star, and how many captures there were with it.
    let mut last = None;
    loop {
        match (glob.get(at), name.get(reached)) {
            (Some(b'*'), _) => {
                at += 1;
                captures.push(reached..reached);
                last = Some((at, captures.len()));
                continue;
            }
            (None, None) => return Some(captures),
            (Some(wanted), Some(there)) if wanted == there => {
                (at, reached) = (at + 1, reached + 1);
                continue;
            }
            _ => {}
        }
        let (behind, with) = last?;
        captures.truncate(with);
        let star = captures.last_mut().expect("the star's own");
        if name.get(star.end).is_none_or(|byte| *byte == b'.') {
            return None;
        }
        star.end += 1;
        (at, reached) = (behind, star.end);
    }
}

/// A text with captures in it: `$1` or `${1}`, `${name}` for one with a name, `$$` for a dollar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Capture(usize),
}

impl Template {
    /// Reads a text whose captures are those of `matcher`.
    ///
    /// # Errors
    /// A dollar that stands before something else, and a capture that there is not.
    pub fn new(text: &str, matcher: &Matcher) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('$') {
            pieces.push(Piece::Text(before.into()));
            if let Some(behind) = behind.strip_prefix('$') {
                pieces.push(Piece::Text("$".into()));
                rest = behind;
                continue;
            }
            let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
            let name;
            (name, rest) = match behind.strip_prefix('{') {
                Some(inside) => inside.split_once('}').ok_or("a } is missing")?,
                None => behind.split_at(digits),
            };
            let number = name.parse().ok().or_else(|| matcher.group_named(name));
            let groups = matcher.groups();
            match number.filter(|number| *number <= groups) {
                Some(number) => pieces.push(Piece::Capture(number)),
                None if name.is_empty() => return Err("a $ stands before nothing it knows".into()),
                None => return Err(format!("there is no capture {name:?}, but {groups}")),
            }
        }
        pieces.push(Piece::Text(rest.into()));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Ok(Self(pieces))
    }

    /// What stands in it besides captures.
    fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Capture(_) => None,
        })
    }

    fn fill(&self, name: &str, captures: &[Range<usize>]) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Capture(number) => {
                    let caught = &name.as_bytes()[captures[*number].clone()];
                    out.push_str(&String::from_utf8_lossy(caught));
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn glob(text: &str) -> Matcher {
        Matcher::Glob(text.into())
    }

    fn regex(source: &str, flags: &str) -> Matcher {
        Matcher::regex(source, flags).expect("a regular expression")
    }

    /// What a matcher finds, as text.
    fn found(matcher: &Matcher, name: &str) -> Option<Vec<String>> {
        let captures = matcher.captures(name)?;
        Some(captures.into_iter().map(|it| name[it].to_owned()).collect())
    }

    fn rule(matcher: Matcher, name: Option<&str>, tags: &[(&str, &str)]) -> Rule {
        let template = |text| Template::new(text, &matcher).expect("a template");
        let tags = tags.iter();
        let action = Action::Map {
            name: name.map(template),
            tags: tags
                .map(|(key, it)| ((*key).to_owned(), template(it)))
                .collect(),
        };
        Rule {
            matcher,
            kind: None,
            action,
        }
    }

    fn dropping(matcher: Matcher) -> Rule {
        Rule {
            matcher,
            kind: None,
            action: Action::Drop,
        }
    }

    fn mapped(rules: &[Rule], name: &str) -> Option<String> {
        Mapping::new(rules.to_vec()).map(Kind::Counter, name.into(), true)
    }

    #[test]
    fn a_star_of_a_glob_stands_for_a_part_without_dots() {
        for (text, name, captures) in [
            ("a.b", "a.b", Some(vec!["a.b"])),
            ("a.b", "a.bc", None),
            ("a.b", "xa.b", None),
            ("a.b", "aXb", None),
            ("*", "abc", Some(vec!["abc", "abc"])),
            ("*", "", Some(vec!["", ""])),
            ("*", "a.b", None),
            ("a.*.c", "a.b.c", Some(vec!["a.b.c", "b"])),
            ("a.*.c", "a..c", Some(vec!["a..c", ""])),
            ("a.*.c", "a.b.d.c", None),
            ("a.*.c", "a.b.c.d", None),
            ("*.*", "a.b", Some(vec!["a.b", "a", "b"])),
            ("*_ms", "x_y_ms", Some(vec!["x_y_ms", "x_y"])),
            ("a*b*", "axbyb", Some(vec!["axbyb", "x", "yb"])),
            ("a*b*c", "abbcc", Some(vec!["abbcc", "", "bc"])),
            ("*ab*.x", "aab.x", Some(vec!["aab.x", "a", ""])),
            ("*a.*a", "aa.ba", Some(vec!["aa.ba", "a", "b"])),
            ("**", "ab", Some(vec!["ab", "", "ab"])),
            ("é.*", "é.ü", Some(vec!["é.ü", "ü"])),
        ] {
            let captures = captures.map(|all| all.into_iter().map(str::to_owned).collect());
            assert_eq!(found(&glob(text), name), captures, "{text} on {name}");
        }
    }

    proptest! {
        /// The expression that a glob stands for is its twin.
        #[test]
        fn a_glob_is_the_lazy_expression_it_stands_for(
            text in "[ab.*]{0,10}",
            name in "[ab.]{0,14}",
        ) {
            let source = text.replace('.', r"\.").replace('*', "([^.]*?)");
            let twin = regex(&format!("^{source}$"), "");
            prop_assert_eq!(found(&glob(&text), &name), found(&twin, &name));
        }
    }

    #[test]
    fn an_expression_is_found_anywhere_and_its_letters_are_ascii() {
        assert_eq!(
            found(&regex(r"\.(\w+)_(x)?", ""), "a.bc_d"),
            Some(vec![".bc_".into(), "bc".into(), String::new()])
        );
        assert_eq!(found(&regex("^A", ""), "abc"), None);
        assert!(found(&regex("^A", "gi"), "abc").is_some());
        assert_eq!(found(&regex(r"^\w+$", ""), "é"), None);
        assert!(found(&regex(r"a\/b", ""), "a/b").is_some());
        let long = "a".repeat(REGEX_NAME_MAX);
        assert!(found(&regex("a$", ""), &long).is_some());
        assert_eq!(found(&regex("a$", ""), &(long + "a")), None);
    }

    #[test]
    fn an_expression_that_is_none_or_too_large_is_refused_in_a_line() {
        for (source, flags, error) in [
            ("(a", "", "unclosed group"),
            (
                "a(?=b)",
                "",
                "look-around, including look-ahead and look-behind, is not supported",
            ),
            (r"(a)\1", "", "backreferences are not supported"),
            ("a", "y", "the flag y is not supported"),
            (
                "((a{100}){100}){100}",
                "",
                "it is too large: its repetitions need too much memory",
            ),
        ] {
            assert_eq!(Matcher::regex(source, flags).err().as_deref(), Some(error));
        }
    }

    #[test]
    fn captures_stand_where_a_template_has_them() {
        let matcher = regex(r"^(a)\.(?<rest>.*)$", "");
        let filled = |text: &str| {
            let template = Template::new(text, &matcher)?;
            let captures = matcher.captures("a.b.c").expect("it matches");
            Ok::<_, String>(template.fill("a.b.c", &captures))
        };
        for (text, out) in [
            ("", ""),
            ("x.$2", "x.b.c"),
            ("$1_$2", "a_b.c"),
            ("${1}0.${rest}", "a0.b.c"),
            ("$0", "a.b.c"),
            ("$$1 5$$", "$1 5$"),
        ] {
            assert_eq!(filled(text), Ok(out.into()), "{text}");
        }
        for (text, error) in [
            ("$3", "there is no capture \"3\", but 2"),
            ("$10", "there is no capture \"10\", but 2"),
            ("${x}", "there is no capture \"x\", but 2"),
            (
                "$99999999999999999999",
                "there is no capture \"99999999999999999999\", but 2",
            ),
            ("a$", "a $ stands before nothing it knows"),
            ("$a", "a $ stands before nothing it knows"),
            ("${}", "a $ stands before nothing it knows"),
            ("${1", "a } is missing"),
        ] {
            assert_eq!(filled(text), Err(error.into()), "{text}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = [
            rule(glob("web.keep.*"), None, &[]),
            dropping(glob("web.*.*")),
            rule(glob("*.*"), Some("$2.$1"), &[("of", "$1")]),
            rule(glob("a.*"), Some("never"), &[]),
        ];
        for (name, out) in [
            ("web.keep.a", Some("web.keep.a")),
            ("web.drop.a", None),
            ("a.b", Some("b.a;of=a")),
            ("a.b.c", Some("a.b.c")),
            ("", Some("")),
        ] {
            assert_eq!(mapped(&rules, name).as_deref(), out, "{name}");
        }
        assert_eq!(mapped(&[], "a;b=c").as_deref(), Some("a;b=c"));
    }

    #[test]
    fn a_rule_is_for_one_kind_when_it_says_so() {
        let timers = Rule {
            kind: Some(Kind::Timer),
            ..dropping(glob("*"))
        };
        let mapping = Mapping::new(vec![timers]);
        for kind in Kind::ALL {
            let out = mapping.map(kind, "a".into(), true);
            assert_eq!(out.is_none(), kind == Kind::Timer, "{kind:?}");
        }
    }

    #[test]
    fn tags_are_no_part_of_the_name_and_are_set_by_key() {
        let rules = [
            rule(
                glob("a.*"),
                Some("b"),
                &[("k", "$1"), ("empty", ""), ("new", "1")],
            ),
            rule(glob("keep"), None, &[("t", "set")]),
        ];
        for (name, out) in [
            ("a.x", "b;k=x;new=1"),
            ("a.x;z=1;k=old;y=2", "b;z=1;k=x;y=2;new=1"),
            ("a.x;k=1;k=2;k", "b;k=x;new=1"),
            ("a.x;empty=full;new=0", "b;new=1;k=x"),
            ("a.;k=old", "b;new=1"),
            ("a.x;;kk=v", "b;;kk=v;k=x;new=1"),
            ("keep;t", "keep;t=set"),
            ("keeper;t", "keeper;t"),
        ] {
            assert_eq!(mapped(&rules, name).as_deref(), Some(out), "{name}");
        }
    }

    #[test]
    fn what_a_rule_makes_is_cleaned_when_names_are() {
        let rules = [rule(glob("*"), Some("a b/$1"), &[("k", "x/y")])];
        assert_eq!(mapped(&rules, "c").as_deref(), Some("a_b-c;k=x-y"));
        let raw = Mapping::new(rules.to_vec()).map(Kind::Set, "ü c".into(), false);
        assert_eq!(raw.as_deref(), Some("a b/ü c;k=x/y"));
    }
}
