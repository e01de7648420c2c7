#![no_main]

#[path = "../bodies/takeover.rs"]
mod body;
#[path = "../bodies/damage.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod damage;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::check(input));
