//! Plan, differences and layout as Markdown: for a merge request, a wiki, a change record.

use std::fmt::Write as _;

use super::super::output::one_line;
use super::super::view::environment::{Diff, Layout, Plan};
use super::{forecast, render};

/// Formats a plan.
pub(super) fn plan(plan: &Plan) -> String {
    let mut text = format!("# Plan of {}\n\n", plan.environment);
    let verdict = if plan.changes { "Changes." } else { "Nothing changes." };
    let _ = writeln!(text, "{verdict} On failure: {}.\n", plan.on_failure);
    if let Some(seen) = &plan.forecast {
        let _ = writeln!(text, "{}.\n", cell(&capital(&forecast::headline(seen))));
    }
    let mut rows = Vec::new();
    for app in &plan.apps {
        let parts: Vec<String> = app.rollouts.iter().map(render::rollout).collect();
        let hosts = format!("{} of {}", app.hosts - app.hosts_settled.min(app.hosts), app.hosts);
        let rollout = if parts.is_empty() { "-".to_owned() } else { parts.join("; ") };
        rows.push(vec![
            app.step.to_string(),
            app.app.clone(),
            app.release.clone(),
            render::from(app),
            hosts,
            rollout,
        ]);
    }
    text += &table(&["Step", "Application", "Release", "From", "Hosts", "Rollout"], &rows);
    if let Some(seen) = &plan.forecast {
        text += "\n## Rollouts\n\n";
        text += &table(
            &["Rollout", "Sent", "Disk", "Begins", "Staged", "Stands", "Window"],
            &forecast::rollout_rows(seen),
        );
        text += "\n## Links\n\n";
        text += &table(&["Site", "Change", "Sent", "Limit", "Staged", "Disk"], &forecast::site_rows(seen));
    }
    for (title, lines) in render::notes(plan) {
        section(&mut text, title, &lines);
    }
    text
}

/// Formats what differs.
pub(super) fn diff(diff: &Diff) -> String {
    let mut text = format!("# Differences of {}\n\n", diff.environment);
    if diff.differences.is_empty() {
        text += "As declared.\n";
        return text;
    }
    let or_dash = |version: &Option<String>| version.clone().unwrap_or_else(|| "-".to_owned());
    let rows: Vec<Vec<String>> = diff
        .differences
        .iter()
        .map(|d| {
            let (declared, reported) = (or_dash(&d.declared), or_dash(&d.reported));
            vec![d.app.clone(), d.host.clone(), d.site.clone(), d.kind.to_owned(), declared, reported]
        })
        .collect();
    text + &table(&["Application", "Host", "Site", "What", "Declared", "Reported"], &rows)
}

/// Formats what runs where.
pub(super) fn layout(layout: &Layout) -> String {
    let mut text = format!("# Layout of {}\n", layout.environment);
    for app in &layout.apps {
        let _ = write!(text, "\n## {} {}\n\n", app.app, app.release);
        for line in render::about(app) {
            let _ = writeln!(text, "- {}", cell(&line));
        }
        text.push('\n');
        let rows: Vec<Vec<String>> = app.hosts.iter().map(|host| render::host_row(app, host)).collect();
        text += &table(&["Host", "Site", "Labels", "Runs", "State"], &rows);
    }
    text
}

fn section(text: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = write!(text, "\n## {}\n\n", capital(title));
    for line in lines {
        let _ = writeln!(text, "- {}", cell(line));
    }
}

fn capital(text: &str) -> String {
    let mut text = text.to_owned();
    text[..1].make_ascii_uppercase();
    text
}

fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", header.join(" | "), " --- |".repeat(header.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|text| cell(text)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

/// Makes a text safe for a cell: one line, no bar, no markup.
fn cell(text: &str) -> String {
    let escape = |c: char| match c {
        '|' | '\\' | '`' | '*' | '_' | '<' | '>' | '[' | ']' => format!("\\{c}"),
        c => c.to_string(),
    };
    one_line(text).chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_in_its_cell() {
        assert_eq!(cell("a|b\nc *x* <y>"), "a\\|b c \\*x\\* \\<y\\>");
        assert_eq!(
            table(&["A", "B"], &[vec!["1".into(), "2|".into()]]),
            "| A | B |\n| --- | --- |\n| 1 | 2\\| |\n"
        );
    }
}
