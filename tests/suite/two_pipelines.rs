//! One file given to two pipelines, which changes between their executions: each is given what the other saw.

use std::fs;

use ingestd::clock::Clock as _;
use ingestd::job::{JobId, StateName, Verdict};
use ingestd::store::{
    Appetite, Browse, Content, Enqueued, JobFilter, Lease, NewJob, Queue, Renamed, Settled, Settlement, Sources,
    Steered, Steering, Upkeep, Want, Work,
};

use crate::store::{Fixture, content, digest, file, id, transient, watched, with_watch};
use crate::support::*;

fn of_mail(job: NewJob) -> NewJob {
    NewJob { pipeline: "mail".to_owned(), ..job }
}

/// Leases of one file's job for `docs` and of that for `mail`.
async fn both(f: &Fixture, job: NewJob) -> (Lease, Lease) {
    f.store.enqueue(vec![job.clone(), of_mail(job)]).await.unwrap();
    let wants = ["docs", "mail"].map(|pipeline| Want::single(pipeline, 1));
    let mut work: Vec<(Lease, Work)> = f.store.lease(wants.to_vec(), 2, Appetite::Regular).await.unwrap().work;
    work.sort_by_key(|(_, work)| work.pipeline.clone());
    let (mail, docs) = (work.pop().unwrap().0, work.pop().unwrap().0);
    (docs, mail)
}

fn end(f: &Fixture, lease: Lease, verdict: Verdict, content: Content) -> Settlement {
    Settlement {
        lease,
        verdict,
        code: Some(0),
        output: Vec::new(),
        content: Some(content),
        remember: false,
        finished_at: f.clock.now(),
        duration: std::time::Duration::from_millis(5),
    }
}

/// The file as it is now, with its content.
fn seen(job: NewJob, byte: u8) -> NewJob {
    NewJob { digest: Some(digest(byte)), ..job }
}

#[track_caller]
fn is_new(answer: Enqueued) -> JobId {
    let Enqueued::New { id, .. } = answer else { panic!("{answer:?} is no new job") };
    id
}

#[tokio::test]
async fn whoever_saw_another_content_is_given_the_file_again_whichever_end_came_first_or_with_the_other() {
    for order in ["old first", "new first", "in one call, old first", "in one call, new first"] {
        let f = Fixture::new().await;
        let (docs, mail) = both(&f, file("/a", 1)).await;
        let old = end(&f, mail, Verdict::Complete, content(1, 7));
        let new = end(&f, docs, Verdict::Complete, content(2, 8));
        let calls = match order {
            "old first" => vec![vec![old], vec![new]],
            "new first" => vec![vec![new], vec![old]],
            "in one call, old first" => vec![vec![old, new]],
            _ => vec![vec![new, old]],
        };
        for call in calls {
            let ends = call.len();
            assert_eq!(f.store.settle(call).await.unwrap(), vec![Settled::As(StateName::Completed); ends], "{order}");
        }
        // Nobody may say of the file that it is known without a look at its content.
        assert_eq!(f.enqueue(of_mail(file("/a", 2))).await, Enqueued::NeedsDigest, "{order}");
        is_new(f.enqueue(of_mail(seen(file("/a", 2), 8))).await);
        // Whoever ended last and saw what is there now is done with it; of an earlier end nobody can say that.
        match f.enqueue(file("/a", 2)).await {
            Enqueued::Known { state: StateName::Completed, .. } => assert!(order.ends_with("old first"), "{order}"),
            other => {
                assert!(matches!(other, Enqueued::New { .. }) && order.ends_with("new first"), "{order}: {other:?}");
            }
        }
        // And then it is known.
        assert!(matches!(f.enqueue(of_mail(file("/a", 2))).await, Enqueued::Known { .. }), "{order}");
        assert_eq!(f.store.check(true).await.unwrap(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_both_saw_alike_or_one_has_yet_to_see_is_not_done_again() {
    // Both met the changed file.
    let f = Fixture::new().await;
    let (docs, mail) = both(&f, file("/a", 1)).await;
    for lease in [docs, mail] {
        f.store.settle(vec![end(&f, lease, Verdict::Complete, content(2, 8))]).await.unwrap();
    }
    for job in [file("/a", 2), of_mail(file("/a", 2))] {
        assert!(matches!(f.enqueue(job).await, Enqueued::Known { state: StateName::Completed, .. }));
    }
    // One of them is still at it, and ends with what the other saw.
    let f = Fixture::new().await;
    let (docs, mail) = both(&f, file("/a", 1)).await;
    let retry = Verdict::Retry { run_at: f.clock.now(), error: transient() };
    f.store.settle(vec![end(&f, mail, retry, content(1, 7))]).await.unwrap();
    f.store.settle(vec![end(&f, docs, Verdict::Complete, content(2, 8))]).await.unwrap();
    assert!(matches!(f.enqueue(file("/a", 2)).await, Enqueued::Known { state: StateName::Completed, .. }));
    assert!(matches!(f.enqueue(of_mail(file("/a", 2))).await, Enqueued::Known { state: StateName::Retrying, .. }));
}

#[tokio::test]
async fn a_content_with_the_time_of_the_one_before_is_seen_as_another_by_its_digest() {
    let f = Fixture::new().await;
    let (docs, mail) = both(&f, file("/a", 1)).await;
    f.store.settle(vec![end(&f, mail, Verdict::Complete, content(1, 7))]).await.unwrap();
    f.store.settle(vec![end(&f, docs, Verdict::Complete, content(1, 8))]).await.unwrap();
    assert_eq!(f.enqueue(of_mail(file("/a", 1))).await, Enqueued::NeedsDigest);
    is_new(f.enqueue(of_mail(seen(file("/a", 1), 8))).await);
    assert!(matches!(f.enqueue(seen(file("/a", 1), 8)).await, Enqueued::Known { state: StateName::Completed, .. }));
}

#[tokio::test]
async fn a_pipeline_that_is_given_a_changed_file_for_the_first_time_gets_the_version_that_is_there() {
    let f = Fixture::new().await;
    f.enqueue(file("/a", 1)).await;
    let (lease, _) = f.lease_one().await;
    f.settle_with(lease, Verdict::Complete, Some(content(1, 7))).await;
    assert_eq!(f.enqueue(of_mail(file("/a", 2))).await, Enqueued::NeedsDigest);
    let job = is_new(f.enqueue(of_mail(seen(file("/a", 2), 8))).await);
    assert_eq!(f.store.job(job).await.unwrap().unwrap().version, 2);
    // And the other one is given it, too, when it is seen for that.
    is_new(f.enqueue(file("/a", 2)).await);
    assert!(matches!(f.enqueue(of_mail(file("/a", 2))).await, Enqueued::Known { .. }));
}

#[tokio::test]
async fn a_pipeline_whose_job_was_cancelled_before_it_began_divides_no_version_for_who_completed_it() {
    let f = Fixture::new().await;
    let docs = id(f.enqueue(file("/a", 1)).await);
    assert!(matches!(f.store.cancel(vec![docs]).await.unwrap()[..], [Steered::Done]));
    f.enqueue(of_mail(file("/a", 1))).await;
    let mut work = f.store.lease(vec![Want::single("mail", 1)], 1, Appetite::Regular).await.unwrap().work;
    let (mail, _) = work.pop().unwrap();
    f.store.settle(vec![end(&f, mail, Verdict::Complete, content(2, 8))]).await.unwrap();
    let again = f.enqueue(of_mail(seen(file("/a", 2), 8))).await;
    assert!(matches!(again, Enqueued::Known { state: StateName::Completed, .. }), "{again:?}");
    is_new(f.enqueue(file("/a", 2)).await);
}

#[tokio::test]
async fn a_rename_waits_for_jobs_of_other_pipelines() {
    let f = with_watch().await;
    f.enqueue(of_mail(watched("a", 1))).await;
    let mut renamed = watched("b", 1);
    renamed.renamed = Some(Renamed { from: "a".into(), told: true });
    renamed.digest = Some(digest(7));
    is_new(f.enqueue(renamed).await);
    let names = f.store.jobs(&JobFilter::default(), None, 10).await.unwrap();
    assert_eq!(names.iter().filter(|job| job.path.ends_with("a")).count(), 1, "mail's job keeps its name");
}

#[tokio::test]
async fn a_scan_sees_a_file_of_which_two_contents_were_seen() {
    let f = with_watch().await;
    let (docs, mail) = both(&f, watched("a", 1)).await;
    f.store.settle(vec![end(&f, mail, Verdict::Complete, content(1, 7))]).await.unwrap();
    f.store.settle(vec![end(&f, docs, Verdict::Complete, content(2, 8))]).await.unwrap();
    let known = f.store.known("inbox", vec!["a".into()]).await.unwrap().remove(0).unwrap();
    assert!(known.present && known.identity != watched("a", 2).identity, "{known:?}");
    let job = is_new(f.enqueue(of_mail(seen(watched("a", 2), 8))).await);
    assert_eq!(id(f.enqueue(of_mail(watched("a", 2))).await), job);
}

#[test]
fn a_retry_of_one_pipeline_is_told_the_digest_of_what_another_one_saw_since() {
    let place = Place::new();
    // The first execution fails, all others succeed.
    let ledger = Ledger::new(&place, &format!("[ -e {} ]", place.at("go").display()));
    let command = &ledger.command;
    place.configure(&format!(
        "[pipeline.docs]\nkind = \"exec\"\ncommand = {command}\n\
         [pipeline.mail]\nkind = \"exec\"\ncommand = {command}\nretry = {{ base = \"1h\", jitter = \"none\" }}\n"
    ));
    let _daemon = Daemon::start(&place);
    let path = place.file("report", "old");
    place.ok(&["pause", "docs"]);
    let [mail, docs] = ["mail", "docs"].map(|pipeline| place.add(&path, &["--pipeline", pipeline]));
    place.wait_state(mail, "retrying");
    fs::write(place.at("go"), "").unwrap();
    fs::write(&path, "the new content").unwrap();
    place.ok(&["resume", "docs"]);
    place.wait_state(docs, "completed");
    place.ok(&["retry", &mail.to_string()]);
    place.wait_state(mail, "completed");
    let seen: Vec<_> = ledger.entries().into_iter().map(|entry| (entry.job, entry.sha256, entry.digest)).collect();
    let [(_, old, old_digest), (_, new, new_digest), again] = seen.as_slice() else { panic!("{seen:?}") };
    assert!(old != new && old_digest != new_digest, "{seen:?}");
    assert_eq!(*again, (mail, new.clone(), new_digest.clone()));
    assert_eq!(text(&place.show(mail), "digest"), text(&place.show(docs), "digest"));
    assert_eq!(place.history().len(), 3, "nothing was put back on the way");
    // What it was first is a change again.
    fs::write(&path, "old").unwrap();
    let last = place.add(&path, &["--pipeline", "mail"]);
    place.wait_state(last, "completed");
    assert_eq!(ledger.entries().last().map(|entry| (entry.job, &entry.sha256)), Some((last, old)));
}

#[test]
fn a_file_that_changed_while_one_of_its_pipelines_was_paused_is_processed_by_both_as_it_is_now() {
    let place = Place::new();
    let ledger = Ledger::new(&place, "");
    let command = &ledger.command;
    place.configure(&format!(
        "[pipeline.docs]\nkind = \"exec\"\ncommand = {command}\n[pipeline.mail]\nkind = \"exec\"\ncommand = {command}\n"
    ));
    let _daemon = Daemon::start(&place);
    let path = place.file("report", "old");
    place.ok(&["pause", "docs"]);
    for pipeline in ["docs", "mail"] {
        place.add(&path, &["--pipeline", pipeline]);
    }
    place.wait_count("completed", 1);
    fs::write(&path, "the new content").unwrap();
    place.ok(&["resume", "docs"]);
    place.wait_count("completed", 2);
    place.add(&path, &["--pipeline", "mail"]);
    place.wait_count("completed", 3);
    let of_mail: Vec<_> =
        place.jobs().into_iter().filter(|job| job["pipeline"] == "mail").map(|job| job["digest"].clone()).collect();
    assert_eq!(of_mail.len(), 2);
    assert_ne!(of_mail[0], of_mail[1]);
}
