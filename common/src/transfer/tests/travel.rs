//! Contents that are encoded, travel and are restored.

use super::*;

#[test]
fn a_cold_install_restores_every_content() {
    let (_dir, target) = tree(&[
        ("a/one", noise(1, 70_000)),
        ("a/two", noise(1, 70_000)),
        ("big", noise(2, 18 << 20)),
        ("empty", vec![]),
    ]);
    let (memory, frames) = travel(None, &target, Effort::Quick);
    assert_restored(&memory, None, &target);
    assert_eq!(frames.len(), 3, "two full frames and the rest of the large file");
}

#[test]
fn with_time_a_cold_frame_leans_on_what_is_alike_in_the_frames_before_it() {
    let alike = noise(10, 1 << 20);
    let first = [alike.clone(), vec![0; 15 << 20]].concat();
    let second = [noise(11, 1_000), alike].concat();
    let (_dir, target) = tree(&[("one", first), ("two", second)]);
    let (memory, frames) = travel(None, &target, Effort::Best);
    assert_restored(&memory, None, &target);
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0].frame.base, []);
    assert!(frames[1].frame.base.iter().all(|lean| lean.of_produced().is_some()));
    assert!(frames[1].bytes.len() < 2_000, "{} bytes", frames[1].bytes.len());
}

#[test]
fn an_update_sends_only_what_changed_and_against_what_the_host_has() {
    let mut big = noise(3, 5 << 20);
    let (_old, old) =
        tree(&[("same", noise(4, 100_000)), ("lib-1.2/big", big.clone()), ("small", noise(5, 3_000))]);
    big.splice(1_000_000..1_000_000, noise(6, 500));
    let mut small = noise(5, 3_000);
    small[7] ^= 1;
    let (_new, new) = tree(&[("same", noise(4, 100_000)), ("lib-1.3/big", big), ("small", small)]);
    let (memory, frames) = travel(Some(&old), &new, Effort::Quick);
    assert_restored(&memory, Some(old.manifest()), &new);
    assert_eq!((frames.len(), memory.files.len()), (1, 2), "both changed files share a frame");
    assert!(frames[0].bytes.len() < 1_500, "{} bytes", frames[0].bytes.len());
}

#[test]
fn a_file_larger_than_a_frame_travels_in_segments() {
    let old_bytes = noise(7, 70 << 20);
    let mut new_bytes = old_bytes.clone();
    new_bytes[50 << 20] ^= 1;
    let (_old, old) = tree(&[("huge", old_bytes)]);
    let (_new, new) = tree(&[("huge", new_bytes)]);
    let (memory, frames) = travel(Some(&old), &new, Effort::Quick);
    assert_restored(&memory, Some(old.manifest()), &new);
    assert_eq!(frames.len(), 5);
    assert!(frames.iter().all(|f| f.frame.raw_len() <= caps::ZSTD_FRAME_BYTES_MAX && f.bytes.len() < 40_000));
}

#[test]
fn a_damaged_frame_or_base_is_never_accepted() {
    let (_old, old) = tree(&[("x", noise(8, 200_000))]);
    let mut bytes = noise(8, 200_000);
    bytes[100_000] ^= 1;
    let (_new, new) = tree(&[("x", bytes)]);
    let (_, frames) = travel(Some(&old), &new, Effort::Quick);
    let contents = old.manifest().contents();
    for at in 0..frames[0].bytes.len() {
        let mut damaged = frames[0].bytes.clone();
        damaged[at] ^= 0x10;
        let mut memory = Memory::default();
        let (base, produced) = ((contents, &old as _), (Contents::default(), &NoContent as _));
        let workspace = Workspace::new(std::env::temp_dir());
        if decode_frame(&frames[0].frame, &damaged[..], base, produced, &workspace, &mut memory).is_ok() {
            assert_eq!(
                memory.files[&0],
                fs_err::read(new.root().join("x")).unwrap(),
                "flip at {at} accepted"
            );
        }
    }
    fs_err::write(old.root().join("x"), noise(90, 200_000)).unwrap();
    let refused = decode_frame(
        &frames[0].frame,
        &frames[0].bytes[..],
        (contents, &old),
        (Contents::default(), &NoContent),
        &Workspace::new(std::env::temp_dir()),
        &mut Memory::default(),
    );
    assert!(matches!(refused, Err(DecodeFrameError::Damaged { .. })), "{refused:?}");
}

#[test]
fn a_frame_that_promises_less_than_it_holds_is_stopped_at_its_promise() {
    let (_dir, target) = tree(&[("zeros", vec![0; 1 << 20])]);
    let (_, frames) = travel(None, &target, Effort::Quick);
    let mut frame = frames[0].frame.clone();
    frame.parts[0].extent.len = 1_000;
    frame.parts[0].digest = Digest::of(&vec![0; 1_000]);
    let mut memory = Memory::default();
    let nothing = (Contents::default(), &NoContent as _);
    let workspace = Workspace::new(std::env::temp_dir());
    assert!(decode_frame(&frame, &frames[0].bytes[..], nothing, nothing, &workspace, &mut memory).is_err());
    assert!(memory.files.get(&0).is_none_or(|file| file.len() <= 1_000), "no byte more is stored");
}

#[test]
fn a_program_travels_filtered_and_later_pieces_lean_on_earlier_ones() {
    // Calls of eight functions from everywhere.
    let call = |number: u32| -> Vec<u8> {
        let target = (number.wrapping_mul(2_654_435_761) >> 29) * 4096;
        let displacement = target.wrapping_sub(number * 8 + 5).to_le_bytes();
        [&[0xe8], &displacement[..], &number.wrapping_mul(40_503).to_le_bytes()[..3]].concat()
    };
    let program: Vec<u8> = (0..20_000).flat_map(call).collect();
    let (_dir, new) = tree(&[("program", program.clone())]);
    let contents = new.manifest().contents();
    let extent = |offset, len| Extent { content: 0, offset, len };
    let (half, rest) = (extent(0, 80_000), extent(80_000, 80_000));
    let specs = [
        FrameSpec { base: Vec::new(), parts: vec![half] },
        FrameSpec { base: vec![Lean::Produced(half)], parts: vec![rest] },
    ];
    let none = (Contents::default(), &NoContent as &dyn ContentSource);
    let mut memory = Memory::default();
    for (spec, effort, codec) in [
        (&specs[0], Effort::Quick, Codec::Zstd),
        (&specs[0], Effort::Best, Codec::Filtered),
        (&specs[1], Effort::Best, Codec::Filtered),
    ] {
        let EncodedFrame { frame, bytes } = encode_frame(spec, none, (contents, &new), effort).unwrap();
        assert_eq!(frame.codec, codec);
        let produced = Restored { contents, files: memory.files.clone() };
        let workspace = Workspace::new(std::env::temp_dir());
        decode_frame(&frame, &bytes[..], none, (contents, &produced), &workspace, &mut memory).unwrap();
        for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            let short =
                decode_frame(&frame, &bytes[..len], none, (contents, &produced), &workspace, &mut memory);
            assert!(matches!(short, Err(DecodeFrameError::Damaged { .. })), "{len}: {short:?}");
        }
    }
    assert_eq!(memory.files[&0], program);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_two_trees_travel(
        old in proptest::collection::btree_map("[a-c]{1,2}", 0_usize..60_000, 0..6),
        new in proptest::collection::btree_map("[a-c]{1,2}", 0_usize..60_000, 0..6),
    ) {
        let make = |files: &std::collections::BTreeMap<String, usize>| {
            let files: Vec<(&str, Vec<u8>)> =
                files.iter().map(|(path, len)| (path.as_str(), noise(*len as u64 / 1_000, *len))).collect();
            tree(&files)
        };
        let ((_a, old), (_b, new)) = (make(&old), make(&new));
        let (memory, _) = travel(Some(&old), &new, Effort::Quick);
        assert_restored(&memory, Some(old.manifest()), &new);
    }
}
