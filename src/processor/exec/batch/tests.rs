//! Real processes: `sh`.

use std::fs;

use crate::config::ExecPipeline;
use crate::job::{ErrorKind, JobId, Outcome};
use crate::processor::tests::task;
use crate::processor::{BatchReport, ChildEnvironment, ExecProcessor, Processor, Task, batch_key};

/// Runs a script on so many jobs with that much metadata each.
async fn run(script: &str, jobs: i64, metadata_bytes: usize) -> (BatchReport, Vec<Task>, tempfile::TempDir) {
    let state = tempfile::tempdir().unwrap();
    fs::create_dir(state.path().join("spool")).unwrap();
    let script = script.replace('{', "{{").replace('}', "}}");
    let pipeline = ExecPipeline::of(["sh", "-c", script.as_str()].map(str::to_owned).to_vec());
    let environment = ChildEnvironment { state_directory: state.path().into(), ..ChildEnvironment::default() };
    let processor = ExecProcessor::new("docs", &pipeline, 8 << 10, &environment).unwrap();
    let tasks = (1..=jobs).map(|job| Task {
        job: JobId(job),
        spool: state.path().join(format!("spool/{job}-1.out")),
        metadata: Some(format!("\"{}\"", "m".repeat(metadata_bytes))),
        ..task("/in/a b\n.txt")
    });
    let tasks: Vec<Task> = tasks.collect();
    let report = processor.process_batch(&tasks.iter().collect::<Vec<_>>(), Default::default()).await;
    (report, tasks, state)
}

#[tokio::test]
async fn each_job_is_a_line_on_standard_input() {
    let (report, tasks, state) = run("cat > stdin; env > env", 3, 1).await;
    assert_eq!(report.whole.outcome, Outcome::Done);
    let told = fs::read_to_string(state.path().join("work/stdin")).unwrap();
    let told: Vec<serde_json::Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let jobs: Vec<i64> = told.iter().map(|job| job["job"].as_i64().unwrap()).collect();
    assert_eq!(jobs, [1, 2, 3]);
    assert_eq!((&told[2]["path"], &told[2]["fence"]), (&"/in/a b\n.txt".into(), &1.into()));
    let env = fs::read_to_string(state.path().join("work/env")).unwrap();
    let key = batch_key(&tasks.iter().collect::<Vec<_>>());
    for line in ["INGESTD_BATCH=3", "INGESTD_OP=add", "INGESTD_PIPELINE=docs", "INGESTD_JOB=", "INGESTD_PATH="] {
        assert!(env.lines().any(|found| found == line), "{line} is not in\n{env}");
    }
    assert!(env.contains(&format!("INGESTD_IDEMPOTENCY_KEY={key}\n")), "{env}");
}

#[tokio::test]
async fn a_command_that_does_not_read_or_prints_before_it_reads_is_no_deadlock() {
    for script in ["exit 0", "exec <&-; sleep 0.1", "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; cat"] {
        let (report, ..) = run(script, 200, 4_000).await;
        assert_eq!(report.whole.outcome, Outcome::Done, "{script}");
    }
}

#[tokio::test]
async fn only_standard_output_answers_and_both_are_kept_and_shown_for_every_job() {
    let script = r#"cat > /dev/null; echo '{"job":1,"ok":true}' >&2; echo working
        printf '{"job":2,"ok":'; sleep 0.1; echo 'torn' >&2; printf 'false,"error":"no","retry":false}'; exit 7"#;
    let (report, tasks, _state) = run(script, 3, 1).await;
    assert_eq!(report.named.keys().collect::<Vec<_>>(), [&JobId(2)]);
    assert!(matches!(&report.named[&JobId(2)], Outcome::Failed(error)
        if error.kind == ErrorKind::Answer && error.permanent && error.message == "no"));
    assert_eq!(report.whole.code, Some(7));
    let output = String::from_utf8(report.whole.output).unwrap();
    for part in ["working\n", "torn\n", "{\"job\":1,\"ok\":true}\n", "false,"] {
        assert!(output.contains(part), "{output}");
    }
    for task in &tasks {
        assert_eq!(fs::read_to_string(&task.spool).unwrap(), output);
    }
}
