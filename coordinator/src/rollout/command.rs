//! What operators ask of a rollout, and when it may be asked.

use sluice_common::name::{OperatorName, RolloutId};

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
    /// Agree to the first switch.
    Approve {
        /// Who does.
        by: OperatorName,
    },
    /// Switch whatever the calendar says.
    Override {
        /// Why, and by whom.
        reason: String,
    },
}

/// Says why a rollout does not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its state does not allow it.
    #[error("rollout {rollout} is {state}; it cannot be {asked}")]
    State {
        /// The rollout.
        rollout: RolloutId,
        /// Where it stands.
        state: &'static str,
        /// What was asked, as a participle.
        asked: &'static str,
    },
    /// Who started it does not approve it.
    #[error("{starter} started rollout {rollout}; somebody else has to approve it")]
    OwnRollout {
        /// The rollout.
        rollout: RolloutId,
        /// Who started it.
        starter: OperatorName,
    },
    /// There is nothing to approve or to override.
    #[error(
        "rollout {rollout} asks for no {what}; it waits for something else: sluice rollout show {rollout}"
    )]
    NotAsked {
        /// The rollout.
        rollout: RolloutId,
        /// What it does not ask for.
        what: &'static str,
    },
}

/// Decides what a command changes. Asking for what already is changes nothing, and is no error.
pub fn decide(rollout: &Rollout, command: Command) -> Result<Option<Action>, Refusal> {
    let refuse = |asked| Refusal::State { rollout: rollout.id.clone(), state: rollout.state.as_str(), asked };
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
        (State::Running | State::Paused { .. }, Command::Approve { by }) => approve(rollout, by),
        (_, Command::Approve { .. }) => Err(refuse("approved")),
        (State::Running | State::Paused { .. }, Command::Override { reason }) => {
            override_calendar(rollout, reason)
        }
        (_, Command::Override { .. }) => Err(refuse("overridden")),
    }
}

fn approve(rollout: &Rollout, by: OperatorName) -> Result<Option<Action>, Refusal> {
    if rollout.spec.approvals == 0 {
        return Err(Refusal::NotAsked { rollout: rollout.id.clone(), what: "approval" });
    }
    if by == rollout.started_by {
        return Err(Refusal::OwnRollout { rollout: rollout.id.clone(), starter: by });
    }
    Ok((!rollout.approvals.contains_key(&by)).then_some(Action::Approve { by }))
}

fn override_calendar(rollout: &Rollout, reason: String) -> Result<Option<Action>, Refusal> {
    if rollout.spec.calendar.is_empty() {
        return Err(Refusal::NotAsked { rollout: rollout.id.clone(), what: "window or freeze" });
    }
    Ok(rollout.overridden.is_none().then_some(Action::Override { reason }))
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
            (Command::Approve { by: "bob".parse().unwrap() }, "YY!!!!!"),
            (Command::Override { reason: why() }, "OO!!!!!"),
        ] {
            let seen: String = states
                .iter()
                .map(|name| {
                    let mut rollout = rollout(1);
                    rollout.state = State::from_parts(name, Some(why())).unwrap();
                    rollout.spec.approvals = 1;
                    rollout.spec.calendar.windows.push("daily 20:00-23:00 UTC".parse().unwrap());
                    match decide(&rollout, command.clone()) {
                        Ok(None) => '-',
                        Ok(Some(Action::Pause { .. })) => 'P',
                        Ok(Some(Action::Resume)) => 'R',
                        Ok(Some(Action::Finish { state: State::Aborted { .. } })) => 'A',
                        Ok(Some(Action::BeginRollback { .. })) => 'B',
                        Ok(Some(Action::Approve { .. })) => 'Y',
                        Ok(Some(Action::Override { .. })) => 'O',
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

    #[test]
    fn nobody_approves_alone_twice_or_in_vain() {
        let mut rollout = rollout(1);
        let approve = |rollout: &Rollout, by: &str| {
            decide(rollout, Command::Approve { by: by.parse().unwrap() })
                .map_err(|refusal| refusal.to_string())
        };
        let vain = "rollout r1 asks for no approval; it waits for something else: sluice rollout show r1";
        assert_eq!(approve(&rollout, "bob"), Err(vain.to_owned()));
        rollout.spec.approvals = 2;
        let own = "alice started rollout r1; somebody else has to approve it";
        assert_eq!(approve(&rollout, "alice"), Err(own.to_owned()));
        let action = approve(&rollout, "bob").unwrap().unwrap();
        rollout.apply(&action, rollout.started);
        assert_eq!(approve(&rollout, "bob"), Ok(None));
    }

    #[test]
    fn a_calendar_is_overridden_once_and_only_where_there_is_one() {
        let mut rollout = rollout(1);
        let asked = Command::Override { reason: "by bob: leak".to_owned() };
        let vain =
            "rollout r1 asks for no window or freeze; it waits for something else: sluice rollout show r1";
        assert_eq!(decide(&rollout, asked.clone()).unwrap_err().to_string(), vain);
        rollout.spec.calendar.windows.push("daily 20:00-23:00 UTC".parse().unwrap());
        let action = decide(&rollout, asked.clone()).unwrap().unwrap();
        rollout.apply(&action, rollout.started);
        assert_eq!(rollout.overridden.as_deref(), Some("by bob: leak"));
        assert_eq!(decide(&rollout, asked), Ok(None));
    }
}
