//! Downloads: curl from a slow server, resumed after a broken connection, and under a `.part` name.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::{Inbox, noise};
use crate::support::*;

/// A server that sends this slowly, and breaks the first connection off after `cut_at` bytes.
fn slow_server(body: &[u8], cut_at: usize) -> Server {
    let slow = Slow { body: body.to_vec(), piece: body.len() / 10, pause: Duration::from_millis(120), cut_at };
    Server::new(move |_, before| {
        let cut_at = if before == 0 { slow.cut_at } else { usize::MAX };
        Answer::Slowly(Slow { cut_at, ..slow.clone() })
    })
}

fn curl(inbox: &Inbox, server: &Server, name: &str, more: &[&str]) -> bool {
    let mut curl = Command::new("curl");
    curl.args(["-q", "-s", "--noproxy", "*"]).args(more).arg("-o").arg(inbox.at(name)).arg(server.url("/"));
    curl.status().unwrap().success()
}

#[test]
fn curl_is_taken_once_and_whole() {
    if !has_tools(&["curl"]) {
        return;
    }
    // A stranger's file has to be quiet for longer than the server pauses.
    for inbox in Inbox::both("1s") {
        let content = noise(1, 500_000);
        let server = slow_server(&content, usize::MAX);
        assert!(curl(&inbox, &server, "file", &[]));
        inbox.holds(&[("file", &content)]);
    }
}

#[test]
fn curl_that_pauses_for_longer_than_settle_is_still_taken_once_because_it_has_the_file_open() {
    if !has_tools(&["curl"]) {
        return;
    }
    let inbox = Inbox::new("50ms");
    let content = noise(1, 500_000);
    let server = slow_server(&content, usize::MAX);
    assert!(curl(&inbox, &server, "file", &["--no-buffer"]));
    inbox.holds(&[("file", &content)]);
}

#[test]
fn a_resumed_download_is_taken_at_rests_only() {
    if !has_tools(&["curl"]) {
        return;
    }
    let inbox = Inbox::new("300ms");
    let content = noise(1, 500_000);
    let server = slow_server(&content, 200_000);
    assert!(!curl(&inbox, &server, "file", &[]), "the server broke it off");
    let half = fs::read(inbox.at("file")).unwrap();
    assert_eq!(half.len(), 200_000);
    assert!(curl(&inbox, &server, "file", &["-C", "-"]));
    assert_eq!(fs::read(inbox.at("file")).unwrap(), content);
    inbox.passed("file", &[&half, &content]);
}

#[test]
fn a_download_under_a_part_name_is_taken_when_it_is_renamed() {
    if !has_tools(&["curl"]) {
        return;
    }
    let inbox = Inbox::new("100ms");
    let content = noise(1, 500_000);
    let server = slow_server(&content, 200_000);
    assert!(!curl(&inbox, &server, "file.part", &[]), "the server broke it off");
    // It lies there for long, closed; a marker that came later is taken, and it is not.
    fs::write(inbox.at("marker"), "later").unwrap();
    inbox.holds(&[("marker", b"later")]);
    assert!(curl(&inbox, &server, "file.part", &["-C", "-"]));
    fs::rename(inbox.at("file.part"), inbox.at("file")).unwrap();
    inbox.holds(&[("marker", b"later"), ("file", &content)]);
}
