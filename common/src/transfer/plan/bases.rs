//! What of the base a changed content leans on.

use std::collections::{HashMap, HashSet};

use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::path::RelPath;

/// A content of the base to lean on.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub(super) number: u32,
    pub(super) size: u64,
}

/// Finds base contents by digest, path, shape of path and file name.
#[derive(Default)]
pub(super) struct BaseIndex<'a> {
    digests: HashSet<Digest>,
    by_path: HashMap<&'a str, Candidate>,
    by_shape: HashMap<String, Vec<Candidate>>,
    by_name: HashMap<String, Vec<Candidate>>,
}

impl<'a> BaseIndex<'a> {
    pub(super) fn new(base: Option<&'a Manifest>) -> Self {
        let mut index = Self::default();
        let Some(base) = base else { return index };
        let numbers: HashMap<Digest, u32> =
            base.contents().iter().enumerate().map(|(i, content)| (content.digest, i as u32)).collect();
        for (path, file) in base.files().filter(|(_, file)| file.size > 0) {
            let candidate = Candidate { number: numbers[&file.digest], size: file.size };
            index.digests.insert(file.digest);
            index.by_path.insert(path.as_str(), candidate);
            index.by_shape.entry(shape(path.as_str())).or_default().push(candidate);
            index.by_name.entry(shape(path.file_name())).or_default().push(candidate);
        }
        index
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.digests.contains(digest)
    }

    /// Returns the most promising base content: of several alike, the one nearest in size.
    pub(super) fn candidate(&self, path: &RelPath, size: u64) -> Option<Candidate> {
        let nearest =
            |candidates: &Vec<Candidate>| candidates.iter().copied().min_by_key(|c| c.size.abs_diff(size));
        self.by_path
            .get(path.as_str())
            .copied()
            .or_else(|| self.by_shape.get(&shape(path.as_str())).and_then(nearest))
            .or_else(|| self.by_name.get(&shape(path.file_name())).filter(|c| c.len() <= 4).and_then(nearest))
    }
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
