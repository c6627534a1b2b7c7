//! zstd from outside, restored within bounds: never more bytes than were promised, never a window larger than asked.

use std::io::{self, Read};

use sluice_common::caps;
use zstd::bulk::Decompressor;
use zstd::stream::read::Decoder;
use zstd::zstd_safe;

/// Window that is always allowed, as a power of two: what level 19 takes when it does not know the length.
const WINDOW_LOG_MIN: u32 = 23;

/// Restores one zstd frame of at most `max` raw bytes; bytes after the frame are an error.
pub(super) fn decode(compressed: &[u8], max: u64) -> io::Result<Vec<u8>> {
    let mut raw = Vec::new();
    decode_to(compressed, max, &mut raw)?;
    Ok(raw)
}

/// Does it to `raw`, in place of what is there. After an error it holds anything.
pub(super) fn decode_to(compressed: &[u8], max: u64, raw: &mut Vec<u8>) -> io::Result<()> {
    raw.clear();
    let is_one_frame = zstd_safe::find_frame_compressed_size(compressed) == Ok(compressed.len());
    if let Ok(Some(len)) = zstd_safe::get_frame_content_size(compressed)
        && is_one_frame
        && len <= max
    {
        // Straight to where it stays: the index of a million files has dozens of MiB.
        raw.reserve_exact(len as usize);
        return Decompressor::new()?.decompress_to_buffer(compressed, raw).map(|_| ());
    }
    let mut decoder = Decoder::with_buffer(compressed)?;
    let window_log = (u64::BITS - max.leading_zeros()).clamp(WINDOW_LOG_MIN, caps::ZSTD_WINDOW_LOG_MAX);
    decoder.window_log_max(window_log)?;
    let mut decoder = decoder.single_frame();
    // Grows as bytes come, so that a lie about the length allocates nothing.
    decoder.by_ref().take(max + 1).read_to_end(raw)?;
    if raw.len() as u64 > max {
        return Err(invalid(format!("it holds more than {max} bytes")));
    }
    match decoder.finish().len() {
        0 => Ok(()),
        extra => Err(invalid(format!("{extra} bytes follow its end"))),
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_stopped_at_its_promise() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        assert!(bomb.len() < 10_000);
        assert!(decode(&bomb, 1 << 20).is_err());
        assert_eq!(decode(&bomb, 64 << 20).unwrap().len(), 64 << 20);
    }

    #[test]
    fn exactly_one_whole_frame_is_taken() {
        let good = zstd::bulk::compress(b"chunk", 3).unwrap();
        assert_eq!(decode(&good, 5).unwrap(), b"chunk");
        assert!(decode(&good, 4).is_err());
        assert!(decode(&good[..good.len() - 1], 5).is_err());
        assert!(decode(&[&good[..], b"x"].concat(), 5).is_err());
        assert!(decode(&[&good[..], &good[..]].concat(), 10).is_err());
        assert!(decode(b"", 5).is_err());
    }
}
