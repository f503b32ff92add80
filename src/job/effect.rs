//! The effect: a step that a job's processor takes once, and the key by which both sides know it.
//!
//! `SHA-256(encoding)`, in lowercase hexadecimal. The encoding is the byte string `ingestd-effect-v1`, then three
//! fields, each as its length in bytes (8 bytes, big-endian) followed by its bytes:
//!
//! 1. the kind,
//! 2. the job's idempotency key (32 bytes),
//! 3. the context, as canonical JSON.
//!
//! Canonical JSON: no white space; the members of an object in the order of their names' bytes in UTF-8, and of a
//! name that stands twice the last; strings with the escapes `\"` `\\` `\b` `\f` `\n` `\r` `\t` and `\u00xx` (lowercase)
//! for other control characters, everything else as it is; integers from -2^63 to 2^64 - 1 in digits, every other
//! number as the shortest decimal that reads back as the same double. Numbers that have more digits than that keeps, or
//! an exponent with which they are not read exactly, are refused.
//!
//! So a key depends on what a context says and not on how it was written, and an effect of another job, kind or
//! context has another one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Fence, IdempotencyKey, JobId};
use crate::clock::Timestamp;

/// The largest context, in bytes of canonical JSON.
pub const LARGEST_CONTEXT_BYTES: usize = 64 << 10;

/// The largest result, in bytes of canonical JSON.
pub const LARGEST_RESULT_BYTES: usize = 1 << 20;

/// The longest name of a kind.
const LONGEST_KIND: usize = 64;

/// An effect's number. Grows, and is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EffectId(pub i64);

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for EffectId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What sort of step it is: lowercase letters, digits, `_`, `.` and `-`, 64 at most.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EffectKind(String);

impl EffectKind {
    /// The kind of a step that the program takes by itself: its name is known to be one.
    pub(crate) fn own(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EffectKind {
    type Err = EffectError;

    fn from_str(name: &str) -> Result<Self, EffectError> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
        if name.is_empty() || name.len() > LONGEST_KIND || !name.bytes().all(fits) {
            return Err(EffectError::Kind(name.chars().take(LONGEST_KIND).collect()));
        }
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<String> for EffectKind {
    type Error = EffectError;

    fn try_from(name: String) -> Result<Self, EffectError> {
        name.parse()
    }
}

impl From<EffectKind> for String {
    fn from(kind: EffectKind) -> Self {
        kind.0
    }
}

impl fmt::Display for EffectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A JSON document, written in the one way that the module describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalJson(String);

impl CanonicalJson {
    /// The document in its canonical form.
    ///
    /// # Errors
    /// It has more than `limit` bytes then.
    pub fn of(value: &Value, limit: usize) -> Result<Self, EffectError> {
        // serde_json keeps the members of an object in a map that is sorted by their names.
        let text = value.to_string();
        if text.len() > limit {
            return Err(EffectError::Large { bytes: text.len(), limit });
        }
        Ok(Self(text))
    }

    /// Reads a document that somebody wrote.
    ///
    /// # Errors
    /// It is not JSON, or has more than `limit` bytes in its canonical form, or a number in it would not survive: then
    /// two steps could have one key, and the second would never be taken.
    pub fn read(text: &str, limit: usize) -> Result<Self, EffectError> {
        let value = serde_json::from_str(text).map_err(|error| EffectError::NotJson(error.to_string()))?;
        if let Some(number) = numbers(text).find(|number| !survives(number)) {
            return Err(EffectError::Number(number.to_owned()));
        }
        Self::of(&value, limit)
    }

    /// The same for a document that the program makes by itself, and whose size it knows.
    pub(crate) fn own(value: &Value) -> Self {
        Self(value.to_string())
    }

    /// A document that was read back.
    pub(crate) const fn stored(text: String) -> Self {
        Self(text)
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it says.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or(Value::Null)
    }
}

/// The numbers of a JSON document as they are written.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let (mut in_string, mut escaped) = (false, false);
    text.split(move |c: char| {
        let inside = in_string;
        in_string ^= c == '"' && !escaped;
        escaped = inside && c == '\\' && !escaped;
        inside || in_string || !(c.is_ascii_digit() || "+-.eE".contains(c))
    })
    .filter(|token| token.contains(|c: char| c.is_ascii_digit()))
}

/// Decimal digits that every double keeps (IEEE 754: `DBL_DIG`).
const SURE_DIGITS: usize = 15;

/// Whether a number means after reading what it says.
fn survives(number: &str) -> bool {
    if !number.contains(['.', 'e', 'E']) {
        return number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok();
    }
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    // Zeros around them say only where the point is.
    let significant = digits.trim_matches('0').len();
    // Near to zero (below 2.2e-308) a double keeps fewer digits, and at last none; and where many powers of ten are
    // involved, our reader may be off by the last bit, which would make it another key than everybody else's.
    let same_bits = |read: f64, exact: f64| read.to_bits() == exact.to_bits();
    let reads = |text: &str, exact| serde_json::from_str(text).is_ok_and(|read| same_bits(read, exact));
    let exactly =
        |exact| f64::is_normal(exact) && reads(number, exact) && reads(&Value::from(exact).to_string(), exact);
    (significant == 0 || number.parse().is_ok_and(exactly)) && significant <= SURE_DIGITS
}

/// Why something is no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EffectError {
    /// The kind's name.
    #[error("`{0}` is no kind of an effect: a kind has 1 to 64 of a-z, 0-9, `_`, `.` and `-`")]
    Kind(String),
    /// The context or result.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// A number in it.
    #[error(
        "the number {0} would not be kept as it is written (more than 15 digits, or a very large exponent); write it as a string"
    )]
    Number(String),
    /// The context or result.
    #[error("the document has {bytes} bytes; {limit} are the limit (keep what is large elsewhere, and its name here)")]
    Large {
        /// What it has.
        bytes: usize,
        /// What it may have.
        limit: usize,
    },
}

/// The key of an effect, which the other side may remember to recognise the same step taken again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EffectKey(pub [u8; 32]);

impl EffectKey {
    /// The key of a step of the job with this idempotency key.
    pub fn derive(kind: &EffectKind, job: &IdempotencyKey, context: &CanonicalJson) -> Self {
        Self(digest(b"ingestd-effect-v1", &[kind.as_str().as_bytes(), &job.0, context.as_str().as_bytes()]))
    }
}

impl fmt::Display for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A step that is about to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What sort of step.
    pub kind: EffectKind,
    /// What it is about.
    pub context: CanonicalJson,
    /// The effect's key.
    pub key: EffectKey,
}

impl Step {
    /// A step of the job with this idempotency key.
    pub fn of(kind: EffectKind, context: CanonicalJson, job: &IdempotencyKey) -> Self {
        let key = EffectKey::derive(&kind, job, &context);
        Self { kind, context, key }
    }

    /// Which of its job's steps it is, whatever the job's key.
    pub(crate) fn digest(&self) -> [u8; 32] {
        digest(b"ingestd-step-v1", &[self.kind.as_str().as_bytes(), self.context.as_str().as_bytes()])
    }
}

/// SHA-256 of the prefix and the fields, each after its length.
fn digest(prefix: &[u8], fields: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(prefix);
    for field in fields {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}

/// What is recorded of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EffectState {
    /// The intent is committed, by an execution that may still be at it.
    Begun,
    /// It was done, and its result is known.
    Done,
    /// Whoever began it ended without saying how it came out.
    Unknown,
}

impl EffectState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Unknown => "unknown",
        }
    }
}

impl FromStr for EffectState {
    type Err = super::UnknownName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Begun, Self::Done, Self::Unknown]
            .into_iter()
            .find(|state| state.as_str() == name)
            .ok_or_else(|| super::UnknownName::new(name, "begun, done, unknown"))
    }
}

/// An effect in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Its number.
    pub id: EffectId,
    /// Whose step it is.
    pub job: JobId,
    /// For the other side.
    pub key: EffectKey,
    /// What sort of step.
    pub kind: EffectKind,
    /// What it is about.
    pub context: CanonicalJson,
    /// How far it came.
    pub state: EffectState,
    /// The lease under which it was begun last.
    pub fence: Fence,
    /// What came of it.
    pub result: Option<CanonicalJson>,
    /// When it was begun first.
    pub begun_at: Timestamp,
    /// When it was done, or found to be unknown.
    pub ended_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> CanonicalJson {
        CanonicalJson::of(&serde_json::from_str(text).unwrap(), LARGEST_CONTEXT_BYTES).unwrap()
    }

    fn key(kind: &str, job: u8, context: &str) -> String {
        EffectKey::derive(&kind.parse().unwrap(), &IdempotencyKey([job; 32]), &canonical(context)).to_string()
    }

    #[test]
    fn what_a_context_says_decides_and_not_how_it_was_written() {
        let written = "{ \"b\": [1, 2.50, -0.0, 1e2, 1e30, 1.5E-9, 18446744073709551615], \"a\": \"\\u00e9\\/\\u001F\\n\", \"Z\": null }";
        let text =
            "{\"Z\":null,\"a\":\"\u{e9}/\\u001f\\n\",\"b\":[1,2.5,-0.0,100.0,1e+30,1.5e-9,18446744073709551615]}";
        assert_eq!(canonical(written).as_str(), text);
        assert_eq!(canonical(text).as_str(), text);
        assert_eq!(canonical("{\"a\":1,\"a\":2}").as_str(), "{\"a\":2}");
    }

    #[test]
    fn the_keys_are_the_documented_ones() {
        assert_eq!(key("upload", 7, "null"), "8c301d199eed777eae8121419ca0c4575f41de536158de23f3a378a57c279678");
        assert_eq!(
            key("charge", 7, "{\"amount\": 12.5, \"account\": \"caf\u{e9}\"}"),
            "dbed86779918fd01bf34dad1da7a78eae8962f0b0f662e446420abb9ab7aea54"
        );
        assert_eq!(
            key("http", 0, "{\"method\":\"POST\",\"url\":\"https://example.org\"}"),
            "2c91749ae032035e8ead562e3473e12d0cd2cb93b0d585fd3d43186e0a503632"
        );
    }

    #[test]
    fn another_job_kind_or_context_is_another_effect() {
        let keys = [key("a", 1, "1"), key("a", 2, "1"), key("b", 1, "1"), key("a", 1, "1.0"), key("a1", 1, "null")];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn a_step_stays_the_same_when_its_job_gets_another_key() {
        let step = |job: u8| Step::of(EffectKind::own("upload"), canonical("[1]"), &IdempotencyKey([job; 32]));
        assert_ne!(step(1).key, step(2).key);
        assert_eq!(step(1).digest(), step(2).digest());
    }

    #[test]
    fn numbers_that_would_not_survive_are_refused_and_digits_in_strings_are_not() {
        let read = |text: &str| CanonicalJson::read(text, LARGEST_CONTEXT_BYTES);
        for good in [
            "-1",
            "18446744073709551615",
            "[0.1,1e300,-2.5E-3,0e-999,2.3e-308,100000000000000.00]",
            r#"{"id":"100000000000000000001","\"9\\":1}"#,
        ] {
            assert!(read(good).is_ok(), "{good}: {:?}", read(good));
        }
        for bad in [
            "18446744073709551616",
            "[1, 100000000000000000001]",
            r#"{"a\"":0.12345678901234567}"#,
            "1e-400",
            "-4.9e-324",
            "3.57e251",
            "0.30E73",
        ] {
            assert!(matches!(read(bad), Err(EffectError::Number(_))), "{bad}: {:?}", read(bad));
        }
        assert!(matches!(read("{"), Err(EffectError::NotJson(_))));
    }

    #[test]
    fn kinds_and_documents_have_limits() {
        for good in ["a", "upload.part-7_x", &"x".repeat(64)] {
            assert!(good.parse::<EffectKind>().is_ok(), "{good}");
        }
        for bad in ["", "Upload", "a b", "\u{e9}", &"x".repeat(65)] {
            assert!(bad.parse::<EffectKind>().is_err(), "{bad}");
        }
        let large = Value::from("x".repeat(LARGEST_CONTEXT_BYTES));
        assert!(matches!(CanonicalJson::of(&large, LARGEST_CONTEXT_BYTES), Err(EffectError::Large { .. })));
    }
}
