//! The loop: sleeps until the next duty, a command, or news of the settings.

use std::pin::pin;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::command::Request;
use super::duty::{Context, DUTIES, Duty, Failure, First};
use super::record::Record;
use super::schedule::Slot;
use crate::clock::millis;
use crate::config;
use crate::lifecycle::Pulse;
use crate::store::StoreError;
use crate::warnings::Severity;

/// The longest sleep: tokio's timers stand still while the machine is suspended, and duties do not.
const LONGEST_SLEEP: Duration = Duration::from_mins(10);

/// Runs the duties until `stop`; a duty that runs then is dropped where it stands, which each survives.
///
/// # Errors
/// None today: whatever a duty meets is recorded, and the stations that write find out by themselves when the
/// database is lost.
pub async fn run(
    context: Context,
    mut requests: mpsc::Receiver<Request>,
    mut settings: watch::Receiver<config::Maintenance>,
    mut pulse: Pulse,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let at_first = settings.borrow_and_update().clone();
    let mut runner = Runner::new(context, at_first).await;
    loop {
        let pause = runner.until_next();
        let work = async {
            tokio::select! {
                Some(request) = requests.recv() => runner.answer(request).await,
                Ok(()) = settings.changed() => runner.adopt(settings.borrow_and_update().clone()),
                () = tokio::time::sleep(pause) => runner.run_due().await,
            }
        };
        if attended(work, &mut pulse, &stop).await.is_none() {
            return Ok(());
        }
    }
}

/// Answers the watchdog while the work goes on; `None`: it was time to stop.
async fn attended<T>(work: impl Future<Output = T>, pulse: &mut Pulse, stop: &CancellationToken) -> Option<T> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Some(done),
            () = stop.cancelled() => return None,
            () = pulse.asked() => pulse.beat(),
        }
    }
}

struct Runner {
    context: Context,
    settings: config::Maintenance,
    slots: Vec<(&'static dyn Duty, Slot)>,
}

impl Runner {
    async fn new(context: Context, settings: config::Maintenance) -> Self {
        let mut slots = Vec::with_capacity(DUTIES.len());
        for duty in DUTIES {
            let now = context.clock.boottime();
            let slot = match duty.first() {
                First::AtOnce => Slot::at_once(now),
                First::AfterPeriod => Slot::from(now),
                First::AsRecorded => recorded(duty, &context, &settings).await,
            };
            slots.push((duty, slot));
        }
        Self { context, settings, slots }
    }

    /// Takes over new settings; what a duty complained about ends with the duty.
    fn adopt(&mut self, settings: config::Maintenance) {
        self.settings = settings;
        for (duty, _) in &self.slots {
            if duty.period(&self.context, &self.settings).is_zero() {
                self.context.warnings.clear(&warning_key(*duty));
            }
        }
    }

    fn until_next(&self) -> Duration {
        let now = self.context.clock.boottime();
        let waits = self.slots.iter().filter_map(|(duty, slot)| {
            let due = slot.due(duty.period(&self.context, &self.settings))?;
            Some(due.since(now))
        });
        waits.min().unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
    }

    /// Runs what is due, each once.
    async fn run_due(&mut self) {
        for index in 0..self.slots.len() {
            let (duty, slot) = self.slots[index];
            let due = slot.due(duty.period(&self.context, &self.settings));
            if due.is_some_and(|due| due <= self.context.clock.boottime()) {
                let began = self.context.clock.boottime();
                let result = duty.run(&self.context, &self.settings).await;
                let took = self.context.clock.boottime().since(began);
                self.finish(index, took, result).await;
            }
        }
    }

    /// Does what a person asked for; it counts as a run of the duty that it stands for.
    async fn answer(&mut self, request: Request) {
        let began = self.context.clock.boottime();
        let result = request.command.run(&self.context, &self.settings).await;
        let took = self.context.clock.boottime().since(began);
        let stands_for = request.command.stands_for();
        let index = self.slots.iter().position(|(duty, _)| Some(duty.name()) == stands_for);
        // A failure goes to the person who asked, and is no news for the others.
        if let (Some(index), Ok(figures)) = (index, &result) {
            self.finish(index, took, Ok(Some(figures.clone()))).await;
        }
        // Whoever asked may have gone since.
        let _ = request.reply.send(result);
    }

    /// Notes how a run went: its next time, its record, its warning.
    async fn finish(&mut self, index: usize, took: Duration, result: Result<Option<Value>, Failure>) {
        let now = self.context.clock.boottime();
        let (duty, slot) = &mut self.slots[index];
        let duty = *duty;
        match result {
            Ok(figures) => {
                slot.ran(now);
                self.context.warnings.clear(&warning_key(duty));
                if let Some(figures) = figures {
                    self.note(duty, took, Ok(figures)).await;
                }
            }
            // The daemon is leaving.
            Err(Failure::Store(StoreError::Closed)) => slot.ran(now),
            Err(failure) => {
                if failure.is_passing() {
                    slot.passed_over(now);
                } else {
                    slot.ran(now);
                }
                // That somebody else holds the database is told once, by whoever watches that.
                if !matches!(failure, Failure::Store(StoreError::Busy)) {
                    warn(&self.context, duty, &failure.to_string());
                }
                self.note(duty, took, Err(failure.to_string())).await;
            }
        }
    }

    async fn note(&self, duty: &dyn Duty, took: Duration, result: Result<Value, String>) {
        let (now, duration_ms) = (self.context.clock.wall(), millis(took));
        let store = self.context.settings.as_ref();
        let kept = async {
            let record = match result {
                Ok(figures) => Record::ran(now, duration_ms, figures),
                Err(error) => Record::failed(now, duration_ms, Record::load(store, duty.name()).await?, error),
            };
            record.save(store, duty.name()).await
        };
        if let Err(error) = kept.await {
            tracing::debug!(duty = duty.name(), %error, "the run of a duty could not be recorded");
        }
    }
}

async fn recorded(duty: &dyn Duty, context: &Context, settings: &config::Maintenance) -> Slot {
    let (wall, now) = (context.clock.wall(), context.clock.boottime());
    let store = context.settings.as_ref();
    match Record::load(store, duty.name()).await {
        Ok(Some(record)) => {
            duty.recall(context, &record.figures);
            if let Some(error) = record.error
                && !duty.period(context, settings).is_zero()
            {
                warn(context, duty, &error);
            }
            Slot::since(record.since, wall, now)
        }
        // Kept, so that a daemon that never lives for a whole period still gets to its duties.
        Ok(None) => {
            if let Err(error) = Record::first_seen(wall).save(store, duty.name()).await {
                tracing::debug!(duty = duty.name(), %error, "a duty's first period could not be recorded");
            }
            Slot::from(now)
        }
        Err(error) => {
            tracing::debug!(duty = duty.name(), %error, "a duty's last run could not be read");
            Slot::from(now)
        }
    }
}

fn warn(context: &Context, duty: &dyn Duty, error: &str) {
    let message = format!("maintenance: {} failed: {error}", duty.name());
    context.warnings.set(&warning_key(duty), Severity::Warning, message);
}

fn warning_key(duty: &dyn Duty) -> String {
    format!("maintenance.{}", duty.name())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{MaintenanceCommand, MaintenanceHandle, channel, fake};
    use super::*;
    use crate::clock::SystemClock;
    use crate::lifecycle::Pulses;
    use crate::maintenance::Steady;
    use crate::store::{Prunable, Upkeep};

    const DAY: Duration = Duration::from_hours(24);

    fn off() -> config::Maintenance {
        config::Maintenance {
            wal_checkpoint_interval: Duration::ZERO,
            vacuum_interval: Duration::ZERO,
            prune_interval: Duration::ZERO,
            check_interval: Duration::ZERO,
            backup: config::Backup { interval: Duration::ZERO, directory: None, keep: 1 },
            min_free_space_bytes: 0,
            ..config::Maintenance::default()
        }
    }

    #[tokio::test]
    async fn a_daily_duty_is_due_a_day_after_its_last_run_in_any_process() {
        let (context, store, clock) = fake::context();
        let settings = config::Maintenance { vacuum_interval: DAY, ..off() };
        let mut first = Runner::new(context.clone(), settings.clone()).await;
        first.run_due().await;
        assert_eq!(store.state().optimized, 0);

        clock.advance(DAY * 3 / 4);
        let mut second = Runner::new(context.clone(), settings.clone()).await;
        second.run_due().await;
        assert_eq!(store.state().optimized, 0);
        clock.advance(DAY / 4);
        second.run_due().await;
        assert_eq!(store.state().optimized, 1);

        let mut third = Runner::new(context.clone(), settings).await;
        third.run_due().await;
        assert_eq!(store.state().optimized, 1);
        let record = Record::load(&*store, "vacuum").await.unwrap().unwrap();
        assert_eq!(record.last_at, Some(context.clock.wall()));
    }

    #[tokio::test]
    async fn a_failure_warns_and_is_recorded_until_the_duty_succeeds() {
        let (context, store, clock) = fake::context();
        let mut runner = Runner::new(context.clone(), config::Maintenance { prune_interval: DAY, ..off() }).await;
        clock.advance(DAY);
        store.state().fail_with = Some(StoreError::Full);
        runner.run_due().await;
        assert_eq!(context.warnings.list()[0].key, "maintenance.prune");
        let record = Record::load(&*store, "prune").await.unwrap().unwrap();
        assert!(record.error.unwrap().contains("no space"));
        // A passing error is tried again after a short pause, not after a day.
        assert_eq!(runner.until_next(), Duration::from_secs(5));

        store.state().fail_with = None;
        clock.advance(Duration::from_secs(5));
        runner.run_due().await;
        assert!(context.warnings.list().is_empty());
        assert_eq!(Record::load(&*store, "prune").await.unwrap().unwrap().error, None);
    }

    #[tokio::test]
    async fn a_lock_in_other_hands_is_no_warning_of_each_duty() {
        let (context, store, clock) = fake::context();
        let mut runner = Runner::new(context.clone(), config::Maintenance { prune_interval: DAY, ..off() }).await;
        clock.advance(DAY);
        store.state().fail_with = Some(StoreError::Busy);
        runner.run_due().await;
        assert!(context.warnings.list().is_empty());
        assert_eq!(runner.until_next(), Duration::from_secs(5));
    }

    #[tokio::test]
    async fn an_error_that_does_not_pass_waits_for_the_next_period_and_its_warning_ends_with_the_duty() {
        let (context, store, clock) = fake::context();
        let mut runner = Runner::new(context.clone(), config::Maintenance { prune_interval: DAY, ..off() }).await;
        clock.advance(DAY);
        store.state().fail_with = Some(StoreError::Other("no such table".into()));
        runner.run_due().await;
        let (_, slot) = runner.slots.iter().find(|(duty, _)| duty.name() == "prune").unwrap();
        assert_eq!(slot.due(DAY), Some(context.clock.boottime().plus(DAY)));
        let warned = || context.warnings.list().iter().any(|warning| warning.key == "maintenance.prune");
        assert!(warned());
        runner.adopt(off());
        assert!(!warned());
    }

    #[tokio::test]
    async fn what_was_wrong_before_a_restart_is_still_said_after_it() {
        let (context, store, clock) = fake::context();
        let settings =
            config::Maintenance { check_interval: DAY, backup: config::Maintenance::default().backup, ..off() };
        let mut runner = Runner::new(context.clone(), settings.clone()).await;
        clock.advance(DAY);
        store.state().findings = vec!["torn".into(); 5];
        store.state().path = std::path::PathBuf::from("/proc/nowhere/ingestd.db");
        runner.run_due().await;
        let before = context.warnings.list();
        let keys: Vec<&str> = before.iter().map(|warning| warning.key.as_str()).collect();
        assert_eq!(keys, ["database.check", "maintenance.backup"]);

        let reborn = Context { warnings: crate::warnings::Warnings::new(clock.clone()), ..context };
        Runner::new(reborn.clone(), settings).await;
        assert_eq!(reborn.warnings.list(), before);
        let turned_off = Context { warnings: crate::warnings::Warnings::new(clock.clone()), ..reborn };
        Runner::new(turned_off.clone(), off()).await;
        assert_eq!(turned_off.warnings.list(), before[..1]);
    }

    struct Loop {
        handle: MaintenanceHandle,
        settings: watch::Sender<config::Maintenance>,
        pulses: Pulses,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<anyhow::Result<()>>,
    }

    fn start(context: Context) -> Loop {
        let (handle, requests) = channel();
        let (settings, receiver) = watch::channel(off());
        let (pulses, stop) = (Pulses::default(), CancellationToken::new());
        let task = tokio::spawn(run(context, requests, receiver, pulses.register("maintenance"), stop.clone()));
        Loop { handle, settings, pulses, stop, task }
    }

    async fn until(mut condition: impl FnMut() -> bool) {
        let poll = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), poll).await.unwrap();
    }

    #[tokio::test]
    async fn the_loop_obeys_new_settings_answers_commands_and_stops() {
        let (mut context, store, _clock) = fake::context();
        context.clock = Steady::anchored(Arc::new(SystemClock));
        let running = start(context.clone());
        store.fill(Prunable::Rates, context.clock.now().minus(DAY), 3);

        let dry = running.handle.ask(MaintenanceCommand::Prune { dry_run: true }).await.unwrap();
        assert_eq!((&dry["rates"], store.rows(Prunable::Rates)), (&3.into(), 3));
        let fast = config::Maintenance { prune_interval: Duration::from_millis(20), ..off() };
        running.settings.send(fast).unwrap();
        until(|| store.rows(Prunable::Rates) == 0).await;

        store.state().findings = vec!["torn".into()];
        let check = running.handle.ask(MaintenanceCommand::Check).await.unwrap();
        assert_eq!((&check["findings"], &check["all"][0]), (&1.into(), &"torn".into()));

        running.stop.cancel();
        running.task.await.unwrap().unwrap();
        assert!(running.handle.ask(MaintenanceCommand::Vacuum).await.is_err());
    }

    #[tokio::test]
    async fn a_long_duty_neither_silences_the_watchdog_nor_delays_the_stop() {
        let (context, store, _clock) = fake::context();
        store.state().hangs = true;
        let running = start(context);
        let handle = running.handle.clone();
        let asker = tokio::spawn(async move { handle.ask(MaintenanceCommand::Vacuum).await });
        until(|| store.state().hanging).await;
        running.pulses.ask();
        until(|| running.pulses.silent().is_empty()).await;
        running.stop.cancel();
        running.task.await.unwrap().unwrap();
        asker.await.unwrap().unwrap_err();
        assert!(store.sizes().await.is_ok());
    }
}
