//! Decides what travels from one package to the next, and in which frames. Pure.
//!
//! 1. A content that the base has does not travel.
//! 2. A content whose path, or a path that differs from it only in digits, or else whose file name the base has,
//!    travels against that base content. Small ones share a frame.
//! 3. Everything else travels plain, ordered by likeness, in solid frames.

mod against;
mod archives;
mod bases;
mod plain;

use crate::manifest::Manifest;
use crate::path::RelPath;

use super::{Effort, FrameSpec};
use bases::BaseIndex;

/// Returns the frames that turn `base` into `target`. Quick frames are for zstd; better ones may be
/// larger, for the codecs that know what is in a file.
pub fn plan(base: Option<&Manifest>, target: &Manifest, effort: Effort) -> Vec<FrameSpec> {
    let has = base.map(|base| target.shared_with(base)).unwrap_or_default();
    let is_wanted =
        |number: u32, size: u64| size > 0 && !has.get(number as usize).is_some_and(Option::is_some);
    let wanted: Vec<Wanted<'_>> = (0..)
        .zip(target.first_files())
        .filter(|(number, (_, file))| is_wanted(*number, file.size))
        .map(|(number, (path, file))| Wanted { number, size: file.size, path })
        .collect();
    let (changed, fresh) = match base {
        Some(base) => BaseIndex::new(base, &wanted).part(wanted),
        None => (Vec::new(), wanted),
    };
    let mut frames = Vec::new();
    let (archives, others): (Vec<_>, Vec<_>) =
        changed.into_iter().partition(|(wanted, _)| archives::is_archive(wanted.path));
    against::frames(&archives, effort, &mut frames);
    against::frames(&others, effort, &mut frames);
    plain::frames(fresh, effort, &mut frames);
    frames
}

/// A content of the target that has to travel.
struct Wanted<'a> {
    number: u32,
    size: u64,
    path: &'a RelPath,
}
