//! What the demonstration rolls out, and how.

use std::path::PathBuf;

/// One release of the demonstration.
#[derive(Debug, Clone)]
pub(super) struct DemoRelease {
    /// The application.
    pub(super) app: String,
    /// The version.
    pub(super) version: String,
    /// The directory that is packed.
    pub(super) tree: PathBuf,
    /// What a person is told before it rolls out.
    pub(super) story: &'static str,
    /// Whether it is meant to succeed.
    pub(super) succeeds: bool,
}

/// Returns the releases of directories that were given, versions counted from 1.
pub(super) fn given(trees: &[PathBuf]) -> Vec<DemoRelease> {
    let release = |(number, tree): (usize, &PathBuf)| DemoRelease {
        app: "tree".to_owned(),
        version: (number + 1).to_string(),
        tree: tree.clone(),
        story: "rolling out a directory of yours",
        succeeds: true,
    };
    trees.iter().enumerate().map(release).collect()
}

/// How a release is rolled out.
pub(super) struct RolloutOptions {
    bake: &'static str,
}

impl RolloutOptions {
    pub(super) fn of(release: &DemoRelease) -> Self {
        Self { bake: if release.app == super::application::NAME { "1s" } else { "0s" } }
    }

    /// Returns the command line that starts the rollout and watches it to its end.
    pub(super) fn arguments(&self, release: &DemoRelease) -> Vec<String> {
        let words = [
            "rollout",
            "start",
            &release.app,
            &release.version,
            "--canary",
            "1",
            "--batch",
            "50%",
            "--bake",
            self.bake,
            "--max-unavailable",
            "50%",
            "--timeout",
            "30m",
        ];
        words.map(str::to_owned).to_vec()
    }
}
