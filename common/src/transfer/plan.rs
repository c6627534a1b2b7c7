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
mod spread;

use crate::caps;
use crate::manifest::Manifest;
use crate::path::RelPath;

use super::{Effort, FrameSpec};
use bases::BaseIndex;

/// Raw bytes that small files gather to in a quick frame, and bytes that they lean on. Four times the window of zstd -3, so that a
/// larger frame would hardly be smaller for it; and a receiver begins to restore once a frame is whole, ends when the last one is, and
/// restores two at once in little memory. Something less than 8 MiB, so that a buffer for it fills whole huge pages and no more.
const QUICK_FRAME_BYTES: u64 = (8 << 20) - (64 << 10);

/// Parts that a frame has at most: an encoder holds them with their digests, 56 bytes each. Files of less than 128 bytes alone
/// fill no quick frame before.
const PARTS_MAX: usize = 64 * 1024;

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
    match effort {
        Effort::Quick => spread::apart(frames),
        // What a frame leans on comes before it, and takes the time that it has.
        Effort::Best => frames,
    }
}

/// Returns the raw bytes that small files gather to, and those that they lean on.
fn full(effort: Effort) -> u64 {
    match effort {
        Effort::Quick => QUICK_FRAME_BYTES,
        Effort::Best => caps::ZSTD_FRAME_BYTES_MAX,
    }
}

/// A content of the target that has to travel.
struct Wanted<'a> {
    number: u32,
    size: u64,
    path: &'a RelPath,
}
