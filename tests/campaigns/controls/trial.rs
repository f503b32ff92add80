//! A copy of the sources, made wrong, built, and put to a test.
//!
//! 1. The copy always stands at the same place (`target/controls/sources`), so that what cargo built of the one before
//!    serves the next, and only what a patch touches is built anew. One trial at a time has it.
//! 2. Building and running are two steps: what does not compile proves nothing, and says so.
//! 3. A run has an end. Wrong code may hang, and a test that hangs has noticed nothing: it is killed, with everything
//!    that it started in its process group, and counts as missed.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// What stays behind when the sources are copied.
const NOT_SOURCES: [&str; 2] = ["target", ".git"];
/// Longer than the longest test that a control names, on a slow machine.
const PATIENCE: Duration = Duration::from_mins(10);
/// The first build takes all dependencies along.
const BUILDING: Duration = Duration::from_hours(2);
const PAUSE: Duration = Duration::from_millis(100);

/// How a trial ended.
pub enum Ending {
    /// The test failed, with these words.
    Noticed(String),
    /// The test succeeded.
    Passed,
    /// The test succeeded because it was skipped, for this reason.
    Skipped(String),
    /// There is no such test.
    NoTest,
    /// What was made wrong does not compile.
    NotBuilt,
    /// The test had not ended after [`PATIENCE`].
    Hung,
    /// The process of the tests ended before its test did.
    Died,
}

impl Ending {
    /// One or two words for it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Noticed(_) => "noticed",
            Self::Passed => "NOT noticed",
            Self::Skipped(_) => "SKIPPED",
            Self::NoTest => "NOT tested",
            Self::NotBuilt => "NOT built",
            Self::Hung => "HUNG",
            Self::Died => "DIED",
        }
    }

    /// What the output of a test that ran alone says of it.
    fn of(test: &str, said: &str) -> Self {
        let ended = |word: &str| said.lines().any(|line| line == format!("test {test} ... {word}"));
        if ended("FAILED") {
            return Self::Noticed(words(said));
        }
        match said.lines().find_map(|line| line.strip_prefix("skipped: ")) {
            Some(why) if ended("ok") => Self::Skipped(why.to_owned()),
            None if ended("ok") => Self::Passed,
            _ if said.lines().any(|line| line == "running 0 tests") => Self::NoTest,
            _ => Self::Died,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noticed(words) => f.write_str(words),
            Self::Passed => f.write_str("the test succeeded"),
            Self::Skipped(why) => write!(f, "the test was skipped: {why}"),
            Self::NoTest => f.write_str("there is no such test"),
            Self::NotBuilt => f.write_str("the copy does not compile"),
            Self::Hung => write!(f, "the test was killed after {PATIENCE:?}; to hang is not to notice"),
            Self::Died => f.write_str("the tests died before this one had ended"),
        }
    }
}

/// The first words of the first panic: the line after its place.
fn words(said: &str) -> String {
    let mut lines = said.lines().skip_while(|line| !line.contains(" panicked at ")).skip(1);
    let line = lines.next().unwrap_or("it did not say why");
    line.chars().take(150).collect()
}

/// The place where copies are tried, one at a time.
pub struct Trial<'a> {
    sources: &'a Path,
    folder: PathBuf,
    /// Unlocked when it is closed.
    _turn: File,
}

impl<'a> Trial<'a> {
    /// Waits until nobody else tries anything there.
    pub fn begin(sources: &'a Path) -> Self {
        let folder = sources.join("target/controls");
        fs::create_dir_all(&folder).unwrap();
        let turn = File::create(folder.join("turn")).unwrap();
        turn.lock().unwrap();
        Self { sources, folder, _turn: turn }
    }

    /// A fresh copy of the sources.
    pub fn copy(&self) -> PathBuf {
        let copy = self.folder.join("sources");
        let _ = fs::remove_dir_all(&copy);
        copy_sources(self.sources, &copy);
        copy
    }

    /// Builds the copy and runs one test of one binary; answers how that ended, how long the test took, and what was
    /// said.
    pub fn run(&self, binary: &str, test: &str, long: bool) -> (Ending, Duration, String) {
        let (built, said) = self.cargo(&[binary, "--no-run"], false, BUILDING);
        if !built.is_some_and(|status| status.success()) {
            return (Ending::NotBuilt, Duration::ZERO, said);
        }
        let begun = Instant::now();
        let (ended, said) = self.cargo(&[binary, "--", "--exact", test, "--show-output"], long, PATIENCE);
        let ending = if ended.is_some() { Ending::of(test, &said) } else { Ending::Hung };
        (ending, begun.elapsed(), said)
    }

    /// `None`: it was killed because it had not ended in time.
    fn cargo(&self, arguments: &[&str], long: bool, patience: Duration) -> (Option<ExitStatus>, String) {
        let said = self.folder.join("said");
        let output = File::create(&said).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .current_dir(self.folder.join("sources"))
            .args(["test", "--locked", "--offline", "--test"])
            .args(arguments);
        cargo.env("CARGO_TARGET_DIR", &self.folder).env_remove("INGESTD_LONG");
        for limit in ["INGESTD_SEED", "INGESTD_PART", "INGESTD_MINUTES"] {
            cargo.env_remove(limit);
        }
        // That the model test fails is enough; nobody reads the shortest sequence.
        cargo.env("INGESTD_MODEL_SHRINK", "5");
        if long {
            cargo.env("INGESTD_LONG", "1");
        }
        cargo.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).process_group(0);
        let mut child = cargo.spawn().unwrap();
        let begun = Instant::now();
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if begun.elapsed() > patience {
                kill_process_group(Pid::from_child(&child), Signal::KILL).unwrap();
                child.wait().unwrap();
                break None;
            }
            std::thread::sleep(PAUSE);
        };
        (ended, String::from_utf8_lossy(&fs::read(said).unwrap()).into_owned())
    }
}

/// Copies the sources; the newer file times make cargo build what was patched.
pub fn copy_sources(from: &Path, to: &Path) {
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
fn only_a_test_that_ran_and_failed_has_noticed() {
    let kind = |said: &str| Ending::of("a::b", said).kind();
    let failed = "running 1 test\ntest a::b ... FAILED\n\n---- a::b stdout ----\n\nthread 'a::b' (7) panicked at x.rs:1:2:\nlost\n";
    assert_eq!(kind(failed), "noticed");
    assert_eq!(words(failed), "lost");
    assert_eq!(kind("running 1 test\ntest a::b ... ok\n"), "NOT noticed");
    assert_eq!(kind("running 1 test\ntest a::b ... ok\n---- a::b stdout ----\nskipped: a::b, because\n"), "SKIPPED");
    assert_eq!(kind("running 0 tests\n"), "NOT tested");
    assert_eq!(kind("running 1 test\n(signal: 6, SIGABRT)\n"), "DIED");
}
