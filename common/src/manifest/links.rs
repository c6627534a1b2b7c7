//! The symlink rule: following any link of a package, through any others, never leaves the package.
//!
//! Links are resolved component by component against the manifest itself, as the kernel would: a textual
//! check alone is fooled by `a -> b/c` followed by `a/../..`.

use crate::caps;
use crate::path::RelPath;

use super::{Entry, EntryKind, Manifest, ManifestError};

/// Checks every symlink of `manifest`.
pub(super) fn check(manifest: &Manifest) -> Result<(), ManifestError> {
    for entry in manifest.entries() {
        if let EntryKind::Symlink { target } = entry.kind {
            check_text(entry.path, target)?;
            if !stays_inside(manifest, entry.path) {
                return Err(ManifestError::Escape { path: entry.path.to_owned(), target: target.to_owned() });
            }
        }
    }
    Ok(())
}

fn check_text(path: &RelPath, target: &str) -> Result<(), ManifestError> {
    let reason = match target {
        "" => "empty",
        long if long.len() > caps::PATH_BYTES_MAX => "too long",
        nul if nul.contains('\0') => "not printable: it holds a NUL byte",
        _ => return Ok(()),
    };
    Err(ManifestError::Target { path: path.to_owned(), reason })
}

/// Follows `link` as the kernel would. A loop or a dangling link stays inside: nothing is reached through it.
fn stays_inside(manifest: &Manifest, link: &RelPath) -> bool {
    let mut pending: Vec<&str> = link.components().rev().collect();
    let mut reached: Vec<&str> = Vec::new();
    let mut hops = 0;
    while let Some(component) = pending.pop() {
        match component {
            "" | "." => continue,
            ".." => {
                if reached.pop().is_none() {
                    return false;
                }
                continue;
            }
            name => reached.push(name),
        }
        if let Some(Entry { kind: EntryKind::Symlink { target }, .. }) = manifest.get(&reached.join("/")) {
            hops += 1;
            if hops > caps::SYMLINK_HOPS_MAX {
                return true;
            }
            if target.starts_with('/') {
                return false;
            }
            reached.pop();
            pending.extend(target.split('/').rev());
        }
    }
    true
}
