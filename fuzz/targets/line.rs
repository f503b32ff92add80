//! A line of a list.
#![no_main]
#![allow(dead_code, unused_imports, reason = "each target takes its part of the properties")]

#[path = "../../tests/campaigns/fuzz/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| properties::line(input));
