//! Globs, one a line, and in the last line a name to be judged by them.
#![no_main]
#![allow(dead_code, unused_imports, reason = "each target takes its part of the properties")]

#[path = "../../tests/campaigns/fuzz/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (globs, path) = input.split_at(input.iter().rposition(|byte| *byte == b'\n').unwrap_or(0));
    let Ok(globs) = std::str::from_utf8(globs) else { return };
    properties::globs(&globs.lines().map(str::to_owned).collect::<Vec<_>>(), path.strip_prefix(b"\n").unwrap_or(path));
});
