//! `ingestd run`

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;

use super::context::Context;
use super::failure::{Done, Failure};
use super::progress;
use crate::config;
use crate::daemon::{self, RunOptions};
use crate::telemetry;

/// How to run the daemon.
#[derive(Args, Debug)]
pub struct Run {
    /// End when everything found is done; exit 1 if anything failed.
    #[arg(long)]
    once: bool,
    /// Process this folder, without any configuration file.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    watch: Option<PathBuf>,
    /// With --watch: the command for each file, for instance 'sha256sum {path}'; no shell is involved.
    #[arg(long, value_name = "CMD", requires = "watch")]
    exec: Option<String>,
}

pub async fn run(args: Run, context: &mut Context) -> Done {
    let sources = context.sources();
    let (config, sources) = match &args.watch {
        Some(folder) => (config::quick(folder, args.exec.as_deref(), context.global.database.as_deref())?, None),
        None => (config::load(&sources)?.config, Some(sources)),
    };
    // The live line has the terminal for itself, but for warnings; whoever asks for more gets the log.
    let global = &context.global;
    let line = std::io::stderr().is_terminal() && global.verbose == 0 && !global.quiet;
    let less = i8::from(global.quiet) + i8::from(line);
    let verbosity = i8::try_from(global.verbose).unwrap_or(i8::MAX) - less;
    let failed = |error: anyhow::Error| Failure::failed(format!("{error:#}"));
    let telemetry = telemetry::init(&config.log, verbosity).map_err(failed)?;
    let progress = line.then(|| Box::new(progress::show) as daemon::Progress);
    daemon::run(config, RunOptions { once: args.once, sources, progress, telemetry }).await.map_err(failed)
}
