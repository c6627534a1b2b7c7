//! The data directory: private, locked by the one coordinator that serves it, with the bound address in `address`.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{FlockOperation, flock};
use sluice_common::durable;

/// A data directory that this process owns until it drops this.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: fs::File,
}

/// Says why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// It cannot be made or read.
    #[error("cannot use the data directory")]
    Io(#[from] io::Error),
    /// Others may enter it.
    #[error("data directory {path} may be entered by others (mode {mode:03o}); run chmod 700 on it")]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another coordinator serves it.
    #[error("another sluice-coordinator serves {0}; stop it first, or give another --data")]
    Busy(PathBuf),
}

impl DataDir {
    /// Makes the directory where it is missing, and locks it.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        if !fs::exists(path)? {
            fs::create_dir_all(path)?;
            fs::set_permissions(path, PermissionsExt::from_mode(0o700))?;
            durable::sync_parent(path)?;
        }
        check_private(path)?;
        let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"))?;
        match flock(lock.file(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(DataError::Busy(path.to_owned())),
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
        let data = Self { path: path.to_owned(), _lock: lock };
        // Left by one that was killed: whoever waits for the file must not read yesterday's port.
        data.remove_address()?;
        Ok(data)
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells where connections are accepted.
    pub fn write_address(&self, address: SocketAddr) -> io::Result<()> {
        durable::write_private(&self.path.join("address"), format!("{address}\n").as_bytes())
    }

    /// Takes that back.
    pub fn remove_address(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join("address")) {
            Ok(()) => durable::sync_dir(&self.path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Refuses a directory that others may enter.
pub(super) fn check_private(path: &Path) -> Result<(), DataError> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(DataError::Exposed { path: path.to_owned(), mode }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_and_no_visitors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/data");
        let data = DataDir::open(&path).unwrap();
        data.write_address("127.0.0.1:7".parse().unwrap()).unwrap();
        assert_eq!(fs::read_to_string(path.join("address")).unwrap(), "127.0.0.1:7\n");
        let refused = DataDir::open(&path).unwrap_err().to_string();
        assert!(refused.contains("another sluice-coordinator serves"), "{refused}");
        assert!(path.join("address").exists());
        drop(data);
        drop(DataDir::open(&path).unwrap());
        assert!(!path.join("address").exists(), "a stale address stays");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o750)).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataError::Exposed { mode: 0o750, .. })));
    }
}
