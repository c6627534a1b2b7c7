//! Two small consecutive packages, made from a seed: texts, an executable in which code has moved, and code that is no
//! executable.

use std::io::{self, Read, Write};
use std::sync::OnceLock;

use sluice_common::digest::Digest;
use sluice_common::manifest::{Content, Contents, Entry, EntryKind, FileEntry, Manifest};
use sluice_common::path::RelPath;
use sluice_common::transfer::{
    Codec, ContentSource, Effort, EncodedFrame, Extent, Frame, FrameSpec, Lean, Part, TransferPlan,
    encode_frame, plan,
};

/// A package in memory.
pub struct Package {
    manifest: Manifest,
    files: Vec<(Digest, Vec<u8>)>,
}

impl Package {
    fn of(files: Vec<(&str, Vec<u8>)>) -> Self {
        let entries = files.iter().map(|(path, bytes)| Entry {
            path: RelPath::new(path).expect("the fixture's paths are valid"),
            kind: EntryKind::File(FileEntry {
                executable: false,
                size: bytes.len() as u64,
                digest: Digest::of(bytes),
            }),
        });
        let manifest = Manifest::new(entries).expect("the fixture's files are sorted");
        let files = files.into_iter().map(|(_, bytes)| (Digest::of(&bytes), bytes)).collect();
        Self { manifest, files }
    }

    /// Returns the manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the numbered contents.
    pub fn contents(&self) -> Contents<'_> {
        self.manifest.contents()
    }

    /// Returns the numbered contents with what serves them.
    pub fn side(&self) -> (Contents<'_>, &dyn ContentSource) {
        (self.contents(), self)
    }

    fn extents(&self) -> Vec<Extent> {
        let whole = |(number, content): (usize, Content)| Extent {
            content: number as u32,
            offset: 0,
            len: content.size,
        };
        self.contents().iter().enumerate().map(whole).collect()
    }
}

impl ContentSource for Package {
    fn reader(&self, content: &Digest, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let found = self.files.iter().find(|(digest, _)| digest == content);
        let (_, bytes) = found.ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(bytes.get(offset as usize..).ok_or(io::ErrorKind::UnexpectedEof)?))
    }
}

/// The two packages.
pub struct Fixture {
    /// What a receiver has.
    pub base: Package,
    /// What it gets.
    pub target: Package,
}

impl Fixture {
    /// Returns the fixture; made once.
    pub fn get() -> &'static Self {
        static FIXTURE: OnceLock<Fixture> = OnceLock::new();
        FIXTURE.get_or_init(|| Self {
            base: Package::of(vec![
                ("prog", executable(60, 0)),
                ("text", text(1, 120)),
                ("words.gz", gzip(&text(3, 300))),
                ("zone.o", code(120, 0)),
            ]),
            target: Package::of(vec![
                ("prog", executable(60, 24)),
                ("text", text(2, 130)),
                ("words.gz", gzip(&text(4, 310))),
                ("zone.o", code(130, 16)),
            ]),
        })
    }

    /// Returns the frame that carries the target as `bytes`, against the base: all of it, but what the codec leaves to
    /// another.
    pub fn frame(&self, codec: Codec, bytes: &[u8]) -> Frame {
        let spec = self.spec(codec);
        let part = |extent: &Extent| Part {
            extent: *extent,
            digest: self.target.contents().at(extent.content).digest,
        };
        Frame {
            digest: Digest::of(bytes),
            wire_len: bytes.len() as u64,
            codec,
            base: spec.base,
            parts: spec.parts.iter().map(part).collect(),
        }
    }

    fn spec(&self, codec: Codec) -> FrameSpec {
        let numbers = match codec {
            // With the archive among them, the archive codec is the smaller.
            Codec::Image => 0..2,
            Codec::Zstd | Codec::Archive => 0..3,
            Codec::Filtered => 3..4,
        };
        let base = self.base.extents()[numbers.clone()].iter().copied().map(Lean::Base).collect();
        FrameSpec { base, parts: self.target.extents()[numbers].to_vec() }
    }

    /// Returns the frame that carries the target's second content as `bytes`, against its first, which is produced.
    pub fn second_frame(&self, codec: Codec, bytes: &[u8]) -> Frame {
        let (base, extent) = self.second();
        let digest = self.target.contents().at(extent.content).digest;
        Frame { base: vec![base], parts: vec![Part { extent, digest }], ..self.frame(codec, bytes) }
    }

    fn second(&self) -> (Lean, Extent) {
        let extents = self.target.extents();
        (Lean::Produced(extents[0]), extents[1])
    }

    /// Encodes the whole target in every way that the encoder chooses: plain, against the base at each
    /// effort, and a part of it against what was produced.
    pub fn frames(&self) -> Vec<(Codec, Vec<u8>)> {
        let (update, image) = (self.spec(Codec::Zstd), self.spec(Codec::Image));
        let filtered = self.spec(Codec::Filtered);
        let cold = FrameSpec { base: Vec::new(), parts: update.parts.clone() };
        let (produced, extent) = self.second();
        let second = FrameSpec { base: vec![produced], parts: vec![extent] };
        let (quick, best) = (Effort::Quick, Effort::Best);
        let bare = FrameSpec { base: Vec::new(), parts: filtered.parts.clone() };
        let ways = [
            (&cold, quick),
            (&update, quick),
            (&image, best),
            (&update, best),
            (&second, best),
            (&filtered, best),
            (&bare, best),
        ];
        let encode = |(spec, effort)| {
            let encoded = self.encode(spec, effort);
            (encoded.frame.codec, encoded.bytes)
        };
        ways.map(encode).into()
    }

    /// Returns the plan from the base to the target, as planned and encoded at best effort.
    pub fn plan(&self) -> TransferPlan {
        self.encoded_plan().0
    }

    /// Returns the plan with the bytes of its frames.
    pub fn encoded_plan(&self) -> (TransferPlan, Vec<EncodedFrame>) {
        let specs = plan(Some(&self.base.manifest), &self.target.manifest, Effort::Best);
        let encoded: Vec<_> = specs.iter().map(|spec| self.encode(spec, Effort::Best)).collect();
        let frames = encoded.iter().map(|encoded| encoded.frame.clone()).collect();
        let (base, target) = (Some(self.base.manifest.digest()), self.target.manifest.digest());
        (TransferPlan { base, target, frames }, encoded)
    }

    fn encode(&self, spec: &FrameSpec, effort: Effort) -> EncodedFrame {
        encode_frame(spec, self.base.side(), self.target.side(), effort).expect("memory does not fail")
    }
}

/// Compresses with zlib, which the archive codec rebuilds.
fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("memory does not fail")
}

/// Returns lines of words drawn from a seed (xorshift).
fn text(seed: u64, lines: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = ["release", "host", "frame", "base", "depot", "batch", "switch", "gate"];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = format!("# version {seed}\n");
    for line in 0..lines {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out += &format!("{line} {} = {}\n", WORDS[(state % 8) as usize], state % 9973);
    }
    out.into_bytes()
}

/// Returns a minimal x86-64 ELF file: `functions` functions that call each other and read a table, the first of them
/// longer by `shift` bytes, so that all the others have moved.
pub fn executable(functions: usize, shift: usize) -> Vec<u8> {
    const BODY: usize = 32;
    let (base, text_at) = (0x40_0000_u64, 0x1000_usize);
    let place = |function: usize| text_at + function * BODY + if function == 0 { 0 } else { shift };
    let text_len = functions * BODY + shift;
    let mut code = Vec::with_capacity(text_len);
    for function in 0..functions {
        let relative = |target: usize, next: usize| (target as i64 - next as i64) as i32;
        let at = place(function);
        // lea rax, [rip + table]; call another; mov ecx, constant; ret
        code.extend([0x48, 0x8d, 0x05]);
        code.extend(relative(text_at + text_len + 8 * (function % 16), at + 7).to_le_bytes());
        code.push(0xe8);
        code.extend(relative(place(function * 7 % functions), at + 12).to_le_bytes());
        code.push(0xb9);
        code.extend((function as u32).wrapping_mul(2_654_435_761).to_le_bytes());
        code.push(0xc3);
        let end = if function == 0 { BODY + shift } else { (function + 1) * BODY + shift };
        code.resize(end, 0x90);
    }
    let table: Vec<u8> =
        (0..16).flat_map(|n| (base + place(n * 3 % functions) as u64).to_le_bytes()).collect();
    elf(base, text_at, &code, &table)
}

/// Returns `calls` calls of eight functions, behind `shift` bytes, with a few bytes of something else between them: what
/// the filter pays for, without the headers of an executable.
fn code(calls: u32, shift: usize) -> Vec<u8> {
    let mut code = vec![0x90; shift];
    for number in 0..calls {
        let function = number.wrapping_mul(2_654_435_761) >> 29;
        code.push(0xe8);
        code.extend((function * 4096).wrapping_sub(code.len() as u32 + 4).to_le_bytes());
        code.extend(&number.wrapping_mul(40_503).to_le_bytes()[..3]);
    }
    code
}

/// Lays a header, one loaded segment, code, data and section headers end to end.
fn elf(base: u64, text_at: usize, code: &[u8], table: &[u8]) -> Vec<u8> {
    const NAMES: &[u8] = b"\0.text\0.data\0.shstrtab\0";
    let table_at = text_at + code.len();
    let names_at = table_at + table.len();
    let sections_at = (names_at + NAMES.len()).next_multiple_of(8);
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    let half =
        |out: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|value| out.extend(value.to_le_bytes()));
    let word =
        |out: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|value| out.extend(value.to_le_bytes()));
    let long =
        |out: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|value| out.extend(value.to_le_bytes()));
    half(&mut out, &[2, 62]);
    word(&mut out, &[1]);
    long(&mut out, &[base + text_at as u64, 64, sections_at as u64]);
    word(&mut out, &[0]);
    half(&mut out, &[64, 56, 1, 64, 4, 3]);
    word(&mut out, &[1, 7]);
    long(&mut out, &[0, base, base, names_at as u64, names_at as u64, 0x1000]);
    out.resize(text_at, 0);
    out.extend(code);
    out.extend(table);
    out.extend(NAMES);
    out.resize(sections_at + 64, 0);
    for (name, kind, flags, at, len) in
        [(1, 1, 6, text_at, code.len()), (7, 1, 3, table_at, table.len()), (13, 3, 0, names_at, NAMES.len())]
    {
        word(&mut out, &[name, kind]);
        let address = if flags == 0 { 0 } else { base + at as u64 };
        long(&mut out, &[flags, address, at as u64, len as u64]);
        word(&mut out, &[0, 0]);
        long(&mut out, &[if flags == 0 { 1 } else { 8 }, 0]);
    }
    out
}
