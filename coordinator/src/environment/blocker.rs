//! What an application of an environment waits for, as a typed value that can be said in words.

use std::fmt;

use sluice_common::name::{AppName, HostName, RolloutId, Version};

use super::graph::Edge;

/// Most hosts that one blocker names.
const HOSTS_NAMED_MAX: usize = 5;

/// What an application waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The application.
    pub app: AppName,
    /// What it waits for.
    pub wait: Wait,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// A rollout of the run.
    Rollout {
        /// It and its state, in words.
        words: String,
        /// Whether it goes on by itself.
        is_moving: bool,
    },
    /// Another application, which has to stand first.
    Need(Edge),
    /// Another application, which no host is for.
    NeedNoHost(Edge),
    /// Hosts: none is selected.
    NoHost,
    /// A package for the platform of some hosts.
    NoPackage {
        /// Its release.
        release: Version,
        /// They.
        hosts: Vec<HostName>,
    },
    /// The first session of some hosts, whose platform is not known.
    Unheard(Vec<HostName>),
    /// Its release, which is not registered.
    NoRelease(Version),
    /// Somebody else's rollout.
    Other(RolloutId),
    /// A recorded cause: a failed rollout has closed it.
    Closed(RolloutId),
    /// A decision: its rollout did not succeed.
    Failed {
        /// It and its state, in words.
        words: String,
    },
    /// What depends on it, and goes back before it.
    Dependent(AppName),
    /// What the coordinator's rollouts refuse, in their words.
    Refused(String),
}

impl Blocker {
    /// Says whether it ends only when a person does something.
    pub fn needs_operator(&self) -> bool {
        match &self.wait {
            Wait::Rollout { is_moving, .. } => !is_moving,
            Wait::NoPackage { .. } | Wait::NoRelease(_) | Wait::Closed(_) | Wait::Failed { .. } => true,
            Wait::NeedNoHost(_) | Wait::NoHost | Wait::Unheard(_) | Wait::Refused(_) => true,
            Wait::Need(_) | Wait::Other(_) | Wait::Dependent(_) => false,
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { app, wait } = self;
        match wait {
            Wait::Rollout { words, is_moving: _ } => write!(f, "{app}: {words}"),
            Wait::Need(edge) => write!(f, "{app}: waiting for {}: {edge}", edge.to),
            Wait::NeedNoHost(edge) => write!(f, "{app}: waiting for a host that {} is for: {edge}", edge.to),
            Wait::NoHost => write!(f, "{app}: no host matches its selection yet"),
            Wait::NoPackage { release, hosts } => {
                write!(f, "{app}: release {release} has no package for the platform of {}", named(hosts))
            }
            Wait::Unheard(hosts) => write!(f, "{app}: waiting for the first session of {}", named(hosts)),
            Wait::NoRelease(release) => {
                write!(f, "{app}: there is no release {release}; see: sluice release list {app}")
            }
            Wait::Other(rollout) => write!(f, "{app}: rollout {rollout} has to end first"),
            Wait::Closed(rollout) => {
                write!(
                    f,
                    "{app}: closed to new rollouts since {rollout} failed; run: sluice app reopen {app} --cause \"...\""
                )
            }
            Wait::Failed { words } => write!(f, "{app}: {words}"),
            Wait::Dependent(other) => write!(f, "{app}: {other} goes back first"),
            Wait::Refused(words) => write!(f, "{app}: {words}"),
        }
    }
}

fn named(hosts: &[HostName]) -> String {
    let mut names: Vec<String> = hosts.iter().take(HOSTS_NAMED_MAX).map(ToString::to_string).collect();
    if hosts.len() > HOSTS_NAMED_MAX {
        names.push(format!("{} more", hosts.len() - HOSTS_NAMED_MAX));
    }
    names.join(", ")
}
