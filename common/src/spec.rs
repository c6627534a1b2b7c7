//! `sluice.toml`, in the root of a package and signed with it: hooks, health checks, the gate.
//!
//! A package without one is a plain tree: it is switched to and counts as healthy.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::caps;
use crate::path::RelPath;
use crate::units::duration_text;

/// The file's name.
pub const FILE_NAME: &str = "sluice.toml";

/// What a package says of its own life on a host.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// Commands run around the switch.
    pub hooks: Hooks,
    /// What must hold after the switch.
    pub health: Vec<HealthCheck>,
    /// How long health must keep holding after the switch before the release counts as active.
    pub gate: Gate,
}

/// The hooks of a package. Each is optional.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// Ends the running application; the release that is being left brings it.
    pub stop: Option<Hook>,
    /// Begins the application after the switch.
    pub start: Option<Hook>,
    /// Says whether the application works: exit status 0.
    pub validate: Option<Hook>,
}

/// One command, run in the release directory without a shell.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Program and arguments; a program with a `/` is taken from the release, others from PATH. `${NAME}` is replaced
    /// from the hook's environment.
    pub command: Vec<String>,
    /// How long it may take before it is ended with everything it started.
    #[serde(default = "hook_timeout", with = "duration_text")]
    pub timeout: Duration,
    /// Further environment variables.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// How health is judged.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gate {
    /// Time from the switch within which every check must have reached its successes in a row.
    #[serde(with = "duration_text")]
    pub deadline: Duration,
    /// Time for which every check must then keep holding.
    #[serde(with = "duration_text")]
    pub bake: Duration,
}

impl Default for Gate {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(60), bake: Duration::ZERO }
    }
}

/// One health check.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "CheckTable")]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Time between two attempts.
    pub interval: Duration,
    /// Time limit of one attempt.
    pub timeout: Duration,
    /// How many attempts in a row must succeed.
    pub successes: u32,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// A GET over plain HTTP/1.1.
    Http {
        /// `http://HOST:PORT/PATH`; `${NAME}` is replaced from the environment.
        url: String,
        /// The status that must be answered.
        status: u16,
        /// Text that the body must hold; `${VERSION}` asks for the version that was deployed.
        contains: Option<String>,
    },
    /// A TCP connection that must be accepted.
    Tcp {
        /// `HOST:PORT`; `${NAME}` is replaced from the environment.
        address: String,
    },
    /// A command that must exit with 0; run as a hook is.
    Command {
        /// Program and arguments.
        command: Vec<String>,
    },
}

/// A `[[health]]` table as written; which fields may stand depends on its type.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckTable {
    r#type: String,
    url: Option<String>,
    status: Option<u16>,
    contains: Option<String>,
    address: Option<String>,
    command: Option<Vec<String>>,
    #[serde(default = "check_interval", with = "duration_text")]
    interval: Duration,
    #[serde(default = "check_timeout", with = "duration_text")]
    timeout: Duration,
    #[serde(default = "check_successes")]
    successes: u32,
}

impl TryFrom<CheckTable> for HealthCheck {
    type Error = String;

    fn try_from(table: CheckTable) -> Result<Self, String> {
        let CheckTable { r#type, url, status, contains, address, command, interval, timeout, successes } =
            table;
        let probe = match (r#type.as_str(), url, address, command) {
            ("http", Some(url), None, None) => Probe::Http { url, status: status.unwrap_or(200), contains },
            ("tcp", None, Some(address), None) if status.is_none() && contains.is_none() => {
                Probe::Tcp { address }
            }
            ("command", None, None, Some(command)) if status.is_none() && contains.is_none() => {
                Probe::Command { command }
            }
            ("http", ..) => {
                return Err("a check of type http takes url, and may take status and contains".into());
            }
            ("tcp", ..) => return Err("a check of type tcp takes address".into()),
            ("command", ..) => return Err("a check of type command takes command".into()),
            (other, ..) => return Err(format!("{other:?} is not a type of check; use http, tcp or command")),
        };
        Ok(Self { probe, interval, timeout, successes })
    }
}

fn hook_timeout() -> Duration {
    caps::HOOK_TIMEOUT
}

fn check_interval() -> Duration {
    Duration::from_secs(1)
}

fn check_timeout() -> Duration {
    Duration::from_secs(5)
}

fn check_successes() -> u32 {
    2
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

    fn check(&self) -> Result<(), SpecError> {
        let hooks =
            [("stop", &self.hooks.stop), ("start", &self.hooks.start), ("validate", &self.hooks.validate)];
        for (name, hook) in hooks {
            if let Some(hook) = hook {
                check_command(&format!("hooks.{name}.command"), &hook.command)?;
                check_duration(&format!("hooks.{name}.timeout"), hook.timeout)?;
            }
        }
        for (i, check) in self.health.iter().enumerate() {
            let field = |name: &str| format!("health[{i}].{name}");
            check_duration(&field("interval"), check.interval)?;
            check_duration(&field("timeout"), check.timeout)?;
            if check.successes == 0 {
                return Err(SpecError::Field {
                    field: field("successes"),
                    reason: "must be at least 1".into(),
                });
            }
            match &check.probe {
                Probe::Http { url, .. } if !url.starts_with("http://") => {
                    let reason =
                        format!("{url:?} must begin with http://; use a command check for anything else");
                    return Err(SpecError::Field { field: field("url"), reason });
                }
                Probe::Command { command } => check_command(&field("command"), command)?,
                Probe::Http { .. } | Probe::Tcp { .. } => {}
            }
        }
        Ok(())
    }
}

fn check_command(field: &str, command: &[String]) -> Result<(), SpecError> {
    let fail = |reason: String| Err(SpecError::Field { field: field.to_owned(), reason });
    match command.first() {
        None => fail("is empty; write a program and its arguments".into()),
        Some(program) if program.starts_with('/') => Ok(()),
        Some(program) if program.contains('/') => {
            match program.strip_prefix("./").unwrap_or(program).parse::<RelPath>() {
                Ok(_) => Ok(()),
                Err(error) => fail(format!("{error}; name a program inside the package")),
            }
        }
        Some(program) if program.is_empty() => fail("has an empty program".into()),
        Some(_) => Ok(()),
    }
}

fn check_duration(field: &str, time: Duration) -> Result<(), SpecError> {
    if time.is_zero() {
        return Err(SpecError::Field { field: field.to_owned(), reason: "must be longer than zero".into() });
    }
    Ok(())
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
