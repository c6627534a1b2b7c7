//! Files that survive a power cut: write under a temporary name, sync, rename, sync the directory.
//!
//! A failed sync is never retried: after one, the kernel may have dropped the dirty pages and a second call
//! would report success over lost data. The caller discards what it was about to publish.

use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use fs_err as fs;

/// Replaces `path` by `bytes` atomically and durably, readable by its owner only.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, 0o600)
}

/// Replaces `path` by `bytes` atomically and durably, readable by everyone.
pub fn write_public(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, 0o644)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let written = write_new(&temporary, bytes, mode).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: the name is recognisably temporary and is removed at the next start too.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_parent(path)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    options.options_mut().mode(mode);
    let mut file = options.open(path)?;
    // An earlier crash may have left the name with another mode.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Points the symlink `link` at `target` by one `rename`, durably. Readers see the old or the new target, never none.
pub fn replace_symlink(link: &Path, target: &Path) -> io::Result<()> {
    move_symlink(link, target)?;
    sync_parent(link)
}

/// Points the symlink `link` at `target` by one `rename`, which a sync of its directory has yet to make durable.
pub fn move_symlink(link: &Path, target: &Path) -> io::Result<()> {
    let temporary = temporary_beside(link)?;
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(target, &temporary).map_err(|error| {
        io::Error::new(error.kind(), format!("failed to create symlink {}: {error}", temporary.display()))
    })?;
    fs::rename(&temporary, link)
}

/// Syncs the directory that holds `path`, which makes a rename or a removal in it durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    sync_dir(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Syncs a directory's entries.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Syncs everything written to the file system that holds `path`, in one call however many files there are.
pub fn sync_filesystem(path: &Path) -> io::Result<()> {
    let file = fs::File::open(path)?;
    rustix::fs::syncfs(file.file()).map_err(|errno| {
        io::Error::new(io::Error::from(errno).kind(), format!("syncfs {}: {errno}", path.display()))
    })
}

/// Returns the temporary name beside `path`: `.NAME.sluice-tmp`.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let name =
        path.file_name().ok_or_else(|| io::Error::other(format!("{} has no file name", path.display())))?;
    Ok(path.with_file_name(format!(".{}.sluice-tmp", name.to_string_lossy())))
}

/// Says whether a file name is one that an interrupted write may have left behind.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".sluice-tmp")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_file_is_replaced_whole_and_stays_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.toml");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_symlink_moves_even_past_a_leftover_of_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("current");
        replace_symlink(&link, Path::new("releases/a")).unwrap();
        symlink("half-done", dir.path().join(".current.sluice-tmp")).unwrap();
        replace_symlink(&link, Path::new("releases/b")).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("releases/b"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
