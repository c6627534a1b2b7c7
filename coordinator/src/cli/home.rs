//! Where an operator's identity and configuration stay: `HOME/identity.pem` (0600) and `HOME/config.toml`, in a
//! directory of mode 0700.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use sluice_common::durable;
use sluice_proto::transport::client::Address;
use sluice_proto::transport::credentials::Credentials;

use super::error::{advise, context};

/// The directory.
#[derive(Debug, Clone)]
pub(super) struct Home {
    dir: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The coordinator that was logged in to.
    coordinator: String,
}

impl Home {
    /// Takes `dir`, else `~/.config/sluice`.
    pub(super) fn new(dir: Option<PathBuf>) -> anyhow::Result<Self> {
        let dir = match dir {
            Some(dir) => dir,
            None => std::env::home_dir()
                .filter(|home| !home.as_os_str().is_empty())
                .ok_or_else(|| {
                    advise("there is no home directory", "say where with --home DIR or SLUICE_HOME")
                })?
                .join(".config/sluice"),
        };
        Ok(Self { dir })
    }

    /// Makes the directory, private to its owner.
    pub(super) fn create(&self) -> anyhow::Result<()> {
        let failed = || format!("cannot make {} private to you", self.dir.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).with_context(failed)?;
        fs::set_permissions(&self.dir, PermissionsExt::from_mode(0o700)).with_context(failed)
    }

    /// Keeps identity and address.
    pub(super) fn store(&self, credentials: &Credentials, coordinator: &Address) -> anyhow::Result<()> {
        self.store_credentials(credentials)?;
        let config = toml::to_string(&Config { coordinator: coordinator.to_string() })?;
        durable::write_private(&self.config_path(), config.as_bytes())?;
        Ok(())
    }

    /// Keeps a renewed identity.
    pub(super) fn store_credentials(&self, credentials: &Credentials) -> anyhow::Result<()> {
        Ok(credentials.store(&self.identity_path())?)
    }

    /// Returns the identity.
    pub(super) fn credentials(&self) -> anyhow::Result<Credentials> {
        let path = self.identity_path();
        if !is_there(&path)? {
            return Err(advise(
                format_args!("not logged in: there is no {}", path.display()),
                "run sluice login ADDRESS --token-file FILE",
            ));
        }
        Credentials::load(&path).with_context(|| format!("cannot use the identity {}", path.display()))
    }

    /// Returns the coordinator that was logged in to.
    pub(super) fn coordinator(&self) -> anyhow::Result<Address> {
        let path = self.config_path();
        let hint = "run sluice login ADDRESS --token-file FILE, or say which with --coordinator ADDRESS";
        if !is_there(&path)? {
            return Err(advise("no coordinator is configured", hint));
        }
        let text = fs::read_to_string(&path)?;
        let config: Config =
            toml::from_str(&text).with_context(|| context(format!("{} is damaged", path.display()), hint))?;
        config.coordinator.parse().with_context(|| context(format!("{} is damaged", path.display()), hint))
    }

    fn identity_path(&self) -> PathBuf {
        self.dir.join("identity.pem")
    }

    fn config_path(&self) -> PathBuf {
        self.dir.join("config.toml")
    }
}

fn is_there(path: &Path) -> anyhow::Result<bool> {
    path.try_exists().with_context(|| format!("cannot look at {}", path.display()))
}
