//! Writes what a frame restores on a thread of its own, so that decoding and hashing do not wait for the file system.
//!
//! | thread | in | out |
//! |---|---|---|
//! | the caller's, which decodes | empty batches (4) | full batches (bounded, 4) |
//! | the writer | full batches | empty batches |
//!
//! Both end with [`behind`]. The sink sees the same calls in the same order as if it had been called directly.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sluice_common::transfer::{Part, PartSink};

/// Bytes that make a batch full: what keeps handing over below a thousandth of the work.
const BATCH_BYTES: usize = 256 * 1024;
/// Calls that make a batch full, where they bring few bytes.
const BATCH_CALLS: usize = 512;
/// Batches on their way: one being written, one being filled, two between.
const BATCHES: usize = 4;

/// A call of the sink.
#[derive(Clone, Copy)]
enum Call {
    Begin(Part),
    /// So many of the batch's bytes.
    Write(usize),
    Commit(Part),
}

/// Calls with the bytes that they bring.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    calls: Vec<Call>,
}

impl Batch {
    fn replay(&mut self, sink: &mut dyn PartSink) -> io::Result<()> {
        let mut bytes = self.bytes.as_slice();
        for call in self.calls.drain(..) {
            match call {
                Call::Begin(part) => sink.begin(&part)?,
                Call::Write(len) => {
                    let (now, later) = bytes.split_at(len);
                    sink.write(now)?;
                    bytes = later;
                }
                Call::Commit(part) => sink.commit(&part)?,
            }
        }
        self.bytes.clear();
        Ok(())
    }
}

/// Gathers calls and hands them to the writer.
struct Front {
    batch: Batch,
    full: SyncSender<Batch>,
    empty: Receiver<Batch>,
}

impl Front {
    fn push(&mut self, call: Call) -> io::Result<()> {
        self.batch.calls.push(call);
        if self.batch.bytes.len() < BATCH_BYTES && self.batch.calls.len() < BATCH_CALLS {
            return Ok(());
        }
        self.hand_over()
    }

    fn hand_over(&mut self) -> io::Result<()> {
        // Only a writer that has failed hands back no more; its error is the one that counts.
        let gone = || io::Error::other("the writer has ended");
        let next = self.empty.recv().map_err(|_| gone())?;
        self.full.send(std::mem::replace(&mut self.batch, next)).map_err(|_| gone())
    }
}

impl PartSink for Front {
    fn begin(&mut self, part: &Part) -> io::Result<()> {
        self.push(Call::Begin(*part))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.batch.bytes.extend_from_slice(bytes);
        self.push(Call::Write(bytes.len()))
    }

    fn commit(&mut self, part: &Part) -> io::Result<()> {
        self.push(Call::Commit(*part))
    }
}

/// Calls `decode` with a sink whose calls reach `sink` a little later, on another thread, and returns what it returned
/// once they all have; or the error of `sink`.
pub(super) fn behind<T>(
    sink: &mut (dyn PartSink + Send),
    decode: impl FnOnce(&mut dyn PartSink) -> T,
) -> io::Result<T> {
    let (full, filled) = sync_channel::<Batch>(BATCHES);
    let (emptied, empty) = sync_channel(BATCHES);
    for _ in 1..BATCHES {
        emptied.send(Batch::default()).expect("the receiver stands beside it");
    }
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            while let Ok(mut batch) = filled.recv() {
                batch.replay(sink)?;
                // Nobody waits for it once decoding has ended.
                let _ = emptied.send(batch);
            }
            Ok(())
        });
        let mut front = Front { batch: Batch::default(), full, empty };
        let decoded = decode(&mut front);
        let handed = front.hand_over();
        drop(front);
        writer.join().expect("the writer does not panic").and(handed).map(|()| decoded)
    })
}

#[cfg(test)]
mod tests {
    use sluice_common::digest::Digest;
    use sluice_common::transfer::Extent;

    use super::*;

    /// Notes its calls; fails at one of them.
    #[derive(Default)]
    struct Notes {
        calls: Vec<String>,
        fails_at: Option<usize>,
    }

    impl Notes {
        fn note(&mut self, call: String) -> io::Result<()> {
            self.calls.push(call);
            match self.fails_at {
                Some(at) if self.calls.len() > at => Err(io::Error::other("disk full")),
                _ => Ok(()),
            }
        }
    }

    impl PartSink for Notes {
        fn begin(&mut self, part: &Part) -> io::Result<()> {
            self.note(format!("begin {}", part.extent.content))
        }

        fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.note(format!("write {}", Digest::of(bytes).short()))
        }

        fn commit(&mut self, part: &Part) -> io::Result<()> {
            self.note(format!("commit {}", part.extent.content))
        }
    }

    fn calls(sink: &mut dyn PartSink) -> io::Result<()> {
        for content in 0..3_000_u32 {
            let len = if content % 1_000 == 7 { 3 << 20 } else { u64::from(content) };
            let extent = Extent { content, offset: 0, len };
            let part = Part { extent, digest: Digest::of(b"") };
            sink.begin(&part)?;
            let bytes = vec![content as u8; len as usize];
            bytes.chunks(100_000).try_for_each(|bytes| sink.write(bytes))?;
            sink.commit(&part)?;
        }
        Ok(())
    }

    #[test]
    fn the_sink_sees_the_same_calls_in_the_same_order() {
        let (mut direct, mut later) = (Notes::default(), Notes::default());
        calls(&mut direct).unwrap();
        behind(&mut later, calls).unwrap().unwrap();
        assert!(direct.calls == later.calls && direct.calls.len() > 6_000);
    }

    #[test]
    fn the_error_of_the_sink_ends_the_decoding_and_is_the_one_returned() {
        for fails_at in [0, 1, 5_000] {
            let mut notes = Notes { fails_at: Some(fails_at), ..Notes::default() };
            let error = behind(&mut notes, calls).unwrap_err();
            assert_eq!(error.to_string(), "disk full");
            assert_eq!(notes.calls.len(), fails_at + 1, "nothing is called after a failure");
        }
    }

    #[test]
    fn an_error_of_the_decoder_is_returned_after_what_came_before_it_was_written() {
        let mut notes = Notes::default();
        let decoded = behind(&mut notes, |sink| {
            calls(sink)?;
            Err::<(), _>(io::Error::other("damaged"))
        });
        assert_eq!(decoded.unwrap().unwrap_err().to_string(), "damaged");
        assert_eq!(notes.calls.last().unwrap(), "commit 2999");
    }
}
