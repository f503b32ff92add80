//! Keys: how many one core makes in a second.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use ingestd::job::{
    CanonicalJson, EffectKey, EffectKind, IdempotencyKey, Incarnation, LARGEST_CONTEXT_BYTES, Op, SourceKey,
};

use crate::Bench;
use crate::report::{self, Aim, grouped, median};

const KEYS: u32 = 1_000_000;
const ROUNDS: usize = 5;
/// Keys that one core should make in a second.
const AIM: f64 = 1e6;

/// Idempotency keys of watched files with paths of some 60 bytes, and keys of effects.
pub fn made(_: &Bench) {
    let incarnation = Incarnation([7; 16]);
    let relative = PathBuf::from("2026/11/21/department-of-measurements/station-0042-a.csv");
    let source = SourceKey::Watched { watch: "inbox".to_owned(), relative };
    let figure = per_second(|n| {
        black_box(IdempotencyKey::derive(black_box(&incarnation), "documents", &source, i64::from(n), Op::Add));
    });
    tell("idempotency keys, one core", figure);
    let kind: EffectKind = "upload".parse().unwrap();
    let context = serde_json::json!({ "bucket": "archive", "part": 7 });
    let context = CanonicalJson::of(&context, LARGEST_CONTEXT_BYTES).unwrap();
    let mut job = IdempotencyKey([0; 32]);
    let figure = per_second(|n| {
        job.0[..4].copy_from_slice(&n.to_be_bytes());
        black_box(EffectKey::derive(&kind, black_box(&job), &context));
    });
    tell("keys of effects, one core", figure);
}

fn per_second(mut make: impl FnMut(u32)) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        (0..KEYS).for_each(&mut make);
        begun.elapsed()
    });
    f64::from(KEYS) / median(rounds.collect()).as_secs_f64()
}

fn tell(what: &str, figure: f64) {
    let aim = Aim::that(&format!("≥ {}/s", grouped(AIM)), figure >= AIM);
    report::row(what, &format!("{}/s", grouped(figure)), "", None, &aim);
}
