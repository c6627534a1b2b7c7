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
    let (full, filled) = sync_channel::<(Vec<u8>, usize)>(BATCHES);
    let (emptied, empty) = sync_channel(BATCHES);
    for _ in 0..BATCHES {
        emptied.send(vec![0; BATCH_BYTES]).expect("the receiver stands beside it");
    }
    std::thread::scope(|scope| {
        let storing = scope.spawn(move || {
            while let Ok((batch, len)) = filled.recv() {
                verifier.take(&batch[..len])?;
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

fn decode(
    decoder: &mut impl Read,
    empty: &Receiver<Vec<u8>>,
    full: &SyncSender<(Vec<u8>, usize)>,
) -> Decoded {
    loop {
        let Ok(mut batch) = empty.recv() else { return Decoded::GivenUp };
        let (len, ended) = fill(decoder, &mut batch);
        if full.send((batch, len)).is_err() {
            return Decoded::GivenUp;
        }
        match ended {
            Err(error) => return Decoded::Failed(error),
            Ok(()) if len < BATCH_BYTES => return Decoded::Whole,
            Ok(()) => {}
        }
    }
}

/// Fills a batch; returns how many bytes came, and what kept more from coming.
fn fill(decoder: &mut impl Read, batch: &mut [u8]) -> (usize, io::Result<()>) {
    let mut len = 0;
    while len < batch.len() {
        match decoder.read(&mut batch[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (len, Err(error)),
        }
    }
    (len, Ok(()))
}
