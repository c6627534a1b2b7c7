//! Inflates raw deflate streams, piece by piece, in bounded memory.

use std::io::{self, BufRead};

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush, MZStatus};

/// Plain bytes made at once.
const PIECE_BYTES: usize = 32 * 1024;

/// An inflater that is used for many streams: its tables are large, and most members are small.
pub(super) struct Inflater {
    state: Box<InflateState>,
    piece: Vec<u8>,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self { state: InflateState::new_boxed(DataFormat::Raw), piece: vec![0; PIECE_BYTES] }
    }

    /// Inflates one stream from where `input` stands and leaves it right behind the stream's last byte. `each` gets the plain
    /// bytes; an error of it ends the stream.
    pub(super) fn stream(
        &mut self,
        input: &mut impl BufRead,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.state.reset(DataFormat::Raw);
        loop {
            let available = input.fill_buf()?;
            let at_end = available.is_empty();
            let result = inflate(&mut self.state, available, &mut self.piece, MZFlush::None);
            input.consume(result.bytes_consumed);
            each(&self.piece[..result.bytes_written])?;
            match result.status {
                Ok(MZStatus::StreamEnd) => return Ok(()),
                Ok(_) if result.bytes_consumed + result.bytes_written > 0 => {}
                Ok(_) | Err(_) => {
                    let reason = if at_end { "a deflate stream ends early" } else { "no deflate stream" };
                    return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::deflate::{METHODS, deflated};
    use super::*;

    fn inflated(mut input: &[u8]) -> io::Result<(Vec<u8>, usize)> {
        let mut plain = Vec::new();
        Inflater::new().stream(&mut input, |piece| {
            plain.extend_from_slice(piece);
            Ok(())
        })?;
        Ok((plain, input.len()))
    }

    #[test]
    fn a_stream_is_inflated_and_what_follows_is_left() {
        let plain = b"sluice ".repeat(20_000);
        for method in METHODS {
            let stream = [&deflated(&plain, method), &b"behind"[..]].concat();
            assert_eq!(inflated(&stream).unwrap(), (plain.clone(), 6));
        }
    }

    #[test]
    fn a_cut_or_foreign_stream_is_an_error() {
        let stream = deflated(&b"sluice ".repeat(20_000), METHODS[0]);
        for len in 0..stream.len() {
            assert!(inflated(&stream[..len]).is_err(), "cut after {len} bytes");
        }
        assert!(inflated(&[0xff; 100]).is_err());
    }
}
