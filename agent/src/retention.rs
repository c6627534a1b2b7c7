//! What may go: old releases beyond those kept, staging of packages that nobody wants, leftovers of a crash.
//!
//! Invariant: what `current` and `previous` lead to, and what the accepted order wants, never goes. A release loses its
//! marker first, so that a half-removed tree is never taken for a release.

use std::collections::HashSet;
use std::io;

use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::durable;
use sluice_common::order::{Generation, Installed};

use crate::layout::{AppDir, LinkName};
use crate::observe;
use crate::stage::{discard, unmark};

/// Returns the releases that go: all but those protected and the newest of the others, [`caps::RETENTION_RELEASES`] in
/// all. `installed` is sorted newest first. Pure.
pub(crate) fn surplus(installed: &[Installed], protected: &HashSet<Digest>) -> Vec<Digest> {
    let kept = installed.iter().filter(|release| protected.contains(&release.package)).count();
    let room = caps::RETENTION_RELEASES.saturating_sub(kept);
    let others = installed.iter().filter(|release| !protected.contains(&release.package));
    others.skip(room).map(|release| release.package).collect()
}

/// Removes surplus releases, and what stands unmarked. Blocks.
pub(crate) fn collect(dir: &AppDir, wanted: Option<Digest>) -> io::Result<()> {
    let mut protected: HashSet<Digest> = wanted.into_iter().collect();
    let mut protected_names: HashSet<String> = HashSet::new();
    for name in [LinkName::Current, LinkName::Previous] {
        protected.extend(observe::link(dir, name)?.installed().map(|release| release.package));
        // A link to a release that lost its marker still protects it.
        if let Ok(target) = fs_err::read_link(dir.link(name))
            && let Some(name) = target.file_name()
        {
            protected_names.insert(name.to_string_lossy().into_owned());
        }
    }
    let installed = observe::installed(dir)?;
    for package in surplus(&installed, &protected) {
        tracing::info!(release = %package.short(), "old release is removed");
        unmark(dir, &package)?;
        discard(&dir.release(&package))?;
        discard(&dir.manifest(&package))?;
    }
    protected_names.extend(protected.iter().map(Digest::short));
    protected_names.extend(observe::installed(dir)?.iter().map(|release| release.package.short()));
    remove_unmarked(dir, &protected_names)
}

/// Removes trees and manifests without a marker: remains of an interrupted removal or of a crash before the marker.
fn remove_unmarked(dir: &AppDir, protected: &HashSet<String>) -> io::Result<()> {
    let entries = match fs_err::read_dir(dir.releases()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let release = name.split('.').next().unwrap_or_default();
        if !protected.contains(release) {
            discard(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes what a crash or an earlier order left: temporary names, staging of other packages, releases of other orders.
/// Blocks.
pub(crate) fn clean(dir: &AppDir, wanted: Option<Digest>, generation: Generation) -> io::Result<()> {
    let wanted_staging = wanted.map(|package| package.short());
    let order = dir.order(generation);
    for entry in list(dir.base())? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_other_order =
            name.starts_with("order-") && name.ends_with(".release") && entry.path() != order;
        if durable::is_temporary(&name) || is_other_order {
            discard(&entry.path())?;
        }
    }
    for entry in list(&dir.releases())? {
        if durable::is_temporary(&entry.file_name().to_string_lossy()) {
            discard(&entry.path())?;
        }
    }
    for entry in list(&dir.staging_root())? {
        if Some(entry.file_name().to_string_lossy().as_ref()) != wanted_staging.as_deref() {
            discard(&entry.path())?;
        }
    }
    Ok(())
}

fn list(path: &std::path::Path) -> io::Result<Vec<fs_err::DirEntry>> {
    match fs_err::read_dir(path) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(name: &str) -> Installed {
        Installed { package: Digest::of(name.as_bytes()), version: name.parse().unwrap() }
    }

    #[test]
    fn what_is_linked_or_wanted_never_goes() {
        let names = |text: &str| -> Vec<Digest> {
            text.split_whitespace().map(|name| release(name).package).collect()
        };
        for (name, installed, protected, expected) in [
            ("few", "3 2 1", "3 2", ""),
            ("oldest goes", "4 3 2 1", "4 3", "1"),
            ("linked ones are old", "5 4 3 2 1", "1 2", "4 3"),
            ("all protected", "4 3 2 1", "1 2 3 4", ""),
            ("one protected", "5 4 3 2 1", "5", "2 1"),
        ] {
            let installed: Vec<Installed> = installed.split_whitespace().map(release).collect();
            let surplus = surplus(&installed, &names(protected).into_iter().collect());
            assert_eq!(surplus, names(expected), "{name}");
        }
    }

    #[test]
    fn leftovers_go_and_everything_else_stays() {
        let root = tempfile::tempdir().unwrap();
        let dir = AppDir::new(root.path(), &"shop".parse().unwrap());
        let (one, two) = (release("1"), release("2"));
        for release in [&one, &two] {
            fs_err::create_dir_all(dir.release(&release.package)).unwrap();
            fs_err::write(dir.manifest(&release.package), b"").unwrap();
            observe::write_marker(&dir, release).unwrap();
            fs_err::create_dir_all(dir.staging(&release.package)).unwrap();
        }
        for name in [
            ".state.toml.sluice-tmp",
            "releases/.x.sluice-tmp",
            "order-1.release",
            "order-2.release",
            "state.toml",
        ] {
            fs_err::write(dir.base().join(name), b"").unwrap();
        }
        clean(&dir, Some(two.package), Generation(2)).unwrap();
        unmark(&dir, &one.package).unwrap();
        collect(&dir, Some(two.package)).unwrap();
        let names = |path: &std::path::Path| {
            let mut names: Vec<String> =
                list(path).unwrap().iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names(dir.base()), ["order-2.release", "releases", "staging", "state.toml"]);
        assert_eq!(names(&dir.staging_root()), [two.package.short()]);
        let two = two.package.short();
        assert_eq!(
            names(&dir.releases()),
            [two.clone(), format!("{two}.manifest"), format!("{two}.verified")]
        );
    }
}
