//! Packing: a directory becomes a manifest, reproducibly.
//!
//! The walk follows no link, sorts what it finds and keeps nothing of a file but its bytes and its executable
//! bit, so the same tree gives the same digest on every machine, whatever its clock, owner or directory order.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::caps;
use crate::digest::Digest;
use crate::manifest::{Entry, EntryKind, FileEntry, Manifest, ManifestError, Places};
use crate::parallel;
use crate::path::{PathError, RelPath};
use crate::transfer::ContentSource;

/// A directory and the manifest of what it held when it was scanned; serves its contents by digest.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    manifest: Manifest,
    places: Places,
}

/// Says why a directory cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// Reading failed; the error names the path.
    #[error("cannot read the tree")]
    Io(#[from] io::Error),
    /// A name may not stand in a package.
    #[error("cannot pack this tree")]
    Path(#[from] PathError),
    /// An entry is of a kind that a package does not hold.
    #[error("cannot pack {path}: it is a {kind}; remove it or pack a tree without it")]
    Kind {
        /// The entry.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The tree as a whole breaks a rule.
    #[error("cannot pack this tree")]
    Manifest(#[from] ManifestError),
}

impl Tree {
    /// Walks and hashes `root`.
    pub fn scan(root: &Path) -> Result<Self, ScanError> {
        Self::scan_with(root, &|_| {})
    }

    /// Walks `root` and hashes it on every core; `progress` is told the size of each file as it has been hashed.
    pub fn scan_with(root: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<Self, ScanError> {
        let mut found = Found::default();
        walk(root, &mut Vec::new(), &mut found)?;
        let Found { mut entries, files } = found;
        let hashed = parallel::each(&files, |path| hash_file(&path.below(root), progress))?;
        let file = |(path, file)| Entry { path, kind: EntryKind::File(file) };
        entries.extend(files.into_iter().zip(hashed).map(file));
        entries.sort_by(|a, b| a.path.as_str().cmp(b.path.as_str()));
        Ok(Self::with_manifest(root, Manifest::new(entries)?))
    }

    /// Takes `root` to hold what `manifest` says, without reading it. Readers must verify what they read.
    pub fn with_manifest(root: &Path, manifest: Manifest) -> Self {
        let places = manifest.places();
        Self { root: root.to_owned(), manifest, places }
    }

    /// Returns the manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the directory.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl ContentSource for Tree {
    fn reader(&self, content: &Digest, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let number = self.places.find(&self.manifest, content).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("{content} is not in {}", self.root.display()))
        })?;
        let place = self.places.get(number)[0];
        let mut file = fs::File::open(self.manifest.entries()[place as usize].path.below(&self.root))?;
        file.seek(SeekFrom::Start(offset))?;
        // Of the two kinds of files the one that reads into memory as it comes, without clearing it first.
        Ok(Box::new(file.into_parts().0))
    }
}

/// What a walk found.
#[derive(Default)]
struct Found {
    /// Directories and links.
    entries: Vec<Entry>,
    /// Files, not read yet.
    files: Vec<RelPath>,
}

fn walk(root: &Path, above: &mut Vec<String>, all: &mut Found) -> Result<(), ScanError> {
    let directory = above.iter().fold(root.to_owned(), |path, name| path.join(name));
    for found in fs::read_dir(&directory)? {
        let found = found?;
        let name = found.file_name();
        let name =
            name.to_str().ok_or_else(|| PathError::NotUtf8(found.path().to_string_lossy().into_owned()))?;
        let path: RelPath =
            above.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("/").parse()?;
        if (all.entries.len() + all.files.len()) as u64 >= caps::MANIFEST_ENTRIES_MAX {
            return Err(ManifestError::TooManyEntries.into());
        }
        let metadata = fs::symlink_metadata(found.path())?;
        let kind = match metadata.file_type() {
            t if t.is_symlink() => EntryKind::Symlink { target: link_target(&found.path())? },
            t if t.is_dir() => {
                above.push(name.to_owned());
                walk(root, above, all)?;
                above.pop();
                EntryKind::Directory
            }
            t if t.is_file() => {
                all.files.push(path);
                continue;
            }
            t => return Err(ScanError::Kind { path: found.path(), kind: describe(t) }),
        };
        all.entries.push(Entry { path, kind });
    }
    Ok(())
}

fn link_target(path: &Path) -> Result<String, ScanError> {
    let target = fs::read_link(path)?;
    let text = target.to_str().ok_or_else(|| PathError::NotUtf8(target.to_string_lossy().into_owned()))?;
    Ok(text.to_owned())
}

fn hash_file(path: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<FileEntry, ScanError> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() {
        // It was one when it was found; opening what it is now might wait for ever.
        return Err(ScanError::Kind { path: path.to_owned(), kind: describe(metadata.file_type()) });
    }
    if metadata.mode() & 0o6000 != 0 {
        return Err(ScanError::Kind { path: path.to_owned(), kind: "setuid or setgid file" });
    }
    if metadata.len() > caps::PACKAGE_BYTES_MAX {
        return Err(ManifestError::TooLarge.into());
    }
    let (digest, size) = Digest::of_reader(fs::File::open(path)?)?;
    progress(size);
    Ok(FileEntry { executable: metadata.mode() & 0o111 != 0, size, digest })
}

fn describe(file_type: std::fs::FileType) -> &'static str {
    match file_type {
        t if t.is_fifo() => "FIFO",
        t if t.is_socket() => "socket",
        t if t.is_block_device() => "block device",
        t if t.is_char_device() => "character device",
        t if t.is_symlink() => "symlink by now",
        t if t.is_dir() => "directory by now",
        _ => "file of unknown kind",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn write(root: &Path, path: &str, bytes: &[u8], mode: u32) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_same_tree_packs_to_the_same_digest_whatever_its_order_and_modes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (path, mode) in [("b/x", 0o755), ("a", 0o644), ("b-c", 0o600)] {
            write(one.path(), path, path.as_bytes(), mode);
        }
        for (path, mode) in [("b-c", 0o664), ("a", 0o444), ("b/x", 0o700)] {
            write(two.path(), path, path.as_bytes(), mode);
        }
        let (one, two) = (Tree::scan(one.path()).unwrap(), Tree::scan(two.path()).unwrap());
        assert_eq!(one.manifest().digest(), two.manifest().digest());
        let mut bytes = Vec::new();
        one.reader(&Digest::of(b"b/x"), 1).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"/x");
    }

    #[test]
    fn what_a_package_does_not_hold_is_refused_by_name() {
        type Make = fn(&Path);
        let cases: [(&str, Make); 4] = [
            ("FIFO", |root| {
                let path = root.join("pipe");
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &path,
                    rustix::fs::FileType::Fifo,
                    rustix::fs::Mode::RUSR,
                    0,
                )
                .unwrap();
            }),
            ("socket", |root| drop(std::os::unix::net::UnixListener::bind(root.join("sock")).unwrap())),
            ("setuid", |root| write(root, "su", b"", 0o4755)),
            ("leaves the package", |root| symlink("../out", root.join("link")).unwrap()),
        ];
        for (expected, make) in cases {
            let dir = tempfile::tempdir().unwrap();
            make(dir.path());
            let error = Tree::scan(dir.path()).unwrap_err();
            let text = format!(
                "{error} {}",
                std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
            );
            assert!(text.contains(expected), "{text}");
        }
    }
}
