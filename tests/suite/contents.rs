//! Contents that lines of a list bring along: files for the processor, kept for as long as a job may need them.

use std::fs;
use std::path::PathBuf;

use crate::support::{Daemon, Place, count, text, wait_until};

/// The processor copies what it is given to `out`, under the name that it is given, once there is a file `open`; before
/// that it fails for good.
const COPIES: &str = r#"
[pipeline.p]
kind = "exec"
command = ["sh", "-c", "test -e @PLACE@/open || exit 65; cp \"$1\" @PLACE@/out/\"$2\" && printf '%s' \"$INGESTD_RELATIVE\" > @PLACE@/out/\"$2\".relative", "sh", "{path}", "{name}"]
"#;

fn place() -> Place {
    let place = Place::with_database(COPIES);
    fs::create_dir(place.at("out")).unwrap();
    place
}

/// The files that hold contents.
fn contents(place: &Place) -> Vec<PathBuf> {
    let list = |folder: PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    list(place.at("state/content/ingestd.db")).into_iter().flat_map(list).collect()
}

fn said(place: &Place, name: &str) -> String {
    fs::read_to_string(place.at("out").join(name)).unwrap()
}

const LINES: &[u8] = br#"{"path":"/repo/docs/a b.txt","content":"first\n"}
{"key":"order-1","content_base64":"AP8="}
{"path":"/repo/ref.txt","content_ref":"@PLACE@/files/real"}
"#;

fn list(place: &Place) -> Vec<u8> {
    let here = place.at("");
    let here = here.to_str().unwrap().trim_end_matches('/');
    String::from_utf8(LINES.to_vec()).unwrap().replace("@PLACE@", here).into_bytes()
}

#[test]
fn a_content_reaches_the_processor_as_a_file_of_its_paths_name_and_goes_when_its_job_is_done() {
    let place = place();
    let real = place.file("real", "in a file");
    fs::write(place.at("open"), "").unwrap();
    let _daemon = Daemon::start(&place);
    assert_eq!(place.feed(&["sync", "-"], &list(&place)).code, 0);
    place.wait_count("completed", 3);
    assert_eq!(
        (said(&place, "a b.txt"), said(&place, "a b.txt.relative")),
        ("first\n".into(), "/repo/docs/a b.txt".into())
    );
    assert_eq!(fs::read(place.at("out/content")).unwrap(), [0, 255]);
    assert_eq!(said(&place, "content.relative"), "order-1");
    assert_eq!((said(&place, "real"), said(&place, "real.relative")), ("in a file".into(), "/repo/ref.txt".into()));
    wait_until("contents are gone", || contents(&place).is_empty());
    assert!(real.exists(), "a file of somebody's own was removed");
}

#[test]
fn a_content_is_kept_through_a_crash_and_a_failure_until_a_retry_has_used_it() {
    let place = place();
    place.file("real", "in a file");
    let mut daemon = Daemon::start(&place);
    place.ok(&["pause"]);
    assert_eq!(place.feed(&["sync", "-"], &list(&place)).code, 0);
    daemon.kill();
    assert_eq!(contents(&place).len(), 2);
    let _daemon = Daemon::start(&place);
    place.ok(&["resume"]);
    place.wait_count("failed", 3);
    assert_eq!(contents(&place).len(), 2);
    fs::write(place.at("open"), "").unwrap();
    place.ok(&["retry", "--failed"]);
    place.wait_count("completed", 3);
    assert_eq!(said(&place, "a b.txt"), "first\n");
    wait_until("contents are gone", || contents(&place).is_empty());
}

#[test]
fn a_content_that_vanished_fails_its_job_and_says_so() {
    let place = place();
    let _daemon = Daemon::start(&place);
    place.ok(&["pause"]);
    assert_eq!(place.feed(&["sync", "-"], b"{\"path\":\"/repo/a\",\"content\":\"x\"}\n").code, 0);
    fs::remove_file(&contents(&place)[0]).unwrap();
    place.ok(&["resume"]);
    place.wait_count("failed", 1);
    let error = place.jobs()[0]["error"].clone();
    assert_eq!(text(&error, "kind"), "vanished");
    assert!(text(&error, "message").contains("held the content of its line"), "{error}");
}

#[test]
fn the_same_content_again_is_no_job_and_another_one_is_a_version() {
    let place = place();
    fs::write(place.at("open"), "").unwrap();
    let _daemon = Daemon::start(&place);
    let sync = |content: &str| {
        let line = format!("{{\"key\":\"k\",\"path\":\"/repo/a\",\"content\":\"{content}\"}}\n");
        assert_eq!(place.feed(&["sync", "-", "--new"], line.as_bytes()).code, 0);
    };
    sync("one");
    place.wait_count("completed", 1);
    sync("one");
    wait_until("contents are gone", || contents(&place).is_empty());
    assert_eq!(place.jobs().len(), 1);
    sync("two");
    place.wait_count("completed", 2);
    let newest = &place.jobs()[0];
    assert_eq!((count(newest, "version"), text(newest, "op"), text(newest, "path")), (2, "modify", "/repo/a"));
    assert_eq!(said(&place, "a"), "two");
}

#[test]
fn a_sweep_removes_what_no_job_needs_and_keeps_what_waits_or_failed() {
    let place = place();
    let _daemon = Daemon::start(&place);
    let sync = |key: &str, content: &str| {
        let line = format!("{{\"key\":\"{key}\",\"content\":\"{content}\"}}\n");
        assert_eq!(place.feed(&["sync", "-"], line.as_bytes()).code, 0);
    };
    sync("failed", "failed");
    place.wait_count("failed", 1);
    place.ok(&["pause"]);
    sync("k", "superseded");
    sync("k", "newest");
    assert_eq!(contents(&place).len(), 3);
    place.ok(&["db", "prune"]);
    assert_eq!(contents(&place).len(), 3, "a young content may be of lines that are being taken");
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(2);
    for content in contents(&place) {
        fs::File::open(content.parent().unwrap()).unwrap().set_modified(long_ago).unwrap();
    }
    let pruned = place.ok(&["db", "prune", "--json"]).json();
    assert_eq!(count(&pruned, "contents"), 1);
    let mut left: Vec<String> = contents(&place).into_iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    left.sort();
    assert_eq!(left, ["failed", "newest"]);
}

#[test]
fn nobody_else_reads_contents() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    assert_eq!(place.feed(&["sync", "-"], b"{\"path\":\"/repo/a\",\"content\":\"x\"}\n").code, 0);
    let content = contents(&place).remove(0);
    for path in content.ancestors().take(4) {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
    }
}
