//! The server's parser against the naive reference, for datagrams of every shape.

mod parsed;
mod reference;
mod traffic;

use proptest::prelude::*;
use traffic::Numbers;

/// What the reference says a datagram does, in the notation of the corpus.
fn expected(datagram: &[u8]) -> Vec<String> {
    let mut effects = Vec::new();
    for line in datagram
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        effects.extend(
            reference::effects(line, true)
                .iter()
                .map(ToString::to_string),
        );
    }
    effects
}

fn assert_same(datagram: &[u8]) {
    let expected = expected(datagram);
    let shown = String::from_utf8_lossy(datagram);
    assert_eq!(parsed::packet(datagram), expected, "datagram {shown:?}");
    assert_eq!(
        parsed::line_by_line(datagram),
        expected,
        "slow path, datagram {shown:?}"
    );
}

/// `PROPTEST_CASES` for a longer search; what it finds is printed and belongs in the corpus.
fn search() -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 2000;
    }
    config
}

proptest! {
    #![proptest_config(search())]

    #[test]
    fn parser_reads_the_grammar(datagram in traffic::datagram(Numbers::Any)) {
        assert_same(&datagram);
    }

    #[test]
    fn parser_reads_every_spelling(datagram in traffic::datagram(Numbers::Exact)) {
        assert_same(&datagram);
    }

    #[test]
    fn parser_reads_mutated_datagrams(datagram in traffic::mutated(Numbers::Any)) {
        assert_same(&datagram);
    }

    #[test]
    fn parser_reads_any_bytes(datagram in proptest::collection::vec(any::<u8>(), 0..300)) {
        assert_same(&datagram);
    }

    /// Nothing but what the parser looks for.
    #[test]
    fn parser_reads_delimiters_alone(datagram in "[a:|@#1.c\n-]{0,140}") {
        assert_same(datagram.as_bytes());
    }

    /// Every number text alike, for values and for rates.
    #[test]
    fn parser_reads_any_number(text in "[ +-]?[0-9.eExXbBoOaF_ +-]{0,12}|[0-9]{0,30}[.][0-9]{0,30}|[+-]?[0-9]{1,22}(e[+-]?[0-9]{1,3})?") {
        assert_same(format!("a:{text}|c\na:{text}|ms\na:{text}|g\na:1|ms|@{text}").as_bytes());
    }
}

const SHAPES: [&str; 14] = [
    "N:1|c",
    "N:12345|ms|@0.1",
    "N:-3|g|#t:v,u:w",
    "N:x y|s|@0.5|#t:v",
    "N:1|c:2|ms:3|g",
    "N:1|c\r",
    "N:|c",
    "N",
    "N|c",
    "a:N|s",
    "a:1|N",
    "a:1|c|N",
    "a:1|c|#N:v",
    "a:0N1|c",
];

#[test]
fn delimiters_stand_at_every_offset_of_a_block() {
    for shape in SHAPES {
        for length in 0..=200 {
            let line = shape.replace('N', &"0".repeat(length));
            assert_same(line.as_bytes());
            assert_same(format!("{line}\n").as_bytes());
            assert_same(format!("{line}\nb:2|c|@0.5\n\n{line}").as_bytes());
        }
    }
}

#[test]
fn every_start_and_end_of_a_long_datagram_is_a_datagram() {
    let lines = SHAPES.map(|shape| shape.replace('N', "name.of-9"));
    let datagram = lines.join("\n").repeat(2);
    // The bytes beyond the end are there, and must not be seen.
    for cut in 0..=datagram.len() {
        assert_same(&datagram.as_bytes()[..cut]);
        assert_same(&datagram.as_bytes()[cut..]);
    }
}

#[test]
fn lengths_of_the_largest_datagram_are_read() {
    let name = "x".repeat(60_000);
    assert_same(format!("{name}:1|c").as_bytes());
    assert_same(format!("a:{}|c", "1".repeat(60_000)).as_bytes());
    assert_same(format!("a:1|c|#{name}").as_bytes());
    assert_same("a:1|c\n".repeat(10_000).as_bytes());
    assert_same(&b":".repeat(65_507));
    assert_same(&b"|".repeat(65_507));
    assert_same(&b"\n".repeat(65_507));
}
