//! Programs of the system that tests use.

use std::path::Path;
use std::process::{Command, Stdio};

/// Whether all of them are installed; says aloud which test is skipped for want of which.
pub fn has_tools(names: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |name: &&&str| {
        let absolute = Path::new(name).is_absolute() && Path::new(name).exists();
        absolute || std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
    };
    let missing: Vec<_> = names.iter().filter(|name| !there(name)).collect();
    if !missing.is_empty() {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        eprintln!("skipped: {test}, because {missing:?} is not installed");
    }
    missing.is_empty()
}

/// Runs a program that has to succeed.
#[track_caller]
pub fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}
