//! A template, and behind a NUL the name of a file.
#![no_main]
#![allow(dead_code, unused_imports, reason = "each target takes its part of the properties")]

#[path = "../../tests/campaigns/fuzz/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (text, file) = input.split_at(input.iter().position(|byte| *byte == 0).unwrap_or(input.len()));
    let Ok(text) = std::str::from_utf8(text) else { return };
    properties::template(text, file);
});
