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

use crate::caps;
use crate::codec::{self, Reader};
use crate::path::RelPath;

use super::{Entry, EntryKind, FileEntry, ManifestError};

const MAGIC: &[u8; 16] = b"sluice-manifest\x01";
/// Kind, path length and one byte of path: what no entry can be smaller than.
const ENTRY_BYTES_MIN: usize = 3;

pub(super) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + entries.len() * 80);
    out.extend_from_slice(MAGIC);
    codec::put_varint(&mut out, entries.len() as u64);
    for entry in entries {
        out.push(match &entry.kind {
            EntryKind::Directory => 0,
            EntryKind::File(file) => 1 + u8::from(file.executable),
            EntryKind::Symlink { .. } => 3,
        });
        codec::put_bytes(&mut out, entry.path.as_str().as_bytes());
        match &entry.kind {
            EntryKind::Directory => {}
            EntryKind::File(file) => {
                codec::put_varint(&mut out, file.size);
                out.extend_from_slice(file.digest.as_bytes());
            }
            EntryKind::Symlink { target } => codec::put_bytes(&mut out, target.as_bytes()),
        }
    }
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Entry>, ManifestError> {
    if bytes.len() as u64 > caps::MANIFEST_BYTES_MAX {
        return Err(ManifestError::TooLarge);
    }
    let mut reader = Reader::new("manifest", bytes);
    reader.magic(MAGIC)?;
    let count = reader.varint(caps::MANIFEST_ENTRIES_MAX)? as usize;
    if count > reader.remaining() / ENTRY_BYTES_MIN {
        return Err(reader
            .invalid(format_args!("{count} entries do not fit into the bytes that follow"))
            .into());
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let tag = reader.byte()?;
        let path: RelPath = reader.text(caps::PATH_BYTES_MAX)?.parse()?;
        let kind = match tag {
            0 => EntryKind::Directory,
            1 | 2 => EntryKind::File(FileEntry {
                executable: tag == 2,
                size: reader.varint(caps::PACKAGE_BYTES_MAX)?,
                digest: reader.digest()?,
            }),
            3 => EntryKind::Symlink { target: reader.text(caps::PATH_BYTES_MAX)?.to_owned() },
            unknown => return Err(reader.invalid(format_args!("unknown entry kind {unknown}")).into()),
        };
        entries.push(Entry { path, kind });
    }
    reader.finish()?;
    Ok(entries)
}
