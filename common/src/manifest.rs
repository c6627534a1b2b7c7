//! The manifest: the canonical list of a package's entries. Its SHA-256 names the package.
//!
//! Invariant: a [`Manifest`] that exists is valid. Entries are sorted by path and unique, every parent is a
//! directory entry, no symlink leaves the tree (also not through other symlinks), and every limit of
//! [`caps`] holds. Builder and agent construct it through the same checks, so they accept and refuse alike.

mod links;
mod places;
mod wire;

pub use places::Places;

use crate::caps;
use crate::codec::DecodeError;
use crate::digest::Digest;
use crate::path::{PathError, RelPath};

/// One entry of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub path: RelPath,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is. Modes are normalised: directories and executables 0755, other files 0644.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File(FileEntry),
    /// A symlink, relative and inside the tree.
    Symlink {
        /// The link's text.
        target: String,
    },
}

/// A regular file: its bytes by name, and whether they may be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEntry {
    /// The executable bit.
    pub executable: bool,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of the bytes.
    pub digest: Digest,
}

impl FileEntry {
    /// Returns the permission bits on disk.
    pub fn mode(&self) -> u32 {
        if self.executable { 0o755 } else { 0o644 }
    }
}

/// The bytes of a file, wherever in the tree and however often they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

/// The canonical list of a package's entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
}

/// Says why entries are no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// A path may not stand in a package.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A path stands twice or out of order.
    #[error("entry {0} is out of order or stands twice")]
    Order(RelPath),
    /// The directory that would hold an entry is not in the manifest as a directory.
    #[error("entry {0} stands in something that is not a directory of the package")]
    Parent(RelPath),
    /// A symlink is absolute or leaves the tree.
    #[error("symlink {path} -> {target:?} leaves the package; make it relative and keep it inside")]
    Escape {
        /// The link.
        path: RelPath,
        /// Its text.
        target: String,
    },
    /// A symlink's text is empty, too long or holds a NUL byte.
    #[error("symlink {path} has a target that is {reason}")]
    Target {
        /// The link.
        path: RelPath,
        /// What is wrong with its text.
        reason: &'static str,
    },
    /// More entries than [`caps::MANIFEST_ENTRIES_MAX`].
    #[error("package has more than {} entries", caps::MANIFEST_ENTRIES_MAX)]
    TooManyEntries,
    /// More bytes than [`caps::PACKAGE_BYTES_MAX`], or a canonical form over [`caps::MANIFEST_BYTES_MAX`].
    #[error("package is larger than {} bytes", caps::PACKAGE_BYTES_MAX)]
    TooLarge,
    /// One digest with two sizes.
    #[error("file {0} repeats a digest with another size")]
    SizeConflict(RelPath),
    /// The bytes are not a canonical manifest.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl Manifest {
    /// Makes a manifest of entries sorted by path; checks every rule.
    pub fn new(entries: Vec<Entry>) -> Result<Self, ManifestError> {
        if entries.len() as u64 > caps::MANIFEST_ENTRIES_MAX {
            return Err(ManifestError::TooManyEntries);
        }
        let manifest = Self { entries };
        manifest.check_order_and_parents()?;
        manifest.check_sizes()?;
        links::check(&manifest)?;
        Ok(manifest)
    }

    /// Decodes canonical bytes; checks every rule.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        Self::new(wire::decode(bytes)?)
    }

    /// Returns the canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(&self.entries)
    }

    /// Returns the package's name: the digest of the canonical bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    /// Returns all entries, sorted by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the entry at `path`.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok().map(|i| &self.entries[i])
    }

    /// Returns the regular files, sorted by path.
    pub fn files(&self) -> impl Iterator<Item = (&RelPath, &FileEntry)> {
        self.entries.iter().filter_map(|entry| match &entry.kind {
            EntryKind::File(file) => Some((&entry.path, file)),
            EntryKind::Directory | EntryKind::Symlink { .. } => None,
        })
    }

    /// Returns each distinct content once, in the order of its first path. Indices into this list are what
    /// transfer plans and package indexes speak of.
    pub fn contents(&self) -> Vec<Content> {
        self.first_files().map(|(_, file)| Content { digest: file.digest, size: file.size }).collect()
    }

    /// Returns for each distinct content the first file that holds it, sorted by path: numbered as
    /// [`Self::contents`] numbers them.
    pub fn first_files(&self) -> impl Iterator<Item = (&RelPath, &FileEntry)> {
        let mut numbers = self.files_by_digest();
        numbers.dedup_by_key(|number| self.digest_at(*number));
        numbers.sort_unstable();
        numbers.into_iter().filter_map(|number| self.file(number))
    }

    /// Returns where each distinct content stands.
    pub fn places(&self) -> Places {
        Places::of(self)
    }

    /// Returns the number of regular files.
    pub fn file_count(&self) -> u64 {
        self.files().count() as u64
    }

    /// Returns the bytes of all regular files, each path counted.
    pub fn tree_bytes(&self) -> u64 {
        self.files().map(|(_, file)| file.size).sum()
    }

    fn check_order_and_parents(&self) -> Result<(), ManifestError> {
        let mut previous: Option<&RelPath> = None;
        // Neighbours mostly stand in the same directory.
        let mut found: Option<&str> = None;
        for entry in &self.entries {
            if previous.is_some_and(|previous| previous.as_str() >= entry.path.as_str()) {
                return Err(ManifestError::Order(entry.path.clone()));
            }
            previous = Some(&entry.path);
            let parent = entry.path.parent();
            if let Some(parent) = parent.filter(|_| parent != found)
                && !matches!(self.get(parent), Some(Entry { kind: EntryKind::Directory, .. }))
            {
                return Err(ManifestError::Parent(entry.path.clone()));
            }
            found = parent;
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), ManifestError> {
        let mut total = 0_u64;
        for (_, file) in self.files() {
            total = total
                .checked_add(file.size)
                .filter(|t| *t <= caps::PACKAGE_BYTES_MAX)
                .ok_or(ManifestError::TooLarge)?;
        }
        for pair in self.files_by_digest().windows(2) {
            if let (Some((_, one)), Some((path, other))) = (self.file(pair[0]), self.file(pair[1]))
                && one.digest == other.digest
                && one.size != other.size
            {
                return Err(ManifestError::SizeConflict(path.clone()));
            }
        }
        Ok(())
    }

    fn file(&self, number: u32) -> Option<(&RelPath, &FileEntry)> {
        let entry = &self.entries[number as usize];
        match &entry.kind {
            EntryKind::File(file) => Some((&entry.path, file)),
            EntryKind::Directory | EntryKind::Symlink { .. } => None,
        }
    }

    fn digest_at(&self, number: u32) -> Option<&Digest> {
        self.file(number).map(|(_, file)| &file.digest)
    }

    /// Returns the numbers of the entries that are files, sorted by digest and then by path.
    fn files_by_digest(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> =
            (0..self.entries.len() as u32).filter(|number| self.file(*number).is_some()).collect();
        numbers.sort_unstable_by_key(|number| (self.digest_at(*number), *number));
        numbers
    }
}

#[cfg(test)]
mod tests;
