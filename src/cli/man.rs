//! `ingestd man`: one page with every command, in roff.

use std::io::{self, Write};

use clap::{Args, CommandFactory};
use clap_mangen::Man as Page;

use super::context::Context;
use super::failure::Done;

/// Nothing to choose.
#[derive(Args, Debug)]
pub struct Man {}

pub fn run(_args: Man, context: &mut Context) -> Done {
    context.screen.write_all(&page()?)?;
    Ok(0)
}

fn page() -> io::Result<Vec<u8>> {
    let mut command = super::Args::command();
    command.build();
    let mut out = Vec::new();
    let page = Page::new(command.clone()).section("1").manual("ingestd");
    page.render_title(&mut out)?;
    page.render_name_section(&mut out)?;
    page.render_synopsis_section(&mut out)?;
    page.render_description_section(&mut out)?;
    page.render_options_section(&mut out)?;
    for child in command.get_subcommands() {
        describe(child, "ingestd", &mut out)?;
    }
    out.extend_from_slice(b".SH EXAMPLES\n.nf\n");
    for line in super::EXAMPLES.lines() {
        // A dot or an apostrophe at the start of a line would be a request to the formatter.
        writeln!(out, "\\&{}", line.replace('\\', "\\e").replace('-', "\\-"))?;
    }
    out.extend_from_slice(b".fi\n");
    Ok(out)
}

/// A command as a section of its own; its parts become subsections of it, its subcommands follow.
fn describe(command: &clap::Command, parent: &str, out: &mut Vec<u8>) -> io::Result<()> {
    let name = format!("{parent} {}", command.get_name());
    writeln!(out, ".SH \"{}\"", name.to_uppercase())?;
    if command.has_subcommands() {
        writeln!(out, "{}", command.get_about().map(ToString::to_string).unwrap_or_default())?;
        return command.get_subcommands().try_for_each(|child| describe(child, &name, out));
    }
    // The flags that every command takes are described once, at the top.
    let own = command.clone().bin_name(name).mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
    let page = Page::new(own);
    let mut parts = Vec::new();
    page.render_synopsis_section(&mut parts)?;
    page.render_description_section(&mut parts)?;
    page.render_options_section(&mut parts)?;
    let parts = String::from_utf8_lossy(&parts).replace("\n.SH ", "\n.SS ");
    let parts = parts.strip_prefix(".SH ").map_or_else(|| parts.clone(), |rest| format!(".SS {rest}"));
    out.write_all(parts.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_page_tells_of_every_command() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        for name in ["INGESTD RUN", "INGESTD WATCH ADD", "INGESTD DB RESTORE", "EXAMPLES"] {
            assert!(page.contains(name), "{name}");
        }
        assert_eq!(page.matches(".TH ").count(), 1);
    }
}
