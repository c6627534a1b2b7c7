use std::collections::HashMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::caps;
use crate::manifest::{Content, Contents, Entry, EntryKind, FileEntry, Manifest};
use crate::path::RelPath;
use crate::tree::Tree;

/// Collects committed parts into whole contents, as an agent's staging directory does.
#[derive(Default)]
struct Memory {
    files: HashMap<u32, Vec<u8>>,
    open: Vec<u8>,
}

impl PartSink for Memory {
    fn begin(&mut self, _: &Part) -> io::Result<()> {
        self.open.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(&mut self, part: &Part) -> io::Result<()> {
        let file = self.files.entry(part.extent.content).or_default();
        let end = (part.extent.offset + part.extent.len) as usize;
        file.resize(file.len().max(end), 0);
        file[part.extent.offset as usize..end].copy_from_slice(&self.open);
        Ok(())
    }
}

/// What has been restored before a frame comes; what has not is not there to lean on.
struct Restored<'a> {
    contents: Contents<'a>,
    files: HashMap<u32, Vec<u8>>,
}

impl ContentSource for Restored<'_> {
    fn reader(&self, content: &Digest, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let number = self.contents.iter().position(|known| known.digest == *content).unwrap() as u32;
        let file = self.files.get(&number).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(file.get(offset as usize..).ok_or(io::ErrorKind::UnexpectedEof)?))
    }
}

/// Makes a package of which these are the contents, in this order.
fn holding(contents: &[Content]) -> Manifest {
    let file =
        |content: &Content| FileEntry { executable: false, size: content.size, digest: content.digest };
    let named =
        (0..).zip(contents).map(|(number, content): (u32, _)| (format!("{number:04}"), file(content)));
    manifest(&named.collect::<Vec<_>>())
}

fn manifest(files: &[(String, FileEntry)]) -> Manifest {
    let entries = files
        .iter()
        .map(|(path, file)| Entry { path: RelPath::new(path).unwrap(), kind: EntryKind::File(*file) });
    Manifest::new(entries).unwrap()
}

fn tree(files: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, Tree) {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = dir.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap_or(Path::new("."))).unwrap();
        fs_err::write(path, bytes).unwrap();
    }
    let tree = Tree::scan(dir.path()).unwrap();
    (dir, tree)
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    })
    .take(len)
    .collect()
}

/// Plans, encodes, passes the plan through its wire form, decodes; returns the restored contents and all frame bytes.
fn travel(base: Option<&Tree>, target: &Tree, effort: Effort) -> (Memory, Vec<EncodedFrame>) {
    let base_contents = base.map(|tree| tree.manifest().contents()).unwrap_or_default();
    let contents = target.manifest().contents();
    let source: &dyn ContentSource = match base {
        Some(tree) => tree,
        None => &NoContent,
    };
    let specs = plan(base.map(Tree::manifest), target.manifest(), effort);
    let encoded =
        encode_all(&specs, (base_contents, source), (contents, target), effort, 2, |_, frame| Ok(frame))
            .unwrap();
    let sent = TransferPlan {
        base: base.map(|tree| tree.manifest().digest()),
        target: target.manifest().digest(),
        frames: encoded.iter().map(|e| e.frame.clone()).collect(),
    };
    let bytes = sent.encode(base_contents, contents).unwrap();
    let received = TransferPlan::decode(&bytes, base_contents, contents).unwrap();
    assert_eq!(received, sent);
    let mut memory = Memory::default();
    for (frame, encoded) in received.frames.iter().zip(&encoded) {
        let restored = Restored { contents, files: memory.files.clone() };
        decode_frame(
            frame,
            &encoded.bytes[..],
            (base_contents, source),
            (contents, &restored),
            &Workspace::new(std::env::temp_dir()),
            &mut memory,
        )
        .unwrap();
    }
    (memory, encoded)
}

fn assert_restored(memory: &Memory, base: Option<&Manifest>, target: &Tree) {
    for (number, content) in target.manifest().contents().iter().enumerate() {
        match memory.files.get(&(number as u32)) {
            Some(bytes) => assert_eq!(Digest::of(bytes), content.digest),
            None => assert!(
                content.size == 0 || base.is_some_and(|base| base.content_number(&content.digest).is_some()),
                "{content:?} never came"
            ),
        }
    }
}

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
    assert_eq!(frames.len(), 2, "one solid frame and the rest of the large file");
}

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
    let quick: [&[u64]; 5] = [&[1, 3, 1, 1, 1], &[10], &[6, 10], &[10], &[1]];
    assert_eq!(frames(Effort::Quick), quick);
    let best: [&[u64]; 4] = [&[1, 3, 1, 1, 1], &[10, 6], &[16], &[4, 1]];
    assert_eq!(frames(Effort::Best), best);
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

/// A plan with every kind of extent and lean, and the frames that it names: the second leans on the first.
fn golden() -> (Manifest, Manifest, TransferPlan, [Vec<u8>; 2]) {
    let (old, new) = (noise(20, 300), [noise(20, 200), noise(21, 60), noise(20, 40)].concat());
    let small = [noise(21, 60), b"small".to_vec()].concat();
    let content = |bytes: &[u8]| Content { digest: Digest::of(bytes), size: bytes.len() as u64 };
    let (base, target) =
        (holding(&[content(b"x"), content(&old)]), holding(&[content(&new), content(&small)]));
    let bytes = |text: &str| hex::decode(text.trim()).unwrap();
    let frames =
        [bytes(include_str!("golden/frame-base.hex")), bytes(include_str!("golden/frame-produced.hex"))];
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
    let bytes = hex::decode(include_str!("golden/plan-2.hex").trim()).unwrap();
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
