#![no_main]

#[path = "../bodies/stream.rs"]
mod body;
#[path = "../bodies/pieces.rs"]
mod pieces;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::check(input));
