//! Lines of every shape; and no bytes at all that make the reader of lines fall over.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn root() -> &'static Path {
    Path::new("/root")
}

fn work(line: impl AsRef<[u8]>) -> ListedWork {
    match parse(line.as_ref(), root()) {
        Ok(Understood { asks: Asks::Work(work), .. }) => *work,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn wrong(line: impl AsRef<[u8]>, parts: &[&str]) {
    let message = parse(line.as_ref(), root()).unwrap_err();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

fn path(bytes: &[u8]) -> Option<WirePath> {
    Some(WirePath(PathBuf::from(OsStr::from_bytes(bytes))))
}

#[test]
fn a_plain_path_is_its_bytes_and_counts_from_the_root() {
    for (line, expected) in [
        (&b"a/b.pdf"[..], &b"/root/a/b.pdf"[..]),
        (b"/srv/x", b"/srv/x"),
        (b" a b ", b"/root/ a b "),
        (b"a\r", b"/root/a\r"),
        (b"\xff\xfe", b"/root/\xff\xfe"),
        (b"./{a}", b"/root/./{a}"),
        (b"[1]", b"/root/[1]"),
    ] {
        assert_eq!(work(line), ListedWork { path: path(expected), ..ListedWork::default() });
    }
    wrong(b"a\0b", &["NUL byte"]);
    wrong(vec![b'x'; 5_000], &["5000 bytes"]);
}

#[test]
fn an_object_says_everything_about_a_file() {
    let line = r#"{"path":"a","op":"modify","repo":"r","line":7,"priority":"high","key":"k","content":"é",
        "metadata":{"n":12345678901234567890123},"skip_index":true}"#
        .replace('\n', " ");
    let expected = ListedWork {
        number: Some(7),
        path: path(b"/root/a"),
        op: Some(Op::Modify),
        repo: Some("r".to_owned()),
        priority: Some(Priority::High),
        key: Some("k".to_owned()),
        content: Some(ListedContent::Inline(STANDARD.encode("é"))),
        metadata: Some(r#"{"n":12345678901234567890123}"#.to_owned()),
        skip: true,
    };
    assert_eq!(work(line), expected);
    assert_eq!(work(r#"{"key":"k","content_base64":"/w=="}"#).content, Some(ListedContent::Inline("/w==".to_owned())));
    assert_eq!(work(r#"{"path":"a","content_ref":"c"}"#).content, path(b"/root/c").map(ListedContent::File));
    assert_eq!(work(r#"{"path":"a","priority":4}"#).priority, Some(Priority::Urgent));
    assert_eq!(work("{\"path\":\"a\"}\r").path, path(b"/root/a"));
    let nothing = r#"{"path":"a","op":null,"repo":null,"line":null,"priority":null,"key":null,"content":null,"metadata":null,"skip_index":null}"#;
    assert_eq!(work(nothing), work("a"));
    assert_eq!(work(r#"{"key":"k","op":"delete"}"#).path, None);
}

#[test]
fn a_line_of_many_fields_is_read_and_words_about_it_are_short() {
    let fields: Vec<String> = (0..300_000).map(|number| format!("\"field {number}\":1")).collect();
    wrong(format!("{{\"path\":\"a\",{}}}", fields.join(",")), &["`metadata` has", "bytes with what belongs to it"]);
    let some = fields[..20_000].join(",");
    let metadata = work(format!("{{\"path\":\"a\",\"metadata\":{{{some}}},{some}}}")).metadata.unwrap();
    assert_eq!(metadata, format!("{{{some}}}"), "what stands in both is the metadata's");
    let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
    assert!(parse(format!("{{\"path\":\"a\",\"metadata\":{deep}}}").as_bytes(), root()).is_ok());
    wrong(format!("{{\"path\":\"a\",\"x\":{deep}}}"), &["`metadata` is not sound: recursion limit"]);
    let long = "n".repeat(100_000);
    for line in [format!("{{\"{long}\":1,\"{long}\":1}}"), format!("{{\"path\":\"a\",\"{long}\":\"\\ud800\"}}")] {
        assert!(parse(line.as_bytes(), root()).unwrap_err().len() < 300);
    }
}

#[test]
fn unknown_fields_are_kept_in_metadata_and_named() {
    let understood = |line: &str| match parse(line.as_bytes(), root()).unwrap() {
        Understood { asks: Asks::Work(work), unknown } => (work.metadata, unknown),
        other => panic!("{other:?}"),
    };
    let expect = |metadata: &str, names: &[&str]| {
        (Some(metadata.to_owned()), names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(understood(r#"{"path":"a","size":1.50,"x":[1]}"#), expect(r#"{"size":1.50,"x":[1]}"#, &["size", "x"]));
    assert_eq!(understood(r#"{"size":1,"path":"a","metadata":{ "b":2}}"#), expect(r#"{"b":2,"size":1}"#, &["size"]));
    assert_eq!(understood(r#"{"b":1,"path":"a","metadata":{"b":2}}"#), expect(r#"{"b":2}"#, &["b"]));
    assert_eq!(understood(r#"{"b":1,"path":"a","metadata":"t"}"#), expect(r#"{"metadata":"t","b":1}"#, &["b"]));
}

#[test]
fn a_changeset_is_kept_as_it_is_written() {
    let line = r#"{"repo":"r","new_changeset":{"commit":"c1", "parent":null}}"#;
    let expected =
        Asks::Changeset { repo: Some("r".to_owned()), changeset: r#"{"commit":"c1", "parent":null}"#.to_owned() };
    assert_eq!(parse(line.as_bytes(), root()).unwrap(), Understood { asks: expected, unknown: Vec::new() });
    let more = parse(br#"{"new_changeset":{"commit":"c1"},"by":"me"}"#, root()).unwrap();
    assert_eq!(more.unknown, ["by"]);
    assert!(
        matches!(more.asks, Asks::Changeset { repo: None, changeset } if changeset == r#"{"commit":"c1","by":"me"}"#)
    );
    wrong(r#"{"new_changeset":"c1"}"#, &["`new_changeset`", "an object"]);
    wrong(r#"{"new_changeset":{},"path":"a"}"#, &["`path`", "a line of its own"]);
}

#[test]
fn what_is_wrong_is_said_with_the_field_what_was_found_and_what_is_allowed() {
    wrong(r#"{"path":1}"#, &["`path`", "the number 1", "a text"]);
    wrong(r#"{"path":["a"]}"#, &["`path`", "a list"]);
    wrong(r#"{"path":""}"#, &["`path` is empty"]);
    wrong(r#"{"path":"a\u0000b"}"#, &["`path`", "NUL byte"]);
    wrong(r#"{"path":"\ud800"}"#, &["`path`", "hex escape"]);
    wrong(r#"{"path":"a","op":"update"}"#, &["`op`", "update", "add, modify or delete"]);
    wrong(r#"{"path":"a","op":{}}"#, &["`op`", "an object", "add, modify or delete"]);
    wrong(r#"{"path":"a","priority":"soon"}"#, &["`priority`", "soon", "low, normal, high or urgent"]);
    wrong(r#"{"path":"a","priority":9}"#, &["`priority`", "the number 9", "urgent"]);
    wrong(r#"{"path":"a","line":-1}"#, &["`line`", "-1", "a whole number"]);
    wrong(r#"{"path":"a","line":"7"}"#, &["`line`", "the text \"7\""]);
    wrong(r#"{"path":"a","skip_index":"yes"}"#, &["`skip_index`", "true or false"]);
    wrong(r#"{"path":"a","key":""}"#, &["`key`"]);
    wrong(r#"{"path":"a","content":"x","content_base64":"eA=="}"#, &["more than one", "`content_ref`"]);
    wrong(r#"{"path":"a","content_base64":"%"}"#, &["`content_base64`", "not base64"]);
    wrong(r#"{"path":"a","content_ref":""}"#, &["`content_ref` is empty"]);
    wrong(r#"{"path":"a","metadata":"\udc00"}"#, &["`metadata` is not sound", "surrogate"]);
    wrong(json!({ "path": "a", "key": "k".repeat(4_097) }).to_string(), &["`key`", "4097 bytes", "4096"]);
    wrong(json!({ "path": "a", "more": "m".repeat(1 << 20) }).to_string(), &["`metadata`", "1048576 at most"]);
    wrong(r#"{"op":"add"}"#, &["`path` is missing"]);
    wrong(r#"{"key":"k"}"#, &["`path` is missing", "`content`"]);
    wrong(r#"{"path":"a""#, &["not JSON", "at column 11"]);
    wrong(r#"{"path":"a"} {"path":"b"}"#, &["not JSON", "trailing"]);
    wrong(r#"{"path":"a","path":"b"}"#, &["`path` stands twice"]);
    wrong(b"{\"path\":\"\xff\"}", &["UTF-8", "byte 10", "a line of its own"]);
}

#[test]
fn a_long_line_is_shown_by_its_beginning() {
    assert_eq!(shown(b"a\xffb"), "a\u{fffd}b");
    for long in ["é".repeat(5_000), "x".repeat(201), "\u{1f600}".repeat(201)] {
        let shown = shown(long.as_bytes());
        assert!(shown.chars().count() <= SHOWN && shown.ends_with('…'), "{shown}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..4).prop_map(|map| Value::Object(Map::from_iter(map))),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(line in prop::collection::vec(any::<u8>(), 1..200)) {
        let _ = parse(&line, root());
        let _ = shown(&line);
        let _ = parse(&[b"{", &line[..]].concat(), root());
    }

    #[test]
    fn no_broken_object_makes_it_panic(value in any_json(), cut in 1..60_usize) {
        let text = json!({ "path": value, "metadata": value, "op": value, "new_changeset": value }).to_string();
        let _ = parse(text.as_bytes(), root());
        let _ = parse(&text.as_bytes()[..cut.min(text.len())], root());
    }

    #[test]
    fn every_sound_object_survives_with_all_that_it_says(
        name in "[^\u{0}]{1,20}", metadata in any_json(), extra in "[a-z]{1,3}_", more in any_json(), text in ".{0,20}",
    ) {
        let line = json!({ "path": name, "metadata": { "m": metadata }, "content": text, extra.as_str(): more });
        let understood = parse(line.to_string().as_bytes(), root()).unwrap();
        prop_assert_eq!(&understood.unknown, std::slice::from_ref(&extra));
        let Asks::Work(work) = &understood.asks else { panic!("{understood:?}") };
        let kept: Value = serde_json::from_str(work.metadata.as_deref().unwrap()).unwrap();
        prop_assert_eq!(kept, json!({ "m": metadata, extra.as_str(): more }));
        prop_assert_eq!(&work.path, &Some(WirePath(root().join(&name))));
        prop_assert_eq!(&work.content, &Some(ListedContent::Inline(STANDARD.encode(&text))));
        // And its way over the socket.
        let entry = Entry { line: 1, text: shown(line.to_string().as_bytes()), asks: understood.asks.clone() };
        let sent = serde_json::to_string(&entry).unwrap();
        prop_assert_eq!(serde_json::from_str::<Entry>(&sent).unwrap(), entry);
    }
}
