//! Locks that end with their process: one agent a host, one mutating operation an application.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;

/// A lock that is held until this value is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Times that a held lock is tried again: a child that an agent was just starting may hold it for a moment longer.
const TRIES: u32 = 20;
/// Time between two tries.
const PATIENCE: Duration = Duration::from_millis(50);

/// Takes the lock at `path`, or fails after a second when another process holds it. Blocks.
pub(crate) fn take(path: &Path) -> io::Result<Lock> {
    let mut options = fs_err::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    options.options_mut().mode(0o600);
    let file: File = options.open(path)?.into();
    for _ in 0..TRIES {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(PATIENCE),
            Err(errno) => return Err(crate::beneath::failed("lock", path, errno)),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::WouldBlock,
        format!("{} is held by another sluice-agent; stop it first", path.display()),
    ))
}

/// Says whether a process holds the lock at `path`.
pub(crate) fn is_held(path: &Path) -> bool {
    let Ok(file) = fs_err::File::open(path) else { return false };
    let tried = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
    tried == Err(rustix::io::Errno::WOULDBLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        let lock = take(&path).unwrap();
        assert!(take(&path).unwrap_err().to_string().contains("another sluice-agent"));
        assert!(is_held(&path));
        drop(lock);
        assert!(!is_held(&path));
        take(&path).unwrap();
    }
}
