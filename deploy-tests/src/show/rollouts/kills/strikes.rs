//! What was struck where: read from the coordinator's log, which says so in its last words.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use crate::lab::Lab;
use crate::show::board::Board;

/// A part of what the coordinator and its operator do, over which kills are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// An operator starts a rollout.
    Start,
    /// It goes forward.
    Forward,
    /// Hosts are taken back.
    Retreat,
    /// An operator opens the application again.
    Reopen,
    /// An operator tries it again, and it goes forward once more.
    Retry,
}

impl Part {
    const ALL: [Self; 5] = [Self::Start, Self::Forward, Self::Retreat, Self::Reopen, Self::Retry];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Forward => "forward",
            Self::Retreat => "retreat",
            Self::Reopen => "reopen",
            Self::Retry => "retry",
        })
    }
}

/// How often commits about one thing were struck.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    before: u32,
    after: u32,
}

/// What the coordinator that was just killed has left.
pub(super) struct Struck {
    /// From here on hosts are taken back.
    pub(super) turns: bool,
}

/// Counts what was struck.
pub(super) struct Strikes {
    log: PathBuf,
    /// Bytes of the log that were read.
    read: usize,
    counts: BTreeMap<(Part, String), Count>,
}

impl Strikes {
    pub(super) fn new(lab: &Lab) -> Self {
        Self { log: lab.dir().join("coordinator.log"), read: 0, counts: BTreeMap::new() }
    }

    /// Returns how many kills there were so far.
    pub(super) fn kills(&self) -> u32 {
        self.counts.values().map(|count| count.before + count.after).sum()
    }

    /// Takes down where the coordinator that was just killed was struck.
    pub(super) fn take(&mut self, part: Part) -> Result<Struck> {
        let text = fs::read_to_string(&self.log)?;
        let new = text.get(self.read..).unwrap_or_default();
        let line = new.lines().rfind(|line| line.contains("struck at a commit"));
        let line = line.context("the coordinator was killed, but has not been struck")?;
        let about = field(line, "about").with_context(|| format!("no commit in {line:?}"))?;
        let side = field(line, "side").with_context(|| format!("no side in {line:?}"))?;
        let count = self.counts.entry((part, about.to_owned())).or_default();
        match side {
            "Before" => count.before += 1,
            side => {
                ensure!(side == "After", "struck {side}?");
                count.after += 1;
            }
        }
        let turns = new.contains("rolling back") || (side == "After" && about == "rollout.roll_back");
        self.read = text.len();
        Ok(Struck { turns })
    }

    /// Shows that there were enough kills on both sides of commits, in every part; prints which commits they were.
    pub(super) fn show(&self, board: &mut Board, wanted: u32, rollouts: u32) {
        let kills = self.kills();
        let figure = format!("{kills} kills, {rollouts} rollouts ended");
        let what = "coordinator killed at every commit, 20 agents";
        board.line(what, &figure, &format!("{wanted} kills"), kills >= wanted && rollouts > 0);
        let sum = |wanted: &dyn Fn(Part, &str) -> bool| {
            let of = self.counts.iter().filter(|((part, about), _)| wanted(*part, about));
            of.fold(Count::default(), |sum, (_, count)| Count {
                before: sum.before + count.before,
                after: sum.after + count.after,
            })
        };
        let (reports, decisions) = (sum(&|_, about| about == "report"), sum(&|_, about| about != "report"));
        let total = |count: Count| count.before + count.after;
        let figure = format!(
            "{} before, {} after",
            reports.before + decisions.before,
            reports.after + decisions.after
        );
        let what = format!("  commits struck ({} decisions, {} reports)", total(decisions), total(reports));
        let holds =
            [reports.before + decisions.before, reports.after + decisions.after].iter().all(|n| *n > 0)
                && total(decisions) > 0
                && total(reports) > 0;
        board.line(&what, &figure, "both sides, both kinds", holds);
        let parts = Part::ALL.map(|part| (part, total(sum(&|of, _| of == part))));
        let figure: Vec<String> = parts.iter().map(|(part, count)| format!("{part} {count}")).collect();
        board.line("  in", &figure.join(", "), "every part", parts.iter().all(|(_, count)| *count > 0));
        for part in Part::ALL {
            let of = self.counts.iter().filter(|((of, _), _)| *of == part);
            let lines: Vec<String> =
                of.map(|((_, about), count)| format!("{about} {}+{}", count.before, count.after)).collect();
            println!("       {part} (before+after): {}", lines.join(", "));
        }
    }
}

/// Returns the value of a field in a line of the log.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, value) = line.split_once(&format!("{name}="))?;
    Some(value.split_whitespace().next()?.trim_matches('"'))
}
