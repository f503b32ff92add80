//! Aligned tables: every column as wide as its widest cell, but for one that gives way so that lines fit.

use std::io::{self, Write};

use super::screen::{Screen, Style, clean};

/// Blanks between columns.
const GAP: usize = 2;
/// The giving column is never narrower.
const NARROWEST: usize = 12;

/// Where a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Words, at the left.
    Left(&'static str),
    /// Numbers, at the right.
    Right(&'static str),
    /// Words that are shortened in the middle where the line is too long: both ends of a path tell something.
    Middle(&'static str),
    /// Words that are cut at their end where the line is too long.
    End(&'static str),
}

impl Column {
    const fn gives(self) -> bool {
        matches!(self, Self::Middle(_) | Self::End(_))
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Left(title) | Self::Right(title) | Self::Middle(title) | Self::End(title) => title,
        }
    }
}

/// A word in a table.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A word in a style.
    pub fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self { text: clean(text.as_ref()), style }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::Plain)
    }
}

/// A table that grows row by row.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table.
    pub fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    /// Adds a row; one cell for each column.
    pub fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the titles and the rows.
    pub fn write(&self, screen: &mut Screen) -> io::Result<()> {
        let widths = self.widths(screen.width);
        let titles: Vec<Cell> = self.columns.iter().map(|column| Cell::styled(column.title(), Style::Dim)).collect();
        std::iter::once(&titles).chain(&self.rows).try_for_each(|row| self.write_row(row, &widths, screen))
    }

    fn widths(&self, line: usize) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|column| column.title().chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let gaps = GAP * widths.len().saturating_sub(1);
        // The widest of the giving columns gives first, one character at a time: they end up alike.
        while widths.iter().sum::<usize>() + gaps > line {
            let giving = widths.iter_mut().zip(&self.columns).filter(|(_, column)| column.gives());
            match giving.map(|(width, _)| width).max() {
                Some(widest) if *widest > NARROWEST => *widest -= 1,
                _ => break,
            }
        }
        widths
    }

    fn write_row(&self, row: &[Cell], widths: &[usize], screen: &mut Screen) -> io::Result<()> {
        // Nothing is filled up behind the last word of a line.
        let last = row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
        for (place, ((cell, column), width)) in row.iter().zip(&self.columns).zip(widths).enumerate().take(last + 1) {
            let text = match column {
                Column::End(_) => cut(&cell.text, *width),
                _ => middle(&cell.text, *width),
            };
            let blank = " ".repeat(width.saturating_sub(text.chars().count()));
            let painted = screen.paint(&text, cell.style);
            match column {
                Column::Right(_) => write!(screen, "{blank}{painted}")?,
                _ if place == last => write!(screen, "{painted}")?,
                _ => write!(screen, "{painted}{blank}")?,
            }
            if place < last {
                write!(screen, "{}", " ".repeat(GAP))?;
            }
        }
        writeln!(screen)
    }
}

/// The text in at most `width` characters, shortened in the middle.
pub fn middle(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width || width == 0 {
        return text.to_owned();
    }
    let head = (width - 1) / 2;
    let tail = width - 1 - head;
    text.chars().take(head).chain(std::iter::once('…')).chain(text.chars().skip(length - tail)).collect()
}

/// The text in at most `width` characters, cut at its end.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width || width == 0 {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(std::iter::once('…')).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::clock::Timestamp;

    /// What was written, shared with the screen that writes it.
    #[derive(Clone, Default)]
    pub struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        pub fn screen(&self) -> Screen {
            Screen::plain(self.clone(), Timestamp::from_millis(1_700_000_060_000))
        }

        pub fn text(&self) -> String {
            String::from_utf8(self.bytes()).unwrap()
        }

        pub fn bytes(&self) -> Vec<u8> {
            self.0.lock().unwrap().clone()
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn columns_are_aligned_and_lines_fit() {
        let paper = Paper::default();
        let mut table = Table::new([Column::Right("ID"), Column::Left("STATE"), Column::Middle("PATH")]);
        table.row(["1".into(), "completed".into(), "/srv/a.pdf".into()]);
        table.row(["1000".into(), "failed".into(), format!("/srv/{}/end.pdf", "x".repeat(100)).into()]);
        table.write(&mut paper.screen()).unwrap();
        let text = paper.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "  ID  STATE      PATH");
        assert_eq!(lines[1], "   1  completed  /srv/a.pdf");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
        assert!(lines[2].starts_with("1000  failed     /srv/x") && lines[2].ends_with("x/end.pdf"), "{text}");
    }

    #[test]
    fn colours_do_not_disturb_the_alignment() {
        let paper = Paper::default();
        let mut screen = paper.screen();
        screen.colour = true;
        let mut table = Table::new([Column::Left("A"), Column::Left("B")]);
        table.row([Cell::styled("x", Style::Red), "1".into()]);
        table.row(["long".into(), "2".into()]);
        table.write(&mut screen).unwrap();
        assert!(paper.text().contains("\x1b[31mx\x1b[0m     1\n"), "{}", paper.text());
    }

    #[test]
    fn shortening_keeps_the_width() {
        assert_eq!(middle("abcdefghij", 5), "ab…ij");
        assert_eq!(cut("abcdefghij", 5), "abcd…");
        assert_eq!(middle("abc", 5), "abc");
    }
}
