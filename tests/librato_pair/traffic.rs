//! What is sent to both: names with tags, as users of Librato have them, and what of other traffic both can be
//! given.

use crate::pair::traffic::{self, fits};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// The ends of names: every tag of them is one that the service takes.
const TAGS: &[&str] = &[
    "",
    "",
    "",
    "#",
    "#env=prod",
    "#env=prod,zone=eu-1",
    "#zone=eu-1,env=prod",
    "#Zone=EU",
    "#canary",
    "#empty=,ok=1",
    "#=v,ok=1",
    "#a=1=2",
    "#a=1,b=3,a=2",
    "#source=stat",
    "#host=h9,x=1",
    "#path=/a/b?q",
    "#text=two words",
    "#9=nine,0=zero,a=1",
];

/// Tags that it refuses, and names that are cleaned.
const ODD: &[&str] = &[
    "o.key#two words=1:1|c\no.quote#q=\"x\":2|g\no.back#b=\\:3|ms\no.tab#t=a\tb:x|s",
    "o.brace#{a}=[b]:1|c\no.long#k=LONG:1|g\no.semi#a=1;b=2:1|c\no.blank# a = b :1|g",
    "a b!!c/d:1|g\nx$$y$z:1|c\n \u{e9}t\u{e9} :5|ms\n\u{c5}:2|g\nok.-_Z9:1|c\nA:1|c\na:1|c",
    "dog:1|c|#service:web,app:1\ndog.t:7|ms|#service:web\ndog#a=1:1|g|#b:2",
];

/// Datagrams in which a name is of one kind, so that the old way of sending has no conflicts. The same seed
/// gives the same.
pub(crate) fn tagged(seed: u64, sanitize: bool) -> Vec<Vec<u8>> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let datagram = vec(line(sanitize), 1..=20).prop_map(|lines| lines.join("\n").into_bytes());
    let datagrams = (0..60).map(|_| {
        let tree = datagram.new_tree(&mut runner);
        tree.expect("no strategy here refuses").current()
    });
    let datagrams: Vec<_> = datagrams.collect();
    assert!(fits(&datagrams), "more than a receive buffer can hold");
    datagrams
}

fn line(sanitize: bool) -> impl Strategy<Value = String> {
    // Sanitised it would be another spelling of the name without: sums could differ in the last digit.
    let tags = TAGS
        .iter()
        .copied()
        .filter(|tags| !sanitize || *tags != "#");
    let tags: Vec<_> = tags.collect();
    let name = select(vec![
        "a",
        "b.c",
        "Req",
        "web01.hits",
        "x y/z",
        "deep.er.name-1",
    ]);
    let tags = select(tags);
    let decimal =
        (0..1_000_000u32, 0..4u32).prop_map(|(n, places)| f64::from(n) / 10f64.powi(places as i32));
    let rate = select(vec!["", "", "", "|@0.5", "|@0.1", "|@0.3"]);
    (0..4u8, name, tags, decimal, rate, 0..30u8).prop_map(
        |(kind, name, tags, value, rate, small)| match kind {
            0 => format!("c.{name}{tags}:{value}|c{rate}"),
            1 => format!("t.{name}{tags}:{value}|ms{rate}"),
            2 => match small % 3 {
                0 => format!("g.{name}{tags}:{value}|g"),
                1 => format!("g.{name}{tags}:+{small}|g"),
                _ => format!("g.{name}{tags}:-{small}.25|g"),
            },
            _ => format!("s.{name}{tags}:m{small}|s"),
        },
    )
}

/// [`ODD`] and random datagrams of every kind, without the lines that make the original send a body it gives a wrong
/// length (D5: a tag that is not ASCII), or of which it reads some tags only (D9: more than one `#`).
pub(crate) fn random(seed: u64, sanitize: bool) -> Vec<Vec<u8>> {
    let fit = |line: &&[u8]| {
        let hashes = line.iter().filter(|byte| **byte == b'#').count();
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        sanitize || !name.contains(&b'#') || (hashes == 1 && line.is_ascii())
    };
    let datagrams = traffic::random(seed, sanitize).into_iter();
    let fitting = datagrams.map(|datagram| {
        let lines = datagram.split(|byte| *byte == b'\n').filter(fit);
        lines.collect::<Vec<_>>().join(&b'\n')
    });
    let mut datagrams = written(ODD);
    datagrams.extend(fitting);
    while !fits(&datagrams) {
        datagrams.pop();
    }
    datagrams
}

/// Fixed datagrams from their texts.
fn written(texts: &[&str]) -> Vec<Vec<u8>> {
    let long = "v".repeat(300);
    texts
        .iter()
        .map(|text| text.replace("LONG", &long).into_bytes())
        .collect()
}
