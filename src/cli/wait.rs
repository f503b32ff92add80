//! `ingestd wait`
//!
//! With a daemon, one subscription tells of changes, and only the jobs that were not final yet are looked at
//! again. Without one nothing moves, so waiting makes no sense, and the command says so.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, timeout_at};

use super::context::Context;
use super::failure::{Done, Failure};
use super::{Format, note, time, view};
use crate::control::Stores;
use crate::job::{Job, JobId, StateName};

/// A far deadline, where none was asked for.
const FOR_EVER: Duration = Duration::from_hours(365 * 24);

/// Which jobs to wait for.
#[derive(Args, Debug)]
pub struct Wait {
    /// The jobs.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<JobId>,
    /// Give up after this long, with exit code 1.
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
    #[command(flatten)]
    format: Format,
}

pub async fn run(args: Wait, context: &mut Context) -> Done {
    let limit = args.timeout.as_deref().map(time::duration).transpose()?.unwrap_or(FOR_EVER);
    let deadline = Instant::now() + limit;
    let stores = context.read().await?;
    let mut daemon = context.daemon().await?;
    if let Some(client) = &mut daemon {
        client.subscribe().await?;
    }
    let mut open = args.ids.clone();
    open.sort_unstable();
    open.dedup();
    let mut ended: BTreeMap<JobId, Job> = BTreeMap::new();
    loop {
        open = look(open, &mut ended, &stores).await?;
        if open.is_empty() {
            break;
        }
        let Some(client) = &mut daemon else {
            return Err(Failure::failed(format!(
                "no daemon runs on this database, so job {} can't end; start one with `ingestd run`",
                open[0]
            )));
        };
        match timeout_at(deadline, client.changed()).await {
            Ok(changed) => changed?,
            Err(_) => return Err(Failure::failed(format!("{} jobs are not final yet", open.len()))),
        }
    }
    tell(&args, &ended, context)
}

/// Looks at the jobs that are still open; answers those that remain so.
async fn look(open: Vec<JobId>, ended: &mut BTreeMap<JobId, Job>, stores: &Stores) -> Result<Vec<JobId>, Failure> {
    let mut left = Vec::new();
    for id in open {
        match stores.browse.job(id).await? {
            None => return Err(super::show::no_job(id)),
            Some(job) if job.state.name().is_final() => {
                ended.insert(id, job);
            }
            Some(_) => left.push(id),
        }
    }
    Ok(left)
}

fn tell(args: &Wait, ended: &BTreeMap<JobId, Job>, context: &mut Context) -> Done {
    let config = context.config()?.clone();
    let mut failed = false;
    for job in ended.values() {
        failed |= job.state.name() == StateName::Failed;
        if args.format.json {
            context.screen.json(&view::JobView::of(job, &config))?;
        } else if let Some(error) = job.error.as_ref().filter(|_| job.state.name() == StateName::Failed) {
            note(&format!("job {} failed: {error}; see `ingestd show {}`", job.id, job.id));
        }
    }
    Ok(u8::from(failed))
}
