//! The package index: which chunks make up each content of a package. A function of the tree and the pinned
//! chunker; it travels on a push only and is stored beside the manifest.

use std::collections::HashMap;
use std::io;

use crate::caps;
use crate::chunk::{self, Chunk};
use crate::codec::{self, DecodeError, Reader};
use crate::manifest::{Content, Manifest};
use crate::parallel;
use crate::transfer::ContentSource;

const MAGIC: &[u8; 13] = b"sluice-index\x01";

/// The chunks of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageIndex {
    chunks: Vec<Chunk>,
    contents: Vec<Vec<u32>>,
}

impl PackageIndex {
    /// Cuts every content of `manifest`, read from `source`, on every core. Fails when a content changed its size since
    /// it was hashed.
    pub fn build(manifest: &Manifest, source: &dyn ContentSource) -> io::Result<Self> {
        let mut seen: HashMap<Chunk, u32> = HashMap::new();
        let (mut chunks, mut contents) = (Vec::new(), Vec::new());
        for cut in parallel::each(&manifest.contents(), |content| cut(content, source))? {
            let number = |chunk: Chunk| {
                *seen.entry(chunk).or_insert_with(|| {
                    chunks.push(chunk);
                    (chunks.len() - 1) as u32
                })
            };
            contents.push(cut.into_iter().map(number).collect());
        }
        Ok(Self { chunks, contents })
    }

    /// Returns each distinct chunk once, in the order of its first use.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Returns the chunks of content number `content`, in order, as indices into [`Self::chunks`].
    pub fn content(&self, content: usize) -> &[u32] {
        &self.contents[content]
    }

    /// Encodes the index.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.chunks.len() * 36);
        out.extend_from_slice(MAGIC);
        codec::put_varint(&mut out, self.chunks.len() as u64);
        for chunk in &self.chunks {
            codec::put_varint(&mut out, u64::from(chunk.len));
            out.extend_from_slice(chunk.digest.as_bytes());
        }
        codec::put_varint(&mut out, self.contents.len() as u64);
        for list in &self.contents {
            codec::put_varint(&mut out, list.len() as u64);
            for chunk in list {
                codec::put_varint(&mut out, u64::from(*chunk));
            }
        }
        out
    }

    /// Decodes an index and checks it against the contents of its manifest: every list must add up.
    pub fn decode(bytes: &[u8], contents: &[Content]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("package index", bytes);
        reader.magic(MAGIC)?;
        let count = reader.varint((reader.remaining() / (1 + 32)) as u64)? as usize;
        let mut chunks = Vec::with_capacity(count);
        for _ in 0..count {
            let len = reader.varint(u64::from(caps::CHUNK_BYTES_MAX))? as u32;
            chunks.push(Chunk { len, digest: reader.digest()? });
        }
        if reader.varint(u64::MAX)? != contents.len() as u64 {
            return Err(reader.invalid("number of contents differs from the manifest"));
        }
        let mut lists = Vec::with_capacity(contents.len());
        for content in contents {
            let len = reader.varint(reader.remaining() as u64)? as usize;
            let mut list = Vec::with_capacity(len);
            let mut total = 0_u64;
            for _ in 0..len {
                let chunk = reader.varint(u64::from(u32::MAX))? as u32;
                let known = chunks.get(chunk as usize).ok_or_else(|| reader.invalid("unknown chunk"))?;
                total += u64::from(known.len);
                list.push(chunk);
            }
            if total != content.size {
                return Err(
                    reader.invalid(format_args!("chunks of {} do not add up to its size", content.digest))
                );
            }
            lists.push(list);
        }
        reader.finish()?;
        Ok(Self { chunks, contents: lists })
    }
}

fn cut(content: &Content, source: &dyn ContentSource) -> io::Result<Vec<Chunk>> {
    match content.size {
        0 => return Ok(Vec::new()),
        // The cutter makes one chunk of it, which has the content's own digest: nothing to read.
        len if len <= u64::from(caps::CHUNK_BYTES_MIN) => {
            return Ok(vec![Chunk { digest: content.digest, len: len as u32 }]);
        }
        _ => {}
    }
    let mut chunks = Vec::new();
    chunk::cut(source.reader(&content.digest, 0)?, |chunk, _| {
        chunks.push(chunk);
        Ok(())
    })?;
    let total: u64 = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
    if total != content.size {
        return Err(io::Error::other(format!("content {} changed while it was read", content.digest)));
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tree;

    #[test]
    fn lists_every_chunk_once_and_round_trips() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..500_000_u32).flat_map(|i| (i * 7).to_le_bytes()).collect();
        fs_err::write(dir.path().join("a"), &bytes).unwrap();
        fs_err::write(dir.path().join("b"), [&bytes[..], b"tail"].concat()).unwrap();
        fs_err::write(dir.path().join("empty"), b"").unwrap();
        let tree = Tree::scan(dir.path()).unwrap();
        let index = PackageIndex::build(tree.manifest(), &tree).unwrap();
        let contents = tree.manifest().contents();
        let total: usize = (0..contents.len()).map(|i| index.content(i).len()).sum();
        assert!(index.chunks().len() < total, "the common prefix is shared");
        assert_eq!(PackageIndex::decode(&index.encode(), &contents).unwrap(), index);
        assert!(PackageIndex::decode(&index.encode(), &contents[1..]).is_err());
        let bytes = index.encode();
        for cut in 0..bytes.len().min(400) {
            assert!(PackageIndex::decode(&bytes[..cut], &contents).is_err());
        }
    }

    #[test]
    fn what_is_not_read_is_what_cutting_gives() {
        let dir = tempfile::tempdir().unwrap();
        let noise: Vec<u8> = (0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        let min = caps::CHUNK_BYTES_MIN as usize;
        for len in [0, 1, min - 1, min, min + 1, 200_000] {
            fs_err::write(dir.path().join(len.to_string()), &noise[..len]).unwrap();
        }
        let tree = Tree::scan(dir.path()).unwrap();
        let index = PackageIndex::build(tree.manifest(), &tree).unwrap();
        for (number, content) in tree.manifest().contents().iter().enumerate() {
            let mut expected = Vec::new();
            let reader = tree.reader(&content.digest, 0).unwrap();
            chunk::cut(reader, |chunk, _| {
                expected.push(chunk);
                Ok(())
            })
            .unwrap();
            let listed: Vec<Chunk> =
                index.content(number).iter().map(|i| index.chunks()[*i as usize]).collect();
            assert_eq!(listed, expected, "{} bytes", content.size);
        }
    }
}
