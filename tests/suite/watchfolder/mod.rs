//! What goes wrong with watched folders elsewhere, each on the real program.
//!
//! 1. [`events`]: lost, crowded out, about folders that are filled before anybody watches them, our own.
//! 2. [`limits`]: the kernel's limits on watches run out.
//! 3. [`roots`]: the folder itself is replaced, unmounted, comes back.
//! 4. [`versions`]: what is a new version, and what only looks like one.
//! 5. [`names`]: of any bytes, under a path that the rules would exclude.
//! 6. [`entries`]: links, FIFOs, devices, what can't be read, what is gone by the time it is looked at.
//!
//! `journey`, `hardship`, `config_watch` and `cli_watch` have the rest.

mod entries;
mod events;
mod limits;
mod names;
mod roots;
mod versions;

use serde_json::Value;

use crate::support::*;

/// A pipeline that does nothing, and a watch of the inbox with these keys; looked at by itself only once an hour, so
/// that what is found was told.
fn told_only(keys: &str) -> Place {
    Place::with(&configuration(&format!("rescan_interval = \"1h\"\n{keys}")))
}

fn configuration(keys: &str) -> String {
    format!(
        "[pipeline.p]\nkind = \"noop\"\nconcurrency = 8\n\
         [watch.inbox]\npath = \"@PLACE@/inbox\"\npipeline = \"p\"\nsettle = \"0s\"\n{keys}\n"
    )
}

/// What the status says of the watch.
fn watch(place: &Place) -> Value {
    place.status()["watches"]["inbox"].clone()
}

/// When the newest full scan ended; waits for the first.
#[track_caller]
fn last_scan(place: &Place) -> String {
    wait_for("a scan went through", || {
        Some(text(&watch(place), "last_scan_at").to_owned()).filter(|time| !time.is_empty())
    })
}

/// Scans, and waits until nothing is on its way.
#[track_caller]
fn quiet(place: &Place) {
    place.ok(&["watch", "scan", "inbox"]);
    wait_until("nothing is on its way", || {
        let status = place.status();
        let waits = |state: &str| status["jobs"][state].as_i64().unwrap_or(0) > 0;
        status["watches"]["inbox"]["settling"] == 0 && !["pending", "running", "retrying"].into_iter().any(waits)
    });
}

/// The warnings of everything, as text.
fn warnings(place: &Place) -> String {
    place.status()["warnings"].to_string()
}

/// The relative paths of all jobs, sorted, one for each job.
fn taken(place: &Place) -> Vec<String> {
    let mut names: Vec<String> = place.jobs().iter().map(|job| text(job, "relative").to_owned()).collect();
    names.sort();
    names
}
