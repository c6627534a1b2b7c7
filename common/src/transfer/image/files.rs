//! The files of an image: where each lies, and how the executables among them are laid out.

use std::io;
use std::ops::Range;

use goblin::elf::header::{ELFCLASS64, ELFDATA2LSB, EM_AARCH64, EM_X86_64};
use goblin::elf::program_header::PT_LOAD;
use goblin::elf::section_header::{SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS};

use crate::caps;

use super::base::ReadAt;

/// How a file begins that is read: ELF, of 64 bits, the low byte first.
const MAGIC: [u8; 6] = [0x7f, b'E', b'L', b'F', ELFCLASS64, ELFDATA2LSB];
/// Bytes of an ELF header.
const HEADER_BYTES: usize = 64;
/// Bytes of a program header and of a section header.
const SEGMENT_HEADER_BYTES: usize = 56;
const SECTION_HEADER_BYTES: usize = 64;
/// Longest name of a section that means something here, and the zero after it.
const NAME_BYTES: usize = 16;

/// A file of an image, or the run of one that a segment of a large file is.
#[derive(Debug, Clone)]
pub(in crate::transfer) struct File {
    /// Where its bytes lie in the image.
    pub(super) place: Range<usize>,
    /// Which byte of the file is the first of them.
    offset: u64,
    /// How it is laid out, if it is an executable that can be read.
    pub(super) layout: Option<Box<Layout>>,
}

impl File {
    /// Makes a file of which the image has `place`, which begins at byte `offset` of its `size`. `read` reads anywhere in
    /// the file: an executable's headers stand at both of its ends.
    pub(in crate::transfer) fn read(
        place: Range<usize>,
        offset: u64,
        size: u64,
        read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<Self> {
        Ok(Self { place, offset, layout: Layout::read(size, read)?.map(Box::new) })
    }

    /// Makes a file of which nothing is known yet but where it lies.
    pub(in crate::transfer) fn unread(place: Range<usize>, offset: u64) -> Self {
        Self { place, offset, layout: None }
    }

    /// Makes a file that lies in `bytes` as a whole.
    pub(in crate::transfer) fn whole(bytes: &[u8], place: Range<usize>) -> Self {
        let file = bytes.get(place.clone()).unwrap_or_default();
        let read = |offset: u64, out: &mut [u8]| file.read_at(offset as usize, out);
        let layout = Layout::read(file.len() as u64, read).unwrap_or_default().map(Box::new);
        Self { place, offset: 0, layout }
    }

    /// Returns where its bytes begin in the image.
    pub(in crate::transfer) fn start(&self) -> usize {
        self.place.start
    }

    /// Returns the place of the file's first byte, which may lie outside of the image.
    pub(super) fn begin(&self) -> i64 {
        self.place.start as i64 - self.offset as i64
    }

    /// Returns the file of `files`, sorted by place, that holds a place.
    pub(super) fn at(files: &[Self], place: usize) -> Option<&Self> {
        let after = files.partition_point(|file| file.place.end <= place);
        files.get(after).filter(|file| file.place.contains(&place))
    }
}

/// The instruction set of an executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    fn of(number: u16) -> Option<Self> {
        match number {
            EM_X86_64 => Some(Self::X86_64),
            EM_AARCH64 => Some(Self::Aarch64),
            _ => None,
        }
    }
}

/// What of an ELF file is loaded where.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) machine: Machine,
    segments: Vec<Segment>,
    pub(super) sections: Vec<Section>,
}

/// A run of addresses and where it lies in the file.
#[derive(Debug, Clone)]
struct Segment {
    address: u64,
    memory_len: u64,
    offset: u64,
    file_len: u64,
}

/// A section that is loaded and has bytes in the file.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) kind: u32,
    pub(super) is_code: bool,
    pub(super) name: String,
    pub(super) address: u64,
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Section {
    /// Says whether jump tables may lie in it.
    pub(super) fn has_tables(&self) -> bool {
        self.name == ".rodata" && !self.is_code
    }

    /// Returns the addresses of the section.
    pub(super) fn addresses(&self) -> Range<u64> {
        self.address..self.address + self.len
    }
}

impl Layout {
    /// Reads the headers of a file of `size` bytes; nothing where they are not those of an ELF file for a
    /// known machine.
    fn read(size: u64, read: impl Fn(u64, &mut [u8]) -> io::Result<()>) -> io::Result<Option<Self>> {
        let take = |offset: u64, len: usize| -> io::Result<Option<Vec<u8>>> {
            if offset.checked_add(len as u64).is_none_or(|end| end > size) {
                return Ok(None);
            }
            let mut bytes = vec![0; len];
            read(offset, &mut bytes)?;
            Ok(Some(bytes))
        };
        if take(0, MAGIC.len())?.is_none_or(|magic| magic != MAGIC) {
            return Ok(None);
        }
        let Some(header) = take(0, HEADER_BYTES)?.and_then(|bytes| Header::parse(&bytes)) else {
            return Ok(None);
        };
        let Some(segments) = take(header.segments_offset, header.segments * SEGMENT_HEADER_BYTES)? else {
            return Ok(None);
        };
        let Some(headers) = take(header.sections_offset, header.sections * SECTION_HEADER_BYTES)? else {
            return Ok(None);
        };
        let mut layout = Self {
            machine: header.machine,
            segments: segments.chunks_exact(SEGMENT_HEADER_BYTES).filter_map(segment).collect(),
            sections: Vec::new(),
        };
        let headers: Vec<&[u8]> = headers.chunks_exact(SECTION_HEADER_BYTES).collect();
        let names = headers.get(header.names).map_or(u64::MAX, |names| word(names, 24));
        for (header, mut section) in
            headers.iter().filter_map(|header| Some((header, section(header, size)?)))
        {
            let at = names.saturating_add(u64::from(half(header, 0)));
            let name = take(at, NAME_BYTES.min(size.saturating_sub(at) as usize))?;
            section.name = name_of(&name.unwrap_or_default());
            layout.sections.push(section);
        }
        // Sections of a file that is what it says do not overlap: no byte is searched twice.
        let searched = layout.sections.iter().try_fold(0_u64, |sum, section| sum.checked_add(section.len));
        Ok(Some(layout).filter(|_| searched.is_some_and(|searched| searched <= size)))
    }

    /// Returns where an address lies in the file; past the file's bytes of a segment, that segment's end.
    pub(super) fn offset(&self, address: u64) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| {
            address.checked_sub(segment.address).is_some_and(|distance| distance < segment.memory_len)
        })?;
        segment.offset.checked_add((address - segment.address).min(segment.file_len))
    }
}

/// What the first bytes of a file say about its other headers.
struct Header {
    machine: Machine,
    segments_offset: u64,
    segments: usize,
    sections_offset: u64,
    sections: usize,
    /// Which section holds the names of sections.
    names: usize,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let header = Self {
            machine: Machine::of(quarter(bytes, 18) as u16)?,
            segments_offset: word(bytes, 32),
            segments: quarter(bytes, 56),
            sections_offset: word(bytes, 40),
            sections: quarter(bytes, 60),
            names: quarter(bytes, 62),
        };
        let is_known = quarter(bytes, 54) == SEGMENT_HEADER_BYTES
            && quarter(bytes, 58) == SECTION_HEADER_BYTES
            && header.segments + header.sections <= caps::IMAGE_HEADERS_MAX;
        is_known.then_some(header)
    }
}

fn segment(header: &[u8]) -> Option<Segment> {
    (half(header, 0) == PT_LOAD).then(|| Segment {
        offset: word(header, 8),
        address: word(header, 16),
        file_len: word(header, 32),
        memory_len: word(header, 40),
    })
}

fn section(header: &[u8], size: u64) -> Option<Section> {
    let (kind, flags) = (half(header, 4), word(header, 8));
    let (address, offset, len) = (word(header, 16), word(header, 24), word(header, 32));
    let is_loaded = kind != SHT_NOBITS && flags & u64::from(SHF_ALLOC) != 0;
    let end = offset.checked_add(len).filter(|_| is_loaded)?;
    // Addresses beyond the end of all addresses are nonsense, and would overflow.
    address.checked_add(len)?;
    let is_code = flags & u64::from(SHF_EXECINSTR) != 0;
    (end <= size).then(|| Section { kind, is_code, name: String::new(), address, offset, len })
}

fn name_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Returns eight bytes of a header as a number.
fn word(header: &[u8], at: usize) -> u64 {
    header[at..].iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn half(header: &[u8], at: usize) -> u32 {
    word(header, at) as u32
}

fn quarter(header: &[u8], at: usize) -> usize {
    usize::from(word(header, at) as u16)
}
