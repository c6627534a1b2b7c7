//! What of the base a changed content leans on.

use crate::manifest::{FileEntry, Manifest};
use crate::path::RelPath;

use super::Wanted;

/// Files of one name among which one is guessed: of more, like `__init__.py`, the wrong one is likely.
const NAMESAKES_MAX: usize = 4;

/// A content of the base to lean on.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub(super) number: u32,
    pub(super) size: u64,
}

/// Finds base contents for what is wanted by path, shape of path and file name. Of the base's files those alone are listed
/// that something wanted may lean on: a base may have a million, of which few have changed.
pub(super) struct BaseIndex<'a> {
    base: &'a Manifest,
    by_shape: Vec<Alike>,
    by_name: Vec<Alike>,
}

/// The hash of a text, and a content that has a file with that text, by number.
type Alike = (u64, u32);

impl<'a> BaseIndex<'a> {
    pub(super) fn new(base: &'a Manifest, wanted: &[Wanted<'_>]) -> Self {
        let mut index = Self { base, by_shape: Vec::new(), by_name: Vec::new() };
        let elsewhere = || wanted.iter().filter(|wanted| index.at(wanted.path).is_none());
        let shapes = hashes(elsewhere().map(|wanted| shape(wanted.path.as_str())));
        let names = hashes(elsewhere().map(|wanted| shape(wanted.path.file_name())));
        if shapes.is_empty() {
            return index;
        }
        let (mut by_shape, mut by_name) = (Vec::new(), Vec::new());
        for (path, file) in base.files().filter(|(_, file)| file.size > 0) {
            let (shape_hash, name_hash) = (hash(&shape(path.as_str())), hash(&shape(path.file_name())));
            let wanted = [(&shapes, shape_hash, &mut by_shape), (&names, name_hash, &mut by_name)];
            for (hashes, hash, list) in wanted {
                if hashes.binary_search(&hash).is_ok() {
                    list.extend(base.content_number(&file.digest).map(|number| (hash, number)));
                }
            }
        }
        for list in [&mut by_shape, &mut by_name] {
            list.sort_unstable_by(|(hash, number), (other_hash, other)| {
                let by_size = || index.size(*number).cmp(&index.size(*other));
                hash.cmp(other_hash).then_with(by_size).then(number.cmp(other))
            });
        }
        (index.by_shape, index.by_name) = (by_shape, by_name);
        index
    }

    /// Parts what is wanted into what has something to lean on, and what has nothing.
    pub(super) fn part<'w>(
        &self,
        wanted: Vec<Wanted<'w>>,
    ) -> (Vec<(Wanted<'w>, Candidate)>, Vec<Wanted<'w>>) {
        let (mut changed, mut fresh) = (Vec::new(), Vec::new());
        for wanted in wanted {
            match self.candidate(&wanted) {
                Some(candidate) => changed.push((wanted, candidate)),
                None => fresh.push(wanted),
            }
        }
        (changed, fresh)
    }

    /// Returns the most promising base content: of several alike, the one nearest in size.
    fn candidate(&self, wanted: &Wanted<'_>) -> Option<Candidate> {
        let nearest = |alike: &[Alike]| self.nearest(alike, wanted.size);
        let path = wanted.path;
        self.at(path).or_else(|| nearest(alike(&self.by_shape, &shape(path.as_str())))).or_else(|| {
            let named = alike(&self.by_name, &shape(path.file_name()));
            if named.len() <= NAMESAKES_MAX { nearest(named) } else { None }
        })
    }

    fn at(&self, path: &RelPath) -> Option<Candidate> {
        let (_, FileEntry { digest, size, .. }) = self.base.get(path.as_str())?.file()?;
        let number = self.base.content_number(&digest).filter(|_| size > 0)?;
        Some(Candidate { number, size })
    }

    /// Returns of contents alike, sorted by size, the one nearest in size; of several the one of the lowest number.
    fn nearest(&self, alike: &[Alike], size: u64) -> Option<Candidate> {
        let at = |place: usize| {
            alike.get(place).map(|(_, number)| Candidate { number: *number, size: self.size(*number) })
        };
        let first_of = |size: u64| alike.partition_point(|(_, number)| self.size(*number) < size);
        let above = first_of(size);
        let below = above.checked_sub(1).and_then(at).and_then(|below| at(first_of(below.size)));
        let nearness = |candidate: &Candidate| (candidate.size.abs_diff(size), candidate.number);
        below.into_iter().chain(at(above)).min_by_key(nearness)
    }

    fn size(&self, number: u32) -> u64 {
        self.base.contents().at(number).size
    }
}

/// Hashes texts; sorted.
fn hashes(texts: impl Iterator<Item = String>) -> Vec<u64> {
    let mut hashes: Vec<u64> = texts.map(|text| hash(&text)).collect();
    hashes.sort_unstable();
    hashes
}

/// Returns those of a text. Two texts of one hash cost a bad base, no more.
fn alike<'a>(sorted: &'a [Alike], text: &str) -> &'a [Alike] {
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
