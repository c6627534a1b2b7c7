//! Takes contents from installed releases: shares the bytes where the file system can, links where it cannot, copies
//! where neither works. What is taken is hashed where it was put, once, but for a link to a file that this process has
//! hashed lately and that nobody has written to since; a damaged source is skipped.
//!
//! Only whole contents are taken. The chunks of a changed file that an installed release has are left to the plan:
//! against that release it carries what is new only, and in less than a chunk list would take.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use sluice_common::digest::Digest;
use sluice_common::manifest::EntryKind;
use sluice_common::path::RelPath;

use super::place::Placer;
use super::share::{Sharer, Spot, Way};
use super::target::Target;
use crate::beneath::Beneath;
use crate::layout::AppDir;
use crate::seen::{Seen, Stamp};
use crate::{observe, workers};

/// An installed release to take files from.
struct Source<'a> {
    package: Digest,
    tree: Beneath,
    /// What was hashed of it lately.
    hashed: Option<&'a Seen>,
}

/// Where a content stands in an installed release.
struct Copy {
    source: usize,
    path: RelPath,
    /// The number of its entry there.
    number: usize,
    mode: u32,
}

/// The copies of each content.
type Copies = HashMap<Digest, Vec<Copy>>;

/// A content that installed releases may fill a place with.
struct Wanted<'a> {
    content: Digest,
    copies: Vec<Copy>,
    /// The place's number of entry.
    place: usize,
    to: Spot<'a>,
}

/// Fills the places of contents that installed releases hold; what `hashed` covers is not hashed again. Returns the releases
/// in which a file was damaged.
pub(crate) fn reuse(
    dir: &AppDir,
    placer: &mut Placer,
    hashed: Option<&Seen>,
    stop: &AtomicBool,
) -> io::Result<HashSet<Digest>> {
    placer.place_local()?;
    let lacking = placer.lacking();
    if lacking.is_empty() {
        return Ok(HashSet::new());
    }
    let lacking: Vec<Digest> =
        lacking.iter().map(|number| placer.target().contents[*number as usize].digest).collect();
    let (sources, mut copies) = find(dir, placer.target(), &lacking.iter().copied().collect(), hashed)?;
    let wanted: Vec<Wanted<'_>> = lacking
        .iter()
        .filter_map(|content| {
            let place = *placer.vacancies(content).first()?;
            Some(Wanted { content: *content, copies: copies.remove(content)?, place, to: placer.spot(place) })
        })
        .collect();
    let (taken, damaged) = (Mutex::new(Vec::new()), Mutex::new(HashSet::new()));
    workers::each(&wanted, stop, |_, wanted| {
        for found in &wanted.copies {
            let source = &sources[found.source];
            if let Some(stamp) = take(placer.sharer(), source, found, wanted)? {
                taken.lock().expect(workers::UNPOISONED).push((wanted.content, wanted.place, stamp));
                break;
            }
            tracing::warn!(release = %source.package.short(), path = found.path.as_str(),
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
        placer.settle(&content, place)?;
    }
    placer.note_linked();
    Ok(damaged.into_inner().expect(workers::UNPOISONED))
}

/// Lists the copies of `lacking` in the installed releases, and in the remains of the wanted one where it is being
/// repaired.
fn find<'a>(
    dir: &AppDir,
    target: &Target,
    lacking: &HashSet<Digest>,
    hashed: Option<&'a Seen>,
) -> io::Result<(Vec<Source<'a>>, Copies)> {
    let mut sources = Vec::new();
    let mut copies = Copies::new();
    let mut packages: Vec<Digest> =
        observe::installed(dir)?.into_iter().map(|installed| installed.package).collect();
    packages.retain(|package| *package != target.package);
    let is_hashed = |package: &Digest| hashed.is_some_and(|seen| seen.package() == package);
    packages.sort_by_key(|package| !is_hashed(package));
    for package in std::iter::once(target.package).chain(packages) {
        let Ok(manifest) = observe::manifest(dir, &package) else { continue };
        let Ok(tree) = Beneath::open(&dir.release(&package)) else { continue };
        for (number, entry) in manifest.entries().iter().enumerate() {
            let EntryKind::File(file) = &entry.kind else { continue };
            if lacking.contains(&file.digest) {
                let (path, mode) = (entry.path.clone(), file.mode());
                copies.entry(file.digest).or_default().push(Copy {
                    source: sources.len(),
                    path,
                    number,
                    mode,
                });
            }
        }
        let hashed = hashed.filter(|seen| *seen.package() == package);
        sources.push(Source { package, tree, hashed });
    }
    Ok((sources, copies))
}

impl Source<'_> {
    /// Returns the stamp of a file whose bytes were hashed lately and are what they were.
    fn stamp_of_hashed(&self, copy: &Copy) -> io::Result<Option<Stamp>> {
        let Some(hashed) = self.hashed else { return Ok(None) };
        let found = self.tree.stat(&copy.path)?.map(|standing| standing.stamp);
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
    let from = Spot { tree: &source.tree, path: &found.path, mode: found.mode };
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
