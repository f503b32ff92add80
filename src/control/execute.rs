//! Carries requests out: in the daemon for those that came over its socket, in the command itself otherwise.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::hands::{Hands, Refusal};
use super::request::{Pong, Request, Response};
use super::{add, effects, runs, steer, sync, upkeep, watches};

/// The prefix of the keys that the program keeps for itself.
const OWN_KEYS: &str = "ingestd.";

/// Carries out one request. [`Request::Changes`] is a matter of the connection and is refused here.
pub async fn execute(request: Request, hands: &Hands) -> Response {
    match dispatch(request, hands).await {
        Ok(value) => Response::Ok(value),
        Err(refusal) => refusal.into(),
    }
}

async fn dispatch(request: Request, hands: &Hands) -> Result<Value, Refusal> {
    match request {
        Request::Ping => answer(&Pong { pid: std::process::id(), version: env!("CARGO_PKG_VERSION").to_owned() }),
        Request::Status => match &hands.live {
            Some(live) => answer(&live.status().await),
            None => Ok(Value::Null),
        },
        Request::Changes => Err(Refusal::usage("changes are told over the daemon's socket alone")),
        Request::Add(add) => answer(&add::add(add, hands).await?),
        Request::Retry { ids } => answer(&steer::retry(ids, hands).await?),
        Request::Cancel { ids } => answer(&steer::cancel(ids, hands).await?),
        Request::Prioritize { ids, level } => answer(&steer::prioritize(ids, level, hands).await?),
        Request::PausePipelines { names, now } => pause(names, now, hands).await,
        Request::ResumePipelines { names } => resume(names, hands).await,
        Request::WatchAdd { name, definition } => watches::add(&name, definition, hands).await,
        Request::WatchRemove { name } => watches::remove(&name, hands).await,
        Request::WatchPause { name } => watches::pause(&name, true, hands).await,
        Request::WatchResume { name } => watches::pause(&name, false, hands).await,
        Request::WatchScan { name, force } => watches::scan(&name, force, hands).await,
        Request::WatchFiles { name, files } => watches::files(&name, files, hands).await,
        Request::WatchConfirm { name } => watches::confirm(&name, hands).await,
        Request::KvSet { key, value } => {
            own_key(&key)?;
            hands.stores.settings.kv_set(&key, &value).await?;
            Ok(Value::Null)
        }
        Request::KvDelete { key } => {
            own_key(&key)?;
            if hands.stores.settings.kv_delete(&key).await? {
                Ok(Value::Null)
            } else {
                Err(Refusal::not_found(format!("no key `{key}`; `ingestd kv list` shows those that are there")))
            }
        }
        Request::SyncBegin(begin) => answer(&sync::begin(begin, hands).await?),
        Request::SyncTakeOver { run, from, to } => answer(&sync::take_over(run, from, to, hands).await?),
        Request::SyncLines(lines) => answer(&sync::lines(lines, hands).await?),
        Request::SyncMissing { run, holder } => answer(&sync::missing(run, holder, hands).await?),
        Request::SyncEnd { run, holder } => answer(&sync::end(run, holder, hands).await?),
        Request::RunSteer { run, hand } => answer(&runs::steer(run, hand, hands).await?),
        Request::EffectBegin { execution, kind, context } => {
            answer(&effects::begin(execution, kind, &context, hands).await?)
        }
        Request::EffectCommit { execution, id, result } => {
            answer(&effects::commit(execution, id, result.as_deref(), hands).await?)
        }
        Request::EffectAbort { execution, id } => answer(&effects::abort(execution, id, hands).await?),
        Request::EffectResolve { id, resolve } => answer(&effects::resolve(id, resolve, hands).await?),
        Request::Stage(reach) => answer(&effects::reach(reach, hands).await?),
        Request::Maintenance { duty } => match &hands.live {
            Some(live) => live.maintenance(duty).await,
            None => upkeep::perform(duty, hands).await,
        },
    }
}

/// A value as it goes over the socket.
pub(super) fn answer<T: Serialize>(value: &T) -> Result<Value, Refusal> {
    serde_json::to_value(value).map_err(|error| Refusal::failed(format!("the answer can't be written: {error}")))
}

fn own_key(key: &str) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::usage("a key has at least one character"));
    }
    if key.starts_with(OWN_KEYS) {
        return Err(Refusal::usage(format!("`{key}` belongs to ingestd itself; choose a key outside `{OWN_KEYS}`")));
    }
    Ok(())
}

async fn pause(names: Vec<String>, now: bool, hands: &Hands) -> Result<Value, Refusal> {
    let names = pipelines(names, hands).await?;
    hands.stores.settings.pause_pipelines(names.clone(), true).await?;
    if let Some(live) = hands.live.as_ref().filter(|_| now) {
        live.interrupt(&names).await;
    }
    Ok(json!(names))
}

async fn resume(names: Vec<String>, hands: &Hands) -> Result<Value, Refusal> {
    let names = if names.is_empty() {
        hands.stores.settings.paused_pipelines().await?.into_iter().collect()
    } else {
        pipelines(names, hands).await?
    };
    hands.stores.settings.pause_pipelines(names.clone(), false).await?;
    Ok(json!(names))
}

/// The pipelines that are meant: each of them known to the configuration or the database; all where none is named.
async fn pipelines(names: Vec<String>, hands: &Hands) -> Result<Vec<String>, Refusal> {
    let mut known: BTreeSet<String> = hands.config().pipelines.keys().cloned().collect();
    known.extend(hands.stores.browse.overview().await?.pipelines.into_keys());
    if names.is_empty() {
        return Ok(known.into_iter().collect());
    }
    match names.iter().find(|name| !known.contains(*name)) {
        Some(name) => Err(unknown_pipeline(name, known.iter())),
        None => Ok(names),
    }
}

/// Says that a pipeline is not there, and which ones are.
pub(super) fn unknown_pipeline<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Refusal {
    let known: Vec<&str> = known.map(String::as_str).collect();
    let hint = if known.is_empty() {
        "the configuration defines none: add a [pipeline.NAME] section".to_owned()
    } else {
        format!("there are: {}", known.join(", "))
    };
    Refusal::not_found(format!("no pipeline `{name}`; {hint}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::WirePath;
    use crate::control::fake::{Fake, hands};
    use crate::control::request::{Add, Added, AddedAs, Code, Duty};
    use crate::job::{JobId, Priority, StateName};

    fn add(paths: Vec<WirePath>) -> Add {
        Add {
            paths,
            pipeline: None,
            priority: Priority::Normal,
            run_at_ms: None,
            key: None,
            metadata: None,
            force: false,
        }
    }

    fn code(response: Response) -> Code {
        match response {
            Response::Err { code, .. } => code,
            Response::Ok(value) => panic!("unexpectedly done: {value}"),
        }
    }

    #[tokio::test]
    async fn files_become_jobs_and_what_is_no_file_is_refused_alone() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["plain", "changed"] {
            std::fs::write(folder.path().join(name), "abc").unwrap();
        }
        let fake = Arc::new(Fake::default());
        let paths = ["plain", "missing", "", "changed"].map(|name| WirePath(folder.path().join(name))).to_vec();
        let response = execute(Request::Add(add(paths)), &hands(&fake, false)).await;
        let Response::Ok(value) = response else { panic!("{response:?}") };
        let added: Vec<Added> = serde_json::from_value(value).unwrap();
        assert!(matches!(added[0].became, AddedAs::New { id: JobId(1), .. }));
        assert!(matches!(added[1].became, AddedAs::Refused { .. }));
        assert!(matches!(added[2].became, AddedAs::Refused { .. }));
        assert!(matches!(added[3].became, AddedAs::New { id: JobId(2), .. }));
        // Only the file that the store asked about was read.
        let digests: Vec<bool> = fake.enqueued.lock().unwrap().iter().map(|job| job.digest.is_some()).collect();
        assert_eq!(digests, [false, true]);
    }

    #[tokio::test]
    async fn an_unknown_pipeline_is_not_found_and_bad_metadata_is_wrong_usage() {
        let fake = Arc::new(Fake::default());
        let unknown = Add { pipeline: Some("nope".to_owned()), ..add(Vec::new()) };
        assert_eq!(code(execute(Request::Add(unknown), &hands(&fake, false)).await), Code::NotFound);
        let bad = Add { metadata: Some("{".to_owned()), ..add(Vec::new()) };
        assert_eq!(code(execute(Request::Add(bad), &hands(&fake, false)).await), Code::Usage);
    }

    #[tokio::test]
    async fn pausing_none_pauses_all_and_interrupts_only_when_asked() {
        let fake = Arc::new(Fake::default());
        let with_daemon = hands(&fake, true);
        execute(Request::PausePipelines { names: Vec::new(), now: false }, &with_daemon).await;
        assert!(fake.paused.lock().unwrap().contains("documents"));
        assert!(fake.asked.lock().unwrap().is_empty());
        execute(Request::PausePipelines { names: vec!["documents".to_owned()], now: true }, &with_daemon).await;
        assert_eq!(*fake.asked.lock().unwrap(), ["interrupt documents"]);
        execute(Request::ResumePipelines { names: Vec::new() }, &with_daemon).await;
        assert!(fake.paused.lock().unwrap().is_empty());
        let unknown = Request::PausePipelines { names: vec!["nope".to_owned()], now: false };
        assert_eq!(code(execute(unknown, &with_daemon).await), Code::NotFound);
    }

    #[tokio::test]
    async fn without_a_daemon_a_running_job_is_refused_with_the_reason() {
        let fake = Arc::new(Fake::default());
        fake.put(JobId(1), StateName::Running);
        let Response::Ok(value) = execute(Request::Cancel { ids: vec![JobId(1)] }, &hands(&fake, false)).await else {
            panic!("refused as a whole")
        };
        assert_eq!(value[0]["result"], "refused");
    }

    #[tokio::test]
    async fn a_watch_is_made_once_and_the_daemon_is_told() {
        let fake = Arc::new(Fake::default());
        let hands = hands(&fake, true);
        let make = Request::WatchAdd {
            name: "inbox".to_owned(),
            definition: json!({ "path": "/srv/inbox", "pipeline": "documents" }),
        };
        assert!(matches!(execute(make.clone(), &hands).await, Response::Ok(_)));
        assert_eq!(*fake.asked.lock().unwrap(), ["reload"]);
        assert!(fake.kv.lock().unwrap().is_empty());
        assert_eq!(code(execute(make, &hands).await), Code::Failed);
        let skip = Request::WatchAdd {
            name: "archive".to_owned(),
            definition: json!({ "path": "/srv/archive", "pipeline": "documents", "existing": "skip" }),
        };
        assert!(matches!(execute(skip, &hands).await, Response::Ok(_)));
        assert!(fake.kv.lock().unwrap().contains_key("ingestd.watch.archive.adopt"));
        assert!(!fake.watches.lock().unwrap()[1].definition.as_ref().unwrap().contains("existing"));
        assert_eq!(*fake.asked.lock().unwrap(), ["reload", "reload", "scan archive false"]);
        let none = Request::WatchRemove { name: "outbox".to_owned() };
        assert_eq!(code(execute(none, &hands).await), Code::NotFound);
    }

    #[tokio::test]
    async fn the_programs_own_keys_are_not_for_people() {
        let fake = Arc::new(Fake::default());
        let hands = hands(&fake, false);
        let own = Request::KvSet { key: "ingestd.recovery".to_owned(), value: String::new() };
        assert_eq!(code(execute(own, &hands).await), Code::Usage);
        let set = Request::KvSet { key: "mine".to_owned(), value: "1".to_owned() };
        assert!(matches!(execute(set, &hands).await, Response::Ok(_)));
        assert_eq!(fake.kv.lock().unwrap()["mine"], "1");
    }

    #[tokio::test]
    async fn a_dry_run_counts_and_removes_nothing() {
        let fake = Arc::new(Fake::default());
        let request = Request::Maintenance { duty: Duty::Prune { dry_run: true } };
        let Response::Ok(value) = execute(request, &hands(&fake, false)).await else { panic!("refused") };
        assert_eq!(value["completed"], 2);
    }
}
