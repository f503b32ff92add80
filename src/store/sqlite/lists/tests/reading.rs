//! When a run is initial, who reads it, and how it changes hands.

use super::*;

#[tokio::test]
async fn the_first_run_of_a_list_that_is_read_to_its_end_is_the_initial_one_even_after_it_was_pruned() {
    let reader = Reader::new().await;
    let dry = NewListRun { dry_run: true, ..named("a") };
    let mut types = Vec::new();
    for new in [named("a"), dry, named("a"), named("a"), named("b")] {
        let Begun::Run { id, run_type } = reader.store.begin_list(new.clone()).await.unwrap() else { panic!() };
        types.push(run_type);
        if types.len() == 1 {
            // Never read to its end.
            reader.store.cancel_run(id).await.unwrap();
            assert!(!reader.store.end_input(id, me()).await.unwrap());
        } else {
            assert!(reader.store.end_input(id, me()).await.unwrap());
            assert_eq!(reader.run(id).await.state, RunState::Completed);
        }
        let never = Timestamp::from_millis(i64::MAX);
        assert_eq!(reader.store.prune(Prunable::Runs, never, 9).await.unwrap(), 1);
    }
    let (initial, incremental) = (RunType::Initial, RunType::Incremental);
    assert_eq!(types, [initial, initial, initial, incremental, initial]);
}

#[tokio::test]
async fn one_run_of_a_list_is_read_at_a_time_and_any_number_of_nameless_inputs() {
    let reader = Reader::new().await;
    let first = reader.begin(named("a")).await;
    assert_eq!(reader.store.begin_list(named("a")).await.unwrap(), Begun::Active(first));
    reader.store.pause_run(first).await.unwrap();
    assert_eq!(reader.store.begin_list(named("a")).await.unwrap(), Begun::Active(first));
    let input = RunInput::File { path: "/l".into(), read: InputRead::default() };
    let of_file = NewListRun { name: None, list: "file:/l".to_owned(), input, ..named("a") };
    let second = reader.begin(of_file.clone()).await;
    assert_eq!(reader.store.begin_list(of_file).await.unwrap(), Begun::Active(second));
    let nameless = NewListRun { name: None, list: "stdin".to_owned(), ..named("a") };
    let third = reader.begin(nameless.clone()).await;
    let fourth = reader.begin(nameless).await;
    let found = reader.store.unfinished("stdin".to_owned()).await.unwrap();
    assert_eq!(found.iter().map(|found| found.run.id).collect::<Vec<_>>(), [fourth, third]);
    // A watch may have the name of a list.
    let scan = crate::store::ScanToRun {
        watch: "a".to_owned(),
        root: "/srv/inbox".into(),
        pipeline: "documents".to_owned(),
        run_type: RunType::Recovery,
    };
    assert!(!reader.store.begin_scan(scan.clone()).await.unwrap().goes_on);
    assert!(reader.store.begin_scan(scan).await.unwrap().goes_on);
    assert_eq!(reader.store.cancel_scans_but(Vec::new()).await.unwrap(), 1);
    assert_eq!(reader.run(first).await.state, RunState::Paused);
}

#[tokio::test]
async fn a_run_changes_hands_only_from_the_one_that_was_seen_and_goes_on_running() {
    let reader = Reader::new().await;
    let id = reader.begin(named("a")).await;
    reader.take(id, &["1"]).await;
    let (one, two) = (Holder("one".to_owned()), Holder("two".to_owned()));
    assert!(!reader.store.take_over(id, one.clone(), two.clone()).await.unwrap());
    reader.store.pause_run(id).await.unwrap();
    assert!(reader.store.take_over(id, me(), one.clone()).await.unwrap());
    assert!(!reader.store.take_over(id, me(), two).await.unwrap());
    assert_eq!(reader.run(id).await.state, RunState::Running);
    let lines = batch(id, 1, vec![file(id, 2, "2")]);
    assert_eq!(reader.store.take_lines(lines.clone()).await.unwrap(), LinesTaken::TakenOver);
    assert!(!reader.store.end_input(id, me()).await.unwrap());
    let found = reader.store.unfinished_run(id).await.unwrap().unwrap();
    assert_eq!((found.holder, found.run.position), (one.clone(), 1));
    let lines = Lines { holder: one.clone(), ..lines };
    assert!(matches!(reader.store.take_lines(lines).await.unwrap(), LinesTaken::All(_)));
    assert!(reader.store.end_input(id, one).await.unwrap());
    assert!(reader.store.unfinished_run(id).await.unwrap().is_none());
}
