//! Configuration: flags win over `coordinator.toml`, which wins over defaults.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;
use sluice_common::units::ByteRate;
use sluice_proto::transport::client::DEFAULT_PORT;

use crate::checks::Credentials;
use crate::depot::plans::Policy;
use crate::depot::plans::improver::Options;

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
    /// CPU that transfer plans may take: quick (about a second), improve (quick at once, the best in the background)
    /// or best (hosts wait for it, minutes for a large tree) [default: improve]
    #[arg(long, value_name = "quick|improve|best")]
    effort: Option<Policy>,
    /// Threads that improve plans in the background [default: half of the cores]
    #[arg(long, value_name = "N")]
    plan_workers: Option<NonZeroUsize>,
    /// Directory of the programs that checks of rollouts may run on this machine [default: none may run]
    #[arg(long, value_name = "DIR")]
    check_commands: Option<PathBuf>,
    /// Configuration file (TOML): data, listen, limit, effort, plan_workers, check_commands, credentials
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
    effort: Option<Policy>,
    plan_workers: Option<NonZeroUsize>,
    check_commands: Option<PathBuf>,
    #[serde(default)]
    credentials: Credentials,
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
    /// CPU that transfer plans may take, and when.
    pub plans: Options,
    /// The directory of programs that checks may run.
    pub check_commands: Option<PathBuf>,
    /// What servers that checks ask are shown.
    pub credentials: Credentials,
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
        let standard = Options::new(flags.effort.or(file.effort).unwrap_or_default());
        let workers = flags.plan_workers.or(file.plan_workers).unwrap_or(standard.workers);
        let everywhere_local = SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT));
        Ok(Self {
            data,
            listen: flags.listen.or(file.listen).unwrap_or(everywhere_local),
            limit: flags.limit.or(file.limit),
            plans: Options { workers, ..standard },
            check_commands: flags.check_commands.or(file.check_commands),
            credentials: file.credentials,
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
        let file = "data = \"/var/lib/sluice\"\nlisten = \"0.0.0.0:7000\"\nlimit = \"8Mbit/s\"\neffort = \"best\"\nplan_workers = 3";
        let config = load(file, ServeFlags::default()).unwrap();
        assert_eq!((config.listen.to_string().as_str(), config.plans.policy), ("0.0.0.0:7000", Policy::Best));
        assert_eq!(config.plans.workers.get(), 3);
        assert_eq!((config.data.to_str(), config.limit), (Some("/var/lib/sluice"), "8Mbit/s".parse().ok()));
        let flags =
            ServeFlags { data: Some("/d".into()), listen: "127.0.0.1:0".parse().ok(), ..Default::default() };
        let config = load(file, flags).unwrap();
        assert_eq!((config.data.to_str(), config.listen.port()), (Some("/d"), 0));
        let config = load("data = \"/d\"", ServeFlags::default()).unwrap();
        assert_eq!(
            (config.listen.to_string().as_str(), config.limit, config.plans),
            ("127.0.0.1:7443", None, Options::new(Policy::Improve))
        );
        for bad in [
            "",
            "data = \"/d\"\nlimits = \"1Mbit/s\"",
            "data = \"/d\"\nplan_workers = 0",
            "data = \"/d\"\nlimit = \"fast\"",
            "data = \"/d\"\n[credentials.prometheus]\nbearer_file = \"/t\"",
        ] {
            assert!(load(bad, ServeFlags::default()).is_err(), "{bad}");
        }
    }
}
