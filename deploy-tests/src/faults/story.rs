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
pub const STORIES: [Story; 15] = [
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
    Story {
        name: "parallel production",
        before: &[Ask::Active("side-1"), Ask::Staged("side-2")],
        last: Ask::Active("side-2"),
        // A candidate that was interrupted is stopped; the live release was not touched.
        ends: &[("active", Some("side-2")), ("failed", Some("side-1")), ("reverted", Some("side-1"))],
    },
    Story {
        name: "parallel revert",
        before: &[Ask::Active("side-1"), Ask::Staged("side-bad")],
        last: Ask::Active("side-bad"),
        ends: &[("reverted", Some("side-1")), ("failed", Some("side-1"))],
    },
    Story {
        name: "migration",
        before: &[Ask::Active("data-1"), Ask::Staged("data-2")],
        last: Ask::Active("data-2"),
        // A snapshot that was interrupted has changed nothing.
        ends: &[("active", Some("data-2")), ("reverted", Some("data-1")), ("failed", Some("data-1"))],
    },
    Story {
        name: "migration undone",
        before: &[Ask::Active("data-1"), Ask::Staged("data-bad")],
        last: Ask::Active("data-bad"),
        ends: &[("reverted", Some("data-1")), ("failed", Some("data-1"))],
    },
    Story {
        name: "configuration",
        before: &[Ask::Active("conf-1"), Ask::Staged("conf-2")],
        last: Ask::Active("conf-2"),
        ends: &[("active", Some("conf-2")), ("reverted", Some("conf-1"))],
    },
    Story { name: "removal", before: &[Ask::Active("1")], last: Ask::Absent, ends: &[("active", None)] },
];

/// Returns the story of that name.
pub fn named(name: &str) -> Option<&'static Story> {
    STORIES.iter().find(|story| story.name == name)
}

/// Every version, and the `sluice.toml` that it brings.
pub(super) const VERSIONS: [(Version, &[&str]); 15] = [
    ("1", &[]),
    ("2", &[]),
    ("3", &[]),
    ("4", &[]),
    ("bad", &[BAD]),
    ("hooks-1", &[HOOKS]),
    ("hooks-2", &[HOOKS]),
    ("side-1", &[SLOTS]),
    ("side-2", &[SLOTS]),
    ("side-bad", &[SLOTS, BAD]),
    ("data-1", &[DATA]),
    ("data-2", &[DATA]),
    ("data-bad", &[DATA, BAD]),
    ("conf-1", &[CONFIGURATION]),
    ("conf-2", &[CONFIGURATION]),
];

/// What stands in a release on a host beside what was packed: links to what outlives releases.
pub(super) const LINKED: [&str; 3] = ["data", "etc", "etc/local.toml"];

/// Where the shared data say which version they are for.
pub(super) const DATA_FILE: &str = "shared/data/version";

const BAD: &str = "[hooks.validate]\ncommand = [\"/bin/false\"]\n";

const SLOTS: &str = r#"[parallel]
slots = { blue = { PORT = "81" }, green = { PORT = "82" } }
[hooks.candidate]
command = ["/bin/sh", "-c", "echo $GENERATION candidate $RELEASE_VERSION >> $LOG"]
[hooks.switch]
command = ["/bin/sh", "-c", "echo $GENERATION switch $RELEASE_VERSION >> $LOG"]
[hooks.stop]
command = ["/bin/sh", "-c", "echo $GENERATION stop $RELEASE_VERSION >> $LOG"]
"#;

/// Shared data in a linked directory, changed as careful scripts do: whole or not at all, and synced.
const DATA: &str = r#"kind = "shared-data"
linked = ["data"]
linked_files = ["etc/local.toml"]
[hooks.snapshot]
command = ["/bin/sh", "-c", "echo $GENERATION snapshot $RELEASE_VERSION >> $LOG; cp data/version data/kept-$GENERATION; sync data/*; sync data; echo kept-$GENERATION"]
[hooks.migrate]
command = ["/bin/sh", "-c", "echo $GENERATION migrate $RELEASE_VERSION >> $LOG; echo $RELEASE_VERSION > data/new && sync data/new && mv data/new data/version && sync data"]
[hooks.restore]
command = ["/bin/sh", "-c", "echo $GENERATION restore $RELEASE_VERSION >> $LOG; cp data/$SNAPSHOT data/new && sync data/new && mv data/new data/version && sync data"]
"#;

const CONFIGURATION: &str = r#"kind = "configuration"
of = "web"
[hooks.reload]
command = ["/bin/sh", "-c", "echo $GENERATION reload $RELEASE_VERSION >> $LOG"]
"#;

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
