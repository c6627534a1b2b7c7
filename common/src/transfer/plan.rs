//! Decides what travels from one package to the next, and in which frames. Pure.
//!
//! 1. A content that the base has does not travel.
//! 2. A content whose path, or a path that differs from it only in digits, or else whose file name the base has,
//!    travels against that base content. Small ones share a frame.
//! 3. Everything else travels plain, ordered by likeness, in solid frames.

use std::collections::{HashMap, HashSet};

use crate::caps;
use crate::digest::Digest;
use crate::manifest::{Content, Manifest};
use crate::path::RelPath;

use super::{Extent, FrameSpec};

/// Base bytes kept on either side of a segment of a file too large for one frame.
const SEGMENT_MARGIN_BYTES: u64 = (caps::FRAME_BASE_BYTES_MAX - caps::FRAME_BYTES_MAX) / 2;

/// Returns the frames that turn `base` into `target`.
pub fn plan(base: Option<&Manifest>, target: &Manifest) -> Vec<FrameSpec> {
    let bases = BaseIndex::new(base);
    let mut changed = Vec::new();
    let mut fresh = Vec::new();
    for (number, (path, content)) in first_paths(target).into_iter().enumerate() {
        if content.size == 0 || bases.has(&content.digest) {
            continue;
        }
        let wanted = Wanted { number: number as u32, size: content.size, path };
        match bases.candidate(path, content.size) {
            Some(candidate) => changed.push((wanted, candidate)),
            None => fresh.push(wanted),
        }
    }
    let mut frames = Vec::new();
    against_frames(&changed, &mut frames);
    plain_frames(fresh, &mut frames);
    frames
}

/// A content of the target that has to travel.
struct Wanted<'a> {
    number: u32,
    size: u64,
    path: &'a RelPath,
}

/// A content of the base to lean on.
#[derive(Clone, Copy)]
struct Candidate {
    number: u32,
    size: u64,
}

/// Returns each distinct content with its first path, numbered as [`Manifest::contents`] numbers them.
fn first_paths(manifest: &Manifest) -> Vec<(&RelPath, Content)> {
    let mut seen = HashSet::new();
    manifest
        .files()
        .filter(|(_, file)| seen.insert(file.digest))
        .map(|(path, file)| (path, Content { digest: file.digest, size: file.size }))
        .collect()
}

/// Finds base contents by digest, path, shape of path and file name.
#[derive(Default)]
struct BaseIndex<'a> {
    digests: HashSet<Digest>,
    by_path: HashMap<&'a str, Candidate>,
    by_shape: HashMap<String, Vec<Candidate>>,
    by_name: HashMap<String, Vec<Candidate>>,
}

impl<'a> BaseIndex<'a> {
    fn new(base: Option<&'a Manifest>) -> Self {
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

    fn has(&self, digest: &Digest) -> bool {
        self.digests.contains(digest)
    }

    /// Returns the most promising base content: of several alike, the one nearest in size.
    fn candidate(&self, path: &RelPath, size: u64) -> Option<Candidate> {
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

/// Groups changed contents: small ones share a frame and its base, large ones are cut into segments.
fn against_frames(changed: &[(Wanted<'_>, Candidate)], frames: &mut Vec<FrameSpec>) {
    let mut group = FrameSpec { base: Vec::new(), parts: Vec::new() };
    for (wanted, base) in changed {
        let whole = Extent { content: wanted.number, offset: 0, len: wanted.size };
        let fits =
            |raw: u64, leaned: u64| raw <= caps::FRAME_SOLID_BYTES && leaned <= caps::FRAME_SOLID_BYTES;
        if !fits(wanted.size, base.size) {
            segments(wanted, base, frames);
            continue;
        }
        if !fits(group.raw_len() + wanted.size, group.base_len() + base.size) {
            frames.push(std::mem::replace(&mut group, FrameSpec { base: Vec::new(), parts: Vec::new() }));
        }
        group.base.push(Extent { content: base.number, offset: 0, len: base.size });
        group.parts.push(whole);
    }
    if !group.parts.is_empty() {
        frames.push(group);
    }
}

/// Cuts a large content into frames, each against the base around the same place.
fn segments(wanted: &Wanted<'_>, base: &Candidate, frames: &mut Vec<FrameSpec>) {
    let mut offset = 0;
    while offset < wanted.size {
        let len = caps::FRAME_BYTES_MAX.min(wanted.size - offset);
        let from = offset
            .saturating_sub(SEGMENT_MARGIN_BYTES)
            .min(base.size.saturating_sub(caps::FRAME_BASE_BYTES_MAX));
        let base_len = caps::FRAME_BASE_BYTES_MAX.min(base.size - from);
        frames.push(FrameSpec {
            base: vec![Extent { content: base.number, offset: from, len: base_len }],
            parts: vec![Extent { content: wanted.number, offset, len }],
        });
        offset += len;
    }
}

/// Orders fresh contents by likeness and fills solid frames; only a content larger than a frame is cut.
fn plain_frames(mut fresh: Vec<Wanted<'_>>, frames: &mut Vec<FrameSpec>) {
    fresh.sort_by(|a, b| {
        let key = |w: &Wanted<'_>| (w.path.extension().to_owned(), w.path.file_name().to_owned());
        key(a).cmp(&key(b)).then_with(|| a.path.cmp(b.path))
    });
    let mut parts: Vec<Extent> = Vec::new();
    let mut room = caps::FRAME_SOLID_BYTES;
    for wanted in fresh {
        if wanted.size > room && wanted.size <= caps::FRAME_SOLID_BYTES {
            flush(&mut parts, &mut room, frames);
        }
        let mut offset = 0;
        while offset < wanted.size {
            let len = room.min(wanted.size - offset);
            parts.push(Extent { content: wanted.number, offset, len });
            (offset, room) = (offset + len, room - len);
            if room == 0 {
                flush(&mut parts, &mut room, frames);
            }
        }
    }
    flush(&mut parts, &mut room, frames);
}

fn flush(parts: &mut Vec<Extent>, room: &mut u64, frames: &mut Vec<FrameSpec>) {
    if !parts.is_empty() {
        frames.push(FrameSpec { base: Vec::new(), parts: std::mem::take(parts) });
    }
    *room = caps::FRAME_SOLID_BYTES;
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
