//! `sluice.toml`, in the root of a package and signed with it: hooks, health checks, the gate.
//!
//! A package without one is a plain tree: it is switched to and counts as healthy.

mod gate;
mod health;
mod hooks;
mod linked;
mod load;
mod parallel;
mod requires;
mod retention;
mod rules;
mod service;
mod traffic;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::caps;
use crate::manifest::{Content, Manifest};
use crate::name::AppName;

pub use gate::Gate;
pub use health::{
    CommandProbe, HeaderProbe, HealthCheck, HttpProbe, Probe, ResourcesProbe, SystemdProbe, TcpProbe,
};
pub use hooks::{Hook, Hooks};
pub use linked::{Linked, ancestors};
pub use load::{Compare, Factor, Fraction, Load};
pub use parallel::Parallel;
pub use requires::{AtLeast, Dotted, Requires};
pub use retention::{Retention, check_keep};
pub use service::{Exec, Runner, Service, SignalName};
pub use traffic::{Haproxy, Nginx, Traffic, is_word};

/// The file's name.
pub const FILE_NAME: &str = "sluice.toml";

/// Returns the content of a package's `sluice.toml`, which the header of every plan to the package carries as it is; nothing where it
/// has none, or one that no host takes.
pub fn content(manifest: &Manifest) -> Option<Content> {
    let (_, file) = manifest.get(FILE_NAME)?.file()?;
    Some(Content { digest: file.digest, size: file.size })
        .filter(|content| content.size <= caps::SPEC_BYTES_MAX)
}

/// What a package says of its own life on a host.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// What the application is; sets what a switch does where nothing else says so.
    pub kind: Kind,
    /// The application that a configuration is of: what is restarted when the configuration changes.
    pub of: Option<AppName>,
    /// Commands run around the switch.
    pub hooks: Hooks,
    /// What must hold after the switch.
    pub health: Vec<HealthCheck>,
    /// How long health must keep holding after the switch before the release counts as active.
    pub gate: Gate,
    /// The slots of parallel production.
    pub parallel: Option<Parallel>,
    /// How the application's processes are run without a script.
    pub service: Option<Service>,
    /// The balancers in front of it.
    pub traffic: Traffic,
    /// The load probe of a candidate.
    pub load: Option<Load>,
    /// Directories that all releases share.
    pub linked: Vec<Linked>,
    /// Files that all releases share.
    pub linked_files: Vec<Linked>,
    /// How many releases a host keeps.
    pub retention: Retention,
    /// What a host must have.
    pub requires: Requires,
}

/// What an application is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// What other applications stand on.
    Infrastructure,
    /// Data that several hosts share.
    SharedData,
    /// What answers requests.
    #[default]
    Service,
    /// What another application reads: brought by itself, and taken by a reload or a restart.
    Configuration,
}

/// Says what is wrong with a `sluice.toml`.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file is too large.
    #[error("{FILE_NAME} has {0} bytes, more than {max}", max = caps::SPEC_BYTES_MAX)]
    TooLarge(u64),
    /// The file is not what it must be; the message has line and column.
    #[error("{FILE_NAME} is not valid: {0}")]
    Parse(String),
    /// A value breaks a rule.
    #[error("{FILE_NAME}: {field}: {reason}")]
    Field {
        /// Where.
        field: String,
        /// Why, and what to write.
        reason: String,
    },
    /// Reading failed.
    #[error("cannot read {FILE_NAME}")]
    Io(#[from] std::io::Error),
}

impl SpecError {
    fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Field { field: field.into(), reason: reason.into() }
    }
}

impl Spec {
    /// Parses and checks the text of a `sluice.toml`.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let spec: Self = toml::from_str(text).map_err(|error| SpecError::Parse(error.to_string()))?;
        spec.check()?;
        Ok(spec)
    }

    /// Reads the `sluice.toml` of the tree at `root`; the default where there is none.
    pub fn load(root: &Path) -> Result<Self, SpecError> {
        let path = root.join(FILE_NAME);
        match fs_err::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
            Ok(metadata) if metadata.len() > caps::SPEC_BYTES_MAX => Err(SpecError::TooLarge(metadata.len())),
            Ok(metadata) if !metadata.is_file() => {
                Err(SpecError::Parse("it is not a regular file; put the file itself into the package".into()))
            }
            Ok(_) => Self::parse(&fs_err::read_to_string(&path)?),
        }
    }

    fn check_kind(&self) -> Result<(), SpecError> {
        let is_configuration = self.kind == Kind::Configuration;
        match (&self.of, is_configuration) {
            (Some(_), false) => Err(SpecError::field("of", "goes with kind = \"configuration\"")),
            (_, true) if self.parallel.is_some() => {
                Err(SpecError::field("parallel", "does not go with kind = \"configuration\""))
            }
            (_, false)
                if self.parallel.is_some() && self.service.is_none() && self.hooks.candidate.is_none() =>
            {
                let reason = "nothing starts the candidate; write [service] or [hooks.candidate]";
                Err(SpecError::field("parallel", reason))
            }
            (_, false) if self.load.is_some() && self.parallel.is_none() => {
                Err(SpecError::field("load", "probes a candidate, so it goes with [parallel]"))
            }
            (_, _) => Ok(()),
        }
    }

    /// Checks what it says of the package that it stands in.
    pub fn check_against(&self, manifest: &Manifest) -> Result<(), SpecError> {
        linked::check_against(&self.linked, &self.linked_files, manifest)
    }

    fn check(&self) -> Result<(), SpecError> {
        self.hooks.check()?;
        self.check_kind()?;
        self.parallel.as_ref().map_or(Ok(()), Parallel::check)?;
        for (number, check) in self.health.iter().enumerate() {
            check.check(&format!("health[{number}]"))?;
        }
        self.service.as_ref().map_or(Ok(()), Service::check)?;
        self.traffic.check()?;
        self.load.as_ref().map_or(Ok(()), Load::check)?;
        self.retention.check()?;
        self.requires.check()?;
        linked::check(&self.linked, &self.linked_files)
    }
}

/// Replaces each `${NAME}` in `text` by its variable; the name of one that is not set is the error.
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after.split_once('}').ok_or_else(|| after.to_owned())?;
        out.push_str(before);
        out.push_str(variables.get(name).ok_or_else(|| name.to_owned())?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_whole_file_is_read() {
        let spec = Spec::parse(
            r#"
            [hooks.start]
            command = ["bin/start", "--port", "${PORT}"]
            timeout = "30s"
            environment = { MODE = "fast" }
            [gate]
            deadline = "20s"
            bake = "5s"
            [[health]]
            type = "http"
            url = "http://127.0.0.1:${PORT}/health"
            contains = "${VERSION}"
            interval = "500ms"
            successes = 3
            [[health]]
            type = "tcp"
            address = "127.0.0.1:80"
            [[health]]
            type = "command"
            command = ["true"]
            "#,
        )
        .unwrap();
        assert_eq!(spec.hooks.start.unwrap().timeout, Duration::from_secs(30));
        assert_eq!((spec.health.len(), spec.health[0].successes, spec.health[1].successes), (3, 3, 2));
        assert_eq!(spec.gate.bake, Duration::from_secs(5));
        assert_eq!(Spec::parse("").unwrap(), Spec::default());
    }

    #[test]
    fn mistakes_name_the_field() {
        for (text, expected) in [
            ("[hook.start]\ncommand=[\"x\"]", "hook"),
            ("[hooks.start]\ncommand=[]", "hooks.start.command"),
            ("[hooks.start]\ncommand=[\"../x\"]", "hooks.start.command"),
            ("[hooks.start]\ncommand=[\"x\"]\ntimeout=\"0s\"", "hooks.start.timeout"),
            ("[hooks.start]\ncommand=[\"x\"]\ntimeout=\"5\"", "time span"),
            ("[[health]]\ntype=\"http\"\nurl=\"https://x/\"", "health[0].url"),
            ("[[health]]\ntype=\"tcp\"\naddress=\"a:1\"\nsuccesses=0", "health[0].successes"),
            ("[[health]]\ntype=\"ping\"", "ping"),
            ("[hooks.begin]\ncommand=[\"x\"]", "begin"),
            ("[hooks.drain]\ncommand=[\"x\"]\nuser=\"\"", "hooks.drain.user"),
            (
                "[hooks.drain]\ncommand=[\"x\"]\npass=[\"LD_PRELOAD\"]",
                "hooks.drain.environment or hooks.drain.pass",
            ),
            ("[hooks.drain]\ncommand=[\"x\"]\nenvironment={ \"A B\" = \"1\" }", "letters, digits"),
            ("kind=\"database\"", "database"),
            ("[service]\nexec=[]", "service.exec"),
            ("[traffic.haproxy]\nsockets=[]\nservers=[]", "traffic.haproxy.sockets"),
            ("[load]\nurl=\"http://a/\"\nrate=1\nduration=\"1s\"", "load: probes a candidate"),
            (
                "[parallel]\nslots={ b = { P = \"1\" }, g = { P = \"2\" } }",
                "parallel: nothing starts the candidate",
            ),
            ("of=\"shop\"", "of: goes with kind"),
            (
                "[hooks.candidate]\ncommand=[\"x\"]\n[parallel]\nslots={ blue = { PORT = \"1\" } }",
                "parallel.slots: has 1 slots",
            ),
            (
                "[hooks.candidate]\ncommand=[\"x\"]\n[parallel]\nslots={ blue = { PORT = \"1\" }, green = {} }",
                "slot green has no variables",
            ),
            (
                "[hooks.candidate]\ncommand=[\"x\"]\n[parallel]\nslots={ Blue = { PORT = \"1\" }, green = { PORT = \"2\" } }",
                "\"Blue\" is no name",
            ),
            (
                "kind=\"configuration\"\n[parallel]\nslots={ b = { P = \"1\" }, g = { P = \"2\" } }",
                "parallel: does not go",
            ),
        ] {
            let error = Spec::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn variables_are_replaced_or_named() {
        let variables = BTreeMap::from([("PORT".to_owned(), "80".to_owned())]);
        assert_eq!(expand("a${PORT}b${PORT}", &variables).unwrap(), "a80b80");
        assert_eq!(expand("$PORT", &variables).unwrap(), "$PORT");
        assert_eq!(expand("${HOST}", &variables).unwrap_err(), "HOST");
    }
}
