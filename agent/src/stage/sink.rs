//! Writes the parts of one frame where they go. Several frames are restored at once, each by a sink of its own: what they
//! share is the [`Placer`], which is held for no longer than looking something up.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard};

use sluice_common::digest::Beginning;
use sluice_common::transfer::{Part, PartSink};

use super::place::{Destination, Placer};
use super::target::Target;
use crate::beneath::Beneath;
use crate::seen::Stamp;

const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// Takes the parts of one frame.
pub(super) struct FrameSink<'a> {
    placer: &'a Mutex<Placer>,
    tree: Arc<Beneath>,
    target: Arc<Target>,
    open: Option<Open>,
}

/// The file of a part that is being written.
struct Open {
    file: File,
    /// The place that the file stands in, by number of entry; nothing while its content is gathered.
    place: Option<usize>,
}

impl<'a> FrameSink<'a> {
    pub(super) fn new(placer: &'a Mutex<Placer>) -> Self {
        let (tree, target) = {
            let placer = lock(placer);
            (placer.tree().clone(), placer.target().clone())
        };
        Self { placer, tree, target, open: None }
    }

    /// Opens the file of a content's place.
    fn create(&self, place: usize) -> io::Result<File> {
        let (path, file) = self.target.file(place).expect("places are numbers of file entries");
        self.tree.create(path, file.mode())
    }

    /// Opens the file in which a content is gathered, where a part begins.
    fn open_gathered(&self, part: &Part) -> io::Result<File> {
        let path = lock(self.placer).partial(part.extent.content);
        let mut options = fs_err::OpenOptions::new();
        options.write(true).create(true).truncate(false);
        options.options_mut().mode(0o600).custom_flags(NOFOLLOW);
        let mut file: File = options.open(path)?.into();
        file.seek(SeekFrom::Start(part.extent.offset))?;
        Ok(file)
    }
}

impl PartSink for FrameSink<'_> {
    fn begin(&mut self, part: &Part) -> io::Result<()> {
        let destination = lock(self.placer).destination(part);
        self.open = match destination {
            Destination::Nowhere => None,
            Destination::Place(place) => Some(Open { file: self.create(place)?, place: Some(place) }),
            Destination::Gathering => Some(Open { file: self.open_gathered(part)?, place: None }),
        };
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.open {
            Some(open) => open.file.write_all(bytes),
            None => Ok(()),
        }
    }

    fn commit(&mut self, part: &Part) -> io::Result<()> {
        let Some(Open { file, place }) = self.open.take() else { return Ok(()) };
        let Some(place) = place else { return self.note_part(part) };
        let stamp = Stamp::of(&file.metadata()?);
        drop(file);
        let mut placer = lock(self.placer);
        placer.note(place, stamp);
        placer.settle(part.extent.content, place)
    }

    fn hash_before(&mut self, part: &Part) -> Option<Beginning> {
        let is_whole = part.extent.len == self.target.contents().at(part.extent.content).size;
        if is_whole { None } else { lock(self.placer).hash_before(part) }
    }

    fn hash_after(&mut self, part: &Part, hash: Beginning) {
        lock(self.placer).hash_after(part, hash);
    }
}

impl FrameSink<'_> {
    /// Notes a part of a content that comes in several frames. What is not hashed yet of the whole is hashed without the placer,
    /// which other frames need meanwhile.
    fn note_part(&self, part: &Part) -> io::Result<()> {
        let number = part.extent.content;
        let (hash, partial) = {
            let mut placer = lock(self.placer);
            (placer.note_part(part), placer.partial(number))
        };
        let Some(hash) = hash else { return Ok(()) };
        let mut file = fs_err::File::open(partial)?;
        file.seek(SeekFrom::Start(hash.len()))?;
        let (digest, _) = hash.finish(file)?;
        lock(self.placer).finish_partial(number, digest)
    }
}

/// Takes the placer for a moment.
pub(super) fn lock(placer: &Mutex<Placer>) -> MutexGuard<'_, Placer> {
    placer.lock().expect("whoever holds the placer does not panic")
}
