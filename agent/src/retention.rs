//! What may go: old releases beyond those kept, staging of packages that nobody wants, leftovers of a crash.
//!
//! Invariant: what `current`, `previous` and `candidate` lead to, and what the accepted order wants, never goes. A release loses its
//! marker first, so that a half-removed tree is never taken for a release.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use sluice_common::digest::Digest;
use sluice_common::durable;
use sluice_common::order::{Generation, Installed};
use sluice_common::spec::{self, Spec};

use crate::layout::{AppDir, LinkName};
use crate::observe;
use crate::seen::Hashed;
use crate::stage::{Floor, Lack, Needs, Space, discard, unmark};
use crate::upkeep::Retention;

/// Returns the release that goes next: the oldest that is not protected, when there are more than `keep` or the disk's
/// floor is touched. `installed` is sorted newest first. Pure.
pub(crate) fn next_to_go(
    installed: &[Installed],
    protected: &HashSet<Digest>,
    keep: u32,
    is_floor_touched: bool,
) -> Option<Digest> {
    if installed.len() <= keep as usize && !is_floor_touched {
        return None;
    }
    let oldest_first = installed.iter().rev().map(|release| release.package);
    oldest_first.into_iter().find(|package| !protected.contains(package))
}

/// Removes surplus releases, and what stands unmarked; what is `needed` stays. Blocks.
///
/// Taking a name of a file away moves the time of change of its other names, which `hashed` is told of. That costs a look at
/// every file, so it is done only where something goes.
pub(crate) fn collect(
    dir: &AppDir,
    needed: &HashSet<Digest>,
    retention: &Retention,
    hashed: &mut Hashed,
) -> io::Result<()> {
    let Some(keep) = keep(dir, retention)? else { return Ok(()) };
    let collection =
        Collection { dir, keep, floor: retention.disk_floor, protected: Protected::find(dir, needed)? };
    if collection.next()?.is_none() && collection.unmarked()?.is_empty() {
        return Ok(());
    }
    hashed.across(dir, || collection.run())
}

/// What may go of one application, and how long it does.
struct Collection<'a> {
    dir: &'a AppDir,
    keep: u32,
    floor: Floor,
    protected: Protected,
}

impl Collection<'_> {
    /// Returns the release that goes next, as the disk stands now.
    fn next(&self) -> io::Result<Option<Digest>> {
        let space = Space::of(&self.dir.releases())?;
        let is_floor_touched = space.lacks(Needs::default(), self.floor).is_some();
        let installed = observe::installed(self.dir)?;
        Ok(next_to_go(&installed, &self.protected.packages, self.keep, is_floor_touched))
    }

    /// Lists trees and manifests without a marker: remains of an interrupted removal or of a crash before the marker.
    fn unmarked(&self) -> io::Result<Vec<PathBuf>> {
        let mut names = self.protected.names.clone();
        names.extend(observe::installed(self.dir)?.iter().map(|release| release.package.short()));
        let is_unmarked = |entry: &fs_err::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            !names.contains(name.split('.').next().unwrap_or_default())
        };
        Ok(list(&self.dir.releases())?
            .iter()
            .filter(|entry| is_unmarked(entry))
            .map(fs_err::DirEntry::path)
            .collect())
    }

    fn run(&self) -> io::Result<()> {
        while let Some(package) = self.next()? {
            remove(self.dir, &package)?;
        }
        self.unmarked()?.iter().try_for_each(|path| discard(path))
    }
}

/// Removes the oldest releases, as far as they may go and as long as the disk lacks space for `needs` above the floor.
/// Returns what is lacking still. Blocks.
pub(crate) fn make_room(
    dir: &AppDir,
    needed: &HashSet<Digest>,
    needs: Needs,
    floor: Floor,
) -> io::Result<Option<Lack>> {
    loop {
        let Some(lack) = Space::of(dir.base())?.lacks(needs, floor) else { return Ok(None) };
        let protected = Protected::find(dir, needed)?;
        match next_to_go(&observe::installed(dir)?, &protected.packages, 0, true) {
            Some(package) => remove(dir, &package)?,
            None => return Ok(Some(lack)),
        }
    }
}

/// Returns how many releases are kept: what the host says, else what the release says that runs; nothing where no release
/// was ever installed.
fn keep(dir: &AppDir, retention: &Retention) -> io::Result<Option<u32>> {
    if fs_err::symlink_metadata(dir.releases()).is_err() {
        return Ok(None);
    }
    if retention.keep.is_some() {
        return Ok(retention.keep);
    }
    let current = observe::link(dir, LinkName::Current)?;
    let says = |release: &Installed| Spec::load(&dir.release(&release.package)).ok();
    let said = current.installed().and_then(says).map(|spec| spec.retention);
    Ok(Some(said.unwrap_or_else(spec::Retention::default).keep))
}

/// What never goes.
struct Protected {
    packages: HashSet<Digest>,
    /// Names of directories: a link to a release that lost its marker still protects it.
    names: HashSet<String>,
}

impl Protected {
    /// Finds what the links lead to, what is `needed`, and what a plan under way leans on.
    fn find(dir: &AppDir, needed: &HashSet<Digest>) -> io::Result<Self> {
        let mut packages = needed.clone();
        packages.extend(needed.iter().filter_map(|package| planned_base(dir, package)));
        let mut names = HashSet::new();
        for name in [LinkName::Current, LinkName::Previous, LinkName::Candidate] {
            packages.extend(observe::link(dir, name)?.installed().map(|release| release.package));
            if let Ok(target) = fs_err::read_link(dir.link(name))
                && let Some(name) = target.file_name()
            {
                names.insert(name.to_string_lossy().into_owned());
            }
        }
        names.extend(packages.iter().map(Digest::short));
        Ok(Self { packages, names })
    }
}

/// Returns the installed release that the plan of a staging leans on.
fn planned_base(dir: &AppDir, package: &Digest) -> Option<Digest> {
    fs_err::read_to_string(dir.staging(package).join("base")).ok()?.parse().ok()
}

fn remove(dir: &AppDir, package: &Digest) -> io::Result<()> {
    tracing::info!(release = %package.short(), "old release is removed");
    unmark(dir, package)?;
    discard(&dir.release(package))?;
    discard(&dir.manifest(package))
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

    fn digests(text: &str) -> Vec<Digest> {
        text.split_whitespace().map(|name| release(name).package).collect()
    }

    #[test]
    fn the_oldest_goes_and_never_what_is_protected() {
        for (name, installed, protected, keep, is_floor_touched, expected) in [
            ("few", "3 2 1", "3 2", 3, false, ""),
            ("oldest goes", "4 3 2 1", "4 3", 3, false, "1"),
            ("two of the oldest go", "5 4 3 2 1", "5 4", 3, false, "1 2"),
            ("linked ones are old", "5 4 3 2 1", "1 2", 3, false, "3 4"),
            ("all protected", "4 3 2 1", "1 2 3 4", 3, false, ""),
            ("one protected", "5 4 3 2 1", "5", 3, false, "1 2"),
            ("more are protected than kept", "4 3 2 1", "4 3 2", 2, false, "1"),
            ("many are kept", "5 4 3 2 1", "5 4", 9, false, ""),
            ("floor touched: all that may", "4 3 2 1", "4 2", 3, true, "1 3"),
            ("floor touched: nothing may", "2 1", "2 1", 3, true, ""),
            ("floor touched: nothing is there", "", "", 3, true, ""),
        ] {
            let mut installed: Vec<Installed> = installed.split_whitespace().map(release).collect();
            let protected = digests(protected).into_iter().collect();
            let mut gone = Vec::new();
            while let Some(package) = next_to_go(&installed, &protected, keep, is_floor_touched) {
                installed.retain(|release| release.package != package);
                gone.push(package);
            }
            assert_eq!(gone, digests(expected), "{name}");
        }
    }

    /// Installs releases, the oldest first.
    fn installed(root: &std::path::Path, names: &str) -> AppDir {
        let dir = AppDir::new(root, &"shop".parse().unwrap());
        for (age, release) in (0_u64..).zip(names.split_whitespace().map(release)) {
            fs_err::create_dir_all(dir.release(&release.package)).unwrap();
            fs_err::write(dir.manifest(&release.package), b"").unwrap();
            observe::write_marker(&dir, &release).unwrap();
            let written = std::time::UNIX_EPOCH + std::time::Duration::from_secs(age);
            let marker = fs_err::File::open(dir.marker(&release.package)).unwrap();
            marker.into_parts().0.set_modified(written).unwrap();
        }
        dir
    }

    fn standing(dir: &AppDir, names: &str) -> String {
        let stands = |name: &&str| dir.marker(&release(name).package).exists();
        names.split_whitespace().filter(stands).collect::<Vec<_>>().join(" ")
    }

    fn point(dir: &AppDir, name: LinkName, to: &str) {
        durable::replace_symlink(&dir.link(name), &AppDir::link_target(&release(to).package)).unwrap();
    }

    #[test]
    fn the_hosts_word_counts_more_than_the_applications() {
        for (keep, spec, expected) in [
            (None, "", "3 4 5"),
            (None, "[retention]\nkeep = 4", "2 3 4 5"),
            (None, "[retention]\nkeep = 1", "3 4 5"),
            (Some(2), "[retention]\nkeep = 4", "4 5"),
        ] {
            let root = tempfile::tempdir().unwrap();
            let dir = installed(root.path(), "1 2 3 4 5");
            point(&dir, LinkName::Current, "5");
            fs_err::write(dir.release(&release("5").package).join("sluice.toml"), spec).unwrap();
            let retention = Retention { keep, disk_floor: Floor::Percent(0) };
            collect(&dir, &HashSet::new(), &retention, &mut Hashed::default()).unwrap();
            assert_eq!(standing(&dir, "1 2 3 4 5"), expected, "{keep:?} {spec:?}");
        }
    }

    #[test]
    fn a_touched_floor_takes_all_that_may_go() {
        let root = tempfile::tempdir().unwrap();
        let dir = installed(root.path(), "1 2 3 4 5 6");
        for (name, to) in [(LinkName::Current, "2"), (LinkName::Previous, "1"), (LinkName::Candidate, "3")] {
            point(&dir, name, to);
        }
        let wanted = release("6").package;
        fs_err::create_dir_all(dir.staging(&wanted)).unwrap();
        fs_err::write(dir.staging(&wanted).join("base"), release("4").package.to_string()).unwrap();
        let floor = Floor::Bytes(u64::MAX);
        let lack = make_room(&dir, &[wanted].into(), Needs::default(), floor).unwrap();
        assert!(matches!(lack, Some(Lack::Bytes(_))));
        assert_eq!(standing(&dir, "1 2 3 4 5 6"), "1 2 3 4 6");
        collect(&dir, &HashSet::new(), &Retention { keep: None, disk_floor: floor }, &mut Hashed::default())
            .unwrap();
        assert_eq!(standing(&dir, "1 2 3 4 5 6"), "1 2 3");
        assert_eq!(make_room(&dir, &HashSet::new(), Needs::default(), Floor::Percent(0)).unwrap(), None);
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
        collect(&dir, &[two.package].into(), &Retention::default(), &mut Hashed::default()).unwrap();
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
