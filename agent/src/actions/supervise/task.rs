//! What a supervisor runs, on disk between the agent and it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use sluice_common::digest::Digest;
use sluice_common::spec::{Exec, SignalName};

use crate::actions::{ActionError, Scene};

/// The file's name.
pub(super) const FILE: &str = "task.json";

/// What every application's environment begins with, as a hook's does.
const BASE: [(&str, &str); 2] =
    [("LANG", "C.UTF-8"), ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")];

/// A command with every variable replaced. Read by supervisors of other versions: fields are only added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Task {
    program: PathBuf,
    arguments: Vec<String>,
    directory: PathBuf,
    environment: BTreeMap<String, String>,
    user: Option<String>,
    reload: Option<String>,
    stop: String,
    stop_timeout_ms: u64,
}

impl Task {
    /// Replaces the variables of a command.
    pub(super) fn new(exec: &Exec, stop_timeout: Duration, scene: &Scene) -> Result<Self, ActionError> {
        let Exec { command, environment, user, reload, stop } = exec;
        let mut scene = scene.clone();
        scene.environment.extend(environment.clone());
        let words = command.iter().map(|word| scene.fill("service.exec", word));
        let mut words = words.collect::<Result<Vec<_>, _>>()?;
        if words.is_empty() {
            return Err(ActionError::failed("service.exec is empty; write a program and its arguments"));
        }
        let program = words.remove(0);
        let program = if program.contains('/') && !program.starts_with('/') {
            scene.release.join(program.strip_prefix("./").unwrap_or(&program))
        } else {
            program.into()
        };
        let mut variables = BASE
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect::<BTreeMap<_, _>>();
        variables.append(&mut scene.environment);
        Ok(Self {
            program,
            arguments: words,
            directory: scene.release,
            environment: variables,
            user: user.clone(),
            reload: reload.map(|signal| name(signal).to_owned()),
            stop: name(*stop).to_owned(),
            stop_timeout_ms: u64::try_from(stop_timeout.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Reads the task of a supervisor.
    pub(super) fn load(dir: &Path) -> std::io::Result<Self> {
        serde_json::from_slice(&fs_err::read(dir.join(FILE))?).map_err(std::io::Error::other)
    }

    /// Returns its text.
    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("strings and numbers are always JSON")
    }

    /// Names the task by its content.
    pub(super) fn digest(&self) -> String {
        Digest::of(&self.to_json()).short()
    }

    /// Returns the command, ready to be started.
    pub(super) fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.directory).env_clear().envs(&self.environment);
        command
    }

    /// Names the program.
    pub(super) fn program(&self) -> std::path::Display<'_> {
        self.program.display()
    }

    /// Whom it runs as; the supervisor's own user otherwise.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns the signal at which it takes its configuration anew.
    pub(super) fn reload(&self) -> Option<Signal> {
        self.reload.as_deref().and_then(signal)
    }

    /// Returns the signal at which it ends.
    pub(super) fn stop(&self) -> Signal {
        signal(&self.stop).unwrap_or(Signal::TERM)
    }

    /// Returns the time that it has for ending.
    pub(super) fn stop_timeout(&self) -> Duration {
        Duration::from_millis(self.stop_timeout_ms)
    }
}

const SIGNALS: [(SignalName, &str, Signal); 6] = [
    (SignalName::Hup, "HUP", Signal::HUP),
    (SignalName::Int, "INT", Signal::INT),
    (SignalName::Quit, "QUIT", Signal::QUIT),
    (SignalName::Usr1, "USR1", Signal::USR1),
    (SignalName::Usr2, "USR2", Signal::USR2),
    (SignalName::Term, "TERM", Signal::TERM),
];

fn name(signal: SignalName) -> &'static str {
    SIGNALS.iter().find(|(known, ..)| *known == signal).map_or("TERM", |(_, name, _)| name)
}

fn signal(name: &str) -> Option<Signal> {
    SIGNALS.iter().find(|(_, known, _)| *known == name).map(|(.., signal)| *signal)
}
