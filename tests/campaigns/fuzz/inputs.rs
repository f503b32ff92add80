//! Inputs: what people write, and that bent, doubled, cut and mixed with what nobody writes.

use std::time::Duration;

use ingestd::clock::Timestamp;
use ingestd::config::{PLACEHOLDERS, reference};
use ingestd::job::{Jitter, Op, RetryPolicy, Spent};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::properties::{Policy, Work};

/// Values that some key may not expect.
const VALUES: [&str; 62] = [
    "0",
    "-1",
    "1",
    "1e308",
    "nan",
    "inf",
    "-0.0",
    "0x7fffffffffffffff",
    "9223372036854775807",
    "1_000",
    "0.5",
    "-9223372036854775808",
    "18446744073709551616",
    "true",
    "false",
    "1979-05-27T07:32:00Z",
    "{}",
    "[]",
    "[[]]",
    "\"\"",
    "\"0s\"",
    "\"-1s\"",
    "\"1ns\"",
    "\"18446744073709551615s\"",
    "\"18446744073709551616s\"",
    "\"1y 1M\"",
    "\"99999999d\"",
    "\"36500d\"",
    "\"1h 30m\"",
    "\"0B\"",
    "\"18446744073709551615\"",
    "\"16777215TiB\"",
    "\"99999999TiB\"",
    "\"1.5MiB\"",
    "\"5 kB\"",
    "\"0666\"",
    "\"0600\"",
    "\"keep\"",
    "\"delete\"",
    "{ move = \"/done\" }",
    "{ move = \"\" }",
    "\"${A}\"",
    "\"${A}${B}\"",
    "\"$${A}\"",
    "\"${file:/dev/null}\"",
    "\"${file:${B}}\"",
    "\"${\"",
    "\"{path}\"",
    "\"{{{name}}} {\"",
    "[\"{path}\", \"${A}\", \"{\"]",
    "[\"a\", 1]",
    "[\"**/*.pdf\", \"[\"]",
    "[\"{a,{b,c}}\", \"**\"]",
    "[\"/abs\"]",
    "[\"\\u0000\"]",
    "\"http://h/{relative}?{name}\"",
    "\"http://\"",
    "\"/tmp/x\"",
    "\"exec\"",
    "\"http\"",
    "\"noop\"",
    "'''\n'''",
];

/// The text of a file, and variables of the environment.
pub fn configuration() -> impl Strategy<Value = (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>)> {
    let bent =
        (vec((any::<prop::sample::Index>(), change()), 0..12), vec((any::<prop::sample::Index>(), any::<u8>()), 0..3));
    let bent = bent.prop_map(|(changes, flips)| {
        let mut lines = everything();
        for (place, change) in changes {
            let place = place.index(lines.len());
            change.apply(&mut lines, place);
        }
        let mut text = lines.join("\n").into_bytes();
        for (place, byte) in flips {
            let place = place.index(text.len());
            text[place] = byte;
        }
        text
    });
    // A byte at any place nearly always breaks the syntax, and nothing behind that is tried.
    let whole = vec((any::<prop::sample::Index>(), change()), 0..4).prop_map(|changes| {
        let mut lines = everything();
        for (place, change) in changes {
            let place = place.index(lines.len());
            change.apply(&mut lines, place);
        }
        lines.join("\n").into_bytes()
    });
    let text = prop_oneof![4 => whole, 2 => bent, 1 => vec(any::<u8>(), 0..200)];
    (text, vec(variable(), 0..4))
}

/// The reference, with all that stands behind a `#` there.
fn everything() -> Vec<String> {
    let is_key = |line: &str| {
        let word = line.split(' ').next().unwrap_or_default();
        let named = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && !word.is_empty();
        line.starts_with('[') && line.ends_with(']') || named && line[word.len()..].starts_with(" = ")
    };
    let bare = |line: &'static str| line.strip_prefix("# ").unwrap_or(line);
    let line = |line: &str| line.replace("/var/lib/ingestd/ingestd.db", "/tmp/no/ingestd.db");
    reference().lines().map(bare).filter(|line| is_key(line)).map(line).collect()
}

#[derive(Clone, Debug)]
enum Change {
    Value(String),
    Key(String),
    Drop,
    Double,
}

impl Change {
    fn apply(self, lines: &mut Vec<String>, at: usize) {
        let (key, value) = lines[at].split_once(" = ").unwrap_or((&lines[at], ""));
        match self {
            Self::Value(value) => lines[at] = format!("{key} = {value}"),
            Self::Key(key) => lines[at] = format!("{key} = {value}"),
            Self::Drop => drop(lines.remove(at)),
            Self::Double => lines.insert(at, lines[at].clone()),
        }
        if lines.is_empty() {
            lines.push(String::new());
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => value().prop_map(Change::Value),
        1 => select(vec!["lease", "\"a.b\"", "a.b", "\"\"", "'é'", "env", "kind", "headers.X-A", "env.\"a=b\""])
            .prop_map(|key| Change::Key(key.to_owned())),
        2 => Just(Change::Drop),
        1 => Just(Change::Double),
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => select(VALUES.to_vec()).prop_map(str::to_owned),
        1 => "\"[ -!#-\\[\\]-~é]{0,12}\"",
        1 => (0..40_u32, select(vec!["s", "ms", "d", "KiB", "TiB", "B", ""]))
            .prop_map(|(shift, unit)| format!("\"{}{unit}\"", 1_u64 << shift)),
        1 => (1..70_usize).prop_map(|depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth))),
    ]
}

fn variable() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let names = vec![
        "A",
        "B",
        "XDG_STATE_HOME",
        "STATE_DIRECTORY",
        "HOME",
        "INGESTD__",
        "INGESTD__QUEUE__LEASE",
        "INGESTD__QUEUE",
        "INGESTD__PIPELINE__HOOK__HEADERS__X",
        "INGESTD__WATCH__INBOX__INCLUDE",
        "INGESTD__PIPELINE__DOCUMENTS__RETRY",
        "INGESTD__WATCH__INBOX__ON_SUCCESS",
        "INGESTD____",
        "INGESTD__DATABASE__MODE__X__Y__Z",
        "INGESTD__PIPELINE",
        "INGESTD__PIPELINE__DOCUMENTS__ENV__A__B",
    ];
    let name = prop_oneof![
        6 => select(names).prop_map(|name| name.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..8).prop_map(|name| [b"INGESTD__", &name[..]].concat()),
    ];
    let value = prop_oneof![
        3 => value().prop_map(String::into_bytes),
        3 => value().prop_map(|value| value.trim_matches('"').as_bytes().to_vec()),
        1 => Just(b"/dev/null".to_vec()),
        1 => vec(any::<u8>(), 0..12),
    ];
    (name, value)
}

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
            1 => select(vec![Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(365 * 86_400), Duration::MAX]),
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
        |(policy, (attempts, deferrals, first), after, now, chance)| {
            let spent = Spent { attempts, deferrals, first_started_at: Timestamp::from_millis(first) };
            Policy { policy, spent, after, now: Timestamp::from_millis(now), chance }
        },
    )
}

/// A date that has passed, and one that nobody lives to see.
pub const PAST: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
/// See [`PAST`].
pub const FUTURE: &str = "Fri, 31 Dec 9999 23:59:59 GMT";

/// What a server answers.
#[derive(Clone, Debug)]
pub enum Reply {
    /// An answer as HTTP wants it.
    Sound {
        /// Its status.
        status: u16,
        /// The header.
        retry_after: Option<String>,
        /// The body's length.
        length: usize,
        /// More headers.
        headers: usize,
    },
    /// Whatever.
    Noise(Vec<u8>),
}

impl Reply {
    /// As it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Noise(bytes) => bytes.clone(),
            Self::Sound { status, retry_after, length, headers } => {
                let mut text = format!("HTTP/1.1 {status} Said\r\nconnection: close\r\ncontent-length: {length}\r\n");
                text.extend((0..*headers).map(|number| format!("x-{number}: {}\r\n", "v".repeat(number))));
                text.extend(retry_after.iter().map(|wait| format!("retry-after: {wait}\r\n")));
                format!("{text}\r\n{}", "b".repeat(*length)).into_bytes()
            }
        }
    }
}

/// An answer of a server.
pub fn reply() -> impl Strategy<Value = Reply> {
    let waits = vec![
        "0",
        "7",
        "-7",
        "+7",
        "7.5",
        "1e3",
        "",
        " 7 ",
        "7 7",
        "0x7",
        "86400",
        "86401",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999999",
        "soon",
        PAST,
        FUTURE,
        "Sun, 31 Feb 2026 08:49:37 GMT",
        "1994-11-06",
        "Sunday, 99-Nov-94 99:99:99 GMT",
    ];
    let wait = prop_oneof![4 => select(waits).prop_map(str::to_owned), 1 => "[ -~]{0,30}"];
    // What looks like a date that we can't read here is not asked.
    let wait = wait.prop_filter("no other date", |wait| {
        !wait.ends_with("GMT") || [PAST, FUTURE].contains(&wait.as_str()) || wait.contains("99") || wait.contains("Feb")
    });
    let status = prop_oneof![
        4 => select(vec![200_u16, 204, 301, 304, 400, 404, 408, 429, 429, 500, 503, 503, 504, 599]),
        1 => 200..600_u16,
    ];
    let length = prop_oneof![6 => 0..2_000_usize, 1 => Just(3 << 20)];
    let sound =
        (status, prop::option::of(wait), length, 0..60_usize).prop_map(|(status, retry_after, length, headers)| {
            // These have no body, whatever they say.
            let length = if matches!(status, 204 | 205 | 304) { 0 } else { length };
            Reply::Sound { status, retry_after, length, headers }
        });
    let bytes = sound.clone().prop_map(|reply| reply.bytes());
    let places = vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    let broken = (bytes, places, any::<bool>()).prop_map(|(mut bytes, places, cut)| {
        for (place, byte) in &places {
            // Most of it is body: what counts is at the beginning.
            let at = place.index(bytes.len().min(120));
            bytes[at] = *byte;
        }
        if cut {
            bytes.truncate(places[0].0.index(bytes.len()));
        }
        Reply::Noise(bytes)
    });
    let huge = select(vec!["x", "\r\nx: ", "a: b\r\n", "HTTP/1.1 200 OK\r\n"])
        .prop_map(|part| Reply::Noise([b"HTTP/1.1 200 OK\r\nx: ", part.repeat(1 << 17).as_bytes()].concat()));
    prop_oneof![10 => sound, 6 => broken, 2 => vec(any::<u8>(), 0..60).prop_map(Reply::Noise), 1 => huge]
}

/// A time or a duration as somebody may write it.
pub fn time() -> impl Strategy<Value = String> {
    let words = vec![
        "",
        " ",
        "0",
        "0s",
        "-1s",
        "1",
        "90s",
        "1h 30m",
        "1y",
        "9999y",
        "18446744073709551615s",
        "18446744073709551616s",
        "1ns",
        "1.5h",
        "1e3s",
        "∞",
        "2026-01-02",
        "2026-01-02T15:04:05Z",
        "2026-02-30T00:00:00Z",
        "2026-01-02 15:04",
        "9999-12-31T23:59:59Z",
        "-009999-01-01T00:00:00Z",
        "0000-00-00",
        "2026-01-02T15:04:05+99:00",
        "now",
        "24:00",
    ];
    prop_oneof![
        3 => select(words).prop_map(str::to_owned),
        1 => "[0-9]{1,25}(ns|us|ms|s|m|h|d|w|M|y)?",
        1 => "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})?",
        1 => "[ -~é]{0,20}",
    ]
}

/// A frame of the control socket, nearly.
pub fn frame() -> impl Strategy<Value = Vec<u8>> {
    let requests = vec![
        r#"{"request":"ping"}"#,
        r#"{"request":"status"}"#,
        r#"{"request":"add","paths":["/no/such"],"pipeline":null,"priority":"normal","run_at_ms":-1,"key":null,"metadata":"[","force":false}"#,
        r#"{"request":"add","paths":[{"base64":"/w=="},{"base64":"?"}],"priority":"normal","force":true}"#,
        r#"{"request":"retry","ids":[1,-1,9223372036854775807]}"#,
        r#"{"request":"cancel","ids":[]}"#,
        r#"{"request":"prioritize","ids":[1],"level":"urgent"}"#,
        r#"{"request":"pause-pipelines","names":["nobody"],"now":true}"#,
        r#"{"request":"watch-add","name":"../x","definition":{"path":"/","pipeline":"p","include":["{"]}}"#,
        r#"{"request":"watch-scan","name":"","force":true}"#,
        r#"{"request":"watch-files","name":"inbox","files":["..","/","\u0000"]}"#,
        r#"{"request":"kv-set","key":"","value":"\u0000"}"#,
        r#"{"request":"sync-end","run":-1,"holder":{"pid":0,"started_at":0,"boot":""}}"#,
        r#"{"request":"run-steer","run":99,"hand":"cancel"}"#,
        r#"{"request":"effect-commit","execution":{"job":1,"fence":-1},"id":1,"result":"{"}"#,
        r#"{"request":"maintenance","duty":{"duty":"checkpoint"}}"#,
    ];
    let request = select(requests).prop_map(|request| request.as_bytes().to_vec()).boxed();
    let deep = (1..60_000_usize).prop_map(|depth| {
        format!(r#"{{"request":"watch-add","name":"x","definition":{}"#, "[".repeat(depth)).into_bytes()
    });
    let globs = (1..60_000_usize).prop_map(|depth| {
        let glob = format!("{}a{}", "{".repeat(depth), "}".repeat(depth));
        format!(
            r#"{{"request":"watch-add","name":"x","definition":{{"path":"/srv","pipeline":"p","include":["{glob}"]}}}}"#
        )
        .into_bytes()
    });
    prop_oneof![4 => request.clone(), 4 => bent(request), 2 => vec(any::<u8>(), 0..200), 1 => deep, 1 => globs]
}
