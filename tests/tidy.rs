//! Holds the sources to the map in `src/lib.rs`: who may know whom, where `unsafe` and libc may stand, and
//! what every file looks like. It reads text, code in `#[cfg(test)]` included.
//!
//! Each rule is a function from a file's path and text to what breaks it, with a test of its own that
//! shows it a violation.

use statsd_fast::config::settings::SETTINGS;
use statsd_fast::metric::meter::METERS;
use statsd_fast::metric::sample::Reject;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every module at the top, and the ones it may name. Wings never name one another.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("lib", &[]),
    ("main", &["config", "runtime", "server"]),
    (
        "server",
        &[
            "admin", "config", "deliver", "flush", "ingest", "metric", "proxy", "runtime", "state",
            "takeover",
        ],
    ),
    ("admin", &["deliver", "flush", "metric", "runtime"]),
    (
        "config",
        &[
            "admin", "deliver", "flush", "ingest", "proxy", "runtime", "state", "takeover",
        ],
    ),
    ("proxy", &["admin", "ingest", "metric", "runtime"]),
    ("state", &["metric", "runtime"]),
    ("takeover", &["metric", "runtime"]),
    ("deliver", &["metric", "runtime"]),
    ("flush", &["metric", "runtime"]),
    ("ingest", &["metric", "runtime"]),
    ("metric", &[]),
    ("runtime", &[]),
];

/// Where `unsafe` may stand.
const UNSAFE: [&str; 2] = ["src/runtime/sys/", "src/ingest/scan.rs"];

/// The pure parts: no sleep, no socket, no clock.
const PURE: [&str; 32] = [
    "src/metric/",
    "src/admin/commands.rs",
    "src/ingest/admission.rs",
    "src/ingest/dogstatsd.rs",
    "src/ingest/key.rs",
    "src/ingest/mapping.rs",
    "src/ingest/name.rs",
    "src/ingest/number.rs",
    "src/ingest/packet.rs",
    "src/ingest/parse.rs",
    "src/ingest/scan.rs",
    "src/ingest/slots.rs",
    "src/ingest/source/nap.rs",
    "src/ingest/source/stream/frames.rs",
    "src/ingest/source/stream/framing.rs",
    "src/ingest/table.rs",
    "src/deliver/console",
    "src/deliver/inspector",
    "src/deliver/librato/batch.rs",
    "src/deliver/librato/measure",
    "src/deliver/librato/name.rs",
    "src/deliver/librato/pattern.rs",
    "src/deliver/librato/summary.rs",
    "src/deliver/number.rs",
    "src/deliver/spool/record.rs",
    "src/proxy/digests.rs",
    "src/proxy/md5.rs",
    "src/proxy/ring.rs",
    "src/runtime/crc32.rs",
    "src/state/format.rs",
    "src/takeover/format.rs",
    "src/takeover/message.rs",
];

const COLUMNS: usize = 110;

/// What breaks a rule, with its place.
type Violations = Vec<String>;

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut directories: Vec<PathBuf> = vec![root.join("src"), root.join("loadgen")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source is text");
                let inside = path.strip_prefix(root).expect("it was found there");
                files.push((inside.to_str().expect("a name that is text").into(), text));
            }
        }
    }
    files.sort();
    files
}

/// Applies a rule to every source.
fn hold(rule: impl Fn(&str, &str) -> Violations) {
    let sources = sources();
    assert!(
        sources.len() > 40,
        "only {} sources were found",
        sources.len()
    );
    let violations: Violations = sources
        .iter()
        .flat_map(|(path, text)| rule(path, text))
        .collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// The text with comments and the insides of literals blanked out, line by line as long as before.
fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_or_comment(&bytes[at..], at > 0 && is_word(bytes[at - 1])) + at;
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("only whole literals and comments were replaced")
}

/// How many bytes from the start are a comment or a literal; 0 when it is code.
fn literal_or_comment(text: &[u8], in_word: bool) -> usize {
    let find = |needle: &[u8], from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        let found = rest
            .windows(needle.len())
            .position(|window| window == needle);
        found.map_or(text.len(), |found| from + found + needle.len())
    };
    let quoted = |from: usize, quote: u8| {
        let mut at = from;
        while at < text.len() && text[at] != quote {
            at += 1 + usize::from(text[at] == b'\\');
        }
        (at + 1).min(text.len())
    };
    match text {
        [b'/', b'/', ..] => find(b"\n", 2) - usize::from(find(b"\n", 2) < text.len()),
        [b'/', b'*', ..] => find(b"*/", 2),
        [b'"', ..] => quoted(1, b'"'),
        [b'r', b'"' | b'#', ..] if !in_word => {
            let hashes = text[1..].iter().take_while(|byte| **byte == b'#').count();
            if text.get(1 + hashes) != Some(&b'"') {
                return 0;
            }
            let end = [&b"\""[..], &b"#".repeat(hashes)].concat();
            find(&end, 2 + hashes)
        }
        // A lifetime has no second quote behind its first character.
        [b'\'', b'\\', ..] => quoted(1, b'\''),
        [b'\'', first, ..] => {
            let character = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            if text.get(1 + character) == Some(&b'\'') {
                2 + character
            } else {
                0
            }
        }
        _ => 0,
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The words of a text of code, each with the line it stands in and what follows it.
fn words(code: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    let mut line = 1;
    let mut rest = code;
    std::iter::from_fn(move || {
        let start = rest.bytes().position(is_word)?;
        line += rest[..start].matches('\n').count();
        let after = &rest[start..];
        let length = after.bytes().take_while(|byte| is_word(*byte)).count();
        rest = &after[length..];
        Some((line, &after[..length], rest))
    })
}

fn unsafe_outside(path: &str, text: &str) -> Violations {
    if UNSAFE.iter().any(|allowed| path.starts_with(allowed)) {
        return Vec::new();
    }
    let code = code(text);
    let found = words(&code).filter(|(_, word, _)| ["unsafe", "unsafe_code"].contains(word));
    found
        .map(|(line, word, _)| {
            format!(
                "{path}:{line}: {word}, which belongs in {}",
                UNSAFE.join(" or ")
            )
        })
        .collect()
}

fn libc_outside(path: &str, text: &str) -> Violations {
    if path.starts_with("src/runtime/sys/") {
        return Vec::new();
    }
    let code = code(text);
    words(&code)
        .filter(|(_, word, _)| *word == "libc")
        .map(|(line, ..)| format!("{path}:{line}: libc, which belongs in src/runtime/sys/"))
        .collect()
}

/// The names right behind `::`: one, or those of a group; `*` for everything.
fn behind(rest: &str) -> Vec<String> {
    let Some(rest) = rest.trim_start().strip_prefix("::") else {
        // A root without a path, as in `use crate as it`.
        return vec!["*".into()];
    };
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else {
        return vec![first_name(rest)];
    };
    let mut names = Vec::new();
    let (mut depth, mut begin) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(first_name(&group[begin..at]));
                begin = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn first_name(text: &str) -> String {
    let text = text.trim_start();
    if text.starts_with('*') {
        return "*".into();
    }
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// The modules a file lies in, from the top: `src/a/b/mod.rs` is `[a, b]`; none is the root.
fn module(path: &str) -> Vec<&str> {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let mut module: Vec<_> = inside.trim_end_matches(".rs").split('/').collect();
    if module.last() == Some(&"mod") {
        module.pop();
    }
    module
}

/// Names of top-level modules that a file of the library or its program mentions, with the line. Paths
/// that climb out with `super` count, too.
fn mentioned(path: &str, text: &str) -> Vec<(usize, String)> {
    let code = code(text);
    let root = if path == "src/main.rs" {
        "statsd_fast"
    } else {
        "crate"
    };
    let depth = module(path).len();
    let mut found = Vec::new();
    let mut supers = 0;
    for (line, word, rest) in words(&code) {
        if word == root {
            found.extend(behind(rest).into_iter().map(|name| (line, name)));
        } else if word == "super" {
            supers += 1;
            if supers >= depth + inline_depth(&code, line) {
                found.extend(behind(rest).into_iter().map(|name| (line, name)));
            }
        }
        if word != "super" || !rest.trim_start().starts_with("::") {
            supers = 0;
        }
    }
    found.retain(|(_, name)| name != "super" && !name.is_empty());
    found
}

/// How many `mod name {` are open at a line; the sources are formatted, so each closes where it began.
fn inline_depth(code: &str, line: usize) -> usize {
    let mut open: Vec<usize> = Vec::new();
    for text in code.lines().take(line - 1) {
        let indent = text.len() - text.trim_start().len();
        let text = text.trim();
        if open.last() == Some(&indent) && text == "}" {
            open.pop();
        }
        let is_module = text
            .split("mod ")
            .nth(1)
            .is_some_and(|name| name.ends_with(" {") && !name.contains('('));
        if is_module {
            open.push(indent);
        }
    }
    open.len()
}

fn wrong_direction(path: &str, text: &str) -> Violations {
    if path.starts_with("loadgen/") {
        return beyond_sys(path, text);
    }
    let top = module(path)[0];
    let allowed = MAY_NAME.iter().find(|(name, _)| *name == top);
    let Some((_, allowed)) = allowed else {
        return vec![format!(
            "{path}: {top} is not in the table of this test, nor in the map of lib.rs"
        )];
    };
    mentioned(path, text)
        .into_iter()
        .filter(|(_, name)| name != top && !allowed.contains(&name.as_str()))
        .map(|(line, name)| format!("{path}:{line}: {top} must not know {name}"))
        .collect()
}

/// The load generator is a witness: it may use the server's system calls and nothing else of it.
fn beyond_sys(path: &str, text: &str) -> Violations {
    let code = code(text);
    words(&code)
        .filter(|(_, word, _)| *word == "statsd_fast")
        .filter(|(.., rest)| !rest.starts_with("::runtime::sys::"))
        .map(|(line, ..)| format!("{path}:{line}: loadgen may only use statsd_fast::runtime::sys"))
        .collect()
}

/// Tables are exempt: one row a line is what `rustfmt::skip` is for.
fn long_lines(path: &str, text: &str) -> Violations {
    let mut violations = Vec::new();
    let mut table = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim() == "#[rustfmt::skip]" {
            table = true;
        } else if table && line.starts_with(['}', ']']) {
            table = false;
        }
        let columns = line.chars().count();
        if columns > COLUMNS && !table {
            violations.push(format!(
                "{path}:{}: {columns} columns, the limit is {COLUMNS}",
                index + 1
            ));
        }
    }
    violations
}

fn left_for_later(path: &str, text: &str) -> Violations {
    let marks = ["TODO", "FIXME", "XXX"];
    text.lines()
        .enumerate()
        .filter(|(_, line)| marks.iter().any(|mark| line.contains(mark)))
        .map(|(index, line)| format!("{path}:{}: {}", index + 1, line.trim()))
        .collect()
}

fn nameless_file(path: &str, _text: &str) -> Violations {
    let vague = [
        "utils", "util", "helpers", "helper", "common", "types", "misc",
    ];
    let found = module(path).into_iter().find(|part| vague.contains(part));
    found
        .map(|part| format!("{path}: {part} says nothing of what is in it"))
        .into_iter()
        .collect()
}

fn headless(path: &str, text: &str) -> Violations {
    if text.starts_with("//! ") {
        return Vec::new();
    }
    vec![format!(
        "{path}:1: a file begins with what it is for: //! ..."
    )]
}

fn impure(path: &str, text: &str) -> Violations {
    if !PURE.iter().any(|pure| path.starts_with(pure)) {
        return Vec::new();
    }
    let banned = [
        "thread",
        "sleep",
        "Instant",
        "SystemTime",
        "UdpSocket",
        "TcpStream",
        "TcpListener",
    ];
    let code = code(text);
    let is_banned = |(_, word, rest): &(usize, &str, &str)| {
        banned.contains(word) && !(*word == "thread" && rest.starts_with("::scope"))
            || *word == "std" && rest.starts_with("::net")
    };
    words(&code)
        .filter(is_banned)
        .map(|(line, word, _)| {
            format!("{path}:{line}: {word}, in a part without clock, thread or socket")
        })
        .collect()
}

/// The rows of the table that no backquoted text of the page speaks of.
fn missing_in<'a>(page: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    names
        .filter(|name| {
            let spellings = [format!("`{name}`"), format!("`statsd_fast.{name}`")];
            !spellings.iter().any(|spelling| page.contains(spelling))
        })
        .collect()
}

fn without_a_case(corpus: &str) -> Vec<&'static str> {
    let has_case = |reason: &Reject| {
        let effect = format!("reject {}", reason.name());
        corpus
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(" => "))
            .any(|(_, effects)| effects.split(" ; ").any(|part| part == effect))
    };
    let reasons = Reject::ALL.iter().filter(|reason| !has_case(reason));
    reasons.map(|reason| reason.name()).collect()
}

#[test]
fn unsafe_stands_in_two_places() {
    hold(unsafe_outside);
}

#[test]
fn libc_stands_in_one_place() {
    hold(libc_outside);
}

#[test]
fn modules_know_whom_they_may() {
    hold(wrong_direction);
    // The rule sees: these are there for certain.
    let sources = sources();
    let edges: BTreeSet<(&str, String)> = sources
        .iter()
        .filter(|(path, _)| path.starts_with("src/"))
        .flat_map(|(path, text)| {
            mentioned(path, text)
                .into_iter()
                .map(|(_, to)| (module(path)[0], to))
        })
        .collect();
    for (from, allowed) in MAY_NAME {
        for to in *allowed {
            assert!(
                edges.contains(&(from, to.to_string())),
                "{from} does not name {to}: the table allows what nobody needs"
            );
        }
    }
}

#[test]
fn lines_fit_a_screen() {
    hold(long_lines);
}

#[test]
fn nothing_is_left_for_later() {
    hold(left_for_later);
}

#[test]
fn files_are_named_by_what_is_in_them() {
    hold(nameless_file);
}

#[test]
fn every_file_says_what_it_is_for() {
    hold(headless);
}

#[test]
fn pure_parts_are_pure() {
    hold(impure);
    let sources = sources();
    for pure in PURE {
        assert!(
            sources.iter().any(|(path, _)| path.starts_with(pure)),
            "{pure} is gone"
        );
    }
}

#[test]
fn every_reason_has_a_case_in_the_corpus() {
    let corpus = [
        include_str!("corpus/lines.txt"),
        include_str!("corpus/dogstatsd.txt"),
    ]
    .concat();
    // What is too long for a line, or depends on the day; tests/dialect.rs has them.
    let elsewhere = ["long-tags", "old-timestamp", "future-timestamp"];
    assert_eq!(without_a_case(&corpus), elsewhere);
}

/// The page users read, or nothing while there is none.
fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap_or_default()
}

#[test]
fn every_meter_stands_in_the_readme() {
    let names = METERS.iter().map(|meter| meter.name);
    assert_eq!(missing_in(&readme(), names), [""; 0]);
}

#[test]
fn every_setting_stands_in_the_readme() {
    let names = SETTINGS.iter().map(|setting| setting.name);
    assert_eq!(missing_in(&readme(), names), [""; 0]);
}

/// The rules themselves: what breaks them, and what only looks like it.
mod rules {
    use super::*;

    fn breaks(rule: fn(&str, &str) -> Violations, path: &str, text: &str) -> usize {
        rule(path, text).len()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let text =
            "a // unsafe\n/* b */ \"c\\\"d\" r#\"e\"f\"# 'g' '\\'' '\u{e9}' b\"h\" &'i str r#j";
        let kept: Vec<_> = code(text).split_whitespace().map(String::from).collect();
        assert_eq!(kept, ["a", "b", "&'i", "str", "r#j"]);
        assert_eq!(code(text).len(), text.len());
        assert_eq!(code("\"open\n").lines().count(), 1);
        let lines: Vec<_> = words("a\nb c\n\nd")
            .map(|(line, word, _)| (line, word))
            .collect();
        assert_eq!(lines, [(1, "a"), (2, "b"), (2, "c"), (4, "d")]);
    }

    #[test]
    fn unsafe_is_seen() {
        let rule = |path, text| breaks(unsafe_outside, path, text);
        assert_eq!(rule("src/flush/mod.rs", "fn f() { unsafe { g() } }"), 1);
        assert_eq!(
            rule(
                "src/flush/mod.rs",
                "unsafe fn f() {}\nunsafe impl Send for A {}"
            ),
            2
        );
        assert_eq!(rule("loadgen/main.rs", "#![allow(unsafe_code)]"), 1);
        assert_eq!(
            rule("src/flush/mod.rs", "// unsafe\nlet unsafer = \"unsafe\";"),
            0
        );
        assert_eq!(rule("src/runtime/sys/send.rs", "unsafe { g() }"), 0);
        assert_eq!(rule("src/ingest/scan.rs", "unsafe { g() }"), 0);
    }

    #[test]
    fn libc_is_seen() {
        let rule = |path, text| breaks(libc_outside, path, text);
        assert_eq!(
            rule(
                "src/runtime/clock.rs",
                "use libc::poll;\nlet a = libc::EAGAIN;"
            ),
            2
        );
        assert_eq!(
            rule("src/runtime/clock.rs", "/// [`libc::poll`]\nlet glibc = 1;"),
            0
        );
        assert_eq!(rule("src/runtime/sys/wake.rs", "libc::poll()"), 0);
    }

    #[test]
    fn a_wrong_arrow_is_seen_however_it_is_written() {
        for (path, text) in [
            ("src/ingest/mod.rs", "use crate::flush::State;"),
            (
                "src/ingest/mod.rs",
                "use crate::{metric::cell::{Gauge, Timer}, flush};",
            ),
            (
                "src/ingest/mod.rs",
                "use crate::{\n    deliver::{self, sink},\n};",
            ),
            ("src/ingest/mod.rs", "fn f() -> crate::config::Config {}"),
            ("src/ingest/mod.rs", "use super::flush;"),
            (
                "src/ingest/source/udp.rs",
                "use super::super::super::deliver;",
            ),
            ("src/ingest/source/mod.rs", "use super::super::server;"),
            (
                "src/ingest/mod.rs",
                "mod tests {\n    use super::super::flush;\n}",
            ),
            (
                "src/ingest/mod.rs",
                "#[cfg(test)]\nmod tests {\n    use crate::server;\n}",
            ),
            ("src/flush/merge.rs", "use crate::*;"),
            ("src/flush/merge.rs", "use crate as all;"),
            ("src/metric/cell.rs", "use crate::runtime::clock;"),
            ("src/runtime/log.rs", "use crate::metric::cell;"),
            ("src/deliver/mod.rs", "use crate::server::Totals;"),
            ("src/config/mod.rs", "use crate::metric::cell;"),
            ("src/main.rs", "use statsd_fast::{config, flush};"),
            ("src/proxy/mod.rs", "use crate::config::Proxy;"),
            ("src/relay/mod.rs", ""),
            ("loadgen/main.rs", "use statsd_fast::metric::sample::Kind;"),
            ("loadgen/main.rs", "use statsd_fast::runtime::{sys, clock};"),
        ] {
            assert_eq!(breaks(wrong_direction, path, text), 1, "{path}: {text}");
        }
        for (path, text) in [
            (
                "src/ingest/mod.rs",
                "use crate::{metric::{flush}, ingest::deliver};",
            ),
            (
                "src/ingest/source/udp.rs",
                "use super::super::flush;\nuse super::Source;",
            ),
            ("src/ingest/mod.rs", "mod tests {\n    use super::*;\n}"),
            (
                "src/ingest/mod.rs",
                "//! [`crate::flush`] takes it from here.\nlet crates = 1;",
            ),
            ("src/main.rs", "use statsd_fast::config::{self, flush};"),
            (
                "loadgen/main.rs",
                "use crate::report;\nuse statsd_fast::runtime::sys::send::Refusal;",
            ),
        ] {
            assert_eq!(wrong_direction(path, text), [""; 0], "{path}: {text}");
        }
    }

    #[test]
    fn the_shape_of_a_file_is_seen() {
        let long = "x".repeat(COLUMNS + 1);
        assert_eq!(breaks(long_lines, "a.rs", &long), 1);
        assert_eq!(breaks(long_lines, "a.rs", &"\u{e9}".repeat(COLUMNS)), 0);
        let table = format!("#[rustfmt::skip]\nconst A: &[u8] = &[\n    {long}\n];\n");
        assert_eq!(breaks(long_lines, "a.rs", &table), 0);
        assert_eq!(breaks(long_lines, "a.rs", &format!("{table}{long}")), 1);
        for mark in ["TODO", "FIXME", "XXX"] {
            assert_eq!(
                breaks(left_for_later, "a.rs", &format!("a\n// {mark}: b")),
                1
            );
        }
        assert_eq!(breaks(left_for_later, "a.rs", "// to do it"), 0);
        assert_eq!(breaks(nameless_file, "src/ingest/utils.rs", ""), 1);
        assert_eq!(breaks(nameless_file, "src/common/mod.rs", ""), 1);
        assert_eq!(breaks(nameless_file, "src/runtime/mod.rs", ""), 0);
        assert_eq!(breaks(headless, "a.rs", "use std::fs;\n//! Late."), 1);
        assert_eq!(breaks(headless, "a.rs", "//! Reads.\n"), 0);
    }

    #[test]
    fn clocks_and_sockets_are_seen() {
        let rule = |path, text| breaks(impure, path, text);
        assert_eq!(rule("src/metric/cell.rs", "std::thread::sleep(a)"), 2);
        assert_eq!(rule("src/ingest/table.rs", "let a = Instant::now();"), 1);
        assert_eq!(rule("src/deliver/number.rs", "use std::net::UdpSocket;"), 2);
        assert_eq!(rule("src/deliver/sink.rs", "use std::net::TcpStream;"), 0);
        assert_eq!(
            rule("src/metric/cell.rs", "// Instant\nlet internet = 1;"),
            0
        );
    }

    #[test]
    fn what_is_not_documented_is_seen() {
        assert_eq!(
            missing_in("| `port` | ports |", ["port", "ports"].into_iter()),
            ["ports"]
        );
        assert_eq!(missing_in("", ["port"].into_iter()), ["port"]);
    }

    #[test]
    fn a_reason_without_a_case_is_seen() {
        let corpus = "a => reject no-type\n# b => reject bad-rate\nc:1|c: => count c 1 ; reject empty-value\n\
                      d => reject not-a-number\n";
        assert_eq!(without_a_case(corpus)[..2], ["bad-rate", "negative-timer"]);
    }
}
