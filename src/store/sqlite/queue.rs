//! The queue's trait, on SQLite: each call goes to the writer with what it needs of the clock and the rules. Only
//! renewals do not: they count in memory (`held`).

use async_trait::async_trait;
use sqlx::Row as _;

use super::super::error::Result;
use super::super::lease::Claim;
use super::super::queue::{Appetite, Enqueued, Gone, Leased, NewJob, Queue, Settled, Settlement, Vanished, Want};
use super::enqueue::Offer;
use super::recover::{self, Whose};
use super::{SqliteStore, lease, vanish};
use crate::clock::Boottime;
use crate::job::{Fence, JobId};

#[async_trait]
impl Queue for SqliteStore {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        self.writer.enqueue(Offer { jobs, limit: None }).await
    }

    async fn offer(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        self.writer.enqueue(Offer { jobs, limit: self.max_pending() }).await
    }

    async fn vanish(&self, gone: Vec<Gone>) -> Result<Vec<Vanished>> {
        let clock = self.clock.clone();
        self.write_counted(move |tx, tally| {
            let (gone, now) = (gone.clone(), clock.now());
            Box::pin(async move { vanish::vanish(tx, &gone, now, tally).await })
        })
        .await
    }

    async fn lease(&self, wants: Vec<Want>, limit: usize, appetite: Appetite) -> Result<Leased> {
        let (boot, rules, incarnation) = (self.boot()?, self.rules(), self.incarnation);
        let asked = lease::Asked { boot, wants, limit, appetite, rules, incarnation };
        let leased = self.writer.lease(asked).await?;
        self.held.note(&leased.work);
        Ok(leased)
    }

    async fn renew(&self, claims: Vec<Claim>) -> Result<Vec<Option<Boottime>>> {
        self.boot()?;
        let now = self.clock.boottime();
        Ok(self.held.renew(&claims, now, now.plus(self.rules().lease)))
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<Settled>> {
        let claims: Vec<Claim> = settlements.iter().map(|settlement| settlement.lease.claim()).collect();
        let settled = self.writer.settle(settlements).await;
        // Also after an error: the leases went with the call. What is running by its row is taken back by its row.
        self.held.forget(&claims);
        settled
    }

    async fn reclaim(&self) -> Result<u64> {
        let (boot, clock, rules) = (self.boot()?, self.clock.clone(), self.rules());
        let lost = self.held.give_up(self.past_deadline(boot).await?, clock.boottime());
        // Most of the time nothing has expired, and a read finds that out without a commit.
        if lost.is_empty() {
            return Ok(0);
        }
        let recovery = self
            .write_counted(move |tx, tally| {
                let (now, claims) = (clock.now(), lost.clone());
                Box::pin(async move {
                    recover::take_back(tx, Whose::Lost { boot, claims: &claims }, rules.max_crashes, now, tally).await
                })
            })
            .await?;
        Ok(recovery.released + recovery.failed + recovery.superseded)
    }

    fn changed(&self) -> tokio::sync::futures::OwnedNotified {
        self.signals.leasable.clone().notified_owned()
    }
}

impl SqliteStore {
    /// The leases of this boot whose deadlines, as they were given, have passed: at most as many as there are permits.
    async fn past_deadline(&self, boot: i64) -> Result<Vec<Claim>> {
        let rows = sqlx::query(include_str!("sql/past_deadline.sql"))
            .bind(boot)
            .bind(self.clock.boottime().as_millis())
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(|row| Ok(Claim { job: JobId(row.try_get(0)?), fence: Fence(row.try_get(1)?) })).collect()
    }
}
