//! What others say: a server's replies, arguments, frames of the socket.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::bent;

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
