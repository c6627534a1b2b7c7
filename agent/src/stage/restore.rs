//! Restores the frames of one plan into a [`Placer`], in whatever order they have come, several at a time.
//!
//! A frame waits until what it leans on is in place, and until [`schedule`] lets it run. One that is not what it is named, or does not fit what this host
//! has, is noted and left out: the others are of use all the same, within [`may_go_on`].

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use sluice_common::transfer::{Codec, DecodeFrameError, Frame, Lean, Workspace, decode_frame};

use super::ahead::{self, Ahead};
use super::area::Area;
use super::fetch::FetchError;
use super::gather::Gathered;
use super::place::Placer;
use super::schedule::{self, Need};
use super::sink::{FrameSink, lock};
use super::target::Planned;
use crate::beneath::Beneath;

/// Frames that wait for nothing but their turn, from which on no more are taken: as many as run.
const READY_MAX: usize = 2;

/// What the frames that are being restored share.
struct Shared {
    area: Area,
    planned: Arc<Planned>,
    placer: Mutex<Placer>,
    workspace: Workspace,
}

impl Shared {
    /// Returns the file of a frame, by number.
    fn path(&self, number: usize) -> PathBuf {
        self.area.frame(self.planned.file(number))
    }
}

/// Restores frames, several at a time.
pub(crate) struct Restorer {
    shared: Arc<Shared>,
    tree: Arc<Beneath>,
    /// Frames that have come, in the order of the plan.
    waiting: Vec<Gathered>,
    /// Frames that are being restored, by number, with the memory that they take.
    running: Vec<(usize, Need)>,
    ahead: Ahead,
    /// Frames that are not what they are named.
    damaged: Vec<usize>,
    /// Frames that do not restore what the plan promises.
    misfits: Vec<usize>,
}

/// A frame that was worked on, by number, and what came of it; fails where the disk does.
pub(crate) type Worked = (usize, io::Result<Restored>);

/// What came of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restored {
    /// Its parts are in their places.
    Whole,
    /// It is not what it is named.
    Damaged,
    /// It does not restore what the plan promises.
    Misfit,
}

impl Restorer {
    /// Makes a restorer of the frames of `planned`, which are gathered in `area`.
    pub(crate) fn new(area: Area, planned: Arc<Planned>, placer: Placer) -> Self {
        let tree = placer.tree().clone();
        let workspace = Workspace::new(area.incoming());
        let shared = Arc::new(Shared { area, planned, placer: Mutex::new(placer), workspace });
        let (waiting, running, damaged, misfits) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { shared, tree, waiting, running, ahead: Ahead::default(), damaged, misfits }
    }

    /// Takes a frame that has been gathered whole.
    pub(crate) fn add(&mut self, gathered: Gathered) {
        let at = self.waiting.partition_point(|waiting| waiting.number < gathered.number);
        self.waiting.insert(at, gathered);
    }

    /// Returns the frames that wait for nothing but their turn, by where they stand among those that wait.
    fn ready(&self) -> Vec<usize> {
        let placer = lock(&self.shared.placer);
        let is_ready = |at: &usize| {
            let mut leans = self.frame(self.waiting[*at].number).base.iter().filter_map(Lean::of_produced);
            leans.all(|extent| placer.has_produced(extent))
        };
        (0..self.waiting.len()).filter(is_ready).collect()
    }

    /// Says whether so many frames wait for their turn that no more need to come yet.
    pub(crate) fn is_busy(&self) -> bool {
        self.ready().len() >= READY_MAX
    }

    /// Returns the work of the next frame to be restored, which blocks; its end is to be told by [`Self::ended`].
    pub(crate) fn next(&mut self) -> Option<impl FnOnce() -> Worked + Send + 'static> {
        let ready = self.ready();
        let running: Vec<Need> = self.running.iter().map(|(_, need)| *need).collect();
        let needs = ready.iter().map(|at| Need::of(self.frame(self.waiting[*at].number)));
        let chosen = schedule::next(needs, &running)?;
        let gathered = self.waiting.remove(ready[chosen]);
        self.running.push((gathered.number, Need::of(self.frame(gathered.number))));
        let following = self.waiting.get(ready[chosen]).map(|waiting| waiting.number);
        let asked = self.ahead.begin(gathered.number, following);
        let shared = self.shared.clone();
        Some(move || {
            let planned = &shared.planned;
            asked.iter().for_each(|number| ahead::ask(planned, &planned.plan.frames[*number]));
            (gathered.number, restore(&shared, gathered))
        })
    }

    /// Brings to disk what has come and is not restored now. Every frame that has come was added before.
    pub(crate) fn keep(mut self) -> io::Result<Self> {
        for gathered in std::mem::take(&mut self.waiting) {
            let number = gathered.number;
            gathered.keep(&self.shared.path(number))?;
            self.waiting.push(Gathered::on_disk(number));
        }
        Ok(self)
    }

    /// Takes note of what came of a frame, and returns the bytes that were restored. Fails where the disk did, or where
    /// going on with this plan costs too much.
    pub(crate) fn ended(&mut self, (number, result): Worked) -> Result<u64, FetchError> {
        self.running.retain(|(running, _)| *running != number);
        match result? {
            Restored::Whole => Ok(self.frame(number).raw_len()),
            Restored::Damaged => {
                self.damaged.push(number);
                Ok(0)
            }
            Restored::Misfit => self.note_misfit(number).map(|()| 0),
        }
    }

    fn frame(&self, number: usize) -> &Frame {
        &self.shared.planned.plan.frames[number]
    }

    fn note_misfit(&mut self, number: usize) -> Result<(), FetchError> {
        self.misfits.push(number);
        let frames = &self.shared.planned.plan.frames;
        let wasted: u64 = self.misfits.iter().map(|number| frames[*number].wire_len).sum();
        if may_go_on(self.misfits.len(), wasted, self.shared.planned.plan.wire_len()) {
            return Ok(());
        }
        Err(FetchError::Base(frames[number].digest))
    }

    /// Returns the tree that is restored into.
    pub(crate) fn tree(&self) -> &Arc<Beneath> {
        &self.tree
    }

    /// Takes the frames that were damaged: they are to be fetched anew.
    pub(crate) fn take_damaged(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.damaged)
    }

    /// Returns how a fetch ends after which nothing more comes.
    pub(crate) fn outcome(&self) -> Result<(), FetchError> {
        let digest = |number: &usize| self.frame(*number).digest;
        let waiting = self.waiting.first().map(|gathered| &gathered.number);
        let misfit = self.misfits.first().or(waiting);
        match (self.damaged.first(), misfit) {
            (Some(damaged), _) => Err(FetchError::Damaged(digest(damaged))),
            (None, Some(misfit)) => Err(FetchError::Base(digest(misfit))),
            (None, None) => Ok(()),
        }
    }

    /// Gives the placer back. No frame may be being restored any more.
    pub(crate) fn into_placer(self) -> Placer {
        let shared = Arc::into_inner(self.shared).expect("work on a frame has ended and left nothing");
        shared.placer.into_inner().expect("whoever holds the placer does not panic")
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

/// Decodes a frame and lets go of its bytes, whether it fitted or not.
///
/// What it restores is checked part by part, so the frame's own digest is of use for two things: to keep bytes that came damaged from
/// the decoders that are ours, and to tell such a frame, which is fetched anew, from one that does not fit. For zstd the
/// second alone is worth a look at every byte, which took an eighth of the hashing of a cold install.
fn restore(shared: &Shared, gathered: Gathered) -> io::Result<Restored> {
    let Shared { area: _, planned, placer, workspace } = shared;
    let (frame, path) = (&planned.plan.frames[gathered.number], shared.path(gathered.number));
    let is_checked_first = match frame.codec {
        Codec::Zstd | Codec::Filtered => false,
        Codec::Image | Codec::Archive => true,
    };
    if is_checked_first && !gathered.is_right(&path, frame)? {
        gathered.discard(&path)?;
        return Ok(Restored::Damaged);
    }
    let produced = lock(placer).produced();
    let base = (planned.base_contents(), planned.base());
    let produced = (produced.contents(), &produced as _);
    let mut sink = FrameSink::new(placer);
    let compressed = gathered.read(&path)?;
    let decoded = decode_frame(frame, compressed, base, produced, workspace, &mut sink);
    let restored = match decoded {
        Ok(()) => Restored::Whole,
        Err(DecodeFrameError::Sink { source, .. }) => return Err(source),
        Err(DecodeFrameError::Damaged { .. }) if !gathered.is_right(&path, frame)? => Restored::Damaged,
        Err(DecodeFrameError::Damaged { frame, reason }) => {
            tracing::warn!(frame = %frame.short(), reason, "frame does not restore what its plan promises");
            Restored::Misfit
        }
        Err(DecodeFrameError::Base { frame, source }) => {
            tracing::warn!(frame = %frame.short(), error = %source, "base of a frame cannot be read");
            Restored::Misfit
        }
    };
    gathered.discard(&path)?;
    Ok(restored)
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
