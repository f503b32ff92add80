//! Globs as filters use them, where one goes wrong, and what a set of them lets pass.
//!
//! Whether a filter lets *anything* pass can't be told from its globs in general. [`samples`] makes a few names of
//! different kinds that a glob matches; what is true of all of them is taken for true of the glob.

use std::path::{Path, PathBuf};

use globset::{ErrorKind, GlobBuilder, GlobSet, GlobSetBuilder};

use super::watch_section::Watch;
use crate::durable::with_suffix;

/// What stands in for a `*` at the beginning of a name: long and short, letters, digits, signs and none of these.
const STEMS: [&str; 5] = ["0", "Report 2026", "_x-y.z", "é", "~$7"];
/// Characters that mean something in a glob.
const SPECIAL: [char; 7] = ['*', '?', '[', ']', '{', '}', '\\'];

/// The longest glob, in bytes: as long as the longest path.
const LONGEST: usize = 4_096;
/// How deep choices (`{a,{b,c}}`) may lie in choices: their parser calls itself, and would run out of stack.
const DEEPEST: usize = 32;
/// The most globs of one list. Each costs every name of a scan a little, and each start more.
const MOST: usize = 10_000;

/// A pattern on the path relative to the root, where `*` does not cross a `/`. The error says where it goes wrong.
pub(super) fn matcher(glob: &str) -> Result<GlobSet, String> {
    if glob.is_empty() {
        return Err("is empty".to_owned());
    }
    if glob.starts_with('/') {
        return Err("begins with /, but is matched on the path relative to the watch".to_owned());
    }
    if glob.ends_with('/') {
        return Err(format!("ends with /, which no path does; for all that is in such a folder, write {glob}**"));
    }
    compile(GlobBuilder::new(glob).literal_separator(true), glob).map_err(|wrong| match wrong {
        NoGlob::Syntax(kind) => match position(glob, &kind) {
            Some(character) => format!("is not a glob: {kind}, at character {character}"),
            None => format!("is not a glob: {kind}"),
        },
        other => other.to_string(),
    })
}

/// The globs of a list as one set, in their order; the error says what is wrong with it as a whole.
pub(super) fn set(globs: &[String]) -> Result<(), String> {
    if globs.len() > MOST {
        return Err(format!("has {} globs; {MOST} are the limit", globs.len()));
    }
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        // What is wrong with one of them is said where that stands.
        let Ok(glob) = read(GlobBuilder::new(glob).literal_separator(true), glob) else { return Ok(()) };
        set.add(glob);
    }
    set.build().map(|_| ()).map_err(|_| NoGlob::Large.to_string())
}

/// Why a text is no glob.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoGlob {
    /// Its syntax.
    #[error("is not a glob: {0}")]
    Syntax(ErrorKind),
    /// Its length.
    #[error("has {0} bytes; a glob has {LONGEST} at most")]
    Long(usize),
    /// Its braces.
    #[error("has more than {DEEPEST} choices in braces inside each other")]
    Deep,
    /// All of them together.
    #[error("is too large to be matched; write fewer globs, or simpler ones")]
    Large,
}

/// Reads a glob that may come from anybody: it takes no more stack than there is.
pub fn read(builder: &GlobBuilder<'_>, glob: &str) -> Result<globset::Glob, NoGlob> {
    check_bounds(glob)?;
    builder.build().map_err(|error| NoGlob::Syntax(error.kind().clone()))
}

/// Whether a glob is short and flat enough to be parsed, whoever wrote it.
pub fn check_bounds(glob: &str) -> Result<(), NoGlob> {
    if glob.len() > LONGEST {
        return Err(NoGlob::Long(glob.len()));
    }
    let mut depth = 0_usize;
    for character in glob.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            return Err(NoGlob::Deep);
        }
    }
    Ok(())
}

/// One glob, ready to be matched: a set of it alone, because a matcher of globset's panics where a set has an error.
pub fn compile(builder: &GlobBuilder<'_>, glob: &str) -> Result<GlobSet, NoGlob> {
    let glob = read(builder, glob)?;
    GlobSet::builder().add(glob).build().map_err(|_| NoGlob::Large)
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
fn cover(globs: &[GlobSet], names: &[PathBuf]) -> bool {
    !names.is_empty() && names.iter().all(|name| globs.iter().any(|glob| glob.is_match(name)))
}

fn matchers(globs: &[String]) -> Vec<GlobSet> {
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

    #[test]
    fn a_glob_that_would_take_all_the_stack_or_memory_is_refused() {
        let nested = |depth: usize| "{".repeat(depth) + "a" + &"}".repeat(depth);
        for (glob, wrong) in [
            (nested(100_000), "200001 bytes"),
            (nested(DEEPEST + 1), "32 choices"),
            ("?".repeat(1_000_000), "1000000 bytes"),
            ("a/".to_owned(), "write a/**"),
        ] {
            let message = matcher(&glob).unwrap_err();
            assert!(message.contains(wrong), "{message}");
        }
        for fine in [nested(DEEPEST), "?".repeat(LONGEST), "[!a]".repeat(LONGEST / 4), "{a,b}".repeat(LONGEST / 5)] {
            assert!(matcher(&fine).is_ok(), "{fine}");
        }
    }

    #[test]
    fn a_list_of_globs_is_bounded_as_a_whole() {
        let list = |number: usize, glob: &str| vec![glob.to_owned(); number];
        assert_eq!(set(&list(MOST, "*.pdf")), Ok(()));
        assert!(set(&list(MOST + 1, "*.pdf")).unwrap_err().contains("10001 globs"));
        assert!(set(&list(1_000, &"[!a]?".repeat(LONGEST / 5))).unwrap_err().contains("too large"));
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
