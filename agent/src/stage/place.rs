//! Knows which contents stand in their places in the staging tree, and puts them there: from installed releases, or, by
//! way of a [`super::sink`], from frames as they are decoded.
//!
//! Invariant: a place counts as filled only once the bytes that stand there were hashed and found right, by this
//! placer. A file is written where it will stand; until its digest was seen it counts as missing, and whoever comes
//! after an interruption hashes the whole tree first. Contents that come in several frames are gathered in `incoming/`.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use sluice_common::digest::{Beginning, Digest};
use sluice_common::manifest::{Contents, EntryKind};
use sluice_common::transfer::{ContentSource, Extent, Part, TransferPlan};

use super::area::{Area, discard};
use super::parts::Parts;
use super::share::{Sharer, Spot, Way};
use super::target::Target;
use crate::beneath::Beneath;
use crate::examine::{Fault, Finding};
use crate::seen::{self, Stamp};

/// Puts contents in their places.
pub(crate) struct Placer {
    area: Area,
    tree: Arc<Beneath>,
    target: Arc<Target>,
    sharer: Arc<Sharer>,
    /// Whether an entry, by number, is a file that is not in the tree yet.
    is_missing: Vec<bool>,
    /// How many are.
    missing: usize,
    parts: Parts,
    /// What was hashed where it stands, by number of entry.
    stamps: Vec<Option<Stamp>>,
    /// When the last link was made to a file that was noted before.
    linked_nanoseconds: i64,
    /// Since when bytes were hashed that stand in the tree.
    hashed_since: Instant,
}

/// Where the bytes of a part go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Nowhere: they are in place.
    Nowhere,
    /// To the place where they will stand, by number of entry.
    Place(usize),
    /// To where the content is gathered.
    Gathering,
}

impl Placer {
    /// Prepares the tree: removes what `findings` say is wrong, makes directories and links, and takes the rest of
    /// the findings to be missing; everything where there are none to say what is there. (Of a million entries the findings
    /// would take more memory than the manifest.)
    pub(crate) fn prepare(
        area: &Area,
        target: Arc<Target>,
        sharer: Arc<Sharer>,
        findings: Option<&[Finding]>,
    ) -> io::Result<Self> {
        let root = area.tree();
        let tree = Arc::new(Beneath::open(&root)?);
        let mut is_missing = vec![false; target.manifest.len()];
        for finding in findings.unwrap_or_default() {
            let is_directory_mode = finding.fault == Fault::Mode
                && std::fs::symlink_metadata(root.join(&finding.path)).is_ok_and(|m| m.is_dir());
            if finding.fault != Fault::Missing && !is_directory_mode {
                discard(&root.join(&finding.path))?;
            }
        }
        let wrong: Option<HashSet<&OsStr>> =
            findings.map(|findings| findings.iter().map(|finding| finding.path.as_os_str()).collect());
        for (number, entry) in target.manifest.entries().enumerate() {
            if wrong.as_ref().is_some_and(|wrong| !wrong.contains(OsStr::new(entry.path.as_str()))) {
                continue;
            }
            match entry.kind {
                EntryKind::Directory => tree.directory(entry.path)?,
                EntryKind::Symlink { target } => tree.symlink(target, entry.path)?,
                EntryKind::File(_) => is_missing[number] = true,
            }
        }
        Ok(Self {
            area: area.clone(),
            tree,
            stamps: seen::room_for_stamps(target.manifest.len()),
            target,
            sharer,
            missing: is_missing.iter().filter(|is_missing| **is_missing).count(),
            is_missing,
            parts: Parts::default(),
            linked_nanoseconds: 0,
            hashed_since: Instant::now(),
        })
    }

    /// Returns the package.
    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Notes which file it was that was hashed at a place, or is a further name of one that was.
    pub(crate) fn note(&mut self, place: usize, stamp: Stamp) {
        seen::put_down(&mut self.stamps, place, Some(stamp));
    }

    /// Notes that a file was taken for right which was hashed earlier, at this time or later.
    pub(crate) fn note_hashed_since(&mut self, time: Instant) {
        self.hashed_since = self.hashed_since.min(time);
    }

    /// Returns since when bytes were hashed that stand in the tree.
    pub(crate) fn hashed_since(&self) -> Instant {
        self.hashed_since
    }

    /// Notes that links were made to files that were noted, each of which moved a time of change.
    pub(crate) fn note_linked(&mut self) {
        self.linked_nanoseconds = seen::now();
    }

    /// Returns the stamps of the files in `found`, by number of entry, that have the bytes which were hashed.
    pub(crate) fn into_stamps(self, found: &[Option<Stamp>]) -> Vec<Option<Stamp>> {
        let is_hashed =
            |noted: Stamp, found: Stamp| found == noted || found.was_linked(noted, self.linked_nanoseconds);
        let pairs = self.stamps.iter().zip(found);
        pairs
            .map(|(noted, found)| found.filter(|found| noted.is_some_and(|noted| is_hashed(noted, *found))))
            .collect()
    }

    /// Says whether every file stands in the tree.
    pub(crate) fn is_whole(&self) -> bool {
        self.missing == 0
    }

    /// Takes a place to be filled.
    fn fill(&mut self, place: usize) {
        self.missing -= usize::from(std::mem::take(&mut self.is_missing[place]));
    }

    /// Says whether a content, by number, still lacks a place.
    pub(crate) fn lacks(&self, content: u32) -> bool {
        self.target.places(content).any(|place| self.is_missing[place])
    }

    /// Returns the contents that still lack a place, by number.
    pub(crate) fn lacking(&self) -> Vec<u32> {
        (0..self.target.contents().len() as u32).filter(|number| self.lacks(*number)).collect()
    }

    /// Returns the bytes that the disk is still to take until every content stands in all its places: each place has its own
    /// where they are copied, else those with one mode have a file in common. Parts that are there are on the disk already.
    pub(crate) fn bytes_to_come(&self) -> u64 {
        let is_copied = self.sharer.copies();
        let bytes = |content: u32| {
            let modes = || self.vacancies(content).map(|place| self.spot(place).mode);
            let files = if is_copied { modes().count() } else { modes().collect::<HashSet<_>>().len() };
            let all = self.target.contents().at(content).size.saturating_mul(files as u64);
            all.saturating_sub(self.parts.bytes(content))
        };
        self.lacking().into_iter().map(bytes).sum()
    }

    /// Returns the number of files that are lacking.
    pub(crate) fn lacking_files(&self) -> usize {
        self.missing
    }

    /// Returns the tree, opened before anything was put into it.
    pub(crate) fn tree(&self) -> &Arc<Beneath> {
        &self.tree
    }

    /// Returns what brings the bytes of one place to another.
    pub(crate) fn sharer(&self) -> &Arc<Sharer> {
        &self.sharer
    }

    /// Returns the places that a content, by number, lacks, by number of entry.
    pub(crate) fn vacancies(&self, content: u32) -> impl Iterator<Item = usize> {
        self.target.places(content).filter(|place| self.is_missing[*place])
    }

    /// Returns the first place that a content lacks.
    fn vacancy(&self, content: u32) -> usize {
        self.vacancies(content).next().expect("whoever asks has seen that the content lacks a place")
    }

    /// Puts contents in place that need no source: empty ones, and those that stand elsewhere in the tree.
    pub(crate) fn place_local(&mut self) -> io::Result<()> {
        for number in self.lacking() {
            let twin = self.target.places(number).find(|place| !self.is_missing[*place]);
            if let Some(twin) = twin {
                self.settle(number, twin)?;
            } else if self.target.contents().at(number).size == 0 {
                let place = self.vacancy(number);
                let spot = self.spot(place);
                spot.tree.create(spot.path, spot.mode)?;
                self.settle(number, place)?;
            }
        }
        Ok(())
    }

    /// Takes `place` to hold the content, by number, which the caller has seen by its digest, and brings it from there to
    /// every place that lacks it.
    pub(crate) fn settle(&mut self, content: u32, place: usize) -> io::Result<()> {
        self.fill(place);
        let vacant: Vec<usize> = self.vacancies(content).collect();
        for vacant in vacant {
            let (from, to) = (self.spot(place), self.spot(vacant));
            let way = self.sharer.bring(from, to)?;
            let is_right = |digest: Digest| digest == self.target.contents().at(content).digest;
            if way != Way::Hardlink && !is_right(Digest::of_reader(self.tree.read(to.path)?)?.0) {
                return Err(io::Error::other(format!("{} is not what was copied to it", to.path)));
            }
            self.fill(vacant);
            if way == Way::Hardlink {
                let stamp = self.stamps.get(place).copied().flatten();
                seen::put_down(&mut self.stamps, vacant, stamp);
            }
        }
        Ok(())
    }

    /// Returns a place by its number of entry.
    pub(crate) fn spot(&self, place: usize) -> Spot<'_> {
        let (path, file) = self.target.file(place).expect("places are numbers of file entries");
        Spot { tree: &self.tree, path, mode: file.mode() }
    }

    /// Learns which contents come in several frames, and which of their parts are on disk already, by hashing them.
    pub(crate) fn survey_parts(&mut self, plan: &TransferPlan) -> io::Result<()> {
        self.parts = Parts::default();
        for part in plan.frames.iter().flat_map(|frame| &frame.parts) {
            let content = self.target.contents().at(part.extent.content);
            if part.extent.len < content.size && self.lacks(part.extent.content) {
                let is_done = self.holds_part(part)?;
                self.parts.expect(part, is_done);
            }
        }
        self.parts.whole().into_iter().try_for_each(|number| {
            let (digest, _) = Digest::of_reader(fs_err::File::open(self.partial(number))?)?;
            self.finish_partial(number, digest)
        })
    }

    /// Says whether a part is of no further use: its content is in place, or the part is on disk.
    pub(crate) fn has_part(&self, part: &Part) -> bool {
        !self.lacks(part.extent.content) || self.parts.has(part)
    }

    /// Returns where the bytes of a part go.
    pub(crate) fn destination(&self, part: &Part) -> Destination {
        let content = self.target.contents().at(part.extent.content);
        if self.has_part(part) {
            Destination::Nowhere
        } else if part.extent.len == content.size {
            Destination::Place(self.vacancy(part.extent.content))
        } else {
            Destination::Gathering
        }
    }

    /// Gives away the hash of a content up to a part that is to be gathered and that it goes on with.
    pub(crate) fn hash_before(&mut self, part: &Part) -> Option<Beginning> {
        let is_gathered = self.destination(part) == Destination::Gathering;
        if is_gathered { self.parts.hash_before(part) } else { None }
    }

    /// Takes the hash of a content up to the end of a part whose digest was right.
    pub(crate) fn hash_after(&mut self, part: &Part, hash: Beginning) {
        self.parts.hash_after(part, hash);
    }

    /// Takes note of a part that stands in the file where its content is gathered; its digest was right. Where all of them are
    /// there now, returns the hash of the content as far as it goes: the rest is to be hashed, and the content finished.
    pub(crate) fn note_part(&mut self, part: &Part) -> Option<Beginning> {
        self.parts.note(part).then(|| self.parts.take_hash(part.extent.content))
    }

    /// Says whether bytes of the target can be leaned on.
    pub(crate) fn has_produced(&self, extent: &Extent) -> bool {
        !self.lacks_everywhere(extent.content) || self.parts.hold(extent)
    }

    /// Says whether no place of a content is filled.
    fn lacks_everywhere(&self, content: u32) -> bool {
        self.target.places(content).all(|place| self.is_missing[place])
    }

    /// Returns what serves contents that are staged already.
    pub(crate) fn produced(&self) -> Produced {
        Produced { area: self.area.clone(), tree: self.tree.clone(), target: self.target.clone() }
    }

    /// Returns the file in which a content is gathered, by number.
    pub(crate) fn partial(&self, content: u32) -> PathBuf {
        self.area.incoming_file(&self.target.contents().at(content).digest, ".partial")
    }

    fn holds_part(&self, part: &Part) -> io::Result<bool> {
        let Ok(mut file) = fs_err::File::open(self.partial(part.extent.content)) else { return Ok(false) };
        file.seek(SeekFrom::Start(part.extent.offset))?;
        let (digest, len) = Digest::of_reader(io::Read::take(file, part.extent.len))?;
        Ok(len == part.extent.len && digest == part.digest)
    }

    /// Puts a content in place whose parts are all there and have this digest together; one that is wrong as a whole is dropped
    /// with its parts.
    pub(crate) fn finish_partial(&mut self, number: u32, digest: Digest) -> io::Result<()> {
        let content = self.target.contents().at(number);
        let partial = self.partial(number);
        if digest == content.digest {
            let place = self.vacancy(number);
            let spot = self.spot(place);
            fs_err::set_permissions(&partial, PermissionsExt::from_mode(spot.mode))?;
            spot.tree.adopt(&partial, spot.path)?;
            if let Some(found) = spot.tree.stat(spot.path)? {
                self.note(place, found.stamp);
            }
            return self.settle(number, place);
        }
        discard(&partial)?;
        self.parts.forget(number);
        Ok(())
    }
}

/// Serves contents of the target as far as they are staged, from their place or from what has come of them.
pub(crate) struct Produced {
    area: Area,
    tree: Arc<Beneath>,
    target: Arc<Target>,
}

impl Produced {
    /// Returns the contents of the target, numbered.
    pub(crate) fn contents(&self) -> Contents<'_> {
        self.target.contents()
    }
}

impl ContentSource for Produced {
    fn reader(&self, content: &Digest, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let places = self.target.number(content).map(|number| self.target.places(number));
        let files = places.into_iter().flatten().filter_map(|place| self.target.file(place));
        let placed = files.map(|(path, _)| self.tree.read(path)).find_map(Result::ok);
        let mut file = match placed {
            Some(file) => file,
            None => fs_err::File::open(self.area.incoming_file(content, ".partial"))?.into(),
        };
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    }
}
