//! What a push announces: the package's name, its manifest and its index, taken within bounds and checked.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use sluice_common::codec::DecodeError;
use sluice_common::digest::Digest;
use sluice_common::index::{self, PackageIndex, lone_chunk};
use sluice_common::manifest::Manifest;
use sluice_common::{caps, transfer};
use sluice_proto::convert::{self, Invalid};
use sluice_proto::v1;

use super::PushError;
use crate::depot::packages::{self, IndexError, Package};

/// Largest compressed manifest or index that is kept in memory while chunks come: of some 200,000 entries.
const COMPRESSED_BYTES_MAX: usize = 8 << 20;

/// Returns the package that the first message names.
pub(super) fn begin(message: &v1::PushBegin) -> Result<Digest, PushError> {
    let v1::PushBegin { package } = message;
    Ok(convert::digest("begin.package", package)?)
}

/// How long manifest and index are.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) manifest_len: u64,
    pub(super) index_len: u64,
}

impl TryFrom<v1::PushDescription> for Description {
    type Error = PushError;

    fn try_from(message: v1::PushDescription) -> Result<Self, PushError> {
        let v1::PushDescription { manifest_len, index_len } = message;
        for (what, field, bytes, max) in [
            ("manifest", "description.manifest_len", manifest_len, caps::MANIFEST_BYTES_MAX),
            ("index", "description.index_len", index_len, caps::INDEX_BYTES_MAX),
        ] {
            if bytes > max {
                return Err(PushError::TooLarge { what, bytes, max });
            }
            if bytes == 0 {
                return Err(Invalid::new(field, "must not be zero").into());
            }
        }
        Ok(Self { manifest_len, index_len })
    }
}

/// Bytes that come in pieces: as many as were announced, no more. Grows as they come.
#[derive(Debug)]
pub(super) struct Pieces {
    what: &'static str,
    announced: u64,
    bytes: Vec<u8>,
}

impl Pieces {
    pub(super) fn new(what: &'static str, announced: u64) -> Self {
        Self { what, announced, bytes: Vec::new() }
    }

    pub(super) fn add(&mut self, piece: &[u8]) -> Result<(), PushError> {
        let bytes = (self.bytes.len() + piece.len()) as u64;
        if bytes > self.announced {
            return Err(PushError::TooLarge { what: self.what, bytes, max: self.announced });
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    pub(super) fn is_whole(&self) -> bool {
        self.bytes.len() as u64 == self.announced
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }
}

/// A package as a push describes it; its chunks may still be missing.
#[derive(Debug)]
pub(super) struct Announced {
    /// Its name.
    pub(super) digest: Digest,
    /// What it holds.
    pub(super) package: Arc<Package>,
    /// Of which chunks.
    pub(super) index: Arc<PackageIndex>,
    manifest: Compressed,
    compressed_index: Compressed,
}

/// Manifest or index as it came; nothing where that is large. Then it is compressed anew when it is stored: of a million entries
/// it would take dozens of MiB while chunks come.
#[derive(Debug)]
struct Compressed(Option<Bytes>);

impl Compressed {
    fn new(bytes: Bytes) -> Self {
        Self((bytes.len() <= COMPRESSED_BYTES_MAX).then_some(bytes))
    }

    fn get(&self, raw: &[u8]) -> io::Result<Bytes> {
        match &self.0 {
            Some(bytes) => Ok(bytes.clone()),
            None => transfer::encode_once(raw).map(Bytes::from),
        }
    }
}

impl Announced {
    /// Decodes and checks everything that needs no chunk. Takes seconds for a million entries: blocking threads only.
    pub(super) fn decode(digest: Digest, manifest: Bytes, index: Bytes) -> Result<Self, PushError> {
        let package = decode_manifest(digest, &manifest)?;
        let manifest = Compressed::new(manifest);
        let bytes = packages::restore_index(&index).map_err(PushError::Index)?;
        let compressed_index = Compressed::new(index);
        let index = PackageIndex::decode(bytes, package.contents()).map_err(IndexError::from);
        let index = index.map_err(PushError::Index)?;
        check_index(&package, &index)?;
        let (package, index) = (Arc::new(package), Arc::new(index));
        Ok(Self { digest, package, index, manifest, compressed_index })
    }

    /// Returns the manifest as it is stored. Blocking threads only, as the next.
    pub(super) fn compressed_manifest(&self) -> io::Result<Bytes> {
        self.manifest.get(self.package.manifest.as_bytes())
    }

    /// Returns the index as it is stored.
    pub(super) fn compressed_index(&self) -> io::Result<Bytes> {
        self.compressed_index.get(self.index.as_bytes())
    }
}

fn decode_manifest(digest: Digest, compressed: &[u8]) -> Result<Package, PushError> {
    let bytes = transfer::decode_manifest(compressed, &[]).map_err(PushError::ManifestZstd)?;
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(PushError::ManifestDigest { package: digest, found });
    }
    Ok(Package::new(Manifest::decode(bytes)?))
}

/// Checks what decoding does not: no empty or repeated chunk, contents of one chunk or none bear its digest, and what is no
/// longer than the smallest chunk is not cut, so that no index has to be read for it.
fn check_index(package: &Package, index: &PackageIndex) -> Result<(), PushError> {
    let refuse = |reason: String| {
        Err(PushError::IndexRule(DecodeError::Invalid { what: "package index", at: 0, reason }))
    };
    let empty = index.chunks().find(|chunk| chunk.len == 0);
    if let Some(chunk) = empty.or_else(|| index.repeated()) {
        return refuse(format!("chunk {} is empty or stands twice", chunk.digest));
    }
    for (number, content) in (0..).zip(package.contents().iter()) {
        let mut chunks = index.content(number).map(|chunk| index.chunk(chunk).digest);
        let made = match (chunks.next(), chunks.len()) {
            (None, _) => Digest::of(&[]),
            (Some(only), 0) => only,
            (Some(_), _) if lone_chunk(&content).is_some() => {
                return refuse(format!("content {} is too small to be cut", content.digest));
            }
            (Some(_), _) => continue,
        };
        if made != content.digest {
            return Err(PushError::Content(index::path_of(&package.manifest, &content.digest)));
        }
    }
    Ok(())
}
