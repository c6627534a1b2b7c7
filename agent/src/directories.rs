//! The directories that an agent owns, and the modes without which it does not start.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::layout;
use crate::stage::make_directory;

/// Says why the agent may not use a directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    /// State may be read or written by others.
    #[error("{path} may be used by others (mode {mode:03o}), but holds keys and state; run chmod 700 on it")]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Applications could be swapped by anybody.
    #[error("{path} may be written by everybody (mode {mode:03o}); run chmod o-w on it")]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The disk failed.
    #[error("cannot prepare a directory")]
    Io(#[from] io::Error),
}

/// Makes the directories of a new host. One that stands and is empty is taken over.
pub(crate) fn create(data: &Path, root: &Path) -> Result<(), DirectoryError> {
    if !data.exists() {
        create_parents(data)?;
        make_directory(data, 0o700)?;
    } else if fs_err::read_dir(data)?.next().is_none() {
        fs_err::set_permissions(data, PermissionsExt::from_mode(0o700))?;
    }
    if !root.exists() {
        create_parents(root)?;
        make_directory(root, 0o755)?;
    }
    check(data, root)?;
    if let Some(identity) = layout::identity(data).parent() {
        make_directory(identity, 0o700)?;
    }
    make_directory(&data.join("locks"), 0o700)?;
    Ok(())
}

/// Checks the directories' modes; makes the root where only it is missing.
pub(crate) fn check(data: &Path, root: &Path) -> Result<(), DirectoryError> {
    let mode = |path: &Path| -> io::Result<u32> { Ok(fs_err::metadata(path)?.permissions().mode() & 0o7777) };
    let identity = layout::identity(data);
    for private in [data, identity.parent().unwrap_or(data)] {
        if private.exists() && mode(private)? & 0o077 != 0 {
            return Err(DirectoryError::Exposed { path: private.to_owned(), mode: mode(private)? });
        }
    }
    match mode(root)? {
        // A sticky directory does not help: what stands in it may still be read back as somebody else's.
        bits if bits & 0o002 != 0 => Err(DirectoryError::Writable { path: root.to_owned(), mode: bits }),
        _ => Ok(()),
    }
}

fn create_parents(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => fs_err::create_dir_all(parent),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loose_modes_are_refused_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let (data, root) = (dir.path().join("a/data"), dir.path().join("b/root"));
        create(&data, &root).unwrap();
        check(&data, &root).unwrap();
        create(&data, &root).unwrap();
        let chmod =
            |path: &Path, mode| fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        chmod(&data, 0o750);
        assert!(check(&data, &root).unwrap_err().to_string().contains("chmod 700"));
        chmod(&data, 0o700);
        chmod(&data.join("identity"), 0o755);
        assert!(matches!(check(&data, &root), Err(DirectoryError::Exposed { mode: 0o755, .. })));
        chmod(&data.join("identity"), 0o700);
        chmod(&root, 0o777);
        assert!(matches!(check(&data, &root), Err(DirectoryError::Writable { .. })));
    }
}
