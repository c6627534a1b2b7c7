//! Contents that are put together while their chunks come: the commit need not read them again.
//!
//! Chunks are numbered in the order of their first use, and come by these numbers. So a content whose every chunk is new comes
//! from its first byte to its last with nothing in between. Any other is left to the commit: one that shares a chunk with
//! another, or that an earlier push brought in part, or that came in another order.

use std::ops::Range;
use std::sync::Arc;

use sluice_common::digest::{Beginning, Digest};
use sluice_common::index::PackageIndex;

use super::receive::Announced;

/// Follows the chunks of a push in the order in which they come.
#[derive(Debug)]
pub(super) struct Prover {
    announced: Arc<Announced>,
    /// The first content that may still begin, by number.
    next: u32,
    /// What has come in part, and the hash of that part.
    open: Option<(Run, Beginning)>,
    proven: Vec<u32>,
}

/// The chunks of a content that are still to come, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    content: u32,
    chunks: Range<u32>,
}

/// Where in a frame's bytes a content lies, or a part of it.
#[derive(Debug)]
struct Span {
    bytes: Range<usize>,
    /// What comes after it.
    left: Run,
}

impl Prover {
    pub(super) fn new(announced: Arc<Announced>) -> Self {
        Self { announced, next: 0, open: None, proven: Vec::new() }
    }

    /// Returns the digest of each chunk of a frame, and takes the contents on that they are of, hashed together. The frame's
    /// `raw` bytes are those of the chunks with the `numbers`, one after the other: the `pieces`.
    pub(super) fn hash(&mut self, numbers: &[u32], raw: &[u8], pieces: &[&[u8]]) -> Vec<Digest> {
        let mut open = self.open.take();
        let chunks = numbers.iter().zip(pieces).map(|(number, piece)| (*number, piece.len()));
        let spans = spans(&self.announced.index, &mut self.next, open.as_ref().map(|(run, _)| run), chunks);
        let mut hashes: Vec<(&[u8], Beginning)> = Vec::with_capacity(spans.len());
        for span in &spans {
            // Only the first goes on with what is open: another would not have been begun.
            let begun = open.take().filter(|(run, _)| run.content == span.left.content);
            hashes.push((&raw[span.bytes.clone()], begun.map_or_else(Beginning::new, |(_, hash)| hash)));
        }
        let digests = Digest::of_each_and(pieces, &mut hashes);
        let contents = self.announced.package.contents();
        for (Span { left, .. }, (_, hash)) in spans.into_iter().zip(hashes) {
            if !left.chunks.is_empty() {
                self.open = Some((left, hash));
            } else if hash.digest() == contents.at(left.content).digest {
                self.proven.push(left.content);
            }
        }
        digests
    }

    /// Returns the contents that have their digest, by number, sorted.
    pub(super) fn into_proven(self) -> Vec<u32> {
        self.proven
    }
}

/// Says where in a frame contents lie that come whole: all but the last to their end, unless something else comes instead.
/// `chunks` are numbers and lengths; `next` moves past every content that has begun or will not any more.
fn spans(
    index: &PackageIndex,
    next: &mut u32,
    open: Option<&Run>,
    chunks: impl Iterator<Item = (u32, usize)>,
) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut awaited = open.cloned();
    let mut at = 0;
    for (number, len) in chunks {
        let run = awaited.take().filter(|run| run.chunks.start == number);
        let goes_on = run.is_some();
        if let Some(mut left) = run.or_else(|| beginning_with(index, next, number)) {
            left.chunks.start += 1;
            awaited = Some(left.clone()).filter(|left| !left.chunks.is_empty());
            match spans.last_mut().filter(|_| goes_on) {
                Some(span) => *span = Span { bytes: span.bytes.start..at + len, left },
                None => spans.push(Span { bytes: at..at + len, left }),
            }
        }
        at += len;
    }
    spans
}

/// Returns the content of several chunks that begins with this one and goes on with those of the numbers that follow.
fn beginning_with(index: &PackageIndex, next: &mut u32, number: u32) -> Option<Run> {
    while *next < index.content_count() {
        let content = *next;
        let mut chunks = index.content(content);
        let len = chunks.len() as u32;
        match chunks.next() {
            // Of a chunk that is still to come.
            Some(first) if first > number => return None,
            Some(first)
                if first == number && len > 1 && chunks.zip(number + 1..).all(|(is, due)| is == due) =>
            {
                *next += 1;
                return Some(Run { content, chunks: number..number + len });
            }
            Some(_) | None => *next += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use sluice_common::codec::put_varint;
    use sluice_common::manifest::{Entry, EntryKind, FileEntry, Manifest};
    use sluice_common::path::RelPath;
    use sluice_common::transfer::encode_once;

    use super::*;

    /// The bytes of a chunk: of two no content is too small to be cut.
    fn chunk(number: u32) -> Vec<u8> {
        vec![number as u8; 10_000 + number as usize]
    }

    fn content(chunks: &[u32]) -> Vec<u8> {
        chunks.iter().flat_map(|number| chunk(*number)).collect()
    }

    /// A package whose contents consist of these chunks; the `wrong` one of them does not have the digest that it claims.
    fn announced(contents: &[&[u32]], wrong: Option<usize>) -> Arc<Announced> {
        let entry = |(number, chunks): (usize, &&[u32])| {
            let bytes = content(chunks);
            let digest = if wrong == Some(number) { Digest::of(b"another") } else { Digest::of(&bytes) };
            let file = FileEntry { executable: false, size: bytes.len() as u64, digest };
            (format!("{number:03}"), file)
        };
        let files: Vec<(String, FileEntry)> = contents.iter().enumerate().map(entry).collect();
        let entries = files
            .iter()
            .map(|(path, file)| Entry { path: RelPath::new(path).unwrap(), kind: EntryKind::File(*file) });
        let manifest = Manifest::new(entries).unwrap();
        let chunks = contents.iter().copied().flatten().max().map_or(0, |last| last + 1);
        let mut index = b"sluice-index\x01".to_vec();
        put_varint(&mut index, u64::from(chunks));
        for number in 0..chunks {
            put_varint(&mut index, chunk(number).len() as u64);
            index.extend_from_slice(Digest::of(&chunk(number)).as_bytes());
        }
        put_varint(&mut index, contents.len() as u64);
        for list in contents {
            put_varint(&mut index, list.len() as u64);
            list.iter().for_each(|number| put_varint(&mut index, u64::from(*number)));
        }
        let compressed = |bytes: &[u8]| encode_once(bytes).unwrap().into();
        let announced =
            Announced::decode(manifest.digest(), compressed(manifest.as_bytes()), compressed(&index));
        Arc::new(announced.unwrap())
    }

    /// Takes frames of these chunks; returns which contents are proven.
    fn proven(announced: &Arc<Announced>, frames: &[&[u32]]) -> Vec<u32> {
        let mut prover = Prover::new(announced.clone());
        for numbers in frames {
            let (raw, chunks) = (content(numbers), numbers.iter().map(|number| chunk(*number)));
            let chunks: Vec<Vec<u8>> = chunks.collect();
            let pieces: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            assert_eq!(prover.hash(numbers, &raw, &pieces), Digest::of_each(&pieces), "{numbers:?}");
        }
        prover.into_proven()
    }

    #[test]
    fn contents_whose_chunks_come_one_after_the_other_are_proven() {
        type Lists = &'static [&'static [u32]];
        let cases: [(&str, Lists, Lists, &[u32]); 13] = [
            ("in one frame", &[&[0, 1, 2]], &[&[0, 1, 2]], &[0]),
            ("one by one", &[&[0, 1, 2]], &[&[0], &[1], &[2]], &[0]),
            (
                "several, the frames ending anywhere",
                &[&[0, 1], &[2, 3, 4], &[5], &[6, 7]],
                &[&[0, 1, 2], &[3, 4, 5, 6], &[7]],
                &[0, 1, 3],
            ),
            (
                "one that ends in a chunk of another",
                &[&[0, 1], &[2, 1], &[3, 4]],
                &[&[0, 1, 2, 3, 4]],
                &[0, 2],
            ),
            (
                "one that begins with all of another",
                &[&[0, 1], &[0, 1, 2], &[3, 4]],
                &[&[0, 1, 2, 3, 4]],
                &[0, 2],
            ),
            ("one that begins with what is a whole one", &[&[0], &[0, 1]], &[&[0, 1]], &[1]),
            ("one of the same chunk twice", &[&[0, 0], &[1, 2]], &[&[0, 1, 2]], &[1]),
            ("the first chunk is there already", &[&[0, 1, 2], &[3, 4]], &[&[1, 2, 3, 4]], &[1]),
            ("a chunk between is there already", &[&[0, 1, 2], &[3, 4]], &[&[0], &[2, 3], &[4]], &[1]),
            ("the last chunk does not come", &[&[0, 1, 2]], &[&[0, 1]], &[]),
            ("they come in another order", &[&[0, 1], &[2, 3]], &[&[2, 3], &[0, 1]], &[1]),
            ("two come mixed", &[&[0, 1, 2], &[3, 4, 5]], &[&[0, 3, 1, 4], &[2, 5]], &[]),
            ("nothing comes", &[&[0, 1]], &[], &[]),
        ];
        for (case, contents, frames, expected) in cases {
            assert_eq!(proven(&announced(contents, None), frames), expected, "{case}");
        }
    }

    #[test]
    fn a_content_of_another_digest_is_not() {
        let announced = announced(&[&[0, 1], &[2, 3], &[4, 5]], Some(1));
        assert_eq!(proven(&announced, &[&[0, 1, 2], &[3, 4, 5]]), [0, 2]);
    }
}
