//! Equal contents under several names, on the real program: one of them is processed.

use std::fs;

use serde_json::Value;

use crate::support::*;

/// A watch that takes no content twice, with these keys; the processor leaves a trace and goes on with `then`.
fn deduping(keys: &str, then: &str) -> (Place, Ledger) {
    let place = Place::new();
    let ledger = Ledger::new(&place, then);
    place.configure(&format!(
        "[pipeline.record]\nkind = \"exec\"\ncommand = {}\nconcurrency = 4\n\
         retry = {{ max_attempts = 1 }}\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"0s\"\ndedupe = \"content\"\n{keys}\n",
        ledger.command
    ));
    (place, ledger)
}

/// The job of this name, once it is over.
#[track_caller]
fn ended(place: &Place, name: &str) -> Value {
    wait_for(&format!("{name} is over"), || {
        let job = place.newest_of(name)?;
        ["completed", "failed", "skipped"].contains(&text(&job, "state")).then_some(job)
    })
}

#[test]
fn a_content_that_was_completed_under_another_name_is_skipped_and_says_of_which() {
    let (place, ledger) = deduping("", "");
    let mut daemon = Daemon::start(&place);
    place.put("first", "content");
    let first = ended(&place, "first");
    place.put("second", "content");
    let second = ended(&place, "second");
    assert_eq!((text(&second, "state"), text(&second, "reason")), ("skipped", "duplicate"));
    assert_eq!(second["duplicate_of"], first["id"]);
    assert_eq!((&first["duplicate_of"], count(&second, "attempt")), (&Value::Null, 0));
    for command in [&["show", &second["id"].to_string()][..], &["list"]] {
        let shown = place.ok(command).stdout;
        assert!(shown.contains("duplicate of") && shown.contains("first"), "{command:?}: {shown}");
    }
    // The knowledge outlives the daemon, the first file and its job.
    fs::remove_file(place.inbox().join("first")).unwrap();
    assert_eq!(daemon.stop(), 0);
    let _daemon = Daemon::start(&place);
    place.put("third", "content");
    assert_eq!(ended(&place, "third")["duplicate_of"], first["id"]);
    // The same name with an earlier content again is a version of its own.
    place.put("second", "other content");
    wait_until("the change is processed", || ledger.of("second").len() == 1);
    assert_eq!(ledger.entries().len(), 2, "{:?}", ledger.entries());
}

#[test]
fn a_content_that_was_replaced_before_its_processor_read_it_is_no_reason_to_skip_another_file() {
    // The processor of `first` replaces it before it reads, as somebody else might.
    let place = Place::new();
    fs::write(
        place.at("swap.sh"),
        "cd \"$1\"\ncase $2 in */first) [ -e swapped ] || { touch swapped; printf other > new; mv new \"$2\"; };; esac\n\
         printf '%s\\n' \"$(cat \"$2\")\" >> read\n",
    )
    .unwrap();
    place.configure(
        "[pipeline.record]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"@PLACE@/swap.sh\", \"@PLACE@\", \"{path}\"]\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"record\"\nsettle = \"0s\"\ndedupe = \"content\"\n",
    );
    let _daemon = Daemon::start(&place);
    place.put("first", "content");
    place.wait_count("completed", 2);
    place.put("second", "content");
    assert_eq!(text(&ended(&place, "second"), "state"), "completed");
    assert_eq!(fs::read_to_string(place.at("read")).unwrap(), "other\nother\ncontent\n");
}

#[test]
fn a_file_that_goes_back_to_its_own_earlier_content_is_processed() {
    let (place, ledger) = deduping("", "");
    let _daemon = Daemon::start(&place);
    for (n, content) in ["A", "B", "A"].into_iter().enumerate() {
        place.put("file", content);
        wait_until("it is processed", || ledger.of("file").len() == n + 1);
    }
}

#[test]
fn of_equal_contents_at_the_same_moment_one_is_processed() {
    let (place, ledger) = deduping("", "while [ ! -e \"${0%/*}/go\" ]; do sleep 0.02; done");
    let _daemon = Daemon::start(&place);
    for number in 0..6 {
        place.put(&format!("equal-{number}"), "content");
    }
    place.put("another", "another content");
    // Those that have to wait are put off and hold no permit.
    wait_until("both contents are at work", || ledger.entries().len() == 2);
    wait_until("others were put off", || place.history().iter().any(|row| text(row, "outcome") == "deferred"));
    fs::write(place.at("go"), "").unwrap();
    for number in 0..6 {
        ended(&place, &format!("equal-{number}"));
    }
    assert_eq!((place.in_state("completed"), place.in_state("skipped")), (2, 5));
    assert_eq!(ledger.entries().len(), 2);
    assert!(place.jobs().iter().all(|job| job["error"].is_null()), "{:?}", place.jobs());
}

#[test]
fn a_content_that_failed_is_processed_under_its_other_name() {
    let (place, ledger) = deduping("", "case \"$1\" in */good) exit 0;; esac; exit 1");
    let _daemon = Daemon::start(&place);
    place.put("bad", "content");
    assert_eq!(text(&ended(&place, "bad"), "state"), "failed");
    place.put("good", "content");
    assert_eq!(text(&ended(&place, "good"), "state"), "completed");
    assert_eq!(ledger.entries().len(), 2);
}

#[test]
fn a_duplicate_goes_where_a_processed_file_goes() {
    let (place, ledger) = deduping("on_success = { move = \"@PLACE@/done\" }", "");
    let _daemon = Daemon::start(&place);
    place.put("first", "content");
    ended(&place, "first");
    place.put("second", "content");
    let second = ended(&place, "second");
    assert_eq!(text(&second, "reason"), "duplicate");
    for name in ["first", "second"] {
        assert_eq!(fs::read_to_string(place.at("done").join(name)).unwrap(), "content", "{name}");
    }
    assert_eq!(ledger.entries().len(), 1);
}

#[test]
fn without_the_key_equal_contents_are_all_processed() {
    let (place, ledger) = deduping("", "");
    let configuration = fs::read_to_string(place.at("ingestd.toml")).unwrap();
    fs::write(place.at("ingestd.toml"), configuration.replace("dedupe = \"content\"", "dedupe = \"none\"")).unwrap();
    let _daemon = Daemon::start(&place);
    for name in ["first", "second"] {
        place.put(name, "content");
        assert_eq!(text(&ended(&place, name), "state"), "completed");
    }
    assert_eq!(ledger.entries().len(), 2);
}
