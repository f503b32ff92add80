//! The worker pool: permit → lease → attempt → settle.
//!
//! 1. One [`Dispatcher`] leases as many jobs as there are free permits, in one call: leased means started.
//! 2. Each job is an [`attempt`]: its content is looked at, its processor works on it, its file goes where
//!    `on_success` or `on_failure` send it. Nothing here writes a job's state.
//! 3. Ends gather while a commit syncs, and are settled together with the next lease.
//! 4. Leases are renewed together, at a third of their length. An attempt whose lease was lost, or was not renewed
//!    in time, is stopped before the lease can have expired: one alarm for the pool tells, by a clock that counts
//!    suspends too.
//! 5. A [`Throttle`] for each pipeline says how many of its permits count now: none while its breaker is open, but for
//!    a probe, and no more than its rate allows.
//! 6. The dispatcher sleeps until something changes or the next job becomes due; interest is registered before
//!    the queue is asked, so nothing that comes in between is missed.

mod alarm;
mod aside;
pub mod attempt;
mod batch;
mod bisect;
mod breaker;
mod command;
pub mod content;
pub mod dispatcher;
pub mod disposal;
mod given;
mod ledger;
mod look;
mod member;
mod process;
mod rate;
mod running;
mod settings;
mod throttle;
mod told;

pub use aside::Aside;
pub use command::{Command, Handles};
pub use dispatcher::Dispatcher;
pub use running::RunningJob;
pub use settings::{PipelineSettings, WorkerSettings};
pub use throttle::{BreakerShown, BreakerState, RateShown, Throttle};
