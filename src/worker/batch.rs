//! One execution of several jobs: each is looked at by itself, those with something to process are given to the
//! processor together (`bisect`), and each then has its own verdict, and its file its own way.
//!
//! 1. *Look*, a few at a time. A job whose file is gone, unchanged or being written has its end here, and the others are
//!    not kept from going on.
//! 2. *Process*, all together. Whatever stops one of the jobs stops the execution: those that nobody asked to stop are
//!    put back, at no cost.
//! 3. *Dispose* and judge, again each by itself: the lost lease of one takes nothing from the others any more.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};

use super::attempt::{Workshop, remove_spool};
use super::bisect::process_together;
use super::member::{Ended, Findings, Member, Ready};
use super::settings::PipelineSettings;
use super::throttle::Execution;

/// Files of one batch that are looked at at the same time.
const LOOKS: usize = 8;
/// Files of one batch that go their way at the same time: enough to share commits.
const WAYS: usize = 64;

impl Workshop {
    /// Executes the jobs together; the answers are in their order.
    pub(super) async fn work_on_all(
        &self,
        members: Vec<Member>,
        pipeline: &PipelineSettings,
        execution: Execution,
    ) -> Vec<Ended> {
        let begun = Instant::now();
        let looks = members.iter().map(|member| self.prepare(member, pipeline, Duration::ZERO).boxed());
        let looked = in_order(looks, LOOKS).await;
        let found = self.process_ready(&members, looked, pipeline, execution).await;
        let both = members.into_iter().zip(found);
        in_order(both.map(|(member, findings)| self.conclude(member, findings, begun).boxed()), WAYS).await
    }

    /// Processes those that have something to process; answers the findings of all, in order.
    async fn process_ready(
        &self,
        members: &[Member],
        looked: Vec<Result<Ready, Findings>>,
        pipeline: &PipelineSettings,
        execution: Execution,
    ) -> Vec<Findings> {
        let both = members.iter().zip(&looked);
        let (handles, tasks): (Vec<_>, Vec<_>) =
            both.filter_map(|(member, looked)| Some((&member.handle, &looked.as_ref().ok()?.task))).unzip();
        let reports = process_together(pipeline, &tasks, &handles, execution).await;
        if pipeline.processor.spools() {
            for task in tasks {
                remove_spool(&task.spool);
            }
        }
        let mut reports = reports.into_iter();
        let findings = looked.into_iter().map(|looked| match looked {
            Ok(ready) => reports.next().map(|report| ready.with(report)),
            Err(findings) => Some(findings),
        });
        findings.flatten().collect()
    }
}

/// Drives so many of the futures at a time; the answers are in their order.
async fn in_order<T>(futures: impl Iterator<Item = BoxFuture<'_, T>>, at_once: usize) -> Vec<T> {
    // Made before they are driven: a closure that makes them on the way is not general enough for a spawned task.
    let futures: Vec<_> = futures.collect();
    stream::iter(futures).buffered(at_once).collect().await
}
