//! One peer on one pair of trees.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use sluice_common::digest::Digest;
use sluice_common::path::RelPath;
use sluice_common::tree::Tree;

use super::table::Peer;
use super::tool;
use crate::lab::compare;
use crate::measure::{self, Usage};

/// What a peer sent, and what it took.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// Everything that would travel.
    pub bytes: u64,
    /// At the sender.
    pub encode: Usage,
    /// At the receiver, where it was tried.
    pub apply: Option<Usage>,
}

/// A pair of trees in every form that a peer wants them in.
pub struct Prepared {
    scratch: tempfile::TempDir,
    tools: PathBuf,
    old: PathBuf,
    new: PathBuf,
    changed: u64,
}

impl Prepared {
    /// Prepares a pair below the system's temporary directory.
    pub fn new(old: &Path, new: &Path) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        for (tree, name) in [(old, "old.tar"), (new, "new.tar")] {
            let pack =
                r#"tar -C "$TREE" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$OUT" ."#;
            let out = scratch.path().join(name);
            measure::shell(pack, &[("TREE", tree.as_os_str()), ("OUT", out.as_os_str())])?;
        }
        let changed = write_changed(scratch.path(), old, new)?;
        Ok(Self { scratch, tools: tool::directory()?, old: old.to_owned(), new: new.to_owned(), changed })
    }

    /// Returns how many files changed or are new: each costs an update one digest.
    pub fn changed(&self) -> u64 {
        self.changed
    }

    /// Returns the directory of programs.
    pub fn tools(&self) -> &Path {
        &self.tools
    }

    /// Returns the new tree as an archive.
    pub fn new_tar(&self) -> PathBuf {
        self.file("new.tar")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Runs a peer; with `apply`, to the far end, where its result is compared.
    pub fn run(&self, peer: &Peer, apply: bool) -> Result<Trial> {
        let work = tempfile::tempdir_in(self.scratch.path())?;
        let names = ["old.tar", "new.tar", "old.changed", "new.changed", "changed", "added"];
        let files = names.map(|name| self.file(name));
        let named = ["OLD_TAR", "NEW_TAR", "OLD_CHANGED", "NEW_CHANGED", "CHANGED", "ADDED"];
        let mut variables: Vec<(&str, &OsStr)> =
            named.into_iter().zip(files.iter().map(|file| file.as_os_str())).collect();
        variables.extend([("OLD", self.old.as_os_str()), ("NEW", self.new.as_os_str())]);
        variables.extend([("WORK", work.path().as_os_str()), ("TOOLS", self.tools.as_os_str())]);
        let (_, encode) = measure::shell_alone(peer.encode, &variables).with_context(|| peer.name)?;
        let bytes = bytes_of(&work.path().join("sent"))?;
        let apply = match peer.apply {
            script if apply && !script.is_empty() => {
                let (_, usage) = measure::shell_alone(script, &variables)
                    .with_context(|| format!("{}, applying", peer.name))?;
                self.check(work.path()).with_context(|| peer.name)?;
                Some(usage)
            }
            _ => None,
        };
        Ok(Trial { bytes, encode, apply })
    }

    /// Compares what a peer made with the new tree. Files that went away may stay: no peer is asked to remove them.
    fn check(&self, work: &Path) -> Result<()> {
        let (tar, tree) = (work.join("out.tar"), work.join("out"));
        if tar.is_file() {
            let same = |path: &Path| Ok::<_, anyhow::Error>(Digest::of_reader(fs::File::open(path)?)?.0);
            ensure!(same(&tar)? == same(&self.new_tar())?, "it made another archive");
        } else if tree.is_dir() {
            let differing = compare(&self.new, &tree)?;
            let other = differing.iter().find(|difference| difference.what == "other content");
            ensure!(other.is_none(), "it made another tree: {other:?}");
        }
        Ok(())
    }
}

/// Returns the bytes of a file, or of all files in a directory.
fn bytes_of(sent: &Path) -> Result<u64> {
    if sent.is_file() {
        return Ok(fs::metadata(sent)?.len());
    }
    fs::read_dir(sent)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

/// Writes the lists of changed and added files and their contents end to end; returns how many they are.
fn write_changed(scratch: &Path, old: &Path, new: &Path) -> Result<u64> {
    let (old, new) = (Tree::scan(old)?, Tree::scan(new)?);
    let known: HashSet<_> = old.manifest().files().map(|(_, file)| file.digest).collect();
    let kept: HashMap<_, _> = new.manifest().files().map(|(path, file)| (path, file.digest)).collect();
    let replaced = || old.manifest().files().filter(|(path, file)| kept.get(path) != Some(&file.digest));
    let bases: HashMap<String, &RelPath> =
        replaced().map(|(path, _)| (without_version(path), path)).collect();
    let create = |name: &str| fs::File::create(scratch.join(name)).map(BufWriter::new);
    let (mut changed, mut added) = (create("changed")?, create("added")?);
    let (mut old_bytes, mut new_bytes) = (create("old.changed")?, create("new.changed")?);
    let mut count = 0;
    for (path, file) in new.manifest().files().filter(|(_, file)| !known.contains(&file.digest)) {
        match bases.get(&without_version(path)) {
            Some(base) if file.size > 0 => writeln!(changed, "{base}\t{path}")?,
            Some(_) | None => writeln!(added, "{path}")?,
        }
        append(&mut new_bytes, &new, path)?;
        count += u64::from(file.size > 0);
    }
    // What a changed file replaces, and what went away: other tools may lean on all of it.
    for (path, _) in replaced() {
        append(&mut old_bytes, &old, path)?;
    }
    for file in [&mut changed, &mut added, &mut old_bytes, &mut new_bytes] {
        file.flush()?;
    }
    Ok(count)
}

/// Returns a path without its digits: what stays when a version stands in the name of a file or of its directory. Tools
/// that work file by file are given the base that a careful deployer would give them.
fn without_version(path: &RelPath) -> String {
    path.as_str().chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn append(out: &mut impl Write, tree: &Tree, path: &RelPath) -> Result<()> {
    std::io::copy(&mut fs::File::open(path.below(tree.root()))?, out)?;
    Ok(())
}
