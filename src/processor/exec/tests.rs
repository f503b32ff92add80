//! Real processes: `sh` and `sleep`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::processor::tests::task;

/// A state directory, and what runs commands in it.
struct Scene {
    state: TempDir,
    pipeline: ExecPipeline,
    limit: usize,
}

impl Scene {
    fn of(command: &[&str]) -> Self {
        let state = tempfile::tempdir().unwrap();
        fs::create_dir(state.path().join("spool")).unwrap();
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Self { state, pipeline: ExecPipeline::of(command), limit: 8 << 10 }
    }

    fn sh(script: &str) -> Self {
        Self::of(&["sh", "-c", script])
    }

    fn task(&self) -> Task {
        Task { spool: self.spool(), ..task("/in/a.txt") }
    }

    fn spool(&self) -> PathBuf {
        self.state.path().join("spool/1-1")
    }

    fn group(&self) -> PathBuf {
        self.state.path().join("spool/1-1.group")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.state.path().join("work").join(name)
    }

    fn processor(&self) -> ExecProcessor {
        let environment = ChildEnvironment { state_directory: self.state.path().into(), ..ChildEnvironment::default() };
        ExecProcessor::new("docs", &self.pipeline, self.limit, &environment).unwrap()
    }

    async fn run(&self) -> Report {
        self.run_with(self.task()).await
    }

    async fn run_with(&self, task: Task) -> Report {
        let report = self.processor().process(task, CancellationToken::new()).await;
        assert!(!self.group().exists(), "no record outlives its group");
        report
    }
}

fn failure(report: &Report) -> &JobError {
    match &report.outcome {
        Outcome::Failed(error) | Outcome::Deferred { error, .. } => error,
        other => panic!("{other:?} is no failure"),
    }
}

/// Waits until `condition` holds.
async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "it never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether the process whose number a command wrote into `file` still works.
fn works(file: &Path) -> bool {
    let id = fs::read_to_string(file).unwrap();
    fs::read_to_string(format!("/proc/{}/stat", id.trim()))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
}

#[tokio::test]
async fn each_exit_has_its_verdict() {
    for (script, kind, permanent, deferred, message) in [
        ("exit 1", ErrorKind::Exit, false, false, "exit 1"),
        ("exit 65", ErrorKind::Exit, true, false, "exit 65 (EX_DATAERR)"),
        ("exit 69", ErrorKind::Exit, false, false, "exit 69 (EX_UNAVAILABLE)"),
        ("exit 75", ErrorKind::Exit, false, true, "exit 75 (EX_TEMPFAIL)"),
        ("kill -KILL $$", ErrorKind::Signal, false, false, "ended by signal 9 (SIGKILL)"),
    ] {
        let report = Scene::sh(script).run().await;
        let error = failure(&report);
        assert_eq!((error.kind, error.permanent, error.message.as_str()), (kind, permanent, message));
        assert_eq!(matches!(report.outcome, Outcome::Deferred { after: None, .. }), deferred, "{script}");
        assert_eq!(report.code, script.strip_prefix("exit ").map(|code| code.parse().unwrap()));
    }
    let report = Scene::sh("exit 0").run().await;
    assert_eq!((report.outcome, report.code), (Outcome::Done, Some(0)));
}

#[tokio::test]
async fn both_outputs_are_kept_in_order() {
    let scene = Scene::sh("echo one; echo two >&2; echo three");
    assert_eq!(scene.run().await.output, b"one\ntwo\nthree\n");
    assert_eq!(fs::read(scene.spool()).unwrap(), b"one\ntwo\nthree\n");
    let silent = Scene::sh(":");
    assert!(silent.run().await.output.is_empty());
    assert!(!silent.spool().exists());
}

#[tokio::test]
async fn only_the_tail_of_much_output_is_kept() {
    let scene = Scene { limit: 20, ..Scene::sh("seq 1 100000; echo the end") };
    let report = scene.run().await;
    assert_eq!(report.output, b"9999\n100000\nthe end\n");
    assert!(fs::metadata(scene.spool()).unwrap().len() <= 64 << 10);
}

#[tokio::test]
async fn output_can_be_watched_while_the_command_runs() {
    let scene = Scene::sh("echo begun; while [ ! -e go ]; do sleep 0.01; done; echo over");
    let processor = scene.processor();
    let running = processor.process(scene.task(), CancellationToken::new());
    let watching = async {
        until(|| fs::read(scene.spool()).is_ok_and(|live| live == b"begun\n")).await;
        let record = fs::read_to_string(scene.group()).unwrap();
        assert_eq!(record.split_whitespace().count(), 5, "{record}");
        fs::write(scene.file("go"), "").unwrap();
    };
    let (report, ()) = tokio::join!(running, watching);
    assert_eq!(report.output, b"begun\nover\n");
}

#[tokio::test]
async fn arguments_and_variables_carry_exact_bytes() {
    let script = r#"printf '%s|%s|%s|%s|' "$1" "$INGESTD_PATH" "$MINE" "$INGESTD_METADATA"; printf %s "$PWD""#;
    let mut scene = Scene::of(&["sh", "-c", script, "sh", "{path}"]);
    scene.pipeline.env = BTreeMap::from([("MINE".to_owned(), "<{name}>".to_owned())]);
    let name = OsString::from_vec(b"/in/-x \xff\n'\"$(id)".to_vec());
    let task = Task { path: name.clone().into(), metadata: Some("{\"a\":1}".to_owned()), ..scene.task() };
    let report = scene.run_with(task).await;
    let mut expected = [name.as_bytes(), b"|", name.as_bytes(), b"|<", &name.as_bytes()[4..], b">|{\"a\":1}|"].concat();
    expected.extend(scene.state.path().join("work").canonicalize().unwrap().as_os_str().as_bytes());
    assert_eq!(String::from_utf8_lossy(&report.output), String::from_utf8_lossy(&expected));
}

#[tokio::test]
async fn the_environment_holds_every_promised_variable() {
    let report = Scene::of(&["env"]).run().await;
    let text = String::from_utf8(report.output).unwrap();
    let variables = "PATH RELATIVE OP DIGEST SIZE JOB ATTEMPT IDEMPOTENCY_KEY PIPELINE WATCH METADATA";
    for name in variables.split(' ') {
        assert!(text.lines().any(|line| line.starts_with(&format!("INGESTD_{name}="))), "{name} in {text}");
    }
    assert!(text.contains("INGESTD_ATTEMPT=1\n") && text.contains("INGESTD_WATCH=inbox\n"));
}

#[tokio::test]
async fn a_command_begins_with_clean_signals_no_input_and_its_own_group() {
    assert!(Scene::of(&["cat"]).run().await.output.is_empty());
    // The leader itself reads, because a shell that waits blocks signals of its own.
    let report = Scene::of(&["cat", "/proc/self/status", "/proc/self/stat"]).run().await;
    let text = String::from_utf8(report.output).unwrap();
    let mask = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(mask("SigBlk:"), 0);
    assert_eq!(mask("SigIgn:") & (1 << (libc::SIGPIPE - 1)), 0);
    assert_eq!(mask("CapAmb:"), 0);
    let (leader, stat) = text.lines().last().unwrap().split_once(' ').unwrap();
    let group = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(2);
    assert_eq!(group, Some(leader), "it leads its group");
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_named_and_deferred() {
    let missing = Scene::of(&["/no/such/program", "{path}"]).run().await;
    let script = Scene::of(&["/bin/sh"]);
    let in_path = Scene::of(&["no-such-program-in-path"]).run().await;

    let plain = script.state.path().join("plain");
    fs::write(&plain, "#!/no/such/interpreter\n").unwrap();
    let denied = Scene::of(&[plain.to_str().unwrap()]).run().await;
    fs::set_permissions(&plain, PermissionsExt::from_mode(0o755)).unwrap();
    let interpreter = Scene::of(&[plain.to_str().unwrap()]).run().await;

    let mut elsewhere = Scene::of(&["true"]);
    elsewhere.pipeline.cwd = Some("/no/such/folder".into());
    let folder = elsewhere.run().await;

    for (report, text) in [
        (missing, "/no/such/program does not exist"),
        (in_path, "no-such-program-in-path does not exist"),
        (denied, "plain may not be run"),
        (interpreter, "interpreter"),
        (folder, "the working directory /no/such/folder does not exist"),
    ] {
        assert!(matches!(report.outcome, Outcome::Deferred { after: None, .. }), "{text}");
        let error = failure(&report);
        assert!(error.kind == ErrorKind::Spawn && error.message.contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_program_being_written_is_deferred() {
    let scene = Scene::sh(":");
    let program = scene.state.path().join("program");
    fs::copy("/bin/true", &program).unwrap();
    let writer = fs::OpenOptions::new().append(true).open(&program).unwrap();
    let report = Scene::of(&[program.to_str().unwrap()]).run().await;
    drop(writer);
    let error = failure(&report);
    assert!(matches!(report.outcome, Outcome::Deferred { .. }) && error.kind == ErrorKind::Io, "{error}");
}

#[tokio::test]
async fn arguments_that_can_never_be_passed_fail_at_once() {
    let scene = Scene::sh(":");
    let long = Task { metadata: Some(format!("\"{}\"", "x".repeat(200_000))), ..scene.task() };
    let report = scene.run_with(long).await;
    assert!(matches!(&report.outcome, Outcome::Failed(error) if error.permanent && error.kind == ErrorKind::Spawn));
}

#[tokio::test]
async fn stopping_ends_the_whole_group() {
    let scene = Scene::sh("sleep 300 & echo $! >child; echo $$ >leader; echo on; wait");
    let (processor, stop) = (scene.processor(), CancellationToken::new());
    let stopping = async {
        until(|| scene.spool().exists()).await;
        stop.cancel();
    };
    let (report, ()) = tokio::join!(processor.process(scene.task(), stop.clone()), stopping);
    assert_eq!((report.outcome, report.output), (Outcome::Interrupted, b"on\n".to_vec()));
    assert!(!works(&scene.file("child")) && !works(&scene.file("leader")));
    assert!(!scene.group().exists());
}

#[tokio::test]
async fn a_group_that_ignores_sigterm_is_killed_after_the_grace() {
    let script = "trap '' TERM; sh -c 'echo $$ >child; echo on; while :; do sleep 1; done'";
    let scene = Scene::sh(script);
    let (processor, stop) = (scene.processor(), CancellationToken::new());
    let begun = Instant::now();
    let stopping = async {
        until(|| scene.spool().exists()).await;
        stop.cancel();
    };
    let (report, ()) = tokio::join!(processor.process(scene.task(), stop.clone()), stopping);
    assert_eq!(report.outcome, Outcome::Interrupted);
    assert!(begun.elapsed() >= TERM_GRACE && begun.elapsed() < TERM_GRACE * 2, "{:?}", begun.elapsed());
    assert!(!works(&scene.file("child")));
}

#[tokio::test]
async fn what_a_command_leaves_in_its_group_is_ended_with_it() {
    let scene = Scene::sh("sleep 300 & echo $! >child; echo done");
    let report = scene.run().await;
    assert_eq!((report.outcome, report.output), (Outcome::Done, b"done\n".to_vec()));
    assert!(!works(&scene.file("child")));
}

#[tokio::test]
async fn a_process_that_left_the_group_does_not_keep_us_reading() {
    let scene = Scene::sh("setsid sh -c 'echo $$ >child; exec sleep 300' & until [ -s child ]; do :; done; echo done");
    let begun = Instant::now();
    let report = scene.run().await;
    assert_eq!((report.outcome, report.output), (Outcome::Done, b"done\n".to_vec()));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let child: i32 = fs::read_to_string(scene.file("child")).unwrap().trim().parse().unwrap();
    assert!(works(&scene.file("child")), "it is not ours to end");
    rustix::process::kill_process(rustix::process::Pid::from_raw(child).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn dropping_the_future_kills_the_group() {
    let scene = Scene::sh("sleep 300 & echo $! >child; echo $$ >leader; echo on; wait");
    {
        let processor = scene.processor();
        let mut running = processor.process(scene.task(), CancellationToken::new());
        tokio::select! {
            _ = &mut running => panic!("it runs for minutes"),
            () = until(|| scene.spool().exists()) => {}
        }
    }
    until(|| !works(&scene.file("child")) && !works(&scene.file("leader"))).await;
    assert!(!scene.group().exists());
}

#[test]
fn the_kernel_kills_a_command_whose_daemon_is_gone() {
    let scene = Scene::sh("trap '' TERM; echo $$ >leader; echo on; while :; do sleep 1; done");
    // What the kernel waits for is the end of the thread that forked; all else that would end the group is leaked.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let processor: &'static ExecProcessor = Box::leak(Box::new(scene.processor()));
                let mut running = processor.process(scene.task(), CancellationToken::new());
                tokio::select! {
                    _ = &mut running => panic!("it runs for ever"),
                    () = until(|| scene.spool().exists()) => {}
                }
                std::mem::forget(running);
            });
        });
    });
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while works(&scene.file("leader")) {
        assert!(std::time::Instant::now() < deadline, "it lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(scene.group().exists(), "the next start finds what the leader left");
    assert!(super::super::children::end_strays(&scene.state.path().join("spool")) <= 1);
    assert!(!scene.group().exists());
}

#[tokio::test]
async fn nothing_is_started_once_stop_was_called() {
    let scene = Scene::sh("echo on");
    let stop = CancellationToken::new();
    stop.cancel();
    assert_eq!(scene.processor().process(scene.task(), stop).await.outcome, Outcome::Interrupted);
    assert!(!scene.file("").exists());
}

#[test]
fn mistakes_in_a_pipeline_name_their_key() {
    let build = |pipeline: &ExecPipeline| {
        ExecProcessor::new("docs", pipeline, 0, &ChildEnvironment::default()).unwrap_err().key
    };
    assert_eq!(build(&ExecPipeline::of(vec!["a".into(), "{b}".into()])), "pipeline.docs.command[1]");
    assert_eq!(build(&ExecPipeline::of(Vec::new())), "pipeline.docs.command");
    let env = BTreeMap::from([("A".to_owned(), "{".to_owned())]);
    assert_eq!(build(&ExecPipeline { env, ..ExecPipeline::of(vec!["a".into()]) }), "pipeline.docs.env.A");
}
