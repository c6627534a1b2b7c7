//! Splits the bytes of a frame into its parts, and lets each count only once its digest was right.

use crate::digest::{Beginning, Digest, Hasher};

use super::{DecodeFrameError, PartSink, damaged, unstored};
use crate::transfer::{Frame, Part};

/// What is wrong with a frame that restores less than its parts.
pub(super) const TOO_SHORT: &str = "it ends before what the plan promised";

/// Hands the parts of a frame to a sink, of which all that could be restored lies in memory: hashed together. Fails at the first that
/// is wrong, and where the sink does; a part that is not there whole is left out.
pub(super) fn take_whole(
    frame: &Frame,
    restored: &[u8],
    sink: &mut dyn PartSink,
) -> Result<(), DecodeFrameError> {
    let mut rest = restored;
    let take = |part: &Part| {
        let (bytes, later) = rest.split_at_checked(part.extent.len.try_into().ok()?)?;
        rest = later;
        Some(bytes)
    };
    let pieces: Vec<&[u8]> = frame.parts.iter().map_while(take).collect();
    let parts = frame.parts.iter().zip(&pieces).enumerate();
    let (numbers, mut contents): (Vec<usize>, Vec<(&[u8], Beginning)>) =
        parts.filter_map(|(number, (part, bytes))| Some((number, (*bytes, sink.hash_before(part)?)))).unzip();
    let digests = Digest::of_each_and(&pieces, &mut contents);
    let mut contents = numbers.into_iter().zip(contents.into_iter().map(|(_, hash)| hash)).peekable();
    for (number, ((part, bytes), digest)) in frame.parts.iter().zip(pieces).zip(digests).enumerate() {
        check(frame, part, digest)?;
        let mut store = || {
            sink.begin(part)?;
            sink.write(bytes)?;
            if let Some((_, hash)) = contents.next_if(|(of, _)| *of == number) {
                sink.hash_after(part, hash);
            }
            sink.commit(part)
        };
        store().map_err(|source| unstored(frame, source))?;
    }
    Ok(())
}

fn check(frame: &Frame, part: &Part, found: Digest) -> Result<(), DecodeFrameError> {
    match found == part.digest {
        true => Ok(()),
        false => {
            let reason = format!("a part is not {}: the base or the frame is wrong", part.digest);
            Err(damaged(frame, reason))
        }
    }
}

/// Takes the restored bytes of a frame in order, as they come, and hands the parts to a sink.
pub(super) struct Verifier<'a> {
    frame: &'a Frame,
    sink: &'a mut dyn PartSink,
    /// The part that is being taken, by number.
    number: usize,
    /// Its bytes so far; nothing before it was begun.
    hasher: Option<Hasher>,
}

impl<'a> Verifier<'a> {
    pub(super) fn new(frame: &'a Frame, sink: &'a mut dyn PartSink) -> Self {
        Self { frame, sink, number: 0, hasher: None }
    }

    /// Takes the next bytes. Fails where a part that they end is wrong, where they are more than the plan promised, and
    /// where the sink does.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<(), DecodeFrameError> {
        let frame = self.frame;
        while !bytes.is_empty() {
            let Some(part) = frame.parts.get(self.number) else {
                return Err(damaged(frame, "it holds more than the plan promised"));
            };
            if self.hasher.is_none() {
                self.sink.begin(part).map_err(|source| unstored(frame, source))?;
            }
            let hasher = self.hasher.get_or_insert_with(Hasher::new);
            let left = part.extent.len - hasher.len();
            let (now, later) = bytes.split_at(left.min(bytes.len() as u64) as usize);
            hasher.update(now);
            let is_whole = hasher.len() == part.extent.len;
            self.sink.write(now).map_err(|source| unstored(frame, source))?;
            if is_whole {
                self.end_part()?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Ends the frame: nothing more comes.
    pub(super) fn end(self) -> Result<(), DecodeFrameError> {
        match self.frame.parts.get(self.number) {
            Some(_) => Err(damaged(self.frame, TOO_SHORT)),
            None => Ok(()),
        }
    }

    fn end_part(&mut self) -> Result<(), DecodeFrameError> {
        let part = &self.frame.parts[self.number];
        let digest = self.hasher.take().expect("a part is hashed from its begin on").finish();
        check(self.frame, part, digest)?;
        self.number += 1;
        self.sink.commit(part).map_err(|source| unstored(self.frame, source))
    }
}
