//! The bytes of one frame as they come: in memory while they come fast and there is room, on disk as soon as either ends.
//!
//! A frame that comes whole within [`WRITE_INTERVAL`] never touches the disk: written, it would be a quarter more for the disk to
//! take of a cold install. What a crash costs stays what comes within that time, and [`WRITE_BYTES`] of a frame on disk.

use std::io::{self, BufRead, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sluice_common::digest::{Digest, Hasher};
use sluice_common::transfer::Frame;
use tokio::time::Instant;

use super::area::{Area, discard};

/// Bytes of a frame on disk that are gathered before they are written.
const WRITE_BYTES: usize = 256 * 1024;
/// Time after which bytes are written, however few.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// Memory for frames that have come and are not restored.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<AtomicU64>);

impl Room {
    /// Makes a room of so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// Takes some of it, where there is as much.
    fn take(&self, bytes: u64) -> Option<Taken> {
        let left = |free: u64| free.checked_sub(bytes);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, left).ok()?;
        Some(Taken { room: self.clone(), bytes })
    }
}

/// A part of a [`Room`], which has it back when this is dropped.
#[derive(Debug)]
struct Taken {
    room: Room,
    bytes: u64,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.0.fetch_add(self.bytes, Ordering::AcqRel);
    }
}

/// A frame whose bytes have all come.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// Its number.
    pub(crate) number: usize,
    place: Place,
}

/// Where a frame's bytes are.
#[derive(Debug)]
enum Place {
    /// Here, as they came.
    Memory { pieces: Vec<Bytes>, _taken: Taken },
    /// In the frame's file.
    Disk,
}

impl Gathered {
    /// Names a frame that was gathered before, on disk.
    pub(super) fn on_disk(number: usize) -> Self {
        Self { number, place: Place::Disk }
    }

    /// Says whether the frame is what it is named.
    pub(super) fn is_right(&self, area: &Area, frame: &Frame) -> io::Result<bool> {
        let digest = match &self.place {
            Place::Memory { pieces, .. } => {
                let mut hasher = Hasher::new();
                pieces.iter().for_each(|piece| hasher.update(piece));
                hasher.finish()
            }
            Place::Disk => Digest::of_reader(fs_err::File::open(area.frame(&frame.digest))?)?.0,
        };
        Ok(digest == frame.digest)
    }

    /// Reads the frame.
    pub(super) fn read(&self, area: &Area, frame: &Frame) -> io::Result<Box<dyn BufRead + '_>> {
        Ok(match &self.place {
            Place::Memory { pieces, .. } => Box::new(Pieces { pieces, taken: 0 }),
            Place::Disk => {
                let file = fs_err::File::open(area.frame(&frame.digest))?;
                Box::new(io::BufReader::with_capacity(128 * 1024, file))
            }
        })
    }

    /// Removes the frame's file, if it has one.
    pub(super) fn discard(self, area: &Area, frame: &Frame) -> io::Result<()> {
        match self.place {
            Place::Memory { .. } => Ok(()),
            Place::Disk => discard(&area.frame(&frame.digest)),
        }
    }

    /// Brings the frame to disk: it is not restored now.
    pub(super) fn keep(self, area: &Area, frame: &Frame) -> io::Result<()> {
        match self.place {
            Place::Memory { pieces, .. } => write_all(&mut open(area, frame)?, &pieces),
            Place::Disk => Ok(()),
        }
    }
}

/// Pieces that are read one after the other.
struct Pieces<'a> {
    pieces: &'a [Bytes],
    /// How much was taken of the first.
    taken: usize,
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.pieces.first().map_or(&[], |piece| &piece[self.taken..]))
    }

    fn consume(&mut self, amount: usize) {
        self.taken += amount;
        while let Some(piece) = self.pieces.first()
            && self.taken >= piece.len()
        {
            self.taken -= piece.len();
            self.pieces = &self.pieces[1..];
        }
    }
}

impl io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let len = available.len().min(buffer.len());
        buffer[..len].copy_from_slice(&available[..len]);
        self.consume(len);
        Ok(len)
    }
}

/// A frame on its way.
pub(super) struct Coming {
    /// Its place among the frames that were asked for.
    pub(super) wanted: usize,
    /// Bytes that have come, of the length that it will have.
    len: u64,
    wire_len: u64,
    /// What has come and is not on disk.
    pieces: Vec<Bytes>,
    unwritten: usize,
    /// Since when something is not on disk.
    since: Option<Instant>,
    way: Way,
}

/// Where the frame gathers.
enum Way {
    /// In memory, as long as it comes fast.
    Memory(Taken),
    /// In its file.
    Disk(std::fs::File),
}

impl Coming {
    /// Begins a frame where its file ends.
    pub(super) fn begin(area: &Area, wanted: usize, frame: &Frame, room: &Room) -> io::Result<Self> {
        let (len, wire_len) = (area.frame_len(&frame.digest), frame.wire_len);
        let taken = if len == 0 { room.take(wire_len) } else { None };
        let way = match taken {
            Some(taken) => Way::Memory(taken),
            None => Way::Disk(open(area, frame)?),
        };
        Ok(Self { wanted, len, wire_len, pieces: Vec::new(), unwritten: 0, since: None, way })
    }

    /// Takes the next bytes. Returns whether they are no more than the frame has.
    pub(super) fn take(&mut self, bytes: Bytes) -> bool {
        self.len += bytes.len() as u64;
        self.unwritten += bytes.len();
        self.since.get_or_insert_with(Instant::now);
        self.pieces.push(bytes);
        self.len <= self.wire_len
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
        let is_full = match self.way {
            Way::Memory(_) => false,
            Way::Disk(_) => self.unwritten >= WRITE_BYTES || self.is_whole(),
        };
        is_full || (!self.is_whole() && self.due().is_some_and(|due| now >= due))
    }

    /// Writes what has come; from then on the frame gathers on disk.
    pub(super) fn write(mut self, area: &Area, frame: &Frame) -> io::Result<Self> {
        let mut file = match self.way {
            Way::Memory(_) => open(area, frame)?,
            Way::Disk(file) => file,
        };
        write_all(&mut file, &self.pieces)?;
        self.pieces.clear();
        (self.unwritten, self.since, self.way) = (0, None, Way::Disk(file));
        Ok(self)
    }

    /// Hands on a frame that has come whole, under its number in the plan.
    pub(super) fn end(self, number: usize) -> Gathered {
        let place = match self.way {
            Way::Memory(taken) => Place::Memory { pieces: self.pieces, _taken: taken },
            Way::Disk(_) => Place::Disk,
        };
        Gathered { number, place }
    }
}

fn open(area: &Area, frame: &Frame) -> io::Result<std::fs::File> {
    let mut options = fs_err::OpenOptions::new();
    options.append(true).create(true);
    options.options_mut().mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    Ok(options.open(area.frame(&frame.digest))?.into())
}

fn write_all(file: &mut std::fs::File, pieces: &[Bytes]) -> io::Result<()> {
    pieces.iter().try_for_each(|piece| file.write_all(piece))
}

#[cfg(test)]
mod tests {
    use sluice_common::transfer::Codec;

    use super::*;
    use crate::crash::CrashPoints;
    use crate::layout::AppDir;

    const BYTES: &[u8] = b"a frame of some twenty bytes";

    fn scene() -> (tempfile::TempDir, Area, Frame) {
        let root = tempfile::tempdir().unwrap();
        let dir = AppDir::new(root.path(), &"shop".parse().unwrap());
        let area = Area::open(&dir, Digest::of(b"package"), CrashPoints::default()).unwrap();
        let (digest, wire_len) = (Digest::of(BYTES), BYTES.len() as u64);
        let frame = Frame { codec: Codec::Zstd, digest, wire_len, base: Vec::new(), parts: Vec::new() };
        (root, area, frame)
    }

    fn read(gathered: &Gathered, area: &Area, frame: &Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut gathered.read(area, frame).unwrap(), &mut bytes).unwrap();
        bytes
    }

    fn on_disk(area: &Area, frame: &Frame) -> Option<Vec<u8>> {
        fs_err::read(area.frame(&frame.digest)).ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_fast_is_not_written_and_its_room_is_given_back() {
        let (_root, area, frame) = scene();
        let room = Room::new(frame.wire_len);
        let mut coming = Coming::begin(&area, 0, &frame, &room).unwrap();
        for piece in BYTES.chunks(5) {
            assert!(coming.take(Bytes::from_static(piece)));
            assert!(!coming.is_due(Instant::now()));
        }
        assert!(coming.is_whole());
        let gathered = coming.end(7);
        assert!(gathered.is_right(&area, &frame).unwrap());
        assert_eq!((read(&gathered, &area, &frame), gathered.number), (BYTES.to_vec(), 7));
        assert_eq!((on_disk(&area, &frame), room.0.load(Ordering::Relaxed)), (None, 0));
        gathered.discard(&area, &frame).unwrap();
        assert_eq!(room.0.load(Ordering::Relaxed), frame.wire_len);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_slowly_or_finds_no_room_or_was_begun_before_goes_to_disk() {
        for (name, room, before, slowly) in [
            ("slowly", BYTES.len(), 0, true),
            ("no room", BYTES.len() - 1, 0, false),
            ("no room, slowly", 0, 0, true),
            ("begun before", BYTES.len(), 9, false),
        ] {
            let (_root, area, frame) = scene();
            fs_err::write(area.frame(&frame.digest), &BYTES[..before]).unwrap();
            let room = Room::new(room as u64);
            let mut coming = Coming::begin(&area, 0, &frame, &room).unwrap();
            for piece in BYTES[before..].chunks(7) {
                assert!(coming.take(Bytes::from_static(piece)), "{name}");
                if slowly {
                    tokio::time::advance(WRITE_INTERVAL).await;
                }
                if coming.is_due(Instant::now()) {
                    coming = coming.write(&area, &frame).unwrap();
                    assert_eq!(coming.due(), None, "{name}");
                }
                let written = on_disk(&area, &frame).unwrap_or_default().len() as u64;
                assert!(!slowly || written == coming.len, "{name}: {written} of {}", coming.len);
            }
            let gathered = coming.end(0);
            assert!(gathered.is_right(&area, &frame).unwrap(), "{name}");
            assert_eq!(on_disk(&area, &frame).as_deref(), Some(BYTES), "{name}");
            assert_eq!(read(&gathered, &area, &frame), BYTES, "{name}");
            gathered.discard(&area, &frame).unwrap();
            assert_eq!(on_disk(&area, &frame), None, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_restored_now_is_kept() {
        let (_root, area, frame) = scene();
        let room = Room::new(frame.wire_len);
        let mut coming = Coming::begin(&area, 0, &frame, &room).unwrap();
        coming.take(Bytes::from_static(BYTES));
        coming.end(0).keep(&area, &frame).unwrap();
        assert_eq!(on_disk(&area, &frame).as_deref(), Some(BYTES));
        assert_eq!(room.0.load(Ordering::Relaxed), frame.wire_len);
    }

    #[tokio::test(start_paused = true)]
    async fn other_bytes_and_more_bytes_than_the_frame_has_are_found() {
        let (_root, area, frame) = scene();
        for room in [0, frame.wire_len] {
            let mut wrong = Coming::begin(&area, 0, &frame, &Room::new(room)).unwrap();
            assert!(wrong.take(Bytes::from(vec![0; BYTES.len()])));
            if wrong.is_due(Instant::now()) {
                wrong = wrong.write(&area, &frame).unwrap();
            }
            let wrong = wrong.end(0);
            assert!(!wrong.is_right(&area, &frame).unwrap());
            wrong.discard(&area, &frame).unwrap();
            let mut longer = Coming::begin(&area, 0, &frame, &Room::new(room)).unwrap();
            assert!(!longer.take(Bytes::from(vec![0; BYTES.len() + 1])));
            discard(&area.frame(&frame.digest)).unwrap();
        }
    }
}
