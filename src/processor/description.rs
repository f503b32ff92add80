//! A job as JSON: what processors are told that take no placeholders.

use std::os::unix::ffi::OsStrExt;

use base64::Engine as _;
use serde_json::{Value, json};

use super::Task;

/// A job's description. A path that is not UTF-8 is there with replacement characters, and exact
/// in `path_base64`.
pub fn description(task: &Task) -> Value {
    let metadata = task.metadata.as_deref().map(|text| {
        // Whoever enqueued it made sure that it is JSON; if it is not after all, it goes as it is.
        serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
    });
    let mut document = json!({
        "job": task.job,
        "fence": task.fence,
        "attempt": task.attempt,
        "pipeline": task.pipeline,
        "watch": task.watch,
        "path": task.path.to_string_lossy(),
        "relative": task.relative.to_string_lossy(),
        "op": task.op,
        "moved_from": task.moved_from.as_ref().map(|path| path.to_string_lossy()),
        "digest": task.digest.map(|digest| digest.to_string()),
        "size_bytes": task.size,
        "idempotency_key": task.idempotency_key.to_string(),
        "stage": task.stage,
        "metadata": metadata,
    });
    if task.path.to_str().is_none() {
        let exact = base64::engine::general_purpose::STANDARD.encode(task.path.as_os_str().as_bytes());
        document["path_base64"] = exact.into();
    }
    document
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;
    use crate::processor::tests::task;

    #[test]
    fn the_description_holds_what_the_interface_promises() {
        let mut task = task("/in/a.pdf");
        task.metadata = Some(r#"{"a":[1]}"#.to_owned());
        let document = description(&task);
        assert_eq!(
            document,
            json!({"job": 1, "fence": 1, "attempt": 1, "pipeline": "docs", "watch": "inbox", "path": "/in/a.pdf",
                   "relative": "in/a.pdf", "op": "add", "moved_from": null, "digest": null, "size_bytes": 0,
                   "idempotency_key": "07".repeat(32), "stage": null, "metadata": {"a": [1]}})
        );
    }

    #[test]
    fn a_path_that_is_not_utf8_is_exact_in_base64() {
        let mut task = task("/");
        task.path = OsString::from_vec(b"/\xff".to_vec()).into();
        let document = description(&task);
        assert_eq!((&document["path"], &document["path_base64"]), (&json!("/\u{fffd}"), &json!("L/8=")));
    }
}
