//! A configuration file; what stands behind a NUL is the value of `${A}`.
#![no_main]
#![allow(dead_code, unused_imports, reason = "each target takes its part of the properties")]

#[path = "../../tests/campaigns/fuzz/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (text, secret) = input.split_at(input.iter().position(|byte| *byte == 0).unwrap_or(input.len()));
    properties::configuration(text, &[(b"A".to_vec(), secret.to_vec())]);
});
