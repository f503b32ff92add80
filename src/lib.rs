//! ingestd: every file that arrives in a folder is processed, once, whatever crashes.
//!
//! > A folder is noticed, a file arrives, a job is written down, a worker borrows it, a processor does it, a verdict
//! > is recorded, time cleans up.
//!
//! Every verb of that sentence is a module, in that order, between the nouns that they speak of and the edges at
//! which people and the machine meet them:
//!
//! - nouns, pure: [`job`], [`run`], [`clock`]
//! - stations, one loop each: [`watch`], [`intake`], [`store`], [`worker`], [`processor`], [`maintenance`]
//! - edges: [`account`], [`cli`], [`config`], [`control`], [`daemon`], [`lifecycle`], [`telemetry`], and [`warnings`] and
//!   [`gate`], by which stations tell people, and intake, how things stand;
//!   [`durable`] and [`os`] are what the machine is asked for
//!
//! Stations meet in the database and not in each other; the exceptions are watch → intake and worker → processor.

#![cfg_attr(test, allow(clippy::pedantic, reason = "a test says what it means in the shortest way"))]

// ── nouns ──
pub mod clock;
pub mod job;
pub mod run;

// ── stations, in the order a file travels ──
pub mod watch;

pub mod intake;

pub mod store;

pub mod worker;

pub mod processor;

pub mod maintenance;

// ── edges ──
pub mod account;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod durable;
pub mod gate;
pub mod lifecycle;
pub mod os;
pub mod telemetry;
pub mod warnings;
