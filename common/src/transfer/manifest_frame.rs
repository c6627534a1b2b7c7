//! The manifest on the wire: zstd, against the canonical bytes of the manifest that the receiver has.
//!
//! Of a million entries it has 76 MB. So neither side lets zstd keep a copy: one compresses from where the bytes are, the other
//! restores to where they stay.

use std::io::{self, Read};

use zstd::stream::read::Decoder;
use zstd::zstd_safe::{self, CCtx, CParameter};

use crate::caps;

use super::decode::whole;

/// High enough to find a moved directory, quick at the size of manifests (0.1 s for 4,000 entries).
const LEVEL: i32 = 19;
/// Of what goes to the depot, once: for 4,000 entries 5 ms, which a push would wait for, and 2 % longer.
const LEVEL_ONCE: i32 = 9;
/// Above this, the level falls so that a million entries take seconds and not minutes.
const LEVEL_BYTES_MAX: usize = 8 << 20;

/// Compresses canonical manifest bytes, against `base` where the receiver has it (empty otherwise).
pub fn encode_manifest(manifest: &[u8], base: &[u8]) -> io::Result<Vec<u8>> {
    encode(manifest, base, LEVEL)
}

/// Compresses the canonical bytes of a manifest, or of an index, that travel once.
pub fn encode_once(bytes: &[u8]) -> io::Result<Vec<u8>> {
    encode(bytes, &[], LEVEL_ONCE)
}

fn encode(manifest: &[u8], base: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let level = if manifest.len() + base.len() <= LEVEL_BYTES_MAX { level } else { 3 };
    let span = (manifest.len() + base.len()) as u64;
    let window_log = (u64::BITS - span.leading_zeros()).clamp(10, caps::ZSTD_WINDOW_LOG_MAX);
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(window_log),
        CParameter::EnableLongDistanceMatching(base.len() > 1 << 20),
        CParameter::ChecksumFlag(false),
        // With it the receiver knows how much room the manifest takes.
        CParameter::ContentSizeFlag(true),
    ] {
        context.set_parameter(parameter).map_err(whole::error)?;
    }
    context.ref_prefix(base).map_err(whole::error)?;
    let mut compressed = Vec::with_capacity(zstd_safe::compress_bound(manifest.len()));
    context.compress2(&mut compressed, manifest).map_err(whole::error)?;
    compressed.shrink_to_fit();
    Ok(compressed)
}

/// Restores canonical manifest bytes; stops at [`caps::MANIFEST_BYTES_MAX`]. The caller checks the digest.
pub fn decode_manifest(compressed: &[u8], base: &[u8]) -> io::Result<Vec<u8>> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidData, "manifest is longer than its limit");
    if let Ok(Some(len)) = zstd_safe::get_frame_content_size(compressed) {
        if len > caps::MANIFEST_BYTES_MAX {
            return Err(too_long());
        }
        // Zeros that the kernel gives without a write: what is never restored takes no memory.
        let mut bytes = vec![0; len as usize];
        let (restored, ended) = whole::restore(compressed, base, &mut bytes);
        let restored_len = restored.len();
        ended?;
        bytes.truncate(restored_len);
        return Ok(bytes);
    }
    // Frames of older versions do not say how long they are.
    let mut decoder = Decoder::with_ref_prefix(compressed, base)?;
    decoder.window_log_max(caps::ZSTD_WINDOW_LOG_MAX)?;
    let mut bytes = Vec::new();
    decoder.single_frame().take(caps::MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > caps::MANIFEST_BYTES_MAX { Err(too_long()) } else { Ok(bytes) }
}
