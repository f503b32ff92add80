//! The leases that this process gave and has not seen the end of, with their deadlines.
//!
//! 1. Expiry is judged only in the daemon that gave the lease, so a deadline that is renewed need not be written: it
//!    counts here. A database that is locked or full for longer than a lease therefore takes no lease away, and a
//!    heartbeat costs no commit.
//! 2. The row keeps the deadline that the lease was given with. What is past it is looked up here before it is taken
//!    back, and what this table does not know goes by its row: nothing that was leased is ever forgotten.
//! 3. Taking back and renewing meet under one lock. Whatever was given up is no longer here, and its renewal answers
//!    *lost*, before anything of it is written.
//! 4. A lease under which somebody still works ([`AtWork`]) is not taken back, however late it is: its worker was
//!    told to stop, and until it has stopped a second execution could meet the first.
//!
//! [`AtWork`]: crate::store::AtWork

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::lease::{Claim, Desk, Lease};
use super::super::queue::Work;
use crate::clock::Boottime;

/// Every live lease of this boot; as many as there are permits, and those whose ends are being written.
#[derive(Debug, Default)]
pub(super) struct Held {
    leases: Mutex<HashMap<Claim, Entry>>,
}

#[derive(Debug)]
struct Entry {
    deadline: Boottime,
    desk: Desk,
    /// Whether it was said that its worker does not end.
    told: bool,
}

impl Held {
    /// Leases were given.
    pub(super) fn note(&self, work: &[(Lease, Work)]) {
        let entry = |lease: &Lease| Entry { deadline: lease.deadline(), desk: lease.desk(), told: false };
        self.lock().extend(work.iter().map(|(lease, _)| (lease.claim(), entry(lease))));
    }

    /// Prolongs those that are still held; `None`: it was given up, has ended, or comes too late. (A lease that expired
    /// between its commit and [`Self::note`], in a suspend, may have been taken back before it got here.)
    pub(super) fn renew(&self, claims: &[Claim], now: Boottime, deadline: Boottime) -> Vec<Option<Boottime>> {
        let mut leases = self.lock();
        let mut prolong = |claim| {
            let entry: &mut Entry = leases.get_mut(claim).filter(|entry| entry.deadline > now)?;
            entry.deadline = entry.deadline.max(deadline);
            Some(entry.deadline)
        };
        claims.iter().map(&mut prolong).collect()
    }

    /// They have ended.
    pub(super) fn forget(&self, claims: &[Claim]) {
        let mut leases = self.lock();
        for claim in claims {
            leases.remove(claim);
        }
    }

    /// Of leases that are past the deadline in their rows, gives those up that are not held beyond `now`, and answers
    /// them.
    pub(super) fn give_up(&self, late: Vec<Claim>, now: Boottime) -> Vec<Claim> {
        let mut leases = self.lock();
        late.into_iter()
            .filter(|claim| {
                let Some(entry) = leases.get_mut(claim) else { return true };
                if entry.deadline > now {
                    return false;
                }
                if entry.desk.is_taken() {
                    if !std::mem::replace(&mut entry.told, true) {
                        tracing::warn!(job.id = %claim.job, "a lease has ended before the work under it; it is taken \
                                        back when that has ended too");
                    }
                    return false;
                }
                leases.remove(claim);
                true
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Claim, Entry>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::lease::Place;
    use super::*;
    use crate::job::{Fence, JobId};

    const fn at(ms: i64) -> Boottime {
        Boottime::from_millis(ms)
    }

    /// A table that holds one lease until 100.
    fn held() -> (Held, Lease) {
        let (held, lease) = (
            Held::default(),
            Lease::new(JobId(1), Fence(7), at(100), Place { source: 1, pipeline: 1, priority: 2, run: None }),
        );
        held.lock().insert(lease.claim(), Entry { deadline: at(100), desk: lease.desk(), told: false });
        (held, lease)
    }

    #[test]
    fn a_renewal_counts_although_nothing_wrote_it() {
        let (held, lease) = held();
        assert_eq!(held.renew(&[lease.claim()], at(99), at(160)), [Some(at(160))]);
        assert_eq!(held.give_up(vec![lease.claim()], at(159)), []);
        assert_eq!(held.give_up(vec![lease.claim()], at(160)), [lease.claim()]);
    }

    #[test]
    fn what_was_given_up_is_not_renewed() {
        let (held, lease) = held();
        assert_eq!(held.give_up(vec![lease.claim()], at(100)), [lease.claim()]);
        assert_eq!(held.renew(&[lease.claim()], at(100), at(160)), [None]);
    }

    #[test]
    fn a_lease_that_has_expired_is_not_renewed() {
        let (held, lease) = held();
        assert_eq!(held.renew(&[lease.claim()], at(100), at(160)), [None]);
        assert_eq!(held.renew(&[lease.claim()], at(99), at(160)), [Some(at(160))]);
    }

    #[test]
    fn what_is_not_held_goes_by_its_row() {
        let (held, lease) = held();
        held.forget(&[lease.claim()]);
        assert_eq!(held.give_up(vec![lease.claim()], at(0)), [lease.claim()]);
    }

    #[test]
    fn a_lease_is_not_taken_back_while_somebody_works_under_it() {
        let (held, lease) = held();
        let work = lease.at_work();
        let aside = work.clone();
        drop(work);
        assert_eq!(held.give_up(vec![lease.claim()], at(1_000)), []);
        drop(aside);
        assert_eq!(held.give_up(vec![lease.claim()], at(1_000)), [lease.claim()]);
    }

    #[test]
    fn another_lease_of_the_same_job_is_another_matter() {
        let (held, lease) = held();
        let stale = Claim { job: lease.job(), fence: Fence(6) };
        assert_eq!(held.renew(&[stale, lease.claim()], at(99), at(160)), [None, Some(at(160))]);
    }
}
