//! Access to a directory tree that cannot leave it: every name is a [`RelPath`] resolved by the kernel with
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`, so that neither a link in the tree nor one swapped in meanwhile leads out.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat};
use sluice_common::path::RelPath;
use thread_local::ThreadLocal;

use crate::seen::Stamp;

/// A directory beneath which everything happens.
#[derive(Debug)]
pub(crate) struct Beneath {
    root: OwnedFd,
    path: PathBuf,
    /// The directories that each thread last worked in, the last one first: their neighbours come next.
    last: ThreadLocal<RefCell<Vec<Arc<Directory>>>>,
    /// Held while a file is made. Two made at once may come to lie in one block of inodes, which ext4 then reads from disk instead of
    /// knowing that it is empty: behind what is being written back, a wait of 30 ms.
    making: Mutex<()>,
}

/// An open directory of the tree.
#[derive(Debug)]
struct Directory {
    /// Where it was found, relative to the root.
    path: String,
    fd: OwnedFd,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What it is.
    pub(crate) kind: FileType,
    /// Its permission bits.
    pub(crate) mode: u32,
    /// Its length.
    pub(crate) size: u64,
    /// Which file it is, and since when.
    pub(crate) stamp: Stamp,
}

/// Directories that are kept open for each thread that works in a tree: the last one, and the one before.
const KEPT: usize = 2;

/// Bytes of names that are read from a directory at a time, as the C library does.
const LISTING_BYTES: usize = 32 * 1024;

/// Mode of every directory of a release.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

impl Beneath {
    /// Opens the directory at `path`, which must not be a link itself.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed("open", path, e))?;
        Ok(Self { root, path: path.to_owned(), last: ThreadLocal::new(), making: Mutex::new(()) })
    }

    /// Opens a regular file for reading.
    pub(crate) fn read(&self, path: &RelPath) -> io::Result<File> {
        // NONBLOCK: a FIFO in a file's place must not hang the agent.
        let file: File = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?.into();
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(self.failed("open", path, rustix::io::Errno::INVAL))
        }
    }

    /// Creates a regular file with exactly this mode, open for writing; replaces a file or link that stands there.
    pub(crate) fn create(&self, path: &RelPath, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let make = |parent: &Directory, name: &str| {
            let _alone = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            rustix::fs::openat(&parent.fd, name, flags, mode)
        };
        let file = self.replacing(path, make).map_err(|e| self.failed("create", path, e))?;
        // The process's mask may have taken bits away. Mostly it has not, and to look costs a fifth of setting it.
        let has_mode = |stat: Stat| Mode::from_raw_mode(stat.st_mode) == mode;
        if !rustix::fs::fstat(&file).is_ok_and(has_mode) {
            rustix::fs::fchmod(&file, mode).map_err(|e| self.failed("set the mode of", path, e))?;
        }
        Ok(file.into())
    }

    /// Gives the file at `from` in the tree `source` a further name here; replaces a file or link that stands there.
    pub(crate) fn link(&self, path: &RelPath, source: &Self, from: &RelPath) -> io::Result<()> {
        let (source_parent, source_name) = source.parent(from)?;
        self.replacing(path, |parent, name| {
            rustix::fs::linkat(&source_parent.fd, source_name, &parent.fd, name, AtFlags::empty())
        })
        .map_err(|e| self.failed("link to", path, e))
    }

    /// Removes the file or link at `path`; nothing standing there is as good.
    pub(crate) fn remove(&self, path: &RelPath) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        match rustix::fs::unlinkat(&parent.fd, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failed("remove", path, error)),
        }
    }

    /// Creates a directory with mode 0755; one that stands already is taken and gets that mode.
    pub(crate) fn directory(&self, path: &RelPath) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        match rustix::fs::mkdirat(&parent.fd, name, DIRECTORY_MODE) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(self.failed("create directory", path, error)),
        }
        let is_right = |stat: Stat| {
            let kind = FileType::from_raw_mode(stat.st_mode);
            kind == FileType::Directory && Mode::from_raw_mode(stat.st_mode) == DIRECTORY_MODE
        };
        if rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(is_right) {
            return Ok(());
        }
        let opened = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        rustix::fs::fchmod(&opened, DIRECTORY_MODE).map_err(|e| self.failed("set the mode of", path, e))
    }

    /// Gives a regular file its permission bits.
    pub(crate) fn set_mode(&self, path: &RelPath, mode: u32) -> io::Result<()> {
        let file = self.read(path)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
            .map_err(|e| self.failed("set the mode of", path, e))
    }

    /// Creates a symlink.
    pub(crate) fn symlink(&self, target: &str, path: &RelPath) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::symlinkat(target, &parent.fd, name).map_err(|e| self.failed("create symlink", path, e))
    }

    /// Moves the file at `from`, on the same file system, to `path`; replaces what stands there.
    pub(crate) fn adopt(&self, from: &Path, path: &RelPath) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::renameat(CWD, from, &parent.fd, name).map_err(|e| self.failed("rename to", path, e))
    }

    /// Returns what stands at `path`, not following a link; nothing where nothing does.
    pub(crate) fn stat(&self, path: &RelPath) -> io::Result<Option<Standing>> {
        use rustix::io::Errno;
        let (parent, name) = match self.parent_of(path) {
            Ok(found) => found,
            // A parent that is missing, a file or a link: nothing of the package stands below it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(self.failed("open the directory of", path, error)),
        };
        match rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Standing {
                kind: FileType::from_raw_mode(stat.st_mode),
                mode: stat.st_mode & 0o7777,
                size: u64::try_from(stat.st_size).unwrap_or(0),
                stamp: Stamp::from(&stat),
            })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(self.failed("look at", path, error)),
        }
    }

    /// Returns how many names a directory holds, the root where none is given.
    pub(crate) fn count(&self, directory: Option<&RelPath>) -> io::Result<usize> {
        let path = directory.map_or(Path::new("."), RelPath::as_path);
        let opened = self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
        let fd = opened.map_err(|e| failed("open", &self.path.join(path), e))?;
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let mut listing = RawDir::new(fd, buffer.spare_capacity_mut());
        let mut names = 0;
        while let Some(entry) = listing.next() {
            let entry = entry.map_err(|e| failed("read the directory", &self.path.join(path), e))?;
            names += usize::from(!matches!(entry.file_name().to_bytes(), b"." | b".."));
        }
        Ok(names)
    }

    /// Syncs everything written to the file system of the tree. Tells of whatever it could not write since this was opened.
    pub(crate) fn sync_filesystem(&self) -> io::Result<()> {
        rustix::fs::syncfs(&self.root).map_err(|e| failed("sync the file system of", &self.path, e))
    }

    /// Returns a symlink's text.
    pub(crate) fn read_link(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::readlinkat(&parent.fd, name, Vec::new())
            .map(|text| text.into_bytes())
            .map_err(|e| self.failed("read link", path, e))
    }

    fn open_at(&self, path: &RelPath, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        self.resolve(path.as_path(), flags | OFlags::NOFOLLOW, mode).map_err(|e| self.failed("open", path, e))
    }

    /// Makes a name that must be new; where there is one already, makes it once more after that was removed.
    fn replacing<T>(
        &self,
        path: &RelPath,
        make: impl Fn(&Directory, &str) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let (parent, name) = self.parent_of(path)?;
        match make(&parent, name) {
            Err(rustix::io::Errno::EXIST) => {
                rustix::fs::unlinkat(&parent.fd, name, AtFlags::empty())?;
                make(&parent, name)
            }
            made => made,
        }
    }

    fn parent<'a>(&self, path: &'a RelPath) -> io::Result<(Arc<Directory>, &'a str)> {
        self.parent_of(path).map_err(|e| self.failed("open the directory of", path, e))
    }

    /// Opens the directory of `path`, or takes it as it was last opened: a directory that was beneath the root then is
    /// the one that is worked in, whatever has been put at its name since.
    fn parent_of<'a>(&self, path: &'a RelPath) -> rustix::io::Result<(Arc<Directory>, &'a str)> {
        let directory = path.parent().unwrap_or(".");
        let last = self.last.get_or_default();
        let kept = last.borrow().iter().find(|kept| kept.path == directory).cloned();
        let parent = match kept {
            Some(kept) => kept,
            None => {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                let fd = self.resolve(Path::new(directory), flags, Mode::empty())?;
                let opened = Arc::new(Directory { path: directory.to_owned(), fd });
                let mut last = last.borrow_mut();
                last.truncate(KEPT - 1);
                last.insert(0, opened.clone());
                opened
            }
        };
        Ok((parent, path.file_name()))
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, mode, resolve)
    }

    fn failed(&self, what: &str, path: &RelPath, errno: rustix::io::Errno) -> io::Error {
        failed(what, &path.below(&self.path), errno)
    }
}

/// Makes an error that names the path and keeps the kind.
pub(crate) fn failed(what: &str, path: &Path, errno: rustix::io::Errno) -> io::Error {
    let error = io::Error::from(errno);
    io::Error::new(error.kind(), format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn path(text: &str) -> &RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn nothing_leads_out_of_the_tree() {
        let outside = tempfile::tempdir().unwrap();
        fs_err::write(outside.path().join("secret"), b"s").unwrap();
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("out")).unwrap();
        symlink(outside.path().join("secret"), root.path().join("file")).unwrap();
        let beneath = Beneath::open(root.path()).unwrap();
        let source = root.path().join("source");
        fs_err::write(&source, b"x").unwrap();
        assert!(beneath.read(path("out/secret")).is_err());
        assert!(beneath.read(path("file")).is_err());
        assert!(beneath.directory(path("out/new")).is_err());
        assert!(beneath.directory(path("out")).is_err());
        assert!(beneath.symlink("x", path("out/new")).is_err());
        assert!(beneath.adopt(&source, path("out/new")).is_err());
        assert!(beneath.create(path("out/new"), 0o644).is_err());
        assert!(beneath.remove(path("out/secret")).is_err());
        let plain = tempfile::tempdir().unwrap();
        let from = Beneath::open(plain.path()).unwrap();
        from.create(path("a"), 0o644).unwrap();
        assert!(beneath.link(path("out/new"), &from, path("a")).is_err());
        assert!(from.link(path("b"), &beneath, path("out/secret")).is_err());
        assert_eq!(beneath.stat(path("out/secret")).unwrap(), None);
        assert!(beneath.count(Some(path("out"))).is_err());
        assert_eq!(fs_err::read_dir(outside.path()).unwrap().count(), 1);
        // A file put in place of a link replaces the link, not what it leads to.
        beneath.adopt(&source, path("file")).unwrap();
        assert_eq!(fs_err::read(outside.path().join("secret")).unwrap(), b"s");
        let error = beneath.read(path("out/secret")).unwrap_err().to_string();
        assert!(error.contains("out/secret"), "{error}");
    }

    #[test]
    fn a_new_file_replaces_what_stands_in_its_place() {
        let root = tempfile::tempdir().unwrap();
        let beneath = Beneath::open(root.path()).unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        symlink(outside.path(), root.path().join("a")).unwrap();
        fs_err::write(root.path().join("b"), b"old").unwrap();
        fs_err::hard_link(root.path().join("b"), root.path().join("kept")).unwrap();
        for (name, mode) in [("a", 0o755), ("b", 0o644)] {
            io::Write::write_all(&mut beneath.create(path(name), mode).unwrap(), b"new").unwrap();
            let found = beneath.stat(path(name)).unwrap().unwrap();
            assert_eq!((found.kind, found.mode, found.size), (FileType::RegularFile, mode, 3));
        }
        assert_eq!(fs_err::read(outside.path()).unwrap(), b"", "the link was replaced, not followed");
        assert_eq!(fs_err::read(root.path().join("kept")).unwrap(), b"old", "another name kept its file");
        beneath.link(path("b"), &beneath, path("kept")).unwrap();
        assert_eq!(fs_err::read(root.path().join("b")).unwrap(), b"old");
        beneath.remove(path("b")).unwrap();
        beneath.remove(path("b")).unwrap();
        assert_eq!(beneath.stat(path("b")).unwrap(), None);
    }

    #[test]
    fn entries_get_the_modes_of_a_release() {
        let root = tempfile::tempdir().unwrap();
        let beneath = Beneath::open(root.path()).unwrap();
        beneath.directory(path("a")).unwrap();
        beneath.directory(path("a")).unwrap();
        beneath.symlink("../b", path("a/link")).unwrap();
        fs_err::write(root.path().join("b"), b"bytes").unwrap();
        let mut text = String::new();
        beneath.read(path("b")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "bytes");
        let mode = |name| fs_err::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("a"), 0o755);
        // A directory takes this bit from the one that it is made in.
        fs_err::set_permissions(root.path().join("a"), PermissionsExt::from_mode(0o2700)).unwrap();
        beneath.directory(path("a/new")).unwrap();
        beneath.directory(path("a")).unwrap();
        assert_eq!((mode("a/new"), mode("a")), (0o755, 0o755));
        fs_err::remove_dir(root.path().join("a/new")).unwrap();
        assert_eq!(beneath.stat(path("a")).unwrap().unwrap().kind, FileType::Directory);
        assert_eq!(beneath.read_link(path("a/link")).unwrap(), b"../b");
        assert_eq!(beneath.stat(path("c/d")).unwrap(), None);
        assert_eq!(beneath.count(None).unwrap(), 2);
        assert_eq!(beneath.count(Some(path("a"))).unwrap(), 1, "links count, whatever they lead to");
    }
}
