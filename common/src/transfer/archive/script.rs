//! What an archive frame inflates and how it deflates again, as data: zstd of
//!
//! ```text
//! expanded target length  base members  target members
//! base gap*  target gap*  target plain length*  target method:u8*
//! ```
//!
//! A gap is what lies between a member and the one before it, and stays as it is. A member of the base needs no length: a
//! deflate stream says where it ends.

use std::io::{self, Read};

use crate::caps;
use crate::codec::{DecodeError, Reader, put_varint};

use super::deflate::{METHODS, Method};

const LEVEL: i32 = 19;
/// Longest script: four numbers a member of at most five bytes each, and the three in front.
const SCRIPT_BYTES_MAX: u64 = caps::ARCHIVE_MEMBERS_MAX as u64 * 20 + 30;

/// A member of the target that is deflated again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    /// Bytes between it and the member before.
    pub(super) gap: usize,
    /// Its inflated bytes.
    pub(super) plain_len: usize,
    /// What deflates them.
    pub(super) method: Method,
}

/// What to inflate of the base and to deflate of the target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Script {
    /// Length of the target with its members inflated.
    pub(super) expanded_len: usize,
    /// The gap before each member of the base that is inflated.
    pub(super) base_gaps: Vec<usize>,
    /// The members of the target.
    pub(super) members: Vec<Member>,
}

impl Script {
    /// Returns the compressed script.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        put_varint(&mut out, self.expanded_len as u64);
        put_varint(&mut out, self.base_gaps.len() as u64);
        put_varint(&mut out, self.members.len() as u64);
        let gaps = self.base_gaps.iter().copied().chain(self.members.iter().map(|member| member.gap));
        for number in gaps.chain(self.members.iter().map(|member| member.plain_len)) {
            put_varint(&mut out, number as u64);
        }
        let number = |method| METHODS.iter().position(|known| *known == method);
        let methods =
            self.members.iter().map(|member| number(member.method).expect("a method is in the table"));
        out.extend(methods.map(|number| number as u8));
        zstd::bulk::compress(&out, LEVEL)
    }

    /// Reads a compressed script. Its members lie within the target that it announces.
    pub(super) fn decode(compressed: &[u8]) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
        decoder.window_log_max(caps::ZSTD_WINDOW_LOG_MAX)?;
        decoder.take(SCRIPT_BYTES_MAX).read_to_end(&mut bytes)?;
        read(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

fn read(bytes: &[u8]) -> Result<Script, DecodeError> {
    let mut reader = Reader::new("archive script", bytes);
    let expanded_len = reader.varint(caps::ARCHIVE_SCAN_BYTES_MAX)? as usize;
    let counts = [count(&mut reader)?, count(&mut reader)?];
    let base_gaps = numbers(&mut reader, counts[0])?;
    let gaps = numbers(&mut reader, counts[1])?;
    let plain_lens = numbers(&mut reader, counts[1])?;
    let mut members = Vec::with_capacity(counts[1]);
    for (gap, plain_len) in gaps.into_iter().zip(plain_lens) {
        let number = usize::from(reader.byte()?);
        let method = *METHODS.get(number).ok_or_else(|| reader.invalid("unknown method"))?;
        members.push(Member { gap, plain_len, method });
    }
    let held: u64 = members.iter().map(|member| member.gap as u64 + member.plain_len as u64).sum();
    if held > expanded_len as u64 {
        return Err(reader.invalid("members beyond the end of their target"));
    }
    reader.finish()?;
    Ok(Script { expanded_len, base_gaps, members })
}

/// Reads how many members follow: never more than there are bytes.
fn count(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    let max = caps::ARCHIVE_MEMBERS_MAX.min(reader.remaining());
    Ok(reader.varint(max as u64)? as usize)
}

fn numbers(reader: &mut Reader<'_>, count: usize) -> Result<Vec<usize>, DecodeError> {
    (0..count).map(|_| Ok(reader.varint(caps::ARCHIVE_SCAN_BYTES_MAX)? as usize)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_as_it_was_written() {
        let member = Member { gap: 60, plain_len: 1_000, method: METHODS[17] };
        for members in [vec![], vec![member], vec![member; 5_000]] {
            let script =
                Script { expanded_len: members.len() * 1_060, base_gaps: vec![7, 0, 300_000], members };
            assert_eq!(Script::decode(&script.encode().unwrap()).unwrap(), script);
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        for (what, bytes) in [
            ("empty", &[][..]),
            ("more members than bytes", &[9, 0, 0xff, 0xff, 3]),
            ("member beyond the end", &[9, 0, 1, 5, 5, 0]),
            ("unknown method", &[10, 0, 1, 5, 5, 18]),
            ("trailing bytes", &[10, 0, 1, 5, 5, 0, 0]),
            ("target over its limit", &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]),
        ] {
            assert!(read(bytes).is_err(), "{what}");
        }
        assert!(read(&[10, 0, 1, 5, 5, 0]).is_ok());
    }
}
