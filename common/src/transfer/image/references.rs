//! References of ELF files for x86-64 and aarch64: fields whose value says where something else in the file lies.
//!
//! Found in: instructions ([`x86_64`], [`aarch64`]); relocations and symbols; pointers in data;
//! `.eh_frame` and its index; jump tables in `.rodata`. What is found must depend on nothing but the layout of a file and
//! those of its bytes that lie in the image: encoder and decoder find it each for itself. A file that cannot be read has
//! none. Sections are read through a window: the size of a file does not count in memory.

mod aarch64;
mod data;
mod kind;
mod window;
mod x86_64;

use std::io;

use super::base::Base;
use super::files::{File, Layout, Machine, Section};
use crate::caps;
pub(super) use kind::Kind;
use kind::Words;
use window::Window;

/// A field that refers to something, in twelve bytes: a receiver keeps hundreds of thousands. Places are offsets in the
/// image; those of a file's bytes that are not in it lie before or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    at: u32,
    /// A table's place, or above all places one of the numbers below.
    kind: i32,
    /// The target, or [`NOWHERE`].
    target: i32,
}

const RELATIVE: i32 = i32::MAX;
const ABSOLUTE: i32 = i32::MAX - 1;
const BRANCH: i32 = i32::MAX - 2;
const NEAR: i32 = i32::MAX - 3;
const TEST: i32 = i32::MAX - 4;
/// The largest of [`Kind::Low`], of which there are as many as scales.
const LOW: i32 = i32::MAX - 8;
const SCALES: i32 = 5;
/// The largest of [`Kind::Page`], of which there are as many as bytes of a page.
const PAGE: i32 = LOW - SCALES;
const PAGE_BYTES: i32 = 4096;
/// Places are smaller.
const PLACES: i32 = PAGE - PAGE_BYTES + 1;
const NOWHERE: i32 = i32::MAX;

impl Reference {
    fn new(at: u32, kind: Kind, target: Option<i32>) -> Self {
        let kind = match kind {
            Kind::Relative => RELATIVE,
            Kind::Absolute => ABSOLUTE,
            Kind::Table { base } => base,
            Kind::Words(Words::Branch) => BRANCH,
            Kind::Words(Words::Near) => NEAR,
            Kind::Words(Words::Test) => TEST,
            Kind::Low { scale } => LOW - i32::from(scale),
            Kind::Page { low } => PAGE - i32::from(low),
        };
        Self { at, kind, target: target.unwrap_or(NOWHERE) }
    }

    /// Returns where the field begins.
    pub(super) fn at(&self) -> usize {
        self.at as usize
    }

    /// Returns where the field ends.
    pub(super) fn end(&self) -> usize {
        self.at() + self.kind().bytes()
    }

    /// Returns how the value is counted.
    pub(super) fn kind(&self) -> Kind {
        match self.kind {
            RELATIVE => Kind::Relative,
            ABSOLUTE => Kind::Absolute,
            BRANCH => Kind::Words(Words::Branch),
            NEAR => Kind::Words(Words::Near),
            TEST => Kind::Words(Words::Test),
            base if base < PLACES => Kind::Table { base },
            page if page <= PAGE => Kind::Page { low: (PAGE - page) as u16 },
            low => Kind::Low { scale: (LOW - low) as u8 },
        }
    }

    /// Returns what it refers to; nothing where that is not in the file.
    pub(super) fn target(&self) -> Option<i32> {
        (self.target != NOWHERE).then_some(self.target)
    }
}

/// The references of all files of an image, sorted, without overlap.
pub(super) struct Image {
    references: Vec<Reference>,
}

impl Image {
    /// Finds the references of every file in `image`. Fails where its bytes cannot be read.
    pub(super) fn of(image: Base<'_>) -> io::Result<Self> {
        let mut references = Vec::new();
        for file in image.files {
            if let Some(layout) = &file.layout {
                let known = references.len();
                let mut finder = Finder::new(image, file, layout, &mut references);
                finder.find()?;
                let is_over = finder.is_over;
                if is_over {
                    references.truncate(known);
                } else {
                    drop_overlaps(&mut references, known);
                }
            }
        }
        references.shrink_to_fit();
        Ok(Self { references })
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
    pub(super) fn tokens(&self, bytes: &[u8], place: impl Fn(i32) -> i32) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for reference in &self.references {
            if let Some(target) = reference.target() {
                let field = &mut out[reference.at()..reference.end()];
                reference.kind().put_token(field, place(target));
            }
        }
        out
    }
}

/// One file while its references are found.
struct Finder<'a> {
    file: &'a File,
    layout: &'a Layout,
    window: Window<'a>,
    found: &'a mut Vec<Reference>,
    /// Whether the file has more than there may be: then it has none, for encoder and decoder alike.
    is_over: bool,
    /// Addresses that code takes: where jump tables may begin.
    taken: Vec<u64>,
}

impl<'a> Finder<'a> {
    fn new(image: Base<'a>, file: &'a File, layout: &'a Layout, found: &'a mut Vec<Reference>) -> Self {
        let window = Window::new(image, file.place.clone());
        Self { file, layout, window, found, is_over: false, taken: Vec::new() }
    }

    fn find(&mut self) -> io::Result<()> {
        for section in &self.layout.sections {
            match (section.is_code, self.layout.machine) {
                (false, _) => data::references(section, self)?,
                (true, Machine::X86_64) => x86_64::references(section, self)?,
                (true, Machine::Aarch64) => aarch64::references(section, self)?,
            }
        }
        data::jump_tables(self)
    }

    /// Returns where in the image a section begins, which may be outside of it, and which of its bytes lie in the image.
    fn within(&self, section: &Section) -> (i64, std::ops::Range<usize>) {
        let begin = self.file.begin() + section.offset as i64;
        let place = &self.file.place;
        let clamp = |at: i64| at.clamp(place.start as i64, place.end as i64);
        let (from, to) = (clamp(begin), clamp(begin.saturating_add(section.len as i64)));
        (begin, (from - begin).max(0) as usize..(to - begin).max(0) as usize)
    }

    /// Returns the place of an address; past the file's bytes of a segment, that segment's end.
    fn place(&self, address: u64) -> Option<i32> {
        let offset = i64::try_from(self.layout.offset(address)?).ok()?;
        i32::try_from(offset.checked_add(self.file.begin())?).ok().filter(|place| *place < PLACES)
    }

    /// Remembers an address where a jump table may begin.
    fn take_address(&mut self, address: u64) {
        let mut sections = self.layout.sections.iter();
        if self.taken.len() < caps::IMAGE_TABLES_MAX
            && sections.any(|section| section.has_tables() && section.addresses().contains(&address))
        {
            self.taken.push(address);
        }
    }

    /// Adds the field at a place in the image.
    fn push(&mut self, at: usize, kind: Kind, address: u64) {
        if self.found.len() == caps::IMAGE_REFERENCES_MAX {
            self.is_over = true;
            return;
        }
        if self.found.len() == self.found.capacity() {
            // Doubling would take twice the memory that the limit allows.
            self.found.reserve_exact(GROWTH.min(caps::IMAGE_REFERENCES_MAX - self.found.len()));
        }
        if let Ok(at) = u32::try_from(at) {
            self.found.push(Reference::new(at, kind, self.place(address)));
        }
    }

    /// Adds an eight-byte field whose value is an address of the file.
    fn push_pointer(&mut self, at: usize) -> io::Result<()> {
        let Some(address) = self.window.word(at)? else { return Ok(()) };
        if address != 0 && self.place(address).is_some() {
            self.push(at, Kind::Absolute, address);
        }
        Ok(())
    }
}

/// References for which memory is taken at once.
const GROWTH: usize = 64 * 1024;

/// Sorts the references from number `known` on and drops those that begin inside of another.
fn drop_overlaps(references: &mut Vec<Reference>, known: usize) {
    references[known..].sort_unstable();
    let (mut end, mut kept) = (0, known);
    for number in known..references.len() {
        let reference = references[number];
        if reference.at() >= end {
            references[kept] = reference;
            (end, kept) = (reference.end(), kept + 1);
        }
    }
    references.truncate(kept);
}
