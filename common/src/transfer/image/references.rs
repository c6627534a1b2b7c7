//! References of x86-64 ELF files: fields whose value says where something else in the file lies.
//!
//! Found in: instructions with an RIP-relative operand and near branches; relocations and symbols; pointers in data;
//! `.eh_frame` and its index; jump tables in `.rodata`. What is found must depend on nothing but the bytes: encoder and
//! decoder find it each for itself. A file that cannot be read has none.

mod code;
mod data;

use std::io;
use std::ops::Range;

use goblin::elf::header::EM_X86_64;
use goblin::elf::program_header::PT_LOAD;
use goblin::elf::section_header::{SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS};
use goblin::elf::{Elf, SectionHeader};

use super::Bytes;
use super::base::Base;
use crate::caps;

/// How the value of a field says where its target lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Four bytes, counted from the field's own place.
    Relative,
    /// Eight bytes, an address.
    Absolute,
    /// Four bytes, counted from the beginning of a table at this place.
    Table { base: u32 },
}

/// A field that refers to something, in twelve bytes: a receiver keeps hundreds of thousands. Places are offsets in the
/// image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    at: u32,
    /// [`RELATIVE`], [`ABSOLUTE`], or the place of the table.
    kind: u32,
    /// The target, or [`NOWHERE`].
    target: u32,
}

const RELATIVE: u32 = u32::MAX;
const ABSOLUTE: u32 = u32::MAX - 1;
const NOWHERE: u32 = u32::MAX;

impl Reference {
    fn new(at: u32, kind: Kind, target: Option<u32>) -> Self {
        let kind = match kind {
            Kind::Relative => RELATIVE,
            Kind::Absolute => ABSOLUTE,
            Kind::Table { base } => base,
        };
        Self { at, kind, target: target.unwrap_or(NOWHERE) }
    }

    /// Returns where the field begins.
    pub(super) fn at(&self) -> usize {
        self.at as usize
    }

    /// Returns where the field ends.
    pub(super) fn end(&self) -> usize {
        self.at() + if self.kind == ABSOLUTE { 8 } else { 4 }
    }

    /// Returns how the value is counted.
    pub(super) fn kind(&self) -> Kind {
        match self.kind {
            RELATIVE => Kind::Relative,
            ABSOLUTE => Kind::Absolute,
            base => Kind::Table { base },
        }
    }

    /// Returns what it refers to; nothing where that is not in the image.
    pub(super) fn target(&self) -> Option<u32> {
        (self.target != NOWHERE).then_some(self.target)
    }
}

/// How an ELF file begins.
const MAGIC: &[u8; 4] = b"\x7fELF";

/// The references of all files of an image, sorted, without overlap.
pub(super) struct Image {
    references: Vec<Reference>,
}

impl Image {
    /// Finds the references of every whole file in `image`.
    pub(super) fn of(image: Bytes<'_>) -> Self {
        let mut found = Self { references: Vec::new() };
        for file in image.files {
            if let Some(bytes) = image.bytes.get(file.clone()) {
                found.add_file(bytes, file);
            }
        }
        found
    }

    /// Finds the references of every whole file of a base, one file at a time in memory.
    pub(super) fn of_base(base: Base<'_>) -> io::Result<Self> {
        let mut found = Self { references: Vec::new() };
        for file in base.files {
            let mut bytes = [0; MAGIC.len()];
            if file.len() < bytes.len() {
                continue;
            }
            base.source.read_at(file.start, &mut bytes)?;
            if bytes == *MAGIC {
                let mut bytes = vec![0; file.len()];
                base.source.read_at(file.start, &mut bytes)?;
                found.add_file(&bytes, file);
            }
        }
        Ok(found)
    }

    /// Adds the references of one file, unless they pass the limit: encoder and decoder leave out the same files.
    fn add_file(&mut self, bytes: &[u8], place: &Range<usize>) {
        let found = find(bytes, place).unwrap_or_default();
        if self.references.len() + found.len() <= caps::IMAGE_REFERENCES_MAX {
            self.references.extend_from_slice(&found);
        }
    }

    /// Says whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.references.is_empty()
    }

    /// Returns all of them.
    pub(super) fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Takes all of them.
    pub(super) fn into_references(self) -> Vec<Reference> {
        self.references
    }

    /// Returns `bytes` with each reference replaced by the place of its target, as `place` maps it: code that merely moved
    /// becomes the same.
    pub(super) fn tokens(&self, bytes: &[u8], place: impl Fn(u32) -> u32) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for reference in &self.references {
            if let Some(target) = reference.target() {
                let field = &mut out[reference.at()..reference.end()];
                field[..4].copy_from_slice(&place(target).to_be_bytes());
                field[4..].fill(0);
            }
        }
        out
    }
}

/// One file while it is read.
struct File<'a> {
    bytes: &'a [u8],
    begin: u32,
    segments: Vec<Segment>,
    found: Vec<Reference>,
    /// Addresses that code takes: where jump tables may begin.
    taken: Vec<u64>,
}

/// A run of addresses and where it lies in the file.
struct Segment {
    address: u64,
    memory_len: u64,
    offset: u64,
    file_len: u64,
}

/// A section that is loaded and has bytes in the file.
struct Section<'a> {
    header: &'a SectionHeader,
    name: &'a str,
    offset: usize,
    bytes: &'a [u8],
}

impl Section<'_> {
    fn is_code(&self) -> bool {
        self.header.sh_flags & u64::from(SHF_EXECINSTR) != 0
    }
}

impl File<'_> {
    /// Returns the place of an address; past the file's bytes of a segment, that segment's end.
    fn place(&self, address: u64) -> Option<u32> {
        let segment = self.segments.iter().find(|segment| {
            address.checked_sub(segment.address).is_some_and(|distance| distance < segment.memory_len)
        })?;
        let offset = segment.offset.checked_add((address - segment.address).min(segment.file_len))?;
        u32::try_from(offset).ok()?.checked_add(self.begin)
    }

    fn push(&mut self, at: usize, kind: Kind, address: u64) {
        let (target, begin) = (self.place(address), self.begin);
        if let Some(at) = u32::try_from(at).ok().and_then(|at| at.checked_add(begin)) {
            self.found.push(Reference::new(at, kind, target));
        }
    }

    /// Adds an eight-byte field whose value is an address of the image.
    fn push_pointer(&mut self, at: usize) {
        let Some(address) = word(self.bytes, at) else { return };
        if address != 0 && self.place(address).is_some() {
            self.push(at, Kind::Absolute, address);
        }
    }
}

fn find(bytes: &[u8], place: &Range<usize>) -> Option<Vec<Reference>> {
    if !bytes.starts_with(MAGIC) {
        return None;
    }
    let elf = Elf::parse(bytes).ok().filter(|elf| elf.is_64 && elf.little_endian)?;
    if elf.header.e_machine != EM_X86_64 {
        return None;
    }
    let loaded = elf.program_headers.iter().filter(|header| header.p_type == PT_LOAD);
    let segments = loaded.map(|header| Segment {
        address: header.p_vaddr,
        memory_len: header.p_memsz,
        offset: header.p_offset,
        file_len: header.p_filesz,
    });
    let begin = u32::try_from(place.start).ok()?;
    let mut file = File { bytes, begin, segments: segments.collect(), found: Vec::new(), taken: Vec::new() };
    let sections: Vec<Section<'_>> =
        elf.section_headers.iter().filter_map(|header| section(&elf, header, bytes)).collect();
    for section in &sections {
        if section.is_code() {
            code::references(section, &mut file);
        } else {
            data::references(section, &mut file);
        }
    }
    data::jump_tables(&sections, &mut file);
    Some(without_overlap(file.found, bytes.len() + place.start))
}

fn section<'a>(elf: &Elf<'a>, header: &'a SectionHeader, bytes: &'a [u8]) -> Option<Section<'a>> {
    let is_loaded = header.sh_type != SHT_NOBITS && header.sh_flags & u64::from(SHF_ALLOC) != 0;
    let offset = usize::try_from(header.sh_offset).ok().filter(|_| is_loaded)?;
    let end = offset.checked_add(usize::try_from(header.sh_size).ok()?)?;
    // Addresses beyond the end of all addresses are nonsense, and would overflow.
    header.sh_addr.checked_add(header.sh_size)?;
    let name = elf.shdr_strtab.get_at(header.sh_name).unwrap_or_default();
    Some(Section { header, name, offset, bytes: bytes.get(offset..end)? })
}

/// Sorts references and drops those that begin inside of another or end beyond the image.
fn without_overlap(mut found: Vec<Reference>, image_end: usize) -> Vec<Reference> {
    found.sort_unstable();
    let mut end = 0;
    found.retain(|reference| {
        let keeps = reference.at() >= end && reference.end() <= image_end;
        end = if keeps { reference.end() } else { end };
        keeps
    });
    found.shrink_to_fit();
    found
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
