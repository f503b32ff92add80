//! Names of every byte but `/` and NUL: each alone, in pairs, as long as a name may be, and those that are something to
//! a shell, an option parser, a terminal or our own templates.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use base64::Engine as _;

use crate::oracle::{Oracle, contents};
use crate::scenario::Scenario;
use crate::seed::Seed;
use crate::support::{Daemon, Place, finish, long, text, wait_until};

/// Names that mean something to somebody.
const LOADED: [&[u8]; 26] = [
    b"-rf",
    b"--",
    b"-",
    b"--config",
    b"--config=x",
    b"--help",
    b"{path}",
    b"{job}{path}",
    b"${HOME}",
    b"$(touch pwned)",
    b"`touch pwned`",
    b"; touch pwned",
    b"a\nb",
    b"\r\n",
    b"%s%n%00",
    b"100%",
    b"'\"",
    b"\"quoted\"",
    b"\\",
    b"*",
    b"[a-z]?",
    b"~root",
    b"...",
    b"\x1b]0;title\x07\x1b[31m",
    b"\xe2\x80\xae\xe2\x80\x8b",
    b"caf\xe9 \xff\xfe",
];

/// A watch that excludes nothing but what the oracle writes in passing, and moves what is done.
fn place() -> (Place, Oracle) {
    let place = Place::new();
    let oracle = Oracle::new(&place.at(""), "");
    place.configure(&format!(
        "[pipeline.record]\nkind = \"exec\"\ncommand = {}\nconcurrency = 8\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"20ms\"\nexclude = [\".put.part\"]\n\
         on_success = {{ move = \"@PLACE@/done\" }}\n",
        oracle.command
    ));
    fs::create_dir(place.at("done")).unwrap();
    (place, oracle)
}

fn names(random: &mut fastrand::Rng) -> BTreeSet<Vec<u8>> {
    let all: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    let mut names: BTreeSet<Vec<u8>> = LOADED.iter().map(|name| name.to_vec()).collect();
    names.extend(all.iter().map(|byte| vec![*byte]));
    let mut some = |length: usize| (0..length).map(|_| all[random.usize(..all.len())]).collect::<Vec<u8>>();
    for _ in 0..if long() { 5_000 } else { 120 } {
        names.insert(some(2));
    }
    for _ in 0..if long() { 500 } else { 12 } {
        names.insert(some(255));
    }
    names.retain(|name| name != b"." && name != b"..");
    names
}

#[test]
fn names_of_every_byte_go_their_way_exactly_as_they_are() {
    let seed = Seed::of("resources::names");
    let (place, oracle) = place();
    let scenario = Scenario { place, oracle };
    let (daemon, base) = scenario.at_work();
    let mut random = seed.random();
    let names = names(&mut random);
    for name in &names {
        // Some in a folder whose name is as bad.
        let name = OsStr::from_bytes(name);
        let path = if random.u8(..4) == 0 { PathBuf::from(name).join(name) } else { PathBuf::from("flat").join(name) };
        scenario.oracle.put(&scenario.place.inbox().join(path), name.as_bytes());
    }
    // However long it takes: it never stands still.
    let mut done = 0;
    while done < 1 + names.len() {
        wait_until("there is progress", || scenario.oracle.ended() > done);
        done = scenario.oracle.ended();
    }
    scenario.wait_drained();
    base.wait_back(&daemon, &scenario.place);
    let figures = scenario.oracle.verdict(&scenario.place, 0);
    scenario.oracle.moved(&scenario.place.inbox(), &scenario.place.at("done"));
    assert_eq!(figures.files, 1 + names.len());
    shown_exactly(&scenario);
    assert!(!scenario.place.at("state/work/pwned").exists() && !scenario.place.at("pwned").exists());
    seed.report(format!("{} names, {figures}", names.len()));
}

/// Lists name each file, one line each, and nothing that a terminal would obey.
fn shown_exactly(scenario: &Scenario) {
    let (place, inbox) = (&scenario.place, scenario.place.inbox());
    let bytes = |job: &serde_json::Value| match job["path_base64"].as_str() {
        Some(exact) => base64::engine::general_purpose::STANDARD.decode(exact).unwrap(),
        None => text(job, "path").as_bytes().to_vec(),
    };
    let jobs = place.jobs();
    let listed: BTreeSet<Vec<u8>> = jobs.iter().map(bytes).collect();
    let put: BTreeSet<Vec<u8>> =
        contents(&place.at("done")).into_keys().map(|name| inbox.join(name).into_os_string().into_vec()).collect();
    assert_eq!(listed, put);
    let shown = place.ok(&["list", "--limit", "1000000"]).stdout;
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "a control character reaches the terminal");
    // Each page of a long list has its own head.
    let lines = shown.lines().filter(|line| !line.trim_start().starts_with("ID ")).count();
    assert!(lines <= jobs.len(), "a name takes more than its line: {lines} for {} jobs", jobs.len());
}

#[test]
fn names_that_look_like_options_are_names_to_the_command_line() {
    let seed = Seed::of("resources::names_added");
    let (place, oracle) = place();
    let folder = place.at("files");
    let _daemon = Daemon::start(&place);
    let mut random = seed.random();
    for name in names(&mut random).into_iter().filter(|name| LOADED.contains(&&name[..]) || random.u8(..16) == 0) {
        let name = OsStr::from_bytes(&name);
        // Alone, `-` stands for standard input.
        let relative = if name == "-" { PathBuf::from("./-") } else { PathBuf::from(name) };
        oracle.put(&folder.join(name), name.as_bytes());
        let mut command = place.program();
        command.current_dir(&folder).arg("add").arg("--config").arg(place.at("ingestd.toml")).arg("--").arg(relative);
        let output = finish(&mut command);
        assert_eq!(output.code, 0, "{name:?}: {output:?}");
        oracle.told(&folder.join(name), &output);
    }
    wait_until("all are done", || place.in_state("pending") + place.in_state("running") == 0);
    let figures = oracle.verdict(&place, 0);
    assert_eq!(figures.files, figures.acknowledged);
    seed.report(figures);
}
