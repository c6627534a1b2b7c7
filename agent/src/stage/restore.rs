//! Restores the frames of one plan into a [`Placer`], in whatever order they have come.
//!
//! A frame waits until what it leans on is in place. One that is not what it is named, or does not fit what this host
//! has, is noted and left out: the others are of use all the same, within [`may_go_on`].

use std::io;
use std::sync::Arc;

use sluice_common::digest::Digest;
use sluice_common::transfer::{DecodeFrameError, Frame, Lean, decode_frame};

use super::area::{Area, discard};
use super::behind::behind;
use super::fetch::FetchError;
use super::place::Placer;
use super::target::Planned;
use crate::beneath::Beneath;

/// Raw bytes from which on a frame is worth a thread that writes it.
const BEHIND_BYTES: u64 = 1 << 20;

/// A frame whose bytes have all come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gathered {
    /// Its number.
    pub(crate) number: usize,
    /// The digest of its bytes, where it was made as they came; else they are to be read for it.
    pub(crate) digest: Option<Digest>,
}

/// Restores frames; blocks.
pub(crate) struct Restorer {
    area: Area,
    planned: Arc<Planned>,
    placer: Placer,
    /// Frames that wait for one that they lean on, by number.
    waiting: Vec<usize>,
    /// Frames that are not what they are named.
    damaged: Vec<usize>,
    /// Frames that do not restore what the plan promises.
    misfits: Vec<usize>,
}

impl Restorer {
    /// Makes a restorer of the frames of `planned`, which are gathered in `area`.
    pub(crate) fn new(area: Area, planned: Arc<Planned>, placer: Placer) -> Self {
        Self { area, planned, placer, waiting: Vec::new(), damaged: Vec::new(), misfits: Vec::new() }
    }

    /// Takes a frame that has been gathered whole, checks it, and restores it as soon as what it leans on is there, with
    /// those that waited for it. Returns the bytes that were restored. Fails where the disk does, or where going on with this plan costs too much.
    pub(crate) fn take(&mut self, gathered: Gathered) -> Result<u64, FetchError> {
        if !is_right(&self.area, &self.planned.plan.frames[gathered.number], gathered.digest)? {
            self.damaged.push(gathered.number);
            return Ok(0);
        }
        self.waiting.push(gathered.number);
        self.waiting.sort_unstable();
        let mut restored_bytes = 0;
        // A frame leans on earlier ones only, so that one pass in order restores all that can be.
        for number in std::mem::take(&mut self.waiting) {
            let planned = self.planned.clone();
            let frame = &planned.plan.frames[number];
            let mut leans = frame.base.iter().filter_map(Lean::of_produced);
            if !leans.all(|extent| self.placer.has_produced(extent)) {
                self.waiting.push(number);
                continue;
            }
            match restore(&self.area, &planned, frame, &mut self.placer) {
                Ok(()) => restored_bytes += frame.raw_len(),
                Err(FetchError::Base(_)) => self.note_misfit(number)?,
                Err(error) => return Err(error),
            }
        }
        Ok(restored_bytes)
    }

    fn note_misfit(&mut self, number: usize) -> Result<(), FetchError> {
        self.misfits.push(number);
        let frames = &self.planned.plan.frames;
        let wasted: u64 = self.misfits.iter().map(|number| frames[*number].wire_len).sum();
        if may_go_on(self.misfits.len(), wasted, self.planned.plan.wire_len()) {
            return Ok(());
        }
        Err(FetchError::Base(frames[number].digest))
    }

    /// Returns the tree that is restored into.
    pub(crate) fn tree(&self) -> &Arc<Beneath> {
        self.placer.tree()
    }

    /// Takes the frames that were damaged: they are to be fetched anew.
    pub(crate) fn take_damaged(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.damaged)
    }

    /// Returns how a fetch ends after which nothing more comes.
    pub(crate) fn outcome(&self) -> Result<(), FetchError> {
        let digest = |number: &usize| self.planned.plan.frames[*number].digest;
        let misfit = self.misfits.first().or(self.waiting.first());
        match (self.damaged.first(), misfit) {
            (Some(damaged), _) => Err(FetchError::Damaged(digest(damaged))),
            (None, Some(misfit)) => Err(FetchError::Base(digest(misfit))),
            (None, None) => Ok(()),
        }
    }

    /// Gives the placer back.
    pub(crate) fn into_placer(self) -> Placer {
        self.placer
    }
}

/// Decides whether a plan is gone on with of which `misfits` frames, `wasted` bytes of `total`, did not fit: a base with
/// one damaged file still serves all the others, but one that is another altogether would cost the whole plan for
/// nothing. Pure.
///
/// The first misfit is paid already, so it decides nothing. From then on, bytes wasted stay below a quarter of the plan:
/// what fits saves far more, since bytes against a base restore several times as many plain ones.
pub(crate) fn may_go_on(misfits: usize, wasted: u64, total: u64) -> bool {
    misfits < 2 || wasted < total / 4
}

/// Says whether a gathered frame is what it is named; one that is not does not stay.
fn is_right(area: &Area, frame: &Frame, digest: Option<Digest>) -> io::Result<bool> {
    let path = area.frame(&frame.digest);
    let digest = match digest {
        Some(digest) => digest,
        None => Digest::of_reader(fs_err::File::open(&path)?)?.0,
    };
    if digest != frame.digest {
        discard(&path)?;
    }
    Ok(digest == frame.digest)
}

/// Decodes a frame and removes its file, whether it fitted or not.
fn restore(area: &Area, planned: &Planned, frame: &Frame, placer: &mut Placer) -> Result<(), FetchError> {
    let path = area.frame(&frame.digest);
    let compressed = io::BufReader::with_capacity(128 * 1024, fs_err::File::open(&path)?);
    let produced = placer.produced();
    let base = (planned.base_contents.as_slice(), planned.base());
    let produced = (produced.contents(), &produced as _);
    let result = if frame.raw_len() < BEHIND_BYTES {
        decode_frame(frame, compressed, base, produced, placer)
    } else {
        behind(placer, |sink| decode_frame(frame, compressed, base, produced, sink))?
    };
    match result {
        Ok(()) => Ok(discard(&path)?),
        Err(DecodeFrameError::Sink { source, .. }) => Err(source.into()),
        Err(DecodeFrameError::Damaged { frame, reason }) => {
            tracing::warn!(frame = %frame.short(), reason, "frame does not restore what its plan promises");
            discard(&path)?;
            Err(FetchError::Base(frame))
        }
        Err(DecodeFrameError::Base { frame, source }) => {
            tracing::warn!(frame = %frame.short(), error = %source, "base of a frame cannot be read");
            discard(&path)?;
            Err(FetchError::Base(frame))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_gone_on_with_while_little_of_it_is_wasted() {
        for (name, misfits, wasted, total, expected) in [
            ("the first is paid already, however large", 1, 1_000, 1_000, true),
            ("few of many", 2, 240, 1_000, true),
            ("a quarter", 2, 250, 1_000, false),
            ("many small ones", 100, 100, 1_000, true),
            ("all", 3, 1_000, 1_000, false),
            ("tiny plan", 2, 1, 3, false),
        ] {
            assert_eq!(may_go_on(misfits, wasted, total), expected, "{name}");
        }
    }
}
