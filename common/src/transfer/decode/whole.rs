//! Restores a zstd frame whole, in memory, before anything of it is handed on: each byte is written once, where a window
//! that is copied from would have it written twice.

use std::io::{self, BufRead};

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use crate::caps;

/// Restores what leans on `prefix` into `room`, and no more. Returns what could be restored, and what ended it before the
/// frame's end.
pub(in crate::transfer) fn restore<'a>(
    compressed: impl BufRead,
    prefix: &[u8],
    room: &'a mut [u8],
) -> (&'a [u8], io::Result<()>) {
    let mut out = OutBuffer::around(room);
    let ended = decompress(compressed, prefix, &mut out);
    let len = out.pos();
    (&room[..len], ended)
}

fn decompress(mut compressed: impl BufRead, prefix: &[u8], out: &mut OutBuffer<'_, [u8]>) -> io::Result<()> {
    let mut context = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
    context.ref_prefix(prefix).map_err(error)?;
    for parameter in [DParameter::WindowLogMax(caps::ZSTD_WINDOW_LOG_MAX), DParameter::StableOutBuffer(true)]
    {
        context.set_parameter(parameter).map_err(error)?;
    }
    loop {
        let available = compressed.fill_buf()?;
        if available.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the frame ends too early"));
        }
        let mut input = InBuffer::around(available);
        let left = context.decompress_stream(out, &mut input).map_err(error)?;
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
