//! Which run goes on with a list: the one that was broken off, or a new one.
//!
//! | the newest unfinished run of the list | then |
//! |---|---|
//! | there is none | a new run |
//! | somebody reads it who lives | refused: one reader at a time |
//! | it was begun with other options | refused, naming `--new` |
//! | the input begins with what it has read | it goes on there (a paused one: refused, naming the ways out) |
//! | the input begins otherwise | refused, naming `--new` |
//!
//! Lists on a standard input without a name have nothing in common but that: there, the beginning alone decides, and what
//! is unknown is a new run.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::super::context::Context;
use super::super::failure::Failure;
use super::super::note;
use super::super::screen::count;
use super::Sync;
use super::beginning::{CaughtUp, Looked, Position, catch_up, look};
use super::holder::{self, Held};
use super::source::Source;
use super::steady::Steady;
use crate::control::{Request, RunHand, SyncBegin, SyncBegun, WirePath};
use crate::run::{InputRead, Run, RunId, RunInput, RunState};
use crate::store::Unfinished;

/// What the lists begin with that come down a standard input without a name.
const STDIN: &str = "stdin:";
/// What the lists of files without a name begin with.
const FILE: &str = "file:";

/// A run that is ours to read.
pub struct Chosen {
    /// Its number.
    pub id: RunId,
    /// Whether it was begun before.
    pub goes_on: bool,
    /// Whether what it does not name becomes deletes.
    pub delete_missing: bool,
    /// What to read, from where.
    pub source: Source,
    /// See `source`.
    pub position: Position,
}

/// Which list is meant.
pub struct List {
    /// What makes two runs runs of the same list.
    pub list: String,
    /// Whether only its beginning tells which one it is.
    pub anonymous: bool,
}

impl List {
    /// The list of a name, or of where it comes from. What comes down a pipe says nothing of the folder from which its
    /// relative paths count, so lists of different folders are different ones.
    pub fn of(name: Option<&str>, source: &Source, root: &Path) -> Self {
        match (name, source.path()) {
            (Some(name), _) => Self { list: name.to_owned(), anonymous: false },
            (None, Some(path)) => {
                let bytes = super::super::view::path_base64(path).map_or_else(String::new, |bytes| format!("#{bytes}"));
                Self { list: format!("{FILE}{}{bytes}", path.display()), anonymous: false }
            }
            (None, None) => Self { list: format!("{STDIN}{}", root.display()), anonymous: true },
        }
    }
}

/// A name that no list without a name has.
pub fn name(text: &str) -> Result<String, String> {
    if text.trim().is_empty()
        || [STDIN, FILE].iter().any(|own| text.starts_with(own))
        || text.chars().any(char::is_control)
    {
        return Err(format!("a name has at least one character, and does not begin with `{STDIN}` or `{FILE}`"));
    }
    Ok(text.to_owned())
}

/// Chooses the run, and makes it ours. `None`: it was stopped before that.
pub struct Chooser<'a> {
    /// The command line.
    pub args: &'a Sync,
    /// What it works with.
    pub context: &'a Context,
    /// Who may write.
    pub steady: &'a mut Steady,
    /// Who we are.
    pub held: &'a Held,
    /// From where relative paths count.
    pub root: &'a Path,
    /// Ends it.
    pub stop: &'a CancellationToken,
}

impl Chooser<'_> {
    /// See the type.
    pub async fn choose(mut self) -> Result<Option<Chosen>, Failure> {
        self.steady.link(self.context).await?;
        if let Some(id) = self.args.resume {
            let unfinished = self.resumable(id).await?;
            let source = self.open_for(Some(&unfinished.run))?;
            return self.go_on(vec![unfinished], source, false).await;
        }
        let source = self.open_for(None)?;
        let list = List::of(self.args.name.as_deref(), &source, self.root);
        if list.anonymous && self.args.delete_missing {
            return Err(Failure::usage(
                "--delete-missing on a standard input needs --name: what comes down unrelated pipes would count as one \
                 list, and each would delete what the others named",
            ));
        }
        let stores = self.steady.stores(self.context).await?;
        let mut unfinished = stores.lists.unfinished(list.list.clone()).await?;
        if list.anonymous {
            unfinished.retain(|one| self.other_options(one).is_none() && (one.run.position > 0 || !self.lives(one)));
        }
        if self.args.new {
            if !list.anonymous {
                self.give_up(&unfinished).await?;
            }
            unfinished.clear();
        }
        if unfinished.is_empty() {
            self.begin(list, source).await.map(Some)
        } else {
            self.go_on(unfinished, source, list.anonymous).await
        }
    }

    fn lives(&self, one: &Unfinished) -> bool {
        self.context.config().is_ok_and(|config| holder::lives(config, &one.holder))
    }

    fn open_for(&self, run: Option<&Run>) -> Result<Source, Failure> {
        let given = self.args.file.as_deref().map(|file| (file, file.as_os_str() == "-"));
        match (given, run.map(|run| &run.input)) {
            (Some((_, true)), _) | (None, None | Some(RunInput::Stdin { .. } | RunInput::Watch { .. })) => {
                Source::stdin()
            }
            (Some((file, false)), _) => Source::file(&super::super::add::absolute(file)?),
            (None, Some(RunInput::File { path, .. })) => Source::file(path),
        }
    }

    /// The run that was named, if it can be read on.
    async fn resumable(&mut self, id: RunId) -> Result<Unfinished, Failure> {
        let stores = self.steady.stores(self.context).await?;
        if let Some(unfinished) = stores.lists.unfinished_run(id).await? {
            return Ok(unfinished);
        }
        let Some(run) = stores.runs.run(id).await? else { return Err(super::super::runs::no_run(id)) };
        Err(Failure::failed(match (&run.input, run.state.is_final()) {
            (RunInput::Watch { .. }, _) => {
                format!("run {id} is a scan of a watch; the daemon goes on with it by itself")
            }
            (_, true) => format!("run {id} is over ({}): there is nothing left to read", run.state),
            (_, false) => {
                format!("the list of run {id} is read to its end: its jobs are on their way (`ingestd runs show {id}`)")
            }
        }))
    }

    /// Goes on with the run whose beginning the input has.
    async fn go_on(
        &mut self,
        unfinished: Vec<Unfinished>,
        source: Source,
        anonymous: bool,
    ) -> Result<Option<Chosen>, Failure> {
        if !anonymous {
            let newest = &unfinished[..1];
            newest.iter().try_for_each(|one| self.may_go_on(one))?;
        }
        let candidates: Vec<InputRead> = unfinished.iter().filter_map(|one| read(&one.run)).collect();
        self.say_that_it_looks(&candidates, &source);
        let Some(looked) = self.look(source, candidates).await? else { return Ok(None) };
        let Looked { source, found } = looked;
        let Some((place, position)) = found else {
            if anonymous {
                let list = List::of(None, &source, self.root);
                return self.begin(list, source).await.map(Some);
            }
            return Err(changed(&unfinished[0].run));
        };
        let one = &unfinished[place];
        if anonymous {
            self.may_go_on(one)?;
        }
        self.take_over(one).await?;
        let Some((source, position)) = self.catch_up(one, source, position).await? else { return Ok(None) };
        Ok(Some(Chosen { id: one.run.id, goes_on: true, delete_missing: one.delete_missing, source, position }))
    }

    /// What the reader before us handed over last may have been taken after we looked: from here on the run stands still.
    async fn catch_up(
        &mut self,
        one: &Unfinished,
        mut source: Source,
        position: Position,
    ) -> Result<Option<(Source, Position)>, Failure> {
        let stores = self.steady.stores(self.context).await?;
        let now = stores.lists.unfinished_run(one.run.id).await?;
        let Some(to) = now.as_ref().and_then(|now| read(&now.run)).filter(|to| to.bytes > position.read.bytes) else {
            return Ok(Some((source, position)));
        };
        let stop = self.stop.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let position = catch_up(&mut source, position, to, &stop)?;
            Ok::<_, std::io::Error>((source, position))
        });
        let reached = reading.await.map_err(std::io::Error::other).flatten();
        match reached.map_err(|error| Failure::failed(format!("the list can't be read: {error}")))? {
            (source, CaughtUp::There(position)) => Ok(Some((source, *position))),
            (_, CaughtUp::Stopped) => Ok(None),
            (_, CaughtUp::AnotherList) => Err(changed(&one.run)),
        }
    }

    fn may_go_on(&self, one: &Unfinished) -> Result<(), Failure> {
        let id = one.run.id;
        if self.lives(one) {
            return Err(Failure::failed(format!(
                "run {id} reads this list already; `ingestd runs show {id}` shows it, `ingestd runs cancel {id}` ends it"
            )));
        }
        if let Some(other) = self.other_options(one) {
            return Err(Failure::failed(format!(
                "run {id} of this list was broken off and is {other}; --new begins anew"
            )));
        }
        if one.run.state == RunState::Paused && self.args.resume.is_none() {
            return Err(Failure::failed(format!(
                "run {id} of this list is paused; `ingestd sync --resume {id}` goes on with it, \
                 `ingestd runs resume {id}` only ends the pause"
            )));
        }
        Ok(())
    }

    /// In what the run differs from what is asked for.
    fn other_options(&self, one: &Unfinished) -> Option<String> {
        let (args, run) = (self.args, &one.run);
        match &args.pipeline {
            Some(pipeline) if *pipeline != run.pipeline => return Some(format!("for pipeline `{}`", run.pipeline)),
            _ => {}
        }
        let resumed = args.resume.is_some();
        match (args.dry_run, run.dry_run) {
            (true, false) => Some("no dry run".to_owned()),
            (false, true) if !resumed => Some("a dry run".to_owned()),
            _ if args.delete_missing && !one.delete_missing => Some("without --delete-missing".to_owned()),
            _ => None,
        }
    }

    /// Who waits for a pipe should know what for.
    fn say_that_it_looks(&self, candidates: &[InputRead], source: &Source) {
        let longest = candidates.iter().map(|read| read.bytes).max().unwrap_or_default();
        if source.is_stream() && longest > 0 && !self.context.global.quiet {
            note("looking whether this is the list of a run that was broken off (--new begins at once)");
        }
    }

    async fn look(&self, source: Source, candidates: Vec<InputRead>) -> Result<Option<Looked>, Failure> {
        let (folder, stop): (PathBuf, _) = (self.context.config()?.readers(), self.stop.clone());
        let looking = tokio::task::spawn_blocking(move || look(source, &candidates, &folder, &stop));
        let looked = looking.await.map_err(std::io::Error::other).flatten();
        looked.map_err(|error| Failure::failed(format!("the list can't be read: {error}")))
    }

    /// Cancels the runs that `--new` replaces.
    async fn give_up(&mut self, unfinished: &[Unfinished]) -> Result<(), Failure> {
        for one in unfinished {
            let id = one.run.id;
            if self.lives(one) {
                return Err(Failure::failed(format!(
                    "run {id} reads this list right now; `ingestd runs cancel {id}` ends it"
                )));
            }
            let _: serde_json::Value =
                self.steady.ask(&Request::RunSteer { run: id, hand: RunHand::GiveUp }, self.context).await?;
            if !self.context.global.quiet {
                note(&format!(
                    "run {id}, which stood at line {}, is cancelled; its jobs stay",
                    count(one.run.position)
                ));
            }
        }
        Ok(())
    }

    async fn take_over(&mut self, one: &Unfinished) -> Result<(), Failure> {
        let (run, to) = (one.run.id, self.held.name().clone());
        let request = Request::SyncTakeOver { run, from: one.holder.clone(), to: to.clone() };
        if self.steady.ask(&request, self.context).await? {
            return Ok(());
        }
        // It may be ours already, and only the answer was lost.
        let stores = self.steady.stores(self.context).await?;
        match stores.lists.unfinished_run(run).await? {
            Some(now) if now.holder == to => Ok(()),
            _ => Err(Failure::failed(format!(
                "somebody else was faster and reads run {run}; `ingestd runs show {run}` shows it"
            ))),
        }
    }

    async fn begin(&mut self, list: List, source: Source) -> Result<Chosen, Failure> {
        let begin = SyncBegin {
            name: self.args.name.clone(),
            list: list.list.clone(),
            input: source.path().map(|path| WirePath(path.to_path_buf())),
            pipeline: self.args.pipeline.clone(),
            dry_run: self.args.dry_run,
            delete_missing: self.args.delete_missing,
            holder: self.held.name().clone(),
        };
        let id = match self.steady.ask::<SyncBegun>(&Request::SyncBegin(begin), self.context).await {
            Ok(begun) => begun.id,
            Err(failure) => {
                // The run that is in the way may be ours: begun, and only the answer was lost.
                let stores = self.steady.stores(self.context).await?;
                let ours = |one: &Unfinished| one.holder == *self.held.name();
                match stores.lists.unfinished(list.list).await?.into_iter().find(ours) {
                    Some(one) => one.run.id,
                    None => return Err(failure),
                }
            }
        };
        let delete_missing = self.args.delete_missing;
        Ok(Chosen { id, goes_on: false, delete_missing, source, position: Position::default() })
    }
}

fn read(run: &Run) -> Option<InputRead> {
    match &run.input {
        RunInput::File { read, .. } | RunInput::Stdin { read } => Some(*read),
        RunInput::Watch { .. } => None,
    }
}

fn changed(run: &Run) -> Failure {
    Failure::failed(format!(
        "run {} was broken off at line {}, and this list does not begin with the lines that it has read; \
         --new begins anew with this list (the run is cancelled, its jobs stay)",
        run.id,
        count(run.position)
    ))
}
