use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::*;
use crate::control::execute;
use crate::control::fake::{Fake, hands};
use crate::control::request::{Code, Request, Response};
use crate::job::{Op, Priority};
use crate::store::{Lines, NewJob};

/// A state directory with the database's file, some files to list, and a run that reads.
struct Scene {
    folder: TempDir,
    fake: Arc<Fake>,
}

impl Scene {
    async fn new() -> Self {
        Self::of(false).await
    }

    async fn of(dry_run: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["plain", "changed", "known", "ingestd.db"] {
            std::fs::write(folder.path().join(name), "abc").unwrap();
        }
        let place = folder.path().canonicalize().unwrap();
        let scene = Self { folder, fake: Arc::new(Fake { place, ..Fake::default() }) };
        let begun: SyncBegun = scene.ask(Request::SyncBegin(begin(dry_run))).await;
        assert_eq!(begun.id, RunId(1));
        scene
    }

    async fn request(&self, request: Request) -> Response {
        execute(request, &hands(&self.fake, false)).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, request: Request) -> T {
        let wire = serde_json::to_string(&request).unwrap();
        match self.request(serde_json::from_str(&wire).unwrap()).await {
            Response::Ok(value) => serde_json::from_value(value).unwrap(),
            Response::Err { message, .. } => panic!("{message}"),
        }
    }

    async fn lines(&self, after: u64, works: Vec<ListedWork>) -> SyncTaken {
        self.ask(Request::SyncLines(lines(after, works))).await
    }

    fn path(&self, name: &str) -> Option<WirePath> {
        Some(WirePath(self.fake.place.join(name)))
    }

    fn named(&self, name: &str) -> ListedWork {
        ListedWork { path: self.path(name), ..ListedWork::default() }
    }

    fn taken(&self) -> Vec<Lines> {
        self.fake.listed.lock().unwrap()[&RunId(1)].taken.clone()
    }

    fn change_run(&self, change: impl FnOnce(&mut crate::control::fake::lists::ListRun)) {
        change(self.fake.listed.lock().unwrap().get_mut(&RunId(1)).unwrap());
    }

    /// The files that hold contents.
    fn contents(&self) -> Vec<PathBuf> {
        let list = |folder: &Path| {
            let entries = std::fs::read_dir(folder).into_iter().flatten();
            entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
        };
        list(&self.folder.path().join("content/ingestd.db")).iter().flat_map(|place| list(place)).collect()
    }
}

fn holder() -> Holder {
    Holder("me".to_owned())
}

fn begin(dry_run: bool) -> SyncBegin {
    SyncBegin {
        name: Some("nightly".to_owned()),
        list: "nightly".to_owned(),
        input: None,
        pipeline: None,
        dry_run,
        delete_missing: false,
        holder: holder(),
    }
}

fn lines(after: u64, works: Vec<ListedWork>) -> SyncLines {
    let entry = |(work, line)| Entry { line, text: format!("line {line}"), asks: Asks::Work(Box::new(work)) };
    let entries: Vec<Entry> = works.into_iter().zip(after + 1..).map(entry).collect();
    let count = entries.len() as u64;
    SyncLines {
        run: RunId(1),
        holder: holder(),
        after,
        read: InputRead { lines: after + count, bytes: 0, digest: None },
        count,
        entries,
        troubles: Vec::new(),
        rate_per_s: 0.0,
        more_worked: Duration::ZERO,
    }
}

fn inline(text: &str) -> Option<ListedContent> {
    Some(ListedContent::Inline(STANDARD.encode(text)))
}

fn failures(taken: &SyncTaken) -> Vec<(u64, &str)> {
    let SyncTaken::All { failed, .. } = taken else { panic!("{taken:?}") };
    failed.iter().map(|trouble| (trouble.line, trouble.message.as_str())).collect()
}

fn content_of(job: &NewJob) -> PathBuf {
    job.listed.as_ref().unwrap().content.clone().unwrap()
}

#[tokio::test]
async fn lines_become_jobs_and_what_is_no_file_fails_alone() {
    let scene = Scene::new().await;
    let works = ["plain", "missing", "", "known", "ingestd.db"].map(|name| scene.named(name)).to_vec();
    let taken = scene.lines(0, works).await;
    let failed = failures(&taken);
    assert_eq!(failed.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 5]);
    assert_eq!(failed[0].1, "no such file");
    assert!(failed[1].1.starts_with("it is not a regular file"), "{failed:?}");
    assert!(failed[2].1.contains("the queue's own database"), "{failed:?}");
    assert!(matches!(taken, SyncTaken::All { enqueued: 1, skipped: 1, .. }));
    let kept = &scene.taken()[0].problems;
    assert!(kept.iter().all(|problem| !problem.bad && problem.text.starts_with(b"line ")));
    assert_eq!(kept[0].path, Some(scene.fake.place.join("missing")));
}

#[tokio::test]
async fn a_line_says_what_its_job_is_about() {
    let scene = Scene::new().await;
    let work = ListedWork {
        number: Some(70),
        op: Some(Op::Modify),
        repo: Some("r".to_owned()),
        priority: Some(Priority::High),
        key: Some("k".to_owned()),
        metadata: Some("[1]".to_owned()),
        skip: true,
        ..scene.named("./x/../plain")
    };
    let delete = |work| ListedWork { op: Some(Op::Delete), ..work };
    let only_key = ListedWork { key: Some("gone".to_owned()), ..ListedWork::default() };
    let taken = scene.lines(0, vec![work, delete(scene.named("missing")), delete(only_key)]).await;
    assert_eq!(failures(&taken), []);
    let jobs = scene.taken()[0].jobs.clone();
    let path = scene.fake.place.join("plain");
    assert_eq!(jobs[0].source, crate::job::SourceKey::Keyed { key: "k".to_owned(), path });
    let listed = jobs[0].listed.as_ref().unwrap();
    assert_eq!((listed.line, listed.op, listed.repo.as_deref()), (70, Some(Op::Modify), Some("r")));
    assert_eq!((jobs[0].priority, jobs[0].metadata.as_deref(), jobs[0].note_only), (Priority::High, Some("[1]"), true));
    assert_eq!((jobs[0].identity.size, jobs[0].pipeline.as_str()), (3, "documents"));
    assert_eq!(jobs[1].listed.as_ref().unwrap().op, Some(Op::Delete));
    assert_eq!(jobs[2].source.display_path(), Path::new("gone"));
}

#[tokio::test]
async fn what_a_line_lacks_or_has_wrong_is_said() {
    let scene = Scene::new().await;
    let plain = || scene.named("plain");
    let inline = |text: &str| Some(ListedContent::Inline(text.to_owned()));
    let works = vec![
        ListedWork { key: Some("k".to_owned()), ..ListedWork::default() },
        ListedWork::default(),
        ListedWork { key: Some(String::new()), ..plain() },
        ListedWork { metadata: Some("{".to_owned()), ..plain() },
        ListedWork { content: inline("?"), ..plain() },
        ListedWork { content: scene.path("missing").map(ListedContent::File), ..plain() },
        ListedWork { path: scene.path("nul\0"), ..plain() },
        ListedWork { content: inline(&"A".repeat(crate::intake::CONTENT_LIMIT / 3 * 4 + 8)), ..plain() },
    ];
    let taken = scene.lines(0, works).await;
    let words =
        ["nothing to process", "neither a path nor a key", "key is empty", "metadata is not JSON", "not base64"];
    let words = words.into_iter().chain(["no such file", "NUL", "more than 32 MiB"]);
    for ((line, message), (expected, word)) in failures(&taken).into_iter().zip((1..).zip(words)) {
        assert!(line == expected && message.contains(word), "{line}: {message}");
    }
    assert_eq!(failures(&taken).len(), 8);
    assert_eq!(scene.contents(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn only_files_that_the_store_asks_about_are_read() {
    let scene = Scene::new().await;
    scene.lines(0, vec![scene.named("plain"), scene.named("changed")]).await;
    let digests: Vec<bool> = scene.taken()[0].jobs.iter().map(|job| job.digest.is_some()).collect();
    assert_eq!(digests, [false, true]);
}

#[tokio::test]
async fn a_content_of_a_line_is_a_file_before_its_line_is_taken_and_goes_where_no_job_needs_it() {
    let scene = Scene::new().await;
    let with = |name: &str| ListedWork { content: inline(name), ..scene.named(name) };
    let keyed = ListedWork { key: Some("k".to_owned()), content: inline("x"), ..ListedWork::default() };
    let noted = ListedWork { skip: true, ..with("noted") };
    scene.lines(0, vec![with("in/a.pdf"), with("known"), noted, keyed]).await;
    let jobs = scene.taken()[0].jobs.clone();
    let (first, last) = (content_of(&jobs[0]), content_of(&jobs[3]));
    assert_eq!(std::fs::read_to_string(&first).unwrap(), "in/a.pdf");
    assert!(first.ends_with("a.pdf") && last.ends_with("content"), "{}", last.display());
    assert_eq!(jobs[3].source.display_path(), Path::new("k"));
    assert!(jobs.iter().all(|job| job.digest.is_some()));
    let mut left = scene.contents();
    left.sort();
    assert_eq!(left, [first, last]);
}

#[tokio::test]
async fn lines_that_are_handed_over_again_leave_the_contents_that_were_taken() {
    let scene = Scene::new().await;
    let work = ListedWork { content: inline("abc"), ..scene.named("a") };
    scene.lines(0, vec![work.clone()]).await;
    let content = content_of(&scene.taken()[0].jobs[0]);
    assert_eq!(scene.lines(0, vec![work.clone()]).await, SyncTaken::Elsewhere { line: 1 });
    assert_eq!(scene.contents(), std::slice::from_ref(&content));
    scene.change_run(|run| run.room = Some(0));
    assert_eq!(scene.lines(1, vec![work.clone()]).await, SyncTaken::Full { room: 0 });
    scene.change_run(|run| run.state = RunState::Paused);
    assert_eq!(scene.lines(1, vec![work]).await, SyncTaken::NotRunning { state: RunState::Paused });
    assert_eq!(scene.contents(), [content]);
}

#[tokio::test]
async fn a_dry_run_keeps_no_content() {
    let scene = Scene::of(true).await;
    let taken = scene.lines(0, vec![ListedWork { content: inline("abc"), ..scene.named("a") }]).await;
    assert_eq!(failures(&taken), []);
    let job = scene.taken()[0].jobs[0].clone();
    assert!(job.digest.is_some() && job.identity.size == 3 && job.listed.unwrap().content.is_none());
    assert_eq!(scene.contents(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn changesets_and_bad_lines_are_kept_with_the_run() {
    let scene = Scene::new().await;
    let changeset = |text: &str| Asks::Changeset { repo: Some("r".to_owned()), changeset: text.to_owned() };
    let mut batch = lines(0, Vec::new());
    batch.read.lines = 3;
    batch.entries = [(1, "{\"commit\":1}"), (3, "{")]
        .map(|(line, text)| Entry { line, text: text.to_owned(), asks: changeset(text) })
        .to_vec();
    batch.troubles = vec![Trouble { line: 2, text: "{x".to_owned(), message: "no JSON".to_owned() }];
    let taken: SyncTaken = scene.ask(Request::SyncLines(batch)).await;
    assert_eq!(failures(&taken), []);
    let kept = scene.taken().remove(0);
    assert_eq!((kept.changesets.len(), kept.changesets[0].line), (1, 1));
    assert!(kept.problems.iter().all(|problem| problem.bad));
    assert_eq!(kept.problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [2, 3]);
}

#[tokio::test]
async fn a_second_reader_of_a_name_is_refused_with_the_run_that_reads() {
    let scene = Scene::new().await;
    let Response::Err { code, message } = scene.request(Request::SyncBegin(begin(false))).await else { panic!() };
    assert!(code == Code::Failed && message.contains("run 1") && message.contains("runs cancel 1"), "{message}");
    let unknown = SyncBegin { pipeline: Some("nope".to_owned()), ..begin(false) };
    let refused = scene.request(Request::SyncBegin(unknown)).await;
    assert!(matches!(refused, Response::Err { code: Code::NotFound, .. }), "{refused:?}");
    let stranger = || Holder("other".to_owned());
    let over: bool = scene.ask(Request::SyncTakeOver { run: RunId(1), from: stranger(), to: stranger() }).await;
    assert!(!over);
    let over: bool = scene.ask(Request::SyncTakeOver { run: RunId(1), from: holder(), to: stranger() }).await;
    assert!(over);
    assert_eq!(scene.lines(0, vec![scene.named("plain")]).await, SyncTaken::TakenOver);
    let ended: bool = scene.ask(Request::SyncEnd { run: RunId(1), holder: holder() }).await;
    assert!(!ended);
    let missing: SyncMissing = scene.ask(Request::SyncMissing { run: RunId(1), holder: stranger() }).await;
    assert_eq!(missing, SyncMissing::More { deletes: 1_000 });
    let mut unknown = lines(0, Vec::new());
    unknown.run = RunId(9);
    assert!(matches!(scene.request(Request::SyncLines(unknown)).await, Response::Err { code: Code::NotFound, .. }));
}
