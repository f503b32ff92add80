//! The command line: one file for each verb, with the verb's name.
//!
//! 1. Arguments are parsed ([`Args`]); what is wrong with them exits with 2.
//! 2. The verb reads the database, or makes a request ([`context`]), and writes its result to the screen: tables
//!    for people ([`table`]), the promised shapes for programs ([`view`]).
//! 3. A [`failure`] is one line on stderr that begins with `ingestd: ` and says what to do; the exit code says
//!    what kind it is: 0 done, 1 failed, 2 wrong usage or configuration, 3 no such thing, 4 held by another.

mod add;
mod audit;
mod cancel;
mod completions;
mod config;
mod connect;
mod context;
mod db;
mod db_files;
mod db_stats;
mod effect;
mod explain;
mod explain_job;
mod explain_path;
mod failure;
mod failures;
mod filter;
mod foreign;
mod health;
mod history;
mod job_words;
mod kv;
mod list;
mod logs;
mod man;
mod path_words;
mod pause;
mod pipeline;
mod preview;
mod priority;
mod progress;
mod resume;
mod retry;
mod run;
mod run_view;
mod runs;
mod screen;
mod selection;
mod show;
mod stage;
mod stats;
mod status;
mod status_report;
mod status_runs;
mod sync;
mod table;
mod throttle;
mod time;
mod view;
mod wait;
mod watch;
mod watch_definition;
mod watch_show;
mod watch_test;
mod watch_view;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand};

use context::Context;
use failure::{Done, Failure};

use crate::os;
use crate::processor::DATABASE_VARIABLE;

const EXAMPLES: &str = "\
Examples:
  ingestd run --watch ~/inbox --exec 'sha256sum {path}' --once
                                   process a folder once, without configuration
  ingestd status                   what the daemon does, and what waits
  ingestd list --state failed      jobs that were given up
  ingestd failures                 the same, grouped by error
  ingestd show 42; ingestd logs 42 one job, and what it printed
  ingestd explain 42               why it does not run, or why it failed
  ingestd explain ~/inbox/a.pdf    why this file is not a job
  ingestd audit                    the proof that nothing is missing
  ingestd retry --failed --since 1d
                                   try again what failed since yesterday
  find . -name '*.pdf' -print0 | ingestd add -0 -
                                   enqueue files by name
  find . -name '*.pdf' | ingestd sync --name pdfs -
                                   the same as a run: resumable, with progress

Exit codes: 0 done, 1 it failed, 2 wrong usage or configuration, 3 no such job,
watch, pipeline or run, 4 another daemon runs on this database.";

/// Processes every file that arrives in a folder: none lost, none half-written, none done again without need.
#[derive(Debug, Parser)]
#[command(name = "ingestd", version, after_help = EXAMPLES, max_term_width = 100, disable_help_subcommand = true)]
pub struct Args {
    /// The flags that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// The flags that every command takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Global {
    /// Read this configuration file instead of the system's.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Options of every command")]
    pub config: Option<PathBuf>,
    /// Use this database.
    #[arg(
        help = "Use this database, for instance sqlite:///srv/queue/ingestd.db",
        long,
        global = true,
        value_name = "URL",
        help_heading = "Options of every command"
    )]
    pub database: Option<String>,
    /// Say more; twice for everything.
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Options of every command")]
    pub verbose: u8,
    /// Say less; `list -q` prints ids only.
    #[arg(short, long, global = true, help_heading = "Options of every command")]
    pub quiet: bool,
}

impl Args {
    /// Inside a processor a command speaks of the database whose daemon started it, unless it is told otherwise. The
    /// daemon itself is always told.
    fn take_database_from_environment(&mut self) -> Result<(), Failure> {
        let global = &mut self.global;
        if matches!(self.command, Command::Run(_)) || global.config.is_some() || global.database.is_some() {
            return Ok(());
        }
        if let Some(url) = std::env::var_os(DATABASE_VARIABLE).filter(|url| !url.is_empty()) {
            let url = url.into_string().map_err(|url| {
                Failure::usage(format!("{DATABASE_VARIABLE} is `{}`, which is not UTF-8", url.display()))
            })?;
            global.database = Some(url);
        }
        Ok(())
    }
}

/// How results are written.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Format {
    /// Print JSON: one document, or one line for each entry of a list.
    #[arg(long)]
    pub json: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground.
    Run(run::Run),
    /// Enqueue files.
    Add(add::Add),
    /// Work through a list of paths or JSON Lines; resumable.
    Sync(Box<sync::Sync>),
    /// Look after the watch folders that are kept in the database.
    Watch(watch::Watch),
    /// Look at the pipelines.
    Pipeline(pipeline::Pipeline),
    /// Stop starting jobs, of some pipelines or of all; survives a restart.
    Pause(pause::Pause),
    /// Start jobs again.
    Resume(resume::Resume),
    /// The queue and the daemon at a glance.
    Status(status::Status),
    /// For monitors: exit 0 fine, 1 warning, 2 critical, and one line that says why.
    Health(health::Health),
    /// List jobs, newest first.
    List(list::List),
    /// Failed and retrying jobs, grouped by error.
    Failures(failures::Failures),
    /// Everything about one job.
    Show(show::Show),
    /// Why a job does not run or ended as it did; why a file is not a job.
    Explain(explain::Explain),
    /// The proof that nothing is lost: every file under the watches, accounted for.
    Audit(audit::Audit),
    /// What a job printed; live while it runs, with -f.
    Logs(logs::Logs),
    /// Wait until jobs are final; exit 1 if any failed.
    Wait(wait::Wait),
    /// Try failed or cancelled jobs again with a fresh budget; retrying ones at once.
    Retry(retry::Retry),
    /// Cancel jobs: waiting ones at once, running ones are stopped.
    Cancel(cancel::Cancel),
    /// Change the level of waiting jobs.
    Priority(priority::Priority),
    /// Analytics: durations, throughput, waits, the bottleneck.
    Stats(stats::Stats),
    /// Every attempt of every job, in order.
    History(history::History),
    /// Scans and lists as runs, with their progress: look at them, pause, resume, cancel, remove.
    Runs(runs::Runs),
    /// Steps that are taken once: what a processor says before and after them, and what a person says of those whose outcome is unknown.
    Effect(effect::Effect),
    /// Move a job forward to a stage of its pipeline.
    Stage(stage::Stage),
    /// Look after the database.
    Db(db::Db),
    /// The key-value store for system state.
    Kv(kv::Kv),
    /// Check, show or write the configuration.
    Config(config::Config),
    /// Print completions for a shell.
    Completions(completions::Completions),
    /// Print the manual page.
    Man(man::Man),
}

/// How long threads that are still in a call to the system are waited for at the end.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// Files that have to be open for an idle daemon with a watch, and a few more.
const FEWEST_HANDLES: u64 = 32;

/// Does what the command line says; answers the exit code.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return ExitCode::from(explain(&error)),
    };
    let code = match runtime(&args.command) {
        Ok(runtime) => {
            let code = runtime.block_on(execute(args));
            // Everything that matters has ended by now; a thread that hangs in a filesystem may never do.
            runtime.shutdown_timeout(LAST_CALLS);
            code
        }
        Err(error) => complain(&Failure::failed(format!("can't start: {error}"))),
    };
    ExitCode::from(code)
}

/// Only the daemon has work for several threads; a command starts faster without them.
fn runtime(command: &Command) -> std::io::Result<tokio::runtime::Runtime> {
    let handles = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(handles) = handles.filter(|handles| *handles < FEWEST_HANDLES) {
        // The runtime would panic where it finds none.
        return Err(std::io::Error::other(format!(
            "at most {handles} files may be open at once, and {FEWEST_HANDLES} is the least to work with (`ulimit -n`, or \
             LimitNOFILE= in the unit)"
        )));
    }
    match command {
        Command::Run(_) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let runtime = builder.enable_all().thread_keep_alive(Duration::MAX).build()?;
            // Threads for calls that block stay (512 at most, each of some KiB), so that there always is this first one: a
            // call that finds no other waits for it; without any, it would panic where the system has no thread to give.
            drop(runtime.spawn_blocking(|| ()));
            Ok(runtime)
        }
        _ => {
            os::share_one_heap();
            tokio::runtime::Builder::new_current_thread().enable_all().build()
        }
    }
}

async fn execute(mut args: Args) -> u8 {
    if let Err(failure) = args.take_database_from_environment() {
        return complain(&failure);
    }
    let mut context = Context::new(args.global);
    let done = dispatch(args.command, &mut context).await;
    context.close().await;
    let flushed = context.screen.flush().map_err(Failure::from);
    match done.and_then(|code| flushed.map(|()| code)) {
        Ok(code) => code,
        Err(failure) => complain(&failure),
    }
}

async fn dispatch(command: Command, context: &mut Context) -> Done {
    match command {
        Command::Run(args) => run::run(args, context).await,
        Command::Add(args) => add::run(args, context).await,
        Command::Sync(args) => Box::pin(sync::run(*args, context)).await,
        Command::Watch(args) => watch::run(args, context).await,
        Command::Pipeline(args) => pipeline::run(args, context).await,
        Command::Pause(args) => pause::run(args, context).await,
        Command::Resume(args) => resume::run(args, context).await,
        Command::Status(args) => status::run(args, context).await,
        Command::Health(args) => health::run(args, context).await,
        Command::List(args) => list::run(args, context).await,
        Command::Failures(args) => failures::run(args, context).await,
        Command::Show(args) => show::run(args, context).await,
        Command::Explain(args) => explain::run(args, context).await,
        Command::Audit(args) => audit::run(args, context).await,
        Command::Logs(args) => logs::run(args, context).await,
        Command::Wait(args) => wait::run(args, context).await,
        Command::Retry(args) => retry::run(args, context).await,
        Command::Cancel(args) => cancel::run(args, context).await,
        Command::Priority(args) => priority::run(args, context).await,
        Command::Stats(args) => stats::run(args, context).await,
        Command::History(args) => history::run(args, context).await,
        Command::Runs(args) => runs::run(args, context).await,
        Command::Effect(args) => effect::run(args, context).await,
        Command::Stage(args) => stage::run(args, context).await,
        Command::Db(args) => db::run(args, context).await,
        Command::Kv(args) => kv::run(args, context).await,
        Command::Config(args) => config::run(args, context),
        Command::Completions(args) => completions::run(&args, context),
        Command::Man(args) => man::run(args, context),
    }
}

/// Says on stderr what went wrong; answers the exit code.
fn complain(failure: &Failure) -> u8 {
    if !failure.message.is_empty() {
        note(&failure.message);
    }
    failure.code
}

/// A line on stderr. Messages name files, and names may hold what a terminal would obey. Where nobody reads stderr there
/// is nothing left to do about it.
fn note(message: &str) {
    let _ = writeln!(std::io::stderr(), "ingestd: {}", screen::clean_lines(message));
}

/// Help and versions go to stdout; what is wrong with the arguments to stderr, in this program's voice.
fn explain(error: &clap::Error) -> u8 {
    if !error.use_stderr() {
        let _ = error.print();
        return 0;
    }
    let text = error.render().to_string();
    let message = text.strip_prefix("error: ").unwrap_or(&text);
    note(message.trim_end());
    2
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_has_a_sentence() {
        fn visit(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some(), "{path} has no sentence");
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                assert!(argument.get_help().is_some() || ["help", "version"].contains(&id), "{path} {id}");
            }
            for child in command.get_subcommands() {
                visit(child, &format!("{path} {}", child.get_name()));
            }
        }
        visit(&Args::command(), "ingestd");
    }

    #[test]
    fn lines_of_the_interface_parse() {
        for line in [
            "ingestd run --once",
            "ingestd run --watch /srv/in --exec sha256sum --once",
            "ingestd add a b --pipeline p --priority high --in 5m --metadata {} --force",
            "ingestd add -0 -",
            "ingestd add a --at 2026-01-02T15:04:05Z --idempotency-key k",
            "ingestd watch add inbox /srv/in --pipeline p --include *.pdf --settle 2s --existing process",
            "ingestd watch scan inbox --force",
            "ingestd pause --now documents",
            "ingestd list --state failed --state retrying --path *.pdf --since 2h --limit 5 -q",
            "ingestd retry 1 2 3",
            "ingestd retry -",
            "ingestd retry --failed --pipeline p --dry-run",
            "ingestd cancel --state pending --watch inbox",
            "ingestd priority urgent 1 2",
            "ingestd logs 1 -f",
            "ingestd runs list --json --limit 5",
            "ingestd runs show 3 --json",
            "ingestd runs pause 3",
            "ingestd runs resume 3",
            "ingestd runs cancel 3",
            "ingestd runs remove 3",
            "ingestd sync",
            "ingestd sync -",
            "ingestd sync list.txt --pipeline p --batch 50 --dry-run --name n --new --delete-missing --wait --quiet",
            "ingestd sync - --resume 7 --root /srv --line-limit 64KiB --json",
            "ingestd list --run 1 --repo r",
            "ingestd retry --run 7 --failed",
            "ingestd retry --cancelled --failed --run 7",
            "ingestd history --run 7",
            "ingestd status --summary --json",
            "ingestd status --run 7",
            "ingestd status --failed --run 7 --json",
            "ingestd db query select",
            "ingestd db prune --dry-run --json",
            "ingestd kv set a b",
            "ingestd status --watch --config /etc/x.toml",
            "ingestd completions bash",
            "ingestd explain 7 --json",
            "ingestd explain ./7",
            "ingestd audit",
            "ingestd audit inbox --limit 0 --json",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn what_comes_later_or_makes_no_sense_is_refused() {
        for line in [
            "ingestd runs",
            "ingestd runs pause",
            "ingestd sync --new --resume 7",
            "ingestd sync --resume latest",
            "ingestd sync --batch 0",
            "ingestd sync --line-limit 33MiB",
            "ingestd sync --name stdin:x",
            "ingestd sync a b",
            "ingestd status --summary --failed",
            "ingestd status --watch --run 7",
            "ingestd runs show latest",
            "ingestd list --run latest",
            "ingestd list --state busy",
            "ingestd add",
            "ingestd add a --at 2026-01-02T15:04:05Z --in 5m",
            "ingestd retry",
            "ingestd retry 1 --failed",
            "ingestd cancel",
            "ingestd priority soon 1",
            "ingestd wait",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
