//! The bytes of one frame as they come: in memory while they come fast and there is room, on disk as soon as either ends.
//!
//! A frame that comes whole within [`WRITE_INTERVAL`] never touches the disk: written, it would be a quarter more for the disk to
//! take of a cold install. What a crash costs stays what comes within that time, and [`WRITE_BYTES`] of a frame on disk.

use std::io::{self, BufRead, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use sluice_common::digest::{Digest, Hasher};
use sluice_common::transfer::Frame;
use tokio::time::Instant;

use super::area::discard;
use super::blocks::{Blocks, Room};

/// Bytes of a frame on disk that are gathered before they are written.
const WRITE_BYTES: usize = 256 * 1024;
/// Time after which bytes are written, however few.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// A frame whose bytes have all come. What asks for a `path` is told the frame's file.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// Its number.
    pub(crate) number: usize,
    place: Place,
}

/// Where a frame's bytes are.
#[derive(Debug)]
enum Place {
    /// Here.
    Memory(Blocks),
    /// In the frame's file.
    Disk,
}

impl Gathered {
    /// Names a frame that was gathered before, in its file.
    pub(super) fn on_disk(number: usize) -> Self {
        Self { number, place: Place::Disk }
    }

    /// Says whether the frame is what it is named.
    pub(super) fn is_right(&self, path: &Path, frame: &Frame) -> io::Result<bool> {
        let digest = match &self.place {
            Place::Memory(held) => {
                let mut hasher = Hasher::new();
                held.filled().iter().for_each(|block| hasher.update(block));
                hasher.finish()
            }
            Place::Disk => Digest::of_reader(fs_err::File::open(path)?)?.0,
        };
        Ok(digest == frame.digest)
    }

    /// Reads the frame.
    pub(super) fn read(&self, path: &Path) -> io::Result<Box<dyn BufRead + '_>> {
        Ok(match &self.place {
            Place::Memory(held) => Box::new(held.read()),
            Place::Disk => {
                let file = fs_err::File::open(path)?;
                Box::new(io::BufReader::with_capacity(128 * 1024, file))
            }
        })
    }

    /// Removes the frame's file, if it has one.
    pub(super) fn discard(self, path: &Path) -> io::Result<()> {
        match self.place {
            Place::Memory(_) => Ok(()),
            Place::Disk => discard(path),
        }
    }

    /// Brings the frame to disk: it is not restored now.
    pub(super) fn keep(self, path: &Path) -> io::Result<()> {
        match self.place {
            Place::Memory(held) => write_all(&mut open(path)?, held.filled()),
            Place::Disk => Ok(()),
        }
    }
}

/// A frame on its way. What asks for a `path` is told the frame's file.
pub(super) struct Coming {
    /// Its place among the frames that were asked for.
    pub(super) wanted: usize,
    /// Bytes that have come, of the length that it will have.
    len: u64,
    wire_len: u64,
    /// Since when something is not on disk.
    since: Option<Instant>,
    way: Way,
}

/// Where the frame gathers.
enum Way {
    /// In memory, as long as it comes fast.
    Memory(Blocks),
    /// In its file, to which go the pieces that have come since.
    Disk { file: std::fs::File, unwritten: Vec<Bytes> },
}

impl Coming {
    /// Begins a frame where its file ends.
    pub(super) fn begin(path: &Path, wanted: usize, frame: &Frame, room: &Room) -> io::Result<Self> {
        let len = fs_err::symlink_metadata(path).map_or(0, |metadata| metadata.len());
        let blocks = if len == 0 { room.take(frame.wire_len) } else { None };
        let way = match blocks {
            Some(blocks) => Way::Memory(blocks),
            None => Way::Disk { file: open(path)?, unwritten: Vec::new() },
        };
        Ok(Self { wanted, len, wire_len: frame.wire_len, since: None, way })
    }

    /// Takes the next bytes; returns whether it did: they may be more than the frame has.
    pub(super) fn take(&mut self, bytes: Bytes) -> bool {
        if bytes.len() as u64 > self.wire_len.saturating_sub(self.len) {
            return false;
        }
        self.len += bytes.len() as u64;
        self.since.get_or_insert_with(Instant::now);
        match &mut self.way {
            Way::Memory(blocks) => blocks.extend(&bytes),
            Way::Disk { unwritten, .. } => unwritten.push(bytes),
        }
        true
    }

    /// Says whether all of it has come.
    pub(super) fn is_whole(&self) -> bool {
        self.len == self.wire_len
    }

    /// Returns when what has come is to be on disk; nothing where nothing is missing there.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + WRITE_INTERVAL)
    }

    /// Says whether it is time to write.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let is_full = match &self.way {
            Way::Memory(_) => false,
            Way::Disk { unwritten, .. } => {
                self.is_whole() || unwritten.iter().map(Bytes::len).sum::<usize>() >= WRITE_BYTES
            }
        };
        is_full || (!self.is_whole() && self.due().is_some_and(|due| now >= due))
    }

    /// Writes what has come; from then on the frame gathers on disk.
    pub(super) fn write(mut self, path: &Path) -> io::Result<Self> {
        let file = match self.way {
            Way::Memory(held) => {
                let mut file = open(path)?;
                write_all(&mut file, held.filled())?;
                file
            }
            Way::Disk { mut file, unwritten } => {
                write_all(&mut file, &unwritten)?;
                file
            }
        };
        (self.since, self.way) = (None, Way::Disk { file, unwritten: Vec::new() });
        Ok(self)
    }

    /// Hands on a frame that has come whole, under its number in the plan.
    pub(super) fn end(self, number: usize) -> Gathered {
        let place = match self.way {
            Way::Memory(blocks) => Place::Memory(blocks),
            Way::Disk { .. } => Place::Disk,
        };
        Gathered { number, place }
    }
}

fn open(path: &Path) -> io::Result<std::fs::File> {
    let mut options = fs_err::OpenOptions::new();
    options.append(true).create(true);
    options.options_mut().mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    Ok(options.open(path)?.into())
}

fn write_all(file: &mut std::fs::File, pieces: &[impl AsRef<[u8]>]) -> io::Result<()> {
    pieces.iter().try_for_each(|piece| file.write_all(piece.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use sluice_common::transfer::Codec;

    use super::*;

    const BYTES: &[u8] = b"a frame of some twenty bytes";
    const ONE_BLOCK: u64 = crate::stage::blocks::BLOCK_BYTES as u64;

    fn scene() -> (tempfile::TempDir, PathBuf, Frame) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("frame.part");
        let (digest, wire_len) = (Digest::of(BYTES), BYTES.len() as u64);
        let frame = Frame { codec: Codec::Zstd, digest, wire_len, base: Vec::new(), parts: Vec::new() };
        (root, path, frame)
    }

    fn read(gathered: &Gathered, path: &Path) -> Vec<u8> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut gathered.read(path).unwrap(), &mut bytes).unwrap();
        bytes
    }

    fn on_disk(path: &Path) -> Option<Vec<u8>> {
        fs_err::read(path).ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_fast_is_not_written_and_its_room_is_given_back() {
        let (_root, path, frame) = scene();
        let room = Room::new(ONE_BLOCK);
        let mut coming = Coming::begin(&path, 0, &frame, &room).unwrap();
        for piece in BYTES.chunks(5) {
            assert!(coming.take(Bytes::from_static(piece)));
            assert!(!coming.is_due(Instant::now()));
        }
        assert!(coming.is_whole());
        let gathered = coming.end(7);
        assert!(gathered.is_right(&path, &frame).unwrap());
        assert_eq!((read(&gathered, &path), gathered.number), (BYTES.to_vec(), 7));
        assert_eq!((on_disk(&path), room.free_blocks()), (None, 0));
        gathered.discard(&path).unwrap();
        assert_eq!(room.free_blocks(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_slowly_or_finds_no_room_or_was_begun_before_goes_to_disk() {
        for (name, room, before, slowly) in [
            ("slowly", ONE_BLOCK, 0, true),
            ("no room", ONE_BLOCK - 1, 0, false),
            ("no room, slowly", 0, 0, true),
            ("begun before", ONE_BLOCK, 9, false),
        ] {
            let (_root, path, frame) = scene();
            fs_err::write(&path, &BYTES[..before]).unwrap();
            let room = Room::new(room);
            let mut coming = Coming::begin(&path, 0, &frame, &room).unwrap();
            for piece in BYTES[before..].chunks(7) {
                assert!(coming.take(Bytes::from_static(piece)), "{name}");
                if slowly {
                    tokio::time::advance(WRITE_INTERVAL).await;
                }
                if coming.is_due(Instant::now()) {
                    coming = coming.write(&path).unwrap();
                    assert_eq!(coming.due(), None, "{name}");
                }
                let written = on_disk(&path).unwrap_or_default().len() as u64;
                assert!(!slowly || written == coming.len, "{name}: {written} of {}", coming.len);
            }
            let gathered = coming.end(0);
            assert!(gathered.is_right(&path, &frame).unwrap(), "{name}");
            assert_eq!(on_disk(&path).as_deref(), Some(BYTES), "{name}");
            assert_eq!(read(&gathered, &path), BYTES, "{name}");
            gathered.discard(&path).unwrap();
            assert_eq!(on_disk(&path), None, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_restored_now_is_kept() {
        let (_root, path, frame) = scene();
        let room = Room::new(ONE_BLOCK);
        let mut coming = Coming::begin(&path, 0, &frame, &room).unwrap();
        coming.take(Bytes::from_static(BYTES));
        coming.end(0).keep(&path).unwrap();
        assert_eq!(on_disk(&path).as_deref(), Some(BYTES));
        assert_eq!(room.free_blocks(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn other_bytes_and_more_bytes_than_the_frame_has_are_found() {
        let (_root, path, frame) = scene();
        for room in [0, ONE_BLOCK] {
            let mut wrong = Coming::begin(&path, 0, &frame, &Room::new(room)).unwrap();
            assert!(wrong.take(Bytes::from(vec![0; BYTES.len()])));
            if wrong.is_due(Instant::now()) {
                wrong = wrong.write(&path).unwrap();
            }
            let wrong = wrong.end(0);
            assert!(!wrong.is_right(&path, &frame).unwrap());
            wrong.discard(&path).unwrap();
            let mut longer = Coming::begin(&path, 0, &frame, &Room::new(room)).unwrap();
            assert!(!longer.take(Bytes::from(vec![0; BYTES.len() + 1])));
            assert!(longer.take(Bytes::from_static(BYTES)), "what was refused is not there");
            assert!(!longer.take(Bytes::from_static(b"x")));
            discard(&path).unwrap();
        }
    }
}
