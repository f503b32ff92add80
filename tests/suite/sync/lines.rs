//! What lines may say, and what bad ones get.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use serde_json::json;

use super::*;

#[test]
fn every_shape_of_line_in_one_list() {
    let place = Place::new();
    let ledger = Ledger::new(&place, "");
    place.configure(&format!(
        "[pipeline.record]\nkind = \"exec\"\ncommand = {}\n[pipeline.other]\nkind = \"noop\"\n",
        ledger.command
    ));
    place.ok(&["db", "migrate"]);
    for name in ["plain", "object", "referred", "ref-content", "noted", "é"] {
        place.file(name, name);
    }
    let strange = place.at("files").join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    fs::write(&strange, "bytes").unwrap();
    let gone = place.file("gone", "x");
    place.ok(&["add", gone.to_str().unwrap(), "--pipeline", "record"]);
    let lines: [&[u8]; 14] = [
        b"files/plain",
        br#"{"path":"files/object","repo":"r1","line":99,"priority":"high","metadata":{"a":1},"key":"own-key"}"#,
        br#"{"path":"inline.txt","content":"caf\u00e9\n","repo":"r1"}"#,
        br#"{"path":"binary","content_base64":"/wA=","repo":"r2"}"#,
        br#"{"path":"files/referred","content_ref":"files/ref-content"}"#,
        br#"{"path":"files/noted","skip_index":true}"#,
        br#"{"repo":"r1","new_changeset":{"commit":"c2","parent":"c1"}}"#,
        b"files/\xff\xfe",
        b"",
        br#"{"path":"files/gone","op":"delete"}"#,
        br#"{"path":"files/\u00e9","size":12345678901234567890123}"#,
        b"files/plain",
        b"./files/../files/plain",
        br#"{"key":"only-a-key","content":"keyed"}"#,
    ];
    let output = place.feed(&["sync", "--pipeline", "record", "--json", "-"], &lines.join(&b'\n'));
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("`size`") && output.stderr.contains("metadata"), "{output:?}");
    let events = output.json_lines();
    assert_eq!(text(&events[0], "event"), "begun");
    let end = &events.last().unwrap();
    assert_eq!((text(end, "event"), text(&end["run"], "type")), ("end", "initial"));
    let id = count(&end["run"], "id");
    let _daemon = Daemon::start(&place);
    let run = run_in(&place, id, "completed");
    let fields = ["position", "processed", "bad_lines", "failed", "duplicates"];
    assert_eq!(numbers(&run, fields), [14, 13, 0, 0, 2], "{run}");
    assert_eq!(run["changesets"], json!([{ "line": 7, "repo": "r1", "commit": "c2", "parent": "c1" }]));

    let done: BTreeMap<String, String> = ledger.entries().into_iter().map(|entry| (entry.path, entry.sha256)).collect();
    let read = |bytes: &[u8]| done.values().filter(|sum| **sum == sha256_of(bytes)).count();
    for content in [&b"plain"[..], b"object", "café\n".as_bytes(), b"\xff\0", b"ref-content", b"bytes", b"keyed"] {
        assert_eq!(read(content), 1, "{content:?} in {done:?}");
    }
    assert_eq!((read(b"noted"), read(b"referred")), (0, 0), "{done:?}");
    let job = |line: i64| {
        let jobs = place.ok(&["list", "--run", &id.to_string(), "--json"]).json_lines();
        jobs.into_iter().find(|job| count(job, "line") == line).unwrap_or_else(|| panic!("no job of line {line}"))
    };
    // The number that a line gives itself is its job's.
    let object = job(99);
    assert_eq!(
        (text(&object, "repo"), text(&object, "priority"), &object["metadata"]),
        ("r1", "high", &json!({"a":1}))
    );
    assert_eq!(text(&job(10), "op"), "delete");
    assert!(text(&job(3), "path").ends_with("/inline.txt"));
    let repos: BTreeMap<String, i64> = run["repos"]
        .as_array()
        .unwrap()
        .iter()
        .map(|repo| (text(repo, "repo").to_owned(), count(repo, "completed")))
        .collect();
    assert_eq!((repos["r1"], repos["r2"]), (2, 1), "{run}");
    let of_repo = place.ok(&["list", "--run", &id.to_string(), "--repo", "r1", "-q"]).stdout;
    assert_eq!(of_repo.lines().count(), 2, "{of_repo}");
}

#[test]
fn bad_lines_are_named_with_their_numbers_and_the_rest_goes_on() {
    let place = Place::with_database(&noop(""));
    place.file("a", "a");
    place.file("b", "b");
    let lines: [&[u8]; 12] = [
        b"files/a",
        b"{\"path\":",
        br#"{"path":5}"#,
        br#"{"path":"files/a","op":"update"}"#,
        br#"{"path":"files/a","content":"x","content_base64":"eA=="}"#,
        b"{\"path\":\"\xff\"}",
        b"nul\0byte",
        br#"{"path":""}"#,
        b"files/none",
        br#"{"path":"files/none-to-delete","op":"delete"}"#,
        b"files/b\r",
        b"files/b",
    ];
    let output = place.feed(&["sync", "-"], &lines.join(&b'\n'));
    assert_eq!(output.code, 1, "{output:?}");
    for (line, words) in [
        (2, "not JSON"),
        (3, "`path` is the number 5"),
        (4, "add, modify or delete"),
        (5, "more than one"),
        (6, "UTF-8"),
        (7, "NUL byte"),
        (8, "`path` is empty"),
        (9, "no such file"),
        (11, "line"),
    ] {
        let named = output.stderr.lines().find(|said| said.starts_with(&format!("ingestd: line {line}: ")));
        assert!(named.is_some_and(|said| said.contains(words)), "line {line}: {output:?}");
    }
    let last = output.stdout.lines().last().unwrap();
    assert!(last.contains("run 1") && last.contains("7 bad"), "{last}");
    let run = run_of(&place, 1);
    assert_eq!(numbers(&run, ["bad_lines", "failed_lines", "failed", "position", "open"]), [7, 2, 2, 12, 3], "{run}");
    assert_eq!(run["errors"].as_array().unwrap().len(), 9);

    let failed = place.ok(&["status", "--failed", "--run", "1", "--json"]).json_lines();
    let lines: Vec<i64> = failed.iter().map(|line| count(line, "line")).collect();
    assert_eq!(lines, [2, 3, 4, 5, 6, 7, 8, 9, 11]);
    let missing = &failed[7];
    assert_eq!(text(missing, "path"), place.at("files/none").to_str().unwrap());
    assert!(missing["op"].is_null() || text(missing, "op") == "add");
    assert_eq!((count(missing, "run"), count(missing, "tries")), (1, 0));
    assert_eq!(place.ok(&["status", "--failed", "--json"]).json_lines(), failed);
    let told = place.ok(&["status", "--failed"]).stdout;
    assert!(told.contains("files/none") && told.contains("no such file"), "{told}");
    place.exits(3, &["status", "--failed", "--run", "2"]);
}

#[test]
fn more_bad_lines_than_anybody_reads_are_counted() {
    let place = Place::with_database(&noop(""));
    let lines = "{\n".repeat(50);
    let output = place.feed(&["sync", "-"], lines.as_bytes());
    assert_eq!((output.code, output.stderr.lines().count()), (1, 21), "{output:?}");
    assert!(output.stderr.lines().last().unwrap().contains("30 more"), "{output:?}");
    let output = place.feed(&["sync", "-", "--new", "-v"], lines.as_bytes());
    assert_eq!(output.stderr.matches("not JSON").count(), 50, "{output:?}");
}

#[test]
fn a_line_over_the_limit_is_trouble_for_itself_alone() {
    let place = Place::with_database(&noop(""));
    for name in ["a", "b", "c"] {
        place.file(name, name);
    }
    let huge = "x".repeat(3 << 20);
    let fits = json!({ "path": "d", "content": "y".repeat(30_000) }).to_string();
    let list = format!("files/a\n{huge}\nfiles/b\n{fits}\n{huge}\nfiles/c");
    let output = place.feed(&["sync", "-", "--line-limit", "64KiB"], list.as_bytes());
    assert_eq!(output.code, 1, "{output:?}");
    for line in [2, 5] {
        assert!(output.stderr.contains(&format!("line {line}: the line has more than 64KiB")), "{}", output.stderr);
    }
    let run = run_of(&place, 1);
    assert_eq!(numbers(&run, ["bad_lines", "position", "open"]), [2, 6, 4], "{run}");
    place.exits(2, &["sync", "-", "--line-limit", "64MiB"]);
}

#[test]
fn what_trickles_down_a_pipe_is_handed_over_without_waiting_for_more() {
    let place = Place::with_database(&noop(""));
    place.file("a", "a");
    let mut command = place.configured(&["sync", "-"]);
    command.stdin(Stdio::piped());
    let mut sync = Running::start(command);
    let mut pipe = sync.0.stdin.take().unwrap();
    pipe.write_all(b"files/a\nfiles/b").unwrap();
    wait_until("the first line is a job", || place.in_state("pending") == 1);
    // The half line is none yet, and a daemon may start while nothing comes.
    let _daemon = Daemon::start(&place);
    place.file("bb", "b");
    pipe.write_all(b"b\n").unwrap();
    drop(pipe);
    let output = sync.finish();
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(numbers(&run_in(&place, 1, "completed"), ["position", "completed"]), [2, 2]);
}

#[test]
fn a_dry_run_leaves_its_counts_and_nothing_else() {
    let place = Place::with_database(&noop(""));
    let list = list_of(&place, 50);
    let output = place.exits(0, &["sync", list.to_str().unwrap(), "--dry-run"]);
    assert!(output.stdout.contains("50 would be new jobs"), "{output:?}");
    assert!(place.jobs().is_empty());
    let run = run_of(&place, 1);
    assert_eq!((&run["dry_run"], text(&run, "state")), (&true.into(), "completed"), "{run}");
    place.ok(&["sync", list.to_str().unwrap()]);
    assert_eq!(place.in_state("pending"), 50);
    assert_eq!(text(&run_of(&place, 2), "type"), "initial", "a dry run is nobody's first");
}

#[test]
fn what_is_wrong_with_a_list_is_guessed_and_told_in_the_order_of_lines() {
    let place = Place::with_database(&noop(""));
    place.file("a", "a");
    let list = b"\xEF\xBB\xBFfiles/a\nfiles/a\r\n{\n[{\"path\":\"files/a\"}]\nfiles/a\0files/b\n";
    let output = place.feed(&["sync", "-"], list);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stdout.contains("5 lines, 1 new job"), "{output:?}");
    let told: Vec<&str> = output.stderr.lines().filter(|line| line.contains("line ")).collect();
    let hints = ["line 2: no such file: the line ends with a carriage return", "line 3: ", "line 4: ", "line 5: "];
    assert_eq!(told.len(), hints.len(), "{output:?}");
    assert!(told.iter().zip(hints).all(|(line, hint)| line.contains(hint)), "{output:?}");
    assert!(told[2].contains("one object per line") && told[3].contains("ingestd add -0"), "{output:?}");
    // The mark is a part of the bytes that were read.
    assert!(text(&run_of(&place, 1)["input"], "digest").contains(&blake3::hash(list).to_hex().to_string()));
}

#[test]
fn what_is_missing_from_a_pipe_without_a_name_is_never_deleted() {
    let place = Place::with_database(&noop(""));
    let list = fs::read(list_of(&place, 3)).unwrap();
    let refused = place.feed(&["sync", "--delete-missing", "-"], &list);
    assert!(refused.code == 2 && refused.stderr.contains("--name"), "{refused:?}");
    assert!(place.ok(&["runs", "list", "--json"]).json_lines().is_empty());
    let named = place.feed(&["sync", "--delete-missing", "--name", "n", "-"], &list);
    assert_eq!(named.code, 0, "{named:?}");
}

#[test]
fn a_list_that_names_less_deletes_the_rest_where_that_is_asked_for() {
    let place = Place::with(&noop(""));
    let list = list_of(&place, 20);
    let _daemon = Daemon::start(&place);
    let sync = |more: &[&str]| {
        let arguments = [&["sync", "--name", "tree", "--delete-missing", "--wait", list.to_str().unwrap()], more];
        place.cli(&arguments.concat())
    };
    assert_eq!(sync(&[]).code, 0);
    let all = fs::read_to_string(&list).unwrap();
    let fewer: Vec<&str> = all.lines().skip(5).collect();
    // A wrong line may have been any of them; an empty list is most likely a mistake.
    for wrong in [format!("{}\n{{\n", fewer.join("\n")), String::new()] {
        fs::write(&list, wrong).unwrap();
        let refused = sync(&[]);
        assert!(refused.code == 1 && refused.stderr.contains("nothing is deleted"), "{refused:?}");
    }
    let dry = sync(&["--dry-run"]);
    assert!(dry.code == 1 && dry.stderr.contains("nothing is deleted"), "{dry:?}");
    fs::write(&list, format!("{}\n{}\n", fewer.join("\n"), fewer[0])).unwrap();
    for _ in 0..2 {
        let dry = sync(&["--dry-run", "--batch", "4"]);
        assert!(dry.code == 0 && dry.stdout.contains("5 would be new jobs (5 deletes of what"), "{dry:?}");
    }
    assert!(place.jobs().iter().all(|job| text(job, "op") != "delete"), "a dry run deletes nothing");
    let output = sync(&[]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.contains("5 new jobs (5 deletes of what"), "{output:?}");
    let shown = place.ok(&["runs", "show", "7"]).stdout;
    assert!(shown.contains("5 deletes of what"), "{shown}");
    let mut deleted: Vec<String> = Vec::new();
    for job in place.jobs().iter().filter(|job| text(job, "op") == "delete") {
        assert_eq!(text(job, "state"), "completed");
        deleted.push(text(job, "path").to_owned());
    }
    deleted.sort();
    assert_eq!(deleted, all.lines().take(5).collect::<Vec<_>>());
}
