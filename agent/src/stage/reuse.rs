//! Takes contents from installed releases: shares the bytes where the file system can, links where it cannot, copies
//! where neither works. What is taken is hashed before it is put in place; a damaged source is skipped.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_common::digest::Digest;
use sluice_common::path::RelPath;

use super::area::{Area, discard};
use super::place::{Placer, copy, create};
use super::target::Target;
use crate::beneath::Beneath;
use crate::layout::AppDir;
use crate::observe;

/// An installed release to take files from.
struct Source {
    package: Digest,
    tree: Beneath,
}

/// Where a content stands in an installed release.
struct Copy {
    source: usize,
    path: RelPath,
    mode: u32,
}

/// The copies of each content.
type Copies = HashMap<Digest, Vec<Copy>>;

/// Fills the places of contents that installed releases hold. Returns the releases in which a file was damaged.
pub(crate) fn reuse(area: &Area, placer: &mut Placer, stop: &AtomicBool) -> io::Result<HashSet<Digest>> {
    placer.place_local()?;
    let lacking: HashSet<Digest> =
        placer.lacking().iter().map(|n| placer.target().contents[*n as usize].digest).collect();
    let mut damaged = HashSet::new();
    if lacking.is_empty() {
        return Ok(damaged);
    }
    let (sources, copies) = find(area.dir(), placer.target(), &lacking)?;
    let mut may_share = true;
    for (content, copies) in copies {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "staging was interrupted"));
        }
        let incoming = area.incoming_file(&content, "");
        for found in copies {
            let Some(mode) = placer.first_mode(&content) else { break };
            let source = &sources[found.source];
            let taken = take(source, &found, mode, &incoming, &mut may_share).and_then(|()| hash(&incoming));
            if taken.is_ok_and(|digest| digest == content) {
                placer.settle(&content, &incoming)?;
                break;
            }
            tracing::warn!(release = %source.package.short(), path = found.path.as_str(),
                "installed file is damaged; its content is had from elsewhere");
            damaged.insert(source.package);
            discard(&incoming)?;
        }
    }
    Ok(damaged)
}

/// Lists the copies of `lacking` in the installed releases, and in the remains of the wanted one where it is being
/// repaired.
fn find(dir: &AppDir, target: &Target, lacking: &HashSet<Digest>) -> io::Result<(Vec<Source>, Copies)> {
    let mut sources = Vec::new();
    let mut copies = Copies::new();
    let installed = observe::installed(dir)?.into_iter().map(|installed| installed.package);
    for package in std::iter::once(target.package).chain(installed.filter(|p| *p != target.package)) {
        let Ok(manifest) = observe::manifest(dir, &package) else { continue };
        let Ok(tree) = Beneath::open(&dir.release(&package)) else { continue };
        for (path, file) in manifest.files().filter(|(_, file)| lacking.contains(&file.digest)) {
            let copy = Copy { source: sources.len(), path: path.clone(), mode: file.mode() };
            copies.entry(file.digest).or_default().push(copy);
        }
        sources.push(Source { package, tree });
    }
    Ok((sources, copies))
}

fn take(source: &Source, found: &Copy, mode: u32, to: &Path, may_share: &mut bool) -> io::Result<()> {
    let file = source.tree.read(&found.path)?;
    if *may_share {
        let out = create(to)?;
        match rustix::fs::ioctl_ficlone(&out, &file) {
            Ok(()) => return Ok(()),
            // Not on this file system: do not ask for every file.
            Err(_) => *may_share = false,
        }
    }
    discard(to)?;
    // A link shares the inode, so its mode must be right as it is.
    if found.mode == mode && source.tree.link_out(&found.path, to).is_ok() {
        return Ok(());
    }
    copy(file, to)
}

fn hash(path: &Path) -> io::Result<Digest> {
    Ok(Digest::of_reader(fs_err::File::open(path)?)?.0)
}
