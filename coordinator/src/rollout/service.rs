//! `Rollouts.*`: start, look at, watch and command rollouts; what ran where.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use sluice_common::caps;
use sluice_common::name::{AppName, RolloutId, Version};
use sluice_proto::convert::{Invalid, parse};
use sluice_proto::v1;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::command::Command;
use super::forecast::Surroundings;
use super::handle::{CommandError, Handle, StartError};
use super::slots::check_slots;
use super::spec::Retry;
use super::wire;
use crate::access::Caller;

mod watching;

use watching::Watching;

/// Rollouts listed where the caller names no limit.
const LISTED: u32 = 50;
/// Most rollouts in one answer: bounds what is read for it.
const LISTED_MAX: u32 = 500;
/// Lines of history where the caller names no limit.
const LINES: u32 = 100;
/// Most lines of history in one answer: some 200 bytes each, well below the message limit.
const LINES_MAX: u32 = 10_000;
/// Stops of an application where the caller names no limit.
const STOPS: u32 = 20;

/// The `Rollouts` service.
#[derive(Clone)]
pub struct RolloutsService {
    handle: Handle,
    surroundings: Arc<dyn Surroundings>,
    stop: CancellationToken,
}

impl RolloutsService {
    /// Makes the service. Watching streams end with `stop`.
    pub fn new(handle: Handle, surroundings: Arc<dyn Surroundings>, stop: CancellationToken) -> Self {
        Self { handle, surroundings, stop }
    }

    async fn rollout(&self, id: &RolloutId) -> Result<v1::Rollout, Status> {
        let snapshot = self.handle.snapshot(id).await?;
        let snapshot = snapshot.ok_or_else(|| Status::from(CommandError::NoRollout(id.clone())))?;
        let notes = self.handle.notes(&snapshot.rollout.app, &snapshot.rollout.version).await?;
        Ok(wire::rollout(&snapshot, notes, true))
    }

    /// Returns what a second try of a rollout goes on from.
    async fn retry(&self, of: RolloutId, app: &AppName, version: &Version) -> Result<Retry, Status> {
        let first = self
            .handle
            .snapshot(&of)
            .await?
            .ok_or_else(|| Status::from(CommandError::NoRollout(of.clone())))?;
        let first = first.rollout;
        let refuse = |reason| Err(Invalid::new("retry_of", reason).into());
        if (&first.app, &first.version) != (app, version) {
            return refuse(format!("{of} is of {} {}, not of {app} {version}", first.app, first.version));
        }
        if !first.state.is_ended() {
            return refuse(format!(
                "{of} has not ended; it goes on by itself, or with sluice rollout resume {of}"
            ));
        }
        Ok(Retry { of, is_migrated: first.has_migrated() })
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
        Ok(Some(wire::piece(self.rollout(&id).await?, 0)))
    }
}

/// Says who asks for something, and why.
fn reason<T>(request: &Request<T>, reason: &str) -> Result<String, Status> {
    let by = Caller::of(request)?.operator()?;
    match reason.trim() {
        "" => Ok(format!("by {by}")),
        given => Ok(format!("by {by}: {}", written("reason", given)?)),
    }
}

/// Reads what an operator has to give in words.
fn written<'a>(field: &'static str, text: &'a str) -> Result<&'a str, Invalid> {
    match text.trim() {
        "" => Err(Invalid::new(field, "is empty; others will want to know".to_owned())),
        text if text.len() <= caps::REASON_BYTES_MAX => Ok(text),
        text => Err(Invalid::new(field, format!("{} bytes are too many", text.len()))),
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
        let v1::StartRolloutRequest { app, version, spec, retry_of } = request.into_inner();
        let (app, version, mut spec) =
            (parse("app", &app)?, parse("version", &version)?, wire::spec(spec.unwrap_or_default())?);
        if !retry_of.is_empty() {
            spec.retry = Some(self.retry(parse("retry_of", &retry_of)?, &app, &version).await?);
        }
        let packages = self.handle.packages(&app, &version).await?;
        check_slots(&app, &version, &spec, packages, &*self.surroundings).await?;
        let id = self.handle.start(caller.operator()?, &caller, app, version, spec).await?;
        let rollout = wire::piece(self.rollout(&id).await?, 0);
        Ok(Response::new(v1::StartRolloutResponse { rollout: Some(rollout) }))
    }

    async fn list(
        &self,
        request: Request<v1::ListRolloutsRequest>,
    ) -> Result<Response<v1::ListRolloutsResponse>, Status> {
        let v1::ListRolloutsRequest { app, limit: asked } = request.into_inner();
        let app = app_or_all(&app)?;
        let list = self.handle.list(app.as_ref(), limit(asked, LISTED, LISTED_MAX)).await?;
        let rollouts = list.iter().map(|snapshot| wire::rollout(snapshot, String::new(), false));
        let rollouts = wire::fitted(rollouts.collect());
        Ok(Response::new(v1::ListRolloutsResponse { rollouts }))
    }

    async fn get(
        &self,
        request: Request<v1::GetRolloutRequest>,
    ) -> Result<Response<v1::GetRolloutResponse>, Status> {
        let v1::GetRolloutRequest { id, hosts_from } = request.into_inner();
        let rollout = wire::piece(self.rollout(&parse("id", &id)?).await?, hosts_from as usize);
        Ok(Response::new(v1::GetRolloutResponse { rollout: Some(rollout) }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchRolloutResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRolloutRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let id = parse("id", &request.into_inner().id)?;
        let first = self.rollout(&id).await?;
        let watching = Watching::new(self.clone(), id, first);
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
        let limit = limit(asked, LINES, LINES_MAX);
        let lines = self.handle.history(&app, host.as_ref(), limit).await?;
        let stops = self.handle.stops(&app, limit.min(LISTED_MAX)).await?;
        let entries = lines.into_iter().map(wire::line).collect();
        let stops = stops.into_iter().map(wire::line_stop).collect();
        Ok(Response::new(v1::AppHistoryResponse { entries, stops }))
    }

    async fn approve(
        &self,
        request: Request<v1::ApproveRolloutRequest>,
    ) -> Result<Response<v1::ApproveRolloutResponse>, Status> {
        let by = Caller::of(&request)?.operator()?.clone();
        let rollout = self.command(&request, &request.get_ref().id, Command::Approve { by }).await?;
        Ok(Response::new(v1::ApproveRolloutResponse { rollout }))
    }

    async fn r#override(
        &self,
        request: Request<v1::OverrideRolloutRequest>,
    ) -> Result<Response<v1::OverrideRolloutResponse>, Status> {
        let v1::OverrideRolloutRequest { id, reason: why } = request.get_ref();
        let command = Command::Override { reason: reason(&request, written("reason", why)?)? };
        let rollout = self.command(&request, id, command).await?;
        Ok(Response::new(v1::OverrideRolloutResponse { rollout }))
    }

    async fn get_app(
        &self,
        request: Request<v1::GetAppRequest>,
    ) -> Result<Response<v1::GetAppResponse>, Status> {
        let v1::GetAppRequest { app, limit: asked } = request.into_inner();
        let stops = self.handle.stops(&parse("app", &app)?, limit(asked, STOPS, LISTED_MAX)).await?;
        let closed = stops.iter().any(|stop| stop.reopened.is_none());
        let stops = stops.into_iter().map(wire::line_stop).collect();
        Ok(Response::new(v1::GetAppResponse { closed, stops }))
    }

    async fn reopen_app(
        &self,
        request: Request<v1::ReopenAppRequest>,
    ) -> Result<Response<v1::ReopenAppResponse>, Status> {
        let caller = Caller::of(&request)?;
        let v1::ReopenAppRequest { app, cause } = request.get_ref();
        let (app, cause) = (parse("app", app)?, written("cause", cause)?);
        let stops = self.handle.reopen(caller.operator()?, caller, &app, cause).await?;
        let stops = stops.into_iter().map(wire::line_stop).collect();
        Ok(Response::new(v1::ReopenAppResponse { stops }))
    }
}

impl From<StartError> for Status {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Spec(error) => Self::invalid_argument(format!("spec.{error}")),
            StartError::NoRelease { .. } => Self::not_found(error.to_string()),
            StartError::NoSlots { .. }
            | StartError::Select(_)
            | StartError::Busy(_)
            | StartError::Closed(_) => Self::failed_precondition(error.to_string()),
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
