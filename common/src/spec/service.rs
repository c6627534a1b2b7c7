//! `[service]`: how the application's processes are started and ended without a script.
//!
//! Either systemd runs it (`systemd = "shop.service"`), or the agent does (`exec = ["bin/shop"]`), for hosts without
//! systemd.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::SpecError;
use super::rules::{check_command, check_duration, check_unit};
use crate::units::duration_text;

/// How the processes of an application are run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "ServiceTable")]
pub struct Service {
    /// Who runs them.
    pub runner: Runner,
    /// Time that starting, stopping or reloading may take. Of `exec`, the time between the stop signal and KILL.
    pub stop_timeout: Duration,
}

/// Who runs an application's processes.
#[derive(Debug, Clone, PartialEq)]
pub enum Runner {
    /// The host's systemd.
    Systemd {
        /// The unit; `${NAME}` is replaced from the environment.
        unit: String,
        /// Whether it takes a new release or configuration by `systemctl reload`.
        can_reload: bool,
    },
    /// The agent.
    Exec(Exec),
}

/// A command that the agent keeps running.
#[derive(Debug, Clone, PartialEq)]
pub struct Exec {
    /// Program and arguments, as those of a hook.
    pub command: Vec<String>,
    /// Further environment variables.
    pub environment: BTreeMap<String, String>,
    /// Whom it runs as; the agent's own user otherwise.
    pub user: Option<String>,
    /// What asks it to take a new release or configuration.
    pub reload: Option<SignalName>,
    /// What asks it to end.
    pub stop: SignalName,
}

/// A signal that a service may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SignalName {
    /// Terminal gone; by custom: read the configuration anew.
    Hup,
    /// Interrupt.
    Int,
    /// End and write a core.
    Quit,
    /// The application's own.
    Usr1,
    /// The application's own.
    Usr2,
    /// End.
    Term,
}

/// `[service]` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceTable {
    systemd: Option<String>,
    exec: Option<Vec<String>>,
    environment: Option<BTreeMap<String, String>>,
    user: Option<String>,
    reload: Option<Reload>,
    stop_signal: Option<SignalName>,
    #[serde(default = "stop_timeout", with = "duration_text")]
    stop_timeout: Duration,
}

/// `reload = true` for systemd, `reload = "HUP"` for a command.
#[derive(Deserialize)]
#[serde(untagged, expecting = "reload is true, false, or a signal: HUP, INT, QUIT, USR1, USR2 or TERM")]
enum Reload {
    Flag(bool),
    Signal(SignalName),
}

impl TryFrom<ServiceTable> for Service {
    type Error = String;

    fn try_from(table: ServiceTable) -> Result<Self, String> {
        let ServiceTable { systemd, exec, environment, user, reload, stop_signal, stop_timeout } = table;
        let runner = match (systemd, exec) {
            (Some(unit), None) => {
                let only_exec = [
                    ("environment", environment.is_some()),
                    ("user", user.is_some()),
                    ("stop_signal", stop_signal.is_some()),
                ];
                if let Some((field, _)) = only_exec.iter().find(|(_, stands)| *stands) {
                    return Err(format!("service.{field} goes with exec; with systemd the unit says it"));
                }
                let can_reload = match reload {
                    None => false,
                    Some(Reload::Flag(flag)) => flag,
                    Some(Reload::Signal(_)) => {
                        return Err(
                            "service.reload is true or false with systemd; the unit's ExecReload says how"
                                .into(),
                        );
                    }
                };
                Runner::Systemd { unit, can_reload }
            }
            (None, Some(command)) => {
                let reload = match reload {
                    None | Some(Reload::Flag(false)) => None,
                    Some(Reload::Flag(true)) => {
                        return Err("service.reload is a signal with exec, as in \"HUP\"".into());
                    }
                    Some(Reload::Signal(signal)) => Some(signal),
                };
                let stop = stop_signal.unwrap_or(SignalName::Term);
                Runner::Exec(Exec {
                    command,
                    environment: environment.unwrap_or_default(),
                    user,
                    reload,
                    stop,
                })
            }
            (Some(_), Some(_)) => return Err("service has systemd and exec; write one of them".into()),
            (None, None) => {
                return Err(
                    "service has neither systemd nor exec; write systemd = \"UNIT\" or exec = [\"PROGRAM\"]"
                        .into(),
                );
            }
        };
        Ok(Self { runner, stop_timeout })
    }
}

/// What systemd itself allows by default (`DefaultTimeoutStopSec`).
fn stop_timeout() -> Duration {
    Duration::from_secs(90)
}

impl Service {
    /// Says whether it takes a new release or configuration without a restart.
    pub fn can_reload(&self) -> bool {
        match &self.runner {
            Runner::Systemd { can_reload, .. } => *can_reload,
            Runner::Exec(exec) => exec.reload.is_some(),
        }
    }

    /// Checks the values; the error names the field.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        check_duration("service.stop_timeout", self.stop_timeout)?;
        match &self.runner {
            Runner::Systemd { unit, .. } => check_unit("service.systemd", unit),
            Runner::Exec(exec) => check_command("service.exec", &exec.command),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Service, String> {
        let service: Service = toml::from_str(text).map_err(|error| error.to_string())?;
        service.check().map_err(|error| error.to_string())?;
        Ok(service)
    }

    #[test]
    fn both_runners_are_read() {
        let unit = read("systemd = \"shop@${SLOT}.service\"\nreload = true\nstop_timeout = \"20s\"").unwrap();
        assert_eq!(unit.runner, Runner::Systemd { unit: "shop@${SLOT}.service".into(), can_reload: true });
        assert!(unit.can_reload() && unit.stop_timeout == Duration::from_secs(20));
        let exec = read(
            "exec = [\"bin/shop\"]\nenvironment = { A = \"b\" }\nuser = \"www\"\nreload = \"HUP\"\nstop_signal = \"INT\"",
        );
        let Runner::Exec(exec) = exec.unwrap().runner else { panic!("exec") };
        assert_eq!((exec.stop, exec.reload), (SignalName::Int, Some(SignalName::Hup)));
        assert_eq!((exec.user.as_deref(), exec.environment["A"].as_str()), (Some("www"), "b"));
        assert!(!read("exec = [\"bin/shop\"]").unwrap().can_reload());
    }

    #[test]
    fn mistakes_name_field_and_remedy() {
        for (text, expected) in [
            ("", "neither systemd nor exec"),
            ("systemd = \"a.service\"\nexec = [\"x\"]", "write one of them"),
            ("systemd = \"shop\"", "as in \"shop.service\""),
            ("systemd = \".service\"", "as in \"shop.service\""),
            ("systemd = \"--now.service\"", "is an option"),
            ("systemd = \"a b.service\"", "' '"),
            ("systemd = \"*.service\"", "'*'"),
            ("systemd = \"a.service\"\nreload = \"HUP\"", "service.reload is true or false"),
            ("systemd = \"a.service\"\nuser = \"www\"", "service.user goes with exec"),
            ("exec = []", "service.exec"),
            ("exec = [\"../x\"]", "service.exec"),
            ("exec = [\"x\"]\nreload = true", "as in \"HUP\""),
            ("exec = [\"x\"]\nreload = \"KILL\"", "HUP, INT, QUIT, USR1, USR2 or TERM"),
            ("exec = [\"x\"]\nstop_timeout = \"0s\"", "service.stop_timeout"),
            ("exec = [\"x\"]\nrestart = true", "restart"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
