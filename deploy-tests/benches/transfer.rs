//! Throughput of what every transferred byte passes: hashing, chunking, codecs, pacing. Run: `cargo bench`.
//!
//! Codecs run on a pair made from a seed, in which code has moved as a compiler moves it, and on the ruff pair where
//! earlier runs of `deploy-tests/show` have fetched it.

use std::hint::black_box;
use std::io::{self, Read};
use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use sluice_common::chunk;
use sluice_common::digest::Digest;
use sluice_common::manifest::{Contents, Entry, EntryKind, FileEntry, Manifest};
use sluice_common::pacing::{Bucket, quantum};
use sluice_common::path::RelPath;
use sluice_common::transfer::{
    ContentSource, Effort, FrameSpec, Part, PartSink, Workspace, decode_frame, decode_manifest, encode_frame,
    encode_manifest, plan,
};
use sluice_common::tree::Tree;
use sluice_common::units::ByteRate;
use sluice_deploy_tests::hostile::fixture;
use sluice_deploy_tests::lab::noise;
use sluice_deploy_tests::trees;

const MEBIBYTE: usize = 1 << 20;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    reading(&mut criterion);
    codecs(&mut criterion);
    manifests(&mut criterion);
    pacing(&mut criterion);
    criterion.final_summary();
}

/// What a push does to every byte, and a host to every byte that it restores.
fn reading(criterion: &mut Criterion) {
    let bytes = noise(1, 16 * MEBIBYTE);
    let mut group = group_of(criterion, "read", bytes.len() as u64);
    group.bench_function("SHA-256", |bencher| bencher.iter(|| Digest::of(black_box(&bytes))));
    let quarters: Vec<&[u8]> = bytes.chunks(bytes.len() / 4).collect();
    group.bench_function("SHA-256 of four at once", |bencher| {
        bencher.iter(|| Digest::of_each(black_box(&quarters)));
    });
    group.bench_function("chunks with their digests", |bencher| {
        bencher.iter(|| {
            let mut count = 0;
            chunk::cut(black_box(&bytes[..]), |_, _| {
                count += 1;
                Ok(())
            })
            .expect("memory does not fail");
            count
        });
    });
    group.finish();
}

fn codecs(criterion: &mut Criterion) {
    let made = (Memory::of(fixture::executable(40_000, 0)), Memory::of(fixture::executable(40_000, 24)));
    pair(criterion, "moved code", &made.0, &made.1);
    match (fetched("ruff==0.17.3"), fetched("ruff==0.17.4")) {
        (Some(old), Some(new)) => pair(criterion, "ruff", &old, &new),
        _ => eprintln!("ruff: not fetched yet; deploy-tests/show transfer does it"),
    }
}

/// Returns a tree that was fetched before: a bench does not wait for a registry.
fn fetched(package: &str) -> Option<Tree> {
    let tree = trees::kept_place(&format!("ruff-{package}"));
    tree.is_dir().then(|| Tree::scan(&tree).ok()).flatten()
}

/// A package with its contents.
trait Package: ContentSource {
    fn manifest(&self) -> &Manifest;
}

impl Package for Tree {
    fn manifest(&self) -> &Manifest {
        self.manifest()
    }
}

/// A package of one file in memory.
struct Memory {
    manifest: Manifest,
    bytes: Vec<u8>,
}

impl Memory {
    fn of(bytes: Vec<u8>) -> Self {
        let file = FileEntry { executable: true, size: bytes.len() as u64, digest: Digest::of(&bytes) };
        let entry = Entry { path: RelPath::new("prog").expect("a valid path"), kind: EntryKind::File(file) };
        Self { manifest: Manifest::new(vec![entry]).expect("one entry is a manifest"), bytes }
    }
}

impl ContentSource for Memory {
    fn reader(&self, _: &Digest, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(&self.bytes[offset as usize..]))
    }
}

impl Package for Memory {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// Encodes and decodes an update and a cold install at each effort.
fn pair(
    criterion: &mut Criterion,
    name: &str,
    old: &(impl Package + 'static),
    new: &(impl Package + 'static),
) {
    let (old_contents, new_contents) = (old.manifest().contents(), new.manifest().contents());
    let base: (Contents<'_>, &dyn ContentSource) = (old_contents, old);
    let target: (Contents<'_>, &dyn ContentSource) = (new_contents, new);
    let mut group = group_of(criterion, name, new.manifest().tree_bytes());
    let workspace = Workspace::new(std::env::temp_dir());
    for (effort, effort_name) in [(Effort::Quick, "quick"), (Effort::Best, "best")] {
        for (leans_on, kind) in [(None, "cold"), (Some(old.manifest()), "update")] {
            let specs = plan(leans_on, new.manifest(), effort);
            let encode = |specs: &[FrameSpec]| {
                let each = |spec| encode_frame(spec, base, target, effort).expect("the trees are read");
                specs.iter().map(each).collect::<Vec<_>>()
            };
            group.bench_function(format!("encode {kind}, {effort_name}"), |bencher| {
                bencher.iter(|| encode(black_box(&specs)));
            });
            let frames = encode(&specs);
            group.bench_function(format!("decode {kind}, {effort_name}"), |bencher| {
                bencher.iter(|| {
                    for encoded in &frames {
                        decode_frame(
                            &encoded.frame,
                            &encoded.bytes[..],
                            base,
                            target,
                            &workspace,
                            &mut Nowhere,
                        )
                        .expect("what was encoded decodes");
                    }
                });
            });
        }
    }
    group.finish();
}

/// A sink that keeps nothing: what is measured is the decoder with its digests.
struct Nowhere;

impl PartSink for Nowhere {
    fn begin(&mut self, _: &Part) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        black_box(bytes);
        Ok(())
    }

    fn commit(&mut self, _: &Part) -> io::Result<()> {
        Ok(())
    }
}

/// A manifest of 10,000 files, a hundred of which have changed.
fn manifests(criterion: &mut Criterion) {
    let manifest = |version: usize| {
        let paths: Vec<String> = (0..10_000).map(|number| format!("file-{number:05}")).collect();
        let entry = |(number, path): (usize, _)| {
            let changed = if number.is_multiple_of(100) { version } else { 0 };
            let digest = Digest::of(&[number.to_le_bytes(), changed.to_le_bytes()].concat());
            let file = FileEntry { executable: false, size: 1_000 + number as u64, digest };
            Entry { path, kind: EntryKind::File(file) }
        };
        let paths = paths.iter().map(|path| RelPath::new(path).expect("a valid path"));
        let manifest = Manifest::new(paths.enumerate().map(entry)).expect("sorted entries are a manifest");
        manifest.as_bytes().to_vec()
    };
    let (old, new) = (manifest(0), manifest(1));
    let compressed = encode_manifest(&new, &old).expect("memory does not fail");
    let mut group = group_of(criterion, "manifest of 10,000 files", new.len() as u64);
    group.bench_function("decode and check", |bencher| {
        bencher.iter(|| Manifest::decode(black_box(&new).clone()).expect("it is canonical"));
    });
    group.bench_function("compress against the old one", |bencher| {
        bencher.iter(|| encode_manifest(black_box(&new), black_box(&old)).expect("memory does not fail"));
    });
    group.bench_function("decompress against the old one", |bencher| {
        bencher.iter(|| decode_manifest(black_box(&compressed), black_box(&old)).expect("it is whole"));
    });
    group.finish();
}

/// Places in the queue of a bucket: what pacing adds to each piece that is written.
fn pacing(criterion: &mut Criterion) {
    let rate = ByteRate::from_bytes_per_second(125_000_000);
    for (name, rate) in [("unlimited", None), ("1 Gbit/s", rate)] {
        let piece = quantum(rate);
        let mut group = group_of(criterion, "pacing", piece);
        group.bench_function(name, |bencher| {
            let mut now = Duration::ZERO;
            let mut bucket = Bucket::new(rate, now);
            bencher.iter(|| {
                let ticket = bucket.reserve(black_box(piece), now);
                now += bucket.wait(ticket, now);
                now
            });
        });
        group.finish();
    }
}

fn group_of<'a>(criterion: &'a mut Criterion, name: &str, bytes: u64) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes));
    group
}
