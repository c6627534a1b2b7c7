//! Where each content of a manifest stands, in 12 bytes a file at most: a table of digests would take twenty times that,
//! which counts with a million entries.

use super::Manifest;
use crate::digest::Digest;

/// The files of one manifest by content. Contents are numbered as [`Manifest::contents`] numbers them, files by their entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Numbers of entries, sorted by digest and then by path.
    files: Vec<u32>,
    /// By number of content: where in `files` its places begin, and how many there are.
    spans: Vec<(u32, u32)>,
}

impl Places {
    pub(super) fn of(manifest: &Manifest) -> Self {
        let files = manifest.files_by_digest();
        let mut spans = Vec::new();
        let mut start = 0;
        for run in files.chunk_by(|one, other| manifest.digest_at(*one) == manifest.digest_at(*other)) {
            let len = run.len() as u32;
            spans.push((start, len));
            start += len;
        }
        spans.sort_unstable_by_key(|(start, _)| files[*start as usize]);
        Self { files, spans }
    }

    /// Returns the entries that hold a content, by number, sorted. Panics where the manifest has no such content.
    pub fn get(&self, content: u32) -> &[u32] {
        let (start, len) = self.spans[content as usize];
        &self.files[start as usize..][..len as usize]
    }

    /// Returns the number of the content with this digest. `manifest` is the one that these places are of.
    pub fn find(&self, manifest: &Manifest, digest: &Digest) -> Option<u32> {
        let is_before = |number: &u32| manifest.digest_at(*number) < Some(digest);
        let first = *self.files.get(self.files.partition_point(is_before))?;
        let starts_before = |(start, _): &(u32, u32)| self.files[*start as usize] < first;
        let content = self.spans.partition_point(starts_before) as u32;
        (manifest.digest_at(first) == Some(digest)).then_some(content)
    }
}
