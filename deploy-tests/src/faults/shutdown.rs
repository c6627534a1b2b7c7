//! Takes the power from a mounted file system: from now on it writes nothing, not even its log.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::ioctl::{Setter, ioctl, opcode};

/// `FS_IOC_SHUTDOWN`, which XFS calls `XFS_IOC_GOINGDOWN`.
const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`, `XFS_FSOP_GOING_FLAGS_NOLOGFLUSH`: what stands in memory only is lost.
const NO_LOG_FLUSH: u32 = 2;

/// Takes the power from the file system that is mounted at `path`. Needs root.
#[expect(
    unsafe_code,
    reason = "no crate offers this ioctl, and a process of its own for it would outlast a commit"
)]
pub(super) fn shut_down(path: &Path) -> Result<()> {
    let directory: File = fs_err::File::open(path)?.into_parts().0;
    // SAFETY: FS_IOC_SHUTDOWN reads one u32 through its argument (its encoded direction says the opposite, as that of
    // many old ioctls does) and keeps no pointer.
    let done = unsafe { ioctl(&directory, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) };
    done.with_context(|| format!("cannot shut down the file system at {}", path.display()))
}
