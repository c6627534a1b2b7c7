//! Restores a zstd frame whole, in memory, before anything of it is handed on: each byte is written once, where a window
//! that is copied from would have it written twice.

use std::io::{self, BufRead};

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use crate::caps;
use crate::transfer::memory;

/// Restores up to `len` bytes that lean on `prefix`. Returns what could be restored, and what ended it before the frame's end.
pub(in crate::transfer) fn restore(
    compressed: impl BufRead,
    prefix: &[u8],
    len: usize,
) -> (Vec<u8>, io::Result<()>) {
    let mut restored = memory::buffer(len);
    let ended = decompress(compressed, prefix, &mut restored);
    (restored, ended)
}

fn decompress(mut compressed: impl BufRead, prefix: &[u8], restored: &mut Vec<u8>) -> io::Result<()> {
    let mut context = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
    context.ref_prefix(prefix).map_err(error)?;
    for parameter in [DParameter::WindowLogMax(caps::ZSTD_WINDOW_LOG_MAX), DParameter::StableOutBuffer(true)]
    {
        context.set_parameter(parameter).map_err(error)?;
    }
    let mut out = OutBuffer::around(restored);
    loop {
        let available = compressed.fill_buf()?;
        if available.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the frame ends too early"));
        }
        let mut input = InBuffer::around(available);
        let left = context.decompress_stream(&mut out, &mut input).map_err(error)?;
        let taken = input.pos();
        compressed.consume(taken);
        if left == 0 {
            return Ok(());
        }
    }
}

/// Says what zstd says.
pub(in crate::transfer) fn error(code: usize) -> io::Error {
    io::Error::other(zstd::zstd_safe::get_error_name(code))
}
