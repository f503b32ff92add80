//! The queue's trait, on SQLite: each call goes to the writer with what it needs of the clock and the rules.

use async_trait::async_trait;

use super::super::error::Result;
use super::super::lease::Claim;
use super::super::queue::{Appetite, Enqueued, Gone, Leased, NewJob, Queue, Settled, Settlement, Vanished, Want};
use super::recover::{self, Whose};
use super::{SqliteStore, lease, vanish};
use crate::clock::Boottime;

#[async_trait]
impl Queue for SqliteStore {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        self.writer.enqueue(jobs).await
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
        let (boot, clock, rules, incarnation) = (self.boot()?, self.clock.clone(), self.rules(), self.incarnation);
        self.writer
            .last(move |tx, tally| {
                let request = lease::Request {
                    boot,
                    wants: wants.clone(),
                    limit,
                    appetite,
                    now: clock.now(),
                    deadline: clock.boottime().plus(rules.lease),
                    priority_aging: rules.priority_aging,
                    incarnation,
                };
                Box::pin(async move { lease::lease(tx, &request, tally).await })
            })
            .await
    }

    async fn renew(&self, claims: Vec<Claim>) -> Result<Vec<Option<Boottime>>> {
        let (boot, clock, rules) = (self.boot()?, self.clock.clone(), self.rules());
        self.write(move |tx| {
            let (claims, deadline) = (claims.clone(), clock.boottime().plus(rules.lease));
            Box::pin(async move { lease::renew(tx, boot, &claims, deadline).await })
        })
        .await
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<Settled>> {
        self.writer.settle(settlements).await
    }

    async fn reclaim(&self) -> Result<u64> {
        let (boot, clock, rules) = (self.boot()?, self.clock.clone(), self.rules());
        // Most of the time nothing has expired, and a read finds that out without a commit.
        if !self.any_expired(boot).await? {
            return Ok(0);
        }
        let recovery = self
            .write_counted(move |tx, tally| {
                let (now, whose) = (clock.now(), Whose::Expired { boot, now: clock.boottime() });
                Box::pin(async move { recover::take_back(tx, whose, rules.max_crashes, now, tally).await })
            })
            .await?;
        Ok(recovery.released + recovery.failed + recovery.superseded)
    }

    fn changed(&self) -> tokio::sync::futures::OwnedNotified {
        self.signals.leasable.clone().notified_owned()
    }
}

impl SqliteStore {
    async fn any_expired(&self, boot: i64) -> Result<bool> {
        let row =
            sqlx::query("SELECT 1 FROM jobs WHERE state = 'running' AND boot = ? AND lease_deadline <= ? LIMIT 1")
                .bind(boot)
                .bind(self.clock.boottime().as_millis())
                .fetch_optional(self.readers())
                .await?;
        Ok(row.is_some())
    }
}
