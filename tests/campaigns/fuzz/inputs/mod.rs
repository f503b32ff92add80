//! Inputs: what people write, and that bent, doubled, cut and mixed with what nobody writes.

mod configuration;
mod said;

pub use configuration::configuration;
pub use said::{FUTURE, PAST, Reply, frame, reply, time};

use std::time::Duration;

use ingestd::clock::Timestamp;
use ingestd::config::PLACEHOLDERS;
use ingestd::job::{Jitter, Op, RetryPolicy, Spent};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::properties::{Policy, Work};

/// A line of a list.
pub fn line() -> impl Strategy<Value = Vec<u8>> {
    let fields = vec![
        "path",
        "op",
        "repo",
        "line",
        "priority",
        "key",
        "content",
        "content_base64",
        "content_ref",
        "metadata",
        "skip_index",
        "new_changeset",
        "other",
        "p\\u0061th",
        "",
    ];
    let member = (select(fields), json_text()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
    let object = vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(","))).boxed();
    prop_oneof![
        4 => object.clone().prop_map(String::into_bytes),
        2 => bent(object.prop_map(String::into_bytes)),
        1 => vec(any::<u8>().prop_filter("a line", |byte| *byte != b'\n'), 1..300),
        1 => (any::<bool>(), 4_000..4_200_usize).prop_map(|(json, length)| {
            let name = "n".repeat(length);
            if json { format!("{{\"{name}\":1,\"{name}\":1}}") } else { name }.into_bytes()
        }),
    ]
}

/// A value of JSON as it is written.
fn json_text() -> impl Strategy<Value = String> {
    let words = vec![
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1",
        "4",
        "-1",
        "1e400",
        "1e-400",
        "18446744073709551616",
        "1.50",
        "\"\"",
        "\"a\"",
        "\"/srv/a\"",
        "\"modify\"",
        "\"urgent\"",
        "\"YQ==\"",
        "\"YQ\"",
        "\"\\ud800\"",
        "\"\\u0000\"",
        "\"\\n\"",
        "{}",
        "[]",
        "{\"a\":1,\"a\":2}",
        "{ \"x\" : [1, \"]\\\"}\"] }",
    ];
    prop_oneof![
        6 => select(words).prop_map(str::to_owned),
        1 => "\"[ !#-\\[\\]-~é]{0,20}\"",
        1 => (100..160_usize).prop_map(|depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth))),
    ]
}

/// Bytes with some of them changed, dropped or cut off.
fn bent(sound: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let places = vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4);
    (sound, places).prop_map(|(mut bytes, places)| {
        for (place, byte, how) in places {
            if bytes.is_empty() {
                return bytes;
            }
            let at = place.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        bytes.retain(|byte| *byte != b'\n');
        bytes
    })
}

/// Globs, and a name to be judged by them.
pub fn globs() -> impl Strategy<Value = (Vec<String>, Vec<u8>)> {
    let plain = select(vec!["a", "b", "ab", ".", "-", "*", "?", "**", "/", "/", "**/", "/**", "*.a"]);
    let any_part = prop_oneof![
        6 => plain.prop_map(str::to_owned),
        1 => select(vec!["[ab]", "[!a]", "[a-", "]", "{", "}", "{a,b}", ",", "\\", "\\*", "é", "[é-ü]", "{{a,b},c}"])
            .prop_map(str::to_owned),
    ];
    let simple = vec(select(vec!["a", "b", ".", "*", "?", "/", "**/", "/**"]), 1..8).prop_map(|parts| parts.concat());
    let part = vec(any_part, 0..8).prop_map(|parts| parts.concat());
    let huge = (0..600_usize, select(vec![("{", "}"), ("{a,", "}"), ("?", ""), ("**/", "x"), ("[!a]", "")]))
        .prop_map(|(times, (left, right))| format!("{}x{}", left.repeat(times), right.repeat(times)));
    let glob = prop_oneof![8 => simple, 6 => part, 1 => huge];
    let byte = prop_oneof![6 => select(b"aab./".to_vec()), 1 => any::<u8>()];
    (vec(glob, 0..4), vec(byte, 0..14))
}

/// What a processor prints, and where it is cut.
pub fn answers() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    let member = |name: &'static [&'static str], value: &'static [&'static str]| {
        (select(name), select(value)).prop_map(|(name, value)| format!("\"{name}\":{value}"))
    };
    let job = member(
        &["job", "job", "job", "Job", "j\\u006fb"],
        &["1", "2", "3", "4", "5", "-1", "\"2\"", "\" 3 \"", "1.0", "null"],
    );
    let ok = member(&["ok", "ok", "OK"], &["true", "true", "false", "\"true\"", "1", "null"]);
    let more = member(
        &["error", "retry", "ok", "job", "x"],
        &["true", "false", "null", "\"no\\nroom\"", "{\"a\":[]}", "1", "\"\"", "\"\u{1}\""],
    );
    let object = (job, ok, vec(more, 0..3), any::<bool>()).prop_map(|(job, ok, more, turned)| {
        let mut members = if turned { vec![ok, job] } else { vec![job, ok] };
        members.extend(more);
        format!("{{{}}}", members.join(",")).into_bytes()
    });
    let object = object.boxed();
    let long = (65_000..66_500_usize)
        .prop_map(|length| format!("{{\"job\":1,\"ok\":true,\"x\":\"{}\"}}", "x".repeat(length)).into_bytes());
    let line = prop_oneof![
        40 => object.clone(),
        10 => bent(object.clone()),
        10 => vec(any::<u8>(), 0..20),
        4 => object.prop_map(|object| [b" \t", &object[..], b"\r"].concat()),
        1 => long,
    ];
    let lines = (vec(line, 0..8), any::<bool>(), 0..4_u8).prop_map(|(lines, ended, array)| match array {
        0 => [b"[", &lines.join(&b","[..])[..], b"]"].concat(),
        _ => [&lines.join(&b'\n')[..], if ended { b"\n" } else { b"" }].concat(),
    });
    (lines, vec(prop_oneof![0..40_usize, 0..70_000_usize], 0..6))
}

/// A template, and the bytes of a file's name.
pub fn template() -> impl Strategy<Value = (String, Vec<u8>)> {
    let piece = prop_oneof![
        4 => select(PLACEHOLDERS.to_vec()).prop_map(|name| format!("{{{name}}}")),
        3 => select(vec!["{{", "}}", "http://h/", "?a=", "#", "%7B", "é", " ", "--"]).prop_map(str::to_owned),
        1 => select(vec!["{", "}", "{x}", "{}", "{{{", "}}}", "{ path }"]).prop_map(str::to_owned),
    ];
    let name = prop_oneof![
        2 => vec(any::<u8>(), 0..30),
        3 => vec(select(vec!["{path}", "{", "}", "%2F", "/", "..", ".", "\n", "\r\n", " ", "-rf", "a", "?", "#", "\u{e9}"]), 0..6)
            .prop_map(|parts| parts.concat().into_bytes()),
    ];
    (vec(piece, 0..6).prop_map(|pieces| pieces.concat()), name)
}

/// Two contexts, often nearly the same.
pub fn contexts() -> impl Strategy<Value = (String, String)> {
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,4})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,3})?",
        "-?[1-9][0-9]{14,20}",
        "0\\.[0-9]{12,18}",
        "[1-9](\\.[0-9]{1,14})?[eE]-?3[0-9]{2}",
    ];
    let leaf = prop_oneof![
        3 => number,
        1 => select(vec!["null", "true", "\"1\"", "\"\\u0061\"", "\"a\"", "\"\\\"1e5\\\\\"", "\"\\u001f\\/\"", "\"é\""])
            .prop_map(str::to_owned),
    ];
    let value = leaf.prop_recursive(3, 12, 4, |inner| {
        let name = select(vec!["\"a\"", "\"b\"", "\"\\u0061\"", "\"1e9\"", "\"\""]);
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            vec((name, inner), 0..4).prop_map(|members| {
                let members: Vec<String> =
                    members.into_iter().map(|(name, value)| format!("{name} :{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    });
    (value.clone(), value)
}

/// What a key is derived from; of few letters, so that two of them are alike.
pub fn work() -> impl Strategy<Value = Work> {
    let letters = || vec(select(b"ab:\xff".to_vec()), 0..4);
    let name = || letters().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let op = select(vec![Op::Add, Op::Modify, Op::Delete]);
    (0..2_u8, name(), prop::option::of(name()), any::<bool>(), letters(), -1..2_i64, op).prop_map(
        |(incarnation, pipeline, watch, keyed, source, version, op)| Work {
            incarnation: [incarnation; 16],
            pipeline,
            watch,
            keyed,
            source,
            version,
            op,
        },
    )
}

/// A policy at its bounds and between.
pub fn policy() -> impl Strategy<Value = Policy> {
    let length = || {
        prop_oneof![
            2 => (0..100_000_u64).prop_map(Duration::from_millis),
            1 => select(vec![Duration::ZERO, Duration::from_nanos(1), Duration::from_hours(8760), Duration::MAX]),
        ]
    };
    let factor = prop_oneof![2 => 1.0..10.0_f64, 1 => select(vec![1.0, 1_000.0, f64::MAX])];
    let count = || prop_oneof![2 => 0..20_u32, 1 => Just(u32::MAX)];
    let time = || prop_oneof![3 => 0..2_000_000_000_000_i64, 1 => select(vec![i64::MIN, -1, i64::MAX])];
    let policy = (count(), length(), factor, length(), any::<bool>(), length()).prop_map(
        |(attempts, base, factor, max, jitter, max_elapsed)| RetryPolicy {
            max_attempts: attempts.max(1),
            base,
            factor,
            max,
            jitter: if jitter { Jitter::Full } else { Jitter::None },
            max_elapsed,
        },
    );
    let chance = prop_oneof![0.0..1.0_f64, select(vec![0.0, 1.0 - f64::EPSILON])];
    (policy, (count(), count(), time()), prop::option::of(length()), time(), chance).prop_map(
        |(retry, (attempts, deferrals, first), after, now, chance)| {
            let spent = Spent { attempts, deferrals, first_started_at: Timestamp::from_millis(first) };
            Policy { retry, spent, after, now: Timestamp::from_millis(now), chance }
        },
    )
}
