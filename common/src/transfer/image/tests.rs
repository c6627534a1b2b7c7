mod executable;

use std::ops::Range;

use proptest::prelude::*;

use super::files::Machine;
use super::references::{self, Kind};
use super::*;
use executable::executable;

fn restore(base: Bytes<'_>, encoded: &[u8], len: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let base = Base { source: &base.bytes, len: base.bytes.len(), files: base.files };
    Decoder::new(base, encoded, Shape { len, files: &[File::unread(0..len, 0)] })?.read_to_end(&mut out)?;
    Ok(out)
}

/// An image of one file.
fn file(bytes: &[u8]) -> [File; 1] {
    [File::whole(bytes, 0..bytes.len())]
}

fn round_trip(base: &[u8], target: &[u8]) -> Vec<u8> {
    let (base_files, files) = (file(base), file(target));
    let base = Bytes { bytes: base, files: &base_files };
    let encoded = encode(base, Bytes { bytes: target, files: &files }).unwrap();
    assert_eq!(restore(base, &encoded, target.len()).unwrap(), target);
    encoded
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    })
    .take(len)
    .collect()
}

#[test]
fn what_moved_or_changed_a_little_costs_little() {
    let old = noise(1, 300_000);
    let mut new = [&old[200_000..], &noise(2, 100), &old[..200_000]].concat();
    (0..new.len()).step_by(997).for_each(|at| new[at] ^= 0x55);
    let encoded = round_trip(&old, &new);
    assert!(encoded.len() < 2_500, "{} bytes", encoded.len());
}

#[test]
fn long_runs_are_matched_without_being_searched_at_each_byte() {
    const LEN: usize = 4 << 20;
    let one_at = |place: usize| {
        let mut bytes = vec![0; LEN];
        bytes[place] = 1;
        bytes
    };
    for (old, new) in [(LEN / 4, LEN / 2), (LEN / 2, LEN / 4), (0, LEN - 1), (LEN - 1, 0)] {
        let encoded = round_trip(&one_at(old), &one_at(new));
        assert!(encoded.len() < 200, "{old} to {new}: {} bytes", encoded.len());
    }
}

#[test]
fn an_executable_with_more_references_than_there_may_be_has_none() {
    for machine in [Machine::X86_64, Machine::Aarch64] {
        for (calls, is_over) in [(1_000, false), (caps::IMAGE_REFERENCES_MAX + 100_000, true)] {
            let program = executable::calls(machine, calls);
            let files = file(&program);
            let base = Base { source: &&program[..], len: program.len(), files: &files };
            let found = references::Image::of(base).unwrap().references().len();
            assert_eq!(found, if is_over { 0 } else { calls }, "{machine:?}");
        }
    }
}

/// Base and target of the golden bytes: something moved, something changed, something new.
fn golden_pair() -> (Vec<u8>, Vec<u8>) {
    let old: Vec<u8> = noise(9, 4_000);
    let mut new = [&old[2_500..], b"what no base has, no base has, no base has", &old[..2_400]].concat();
    (100..new.len()).step_by(301).for_each(|at| new[at] ^= 0x11);
    (old, new)
}

#[test]
fn bytes_of_old_are_restored_for_ever() {
    let (old, new) = golden_pair();
    let encoded = hex::decode(include_str!("golden.hex").trim()).unwrap();
    let base = Bytes { bytes: &old, files: &[] };
    assert_eq!(restore(base, &encoded, new.len()).unwrap(), new);
    let is_restored = |target: &[u8]| restores(base, &encoded, Bytes { bytes: target, files: &file(target) });
    assert!(is_restored(&new));
    assert!(!is_restored(&new[1..]) && !is_restored(&old));
}

/// Pins how references are found, predicted and learned: when this fails, frames in the field no longer restore.
#[test]
fn executables_of_old_are_restored_for_ever() {
    for (machine, golden) in [
        (Machine::X86_64, include_str!("golden-executable.hex")),
        (Machine::Aarch64, include_str!("golden-executable-aarch64.hex")),
    ] {
        let (old, new) = (executable(machine, false), executable(machine, true));
        let encoded = hex::decode(golden.trim()).unwrap();
        let base = Bytes { bytes: &old, files: &file(&old) };
        assert!(restore(base, &encoded, new.len()).unwrap() == new, "{machine:?}");
        // The constants of the function that was written anew do not compress: little else is left.
        assert!(encoded.len() < 200, "{machine:?}: {} bytes", encoded.len());
        assert!(restore(Bytes { bytes: &old, files: &[] }, &encoded, new.len()).unwrap() != new);
    }
}

#[test]
fn an_executable_refers_by_instructions_tables_and_pointers() {
    type IsKind = fn(&Kind) -> bool;
    let kinds: [(&str, IsKind); 6] = [
        ("relative", |kind| matches!(kind, Kind::Relative)),
        ("table", |kind| matches!(kind, Kind::Table { .. })),
        ("absolute", |kind| matches!(kind, Kind::Absolute)),
        ("words", |kind| matches!(kind, Kind::Words(_))),
        ("page", |kind| matches!(kind, Kind::Page { .. })),
        ("low", |kind| matches!(kind, Kind::Low { .. })),
    ];
    for (machine, expected) in
        [(Machine::X86_64, [360, 40, 60, 0, 0, 0]), (Machine::Aarch64, [0, 40, 60, 480, 240, 240])]
    {
        let bytes = executable(machine, true);
        let image = Bytes { bytes: &bytes, files: &file(&bytes) }.read(Image::of).unwrap();
        for ((name, is_wanted), expected) in kinds.iter().zip(expected) {
            let count = image.references().iter().filter(|reference| is_wanted(&reference.kind())).count();
            assert_eq!(count, expected, "{machine:?}, {name}");
        }
    }
}

#[test]
fn of_too_many_blocks_the_longest_stay() {
    let blocks: Vec<Block> = [5, 9, 1, 7, 7].map(|len| Block { old: 0, new: 0, len }).to_vec();
    for (max, expected) in [(9, vec![5, 9, 1, 7, 7]), (4, vec![5, 9, 7, 7]), (3, vec![9, 7, 7]), (2, vec![9])]
    {
        let kept: Vec<usize> = longest(blocks.clone(), max).iter().map(|block| block.len).collect();
        assert_eq!(kept, expected, "{max}");
    }
}

#[test]
fn what_is_restored_does_not_depend_on_how_it_is_read() {
    let (old, new) = (executable(Machine::X86_64, false), executable(Machine::X86_64, true));
    let encoded = round_trip(&old, &new);
    let files = file(&old);
    let target = [File::unread(0..new.len(), 0)];
    for step in [1, 7, PIECE_BYTES - 1, PIECE_BYTES, 100_000] {
        let base = Base { source: &&old[..], len: old.len(), files: &files };
        let mut decoder = Decoder::new(base, &encoded, Shape { len: new.len(), files: &target }).unwrap();
        let (mut out, mut piece) = (Vec::new(), vec![0; step]);
        loop {
            let n = decoder.read(&mut piece).unwrap();
            if n == 0 {
                break;
            }
            out.extend_from_slice(&piece[..n]);
        }
        assert!(out == new, "read {step} at once");
    }
}

#[test]
fn addresses_count_from_the_beginning_of_their_file() {
    let pair = |text_len: usize, is_next: bool| {
        let bytes = [&noise(12, 700)[..text_len], &executable(Machine::X86_64, is_next)].concat();
        let files = [0..text_len, text_len..bytes.len()].map(|place| File::whole(&bytes, place));
        (bytes, files)
    };
    let encoded_len = |text_len: usize| {
        let ((old, old_files), (new, new_files)) = (pair(600, false), pair(text_len, true));
        let (base, target) =
            (Bytes { bytes: &old, files: &old_files }, Bytes { bytes: &new, files: &new_files });
        let encoded = encode(base, target).unwrap();
        assert!(restores(base, &encoded, target));
        encoded.len()
    };
    let (same, shorter) = (encoded_len(600), encoded_len(590));
    assert!(shorter <= same + 8, "{shorter} bytes where the file before is shorter, {same} where not");
}

/// Two runs of one file cut as a large file is, with the references of all of it.
#[test]
fn a_segment_of_an_executable_is_predicted_as_the_whole_is() {
    let (old, new) = (executable(Machine::X86_64, false), executable(Machine::X86_64, true));
    let whole = round_trip(&old, &new);
    let segment = |bytes: &[u8], cut: Range<usize>| {
        let read = |offset: u64, out: &mut [u8]| (&bytes).read_at(offset as usize, out);
        File::read(0..cut.len(), cut.start as u64, bytes.len() as u64, read).unwrap()
    };
    let mut encoded_len = 0;
    let half = new.len() / 2;
    for cut in [0..half, half..new.len()] {
        let leaned = cut.start.saturating_sub(500)..old.len().min(cut.end + 500);
        let base = Bytes { bytes: &old[leaned.clone()], files: &[segment(&old, leaned)] };
        let target = Bytes { bytes: &new[cut.clone()], files: &[segment(&new, cut.clone())] };
        let encoded = encode(base, target).unwrap();
        assert!(restores(base, &encoded, target), "{cut:?}");
        encoded_len += encoded.len();
    }
    assert!(encoded_len < whole.len() + 300, "{encoded_len} bytes in two, {} whole", whole.len());
}

/// What a receiver holds when every limit is met at once: the agent itself, the frame as it came, and the decoder.
#[test]
fn a_receiver_of_the_largest_image_stays_within_its_memory() {
    let total = caps::AGENT_BYTES + caps::FRAME_WIRE_BYTES_MAX + decoder_bytes_max();
    assert!(total <= caps::RECEIVER_AWARE_BYTES_MAX, "{total} bytes");
}

/// Returns what a decoder holds at most: references, blocks and the map of them with what sorts it, three streams,
/// pages, corrections, and a MiB of buffers.
pub(in crate::transfer) fn decoder_bytes_max() -> u64 {
    let references = caps::IMAGE_REFERENCES_MAX * size_of::<references::Reference>();
    let blocks = caps::IMAGE_BLOCKS_MAX * (size_of::<Block>() + BlockMap::BYTES_PER_BLOCK);
    let streams = 3 * caps::IMAGE_DICTIONARY_BYTES_MAX as usize;
    let parts = [references, blocks, streams, Pages::BYTES_MAX, Predictor::CORRECTIONS_BYTES, 1 << 20];
    parts.iter().sum::<usize>() as u64
}

#[test]
fn empty_and_unrelated_images_are_restored() {
    for (old, new) in [(0, 0), (0, 1_000), (1_000, 0), (1, 1), (70_000, 70_001)] {
        round_trip(&noise(3, old), &noise(4, new));
    }
}

/// An executable of this machine, and the same as a linker would have made it with 4 KiB more in the middle.
fn relinked() -> (Vec<u8>, Vec<u8>) {
    const MORE: usize = 4_096;
    let old = fs_err::read("/bin/sh").unwrap();
    let image = Bytes { bytes: &old, files: &file(&old) }.read(Image::of).unwrap();
    let cut = old.len() / 2;
    let moved = |place: i32| if place as usize >= cut { MORE as i64 } else { 0 };
    let mut new = [&old[..cut], &noise(5, MORE), &old[cut..]].concat();
    for reference in image.references().iter().filter(|r| r.end() <= cut || r.at() >= cut) {
        let Some(target) = reference.target() else { continue };
        let shift = match reference.kind() {
            Kind::Absolute => moved(target),
            Kind::Relative => moved(target) - moved(reference.at() as i32),
            Kind::Table { base } => moved(target) - moved(base),
            Kind::Words(_) | Kind::Page { .. } | Kind::Low { .. } => unreachable!("of another machine"),
        };
        let at = reference.at() + moved(reference.at() as i32) as usize;
        let field = &mut new[at..at + reference.end() - reference.at()];
        let mut value = [0; 8];
        value[..field.len()].copy_from_slice(field);
        let sum = u64::from_le_bytes(value).wrapping_add_signed(shift).to_le_bytes();
        field.copy_from_slice(&sum[..field.len()]);
    }
    (old, new)
}

#[cfg(target_arch = "x86_64")]
#[test]
fn references_that_moved_with_their_targets_cost_nothing() {
    let (old, new) = relinked();
    let (old_files, new_files) = (file(&old), file(&new));
    let target = Bytes { bytes: &new, files: &new_files };
    let aware = Bytes { bytes: &old, files: &old_files };
    let encoded = encode(aware, target).unwrap();
    assert_eq!(restore(aware, &encoded, new.len()).unwrap(), new);
    let blind = encode(Bytes { bytes: &old, files: &[] }, target).unwrap();
    // The 4 KiB that are new do not compress; next to nothing else is left.
    assert!(encoded.len() < 4_096 + 400, "{} bytes", encoded.len());
    assert!(blind.len() > encoded.len() + 1_000, "{} bytes without references", blind.len());
}

#[test]
fn references_are_sorted_and_do_not_overlap() {
    let bytes = fs_err::read("/bin/sh").unwrap();
    let image = Bytes { bytes: &bytes, files: &file(&bytes) }.read(Image::of).unwrap();
    assert!(image.references().windows(2).all(|pair| pair[0].end() <= pair[1].at()));
}

#[test]
fn any_flip_is_an_error_or_other_bytes_of_the_same_length_at_most() {
    let old = noise(6, 5_000);
    let mut new = old.clone();
    new.splice(1_000..1_010, noise(7, 300));
    let encoded = round_trip(&old, &new);
    let base = Bytes { bytes: &old, files: &[] };
    for at in 0..encoded.len() {
        for bit in 0..8 {
            let mut damaged = encoded.clone();
            damaged[at] ^= 1 << bit;
            if let Ok(restored) = restore(base, &damaged, new.len()) {
                assert!(restored.len() <= new.len());
            }
        }
        assert!(restore(base, &encoded[..at], new.len()).map(|restored| restored != new).unwrap_or(true));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn edited_bytes_are_restored(
        old in proptest::collection::vec(0_u8..4, 0..3_000),
        edits in proptest::collection::vec((0_usize..3_000, 0_usize..50, proptest::collection::vec(any::<u8>(), 0..50)), 0..8),
    ) {
        let mut new = old.clone();
        for (at, removed, inserted) in edits {
            let at = at.min(new.len());
            let end = (at + removed).min(new.len());
            new.splice(at..end, inserted);
        }
        round_trip(&old, &new);
    }

    #[test]
    fn any_bytes_decode_to_an_error_or_within_bounds(encoded in proptest::collection::vec(any::<u8>(), 0..200), len in 0_usize..10_000) {
        let old = noise(8, 1_000);
        if let Ok(restored) = restore(Bytes { bytes: &old, files: &[] }, &encoded, len) {
            prop_assert!(restored.len() <= len);
        }
    }

    #[test]
    fn instructions_of_any_kind_are_searched_and_restored(
        edits in proptest::collection::vec((0_usize..9_000, any::<u8>()), 1..60),
    ) {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            let (old, mut new) = (executable(machine, false), executable(machine, true));
            for (at, byte) in &edits {
                let at = at % new.len();
                new[at] = *byte;
            }
            round_trip(&old, &new);
            round_trip(&new, &old);
        }
    }

    #[test]
    fn hostile_executables_have_references_or_none(edits in proptest::collection::vec((0_usize..4_096, any::<u8>()), 1..20)) {
        let mut bytes = fs_err::read("/bin/sh").unwrap();
        for (at, byte) in edits {
            // The headers stand at both ends.
            let at = if at % 2 == 0 { at / 2 } else { bytes.len() - 1 - at / 2 };
            bytes[at] = byte;
        }
        let image = Bytes { bytes: &bytes, files: &file(&bytes) }.read(Image::of).unwrap();
        prop_assert!(image.references().iter().all(|reference| reference.end() <= bytes.len()));
    }
}
