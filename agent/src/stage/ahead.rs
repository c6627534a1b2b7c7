//! Has the disk read what frames lean on while others are still restored: of a base that is not in the cache, one frame's worth
//! would otherwise be waited for after the other.

use std::collections::HashSet;
use std::fs::File;
use std::num::NonZero;

use rustix::fs::{Advice, fadvise};
use sluice_common::transfer::{Extent, Frame, Lean};

use super::target::Planned;

/// Bytes asked for at a time: of one request Linux reads no more than the device takes at once, or than it reads ahead by itself
/// (`force_page_cache_ra`), and 128 KiB is what it reads ahead unless it was told otherwise.
const STEP_BYTES: u64 = 128 << 10;
/// Most bytes asked for of one frame: a base that is read by place may be larger than what the cache can spare.
const FRAME_BYTES_MAX: u64 = 32 << 20;

/// The frames of a plan, by number, of whose base the disk was asked for.
#[derive(Debug, Default)]
pub(super) struct Ahead(HashSet<usize>);

impl Ahead {
    /// Returns the frames to ask for when one is begun, while the one that may follow waits: each of them once.
    pub(super) fn begin(&mut self, frame: usize, following: Option<usize>) -> Vec<usize> {
        let mut frames: Vec<usize> = std::iter::once(frame).chain(following).collect();
        frames.retain(|frame| self.0.insert(*frame));
        frames
    }
}

/// Asks for what a frame leans on of the base, and does not wait for it. What cannot be asked for is passed over: whoever reads it
/// will be told why.
pub(super) fn ask(planned: &Planned, frame: &Frame) {
    for extent in within(FRAME_BYTES_MAX, frame.base.iter().filter_map(Lean::of_base)) {
        if let Some(file) = planned.open_base(extent.content) {
            ask_file(&file, &extent);
        }
    }
}

/// Returns the first so many bytes of some extents.
fn within<'a>(mut left: u64, extents: impl Iterator<Item = &'a Extent>) -> impl Iterator<Item = Extent> {
    extents.map_while(move |extent| {
        let len = extent.len.min(left);
        left -= len;
        (len > 0).then_some(Extent { len, ..*extent })
    })
}

fn ask_file(file: &File, extent: &Extent) {
    let end = extent.offset + extent.len;
    for begin in (extent.offset..end).step_by(STEP_BYTES as usize) {
        let len = NonZero::new(STEP_BYTES.min(end - begin));
        if fadvise(file, begin, len, Advice::WillNeed).is_err() {
            // No file system of its kind takes advice.
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn each_frame_is_asked_for_once_and_before_its_turn_where_it_waits() {
        let mut ahead = Ahead::default();
        for (frame, following, expected) in [
            (0, Some(1), &[0, 1][..]),
            (1, Some(2), &[2]),
            (2, None, &[]),
            (3, Some(7), &[3, 7]),
            (7, Some(3), &[]),
        ] {
            assert_eq!(ahead.begin(frame, following), expected, "{frame}");
        }
    }

    #[test]
    fn no_more_is_asked_for_than_the_cache_can_spare() {
        let extent = |offset: u64, len: u64| Extent { content: 3, offset, len };
        let all = [extent(0, 10), extent(5, 20), extent(0, 30)];
        for (left, expected) in [
            (0, vec![]),
            (7, vec![extent(0, 7)]),
            (10, vec![extent(0, 10)]),
            (25, vec![extent(0, 10), extent(5, 15)]),
            (100, all.to_vec()),
        ] {
            assert_eq!(within(left, all.iter()).collect::<Vec<_>>(), expected, "{left}");
        }
    }

    /// Returns the bytes that this thread has had the disk read so far; nothing where the kernel does not count them.
    fn read_from_disk() -> Option<u64> {
        let counts = fs_err::read_to_string("/proc/thread-self/io").ok()?;
        counts.lines().find_map(|line| line.strip_prefix("read_bytes: "))?.parse().ok()
    }

    #[test]
    fn the_disk_reads_what_is_asked_for_and_nothing_again() {
        const LEN: u64 = 1 << 20;
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), vec![7; 3 * LEN as usize]).unwrap();
        file.as_file().sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let cost = |work: &dyn Fn()| {
            let before = read_from_disk()?;
            work();
            Some(read_from_disk()? - before)
        };
        let read = |offset: u64| file.as_file().read_exact_at(&mut vec![0; LEN as usize], offset).unwrap();
        if cost(&|| read(2 * LEN)).is_none_or(|bytes| bytes < LEN) {
            eprintln!("skipped: no disk is seen to read here");
            return;
        }
        let asked = Extent { content: 0, offset: 0, len: LEN };
        let bytes = cost(&|| ask_file(file.as_file(), &asked)).unwrap();
        assert!((LEN..2 * LEN).contains(&bytes), "{bytes} bytes");
        assert_eq!(cost(&|| read(0)), Some(0), "it was asked for");
    }
}
