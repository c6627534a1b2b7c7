//! Directory trees of the lab: made, copied, compared.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

/// A difference between two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where, relative to the roots.
    pub path: PathBuf,
    /// What differs.
    pub what: String,
}

/// Returns every difference between two trees: names, kinds, modes, link targets, bytes.
pub fn compare(left: &Path, right: &Path) -> Result<Vec<Difference>> {
    let (a, b) = (list(left)?, list(right)?);
    let mut differences = Vec::new();
    for path in a.keys().chain(b.keys().filter(|path| !a.contains_key(*path))) {
        if let Some(what) = difference(a.get(path), b.get(path), &left.join(path), &right.join(path))? {
            differences.push(Difference { path: path.clone(), what });
        }
    }
    Ok(differences)
}

fn difference(
    left: Option<&fs::DirEntry>,
    right: Option<&fs::DirEntry>,
    left_path: &Path,
    right_path: &Path,
) -> Result<Option<String>> {
    let (Some(_), Some(_)) = (left, right) else {
        return Ok(Some(
            if left.is_some() { "missing on the right" } else { "missing on the left" }.to_owned(),
        ));
    };
    let (a, b) = (fs::symlink_metadata(left_path)?, fs::symlink_metadata(right_path)?);
    if a.mode() != b.mode() {
        return Ok(Some(format!("mode {:o} and {:o}", a.mode(), b.mode())));
    }
    let same = match a.file_type() {
        kind if kind.is_symlink() => fs::read_link(left_path)? == fs::read_link(right_path)?,
        kind if kind.is_file() => a.len() == b.len() && fs::read(left_path)? == fs::read(right_path)?,
        _ => true,
    };
    Ok((!same).then(|| "other content".to_owned()))
}

fn list(root: &Path) -> Result<BTreeMap<PathBuf, fs::DirEntry>> {
    let mut found = BTreeMap::new();
    // A release is reached through the link `current`; the trailing component resolves it.
    let mut pending = vec![root.join(".")];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
            let relative = entry.path().strip_prefix(root)?.components().skip_while(is_here).collect();
            found.insert(relative, entry);
        }
    }
    Ok(found)
}

fn is_here(component: &std::path::Component<'_>) -> bool {
    matches!(component, std::path::Component::CurDir)
}

/// Copies a tree with its modes (0755 and 0644) and links.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type()? {
            kind if kind.is_dir() => copy_tree(&source, &target)?,
            kind if kind.is_symlink() => symlink(fs::read_link(&source)?, &target)?,
            _ => {
                fs::copy(&source, &target)?;
            }
        }
    }
    Ok(())
}

/// Writes files given as (path, bytes, executable) below `root`.
pub fn write_tree(root: &Path, files: &[(&str, Vec<u8>, bool)]) -> Result<()> {
    for (path, bytes, executable) in files {
        let path = root.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(if *executable { 0o755 } else { 0o644 }))?;
    }
    Ok(())
}

/// Returns bytes that do not compress and are the same for the same seed (xorshift64*).
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    });
    words.flatten().take(len).collect()
}
