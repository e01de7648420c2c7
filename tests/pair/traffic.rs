//! What is sent to both: the corpus, edge cases, and random datagrams from a seed.

#[path = "../corpus/cases.rs"]
mod cases;

use crate::reference::{Effect, Spellings, departure, effects};
use crate::traffic::{self, Numbers};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::fs;

/// As long as a datagram of packed lines gets.
const PACKED: usize = 1400;

/// Sequences whose outcome depends on their order, and sums in which every digit counts.
const EDGES: &[&str] = &[
    "e.add:+5|g\ne.sub:-5|g",
    "e.down:10|g\ne.down:-3|g\ne.up:10|g\ne.up:+3|g",
    "e.zero:10|g\ne.zero:0|g\ne.zero:-3|g",
    "e.under:10|g\ne.under:-10|g\ne.under:-5|g",
    "e.blank:10|g\ne.blank: -3|g",
    "e.parts:1|g:+2|g:-1|g\ne.powers:1e2|g\ne.powers:+1e1|g\ne.space: |g",
    "e.nan:Infinity|g\ne.nan:-Infinity|g",
    "e.healed:Infinity|g\ne.healed:-Infinity|g\ne.healed:+5|g",
    "e.minus:-0|g\ne.minus2:0|g\ne.minus2:-0|g",
    "e.sum:0.1|c:0.2|c\ne.third:1|c|@0.3:1|c|@0.3:1|c|@0.7",
    "e.nan:0|c|@0\ne.nan:5|c\ne.inf:1|c|@0\ne.inf:-1|c|@0",
    "e.big:9007199254740993|c:1|c:1|c\ne.tiny:5e-324|c|@2\ne.wide:1e21|c:1|c",
    "e.one:100|ms\ne.hundreds:100|ms:200|ms:300|ms\ne.sampled:100|ms:200|ms|@0.5",
    "e.eight:450|ms:120|ms:553|ms:994|ms:334|ms:844|ms:675|ms:496|ms",
    "e.ten:1|ms:2|ms:3|ms:4|ms:5|ms:6|ms:7|ms:8|ms:9|ms:10|ms",
    "e.five:10|ms:20|ms:30|ms:40|ms:50|ms\ne.two:1|ms:2|ms\ne.seven:7|ms",
    "e.float:0.1|ms:0.2|ms:0.3|ms\ne.fine:0.005|ms:0.01|ms:0.5|ms:1|ms:9|ms:10|ms:100|ms",
    "e.rates:100|ms|@0.3:200|ms|@0.3\ne.tz:0|ms|@0\ne.inf:1|ms:Infinity|ms\ne.neg:-0|ms",
    "e.hole:-5|ms :-1|ms ",
    "e.set:a|s:b|s:a|s:|s:0|s\ne.set:10|s:10.0|s:1e1|s",
    "123:1|c\n9:1|c\nabc:1|c\n5:1|c\n-1:1|c\n4294967295:1|c\n1.5:1|c",
    "statsd.packets_received:100|c\nmy.bad_lines_seen.x:3|c\nmy.metrics_received:2|ms",
    "e.all:1|c:2|ms:3|g:4|s\ne.missing:1:2:3|ms\ne.empty:1|c::2|c\ne.open:1|c:",
];

/// Every line of the corpus that the original survives, and the edge cases.
///
/// A line that is there for its value has the name `a`: it gets one of its own, `l` and its number in
/// the file.
pub(crate) fn corpus(sanitize: bool) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    let mut packed = Vec::new();
    for case in cases::cases(cases::LINES) {
        let lines = case.datagram.split(|&byte| byte == b'\n');
        if lines
            .clone()
            .any(|line| departure(line, sanitize).is_some())
        {
            continue;
        }
        let named: Vec<_> = lines
            .map(|line| match line.strip_prefix(b"a:") {
                Some(rest) => [format!("l{}:", case.number).as_bytes(), rest].concat(),
                None => line.to_vec(),
            })
            .collect();
        if named.len() == 1 && !named[0].is_empty() {
            pack(&mut packed, &named[0]);
        } else {
            datagrams.push(named.join(&b'\n'));
        }
    }
    datagrams.append(&mut packed);
    datagrams.extend(EDGES.iter().map(|edge| edge.as_bytes().to_vec()));
    datagrams
}

/// A name as long as fits into a datagram, and ten thousand lines in one.
pub(crate) fn large() -> Vec<Vec<u8>> {
    let lines: Vec<_> = (0..10_000_u16)
        .map(|i| format!("{}:{}|c", char::from(b'm' + (i % 7) as u8), i % 3))
        .collect();
    vec![
        format!("{}:1|c", "x".repeat(60_000)).into_bytes(),
        lines.join("\n")[..].into(),
    ]
}

/// Random datagrams, as many as a receive buffer holds for certain. The same seed gives the same.
pub(crate) fn random(seed: u64, sanitize: bool) -> Vec<Vec<u8>> {
    draw(seed, sanitize, &|_| true)
}

/// The same, sanitised, where the order shows: without names that look like integers, which the original has
/// first, and without sets, whose members we show in an order of our own.
pub(crate) fn random_in_order(seed: u64) -> Vec<Vec<u8>> {
    draw(seed, true, &|line| {
        let indexes = |text: &str| text.parse::<u32>().is_ok_and(|n| n.to_string() == text);
        !effects(line, true).iter().any(|effect| match effect {
            Effect::Count { key, .. }
            | Effect::Time { key, .. }
            | Effect::GaugeSet { key, .. }
            | Effect::GaugeAdd { key, .. } => indexes(key),
            Effect::Member { .. } => true,
            Effect::Reject(_) => false,
        })
    })
}

fn draw(seed: u64, sanitize: bool, wanted: &dyn Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let wanted = |line: &[u8]| departure(line, sanitize).is_none() && wanted(line);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, rng);
    // Names of its own for each of these, so that one infinite value does not hide all others.
    let fresh = [
        traffic::datagram(Numbers::Any).boxed(),
        traffic::mutated(Numbers::Any).boxed(),
    ];
    // Shared names in many spellings, with sums that are exact in any order.
    let shared = traffic::datagram(Numbers::Exact);
    let mut spellings = Spellings::default();
    let mut datagrams: Vec<Vec<u8>> = Vec::new();
    for number in 0.. {
        let mut draw = |strategy: &dyn Draw| strategy.draw(&mut runner);
        let datagram = match fresh.get(number % 3) {
            Some(strategy) => {
                let prefix = format!("g{number}.");
                let datagram = each_line(&draw(strategy), prefix.as_bytes(), wanted);
                if spellings.clash(&datagram, sanitize) {
                    continue;
                }
                datagram
            }
            None => each_line(&draw(&shared), b"", wanted),
        };
        datagrams.push(datagram);
        if !fits(&datagrams) {
            datagrams.pop();
            break;
        }
    }
    datagrams
}

/// A strategy as a source of values.
trait Draw {
    fn draw(&self, runner: &mut TestRunner) -> Vec<u8>;
}

impl<S: Strategy<Value = Vec<u8>>> Draw for S {
    fn draw(&self, runner: &mut TestRunner) -> Vec<u8> {
        let tree = self.new_tree(runner);
        tree.expect("no strategy here refuses").current()
    }
}

/// The datagram with `prefix` in front of each line, without the lines that are not wanted then.
fn each_line(datagram: &[u8], prefix: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let lines = datagram.split(|&byte| byte == b'\n').map(|line| {
        if line.is_empty() {
            return Vec::new();
        }
        let line = [prefix, line].concat();
        if wanted(&line) { line } else { Vec::new() }
    });
    lines.collect::<Vec<_>>().join(&b'\n')
}

fn pack(datagrams: &mut Vec<Vec<u8>>, line: &[u8]) {
    match datagrams.last_mut() {
        Some(last) if last.len() + line.len() < PACKED => {
            last.push(b'\n');
            last.extend_from_slice(line);
        }
        _ => datagrams.push(line.to_vec()),
    }
}

/// Whether a receive buffer of the usual size holds all of them at once: then none is lost, however late the
/// receiver is.
pub(crate) fn fits(datagrams: &[Vec<u8>]) -> bool {
    let buffer = fs::read_to_string("/proc/sys/net/core/rmem_default");
    let buffer = buffer.ok().and_then(|text| text.trim().parse().ok());
    // The kernel accounts for its own overhead, and rounds up.
    let held = |length: usize| (length + 400).next_power_of_two() + 256;
    let held: usize = datagrams.iter().map(|datagram| held(datagram.len())).sum();
    held + 2 * 1024 < buffer.unwrap_or(212_992)
}
