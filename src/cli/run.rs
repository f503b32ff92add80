//! `ingestd run`

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;

use super::connect::{self, RunOptions};
use super::context::Context;
use super::failure::{Done, Failure};
use super::progress;

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
    let global = &context.global;
    let config = match &args.watch {
        Some(folder) => {
            let folder = std::path::absolute(folder)
                .map_err(|error| Failure::usage(format!("`{}` is not a folder: {error}", folder.display())))?;
            connect::quick(&folder, args.exec.as_deref(), global.database.as_deref())?
        }
        None => connect::load(global.config.clone(), global.database.clone(), true)?.config,
    };
    let terminal = std::io::stderr().is_terminal() && global.verbose == 0 && !global.quiet;
    let verbosity = i8::try_from(global.verbose).unwrap_or(i8::MAX) - i8::from(global.quiet);
    connect::telemetry(&config.log, verbosity, terminal)?;
    let options = RunOptions {
        once: args.once,
        reload: args.watch.is_none(),
        file: global.config.clone(),
        database: global.database.clone(),
        progress: terminal.then(|| Box::new(progress::show) as connect::Progress),
    };
    connect::run(config, options).await
}
