//! The canonical bytes of a manifest, format 1.
//!
//! ```text
//! "sluice-manifest\x01"  count:varint  entry*
//! entry = kind:u8  path:bytes  body
//!   kind 0 directory            body = nothing
//!   kind 1 file, 2 executable   body = size:varint  sha256:32 bytes
//!   kind 3 symlink              body = target:bytes
//! bytes = length:varint  length bytes
//! ```

use std::cmp::Ordering;

use crate::caps;
use crate::codec::{self, Reader};
use crate::digest::Digest;
use crate::path::RelPath;

use super::{Entry, EntryKind, FileEntry, ManifestError};

const MAGIC: &[u8; 16] = b"sluice-manifest\x01";
/// Kind, path length and one byte of path: what no entry can be smaller than.
const ENTRY_BYTES_MIN: usize = 3;
/// What no valid entry is larger than: its kind, two texts of the length of a path, and their lengths.
pub(super) const ENTRY_BYTES_MAX: usize = 1 + 2 * (2 + caps::PATH_BYTES_MAX);
/// Why bytes can be read without a check.
const CHECKED: &str = "the bytes were checked when the manifest was made";

/// Puts canonical bytes together.
pub(super) struct Writer {
    /// Room for the head, and then the entries.
    bytes: Vec<u8>,
    len: usize,
}

/// Bytes of the longest head: the magic, and a count of three bytes at most.
const HEAD_BYTES_MAX: usize = MAGIC.len() + 3;

impl Default for Writer {
    fn default() -> Self {
        Self { bytes: vec![0; HEAD_BYTES_MAX], len: 0 }
    }
}

impl Writer {
    /// Returns how many entries were written.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends an entry.
    pub(super) fn push(&mut self, Entry { path, kind }: Entry<'_>) {
        self.len += 1;
        let out = &mut self.bytes;
        out.push(match kind {
            EntryKind::Directory => 0,
            EntryKind::File(file) => 1 + u8::from(file.executable),
            EntryKind::Symlink { .. } => 3,
        });
        codec::put_bytes(out, path.as_str().as_bytes());
        match kind {
            EntryKind::Directory => {}
            EntryKind::File(file) => {
                codec::put_varint(out, file.size);
                out.extend_from_slice(file.digest.as_bytes());
            }
            EntryKind::Symlink { target } => codec::put_bytes(out, target.as_bytes()),
        }
    }

    /// Returns the canonical bytes. Of at most a million entries, so that their count fits.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        codec::put_varint(&mut head, self.len as u64);
        self.bytes.splice(..HEAD_BYTES_MAX, head);
        self.bytes.shrink_to_fit();
        self.bytes
    }
}

/// Reads the entries of canonical bytes one after the other and checks their form, each by itself.
pub(super) struct Entries<'a> {
    bytes: &'a [u8],
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Entries<'a> {
    /// Reads the head.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, ManifestError> {
        const { assert!(caps::MANIFEST_BYTES_MAX <= u32::MAX as u64, "a start has 32 bits") };
        if bytes.len() as u64 > caps::MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge);
        }
        let entries = Self::begin_at_head(bytes)?;
        if entries.left > entries.reader.remaining() / ENTRY_BYTES_MIN {
            let reason = format_args!("{} entries do not fit into the bytes that follow", entries.left);
            return Err(entries.reader.invalid(reason).into());
        }
        Ok(entries)
    }

    /// Reads the head of canonical bytes of which more may follow.
    pub(super) fn begin_at_head(bytes: &'a [u8]) -> Result<Self, ManifestError> {
        let mut reader = Reader::new("manifest", bytes);
        reader.magic(MAGIC)?;
        let left = reader.varint(caps::MANIFEST_ENTRIES_MAX)? as usize;
        Ok(Self { bytes, reader, left })
    }

    /// Goes on where an entry begins, of which and after which so many are `left`.
    pub(super) fn go_on(bytes: &'a [u8], left: usize) -> Self {
        Self { bytes, reader: Reader::new("manifest", bytes), left }
    }

    /// Returns how many entries are left.
    pub(super) fn len(&self) -> usize {
        self.left
    }

    /// Returns how many bytes were not read yet.
    pub(super) fn unread(&self) -> usize {
        self.reader.remaining()
    }

    /// Returns the next entry and where it begins. After the last one the bytes must end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Entry<'a>)>, ManifestError> {
        let Some(start) = self.begin()? else { return Ok(None) };
        let reader = &mut self.reader;
        let tag = reader.byte()?;
        let path = RelPath::new(reader.text(caps::PATH_BYTES_MAX)?)?;
        self.end(tag, path).map(|entry| Some((start, entry)))
    }

    /// Returns the entry at `path`, and passes over what stands before it without a look at more than its length. Entries must be
    /// sorted, and come to an end as [`Self::next`] says.
    pub(super) fn find(mut self, path: &str) -> Result<Option<Entry<'a>>, ManifestError> {
        while self.begin()?.is_some() {
            let (tag, found) = (self.reader.byte()?, self.reader.bytes(caps::PATH_BYTES_MAX)?);
            match found.cmp(path.as_bytes()) {
                Ordering::Less => self.pass(tag)?,
                Ordering::Equal => {
                    let text = std::str::from_utf8(found).expect("it is the path that is looked for");
                    return self.end(tag, RelPath::new(text)?).map(Some);
                }
                Ordering::Greater => break,
            }
        }
        Ok(None)
    }

    /// Returns where the next entry begins; nothing after the last one, where the bytes must end.
    fn begin(&mut self) -> Result<Option<u32>, ManifestError> {
        let Some(left) = self.left.checked_sub(1) else {
            self.reader.finish()?;
            return Ok(None);
        };
        self.left = left;
        Ok(Some((self.bytes.len() - self.reader.remaining()) as u32))
    }

    /// Passes over what follows the path of an entry of this kind.
    fn pass(&mut self, tag: u8) -> Result<(), ManifestError> {
        match tag {
            0 => {}
            1 | 2 => {
                self.reader.varint(caps::PACKAGE_BYTES_MAX)?;
                self.reader.take(Digest::BYTES)?;
            }
            3 => {
                self.reader.bytes(usize::MAX)?;
            }
            unknown => return Err(self.unknown(unknown)),
        }
        Ok(())
    }

    /// Reads what follows the path of an entry of this kind.
    fn end(&mut self, tag: u8, path: &'a RelPath) -> Result<Entry<'a>, ManifestError> {
        let reader = &mut self.reader;
        let kind = match tag {
            0 => EntryKind::Directory,
            1 | 2 => {
                let size = reader.varint(caps::PACKAGE_BYTES_MAX)?;
                EntryKind::File(FileEntry { executable: tag == 2, size, digest: reader.digest()? })
            }
            // How long it may be is a rule of links, which names the link.
            3 => EntryKind::Symlink { target: reader.text(usize::MAX)? },
            unknown => return Err(self.unknown(unknown)),
        };
        Ok(Entry { path, kind })
    }

    fn unknown(&self, tag: u8) -> ManifestError {
        self.reader.invalid(format_args!("unknown entry kind {tag}")).into()
    }
}

/// Reads the entry that begins at `start`.
pub(super) fn entry(bytes: &[u8], start: u32) -> Entry<'_> {
    let (tag, path, mut body) = open(bytes, start);
    let kind = match tag {
        0 => EntryKind::Directory,
        1 | 2 => EntryKind::File(FileEntry {
            executable: tag == 2,
            size: body.varint(u64::MAX).expect(CHECKED),
            digest: body.digest().expect(CHECKED),
        }),
        _ => EntryKind::Symlink { target: body.text(usize::MAX).expect(CHECKED) },
    };
    Entry { path: RelPath::checked(std::str::from_utf8(path).expect(CHECKED)), kind }
}

/// Returns the path of the entry that begins at `start`.
pub(super) fn path(bytes: &[u8], start: u32) -> &[u8] {
    open(bytes, start).1
}

/// Returns the digest of the entry that begins at `start`, if it is a file.
pub(super) fn file_digest(bytes: &[u8], start: u32) -> Option<&[u8; Digest::BYTES]> {
    let (tag, _, mut body) = open(bytes, start);
    if tag != 1 && tag != 2 {
        return None;
    }
    body.varint(u64::MAX).expect(CHECKED);
    let digest = body.take(Digest::BYTES).expect(CHECKED);
    Some(digest.try_into().expect("took exactly 32 bytes"))
}

/// Returns the kind and the path of the entry that begins at `start`, and what reads the rest.
fn open(bytes: &[u8], start: u32) -> (u8, &[u8], Reader<'_>) {
    let mut reader = Reader::new("manifest", &bytes[start as usize..]);
    let tag = reader.byte().expect(CHECKED);
    let path = reader.bytes(usize::MAX).expect(CHECKED);
    (tag, path, reader)
}
