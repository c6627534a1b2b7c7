//! What must hold right after a fault, and once the agent has run again.
//!
//! Judged from outside: by the trees that were packed, by what the agent told and what its hooks wrote while it ran, and by
//! `sluice-agent fsck`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use super::story::{LINKED, Version};
use super::{Scene, Site, Story};
use crate::lab::{Difference, compare};

/// Where `current` leads right now: to a whole, marked release, or nowhere. The error says what is wrong with it.
pub fn current(scene: &Scene, story: &Story, site: &Site) -> Result<Result<Option<Version>, String>> {
    let link = site.app().join("current");
    let target = match fs::read_link(&link) {
        Ok(target) => target,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Ok(None)),
        Err(error) => return Err(error.into()),
    };
    let known = story.before.iter().chain([&story.last]).filter_map(|ask| ask.version());
    for version in known.collect::<BTreeSet<_>>() {
        if target.ends_with(scene.package(version).short()) {
            if !site.app().join(&target).with_extension("verified").exists() {
                return Ok(Err(format!("current leads to {version}, which has no marker")));
            }
            let mut differences = match compare(&scene.tree(version), &link) {
                Ok(differences) => differences.into_iter().filter(is_packed),
                Err(error) => {
                    return Ok(Err(format!("current leads to {version}, which cannot be read: {error}")));
                }
            };
            return Ok(match differences.next() {
                None => Ok(Some(version)),
                Some(first) => Err(format!(
                    "current leads to {version}, where {} has {}",
                    first.path.display(),
                    first.what
                )),
            });
        }
    }
    Ok(Err(format!("current leads to {}, which nobody ordered", target.display())))
}

/// Says whether a difference is of what was packed, and not of what a host links beside it.
fn is_packed(difference: &Difference) -> bool {
    LINKED.iter().all(|linked| difference.path != Path::new(linked))
}

/// Says what is wrong right after a fault, before the agent runs again.
pub fn after_fault(scene: &Scene, story: &Story, site: &Site) -> Result<Vec<String>> {
    let allowed = [story.runs_before(), story.last.version()];
    Ok(match current(scene, story, site)? {
        Err(wrong) => vec![format!("I1: {wrong}")],
        Ok(None) if story.runs_before().is_some() && story.last.version().is_some() => {
            vec!["I1: current is gone".to_owned()]
        }
        Ok(None) => Vec::new(),
        Ok(Some(version)) if allowed.contains(&Some(version)) => Vec::new(),
        Ok(Some(version)) => vec![format!("I1: current leads to {version}, which was not to run")],
    })
}

/// Says what is wrong once the agent has run again, undisturbed, to its end. A disk that has failed may have failed the
/// order too; what ran before must then run on.
pub fn at_the_end(scene: &Scene, story: &Story, site: &Site, may_fail: bool) -> Result<Vec<String>> {
    let mut wrong = site.fsck(scene)?;
    let current = match current(scene, story, site)? {
        Ok(current) => current,
        Err(reason) => {
            wrong.push(format!("I1: {reason}"));
            None
        }
    };
    wrong.append(&mut told(story, site)?);
    if current != story.runs_before() && !site.has_history(story.generation()) {
        wrong.push("the history does not tell of the switch".to_owned());
    }
    let last = site.sightings()?.pop();
    let phase = last.as_ref().map_or("none", |last| last.phase.as_str());
    // What was interrupted on the way back is not run again: then nobody knows, and the reason says so.
    let is_unknown =
        last.as_ref().and_then(|last| last.reason.as_deref()).is_some_and(|r| r.contains("way back"));
    if let Some(data) = site.data().filter(|data| !is_unknown && Some(data.as_str()) != current) {
        wrong.push(format!("{current:?} runs on shared data of {data}"));
    }
    let is_allowed = story.ends.iter().any(|(end, version)| *end == phase && *version == current);
    let has_failed = may_fail && phase == "failed" && current == story.runs_before();
    if !is_allowed && !has_failed {
        wrong.push(format!("ended {phase} with {current:?}"));
    }
    if has_failed && last.is_none_or(|last| last.reason.is_none_or(|reason| reason.trim().is_empty())) {
        wrong.push("failed without a reason".to_owned());
    }
    Ok(wrong)
}

/// Says what does not fit in all that was told and done, across every run of the agent.
fn told(story: &Story, site: &Site) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let generation = story.generation();
    let sightings = site.sightings()?;
    let mut accepted = 0;
    for sighting in &sightings {
        if sighting.generation < accepted {
            wrong.push(format!("I4: generation {} was told after {accepted}", sighting.generation));
        }
        accepted = accepted.max(sighting.generation);
    }
    let own: Vec<&str> = sightings
        .iter()
        .filter(|sighting| sighting.generation == generation)
        .map(|sighting| sighting.phase.as_str())
        .collect();
    let terminal: BTreeSet<&str> = own.iter().copied().filter(|phase| story.is_terminal(phase)).collect();
    if terminal.len() != 1 {
        wrong.push(format!("I9: terminal phases {terminal:?}"));
    }
    if let Some(pair) = own.windows(2).find(|pair| rank(pair[1]) < rank(pair[0])) {
        wrong.push(format!("{} was told, and then {}", pair[0], pair[1]));
    }
    // Validating is a question, which is asked again after a restart; every other hook has an effect.
    let mut hooks: Vec<String> =
        site.hooks().into_iter().filter(|hook| !hook.contains(" validate ")).collect();
    hooks.sort();
    if let Some(pair) = hooks.windows(2).find(|pair| pair[0] == pair[1]) {
        wrong.push(format!("a hook ran twice: {}", pair[0]));
    }
    Ok(wrong)
}

/// Orders phases as an order passes through them: what was told is never taken back.
fn rank(phase: &str) -> u32 {
    const ORDER: [&str; 10] = [
        "fetching",
        "staged",
        "candidate",
        "draining",
        "switching",
        "validating",
        "active",
        "reverting",
        "reverted",
        "failed",
    ];
    ORDER.iter().position(|known| *known == phase).unwrap_or(0) as u32
}

/// Says what of a failed order still takes space.
pub fn space_is_free(scene: &Scene, story: &Story, site: &Site) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let staging = site.app().join("staging");
    if staging.exists() && fs::read_dir(&staging)?.next().is_some() {
        wrong.push("the order failed, and its staging directory takes space".to_owned());
    }
    let Some(version) = story.last.version() else { return Ok(wrong) };
    let release = site.app().join("releases").join(scene.package(version).short());
    let was_there = story.before.iter().any(|ask| ask.version() == Some(version));
    if release.exists() && !was_there {
        wrong.push("the order failed, and its release takes space".to_owned());
    }
    Ok(wrong)
}
