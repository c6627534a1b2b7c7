//! Chooses which frames are restored at the same time. Pure.

use sluice_common::caps;
use sluice_common::transfer::{Codec, Frame};

/// Frames restored at once: each takes a thread that decodes and one that hashes and writes.
const AT_ONCE: usize = 2;
/// What frames that are restored at the same time may take together, in shares as [`Need`] counts them.
const SHARES: u64 = 1_000;

/// Memory that restoring a frame takes, in thousandths of the bound of its codec, so that any frames together stay below the
/// highest bound of any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// What it takes for as long as it is restored.
    own: u64,
    /// What frames hand on to each other: the one that takes most decides.
    shared: u64,
}

impl Need {
    /// Returns what a frame needs.
    pub(super) fn of(frame: &Frame) -> Self {
        let shares = |bytes: u64| (bytes.saturating_mul(SHARES) / bound_of(frame.codec)).min(SHARES);
        let shared = frame.shared_bytes();
        Self { own: shares(frame.restoring_bytes() - shared), shared: shares(shared) }
    }

    /// Returns what frames take that are restored at the same time.
    fn together(needs: &[Self], and: Self) -> u64 {
        let shared = needs.iter().map(|need| need.shared).max().unwrap_or(0).max(and.shared);
        needs.iter().map(|need| need.own).sum::<u64>() + and.own + shared
    }
}

/// Returns the memory that frames of a codec may take.
fn bound_of(codec: Codec) -> u64 {
    let agent = match codec {
        Codec::Zstd | Codec::Filtered => caps::RECEIVER_BYTES_MAX,
        Codec::Image | Codec::Archive => caps::RECEIVER_AWARE_BYTES_MAX,
    };
    agent - caps::AGENT_BYTES - u64::from(caps::CONTENT_WINDOW_BYTES)
}

/// Returns how many bytes of frames that have come may wait in memory: what is left of it beside those of a plan that are
/// restored at the same time.
pub(super) fn room<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> u64 {
    let (mut bound, mut largest, mut shared) = (bound_of(Codec::Zstd), [0; AT_ONCE], 0);
    for frame in frames {
        bound = bound.max(bound_of(frame.codec));
        shared = frame.shared_bytes().max(shared);
        let least = largest.iter_mut().min().expect("some are restored at once");
        *least = (frame.restoring_bytes() - frame.shared_bytes()).max(*least);
    }
    bound.saturating_sub(largest.iter().sum::<u64>() + shared).min(caps::WAITING_FRAMES_BYTES_MAX)
}

/// Chooses the next frame of those that are `ready`, given by their needs in the order of the plan, while frames of the
/// needs `running` are being restored. The first that fits; where nothing runs, the first.
pub(super) fn next(ready: impl IntoIterator<Item = Need>, running: &[Need]) -> Option<usize> {
    if running.len() >= AT_ONCE {
        return None;
    }
    ready.into_iter().position(|need| running.is_empty() || Need::together(running, need) <= SHARES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn frames_run_together_while_their_memory_allows_it() {
        let need = |(own, shared): &(u64, u64)| Need { own: *own, shared: *shared };
        for (name, ready, running, expected) in [
            ("nothing is ready", &[][..], &[][..], None),
            ("one alone, however large", &[(1_000, 0)], &[], Some(0)),
            ("one alone, whatever it leans on", &[(900, 900)], &[], Some(0)),
            ("two small ones", &[(300, 0)], &[(300, 0)], Some(0)),
            ("two that fill it", &[(500, 0)], &[(500, 0)], Some(0)),
            ("too large beside another", &[(501, 0)], &[(500, 0)], None),
            ("a small one passes a large one", &[(900, 0), (100, 0)], &[(500, 0)], Some(1)),
            ("two that lean, one after the other", &[(300, 400)], &[(300, 350)], Some(0)),
            ("what the other leans on counts", &[(300, 0)], &[(300, 401)], None),
            ("what it leans on counts", &[(300, 401)], &[(300, 400)], None),
            ("never three", &[(1, 0)], &[(1, 0), (1, 0)], None),
        ] {
            let running: Vec<Need> = running.iter().map(need).collect();
            assert_eq!(next(ready.iter().map(need), &running), expected, "{name}");
        }
    }

    /// A frame of so many MiB that leans on so many.
    fn frame(codec: Codec, raw_mib: u64, base_mib: u64) -> Frame {
        use sluice_common::digest::Digest;
        use sluice_common::transfer::{Extent, Lean, Part};
        let extent = |mib: u64| Extent { content: 0, offset: 0, len: mib * MIB };
        let parts = vec![Part { extent: extent(raw_mib), digest: Digest::of(b"part") }];
        let base = if base_mib == 0 { Vec::new() } else { vec![Lean::Base(extent(base_mib))] };
        Frame { codec, digest: Digest::of(b"frame"), wire_len: 0, base, parts }
    }

    #[test]
    fn two_frames_of_a_quick_update_run_together_and_two_of_the_largest_do_not() {
        for (name, raw, base, expected) in [
            ("small files", 8, 8, Some(0)),
            ("a large file each", 16, 16, None),
            ("segments of the largest", 16, 28, None),
        ] {
            let need = Need::of(&frame(Codec::Zstd, raw, base));
            assert_eq!(next([need], &[need]), expected, "{name}");
            assert_eq!(next([need], &[]), Some(0), "{name}");
        }
        let filtered = Need::of(&frame(Codec::Filtered, 8, 8));
        assert_eq!(filtered.shared, 0, "it has what it leans on to itself");
        let image = Need::of(&frame(Codec::Image, 32, 64));
        assert!(image.shared == 0 && image.own > 500, "{image:?}");
    }

    #[test]
    fn frames_wait_in_memory_where_those_that_are_restored_leave_some() {
        for (name, frames, expected) in [
            ("no frame", &[][..], 12),
            ("a quick cold install", &[(16, 0), (16, 0), (16, 0), (4, 0)], 12),
            ("a quick update", &[(8, 8), (8, 8), (8, 8)], 12),
            ("a large one and a small one", &[(5, 0), (36, 0)], 3),
            ("what they lean on counts once", &[(10, 12), (12, 9)], 10),
            ("two that fill it", &[(22, 0), (22, 0)], 0),
            ("two that never run together", &[(44, 0), (44, 0)], 0),
        ] {
            let frames: Vec<Frame> =
                frames.iter().map(|(raw, base)| frame(Codec::Zstd, *raw, *base)).collect();
            assert_eq!(room(&frames), expected * MIB, "{name}");
        }
        assert_eq!(room(&[frame(Codec::Image, 32, 0)]), 12 * MIB, "what reads its base by place has more");
    }
}
