//! The members of a JSON object as they are written, so that what is only handed on keeps its every digit.
//!
//! The text is proved to be JSON first; what is left is to find where each member ends.

use std::collections::HashSet;

use serde::de::IgnoredAny;
use serde_json::Value;

use super::cut;

/// A member of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member<'a> {
    /// Its name.
    pub name: String,
    /// Its value, as it is written.
    pub raw: &'a str,
}

impl Member<'_> {
    /// Name and value, as an object has them.
    pub fn write(&self, out: &mut String) {
        out.push_str(&Value::from(self.name.as_str()).to_string());
        out.push(':');
        out.push_str(self.raw);
    }
}

/// The members of an object in their order. The error says where the text stops being one.
pub(super) fn members(text: &str) -> Result<Vec<Member<'_>>, String> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| reason(&error))?;
    let mut rest = text.trim_start().strip_prefix('{').ok_or("it is no object")?.trim_start();
    let (mut found, mut names) = (Vec::new(), HashSet::new());
    while rest.starts_with('"') {
        let (name, after) = rest.split_at(length(rest));
        let name: String = serde_json::from_str(name).map_err(|error| reason(&error))?;
        let value = after.trim_start().strip_prefix(':').unwrap_or_default().trim_start();
        let (raw, after) = value.split_at(length(value));
        if !names.insert(name.clone()) {
            return Err(format!("`{}` stands twice", cut(&name)));
        }
        found.push(Member { name, raw });
        let after = after.trim_start();
        rest = after.strip_prefix(',').unwrap_or(after).trim_start();
    }
    Ok(found)
}

/// What a parser says, in a line's own terms.
pub(super) fn reason(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

/// How long the value is that a sound text begins with.
fn length(text: &str) -> usize {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (place, byte) in text.bytes().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' if depth == 0 => return place + 1,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 1 => depth -= 1,
            b'}' | b']' if depth == 1 => return place + 1,
            // The end of a number or a word.
            b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' | b':' if depth == 0 => return place,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_is_found_as_it_is_written() {
        let text = r#" { "a" : 1e400 ,"b":"x\"},y" , "c":{"d":[1,"]"]},"e":null,"f":[ ], "é\u0041":-0.10 } "#;
        let found = members(text).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|member| (member.name.as_str(), member.raw)).collect();
        let expected = [
            ("a", "1e400"),
            ("b", r#""x\"},y""#),
            ("c", r#"{"d":[1,"]"]}"#),
            ("e", "null"),
            ("f", "[ ]"),
            ("éA", "-0.10"),
        ];
        assert_eq!(found, expected);
        assert_eq!(members("{}").unwrap(), []);
    }

    #[test]
    fn what_is_no_object_is_refused_with_the_place() {
        assert!(members(r#"{"a":1"#).unwrap_err().contains("at column 6"));
        assert!(members(r#"{"a":1} x"#).unwrap_err().contains("trailing characters at column 9"));
        assert!(members(r#"{"a":1,"a":2}"#).unwrap_err().contains("`a` stands twice"));
        assert!(members("[1]").is_err() && members("").is_err());
    }
}
