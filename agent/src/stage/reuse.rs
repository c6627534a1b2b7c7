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
use std::sync::atomic::AtomicBool;

use sluice_common::digest::Digest;
use sluice_common::manifest::Manifest;

use super::place::Placer;
use super::share::{Sharer, Spot, Way};
use super::target::Planned;
use crate::beneath::Beneath;
use crate::layout::AppDir;
use crate::seen::{Seen, Stamp};
use crate::{observe, workers};

/// An installed release to take files from.
struct Source<'a> {
    package: Digest,
    tree: Beneath,
    manifest: Cow<'a, Manifest>,
    /// What was hashed of it lately.
    hashed: Option<&'a Seen>,
}

/// Where a content stands in an installed release.
struct Copy {
    /// The content's number.
    content: u32,
    source: usize,
    /// The number of its entry there.
    number: usize,
    mode: u32,
}

/// A content that installed releases may fill a place with.
struct Wanted<'a> {
    /// Its number and digest.
    number: u32,
    content: Digest,
    copies: &'a [Copy],
    /// The place's number of entry.
    place: usize,
    to: Spot<'a>,
}

/// Fills the places of contents that installed releases hold; what `hashed` covers is not hashed again. The
/// base of what is `planned` is one of them. Returns the releases in which a file was damaged.
pub(crate) fn reuse(
    dir: &AppDir,
    placer: &mut Placer,
    planned: Option<&Planned>,
    hashed: Option<&Seen>,
    stop: &AtomicBool,
) -> io::Result<HashSet<Digest>> {
    placer.place_local()?;
    let lacking = placer.lacking();
    if lacking.is_empty() {
        return Ok(HashSet::new());
    }
    let (sources, copies) = find(dir, placer, planned, hashed)?;
    let wanted: Vec<Wanted<'_>> = lacking
        .into_iter()
        .filter_map(|number| {
            let content = placer.target().contents().at(number).digest;
            let place = placer.vacancies(number).next()?;
            let copies = &copies[copies.partition_point(|copy| copy.content < number)..];
            let copies = &copies[..copies.partition_point(|copy| copy.content == number)];
            let wanted = Wanted { number, content, copies, place, to: placer.spot(place) };
            (!copies.is_empty()).then_some(wanted)
        })
        .collect();
    let (taken, damaged) = (Mutex::new(Vec::new()), Mutex::new(HashSet::new()));
    workers::each(wanted.len(), stop, |number| {
        let wanted = &wanted[number];
        for found in wanted.copies {
            let source = &sources[found.source];
            if let Some(stamp) = take(placer.sharer(), source, found, wanted)? {
                taken.lock().expect(workers::UNPOISONED).push((wanted.number, wanted.place, stamp));
                break;
            }
            tracing::warn!(release = %source.package.short(), path = source.spot(found).path.as_str(),
                "installed file is damaged; its content is had from elsewhere");
            damaged.lock().expect(workers::UNPOISONED).insert(source.package);
        }
        Ok(())
    })?;
    drop(wanted);
    if let Some(hashed) = hashed {
        placer.note_hashed_since(hashed.hashed_since());
    }
    for (content, place, stamp) in taken.into_inner().expect(workers::UNPOISONED) {
        placer.note(place, stamp);
        placer.settle(content, place)?;
    }
    placer.note_linked();
    Ok(damaged.into_inner().expect(workers::UNPOISONED))
}

/// Lists the copies of what is lacking in the installed releases, and in the remains of the wanted one where it is being
/// repaired, sorted by content; of one content, those of the release that was hashed come first.
fn find<'a>(
    dir: &AppDir,
    placer: &Placer,
    planned: Option<&'a Planned>,
    hashed: Option<&'a Seen>,
) -> io::Result<(Vec<Source<'a>>, Vec<Copy>)> {
    let target = placer.target();
    let (mut sources, mut copies) = (Vec::new(), Vec::new());
    let mut packages: Vec<Digest> =
        observe::installed(dir)?.into_iter().map(|installed| installed.package).collect();
    packages.retain(|package| *package != target.package);
    let is_hashed = |package: &Digest| hashed.is_some_and(|seen| seen.package() == package);
    packages.sort_by_key(|package| !is_hashed(package));
    for package in std::iter::once(target.package).chain(packages) {
        let Ok(tree) = Beneath::open(&dir.release(&package)) else { continue };
        let manifest = match planned.and_then(|planned| planned.base_manifest(&package)) {
            Some(known) => Cow::Borrowed(known),
            None => match observe::manifest(dir, &package) {
                Ok(read) => Cow::Owned(read),
                Err(_) => continue,
            },
        };
        for (number, entry) in manifest.entries().enumerate() {
            let Some((_, file)) = entry.file() else { continue };
            if let Some(content) = target.number(&file.digest).filter(|content| placer.lacks(*content)) {
                copies.push(Copy { content, source: sources.len(), number, mode: file.mode() });
            }
        }
        let hashed = hashed.filter(|seen| *seen.package() == package);
        sources.push(Source { package, tree, manifest, hashed });
    }
    copies.sort_by_key(|copy| copy.content);
    Ok((sources, copies))
}

impl Source<'_> {
    /// Returns where a copy stands.
    fn spot(&self, copy: &Copy) -> Spot<'_> {
        Spot { tree: &self.tree, path: self.manifest.entry(copy.number).path, mode: copy.mode }
    }

    /// Returns the stamp of a file whose bytes were hashed lately and are what they were.
    fn stamp_of_hashed(&self, copy: &Copy) -> io::Result<Option<Stamp>> {
        let Some(hashed) = self.hashed else { return Ok(None) };
        let found = self.tree.stat(self.spot(copy).path)?.map(|standing| standing.stamp);
        Ok(found.filter(|stamp| hashed.covers(copy.number, *stamp)))
    }
}

/// Takes a copy and returns its stamp if it was right; what was wrong does not stay. Fails where this host's disk does.
fn take(
    sharer: &Sharer,
    source: &Source<'_>,
    found: &Copy,
    wanted: &Wanted<'_>,
) -> io::Result<Option<Stamp>> {
    let Spot { tree, path, .. } = wanted.to;
    let from = source.spot(found);
    let taken = source.stamp_of_hashed(found).and_then(|before| {
        let way = sharer.bring(from, wanted.to)?;
        if let (Some(before), Way::Hardlink) = (before, way) {
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
