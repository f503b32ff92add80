//! Logs: to standard error, in the format and at the level that `[log]` asks for.
//!
//! A plain level is ours alone; the libraries below speak from `warn` on, because nobody who asks for `debug`
//! wants to read every statement. A filter (`info,sqlx=debug`) is taken as it is, and `RUST_LOG` wins over
//! everything. The level can be changed while the program runs, the format can't.
//!
//! Names of files are anybody's: in lines of text they can neither begin a line of their own nor speak to a terminal.

use std::fmt as text;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use anyhow::Context as _;
use tracing::field::Field;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{Log, LogFormat};

/// Quiet to loud; `-v` and `-q` walk along it.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Changes the level later.
#[derive(Clone, Debug)]
pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
    verbosity: i8,
}

/// Sets logging up for the whole process; `verbosity` is the number of `-v` less that of `-q`.
///
/// # Errors
/// When the level is no filter, or when it was set up before.
pub fn init(log: &Log, verbosity: i8) -> anyhow::Result<Telemetry> {
    let (filter, handle) = reload::Layer::new(filter(log, verbosity)?);
    let subscriber = tracing_subscriber::registry().with(filter).with(lines(log.format));
    subscriber.try_init().context("logging is set up already")?;
    Ok(Telemetry { filter: handle, verbosity })
}

impl Telemetry {
    /// Takes over the level of a reloaded configuration.
    ///
    /// # Errors
    /// When the level is no filter; the old one stays.
    pub fn reload(&self, log: &Log) -> anyhow::Result<()> {
        self.filter.reload(filter(log, self.verbosity)?).context("the level of logs can't be changed any more")
    }
}

/// Whether `level` can be used as `log.level`, and why not.
///
/// # Errors
/// What is wrong with it.
pub fn check_level(level: &str) -> anyhow::Result<()> {
    directives(level, 0).map(drop)
}

fn filter(log: &Log, verbosity: i8) -> anyhow::Result<EnvFilter> {
    match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::from_str(&text).with_context(|| format!("RUST_LOG={text}")),
        _ => directives(&log.level, verbosity),
    }
}

fn directives(level: &str, verbosity: i8) -> anyhow::Result<EnvFilter> {
    let wish = level.trim().to_ascii_lowercase();
    let text = match (LEVELS.iter().position(|name| *name == wish), verbosity) {
        (Some(place), _) => ours(place.saturating_add_signed(isize::from(verbosity)).min(LEVELS.len() - 1)),
        (None, 0) => level.to_owned(),
        // A filter can't be walked along; the flags then speak for our own code.
        (None, _) => {
            let place = 3_usize.saturating_add_signed(isize::from(verbosity)).min(LEVELS.len() - 1);
            format!("{level},ingestd={}", LEVELS[place])
        }
    };
    let allowed = "a level (off, error, warn, info, debug, trace) or a filter such as info,sqlx=debug";
    EnvFilter::builder().parse(&text).with_context(|| format!("log.level = {level:?} is not {allowed}"))
}

fn ours(place: usize) -> String {
    match LEVELS[place] {
        quiet @ ("off" | "error") => quiet.to_owned(),
        level => format!("warn,ingestd={level}"),
    }
}

/// What the lines' layer stands on.
type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;
type Lines = Box<dyn Layer<Filtered> + Send + Sync>;

fn lines(format: LogFormat) -> Lines {
    match format {
        LogFormat::Text => text(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
        LogFormat::Journald => journal(),
        LogFormat::Auto if stderr_is_the_journal() => journal(),
        LogFormat::Auto => text(),
    }
}

fn text() -> Lines {
    text_to(io::stderr, io::stderr().is_terminal())
}

fn text_to<W>(writer: W, colour: bool) -> Lines
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let fields = debug_fn(field_in_its_line).delimited(" ");
    fmt::layer().with_ansi(colour).with_target(false).fmt_fields(fields).with_writer(writer).boxed()
}

/// A field as text. Our own messages may have several lines; those after the first are indented.
fn field_in_its_line(out: &mut Writer<'_>, field: &Field, value: &dyn text::Debug) -> text::Result {
    let message = field.name() == "message";
    if !message {
        write!(out, "{}=", field.name().trim_start_matches("r#"))?;
    }
    for c in format!("{value:?}").chars() {
        match c {
            '\n' if message => out.write_str("\n    ")?,
            c if c.is_control() => write!(out, "{}", c.escape_default())?,
            c => out.write_char(c)?,
        }
    }
    Ok(())
}

/// The journal with our fields as `INGESTD_JOB_ID=…`; as text where there is no journal.
fn journal() -> Lines {
    // The layer's own defaults put INFO at notice, which reads as louder than it is meant.
    let priorities = PriorityMappings {
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
        ..PriorityMappings::new()
    };
    match tracing_journald::layer() {
        Ok(layer) => layer
            .with_field_prefix(Some("INGESTD".to_owned()))
            .with_syslog_identifier("ingestd".to_owned())
            .with_priority_mappings(priorities)
            .boxed(),
        Err(_) => text(),
    }
}

/// Whether the service manager connected standard error to the journal: `JOURNAL_STREAM` names its device and
/// inode (systemd.exec(5)). A redirection afterwards makes them differ.
fn stderr_is_the_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| names(&named, stat.st_dev, stat.st_ino))
}

fn names(stream: &str, dev: u64, inode: u64) -> bool {
    stream.split_once(':').is_some_and(|(a, b)| a.parse() == Ok(dev) && b.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::Level;

    use super::*;

    fn shown(level: &str, verbosity: i8) -> String {
        directives(level, verbosity).unwrap().to_string()
    }

    #[test]
    fn a_plain_level_is_ours_and_the_flags_walk_along_it() {
        assert_eq!(shown("info", 0), "ingestd=info,warn");
        assert_eq!(shown("INFO", 1), "ingestd=debug,warn");
        assert_eq!(shown("info", 9), "ingestd=trace,warn");
        assert_eq!(shown("info", -2), "error");
        assert_eq!(shown("info", -9), "off");
    }

    #[test]
    fn a_filter_is_taken_as_it_is() {
        assert_eq!(shown("warn,sqlx=debug", 0), "sqlx=debug,warn");
        assert_eq!(shown("warn,sqlx=debug", 1), "ingestd=debug,sqlx=debug,warn");
        let why = format!("{:#}", check_level("ingestd=loud").unwrap_err());
        assert!(why.contains("log.level") && why.contains("off, error, warn"), "{why}");
    }

    #[test]
    fn a_hostile_name_writes_neither_a_line_nor_to_the_terminal() {
        #[derive(Clone, Default)]
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = Shared::default();
        let (filter, _handle) = reload::Layer::new(directives("info", 0).unwrap());
        let writer = written.clone();
        let subscriber = tracing_subscriber::registry().with(filter).with(text_to(move || writer.clone(), false));
        tracing::subscriber::with_default(subscriber, || {
            let path = std::path::Path::new("a\n2026 ERROR forged\x1b[2J\u{9b}x\r");
            tracing::info!(target: "ingestd", path = %path.display(), n = 7, "two\nlines of {}", path.display());
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("INFO two\n    lines of a\n    2026 ERROR forged"), "{text}");
        assert!(text.ends_with("path=a\\n2026 ERROR forged\\u{1b}[2J\\u{9b}x\\r n=7\n"), "{text}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }

    #[test]
    fn the_journal_is_recognised_by_device_and_inode() {
        assert!(names("8:1234", 8, 1234));
        assert!(!names("8:1234", 8, 1235));
        assert!(!names("", 8, 1234));
        assert!(!names("8", 8, 8));
    }

    #[test]
    fn the_level_changes_while_the_program_runs() {
        let (layer, handle) = reload::Layer::new(directives("warn", 0).unwrap());
        let subscriber = tracing_subscriber::registry().with(layer);
        let telemetry = Telemetry { filter: handle, verbosity: 0 };
        tracing::subscriber::with_default(subscriber, || {
            assert!(!tracing::enabled!(target: "ingestd", Level::INFO));
            if std::env::var_os("RUST_LOG").is_none() {
                telemetry.reload(&Log { level: "debug".into(), format: LogFormat::Auto }).unwrap();
                assert!(tracing::enabled!(target: "ingestd", Level::DEBUG));
                telemetry.reload(&Log { level: "ingestd=loud".into(), format: LogFormat::Auto }).unwrap_err();
                assert!(tracing::enabled!(target: "ingestd", Level::DEBUG));
            }
        });
    }
}
