//! The same for documents: Markdown tables, and a chart that Mermaid draws.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{
    BATCH_HEAD, SITE_HEAD, TRANSFER_HEAD, batch_rows, gates, headline, names, site_rows, transfer_rows,
    troubles,
};
use crate::cli::output::{count, one_line};
use crate::cli::view::forecast::{Forecast, Span};

/// Shortest bar: Mermaid draws none of less than a second.
const BAR_MILLIS_MIN: u64 = 1_000;

pub(super) fn markdown(forecast: &Forecast) -> String {
    let mut text = format!("# {}\n\n", cell(&headline(forecast)));
    for line in gates(forecast) {
        let _ = writeln!(text, "- {}", cell(&line));
    }
    let troubles = troubles(forecast);
    if !troubles.is_empty() {
        text += "\n## Waits\n\n";
    }
    for line in troubles {
        let _ = writeln!(text, "- {}", cell(&line));
    }
    text += "\n## Batches\n\n";
    text += &markdown_table(&BATCH_HEAD, batch_rows(forecast));
    text += "\n## Links\n\n";
    text += &markdown_table(&SITE_HEAD, site_rows(forecast));
    if !forecast.transfers.is_empty() {
        text += "\n## Transfers\n\n";
        text += &markdown_table(&TRANSFER_HEAD, transfer_rows(forecast));
    }
    text
}

/// Keeps text in its cell, and from being read as markup.
fn cell(text: &str) -> String {
    let mut cell = String::new();
    for character in one_line(text).chars() {
        if matches!(character, '|' | '*' | '_' | '`' | '<' | '[' | '\\') {
            cell.push('\\');
        }
        cell.push(character);
    }
    cell
}

fn markdown_table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(head.iter().map(|name| name.to_lowercase()).collect());
    text += &line(vec!["---".to_owned(); head.len()]);
    for row in rows {
        text += &line(row.iter().map(|text| cell(text)).collect());
    }
    text
}

/// Draws staging by site and switching by batch over time.
pub(super) fn mermaid(forecast: &Forecast) -> String {
    let mut text = format!("gantt\n  title {}\n", name(&headline(forecast)));
    text += "  dateFormat x\n  axisFormat %d %b %H:%M\n  section Staging\n";
    let begins = forecast.begins_at.map_or(0, Timestamp::as_millisecond).unsigned_abs();
    let bar = |section: &mut String, what: &str, from: Span, until: Span| {
        let [from, until] = [from, until].map(|time| time.0.as_millis() as u64);
        let until = until.max(from + BAR_MILLIS_MIN);
        let _ = writeln!(section, "  {} :{}, {}", name(what), begins + from, begins + until);
    };
    for site in &forecast.sites {
        bar(
            &mut text,
            &format!("{} ({})", site.site, count(site.changing as usize, "host")),
            Span::default(),
            site.staged_seconds,
        );
    }
    text += "  section Switching\n";
    for (number, batch) in forecast.batches.iter().enumerate() {
        let (Some(from), Some(until)) = (batch.opens_seconds, batch.passes_seconds) else { continue };
        bar(&mut text, &format!("batch {} ({})", number + 1, names(batch)), from, until);
    }
    text
}

/// Keeps text from being read as syntax: colons, semicolons and hashes end a name.
fn name(text: &str) -> String {
    one_line(text)
        .replace([':', ';', '#'], " ")
        .replace(',', " and")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
