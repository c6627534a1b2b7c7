//! Packing: a directory becomes a manifest, reproducibly.
//!
//! The walk follows no link, sorts what it finds and keeps nothing of a file but its bytes and its executable
//! bit, so the same tree gives the same digest on every machine, whatever its clock, owner or directory order.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::caps;
use crate::digest::Digest;
use crate::manifest::{Entry, EntryKind, FileEntry, Manifest, ManifestError};
use crate::parallel;
use crate::path::{PathError, RelPath};
use crate::transfer::ContentSource;

/// A directory and the manifest of what it held when it was scanned; serves its contents by digest.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    manifest: Manifest,
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
        walk(root, &mut String::new(), &mut found)?;
        found.sort();
        let kinds = parallel::each(&found.entries, |entry| match entry.kind {
            Kind::Directory => Ok(EntryKind::Directory),
            Kind::File => hash_file(&found.path(entry).below(root), progress).map(EntryKind::File),
            Kind::Symlink => Ok(EntryKind::Symlink { target: found.target(entry) }),
        })?;
        let entries =
            found.entries.iter().zip(kinds).map(|(entry, kind)| Entry { path: found.path(entry), kind });
        Ok(Self { root: root.to_owned(), manifest: Manifest::new(entries)? })
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
        let number = self.manifest.content_number(content);
        let place = number.and_then(|number| self.manifest.places(number).next()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("{content} is not in {}", self.root.display()))
        })?;
        let mut file = fs::File::open(self.manifest.entry(place).path.below(&self.root))?;
        file.seek(SeekFrom::Start(offset))?;
        // Of the two kinds of files the one that reads into memory as it comes, without clearing it first.
        Ok(Box::new(file.into_parts().0))
    }
}

/// What a walk found: all texts in one, since a million of them would take more room apart than together.
#[derive(Default)]
struct Found {
    text: String,
    entries: Vec<FoundEntry>,
}

/// An entry as it was found; of a file the bytes are not read yet.
struct FoundEntry {
    /// Where its path begins in the text; what a link leads to follows.
    start: usize,
    path_len: u16,
    target_len: u16,
    kind: Kind,
}

/// What an entry is.
#[derive(Clone, Copy)]
enum Kind {
    Directory,
    File,
    Symlink,
}

impl Found {
    fn push(&mut self, path: &RelPath, kind: Kind, target: &str) -> Result<(), ScanError> {
        if self.entries.len() as u64 >= caps::MANIFEST_ENTRIES_MAX {
            return Err(ManifestError::TooManyEntries.into());
        }
        let start = self.text.len();
        self.text.push_str(path.as_str());
        self.text.push_str(target);
        let len =
            |text: &str| u16::try_from(text.len()).expect("paths and links are shorter on every file system");
        self.entries.push(FoundEntry { start, path_len: len(path.as_str()), target_len: len(target), kind });
        Ok(())
    }

    /// Sorts the entries by path.
    fn sort(&mut self) {
        let Self { text, entries } = self;
        entries.sort_unstable_by(|one, other| text[one.path()].cmp(&text[other.path()]));
    }

    fn path(&self, entry: &FoundEntry) -> &RelPath {
        RelPath::checked(&self.text[entry.path()])
    }

    fn target(&self, link: &FoundEntry) -> &str {
        &self.text[link.path().end..][..usize::from(link.target_len)]
    }
}

impl FoundEntry {
    /// Returns where in the text the path stands.
    fn path(&self) -> Range<usize> {
        self.start..self.start + usize::from(self.path_len)
    }
}

fn walk(root: &Path, above: &mut String, all: &mut Found) -> Result<(), ScanError> {
    for found in fs::read_dir(root.join(&above))? {
        let found = found?;
        let name = found.file_name();
        let name =
            name.to_str().ok_or_else(|| PathError::NotUtf8(found.path().to_string_lossy().into_owned()))?;
        let parent_len = above.len();
        if parent_len > 0 {
            above.push('/');
        }
        above.push_str(name);
        let path = RelPath::new(above)?;
        match fs::symlink_metadata(found.path())?.file_type() {
            t if t.is_symlink() => all.push(path, Kind::Symlink, &link_target(&found.path())?)?,
            t if t.is_dir() => {
                all.push(path, Kind::Directory, "")?;
                walk(root, above, all)?;
            }
            t if t.is_file() => all.push(path, Kind::File, "")?,
            t => return Err(ScanError::Kind { path: found.path(), kind: describe(t) }),
        }
        above.truncate(parent_len);
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
