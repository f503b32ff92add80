//! Globs of a watch, beside a matcher so simple that it can be believed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ingestd::config::Watch;
use ingestd::watch::{Filter, Rule, Ruling};

/// A filter can be built of the globs or says which one is none; it judges any name, and where the globs have nothing
/// but `*`, `**`, `?` and plain characters, as the simple matcher does.
pub fn globs(globs: &[String], path: &[u8]) {
    let relative = Path::new(OsStr::from_bytes(path));
    let with = |include: &[String], exclude: &[String]| {
        let watch = Watch::of(PathBuf::from("/srv/inbox"), "p".to_owned());
        Filter::new(&Watch { include: include.to_vec(), exclude: exclude.to_vec(), ..watch })
    };
    let (including, excluding) = (with(globs, &[]), with(&[], globs));
    let (including, excluding) = match (including, excluding) {
        (Ok(including), Ok(excluding)) => (including, excluding),
        (Err(error), _) | (_, Err(error)) => {
            assert!(error.to_string().len() < 16 << 10, "{} bytes", error.to_string().len());
            return;
        }
    };
    let (included, excluded) = (including.file(relative), excluding.file(relative));
    for filter in [&including, &excluding] {
        let _ = (filter.path(relative), filter.folder(relative), filter.companion_of(relative));
    }
    // The simple matcher takes its time over many stars.
    let is_plain = |glob: &String| {
        glob.is_ascii() && glob.len() < 30 && !glob.contains(['[', '{', '}', '\\']) && knows_stars(glob)
    };
    // A path as a walk makes it: of names alone.
    let is_walked = path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."));
    if globs.is_empty() || !globs.iter().all(is_plain) || !is_walked || included == Ruling::Excluded(Rule::Private) {
        return;
    }
    let first = globs.iter().find(|glob| matches(glob.as_bytes(), path));
    let expected = if first.is_some() { Ruling::Taken } else { Ruling::Excluded(Rule::NotIncluded) };
    assert_eq!(included, expected, "include {globs:?}, {}", relative.display());
    let expected = first.map_or(Ruling::Taken, |glob| Ruling::Excluded(Rule::Exclude(glob.clone())));
    assert_eq!(excluded, expected, "exclude {globs:?}, {}", relative.display());
}

/// Whether each `**` stands by itself between slashes: elsewhere it is two stars.
fn knows_stars(glob: &str) -> bool {
    !glob.is_empty()
        && glob.split('/').all(|part| part == "**" || !part.contains("**"))
        && !glob.starts_with('/')
        && !glob.ends_with('/')
}

fn matches(glob: &[u8], path: &[u8]) -> bool {
    if glob == b"**" {
        return true;
    }
    if let Some(rest) = glob.strip_prefix(b"**/") {
        let below = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at + 1);
        return std::iter::once(0).chain(below).any(|at| matches(rest, &path[at..]));
    }
    match (glob.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            let part = path.iter().take_while(|byte| **byte != b'/').count();
            (0..=part).any(|at| matches(rest, &path[at..]))
        }
        (Some((b'?', glob)), Some((byte, path))) => *byte != b'/' && matches(glob, path),
        (Some((wanted, glob)), Some((byte, path))) => wanted == byte && matches(glob, path),
        _ => false,
    }
}
