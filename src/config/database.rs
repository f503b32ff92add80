//! Where the database is: the forms of `database.url`, and the place that it has without one.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::layers::Sources;

const FILE: &str = "ingestd.db";
const SYSTEM: &str = "/var/lib/ingestd";

/// The file that a URL names, absolute.
pub(super) fn parse_url(url: &str) -> Result<PathBuf, String> {
    let Some(rest) = url.strip_prefix("sqlite:") else {
        return Err(match url.split_once(':') {
            Some((scheme, _)) if !scheme.contains('/') => format!("{scheme} is not a database that can be used"),
            _ => "is not a URL".to_owned(),
        });
    };
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.starts_with(':') {
        return Err("the queue has to be in a file, to survive a restart".to_owned());
    }
    if path.contains(['?', '#', '\0']) {
        return Err("has parameters, which are not supported: each has its own key in [database]".to_owned());
    }
    if path.is_empty() || path.ends_with('/') || Path::new(path).file_name().is_none() {
        return Err("names no file".to_owned());
    }
    std::path::absolute(path).map_err(|error| format!("has no absolute path: {error}"))
}

/// The file for a configuration that names none: in the folder that the service manager made, else in the system's
/// if this user may read it, else in the user's own. `None`: there is no such folder.
pub(super) fn default_path(sources: &Sources) -> Option<PathBuf> {
    if let Some(directories) = sources.variable("STATE_DIRECTORY") {
        let first = directories.as_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
        let first = Path::new(std::ffi::OsStr::from_bytes(first));
        if first.is_absolute() {
            return Some(first.join(FILE));
        }
    }
    let system = Path::new(SYSTEM);
    if sources.system && system.is_dir() && access(system, Access::READ_OK | Access::EXEC_OK).is_ok() {
        return Some(system.join(FILE));
    }
    user_state(sources).map(|folder| folder.join(FILE))
}

/// The user's own folder, `$XDG_STATE_HOME/ingestd` (XDG Base Directory Specification: relative values don't count).
pub(super) fn user_state(sources: &Sources) -> Option<PathBuf> {
    let absolute = |name: &str| sources.variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").map(|home| home.join(".local/state"));
    absolute("XDG_STATE_HOME").or_else(home).map(|folder| folder.join("ingestd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(variables: &[(&str, &str)]) -> Sources {
        let environment = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Sources { environment, ..Sources::default() }
    }

    #[test]
    fn three_forms_name_a_file() {
        assert_eq!(parse_url("sqlite:///srv/q.db"), Ok(PathBuf::from("/srv/q.db")));
        assert_eq!(parse_url("sqlite:/srv/q.db"), Ok(PathBuf::from("/srv/q.db")));
        let here = std::env::current_dir().unwrap();
        assert_eq!(parse_url("sqlite://sub/q.db"), Ok(here.join("sub/q.db")));
        assert_eq!(parse_url("sqlite:q.db"), Ok(here.join("q.db")));
    }

    #[test]
    fn anything_else_is_refused() {
        let wrong = [
            "",
            "/srv/q.db",
            "postgres://h/d",
            "sqlite:",
            "sqlite://",
            "sqlite::memory:",
            "sqlite:a?mode=ro",
            "sqlite:/a/",
        ];
        for url in wrong {
            assert!(parse_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_service_manager_comes_before_the_user() {
        let all = [("STATE_DIRECTORY", "/a:/b"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(default_path(&sources(&all)), Some("/a/ingestd.db".into()));
        assert_eq!(default_path(&sources(&all[1..])), Some("/x/ingestd/ingestd.db".into()));
        assert_eq!(default_path(&sources(&all[2..])), Some("/h/.local/state/ingestd/ingestd.db".into()));
        let relative = [("XDG_STATE_HOME", "x"), ("HOME", "/h")];
        assert_eq!(default_path(&sources(&relative)), Some("/h/.local/state/ingestd/ingestd.db".into()));
        assert_eq!(default_path(&sources(&[("STATE_DIRECTORY", ""), ("HOME", "h")])), None);
    }
}
