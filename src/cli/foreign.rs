//! What processors printed, on its way to the screen.
//!
//! A file or pipe gets the bytes as they are. A terminal would obey some of them, so there each control character but
//! newline and tab becomes `U+FFFD`, as it does in the tables, and so does whatever is no UTF-8. Output that is followed
//! comes in chunks: the end of one that only the next can judge (half a character, or a carriage return, which passes
//! before a newline) is held back until then.

use std::io::{self, Write};

use super::screen::Screen;

/// One stream of bytes from outside.
#[derive(Debug, Default)]
pub struct Foreign {
    held: Vec<u8>,
}

impl Foreign {
    /// Writes the next chunk, or as much of it as can be judged.
    pub fn write(&mut self, chunk: &[u8], screen: &mut Screen) -> io::Result<()> {
        if !screen.terminal {
            return screen.write_all(chunk);
        }
        self.held.extend_from_slice(chunk);
        let judged: Vec<u8> = self.held.drain(..judgeable(&self.held)).collect();
        screen.write_all(harmless(&judged).as_bytes())
    }

    /// Writes what was held back: nothing more comes.
    pub fn end(&mut self, screen: &mut Screen) -> io::Result<()> {
        screen.write_all(harmless(&std::mem::take(&mut self.held)).as_bytes())
    }
}

/// How many of these bytes need nothing that follows.
fn judgeable(bytes: &[u8]) -> usize {
    if bytes.ends_with(b"\r") {
        return bytes.len() - 1;
    }
    let last = bytes.utf8_chunks().last().map(|chunk| chunk.invalid()).unwrap_or_default();
    // Without a length, the error is that more is to come.
    let cut = std::str::from_utf8(last).is_err_and(|error| error.error_len().is_none());
    if cut { bytes.len() - last.len() } else { bytes.len() }
}

fn harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = text.chars().peekable();
    let mut shown = String::with_capacity(text.len());
    while let Some(c) = rest.next() {
        let obeyed = match c {
            '\n' | '\t' => false,
            '\r' => rest.peek() != Some(&'\n'),
            c => c.is_control(),
        };
        shown.push(if obeyed { char::REPLACEMENT_CHARACTER } else { c });
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::Paper;
    use super::*;

    /// What a terminal, or a pipe, gets of these chunks.
    fn shown(terminal: bool, chunks: &[&[u8]]) -> Vec<u8> {
        let paper = Paper::default();
        let mut screen = paper.screen();
        screen.terminal = terminal;
        let mut foreign = Foreign::default();
        for chunk in chunks {
            foreign.write(chunk, &mut screen).unwrap();
        }
        foreign.end(&mut screen).unwrap();
        paper.bytes()
    }

    fn on_a_terminal(chunks: &[&[u8]]) -> String {
        String::from_utf8(shown(true, chunks)).unwrap()
    }

    /// Everything that can go wrong in one text.
    const MIXED: &[u8] = b"a\tb\r\nred\x1b[31m\x1b]0;title\x07 \rover \x7f \xc2\x9b31m \xff\xfe \xe2\x82\x1b[0m \
                           \xc3\xa9\xe2\x82\xac\xf0\x9f\xa6\x80 \r\r\nend\xf0\x9f\x1b\xc2\x85\r";

    #[test]
    fn a_terminal_gets_text_and_nothing_that_it_obeys() {
        let expected = "a\tb\r\nred\u{fffd}[31m\u{fffd}]0;title\u{fffd} \u{fffd}over \u{fffd} \u{fffd}31m \
                        \u{fffd}\u{fffd} \u{fffd}\u{fffd}[0m é€🦀 \u{fffd}\r\nend\u{fffd}\u{fffd}\u{fffd}\u{fffd}";
        assert_eq!(on_a_terminal(&[MIXED]), expected);
    }

    #[test]
    fn it_makes_no_difference_where_chunks_are_cut() {
        let whole = on_a_terminal(&[MIXED]);
        for first in 0..=MIXED.len() {
            for second in first..=MIXED.len() {
                let chunks = [&MIXED[..first], &MIXED[first..second], &MIXED[second..]];
                assert_eq!(on_a_terminal(&chunks), whole, "cut at {first} and {second}");
            }
        }
        let single: Vec<&[u8]> = MIXED.chunks(1).collect();
        assert_eq!(on_a_terminal(&single), whole);
    }

    #[test]
    fn what_can_be_judged_is_not_held_back() {
        let paper = Paper::default();
        let mut screen = paper.screen();
        screen.terminal = true;
        Foreign::default().write(b"50 %\xff\xe2\x82", &mut screen).unwrap();
        assert_eq!(paper.text(), "50 %\u{fffd}");
    }

    #[test]
    fn a_pipe_gets_the_bytes_as_they_are() {
        assert_eq!(shown(false, &[&MIXED[..7], &MIXED[7..]]), MIXED);
    }
}
