//! Templates of commands, variables, URLs and headers.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use ingestd::job::{EffectId, Fence, IdempotencyKey, JobId, Op};
use ingestd::processor::{Intended, Ledger, LedgerError, Task, Template};
use reqwest::Url;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// A template is refused, or each value stands in it once, byte for byte, whatever it looks like: read back, the text
/// around and the value are what they were.
pub fn template(text: &str, file: &[u8]) {
    let file: Vec<u8> = file.iter().copied().filter(|byte| *byte != 0).collect();
    let task = task(&[b"/", &file[..]].concat());
    let Ok(template) = Template::parse(text) else {
        assert!(text.contains(['{', '}']), "{text:?} has no braces");
        return;
    };
    let Some(pieces) = pieces(text, &task) else { panic!("{text:?} was accepted") };
    let plain: Vec<u8> = pieces.iter().flat_map(Piece::bytes).copied().collect();
    assert_eq!(template.render(&task).into_vec(), plain, "{text:?}");

    match template.render_header("x-file", &task) {
        Ok(header) => assert!(header == plain && !header.iter().any(u8::is_ascii_control)),
        Err(error) => assert!(error.permanent && plain.iter().any(u8::is_ascii_control)),
    }

    stays_in_its_place(text, &task);
    let Ok(url) = template.render_url(&task) else {
        assert!(plain.contains(&b'.'), "{text:?} was refused without a dot");
        return;
    };
    let mut rest = url.as_bytes();
    for piece in &pieces {
        rest = match piece {
            Piece::Literal(literal) => rest.strip_prefix(&literal[..]).expect("the text around a value changed"),
            Piece::Value(value) => {
                let end = encoded(value);
                assert_eq!(decoded(&rest[..end]), *value);
                &rest[end..]
            }
        };
    }
    assert!(rest.is_empty(), "{url}");
}

/// No value leads a URL to another place: it goes to the same host, and its path has as many parts as if every value were an `x`.
fn stays_in_its_place(text: &str, task: &Task) {
    let Ok(template) = Template::parse(&format!("http://h/in/{text}")) else { return };
    let Ok(url) = template.render_url(task) else { return };
    if let (Ok(url), Ok(sample)) = (Url::parse(&url), Url::parse(&template.sample())) {
        assert_eq!(url.origin(), sample.origin(), "{url} is not like {sample}");
        let slashes = |url: &Url| url.path().matches('/').count();
        assert_eq!(slashes(&url), slashes(&sample), "{url} is not like {sample}");
        assert_eq!(url.query().is_some(), sample.query().is_some(), "{url} is not like {sample}");
    }
}

enum Piece {
    Literal(Vec<u8>),
    Value(Vec<u8>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        let (Self::Literal(bytes) | Self::Value(bytes)) = self;
        bytes
    }
}

/// What a template says, read one character at a time; `None`: nothing.
fn pieces(text: &str, task: &Task) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let doubled = characters.peek() == Some(&character);
        match character {
            '{' | '}' if doubled => {
                characters.next();
                pieces.push(Piece::Literal(vec![character as u8]));
            }
            '{' => {
                let name: String = characters.by_ref().take_while(|character| *character != '}').collect();
                pieces.push(Piece::Value(value(&name, task)?));
            }
            '}' => return None,
            other => pieces.push(Piece::Literal(other.to_string().into_bytes())),
        }
    }
    Some(pieces)
}

fn value(name: &str, task: &Task) -> Option<Vec<u8>> {
    let path = &task.path;
    let part = match name {
        "path" => Some(path.as_os_str()),
        "name" => path.file_name(),
        "stem" => path.file_stem(),
        "ext" => path.extension(),
        "dir" => path.parent().map(AsRef::as_ref),
        "relative" => Some(task.relative.as_os_str()),
        "moved_from" | "digest" => None,
        "op" => Some(OsStr::new("add")),
        "size" => Some(OsStr::new("3")),
        "job" | "attempt" => Some(OsStr::new("1")),
        "pipeline" => Some(OsStr::new("{path}")),
        "watch" => Some(OsStr::new("%7Bname%7D{{")),
        "idempotency_key" => return Some("07".repeat(32).into_bytes()),
        _ => return None,
    };
    Some(part.unwrap_or_default().as_bytes().to_vec())
}

/// How many bytes a value has in a URL.
fn encoded(value: &[u8]) -> usize {
    let plain = |byte: &&u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    value.len() + 2 * value.iter().filter(|byte| !plain(byte)).count()
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < text.len() {
        if text[at] == b'%' {
            let hex = std::str::from_utf8(&text[at + 1..at + 3]).unwrap();
            out.push(u8::from_str_radix(hex, 16).unwrap());
            at += 3;
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    out
}

/// A task about a file with these bytes for a name, in a watch whose name looks like a template.
pub fn task(path: &[u8]) -> Task {
    let path = PathBuf::from(OsStr::from_bytes(path));
    Task {
        job: JobId(1),
        fence: Fence(1),
        attempt: 1,
        execution: 1,
        pipeline: "{path}".to_owned(),
        watch: Some("%7Bname%7D{{".to_owned()),
        relative: path.strip_prefix("/").unwrap_or(&path).to_owned(),
        path,
        op: Op::Add,
        moved_from: None,
        size: 3,
        digest: None,
        identity: None,
        idempotency_key: IdempotencyKey([7; 32]),
        metadata: None,
        stage: None,
        spool: PathBuf::new(),
        ledger: Arc::new(NoLedger),
        at_once: CancellationToken::new(),
    }
}

/// Every step is taken, and nothing of it kept.
#[derive(Debug)]
struct NoLedger;

#[async_trait]
impl Ledger for NoLedger {
    async fn begin(&self, _: &'static str, _: &Value) -> Result<Intended, LedgerError> {
        Ok(Intended::Run(EffectId(1)))
    }

    async fn commit(&self, _: EffectId, _: &Value) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn withdraw(&self, _: EffectId) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn reach(&self, _: &str, _: Option<String>) -> Result<(), LedgerError> {
        Ok(())
    }
}
