//! Finds deflate streams in archives: members of zip, jar and wheel, and the one of a gzip file.
//!
//! It reads no directory, only the header before each member, wherever one stands: a cut archive, one with something before
//! it, and one stored inside of another need no care. What only looks like a header costs an attempt to inflate.

use std::io;
use std::ops::Range;

use memchr::memmem;

use crate::caps;

use super::super::image::{Bytes, File};
use super::inflate::Inflater;

/// A deflate stream in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    /// The compressed bytes.
    pub(super) place: Range<usize>,
    /// How many bytes they inflate to.
    pub(super) plain_len: usize,
}

/// Shortest stream worth inflating: what is shorter costs less as it is than what describes it.
const STREAM_BYTES_MIN: usize = 32;

const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
const LOCAL_HEADER_BYTES: usize = 30;
const GZIP_HEADER: &[u8] = b"\x1f\x8b\x08";
const METHOD_DEFLATE: u16 = 8;
const FLAG_ENCRYPTED: u16 = 1;

/// Returns the streams of an image in their order, without overlap.
pub(super) fn streams(image: Bytes<'_>) -> Vec<Stream> {
    let mut headers = Headers { image, zip: None, gzips: image.files };
    let mut scan = Scan { inflater: Inflater::new(), left: caps::ARCHIVE_SCAN_BYTES_MAX as usize };
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((header, data)) = headers.next(at) {
        at = header + 1;
        if let Some(stream) = data.and_then(|data| scan.stream(image.bytes, data)) {
            at = stream.place.end;
            if stream.place.len() >= STREAM_BYTES_MIN {
                found.push(stream);
            }
        }
        if scan.left == 0 || found.len() == caps::ARCHIVE_MEMBERS_MAX {
            break;
        }
    }
    found
}

/// The headers of an image, one after the other.
struct Headers<'a> {
    image: Bytes<'a>,
    /// Where the next one of zip stands, or that there is none; nothing before it was looked for.
    zip: Option<Option<usize>>,
    /// Files that may begin with one of gzip.
    gzips: &'a [File],
}

impl Headers<'_> {
    /// Returns where the next header from `from` on begins, and where its stream would. Places asked for only grow.
    fn next(&mut self, from: usize) -> Option<(usize, Option<usize>)> {
        let bytes = self.image.bytes;
        let zip = match self.zip {
            Some(known) if known.is_none_or(|at| at >= from) => known,
            _ => memmem::find(&bytes[from..], LOCAL_HEADER).map(|at| from + at),
        };
        self.zip = Some(zip);
        // A gzip file's header stands at its beginning only.
        let is_gzip = |begin: usize| bytes.get(begin..).is_some_and(|file| file.starts_with(GZIP_HEADER));
        let is_next = |file: &File| file.start() >= from && is_gzip(file.start());
        let gzip = self.gzips.iter().position(is_next);
        self.gzips = &self.gzips[gzip.unwrap_or(self.gzips.len())..];
        let gzip = self.gzips.first().map(File::start);
        match (zip, gzip) {
            (Some(zip), gzip) if gzip.is_none_or(|gzip| zip < gzip) => {
                Some((zip, zip_data(&bytes[zip..]).map(|len| zip + len)))
            }
            (_, Some(gzip)) => Some((gzip, gzip_data(&bytes[gzip..]).map(|len| gzip + len))),
            (Some(_) | None, None) => None,
        }
    }
}

/// Returns how long a local file header of zip is; nothing where its member is not deflated.
fn zip_data(header: &[u8]) -> Option<usize> {
    let number = |at: usize| Some(u16::from_le_bytes(header.get(at..at + 2)?.try_into().ok()?));
    let is_plain_deflate = number(8)? == METHOD_DEFLATE && number(6)? & FLAG_ENCRYPTED == 0;
    is_plain_deflate.then_some(LOCAL_HEADER_BYTES + usize::from(number(26)?) + usize::from(number(28)?))
}

/// Longest name or comment that is looked for in a gzip header: as long as a path may be.
const GZIP_TEXT_BYTES_MAX: usize = 4096;

/// Returns how long a gzip header is (RFC 1952).
fn gzip_data(header: &[u8]) -> Option<usize> {
    const HAS_CHECKSUM: u8 = 2;
    const HAS_EXTRA: u8 = 4;
    const HAS_NAME: u8 = 8;
    const HAS_COMMENT: u8 = 16;
    let flags = *header.get(3)?;
    let mut len = 10;
    if flags & HAS_EXTRA != 0 {
        len += 2 + usize::from(u16::from_le_bytes(header.get(len..len + 2)?.try_into().ok()?));
    }
    for text in [HAS_NAME, HAS_COMMENT] {
        if flags & text != 0 {
            // Where many files begin like this, each of them would be looked through to the end of the last.
            len += 1 + header.get(len..)?.iter().take(GZIP_TEXT_BYTES_MAX).position(|byte| *byte == 0)?;
        }
    }
    Some(if flags & HAS_CHECKSUM != 0 { len + 2 } else { len })
}

struct Scan {
    inflater: Inflater,
    /// Bytes that may still be inflated.
    left: usize,
}

impl Scan {
    fn stream(&mut self, bytes: &[u8], begin: usize) -> Option<Stream> {
        let mut rest = bytes.get(begin..)?;
        let mut plain_len = 0;
        let left = &mut self.left;
        let inflated = self.inflater.stream(&mut rest, |piece| {
            *left = left.saturating_sub(piece.len());
            plain_len += piece.len();
            let is_within = *left > 0 && plain_len as u64 <= caps::ARCHIVE_EXPANDED_BYTES_MAX;
            is_within.then_some(()).ok_or_else(|| io::ErrorKind::FileTooLarge.into())
        });
        let end = bytes.len() - rest.len();
        // What was read counts too: a stream of empty blocks makes nothing, and may begin everywhere.
        *left = left.saturating_sub(end - begin);
        inflated.ok()?;
        Some(Stream { place: begin..end, plain_len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gzip_header_ends_behind_what_its_flags_say() {
        let header = |flags: u8, rest: &[u8]| [&b"\x1f\x8b\x08"[..], &[flags], &[0; 6], rest].concat();
        let long = vec![b'n'; GZIP_TEXT_BYTES_MAX];
        for (what, flags, rest, expected) in [
            ("nothing", 0, &b"data"[..], Some(10)),
            ("a name", 8, b"name\0data", Some(15)),
            ("an empty name and a comment", 24, b"\0why\0data", Some(15)),
            ("extra, a name and a checksum", 14, b"\x02\0xxname\0ccdata", Some(21)),
            ("a name without an end", 8, b"name", None),
            ("a name that is longer than any", 8, &[&long[..], b"\0data"].concat(), None),
            ("extra that is cut off", 4, b"\x09", None),
        ] {
            assert_eq!(gzip_data(&header(flags, rest)), expected, "{what}");
        }
    }
}
