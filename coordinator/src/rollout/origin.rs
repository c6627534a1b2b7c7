//! Where a rollout comes from, where no operator has started it alone: the run of an environment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_common::name::{AppName, EnvironmentName, SiteName};

/// The run of an environment that has started a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The environment.
    pub environment: EnvironmentName,
    /// The count of what was applied of it.
    pub run: u64,
    /// The site with a calendar of its own that it is for; nothing: all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<SiteName>,
    /// Whether it is for hosts that came after the run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_addition: bool,
    /// What each need of the application is met by, which its hooks are told: provider and version, or what is done without it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<AppName, String>,
    /// The applications that it comes together with: none of them switches before all are staged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<AppName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_never_changes() {
        let text = |origin: &Origin| serde_json::to_string(origin).unwrap();
        let (environment, part) = ("shop".parse().unwrap(), Some("lisbon".parse().unwrap()));
        let plain = Origin {
            environment,
            run: 3,
            part: None,
            is_addition: false,
            needs: BTreeMap::new(),
            beside: Vec::new(),
        };
        assert_eq!(text(&plain), r#"{"environment":"shop","run":3}"#);
        let needs = BTreeMap::from([("search".parse().unwrap(), "lists by name".to_owned())]);
        let beside = vec!["web".parse().unwrap()];
        let whole = Origin { part, is_addition: true, needs, beside, ..plain };
        let golden = r#"{"environment":"shop","run":3,"part":"lisbon","is_addition":true,"needs":{"search":"lists by name"},"beside":["web"]}"#;
        assert_eq!(text(&whole), golden);
        assert_eq!(serde_json::from_str::<Origin>(golden).unwrap(), whole);
    }
}
