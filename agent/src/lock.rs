//! Locks that end with their process: one agent a host, one mutating operation an application.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::FlockOperation;

/// A lock that is held until this value is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock at `path`, or fails at once when another process holds it.
pub(crate) fn take(path: &Path) -> io::Result<Lock> {
    let mut options = fs_err::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    options.options_mut().mode(0o600);
    let file: File = options.open(path)?.into();
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        rustix::io::Errno::WOULDBLOCK => io::Error::new(
            io::ErrorKind::WouldBlock,
            format!("{} is held by another sluice-agent; stop it first", path.display()),
        ),
        errno => crate::beneath::failed("lock", path, errno),
    })?;
    Ok(Lock { _file: file })
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
        drop(lock);
        take(&path).unwrap();
    }
}
