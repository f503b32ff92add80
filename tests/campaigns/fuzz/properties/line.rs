//! The lines of a list.

use std::path::Path;

use ingestd::run::line::{Asks, Entry, ListedWork, parse, shown};

/// More is no message for a person.
const LONGEST_MESSAGE: usize = 1_000;

/// A line is understood or told to be wrong, in few words; what is understood survives the way to the daemon.
pub fn line(line: &[u8]) {
    let text = shown(line);
    assert!(text.chars().count() <= 200, "{} characters are shown", text.chars().count());
    let understood = match parse(line, Path::new("/root")) {
        Ok(understood) => understood,
        Err(message) => {
            assert!(!message.is_empty() && message.len() <= LONGEST_MESSAGE, "{} bytes: {message}", message.len());
            return;
        }
    };
    match &understood.asks {
        Asks::Work(work) => work_is_sound(line, work),
        Asks::Changeset { changeset, .. } => is_json(changeset),
    }
    let entry = Entry { line: 1, text, asks: understood.asks };
    let frame = serde_json::to_string(&entry).unwrap();
    assert!(!frame.contains('\n'));
    assert_eq!(serde_json::from_str::<Entry>(&frame).unwrap(), entry);
}

fn work_is_sound(line: &[u8], work: &ListedWork) {
    use std::os::unix::ffi::OsStrExt;
    assert!(work.path.is_some() || work.key.is_some());
    if let Some(path) = &work.path {
        let bytes = path.0.as_os_str().as_bytes();
        assert!(path.0.is_absolute() && !bytes.contains(&0));
        // A plain path is nothing but its bytes.
        if line.first() != Some(&b'{') {
            assert!(bytes.ends_with(line));
        }
    }
    work.metadata.iter().for_each(|metadata| is_json(metadata));
}

fn is_json(text: &str) {
    if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
        panic!("{error}: {text}");
    }
}
