//! Walks and looks over real trees with everything in them that a name or an inode can be.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::fake::Bench;
use crate::watch::scan::{Spotted, Visit, Walked, walk};
use crate::watch::tree::{Look, Tree};

fn files(bench: &Bench) -> (BTreeSet<PathBuf>, Walked) {
    let tree = Tree::new(&bench.config, bench.folder.path().join("state")).unwrap();
    let mut found = Vec::new();
    let walked = walk(&tree, &[PathBuf::new()], &mut Gather(&mut found)).unwrap();
    let paths: Vec<_> = found.iter().map(|path| path.as_os_str()).collect();
    assert!(paths.is_sorted(), "{paths:?}");
    (found.into_iter().collect(), walked)
}

/// Gathers the files of a walk.
struct Gather<'a>(&'a mut Vec<PathBuf>);

impl Visit for Gather<'_> {
    fn file(&mut self, file: &Spotted<'_>) {
        self.0.push(file.relative.to_owned());
    }
}

fn named(names: &[&str]) -> BTreeSet<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

#[test]
fn names_of_any_bytes_are_found() {
    let bench = Bench::new(|_| ());
    let names: [&[u8]; 4] = [b"-rf", b"line\nbreak", b"not-utf8-\xff\xfe", b" "];
    for name in names {
        fs::write(bench.path("").join(OsStr::from_bytes(name)), "x").unwrap();
    }
    let expected: BTreeSet<PathBuf> = names.iter().map(|name| PathBuf::from(OsStr::from_bytes(name))).collect();
    assert_eq!(files(&bench).0, expected);
}

#[test]
fn special_files_are_left_alone_and_links_are_not_followed() {
    let bench = Bench::new(|_| ());
    let fifo = bench.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bench.path("socket")).unwrap();
    bench.write("real/a", "x");
    symlink(bench.path("real"), bench.path("link")).unwrap();
    let (found, walked) = files(&bench);
    assert_eq!(found, named(&["real/a"]));
    assert_eq!((walked.special, walked.excluded, walked.errors), (2, 3, 0));
}

#[test]
fn followed_links_end_in_loops_and_never_lead_out() {
    let bench = Bench::new(|watch| watch.follow_symlinks = true);
    bench.write("real/a", "x");
    fs::write(bench.folder.path().join("outside"), "x").unwrap();
    symlink("real", bench.path("link")).unwrap();
    symlink("..", bench.path("real/up")).unwrap();
    symlink(bench.folder.path().join("outside"), bench.path("out")).unwrap();
    symlink("nowhere", bench.path("dangling")).unwrap();
    let (found, walked) = files(&bench);
    assert_eq!(found, named(&["real/a", "link/a"]));
    assert_eq!(walked.errors, 0);
}

#[test]
fn the_state_directory_is_never_entered_whatever_its_name() {
    let bench = Bench::new(|_| ());
    bench.write("a", "x");
    fs::rename(bench.folder.path().join("state"), bench.path("innocent")).unwrap();
    bench.write("innocent/ingestd.db", "x");
    symlink(bench.path("innocent"), bench.folder.path().join("state")).unwrap();
    assert_eq!(files(&bench).0, named(&["a"]));
}

#[test]
fn paths_come_in_the_order_of_their_bytes_however_deep_the_tree() {
    let bench = Bench::new(|_| ());
    for name in ["a/x", "a-b", "a.txt", "a0/y", "a/x-/z", "b"] {
        bench.write(name, "x");
    }
    let deep = vec!["d"; 100].join("/");
    bench.write(&format!("{deep}/bottom"), "x");
    bench.write("d/d/last", "x");
    assert_eq!(files(&bench).0.len(), 8);
}

#[test]
fn excluded_folders_are_not_descended_into_and_recursion_can_be_off() {
    let mut bench = Bench::new(|_| ());
    bench.write("a", "x");
    bench.write(".git/objects/b", "x");
    bench.write("d/c", "x");
    let (found, walked) = files(&bench);
    assert_eq!((found, walked.folders), (named(&["a", "d/c"]), 2));
    bench.config.recursive = false;
    assert_eq!(files(&bench).0, named(&["a"]));
}

#[test]
fn ignore_files_are_obeyed_where_asked_and_the_nearer_one_wins() {
    let mut bench = Bench::new(|watch| watch.exclude.clear());
    bench.write(".gitignore", "*.log\nbuild/\n");
    bench.write("d/.ingestdignore", "!kept.log\n");
    for name in ["a", "a.log", "build/x", "d/kept.log", "d/other.log"] {
        bench.write(name, "x");
    }
    assert_eq!(files(&bench).0.len(), 7);
    bench.config.ignore_files = true;
    assert_eq!(files(&bench).0, named(&[".gitignore", "a", "d/.ingestdignore", "d/kept.log"]));
}

#[test]
fn a_missing_root_is_an_error_and_an_empty_one_is_not() {
    let bench = Bench::new(|_| ());
    assert!(files(&bench).1.empty);
    fs::remove_dir(bench.path("")).unwrap();
    let tree = Tree::new(&bench.config, PathBuf::from("/nonexistent")).unwrap();
    assert!(walk(&tree, &[PathBuf::new()], &mut Gather(&mut Vec::new())).is_err());
}

#[test]
fn an_unreadable_folder_is_told_and_what_it_holds_is_not_gone() {
    if rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: root reads every folder, so this needs another user");
        return;
    }
    let bench = Bench::new(|_| ());
    bench.write("locked/a", "x");
    fs::set_permissions(bench.path("locked"), fs::Permissions::from_mode(0o0)).unwrap();
    let (found, walked) = files(&bench);
    assert!(found.is_empty());
    assert_eq!((walked.errors, walked.first_errors[0].0.as_path()), (1, Path::new("locked")));
    let tree = Tree::new(&bench.config, PathBuf::from("/nonexistent")).unwrap();
    assert!(!tree.view().unwrap().is_gone(Path::new("locked/a")));
    fs::set_permissions(bench.path("locked"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_folder_whose_ignore_file_can_not_be_read_is_unreadable_and_what_it_holds_is_not_gone() {
    let bench = Bench::new(|watch| (watch.ignore_files, watch.exclude) = (true, Vec::new()));
    bench.write("a", "x");
    bench.write("d/b", "x");
    bench.write("d/.gitignore", &"#".repeat((1 << 20) + 1));
    let (found, walked) = files(&bench);
    assert_eq!((found, walked.errors), (named(&["a"]), 1));
    assert_eq!(walked.first_errors[0].0, Path::new("d"));
    bench.write(".gitignore", &"#".repeat((1 << 20) + 1));
    let (found, walked) = files(&bench);
    assert_eq!((found, walked.errors, walked.empty), (named(&[]), 1, false));
    let tree = Tree::new(&bench.config, PathBuf::from("/nonexistent")).unwrap();
    assert!(matches!(tree.examine(Path::new("d/b")).unwrap(), Look::Unreadable(_)));
    assert!(!tree.view().unwrap().is_gone(Path::new("d/b")));
}

/// Puts a link to a folder outside in the place of a folder, as soon as the walk stands before this file.
struct Swap<'a>(&'a Bench, &'a str, Vec<PathBuf>);

impl Visit for Swap<'_> {
    fn file(&mut self, file: &Spotted<'_>) {
        self.2.push(file.relative.to_owned());
        if file.relative.ends_with(self.1) {
            swap(self.0);
        }
    }
}

fn swap(bench: &Bench) {
    fs::rename(bench.path("d"), bench.path("aside")).unwrap();
    symlink(bench.folder.path().join("state"), bench.path("d")).unwrap();
}

#[test]
fn a_folder_that_became_a_link_on_the_way_is_not_gone_back_to() {
    let bench = Bench::new(|_| ());
    let deep = vec!["d"; 70].join("/");
    bench.write(&format!("{deep}/bottom"), "x");
    bench.write("d/last", "x");
    fs::write(bench.folder.path().join("state/last"), "x").unwrap();
    let tree = Tree::new(&bench.config, PathBuf::from("/nonexistent")).unwrap();
    let mut visit = Swap(&bench, "bottom", Vec::new());
    walk(&tree, &[PathBuf::new()], &mut visit).unwrap();
    assert!(visit.2[0].ends_with("bottom"), "{:?}", visit.2);
    assert!(!visit.2.contains(&PathBuf::from("d/last")), "{:?}", visit.2);
}

#[test]
fn a_folder_that_became_a_link_is_not_looked_into() {
    let bench = Bench::new(|_| ());
    bench.write("d/a", "x");
    fs::write(bench.folder.path().join("state/a"), "x").unwrap();
    let tree = Tree::new(&bench.config, bench.folder.path().join("state")).unwrap();
    let view = tree.view().unwrap();
    let level = view.descend(Path::new("d")).unwrap();
    assert!(matches!(view.look_in(&level, Path::new("d/a"), true), Look::File(..)));
    swap(&bench);
    assert!(matches!(view.look_in(&level, Path::new("d/a"), true), Look::Gone));
}
