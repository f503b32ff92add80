//! `ingestd add`

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::context::{Context, Link};
use super::failure::{Done, Failure};
use super::screen::clean;
use super::view::lossy;
use super::{Format, note, time};
use crate::clock::Timestamp;
use crate::control::{self, Added, AddedAs, Request, WirePath};
use crate::job::Priority;

/// Paths sent at once.
const CHUNK: usize = 500;
/// The pauses between two tries while the queue is full.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Who waits this long is told what for.
const SAID_AFTER: Duration = Duration::from_secs(1);
/// The longest path that is read from stdin, several times what the system allows.
const PATH_LIMIT: usize = 64 << 10;

/// What to enqueue, and how.
#[derive(Args, Debug)]
pub struct Add {
    /// The files; `-` reads paths from stdin, one a line.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Paths on stdin end with NUL instead of a line break.
    #[arg(short = '0', long)]
    null: bool,
    /// The pipeline; may be left out when there is one.
    #[arg(long, value_name = "P")]
    pipeline: Option<String>,
    /// The level: low, normal, high or urgent.
    #[arg(long, value_name = "P", default_value = "normal")]
    priority: Priority,
    /// Not before this time, for instance 2026-01-02T15:04:05Z, or "2026-01-02 15:04" for local time.
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    at: Option<String>,
    /// Not before this long has passed, for instance "1h 30m".
    #[arg(long = "in", id = "delay", value_name = "DURATION")]
    delay: Option<String>,
    /// Your own identity for the one file, instead of its path.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// A JSON document that the processor gets.
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Process again what is known and unchanged.
    #[arg(long)]
    force: bool,
    /// What to do while as many jobs wait as `queue.max_pending` allows. Without a daemon, which would make room, it is
    /// always refused.
    #[arg(long, value_name = "CHOICE", default_value = "wait")]
    when_full: WhenFull,
    #[command(flatten)]
    format: Format,
}

/// What `add` does while the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum WhenFull {
    /// Wait until there is room, for as long as it takes.
    Wait,
    /// End with exit code 1, and say what was not added.
    Refuse,
}

pub async fn run(args: Add, context: &mut Context) -> Done {
    let when_full = args.when_full;
    let template = template(&args, context)?;
    let mut link = context.link().await?;
    let json = args.format.json;
    let mut sender =
        Sender { link: &mut link, context, template, json, when_full, said: false, refused: 0, paths: Vec::new() };
    for path in &args.paths {
        if path.as_os_str() == "-" {
            let mut input = std::io::stdin().lock();
            let end = if args.null { b'\0' } else { b'\n' };
            while let Some(path) = next_path(&mut input, end)? {
                sender.push(&path).await?;
            }
        } else {
            sender.push(path).await?;
        }
    }
    sender.send().await?;
    Ok(u8::from(sender.refused > 0))
}

fn template(args: &Add, context: &Context) -> Result<control::Add, Failure> {
    let run_at = match (&args.at, &args.delay) {
        (Some(at), _) => Some(time::instant(at)?),
        (None, Some(delay)) => Some(time::later(delay, context.now())?),
        (None, None) => None,
    };
    if args.idempotency_key.is_some() && (args.paths.len() != 1 || args.paths[0].as_os_str() == "-") {
        return Err(Failure::usage("--idempotency-key names one file: give one path with it"));
    }
    if let Some(text) = &args.metadata {
        // Also not deeper than whoever reads it later can follow.
        serde_json::from_str::<serde_json::Value>(text)
            .map_err(|error| Failure::usage(format!("--metadata is not JSON: {error}")))?;
    }
    Ok(control::Add {
        paths: Vec::new(),
        pipeline: args.pipeline.clone(),
        priority: args.priority,
        run_at_ms: run_at.map(Timestamp::as_millis),
        key: args.idempotency_key.clone(),
        metadata: args.metadata.clone(),
        force: args.force,
    })
}

/// Gathers paths and sends them together.
struct Sender<'a> {
    link: &'a mut Link,
    context: &'a mut Context,
    template: control::Add,
    json: bool,
    when_full: WhenFull,
    /// Whether it was said that it waits.
    said: bool,
    refused: u64,
    paths: Vec<WirePath>,
}

impl Sender<'_> {
    async fn push(&mut self, path: &Path) -> Result<(), Failure> {
        self.paths.push(WirePath(absolute(path)?));
        if self.paths.len() >= CHUNK { self.send().await } else { Ok(()) }
    }

    /// Sends what has gathered, again and again while the queue is full. What it took is printed at once.
    async fn send(&mut self) -> Result<(), Failure> {
        let (mut waited, mut pause) = (Duration::ZERO, FIRST_PAUSE);
        while !self.paths.is_empty() {
            let asked = self.paths.len();
            let add = control::Add { paths: std::mem::take(&mut self.paths), ..self.template.clone() };
            let answers: Vec<Added> = self.link.ask(Request::Add(add)).await?;
            for added in answers {
                match added.became {
                    AddedAs::Full => self.paths.push(added.path),
                    _ => self.tell(&added)?,
                }
            }
            self.context.screen.flush()?;
            if self.paths.is_empty() {
                return Ok(());
            }
            self.heed_full(waited)?;
            pause = if self.paths.len() < asked { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            tokio::time::sleep(pause).await;
            waited += pause;
        }
        Ok(())
    }

    /// The queue is full: an error, unless it is to be waited for.
    fn heed_full(&mut self, waited: Duration) -> Result<(), Failure> {
        let drains = matches!(self.link, Link::Daemon(_));
        if drains && self.when_full == WhenFull::Wait {
            if waited >= SAID_AFTER && !self.said && !self.context.global.quiet {
                self.said = true;
                note("the queue is full (queue.max_pending); waiting for room");
            }
            return Ok(());
        }
        let refused = std::mem::take(&mut self.paths);
        for path in &refused {
            if self.json {
                self.context.screen.json(&Added { path: path.clone(), became: AddedAs::Full })?;
            } else {
                note(&format!("{}: not added", clean(&lossy(&path.0))));
            }
        }
        let what_helps = if drains { "try again later" } else { "no daemon runs that would make room: start it" };
        Err(Failure::failed(format!(
            "the queue is full: as many jobs wait as queue.max_pending allows ({what_helps}, or raise the bound)"
        )))
    }

    fn tell(&mut self, added: &Added) -> Result<(), Failure> {
        let path = clean(&lossy(&added.path.0));
        if self.json {
            self.refused += u64::from(matches!(added.became, AddedAs::Refused { .. }));
            return self.context.screen.json(added);
        }
        let quiet = self.context.global.quiet;
        match &added.became {
            AddedAs::New { id, .. } => writeln!(self.context.screen, "{id}")?,
            AddedAs::Known { id, state } => {
                writeln!(self.context.screen, "{id}")?;
                if !quiet {
                    note(&format!("{path}: job {id} already, {state}; --force processes it again"));
                }
            }
            AddedAs::Skipped { id } => {
                if let Some(id) = id {
                    writeln!(self.context.screen, "{id}")?;
                }
                if !quiet {
                    let by =
                        id.map_or_else(|| "was processed before".to_owned(), |id| format!("job {id} completed it"));
                    note(&format!("{path}: skipped, {by}; --force processes it again"));
                }
            }
            // Sent again, or refused as a whole.
            AddedAs::Full => {}
            AddedAs::Refused { message } => {
                self.refused += 1;
                note(&format!("{path}: {message}"));
            }
        }
        Ok(())
    }
}

/// The next path of a list; empty ones are left out.
fn next_path(input: &mut impl BufRead, end: u8) -> Result<Option<PathBuf>, Failure> {
    let unreadable = |error| Failure::failed(format!("the paths on stdin can't be read: {error}"));
    loop {
        let mut bytes = Vec::new();
        let mut bounded = std::io::Read::take(&mut *input, PATH_LIMIT as u64);
        if bounded.read_until(end, &mut bytes).map_err(unreadable)? == 0 {
            return Ok(None);
        }
        if bytes.last() == Some(&end) {
            bytes.pop();
        } else if bytes.len() >= PATH_LIMIT {
            return Err(Failure::usage("a path on stdin does not end; do the paths end with NUL? then give -0"));
        }
        if !bytes.is_empty() {
            return Ok(Some(PathBuf::from(OsString::from_vec(bytes))));
        }
    }
}

/// The path from the root, its folder without links and dots: one file has one name, however it was reached. A
/// link at its end stays a name of its own.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let plain = std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("`{}` is not a path: {error}", clean(&lossy(path)))))?;
    Ok(match (plain.parent().map(std::fs::canonicalize), plain.file_name()) {
        (Some(Ok(folder)), Some(name)) => folder.join(name),
        _ => plain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_by_their_separator() {
        let read = |bytes: &[u8], end| {
            let mut input = bytes;
            let mut paths = Vec::new();
            while let Some(path) = next_path(&mut input, end).unwrap() {
                paths.push(path);
            }
            paths
        };
        assert_eq!(read(b"a\n\nb c", b'\n'), [Path::new("a"), Path::new("b c")]);
        assert_eq!(read(b"a\nb\0c\0", b'\0'), [Path::new("a\nb"), Path::new("c")]);
        assert_eq!(next_path(&mut &vec![b'x'; PATH_LIMIT + 1][..], b'\n').unwrap_err().code, 2);
    }

    #[test]
    fn one_file_has_one_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("sub")).unwrap();
        std::os::unix::fs::symlink(root.join("sub"), root.join("link")).unwrap();
        assert_eq!(absolute(&root.join("sub/../link/a")).unwrap(), root.join("sub/a"));
        assert_eq!(absolute(&root.join("none/a")).unwrap(), root.join("none/a"));
    }
}
