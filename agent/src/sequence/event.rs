//! What a release is told on its way, and whether it has an answer: a hook, or a built-in action.

use sluice_common::spec::{Hook, Service, Spec};

/// What a release is told: names a hook, and the built-in action in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// The release is on disk.
    Stage,
    /// Start in a slot.
    Candidate,
    /// Keep requests away.
    Drain,
    /// Stop.
    Stop,
    /// Move what points at the application.
    Switch,
    /// Start.
    Start,
    /// Take the release without a restart.
    Reload,
    /// Say whether it works.
    Validate,
    /// Let requests in.
    Undrain,
    /// Undo.
    Rollback,
    /// Keep the shared data.
    Snapshot,
    /// Change the shared data.
    Migrate,
    /// Bring the shared data back.
    Restore,
}

impl Event {
    /// Returns the hook's name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Candidate => "candidate",
            Self::Drain => "drain",
            Self::Stop => "stop",
            Self::Switch => "switch",
            Self::Start => "start",
            Self::Reload => "reload",
            Self::Validate => "validate",
            Self::Undrain => "undrain",
            Self::Rollback => "rollback",
            Self::Snapshot => "snapshot",
            Self::Migrate => "migrate",
            Self::Restore => "restore",
        }
    }

    /// Returns the hook of a release.
    pub(crate) fn hook(self, spec: &Spec) -> Option<&Hook> {
        let hooks = &spec.hooks;
        match self {
            Self::Stage => &hooks.stage,
            Self::Candidate => &hooks.candidate,
            Self::Drain => &hooks.drain,
            Self::Stop => &hooks.stop,
            Self::Switch => &hooks.switch,
            Self::Start => &hooks.start,
            Self::Reload => &hooks.reload,
            Self::Validate => &hooks.validate,
            Self::Undrain => &hooks.undrain,
            Self::Rollback => &hooks.rollback,
            Self::Snapshot => &hooks.snapshot,
            Self::Migrate => &hooks.migrate,
            Self::Restore => &hooks.restore,
        }
        .as_ref()
    }

    /// Says whether a release has an answer to this: a hook, or a built-in action in its place. Where releases run beside
    /// each other, one takes the requests over from the other; where they do not, requests are kept away meanwhile.
    pub(crate) fn is_answered(self, spec: &Spec, is_parallel: bool) -> bool {
        let has_service = spec.service.is_some();
        let has_action = match self {
            Self::Candidate | Self::Stop | Self::Start => has_service,
            Self::Reload => spec.service.as_ref().is_some_and(Service::can_reload),
            Self::Drain | Self::Undrain => !is_parallel && !spec.traffic.is_empty(),
            Self::Switch => is_parallel && !spec.traffic.is_empty(),
            Self::Stage
            | Self::Validate
            | Self::Rollback
            | Self::Snapshot
            | Self::Migrate
            | Self::Restore => false,
        };
        self.hook(spec).is_some() || has_action
    }
}
