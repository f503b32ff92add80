//! Stages: forward only, known after a crash, and confirmed from outside when the attempt is over.

use std::fs;

use serde_json::{Value, json};

use crate::support::*;

/// A pipeline with three stages whose command is this script, in which `ingestd` is the program under test.
fn staged(place: &Place, script: &str) {
    let program = env!("CARGO_BIN_EXE_ingestd");
    let script = format!("ingestd() {{ \"{program}\" \"$@\"; }}\n{script}");
    place.file("step.sh", script.replace("@PLACE@", place.at("").to_str().unwrap()));
    place.configure(
        "[pipeline.step]\nkind = \"exec\"\ncommand = [\"sh\", \"@PLACE@/files/step.sh\"]\n\
         stages = [\"planned\", \"sent\", \"confirmed\"]\n",
    );
}

fn stages(job: &Value) -> Vec<&str> {
    job["stages"].as_array().unwrap().iter().map(|reached| text(reached, "stage")).collect()
}

#[test]
fn a_crash_goes_on_with_the_stage_known() {
    let place = Place::new();
    staged(
        &place,
        "echo \"at '$INGESTD_STAGE'\" >> @PLACE@/seen
         if [ -z \"$INGESTD_STAGE\" ]; then ingestd stage planned || exit 65; touch @PLACE@/planned; sleep 60; fi
         ingestd stage sent --external-id 12345 --result '{\"ok\": true}'",
    );
    let mut daemon = Daemon::start(&place);
    let job = place.add(&place.file("a", "a"), &[]);
    wait_until("it is planned", || place.at("planned").exists());
    daemon.kill();
    let _daemon = Daemon::start(&place);
    let done = place.wait_state(job, "completed");
    assert_eq!(fs::read_to_string(place.at("seen")).unwrap(), "at ''\nat 'planned'\n");
    assert_eq!((stages(&done), text(&done, "stage")), (vec!["planned", "sent"], "sent"));
    assert_eq!((text(&done, "external_id"), &done["result"]), ("12345", &json!({ "ok": true })));
    let shown = place.ok(&["show", &job.to_string()]).stdout;
    assert!(shown.contains("sent (planned") && shown.contains("12345"), "{shown}");
    let stats = place.ok(&["stats", "--json"]).json();
    assert_eq!((text(&stats["stages"][0], "from"), text(&stats["stages"][0], "to")), ("planned", "sent"));
    assert!(place.ok(&["stats"]).stdout.contains("planned"));
}

#[test]
fn a_stage_behind_or_undeclared_is_refused_with_what_is_and_what_was_wanted() {
    let place = Place::new();
    staged(
        &place,
        "ingestd stage sent
         ingestd stage sent; echo again $?
         ingestd stage planned; echo back $?
         ingestd stage sended; echo unknown $?",
    );
    let _daemon = Daemon::start(&place);
    let job = place.add(&place.file("a", "a"), &[]);
    let done = place.wait_state(job, "completed");
    let output = text(&done["attempts"][0], "output");
    for part in [
        "was at sent already\nagain 0",
        "is at `sent` and can't come to `planned`",
        "back 1",
        "unknown 1",
        "planned → sent → confirmed",
        "no stage `sended`; declared are: planned, sent, confirmed",
    ] {
        assert!(output.contains(part), "{part}: {output}");
    }
    assert_eq!(stages(&done), ["sent"]);
}

#[test]
fn a_confirmation_after_the_attempt_finds_its_job_and_counts_once() {
    let place = Place::new();
    staged(&place, "ingestd stage sent --external-id \"order-$INGESTD_RELATIVE\"");
    place.file("dummy", "");
    let mut daemon = Daemon::start(&place);
    let first = place.add(&place.file("a", "a"), &["--idempotency-key", "mine"]);
    let second = place.add(&place.file("b", "b"), &[]);
    let (name, key) = (
        text(&place.wait_state(first, "completed"), "external_id").to_owned(),
        text(&place.wait_state(second, "completed"), "idempotency_key").to_owned(),
    );
    let moved = place.ok(&["stage", "confirmed", "--external-id", &name, "--result", "\"yes\"", "--json"]).json();
    assert_eq!(moved, json!({ "job": first, "stage": "confirmed", "moved": true, "from": "sent" }));
    let again = place.ok(&["stage", "confirmed", "--external-id", &name, "--result", "\"no\""]);
    assert!(again.stdout.contains("already"), "{again:?}");
    assert_eq!(place.show(first)["result"], "yes");
    assert!(place.ok(&["stage", "confirmed", "--idempotency-key", "mine"]).stdout.contains("already"));
    // Without a daemon as well; by the key that the other side was told.
    daemon.stop();
    place.ok(&["stage", "confirmed", "--idempotency-key", &key]);
    assert_eq!(stages(&place.show(second)), ["sent", "confirmed"]);
    let back = place.exits(1, &["stage", "sent", "--job", &second.to_string()]);
    assert!(back.stderr.contains("planned → sent → confirmed"), "{back:?}");
    let waiting = place.add(&place.file("c", "c"), &[]);
    let early = place.exits(1, &["stage", "confirmed", "--job", &waiting.to_string()]);
    assert!(early.stderr.contains("is pending"), "{early:?}");
    let undeclared = place.exits(1, &["stage", "foo", "--job", &second.to_string()]);
    assert!(undeclared.stderr.contains("no stage `foo`; declared are: planned, sent, confirmed"), "{undeclared:?}");
    place.exits(3, &["stage", "confirmed", "--external-id", "nobody"]);
    place.exits(3, &["stage", "confirmed", "--job", "999"]);
    place.exits(2, &["stage", "confirmed"]);
}

#[test]
fn jobs_that_share_a_name_are_told_apart_by_a_person_and_a_running_one_is_left_alone() {
    let place = Place::new();
    staged(&place, "ingestd stage sent --external-id same; while [ ! -e @PLACE@/go ]; do sleep 0.05; done");
    let _daemon = Daemon::start(&place);
    let first = place.add(&place.file("a", "a"), &[]);
    wait_until("it is sent", || place.show(first)["stage"] == "sent");
    let running = place.exits(1, &["stage", "confirmed", "--external-id", "same"]);
    assert!(running.stderr.contains("runs"), "{running:?}");
    let second = place.add(&place.file("b", "b"), &[]);
    fs::write(place.at("go"), "").unwrap();
    place.wait_state(first, "completed");
    place.wait_state(second, "completed");
    let several = place.exits(1, &["stage", "confirmed", "--external-id", "same"]);
    assert!(several.stderr.contains(&format!("{first}, {second}")), "{several:?}");
    place.ok(&["stage", "confirmed", "--job", &first.to_string()]);
}
