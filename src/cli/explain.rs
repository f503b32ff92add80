//! `ingestd explain`

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::Format;
use super::context::Context;
use super::failure::{Done, Failure};
use super::screen::{Screen, Style, clean};
use super::{explain_job, explain_path};
use crate::clock::Timestamp;
use crate::config::Place;
use crate::job::JobId;

/// What to explain.
#[derive(Args, Debug)]
pub struct Explain {
    /// A job, by its number, or a file or folder (./42 is one that is named like a number).
    #[arg(value_name = "ID|PATH")]
    what: PathBuf,
    #[command(flatten)]
    format: Format,
}

/// One reason, in words and as data.
#[derive(Clone, Debug, Serialize)]
pub struct Reason {
    /// What kind of reason it is; a word that stays the same.
    pub kind: &'static str,
    /// In words.
    pub text: String,
    /// What a person may do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Until when, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The jobs that it names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<JobId>,
    /// Where the rule stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

impl Reason {
    /// A reason in words.
    pub fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), advice: None, until: None, jobs: Vec::new(), place: None }
    }

    /// The same, with what a person may do about it.
    pub fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// The same, with the time until which it holds.
    pub fn until(self, until: Option<Timestamp>) -> Self {
        Self { until, ..self }
    }

    /// The same, with the jobs that it names.
    pub fn jobs(self, jobs: Vec<JobId>) -> Self {
        Self { jobs, ..self }
    }

    /// The same, with where its rule stands.
    pub fn at(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }

    /// As a line, with where the rule stands and what may be done.
    pub fn line(&self) -> String {
        let place = self.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        let advice = self.advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default();
        format!("{}{place}{advice}", self.text)
    }
}

pub async fn run(args: Explain, context: &mut Context) -> Done {
    match args.what.to_str().and_then(|text| text.parse::<JobId>().ok()) {
        Some(id) => explain_job::run(id, args.format, context).await,
        None => explain_path::run(&args.what, args.format, context).await,
    }
}

/// Reasons for people: numbered where there are several, because their order means something.
pub fn write(reasons: &[Reason], screen: &mut Screen) -> Result<(), Failure> {
    for (at, reason) in reasons.iter().enumerate() {
        let number = if reasons.len() > 1 { format!("{}. ", at + 1) } else { String::new() };
        let number = screen.paint(&number, Style::Dim);
        writeln!(screen, "  {number}{}", clean(&reason.line()))?;
    }
    Ok(())
}
