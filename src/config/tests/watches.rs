//! How watches stand to each other, and definitions from the database.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::super::*;
use super::{Written, keys_of};

struct Case {
    watches: BTreeMap<String, Watch>,
}

impl Case {
    fn new() -> Self {
        Self { watches: BTreeMap::new() }
    }

    fn watch(self, name: &str, path: &str) -> Self {
        self.with(name, path, |_| {})
    }

    fn with(mut self, name: &str, path: &str, change: impl FnOnce(&mut Watch)) -> Self {
        let mut watch = Watch::of(path.into(), "documents".to_owned());
        change(&mut watch);
        self.watches.insert(name.to_owned(), watch);
        self
    }

    fn problems(&self) -> Vec<String> {
        self.found().into_iter().map(|problem| problem.key).collect()
    }

    fn found(&self) -> Vec<Problem> {
        let noop = || Pipeline::of(ProcessorKind::Noop);
        let pipelines = BTreeMap::from([("documents".to_owned(), noop()), ("other".to_owned(), noop())]);
        check_watches(&self.watches, &pipelines, Path::new("/var/lib/state"))
    }
}

fn move_to(target: &str) -> Disposal {
    Disposal::Move(target.into())
}

#[test]
fn two_watches_on_one_tree_need_two_pipelines() {
    let same = Case::new().watch("a", "/s/in").watch("b", "/s/in/");
    assert_eq!(same.problems(), ["watch.b.path"]);
    assert_eq!(Case::new().watch("a", "/s/in").watch("b", "/s/in/deep").problems(), ["watch.b.path"]);
    assert_eq!(Case::new().watch("a", "/s/in/deep").watch("b", "/s/in").problems(), ["watch.b.path"]);
    let flat = |watch: &mut Watch| watch.recursive = false;
    assert!(Case::new().with("a", "/s/in", flat).watch("b", "/s/in/deep").problems().is_empty());
    assert_eq!(Case::new().with("a", "/s/in", flat).with("b", "/s/in", flat).problems(), ["watch.b.path"]);
    let other = |watch: &mut Watch| watch.pipeline = "other".to_owned();
    assert!(Case::new().watch("a", "/s/in").with("b", "/s/in", other).problems().is_empty());
    assert!(Case::new().watch("a", "/s/in").watch("b", "/s/inner").problems().is_empty(), "a name is no folder");
    let left_out = |watch: &mut Watch| watch.exclude.push("deep/**".to_owned());
    assert!(Case::new().with("a", "/s/in", left_out).watch("b", "/s/in/deep").problems().is_empty());
    let shallow = |levels| move |watch: &mut Watch| watch.max_depth = Some(levels);
    assert!(Case::new().with("a", "/s/in", shallow(2)).watch("b", "/s/in/x/deep").problems().is_empty());
    assert_eq!(Case::new().with("a", "/s/in", shallow(3)).watch("b", "/s/in/x/deep").problems(), ["watch.b.path"]);
    let only_here = |watch: &mut Watch| watch.include = vec!["*.pdf".to_owned()];
    assert!(Case::new().with("a", "/s/in", only_here).watch("b", "/s/in/deep").problems().is_empty());
    assert_eq!(Case::new().with("a", "/s/in", only_here).watch("b", "/s/in").problems(), ["watch.b.path"]);
}

#[test]
fn the_way_out_of_an_overlap_is_told() {
    let message = |case: Case| case.found()[0].message.clone().unwrap();
    let nested = message(Case::new().watch("a", "/s/in").watch("b", "/s/in/x/deep"));
    assert!(nested.contains("watch a sees the same files") && nested.contains("exclude the inner with \"x/deep/**\""));
    assert!(message(Case::new().watch("a", "/s/in").watch("b", "/s/in")).contains("make one watch of them"));
    let taken = |watch: &mut Watch| watch.exclude.push("x/deep/**".to_owned());
    assert!(Case::new().with("a", "/s/in", taken).watch("b", "/s/in/x/deep").problems().is_empty(), "and it is one");
}

#[test]
fn the_whole_filesystem_is_not_a_folder_for_files_to_arrive_in() {
    for path in ["/", "//", "/srv/..", "/proc/self/root"] {
        let problems = Case::new().watch("a", path).found();
        assert_eq!(problems.len(), 1, "{path}: {problems:?}");
        assert!(problems[0].message.as_deref().unwrap().contains("watch the folders in which files arrive"), "{path}");
    }
}

#[test]
fn filters_that_let_nothing_pass_are_refused() {
    let case = |change: fn(&mut Watch)| Case::new().with("a", "/s/in", change).problems();
    assert_eq!(case(|watch| watch.include = vec!["**/*.tmp".to_owned()]), ["watch.a.include"]);
    assert_eq!(case(|watch| watch.ready_suffix = ".part".to_owned()), ["watch.a.ready_suffix"]);
    let only_companions = |watch: &mut Watch| {
        watch.ready_suffix = ".done".to_owned();
        watch.include = vec!["**/*.done".to_owned()];
    };
    assert_eq!(case(only_companions), ["watch.a.ready_suffix"]);
    assert!(case(|watch| watch.ready_suffix = ".done".to_owned()).is_empty());
}

#[test]
fn links_do_not_hide_that_two_trees_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let case = Case::new().watch("a", real.to_str().unwrap()).watch("b", link.join("x/../deep").to_str().unwrap());
    assert_eq!(case.problems(), ["watch.b.path"]);
}

#[test]
fn a_move_must_not_come_back() {
    let case = |target: &str, change: fn(&mut Watch)| {
        let target = target.to_owned();
        let case = Case::new().with("in", "/s/in", |watch| {
            watch.on_success = move_to(&target);
            change(watch);
        });
        case.problems()
    };
    let refused = ["watch.in.on_success"];
    assert_eq!(case("/s/in/done", |_| {}), refused);
    assert_eq!(case("/s/in", |_| {}), refused);
    assert_eq!(case("/s/in", |watch| watch.recursive = false), refused);
    assert_eq!(case("done", |_| {}), refused);
    assert!(case("/s/done", |_| {}).is_empty());
    assert!(case("/s/in/done", |watch| watch.recursive = false).is_empty());
    assert!(case("/s/in/.done", |_| {}).is_empty(), "hidden folders are excluded anyway");
    assert!(case("/s/in/.done/deep", |_| {}).is_empty());
    for exclude in ["done", "done/**", "**/done", "do*"] {
        let target = "/s/in/done";
        let case = Case::new().with("in", "/s/in", |watch| {
            watch.on_success = move_to(target);
            watch.exclude = vec![exclude.to_owned()];
        });
        assert!(case.problems().is_empty(), "{exclude}");
    }
    assert_eq!(case("/s/in/done", |watch| watch.exclude = vec!["done/*.pdf".to_owned()]), refused);
    assert!(case("/s/in/done", |watch| watch.include = vec!["*.pdf".to_owned()]).is_empty());
    assert!(case("/s/in/done", |watch| watch.include = vec!["new/**/*.pdf".to_owned()]).is_empty());
    assert_eq!(case("/s/in/done", |watch| watch.include = vec!["**/*.pdf".to_owned()]), refused);
    assert_eq!(case("/s/in/done", |watch| watch.include = vec!["d*/*.pdf".to_owned()]), refused);
    assert_eq!(case("/s/in/done", |watch| watch.include = vec!["{a,done}/*".to_owned()]), refused);
    let second = Case::new().watch("a", "/s/a").with("b", "/s/b", |watch| watch.on_failure = move_to("/s/a/failed"));
    assert_eq!(second.problems(), ["watch.b.on_failure"], "another watch's tree counts too");
}

#[test]
fn the_state_directory_is_never_watched_but_may_lie_inside() {
    assert_eq!(Case::new().watch("a", "/var/lib/state").problems(), ["watch.a.path"]);
    assert_eq!(Case::new().watch("a", "/var/lib/state/work").problems(), ["watch.a.path"]);
    assert_eq!(Case::new().watch("a", "/var/../var/lib/state").problems(), ["watch.a.path"]);
    assert!(Case::new().watch("a", "/var/lib").problems().is_empty());
    assert!(Case::new().watch("a", "/var/lib/stately").problems().is_empty());
}

#[test]
fn roots_are_absolute_folders_that_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(Case::new().watch("a", file.to_str().unwrap()).problems(), ["watch.a.path"]);
    assert_eq!(Case::new().watch("a", "relative").problems(), ["watch.a.path"]);
    assert!(Case::new().watch("a", folder.path().join("gone").to_str().unwrap()).problems().is_empty());
}

#[test]
fn a_pipeline_has_to_exist() {
    let watch = Watch::of("/s".into(), "documets".to_owned());
    let pipelines = BTreeMap::from([("documents".to_owned(), Pipeline::of(ProcessorKind::Noop))]);
    let problems = check_watches(&BTreeMap::from([("a".to_owned(), watch)]), &pipelines, Path::new("/v"));
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].nearest.as_deref(), Some("documents"));
}

#[test]
fn globs_that_do_not_parse_are_placed() {
    let written = Written::new(
        "[pipeline.p]\nkind = 'noop'\n[watch.w]\npath = '/s'\npipeline = 'p'\n\
         include = ['**/*.pdf', 'é[a', 'a{b', 'a}', '[z-a]', 'a\\', '/abs', '']",
    );
    let report = written.load().unwrap_err();
    let keys: Vec<String> = (1..8).map(|index| format!("watch.w.include[{index}]")).collect();
    assert_eq!(keys_of(&report), keys);
    for (problem, character) in report.problems.iter().zip([2, 2, 2, 2, 2]) {
        let message = problem.message.as_deref().unwrap();
        assert!(message.ends_with(&format!(", at character {character}")), "{problem}");
        assert!(problem.origin.is_some());
    }
}

#[test]
fn definitions_in_the_database_have_the_keys_of_the_file() {
    let definition = json!({"path": "/s/in", "pipeline": "p", "settle": "0s", "events": ["add", "delete"],
        "recursive": false, "ready_suffix": null, "on_success": {"move": "/s/done"}, "priority": "high",
        "max_depth": 3, "min_size": "1B", "max_size": 9, "min_age": "1m", "order": "oldest", "on_rename": "track",
        "dedupe": "content", "delete_brake": {"above": 5, "share": 1, "wait": "1d"}});
    let watch = watch_from_json("inbox", &definition).unwrap();
    let expected = Watch {
        settle: std::time::Duration::ZERO,
        events: WatchEvents { add: true, modify: false, delete: true },
        recursive: false,
        on_success: move_to("/s/done"),
        priority: crate::job::Priority::High,
        max_depth: Some(3),
        min_size_bytes: 1,
        max_size_bytes: Some(9),
        min_age: std::time::Duration::from_mins(1),
        order: WatchOrder::Oldest,
        on_rename: OnRename::Track,
        dedupe: Dedupe::Content,
        delete_brake: DeleteBrake { above: 5, share: 1.0, wait: std::time::Duration::from_hours(24) },
        ..Watch::of("/s/in".into(), "p".to_owned())
    };
    assert_eq!(watch, expected);
}

#[test]
fn broken_definitions_are_reported_as_such() {
    let report = watch_from_json("in box", &json!({"path": 1, "setle": "1s", "recursive": "true"})).unwrap_err();
    let keys = [
        "watch.\"in box\"",
        "watch.\"in box\".path",
        "watch.\"in box\".pipeline",
        "watch.\"in box\".recursive",
        "watch.\"in box\".setle",
    ];
    assert_eq!(keys_of(&report), keys);
    assert!(report.problems.iter().all(|problem| problem.origin == Some(Origin::Definition)));
    assert!(watch_from_json("a", &json!([1])).is_err());
}
