//! Configurations: the reference, bent.

use ingestd::config::reference;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

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
