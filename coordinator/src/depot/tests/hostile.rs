//! Pushes that lie: refused, with nothing half-committed.

use sluice_common::caps;
use sluice_common::manifest::{Entry, EntryKind, FileEntry, Manifest};
use sluice_common::path::RelPath;

use super::*;

/// Sends `messages` and returns how they were refused.
async fn refusal(bench: &Bench, messages: Vec<Request>) -> Status {
    let mut client = Client::start(&bench.depot);
    for message in messages {
        client.send(message).await;
    }
    client.break_off().await.expect("the push is refused")
}

/// The messages of a push of `parcel` to an empty depot.
fn whole(parcel: &Parcel) -> Vec<Request> {
    let all: Vec<u32> = (0..parcel.index.chunks().len() as u32).collect();
    let commit = Request::Commit(v1::PushCommit {});
    parcel.preamble().into_iter().chain(parcel.uploads(&all)).chain([commit]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_pushes_are_refused_with_nothing_committed() {
    type Tamper = fn(&mut Parcel) -> Vec<Request>;
    let cases: [(&str, Tamper, &str); 16] = [
        ("nothing but chunks", |p| p.uploads(&[0]), "where begin was due"),
        (
            "manifest of another package",
            |p| {
                p.digest = Digest::of(b"other");
                whole(p)
            },
            "the manifest is that of",
        ),
        (
            "manifest over its announced length",
            |p| {
                let mut messages = whole(p);
                messages.insert(3, Request::Manifest(vec![0; 1 << 20]));
                messages
            },
            "compressed manifest has",
        ),
        (
            "manifest announced over the limit",
            |p| {
                let manifest_len = caps::MANIFEST_BYTES_MAX + 1;
                let description = v1::PushDescription { manifest_len, index_len: 1 };
                vec![p.begin(), Request::Description(description)]
            },
            "more than",
        ),
        (
            "no digest",
            |_| vec![Request::Begin(v1::PushBegin { package: vec![1; 31] })],
            "31 bytes are no SHA-256",
        ),
        (
            "manifest that is a bomb",
            |p| {
                p.manifest = zstd::bulk::compress(&vec![0; 300 << 20], 3).unwrap();
                whole(p)
            },
            "manifest",
        ),
        (
            "manifest that leaves the tree",
            |p| {
                let bytes = b"sluice-manifest\x01\x01\x03\x01a\x09../../etc".to_vec();
                p.digest = Digest::of(&bytes);
                p.manifest = encode_manifest(&bytes, &[]).unwrap();
                whole(p)
            },
            "leaves the package",
        ),
        (
            "index of another package",
            |p| {
                p.index_bytes = shop(9).index_bytes;
                p.index_bytes.truncate(40);
                whole(p)
            },
            "index",
        ),
        (
            "index whose lists do not add up",
            |p| {
                let other = Parcel::new(&[("a", noise(1, 10))]);
                p.index_bytes = other.index_bytes;
                whole(p)
            },
            "number of contents differs",
        ),
        (
            "index that swaps the only chunks of two contents",
            |p| {
                let a = Parcel::new(&[("a", noise(1, 10)), ("b", noise(2, 10))]);
                let mut raw = a.index.as_bytes().to_vec();
                // The last four bytes are: one chunk, number 0; one chunk, number 1.
                let end = raw.len();
                raw.swap(end - 1, end - 3);
                *p = Parcel { index_bytes: zstd::bulk::compress(&raw, 3).unwrap(), ..a };
                whole(p)
            },
            "the chunks of a do not make it up",
        ),
        (
            "index that reorders the chunks of a content",
            |p| {
                let one = Parcel::new(&[("a", noise(1, 400_000))]);
                let mut raw = one.index.as_bytes().to_vec();
                let end = raw.len();
                raw.swap(end - 1, end - 2);
                *p = Parcel { index_bytes: zstd::bulk::compress(&raw, 3).unwrap(), ..one };
                whole(p)
            },
            "the chunks of a do not make it up",
        ),
        (
            "manifest with another digest for a content, whose chunks come in order",
            |p| {
                let one = Parcel::new(&[("a", noise(1, 400_000))]);
                let file = FileEntry { executable: false, size: 400_000, digest: Digest::of(b"another") };
                let entry = Entry { path: RelPath::new("a").unwrap(), kind: EntryKind::File(file) };
                let manifest = Manifest::new([entry]).unwrap();
                let compressed = encode_manifest(manifest.as_bytes(), &[]).unwrap();
                *p = Parcel { digest: manifest.digest(), manifest: compressed, ..one };
                whole(p)
            },
            "the chunks of a do not make it up",
        ),
        (
            "index that cuts a content smaller than the smallest chunk",
            |p| {
                let one = Parcel::new(&[("a", noise(1, 10)), ("b", noise(2, 20)), ("c", noise(3, 10))]);
                let mut raw = one.index.as_bytes().to_vec();
                // The last six bytes are three lists of one chunk: b is made of the chunks of a and c.
                raw.splice(raw.len() - 4..raw.len() - 2, [2, 0, 2]);
                *p = Parcel { index_bytes: zstd::bulk::compress(&raw, 3).unwrap(), ..one };
                whole(p)
            },
            "too small to be cut",
        ),
        (
            "chunk that is not what its digest says",
            |p| {
                let mut messages = whole(p);
                let frame = zstd::bulk::compress(&vec![7; p.index.chunk(0).len as usize], 3).unwrap();
                messages[6] = Request::Chunks(v1::PushChunks { numbers: vec![0], frame: frame.into() });
                messages
            },
            "not what its digest says",
        ),
        (
            "frame that is a bomb",
            |p| {
                let mut messages = whole(p);
                let frame = zstd::bulk::compress(&vec![0; 512 << 20], 3).unwrap();
                messages[6] = Request::Chunks(v1::PushChunks { numbers: vec![0], frame: frame.into() });
                messages
            },
            "holds more than",
        ),
        (
            "commit before the chunks",
            |p| {
                let mut messages = p.preamble();
                messages.push(Request::Commit(v1::PushCommit {}));
                messages
            },
            "are still missing",
        ),
    ];
    for (name, tamper, expected) in cases {
        let bench = Bench::new().await;
        let mut parcel = shop(1);
        let status = refusal(&bench, tamper(&mut parcel)).await;
        assert!(status.message().contains(expected), "{name}: {status}");
        assert_eq!((bench.count("packages").await, bench.count("audit").await), (0, 0), "{name}");
        assert!(bench.objects("manifests").is_empty() && bench.objects("indexes").is_empty(), "{name}");
        bench.push(&shop(1)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_were_not_asked_for_are_refused() {
    let bench = Bench::new().await;
    let shop = shop(1);
    let total = shop.index.chunks().len() as u32;
    for numbers in [vec![total], vec![0, 0]] {
        let mut messages = shop.preamble();
        messages.push(Request::Chunks(v1::PushChunks { numbers, frame: Vec::new().into() }));
        let status = refusal(&bench, messages).await;
        assert!(status.message().contains("not asked for"), "{status}");
    }
}
