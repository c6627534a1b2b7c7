//! Compares a tree on disk with a manifest, byte by byte. Used on staging trees (what is still missing?), before a
//! switch, and by `fsck`. Trusts nothing but what this process has hashed.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime};

use rustix::fs::FileType;
use sluice_common::digest::Digest;
use sluice_common::manifest::{Entry, EntryKind, Manifest};
use sluice_common::path::RelPath;

use crate::beneath::{Beneath, Standing};
use crate::drift::Depth;
use crate::drift::pace::{Pace, Paced};
use crate::linked::{self, Beside};
use crate::seen::{self, Seen, Stamp};
use crate::workers;

/// What is wrong with one path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The path, relative to the tree.
    pub(crate) path: PathBuf,
    /// What is wrong with it.
    pub(crate) fault: Fault,
}

impl Finding {
    fn missing(entry: Entry<'_>) -> Self {
        Self { path: entry.path.as_path().to_owned(), fault: Fault::Missing }
    }
}

/// What can be wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing stands there.
    Missing,
    /// Something of another kind stands there.
    Kind,
    /// The permission bits differ.
    Mode,
    /// The bytes, or a link's text, differ.
    Bytes,
    /// The package has no such entry.
    Extra,
}

impl Fault {
    /// Returns the fault in words.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "is missing",
            Self::Kind => "is of another kind",
            Self::Mode => "has another mode",
            Self::Bytes => "has other bytes",
            Self::Extra => "is not in the package",
        }
    }
}

/// Compares the tree at `root` with `manifest`, every byte of it, and returns every difference. Ends early, with the
/// error kind `Interrupted`, once `stop` is set.
pub(crate) fn examine(root: &Path, manifest: &Manifest, stop: &AtomicBool) -> io::Result<Vec<Finding>> {
    compare(root, manifest, workers::FOR_BYTES, stop, |beneath, _, entry| fault(beneath, entry))
}

/// Says whether nothing stands in a tree.
pub(crate) fn is_bare(root: &Path) -> io::Result<bool> {
    Ok(fs_err::read_dir(root)?.next().is_none())
}

/// Compares as [`examine`] does, but takes the bytes of a file of the right size to be right: for a tree whose every
/// file the caller has hashed as it was put there. Returns every difference, and which file stands at each entry by number.
pub(crate) fn examine_shape(
    root: &Path,
    manifest: &Manifest,
    stop: &AtomicBool,
) -> io::Result<(Vec<Finding>, Vec<Option<Stamp>>)> {
    let stamps = Mutex::new(seen::room_for_stamps(manifest.len()));
    let findings = compare(root, manifest, workers::FOR_NAMES, stop, |beneath, number, entry| {
        Ok(match look(beneath, entry)? {
            Ok(found) => {
                seen::put_down(&mut stamps.lock().expect(workers::UNPOISONED), number, Some(found.stamp));
                None
            }
            Err(fault) => Some(fault),
        })
    })?;
    Ok((findings, stamps.into_inner().expect(workers::UNPOISONED)))
}

/// Compares as [`examine`] does, but does not read again what `seen` covers.
pub(crate) fn examine_unseen(
    root: &Path,
    manifest: &Manifest,
    seen: &Seen,
    stop: &AtomicBool,
) -> io::Result<Vec<Finding>> {
    compare(root, manifest, workers::FOR_BYTES, stop, |beneath, number, entry| match look(beneath, entry)? {
        Ok(found) if seen.covers(number, found.stamp) => Ok(None),
        Ok(_) => fault_of_bytes(beneath, entry),
        Err(fault) => Ok(Some(fault)),
    })
}

/// Compares a tree with `manifest` at a pace: its shape, and the bytes of the files that `depth` asks for. Returns every
/// difference, and what is known to have been hashed now. Without `seen`, a look takes bytes of the right size to be right.
pub(crate) fn survey(
    root: &Path,
    manifest: &Manifest,
    depth: Depth,
    seen: Option<&Seen>,
    pace: &mut Pace<'_>,
) -> io::Result<(Vec<Finding>, Seen)> {
    let (beneath, began, moment) = (Beneath::open(root)?, Instant::now(), SystemTime::now());
    let mut findings = Vec::new();
    let mut stamps = seen::room_for_stamps(manifest.len());
    for (number, entry) in manifest.entries().enumerate() {
        pace.check()?;
        let found = match (look(&beneath, entry)?, entry.kind) {
            (Ok(found), EntryKind::File(file)) => {
                let is_covered = seen.is_some_and(|seen| seen.covers(number, found.stamp));
                match (depth, seen) {
                    (Depth::Look, Some(_)) if is_covered => Ok(Some(found.stamp)),
                    (Depth::Look, None) => Ok(None),
                    (Depth::Look | Depth::Hash, _) => hashed_stamp(&beneath, entry.path, &file.digest, pace)?,
                }
            }
            (Ok(_), EntryKind::Directory | EntryKind::Symlink { .. }) => Ok(None),
            (Err(fault), _) => Err(fault),
        };
        match found {
            Ok(stamp) => seen::put_down(&mut stamps, number, stamp),
            Err(fault) => findings.push(Finding { path: entry.path.as_path().to_owned(), fault }),
        }
    }
    strangers(root, &beneath, manifest, &mut findings)?;
    let hashed_since = match (depth, seen) {
        (Depth::Look, Some(seen)) => seen.hashed_since(),
        (Depth::Look, None) | (Depth::Hash, _) => began,
    };
    Ok((findings, Seen::as_of(manifest.digest(), stamps, moment, hashed_since)))
}

/// Hashes a file at a pace; returns its stamp from before where its bytes are right.
fn hashed_stamp(
    beneath: &Beneath,
    path: &RelPath,
    digest: &Digest,
    pace: &mut Pace<'_>,
) -> io::Result<Result<Option<Stamp>, Fault>> {
    let file = beneath.read(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let hashed = Digest::of_reader(Paced { reader: file, pace });
    pace.check()?;
    match hashed {
        Ok((found, _)) if found == *digest => Ok(Ok(Some(stamp))),
        Ok(_) => Ok(Err(Fault::Bytes)),
        Err(error) if is_unreadable(&error) => Ok(Err(Fault::Bytes)),
        Err(error) => Err(error),
    }
}

fn compare(
    root: &Path,
    manifest: &Manifest,
    threads: usize,
    stop: &AtomicBool,
    fault: impl Fn(&Beneath, usize, Entry<'_>) -> io::Result<Option<Fault>> + Sync,
) -> io::Result<Vec<Finding>> {
    let beneath = Beneath::open(root)?;
    if is_bare(root)? {
        return Ok(manifest.entries().map(Finding::missing).collect());
    }
    let findings = Mutex::new(Vec::new());
    workers::each(manifest.len(), threads, stop, |number| {
        let entry = manifest.entry(number);
        if let Some(fault) = fault(&beneath, number, entry)? {
            let finding = Finding { path: entry.path.as_path().to_owned(), fault };
            findings.lock().expect(workers::UNPOISONED).push(finding);
        }
        Ok(())
    })?;
    let mut findings = findings.into_inner().expect(workers::UNPOISONED);
    strangers(root, &beneath, manifest, &mut findings)?;
    Ok(findings)
}

/// Adds what is wrong beside the entries of the package: links to what outlives releases, and what nobody knows. Sorts all
/// findings.
fn strangers(
    root: &Path,
    beneath: &Beneath,
    manifest: &Manifest,
    findings: &mut Vec<Finding>,
) -> io::Result<()> {
    let linked = linked::entries(root, manifest);
    for entry in linked.iter().map(Beside::entry) {
        if let Err(fault) = look(beneath, entry)? {
            findings.push(Finding { path: entry.path.as_path().to_owned(), fault });
        }
    }
    let entries = || manifest.entries().chain(linked.iter().map(Beside::entry));
    // Where everything stands that is to stand, nothing else does if directories hold as many names as they should.
    if !findings.is_empty() || !holds_as_many(beneath, entries())? {
        let known: HashSet<&str> = entries().map(|entry| entry.path.as_str()).collect();
        extras(root, Path::new(""), &known, findings)?;
    }
    findings.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(())
}

/// Says whether the root and every directory of `entries`, all of which stand, hold as many names as there are entries in
/// them.
fn holds_as_many<'a>(beneath: &Beneath, entries: impl Iterator<Item = Entry<'a>>) -> io::Result<bool> {
    let mut expected: HashMap<&str, usize> = HashMap::from([("", 0)]);
    let mut directories: Vec<Option<&RelPath>> = vec![None];
    for entry in entries {
        *expected.entry(entry.path.parent().unwrap_or("")).or_default() += 1;
        if entry.kind == EntryKind::Directory {
            directories.push(Some(entry.path));
        }
    }
    for directory in directories {
        let expected = expected.get(directory.map_or("", RelPath::as_str)).copied().unwrap_or(0);
        if beneath.count(directory)? != expected {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Compares one entry with what stands at its path.
pub(crate) fn fault(beneath: &Beneath, entry: Entry<'_>) -> io::Result<Option<Fault>> {
    match look(beneath, entry)? {
        Ok(_) => fault_of_bytes(beneath, entry),
        Err(fault) => Ok(Some(fault)),
    }
}

/// Compares the bytes of a file; links and directories have none.
fn fault_of_bytes(beneath: &Beneath, entry: Entry<'_>) -> io::Result<Option<Fault>> {
    Ok(match entry.kind {
        EntryKind::File(file) if !has_digest(beneath, entry.path, &file.digest)? => Some(Fault::Bytes),
        EntryKind::File(_) | EntryKind::Directory | EntryKind::Symlink { .. } => None,
    })
}

/// Compares one entry with what stands at its path, but for a file's bytes; returns what was found where that is right.
pub(crate) fn look(beneath: &Beneath, entry: Entry<'_>) -> io::Result<Result<Standing, Fault>> {
    let Some(found) = beneath.stat(entry.path)? else { return Ok(Err(Fault::Missing)) };
    let fault = match (entry.kind, found.kind) {
        (EntryKind::Directory, FileType::Directory) => (found.mode != 0o755).then_some(Fault::Mode),
        (EntryKind::Symlink { target }, FileType::Symlink) => {
            (beneath.read_link(entry.path)? != target.as_bytes()).then_some(Fault::Bytes)
        }
        (EntryKind::File(file), FileType::RegularFile) if found.mode != file.mode() => Some(Fault::Mode),
        (EntryKind::File(file), FileType::RegularFile) => (found.size != file.size).then_some(Fault::Bytes),
        (EntryKind::Directory | EntryKind::Symlink { .. } | EntryKind::File(_), _) => Some(Fault::Kind),
    };
    Ok(fault.map_or(Ok(found), Err))
}

fn has_digest(beneath: &Beneath, path: &RelPath, digest: &Digest) -> io::Result<bool> {
    match Digest::of_reader(beneath.read(path)?) {
        Ok((found, _)) => Ok(found == *digest),
        // A file the disk cannot read back is as good as one with other bytes: it is fetched anew.
        Err(error) if is_unreadable(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Finds entries that the manifest does not know; does not follow links.
fn extras(root: &Path, below: &Path, known: &HashSet<&str>, findings: &mut Vec<Finding>) -> io::Result<()> {
    for entry in fs_err::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if !path.to_str().is_some_and(|text| known.contains(text)) {
            findings.push(Finding { path, fault: Fault::Extra });
        } else if entry.file_type()?.is_dir() {
            extras(root, &path, known, findings)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use sluice_common::tree::Tree;

    use super::*;

    fn tree() -> (tempfile::TempDir, Manifest) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for directory in ["d", "d/e", "empty"] {
            fs_err::create_dir(root.join(directory)).unwrap();
            fs_err::set_permissions(root.join(directory), PermissionsExt::from_mode(0o755)).unwrap();
        }
        for file in ["a", "d/b", "d/e/c"] {
            fs_err::write(root.join(file), file).unwrap();
            fs_err::set_permissions(root.join(file), PermissionsExt::from_mode(0o644)).unwrap();
        }
        symlink("a", root.join("link")).unwrap();
        let manifest = Tree::scan(root).unwrap().manifest().clone();
        (dir, manifest)
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        type Damage = fn(&Path);
        let cases: [(&str, Damage, &str, Fault); 11] = [
            ("flipped byte", |r| fs_err::write(r.join("d/b"), "d/c").unwrap(), "d/b", Fault::Bytes),
            ("longer", |r| fs_err::write(r.join("a"), "aa").unwrap(), "a", Fault::Bytes),
            ("lost", |r| fs_err::remove_file(r.join("d/e/c")).unwrap(), "d/e/c", Fault::Missing),
            ("extra", |r| fs_err::write(r.join("d/x"), "").unwrap(), "d/x", Fault::Extra),
            ("extra link", |r| symlink("/etc", r.join("d/l")).unwrap(), "d/l", Fault::Extra),
            (
                "mode",
                |r| fs_err::set_permissions(r.join("a"), PermissionsExt::from_mode(0o755)).unwrap(),
                "a",
                Fault::Mode,
            ),
            (
                "setuid",
                |r| fs_err::set_permissions(r.join("a"), PermissionsExt::from_mode(0o4644)).unwrap(),
                "a",
                Fault::Mode,
            ),
            (
                "mode of a directory",
                |r| fs_err::set_permissions(r.join("empty"), PermissionsExt::from_mode(0o777)).unwrap(),
                "empty",
                Fault::Mode,
            ),
            (
                "link in a file's place",
                |r| {
                    fs_err::remove_file(r.join("a")).unwrap();
                    symlink("d/b", r.join("a")).unwrap();
                },
                "a",
                Fault::Kind,
            ),
            (
                "other link",
                |r| {
                    fs_err::remove_file(r.join("link")).unwrap();
                    symlink("d", r.join("link")).unwrap();
                },
                "link",
                Fault::Bytes,
            ),
            ("lost directory", |r| fs_err::remove_dir(r.join("empty")).unwrap(), "empty", Fault::Missing),
        ];
        for (name, damage, path, fault) in cases {
            let (dir, manifest) = tree();
            assert_eq!(examine(dir.path(), &manifest, &AtomicBool::new(false)).unwrap(), []);
            damage(dir.path());
            let found = examine(dir.path(), &manifest, &AtomicBool::new(false)).unwrap();
            assert_eq!(found, [Finding { path: path.into(), fault }], "{name}");
            // Only bytes that leave the size as it was escape the shape.
            let shape = examine_shape(dir.path(), &manifest, &AtomicBool::new(false)).unwrap();
            assert_eq!(shape.0.is_empty(), name == "flipped byte", "{name}");
        }
    }

    #[test]
    fn only_what_was_not_seen_is_read() {
        let (dir, manifest) = tree();
        fs_err::write(dir.path().join("a"), "b").unwrap();
        fs_err::write(dir.path().join("d/b"), "d/c").unwrap();
        let beneath = Beneath::open(dir.path()).unwrap();
        let stamps = manifest.entries().map(|entry| {
            let found = beneath.stat(entry.path).unwrap().unwrap();
            (entry.path.as_str() == "a").then_some(found.stamp)
        });
        let seen = Seen::marked_at_the_end_of_time(manifest.digest(), stamps.collect());
        let found = examine_unseen(dir.path(), &manifest, &seen, &AtomicBool::new(false)).unwrap();
        assert_eq!(found, [Finding { path: "d/b".into(), fault: Fault::Bytes }]);
        fs_err::write(dir.path().join("a"), "long").unwrap();
        let found = examine_unseen(dir.path(), &manifest, &seen, &AtomicBool::new(false)).unwrap();
        assert_eq!(found.len(), 2, "the shape is looked at all the same");
    }
}
