//! Deployments that are disturbed: what stands before, what is ordered last, and how that may end.

use sluice_agent::rehearsal::Call;
use sluice_common::order::Stage;

use super::Scene;

/// A version of the application.
pub type Version = &'static str;

/// What an order asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// A release beside the running one.
    Staged(Version),
    /// A release that runs.
    Active(Version),
    /// Nothing.
    Absent,
}

/// How a story may end: the phase that is told, and the version that `current` leads to.
pub type End = (&'static str, Option<Version>);

/// A deployment.
#[derive(Debug)]
pub struct Story {
    /// What it is called.
    pub name: &'static str,
    /// What is ordered undisturbed, in turn.
    pub before: &'static [Ask],
    /// What is ordered last; faults strike here.
    pub last: Ask,
    /// How it may end, the undisturbed end first.
    pub ends: &'static [End],
}

/// Stage, switch, roll-back and collection, in the order of a host's life.
pub const STORIES: [Story; 10] = [
    Story {
        name: "first install",
        before: &[],
        last: Ask::Active("1"),
        ends: &[("active", Some("1")), ("reverted", None)],
    },
    Story {
        name: "first install with hooks",
        before: &[],
        last: Ask::Active("hooks-1"),
        ends: &[("active", Some("hooks-1")), ("reverted", None)],
    },
    Story {
        name: "stage",
        before: &[Ask::Active("1")],
        last: Ask::Staged("2"),
        ends: &[("staged", Some("1"))],
    },
    Story {
        name: "switch",
        before: &[Ask::Active("1"), Ask::Staged("2")],
        last: Ask::Active("2"),
        // A cut in the gate is a reboot: the release was never validated, and the predecessor comes back.
        ends: &[("active", Some("2")), ("reverted", Some("1"))],
    },
    Story {
        name: "roll-back",
        before: &[Ask::Active("1"), Ask::Active("2")],
        last: Ask::Active("1"),
        ends: &[("active", Some("1")), ("reverted", Some("2"))],
    },
    Story {
        name: "revert",
        before: &[Ask::Active("1"), Ask::Staged("bad")],
        last: Ask::Active("bad"),
        ends: &[("reverted", Some("1"))],
    },
    Story {
        name: "hooks",
        before: &[Ask::Active("hooks-1"), Ask::Staged("hooks-2")],
        last: Ask::Active("hooks-2"),
        // A hook that was interrupted is never run again.
        ends: &[("active", Some("hooks-2")), ("reverted", Some("hooks-1"))],
    },
    Story {
        name: "collection",
        before: &[Ask::Active("1"), Ask::Active("2"), Ask::Active("3")],
        last: Ask::Active("4"),
        ends: &[("active", Some("4")), ("reverted", Some("3"))],
    },
    Story {
        name: "collection while staging",
        before: &[Ask::Active("1"), Ask::Active("2"), Ask::Active("3")],
        last: Ask::Staged("4"),
        ends: &[("staged", Some("3"))],
    },
    Story { name: "removal", before: &[Ask::Active("1")], last: Ask::Absent, ends: &[("active", None)] },
];

/// Returns the story of that name.
pub fn named(name: &str) -> Option<&'static Story> {
    STORIES.iter().find(|story| story.name == name)
}

/// Every version, and the `sluice.toml` that it brings.
pub(super) const VERSIONS: [(Version, &str); 7] =
    [("1", ""), ("2", ""), ("3", ""), ("4", ""), ("bad", BAD), ("hooks-1", HOOKS), ("hooks-2", HOOKS)];

const BAD: &str = "[hooks.validate]\ncommand = [\"/bin/false\"]\n";

/// Hooks that write down that they ran, outside the disk that faults strike.
const HOOKS: &str = r#"[hooks.stop]
command = ["/bin/sh", "-c", "echo $GENERATION stop $RELEASE_VERSION >> $LOG"]
[hooks.start]
command = ["/bin/sh", "-c", "echo $GENERATION start $RELEASE_VERSION >> $LOG"]
[hooks.validate]
command = ["/bin/sh", "-c", "echo $GENERATION validate $RELEASE_VERSION >> $LOG"]
"#;

impl Ask {
    /// Returns the version that is asked for.
    pub fn version(self) -> Option<Version> {
        match self {
            Self::Staged(version) | Self::Active(version) => Some(version),
            Self::Absent => None,
        }
    }

    /// Returns the order as it stands on the command line.
    pub fn call(self, generation: u64, scene: &Scene) -> Call {
        let release = |stage, version: Version| {
            let package = scene.package(version);
            (stage, version.parse().expect("the versions of stories are versions"), package)
        };
        let release = match self {
            Self::Staged(version) => Some(release(Stage::Staged, version)),
            Self::Active(version) => Some(release(Stage::Active, version)),
            Self::Absent => None,
        };
        Call { generation, release }
    }
}

impl Story {
    /// Returns the orders that come before.
    pub fn prelude(&self, scene: &Scene) -> Vec<Call> {
        (1..).zip(self.before).map(|(generation, ask)| ask.call(generation, scene)).collect()
    }

    /// Returns the order that is disturbed.
    pub fn last_call(&self, scene: &Scene) -> Call {
        self.last.call(self.generation(), scene)
    }

    /// Returns the generation of the last order.
    pub fn generation(&self) -> u64 {
        self.before.len() as u64 + 1
    }

    /// Returns the version that runs before the last order.
    pub fn runs_before(&self) -> Option<Version> {
        self.before.iter().rev().find_map(|ask| match ask {
            Ask::Active(version) => Some(*version),
            Ask::Staged(_) | Ask::Absent => None,
        })
    }

    /// Says whether a phase ends the last order.
    pub fn is_terminal(&self, phase: &str) -> bool {
        matches!(phase, "active" | "reverted" | "failed")
            || (phase == "staged" && matches!(self.last, Ask::Staged(_)))
    }
}
