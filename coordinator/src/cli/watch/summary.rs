//! The table at the end: what became of every host, and what the hooks of failed ones said.

use std::time::Duration;

use sluice_common::units::{format_duration, format_size};

use crate::cli::output::{clean, count, one_line, or_dash, table};
use crate::cli::view::rollout::{Host, Outcome, Rollout};

/// Most lines of one hook's output that are shown: its end says why it failed.
const OUTPUT_LINES_MAX: usize = 40;

/// Formats all hosts with a line of totals, then hook output of hosts that failed.
pub(super) fn text(rollout: &Rollout) -> String {
    let rows = rollout.hosts().map(|(batch, host)| {
        vec![
            host.name.clone(),
            host.site.clone(),
            batch.to_string(),
            host.outcome.as_str().to_owned(),
            switch(host),
            format_size(host.wire_bytes),
            or_dash(&one_line(host.reason.as_deref().unwrap_or_default())),
        ]
    });
    let mut text = table(
        &["HOST", "SITE", "BATCH", "OUTCOME", "SWITCH", "WIRE", "REASON"],
        &["BATCH", "SWITCH", "WIRE"],
        rows.collect(),
    );
    text.push_str(&totals(rollout));
    for (_, host) in rollout.hosts() {
        if let Some(output) = host.hook_output.as_deref().filter(|_| went_wrong(host)) {
            text.push_str(&hook_output(&host.name, output));
        }
    }
    text
}

fn went_wrong(host: &Host) -> bool {
    match host.outcome {
        Outcome::Failed | Outcome::RollingBack | Outcome::RolledBack => true,
        Outcome::Unknown | Outcome::Waiting | Outcome::Ordered | Outcome::Updated => false,
    }
}

fn switch(host: &Host) -> String {
    if host.switch_seconds > 0.0 { milliseconds(host.switch_seconds) } else { "-".to_owned() }
}

/// Switches take milliseconds; parts of one matter.
fn milliseconds(seconds: f64) -> String {
    match seconds * 1e3 {
        short @ ..10.0 => format!("{short:.1}ms"),
        long => format_duration(Duration::from_secs_f64(long / 1e3)),
    }
}

fn totals(rollout: &Rollout) -> String {
    let hosts: Vec<&Host> = rollout.hosts().map(|(_, host)| host).collect();
    let outcomes = Outcome::ALL.iter().filter_map(|outcome| {
        let number = hosts.iter().filter(|host| host.outcome == *outcome).count();
        (number > 0).then(|| format!("{number} {}", outcome.as_str()))
    });
    let wire: u64 = hosts.iter().map(|host| host.wire_bytes).sum();
    let longest = hosts.iter().map(|host| host.switch_seconds).fold(0.0, f64::max);
    let mut text = format!("{}: {}", count(hosts.len(), "host"), outcomes.collect::<Vec<_>>().join(", "));
    text.push_str(&format!("; {} on the wire", format_size(wire)));
    if longest > 0.0 {
        text.push_str(&format!("; longest switch {}", milliseconds(longest)));
    }
    text + "\n"
}

fn hook_output(host: &str, output: &str) -> String {
    let output = clean(output);
    let lines: Vec<&str> = output.lines().collect();
    let skipped = lines.len().saturating_sub(OUTPUT_LINES_MAX);
    let mut text = format!("\nhook output of {}:\n", one_line(host));
    if skipped > 0 {
        text.push_str(&format!("  ({} before)\n", count(skipped, "line")));
    }
    for line in &lines[skipped..] {
        text.push_str(&format!("  | {line}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_summary_names_every_host_and_what_its_hooks_said() {
        insta::assert_snapshot!(text(&samples::rolled_back()), @r#"
        HOST    SITE    BATCH  OUTCOME      SWITCH     WIRE  REASON
        web-1   berlin      1  rolled back    12ms  3.12 MB  -
        web-2   berlin      2  failed            -  3.12 MB  health[0]: GET http://127.0.0.1:8080/: 500�[31m, expected 200
        web-10  rome        2  ordered           -  3.12 MB  -
        web-4   rome        3  waiting           -  3.12 MB  -
        web-5   rome        3  waiting           -      0 B  -
        5 hosts: 1 failed, 1 rolled back, 1 ordered, 2 waiting; 12.4 MB on the wire; longest switch 12ms

        hook output of web-2:
          | starting
          | bind: address �[1min use
        "#);
    }

    #[test]
    fn long_output_shows_its_end() {
        let output: String = (1..=50).map(|i| format!("line {i}\n")).collect();
        let text = hook_output("web-1", &output);
        assert!(text.contains("(10 lines before)\n  | line 11\n") && text.ends_with("| line 50\n"), "{text}");
    }
}
