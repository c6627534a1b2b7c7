//! `Environments.*`: plan, apply and stop; what stands, what differs, what runs where.

use std::sync::Arc;

use sluice_common::caps;
use sluice_common::name::EnvironmentName;
use sluice_proto::convert::{Invalid, parse};
use sluice_proto::v1;
use tonic::{Request, Response, Status};

use super::handle::{ApplyError, AskError, Handle};
use super::{pages, wire};
use crate::access::Caller;
use crate::rollout::forecast::Surroundings;

/// The `Environments` service.
#[derive(Clone)]
pub struct EnvironmentsService {
    handle: Handle,
    surroundings: Arc<dyn Surroundings>,
}

impl std::fmt::Debug for EnvironmentsService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnvironmentsService").finish_non_exhaustive()
    }
}

impl EnvironmentsService {
    /// Makes the service.
    pub fn new(handle: Handle, surroundings: Arc<dyn Surroundings>) -> Self {
        Self { handle, surroundings }
    }

    async fn environment(&self, name: &EnvironmentName) -> Result<v1::Environment, Status> {
        Ok(wire::environment(&self.handle.status(name).await?))
    }
}

#[tonic::async_trait]
impl v1::environments_server::Environments for EnvironmentsService {
    async fn plan(
        &self,
        request: Request<v1::PlanEnvironmentRequest>,
    ) -> Result<Response<v1::PlanEnvironmentResponse>, Status> {
        let (environment, view, outline) = self.handle.plan(&request.get_ref().file).await?;
        let plan = wire::plan(&environment, &view, &outline);
        Ok(Response::new(v1::PlanEnvironmentResponse { plan: Some(plan) }))
    }

    async fn forecast(
        &self,
        request: Request<v1::ForecastEnvironmentRequest>,
    ) -> Result<Response<v1::ForecastEnvironmentResponse>, Status> {
        let by = Caller::of(&request)?.operator()?;
        let foresight = self.handle.foresee(by, &request.get_ref().file, &*self.surroundings).await?;
        let forecast = Some(super::forecast::wire::foresight(&foresight));
        Ok(Response::new(v1::ForecastEnvironmentResponse { forecast }))
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyEnvironmentRequest>,
    ) -> Result<Response<v1::ApplyEnvironmentResponse>, Status> {
        let caller = Caller::of(&request)?;
        let name = self.handle.apply(caller.operator()?, caller, &request.get_ref().file).await?;
        let environment = self.environment(&name).await?;
        Ok(Response::new(v1::ApplyEnvironmentResponse { environment: Some(environment) }))
    }

    async fn stop(
        &self,
        request: Request<v1::StopEnvironmentRequest>,
    ) -> Result<Response<v1::StopEnvironmentResponse>, Status> {
        let caller = Caller::of(&request)?;
        let v1::StopEnvironmentRequest { name, reason, roll_back } = request.get_ref();
        let name = parse("name", name)?;
        let reason = match reason.trim() {
            "" => format!("by {}", caller.operator()?),
            given if given.len() <= caps::REASON_BYTES_MAX => format!("by {}: {given}", caller.operator()?),
            given => {
                let reason = format!("has {} bytes, more than {}", given.len(), caps::REASON_BYTES_MAX);
                return Err(Invalid::new("reason", reason).into());
            }
        };
        self.handle.stop(caller, &name, reason, *roll_back).await?;
        let environment = self.environment(&name).await?;
        Ok(Response::new(v1::StopEnvironmentResponse { environment: Some(environment) }))
    }

    async fn list(
        &self,
        _: Request<v1::ListEnvironmentsRequest>,
    ) -> Result<Response<v1::ListEnvironmentsResponse>, Status> {
        let mut environments = Vec::new();
        for name in self.handle.names().await? {
            environments.push(self.environment(&name).await?);
        }
        Ok(Response::new(v1::ListEnvironmentsResponse { environments }))
    }

    async fn get(
        &self,
        request: Request<v1::GetEnvironmentRequest>,
    ) -> Result<Response<v1::GetEnvironmentResponse>, Status> {
        let status = self.handle.status(&parse("name", &request.get_ref().name)?).await?;
        let environment = Some(wire::environment(&status));
        Ok(Response::new(v1::GetEnvironmentResponse { environment, file: status.stored.file }))
    }

    async fn diff(
        &self,
        request: Request<v1::DiffEnvironmentRequest>,
    ) -> Result<Response<v1::DiffEnvironmentResponse>, Status> {
        let v1::DiffEnvironmentRequest { name, page } = request.get_ref();
        let (differences, looked_at) = self.handle.diff(&parse("name", name)?).await?;
        let looked_at = u32::try_from(looked_at).unwrap_or(u32::MAX);
        let page = pages::differences(differences, page)?;
        Ok(Response::new(v1::DiffEnvironmentResponse { looked_at, ..page }))
    }

    async fn layout(
        &self,
        request: Request<v1::LayoutEnvironmentRequest>,
    ) -> Result<Response<v1::LayoutEnvironmentResponse>, Status> {
        let v1::LayoutEnvironmentRequest { name, page } = request.get_ref();
        let rows = self.handle.layout(&parse("name", name)?).await?;
        Ok(Response::new(pages::layout(rows, page)?))
    }

    async fn export(
        &self,
        request: Request<v1::ExportEnvironmentRequest>,
    ) -> Result<Response<v1::ExportEnvironmentResponse>, Status> {
        let name = match request.get_ref().name.as_str() {
            "" => None,
            name => Some(parse("name", name)?),
        };
        let file = self.handle.export(name.as_ref()).await?;
        Ok(Response::new(v1::ExportEnvironmentResponse { file }))
    }
}

impl From<ApplyError> for Status {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Parse(_) => Self::invalid_argument(error.to_string()),
            ApplyError::NoRelease(_) => Self::not_found(error.to_string()),
            ApplyError::Problems(_)
            | ApplyError::Closed(_)
            | ApplyError::Overlap { .. }
            | ApplyError::RollingBack(_) => Self::failed_precondition(error.to_string()),
            ApplyError::Unforeseen => Self::internal(error.to_string()),
            ApplyError::Store(error) => error.into(),
        }
    }
}

impl From<AskError> for Status {
    fn from(error: AskError) -> Self {
        match error {
            AskError::None(_) | AskError::Nothing => Self::not_found(error.to_string()),
            AskError::Refused { .. } => Self::failed_precondition(error.to_string()),
            AskError::Overtaken(_) => Self::unavailable(error.to_string()),
            AskError::Store(error) => error.into(),
        }
    }
}
