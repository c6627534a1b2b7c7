//! Hashes and stores what a frame restores on a thread of its own, so that decoding does not wait for the disk.
//!
//! | thread | in | out |
//! |---|---|---|
//! | the caller's, which decodes | empty batches (4) | full batches (bounded, 4) |
//! | the one that stores | full batches | empty batches |
//!
//! Both end with [`behind`].

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::DecodeFrameError;
use super::verify::Verifier;

/// Bytes of a batch: what keeps handing over below a thousandth of the work.
const BATCH_BYTES: usize = 256 * 1024;
/// Batches on their way: one being stored, one being filled, two between.
const BATCHES: usize = 4;

/// How decoding ended.
enum Decoded {
    /// All has been handed over.
    Whole,
    /// The frame's bytes are wrong.
    Failed(io::Error),
    /// Storing ended first, and its error is the one that counts.
    GivenUp,
}

/// Reads `decoder` to its end and hands what it restores to `verifier`; an error of the decoder is told by `damaged`, after
/// what came before it was taken.
pub(super) fn behind(
    mut decoder: impl Read,
    mut verifier: Verifier<'_>,
    damaged: impl FnOnce(io::Error) -> DecodeFrameError,
) -> Result<(), DecodeFrameError> {
    let (full, filled) = sync_channel::<Vec<u8>>(BATCHES);
    let (emptied, empty) = sync_channel(BATCHES);
    for _ in 0..BATCHES {
        emptied.send(Vec::with_capacity(BATCH_BYTES)).expect("the receiver stands beside it");
    }
    std::thread::scope(|scope| {
        let storing = scope.spawn(move || {
            while let Ok(batch) = filled.recv() {
                verifier.take(&batch)?;
                // Nobody waits for it once decoding has ended.
                let _ = emptied.send(batch);
            }
            Ok(verifier)
        });
        let decoded = decode(&mut decoder, &empty, &full);
        drop(full);
        let verifier = storing.join().expect("storing does not panic")?;
        match decoded {
            Decoded::Failed(error) => Err(damaged(error)),
            Decoded::Whole | Decoded::GivenUp => verifier.end(),
        }
    })
}

fn decode(decoder: &mut impl Read, empty: &Receiver<Vec<u8>>, full: &SyncSender<Vec<u8>>) -> Decoded {
    loop {
        let Ok(mut batch) = empty.recv() else { return Decoded::GivenUp };
        batch.clear();
        let read = decoder.by_ref().take(BATCH_BYTES as u64).read_to_end(&mut batch);
        let is_end = batch.len() < BATCH_BYTES;
        if full.send(batch).is_err() {
            return Decoded::GivenUp;
        }
        match read {
            Err(error) => return Decoded::Failed(error),
            Ok(_) if is_end => return Decoded::Whole,
            Ok(_) => {}
        }
    }
}
