//! The live view, as pure lines: a header, what it waits for, a line a batch, a line a host where they are few.

use std::collections::HashMap;

use jiff::Timestamp;
use sluice_common::order::Phase;
use sluice_common::units::{format_duration, format_size};

use crate::cli::output::{count, one_line};
use crate::cli::view::rollout::{Batch, BatchState, Check, Host, Outcome, Rollout, State};

/// Most hosts shown one by one: what fits a screen beside the rest.
pub(super) const HOSTS_MAX: usize = 20;
/// Most lines of release notes shown; sluice release list --json has them all.
const NOTES_MAX: usize = 5;
/// Most blockers shown.
const BLOCKERS_MAX: usize = 5;

/// How a line is meant; a terminal shows it by colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Strong,
    Good,
    Busy,
    Bad,
    Faint,
}

/// One line of the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) tone: Tone,
    pub(super) text: String,
}

/// Which hosts get a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hosts {
    /// All when they are few, else those that failed or are on their way.
    Some,
    None,
}

/// Renders a rollout as it stands at `now`.
pub(super) fn render(rollout: &Rollout, now: Timestamp, hosts: Hosts) -> Vec<Line> {
    let mut lines = vec![header(rollout, now)];
    let notes = rollout.notes.lines().filter(|note| !note.trim().is_empty()).take(NOTES_MAX);
    lines.extend(notes.map(|note| line(Tone::Faint, format!("  {}", one_line(note)))));
    if let Some(reason) = &rollout.reason {
        lines.push(line(state_tone(rollout.state), format!("  {}", one_line(reason))));
    }
    if is_under_way(rollout.state) {
        lines.extend(blockers(&rollout.blockers));
    }
    let shown = match hosts {
        Hosts::Some => Shown::choose(rollout),
        Hosts::None => Shown::default(),
    };
    for batch in &rollout.batches {
        lines.push(batch_line(batch, rollout.batches.len()));
        lines.extend(batch.hosts.iter().filter(|host| shown.has(host)).map(|host| host_line(host, &shown)));
    }
    lines.extend(rollout.checks.iter().map(check_line));
    if shown.hidden > 0 {
        lines.push(line(Tone::Faint, format!("  and {} not shown", count(shown.hidden, "host"))));
    }
    lines
}

fn check_line(check: &Check) -> Line {
    let (tone, outcome) = match (&check.failure, check.outcome.as_deref()) {
        (Some(_), _) | (None, Some("fail")) => (Tone::Bad, "failed"),
        (None, Some("pass")) => (Tone::Good, "passes"),
        (None, _) => (Tone::Busy, "is inconclusive"),
    };
    let words = check.failure.as_deref().or(check.words.as_deref()).unwrap_or("no answer yet");
    let Check { name, batch, samples, passed, .. } = check;
    let text = format!(
        "check {} of batch {batch} {outcome}, {passed} of {samples} passed: {}",
        one_line(name),
        one_line(words)
    );
    line(tone, text)
}

fn line(tone: Tone, text: String) -> Line {
    Line { tone, text }
}

fn is_under_way(state: State) -> bool {
    match state {
        State::Unknown | State::Running | State::Paused | State::RollingBack => true,
        State::Succeeded | State::RolledBack | State::Failed | State::Aborted => false,
    }
}

fn state_tone(state: State) -> Tone {
    match state {
        State::Unknown | State::Running => Tone::Strong,
        State::Paused | State::RollingBack | State::Aborted => Tone::Busy,
        State::Succeeded => Tone::Good,
        State::RolledBack | State::Failed => Tone::Bad,
    }
}

fn header(rollout: &Rollout, now: Timestamp) -> Line {
    let mut parts =
        vec![format!("{} {}  {}  {}", rollout.app, rollout.version, rollout.id, rollout.state.as_str())];
    let current = rollout.batches.iter().find(|batch| batch.state != BatchState::Passed);
    if let Some(batch) = current.filter(|_| is_under_way(rollout.state)) {
        parts.push(format!("batch {} of {}", batch.number, rollout.batches.len()));
    }
    let total = rollout.hosts().count();
    let updated = rollout.hosts().filter(|(_, host)| host.outcome == Outcome::Updated).count();
    parts.push(format!("{updated} of {} updated", count(total, "host")));
    if let Some(started) = rollout.started_at {
        let until = rollout.ended_at.unwrap_or(now);
        parts.push(elapsed(until.duration_since(started).unsigned_abs()));
    }
    line(state_tone(rollout.state), one_line_keeping_gaps(&parts.join(", ")))
}

/// Whole seconds, so that the view does not flicker.
fn elapsed(time: std::time::Duration) -> String {
    format_duration(std::time::Duration::from_secs(time.as_secs().max(1)))
}

fn one_line_keeping_gaps(text: &str) -> String {
    text.split("  ").map(one_line).collect::<Vec<_>>().join("  ")
}

fn blockers(blockers: &[String]) -> impl Iterator<Item = Line> + '_ {
    let more = blockers.len().saturating_sub(BLOCKERS_MAX);
    let rest = (more > 0).then(|| line(Tone::Faint, format!("  and {more} more causes to wait")));
    blockers
        .iter()
        .take(BLOCKERS_MAX)
        .map(|blocker| line(Tone::Busy, format!("  {}", one_line(blocker))))
        .chain(rest)
}

fn batch_line(batch: &Batch, batches: usize) -> Line {
    let width = batches.to_string().len();
    let outcomes: HashMap<Outcome, usize> = batch.hosts.iter().fold(HashMap::new(), |mut counts, host| {
        *counts.entry(host.outcome).or_default() += 1;
        counts
    });
    let counts = Outcome::ALL
        .iter()
        .filter_map(|outcome| outcomes.get(outcome).map(|number| format!("{number} {}", outcome.as_str())));
    let counts = counts.collect::<Vec<_>>().join(", ");
    let tone = match batch.state {
        _ if outcomes.contains_key(&Outcome::Failed) => Tone::Bad,
        BatchState::Passed => Tone::Good,
        BatchState::Open | BatchState::Baking => Tone::Busy,
        BatchState::Waiting | BatchState::Unknown => Tone::Faint,
    };
    let hosts = count(batch.hosts.len(), "host");
    line(tone, format!("  batch {:<width$}  {:<7}  {hosts}: {counts}", batch.number, batch.state.as_str()))
}

/// Which hosts get a line, and how wide their columns are.
#[derive(Default)]
struct Shown<'a> {
    names: std::collections::HashSet<&'a str>,
    name_width: usize,
    site_width: usize,
    hidden: usize,
}

impl<'a> Shown<'a> {
    fn choose(rollout: &'a Rollout) -> Self {
        let total = rollout.hosts().count();
        let mut hosts: Vec<&Host> = rollout.hosts().map(|(_, host)| host).collect();
        if total > HOSTS_MAX {
            hosts.retain(|host| interest(host) > 0);
            hosts.sort_by_key(|host| std::cmp::Reverse(interest(host)));
            hosts.truncate(HOSTS_MAX);
        }
        Self {
            name_width: hosts.iter().map(|host| host.name.len()).max().unwrap_or_default(),
            site_width: hosts.iter().map(|host| host.site.len()).max().unwrap_or_default(),
            hidden: total - hosts.len(),
            names: hosts.iter().map(|host| host.name.as_str()).collect(),
        }
    }

    fn has(&self, host: &Host) -> bool {
        self.names.contains(host.name.as_str())
    }
}

/// How much a host deserves a line among many: failed first, then what moves, then what is being staged.
fn interest(host: &Host) -> u8 {
    match host.outcome {
        Outcome::Failed => 4,
        Outcome::RollingBack => 3,
        Outcome::Ordered => 2,
        Outcome::Waiting if host.phase == Some(Phase::Fetching) => 1,
        Outcome::Waiting | Outcome::Updated | Outcome::RolledBack | Outcome::Unknown => 0,
    }
}

fn host_line(host: &Host, shown: &Shown<'_>) -> Line {
    let (name, site) = (one_line(&host.name), one_line(&host.site));
    let mut text =
        format!("    {name:<0$}  {site:<1$}  {2}", shown.name_width, shown.site_width, host_state(host));
    if host.wire_bytes > 0 {
        text.push_str(&format!(", wire {}", format_size(host.wire_bytes)));
    }
    if !host.reachable {
        text.push_str(", unreachable");
    }
    if let Some(reason) = &host.reason {
        text.push_str(&format!(": {}", one_line(reason)));
    }
    line(host_tone(host), text)
}

fn host_tone(host: &Host) -> Tone {
    match host.outcome {
        Outcome::Failed => Tone::Bad,
        _ if !host.reachable => Tone::Busy,
        Outcome::Updated => Tone::Good,
        Outcome::Ordered | Outcome::RollingBack => Tone::Busy,
        Outcome::RolledBack => Tone::Plain,
        Outcome::Waiting | Outcome::Unknown => Tone::Faint,
    }
}

/// Says where a host stands: its outcome, and on the way there its phase.
fn host_state(host: &Host) -> String {
    match (host.outcome, host.phase) {
        (Outcome::Waiting | Outcome::Ordered, Some(Phase::Fetching)) => fetching(host),
        (Outcome::Waiting, Some(phase @ (Phase::Staged | Phase::Candidate))) => phase.to_string(),
        (Outcome::Ordered, Some(phase)) if phase > Phase::Staged => phase.to_string(),
        (
            Outcome::RollingBack,
            Some(phase @ (Phase::Draining | Phase::Switching | Phase::Validating | Phase::Reverting)),
        ) => {
            format!("rolling back, {phase}")
        }
        (outcome, _) => outcome.as_str().to_owned(),
    }
}

fn fetching(host: &Host) -> String {
    match host.fetch_total_bytes {
        0 => "fetching".to_owned(),
        total => format!(
            "fetching {:>3} %, {} of {}",
            u128::from(host.fetched_bytes) * 100 / u128::from(total),
            format_size(host.fetched_bytes),
            format_size(total)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, at};
    use super::*;

    fn text(rollout: &Rollout) -> String {
        let lines = render(rollout, at(72), Hosts::Some);
        lines.iter().map(|line| format!("{}\n", line.text)).collect()
    }

    #[test]
    fn running() {
        insta::assert_snapshot!(text(&samples::running()), @r#"
        shop 1.2.0  r42  running, batch 2 of 3, 1 of 5 hosts updated, 1m12s
          batch 1  passed   1 host: 1 updated
            web-1   berlin  updated, wire 3.12 MB
          batch 2  open     2 hosts: 2 ordered
            web-2   berlin  validating, wire 3.12 MB
            web-10  rome    ordered, wire 3.12 MB
          batch 3  waiting  2 hosts: 2 waiting
            web-4   rome    fetching  50 %, 12.2 MB of 24.5 MB, wire 3.12 MB
            web-5   rome    waiting, unreachable
        "#);
    }

    #[test]
    fn baking() {
        insta::assert_snapshot!(text(&samples::baking()), @r#"
        shop 1.2.0  r42  running, batch 2 of 3, 3 of 5 hosts updated, 1m12s
          baking batch 2: 18s of 30s left
          batch 1  passed   1 host: 1 updated
            web-1   berlin  updated, wire 3.12 MB
          batch 2  baking   2 hosts: 2 updated
            web-2   berlin  updated, wire 3.12 MB
            web-10  rome    updated, wire 3.12 MB
          batch 3  waiting  2 hosts: 2 waiting
            web-4   rome    fetching  50 %, 12.2 MB of 24.5 MB, wire 3.12 MB
            web-5   rome    waiting, unreachable
        "#);
    }

    #[test]
    fn blocked() {
        insta::assert_snapshot!(text(&samples::blocked()), @r#"
        shop 1.2.0  r42  running, batch 2 of 3, 1 of 5 hosts updated, 1m12s
          waiting for web-5 to report (unreachable for 4m)
          waiting for app-0 to stage (4.1 MB of 24.5 MB)
          waiting for app-1 to stage (4.1 MB of 24.5 MB)
          waiting for app-2 to stage (4.1 MB of 24.5 MB)
          waiting for app-3 to stage (4.1 MB of 24.5 MB)
          and 2 more causes to wait
          batch 1  passed   1 host: 1 updated
            web-1   berlin  updated, wire 3.12 MB
          batch 2  open     2 hosts: 2 ordered
            web-2   berlin  validating, wire 3.12 MB
            web-10  rome    ordered, wire 3.12 MB
          batch 3  waiting  2 hosts: 2 waiting
            web-4   rome    fetching  50 %, 12.2 MB of 24.5 MB, wire 3.12 MB
            web-5   rome    waiting, unreachable
        "#);
    }

    #[test]
    fn failed() {
        insta::assert_snapshot!(text(&samples::failed()), @r#"
        shop 1.2.0  r42  failed, 1 of 5 hosts updated, 1m5s
          1 host failed, 0 are tolerated
          batch 1  passed   1 host: 1 updated
            web-1   berlin  updated, wire 3.12 MB
          batch 2  open     2 hosts: 1 failed, 1 ordered
            web-2   berlin  failed, wire 3.12 MB: health[0]: GET http://127.0.0.1:8080/: 500�[31m, expected 200
            web-10  rome    ordered, wire 3.12 MB
          batch 3  waiting  2 hosts: 2 waiting
            web-4   rome    fetching  50 %, 12.2 MB of 24.5 MB, wire 3.12 MB
            web-5   rome    waiting, unreachable
        "#);
    }

    #[test]
    fn rolled_back() {
        insta::assert_snapshot!(text(&samples::rolled_back()), @r#"
        shop 1.2.0  r42  rolled back, 0 of 5 hosts updated, 1m5s
          1 host failed, 0 are tolerated
          batch 1  passed   1 host: 1 rolled back
            web-1   berlin  rolled back, wire 3.12 MB
          batch 2  open     2 hosts: 1 failed, 1 ordered
            web-2   berlin  failed, wire 3.12 MB: health[0]: GET http://127.0.0.1:8080/: 500�[31m, expected 200
            web-10  rome    ordered, wire 3.12 MB
          batch 3  waiting  2 hosts: 2 waiting
            web-4   rome    fetching  50 %, 12.2 MB of 24.5 MB, wire 3.12 MB
            web-5   rome    waiting, unreachable
        "#);
    }

    #[test]
    fn of_many_hosts_only_those_that_matter_are_shown() {
        insta::assert_snapshot!(text(&samples::large()), @r#"
        shop 1.2.0  r42  running, batch 1 of 1, 0 of 30 hosts updated, 1m12s
          batch 1  open     30 hosts: 1 failed, 1 ordered, 28 waiting
            h7   s  fetching  50 %, 12.2 MB of 24.5 MB, wire 3.12 MB
            h20  s  failed, wire 3.12 MB
            h21  s  ordered, wire 3.12 MB
          and 27 hosts not shown
        "#);
    }
}
