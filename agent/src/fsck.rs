//! Checks the invariants of an application on disk: `sluice-agent fsck`. Reads only; works beside a running agent, but
//! what moves meanwhile may be reported.
//!
//! | | what is looked at |
//! |---|---|
//! | I1 | `current` leads to a marked release |
//! | I2 | every byte of every marked release |
//! | I3 | `previous` and `candidate` lead to marked releases |
//! | I4 | the accepted generation is there and readable |
//! | I5 | the accepted release is signed by a key that is pinned now |
//! | I6 | nobody else may write where the agent does |
//! | I7 | the locks are held by one process each, and are still the files that are locked |
//! | I8 | no process and no cgroup is left of a hook that has ended |
//! | I9 | no order is stuck half-way while no agent runs |
//!
//! Beyond the invariants: nothing is left lying about.

mod processes;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Serialize;
use sluice_common::digest::Digest;
use sluice_common::durable;
use sluice_common::name::AppName;

use crate::accept::{Rules, release_objection};
use crate::directories;
use crate::examine::{Fault, examine};
use crate::layout::{AppDir, LinkName};
use crate::observe::{self, Link};
use crate::state::{AppState, Progress, load_signed};

pub(crate) use processes::{agent, check_hooks, check_locks};

/// Time after which a leftover that is still there is one.
const SETTLE: Duration = Duration::from_millis(300);

/// What is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The invariant that does not hold; nothing for what is only left over.
    pub(crate) invariant: Option<&'static str>,
    /// What is wrong.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) remedy: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.invariant {
            Some(invariant) => write!(f, "{invariant}: {}; {}", self.what, self.remedy),
            None => write!(f, "left over: {}; {}", self.what, self.remedy),
        }
    }
}

const LINK_REMEDY: &str =
    "a running agent points it back where it knows to; else roll the application out again";
const BYTES_REMEDY: &str =
    "a running agent has the file anew by itself within a day; restart it to have it look now";
const EXTRA_REMEDY: &str = "remove it; what must outlive releases belongs into linked of sluice.toml";
const MANIFEST_REMEDY: &str = "roll the application out again";
const STATE_REMEDY: &str = "restore state.toml from a backup, or let the next order through as the first";
const KEY_REMEDY: &str =
    "pin the key again in agent.toml, or roll out a release that a pinned key has signed";
const MODE_REMEDY: &str = "run what it says, and look who could have written there";
const STUCK_REMEDY: &str = "start the agent: it goes on, or back";
const LEFT_REMEDY: &str = "a running agent removes it when it starts or takes an order";

/// Checks the directories of the agent.
pub(crate) fn check_directories(data: &Path, root: &Path) -> Option<Finding> {
    let error = directories::check(data, root).err()?;
    Some(Finding { invariant: Some("I6"), what: error.to_string(), remedy: MODE_REMEDY })
}

/// Checks what the rules of the host say of the application at `dir`, and whether it is stuck while no agent runs.
pub(crate) fn check_order(
    app: &AppName,
    dir: &AppDir,
    rules: &Rules,
    is_agent_running: bool,
) -> Option<Finding> {
    let state = AppState::load(&dir.state()).ok().flatten()?;
    let is_half_way = matches!(
        state.progress,
        Progress::Switching { .. } | Progress::Validating { .. } | Progress::Reverting { .. }
    );
    if is_half_way && !is_agent_running {
        let phase = state.progress.phase();
        let what = format!("order {} stands in phase {phase}, and no agent runs", state.generation);
        return Some(Finding { invariant: Some("I9"), what, remedy: STUCK_REMEDY });
    }
    let package = state.wanted.package().filter(|_| state.progress != Progress::Failed)?;
    let what = match load_signed(&dir.order(state.generation)) {
        Ok(signed) => release_objection(app, &signed, &package, rules)?,
        Err(error) => error.to_string(),
    };
    Some(Finding { invariant: Some("I5"), what, remedy: KEY_REMEDY })
}

/// Checks the application at `dir` and returns what is wrong, a line each.
#[cfg(test)]
pub(crate) fn check(dir: &AppDir) -> io::Result<Vec<String>> {
    Ok(check_disk(dir)?.iter().map(ToString::to_string).collect())
}

/// Checks what stands at `dir`.
pub(crate) fn check_disk(dir: &AppDir) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut find = |invariant, what: String, remedy| {
        findings.push(Finding { invariant: Some(invariant), what, remedy });
    };
    let installed = observe::installed(dir)?;
    let state = match AppState::load(&dir.state()) {
        Ok(None) if !installed.is_empty() => {
            find("I4", "releases stand here, but state.toml is gone".into(), STATE_REMEDY);
            None
        }
        Ok(state) => state,
        Err(error) => {
            find("I4", error.to_string(), STATE_REMEDY);
            None
        }
    };
    for (name, invariant) in
        [(LinkName::Current, "I1"), (LinkName::Previous, "I3"), (LinkName::Candidate, "I3")]
    {
        if let Link::Broken(reason) = observe::link(dir, name)? {
            find(invariant, reason, LINK_REMEDY);
        }
    }
    for release in installed {
        check_release(dir, &release.package, &mut findings)?;
    }
    let mut left = leftovers(dir, state.as_ref())?;
    if !left.is_empty() {
        // A running agent makes and removes such names all the time: only what stays is left over.
        std::thread::sleep(SETTLE);
        let still = leftovers(dir, state.as_ref())?;
        left.retain(|finding| still.contains(finding));
    }
    findings.extend(left.into_iter().map(|what| Finding { invariant: None, what, remedy: LEFT_REMEDY }));
    Ok(findings)
}

fn check_release(dir: &AppDir, package: &Digest, findings: &mut Vec<Finding>) -> io::Result<()> {
    let mut find = |what: String, remedy| {
        let what = format!("release {}: {what}", package.short());
        findings.push(Finding { invariant: Some("I2"), what, remedy });
    };
    let manifest = match observe::manifest(dir, package) {
        Ok(manifest) => manifest,
        Err(error) => {
            find(error.to_string(), MANIFEST_REMEDY);
            return Ok(());
        }
    };
    for finding in examine(&dir.release(package), &manifest, &AtomicBool::new(false))? {
        let remedy = if finding.fault == Fault::Extra { EXTRA_REMEDY } else { BYTES_REMEDY };
        find(format!("{} {}", finding.path.display(), finding.fault.as_str()), remedy);
    }
    Ok(())
}

/// Finds what no crash may leave for long: an agent removes it when it starts.
fn leftovers(dir: &AppDir, state: Option<&AppState>) -> io::Result<Vec<String>> {
    let mut findings = Vec::new();
    let wanted = state.and_then(|state| state.wanted.package()).map(|package| package.short());
    let is_fetching = state.is_some_and(|state| state.progress == Progress::Fetching);
    let marked: Vec<String> =
        observe::installed(dir)?.iter().map(|release| release.package.short()).collect();
    let mut left = |path: &Path, what: &str| {
        let path = path.strip_prefix(dir.base()).unwrap_or(path);
        findings.push(format!("{} ({what})", path.display()));
    };
    for path in list(dir.base())? {
        if is_temporary(&path) {
            left(&path, "temporary");
        }
    }
    for path in list(&dir.releases())? {
        let name = name(&path);
        let release = name.split('.').next().unwrap_or_default();
        let is_on_its_way = is_fetching && wanted.as_deref() == Some(release);
        if is_temporary(&path) {
            left(&path, "temporary");
        } else if !is_on_its_way && !marked.iter().any(|marked| marked == release) {
            left(&path, "without a valid marker");
        }
    }
    for path in list(&dir.staging_root())? {
        if !is_fetching || wanted.as_deref() != Some(name(&path).as_str()) {
            left(&path, "staging that nobody wants");
        }
    }
    Ok(findings)
}

fn list(path: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    match fs_err::read_dir(path) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn is_temporary(path: &Path) -> bool {
    durable::is_temporary(&name(path))
}

#[cfg(test)]
mod tests {
    use sluice_common::order::Installed;
    use sluice_common::tree::Tree;

    use super::*;

    #[test]
    fn damage_and_leftovers_are_found() {
        let root = tempfile::tempdir().unwrap();
        let dir = AppDir::new(root.path(), &"shop".parse().unwrap());
        let source = tempfile::tempdir().unwrap();
        fs_err::write(source.path().join("file"), "bytes").unwrap();
        fs_err::set_permissions(
            source.path().join("file"),
            std::os::unix::fs::PermissionsExt::from_mode(0o644),
        )
        .unwrap();
        let manifest = Tree::scan(source.path()).unwrap().manifest().clone();
        let installed = Installed { package: manifest.digest(), version: "1".parse().unwrap() };
        let package = installed.package;
        fs_err::create_dir_all(dir.release(&package)).unwrap();
        fs_err::copy(source.path().join("file"), dir.release(&package).join("file")).unwrap();
        fs_err::write(dir.manifest(&package), manifest.as_bytes()).unwrap();
        observe::write_marker(&dir, &installed).unwrap();
        durable::replace_symlink(&dir.link(LinkName::Current), &AppDir::link_target(&package)).unwrap();
        let mut missing = check(&dir).unwrap();
        assert!(missing.remove(0).starts_with("I4: releases stand here, but state.toml is gone; restore"));
        assert_eq!(missing, Vec::<String>::new());

        fs_err::write(dir.release(&package).join("file"), "bytez").unwrap();
        fs_err::create_dir_all(dir.staging_root().join("0123456789ab")).unwrap();
        fs_err::write(dir.base().join(".current.sluice-tmp"), "").unwrap();
        let short = package.short();
        let all = check(&dir).unwrap();
        for (found, expected) in all.iter().zip([
            "I4: releases stand here".to_owned(),
            format!("I2: release {short}: file has other bytes; a running agent has the file anew"),
            "left over: .current.sluice-tmp (temporary); ".to_owned(),
            "left over: staging/0123456789ab (staging that nobody wants); ".to_owned(),
        ]) {
            assert!(found.starts_with(&expected), "{found}");
        }
        assert_eq!(all.len(), 4);
        fs_err::remove_file(dir.marker(&package)).unwrap();
        let findings = check(&dir).unwrap();
        assert!(
            findings.iter().any(|finding| finding.starts_with("I1: current -> releases/")),
            "{findings:?}"
        );
        assert!(findings.iter().any(|finding| finding.contains("without a valid marker")), "{findings:?}");
    }
}
