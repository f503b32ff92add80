//! `${NAME}` and `${file:PATH}` in the strings of a pipeline: secrets that the file itself need not hold.
//!
//! `${NAME}` is a variable of the environment, `${file:PATH}` the content of a file without its last line break.
//! They nest (`${file:${CREDENTIALS_DIRECTORY}/token}`), and `$${` is a literal `${`; any other `$` is itself.
//! Braces in a secret are doubled where the string is a template, so that no secret is read as a placeholder.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::layers::Sources;

/// A larger file is no secret.
const LARGEST_BYTES: u64 = 64 << 10;
/// Deeper nesting has no use.
const DEEPEST: usize = 8;

/// Whether anything in this text would be replaced.
pub(super) fn refers(text: &str) -> bool {
    text.contains("${")
}

/// Replaces secrets.
pub(super) struct Secrets<'a> {
    sources: &'a Sources,
    /// Without it, every secret is `0`: for commands that talk about pipelines and never run one.
    pub wanted: bool,
    /// The variables that were asked for, there or not.
    pub variables: Vec<String>,
}

impl<'a> Secrets<'a> {
    /// Secrets from this environment and the filesystem, if they are `wanted` at all.
    pub fn new(sources: &'a Sources, wanted: bool) -> Self {
        Self { sources, wanted, variables: Vec::new() }
    }

    /// The text with every reference replaced, or what is wrong with one of them.
    pub fn expand(&mut self, text: &str, template: bool) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("$${") {
                out.push_str("${");
                rest = after;
            } else if let Some(after) = rest.strip_prefix("${") {
                let (reference, after) = split_reference(after).ok_or("a ${ has no closing }")?;
                let secret = self.resolve(reference, 1)?;
                out.push_str(&if template { secret.replace('{', "{{").replace('}', "}}") } else { secret });
                rest = after;
            } else {
                out.push('$');
                rest = &rest[1..];
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn resolve(&mut self, reference: &str, depth: usize) -> Result<String, String> {
        if depth > DEEPEST {
            return Err(format!("${{…}} is nested deeper than {DEEPEST} levels"));
        }
        let Some(path) = reference.strip_prefix("file:") else { return self.variable(reference) };
        let mut full = String::new();
        let mut rest = path;
        while let Some(at) = rest.find("${") {
            full.push_str(&rest[..at]);
            let (inner, after) = split_reference(&rest[at + 2..]).ok_or("a ${ has no closing }")?;
            full.push_str(&self.resolve(inner, depth + 1)?);
            rest = after;
        }
        full.push_str(rest);
        if self.wanted { read(Path::new(&full)) } else { Ok("0".to_owned()) }
    }

    fn variable(&mut self, name: &str) -> Result<String, String> {
        let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !first || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(format!("${{{name}}} is neither ${{NAME}} nor ${{file:PATH}}; a literal ${{ is written $${{"));
        }
        if !self.variables.iter().any(|known| known == name) {
            self.variables.push(name.to_owned());
        }
        if !self.wanted {
            return Ok("0".to_owned());
        }
        let found = self.sources.environment.iter().find(|(key, _)| key == name);
        let (_, value) = found.ok_or_else(|| format!("the environment variable {name} is not set"))?;
        let text = std::str::from_utf8(value.as_bytes());
        text.map(str::to_owned).map_err(|_| format!("the environment variable {name} is not UTF-8"))
    }
}

/// Splits behind the brace that closes a reference whose `${` has been read.
pub(super) fn split_reference(text: &str) -> Option<(&str, &str)> {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
    }
    None
}

fn read(path: &Path) -> Result<String, String> {
    if !path.is_absolute() {
        return Err(format!("${{file:{}}} has to be an absolute path", path.display()));
    }
    let wrong = |what: String| format!("the file {} {what}", path.display());
    // Opening a FIFO would wait for a writer that may never come.
    let meta = std::fs::metadata(path).map_err(|error| wrong(format!("can't be read: {error}")))?;
    if !meta.is_file() {
        return Err(wrong("is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| wrong(format!("can't be read: {error}")))?;
    if bytes.len() as u64 > LARGEST_BYTES {
        return Err(wrong(format!("is larger than {} KiB", LARGEST_BYTES >> 10)));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8".to_owned()))?;
    if text.ends_with('\n') {
        text.truncate(text.trim_end_matches('\n').len().max(text.len() - 1));
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(variables: &[(&str, &str)]) -> Sources {
        let environment = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Sources { environment, ..Sources::default() }
    }

    fn expand(variables: &[(&str, &str)], text: &str) -> Result<String, String> {
        Secrets::new(&sources(variables), true).expand(text, false)
    }

    #[test]
    fn variables_are_replaced_and_dollars_kept() {
        assert_eq!(expand(&[("A", "1"), ("B_2", "x")], "${A}-${B_2}$").as_deref(), Ok("1-x$"));
        assert_eq!(expand(&[], "$$ $HOME $${A} cost: 5$").as_deref(), Ok("$$ $HOME ${A} cost: 5$"));
        assert_eq!(expand(&[("A", "${B}")], "${A}").as_deref(), Ok("${B}"), "a value is not read again");
    }

    #[test]
    fn missing_and_malformed_references_are_errors() {
        assert!(expand(&[], "${NOPE}").is_err_and(|error| error.contains("NOPE is not set")));
        for wrong in ["${", "${A", "${}", "${1A}", "${A-B}", "${file:relative}", "${file:/no/such/file}"] {
            assert!(expand(&[("A", "1")], wrong).is_err(), "{wrong}");
        }
        let deep = "${file:".repeat(100_000) + &"}".repeat(100_000);
        assert!(expand(&[], &deep).is_err_and(|error| error.contains("nested")));
    }

    #[test]
    fn files_are_read_without_their_last_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| std::fs::write(folder.path().join(name), content).unwrap();
        file("token", b"s3cret\n");
        file("lines", b"a\nb\n\n");
        file("binary", b"\xff");
        file("large", &[b'x'; (64 << 10) + 1]);
        let directory = folder.path().to_str().unwrap();
        let read = |name: &str| expand(&[("DIR", directory)], &format!("<${{file:${{DIR}}/{name}}}>"));
        assert_eq!(read("token").as_deref(), Ok("<s3cret>"));
        assert_eq!(read("lines").as_deref(), Ok("<a\nb\n>"));
        assert!(read("binary").is_err_and(|error| error.contains("UTF-8")));
        assert!(read("large").is_err_and(|error| error.contains("larger")));
        assert!(read("").is_err_and(|error| error.contains("regular")));
    }

    #[test]
    fn a_secret_in_a_template_is_never_a_placeholder() {
        let sources = sources(&[("A", "{path}")]);
        let mut secrets = Secrets::new(&sources, true);
        assert_eq!(secrets.expand("${A} {path}", true).as_deref(), Ok("{{path}} {path}"));
        assert_eq!(secrets.variables, ["A"]);
    }

    #[test]
    fn unwanted_secrets_are_not_looked_up_but_named() {
        let sources = sources(&[]);
        let mut secrets = Secrets::new(&sources, false);
        assert_eq!(secrets.expand("Bearer ${A}${file:${B}/c}", true).as_deref(), Ok("Bearer 00"));
        assert_eq!(secrets.variables, ["A", "B"]);
    }
}
