//! `ingestd run --watch DIR --exec 'PROG ARG {path}'`: a configuration for one folder and one command, without a
//! file. It is isolated: nothing of the system's configuration and nothing of `INGESTD__…` comes into it, and its
//! database is a folder of its own, so that trying things out never touches a real queue.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::check::{check_watches, denied};
use super::database::{parse_url, user_state};
use super::layers::Sources;
use super::placeholders;
use super::report::{Origin, Problem, Report};
use super::sections::{Config, Database, ExecPipeline, Log, Maintenance, Pipeline, ProcessorKind, Queue, Shutdown};
use super::values::quote;
use super::watch_section::Watch;

/// The name of the watch and of the pipeline.
const NAME: &str = "quick";

/// The configuration for one folder; without a command its files are only digested.
///
/// # Errors
/// The folder is none, the command can't be split, or the database's URL is not one.
pub fn quick(folder: &Path, exec: Option<&str>, database: Option<&str>) -> Result<Config, Report> {
    quick_in(&Sources::of_process(None, database.map(str::to_owned)), folder, exec)
}

fn quick_in(sources: &Sources, folder: &Path, exec: Option<&str>) -> Result<Config, Report> {
    let mut problems = Vec::new();
    let mut note = |flag: &str, found: &str, message: String| {
        let problem = Problem::new("", format!("{} {message}", quote(found)));
        problems.push(problem.at(Some(Origin::Flag(flag.to_owned()))));
    };
    let shown = folder.to_string_lossy().into_owned();
    let root = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    match std::fs::metadata(&root) {
        Ok(meta) if meta.is_dir() => denied(&root).into_iter().for_each(|why| note("--watch", &shown, why)),
        Ok(_) => note("--watch", &shown, "is not a folder".to_owned()),
        Err(error) => note("--watch", &shown, format!("is not a folder: {error}")),
    }
    let kind =
        exec.map_or(Ok(ProcessorKind::Noop), |line| command(line).map(ExecPipeline::of).map(ProcessorKind::Exec));
    let kind = kind.unwrap_or_else(|message| {
        note("--exec", exec.unwrap_or_default(), message);
        ProcessorKind::Noop
    });
    let path = match &sources.database {
        Some(url) => parse_url(url),
        None => own_database(sources, &root),
    };
    let path = path.unwrap_or_else(|message| {
        note("--database", sources.database.as_deref().unwrap_or_default(), message);
        PathBuf::from("/nonexistent/ingestd.db")
    });
    let config = Config {
        database: Database { path, ..Database::default() },
        log: Log::default(),
        queue: Queue::default(),
        shutdown: Shutdown::default(),
        maintenance: Maintenance::default(),
        pipelines: BTreeMap::from([(NAME.to_owned(), Pipeline::of(kind))]),
        watches: BTreeMap::from([(NAME.to_owned(), Watch::of(root, NAME.to_owned()))]),
        secret_variables: Vec::new(),
    };
    if problems.is_empty() {
        problems = check_watches(&config.watches, &config.pipelines, &config.state_directory());
    }
    if problems.is_empty() { Ok(config) } else { Err(Report { problems }) }
}

/// `quick-<hash of the folder>/ingestd.db` in the user's state directory: one for each folder, whatever way its path
/// is spelled.
fn own_database(sources: &Sources, root: &Path) -> Result<PathBuf, String> {
    let state = user_state(sources);
    let state = state.ok_or("is needed here: neither XDG_STATE_HOME nor HOME says where a database could be")?;
    let folder = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let hash = blake3::hash(folder.as_os_str().as_bytes()).to_hex();
    Ok(state.join(format!("quick-{}", &hash[..16])).join("ingestd.db"))
}

fn command(line: &str) -> Result<Vec<String>, String> {
    let words = split(line)?;
    if words.first().is_none_or(String::is_empty) {
        return Err("names no program".to_owned());
    }
    for word in &words {
        placeholders::fill(word, &placeholders::PLACEHOLDERS)
            .map_err(|message| format!("is not a command: {message}"))?;
    }
    Ok(words)
}

/// Splits a line as a shell would, by quotes and backslashes alone (POSIX, Shell Command Language, 2.2): nothing is
/// expanded, and no operator means anything.
fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    // `None` between words; quotes begin a word even if nothing is in them.
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\0' => return Err("holds a NUL character".to_owned()),
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\'' => quoted(&mut chars, word.get_or_insert_default())?,
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                None => return Err("ends in a backslash".to_owned()),
                // A backslash before a line break joins two lines.
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    for c in chars {
        if c == '\'' {
            return Ok(());
        }
        word.push(c);
    }
    Err("has a ' that is never closed".to_owned())
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    const UNCLOSED: &str = "has a \" that is never closed";
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok(()),
            '\\' => match chars.next().ok_or(UNCLOSED)? {
                '\n' => {}
                c @ ('$' | '`' | '"' | '\\') => word.push(c),
                c => word.extend(['\\', c]),
            },
            c => word.push(c),
        }
    }
    Err(UNCLOSED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(state: &Path) -> Sources {
        Sources { environment: vec![("XDG_STATE_HOME".into(), state.into())], ..Sources::default() }
    }

    #[test]
    fn lines_are_split_as_a_shell_does() {
        let cases: [(&str, &[&str]); 8] = [
            ("sha256sum {path}", &["sha256sum", "{path}"]),
            ("  a \t b\n", &["a", "b"]),
            ("sh -c 'echo \"$0\" | wc' '{path}'", &["sh", "-c", "echo \"$0\" | wc", "{path}"]),
            (r#"a "b \"c\" \d \$e" f\ g"#, &["a", "b \"c\" \\d $e", "f g"]),
            ("a '' \"\"", &["a", "", ""]),
            ("a'b'\"c\"\\d", &["abcd"]),
            ("echo $HOME * # ; > x", &["echo", "$HOME", "*", "#", ";", ">", "x"]),
            ("", &[]),
        ];
        for (line, words) in cases {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
        for wrong in ["'a", "\"a", "a\\", "\"a\\", "a \0"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_folder_has_a_database_of_its_own() {
        let (state, one, two) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = |folder: &Path| quick_in(&sources(state.path()), folder, None).unwrap().database.path;
        let first = path(one.path());
        assert_eq!(first, path(&one.path().join(".")));
        assert_ne!(first, path(two.path()));
        let folder = first.parent().unwrap();
        assert_eq!(folder.parent().unwrap(), state.path().join("ingestd"));
        let name = folder.file_name().unwrap().to_str().unwrap();
        assert!(name.len() == 22 && name.starts_with("quick-"), "{name}");
    }

    #[test]
    fn a_command_becomes_a_pipeline_and_none_a_noop() {
        let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let exec = quick_in(&sources(state.path()), folder.path(), Some("wc -c {path}")).unwrap();
        let ProcessorKind::Exec(pipeline) = &exec.pipelines["quick"].kind else { panic!("not exec") };
        assert_eq!(pipeline.command, ["wc", "-c", "{path}"]);
        assert_eq!(exec.watches["quick"], Watch::of(folder.path().to_owned(), "quick".to_owned()));
        let noop = quick_in(&sources(state.path()), folder.path(), None).unwrap();
        assert_eq!(noop.pipelines["quick"].kind, ProcessorKind::Noop);
    }

    #[test]
    fn the_flags_of_a_quick_run_are_reported_together() {
        let folder = tempfile::tempdir().unwrap();
        let wrong_database = Sources { database: Some("mysql://x".to_owned()), ..Sources::default() };
        let report = quick_in(&wrong_database, &folder.path().join("gone"), Some("wc '{path}")).unwrap_err();
        let flags: Vec<String> =
            report.problems.iter().filter_map(|p| p.origin.as_ref().map(Origin::to_string)).collect();
        assert_eq!(flags, ["--watch", "--exec", "--database"]);
        for wrong in ["", "''", "wc {pth}"] {
            assert!(quick_in(&sources(folder.path()), folder.path(), Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_folder_inside_its_own_database_folder_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let inbox = state.path().join("inbox");
        std::fs::create_dir(&inbox).unwrap();
        let url = format!("sqlite://{}", state.path().join("q.db").display());
        let sources = Sources { database: Some(url), ..Sources::default() };
        assert!(quick_in(&sources, &inbox, None).is_err());
    }
}
