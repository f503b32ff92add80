//! Templates: text with placeholders, for commands, variables, URLs and headers.
//!
//! 1. A template is parsed once, when its processor is built; an unknown name or a stray brace is an error then.
//!    `{{` and `}}` are literal braces.
//! 2. It is rendered for each task, by where the text goes: raw bytes for commands and variables, percent-encoded
//!    into a URL, refused in a header that would break it.
//!
//! `{path}` and `{dir}` are absolute, so they never look like an option. `{relative}`, `{name}` and `{stem}` are
//! passed as they are: a file named `-rf` arrives as `-rf`, and a command that takes them wants a `--` before.
//! A value that a job does not have (the digest of a delete, the watch of an added file, the extension of
//! `README`) is empty.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::Task;
use crate::job::{ErrorKind, JobError};

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    Path,
    Name,
    Stem,
    Ext,
    Dir,
    Relative,
    Op,
    MovedFrom,
    Digest,
    Size,
    Job,
    Attempt,
    IdempotencyKey,
    Pipeline,
    Watch,
}

impl Placeholder {
    const ALL: [(&'static str, Self); 15] = [
        ("path", Self::Path),
        ("name", Self::Name),
        ("stem", Self::Stem),
        ("ext", Self::Ext),
        ("dir", Self::Dir),
        ("relative", Self::Relative),
        ("op", Self::Op),
        ("moved_from", Self::MovedFrom),
        ("digest", Self::Digest),
        ("size", Self::Size),
        ("job", Self::Job),
        ("attempt", Self::Attempt),
        ("idempotency_key", Self::IdempotencyKey),
        ("pipeline", Self::Pipeline),
        ("watch", Self::Watch),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, placeholder)| *placeholder)
    }

    fn append(self, task: &Task, out: &mut Vec<u8>) {
        let mut part = |part: Option<&OsStr>| out.extend_from_slice(part.unwrap_or_default().as_bytes());
        match self {
            Self::Path => part(Some(task.path.as_os_str())),
            Self::Name => part(task.path.file_name()),
            Self::Stem => part(task.path.file_stem()),
            Self::Ext => part(task.path.extension()),
            Self::Dir => part(task.path.parent().map(AsRef::as_ref)),
            Self::Relative => part(Some(task.relative.as_os_str())),
            Self::Op => part(Some(task.op.as_str().as_ref())),
            Self::MovedFrom => part(task.moved_from.as_ref().map(|path| path.as_os_str())),
            Self::Digest => part(task.digest.map(|digest| digest.to_string()).as_deref().map(AsRef::as_ref)),
            Self::Size => part(Some(task.size.to_string().as_ref())),
            Self::Job => part(Some(task.job.to_string().as_ref())),
            Self::Attempt => part(Some(task.attempt.to_string().as_ref())),
            Self::IdempotencyKey => part(Some(task.idempotency_key.to_string().as_ref())),
            Self::Pipeline => part(Some(task.pipeline.as_ref())),
            Self::Watch => part(task.watch.as_deref().map(AsRef::as_ref)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Value(Placeholder),
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A placeholder that nobody knows.
    #[error("unknown placeholder `{{{name}}}`; known are {}; write `{{{{` and `}}}}` for literal braces", Known)]
    Unknown {
        /// The name between the braces.
        name: String,
    },
    /// A brace without its partner.
    #[error("`{0}` stands alone; write `{0}{0}` for a literal brace")]
    Stray(char),
}

/// Lists the placeholders' names.
struct Known;

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, _)) in Placeholder::ALL.iter().enumerate() {
            write!(f, "{}{{{name}}}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// An unknown placeholder or a brace without its partner.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else if let Some(inner) = from.strip_prefix('{') {
                let (name, after) = inner.split_once('}').ok_or(TemplateError::Stray('{'))?;
                let value = Placeholder::named(name).ok_or_else(|| TemplateError::Unknown { name: name.to_owned() })?;
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Value(value));
                rest = after;
            } else {
                return Err(TemplateError::Stray('}'));
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self { pieces })
    }

    /// The text for a command's argument or a variable: values byte for byte.
    pub fn render(&self, task: &Task) -> OsString {
        OsString::from_vec(self.render_with(task, |value, out| out.extend_from_slice(value)))
    }

    /// The text for a URL: all bytes of values but `A–Z a–z 0–9 - . _ ~` (RFC 3986's unreserved characters) are
    /// percent-encoded, the slash too, so that a value stays the one segment or parameter where it was put.
    ///
    /// # Errors
    /// A permanent error of kind [`ErrorKind::Template`] when a segment of the path would be `.` or `..`: however it is
    /// encoded, it leads to another place (WHATWG URL, 4.4).
    pub fn render_url(&self, task: &Task) -> Result<String, JobError> {
        let encoded = self.render_with(task, |value, out| {
            for &byte in value {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(byte);
                } else {
                    const HEX: &[u8; 16] = b"0123456789ABCDEF";
                    out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
            }
        });
        let url = String::from_utf8_lossy(&encoded).into_owned();
        if dot_segments(&url) > dot_segments(&self.sample()) {
            let message = "the URL would have the segment `.` or `..`, which leads to another place; put something \
                           beside the name, or the name behind a `?`";
            return Err(JobError::permanent(ErrorKind::Template, message));
        }
        Ok(url)
    }

    /// The text with `x` in each placeholder's place, to check what surrounds them.
    pub fn sample(&self) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Literal(text) => text.clone(),
            Piece::Value(_) => "x".to_owned(),
        };
        self.pieces.iter().map(text).collect()
    }

    /// The value of the header `name`.
    ///
    /// # Errors
    /// A permanent error of kind [`ErrorKind::Template`] when a control character, such as a line break in a file's
    /// name, would get into the header.
    pub fn render_header(&self, name: &str, task: &Task) -> Result<Vec<u8>, JobError> {
        let value = self.render_with(task, |value, out| out.extend_from_slice(value));
        match value.iter().find(|byte| byte.is_ascii_control()) {
            None => Ok(value),
            Some(byte) => Err(JobError::permanent(
                ErrorKind::Template,
                format!("the header {name} would hold the control character 0x{byte:02x}, which no header may"),
            )),
        }
    }

    fn render_with(&self, task: &Task, mut append: impl FnMut(&[u8], &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        let mut value = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Value(placeholder) => {
                    value.clear();
                    placeholder.append(task, &mut value);
                    append(&value, &mut out);
                }
            }
        }
        out
    }
}

/// How many segments of a URL's path are `.` or `..`, also in percent-encoding. A URL's parser drops tabs and line breaks,
/// and controls and spaces at both ends (WHATWG URL, 4.4), before it looks.
fn dot_segments(url: &str) -> usize {
    let url = url.trim_matches(|c| c <= ' ').replace(['\t', '\n', '\r'], "");
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let is_dots = |segment: &&str| matches!(&*segment.to_ascii_lowercase().replace("%2e", "."), "." | "..");
    path.split(['/', '\\']).filter(is_dots).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::tests::task;

    fn render(text: &str, task: &Task) -> String {
        Template::parse(text).unwrap().render(task).into_string().unwrap()
    }

    #[test]
    fn every_placeholder_has_its_value() {
        let mut task = task("/srv/in/sub/a.tar.gz");
        task.relative = "sub/a.tar.gz".into();
        task.size = 7;
        assert_eq!(
            render("{path} {name} {stem} {ext} {dir} {relative} {op} {size} {job} {attempt} {pipeline} {watch}", &task),
            "/srv/in/sub/a.tar.gz a.tar.gz a.tar gz /srv/in/sub sub/a.tar.gz add 7 1 1 docs inbox"
        );
        assert_eq!(render("{idempotency_key}", &task), "07".repeat(32));
        assert_eq!(render("[{digest}]", &task), "[]");
        task.watch = None;
        assert_eq!(render("[{watch}][{moved_from}]", &task), "[][]");
        task.moved_from = Some("/srv/in/before".into());
        assert_eq!(render("{moved_from}", &task), "/srv/in/before");
    }

    #[test]
    fn double_braces_are_literal() {
        assert_eq!(render("{{print}} {{{job}}}", &task("/a")), "{print} {1}");
    }

    #[test]
    fn mistakes_are_found_when_parsing() {
        assert_eq!(Template::parse("{file}"), Err(TemplateError::Unknown { name: "file".to_owned() }));
        assert_eq!(Template::parse("a{path"), Err(TemplateError::Stray('{')));
        assert_eq!(Template::parse("a}b"), Err(TemplateError::Stray('}')));
        let text = Template::parse("{file}").unwrap_err().to_string();
        assert!(text.contains("`{file}`") && text.contains("{path} {name}") && text.contains("`{{`"), "{text}");
    }

    #[test]
    fn no_file_leads_a_url_to_another_place() {
        let url = |template: &str, path: &str| Template::parse(template).unwrap().render_url(&task(path));
        for path in ["/a/..x", "/a/...x"] {
            for template in ["http://h/in/{stem}/put", "http://h/in/{stem}", "http://h/in\\{stem}?q"] {
                let error = url(template, path).unwrap_err();
                assert!(error.permanent && error.kind == ErrorKind::Template, "{template} {path}: {error:?}");
            }
        }
        assert_eq!(url("http://h/a/../in/{name}", "/a/..x").unwrap(), "http://h/a/../in/..x");
        assert_eq!(url("http://h/in?{stem}#{stem}", "/a/...x").unwrap(), "http://h/in?..#..");
        assert!(url("http://h/%2E{stem}", "/a/..x").is_err());
        // What a parser drops does not hide it.
        for template in
            ["http://h/in/{stem} ", "http://h/in/{stem}\n", "http://h/in/.\t{stem}", "http://h/in/\r{stem}\t/put"]
        {
            assert!(url(template, "/a/..x").is_err(), "{template:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_pass_through() {
        let mut task = task("/a");
        task.path = OsString::from_vec(b"/x\xff\n".to_vec()).into();
        let template = Template::parse("p={path}").unwrap();
        assert_eq!(template.render(&task).as_bytes(), b"p=/x\xff\n");
        assert_eq!(template.render_url(&task).unwrap(), "p=%2Fx%FF%0A");
        let error = template.render_header("X-Path", &task).unwrap_err();
        assert!(error.permanent && error.kind == ErrorKind::Template && error.message.contains("X-Path"));
    }
}
