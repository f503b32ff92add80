//! Negative controls: a campaign that can't fail proves nothing.
//!
//! 1. Each `NAME.patch` beside this file makes the code wrong in one place. Its head says which test has to fail then:
//!    `# fails: MODULE::TEST` (`# fails: suite MODULE::TEST` for one of the suite), and `# long` where only the long
//!    form of that test is sure to notice.
//! 2. The quick form looks that every patch still fits the code, and that every test it names is there.
//! 3. The long form (`INGESTD_LONG=1 cargo test --test campaigns -- controls:: --nocapture`) applies each to a copy of
//!    the sources, builds that, and runs the test ([`Trial`]). Only a test that ran and failed has noticed; the report
//!    says by which words. `INGESTD_CONTROL=fence` asks for those with this in their name.

mod trial;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{has_tools, long, run};
use trial::{Ending, Trial};

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

    /// Whether the test that it names is in the sources, by its module's file.
    fn names_a_test(&self) -> bool {
        let Some((module, test)) = self.fails.rsplit_once("::") else { return false };
        let module = sources().join("tests").join(self.binary).join(module.replace("::", "/"));
        let declared = format!("fn {test}(");
        [module.with_extension("rs"), module.join("mod.rs")]
            .iter()
            .any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(&declared)))
    }
}

fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn controls() -> Vec<Control> {
    let entries = fs::read_dir(sources().join("tests/campaigns/controls")).unwrap().map(|entry| entry.unwrap().path());
    let mut patches: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "patch")).collect();
    let wanted = std::env::var("INGESTD_CONTROL").unwrap_or_default();
    patches.retain(|patch| patch.file_stem().is_some_and(|name| name.to_string_lossy().contains(&wanted)));
    patches.sort();
    assert!(!patches.is_empty(), "no control has {wanted:?} in its name");
    patches.into_iter().map(Control::read).collect()
}

#[test]
fn every_control_fits_the_code_and_names_a_test() {
    if !has_tools(&["git"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    trial::copy_sources(sources(), &copy);
    for control in controls() {
        control.apply(&copy, true);
        assert!(control.names_a_test(), "{}: there is no test {}", control.name(), control.fails);
    }
}

#[test]
fn every_control_is_noticed_by_its_campaign() {
    if !long() || !has_tools(&["git"]) {
        return;
    }
    let trial = Trial::begin(sources());
    let mut endings: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut missed = Vec::new();
    for control in controls() {
        control.apply(&trial.copy(), false);
        let (ending, took, said) = trial.run(control.binary, &control.fails, control.long);
        eprintln!("{}: {} by {} in {} s: {ending}", control.name(), ending.kind(), control.fails, took.as_secs());
        *endings.entry(ending.kind()).or_default() += 1;
        if !matches!(ending, Ending::Noticed(_)) {
            missed.push(format!("{}: {ending}\n{said}", control.name()));
        }
    }
    eprintln!("controls: {endings:?}");
    assert!(missed.is_empty(), "{} controls were not noticed:\n{}", missed.len(), missed.join("\n\n"));
}
