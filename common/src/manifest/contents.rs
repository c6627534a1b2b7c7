//! What a manifest's files hold: each content once, and where it stands. In eight bytes a file at most: a table of digests
//! would take twenty times that, which counts with a million entries.

use std::num::NonZero;

use super::{Content, Manifest, ManifestError};
use crate::digest::Digest;

/// The distinct contents of a package by number; none where there is no package. A view, to be passed by value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Contents<'a> {
    manifest: Option<&'a Manifest>,
}

impl<'a> Contents<'a> {
    pub(super) fn of(manifest: &'a Manifest) -> Self {
        Self { manifest: Some(manifest) }
    }

    /// Returns how many there are.
    pub fn len(self) -> usize {
        self.manifest.map_or(0, |manifest| manifest.numbering.firsts.len())
    }

    /// Says whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Returns a content by number.
    pub fn get(self, number: u32) -> Option<Content> {
        let manifest = self.manifest?;
        let first = manifest.numbering.first(*manifest.numbering.firsts.get(number as usize)?);
        let (_, file) = manifest.entry(first).file()?;
        Some(Content { digest: file.digest, size: file.size })
    }

    /// Returns a content by number. Panics where there is none: for numbers that were checked before.
    pub fn at(self, number: u32) -> Content {
        self.get(number).expect("the number of a content is checked where it comes from")
    }

    /// Returns all of them in the order of their numbers.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Content> {
        (0..self.len() as u32).map(move |number| self.at(number))
    }
}

/// The files of a manifest that hold one content: where the first of them stands in the order of digests, counted from one, so that
/// an option takes no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copies(NonZero<u32>);

impl Copies {
    fn at(index: u32) -> Self {
        Self(NonZero::<u32>::MIN.saturating_add(index))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The files of one manifest by content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Numbering {
    /// Numbers of the entries that are files, sorted by digest and then by path.
    files: Vec<u32>,
    /// By number of content: where in `files` its first place is.
    firsts: Vec<u32>,
}

impl Numbering {
    /// Numbers the contents of a manifest; one digest has one size.
    pub(super) fn of(manifest: &Manifest) -> Result<Self, ManifestError> {
        let files = files_by_digest(manifest);
        let mut firsts = Vec::new();
        for (at, number) in files.iter().enumerate() {
            let before = at.checked_sub(1).map(|before| files[before]);
            let Some(before) = before.filter(|before| is_same(manifest, *before, *number)) else {
                firsts.push(at as u32);
                continue;
            };
            if let (Some((_, one)), Some((path, other))) =
                (manifest.entry(before as usize).file(), manifest.entry(*number as usize).file())
                && one.size != other.size
            {
                return Err(ManifestError::SizeConflict(path.to_owned()));
            }
        }
        firsts.sort_unstable_by_key(|at| files[*at as usize]);
        firsts.shrink_to_fit();
        Ok(Self { files, firsts })
    }

    /// Returns the entry of each content's first file, in the order of contents.
    pub(super) fn firsts(&self) -> impl Iterator<Item = usize> {
        self.firsts.iter().map(|at| self.first(*at))
    }

    pub(super) fn places(&self, manifest: &Manifest, content: u32) -> impl Iterator<Item = usize> {
        self.copies(manifest, Copies::at(self.firsts[content as usize]))
    }

    pub(super) fn copies(&self, manifest: &Manifest, copies: Copies) -> impl Iterator<Item = usize> {
        let places = &self.files[copies.index()..];
        let first = places[0];
        places.iter().take_while(move |place| is_same(manifest, first, **place)).map(|place| *place as usize)
    }

    pub(super) fn find(&self, manifest: &Manifest, digest: &Digest) -> Option<u32> {
        let wanted = Some(digest.as_bytes());
        let at = self.files.partition_point(|number| manifest.digest_at(*number) < wanted);
        let first = *self.files.get(at)?;
        let content = self.firsts.partition_point(|other| self.files[*other as usize] < first) as u32;
        (manifest.digest_at(first) == wanted).then_some(content)
    }

    /// Goes through both lists, which are sorted by digest, at once.
    pub(super) fn shared_with(&self, manifest: &Manifest, other: &Manifest) -> Vec<Option<Copies>> {
        let theirs = (0..).zip(&other.numbering.files);
        let mut theirs = theirs.map(|(at, number)| (at, other.digest_at(*number))).peekable();
        let mut by_place = vec![None; self.files.len()];
        for (number, copies) in self.files.iter().zip(&mut by_place) {
            let digest = manifest.digest_at(*number);
            while theirs.next_if(|(_, other)| *other < digest).is_some() {}
            *copies = theirs.peek().filter(|(_, other)| *other == digest).map(|(at, _)| Copies::at(*at));
        }
        self.firsts.iter().map(|at| by_place[*at as usize]).collect()
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (size_of_val(&self.files[..]) + size_of_val(&self.firsts[..])) as u64
    }

    pub(super) fn file_count(&self) -> u64 {
        self.files.len() as u64
    }

    fn first(&self, at: u32) -> usize {
        self.files[at as usize] as usize
    }
}

fn is_same(manifest: &Manifest, one: u32, other: u32) -> bool {
    one == other || manifest.digest_at(one) == manifest.digest_at(other)
}

/// Returns the numbers of the entries that are files, sorted by digest and then by path.
fn files_by_digest(manifest: &Manifest) -> Vec<u32> {
    // With the digest's first bytes beside each number hardly any comparison has to look at an entry.
    let begin = |digest: &[u8; Digest::BYTES]| {
        u32::from_be_bytes(*digest.first_chunk().expect("a digest has more than four bytes"))
    };
    let keyed = |number: u32| manifest.digest_at(number).map(|digest| (begin(digest), number));
    let mut files: Vec<(u32, u32)> = (0..manifest.len() as u32).filter_map(keyed).collect();
    files.sort_unstable_by(|(begin, number), (other_begin, other)| {
        let by_digest =
            begin.cmp(other_begin).then_with(|| manifest.digest_at(*number).cmp(&manifest.digest_at(*other)));
        by_digest.then_with(|| number.cmp(other))
    });
    files.into_iter().map(|(_, number)| number).collect()
}
