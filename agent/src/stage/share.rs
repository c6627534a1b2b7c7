//! Gives bytes that the host has a further place: by sharing them, where the file system can, or by a copy.
//!
//! What was brought is not taken to be right: a copy may fail to be one, and the source may be damaged. The caller hashes it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;
use sluice_common::path::RelPath;

use super::space::Room;
use crate::beneath::Beneath;

/// How releases share the bytes that they have in common; `reuse` in `agent.toml`.
///
/// A reflink shares the bytes until either file is written to. A hardlink shares the file itself: it costs no space and
/// works on every file system, but a service that writes to its own release changes the others that have the file too,
/// and with them what the host would go back to. Releases are not to be written to, so that is the default where there
/// are no reflinks; for applications that do it all the same there are `reflink` and `copy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reuse {
    /// Reflinks, else hardlinks, else copies.
    #[default]
    Auto,
    /// Reflinks, else copies: no two releases have a file in common.
    Reflink,
    /// Hardlinks, else copies.
    Hardlink,
    /// Copies.
    Copy,
}

/// One way to bring bytes to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The place gets a file of its own that shares the bytes on disk.
    Reflink,
    /// The place becomes a further name of the file.
    Hardlink,
    /// The place gets its own bytes.
    Copy,
}

impl Reuse {
    /// Returns the ways to try, in order.
    fn ways(self) -> &'static [Way] {
        match self {
            Self::Auto => &[Way::Reflink, Way::Hardlink, Way::Copy],
            Self::Reflink => &[Way::Reflink, Way::Copy],
            Self::Hardlink => &[Way::Hardlink, Way::Copy],
            Self::Copy => &[Way::Copy],
        }
    }
}

/// A file with its permission bits, those that it has where it stands, or is to have where it is to stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot<'a> {
    /// The tree.
    pub(crate) tree: &'a Beneath,
    /// The path in it.
    pub(crate) path: &'a RelPath,
    /// The permission bits.
    pub(crate) mode: u32,
}

/// Brings bytes to places; remembers what the file system has refused.
#[derive(Debug)]
pub(crate) struct Sharer {
    reuse: Reuse,
    room: Room,
    has_reflinks: AtomicBool,
}

impl Sharer {
    /// Makes a sharer for one staging, which copies where there is `room`.
    pub(crate) fn new(reuse: Reuse, room: Room) -> Self {
        Self { reuse, room, has_reflinks: AtomicBool::new(true) }
    }

    /// Returns the room for copies.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    /// Brings the file at `from` to `to`, in place of what stands there, and says how.
    pub(crate) fn bring(&self, from: Spot<'_>, to: Spot<'_>) -> io::Result<Way> {
        for way in self.reuse.ways() {
            let is_done = match way {
                Way::Reflink => self.reflink(from, to)?,
                // A link shares the mode too, so it must be right as it is. Not every file system has links, nor any
                // number of one file.
                Way::Hardlink => from.mode == to.mode && to.tree.link(to.path, from.tree, from.path).is_ok(),
                Way::Copy => {
                    let mut source = from.tree.read(from.path)?;
                    self.room.take(source.metadata()?.len())?;
                    io::copy(&mut source, &mut to.tree.create(to.path, to.mode)?)?;
                    true
                }
            };
            if is_done {
                return Ok(*way);
            }
        }
        Err(io::Error::other("no way brought the file to its place"))
    }

    /// Says whether files become further names of others, as far as is known: whether there are reflinks the first file shows.
    pub(crate) fn links(&self) -> bool {
        match self.reuse {
            Reuse::Auto => !self.has_reflinks.load(Ordering::Relaxed),
            Reuse::Hardlink => true,
            Reuse::Reflink | Reuse::Copy => false,
        }
    }

    /// Says whether every place takes bytes of its own, as far as is known: whether there are reflinks the first file shows.
    pub(crate) fn copies(&self) -> bool {
        match self.reuse {
            Reuse::Auto | Reuse::Hardlink => false,
            Reuse::Reflink => !self.has_reflinks.load(Ordering::Relaxed),
            Reuse::Copy => true,
        }
    }

    fn reflink(&self, from: Spot<'_>, to: Spot<'_>) -> io::Result<bool> {
        if !self.has_reflinks.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let source = from.tree.read(from.path)?;
        let shares = rustix::fs::ioctl_ficlone(to.tree.create(to.path, to.mode)?, &source).is_ok();
        // Not on this file system: do not ask for every file.
        self.has_reflinks.fetch_and(shares, Ordering::Relaxed);
        Ok(shares)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use sluice_common::digest::Digest;

    use super::*;
    use crate::layout::AppDir;
    use crate::stage::Floor;

    #[test]
    fn bytes_arrive_with_their_mode_and_share_an_inode_only_where_that_is_allowed() {
        let root = tempfile::tempdir().unwrap();
        let tree = Beneath::open(root.path()).unwrap();
        let path = |text| RelPath::new(text).unwrap();
        let (from, to) = (path("from"), path("to"));
        io::Write::write_all(&mut tree.create(from, 0o644).unwrap(), b"bytes").unwrap();
        let inode = |name: &str| fs_err::metadata(root.path().join(name)).unwrap().ino();
        for (reuse, mode, may_link) in [
            (Reuse::Auto, 0o644, true),
            (Reuse::Auto, 0o755, false),
            (Reuse::Reflink, 0o644, false),
            (Reuse::Hardlink, 0o644, true),
            (Reuse::Hardlink, 0o755, false),
            (Reuse::Copy, 0o644, false),
        ] {
            fs_err::write(root.path().join("to"), b"what stood there").unwrap();
            let dir = AppDir::new(root.path(), &"shop".parse().unwrap());
            fs_err::create_dir_all(dir.base()).unwrap();
            let room = Room::new(dir, Floor::Percent(0), Digest::of(b"package"));
            let way = Sharer::new(reuse, room)
                .bring(Spot { tree: &tree, path: from, mode: 0o644 }, Spot { tree: &tree, path: to, mode })
                .unwrap();
            let case = format!("{reuse:?} {mode:o}: {way:?}");
            assert_eq!(fs_err::read(root.path().join("to")).unwrap(), b"bytes", "{case}");
            assert_eq!(tree.stat(to).unwrap().unwrap().mode, mode, "{case}");
            assert_eq!(inode("from") == inode("to"), way == Way::Hardlink, "{case}");
            assert!(may_link || way != Way::Hardlink, "{case}");
            assert!(reuse != Reuse::Hardlink || !may_link || way == Way::Hardlink, "{case}");
            fs_err::remove_file(root.path().join("to")).unwrap();
        }
        assert_eq!(fs_err::read(root.path().join("from")).unwrap(), b"bytes");
    }
}
