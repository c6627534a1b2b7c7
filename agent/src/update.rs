//! The agent's own update: an ordinary application named [`APP`], whose start is that this process gives way to the release.
//!
//! The release brings `bin/sluice-agent`. Nothing of the agent's own is stopped before: the switch moves `current`, and then
//! [`Own::give_way`] has the process end in good order and become the [`guard`], which becomes what `current` leads to, as the same
//! process. The new agent finds the switch in the state, sees that it is what was to be started, and waits for the
//! coordinator's confirmation like any release that asks for it; without one it goes back the same way. What cannot even
//! start is counted by the guard, which then starts what ran before; that one finds the switch too, and goes back.

pub(crate) mod alive;
pub(crate) mod guard;

use std::path::{Path, PathBuf};

use sluice_common::name::AppName;
use sluice_common::order::Installed;
use sluice_common::spec::Spec;
use tokio_util::sync::CancellationToken;

use crate::layout::AppDir;
use crate::sequence::SwitchStep;

/// The application that is the agent itself.
pub(crate) const APP: &str = "sluice-agent";
/// Its program, in a release.
pub(crate) const PROGRAM: &str = "bin/sluice-agent";

/// What this process knows of its own program.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    /// The application that it is.
    pub(crate) app: AppName,
    /// The program that runs.
    pub(crate) program: PathBuf,
    /// Whether a guard has started it, and can again.
    pub(crate) is_guarded: bool,
    /// The directory's name of the release in whose place the guard has started it, because that one did not start.
    pub(crate) in_place_of: Option<String>,
    /// Asks for an end in good order, to become the guard.
    pub(crate) give_way: CancellationToken,
}

/// What is to be done so that a release of the agent runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// It does.
    Runs,
    /// This process is to give way.
    GiveWay,
    /// It cannot be started; in words.
    Fails(&'static str),
}

impl Own {
    /// Looks at this process.
    pub(crate) fn of_this_process() -> Self {
        Self {
            app: app(),
            program: std::env::current_exe().unwrap_or_default(),
            is_guarded: std::env::var_os(guard::GUARD).is_some(),
            in_place_of: std::env::var(guard::FALLBACK).ok(),
            give_way: CancellationToken::new(),
        }
    }

    /// Decides what is to be done so that `target` runs, which is wanted or, on the way back, its predecessor; nothing: the
    /// program that the host was set up with. Pure.
    pub(crate) fn start(&self, dir: &AppDir, target: Option<&Installed>, is_wanted: bool) -> Start {
        let is_within = |release: &Installed| self.program == dir.release(&release.package).join(PROGRAM);
        let runs = match target {
            Some(release) => is_within(release),
            None => !self.program.starts_with(dir.releases()),
        };
        let did_not_start = target.is_some_and(|release| self.in_place_of == Some(release.package.short()));
        match (runs, self.is_guarded) {
            (true, _) => Start::Runs,
            (false, false) => Start::Fails(
                "this agent was not started by its guard, so it cannot be replaced; have the unit run sluice-agent guard",
            ),
            (false, true) if is_wanted && did_not_start => {
                Start::Fails("the new agent did not start, and its predecessor runs again")
            }
            (false, true) => Start::GiveWay,
        }
    }
}

fn app() -> AppName {
    APP.parse().expect("the agent's own name is a name")
}

/// Returns the steps of the agent's own switch: nothing is stopped before the link moves, but the way back must know that what ran
/// is to be started again.
pub(crate) fn steps() -> Vec<SwitchStep> {
    vec![SwitchStep::StopOld, SwitchStep::Link, SwitchStep::StartNew, SwitchStep::Validate, SwitchStep::Bake]
}

/// Makes what a release of the agent says of itself what it is: it is not active before the coordinator has heard of it.
pub(crate) fn adapt(mut spec: Spec) -> Spec {
    spec.gate.confirm = true;
    spec.parallel = None;
    spec
}

/// Returns the application's directory below `root`.
pub(crate) fn dir(root: &Path) -> AppDir {
    AppDir::new(root, &app())
}

#[cfg(test)]
mod tests {
    use sluice_common::digest::Digest;

    use super::*;

    #[test]
    fn what_runs_is_left_and_what_does_not_is_given_way_to() {
        let dir = dir(Path::new("/srv"));
        let release =
            |name: &str| Installed { package: Digest::of(name.as_bytes()), version: name.parse().unwrap() };
        let (one, two, three) = (release("1"), release("2"), release("3"));
        let program = |release: &Installed| dir.release(&release.package).join(PROGRAM);
        let packaged = PathBuf::from("/usr/bin/sluice-agent");
        let fails = |start: &Start| matches!(start, Start::Fails(_));
        for (name, runs, is_guarded, in_place_of, target, is_wanted, expected) in [
            ("first update", packaged.clone(), true, None, Some(&two), true, Some(Start::GiveWay)),
            ("started", program(&two), true, None, Some(&two), true, Some(Start::Runs)),
            ("next update", program(&one), true, None, Some(&two), true, Some(Start::GiveWay)),
            ("no guard", packaged.clone(), false, None, Some(&two), true, None),
            ("it did not start", program(&one), true, Some(&two), Some(&two), true, None),
            (
                "another did not start",
                program(&one),
                true,
                Some(&three),
                Some(&two),
                true,
                Some(Start::GiveWay),
            ),
            ("way back", program(&two), true, None, Some(&one), false, Some(Start::GiveWay)),
            (
                "way back from what did not start",
                program(&one),
                true,
                Some(&two),
                Some(&one),
                false,
                Some(Start::Runs),
            ),
            (
                "way back to another than the guard chose",
                packaged.clone(),
                true,
                Some(&two),
                Some(&one),
                false,
                Some(Start::GiveWay),
            ),
            (
                "way back to what the host was set up with",
                program(&two),
                true,
                None,
                None,
                false,
                Some(Start::GiveWay),
            ),
            (
                "back at what the host was set up with",
                packaged,
                true,
                Some(&two),
                None,
                false,
                Some(Start::Runs),
            ),
        ] {
            let own = Own {
                app: app(),
                program: runs,
                is_guarded,
                in_place_of: in_place_of.map(|release: &Installed| release.package.short()),
                give_way: CancellationToken::new(),
            };
            let start = own.start(&dir, target, is_wanted);
            match expected {
                Some(expected) => assert_eq!(start, expected, "{name}"),
                None => assert!(fails(&start), "{name}: {start:?}"),
            }
        }
    }
}
