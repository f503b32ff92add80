//! Where results go: stdout, with its width and whether it likes colours.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Write};

use serde::Serialize;

use super::foreign::Foreign;
use crate::clock::Timestamp;

/// The width where there is no terminal.
const WIDTH: usize = 80;

/// The way results are written.
pub struct Screen {
    out: Box<dyn Write + Send>,
    /// Whether a terminal shows them, which obeys control characters.
    pub terminal: bool,
    /// Whether colours are welcome.
    pub colour: bool,
    /// Columns of a line.
    pub width: usize,
    /// What relative times are relative to.
    pub now: Timestamp,
}

/// How a word looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    #[default]
    Plain,
    /// A heading.
    Bold,
    /// Of less weight.
    Dim,
    /// Good.
    Green,
    /// Look at it.
    Yellow,
    /// Wrong.
    Red,
    /// At work.
    Blue,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "31",
            Self::Blue => "34",
        }
    }
}

impl Screen {
    /// Standard output. Colours only on a terminal, and not where `NO_COLOR` is set.
    pub fn stdout(now: Timestamp) -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        let asked_not = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = terminal.then(|| terminal_width(&out)).flatten().unwrap_or(WIDTH);
        Self { out: Box::new(BufWriter::new(out)), terminal, colour: terminal && !asked_not, width, now }
    }

    #[cfg(test)]
    /// Anything that takes bytes, without colours, 80 columns wide.
    pub fn plain(out: impl Write + Send + 'static, now: Timestamp) -> Self {
        Self { out: Box::new(out), terminal: false, colour: false, width: WIDTH, now }
    }

    /// One JSON document on a line. JSON escapes the older control characters only; a terminal obeys the others, too.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), super::failure::Failure> {
        if self.terminal {
            let escaped = escape_controls(&serde_json::to_string(value)?);
            self.out.write_all(escaped.as_bytes())?;
        } else {
            serde_json::to_writer(&mut self.out, value)?;
        }
        Ok(self.out.write_all(b"\n")?)
    }

    /// A whole text from outside; see [`Foreign`].
    pub fn foreign(&mut self, text: &[u8]) -> io::Result<()> {
        let mut foreign = Foreign::default();
        foreign.write(text, self)?;
        foreign.end(self)
    }

    /// The text in its style, where colours are welcome.
    pub fn paint(&self, text: &str, style: Style) -> String {
        if self.colour && style != Style::Plain {
            format!("\x1b[{}m{text}\x1b[0m", style.code())
        } else {
            text.to_owned()
        }
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The width of the terminal behind a descriptor.
pub fn terminal_width(terminal: &impl std::os::fd::AsFd) -> Option<usize> {
    rustix::termios::tcgetwinsize(terminal).ok().map(|size| usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// Text from outside without what would move the cursor or colour the screen.
pub fn clean(text: &str) -> String {
    if text.chars().any(char::is_control) {
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    } else {
        text.to_owned()
    }
}

/// A message of several lines, the same way. Tabs do no harm.
pub fn clean_lines(text: &str) -> String {
    text.replace(|c: char| c.is_control() && !matches!(c, '\n' | '\t'), "\u{fffd}")
}

/// JSON without a control character as itself; it means the same.
fn escape_controls(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_control() {
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// A count as a number to reckon with, for figures that people read.
#[expect(clippy::cast_precision_loss, reason = "figures for people show four digits at most")]
pub const fn approximate(n: u64) -> f64 {
    n as f64
}

/// A byte size for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = approximate(bytes) / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A number with its thousands apart.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// `one` thing, or so many of the plural.
pub fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts_read_well() {
        assert_eq!(size(3), "3 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(256 << 20), "256.0 MiB");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(plural(1, "job", "jobs"), "1 job");
    }

    #[test]
    fn a_hostile_name_can_not_write_to_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(clean_lines("a\x1b[2Jb\r\n\tc\u{9b}d"), "a\u{fffd}[2Jb\u{fffd}\n\tc\u{fffd}d");
    }
}
