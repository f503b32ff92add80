//! Names of any bytes, and rules that must not look above the root.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::{configuration, taken};
use crate::support::*;

/// A processor that records the very bytes of the paths that it got, as argument and in its environment.
fn recording_bytes(place: &Place) -> PathBuf {
    let (record, script) = (place.at("bytes"), place.at("bytes.sh"));
    let text = format!(
        "cat -- \"$1\" > /dev/null || exit 65\nprintf '%s\\0%s\\0%s\\0' \"$1\" \"$INGESTD_PATH\" \"$INGESTD_RELATIVE\" >> {}\n",
        record.display()
    );
    fs::write(&script, text).unwrap();
    let command =
        format!("kind = \"exec\"\nconcurrency = 1\ncommand = [\"/bin/sh\", \"{}\", \"{{path}}\"]", script.display());
    place.configure(&configuration("exclude = []").replace("kind = \"noop\"\nconcurrency = 8", &command));
    record
}

#[test]
fn names_of_any_bytes_reach_the_processor_as_they_are() {
    let place = Place::new();
    let record = recording_bytes(&place);
    let mut names: Vec<Vec<u8>> = [
        &b"-rf"[..],
        b"--",
        b"two\nlines",
        b"\n",
        b" ",
        b"tab\there",
        b"caf\xe9",
        b"\xff\xfe",
        b"quote'\"$(touch x)`",
        b"*?[a]",
        b"{path}",
        b"back\\slash",
        b"-folder/\xc3\x28/-n",
        b"%s%n",
        b"\x01\x7f\x1b[31m",
    ]
    .iter()
    .map(|name| name.to_vec())
    .collect();
    let _daemon = Daemon::start(&place);
    for name in &names {
        let path = place.inbox().join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    place.wait_count("completed", names.len());
    let bytes = fs::read(record).unwrap();
    let fields: Vec<&[u8]> = bytes.split(|byte| *byte == 0).collect();
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for three in fields.chunks_exact(3) {
        assert_eq!(three[0], three[1], "argument and environment agree");
        assert_eq!(three[0], place.inbox().join(OsStr::from_bytes(three[2])).into_os_string().into_vec());
        seen.push(three[2].to_vec());
    }
    names.sort();
    seen.sort();
    assert_eq!(seen, names);
    // One line each, whatever the names hold.
    assert_eq!(place.ok(&["list", "-q"]).stdout.lines().count(), names.len());
    assert!(!place.ok(&["list"]).stdout.contains('\x1b'));
}

#[test]
fn exclusions_never_look_above_the_root() {
    // Each part of the way to the root is something that the default rules exclude.
    let way = "@PLACE@/.hidden/x.tmp/@eaDir/y~/inbox";
    let place = Place::with(&configuration("rescan_interval = \"1h\"").replace("@PLACE@/inbox", way));
    let inbox = place.at(".hidden/x.tmp/@eaDir/y~/inbox");
    fs::create_dir_all(inbox.join("folder")).unwrap();
    fs::write(inbox.join("scanned"), "x").unwrap();
    let _daemon = Daemon::start(&place);
    place.wait_count("completed", 1);
    fs::write(inbox.join("folder/told"), "x").unwrap();
    fs::write(inbox.join(".excluded"), "x").unwrap();
    place.wait_count("completed", 2);
    place.ok(&["watch", "scan", "inbox"]);
    assert_eq!(taken(&place), ["folder/told", "scanned"]);
}
