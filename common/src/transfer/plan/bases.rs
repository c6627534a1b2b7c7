//! What of the base a changed content leans on.

use crate::digest::Digest;
use crate::manifest::{EntryKind, FileEntry, Manifest};
use crate::path::RelPath;

/// Files of one name among which one is guessed: of more, like `__init__.py`, the wrong one is likely.
const NAMESAKES_MAX: usize = 4;

/// A content of the base to lean on.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub(super) number: u32,
    pub(super) size: u64,
}

/// Finds base contents by digest, path, shape of path and file name. Sorted lists of numbers, not tables of texts: a
/// base may have a million files.
#[derive(Default)]
pub(super) struct BaseIndex<'a> {
    base: Option<&'a Manifest>,
    /// Number of each content, sorted by digest.
    numbers: Vec<(Digest, u32)>,
    by_shape: Vec<(u64, Candidate)>,
    by_name: Vec<(u64, Candidate)>,
}

impl<'a> BaseIndex<'a> {
    pub(super) fn new(base: Option<&'a Manifest>) -> Self {
        let Some(manifest) = base else { return Self::default() };
        let numbered = (0..).zip(manifest.first_files());
        let mut numbers: Vec<_> = numbered.map(|(number, (_, file))| (file.digest, number)).collect();
        numbers.sort_unstable();
        let mut index = Self { base, numbers, by_shape: Vec::new(), by_name: Vec::new() };
        for (path, file) in manifest.files().filter(|(_, file)| file.size > 0) {
            let candidate = index.of_file(file);
            index.by_shape.extend(candidate.map(|found| (hash(&shape(path.as_str())), found)));
            index.by_name.extend(candidate.map(|found| (hash(&shape(path.file_name())), found)));
        }
        for list in [&mut index.by_shape, &mut index.by_name] {
            list.sort_unstable_by_key(|(hash, candidate)| (*hash, candidate.number));
        }
        index
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.number(digest).is_some()
    }

    /// Returns the most promising base content: of several alike, the one nearest in size.
    pub(super) fn candidate(&self, path: &RelPath, size: u64) -> Option<Candidate> {
        let nearest = |candidates: &[(u64, Candidate)]| {
            candidates.iter().map(|(_, candidate)| *candidate).min_by_key(|c| c.size.abs_diff(size))
        };
        self.at(path).or_else(|| nearest(alike(&self.by_shape, &shape(path.as_str())))).or_else(|| {
            let named = alike(&self.by_name, &shape(path.file_name()));
            if named.len() <= NAMESAKES_MAX { nearest(named) } else { None }
        })
    }

    fn at(&self, path: &RelPath) -> Option<Candidate> {
        match &self.base?.get(path.as_str())?.kind {
            EntryKind::File(file) if file.size > 0 => self.of_file(file),
            EntryKind::File(_) | EntryKind::Directory | EntryKind::Symlink { .. } => None,
        }
    }

    fn of_file(&self, file: &FileEntry) -> Option<Candidate> {
        self.number(&file.digest).map(|number| Candidate { number, size: file.size })
    }

    fn number(&self, digest: &Digest) -> Option<u32> {
        let at = self.numbers.binary_search_by(|(known, _)| known.cmp(digest)).ok()?;
        Some(self.numbers[at].1)
    }
}

/// Returns those of a text. Two texts of one hash cost a bad base, no more.
fn alike<'a>(sorted: &'a [(u64, Candidate)], text: &str) -> &'a [(u64, Candidate)] {
    let wanted = hash(text);
    let begin = sorted.partition_point(|(hash, _)| *hash < wanted);
    let len = sorted[begin..].partition_point(|(hash, _)| *hash == wanted);
    &sorted[begin..begin + len]
}

/// FNV-1a: the same everywhere, so that a plan is.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Returns a path with what versions and build hashes change replaced by `#`: runs of digits, and words of six or
/// more hex digits. `numpy-2.1.3` meets `numpy-2.2.0`, and `libblas-56d6093b.so` meets `libblas-1f0e2a77.so`.
fn shape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while !rest.is_empty() {
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (token, tail) = rest.split_at(word);
        push_shape(&mut out, token);
        let separator = tail.find(|c: char| c.is_ascii_alphanumeric()).unwrap_or(tail.len());
        out.push_str(&tail[..separator]);
        rest = &tail[separator..];
    }
    out
}

fn push_shape(out: &mut String, word: &str) {
    let is_hash = word.len() >= 6
        && word.bytes().all(|b| b.is_ascii_hexdigit())
        && word.bytes().any(|b| b.is_ascii_digit());
    if is_hash {
        return out.push('#');
    }
    let mut in_digits = false;
    for c in word.chars() {
        match (c.is_ascii_digit(), in_digits) {
            (true, true) => {}
            (true, false) => out.push('#'),
            (false, _) => out.push(c),
        }
        in_digits = c.is_ascii_digit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_build_hashes_do_not_change_a_shape() {
        for (a, b) in [
            ("numpy-2.1.3.dist-info/RECORD", "numpy-2.10.0.dist-info/RECORD"),
            ("libs/libblas64_-56d6093b.so", "libs/libblas64_-1f0e2a77.so"),
            ("app.3f2a9c1.js", "app.0011aabbccdd.js"),
        ] {
            assert_eq!(shape(a), shape(b));
        }
        for (a, b) in [("facade.py", "decade.py"), ("a/b", "a_b"), ("x86", "arm")] {
            assert_ne!(shape(a), shape(b));
        }
    }
}
