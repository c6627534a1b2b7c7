//! Whether a release can run beside another one, as its `sluice.toml` says, asked before a rollout that needs it is started. A release
//! whose file cannot be read passes: the hosts find out, and say so.

use std::collections::BTreeSet;

use sluice_common::digest::Digest;
use sluice_common::name::{AppName, Version};

use super::forecast::Surroundings;
use super::handle::StartError;
use super::spec::Spec;

/// Refuses packages that have no slots, where the strategy needs them.
pub(super) async fn check_slots(
    app: &AppName,
    version: &Version,
    spec: &Spec,
    packages: BTreeSet<Digest>,
    surroundings: &dyn Surroundings,
) -> Result<(), StartError> {
    if !spec.strategy.has_candidates() {
        return Ok(());
    }
    for package in packages {
        if surroundings.has_slots(package).await == Some(false) {
            return Err(StartError::NoSlots { app: app.clone(), version: version.clone() });
        }
    }
    Ok(())
}
