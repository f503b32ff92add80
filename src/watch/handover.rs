//! From settling to the queue: looks at files whose time has come, hands over those that are whole, and notes those
//! that are gone.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::compare::{is_wanted, was_there};
use super::filter::Rule;
use super::settle::{self, Sighting, Sign};
use super::task::{MAX_SETTLING, WatchTask};
use super::tree::{FolderId, Look};
use crate::clock::Timestamp;
use crate::intake::{Arrival, Digested, patiently};
use crate::job::{FileIdentity, SourceKey};
use crate::os;
use crate::store::{Gone, NewJob, Renamed, StoreError, Vanished};

/// How many files are looked at in one go.
const LOOKS: usize = 1_000;

/// A file that is whole, as the last look saw it.
#[derive(Debug)]
pub(super) struct Whole {
    pub relative: PathBuf,
    pub identity: FileIdentity,
    pub force: bool,
    /// Whether the database has it as present, where a scan has just asked.
    pub present: Option<bool>,
}

impl WatchTask {
    pub(super) async fn look_at_due(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        let mut names = Vec::new();
        for relative in self.settling.due(now, LOOKS) {
            if self.intake.holds(&self.tree.absolute(&relative)) {
                self.settling.park(&relative, now);
            } else {
                let probe = !self.remote && self.settling.wants_probe(&relative);
                names.push((relative, probe));
            }
        }
        let Some((root, looks)) = self.look_at(names).await else { return Ok(()) };
        if Some(root) != self.armed {
            // Not the tree that these names are of: it is armed and scanned anew.
            self.look_around_anew();
            return Ok(());
        }
        let (mut whole, mut gone) = (Vec::new(), Vec::new());
        let now = Instant::now();
        for (relative, look) in looks {
            self.judge(relative, look, now, &mut whole, &mut gone);
        }
        self.hand_over(whole).await?;
        self.note_gone(gone, root).await
    }

    /// Looks at each; `None`: the root is not there, or the watch was stopped.
    async fn look_at(&mut self, names: Vec<(PathBuf, bool)>) -> Option<(FolderId, Vec<(PathBuf, Look)>)> {
        let tree = self.tree.clone();
        let look = move || -> io::Result<_> {
            let view = tree.view()?;
            let looks = view.look_at_all(names);
            // Asked again: if the root went away in between, every look found nothing.
            FolderId::at(tree.root()).map(|root| (root, looks))
        };
        match self.aside(look).await? {
            Ok(looked) => Some(looked),
            Err(_) => {
                self.look_around_anew();
                None
            }
        }
    }

    pub(super) fn look_around_anew(&mut self) {
        let now = Instant::now();
        self.check_root_at = Some(now);
        self.forget_settling();
        self.held.clear();
        self.dirty.everything(now);
    }

    fn judge(&mut self, relative: PathBuf, look: Look, now: Instant, whole: &mut Vec<Whole>, gone: &mut Vec<PathBuf>) {
        self.note_companion(&relative, matches!(look, Look::Excluded(Rule::NotReady(_))));
        match look {
            Look::File(identity, writers) => {
                let young = settle::young_for(self.settings.watch.min_age, &identity, self.clock.now());
                if let Some(Sighting { force, .. }) = self.settling.looked(&relative, identity, writers, young, now) {
                    whole.push(Whole { relative, identity, force, present: None });
                } else if !young.is_zero() && self.settling.len() > MAX_SETTLING / 2 {
                    // Room is for those that wait for less.
                    self.settling.remove(&relative);
                    self.look_when_ripe(young);
                }
                return;
            }
            Look::Folder => self.dirty.folder(relative.clone(), now),
            Look::Gone => gone.push(relative.clone()),
            Look::Excluded(Rule::NotReady(_)) => (),
            Look::Excluded(_) => self.status.excluded += 1,
            Look::Unreadable(error) => {
                self.note_error(&relative, error.to_string());
                if os::is_shortage(&error) {
                    self.look_again(&relative, false, now);
                    return;
                }
            }
        }
        self.settling.remove(&relative);
    }

    pub(super) async fn hand_over(&mut self, whole: Vec<Whole>) -> Result<(), StoreError> {
        for file in &whole {
            self.note_companion(&file.relative, false);
        }
        let (found, asked): (Vec<Whole>, Vec<Whole>) = whole.into_iter().partition(|file| file.present.is_some());
        // A scan counts what it finds by itself; here it is what events told of.
        let mut came = 0;
        let mut taken: Vec<(Whole, bool)> = Vec::with_capacity(found.len() + asked.len());
        taken.extend(found.into_iter().map(|file| {
            let new = file.present == Some(false);
            (file, new)
        }));
        if !asked.is_empty() {
            let names = asked.iter().map(|file| file.relative.clone()).collect();
            let Some(known) = self.scanner.known(names).await? else { return Ok(()) };
            for (file, known) in asked.into_iter().zip(known) {
                if file.force || is_wanted(self.settings.watch.events, &file.identity, known.as_ref()) {
                    let new = known.is_none_or(|known| !known.present);
                    came += u64::from(new);
                    taken.push((file, new));
                }
            }
        }
        self.known_files += came;
        let origins = self.origins(&taken).await?;
        let arrival = |((file, new), renamed)| self.arrival(file, new, renamed);
        let arrivals: Vec<Arrival> = taken.into_iter().zip(origins).map(arrival).collect();
        self.status.seen += arrivals.len() as u64;
        self.give(arrivals).await
    }

    /// Until the first scan went through: what was there before this, is only noted.
    pub(super) fn adopt_before(&self) -> Option<Timestamp> {
        self.settings.adopt_before.filter(|_| !self.scanned_once)
    }

    fn arrival(&self, file: Whole, new: bool, renamed: Option<Renamed>) -> Arrival {
        let events = self.settings.watch.events;
        let adopted = self.adopt_before().is_some_and(|before| was_there(&file.identity, before));
        let note_only = new && !file.force && (!events.add || adopted);
        let path = self.tree.absolute(&file.relative);
        let watch = &self.settings.watch;
        let job = NewJob {
            source: SourceKey::Watched { watch: self.settings.name.clone(), relative: file.relative },
            pipeline: watch.pipeline.clone(),
            priority: watch.priority,
            run_at: None,
            identity: file.identity,
            digest: None,
            metadata: None,
            force: file.force,
            note_only,
            renamed,
            listed: None,
        };
        Arrival { job, path, follow: watch.follow_symlinks }
    }

    async fn give(&mut self, arrivals: Vec<Arrival>) -> Result<(), StoreError> {
        // A pause holds from the moment in which it was answered, although this loop may not have come to it yet.
        self.heed_gate();
        if !self.status.open {
            let forced = arrivals.into_iter().filter(|arrival| arrival.job.force);
            self.wish.leave(forced.map(|arrival| arrival.job.source.display_path().to_owned()));
        } else if !arrivals.is_empty() {
            let tally = self.pulse.attend(self.intake.take(arrivals)).await?;
            self.status.taken += tally.new;
            self.runs.made(tally);
            if tally.refused > 0 {
                self.turned_away();
            }
        }
        Ok(())
    }

    /// Digests were taken: the versions go to the queue with them, unless the files are others by now.
    pub(super) async fn digested(&mut self, done: Vec<Digested>) -> Result<(), StoreError> {
        let now = Instant::now();
        let mut arrivals = Vec::with_capacity(done.len());
        for Digested { arrival, result } in done {
            let relative = arrival.job.source.display_path().to_owned();
            self.settling.wake(&relative, now);
            match result {
                _ if !self.status.open => (),
                Ok(content) if content.identity == arrival.job.identity => arrivals.push(arrival),
                Ok(_) => self.settle_anew(relative, now),
                Err(error) => self.not_digested(relative, &arrival, &error, now),
            }
        }
        self.give(arrivals).await
    }

    fn not_digested(&mut self, relative: PathBuf, arrival: &Arrival, error: &io::Error, now: Instant) {
        if os::is_shortage(error) {
            self.look_again(&relative, arrival.job.force, now);
        }
        match error.kind() {
            io::ErrorKind::Interrupted => (),
            io::ErrorKind::ResourceBusy | io::ErrorKind::NotFound | io::ErrorKind::InvalidInput => {
                self.settle_anew(relative, now);
            }
            _ if self.note_error(&relative, error.to_string()) => {
                let path = arrival.path.display();
                tracing::warn!(watch = self.settings.name, %path, "its digest can't be taken: {error}");
            }
            _ => (),
        }
    }

    /// No event will tell when there is enough again of what has run out.
    fn look_again(&mut self, relative: &Path, force: bool, now: Instant) {
        let pause = self.rest_after(Duration::ZERO);
        if !self.settling.again(relative, force, pause, now) {
            self.runs.missed();
            self.dirty.everything(now + pause);
        }
    }

    fn settle_anew(&mut self, relative: PathBuf, now: Instant) {
        self.settle_from(relative, Sign::Changed, now);
    }

    /// Names at which there is nothing: files that are known are gone, others may have been folders.
    async fn note_gone(&mut self, names: Vec<PathBuf>, root: FolderId) -> Result<(), StoreError> {
        if names.is_empty() {
            return Ok(());
        }
        let Some(known) = self.scanner.known(names.clone()).await? else { return Ok(()) };
        let (mut gone, mut folders) = (Vec::new(), Vec::new());
        for (name, known) in names.into_iter().zip(known) {
            let files = if known.is_some() { &mut gone } else { &mut folders };
            files.push(name);
        }
        for folder in folders {
            self.note_gone_below(&folder, root, &mut gone).await?;
        }
        if !gone.is_empty() && !self.brake.after_events(gone.len() as u64, self.known_files, Instant::now()) {
            // The scan that follows says how many there are.
            self.dirty.everything(Instant::now());
            return Ok(());
        }
        self.hold_back(gone).await
    }

    async fn note_gone_below(
        &mut self,
        folder: &Path,
        root: FolderId,
        gone: &mut Vec<PathBuf>,
    ) -> Result<(), StoreError> {
        let (below, more) = self.scanner.known_below(folder).await?;
        let missing = if below.is_empty() { Ok(Vec::new()) } else { self.scanner.missing(below, Some(root)).await };
        match missing {
            Ok(missing) if !more => gone.extend(missing),
            _ => self.dirty.everything(Instant::now()),
        }
        Ok(())
    }

    /// Tells the queue that files are gone. They were looked for, under the root that is armed.
    pub(super) async fn vanish(&mut self, names: Vec<PathBuf>) -> Result<(), StoreError> {
        if names.is_empty() {
            return Ok(());
        }
        let watch = &self.settings.watch;
        let tell = |relative: PathBuf| Gone {
            watch: self.settings.name.clone(),
            relative,
            pipeline: watch.pipeline.clone(),
            wants_job: watch.events.delete,
            priority: watch.priority,
        };
        let gone: Vec<Gone> = names.into_iter().map(tell).collect();
        let call = || self.queue.vanish(gone.clone());
        let noting = patiently(&self.stop, "noting files that are gone", call);
        let answers = self.pulse.attend(noting).await?.unwrap_or_default();
        let vanished = answers.iter().filter(|answer| **answer != Vanished::Nothing).count() as u64;
        self.status.vanished += vanished;
        self.known_files = self.known_files.saturating_sub(vanished);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::watch::tests::fake::Bench;

    #[tokio::test]
    async fn a_shortage_of_handles_puts_a_file_off_and_other_errors_leave_it_to_a_scan() {
        let bench = Bench::new(|_| ());
        let (mut task, _handle) = bench.task();
        task.status.open = true;
        let now = Instant::now();
        for (code, again) in [(libc::EMFILE, true), (libc::ENFILE, true), (libc::EIO, false)] {
            let relative = PathBuf::from(code.to_string());
            let whole =
                Whole { relative: relative.clone(), identity: FileIdentity::default(), force: true, present: None };
            let arrival = task.arrival(whole, false, None);
            let error = || io::Error::from_raw_os_error(code);
            task.digested(vec![Digested { arrival, result: Err(error()) }]).await.unwrap();
            let waits = task.settling.remove(&relative);
            assert_eq!(waits.is_some_and(|file| file.force && file.due() > now), again, "{}", error());
            task.judge(relative.clone(), Look::Unreadable(Arc::new(error())), now, &mut Vec::new(), &mut Vec::new());
            assert_eq!(task.settling.contains(&relative), again, "{}", error());
        }
    }
}
