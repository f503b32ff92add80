//! `db`, `kv`, `stats`, `history`: what looks into the database.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::*;

fn noop() -> Place {
    Place::with_database("[pipeline.p]\nkind = \"noop\"\n")
}

#[test]
fn migrate_makes_a_database_that_only_its_owner_reads() {
    let place = noop();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(place.database()), mode(place.at("state"))), (0o600, 0o700));
    place.ok(&["db", "migrate"]);
    place.ok(&["db", "check"]);
    let _daemon = Daemon::start(&place);
    place.exits(4, &["db", "migrate"]);
    place.exits(4, &["db", "check", "--repair"]);
    place.ok(&["db", "check"]);
}

#[test]
fn commands_without_a_database_say_what_to_do() {
    let place = Place::with("[pipeline.p]\nkind = \"noop\"\n");
    for command in [&["status"][..], &["list"], &["show", "1"], &["db", "stats"]] {
        let output = place.cli(command);
        assert!(output.code != 0 || !output.stdout.is_empty(), "{command:?}: {output:?}");
        assert!(!output.stderr.contains("panicked"), "{command:?}: {output:?}");
    }
    assert!(!place.database().exists(), "reading makes no database");
}

#[test]
fn query_reads_and_never_writes() {
    let place = noop();
    place.add(&place.file("a", "a"), &[]);
    let rows = place.ok(&["db", "query", "SELECT count(*) AS number FROM jobs", "--json"]);
    assert!(rows.stdout.contains("\"number\":1"), "{rows:?}");
    for sql in ["DELETE FROM jobs", "DROP TABLE jobs", "nonsense", "SELECT 1; DELETE FROM jobs"] {
        let refused = place.cli(&["db", "query", sql]);
        assert!(refused.code != 0 && !refused.stderr.is_empty(), "{sql}: {refused:?}");
    }
    assert_eq!(place.jobs().len(), 1);
}

#[test]
fn stats_of_the_database_end_with_recommendations() {
    let place = noop();
    let stats = place.ok(&["db", "stats"]).stdout;
    assert!(!stats.is_empty());
    assert!(place.ok(&["db", "stats", "--json"]).json().is_object());
}

#[test]
fn the_key_value_store_keeps_what_is_set() {
    let place = noop();
    place.exits(3, &["kv", "get", "colour"]);
    place.ok(&["kv", "set", "colour", "green"]);
    let daemon = Daemon::start(&place);
    assert_eq!(place.ok(&["kv", "get", "colour"]).stdout.trim(), "green");
    place.ok(&["kv", "set", "colour", "blue"]);
    drop(daemon);
    assert_eq!(place.ok(&["kv", "get", "colour"]).stdout.trim(), "blue");
    let listed = place.ok(&["kv", "list", "--json"]).stdout;
    assert!(listed.contains("colour") && listed.contains("blue"), "{listed}");
    place.ok(&["kv", "delete", "colour"]);
    place.exits(3, &["kv", "get", "colour"]);
    place.exits(3, &["kv", "delete", "colour"]);
}

#[test]
fn stats_and_history_count_every_execution() {
    let place = Place::with(
        "[pipeline.p]\nkind = \"exec\"\nretry = { base = \"10ms\" }\n\
         command = [\"/bin/sh\", \"-c\", \"[ $INGESTD_ATTEMPT -ge 2 ]\"]\n",
    );
    let _daemon = Daemon::start(&place);
    for name in ["a", "b"] {
        let id = place.add(&place.file(name, name), &[]);
        place.wait_state(id, "completed");
    }
    let history = place.history();
    assert_eq!(history.len(), 4, "{history:?}");
    let order: Vec<&str> = history.iter().map(|row| text(row, "finished_at")).collect();
    assert!(order.is_sorted(), "in order: {order:?}");
    let stats = place.ok(&["stats", "--json"]).json();
    assert!(stats.is_object(), "{stats}");
    assert!(!place.ok(&["stats", "--days", "1"]).stdout.is_empty());
    assert_eq!(place.ok(&["history", "--json", "--limit", "1"]).json_lines().len(), 1);
}
