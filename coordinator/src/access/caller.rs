//! Who calls, as the gate found out.

use sluice_common::identity::{Principal, Role};
use sluice_common::name::{HostName, OperatorName};
use tonic::{Request, Status};

use crate::store::Actor;

/// The identity behind a call that the gate let through. Taken from the certificate and the store, from nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// An operator's role; nothing for hosts.
    pub role: Option<Role>,
}

impl Caller {
    /// Returns the caller of a request. Only `Enrollment.Enroll` has none.
    pub fn of<T>(request: &Request<T>) -> Result<&Self, Status> {
        let caller = request.extensions().get::<Self>();
        caller.ok_or_else(|| Status::unauthenticated("this needs a certificate; enrol or log in first"))
    }

    /// Returns the calling host. What a host asks for is always its own: take the name from here, never from a message.
    pub fn host(&self) -> Result<&HostName, Status> {
        match &self.principal {
            Principal::Host(name) => Ok(name),
            Principal::Operator(_) | Principal::Coordinator => {
                Err(Status::permission_denied("only hosts may call this"))
            }
        }
    }

    /// Returns the calling operator.
    pub fn operator(&self) -> Result<&OperatorName, Status> {
        match &self.principal {
            Principal::Operator(name) => Ok(name),
            Principal::Host(_) | Principal::Coordinator => {
                Err(Status::permission_denied("only operators may call this"))
            }
        }
    }
}

impl From<&Caller> for Actor {
    fn from(caller: &Caller) -> Self {
        Self::from(&caller.principal)
    }
}
