#![no_main]

#[path = "../bodies/spool.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::check(input));
