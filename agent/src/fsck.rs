//! Checks the invariants of an application on disk: `sluice-agent fsck`. Reads only; works beside a running agent, but
//! what moves meanwhile may be reported.
//!
//! I1 `current` (and `previous`) lead to a release with a valid marker whose every byte is right. I2 the same for every
//! marked release. I4 the accepted generation is readable. Beyond them: nothing is left lying about.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sluice_common::digest::Digest;
use sluice_common::durable;

use crate::examine::examine;
use crate::layout::{AppDir, LinkName};
use crate::observe::{self, Link};
use crate::state::{AppState, Progress};

/// Time after which a leftover that is still there is one.
const SETTLE: Duration = Duration::from_millis(300);

/// Checks the application at `dir` and returns what is wrong, a line each.
pub(crate) fn check(dir: &AppDir) -> io::Result<Vec<String>> {
    let mut findings = Vec::new();
    let state = match AppState::load(&dir.state()) {
        Ok(state) => state,
        Err(error) => {
            findings.push(format!("I4: {error}"));
            None
        }
    };
    for name in [LinkName::Current, LinkName::Previous, LinkName::Candidate] {
        if let Link::Broken(reason) = observe::link(dir, name)? {
            findings.push(format!("I1: {reason}"));
        }
    }
    for release in observe::installed(dir)? {
        check_release(dir, &release.package, &mut findings)?;
    }
    let mut left = leftovers(dir, state.as_ref())?;
    if !left.is_empty() {
        // A running agent makes and removes such names all the time: only what stays is left over.
        std::thread::sleep(SETTLE);
        let still = leftovers(dir, state.as_ref())?;
        left.retain(|finding| still.contains(finding));
    }
    findings.append(&mut left);
    Ok(findings)
}

fn check_release(dir: &AppDir, package: &Digest, findings: &mut Vec<String>) -> io::Result<()> {
    let manifest = match observe::manifest(dir, package) {
        Ok(manifest) => manifest,
        Err(error) => {
            findings.push(format!("I2: release {}: {error}", package.short()));
            return Ok(());
        }
    };
    for finding in examine(&dir.release(package), &manifest, &AtomicBool::new(false))? {
        findings.push(format!(
            "I2: release {}: {} {}",
            package.short(),
            finding.path.display(),
            finding.fault.as_str()
        ));
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
        findings.push(format!("left over: {} ({what})", path.display()));
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
        fs_err::write(dir.manifest(&package), manifest.encode()).unwrap();
        observe::write_marker(&dir, &installed).unwrap();
        durable::replace_symlink(&dir.link(LinkName::Current), &AppDir::link_target(&package)).unwrap();
        assert_eq!(check(&dir).unwrap(), Vec::<String>::new());

        fs_err::write(dir.release(&package).join("file"), "bytez").unwrap();
        fs_err::create_dir_all(dir.staging_root().join("0123456789ab")).unwrap();
        fs_err::write(dir.base().join(".current.sluice-tmp"), "").unwrap();
        let short = package.short();
        assert_eq!(
            check(&dir).unwrap(),
            [
                format!("I2: release {short}: file has other bytes"),
                "left over: .current.sluice-tmp (temporary)".to_owned(),
                "left over: staging/0123456789ab (staging that nobody wants)".to_owned(),
            ]
        );
        fs_err::remove_file(dir.marker(&package)).unwrap();
        let findings = check(&dir).unwrap();
        assert!(findings[0].starts_with("I1: current -> releases/"), "{findings:?}");
        assert!(findings.iter().any(|finding| finding.contains("without a valid marker")), "{findings:?}");
    }
}
