//! The store against a model of its semantics: random sequences of everything that can happen to a queue, by a clock
//! that moves when told, on a real database, shrunken to the shortest one that fails.
//!
//! 1. `actions` draws a sequence.
//! 2. `world` and `workers` carry each action out on the store and on the model (`semantics`, `renames`, `executions`), and compare
//!    the answers, in the terms of both (`terms`).
//! 3. `check` reads the tables after every step, past the code under test: the promises hold by themselves, and every
//!    row is as the model has it.
//!
//! A run of `cargo test` takes fixed seeds, a few thousand steps, so that it says the same twice. Random seeds for as
//! long as wanted: `INGESTD_MODEL_MINUTES=60 cargo test --release --test suite model::`; one seed again:
//! `INGESTD_MODEL_SEED=… cargo test --test suite model::`.

mod actions;
mod check;
mod executions;
mod renames;
mod semantics;
mod terms;
mod workers;
mod world;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use actions::{Action, sequences};
use world::World;

/// The seeds of an ordinary run.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;
/// Steps of a sequence, at most.
const LONGEST: usize = 120;
/// Sequences of one seed in an ordinary run, and between two looks at the clock in a long one.
const SEQUENCES: u32 = 15;
/// How long a failing sequence is made shorter at most, in seconds, unless `INGESTD_MODEL_SHRINK` says otherwise.
const SHRINK_S: u64 = 300;

#[test]
fn the_store_does_what_the_model_does() {
    if let Some(seed) = number("INGESTD_MODEL_SEED") {
        return hold(seed);
    }
    let Some(minutes) = number("INGESTD_MODEL_MINUTES") else { return SEEDS.for_each(hold) };
    let (start, mut seeds) = (Instant::now(), 0_u64);
    while start.elapsed() < Duration::from_secs(minutes * 60) {
        hold(fastrand::u64(..));
        seeds += 1;
    }
    eprintln!("{seeds} random seeds held for {} s", start.elapsed().as_secs());
}

fn number(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}

/// Tries the sequences of one seed.
fn hold(seed: u64) {
    let mut config = Config { cases: SEQUENCES, failure_persistence: None, ..Config::default() };
    let shrink_ms = number("INGESTD_MODEL_SHRINK").unwrap_or(SHRINK_S) * 1_000;
    (config.max_shrink_iters, config.max_shrink_time) = (1_000_000, u32::try_from(shrink_ms).unwrap());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let failure =
        runner.run(&sequences(LONGEST), |actions| run(&actions, &mut String::new()).map_err(TestCaseError::fail));
    match failure {
        Ok(()) => {}
        Err(TestError::Fail(_, actions)) => {
            let mut story = String::new();
            let why = run(&actions, &mut story).err().unwrap_or_else(|| "it did not fail again".to_owned());
            panic!(
                "the store and the model part. The shortest sequence found:\n{story}\n    {why}\n\
                 Again: INGESTD_MODEL_SEED={seed} cargo test --test suite model::"
            );
        }
        Err(TestError::Abort(why)) => panic!("no sequence could be drawn: {why}"),
    }
}

/// Runs one sequence, and tells each step as it happened.
fn run(actions: &[Action], story: &mut String) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new().await;
        for (at, action) in actions.iter().enumerate() {
            let told = world.step(action).await;
            let _ = writeln!(story, "{:3}. {action:?}\n     {}", at + 1, told.as_ref().map_or("", String::as_str));
            told?;
        }
        world.close().await;
        Ok(())
    })
}
