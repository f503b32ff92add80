//! Somebody who may write into a watched folder, or reach the control socket, and nothing more.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::*;

/// What nobody may read through us.
const SECRET: &str = "for the owner's eyes";

/// A watch whose files are copied into `seen`, with these settings, and a folder beside it that only the daemon reads.
fn place(watch: &str) -> Place {
    let place = Place::new();
    place.configure(&format!(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"cat \\\"$1\\\" >> @PLACE@/seen\", \"-\", \"{{path}}\"]\n\
         retry = {{ max_attempts = 2, base = \"10ms\", max = \"10ms\" }}\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n{watch}"
    ));
    for folder in ["secret", "done", "inbox/sub"] {
        fs::create_dir_all(place.at(folder)).unwrap();
    }
    fs::write(place.at("secret/a"), SECRET).unwrap();
    place
}

fn seen(place: &Place) -> String {
    fs::read_to_string(place.at("seen")).unwrap_or_default()
}

fn assert_untouched(place: &Place) {
    assert_eq!(fs::read_to_string(place.at("secret/a")).unwrap(), SECRET);
    assert_eq!(fs::read_dir(place.at("secret")).unwrap().count(), 1, "nothing was put there");
    assert!(!seen(place).contains(SECRET), "it was read");
}

#[test]
fn a_folder_swapped_for_a_link_leads_to_nothing_that_is_read_moved_or_deleted() {
    for watch in [
        "on_success = \"delete\"",
        "on_success = { move = \"@PLACE@/done\" }",
        "on_success = { move = \"@PLACE@/done\" }\nfollow_symlinks = true",
    ] {
        let place = place(watch);
        let daemon = Daemon::start(&place);
        // A first file, so that the swapped one may be known or new.
        place.put("sub/a", "known");
        wait_until("it is processed", || seen(&place) == "known");
        wait_until("it has gone its way", || !place.inbox().join("sub/a").exists());
        place.ok(&["pause"]);
        for name in ["a", "b"] {
            place.put(&format!("sub/{name}"), "harmless");
        }
        place.wait_count("pending", 2);
        fs::write(place.at("secret/b"), SECRET).unwrap();
        fs::rename(place.inbox().join("sub"), place.at("aside")).unwrap();
        symlink(place.at("secret"), place.inbox().join("sub")).unwrap();
        place.ok(&["resume"]);
        wait_until("both jobs are over", || {
            place.jobs().iter().all(|job| !["pending", "running", "retrying"].contains(&text(job, "state")))
        });
        fs::remove_file(place.at("secret/b")).expect("it is where it was");
        assert_untouched(&place);
        assert!(!place.at("done/sub/b").exists());
        drop(daemon);
    }
}

/// Resumes the pipeline, while nobody looks into the watched folder, and waits until the only job of the file there has
/// missed it.
#[track_caller]
fn assert_missed_once(place: &Place, relative: &str) {
    place.ok(&["resume"]);
    wait_until("the file is missed", || place.in_state("skipped") > 0);
    // What comes after it has its turn, and nothing else happened meanwhile.
    let after = place.file("after", "after");
    let after = place.add(&after, &["--pipeline", "p"]);
    place.wait_state(after, "completed");
    let jobs = place.jobs();
    let of_file: Vec<_> = jobs.iter().filter(|job| text(job, "relative") == relative).collect();
    assert_eq!(of_file.len(), 1, "{of_file:?}");
    assert_eq!((text(of_file[0], "state"), text(of_file[0], "reason")), ("skipped", "vanished"));
}

#[test]
fn a_file_that_is_only_there_through_a_link_by_now_is_missed_once() {
    let place = place("");
    let _daemon = Daemon::start(&place);
    place.ok(&["pause"]);
    place.put("sub/a", "a");
    place.wait_count("pending", 1);
    place.ok(&["watch", "pause", "inbox"]);
    fs::rename(place.inbox().join("sub"), place.at("aside")).unwrap();
    symlink(place.at("aside"), place.inbox().join("sub")).unwrap();
    assert_missed_once(&place, "sub/a");
}

#[test]
fn a_file_behind_a_link_that_is_not_followed_any_more_is_missed_once() {
    let place = place("follow_symlinks = true\nexclude = [\"sub/**\"]\n");
    symlink("sub", place.inbox().join("link")).unwrap();
    let daemon = Daemon::start(&place);
    place.ok(&["pause"]);
    place.put("sub/a", "a");
    place.ok(&["watch", "scan", "inbox"]);
    place.wait_count("pending", 1);
    place.ok(&["watch", "pause", "inbox"]);
    let configuration = fs::read_to_string(place.at("ingestd.toml")).unwrap();
    fs::write(place.at("ingestd.toml"), configuration.replace("follow_symlinks = true", "")).unwrap();
    daemon.signal(Signal::HUP);
    wait_until("it reloaded", || daemon.said("READY=1") == 2);
    assert_missed_once(&place, "link/a");
}

#[test]
fn links_in_a_watched_folder_are_left_alone() {
    let place = place("on_success = \"delete\"");
    let _daemon = Daemon::start(&place);
    symlink(place.at("secret/a"), place.inbox().join("file")).unwrap();
    symlink(place.at("secret"), place.inbox().join("folder")).unwrap();
    place.put("after", "after");
    wait_until("what came after them is processed", || seen(&place).contains("after"));
    place.ok(&["watch", "scan", "inbox"]);
    assert_untouched(&place);
    assert_eq!(place.jobs().len(), 1);
}

/// Names that mean something to shells, programs, templates, terminals and logs.
const NAMES: [&str; 9] = [
    "-rf",
    "--help",
    "{job}{path}",
    "$(touch owned)",
    "a\nINFO forged line",
    "b\x1b[2Jc\x07",
    "d\rover",
    "e;..",
    "f%0d%0aX-Evil: 1?#&",
];

#[test]
fn hostile_names_are_one_argument_and_write_neither_lines_nor_controls() {
    let place = Place::new();
    let program = place.at("program");
    fs::write(&program, "#!/bin/sh\nprintf '%s|' \"$#\" \"$1\" >> \"$(dirname \"$0\")/seen\"\nexit 65\n").unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    place.configure(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"@PLACE@/program\", \"{name}\"]\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
    );
    let daemon = Daemon::start(&place);
    for name in NAMES {
        place.put(name, name);
    }
    place.wait_count("failed", NAMES.len());
    let seen = seen(&place);
    for name in NAMES {
        assert!(seen.contains(&format!("1|{name}|")), "{name:?} in {seen:?}");
    }
    assert!(!place.at("owned").exists() && !place.at("state/work/owned").exists());
    let mut shown = vec![("the log".to_owned(), daemon.log())];
    for command in ["list", "failures", "history", "status", "watch show inbox", "show 1", "audit", "explain 1"] {
        let output = place.cli(&command.split(' ').collect::<Vec<_>>());
        shown.push((command.to_owned(), output.stdout + &output.stderr));
    }
    let hostile = |c: char| c.is_control() && c != '\n';
    for (what, text) in shown {
        assert!(!text.contains(hostile), "{what} has a control character: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("INFO forged")), "{what} has a forged line: {text}");
    }
}

#[test]
fn hostile_names_stay_within_their_part_of_a_url_and_out_of_headers() {
    let server = Server::always(Answer::status(200));
    let place = Place::new();
    place.configure(&format!(
        "[pipeline.p]\nkind = \"http\"\nurl = \"{}\"\nheaders = {{ X-Name = \"{{name}}\" }}\n\
         retry = {{ max_attempts = 1 }}\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n",
        server.url("/in/{name}")
    ));
    let _daemon = Daemon::start(&place);
    for name in NAMES {
        place.put(name, name);
    }
    wait_until("all are over", || {
        usize::try_from(place.in_state("completed") + place.in_state("failed")) == Ok(NAMES.len())
    });
    for call in server.received() {
        assert!(call.target.starts_with("/in/") && !call.target.contains(['?', '#', ' ']), "{}", call.target);
        assert!(!call.headers.contains_key("x-evil"), "{call:?}");
        assert!(!call.header("x-name").contains(char::is_control), "{call:?}");
    }
}

/// A title, a colour, a character, a control of the newer kind, and what is no UTF-8.
const PRINTED: &[u8] = b"\x1b]0;OWNED\x07\x1b[31mred \xc3\xa9 \xc2\x9b31m \xff\rover\n";
/// What of it a terminal may have, which puts a carriage return before each newline by itself.
const HARMLESS: &str = "\u{fffd}]0;OWNED\u{fffd}\u{fffd}[31mred é \u{fffd}31m \u{fffd}\u{fffd}over\r\n";

#[test]
fn what_a_processor_prints_is_shown_on_a_terminal_and_not_obeyed() {
    if !has_tools(&["script"]) {
        return;
    }
    let place = Place::with_database(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"cat\", \"{path}\"]\nenv = { X = \"\\u009b31m\" }\n",
    );
    let _daemon = Daemon::start(&place);
    assert_eq!(place.add(&place.file("printed", PRINTED), &["--pipeline", "p"]), 1);
    place.ok(&["wait", "1"]);
    let value = "\u{1b}]0;OWNED\u{7}\u{9b}31m é";
    place.ok(&["kv", "set", "key", value]);
    let piped = |arguments: &[&str]| place.configured(arguments).output().unwrap().stdout;
    assert_eq!(piped(&["logs", "1"]), PRINTED, "a pipe gets the bytes");
    assert_eq!(piped(&["kv", "get", "key"]), format!("{value}\n").as_bytes());

    let shown = |arguments: &[&str]| Terminal::run(&place.configured(arguments)).end();
    assert_eq!(shown(&["logs", "1"]), HARMLESS);
    assert_eq!(shown(&["kv", "get", "key"]), "\u{fffd}]0;OWNED\u{fffd}\u{fffd}31m é\r\n");
    let hostile = |c: char| c.is_control() && !matches!(c, '\r' | '\n');
    for command in ["show 1", "history", "config show", "pipeline show p", "kv list"] {
        let text = shown(&command.split(' ').collect::<Vec<_>>());
        assert!(!text.contains(hostile), "{command}: {text:?}");
    }
    for command in ["logs 1 --json", "show 1 --json", "kv get key --json"] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let text = shown(&arguments);
        assert!(!text.contains(hostile), "{command}: {text:?}");
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed, place.ok(&arguments).json(), "{command} means the same");
    }
}

#[test]
fn what_is_followed_is_not_obeyed_either_wherever_it_is_cut() {
    if !has_tools(&["script"]) {
        return;
    }
    let place = Place::new();
    // Each part is printed when the one before was seen.
    let parts = [(r"a\303", "a"), (r"\251 b\302", "aé b"), (r"\2331m c\033", "aé b\u{fffd}1m c\u{fffd}")];
    let print = |(step, (part, _)): (usize, &(&str, &str))| {
        format!("printf '{part}'; while [ ! -e @PLACE@/{step} ]; do sleep 0.02; done")
    };
    let steps: Vec<String> = parts.iter().enumerate().map(print).collect();
    place.configure(&format!(
        "[pipeline.p]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", '''{}; printf '[31m\\r'; printf '\\nend\\r' ''']\n",
        steps.join("; ")
    ));
    let _daemon = Daemon::start(&place);
    let job = place.add(&place.file("a", "a"), &["--pipeline", "p"]).to_string();
    wait_until("it runs", || place.in_state("running") == 1);
    let terminal = Terminal::run(&place.configured(&["logs", "-f", &job]));
    for (step, (_, expected)) in parts.iter().enumerate() {
        terminal.shows(expected);
        fs::write(place.at(step.to_string()), "").unwrap();
    }
    assert_eq!(terminal.end(), "aé b\u{fffd}1m c\u{fffd}[31m\r\r\nend\u{fffd}");
}

/// Resident memory in MiB.
fn resident(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
fn whatever_is_sent_to_the_socket_stalls_nothing_and_costs_little_memory() {
    let place = place("");
    let mut daemon = Daemon::start(&place);
    let socket = place.at("state/ingestd.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let before = resident(&daemon);
    let connect = || {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    };
    // Half a request, from a crowd that stays; less than all places.
    let crowd: Vec<UnixStream> = (0..40)
        .map(|_| {
            let mut stream = connect();
            stream.write_all(b"{\"request\":").unwrap();
            stream
        })
        .collect();
    let deep = "[".repeat(1 << 20) + "\n";
    for junk in [&b"\n"[..], b"\0\xff\xfe\n", b"null\n", b"{\"request\":\"ping\",\"request\":7}\n", deep.as_bytes()] {
        let mut stream = connect();
        let _ = stream.write_all(junk);
        let mut answer = String::new();
        let _ = BufReader::new(stream).read_line(&mut answer);
        assert!(answer.contains("not understood"), "{answer:?} to {:?}", &junk[..junk.len().min(40)]);
    }
    // A line without an end.
    let mut endless = connect();
    let chunk = vec![b'x'; 1 << 20];
    let sent = (0..512).take_while(|_| endless.write_all(&chunk).is_ok()).count();
    assert!(sent < 512, "half a gigabyte was taken");
    let mut answer = Vec::new();
    let _ = endless.take(1 << 20).read_to_end(&mut answer);
    place.put("work", "work");
    wait_until("files are processed meanwhile", || seen(&place).contains("work"));
    assert_eq!(place.status()["daemon"]["running"], true);
    assert!(resident(&daemon) < before + 200, "{} MiB, {before} before", resident(&daemon));
    drop(crowd);
    assert_eq!(daemon.stop(), 0);
}
