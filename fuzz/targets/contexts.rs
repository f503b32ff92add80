//! Two contexts of effects with a NUL between them.
#![no_main]
#![allow(dead_code, unused_imports, reason = "each target takes its part of the properties")]

#[path = "../../tests/campaigns/fuzz/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &str| {
    let (one, other) = input.split_once('\0').unwrap_or((input, input));
    properties::contexts(one, other);
});
