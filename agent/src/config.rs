//! `agent.toml`: parsed into types, and refused with the file, the field and a remedy, before anything is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sluice_common::keys::PublicKey;
use sluice_common::name::AppName;
use sluice_common::units::ByteRate;
use sluice_proto::transport::client::Address;

use crate::stage::Reuse;
use crate::upkeep::{Retention, Timetable, Upkeep};

/// Where the configuration stands unless `--config` says otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/sluice/agent.toml";
/// Where state and identity stand unless configured.
pub(crate) const DEFAULT_DATA: &str = "/var/lib/sluice";
/// Where applications stand unless configured.
pub(crate) const DEFAULT_ROOT: &str = "/srv/sluice";

/// What an operator decides about this agent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// The coordinators; the first that answers is used.
    pub(crate) coordinators: Vec<Address>,
    /// State and identity, mode 0700.
    pub(crate) data: PathBuf,
    /// The applications.
    pub(crate) root: PathBuf,
    /// Keys whose releases may run here.
    pub(crate) trusted_keys: Vec<PublicKey>,
    /// Limit of the content connection.
    pub(crate) limit: Option<ByteRate>,
    /// How releases share the bytes that they have in common.
    pub(crate) reuse: Reuse,
    /// How the host is kept in order.
    pub(crate) upkeep: Upkeep,
    /// Variables of hooks and health checks, by application.
    pub(crate) variables: BTreeMap<AppName, BTreeMap<String, String>>,
    /// What this host takes.
    pub(crate) policy: Policy,
}

/// What a host takes, whatever a coordinator asks.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Policy {
    /// Applications that may be deployed here; nothing: all.
    pub(crate) apps: Option<BTreeSet<AppName>>,
}

impl Policy {
    /// Says whether `app` may be deployed here.
    pub(crate) fn may_deploy(&self, app: &AppName) -> bool {
        self.apps.as_ref().is_none_or(|apps| apps.contains(app))
    }
}

/// Says why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// There is none.
    #[error(
        "{path} does not exist; run `sluice-agent enroll`, which writes it, or name another with --config"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is not what it must be; the message names the field, its line and what to write.
    #[error("{path} is not valid: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Reading failed.
    #[error("cannot read the configuration")]
    Io(#[from] std::io::Error),
}

/// The file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    coordinators: Vec<String>,
    data: Option<PathBuf>,
    root: Option<PathBuf>,
    trusted_keys: Vec<PublicKey>,
    limit: Option<ByteRate>,
    #[serde(default)]
    reuse: Reuse,
    #[serde(default)]
    retention: Retention,
    #[serde(default)]
    drift: Timetable,
    #[serde(default)]
    apps: BTreeMap<AppName, AppTable>,
    #[serde(default)]
    policy: PolicyTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppTable {
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct PolicyTable {
    apps: Option<BTreeSet<AppName>>,
}

impl Config {
    /// Reads and checks the file at `path`.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        match fs_err::read_to_string(path) {
            Ok(text) => {
                Self::parse(&text).map_err(|reason| ConfigError::Invalid { path: path.to_owned(), reason })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(ConfigError::Missing { path: path.to_owned() })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let File { coordinators, data, root, trusted_keys, limit, reuse, retention, drift, apps, policy } =
            toml::from_str(text).map_err(|error| error.to_string())?;
        let upkeep = Upkeep { retention, drift };
        upkeep.check()?;
        if coordinators.is_empty() {
            return Err("coordinators is empty; write at least one HOST:PORT".into());
        }
        if trusted_keys.is_empty() {
            return Err("trusted_keys is empty, so no release could run here; \
                        add the line from the release engineers' .pub file"
                .into());
        }
        let coordinators = coordinators
            .iter()
            .map(|text| text.parse().map_err(|error| format!("coordinators: {error}")))
            .collect::<Result<_, _>>()?;
        let variables: BTreeMap<_, _> = apps.into_iter().map(|(app, table)| (app, table.variables)).collect();
        for (app, variables) in &variables {
            check_variables(app, variables)?;
        }
        Ok(Self {
            coordinators,
            data: absolute("data", data, DEFAULT_DATA)?,
            root: absolute("root", root, DEFAULT_ROOT)?,
            trusted_keys,
            limit,
            reuse,
            upkeep,
            variables,
            policy: Policy { apps: policy.apps },
        })
    }
}

fn absolute(field: &str, path: Option<PathBuf>, default: &str) -> Result<PathBuf, String> {
    let path = path.unwrap_or_else(|| default.into());
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!("{field}: {path:?} is relative; write the whole path, as in {default:?}"))
    }
}

fn check_variables(app: &AppName, variables: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, value) in variables {
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name || value.contains('\0') {
            return Err(format!(
                "apps.{app}.variables: {name:?} is not a variable; names are letters, digits and '_', as in PORT"
            ));
        }
    }
    Ok(())
}

/// Returns the text of a first `agent.toml`.
pub(crate) fn template(coordinator: &Address, data: &Path, root: &Path, keys: &[PublicKey]) -> String {
    let quoted = |text: String| toml::Value::String(text).to_string();
    let keys: String = keys.iter().map(|key| format!("    {},\n", quoted(key.to_string()))).collect();
    format!(
        "# The agent of this host. After a change: systemctl restart sluice-agent\n\
         coordinators = [{}]\n\
         # State and identity; mode 0700.\n\
         data = {}\n\
         # The applications: ROOT/APP/current is what runs.\n\
         root = {}\n\
         # Only releases signed by one of these keys run here.\n\
         trusted_keys = [\n{keys}]\n\
         # Limit of the content connection.\n\
         # limit = \"8Mbit/s\"\n\
         # How releases share the bytes that they have in common: \"auto\" (reflink, else hardlink, else copy), \"reflink\"\n\
         # (else copy), \"hardlink\" (else copy) or \"copy\". With hardlinks, a service that writes to a file of its release\n\
         # changes it in the release that the host would go back to as well.\n\
         # reuse = \"auto\"\n\
         # Releases of each application that are kept, whatever the applications say, and what stays free of the disk (a size\n\
         # or a share): where that is touched, old releases go, but never what runs and what the host would go back to.\n\
         # [retention]\n\
         # keep = 3\n\
         # disk_floor = \"10%\"\n\
         # When installed releases are verified: a look at what may have changed, every byte, and how fast files are read.\n\
         # [drift]\n\
         # look = \"10m\"\n\
         # hash = \"24h\"\n\
         # rate = \"20MB/s\"\n\
         # Variables of an application's hooks and health checks.\n\
         # [apps.shop.variables]\n\
         # PORT = \"8080\"\n\
         # Only these applications may be deployed here.\n\
         # [policy]\n\
         # apps = [\"shop\"]\n",
        quoted(coordinator.to_string()),
        quoted(data.display().to_string()),
        quoted(root.display().to_string()),
    )
}

#[cfg(test)]
mod tests {
    use sluice_common::keys::SecretKey;

    use super::*;

    fn key() -> PublicKey {
        SecretKey::generate().unwrap().public()
    }

    #[test]
    fn the_template_is_a_valid_configuration() {
        let (address, key) = ("c.example".parse().unwrap(), key());
        let text = template(&address, Path::new("/var/x"), Path::new("/srv/x"), &[key]);
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.coordinators, [address]);
        assert_eq!(
            (config.data.as_path(), config.root.as_path()),
            (Path::new("/var/x"), Path::new("/srv/x"))
        );
        assert_eq!((config.trusted_keys, config.limit), (vec![key], None));
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = format!(
            "coordinators = [\"a:1\", \"b\"]\ntrusted_keys = [\"{}\"]\nlimit = \"8Mbit/s\"\nreuse = \"reflink\"\n\
             [apps.shop.variables]\nPORT = \"80\"\n[policy]\napps = [\"shop\"]",
            key()
        );
        let config = Config::parse(&text).unwrap();
        let shop = "shop".parse().unwrap();
        assert_eq!(config.variables[&shop]["PORT"], "80");
        assert!(config.policy.may_deploy(&shop) && !config.policy.may_deploy(&"other".parse().unwrap()));
        assert_eq!(config.limit.unwrap().to_string(), "8Mbit/s");
        assert_eq!((config.data.as_path(), config.reuse), (Path::new(DEFAULT_DATA), Reuse::Reflink));
    }

    #[test]
    fn mistakes_name_field_and_remedy() {
        let key = key();
        let good = format!("coordinators = [\"a:1\"]\ntrusted_keys = [\"{key}\"]\n");
        for (text, expected) in [
            (format!("{good}limti = \"1Mbit/s\""), "limti"),
            (format!("{good}limit = \"8mbit\""), "8Mbit/s"),
            (format!("{good}reuse = \"symlink\""), "`auto`, `reflink`, `hardlink`, `copy`"),
            (format!("{good}[retention]\nkeep = 1"), "retention.keep: is 1; write at least 2"),
            (format!("{good}[retention]\ndisk_floor = \"10\""), "or 10%"),
            (format!("{good}[drift]\nlook = \"0s\""), "drift.look: is shorter"),
            (format!("{good}[drift]\nrate = \"fast\""), "is not a byte rate"),
            (format!("{good}data = \"state\""), "data: \"state\" is relative"),
            (format!("{good}[apps.shop.variables]\n\"A-B\" = \"x\""), "apps.shop.variables"),
            (format!("coordinators = []\ntrusted_keys = [\"{key}\"]"), "at least one HOST:PORT"),
            (format!("coordinators = [\"a b\"]\ntrusted_keys = [\"{key}\"]"), "coordinators: "),
            ("coordinators = [\"a:1\"]\ntrusted_keys = []".to_owned(), "trusted_keys is empty"),
            ("coordinators = [\"a:1\"]".to_owned(), "trusted_keys"),
            ("coordinators = [\"a:1\"]\ntrusted_keys = [\"x\"]".to_owned(), "sluice-public-key"),
        ] {
            let reason = Config::parse(&text).unwrap_err();
            assert!(reason.contains(expected), "{text}: {reason}");
        }
    }
}
