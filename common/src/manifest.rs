//! The manifest: the canonical list of a package's entries. Its SHA-256 names the package.
//!
//! Invariant: a [`Manifest`] that exists is valid. Entries are sorted by path and unique, every parent is a
//! directory entry, no symlink leaves the tree (also not through other symlinks), and every limit of
//! [`caps`] holds. Builder and agent construct it through the same checks, so they accept and refuse alike.
//!
//! In memory it is its canonical bytes and three numbers an entry: with a million entries every byte of one counts. So entries
//! are read where they lie, and given out as views.

mod contents;
mod links;
mod part;
mod wire;

pub use contents::{Contents, Copies};

use crate::caps;
use crate::codec::DecodeError;
use crate::digest::Digest;
use crate::path::{PathError, RelPath, RelPathBuf};
use contents::Numbering;

/// One entry of a package, as it stands in its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Where it stands.
    pub path: &'a RelPath,
    /// What it is.
    pub kind: EntryKind<'a>,
}

/// What an entry is. Modes are normalised: directories and executables 0755, other files 0644.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind<'a> {
    /// A directory.
    Directory,
    /// A regular file.
    File(FileEntry),
    /// A symlink, relative and inside the tree.
    Symlink {
        /// The link's text.
        target: &'a str,
    },
}

impl<'a> Entry<'a> {
    /// Returns a regular file with its path; nothing for what is none.
    pub fn file(self) -> Option<(&'a RelPath, FileEntry)> {
        match self.kind {
            EntryKind::File(file) => Some((self.path, file)),
            EntryKind::Directory | EntryKind::Symlink { .. } => None,
        }
    }
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
#[derive(Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The canonical bytes.
    bytes: Vec<u8>,
    /// Where each entry begins in them.
    starts: Vec<u32>,
    numbering: Numbering,
}

/// Says why entries are no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// A path may not stand in a package.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A path stands twice or out of order.
    #[error("entry {0} is out of order or stands twice")]
    Order(RelPathBuf),
    /// The directory that would hold an entry is not in the manifest as a directory.
    #[error("entry {0} stands in something that is not a directory of the package")]
    Parent(RelPathBuf),
    /// A symlink is absolute or leaves the tree.
    #[error("symlink {path} -> {target:?} leaves the package; make it relative and keep it inside")]
    Escape {
        /// The link.
        path: RelPathBuf,
        /// Its text.
        target: String,
    },
    /// A symlink's text is empty, too long or holds a NUL byte.
    #[error("symlink {path} has a target that is {reason}")]
    Target {
        /// The link.
        path: RelPathBuf,
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
    SizeConflict(RelPathBuf),
    /// The bytes are not a canonical manifest.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl Manifest {
    /// Makes a manifest of entries sorted by path; checks every rule.
    pub fn new<'a>(entries: impl IntoIterator<Item = Entry<'a>>) -> Result<Self, ManifestError> {
        let mut writer = wire::Writer::default();
        for entry in entries {
            if writer.len() as u64 == caps::MANIFEST_ENTRIES_MAX {
                return Err(ManifestError::TooManyEntries);
            }
            writer.push(entry);
        }
        Self::decode(writer.finish())
    }

    /// Takes canonical bytes; checks every rule.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, ManifestError> {
        let mut entries = wire::Entries::new(&bytes)?;
        let mut starts = Vec::with_capacity(entries.len());
        let (mut tree_bytes, mut has_links) = (0_u64, false);
        while let Some((start, entry)) = entries.next()? {
            starts.push(start);
            let size = entry.file().map_or(0, |(_, file)| file.size);
            tree_bytes = tree_bytes.saturating_add(size);
            has_links |= matches!(entry.kind, EntryKind::Symlink { .. });
        }
        let mut manifest = Self { bytes, starts, numbering: Numbering::default() };
        manifest.check_order_and_parents()?;
        if tree_bytes > caps::PACKAGE_BYTES_MAX {
            return Err(ManifestError::TooLarge);
        }
        if has_links {
            links::check(&manifest)?;
        }
        manifest.numbering = Numbering::of(&manifest)?;
        Ok(manifest)
    }

    /// Finds the entry at `path` in canonical bytes of which a manifest was made before: passes over the others without checking
    /// more than where they end.
    pub fn find<'a>(bytes: &'a [u8], path: &str) -> Result<Option<Entry<'a>>, ManifestError> {
        wire::Entries::new(bytes)?.find(path)
    }

    /// Returns the canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns what the manifest occupies in memory.
    pub fn memory_bytes(&self) -> u64 {
        (self.bytes.len() + size_of_val(&self.starts[..])) as u64 + self.numbering.memory_bytes()
    }

    /// Returns the package's name: the digest of the canonical bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Says whether the package is an empty directory.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Returns an entry by number. Panics where there are not so many.
    pub fn entry(&self, number: usize) -> Entry<'_> {
        wire::entry(&self.bytes, self.starts[number])
    }

    /// Returns all entries, sorted by path.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'_>> + Clone {
        self.starts.iter().map(|start| wire::entry(&self.bytes, *start))
    }

    /// Returns the entry at `path`.
    pub fn get(&self, path: &str) -> Option<Entry<'_>> {
        let found =
            self.starts.binary_search_by(|start| wire::path(&self.bytes, *start).cmp(path.as_bytes()));
        found.ok().map(|number| self.entry(number))
    }

    /// Returns the regular files, sorted by path.
    pub fn files(&self) -> impl Iterator<Item = (&RelPath, FileEntry)> {
        self.entries().filter_map(Entry::file)
    }

    /// Returns each distinct content once, in the order of its first path. Its numbers are what transfer plans and package
    /// indexes speak of.
    pub fn contents(&self) -> Contents<'_> {
        Contents::of(self)
    }

    /// Returns for each distinct content the first file that holds it, sorted by path: numbered as
    /// [`Self::contents`] numbers them.
    pub fn first_files(&self) -> impl Iterator<Item = (&RelPath, FileEntry)> {
        self.numbering.firsts().filter_map(|number| self.entry(number).file())
    }

    /// Returns the entries that hold a content, by number, sorted. Panics where there is no such content.
    pub fn places(&self, content: u32) -> impl Iterator<Item = usize> {
        self.numbering.places(self, content)
    }

    /// Returns the number of the content with this digest.
    pub fn content_number(&self, digest: &Digest) -> Option<u32> {
        self.numbering.find(self, digest)
    }

    /// Says of each content, by number, where `other` has it, if it does.
    pub fn shared_with(&self, other: &Self) -> Vec<Option<Copies>> {
        self.numbering.shared_with(self, other)
    }

    /// Returns the entries that hold a content which another manifest [shares](Self::shared_with) with this one.
    pub fn copies(&self, copies: Copies) -> impl Iterator<Item = usize> {
        self.numbering.copies(self, copies)
    }

    /// Returns the number of regular files.
    pub fn file_count(&self) -> u64 {
        self.numbering.file_count()
    }

    /// Returns the bytes of all regular files, each path counted.
    pub fn tree_bytes(&self) -> u64 {
        self.files().map(|(_, file)| file.size).sum()
    }

    fn check_order_and_parents(&self) -> Result<(), ManifestError> {
        let mut previous: Option<&RelPath> = None;
        // Neighbours mostly stand in the same directory.
        let mut found: Option<&str> = None;
        for Entry { path, kind: _ } in self.entries() {
            if previous.is_some_and(|previous| previous >= path) {
                return Err(ManifestError::Order(path.to_owned()));
            }
            previous = Some(path);
            let parent = path.parent();
            if let Some(parent) = parent.filter(|_| parent != found)
                && !matches!(self.get(parent), Some(Entry { kind: EntryKind::Directory, .. }))
            {
                return Err(ManifestError::Parent(path.to_owned()));
            }
            found = parent;
        }
        Ok(())
    }

    /// Returns the digest of an entry that is a file, by number.
    fn digest_at(&self, number: u32) -> Option<&[u8; Digest::BYTES]> {
        wire::file_digest(&self.bytes, self.starts[number as usize])
    }
}

impl std::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}

#[cfg(test)]
mod tests;
