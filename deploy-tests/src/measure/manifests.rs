//! Manifests of a million entries, and each of the steps that both ends take with them, each as a process of its own.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result, bail};
use sluice_common::digest::Digest;
use sluice_common::manifest::{Entry, EntryKind, FileEntry, Manifest};
use sluice_common::path::RelPath;
use sluice_common::transfer::{Effort, decode_manifest, encode_manifest, plan};

/// Files of each directory.
const FILES: usize = 999;
/// One of so many files is another in the second manifest: of a million, 5,000.
const CHANGED: usize = 200;

/// What a process does with the two manifests of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Makes them.
    Make,
    /// Takes one in.
    Decode,
    /// Plans a cold install.
    PlanCold,
    /// Plans the update from one to the other.
    PlanUpdate,
    /// Compresses one as a cold install sends it.
    Compress,
    /// Compresses one against the other.
    CompressUpdate,
    /// Restores one as a cold install brings it.
    Restore,
    /// Restores one against the other.
    RestoreUpdate,
}

impl Step {
    /// Every step but the making, in an order in which each has what it needs.
    pub const ALL: [Self; 7] = [
        Self::Decode,
        Self::PlanCold,
        Self::PlanUpdate,
        Self::Compress,
        Self::CompressUpdate,
        Self::Restore,
        Self::RestoreUpdate,
    ];

    /// Returns the step's word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Make => "make",
            Self::Decode => "decode",
            Self::PlanCold => "plan-cold",
            Self::PlanUpdate => "plan-update",
            Self::Compress => "compress",
            Self::CompressUpdate => "compress-update",
            Self::Restore => "restore",
            Self::RestoreUpdate => "restore-update",
        }
    }
}

/// Takes the step that the arguments name (`manifests STEP FOLDER ENTRIES`) and prints what came of it.
pub(super) fn step(args: &[OsString]) -> Result<String> {
    let [_, step, folder, entries] = args else { bail!("usage: manifests STEP FOLDER ENTRIES") };
    let step = std::iter::once(Step::Make).chain(Step::ALL).find(|known| step == known.as_str());
    let folder = Path::new(folder);
    let read = |name: &str| Ok::<_, anyhow::Error>(Manifest::decode(fs_err::read(folder.join(name))?)?);
    Ok(match step.context("no such step")? {
        Step::Make => {
            let entries: usize = entries.to_str().context("a number that is not UTF-8")?.parse()?;
            for (version, name) in [(0, "old"), (1, "new")] {
                fs_err::write(folder.join(name), make(entries, version)?.as_bytes())?;
            }
            format!("{entries} entries")
        }
        Step::Decode => format!("{} entries", read("new")?.len()),
        Step::PlanCold => format!("{} frames", plan(None, &read("new")?, Effort::Quick).len()),
        Step::PlanUpdate => {
            let (old, new) = (read("old")?, read("new")?);
            let frames = plan(Some(&old), &new, Effort::Quick);
            format!("{} contents travel", frames.iter().map(|frame| frame.parts.len()).sum::<usize>())
        }
        Step::Compress => {
            let compressed = encode_manifest(read("new")?.as_bytes(), &[])?;
            fs_err::write(folder.join("cold"), &compressed)?;
            format!("{} bytes", compressed.len())
        }
        Step::CompressUpdate => {
            let (old, new) = (read("old")?, read("new")?);
            let compressed = encode_manifest(new.as_bytes(), old.as_bytes())?;
            fs_err::write(folder.join("update"), &compressed)?;
            format!("{} bytes", compressed.len())
        }
        Step::Restore => restore(&fs_err::read(folder.join("cold"))?, &[])?,
        Step::RestoreUpdate => restore(&fs_err::read(folder.join("update"))?, read("old")?.as_bytes())?,
    })
}

fn restore(compressed: &[u8], base: &[u8]) -> Result<String> {
    let restored = Manifest::decode(decode_manifest(compressed, base)?)?;
    Ok(format!("{} entries", restored.len()))
}

fn make(entries: usize, version: u64) -> Result<Manifest> {
    let paths: Vec<String> = (0..entries).map(path).collect();
    let file = |number: usize| {
        let seed = if number % CHANGED == 1 { version } else { 0 };
        let digest = Digest::of(&[number as u64, seed].map(u64::to_le_bytes).concat());
        FileEntry { executable: false, size: 1_000 + number as u64 % 9_000, digest }
    };
    let entries = paths.iter().enumerate().map(|(number, path)| Entry {
        path: RelPath::new(path).expect("the paths are valid"),
        kind: if path.contains('/') { EntryKind::File(file(number)) } else { EntryKind::Directory },
    });
    Ok(Manifest::new(entries)?)
}

/// Returns the path of an entry: a directory, and then what stands in it.
fn path(number: usize) -> String {
    let directory = format!("usr-share-package-{:04}", number / (FILES + 1));
    match number % (FILES + 1) {
        0 => directory,
        file => format!("{directory}/module-file-{file:05}"),
    }
}
