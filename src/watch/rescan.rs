//! Scans within the watch's task: when one starts, what it finds, how it ends.

use std::path::PathBuf;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::compare::{Candidate, Ended, Finding, Scope};
use super::dirty::Due;
use super::scan::Walked;
use super::settle::Sign;
use super::status::{LastScan, Root};
use super::task::{NAMES, WatchTask};
use crate::clock::millis;
use crate::store::StoreError;

type Reply = oneshot::Sender<Result<LastScan, String>>;

/// What people ask of the next full scan.
#[derive(Debug, Default)]
pub(super) struct Wish {
    force: bool,
    replies: Vec<Reply>,
}

impl Wish {
    pub fn add(&mut self, force: bool, reply: Reply) {
        self.force |= force;
        self.replies.push(reply);
    }

    pub fn refuse(&mut self, why: &str) {
        let replies = std::mem::take(self).replies;
        for reply in replies {
            drop(reply.send(Err(why.to_owned())));
        }
    }
}

/// A scan under way.
#[derive(Debug)]
pub(super) struct RunningScan {
    /// Whether nothing asked for it but the time.
    pub periodic: bool,
    full: bool,
    findings: mpsc::Receiver<Finding>,
    started: Instant,
    replies: Vec<Reply>,
}

impl RunningScan {
    /// What the scan finds next; `None`: it ended. Waits for ever while there is no scan.
    pub async fn next(scan: &mut Option<Self>) -> Option<Finding> {
        match scan {
            Some(scan) => scan.findings.recv().await,
            None => std::future::pending().await,
        }
    }
}

impl WatchTask {
    pub(super) async fn start_due_scan(&mut self, now: Instant) {
        let (due, periodic) = match self.dirty.take(now) {
            Due::Nothing if self.next_full.is_some_and(|at| at <= now) => (Due::Everything, true),
            due => (due, false),
        };
        let starts = match due {
            Due::Nothing => return,
            Due::Folders(folders) => folders,
            Due::Everything => {
                // No event tells that a folder was mounted over the root, or that one above it was moved.
                self.check_root().await;
                if self.armed.is_none() {
                    return;
                }
                // Whatever was asked for until now, this scan does.
                self.dirty.take(Instant::now());
                vec![PathBuf::new()]
            }
        };
        let full = starts.iter().any(|start| start.as_os_str().is_empty());
        let wish = if full { std::mem::take(&mut self.wish) } else { Wish::default() };
        let scope = Scope { starts, full, force: wish.force, trusted_root: self.trusted_root };
        // One that was broken off may still be ending; its end must not be taken for this one's.
        self.scans.shutdown().await;
        let (sender, findings) = mpsc::channel(2);
        self.scans.spawn(self.scanner.clone().scan(scope, sender));
        self.scan = Some(RunningScan { periodic, full, findings, started: now, replies: wish.replies });
    }

    pub(super) async fn found(&mut self, finding: Option<Finding>) -> Result<(), StoreError> {
        match finding {
            Some(Finding::Changed(candidates)) => {
                self.settle_found(candidates);
                Ok(())
            }
            Some(Finding::Gone(names)) => {
                let (held, gone) = names.into_iter().partition(|name| self.intake.holds(&self.tree.absolute(name)));
                self.put_off(held);
                self.vanish(gone).await
            }
            None => self.end_scan().await,
        }
    }

    fn settle_found(&mut self, candidates: Vec<Candidate>) {
        let (now, wall) = (Instant::now(), self.clock.now().as_millis());
        for Candidate { relative, identity, force } in candidates {
            // How long ago the file changed, by its own times: only where those are of this machine.
            let changed_ms = identity.mtime_ns.max(identity.ctime_ns) / 1_000_000;
            let age_ms = if self.remote { 0 } else { u64::try_from(wall.saturating_sub(changed_ms)).unwrap_or(0) };
            let age = std::time::Duration::from_millis(age_ms);
            if !self.settling.found(relative, identity, age, force, now) {
                self.dirty.everything(now);
            }
        }
    }

    fn put_off(&mut self, names: Vec<PathBuf>) {
        let now = Instant::now();
        for name in names {
            self.settle_from(name, Sign::Changed, now);
        }
    }

    async fn end_scan(&mut self) -> Result<(), StoreError> {
        let Some(scan) = self.scan.take() else { return Ok(()) };
        let ended = match self.scans.join_next().await {
            Some(Ok(ended)) => ended?,
            Some(Err(_)) | None => Ended::Stopped,
        };
        let now = Instant::now();
        match ended {
            Ended::Done { walked, changed, gone, replaced } => {
                self.note_scan(scan, walked, (changed, gone), replaced, now);
            }
            Ended::NoRoot(error) => {
                scan.replies.into_iter().for_each(|reply| drop(reply.send(Err(error.to_string()))));
                self.check_root_at = Some(now);
                self.dirty.everything(now + self.settings.watch.poll_interval);
            }
            Ended::Stopped => self.dirty.everything(now + self.settings.watch.poll_interval),
        }
        Ok(())
    }

    fn note_scan(
        &mut self,
        scan: RunningScan,
        walked: Walked,
        (changed, gone): (u64, u64),
        replaced: bool,
        now: Instant,
    ) {
        let mut news = None;
        for (relative, error) in walked.first_errors.iter().take(NAMES) {
            if self.note_error(relative, error.clone()) {
                news = news.or(Some((relative, error)));
            }
        }
        if let Some((relative, error)) = news {
            let path = self.tree.absolute(relative);
            let (watch, errors) = (&self.settings.name, walked.errors);
            tracing::warn!(watch, errors, path = %path.display(), "some of the tree can't be read: {error}");
        }
        if !scan.full {
            return;
        }
        if walked.root != self.armed {
            self.check_root_at = Some(now);
        }
        self.note_replaced(replaced, &walked);
        let at = self.clock.now();
        let (files, excluded, errors) = (walked.files, walked.excluded, walked.errors);
        let duration_ms = millis(now.duration_since(scan.started));
        let summary = LastScan { at, duration_ms, files, changed, excluded, vanished: gone, errors };
        self.status.last_scan = Some(summary);
        self.scanned_once = true;
        self.next_full = Some(now + self.scan_interval());
        scan.replies.into_iter().for_each(|reply| drop(reply.send(Ok(summary))));
    }

    fn note_replaced(&mut self, replaced: bool, walked: &Walked) {
        if replaced && self.status.root != Root::Replaced {
            let root = self.tree.root().display();
            tracing::warn!(
                watch = self.settings.name,
                "{root} is empty and not the folder that it was: nothing counts as deleted"
            );
        }
        if !replaced {
            self.trusted_root = walked.root;
        }
        self.status.root = if replaced { Root::Replaced } else { Root::Present };
        self.refresh_warnings();
    }
}
