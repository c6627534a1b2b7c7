//! Takes contents from installed releases: shares the bytes where the file system can, links where it cannot, copies
//! where neither works. What is taken is hashed where it was put, once, but for a link to a file that this process has
//! hashed lately and that nobody has written to since; a damaged source is skipped.
//!
//! Only whole contents are taken. The chunks of a changed file that an installed release has are left to the plan:
//! against that release it carries what is new only, and in less than a chunk list would take.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_common::digest::Digest;
use sluice_common::manifest::{Copies, Manifest};

use super::place::Placer;
use super::share::{Sharer, Spot, Way};
use super::target::Planned;
use crate::beneath::Beneath;
use crate::layout::AppDir;
use crate::seen::{Seen, Stamp};
use crate::{observe, workers};

/// Contents that are looked for and taken at a time: enough for every worker, and few enough to wait in memory.
const TAKEN_AT_ONCE: usize = 16 * 1024;

/// An installed release to take files from.
struct Source<'a> {
    package: Digest,
    tree: Beneath,
    manifest: Cow<'a, Manifest>,
    /// What was hashed of it lately.
    hashed: Option<&'a Seen>,
}

/// The contents that a placer lacks, in eight bytes each.
struct Lacking(Vec<u64>);

impl Lacking {
    fn of(placer: &Placer) -> Self {
        let contents = placer.target().contents();
        let lacking = placer.lacking().into_iter();
        let mut beginnings: Vec<u64> = lacking.map(|number| contents.at(number).digest.beginning()).collect();
        beginnings.sort_unstable();
        Self(beginnings)
    }

    /// Says whether a content may be one of them: hardly any other is.
    fn may_have(&self, content: &Digest) -> bool {
        self.0.binary_search(&content.beginning()).is_ok()
    }
}

/// A content that an installed release may fill a place with.
struct Wanted<'a> {
    /// Its number and digest.
    number: u32,
    content: Digest,
    /// Where it stands in the release, by number of entry.
    copies: Vec<usize>,
    /// The place's number of entry.
    place: usize,
    to: Spot<'a>,
}

/// Fills the places of contents that installed releases hold, and the remains of the wanted one where it is being repaired;
/// what `hashed` covers comes first and is not hashed again. The base of what is `planned` is one of them. What there is no
/// room to copy is left lacking. Returns the releases in which a file was damaged.
pub(crate) fn reuse(
    dir: &AppDir,
    placer: &mut Placer,
    (planned, hashed): (Option<&Planned>, Option<&Seen>),
    stop: &AtomicBool,
) -> io::Result<HashSet<Digest>> {
    if lacks_room(placer.place_local())? {
        tracing::warn!("there is no room to copy what stands in the tree already");
    }
    let mut damaged = HashSet::new();
    if placer.is_whole() {
        return Ok(damaged);
    }
    let target = placer.target().clone();
    let mut packages: Vec<Digest> =
        observe::installed(dir)?.into_iter().map(|installed| installed.package).collect();
    packages.retain(|package| *package != target.package);
    let is_hashed = |package: &Digest| hashed.is_some_and(|seen| seen.package() == package);
    packages.sort_by_key(|package| !is_hashed(package));
    for package in std::iter::once(target.package).chain(packages) {
        if placer.is_whole() {
            break;
        }
        let hashed = hashed.filter(|_| is_hashed(&package));
        let known = match package == target.package {
            true => Some(&target.manifest),
            false => planned.and_then(|planned| planned.base_manifest(&package)),
        };
        let Some(source) = Source::open(dir, package, known, hashed, placer) else { continue };
        placer.sharer().room().keep(Some(package));
        let is_sound = AtomicBool::new(true);
        if lacks_room(source.give(placer, &is_sound, stop))? {
            tracing::warn!(release = %package.short(), "there is no room to copy its files");
        }
        placer.sharer().room().keep(None);
        if !is_sound.into_inner() {
            damaged.insert(package);
        }
    }
    if let Some(hashed) = hashed {
        placer.note_hashed_since(hashed.hashed_since());
    }
    placer.note_linked();
    Ok(damaged)
}

/// Says whether copying ended for want of room. Whether the disk holds what is lacking is asked once more, of all of it, before
/// any of it is fetched.
fn lacks_room(copied: io::Result<()>) -> io::Result<bool> {
    match copied {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(true),
        Err(error) => Err(error),
    }
}

impl<'a> Source<'a> {
    /// Opens an installed release to take what the placer lacks; nothing where it has no tree or no manifest.
    fn open(
        dir: &AppDir,
        package: Digest,
        known: Option<&'a Manifest>,
        hashed: Option<&'a Seen>,
        placer: &Placer,
    ) -> Option<Self> {
        let tree = Beneath::open(&dir.release(&package)).ok()?;
        let manifest = match (known, hashed) {
            (Some(known), _) => Cow::Borrowed(known),
            // What was hashed is known by the numbers of all entries.
            (None, Some(_)) => Cow::Owned(observe::manifest(dir, &package).ok()?),
            // Those of the target and of its base are in memory already: of a million entries a third would be too much.
            (None, None) => {
                let lacking = Lacking::of(placer);
                Cow::Owned(observe::manifest_part(dir, &package, |content| lacking.may_have(content)).ok()?)
            }
        };
        Some(Self { package, tree, manifest, hashed })
    }

    /// Fills the places of what the release holds; notes where one of its files was damaged.
    fn give(&self, placer: &mut Placer, is_sound: &AtomicBool, stop: &AtomicBool) -> io::Result<()> {
        let shared = placer.target().manifest.shared_with(&self.manifest);
        let lacking = placer.lacking().into_iter();
        let lacking: Vec<(u32, Copies)> =
            lacking.filter_map(|content| Some((content, shared[content as usize]?))).collect();
        drop(shared);
        // The first one alone, to learn how the file system shares.
        let (first, others) = lacking.split_at(lacking.len().min(1));
        for contents in std::iter::once(first).chain(others.chunks(TAKEN_AT_ONCE)) {
            let is_bare_link = self.hashed.is_some() && placer.sharer().links();
            let threads = if is_bare_link { workers::FOR_NAMES } else { workers::FOR_BYTES };
            let wanted: Vec<Wanted<'_>> =
                contents.iter().filter_map(|content| self.wanted(placer, *content)).collect();
            let taken = Mutex::new(Vec::new());
            let result = workers::each(wanted.len(), threads, stop, |number| {
                let wanted = &wanted[number];
                if let Some(stamp) = self.take(placer.sharer(), wanted, is_sound)? {
                    taken.lock().expect(workers::UNPOISONED).push((wanted.number, wanted.place, stamp));
                }
                Ok(())
            });
            drop(wanted);
            for (content, place, stamp) in taken.into_inner().expect(workers::UNPOISONED) {
                placer.note(place, stamp);
                placer.settle(content, place)?;
            }
            // What was taken before something failed stands where it belongs.
            result?;
        }
        Ok(())
    }

    /// Returns a content that the release holds, by its number in the target, with a place for it.
    fn wanted<'p>(&self, placer: &'p Placer, (number, copies): (u32, Copies)) -> Option<Wanted<'p>> {
        let content = placer.target().contents().at(number).digest;
        let place = placer.vacancies(number).next()?;
        let copies = self.manifest.copies(copies).collect();
        Some(Wanted { number, content, copies, place, to: placer.spot(place) })
    }

    /// Takes a content from the first of its copies that is right; returns the stamp of what stands in its place.
    fn take(&self, sharer: &Sharer, wanted: &Wanted<'_>, is_sound: &AtomicBool) -> io::Result<Option<Stamp>> {
        for copy in &wanted.copies {
            if let Some(stamp) = take(sharer, self, *copy, wanted)? {
                return Ok(Some(stamp));
            }
            tracing::warn!(release = %self.package.short(), path = self.spot(*copy).path.as_str(),
                "installed file is damaged; its content is had from elsewhere");
            is_sound.store(false, Ordering::Relaxed);
        }
        Ok(None)
    }

    /// Returns where a copy stands, by number of entry.
    fn spot(&self, copy: usize) -> Spot<'_> {
        let (path, file) = self.manifest.entry(copy).file().expect("copies are numbers of file entries");
        Spot { tree: &self.tree, path, mode: file.mode() }
    }

    /// Returns the stamp of a file, as it stands, if its bytes were hashed lately and are what they were.
    fn stamp_of_hashed(&self, copy: usize, standing: Stamp) -> Option<Stamp> {
        self.hashed.filter(|hashed| hashed.covers(copy, standing)).map(|_| standing)
    }
}

/// Takes a copy and returns its stamp if it was right; what was wrong does not stay. Fails where this host's disk does.
fn take(
    sharer: &Sharer,
    source: &Source<'_>,
    found: usize,
    wanted: &Wanted<'_>,
) -> io::Result<Option<Stamp>> {
    let Spot { tree, path, .. } = wanted.to;
    let from = source.spot(found);
    let taken = from.tree.stat(from.path).and_then(|standing| {
        let standing = standing.ok_or(io::ErrorKind::NotFound)?;
        // With the mode that somebody may have given it since, it must not become a further name of the file.
        let way = sharer.bring(Spot { mode: standing.mode, ..from }, wanted.to)?;
        if let (Some(before), Way::Hardlink) = (source.stamp_of_hashed(found, standing.stamp), way) {
            // The link has moved its time of change; whether something else has is looked at before the marker is written.
            return Ok((wanted.content, before));
        }
        let file = tree.read(path)?;
        // Before it is read: what is written to it meanwhile is not what was hashed.
        let stamp = Stamp::of(&file.metadata()?);
        Ok((Digest::of_reader(file)?.0, stamp))
    });
    match taken {
        Ok((digest, stamp)) if digest == wanted.content => return Ok(Some(stamp)),
        Err(error) if is_of_this_disk(&error) => return Err(error),
        // It is missing, cannot be read, or has other bytes.
        Ok(_) | Err(_) => {}
    }
    tree.remove(path)?;
    Ok(None)
}

/// Says whether an error has its cause in what is written, not in what is read.
fn is_of_this_disk(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}
