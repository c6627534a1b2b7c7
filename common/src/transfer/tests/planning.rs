//! Which frames a plan has.

use super::encode::Side;
use super::*;

#[test]
fn quick_cold_frames_are_small_and_cut_no_file_that_fits() {
    const MIB: u64 = 1 << 20;
    let sizes = [1, 3, 1, 1, 1, 10, 6, 20, 1];
    let content =
        |(number, size): (usize, &u64)| Content { digest: Digest::of(&[number as u8]), size: size * MIB };
    let package = holding(&sizes.iter().enumerate().map(content).collect::<Vec<_>>());
    let frames = |effort| -> Vec<Vec<u64>> {
        let parts = |spec: &FrameSpec| spec.parts.iter().map(|part| part.len / MIB).collect();
        plan(None, &package, effort).iter().map(parts).collect()
    };
    // Of 8 MiB less a little, where a file is cut; its frames are apart.
    let quick: [&[u64]; 6] = [&[6, 1], &[1, 3, 1, 1, 1], &[7], &[7], &[10], &[2, 1]];
    assert_eq!(frames(Effort::Quick), quick);
    let best: [&[u64]; 4] = [&[1, 3, 1, 1, 1], &[10, 6], &[16], &[4, 1]];
    assert_eq!(frames(Effort::Best), best);
}

#[test]
fn small_changed_files_share_a_frame_and_large_ones_do_not() {
    const MIB: u64 = 1 << 20;
    let sizes = [1, 3, 3, 1, 10, 6, 17];
    let package = |version: u8| {
        let content = |(number, size): (usize, &u64)| Content {
            digest: Digest::of(&[version, number as u8]),
            size: size * MIB,
        };
        holding(&sizes.iter().enumerate().map(content).collect::<Vec<_>>())
    };
    let (old, new) = (package(1), package(2));
    let frames = |effort| -> Vec<Vec<u64>> {
        let parts = |spec: &FrameSpec| {
            assert!(spec.base_len() >= spec.raw_len(), "{effort:?}: each leans on what it was");
            spec.parts.iter().map(|part| part.len / MIB).collect()
        };
        plan(Some(&old), &new, effort).iter().map(parts).collect()
    };
    // What does not fit beside small files comes before those that it was found among, and the file that is cut lies apart.
    let quick: [&[u64]; 6] = [&[1, 3, 3], &[8], &[1], &[10], &[8], &[6]];
    assert_eq!(frames(Effort::Quick), quick);
    let best: [&[u64]; 3] = [&[1, 3, 3, 1], &[17], &[10, 6]];
    assert_eq!(frames(Effort::Best), best);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_plan_holds_each_wanted_content_once_within_the_limits(
        old in proptest::collection::btree_map("[a-c]{1,2}\\.(so|jar)", 0_u64..200, 0..8),
        new in proptest::collection::btree_map("[a-c]{1,2}\\.(so|jar)", 0_u64..200, 0..8),
    ) {
        let manifest = |files: &std::collections::BTreeMap<String, u64>| {
            let entry = |(path, size): (&String, &u64)| {
                let digest = Digest::of(&size.to_le_bytes());
                (path.clone(), FileEntry { executable: false, size: size * 700_001, digest })
            };
            manifest(&files.iter().map(entry).collect::<Vec<_>>())
        };
        let (old, new) = (manifest(&old), manifest(&new));
        for effort in [Effort::Quick, Effort::Best] {
            let frames = plan(Some(&old), &new, effort);
            let codec = match effort {
                Effort::Quick => Codec::Zstd,
                Effort::Best => Codec::Image,
            };
            let mut parts: Vec<Extent> = Vec::new();
            for frame in &frames {
                prop_assert!(codec.fits(frame.raw_len(), frame.base_len()));
                prop_assert!(frame.needs_base() || Codec::Zstd.fits(frame.raw_len(), frame.base_len()));
                parts.extend(&frame.parts);
            }
            parts.sort_by_key(|part| (part.content, part.offset));
            let mut expected = Vec::new();
            for (number, content) in new.contents().iter().enumerate() {
                if content.size > 0 && old.content_number(&content.digest).is_none() {
                    expected.push((number as u32, content.size));
                }
            }
            for (number, size) in expected {
                let mut at = 0;
                while at < size {
                    prop_assert!(!parts.is_empty());
                    let part = parts.remove(0);
                    prop_assert_eq!((part.content, part.offset), (number, at));
                    at += part.len;
                }
                prop_assert_eq!(at, size);
            }
            prop_assert!(parts.is_empty());
        }
    }
}

#[test]
fn a_plan_of_tiny_files_leans_on_no_more_than_its_reader_has_memory_for() {
    let files: Vec<(String, Vec<u8>)> =
        (0..600).map(|i| (format!("f{i:03}"), format!("{i:025}").into_bytes())).collect();
    let named: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
    let (_dir, tree) = tree(&named);
    let whole = |number: u32| Extent { content: number, offset: 0, len: 25 };
    let spec = |first: u32| FrameSpec { base: Vec::new(), parts: (first..first + 100).map(whole).collect() };
    let specs: Vec<FrameSpec> = (0..600).step_by(100).map(spec).collect();
    let taken = specs.len() * size_of::<Frame>() + 600 * size_of::<Part>();
    let side = Side::new(tree.manifest().contents(), &tree);
    for (leans, expected) in [(3_000, 1_500), (900, 700), (60, 50), (0, 0)] {
        let leaning = likeness::lean_within(taken + leans * size_of::<Lean>(), &specs, &side).unwrap();
        let used: usize = leaning.iter().map(|spec| spec.base.len()).sum();
        assert_eq!(used, expected, "room for {leans}");
        assert!(leaning.iter().zip(&specs).all(|(leaning, spec)| leaning.parts == spec.parts));
    }
    assert_eq!(likeness::lean_within(0, &specs, &side).unwrap(), specs);
}
