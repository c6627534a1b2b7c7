//! A depot of a few lines, in memory.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use sluice_common::digest::Digest;
use sluice_common::index::PackageIndex;
use sluice_common::manifest::Manifest;
use sluice_common::transfer::decode_manifest;
use sluice_proto::v1;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use v1::packages_server::{Packages, PackagesServer};
use v1::push_request::Message;
use v1::push_response::Message as Answer;

/// A depot in memory.
#[derive(Clone, Default)]
pub(super) struct Depot {
    pub(super) chunks: Arc<Mutex<HashMap<Digest, Vec<u8>>>>,
    pub(super) packages: Arc<Mutex<HashSet<Digest>>>,
    pub(super) pushes: Arc<AtomicU32>,
    /// Chunk numbers as they came, over all pushes.
    pub(super) numbers: Arc<Mutex<Vec<u32>>>,
    pub(super) refusal: Option<Status>,
    pub(super) asks_too_much: bool,
    /// Raw bytes of the largest group that comes before it ends the push.
    pub(super) group_bytes_max: Option<usize>,
    pub(super) tasks: TaskTracker,
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
    pub(super) async fn serve(&self) -> SocketAddr {
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
