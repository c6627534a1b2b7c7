//! The `Packages` service: what operators push, list and register.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use prost::Message;
use sluice_common::caps;
use sluice_common::release::SignedRelease;
use sluice_proto::convert;
use sluice_proto::v1;
use sluice_proto::v1::packages_server::Packages;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::packages::{self, LoadError, LookupError};
use super::plans::Improver;
use super::releases::{self, Registered};
use super::{Depot, push};
use crate::access::Caller;

/// Bytes of a manifest in one message.
const PIECE_BYTES: usize = caps::CONTENT_MESSAGE_BYTES;

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Debug, Clone)]
pub struct PackagesService {
    depot: Arc<Depot>,
    improver: Arc<Improver>,
}

impl PackagesService {
    /// Makes the service over a depot and the planning ahead for it.
    pub fn new(depot: Arc<Depot>, improver: Arc<Improver>) -> Self {
        Self { depot, improver }
    }
}

impl From<LookupError> for Status {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Prefix(_) | LookupError::Ambiguous { .. } => {
                Self::invalid_argument(error.to_string())
            }
            LookupError::Unknown(_) => Self::not_found(error.to_string()),
            LookupError::Store(error) => error.into(),
        }
    }
}

impl From<LoadError> for Status {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Unknown(_) => Self::not_found(error.to_string()),
            LoadError::Damaged { .. } => Self::failed_precondition(error.to_string()),
            LoadError::Object(error) => error.into(),
            LoadError::Store(error) => error.into(),
        }
    }
}

impl From<&Registered> for v1::Release {
    fn from(registered: &Registered) -> Self {
        let Registered { signed, created, created_by } = registered;
        Self {
            signed: Some(signed.into()),
            created_unix_ms: created.as_millisecond(),
            created_by: created_by.clone(),
        }
    }
}

#[tonic::async_trait]
impl Packages for PackagesService {
    type PushStream = ReceiverStream<Result<v1::PushResponse, Status>>;

    async fn push(
        &self,
        request: Request<Streaming<v1::PushRequest>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let by = Caller::of(&request)?.operator()?.clone();
        let responses = push::start(&self.depot, by, request.into_inner());
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    type ListPackagesStream = Responses<v1::ListPackagesResponse>;

    async fn list_packages(
        &self,
        request: Request<v1::ListPackagesRequest>,
    ) -> Result<Response<Self::ListPackagesStream>, Status> {
        let v1::ListPackagesRequest {} = request.into_inner();
        let mut packages = Vec::new();
        for row in packages::list(&self.depot.store).await? {
            packages.push(packages::to_wire(&self.depot.store, &row).await?);
        }
        Ok(Response::new(listed(packages, |packages| v1::ListPackagesResponse { packages })))
    }

    type GetPackageStream = Responses<v1::GetPackageResponse>;

    async fn get_package(
        &self,
        request: Request<v1::GetPackageRequest>,
    ) -> Result<Response<Self::GetPackageStream>, Status> {
        let v1::GetPackageRequest { digest_prefix, manifest } = request.into_inner();
        let row = packages::find_by_prefix(&self.depot.store, &digest_prefix).await?;
        let package = packages::to_wire(&self.depot.store, &row).await?;
        let compressed = match manifest {
            true => self.depot.compressed_manifest(row.digest).await?,
            false => Bytes::new(),
        };
        use v1::get_package_response::Message as Piece;
        let pieces = pieces(compressed).map(|piece| Piece::Manifest(piece.to_vec()));
        let messages = stream::iter([Piece::Package(package)]).chain(stream::iter(pieces));
        let responses = messages.map(|message| Ok(v1::GetPackageResponse { message: Some(message) }));
        Ok(Response::new(Box::pin(responses)))
    }

    type ListPlansStream = Responses<v1::ListPlansResponse>;

    async fn list_plans(
        &self,
        request: Request<v1::ListPlansRequest>,
    ) -> Result<Response<Self::ListPlansStream>, Status> {
        let v1::ListPlansRequest { digest_prefix } = request.into_inner();
        let package = match digest_prefix.as_str() {
            "" => None,
            prefix => Some(packages::find_by_prefix(&self.depot.store, prefix).await?.digest),
        };
        let plans = self.improver.overview(package).await?;
        let plans = plans.into_iter().map(v1::TransferPlan::from);
        Ok(Response::new(listed(plans, |plans| v1::ListPlansResponse { plans })))
    }

    async fn create_release(
        &self,
        request: Request<v1::CreateReleaseRequest>,
    ) -> Result<Response<v1::CreateReleaseResponse>, Status> {
        let by = Caller::of(&request)?.operator()?.clone();
        let v1::CreateReleaseRequest { release } = request.into_inner();
        let signed = SignedRelease::try_from(convert::required("release", release)?)?;
        let (registered, created) = releases::create(&self.depot.store, &by, signed).await?;
        self.depot.tell();
        let release = Some(v1::Release::from(&registered));
        Ok(Response::new(v1::CreateReleaseResponse { release, created }))
    }

    type ListReleasesStream = Responses<v1::ListReleasesResponse>;

    async fn list_releases(
        &self,
        request: Request<v1::ListReleasesRequest>,
    ) -> Result<Response<Self::ListReleasesStream>, Status> {
        let v1::ListReleasesRequest { app } = request.into_inner();
        let app = (!app.is_empty()).then(|| convert::parse("app", &app)).transpose()?;
        let releases = releases::list(&self.depot.store, app.as_ref()).await?;
        let releases: Vec<v1::Release> = releases.iter().map(v1::Release::from).collect();
        Ok(Response::new(listed(releases, |releases| v1::ListReleasesResponse { releases })))
    }
}

/// Answers with a list, in as many messages as it takes: one at least.
fn listed<T: Message + 'static, M: Send + 'static>(
    items: impl IntoIterator<Item = T>,
    message: fn(Vec<T>) -> M,
) -> Responses<M> {
    let pages = pages(items.into_iter());
    Box::pin(stream::iter(pages.into_iter().map(move |items| Ok(message(items)))))
}

/// Puts as many items on each page as it has room for.
fn pages<T: Message>(items: impl Iterator<Item = T>) -> Vec<Vec<T>> {
    let (mut pages, mut room) = (vec![Vec::new()], caps::PAGE_BYTES);
    for item in items {
        let bytes = item.encoded_len();
        if bytes > room && pages.last().is_some_and(|page| !page.is_empty()) {
            pages.push(Vec::new());
            room = caps::PAGE_BYTES;
        }
        room = room.saturating_sub(bytes);
        if let Some(page) = pages.last_mut() {
            page.push(item);
        }
    }
    pages
}

/// Cuts bytes into message-sized pieces without copying them.
pub(super) fn pieces(bytes: Bytes) -> impl Iterator<Item = Bytes> {
    let starts = (0..bytes.len()).step_by(PIECE_BYTES);
    starts.map(move |start| bytes.slice(start..bytes.len().min(start + PIECE_BYTES)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_into_messages_that_are_read() {
        let release = |notes: usize| v1::Release { created_by: "x".repeat(notes), ..v1::Release::default() };
        let (kib, mib) = (1 << 10, 1 << 20);
        for (name, sizes, expected) in [
            ("none", vec![], vec![0]),
            ("few", vec![1, 2, 3], vec![3]),
            ("many", vec![100 * kib; 25], vec![10, 10, 5]),
            ("one larger than a page", vec![1, 3 * mib, 1], vec![1, 1, 1]),
        ] {
            let pages = pages(sizes.iter().map(|size| release(*size)));
            assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{name}");
            let sent: Vec<usize> = pages.iter().flatten().map(|release| release.created_by.len()).collect();
            assert_eq!(sent, sizes, "{name}");
        }
    }
}
