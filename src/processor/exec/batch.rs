//! One command for many jobs.
//!
//! 1. Standard input tells of each job, one JSON object on a line (`description`), and ends. A command that does not
//!    read it is no mistake: what it has not read when it ends is thrown away.
//! 2. Standard output and standard error come through pipes of their own, so that a line of one is never torn by the
//!    other. Both are kept and shown like a single job's; lines of standard output may be answers about single jobs.
//! 3. All three go on beside the child, so that none waits for another: a command that prints much before it reads
//!    anything is no deadlock.

use std::io;
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use super::{
    BatchReport, CancellationToken, Child, DRAIN, ExecProcessor, Group, Outcome, Output, Task, lead, pin, supervise,
    timeout,
};
use crate::processor::answers::Answers;
use crate::processor::batch_key;
use crate::processor::description::description;
use crate::processor::environment::batch_variables;

/// A child's ends of its standard streams.
struct Streams {
    input: Option<ChildStdin>,
    output: Option<ChildStdout>,
    error: Option<ChildStderr>,
}

impl ExecProcessor {
    /// Runs the command once for all of the tasks.
    pub(super) async fn run_batch(&self, tasks: &[&Task], stop: &CancellationToken) -> BatchReport {
        let Some(first) = tasks.first().filter(|_| !stop.is_cancelled()) else {
            return BatchReport::of(Outcome::Interrupted);
        };
        // Dropped in the reverse order: the group is killed before its leader can be reaped, so its number is ours.
        let (mut child, mut group, streams) = match self.spawn_batch(first, tasks) {
            Ok(spawned) => spawned,
            Err(outcome) => return BatchReport::of(outcome),
        };
        let names = tasks.iter().skip(1).map(|task| task.spool.as_path());
        let mut output = Output::new(self.output_limit, &first.spool).also(names);
        let mut answers = Answers::about(tasks);
        let status = {
            let talk = async {
                tokio::join!(
                    tell(streams.input, tasks),
                    listen(streams.output, streams.error, &mut output, &mut answers)
                )
            };
            let (mut talk, mut supervised) =
                (pin!(talk), pin!(supervise(&mut child, &mut group, stop, &first.at_once)));
            tokio::select! {
                status = &mut supervised => {
                    let _ = timeout(DRAIN, talk).await;
                    status
                }
                _ = &mut talk => supervised.await,
            }
        };
        BatchReport { whole: self.report(status, stop, output), named: answers.finish() }
    }

    fn spawn_batch(&self, first: &Task, tasks: &[&Task]) -> Result<(Child, Group, Streams), Outcome> {
        let key = batch_key(tasks);
        self.start(first, |words| {
            let mut command = self.command(first, words, batch_variables(tasks, key));
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let (mut child, group) = lead(command, first, key)?;
            let streams =
                Streams { input: child.stdin.take(), output: child.stdout.take(), error: child.stderr.take() };
            Ok((child, group, streams))
        })
    }
}

/// Writes a line for each task, until the command closes its end.
async fn tell(input: Option<ChildStdin>, tasks: &[&Task]) {
    let Some(mut input) = input else { return };
    for task in tasks {
        let mut line = description(task).to_string();
        line.push('\n');
        if let Err(error) = input.write_all(line.as_bytes()).await {
            if error.kind() != io::ErrorKind::BrokenPipe {
                tracing::warn!(pipeline = %task.pipeline, %error, "a command could not be told of its batch");
            }
            return;
        }
    }
}

/// Reads both pipes until nobody holds their other ends any more.
async fn listen(
    mut stdout: Option<ChildStdout>,
    mut stderr: Option<ChildStderr>,
    output: &mut Output<'_>,
    answers: &mut Answers<'_>,
) {
    let (mut said, mut complained) = (vec![0; 8 << 10], vec![0; 8 << 10]);
    while stdout.is_some() || stderr.is_some() {
        tokio::select! {
            read = read(&mut stdout, &mut said) => match read {
                Some(count) => {
                    output.push(&said[..count]);
                    answers.push(&said[..count]);
                }
                None => stdout = None,
            },
            read = read(&mut stderr, &mut complained) => match read {
                Some(count) => output.push(&complained[..count]),
                None => stderr = None,
            },
        }
    }
}

/// What comes next; `None` at the end. A pipe that has ended never answers.
async fn read(pipe: &mut Option<impl AsyncReadExt + Unpin>, buffer: &mut [u8]) -> Option<usize> {
    match pipe {
        Some(pipe) => pipe.read(buffer).await.ok().filter(|count| *count > 0),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
