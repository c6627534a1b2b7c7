//! `fleet.toml` as it is written: names, releases, selections, needs. Read strictly, and written again by an export.
//!
//! Only the form is judged here; what the parts say of each other is checked by [`super::spec`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use sluice_common::name::{AppName, EnvironmentName, HostName, SiteName, Version};
use sluice_common::selector::Selector;
use sluice_common::units::Share;

use super::options::Options;
use crate::rollout::{Freeze, Window};

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name: what it is applied, planned and shown as.
    pub environment: EnvironmentName,
    /// What a failed rollout means for the others of the same run.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// How rollouts go, where an application says nothing else.
    #[serde(default, skip_serializing_if = "Options::is_empty")]
    pub rollout: Options,
    /// Calendars of sites: their windows hold in place of the others, their freezes beside them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sites: BTreeMap<SiteName, SiteCalendar>,
    /// The applications, by name.
    pub applications: BTreeMap<AppName, Application>,
}

/// What a failed rollout means for the others of the same run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// What needs the failed application is not begun; the rest goes on and stays.
    #[default]
    Stop,
    /// What the run has brought goes back too, in reverse order.
    Rollback,
}

/// When hosts of one site may switch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SiteCalendar {
    /// The windows in which they may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// When they may not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freezes: Vec<Freeze>,
}

/// One application.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// The version that its hosts are to run.
    pub release: Version,
    /// Which hosts, by labels; with `sites` and `hosts` all must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Only hosts of these sites.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<SiteName>,
    /// Only these hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostName>,
    /// The versions of its contract that this release honours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provides: Vec<Version>,
    /// What must stand before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// The applications that are its configuration: they come first, and stand beside it in the layout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configuration: Vec<AppName>,
    /// Whether it switches as one with those that it needs, or that need it, and say so too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub atomic: bool,
    /// How its rollouts go.
    #[serde(default, skip_serializing_if = "Options::is_empty")]
    pub rollout: Options,
}

/// Another application that must stand first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// The other application.
    pub app: AppName,
    /// The version of its contract that is used; nothing: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<Version>,
    /// Whether it can be missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// What takes its place then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// How many of its hosts have to stay in service while it is rolled out.
    #[serde(default, deserialize_with = "share", skip_serializing_if = "Option::is_none")]
    pub min_healthy: Option<Share>,
}

/// What takes the place of a missing application.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "write what is done without it, as a text, or { app = \"OTHER\" }")]
pub enum Fallback {
    /// What is done without it, in words.
    Words(String),
    /// Another application, which must stand first instead.
    App(Instead),
}

/// An application in another's place.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Instead {
    /// It.
    pub app: AppName,
}

/// Reads a count, written as a number too, or a percentage.
fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Share>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "write a count, such as 2, or a percentage, such as \"50%\"")]
    enum Said {
        Count(u32),
        Share(Share),
    }
    Ok(Some(match Said::deserialize(deserializer)? {
        Said::Count(count) => Share::Count(count),
        Said::Share(share) => share,
    }))
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words(words) => f.write_str(words),
            Self::App(Instead { app }) => write!(f, "{app} in its place"),
        }
    }
}

impl OnFailure {
    /// Returns the word of the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Rollback => "rollback",
        }
    }
}
