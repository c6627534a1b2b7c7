//! Names of applications, hosts, sites, operators and rollouts; versions and platforms.
//!
//! A name is made by parsing and valid from then on. All of them are safe as a path component and in a log line.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::caps;

/// Says why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not valid: {rule}")]
pub struct NameError {
    what: &'static str,
    text: String,
    rule: &'static str,
}

const LABEL_RULE: &str =
    "use 1 to 63 of a-z, 0-9, '-', '_' and '.', beginning and ending with a letter or digit";
const VERSION_RULE: &str =
    "use 1 to 63 of A-Z, a-z, 0-9, '.', '-', '_' and '+', beginning with a letter or digit";

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    bytes.len() <= caps::NAME_BYTES_MAX
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_version(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= caps::NAME_BYTES_MAX
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:ident, $rule:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $type(String);

        impl $type {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if $check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NameError { what: $what, text: text.chars().take(80).collect(), rule: $rule })
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
    };
}

name!(
    /// Names an application: what is deployed as one unit.
    AppName, "application name", is_label, LABEL_RULE
);
name!(
    /// Names a host; unique in a fleet, bound to the host's certificate.
    HostName, "host name", is_label, LABEL_RULE
);
name!(
    /// Names a site: the hosts behind one link.
    SiteName, "site name", is_label, LABEL_RULE
);
name!(
    /// Names an operator; bound to the operator's certificate.
    OperatorName, "operator name", is_label, LABEL_RULE
);
name!(
    /// Names an environment: the desired releases of many applications, as one file.
    EnvironmentName, "environment name", is_label, LABEL_RULE
);
name!(
    /// Names a rollout: `r` and a number that grows, as in `r42`.
    RolloutId, "rollout id", is_label, LABEL_RULE
);
name!(
    /// The version of a release, as its release engineers write it; Sluice never orders versions.
    Version, "version", is_version, VERSION_RULE
);
name!(
    /// The platform a package is built for, as in `linux-x86_64`, or `any`.
    Platform, "platform", is_label, LABEL_RULE
);

impl Platform {
    /// Returns the platform of packages that run everywhere.
    pub fn any() -> Self {
        Self("any".to_owned())
    }

    /// Returns the platform of this process.
    pub fn of_this_host() -> Self {
        Self(format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_safe_path_components() {
        for good in ["a", "web-1", "shop.api", "r42", "0x"] {
            assert!(good.parse::<AppName>().is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", ".", "..", "-a", "a-", "A", "a/b", "a b", "ä", "a\0", long.as_str()] {
            assert!(bad.parse::<AppName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_take_what_release_engineers_write() {
        for good in ["1", "1.2.3-rc.1+build.5", "v2", "2026_11_21"] {
            assert!(good.parse::<Version>().is_ok(), "{good}");
        }
        for bad in ["", "-1", "../1", "1 2", "1/2"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
        let message = "1/2".parse::<Version>().unwrap_err().to_string();
        assert!(message.contains("version \"1/2\" is not valid"), "{message}");
    }
}
