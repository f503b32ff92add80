//! How watches stand to each other, to the pipelines and to the state directory.
//!
//! It works on finished values, so that watches from the database are held to the same rules as those of the file.
//! Paths are compared as the filesystem resolves them, as far as they exist; what doesn't exist is taken as written.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use globset::GlobSet;

use super::globs::{self, matcher, never_ready, nothing_passes};
use super::layers::join;
use super::report::Problem;
use super::sections::Pipeline;
use super::values::quote;
use super::watch_section::{Disposal, Watch};

/// Everything that is wrong with these watches, beyond what each key allows by itself:
///
/// 1. a path that is relative, a file or the root of the filesystem, a glob that does not parse, filters that let
///    nothing pass;
/// 2. a pipeline that no one defined;
/// 3. a watch on the state directory or in it (one around it is fine, the state directory is left out);
/// 4. two watches on one tree with one pipeline;
/// 5. a move into a watched tree whose filters let the moved files in.
pub fn check_watches(
    watches: &BTreeMap<String, Watch>,
    pipelines: &BTreeMap<String, Pipeline>,
    state_directory: &Path,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let roots: BTreeMap<&str, PathBuf> =
        watches.iter().map(|(name, watch)| (name.as_str(), resolve(&watch.path))).collect();
    let state = resolve(state_directory);
    for (name, watch) in watches {
        let key = |key: &str| join(&join("watch", name), key);
        problems.extend(
            check_root(watch, &state)
                .map(|message| Problem::new(key("path"), message).found(quote(&watch.path.to_string_lossy()))),
        );
        if !pipelines.contains_key(&watch.pipeline) {
            let known = pipelines.keys().map(String::as_str);
            let allowed = if pipelines.is_empty() { "none is defined".to_owned() } else { names(pipelines) };
            let problem = Problem::new(key("pipeline"), "there is no such pipeline").found(quote(&watch.pipeline));
            problems.push(problem.allowed(allowed).nearest(&watch.pipeline, known));
        }
        for (list, globs) in [("include", &watch.include), ("exclude", &watch.exclude)] {
            if let Err(message) = globs::set(globs) {
                problems.push(Problem::new(key(list), message).found(toml_list(globs)));
                continue;
            }
            for (index, glob) in globs.iter().enumerate() {
                if let Err(message) = matcher(glob) {
                    problems.push(Problem::new(format!("{}[{index}]", key(list)), message).found(quote(glob)));
                }
            }
        }
        if nothing_passes(watch) {
            let message = "no file could ever be taken: exclude, which wins, covers all that include lets pass";
            problems.push(Problem::new(key("include"), message).found(toml_list(&watch.include)));
        }
        problems.extend(
            never_ready(watch)
                .map(|message| Problem::new(key("ready_suffix"), message).found(quote(&watch.ready_suffix))),
        );
        problems.extend(
            shared_tree(name, watches, &roots)
                .map(|message| Problem::new(key("path"), message).found(quote(&watch.path.to_string_lossy()))),
        );
        for (disposal, target) in [("on_success", &watch.on_success), ("on_failure", &watch.on_failure)] {
            if let Disposal::Move(target) = target {
                problems.extend(
                    check_target(target, watches, &roots)
                        .map(|message| Problem::new(key(disposal), message).found(quote(&target.to_string_lossy()))),
                );
            }
        }
    }
    problems
}

/// The roots that are there and that this process may not list. A daemon waits for them as for a missing folder, so
/// this is for whoever asks beforehand: `watch add` and `config check`.
pub fn check_access(watches: &BTreeMap<String, Watch>) -> Vec<Problem> {
    let check = |(name, watch): (&String, &Watch)| {
        let message = denied(&watch.path)?;
        let problem = Problem::new(join(&join("watch", name), "path"), message);
        Some(problem.found(quote(&watch.path.to_string_lossy())))
    };
    watches.iter().filter_map(check).collect()
}

/// What keeps this process from listing a folder that is there, in words.
pub(super) fn denied(folder: &Path) -> Option<String> {
    let error = std::fs::read_dir(folder).err().filter(|error| error.kind() == io::ErrorKind::PermissionDenied)?;
    Some(format!(
        "can't be listed by this user, with the id {} ({error}); the user of the daemon has to be able to read it and \
         to enter it and all folders above it: give it access, or ask as that user",
        rustix::process::geteuid().as_raw()
    ))
}

fn names(pipelines: &BTreeMap<String, Pipeline>) -> String {
    pipelines.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn toml_list(globs: &[String]) -> String {
    let quoted: Vec<String> = globs.iter().map(|glob| quote(glob)).collect();
    format!("[{}]", quoted.join(", "))
}

fn check_root(watch: &Watch, state: &Path) -> Option<String> {
    if !watch.path.is_absolute() {
        return Some("is not an absolute path".to_owned());
    }
    if let Ok(meta) = std::fs::metadata(&watch.path)
        && !meta.is_dir()
    {
        let name = watch.path.file_name().map(Path::new).filter(|_| meta.is_file());
        let hint =
            name.map(|name| format!("; watch the folder it is in, and include {}", quote(&name.to_string_lossy())));
        return Some(format!("is not a folder{}", hint.unwrap_or_default()));
    }
    let root = resolve(&watch.path);
    if root.parent().is_none() {
        let why = "is the root of the filesystem: every file of the system would become a job, and /proc, /sys and \
                   /dev never rest; watch the folders in which files arrive, each by a watch of its own";
        return Some(why.to_owned());
    }
    let inside = root.starts_with(state);
    inside.then(|| format!("lies in ingestd's own folder {}, which is never watched", state.display()))
}

/// The first watch, by name, that this one shares a tree and a pipeline with. Only the later of two says so.
fn shared_tree(name: &str, watches: &BTreeMap<String, Watch>, roots: &BTreeMap<&str, PathBuf>) -> Option<String> {
    let (watch, root) = (watches.get(name)?, roots.get(name)?);
    let earlier = watches.iter().take_while(|(other, _)| other.as_str() != name);
    for (other_name, other) in earlier.filter(|(_, other)| other.pipeline == watch.pipeline) {
        let Some(other_root) = roots.get(other_name.as_str()) else { continue };
        let (outer, relative) = match (root.strip_prefix(other_root), other_root.strip_prefix(root)) {
            (Ok(relative), _) => (other, relative),
            (_, Ok(relative)) => (watch, relative),
            _ => continue,
        };
        if reaches(outer, relative) {
            let instead = if relative.as_os_str().is_empty() {
                "or make one watch of them that includes what both do".to_owned()
            } else {
                format!("or let the outer one exclude the inner with {}", quote(&format!("{}/**", relative.display())))
            };
            return Some(format!(
                "watch {other_name} sees the same files for pipeline {}; give one of them another pipeline, {instead}",
                watch.pipeline
            ));
        }
    }
    None
}

fn check_target(target: &Path, watches: &BTreeMap<String, Watch>, roots: &BTreeMap<&str, PathBuf>) -> Option<String> {
    if !target.is_absolute() {
        return Some("is not an absolute path".to_owned());
    }
    let target = resolve(target);
    watches.iter().find_map(|(name, watch)| {
        let relative = target.strip_prefix(roots.get(name.as_str())?).ok()?;
        reaches(watch, relative).then(|| {
            let exclude = format!("{}/**", relative.display());
            let hint = if relative.as_os_str().is_empty() {
                "choose a folder outside it".to_owned()
            } else {
                format!("choose a folder outside it, or let it exclude {}", quote(&exclude))
            };
            format!("lies in the tree of watch {name}, which would take the file again; {hint}")
        })
    })
}

/// Whether a watch sees files in the folder at this path relative to its root.
fn reaches(watch: &Watch, folder: &Path) -> bool {
    if folder.as_os_str().is_empty() {
        return true;
    }
    let too_deep = watch.max_depth.is_some_and(|levels| folder.components().count() >= levels as usize);
    watch.recursive && !too_deep && !excludes(watch, folder) && includes_below(watch, folder)
}

/// Whether some pattern excludes the folder, one around it, or everything in it.
fn excludes(watch: &Watch, folder: &Path) -> bool {
    let anything = folder.join("0");
    let matchers: Vec<GlobSet> = watch.exclude.iter().filter_map(|glob| matcher(glob).ok()).collect();
    let around = anything.ancestors().filter(|path| !path.as_os_str().is_empty());
    around.into_iter().any(|path| matchers.iter().any(|matcher| matcher.is_match(path)))
}

/// Whether some pattern may include a file below the folder. When in doubt, it may.
fn includes_below(watch: &Watch, folder: &Path) -> bool {
    watch.include.is_empty() || watch.include.iter().any(|glob| may_match_below(glob, folder))
}

/// Walks pattern and folder side by side, one component at a time, up to the first `**`.
fn may_match_below(glob: &str, folder: &Path) -> bool {
    // A class or a choice may hold a separator; then components can't be told apart.
    if glob.contains(['{', '[', '\\']) {
        return true;
    }
    let mut patterns = glob.split('/');
    for component in folder.components() {
        match patterns.next() {
            None => return false,
            Some("**") => return true,
            Some(pattern) => {
                let matches = |matcher: GlobSet| matcher.is_match(Path::new(&component));
                if !matcher(pattern).map_or(true, matches) {
                    return false;
                }
            }
        }
    }
    patterns.next().is_some()
}

/// The path without links, as far as it exists; the rest without `.` and `..`.
fn resolve(path: &Path) -> PathBuf {
    for existing in path.ancestors() {
        if let (Ok(found), Ok(rest)) = (existing.canonicalize(), path.strip_prefix(existing)) {
            return normal(&found.join(rest));
        }
    }
    normal(path)
}

fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}
