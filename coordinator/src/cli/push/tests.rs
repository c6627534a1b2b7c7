//! The push against a depot of a few lines, over real connections that break.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fs_err as fs;
use sluice_common::digest::Digest;
use sluice_common::index::PackageIndex;
use sluice_common::manifest::Manifest;
use sluice_common::transfer::decode_manifest;
use sluice_common::tree::Tree;
use sluice_proto::transport::metered::{Metered, Paced, Pacing};
use sluice_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::task::TaskTracker;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use v1::packages_server::{Packages, PackagesServer};
use v1::push_request::Message;
use v1::push_response::Message as Answer;

use super::*;
use crate::cli::error;

const PATIENCE: Patience =
    Patience { attempts: 4, first_delay: Duration::from_millis(1), last_delay: Duration::from_millis(5) };

/// A depot in memory.
#[derive(Clone, Default)]
struct Depot {
    chunks: Arc<Mutex<HashMap<Digest, Vec<u8>>>>,
    packages: Arc<Mutex<HashSet<Digest>>>,
    pushes: Arc<AtomicU32>,
    /// Chunk numbers as they came, over all pushes.
    numbers: Arc<Mutex<Vec<u32>>>,
    refusal: Option<Status>,
    asks_too_much: bool,
    /// Raw bytes of the largest group that comes before it ends the push.
    group_bytes_max: Option<usize>,
    tasks: TaskTracker,
}

fn committed(digest: Digest) -> Answer {
    let package = v1::Package { digest: digest.as_bytes().to_vec(), ..v1::Package::default() };
    Answer::Committed(v1::PushCommitted { package: Some(package) })
}

type Answers = mpsc::Sender<Result<v1::PushResponse, Status>>;

impl Depot {
    async fn take(&self, mut requests: Streaming<v1::PushRequest>, answers: Answers) -> Result<(), Status> {
        let say = async |answer| {
            let response = v1::PushResponse { message: Some(answer) };
            answers.send(Ok(response)).await.map_err(|_| Status::cancelled("gone"))
        };
        let (mut begin, mut lengths, mut manifest, mut bytes) = (None, None, Vec::new(), Vec::new());
        let mut index: Option<PackageIndex> = None;
        while let Some(request) = requests.message().await? {
            match request.message.unwrap() {
                Message::Begin(message) => {
                    let digest = Digest::from_slice(&message.package).unwrap();
                    if self.packages.lock().unwrap().contains(&digest) {
                        return say(committed(digest)).await;
                    }
                    begin = Some(message);
                    say(Answer::Describe(v1::PushDescribe {})).await?;
                }
                Message::Description(v1::PushDescription { manifest_len, index_len }) => {
                    lengths = Some((manifest_len, index_len));
                }
                Message::Manifest(piece) => manifest.extend(piece),
                Message::Index(piece) => bytes.extend(piece),
                Message::Chunks(group) => {
                    let index = index.as_ref().unwrap();
                    let mut raw = &zstd::bulk::decompress(&group.frame, 4 << 20).unwrap()[..];
                    if self.group_bytes_max.is_some_and(|max| raw.len() > max) {
                        return Err(Status::unavailable("the push was silent for too long"));
                    }
                    for number in &group.numbers {
                        let chunk = index.chunk(*number);
                        let (head, tail) = raw.split_at(chunk.len as usize);
                        assert_eq!(Digest::of(head), chunk.digest);
                        self.chunks.lock().unwrap().insert(chunk.digest, head.to_vec());
                        raw = tail;
                    }
                    assert!(raw.is_empty());
                    self.numbers.lock().unwrap().extend(&group.numbers);
                    say(Answer::Stored(v1::PushStored { chunks: 1 })).await?;
                }
                Message::Commit(_) => {
                    let digest = Digest::from_slice(&begin.as_ref().unwrap().package).unwrap();
                    assert!(self.missing(index.as_ref().unwrap()).is_empty());
                    self.packages.lock().unwrap().insert(digest);
                    say(committed(digest)).await?;
                }
            }
            let Some(begin) = &begin else { continue };
            let is_whole = Some((manifest.len() as u64, bytes.len() as u64)) == lengths;
            if index.is_none() && is_whole {
                let manifest = decode_manifest(&manifest, &[]).unwrap();
                assert_eq!(Digest::of(&manifest).as_bytes()[..], begin.package[..]);
                let manifest = Manifest::decode(manifest).unwrap();
                let bytes = decode_manifest(&bytes, &[]).unwrap();
                let decoded = PackageIndex::decode(bytes, manifest.contents()).unwrap();
                let missing = self.missing(&decoded);
                // In two messages, as a depot does with long lists.
                let (first, rest) = missing.split_at(missing.len() / 4 * 2);
                say(Answer::Missing(v1::PushMissing { runs: first.to_vec(), more: true })).await?;
                say(Answer::Missing(v1::PushMissing { runs: rest.to_vec(), more: false })).await?;
                index = Some(decoded);
            }
        }
        Ok(())
    }

    fn missing(&self, index: &PackageIndex) -> Vec<u32> {
        if self.asks_too_much {
            return vec![index.chunks().len() as u32, 1];
        }
        let chunks = self.chunks.lock().unwrap();
        let lacking = index.chunks().enumerate().filter(|(_, chunk)| !chunks.contains_key(&chunk.digest));
        lacking.flat_map(|(number, _)| [number as u32, 1]).collect()
    }

    /// Serves on loopback until the test ends.
    async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = PackagesServer::new(self.clone());
        self.tasks.spawn(Server::builder().serve_with_incoming(service, TcpListenerStream::new(listener)));
        address
    }
}

#[tonic::async_trait]
impl Packages for Depot {
    type PushStream = ReceiverStream<Result<v1::PushResponse, Status>>;
    type GetPackageStream = ReceiverStream<Result<v1::GetPackageResponse, Status>>;

    async fn push(
        &self,
        request: Request<Streaming<v1::PushRequest>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        self.pushes.fetch_add(1, Ordering::Relaxed);
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let (answers, receiver) = mpsc::channel(4);
        let (depot, requests) = (self.clone(), request.into_inner());
        self.tasks.spawn(async move {
            if let Err(status) = depot.take(requests, answers.clone()).await {
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type ListPackagesStream = ReceiverStream<Result<v1::ListPackagesResponse, Status>>;

    async fn list_packages(
        &self,
        _: Request<v1::ListPackagesRequest>,
    ) -> Result<Response<Self::ListPackagesStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type ListPlansStream = ReceiverStream<Result<v1::ListPlansResponse, Status>>;

    async fn list_plans(
        &self,
        _: Request<v1::ListPlansRequest>,
    ) -> Result<Response<Self::ListPlansStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_package(
        &self,
        _: Request<v1::GetPackageRequest>,
    ) -> Result<Response<Self::GetPackageStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn create_release(
        &self,
        _: Request<v1::CreateReleaseRequest>,
    ) -> Result<Response<v1::CreateReleaseResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type ListReleasesStream = ReceiverStream<Result<v1::ListReleasesResponse, Status>>;

    async fn list_releases(
        &self,
        _: Request<v1::ListReleasesRequest>,
    ) -> Result<Response<Self::ListReleasesStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// Passes connections on to `to`; cuts the first ones after so many bytes each.
async fn breaking_proxy(tasks: &TaskTracker, to: SocketAddr, cuts: Vec<usize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let inner = tasks.clone();
    tasks.spawn(async move {
        let mut cuts = cuts.into_iter();
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            let budget = cuts.next().unwrap_or(usize::MAX);
            inner.spawn(pass_on(near, far, budget));
        }
    });
    address
}

async fn pass_on(near: TcpStream, far: TcpStream, mut budget: usize) {
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let upload = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = near_read.read(&mut buffer).await {
            if read > budget || far_write.write_all(&buffer[..read]).await.is_err() {
                return;
            }
            budget -= read;
        }
    };
    // When either direction ends, both sockets close.
    tokio::select! {
        () = upload => {}
        _ = tokio::io::copy(&mut far_read, &mut near_write) => {}
    }
}

fn noise(seed: u32, len: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as u8
    })
    .take(len as usize)
    .collect()
}

fn tree(dir: &Path, files: &[(&str, Vec<u8>)]) -> Tree {
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
    Tree::scan(dir).unwrap()
}

async fn channel_to(address: SocketAddr) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.connect().await?)
}

async fn push_to(address: SocketAddr, tree: Tree) -> anyhow::Result<Pushed> {
    let dial = async || Ok(Line::new(channel_to(address).await?, Arc::default()));
    push(Output::new(false, true), dial, tree, PATIENCE).await
}

#[tokio::test]
async fn what_the_depot_has_is_not_sent_again() {
    let depot = Depot::default();
    let address = depot.serve().await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (big, small) = (noise(1, 5_000_000), noise(2, 400_000));
    let first =
        push_to(address, tree(one.path(), &[("big", big.clone()), ("empty", Vec::new())])).await.unwrap();
    assert_eq!((Some(first.chunks_sent), first.reconnects, first.files), (first.chunks, 0, 2));
    assert_eq!(first.raw_bytes_sent, 5_000_000);
    assert!(first.to_string().contains("chunks sent"), "{first}");
    let again = push_to(address, Tree::scan(one.path()).unwrap()).await.unwrap();
    assert_eq!(
        (again.chunks, again.chunks_sent, again.digest),
        (None, 0, first.digest),
        "its digest was enough"
    );
    assert!(again.to_string().ends_with("the coordinator had it already"), "{again}");
    depot.packages.lock().unwrap().clear();
    let described = push_to(address, Tree::scan(one.path()).unwrap()).await.unwrap();
    assert_eq!((described.chunks, described.chunks_sent), (first.chunks, 0));
    assert!(described.to_string().ends_with("the coordinator had every chunk of it"), "{described}");
    let more = push_to(address, tree(two.path(), &[("a", big), ("b", small)])).await.unwrap();
    assert_eq!(more.raw_bytes_sent, 400_000);
    assert!(more.to_string().ends_with("the others were there already"), "{more}");
    assert_eq!(depot.packages.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_broken_connection_goes_on_where_it_was() {
    let depot = Depot::default();
    let proxy = breaking_proxy(
        &depot.tasks,
        depot.serve().await,
        vec![0, 3_000_000, 3_000_000, 3_000_000, 3_000_000],
    )
    .await;
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path(), &[("a", noise(1, 6_000_000)), ("b", noise(2, 6_000_000))]);
    let digest = tree.manifest().digest();
    let pushed = push_to(proxy, tree).await.unwrap();
    assert_eq!(pushed.reconnects, 5, "more than patience allows, but each brought the push forward");
    assert!(pushed.to_string().contains("went on after 5 broken connections"), "{pushed}");
    assert!(depot.packages.lock().unwrap().contains(&digest));
    let mut numbers = depot.numbers.lock().unwrap().clone();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..pushed.chunks.unwrap() as u32).collect::<Vec<_>>(), "each chunk was stored once");
    assert_eq!(
        (Some(pushed.chunks_sent), pushed.raw_bytes_sent),
        (pushed.chunks, 12_000_000),
        "and counts once"
    );
}

#[tokio::test]
async fn a_dial_that_fails_is_no_connection_that_broke() {
    let depot = Depot::default();
    let proxy = breaking_proxy(&depot.tasks, depot.serve().await, vec![1_000_000]).await;
    let (dir, dialled) = (tempfile::tempdir().unwrap(), AtomicU32::new(0));
    let dial = async || match dialled.fetch_add(1, Ordering::Relaxed) {
        1 | 2 => Err(anyhow::anyhow!("no route")),
        _ => Ok(Line::new(channel_to(proxy).await?, Arc::default())),
    };
    let tree = tree(dir.path(), &[("a", noise(1, 3_000_000))]);
    let pushed = push(Output::new(false, true), dial, tree, PATIENCE).await.unwrap();
    assert_eq!((pushed.reconnects, dialled.into_inner()), (1, 4));
    assert!(pushed.to_string().ends_with("(went on after 1 broken connection)"), "{pushed}");
}

#[tokio::test]
async fn what_a_connection_carried_before_is_not_of_the_push() {
    let (depot, meter) = (Depot::default(), Arc::<Meter>::default());
    let address = depot.serve().await;
    let (near, far) = tokio::io::duplex(1 << 10);
    let metered = |stream, meter: &Arc<Meter>| {
        Metered::new(stream, vec![meter.clone()], Pacing::default(), Paced::Writes)
    };
    metered(near, &meter).write_all(&[0; 700]).await.unwrap();
    metered(far, &meter).read_exact(&mut [0; 700]).await.unwrap();
    for (name, is_shared, bytes) in [("shared", true, 0), ("of its own", false, 700)] {
        let dir = tempfile::tempdir().unwrap();
        let dial = async || {
            let (channel, meter) = (channel_to(address).await?, meter.clone());
            Ok(if is_shared { Line::shared(channel, meter) } else { Line::new(channel, meter) })
        };
        let tree = tree(dir.path(), &[("a", name.into())]);
        let pushed = push(Output::new(false, true), dial, tree, PATIENCE).await.unwrap();
        assert_eq!((pushed.wire_bytes_sent, pushed.wire_bytes_received), (bytes, bytes), "{name}");
    }
}

#[tokio::test]
async fn groups_get_smaller_until_they_arrive() {
    let depot = Depot { group_bytes_max: Some(512 << 10), ..Depot::default() };
    let address = depot.serve().await;
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path(), &[("a", noise(1, 5_000_000))]);
    let pushed = push_to(address, tree).await.unwrap();
    let pushes = depot.pushes.load(Ordering::Relaxed);
    assert_eq!((pushes, pushed.reconnects), (3, 2), "of 2 MiB, of 1 MiB, of 512 KiB");
    assert_eq!(depot.numbers.lock().unwrap().len() as u64, pushed.chunks_sent);
    // Where not even one chunk arrives, it ends as ever.
    let depot = Depot { group_bytes_max: Some(0), ..Depot::default() };
    let address = depot.serve().await;
    let error = push_to(address, Tree::scan(dir.path()).unwrap()).await.unwrap_err();
    assert!(error::render(&error).contains("the push was silent for too long"), "{error:?}");
    assert_eq!(depot.pushes.load(Ordering::Relaxed), PATIENCE.attempts);
}

#[tokio::test]
async fn a_refusal_is_final() {
    let refusal = Some(Status::permission_denied("pushing needs the role deployer"));
    let depot = Depot { refusal, ..Depot::default() };
    let address = depot.serve().await;
    let dir = tempfile::tempdir().unwrap();
    let error = push_to(address, tree(dir.path(), &[("a", b"a".to_vec())])).await.unwrap_err();
    assert!(
        error::render(&error).contains("you may not do this: pushing needs the role deployer"),
        "{error:?}"
    );
    assert_eq!(depot.pushes.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_coordinator_that_asks_for_what_there_is_not_is_refused() {
    let depot = Depot { asks_too_much: true, ..Depot::default() };
    let address = depot.serve().await;
    let dir = tempfile::tempdir().unwrap();
    let error = push_to(address, tree(dir.path(), &[("a", b"a".to_vec())])).await.unwrap_err();
    assert!(error.to_string().contains("asks for chunks that this package does not have"), "{error:?}");
}

#[tokio::test]
async fn patience_ends() {
    let (dir, tried) = (tempfile::tempdir().unwrap(), AtomicU32::new(0));
    let dial = async || {
        tried.fetch_add(1, Ordering::Relaxed);
        Err(anyhow::anyhow!("no route"))
    };
    let tree = tree(dir.path(), &[("a", b"a".to_vec())]);
    let error = push(Output::new(false, true), dial, tree, PATIENCE).await.unwrap_err();
    assert_eq!(tried.load(Ordering::Relaxed), PATIENCE.attempts);
    let text = error::render(&error);
    assert!(text.contains("because: no route") && text.contains("hint: what arrived is kept"), "{text}");
}

#[test]
fn delays_double_up_to_the_longest() {
    let delays: Vec<u64> = (1..=4).map(|failures| PATIENCE.delay(failures).as_millis() as u64).collect();
    assert_eq!(delays, [1, 2, 4, 5]);
}
