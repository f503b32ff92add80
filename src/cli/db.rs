//! `ingestd db`

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::context::{Context, make_folder, reachable};
use super::failure::{Done, Failure};
use super::screen::{Style, clean, size};
use super::table::{Column, Table};
use super::{Format, db_files, db_stats, note, time};
use crate::control::replacement::{RESTORING, SALVAGED};
use crate::control::{Duty, Lock, Request, WirePath};
use crate::durable::with_suffix;
use crate::maintenance::check_now;
use crate::store::StoreError;
use crate::store::sqlite;

/// See [`Verb`].
#[derive(Args, Debug)]
pub struct Db {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Look for damage; exit 1 if there is any.
    Check {
        /// Salvage what can be read into a new database, which takes the place of the old one.
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Write a verified copy of the database while work goes on.
    Backup {
        /// The copy; left out: a new one in the folder of scheduled backups.
        file: Option<PathBuf>,
        #[command(flatten)]
        format: Format,
    },
    /// List the scheduled backups, newest first.
    Backups {
        #[command(flatten)]
        format: Format,
    },
    /// Put a backup in place of the database; the old one is kept beside it.
    Restore {
        /// The backup.
        #[arg(required_unless_present = "newest")]
        file: Option<PathBuf>,
        /// Take the newest of the scheduled backups that is good.
        #[arg(long, conflicts_with = "file")]
        newest: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Move the write-ahead log into the database.
    Checkpoint {
        #[command(flatten)]
        format: Format,
    },
    /// Give free pages back to the filesystem.
    Vacuum {
        #[command(flatten)]
        format: Format,
    },
    /// Remove rows that are older than their retention.
    Prune {
        /// Only say how many rows it would remove.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Sizes and counts, and what is recommended.
    Stats {
        #[command(flatten)]
        format: Format,
    },
    /// Bring the schema up to date after a backup, or make a new database.
    Migrate {
        #[command(flatten)]
        format: Format,
    },
    /// Run a read-only SQL statement.
    Query {
        /// The statement.
        sql: String,
        /// At most this many rows.
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
        #[command(flatten)]
        format: Format,
    },
}

pub async fn run(args: Db, context: &mut Context) -> Done {
    match args.verb {
        Verb::Check { repair: true, format } => repair(format, context).await,
        Verb::Check { repair: false, format } => check(format, context).await,
        Verb::Backup { file, format } => backup(file, format, context).await,
        Verb::Backups { format } => backups(format, context),
        Verb::Restore { file, newest: _, format } => restore(file, format, context).await,
        Verb::Checkpoint { format } => duty("checkpoint", Duty::Checkpoint, format, context).await,
        Verb::Vacuum { format } => duty("vacuum", Duty::Vacuum, format, context).await,
        Verb::Prune { dry_run, format } => prune(dry_run, format, context).await,
        Verb::Stats { format } => db_stats::run(format, context).await,
        Verb::Migrate { format } => migrate(format, context).await,
        Verb::Query { sql, limit, format } => query(&sql, limit, format, context).await,
    }
}

/// A duty whose figures are told as they are.
async fn duty(name: &str, duty: Duty, format: Format, context: &mut Context) -> Done {
    let figures: Value = context.ask(Request::Maintenance { duty }).await?;
    if format.json {
        context.screen.json(&figures)?;
    } else if !context.global.quiet {
        writeln!(context.screen, "{name}: {}", words(&figures))?;
    }
    Ok(0)
}

/// Figures in words: `free pages 3, pages freed 5`.
fn words(figures: &Value) -> String {
    let fields = figures.as_object().into_iter().flatten();
    let all: Vec<String> = fields
        .map(|(key, value)| {
            let name = key.replace('_', " ");
            match (key.strip_suffix("_bytes"), value) {
                (Some(what), Value::Number(n)) => {
                    format!("{} {}", what.replace('_', " "), size(n.as_u64().unwrap_or(0)))
                }
                (None, Value::String(text)) => format!("{name} {}", clean(text)),
                (_, other) => format!("{name} {other}"),
            }
        })
        .collect();
    if all.is_empty() { "done".to_owned() } else { all.join(", ") }
}

async fn prune(dry_run: bool, format: Format, context: &mut Context) -> Done {
    let figures: Value = context.ask(Request::Maintenance { duty: Duty::Prune { dry_run } }).await?;
    if format.json {
        context.screen.json(&figures)?;
        return Ok(0);
    }
    let rows = rows(&figures);
    let verb = if dry_run { "would remove" } else { "removed" };
    let fields = figures.as_object().into_iter().flatten().filter(|(_, n)| n.as_u64().is_some_and(|n| n > 0));
    let kinds: Vec<String> = fields.map(|(kind, n)| format!("{n} {kind}")).collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!(": {}", kinds.join(", ")) };
    writeln!(context.screen, "{verb} {}{kinds}", super::screen::plural(rows, "row", "rows"))?;
    Ok(0)
}

/// The rows in the figures of pruning, beside which files are told.
fn rows(figures: &Value) -> u64 {
    let is_rows = |key: &str| !key.ends_with("_ms") && !matches!(key, "spool_files" | "contents");
    let counts = figures.as_object().into_iter().flatten().filter(|(key, _)| is_rows(key));
    counts.filter_map(|(_, n)| n.as_u64()).sum()
}

async fn check(format: Format, context: &mut Context) -> Done {
    let found: Value = match context.daemon().await? {
        Some(_) => context.ask(Request::Maintenance { duty: Duty::Check }).await?,
        // Read-only: to write, though it were nothing, would change a damaged file.
        None => {
            let path = context.config()?.database.path.clone();
            if sqlite::has_foreign_log(&path).await? {
                return Err(sqlite::foreign_log(&path).into());
            }
            let findings = check_now(context.read().await?.upkeep.as_ref(), true).await;
            serde_json::json!({ "all": findings.map_err(|error| Failure::failed(error.to_string()))? })
        }
    };
    let problems: Vec<String> = match found.get("all") {
        Some(all) => serde_json::from_value(all.clone())?,
        None => Vec::new(),
    };
    let database = context.config()?.database.path.display().to_string();
    if format.json {
        context.screen.json(&found)?;
    } else if problems.is_empty() {
        writeln!(context.screen, "the database is sound")?;
    } else {
        for problem in &problems {
            let text = context.screen.paint(&clean(problem), Style::Red);
            writeln!(context.screen, "{text}")?;
        }
        note(&format!(
            "{database} is damaged; stop the daemon, then `ingestd db restore --newest` or `ingestd db check --repair`"
        ));
    }
    Ok(u8::from(!problems.is_empty()))
}

async fn backup(file: Option<PathBuf>, format: Format, context: &mut Context) -> Done {
    let target = match file {
        Some(file) => {
            let file = std::path::absolute(&file)
                .map_err(|error| Failure::usage(format!("`{}` is not a path: {error}", file.display())))?;
            Some(WirePath(file))
        }
        None => None,
    };
    duty("backup", Duty::Backup { target }, format, context).await
}

fn backups(format: Format, context: &mut Context) -> Done {
    let folder = db_files::backup_folder(context.config()?);
    let all = db_files::backups(&folder);
    if format.json {
        all.iter().try_for_each(|backup| context.screen.json(backup))?;
        return Ok(0);
    }
    if all.is_empty() {
        writeln!(context.screen, "no backups in {}; `ingestd db backup` makes one", folder.display())?;
        return Ok(0);
    }
    let mut table = Table::new([Column::Left("MADE"), Column::Right("SIZE"), Column::Middle("FILE")]);
    for backup in &all {
        let made = time::relative(backup.made_at, context.screen.now);
        table.row([made.into(), size(backup.size_bytes).into(), backup.path.to_string_lossy().into()]);
    }
    table.write(&mut context.screen)?;
    Ok(0)
}

/// The lock of what replaces the database; a daemon in the way is named.
fn lock(context: &Context) -> Result<Lock, Failure> {
    let database = &context.config()?.database;
    make_folder(database)?;
    Ok(Lock::exclusive(&database.path, database.mode)?)
}

async fn restore(file: Option<PathBuf>, format: Format, context: &mut Context) -> Done {
    let database = context.config()?.database.clone();
    if let Some(file) = &file
        && db_files::same_file(file, &database.path)
    {
        return Err(Failure::usage(format!("{} is the database itself; name a backup", file.display())));
    }
    let _lock = lock(context)?;
    let (file, passed_over) = match file {
        Some(file) => {
            is_file(&file)?;
            sqlite::verify_whole(&file).await.map_err(|error| unsound(&file, &error))?;
            (file, Vec::new())
        }
        None => newest_good(context).await?,
    };
    let copy = with_suffix(&database.path, RESTORING);
    db_files::copy_synced(&file, &copy, database.mode)?;
    sqlite::after_restore(&copy, context.clock().as_ref()).await?;
    let kept = db_files::replace(&database.path, database.mode, &copy, "restore", context.now())?;
    let told = Replaced { verb: "restored", from: Some(file), kept, passed_over, lost: Vec::new() };
    told.tell(format, context)
}

fn is_file(backup: &Path) -> Result<(), Failure> {
    let why = match std::fs::metadata(backup) {
        Ok(meta) if meta.is_file() => return Ok(()),
        Ok(_) => "it is no file".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Failure::failed(format!("{}: {why}; name a backup, see `ingestd db backups`", backup.display())))
}

fn unsound(file: &Path, why: &StoreError) -> Failure {
    let file = file.display();
    Failure::failed(format!("{file} is no sound backup: {why}; the database was not touched, see `ingestd db backups`"))
}

/// The newest of the scheduled backups that is good, and what is wrong with those that are newer.
async fn newest_good(context: &Context) -> Result<(PathBuf, Vec<String>), Failure> {
    let folder = db_files::backup_folder(context.config()?);
    let mut passed_over = Vec::new();
    for backup in db_files::backups(&folder) {
        match sqlite::verify_whole(&backup.path).await {
            Ok(()) => return Ok((backup.path, passed_over)),
            Err(error) => passed_over.push(error.to_string()),
        }
    }
    let found = match passed_over.as_slice() {
        [] => "there is none".to_owned(),
        bad => format!("none is good ({})", bad.join("; ")),
    };
    let folder = folder.display();
    Err(Failure::failed(if context.config()?.database.path.exists() {
        format!(
            "no backup in {folder}: {found}. The database was not touched; `ingestd db check --repair` keeps what can still \
             be read of it"
        )
    } else {
        format!("no backup in {folder}: {found}, and there is no database either")
    }))
}

async fn repair(format: Format, context: &mut Context) -> Done {
    let database = context.config()?.database.clone();
    reachable(&database.path)?;
    let _lock = lock(context)?;
    let salvaged = with_suffix(&database.path, SALVAGED);
    db_files::remove_with_log(&salvaged)?;
    let salvage = sqlite::salvage(&database.path, &salvaged, context.clock().as_ref()).await;
    let salvage = match salvage {
        Ok(salvage) => salvage,
        Err(error) => {
            db_files::remove_with_log(&salvaged)?;
            return Err(error.into());
        }
    };
    let kept = db_files::replace(&database.path, database.mode, &salvaged, "repair", context.now())?;
    let tables = salvage.lost.iter().map(|lost| format!("of the table {lost}"));
    let log = salvage.log_is_foreign.then(|| "the log, which was one of another database".to_owned());
    let lost = log.into_iter().chain(tables).collect();
    let told = Replaced { verb: "repaired", from: None, kept, passed_over: Vec::new(), lost };
    told.tell(format, context)
}

/// What to say when another file has taken the database's place.
struct Replaced {
    verb: &'static str,
    from: Option<PathBuf>,
    kept: Option<PathBuf>,
    passed_over: Vec<String>,
    lost: Vec<String>,
}

impl Replaced {
    fn tell(self, format: Format, context: &mut Context) -> Done {
        let Self { verb, from, kept, passed_over, lost } = self;
        if format.json {
            let path = |path: Option<PathBuf>| path.map(|path| super::view::lossy(&path));
            let (from, kept) = (path(from), path(kept));
            let words = serde_json::json!({
                "result": verb, "from": from, "old": kept, "passed_over": passed_over, "lost": lost
            });
            context.screen.json(&words)?;
            return Ok(0);
        }
        for bad in passed_over {
            writeln!(context.screen, "passed over: {}", clean(&bad))?;
        }
        for lost in &lost {
            writeln!(context.screen, "lost: {}", clean(lost))?;
        }
        let from = from.map_or_else(String::new, |from| format!(" from {}", from.display()));
        match kept {
            Some(kept) => writeln!(context.screen, "{verb}{from}; the old database is kept as {}", kept.display())?,
            None => writeln!(context.screen, "{verb}{from}; there was no database before")?,
        }
        writeln!(context.screen, "start the daemon: it takes back what was running, and scans every watch")?;
        Ok(0)
    }
}

async fn migrate(format: Format, context: &mut Context) -> Done {
    let database = context.config()?.database.clone();
    let lock = lock(context)?;
    let clock = context.clock();
    let (from, to) = if database.path.exists() {
        sqlite::migrate_in_place(&database, clock.as_ref()).await?
    } else {
        let stores = context.create(lock).await?;
        (0, stores.browse.schema_version().await?)
    };
    if format.json {
        context.screen.json(&serde_json::json!({ "from": from, "to": to }))?;
    } else if from == to {
        writeln!(context.screen, "the schema is up to date (version {to})")?;
    } else {
        writeln!(context.screen, "migrated from version {from} to {to}")?;
    }
    Ok(0)
}

async fn query(sql: &str, limit: usize, format: Format, context: &mut Context) -> Done {
    let table = context.read().await?.browse.query(sql, limit).await?;
    if format.json {
        for row in &table.rows {
            let object: serde_json::Map<String, Value> =
                table.columns.iter().cloned().zip(row.iter().cloned()).collect();
            context.screen.json(&object)?;
        }
    } else {
        // Tabs between columns: what is queried by hand is often cut and sorted afterwards.
        writeln!(context.screen, "{}", context.screen.paint(&table.columns.join("\t"), Style::Dim))?;
        for row in &table.rows {
            let cells: Vec<String> = row.iter().map(cell).collect();
            writeln!(context.screen, "{}", cells.join("\t"))?;
        }
    }
    if table.cut {
        note(&format!("there are more than {limit} rows; give --limit, or a LIMIT in the statement"));
    }
    Ok(0)
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => clean(text),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_are_told_in_words() {
        assert_eq!(words(&json!({ "free_pages": 3, "size_bytes": 2048 })), "free pages 3, size 2.0 KiB");
        assert_eq!(words(&Value::Null), "done");
    }

    #[test]
    fn pruned_rows_of_every_kind_are_counted() {
        assert_eq!(rows(&json!({ "completed": 3, "failed": 4, "duration_ms": 90 })), 7);
    }
}
