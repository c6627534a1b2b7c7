//! Taking a package in: its digest first, which may be all; then manifest and index, the chunks that the depot lacks,
//! and the commit.
//!
//! Invariant: before the commit nothing exists but chunks, each verified, which the next attempt need not send again.
//! Memory is bounded by the limits of [`caps`](sluice_common::caps) whatever the package: two packs and a few frames besides the manifest
//! and the index.
//!
//! Runs as one task per push. It reads requests as fast as it can place them, answers through a bounded channel, and
//! ends with the stream, the commit, a refusal, or the depot's token.

mod check;
mod commit;
mod error;
mod prover;
mod receive;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use sluice_common::digest::Digest;
use sluice_common::name::OperatorName;
use sluice_proto::v1;
use sluice_proto::v1::push_request::Message as Request;
use sluice_proto::v1::push_response::Message as Response;
use tokio::sync::mpsc;
use tonic::Status;

pub use self::error::PushError;
use self::receive::Announced;
use self::upload::Upload;
use super::Depot;

/// Silence after which a push is given up: another may want its place.
const SILENCE_MAX: Duration = Duration::from_secs(5 * 60);
/// Runs of missing chunks in one message: far below a message's limit.
const RUNS_PER_MESSAGE: usize = 50_000;
/// Responses waiting to be sent.
const RESPONSES: usize = 16;

/// What a push is answered.
pub type Responses = mpsc::Receiver<Result<v1::PushResponse, Status>>;

/// Starts taking in what `requests` bring.
pub fn start<R>(depot: &Arc<Depot>, by: OperatorName, requests: R) -> Responses
where
    R: Stream<Item = Result<v1::PushRequest, Status>> + Send + Unpin + 'static,
{
    let (responses, receiver) = mpsc::channel(RESPONSES);
    let depot = depot.clone();
    depot.clone().tasks.spawn(async move {
        let mut session = Session { depot: depot.clone(), by, requests, responses };
        let Err(error) = session.run().await else { return };
        match &error {
            PushError::Broken | PushError::Stopping | PushError::Silent => {
                tracing::info!(operator = %session.by, reason = %error, "push broken off; it goes on where it was");
            }
            refused => tracing::warn!(operator = %session.by, error = refused as &dyn std::error::Error, "push refused"),
        }
        // Nobody may be left to hear it.
        let _ = session.responses.send(Err(error.into())).await;
    });
    receiver
}

/// One running push.
struct Session<R> {
    depot: Arc<Depot>,
    by: OperatorName,
    requests: R,
    responses: mpsc::Sender<Result<v1::PushResponse, Status>>,
}

impl<R> Session<R>
where
    R: Stream<Item = Result<v1::PushRequest, Status>> + Send + Unpin,
{
    async fn run(&mut self) -> Result<(), PushError> {
        let pushes = self.depot.pushes.clone();
        let _place = tokio::select! {
            place = pushes.acquire() => place.expect("the semaphore is never closed"),
            () = self.responses.closed() => return Err(PushError::Broken),
            () = self.depot.token.cancelled() => return Err(PushError::Stopping),
        };
        let digest = match self.next().await? {
            Request::Begin(begin) => receive::begin(&begin)?,
            other => return Err(PushError::unexpected("begin", &other)),
        };
        if let Some(package) = check::whole(&self.depot, digest).await? {
            return self.answer_at_once(package).await;
        }
        let under_way = self.depot.works.begin(vec![digest]);
        let announced = self.receive(digest).await?;
        under_way.count_on(announced.index.clone());
        let lacking = check::lacking(&self.depot, &announced.index).await?;
        self.send_missing(&lacking).await?;
        let mut upload = Upload::new(self.depot.clone(), announced.clone(), lacking);
        let complete = self.upload(&mut upload).await;
        // What arrived is kept even where the push ends here.
        let stored = upload.finish().await;
        complete?;
        let stored = stored?;
        self.send_stored(stored.chunks).await?;
        let package = commit::commit(&self.depot, &self.by, &announced, &stored.proven).await?;
        // Its rows are there: whoever hears the answer may rely on it.
        drop(under_way);
        self.send(Response::Committed(v1::PushCommitted { package: Some(package) })).await
    }

    /// Answers a push of what is here already; passes over whatever the other side has sent meanwhile.
    async fn answer_at_once(&mut self, package: v1::Package) -> Result<(), PushError> {
        self.send_missing(&[]).await?;
        self.send(Response::Committed(v1::PushCommitted { package: Some(package) })).await?;
        loop {
            match self.next().await {
                Ok(Request::Commit(_)) | Err(PushError::Broken) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for manifest and index, takes them and checks one against the other.
    async fn receive(&mut self, package: Digest) -> Result<Arc<Announced>, PushError> {
        self.send(Response::Describe(v1::PushDescribe {})).await?;
        let description = match self.next().await? {
            Request::Description(description) => receive::Description::try_from(description)?,
            other => return Err(PushError::unexpected("description", &other)),
        };
        self.depot.make_room(description.manifest_len);
        let mut manifest = receive::Pieces::new("manifest", description.manifest_len);
        let mut index = receive::Pieces::new("index", description.index_len);
        while !(manifest.is_whole() && index.is_whole()) {
            match self.next().await? {
                Request::Manifest(piece) => manifest.add(&piece)?,
                Request::Index(piece) if manifest.is_whole() => index.add(&piece)?,
                other if manifest.is_whole() => return Err(PushError::unexpected("index", &other)),
                other => return Err(PushError::unexpected("manifest", &other)),
            }
        }
        let (manifest, index) = (manifest.into_bytes(), index.into_bytes());
        let decoding = tokio::task::spawn_blocking(move || Announced::decode(package, manifest, index));
        Ok(Arc::new(decoding.await.expect("decoding does not panic")?))
    }

    async fn upload(&mut self, upload: &mut Upload) -> Result<(), PushError> {
        let token = self.depot.token.clone();
        loop {
            let silence = tokio::time::sleep(SILENCE_MAX);
            tokio::select! {
                () = token.cancelled() => return Err(PushError::Stopping),
                request = self.requests.next(), if upload.has_room() => {
                    match received(request)? {
                        Request::Chunks(chunks) => upload.take(chunks)?,
                        Request::Commit(v1::PushCommit {}) => return upload.expect_complete(),
                        other => return Err(PushError::unexpected("chunks", &other)),
                    }
                }
                progress = upload.progress() => {
                    if let Some(stored) = progress? {
                        self.send_stored(stored).await?;
                    }
                }
                () = silence => return Err(PushError::Silent),
            }
        }
    }

    async fn next(&mut self) -> Result<Request, PushError> {
        tokio::select! {
            request = self.requests.next() => received(request),
            () = self.depot.token.cancelled() => Err(PushError::Stopping),
            () = tokio::time::sleep(SILENCE_MAX) => Err(PushError::Silent),
        }
    }

    /// Tells which chunks are missing, as runs of their numbers.
    async fn send_missing(&mut self, lacking: &[bool]) -> Result<(), PushError> {
        let runs = runs(lacking);
        let mut messages = runs.chunks(RUNS_PER_MESSAGE * 2).peekable();
        loop {
            let runs = messages.next().unwrap_or_default().to_vec();
            let more = messages.peek().is_some();
            self.send(Response::Missing(v1::PushMissing { runs, more })).await?;
            if !more {
                return Ok(());
            }
        }
    }

    async fn send_stored(&mut self, chunks: u32) -> Result<(), PushError> {
        self.send(Response::Stored(v1::PushStored { chunks })).await
    }

    async fn send(&mut self, response: Response) -> Result<(), PushError> {
        let response = v1::PushResponse { message: Some(response) };
        tokio::select! {
            sent = self.responses.send(Ok(response)) => sent.map_err(|_| PushError::Broken),
            () = self.depot.token.cancelled() => Err(PushError::Stopping),
            () = tokio::time::sleep(SILENCE_MAX) => Err(PushError::Silent),
        }
    }
}

/// Takes a request off the stream; an end without a commit, and a stream that breaks, are a push broken off.
fn received(request: Option<Result<v1::PushRequest, Status>>) -> Result<Request, PushError> {
    match request {
        Some(Ok(v1::PushRequest { message: Some(message) })) => Ok(message),
        Some(Ok(v1::PushRequest { message: None })) => Err(PushError::Empty),
        Some(Err(_)) | None => Err(PushError::Broken),
    }
}

/// Returns first, count, first, count, ... of the runs that are set.
fn runs(lacking: &[bool]) -> Vec<u32> {
    let mut runs: Vec<u32> = Vec::new();
    let mut open = false;
    for (number, lacking) in lacking.iter().enumerate() {
        match (lacking, open) {
            (true, true) => {
                if let Some(count) = runs.last_mut() {
                    *count += 1;
                }
            }
            (true, false) => runs.extend([number as u32, 1]),
            (false, _) => {}
        }
        open = *lacking;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_chunks_are_told_in_runs() {
        for (lacking, expected) in [
            (&[][..], &[][..]),
            (&[false, false], &[]),
            (&[true], &[0, 1]),
            (&[true, true, false, true, false, true, true], &[0, 2, 3, 1, 5, 2]),
        ] {
            assert_eq!(runs(lacking), expected);
        }
    }
}
