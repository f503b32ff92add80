//! `ingestd logs`
//!
//! What ended attempts printed stands in the history. What a running one prints goes to a file in the state
//! directory's `spool/DATABASE/`, named after the job and its lease; `-f` reads it as it grows. What a terminal gets of
//! either is [`Foreign`]'s matter.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use super::context::Context;
use super::failure::{Done, Failure};
use super::foreign::Foreign;
use super::screen::Style;
use super::view::AttemptView;
use super::{Format, note, time};
use crate::control::Stores;
use crate::job::{JobId, StateName};
use crate::store::Attempt;

/// How often a followed file is read; only while following.
const FOLLOW: Duration = Duration::from_millis(150);
/// How often the job is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(600);

/// Which output to print.
#[derive(Args, Debug)]
pub struct Logs {
    /// The job.
    #[arg(value_name = "ID")]
    id: JobId,
    /// Go on until the job is final.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    format: Format,
}

pub async fn run(args: Logs, context: &mut Context) -> Done {
    let stores = context.read().await?;
    let job = stores.browse.job(args.id).await?.ok_or_else(|| super::show::no_job(args.id))?;
    let spool = context.config()?.spool();
    let attempts = stores.browse.attempts(args.id).await?;
    if args.format.json {
        for attempt in &attempts {
            context.screen.json(&AttemptView::of(attempt))?;
        }
        return Ok(0);
    }
    print(&attempts, attempts.len() > 1, context)?;
    let running = job.state.name() == StateName::Running;
    if args.follow && !job.state.name().is_final() {
        follow(args.id, &stores, &spool, attempts.len(), context).await?;
    } else if running {
        if let Some(mut tail) = Tail::open(args.id, &spool) {
            tail.copy(context)?;
            tail.end(context)?;
        }
    } else if attempts.is_empty() {
        note(&format!("job {} is {} and has printed nothing yet", args.id, job.state.name()));
    }
    Ok(0)
}

/// Prints the outputs of ended attempts; with headings where there are several.
fn print(attempts: &[Attempt], headings: bool, context: &mut Context) -> Result<(), Failure> {
    for attempt in attempts {
        if headings {
            let took = time::short_ms(attempt.duration_ms);
            let heading = format!("== execution {}: {}, {took} ==", attempt.execution, attempt.outcome);
            let heading = context.screen.paint(&heading, Style::Dim);
            writeln!(context.screen, "{heading}")?;
        }
        let output = attempt.output.as_deref().unwrap_or_default();
        context.screen.foreign(output)?;
        if headings && output.last().is_some_and(|byte| *byte != b'\n') {
            writeln!(context.screen)?;
        }
    }
    Ok(context.screen.flush()?)
}

/// Follows the job's attempts until it is final. An attempt that was over before its file was found is printed
/// from the history instead.
async fn follow(
    id: JobId,
    stores: &Stores,
    spool: &Path,
    mut printed: usize,
    context: &mut Context,
) -> Result<(), Failure> {
    if context.daemon().await?.is_none() {
        note("no daemon runs on this database, so nothing more will be printed");
        return Ok(());
    }
    let mut tail: Option<Tail> = None;
    let mut looked = Instant::now();
    loop {
        if tail.is_none() {
            tail = Tail::open(id, spool);
        }
        if let Some(tail) = &mut tail {
            tail.copy(context)?;
        }
        if looked.elapsed() < LOOK {
            sleep(FOLLOW).await;
            continue;
        }
        looked = Instant::now();
        let Some(job) = stores.browse.job(id).await? else { return Ok(()) };
        let newer_lease =
            tail.as_ref().is_some_and(|tail| newest(id, spool, ".out").is_some_and(|path| path != tail.path));
        if job.state.name() == StateName::Running && !newer_lease {
            continue;
        }
        // The attempt is over: what it printed last is read through the open file, even if its name is gone.
        let attempts = stores.browse.attempts(id).await?;
        match tail.take() {
            Some(mut tail) => {
                tail.copy(context)?;
                tail.end(context)?;
            }
            None => print(attempts.get(printed..).unwrap_or_default(), false, context)?,
        }
        printed = attempts.len();
        if job.state.name().is_final() {
            return Ok(());
        }
        sleep(FOLLOW).await;
    }
}

/// A spool file that is being read.
struct Tail {
    path: PathBuf,
    file: File,
    position: u64,
    printed: Foreign,
}

impl Tail {
    /// The file of the job's newest lease.
    fn open(id: JobId, spool: &Path) -> Option<Self> {
        let path = newest(id, spool, ".out")?;
        Some(Self { file: File::open(&path).ok()?, path, position: 0, printed: Foreign::default() })
    }

    /// Copies what is new. A file that became shorter was cut to its bound, and is read again from its start.
    fn copy(&mut self, context: &mut Context) -> Result<(), Failure> {
        let length = self.file.metadata().map_or(self.position, |meta| meta.len());
        if length < self.position {
            self.end(context)?;
            self.position = 0;
        }
        if length > self.position {
            self.file.seek(SeekFrom::Start(self.position))?;
            let mut new = BufReader::new((&mut self.file).take(length - self.position));
            while let chunk = new.fill_buf()?
                && !chunk.is_empty()
            {
                let length = chunk.len();
                self.printed.write(chunk, &mut context.screen)?;
                new.consume(length);
                self.position += length as u64;
            }
            context.screen.flush()?;
        }
        Ok(())
    }

    /// Nothing more is copied.
    fn end(&mut self, context: &mut Context) -> Result<(), Failure> {
        self.printed.end(&mut context.screen)?;
        Ok(context.screen.flush()?)
    }
}

/// The job's newest file with this ending: the name is `JOB-FENCE.out`, and the highest fence is the newest lease.
pub fn newest(id: JobId, spool: &Path, ending: &str) -> Option<PathBuf> {
    let fence = |path: &Path| -> Option<i64> {
        let name = path.file_name()?.to_str()?.strip_suffix(ending)?;
        let (job, fence) = name.split_once('-')?;
        (job.parse::<i64>() == Ok(id.0)).then(|| fence.parse().ok()).flatten()
    };
    let entries = std::fs::read_dir(spool).ok()?;
    entries
        .flatten()
        .filter_map(|entry| Some((fence(&entry.path())?, entry.path())))
        .max_by_key(|(fence, _)| *fence)
        .map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lease_of_this_job_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["7-2.out", "7-10.out", "7-9.out", "71-99.out", "7-x.out", "7-11.tmp"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        assert_eq!(newest(JobId(7), folder.path(), ".out").unwrap(), folder.path().join("7-10.out"));
        assert_eq!(newest(JobId(8), folder.path(), ".out"), None);
    }
}
