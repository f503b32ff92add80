//! A folder of its own for each test, and the command line in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::wait::wait_until;

/// A configuration, a state directory and an inbox that no other test knows.
pub struct Place {
    folder: TempDir,
}

/// What a command came to.
#[derive(Debug)]
pub struct Output {
    /// The exit code; -1 for a signal.
    pub code: i32,
    /// Results.
    pub stdout: String,
    /// Logs and errors.
    pub stderr: String,
}

impl Output {
    /// The one document on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// One document for each line of stdout.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The numbers of the jobs that `add` printed, one a line.
    #[track_caller]
    pub fn ids(&self) -> Vec<i64> {
        let first = |line: &str| line.split(|c: char| !c.is_ascii_digit()).find_map(|word| word.parse().ok());
        self.stdout.lines().map(|line| first(line).unwrap_or_else(|| panic!("no number in {line:?}"))).collect()
    }
}

/// A text inside a JSON value; empty where there is none.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// A number inside a JSON value.
#[track_caller]
pub fn count(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or_else(|| panic!("`{field}` is no number in {value}"))
}

impl Place {
    /// An empty place with an inbox.
    pub fn new() -> Self {
        let place = Self { folder: tempfile::Builder::new().prefix("ingestd-").tempdir().unwrap() };
        fs::create_dir(place.inbox()).unwrap();
        fs::create_dir(place.at("home")).unwrap();
        place
    }

    /// A place with this configuration; see [`Self::configure`].
    pub fn with(configuration: &str) -> Self {
        let place = Self::new();
        place.configure(configuration);
        place
    }

    /// A place with this configuration and a database, for commands before the first daemon.
    #[track_caller]
    pub fn with_database(configuration: &str) -> Self {
        let place = Self::with(configuration);
        place.ok(&["db", "migrate"]);
        place
    }

    /// A path in this place.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder that is watched.
    pub fn inbox(&self) -> PathBuf {
        self.at("inbox")
    }

    /// The database's file.
    pub fn database(&self) -> PathBuf {
        self.at("state/ingestd.db")
    }

    /// The database as the flag wants it.
    pub fn url(&self) -> String {
        format!("sqlite://{}", self.database().display())
    }

    /// What processes have in their environment whose pipeline has `env = { INGESTD_TEST_MARK = "@PLACE@" }`.
    pub fn mark(&self) -> String {
        format!("INGESTD_TEST_MARK={}", self.folder.path().display())
    }

    /// Writes the configuration. `@PLACE@` stands for this folder, and the database is here.
    pub fn configure(&self, configuration: &str) {
        let database = format!("[database]\nurl = \"{}\"\n", self.url());
        let whole = if configuration.contains("[database]\n") {
            configuration.replace("[database]\n", &database)
        } else {
            format!("{database}{configuration}")
        };
        let here = self.folder.path().to_str().unwrap();
        fs::write(self.at("ingestd.toml"), whole.replace("@PLACE@", here)).unwrap();
    }

    /// A file in the inbox, there at once.
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.inbox().join(name);
        super::write_new(&path, content);
        path
    }

    /// A file outside every watch, for `add`.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at("files").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        super::write_new(&path, content);
        path
    }

    /// The program, with an environment that holds nothing of the machine's.
    pub fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ingestd"));
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", self.at("home"));
        command.env("XDG_STATE_HOME", self.at("home/state")).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The program with this place's configuration.
    pub fn configured(&self, arguments: &[&str]) -> Command {
        let mut command = self.program();
        command.args(arguments).arg("--config").arg(self.at("ingestd.toml"));
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> Output {
        finish(&mut self.configured(arguments))
    }

    /// Runs a command that has to succeed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Output {
        self.exits(0, arguments)
    }

    /// Runs a command that has to end with this code.
    #[track_caller]
    pub fn exits(&self, code: i32, arguments: &[&str]) -> Output {
        let output = self.cli(arguments);
        assert_eq!(output.code, code, "ingestd {arguments:?}: {output:?}");
        output
    }

    /// Runs a command with something on stdin.
    #[track_caller]
    pub fn feed(&self, arguments: &[&str], input: &[u8]) -> Output {
        let path = self.at("stdin");
        fs::write(&path, input).unwrap();
        finish(self.configured(arguments).stdin(fs::File::open(path).unwrap()))
    }

    /// Enqueues a file that is not enqueued yet, answers its job.
    #[track_caller]
    pub fn add(&self, path: &Path, arguments: &[&str]) -> i64 {
        let arguments: Vec<&str> = ["add", path.to_str().unwrap()].iter().chain(arguments).copied().collect();
        let ids = self.ok(&arguments).ids();
        assert_eq!(ids.len(), 1);
        ids[0]
    }

    /// Every job, newest first.
    #[track_caller]
    pub fn jobs(&self) -> Vec<Value> {
        self.ok(&["list", "--json", "--limit", "1000000"]).json_lines()
    }

    /// The newest job of the file with this name.
    #[track_caller]
    pub fn newest_of(&self, name: &str) -> Option<Value> {
        self.jobs().into_iter().find(|job| text(job, "path").ends_with(&format!("/{name}")))
    }

    /// One job with its attempts.
    #[track_caller]
    pub fn show(&self, id: i64) -> Value {
        self.ok(&["show", &id.to_string(), "--json"]).json()
    }

    /// Every execution, of every job.
    #[track_caller]
    pub fn history(&self) -> Vec<Value> {
        self.ok(&["history", "--json", "--limit", "1000000"]).json_lines()
    }

    /// `status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.ok(&["status", "--json"]).json()
    }

    /// How many jobs are in a state.
    #[track_caller]
    pub fn in_state(&self, state: &str) -> i64 {
        self.status()["jobs"][state].as_i64().unwrap_or(0)
    }

    /// Waits until so many jobs are in a state.
    #[track_caller]
    pub fn wait_count(&self, state: &str, wanted: usize) {
        let holds = || usize::try_from(self.in_state(state)).is_ok_and(|found| found == wanted);
        wait_until(&format!("{wanted} jobs are {state}"), holds);
    }

    /// Waits until a job is in a state; answers it as `show` does.
    #[track_caller]
    pub fn wait_state(&self, id: i64, state: &str) -> Value {
        super::wait_for(&format!("job {id} is {state}"), || {
            let job = self.show(id);
            (text(&job, "state") == state).then_some(job)
        })
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn finish(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
