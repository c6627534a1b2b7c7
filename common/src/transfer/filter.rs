//! Makes programs for x86-64 compress better: calls and jumps come to name where they go instead of how far away that is, so that
//! two calls of one function are alike. The filter is the one of xz, as `lzma-rust2` has it; text hardly changes under it.
//!
//! Each piece of a content is filtered by itself, from its offset on: pieces of one program agree on the names, whichever frame they
//! are in, and what a frame leans on is filtered by the receiver as the encoder did it.

use std::io::{self, Read};

use lzma_rust2::filter::bcj::{BcjReader, BcjWriter};

use super::Extent;

/// Of what a fast compression leaves, the share that filtering must take off to be worth its time at the receiver, in thousandths.
const GAIN_PER_MILLE: usize = 3;
/// Level of the fast compression: what it gains of filtering, the best level gains too (within a tenth, on ruff, swc and libvips).
const TRIAL_LEVEL: i32 = 3;

/// Appends a piece of a content, as it is read, to `out`, filtered.
pub(super) fn append(extent: &Extent, mut piece: impl Read, out: &mut Vec<u8>) -> io::Result<()> {
    let mut writer = BcjWriter::new_x86(out, extent.offset as usize);
    io::copy(&mut piece, &mut writer)?;
    writer.finish().map(drop)
}

/// Returns the filtered bytes of pieces that lie end to end in `raw`, where they compress better.
pub(super) fn if_better(extents: &[Extent], mut raw: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let whole = raw;
    let mut filtered = Vec::with_capacity(raw.len());
    for extent in extents {
        let piece = raw.split_off(..extent.len as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
        append(extent, piece, &mut filtered)?;
    }
    let compressed =
        |bytes: &[u8]| zstd::bulk::compress(bytes, TRIAL_LEVEL).map(|compressed| compressed.len());
    let (plain, small) = (compressed(whole)?, compressed(&filtered)?);
    Ok((small + plain / 1000 * GAIN_PER_MILLE < plain).then_some(filtered))
}

/// Takes the filter off pieces that lie end to end in `filtered`, of which the end may be missing, and hands them on in order.
pub(super) fn take_off<E>(
    extents: impl Iterator<Item = Extent>,
    mut filtered: &[u8],
    buffer_bytes: usize,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0; buffer_bytes];
    for extent in extents {
        let len = filtered.len().min(extent.len as usize);
        let (piece, rest) = filtered.split_at(len);
        filtered = rest;
        let mut reader = BcjReader::new_x86(piece, extent.offset as usize);
        loop {
            match reader.read(&mut buffer).expect("reading from memory does not fail") {
                0 => break,
                len => take(&buffer[..len])?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extent(offset: u64, len: usize) -> Extent {
        Extent { content: 0, offset, len: len as u64 }
    }

    fn filtered(extents: &[Extent], mut raw: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for extent in extents {
            append(extent, raw.split_off(..extent.len as usize).unwrap(), &mut out).unwrap();
        }
        out
    }

    fn plain(extents: &[Extent], filtered: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let take = |bytes: &[u8]| -> Result<(), ()> {
            out.extend_from_slice(bytes);
            Ok(())
        };
        take_off(extents.iter().copied(), filtered, 7, take).unwrap();
        out
    }

    /// Calls of eight functions from everywhere, with a few bytes of something else between them.
    fn program(calls: u32) -> Vec<u8> {
        let mut code = Vec::new();
        for number in 0..calls {
            let function = number.wrapping_mul(2_654_435_761) >> 29;
            code.push(0xe8);
            code.extend((function * 4096).wrapping_sub(code.len() as u32 + 4).to_le_bytes());
            code.extend(&number.wrapping_mul(40_503).to_le_bytes()[..3]);
        }
        code
    }

    #[test]
    fn a_call_names_where_it_goes_and_this_never_changes() {
        let code = [&[0x90; 3], &[0xe8, 0x10, 0, 0, 0][..], &[0x90; 8]].concat();
        for (offset, target) in [(0, 0x18_u32), (0x1000, 0x1018), (0x00ff_fff0, 0xff00_0008)] {
            let expected = [&[0x90; 3], &[0xe8][..], &target.to_le_bytes(), &[0x90; 8]].concat();
            assert_eq!(filtered(&[extent(offset, code.len())], &code), expected, "{offset:x}");
        }
    }

    #[test]
    fn programs_are_filtered_and_what_gains_nothing_is_not() {
        let program = program(4_000);
        let pieces = [extent(0, 1_000), extent(1_000, program.len() - 1_000)];
        let better = if_better(&pieces, &program).unwrap().unwrap();
        assert_eq!((better.len(), plain(&pieces, &better)), (program.len(), program));
        let text = b"call me at eight, or jump ".repeat(100);
        assert_eq!(if_better(&[extent(0, text.len())], &text).unwrap(), None);
        assert_eq!(if_better(&[], &[]).unwrap(), None);
    }

    #[test]
    fn of_what_ends_early_as_much_comes_as_is_there() {
        let program = program(20);
        let pieces = [extent(0, 100), extent(100, 60)];
        let whole = filtered(&pieces, &program);
        for len in 0..whole.len() {
            assert_eq!(plain(&pieces, &whole[..len]).len(), len);
        }
    }

    proptest! {
        #[test]
        fn what_was_filtered_comes_back(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0xe8_u8..=0xe9, Just(0_u8), Just(0xff_u8)], 0..400),
            cut in any::<prop::sample::Index>(),
            offset in 0_u64..1 << 40,
        ) {
            let first = cut.index(bytes.len() + 1);
            let pieces = [extent(offset, first), extent(offset / 3, bytes.len() - first)];
            prop_assert_eq!(plain(&pieces, &filtered(&pieces, &bytes)), bytes);
        }
    }
}
