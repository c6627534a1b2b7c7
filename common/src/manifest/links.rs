//! The symlink rule: following any link of a package, through any others, never leaves the package.
//!
//! Links are resolved component by component against the manifest itself, as the kernel would: a textual
//! check alone is fooled by `a -> b/c` followed by `a/../..`.

use crate::caps;
use crate::path::RelPath;

use super::{Entry, EntryKind, Manifest, ManifestError};

/// Checks every symlink of `manifest`.
pub(super) fn check(manifest: &Manifest) -> Result<(), ManifestError> {
    let links = || {
        manifest.entries().filter_map(|entry| match entry.kind {
            EntryKind::Symlink { target } => Some((entry.path, target)),
            EntryKind::Directory | EntryKind::File(_) => None,
        })
    };
    // Before any is followed: the first may lead to the last.
    links().try_for_each(|(path, target)| check_text(path, target))?;
    let mut steps = STEPS_MIN + manifest.len() * STEPS_PER_ENTRY;
    for (path, target) in links() {
        match stays_inside(manifest, path, &mut steps) {
            Some(true) => {}
            Some(false) => {
                return Err(ManifestError::Escape { path: path.to_owned(), target: target.to_owned() });
            }
            None => {
                let reason = "part of too long a way: it leads through too many others";
                return Err(ManifestError::Target { path: path.to_owned(), reason });
            }
        }
    }
    Ok(())
}

/// Components of paths that are followed for all links of a manifest: many more than any real package needs, and a few seconds
/// where somebody means harm.
const STEPS_MIN: usize = 1 << 20;
const STEPS_PER_ENTRY: usize = 16;

fn check_text(path: &RelPath, target: &str) -> Result<(), ManifestError> {
    let reason = match target {
        "" => "empty",
        long if long.len() > caps::PATH_BYTES_MAX => "too long",
        nul if nul.contains('\0') => "not printable: it holds a NUL byte",
        _ => return Ok(()),
    };
    Err(ManifestError::Target { path: path.to_owned(), reason })
}

/// Follows `link` as the kernel would, in so many steps; nothing where these do not suffice. A loop or a dangling link stays inside:
/// nothing is reached through it.
fn stays_inside(manifest: &Manifest, link: &RelPath, steps: &mut usize) -> Option<bool> {
    let mut pending: Vec<&str> = link.components().rev().collect();
    let mut reached = String::new();
    let leave = |reached: &mut String| reached.truncate(reached.rfind('/').unwrap_or(0));
    let mut hops = 0;
    while let Some(component) = pending.pop() {
        *steps = steps.checked_sub(1)?;
        match component {
            "" | "." => continue,
            ".." if reached.is_empty() => return Some(false),
            ".." => {
                leave(&mut reached);
                continue;
            }
            name => {
                if !reached.is_empty() {
                    reached.push('/');
                }
                reached.push_str(name);
            }
        }
        // Nothing stands where no path leads to.
        if reached.len() > caps::PATH_BYTES_MAX {
            continue;
        }
        if let Some(Entry { kind: EntryKind::Symlink { target }, .. }) = manifest.get(&reached) {
            hops += 1;
            if hops > caps::SYMLINK_HOPS_MAX {
                return Some(true);
            }
            if target.starts_with('/') {
                return Some(false);
            }
            leave(&mut reached);
            pending.extend(target.split('/').rev());
        }
    }
    Some(true)
}
