//! The package index: which chunks make up each content of a package. A function of the tree and the pinned
//! chunker; it travels on a push only and is stored beside the manifest.
//!
//! In memory it is its canonical bytes and where each chunk and each list begins in them, as a manifest is: of a million
//! contents these are 37 MB and 8.
//!
//! ```text
//! "sluice-index\x01"  chunks:varint  chunk*  contents:varint  list*
//! chunk = length:varint  sha256
//! list  = numbers:varint  number:varint*
//! ```

use std::io;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::caps;
use crate::chunk::{self, Chunk};
use crate::codec::{self, DecodeError, Reader};
use crate::digest::Digest;
use crate::manifest::{Content, Contents, Manifest};
use crate::parallel;
use crate::transfer::ContentSource;

const MAGIC: &[u8; 13] = b"sluice-index\x01";
const WHAT: &str = "package index";
/// Why bytes can be read without a check.
const CHECKED: &str = "the bytes were checked when the index was made";

/// Contents that are cut before their chunks are numbered: enough for every core, and few enough to wait in memory.
const CUT_AT_ONCE: usize = 32 * 1024;

/// The chunks of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageIndex {
    /// The canonical bytes.
    bytes: Vec<u8>,
    /// By number of chunk: where it begins in them.
    chunks: Vec<u32>,
    /// By number of content: where its list begins.
    lists: Vec<u32>,
}

impl PackageIndex {
    /// Cuts every content of `manifest`, read from `source`, on every core. Fails when a content changed its size since
    /// it was hashed, which it names by its first path, or when there are more chunks than an index may list.
    pub fn build(manifest: &Manifest, source: &dyn ContentSource) -> io::Result<Self> {
        let (mut chunks, mut lists) = (Vec::new(), Vec::new());
        let mut seen = Seen::default();
        let contents = manifest.contents();
        let mut left = contents.iter();
        loop {
            let wanted: Vec<Content> = left.by_ref().take(CUT_AT_ONCE).collect();
            if wanted.is_empty() {
                break;
            }
            for cut in parallel::each(&wanted, |content| cut(content, manifest, source))? {
                codec::put_varint(&mut lists, cut.len() as u64);
                for chunk in cut {
                    codec::put_varint(&mut lists, u64::from(seen.number(chunk, &mut chunks)));
                }
            }
        }
        drop(seen);
        Self::decode(encode(chunks, contents.len(), &lists), contents).map_err(io::Error::other)
    }

    /// Takes canonical bytes and checks them against the contents of their manifest: every list must add up.
    pub fn decode(bytes: Vec<u8>, contents: Contents<'_>) -> Result<Self, DecodeError> {
        const { assert!(caps::INDEX_BYTES_MAX <= u32::MAX as u64, "a place has 32 bits") };
        let mut reader = Reader::new(WHAT, &bytes);
        if bytes.len() as u64 > caps::INDEX_BYTES_MAX {
            return Err(
                reader.invalid(format_args!("it is over the limit of {} bytes", caps::INDEX_BYTES_MAX))
            );
        }
        let at = |reader: &Reader<'_>| (bytes.len() - reader.remaining()) as u32;
        reader.magic(MAGIC)?;
        let count = reader.varint((reader.remaining() / (1 + Digest::BYTES)) as u64)? as usize;
        let mut chunks = Vec::with_capacity(count);
        for _ in 0..count {
            chunks.push(at(&reader));
            take_chunk(&mut reader)?;
        }
        if reader.varint(u64::MAX)? != contents.len() as u64 {
            return Err(reader.invalid("number of contents differs from the manifest"));
        }
        let mut lists = Vec::with_capacity(contents.len());
        for content in contents.iter() {
            lists.push(at(&reader));
            let mut total = 0_u64;
            for _ in 0..reader.varint(reader.remaining() as u64)? {
                let number = reader.varint(u64::from(u32::MAX))? as usize;
                let start = chunks.get(number).ok_or_else(|| reader.invalid("unknown chunk"))?;
                total += u64::from(chunk_at(&bytes, *start).len);
            }
            if total != content.size {
                return Err(
                    reader.invalid(format_args!("chunks of {} do not add up to its size", content.digest))
                );
            }
        }
        reader.finish()?;
        Ok(Self { bytes, chunks, lists })
    }

    /// Returns the canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns each distinct chunk once, in the order of its first use.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = Chunk> {
        self.chunks.iter().map(|start| chunk_at(&self.bytes, *start))
    }

    /// Returns a chunk by number. Panics where there are not so many.
    pub fn chunk(&self, number: u32) -> Chunk {
        chunk_at(&self.bytes, self.chunks[number as usize])
    }

    /// Returns how many contents the package has.
    pub fn content_count(&self) -> u32 {
        self.lists.len() as u32
    }

    /// Returns the chunks of content number `content`, in order, by number. Panics where there is no such content.
    pub fn content(&self, content: u32) -> impl ExactSizeIterator<Item = u32> {
        let mut reader = Reader::new(WHAT, &self.bytes[self.lists[content as usize] as usize..]);
        let len = reader.varint(u64::MAX).expect(CHECKED) as usize;
        (0..len).map(move |_| reader.varint(u64::MAX).expect(CHECKED) as u32)
    }

    /// Returns a chunk that stands in the list of chunks twice, if there is one.
    pub fn repeated(&self) -> Option<Chunk> {
        let mut numbers: Vec<u32> = (0..self.chunks.len() as u32).collect();
        numbers.sort_unstable_by_key(|number| self.chunk(*number).digest);
        let pair =
            numbers.windows(2).find(|pair| self.chunk(pair[0]).digest == self.chunk(pair[1]).digest)?;
        Some(self.chunk(pair[1]))
    }
}

/// Returns the chunk that a content is as a whole, whatever index it stands in: one no longer than the smallest chunk is
/// never cut. Nothing where the index has to say.
pub fn lone_chunk(content: &Content) -> Option<Chunk> {
    let is_lone = content.size > 0 && content.size <= u64::from(caps::CHUNK_BYTES_MIN);
    is_lone.then_some(Chunk { digest: content.digest, len: content.size as u32 })
}

/// Names a content by the first path that has it: people know no digests.
pub fn path_of(manifest: &Manifest, content: &Digest) -> String {
    let number = manifest.content_number(content);
    let place = number.and_then(|number| manifest.places(number).next());
    place.map_or_else(|| content.to_string(), |place| manifest.entry(place).path.to_string())
}

fn encode(chunks: Vec<Chunk>, contents: usize, lists: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + chunks.len() * 36 + lists.len());
    out.extend_from_slice(MAGIC);
    codec::put_varint(&mut out, chunks.len() as u64);
    for Chunk { digest, len } in chunks {
        codec::put_varint(&mut out, u64::from(len));
        out.extend_from_slice(digest.as_bytes());
    }
    codec::put_varint(&mut out, contents as u64);
    out.extend_from_slice(lists);
    out.shrink_to_fit();
    out
}

fn take_chunk(reader: &mut Reader<'_>) -> Result<Chunk, DecodeError> {
    let len = reader.varint(u64::from(caps::CHUNK_BYTES_MAX))? as u32;
    Ok(Chunk { len, digest: reader.digest()? })
}

/// Reads the chunk that begins at `start`.
fn chunk_at(bytes: &[u8], start: u32) -> Chunk {
    take_chunk(&mut Reader::new(WHAT, &bytes[start as usize..])).expect(CHECKED)
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

fn cut(content: &Content, manifest: &Manifest, source: &dyn ContentSource) -> io::Result<Vec<Chunk>> {
    // The cutter makes one chunk of it, which has the content's own digest: nothing to read.
    if content.size == 0 || lone_chunk(content).is_some() {
        return Ok(lone_chunk(content).into_iter().collect());
    }
    let mut chunks = Vec::new();
    chunk::cut(source.reader(&content.digest, 0)?, |chunk, _| {
        chunks.push(chunk);
        Ok(())
    })?;
    let total: u64 = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
    if total != content.size {
        let path = path_of(manifest, &content.digest);
        return Err(io::Error::other(format!("{path} changed while it was read")));
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
        let total: usize = (0..contents.len() as u32).map(|i| index.content(i).len()).sum();
        assert!(index.chunks().len() < total, "the common prefix is shared");
        assert_eq!(PackageIndex::decode(index.as_bytes().to_vec(), contents).unwrap(), index);
        fs_err::remove_file(dir.path().join("b")).unwrap();
        let other = Tree::scan(dir.path()).unwrap();
        assert!(PackageIndex::decode(index.as_bytes().to_vec(), other.manifest().contents()).is_err());
        let bytes = index.as_bytes();
        for cut in 0..bytes.len().min(400) {
            assert!(PackageIndex::decode(bytes[..cut].to_vec(), contents).is_err());
        }
    }

    #[test]
    fn the_format_is_golden() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(|i| (i * 7).to_le_bytes()).collect();
        fs_err::write(dir.path().join("a"), &bytes).unwrap();
        fs_err::write(dir.path().join("b"), b"small").unwrap();
        fs_err::write(dir.path().join("empty"), b"").unwrap();
        let tree = Tree::scan(dir.path()).unwrap();
        let index = PackageIndex::build(tree.manifest(), &tree).unwrap();
        // When this fails, no depot in the field can read the indexes that it has.
        let golden = "sha256:99552e41a5d7a3e8df2d267b53b872c01ae2fe1f26c4ac1ef93551c0e9a4da20";
        assert_eq!(Digest::of(index.as_bytes()).to_string(), golden);
    }

    #[test]
    fn a_content_that_changed_its_size_is_named_by_its_first_path() {
        for len in [20_000, 60_000] {
            let dir = tempfile::tempdir().unwrap();
            fs_err::create_dir(dir.path().join("log")).unwrap();
            for name in ["log/b", "log/a"] {
                fs_err::write(dir.path().join(name), vec![7; 40_000]).unwrap();
            }
            let tree = Tree::scan(dir.path()).unwrap();
            fs_err::write(dir.path().join("log/a"), vec![7; len]).unwrap();
            let error = PackageIndex::build(tree.manifest(), &tree).unwrap_err();
            assert_eq!(error.to_string(), "log/a changed while it was read");
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
            let listed: Vec<Chunk> = index.content(number as u32).map(|chunk| index.chunk(chunk)).collect();
            assert_eq!(listed, expected, "{} bytes", content.size);
        }
    }
}
