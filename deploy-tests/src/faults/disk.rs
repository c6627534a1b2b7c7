//! File systems of their own on loop devices, which can lose their power.
//!
//! Mounted so that nothing is durable which was not synced: no commit by time, and on ext4 no flush of what replaces a file
//! (`auto_da_alloc`), on which software of less care relies.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use super::shutdown::shut_down;
use crate::lab::wait_for;
use crate::measure;

/// How long unmounting may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Held to write while something is unmounted, and to read while a process has a mount namespace of its own: its copy of a
/// mount would keep alive what has lost its power.
pub(super) static NAMESPACES: RwLock<()> = RwLock::new(());

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ext4
    Ext4,
    /// XFS
    Xfs,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Ext4, Self::Xfs];

    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// Returns the size of an image: the least that the tool makes a sound file system of.
    fn size(self) -> u64 {
        match self {
            Self::Ext4 => 48 << 20,
            Self::Xfs => 300 << 20,
        }
    }

    fn options(self) -> &'static str {
        match self {
            Self::Ext4 => "noauto_da_alloc,commit=300,noatime",
            // Copies of an image have one identity.
            Self::Xfs => "nouuid,noatime",
        }
    }

    /// Says why such file systems cannot be tried here; nothing where they can.
    pub fn obstacle(self) -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("mounting needs root".into());
        }
        let tool = format!("mkfs.{}", self.as_str());
        if !is_installed(&tool) {
            return Some(format!("{tool} is not installed"));
        }
        if !Path::new("/dev/loop-control").exists() {
            return Some("the kernel has no loop devices".into());
        }
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        (!known.contains(self.as_str())).then(|| format!("the kernel has no {}", self.as_str()))
    }

    /// Makes an empty file system in `image`.
    pub fn make(self, image: &Path) -> Result<()> {
        fs::File::create(image)?.set_len(self.size())?;
        let mut command = Command::new(format!("mkfs.{}", self.as_str()));
        match self {
            Self::Ext4 => command.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]),
            Self::Xfs => command.args(["-q", "-f"]),
        };
        command.arg(image);
        measure::run(command)?;
        Ok(())
    }
}

/// Says whether a program can be found.
pub fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).any(|dir| dir.join(tool).exists())
}

/// Copies an image without the space that it does not use.
pub fn copy_image(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    command.arg("--sparse=always").args([from, to]);
    measure::run(command)?;
    Ok(())
}

/// A mounted image. Dropped, it is unmounted.
#[derive(Debug)]
pub struct Mount {
    kind: Kind,
    image: PathBuf,
    path: PathBuf,
    is_mounted: bool,
}

impl Mount {
    /// Mounts `image` at `path`, which is made.
    pub fn new(kind: Kind, image: &Path, path: &Path) -> Result<Self> {
        fs::create_dir_all(path)?;
        let mut mount = Self { kind, image: image.to_owned(), path: path.to_owned(), is_mounted: false };
        mount.mount()?;
        Ok(mount)
    }

    fn mount(&mut self) -> Result<()> {
        let mut command = Command::new("mount");
        command.args(["-t", self.kind.as_str(), "-o"]).arg(format!("loop,{}", self.kind.options()));
        command.args([&self.image, &self.path]);
        measure::run(command).with_context(|| format!("cannot mount {}", self.image.display()))?;
        self.is_mounted = true;
        Ok(())
    }

    /// Lets it be written to again.
    pub fn make_writable(&self) -> Result<()> {
        let mut command = Command::new("mount");
        command.args(["-o", "remount,rw"]).arg(&self.path);
        measure::run(command)?;
        Ok(())
    }

    /// Unmounts it in good order.
    pub fn unmount(mut self) -> Result<()> {
        self.release()
    }

    fn release(&mut self) -> Result<()> {
        if self.is_mounted {
            let _alone = NAMESPACES.write().unwrap_or_else(PoisonError::into_inner);
            // The files of a process that was killed are closed a moment after its end is told.
            wait_for("the file system to be unmounted", PATIENCE, || {
                let output = Command::new("umount").arg(&self.path).output()?;
                let message = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.success() || message.contains("busy"), "{message}");
                Ok(output.status.success().then_some(()))
            })?;
            self.is_mounted = false;
        }
        Ok(())
    }

    /// Cuts the power and boots: what was not durable is gone, and the log is replayed.
    pub fn cut_power(&mut self) -> Result<()> {
        shut_down(&self.path)?;
        self.release()?;
        self.mount()
    }

    /// Returns where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Already failing: a mount that stays is the lesser trouble, and its directory says what it is.
        let _ = self.release();
    }
}
