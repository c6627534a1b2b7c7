//! One stream of a push.
//!
//! Two halves run side by side: [`upload`] feeds requests through a bounded channel, [`answers`] reads what the
//! coordinator says and hands the upload what is asked of it: first whether the package has to be described at all,
//! then the list of missing chunks. At most [`FRAMES_AHEAD`] frames are being
//! compressed and [`REQUESTS_AHEAD`] wait for the connection, so memory stays at a few groups.

use std::ops::Range;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use v1::packages_client::PackagesClient;
use v1::push_request::Message as Request;
use v1::push_response::Message as Response;

use super::parcel::Parcel;
use super::{Lacking, Tally, missing};

/// Frames compressed at the same time.
const FRAMES_AHEAD: usize = 2;
/// Requests that wait for the connection.
const REQUESTS_AHEAD: usize = 2;
/// Bytes of manifest or index in one message: as many as a chunk has at most, which a link of 8 kbit/s carries before the coordinator
/// takes the push for silent.
const PIECE_BYTES: usize = caps::CHUNK_BYTES_MAX as usize;

/// How an attempt failed.
pub(super) enum Failure {
    /// The connection broke; a new one may bring it to its end.
    Broken(anyhow::Error),
    /// Trying again would fail again.
    Final(anyhow::Error),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        if is_broken(&status) { Self::Broken(status.into()) } else { Self::Final(status.into()) }
    }
}

/// Says whether a status speaks of the connection, not of the request.
pub(in crate::cli) fn is_broken(status: &Status) -> bool {
    // A status with a source was made on this side, of what happened to the connection.
    std::error::Error::source(status).is_some()
        || matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Aborted)
}

/// Pushes over one connection until the coordinator has committed the package.
pub(super) async fn run(channel: Channel, parcel: &Parcel, tally: &mut Tally) -> Result<(), Failure> {
    let (requests, queue) = mpsc::channel(REQUESTS_AHEAD);
    let (tell, asked) = questions();
    let client = PackagesClient::new(channel);
    tokio::select! {
        biased;
        done = answers(client, queue, tell, parcel) => done,
        // Only a failure on this side ends the attempt from here; otherwise the coordinator has the last word.
        Err(error) = upload(parcel, requests, asked, tally) => Err(Failure::Final(error)),
    }
}

/// What the coordinator asks, as [`answers`] passes it on; each once.
struct Tell {
    describe: Option<oneshot::Sender<()>>,
    missing: Option<oneshot::Sender<Vec<Range<u32>>>>,
}

/// What the coordinator asks, as [`upload`] waits for it.
struct Asked {
    describe: oneshot::Receiver<()>,
    missing: oneshot::Receiver<Vec<Range<u32>>>,
}

fn questions() -> (Tell, Asked) {
    let (tell_describe, describe) = oneshot::channel();
    let (tell_missing, missing) = oneshot::channel();
    (Tell { describe: Some(tell_describe), missing: Some(tell_missing) }, Asked { describe, missing })
}

async fn answers(
    mut client: PackagesClient<Channel>,
    queue: mpsc::Receiver<v1::PushRequest>,
    mut tell: Tell,
    parcel: &Parcel,
) -> Result<(), Failure> {
    let mut responses = client.push(ReceiverStream::new(queue)).await?.into_inner();
    let mut ranges = Vec::new();
    while let Some(response) = responses.message().await? {
        match response.message {
            Some(Response::Describe(v1::PushDescribe {})) => {
                // Here and below: the upload is gone only when it failed, which ends the attempt anyway.
                let _ = tell.describe.take().map(|describe| describe.send(()));
            }
            Some(Response::Missing(v1::PushMissing { runs, more })) => {
                let chunks = parcel.described().map_or(0, |description| description.chunk_count());
                missing::extend(&mut ranges, &runs, chunks).map_err(|error| Failure::Final(error.into()))?;
                if !more && let Some(missing) = tell.missing.take() {
                    let _ = missing.send(std::mem::take(&mut ranges));
                }
            }
            Some(Response::Stored(v1::PushStored { chunks })) => tracing::debug!(chunks, "chunks stored"),
            Some(Response::Committed(v1::PushCommitted { package })) => return committed(package, parcel),
            None => {}
        }
    }
    Err(Failure::Broken(anyhow::anyhow!("the coordinator ended the push before it was complete")))
}

fn committed(package: Option<v1::Package>, parcel: &Parcel) -> Result<(), Failure> {
    let digest = package.as_ref().and_then(|package| Digest::from_slice(&package.digest));
    if digest == Some(parcel.digest) {
        return Ok(());
    }
    Err(Failure::Final(anyhow::anyhow!("the coordinator committed another package than was pushed")))
}

/// Sends everything. Returns early, without an error, when the connection is gone: its answers say why.
async fn upload(
    parcel: &Parcel,
    requests: mpsc::Sender<v1::PushRequest>,
    asked: Asked,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let send = async |message| requests.send(v1::PushRequest { message: Some(message) }).await.is_ok();
    let begin = v1::PushBegin { package: parcel.digest.as_bytes().to_vec() };
    if !send(Request::Begin(begin)).await || asked.describe.await.is_err() {
        return Ok(());
    }
    let description = parcel.describe(tally.output).await?;
    let described = description.clone();
    let (manifest, index) = spawn_blocking(move || described.compressed()).await??;
    for message in announcement(&manifest, &index) {
        if !send(message).await {
            return Ok(());
        }
    }
    drop((manifest, index));
    let Ok(missing) = asked.missing.await else {
        return Ok(());
    };
    tally.begin(Lacking::new(&missing, description));
    let compress = |group| {
        let description = description.clone();
        async move { spawn_blocking(move || description.frame(&group).map(|frame| (group, frame))).await? }
    };
    let mut frames =
        stream::iter(description.groups(&missing, tally.group_bytes)).map(compress).buffered(FRAMES_AHEAD);
    while let Some((group, frame)) = frames.try_next().await? {
        let raw_bytes = group.raw_len;
        if !send(Request::Chunks(v1::PushChunks { numbers: group.numbers, frame: frame.into() })).await {
            return Ok(());
        }
        tally.sent(raw_bytes);
    }
    // Whether it went out or not, the answer decides.
    send(Request::Commit(v1::PushCommit {})).await;
    Ok(())
}

/// Says what the package is made of: lengths, manifest, index.
fn announcement(manifest: &[u8], index: &[u8]) -> impl Iterator<Item = Request> {
    let lengths = v1::PushDescription { manifest_len: manifest.len() as u64, index_len: index.len() as u64 };
    std::iter::once(Request::Description(lengths))
        .chain(manifest.chunks(PIECE_BYTES).map(|piece| Request::Manifest(piece.to_vec())))
        .chain(index.chunks(PIECE_BYTES).map(|piece| Request::Index(piece.to_vec())))
}
