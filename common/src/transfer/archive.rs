//! The archive codec: archives as the differences of what they hold.
//!
//! A change of one byte in a member changes most of its compressed bytes. So members are inflated on both sides, the image
//! codec codes the *expanded* target against the expanded base, and the decoder deflates the members again, bit for bit:
//! with the very compressor that made them, found by trying ([`deflate`]). A member whose compressed bytes the other side
//! has too stays compressed on both: it costs a block, and no time. So does one that no known compressor rebuilds.
//!
//! The expanded base is larger than a receiver may hold, so it lies in a file without a name ([`scratch`]) and is read by
//! place.
//!
//! What is inflated and how it is deflated again is data ([`script`]): the decoder parses no archive, so that
//! finding members ([`scan`]) may change without a new version. The versions of the compressors belong to the codec's: both
//! sides pin them, the encoder verifies, and the part's digest decides.

mod deflate;
mod inflate;
mod scan;
mod scratch;
mod script;

use std::collections::HashSet;
use std::io::{self, BufRead, Read, Write};
use std::ops::Range;

use crate::caps;
use crate::codec::{Reader, put_bytes};

use super::image::{self, Bytes, File, ReadAt};
use deflate::{Deflater, METHODS, method_of};
use inflate::Inflater;
use scan::Stream;
pub(super) use scratch::Scratch;
use script::{Member, Script};

/// Bytes of the expanded target that the decoder takes at once.
const PIECE_BYTES: usize = 64 * 1024;

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("archive: {reason}"))
}

/// Encodes `target` against `base`; returns nothing where no member that changed can be deflated again.
pub(super) fn encode(base: Bytes<'_>, target: Bytes<'_>) -> io::Result<Option<Vec<u8>>> {
    let new = scan::streams(target);
    if new.is_empty() {
        return Ok(None);
    }
    let old = scan::streams(base);
    let changed_old = changed(&old, base.bytes, &new, target.bytes);
    let changed_new = changed(&new, target.bytes, &old, base.bytes);
    let expanded = expand_target(target.bytes, &changed_new)?;
    if expanded.members.is_empty() {
        return Ok(None);
    }
    let script = Script {
        expanded_len: expanded.bytes.len(),
        base_gaps: base_gaps(base.bytes.len(), &changed_old),
        members: expanded.members,
    };
    let against = Expansion::expand(base.bytes, script.clone(), Vec::new())?;
    let files: Vec<File> = member_places(&script).map(|place| File::whole(&expanded.bytes, place)).collect();
    let image = image::encode(against.image(), Bytes { bytes: &expanded.bytes, files: &files })?;
    let mut encoded = Vec::new();
    put_bytes(&mut encoded, &script.encode()?);
    encoded.extend_from_slice(&image);
    Ok(restores(base.bytes, &encoded, target.bytes).then_some(encoded))
}

/// Returns the streams whose compressed bytes the other side lacks.
fn changed(streams: &[Stream], bytes: &[u8], others: &[Stream], other_bytes: &[u8]) -> Vec<Stream> {
    let known: HashSet<&[u8]> = others.iter().map(|stream| &other_bytes[stream.place.clone()]).collect();
    streams.iter().filter(|stream| !known.contains(&bytes[stream.place.clone()])).cloned().collect()
}

/// A target with its members inflated.
struct ExpandedTarget {
    bytes: Vec<u8>,
    members: Vec<Member>,
}

/// Inflates those of `streams` that can be deflated again.
fn expand_target(target: &[u8], streams: &[Stream]) -> io::Result<ExpandedTarget> {
    let mut expanded = ExpandedTarget { bytes: Vec::new(), members: Vec::new() };
    let (mut inflater, mut plain, mut likely, mut copied, mut gap) =
        (Inflater::new(), Vec::new(), METHODS[0], 0, 0);
    for stream in streams {
        let mut compressed = &target[stream.place.clone()];
        if (expanded.bytes.len() + stream.plain_len + target.len()) as u64 > caps::ARCHIVE_SCAN_BYTES_MAX {
            break;
        }
        plain.clear();
        inflater.stream(&mut compressed, |piece| {
            plain.extend_from_slice(piece);
            Ok(())
        })?;
        let Some(method) = method_of(&plain, &target[stream.place.clone()], likely) else { continue };
        likely = method;
        expanded.bytes.extend_from_slice(&target[copied..stream.place.start]);
        gap += stream.place.start - copied;
        expanded.members.push(Member { gap: std::mem::take(&mut gap), plain_len: plain.len(), method });
        expanded.bytes.extend_from_slice(&plain);
        copied = stream.place.end;
    }
    expanded.bytes.extend_from_slice(&target[copied..]);
    Ok(expanded)
}

/// Returns the gaps before the streams that are inflated: all that fit into an expanded base.
fn base_gaps(base_len: usize, streams: &[Stream]) -> Vec<usize> {
    let (mut gaps, mut end, mut expanded_len) = (Vec::new(), 0, base_len);
    for stream in streams {
        let grown = expanded_len + stream.plain_len;
        if grown as u64 <= caps::ARCHIVE_EXPANDED_BYTES_MAX {
            gaps.push(stream.place.start - end);
            end = stream.place.end;
            expanded_len = grown;
        }
    }
    gaps
}

/// Returns where the members lie in the expanded target: each may be an executable.
fn member_places(script: &Script) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    let place = move |member: &Member| {
        let begin = at + member.gap;
        at = begin + member.plain_len;
        begin..at
    };
    script.members.iter().map(place)
}

/// Says whether `encoded` restores `target`.
fn restores(base: &[u8], encoded: &[u8], target: &[u8]) -> bool {
    let restore = || -> io::Result<bool> {
        let expansion = Expansion::open(base, encoded, Vec::with_capacity(base.len()))?;
        let mut decoder = expansion.decoder(target.len())?;
        let (mut rest, mut piece) = (target, vec![0; PIECE_BYTES]);
        loop {
            let n = decoder.read(&mut piece)?;
            if n == 0 {
                return Ok(rest.is_empty());
            }
            let Some(after) = rest.strip_prefix(&piece[..n]) else { return Ok(false) };
            rest = after;
        }
    };
    restore().unwrap_or(false)
}

/// A base with its members inflated, kept in `S`, and what makes the target of it.
pub(super) struct Expansion<'a, S> {
    store: S,
    len: usize,
    /// Where the members lie.
    files: Vec<File>,
    /// Those of the expanded target, of which nothing is known yet but where they lie.
    target_files: Vec<File>,
    script: Script,
    /// The expanded target as an image.
    image: &'a [u8],
}

impl<'a, S: Write + ReadAt> Expansion<'a, S> {
    /// Reads the script of `encoded` and expands `base` by it into an empty store.
    pub(super) fn open(base: impl BufRead, encoded: &'a [u8], store: S) -> io::Result<Self> {
        let mut reader = Reader::new("archive", encoded);
        let script = reader.bytes(encoded.len()).map_err(|error| invalid(&error.to_string()))?;
        let image = &encoded[encoded.len() - reader.remaining()..];
        Ok(Self { image, ..Self::expand(base, Script::decode(script)?, store)? })
    }

    fn expand(mut base: impl BufRead, script: Script, mut store: S) -> io::Result<Self> {
        let (mut out, mut inflater) = (Bounded { store: &mut store, len: 0 }, Inflater::new());
        let mut places = Vec::with_capacity(script.base_gaps.len());
        for gap in &script.base_gaps {
            if io::copy(&mut base.by_ref().take(*gap as u64), &mut out)? != *gap as u64 {
                return Err(invalid("a member lies beyond its base"));
            }
            let begin = out.len;
            inflater.stream(&mut base, |piece| out.write_all(piece))?;
            places.push(begin..out.len);
        }
        io::copy(&mut base, &mut out)?;
        out.flush()?;
        let len = out.len;
        let file = |place: Range<usize>| {
            let (begin, size) = (place.start, place.len() as u64);
            File::read(place, 0, size, |at, bytes| store.read_at(begin + at as usize, bytes))
        };
        let files = places.into_iter().map(file).collect::<io::Result<_>>()?;
        let target_files = member_places(&script).map(|place| File::unread(place, 0)).collect();
        Ok(Self { store, len, files, target_files, script, image: &[] })
    }

    /// Returns what restores the target's `len` bytes. It never yields more.
    pub(super) fn decoder(&self, len: usize) -> io::Result<Decoder<'_>> {
        let base = image::Base { source: &self.store, len: self.len, files: &self.files };
        let target = image::Shape { len: self.script.expanded_len, files: &self.target_files };
        let expanded = image::Decoder::new(base, self.image, target)?;
        let mut decoder = Decoder {
            expanded,
            expanded_left: self.script.expanded_len,
            members: self.script.members.iter(),
            gap: 0,
            member: None,
            piece: vec![0; PIECE_BYTES],
            ready: Vec::new(),
            taken: 0,
            left: len,
        };
        decoder.next_member();
        Ok(decoder)
    }
}

impl Expansion<'_, Vec<u8>> {
    fn image(&self) -> Bytes<'_> {
        Bytes { bytes: &self.store, files: &self.files }
    }
}

/// Counts what is written, and ends it at the limit of an expanded base.
struct Bounded<'a, S> {
    store: &'a mut S,
    len: usize,
}

impl<S: Write> Write for Bounded<'_, S> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if (self.len + piece.len()) as u64 > caps::ARCHIVE_EXPANDED_BYTES_MAX {
            return Err(invalid("the expanded base is over its limit"));
        }
        self.store.write_all(piece)?;
        self.len += piece.len();
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.store.flush()
    }
}

/// Restores a target as it is read.
pub(super) struct Decoder<'a> {
    expanded: image::Decoder<'a>,
    expanded_left: usize,
    /// The members after the one at hand.
    members: std::slice::Iter<'a, Member>,
    /// Bytes that stay as they are before the member at hand, or the end.
    gap: usize,
    /// The member at hand and how many plain bytes are left of it.
    member: Option<(Deflater, usize)>,
    piece: Vec<u8>,
    /// Restored bytes, and how many of them were taken.
    ready: Vec<u8>,
    taken: usize,
    /// Bytes that may still be taken.
    left: usize,
}

impl Decoder<'_> {
    fn next_member(&mut self) {
        let next = self.members.next();
        self.gap = next.map_or(self.expanded_left, |member| member.gap);
        self.member = next.map(|member| (Deflater::new(member.method), member.plain_len));
    }

    /// Restores more bytes, if only a few or none; says whether there was something left to do.
    fn refill(&mut self) -> io::Result<bool> {
        self.ready.clear();
        self.taken = 0;
        if self.gap > 0 {
            let len = self.take_expanded(self.gap)?;
            self.gap -= len;
            self.ready.extend_from_slice(&self.piece[..len]);
            return Ok(true);
        }
        let Some((mut deflater, plain_left)) = self.member.take() else { return Ok(false) };
        let len = self.take_expanded(plain_left)?;
        deflater.push(&self.piece[..len], len == plain_left, &mut self.ready)?;
        if len == plain_left {
            self.next_member();
        } else {
            self.member = Some((deflater, plain_left - len));
        }
        Ok(true)
    }

    /// Reads at most a piece of the expanded target.
    fn take_expanded(&mut self, wanted: usize) -> io::Result<usize> {
        let len = wanted.min(PIECE_BYTES);
        self.expanded.read_exact(&mut self.piece[..len])?;
        self.expanded_left -= len;
        Ok(len)
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.ready.len() {
            if !self.refill()? {
                return Ok(0);
            }
        }
        let n = out.len().min(self.ready.len() - self.taken);
        self.left = self.left.checked_sub(n).ok_or_else(|| invalid("it holds more than its length"))?;
        out[..n].copy_from_slice(&self.ready[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
