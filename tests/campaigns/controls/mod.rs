//! Negative controls: a campaign that can't fail proves nothing.
//!
//! 1. Each `NAME.patch` beside this file makes the code wrong in one place. Its head says which test has to fail then:
//!    `# fails: MODULE::TEST` (`# fails: suite MODULE::TEST` for one of the suite), and `# long` where only the long
//!    form of that test is sure to notice.
//! 2. The quick form looks that every patch still fits the code.
//! 3. The long form (`INGESTD_LONG=1 cargo test --test campaigns -- controls::`) applies each to a copy of the
//!    sources, builds that, and runs the test (`INGESTD_CONTROL=fence` asks for those with this in their name). A test that passes, or a copy that doesn't compile, fails the control.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{has_tools, long, run};

/// What stays behind when the sources are copied.
const NOT_SOURCES: [&str; 3] = ["target", ".git", "fuzz"];

/// A way of making the code wrong.
struct Control {
    patch: PathBuf,
    /// The binary of the test: `campaigns` or `suite`.
    binary: &'static str,
    /// The test that has to fail with it.
    fails: String,
    /// Whether that needs the test's long form.
    long: bool,
}

impl Control {
    fn read(patch: PathBuf) -> Self {
        let text = fs::read_to_string(&patch).unwrap();
        let fails = text.lines().find_map(|line| line.strip_prefix("# fails: "));
        let fails = fails.unwrap_or_else(|| panic!("{} has no line `# fails: MODULE::TEST`", patch.display())).trim();
        let (binary, fails) = fails.strip_prefix("suite ").map_or(("campaigns", fails), |test| ("suite", test));
        Self { binary, fails: fails.to_owned(), long: text.lines().any(|line| line == "# long"), patch }
    }

    fn name(&self) -> String {
        self.patch.file_stem().unwrap().to_string_lossy().into_owned()
    }

    /// `git apply` in a folder that is no repository.
    fn apply(&self, folder: &Path, check: bool) {
        let mut git = Command::new("git");
        // Without this a folder below a repository is taken for a part of it, and nothing is applied.
        git.current_dir(folder).env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap()).arg("apply");
        run(git.args(check.then_some("--check")).arg(&self.patch));
    }

    /// Runs the test with the code made wrong; answers whether it noticed, and what it said.
    fn is_noticed(&self, copy: &Path) -> (bool, String) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(copy).args([
            "test",
            "--locked",
            "--offline",
            "--test",
            self.binary,
            "--",
            "--exact",
            &self.fails,
        ]);
        cargo.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_MANIFEST_DIR")).join("target/controls"));
        cargo.env_remove("INGESTD_LONG").env_remove("INGESTD_SEED").stdin(Stdio::null());
        if self.long {
            cargo.env("INGESTD_LONG", "1");
        }
        let output = cargo.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let whole = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
        (said.contains(&format!("test {} ... FAILED", self.fails)), whole)
    }
}

fn controls() -> Vec<Control> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/campaigns/controls");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut patches: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "patch")).collect();
    let wanted = std::env::var("INGESTD_CONTROL").unwrap_or_default();
    patches.retain(|patch| patch.file_stem().is_some_and(|name| name.to_string_lossy().contains(&wanted)));
    patches.sort();
    patches.into_iter().map(Control::read).collect()
}

/// Copies the sources; the newer file times make cargo build what was patched.
fn copy_sources(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        if NOT_SOURCES.iter().any(|left| name == *left) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy_sources(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn every_control_fits_the_code() {
    if !has_tools(&["git"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    copy_sources(Path::new(env!("CARGO_MANIFEST_DIR")), &copy);
    let controls = controls();
    assert!(!controls.is_empty());
    for control in controls {
        control.apply(&copy, true);
    }
}

#[test]
fn every_control_is_noticed_by_its_campaign() {
    if !long() || !has_tools(&["git"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut noticed, mut missed) = (0, Vec::new());
    for control in controls() {
        let copy = folder.path().join("copy");
        copy_sources(Path::new(env!("CARGO_MANIFEST_DIR")), &copy);
        control.apply(&copy, false);
        let (found, said) = control.is_noticed(&copy);
        eprintln!("{}: {} by {}", control.name(), if found { "noticed" } else { "NOT noticed" }, control.fails);
        if found {
            noticed += 1;
        } else {
            missed.push(format!("{}: {said}", control.name()));
        }
        fs::remove_dir_all(&copy).unwrap();
    }
    assert!(missed.is_empty(), "{noticed} controls were noticed; not these:\n{}", missed.join("\n\n"));
}
