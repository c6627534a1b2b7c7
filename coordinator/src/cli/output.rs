//! What is printed: data on stdout (text, tables or JSON), everything else on stderr.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde::Serialize;

/// How the caller wants to be told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
    progress: bool,
    color: bool,
}

/// Says that the reader of stdout has gone, as `head` does: no error of ours.
#[derive(Debug, thiserror::Error)]
#[error("stdout was closed")]
pub(super) struct Closed;

impl Output {
    /// Looks at the terminal and at `NO_COLOR`.
    pub(super) fn new(json: bool, no_progress: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, progress: terminal && !no_progress, color }
    }

    /// Says whether JSON is wanted.
    pub(super) fn is_json(self) -> bool {
        self.json
    }

    /// Says whether bars and live views may be drawn on stderr.
    pub(super) fn has_progress(self) -> bool {
        self.progress
    }

    /// Says whether stderr may be coloured.
    pub(super) fn has_color(self) -> bool {
        self.color
    }

    /// Prints a line of data.
    pub(super) fn line(self, text: impl Display) -> anyhow::Result<()> {
        write(io::stdout().lock(), &format!("{text}\n"))
    }

    /// Prints bytes as they are.
    pub(super) fn raw(self, text: &str) -> anyhow::Result<()> {
        write(io::stdout().lock(), text)
    }

    /// Prints a value as one line of JSON.
    pub(super) fn json(self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_string(value)?)
    }

    /// Prints `value` as JSON where that is wanted, else what `text` makes.
    pub(super) fn show(self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        if self.json { self.json(value) } else { self.raw(&text()) }
    }

    /// Tells people something that is no data.
    pub(super) fn note(self, text: impl Display) {
        // Nobody is left to tell when stderr is closed.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

fn write(mut out: impl Write, text: &str) -> anyhow::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
        done => Ok(done?),
    }
}

/// Formats rows under a header, in aligned columns that stay easy to grep; `right` names the columns of numbers.
pub(super) fn table(header: &[&str], right: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| one_line(cell)));
    }
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if header.get(number).is_some_and(|name| right.contains(name)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Formats `name  value` lines, the values aligned.
pub(super) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    pairs.iter().map(|(name, value)| format!("{name:width$}  {}\n", one_line(value))).collect()
}

/// Replaces control characters, so that text from elsewhere cannot drive the terminal. Line breaks and tabs stay.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Cleans a text and puts it on one line.
pub(super) fn one_line(text: &str) -> String {
    clean(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Formats a moment for people: UTC, to the second.
pub(super) fn moment(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// Returns `-` for an empty text.
pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// Returns `1 host`, `2 hosts`.
pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_end_without_blanks() {
        let rows = vec![
            vec!["a".into(), "1".into(), String::new()],
            vec!["long\nname".into(), "100".into(), "x".into()],
        ];
        assert_eq!(
            table(&["NAME", "BYTES", "NOTE"], &["BYTES"], rows),
            "NAME       BYTES  NOTE\na              1\nlong name    100  x\n"
        );
    }

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(clean("a\x1b[31mb\n\tc\u{9b}"), "a\u{fffd}[31mb\n\tc\u{fffd}");
    }
}
