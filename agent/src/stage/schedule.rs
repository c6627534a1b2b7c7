//! Chooses which frames are restored at the same time. Pure.

use sluice_common::caps;
use sluice_common::transfer::{Codec, Frame};

/// Frames restored at once: each takes a thread that decodes and one that hashes and writes.
const AT_ONCE: usize = 2;
/// What frames that are restored at the same time may take together, in shares as [`share`] counts them.
const SHARES: u64 = 1_000;

/// Returns how much of the memory that an agent may take for frames one of them takes: thousandths of the bound of its
/// codec, so that any frames together stay below the highest bound of any of them.
pub(super) fn share(frame: &Frame) -> u64 {
    (frame.restoring_bytes().saturating_mul(SHARES) / bound_of(frame.codec)).min(SHARES)
}

/// Returns the memory that frames of a codec may take.
fn bound_of(codec: Codec) -> u64 {
    let agent = match codec {
        Codec::Zstd | Codec::Filtered => caps::RECEIVER_BYTES_MAX,
        Codec::Image | Codec::Archive => caps::RECEIVER_AWARE_BYTES_MAX,
    };
    agent - caps::AGENT_BYTES
}

/// Returns how many bytes of frames that have come may wait in memory: what is left of it beside those of a plan that are
/// restored at the same time.
pub(super) fn room<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> u64 {
    let (mut bound, mut largest) = (caps::RECEIVER_BYTES_MAX - caps::AGENT_BYTES, [0; AT_ONCE]);
    for frame in frames {
        bound = bound.max(bound_of(frame.codec));
        let least = largest.iter_mut().min().expect("some are restored at once");
        *least = frame.restoring_bytes().max(*least);
    }
    bound.saturating_sub(largest.iter().sum()).min(caps::WAITING_FRAMES_BYTES_MAX)
}

/// Chooses the next frame of those that are `ready`, given by their shares in the order of the plan, while frames of the
/// shares `running` are being restored. The first that fits; where nothing runs, the first.
pub(super) fn next(ready: impl IntoIterator<Item = u64>, running: &[u64]) -> Option<usize> {
    if running.len() >= AT_ONCE {
        return None;
    }
    let taken: u64 = running.iter().sum();
    ready.into_iter().position(|share| running.is_empty() || taken + share <= SHARES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_run_together_while_their_memory_allows_it() {
        for (name, ready, running, expected) in [
            ("nothing is ready", &[][..], &[][..], None),
            ("one alone, however large", &[1_000], &[], Some(0)),
            ("two small ones", &[300], &[300], Some(0)),
            ("two that fill it", &[500], &[500], Some(0)),
            ("too large beside another", &[501], &[500], None),
            ("a small one passes a large one", &[900, 100], &[500], Some(1)),
            ("never three", &[1], &[1, 1], None),
        ] {
            assert_eq!(next(ready.iter().copied(), running), expected, "{name}");
        }
    }

    #[test]
    fn frames_wait_in_memory_where_those_that_are_restored_leave_some() {
        use sluice_common::digest::Digest;
        use sluice_common::transfer::{Extent, Part};
        const MIB: u64 = 1 << 20;
        let frame = |codec, raw_mib: u64| {
            let extent = Extent { content: 0, offset: 0, len: raw_mib * MIB };
            let parts = vec![Part { extent, digest: Digest::of(b"part") }];
            Frame { codec, digest: Digest::of(b"frame"), wire_len: 0, base: Vec::new(), parts }
        };
        for (name, raw, expected) in [
            ("no frame", &[][..], 12),
            ("a quick cold install", &[16, 16, 16, 4], 12),
            ("a large one and a small one", &[5, 44], 3),
            ("two that fill it", &[26, 26], 0),
            ("two that never run together", &[44, 44], 0),
        ] {
            let frames: Vec<Frame> = raw.iter().map(|mib| frame(Codec::Zstd, *mib)).collect();
            assert_eq!(room(&frames), expected * MIB, "{name}");
        }
        assert_eq!(room(&[frame(Codec::Image, 32)]), 12 * MIB, "what reads its base by place has more");
    }
}
