//! `Rollouts.*`: start, look at, watch and command rollouts; what ran where.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use sluice_common::name::{AppName, RolloutId};
use sluice_proto::convert::{Invalid, parse};
use sluice_proto::v1;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::command::Command;
use super::handle::{CommandError, Handle, StartError};
use super::wire;
use crate::access::Caller;

/// Rollouts listed where the caller names no limit.
const LISTED: u32 = 50;
/// Most rollouts in one answer: bounds what is read for it.
const LISTED_MAX: u32 = 500;
/// Lines of history where the caller names no limit.
const LINES: u32 = 100;
/// Most lines of history in one answer: some 200 bytes each, well below the message limit.
const LINES_MAX: u32 = 10_000;
/// Longest reason that an operator gives.
const REASON_BYTES_MAX: usize = 1_000;
/// Time between two looks of a watching operator at most: blockers count seconds.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two looks at least: many hosts report at once.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// The `Rollouts` service.
#[derive(Clone)]
pub struct RolloutsService {
    handle: Handle,
    stop: CancellationToken,
}

impl RolloutsService {
    /// Makes the service. Watching streams end with `stop`.
    pub fn new(handle: Handle, stop: CancellationToken) -> Self {
        Self { handle, stop }
    }

    async fn rollout(&self, id: &RolloutId) -> Result<v1::Rollout, Status> {
        let snapshot = self.handle.snapshot(id).await?;
        let snapshot = snapshot.ok_or_else(|| Status::from(CommandError::NoRollout(id.clone())))?;
        let notes = self.handle.notes(&snapshot.rollout.app, &snapshot.rollout.version).await?;
        Ok(wire::rollout(&snapshot, notes, true))
    }

    /// Carries out a command and answers with the rollout as it stands then.
    async fn command<T>(
        &self,
        request: &Request<T>,
        id: &str,
        command: Command,
    ) -> Result<Option<v1::Rollout>, Status> {
        let caller = Caller::of(request)?;
        let id: RolloutId = parse("id", id)?;
        self.handle.command(caller, &id, command).await?;
        self.rollout(&id).await.map(Some)
    }
}

/// Says who asks for something, and why.
fn reason<T>(request: &Request<T>, reason: &str) -> Result<String, Status> {
    let by = Caller::of(request)?.operator()?;
    match reason.trim() {
        "" => Ok(format!("by {by}")),
        reason if reason.len() <= REASON_BYTES_MAX => Ok(format!("by {by}: {reason}")),
        reason => Err(Invalid::new("reason", format!("{} bytes are too many", reason.len())).into()),
    }
}

fn limit(asked: u32, standard: u32, max: u32) -> u32 {
    if asked == 0 { standard } else { asked.min(max) }
}

fn app_or_all(app: &str) -> Result<Option<AppName>, Invalid> {
    if app.is_empty() { Ok(None) } else { parse("app", app).map(Some) }
}

#[tonic::async_trait]
impl v1::rollouts_server::Rollouts for RolloutsService {
    async fn start(
        &self,
        request: Request<v1::StartRolloutRequest>,
    ) -> Result<Response<v1::StartRolloutResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let v1::StartRolloutRequest { app, version, spec } = request.into_inner();
        let (app, version, spec) =
            (parse("app", &app)?, parse("version", &version)?, wire::spec(spec.unwrap_or_default())?);
        let id = self.handle.start(caller.operator()?, &caller, app, version, spec).await?;
        let rollout = self.rollout(&id).await?;
        Ok(Response::new(v1::StartRolloutResponse { rollout: Some(rollout) }))
    }

    async fn list(
        &self,
        request: Request<v1::ListRolloutsRequest>,
    ) -> Result<Response<v1::ListRolloutsResponse>, Status> {
        let v1::ListRolloutsRequest { app, limit: asked } = request.into_inner();
        let app = app_or_all(&app)?;
        let list = self.handle.list(app.as_ref(), limit(asked, LISTED, LISTED_MAX)).await?;
        let rollouts = list.iter().map(|snapshot| wire::rollout(snapshot, String::new(), false)).collect();
        Ok(Response::new(v1::ListRolloutsResponse { rollouts }))
    }

    async fn get(
        &self,
        request: Request<v1::GetRolloutRequest>,
    ) -> Result<Response<v1::GetRolloutResponse>, Status> {
        let id = parse("id", &request.into_inner().id)?;
        let rollout = self.rollout(&id).await?;
        Ok(Response::new(v1::GetRolloutResponse { rollout: Some(rollout) }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchRolloutResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRolloutRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let id = parse("id", &request.into_inner().id)?;
        let first = self.rollout(&id).await?;
        let watching = Watching {
            service: self.clone(),
            changes: self.handle.changes(&id),
            id,
            next: Some(first),
            sent: None,
        };
        Ok(Response::new(Box::pin(futures::stream::try_unfold(watching, Watching::step))))
    }

    async fn pause(
        &self,
        request: Request<v1::PauseRolloutRequest>,
    ) -> Result<Response<v1::PauseRolloutResponse>, Status> {
        let v1::PauseRolloutRequest { id, reason: why } = request.get_ref();
        let command = Command::Pause { reason: reason(&request, why)? };
        let rollout = self.command(&request, id, command).await?;
        Ok(Response::new(v1::PauseRolloutResponse { rollout }))
    }

    async fn resume(
        &self,
        request: Request<v1::ResumeRolloutRequest>,
    ) -> Result<Response<v1::ResumeRolloutResponse>, Status> {
        let rollout = self.command(&request, &request.get_ref().id, Command::Resume).await?;
        Ok(Response::new(v1::ResumeRolloutResponse { rollout }))
    }

    async fn abort(
        &self,
        request: Request<v1::AbortRolloutRequest>,
    ) -> Result<Response<v1::AbortRolloutResponse>, Status> {
        let v1::AbortRolloutRequest { id, reason: why } = request.get_ref();
        let command = Command::Abort { reason: reason(&request, why)? };
        let rollout = self.command(&request, id, command).await?;
        Ok(Response::new(v1::AbortRolloutResponse { rollout }))
    }

    async fn roll_back(
        &self,
        request: Request<v1::RollBackRolloutRequest>,
    ) -> Result<Response<v1::RollBackRolloutResponse>, Status> {
        let v1::RollBackRolloutRequest { id, reason: why } = request.get_ref();
        let command = Command::RollBack { reason: reason(&request, why)? };
        let rollout = self.command(&request, id, command).await?;
        Ok(Response::new(v1::RollBackRolloutResponse { rollout }))
    }

    async fn app_history(
        &self,
        request: Request<v1::AppHistoryRequest>,
    ) -> Result<Response<v1::AppHistoryResponse>, Status> {
        let v1::AppHistoryRequest { app, host, limit: asked } = request.into_inner();
        let app = parse("app", &app)?;
        let host = if host.is_empty() { None } else { Some(parse("host", &host)?) };
        let lines = self.handle.history(&app, host.as_ref(), limit(asked, LINES, LINES_MAX)).await?;
        let entries = lines.into_iter().map(wire::line).collect();
        Ok(Response::new(v1::AppHistoryResponse { entries }))
    }
}

/// A watching operator: gets the rollout now, and whenever it looks different, until it has ended.
struct Watching {
    service: RolloutsService,
    id: RolloutId,
    changes: Option<watch::Receiver<u64>>,
    /// What was read and not yet sent.
    next: Option<v1::Rollout>,
    sent: Option<v1::Rollout>,
}

impl Watching {
    async fn step(mut self) -> Result<Option<(v1::WatchRolloutResponse, Self)>, Status> {
        loop {
            let rollout = match self.next.take() {
                Some(first) => first,
                None if self.sent.as_ref().is_some_and(|sent| sent.ended_unix_ms != 0) => return Ok(None),
                None => {
                    tokio::select! {
                        () = self.service.stop.cancelled() => {
                            return Err(Status::unavailable("the coordinator is stopping; watch again"));
                        }
                        () = look_again(&mut self.changes) => {}
                    }
                    self.service.rollout(&self.id).await?
                }
            };
            if self.sent.as_ref() != Some(&rollout) {
                self.sent = Some(rollout.clone());
                return Ok(Some((v1::WatchRolloutResponse { rollout: Some(rollout) }, self)));
            }
        }
    }
}

async fn look_again(changes: &mut Option<watch::Receiver<u64>>) {
    tokio::time::sleep(LOOK_PAUSE).await;
    let changed = async {
        // A driver that is gone says nothing more; time does.
        let is_told = match changes {
            Some(changes) => changes.changed().await.is_ok(),
            None => false,
        };
        if !is_told {
            std::future::pending::<()>().await;
        }
    };
    let _ = tokio::time::timeout(LOOK_INTERVAL, changed).await;
}

impl From<StartError> for Status {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Spec(error) => Self::invalid_argument(format!("spec.{error}")),
            StartError::NoRelease { .. } => Self::not_found(error.to_string()),
            StartError::Select(_) | StartError::Busy(_) => Self::failed_precondition(error.to_string()),
            StartError::Store(error) => error.into(),
        }
    }
}

impl From<CommandError> for Status {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::NoRollout(_) => Self::not_found(error.to_string()),
            CommandError::Refused(_) | CommandError::Busy(_) => Self::failed_precondition(error.to_string()),
            CommandError::Overtaken(_) => Self::unavailable(error.to_string()),
            CommandError::Store(error) => error.into(),
        }
    }
}
