//! `ingestd completions`

use std::io::Write;

use clap::{Args, CommandFactory};

use super::context::Context;
use super::failure::Done;

/// For which shell.
#[derive(Args, Debug)]
pub struct Completions {
    /// The shell: bash, zsh, fish, elvish or powershell.
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

pub fn run(args: &Completions, context: &mut Context) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Args::command(), "ingestd", &mut script);
    context.screen.write_all(&script)?;
    Ok(0)
}
