//! A tracer that breaks a process at the N-th system call of a kind, whichever of its threads makes it.
//!
//! 1. One thread of ours starts the process, asks to trace it (ptrace), and does all the waiting: the kernel allows it
//!    to nobody else. The threads of the process are followed, its children are not, and run as if nothing was.
//! 2. Each thread stops when it enters and leaves a system call. Those that touch files become a [`Seen`]; the [`Plan`]
//!    says which of them count, at the how-manieth something is done, and what: SIGKILL before the call or after it, or
//!    an error in its place, once or from then on.
//! 3. What was counted is told ([`Traced::counts`]): a walk over N has come to its end when the plan was never reached.
//!
//! A process that is stopped by SIGSTOP goes on at once under a tracer; whoever needs it stopped must not trace it.

#[cfg(test)]
mod control;
mod ptrace;
mod seen;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, mpsc};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use self::ptrace::{Register, Report, Syscall};
pub use self::seen::{Call, Seen};
use crate::support::{Daemon, Output, Place, Process};

/// What is done, and when.
pub struct Plan {
    counts: Box<dyn Fn(&Seen) -> bool + Send>,
    first: usize,
    act: Act,
    lasting: bool,
    reads: bool,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Nothing,
    KillBefore,
    KillAfter,
    Fail(i32),
    Short,
}

impl Plan {
    /// Counts, and does nothing.
    pub fn count(counts: impl Fn(&Seen) -> bool + Send + 'static) -> Self {
        Self { counts: Box::new(counts), first: 1, act: Act::Nothing, lasting: false, reads: false }
    }

    /// SIGKILL at the `number`-th call (the first is 1) that counts, before it happens.
    pub fn kill_before(number: usize, counts: impl Fn(&Seen) -> bool + Send + 'static) -> Self {
        Self { first: number, act: Act::KillBefore, ..Self::count(counts) }
    }

    /// SIGKILL when the `number`-th call that counts has happened.
    pub fn kill_after(number: usize, counts: impl Fn(&Seen) -> bool + Send + 'static) -> Self {
        Self { first: number, act: Act::KillAfter, ..Self::count(counts) }
    }

    /// The `number`-th call that counts does not happen, and answers this error (`libc::EIO`).
    pub fn fail(number: usize, error: i32, counts: impl Fn(&Seen) -> bool + Send + 'static) -> Self {
        Self { first: number, act: Act::Fail(error), ..Self::count(counts) }
    }

    /// The `number`-th call that counts writes only half of what it is given, if it is a write.
    pub fn short(number: usize, counts: impl Fn(&Seen) -> bool + Send + 'static) -> Self {
        Self { first: number, act: Act::Short, ..Self::count(counts) }
    }

    /// Not only that call, but all that count from then on, until [`Traced::set`] says otherwise.
    pub fn lasting(self) -> Self {
        Self { lasting: true, ..self }
    }

    /// Reads are seen too, which takes longer.
    pub fn with_reads(self) -> Self {
        Self { reads: true, ..self }
    }
}

/// What was seen under a plan.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// How often each call was seen that counts.
    pub calls: BTreeMap<Call, usize>,
    /// How often something was done.
    pub acted: usize,
    /// At what, the first time.
    pub at: Option<String>,
}

impl Counts {
    /// How many calls counted.
    pub fn all(&self) -> usize {
        self.calls.values().sum()
    }
}

/// A handle of a process that is traced. When the last one is dropped, the process is killed.
#[derive(Clone)]
pub struct Traced(Arc<Owner>);

/// Ends the process with the last handle.
struct Owner(Arc<Shared>);

/// What the tracing thread and the handles share.
struct Shared {
    process: Pid,
    /// The process and no later one with its number.
    handle: OwnedFd,
    progress: Mutex<Progress>,
    status: Mutex<Option<ExitStatus>>,
    ended: Condvar,
}

impl Traced {
    /// Whether processes can be traced here; says aloud what is skipped where not.
    pub fn is_possible() -> bool {
        let known = cfg!(all(target_os = "linux", target_arch = "x86_64"));
        let traced = || Self::start(Command::new("true"), Plan::count(|_| true));
        let works = |traced: Self| traced.end().success() && traced.counts().all() > 0;
        let possible = known && traced().is_ok_and(works);
        if !possible {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            eprintln!("skipped: {test}, because no process can be traced here");
        }
        possible
    }

    /// Starts the daemon of a place under a plan, without waiting until it is ready.
    pub fn daemon(place: &Place, plan: Plan) -> (Daemon, Self) {
        let mut traced = None;
        let daemon = Daemon::spawn_as(place, place.configured(&["run"]), |command| {
            Box::new(traced.insert(Self::start(command, plan).unwrap()).clone())
        });
        (daemon, traced.unwrap())
    }

    /// Runs a command under a plan to its end.
    pub fn finish(command: Command, plan: Plan) -> (Output, Counts) {
        let (traced, streams) = Self::begin(command, plan).unwrap();
        let read = |mut stream: Box<dyn Read + Send>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let [stdout, stderr] = streams.map(|stream| stream.map(read));
        let code = traced.end().code().unwrap_or(-1);
        let [stdout, stderr] =
            [stdout, stderr].map(|reader| reader.map_or_else(String::new, |text| text.join().unwrap()));
        (Output { code, stdout, stderr }, traced.counts())
    }

    /// Starts a command under a plan.
    ///
    /// # Errors
    ///
    /// The program can't be started, or not be traced.
    pub fn start(command: Command, plan: Plan) -> io::Result<Self> {
        Self::begin(command, plan).map(|(traced, _)| traced)
    }

    fn begin(mut command: Command, plan: Plan) -> io::Result<(Self, [Option<Stream>; 2])> {
        let (tell, told) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            ptrace::ask_to_be_traced(&mut command);
            match spawn(command, plan) {
                Ok((shared, streams)) => {
                    tell.send(Ok((Self(Arc::new(Owner(Arc::clone(&shared)))), streams))).unwrap();
                    Tracer { shared, inside: HashMap::new() }.run();
                }
                Err(error) => tell.send(Err(error)).unwrap(),
            }
        });
        told.recv().expect("the tracer tells")
    }

    /// Replaces the plan of a process that runs, and begins to count anew.
    pub fn set(&self, plan: Plan) {
        *self.0.0.progress.lock().unwrap() = Progress::of(plan);
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.0.0.progress.lock().unwrap().counts.clone()
    }

    /// Waits for its end.
    pub fn end(&self) -> ExitStatus {
        let mut status = self.0.0.status.lock().unwrap();
        loop {
            match *status {
                Some(status) => return status,
                None => status = self.0.0.ended.wait(status).unwrap(),
            }
        }
    }
}

impl Process for Traced {
    fn id(&self) -> u32 {
        self.0.0.process.as_raw_nonzero().get().cast_unsigned()
    }

    fn kill(&mut self) {
        self.0.0.kill();
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        *self.0.0.status.lock().unwrap()
    }

    fn wait(&mut self) -> ExitStatus {
        self.end()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.kill();
        let status = self.0.status.lock().unwrap();
        drop(self.0.ended.wait_while(status, |status| status.is_none()));
    }
}

impl Shared {
    fn kill(&self) {
        // Fails if it has ended, which is what is wanted.
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }
}

type Stream = Box<dyn Read + Send>;

fn spawn(mut command: Command, plan: Plan) -> io::Result<(Arc<Shared>, [Option<Stream>; 2])> {
    let mut child = command.spawn()?;
    let streams: [Option<Stream>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as Stream),
        child.stderr.take().map(|stream| Box::new(stream) as Stream),
    ];
    let process = Pid::from_child(&child);
    let shared = Shared {
        process,
        handle: pidfd_open(process, PidfdFlags::empty())?,
        progress: Mutex::new(Progress::of(plan)),
        status: Mutex::new(None),
        ended: Condvar::new(),
    };
    Ok((Arc::new(shared), streams))
}

/// The thread that traces.
struct Tracer {
    shared: Arc<Shared>,
    /// The threads, and what has to be done when the call ends in which one stands.
    inside: HashMap<i32, AtEnd>,
}

#[derive(Clone, Copy, Debug)]
enum AtEnd {
    Nothing,
    Kill,
    Answer(i32),
    Restore(u64),
}

impl Tracer {
    fn run(mut self) {
        let process = self.shared.process.as_raw_nonzero().get();
        while let Some((thread, report)) = ptrace::wait() {
            // Every thread begins with a stop: the first one at its program, others with a SIGSTOP.
            let is_new = !matches!(report, Report::Ended(_)) && !self.inside.contains_key(&thread);
            if is_new {
                self.inside.insert(thread, AtEnd::Nothing);
            }
            match report {
                Report::Ended(status) => {
                    self.inside.remove(&thread);
                    if thread == process {
                        *self.shared.status.lock().unwrap() = Some(status);
                        self.shared.ended.notify_all();
                    }
                }
                Report::Signal(_) if is_new && thread == process => {
                    ptrace::begin(process);
                    ptrace::resume(thread, 0);
                }
                Report::Signal(libc::SIGSTOP) | Report::Event => ptrace::resume(thread, 0),
                Report::Signal(signal) => ptrace::resume(thread, signal),
                Report::Syscall => {
                    self.syscall(thread);
                    ptrace::resume(thread, 0);
                }
            }
        }
    }

    fn syscall(&mut self, thread: i32) {
        match ptrace::syscall(thread) {
            Some(Syscall::Enter { number, arguments }) => {
                let at_end = self.enter(thread, number, &arguments);
                self.inside.insert(thread, at_end);
            }
            Some(Syscall::Leave) => match self.inside.insert(thread, AtEnd::Nothing) {
                Some(AtEnd::Kill) => self.shared.kill(),
                Some(AtEnd::Answer(error)) => ptrace::set(thread, Register::Result, -i64::from(error)),
                Some(AtEnd::Restore(third)) => ptrace::set(thread, Register::Third, third.cast_signed()),
                Some(AtEnd::Nothing) | None => {}
            },
            None => {}
        }
    }

    fn enter(&self, thread: i32, number: i64, arguments: &[u64; 6]) -> AtEnd {
        let process = self.shared.process.as_raw_nonzero().get().cast_unsigned();
        if seen::is_read(number) && !self.shared.progress.lock().unwrap().plan.reads {
            return AtEnd::Nothing;
        }
        let Some(seen) = seen::seen(process, number, arguments) else { return AtEnd::Nothing };
        let act = self.shared.progress.lock().unwrap().meets(&seen);
        match act {
            Act::Nothing => AtEnd::Nothing,
            Act::KillBefore => {
                // A thread that is about to die doesn't enter the call.
                self.shared.kill();
                AtEnd::Nothing
            }
            Act::KillAfter => AtEnd::Kill,
            Act::Fail(error) => {
                ptrace::set(thread, Register::Number, -1);
                AtEnd::Answer(error)
            }
            Act::Short => {
                ptrace::set(thread, Register::Third, (arguments[2] / 2).cast_signed());
                AtEnd::Restore(arguments[2])
            }
        }
    }
}

/// A plan, and how far it has come.
struct Progress {
    plan: Plan,
    counts: Counts,
}

impl Progress {
    fn of(plan: Plan) -> Self {
        Self { plan, counts: Counts::default() }
    }

    /// Counts a call; answers what is to be done at it.
    fn meets(&mut self, seen: &Seen) -> Act {
        if !(self.plan.counts)(seen) {
            return Act::Nothing;
        }
        *self.counts.calls.entry(seen.call).or_default() += 1;
        let (number, first) = (self.counts.all(), self.plan.first);
        let due = number == first || (number > first && self.plan.lasting);
        let act = match self.plan.act {
            Act::Short if seen.bytes < 2 => Act::Nothing,
            act => act,
        };
        if !due || matches!(act, Act::Nothing) {
            return Act::Nothing;
        }
        self.counts.acted += 1;
        self.counts.at.get_or_insert_with(|| format!("{act:?} at number {number}: {seen}"));
        act
    }
}
