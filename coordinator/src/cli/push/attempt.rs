//! One stream of a push.
//!
//! Two halves run side by side: [`upload`] feeds requests through a bounded channel, [`answers`] reads what the
//! coordinator says and hands the upload its list of missing chunks. At most [`FRAMES_AHEAD`] frames are being
//! compressed and [`REQUESTS_AHEAD`] wait for the connection, so memory stays at a few groups.

use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
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

use super::Tally;
use super::missing;
use super::parcel::Parcel;

/// Frames compressed at the same time.
const FRAMES_AHEAD: usize = 2;
/// Requests that wait for the connection.
const REQUESTS_AHEAD: usize = 2;
/// Bytes of manifest or index in one message: well below the limit of a message.
const PIECE_BYTES: usize = 1 << 20;

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
pub(super) async fn run(channel: Channel, parcel: &Arc<Parcel>, tally: &mut Tally) -> Result<(), Failure> {
    let (requests, queue) = mpsc::channel(REQUESTS_AHEAD);
    let (tell_missing, missing) = oneshot::channel();
    let client = PackagesClient::new(channel);
    tokio::select! {
        biased;
        done = answers(client, queue, tell_missing, parcel) => done,
        // Only a failure on this side ends the attempt from here; otherwise the coordinator has the last word.
        Err(error) = upload(parcel, requests, missing, tally) => Err(Failure::Final(error)),
    }
}

async fn answers(
    mut client: PackagesClient<Channel>,
    queue: mpsc::Receiver<v1::PushRequest>,
    tell_missing: oneshot::Sender<Vec<Range<u32>>>,
    parcel: &Parcel,
) -> Result<(), Failure> {
    let mut responses = client.push(ReceiverStream::new(queue)).await?.into_inner();
    let mut tell_missing = Some(tell_missing);
    let mut ranges = Vec::new();
    while let Some(response) = responses.message().await? {
        match response.message {
            Some(Response::Missing(v1::PushMissing { runs, more })) => {
                missing::extend(&mut ranges, &runs, parcel.chunks().len())
                    .map_err(|error| Failure::Final(error.into()))?;
                if !more && let Some(tell) = tell_missing.take() {
                    // The upload is gone only when it failed, which ends the attempt anyway.
                    let _ = tell.send(std::mem::take(&mut ranges));
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
    parcel: &Arc<Parcel>,
    requests: mpsc::Sender<v1::PushRequest>,
    missing: oneshot::Receiver<Vec<Range<u32>>>,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let send = async |message| requests.send(v1::PushRequest { message: Some(message) }).await.is_ok();
    let begin = v1::PushBegin {
        package: parcel.digest.as_bytes().to_vec(),
        manifest_len: parcel.manifest.len() as u64,
        index_len: parcel.index.len() as u64,
    };
    let head = std::iter::once(Request::Begin(begin))
        .chain(parcel.manifest.chunks(PIECE_BYTES).map(|piece| Request::Manifest(piece.to_vec())))
        .chain(parcel.index.chunks(PIECE_BYTES).map(|piece| Request::Index(piece.to_vec())));
    for message in head {
        if !send(message).await {
            return Ok(());
        }
    }
    tally.sent(0, 0, (parcel.manifest.len() + parcel.index.len()) as u64);
    let Ok(missing) = missing.await else {
        return Ok(());
    };
    tally.begin(parcel.raw_len(&missing));
    let compress = |group| {
        let parcel = parcel.clone();
        async move { spawn_blocking(move || parcel.frame(&group).map(|frame| (group, frame))).await? }
    };
    let mut frames = stream::iter(parcel.groups(&missing)).map(compress).buffered(FRAMES_AHEAD);
    while let Some((group, frame)) = frames.try_next().await? {
        let (chunks, raw, wire) = (group.numbers.len(), group.raw_len, frame.len() as u64);
        if !send(Request::Chunks(v1::PushChunks { numbers: group.numbers, frame })).await {
            return Ok(());
        }
        tally.sent(chunks, raw, wire);
    }
    // Whether it went out or not, the answer decides.
    send(Request::Commit(v1::PushCommit {})).await;
    Ok(())
}
