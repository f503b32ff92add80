//! `ingestd config`

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::Format;
use super::context::Context;
use super::failure::{Done, Failure};
use super::screen::{Style, plural};
use crate::config;

/// See [`Verb`].
#[derive(Args, Debug)]
pub struct Config {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Validate the configuration; says everything that is wrong at once.
    Check {
        #[command(flatten)]
        format: Format,
    },
    /// Print the effective configuration with the origin of every value, secrets masked.
    Show {
        #[command(flatten)]
        format: Format,
    },
    /// Write a commented file with every key and its default.
    Init {
        /// The file, which must not exist; `-` prints it.
        #[arg(value_name = "FILE", default_value = "ingestd.toml")]
        file: PathBuf,
    },
}

pub fn run(args: Config, context: &mut Context) -> Done {
    match args.verb {
        Verb::Check { format } => check(format, context),
        Verb::Show { format } => show(format, context),
        Verb::Init { file } => init(&file, context),
    }
}

/// What is wrong ends as a failure while reading; what arrives here is right.
fn check(format: Format, context: &mut Context) -> Done {
    // With the secrets, as the daemon reads it.
    let loaded = config::load(&context.sources())?;
    loaded.check_access()?;
    let config = loaded.config;
    let (pipelines, watches) = (config.pipelines.len() as u64, config.watches.len() as u64);
    if format.json {
        context.screen.json(&serde_json::json!({ "ok": true, "pipelines": pipelines, "watches": watches }))?;
    } else if !context.global.quiet {
        let pipelines = plural(pipelines, "pipeline", "pipelines");
        let watches = plural(watches, "watch", "watches");
        writeln!(context.screen, "the configuration is valid: {pipelines}, {watches}")?;
    }
    Ok(0)
}

fn show(format: Format, context: &mut Context) -> Done {
    let settings = context.loaded()?.settings.clone();
    if format.json {
        for setting in &settings {
            context.screen.json(setting)?;
        }
        return Ok(0);
    }
    // As lines of a file, uncut, so that they can be searched and copied.
    for setting in &settings {
        let origin = context.screen.paint(&format!("# {}", setting.origin), Style::Dim);
        write!(context.screen, "{} = ", setting.key)?;
        context.screen.foreign(setting.value.as_bytes())?;
        writeln!(context.screen, "  {origin}")?;
    }
    Ok(0)
}

fn init(file: &Path, context: &mut Context) -> Done {
    if file.as_os_str() == "-" {
        context.screen.write_all(config::reference().as_bytes())?;
        return Ok(0);
    }
    let shown = file.display();
    let mut out = OpenOptions::new().write(true).create_new(true).open(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::failed(format!("{shown} exists already; name another file, or print it with `config init -`"))
        }
        _ => Failure::failed(format!("{shown} can't be written: {error}")),
    })?;
    out.write_all(config::reference().as_bytes())
        .map_err(|error| Failure::failed(format!("{shown} can't be written: {error}")))?;
    if !context.global.quiet {
        writeln!(context.screen, "wrote {shown}; check it with: ingestd config check --config {shown}")?;
    }
    Ok(0)
}
