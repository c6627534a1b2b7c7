//! Frames of what has no base.

use crate::caps;
use crate::path::RelPath;

use super::Wanted;
use crate::transfer::{Extent, FrameSpec};

/// Orders fresh contents by likeness and fills solid frames; only a content larger than a frame is cut.
pub(super) fn frames(mut fresh: Vec<Wanted<'_>>, frames: &mut Vec<FrameSpec>) {
    fresh.sort_by(|one, other| likeness(one).cmp(&likeness(other)));
    let mut parts: Vec<Extent> = Vec::new();
    let mut room = caps::ZSTD_FRAME_BYTES_MAX;
    for wanted in fresh {
        if wanted.size > room && wanted.size <= caps::ZSTD_FRAME_BYTES_MAX {
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

/// Returns by what contents are alike.
fn likeness<'a>(wanted: &Wanted<'a>) -> (&'a str, &'a str, &'a RelPath) {
    (wanted.path.extension(), wanted.path.file_name(), wanted.path)
}

fn flush(parts: &mut Vec<Extent>, room: &mut u64, frames: &mut Vec<FrameSpec>) {
    if !parts.is_empty() {
        frames.push(FrameSpec { base: Vec::new(), parts: std::mem::take(parts) });
    }
    *room = caps::ZSTD_FRAME_BYTES_MAX;
}
