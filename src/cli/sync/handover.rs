//! From batches to a run that took them: the next lines are read while the last ones are on their way.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::super::context::Context;
use super::super::failure::Failure;
use super::super::screen::{approximate, clean, count};
use super::reader::{Batch, Got, Reader};
use super::steady::Steady;
use super::tell::{Far, Teller};
use crate::control::{Request, SyncLines, SyncTaken, Trouble};
use crate::run::{RunId, RunState};
use crate::store::Holder;

/// How often a paused run is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// The pauses between two tries while the queue is full.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Who waits this long is told what for.
const SAID_AFTER: Duration = Duration::from_secs(1);
/// The database is let go of while no line comes for so long.
const IDLE: Duration = Duration::from_secs(1);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything was taken.
    Through,
    /// It was told to stop.
    Stopped,
}

/// A run that is read.
pub struct Handover<'a> {
    /// The run.
    pub run: RunId,
    /// Who reads it.
    pub holder: &'a Holder,
    /// Who may write.
    pub steady: &'a mut Steady,
    /// Who says what happens.
    pub teller: &'a mut Teller,
    /// Ends it.
    pub stop: &'a CancellationToken,
    /// How far it has come.
    pub far: Far,
    /// The line from which this command reads.
    pub from_line: u64,
    /// The byte from which it reads.
    pub from_byte: u64,
    /// Time at work, without pauses, and when the newest stretch of it began.
    pub worked: Duration,
    /// See `worked`.
    pub since: Instant,
    /// Whether fields that nobody knows were spoken of.
    pub said_unknown: bool,
    /// Whether it was said that the queue is full.
    pub said_full: bool,
}

type Reading = JoinHandle<(Reader, std::io::Result<Got>)>;

impl Handover<'_> {
    /// Hands the whole input over.
    pub async fn run(&mut self, reader: Reader, context: &mut Context) -> Result<Ended, Failure> {
        let mut reading = Some(self.read(reader));
        let outcome = loop {
            let Some(next) = reading.take() else { break Ok(Ended::Stopped) };
            let (reader, got) = match self.wait_for(next, context).await {
                Ok(read) => read,
                Err(failure) => break Err(failure),
            };
            let batch = match got {
                Ok(Got::Batch(batch)) => *batch,
                Ok(Got::End) => break Ok(Ended::Through),
                Ok(Got::Stopped) => break Ok(Ended::Stopped),
                Err(error) => break Err(Failure::failed(format!("the list can't be read on: {error}"))),
            };
            reading = Some(self.read(reader));
            match self.deliver(batch, context).await {
                Ok(Ended::Through) => {}
                other => break other,
            }
        };
        if let Some(reading) = reading {
            self.stop.cancel();
            let _ = reading.await;
        }
        outcome
    }

    fn read(&self, mut reader: Reader) -> Reading {
        let stop = self.stop.clone();
        tokio::task::spawn_blocking(move || {
            let got = reader.next(&stop);
            (reader, got)
        })
    }

    /// The lines that are being read. While none come, a daemon may have the database.
    async fn wait_for(
        &mut self,
        mut reading: Reading,
        context: &Context,
    ) -> Result<(Reader, std::io::Result<Got>), Failure> {
        let broken = |error| Failure::failed(format!("the list can't be read on: {error}"));
        tokio::select! {
            read = &mut reading => return read.map_err(broken),
            () = sleep(IDLE) => {}
        }
        if self.steady.is_direct() {
            self.steady.rest(context).await;
        }
        reading.await.map_err(broken)
    }

    async fn deliver(&mut self, batch: Batch, context: &mut Context) -> Result<Ended, Failure> {
        self.speak_of_unknown(&batch);
        // The later parts of a batch that was cut lie deeper.
        let mut parts = vec![batch];
        let (mut waited, mut pause) = (Duration::ZERO, FIRST_PAUSE);
        while let Some(mut batch) = parts.pop() {
            let request = self.request(&batch);
            match self.steady.ask(&request, context).await? {
                SyncTaken::All { enqueued, skipped, waiting, failed_before, failed } => {
                    self.far.enqueued += enqueued;
                    self.far.skipped += skipped;
                    self.far.waiting += waiting;
                    self.far.failed_before += failed_before;
                    self.far.failed += failed.len() as u64;
                    self.taken(&batch, &failed, context)?;
                    (waited, pause) = (Duration::ZERO, FIRST_PAUSE);
                    continue;
                }
                // It was taken before, and only the answer was lost.
                SyncTaken::Elsewhere { line } if line == batch.read.lines => {
                    self.taken(&batch, &[], context)?;
                    continue;
                }
                SyncTaken::Elsewhere { line } => return Err(self.elsewhere(line, &batch)),
                SyncTaken::Full { room } => {
                    if let Some(rest) = usize::try_from(room).ok().and_then(|room| batch.cut(room)) {
                        parts.extend([rest, batch]);
                        continue;
                    }
                    self.heed_full(waited)?;
                    waited += pause;
                    if self.rest(pause).await == Ended::Stopped {
                        return Ok(Ended::Stopped);
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                SyncTaken::NotRunning { state } => {
                    if self.heed_state(state, context).await? == Ended::Stopped {
                        return Ok(Ended::Stopped);
                    }
                }
                SyncTaken::TakenOver => return Err(taken_over(self.run)),
            }
            parts.push(batch);
        }
        Ok(if self.stop.is_cancelled() { Ended::Stopped } else { Ended::Through })
    }

    fn request(&mut self, batch: &Batch) -> Request {
        let more_worked = self.since.elapsed();
        self.worked += more_worked;
        self.since = Instant::now();
        self.far.rate = self.rate(batch.read.lines);
        Request::SyncLines(SyncLines {
            run: self.run,
            holder: self.holder.clone(),
            after: batch.after_line(),
            read: batch.read,
            count: batch.count,
            entries: batch.entries.clone(),
            troubles: batch.troubles.clone(),
            rate_per_s: self.far.rate,
            more_worked,
        })
    }

    fn rate(&self, lines: u64) -> f64 {
        let seconds = self.worked.as_secs_f64();
        if seconds > 0.0 { approximate(lines.saturating_sub(self.from_line)) / seconds } else { 0.0 }
    }

    /// A batch was taken, but for these of its lines.
    fn taken(&mut self, batch: &Batch, failed: &[Trouble], context: &mut Context) -> Result<(), Failure> {
        let bad = batch.troubles.iter().map(|trouble| ("bad-line", trouble));
        let mut wrong: Vec<_> = bad.chain(failed.iter().map(|trouble| ("failed-line", trouble))).collect();
        wrong.sort_by_key(|(_, trouble)| trouble.line);
        for (event, trouble) in wrong {
            self.teller.trouble(event, trouble, context)?;
        }
        let far = &mut self.far;
        far.bad += batch.troubles.len() as u64;
        far.lines = batch.read.lines;
        far.done = batch.read.bytes;
        let bytes = far.done.saturating_sub(self.from_byte);
        far.eta = far.total.filter(|_| bytes > 0).map(|total| {
            let left = approximate(total.saturating_sub(far.done)) / approximate(bytes);
            Duration::try_from_secs_f64(self.worked.as_secs_f64() * left).unwrap_or(Duration::MAX)
        });
        let far = *far;
        self.teller.progress(&far, context)
    }

    fn speak_of_unknown(&mut self, batch: &Batch) {
        if batch.unknown.is_empty() || std::mem::replace(&mut self.said_unknown, true) {
            return;
        }
        let names: Vec<String> = batch.unknown.iter().take(8).map(|name| format!("`{}`", clean(name))).collect();
        self.teller.say(&format!(
            "lines have fields that ingestd does not know ({}): they are kept in `metadata`",
            names.join(", ")
        ));
    }

    /// The queue is full. A daemon makes room; without one it stays full.
    fn heed_full(&mut self, waited: Duration) -> Result<(), Failure> {
        if self.steady.is_direct() {
            return Err(Failure::failed(format!(
                "the queue is full: as many jobs wait as queue.max_pending allows, and no daemon runs that would make \
                 room; start it (or raise the bound), then go on: {}",
                how_to_go_on(self.run)
            )));
        }
        if waited >= SAID_AFTER && !std::mem::replace(&mut self.said_full, true) {
            self.teller.say("the queue is full (queue.max_pending); waiting for room");
        }
        Ok(())
    }

    /// Waits out a pause; a run that is over ends this command.
    pub async fn heed_state(&mut self, state: RunState, context: &mut Context) -> Result<Ended, Failure> {
        if state != RunState::Paused {
            return Err(over(self.run, state, self.far.lines));
        }
        let run = self.run;
        self.teller.event("paused", json!(run), json!({}), context)?;
        self.teller.say(&format!("run {run} is paused; `ingestd runs resume {run}` lets it go on"));
        self.worked += self.since.elapsed();
        loop {
            // A pause may be long: a daemon that starts meanwhile needs the database for itself.
            self.steady.rest(context).await;
            if self.rest(LOOK).await == Ended::Stopped {
                return Ok(Ended::Stopped);
            }
            let stores = self.steady.stores(context).await?;
            let now = stores.runs.run(run).await?.map(|run| run.state);
            match now {
                Some(RunState::Paused) => {}
                Some(RunState::Running) => break,
                Some(state) => return Err(over(run, state, self.far.lines)),
                None => return Err(super::super::runs::no_run(run)),
            }
        }
        self.since = Instant::now();
        self.teller.say(&format!("run {run} goes on"));
        self.teller.event("resumed", json!(run), json!({}), context)?;
        Ok(Ended::Through)
    }

    async fn rest(&self, pause: Duration) -> Ended {
        tokio::select! {
            () = self.stop.cancelled() => Ended::Stopped,
            () = sleep(pause) => Ended::Through,
        }
    }

    fn elsewhere(&self, line: u64, batch: &Batch) -> Failure {
        Failure::failed(format!(
            "run {} stands at line {}, and this command at line {}: somebody else reads it; {}",
            self.run,
            count(line),
            count(batch.after_line()),
            how_to_go_on(self.run)
        ))
    }
}

/// The command that goes on with a run.
pub fn how_to_go_on(run: RunId) -> String {
    format!("ingestd sync --resume {run}")
}

fn over(run: RunId, state: RunState, line: u64) -> Failure {
    Failure::failed(format!("run {run} was {state} meanwhile; nothing after line {} was taken", count(line)))
}

/// Somebody else reads it.
pub fn taken_over(run: RunId) -> Failure {
    Failure::failed(format!("somebody else took run {run} over and reads it now; `ingestd runs show {run}` shows it"))
}
