//! Who a certificate speaks for: one URI in its subject alternative names, nothing else.
//!
//! Labels, sites and roles are looked up in the coordinator's store; a certificate claims only a name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{HostName, OperatorName};

/// The party at the other end of a mutually authenticated connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Principal {
    /// An agent, by its host.
    Host(HostName),
    /// A person or a pipeline with the command line.
    Operator(OperatorName),
    /// A coordinator.
    Coordinator,
}

/// Says why a URI names no principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a sluice identity")]
pub struct PrincipalError(String);

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => write!(f, "sluice://host/{name}"),
            Self::Operator(name) => write!(f, "sluice://operator/{name}"),
            Self::Coordinator => f.write_str("sluice://coordinator"),
        }
    }
}

impl FromStr for Principal {
    type Err = PrincipalError;

    fn from_str(uri: &str) -> Result<Self, PrincipalError> {
        let error = || PrincipalError(uri.chars().take(120).collect());
        let rest = uri.strip_prefix("sluice://").ok_or_else(error)?;
        match rest.split_once('/') {
            None if rest == "coordinator" => Ok(Self::Coordinator),
            Some(("host", name)) => name.parse().map(Self::Host).map_err(|_| error()),
            Some(("operator", name)) => name.parse().map(Self::Operator).map_err(|_| error()),
            _ => Err(error()),
        }
    }
}

/// What an operator may do. Each role may do all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything, changes nothing.
    Viewer,
    /// Pushes packages, makes releases, drives rollouts.
    Deployer,
    /// Approves rollouts and changes limits of sites.
    Approver,
    /// Issues tokens, revokes identities.
    Admin,
}

impl Role {
    /// Every role, least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Deployer, Self::Approver, Self::Admin];

    /// Returns the role's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Says that a text is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a role; use viewer, deployer, approver or admin")]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| RoleError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_round_trip_and_nothing_else_parses() {
        for uri in ["sluice://host/web-1", "sluice://operator/alice", "sluice://coordinator"] {
            assert_eq!(uri.parse::<Principal>().unwrap().to_string(), uri);
        }
        for bad in [
            "",
            "sluice://",
            "sluice://host",
            "sluice://host/",
            "sluice://host/a/b",
            "sluice://root/x",
            "http://host/x",
        ] {
            assert!(bad.parse::<Principal>().is_err(), "{bad}");
        }
    }

    #[test]
    fn roles_include_the_lesser_ones() {
        assert!(
            Role::Admin > Role::Approver && Role::Approver > Role::Deployer && Role::Deployer > Role::Viewer
        );
        assert!("root".parse::<Role>().is_err());
    }
}
