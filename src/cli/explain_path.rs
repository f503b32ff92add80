//! `ingestd explain PATH`: which watches cover a path, and what each has to say of it.

use std::io::Write;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::audit::Asked;
use super::context::Context;
use super::explain::Reason;
use super::failure::{Done, Failure};
use super::path_words::{Subject, Words};
use super::screen::clean;
use super::view::{lossy, path_base64};
use super::watch;
use super::watch_view::{self, Known};
use super::{Format, time};
use crate::account::audit::Daemon as _;
use crate::account::file::{Circumstances, OnDisk, reason};
use crate::account::rule::{key, line_of};
use crate::config::{Loaded, Origin, Place, Watch};
use crate::control::{LiveFile, LiveStatus, Stores};
use crate::job::JobId;
use crate::store::Account;
use crate::watch::Rule;
use crate::watch::tree::{Look, Tree};

/// What is said of a path.
#[derive(Serialize)]
struct Explanation {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// One for each watch that covers it.
    watches: Vec<Covered>,
    /// What holds outside the watches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<Reason>,
}

/// What a watch has to say.
#[derive(Serialize)]
struct Covered {
    watch: String,
    pipeline: String,
    relative: String,
    reason: Reason,
}

pub async fn run(path: &Path, format: Format, context: &mut Context) -> Done {
    let path = absolute(path)?;
    let stores = context.read_if_there().await?;
    let live = watch::live(context).await?;
    let all = watch_view::known(context.config()?, stores.as_ref(), live.as_ref()).await?;
    let mut watches = Vec::new();
    for (name, known) in &all {
        let Some(watch) = &known.watch else { continue };
        if let Some(relative) = below(&watch.path, &path) {
            let reason = covered(name, watch, known, &relative, live.as_ref(), stores.as_ref(), context).await?;
            let (watch, pipeline) = (name.clone(), watch.pipeline.clone());
            watches.push(Covered { watch, pipeline, relative: lossy(&relative), reason });
        }
    }
    let mut others = Vec::new();
    if watches.is_empty() {
        others.push(nearest(&path, all.values()));
    }
    if let Some(stores) = &stores {
        others.extend(added(&path, stores, context).await?);
    }
    let explanation = Explanation { path: lossy(&path), path_base64: path_base64(&path), watches, others };
    if format.json {
        context.screen.json(&explanation)?;
        return Ok(0);
    }
    writeln!(context.screen, "{}", clean(&explanation.path))?;
    for covered in &explanation.watches {
        let (watch, line) = (&covered.watch, covered.reason.line());
        writeln!(context.screen, "  watch {watch}: {}", clean(&line))?;
    }
    for other in &explanation.others {
        writeln!(context.screen, "  {}", clean(&other.line()))?;
    }
    Ok(0)
}

/// The path from the root of the filesystem, without `..`. As far as it is there, `..` is meant as the kernel means it,
/// beyond links.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let path = std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("`{}` is not a path: {error}", lossy(path))))?;
    if !path.components().any(|part| part == Component::ParentDir) {
        return Ok(path.components().collect());
    }
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain = plain.canonicalize().unwrap_or(plain);
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    Ok(plain)
}

/// The path relative to this root, if it lies in it: by its name, or by where its folder really is.
fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    if let Ok(relative) = path.strip_prefix(root) {
        return Some(relative.to_owned());
    }
    let root = root.canonicalize().ok()?;
    let real = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize().ok()?.join(name),
        _ => path.to_owned(),
    };
    real.strip_prefix(root).ok().map(Path::to_owned)
}

/// What one watch has to say.
async fn covered(
    name: &str,
    watch: &Watch,
    known: &Known,
    relative: &Path,
    live: Option<&LiveStatus>,
    stores: Option<&Stores>,
    context: &Context,
) -> Result<Reason, Failure> {
    let loaded = context.loaded()?;
    let tree = Tree::new(watch, loaded.config.state_directory()).map_err(|error| Failure::usage(error.to_string()))?;
    let now = context.screen.now;
    let words = Words { name, watch, known, loaded, now };
    let (decided, look) = match look(&tree, relative) {
        Ok(looked) => looked,
        Err(error) => return Ok(words.no_root(&error)),
    };
    let circumstances = Circumstances::of(name, watch, known.view.paused, live, now);
    let daemon = match live {
        Some(_) => context.daemon().await?.map(Asked),
        None => None,
    };
    let told = match daemon {
        Some(mut daemon) => daemon.files(name, &[relative.to_owned()]).await.and_then(|mut told| told.pop()),
        None => None,
    };
    let on_disk = match look {
        Look::Folder => return Ok(words.folder(&circumstances, told.as_ref())),
        Look::File(identity, writers) => OnDisk::File(identity, writers),
        Look::Excluded(rule) => OnDisk::Excluded(rule),
        Look::Unreadable(why) => OnDisk::Unreadable(why.to_string()),
        Look::Gone => OnDisk::Gone,
    };
    let account = account(name, watch, relative, stores).await?;
    let job = match (stores, account.as_ref().and_then(|account| account.taken)) {
        (Some(stores), Some(taken)) => stores.browse.job(taken.job).await?,
        _ => None,
    };
    let why = reason(&on_disk, account.as_ref(), told.as_ref(), &circumstances);
    let subject = Subject {
        relative,
        decided: (decided != relative).then_some(decided.as_path()),
        on_disk: &on_disk,
        account: account.as_ref(),
        job: job.as_ref(),
        told: told.as_ref(),
        circumstances: &circumstances,
    };
    Ok(words.file(why.as_ref(), &subject))
}

async fn account(
    name: &str,
    watch: &Watch,
    relative: &Path,
    stores: Option<&Stores>,
) -> Result<Option<Account>, Failure> {
    let Some(stores) = stores else { return Ok(None) };
    let asked = vec![relative.to_owned()];
    Ok(stores.accounts.accounts_of(name, &watch.pipeline, asked).await?.pop().flatten())
}

/// Looks at the path as the watch does, and answers which part of it decided: a folder above it that is left out, or
/// the path itself.
fn look(tree: &Tree, relative: &Path) -> std::io::Result<(PathBuf, Look)> {
    let mut above: Vec<&Path> = relative.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
    above.reverse();
    if relative.as_os_str().is_empty() {
        // The root itself is judged by no rule; only whether it is there.
        return tree.examine(relative).map(|_| (PathBuf::new(), Look::Folder));
    }
    for folder in above {
        match tree.examine(folder)? {
            Look::Folder => (),
            Look::File(..) | Look::Gone => return Ok((folder.to_owned(), Look::Gone)),
            decided => return Ok((folder.to_owned(), decided)),
        }
    }
    // A FIFO is not opened, and a file only to ask who writes it.
    tree.examine(relative).map(|look| (relative.to_owned(), look))
}

/// A job that somebody made of this file by naming it.
async fn added(path: &Path, stores: &Stores, context: &Context) -> Result<Option<Reason>, Failure> {
    let Some(id) = stores.accounts.added(path).await? else { return Ok(None) };
    let Some(job) = stores.browse.job(id).await? else { return Ok(None) };
    let at = job.finished_at.map_or_else(String::new, |at| format!(" {}", time::relative(at, context.screen.now)));
    let text = format!("it was added by its name: job {id}, {}{at}", job.state.name());
    Ok(Some(Reason::new("added", text).jobs(vec![JobId(id.0)])))
}

/// The watch that comes nearest to a path that none covers, and why it does not.
fn nearest<'a>(path: &Path, all: impl Iterator<Item = &'a Known>) -> Reason {
    let shared = |watch: &Watch| watch.path.components().zip(path.components()).take_while(|(a, b)| a == b).count();
    let nearest = all
        .filter_map(|known| Some((known.view.name.as_str(), known.watch.as_ref()?)))
        .max_by_key(|(_, watch)| shared(watch));
    let text = match nearest {
        None => "no watch covers it, because there is none".to_owned(),
        Some((name, watch)) if watch.path.starts_with(path) => {
            format!("no watch covers it; watch {name} is on {}, which lies in it", watch.path.display())
        }
        Some((name, watch)) => {
            format!(
                "no watch covers it; the nearest is watch {name} on {}, and it does not lie in that",
                watch.path.display()
            )
        }
    };
    Reason::new("not-covered", text)
}

/// Where a rule of a watch stands; `None`: it is built in.
pub fn place_of(rule: &Rule, name: &str, watch: &Watch, known: &Known, loaded: &Loaded) -> Option<Place> {
    if let Rule::IgnoreFile { file, pattern } = rule {
        let line = std::fs::read(file).ok().and_then(|text| line_of(pattern, &text));
        return Some(Place { origin: Origin::File(file.clone()), line });
    }
    let (key, item) = key(rule, watch)?;
    Some(place_of_key(key, item, name, watch, known, loaded))
}

/// Where a key of a watch stands.
pub fn place_of_key(
    key: &str,
    item: Option<usize>,
    name: &str,
    watch: &Watch,
    known: &Known,
    loaded: &Loaded,
) -> Place {
    if known.view.origin == "file" {
        return loaded.place(&["watch", name, key], item);
    }
    let default = super::view::watch(&Watch::of(PathBuf::new(), String::new()));
    let own = super::view::watch(watch);
    Place::of(if own.get(key) == default.get(key) { Origin::Default } else { Origin::Definition })
}

/// When a file's next scan by time comes, as the daemon tells it.
pub fn next_scan(told: Option<&LiveFile>) -> Option<crate::clock::Timestamp> {
    told.and_then(|told| told.next_scan_at_ms).map(crate::clock::Timestamp::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_below_a_root_by_name_and_through_links() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("real/sub")).unwrap();
        std::os::unix::fs::symlink("real", root.join("link")).unwrap();
        let relative = |a: &str, b: &str| below(&root.join(a), &root.join(b));
        assert_eq!(relative("real", "real/sub/x"), Some(PathBuf::from("sub/x")));
        assert_eq!(relative("real", "link/sub/x"), Some(PathBuf::from("sub/x")));
        assert_eq!(relative("link", "real/none"), Some(PathBuf::from("none")));
        assert_eq!(relative("real", "real"), Some(PathBuf::new()));
        assert_eq!(relative("real", "realm/x"), None);
    }

    #[test]
    fn two_dots_mean_what_the_kernel_means_by_them() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a/b", root.join("link")).unwrap();
        assert_eq!(absolute(&root.join("link/../x")).unwrap(), root.join("a/x"));
        assert_eq!(absolute(&root.join("none/../x/")).unwrap(), root.join("x"));
        assert_eq!(absolute(&root.join("a//b/./c")).unwrap(), root.join("a/b/c"));
    }
}
