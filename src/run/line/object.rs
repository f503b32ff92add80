//! A line in JSON: each field by its type, and the rest into `metadata`.

use std::collections::HashSet;
use std::path::Path;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::members::{Member, members, reason};
use super::{Asks, ListedContent, ListedWork, Understood, absolute, cut};
use crate::job::{Op, Priority, WirePath};

const OPS: &str = "add, modify or delete";
const LEVELS: &str = "low, normal, high or urgent";
/// What a changeset's record has beside `repo` and `new_changeset` stands in the way of one of the two.
const OF_FILES: [&str; 8] = ["path", "op", "priority", "key", "content", "content_base64", "content_ref", "skip_index"];
/// The longest `key` and `repo`, in bytes: they are names.
const MOST_OF_NAME: usize = 4_096;
/// The longest `metadata` and changeset, in bytes. What is larger is a content.
const MOST_OF_DOCUMENT: usize = 1 << 20;

pub(super) fn parse(line: &[u8], root: &Path) -> Result<Understood, String> {
    let text = std::str::from_utf8(line).map_err(|error| {
        let at = error.valid_up_to() + 1;
        format!("JSON is UTF-8, and byte {at} is not; a path with such bytes stands on a line of its own, as it is")
    })?;
    let found = members(text).map_err(|reason| format!("not JSON: {reason}"))?;
    let mut fields = Fields(found);
    if let Some(changeset) = fields.take("new_changeset") {
        return changeset_record(&changeset, fields);
    }
    let work = ListedWork {
        number: fields.number("line")?,
        path: fields.path("path", root)?,
        op: fields.word("op", OPS)?,
        repo: fields.short("repo")?,
        priority: fields.priority()?,
        key: fields.key()?,
        content: fields.content(root)?,
        skip: fields.flag("skip_index")?,
        metadata: None,
    };
    complete(&work)?;
    let (metadata, unknown) = fields.rest("metadata")?;
    Ok(Understood { asks: Asks::Work(Box::new(ListedWork { metadata, ..work })), unknown })
}

/// What is missing for a file to be worked on.
fn complete(work: &ListedWork) -> Result<(), String> {
    match work {
        ListedWork { path: None, key: None, .. } => {
            Err("`path` is missing: it names the file (or `key` names it, where the content is given)".to_owned())
        }
        ListedWork { path: None, content: None, skip: false, op: None | Some(Op::Add | Op::Modify), .. } => {
            Err("`path` is missing, and so is the content: give `path`, `content`, `content_base64` or `content_ref`"
                .to_owned())
        }
        _ => Ok(()),
    }
}

fn changeset_record<'a>(changeset: &Member<'a>, mut fields: Fields<'a>) -> Result<Understood, String> {
    if !changeset.raw.starts_with('{') {
        return Err(wrong(changeset, "an object"));
    }
    if let Some(of_file) = fields.0.iter().find(|member| OF_FILES.contains(&member.name.as_str())) {
        return Err(format!(
            "`{}` and `new_changeset` stand on one line; a changeset's record has a line of its own",
            of_file.name
        ));
    }
    let repo = fields.short("repo")?;
    fields.0.push(Member { name: changeset.name.clone(), raw: changeset.raw });
    let (changeset, unknown) = fields.rest("new_changeset")?;
    Ok(Understood { asks: Asks::Changeset { repo, changeset: changeset.unwrap_or_default() }, unknown })
}

/// The fields that were not taken yet.
struct Fields<'a>(Vec<Member<'a>>);

impl<'a> Fields<'a> {
    /// A field with a value; `null` is none.
    fn take(&mut self, name: &str) -> Option<Member<'a>> {
        let place = self.0.iter().position(|member| member.name == name)?;
        Some(self.0.remove(place)).filter(|member| member.raw != "null")
    }

    fn value<T: DeserializeOwned>(&mut self, name: &str, begins: &[u8], allowed: &str) -> Result<Option<T>, String> {
        let Some(member) = self.take(name) else { return Ok(None) };
        if !member.raw.bytes().next().is_some_and(|first| begins.contains(&first)) {
            return Err(wrong(&member, allowed));
        }
        serde_json::from_str(member.raw)
            .map(Some)
            .map_err(|error| format!("{}: {}", wrong(&member, allowed), reason(&error)))
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        self.value(name, b"\"", "a text")
    }

    fn short(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.text(name)? {
            Some(text) if text.len() > MOST_OF_NAME => {
                Err(format!("`{name}` has {} bytes; it has {MOST_OF_NAME} at most", text.len()))
            }
            text => Ok(text),
        }
    }

    fn number(&mut self, name: &str) -> Result<Option<u64>, String> {
        self.value(name, b"-0123456789", "a whole number from 0")
    }

    fn flag(&mut self, name: &str) -> Result<bool, String> {
        Ok(self.value(name, b"tf", "true or false")?.unwrap_or_default())
    }

    fn word<T: FromStr>(&mut self, name: &str, allowed: &str) -> Result<Option<T>, String> {
        let Some(word) = self.value::<String>(name, b"\"", allowed)? else { return Ok(None) };
        word.parse().map(Some).map_err(|_| format!("`{name}` is {}; it is {allowed}", cut(&word)))
    }

    /// A level by its name or its number.
    fn priority(&mut self) -> Result<Option<Priority>, String> {
        let number = |raw: &str| raw.parse().ok().and_then(Priority::from_number);
        match self.0.iter().find(|member| member.name == "priority").map(|member| number(member.raw)) {
            Some(Some(level)) => {
                self.take("priority");
                Ok(Some(level))
            }
            _ => self.word("priority", LEVELS),
        }
    }

    fn key(&mut self) -> Result<Option<String>, String> {
        match self.short("key")? {
            Some(key) if key.is_empty() => Err("`key` is empty; it has at least one character".to_owned()),
            key => Ok(key),
        }
    }

    fn path(&mut self, name: &str, root: &Path) -> Result<Option<WirePath>, String> {
        let Some(path) = self.text(name)? else { return Ok(None) };
        absolute(path.as_bytes(), root).map(Some).map_err(|wrong| format!("`{name}` {wrong}"))
    }

    fn content(&mut self, root: &Path) -> Result<Option<ListedContent>, String> {
        let plain = self.text("content")?;
        let encoded = self.value::<String>("content_base64", b"\"", "a text in base64")?;
        let file = self.path("content_ref", root)?;
        match (plain, encoded, file) {
            (None, None, None) => Ok(None),
            (Some(text), None, None) => Ok(Some(ListedContent::Inline(STANDARD.encode(text)))),
            (None, Some(text), None) => match STANDARD.decode(&text) {
                Ok(_) => Ok(Some(ListedContent::Inline(text))),
                Err(error) => {
                    Err(format!("`content_base64` is not base64 (the alphabet with + and /, padded): {error}"))
                }
            },
            (None, None, Some(file)) => Ok(Some(ListedContent::File(file))),
            _ => {
                Err("more than one of `content`, `content_base64` and `content_ref`; a line has one content".to_owned())
            }
        }
    }

    /// The document under `name` with everything that was not taken, and the names of that.
    fn rest(mut self, name: &str) -> Result<(Option<String>, Vec<String>), String> {
        let document = self.take(name);
        for member in document.iter().chain(&self.0) {
            // What is handed on has to be readable on the other side: no half of a surrogate pair, no abyss.
            serde_json::from_str::<Value>(member.raw)
                .map_err(|error| format!("`{}` is not sound: {}", cut(&member.name), reason(&error)))?;
        }
        let names: usize = self.0.iter().map(|member| member.name.len()).sum();
        let values: usize = document.iter().chain(&self.0).map(|member| member.raw.len()).sum();
        let length = names + values;
        if length > MOST_OF_DOCUMENT {
            return Err(format!(
                "`{name}` has {length} bytes with what belongs to it; it has {MOST_OF_DOCUMENT} at most (a large content \
                 goes into `content` or `content_ref`)"
            ));
        }
        let unknown: Vec<String> = self.0.iter().map(|member| member.name.clone()).collect();
        if self.0.is_empty() {
            return Ok((document.map(|document| document.raw.to_owned()), unknown));
        }
        let own = match document {
            Some(document) if document.raw.starts_with('{') => members(document.raw)?,
            // What is no object has no members to stand beside: it becomes one of them.
            Some(document) => vec![document],
            None => Vec::new(),
        };
        let names: HashSet<&str> = own.iter().map(|member| member.name.as_str()).collect();
        let more = self.0.into_iter().filter(|more| !names.contains(more.name.as_str()));
        let whole = object(own.iter().chain(&more.collect::<Vec<_>>()));
        // A member that is just not too deep by itself may be so in there.
        serde_json::from_str::<Value>(&whole).map_err(|error| format!("`{name}` is not sound: {}", reason(&error)))?;
        Ok((Some(whole), unknown))
    }
}

fn object<'a>(members: impl Iterator<Item = &'a Member<'a>>) -> String {
    let mut out = String::from("{");
    for (place, member) in members.enumerate() {
        if place > 0 {
            out.push(',');
        }
        member.write(&mut out);
    }
    out.push('}');
    out
}

fn wrong(member: &Member<'_>, allowed: &str) -> String {
    let found = match member.raw.bytes().next() {
        Some(b'"') => format!("the text {}", cut(member.raw)),
        Some(b'{') => "an object".to_owned(),
        Some(b'[') => "a list".to_owned(),
        Some(b't' | b'f') => format!("the word {}", member.raw),
        _ => format!("the number {}", cut(member.raw)),
    };
    format!("`{}` is {found}; it is {allowed}", member.name)
}
