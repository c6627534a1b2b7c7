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
    let bound = match frame.codec {
        Codec::Zstd => caps::RECEIVER_BYTES_MAX,
        Codec::Image | Codec::Archive => caps::RECEIVER_AWARE_BYTES_MAX,
    } - caps::AGENT_BYTES;
    (frame.restoring_bytes().saturating_mul(SHARES) / bound).min(SHARES)
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
}
