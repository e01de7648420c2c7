//! Rules for names: any glob, or regular expression, any template, any names. A glob finds what a plain search finds.

use statsd_fast::ingest::mapping::{Action, Kind, Mapping, Matcher, Rule, Template};

/// Beyond these the plain search takes too long.
const STARS: usize = 5;
const NAME: usize = 60;

/// The first line is a glob, or a regular expression behind a slash; the second is what a name becomes; each of the
/// rest is a name with its tags.
pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut lines = text.split('\n');
    let (Some(pattern), Some(template)) = (lines.next(), lines.next()) else {
        return;
    };
    let matcher = match pattern.strip_prefix('/') {
        Some(source) => match Matcher::regex(source, "i") {
            Ok(matcher) => matcher,
            Err(why) => return assert!(!why.is_empty()),
        },
        None => Matcher::Glob(pattern.into()),
    };
    let name = match Template::new(template, &matcher) {
        Ok(template) => Some(template),
        Err(why) => return assert!(!why.is_empty()),
    };
    let is_glob = matches!(matcher, Matcher::Glob(_));
    let tags = Vec::new();
    let mapping = Mapping::new(vec![Rule {
        matcher,
        kind: None,
        action: Action::Map { name, tags },
    }]);
    let stars = pattern.matches('*').count();
    for line in lines {
        let found = mapping.map(Kind::Counter, line.into(), false);
        let found = found.expect("nothing is dropped");
        if is_glob && stars <= STARS && line.len() <= NAME {
            assert_eq!(found, expected(pattern, template, line), "{line:?}");
        }
    }
}

fn expected(pattern: &str, template: &str, line: &str) -> String {
    let (name, tags) = line.split_at(line.find(';').unwrap_or(line.len()));
    let Some(captures) = captures(pattern, name) else {
        return line.into();
    };
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(behind) = behind.strip_prefix('$') {
            out.push('$');
            rest = behind;
            continue;
        }
        let number;
        (number, rest) = match behind.strip_prefix('{') {
            Some(inside) => inside.split_once('}').expect("a template that was taken"),
            None => behind.split_at(behind.bytes().take_while(u8::is_ascii_digit).count()),
        };
        match number.parse::<usize>().expect("a glob has numbers") {
            0 => out.push_str(name),
            number => out.push_str(captures[number - 1]),
        }
    }
    out + rest + tags
}

/// What each star stands for, the first as short as the whole allows, then the second, and so on.
fn captures<'n>(pattern: &str, name: &'n str) -> Option<Vec<&'n str>> {
    let Some(first) = pattern.chars().next() else {
        return name.is_empty().then(Vec::new);
    };
    let behind = &pattern[first.len_utf8()..];
    if first != '*' {
        return captures(behind, name.strip_prefix(first)?);
    }
    let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
    let mut ends = ends.take_while(|end| !name[..*end].contains('.'));
    ends.find_map(|end| {
        let mut found = captures(behind, &name[end..])?;
        found.insert(0, &name[..end]);
        Some(found)
    })
}
