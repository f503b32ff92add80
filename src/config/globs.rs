//! Globs as filters use them, where one goes wrong, and what a set of them lets pass.
//!
//! Whether a filter lets *anything* pass can't be told from its globs in general. [`samples`] makes a few names of
//! different kinds that a glob matches; what is true of all of them is taken for true of the glob.

use std::path::{Path, PathBuf};

use globset::{ErrorKind, GlobBuilder, GlobMatcher};

use super::watch_section::Watch;

/// What stands in for a `*` at the beginning of a name: long and short, letters, digits, signs and none of these.
const STEMS: [&str; 5] = ["0", "Report 2026", "_x-y.z", "é", "~$7"];
/// Characters that mean something in a glob.
const SPECIAL: [char; 7] = ['*', '?', '[', ']', '{', '}', '\\'];

/// A pattern on the path relative to the root, where `*` does not cross a `/`. The error says where it goes wrong.
pub(super) fn matcher(glob: &str) -> Result<GlobMatcher, String> {
    if glob.is_empty() {
        return Err("is empty".to_owned());
    }
    if glob.starts_with('/') {
        return Err("begins with /, but is matched on the path relative to the watch".to_owned());
    }
    let built = GlobBuilder::new(glob).literal_separator(true).build();
    built.map(|glob| glob.compile_matcher()).map_err(|error| match position(glob, error.kind()) {
        Some(character) => format!("is not a glob: {}, at character {character}", error.kind()),
        None => format!("is not a glob: {}", error.kind()),
    })
}

/// Where a glob goes wrong, counted from 1. globset says only how.
fn position(glob: &str, kind: &ErrorKind) -> Option<usize> {
    let chars: Vec<char> = glob.chars().collect();
    let mut choices = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let wrong = match (c, kind) {
            ('\\', ErrorKind::DanglingEscape) => at + 1 == chars.len(),
            ('}', _) => choices.pop().is_none() && *kind == ErrorKind::UnopenedAlternates,
            _ => false,
        };
        if wrong {
            return Some(at + 1);
        }
        match c {
            '\\' => at += 1,
            '{' => choices.push(at),
            '[' => match end_of_class(&chars, at) {
                None => return Some(at + 1),
                Some(end) => {
                    if let ErrorKind::InvalidRange(from, to) = kind
                        && let Some(range) = chars[at..end].windows(3).position(|range| range == [*from, '-', *to])
                    {
                        return Some(at + range + 1);
                    }
                    at = end;
                }
            },
            _ => {}
        }
        at += 1;
    }
    choices.last().filter(|_| *kind == ErrorKind::UnclosedAlternates).map(|at| at + 1)
}

/// The index of the `]` that closes the class which opens here. A `]` that comes first is one of its characters.
fn end_of_class(chars: &[char], open: usize) -> Option<usize> {
    let first = open + 1 + usize::from(matches!(chars.get(open + 1), Some('!' | '^')));
    let rest = chars.get(first + 1..)?;
    rest.iter().position(|c| *c == ']').map(|offset| first + 1 + offset)
}

/// Names that match this glob, where its last part is a `*` with an ending, as in `**/*.pdf`; else none.
fn samples(glob: &str) -> Vec<PathBuf> {
    let (folder, name) = glob.rsplit_once('/').unwrap_or(("", glob));
    let Some(ending) = name.strip_prefix('*').filter(|ending| !ending.contains(SPECIAL)) else { return Vec::new() };
    let folder = if folder == "**" { "" } else { folder };
    if folder.contains(SPECIAL) {
        return Vec::new();
    }
    STEMS.map(|stem| Path::new(folder).join(format!("{stem}{ending}"))).to_vec()
}

/// Whether some of these globs match every one of the names.
fn cover(globs: &[GlobMatcher], names: &[PathBuf]) -> bool {
    !names.is_empty() && names.iter().all(|name| globs.iter().any(|glob| glob.is_match(name)))
}

fn matchers(globs: &[String]) -> Vec<GlobMatcher> {
    globs.iter().filter_map(|glob| matcher(glob).ok()).collect()
}

/// Whether `exclude` covers everything that `include` lets pass, so that no file could ever be taken.
pub(super) fn nothing_passes(watch: &Watch) -> bool {
    let exclude = matchers(&watch.exclude);
    !watch.include.is_empty() && watch.include.iter().all(|glob| cover(&exclude, &samples(glob)))
}

/// What keeps every file of a watch from having its companion (`ready_suffix`); `None`: nothing.
pub(super) fn never_ready(watch: &Watch) -> Option<String> {
    let suffix = watch.ready_suffix.as_str();
    if suffix.is_empty() {
        return None;
    }
    // A name that is all suffix is no companion, and nobody means it.
    let is_companion = |glob: &String| samples(glob).iter().any(|_| glob.ends_with(suffix));
    if !watch.include.is_empty() && watch.include.iter().all(is_companion) {
        return Some(format!(
            "no file could ever be taken: include lets only names pass that end with {suffix}, and those are the \
             companions, which are never taken themselves; include the files that they announce"
        ));
    }
    let everything = ["*".to_owned()];
    let announced = if watch.include.is_empty() { &everything[..] } else { &watch.include };
    let excluded = |exclude: &&String| {
        let matcher = matchers(std::slice::from_ref(*exclude));
        announced.iter().any(|glob| {
            let files = samples(glob);
            let companions: Vec<PathBuf> = files.iter().map(|file| with_suffix(file, suffix)).collect();
            cover(&matcher, &companions) && !cover(&matcher, &files)
        })
    };
    watch.exclude.iter().find(excluded).map(|exclude| {
        format!(
            "exclude says with {exclude:?} that such files are none of this watch's business, but it has to look for \
             them; choose another suffix, or write exclude without that pattern (companions are never taken anyway)"
        )
    })
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_that_does_not_parse_is_placed() {
        for (glob, character) in [
            ("é[a", 2),
            ("[a]b[c", 5),
            ("a[b[c", 2),
            ("[]a", 1),
            ("[!]a", 1),
            ("a{b", 2),
            ("{a,{b}", 1),
            ("{a}}", 4),
            ("\\{a}", 4),
            ("a}", 2),
            ("[}]}", 4),
            ("z-a[a-cz-a]", 8),
            ("a\\", 2),
            ("\\\\\\", 3),
        ] {
            let message = matcher(glob).unwrap_err();
            assert!(message.ends_with(&format!(", at character {character}")), "{glob}: {message}");
        }
        for fine in ["**/*.pdf", "[]]", "[!]]", "[]-a]", "{a,b}/c", "a\\[", "[[]"] {
            assert!(matcher(fine).is_ok(), "{fine}");
        }
    }

    fn watch(include: &[&str], exclude: &[&str], suffix: &str) -> Watch {
        let owned = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        let watch = Watch::of("/s".into(), "p".to_owned());
        Watch { include: owned(include), exclude: owned(exclude), ready_suffix: suffix.to_owned(), ..watch }
    }

    #[test]
    fn an_include_that_exclude_covers_lets_nothing_pass() {
        for (include, exclude) in [
            (&["**/*.tmp"][..], &["**/*.tmp"][..]),
            (&["*.tmp"], &["**/*.tmp"]),
            (&["in/*.tmp", "**/*~"], &["**/*.tmp", "**/*~"]),
            (&["in/*.pdf"], &["in/**"]),
        ] {
            assert!(nothing_passes(&watch(include, exclude, "")), "{include:?}, {exclude:?}");
        }
        for (include, exclude) in [
            (&[][..], &["**/*.tmp"][..]),
            (&["**/*.tmp"], &["*.tmp.tmp"]),
            (&["**/*.tmp", "**/*.pdf"], &["**/*.tmp"]),
            (&["**/*.pdf"], &["**/*-*"]),
            (&["**/*.pdf"], &["**/[A-Za-z0-9]*"]),
            (&["**/*.pdf"], &["out/**"]),
            (&["{a,b}.tmp"], &["**/*.tmp"]),
            (&["a.tmp"], &[]),
        ] {
            assert!(!nothing_passes(&watch(include, exclude, "")), "{include:?}, {exclude:?}");
        }
    }

    #[test]
    fn a_companion_has_to_be_looked_for_and_announce_what_is_included() {
        let never = |include: &[&str], exclude: &[&str], suffix: &str| never_ready(&watch(include, exclude, suffix));
        assert!(never(&["**/*.done"], &[], ".done").unwrap().contains("include"));
        assert!(never(&["**/*.done", "in/*.ok.done"], &[], ".done").is_some());
        assert!(never(&["**/*.done", "**/*.pdf"], &[], ".done").is_none());
        assert!(never(&[], &["**/*.done"], ".done").unwrap().contains("\"**/*.done\""));
        assert!(never(&[], &["*.done"], ".done").is_some());
        assert!(never(&["**/*.pdf"], &["**/*.pdf.ok"], ".ok").is_some());
        assert!(never(&["**/*.pdf"], &[], ".done").is_none(), "a companion need not be included");
        assert!(never(&[], &["drafts/x.done"], ".done").is_none(), "one companion is not all of them");
        assert!(never(&["in/*.pdf"], &["out/**", "**/*.txt.done"], ".done").is_none());
        assert!(never(&[], &["**/*.done"], "").is_none());
        let default = Watch::of("/s".into(), "p".to_owned());
        for (suffix, fits) in [(".done", true), (".ready", true), (".part", false), (".tmp", false), ("~", false)] {
            let watch = Watch { ready_suffix: suffix.to_owned(), ..default.clone() };
            assert_eq!(never_ready(&watch).is_none(), fits, "{suffix}");
        }
    }
}
