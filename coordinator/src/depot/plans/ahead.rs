//! What a transfer will be, before anybody is ordered to have it.

use std::sync::Arc;

use sluice_common::digest::Digest;
use sluice_common::manifest::Content;

use super::{Link, PlanError, Plans};

/// What a host would be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// The package that it has; nothing for a cold install.
    pub base: Option<Digest>,
    /// `sluice.toml`, manifest, plan and frames.
    pub wire_bytes: u64,
    /// Frames.
    pub frames: u64,
    /// Bytes of the target's contents that the base has not.
    pub new_bytes: u64,
}

impl Plans {
    /// Says what a host would be sent that has these packages: by the plan that it would get over its link, which is made
    /// where there is none yet.
    pub async fn ahead(
        self: &Arc<Self>,
        target: Digest,
        has: &[Digest],
        link: Link,
    ) -> Result<Ahead, Arc<PlanError>> {
        if has.contains(&target) {
            return Ok(Ahead { base: Some(target), wire_bytes: 0, frames: 0, new_bytes: 0 });
        }
        let base = self.choose_base(target, has).await?;
        let plan = self.get(base, target, link).await?;
        let package = |digest| async move { self.depot.package(digest).await.map_err(PlanError::from) };
        let base = match plan.base {
            Some(base) => Some(package(base).await?),
            None => None,
        };
        let target = package(target).await?;
        let has = |content: &Content| {
            base.as_ref().is_some_and(|base| base.manifest.content_number(&content.digest).is_some())
        };
        let new = target.contents().iter().filter(|content| !has(content));
        Ok(Ahead {
            base: plan.base,
            wire_bytes: plan.wire_bytes(),
            frames: plan.frames.len() as u64,
            new_bytes: new.map(|content| content.size).sum(),
        })
    }

    /// Returns the text of a package's `sluice.toml`; empty where it has none.
    pub async fn spec_text(&self, package: Digest) -> String {
        String::from_utf8_lossy(&self.depot.spec(package).await).into_owned()
    }
}
