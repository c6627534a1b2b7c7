//! What fsck finds of processes. I7 and I8 hold by locks and by the marks and cgroups of hooks; looked at is whether these are
//! still what they are taken for.
//!
//! Processes of other users are only seen by root, as an agent on a host is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sluice_common::name::AppName;

use super::Finding;
use crate::hook;
use crate::layout::{self, AppDir};

const TWO_REMEDY: &str =
    "end all of them and start the agent anew: somebody has removed the lock under the first one";
const REMOVED_REMEDY: &str = "restart the agent, before another is started beside it";
const HOOK_REMEDY: &str = "a running agent ends them when it starts; else end them";
const CGROUP_REMEDY: &str = "end what is in it, then remove it with rmdir";

/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// How deep the cgroup of an agent may stand: a unit in a slice in a slice, in a container that is in such a unit.
const CGROUP_DEPTH_MAX: usize = 8;

/// A process that holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Holder {
    process: u32,
    /// Whether the file that it holds is no longer the one at the path.
    is_removed: bool,
}

/// Checks that the agent's lock, and those of its applications, are held by one process each (I7).
pub(crate) fn check_locks(data: &Path, apps: &[AppName]) -> Vec<Finding> {
    let data = fs_err::canonicalize(data).unwrap_or_else(|_| data.to_owned());
    let locks: Vec<PathBuf> = std::iter::once(layout::agent_lock(&data))
        .chain(apps.iter().map(|app| layout::app_lock(&data, app)))
        .collect();
    let judge = |held: &BTreeMap<PathBuf, BTreeSet<Holder>>| -> Vec<Finding> {
        locks.iter().filter_map(|path| objection(path, held.get(path)?)).collect()
    };
    let mut held = holders(&locks);
    let found = judge(&held);
    if found.is_empty() {
        return found;
    }
    // What the agent has just started holds its locks until its own program is loaded: judged are those who hold them both times.
    std::thread::sleep(super::SETTLE);
    let still = holders(&locks);
    for (path, holders) in &mut held {
        holders.retain(|holder| still.get(path).is_some_and(|still| still.contains(holder)));
    }
    judge(&held)
}

/// Judges who holds the lock at `path`. Pure.
fn objection(path: &Path, holders: &BTreeSet<Holder>) -> Option<Finding> {
    let processes: BTreeSet<u32> = holders.iter().map(|holder| holder.process).collect();
    let (what, remedy) = match processes.len() {
        0 => return None,
        1 if holders.iter().all(|holder| !holder.is_removed) => return None,
        1 => ("process", REMOVED_REMEDY),
        _ => ("processes", TWO_REMEDY),
    };
    let numbers: Vec<String> = processes.iter().map(u32::to_string).collect();
    let held =
        if remedy == REMOVED_REMEDY { "holds the lock that was removed from" } else { "all hold the lock" };
    let what = format!("{what} {} {held} {}", numbers.join(" and "), path.display());
    Some(Finding { invariant: Some("I7"), what, remedy })
}

/// Finds who holds the locks at these paths, or held one there that was removed.
fn holders(locks: &[PathBuf]) -> BTreeMap<PathBuf, BTreeSet<Holder>> {
    let mut found: BTreeMap<PathBuf, BTreeSet<Holder>> = BTreeMap::new();
    for process in all() {
        let Ok(files) = fs_err::read_dir(format!("/proc/{process}/fd")) else { continue };
        for file in files.flatten() {
            let Ok(target) = fs_err::read_link(file.path()) else { continue };
            let text = target.to_string_lossy();
            let path = text.strip_suffix(" (deleted)").unwrap_or(&text);
            let Some(path) = locks.iter().find(|lock| lock.as_os_str() == path) else { continue };
            let info = format!("/proc/{process}/fdinfo/{}", file.file_name().to_string_lossy());
            // Whoever only looks whether it is held has it open too.
            if fs_err::read_to_string(info).is_ok_and(|info| info.contains("FLOCK") && info.contains("WRITE"))
            {
                let is_removed = text.ends_with(" (deleted)");
                found.entry(path.clone()).or_default().insert(Holder { process, is_removed });
            }
        }
    }
    found
}

/// Checks that nothing is left of hooks of the application at `dir` that have ended (I8). `agent` is the process that runs them.
pub(crate) fn check_hooks(dir: &AppDir, agent: Option<u32>) -> Vec<Finding> {
    let found = of_ended_hooks(dir, agent);
    if found.is_empty() {
        return found;
    }
    // The agent of a hook that has just ended is about to see to it.
    std::thread::sleep(super::SETTLE);
    let still = of_ended_hooks(dir, agent);
    found.into_iter().filter(|finding| still.contains(finding)).collect()
}

fn of_ended_hooks(dir: &AppDir, agent: Option<u32>) -> Vec<Finding> {
    let scope = hook::scope(dir);
    let mut marked: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for process in all() {
        if let Some(id) = hook::mark_of(process).filter(|id| id.starts_with(&scope)) {
            marked.entry(id).or_default().insert(process);
        }
    }
    let runs = |id: &String| {
        let of = marked.get(id).into_iter().flatten();
        agent.is_some() && of.copied().any(|process| parent(process) == agent)
    };
    let mut found = Vec::new();
    for (id, processes) in marked.iter().filter(|(id, _)| !runs(id)) {
        let numbers: Vec<String> = processes.iter().map(u32::to_string).collect();
        let what = format!("the hook {id} has ended, and its processes {} run", numbers.join(", "));
        found.push(Finding { invariant: Some("I8"), what, remedy: HOOK_REMEDY });
    }
    let mut cgroups = Vec::new();
    hook::find_cgroups(Path::new(CGROUPS), &scope, CGROUP_DEPTH_MAX, &mut cgroups);
    for (id, path) in cgroups.into_iter().filter(|(id, _)| !runs(id)) {
        let is_empty =
            fs_err::read_to_string(path.join("cgroup.procs")).is_ok_and(|text| text.trim().is_empty());
        let (invariant, state) =
            if is_empty { (None, "is still there") } else { (Some("I8"), "is not empty") };
        let what = format!("the hook {id} has ended, and its cgroup {} {state}", path.display());
        found.push(Finding { invariant, what, remedy: CGROUP_REMEDY });
    }
    found
}

/// Returns the process that holds the agent's lock.
pub(crate) fn agent(data: &Path) -> Option<u32> {
    let data = fs_err::canonicalize(data).ok()?;
    let lock = layout::agent_lock(&data);
    let held = holders(std::slice::from_ref(&lock)).remove(&lock)?;
    held.iter().find(|holder| !holder.is_removed).map(|holder| holder.process)
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs_err::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn parent(process: u32) -> Option<u32> {
    let status = fs_err::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::lock;

    #[test]
    fn one_holder_of_a_lock_that_is_there_is_right() {
        let holder = |process, is_removed| Holder { process, is_removed };
        for (name, holders, expected) in [
            ("nobody", vec![], None),
            ("one", vec![holder(1, false)], None),
            ("a removed one", vec![holder(1, true)], Some("process 1 holds the lock that was removed")),
            ("two", vec![holder(1, true), holder(2, false)], Some("processes 1 and 2 all hold")),
        ] {
            let found = objection(Path::new("/d/agent.lock"), &holders.into_iter().collect());
            assert_eq!(found.is_some(), expected.is_some(), "{name}");
            if let (Some(found), Some(expected)) = (found, expected) {
                assert!(found.to_string().starts_with(&format!("I7: {expected}")), "{name}: {found}");
            }
        }
    }

    #[test]
    fn a_lock_that_was_removed_under_its_holder_is_found() {
        let data = tempfile::tempdir().unwrap();
        let path = layout::agent_lock(data.path());
        let first = lock::take(&path).unwrap();
        assert_eq!((check_locks(data.path(), &[]), agent(data.path())), (vec![], Some(std::process::id())));
        fs_err::remove_file(&path).unwrap();
        let found = check_locks(data.path(), &[]);
        assert!(found[0].what.contains("was removed"), "{found:?}");
        drop(first);
        assert_eq!(check_locks(data.path(), &[]), []);
    }

    #[test]
    fn what_a_hook_has_left_is_found_and_what_one_runs_is_not() {
        let root = tempfile::tempdir().unwrap();
        let dir = AppDir::new(root.path(), &"shop".parse().unwrap());
        let mark = format!("{}hook.1", hook::scope(&dir));
        let mut child = Command::new("sleep").arg("1000").env(hook::MARK, &mark).spawn().unwrap();
        // Its environment is there once the program is loaded.
        while hook::mark_of(child.id()).as_deref() != Some(&mark) {
            std::thread::yield_now();
        }
        assert_eq!(check_hooks(&dir, Some(std::process::id())), []);
        let found = check_hooks(&dir, None);
        assert_eq!(found.len(), 1);
        let expected = format!("I8: the hook {mark} has ended, and its processes {} run; ", child.id());
        assert!(found[0].to_string().starts_with(&expected), "{}", found[0]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(check_hooks(&dir, None), []);
    }
}
