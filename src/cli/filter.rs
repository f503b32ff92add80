//! Which jobs are meant: the flags that `list`, `history` and the bulk commands share.

use clap::Args;

use super::context::Context;
use super::failure::Failure;
use super::runs::no_run;
use super::time;
use crate::config::compile_glob;
use crate::control::Stores;
use crate::job::{Job, JobId, StateName};
use crate::run::RunId;
use crate::store::{Browse, JobFilter};

/// Jobs read at once.
const PAGE: usize = 500;

/// The flags but for the state.
#[derive(Args, Clone, Debug, Default)]
pub struct Filter {
    /// Only jobs of this pipeline.
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// Only jobs that this watch found.
    #[arg(long, value_name = "NAME")]
    pub watch: Option<String>,
    /// Only jobs that this run made.
    #[arg(long, value_name = "ID")]
    pub run: Option<RunId>,
    /// Only jobs of this repository, as a list named it.
    #[arg(long, value_name = "NAME")]
    pub repo: Option<String>,
    /// Only jobs whose path matches, for instance '*.pdf' or '/srv/inbox/**'.
    #[arg(long, value_name = "GLOB")]
    pub path: Option<String>,
    /// Only jobs whose error contains this text.
    #[arg(long, value_name = "TEXT")]
    pub error: Option<String>,
    /// Only jobs enqueued or ended since: 2h, 7d, or a time.
    #[arg(long, value_name = "T")]
    pub since: Option<String>,
}

impl Filter {
    /// Whether it lets everything through.
    pub fn is_empty(&self) -> bool {
        let Self { pipeline, watch, run, repo, path, error, since } = self;
        run.is_none() && [pipeline, watch, repo, path, error, since].into_iter().all(Option::is_none)
    }

    /// The filter for the store. Names that nobody knows are not found, rather than empty lists.
    pub async fn resolve(
        &self,
        states: Vec<StateName>,
        context: &Context,
        stores: &Stores,
    ) -> Result<JobFilter, Failure> {
        let config = context.config()?;
        if let Some(name) = self.pipeline.as_ref().filter(|name| !config.pipelines.contains_key(*name))
            && !stores.browse.overview().await?.pipelines.contains_key(name)
        {
            return Err(Failure::not_found(format!("no pipeline `{name}`; see `ingestd pipeline list`")));
        }
        if let Some(name) = self.watch.as_ref().filter(|name| !config.watches.contains_key(*name))
            && !stores.settings.watches().await?.iter().any(|row| row.name == *name)
        {
            return Err(Failure::not_found(format!("no watch `{name}`; see `ingestd watch list`")));
        }
        if let Some(run) = self.run
            && stores.runs.run(run).await?.is_none()
        {
            return Err(no_run(run));
        }
        let path = self.path.as_deref().map(glob).transpose()?;
        let since = self.since.as_deref().map(|text| time::since(text, context.now())).transpose()?;
        Ok(JobFilter {
            states,
            pipeline: self.pipeline.clone(),
            watch: self.watch.clone(),
            run: self.run,
            repo: self.repo.clone(),
            path,
            error: self.error.clone(),
            since,
        })
    }
}

fn glob(pattern: &str) -> Result<globset::GlobSet, Failure> {
    compile_glob(&globset::GlobBuilder::new(pattern), pattern)
        .map_err(|wrong| Failure::usage(format!("`{}` {wrong}", shortened(pattern))))
}

/// As much of a pattern as is worth repeating.
fn shortened(pattern: &str) -> String {
    pattern.chars().take(80).collect()
}

/// Jobs page by page, newest first, so that a long list never lies in memory.
pub struct Pages<'a> {
    browse: &'a dyn Browse,
    filter: &'a JobFilter,
    before: Option<JobId>,
    left: usize,
}

impl<'a> Pages<'a> {
    /// At most `limit` jobs; 0: all.
    pub fn new(browse: &'a dyn Browse, filter: &'a JobFilter, limit: usize) -> Self {
        Self { browse, filter, before: None, left: if limit == 0 { usize::MAX } else { limit } }
    }

    /// The next jobs; empty at the end.
    pub async fn next(&mut self) -> Result<Vec<Job>, Failure> {
        let ask = self.left.min(PAGE);
        if ask == 0 {
            return Ok(Vec::new());
        }
        let jobs = self.browse.jobs(self.filter, self.before, ask).await?;
        self.left = if jobs.len() < ask { 0 } else { self.left - jobs.len() };
        self.before = jobs.last().map(|job| job.id);
        Ok(jobs)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::fake::{Fake, hands};

    #[tokio::test]
    async fn pages_end_with_the_limit_or_the_jobs() {
        let fake = Arc::new(Fake::default());
        for id in 1..=1_200 {
            fake.put(JobId(id), StateName::Completed);
        }
        let stores = hands(&fake, false).stores;
        let filter = JobFilter::default();
        for (limit, expected) in [(0, 1_200), (700, 700), (3, 3), (5_000, 1_200)] {
            let mut pages = Pages::new(stores.browse.as_ref(), &filter, limit);
            let mut ids = Vec::new();
            loop {
                let page = pages.next().await.unwrap();
                if page.is_empty() {
                    break;
                }
                ids.extend(page.into_iter().map(|job| job.id));
            }
            assert_eq!(ids.len(), expected);
            assert!(ids.is_sorted_by(|left, right| left > right));
        }
    }
}
