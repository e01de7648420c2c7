//! Every input of `tests/fuzz/corpus` through the target it is for: what a search reached stays reached, and what it
//! found stays fixed. `.ci/fuzz` searches on.

#[path = "fuzz/bodies/admin.rs"]
mod admin;
#[path = "corpus/cases.rs"]
mod cases;
#[path = "fuzz/bodies/config.rs"]
mod config;
#[path = "fuzz/bodies/damage.rs"]
mod damage;
#[path = "fuzz/bodies/datagram.rs"]
mod datagram;
#[path = "fuzz/bodies/mapping.rs"]
mod mapping;
mod parsed;
#[path = "fuzz/bodies/pieces.rs"]
mod pieces;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod pipeline;
mod reference;
#[path = "fuzz/bodies/spool.rs"]
mod spool;
#[path = "fuzz/bodies/state.rs"]
mod state;
#[path = "fuzz/bodies/stream.rs"]
mod stream;
#[path = "fuzz/bodies/takeover.rs"]
mod takeover;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a target over its corpus, an input a line, written as in `tests/corpus`; tells which lines fail.
fn replay(corpus: &str, at_least: usize, check: fn(&[u8])) {
    let mut failed = Vec::new();
    let mut count = 0;
    for (index, line) in corpus.lines().enumerate() {
        if line.starts_with('#') {
            continue;
        }
        let input =
            cases::unescape(line).unwrap_or_else(|| panic!("line {}: bad escape", index + 1));
        count += 1;
        if catch_unwind(AssertUnwindSafe(|| check(&input))).is_err() {
            failed.push(index + 1);
        }
    }
    assert!(count >= at_least, "only {count} inputs");
    assert_eq!(failed, [0; 0], "lines of the corpus");
}

#[test]
fn datagrams_are_taken_and_refused_as_the_reference_says() {
    replay(
        include_str!("fuzz/corpus/datagram.txt"),
        100,
        datagram::check,
    );
}

#[test]
fn streams_are_parted_alike_in_whatever_pieces() {
    replay(include_str!("fuzz/corpus/stream.txt"), 50, stream::check);
}

#[test]
fn commands_are_answered_alike_in_whatever_pieces() {
    replay(include_str!("fuzz/corpus/admin.txt"), 50, admin::check);
}

#[test]
fn configurations_are_refused_or_mean_the_same_as_json() {
    replay(include_str!("fuzz/corpus/config.txt"), 100, config::check);
}

#[test]
fn state_files_are_refused_or_whole() {
    replay(include_str!("fuzz/corpus/state.txt"), 20, state::check);
}

#[test]
fn spooled_flushes_are_refused_or_whole() {
    replay(include_str!("fuzz/corpus/spool.txt"), 50, spool::check);
}

#[test]
fn what_a_takeover_says_is_refused_or_read_as_it_was_written() {
    replay(
        include_str!("fuzz/corpus/takeover.txt"),
        50,
        takeover::check,
    );
}

#[test]
fn names_become_what_their_rules_say() {
    replay(include_str!("fuzz/corpus/mapping.txt"), 50, mapping::check);
}

#[test]
fn a_flush_sends_what_the_reference_sends() {
    replay(
        include_str!("fuzz/corpus/flush.txt"),
        100,
        datagram::check_flush,
    );
}
