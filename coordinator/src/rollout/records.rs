//! `Records.*`: what ran where and when, for operators.

use jiff::Timestamp;
use sluice_proto::convert::{Invalid, parse};
use sluice_proto::v1;
use tonic::{Request, Response, Status};

use super::store::{Stay, stays};
use super::wire;
use crate::store::Store;

/// Entries where the caller names no limit.
const ENTRIES: u32 = 100;
/// Stays where the caller names no limit.
const STAYS: u32 = 1_000;
/// Most of either in one answer: some 200 bytes each, well below the message limit.
const MOST: u32 = 10_000;

/// The `Records` service.
#[derive(Clone)]
pub struct RecordsService {
    store: Store,
}

impl RecordsService {
    /// Makes the service.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

fn limit(asked: u32, standard: u32) -> u32 {
    if asked == 0 { standard } else { asked.min(MOST) }
}

#[tonic::async_trait]
impl v1::records_server::Records for RecordsService {
    async fn host_history(
        &self,
        request: Request<v1::HostHistoryRequest>,
    ) -> Result<Response<v1::HostHistoryResponse>, Status> {
        let v1::HostHistoryRequest { host, at_unix_ms, limit: asked } = request.into_inner();
        let host = parse("host", &host)?;
        let lines = match at_unix_ms {
            0 => stays::of_host(&self.store, &host, limit(asked, ENTRIES)).await?,
            millis => {
                let at = Timestamp::from_millisecond(millis);
                let at = at.map_err(|error| Invalid::new("at_unix_ms", error.to_string()))?;
                stays::at(&self.store, &host, at).await?
            }
        };
        let entries = lines.into_iter().map(wire::line).collect();
        Ok(Response::new(v1::HostHistoryResponse { entries }))
    }

    async fn release_history(
        &self,
        request: Request<v1::ReleaseHistoryRequest>,
    ) -> Result<Response<v1::ReleaseHistoryResponse>, Status> {
        let v1::ReleaseHistoryRequest { app, version, limit: asked, before } = request.into_inner();
        let (app, version) = (parse("app", &app)?, parse("version", &version)?);
        let before = if before == 0 { i64::MAX.unsigned_abs() } else { before };
        let limit = limit(asked, STAYS);
        // One more than asked for tells whether there are more.
        let mut stays = stays::of_release(&self.store, &app, &version, before, limit + 1).await?;
        let more = stays.len() > limit as usize;
        stays.truncate(limit as usize);
        let stays = stays.into_iter().map(message).collect();
        Ok(Response::new(v1::ReleaseHistoryResponse { stays, more }))
    }
}

fn message(stay: Stay) -> v1::ReleaseStay {
    let Stay { number, host, from, until, rollout, next } = stay;
    v1::ReleaseStay {
        number,
        host: host.to_string(),
        from_unix_ms: from.as_millisecond(),
        until_unix_ms: until.map_or(0, Timestamp::as_millisecond),
        rollout: rollout.map(String::from).unwrap_or_default(),
        next: next.as_ref().map(Into::into),
    }
}
