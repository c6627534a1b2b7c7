//! Where a bench stands: a folder, or a file system of its own for what is timed.
//!
//! Where an ext4 without a journal has lost thousands of files within five minutes, each new file costs it half a
//! millisecond, whoever makes it; so all that is compared with each other is timed on a file system that has lost none.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::faults::disk::Kind;
use crate::measure;

/// Size of the file system: several copies of a large tree, and the tenth that agents keep free. Only what is written of it
/// takes space.
const BYTES: u64 = 8 << 30;

/// A place for files, removed with what stands there.
pub(in crate::show::transfer) struct Scratch {
    dir: tempfile::TempDir,
    mounted: Option<PathBuf>,
}

impl Scratch {
    /// Takes a folder.
    pub(super) fn folder() -> Result<Self> {
        Ok(Self { dir: tempfile::tempdir()?, mounted: None })
    }

    /// Makes a new ext4 as the tools make it, and mounts it; takes a folder, and says so, where that cannot be done. What is written to
    /// it goes straight to the disk, as on a host: else all of it would be copied once more, by a thread of the kernel that
    /// takes turns with what is measured.
    pub(super) fn file_system() -> Result<Self> {
        let mut scratch = Self::folder()?;
        if let Some(obstacle) = Kind::Ext4.obstacle() {
            println!("       timed in a folder, not on a file system of its own: {obstacle}");
            return Ok(scratch);
        }
        let (image, path) = (scratch.dir.path().join("image"), scratch.dir.path().join("mounted"));
        fs_err::create_dir(&path)?;
        fs_err::File::create(&image)?.set_len(BYTES)?;
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(&image);
        measure::run(make)?;
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).args([&image, &path]);
        measure::run(mount)?;
        let direct = r#"losetup --direct-io=on "$(findmnt --noheadings --output SOURCE "$MOUNTED")""#;
        if let Err(obstacle) = measure::shell(direct, &[("MOUNTED", path.as_os_str())]) {
            println!("       timed on a file system whose writes are copied once more: {obstacle:#}");
        }
        scratch.mounted = Some(path);
        Ok(scratch)
    }

    /// Returns the directory.
    pub(in crate::show::transfer) fn path(&self) -> &Path {
        self.mounted.as_deref().unwrap_or(self.dir.path())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(path) = &self.mounted {
            // Lazily: what still runs in it ends with the lab. Already failing where it does not: it is only a figure's.
            let _ = Command::new("umount").arg("--lazy").arg(path).status();
        }
    }
}
