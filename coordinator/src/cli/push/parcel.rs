//! What a push sends: a digest; where that is not known, manifest, index, and groups of chunks read from the tree as
//! they are asked for.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use sluice_common::digest::Digest;
use sluice_common::index::{self, PackageIndex};
use sluice_common::manifest::Manifest;
use sluice_common::transfer::{ContentSource, encode_once};
use sluice_common::tree::Tree;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use crate::cli::error::{advise, context as advice};
use crate::cli::output::Output;
use crate::cli::progress;

/// zstd level of uploads: as fast as hashing; the coordinator may compress better later.
const LEVEL: i32 = 3;

/// What to do about files that are not what they were when the directory was scanned.
const LEAVE_ALONE: &str =
    "let nothing write to the directory while it is packed, then run the same command again";

/// A package ready to be pushed. It is cut into chunks when it turns out that the coordinator does not have it.
pub(super) struct Parcel {
    pub(super) tree: Arc<Tree>,
    pub(super) digest: Digest,
    description: OnceCell<Arc<Description>>,
}

/// A package as a coordinator must know it that does not have it.
pub(super) struct Description {
    tree: Arc<Tree>,
    package: PackageIndex,
    /// Where each chunk stands: its content's number and the offset within.
    places: Vec<(u32, u64)>,
    /// As many as groups were compressed at the same time.
    presses: Mutex<Vec<Press>>,
}

/// What a group is compressed with, used again for the next one: memory that is new costs as much as hashing what is written to it.
struct Press {
    raw: Vec<u8>,
    compressor: zstd::bulk::Compressor<'static>,
}

/// Chunks that travel as one message.
pub(super) struct Group {
    pub(super) numbers: Vec<u32>,
    pub(super) raw_len: u64,
}

/// Passes a source on and counts what is read.
struct Counted<'a> {
    source: &'a dyn ContentSource,
    count: &'a (dyn Fn(u64) + Sync),
}

struct CountedReader<'a> {
    reader: Box<dyn Read + 'a>,
    count: &'a (dyn Fn(u64) + Sync),
}

impl ContentSource for Counted<'_> {
    fn reader(&self, content: &Digest, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(CountedReader { reader: self.source.reader(content, offset)?, count: self.count }))
    }
}

impl Read for CountedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        (self.count)(read as u64);
        Ok(read)
    }
}

impl Parcel {
    pub(super) fn new(tree: Tree) -> Self {
        Self { digest: tree.manifest().digest(), tree: tree.into(), description: OnceCell::new() }
    }

    /// Returns the description where it was made.
    pub(super) fn described(&self) -> Option<&Arc<Description>> {
        self.description.get()
    }

    /// Cuts the tree into chunks, once, on a blocking thread.
    pub(super) async fn describe(&self, output: Output) -> anyhow::Result<&Arc<Description>> {
        let describe = || async {
            let bar = progress::bytes(output, "chunking", contents_bytes(self.tree.manifest()));
            let tree = self.tree.clone();
            spawn_blocking(move || {
                let counted = Counted { source: &*tree, count: &|bytes| bar.inc(bytes) };
                let package = PackageIndex::build(tree.manifest(), &counted);
                bar.finish_and_clear();
                let package = package.with_context(|| advice("cannot read the tree", LEAVE_ALONE))?;
                Ok(Arc::new(Description::new(tree, package)))
            })
            .await?
        };
        self.description.get_or_try_init(describe).await
    }
}

impl Description {
    fn new(tree: Arc<Tree>, package: PackageIndex) -> Self {
        let places = places(&package, tree.manifest().contents().len());
        Self { places, package, tree, presses: Mutex::default() }
    }

    /// Returns manifest and index, compressed. Made anew for each attempt: of a million entries they are not worth keeping for
    /// one that may never come.
    pub(super) fn compressed(&self) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
        Ok((encode_once(self.tree.manifest().as_bytes())?, encode_once(self.package.as_bytes())?))
    }

    /// Returns how many chunks the package has.
    pub(super) fn chunk_count(&self) -> usize {
        self.package.chunks().len()
    }

    /// Returns the length of a chunk.
    fn len_of(&self, number: u32) -> u64 {
        u64::from(self.package.chunk(number).len)
    }

    /// Splits chunks into groups of at most so many raw bytes; a chunk that has more is a group by itself.
    pub(super) fn groups<'a>(
        &'a self,
        missing: &'a [Range<u32>],
        group_bytes: u64,
    ) -> impl Iterator<Item = Group> + 'a {
        let mut numbers = missing.iter().cloned().flatten().peekable();
        std::iter::from_fn(move || {
            let mut group = Group { numbers: Vec::new(), raw_len: 0 };
            while let Some(number) = numbers.next_if(|number| {
                group.numbers.is_empty() || group.raw_len + self.len_of(*number) <= group_bytes
            }) {
                group.raw_len += self.len_of(number);
                group.numbers.push(number);
            }
            (!group.numbers.is_empty()).then_some(group)
        })
    }

    /// Returns the raw bytes of chunks.
    pub(super) fn raw_len(&self, missing: &[Range<u32>]) -> u64 {
        missing.iter().cloned().flatten().map(|number| self.len_of(number)).sum()
    }

    /// Reads, checks and compresses a group. Blocks.
    pub(super) fn frame(&self, group: &Group) -> anyhow::Result<Vec<u8>> {
        let kept = self.presses().pop();
        let mut press = kept.map_or_else(Press::new, Ok)?;
        self.read(group, &mut press.raw)?;
        let frame = press.compressor.compress(&press.raw)?;
        self.presses().push(press);
        Ok(frame)
    }

    /// Reads the chunks of a group, one after the other, and checks that they are what they were.
    fn read(&self, group: &Group, raw: &mut Vec<u8>) -> anyhow::Result<()> {
        raw.clear();
        raw.reserve_exact(group.raw_len as usize);
        let content = |number: &u32| {
            let (content, offset) = self.places[*number as usize];
            (self.tree.manifest().contents().at(content).digest, offset)
        };
        let mut ends = Vec::with_capacity(group.numbers.len());
        for number in &group.numbers {
            let (digest, offset) = content(number);
            self.tree
                .reader(&digest, offset)
                .and_then(|reader| reader.take(self.len_of(*number)).read_to_end(raw))
                .with_context(|| advice(format!("cannot read {}", self.path_of(&digest)), LEAVE_ALONE))?;
            ends.push(raw.len());
        }
        let begins = std::iter::once(0).chain(ends.iter().copied());
        let pieces: Vec<&[u8]> = begins.zip(&ends).map(|(begin, end)| &raw[begin..*end]).collect();
        let mut found = group.numbers.iter().zip(Digest::of_each(&pieces));
        match found.find(|(number, digest)| self.package.chunk(**number).digest != *digest) {
            Some((number, _)) => {
                let path = self.path_of(&content(number).0);
                Err(advise(format_args!("{path} changed while it was pushed"), LEAVE_ALONE))
            }
            None => Ok(()),
        }
    }

    fn presses(&self) -> MutexGuard<'_, Vec<Press>> {
        self.presses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path_of(&self, content: &Digest) -> String {
        self.tree.root().join(index::path_of(self.tree.manifest(), content)).display().to_string()
    }
}

impl Press {
    fn new() -> io::Result<Self> {
        Ok(Self { raw: Vec::new(), compressor: zstd::bulk::Compressor::new(LEVEL)? })
    }
}

fn contents_bytes(manifest: &Manifest) -> u64 {
    manifest.contents().iter().map(|content| content.size).sum()
}

/// Finds the first place of every chunk.
fn places(package: &PackageIndex, contents: usize) -> Vec<(u32, u64)> {
    let mut places = Vec::with_capacity(package.chunks().len());
    for content in 0..contents as u32 {
        let mut offset = 0;
        for number in package.content(content) {
            // Chunks are numbered in the order of their first use.
            if number as usize == places.len() {
                places.push((content, offset));
            }
            offset += u64::from(package.chunk(number).len);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use fs_err as fs;
    use sluice_common::caps;

    use super::*;
    use crate::cli::error;

    #[test]
    fn groups_hold_each_missing_chunk_once_within_the_limit_and_restore() {
        let dir = tempfile::tempdir().unwrap();
        let noise: Vec<u8> = (0..6_000_000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ (i >> 9) as u8)
            .collect();
        fs::write(dir.path().join("a"), &noise).unwrap();
        fs::write(dir.path().join("b"), &noise[..3_000_000]).unwrap();
        let tree = Tree::scan(dir.path()).unwrap();
        let package = PackageIndex::build(tree.manifest(), &tree).unwrap();
        let description = Description::new(tree.into(), package);
        let total = description.chunk_count() as u32;
        let missing = [0..3, 5..total];
        let groups: Vec<Group> = description.groups(&missing, caps::UPLOAD_GROUP_BYTES).collect();
        assert!(groups.len() >= 2 && groups.iter().all(|group| group.raw_len <= caps::UPLOAD_GROUP_BYTES));
        let numbers: Vec<u32> = groups.iter().flat_map(|group| group.numbers.clone()).collect();
        assert_eq!(numbers, (0..3).chain(5..total).collect::<Vec<_>>());
        assert_eq!(description.raw_len(&missing), groups.iter().map(|group| group.raw_len).sum::<u64>());
        for group in &groups {
            let raw =
                zstd::bulk::decompress(&description.frame(group).unwrap(), group.raw_len as usize).unwrap();
            let mut at = 0;
            for number in &group.numbers {
                let chunk = description.package.chunk(*number);
                assert_eq!(Digest::of(&raw[at..at + chunk.len as usize]), chunk.digest);
                at += chunk.len as usize;
            }
            assert_eq!(at, raw.len());
        }
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("log"), b"one").unwrap();
        let tree = Tree::scan(dir.path()).unwrap();
        let package = PackageIndex::build(tree.manifest(), &tree).unwrap();
        let description = Description::new(tree.into(), package);
        fs::write(dir.path().join("log"), b"two").unwrap();
        let missing = std::iter::once(0..1).collect::<Vec<_>>();
        let group = description.groups(&missing, caps::UPLOAD_GROUP_BYTES).next().unwrap();
        let said = |error: anyhow::Error| error::render(&error);
        let error = said(description.frame(&group).unwrap_err());
        assert!(error.contains("log changed while it was pushed"), "{error}");
        assert!(error.ends_with(&format!("\nhint: {LEAVE_ALONE}")), "{error}");
        fs::remove_file(dir.path().join("log")).unwrap();
        let error = said(description.frame(&group).unwrap_err());
        assert!(
            error.contains("log\n  because: ") && error.ends_with(&format!("\nhint: {LEAVE_ALONE}")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_file_that_grows_after_the_scan_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("app.log"), vec![7; 100_000]).unwrap();
        let parcel = Parcel::new(Tree::scan(dir.path()).unwrap());
        let mut log = fs::OpenOptions::new().append(true).open(dir.path().join("app.log")).unwrap();
        log.write_all(b"one line more\n").unwrap();
        let error = parcel.describe(Output::new(false, true)).await.map(drop).unwrap_err();
        let text = error::render(&error.context("cannot push ./build"));
        assert!(text.contains("because: app.log changed while it was read"), "{text}");
        assert!(text.ends_with(&format!("\nhint: {LEAVE_ALONE}")), "{text}");
    }
}
