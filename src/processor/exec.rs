//! `kind = "exec"`: runs a command, in a process group of its own and without a shell.
//!
//! 1. The command is spawned with its group recorded, standard input empty, and one pipe for both standard output
//!    and standard error, so that what it prints stays in order.
//! 2. Two things go on at once: what comes through the pipe is gathered, and the child is supervised until it has
//!    ended or `stop` ends it (SIGTERM to the group, SIGKILL after [`TERM_GRACE`], or now if it has to be at once).
//! 3. When the child has ended, the rest of its group is ended too, and what is still in the pipe is read for
//!    [`DRAIN`] at most: a process that left the group may hold the pipe open for ever. Later it finds nobody there.
//! 4. The exit status is judged.
//!
//! Dropping the future in between kills the group.

mod batch;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::children::{Group, TERM_GRACE};
use super::environment::{ChildEnvironment, task_variables};
use super::output::Output;
use super::registry::BuildError;
use super::template::Template;
use super::{BatchReport, Processor, Report, Task};
use crate::config::ExecPipeline;
use crate::job::{ErrorKind, IdempotencyKey, JobError, Outcome};
use crate::os;

/// How long what is left in the pipe is read after the whole group has ended.
const DRAIN: Duration = Duration::from_millis(200);

/// The exit code by which a command asks to be run later (`EX_TEMPFAIL` of sysexits.h).
const EX_TEMPFAIL: i32 = 75;

/// The processor that runs a command.
#[derive(Debug)]
pub struct ExecProcessor {
    command: Vec<Template>,
    env: Vec<(String, Template)>,
    inherited: Vec<(OsString, OsString)>,
    work: PathBuf,
    cwd: Option<PathBuf>,
    permanent_exit_codes: Vec<i32>,
    output_limit: usize,
}

impl ExecProcessor {
    /// A processor for the pipeline `name`, which keeps at most `output_limit` bytes of what its command prints.
    ///
    /// # Errors
    /// A command without a program, or a text that is no template: each names its key.
    pub fn new(
        name: &str,
        pipeline: &ExecPipeline,
        output_limit: usize,
        environment: &ChildEnvironment,
    ) -> Result<Self, BuildError> {
        let key = |rest: String| format!("pipeline.{name}.{rest}");
        let parse = |text: &str, rest: String| Template::parse(text).map_err(|why| BuildError::new(key(rest), why));
        let command = pipeline.command.iter().enumerate();
        let command: Vec<_> =
            command.map(|(n, text)| parse(text, format!("command[{n}]"))).collect::<Result<_, _>>()?;
        if pipeline.command.first().is_none_or(String::is_empty) {
            return Err(BuildError::new(key("command".to_owned()), "names no program"));
        }
        let env = pipeline.env.iter();
        let env = env
            .map(|(variable, text)| Ok((variable.clone(), parse(text, format!("env.{variable}"))?)))
            .collect::<Result<_, BuildError>>()?;
        Ok(Self {
            command,
            env,
            inherited: environment.inherited(),
            work: environment.state_directory.join("work"),
            cwd: pipeline.cwd.clone(),
            permanent_exit_codes: pipeline.permanent_exit_codes.clone(),
            output_limit,
        })
    }

    fn folder(&self) -> &Path {
        self.cwd.as_deref().unwrap_or(&self.work)
    }

    fn spawn(&self, task: &Task) -> Result<(Child, Group, Receiver), Outcome> {
        self.start(task, |words| {
            let (read, write) = io::pipe()?;
            let output = Receiver::from_owned_fd(OwnedFd::from(read))?;
            let mut command = self.command(task, words, task_variables(task));
            command.stdin(Stdio::null()).stdout(write.try_clone()?).stderr(write);
            let (child, group) = lead(command, task, task.idempotency_key)?;
            Ok((child, group, output))
        })
    }

    /// Starts what the words that are rendered for the task make.
    fn start<T>(&self, task: &Task, try_start: impl Fn(&[OsString]) -> io::Result<T>) -> Result<T, Outcome> {
        let words: Vec<OsString> = self.command.iter().map(|word| word.render(task)).collect();
        let program = words.first().cloned().unwrap_or_default();
        let started = try_start(&words).or_else(|error| {
            // Our own folder is made when it is first missed, which is once in a state directory's life.
            if error.kind() != io::ErrorKind::NotFound || self.cwd.is_some() || self.work.is_dir() {
                return Err(error);
            }
            std::fs::create_dir_all(&self.work)?;
            try_start(&words)
        });
        started.map_err(|error| self.not_started(&program, &error))
    }

    /// The command in its environment; its standard streams are the caller's to say.
    fn command(
        &self,
        task: &Task,
        words: &[OsString],
        variables: impl IntoIterator<Item = (&'static str, OsString)>,
    ) -> Command {
        let mut command = Command::new(words.first().map_or_else(|| OsStr::new(""), OsString::as_os_str));
        command.args(words.get(1..).unwrap_or_default());
        command.env_clear().envs(self.inherited.iter().map(|(name, value)| (name, value)));
        command.envs(variables);
        command.envs(self.env.iter().map(|(name, template)| (name, template.render(task))));
        command.current_dir(self.folder()).process_group(0);
        os::begin_as_processor(&mut command);
        command
    }

    /// What follows from a command that could not be started.
    fn not_started(&self, program: &OsStr, error: &io::Error) -> Outcome {
        use rustix::io::Errno;
        let name = Path::new(program).display();
        let deferred = |kind, message| Outcome::Deferred { after: None, error: JobError::transient(kind, message) };
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            None if error.kind() == io::ErrorKind::InvalidInput => Outcome::Failed(JobError::permanent(
                ErrorKind::Template,
                "an argument or a variable would hold a NUL byte, which the system can't pass on",
            )),
            Some(Errno::TOOBIG) => Outcome::Failed(JobError::permanent(
                ErrorKind::Spawn,
                "the arguments and variables are longer than the system can pass on (a large `metadata`?)",
            )),
            Some(Errno::NOENT | Errno::NOTDIR) if !self.folder().is_dir() => {
                let folder = self.folder().display();
                deferred(ErrorKind::Spawn, format!("the working directory {folder} does not exist"))
            }
            Some(Errno::NOENT) if program.as_encoded_bytes().contains(&b'/') && Path::new(program).exists() => {
                deferred(ErrorKind::Spawn, format!("{name}: the interpreter that its first line names is missing"))
            }
            Some(Errno::NOENT | Errno::NOTDIR) => {
                deferred(ErrorKind::Spawn, format!("the program {name} does not exist (install it, or name its path)"))
            }
            Some(Errno::ACCESS | Errno::PERM) => deferred(
                ErrorKind::Spawn,
                format!("the program {name} may not be run in {} ({error})", self.folder().display()),
            ),
            Some(Errno::NOEXEC) => {
                let why = "is no executable and names no interpreter in its first line (`#!`)";
                deferred(ErrorKind::Spawn, format!("the program {name} {why}"))
            }
            // The machine can't just now: too many processes or files, no memory, a program being written.
            Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::TXTBSY) => {
                deferred(ErrorKind::Io, format!("the program {name} can't be started just now ({error})"))
            }
            _ => deferred(ErrorKind::Spawn, format!("the program {name} can't be started ({error})")),
        }
    }

    /// What a command that has ended comes to.
    fn report(&self, status: io::Result<ExitStatus>, stop: &CancellationToken, output: Output<'_>) -> Report {
        let (outcome, code) = match status {
            _ if stop.is_cancelled() => (Outcome::Interrupted, status.ok().and_then(|status| status.code())),
            Ok(status) => (self.judge(status), status.code()),
            Err(error) => {
                let message = format!("the command can't be waited for ({error})");
                (Outcome::Failed(JobError::transient(ErrorKind::Io, message)), None)
            }
        };
        Report { outcome, code, output: output.into_bytes() }
    }

    /// What an exit status means.
    fn judge(&self, status: ExitStatus) -> Outcome {
        if let Some(signal) = status.signal() {
            let dumped = if status.core_dumped() { ", core dumped" } else { "" };
            let message = format!("ended by {}{dumped}", signal_name(signal));
            return Outcome::Failed(JobError::transient(ErrorKind::Signal, message));
        }
        let code = status.code().unwrap_or(-1);
        let message = || match sysexit(code) {
            Some(name) => format!("exit {code} ({name})"),
            None => format!("exit {code}"),
        };
        match code {
            0 => Outcome::Done,
            EX_TEMPFAIL => Outcome::Deferred { after: None, error: JobError::transient(ErrorKind::Exit, message()) },
            _ if self.permanent_exit_codes.contains(&code) => {
                Outcome::Failed(JobError::permanent(ErrorKind::Exit, message()))
            }
            _ => Outcome::Failed(JobError::transient(ErrorKind::Exit, message())),
        }
    }
}

#[async_trait]
impl Processor for ExecProcessor {
    fn spools(&self) -> bool {
        true
    }

    async fn process(&self, task: Task, stop: CancellationToken) -> Report {
        if stop.is_cancelled() {
            return Report::of(Outcome::Interrupted);
        }
        // Dropped in the reverse order: the group is killed before its leader can be reaped, so its number is ours.
        let (mut child, mut group, mut pipe) = match self.spawn(&task) {
            Ok(spawned) => spawned,
            Err(outcome) => return Report::of(outcome),
        };
        let mut output = Output::new(self.output_limit, &task.spool);
        let status = {
            let mut gathered = pin!(gather(&mut pipe, &mut output));
            let mut supervised = pin!(supervise(&mut child, &mut group, &stop, &task.at_once));
            tokio::select! {
                status = &mut supervised => {
                    let _ = timeout(DRAIN, gathered).await;
                    status
                }
                () = &mut gathered => supervised.await,
            }
        };
        self.report(status, &stop, output)
    }

    async fn process_batch(&self, tasks: &[&Task], stop: CancellationToken) -> BatchReport {
        self.run_batch(tasks, &stop).await
    }
}

/// Lets the command lead a group of its own, which the file beside the task's spool records.
fn lead(mut command: Command, task: &Task, key: IdempotencyKey) -> io::Result<(Child, Group)> {
    // The command may hold the writing ends of pipes; dropping it with the closure leaves them to the child alone.
    Group::start(task.spool.with_extension("group"), &key.to_string(), move || {
        let child = command.spawn()?;
        let id = child.id();
        Ok((child, id))
    })
}

/// Reads the pipe until nobody holds its other end any more.
async fn gather(pipe: &mut Receiver, output: &mut Output<'_>) {
    let mut buffer = vec![0; 8 << 10];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        output.push(&buffer[..count]);
    }
}

/// Waits for the end of the whole group, and brings it about when told to stop or when the leader has ended.
async fn supervise(
    child: &mut Child,
    group: &mut Group,
    stop: &CancellationToken,
    at_once: &CancellationToken,
) -> io::Result<ExitStatus> {
    let (status, deadline) = tokio::select! {
        biased;
        status = child.wait() => (status, Instant::now() + TERM_GRACE),
        () = stop.cancelled() => {
            let deadline = Instant::now() + TERM_GRACE;
            group.signal(Signal::TERM);
            let status = tokio::select! {
                status = child.wait() => Some(status),
                () = sleep_until(deadline) => None,
                () = at_once.cancelled() => None,
            };
            let status = match status {
                Some(status) => status,
                None => {
                    group.signal(Signal::KILL);
                    child.wait().await
                }
            };
            (status, deadline)
        }
    };
    group.end_rest(deadline, at_once).await;
    status
}

/// The name that sysexits.h has for an exit code.
const fn sysexit(code: i32) -> Option<&'static str> {
    Some(match code {
        64 => "EX_USAGE",
        65 => "EX_DATAERR",
        66 => "EX_NOINPUT",
        67 => "EX_NOUSER",
        68 => "EX_NOHOST",
        69 => "EX_UNAVAILABLE",
        70 => "EX_SOFTWARE",
        71 => "EX_OSERR",
        72 => "EX_OSFILE",
        73 => "EX_CANTCREAT",
        74 => "EX_IOERR",
        75 => "EX_TEMPFAIL",
        76 => "EX_PROTOCOL",
        77 => "EX_NOPERM",
        78 => "EX_CONFIG",
        _ => return None,
    })
}

fn signal_name(number: i32) -> String {
    let name = match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return format!("signal {number}"),
    };
    format!("signal {number} ({name})")
}

#[cfg(test)]
mod tests;
