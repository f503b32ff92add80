//! What the processor of a batch says; the first byte says how it is cut.
#![no_main]
#![allow(dead_code, unused_imports, reason = "each target takes its part of the properties")]

#[path = "../../tests/campaigns/fuzz/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((cut, said)) = input.split_first() else { return };
    properties::answers(said, &vec![usize::from(*cut); 8]);
});
