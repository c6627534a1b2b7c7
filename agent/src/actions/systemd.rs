//! Units of systemd, by `systemctl`: it waits for the unit's own job, and its answers are stable across versions.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{ActionError, Scene, command};

/// Time limit of asking for a unit's state.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// A unit of the host's systemd.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unit<'a> {
    scene: &'a Scene,
    name: String,
    systemctl: String,
}

/// How a unit stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// It runs.
    Active,
    /// It does not; in systemd's words.
    Inactive(String),
    /// The host has no such unit.
    Missing,
}

impl<'a> Unit<'a> {
    /// Names a unit; `${NAME}` is replaced from the scene's variables.
    pub(crate) fn new(scene: &'a Scene, name: &str) -> Result<Self, ActionError> {
        let name = scene.fill("systemd", name)?;
        // What a variable brings must not become an option.
        if name.starts_with('-') || name.contains(char::is_whitespace) {
            return Err(ActionError::failed(format!(
                "{name:?} is no name of a unit; see the variables in agent.toml"
            )));
        }
        Ok(Self { scene, name, systemctl: "systemctl".into() })
    }

    /// Starts the unit and waits until systemd has.
    pub(crate) async fn start(&self, limit: Duration, token: &CancellationToken) -> Result<(), ActionError> {
        self.tell("start", limit, token).await
    }

    /// Stops the unit; one that the host does not have counts as stopped.
    pub(crate) async fn stop(&self, limit: Duration, token: &CancellationToken) -> Result<(), ActionError> {
        match self.state(token).await? {
            State::Missing => Ok(()),
            State::Active | State::Inactive(_) => self.tell("stop", limit, token).await,
        }
    }

    /// Stops and starts the unit.
    pub(crate) async fn restart(
        &self,
        limit: Duration,
        token: &CancellationToken,
    ) -> Result<(), ActionError> {
        self.tell("restart", limit, token).await
    }

    /// Has the unit take its configuration anew; starts it where it does not run.
    pub(crate) async fn reload(&self, limit: Duration, token: &CancellationToken) -> Result<(), ActionError> {
        match self.state(token).await? {
            State::Active => self.tell("reload", limit, token).await,
            State::Inactive(_) | State::Missing => self.tell("start", limit, token).await,
        }
    }

    /// Sees that the unit is active; the error says how it stands otherwise.
    pub(crate) async fn expect_active(&self, token: &CancellationToken) -> Result<(), ActionError> {
        match self.state(token).await? {
            State::Active => Ok(()),
            State::Inactive(state) => Err(ActionError::failed(format!("{} is {state}", self.name))),
            State::Missing => Err(self.missing()),
        }
    }

    async fn tell(&self, verb: &str, limit: Duration, token: &CancellationToken) -> Result<(), ActionError> {
        let words = [&self.systemctl, "--no-ask-password", verb, "--", &self.name].map(str::to_owned);
        match command::run(self.scene, &words, limit, token).await {
            Ok(_) => Ok(()),
            // systemctl's 5: not installed; 4: no such unit.
            Err(ActionError::Failed { reason, .. })
                if reason.ends_with("status 5") || reason.ends_with("status 4") =>
            {
                Err(self.missing())
            }
            Err(ActionError::Failed { reason, output }) => {
                let reason = format!("{reason}; journalctl -u {} says more", self.name);
                Err(ActionError::Failed { reason, output })
            }
            Err(ActionError::Interrupted) => Err(ActionError::Interrupted),
        }
    }

    async fn state(&self, token: &CancellationToken) -> Result<State, ActionError> {
        const PROPERTIES: &str = "--property=LoadState,ActiveState,SubState,Result";
        let words = [&self.systemctl, "show", PROPERTIES, "--", &self.name].map(str::to_owned);
        Ok(parse(&command::run(self.scene, &words, ASK_TIMEOUT, token).await?))
    }

    fn missing(&self) -> ActionError {
        ActionError::failed(format!(
            "the host has no unit {}; install it and run systemctl daemon-reload",
            self.name
        ))
    }
}

/// Reads the answer of `systemctl show`.
fn parse(text: &str) -> State {
    let value = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default()
    };
    match (value("LoadState"), value("ActiveState")) {
        ("not-found" | "masked" | "", _) => State::Missing,
        (_, "active" | "reloading") => State::Active,
        (_, state) => {
            let result = match value("Result") {
                "" | "success" => String::new(),
                result => format!(": {result}"),
            };
            State::Inactive(format!("{state} ({}){result}", value("SubState")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::actions::testing::scene;

    #[test]
    fn states_are_told_apart() {
        for (text, expected) in [
            ("LoadState=loaded\nActiveState=active\nSubState=running\nResult=success", State::Active),
            ("LoadState=loaded\nActiveState=reloading\nSubState=reload", State::Active),
            ("LoadState=not-found\nActiveState=inactive\nSubState=dead", State::Missing),
            ("", State::Missing),
            (
                "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code",
                State::Inactive("failed (failed): exit-code".into()),
            ),
            (
                "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nResult=success",
                State::Inactive("activating (auto-restart)".into()),
            ),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    /// A systemctl that answers from a file and writes down what it was told.
    fn fake(dir: &std::path::Path, state: &str, status: u8) -> String {
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = show ]; then printf '{state}'; exit 0; fi\n\
             echo \"$*\" >> {0}/told; echo cannot; exit {status}\n",
            dir.display()
        );
        let path = dir.join("systemctl");
        fs_err::write(&path, script).unwrap();
        fs_err::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path.to_string_lossy().into_owned()
    }

    #[tokio::test]
    async fn verbs_reach_systemctl_and_failures_name_a_remedy() {
        const ACTIVE: &str = "LoadState=loaded\\nActiveState=active\\n";
        const MISSING: &str = "LoadState=not-found\\nActiveState=inactive\\n";
        let (limit, token) = (Duration::from_secs(60), CancellationToken::new());
        for (verb, state, status, told, expected) in [
            ("start", ACTIVE, 0, "--no-ask-password start -- shop@blue.service\n", None),
            ("reload", ACTIVE, 0, "--no-ask-password reload -- shop@blue.service\n", None),
            ("reload", MISSING, 0, "--no-ask-password start -- shop@blue.service\n", None),
            ("stop", ACTIVE, 0, "--no-ask-password stop -- shop@blue.service\n", None),
            ("stop", MISSING, 5, "", None),
            ("start", MISSING, 5, "", Some("no unit shop@blue.service; install it")),
            ("start", ACTIVE, 1, "", Some("journalctl -u shop@blue.service")),
            ("active", ACTIVE, 0, "", None),
            ("active", MISSING, 0, "", Some("no unit")),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let scene = scene(dir.path(), &[("SLOT", "blue")]);
            let mut unit = Unit::new(&scene, "shop@${SLOT}.service").unwrap();
            unit.systemctl = fake(dir.path(), state, status);
            let done = match verb {
                "start" => unit.start(limit, &token).await,
                "stop" => unit.stop(limit, &token).await,
                "reload" => unit.reload(limit, &token).await,
                _ => unit.expect_active(&token).await,
            };
            match (done, expected) {
                (Ok(()), None) => {
                    let log = fs_err::read_to_string(dir.path().join("told")).unwrap_or_default();
                    assert_eq!(log, told, "{verb}");
                }
                (Err(error), Some(text)) => assert!(error.to_string().contains(text), "{verb}: {error}"),
                (done, _) => panic!("{verb}: {done:?}"),
            }
        }
    }

    #[test]
    fn variables_never_become_options() {
        let dir = tempfile::tempdir().unwrap();
        let scene = scene(dir.path(), &[("UNIT", "--force")]);
        assert!(Unit::new(&scene, "${UNIT}.service").is_err());
        assert!(Unit::new(&scene, "${NONE}.service").unwrap_err().to_string().contains("NONE"));
    }
}
