//! The package index: which chunks make up each content of a package. A function of the tree and the pinned
//! chunker; it travels on a push only and is stored beside the manifest.

use std::io;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::caps;
use crate::chunk::{self, Chunk};
use crate::codec::{self, DecodeError, Reader};
use crate::manifest::{Content, Contents, Manifest};
use crate::parallel;
use crate::transfer::ContentSource;

const MAGIC: &[u8; 13] = b"sluice-index\x01";

/// Contents that are cut before their chunks are numbered: enough for every core, and few enough to wait in memory.
const CUT_AT_ONCE: usize = 32 * 1024;

/// The chunks of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageIndex {
    chunks: Vec<Chunk>,
    /// The chunks of all contents, one content after another.
    lists: Vec<u32>,
    /// By number of content: where its list ends.
    ends: Vec<u32>,
}

impl PackageIndex {
    /// Cuts every content of `manifest`, read from `source`, on every core. Fails when a content changed its size since
    /// it was hashed.
    pub fn build(manifest: &Manifest, source: &dyn ContentSource) -> io::Result<Self> {
        let (mut chunks, mut lists, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen = Seen::default();
        let contents = manifest.contents();
        let mut left = contents.iter();
        loop {
            let wanted: Vec<Content> = left.by_ref().take(CUT_AT_ONCE).collect();
            if wanted.is_empty() {
                return Ok(Self { chunks, lists, ends });
            }
            for cut in parallel::each(&wanted, |content| cut(content, source))? {
                lists.extend(cut.into_iter().map(|chunk| seen.number(chunk, &mut chunks)));
                ends.push(lists.len() as u32);
            }
        }
    }

    /// Returns each distinct chunk once, in the order of its first use.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Returns the chunks of content number `content`, in order, as indices into [`Self::chunks`].
    pub fn content(&self, content: usize) -> &[u32] {
        let begin = content.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.lists[begin as usize..self.ends[content] as usize]
    }

    /// Returns a chunk that stands in the list of chunks twice, if there is one.
    pub fn repeated(&self) -> Option<Chunk> {
        let digest = |number: u32| &self.chunks[number as usize].digest;
        let mut numbers: Vec<u32> = (0..self.chunks.len() as u32).collect();
        numbers.sort_unstable_by_key(|number| digest(*number));
        let pair = numbers.windows(2).find(|pair| digest(pair[0]) == digest(pair[1]))?;
        Some(self.chunks[pair[1] as usize])
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
        codec::put_varint(&mut out, self.ends.len() as u64);
        for content in 0..self.ends.len() {
            let list = self.content(content);
            codec::put_varint(&mut out, list.len() as u64);
            for chunk in list {
                codec::put_varint(&mut out, u64::from(*chunk));
            }
        }
        out
    }

    /// Decodes an index and checks it against the contents of its manifest: every list must add up.
    pub fn decode(bytes: &[u8], contents: Contents<'_>) -> Result<Self, DecodeError> {
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
        let mut ends = Vec::with_capacity(contents.len());
        for content in contents.iter() {
            let len = reader.varint(reader.remaining() as u64)? as usize;
            let mut total = 0_u64;
            for _ in 0..len {
                let chunk = reader.varint(u64::from(u32::MAX))? as u32;
                let known = chunks.get(chunk as usize).ok_or_else(|| reader.invalid("unknown chunk"))?;
                total += u64::from(known.len);
                lists.push(chunk);
            }
            if total != content.size {
                return Err(
                    reader.invalid(format_args!("chunks of {} do not add up to its size", content.digest))
                );
            }
            ends.push(lists.len() as u32);
        }
        reader.finish()?;
        lists.shrink_to_fit();
        Ok(Self { chunks, lists, ends })
    }
}

/// Chunks that have a number: a table of numbers alone, since the chunks stand in their list.
#[derive(Default)]
struct Seen(HashTable<u32>);

impl Seen {
    /// Returns the number of a chunk, which it gets with its first use.
    fn number(&mut self, chunk: Chunk, chunks: &mut Vec<Chunk>) -> u32 {
        // A digest's bytes are as good as any hash of them.
        let hash = |chunk: &Chunk| {
            u64::from_le_bytes(
                *chunk.digest.as_bytes().first_chunk().expect("a digest has more than eight bytes"),
            )
        };
        let is_same = |number: &u32| chunks[*number as usize] == chunk;
        match self.0.entry(hash(&chunk), is_same, |number| hash(&chunks[*number as usize])) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                let number = chunks.len() as u32;
                place.insert(number);
                chunks.push(chunk);
                number
            }
        }
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
        assert_eq!(PackageIndex::decode(&index.encode(), contents).unwrap(), index);
        fs_err::remove_file(dir.path().join("b")).unwrap();
        let other = Tree::scan(dir.path()).unwrap();
        assert!(PackageIndex::decode(&index.encode(), other.manifest().contents()).is_err());
        let bytes = index.encode();
        for cut in 0..bytes.len().min(400) {
            assert!(PackageIndex::decode(&bytes[..cut], contents).is_err());
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
