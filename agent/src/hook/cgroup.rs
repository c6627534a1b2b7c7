//! A cgroup of a hook's own, where the host has cgroup v2 and lets the agent make one (`Delegate=yes` in its unit).

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_common::caps;

const ROOT: &str = "/sys/fs/cgroup";
/// Rounds of waiting until the kernel lets the cgroup be removed.
const ROUNDS_MAX: u32 = 100;

/// What the names of cgroups of hooks begin with; the hook's mark follows.
const NAME: &str = "sluice-hook-";

/// Finds the cgroups of hooks whose marks begin with `scope`, so many levels below `path`, each with its hook's mark.
pub(crate) fn find(path: &Path, scope: &str, levels: usize, found: &mut Vec<(String, PathBuf)>) {
    let Ok(entries) = fs_err::read_dir(path) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        match entry.file_name().to_string_lossy().strip_prefix(NAME) {
            Some(id) if id.starts_with(scope) => found.push((id.to_owned(), entry.path())),
            Some(_) => {}
            None if levels > 0 => find(&entry.path(), scope, levels - 1, found),
            None => {}
        }
    }
}

/// A cgroup that is ended and removed with everything in it.
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup below the agent's own; nothing where that cannot be.
    pub(super) fn create(id: &str) -> Option<Self> {
        let root = Path::new(ROOT);
        if !root.join("cgroup.controllers").exists() {
            return None;
        }
        let own = fs_err::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let path = root.join(own).join(format!("{NAME}{id}"));
        fs_err::create_dir(&path).ok()?;
        // Only where the pids controller is delegated too; the hook runs without the limit otherwise.
        let _ = fs_err::write(path.join("pids.max"), caps::HOOK_TASKS_MAX.to_string());
        Some(Self { path })
    }

    /// Returns the file through which a process joins.
    pub(super) fn entrance(&self) -> Option<OwnedFd> {
        let file = fs_err::OpenOptions::new().write(true).open(self.path.join("cgroup.procs")).ok()?;
        Some(file.into_file().into())
    }

    /// Ends everything in the cgroup and removes it; blocks for a moment.
    pub(super) fn end(self) {
        let _ = fs_err::write(self.path.join("cgroup.kill"), "1");
        for _ in 0..ROUNDS_MAX {
            if fs_err::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        tracing::warn!(path = %self.path.display(), "cgroup of a hook cannot be removed");
    }
}
