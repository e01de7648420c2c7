#![no_main]

#[path = "../bodies/state.rs"]
mod body;
#[path = "../bodies/damage.rs"]
mod damage;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::check(input));
