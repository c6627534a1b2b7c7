//! A disk that remembers every write and flush: one file on a FUSE file system, for a loop device to stand on. What the
//! device was given can be replayed up to any write, as a power cut there would have left it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite,
    Request, WriteFlags,
};
use sluice_agent::rehearsal::since_boot;

const NAME: &str = "disk";
const DISK: INodeNo = INodeNo(2);
/// The kernel may keep what it was told of the two files: nobody else changes them.
const LIFE: Duration = Duration::from_secs(3_600);

/// A write that the device was given.
#[derive(Debug, Clone)]
pub struct Written {
    /// Since the host was booted.
    pub at: Duration,
    offset: u64,
    bytes: Vec<u8>,
}

/// A disk that is being logged. Dropped, it is unmounted.
pub struct Device {
    dir: PathBuf,
    log: Arc<Mutex<Vec<Written>>>,
    _session: BackgroundSession,
}

impl Device {
    /// Says why there can be none here.
    pub fn obstacle() -> Option<&'static str> {
        (!Path::new("/dev/fuse").exists()).then_some("the kernel has no FUSE")
    }

    /// Serves `image` as a file below `dir`.
    pub fn serve(image: &Path, dir: &Path) -> Result<Self> {
        fs_err::create_dir_all(dir)?;
        let file: File = fs_err::OpenOptions::new().read(true).write(true).open(image)?.into_parts().0;
        let log = Arc::<Mutex<Vec<Written>>>::default();
        let disk = Disk { size: file.metadata()?.len(), file, log: log.clone() };
        let session = fuser::spawn_mount(disk, dir, &Config::default()).context("cannot mount by FUSE")?;
        Ok(Self { dir: dir.to_owned(), log, _session: session })
    }

    /// Returns the file that a loop device may stand on.
    pub fn file(&self) -> PathBuf {
        self.dir.join(NAME)
    }

    /// Returns everything that was written so far, in turn.
    pub fn written(&self) -> Vec<Written> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Writes to `image` what the device was given.
pub fn replay(written: &[Written], image: &Path) -> Result<()> {
    let file: File = fs_err::OpenOptions::new().write(true).open(image)?.into_parts().0;
    for write in written {
        file.write_all_at(&write.bytes, write.offset)?;
    }
    Ok(())
}

struct Disk {
    file: File,
    size: u64,
    log: Arc<Mutex<Vec<Written>>>,
}

impl Disk {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_disk = inode == DISK;
        FileAttr {
            ino: inode,
            size: if is_disk { self.size } else { 0 },
            blocks: if is_disk { self.size / 512 } else { 0 },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_disk { FileType::RegularFile } else { FileType::Directory },
            perm: if is_disk { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&LIFE, &self.attributes(DISK), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&LIFE, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Past the page cache: every write arrives here, as and when the device is given it.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; u64::from(size).min(self.size.saturating_sub(offset)) as usize];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => reply.data(&bytes),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.file.write_all_at(data, offset).is_ok();
        match since_boot() {
            Ok(at) if written => {
                let write = Written { at, offset, bytes: data.to_vec() };
                self.log.lock().unwrap_or_else(PoisonError::into_inner).push(write);
                reply.written(data.len() as u32);
            }
            Ok(_) | Err(_) => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }
}
