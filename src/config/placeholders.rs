//! The placeholders of `command`, `env`, `url` and `headers`: which exist, and whether a text uses only those.

use super::report::nearest;

/// What a job fills in, written `{path}`. `{{` and `}}` are literal braces.
pub const PLACEHOLDERS: [&str; 15] = [
    "path",
    "name",
    "stem",
    "ext",
    "dir",
    "relative",
    "op",
    "moved_from",
    "digest",
    "size",
    "job",
    "attempt",
    "idempotency_key",
    "pipeline",
    "watch",
];

/// Those that a pipeline whose executions take so many jobs may use: of several jobs, only what they share.
pub(super) const fn fitting(batch_size: usize) -> &'static [&'static str] {
    if batch_size > 1 { &["pipeline"] } else { &PLACEHOLDERS }
}

/// The text with every placeholder replaced by `0`, or what is wrong with one of them, and which are offered instead.
pub(super) fn fill(text: &str, offered: &[&str]) -> Result<String, String> {
    fill_with("0", text, offered)
}

/// The same, with this value in their place.
pub(super) fn fill_with(value: &str, text: &str, offered: &[&str]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{{") {
            out.push('{');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("}}") {
            out.push('}');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let (name, after) = after.split_once('}').ok_or("a { has no closing }; a literal one is written {{")?;
            known(name, offered)?;
            out.push_str(value);
            rest = after;
        } else {
            return Err("a } has no opening {; a literal one is written }}".to_owned());
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The first placeholder that stands for something else in each job of a pipeline.
pub(super) fn per_job(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('{') {
            rest = after;
            continue;
        }
        let (name, after) = rest.split_once('}')?;
        if name != "pipeline" {
            return Some(name);
        }
        rest = after;
    }
    None
}

fn known(name: &str, offered: &[&str]) -> Result<(), String> {
    if PLACEHOLDERS.contains(&name) {
        return Ok(());
    }
    let name: String = name.chars().take(40).collect();
    Err(match nearest(&name, offered.iter().copied()) {
        Some(near) => format!("there is no placeholder {{{name}}}; did you mean {{{near}}}?"),
        None => format!(
            "there is no placeholder {{{name}}} among {}; literal braces are written {{{{ and }}}}",
            all(offered)
        ),
    })
}

fn all(offered: &[&str]) -> String {
    offered.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_job_to_job_is_found() {
        assert_eq!(per_job("{pipeline} {{path}} {{{pipeline}}}"), None);
        assert_eq!(per_job("{{x}}{pipeline}-{name}"), Some("name"));
    }

    #[test]
    fn known_placeholders_pass_and_others_are_named() {
        assert_eq!(fill(&all(&PLACEHOLDERS), &PLACEHOLDERS).as_deref(), Ok("0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"));
        assert_eq!(fill("{{\"a\": 1}} é", &PLACEHOLDERS).as_deref(), Ok("{\"a\": 1} é"));
        assert!(fill("{pth}", &PLACEHOLDERS).is_err_and(|error| error.contains("did you mean {path}?")));
        for wrong in ["{", "}", "{path", "a}b", "{}", "{ path }", "{{path}"] {
            assert!(fill(wrong, &PLACEHOLDERS).is_err(), "{wrong}");
        }
    }
}
