//! Where things stand on disk. Names only; nothing here touches a file.
//!
//! ```text
//! DATA/                            0700
//!   agent.lock  locks/APP.lock     one agent a host, one mutating operation an application
//!   identity/identity.pem          key and certificate
//! ROOT/APP/
//!   releases/<digest12>/           an immutable tree, exactly what the package holds
//!   releases/<digest12>.manifest   its canonical manifest
//!   releases/<digest12>.verified   written last: only with it is the tree used
//!   staging/<digest12>/            a release on its way; see [`crate::stage`]
//!   current, previous, candidate   relative links into releases/
//!   state.toml                     the accepted order and how far it is; written before the effect it announces
//!   state.steps                    the same, as the steps of a switch have changed it since; counts beside that very file
//!   order-<generation>.release     the release as it was signed
//!   history.log                    one line a switch
//! ```

use std::path::{Path, PathBuf};

use sluice_common::digest::Digest;
use sluice_common::name::AppName;
use sluice_common::order::Generation;

/// The directory of one application.
#[derive(Debug, Clone)]
pub(crate) struct AppDir {
    base: PathBuf,
}

/// The links of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkName {
    /// What runs.
    Current,
    /// What ran before.
    Previous,
    /// What runs beside it, on its way to become current.
    Candidate,
}

impl LinkName {
    /// Returns the link's file name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Candidate => "candidate",
        }
    }
}

impl AppDir {
    /// Names the directory of `app` below `root`.
    pub(crate) fn new(root: &Path, app: &AppName) -> Self {
        Self { base: root.join(app.as_str()) }
    }

    /// Returns the application's own directory.
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// Returns the directory of installed releases.
    pub(crate) fn releases(&self) -> PathBuf {
        self.base.join("releases")
    }

    /// Returns the tree of a release.
    pub(crate) fn release(&self, package: &Digest) -> PathBuf {
        self.releases().join(package.short())
    }

    /// Returns the manifest beside a release's tree.
    pub(crate) fn manifest(&self, package: &Digest) -> PathBuf {
        self.releases().join(format!("{}.manifest", package.short()))
    }

    /// Returns the marker of a verified release.
    pub(crate) fn marker(&self, package: &Digest) -> PathBuf {
        self.releases().join(format!("{}.verified", package.short()))
    }

    /// Returns the directory of what outlives releases.
    pub(crate) fn shared(&self) -> PathBuf {
        self.base.join("shared")
    }

    /// Returns the directory of releases on their way.
    pub(crate) fn staging_root(&self) -> PathBuf {
        self.base.join("staging")
    }

    /// Returns the staging directory of one package.
    pub(crate) fn staging(&self, package: &Digest) -> PathBuf {
        self.staging_root().join(package.short())
    }

    /// Returns a link's path.
    pub(crate) fn link(&self, name: LinkName) -> PathBuf {
        self.base.join(name.as_str())
    }

    /// Returns what a link to a release says: relative, so that the tree may be mounted elsewhere.
    pub(crate) fn link_target(package: &Digest) -> PathBuf {
        Path::new("releases").join(package.short())
    }

    /// Returns the state file.
    pub(crate) fn state(&self) -> PathBuf {
        self.base.join("state.toml")
    }

    /// Returns the file of the signed release that an order brought.
    pub(crate) fn order(&self, generation: Generation) -> PathBuf {
        self.base.join(format!("order-{generation}.release"))
    }

    /// Returns the history.
    pub(crate) fn history(&self) -> PathBuf {
        self.base.join("history.log")
    }
}

/// Returns the identity file.
pub(crate) fn identity(data: &Path) -> PathBuf {
    data.join("identity").join("identity.pem")
}

/// Returns the lock that one agent holds.
pub(crate) fn agent_lock(data: &Path) -> PathBuf {
    data.join("agent.lock")
}

/// Returns the lock of one application.
pub(crate) fn app_lock(data: &Path, app: &AppName) -> PathBuf {
    data.join("locks").join(format!("{app}.lock"))
}
