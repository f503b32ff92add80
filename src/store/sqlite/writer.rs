//! The one writer: group commit.
//!
//! 1. Calls wait in a bounded channel. The task takes one, and whatever else waits: a lone caller never waits
//!    for company, and while a commit syncs, the next group gathers.
//! 2. A group is one transaction, in a fixed order: enqueues and ends of executions, each as a few statements for all
//!    calls of the kind, then errands, then leases. Leases come last and so see what the others made due. Before all of
//!    them comes a look at the clocks (`steps`).
//! 3. Callers are answered after the commit, and only a commit that succeeded counts.
//! 4. If the group fails, it is rolled back and its calls are tried one by one, so that a bad one fails alone.
//!    A disk that is full or fails, and a lock that another process holds, fail the whole group instead. Ends of
//!    executions are then kept aside, because their work is done: they go into every further group, and are tried
//!    by themselves with a growing pause. Nobody else waits for them. What is in the way is signalled, and told by
//!    whoever listens.
//! 5. After a failed commit the connection is replaced: sqlx's idea of its depth may be wrong by then.
//! 6. No call is ever dropped half-way: callers may go away, the write goes on.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{mpsc, oneshot};

use super::super::error::{Obstacle, Result, StoreError};
use super::super::queue::{Enqueued, Leased, Settled, Settlement};
use super::Signals;
use super::catalog::Catalog;
use super::enqueue::{Intake, Offer};
use super::kept::{self, Kept};
use super::lease::{Asked, Leases};
use super::settle::Ends;
use super::steps::Watchmaker;
use super::tally::Tally;

/// Calls that may wait; callers beyond it wait for room.
const WAITING_CALLS: usize = 1_024;
/// Rows that one group takes at most, so that a commit stays short.
const GROUP_ROWS: usize = 20_000;
/// The callers' end of the channel.
#[derive(Debug)]
pub(super) struct Writer {
    calls: std::sync::Mutex<Option<mpsc::Sender<Call>>>,
}

/// The task that owns the write connection. It has to be spawned; it ends when the store is closed, or fails
/// when going on could acknowledge what was not written.
#[derive(Debug)]
pub struct WriterTask {
    calls: mpsc::Receiver<Call>,
    connection: Option<SqliteConnection>,
    options: SqliteConnectOptions,
    scribe: Scribe,
    signals: Arc<Signals>,
    kept: Kept,
}

/// What writes a group.
#[derive(Debug)]
pub(super) struct Scribe {
    pub intake: Intake,
    pub ends: Ends,
    pub leases: Leases,
    pub catalog: Catalog,
    pub watchmaker: Watchmaker,
}

/// One caller's request.
#[derive(Debug)]
enum Call {
    Enqueue { offer: Offer, reply: oneshot::Sender<Result<Vec<Enqueued>>> },
    Settle { settlements: Vec<Settlement>, reply: oneshot::Sender<Result<Vec<Settled>>> },
    Errand(Box<dyn Errand>),
    Lease { asked: Asked, reply: oneshot::Sender<Result<Leased>> },
    Outside(Box<dyn Errand>),
}

/// A call of its own kind: runs in the transaction, keeps its answer, gives it after the commit.
trait Errand: Send + std::fmt::Debug {
    fn run<'t>(&'t mut self, tx: &'t mut SqliteConnection, tally: &'t mut Tally) -> BoxFuture<'t, Result<()>>;
    fn answer(self: Box<Self>, result: Result<()>);
}

struct Closure<T, F> {
    body: F,
    output: Option<T>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> std::fmt::Debug for Closure<T, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Closure")
    }
}

impl<T, F> Errand for Closure<T, F>
where
    T: Send + 'static,
    F: for<'t> Fn(&'t mut SqliteConnection, &'t mut Tally) -> BoxFuture<'t, Result<T>> + Send + Sync + 'static,
{
    fn run<'t>(&'t mut self, tx: &'t mut SqliteConnection, tally: &'t mut Tally) -> BoxFuture<'t, Result<()>> {
        Box::pin(async move {
            self.output = Some((self.body)(tx, tally).await?);
            Ok(())
        })
    }

    fn answer(self: Box<Self>, result: Result<()>) {
        let Self { output, reply, .. } = *self;
        // A caller that went away has no use for it.
        drop(reply.send(result.and_then(|()| output.ok_or(StoreError::Closed))));
    }
}

impl Writer {
    pub(super) fn new(
        connection: SqliteConnection,
        options: SqliteConnectOptions,
        scribe: Scribe,
        signals: Arc<Signals>,
    ) -> (Self, WriterTask) {
        let (sender, calls) = mpsc::channel(WAITING_CALLS);
        let task = WriterTask { calls, connection: Some(connection), options, scribe, signals, kept: Kept::default() };
        (Self { calls: std::sync::Mutex::new(Some(sender)) }, task)
    }

    /// A writer that refuses, for stores that only read.
    pub(super) const fn absent() -> Self {
        Self { calls: std::sync::Mutex::new(None) }
    }

    pub(super) fn close(&self) {
        self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }

    pub(super) async fn enqueue(&self, offer: Offer) -> Result<Vec<Enqueued>> {
        self.call(|reply| Call::Enqueue { offer, reply }).await
    }

    pub(super) async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<Settled>> {
        self.call(|reply| Call::Settle { settlements, reply }).await
    }

    /// Leases, after everything else of its group.
    pub(super) async fn lease(&self, asked: Asked) -> Result<Leased> {
        self.call(|reply| Call::Lease { asked, reply }).await
    }

    pub(super) async fn errand<T, F>(&self, body: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut SqliteConnection, &'t mut Tally) -> BoxFuture<'t, Result<T>> + Send + Sync + 'static,
    {
        self.call(|reply| Call::Errand(closure(body, reply))).await
    }

    pub(super) async fn outside<T, F>(&self, body: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut SqliteConnection) -> BoxFuture<'t, Result<T>> + Send + Sync + 'static,
    {
        self.call(|reply| Call::Outside(closure(move |connection, _| body(connection), reply))).await
    }

    async fn call<T>(&self, make: impl FnOnce(oneshot::Sender<Result<T>>) -> Call) -> Result<T> {
        let sender = self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let (reply, answer) = oneshot::channel();
        sender.ok_or(StoreError::Closed)?.send(make(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

fn closure<T, F>(body: F, reply: oneshot::Sender<Result<T>>) -> Box<dyn Errand>
where
    T: Send + 'static,
    F: for<'t> Fn(&'t mut SqliteConnection, &'t mut Tally) -> BoxFuture<'t, Result<T>> + Send + Sync + 'static,
{
    Box::new(Closure { body, output: None, reply })
}

impl Call {
    fn rows(&self) -> usize {
        match self {
            Self::Enqueue { offer, .. } => offer.jobs.len(),
            Self::Settle { settlements, .. } => settlements.len(),
            _ => 1,
        }
    }

    fn refuse(self, error: StoreError) {
        match self {
            Self::Enqueue { reply, .. } => drop(reply.send(Err(error))),
            Self::Settle { reply, .. } => drop(reply.send(Err(error))),
            Self::Lease { reply, .. } => drop(reply.send(Err(error))),
            Self::Errand(errand) | Self::Outside(errand) => errand.answer(Err(error)),
        }
    }
}

/// The calls of one transaction, by kind.
#[derive(Default)]
struct Group {
    enqueues: Vec<(Offer, oneshot::Sender<Result<Vec<Enqueued>>>)>,
    settles: Vec<(Vec<Settlement>, oneshot::Sender<Result<Vec<Settled>>>)>,
    errands: Vec<Box<dyn Errand>>,
    leases: Vec<(Asked, oneshot::Sender<Result<Leased>>)>,
}

/// What the merged statements of a group answered.
struct Answers {
    enqueued: Vec<Enqueued>,
    settled: Vec<Settled>,
    leased: Vec<Leased>,
    tally: Tally,
}

impl Group {
    fn add(&mut self, call: Call) {
        match call {
            Call::Enqueue { offer, reply } => self.enqueues.push((offer, reply)),
            Call::Settle { settlements, reply } => self.settles.push((settlements, reply)),
            Call::Lease { asked, reply } => self.leases.push((asked, reply)),
            Call::Errand(errand) | Call::Outside(errand) => self.errands.push(errand),
        }
    }

    fn len(&self) -> usize {
        self.enqueues.len() + self.settles.len() + self.errands.len() + self.leases.len()
    }

    fn into_calls(self) -> Vec<Call> {
        let mut calls = Vec::with_capacity(self.len());
        calls.extend(self.enqueues.into_iter().map(|(offer, reply)| Call::Enqueue { offer, reply }));
        calls.extend(self.settles.into_iter().map(|(settlements, reply)| Call::Settle { settlements, reply }));
        calls.extend(self.errands.into_iter().map(Call::Errand));
        calls.extend(self.leases.into_iter().map(|(asked, reply)| Call::Lease { asked, reply }));
        calls
    }

    fn answer(self, answers: Answers) {
        let mut enqueued = answers.enqueued.into_iter();
        for (offer, reply) in self.enqueues {
            drop(reply.send(Ok(enqueued.by_ref().take(offer.jobs.len()).collect())));
        }
        let mut settled = answers.settled.into_iter();
        for (settlements, reply) in self.settles {
            drop(reply.send(Ok(settled.by_ref().take(settlements.len()).collect())));
        }
        for errand in self.errands {
            errand.answer(Ok(()));
        }
        for ((_, reply), leased) in self.leases.into_iter().zip(answers.leased) {
            drop(reply.send(Ok(leased)));
        }
    }
}

impl WriterTask {
    /// Writes until the store is closed.
    ///
    /// # Errors
    /// The disk failed under a commit, or the database is damaged: the outcome of the last writes is unknown, so
    /// the daemon has to leave and find out at its next start.
    pub async fn run(mut self) -> Result<()> {
        loop {
            let (group, outside) = tokio::select! {
                call = self.calls.recv() => match call {
                    Some(first) => {
                        // Whoever is about to call gets to: the dispatcher's ends and its next lease share a commit.
                        tokio::task::yield_now().await;
                        self.gather(first)
                    }
                    None => break,
                },
                () = self.kept.due() => (Group::default(), Vec::new()),
            };
            self.write(group).await?;
            for errand in outside {
                self.write_outside(errand).await?;
            }
        }
        self.close().await
    }

    /// Tries what was kept a last time, then closes the connection.
    async fn close(mut self) -> Result<()> {
        if !self.kept.settles.is_empty() {
            self.write(Group::default()).await?;
        }
        for (_, reply) in self.kept.settles.drain(..) {
            drop(reply.send(Err(StoreError::Closed)));
        }
        if let Some(connection) = self.connection.take() {
            connection.close().await?;
        }
        Ok(())
    }

    fn gather(&mut self, first: Call) -> (Group, Vec<Box<dyn Errand>>) {
        let (mut group, mut outside, mut rows) = (Group::default(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(call) = next {
            rows += call.rows();
            match call {
                Call::Outside(errand) => outside.push(errand),
                call => group.add(call),
            }
            next = if rows < GROUP_ROWS { self.calls.try_recv().ok() } else { None };
        }
        (group, outside)
    }

    async fn write(&mut self, mut group: Group) -> Result<()> {
        group.settles.append(&mut self.kept.take());
        if group.len() == 0 {
            return Ok(());
        }
        if let Err(error) = self.connection().await {
            if error.is_fatal() {
                return Err(refuse_all(group, error));
            }
            // Nothing was tried: what is done stays done until there is a connection again.
            self.keep_ends(group, &error);
            return Ok(());
        }
        match self.transact(&mut group).await {
            Ok(answers) => {
                let there_is_room = *self.signals.obstacle.borrow() != Some(Obstacle::NoRoom);
                if there_is_room || kept::has_written(self.connection.as_mut()).await {
                    self.note_obstacle(None);
                }
                self.acknowledge(group, answers);
            }
            Err(error) if error.is_fatal() => return Err(refuse_all(group, error)),
            Err(error) if error.is_passing() => self.keep_ends(group, &error),
            Err(error) if group.len() == 1 => {
                refuse_all(group, error);
            }
            Err(_) => {
                for call in group.into_calls() {
                    let mut alone = Group::default();
                    alone.add(call);
                    Box::pin(self.write(alone)).await?;
                }
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, group: Group, answers: Answers) {
        self.kept.pause = Duration::ZERO;
        if answers.enqueued.contains(&Enqueued::Full) {
            self.signals.refused.send_modify(|n| *n = n.wrapping_add(1));
        }
        let (leasable, moved) = (answers.tally.is_leasable(), !answers.tally.is_empty());
        group.answer(answers);
        if leasable {
            self.signals.leasable.notify_waiters();
        }
        if moved {
            self.signals.activity.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    fn note_obstacle(&self, obstacle: Option<Obstacle>) {
        self.signals.obstacle.send_if_modified(|known| std::mem::replace(known, obstacle) != obstacle);
    }

    /// Keeps the ends of executions for later, and tells everybody else.
    fn keep_ends(&mut self, group: Group, error: &StoreError) {
        self.note_obstacle(error.obstacle());
        for call in group.into_calls() {
            match call {
                Call::Settle { settlements, reply } => self.kept.settles.push((settlements, reply)),
                other => other.refuse(error.clone()),
            }
        }
        if !self.kept.settles.is_empty() {
            self.kept.postpone();
        }
    }

    async fn write_outside(&mut self, mut errand: Box<dyn Errand>) -> Result<()> {
        let mut unused = Tally::default();
        self.scribe.catalog.forget();
        let result = match self.connection().await {
            Ok(connection) => errand.run(connection, &mut unused).await,
            Err(error) => Err(error),
        };
        let fatal = result.as_ref().err().filter(|error| error.is_fatal()).cloned();
        errand.answer(result);
        fatal.map_or(Ok(()), Err)
    }

    async fn connection(&mut self) -> Result<&mut SqliteConnection> {
        if self.connection.is_none() {
            self.connection = Some(self.options.connect().await?);
        }
        self.connection.as_mut().ok_or(StoreError::Closed)
    }

    async fn transact(&mut self, group: &mut Group) -> Result<Answers> {
        let Some(mut connection) = self.connection.take() else { return Err(StoreError::Closed) };
        let result = self.scribe.transaction(&mut connection, group).await;
        match &result {
            // A failed transaction may leave a connection whose depth sqlx counts wrongly.
            Err(_) => {
                self.scribe.catalog.forget();
                drop(connection.close_hard().await);
            }
            Ok(_) => self.connection = Some(connection),
        }
        result
    }
}

impl Scribe {
    async fn transaction(&mut self, connection: &mut SqliteConnection, group: &mut Group) -> Result<Answers> {
        let Self { intake, ends, leases, catalog, watchmaker } = self;
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
        let mut tally = Tally::default();
        watchmaker.look(&mut tx).await?;
        let offers = group.enqueues.iter().map(|(offer, _)| offer);
        let enqueued = intake.write(&mut tx, offers, catalog, &mut tally).await?;
        let settled = ends.write(&mut tx, group.settles.iter().flat_map(|(ends, _)| ends), &mut tally).await?;
        for errand in &mut group.errands {
            errand.run(&mut tx, &mut tally).await?;
            // It may have changed anything.
            catalog.forget();
        }
        let mut leased = Vec::with_capacity(group.leases.len());
        for (asked, _) in &group.leases {
            leased.push(leases.give(&mut tx, asked, catalog, &mut tally).await?);
        }
        tally.write(&mut tx, catalog, intake.now()).await?;
        tx.commit().await?;
        catalog.committed();
        watchmaker.committed();
        Ok(Answers { enqueued, settled, leased, tally })
    }
}

fn refuse_all(group: Group, error: StoreError) -> StoreError {
    for call in group.into_calls() {
        call.refuse(error.clone());
    }
    error
}
