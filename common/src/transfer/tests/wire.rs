//! Plans and manifests as they travel.

use super::*;

#[test]
fn a_plan_whose_extents_do_not_lie_inside_their_contents_is_refused() {
    let package = holding(&[Content { digest: Digest::of(b"x"), size: 1_000 }]);
    let contents = package.contents();
    let plan = |offset, len| {
        let extent = Extent { content: 0, offset, len };
        let part = Part { extent, digest: Digest::of(b"part") };
        let (digest, codec) = (Digest::of(b"frame"), Codec::Zstd);
        let frame = Frame { digest, wire_len: 10, codec, base: vec![Lean::Base(extent)], parts: vec![part] };
        let plan = TransferPlan { base: None, target: digest, frames: vec![frame] };
        TransferPlan::decode(&plan.encode(contents, contents).unwrap(), contents, contents)
    };
    assert!(plan(10, 990).is_ok());
    for (offset, len) in
        [(10, 991), (1_001, 1), (0, 1_001), (10, 0), (caps::PACKAGE_BYTES_MAX, caps::PACKAGE_BYTES_MAX)]
    {
        assert!(plan(offset, len).is_err(), "{offset} {len}");
    }
}

#[test]
fn a_frame_leans_on_earlier_frames_only() {
    let package = holding(&[
        Content { digest: Digest::of(b"x"), size: 1_000 },
        Content { digest: Digest::of(b"y"), size: 1_000 },
    ]);
    let contents = package.contents();
    let extent = |content, offset, len| Extent { content, offset, len };
    let frame = |base: Vec<Extent>, part: Extent| Frame {
        digest: Digest::of(b"frame"),
        wire_len: 10,
        codec: Codec::Zstd,
        base: base.into_iter().map(Lean::Produced).collect(),
        parts: vec![Part { extent: part, digest: contents.at(part.content).digest }],
    };
    let round = |frames: Vec<Frame>| {
        let nothing = Contents::default();
        let plan = TransferPlan { base: None, target: Digest::of(b"target"), frames };
        let decoded = TransferPlan::decode(&plan.encode(nothing, contents).unwrap(), nothing, contents);
        decoded.map(|decoded| assert_eq!(decoded, plan))
    };
    let (x, y) = (extent(0, 0, 1_000), extent(1, 0, 1_000));
    let half = Part { extent: extent(0, 0, 500), digest: Digest::of(b"half") };
    let halved = |leans: Vec<Extent>| {
        let first = Frame { parts: vec![half], ..frame(vec![], x) };
        round(vec![first, frame(leans, y)])
    };
    assert!(round(vec![frame(vec![], x), frame(vec![x, extent(0, 10, 990)], y)]).is_ok());
    assert!(halved(vec![extent(0, 100, 400), extent(0, 0, 500)]).is_ok());
    for (name, refused) in [
        ("a later frame", round(vec![frame(vec![y], x), frame(vec![], y)])),
        ("the frame itself", round(vec![frame(vec![x], x)])),
        ("more than a part", halved(vec![extent(0, 100, 401)])),
        ("beyond a part", halved(vec![extent(0, 500, 1)])),
        ("another content", halved(vec![extent(1, 0, 1)])),
    ] {
        assert!(refused.is_err(), "{name}");
    }
}

/// The parts of a frame: content, first byte, length.
type Parts<'a> = &'a [(u32, u64, u64)];

#[test]
fn no_byte_comes_twice() {
    let package = holding(&[
        Content { digest: Digest::of(b"x"), size: 1_000 },
        Content { digest: Digest::of(b"y"), size: 1_000 },
    ]);
    let contents = package.contents();
    let decode = |frames: &[Parts<'_>]| {
        let part = |(content, offset, len): &(u32, u64, u64)| Part {
            extent: Extent { content: *content, offset: *offset, len: *len },
            digest: contents.at(*content).digest,
        };
        let frame = |parts: &Parts<'_>| Frame {
            digest: Digest::of(b"frame"),
            wire_len: 10,
            codec: Codec::Zstd,
            base: Vec::new(),
            parts: parts.iter().map(part).collect(),
        };
        let frames = frames.iter().map(frame).collect();
        let plan = TransferPlan { base: None, target: Digest::of(b"target"), frames };
        TransferPlan::decode(&plan.encode(contents, contents).unwrap(), contents, contents)
    };
    let (x, y) = ((0, 0, 1_000), (1, 0, 1_000));
    assert!(decode(&[&[x, y]]).is_ok());
    assert!(decode(&[&[(0, 500, 500), (0, 0, 200)], &[y], &[(0, 200, 300)]]).is_ok(), "in any order");
    let cases: [(&str, &[Parts<'_>]); 9] = [
        ("a content twice", &[&[x], &[x]]),
        ("a content twice in a frame", &[&[x, y, x]]),
        ("a part of what came whole", &[&[x], &[(0, 10, 10)]]),
        ("the whole after a part", &[&[(0, 10, 10)], &[x]]),
        ("a part twice", &[&[(0, 0, 500)], &[(0, 0, 500)]]),
        ("the same beginning", &[&[(0, 0, 500)], &[(0, 0, 10)]]),
        ("within another", &[&[(0, 0, 500)], &[(0, 100, 10)]]),
        ("around another", &[&[(0, 100, 10)], &[(0, 0, 500)]]),
        ("a byte of the next", &[&[(0, 500, 500), (0, 0, 501)]]),
    ];
    for (name, frames) in cases {
        let refused = decode(frames).unwrap_err();
        assert!(refused.to_string().contains("a part overlaps another"), "{name}: {refused}");
    }
}

#[test]
fn a_short_plan_does_not_take_much_memory() {
    let package = holding(&[Content { digest: Digest::of(b"x"), size: 1_000 }]);
    let contents = package.contents();
    let lean = Lean::Base(Extent { content: 0, offset: 0, len: 1_000 });
    let frames = |leans: usize| {
        let (digest, codec) = (Digest::of(b"frame"), Codec::Zstd);
        Frame { digest, wire_len: 10, codec, base: vec![lean; leans], parts: Vec::new() }
    };
    let decode = |frames: &[Frame]| {
        let listed = frames.iter().map(|frame| frame.encode(contents, contents));
        let listed: Vec<Vec<u8>> = listed.collect();
        let bytes = encode_plan(None, Digest::of(b"target"), listed.iter()).unwrap();
        (bytes.len(), TransferPlan::decode(&bytes, contents, contents).map(|plan| plan.frames.len()))
    };
    // As many leans as a frame of them may have bytes, in so many frames.
    let per_frame = caps::ZSTD_FRAME_BASE_BYTES_MAX as usize / 1_000;
    let fits = caps::PLAN_MEMORY_MAX / size_of::<Lean>() / per_frame;
    let (len, decoded) = decode(&vec![frames(per_frame); fits + 1]);
    assert!(decoded.unwrap_err().to_string().contains("more memory than it may"), "{len} bytes");
    assert!(len < 100_000, "{len} bytes");
    assert_eq!(decode(&vec![frames(per_frame); fits - 1]).1.unwrap(), fits - 1);
}

/// A plan with every kind of extent and lean, and the frames that it names: the second leans on the first.
fn golden() -> (Manifest, Manifest, TransferPlan, [Vec<u8>; 2]) {
    let (old, new) = (noise(20, 300), [noise(20, 200), noise(21, 60), noise(20, 40)].concat());
    let small = [noise(21, 60), b"small".to_vec()].concat();
    let content = |bytes: &[u8]| Content { digest: Digest::of(bytes), size: bytes.len() as u64 };
    let (base, target) =
        (holding(&[content(b"x"), content(&old)]), holding(&[content(&new), content(&small)]));
    let bytes = |text: &str| hex::decode(text.trim()).unwrap();
    let frames = [
        bytes(include_str!("../golden/frame-base.hex")),
        bytes(include_str!("../golden/frame-produced.hex")),
    ];
    let extent = |content, offset, len| Extent { content, offset, len };
    let part = |bytes: &[u8], extent| Part { extent, digest: Digest::of(bytes) };
    let frame = |number: usize, base, parts| Frame {
        digest: Digest::of(&frames[number]),
        wire_len: frames[number].len() as u64,
        codec: Codec::Zstd,
        base,
        parts,
    };
    let first = frame(
        0,
        vec![Lean::Base(extent(1, 0, 300)), Lean::Base(extent(1, 10, 20))],
        vec![part(&new[..270], extent(0, 0, 270))],
    );
    let second = frame(
        1,
        vec![Lean::Produced(extent(0, 200, 60)), Lean::Base(extent(0, 0, 1))],
        vec![part(&new[270..], extent(0, 270, 30)), part(&small, extent(1, 0, small.len() as u64))],
    );
    let plan = TransferPlan {
        base: Some(Digest::of(b"base")),
        target: Digest::of(b"target"),
        frames: vec![first, second],
    };
    (base, target, plan, frames)
}

#[test]
fn plans_of_format_2_and_zstd_frames_are_read_for_ever() {
    let (base, target, plan, frames) = golden();
    let (base, target) = (base.contents(), target.contents());
    let bytes = hex::decode(include_str!("../golden/plan-2.hex").trim()).unwrap();
    assert_eq!(TransferPlan::decode(&bytes, base, target).unwrap(), plan);
    // Compressed bytes may change with zstd, what they hold may not.
    let raw = |bytes: &[u8]| zstd::stream::decode_all(bytes).unwrap();
    assert_eq!(raw(&plan.encode(base, target).unwrap()), raw(&bytes));
    let old = Restored { contents: base, files: HashMap::from([(0, b"x".to_vec()), (1, noise(20, 300))]) };
    let mut memory = Memory::default();
    for (frame, bytes) in plan.frames.iter().zip(&frames) {
        let produced = Restored { contents: target, files: memory.files.clone() };
        let workspace = Workspace::new(std::env::temp_dir());
        decode_frame(frame, &bytes[..], (base, &old), (target, &produced), &workspace, &mut memory).unwrap();
    }
    for (number, content) in (0..).zip(target.iter()) {
        assert_eq!(Digest::of(&memory.files[&number]), content.digest);
    }
}

#[test]
fn any_flip_in_a_plan_is_refused_or_changes_what_is_asked_for() {
    let (base, target, plan, _) = golden();
    let (base, target) = (base.contents(), target.contents());
    let raw = zstd::stream::decode_all(&plan.encode(base, target).unwrap()[..]).unwrap();
    for at in 0..raw.len() * 8 {
        let mut flipped = raw.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        let flipped = zstd::bulk::compress(&flipped, 1).unwrap();
        if let Ok(other) = TransferPlan::decode(&flipped, base, target) {
            assert_ne!(other, plan, "bit {at}");
            assert!(other.frames.iter().all(|frame| frame.raw_len() <= caps::FRAME_BYTES_MAX));
        }
    }
}

#[test]
fn the_manifest_travels_against_the_old_one() {
    let files: Vec<(String, Vec<u8>)> = (0..500).map(|i| (format!("dir/file-{i}"), noise(i, 100))).collect();
    let named: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
    let (_old, old) = tree(&named);
    let mut changed = named;
    changed[250].1.push(0);
    let (_new, new) = tree(&changed);
    let (old, new) = (old.manifest().as_bytes(), new.manifest().as_bytes());
    let delta = encode_manifest(new, old).unwrap();
    assert!(delta.len() < 80, "{} bytes", delta.len());
    assert_eq!(decode_manifest(&delta, old).unwrap(), new);
    assert!(decode_manifest(&delta, &[]).map(|bytes| bytes != new).unwrap_or(true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_a_valid_plan_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let package = holding(&[Content { digest: Digest::of(b"x"), size: 1 << 20 }]);
        let contents = package.contents();
        let mut raw = b"sluice-plan\x02".to_vec();
        raw.extend_from_slice(&bytes);
        for candidate in [zstd::bulk::compress(&raw, 1).unwrap(), bytes] {
            if let Ok(plan) = TransferPlan::decode(&candidate, contents, contents) {
                for part in plan.frames.iter().flat_map(|f| &f.parts) {
                    prop_assert!(part.extent.offset + part.extent.len <= contents.at(0).size);
                }
            }
        }
    }
}
