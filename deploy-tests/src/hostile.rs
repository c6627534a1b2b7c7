//! Every decoder of outside data as one function of bytes: what the fuzz targets run (they include this file: they
//! are a workspace of their own), and what a plain test runs over the corpus. A function here panics when its decoder
//! breaks a promise: a byte more than promised, a content accepted that is not the one named, a value that does not
//! survive being encoded again.

// Named, because the fuzz targets include this file from elsewhere.
#[path = "hostile/fixture.rs"]
pub mod fixture;

use std::collections::HashMap;
use std::io;
use std::sync::OnceLock;

use sluice_common::digest::Digest;
use sluice_common::index::PackageIndex;
use sluice_common::manifest::Manifest;
use sluice_common::path::RelPath;
use sluice_common::spec::Spec;
use sluice_common::transfer::{
    Codec, Frame, Part, PartSink, TransferPlan, Workspace, decode_frame, decode_manifest, encode_manifest,
};

use fixture::Fixture;

/// What a panic of a function here says when something false was accepted; every other panic is the decoder's own.
pub const ACCEPTED: &str = "something false was accepted";

/// A decoder with the name of its target and of its folder in the corpus.
pub type Decoder = (&'static str, fn(&[u8]));

/// Every decoder.
pub const ALL: [Decoder; 11] = [
    ("frame_zstd", frame_zstd),
    ("frame_filtered", frame_filtered),
    ("frame_image", frame_image),
    ("frame_archive", frame_archive),
    ("manifest", manifest),
    ("manifest_frame", manifest_frame),
    ("plan", plan),
    ("plan_frame", plan_frame),
    ("index", index),
    ("spec", spec),
    ("path", path),
];

/// A frame under zstd, against the base.
pub fn frame_zstd(data: &[u8]) {
    frame(Codec::Zstd, data);
}

/// A frame under zstd with the filter for programs, against the base.
pub fn frame_filtered(data: &[u8]) {
    frame(Codec::Filtered, data);
}

/// A frame under the image codec, against a base with an executable.
pub fn frame_image(data: &[u8]) {
    frame(Codec::Image, data);
}

/// A frame under the archive codec, against a base with an archive.
pub fn frame_archive(data: &[u8]) {
    frame(Codec::Archive, data);
}

/// Canonical bytes of a manifest.
pub fn manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::decode(data.to_vec()) {
        let again = Manifest::new(manifest.entries()).expect("the entries of a manifest are valid");
        assert_eq!(again.as_bytes(), data, "{ACCEPTED}: a manifest in another form than its canonical one");
    }
}

/// A compressed manifest, against another.
pub fn manifest_frame(data: &[u8]) {
    for base in [Fixture::get().base.manifest().as_bytes(), &[]] {
        if let Ok(bytes) = decode_manifest(data, base) {
            manifest(&bytes);
        }
    }
}

/// Raw bytes of a plan: they are compressed first, so that the fuzzer sees through the compression.
pub fn plan(data: &[u8]) {
    let data = zstd::bulk::compress(data, 1).expect("bytes compress");
    plan_frame(&data);
}

/// A plan as it travels.
pub fn plan_frame(data: &[u8]) {
    let fixture = Fixture::get();
    let (base, target) = (fixture.base.contents(), fixture.target.contents());
    if let Ok(plan) = TransferPlan::decode(data, base, target) {
        let again = plan.encode(base, target).expect("memory does not fail");
        let decoded = TransferPlan::decode(&again, base, target).ok();
        assert_eq!(decoded, Some(plan), "{ACCEPTED}: a plan that does not survive");
    }
}

/// Restores what a plan promises from the frames that the right one has, if `target` decodes plans: whatever a plan
/// says, nothing is restored that is not named.
pub fn restore(target: &str, data: &[u8]) {
    static FRAMES: OnceLock<HashMap<Digest, Vec<u8>>> = OnceLock::new();
    let fixture = Fixture::get();
    let (base, to) = (fixture.base.side(), fixture.target.side());
    let Some(plan) = decoded_plan(target, data) else { return };
    let frames = FRAMES.get_or_init(|| {
        let encoded = fixture.encoded_plan().1;
        encoded.into_iter().map(|encoded| (encoded.frame.digest, encoded.bytes)).collect()
    });
    for frame in &plan.frames {
        let Some(bytes) = frames.get(&frame.digest) else { continue };
        let workspace = Workspace::new(std::env::temp_dir());
        let _ = decode_frame(frame, &bytes[..], base, to, &workspace, &mut Exact::default());
    }
}

fn decoded_plan(target: &str, data: &[u8]) -> Option<TransferPlan> {
    let (base, to) = (Fixture::get().base.contents(), Fixture::get().target.contents());
    match target {
        "plan" => TransferPlan::decode(&zstd::bulk::compress(data, 1).ok()?, base, to).ok(),
        "plan_frame" => TransferPlan::decode(data, base, to).ok(),
        _ => None,
    }
}

/// Says whether damaged bytes are a manifest or a plan all the same.
pub fn is_another(target: &str, data: &[u8]) -> bool {
    let base = Fixture::get().base.manifest().as_bytes();
    let is_manifest = |bytes: Vec<u8>| Manifest::decode(bytes).is_ok();
    match target {
        "manifest" => is_manifest(data.to_vec()),
        "manifest_frame" => {
            [base, &[]].into_iter().filter_map(|base| decode_manifest(data, base).ok()).any(is_manifest)
        }
        _ => decoded_plan(target, data).is_some(),
    }
}

/// A package index.
pub fn index(data: &[u8]) {
    let contents = Fixture::get().target.contents();
    if let Ok(index) = PackageIndex::decode(data.to_vec(), contents) {
        // Whatever is taken can be read through.
        for (number, content) in (0..).zip(contents.iter()) {
            let len: u64 = index.content(number).map(|chunk| u64::from(index.chunk(chunk).len)).sum();
            assert_eq!(len, content.size, "{ACCEPTED}: an index that does not add up");
        }
    }
}

/// A `sluice.toml`.
pub fn spec(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        // Whatever is accepted or refused: it ends.
        let _ = Spec::parse(text);
    }
}

/// A path inside of a package.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(path) = RelPath::new(text) {
        assert_eq!(path.as_str(), text);
        let below = path.below(std::path::Path::new("/root"));
        assert!(below.starts_with("/root") && below.components().count() == path.components().count() + 2);
        assert!(path.components().all(|part| !matches!(part, "" | "." | "..")));
    }
}

/// Decodes `data` as a frame that should restore the target of the fixture from its base.
fn frame(codec: Codec, data: &[u8]) {
    let fixture = Fixture::get();
    let frame = fixture.frame(codec, data);
    let mut sink = Exact::default();
    let (base, target) = (fixture.base.side(), fixture.target.side());
    let workspace = Workspace::new(std::env::temp_dir());
    let decoded = decode_frame(&frame, data, base, target, &workspace, &mut sink);
    if decoded.is_ok() {
        assert_eq!(sink.committed, frame.parts.len(), "{ACCEPTED}: a frame without all its parts");
    }
    // Whatever becomes of it without a base, or behind a frame that has produced a part: it keeps its promises.
    for cold in [Frame { base: Vec::new(), ..frame.clone() }, fixture.second_frame(codec, data)] {
        let _ = decode_frame(&cold, data, base, target, &workspace, &mut Exact::default());
    }
}

/// A sink that panics at a byte too much and at a part that is not what its digest says.
#[derive(Default)]
struct Exact {
    part: Vec<u8>,
    len: usize,
    committed: usize,
}

impl PartSink for Exact {
    fn begin(&mut self, part: &Part) -> io::Result<()> {
        self.part.clear();
        self.len = part.extent.len as usize;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.part.extend_from_slice(bytes);
        assert!(self.part.len() <= self.len, "{ACCEPTED}: more bytes than the plan promised");
        Ok(())
    }

    fn commit(&mut self, part: &Part) -> io::Result<()> {
        assert_eq!(Digest::of(&self.part), part.digest, "{ACCEPTED}: another content");
        self.committed += 1;
        Ok(())
    }
}

/// Returns a valid input of every decoder with its target's name: what the corpus begins with.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let fixture = Fixture::get();
    let base_manifest = fixture.base.manifest().as_bytes();
    let target_manifest = fixture.target.manifest().as_bytes();
    let index =
        PackageIndex::build(fixture.target.manifest(), &fixture.target).expect("memory does not fail");
    let plan = fixture.plan();
    let plan_frame =
        plan.encode(fixture.base.contents(), fixture.target.contents()).expect("memory does not fail");
    let plan_raw = zstd::bulk::decompress(&plan_frame, 1 << 20).expect("a plan decompresses");
    // The manual's own example.
    let manual = include_str!("../../docs/sluice-toml.md");
    let example = manual.split("```").find_map(|block| block.strip_prefix("toml\n")).unwrap_or_default();
    let mut seeds = vec![
        ("manifest", base_manifest.to_vec()),
        ("manifest", target_manifest.to_vec()),
        ("manifest_frame", encode_manifest(target_manifest, &[]).expect("memory does not fail")),
        ("manifest_frame", encode_manifest(target_manifest, base_manifest).expect("memory does not fail")),
        ("plan", plan_raw),
        ("plan_frame", plan_frame),
        ("index", index.as_bytes().to_vec()),
        ("spec", example.as_bytes().to_vec()),
        ("path", b"usr/bin/sluice".to_vec()),
        ("path", "caf\u{e9}/..x/.y".as_bytes().to_vec()),
    ];
    seeds.extend(fixture.frames().into_iter().map(|(codec, bytes)| (target_of(codec), bytes)));
    seeds
}

/// Returns the target that decodes frames of a codec.
pub fn target_of(codec: Codec) -> &'static str {
    match codec {
        Codec::Zstd => "frame_zstd",
        Codec::Image => "frame_image",
        Codec::Archive => "frame_archive",
        Codec::Filtered => "frame_filtered",
    }
}
