//! The workers of the world: they lease, renew, work and settle, in time and too late.

use std::path::PathBuf;
use std::time::Duration;

use ingestd::clock::{Boottime, Clock, Timestamp};
use ingestd::job::{Op, SourceKey, StateName};
use ingestd::store::{
    Appetite, Claim, Content, Disposition, Dispositions, Intent, Lease, Leased, NewJob, Queue, Settled, Settlement,
    Work,
};

use super::actions::{Ask, End, Look, PIPELINES, Pick, Sighting};
use super::terms::{
    About, Step, about, content_of, digest, failed, identity, look_of, new_job, outcome, policy, same, wants,
};
use super::world::World;

/// Leases that are held at most, most of them stale.
const MOST_HELD: usize = 12;

impl World {
    pub(super) async fn lease(&mut self, ask: &Ask) -> Step {
        if self.model.running().any(|(_, job)| job.crashes >= 2) {
            return Ok("a suspect runs alone".to_owned());
        }
        let leased = self.store.lease(wants(ask), ask.limit, Appetite::Regular).await.map_err(failed)?;
        self.judge_lease(ask, leased)
    }

    /// Each pipeline gives its first jobs in their order; as many in all as may start; none gets two more than
    /// another that would have had more.
    fn judge_lease(&mut self, ask: &Ask, leased: Leased) -> Step {
        let found: Vec<i64> = leased.work.iter().map(|(_, work)| work.job.0).collect();
        let mut shares = Vec::new();
        for (pipeline, permits) in &ask.wants {
            let due = self.model.due(pipeline, false);
            let got: Vec<i64> =
                leased.work.iter().filter(|(_, work)| work.pipeline == *pipeline).map(|(_, work)| work.job.0).collect();
            same(&format!("lease of {pipeline}"), &due.iter().copied().take(got.len()).collect::<Vec<_>>(), &got)?;
            shares.push((got.len(), due.len().min(*permits)));
        }
        let most: usize = shares.iter().map(|(_, could)| could).sum();
        same("number of leases", &most.min(ask.limit), &found.len())?;
        let unfair = |(got, could): &(usize, usize)| got < could && shares.iter().any(|(other, _)| *other > got + 1);
        if let Some(at) = shares.iter().position(unfair) {
            return Err(format!("{} got too little: (got, could have had) {shares:?}", ask.wants[at].0));
        }
        self.judge_outlook(ask, &leased, &shares)?;
        self.take_up(leased)?;
        Ok(format!("leased {found:?}"))
    }

    fn judge_outlook(&self, ask: &Ask, leased: &Leased, shares: &[(usize, usize)]) -> Result<(), String> {
        let suspect_due = ask.wants.iter().any(|(pipeline, _)| !self.model.due(pipeline, true).is_empty());
        same("suspect due", &suspect_due, &leased.suspect_due)?;
        let next = |(pipeline, _): &(&str, usize)| self.model.next_due(pipeline);
        // Whoever could have started more has to know when to come again; others may.
        let hungry = ask.wants.iter().zip(shares).filter(|((_, permits), (_, could))| could < permits.min(&ask.limit));
        let latest = hungry.filter_map(|(want, _)| next(want)).min();
        let found = leased.next_due.map(Timestamp::as_millis);
        let real = found.is_none_or(|found| ask.wants.iter().any(|want| next(want) == Some(found)));
        if real && latest.is_none_or(|latest| found.is_some_and(|found| found <= latest)) {
            return Ok(());
        }
        Err(format!("next due: expected {latest:?} or earlier, found {found:?}"))
    }

    pub(super) async fn lease_suspect(&mut self) -> Step {
        if self.model.running().count() > 0 {
            return Ok("others run".to_owned());
        }
        let ask = Ask { wants: PIPELINES.map(|pipeline| (pipeline, 2)).to_vec(), limit: 6 };
        let leased = self.store.lease(wants(&ask), ask.limit, Appetite::OneSuspect).await.map_err(failed)?;
        let first: Vec<i64> = PIPELINES.iter().filter_map(|p| self.model.due(p, true).first().copied()).collect();
        let found: Vec<i64> = leased.work.iter().map(|(_, work)| work.job.0).collect();
        if found.len() != first.len().min(1) || found.iter().any(|id| !first.contains(id)) {
            return Err(format!("leased suspects {found:?}, expected one of {first:?}"));
        }
        self.take_up(leased)?;
        Ok(format!("leased suspects {found:?}"))
    }

    /// The model follows the lease, and what the workers were told is looked at.
    fn take_up(&mut self, leased: Leased) -> Result<(), String> {
        for (lease, work) in leased.work {
            let id = work.job.0;
            let source = &self.model.facts.sources[self.model.facts.jobs[&id].source];
            let (look, version, content) = (source.look, source.version, source.digest);
            self.model.lease(id);
            let job = &self.model.facts.jobs[&id];
            let expected = (job.fence, job.deadline, job.version, job.op, job.priority, look, job.moving);
            let (fence, deadline) = (lease.fence().0, Some(lease.deadline().as_millis()));
            let moving = work.disposition.as_ref().map(|way| look_of(&way.identity));
            let found =
                (fence, deadline, work.version, work.op, work.priority.number(), look_of(&work.identity), moving);
            same(&format!("lease of job {id}"), &expected, &found)?;
            let expected = (job.attempt, job.attempt + 1, job.executions, job.deferrals, job.first_started_at);
            let spent = &work.spent;
            let found = (i64::from(spent.attempts), i64::from(work.attempt), i64::from(work.execution));
            let found =
                (found.0, found.1, found.2, i64::from(spent.deferrals), Some(spent.first_started_at.as_millis()));
            same(&format!("what job {id} has spent"), &expected, &found)?;
            let expected = (job.digest, job.baseline, job.crashes >= 2);
            let found = (work.digest.map(content_of), work.completed_digest.map(content_of), work.suspect);
            same(&format!("what is known for job {id}"), &expected, &found)?;
            let expected = job.digest.filter(|_| job.version == version && job.digest == content);
            let found = work.known().map(|known| content_of(known.digest));
            same(&format!("what the look of the file tells job {id}"), &expected, &found)?;
            if self.keys.insert(work.idempotency_key, work.job).is_some_and(|before| before != work.job) {
                return Err(format!("job {id} has the idempotency key of another job"));
            }
            self.held.push((lease, work));
        }
        let model = &self.model;
        while let Some(stale) = (self.held.len() > MOST_HELD)
            .then(|| self.held.iter().position(|(lease, _)| !model.stands(lease.job().0, lease.fence().0)))
            .flatten()
        {
            self.held.remove(stale);
        }
        Ok(())
    }

    pub(super) async fn settle(&mut self, ends: &[End]) -> Step {
        let ends: Vec<Settlement> = ends.iter().filter_map(|end| self.end(end)).collect();
        if ends.is_empty() {
            return Ok("nothing to settle".to_owned());
        }
        let about = about(&ends);
        let answers = self.store.settle(ends).await.map_err(failed)?;
        self.judge_settle(about, &answers)
    }

    /// Takes a lease out of the workers' hands and ends it.
    fn end(&mut self, end: &End) -> Option<Settlement> {
        let at = usize::from(end.lease).checked_rem(self.held.len())?;
        let (lease, work) = self.held.remove(at);
        let stands = self.model.stands(lease.job().0, lease.fence().0);
        let newer = stands.then(|| self.model.newer(work.job.0)).flatten();
        let outcome = outcome(end.ending, newer);
        let verdict = policy().judge(outcome, work.spent, self.clock.now(), f64::from(end.chance) / 100.0);
        // The content of what is gone was never seen.
        let content = end.content.filter(|_| work.op != Op::Delete);
        Some(Settlement {
            lease,
            verdict,
            code: Some(0),
            output: b"out".to_vec(),
            content: content.map(|(look, byte)| Content { identity: identity(look), digest: digest(byte) }),
            remember: false,
            finished_at: self.clock.now(),
            duration: Duration::from_millis(5),
        })
    }

    fn judge_settle(&mut self, ends: Vec<About>, answers: &[Settled]) -> Step {
        let expected: Vec<_> = ends
            .iter()
            .map(|(id, fence, verdict, content)| self.model.settle(*id, *fence, verdict, *content))
            .collect();
        let found: Vec<Option<StateName>> = answers
            .iter()
            .map(|answer| match answer {
                Settled::As(state) => Some(*state),
                Settled::LeaseLost => None,
            })
            .collect();
        let ends: Vec<String> =
            ends.iter().map(|(id, fence, verdict, _)| format!("job {id} fence {fence} {}", verdict.as_str())).collect();
        Ok(format!("{}: {}", ends.join(", "), same("settle", &expected, &found)?))
    }

    pub(super) async fn together(&mut self, sighting: &Sighting, end: &End, ask: &Ask) -> Step {
        let good = new_job(sighting, sighting.eager, self.model.now);
        let nowhere = SourceKey::Watched { watch: "nobody".to_owned(), relative: "a".into() };
        let bad = NewJob { source: nowhere, ..good.clone() };
        let ends: Vec<Settlement> = self.end(end).into_iter().collect();
        let about = about(&ends);
        let limit = if self.model.running().any(|(_, job)| job.crashes >= 2) { 0 } else { ask.limit };
        let ask = Ask { wants: ask.wants.clone(), limit };
        let store = self.store.clone();
        let (good, bad, settled, leased) = tokio::join!(
            store.enqueue(vec![good]),
            store.enqueue(vec![bad]),
            store.settle(ends),
            store.lease(wants(&ask), ask.limit, Appetite::Regular),
        );
        same("the bad call fails", &true, &bad.is_err())?;
        let enqueued = self.judge_enqueue(std::slice::from_ref(sighting), &good.map_err(failed)?, |seen| seen.eager)?;
        let settled = self.judge_settle(about, &settled.map_err(failed)?)?;
        let leased = self.judge_lease(&ask, leased.map_err(failed)?)?;
        Ok(format!("{enqueued}; {settled}; {leased}"))
    }

    fn pick_lease(&self, pick: Pick) -> Option<&(Lease, Work)> {
        self.held.get(usize::from(pick).checked_rem(self.held.len())?)
    }

    pub(super) async fn live(&mut self, pulses: u8) -> Step {
        for _ in 0..pulses {
            self.clock.advance(Duration::from_secs(20));
            self.read_clock();
            self.renew_claims(self.held.iter().map(|(lease, _)| lease.claim()).collect()).await?;
        }
        self.reclaim().await
    }

    pub(super) async fn renew(&mut self, picks: &[Pick]) -> Step {
        self.renew_claims(picks.iter().filter_map(|pick| Some(self.pick_lease(*pick)?.0.claim())).collect()).await
    }

    async fn renew_claims(&mut self, claims: Vec<Claim>) -> Step {
        let answers = self.store.renew(claims.clone()).await.map_err(failed)?;
        let expected: Vec<_> = claims.iter().map(|claim| self.model.renew(claim.job.0, claim.fence.0)).collect();
        let found: Vec<_> = answers.into_iter().map(|deadline| deadline.map(Boottime::as_millis)).collect();
        same(&format!("renewal of {claims:?}"), &expected, &found)
    }

    pub(super) fn work(&mut self, pick: Pick) -> String {
        let Some((lease, _)) = self.pick_lease(pick) else { return "nothing to work at".to_owned() };
        let (work, claim) = (lease.at_work(), lease.claim());
        self.at_work.push(work);
        self.model.at_work.insert((claim.job.0, claim.fence.0));
        format!("somebody works at job {} under fence {}", claim.job, claim.fence)
    }

    pub(super) async fn reclaim(&mut self) -> Step {
        let taken_back = self.store.reclaim().await.map_err(failed)?;
        let expected = self.model.take_back(true);
        same("reclaimed", &(expected.released + expected.failed + expected.superseded), &taken_back)
    }

    pub(super) async fn intend(&mut self, pick: Pick) -> Step {
        let Some((lease, work)) = self.pick_lease(pick) else { return Ok("nothing to move".to_owned()) };
        let claim = lease.claim();
        let (id, fence, look) = (claim.job.0, claim.fence.0, look_of(&work.identity));
        let way = Disposition {
            path: work.path.clone(),
            private: PathBuf::from(format!("/in/.ingestd-{id}-{fence}")),
            target: None,
            identity: work.identity,
            error: None,
        };
        let answer = self.store.intend(claim, way, work.idempotency_key).await.map_err(failed)?;
        let found = match answer {
            Intent::Committed => Some(true),
            Intent::Newer => Some(false),
            Intent::LeaseLost => None,
        };
        let expected = self.model.intend(id, fence, look);
        same(&format!("intent for job {id}"), &expected, &found)
    }

    pub(super) async fn withdraw(&mut self, pick: Pick, back: Option<Look>) -> Step {
        let Some((lease, _)) = self.pick_lease(pick) else { return Ok("nothing to withdraw".to_owned()) };
        let claim = lease.claim();
        let found = self.store.withdraw(claim, back.map(identity)).await.map_err(failed)?;
        let expected = self.model.withdraw(claim.job.0, claim.fence.0, back);
        same(&format!("withdrawal for job {}", claim.job), &expected, &found)
    }
}
