//! Through the whole program: arguments, a list on disk, the socket.

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use super::{hold, inputs};
use crate::support::{Daemon, Place, count, finish, text};

const NOOP: &str = "[pipeline.p]\nkind = \"noop\"\n";
/// A client waits no longer for an answer; a daemon that is busy may take its time.
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn an_argument_that_is_no_time_is_refused_and_every_other_one_is_a_date() {
    let place = Place::with_database(NOOP);
    let number = Cell::new(0);
    hold("fuzz::an_argument", 25, &inputs::time(), |time| {
        number.set(number.get() + 1);
        let file = place.file(&format!("file-{}", number.get()), "x");
        for flag in ["--in", "--at", "--since"] {
            let argument = format!("{flag}={time}");
            let mut arguments = vec!["list", &argument, "--json"];
            if flag != "--since" {
                arguments = vec!["add", file.to_str().unwrap(), &argument, "--force"];
            }
            let output = place.cli(&arguments);
            assert!(matches!(output.code, 0 | 2), "{arguments:?}: {output:?}");
            assert!(output.code == 0 || output.stderr.contains("write "), "no way out: {output:?}");
            assert!(output.stderr.len() < 1_000, "{output:?}");
        }
        for job in place.jobs().iter().filter(|job| !job["run_at"].is_null()) {
            let due = text(job, "run_at");
            assert!(due.parse::<jiff::Timestamp>().is_ok(), "{time}: run_at is {due}");
        }
    });
}

#[test]
fn a_list_of_anything_is_worked_through_line_by_line() {
    let place = Place::with_database(NOOP);
    let number = Cell::new(0);
    hold("fuzz::a_list", 12, &proptest::collection::vec(inputs::line(), 0..40), |lines| {
        number.set(number.get() + 1);
        let list = place.at(format!("list-{}", number.get()));
        std::fs::write(&list, lines.join(&b'\n')).unwrap();
        let output = place.cli(&["sync", list.to_str().unwrap(), "--json", "--line-limit", "64KiB"]);
        assert!(matches!(output.code, 0 | 1), "{output:?}");
        let Some(run) = output.json_lines().pop().filter(|_| !lines.is_empty()) else { return };
        let said = lines.iter().filter(|line| !line.is_empty()).count();
        assert_eq!(count(&run["run"], "processed"), i64::try_from(said).unwrap(), "{run}");
    });
}

#[test]
fn a_line_without_an_end_takes_no_more_memory_than_a_line_may() {
    let place = Place::with_database(NOOP);
    let good = place.file("good", "x");
    let list = place.at("list");
    let mut file = std::fs::File::create(&list).unwrap();
    file.set_len(200 << 20).unwrap();
    file = std::fs::OpenOptions::new().append(true).open(&list).unwrap();
    writeln!(file, "\n{}", good.display()).unwrap();
    let program = place.configured(&["sync", list.to_str().unwrap(), "--json"]);
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", "ulimit -v 700000; exec \"$@\"", "sh"]).arg(program.get_program()).args(program.get_args());
    limited.env_clear().envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = finish(&mut limited);
    let run = output.json_lines().pop().unwrap_or_else(|| panic!("{output:?}"));
    assert_eq!((count(&run["run"], "processed"), count(&run["run"], "enqueued")), (2, 1), "{output:?}");
    assert!(output.stdout.contains("--line-limit"), "{output:?}");
}

#[test]
fn whatever_is_said_to_the_socket_the_daemon_goes_on() {
    let place =
        Place::with(&format!("{NOOP}[watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n"));
    let mut daemon = Daemon::start(&place);
    let socket = place.at("state/ingestd.sock");
    hold("fuzz::whatever", 150, &inputs::frame(), |frame| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It hangs up on what it doesn't understand, maybe before it was told all.
        let _ = stream.write_all(&[&frame[..], b"\n"].concat());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        for answer in said.split(|byte| *byte == b'\n').filter(|answer| !answer.is_empty()) {
            let answer: serde_json::Value = serde_json::from_slice(answer).unwrap();
            assert!(answer.is_object(), "{answer}");
        }
    });
    place.put("file", "x");
    place.wait_count("completed", 1);
    assert_eq!(daemon.stop(), 0);
}
