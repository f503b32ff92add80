//! `ingestd sync`: lists of every shape, killed and resumed anywhere, and what is told of them.

mod lines;
mod resume;
mod steer;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use serde_json::Value;

use crate::support::*;

/// A pipeline that does nothing, beside these keys.
fn noop(keys: &str) -> String {
    format!("[pipeline.p]\nkind = \"noop\"\nconcurrency = 8\n{keys}\n")
}

/// A list of so many files that are there.
fn list_of(place: &Place, number: usize) -> PathBuf {
    let folder = place.at("files");
    fs::create_dir_all(&folder).unwrap();
    let mut list = String::new();
    for n in 0..number {
        let path = folder.join(format!("{n:05}"));
        fs::write(&path, n.to_string()).unwrap();
        list.push_str(path.to_str().unwrap());
        list.push('\n');
    }
    let path = place.at("list.txt");
    fs::write(&path, list).unwrap();
    path
}

/// A command that goes on beside the test; dropped, it is killed.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// kill -9; `false`: it had ended before.
    fn kill(&mut self) -> bool {
        let alive = self.0.try_wait().unwrap().is_none();
        let _ = self.0.kill();
        self.0.wait().unwrap();
        alive
    }

    /// Waits for its end.
    #[track_caller]
    fn finish(mut self) -> Output {
        use std::io::Read;
        let status = wait_for("the command ends", || self.0.try_wait().unwrap());
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Output { code: status.code().unwrap_or(-1), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn run_of(place: &Place, id: i64) -> Value {
    place.ok(&["runs", "show", &id.to_string(), "--json"]).json()
}

/// Waits until a run is in a state; answers it.
#[track_caller]
fn run_in(place: &Place, id: i64, state: &str) -> Value {
    wait_for(&format!("run {id} is {state}"), || {
        let run = run_of(place, id);
        (text(&run, "state") == state).then_some(run)
    })
}

fn numbers<const N: usize>(run: &Value, fields: [&str; N]) -> [i64; N] {
    fields.map(|field| count(run, field))
}

/// How often each file was done, by the history: a record of executions, each with its end.
fn done(place: &Place) -> BTreeMap<String, usize> {
    let mut done = BTreeMap::new();
    for execution in place.history() {
        if text(&execution, "outcome") == "completed" {
            *done.entry(text(&execution, "path").to_owned()).or_default() += 1;
        }
    }
    done
}

/// Each line of a list was done exactly once, and is one job that knows its line.
#[track_caller]
fn each_line_once(place: &Place, number: usize) {
    let done = done(place);
    let path = |n: usize| place.at(format!("files/{n:05}")).to_str().unwrap().to_owned();
    let wrong: Vec<String> = (0..number).map(path).filter(|path| done.get(path) != Some(&1)).take(5).collect();
    assert!(wrong.is_empty() && done.len() == number, "{} were done, and not once: {wrong:?}", done.len());
    let jobs = place.jobs();
    let mut lines: Vec<i64> = jobs.iter().map(|job| count(job, "line")).collect();
    lines.sort_unstable();
    assert!(lines.into_iter().eq(1..=i64::try_from(number).unwrap()), "a line became no job, or two");
}
