//! What releases say of themselves, read and checked against their signed manifests.
//!
//! Every step of a switch asks anew, because the tree may have been tampered with since the last. It is read and hashed again
//! only where the times of a file say that it may have been written to ([`crate::seen`]): the manifest of a large release alone
//! would else be decoded at every step, while its application stands still.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::manifest::{Entry, EntryKind, Manifest};
use sluice_common::path::{RelPath, RelPathBuf};
use sluice_common::spec::{self, Runner, Spec};

use crate::beneath::Beneath;
use crate::layout::AppDir;
use crate::observe;
use crate::seen::{Seen, Stamp};

/// Releases of which it is remembered what they say: the live one, the wanted one, the one before.
const KNOWN_MAX: usize = 3;

/// What the releases of one application were found to say, the one asked for last at the end.
#[derive(Debug, Default)]
pub(super) struct Specs {
    known: Mutex<Vec<Known>>,
}

/// What a release says, and the files that were read for it.
#[derive(Debug)]
struct Known {
    spec: Spec,
    /// Of the manifest, then of `files`.
    seen: Seen,
    /// `sluice.toml` and the programs that it names, as far as they are files of the package.
    files: Vec<RelPathBuf>,
}

impl Specs {
    /// Returns what a release says, as [`load`] does.
    pub(super) fn load(&self, dir: &AppDir, package: &Digest) -> io::Result<Spec> {
        // Nothing is left half done in the list by a panic.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let at = known.iter().position(|known| known.seen.package() == package);
        let found = match at.map(|at| known.remove(at)) {
            Some(found) if found.is_as_it_was(dir)? => found,
            Some(_) | None => Known::read(dir, package)?,
        };
        let spec = found.spec.clone();
        if known.len() == KNOWN_MAX {
            known.remove(0);
        }
        known.push(found);
        Ok(spec)
    }
}

/// Reads a release's `sluice.toml` and checks it, and the programs that it names, against the signed manifest.
pub(super) fn load(dir: &AppDir, package: &Digest) -> io::Result<Spec> {
    Ok(Known::read(dir, package)?.spec)
}

impl Known {
    fn read(dir: &AppDir, package: &Digest) -> io::Result<Self> {
        let (moment, since) = (SystemTime::now(), Instant::now());
        // Before the bytes: a change in between is found the next time.
        let mut stamps = vec![manifest_stamp(dir, package)?];
        // All that is wanted is a few entries of it.
        let manifest = observe::manifest_bytes(dir, package)?;
        let tree = Beneath::open(&dir.release(package))?;
        let (mut spec, mut files) = (Spec::default(), Vec::new());
        if let Some(Entry { path, kind }) = find(&manifest, spec::FILE_NAME)? {
            stamps.push(stamp(&tree, path)?);
            files.push(path.to_owned());
            spec = read_spec(&tree, path, kind, package)?;
        }
        for program in programs(&spec) {
            if let Some((path, digest)) = packaged(&manifest, program)? {
                stamps.push(stamp(&tree, path)?);
                files.push(path.to_owned());
                if Digest::of_reader(tree.read(path)?)?.0 != digest {
                    return Err(invalid(format!("{path} is damaged")));
                }
            }
        }
        Ok(Self { spec, seen: Seen::as_of(*package, stamps, moment, since), files })
    }

    /// Says whether nothing can have been written to what was read.
    fn is_as_it_was(&self, dir: &AppDir) -> io::Result<bool> {
        if self.seen.hashed_since().elapsed() >= caps::SEEN_TTL {
            return Ok(false);
        }
        let package = self.seen.package();
        let tree = Beneath::open(&dir.release(package))?;
        let mut found = vec![manifest_stamp(dir, package)?];
        for path in &self.files {
            found.push(stamp(&tree, path)?);
        }
        let is_covered = |(number, found): (usize, Option<Stamp>)| {
            found.is_some_and(|found| self.seen.covers(number, found))
        };
        Ok(found.into_iter().enumerate().all(is_covered))
    }
}

fn manifest_stamp(dir: &AppDir, package: &Digest) -> io::Result<Option<Stamp>> {
    Ok(Some(Stamp::of(&fs_err::symlink_metadata(dir.manifest(package))?)))
}

fn stamp(tree: &Beneath, path: &RelPath) -> io::Result<Option<Stamp>> {
    Ok(tree.stat(path)?.map(|standing| standing.stamp))
}

fn read_spec(tree: &Beneath, path: &RelPath, kind: EntryKind<'_>, package: &Digest) -> io::Result<Spec> {
    let EntryKind::File(file) = kind else {
        return Err(invalid(format!("{path} is not a regular file")));
    };
    if file.size > caps::SPEC_BYTES_MAX {
        return Err(invalid(spec::SpecError::TooLarge(file.size).to_string()));
    }
    let mut text = String::new();
    tree.read(path)?.take(caps::SPEC_BYTES_MAX + 1).read_to_string(&mut text)?;
    if Digest::of(text.as_bytes()) != file.digest {
        return Err(invalid(format!("{path} of release {} is damaged", package.short())));
    }
    Spec::parse(&text).map_err(|error| invalid(error.to_string()))
}

/// Returns the programs that a release names.
fn programs(spec: &Spec) -> impl Iterator<Item = &str> {
    let supervised = spec.service.as_ref().and_then(|service| match &service.runner {
        Runner::Exec(exec) => exec.command.first(),
        Runner::Systemd { .. } => None,
    });
    let hooks = spec.hooks.each().filter_map(|(_, hook)| hook.command.first());
    hooks.chain(supervised).map(String::as_str)
}

/// Finds a program among the files of the release. A link, or a path through one, stays inside the package, whose files were
/// verified; where there is nothing, the hook fails by itself.
fn packaged<'a>(manifest: &'a [u8], program: &str) -> io::Result<Option<(&'a RelPath, Digest)>> {
    if program.starts_with('/') || !program.contains('/') {
        return Ok(None);
    }
    let found = find(manifest, program.strip_prefix("./").unwrap_or(program))?;
    Ok(found.and_then(Entry::file).map(|(path, file)| (path, file.digest)))
}

fn find<'a>(manifest: &'a [u8], path: &str) -> io::Result<Option<Entry<'a>>> {
    Manifest::find(manifest, path).map_err(|error| invalid(error.to_string()))
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fs_err as fs;
    use sluice_common::tree::Tree;

    use super::*;
    use crate::stage::testing::package;

    const SPEC: &[u8] = b"[hooks.start]\ncommand = [\"./bin/start\", \"-x\"]\n";

    fn release(root: &std::path::Path) -> (AppDir, Digest) {
        let source = package(&[("sluice.toml", SPEC), ("bin/", b""), ("bin/start", b"start")]);
        let manifest = Tree::scan(source.path()).unwrap().manifest().clone();
        let (dir, package) = (AppDir::new(root, &"shop".parse().unwrap()), manifest.digest());
        fs::create_dir_all(dir.release(&package).join("bin")).unwrap();
        for file in ["sluice.toml", "bin/start"] {
            fs::copy(source.path().join(file), dir.release(&package).join(file)).unwrap();
        }
        fs::write(dir.manifest(&package), manifest.as_bytes()).unwrap();
        (dir, package)
    }

    #[test]
    fn what_is_remembered_is_what_stands() {
        let root = tempfile::tempdir().unwrap();
        let (dir, package) = release(root.path());
        let specs = Specs::default();
        let expected = Spec::parse(std::str::from_utf8(SPEC).unwrap()).unwrap();
        assert_eq!(specs.load(&dir, &package).unwrap(), expected);
        // What was just written may be written to again within the same tick.
        let deadline = Instant::now() + Duration::from_secs(60);
        while !specs.known.lock().unwrap()[0].is_as_it_was(&dir).unwrap() {
            assert_eq!(specs.load(&dir, &package).unwrap(), expected);
            assert!(Instant::now() < deadline, "it is never taken as read");
        }
        for file in ["bin/start", "sluice.toml"] {
            let path = dir.release(&package).join(file);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, bytes.iter().rev().copied().collect::<Vec<u8>>()).unwrap();
            let error = specs.load(&dir, &package).unwrap_err().to_string();
            assert!(error.contains(file) && error.contains("damaged"), "{error}");
            fs::write(&path, bytes).unwrap();
            assert_eq!(specs.load(&dir, &package).unwrap(), expected);
        }
        let manifest = fs::read(dir.manifest(&package)).unwrap();
        fs::write(dir.manifest(&package), &manifest[1..]).unwrap();
        assert!(specs.load(&dir, &package).is_err());
    }
}
