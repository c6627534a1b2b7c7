//! Splits the bytes of a frame into its parts, and lets each count only once its digest was right.

use crate::digest::Hasher;

use super::{DecodeFrameError, PartSink, damaged, unstored};
use crate::transfer::Frame;

/// Takes the restored bytes of a frame in order and hands the parts to a sink.
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
            Some(_) => Err(damaged(self.frame, "it ends before what the plan promised")),
            None => Ok(()),
        }
    }

    fn end_part(&mut self) -> Result<(), DecodeFrameError> {
        let part = &self.frame.parts[self.number];
        let digest = self.hasher.take().expect("a part is hashed from its begin on").finish();
        if digest != part.digest {
            let reason = format!("a part is not {}: the base or the frame is wrong", part.digest);
            return Err(damaged(self.frame, reason));
        }
        self.number += 1;
        self.sink.commit(part).map_err(|source| unstored(self.frame, source))
    }
}
