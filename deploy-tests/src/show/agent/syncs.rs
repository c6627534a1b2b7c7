//! Every sync matters: each is left out in turn, the power is cut soon after, and something must be found wrong.
//!
//! A sync is told from others by what it syncs and what was done before it. It is tried wherever stories have it, on both
//! kinds of file system, until a violation is found. Those that ext4 and XFS do not need are listed with the reason.

use std::collections::BTreeMap;

use anyhow::Result;

use super::cuts::Cutting;
use super::stage::Stage;
use crate::faults::disk::Kind;
use crate::faults::{Fault, Point, STORIES, Strike, each};
use crate::show::board::Board;

/// Calls after the missing sync at which the power is cut, one after the other.
const CUTS: usize = 10;
/// Places at which one sync is tried.
const PLACES: usize = 6;
/// Syncs of the quick list.
const QUICK: usize = 6;

/// Syncs without which nothing is lost on ext4 and XFS, because both keep changes of names in one log, in their order: a
/// later sync of anything makes them durable before what must follow. Kept for file systems that promise less.
const ORDERED: [(&str, &str); 7] = [
    ("fsync releases, after rename releases *", "the marker's sync follows in the same directory"),
    ("fsync releases, after rename releases * verified", "the state's sync follows, before it is told"),
    ("fsync releases, after unlink releases * verified", "the tree's removal follows in the log"),
    ("fsync shop, after rename order * release", "the state's sync follows in the same directory"),
    ("fsync shop, after write history log", "the history's sync has committed the links' renames with it"),
    (
        "fsync shop, after rename candidate",
        "the state names the candidate, and the link is made anew after a boot",
    ),
    (
        "fsync shop, after unlink candidate",
        "a link that comes back leads to what runs, and the next switch removes it",
    ),
];

/// Where a sync stands: in which prepared story, and which of its points it is.
type Place = (usize, usize);

pub(super) fn run(board: &mut Board, stage: &Stage) -> Result<()> {
    let mut stories = Vec::new();
    // XFS first: it keeps less than ext4 of what was not asked of it.
    for kind in [Kind::Xfs, Kind::Ext4] {
        if let Some(why) = kind.obstacle() {
            board.skip(&format!("{}: one sync left out", kind.as_str()), &why);
            continue;
        }
        for story in &STORIES {
            stories.push(Cutting::prepare(stage, kind, story)?);
        }
    }
    let mut sites: BTreeMap<String, Vec<Place>> = BTreeMap::new();
    for (number, story) in stories.iter().enumerate() {
        for (at, _) in story.points.iter().enumerate().filter(|(_, point)| point.is_sync()) {
            sites.entry(name(&story.points, at)).or_default().push((number, at));
        }
    }
    let mut sites: Vec<(String, Vec<Place>)> = sites.into_iter().collect();
    if stage.options.quick {
        sites.retain(|(name, _)| ORDERED.iter().all(|(ordered, _)| ordered != name));
        sites.truncate(QUICK);
    }
    let found = each("syncs left out", &sites, |worker, (_, places)| {
        for (number, at) in places.iter().take(PLACES) {
            if let Some(wrong) = leave_out(&stories[*number], worker, *at)? {
                return Ok(Some(wrong));
            }
        }
        Ok(None)
    })?;
    for ((name, _), wrong) in sites.iter().zip(found) {
        let ordered = ORDERED.iter().find(|(ordered, _)| ordered == name);
        let figure = match (&wrong, ordered) {
            (Some(_), _) => "found",
            (None, Some(_)) => "ordered by the log",
            (None, None) => "nothing found",
        };
        let holds = wrong.is_some() || ordered.is_some();
        board.line(&format!("left out: {name}"), figure, "a violation, or a reason", holds);
        let reason = ordered.map(|(_, reason)| (*reason).to_owned());
        if let Some(reason) = wrong.or(reason) {
            println!("       {reason}");
        }
    }
    Ok(())
}

/// Leaves out a sync and cuts the power at calls after it, until something is wrong; returns what.
fn leave_out(story: &Cutting<'_>, worker: usize, at: usize) -> Result<Option<String>> {
    let sync = &story.points[at];
    // Not two faults for one kind of call, and none counted by file: strace cannot do both at once.
    let may_end = |point: &&Point| point.call != sync.call && point.file.is_none();
    let ends = story.points[at + 1..].iter().filter(may_end).take(CUTS).map(Some);
    for end in ends.chain([None]) {
        let mut faults = vec![(sync.clone(), Fault::Skipped)];
        faults.extend(end.map(|end| (end.clone(), Fault::Kill)));
        if let Some(wrong) = story.cut_anywhere(worker, &Strike(faults))?.first() {
            let end = end.map_or("the end".to_owned(), Point::to_string);
            return Ok(Some(format!("{}, cut at {end}: {wrong}", story.name())));
        }
    }
    Ok(None)
}

/// Names a sync by what it syncs and by the call before it, without what differs from story to story.
fn name(points: &[Point], at: usize) -> String {
    let before = points[..at].iter().rev().find(|point| !point.is_sync());
    let before = before.map_or(String::new(), |point| format!(", after {}", plain(&point.shown)));
    format!("{}{before}", plain(&points[at].shown))
}

/// Shortens a traced call to its name and its file's.
fn plain(shown: &str) -> String {
    let call = shown.split('(').next().unwrap_or_default();
    let mut files: Vec<&str> = shown.split(['<', '>', '"']).filter(|part| part.starts_with('/')).collect();
    // Renames are known by where they lead.
    let file = files.pop().unwrap_or("");
    let words = file.split(['/', '.', '-']).map(|word| if is_variable(word) { "*" } else { word });
    let mut name = String::new();
    for word in words.filter(|word| !word.is_empty()) {
        name += if name.is_empty() { "" } else { " " };
        name += word;
    }
    format!("{call} {}", name.trim_start_matches("shop "))
}

fn is_variable(word: &str) -> bool {
    let is_digest = word.len() == 12 && word.chars().all(|letter| letter.is_ascii_hexdigit());
    is_digest || (!word.is_empty() && word.chars().all(|letter| letter.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_named_alike_in_every_story() {
        let point =
            |call: &str, shown: &str| Point { call: call.into(), number: 1, file: None, shown: shown.into() };
        let points = [
            point("rename", r#"rename("/shop/.state.toml.sluice-tmp", "/shop/state.toml")"#),
            point("fsync", "fsync(11</shop>)"),
            point("fsync", "fsync(12</shop/releases/.c626f2c15afb.verified.sluice-tmp>)"),
        ];
        assert_eq!(name(&points, 1), "fsync shop, after rename state toml");
        assert_eq!(name(&points, 2), "fsync releases * verified sluice tmp, after rename state toml");
    }
}
