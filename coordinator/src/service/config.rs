//! Configuration: flags win over `coordinator.toml`, which wins over defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;
use sluice_common::transfer::Effort;
use sluice_common::units::ByteRate;
use sluice_proto::transport::client::DEFAULT_PORT;

/// The flags of `serve`.
#[derive(Debug, Default, Args)]
pub struct ServeFlags {
    /// Where everything is kept; made on the first start, for its owner only
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address to listen on; port 0 takes any free one, see DIR/address
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Limit of all content together, such as 100Mbit/s
    #[arg(long, value_name = "RATE")]
    limit: Option<ByteRate>,
    /// CPU that new transfer plans may take: quick (about a second) or best (smaller by half, minutes)
    #[arg(long, value_name = "quick|best")]
    effort: Option<Effort>,
    /// Configuration file (TOML): data, listen, limit, effort
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// `coordinator.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data: Option<PathBuf>,
    listen: Option<SocketAddr>,
    limit: Option<ByteRate>,
    effort: Option<Effort>,
}

/// What the service runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Limit of all content together.
    pub limit: Option<ByteRate>,
    /// CPU that new transfer plans may take.
    pub effort: Effort,
}

impl Config {
    /// Joins flags, file and defaults.
    pub(super) fn load(flags: ServeFlags) -> anyhow::Result<Self> {
        let file = flags.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let Some(data) = flags.data.or(file.data) else {
            bail!(
                "no data directory; give one with --data DIR, or as data = \"DIR\" in the file of --config"
            );
        };
        let everywhere_local = SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT));
        Ok(Self {
            data,
            listen: flags.listen.or(file.listen).unwrap_or(everywhere_local),
            limit: flags.limit.or(file.limit),
            effort: flags.effort.or(file.effort).unwrap_or_default(),
        })
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = fs_err::read_to_string(path)?;
    toml::from_str(&text)
        .with_context(|| format!("{} is not a configuration of the coordinator", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("coordinator.toml");
        let load = |text: &str, flags: ServeFlags| {
            fs_err::write(&path, text).unwrap();
            Config::load(ServeFlags { config: Some(path.clone()), ..flags })
        };
        let file =
            "data = \"/var/lib/sluice\"\nlisten = \"0.0.0.0:7000\"\nlimit = \"8Mbit/s\"\neffort = \"best\"";
        let config = load(file, ServeFlags::default()).unwrap();
        assert_eq!((config.listen.to_string().as_str(), config.effort), ("0.0.0.0:7000", Effort::Best));
        assert_eq!((config.data.to_str(), config.limit), (Some("/var/lib/sluice"), "8Mbit/s".parse().ok()));
        let flags =
            ServeFlags { data: Some("/d".into()), listen: "127.0.0.1:0".parse().ok(), ..Default::default() };
        let config = load(file, flags).unwrap();
        assert_eq!((config.data.to_str(), config.listen.port()), (Some("/d"), 0));
        let config = load("data = \"/d\"", ServeFlags::default()).unwrap();
        assert_eq!(
            (config.listen.to_string().as_str(), config.limit, config.effort),
            ("127.0.0.1:7443", None, Effort::Quick)
        );
        for bad in ["", "data = \"/d\"\nlimits = \"1Mbit/s\"", "data = \"/d\"\nlimit = \"fast\""] {
            assert!(load(bad, ServeFlags::default()).is_err(), "{bad}");
        }
    }
}
