//! What outlives releases: `shared/` of an application, and the symlinks that each release has into it.
//!
//! What stands in `shared/` is made once and never changed or removed by the agent again. The links are no part of the
//! package: [`crate::examine`] takes them from the release's own `sluice.toml`.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;
use rustix::fs::{AtFlags, CWD};
use sluice_common::manifest::{Entry, EntryKind, Manifest};
use sluice_common::path::{RelPath, RelPathBuf};
use sluice_common::spec::{Linked, Runner, Service, Spec, SpecError, ancestors};

use crate::beneath::{Beneath, failed};
use crate::examine::look;
use crate::hook;
use crate::layout::AppDir;
use crate::stage::discard;

/// Mode of a shared directory that says none.
const DIRECTORY_MODE: u32 = 0o755;
/// Mode of a shared file that says none.
const FILE_MODE: u32 = 0o644;

/// What a release on a host has beside the entries of its package: a link, or a directory for one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Beside {
    path: RelPathBuf,
    /// The text of a link; nothing for a directory.
    target: Option<String>,
}

impl Beside {
    /// Returns it as an entry.
    pub(crate) fn entry(&self) -> Entry<'_> {
        let link = |target| EntryKind::Symlink { target };
        Entry { path: &self.path, kind: self.target.as_deref().map_or(EntryKind::Directory, link) }
    }
}

/// Returns what a release has beside the entries of its package, parents first. A tree without a valid `sluice.toml` has
/// nothing.
pub(crate) fn entries(tree: &Path, manifest: &Manifest) -> Vec<Beside> {
    let has_spec = manifest.get(sluice_common::spec::FILE_NAME).is_some();
    let spec = has_spec.then(|| Spec::load(tree).ok()).flatten();
    spec.filter(|spec| spec.check_against(manifest).is_ok())
        .map(|spec| entries_of(&spec, manifest))
        .unwrap_or_default()
}

fn entries_of(spec: &Spec, manifest: &Manifest) -> Vec<Beside> {
    let mut entries: Vec<Beside> = Vec::new();
    for Linked { path, .. } in spec.linked.iter().chain(&spec.linked_files) {
        let missing = ancestors(path).filter(|parent| manifest.get(parent).is_none());
        let parents = missing.filter_map(|parent| RelPath::new(parent).ok());
        entries.extend(parents.map(|path| Beside { path: path.to_owned(), target: None }));
        entries.push(Beside { path: path.clone(), target: Some(target(path)) });
    }
    entries.sort_unstable();
    entries.dedup();
    entries
}

/// Returns the text of a link: from `releases/DIGEST/PATH` to `shared/PATH`, relative, so that the tree may be mounted
/// elsewhere.
fn target(path: &RelPath) -> String {
    let up = path.components().count() + 1;
    format!("{}shared/{path}", "../".repeat(up))
}

/// Makes what the tree of a release links to, where it does not stand yet, and the links. May be repeated.
pub(crate) fn provide(dir: &AppDir, tree: &Path, manifest: &Manifest) -> io::Result<()> {
    if manifest.get(sluice_common::spec::FILE_NAME).is_none() {
        return Ok(());
    }
    let spec = Spec::load(tree).map_err(refused)?;
    spec.check_against(manifest).map_err(refused)?;
    let runs_as = service_user(&spec);
    for linked in &spec.linked {
        make_once(dir, linked, runs_as, |path| fs::create_dir(path), DIRECTORY_MODE)?;
    }
    for linked in &spec.linked_files {
        make_once(dir, linked, runs_as, |path| fs::File::create(path).map(drop), FILE_MODE)?;
    }
    let beneath = Beneath::open(tree)?;
    entries_of(&spec, manifest).iter().try_for_each(|beside| mend(&beneath, tree, beside.entry()))
}

/// Makes an entry right that is a link or a directory; leaves one that is.
pub(crate) fn mend(beneath: &Beneath, tree: &Path, entry: Entry<'_>) -> io::Result<()> {
    if look(beneath, entry)?.is_ok() {
        return Ok(());
    }
    match entry.kind {
        EntryKind::Symlink { target } => {
            discard(&entry.path.below(tree))?;
            beneath.symlink(target, entry.path)
        }
        EntryKind::Directory => {
            if fs::symlink_metadata(entry.path.below(tree)).is_ok_and(|found| !found.is_dir()) {
                discard(&entry.path.below(tree))?;
            }
            beneath.directory(entry.path)
        }
        EntryKind::File(_) => Ok(()),
    }
}

fn service_user(spec: &Spec) -> Option<&str> {
    match &spec.service {
        Some(Service { runner: Runner::Exec(exec), .. }) => exec.user.as_deref(),
        Some(Service { runner: Runner::Systemd { .. }, .. }) | None => None,
    }
}

/// Makes what a release links to, whole or not at all; whatever stands there already is left as it is.
fn make_once(
    dir: &AppDir,
    linked: &Linked,
    runs_as: Option<&str>,
    make: impl Fn(&Path) -> io::Result<()>,
    mode: u32,
) -> io::Result<()> {
    let Linked { path, mode: own_mode, owner } = linked;
    let shared = dir.shared();
    let place = path.below(&shared);
    if fs::symlink_metadata(&place).is_ok() {
        return Ok(());
    }
    make_parents(&shared, path)?;
    let temporary = place.with_file_name(format!(".{}.sluice-tmp", path.file_name()));
    discard(&temporary)?;
    make(&temporary)?;
    fs::set_permissions(&temporary, PermissionsExt::from_mode(own_mode.unwrap_or(mode)))?;
    if let Some(name) = owner.as_deref().or(runs_as) {
        let user = hook::find_user(name)
            .map_err(|reason| invalid(format!("the owner of the linked {path} {reason}")))?;
        rustix::fs::chownat(CWD, &temporary, Some(user.uid), Some(user.gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| failed("give away", &temporary, errno))?;
    }
    fs::rename(&temporary, &place)
}

/// Makes the directories above a shared path, for everybody to pass and for root to change.
fn make_parents(shared: &Path, path: &RelPath) -> io::Result<()> {
    let mut parents: Vec<&str> = ancestors(path).collect();
    parents.push("");
    for parent in parents.into_iter().rev() {
        let parent = shared.join(parent);
        if !parent.is_dir() {
            fs::create_dir(&parent)?;
            fs::set_permissions(&parent, PermissionsExt::from_mode(DIRECTORY_MODE))?;
        }
    }
    Ok(())
}

fn refused(error: SpecError) -> io::Error {
    match error {
        SpecError::Io(error) => error,
        SpecError::TooLarge(_) | SpecError::Parse(_) | SpecError::Field { .. } => invalid(error.to_string()),
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use sluice_common::tree::Tree;

    use super::*;
    use crate::examine::{Fault, examine};
    use crate::stage::testing::package;

    const SPEC: &str = "linked = [\"uploads\", { path = \"var/log/app\", mode = \"0700\" }]\nlinked_files = [\"bin/local.toml\"]";

    /// Makes a release of an application below `root`, as staging would.
    fn release(root: &Path, spec: &str) -> (AppDir, std::path::PathBuf, Manifest) {
        let source = package(&[("sluice.toml", spec.as_bytes()), ("bin/", b"")]);
        let manifest = Tree::scan(source.path()).unwrap().manifest().clone();
        let dir = AppDir::new(root, &"shop".parse().unwrap());
        let tree = dir.release(&manifest.digest());
        fs::create_dir_all(tree.join("bin")).unwrap();
        for place in [tree.clone(), tree.join("bin")] {
            fs::set_permissions(place, PermissionsExt::from_mode(0o755)).unwrap();
        }
        fs::copy(source.path().join("sluice.toml"), tree.join("sluice.toml")).unwrap();
        (dir, tree, manifest)
    }

    fn findings(tree: &Path, manifest: &Manifest) -> Vec<(String, Fault)> {
        let found = examine(tree, manifest, &AtomicBool::new(false)).unwrap();
        found.into_iter().map(|finding| (finding.path.display().to_string(), finding.fault)).collect()
    }

    #[test]
    fn links_are_part_of_a_release_and_lead_to_what_was_made_once() {
        let root = tempfile::tempdir().unwrap();
        let (dir, tree, manifest) = release(root.path(), SPEC);
        let missing = ["bin/local.toml", "uploads", "var", "var/log", "var/log/app"];
        let expected = missing.map(|path| (path.to_owned(), Fault::Missing));
        assert_eq!(findings(&tree, &manifest), expected);
        provide(&dir, &tree, &manifest).unwrap();
        assert_eq!(findings(&tree, &manifest), []);
        fs::write(tree.join("uploads/picture"), "bytes").unwrap();
        fs::write(tree.join("bin/local.toml"), "a = 1").unwrap();
        assert_eq!(fs::read(dir.shared().join("uploads/picture")).unwrap(), b"bytes");
        let mode = |path: &str| fs::metadata(dir.shared().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("uploads"), mode("var/log/app"), mode("bin/local.toml")), (0o755, 0o700, 0o644));

        // Another release finds them as they are, whatever mode it would make them with.
        let (_, other, manifest) = release(root.path(), &SPEC.replace("0700", "0750"));
        provide(&dir, &other, &manifest).unwrap();
        provide(&dir, &other, &manifest).unwrap();
        assert_eq!(fs::read(other.join("uploads/picture")).unwrap(), b"bytes");
        assert_eq!(fs::read(other.join("bin/local.toml")).unwrap(), b"a = 1");
        assert_eq!(mode("var/log/app"), 0o700);
        discard(&tree).unwrap();
        assert_eq!(fs::read(dir.shared().join("uploads/picture")).unwrap(), b"bytes");
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_found_and_mended() {
        let root = tempfile::tempdir().unwrap();
        let (dir, tree, manifest) = release(root.path(), SPEC);
        provide(&dir, &tree, &manifest).unwrap();
        fs::remove_file(tree.join("uploads")).unwrap();
        std::os::unix::fs::symlink("/etc", tree.join("uploads")).unwrap();
        fs::write(tree.join("var/log/extra"), "").unwrap();
        let found = findings(&tree, &manifest);
        assert_eq!(found, [("uploads".into(), Fault::Bytes), ("var/log/extra".into(), Fault::Extra)]);
        provide(&dir, &tree, &manifest).unwrap();
        assert_eq!(findings(&tree, &manifest), [("var/log/extra".into(), Fault::Extra)]);
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        let root = tempfile::tempdir().unwrap();
        for (spec, expected) in [
            ("linked = [\"bin\"]", "bin is in the package too"),
            ("linked = [{ path = \"data\", owner = \"no-such-user\" }]", "the owner of the linked data"),
        ] {
            let (dir, tree, manifest) = release(root.path(), spec);
            let error = provide(&dir, &tree, &manifest).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!dir.shared().join("data").exists(), "made whole or not at all");
        }
    }
}
