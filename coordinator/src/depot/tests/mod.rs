//! The depot as its callers see it: pushes, plans and fetches over real folders and a real database.

mod collect;
mod content;
pub(in crate::depot) mod disk;
mod faults;
mod hostile;
mod improver;
mod plans;
mod push;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;
use futures::SinkExt;
use futures::channel::mpsc;
use sluice_common::digest::Digest;
use sluice_common::index::PackageIndex;
use sluice_common::transfer::{ContentSource, encode_manifest};
use sluice_common::tree::Tree;
use sluice_proto::v1;
use sluice_proto::v1::push_request::Message as Request;
use sluice_proto::v1::push_response::Message as Response;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Depot;
use super::collect::{Ages, Mode};
use super::push as pushes;
use super::source::PackageSource;
use crate::store::{Actor, Schema, Store};

/// Raw bytes in a test's upload frame: small, so that there are many.
const GROUP_BYTES: u64 = 300 << 10;

/// A depot in a folder of its own.
pub(in crate::depot) struct Bench {
    dir: TempDir,
    store: Store,
    pub(in crate::depot) depot: Arc<Depot>,
    token: CancellationToken,
}

impl Bench {
    pub(in crate::depot) async fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap()).await
    }

    async fn open(dir: TempDir) -> Self {
        let store = Store::open(dir.path(), Schema::Migrate).await.unwrap();
        let token = CancellationToken::new();
        let depot = Depot::open(store.clone(), &dir.path().join("depot"), token.clone()).unwrap();
        Self { dir, store, depot, token }
    }

    /// Ends the depot and opens it anew, as a restart does.
    pub(in crate::depot) async fn reopen(self) -> Self {
        self.token.cancel();
        self.depot.ended().await;
        self.store.close().await;
        Self::open(self.dir).await
    }

    /// Opens the depot once more, as a second coordinator does.
    async fn beside(&self) -> Arc<Depot> {
        let store = Store::open(self.dir.path(), Schema::MustMatch).await.unwrap();
        Depot::open(store, &self.dir.path().join("depot"), self.token.clone()).unwrap()
    }

    pub(in crate::depot) fn objects(&self, kind: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path().join("depot").join(kind)).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    /// Flips a byte in the middle of every object of a kind.
    fn damage(&self, kind: &str) {
        let objects = self.objects(kind);
        assert!(!objects.is_empty());
        objects.iter().for_each(|path| flip(path));
    }

    pub(in crate::depot) async fn count(&self, table: &'static str) -> i64 {
        let sql = format!("SELECT COUNT(*) FROM {table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(self.store.read()).await.unwrap()
    }

    /// Removes orphans of this age and returns how many there were.
    async fn collect(&self, orphan: Duration) -> u64 {
        let ages = Ages { orphan, ..Ages::default() };
        self.depot.collect(ages, Mode::Remove, Actor::coordinator()).await.unwrap().objects()
    }

    pub(in crate::depot) async fn push(&self, parcel: &Parcel) -> Result<Pushed, Status> {
        let mut client = Client::start(&self.depot);
        client.push(parcel).await
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// A tree, packed and ready to be pushed.
pub(in crate::depot) struct Parcel {
    _dir: TempDir,
    tree: Tree,
    index: PackageIndex,
    digest: Digest,
    manifest: Vec<u8>,
    index_bytes: Vec<u8>,
}

impl Parcel {
    pub(in crate::depot) fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let tree = Tree::scan(dir.path()).unwrap();
        let index = PackageIndex::build(tree.manifest(), &tree).unwrap();
        let manifest = encode_manifest(tree.manifest().as_bytes(), &[]).unwrap();
        let index_bytes = zstd::bulk::compress(index.as_bytes(), 3).unwrap();
        Self { _dir: dir, digest: tree.manifest().digest(), tree, index, manifest, index_bytes }
    }

    fn begin(&self) -> Request {
        Request::Begin(v1::PushBegin { package: self.digest.as_bytes().to_vec() })
    }

    fn description(&self) -> Request {
        Request::Description(v1::PushDescription {
            manifest_len: self.manifest.len() as u64,
            index_len: self.index_bytes.len() as u64,
        })
    }

    /// What comes before the chunks, manifest and index in two pieces each.
    fn preamble(&self) -> Vec<Request> {
        let halves = |bytes: &[u8]| {
            let (a, b) = bytes.split_at(bytes.len() / 2);
            [a.to_vec(), b.to_vec()]
        };
        let manifest = halves(&self.manifest).into_iter().map(Request::Manifest);
        let index = halves(&self.index_bytes).into_iter().map(Request::Index);
        [self.begin(), self.description()].into_iter().chain(manifest).chain(index).collect()
    }

    /// Every chunk's bytes, in the order of their numbers.
    fn chunks(&self) -> Vec<Vec<u8>> {
        let mut chunks = vec![Vec::new(); self.index.chunks().len()];
        for (number, content) in (0..).zip(self.tree.manifest().contents().iter()) {
            let mut reader = self.tree.reader(&content.digest, 0).unwrap();
            for chunk in self.index.content(number) {
                let mut bytes = vec![0; self.index.chunk(chunk).len as usize];
                reader.read_exact(&mut bytes).unwrap();
                chunks[chunk as usize] = bytes;
            }
        }
        chunks
    }

    /// The upload of these chunks.
    fn uploads(&self, numbers: &[u32]) -> Vec<Request> {
        let chunks = self.chunks();
        let mut groups: Vec<(Vec<u32>, Vec<u8>)> = Vec::new();
        for number in numbers {
            let bytes = &chunks[*number as usize];
            match groups.last_mut() {
                Some((numbers, raw)) if (raw.len() as u64) < GROUP_BYTES => {
                    numbers.push(*number);
                    raw.extend_from_slice(bytes);
                }
                Some(_) | None => groups.push((vec![*number], bytes.clone())),
            }
        }
        let frame = |(numbers, raw): (Vec<u32>, Vec<u8>)| {
            Request::Chunks(v1::PushChunks { numbers, frame: zstd::bulk::compress(&raw, 3).unwrap().into() })
        };
        groups.into_iter().map(frame).collect()
    }

    /// Reads every content back from a depot and compares it.
    pub(in crate::depot) async fn read_back(&self, bench: &Bench) -> std::io::Result<()> {
        let package = bench.depot.package(self.digest).await.map_err(std::io::Error::other)?;
        let all: Vec<u32> = (0..package.contents().len() as u32).collect();
        let source = bench.depot.source(self.digest, &package, &all).await.map_err(std::io::Error::other)?;
        let read = tokio::task::spawn_blocking(move || {
            for content in package.contents().iter() {
                assert_eq!(
                    Digest::of_reader(source.reader(&content.digest, 0)?)?,
                    (content.digest, content.size)
                );
            }
            Ok(())
        });
        read.await.unwrap()
    }
}

/// What a push came to.
#[derive(Debug)]
pub(in crate::depot) struct Pushed {
    package: v1::Package,
    chunks_sent: usize,
    stored: u32,
}

/// The other side of a push.
struct Client {
    requests: mpsc::Sender<Result<v1::PushRequest, Status>>,
    responses: pushes::Responses,
}

impl Client {
    fn start(depot: &Arc<Depot>) -> Self {
        let (requests, stream) = mpsc::channel(1);
        Self { requests, responses: pushes::start(depot, "alice".parse().unwrap(), stream) }
    }

    /// Sends a request; one that nobody takes any more is lost.
    async fn send(&mut self, message: Request) {
        let _ = self.requests.send(Ok(v1::PushRequest { message: Some(message) })).await;
    }

    async fn next(&mut self) -> Result<Response, Status> {
        let response = self.responses.recv().await.ok_or_else(|| Status::cancelled("ended"))??;
        Ok(response.message.unwrap())
    }

    /// Waits for the numbers of the missing chunks.
    async fn missing(&mut self) -> Result<Vec<u32>, Status> {
        let mut numbers = Vec::new();
        loop {
            let (runs, more) = match self.next().await? {
                Response::Missing(v1::PushMissing { runs, more }) => (runs, more),
                // It was sent unasked.
                Response::Describe(v1::PushDescribe {}) => continue,
                other => panic!("expected missing chunks, not {other:?}"),
            };
            numbers.extend(runs.chunks(2).flat_map(|run| run[0]..run[0] + run[1]));
            if !more {
                return Ok(numbers);
            }
        }
    }

    async fn push(&mut self, parcel: &Parcel) -> Result<Pushed, Status> {
        for message in parcel.preamble() {
            self.send(message).await;
        }
        let missing = self.missing().await?;
        for message in parcel.uploads(&missing) {
            self.send(message).await;
        }
        self.send(Request::Commit(v1::PushCommit {})).await;
        self.committed(missing.len()).await
    }

    async fn committed(&mut self, chunks_sent: usize) -> Result<Pushed, Status> {
        let mut stored = 0;
        loop {
            match self.next().await? {
                Response::Stored(v1::PushStored { chunks }) => stored = chunks,
                Response::Committed(v1::PushCommitted { package }) => {
                    return Ok(Pushed { package: package.unwrap(), chunks_sent, stored });
                }
                other => panic!("expected the commit, not {other:?}"),
            }
        }
    }

    /// Drops the stream of requests and returns how the push ended.
    async fn break_off(self) -> Option<Status> {
        let Self { requests, mut responses } = self;
        drop(requests);
        while let Some(response) = responses.recv().await {
            if let Err(status) = response {
                return Some(status);
            }
        }
        None
    }
}

/// Bytes that look random and are the same on every machine.
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

/// A small web application with a large file, a repeated one, an empty one and many small ones.
fn shop(version: u64) -> Parcel {
    let mut big = noise(1, 1 << 20);
    big.splice(500_000..500_000, noise(version, 100));
    let mut files = vec![
        ("bin/shop", big.clone()),
        ("bin/shop-copy", big),
        ("etc/empty", Vec::new()),
        ("etc/version", version.to_string().into_bytes()),
    ];
    let names: Vec<String> = (0..40).map(|i| format!("share/page-{i}.html")).collect();
    for (i, name) in names.iter().enumerate() {
        files.push((name, noise(100 + i as u64, 2_000 + i * 10)));
    }
    Parcel::new(&files)
}
