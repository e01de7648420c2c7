#![no_main]

#[path = "../bodies/datagram.rs"]
mod body;
#[path = "../../parsed/mod.rs"]
mod parsed;
#[allow(dead_code, reason = "each program uses a part of it")]
#[path = "../../pipeline/mod.rs"]
mod pipeline;
#[path = "../../reference/mod.rs"]
mod reference;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::check(input));
