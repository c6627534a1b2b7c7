//! What operators ask of a rollout, and when it may be asked.

use super::action::Action;
use super::model::Rollout;
use super::state::State;

/// An operator's wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Give no new orders for now.
    Pause {
        /// Why, and by whom.
        reason: String,
    },
    /// Go on; failures so far are accepted.
    Resume,
    /// Give it up and leave every host as it is.
    Abort {
        /// Why, and by whom.
        reason: String,
    },
    /// Give hosts that switched their predecessor back.
    RollBack {
        /// Why, and by whom.
        reason: String,
    },
}

/// Says why a rollout does not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rollout {rollout} is {state}; it cannot be {asked}")]
pub struct Refusal {
    rollout: String,
    state: &'static str,
    asked: &'static str,
}

/// Decides what a command changes. Asking for what already is changes nothing, and is no error.
pub fn decide(rollout: &Rollout, command: Command) -> Result<Option<Action>, Refusal> {
    let refuse = |asked| Refusal { rollout: rollout.id.to_string(), state: rollout.state.as_str(), asked };
    match (&rollout.state, command) {
        (State::Running, Command::Pause { reason }) => Ok(Some(Action::Pause { reason })),
        (State::Paused { .. }, Command::Pause { .. }) => Ok(None),
        (_, Command::Pause { .. }) => Err(refuse("paused")),
        (State::Paused { .. }, Command::Resume) => Ok(Some(Action::Resume)),
        (State::Running, Command::Resume) => Ok(None),
        (_, Command::Resume) => Err(refuse("resumed")),
        (State::Running | State::Paused { .. } | State::RollingBack { .. }, Command::Abort { reason }) => {
            Ok(Some(Action::Finish { state: State::Aborted { reason } }))
        }
        (State::Aborted { .. }, Command::Abort { .. }) => Ok(None),
        (State::Succeeded | State::RolledBack { .. } | State::Failed { .. }, Command::Abort { .. }) => {
            Err(refuse("aborted"))
        }
        (
            State::Running | State::Paused { .. } | State::Succeeded | State::Aborted { .. },
            Command::RollBack { reason },
        ) => Ok(Some(Action::BeginRollback { reason })),
        (State::RollingBack { .. } | State::RolledBack { .. }, Command::RollBack { .. }) => Ok(None),
        (State::Failed { .. }, Command::RollBack { .. }) => Err(refuse("rolled back")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::testing::rollout;

    #[test]
    fn each_state_takes_its_commands() {
        let why = || "by alice".to_owned();
        let states = ["running", "paused", "rolling-back", "succeeded", "rolled-back", "failed", "aborted"];
        // One letter a state: what the command leads to (`-` nothing changes, `!` refused).
        for (command, outcomes) in [
            (Command::Pause { reason: why() }, "P-!!!!!"),
            (Command::Resume, "-R!!!!!"),
            (Command::Abort { reason: why() }, "AAA!!!-"),
            (Command::RollBack { reason: why() }, "BB-B-!B"),
        ] {
            let seen: String = states
                .iter()
                .map(|name| {
                    let mut rollout = rollout(1);
                    rollout.state = State::from_parts(name, Some(why())).unwrap();
                    match decide(&rollout, command.clone()) {
                        Ok(None) => '-',
                        Ok(Some(Action::Pause { .. })) => 'P',
                        Ok(Some(Action::Resume)) => 'R',
                        Ok(Some(Action::Finish { state: State::Aborted { .. } })) => 'A',
                        Ok(Some(Action::BeginRollback { .. })) => 'B',
                        Ok(Some(other)) => panic!("{other:?}"),
                        Err(_) => '!',
                    }
                })
                .collect();
            assert_eq!(seen, outcomes, "{command:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_stands_in_the_way() {
        let mut rollout = rollout(1);
        rollout.state = State::Succeeded;
        let refusal = decide(&rollout, Command::Abort { reason: String::new() }).unwrap_err();
        assert_eq!(refusal.to_string(), "rollout r1 is succeeded; it cannot be aborted");
    }
}
